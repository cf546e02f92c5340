//! One open document: its role, the calls that wait on it, and its way to the disk.
//!
//! Calls of all tabs stand in one queue and are run in their order (`ops.rs`; `opening.rs` has the
//! first of each tab); what nobody waits for, rebase, offering and live queries, is run when the
//! queue rests (`background.rs`). Whatever needs a page that is not in memory stays where it is
//! until the page has come. What the server says is taken in by `following.rs`.

mod background;
mod following;
mod opening;
mod ops;
mod recorded;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidelog_document::{Authority, Doctype, DoctypeHash, Replica};
use tidelog_pages::{
    Append, AppendError, OpenedDocument, StorageEntry, StoreRequest, Ticket, Urgency,
};
use tidelog_sqlite::{ReadSet, View};
use tidelog_sync::{Sender, codec};
use tidelog_types::{CallId, DocumentKey, ErrorCode, Lsn, Page, Pgid, Position, Rows, SortedMap};

pub(crate) use ops::{Op, OpKind, OpenCall};
use recorded::Recorded;
pub(crate) use status::Surroundings;

use crate::client::ClientSettings;
use crate::effect::{Notice, TabId};
use crate::outbox::Outbox;
use crate::protocol::{Call, CallFailure, FromCore, Handle, Status};
use crate::record::Record;
use crate::rng::Rng;
use crate::store_link::StoreLink;

/// What a document may use while it is worked on.
pub(crate) struct Context<'c> {
    pub(crate) now_ms: u64,
    pub(crate) settings: ClientSettings,
    pub(crate) rng: &'c mut Rng,
    pub(crate) store: &'c mut StoreLink,
    pub(crate) out: &'c mut Outbox,
    /// Doctypes that were found to work.
    pub(crate) checked: &'c mut Vec<DoctypeHash>,
}

/// Which side this device is for the document.
pub(crate) enum Role {
    /// There is no server: this device decides.
    Local(Box<Authority>),
    /// A server decides.
    Synced(Box<Replica>),
}

/// One document and everything that waits on it.
pub(crate) struct Document {
    pub(crate) key: DocumentKey,
    settings: ClientSettings,
    /// `None` until the store has said where it stands, and for one that does not exist yet.
    role: Option<Role>,
    /// Whether the store has answered.
    loaded: bool,
    /// Whether it was read anew, and may have forgotten doctypes of tabs that hold it. With the
    /// next call that is mended: what could not be written is not tried over and over by itself.
    unadopted: bool,
    record: Option<Record>,
    /// Why it cannot be opened at all.
    broken: Option<CallFailure>,
    pub(crate) handles: SortedMap<(TabId, Handle), HandleState>,
    ops: VecDeque<Op>,
    front_fault: Option<Fault>,
    back_fault: Option<Fault>,
    reads: SortedMap<u64, Read>,
    watches: SortedMap<(TabId, Call), Watch>,
    /// What the next append will say, and what follows when it is durable.
    append: Append,
    then: Vec<Then>,
    appended: VecDeque<(Ticket, Vec<Then>)>,
    /// Calls that were recorded, by this core or one before it: tabs may ask again.
    recorded: Recorded,
    /// Timeline frames before this LSN are on the disk.
    durable: Lsn,
    /// Storage entries before this LSN are on the disk.
    storage_durable: Lsn,
    sender: Sender,
    /// Who waits for which verdict.
    confirming: BTreeMap<CallId, (TabId, Call)>,
    syncs: Vec<SyncWait>,
    following: following::Following,
    /// Something of this copy is lost, or nothing proves that it is whole.
    is_incomplete: bool,
    error: Option<CallFailure>,
}

/// A tab's hold on the document.
pub(crate) struct HandleState {
    server: Option<String>,
    pub(crate) doctype: Doctype,
    hash: DoctypeHash,
    has_token: bool,
    listens: bool,
    /// What the tab was told of the document last, and when.
    told: Option<Status>,
    told_at_ms: u64,
}

