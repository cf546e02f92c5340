//! The way to the page server, whichever it is at the moment.

use std::collections::VecDeque;

use tidelog_pages::{Append, RequestId, StorageEntry, StoreRequest, Ticket};
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{DocumentKey, Epoch, JournalId, Life, Lsn, UnservedKind};

use crate::effect::{PageServerFailure, PageServerId, TabId};
use crate::outbox::Outbox;
use crate::protocol::Storage;

/// Milliseconds in which the next window takes over from one that could not go on.
const TAKEN_OVER_MS: u64 = 5_000;

/// Hands appends over, keeps them until they are durable, and hands them over again to the next
/// page server.
#[derive(Debug, Default)]
pub(crate) struct StoreLink {
    lent: Lent,
    epoch: Epoch,
    last_ticket: u64,
    last_request: u64,
    /// Appends and destroys that are not durable yet, oldest first.
    pending: VecDeque<Pending>,
    /// Why the last page server could not start or go on, until another one has let us in.
    pub(crate) failure: Option<PageServerFailure>,
    /// When one served us last.
    gone_at_ms: u64,
    /// Until when a power cut could still lose the files themselves.
    pub(crate) settled_at_ms: u64,
    /// What the last page server kept the store in.
    kept_in: Option<Storage>,
    /// Who served it, whether we were let in, and the failure when documents looked last.
    seen: (Option<PageServerId>, bool, Option<PageServerFailure>),
}

/// The page server that is at hand, if one is, and what was agreed with that one.
#[derive(Debug, Default)]
struct Lent {
    server: Option<PageServerId>,
    /// Whether it has granted our epoch: before that it is told nothing else.
    ready: bool,
    /// Whether it had too many of our requests, and refused a read.
    has_refused: bool,
    /// Tabs that its host can tell by itself.
    reached: Vec<TabId>,
}

/// An append or a destroy that is not durable yet.
#[derive(Debug)]
struct Pending {
    ticket: Ticket,
    request: StoreRequest,
    is_handed_over: bool,
    /// Whether an earlier page server was handed it too, and may have made it durable.
    is_repeat: bool,
}

impl Pending {
    fn is_append_to(&self, document: &DocumentKey) -> bool {
        matches!(&self.request, StoreRequest::Append { append, .. }
                 if append.document == *document)
    }
}

impl StoreLink {
    pub(crate) fn server(&self) -> Option<PageServerId> {
        self.lent.server
    }

    /// Whether documents see something else than when this was asked last.
    pub(crate) fn looks_other(&mut self) -> bool {
        let Lent { server, ready, .. } = self.lent;
        if (self.seen.0, self.seen.1, &self.seen.2) == (server, ready, &self.failure) {
            return false;
        }
        self.seen = (server, ready, self.failure.clone());
        true
    }

    /// Whether a page server takes what is handed over.
    pub(crate) fn is_ready(&self) -> bool {
        self.lent.ready
    }

    /// What keeps the data at the moment.
    pub(crate) fn storage(&self) -> Storage {
        self.kept_in.filter(|_| self.lent.ready && !self.is_lost()).unwrap_or(Storage::Waiting)
    }

