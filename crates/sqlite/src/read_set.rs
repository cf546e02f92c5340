//! Which pages a transaction has read.

use std::collections::BTreeSet;

use tidelog_types::{PageSet, Pgid};

use crate::view::schema_cookie;

/// A set of pages, one bit each.
#[derive(Clone, Debug, Default)]
pub(crate) struct PageBits {
    words: Vec<u64>,
    count: usize,
}

impl PageBits {
    pub fn clear(&mut self) {
        self.words.clear();
        self.count = 0;
    }

    /// How many pages are in the set.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn insert(&mut self, pgid: Pgid) {
        let (word, bit) = (pgid.0 as usize / 64, pgid.0 % 64);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let was = self.words[word];
        self.words[word] |= 1 << bit;
        self.count += usize::from(was != self.words[word]);
    }

    /// The pages, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Pgid> + '_ {
        let end = u32::try_from(self.words.len() * 64).unwrap_or(u32::MAX);
        (0..end).map(Pgid).filter(|pgid| self.contains(*pgid))
    }

    pub fn contains(&self, pgid: Pgid) -> bool {
        let word = self.words.get(pgid.0 as usize / 64);
        word.is_some_and(|word| word & (1 << (pgid.0 % 64)) != 0)
    }
}

impl PartialEq for PageBits {
    fn eq(&self, other: &Self) -> bool {
        let (short, long) = match self.words.len() <= other.words.len() {
            true => (&self.words, &other.words),
            false => (&other.words, &self.words),
        };
        long.starts_with(short) && long[short.len()..].iter().all(|word| *word == 0)
    }
}

/// The pages that a query has read. Page 1 belongs to it by its schema cookie only, since every
/// commit changes the rest of its header.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadSet {
    pages: PageBits,
    schema_cookie: u32,
}

impl ReadSet {
    pub(crate) fn new(pages: PageBits, schema_cookie: u32) -> Self {
        Self { pages, schema_cookie }
    }

    /// How many pages were read.
    #[must_use]
    pub fn pages_count(&self) -> usize {
        self.pages.count()
    }

    /// Whether the answer may be another one once this set is visible.
    #[must_use]
    pub fn touched_by(&self, set: &PageSet) -> bool {
        let cookie = set.pages.get(&Pgid(1)).map(schema_cookie);
        self.touched(set.pages.keys(), cookie)
    }

    /// The same for pages without their bytes; `schema_cookie` is the new one, `None` if page 1 is
    /// not among them.
    #[must_use]
    pub fn touched_by_pages(&self, pgids: &BTreeSet<Pgid>, schema_cookie: Option<u32>) -> bool {
        self.touched(pgids.iter(), schema_cookie)
    }

    fn touched<'p>(
        &self,
        mut pgids: impl Iterator<Item = &'p Pgid>,
        schema_cookie: Option<u32>,
    ) -> bool {
        schema_cookie.is_some_and(|cookie| cookie != self.schema_cookie)
            || pgids.any(|pgid| *pgid != Pgid(1) && self.pages.contains(*pgid))
    }
}
