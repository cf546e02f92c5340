//! Building new layers over newer pages, in slices, beside the old ones.

use std::collections::BTreeSet;
use std::mem;

use tidelog_sqlite::{Failure, Reader, Run, SystemQueries, View, Writer};
use tidelog_types::limits::Limits;
use tidelog_types::probe::{Probe, ran_again, reached};
use tidelog_types::{Budget, EntryId, JournalId, Lineage, Lsn, LsnRange, PageSet, Pgid, Position};

use super::own_layers::OwnLayers;
use super::{Advance, Decided, Replica, ServerEntry};
use crate::program::{self, AppliedTimeline, Rejection, UNKNOWN, Version, done};
use crate::{Mutation, Verdict, public_life};

/// Why a mutation is rejected that its issuer might not issue any more.
const NO_ACCESS: &str = "access";

/// A rebase under way: a view of its own, in which the entries are the lowest layers.
///
/// Readers see the old view until [`complete`](Self::complete). A mutation that is issued
/// meanwhile runs on the old view and joins the end of what is run again here.
pub(super) struct Rebase {
    entries: Vec<ServerEntry>,
    /// Whether the entries take the place of the pages held so far.
    replaced: bool,
    view: View,
    /// The connections that the replica had. It opens others if it is asked for something before
    /// this is complete.
    writer: Writer,
    reader: Reader,
    /// What the authority has decided; known once its tables were read, and the migration has run
    /// if one is needed.
    verdicts: Option<Verdicts>,
    /// How many migrations it shows then.
    version: usize,
    migration: Option<PageSet>,
    migration_failure: Option<Failure>,
    /// Whether something was left out for want of memory.
    short: bool,
    /// What became of the mutations from `verdicts.known` on that were run again, and the layers
    /// that they have of their own.
    ran: Vec<(Verdict, Option<PageSet>)>,
    own_layers: OwnLayers,
    /// All layers as one, without the entries; `None` as long as there are none.
    overlay: Option<PageSet>,
    /// The timeline that undecided mutations go on in, if it is not the one that they are in.
    new_timeline: JournalId,
}

/// What the authority's tables say of this timeline.
struct Verdicts {
    /// The first LSN without a verdict.
    decided: Lsn,
    /// The first LSN from which on nothing is applied; of those before it, nobody can tell.
    known: Lsn,
    /// Those rejected before it, as far as this device has not kept them.
    rejected: Vec<Rejection>,
    /// Rejections before this LSN are gone: what is undecided here is another copy's to know.
    forgotten: Lsn,
    /// From here on to `known` the authority takes nothing.
    withdrawn: Option<Lsn>,
    /// What is undecided goes on in another timeline: another copy of this device has gone on in
    /// this one, the authority has lost what it had decided, or takes no more of it, or it is known
    /// by now whose it is.
    moves: bool,
}

impl Verdicts {
    fn of(replica: &Replica, applied: &AppliedTimeline, rejected: Vec<Rejection>) -> Self {
        let AppliedTimeline { wanted, lives, forgotten, client: _ } = applied;
        let (first, head) = (replica.first(), replica.head);
        let common = replica.public_lives().common_prefix(head, lives, *wanted);
        let moves = common != Some(*wanted) || *wanted < first || replica.renamed.is_some();
        // Where this very life went on behind our head, we are what a machine was rolled back to:
        // what we have written since can have been written before, or not.
        let went_back = *wanted > head && lives.life_at(head) == Some(public_life(replica.life));
        let (decided, known) = match common {
            Some(_) if went_back => (replica.lives.begin_of(replica.life).unwrap_or(head), head),
            Some(common) => (common, common),
            None => (first, *wanted),
        };
        let [decided, known] = [decided, known].map(|lsn| lsn.clamp(first, head));
        let forgotten = *forgotten;
        let is_due = |range: &LsnRange| range.start() <= known && known < range.end();
        match replica.withdrawn.filter(is_due) {
            None => Self { decided, known, rejected, forgotten, withdrawn: None, moves },
            Some(range) => {
                reached(Probe::MutationsWithdrawn);
                let (withdrawn, known) = (Some(known), range.end());
                Self { decided, known, rejected, forgotten, withdrawn, moves: true }
            }
        }
    }
}

/// How far a rebase has come.
pub(super) enum RebaseStep {
    /// There is more to run.
    More,
    /// All was run again: make it visible.
    Complete,
}

