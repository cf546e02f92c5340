//! What a room has its store write down, seen at its door: its record says who wrote what is in the
//! append beside it, no document begins as the journal of another one, and what is kept is bounded.

use std::collections::BTreeSet;

use tidelog_document::{Doctype, DueTasks};
use tidelog_pages::{Append, StoreReply, StoreRequest};
use tidelog_room::{RoomEffect, RoomInput};
use tidelog_sync::codec;
use tidelog_types::limits::{DOCTYPES_MAX, Limits};
use tidelog_types::{ClientId, DocumentKey, JournalId, Lineage, Lsn, Position};

/// What was written down of one document.
pub(crate) struct RoomNotes {
    limits: Limits,
    /// Who wrote its storage journal, if that is known.
    lives: Option<Lineage>,
}

/// A room's record as it is written: its version first, and what was handed over by whom.
type Record = (u32, Vec<Doctype>, Lineage, Option<(Position, ClientId)>, Option<DueTasks>);

impl RoomNotes {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, lives: None }
    }

    pub(crate) fn comes(&mut self, key: &DocumentKey, input: &RoomInput) {
        match input {
            RoomInput::Store(StoreReply::Opened { document, state, .. }) if document == key => {
                let record = state.as_ref().and_then(|it| codec::decode::<Record>(&it.record).ok());
                self.lives = record.map(|(_, _, lives, ..)| lives);
            }
            // What the document is by now is known once it is opened.
            RoomInput::Store(StoreReply::AppendFailed { .. } | StoreReply::Broken { .. }) => {
                self.lives = None;
            }
            _ => {}
        }
    }

    /// Something leaves the room; `journals` are those that any room has begun.
    ///
    /// # Errors
    ///
    /// It may not be written down.
    pub(crate) fn leaves(
        &mut self,
        key: &DocumentKey,
        effect: &RoomEffect,
        journals: &mut BTreeSet<JournalId>,
    ) -> Result<(), String> {
        let RoomEffect::Store(StoreRequest::Append { append, .. }) = effect else { return Ok(()) };
        if let Some(begun) = append.begin_storage.filter(|_| append.document == *key)
            && !journals.insert(begun)
        {
            return Err(format!("a document begins as journal {begun}, which was another one"));
        }
        if append.document != *key && append.take_name.is_none() {
            return Ok(());
        }
        if let Some(record) = &append.record {
            let (_, doctypes, lives, ..) =
                codec::decode::<Record>(record).map_err(|error| format!("a record: {error}"))?;
            self.may_be_kept(&doctypes, &lives)?;
            self.lives = Some(lives);
        }
        self.must_be_by(append)
    }

    fn may_be_kept(&self, doctypes: &[Doctype], lives: &Lineage) -> Result<(), String> {
        let count = lives.lives().count();
        if count > self.limits.lives_kept_max {
            return Err(format!("{count} lives of a storage journal are kept"));
        }
        let hashes: BTreeSet<_> = doctypes.iter().map(Doctype::hash).collect();
        let newest = doctypes.last();
        let is_newest = newest.is_some_and(|it| doctypes.iter().all(|older| it.succeeds(older)));
        if hashes.len() < doctypes.len() || hashes.len() > DOCTYPES_MAX || !is_newest {
            let names: Vec<_> = doctypes.iter().map(|it| (&it.name, it.migrations.len())).collect();
            return Err(format!("a document has the doctypes {names:?}, in that order"));
        }
        Ok(())
    }

    /// The record that goes with entries, or did before, names the lives that wrote them.
    fn must_be_by(&self, append: &Append) -> Result<(), String> {
        let Some(lives) = &self.lives else { return Ok(()) };
        for entry in &append.storage {
            let position = entry.position;
            let last = Lsn::new(position.next.get() - 1);
            if let Some(last) = last.filter(|lsn| lives.life_at(*lsn) != Some(position.life)) {
                return Err(format!(
                    "entry {last} is by another life than its record says: {position}"
                ));
            }
        }
        Ok(())
    }
}
