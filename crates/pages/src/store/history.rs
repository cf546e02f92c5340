//! Reading what was, as far as the log still has it: single entries, and pages as of an LSN.

use std::collections::VecDeque;

use tidelog_disk::Disk;
use tidelog_types::{DocumentKey, JournalId, Lsn, LsnRange, PageSet, Pgid, Position, SortedMap};

use super::Store;
use crate::document::{LoggedEntry, StoredDocument, StoredTimeline};
use crate::error::StoreError;
use crate::page_table::Lies;
use crate::plan::{Answer, LoggedFrame, Plan};
use crate::{Cursor, Direction, StorageEntry};

impl<D: Disk> Store<D> {
    /// The LSNs that the log has entries of this journal for.
    pub fn history(&self, document: &DocumentKey, journal: JournalId) -> Option<LsnRange> {
        let document = self.catalog.get(document)?;
        if document.storage.is_some_and(|position| position.journal == journal) {
            return Some(document.history.range());
        }
        let timeline = document.timeline.as_ref();
        timeline.filter(|timeline| timeline.journal == journal).map(StoredTimeline::range)
    }

    /// Where these pages lay when this storage journal stood at `at`; `None` if that is not known
    /// any more. During a change-over pages are written over that have a newer version.
    pub fn places_at(
        &self,
        document: &DocumentKey,
        pgids: &[Pgid],
        journal: JournalId,
        at: Lsn,
        is_changing_over: bool,
    ) -> Option<Plan> {
        let document = self.catalog.get(document)?;
        document.storage.filter(|position| position.journal == journal)?;
        document.history.count_before(at)?;
        let active = self.log.active();
        let mut places = VecDeque::new();
        for pgid in pgids {
            let Some(page) = document.pages.before(*pgid, at) else { continue };
            let is_superseded =
                matches!(page.lies, Lies::InSlot(_)) && document.pages.is_logged(*pgid);
            if is_superseded && is_changing_over {
                return None;
            }
            places.push_back(document.place_of(page, active));
        }
        Some(Plan::of_pages(places, Answer::PagesAt { journal }))
    }

    /// Where the next entries from a cursor on lie, at most `count` of them; `None` if no entry
    /// begins there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] if what the log has of them is not what was written.
    pub fn entries(
        &self,
        document: &DocumentKey,
        cursor: Cursor,
        count: u32,
    ) -> Result<Option<Plan>, StoreError> {
        let Some(document) = self.catalog.get(document) else { return Ok(None) };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        match (document.storage, &document.timeline) {
            (Some(position), _) if position.journal == cursor.journal => {
                self.storage_entries(document, position, cursor, count)
            }
            (_, Some(timeline)) if timeline.journal == cursor.journal => {
                Ok(self.timeline_entries(timeline, cursor, count))
            }
            _ => Ok(None),
        }
    }

    fn storage_entries(
        &self,
        document: &StoredDocument,
        Position { journal, .. }: Position,
        cursor: Cursor,
        count: usize,
    ) -> Result<Option<Plan>, StoreError> {
        let (logged, history) = (&document.history.entries, document.history.range());
        let before = document.history.count_before(cursor.at);
        let taken = before.and_then(|before| taken(cursor, history, before, logged.len(), count));
        let Some(taken) = taken else { return Ok(None) };
        let mut pages = match (taken.iter().min(), taken.iter().max()) {
            (Some(first), Some(last)) => {
                let (start, end) = (logged[*first].range.start(), logged[*last].range.end());
                document.pages.logged_within(LsnRange::new(start, end))
            }
            _ => SortedMap::new(),
        };
        let (mut places, mut entries) = (VecDeque::new(), VecDeque::new());
        for entry in taken.into_iter().map(|index| &logged[index]) {
            let last = Lsn::new(entry.range.end().get() - 1).expect("BUG: no entry is empty");
            let pages = pages.remove(&last).unwrap_or_default();
            let LoggedEntry { range, chain, life, .. } = *entry;
            let position = Position { journal, life, next: range.end(), chain };
            let set = PageSet { db_pages: entry.db_pages, ..PageSet::default() };
            let calls = document.read_calls(&self.log, &entry.calls)?;
            entries.push_back((StorageEntry { range, position, calls, set }, pages.len()));
            let active = self.log.active();
            places.extend(pages.into_iter().map(|page| document.place_of(page, active)));
        }
        Ok(Some(Plan::of_pages(places, Answer::Entries { entries })))
    }

    fn timeline_entries(
        &self,
        timeline: &StoredTimeline,
        cursor: Cursor,
        count: usize,
    ) -> Option<Plan> {
        let range = timeline.range();
        let before = cursor.at.get().checked_sub(range.start().get())?;
        let before = usize::try_from(before).ok().filter(|it| *it <= timeline.entries.len())?;
        let taken = taken(cursor, range, before, timeline.entries.len(), count)?;
        let frames = taken.into_iter().map(|index| self.logged(timeline, index));
        Some(Plan::of_frames(frames.collect(), Answer::Frames))
    }

    /// Where all entries of a timeline lie.
    pub(super) fn timeline(&self, timeline: &StoredTimeline) -> VecDeque<LoggedFrame> {
        (0..timeline.entries.len()).map(|index| self.logged(timeline, index)).collect()
    }

    fn logged(&self, timeline: &StoredTimeline, index: usize) -> LoggedFrame {
        let entry = timeline.entries[index];
        let lsn = timeline.start.plus(index as u64);
        LoggedFrame { lsn, call: entry.call, at: self.log.frame_at(entry.frame) }
    }
}

/// Which entries a cursor takes that has `before` of `len` behind it, in its order; `None` if it
/// goes back to those that were trimmed.
fn taken(
    cursor: Cursor,
    known: LsnRange,
    before: usize,
    len: usize,
    count: usize,
) -> Option<Vec<usize>> {
    match cursor.direction {
        Direction::Forwards => Some((before..before.saturating_add(count).min(len)).collect()),
        Direction::Backwards if before == 0 && known.start() > Lsn::FIRST => None,
        Direction::Backwards => Some((before.saturating_sub(count)..before).rev().collect()),
    }
}
