//! The chain of a storage journal, and the hashes that it is over.

use tidelog_types::{Chain, EntryHash, LsnRange, Page, PageSet, Pgid};

/// The hash of an entry up to a part of it: over the hash `before` (zeros before the first part),
/// each pgid and the hash of its page, in the order in which they are sent, and the database's
/// size. The hash is BLAKE3.
#[must_use]
pub fn hash_part<'p>(
    before: EntryHash,
    pages: impl IntoIterator<Item = (Pgid, &'p Page)>,
    db_pages: u32,
) -> EntryHash {
    let mut hasher = EntryHasher::behind(before);
    pages.into_iter().for_each(|(pgid, page)| hasher.page(pgid, page));
    hasher.finish(db_pages)
}

/// Makes the hash of an entry of which not all pages are there at once.
#[derive(Clone, Debug)]
pub struct EntryHasher(blake3::Hasher);

impl EntryHasher {
    fn behind(before: EntryHash) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&before.0);
        Self(hasher)
    }

    /// Takes in the next page.
    pub fn page(&mut self, pgid: Pgid, page: &Page) {
        self.0.update(&pgid.0.to_le_bytes());
        self.0.update(blake3::hash(page.bytes()).as_bytes());
    }

    /// The hash of an entry that has the pages so far, as one part, over a database of this size.
    #[must_use]
    pub fn finish(mut self, db_pages: u32) -> EntryHash {
        self.0.update(&db_pages.to_le_bytes());
        EntryHash(*self.0.finalize().as_bytes())
    }
}

impl Default for EntryHasher {
    fn default() -> Self {
        Self::behind(EntryHash::default())
    }
}

/// The hash of an entry as one part.
#[must_use]
pub fn hash_of(set: &PageSet) -> EntryHash {
    let pages = set.pages.iter().map(|(pgid, page)| (*pgid, page));
    hash_part(EntryHash::default(), pages, set.db_pages)
}

/// The chain after an entry: `H(chain before, end of its range, its hash)`.
///
/// It covers what an entry says, not how it travels, so both sides get the same one however the
/// pages came.
#[must_use]
pub fn chain_after(before: Chain, range: LsnRange, entry: EntryHash) -> Chain {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&before.0);
    hasher.update(&range.end().get().to_le_bytes());
    hasher.update(&entry.0);
    Chain(*hasher.finalize().as_bytes())
}

/// The chain after an entry that says this.
#[must_use]
pub fn chain_of(before: Chain, range: LsnRange, set: &PageSet) -> Chain {
    chain_after(before, range, hash_of(set))
}
