//! One document that tabs hold: whether it is there, the requests that wait on it, and its way to
//! disk and server.
//!
//! Requests of all tabs stand in one queue and are carried out in their order (`requests.rs`;
//! `opening.rs` has the first of each tab), but that queries overtake whoever hands the document
//! over; what nobody waits for, rebase, offering and live queries, is run when the queue rests
//! (`background.rs`). Whatever needs a page that is not in memory stays where it is until the page
//! has come (`reads.rs`). What is to last goes to the disk in `storing.rs`. The way to the server
//! is `following.rs`, with what the server says and with who waits to be in step with it; what it
//! rejected is told by `rejections.rs`, who is present by `presence.rs`, who handles commands is in
//! `handlers.rs`, what has left it is asked for by `archives.rs`, and a local document becomes the
//! server's in `hand_over.rs`. `open.rs` is the document itself, once the store has said where it
//! stands.

mod archives;
mod background;
mod following;
mod hand_over;
mod handlers;
mod open;
mod opening;
mod presence;
mod reads;
mod recorded;
mod rejections;
mod requests;
mod status;
mod storing;
mod watches;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;

use tidelog_document::{Doctype, DoctypeHash, FoundRight};
use tidelog_pages::AppendLedger;
use tidelog_sync::ProbeId;
use tidelog_types::limits::Limits;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{Budget, CallId, DocumentKey, JournalId, Life, Lsn, SortedMap};

use background::BuildAgain;
use following::Following;
use handlers::OwnHandlers;
use open::{Open, Role};
use presence::Presence;
use reads::{For, Reads};
use recorded::Recorded;
use rejections::RejectionNews;
pub(crate) use requests::Ask;
pub(crate) use status::Surroundings;
use storing::{Then, Unstored, WriteAgain};
use watches::Watches;

use crate::effect::TabId;
use crate::outbox::Outbox;
use crate::protocol::{Call, CallFailure, FromCore, Handle, Memo, Request, Status};
use crate::rng::Rng;
use crate::server_link::{LinkName, ServerLink};
use crate::settings::ClientSettings;
use crate::store_link::StoreLink;

/// What a document may use while it is worked on.
pub(crate) struct Context<'c> {
    pub(crate) now_ms: u64,
    pub(crate) settings: ClientSettings,
    pub(crate) rng: &'c mut Rng,
    /// What is written now, this life writes.
    pub(crate) life: Life,
    pub(crate) store: &'c mut StoreLink,
    pub(crate) servers: &'c SortedMap<LinkName, ServerLink>,
    pub(crate) out: &'c mut Outbox,
    /// Doctypes that were found to work.
    pub(crate) found_right: &'c FoundRight,
}

/// Steps of SQLite's virtual machine that a piece of work counts as, whatever it does: some
/// hundreds of pieces make a slice.
const PIECE_STEPS: u64 = 4_000;

/// One document and everything that waits on it.
pub(crate) struct Document {
    pub(crate) key: DocumentKey,
    state: State,
    handles: SortedMap<(TabId, Handle), HandleState>,
    rejection_news: RejectionNews,
    /// Requests in the order in which they were made.
    queue: VecDeque<Ask>,
    reads: Reads,
    watches: Watches,
    /// How often its archive was asked.
    archive_questions: u32,
    ledger: AppendLedger<Then>,
    /// Calls that were recorded, by this core or one before it: tabs may ask again.
    recorded: Recorded,
    /// Mutations whose callers wait for the disk.
    settling: usize,
    /// Calls to sync a local document, which wait for the disk too.
    local_syncs: usize,
    write_again: WriteAgain,
    /// Who waits for which verdict.
    confirming: BTreeMap<CallId, (TabId, Call)>,
    syncs: Vec<SyncWait>,
    following: Following,
    presence: Presence,
    handlers: OwnHandlers,
    build_again: BuildAgain,
    /// Whether requests took the last slice for themselves.
    is_background_due: bool,
    /// Whether newer pages were made visible since a live query has run: the next rebase begins
    /// after one, since each may take longer than it takes until more entries have come.
    is_live_query_due: bool,
    /// When somebody last asked something of it.
    pub(crate) asked_at_ms: u64,
    /// What of the storage journal the disk does not have yet.
    unstored: Unstored,
    error: Option<CallFailure>,
}

