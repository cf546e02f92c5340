//! Part of a log file in memory, and the frames in it.

use std::collections::BTreeSet;

use tidelog_disk::{BLOCK_SIZE, Disk, DiskError, read_around};

use crate::FramePlace;
use crate::frame::{self, FRAME_HEADER_SIZE, Frame, FrameHead};
use crate::header::{FRAME_ALIGNMENT, Header};
use crate::writer::block_after;

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
    header: Header,
    pub size: u64,
    start: u64,
    bytes: Vec<u8>,
    /// Blocks that could not be read, and have zeros in their place.
    unreadable: BTreeSet<u64>,
    /// Bytes read at once; longer frames are read by themselves.
    read_size: usize,
}

impl<'a, D: Disk> Window<'a, D> {
    /// Of a file with this header.
    pub fn new(disk: &'a D, header: Header, read_size: usize) -> Self {
        let (size, unreadable) = (disk.size(), BTreeSet::new());
        Self { disk, header, size, start: 0, bytes: Vec::new(), unreadable, read_size }
    }

    /// `count` bytes at `offset`, `None` if the file ends before. So nothing larger than the file
    /// is ever allocated, whatever a size in it says.
    pub fn get(&mut self, offset: u64, count: usize) -> Result<Option<&[u8]>, DiskError> {
        let Some(rest) = self.size.checked_sub(offset).filter(|rest| *rest >= count as u64) else {
            return Ok(None);
        };
        if self.held(offset).len() < count {
            let wanted = rest.min(count.max(self.read_size) as u64);
            self.load(offset, usize::try_from(wanted).expect("BUG: windows are small"))?;
        }
        Ok(Some(&self.held(offset)[..count]))
    }

    /// The bytes from `offset` on that are in memory.
    fn held(&self, offset: u64) -> &[u8] {
        let from = offset.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        from.and_then(|from| self.bytes.get(from..)).unwrap_or_default()
    }

    /// Where the blocks end that could not be read: from the block of `from` on, those that begin
    /// at `limit` or before, and those right behind them. 0 if there are none.
    pub fn unreadable_end(&self, from: u64, limit: u64) -> u64 {
        let block_size = BLOCK_SIZE as u64;
        let blocks = self.unreadable.range(from - from % block_size..);
        blocks.fold(0, |end, at| if *at <= limit.max(end) { at + block_size } else { end })
    }

    /// Reads `count` bytes at `offset`. What is in memory of them is not read again.
    fn load(&mut self, offset: u64, count: usize) -> Result<(), DiskError> {
        let held = self.held(offset).len();
        let from = self.bytes.len() - held;
        self.bytes.copy_within(from.., 0);
        self.start = offset;
        self.bytes.resize(count, 0);
        let lost = &mut |at| self.unreadable.extend([at]);
        let read = read_around(self.disk, offset + held as u64, &mut self.bytes[held..], lost);
        if read.is_err() {
            self.bytes.clear();
        }
        read
    }

    /// The header of the frame at `offset`, if a whole one stands there. The body is another
    /// matter.
    pub fn header(&mut self, offset: u64) -> Result<Option<Frame>, DiskError> {
        let salt = self.header.salt;
        let header = self.header_bytes(offset)?;
        Ok(header.and_then(|header| frame::decode(header, salt, offset)))
    }

    /// The bytes of a header that stands at `offset`, if there are so many, whatever they are.
    pub fn header_bytes(&mut self, offset: u64) -> Result<Option<&[u8]>, DiskError> {
        let Some(first) = self.get(offset, FRAME_HEADER_SIZE)? else { return Ok(None) };
        let size = frame::header_size(first.try_into().expect("BUG: so many were asked for"));
        self.get(offset, size)
    }

    /// The frame at `offset`, if a whole one stands there.
    pub fn frame(&mut self, offset: u64) -> Result<Option<Frame>, DiskError> {
        let Some(frame) = self.header(offset)? else { return Ok(None) };
        let bytes = self.get(offset, frame.size())?;
        Ok(bytes.filter(|bytes| frame.has_body(bytes)).map(|_| frame))
    }

    /// The whole frame behind one that ends at `end`: right there, or where another write began.
    pub fn frame_behind(
        &mut self,
        end: u64,
        fits: impl Fn(&Frame) -> bool,
    ) -> Result<Option<(u64, Frame)>, DiskError> {
        if let Some(frame) = self.frame(end)?.filter(&fits) {
            return Ok(Some((end, frame)));
        }
        let next = block_after(end);
        let frame = if next > end { self.frame(next)?.filter(&fits) } else { None };
        Ok(frame.map(|frame| (next, frame)))
    }

    /// The same frame with its body.
    pub fn found(&mut self, offset: u64, frame: &Frame) -> Result<FoundFrame<'_>, DiskError> {
        let header_size = frame.header_size();
        let bytes = self.get(offset, header_size + frame.body_size)?;
        let gone = || DiskError::Device { reason: "the log shrank while read".to_owned() };
        let body = &bytes.ok_or_else(gone)?[header_size..];
        let place = FramePlace { frame: offset, body: offset + header_size as u64 };
        Ok(FoundFrame { place, head: frame.head, body })
    }

    /// The first place at or after `from` where a whole header stands.
    pub fn search(&mut self, from: u64) -> Result<Option<(u64, Frame)>, DiskError> {
        let mark = self.header.salt.mark();
        let mut at = from.next_multiple_of(FRAME_ALIGNMENT as u64);
        while at < self.size {
            if self.held(at).len() < FRAME_ALIGNMENT {
                let left = usize::try_from(self.size - at).unwrap_or(usize::MAX);
                self.load(at, left.min(self.read_size))?;
            }
            let mut places = self.held(at).chunks(FRAME_ALIGNMENT);
            let steps = places.position(|place| place.starts_with(&mark));
            let Some(steps) = steps else {
                at += (self.held(at).len() as u64).next_multiple_of(FRAME_ALIGNMENT as u64);
                continue;
            };
            at += (steps * FRAME_ALIGNMENT) as u64;
            if let Some(frame) = self.header(at)? {
                return Ok(Some((at, frame)));
            }
            at += FRAME_ALIGNMENT as u64;
        }
        Ok(None)
    }
}
