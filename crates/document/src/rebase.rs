//! Building new layers over newer pages, in slices, beside the old ones.

use std::collections::BTreeSet;

use tidelog_sqlite::{Failure, Reader, Run, View, Writer};
use tidelog_sync::Origin;
use tidelog_types::limits::{LAYERS_MAX, REBASE_SLICE_MUTATIONS};
use tidelog_types::{JournalId, Lsn, PageSet, Pgid, Position};

use crate::Verdict;
use crate::program::{self, Rejection, done};
use crate::replica::{Advance, Decided, Replica, ServerEntry};

/// A rebase under way: a view of its own, in which the entries are the lowest layers.
///
/// Readers see the old view until [`complete`](Self::complete). A mutation that is issued
/// meanwhile runs on the old view and joins the end of what is run again here.
pub(crate) struct Rebase {
    entries: Vec<ServerEntry>,
    /// Whether the entries are of another journal than the pages held so far.
    replaced: bool,
    view: View,
    writer: Writer,
    reader: Reader,
    /// What the authority has decided; known once its tables were read.
    verdicts: Option<Verdicts>,
    /// Whether the migration, if one is needed, has run.
    migrated: bool,
    migration: Option<PageSet>,
    migration_failure: Option<Failure>,
    /// Layers of the mutations from `verdicts.wanted` on that were run again.
    layers: Vec<(Verdict, PageSet)>,
}

/// What the authority's tables say of this timeline.
struct Verdicts {
    /// The first LSN without a verdict.
    wanted: Lsn,
    /// Those rejected before it, as far as this device has not kept them.
    rejected: Vec<Rejection>,
}

/// How far a rebase has come.
pub(crate) enum RebaseStep {
    /// There is more to run.
    More,
    /// All was run again: make it visible.
    Complete,
}

impl Rebase {
    /// Begins with all entries that are staged, as long as they are of one journal.
    pub(crate) fn begin(replica: &mut Replica) -> Self {
        replica.stale = false;
        let journal = replica.staged.front().map(|entry| entry.position.journal);
        let held = replica.base.map(|base| base.journal);
        let replaced = journal.is_some() && held.is_some() && journal != held;
        let mut entries = Vec::new();
        while replica.staged.front().is_some_and(|e| Some(e.position.journal) == journal) {
            entries.extend(replica.staged.pop_front());
        }
        let view = if replaced { View::new(usize::MAX, 0) } else { replica.view.fork() };
        for entry in &entries {
            view.push(&entry.set);
        }
        let (writer, reader) = (Writer::new(&view), Reader::new(&view));
        Self {
            entries,
            replaced,
            view,
            writer,
            reader,
            verdicts: None,
            migrated: false,
            migration: None,
            migration_failure: None,
            layers: Vec::new(),
        }
    }

    pub(crate) fn into_entries(self) -> Vec<ServerEntry> {
        self.entries
    }

    pub(crate) fn last_position(&self) -> Option<Position> {
        self.entries.last().map(|entry| entry.position)
    }

    /// What its runs read.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// Runs a slice. A fault leaves everything that was run before it in place.
    pub(crate) fn step(&mut self, replica: &Replica) -> Run<RebaseStep> {
        if self.verdicts.is_none() {
            let wanted = done!(program::wanted(&mut self.reader, replica.timeline));
            let rejected =
                done!(program::rejections(&mut self.reader, replica.timeline, replica.kept));
            // Another authority knows nothing of this timeline: nothing of it is decided.
            let wanted = wanted.max(replica.first()).min(replica.head);
            self.verdicts = Some(Verdicts { wanted, rejected });
        }
        if !self.migrated {
            done!(self.migrate(replica));
            self.migrated = true;
        }
        for _ in 0..REBASE_SLICE_MUTATIONS {
            let lsn = self.wanted().plus(self.layers.len() as u64);
            let Some(undecided) = replica.undecided_at(lsn) else {
                return Run::Done(RebaseStep::Complete);
            };
            let doctype = replica.doctypes.get(&undecided.mutation.doctype);
            let origin = Origin { timeline: replica.timeline, lsn };
            let (verdict, set) =
                done!(program::run_frame(&mut self.writer, origin, &undecided.mutation, doctype));
            self.view.push(&set);
            self.layers.push((verdict, set));
        }
        Run::Done(RebaseStep::More)
    }

