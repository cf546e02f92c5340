//! The whole browser side as one state machine.

use tidelog_document::DoctypeHash;
use tidelog_pages::{AppendError, StoreReply};
use tidelog_types::limits::POOL_PAGES_MAX;
use tidelog_types::{ClientId, DocumentKey, ErrorCode, SortedMap};

use crate::document::{Context, Document, Op, OpKind, OpenCall, Surroundings};
use crate::effect::{Effect, Input, PageServerFailure, SocketId, TabId};
use crate::outbox::Outbox;
use crate::protocol::{Call, CallFailure, FromCore, Handle, ToCore};
use crate::rng::Rng;
use crate::server_link::{Heard, ServerLink, Stage};
use crate::store_link::StoreLink;

/// The core: everything that tabs, page server and servers say goes in, what is to be done comes
/// out. The same inputs at the same times give the same effects.
pub struct Client {
    settings: ClientSettings,
    id: ClientId,
    rng: Rng,
    now_ms: u64,
    tabs: SortedMap<TabId, SortedMap<Handle, DocumentKey>>,
    documents: SortedMap<DocumentKey, Document>,
    store: StoreLink,
    servers: SortedMap<String, ServerLink>,
    checked: Vec<DoctypeHash>,
    destroying: Vec<Destroy>,
    last_socket: u32,
    device: (bool, u64, u64),
}

/// What a host may choose.
#[derive(Clone, Copy, Debug)]
pub struct ClientSettings {
    /// Pages of each document that stay in memory when nothing pins more.
    pub pool_pages_max: usize,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self { pool_pages_max: POOL_PAGES_MAX }
    }
}

/// A local copy that somebody wants gone.
struct Destroy {
    tab: TabId,
    call: Call,
    key: DocumentKey,
    force: bool,
    /// Once the store was told.
    ticket: Option<tidelog_pages::Ticket>,
}

