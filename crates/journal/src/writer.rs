//! Where batches are put together before they are written.

use std::ops::{Range, RangeInclusive};

use tidelog_disk::{BLOCK_SIZE, Disk, DiskError};
use tidelog_types::Epoch;

use crate::frame::{self, DocumentNumber, FrameHead, Ties};
use crate::header::{FRAME_ALIGNMENT, Header, Salt};

/// Bytes of zeros behind the last batch of each write, at least.
const END_MARK_SIZE: usize = 8;
/// What a buffer may keep allocated while it is empty.
const IDLE_BUFFER_SIZE: usize = 1024 * 1024;
/// Zeros behind every batch that may not be the last thing to fit on the device: so many writes of
/// a block each.
const RESERVE_SIZE: usize = 32 * BLOCK_SIZE;
/// With less of it left, some shall be made.
const RESERVE_SIZE_LOW: usize = RESERVE_SIZE / 2;

/// Zeros that are written ahead of a log, unless the device is full.
const ROOM_SIZES: RangeInclusive<usize> = 2 * BLOCK_SIZE..=256 * BLOCK_SIZE;

/// Where a write begins that follows what ends here. What was written before may be durable: so
/// each write has its blocks for itself.
pub(crate) fn block_after(end: u64) -> u64 {
    end.next_multiple_of(BLOCK_SIZE as u64)
}

/// Where a frame stands in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramePlace {
    /// Its first byte.
    pub frame: u64,
    /// The first byte of its body.
    pub body: u64,
}

/// The growing end of one log file: a buffer of batches, of which the last may still be put
/// together.
#[derive(Debug)]
pub(crate) struct Writer {
    salt: Salt,
    /// Offset at which the buffer will be written: the first block behind what is written.
    pub written: u64,
    pub buffer: Vec<u8>,
    /// Whether something in the buffer must leave the reserve alone.
    pub needs_reserve: bool,
    /// Where the frames of the batch being put together begin in the buffer.
    batch: Vec<usize>,
    /// Frames that are still to come of a batch whose parts are pushed one by one.
    pub parts_left: u32,
    /// Where the last frame ends that is tied into a batch, and its checksum.
    last: (u64, u32),
    /// Where the last batch ends of which all is written, and the checksum of its last frame.
    whole: (u64, u32),
    pub attempt: u32,
    /// Everything before this offset is flushed.
    pub durable: u64,
    /// Where the last durable mark stands; 0 if there is none.
    marked: u64,
}

impl Writer {
    /// For a file whose last frame ends at `end` and has the checksum `link`.
    pub fn new(header: Header, end: u64, link: u32, attempt: u32) -> Self {
        assert!(end.is_multiple_of(FRAME_ALIGNMENT as u64), "BUG: frames are aligned");
        Self {
            salt: header.salt,
            written: block_after(end),
            buffer: Vec::new(),
            needs_reserve: false,
            batch: Vec::new(),
            parts_left: 0,
            last: (end, link),
            whole: (end, link),
            attempt,
            durable: 0,
            marked: 0,
        }
    }

