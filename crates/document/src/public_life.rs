//! What others may know of who wrote a timeline.

use tidelog_types::{EntryId, Life, Lineage};

/// The name of a life that everybody may know: a hash, from which nobody can tell the life.
///
/// A server takes frames from whoever names the life that writes a timeline, and a frame that has
/// moved for the one that it names. So a device's life is a secret between it and its servers, and
/// all that others read has the public one: pages, entries, and positions of local documents.
#[must_use]
pub fn public_life(life: Life) -> Life {
    let hash = blake3::hash(&life.0);
    let (public, _) = hash.as_bytes().split_first_chunk().expect("BUG: a hash has 32 bytes");
    Life(*public)
}

/// An entry of a timeline as others know it.
#[must_use]
pub fn public_entry(entry: EntryId) -> EntryId {
    EntryId { life: public_life(entry.life), ..entry }
}

/// Who wrote a timeline, as others know it.
pub(crate) fn public_lives(lives: &Lineage) -> Lineage {
    let lives: Vec<_> = lives.lives().map(|(life, begin)| (public_life(life), begin)).collect();
    Lineage::try_from(lives).expect("BUG: two lives of one hash")
}
