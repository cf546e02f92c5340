//! A disk on the origin private file system.

use tidelog_disk::{Disk, DiskError, FlushId};
use web_sys::{FileSystemReadWriteOptions, FileSystemSyncAccessHandle};

use crate::thrown::device;

/// A file of the origin private file system, through a handle that nobody else has.
///
/// At quota Chromium throws, or claims to have written an impossible number of bytes; Firefox
/// writes nothing and says so only in the number. So that is compared at every write.
#[derive(Debug)]
pub struct OpfsDisk {
    handle: FileSystemSyncAccessHandle,
    /// Kept here, since asking the handle is a call to another process in some browsers.
    size: u64,
    flushes: u64,
    is_poisoned: bool,
}

impl OpfsDisk {
    /// The disk behind an open handle.
    ///
    /// # Errors
    ///
    /// [`DiskError::Device`] if the handle does not even tell its size.
    pub fn new(handle: FileSystemSyncAccessHandle) -> Result<Self, DiskError> {
        let size = size_of(&handle)?;
        Ok(Self { handle, size, flushes: 0, is_poisoned: false })
    }

    fn check(&self) -> Result<(), DiskError> {
        if self.is_poisoned { Err(DiskError::Poisoned) } else { Ok(()) }
    }
}

/// Lets go of the file, so that another worker can open it.
impl Drop for OpfsDisk {
    fn drop(&mut self) {
        self.handle.close();
    }
}

fn size_of(handle: &FileSystemSyncAccessHandle) -> Result<u64, DiskError> {
    Ok(handle.get_size().map_err(|thrown| device(&thrown))? as u64)
}

fn at(offset: u64) -> FileSystemReadWriteOptions {
    let options = FileSystemReadWriteOptions::new();
    options.set_at(offset as f64);
    options
}

impl Disk for OpfsDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.check()?;
        let count = buf.len();
        let out_of_range = DiskError::OutOfRange { offset, count, size: self.size };
        match offset.checked_add(count as u64) {
            Some(end) if end <= self.size => {}
            _ => return Err(out_of_range),
        }
        if count == 0 {
            return Ok(());
        }
        let read = self
            .handle
            .read_with_u8_array_and_options(buf, &at(offset))
            .map_err(|thrown| device(&thrown))?;
        if read == count as f64 { Ok(()) } else { Err(out_of_range) }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.check()?;
        if bytes.is_empty() {
            return Ok(());
        }
        let written = self.handle.write_with_u8_array_and_options(bytes, &at(offset));
        if written.as_ref().is_ok_and(|written| *written == bytes.len() as f64) {
            self.size = self.size.max(offset + bytes.len() as u64);
            return Ok(());
        }
        self.size = size_of(&self.handle)?;
        let written = written.map_err(|thrown| device(&thrown))? as u64;
        Err(DiskError::ShortWrite { expected: bytes.len(), written })
    }

    fn set_size(&mut self, size: u64) -> Result<(), DiskError> {
        self.check()?;
        let set = self.handle.truncate_with_f64(size as f64).map_err(|thrown| device(&thrown));
        self.size = size_of(&self.handle)?;
        set?;
        if self.size == size { Ok(()) } else { Err(DiskError::Full) }
    }

    fn request_flush(&mut self) -> Result<FlushId, DiskError> {
        self.check()?;
        self.handle.flush().map_err(|thrown| {
            self.is_poisoned = true;
            device(&thrown).of_flush()
        })?;
        self.flushes += 1;
        Ok(FlushId(self.flushes))
    }

    fn flushed(&mut self) -> Result<Option<FlushId>, DiskError> {
        self.check()?;
        Ok((self.flushes > 0).then_some(FlushId(self.flushes)))
    }
}
