//! What nobody waits for in particular: rebase, the seed of an offer, live queries.

use tidelog_document::{Advance, Decided, Replica, Verdict};
use tidelog_pages::TimelineFrame;
use tidelog_sqlite::Run;
use tidelog_types::{Budget, ErrorCode, Lsn, Pgid, Rows};

use super::requests::Ran;
use super::storing::Then;
use super::watches::Found;
use super::{Attempt, Context, Document, For, PIECE_STEPS, Role, State};
use crate::effect::TabId;
use crate::outbox::Outbox;
use crate::protocol::{Call, CallFailure, FromCore, Handle, Request};
use crate::record::KeptRejection;

/// Milliseconds after which what could not be built for want of memory is built again; doubles each
/// time in a row that it is short of something again, so many times at most.
const BUILD_AGAIN_MS: u64 = 1_000;
const BUILD_AGAIN_DOUBLINGS_MAX: u32 = 6;

/// When layers are built anew that are short of something, or a local document is brought again to
/// what there was no memory for.
#[derive(Default)]
pub(super) struct BuildAgain {
    pub(super) at_ms: Option<u64>,
    /// How often in a row it was short of something.
    times: u32,
}

impl Document {
    /// Builds layers anew that are short of something, if it is time: for the doctypes of tabs,
    /// which a rebase that was given up has forgotten. A local document is brought to them again.
    pub(super) fn build_again_what_was_short(&mut self, now_ms: u64) {
        if self.build_again.at_ms.take_if(|at_ms| now_ms >= *at_ms).is_none() {
            return;
        }
        let (doctypes, is_offered) = (self.doctypes_of_handles(), self.is_handing_over());
        match self.open_mut().map(|open| (&mut open.role, &mut open.short_of)) {
            Some((Role::Synced(synced), _)) => {
                synced.replica.retry();
                doctypes.into_iter().for_each(|doctype| synced.replica.learn(doctype));
            }
            // Nobody changes one that is being handed over.
            Some((Role::Local(_), short_of)) if !is_offered => short_of.clear(),
            Some((Role::Local(_), _)) | None => {}
        }
    }

    /// Has what is short of something built again after a pause, whether anything else happens or
    /// not.
    pub(super) fn see_whether_it_is_short(&mut self, now_ms: u64) {
        let Some(open) = self.open() else { return };
        let BuildAgain { at_ms, times } = self.build_again;
        match open.is_short() {
            true if at_ms.is_none() => {
                let pause_ms = BUILD_AGAIN_MS << times.min(BUILD_AGAIN_DOUBLINGS_MAX);
                let at_ms = Some(now_ms + pause_ms);
                self.build_again = BuildAgain { at_ms, times: times.saturating_add(1) };
            }
            false if times > 0 && !open.is_unbuilt() => {
                self.build_again = BuildAgain::default();
                self.has_memory_again();
            }
            true | false => {}
        }
    }

    /// Runs a piece of what is due.
    #[inline(never)]
    pub(super) fn run_background(&mut self, budget: &mut Budget, ctx: &mut Context<'_>) -> Attempt {
        let faults_met = [For::Rebase, For::Background].map(|who| self.reads.faults_met(who));
        let [Some(of_rebase), Some(of_others)] = faults_met else { return Attempt::Waits };
        if self.open().is_none() {
            self.forget_background_faults();
            return Attempt::Idle;
        }
        budget.spend_steps(PIECE_STEPS);
        let runs_again = self.runs_again();
        let (who, ran) = self.run_piece(budget, ctx);
        budget.spend_steps(self.take_steps());
        let kth = match who {
            // One that has got on is in another mutation: this is the first fault of that.
            For::Rebase if self.runs_again() != runs_again => 0,
            For::Rebase => of_rebase,
            _ => of_others,
        };
        match ran {
            Run::Fault(pgid) => self.wait_for(who, pgid, kth, ctx),
            Run::Done(attempt) => {
                self.reads.forget_fault(who);
                attempt
            }
            Run::Failed(failure) => {
                self.reads.forget_fault(who);
                self.give_up_rebase(CallFailure::of_rebase(&failure), ctx);
                Attempt::Done
            }
        }
    }

