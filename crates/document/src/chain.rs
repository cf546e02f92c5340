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
    let mut hasher = blake3::Hasher::new();
    hasher.update(&before.0);
    for (pgid, page) in pages {
        hasher.update(&pgid.0.to_le_bytes());
        hasher.update(blake3::hash(page.bytes()).as_bytes());
    }
    hasher.update(&db_pages.to_le_bytes());
    EntryHash(*hasher.finalize().as_bytes())
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
