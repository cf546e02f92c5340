//! Which pages a transaction has read.

use std::collections::BTreeSet;

use tidelog_types::Pgid;

use crate::view::{SchemaPages, View};

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

/// The pages that a query has read, and by which schema. Page 1 belongs to it by what that says of
/// the schema only, since every commit changes the rest of its header.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadSet {
    pages: PageBits,
    /// `None` where not all of its pages were in memory any more.
    schema: Option<SchemaPages>,
}

impl ReadSet {
    pub(crate) fn new(pages: PageBits, schema: Option<SchemaPages>) -> Self {
        Self { pages, schema }
    }

    /// How many pages were read.
    #[must_use]
    pub fn pages_count(&self) -> usize {
        self.pages.count()
    }

    /// Whether the answer may be another one now that these pages of `view` have changed. Two
    /// schemas may have one cookie, and their tables in other places: a document that was migrated
    /// here, and the same as somebody else has migrated it.
    #[must_use]
    pub fn touched_by(&self, pgids: &BTreeSet<Pgid>, view: &View) -> bool {
        let is_read = |pgid: &Pgid| *pgid != Pgid(1) && self.pages.contains(*pgid);
        let has_other_schema = || match &self.schema {
            Some(schema) => !schema.are_those_of(view),
            None => pgids.contains(&Pgid(1)),
        };
        pgids.iter().any(is_read) || has_other_schema()
    }
}
