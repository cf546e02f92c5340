//! Files that the device cannot read in some places.

use crate::{BLOCK_SIZE, Disk, DiskError};

/// Fills `buf` with the bytes at `offset`. Answers `false` if the device fails twice to read them
/// and still reads others: what lies there is lost, and nothing else.
///
/// # Errors
///
/// What the disk says if it reads nothing any more.
pub fn read_or_lose<D: Disk>(disk: &D, offset: u64, buf: &mut [u8]) -> Result<bool, DiskError> {
    match disk.read_at(offset, buf) {
        Err(error) if fails_there_alone(disk, &error) => Ok(disk.read_at(offset, buf).is_ok()),
        read => read.map(|()| true),
    }
}

/// Fills `buf` from `offset` on. In place of blocks that the device cannot read, though it reads
/// others, are zeros, and `lost` is told where each of them begins.
///
/// # Errors
///
/// What the disk says if it reads nothing any more.
pub fn read_around<D: Disk>(
    disk: &D,
    offset: u64,
    buf: &mut [u8],
    lost: &mut dyn FnMut(u64),
) -> Result<(), DiskError> {
    if read_or_lose(disk, offset, buf)? {
        return Ok(());
    }
    let block_size = BLOCK_SIZE as u64;
    let end = offset + buf.len() as u64;
    let size = disk.size().max(end);
    let mut block = vec![0; BLOCK_SIZE];
    let index = |at: u64| usize::try_from(at).expect("BUG: within a buffer");
    let mut at = offset - offset % block_size;
    while at < end {
        // All of it or nothing, whichever part is wanted.
        let there = &mut block[..index(block_size.min(size - at))];
        if !read_or_lose(disk, at, there)? {
            there.fill(0);
            lost(at);
        }
        let (from, to) = (at.max(offset), (at + block_size).min(end));
        buf[index(from - offset)..index(to - offset)]
            .copy_from_slice(&there[index(from - at)..index(to - at)]);
        at += block_size;
    }
    Ok(())
}

/// Whether this read failed for what lies there, and not because the device reads nothing any more:
/// it still reads one of the first two blocks of the file, in each of which the files of a store
/// have a copy of their header.
fn fails_there_alone<D: Disk>(disk: &D, error: &DiskError) -> bool {
    let is_of_a_place = matches!(error, DiskError::Device { .. } | DiskError::OutOfRange { .. });
    let mut block = vec![0; BLOCK_SIZE];
    is_of_a_place && [0, BLOCK_SIZE as u64].iter().any(|at| disk.read_at(*at, &mut block).is_ok())
}
