//! What a room hands to the store, and what it says once that is durable.

use std::collections::VecDeque;

use serde_bytes::ByteBuf;
use tidelog_pages::{Append, StorageEntry, StoreRequest, Ticket};
use tidelog_sync::{FromServer, Origin};
use tidelog_types::limits::MUTATION_PAGES_MAX;
use tidelog_types::{DocumentKey, JournalId, Lsn, Position};

use super::guest::GuestId;
use super::{Answer, ConnId};

/// Something to do when all that came before it is durable, and not earlier: persist, then send.
#[derive(Debug)]
pub(super) enum After {
    /// Tell a guest, unless it is gone.
    Tell(GuestId, FromServer),
    /// Tell a connection.
    TellConn(ConnId, FromServer),
    /// The guest is followed from now on, from this LSN.
    Follow { guest: GuestId, storage: Position, wanted: Lsn, from: Lsn },
    /// This entry may leave.
    Entry(StorageEntry, Option<Origin>),
    /// Answer the shell.
    Answer(u64, Answer),
}

/// Appends on their way to the disk, oldest first, each with what waits for it.
pub(super) struct Outbox {
    document: DocumentKey,
    last: Ticket,
    next: Append,
    next_pages: usize,
    after: Vec<After>,
    in_flight: VecDeque<(Ticket, Vec<After>)>,
    /// What need not wait, or has waited.
    ready: VecDeque<After>,
}

impl Outbox {
    pub(super) fn new(document: DocumentKey) -> Self {
        Self {
            next: Append::to(document.clone()),
            document,
            last: Ticket(0),
            next_pages: 0,
            after: Vec::new(),
            in_flight: VecDeque::new(),
            ready: VecDeque::new(),
        }
    }

    pub(super) fn record(&mut self, record: Vec<u8>) {
        self.next.record = Some(ByteBuf::from(record));
    }

    /// Begins another storage journal; what was appended before must be on its way.
    pub(super) fn begin_storage(&mut self, journal: JournalId) {
        assert!(self.next.storage.is_empty(), "BUG: entries of two journals in one append");
        self.next.begin_storage = Some(journal);
    }

    pub(super) fn entry(&mut self, entry: StorageEntry, origin: Option<Origin>) {
        self.next_pages += entry.set.pages.len();
        self.next.storage.push(entry.clone());
        self.after.push(After::Entry(entry, origin));
    }

    pub(super) fn after(&mut self, after: After) {
        self.after.push(after);
    }

    /// Whether so much has come together that it should go before more does.
    pub(super) fn is_full(&self) -> bool {
        self.next_pages >= MUTATION_PAGES_MAX
    }

    /// Whether nothing is on its way or waits to go.
    pub(super) fn is_empty(&self) -> bool {
        self.in_flight.is_empty() && self.after.is_empty() && self.ready.is_empty()
    }

    /// Closes the current append, if it says anything, and gives the request for it.
    pub(super) fn commit(&mut self) -> Option<StoreRequest> {
        if self.next == Append::to(self.document.clone()) {
            let waiting = match self.in_flight.back_mut() {
                Some((_, waiting)) => waiting,
                None => {
                    self.ready.extend(self.after.drain(..));
                    return None;
                }
            };
            waiting.append(&mut self.after);
            return None;
        }
        let append = std::mem::replace(&mut self.next, Append::to(self.document.clone()));
        let ticket = self.take_ticket();
        Some(StoreRequest::Append { ticket, append })
    }

    /// A ticket for the destruction of the document; nothing may be left to commit.
    pub(super) fn destroy(&mut self) -> StoreRequest {
        assert!(self.next_pages == 0, "BUG: an append is left behind");
        let ticket = self.take_ticket();
        StoreRequest::Destroy { ticket, document: self.document.clone() }
    }

    fn take_ticket(&mut self) -> Ticket {
        self.last = Ticket(self.last.0 + 1);
        self.next_pages = 0;
        self.in_flight.push_back((self.last, std::mem::take(&mut self.after)));
        self.last
    }

    /// All appends up to this one are durable.
    pub(super) fn on_durable(&mut self, ticket: Ticket) {
        while self.in_flight.front().is_some_and(|(first, _)| *first <= ticket) {
            let (_, waited) = self.in_flight.pop_front().expect("BUG: there was one");
            self.ready.extend(waited);
        }
    }

    /// The next thing that may be done now.
    pub(super) fn next_ready(&mut self) -> Option<After> {
        self.ready.pop_front()
    }

    /// Whether this append is one that the room still waits for.
    pub(super) fn waits_for(&self, ticket: Ticket) -> bool {
        self.in_flight.iter().any(|(waiting, _)| *waiting == ticket)
    }

    /// The youngest append that the store has not answered.
    pub(super) fn last_in_flight(&self) -> Option<Ticket> {
        self.in_flight.back().map(|(ticket, _)| *ticket)
    }

    /// The youngest append before this one that the store has not answered.
    pub(super) fn last_before(&self, ticket: Ticket) -> Option<Ticket> {
        let older = self.in_flight.iter().rev().find(|(waiting, _)| *waiting < ticket);
        older.map(|(waiting, _)| *waiting)
    }

    /// Forgets everything, since the store lost it. Gives the numbers of the shell's questions
    /// that waited. Tickets are not used again.
    pub(super) fn reset(&mut self) -> Vec<u64> {
        let last = self.last;
        let lost = std::mem::replace(self, Self::new(self.document.clone()));
        self.last = last;
        let in_flight = lost.in_flight.into_iter().flat_map(|(_, waiting)| waiting);
        in_flight
            .chain(lost.after)
            .filter_map(|after| match after {
                After::Answer(request, _) => Some(request),
                _ => None,
            })
            .collect()
    }

    pub(super) fn in_flight_count(&self) -> usize {
        self.in_flight.len()
    }
}
