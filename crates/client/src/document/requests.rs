//! Requests of tabs, carried out in the order in which they were made; `opening.rs` has the first
//! of them.

use std::collections::BTreeSet;
use std::mem;

use tidelog_document::{Action, Mutation};
use tidelog_sqlite::Run;
use tidelog_types::limits::{CONSUMER_NAME_SIZE_MAX, CONSUMERS_MAX, MUTATION_SIZE_MAX};
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{Budget, CallId, EntryId, ErrorCode, Lsn, Outcome, Pgid, Role as TokenRole};

use super::open::RecordDue;
use super::storing::Settle;
use super::watches::{Found, Watch};
use super::{Attempt, Context, Document, For, PIECE_STEPS, Role, State, SyncWait, Then};
use crate::effect::TabId;
use crate::outbox::Outbox;
use crate::protocol::{
    Again, Call, CallFailure, Consumer, Events, FromCore, Handle, Mutate, Query, Request,
    size_of_args,
};
use crate::record::KeptRejection;
use crate::store_link::StoreLink;

/// Times that one request may wait for pages before something must be wrong with them.
const FAULTS_MAX: u32 = 4096;

/// A request that waits for its turn.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) tab: TabId,
    pub(crate) call: Call,
    pub(crate) handle: Handle,
    pub(crate) request: Request,
}

/// How a run of the request in front ended.
pub(super) enum Ran {
    Done,
    Fault(Pgid),
    /// Several pages are needed, none in particular.
    Needs(Vec<Pgid>),
    Waits,
    Failed(CallFailure),
}

impl Ask {
    /// Tells the tab that nothing comes of it. Of a mutation that another core was handed nobody
    /// knows that before it was looked for.
    pub(crate) fn fail(self, mut failure: CallFailure, out: &mut Outbox) {
        if let Request::Mutate(Mutate { again: Some(_), .. }) = self.request {
            failure.outcome = Outcome::Unknown;
        }
        if let Request::Open(_) = self.request {
            out.ended.push((self.tab, self.handle));
        }
        out.tell(self.tab, FromCore::Failed { call: self.call, failure });
    }

    /// The mutation was looked for and is not recorded: it runs as if it were asked for the first
    /// time.
    fn make_first(&mut self) {
        if let Request::Mutate(mutate) = &mut self.request {
            mutate.again = None;
        }
    }

    /// Whether it is this call, and has changed nothing before it has run.
    pub(super) fn is_read(&self, tab: TabId, call: Call) -> bool {
        use Request::{Events, Export, Handle, Outcome, Query, Records, Sync, Watch};
        let reads = matches!(self.request, Query(_) | Watch(_) | Events(_) | Sync | Export);
        let of_tasks = matches!(self.request, Handle(_) | Outcome(_) | Records(_));
        self.tab == tab && self.call == call && (reads || of_tasks)
    }
}

impl Document {
    /// Runs the request in front.
    pub(super) fn run_front(&mut self, budget: &mut Budget, ctx: &mut Context<'_>) -> Attempt {
        let Some(kth) = self.reads.faults_met(For::Front) else { return Attempt::Waits };
        // Whatever the document lacks, who lets go of it does not need it.
        let lets_go = self.queue.front().is_some_and(|ask| matches!(ask.request, Request::Close));
        if !self.is_loaded() && !lets_go {
            return Attempt::Waits;
        }
        if self.waits_for_the_disk(ctx) {
            return Attempt::Waits;
        }
        let Some(mut ask) = self.queue.pop_front() else { return Attempt::Idle };
        budget.spend_steps(PIECE_STEPS);
        let ran = self.run(&mut ask, budget, ctx);
        budget.spend_steps(self.take_steps());
        if let Ran::Done = ran {
            self.forget_front();
            return Attempt::Done;
        }
        if let Ran::Waits = ran {
            self.reads.forget_fault(For::Front);
        }
        match self.wait_or_fail(For::Front, ran, kth, ctx) {
            Ok(()) => {
                self.queue.push_front(ask);
                Attempt::Waits
            }
            Err(failure) => self.fail_front(ask, failure, ctx),
        }
    }