    fn forget_background_faults(&mut self) {
        self.reads.forget_fault(For::Rebase);
        self.reads.forget_fault(For::Background);
    }

    fn runs_again(&self) -> u64 {
        self.replica().map_or(0, Replica::runs_again)
    }

    /// The layers cannot be built: the rest of the document is read without them, and the server is
    /// asked again for the entries, which are forgotten, after a pause. Whoever opens it by a
    /// doctype that it is not at is told that.
    fn give_up_rebase(&mut self, failure: CallFailure, ctx: &mut Context<'_>) {
        if let Some(synced) = self.open_mut().and_then(|open| open.synced_mut()) {
            synced.replica.give_up();
        }
        if self.is_opened_by_newer_doctype() {
            self.following.rebase_failure = Some(failure.clone());
        }
        self.refuse(failure, ctx);
    }

    fn is_opened_by_newer_doctype(&self) -> bool {
        let (Some(replica), Some(ask)) = (self.replica(), self.queue.front()) else { return false };
        match &ask.request {
            Request::Open(request) => replica.is_behind(&request.doctype),
            _ => false,
        }
    }

    fn wait_for(&mut self, who: For, pgid: Pgid, kth: u32, ctx: &mut Context<'_>) -> Attempt {
        let pgids = match self.replica().filter(|_| who == For::Rebase) {
            Some(replica) => replica.to_fetch(pgid, kth),
            None => self.to_fetch(pgid, kth),
        };
        let failure = if let Some(failure) = self.reads.why_lost(&[pgid], ctx.store) {
            failure
        } else if !self.reads.fetch(who, pgids, kth, &self.key, ctx) {
            CallFailure::absent_page()
        } else {
            return Attempt::Waits;
        };
        self.forget_background_faults();
        self.is_live_query_due = false;
        self.error = Some(failure.clone());
        // Without that page nothing comes of an offer either.
        match self.fail_offer(failure) {
            true => Attempt::Done,
            false => Attempt::Waits,
        }
    }

    /// Runs a piece of what is due first, and says which that is.
    fn run_piece(&mut self, budget: &mut Budget, ctx: &mut Context<'_>) -> (For, Run<Attempt>) {
        if self.is_adoption_due(ctx.now_ms) {
            match self.adopt_with_what_is_here(None, ctx) {
                Ran::Fault(pgid) => return (For::Background, Run::Fault(pgid)),
                // It found no memory, or needs a page that cannot be had: the rest need not wait.
                _ if self.open().is_some_and(|open| open.is_unadopted) => {}
                _ => return (For::Background, Run::Done(Attempt::Done)),
            }
        }
        if !self.puts_rebase_off(ctx)
            && !self.lets_live_query_run(ctx)
            && let Some(ran) = self.step_rebase(budget, ctx)
        {
            return (For::Rebase, ran.map(|()| Attempt::Done));
        }
        self.reads.forget_fault(For::Rebase);
        let ran = match self.send_seed(budget, ctx) {
            Some(sent) => sent.map(|()| Attempt::Done),
            None => match self.decide_locally(ctx) {
                Some(Run::Fault(pgid)) => match self.reads.why_lost(&[pgid], ctx.store) {
                    Some(failure) => {
                        self.end_handling_locally(&failure, ctx.out);
                        Run::Done(Attempt::Done)
                    }
                    None => Run::Fault(pgid),
                },
                Some(decided) => decided.map(|()| Attempt::Done),
                None => self.run_dirty_watch(ctx),
            },
        };
        self.is_live_query_due &= matches!(ran, Run::Fault(_));
        (For::Background, ran)
    }

    /// Whether a rebase waits until a live query has run.
    fn lets_live_query_run(&mut self, ctx: &Context<'_>) -> bool {
        self.is_live_query_due
            && self.replica().is_some_and(Replica::can_wait)
            && self.watches.next_dirty(ctx.now_ms, |tab| ctx.out.flow.is_behind(tab)).is_some()
    }

