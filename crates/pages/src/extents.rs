//! Which slots of the page file are taken, and by whom.

use tidelog_journal::DocumentNumber;
use tidelog_types::SortedMap;
use tidelog_types::limits::EXTENT_PAGES;

use crate::page_file::Slot;

/// Pages from which on a document has extents of its own; before, it shares them. So no more than
/// a fifth of the page file is left empty.
const OWN_EXTENT_PAGES: u32 = 4 * EXTENT_PAGES;

/// The slots of the page file. Nothing of this is stored: it follows from the page tables. A slot
/// is free again once its document is destroyed, or begun anew; one of a page that is gone stays
/// taken until the next change-over, whose catalog takes only those that its page tables speak of.
#[derive(Debug, Default)]
pub(crate) struct Extents {
    extents: Vec<Extent>,
    /// Where each owner found room last.
    open: SortedMap<Owner, usize>,
    /// The highest slot that was ever taken.
    last: Option<Slot>,
    is_claimed: bool,
    /// Slots that are taken before any behind them, whosever their extents are.
    within: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Shared,
    Document(DocumentNumber),
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

    /// Several owners share it from now on, if it is another one's.
    fn take_for(&mut self, index: u32, owner: Owner) {
        let is_same = self.owner.is_none_or(|before| before == owner);
        self.owner = Some(if is_same { owner } else { Owner::Shared });
        self.take(index);
    }

    fn release(&mut self, index: u32) {
        assert!(self.is_taken(index), "BUG: a slot released twice");
        self.taken[index as usize / 64] &= !(1 << (index % 64));
        self.taken_count -= 1;
        if self.taken_count == 0 {
            self.owner = None;
        }
    }
}

impl Extents {
    /// None is taken yet, and none behind so many while there are others.
    pub fn within(slots: u32) -> Self {
        Self { within: Some(slots), ..Self::default() }
    }

    /// The file has so many slots by now.
    pub fn keep_within(&mut self, slots: u32) {
        self.within = Some(slots);
    }

    /// The file may grow from now on.
    pub fn let_grow(&mut self) {
        self.within = None;
    }

    /// How many slots there are, up to the last that was ever taken: a page table may still speak
    /// of that though its document is gone.
    pub fn slots(&self) -> u32 {
        self.last.map_or(0, Slot::number)
    }

    /// Whether a page table speaks of any.
    pub fn is_claimed(&self) -> bool {
        self.is_claimed
    }

    /// Takes a free slot for a document of this many pages.
    pub fn allocate(&mut self, document: DocumentNumber, db_pages: u32) -> Slot {
        let owner = owner_of(document, db_pages);
        let mut index = self.with_room(owner);
        let first_free =
            |extent: &Extent| extent.first_free().expect("BUG: an extent without room");
        let mut slot = slot_at(index, first_free(&self.extents[index]));
        if self.is_behind(slot)
            && let Some(free) = self.extents.iter().position(|it| it.taken_count < EXTENT_PAGES)
            && let earlier = slot_at(free, first_free(&self.extents[free]))
            && !self.is_behind(earlier)
        {
            (index, slot) = (free, earlier);
        }
        let extent = &mut self.extents[index];
        extent.take_for(place_of(slot).1, owner);
        self.open.insert(owner, index);
        self.last = self.last.max(Some(slot));
        slot
    }

    /// Whether it lies behind those that are taken first.
    fn is_behind(&self, slot: Slot) -> bool {
        self.within.is_some_and(|slots| slot.number() > slots)
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

    /// Nobody needs what is in this slot.
    pub fn release(&mut self, slot: Slot) {
        let (index, place) = place_of(slot);
        self.extents[index].release(place);
    }

    /// Takes the slot that a page table says a document's page lies in. Fails if it is taken.
    pub fn claim(&mut self, slot: Slot, document: DocumentNumber, db_pages: u32) -> bool {
        let (index, place) = place_of(slot);
        if self.extents.len() <= index {
            self.extents.resize_with(index + 1, Extent::default);
        }
        let extent = &mut self.extents[index];
        if extent.is_taken(place) {
            return false;
        }
        extent.take_for(place, owner_of(document, db_pages));
        self.last = self.last.max(Some(slot));
        self.is_claimed = true;
        true
    }
}

fn owner_of(document: DocumentNumber, db_pages: u32) -> Owner {
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
        let small =
            [extents.allocate(DocumentNumber(1), 3), extents.allocate(DocumentNumber(2), 3)];
        assert_eq!(small.map(Slot::number), [1, 2]);
        assert_eq!(extents.allocate(DocumentNumber(3), 1_024).number(), 257);
        assert_eq!(extents.allocate(DocumentNumber(3), 1_024).number(), 258);
        assert_eq!(extents.allocate(DocumentNumber(4), 1_023).number(), 3);
        assert_eq!(extents.slots(), 258);
        for number in [257, 258] {
            extents.release(Slot::new(number).expect("a slot"));
        }
        assert_eq!(extents.allocate(DocumentNumber(5), 1_024).number(), 257, "and it is nobody's");
    }

    /// The slots of so many documents, each page of which comes with all the others.
    fn slots_of(documents: u64, db_pages: u32) -> u32 {
        let mut extents = Extents::default();
        for document in 0..documents {
            for _ in 0..db_pages {
                extents.allocate(DocumentNumber(document), db_pages);
            }
        }
        extents.slots()
    }

    #[test]
    fn documents_of_any_size_leave_no_more_than_a_fifth_of_the_page_file_empty() {
        const DOCUMENTS: u32 = 40;
        for db_pages in [1, 20, 65, 100, 257, 513, 769, 1_023, 1_024, 1_025, 1_300, 3_000] {
            let slots = slots_of(DOCUMENTS.into(), db_pages);
            let taken = DOCUMENTS * db_pages;
            // The last extent of those that are shared is anybody's.
            let most = taken + taken / 4 + EXTENT_PAGES;
            assert!(slots <= most, "{slots} slots for {taken} pages, {db_pages} a document");
        }
    }

    #[test]
    fn a_slot_is_claimed_once() {
        let mut extents = Extents::default();
        let slot = Slot::new(700).expect("a slot");
        assert!(extents.claim(slot, DocumentNumber(1), 1_024));
        assert!(!extents.claim(slot, DocumentNumber(2), 1_024));
        assert_eq!(
            extents.allocate(DocumentNumber(1), 1_024).number(),
            513,
            "the rest of its extent is its own"
        );
    }
}
