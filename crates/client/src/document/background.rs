//! What nobody waits for in particular: rebase, the seed of an offer, live queries.

use tidelog_document::{Advance, Decided, Verdict};
use tidelog_pages::Urgency;
use tidelog_sqlite::Run;
use tidelog_sync::Sender;
use tidelog_types::limits::REJECTIONS_KEPT_MAX;
use tidelog_types::{Lsn, Pgid};

use super::{Attempt, Context, Document, Fault, Role};
use crate::protocol::{CallFailure, FromCore};
use crate::record::KeptRejection;

/// Slices of background work in one step; then other inputs get their turn.
pub(super) const SLICES_MAX: u32 = 16;

impl Document {
    /// Runs a slice of what is due.
    #[inline(never)]
    pub(super) fn run_background(&mut self, ctx: &mut Context<'_>) -> Attempt {
        let kth = match &self.back_fault {
            Some(fault) if self.reads.contains_key(&fault.request) => return Attempt::Waits,
            Some(fault) => fault.kth + 1,
            None => 0,
        };
        self.back_fault = None::<Fault>;
        if !self.loaded || self.role.is_none() {
            return Attempt::Idle;
        }
        match self.run_slice(ctx) {
            Run::Done(attempt) => attempt,
            Run::Fault(pgid) => self.wait_for(pgid, kth, ctx),
            Run::Failed(failure) => {
                let failure = CallFailure::new(
                    tidelog_types::ErrorCode::Doctype,
                    format!("the document's changes cannot be taken in: {failure}"),
                );
                self.following.rebase_failure = Some(failure.clone());
                self.error = Some(failure);
                Attempt::Done
            }
        }
    }

    fn wait_for(&mut self, pgid: Pgid, kth: u32, ctx: &mut Context<'_>) -> Attempt {
        let pgids = match &self.role {
            Some(Role::Synced(replica)) if !replica.is_settled() => replica.to_fetch(pgid, kth),
            _ => self.to_fetch(pgid, kth),
        };
        self.back_fault = self.fetch(Urgency::Background, pgids, kth, ctx);
        if self.back_fault.is_none() {
            self.error = Some(CallFailure::absent_page());
        }
        Attempt::Waits
    }

    fn run_slice(&mut self, ctx: &mut Context<'_>) -> Run<Attempt> {
        if let Some(Role::Synced(replica)) = &mut self.role
            && !replica.is_settled()
        {
            let new_timeline = ctx.rng.journal();
            return match replica.step(new_timeline) {
                Run::Done(Some(advance)) => {
                    self.advance(advance, ctx);
                    Run::Done(Attempt::Done)
                }
                Run::Done(None) => Run::Done(Attempt::Done),
                Run::Fault(pgid) => Run::Fault(pgid),
                Run::Failed(failure) => Run::Failed(failure),
            };
        }
        if self.seed_is_wanted() {
            let missing = self.view().map(tidelog_sqlite::View::missing).unwrap_or_default();
            if let Some(pgid) = missing.first() {
                return Run::Fault(*pgid);
            }
            self.send_seed(ctx);
            return Run::Done(Attempt::Done);
        }
        self.run_dirty_watch(ctx)
    }

    fn run_dirty_watch(&mut self, ctx: &mut Context<'_>) -> Run<Attempt> {
        let dirty = self.watches.iter().find(|(_, watch)| watch.dirty).map(|(key, _)| *key);
        let Some((tab, call)) = dirty else { return Run::Done(Attempt::Idle) };
        let mut watch = self.watches.remove(&(tab, call)).expect("BUG: found just now");
        let run = self.look(&mut watch, ctx);
        self.watches.insert((tab, call), watch);
        match run {
            Run::Done(news) => {
                if let Some(rows) = news {
                    ctx.out.tell(tab, FromCore::Rows { call, rows });
                }
            }
            Run::Fault(pgid) => return Run::Fault(pgid),
            Run::Failed(failure) => {
                let failure = CallFailure::of_query(&failure);
                ctx.out.tell(tab, FromCore::Failed { call, failure });
            }
        }
        Run::Done(Attempt::Done)
    }

    /// Newer pages of the server are visible: to the disk with them, and tell who waits.
    #[inline(never)]
    pub(super) fn advance(&mut self, advance: Advance, ctx: &mut Context<'_>) {
        if advance.begin_timeline.is_some() || advance.begin_storage.is_some() {
            // An append begins its journals first: what belongs to the old ones goes before.
            self.flush_append(ctx);
        }
        self.append.begin_storage = advance.begin_storage;
        for entry in advance.entries {
            self.append_storage(entry);
        }
        if let Some(trim) = advance.trim {
            // In one append with the entries: they are forgotten only with what replaces them.
            self.append.trim_timeline = Some(trim);
            let acked = self.sender.on_acked(trim, self.durable.max(trim));
            debug_assert!(acked.is_ok(), "BUG: decided beyond what exists");
        }
        let visible = self.base_position().map_or(Lsn::FIRST, |position| position.next);
        for decided in advance.decided {
            self.decided(decided, visible, ctx);
        }
        if let Some((timeline, frames)) = advance.begin_timeline {
            let record = self.record.as_mut().expect("BUG: synced without a record");
            record.kept = Lsn::FIRST;
            self.append_record();
            self.append.begin_timeline = Some((timeline, Lsn::FIRST));
            for sync in &mut self.syncs {
                sync.timeline = Lsn::FIRST.plus(frames.len() as u64);
            }
            self.append.timeline = frames;
            self.durable = Lsn::FIRST;
            self.sender = Sender::new(Lsn::FIRST);
            self.flush_append(ctx);
            // The server knows this client by its old timeline: say the new one.
            self.leave_server(ctx);
        }
        if self.error.as_ref().is_some_and(|e| e.code == tidelog_types::ErrorCode::DocumentReplaced)
        {
            self.error = None;
        }
        self.say_received(ctx);
        self.mark_dirty(&advance.changed);
    }

    fn decided(&mut self, decided: Decided, visible: Lsn, ctx: &mut Context<'_>) {
        let waiting = self.confirming.remove(&decided.call);
        let lsn = Lsn::new(visible.get() - 1).unwrap_or(Lsn::FIRST);
        match decided.verdict {
            Verdict::Applied => {
                if let Some((tab, call)) = waiting {
                    ctx.out.tell(tab, FromCore::Confirmed { call, lsn: lsn.get() });
                }
            }
            Verdict::Rejected { reason } => {
                if let Some((tab, call)) = waiting {
                    let failure = CallFailure::rejected(&decided.mutation.name, &reason);
                    ctx.out.tell(tab, FromCore::Rejected { call, failure });
                }
                let rejection = KeptRejection {
                    lsn: decided.lsn,
                    mutation: decided.mutation.name,
                    args: decided.mutation.args,
                    reason,
                    handled: false,
                };
                self.keep_rejection(rejection, ctx);
            }
        }
    }

    fn keep_rejection(&mut self, rejection: KeptRejection, ctx: &mut Context<'_>) {
        let listening = self.handles.iter().filter(|(_, handle)| handle.listens);
        for ((tab, handle), _) in listening {
            ctx.out.tell(*tab, rejection.news(*handle));
        }
        let record = self.record.as_mut().expect("BUG: synced without a record");
        record.kept = record.kept.max(rejection.lsn.next());
        if record.rejections.len() == REJECTIONS_KEPT_MAX {
            record.rejections.remove(0);
        }
        record.rejections.push(rejection);
        if let Some(Role::Synced(replica)) = &mut self.role {
            replica.keep_rejections(record.kept);
        }
        self.append_record();
    }
}
