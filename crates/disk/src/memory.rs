//! A disk in memory.

use crate::{Disk, DiskError, FlushId};

/// Bytes in memory. Nothing survives its end; a flush is complete at once.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    bytes: Vec<u8>,
    flushes: u64,
}

impl MemoryDisk {
    /// A disk that holds these bytes.
    #[must_use]
    pub fn holding(bytes: Vec<u8>) -> Self {
        Self { bytes, flushes: 0 }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The run of `count` bytes at `offset`, if it lies within `size`.
pub(crate) fn range_within(
    size: usize,
    offset: u64,
    count: usize,
) -> Result<std::ops::Range<usize>, DiskError> {
    let start = usize::try_from(offset).ok();
    let end = start.and_then(|start| start.checked_add(count)).filter(|end| *end <= size);
    match (start, end) {
        (Some(start), Some(end)) => Ok(start..end),
        _ => Err(DiskError::OutOfRange { offset, count, size: size as u64 }),
    }
}

/// Writes into `file`, which grows by zeros as far as needed.
pub(crate) fn write_growing(
    file: &mut Vec<u8>,
    offset: u64,
    bytes: &[u8],
) -> Result<(), DiskError> {
    let range = range_within(usize::MAX, offset, bytes.len()).map_err(|_| DiskError::Full)?;
    if file.len() < range.end && !bytes.is_empty() {
        resize(file, range.end)?;
    }
    if !bytes.is_empty() {
        file[range].copy_from_slice(bytes);
    }
    Ok(())
}

/// Cuts `file` off, or grows it by zeros, if there is so much memory.
pub(crate) fn resize(file: &mut Vec<u8>, size: usize) -> Result<(), DiskError> {
    file.try_reserve(size.saturating_sub(file.len())).map_err(|_| DiskError::Full)?;
    file.resize(size, 0);
    Ok(())
}

impl Disk for MemoryDisk {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let range = range_within(self.bytes.len(), offset, buf.len())?;
        buf.copy_from_slice(&self.bytes[range]);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        write_growing(&mut self.bytes, offset, bytes)
    }

    fn set_size(&mut self, size: u64) -> Result<(), DiskError> {
        resize(&mut self.bytes, usize::try_from(size).map_err(|_| DiskError::Full)?)
    }

    fn request_flush(&mut self) -> Result<FlushId, DiskError> {
        self.flushes += 1;
        Ok(FlushId(self.flushes))
    }

    fn flushed(&mut self) -> Result<Option<FlushId>, DiskError> {
        Ok((self.flushes > 0).then_some(FlushId(self.flushes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_disk_keeps_the_laws() {
        crate::conformance::run(MemoryDisk::default);
    }
}