    /// Has the pages fetched that a request waits for, if it does; or says why nothing comes of it.
    fn wait_or_fail(
        &mut self,
        who: For,
        ran: Ran,
        kth: u32,
        ctx: &mut Context<'_>,
    ) -> Result<(), CallFailure> {
        let (lacks, to_fetch) = match ran {
            Ran::Done | Ran::Waits => return Ok(()),
            Ran::Failed(failure) => return Err(failure),
            Ran::Fault(pgid) => (vec![pgid], self.to_fetch(pgid, kth)),
            Ran::Needs(pgids) => (pgids.clone(), pgids),
        };
        if let Some(failure) = self.reads.why_lost(&lacks, ctx.store) {
            return Err(failure);
        }
        let is_coming = kth < FAULTS_MAX && self.reads.fetch(who, to_fetch, kth, &self.key, ctx);
        if is_coming { Ok(()) } else { Err(CallFailure::absent_page()) }
    }

    /// Runs the first query behind whoever hands the document over, which can take as long as the
    /// line needs: what is handed over stays as it is, so there is nothing to wait for. What else
    /// its handle has asked before comes before it.
    pub(super) fn run_past_offer(&mut self, budget: &mut Budget, ctx: &mut Context<'_>) -> Attempt {
        let Some(index) = self.next_past_offer() else {
            self.reads.forget_fault(For::PastOffer);
            return Attempt::Idle;
        };
        let Some(kth) = self.reads.faults_met(For::PastOffer) else { return Attempt::Waits };
        let Some(ask) = self.queue.remove(index) else { return Attempt::Idle };
        budget.spend_steps(PIECE_STEPS);
        let ran = match &ask.request {
            Request::Query(query) => self.run_query(&ask, query, budget, ctx),
            Request::Watch(query) => {
                self.run_watch(&ask, Watch::new(ask.handle, query.clone()), ctx)
            }
            _ => unreachable!("BUG: no query"),
        };
        budget.spend_steps(self.take_steps());
        if !matches!(ran, Ran::Done) {
            match self.wait_or_fail(For::PastOffer, ran, kth, ctx) {
                Ok(()) => {
                    self.queue.insert(index, ask);
                    return Attempt::Waits;
                }
                Err(failure) => ask.fail(failure, ctx.out),
            }
        }
        self.reads.forget_fault(For::PastOffer);
        Attempt::Done
    }

    /// Where that query is in the queue.
    fn next_past_offer(&self) -> Option<usize> {
        // Before all of it is durable it may yet be taken back.
        let is_frozen = self.following.offer.is_some() && self.ledger.is_drained();
        if !is_frozen || self.open().is_none_or(|open| open.is_unadopted) {
            return None;
        }
        let mut before = BTreeSet::new();
        self.queue.iter().position(|ask| {
            let holder = (ask.tab, ask.handle);
            let is_first = before.insert(holder);
            let is_query = matches!(ask.request, Request::Query(_) | Request::Watch(_));
            is_query && is_first && self.handles.contains_key(&holder)
        })
    }

    /// Answers the request that was in front with a failure.
    fn fail_front(&mut self, ask: Ask, why: CallFailure, ctx: &mut Context<'_>) -> Attempt {
        ask.fail(why, ctx.out);
        self.forget_front();
        self.let_go_of_doctypes();
        Attempt::Done
    }

    /// What was found out for the request that was in front is for no other one.
    pub(super) fn forget_front(&mut self) {
        self.reads.forget_fault(For::Front);
        self.following.rebase_failure = None;
    }

    /// What SQLite has done for the document since this was last called.
    pub(super) fn take_steps(&mut self) -> u64 {
        match &mut self.state {
            State::Open(open) => open.take_steps(),
            _ => 0,
        }
    }