/// A page that somebody waits for.
struct Fault {
    request: u64,
    kth: u32,
}

/// Pages on their way from the page server.
struct Read {
    urgency: Urgency,
    pgids: Vec<Pgid>,
    /// The page server had too much of ours to do: it is to be asked again.
    refused: bool,
    /// Pages that were written meanwhile: what is on its way may be older.
    stale: BTreeSet<Pgid>,
}

impl Read {
    fn ask(&self, request: u64, document: &DocumentKey) -> StoreRequest {
        let (document, pgids) = (document.clone(), self.pgids.clone());
        StoreRequest::Read { request, urgency: self.urgency, document, pgids }
    }
}

struct Watch {
    sql: String,
    params: crate::protocol::QueryParams,
    read_set: Option<ReadSet>,
    rows: Option<Rows>,
    dirty: bool,
}

/// What follows when an append is durable.
enum Then {
    /// Tell the caller.
    Settle(Settle),
    /// Timeline frames before this are durable.
    Timeline(Lsn),
    /// Storage entries before this are durable.
    Storage(Lsn),
}

/// A mutation whose caller waits for the disk.
struct Settle {
    tab: TabId,
    call: Call,
    id: CallId,
    lsn: Lsn,
    /// Whether this device decides, so that it is confirmed as well.
    confirmed: bool,
    /// Whether the page server's host tells the tab.
    noticed: bool,
}

impl Settle {
    fn messages(&self) -> Vec<FromCore> {
        let (call, lsn) = (self.call, self.lsn.get());
        let mut messages = vec![FromCore::Durable { call, lsn }];
        if self.confirmed {
            messages.push(FromCore::Confirmed { call, lsn });
        }
        messages
    }
}

struct SyncWait {
    tab: TabId,
    call: Call,
    /// All mutations before this need their verdict.
    timeline: Lsn,
    /// All entries before this need to be visible; `None` until the server has said.
    storage: Option<Lsn>,
    probe: Option<u32>,
}

/// How an attempt to do something ended.
enum Attempt {
    /// It is done; go on.
    Done,
    /// It waits for something else to happen first.
    Waits,
    /// There was nothing to do.
    Idle,
}

impl Document {
    pub(crate) fn new(key: DocumentKey, ctx: &mut Context<'_>) -> Self {
        let document = Self {
            append: Append::to(key.clone()),
            key,
            settings: ctx.settings,
            role: None,
            loaded: false,
            unadopted: false,
            is_incomplete: false,
            record: None,
            broken: None,
            handles: SortedMap::new(),
            ops: VecDeque::new(),
            front_fault: None,
            back_fault: None,
            reads: SortedMap::new(),
            watches: SortedMap::new(),
            then: Vec::new(),
            appended: VecDeque::new(),
            recorded: Recorded::default(),
            durable: Lsn::FIRST,
            storage_durable: Lsn::FIRST,
            sender: Sender::new(Lsn::FIRST),
            confirming: BTreeMap::new(),
            syncs: Vec::new(),
            following: following::Following::default(),
            error: None,
        };
        document.ask_where_it_stands(ctx);
        document
    }

    /// Puts a call at the end of the queue.
    pub(crate) fn push(&mut self, op: Op) {
        self.ops.push_back(op);
    }

    /// Runs what can be run now, and hands what it changed to the disk.
    #[inline(never)]
    pub(crate) fn pump(&mut self, ctx: &mut Context<'_>) {
        if let Some(failure) = self.broken.clone() {
            self.fail_all(&failure, ctx.out);
        }
        let mut slices = 0;
        loop {
            if let Attempt::Done = self.run_front(ctx) {
                continue;
            }
            match self.run_background(ctx) {
                Attempt::Done if slices < background::SLICES_MAX => slices += 1,
                Attempt::Done => {
                    ctx.out.wake_at(ctx.now_ms);
                    break;
                }
                Attempt::Waits | Attempt::Idle => break,
            }
        }
        if let (Some(view), None, None) = (self.view(), &self.front_fault, &self.back_fault) {
            view.evict();
        }
        self.flush_append(ctx);
        self.give_up_silent_channel(ctx);
        self.send_frames(ctx);
        self.settle_syncs(ctx);
        self.ask_to_be_woken(ctx);
    }

