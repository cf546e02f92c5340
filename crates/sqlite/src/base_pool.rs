//! The buffer pool: the pages of a document's base that are in memory.

use std::collections::BTreeMap;

use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{Coding, Page, PageHash, PageSet, Pgid, coded};

/// Of a pool of more pages none is packed: that takes some microseconds a page, and to use them
/// again as long.
const PACKED_PAGES_MAX: usize = 64;

/// Base pages in memory, and how many there are in all.
///
/// Nothing is dropped while a transaction runs: only [`BasePool::evict`] drops, and the owner calls
/// it in between. What one that waits for a fault was fetched is for the owner to keep.
///
/// While nobody uses them the pages of a small one are [packed](BasePool::pack): most of a small
/// document is zeros. They have to be [unpacked](BasePool::unpack) before anything else.
#[derive(Debug)]
pub(crate) struct BasePool {
    pages_max: usize,
    db_pages: u32,
    pages: BTreeMap<Pgid, Slot>,
    packed: Vec<Packed>,
    /// Counts uses; a slot's `used` is the value at its last one.
    clock: u64,
}

#[derive(Debug)]
struct Slot {
    page: Page,
    used: u64,
}

/// A page in the fewest bytes.
#[derive(Debug)]
struct Packed {
    pgid: Pgid,
    coding: Coding,
    bytes: Box<[u8]>,
    hash: PageHash,
    used: u64,
}

impl BasePool {
    pub fn new(pages_max: usize, db_pages: u32) -> Self {
        Self { pages_max, db_pages, pages: BTreeMap::new(), packed: Vec::new(), clock: 0 }
    }

    /// Packs the pages, if there are few. Those that others hold as well take more by that.
    pub fn pack(&mut self) {
        if self.pages.len() > PACKED_PAGES_MAX {
            return;
        }
        let packed = std::mem::take(&mut self.pages).into_iter().map(|(pgid, slot)| {
            let Slot { page, used } = slot;
            let (coding, bytes) = coded(page.bytes(), None, 0);
            Packed { pgid, coding, bytes: bytes.into(), hash: page.hash(), used }
        });
        self.packed.extend(packed);
        self.packed.shrink_to_fit();
    }

    /// The pages are as they were before they were packed.
    pub fn unpack(&mut self) {
        for Packed { pgid, coding, bytes, hash, used } in std::mem::take(&mut self.packed) {
            let mut page = [0; PAGE_SIZE];
            coding.apply(&bytes, &mut page).expect("BUG: it was coded here");
            let page = Page::new(&page).expect("BUG: it is as long as one").hashed(hash);
            self.pages.insert(pgid, Slot { page, used });
        }
    }

    /// Bytes of the pages that it keeps, packed or not.
    pub fn size(&self) -> usize {
        let packed = self.packed.iter().map(|it| size_of::<Packed>() + it.bytes.len());
        self.pages.len() * PAGE_SIZE + packed.sum::<usize>()
    }

    pub fn db_pages(&self) -> u32 {
        self.db_pages
    }

    pub fn len(&self) -> usize {
        self.pages.len() + self.packed.len()
    }

    pub fn has(&self, pgid: Pgid) -> bool {
        self.pages.contains_key(&pgid)
    }