    /// Whether the mutation in front waits until others of this document are durable: a core that
    /// dies leaves no more calls behind than the store remembers, so the next one recognises each
    /// of them. Without a page server none can become durable, and all of them are run again. And
    /// whatever they write is in memory until then.
    fn waits_for_the_disk(&self, ctx: &Context<'_>) -> bool {
        let is_mutation =
            self.queue.front().is_some_and(|ask| matches!(ask.request, Request::Mutate(_)));
        let are_many = self.settling >= ctx.settings.limits.calls_kept_max && ctx.store.is_ready();
        let may_be_served = |from_ms| ctx.now_ms < from_ms;
        let is_much = self.is_own_far_ahead_of_disk(ctx)
            && ctx.store.is_unserved_from_ms().is_none_or(may_be_served);
        let waits = is_mutation && (are_many || is_much);
        if waits {
            reached(Probe::MutationWaitedForDisk);
        }
        waits
    }

    /// Why a mutation is not recorded for now: nobody serves the store, and no more of what this
    /// device decides is to be in memory alone. It has waited for somebody.
    fn why_not_recorded(&self, name: &str, ctx: &Context<'_>) -> Option<CallFailure> {
        let is_refused = self.is_own_far_ahead_of_disk(ctx) && ctx.store.server().is_none();
        is_refused.then(|| CallFailure::much_is_unstored(name, ctx.store.why_unserved()))
    }

    /// Whether no more of what this device decides is to be written before the disk has some of
    /// it. What is not on its way yet goes there with the next mutation.
    pub(super) fn is_own_far_ahead_of_disk(&self, ctx: &Context<'_>) -> bool {
        let is_local = self.open().is_some_and(|open| matches!(open.role, Role::Local(_)));
        let is_much = self.unstored.in_flight_size > ctx.settings.limits.entries_unstored_size_max;
        is_local && is_much && !ctx.store.is_lost()
    }

    pub(super) fn to_fetch(&self, pgid: Pgid, kth: u32) -> Vec<Pgid> {
        match self.replica() {
            // Whoever sees the layers does not lack it.
            Some(replica) if replica.view().page(pgid).is_some() => {
                replica.confirmed_to_fetch(pgid, kth)
            }
            _ => self.open().map(|open| open.view().to_fetch(pgid, kth)).unwrap_or_default(),
        }
    }

    fn run(&mut self, ask: &mut Ask, budget: &mut Budget, ctx: &mut Context<'_>) -> Ran {
        match &ask.request {
            Request::Open(request) => return self.run_open(ask, request, ctx),
            Request::Close => {
                self.close(ask, ctx.out);
                return Ran::Done;
            }
            _ if !self.handles.contains_key(&(ask.tab, ask.handle)) => {
                return Ran::Failed(CallFailure::closed());
            }
            _ => {}
        }
        if let State::Absent = self.state {
            self.create_again(ctx);
        }
        match self.adopt_with_what_is_here(Some((ask.tab, ask.handle)), ctx) {
            Ran::Done => {}
            ran => return ran,
        }
        if self.replica().is_some_and(|replica| !replica.is_built()) {
            return Ran::Waits;
        }
        if let Request::Mutate(mutate) = &mut ask.request
            && let Some(again) = mutate.again
        {
            let id = mutate.id;
            if self.settle_again(ask, id, again, ctx) {
                return Ran::Done;
            }
            reached(Probe::CallNotFound);
            // It was not recorded: from here on it is a mutation like any other.
            ask.make_first();
        }
        let damage = match ask.request {
            // It is the same at each version.
            Request::Sync => Ok(None),
            _ => self.damage_before(ask.tab, ask.handle, ctx.store),
        };
        let damage = match damage {
            Ok(damage) => damage,
            Err(ran) => return ran,
        };
        let ran = self.run_in_turn(ask, damage.as_ref(), budget, ctx);
        match ran {
            Ran::Failed(failure) => Ran::Failed(failure.unless_for(damage)),
            ran => ran,
        }
    }