    /// Where the next frame will stand.
    pub fn end(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Where the last batch ends of which all is written.
    pub fn whole_end(&self) -> u64 {
        self.whole.0
    }

    /// Adds a frame to the batch being put together.
    pub fn push(&mut self, head: &FrameHead, body: &[&[u8]]) -> FramePlace {
        let frame = self.end();
        self.batch.push(self.buffer.len());
        frame::encode(head, body, &mut self.buffer);
        FramePlace { frame, body: frame + head.header_size() as u64 }
    }

    /// Ties the pushed frames into one batch. Says whether there were any.
    pub fn commit(&mut self) -> bool {
        self.needs_reserve |= !self.batch.is_empty();
        self.commit_from_reserve()
    }

    /// The same of a batch that may take the last room there is.
    pub fn commit_from_reserve(&mut self) -> bool {
        let starts = std::mem::take(&mut self.batch);
        let count = u32::try_from(starts.len()).expect("BUG: a batch of 2^32 frames");
        let ends = starts.iter().skip(1).copied().chain([self.buffer.len()]);
        for (index, (start, end)) in (0..).zip(starts.iter().copied().zip(ends)) {
            self.tie(start..end, index, count);
        }
        count > 0
    }

    /// Adds a frame of a batch of which it is known where in it that stands: it can be written
    /// before the others are there.
    pub fn push_part(
        &mut self,
        head: &FrameHead,
        body: &[&[u8]],
        (index, count): (u32, u32),
    ) -> FramePlace {
        assert!(self.batch.is_empty(), "BUG: a part in the middle of another batch");
        assert!(self.parts_left == if index == 0 { 0 } else { count - index }, "BUG: out of turn");
        self.needs_reserve = true;
        let place = self.push(head, body);
        let starts = std::mem::take(&mut self.batch);
        self.tie(starts[0]..self.buffer.len(), index, count);
        self.parts_left = count - index - 1;
        place
    }

    fn tie(&mut self, frame: Range<usize>, index: u32, count: u32) {
        let offset = self.written + frame.start as u64;
        let ties = self.ties(index, count);
        let end = offset + frame.len() as u64;
        self.last = (end, frame::finish(&mut self.buffer[frame], self.salt, offset, &ties));
    }

    fn ties(&self, index: u32, count: u32) -> Ties {
        let Self { durable, last: (_, link), attempt, .. } = *self;
        Ties { durable, link, attempt, index, count }
    }

    /// Bytes of the file behind what is written.
    fn room<D: Disk>(&self, disk: &D) -> u64 {
        disk.size().saturating_sub(self.written)
    }

    /// Whether a good part of the reserve is taken, and the device had no room for more.
    pub fn is_reserve_low<D: Disk>(&self, disk: &D) -> bool {
        self.room(disk) < RESERVE_SIZE_LOW as u64
    }

    /// Writes the buffer with one write, and zeros up to the end of a block. After an error it is
    /// as it was.
    pub fn write<D: Disk>(&mut self, disk: &mut D) -> Result<(), DiskError> {
        assert!(self.batch.is_empty(), "BUG: written in the middle of a batch");
        if self.buffer.is_empty() {
            return Ok(());
        }
        let size = self.buffer.len();
        let marked_size = (size + END_MARK_SIZE).next_multiple_of(BLOCK_SIZE);
        let reserve = if self.needs_reserve { RESERVE_SIZE } else { 0 };
        // What may take the reserve fills it up again where the device has room.
        let least_left = if self.needs_reserve { RESERVE_SIZE } else { RESERVE_SIZE_LOW };
        let sizes = if self.room(disk) >= (marked_size + least_left) as u64 {
            [marked_size; 3]
        } else {
            // To flush a file that has grown takes some devices twice as long, since its size has
            // to be made durable too. So it grows by as much as the log is long, as vectors do.
            let end = usize::try_from(self.written).unwrap_or(usize::MAX).saturating_add(size);
            let ahead = end.clamp(*ROOM_SIZES.start(), *ROOM_SIZES.end());
            let filled = marked_size + RESERVE_SIZE;
            [filled + ahead, filled, marked_size + reserve]
        };
        self.buffer.resize(sizes[0], 0);
        let mut answer = disk.write_at(self.written, &self.buffer);
        for (before, next) in sizes.into_iter().zip(sizes.into_iter().skip(1)) {
            if before > next && answer.as_ref().is_err_and(DiskError::is_full) {
                answer = disk.write_at(self.written, &self.buffer[..next]);
            }
        }
        self.buffer.truncate(size);
        answer?;
        self.written = block_after(self.written + size as u64);
        self.marked = 0;
        if self.parts_left == 0 {
            self.whole = self.last;
        }
        self.buffer.clear();
        self.buffer.shrink_to(IDLE_BUFFER_SIZE);
        self.needs_reserve = self.parts_left > 0;
        Ok(())
    }

    /// Forgets what is in the buffer, after it could not be written, and the parts of its first
    /// batch that were. Whole batches of it may stand in the file: an end mark over the first of
    /// them cuts them off, and the higher attempt keeps the others from ever being taken for
    /// something that follows.
    pub fn discard<D: Disk>(&mut self, disk: &mut D) -> Result<(), DiskError> {
        self.batch.clear();
        self.buffer.clear();
        self.parts_left = 0;
        self.needs_reserve = false;
        self.last = self.whole;
        self.written = block_after(self.whole_end());
        self.attempt += 1;
        self.write_end_mark(disk)
    }

    /// Says in the block behind the end that everything before that is durable. Not where that
    /// would make the file longer, and not twice. Says whether it was written.
    pub fn write_durable_mark<D: Disk>(&mut self, disk: &mut D) -> Result<bool, DiskError> {
        assert!(self.buffer.is_empty(), "BUG: a durable mark over batches");
        let mut mark = Vec::new();
        frame::encode(&FrameHead::new(0, DocumentNumber::NONE, Epoch(0)), &[], &mut mark);
        let has_room = self.written + mark.len() as u64 <= disk.size();
        if self.durable != self.whole_end() || self.marked == self.written || !has_room {
            return Ok(false);
        }
        let ties = self.ties(0, 0);
        frame::finish(&mut mark, self.salt, self.written, &ties);
        disk.write_at(self.written, &mark)?;
        self.marked = self.written;
        Ok(true)
    }

    /// Cuts off the torn write that was found behind the end. What of it is in the block of the end
    /// was put there by the write that put there what is whole, so nothing in that was durable; and
    /// nothing is ever written over it, so it must not look like frames any more. No more of it is
    /// changed: a frame that lacks a sector of zeros would be whole with one that is wiped, if its
    /// other sectors come back.
    pub fn cut_tail<D: Disk>(&mut self, disk: &mut D) -> Result<(), DiskError> {
        let end = self.whole_end();
        let left = self.written.min(disk.size()).saturating_sub(end);
        let mut rest = vec![0; usize::try_from(left).expect("BUG: less than a block")];
        disk.read_at(end, &mut rest)?;
        let before = rest.clone();
        for (nth, place) in rest.chunks_mut(FRAME_ALIGNMENT).enumerate() {
            if nth == 0 || place.starts_with(&self.salt.mark()) {
                place.fill(0);
            }
        }
        if rest != before {
            disk.write_at(end, &rest)?;
        }
        self.write_end_mark(disk)
    }

    /// Cuts off what stands where the next write begins.
    pub fn write_end_mark<D: Disk>(&mut self, disk: &mut D) -> Result<(), DiskError> {
        self.marked = 0;
        assert!(self.buffer.is_empty(), "BUG: an end mark over batches");
        // No more than is there: the device may be full.
        let there = disk.size().saturating_sub(self.written).min(END_MARK_SIZE as u64);
        let there = usize::try_from(there).expect("BUG: at most 8");
        disk.write_at(self.written, &[0; END_MARK_SIZE][..there])
    }

    /// Ends the copied state here: the next frame is linked to the header.
    pub fn end_state(&mut self, seam: u32) {
        assert!(self.buffer.is_empty(), "BUG: the state ends before it is written");
        self.last.1 = seam;
        self.whole = self.last;
    }
}
