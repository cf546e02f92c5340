//! The document's way to its server.

use tidelog_document::{Doctype, Replica, ServerEntry};
use tidelog_sync::{EntryPart, FromServer, Intent, Refusal, Sender, ToServer, WireFrame, codec};
use tidelog_types::limits::MESSAGE_PAGES_MAX;
use tidelog_types::{ErrorCode, JournalId, Lsn, PageSet, Pgid, SortedMap};

use super::{Context, Document, Role, SyncWait};
use crate::effect::TabId;
use crate::protocol::{CallFailure, FromCore, Handle};

/// Milliseconds after which a server that refused the document for now is asked again.
const RETRY_MS: u64 = 1_000;
/// The same where asking again can only help once somebody has mended something.
const RETRY_FINAL_MS: u64 = 30_000;

/// Milliseconds in which a server says where a document stands; then it is asked anew.
const CHANNEL_MS: u64 = 10_000;

/// What a document knows of its server.
#[derive(Default)]
pub(crate) struct Following {
    /// The document's number on the connection, while there is one.
    channel: Option<u32>,
    /// When the server was asked on it.
    asked_at_ms: u64,
    /// Whether the server has said where it stands.
    opened: bool,
    /// An entry of which some parts have come.
    parts: Option<PageSet>,
    /// The app wants to stay away from the server.
    pub(super) away: bool,
    /// The server would not have this document, or it could not be kept: asked again no earlier
    /// than this.
    retry_at_ms: u64,
    /// That was what the server said.
    refused: bool,
    /// The document is synced elsewhere than it was.
    moved: bool,
    /// Entries that did not fit were asked for anew; twice in a row is an error.
    restarted: bool,
    next_probe: u32,
    /// A local document that is to become the server's.
    pub(super) offer: Option<Offer>,
    /// Why layers could not be built, until somebody was told.
    pub(super) rebase_failure: Option<CallFailure>,
}

/// A local document that is to become the server's.
pub(super) struct Offer {
    url: String,
    doctype: Doctype,
    /// The tab that can be asked for a token.
    token_from: Option<(TabId, Handle)>,
    deadline_ms: u64,
    seed_wanted: bool,
    failure: Option<CallFailure>,
}

impl Offer {
    pub(super) fn new(
        url: String,
        doctype: Doctype,
        token_from: Option<(TabId, Handle)>,
        deadline_ms: u64,
    ) -> Self {
        Self { url, doctype, token_from, deadline_ms, seed_wanted: false, failure: None }
    }

    /// Why it came to nothing, if it did.
    pub(super) fn outcome(&self, now_ms: u64) -> Option<CallFailure> {
        let late = now_ms >= self.deadline_ms;
        self.failure.clone().or_else(|| late.then(|| CallFailure::unreachable(&self.url)))
    }
}

impl Document {
    /// Which server the document wants to talk to now, if any.
    pub(crate) fn wanted_server(&self) -> Option<&str> {
        if let Some(offer) = &self.following.offer {
            return Some(&offer.url);
        }
        let wanted = matches!(self.role, Some(Role::Synced(_)))
            && !self.following.away
            && self.handles.values().any(|handle| handle.server.is_some());
        if wanted { self.record.as_ref()?.server.as_deref() } else { None }
    }

    /// A tab that can be asked for a token.
    pub(crate) fn token_holder(&self) -> Option<(TabId, Handle)> {
        let offering = self.following.offer.as_ref().and_then(|offer| offer.token_from);
        let open = || self.handles.iter().find(|(_, handle)| handle.has_token);
        offering.or_else(|| open().map(|(key, _)| *key))
    }

    /// Nobody waits any more for the document to become the server's.
    pub(super) fn give_up_offer(&mut self, ctx: &mut Context<'_>) {
        if self.following.offer.is_some() {
            self.leave_server(ctx);
            self.following.offer = None;
        }
    }

    /// Whether the server is to be told that we follow. What is offered to it is durable here.
    pub(crate) fn wants_channel(&self, now_ms: u64) -> bool {
        let ready = match (&self.role, &self.following.offer) {
            (Some(Role::Local(_)), Some(_)) => self.appended.is_empty(),
            (Some(Role::Synced(_)), _) => true,
            _ => false,
        };
        ready && self.following.channel.is_none() && now_ms >= self.following.retry_at_ms
    }