    /// Runs what needs the document, with the `damage` that keeps it from its handle's version.
    fn run_in_turn(
        &mut self,
        ask: &Ask,
        damage: Option<&CallFailure>,
        budget: &mut Budget,
        ctx: &mut Context<'_>,
    ) -> Ran {
        match &ask.request {
            Request::Open(_) | Request::Close => unreachable!("BUG: they do not need it"),
            // What is shown stays as it is: to take back what cannot be kept, it would have to be
            // read from files that may not be there.
            Request::Mutate(_) if ctx.store.is_lost() => Ran::Failed(CallFailure::data_cleared()),
            // Its statements are meant for another schema.
            Request::Mutate(_) if let Some(damage) = damage => Ran::Failed(damage.clone()),
            Request::Mutate(mutate) => self.run_mutate(ask, mutate, budget, ctx),
            Request::Query(query) => self.run_query(ask, query, budget, ctx),
            Request::Watch(query) => {
                self.run_watch(ask, Watch::new(ask.handle, query.clone()), ctx)
            }
            Request::Events(events) => {
                let mut events = events.clone();
                match self.note_consumer(&mut events) {
                    Ok(()) => self.run_watch(ask, Watch::of_events(ask.handle, events), ctx),
                    Err(failure) => Ran::Failed(failure),
                }
            }
            Request::Outcome(command) => {
                self.run_watch(ask, Watch::of_outcome(ask.handle, command.clone()), ctx)
            }
            Request::Handle(handling) => self.begin_handling(ask, handling, ctx),
            Request::Complete(complete) => self.take_completion(ask, complete, ctx.out),
            Request::Records(records) => {
                self.run_watch(ask, Watch::of_records(ask.handle, records.clone()), ctx)
            }
            Request::Sync => self.run_sync(ask, ctx),
            Request::Export => self.run_export(ask, ctx),
        }
    }

    /// The damage that keeps the document from the version of this handle, if there is any: what
    /// fails for its words fails for that. Where want of memory keeps it from there, nothing runs:
    /// it is tried again by itself, and what ran now would have no final answer.
    pub(super) fn damage_before(
        &mut self,
        tab: TabId,
        handle: Handle,
        store: &StoreLink,
    ) -> Result<Option<CallFailure>, Ran> {
        let State::Open(open) = &mut self.state else { return Ok(None) };
        let Some(handle) = self.handles.get(&(tab, handle)) else { return Ok(None) };
        match open.is_short_of(handle) {
            Ok(false) => {}
            Ok(true) => return Err(Ran::Failed(CallFailure::short_of_memory())),
            Err(pgid) => return Err(Ran::Fault(pgid)),
        }
        let lacks = open.adoption_lacks.and_then(|pgid| self.reads.why_lost(&[pgid], store));
        let Some(damage) = lacks else { return Ok(None) };
        match open.is_migrated_to(&handle.doctype) {
            Run::Done(is_migrated) => Ok((!is_migrated).then_some(damage)),
            Run::Fault(pgid) => Err(Ran::Fault(pgid)),
            Run::Failed(failure) => Err(Ran::Failed(CallFailure::of_query(&failure))),
        }
    }

    /// A handle lets go of the document; what was asked with it and still waits is answered with
    /// that, so that nothing is kept for it.
    pub(super) fn close(&mut self, ask: &Ask, out: &mut Outbox) {
        self.handles.remove(&(ask.tab, ask.handle));
        for late in mem::take(&mut self.queue) {
            let is_its = (late.tab, late.handle) == (ask.tab, ask.handle);
            match late.request {
                Request::Open(_) => self.queue.push_back(late),
                _ if is_its => late.fail(CallFailure::closed(), out),
                _ => self.queue.push_back(late),
            }
        }
        out.ended.push((ask.tab, ask.handle));
        self.rejection_news.drop_listener(ask.tab, ask.handle);
        self.watches.drop_handle(ask.tab, ask.handle);
        self.syncs.retain(|sync| {
            let is_its = (sync.tab, sync.handle) == (ask.tab, ask.handle);
            if is_its {
                let failure = CallFailure::closed();
                out.tell(sync.tab, FromCore::Failed { call: sync.call, failure });
            }
            !is_its
        });
        out.tell(ask.tab, FromCore::Done { call: ask.call });
        self.let_go_of_doctypes();
    }

