//! What others may know of who wrote a timeline, and of whose it is.

use tidelog_types::{ClientId, CopySecret, EntryId, Life, Lineage};

/// The name of a life that everybody may know: a hash, from which nobody can tell the life.
///
/// A server takes frames from whoever names the life that writes a timeline, and a frame that has
/// moved for the one that it names. So a device's life is a secret between it and its servers, and
/// all that others read has the public one: pages, entries, and positions of local documents.
#[must_use]
pub fn public_life(life: Life) -> Life {
    Life(hash_of(life.0))
}

/// Which copy it is whose secret this is, as mutations name it in `:client`: everybody may know
/// that, and nobody else issues mutations in its name.
#[must_use]
pub fn client_of(secret: CopySecret) -> ClientId {
    ClientId(hash_of(secret.0))
}

/// The name of a client that others may know: whoever has heard it comes to no server under it.
#[must_use]
pub fn public_client(client: ClientId) -> ClientId {
    ClientId(hash_of(client.0))
}

/// The first half of the hash.
fn hash_of(secret: [u8; 16]) -> [u8; 16] {
    let hash = blake3::hash(&secret);
    let (half, _) = hash.as_bytes().split_first_chunk().expect("BUG: a hash has 32 bytes");
    *half
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