    /// The server is there: say what we hold.
    pub(crate) fn open_channel(&mut self, channel: u32, ctx: &mut Context<'_>) {
        let (doctypes, timeline, have, intent) = match (&self.role, &self.following.offer) {
            (Some(Role::Local(authority)), Some(offer)) => {
                let none = JournalId([0; 16]);
                (vec![&offer.doctype], none, Some(authority.position()), Intent::Offer)
            }
            (Some(Role::Synced(replica)), _) => {
                let record = self.record.as_ref().expect("BUG: synced without a record");
                // A frame may name any of them; each succeeds those before it.
                let mut doctypes = SortedMap::new();
                for doctype in &record.doctypes {
                    let hash = doctype.hash();
                    let place = (doctype.migrations.len(), hash == record.newest, hash);
                    doctypes.insert(place, doctype);
                }
                let doctypes = doctypes.into_iter().map(|(_, doctype)| doctype).collect();
                (doctypes, replica.timeline(), replica.sync_request(), Intent::Follow)
            }
            _ => return,
        };
        let messages: Vec<ToServer> = doctypes
            .into_iter()
            .map(|doctype| ToServer::Open {
                channel,
                document: self.key.document.clone(),
                doctype: codec::encode(doctype),
                timeline,
                have,
                intent,
            })
            .collect();
        self.following.channel = Some(channel);
        self.following.asked_at_ms = ctx.now_ms;
        self.following.opened = false;
        self.following.parts = None;
        for message in messages {
            self.say(message, ctx);
        }
    }

    /// Asks anew on a channel of which nothing was heard.
    pub(super) fn give_up_silent_channel(&mut self, ctx: &mut Context<'_>) {
        let waits = self.following.channel.is_some() && !self.following.opened;
        let asked_at_ms = self.following.asked_at_ms;
        if waits && self.following.offer.is_none() && ctx.now_ms >= asked_at_ms + CHANNEL_MS {
            self.leave_server(ctx);
        }
    }

    /// Asks to be woken for whatever waits for a time.
    pub(super) fn ask_to_be_woken(&self, ctx: &mut Context<'_>) {
        let following = &self.following;
        let silent = following.channel.is_some() && !following.opened;
        let times = [
            silent.then_some(following.asked_at_ms + CHANNEL_MS),
            following.offer.as_ref().map(|offer| offer.deadline_ms),
            Some(following.retry_at_ms),
        ];
        for at_ms in times.into_iter().flatten().filter(|at_ms| *at_ms > ctx.now_ms) {
            ctx.out.wake_at(at_ms);
        }
    }

    /// There is a new connection. What was wrong at the other end may have been mended.
    pub(crate) fn server_came(&mut self, url: &str) {
        if self.wanted_server() == Some(url) && self.following.refused {
            self.following.retry_at_ms = 0;
        }
    }

    /// The connection is gone.
    pub(crate) fn server_lost(&mut self) {
        self.following.channel = None;
        self.following.opened = false;
        self.following.parts = None;
        self.sender.disconnected();
        for sync in &mut self.syncs {
            sync.storage = None;
            sync.probe = None;
        }
    }

    /// Closes the channel; the document may open another one.
    pub(super) fn leave_server(&mut self, ctx: &mut Context<'_>) {
        if let Some(channel) = self.following.channel {
            self.say(ToServer::Close { channel }, ctx);
        }
        self.server_lost();
    }

    /// The server is asked again after a pause: what there was no room for now will not fit at once
    /// either. It may be mended while the app is open: what cannot help now may help later.
    pub(super) fn follow_later(&mut self, failure: &CallFailure, ctx: &Context<'_>) {
        self.following.refused = false;
        let pause_ms = if failure.is_final() { RETRY_FINAL_MS } else { RETRY_MS };
        self.following.retry_at_ms = ctx.now_ms + pause_ms;
    }

    pub(crate) fn channel(&self) -> Option<u32> {
        self.following.channel
    }

    pub(crate) fn is_online(&self) -> bool {
        self.following.opened
    }

    /// The app goes away from the server, or back to it.
    pub(crate) fn set_connected(&mut self, connected: bool, ctx: &mut Context<'_>) {
        self.following.away = !connected;
        self.following.retry_at_ms = 0;
        if !connected {
            self.leave_server(ctx);
        }
    }

    /// The document is synced at this address.
    pub(super) fn note_server(&mut self, server: &str) {
        let record = self.record.as_mut().expect("BUG: synced without a record");
        self.following.retry_at_ms = 0;
        if record.server.as_deref() != Some(server) {
            record.server = Some(server.to_owned());
            self.following.moved = true;
            self.append_record();
        }
    }

