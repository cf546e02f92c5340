//! Part of a log file in memory, and the frames in it.

use tidelog_disk::{Disk, DiskError};

use crate::FramePlace;
use crate::frame::{self, FRAME_ALIGNMENT, FRAME_HEADER_SIZE, FRAME_MAGIC, Frame, FrameHead};

/// A frame that is what was written.
#[derive(Clone, Copy, Debug)]
pub struct FoundFrame<'a> {
    /// Where it stands.
    pub place: FramePlace,
    /// What it says beside its body.
    pub head: FrameHead,
    /// Its body.
    pub body: &'a [u8],
}

/// Part of a file in memory.
pub(crate) struct Window<'a, D> {
    disk: &'a D,
    pub size: u64,
    start: u64,
    bytes: Vec<u8>,
    /// Bytes read at once; longer frames are read by themselves.
    read_size: usize,
}

impl<'a, D: Disk> Window<'a, D> {
    pub fn new(disk: &'a D, read_size: usize) -> Self {
        Self { disk, size: disk.size(), start: 0, bytes: Vec::new(), read_size }
    }

    /// `count` bytes at `offset`, `None` if the file ends before. So nothing larger than the file
    /// is ever allocated, whatever a size in it says.
    pub fn get(&mut self, offset: u64, count: usize) -> Result<Option<&[u8]>, DiskError> {
        let Some(rest) = self.size.checked_sub(offset).filter(|rest| *rest >= count as u64) else {
            return Ok(None);
        };
        let held = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + count as u64 > held {
            let wanted = rest.min(count.max(self.read_size) as u64);
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

    /// The header of the frame at `offset`, if a whole one of this generation, or with `None` of
    /// any, stands there. The body is another matter.
    pub fn header(
        &mut self,
        offset: u64,
        generation: Option<u64>,
    ) -> Result<Option<Frame>, DiskError> {
        let Some(header) = self.get(offset, FRAME_HEADER_SIZE)? else { return Ok(None) };
        let frame = frame::decode(header, offset);
        Ok(frame.filter(|frame| generation.is_none_or(|it| it == frame.ties.generation)))
    }

    /// The frame at `offset`, if a whole one of this generation stands there.
    pub fn frame(&mut self, offset: u64, generation: u64) -> Result<Option<Frame>, DiskError> {
        let Some(frame) = self.header(offset, Some(generation))? else { return Ok(None) };
        let bytes = self.get(offset, frame::frame_size(frame.body_size))?;
        Ok(bytes.filter(|bytes| frame.has_body(bytes)).map(|_| frame))
    }

    /// The same frame with its body.
    pub fn found(&mut self, offset: u64, frame: &Frame) -> Result<FoundFrame<'_>, DiskError> {
        let bytes = self.get(offset, FRAME_HEADER_SIZE + frame.body_size)?;
        let gone = || DiskError::Device { reason: "the log shrank while read".to_owned() };
        let body = &bytes.ok_or_else(gone)?[FRAME_HEADER_SIZE..];
        let place = FramePlace { frame: offset, body: offset + FRAME_HEADER_SIZE as u64 };
        Ok(FoundFrame { place, head: frame.head, body })
    }

    /// The first place at or after `from` where a whole header stands, of this generation or of
    /// any.
    pub fn search(
        &mut self,
        from: u64,
        generation: Option<u64>,
    ) -> Result<Option<(u64, Frame)>, DiskError> {
        let mut at = from.next_multiple_of(FRAME_ALIGNMENT as u64);
        while at < self.size {
            let left = usize::try_from(self.size - at).unwrap_or(usize::MAX);
            let count = left.min(self.read_size);
            let bytes = self.get(at, count)?.expect("BUG: counted by the size");
            let magic = bytes.chunks(FRAME_ALIGNMENT).position(|c| c.starts_with(&FRAME_MAGIC));
            at += magic.map_or(count, |steps| steps * FRAME_ALIGNMENT) as u64;
            if magic.is_some() {
                if let Some(frame) = self.header(at, generation)? {
                    return Ok(Some((at, frame)));
                }
                at += FRAME_ALIGNMENT as u64;
            }
        }
        Ok(None)
    }
}
