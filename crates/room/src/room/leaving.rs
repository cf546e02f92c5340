//! Entries on their way to those who follow, once they are durable.
//!
//! What a room decides in a row goes to the disk in one append, and becomes durable at once. It
//! leaves as one entry that stands for all of them: most of it are the same few pages, changed
//! again and again, and each entry that comes is checked, written down and built upon. Whoever sent
//! the frame of each gets them one by one: an entry that says of one frame what its sender has seen
//! it change folds into what that holds, and nothing is run again.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidelog_document::{Committed, hash_of};
use tidelog_pages::StorageEntry;
use tidelog_sync::{CodedPage, EntryPart};
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{EntryHash, EntryId, Lsn, LsnRange, PageSet, Pgid, Position};

use super::outlets::entry_size;
use super::subscriber::SubscriberId;

/// An entry for those who follow.
#[derive(Debug)]
pub(super) struct LeavingEntry {
    /// As it travels to whoever has all before it; without pages if it is only stored.
    entry: EntryPart,
    /// What changed.
    set: PageSet,
    /// Whether whoever follows is read its pages from the store: it is too large for one message,
    /// or was never here.
    is_only_stored: bool,
    /// Whose frame it decides, if anybody's.
    sender: Option<Sender>,
}

/// Who has sent a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    pub(super) id: SubscriberId,
    /// Whether it has said what the entry is.
    pub(super) has_predicted: bool,
}

/// Entries of one append, one behind the other: of an entry that is only stored, that one.
#[derive(Debug)]
pub(super) struct LeavingEntries {
    entries: Vec<LeavingEntry>,
    /// What all of them change.
    set: PageSet,
    /// One for all of them, once somebody is sent that.
    merged: Option<EntryPart>,
}

impl LeavingEntry {
    /// What was decided, and who has predicted that.
    pub(super) fn new(
        committed: Committed,
        origin: Option<EntryId>,
        sender: Option<Sender>,
    ) -> Self {
        let Committed { entry: StorageEntry { range, position, set, .. }, hash, coded } = committed;
        let is_only_stored = coded.is_none();
        let entry = EntryPart {
            range,
            position,
            db_pages: set.db_pages,
            origin,
            pages: coded.unwrap_or_default(),
            is_predicted: false,
            hash,
            is_last: true,
        };
        Self { entry, set, is_only_stored, sender }
    }

    /// What was staged is the document's, up to this position.
    pub(super) fn planted(position: Position) -> Self {
        let range = LsnRange::new(Lsn::FIRST, position.next);
        let entry = StorageEntry { range, position, calls: Vec::new(), set: PageSet::default() };
        Self::new(Committed { entry, hash: EntryHash::default(), coded: None }, None, None)
    }

    /// What its sender is sent of it: no pages if it has predicted them.
    fn for_sender(&self) -> EntryPart {
        match self.sender {
            Some(Sender { has_predicted: true, .. }) => {
                EntryPart { pages: Arc::default(), is_predicted: true, ..self.entry }
            }
            _ => self.entry.clone(),
        }
    }

    /// How many pages of memory it takes until it leaves: once in the store's hands, and once as it
    /// travels.
    pub(super) fn held(&self) -> usize {
        1 + self.set.pages.len() + entry_size(&self.entry) / PAGE_SIZE
    }
}

impl LeavingEntries {
    pub(super) fn of(entry: LeavingEntry) -> Self {
        let set = entry.set.clone();
        Self { entries: vec![entry], set, merged: None }
    }

    /// Takes in the next one, unless all of them would have more pages than one message may. Gives
    /// it back then.
    pub(super) fn take(&mut self, entry: LeavingEntry, pages_max: usize) -> Option<LeavingEntry> {
        let is_only_stored = |it: &LeavingEntry| it.is_only_stored;
        let is_next = entry.entry.range.start() == self.range().end();
        let pages_count = self.set.pages.len() + entry.set.pages.len();
        let is_alone = is_only_stored(&entry) || self.entries.iter().any(is_only_stored);
        if !is_next || is_alone || pages_count > pages_max {
            return Some(entry);
        }
        self.set.absorb(&entry.set);
        self.entries.push(entry);
        None
    }

    /// Whether whoever follows is read their pages from the store.
    pub(super) fn is_only_stored(&self) -> bool {
        self.last().is_only_stored
    }

    /// For which LSNs they stand.
    pub(super) fn range(&self) -> LsnRange {
        LsnRange::new(self.entries[0].entry.range.start(), self.last().entry.range.end())
    }

    /// Where the storage journal stands behind them.
    pub(super) fn position(&self) -> Position {
        self.last().entry.position
    }

    pub(super) fn held(&self) -> usize {
        self.entries.iter().map(LeavingEntry::held).sum()
    }

    /// What this one is sent of them: each if it has sent the frames of all, and else one for all.
    pub(super) fn entries_for(&mut self, id: SubscriberId) -> Vec<EntryPart> {
        if self.entries.iter().all(|it| it.sender.is_some_and(|sender| sender.id == id)) {
            return self.entries.iter().map(LeavingEntry::for_sender).collect();
        }
        if let [entry] = &*self.entries {
            return vec![entry.entry.clone()];
        }
        let merged = self.merged.take().unwrap_or_else(|| self.merge());
        vec![self.merged.insert(merged).clone()]
    }

    fn merge(&self) -> EntryPart {
        reached(Probe::EntriesLeftAsOne);
        let mut codings: BTreeMap<Pgid, Vec<&CodedPage>> = BTreeMap::new();
        for page in self.entries.iter().flat_map(|it| it.entry.pages.iter()) {
            codings.entry(page.pgid).or_default().push(page);
        }
        let pages = self.set.pages.iter().map(|(pgid, page)| {
            let changes = codings.remove(pgid).unwrap_or_default();
            CodedPage::after(*pgid, page, changes)
        });
        EntryPart {
            range: self.range(),
            position: self.position(),
            db_pages: self.set.db_pages,
            origin: None,
            pages: pages.collect(),
            is_predicted: false,
            hash: hash_of(&self.set),
            is_last: true,
        }
    }

    fn last(&self) -> &LeavingEntry {
        self.entries.last().expect("BUG: no entry leaves")
    }
}
