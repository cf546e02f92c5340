//! The document's way to the disk.

use std::collections::BTreeSet;

use tidelog_pages::{AppendError, RequestId, StorageEntry, StoreRequest, Ticket};
use tidelog_sync::codec;
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{CallId, EntryId, JournalId, Lsn, LsnRange, Outcome, Page, Pgid, SortedMap};

use super::handlers::Completed;
use super::open::{Open, RecordDue, Role};
use super::requests::Ask;
use super::watches::{Found, Given};
use super::{Context, Document, Reads, State, SyncWait};
use crate::effect::{Notice, TabId};
use crate::outbox::Outbox;
use crate::protocol::{Call, CallFailure, FromCore};
use crate::record::KeptRejection;

/// Milliseconds after an append that failed in which the document writes nothing of itself, and
/// asks no server for what it could not keep; doubles each time in a row, so many times at most.
const WRITE_AGAIN_MS: u64 = 1_000;
const WRITE_AGAIN_DOUBLINGS_MAX: u32 = 4;

/// Milliseconds in which entries of the server, which nobody waits for, go to the disk: by then
/// with something that somebody does wait for, and so without a flush of their own, or else without
/// it.
const PUT_OFF_MS: u64 = 1_000;

/// Bytes that a storage entry takes beside its pages, about.
const ENTRY_SIZE: usize = 128;

/// Bytes of storage entries that are in memory alone, until the disk has them.
#[derive(Default)]
pub(super) struct Unstored {
    /// Bytes of entries that no append carries yet.
    gathered_size: usize,
    /// Until when these may wait for something to go to the disk with.
    pub(super) put_off_until_ms: Option<u64>,
    pub(super) in_flight_size: usize,
    /// The pages of those that no disk will have, since the data were cleared.
    kept_by_none: BTreeSet<Pgid>,
}

impl Unstored {
    /// No disk will have these.
    fn are_kept_by_none<'e>(&mut self, entries: impl IntoIterator<Item = &'e StorageEntry>) {
        self.kept_by_none.extend(entries.into_iter().flat_map(|entry| entry.set.pages.keys()));
    }

    pub(super) fn size(&self) -> usize {
        self.gathered_size + self.in_flight_size
    }

    /// What does not add up, given all that waits for appends; for simulations.
    pub(super) fn doubt<'t>(&self, waiting: impl Iterator<Item = &'t Then>) -> Option<String> {
        let size: usize = waiting.map(Then::entries_size).sum();
        let counted = self.in_flight_size;
        (counted != size).then(|| format!("entries of {size} bytes in flight count {counted}"))
    }

    /// What was gathered goes to no disk.
    fn forget_gathered(&mut self) {
        (self.gathered_size, self.put_off_until_ms) = (0, None);
    }

    /// An append carries what was gathered: so much.
    fn hand_over(&mut self) -> usize {
        let size = std::mem::take(&mut self.gathered_size);
        self.in_flight_size += size;
        size
    }
}

/// How it stands with a disk that has refused what the document wrote.
#[derive(Default)]
pub(super) struct WriteAgain {
    /// When what nobody waits for is written again; `None` once an append is durable and the disk
    /// lacks no entries.
    pub(super) at_ms: Option<u64>,
    /// How many pauses in a row there were.
    times: u32,
    /// Why the last append failed, until the disk takes another or nothing is left to
    /// write.
    pub(super) failure: Option<CallFailure>,
    /// Whether the disk lacks entries of the server, which come again: until it has them, nothing
    /// else that it takes tells that there is room.
    lacks_entries: bool,
}

impl WriteAgain {
    /// Another append has failed. Says when what nobody waits for is written again.
    fn failed(&mut self, failure: CallFailure, had_entries: bool, now_ms: u64) -> u64 {
        self.failure = Some(failure);
        self.lacks_entries |= had_entries;
        // Of several that were on their way, or what somebody has issued meanwhile.
        if let Some(at_ms) = self.at_ms.filter(|at_ms| now_ms < *at_ms) {
            return at_ms;
        }
        let at_ms = now_ms + (WRITE_AGAIN_MS << self.times.min(WRITE_AGAIN_DOUBLINGS_MAX));
        self.at_ms = Some(at_ms);
        self.times = self.times.saturating_add(1);
        at_ms
    }

