//! What a reader believes of a log file: whole batches up to the end, and why that is the end.

use tidelog_disk::{Disk, DiskError};

use crate::frame::{self, FRAME_ALIGNMENT, FRAME_HEADER_SIZE, FRAME_MAGIC, Frame, FrameHead};
use crate::header::{Header, LOG_START, LogFile};
use crate::{FramePlace, RecoverError};

/// Bytes read at once; longer frames are read by themselves.
const WINDOW_SIZE: usize = 1024 * 1024;

/// What was found when a log was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogReport {
    /// Whether there was no log before.
    pub is_new: bool,
    /// Generation of the active file.
    pub generation: u64,
    /// Batches appended to the active file since it became active.
    pub batches: u64,
    /// Where the next frame will stand, which is the size of the log in bytes.
    pub size: u64,
    /// The torn tail that was cut, if there was one.
    pub cut: Option<Cut>,
}

/// A tail that was torn before it was durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where it begins.
    pub offset: u64,
    /// How many bytes of it are known of.
    pub size: u64,
}

/// A frame of a whole batch.
#[derive(Clone, Copy, Debug)]
pub struct FoundFrame<'a> {
    /// Where it stands.
    pub place: FramePlace,
    /// What it says beside its body.
    pub head: FrameHead,
    /// Its body.
    pub body: &'a [u8],
}

/// Told of each frame in turn; a reason why one is impossible ends the scan.
pub(crate) type Visit<'a> = dyn FnMut(FoundFrame<'_>) -> Result<(), String> + 'a;

/// How far a scan came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scanned {
    pub end: u64,
    pub link: u32,
    pub batches: u64,
    /// The highest attempt in it.
    attempt: u32,
}

/// Part of a file in memory.
struct Window<'a, D> {
    disk: &'a D,
    size: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a, D: Disk> Window<'a, D> {
    fn new(disk: &'a D) -> Self {
        Self { disk, size: disk.size(), start: 0, bytes: Vec::new() }
    }

    /// `count` bytes at `offset`, `None` if the file ends before. So nothing larger than the file
    /// is ever allocated, whatever a size in it says.
    fn get(&mut self, offset: u64, count: usize) -> Result<Option<&[u8]>, DiskError> {
        let Some(rest) = self.size.checked_sub(offset).filter(|rest| *rest >= count as u64) else {
            return Ok(None);
        };
        let held = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + count as u64 > held {
            let wanted = rest.min(count.max(WINDOW_SIZE) as u64);
            self.bytes.resize(usize::try_from(wanted).expect("BUG: windows are small"), 0);
            self.start = offset;
            if let Err(error) = self.disk.read_at(offset, &mut self.bytes) {
                self.bytes.clear();
                return Err(error);
            }
        }
        let from = usize::try_from(offset - self.start).expect("BUG: within the window");
        Ok(Some(&self.bytes[from..from + count]))
    }

    /// The frame at `offset`, if a whole one of this generation stands there.
    fn frame(&mut self, offset: u64, generation: u64) -> Result<Option<Frame>, DiskError> {
        let Some(header) = self.get(offset, FRAME_HEADER_SIZE)? else { return Ok(None) };
        let Some(frame) = frame::decode(header) else { return Ok(None) };
        if frame.ties.generation != generation {
            return Ok(None);
        }
        let bytes = self.get(offset, frame::frame_size(frame.body_size))?;
        Ok(bytes.is_some_and(|bytes| frame::is_whole(bytes, offset)).then_some(frame))
    }

    /// Goes past the batch at `from.end`, or answers `None` if no whole one stands there.
    fn batch(&mut self, from: Scanned, generation: u64) -> Result<Option<Scanned>, DiskError> {
        let mut at = from;
        let mut expected = None;
        for index in 0.. {
            let Some(frame) = self.frame(at.end, generation)? else { return Ok(None) };
            let ties = frame.ties;
            let count = *expected.get_or_insert(ties.count);
            if ties.link != at.link || ties.index != index || ties.count != count || count == 0 {
                return Ok(None);
            }
            at.end += frame::frame_size(frame.body_size) as u64;
            at.link = frame.checksum;
            at.attempt = at.attempt.max(ties.attempt);
            if index + 1 == count {
                break;
            }
        }
        at.batches += 1;
        Ok(Some(at))
    }

    /// Tells `visit` of the frames from `start` to `end`, which are whole.
    fn deliver(&mut self, start: u64, end: u64, visit: &mut Visit<'_>) -> Result<(), RecoverError> {
        let mut at = start;
        while at < end {
            let gone = || DiskError::Device { reason: "the log shrank while read".to_owned() };
            let header = self.get(at, FRAME_HEADER_SIZE)?.ok_or_else(gone)?;
            let frame = frame::decode(header).ok_or_else(gone)?;
            let bytes = self.get(at, FRAME_HEADER_SIZE + frame.body_size)?.ok_or_else(gone)?;
            let place = FramePlace { frame: at, body: at + FRAME_HEADER_SIZE as u64 };
            let found = FoundFrame { place, head: frame.head, body: &bytes[FRAME_HEADER_SIZE..] };
            visit(found).map_err(|reason| RecoverError::Malformed { offset: at, reason })?;
            at += frame::frame_size(frame.body_size) as u64;
        }
        Ok(())
    }

    /// Whole frames at or after `from`, wherever they begin, of this generation or of any.
    fn leftovers(&mut self, from: u64, generation: Option<u64>) -> Result<Leftovers, DiskError> {
        let mut found = Leftovers::default();
        let mut at = from.next_multiple_of(FRAME_ALIGNMENT as u64);
        while at < self.size {
            let left = usize::try_from(self.size - at).unwrap_or(usize::MAX);
            let count = left.min(WINDOW_SIZE);
            let bytes = self.get(at, count)?.expect("BUG: counted by the size");
            let magic = bytes.chunks(FRAME_ALIGNMENT).position(|c| c.starts_with(&FRAME_MAGIC));
            let Some(steps) = magic else {
                at += count as u64;
                continue;
            };
            at += (steps * FRAME_ALIGNMENT) as u64;
            let header = self.get(at, FRAME_HEADER_SIZE)?.and_then(frame::decode);
            let wanted = generation.or(header.map(|frame| frame.ties.generation));
            if let Some(wanted) = wanted
                && let Some(frame) = self.frame(at, wanted)?
            {
                found.note(at, &frame);
            }
            at += FRAME_ALIGNMENT as u64;
        }
        Ok(found)
    }
}