    /// Fails every call that waits.
    pub(crate) fn fail_all(&mut self, failure: &CallFailure, out: &mut Outbox) {
        while let Some(op) = self.ops.pop_front() {
            op.fail(failure.clone(), out);
        }
    }

    /// Whether nothing holds it: no tab, and nothing on its way to the disk.
    pub(crate) fn is_idle(&self) -> bool {
        self.handles.is_empty() && self.appended.is_empty() && self.ops.is_empty()
    }

    /// Mutations without a verdict.
    pub(crate) fn pending(&self) -> u64 {
        match &self.role {
            Some(Role::Synced(replica)) => replica.undecided().count(),
            _ => 0,
        }
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// A tab is gone: nobody waits for its calls any more.
    pub(crate) fn drop_tab(&mut self, tab: TabId, ctx: &mut Context<'_>) {
        if self.ops.front().is_some_and(|op| op.tab == tab) {
            self.give_up_offer(ctx);
        }
        self.handles.retain(|(holder, _), _| *holder != tab);
        self.ops.retain(|op| op.tab != tab);
        self.watches.retain(|(holder, _), _| *holder != tab);
        self.syncs.retain(|sync| sync.tab != tab);
    }

    pub(crate) fn drop_handle(&mut self, tab: TabId, handle: Handle) {
        self.handles.remove(&(tab, handle));
    }

    pub(crate) fn unwatch(&mut self, tab: TabId, call: Call) {
        self.watches.remove(&(tab, call));
        self.ops.retain(|op| !op.is_watch(tab, call));
    }

    // --- the way to the disk -------------------------------------------------------------------

    /// A page server has let us in: ask again what the last one has not answered.
    pub(crate) fn store_ready(&mut self, ctx: &mut Context<'_>) {
        if !self.loaded {
            self.ask_where_it_stands(ctx);
        }
        // Its host knows nothing of what an earlier one was to tell.
        for then in self.appended.iter_mut().flat_map(|(_, then)| then) {
            if let Then::Settle(settle) = then {
                settle.noticed = false;
            }
        }
        for (request, read) in self.reads.iter_mut() {
            read.refused = false;
            ctx.out.ask_store(read.ask(*request, &self.key));
        }
    }

    /// The store says where the document stands.
    pub(crate) fn opened(&mut self, state: Option<OpenedDocument>) {
        if self.loaded {
            return;
        }
        self.loaded = true;
        let Some(state) = state else { return };
        match codec::decode::<Record>(&state.record) {
            Ok(record) => self.begin_from_store(record, state),
            Err(_) if state.is_incomplete => self.broken = Some(CallFailure::damaged_copy()),
            Err(_) => {
                self.broken = Some(CallFailure::new(
                    ErrorCode::NewerFormat,
                    "this copy was written by a release that this one cannot read: load the \
                     newer release of the app; nothing was touched",
                ));
            }
        }
    }

    #[inline(never)]
    fn begin_from_store(&mut self, record: Record, state: OpenedDocument) {
        let view = View::new(self.settings.pool_pages_max, state.db_pages);
        view.fill(state.first_page.into_iter().map(|page| (Pgid(1), page)).collect());
        self.recorded.extend(state.calls);
        let frames = state.timeline.iter().flat_map(|timeline| &timeline.frames);
        self.recorded.extend(frames.map(|frame| (frame.call, frame.lsn)));
        self.storage_durable = state.storage.map_or(Lsn::FIRST, |position| position.next);
        self.is_incomplete = state.is_incomplete;
        if self.is_incomplete {
            self.error = Some(CallFailure::damaged_copy());
        }
        let role = match (&record.server, state.timeline, state.storage) {
            (None, _, Some(position)) => Role::Local(Box::new(Authority::new(view, position))),
            (Some(_), Some(timeline), _) => {
                self.durable = timeline.range.end();
                self.sender = Sender::new(timeline.range.start());
                let mut replica = Replica::open(
                    view,
                    state.storage,
                    (timeline.journal, timeline.range.end()),
                    timeline.frames,
                    record.kept,
                    record.doctypes_by_hash(),
                    record.newest,
                );
                self.doctypes_of_handles().into_iter().for_each(|it| replica.learn(it));
                Role::Synced(Box::new(replica))
            }
            _ => {
                assert!(state.is_incomplete, "BUG: a document without its journals");
                self.broken = Some(CallFailure::damaged_copy());
                return;
            }
        };
        self.role = Some(role);
        self.record = Some(record);
        self.unadopted = true;
    }

    /// Pages that were asked for.
    pub(crate) fn pages(&mut self, request: u64, pages: Vec<(Pgid, Page)>, last: bool) {
        let Some(read) = self.reads.get(&request) else { return };
        let fresh = pages.into_iter().filter(|(pgid, _)| !read.stale.contains(pgid)).collect();
        if let Some(view) = self.view() {
            view.fill(fresh);
        }
        if last {
            self.reads.remove(&request);
        }
    }

    /// The page server does not take this read in before it has answered another one.
    pub(crate) fn read_refused(&mut self, request: u64) {
        if let Some(read) = self.reads.get_mut(&request) {
            read.refused = true;
        }
    }

    /// It has.
    pub(crate) fn ask_again(&mut self, ctx: &mut Context<'_>) {
        for (request, read) in self.reads.iter_mut().filter(|(_, read)| read.refused) {
            read.refused = false;
            ctx.store.ask(read.ask(*request, &self.key), ctx.out);
        }
    }

    /// Everything up to `ticket` is on the disk.
    pub(crate) fn store_durable(&mut self, ticket: Ticket, ctx: &mut Context<'_>) {
        while self.appended.front().is_some_and(|(appended, _)| *appended <= ticket) {
            let (_, then) = self.appended.pop_front().expect("BUG: looked at it just now");
            for then in then {
                match then {
                    Then::Timeline(lsn) => self.durable = self.durable.max(lsn),
                    Then::Storage(lsn) => self.storage_durable = self.storage_durable.max(lsn),
                    Then::Settle(settle) if settle.noticed => {}
                    Then::Settle(settle) => {
                        for message in settle.messages() {
                            ctx.out.tell(settle.tab, message);
                        }
                    }
                }
            }
        }
    }

    /// An append left nothing behind: what was issued from there on is taken back, its callers are
    /// told, and the document is read anew from the disk.
    #[inline(never)]
    pub(crate) fn append_failed(
        &mut self,
        ticket: Ticket,
        error: &AppendError,
        ctx: &mut Context<'_>,
    ) {
        if !self.appended.iter().any(|(appended, _)| *appended == ticket) {
            return;
        }
        let failure = CallFailure::of_append(error);
        let (kept, lost): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.appended).into_iter().partition(|(t, _)| *t < ticket);
        self.appended = kept;
        for then in lost.into_iter().flat_map(|(_, then)| then) {
            if let Then::Settle(Settle { tab, call, id, .. }) = then {
                self.confirming.remove(&id);
                self.recorded.remove(id);
                ctx.out.tell(tab, FromCore::Failed { call, failure: failure.clone() });
            }
        }
        ctx.store.give_up(&self.key, ticket);
        self.reload(ctx);
        self.follow_later(&failure, ctx);
        self.error = Some(failure);
    }

