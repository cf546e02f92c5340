//! The other log file while it is being filled.

use tidelog_disk::{Disk, DiskError, FlushId};

use crate::header::{Header, LOG_START};
use crate::writer::Writer;
use crate::{FrameHead, FramePlace};

/// Bytes that are written at once.
const CHUNK_SIZE: usize = 256 * 1024;

/// The file that will be active after the change-over, and what has been copied into it.
#[derive(Debug)]
pub(crate) struct Successor {
    writer: Writer,
    /// As it will be; the state's end is 0 until it is known.
    header: Header,
}

impl Successor {
    /// Takes the file into use: from here on it is not what it was.
    pub fn begin<D: Disk>(disk: &mut D, header: Header) -> Result<Self, DiskError> {
        if let Err(error) = header.write(disk) {
            // Nothing in this file is needed.
            let _ = disk.set_size(0);
            return Err(error);
        }
        Ok(Self { writer: Writer::new(header, LOG_START, 0, 0), header })
    }

    /// Adds a frame to the copied state.
    pub fn push<D: Disk>(
        &mut self,
        disk: &mut D,
        head: &FrameHead,
        body: &[&[u8]],
    ) -> Result<FramePlace, DiskError> {
        assert!(!self.header.is_sealed(), "BUG: copied behind the end of the state");
        let place = self.writer.push(head, body);
        self.writer.commit();
        self.write_chunk(disk)?;
        Ok(place)
    }

    /// The state ends here, and what was appended since it was folded follows.
    pub fn end_state<D: Disk>(&mut self, disk: &mut D) -> Result<(), DiskError> {
        self.writer.write(disk)?;
        self.header.state_end = self.writer.whole_end();
        self.writer.end_state(self.header.seam());
        Ok(())
    }

    /// Adds a frame behind the state, in the same place of its batch as it has there.
    pub fn push_part<D: Disk>(
        &mut self,
        disk: &mut D,
        head: &FrameHead,
        body: &[&[u8]],
        part: (u32, u32),
    ) -> Result<FramePlace, DiskError> {
        assert!(self.header.is_sealed(), "BUG: the state has not ended");
        let place = self.writer.push_part(head, body, part);
        self.write_chunk(disk)?;
        Ok(place)
    }

    fn write_chunk<D: Disk>(&mut self, disk: &mut D) -> Result<(), DiskError> {
        if self.writer.buffer.len() >= CHUNK_SIZE { self.writer.write(disk) } else { Ok(()) }
    }

    /// Writes what is left and asks for all of it to be flushed.
    pub fn flush<D: Disk>(&mut self, disk: &mut D) -> Result<FlushId, DiskError> {
        self.writer.write(disk)?;
        disk.request_flush()
    }

    /// Seals the file, all of which is flushed.
    pub fn seal<D: Disk>(&mut self, disk: &mut D) -> Result<FlushId, DiskError> {
        assert!(self.writer.buffer.is_empty(), "BUG: sealed before all of it was written");
        self.header.durable = self.writer.whole_end();
        self.header.write(disk)?;
        disk.request_flush()
    }

    /// The header that was written, and where to go on.
    pub fn into_active(mut self) -> (Header, Writer) {
        let is_whole = self.header.is_sealed() && self.header.durable == self.writer.whole_end();
        assert!(is_whole, "BUG: switched to a file that is not sealed");
        self.writer.durable = self.header.durable;
        (self.header, self.writer)
    }
}