impl Rebase {
    /// Begins with all entries that are staged, up to one that takes the place of all before it.
    pub(super) fn begin(replica: &mut Replica, new_timeline: JournalId) -> Self {
        replica.stale = false;
        let is_first = |entry: &ServerEntry| entry.range.start() == Lsn::FIRST;
        let holds_some = replica.base.is_some_and(|base| base.next > Lsn::FIRST);
        let replaced = holds_some && replica.staged.front().is_some_and(is_first);
        let mut entries = Vec::new();
        entries.extend(replica.staged.pop_front());
        while replica.staged.front().is_some_and(|entry| !is_first(entry)) {
            entries.extend(replica.staged.pop_front());
        }
        let view = if replaced { replica.view.emptied() } else { replica.view.fork() };
        for entry in &entries {
            view.push(&entry.set);
        }
        let writer = mem::replace(&mut replica.writer, Writer::new(&replica.view)).move_to(&view);
        let reader = mem::replace(&mut replica.reader, Reader::new(&replica.view)).move_to(&view);
        Self {
            entries,
            replaced,
            view,
            writer,
            reader,
            verdicts: None,
            version: 0,
            migration: None,
            migration_failure: None,
            short: false,
            ran: Vec::new(),
            own_layers: OwnLayers::default(),
            overlay: None,
            new_timeline,
        }
    }

    pub(super) fn entries(&self) -> &[ServerEntry] {
        &self.entries
    }

    pub(super) fn into_entries(self) -> Vec<ServerEntry> {
        self.entries
    }

    /// Whether its entries take the place of the pages held so far.
    pub(super) fn is_replacing(&self) -> bool {
        self.replaced
    }

    /// Whether it rejects what the authority has not decided.
    pub(super) fn withdraws(&self) -> bool {
        self.verdicts.as_ref().is_some_and(|verdicts| verdicts.withdrawn.is_some())
    }

    pub(super) fn last_position(&self) -> Option<Position> {
        self.entries.last().map(|entry| entry.position)
    }

    /// What its runs read.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// Runs a slice, one mutation of it at least: the budget may be spent on other work before, and
    /// whoever has none left has to get on all the same. A fault leaves everything that was run
    /// before it in place.
    pub(super) fn step(&mut self, replica: &mut Replica, budget: &mut Budget) -> Run<RebaseStep> {
        if self.verdicts.is_none() {
            let version = done!(program::version(self.queries(replica)));
            let verdicts = done!(self.read_verdicts(replica, version.is_some()));
            done!(self.migrate(replica, version));
            self.verdicts = Some(verdicts);
        }
        loop {
            let Verdicts { known, moves, .. } =
                *self.verdicts.as_ref().expect("BUG: the authority's tables were read above");
            let index = self.ran.len() as u64;
            let lsn = known.plus(index);
            let Some(undecided) = replica.undecided_at(lsn) else {
                return Run::Done(RebaseStep::Complete);
            };
            let doctype = replica.doctypes.get(&undecided.mutation.doctype);
            let ran = if moves {
                let (journal, life) = (self.new_timeline, replica.life);
                let origin = EntryId { journal, life, lsn: Lsn::FIRST.plus(index) };
                let place = replica.origin(lsn);
                let mutation = moved(&undecided.mutation, place, replica.renamed.as_deref());
                program::run_frame(&mut self.writer, origin, &mutation, doctype)
            } else {
                let origin = replica.origin(lsn);
                program::run_frame(&mut self.writer, origin, &undecided.mutation, doctype)
            };
            let (verdict, set) = match ran {
                Run::Done(ran) => ran,
                Run::Fault(pgid) => return Run::Fault(pgid),
                // Not shown for now; what becomes of it is for the authority to say.
                Run::Failed(failure) => {
                    self.short |= failure.is_passing();
                    self.nothing(&failure)
                }
            };
            budget.spend_pages(set.pages.len() as u64);
            budget.spend_steps(self.writer.take_steps());
            budget.spend_bytes(undecided.body.len() as u64);
            ran_again(undecided.call);
            replica.runs_again += 1;
            self.push(&set);
            let layer = self.own_layers.keep(set, replica.view.limits());
            if layer.is_none() {
                reached(Probe::LayerSharedInRebase);
            }
            self.ran.push((verdict, layer));
            if budget.is_spent() {
                return Run::Done(RebaseStep::More);
            }
        }
    }