    /// Drops what is in memory and reads the document anew.
    fn reload(&mut self, ctx: &mut Context<'_>) {
        self.role = None;
        self.record = None;
        self.loaded = false;
        self.front_fault = None;
        self.back_fault = None;
        self.reads.clear();
        self.append = Append::to(self.key.clone());
        self.then.clear();
        self.leave_server(ctx);
        for watch in self.watches.values_mut() {
            watch.dirty = true;
        }
        self.ask_where_it_stands(ctx);
    }

    fn ask_where_it_stands(&self, ctx: &mut Context<'_>) {
        ctx.store.ask(StoreRequest::Open { document: self.key.clone() }, ctx.out);
    }

    fn flush_append(&mut self, ctx: &mut Context<'_>) {
        self.seal();
        let append = std::mem::replace(&mut self.append, Append::to(self.key.clone()));
        if append == self.append && self.then.is_empty() {
            return;
        }
        let mut then = std::mem::take(&mut self.then);
        then.extend(append.timeline.last().map(|frame| Then::Timeline(frame.lsn.next())));
        then.extend(append.storage.last().map(|entry| Then::Storage(entry.range.end())));
        let ticket = ctx.store.append(append, ctx.out);
        let mut noticed: SortedMap<TabId, Vec<FromCore>> = SortedMap::new();
        for then in &mut then {
            if let Then::Settle(settle) = then
                && ctx.store.reaches(settle.tab)
            {
                settle.noticed = true;
                noticed.get_or_insert_with(settle.tab, Vec::new).extend(settle.messages());
            }
        }
        for (tab, messages) in noticed {
            ctx.out.notice(Notice { ticket, tab, messages });
        }
        self.appended.push_back((ticket, then));
    }

