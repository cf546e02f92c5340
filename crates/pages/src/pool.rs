//! Pages in memory, bounded.

use std::collections::BTreeMap;

use tidelog_types::{Lsn, Page, Pgid};

/// One version of one page. A storage journal that is begun anew is another incarnation, so a key
/// never means two contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PoolKey {
    pub incarnation: u64,
    pub pgid: Pgid,
    pub lsn: Lsn,
}

/// A buffer pool that gives pages a second chance: a hand goes round and takes the first that was
/// not asked for since it passed, so that one long scan does not evict everything.
#[derive(Debug)]
pub(crate) struct Pool {
    frames: Vec<Frame>,
    index: BTreeMap<PoolKey, usize>,
    hand: usize,
    pages_max: usize,
}

#[derive(Debug)]
struct Frame {
    key: PoolKey,
    page: Page,
    /// Asked for since the hand passed. A page that only came in was not.
    is_wanted: bool,
}

impl Pool {
    pub fn new(pages_max: usize) -> Self {
        Self { frames: Vec::new(), index: BTreeMap::new(), hand: 0, pages_max: pages_max.max(1) }
    }

    pub fn get(&mut self, key: PoolKey) -> Option<Page> {
        let frame = &mut self.frames[*self.index.get(&key)?];
        frame.is_wanted = true;
        Some(frame.page.clone())
    }

    pub fn insert(&mut self, key: PoolKey, page: Page) {
        if let Some(at) = self.index.get(&key) {
            self.frames[*at].page = page;
            return;
        }
        let frame = Frame { key, page, is_wanted: false };
        if self.frames.len() < self.pages_max {
            self.index.insert(key, self.frames.len());
            self.frames.push(frame);
            return;
        }
        while std::mem::take(&mut self.frames[self.hand].is_wanted) {
            self.hand = (self.hand + 1) % self.pages_max;
        }
        self.index.remove(&self.frames[self.hand].key);
        self.index.insert(key, self.hand);
        self.frames[self.hand] = frame;
        self.hand = (self.hand + 1) % self.pages_max;
    }

    pub fn clear(&mut self) {
        self.frames.clear();
        self.index.clear();
        self.hand = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pgid: u32) -> PoolKey {
        PoolKey { incarnation: 1, pgid: Pgid(pgid), lsn: Lsn::FIRST }
    }

    #[test]
    fn a_pool_is_bounded_and_a_scan_does_not_evict_what_is_wanted() {
        let mut pool = Pool::new(4);
        for pgid in 1..=2 {
            pool.insert(key(pgid), Page::zeroed());
        }
        for pgid in 100..200 {
            pool.insert(key(pgid), Page::zeroed());
            assert!(pool.get(key(1)).is_some(), "page 1 is asked for all the time");
            assert!(pool.frames.len() <= 4 && pool.index.len() == pool.frames.len());
        }
        assert!(pool.get(key(2)).is_none(), "nobody asked for page 2");
    }
}