    /// The connection that is open or will be needed next, rather than to open another one: that of
    /// mutations if any are to run again.
    fn queries(&mut self, replica: &Replica) -> &mut dyn SystemQueries {
        let is_next = !self.reader.is_open() && !replica.undecided.is_empty();
        match self.writer.is_open() || is_next {
            true => &mut self.writer,
            false => &mut self.reader,
        }
    }

    fn read_verdicts(&mut self, replica: &Replica, holds_some: bool) -> Run<Verdicts> {
        let (mut applied, mut rejected) = (AppliedTimeline::default(), Vec::new());
        let (timeline, undecided) = (replica.timeline, replica.undecided());
        if holds_some {
            applied = done!(program::applied(self.queries(replica), timeline));
        }
        if holds_some && !undecided.is_empty() {
            rejected =
                done!(program::rejections(self.queries(replica), timeline, undecided.start()));
        }
        Run::Done(Verdicts::of(replica, &applied, rejected))
    }

    /// What stands for a mutation that this device can neither apply nor reject.
    fn nothing(&self, failure: &Failure) -> (Verdict, PageSet) {
        let set = PageSet { db_pages: self.view.db_pages(), ..PageSet::default() };
        (Verdict::Rejected { reason: failure.to_string() }, set)
    }

    fn push(&mut self, set: &PageSet) {
        self.view.push(set);
        self.overlay.get_or_insert_default().absorb(set);
    }

    /// Layers that are counted wrong, or beyond their bounds; for simulations.
    pub(super) fn doubt(&self, limits: &Limits) -> Option<String> {
        let layers = self.ran.iter().filter_map(|(_, layer)| layer.as_ref());
        let is_right = self.own_layers.counts(layers, limits);
        (!is_right).then(|| format!("layers of a rebase count {:?}", self.own_layers))
    }

    pub(super) fn layers_count(&self) -> usize {
        self.ran.iter().filter(|(_, layer)| layer.is_some()).count()
    }

    pub(super) fn layer_pages_count(&self) -> usize {
        self.ran.iter().filter_map(|(_, layer)| layer.as_ref()).map(|set| set.pages.len()).sum()
    }

    fn migrate(&mut self, replica: &Replica, version: Option<Version>) -> Run<()> {
        let newest = &replica.doctypes[&replica.newest];
        self.version = version.unwrap_or_default().migrations;
        if program::is_behind(version, newest) {
            match program::migrate(&mut self.writer, newest, version) {
                Run::Done(set) => {
                    reached(Probe::MigratedAhead);
                    self.push(&set);
                    self.migration = Some(set);
                    self.version = newest.migrations.len();
                }
                Run::Fault(pgid) => return Run::Fault(pgid),
                // The document stays at its version, and nobody else is held up by it.
                Run::Failed(failure) => {
                    self.short |= failure.is_passing();
                    self.migration_failure = Some(failure);
                }
            }
        }
        Run::Done(())
    }