    /// When what the document notes of itself goes to the disk: not by itself to one that has
    /// refused something. If it did so again, the document would be read anew, and leave its server
    /// to say the same once more.
    pub(super) fn note_due(&self) -> RecordDue {
        match self.at_ms {
            None => RecordDue::Now,
            Some(_) => RecordDue::WithNext,
        }
    }

    /// The next pause is the shortest.
    fn begin_anew(&mut self) {
        (self.at_ms, self.times) = (None, 0);
    }

    /// All that was handed to the disk since is durable, and it lacks nothing.
    fn works(&mut self) {
        self.begin_anew();
        self.failure = None;
    }

    /// All is on the disk, or taken back, and nothing more is to be written: when that would have
    /// been tried again, nobody looks any more whether there is room.
    fn has_nothing_to_write(&mut self, now_ms: u64) {
        if self.at_ms.is_some_and(|at_ms| now_ms >= at_ms) {
            self.forget_passing_failure();
        }
    }

    /// The disk has taken something of another document.
    pub(super) fn works_elsewhere(&mut self) {
        self.forget_passing_failure();
    }

    /// Forgets a failure that may be over, unless the disk still lacks something.
    fn forget_passing_failure(&mut self) {
        self.failure.take_if(|failure| !self.lacks_entries && !failure.is_final());
    }

    /// The disk lacks no entry of the server, as far as is known.
    pub(super) fn has_entries(&mut self) {
        self.lacks_entries = false;
    }
}

/// What follows when an append is durable.
pub(super) enum Then {
    /// Tell the caller.
    Settle(Settle),
    /// Tell the caller who waits until all of a local document is on the disk.
    Synced(Box<Ask>),
    /// Frames of this timeline before this LSN are durable.
    Timeline(JournalId, Lsn),
    /// Storage entries before this are durable, the last of them of so many bytes.
    Storage(Lsn, usize),
    /// A record is durable.
    Record,
    /// The record that says that a server decides.
    Recorded,
    /// The document is on the disk at all.
    Kept,
    /// Tell what became of these mutations, which are in the timeline no longer.
    Withdrawn(Vec<KeptRejection>),
    /// Ask again what became of one of these.
    AskedAgain(Box<Ask>),
    /// Tell a handler that what it has said is done.
    Completed(Box<Completed>),
    /// Tell somebody what was found.
    Found(Box<Found>),
    /// Tell a handler what it is given.
    Given(Box<Given>),
}

impl Then {
    /// Whether a caller waits for it.
    fn is_awaited(&self) -> bool {
        match self {
            Self::Settle(_) | Self::Synced(_) | Self::Withdrawn(_) | Self::AskedAgain(_) => true,
            Self::Completed(_) | Self::Found(_) | Self::Given(_) => true,
            Self::Timeline(..) | Self::Storage(..) => false,
            Self::Record | Self::Recorded | Self::Kept => false,
        }
    }

    fn entries_size(&self) -> usize {
        match self {
            Self::Storage(_, size) => *size,
            _ => 0,
        }
    }
}

/// Who waited for appends that left nothing behind.
#[derive(Default)]
struct Waited {
    /// The mutations whose callers waited for the disk.
    settles: Vec<Settle>,
    /// Who waited until all of a local document is on it.
    syncs: Vec<Ask>,
    /// Who asks again what became of a mutation that was withdrawn.
    asked_again: Vec<Ask>,
    withdrawn: Vec<KeptRejection>,
    /// What handlers have said.
    completed: Vec<Completed>,
    /// What others were waiting for.
    found: Vec<Found>,
    /// What handlers were to be given.
    given: Vec<Given>,
}

