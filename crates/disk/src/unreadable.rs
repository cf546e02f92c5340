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
/// Blocks at the beginning that are read often.
const HEADERS: u64 = 2;

/// Whether this read failed for what lies there, and not because the device reads nothing any more:
/// it still reads half of some places all over the file. A system that has lost the device answers
/// for those alone that it happens to have in memory, as the first two blocks, in which files of a
/// store have their headers.
fn fails_there_alone<D: Disk>(disk: &D, error: &DiskError) -> bool {
    let is_of_a_place = matches!(error, DiskError::Device { .. } | DiskError::OutOfRange { .. });
    let blocks = disk.size() / BLOCK_SIZE as u64;
    let (first, count) = if blocks > HEADERS { (HEADERS, blocks - HEADERS) } else { (0, blocks) };
    let mut block = vec![0; BLOCK_SIZE];
    let mut is_read = |nth: u64| {
        let at = (first + nth * count / SAMPLES) * BLOCK_SIZE as u64;
        disk.read_at(at, &mut block).is_ok()
    };
    is_of_a_place && (0..SAMPLES).filter(|nth| is_read(*nth)).count() as u64 >= SAMPLES / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CrashDevice;

    const BLOCK: u64 = BLOCK_SIZE as u64;

    /// Reads a block of a file of so many of which these cannot be read.
    fn read(blocks: u64, at: u64, unreadable: std::ops::Range<u64>) -> Result<bool, DiskError> {
        let device = CrashDevice::new();
        let mut file = device.file("a");
        file.set_size(blocks * BLOCK).expect("room");
        device.make_unreadable("a", unreadable.start * BLOCK..unreadable.end * BLOCK);
        read_or_lose(&file, at * BLOCK, &mut [0; BLOCK_SIZE])
    }

    #[test]
    fn one_block_is_lost_of_any_file() {
        for blocks in 2..40 {
            for at in 0..blocks {
                let lost = read(blocks, at, at..at + 1);
                // Where one is all that there is besides the headers, nothing tells.
                assert!(blocks == 3 && at == 2 || lost == Ok(false), "{at} of {blocks}: {lost:?}");
            }
        }
    }

    #[test]
    fn a_device_is_gone_where_only_what_is_read_often_can_be_read() {
        for blocks in 3..40 {
            let gone = read(blocks, blocks - 1, 2..blocks);
            assert!(matches!(gone, Err(DiskError::Device { .. })), "{blocks} blocks: {gone:?}");
        }
    }
}
