//! Going over to the other file, while batches are appended to this one.
//!
//! ```text
//! begin_copy   copy, copy, ...   end_state   copy_part, ...   flush_copy   hold   copy_part,
//! flush_copy   (a folded state)              (what was appended since)     (the last of it)
//! (the header)                                                flush_copy   seal   switch
//! ```

use std::ops::RangeInclusive;

use tidelog_disk::{BLOCK_SIZE, Disk, DiskError, FlushId, read_around};
use tidelog_types::probe::{Probe, reached};

use crate::frame;
use crate::frame::BatchPart;
use crate::header::{Header, LOG_START, Salt};
use crate::log::Retiring;
use crate::successor::Successor;
use crate::{FrameHead, FramePlace, Log};

/// Bytes by which the other file grows at once.
const GROWTH_SIZE: usize = 64 * 1024;

/// A frame that was appended while batches were held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldFrame {
    /// What it says beside its body.
    pub head: FrameHead,
    /// Its body.
    pub body: Vec<u8>,
    /// Whether it is the last of its batch.
    pub ends_batch: bool,
}

impl<D: Disk> Log<D> {
    /// Begins to fill the other file. Nobody may read any more what lay in it. Before anything is
    /// copied, this has to be [flushed](Self::flush_copy), so that no generation is given twice.
    ///
    /// # Errors
    ///
    /// As [`copy`](Self::copy).
    pub fn begin_copy(&mut self) -> Result<(), DiskError> {
        assert!(self.successor.is_none(), "BUG: two change-overs at once");
        (self.previous, self.grown_from) = (None, None);
        self.highest_generation += 1;
        let header = Header::unsealed(self.highest_generation, self.seed, self.now_ms);
        let disk = &mut self.files[self.active.other().index()];
        self.successor = Some(Successor::begin(disk, header)?);
        Ok(())
    }

    fn successor(&mut self) -> (&mut Successor, &mut D) {
        let successor = self.successor.as_mut().expect("BUG: no change-over is going on");
        (successor, &mut self.files[self.active.other().index()])
    }

    /// Copies a frame of the folded state into the other file.
    ///
    /// # Errors
    ///
    /// What the disk says. If it [is full](DiskError::is_full), [`abort_copy`](Self::abort_copy).
    pub fn copy(&mut self, head: &FrameHead, body: &[&[u8]]) -> Result<FramePlace, DiskError> {
        let (successor, disk) = self.successor();
        successor.push(disk, head, body)
    }

    /// Ends the folded state in the other file.
    ///
    /// # Errors
    ///
    /// As [`copy`](Self::copy).
    pub fn end_state(&mut self) -> Result<(), DiskError> {
        let (successor, disk) = self.successor();
        successor.end_state(disk)
    }

    /// Copies a frame that was appended since the state was folded into the other file, as the
    /// same part of its batch. All frames of a batch have to be copied.
    ///
    /// # Errors
    ///
    /// As [`copy`](Self::copy).
    pub fn copy_part(
        &mut self,
        head: &FrameHead,
        body: &[&[u8]],
        part: BatchPart,
    ) -> Result<FramePlace, DiskError> {
        let (successor, disk) = self.successor();
        successor.push_part(disk, head, body, part)
    }

    /// Asks for all that was copied to be flushed.
    ///
    /// # Errors
    ///
    /// As [`copy`](Self::copy).
    pub fn flush_copy(&mut self) -> Result<FlushId, DiskError> {
        let (successor, disk) = self.successor();
        successor.flush(disk)
    }

    /// Writes no more batches until the change-over has ended: they would be lost with this file.
    /// They can be committed meanwhile, and read.
    pub fn hold(&mut self) {
        assert!(self.written == self.committed, "BUG: held with batches that are not copied");
        assert!(!self.is_amid_parts(), "BUG: held amid a batch");
        self.is_held = true;
    }

    /// Seals the other file, in which everything written is and is flushed, and asks for the seal
    /// to be flushed.
    ///
    /// # Errors
    ///
    /// What the disk says. The log has to be opened anew: which file will be active after a crash
    /// is open.
    pub fn seal(&mut self) -> Result<FlushId, DiskError> {
        assert!(self.is_held, "BUG: sealed while batches are written");
        let (successor, disk) = self.successor();
        successor.seal(disk)
    }

    /// Whether a flush of the other file is complete.
    ///
    /// # Errors
    ///
    /// A flush failed; the log has to be opened anew.
    pub fn is_copy_flushed(&mut self, id: FlushId) -> Result<bool, DiskError> {
        Ok(self.files[self.active.other().index()].flushed()? >= Some(id))
    }

    /// Goes over to the other file, whose seal is flushed, and says in the old one that it is not
    /// in use any more: only once that is flushed too is anything behind the seal called durable.
    /// The frames that were appended while batches were held are given back: they have to be pushed
    /// and committed again, in the same batches, which keep their numbers.
    ///
    /// # Errors
    ///
    /// What the disk says. The log has to be opened anew.
    pub fn switch(&mut self) -> Result<Vec<HeldFrame>, DiskError> {
        let successor = self.successor.take().expect("BUG: no change-over is going on");
        let (header, writer) = successor.into_active();
        let durable = writer.durable;
        let old = std::mem::replace(&mut self.writer, writer);
        let held = held_frames(self.header.salt, old.written, &old.buffer);
        if !held.is_empty() {
            reached(Probe::BatchesHeld);
        }
        self.header = header;
        self.active = self.active.other();
        self.previous = (!held.is_empty()).then_some(old);
        self.committed = self.written;
        self.is_dirty = false;
        self.is_held = false;
        self.flushes.clear();
        self.cleared_to = LOG_START;
        let retired = &mut self.files[self.active.other().index()];
        Header::erase(retired)?;
        let id = retired.request_flush()?;
        self.retiring = Some(Retiring { id, then: Some((self.written, durable)) });
        Ok(held)
    }