/// A mutation whose caller waits for the disk.
pub(super) struct Settle {
    pub tab: TabId,
    pub call: Call,
    pub id: CallId,
    pub entry: EntryId,
    /// Whether this device decides, so that it is confirmed as well.
    pub is_confirmed: bool,
    /// Whether the page server's host tells the tab.
    pub is_noticed: bool,
    /// What was asked, of a mutation that an older append may have recorded: if this one fails, it
    /// is looked for again.
    pub again: Option<Box<Ask>>,
}

impl Settle {
    fn messages(&self) -> Vec<FromCore> {
        let (call, entry) = (self.call, self.entry);
        let mut messages = vec![FromCore::Durable { call, entry }];
        if self.is_confirmed {
            messages.push(FromCore::Confirmed { call, entry, lsn: entry.lsn.get() });
        }
        messages
    }
}

/// Whether one entry may stand for both. Where a device decides, each has the calls that it carries
/// out.
fn are_one(last: &StorageEntry, next: &StorageEntry) -> bool {
    let writer = |entry: &StorageEntry| (entry.position.journal, entry.position.life);
    writer(last) == writer(next)
        && last.range.end() == next.range.start()
        && last.calls.is_empty()
        && next.calls.is_empty()
}

impl Document {
    /// Asks the store where the document stands, once it has answered for all that it was handed:
    /// what it still has in hand could be read, and sent to a server, and then fail.
    pub(super) fn ask_where_it_stands(&self, ctx: &mut Context<'_>) {
        // It is asked for once it is gone.
        if ctx.store.destroys(&self.key) {
            return;
        }
        // What was on its way as the data were cleared is never answered.
        if !self.ledger.is_drained() && !ctx.store.is_lost() {
            reached(Probe::OpenWaitedForAppends);
            return;
        }
        ctx.store.ask(StoreRequest::Open { document: self.key.clone() }, ctx.out);
    }

    /// The document that had this name before is destroyed, or is to stay.
    pub(crate) fn name_is_decided(&self, ctx: &mut Context<'_>) {
        if !self.is_loaded() {
            self.ask_where_it_stands(ctx);
        }
    }

    /// The data were cleared, and can still be read: what was to be read anew is read now.
    pub(crate) fn store_is_lost(&mut self, ctx: &mut Context<'_>) {
        self.unstored.are_kept_by_none(ctx.store.pending_entries(&self.key));
        if let State::Open(open) = &self.state {
            // What was on its way may have left memory, and be refused now: what was read of it
            // since, or is being read, may be older.
            let gathered = &self.ledger.draft().storage;
            for entry in ctx.store.pending_entries(&self.key).chain(gathered) {
                open.view().advance_base(&entry.set);
                self.reads.written(entry);
            }
        }
        if !self.is_loaded() {
            self.ask_where_it_stands(ctx);
        }
        // Of a document whose append it had refused the page server has read nothing.
        self.reads.ask_all_again(&self.key, ctx);
    }

    /// A page server has let us in: asks again what the last one has not answered.
    pub(crate) fn store_ready(&mut self, ctx: &mut Context<'_>) {
        if !self.is_loaded() {
            self.ask_where_it_stands(ctx);
        }
        // Its host knows nothing of what an earlier one was to tell.
        for then in self.ledger.waiting_mut() {
            if let Then::Settle(settle) = then {
                if settle.is_noticed {
                    reached(Probe::NoticeLost);
                }
                settle.is_noticed = false;
            }
        }
        self.reads.ask_all_again(&self.key, ctx);
    }

    /// Pages that were asked for.
    pub(crate) fn pages(&mut self, request: RequestId, pages: Vec<(Pgid, Page)>, last: bool) {
        let view = match &self.state {
            State::Open(open) => Some(open.view()),
            _ => None,
        };
        self.reads.came(request, pages, last, view);
    }