    /// Goes on with a rebase, if one is due.
    fn step_rebase(&mut self, budget: &mut Budget, ctx: &mut Context<'_>) -> Option<Run<()>> {
        let State::Open(open) = &mut self.state else { return None };
        let Role::Synced(synced) = &mut open.role else { return None };
        if synced.replica.is_rebased() {
            return None;
        }
        let new_timeline = ctx.rng.journal();
        let may_wait = self.following.put_off_since_ms.is_none();
        match synced.replica.step(new_timeline, may_wait, budget) {
            Run::Done(Some(advance)) => self.advance(advance, ctx),
            Run::Done(None) => {}
            Run::Fault(pgid) => match self.reads.why_lost(&[pgid], ctx.store) {
                Some(failure) => {
                    // Until it is there again, the document may be too old for some.
                    (open.is_unadopted, open.adoption_lacks) = (true, Some(pgid));
                    self.give_up_rebase(failure, ctx);
                }
                None => return Some(Run::Fault(pgid)),
            },
            Run::Failed(failure) => return Some(Run::Failed(failure)),
        }
        Some(Run::Done(()))
    }

    /// Knows the doctypes of tabs again, unless a page that it needs for that is lost, or there is
    /// no memory for it: whoever does not need it goes on without.
    pub(super) fn adopt_with_what_is_here(
        &mut self,
        needs: Option<(TabId, Handle)>,
        ctx: &mut Context<'_>,
    ) -> Ran {
        let lacks = self.open().and_then(|open| open.adoption_lacks);
        if lacks.is_some_and(|pgid| self.reads.why_lost(&[pgid], ctx.store).is_some()) {
            return Ran::Done;
        }
        match self.adopt_handles(needs, ctx) {
            Ran::Fault(pgid) if self.reads.why_lost(&[pgid], ctx.store).is_some() => {
                let open = self.open_mut().expect("BUG: it reads what is not open");
                open.adoption_lacks = Some(pgid);
                Ran::Done
            }
            ran => ran,
        }
    }

    /// Whether it is time to write again what tabs know of the document, and the disk could not
    /// keep, or there was no memory for.
    fn is_adoption_due(&self, now_ms: u64) -> bool {
        let is_unadopted =
            self.open().is_some_and(|open| open.is_unadopted && open.short_of.is_empty());
        // Nobody changes one that is being handed over.
        let may_be = is_unadopted && self.following.offer.is_none() && !self.handles.is_empty();
        let is_written_again = self.write_again.at_ms.is_some_and(|at_ms| now_ms >= at_ms);
        let was_short = self.replica().is_none() && self.build_again.times > 0;
        may_be && (is_written_again || was_short)
    }

    /// Finds out who waits for the end of a task that has ended.
    fn find_endings(&mut self, ctx: &Context<'_>) -> Run<()> {
        let is_built = self.replica().is_none_or(Replica::is_built);
        let Self { watches, state: State::Open(open), reads, .. } = self else {
            return Run::Done(());
        };
        if !watches.wants_endings() || !is_built {
            return Run::Done(());
        }
        match watches.find_endings(open, ctx.now_ms) {
            Run::Done(()) => {}
            Run::Fault(pgid) if reads.why_lost(&[pgid], ctx.store).is_none() => {
                return Run::Fault(pgid);
            }
            // Each is told by itself why it cannot look.
            Run::Fault(_) | Run::Failed(_) => watches.look_for_ends(),
        }
        Run::Done(())
    }

