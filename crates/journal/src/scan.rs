//! Reading a log file: whole batches up to the first that is not.

use tidelog_disk::{Disk, DiskError};

use crate::frame::Frame;
use crate::header::{FRAME_ALIGNMENT, Header, LOG_START};
use crate::log_file::LogFile;
use crate::window::{FoundFrame, Window};
use crate::{FrameHead, RecoverError};

/// Bytes read at once.
pub(crate) const WINDOW_SIZE: usize = 1024 * 1024;

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
    /// Where durable bytes have changed, in the order of the file.
    pub damage: Vec<Damage>,
}

/// A tail that was torn before it was durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where it begins.
    pub offset: u64,
    /// How many bytes of it are known of.
    pub size: u64,
}

/// A run of batches that were durable and are not whole any more. Nothing of them is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which file.
    pub file: LogFile,
    /// Where the first of them begins.
    pub offset: u64,
    /// Bytes up to the next batch that is whole, or to the end of what was durable.
    pub size: u64,
}

/// What a reader of a log is told, in the order of the file.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// A frame of a whole batch.
    Frame(FoundFrame<'a>),
    /// A frame, or a run of them, that belongs to a damaged batch.
    Lost {
        /// Where it begins.
        offset: u64,
        /// What it says beside its body; `None` if that is damaged too, and then there may be any
        /// number of them.
        head: Option<FrameHead>,
        /// Its body, if that is whole and something else of its batch is damaged.
        body: Option<&'a [u8]>,
    },
}

/// Told of what is found in turn; a reason why something is impossible ends the scan.
pub(crate) type Visit<'a> = dyn FnMut(Found<'_>) -> Result<(), String> + 'a;

/// How far a scan came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scanned {
    pub end: u64,
    pub link: u32,
    pub batches: u64,
    /// The highest attempt in it.
    pub attempt: u32,
    /// The highest offset that a frame in it calls durable; 0 if none calls any so.
    pub durable: u64,
}

impl Scanned {
    /// Nothing yet.
    pub const START: Self = Self { end: LOG_START, link: 0, batches: 0, attempt: 0, durable: 0 };
}

impl<D: Disk> Window<'_, D> {
    /// Goes past the batch behind `from.end`, or answers `None` if no whole one stands there. Says
    /// in `places` where its frames stand.
    pub fn batch(
        &mut self,
        from: Scanned,
        places: &mut Vec<u64>,
    ) -> Result<Option<Scanned>, DiskError> {
        places.clear();
        let mut at = from;
        let mut expected = None;
        for index in 0.. {
            let behind = self.frame_behind(at.end, |frame| frame.ties.link == at.link)?;
            let Some((place, frame)) = behind else { return Ok(None) };
            let ties = frame.ties;
            let count = *expected.get_or_insert(ties.count);
            if ties.index != index || ties.count != count || count == 0 {
                return Ok(None);
            }
            places.push(place);
            at.end = place + frame.size() as u64;
            at.link = frame.checksum;
            at.attempt = at.attempt.max(ties.attempt);
            at.durable = at.durable.max(ties.durable);
            if index + 1 == count {
                break;
            }
        }
        at.batches += 1;
        Ok(Some(at))
    }

    /// Tells `visit` of the frames that stand here, which are whole.
    fn deliver(&mut self, places: &[u64], visit: &mut Visit<'_>) -> Result<(), RecoverError> {
        for &at in places {
            let gone = || DiskError::Device { reason: "the log changed while read".to_owned() };
            let frame = self.header(at)?.ok_or_else(gone)?;
            let found = Found::Frame(self.found(at, &frame)?);
            visit(found).map_err(|reason| RecoverError::Malformed { offset: at, reason })?;
        }
        Ok(())
    }

    /// What whole headers at or after `from` say, wherever they stand.
    pub fn leftovers(&mut self, from: u64) -> Result<Leftovers, DiskError> {
        let mut found = Leftovers::default();
        let mut at = from;
        while let Some((offset, frame)) = self.search(at)? {
            found.note(offset, &frame);
            at = offset + FRAME_ALIGNMENT as u64;
        }
        found.end = found.end.min(self.size);
        Ok(found)
    }
}

/// What frames behind the end say. Their headers are whole, and what these say was true when they
/// were written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Leftovers {
    /// End of the last one, 0 if there is none.
    pub end: u64,
    pub durable: u64,
    pub attempt: u32,
}

impl Leftovers {
    fn note(&mut self, offset: u64, frame: &Frame) {
        self.durable = self.durable.max(frame.ties.durable);
        self.attempt = self.attempt.max(frame.ties.attempt);
        if !frame.is_durable_mark() {
            self.end = self.end.max(offset + frame.size() as u64);
        }
    }
}

/// Delivers whole batches from `start` on until one is not whole, or `limit` is reached.
pub(crate) fn scan<D: Disk>(
    window: &mut Window<'_, D>,
    header: Header,
    start: Scanned,
    limit: u64,
    visit: &mut Visit<'_>,
) -> Result<Scanned, RecoverError> {
    let mut scanned = start;
    let mut places = Vec::new();
    loop {
        if scanned.end == header.state_end {
            scanned.link = header.seam();
            scanned.batches = 0;
        }
        if scanned.end >= limit {
            return Ok(scanned);
        }
        let next = window.batch(scanned, &mut places)?;
        let Some(next) = next.filter(|next| !header.is_crossed(scanned.end, next.end)) else {
            return Ok(scanned);
        };
        window.deliver(&places, visit)?;
        scanned = next;
    }
}
