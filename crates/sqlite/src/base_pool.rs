//! The buffer pool: the pages of a document's base that are in memory.

use std::collections::BTreeMap;

use tidelog_types::probe::{Probe, reached};
use tidelog_types::{Page, PageSet, Pgid};

/// Base pages in memory, and how many there are in all.
///
/// Nothing is dropped while a transaction runs: only [`BasePool::evict`] drops, and the owner calls
/// it in between. What one that waits for a fault was fetched is for the owner to keep.
#[derive(Debug)]
pub(crate) struct BasePool {
    pages_max: usize,
    db_pages: u32,
    pages: BTreeMap<Pgid, Slot>,
    /// Counts uses; a slot's `used` is the value at its last one.
    clock: u64,
}

#[derive(Debug)]
struct Slot {
    page: Page,
    used: u64,
}

impl BasePool {
    pub fn new(pages_max: usize, db_pages: u32) -> Self {
        Self { pages_max, db_pages, pages: BTreeMap::new(), clock: 0 }
    }

    pub fn db_pages(&self) -> u32 {
        self.db_pages
    }

    pub fn len(&self) -> usize {
        self.pages.len()
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
    }

    pub fn reset(&mut self, db_pages: u32) {
        self.pages.clear();
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
