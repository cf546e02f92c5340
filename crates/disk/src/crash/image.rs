//! What is in a file, in blocks that its copies share until one of them is written to.

use std::sync::Arc;

use crate::memory::range_within;
use crate::{BLOCK_SIZE, DiskError, SECTOR_SIZE};

/// Bytes that stand together in memory.
pub(super) type Block = Arc<[u8; BLOCK_SIZE]>;

const ZEROS: [u8; BLOCK_SIZE] = [0; BLOCK_SIZE];

/// The bytes of a file. Behind its end there are zeros.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    /// `None` where nobody has written anything but zeros. What the last one has behind the end is
    /// zeros too.
    blocks: Vec<Option<Block>>,
    size: usize,
}

impl Image {
    pub fn len(&self) -> usize {
        self.size
    }

    /// Cuts it off, or grows it by zeros, if there is so much memory.
    pub fn resize(&mut self, size: usize) -> Result<(), DiskError> {
        let count = size.div_ceil(BLOCK_SIZE);
        let more = count.saturating_sub(self.blocks.len());
        self.blocks.try_reserve(more).map_err(|_| DiskError::Full)?;
        self.blocks.resize(count, None);
        if size < self.size
            && let Some(Some(block)) = self.blocks.get_mut(size / BLOCK_SIZE)
        {
            Arc::make_mut(block)[size % BLOCK_SIZE..].fill(0);
        }
        self.size = size;
        Ok(())
    }

    /// Copies what is at `offset`.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), DiskError> {
        let range = range_within(self.size, offset, out.len())?;
        for (part, at) in parts(range.start, out.len()) {
            let (nth, within) = (at / BLOCK_SIZE, at % BLOCK_SIZE);
            let block = self.blocks[nth].as_deref().unwrap_or(&ZEROS);
            let size = part.len();
            out[part].copy_from_slice(&block[within..within + size]);
        }
        Ok(())
    }

    /// Puts bytes at `offset`; the file grows by zeros as far as needed.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let range = range_within(usize::MAX, offset, bytes.len()).map_err(|_| DiskError::Full)?;
        if bytes.is_empty() {
            return Ok(());
        }
        if self.size < range.end {
            self.resize(range.end)?;
        }
        for (part, at) in parts(range.start, bytes.len()) {
            let (block, bytes) = (&mut self.blocks[at / BLOCK_SIZE], &bytes[part]);
            if let Ok(whole) = <&[u8; BLOCK_SIZE]>::try_from(bytes) {
                *block = (*whole != ZEROS).then(|| Arc::new(*whole));
            } else if block.is_some() || bytes != &ZEROS[..bytes.len()] {
                let block = Arc::make_mut(block.get_or_insert_with(|| Arc::new(ZEROS)));
                block[at % BLOCK_SIZE..][..bytes.len()].copy_from_slice(bytes);
            }
        }
        Ok(())
    }

    /// The block that a sector is in; `None` if that is all zeros.
    pub fn block_of(&self, sector: usize) -> Option<&Block> {
        self.blocks.get(sector * SECTOR_SIZE / BLOCK_SIZE)?.as_ref()
    }

    /// Gives a sector what it has in such a block, as far as the file reaches.
    pub fn lay(&mut self, sector: usize, block: Option<&Block>) {
        let start = sector * SECTOR_SIZE;
        let size = self.size.saturating_sub(start).min(SECTOR_SIZE);
        let laid = self.write(start as u64, &sector_of(block, sector)[..size]);
        laid.expect("BUG: a file has room for what is within it");
    }

    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.size];
        self.read(0, &mut bytes).expect("BUG: all of a file is within it");
        bytes
    }
}

/// Whether two blocks hold the same in a sector. Rooms of zeros are written all the time: they are
/// not compared byte for byte.
pub(super) fn is_same(sector: usize, one: Option<&Block>, other: Option<&Block>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) if Arc::ptr_eq(one, other) => true,
        _ => sector_of(one, sector) == sector_of(other, sector),
    }
}

/// A sector's part of the block that it is in.
fn sector_of(block: Option<&Block>, sector: usize) -> &[u8] {
    let start = sector * SECTOR_SIZE % BLOCK_SIZE;
    &block.map_or(&ZEROS, |block| &**block)[start..start + SECTOR_SIZE]
}

/// What of `count` bytes at `start` is in each block, and where in the file that begins.
fn parts(start: usize, count: usize) -> impl Iterator<Item = (std::ops::Range<usize>, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = start + done;
        let end = count.min(done + BLOCK_SIZE - at % BLOCK_SIZE);
        let part = std::mem::replace(&mut done, end)..end;
        (!part.is_empty()).then_some((part, at))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_holds_what_a_vector_would() {
        let (mut image, mut expected) = (Image::default(), Vec::new());
        let writes = [(0, 10), (4090, 20), (9000, 4096), (8192, 4096), (3, 9000), (20_000, 1)];
        for (nth, (offset, count)) in (1..).zip(writes) {
            let before = (image.clone(), expected.clone());
            image.write(offset as u64, &vec![nth; count]).expect("room");
            expected.resize(expected.len().max(offset + count), 0);
            expected[offset..offset + count].fill(nth);
            assert_eq!(image.to_vec(), expected);
            assert_eq!(before.0.to_vec(), before.1, "a copy stays as it is");
        }
        for size in [15_000, 9001, 12_000, 4096, 0, 7] {
            image.resize(size).expect("room");
            expected.resize(size, 0);
            assert_eq!(image.to_vec(), expected);
        }
    }
}