    /// What was asked for is damaged: whoever needs these pages fails, and nobody else. Where the
    /// document was to be opened, it cannot be.
    pub(crate) fn damaged(&mut self, request: RequestId, pgids: &[Pgid], ctx: &mut Context<'_>) {
        if request == RequestId::OPENING
            && let State::Asking { .. } = self.state
        {
            self.break_down(CallFailure::damaged_copy(), ctx.out);
        }
        self.reads.damaged(request, pgids);
    }

    /// The page server does not take this read in before it has answered another one.
    pub(crate) fn read_refused(&mut self, request: RequestId) {
        self.reads.refused(request);
    }

    /// The page server has answered another read.
    pub(crate) fn ask_again(&mut self, ctx: &mut Context<'_>) {
        self.reads.ask_refused_again(&self.key, ctx);
    }

    /// Everything up to `ticket` is on the disk.
    pub(crate) fn store_durable(&mut self, ticket: Ticket, ctx: &mut Context<'_>) {
        let was_drained = self.ledger.is_drained();
        self.ledger.on_durable(ticket);
        self.do_what_is_ready(ctx);
        if was_drained {
            return;
        }
        if !self.is_loaded() {
            self.ask_where_it_stands(ctx);
        } else if self.ledger.is_drained() {
            self.write_works();
        }
    }

    fn write_works(&mut self) {
        // That there is room for less says nothing of what the disk lacks.
        if self.write_again.lacks_entries {
            return;
        }
        if self.write_again.at_ms.is_some() {
            self.follow_now();
        }
        self.write_again.works();
    }

    fn do_what_is_ready(&mut self, ctx: &mut Context<'_>) {
        while let Some(then) = self.ledger.next_ready() {
            match (then, self.open_mut()) {
                (Then::Settle(settle), _) => {
                    self.settling -= 1;
                    if !settle.is_noticed {
                        for message in settle.messages() {
                            ctx.out.tell(settle.tab, message);
                        }
                    }
                }
                (Then::Synced(ask), _) => {
                    self.local_syncs -= 1;
                    ctx.out.tell(ask.tab, FromCore::Done { call: ask.call });
                }
                (Then::Timeline(journal, lsn), Some(open)) => {
                    // Another timeline may have taken its place meanwhile.
                    if let Role::Synced(synced) = &mut open.role
                        && synced.replica.timeline() == journal
                    {
                        synced.durable = synced.durable.max(lsn);
                    }
                }
                (Then::Storage(lsn, size), open) => {
                    if let Some(open) = open {
                        open.storage_durable = open.storage_durable.max(lsn);
                        self.write_again.has_entries();
                    }
                    self.unstored.in_flight_size -= size;
                }
                (Then::Recorded, Some(open)) => {
                    if let Some(synced) = open.synced_mut() {
                        synced.is_recorded = true;
                    }
                }
                (Then::Kept, Some(open)) => open.is_kept = true,
                (Then::Withdrawn(rejections), _) => self.tell_withdrawn(&rejections, ctx.out),
                (Then::AskedAgain(ask), _) => self.look_again(vec![*ask], ctx.out),
                (Then::Completed(completed), _) => completed.tell(ctx.out),
                (Then::Found(found), _) => found.tell(ctx.out),
                (Then::Given(given), _) => self.watches.give(*given, ctx.out),
                (Then::Record, _) => self.record_is_durable(&ctx.settings.limits),
                (Then::Timeline(..) | Then::Recorded | Then::Kept, None) => {}
            }
        }
    }