    // --- mutate --------------------------------------------------------------------------------

    #[inline(never)]
    fn run_mutate(
        &mut self,
        ask: &Ask,
        mutate: &Mutate,
        budget: &mut Budget,
        ctx: &Context<'_>,
    ) -> Ran {
        if let Some(failure) = self.why_not_recorded(&mutate.name, ctx) {
            return Ran::Failed(failure);
        }
        let State::Open(open) = &mut self.state else { unreachable!("BUG: not open") };
        let Mutate { id, name, args, now_ms, .. } = mutate;
        let handle = &self.handles[&(ask.tab, ask.handle)];
        let Some(action) = handle.doctype.action(name) else {
            return Ran::Failed(CallFailure::unknown_mutation(name, &handle.doctype.name));
        };
        let args = match action.bind(args) {
            Ok(args) => args,
            Err(error) => return Ran::Failed(CallFailure::argument(name, &error)),
        };
        let mutation = Mutation {
            doctype: handle.hash,
            name: name.clone(),
            args,
            now_ms: *now_ms,
            client: open.record.client(),
            user: open.record.subject.as_ref().unwrap_or(&self.key.user).clone(),
            kept_rejections: Lsn::FIRST,
            moved_from: None,
        };
        let size = size_of_args(&mutation.args);
        if size > MUTATION_SIZE_MAX {
            return Ran::Failed(CallFailure::new(
                ErrorCode::MutationArgument,
                format!("the arguments of {name} are over {MUTATION_SIZE_MAX} bytes"),
            ));
        }
        let needed = match action {
            Action::Mutation(_) => TokenRole::Write,
            Action::Send(..) | Action::Start(_) | Action::Cancel(_) => TokenRole::Send,
        };
        if let (Role::Synced(_), Some(access)) = (&open.role, open.record.access)
            && access < needed
        {
            return Ran::Failed(CallFailure::may_not_change(name, &self.key.document, access));
        }
        if let Role::Synced(synced) = &open.role
            && synced.replica.undecided_size() >= open.view().limits().undecided_size_max
        {
            reached(Probe::MuchUndecided);
            return Ran::Failed(CallFailure::much_is_undecided(name));
        }
        let run = match &mut open.role {
            Role::Local(authority) => authority
                .apply_local(*id, &mutation, &handle.doctype)
                .map(|applied| (applied.lsn, applied.changed)),
            Role::Synced(synced) => synced.replica.issue(*id, mutation).map(|issued| {
                let lsn = issued.frame.lsn;
                let draft = self.ledger.draft();
                draft.timeline_id = Some(synced.replica.timeline());
                draft.timeline.push(issued.frame);
                self.confirming.insert(*id, (ask.tab, ask.call));
                (lsn, issued.changed)
            }),
        };
        match run {
            Run::Done((lsn, changed)) => {
                budget.spend_pages(changed.len() as u64);
                budget.spend_bytes(size as u64);
                self.watches.mark(&changed, open.view());
                let entry = open.entry_id(lsn);
                if let Role::Local(_) = open.role {
                    self.watches.mark_confirmed();
                    self.note_local_command();
                }
                self.settle(ask, *id, entry, None);
                self.note_lives();
                Ran::Done
            }
            Run::Fault(pgid) => Ran::Fault(pgid),
            Run::Failed(failure) => Ran::Failed(CallFailure::of_mutation(name, &failure)),
        }
    }

    /// The caller is told once what has been gathered is durable.
    fn settle(&mut self, ask: &Ask, id: CallId, entry: EntryId, again: Option<Box<Ask>>) {
        self.recorded.insert(id, entry);
        self.settling += 1;
        let (tab, call, is_noticed) = (ask.tab, ask.call, false);
        let is_confirmed = self.synced().is_none();
        let settle = Settle { tab, call, id, entry, is_confirmed, is_noticed, again };
        self.ledger.after(Then::Settle(settle));
    }

