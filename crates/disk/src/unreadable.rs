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

/// Places of a file that are read to learn whether the device reads anything.
const SAMPLES: u64 = 8;

/// Whether this read failed for what lies there, and not because the device reads nothing any more:
/// it still reads half of some places all over the file. A system that has lost the device answers
/// for those alone that it happens to have in memory, as the headers, which are read often.
fn fails_there_alone<D: Disk>(disk: &D, error: &DiskError) -> bool {
    let is_of_a_place = matches!(error, DiskError::Device { .. } | DiskError::OutOfRange { .. });
    let blocks = disk.size() / BLOCK_SIZE as u64;
    let mut block = vec![0; BLOCK_SIZE];
    let mut is_read = |nth: u64| {
        let at = nth * blocks / SAMPLES * BLOCK_SIZE as u64;
        disk.read_at(at, &mut block).is_ok()
    };
    is_of_a_place && (0..SAMPLES).filter(|nth| is_read(*nth)).count() as u64 >= SAMPLES / 2
}