    /// An append left nothing behind: what was issued from there on is taken back, its callers are
    /// told, and the document is read anew from the disk. The page server refuses what follows a
    /// failed append until the document is opened again, and that waits for all older appends: so
    /// what a caller was told left nothing behind never becomes durable.
    #[inline(never)]
    pub(crate) fn append_failed(
        &mut self,
        ticket: Ticket,
        error: &AppendError,
        ctx: &mut Context<'_>,
    ) {
        let had_gathered = !self.ledger.draft().storage.is_empty();
        let Some(lost) = self.ledger.on_failed(ticket) else { return };
        reached(Probe::AppendFailedAndReloaded);
        let failure = CallFailure::of_append(error, ctx.store.is_repeat(ticket));
        let is_entry = |then: &Then| matches!(then, Then::Storage(..));
        let had_entries = self.is_followed() && (had_gathered || lost.iter().any(is_entry));
        self.unstored.forget_gathered();
        self.unstored.in_flight_size -= lost.iter().map(Then::entries_size).sum::<usize>();
        if ctx.store.is_lost() {
            // What is shown stays as it is: nobody writes it again, so nothing is read anew.
            ctx.store.give_up(&self.key, ticket);
            return self.fail_cleared(lost, ctx.out);
        }
        let Waited { settles, syncs, mut asked_again, completed, found, given, .. } =
            self.who_waited(lost);
        self.handlers.complete_again(completed);
        given.iter().for_each(|given| self.watches.give_again(given));
        for Found { tab, call, watch, .. } in found {
            // Whoever has closed the document waits for nothing.
            if self.handles.contains_key(&(tab, watch.handle)) {
                self.watches.insert(tab, call, watch);
            }
        }
        let recorded_here = |settle: &Settle| settle.again.is_none().then_some(settle.id);
        let taken_back: BTreeSet<CallId> = settles.iter().filter_map(recorded_here).collect();
        self.recorded.remove_all(&taken_back);
        for Settle { tab, call, id, again, .. } in settles {
            self.confirming.remove(&id);
            if let Some(ask) = again.filter(|_| !taken_back.contains(&id)) {
                asked_again.push(*ask);
                continue;
            }
            ctx.out.tell(tab, FromCore::Failed { call, failure: failure.clone() });
        }
        if asked_again.is_empty() {
            syncs.into_iter().for_each(|ask| ask.fail(failure.clone(), ctx.out));
        } else {
            asked_again.extend(syncs);
        }
        ctx.store.give_up(&self.key, ticket);
        self.fail_handing_over(&failure, ctx);
        self.look_again(asked_again, ctx.out);
        // What the document writes of itself, read anew, would fail as well, and so on and on.
        self.reload(ctx);
        self.follow_later(&failure, ctx);
        if self.is_recording_awaited() {
            // Whoever hands it over waits for seconds alone.
            self.write_again.begin_anew();
        }
        let at_ms = self.write_again.failed(failure, had_entries, ctx.now_ms);
        // The server sends at once what could not be kept. Where it was something else, what waits
        // for the server does not wait for the disk as well.
        if self.write_again.lacks_entries {
            self.follow_no_earlier(at_ms);
        }
    }

    /// Why the document is not as it should be, if it is known: what lasts comes first.
    pub(super) fn why_wrong(&self) -> Option<&CallFailure> {
        let refused = self.write_again.failure.as_ref();
        if let State::Broken(failure) = &self.state {
            return Some(failure);
        }
        self.error.as_ref().filter(|error| error.is_final()).or(refused).or(self.error.as_ref())
    }

    /// The data were cleared: what waits for the disk never gets there. It is shown all the same.
    pub(crate) fn fail_settling(&mut self, out: &mut Outbox) {
        let is_told =
            |it: &Then| matches!(it, Then::Completed(_) | Then::Found(_) | Then::Given(_));
        let is_awaited = self.settling + self.local_syncs > 0 || self.ledger.waiting().any(is_told);
        if !is_awaited && !self.rejection_news.holds_back_some() {
            return;
        }
        let waiting = self.ledger.take_waiting(Then::is_awaited);
        self.fail_cleared(waiting, out);
    }