    /// A tab asks again, of another core or on another port: says what became of the call, if it
    /// was recorded. What the tab was told is durable, and the copy that it was recorded in if at
    /// all, may be of other data than these: they were cleared, put back, or have another timeline.
    fn settle_again(
        &mut self,
        ask: &Ask,
        id: CallId,
        Again { durable: told, copy, since }: Again,
        ctx: &mut Context<'_>,
    ) -> bool {
        let (tab, call) = (ask.tab, ask.call);
        let State::Open(open) = &self.state else { unreachable!("BUG: not open") };
        if let Role::Synced(synced) = &open.role
            && let Some(lsn) = synced.replica.find_call(id)
        {
            reached(Probe::CallFoundUndecided);
            let (entry, is_durable) = (open.entry_id(lsn), lsn < synced.durable);
            self.confirming.insert(id, (tab, call));
            if is_durable {
                ctx.out.tell(tab, FromCore::Durable { call, entry });
            } else {
                reached(Probe::CallFoundInFlight);
                self.settle(ask, id, entry, Some(Box::new(ask.clone())));
            }
            return true;
        }
        if self.rejection_news.holds_back(id) {
            self.ledger.after(Then::AskedAgain(Box::new(ask.clone())));
            return true;
        }
        // By its name: LSNs count per timeline, and these may be of several.
        let rejected = open.record.rejections.iter().find(|rejection| rejection.call == id);
        if let Some(&KeptRejection { entry, ref mutation, ref reason, .. }) = rejected {
            reached(Probe::CallFoundRejected);
            let failure = CallFailure::rejected(mutation, reason);
            ctx.out.tell(tab, FromCore::Durable { call, entry });
            ctx.out.tell(tab, FromCore::Rejected { call, entry, failure });
            return true;
        }
        let here = told.filter(|told| open.has_decided(*told)).or(self.recorded.get(id));
        let Some(entry) = here else {
            let is_lost = told.is_some() || copy.is_some_and(|copy| copy != open.record.client());
            let journal = open.head().journal;
            // The store does not keep the calls that had their verdict as a timeline was left. A
            // journal that is the server's now was no timeline.
            let is_left = since[0].is_some_and(|head| {
                head.journal != journal && open.base().is_none_or(|at| at.journal != head.journal)
            });
            let mut since = since.into_iter().flatten().filter(|since| since.journal == journal);
            let recorded = &self.recorded;
            let remembers =
                !recorded.has_forgotten || since.any(|since| recorded.knows_all_since(since));
            let is_known = remembers && !is_left;
            let failure = match (is_lost, is_known) {
                (true, _) => CallFailure::lost(),
                // It may be among what is lost of this copy.
                _ if open.is_incomplete => {
                    CallFailure { outcome: Outcome::Unknown, ..CallFailure::damaged_copy() }
                }
                (false, false) => CallFailure::unremembered(),
                // Calls of one handle are recorded in their order: it had its turn and was refused.
                (false, true) if recorded.has_later(id) => CallFailure::refused_before(),
                (false, true) => return false,
            };
            ctx.out.tell(tab, FromCore::Failed { call, failure });
            return true;
        };
        reached(Probe::CallFoundDecided);
        if matches!(open.role, Role::Local(_)) && entry.lsn >= open.storage_durable {
            reached(Probe::CallFoundInFlight);
            self.settle(ask, id, entry, Some(Box::new(ask.clone())));
            return true;
        }
        let verdict = match open.is_applied(entry) {
            true => FromCore::Confirmed { call, entry, lsn: open.visible().get() - 1 },
            false => FromCore::Failed { call, failure: CallFailure::forgotten() },
        };
        ctx.out.tell(tab, FromCore::Durable { call, entry });
        ctx.out.tell(tab, verdict);
        true
    }

    // --- query, watch, sync, export -------------------------------------------------------------

