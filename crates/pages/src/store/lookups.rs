//! Where what is asked for lies now.

use std::collections::VecDeque;

use tidelog_disk::Disk;
use tidelog_journal::DocumentNumber;
use tidelog_types::{DocumentKey, JournalId, Lsn, Pgid, Position};

use super::Store;
use crate::document::{Standing, StoredDocument};
use crate::error::StoreError;
use crate::place::PagePlace;
use crate::plan::{Answer, Plan};
use crate::{OpenedDocument, TimelineState};

impl<D: Disk> Store<D> {
    /// Where these pages of a document lie now, as far as they are here.
    pub fn places(&self, document: &DocumentKey, pgids: &[Pgid]) -> VecDeque<PagePlace> {
        let active = self.log.active();
        let Some(document) = self.catalog.get(document) else { return VecDeque::new() };
        pgids.iter().filter_map(|pgid| document.place(*pgid, active)).collect()
    }

    /// What a follower lacks that holds everything of this storage journal before `since`: the
    /// pages whose newest version is not older, so many of them at most, from `from` on. `Err`
    /// says where the storage journal stands if that is not a place in it.
    pub fn sync_prepare(
        &self,
        key: &DocumentKey,
        (journal, since): (JournalId, Lsn),
        from: Pgid,
        pages_max: u32,
    ) -> Result<Plan, Option<Position>> {
        let document = self.catalog.get(key).ok_or(None)?;
        let position = document.storage.ok_or(None)?;
        if position.journal != journal || position.next < since {
            return Err(Some(position));
        }
        let active = self.log.active();
        let mut changed = document.pages.since(since, from);
        let pages = changed.by_ref().take(pages_max as usize);
        let pages = pages.map(|page| document.place_of(page, active)).collect();
        let next = changed.next().map(|page| page.pgid);
        let db_pages = document.db_pages;
        Ok(Plan::of_pages(pages, Answer::Sync { position, db_pages, next }))
    }

    /// Whether the record of a document is this one. One that cannot be read is another one.
    pub fn is_noted(&self, document: &StoredDocument, record: &[u8]) -> bool {
        let is_likely = document.record.is_some_and(|noted| noted.is_likely(record));
        (is_likely || record.is_empty())
            && document.read_record(&self.log).is_ok_and(|noted| noted == record)
    }

    /// Where a document stands; its timeline is to be read back from the log.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] if what the log has of it is not what was written.
    pub fn opened(&mut self, number: DocumentNumber) -> Result<Plan, StoreError> {
        let document = self.catalog.documents.get(&number).expect("BUG: a number in use");
        let timeline = document.timeline.as_ref();
        let frames = timeline.map(|timeline| self.timeline(timeline)).unwrap_or_default();
        let timeline = timeline.map(|timeline| TimelineState {
            journal: timeline.journal,
            range: timeline.range(),
            frames: Vec::with_capacity(frames.len()),
        });
        let first = document.place(Pgid(1), self.log.active());
        let mut state = Box::new(OpenedDocument {
            record: document.read_record(&self.log)?,
            timeline,
            storage: document.storage,
            db_pages: document.db_pages,
            calls: document.read_calls(&self.log, &document.calls)?,
            first_page: None,
            is_incomplete: document.standing != Standing::Whole,
        });
        state.first_page = match first.map(|place| self.fetch(&place)).transpose() {
            // Whoever needs it asks for it, and is told.
            Err(StoreError::Damaged { .. }) => None,
            first_page => first_page?,
        };
        Ok(Plan::of_frames(frames, Answer::Opened { life: self.options.life, state: Some(state) }))
    }
}
