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
        self.0.update(&page.hash().0);
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

#[cfg(test)]
mod tests {
    use tidelog_pages::{StagedPage, StorageEntry};
    use tidelog_sync::codec;
    use tidelog_types::limits::PAGE_SIZE;
    use tidelog_types::{JournalId, Life, Lsn, PageHash, Position};

    use super::*;

    /// Goal: a page is hashed once, wherever its hash is asked for: by the chain, and by the store
    /// that it is on its way to. Method: pages with a hash that nobody would make of their bytes.
    #[test]
    fn a_page_on_its_way_to_the_store_keeps_the_hash_that_was_made_of_it() {
        let page = |fill: u8| Page::new(&[fill; PAGE_SIZE]).expect("a page");
        let set = |pages: [(Pgid, Page); 2]| PageSet { db_pages: 2, pages: pages.into() };
        let made = PageHash([9; 32]);
        let hashed = set([(Pgid(1), page(1)), (Pgid(2), page(2).hashed(made))]);
        let bare = set([(Pgid(1), page(1)), (Pgid(2), page(2))]);
        assert!(hash_of(&hashed) != hash_of(&bare), "its bytes were hashed again");

        let (journal, life) = (JournalId([1; 16]), Life([2; 16]));
        let position =
            Position { journal, life, next: Lsn::FIRST.plus(1), chain: Chain::default() };
        let (range, calls) = (LsnRange::one(Lsn::FIRST), Vec::new());
        let entry = StorageEntry { range, position, calls, set: hashed.clone() };
        let came: StorageEntry = codec::decode(&codec::encode(&entry)).expect("what was encoded");
        assert_eq!(came, entry);
        assert_eq!(hash_of(&came.set), hash_of(&hashed));
        let staged = StagedPage { entry: 0, pgid: Pgid(2), page: page(2).hashed(made) };
        let came: StagedPage = codec::decode(&codec::encode(&staged)).expect("what was encoded");
        assert_eq!((came.page.hash(), came.page), (made, page(2)));
    }
}