    /// Makes the new layers the replica's, in one step.
    pub(super) fn complete(self, replica: &mut Replica) -> Advance {
        let changed = self.changed(replica);
        let Verdicts { decided, known, rejected, forgotten, withdrawn, moves } =
            self.verdicts.expect("BUG: completed before it began");
        let mut advance = Advance { changed, ..Advance::default() };

        // In the order of their LSNs, as the undecided ones are.
        let mut rejected = rejected.into_iter().peekable();
        let mut lsn = replica.first();
        while lsn < known {
            let entry = replica.origin(lsn);
            let undecided = replica.undecided.pop_oldest().expect("BUG: decided beyond the head");
            let (call, mutation) = (undecided.call, undecided.mutation);
            if withdrawn.is_some_and(|from| lsn >= from) {
                let verdict = Verdict::Rejected { reason: NO_ACCESS.to_owned() };
                advance.withdrawn.push(Decided { entry, call, mutation, verdict });
                lsn = lsn.next();
                continue;
            }
            while rejected.next_if(|rejection| rejection.lsn < lsn).is_some() {}
            let verdict = match rejected.next_if(|rejection| rejection.lsn == lsn) {
                Some(Rejection { reason, .. }) if lsn < decided => {
                    reached(Probe::RejectionFound);
                    Verdict::Rejected { reason }
                }
                None if lsn < decided && lsn >= forgotten => Verdict::Applied,
                _ => {
                    reached(Probe::FateUnknown);
                    Verdict::Rejected { reason: UNKNOWN.to_owned() }
                }
            };
            advance.decided.push(Decided { entry, call, mutation, verdict });
            lsn = lsn.next();
        }

        if self.replaced {
            reached(Probe::BaseReplaced);
            replica.view.reset_base(0);
            advance.is_replaced = true;
        }
        // What is held may be another journal also where nothing of that had come.
        let first = self.entries.first().map(|entry| entry.position.journal);
        let held = replica.base.map(|base| base.journal);
        if self.replaced || held != first {
            advance.begin_storage = first;
        }
        replica.is_confirmed_old = true;
        for entry in self.entries {
            replica.view.advance_base(&entry.set);
            replica.base = Some(entry.position);
            advance.entries.push(entry.into_storage());
        }

        assert_eq!(self.ran.len(), replica.undecided.len(), "BUG: a mutation was not run again");
        // Where nothing is undecided these are migrations, which nothing folds.
        let newest = replica.undecided.len().checked_sub(1);
        match newest.map(|newest| replica.undecided.number(newest)) {
            Some(number) => replica.view.set_overlay_numbered(&self.overlay, number),
            None => replica.view.set_overlay(&self.overlay),
        }
        replica.own_layers = self.own_layers;
        (replica.built, replica.built_for) = (true, replica.newest);
        replica.version = Some(self.version);
        (replica.short, replica.retries, replica.unrun) = (self.short, false, false);
        replica.withdrawn.take_if(|range| range.end() <= known);
        replica.migration = self.migration;
        replica.migration_failure = self.migration_failure;
        for (undecided, (verdict, layer)) in replica.undecided.iter_mut().zip(self.ran) {
            undecided.predicted = Some(verdict);
            (undecided.layer, undecided.hash) = (layer, None);
            undecided.has_run_again = true;
        }
        // SQLite's own caches must not outlive what they were read from. Those of the rebase were
        // read from what the replica shows now.
        replica.writer = self.writer.go_on_with(&replica.view);
        replica.reader = self.reader.go_on_with(&replica.view);

        if moves {
            reached(Probe::TimelineMoved);
            advance.begin_timeline = Some(begin_timeline(replica, self.new_timeline));
        } else if !advance.decided.is_empty() {
            advance.trim = Some(known);
        }
        advance
    }

    /// The pages that look different in the new view: what was written in either, and differs.
    fn changed(&self, replica: &Replica) -> BTreeSet<Pgid> {
        let mut pgids = BTreeSet::new();
        pgids.extend(replica.view.overlay_pages());
        pgids.extend(self.view.overlay_pages());
        if self.replaced {
            pgids.extend((1..=replica.view.base_db_pages()).map(Pgid));
        }
        pgids.retain(|pgid| {
            let (old, new) = (replica.view.page(*pgid), self.view.page(*pgid));
            old.is_none() || old != new
        });
        pgids
    }
}

/// The mutation at `place` as it goes on in another timeline, of which no rejection is kept yet,
/// and as this user's if it is known by now whose it is.
fn moved(mutation: &Mutation, place: EntryId, renamed: Option<&str>) -> Mutation {
    let moved_from = mutation.moved_from.or(Some(place));
    let user = renamed.unwrap_or(&mutation.user).to_owned();
    Mutation { kept_rejections: Lsn::FIRST, moved_from, user, ..mutation.clone() }
}

/// Undecided mutations go on in a timeline of their own, so that an LSN which an authority has
/// seen is never given to something else.
fn begin_timeline(
    replica: &mut Replica,
    timeline: JournalId,
) -> (JournalId, Vec<tidelog_pages::TimelineFrame>) {
    let (first, count) = (replica.first(), replica.undecided.len() as u64);
    let renamed = replica.renamed.take();
    let places: Vec<EntryId> = (0..count).map(|nth| replica.origin(first.plus(nth))).collect();
    replica.timeline = timeline;
    replica.head = Lsn::FIRST.plus(count);
    replica.lives = Lineage::default();
    if count > 0 {
        replica.lives.note(replica.life, Lsn::FIRST);
    }
    let mut frames = Vec::with_capacity(places.len());
    let mut lsn = Lsn::FIRST;
    for (undecided, place) in replica.undecided.iter_mut().zip(places) {
        // What this release cannot read goes on byte for byte: another one may know what it asks.
        if Mutation::decode(&undecided.body).is_ok() {
            undecided.mutation = moved(&undecided.mutation, place, renamed.as_deref());
            undecided.body = undecided.mutation.encode();
        }
        frames.push(undecided.frame(lsn));
        lsn = lsn.next();
    }
    replica.undecided.count_anew();
    (timeline, frames)
}
