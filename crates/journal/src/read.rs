//! Reading the log back.

use tidelog_disk::{Disk, DiskError, read_or_lose};

use crate::frame::{self, BatchPart};
use crate::header::Salt;
use crate::scan::WINDOW_SIZE;
use crate::window::{FoundFrame, Window};
use crate::writer::Writer;
use crate::{FrameHead, Log, LogFile, ReadError};

/// Bytes read at first to get one frame.
const FIRST_READ_SIZE: u64 = 1024;

/// Where a frame stands, whichever file is active when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameAt {
    file: LogFile,
    salt: Salt,
    offset: u64,
}

impl<D: Disk> Log<D> {
    /// Fills `buf` with bytes of a log file; some of them may still be in a buffer. Whether they
    /// are what was written is for the caller to check. What lay in the other file can be read
    /// until that is [made longer or cut off](Self::resize_other), or a change-over fills it.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`] if the device cannot read these bytes, though it reads others.
    pub fn read_at(&self, file: LogFile, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        if let Some(writer) = self.writer_of(file).filter(|writer| offset >= writer.written) {
            return Ok(read_buffer(writer, offset, buf)?);
        }
        let is_read = read_or_lose(&self.files[file.index()], offset, buf)?;
        if is_read { Ok(()) } else { Err(ReadError::Damaged { offset }) }
    }

    /// What of a file may still be in memory.
    fn writer_of(&self, file: LogFile) -> Option<&Writer> {
        if file == self.active { Some(&self.writer) } else { self.previous.as_ref() }
    }

    /// Bytes from `offset` of a file to the end of what is written, or behind that to the end of
    /// the buffer: the two are read apart, and no frame is in both.
    fn left_from(&self, file: LogFile, offset: u64) -> Option<u64> {
        let end = match self.writer_of(file) {
            Some(writer) if offset >= writer.written => writer.end(),
            Some(writer) => writer.written.min(self.files[file.index()].size()),
            None => self.files[file.index()].size(),
        };
        end.checked_sub(offset)
    }

    /// The place of the frame at `offset` of the active file: it can be read there until,
    /// after the next change-over, that file is [made longer or cut off](Self::resize_other), or
    /// filled again.
    #[must_use]
    pub fn frame_at(&self, offset: u64) -> FrameAt {
        FrameAt { file: self.active, salt: self.header.salt, offset }
    }

    /// The frame at this place, verified.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`] if it is not what was written there.
    pub fn read_frame(&self, at: FrameAt) -> Result<(FrameHead, Vec<u8>), ReadError> {
        let FrameAt { file, salt, offset } = at;
        let damaged = || ReadError::Damaged { offset };
        let left = self.left_from(file, offset).ok_or_else(damaged)?;
        // Most frames are small: one read gets them whole.
        let first = usize::try_from(left.min(FIRST_READ_SIZE)).expect("BUG: a small number");
        let mut bytes = vec![0; first];
        self.read_at(file, offset, &mut bytes)?;
        let frame = frame::decode(&bytes, salt, offset).ok_or_else(damaged)?;
        let size = frame.size();
        if size as u64 > left {
            return Err(damaged());
        }
        bytes.resize(size, 0);
        if first < size {
            self.read_at(file, offset + first as u64, &mut bytes[first..])?;
        }
        if !frame.has_body(&bytes) {
            return Err(damaged());
        }
        bytes.truncate(frame.header_size() + frame.body_size);
        bytes.drain(..frame.header_size());
        Ok((frame.head, bytes))
    }

    /// Tells `visit` of the frames of written batches from `offset` on, up to `limit` and of about
    /// `size` bytes, at least one; gives the offset behind them.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`] if one is not what was written there.
    pub fn read_from(
        &self,
        offset: u64,
        limit: u64,
        size: usize,
        visit: &mut dyn FnMut(FoundFrame<'_>, BatchPart),
    ) -> Result<u64, ReadError> {
        let limit = limit.min(self.written_size());
        // What is in memory at once is bounded, however much is to be read.
        let piece = size.min(WINDOW_SIZE);
        let mut window = Window::new(&self.files[self.active.index()], self.header, piece);
        let mut at = offset;
        while at < limit && at - offset < size as u64 {
            let behind = window.frame_behind(at, |_| true)?;
            let (place, frame) = behind.ok_or(ReadError::Damaged { offset: at })?;
            visit(window.found(place, &frame)?, (frame.ties.index, frame.ties.count));
            at = place + frame.size() as u64;
        }
        Ok(at)
    }
}

fn read_buffer(writer: &Writer, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
    let start = usize::try_from(offset - writer.written).unwrap_or(usize::MAX);
    let end = start.saturating_add(buf.len());
    let out_of_range = || DiskError::OutOfRange { offset, count: buf.len(), size: writer.end() };
    let bytes = writer.buffer.get(start..end).ok_or_else(out_of_range)?;
    buf.copy_from_slice(bytes);
    Ok(())
}