    /// Whether the data were cleared under us. What is in memory then has nothing to go on from:
    /// another store would take it for something else. So this is the end of this core's writing.
    pub(crate) fn is_lost(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.kind == UnservedKind::Lost)
    }

    /// Whether the data were cleared under us, and the page server that could still read the old
    /// ones is gone: no other page server is asked.
    pub(crate) fn is_over(&self) -> bool {
        self.is_lost() && self.lent.server.is_none()
    }

    /// Why nobody serves the store, where that is known: nobody knows when somebody will.
    pub(crate) fn why_unserved(&self) -> Option<&PageServerFailure> {
        self.failure.as_ref().filter(|_| self.lent.server.is_none())
    }

    /// From when on nobody is expected to serve the store soon, if nobody does.
    pub(crate) fn is_unserved_from_ms(&self) -> Option<u64> {
        self.lent.server.is_none().then_some(self.gone_at_ms + TAKEN_OVER_MS)
    }

    /// This page server's host has a port to this tab, and tells it by itself what is durable.
    pub(crate) fn reached(&mut self, tab: TabId, server: PageServerId) {
        if self.lent.server == Some(server) {
            self.lent.reached.push(tab);
        }
    }

    /// Whether the page server's host has a port to this tab.
    pub(crate) fn reaches(&self, tab: TabId) -> bool {
        self.lent.ready && self.lent.reached.contains(&tab)
    }

    /// Another page server is at hand.
    pub(crate) fn lent(
        &mut self,
        server: PageServerId,
        kept_in: Storage,
        life: Life,
        out: &mut Outbox,
    ) {
        if self.is_lost() {
            return;
        }
        self.lent = Lent { server: Some(server), ..Lent::default() };
        self.kept_in = Some(kept_in);
        out.ask_store(StoreRequest::Hello { epoch: self.epoch, life });
    }

    pub(crate) fn gone(&mut self, now_ms: u64) {
        if self.lent.ready {
            self.gone_at_ms = now_ms;
        }
        self.lent = Lent::default();
    }

    pub(crate) fn failed(&mut self, failure: PageServerFailure, now_ms: u64) {
        // Of data that were cleared a page server that has let us in still reads what there was.
        if failure.kind != UnservedKind::Lost || !self.lent.ready {
            self.gone(now_ms);
        }
        if !self.is_lost() {
            self.failure = Some(failure);
        }
    }

    /// The page server has let us in: everything that is not durable is handed over again. Says
    /// no if its store is not the one that we wrote to before: each grant is higher than all
    /// before it.
    pub(crate) fn granted(&mut self, epoch: Epoch, out: &mut Outbox) -> bool {
        if epoch <= self.epoch {
            self.lent = Lent::default();
            self.failure = Some(PageServerFailure::new(UnservedKind::Lost, "another store"));
            return false;
        }
        self.epoch = epoch;
        self.lent.ready = true;
        self.failure = None;
        for pending in &mut self.pending {
            reached(Probe::HandedOverAgain);
            pending.is_repeat = std::mem::replace(&mut pending.is_handed_over, true);
            out.ask_store(pending.request.clone());
        }
        true
    }

    pub(crate) fn append(&mut self, append: Append, out: &mut Outbox) -> Ticket {
        self.hand_over(out, |ticket| StoreRequest::Append { ticket, append })
    }

    pub(crate) fn destroy(&mut self, document: DocumentKey, out: &mut Outbox) -> Ticket {
        self.hand_over(out, |ticket| StoreRequest::Destroy { ticket, document })
    }

    /// Whether this document is to be destroyed, and nobody has said yet that it is. Nothing is
    /// appended behind that: handed over again, it would take along what was durable already.
    pub(crate) fn destroys(&self, document: &DocumentKey) -> bool {
        self.pending.iter().any(|pending| match &pending.request {
            StoreRequest::Destroy { document: destroyed, .. } => destroyed == document,
            _ => false,
        })
    }

    /// A question, asked now if anybody is there. Whoever asks it asks again once a page server
    /// has let us in.
    pub(crate) fn ask(&self, request: StoreRequest, out: &mut Outbox) {
        if self.lent.ready {
            out.ask_store(request);
        }
    }

    /// A read was not taken in.
    pub(crate) fn refused(&mut self) {
        self.lent.has_refused = true;
    }

    /// Whether one was not taken in since this was asked last.
    pub(crate) fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.lent.has_refused)
    }

    pub(crate) fn next_request(&mut self) -> RequestId {
        self.last_request += 1;
        RequestId(self.last_request)
    }

    /// Everything up to `ticket` is durable. Gives the documents that are destroyed by that.
    pub(crate) fn durable(&mut self, ticket: Ticket) -> Vec<DocumentKey> {
        let answered = self.pending.partition_point(|pending| pending.ticket <= ticket);
        self.pending.drain(..answered).filter_map(|it| destroyed_by(it.request)).collect()
    }

    /// Whether an earlier page server was handed what has this ticket too.
    pub(crate) fn is_repeat(&self, ticket: Ticket) -> bool {
        self.pending.iter().any(|pending| pending.ticket == ticket && pending.is_repeat)
    }

    /// The first timeline frame of one document that is not durable, if one is pending.
    pub(crate) fn first_frame(&self, document: &DocumentKey, timeline: JournalId) -> Option<Lsn> {
        let mut frames = self.appends_to(document).filter(|it| it.timeline_id == Some(timeline));
        frames.find_map(|append| append.timeline.first()).map(|frame| frame.lsn)
    }

    /// The same of storage entries.
    pub(crate) fn first_entry(&self, document: &DocumentKey, journal: JournalId) -> Option<Lsn> {
        let mut entries = self.pending_entries(document);
        let first = entries.find(|entry| entry.position.journal == journal);
        first.map(|entry| entry.range.start())
    }

    /// The storage entries of one document that are not durable, oldest first.
    pub(crate) fn pending_entries(
        &self,
        document: &DocumentKey,
    ) -> impl DoubleEndedIterator<Item = &StorageEntry> {
        self.appends_to(document).flat_map(|append| &append.storage)
    }

    fn appends_to(&self, document: &DocumentKey) -> impl DoubleEndedIterator<Item = &Append> {
        self.pending.iter().filter_map(move |pending| match &pending.request {
            StoreRequest::Append { append, .. } if append.document == *document => Some(append),
            _ => None,
        })
    }

    /// Gives up what is pending of one document, from `ticket` on.
    pub(crate) fn give_up(&mut self, document: &DocumentKey, from: Ticket) {
        self.pending.retain(|pending| pending.ticket < from || !pending.is_append_to(document));
    }

    /// Gives up a destroy, if this is the ticket of one. Gives the document that stays.
    pub(crate) fn give_up_destroy(&mut self, ticket: Ticket) -> Option<DocumentKey> {
        let is_it = |pending: &Pending| {
            pending.ticket == ticket && matches!(pending.request, StoreRequest::Destroy { .. })
        };
        let Pending { request, .. } = self.pending.remove(self.pending.iter().position(is_it)?)?;
        reached(Probe::DestroyFailed);
        destroyed_by(request)
    }

    fn hand_over(
        &mut self,
        out: &mut Outbox,
        request: impl FnOnce(Ticket) -> StoreRequest,
    ) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        let request = request(ticket);
        if self.lent.ready {
            out.ask_store(request.clone());
        }
        if self.is_over() {
            // No page server will be handed any of them.
            self.pending.clear();
        } else {
            let (is_handed_over, is_repeat) = (self.lent.ready, false);
            self.pending.push_back(Pending { ticket, request, is_handed_over, is_repeat });
        }
        ticket
    }
}

fn destroyed_by(request: StoreRequest) -> Option<DocumentKey> {
    match request {
        StoreRequest::Destroy { document, .. } => Some(document),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a core whose data were cleared does not grow with all that its servers go on to say.
    #[test]
    fn nothing_is_kept_for_a_page_server_that_cannot_come_any_more() {
        let (mut store, out) = (StoreLink::default(), &mut Outbox::default());
        let append = || Append::to(DocumentKey::new("list", "").expect("a good name"));
        store.lent(PageServerId(1), Storage::Opfs, Life::NONE, out);
        assert!(store.granted(Epoch(1), out));
        store.gone(0);
        store.append(append(), out);
        assert_eq!(store.pending.len(), 1, "the next one is handed it");
        store.lent(PageServerId(2), Storage::Opfs, Life::NONE, out);
        assert!(!store.granted(Epoch(1), out), "it has another store");
        store.append(append(), out);
        assert!(store.pending.is_empty());
    }
}