    /// Overwrites what was in the other file in an earlier use, and makes it as large as the end of
    /// `sizes`, if the device has room, else as their start, if it has room for that: enough for
    /// the next change-over, and what is more is given back. Nobody may read any more what lay in
    /// it. It is overwritten in pieces of about `piece_size`, and grows by a piece at a time;
    /// answers whether there is nothing left to be done.
    ///
    /// # Errors
    ///
    /// What the disk says. The log has to be opened anew.
    pub fn resize_other(
        &mut self,
        sizes: &RangeInclusive<u64>,
        piece_size: u64,
    ) -> Result<bool, DiskError> {
        assert!(self.successor.is_none(), "BUG: the other file is in use");
        self.previous = None;
        let (least, most) = (*sizes.start(), *sizes.end());
        let disk = &mut self.files[self.active.other().index()];
        if disk.size() > most {
            disk.set_size(most)?;
        }
        let before = disk.size();
        if self.cleared_to < before {
            return self.clear_other(before, piece_size).map(|()| false);
        }
        if before == most {
            self.grown_from = None;
            return Ok(true);
        }
        // What a file is made longer by without a write takes up no room on most devices, and would
        // find none once they are full.
        let piece = [0; GROWTH_SIZE];
        let next = if before < least { least } else { most };
        let count = usize::try_from(next - before).unwrap_or(usize::MAX).min(GROWTH_SIZE);
        self.grown_from.get_or_insert(before);
        match disk.write_at(before, &piece[..count]) {
            Ok(()) => {
                self.cleared_to = before + count as u64;
                let is_done = self.cleared_to == most;
                self.grown_from = self.grown_from.filter(|_| !is_done);
                Ok(is_done)
            }
            Err(error) if error.is_full() => self.stop_growing(least).map(|()| true),
            Err(error) => Err(error),
        }
    }

    /// Overwrites a piece of what was in the other file in an earlier use, which has this size.
    fn clear_other(&mut self, size: u64, piece_size: u64) -> Result<(), DiskError> {
        let disk = &mut self.files[self.active.other().index()];
        let end = size.min(self.cleared_to + piece_size.max(BLOCK_SIZE as u64));
        let mut piece = vec![0; usize::try_from(end - self.cleared_to).expect("BUG: a piece")];
        let mut is_clear = true;
        // What cannot be read is not known to be clear.
        read_around(disk, self.cleared_to, &mut piece, &mut |_| is_clear = false)?;
        if !is_clear || piece.iter().any(|byte| *byte != 0) {
            piece.fill(0);
            match disk.write_at(self.cleared_to, &piece) {
                // Some devices find room for what is written over something, too. The next
                // change-over overwrites it, or clears what that has left.
                Err(error) if error.is_full() => {}
                written => written?,
            }
            self.has_cleared = true;
        }
        self.cleared_to = end;
        if end == size && std::mem::take(&mut self.has_cleared) {
            disk.request_flush()?;
        }
        Ok(())
    }

    /// Lets the other file, which is growing, grow no more: it keeps this size if it has it by
    /// now, and gives back what is more; else all that it has grown by.
    fn stop_growing(&mut self, least: u64) -> Result<(), DiskError> {
        let Some(grown_from) = self.grown_from.take() else { return Ok(()) };
        let disk = &mut self.files[self.active.other().index()];
        let size = if disk.size() >= least { least.max(grown_from) } else { grown_from };
        if disk.size() > size { disk.set_size(size) } else { Ok(()) }
    }

    /// Size of the other file.
    #[must_use]
    pub fn other_size(&self) -> u64 {
        self.files[self.active.other().index()].size()
    }

    /// Gives the change-over up; the active file stays active.
    pub fn abort_copy(&mut self) {
        self.cleared_to = LOG_START;
        self.successor = None;
        self.is_held = false;
    }
}

/// The frames of whole batches in a buffer that would be written at `offset`.
fn held_frames(salt: Salt, offset: u64, buffer: &[u8]) -> Vec<HeldFrame> {
    let mut frames = Vec::new();
    let mut at = 0;
    while at < buffer.len() {
        let bytes = &buffer[at..];
        if bytes.starts_with(&[0; 4]) {
            at = at.next_multiple_of(BLOCK_SIZE);
            continue;
        }
        let frame = frame::decode(bytes, salt, offset + at as u64).expect("BUG: put together here");
        let body = &bytes[frame.header_size()..][..frame.body_size];
        let ends_batch = frame.ties.index + 1 == frame.ties.count;
        frames.push(HeldFrame { head: frame.head, body: body.to_vec(), ends_batch });
        at += frame.size();
    }
    frames
}