impl Client {
    /// A core that knows nothing yet. All its randomness comes from `seed`.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self::with_settings(seed, ClientSettings::default())
    }

    /// A core with other settings than the usual ones.
    #[must_use]
    pub fn with_settings(seed: [u8; 32], settings: ClientSettings) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            settings,
            id: rng.client(),
            rng,
            now_ms: 0,
            tabs: SortedMap::new(),
            documents: SortedMap::new(),
            store: StoreLink::default(),
            servers: SortedMap::new(),
            checked: Vec::new(),
            destroying: Vec::new(),
            last_socket: 0,
            device: (false, 0, 0),
        }
    }

    /// Takes what happened, at `now_ms` (milliseconds since the epoch, never going back), and says
    /// what is to be done, in this order.
    pub fn step(&mut self, now_ms: u64, input: Input) -> Vec<Effect> {
        self.now_ms = self.now_ms.max(now_ms);
        let mut out = Outbox::default();
        self.take(input, &mut out);
        self.pump(&mut out);
        self.run_destroys(&mut out);
        self.run_servers(&mut out);
        self.tell_status(&mut out);
        out.into_effects(self.store.server())
    }

    /// Whether the data were cleared under this core: it can keep nothing more, and another one
    /// would begin anew.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.store.is_lost()
    }

    fn take(&mut self, input: Input, out: &mut Outbox) {
        match input {
            Input::FromTab { tab, messages } => {
                for message in messages {
                    self.hear_tab(tab, message, out);
                }
            }
            Input::TabClosed { tab } => {
                self.tabs.remove(&tab);
                self.destroying.retain(|destroy| destroy.tab != tab);
                self.with_each(out, |document, ctx| document.drop_tab(tab, ctx));
            }
            Input::PageServerLent { server, settled_at_ms, storage } => {
                self.store.settled_at_ms = settled_at_ms;
                self.store.lent(server, storage, out);
            }
            Input::TabReached { tab, server } => self.store.reached(tab, server),
            Input::FromPageServer { server, replies } => {
                if self.store.server() == Some(server) {
                    for reply in replies {
                        self.hear_store(reply, out);
                    }
                }
            }
            Input::PageServerGone { server } => {
                if self.store.server() == Some(server) {
                    self.store.gone();
                }
            }
            Input::PageServerFailed { server, failure } => {
                if self.store.server().is_none_or(|current| current == server) {
                    self.store.failed(failure);
                    self.fail_opens(out);
                }
            }
            Input::SocketOpened { socket } => self.socket_opened(socket, out),
            Input::FromServer { socket, bytes } => self.hear_server(socket, &bytes, out),
            Input::SocketClosed { socket } => {
                if let Some(url) = self.url_of(socket) {
                    self.server_lost(&url, out);
                }
            }
            Input::Wake => {}
        }
    }

    /// The documents, and what they may use while they are worked on.
    fn split<'c>(
        &'c mut self,
        out: &'c mut Outbox,
    ) -> (&'c mut SortedMap<DocumentKey, Document>, Context<'c>) {
        let ctx = Context {
            now_ms: self.now_ms,
            settings: self.settings,
            rng: &mut self.rng,
            store: &mut self.store,
            out,
            checked: &mut self.checked,
        };
        (&mut self.documents, ctx)
    }

    fn with<T>(
        &mut self,
        key: &DocumentKey,
        out: &mut Outbox,
        work: impl FnOnce(&mut Document, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let (documents, mut ctx) = self.split(out);
        documents.get_mut(key).map(|document| work(document, &mut ctx))
    }

    fn with_each(
        &mut self,
        out: &mut Outbox,
        mut work: impl FnMut(&mut Document, &mut Context<'_>),
    ) {
        let (documents, mut ctx) = self.split(out);
        documents.values_mut().for_each(|document| work(document, &mut ctx));
    }

    // --- tabs ----------------------------------------------------------------------------------

    // A browser compiles a function when it is first called. So that the first step of a core does
    // not wait for all of it, parts that a start does not need are never put into others.
    #[inline(never)]
    fn hear_tab(&mut self, tab: TabId, message: ToCore, out: &mut Outbox) {
        match message {
            ToCore::Open { call, handle, document, user, server, doctype, has_token } => {
                let key = match DocumentKey::new(&document, &user) {
                    Ok(key) => key,
                    Err(error) => {
                        let failure = CallFailure::invalid(error.to_string());
                        return out.tell(tab, FromCore::Failed { call, failure });
                    }
                };
                if let Some(failure) = &self.store.failure {
                    let failure = CallFailure::of_page_server(failure);
                    return out.tell(tab, FromCore::Failed { call, failure });
                }
                let handles = self.tabs.get_or_insert_with(tab, SortedMap::new);
                handles.insert(handle, key.clone());
                let hash = doctype.hash();
                let open = OpenCall { handle, server, doctype, hash, has_token };
                self.ensure(&key, out);
                self.push(&key, Op { tab, call, kind: OpKind::Open(Box::new(open)) });
            }
            ToCore::Mutate { call, handle, id, name, args, now_ms, again } => {
                let kind = OpKind::Mutate { handle, id, name, args, now_ms, again };
                self.push_on(tab, handle, call, kind, out);
            }
            ToCore::Query { call, handle, sql, params } => {
                self.push_on(tab, handle, call, OpKind::Query { handle, sql, params }, out);
            }
            ToCore::Watch { call, handle, sql, params } => {
                self.push_on(tab, handle, call, OpKind::Watch { handle, sql, params }, out);
            }
            ToCore::Unwatch { call } => {
                for document in self.documents.values_mut() {
                    document.unwatch(tab, call);
                }
            }
            ToCore::Sync { call, handle } => {
                self.push_on(tab, handle, call, OpKind::Sync { handle }, out);
            }
            ToCore::Export { call, handle } => {
                self.push_on(tab, handle, call, OpKind::Export { handle }, out);
            }
            ToCore::Close { call, handle } => {
                self.push_on(tab, handle, call, OpKind::Close { handle }, out);
            }
            ToCore::Destroy { call, document, user, force } => {
                match DocumentKey::new(&document, &user) {
                    Ok(key) => {
                        self.ensure(&key, out);
                        self.destroying.push(Destroy { tab, call, key, force, ticket: None });
                    }
                    Err(error) => {
                        let failure = CallFailure::invalid(error.to_string());
                        out.tell(tab, FromCore::Failed { call, failure });
                    }
                }
            }
            ToCore::SetConnected { handle, connected } => {
                let Some(key) = self.key_of(tab, handle) else { return };
                self.with(&key, out, |document, ctx| document.set_connected(connected, ctx));
                if connected {
                    self.servers.values_mut().for_each(ServerLink::try_now);
                }
            }
            ToCore::ListenRejections { handle } => {
                let Some(key) = self.key_of(tab, handle) else { return };
                self.with(&key, out, |document, ctx| document.listen(tab, handle, ctx.out));
            }
            ToCore::RejectionHandled { handle, lsn } => {
                let Some(key) = self.key_of(tab, handle) else { return };
                self.with(&key, out, |document, _| document.rejection_handled(lsn));
            }
            ToCore::Token { handle, token } => {
                let Some(key) = self.key_of(tab, handle) else { return };
                let url = self.documents.get(&key).and_then(Document::wanted_server);
                let Some(url) = url.map(str::to_owned) else { return };
                if let Some(link) = self.servers.get_mut(&url)
                    && link.stage == Stage::WantsToken
                {
                    link.hello(token, out);
                }
            }
            ToCore::Device { persisted, usage, quota } => self.device = (persisted, usage, quota),
        }
    }

    fn key_of(&self, tab: TabId, handle: Handle) -> Option<DocumentKey> {
        self.tabs.get(&tab)?.get(&handle).cloned()
    }

    fn ensure(&mut self, key: &DocumentKey, out: &mut Outbox) {
        let (documents, mut ctx) = self.split(out);
        documents.get_or_insert_with(key.clone(), || Document::new(key.clone(), &mut ctx));
    }

    fn push(&mut self, key: &DocumentKey, op: Op) {
        let document = self.documents.get_mut(key).expect("BUG: not made sure of");
        document.push(op);
    }

    fn push_on(&mut self, tab: TabId, handle: Handle, call: Call, kind: OpKind, out: &mut Outbox) {
        let op = Op { tab, call, kind };
        match self.key_of(tab, handle).and_then(|key| self.documents.get_mut(&key)) {
            Some(document) => document.push(op),
            None => op.fail(CallFailure::closed(), out),
        }
    }

    /// No page server can start: what waits for one is told why.
    fn fail_opens(&mut self, out: &mut Outbox) {
        let Some(failure) = self.store.failure.as_ref().map(CallFailure::of_page_server) else {
            return;
        };
        for document in self.documents.values_mut() {
            if !document.is_loaded() {
                document.fail_all(&failure, out);
            }
        }
    }

    // --- page server ---------------------------------------------------------------------------

    #[inline(never)]
    fn hear_store(&mut self, reply: StoreReply, out: &mut Outbox) {
        match reply {
            StoreReply::Ready { epoch } => {
                if self.store.granted(epoch, out) {
                    self.with_each(out, Document::store_ready);
                } else {
                    self.fail_opens(out);
                }
            }
            StoreReply::Opened { document, state } => {
                let state = state.map(|state| *state);
                self.with(&document, out, |document, _| document.opened(state));
            }
            StoreReply::Durable { ticket } => {
                self.store.durable(ticket);
                self.with_each(out, |document, ctx| {
                    document.store_durable(ticket, ctx);
                    document.storage_works();
                });
                self.destroyed(ticket, out);
            }
            StoreReply::AppendFailed { ticket, error } => {
                self.with_each(out, |document, ctx| document.append_failed(ticket, &error, ctx));
                self.destroy_failed(ticket, &error, out);
            }
            StoreReply::Pages { request, document, pages, last } => {
                self.with(&document, out, |document, _| document.pages(request, pages, last));
                if last && self.store.take_refused() {
                    self.with_each(out, Document::ask_again);
                }
            }
            StoreReply::Busy { request, document } => {
                self.store.refused();
                self.with(&document, out, |document, _| document.read_refused(request));
            }
            StoreReply::Broken { error } => {
                self.store.failed(match error {
                    AppendError::Full => PageServerFailure::Full,
                    other => PageServerFailure::Damaged { reason: other.to_string() },
                });
                self.fail_opens(out);
            }
            StoreReply::SyncPart { .. }
            | StoreReply::Unrelated { .. }
            | StoreReply::Entries { .. }
            | StoreReply::Frames { .. }
            | StoreReply::Trimmed { .. }
            | StoreReply::Documents { .. } => {}
        }
    }

    #[inline(never)]
    fn run_destroys(&mut self, out: &mut Outbox) {
        for destroy in &mut self.destroying {
            if destroy.ticket.is_some() {
                continue;
            }
            let Some(document) = self.documents.get(&destroy.key) else { continue };
            if !document.is_loaded() {
                continue;
            }
            let (pending, held) = (document.pending(), !document.handles.is_empty());
            let refusal = if pending > 0 && !destroy.force {
                Some(CallFailure::pending(&destroy.key.document, pending))
            } else if held {
                Some(CallFailure::new(
                    ErrorCode::InvalidOption,
                    "the document is open: close it in every tab before it is destroyed",
                ))
            } else {
                None
            };
            match refusal {
                Some(failure) => {
                    out.tell(destroy.tab, FromCore::Failed { call: destroy.call, failure });
                    // Marks it as dealt with; removed below.
                    destroy.ticket = Some(tidelog_pages::Ticket(0));
                }
                None => {
                    destroy.ticket = Some(self.store.destroy(destroy.key.clone(), out));
                    self.documents.remove(&destroy.key);
                }
            }
        }
        self.destroying.retain(|destroy| destroy.ticket != Some(tidelog_pages::Ticket(0)));
    }

    fn destroyed(&mut self, durable: tidelog_pages::Ticket, out: &mut Outbox) {
        self.destroying.retain(|destroy| {
            let done = destroy.ticket.is_some_and(|ticket| ticket <= durable);
            if done {
                out.tell(destroy.tab, FromCore::Done { call: destroy.call });
            }
            !done
        });
    }

    fn destroy_failed(
        &mut self,
        ticket: tidelog_pages::Ticket,
        error: &AppendError,
        out: &mut Outbox,
    ) {
        self.store.give_up_destroy(ticket);
        self.destroying.retain(|destroy| {
            let failed = destroy.ticket == Some(ticket);
            if failed {
                let failure = CallFailure::of_append(error);
                out.tell(destroy.tab, FromCore::Failed { call: destroy.call, failure });
            }
            !failed
        });
    }

    // --- servers -------------------------------------------------------------------------------

    fn url_of(&self, socket: SocketId) -> Option<String> {
        let found = self.servers.iter().find(|(_, link)| link.is_socket(socket));
        found.map(|(url, _)| url.clone())
    }

    fn socket_opened(&mut self, socket: SocketId, out: &mut Outbox) {
        let Some(url) = self.url_of(socket) else { return };
        let holder = self
            .documents
            .values()
            .filter(|document| document.wanted_server() == Some(&url))
            .find_map(Document::token_holder);
        let link = self.servers.get_mut(&url).expect("BUG: found just now");
        link.opened(self.now_ms, holder.is_some(), out);
        if let Some((tab, handle)) = holder {
            out.tell(tab, FromCore::TokenWanted { handle });
        }
    }

    #[inline(never)]
    fn hear_server(&mut self, socket: SocketId, bytes: &[u8], out: &mut Outbox) {
        let Some(url) = self.url_of(socket) else { return };
        let link = self.servers.get_mut(&url).expect("BUG: found just now");
        match link.hear(self.now_ms, bytes) {
            Heard::About(key, channel, message) => {
                self.with(&key, out, |document, ctx| document.on_server(channel, message, ctx));
            }
            Heard::Broken => self.server_lost(&url, out),
            Heard::Welcome => self.with_each(out, |document, _| document.server_came(&url)),
            Heard::Nothing => {}
        }
    }

    #[inline(never)]
    fn server_lost(&mut self, url: &str, out: &mut Outbox) {
        let link = self.servers.get_mut(url).expect("BUG: lost a server that never was");
        let followers = link.followers();
        link.lost(self.now_ms, &mut self.rng, out);
        let failure = link.failure.clone().filter(|_| link.barred);
        self.channels_lost(&followers, out);
        if let Some(failure) = &failure {
            self.tell_barred(url, failure, out);
        }
        // Who was told may go on at once.
        out.wake_at(self.now_ms);
    }

    /// Also those that nobody has open: they may be opened before they are forgotten.
    fn channels_lost(&mut self, followers: &[DocumentKey], out: &mut Outbox) {
        for key in followers {
            self.with(key, out, |document, _| document.server_lost());
        }
    }

    /// Tells who waits for a server that trying again cannot help.
    fn tell_barred(&mut self, url: &str, failure: &CallFailure, out: &mut Outbox) {
        self.with_each(out, |document, ctx| {
            if document.wanted_server() == Some(url) {
                document.server_barred(failure, ctx);
            }
        });
    }

    #[inline(never)]
    fn run_servers(&mut self, out: &mut Outbox) {
        let wanted = self.documents.values().filter_map(Document::wanted_server);
        let wanted: Vec<String> = wanted.map(str::to_owned).collect();
        for url in &wanted {
            let client = self.id;
            let new = || ServerLink::new(url.clone(), client);
            self.servers.get_or_insert_with(url.clone(), new);
        }
        let urls: Vec<String> = self.servers.keys().cloned().collect();
        for url in urls {
            let link = self.servers.get_mut(&url).expect("BUG: listed just now");
            let in_use = wanted.contains(&url);
            let followers = if in_use { Vec::new() } else { link.followers() };
            if link.tick(self.now_ms, in_use, &mut self.last_socket, out) {
                if in_use {
                    self.server_lost(&url, out);
                } else {
                    self.servers.remove(&url);
                    self.channels_lost(&followers, out);
                }
                continue;
            }
            let link = &self.servers[&url];
            if link.stage == Stage::Welcomed {
                self.open_channels(&url, out);
            } else if let Some(failure) = link.failure.clone().filter(|_| link.barred) {
                // Also who began to wait only now.
                self.tell_barred(&url, &failure, out);
            }
        }
        for (url, message) in std::mem::take(&mut out.to_servers) {
            if let Some(link) = self.servers.get_mut(&url) {
                link.send(&message, out);
                if let tidelog_sync::ToServer::Close { channel } = message {
                    link.close_channel(channel);
                }
            }
        }
    }

    fn open_channels(&mut self, url: &str, out: &mut Outbox) {
        let now_ms = self.now_ms;
        let ready = |document: &Document| {
            document.wanted_server() == Some(url) && document.wants_channel(now_ms)
        };
        let keys: Vec<_> =
            self.documents.iter().filter(|(_, d)| ready(d)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            let link = self.servers.get_mut(url).expect("BUG: no such server");
            let channel = link.open_channel(key.clone());
            self.with(&key, out, |document, ctx| document.open_channel(channel, ctx));
        }
    }

    // --- the end of a step ---------------------------------------------------------------------

    fn pump(&mut self, out: &mut Outbox) {
        self.with_each(out, Document::pump);
        let destroying = &self.destroying;
        let servers = &mut self.servers;
        self.documents.retain(|key, document| {
            let wanted = destroying.iter().any(|destroy| destroy.key == *key);
            let keep = wanted || !document.is_idle() || !document.is_loaded();
            if !keep && let Some(channel) = document.channel() {
                for link in servers.values_mut() {
                    link.send(&tidelog_sync::ToServer::Close { channel }, out);
                    link.close_channel(channel);
                }
            }
            keep
        });
    }

    fn tell_status(&mut self, out: &mut Outbox) {
        let (persisted, usage, quota) = self.device;
        for document in self.documents.values_mut() {
            let link = document.wanted_server().and_then(|url| self.servers.get(url));
            let around = Surroundings {
                now_ms: self.now_ms,
                link,
                store: &self.store,
                persisted,
                usage,
                quota,
            };
            document.tell_status(&around, out);
        }
    }
}
