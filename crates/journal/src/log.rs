//! Two files used in turn, and the batches in them.

use std::collections::VecDeque;
use std::fmt;

use tidelog_disk::{Disk, DiskError, FlushId};
use tidelog_types::probe::{Probe, reached};

use crate::frame::BatchPart;
use crate::header::{FRAME_ALIGNMENT, Header, HeaderArea, LOG_START, Seed};
use crate::recovery::{self, Recovered};
use crate::scan::Visit;
use crate::successor::Successor;
use crate::writer::{Writer, block_after};
use crate::{FrameHead, FramePlace, LogFile, LogReport, RecoverError, Witness};

/// Bytes that are written again at once when a log is opened.
const PIECE_SIZE: usize = 256 * 1024;

/// The flush by which the file that is not active says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retiring {
    pub id: FlushId,
    /// What is durable then, and up to which offset of the active file, if that is known.
    pub then: Option<(BatchNumber, u64)>,
}

/// A batch's number, counted from 1 since the log was opened; 0 stands for all that was there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchNumber(pub u64);

/// The log of a store.
///
/// Frames are [pushed](Self::push) and [committed](Self::commit) as a batch into a buffer;
/// [`write`](Self::write) writes the buffer with one write, and
/// [`request_flush`](Self::request_flush) asks for all that is written to be made durable. When
/// the file has grown long its owner copies what it still needs into the other file
/// ([`begin_copy`](Self::begin_copy) and what follows it).
///
/// ```
/// use tidelog_disk::CrashDevice;
/// use tidelog_journal::{DocumentNumber, Found, FrameHead, Log, Seed, Witness};
/// use tidelog_types::Epoch;
///
/// let device = CrashDevice::new();
/// let files = [device.file("a"), device.file("b")];
/// let (mut log, report) = Log::recover(files, Witness::None, Seed(1), 0, &mut |_| Ok(()))?;
/// assert!(report.is_new);
///
/// let head = FrameHead::new(1, DocumentNumber(7), Epoch(1));
/// log.push(&head, &[b"milk"]);
/// log.push(&head, &[b"bread"]);
/// let batch = log.commit();
/// log.write()?;
/// log.request_flush()?;
/// assert_eq!(log.poll_flushed()?, batch, "both are durable");
///
/// let device = device.crash(&mut |_| 0);
/// let files = [device.file("a"), device.file("b")];
/// let mut bodies = Vec::new();
/// Log::recover(files, Witness::None, Seed(2), 0, &mut |found| {
///     if let Found::Frame(frame) = found {
///         bodies.push(frame.body.to_vec());
///     }
///     Ok(())
/// })?;
/// assert_eq!(bodies, [b"milk".to_vec(), b"bread".to_vec()]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Log<D> {
    pub(crate) files: [D; 2],
    pub(crate) active: LogFile,
    pub(crate) header: Header,
    pub(crate) seed: Seed,
    pub(crate) writer: Writer,
    pub(crate) committed: BatchNumber,
    pub(crate) written: BatchNumber,
    pub(crate) durable: BatchNumber,
    /// Whether something was written since the last flush request.
    pub(crate) is_dirty: bool,
    /// Whether a flush was asked for while batches waited to be written.
    owes_flush: bool,
    /// Whether what was found at opening is durable, and what was cut off there is gone for good.
    pub(crate) is_found_durable: bool,
    /// Whether a torn tail was cut off at opening.
    has_cut: bool,
    /// Flush requests that are not complete: what they cover.
    pub(crate) flushes: VecDeque<(FlushId, BatchNumber, u64)>,
    /// The other file says that it is in use, as it was before this one. That is all there is if
    /// the header of this one gets lost before it is flushed.
    is_other_sealed: bool,
    /// The other file was in use before, and is about to say that it is not.
    pub(crate) retiring: Option<Retiring>,
    pub(crate) successor: Option<Successor>,
    /// Batches stay in the buffer until the change-over has ended.
    pub(crate) is_held: bool,
    /// What was in the buffer when the log went over to its other file: readers that were given
    /// places in it may still come.
    pub(crate) previous: Option<Writer>,
    /// Size that the other file had before it began to grow ahead of the next change-over.
    pub(crate) grown_from: Option<u64>,
    /// What was in the other file in an earlier use is overwritten up to here.
    pub(crate) cleared_to: u64,
    /// Whether some of that is not flushed.
    pub(crate) has_cleared: bool,
    /// What the time is, in milliseconds since the epoch; 0 if nobody has said.
    pub(crate) now_ms: u64,
    /// No file was ever given a generation above this.
    pub(crate) highest_generation: u64,
    /// Durable bytes have changed: nothing may be appended.
    is_damaged: bool,
    /// The files were taken away: nothing is written to them.
    is_left_alone: bool,
}

