//! The whole browser side as one state machine.

mod destroying;
mod documents;

use tidelog_document::FoundRight;
use tidelog_pages::StoreReply;
use tidelog_sync::{FromRoom, Refusal, ToRoom, ToServer};
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{ClientId, DocumentKey, Life, SortedMap};

use self::destroying::{Destroy, Wish};
use self::documents::Documents;
use crate::at_work::AtWork;
use crate::document::{Ask, Context, Document, Surroundings};
use crate::effect::{Effect, Input, PageServerFailure, SocketId, TabId};
use crate::outbox::Outbox;
use crate::protocol::{CallFailure, Handle, Request, ToCore};
use crate::rng::Rng;
use crate::server_link::{Heard, LinkName, Need, ServerLink, Stage};
use crate::settings::ClientSettings;
use crate::store_link::StoreLink;
use crate::tab_flow::TabFlow;
use crate::token_turns::{Questions, TokenHolder};

/// The core: everything that tabs, page server and servers say goes in, what is to be done comes
/// out. The same inputs at the same times give the same effects.
pub struct Client {
    settings: ClientSettings,
    id: ClientId,
    rng: Rng,
    /// What this core writes, it writes as this life.
    life: Life,
    now_ms: u64,
    /// What each tab has open, or waits for.
    tabs: SortedMap<TabId, SortedMap<Handle, DocumentKey>>,
    documents: Documents,
    store: StoreLink,
    servers: SortedMap<LinkName, ServerLink>,
    found_right: FoundRight,
    destroying: Vec<Destroy>,
    last_socket: u32,
    /// By which tabs are asked for tokens.
    questions: Questions,
    device: (bool, u64, u64),
    flow: TabFlow,
    at_work: AtWork,
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
        Self::of_host(seed, settings, FoundRight::default())
    }

    /// One of the cores of a host, which looks at a doctype once for all of them.
    #[must_use]
    pub fn of_host(seed: [u8; 32], settings: ClientSettings, found_right: FoundRight) -> Self {
        let mut rng = Rng::new(seed);
        let (id, life) = (rng.client(), rng.life());
        Self {
            settings,
            id,
            life,
            rng,
            now_ms: 0,
            tabs: SortedMap::new(),
            documents: Documents::default(),
            store: StoreLink::default(),
            servers: SortedMap::new(),
            found_right,
            destroying: Vec::new(),
            last_socket: 0,
            questions: Questions::of(life),
            device: (false, 0, 0),
            flow: TabFlow::new(settings.limits.tab_unheard_size_max),
            at_work: AtWork::default(),
        }
    }

    /// Takes what happened, at `now_ms` (milliseconds since the epoch, never going back), and says
    /// what is to be done, in this order.
    pub fn step(&mut self, now_ms: u64, input: Input) -> Vec<Effect> {
        self.now_ms = self.now_ms.max(now_ms);
        let mut out = Outbox::new(std::mem::take(&mut self.flow));
        self.documents.wake_due(self.now_ms);
        self.take(input, &mut out);
        self.see_what_is_shared();
        self.pump(&mut out);
        self.give_back_pages();
        self.run_destroys(&mut out);
        self.forget_idle();
        // Behind all that documents have to say to their servers.
        self.with_awake(&mut out, Document::see_who_is_present);
        self.run_servers(&mut out);
        self.see_what_is_shared();
        self.tell_status(&mut out);
        self.forget_ended(&mut out);
        self.documents.rest().into_iter().for_each(|at_ms| out.wake_at(at_ms));
        self.flow = out.take_flow();
        out.into_effects(self.store.server(), &self.settings.limits)
    }

    /// How many documents the next step looks at, whatever it is about; for tests.
    #[must_use]
    pub fn awake_count(&self) -> usize {
        self.documents.awake_count()
    }

    /// Has the next step look at all documents, also at those that rest; for simulations, in which
    /// none of those does anything then.
    pub fn wake_all(&mut self) {
        self.documents.wake_all();
    }

    /// What is wrong with what a document shows, as far as that can be seen, or for whom it works
    /// in vain; for simulations. See [`Replica::doubt`](tidelog_document::Replica::doubt).
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        let limits = &self.settings.limits;
        let of_document = |document: &Document| {
            let gone = document.tabs().find(|tab| !self.flow.knows(*tab));
            let kept = gone.map(|tab| format!("something is kept for {tab:?}, which is gone"));
            kept.or_else(|| document.doubt(limits))
        };
        let of_documents = self.documents.iter().find_map(|(key, document)| {
            of_document(document).map(|what| format!("{}: {what}", key.document))
        });
        let misnamed = || {
            let key = self.documents.keys().find(|key| !self.at_work.names(key))?;
            Some(format!("work on {key} is taken for work on another document"))
        };
        let of_servers = || self.servers.values().find_map(ServerLink::doubt);
        let of_sums = || self.documents.doubt();
        self.flow.doubt().or(of_documents).or_else(of_servers).or_else(misnamed).or_else(of_sums)
    }

    /// How many pages of documents are in memory that can be read again, about.
    #[must_use]
    pub fn pool_pages(&self) -> usize {
        self.documents.pool_pages()
    }

    /// Whether the data were cleared under this core: it can keep nothing more, and another one
    /// would begin anew.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.store.is_lost()
    }

    /// What names the document that this core is at work on.
    #[must_use]
    pub fn at_work(&self) -> AtWork {
        self.at_work.clone()
    }

    fn take(&mut self, input: Input, out: &mut Outbox) {
        match input {
            Input::FromTab { tab, messages } => {
                out.flow.meet(tab);
                for message in messages {
                    self.hear_tab(tab, message, out);
                }
            }
            Input::TabClosed { tab } => {
                self.tabs.remove(&tab);
                out.flow.forget(tab);
                self.destroying.retain(|destroy| destroy.tab != tab);
                self.servers.values_mut().for_each(|link| link.drop_tab(tab));
                self.with_each(out, |document, ctx| document.drop_tab(tab, ctx));
            }
            Input::PageServerLent { server, settled_at_ms, storage } => {
                self.store.settled_at_ms = settled_at_ms;
                self.store.lent(server, storage, self.life, out);
            }
            Input::TabReached { tab, server } => self.store.reached(tab, server),
            Input::FromPageServer { server, replies } => {
                for reply in replies {
                    // It may say in between that it is broken.
                    if self.store.server() == Some(server) {
                        self.hear_store(reply, out);
                    }
                }
            }
            Input::PageServerGone { server } => {
                if self.store.server() == Some(server) {
                    self.store.gone(self.now_ms);
                }
            }
            Input::PageServerFailed { server, failure } => {
                if self.store.server().is_none_or(|current| current == server) {
                    self.store_failed(failure, out);
                }
            }
            Input::SocketOpened { socket } => self.socket_opened(socket, out),
            Input::FromServer { socket, bytes } => self.hear_server(socket, &bytes, out),
            Input::SocketClosed { socket } => {
                if let Some(name) = self.link_of(socket) {
                    self.server_lost(&name, out);
                }
            }
            Input::Wake => {}
        }
    }

    /// The documents, and what they may use while they are worked on.
    fn split<'c>(&'c mut self, out: &'c mut Outbox) -> (&'c mut Documents, Context<'c>) {
        let ctx = Context {
            now_ms: self.now_ms,
            settings: self.settings,
            rng: &mut self.rng,
            life: self.life,
            store: &mut self.store,
            servers: &self.servers,
            out,
            found_right: &self.found_right,
        };
        (&mut self.documents, ctx)
    }

    /// Works on a document, to which something happens.
    fn with<T>(
        &mut self,
        key: &DocumentKey,
        out: &mut Outbox,
        work: impl FnOnce(&mut Document, &mut Context<'_>) -> T,
    ) -> Option<T> {
        self.documents.touch(key)?;
        self.on(key, out, work)
    }

    fn on<T>(
        &mut self,
        key: &DocumentKey,
        out: &mut Outbox,
        work: impl FnOnce(&mut Document, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let at_work = self.at_work();
        let (documents, mut ctx) = self.split(out);
        at_work.on(key, || documents.work_on(key, &mut ctx, work))
    }

    fn with_each(&mut self, out: &mut Outbox, work: impl FnMut(&mut Document, &mut Context<'_>)) {
        self.documents.wake_all();
        self.with_awake(out, work);
    }

    /// Works on those that do not rest.
    fn with_awake(
        &mut self,
        out: &mut Outbox,
        mut work: impl FnMut(&mut Document, &mut Context<'_>),
    ) {
        for key in self.documents.awake() {
            self.on(&key, out, &mut work);
        }
    }

    // --- tabs ----------------------------------------------------------------------------------

    // A browser compiles a function when it is first called. So that the first step of a core does
    // not wait for all of it, parts that a start does not need are never put into others.
    #[inline(never)]
    fn hear_tab(&mut self, tab: TabId, message: ToCore, out: &mut Outbox) {
        match message {
            ToCore::Ask { call, handle, request } => {
                self.take_ask(Ask { tab, call, handle, request }, out);
            }
            ToCore::GiveUp { call } => {
                self.give_up_destroy(tab, call);
                let asked = self.documents.iter().filter(|(_, it)| it.is_asked_by(tab, call));
                let asked: Vec<_> = asked.map(|(key, _)| key.clone()).collect();
                for key in asked {
                    self.with(&key, out, |document, _| document.give_up(tab, call));
                }
            }
            ToCore::Destroy { call, document, user, force, everywhere } => {
                let wish = Wish { tab, call, force, everywhere };
                self.take_destroy(wish, document.as_deref(), &user, out);
            }
            ToCore::SetConnected { handle, word } => {
                let Some(key) = self.key_of(tab, handle) else { return };
                self.with(&key, out, |document, _| document.set_connected(word));
                if word.is_multiple_of(2) {
                    self.servers.values_mut().for_each(|link| link.try_now(tab));
                }
            }
            ToCore::ListenRejections { handle } => {
                let Some(key) = self.key_of(tab, handle) else { return };
                self.with(&key, out, |document, ctx| document.listen(tab, handle, ctx.out));
            }
            ToCore::RejectionHandled { handle, id } => {
                let Some(key) = self.key_of(tab, handle) else { return };
                self.with(&key, out, |document, ctx| {
                    document.rejection_handled(id, &ctx.settings.limits);
                });
            }
            ToCore::Token { question, token } => {
                // Another core may have asked that, or this one so long ago that nobody wants it.
                let has_asked = |link: &ServerLink| link.has_asked(tab, question);
                let asked = self.servers.iter_mut().find(|(_, link)| has_asked(link));
                let Some((name, link)) = asked else { return };
                if link.answered_with(question, token, self.now_ms, out) {
                    link.lacks_token();
                    let name = name.clone();
                    self.server_lost(&name, out);
                }
            }
            ToCore::Device { persisted, usage, quota } => {
                self.device = (persisted, usage, quota);
                self.documents.wake_all();
            }
            ToCore::Presence { handle, state } => {
                let Some(key) = self.key_of(tab, handle) else { return };
                self.with(&key, out, |document, _| {
                    document.set_presence(tab, handle, state.as_deref());
                });
            }
            ToCore::Nudge => self.servers.values_mut().for_each(ServerLink::nudge),
            ToCore::Heard { lists } => {
                let was_behind = out.flow.is_behind(tab);
                out.flow.heard(tab, lists);
                // What was held back from it, it is told now.
                if was_behind && !out.flow.is_behind(tab) {
                    self.documents.wake_all();
                }
            }
        }
    }

    fn key_of(&self, tab: TabId, handle: Handle) -> Option<DocumentKey> {
        self.tabs.get(&tab)?.get(&handle).cloned()
    }

    /// What is closed, or could not be opened, is said nothing of any more.
    fn forget_ended(&mut self, out: &mut Outbox) {
        for (tab, handle) in std::mem::take(&mut out.ended) {
            let Some(key) = self.key_of(tab, handle) else { continue };
            let document = self.documents.get(&key);
            if !document.is_some_and(|document| document.knows(tab, handle))
                && let Some(handles) = self.tabs.get_mut(&tab)
            {
                handles.remove(&handle);
            }
        }
    }

    fn ensure(&mut self, key: &DocumentKey, out: &mut Outbox) {
        let (documents, mut ctx) = self.split(out);
        documents.insert_if_new(key, || Document::new(key.clone(), &mut ctx));
    }

    fn take_ask(&mut self, ask: Ask, out: &mut Outbox) {
        if let Request::Open(request) = &ask.request {
            let key = match DocumentKey::new(&request.document, &request.user) {
                Ok(key) => key,
                Err(error) => return ask.fail(CallFailure::invalid(error.to_string()), out),
            };
            if let Some(failure) = &self.store.failure {
                return ask.fail(CallFailure::of_page_server(failure), out);
            }
            let handles = self.tabs.get_or_insert_with(ask.tab, SortedMap::new);
            handles.insert(ask.handle, key.clone());
            self.ensure(&key, out);
            let word = request.word;
            self.with(&key, out, |document, _| document.recall_word(word));
        }
        let key = self.key_of(ask.tab, ask.handle);
        let Some(document) = key.and_then(|key| self.documents.touch(&key)) else {
            return ask.fail(CallFailure::closed(), out);
        };
        document.push(ask);
        if let Some(failure) = self.store.why_unserved().filter(|_| !document.is_loaded()) {
            document.fail_all(&CallFailure::of_page_server(failure), out);
        }
    }

    fn store_failed(&mut self, failure: PageServerFailure, out: &mut Outbox) {
        let was_lost = self.store.is_lost();
        self.store.failed(failure, self.now_ms);
        self.fail_opens(out);
        // Said once: what was on its way then may be older by now than what came since.
        if self.store.is_lost() && !was_lost {
            self.with_each(out, Document::store_is_lost);
        }
    }

    /// No page server can start: what waits for one is told why.
    fn fail_opens(&mut self, out: &mut Outbox) {
        let Some(failure) = self.store.failure.as_ref().map(CallFailure::of_page_server) else {
            return;
        };
        self.with_each(out, |document, ctx| {
            if !document.is_loaded() {
                document.fail_all(&failure, ctx.out);
            }
        });
        self.fail_destroys(&failure, out);
    }

    // --- page server ---------------------------------------------------------------------------

    #[inline(never)]
    fn hear_store(&mut self, reply: StoreReply, out: &mut Outbox) {
        let has_room = reply.ends_a_read();
        match reply {
            StoreReply::Ready { epoch } => {
                if self.store.granted(epoch, out) {
                    self.with_each(out, Document::store_ready);
                    self.list_anew();
                } else {
                    self.fail_opens(out);
                }
            }
            StoreReply::Opened { document, state, .. } => {
                let state = state.map(|state| *state);
                self.with(&document, out, |document, ctx| document.opened(state, ctx));
            }
            StoreReply::Durable { ticket } => {
                let gone = self.store.durable(ticket);
                self.with_awake(out, |document, ctx| {
                    document.store_durable(ticket, ctx);
                    document.storage_works();
                });
                self.destroyed(ticket, out);
                self.names_are_decided(gone, out);
            }
            StoreReply::AppendFailed { ticket, error } => {
                self.with_awake(out, |document, ctx| document.append_failed(ticket, &error, ctx));
                self.destroy_failed(ticket, &error, out);
            }
            StoreReply::Pages { request, document, pages, last } => {
                self.with(&document, out, |document, _| document.pages(request, pages, last));
            }
            StoreReply::Damaged { request, document, pgids } => {
                self.with(&document, out, |document, ctx| document.damaged(request, &pgids, ctx));
            }
            StoreReply::Documents { request, documents } => self.listed(request, documents),
            StoreReply::Busy { request, document } => {
                self.store.refused();
                self.with(&document, out, |document, _| document.read_refused(request));
            }
            StoreReply::Broken { error } => {
                let failure = PageServerFailure::new(error.why_unserved(), error.to_string());
                self.store_failed(failure, out);
            }
            StoreReply::SyncPart { .. }
            | StoreReply::Unrelated { .. }
            | StoreReply::Entries { .. }
            | StoreReply::Frames { .. }
            | StoreReply::Trimmed { .. } => {}
        }
        if has_room && self.store.take_refused() {
            self.with_awake(out, Document::ask_again);
        }
    }

    // --- servers -------------------------------------------------------------------------------

    fn link_of(&self, socket: SocketId) -> Option<LinkName> {
        let found = self.servers.iter().find(|(_, link)| link.is_socket(socket));
        found.map(|(name, _)| name.clone())
    }

    fn socket_opened(&mut self, socket: SocketId, out: &mut Outbox) {
        let Some(name) = self.link_of(socket) else { return };
        let holders = self.token_holders(&name);
        let link = self.servers.get_mut(&name).expect("BUG: found just now");
        link.opened(self.now_ms, &holders, &mut self.questions, out);
    }

    /// The tabs that can be asked for a token on this way.
    fn token_holders(&self, name: &LinkName) -> Vec<TokenHolder> {
        let at_server = self.documents.iter().filter(|(_, document)| document.wants(name));
        let of = |(_, it): (_, &Document)| it.token_holders(&name.url);
        let mut holders: Vec<_> = at_server.flat_map(of).collect();
        holders.sort_unstable();
        holders
    }

    #[inline(never)]
    fn hear_server(&mut self, socket: SocketId, bytes: &[u8], out: &mut Outbox) {
        let Some(name) = self.link_of(socket) else { return };
        let link = self.servers.get_mut(&name).expect("BUG: found just now");
        match link.hear(self.now_ms, bytes) {
            Heard::About(key, channel, message) => {
                if let FromRoom::Refused(Refusal::Access { .. }) = *message {
                    link.was_refused_access(self.now_ms);
                }
                self.with(&key, out, |document, ctx| {
                    document.on_server(&name.url, channel, *message, ctx)
                });
            }
            Heard::Broken => self.server_lost(&name, out),
            Heard::Welcome => self.with_each(out, |document, _| document.server_came(&name)),
            Heard::Nothing => {}
        }
    }

    #[inline(never)]
    fn server_lost(&mut self, name: &LinkName, out: &mut Outbox) {
        let link = self.servers.get_mut(name).expect("BUG: lost a server that never was");
        let followers = link.followers();
        link.lost(self.now_ms, &mut self.rng, out);
        let failure = link.failure.clone().filter(|_| link.barred);
        self.channels_lost(&name.url, &followers, out);
        if let Some(failure) = &failure {
            self.tell_barred(name, failure, out);
        }
        // Who was told may go on at once.
        out.wake_at(self.now_ms);
    }

    /// Also those that nobody has open: they may be opened before they are forgotten.
    fn channels_lost(&mut self, url: &str, followers: &[DocumentKey], out: &mut Outbox) {
        for key in followers {
            self.with(key, out, |document, ctx| document.server_lost(url, ctx.now_ms));
        }
    }

    /// Tells who waits for a server that trying again cannot help. Where a token was refused it may
    /// help whoever has another one, which is asked for at once.
    fn tell_barred(&mut self, name: &LinkName, failure: &CallFailure, out: &mut Outbox) {
        let mut has_another = false;
        // Whoever waits is awake.
        for key in self.documents.awake() {
            let document = &self.documents[&key];
            if !document.wants(name) || !document.waits_for_server() {
                continue;
            }
            let has_unasked = |link: &ServerLink| {
                link.is_token_refused() && link.has_unasked(&document.token_holders(&name.url))
            };
            if self.servers.get(name).is_some_and(has_unasked) {
                has_another = true;
            } else {
                self.with(&key, out, |document, ctx| document.server_barred(failure, ctx));
            }
        }
        if has_another && self.servers.get_mut(name).is_some_and(ServerLink::try_next_holder) {
            out.wake_at(self.now_ms);
        }
    }

    #[inline(never)]
    fn run_servers(&mut self, out: &mut Outbox) {
        for name in self.documents.links() {
            let client = self.id;
            let new = || ServerLink::new(name.url.clone(), client);
            self.servers.get_or_insert_with(name.clone(), new);
        }
        let names: Vec<LinkName> = self.servers.keys().cloned().collect();
        for name in names {
            if self.servers[&name].rests_after_refusal() {
                let holders = self.token_holders(&name);
                let link = self.servers.get_mut(&name).expect("BUG: listed just now");
                link.meet_holders(&holders);
            }
            if self.servers[&name].wants_renewal(self.now_ms) {
                let holders = self.token_holders(&name);
                let link = self.servers.get_mut(&name).expect("BUG: listed just now");
                link.renew(self.now_ms, &holders, &mut self.questions, out);
            }
            let need = self.documents.need_of(&name);
            let in_use = need != Need::None;
            if !in_use {
                // Whoever leaves has its last word heard.
                let words = out.to_servers.extract_if(.., |(to, _)| *to == name);
                let words: Vec<_> = words.map(|(_, word)| word).collect();
                words.into_iter().for_each(|word| self.say(&name, word, out));
            }
            let link = self.servers.get_mut(&name).expect("BUG: listed just now");
            let followers = if in_use { Vec::new() } else { link.followers() };
            if link.tick(self.now_ms, need, &mut self.last_socket, out) {
                if in_use {
                    self.server_lost(&name, out);
                } else {
                    self.servers.remove(&name);
                    self.channels_lost(&name.url, &followers, out);
                }
                continue;
            }
            let link = &self.servers[&name];
            if link.stage == Stage::Welcomed {
                self.open_channels(&name, out);
            } else if let Some(failure) = link.failure.clone().filter(|_| link.barred) {
                // Also who began to wait only now.
                self.tell_barred(&name, &failure, out);
            }
        }
        for (name, message) in std::mem::take(&mut out.to_servers) {
            self.say(&name, message, out);
        }
    }

    fn say(&mut self, to: &LinkName, message: ToServer, out: &mut Outbox) {
        let Some(link) = self.servers.get_mut(to) else { return };
        link.send(&message, out);
        if let ToServer::About { channel, body: ToRoom::Close } = message {
            link.close_channel(channel);
        }
    }

    fn open_channels(&mut self, name: &LinkName, out: &mut Outbox) {
        let (now_ms, store, limits) = (self.now_ms, &self.store, &self.settings.limits);
        let ready = |document: &Document| {
            document.wants(name) && document.wants_channel(now_ms, store, limits)
        };
        let mut keys = self.documents.awake();
        keys.retain(|key| ready(&self.documents[key]));
        for key in keys {
            let link = self.servers.get_mut(name).expect("BUG: no such server");
            if let Some(subject) = link.subject()
                && !self.documents[&key].is_of(Some(subject))
            {
                let subject = subject.to_owned();
                link.met_another_user(now_ms, out);
                self.with(&key, out, |document, ctx| document.refuse_subject(&subject, ctx));
                continue;
            }
            let channel = link.open_channel(key.clone());
            self.with(&key, out, |document, ctx| document.open_channel(&name.url, channel, ctx));
        }
    }

    // --- the end of a step ---------------------------------------------------------------------

    /// Whatever documents see of page server and servers they are looked at for, once it changes.
    fn see_what_is_shared(&mut self) {
        let mut looks_other = self.store.looks_other();
        self.servers.values_mut().for_each(|link| looks_other |= link.looks_other());
        if looks_other {
            self.documents.wake_all();
        }
    }

    fn pump(&mut self, out: &mut Outbox) {
        let is_over = self.store.is_over();
        for key in self.documents.awake() {
            self.on(&key, out, |document, ctx| {
                if is_over {
                    document.store_is_over(ctx.out);
                }
                document.pump(ctx);
            });
            self.documents.pumped(&key);
        }
        if self.store.is_lost() {
            self.with_awake(out, |document, ctx| document.fail_settling(ctx.out));
        }
    }

    /// Those that were asked least lately give back their pages, where all of them have too many.
    fn give_back_pages(&mut self) {
        // Nothing can be read again then.
        if self.store.is_over() {
            return;
        }
        let pages_max = self.settings.limits.pools_pages_max;
        if self.pool_pages() <= pages_max {
            return;
        }
        let of = |(key, document): (&DocumentKey, &Document)| (document.asked_at_ms, key.clone());
        let mut documents: Vec<_> = self.documents.iter().map(of).collect();
        documents.sort();
        documents.pop();
        for (_, key) in documents {
            if self.pool_pages() > pages_max {
                reached(Probe::DocumentRested);
                self.documents.give_back_pages(&key);
            }
        }
    }

    /// Forgets what was said of documents that nobody holds or wants any more, and the documents
    /// once all of them is on the disk.
    fn forget_idle(&mut self) {
        for key in self.documents.awake() {
            let is_wanted = self.destroying.iter().any(|destroy| destroy.is_about(&key));
            if !is_wanted && self.documents.let_go(&key) {
                self.documents.remove(&key);
            }
        }
    }

    fn tell_status(&mut self, out: &mut Outbox) {
        let (persisted, usage, quota) = self.device;
        self.with_awake(out, |document, ctx| {
            let link = document.wanted_link().and_then(|name| ctx.servers.get(&name));
            let around = Surroundings {
                now_ms: ctx.now_ms,
                link,
                store: ctx.store,
                persisted,
                usage,
                quota,
            };
            document.tell_status(&around, ctx.out);
        });
    }
}
