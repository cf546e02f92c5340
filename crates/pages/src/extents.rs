//! Which slots of the page file are taken, and by whom.

use tidelog_types::SortedMap;
use tidelog_types::limits::EXTENT_PAGES;

use crate::page_file::Slot;

/// Pages from which on a document has extents of its own; before, it shares them.
const OWN_EXTENT_PAGES: u32 = EXTENT_PAGES / 4;

/// The slots of the page file. Nothing of this is stored: it follows from the page tables. What is
/// taken once stays taken: the catalog that the next change-over builds begins with all slots
/// free, and takes those that its page tables speak of.
#[derive(Debug, Default)]
pub(crate) struct Extents {
    extents: Vec<Extent>,
    /// Where each owner found room last.
    open: SortedMap<Owner, usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Shared,
    Document(u64),
}

#[derive(Debug, Default)]
struct Extent {
    /// Nobody's while it is empty.
    owner: Option<Owner>,
    taken: [u64; EXTENT_PAGES as usize / 64],
    taken_count: u32,
}

impl Extent {
    fn first_free(&self) -> Option<u32> {
        let word = self.taken.iter().position(|word| *word != u64::MAX)?;
        Some(u32::try_from(word).expect("BUG: four words") * 64 + self.taken[word].trailing_ones())
    }

    fn is_taken(&self, index: u32) -> bool {
        self.taken[index as usize / 64] & (1 << (index % 64)) != 0
    }

    fn take(&mut self, index: u32) {
        assert!(!self.is_taken(index), "BUG: a slot taken twice");
        self.taken[index as usize / 64] |= 1 << (index % 64);
        self.taken_count += 1;
    }
}

impl Extents {
    /// How many extents there are.
    pub fn count(&self) -> usize {
        self.extents.len()
    }

    /// Takes a free slot for a document of this many pages.
    pub fn allocate(&mut self, document: u64, db_pages: u32) -> Slot {
        let owner = owner_of(document, db_pages);
        let index = self.with_room(owner);
        let extent = &mut self.extents[index];
        let slot = extent.first_free().expect("BUG: it has room");
        extent.take(slot);
        extent.owner = Some(owner);
        self.open.insert(owner, index);
        slot_at(index, slot)
    }

    fn with_room(&mut self, owner: Owner) -> usize {
        let fits =
            |extent: &Extent| extent.owner == Some(owner) && extent.taken_count < EXTENT_PAGES;
        if let Some(index) = self.open.get(&owner)
            && fits(&self.extents[*index])
        {
            return *index;
        }
        let found = self.extents.iter().position(fits);
        let found = found.or_else(|| self.extents.iter().position(|e| e.owner.is_none()));
        found.unwrap_or_else(|| {
            self.extents.push(Extent::default());
            self.extents.len() - 1
        })
    }

    /// Takes the slot that a page table says a document's page lies in. Fails if it is taken.
    pub fn claim(&mut self, slot: Slot, document: u64, db_pages: u32) -> bool {
        let (index, place) = place_of(slot);
        if self.extents.len() <= index {
            self.extents.resize_with(index + 1, Extent::default);
        }
        let extent = &mut self.extents[index];
        if extent.is_taken(place) {
            return false;
        }
        let owner = owner_of(document, db_pages);
        let is_same = extent.owner.is_none_or(|before| before == owner);
        extent.owner = Some(if is_same { owner } else { Owner::Shared });
        extent.take(place);
        true
    }
}

fn owner_of(document: u64, db_pages: u32) -> Owner {
    if db_pages >= OWN_EXTENT_PAGES { Owner::Document(document) } else { Owner::Shared }
}

fn slot_at(extent: usize, index: u32) -> Slot {
    let extent = u32::try_from(extent).expect("BUG: a page file of 16 TiB");
    Slot::new(extent * EXTENT_PAGES + index + 1).expect("BUG: slots count from 1")
}

fn place_of(slot: Slot) -> (usize, u32) {
    let index = slot.number() - 1;
    ((index / EXTENT_PAGES) as usize, index % EXTENT_PAGES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_documents_share_an_extent_and_large_ones_do_not() {
        let mut extents = Extents::default();
        let small = [extents.allocate(1, 3), extents.allocate(2, 3)];
        assert_eq!(small.map(Slot::number), [1, 2]);
        assert_eq!(extents.allocate(3, 64).number(), 257);
        assert_eq!(extents.allocate(3, 64).number(), 258);
        assert_eq!(extents.allocate(4, 63).number(), 3);
        assert_eq!(extents.count(), 2);
    }

    #[test]
    fn a_slot_is_claimed_once() {
        let mut extents = Extents::default();
        let slot = Slot::new(700).expect("a slot");
        assert!(extents.claim(slot, 1, 256));
        assert!(!extents.claim(slot, 2, 256));
        assert_eq!(extents.allocate(1, 256).number(), 513, "the rest of its extent is its own");
    }
}