impl<D: Disk> Log<D> {
    /// Opens the log in these two files, telling `visit` of every frame that is believed, in
    /// order. If there is none, and [was none](Witness), one is begun, at `now_ms` since the epoch;
    /// 0 where nobody knows. What is found may not be flushed yet: flush before saying that it is
    /// durable.
    ///
    /// If durable bytes have changed, `visit` is told what is lost, the report says where, and the
    /// log can be read, and not be appended to.
    ///
    /// # Errors
    ///
    /// [`RecoverError`], which says what becomes of the files.
    pub fn recover(
        files: [D; 2],
        witness: Witness,
        seed: Seed,
        now_ms: u64,
        visit: &mut Visit<'_>,
    ) -> Result<(Self, LogReport), RecoverError> {
        let areas = [Header::read(&files[0])?, Header::read(&files[1])?];
        let headers = areas.map(HeaderArea::whole);
        let Some(active) = active_of(areas, witness)? else {
            return Self::create(files, seed, now_ms);
        };
        let header = headers[active.index()].expect("BUG: the active file is sealed");
        let found = recovery::recover(&files[active.index()], active, header, visit)?;
        let (end, link) = (found.scanned.end, found.scanned.link);
        let writer = Writer::new(header, end, link, found.attempt);
        let report = LogReport {
            is_new: false,
            generation: header.generation,
            batches: found.scanned.batches,
            size: writer.end(),
            cut: found.cut,
            damage: found.damage.clone(),
        };
        let mut log = Self::new(files, active, header, seed, writer);
        // A change-over may have been cut short in the other file: the next is another
        // generation.
        let other = headers[active.other().index()];
        log.highest_generation = header.generation.max(other.map_or(0, |other| other.generation));
        log.is_damaged = !report.damage.is_empty();
        if !log.is_damaged {
            log.mend(&found, other.is_some_and(Header::is_sealed))?;
            // Nothing behind the seal was called durable yet: so it may be that nobody has flushed
            // that the other file is not in use.
            if other.is_none() && found.stated <= header.durable && header.generation > 1 {
                log.erase_other_again()?;
            }
        }
        Ok((log, report))
    }

    /// Makes the files what they are believed to be, before anything is appended.
    fn mend(&mut self, found: &Recovered, is_other_sealed: bool) -> Result<(), DiskError> {
        let file = &mut self.files[self.active.index()];
        // What was not durable may come from a cache of the system that takes it for flushed,
        // after a flush that failed: only bytes that are written again are flushed again.
        if !found.is_header_durable {
            self.header.write(file)?;
        }
        // So is what keeps bytes behind the end from coming back.
        let mut at = block_after(found.durable);
        let end = (self.writer.written + FRAME_ALIGNMENT as u64).min(file.size());
        let left = usize::try_from(end.saturating_sub(at)).unwrap_or(PIECE_SIZE);
        let mut piece = vec![0; PIECE_SIZE.min(left)];
        while at < end {
            let count = PIECE_SIZE.min(usize::try_from(end - at).unwrap_or(PIECE_SIZE));
            file.read_at(at, &mut piece[..count])?;
            file.write_at(at, &piece[..count])?;
            at += count as u64;
        }
        if found.cut.is_some() {
            reached(Probe::TornTailCut);
            // The first frame of the tail may lack a sector which the same batch, appended again,
            // would put there: together with the old header that frame would be whole, and what
            // follows it back. So it goes before anything is written over it.
            self.writer.cut_tail(file)?;
            self.has_cut = true;
        }
        self.is_other_sealed = is_other_sealed;
        Ok(())
    }

    /// What was written before and not flushed is flushed only if it is written again.
    fn erase_other_again(&mut self) -> Result<(), DiskError> {
        let other = &mut self.files[self.active.other().index()];
        if other.size() >= LOG_START {
            Header::erase(other)?;
        } else {
            other.set_size(0)?;
        }
        self.retiring = Some(Retiring { id: other.request_flush()?, then: None });
        Ok(())
    }

