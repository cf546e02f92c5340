//! Deletions of a device's copies, seen at the door of its core: none is said to be done before the
//! page server has said so of one that it was asked for since.
//!
//! Whoever is told too early finds the copy again only if the store refuses that, or the power
//! goes.

use std::collections::BTreeMap;

use tidelog_client::{Call, CallFailure, TabId};
use tidelog_pages::Ticket;
use tidelog_types::{DocumentKey, Outcome};

/// What one core was asked to delete, and has asked its page servers.
#[derive(Default)]
pub(super) struct Deletions {
    /// What tabs want deleted, in the order in which they asked.
    asked: Vec<Asked>,
    on_their_way: BTreeMap<Ticket, DocumentKey>,
    newest: Option<Ticket>,
    /// The newest one of each document that is durable.
    durable: BTreeMap<DocumentKey, Ticket>,
}

/// A copy that a tab wants deleted.
struct Asked {
    by: (TabId, Call),
    document: DocumentKey,
    /// The newest request that there was by then.
    before: Option<Ticket>,
    /// What the page server was asked for it, if it was.
    ticket: Option<Ticket>,
}

impl Deletions {
    pub(super) fn is_asked(&mut self, tab: TabId, call: Call, document: DocumentKey) {
        let before = self.newest;
        self.asked.push(Asked { by: (tab, call), document, before, ticket: None });
    }

    /// The page server is asked, or the next one is once more.
    pub(super) fn leaves(&mut self, ticket: Ticket, document: &DocumentKey) {
        self.newest = self.newest.max(Some(ticket));
        if self.on_their_way.insert(ticket, document.clone()).is_none() {
            self.belongs_to_next(ticket, document);
        }
    }

    /// Of several calls only one is what the page server is asked for, in their order. Says whether
    /// there is one.
    fn belongs_to_next(&mut self, ticket: Ticket, document: &DocumentKey) -> bool {
        let waits = |it: &&mut Asked| it.document == *document && it.ticket.is_none();
        let next = self.asked.iter_mut().find(waits);
        next.map(|asked| asked.ticket = Some(ticket)).is_some()
    }

    pub(super) fn are_durable(&mut self, ticket: Ticket) {
        let later = self.on_their_way.split_off(&Ticket(ticket.0 + 1));
        let durable = std::mem::replace(&mut self.on_their_way, later);
        self.durable.extend(durable.into_iter().map(|(ticket, document)| (document, ticket)));
    }

    pub(super) fn has_failed(&mut self, ticket: Ticket) {
        self.on_their_way.remove(&ticket);
    }

    fn take(&mut self, tab: TabId, call: Call) -> Option<Asked> {
        let place = self.asked.iter().position(|asked| asked.by == (tab, call))?;
        Some(self.asked.remove(place))
    }

    /// A call is said to be done.
    ///
    /// # Errors
    ///
    /// It wants a copy deleted that is there, as far as the page server has said.
    pub(super) fn may_be_done(&mut self, tab: TabId, call: Call) -> Result<(), String> {
        let Some(Asked { document, before, .. }) = self.take(tab, call) else { return Ok(()) };
        match self.durable.get(&document).copied() > before {
            true => Ok(()),
            false => {
                Err(format!("{document} is said to be deleted, and its store has not said so"))
            }
        }
    }

    /// A call is said to have failed.
    ///
    /// # Errors
    ///
    /// It is said that nothing was done, and a page server was asked to and has not answered.
    pub(super) fn may_have_failed(
        &mut self,
        tab: TabId,
        call: Call,
        failure: &CallFailure,
    ) -> Result<(), String> {
        let Some(Asked { document, ticket, .. }) = self.take(tab, call) else { return Ok(()) };
        let is_on_its_way = |ticket: &Ticket| self.on_their_way.contains_key(ticket);
        let Some(ticket) = ticket.filter(is_on_its_way) else { return Ok(()) };
        // It may have been refused in the step in which the next one was let through.
        match failure.outcome == Outcome::Unknown || self.belongs_to_next(ticket, &document) {
            true => Ok(()),
            false => Err(format!("{document} is said not to be deleted, and may be at any time")),
        }
    }
}
