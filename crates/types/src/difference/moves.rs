//! What of a page stands elsewhere in the one that it differs from.

use super::SHARED_MIN;
use crate::limits::PAGE_SIZE;

/// How far a row of small numbers moves where one is put in or taken out: SQLite's pages begin with
/// the places of their cells, each in two bytes.
const NUMBER_SIZE: usize = 2;

/// Bytes of the base that are worth to be named by where they stood.
pub(super) const MOVED_MIN: usize = 12;

/// Bytes in a row that are no longer the base's, from which on they are looked for all over it:
/// SQLite moves cells when it puts a page in order, or shares them out among pages.
const SOUGHT_FROM: usize = 16;

/// Bytes of a page that stand in its base, in another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    /// Where they begin.
    pub at: usize,
    /// Where they begin in the base.
    pub from: usize,
    pub size: usize,
}

/// Finds what has moved from a base into a page.
pub(super) struct Moves<'p> {
    base: &'p [u8],
    page: &'p [u8],
    /// Made once something is sought: most pages change in a few bytes.
    blocks: Option<Blocks>,
}

impl<'p> Moves<'p> {
    pub fn new(base: &'p [u8], page: &'p [u8]) -> Self {
        Self { base, page, blocks: None }
    }

    /// What has moved to this place, or to a little before it, but not before the `start` of what
    /// is new.
    pub fn at(&mut self, start: usize, at: usize) -> Option<Moved> {
        let near = [at.checked_sub(NUMBER_SIZE), Some(at + NUMBER_SIZE)];
        near.into_iter().flatten().find_map(|from| self.moved(at, at, from)).or_else(|| {
            let is_sought = at - start >= SOUGHT_FROM;
            let blocks =
                is_sought.then(|| self.blocks.get_or_insert_with(|| Blocks::of(self.base)));
            let from = blocks?.find(self.page, at)?;
            self.moved(start, at, from)
        })
    }

    /// What stands here as it stood there in the base, with what is the same before it.
    fn moved(&self, start: usize, at: usize, from: usize) -> Option<Moved> {
        let (before, now) = (self.base.get(from..)?, &self.page[at..]);
        if before.get(..SHARED_MIN)? != now.get(..SHARED_MIN)? {
            return None;
        }
        let size = before.iter().zip(now).take_while(|(before, now)| before == now).count();
        let ahead = self.base[..from].iter().rev().zip(self.page[start..at].iter().rev());
        let ahead = ahead.take_while(|(before, now)| before == now).count();
        let moved = Moved { at: at - ahead, from: from - ahead, size: ahead + size };
        (moved.size >= MOVED_MIN).then_some(moved)
    }
}

/// Bytes that are looked for at once: a block.
const BLOCK_SIZE: usize = 8;

/// As many bits of a block's hash as there are.
const HASH_BITS: u32 = 11;

/// Where the blocks of a base stand, by their hashes: of those with one hash, the first.
struct Blocks(Vec<u16>);

impl Blocks {
    fn of(base: &[u8]) -> Self {
        // Where there is none, it is behind the page.
        let mut blocks = vec![PAGE_SIZE as u16; 1 << HASH_BITS];
        for (at, block) in (0..PAGE_SIZE as u16).step_by(BLOCK_SIZE).zip(base.chunks(BLOCK_SIZE)) {
            let first = &mut blocks[hash(block)];
            *first = at.min(*first);
        }
        Self(blocks)
    }

    /// Where a block may stand that is here in a page.
    fn find(&self, page: &[u8], at: usize) -> Option<usize> {
        Some(self.0[hash(page.get(at..at + BLOCK_SIZE)?)].into())
    }
}

fn hash(block: &[u8]) -> usize {
    let block = u64::from_le_bytes(block.try_into().expect("BUG: no block"));
    (block.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - HASH_BITS)) as usize
}