    fn create(
        mut files: [D; 2],
        seed: Seed,
        now_ms: u64,
    ) -> Result<(Self, LogReport), RecoverError> {
        let header = Header::of_nothing(1, seed, now_ms);
        let mut writer = Writer::new(header, LOG_START, header.seam(), 0);
        let written =
            header.write(&mut files[0]).and_then(|()| writer.write_end_mark(&mut files[0]));
        if let Err(error) = written {
            // Part of a header would be taken for damage, and there was nothing here before.
            let _ = files[0].set_size(0);
            return Err(error.into());
        }
        let report = LogReport {
            is_new: true,
            generation: header.generation,
            batches: 0,
            size: LOG_START,
            cut: None,
            damage: Vec::new(),
        };
        Ok((Self::new(files, LogFile::A, header, seed, writer), report))
    }

    fn new(files: [D; 2], active: LogFile, header: Header, seed: Seed, writer: Writer) -> Self {
        Self {
            files,
            active,
            header,
            seed,
            writer,
            committed: BatchNumber(0),
            written: BatchNumber(0),
            durable: BatchNumber(0),
            is_dirty: true,
            owes_flush: false,
            is_found_durable: false,
            has_cut: false,
            flushes: VecDeque::new(),
            is_other_sealed: false,
            retiring: None,
            successor: None,
            is_held: false,
            previous: None,
            grown_from: None,
            cleared_to: LOG_START,
            has_cleared: false,
            now_ms: 0,
            highest_generation: header.generation,
            is_damaged: false,
            is_left_alone: false,
        }
    }

    /// Adds a frame to the batch being put together.
    pub fn push(&mut self, head: &FrameHead, body: &[&[u8]]) -> FramePlace {
        self.writer.push(head, body)
    }

    /// Ends the batch; an empty one is none. Gives the number of the last batch.
    pub fn commit(&mut self) -> BatchNumber {
        assert!(!self.is_damaged, "BUG: appended to a damaged log");
        if self.writer.commit() {
            self.committed.0 += 1;
        }
        self.committed
    }

    /// Ends the batch as [`commit`](Self::commit) does; it may take the last room there is on the
    /// device, which is for what makes room again, and for what has to be said to read at all.
    pub fn commit_from_reserve(&mut self) -> BatchNumber {
        assert!(!self.is_damaged, "BUG: appended to a damaged log");
        if self.writer.commit_from_reserve() {
            self.committed.0 += 1;
        }
        self.committed
    }

    /// Adds a frame to a batch of which it is known how many frames it has, as this part of it. So
    /// what is there can be [written](Self::write_parts) before the rest is: a batch of any size
    /// takes little memory. All batches before it are written: if it is given up, it is cut off in
    /// the block in which it begins.
    pub fn push_part(&mut self, head: &FrameHead, body: &[&[u8]], part: BatchPart) -> FramePlace {
        assert!(part.0 > 0 || self.written == self.committed, "BUG: parts behind what waits");
        self.writer.push_part(head, body, part)
    }

    /// Writes the parts that are there, if anything may be [written](Self::write) now.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write). The batch has to be [given up](Self::give_up_parts).
    pub fn write_parts(&mut self) -> Result<(), DiskError> {
        assert!(self.writer.parts_left > 0, "BUG: parts of no batch");
        if self.may_write() {
            self.writer.write(&mut self.files[self.active.index()])?;
            self.written = self.committed;
            self.is_dirty = true;
        }
        Ok(())
    }

    /// Ends a batch all of whose parts are pushed. Gives its number.
    pub fn commit_parts(&mut self) -> BatchNumber {
        assert!(!self.is_damaged, "BUG: appended to a damaged log");
        assert!(self.writer.parts_left == 0, "BUG: ended in the middle of a batch");
        self.committed.0 += 1;
        self.committed
    }

    /// A batch is not put together to its end, or not at all, since there is no room: it counts as
    /// committed until it is [discarded](Self::discard).
    pub fn give_up_parts(&mut self) {
        self.committed.0 += 1;
    }

    /// Whether parts are still to come of a batch.
    #[must_use]
    pub fn is_amid_parts(&self) -> bool {
        self.writer.parts_left > 0
    }

    /// Writes all committed batches with one write; nothing while they are [held](Self::hold), or
    /// while a torn tail that was cut off at opening [could come back](Self::is_found_durable).
    ///
    /// # Errors
    ///
    /// What the disk says. The batches are still in memory: [`discard`](Self::discard) them if
    /// the disk [is full](DiskError::is_full); after another error open the log anew.
    pub fn write(&mut self) -> Result<(), DiskError> {
        if self.written < self.committed && self.may_write() {
            self.writer.write(&mut self.files[self.active.index()])?;
            self.written = self.committed;
            self.is_dirty = true;
        }
        Ok(())
    }