    fn run_dirty_watch(&mut self, ctx: &mut Context<'_>) -> Run<Attempt> {
        match self.find_endings(ctx) {
            Run::Done(()) => {}
            Run::Fault(pgid) => return Run::Fault(pgid),
            Run::Failed(failure) => return Run::Failed(failure),
        }
        if self.open().is_some() && self.has_all_events() {
            self.watches.let_given_wait(false);
        }
        let due = self.watches.next_dirty(ctx.now_ms, |tab| ctx.out.flow.is_behind(tab));
        let Some((tab, handle)) = due.map(|(tab, _, watch)| (tab, watch.handle)) else {
            let rested_ms = self.watches.next_rested_ms(ctx.now_ms);
            rested_ms.into_iter().for_each(|at_ms| ctx.out.wake_at(at_ms));
            return Run::Done(Attempt::Idle);
        };
        let adopted = match self.may_be_behind() {
            true => self.adopt_with_what_is_here(Some((tab, handle)), ctx),
            false => Ran::Done,
        };
        if self.replica().is_some_and(|replica| !replica.is_built()) {
            return Run::Done(Attempt::Done);
        }
        let damage = match adopted {
            Ran::Fault(pgid) => Err(Ran::Fault(pgid)),
            _ => self.damage_before(tab, handle, ctx.store),
        };
        let has_all = self.has_all_events();
        let State::Open(open) = &mut self.state else { return Run::Done(Attempt::Idle) };
        let is_behind = |tab| ctx.out.flow.is_behind(tab);
        let Some((tab, call, watch)) = self.watches.next_dirty(ctx.now_ms, is_behind) else {
            return Run::Done(Attempt::Idle);
        };
        // Its tab may have closed the document, and gives it up.
        let doctype = self.handles.get(&(tab, watch.handle)).map(|holder| &holder.doctype);
        let ran = match damage {
            Ok(damage) => match watch.look(open, doctype, has_all, ctx.now_ms) {
                Run::Done(news) => {
                    match (news, watch.is_for_once()) {
                        (Some(rows), true) => {
                            if let Some(watch) = self.watches.remove(tab, call) {
                                self.found(Found { tab, call, rows, watch }, ctx.out);
                            }
                        }
                        (Some(rows), false) => self.tell_rows((tab, call), rows, ctx.out),
                        (None, _) => {}
                    }
                    self.watches.requeue(tab, call);
                    return Run::Done(Attempt::Done);
                }
                Run::Fault(pgid) => Ran::Fault(pgid),
                Run::Failed(failure) => Ran::Failed(watch.failure_of(&failure).unless_for(damage)),
            },
            Err(ran) => ran,
        };
        let failure = match ran {
            Ran::Failed(failure) => failure,
            Ran::Fault(pgid) => match self.reads.why_lost(&[pgid], ctx.store) {
                None => return Run::Fault(pgid),
                Some(failure) => failure,
            },
            Ran::Done | Ran::Waits | Ran::Needs(_) => {
                unreachable!("BUG: a query waits for one page")
            }
        };
        watch.fail();
        if watch.is_for_once() {
            self.watches.remove(tab, call);
        }
        ctx.out.tell(tab, FromCore::Failed { call, failure });
        Run::Done(Attempt::Done)
    }

    /// Tells what somebody was waiting for. Where this device decides, that may be what the disk
    /// does not have yet: once it has.
    pub(super) fn found(&mut self, found: Found, out: &mut Outbox) {
        if self.is_for_the_disk() {
            self.ledger.after(Then::Found(Box::new(found)));
        } else {
            found.tell(out);
        }
    }

    /// Tells what a live query shows now, or what a handler is given: that likewise.
    fn tell_rows(&mut self, (tab, call): (TabId, Call), rows: Rows, out: &mut Outbox) {
        match self.watches.as_given((tab, call), rows) {
            Ok(given) if self.is_for_the_disk() => {
                self.ledger.after(Then::Given(Box::new(given)));
            }
            Ok(given) => self.watches.give(given, out),
            Err(rows) => out.tell(tab, FromCore::Rows { call, rows }),
        }
    }

    /// Whether this device decides, and its disk does not have all of that yet.
    fn is_for_the_disk(&mut self) -> bool {
        let is_local = self.open().is_some_and(|open| matches!(open.role, Role::Local(_)));
        is_local && !self.is_all_durable()
    }

    /// Whether it may be older than what looks at it was written for: a local document that was
    /// read anew, or any that lacked a page. Nobody changes one that is being handed over.
    fn may_be_behind(&self) -> bool {
        let lacks = self.open().is_some_and(|open| open.adoption_lacks.is_some());
        (self.replica().is_none() || lacks) && self.following.offer.is_none()
    }