    fn migrate(&mut self, replica: &Replica) -> Run<()> {
        let newest = &replica.doctypes[&replica.newest];
        let version = done!(program::version(&mut self.reader));
        if program::is_behind(version, newest) {
            match program::migrate(&mut self.writer, newest, version) {
                Run::Done(set) => {
                    self.view.push(&set);
                    self.migration = Some(set);
                }
                Run::Fault(pgid) => return Run::Fault(pgid),
                // The document stays at its version, and nobody else is held up by it.
                Run::Failed(failure) => self.migration_failure = Some(failure),
            }
        }
        Run::Done(())
    }

    fn wanted(&self) -> Lsn {
        self.verdicts.as_ref().expect("BUG: the authority's tables were not read").wanted
    }

    /// Makes the new layers the replica's, in one step.
    pub(crate) fn complete(self, replica: &mut Replica, new_timeline: JournalId) -> Advance {
        let changed = self.changed(replica);
        let Verdicts { wanted, rejected } = self.verdicts.expect("BUG: completed before it began");
        let mut advance = Advance { changed, ..Advance::default() };

        let mut lsn = replica.first();
        while lsn < wanted {
            let undecided = replica.undecided.pop_front().expect("BUG: decided beyond the head");
            let verdict = rejected
                .iter()
                .find(|rejection| rejection.lsn == lsn)
                .map_or(Verdict::Applied, |rejection| Verdict::Rejected {
                    reason: rejection.reason.clone(),
                });
            let (call, mutation) = (undecided.call, undecided.mutation);
            advance.decided.push(Decided { lsn, call, mutation, verdict });
            lsn = lsn.next();
        }

        if self.replaced {
            replica.view.reset_base(0);
        }
        if self.replaced || replica.base.is_none() {
            advance.begin_storage = self.entries.first().map(|entry| entry.position.journal);
        }
        for entry in self.entries {
            replica.view.advance_base(&entry.set);
            replica.base = Some(entry.position);
            advance.entries.push(entry.into_storage());
        }

        assert_eq!(self.layers.len(), replica.undecided.len(), "BUG: a mutation was not run again");
        let layers = self.migration.iter().chain(self.layers.iter().map(|(_, set)| set));
        replica.view.set_overlay(layers);
        replica.built = true;
        replica.migration = self.migration;
        replica.migration_failure = self.migration_failure;
        for (index, (verdict, set)) in self.layers.into_iter().enumerate() {
            replica.undecided[index].predicted = Some(verdict);
            replica.undecided[index].layer = (index < LAYERS_MAX).then_some(set);
        }
        // SQLite's own caches must not outlive what they were read from.
        replica.writer.refresh();
        replica.reader.refresh();

        if self.replaced {
            advance.begin_timeline = Some(begin_timeline(replica, new_timeline));
        } else if !advance.decided.is_empty() {
            advance.trim = Some(wanted);
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

/// Undecided mutations of a replaced document go on in a timeline of their own, so that an LSN
/// which the old authority had seen is never given to something else.
fn begin_timeline(
    replica: &mut Replica,
    timeline: JournalId,
) -> (JournalId, Vec<tidelog_pages::TimelineFrame>) {
    replica.timeline = timeline;
    replica.kept = Lsn::FIRST;
    replica.head = Lsn::FIRST.plus(replica.undecided.len() as u64);
    // The layers name the old timeline in their system rows: build them once more.
    replica.stale = !replica.undecided.is_empty();
    let mut frames = Vec::with_capacity(replica.undecided.len());
    let mut lsn = Lsn::FIRST;
    for undecided in &mut replica.undecided {
        undecided.mutation.kept_rejections = Lsn::FIRST;
        undecided.body = undecided.mutation.encode();
        frames.push(undecided.frame(lsn));
        lsn = lsn.next();
    }
    (timeline, frames)
}