    /// What the server says of this document.
    #[inline(never)]
    pub(crate) fn on_server(&mut self, channel: u32, message: FromServer, ctx: &mut Context<'_>) {
        if self.following.channel != Some(channel) {
            return;
        }
        match message {
            FromServer::Opened { storage, wanted, .. } => self.on_opened(storage, wanted, ctx),
            FromServer::SeedWanted { .. } => {
                if let Some(offer) = &mut self.following.offer {
                    offer.seed_wanted = true;
                }
            }
            FromServer::Seeded { .. } => self.on_seeded(ctx),
            FromServer::Entry { part, .. } => self.on_entry(part, ctx),
            FromServer::Acked { next, .. } => {
                if let Err(error) = self.sender.on_acked(next, self.durable) {
                    self.break_off(&error.to_string(), ctx);
                }
            }
            FromServer::Probed { request, next, .. } => {
                for sync in &mut self.syncs {
                    if sync.probe == Some(request) {
                        sync.storage = Some(next);
                    }
                }
            }
            FromServer::Refused { refusal, .. } => self.on_refused(&refusal, ctx),
            FromServer::Undecided { reason, .. } => {
                self.error = Some(CallFailure::new(ErrorCode::Doctype, reason));
            }
            FromServer::Welcome | FromServer::Bye { .. } | FromServer::Pong => {}
        }
    }

    fn on_opened(&mut self, storage: tidelog_types::Position, wanted: Lsn, ctx: &mut Context<'_>) {
        let Some(Role::Synced(replica)) = &self.role else { return };
        let other = replica.base().is_some_and(|base| base.journal != storage.journal);
        let first = replica.undecided().start();
        if other && self.following.moved {
            let failure = CallFailure::exists(&self.key.document);
            return self.refuse(failure, ctx);
        }
        self.following.moved = false;
        self.following.opened = true;
        // What was under way when this was asked for begins anew.
        self.following.parts = None;
        self.error = if other {
            Some(CallFailure::replaced(&self.key.document))
        } else {
            self.is_incomplete.then(CallFailure::damaged_copy)
        };
        // Another authority knows nothing of this timeline: its entries come first, and then the
        // undecided frames in a timeline of their own.
        if !other {
            if wanted < first {
                return self.break_off("the server lost mutations that it had confirmed", ctx);
            }
            if let Err(error) = self.sender.connected(wanted, self.durable) {
                return self.break_off(&error.to_string(), ctx);
            }
        }
        for sync in &mut self.syncs {
            sync.storage = Some(storage.next);
        }
    }

    fn on_seeded(&mut self, ctx: &mut Context<'_>) {
        let Some(offer) = self.following.offer.take() else { return };
        let Some(Role::Local(authority)) = &self.role else { return };
        let (view, position) = (authority.view().clone(), authority.position());
        let timeline = ctx.rng.journal();
        let record = self.record.as_mut().expect("BUG: open without a record");
        record.server = Some(offer.url);
        record.kept = Lsn::FIRST;
        let doctypes = record.doctypes_by_hash();
        let newest = record.newest;
        let start = (timeline, Lsn::FIRST);
        self.role = Some(Role::Synced(Box::new(Replica::open(
            view,
            Some(position),
            start,
            Vec::new(),
            Lsn::FIRST,
            doctypes,
            newest,
        ))));
        self.durable = Lsn::FIRST;
        self.sender = Sender::new(Lsn::FIRST);
        self.append_record();
        self.append.begin_timeline = Some(start);
        // The server knows no timeline of this client yet: greet it anew with this one.
        self.leave_server(ctx);
    }

    fn on_entry(&mut self, part: EntryPart, ctx: &mut Context<'_>) {
        let set = self.following.parts.get_or_insert_with(PageSet::default);
        set.db_pages = part.db_pages;
        set.pages.extend(part.pages);
        if !part.last {
            return;
        }
        let set = self.following.parts.take().expect("BUG: inserted above");
        let Some(Role::Synced(replica)) = &mut self.role else { return };
        let (range, position, origin) = (part.range, part.position, part.origin);
        match replica.sync_receive(ServerEntry { range, position, origin, set }) {
            Ok(None) => self.following.restarted = false,
            Ok(Some(advance)) => {
                self.following.restarted = false;
                self.advance(advance, ctx);
            }
            Err(error) => {
                replica.forget_staged();
                let message = error.to_string();
                if std::mem::replace(&mut self.following.restarted, true) {
                    self.break_off(&message, ctx);
                } else {
                    self.leave_server(ctx);
                }
            }
        }
    }

    fn on_refused(&mut self, refusal: &Refusal, ctx: &mut Context<'_>) {
        let failure = CallFailure::of_refusal(&self.key.document, refusal);
        self.refuse(failure, ctx);
    }

    fn break_off(&mut self, reason: &str, ctx: &mut Context<'_>) {
        let failure = match self.is_incomplete {
            // It forgot what the server knows of it.
            true => CallFailure::damaged_copy(),
            false => CallFailure::protocol(reason),
        };
        self.refuse(failure, ctx);
    }