    fn fail_cleared(&mut self, lost: impl IntoIterator<Item = Then>, out: &mut Outbox) {
        let Waited { settles, syncs, asked_again, withdrawn, completed, found, given } =
            self.who_waited(lost);
        completed.into_iter().for_each(|completed| completed.tell(out));
        found.into_iter().for_each(|found| found.tell(out));
        given.into_iter().for_each(|given| self.watches.give(given, out));
        let asks = syncs.into_iter().chain(asked_again);
        asks.for_each(|ask| ask.fail(CallFailure::data_cleared(), out));
        let failure = CallFailure { outcome: Outcome::Unknown, ..CallFailure::data_cleared() };
        for Settle { tab, call, id, .. } in settles {
            self.confirming.remove(&id);
            out.tell(tab, FromCore::Failed { call, failure: failure.clone() });
        }
        for KeptRejection { call, .. } in withdrawn {
            if let Some((tab, call)) = self.confirming.remove(&call) {
                out.tell(tab, FromCore::Failed { call, failure: failure.clone() });
            }
        }
        self.rejection_news.forget_withdrawn();
    }

    fn who_waited(&mut self, lost: impl IntoIterator<Item = Then>) -> Waited {
        let mut waited = Waited::default();
        for then in lost {
            match then {
                Then::Settle(settle) => waited.settles.push(settle),
                Then::Synced(ask) => waited.syncs.push(*ask),
                Then::AskedAgain(ask) => waited.asked_again.push(*ask),
                Then::Withdrawn(rejections) => waited.withdrawn.extend(rejections),
                Then::Completed(completed) => waited.completed.push(*completed),
                Then::Found(found) => waited.found.push(*found),
                Then::Given(given) => waited.given.push(*given),
                _ => {}
            }
        }
        self.settling -= waited.settles.len();
        self.local_syncs -= waited.syncs.len();
        waited
    }

    /// Looks for these mutations before all that was asked since: what is not found is run. Who
    /// waited for what was issued comes behind them, and waits for them too.
    fn look_again(&mut self, mutations: Vec<Ask>, out: &Outbox) {
        if mutations.is_empty() {
            return;
        }
        let syncs = std::mem::take(&mut self.syncs).into_iter().map(SyncWait::into_ask);
        let asks: Vec<Ask> = mutations.into_iter().chain(syncs).collect();
        let is_waited_for = |ask: &Ask| out.flow.knows(ask.tab);
        for ask in asks.into_iter().rev().filter(is_waited_for) {
            self.queue.push_front(ask);
        }
    }

    /// Drops what is in memory and reads the document anew.
    fn reload(&mut self, ctx: &mut Context<'_>) {
        self.leave_server(ctx);
        let server = match &mut self.state {
            State::Open(open) => open.record.server.take(),
            State::Asking { server } => server.take(),
            State::Absent | State::Broken(_) => None,
        };
        self.state = State::Asking { server };
        self.reads = Reads::default();
        self.rejection_news.forget_withdrawn();
        self.watches.mark_all();
        self.watches.let_given_wait(true);
        self.handlers.are_read_anew();
        self.ask_where_it_stands(ctx);
    }

    pub(super) fn flush_append(&mut self, ctx: &mut Context<'_>) {
        self.seal();
        self.note_lives();
        self.flush_gathered(ctx);
        if self.is_loaded() && self.ledger.is_drained() {
            self.write_again.has_nothing_to_write(ctx.now_ms);
        }
    }

    /// The same of what was gathered before the document went on in other journals, whose writers
    /// are none of its.
    pub(super) fn flush_gathered(&mut self, ctx: &mut Context<'_>) {
        let were_put_off = self.unstored.put_off_until_ms.take().is_some();
        if ctx.store.is_lost() {
            return self.forget_gathered(ctx.out);
        }
        if let State::Open(open) = &mut self.state
            && (self.ledger.has_gathered() || open.record_due != Some(RecordDue::WithNext))
            && open.record_due.take().is_some()
        {
            self.ledger.draft().record = Some(codec::encode(&open.record).into());
            self.ledger.after(Then::Record);
        }
        let draft = self.ledger.draft();
        if were_put_off && !draft.timeline.is_empty() {
            reached(Probe::EntriesJoined);
        }
        let timeline = draft.timeline.last().zip(draft.timeline_id);
        let timeline = timeline.map(|(frame, id)| Then::Timeline(id, frame.lsn.next()));
        let last = draft.storage.last().map(|entry| entry.range.end());
        let storage = last.map(|end| Then::Storage(end, self.unstored.hand_over()));
        for then in timeline.into_iter().chain(storage) {
            self.ledger.after(then);
        }
        let committed = self.ledger.commit(|append| ctx.store.append(append, ctx.out));
        let Some((ticket, waiting)) = committed else { return self.do_what_is_ready(ctx) };
        let mut noticed: SortedMap<TabId, Vec<FromCore>> = SortedMap::new();
        for then in waiting {
            if let Then::Settle(settle) = then
                && ctx.store.reaches(settle.tab)
            {
                settle.is_noticed = true;
                noticed.get_or_insert_with(settle.tab, Vec::new).extend(settle.messages());
            }
        }
        for (tab, messages) in noticed {
            ctx.out.notice(Notice { ticket, tab, messages });
        }
    }

