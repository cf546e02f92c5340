//! What a disk has refused of each document, and whether that is over, seen at the door of a core:
//! then no tab is told of it any more.
//!
//! An error that stays looks like one that was told last, and does no harm but to whoever believes
//! it.

use std::collections::BTreeMap;

use tidelog_client::CallFailure;
use tidelog_pages::Ticket;
use tidelog_types::{DocumentKey, ErrorCode, Remedy};

/// Milliseconds after which a core has written again what its store refused, at most.
pub(crate) const WRITTEN_AGAIN_MS: u64 = 16_000;

/// What one core knows of refused appends.
#[derive(Default)]
pub(super) struct Refusals {
    open: BTreeMap<DocumentKey, Refusal>,
    /// Since when each document has been well, of those that were not.
    well_since_ms: BTreeMap<DocumentKey, u64>,
}

struct Refusal {
    /// The last append that had been made by then.
    newest: Option<Ticket>,
    /// Entries of its server are lost, which come again.
    lacks_entries: bool,
    /// It was read anew since.
    is_read: bool,
}

/// An append that is durable.
pub(super) struct Stored {
    pub(super) ticket: Ticket,
    pub(super) document: DocumentKey,
    pub(super) has_entries: bool,
}

impl Refusals {
    /// The disk refuses what a document wrote, when `newest` was the last append.
    pub(super) fn is_refused(
        &mut self,
        document: &DocumentKey,
        newest: Option<Ticket>,
        loses_entries: bool,
    ) {
        self.well_since_ms.remove(document);
        let before = self.open.remove(document);
        let lacks_entries = loses_entries || before.is_some_and(|before| before.lacks_entries);
        let refusal = Refusal { newest, lacks_entries, is_read: false };
        self.open.insert(document.clone(), refusal);
    }

    /// It is read anew, as it is on the disk.
    pub(super) fn is_read(&mut self, document: &DocumentKey) {
        self.open.get_mut(document).into_iter().for_each(|refusal| refusal.is_read = true);
    }

    /// These appends are durable: what was refused before they were made would find room now. Of
    /// some documents more is on its way, of which that is not known.
    pub(super) fn are_stored(
        &mut self,
        stored: &[Stored],
        is_on_its_way: impl Fn(&DocumentKey) -> bool,
        now_ms: u64,
    ) {
        let well = self.open.extract_if(.., |document, refusal| {
            let since = || stored.iter().filter(|it| refusal.newest.is_none_or(|n| n < it.ticket));
            let has_entries = since().any(|it| it.has_entries && it.document == *document);
            refusal.lacks_entries &= !has_entries;
            let is_over = refusal.is_read && since().next().is_some();
            is_over && !refusal.lacks_entries && !is_on_its_way(document)
        });
        let well = well.map(|(document, _)| (document, now_ms));
        self.well_since_ms.extend(well);
    }

    /// Whether what is said to be wrong is over, since when at least.
    pub(super) fn over_since(&self, document: &DocumentKey, failure: &CallFailure) -> Option<u64> {
        let is_open = self.open.keys().any(|it| it == document);
        if !is_of_append(failure) || is_open {
            return None;
        }
        Some(self.well_since_ms.get(document).copied().unwrap_or(0))
    }
}

/// Whether an append was refused, as a failure says, and another one may not be.
fn is_of_append(failure: &CallFailure) -> bool {
    let is_of_storage = matches!(failure.code, ErrorCode::StorageFull | ErrorCode::Storage);
    let signs = ["; nothing was recorded", "free some, then try again"];
    let is_said = signs.iter().any(|sign| failure.message.contains(sign));
    is_of_storage && is_said && failure.remedy != Remedy::Mend
}