/// What whole frames behind the end say.
#[derive(Clone, Copy, Debug, Default)]
struct Leftovers {
    /// End of the last one, 0 if there is none.
    end: u64,
    durable: u64,
    attempt: u32,
    generation: u64,
}

impl Leftovers {
    fn note(&mut self, offset: u64, frame: &Frame) {
        self.end = self.end.max(offset + frame::frame_size(frame.body_size) as u64);
        self.durable = self.durable.max(frame.ties.durable);
        self.attempt = self.attempt.max(frame.ties.attempt);
        self.generation = self.generation.max(frame.ties.generation);
    }
}

/// The highest generation that any frame in this file claims; 0 if there is none.
pub(crate) fn highest_generation<D: Disk>(disk: &D) -> Result<u64, DiskError> {
    Ok(Window::new(disk).leftovers(LOG_START, None)?.generation)
}

/// What recovery found in the active file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovered {
    pub scanned: Scanned,
    /// The attempt that frames written from now on have to carry.
    pub attempt: u32,
    pub cut: Option<Cut>,
}

/// Reads the active file to its end, and makes sure that it is the end.
pub(crate) fn recover<D: Disk>(
    disk: &D,
    file: LogFile,
    header: Header,
    visit: &mut Visit<'_>,
) -> Result<Recovered, RecoverError> {
    let mut window = Window::new(disk);
    let scanned = scan(&mut window, header, u64::MAX, visit)?;
    if scanned.end < header.state_end {
        return Err(RecoverError::DamagedMiddle { file, offset: scanned.end });
    }
    let leftovers = window.leftovers(scanned.end, Some(header.generation))?;
    if leftovers.durable > scanned.end {
        return Err(RecoverError::DamagedMiddle { file, offset: scanned.end });
    }
    let cut = cut_at(&mut window, scanned.end, leftovers.end)?;
    let attempt = match cut {
        Some(_) => scanned.attempt.max(leftovers.attempt) + 1,
        None => scanned.attempt,
    };
    Ok(Recovered { scanned, attempt, cut })
}

/// Reads the file again as far as `end`, which is known to be whole.
pub(crate) fn replay<D: Disk>(
    disk: &D,
    file: LogFile,
    header: Header,
    end: u64,
    visit: &mut Visit<'_>,
) -> Result<(), RecoverError> {
    let scanned = scan(&mut Window::new(disk), header, end, visit)?;
    if scanned.end == end {
        Ok(())
    } else {
        Err(RecoverError::DamagedMiddle { file, offset: scanned.end })
    }
}

/// Delivers whole batches until one is not whole, or `limit` is reached.
fn scan<D: Disk>(
    window: &mut Window<'_, D>,
    header: Header,
    limit: u64,
    visit: &mut Visit<'_>,
) -> Result<Scanned, RecoverError> {
    let mut scanned = Scanned { end: LOG_START, link: 0, batches: 0, attempt: 0 };
    while scanned.end < limit {
        if scanned.end == header.state_end {
            scanned.link = header.checksum();
            scanned.batches = 0;
        }
        let Some(next) = window.batch(scanned, header.generation)? else { break };
        if scanned.end < header.state_end && next.end > header.state_end {
            break;
        }
        window.deliver(scanned.end, next.end, visit)?;
        scanned = next;
    }
    if scanned.end == header.state_end {
        scanned.link = header.checksum();
    }
    Ok(scanned)
}

/// The torn tail at `end`, unless the end mark or the end of the file says that there is none.
fn cut_at<D: Disk>(
    window: &mut Window<'_, D>,
    end: u64,
    leftovers_end: u64,
) -> Result<Option<Cut>, DiskError> {
    let left = window.size.saturating_sub(end);
    let here = usize::try_from(left.min(FRAME_ALIGNMENT as u64)).expect("BUG: at most 8");
    let has_end_mark = match window.get(end, here)? {
        Some(bytes) => bytes.iter().all(|byte| *byte == 0),
        None => true,
    };
    if has_end_mark && leftovers_end == 0 {
        return Ok(None);
    }
    let stated = window.get(end, FRAME_HEADER_SIZE)?.and_then(frame::decode);
    let stated = stated.map_or(here, |frame| frame::frame_size(frame.body_size)) as u64;
    let size = left.min(stated).max(leftovers_end.saturating_sub(end));
    Ok(Some(Cut { offset: end, size }))
}
