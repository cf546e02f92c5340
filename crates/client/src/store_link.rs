//! The way to the page server, whichever it is at the moment.

use std::collections::{BTreeSet, VecDeque};

use tidelog_pages::{Append, StoreRequest, Ticket};
use tidelog_types::{DocumentKey, Epoch};

use crate::effect::{PageServerFailure, PageServerId, TabId};
use crate::outbox::Outbox;

/// Hands appends over, keeps them until they are durable, and hands them over again to the next
/// page server.
#[derive(Debug, Default)]
pub(crate) struct StoreLink {
    server: Option<PageServerId>,
    /// Whether the page server has granted our epoch: before that it is told nothing else.
    ready: bool,
    epoch: Epoch,
    last_ticket: u64,
    last_request: u64,
    /// Appends and destroys that are not durable yet, oldest first.
    pending: VecDeque<(Ticket, StoreRequest)>,
    /// Tabs that the page server's host can tell by itself.
    reached: BTreeSet<TabId>,
    /// Why the last page server could not start, while none has.
    pub(crate) failure: Option<PageServerFailure>,
    /// Until when a power cut could still lose the files themselves.
    pub(crate) settled_at_ms: u64,
}

impl StoreLink {
    pub(crate) fn server(&self) -> Option<PageServerId> {
        self.server
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// The page server can tell this tab by itself.
    pub(crate) fn reached(&mut self, tab: TabId, server: PageServerId) {
        if self.server == Some(server) {
            self.reached.insert(tab);
        }
    }

    /// Whether it can.
    pub(crate) fn reaches(&self, tab: TabId) -> bool {
        self.ready && self.reached.contains(&tab)
    }

    /// Another page server is at hand.
    pub(crate) fn lent(&mut self, server: PageServerId, out: &mut Outbox) {
        self.gone();
        self.server = Some(server);
        self.failure = None;
        out.ask_store(StoreRequest::Hello { epoch: Epoch(self.epoch.0 + 1) });
    }

    pub(crate) fn gone(&mut self) {
        self.server = None;
        self.ready = false;
        self.reached.clear();
    }

    pub(crate) fn failed(&mut self, failure: PageServerFailure) {
        self.gone();
        self.failure = Some(failure);
    }

    /// The page server has let us in: everything that is not durable is handed over again.
    pub(crate) fn granted(&mut self, epoch: Epoch, out: &mut Outbox) {
        self.epoch = epoch;
        self.ready = true;
        for (_, request) in &self.pending {
            out.ask_store(request.clone());
        }
    }

    pub(crate) fn append(&mut self, append: Append, out: &mut Outbox) -> Ticket {
        self.hand_over(out, |ticket| StoreRequest::Append { ticket, append })
    }

    pub(crate) fn destroy(&mut self, document: DocumentKey, out: &mut Outbox) -> Ticket {
        self.hand_over(out, |ticket| StoreRequest::Destroy { ticket, document })
    }

    /// A question, asked now if anybody is there. Whoever asks it asks again once a page server
    /// has let us in.
    pub(crate) fn ask(&self, request: StoreRequest, out: &mut Outbox) {
        if self.ready {
            out.ask_store(request);
        }
    }

    pub(crate) fn next_request(&mut self) -> u64 {
        self.last_request += 1;
        self.last_request
    }

    /// Everything up to `ticket` is durable.
    pub(crate) fn durable(&mut self, ticket: Ticket) {
        while self.pending.front().is_some_and(|(pending, _)| *pending <= ticket) {
            self.pending.pop_front();
        }
    }

    /// Gives up what is pending of one document, from `ticket` on.
    pub(crate) fn give_up(&mut self, document: &DocumentKey, from: Ticket) {
        self.pending.retain(|(ticket, request)| {
            *ticket < from
                || !matches!(request, StoreRequest::Append { append, .. }
                             if append.document == *document)
        });
    }

    fn hand_over(
        &mut self,
        out: &mut Outbox,
        request: impl FnOnce(Ticket) -> StoreRequest,
    ) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        let request = request(ticket);
        if self.ready {
            out.ask_store(request.clone());
        }
        self.pending.push_back((ticket, request));
        ticket
    }
}
