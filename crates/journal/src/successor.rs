//! The other log file while it is being filled.

use tidelog_disk::{Disk, DiskError, FlushId};

use crate::header::{Header, LOG_START};
use crate::writer::Writer;
use crate::{FrameHead, FramePlace};

/// Bytes of copied state that are written at once.
const CHUNK_SIZE: usize = 1024 * 1024;

/// The file that will be active after the change-over, and what has been copied into it.
#[derive(Debug)]
pub(crate) struct Successor {
    writer: Writer,
    state_end: Option<u64>,
}

impl Successor {
    /// Takes the file into use: from here on it is not what it was.
    pub fn begin<D: Disk>(disk: &mut D, generation: u64) -> Result<Self, DiskError> {
        if let Err(error) = (Header { generation, state_end: 0 }).write(disk) {
            // Part of a header would be taken for damage, and nothing in this file is needed.
            let _ = disk.set_size(0);
            return Err(error);
        }
        Ok(Self { writer: Writer::new(generation, LOG_START, 0, 0), state_end: None })
    }

    /// Adds a frame to the copied state.
    pub fn push<D: Disk>(
        &mut self,
        disk: &mut D,
        head: &FrameHead,
        body: &[&[u8]],
    ) -> Result<FramePlace, DiskError> {
        assert!(self.state_end.is_none(), "BUG: copied into a sealed file");
        let place = self.writer.push(head, body);
        self.writer.commit();
        if self.writer.buffer.len() >= CHUNK_SIZE {
            self.writer.write(disk)?;
        }
        Ok(place)
    }

    /// Writes what is left of the state and asks for it to be flushed.
    pub fn finish<D: Disk>(&mut self, disk: &mut D) -> Result<FlushId, DiskError> {
        self.writer.write(disk)?;
        disk.request_flush()
    }

    /// Seals the file, whose state is flushed.
    pub fn seal<D: Disk>(&mut self, disk: &mut D) -> Result<FlushId, DiskError> {
        let header = Header { generation: self.writer.generation, state_end: self.writer.written };
        header.write(disk)?;
        self.state_end = Some(header.state_end);
        disk.request_flush()
    }

    /// The header that was written, and where to go on behind the state.
    pub fn into_active(mut self) -> (Header, Writer) {
        let state_end = self.state_end.expect("BUG: switched to a file that is not sealed");
        let header = Header { generation: self.writer.generation, state_end };
        self.writer.seal(header.checksum());
        (header, self.writer)
    }
}