    /// Whether something may be written now: batches are not [held](Self::hold), no torn tail that
    /// was cut off at opening [could come back](Self::is_found_durable), and the files are not
    /// [left alone](Self::leave_alone).
    #[must_use]
    pub fn may_write(&self) -> bool {
        !self.is_left_alone && !self.is_held && (self.is_found_durable || !self.has_cut)
    }

    /// Writes nothing more, for good: the files were taken away. Batches can be committed, and
    /// read, in memory alone.
    pub fn leave_alone(&mut self) {
        self.is_left_alone = true;
    }

    /// Whether something that waits to be written, or could not be, must leave alone what a batch
    /// [from the reserve](Self::commit_from_reserve) may take.
    #[must_use]
    pub fn needs_reserve(&self) -> bool {
        self.writer.needs_reserve
    }

    /// Whether a good part was taken of what batches [from the reserve](Self::commit_from_reserve)
    /// may take, and the device had no room for more at the last write.
    #[must_use]
    pub fn is_reserve_low(&self) -> bool {
        self.writer.is_reserve_low(&self.files[self.active.index()])
    }

    /// Forgets the batches that could not be written. Gives a number that becomes durable like a
    /// batch's: from then on nothing of them will ever be found, and not before, since part of
    /// them may have reached the device.
    ///
    /// # Errors
    ///
    /// What the disk says; the log has to be opened anew to learn what is in it.
    pub fn discard(&mut self) -> Result<BatchNumber, DiskError> {
        self.writer.discard(&mut self.files[self.active.index()])?;
        self.written.0 += 1;
        self.committed = self.written;
        self.is_dirty = true;
        Ok(self.written)
    }

    /// Asks for all that is written to be made durable, if there is anything to be asked for.
    ///
    /// # Errors
    ///
    /// What the disk says; the log has to be opened anew.
    pub fn request_flush(&mut self) -> Result<(), DiskError> {
        self.owes_flush = self.written < self.committed;
        if self.is_dirty {
            let id = self.files[self.active.index()].request_flush()?;
            self.flushes.push_back((id, self.written, self.written_size()));
            self.is_dirty = false;
        }
        Ok(())
    }

    /// Whether a flush was asked for of batches that could not be written by then, and can be now.
    #[must_use]
    pub fn owes_flush(&self) -> bool {
        self.owes_flush && self.written < self.committed && self.may_write()
    }

    /// The last batch that is durable now, and all before it with it.
    ///
    /// # Errors
    ///
    /// A flush failed; the log has to be opened anew.
    pub fn poll_flushed(&mut self) -> Result<BatchNumber, DiskError> {
        if !self.is_retired()? {
            return Ok(self.durable);
        }
        if !self.flushes.is_empty() {
            let done = self.files[self.active.index()].flushed()?;
            let mut last = None;
            while let Some((id, batch, offset)) = self.flushes.front().copied()
                && done >= Some(id)
            {
                self.flushes.pop_front();
                last = Some((batch, offset));
            }
            match last {
                Some(durable) if self.is_other_sealed => self.retire_other(durable)?,
                Some((batch, offset)) => self.note_durable(batch, offset),
                None => {}
            }
        }
        assert!(self.durable <= self.written, "BUG: durable before it was written");
        Ok(self.durable)
    }

    /// The active file is flushed, its header too: the other one is not needed any more.
    fn retire_other(&mut self, durable: (BatchNumber, u64)) -> Result<(), DiskError> {
        self.is_other_sealed = false;
        let retired = &mut self.files[self.active.other().index()];
        retired.set_size(0)?;
        self.retiring = Some(Retiring { id: retired.request_flush()?, then: Some(durable) });
        self.is_retired().map(drop)
    }

    /// Whether nobody could take the other file for the active one, though the header of that got
    /// lost.
    fn is_retired(&mut self) -> Result<bool, DiskError> {
        let Some(Retiring { id, then }) = self.retiring else { return Ok(true) };
        if self.files[self.active.other().index()].flushed()? < Some(id) {
            return Ok(false);
        }
        self.retiring = None;
        if let Some((batch, offset)) = then {
            self.note_durable(batch, offset);
        }
        Ok(true)
    }

    fn note_durable(&mut self, batch: BatchNumber, offset: u64) {
        self.is_found_durable = true;
        self.durable = batch;
        self.writer.durable = offset;
    }