    /// The pages in memory from `first` on.
    pub fn from(&self, first: Pgid) -> impl Iterator<Item = Pgid> + '_ {
        self.pages.range(first..).map(|(pgid, _)| *pgid)
    }

    pub fn get(&mut self, pgid: Pgid) -> Option<&Page> {
        self.clock += 1;
        let slot = self.pages.get_mut(&pgid)?;
        slot.used = self.clock;
        Some(&slot.page)
    }

    pub fn fill(&mut self, pages: Vec<(Pgid, Page)>) {
        for (pgid, page) in pages {
            if (1..=self.db_pages).contains(&pgid.0) {
                self.clock += 1;
                let used = self.clock;
                self.pages.entry(pgid).or_insert(Slot { page, used });
            }
        }
    }

    pub fn advance(&mut self, set: &PageSet) {
        for (pgid, page) in &set.pages {
            self.clock += 1;
            self.pages.insert(*pgid, Slot { page: page.clone(), used: self.clock });
        }
        self.db_pages = set.db_pages;
        self.pages.split_off(&Pgid(set.db_pages.saturating_add(1)));
    }

    /// Forgets all pages, of which no transaction may need any.
    pub fn clear(&mut self) {
        self.pages.clear();
        self.packed.clear();
    }

    pub fn reset(&mut self, db_pages: u32) {
        self.clear();
        self.db_pages = db_pages;
    }

    /// Drops the least recently used pages if there are more than the bound allows, beside those
    /// that are to stay.
    ///
    /// An eighth more than needed goes, so that a full pool is not sorted for each further page;
    /// and none is looked at where all that it has too many may be among the `stay_max` that stay.
    pub fn evict(&mut self, stay_max: usize, stays: impl Fn(Pgid) -> bool) {
        if self.pages.len() > self.pages_max.saturating_add(stay_max) {
            self.shrink(self.pages_max, stays);
        }
    }

    /// The same with another bound.
    pub fn shrink(&mut self, pages_max: usize, stays: impl Fn(Pgid) -> bool) {
        if self.pages.len() <= pages_max {
            return;
        }
        let may_go = self.pages.iter().filter(|(pgid, _)| !stays(**pgid));
        let mut uses: Vec<u64> = may_go.map(|(_, slot)| slot.used).collect();
        if uses.len() <= pages_max {
            return;
        }
        reached(Probe::BasePagesEvicted);
        let drop = uses.len() - (pages_max - pages_max / 8);
        let goes_all = drop == uses.len();
        let oldest_kept = if goes_all { u64::MAX } else { *uses.select_nth_unstable(drop).1 };
        self.pages.retain(|pgid, slot| slot.used >= oldest_kept || stays(*pgid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(byte: u8) -> Page {
        Page::zeroed().with(0, &[byte])
    }

    #[test]
    fn the_least_recently_used_pages_go_first() {
        let mut pool = BasePool::new(4, 10);
        pool.fill((1..=6).map(|n| (Pgid(n), page(1))).collect());
        pool.get(Pgid(1));
        pool.evict(0, |_| false);
        assert_eq!(pool.len(), 4);
        assert!(pool.pages.contains_key(&Pgid(1)));
        assert!(!pool.pages.contains_key(&Pgid(2)));
        assert!(!pool.pages.contains_key(&Pgid(3)));
    }

    #[test]
    fn pages_that_are_to_stay_are_beside_the_bound() {
        let mut pool = BasePool::new(2, 10);
        pool.fill((1..=6).map(|n| (Pgid(n), page(1))).collect());
        pool.evict(4, |_| unreachable!("all that are too many may stay"));
        pool.evict(3, |pgid| pgid.0 <= 3);
        assert_eq!(pool.pages.keys().map(|pgid| pgid.0).collect::<Vec<_>>(), [1, 2, 3, 5, 6]);
        let mut pool = BasePool::new(0, 10);
        pool.fill((1..=6).map(|n| (Pgid(n), page(1))).collect());
        pool.evict(1, |pgid| pgid.0 == 1);
        assert_eq!(pool.pages.keys().map(|pgid| pgid.0).collect::<Vec<_>>(), [1]);
    }

    /// Goal: a small document at rest takes few bytes, and is what it was before when it is used
    /// again. Method: pages that are nearly empty, and one that is full of what repeats nowhere.
    #[test]
    fn pages_are_what_they_were_before_they_were_packed() {
        let mut pool = BasePool::new(4, 10);
        let full: Vec<u8> = (1..=255).cycle().take(PAGE_SIZE).collect();
        let full = Page::new(&full).expect("a page");
        let pages = vec![(Pgid(1), page(1)), (Pgid(3), full), (Pgid(4), Page::zeroed())];
        pool.fill(pages.clone());
        pool.get(Pgid(1));
        assert_eq!(pool.size(), 3 * PAGE_SIZE);
        pool.pack();
        assert!(pool.size() < PAGE_SIZE + 500, "{}", pool.size());
        pool.pack();
        pool.unpack();
        for (pgid, page) in &pages {
            assert_eq!(pool.get(*pgid), Some(page));
        }
        assert_eq!(pool.size(), 3 * PAGE_SIZE);

        pool.pack();
        pool.unpack();
        pool.shrink(2, |_| false);
        assert!(!pool.has(Pgid(1)), "it is known still which were used last");
        pool.pack();
        pool.clear();
        pool.unpack();
        assert_eq!((pool.len(), pool.size()), (0, 0));
    }

    #[test]
    fn many_pages_are_not_packed() {
        let mut pool = BasePool::new(usize::MAX, 100);
        pool.fill((1..=65).map(|n| (Pgid(n), page(1))).collect());
        pool.pack();
        assert_eq!(pool.size(), 65 * PAGE_SIZE);
    }

    #[test]
    fn a_filled_page_never_replaces_one_and_never_lies_beyond_the_base() {
        let mut pool = BasePool::new(4, 2);
        pool.fill(vec![(Pgid(1), page(1)), (Pgid(3), page(3))]);
        pool.fill(vec![(Pgid(1), page(2)), (Pgid(0), page(0))]);
        assert_eq!(pool.get(Pgid(1)), Some(&page(1)));
        assert_eq!(pool.len(), 1);
    }

    #[test]
    fn an_entry_that_shrinks_the_base_drops_what_is_beyond() {
        let mut pool = BasePool::new(4, 3);
        pool.fill(vec![(Pgid(2), page(2)), (Pgid(3), page(3))]);
        let set = PageSet { db_pages: 2, pages: [(Pgid(1), page(9))].into() };
        pool.advance(&set);
        assert_eq!(pool.db_pages(), 2);
        assert!(!pool.pages.contains_key(&Pgid(3)));
        assert_eq!(pool.get(Pgid(1)), Some(&page(9)));
    }
}