    fn run_query(
        &mut self,
        ask: &Ask,
        query: &Query,
        budget: &mut Budget,
        ctx: &mut Context<'_>,
    ) -> Ran {
        let State::Open(open) = &mut self.state else { unreachable!("BUG: not open") };
        match open.reader_at(ctx.now_ms).query(&query.sql, &query.params) {
            Run::Done(rows) => {
                budget.spend_bytes(rows.cells.len() as u64);
                ctx.out.tell(ask.tab, FromCore::Rows { call: ask.call, rows });
                Ran::Done
            }
            Run::Fault(pgid) => Ran::Fault(pgid),
            Run::Failed(failure) => {
                Ran::Failed(CallFailure::of_query(&failure).quoting(&query.sql))
            }
        }
    }

    pub(super) fn run_watch(&mut self, ask: &Ask, mut watch: Watch, ctx: &mut Context<'_>) -> Ran {
        let has_all = self.has_all_events();
        let State::Open(open) = &mut self.state else { unreachable!("BUG: not open") };
        let doctype = self.handles.get(&(ask.tab, ask.handle)).map(|holder| &holder.doctype);
        let ran = match watch.look(open, doctype, has_all, ctx.now_ms) {
            Run::Done(Some(rows)) if watch.is_for_once() => {
                let Ask { tab, call, .. } = *ask;
                self.found(Found { tab, call, rows, watch }, ctx.out);
                return Ran::Done;
            }
            Run::Done(news) => {
                if let Some(rows) = news {
                    ctx.out.tell(ask.tab, FromCore::Rows { call: ask.call, rows });
                }
                Ran::Done
            }
            Run::Fault(pgid) => return Ran::Fault(pgid),
            Run::Failed(failure) if watch.is_for_once() => {
                return Ran::Failed(watch.failure_of(&failure));
            }
            Run::Failed(failure) => Ran::Failed(watch.failure_of(&failure)),
        };
        self.watches.insert(ask.tab, ask.call, watch);
        ran
    }

    /// Has whoever asks for events go on where it ended, or keeps where that is.
    fn note_consumer(&mut self, events: &mut Events) -> Result<(), CallFailure> {
        let Some(Consumer { name, begins }) = &events.consumer else { return Ok(()) };
        let State::Open(open) = &mut self.state else { unreachable!("BUG: not open") };
        let (consumers, after) = (&mut open.record.consumers, &mut events.wanted.after);
        let kept = consumers.get(name).copied().unwrap_or(0);
        if *begins {
            *after = kept.max(*after);
        } else if kept != *after {
            let is_new = !consumers.contains_key(name);
            if name.len() > CONSUMER_NAME_SIZE_MAX || is_new && consumers.len() >= CONSUMERS_MAX {
                return Err(CallFailure::many_consumers(name));
            }
            consumers.insert(name.clone(), *after);
            open.record_due = open.record_due.max(Some(RecordDue::BehindLast));
        }
        Ok(())
    }

    fn run_sync(&mut self, ask: &Ask, ctx: &mut Context<'_>) -> Ran {
        let Some(replica) = self.replica() else {
            self.local_syncs += 1;
            self.ledger.after(Then::Synced(Box::new(ask.clone())));
            return Ran::Done;
        };
        let timeline = (replica.timeline(), replica.head());
        self.doubt_server(ctx.now_ms);
        let mut sync = SyncWait {
            tab: ask.tab,
            handle: ask.handle,
            call: ask.call,
            asked_at_ms: ctx.now_ms,
            timeline,
            storage: None,
            probe: None,
        };
        self.probe(&mut sync, ctx);
        self.syncs.push(sync);
        Ran::Done
    }

    fn run_export(&mut self, ask: &Ask, ctx: &mut Context<'_>) -> Ran {
        let State::Open(open) = &self.state else { unreachable!("BUG: not open") };
        match open.view().image() {
            Some(file) => {
                ctx.out.tell(ask.tab, FromCore::Exported { call: ask.call, file });
                Ran::Done
            }
            None => Ran::Needs(open.view().missing()),
        }
    }
}
