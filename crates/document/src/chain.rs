//! The chain of a storage journal.

use tidelog_types::{Chain, LsnRange, PageSet};

/// The chain after an entry: `H(chain before, end of its range, its body)`, where the body is the
/// database's size and the sorted pairs of pgid and page hash.
///
/// It covers what an entry says, not how it travels, so both sides get the same one however the
/// pages came. The hash is BLAKE3.
#[must_use]
pub fn chain_of(before: Chain, range: LsnRange, set: &PageSet) -> Chain {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&before.0);
    hasher.update(&range.end().get().to_le_bytes());
    hasher.update(&set.db_pages.to_le_bytes());
    for (pgid, page) in &set.pages {
        hasher.update(&pgid.0.to_le_bytes());
        hasher.update(blake3::hash(page.bytes()).as_bytes());
    }
    Chain(*hasher.finalize().as_bytes())
}