    /// The data were cleared: what is gathered is shown, and kept for no disk.
    fn forget_gathered(&mut self, out: &mut Outbox) {
        self.unstored.forget_gathered();
        self.unstored.are_kept_by_none(&self.ledger.draft().storage);
        if let State::Open(open) = &mut self.state {
            open.record_due = None;
        }
        let forgotten = self.ledger.forget_draft();
        self.fail_cleared(forgotten, out);
    }

    /// Pages that no disk has, and memory no more; for simulations.
    pub(super) fn doubt_memory(&self) -> Option<String> {
        let State::Open(open) = &self.state else { return None };
        let view = open.view();
        let mut kept = self.unstored.kept_by_none.iter();
        let is_gone = |pgid: &Pgid| pgid.0 <= view.base_db_pages() && !view.has_base_page(*pgid);
        let gone = kept.find(|pgid| is_gone(pgid))?;
        Some(format!("page {gone:?} is on no disk, and left memory"))
    }

    /// Drops pages that can be read again and that no run waits to read, beyond those that may be
    /// in memory.
    pub(super) fn evict(&self) {
        if let State::Open(open) = &self.state {
            let kept = &self.unstored.kept_by_none;
            let stay_max = kept.len() + self.reads.needed_max();
            let stays = |pgid| kept.contains(&pgid) || self.reads.needs(pgid);
            open.view().evict_but(stay_max, stays);
        }
    }

    /// How many pages it has in memory that can be read again, about.
    pub(crate) fn pool_pages(&self) -> usize {
        self.open().map_or(0, |open| open.view().pool_pages())
    }

    /// Drops all pages that can be read again, unless somebody waits for more, or some are not on
    /// their way to the disk yet. Says how many.
    pub(crate) fn rest(&self) -> usize {
        if self.reads.has_faults() || self.unstored.gathered_size > 0 {
            return 0;
        }
        let Some(open) = self.open() else { return 0 };
        open.view().rest_but(|pgid| self.unstored.kept_by_none.contains(&pgid))
    }

    /// Who wrote what is gathered goes to the disk with it.
    pub(super) fn note_lives(&mut self) {
        if let State::Open(open) = &mut self.state
            && open.record.lives != *open.lives()
        {
            open.record.lives = open.lives().clone();
            self.append_record();
        }
    }

    /// Where this device decides, what it has applied becomes an entry.
    pub(super) fn seal(&mut self) {
        if let State::Open(open) = &mut self.state
            && let Role::Local(authority) = &mut open.role
            && let Some(entry) = authority.seal()
        {
            self.append_storage(entry);
        }
    }

    /// Whether the disk has all that this device has decided.
    pub(super) fn is_all_durable(&mut self) -> bool {
        self.seal();
        !self.ledger.has_gathered() && self.ledger.is_drained()
    }

    /// The storage journal begins anew: what is on the disk of the one before, or on its way there,
    /// says nothing of this one.
    pub(super) fn forget_durable_storage(&mut self) {
        for then in self.ledger.waiting_mut() {
            if let Then::Storage(lsn, _) = then {
                *lsn = Lsn::FIRST;
            }
        }
        if let State::Open(open) = &mut self.state {
            open.storage_durable = Lsn::FIRST;
        }
    }

