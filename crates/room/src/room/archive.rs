//! The archive of a document: a document as well, which has the events that have left that one.
//!
//! It has a room as any other, and the name of its document in the store, beside it. Nobody follows
//! it, and no client can name it.

use std::sync::Arc;

use tidelog_document::{
    ArchivePart, ArchiveRefusal, Change, Changed, StreamRef, WantedEvents, archive_doctype,
    find_archivable, find_events,
};
use tidelog_sqlite::{Failure, Run};
use tidelog_types::{Budget, DocumentKey, JournalId, Position};

use super::document::Document;
use super::record::RoomRecord;
use super::{Answer, Halt, Room, State};

/// Whose copy of a document its archive is called in the store.
pub const ARCHIVE: &str = "archive";

/// The key of a document's archive.
#[must_use]
pub fn archive_of(document: &DocumentKey) -> DocumentKey {
    DocumentKey { user: ARCHIVE.to_owned(), ..document.clone() }
}

impl Room {
    /// Those events of a stream that can leave next.
    pub(super) fn archivable(&mut self, stream: &StreamRef) -> Result<Answer, Halt> {
        self.look_up(|document| {
            find_archivable(document.authority.reader(), stream).map(Answer::Archivable)
        })
    }

    /// Lets events go, as one entry.
    pub(super) fn let_go(
        &mut self,
        stream: &StreamRef,
        archive: JournalId,
        [archived, end]: [u64; 2],
        budget: &mut Budget,
    ) -> Result<Answer, Halt> {
        let stream = stream.clone();
        self.decide_at_word(&Change::Archive { stream, archive, archived, end }, budget)
    }

    /// Becomes an archive in which there is nothing.
    pub(super) fn begin_archive(&mut self) -> Result<(), Halt> {
        assert!(self.document.user == ARCHIVE, "BUG: {} is no archive", self.document);
        let doctype = archive_doctype();
        let start = Position::start_of(self.next_journal_id());
        let record = RoomRecord::of(doctype.clone());
        let mut document = Document::new(self.new_view(0), start, record, start, self.life);
        let migrated = document.migrate(&self.document, &doctype, &*self.caution)?;
        self.commit();
        self.outbox.record(document.record.encode());
        self.outbox.begin_storage(start.journal);
        if let Some(committed) = migrated {
            self.outbox.entry(committed, None, None);
        }
        self.forget_tasks();
        self.state = State::Open(Box::new(document));
        Ok(())
    }

    /// Takes events in, as one entry. Nothing is added to another archive than that which has those
    /// before them.
    pub(super) fn take_in(
        &mut self,
        part: &Arc<ArchivePart>,
        budget: &mut Budget,
    ) -> Result<Answer, Halt> {
        let State::Open(document) = &self.state else { return Ok(Answer::Missing) };
        let failed = |reason: &str| Ok(Answer::Failed { reason: reason.to_owned() });
        if self.settings.is_damaged || document.is_incomplete {
            return failed("the store is damaged, and nothing is written to it");
        }
        let archive = document.authority.position().journal;
        if part.archive.is_some_and(|wanted| wanted != archive) {
            return Ok(Answer::TakenIn(Err(ArchiveRefusal::Elsewhere)));
        }
        match self.change(&Change::TakeIn(Arc::clone(part)), budget)? {
            Ok(Changed::TakenIn(_)) => Ok(Answer::TakenIn(Ok(archive))),
            Ok(_) => unreachable!("BUG: it takes in"),
            Err(why) => failed(&format!("the archive takes nothing more: {why}")),
        }
    }

    /// What the archive has of the events that are wanted: a bounded number of them.
    pub(super) fn archived(
        &mut self,
        wanted: &WantedEvents,
        archive: JournalId,
    ) -> Result<Answer, Halt> {
        let State::Open(document) = &self.state else { return Ok(Answer::Missing) };
        if document.authority.position().journal != archive {
            return Ok(Answer::OtherArchive);
        }
        self.look_up(|document| {
            let Some(doctype) = document.record.newest() else {
                return Run::Failed(Failure::Sql { message: "it has no doctype".to_owned() });
            };
            let reader = document.authority.reader();
            find_events(reader, &doctype, wanted, None).map(Answer::Events)
        })
    }
}