    /// Newer pages of the server are visible: to the disk with them, and tell who waits.
    #[inline(never)]
    pub(super) fn advance(&mut self, advance: Advance, ctx: &mut Context<'_>) {
        let begins = advance.begin_timeline.is_some() || advance.begin_storage.is_some();
        if begins && self.ledger.has_gathered() {
            // An append begins its journals first: what belongs to the old ones goes before. What
            // the document notes of itself belongs to none.
            self.flush_gathered(ctx);
        }
        if advance.begin_storage.is_some() {
            self.ledger.draft().begin_storage = advance.begin_storage;
            self.ledger.draft().is_anew = true;
            self.forget_durable_storage();
        }
        for entry in advance.entries {
            self.append_storage(entry);
        }
        let State::Open(open) = &mut self.state else { unreachable!("BUG: not open") };
        let visible = open.visible();
        if let (Some(trim), Some(synced)) = (advance.trim, open.synced_mut()) {
            // In one append with the entries: they are forgotten only with what replaces them.
            let draft = self.ledger.draft();
            draft.timeline_id = Some(synced.replica.timeline());
            draft.trim_timeline = Some(trim);
            let acked = synced.sender.on_acked(trim, synced.durable.max(trim));
            debug_assert!(acked.is_ok(), "BUG: decided beyond what exists");
        }
        let decided = advance.decided.into_iter();
        let rejections: Vec<_> = decided.filter_map(|it| self.decided(it, visible, ctx)).collect();
        if !rejections.is_empty() {
            self.keep_rejections(rejections, ctx);
        }
        self.withdraw(advance.withdrawn, ctx);
        if let Some((timeline, frames)) = advance.begin_timeline {
            let State::Open(open) = &mut self.state else { unreachable!("BUG: not open") };
            if let Some(synced) = open.synced_mut() {
                synced.begin_timeline();
            }
            let entry = |frame: &TimelineFrame| (frame.call, open.entry_id(frame.lsn));
            self.recorded.extend(frames.iter().map(entry));
            for sync in &mut self.syncs {
                sync.timeline = (timeline, Lsn::FIRST.plus(frames.len() as u64));
            }
            self.append_record();
            let draft = self.ledger.draft();
            draft.begin_timeline = Some((timeline, Lsn::FIRST));
            draft.timeline_id = Some(timeline);
            draft.timeline = frames;
            // The server knows this client by its old timeline: say the new one.
            self.leave_server(ctx);
        } else if self.has_caught_up() && !self.is_asked_for_frames() && !self.rename_others() {
            // It knew less of the timeline as it let us in than its pages do, since another copy of
            // the profile has sent it meanwhile: it is asked what it wants by now.
            self.leave_server(ctx);
        }
        if advance.is_replaced {
            self.handlers.are_replaced(&mut self.watches);
        }
        if self.error.as_ref().is_some_and(|e| e.code == ErrorCode::DocumentReplaced) {
            self.error = None;
        }
        self.following.rebase_failure = None;
        self.is_live_query_due = true;
        self.say_received(ctx);
        if let State::Open(open) = &self.state {
            self.watches.mark(&advance.changed, open.view());
            self.watches.mark_confirmed();
        }
    }

    /// Tells who waits for this verdict. Gives the rejection that it is, if it is one.
    fn decided(
        &mut self,
        decided: Decided,
        visible: Lsn,
        ctx: &mut Context<'_>,
    ) -> Option<KeptRejection> {
        let waiting = self.confirming.remove(&decided.call);
        let entry = decided.entry;
        match decided.verdict {
            Verdict::Applied => {
                if let Some((tab, call)) = waiting {
                    let lsn = visible.get() - 1;
                    ctx.out.tell(tab, FromCore::Confirmed { call, entry, lsn });
                }
                None
            }
            Verdict::Rejected { ref reason } => {
                if let Some((tab, call)) = waiting {
                    let failure = CallFailure::rejected(&decided.mutation.name, reason);
                    ctx.out.tell(tab, FromCore::Rejected { call, entry, failure });
                }
                Some(KeptRejection::of(decided))
            }
        }
    }
}