    /// Entries that go to the disk together go as one: most of what a burst of them changes are the
    /// same few pages, and each page of each would be handed over.
    pub(super) fn append_storage(&mut self, entry: StorageEntry) {
        self.reads.written(&entry);
        let gathered = &mut self.ledger.draft().storage;
        let pages_count = match gathered.last_mut() {
            Some(last) if are_one(last, &entry) => {
                reached(Probe::EntriesStoredAsOne);
                let before = last.set.pages.len();
                last.range = LsnRange::new(last.range.start(), entry.range.end());
                last.position = entry.position;
                last.set.absorb(&entry.set);
                last.set.pages.len().saturating_sub(before)
            }
            _ => {
                let pages_count = entry.set.pages.len();
                gathered.push(entry);
                pages_count
            }
        };
        self.unstored.gathered_size += pages_count * PAGE_SIZE + ENTRY_SIZE;
    }

    /// The record goes to the disk with what is gathered.
    pub(super) fn append_record(&mut self) {
        let State::Open(open) = &mut self.state else { unreachable!("BUG: no record to write") };
        open.record_due = Some(RecordDue::Now);
    }

    /// The same with what it says of rejections. It is written as a whole, however little of that
    /// is new, and in one append with what was rejected: so both wait while one is on its way, and
    /// thousands of rejections that come meanwhile cost one more.
    pub(super) fn append_rejections(&mut self) {
        let State::Open(open) = &mut self.state else { unreachable!("BUG: no record to write") };
        open.record_due = open.record_due.max(Some(RecordDue::BehindLast));
    }

    /// Whether what is gathered waits for something else to go to the disk with. The server has all
    /// of it, and sends again what a power cut takes along; so has whoever holds the document in
    /// memory, unless that becomes too much.
    pub(super) fn puts_entries_off(&mut self, ctx: &Context<'_>) -> bool {
        let is_far_ahead = self.is_far_ahead_of_disk(ctx.store, &ctx.settings.limits);
        let State::Open(open) = &self.state else { return false };
        let Open { role: Role::Synced(synced), record_due, .. } = &**open else {
            return false;
        };
        let (limits, unstored) = (&ctx.settings.limits, &mut self.unstored);
        let is_small = unstored.gathered_size <= limits.entries_put_off_size_max
            && synced.replica.view().pool_pages() <= limits.pool_pages_max;
        let is_free = is_small
            && !is_far_ahead
            && matches!(record_due, None | Some(RecordDue::WithNext))
            && self.write_again.at_ms.is_none()
            && !self.handles.is_empty()
            && self.ledger.has_gathered()
            && !self.ledger.is_followed()
            && self.ledger.draft().only_follows();
        if !is_free {
            return false;
        }
        let until_ms = *unstored.put_off_until_ms.get_or_insert(ctx.now_ms + PUT_OFF_MS);
        let waits = ctx.now_ms < until_ms;
        if waits {
            reached(Probe::EntriesPutOff);
        }
        waits
    }

    /// Whether its record is still to say something: it goes to the disk by itself as soon as there
    /// is room for it, or the rejection that was dealt with has to come once more.
    pub(crate) fn owes_record(&self) -> bool {
        let Some(open) = self.open() else { return false };
        let is_undecided =
            |call| self.replica().is_some_and(|replica| replica.find_call(call).is_some());
        open.record_due > Some(RecordDue::WithNext) || self.rejection_news.has_handled(is_undecided)
    }

    /// Whether what is gathered waits until the record that is on its way is durable.
    pub(super) fn waits_for_a_record(&mut self) -> bool {
        self.open().is_some_and(|open| open.record_due == Some(RecordDue::BehindLast))
            && self.has_record_in_flight()
    }

    pub(super) fn has_record_in_flight(&mut self) -> bool {
        self.ledger.waiting_mut().any(|then| matches!(then, Then::Record))
    }
}