    fn refuse(&mut self, failure: CallFailure, ctx: &mut Context<'_>) {
        self.leave_server(ctx);
        if let Some(offer) = &mut self.following.offer {
            offer.failure = Some(failure);
            return;
        }
        self.follow_later(&failure, ctx);
        self.following.refused = true;
        self.error = Some(failure);
    }

    // --- what is sent ---------------------------------------------------------------------------

    /// Sends the timeline frames that are durable and that the server lacks.
    #[inline(never)]
    pub(super) fn send_frames(&mut self, ctx: &mut Context<'_>) {
        let (Some(channel), true) = (self.following.channel, self.following.opened) else { return };
        let Some(Role::Synced(replica)) = &self.role else { return };
        let size_of =
            |lsn: Lsn| replica.undecided_at(lsn).map_or(0, |undecided| undecided.body.len() + 64);
        let range = self.sender.next_to_send(self.durable, size_of);
        if range.is_empty() {
            return;
        }
        let mut frames = Vec::new();
        let mut lsn = range.start();
        while lsn < range.end() {
            let undecided = replica.undecided_at(lsn).expect("BUG: sending what is decided");
            frames.push(WireFrame { call: undecided.call, body: undecided.body.clone() });
            lsn = lsn.next();
        }
        self.say(ToServer::Frames { channel, first: range.start(), frames }, ctx);
    }

    pub(super) fn say_received(&mut self, ctx: &mut Context<'_>) {
        let base = self.base_position();
        if let (Some(channel), true, Some(base)) =
            (self.following.channel, self.following.opened, base)
        {
            self.say(ToServer::Received { channel, next: base.next }, ctx);
        }
    }

    pub(super) fn seed_is_wanted(&self) -> bool {
        let wanted = self.following.offer.as_ref().is_some_and(|offer| offer.seed_wanted);
        wanted && self.following.channel.is_some()
    }

    pub(super) fn send_seed(&mut self, ctx: &mut Context<'_>) {
        let (Some(channel), Some(Role::Local(authority))) = (self.following.channel, &self.role)
        else {
            return;
        };
        let (view, position) = (authority.view().clone(), authority.position());
        let db_pages = view.db_pages();
        let pgids: Vec<Pgid> = (1..=db_pages).map(Pgid).collect();
        let mut parts = pgids.chunks(MESSAGE_PAGES_MAX).peekable();
        while let Some(part) = parts.next() {
            let pages = part.iter().filter_map(|pgid| Some((*pgid, view.page(*pgid)?))).collect();
            let last = parts.peek().is_none();
            self.say(ToServer::Seed { channel, position, db_pages, pages, last }, ctx);
        }
        if let Some(offer) = &mut self.following.offer {
            offer.seed_wanted = false;
        }
    }

    pub(super) fn probe(&mut self, sync: &mut SyncWait, ctx: &mut Context<'_>) {
        if let (Some(channel), true) = (self.following.channel, self.following.opened) {
            self.following.next_probe += 1;
            let request = self.following.next_probe;
            sync.probe = Some(request);
            self.say(ToServer::Probe { channel, request }, ctx);
        }
    }

    /// Tells those who wait until all is in step, if it is.
    pub(super) fn settle_syncs(&mut self, ctx: &mut Context<'_>) {
        let Some(Role::Synced(replica)) = &self.role else { return };
        let (first, base) = (replica.undecided().start(), replica.base());
        let visible = base.map_or(Lsn::FIRST, |base| base.next);
        let failure = self.error.clone().filter(CallFailure::is_final);
        self.syncs.retain(|sync| {
            // The head goes back when mutations are taken back.
            let decided = first >= sync.timeline.min(replica.head());
            if decided && sync.storage.is_some_and(|storage| visible >= storage) {
                ctx.out.tell(sync.tab, FromCore::Done { call: sync.call });
                return false;
            }
            if let Some(failure) = &failure {
                let failure = failure.clone();
                ctx.out.tell(sync.tab, FromCore::Failed { call: sync.call, failure });
                return false;
            }
            true
        });
    }

    /// The way to the server is barred: who waits for it is told.
    pub(crate) fn server_barred(&mut self, failure: &CallFailure, ctx: &mut Context<'_>) {
        if let Some(offer) = &mut self.following.offer {
            offer.failure = Some(failure.clone());
        }
        for sync in std::mem::take(&mut self.syncs) {
            let failure = failure.clone();
            ctx.out.tell(sync.tab, FromCore::Failed { call: sync.call, failure });
        }
    }

    fn say(&self, message: ToServer, ctx: &mut Context<'_>) {
        if let Some(server) = self.wanted_server() {
            ctx.out.say(server, message);
        }
    }
}
