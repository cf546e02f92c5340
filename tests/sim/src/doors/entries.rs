//! As which entries a core has written down each mutation, seen at its door: it is told to be no
//! other one later.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_client::KeptRejections;
use tidelog_pages::{Append, OpenedDocument};
use tidelog_types::{CallId, DocumentKey, EntryId, JournalId, Lsn};

/// What all cores of a device have written into timelines.
#[derive(Default)]
pub(super) struct Entries {
    /// The timeline of each document that is written now.
    timelines: BTreeMap<DocumentKey, JournalId>,
    /// Every place that a call ever had.
    places: BTreeMap<CallId, BTreeSet<(JournalId, Lsn)>>,
}

impl Entries {
    /// What the disk has of a document.
    pub(super) fn is_opened(&mut self, document: &DocumentKey, state: Option<&OpenedDocument>) {
        self.timelines.remove(document);
        let Some(timeline) = state.and_then(|state| state.timeline.as_ref()) else { return };
        self.timelines.insert(document.clone(), timeline.journal);
        for frame in &timeline.frames {
            self.stands_at(frame.call, timeline.journal, frame.lsn);
        }
    }

    /// The same of what is on its way there.
    pub(super) fn leaves(&mut self, append: &Append) {
        let named = append.begin_timeline.map(|(timeline, _)| timeline).or(append.timeline_id);
        if let Some(timeline) = named {
            self.timelines.insert(append.document.clone(), timeline);
        }
        let Some(timeline) = self.timelines.get(&append.document).copied() else { return };
        append.timeline.iter().for_each(|frame| self.stands_at(frame.call, timeline, frame.lsn));
    }

    fn stands_at(&mut self, call: CallId, timeline: JournalId, lsn: Lsn) {
        self.places.entry(call).or_default().insert((timeline, lsn));
    }

    /// # Errors
    ///
    /// The mutation is said to be an entry that it never was.
    pub(super) fn may_be(&self, call: CallId, entry: EntryId) -> Result<(), String> {
        match self.places.get(&call) {
            Some(places) if !places.contains(&(entry.journal, entry.lsn)) => {
                Err(format!("{call:?} is said to be {entry:?}, and was {places:?}"))
            }
            _ => Ok(()),
        }
    }

    /// # Errors
    ///
    /// The same where only its LSN is told.
    pub(super) fn may_be_at(&self, call: CallId, lsn: u64) -> Result<(), String> {
        match self.places.get(&call) {
            Some(places) if !places.iter().any(|(_, place)| place.get() == lsn) => {
                Err(format!("{call:?} is said to be at LSN {lsn}, and was {places:?}"))
            }
            _ => Ok(()),
        }
    }

    /// # Errors
    ///
    /// The same of a rejection in a record.
    pub(super) fn may_be_kept(&self, kept: &KeptRejections) -> Result<(), String> {
        let mut kept = kept.calls.iter().zip(&kept.kept);
        kept.try_for_each(|(call, (entry, ..))| self.may_be(*call, *entry))
    }
}
