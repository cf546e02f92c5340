//! Reading what was, as far as the log still has it: single entries, and pages as of an LSN.

use std::collections::VecDeque;

use tidelog_disk::Disk;
use tidelog_types::{DocumentKey, Lsn, LsnRange, PageSet, Pgid, Position};

use crate::StorageEntry;
use crate::catalog::PagePlace;
use crate::page_table::Lies;
use crate::reads::Answer;
use crate::store::Store;

/// Where the pages of an answer lie, and how it is put together.
pub(crate) type Planned = (VecDeque<PagePlace>, Answer);

impl<D: Disk> Store<D> {
    /// The LSNs that the log has storage entries of a document for.
    pub fn history(&self, document: &DocumentKey) -> Option<LsnRange> {
        let document = self.catalog.get(document)?;
        document.storage.map(|_| document.history.range())
    }

    /// Where these pages lay when the storage journal stood at `at`; `None` if that is not known
    /// any more.
    pub fn places_at(&self, document: &DocumentKey, pgids: &[Pgid], at: Lsn) -> Option<Planned> {
        let document = self.catalog.get(document)?;
        document.storage?;
        document.history.count_before(at)?;
        let active = self.log.active();
        let mut places = VecDeque::new();
        for pgid in pgids {
            let Some(page) = document.pages.before(*pgid, at) else { continue };
            let is_superseded =
                matches!(page.lies, Lies::InSlot(_)) && document.pages.is_logged(*pgid);
            if is_superseded && self.change_over.is_some() {
                return None;
            }
            places.push_back(document.place_of(page, active));
        }
        Some((places, Answer::PagesAt))
    }

    /// Where the pages of all storage entries within `range` lie; `None` if none begins where that
    /// does and it is not the head.
    pub fn entries(&self, document: &DocumentKey, range: LsnRange) -> Option<Planned> {
        let document = self.catalog.get(document)?;
        let Position { journal, .. } = document.storage?;
        let first = document.history.count_before(range.start())?;
        let mut pages = document.pages.logged_within(range);
        let (mut places, mut entries) = (VecDeque::new(), VecDeque::new());
        let within = document.history.entries.range(first..);
        for entry in within.take_while(|entry| entry.range.end() <= range.end()) {
            let last = Lsn::new(entry.range.end().get() - 1).expect("BUG: no entry is empty");
            let pages = pages.remove(&last).unwrap_or_default();
            let position = Position { journal, next: entry.range.end(), chain: entry.chain };
            let set = PageSet { db_pages: entry.db_pages, ..PageSet::default() };
            let (range, calls) = (entry.range, entry.calls.clone());
            entries.push_back((StorageEntry { range, position, calls, set }, pages.len()));
            places.extend(pages.iter().map(|page| document.place_of(*page, self.log.active())));
        }
        Some((places, Answer::Entries { entries }))
    }
}