    /// Says at the end of the log that all of it is durable, if it is: what rots there later is not
    /// taken for a tail that a power cut tore. For when nothing else is to be done. The next flush
    /// makes it durable too, and the next batch is written over it.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write), but for a device that is full: then there is none.
    pub fn mark_durable(&mut self) -> Result<(), DiskError> {
        if self.is_damaged || self.is_held || !self.is_all_durable() {
            return Ok(());
        }
        match self.writer.write_durable_mark(&mut self.files[self.active.index()]) {
            Err(error) if error.is_full() => Ok(()),
            written => written.map(|is_written| self.is_dirty |= is_written),
        }
    }

    /// Whether what was found when the log was opened has been flushed since, and with it that a
    /// torn tail was cut off.
    #[must_use]
    pub fn is_found_durable(&self) -> bool {
        self.is_found_durable
    }

    /// Whether all that was committed is durable, and nothing is under way.
    #[must_use]
    pub fn is_all_durable(&self) -> bool {
        let is_flushed = self.flushes.is_empty() && self.retiring.is_none();
        let is_written = self.written == self.committed && !self.is_amid_parts();
        !self.is_dirty && is_flushed && is_written
    }

    /// The last batch that was committed.
    #[must_use]
    pub fn committed(&self) -> BatchNumber {
        self.committed
    }

    /// The last batch that was written.
    #[must_use]
    pub fn written(&self) -> BatchNumber {
        self.written
    }

    /// Bytes of batches that wait to be written.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.writer.buffer.len()
    }

    /// What the active file begins with, before any frame. It is overwritten when the log goes over
    /// to its other file.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn head(&self) -> Result<Vec<u8>, DiskError> {
        let size = usize::try_from(LOG_START).expect("BUG: two blocks");
        let mut head = vec![0; size];
        self.files[self.active.index()].read_at(0, &mut head)?;
        Ok(head)
    }

    /// Bytes of the active file up to where the next frame will stand, the buffer included.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.writer.end()
    }

    /// Bytes of the active file up to the end of the batches of which all is written.
    #[must_use]
    pub fn written_size(&self) -> u64 {
        self.writer.whole_end()
    }

    /// Bytes of the active file up to the end of what is known to be flushed.
    #[must_use]
    pub fn durable_size(&self) -> u64 {
        self.writer.durable
    }

    /// Whether durable bytes had changed when the log was opened: nothing may be appended.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// Bytes of the active file up to the end of what was copied into it.
    #[must_use]
    pub fn state_size(&self) -> u64 {
        self.header.state_end
    }

    /// What the time is, in milliseconds since the epoch, until it is told anew. The log only
    /// writes down when a file was taken into use.
    pub fn set_time(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// What the time is, as it was [told](Self::set_time) last; 0 if it never was.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// When the active file was taken into use, in milliseconds since the epoch; 0 if nobody knew.
    #[must_use]
    pub fn begun_ms(&self) -> u64 {
        self.header.begun_ms
    }

    /// The file that is appended to.
    #[must_use]
    pub fn active(&self) -> LogFile {
        self.active
    }
}

/// Which file is active, `None` if neither was ever used, as far as the witness knows.
///
/// A file is said not to be in use once the other one is sealed, and only then is anything behind
/// the seal called durable. So beside a file that is sealed, one whose header is damaged has
/// nothing that is not in the sealed one.
fn active_of(areas: [HeaderArea; 2], witness: Witness) -> Result<Option<LogFile>, RecoverError> {
    let sealed = areas.map(|area| area.whole().filter(|header| header.is_sealed()));
    match sealed {
        [Some(a), Some(b)] if b.generation > a.generation => Ok(Some(LogFile::B)),
        [Some(_), _] => Ok(Some(LogFile::A)),
        [None, Some(_)] => Ok(Some(LogFile::B)),
        [None, None] if witness == Witness::Unused => Ok(None),
        [None, None] => match areas {
            [HeaderArea::Damaged, _] => Err(RecoverError::DamagedHeader { file: LogFile::A }),
            [_, HeaderArea::Damaged] => Err(RecoverError::DamagedHeader { file: LogFile::B }),
            _ if witness == Witness::Used => Err(RecoverError::Lost),
            _ => Ok(None),
        },
    }
}

impl<D: Disk> fmt::Display for Log<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (generation, size) = (self.header.generation, self.size());
        write!(f, "log {} generation {generation} size {size}", self.active)?;
        write!(f, " durable {} written {}", self.durable.0, self.written.0)
    }
}