    /// Where this device decides, what it has applied becomes an entry.
    fn seal(&mut self) {
        if let Some(Role::Local(authority)) = &mut self.role
            && let Some(entry) = authority.seal()
        {
            self.append_storage(entry);
        }
    }

    fn append_storage(&mut self, entry: StorageEntry) {
        for read in self.reads.values_mut() {
            read.stale.extend(entry.set.pages.keys());
        }
        self.append.storage.push(entry);
    }

    fn append_record(&mut self) {
        let record = self.record.as_ref().expect("BUG: no record to write");
        self.append.record = Some(codec::encode(record).into());
    }

    // --- small questions -----------------------------------------------------------------------

    fn view(&self) -> Option<&View> {
        match self.role.as_ref()? {
            Role::Local(authority) => Some(authority.view()),
            Role::Synced(replica) => Some(replica.view()),
        }
    }

    /// The pages that look different now concern these live queries.
    fn mark_dirty(&mut self, changed: &BTreeSet<Pgid>) {
        if changed.is_empty() {
            return;
        }
        let cookie = self.view().and_then(View::schema_cookie);
        for watch in self.watches.values_mut() {
            let touched = |set: &ReadSet| set.touched_by_pages(changed, cookie);
            watch.dirty |= watch.read_set.as_ref().is_none_or(touched);
        }
    }

    fn base_position(&self) -> Option<Position> {
        match self.role.as_ref()? {
            Role::Local(authority) => Some(authority.position()),
            Role::Synced(replica) => replica.base(),
        }
    }

    /// Asks for the pages around a fault. `None`: nothing of it can be had.
    fn fetch(
        &mut self,
        urgency: Urgency,
        pgids: Vec<Pgid>,
        kth: u32,
        ctx: &mut Context<'_>,
    ) -> Option<Fault> {
        if pgids.is_empty() {
            return None;
        }
        let request = ctx.store.next_request();
        let read = Read { urgency, pgids, refused: false, stale: BTreeSet::new() };
        ctx.store.ask(read.ask(request, &self.key), ctx.out);
        self.reads.insert(request, read);
        Some(Fault { request, kth })
    }
}
