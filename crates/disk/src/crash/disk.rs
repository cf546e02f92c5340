//! A file of a crash device as a disk.

use super::{CrashDisk, DiskFault};
use crate::{Disk, DiskError, FlushId};

/// What Chromium answers in some releases when the quota is used up.
const ABSURD_LENGTH: u64 = 4_294_967_288;

fn failed() -> DiskError {
    DiskError::Device { reason: "told to fail".to_owned() }
}

impl Disk for CrashDisk {
    fn size(&self) -> u64 {
        self.device.lock().files[self.file].now.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let mut device = self.device.lock();
        let has_fault = device.enter(self.file)?.is_some();
        if has_fault || !device.files[self.file].is_readable(offset, buf.len()) {
            return Err(failed());
        }
        device.files[self.file].now.read(offset, buf)?;
        device.read += buf.len() as u64;
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut device = self.device.lock();
        let mut fault = device.enter(self.file)?;
        if !device.has_room_at(self.file, offset, bytes.len()) {
            fault = Some(DiskFault::Full);
        }
        if device.is_full && device.files[self.file].has_news(offset, bytes) {
            return Err(DiskError::Full);
        }
        let Some(fault) = fault else { return device.write(self.file, offset, bytes) };
        let expected = bytes.len();
        let part = if fault == DiskFault::NothingWritten { &[] } else { &bytes[..expected / 2] };
        if device.has_room_at(self.file, offset, part.len()) {
            device.write(self.file, offset, part)?;
        }
        Err(match fault {
            DiskFault::Device | DiskFault::LateFlush => failed(),
            DiskFault::Full => DiskError::Full,
            DiskFault::ShortWrite | DiskFault::NothingWritten => {
                DiskError::ShortWrite { expected, written: part.len() as u64 }
            }
            DiskFault::AbsurdLength => DiskError::ShortWrite { expected, written: ABSURD_LENGTH },
        })
    }

    fn set_size(&mut self, size: u64) -> Result<(), DiskError> {
        let mut device = self.device.lock();
        let fault = device.enter(self.file)?;
        if fault == Some(DiskFault::Full) || !device.has_room(self.file, size) {
            return Err(DiskError::Full);
        }
        if fault.is_some() {
            return Err(failed());
        }
        let size = usize::try_from(size).map_err(|_| DiskError::Full)?;
        device.set_size(self.file, size)
    }

    fn request_flush(&mut self) -> Result<FlushId, DiskError> {
        let mut device = self.device.lock();
        let fault = device.enter(self.file)?;
        let (clock, holds) = (device.tick(), device.holds_flushes);
        let file = &mut device.files[self.file];
        match fault {
            None => {}
            Some(DiskFault::LateFlush) => file.flush_will_fail = true,
            Some(fault) => {
                file.fail_flush(clock);
                return Err(if fault == DiskFault::Full { DiskError::FlushFull } else { failed() });
            }
        }
        let id = file.request_flush(clock);
        if !holds {
            file.complete_flushes();
        }
        Ok(id)
    }

    fn flushed(&mut self) -> Result<Option<FlushId>, DiskError> {
        let device = self.device.lock();
        let file = &device.files[self.file];
        if file.poisoned { Err(DiskError::Poisoned) } else { Ok(file.flushed) }
    }
}
