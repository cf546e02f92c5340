//! Deletions of a device's copies, seen at the door of its core: none is said to be done before the
//! page server has said so of one that it was asked for since.
//!
//! Whoever is told too early finds the copy again only if the store refuses that, or the power
//! goes.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_client::{Call, CallFailure, TabId};
use tidelog_pages::Ticket;
use tidelog_types::{DocumentKey, Outcome};

/// What one core was asked to delete, and has asked its page servers.
#[derive(Default)]
pub(super) struct Deletions {
    /// What tabs want deleted, and the newest request that there was by then.
    asked: BTreeMap<(TabId, Call), (DocumentKey, Option<Ticket>)>,
    on_their_way: BTreeMap<Ticket, DocumentKey>,
    /// Those whose calls were told that nobody knows.
    unknown: BTreeSet<Ticket>,
    newest: Option<Ticket>,
    /// The newest one of each document that is durable.
    durable: BTreeMap<DocumentKey, Ticket>,
}

impl Deletions {
    pub(super) fn is_asked(&mut self, tab: TabId, call: Call, document: DocumentKey) {
        self.asked.insert((tab, call), (document, self.newest));
    }

    /// The page server is asked, or the next one is once more.
    pub(super) fn leaves(&mut self, ticket: Ticket, document: &DocumentKey) {
        self.newest = self.newest.max(Some(ticket));
        self.on_their_way.insert(ticket, document.clone());
    }

    pub(super) fn are_durable(&mut self, ticket: Ticket) {
        let later = self.on_their_way.split_off(&Ticket(ticket.0 + 1));
        let durable = std::mem::replace(&mut self.on_their_way, later);
        self.durable.extend(durable.into_iter().map(|(ticket, document)| (document, ticket)));
    }

    pub(super) fn has_failed(&mut self, ticket: Ticket) {
        self.on_their_way.remove(&ticket);
    }

    /// A call is said to be done.
    ///
    /// # Errors
    ///
    /// It wants a copy deleted that is there, as far as the page server has said.
    pub(super) fn may_be_done(&mut self, tab: TabId, call: Call) -> Result<(), String> {
        let Some((document, before)) = self.asked.remove(&(tab, call)) else { return Ok(()) };
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
        let Some((document, before)) = self.asked.remove(&(tab, call)) else { return Ok(()) };
        // Of several calls only one was what the page server was asked for.
        let is_alone = !self.asked.values().any(|(other, _)| *other == document);
        let since = self.on_their_way.iter().filter(|(ticket, _)| Some(**ticket) > before);
        let of_it = since.filter(|(_, asked)| **asked == document).map(|(ticket, _)| *ticket);
        let asked = of_it.filter(|ticket| !self.unknown.contains(ticket)).min();
        if failure.outcome == Outcome::Unknown {
            self.unknown.extend(asked);
        } else if is_alone && asked.is_some() {
            return Err(format!("{document} is said not to be deleted, and may be at any time"));
        }
        Ok(())
    }
}