/// Whether a document is there.
enum State {
    /// The store has not said yet where it stands.
    Asking {
        /// Where it was synced when it was read last.
        server: Option<String>,
    },
    /// The store has never heard of it.
    Absent,
    /// It cannot be opened at all.
    Broken(CallFailure),
    /// Here it is.
    Open(Box<Open>),
}

/// A tab's hold on the document.
struct HandleState {
    server: Option<String>,
    doctype: Doctype,
    hash: DoctypeHash,
    has_token: bool,
    /// What the tab was told of the document last, and when.
    told: Option<(Status, Memo)>,
    told_at_ms: u64,
}

struct SyncWait {
    tab: TabId,
    handle: Handle,
    call: Call,
    asked_at_ms: u64,
    /// All mutations of this timeline before this LSN need their verdict.
    timeline: (JournalId, Lsn),
    /// All entries before this need to be visible; `None` until the server has said.
    storage: Option<Lsn>,
    probe: Option<ProbeId>,
}

impl SyncWait {
    fn into_ask(self) -> Ask {
        let Self { tab, handle, call, .. } = self;
        Ask { tab, call, handle, request: Request::Sync }
    }
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
            ledger: AppendLedger::new(key.clone()),
            key,
            state: State::Asking { server: None },
            handles: SortedMap::new(),
            rejection_news: RejectionNews::default(),
            queue: VecDeque::new(),
            reads: Reads::default(),
            watches: Watches::default(),
            archive_questions: 0,
            recorded: Recorded::new(ctx.settings.limits.calls_remembered_max),
            settling: 0,
            local_syncs: 0,
            write_again: WriteAgain::default(),
            confirming: BTreeMap::new(),
            syncs: Vec::new(),
            following: Following::default(),
            presence: Presence::default(),
            handlers: OwnHandlers::default(),
            build_again: BuildAgain::default(),
            is_background_due: false,
            is_live_query_due: false,
            asked_at_ms: 0,
            unstored: Unstored::default(),
            error: None,
        };
        document.ask_where_it_stands(ctx);
        document
    }

    /// Puts a request at the end of the queue.
    pub(crate) fn push(&mut self, ask: Ask) {
        self.queue.push_back(ask);
    }

    /// Runs what can be run now, and hands what it changed to the disk.
    #[inline(never)]
    pub(crate) fn pump(&mut self, ctx: &mut Context<'_>) {
        if let Some(failure) = self.why_broken().cloned() {
            self.fail_all(&failure, ctx.out);
        }
        self.build_again_what_was_short(ctx.now_ms);
        if !self.queue.is_empty() {
            self.asked_at_ms = ctx.now_ms;
        }
        self.run_slice(ctx);
        // From here on its pages count as what is not on its way to the disk yet.
        self.seal();
        // With the pages that make it so.
        self.note_synced();
        // Somebody waits for a mutation, for the document, or to hand it over as it is on the disk.
        let is_awaited = self.settling + self.local_syncs > 0
            || self.following.offer.is_some()
            || self.recording_awaited_by().is_some()
            || !self.syncs.is_empty() && self.open().is_some_and(|open| !open.is_kept);
        // If it fails again, it takes along the pages that have come for a run.
        let may_fail = |at_ms| ctx.now_ms < at_ms || self.reads.has_faults();
        let is_due = is_awaited || !self.write_again.at_ms.is_some_and(may_fail);
        if ctx.store.is_lost() {
            self.flush_append(ctx);
            if !ctx.store.is_over() {
                self.evict();
            }
        } else if is_due && !self.waits_for_a_record() && !self.puts_entries_off(ctx) {
            self.evict();
            // With the pages that are not in memory any more.
            self.flush_append(ctx);
        }
        self.tell_held_back_rejections(ctx.out);
        self.say_what_is_owed(ctx);
        self.look_after_handlers(ctx);
        self.leave_unwanted_server(ctx);
        self.give_up_silent_channel(ctx);
        self.ask_for_verdicts(ctx);
        self.send_frames(ctx);
        self.settle_syncs(ctx);
        self.ask_archive(ctx);
        self.see_whether_it_is_short(ctx.now_ms);
        self.ask_to_be_woken(ctx);
    }

    /// Runs requests, and what nobody waits for in particular once there are none; after a slice
    /// that requests had for themselves the other way round, since they may come without end.
    fn run_slice(&mut self, ctx: &mut Context<'_>) {
        let mut budget = Budget::new(ctx.settings.limits.slice);
        self.take_entries(&mut budget, ctx);
        let mut has_come_to_background = mem::take(&mut self.is_background_due);
        // Until it rests: server and tabs may both go on without end, and live queries come last.
        let mut goes_on = has_come_to_background;
        while goes_on && !budget.is_spent() {
            goes_on = matches!(self.run_background(&mut budget, ctx), Attempt::Done);
        }
        while !budget.is_spent() {
            if let Attempt::Done = self.run_front(&mut budget, ctx) {
                continue;
            }
            if let Attempt::Done = self.run_past_offer(&mut budget, ctx) {
                continue;
            }
            has_come_to_background = true;
            match self.run_background(&mut budget, ctx) {
                Attempt::Done => {}
                Attempt::Waits | Attempt::Idle => return,
            }
        }
        reached(Probe::DocumentSliceSpent);
        self.is_background_due = !has_come_to_background;
        // Other inputs have their turn, and what was done so far goes to the disk.
        ctx.out.wake_at(ctx.now_ms);
    }

    /// Fails every request that waits, but those who let go of it.
    pub(crate) fn fail_all(&mut self, failure: &CallFailure, out: &mut Outbox) {
        while let Some(ask) = self.queue.pop_front() {
            match &ask.request {
                Request::Close => self.close(&ask, out),
                _ => ask.fail(failure.clone(), out),
            }
        }
    }

    /// Whether nothing holds it: no tab, and nothing on its way to the disk.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_let_go() && self.is_drained()
    }

    /// Whether no tab holds it, or waits for something of it.
    pub(crate) fn is_let_go(&self) -> bool {
        self.handles.is_empty() && self.queue.is_empty()
    }

    /// Whether the store has answered for all that it was handed.
    pub(crate) fn is_drained(&self) -> bool {
        self.ledger.is_drained()
    }

    /// Whether this handle holds it, or something that was asked with it waits.
    pub(crate) fn knows(&self, tab: TabId, handle: Handle) -> bool {
        let is_its = |ask: &Ask| (ask.tab, ask.handle) == (tab, handle);
        self.handles.contains_key(&(tab, handle)) || self.queue.iter().any(is_its)
    }

    /// Whether it waits for something, and is to be looked at whatever happens.
    pub(crate) fn is_restless(&self) -> bool {
        !self.queue.is_empty()
            || !self.ledger.is_drained()
            || !self.reads.is_idle()
            || self.may_recover()
            || self.waits_for_server()
            || self.is_online() && self.presence.is_due()
            || self.handlers.wait_to_be_heard()
    }

    /// Whether a tab holds it once all that waits is done.
    pub(crate) fn is_in_use(&self) -> bool {
        let mut holders: BTreeSet<(TabId, Handle)> = self.handles.keys().copied().collect();
        for ask in &self.queue {
            let _ = match &ask.request {
                Request::Open(_) => holders.insert((ask.tab, ask.handle)),
                Request::Close => holders.remove(&(ask.tab, ask.handle)),
                _ => false,
            };
        }
        !holders.is_empty()
    }

    /// Whoever has it open is told to close it, but for those that were told.
    pub(crate) fn want_closed(&self, told: &mut BTreeSet<(TabId, Handle)>, out: &mut Outbox) {
        for (tab, handle) in self.handles.keys().copied() {
            if told.insert((tab, handle)) {
                out.tell(tab, FromCore::CloseWanted { handle });
            }
        }
    }

    /// Mutations without a verdict.
    pub(crate) fn pending(&self) -> u64 {
        self.replica().map_or(0, |replica| replica.undecided().count())
    }

    /// What does not add up, or is wrong with what it shows, unless that is told: without a page
    /// that is damaged it shows less.
    pub(crate) fn doubt(&self, limits: &Limits) -> Option<String> {
        let unstored = self.unstored.doubt(self.ledger.waiting()).or_else(|| self.doubt_memory());
        let sums =
            unstored.or_else(|| self.synced()?.sender.doubt(limits.frames_in_flight_size_max));
        let replica = self.replica().filter(|_| self.why_wrong().is_none());
        sums.or_else(|| replica?.doubt())
    }

    /// Why it cannot be opened at all, if that is so.
    pub(crate) fn why_broken(&self) -> Option<&CallFailure> {
        match &self.state {
            State::Broken(failure) => Some(failure),
            _ => None,
        }
    }

    /// Whether the store has said where it stands.
    pub(crate) fn is_loaded(&self) -> bool {
        !matches!(self.state, State::Asking { .. })
    }

    /// The tabs for which something is kept or waits.
    pub(crate) fn tabs(&self) -> impl Iterator<Item = TabId> {
        let handles = self.handles.keys().map(|(tab, _)| *tab);
        let queue = self.queue.iter().map(|ask| ask.tab);
        let syncs = self.syncs.iter().map(|sync| sync.tab);
        let listeners = self.rejection_news.tabs();
        handles.chain(queue).chain(syncs).chain(listeners).chain(self.watches.tabs())
    }

    /// A tab is gone: nobody waits for its calls any more.
    pub(crate) fn drop_tab(&mut self, tab: TabId, ctx: &mut Context<'_>) {
        if self.queue.front().is_some_and(|ask| ask.tab == tab) {
            self.give_up_offer(ctx);
        }
        self.handles.retain(|(holder, _), _| *holder != tab);
        self.rejection_news.drop_tab(tab);
        self.drop_asks(|ask| ask.tab == tab);
        self.watches.drop_tab(tab);
        self.syncs.retain(|sync| sync.tab != tab);
    }

    /// Whether something waits for this call.
    pub(crate) fn is_asked_by(&self, tab: TabId, call: Call) -> bool {
        self.watches.has(tab, call)
            || self.handlers.has(tab, call)
            || self.syncs.iter().any(|sync| (sync.tab, sync.call) == (tab, call))
            || self.queue.iter().any(|ask| ask.is_read(tab, call))
    }

    /// Nobody waits for what this call reads any more.
    pub(crate) fn give_up(&mut self, tab: TabId, call: Call) {
        self.watches.remove(tab, call);
        self.handlers.give_up(tab, call);
        self.syncs.retain(|sync| (sync.tab, sync.call) != (tab, call));
        self.drop_asks(|ask| ask.is_read(tab, call));
    }

    /// Nobody waits for these requests any more, nor for the pages that the one in front needs.
    fn drop_asks(&mut self, is_gone: impl Fn(&Ask) -> bool) {
        if self.queue.front().is_some_and(&is_gone) {
            self.forget_front();
        }
        self.queue.retain(|ask| !is_gone(ask));
        self.let_go_of_doctypes();
    }

    fn open(&self) -> Option<&Open> {
        match &self.state {
            State::Open(open) => Some(open),
            _ => None,
        }
    }
}
