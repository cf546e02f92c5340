//! The side that follows.

mod doubt;
mod own_layers;
mod rebase;

use std::collections::{BTreeSet, VecDeque};
use std::{fmt, mem};

use tidelog_pages::{StorageEntry, TimelineFrame};
use tidelog_sqlite::{Failure, Reader, Run, View, Writer};
use tidelog_sync::EntryPart;
use tidelog_types::probe::{Probe, ran_again, reached};
use tidelog_types::{
    Budget, CallId, EntryHash, EntryId, JournalId, Life, Lineage, Lsn, LsnRange, Page, PageSet,
    Pgid, Position, SortedMap,
};

use own_layers::OwnLayers;
use rebase::{Rebase, RebaseStep};

use crate::check::{self, DoctypeError};
use crate::pending::{Called, Pending};
use crate::program::{self, done};
use crate::public_life::{public_entry, public_lives};
use crate::{Doctype, DoctypeHash, Mutation, Verdict, chain_after, hash_of};

/// One document on the side that follows: the authority's pages under a layer for each mutation
/// that has no verdict yet.
///
/// It is told of mutations ([`issue`](Self::issue)) and of entries of the authority
/// ([`sync_receive`](Self::sync_receive)), and says what to append to the store. Entries become
/// visible, and are handed out for the store, only when a rebase over them is complete
/// ([`step`](Self::step)); until then readers see the old pages.
pub struct Replica {
    view: View,
    writer: Writer,
    reader: Reader,
    /// For queries of what the authority has confirmed; `None` until somebody asks.
    confirmed_reader: Option<Reader>,
    /// Whether it may hold pages of before the base has moved on.
    is_confirmed_old: bool,
    /// What is visible of the storage journal. `None` until the first entry.
    base: Option<Position>,
    timeline: JournalId,
    /// The LSN that the next mutation gets.
    head: Lsn,
    /// Who wrote the timeline.
    lives: Lineage,
    /// Who writes it now.
    life: Life,
    /// What is held of the storage journal is not what the authority has: its next entry is the
    /// whole document, and takes the place of all that is held.
    anew: bool,
    doctypes: SortedMap<DoctypeHash, Doctype>,
    /// The newest doctype in use: what the document is migrated to, here if need be.
    newest: DoctypeHash,
    /// The one that the layers were built for last: it is the newest again if they cannot be.
    built_for: DoctypeHash,
    /// The lowest layer, where this side is ahead of the authority's migrations.
    migration: Option<PageSet>,
    /// Why there is none although this side is ahead.
    migration_failure: Option<Failure>,
    /// Mutations without a verdict, at LSNs `head - len .. head`.
    undecided: Pending<Undecided>,
    /// Count and size of the layers that undecided mutations have of their own.
    own_layers: OwnLayers,
    /// Entries that are not visible yet, in order.
    staged: VecDeque<ServerEntry>,
    rebase: Option<Rebase>,
    /// Whether layers have to be built anew although no entry came: at open, or for a new doctype.
    stale: bool,
    /// Whether something is left out of the layers, or they are as they were before, for want of
    /// memory.
    short: bool,
    /// Whether layers are to be built anew that were short of something, or are being built.
    retries: bool,
    /// Whether the layers have been built since it was opened, or learnt of a newer doctype.
    built: bool,
    /// How many migrations readers see; `None` before the layers were built once.
    version: Option<usize>,
    /// Whether building the layers was given up before it had ended once: mutations that were never
    /// run are not shown.
    unrun: bool,
    /// Whether the entry of the latest own mutation was what its first layer predicted: as long as
    /// others write as well, none is.
    predicts: bool,
    /// Mutations that the authority does not take, since this side may not change the document: see
    /// [`withdraw`](Self::withdraw).
    withdrawn: Option<LsnRange>,
    /// Whose mutations the undecided ones are to be, that were issued as somebody else's: see
    /// [`rename`](Self::rename).
    renamed: Option<String>,
    runs_again: u64,
}

/// A rebase that is not worth its work yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutOff {
    /// How many mutations it would run again.
    pub runs: u64,
    /// Whether entries were joined since somebody asked last: all that has come is held in one.
    pub has_joined: bool,
}

/// Bytes that an undecided mutation counts for at least: what is kept beside its body.
const UNDECIDED_SIZE_MIN: usize = 512;

/// A mutation that has no verdict yet.
#[derive(Clone, Debug)]
pub struct Undecided {
    /// The call that issued it.
    pub call: CallId,
    /// What it asks.
    pub mutation: Mutation,
    /// Its body as it is written down.
    pub body: Vec<u8>,
    /// What its run here changed; `None` where it shares a layer with others.
    layer: Option<PageSet>,
    /// The hash of that as an entry, once it was predicted.
    hash: Option<EntryHash>,
    /// Whether it was run again since it was issued: as a rule for another entry that came first.
    has_run_again: bool,
    /// What its run here said.
    predicted: Option<Verdict>,
}

/// A whole entry of the authority's storage journal.
#[derive(Clone, Debug)]
pub struct ServerEntry {
    /// The LSNs that it stands for.
    pub range: LsnRange,
    /// Where the storage journal stands after it.
    pub position: Position,
    /// The frame that it applies or rejects, if it stands for just one: its
    /// [public](crate::public_life()) entry.
    pub origin: Option<EntryId>,
    /// What changed.
    pub set: PageSet,
    /// The hash of that.
    pub hash: EntryHash,
}

/// The timeline of this device, as it lies in the store.
#[derive(Clone, Debug)]
pub struct OwnTimeline {
    /// Its id.
    pub journal: JournalId,
    /// The LSN that the next mutation gets.
    pub head: Lsn,
    /// Who wrote it.
    pub lives: Lineage,
    /// Who writes on.
    pub life: Life,
}

/// A mutation that was issued: for the store, and visible from now on.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The frame to append.
    pub frame: TimelineFrame,
    /// The pages that look different now.
    pub changed: BTreeSet<Pgid>,
}

/// A mutation that has its verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// Its entry in the timeline under which it was sent.
    pub entry: EntryId,
    /// The call that issued it.
    pub call: CallId,
    /// What it asked.
    pub mutation: Mutation,
    /// What became of it.
    pub verdict: Verdict,
}

/// A step of the visible storage journal: what to append to the store, all in one append, and
/// whom to tell.
#[derive(Clone, Debug, Default)]
pub struct Advance {
    /// Begin this storage journal first: the document was replaced.
    pub begin_storage: Option<JournalId>,
    /// Whether that takes the place of another history: a server was restored, say.
    pub is_replaced: bool,
    /// Entries for the storage journal.
    pub entries: Vec<StorageEntry>,
    /// Begin this timeline, with these frames: the document was replaced.
    pub begin_timeline: Option<(JournalId, Vec<TimelineFrame>)>,
    /// Forget the timeline before this LSN.
    pub trim: Option<Lsn>,
    /// Mutations that have their verdict now.
    pub decided: Vec<Decided>,
    /// Mutations that are rejected by what is begun here, and by nothing that the authority keeps:
    /// nobody is told before that is durable.
    pub withdrawn: Vec<Decided>,
    /// The pages that look different now.
    pub changed: BTreeSet<Pgid>,
}

/// Why an entry was not taken. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    /// Entries before it are missing: follow anew from the position that is held.
    #[error("entry {range} leaves a gap after {expected}")]
    Gap {
        /// The entry's LSNs.
        range: LsnRange,
        /// What should have come.
        expected: Lsn,
    },
    /// Its parts do not make what their sender hashed.
    #[error("entry {range} has come garbled")]
    Garbled {
        /// The entry's LSNs.
        range: LsnRange,
    },
    /// It does not say what its chain says: one of the two sides is wrong about its pages.
    #[error("entry {range} does not match its chain")]
    Diverged {
        /// The entry's LSNs.
        range: LsnRange,
    },
}

impl Replica {
    /// A document as it lies in the store. Call [`step`](Self::step) until it is
    /// [rebased](Self::is_rebased): only then are its layers complete.
    ///
    /// `view` shows the pages at `base`; `frames` are the timeline's entries from its start to its
    /// head; every doctype that a frame names is in `doctypes`, and so is `newest`.
    #[must_use]
    pub fn open(
        view: View,
        base: Option<Position>,
        OwnTimeline { journal: timeline, head, lives, life }: OwnTimeline,
        frames: Vec<TimelineFrame>,
        doctypes: SortedMap<DoctypeHash, Doctype>,
        newest: DoctypeHash,
    ) -> Self {
        assert!(doctypes.contains_key(&newest), "BUG: opened without its doctype");
        let undecided = frames.into_iter().map(Undecided::read).collect();
        let (writer, reader) = (Writer::new(&view), Reader::new(&view));
        Self {
            view,
            writer,
            reader,
            confirmed_reader: None,
            is_confirmed_old: false,
            base,
            timeline,
            head,
            lives,
            life,
            anew: false,
            doctypes,
            newest,
            built_for: newest,
            migration: None,
            migration_failure: None,
            undecided,
            own_layers: OwnLayers::default(),
            staged: VecDeque::new(),
            rebase: None,
            stale: true,
            short: false,
            retries: false,
            built: false,
            version: None,
            unrun: false,
            predicts: true,
            withdrawn: None,
            renamed: None,
            runs_again: 0,
        }
    }

    /// What its queries read.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The connection for queries of apps.
    pub fn reader(&mut self) -> &mut Reader {
        &mut self.reader
    }

    /// A connection for queries of what the authority has made of the document, without what is
    /// undecided. What it faults on, [`confirmed_to_fetch`](Self::confirmed_to_fetch) tells.
    pub fn confirmed_reader(&mut self) -> &mut Reader {
        let reader = match self.confirmed_reader.take() {
            None => Reader::new(&self.view.fork()),
            Some(reader) if self.is_confirmed_old => reader.move_to(&self.view.fork()),
            Some(reader) => reader,
        };
        self.is_confirmed_old = false;
        self.confirmed_reader.insert(reader)
    }

    /// Steps of SQLite's virtual machine that mutations and queries took since this was last
    /// called, and what their allocations count for: those of a [`step`](Self::step) count there.
    /// Those that failed, and runs that faulted, count too.
    pub fn take_steps(&mut self) -> u64 {
        let confirmed = self.confirmed_reader.as_mut().map_or(0, Reader::take_steps);
        self.writer.take_steps() + self.reader.take_steps() + confirmed
    }

    /// What is visible of the storage journal; `None` before the first entry.
    #[must_use]
    pub fn base(&self) -> Option<Position> {
        self.base
    }

    /// The timeline that new frames go to.
    #[must_use]
    pub fn timeline(&self) -> JournalId {
        self.timeline
    }

    /// The LSN that the next mutation gets.
    #[must_use]
    pub fn head(&self) -> Lsn {
        self.head
    }

    /// Who wrote the timeline, as far as that is needed. It goes to the disk with the frames.
    #[must_use]
    pub fn lives(&self) -> &Lineage {
        &self.lives
    }

    /// The same as the authority's pages say it.
    #[must_use]
    pub fn public_lives(&self) -> Lineage {
        public_lives(&self.lives)
    }

    /// The mutation at `lsn` by its place and writer.
    #[must_use]
    pub fn origin(&self, lsn: Lsn) -> EntryId {
        let life = self.lives.life_at(lsn).unwrap_or(Life::NONE);
        EntryId { journal: self.timeline, life, lsn }
    }

    /// The LSNs of the mutations without a verdict.
    #[must_use]
    pub fn undecided(&self) -> LsnRange {
        LsnRange::new(self.first(), self.head)
    }

    /// The mutation at `lsn`, if it has no verdict yet.
    #[must_use]
    pub fn undecided_at(&self, lsn: Lsn) -> Option<&Undecided> {
        let index = lsn.get().checked_sub(self.first().get())?;
        self.undecided.get(usize::try_from(index).ok()?)
    }

    /// Whether this call is among the mutations without a verdict, and where.
    #[must_use]
    pub fn find_call(&self, call: CallId) -> Option<Lsn> {
        Some(self.first().plus(self.undecided.index_of(call)?))
    }

    /// Bytes that the undecided mutations take, about.
    #[must_use]
    pub fn undecided_size(&self) -> usize {
        self.undecided.size()
    }

    /// The doctypes that are still needed: the newest, and those that undecided frames name.
    #[must_use]
    pub fn doctypes_in_use(&self) -> Vec<DoctypeHash> {
        let mut in_use = vec![self.newest];
        for Undecided { mutation, .. } in self.undecided.iter() {
            if !in_use.contains(&mutation.doctype) {
                in_use.push(mutation.doctype);
            }
        }
        in_use
    }

    /// Whether an undecided frame names this doctype.
    #[must_use]
    pub fn has_undecided_of(&self, doctype: DoctypeHash) -> bool {
        self.undecided.iter().any(|undecided| undecided.mutation.doctype == doctype)
    }

    /// How many migrations readers see; `None` before the layers were built once.
    #[must_use]
    pub fn version(&self) -> Option<usize> {
        self.version
    }

    /// Whether a doctype has migrations that the newest one lacks: more than that, or others.
    #[must_use]
    pub fn is_behind(&self, doctype: &Doctype) -> bool {
        !self.doctypes[&self.newest].succeeds(doctype)
    }

    /// A doctype that mutations will name. If the newest one is [behind](Self::is_behind) it, it is
    /// the newest from now on, and the document is migrated here by the next steps. Whether one
    /// that has other migrations may take that one's place is for the caller to know.
    pub fn learn(&mut self, doctype: Doctype) {
        let known = self.doctypes.iter().find(|(_, known)| **known == doctype);
        let hash = known.map_or_else(|| doctype.hash(), |(hash, _)| *hash);
        let is_behind = self.is_behind(&doctype);
        self.doctypes.insert(hash, doctype);
        if is_behind {
            self.newest = hash;
            self.stale = true;
            self.built = false;
            // One that is under way would leave the document at the older version.
            self.abandon_rebase();
        }
    }

    /// Which doctype is the newest that it was opened with.
    #[must_use]
    pub fn newest(&self) -> DoctypeHash {
        self.newest
    }

    /// Nobody opens it with the newest doctype after all: it goes back to this older one.
    ///
    /// # Panics
    ///
    /// If that is not known.
    pub fn unlearn(&mut self, newest: DoctypeHash) {
        assert!(self.doctypes.contains_key(&newest), "BUG: a doctype that was never learned");
        (self.newest, self.built_for) = (newest, newest);
        (self.stale, self.built) = (true, false);
        self.abandon_rebase();
    }

    /// Whether the authority has migrated the document by others than this doctype's migrations,
    /// as far as that can be told where `known` is what was known of it. A fault is of a page under
    /// the layers, of a [fork](View::fork) of the view.
    ///
    /// # Errors
    ///
    /// [`DoctypeError`] if the doctype's migrations do not run on `scratch`.
    pub fn is_of_another(
        &self,
        doctype: &Doctype,
        known: &Doctype,
        scratch: View,
    ) -> Result<Run<bool>, DoctypeError> {
        check::is_of_another(doctype, known, &mut Reader::new(&self.view.fork()), scratch)
    }

    /// Why readers do not see the document at this doctype's version, if a migration to that or
    /// beyond was tried and failed: the next rebase tries again.
    pub fn migration_failure(&mut self, doctype: &Doctype) -> Run<Option<Failure>> {
        let Some(failure) = &self.migration_failure else { return Run::Done(None) };
        program::is_migrated_to(&mut self.reader, doctype)
            .map(|is_migrated| (!is_migrated).then(|| failure.clone()))
    }

    /// Whether everything that is known is visible: no rebase is due or under way.
    #[must_use]
    pub fn is_rebased(&self) -> bool {
        self.rebase.is_none() && self.staged.is_empty() && !self.is_due()
    }

    /// Whether layers are to be built anew although no entry came.
    fn is_due(&self) -> bool {
        self.stale || self.is_withdrawal_due() || self.renamed.is_some()
    }

    /// Whether this device was short of memory when the layers were built: something is not shown
    /// that another run may show. Nothing is due for that before somebody says
    /// [`retry`](Self::retry).
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.short
    }

    /// Whether readers see an older version than this doctype's for want of memory alone. What they
    /// see tells: it may be at any version, whichever doctype the layers were to be built for.
    ///
    /// # Errors
    ///
    /// The page that is missing to tell.
    pub fn is_short_of(&mut self, doctype: &Doctype) -> Result<bool, Pgid> {
        let may_be = self.migration_failure.as_ref().is_none_or(Failure::is_passing);
        if !(self.short || self.retries) || !may_be {
            return Ok(false);
        }
        match program::version(&mut self.reader) {
            Run::Done(version) => Ok(program::is_behind(version, doctype)),
            Run::Fault(pgid) => Err(pgid),
            Run::Failed(failure) => Ok(failure.is_passing()),
        }
    }

    /// Builds the layers anew with the next [steps](Self::step), if they are short of something.
    pub fn retry(&mut self) {
        self.retries |= mem::take(&mut self.short);
        self.stale |= self.retries;
    }

    /// Whether all that is left to do is to make entries visible that may be so a little later, and
    /// no rebase to them has begun.
    #[must_use]
    pub fn can_wait(&self) -> bool {
        // The first entry of all, and one that takes the place of all before it, are no small part.
        let is_part = |entry: &ServerEntry| entry.range.start() != Lsn::FIRST;
        let is_idle = self.rebase.is_none() && !self.is_due();
        is_idle && self.staged.front().is_some_and(is_part)
    }

    /// Whether a rebase is due that [can wait](Self::can_wait) for more entries, as there are few
    /// for the many mutations that it would run again. Those that have come are
    /// then held as one. How long it waits at most is for the caller to say, who
    /// [steps](Self::step) all the same.
    pub fn put_off(&mut self) -> Option<PutOff> {
        if !self.can_wait() || self.can_fold() {
            return None;
        }
        let lsns = self.staged.iter().map(|entry| entry.range.count()).sum::<u64>();
        let runs = self.undecided.len() as u64;
        if runs <= lsns.saturating_mul(self.view.limits().runs_per_lsn) {
            return None;
        }
        let has_joined = self.staged.len() > 1;
        reached(Probe::RebasePutOff);
        self.join_staged();
        Some(PutOff { runs, has_joined })
    }

    /// Makes one entry of all that are staged, up to one that takes the place of those before it.
    fn join_staged(&mut self) {
        let first = self.staged.pop_front();
        let Some(mut joined) = first else { return };
        while let Some(next) = self.staged.pop_front_if(|next| next.range.start() != Lsn::FIRST) {
            joined.range = LsnRange::new(joined.range.start(), next.range.end());
            joined.position = next.position;
            joined.origin = None;
            joined.set.absorb(&next.set);
        }
        // Nobody checks it again: each was found to be what was sent when it came.
        joined.hash = EntryHash::default();
        self.staged.push_front(joined);
    }

    /// Whether readers see the undecided mutations, at the newest doctype's version: not before the
    /// first rebase.
    #[must_use]
    pub fn is_built(&self) -> bool {
        self.built
    }

    /// Runs a mutation on what is visible. `Failed` leaves nothing behind: the caller is told, and
    /// nothing is recorded.
    ///
    /// Whoever appends an [`Advance`] appends its rejections too, at once. So the mutation, which
    /// comes later, says that those of all that is decided are kept.
    pub fn issue(&mut self, call: CallId, mutation: Mutation) -> Run<Issued> {
        let mutation = Mutation { kept_rejections: self.first(), ..mutation };
        let origin = EntryId { journal: self.timeline, life: self.life, lsn: self.head };
        let doctype = self.doctypes.get(&mutation.doctype);
        let (verdict, set) = match program::run_frame(&mut self.writer, origin, &mutation, doctype)
        {
            Run::Done(done) => done,
            Run::Fault(pgid) => return Run::Fault(pgid),
            Run::Failed(failure) => return Run::Failed(failure),
        };
        if let Verdict::Rejected { reason } = verdict {
            self.writer.take_back();
            return Run::Failed(Failure::Rejected { reason });
        }
        self.view.push_numbered(&set, self.undecided.number(self.undecided.len()));
        let changed = set.pgids();
        let body = mutation.encode();
        let frame = TimelineFrame { lsn: self.head, call, body: body.clone() };
        self.lives.note(self.life, self.head);
        // The authority's word is compared by whoever wrote what it has decided last.
        let decided_last = Lsn::new(self.first().get() - 1).unwrap_or(Lsn::FIRST);
        self.lives.forget(self.view.limits().timeline_lives_kept_max, decided_last);
        self.head = self.head.next();
        let layer = self.own_layers.keep(set, self.view.limits());
        if layer.is_none() {
            reached(Probe::LayerShared);
        }
        let predicted = Some(Verdict::Applied);
        let (hash, has_run_again) = (None, false);
        let undecided = Undecided { call, mutation, body, layer, hash, has_run_again, predicted };
        self.undecided.push(undecided);
        Run::Done(Issued { frame, changed })
    }

    /// Takes the next entry of the authority. One that is held already is passed over.
    ///
    /// Says what became visible where nothing has to run again: the entry is exactly what the
    /// lowest layer predicted. Otherwise it waits for [`step`](Self::step).
    ///
    /// # Errors
    ///
    /// [`ReplicaError`]: the caller follows anew from [`base`](Self::base).
    pub fn sync_receive(&mut self, entry: ServerEntry) -> Result<Option<Advance>, ReplicaError> {
        let follows = |held: &Position| held.journal == entry.position.journal && !self.anew;
        let same = self.sync_request().filter(follows);
        let expected = same.map_or(Lsn::FIRST, |held| held.next);
        if entry.range.end() <= expected {
            return Ok(None);
        }
        if entry.range.start() != expected {
            reached(Probe::EntryLeftGap);
            return Err(ReplicaError::Gap { range: entry.range, expected });
        }
        if entry.range.count() == 1 {
            let before = same.map(|held| held.chain).unwrap_or_default();
            if chain_after(before, entry.range, entry.hash) != entry.position.chain {
                return Err(ReplicaError::Diverged { range: entry.range });
            }
        }
        self.anew = false;
        if self.is_predicted(&entry) {
            return Ok(Some(self.fold_lowest(entry)));
        }
        if entry.origin == Some(public_entry(self.origin(self.first()))) {
            self.predicts = false;
        }
        self.staged.push_back(entry);
        Ok(None)
    }

    /// The authority sends what follows on what is held, or the whole document, since it does not
    /// have that.
    pub fn follow(&mut self, anew: bool) {
        if anew {
            self.forget_staged();
        }
        self.anew = anew;
    }

    /// Whether what is visible is not the authority's: the whole document is to come, or waits for
    /// a rebase. Its LSNs say nothing about those of the authority then.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        let is_first = |entry: &ServerEntry| entry.range.start() == Lsn::FIRST;
        let is_replaced = || self.rebase.as_ref().is_some_and(Rebase::is_replacing);
        self.anew || is_replaced() || self.staged.iter().any(is_first)
    }

    /// Whether mutations were issued as somebody else's than this user's, who the copy is known to
    /// be of: they are to be [renamed](Self::rename), and none of them is sent before.
    #[must_use]
    pub fn has_others_than(&self, user: &str) -> bool {
        // What this release cannot read stays as it is.
        let is_other = |undecided: &Undecided| {
            undecided.mutation.user != user && Mutation::decode(&undecided.body).is_ok()
        };
        self.undecided.iter().any(is_other)
    }

    /// Mutations that were issued as somebody else's than this user's go on as this one's with the
    /// next [step](Self::step), in a timeline of their own. What the authority has applied of them
    /// is visible: it decides nothing under their old names after that.
    pub fn rename(&mut self, user: &str) {
        if self.renamed.as_deref() != Some(user) {
            reached(Probe::TimelineRenamed);
            self.renamed = Some(user.to_owned());
            // One that is under way has run some of them.
            self.abandon_rebase();
        }
    }

    /// The authority takes none of the mutations from `lsn` on, since this side may not change the
    /// document. Once those before it are decided, the next [step](Self::step) rejects them and
    /// leaves the timeline, so that no authority is ever sent one of them again.
    pub fn withdraw(&mut self, lsn: Lsn) {
        self.withdrawn = (lsn < self.head).then(|| LsnRange::new(lsn, self.head));
    }

    /// The authority may take them by now, or has said nothing of it yet that holds: what was not
    /// rejected is not.
    pub fn end_withdrawal(&mut self) {
        if self.withdrawn.take().is_some() {
            reached(Probe::WithdrawalEnded);
            if self.rebase.as_ref().is_some_and(Rebase::withdraws) {
                self.abandon_rebase();
            }
        }
    }

    fn is_withdrawal_due(&self) -> bool {
        let first = self.first();
        self.withdrawn.is_some_and(|range| range.start() <= first && first < range.end())
    }

    /// Forgets entries that are not visible yet: what brought them was wrong about something.
    pub fn forget_staged(&mut self) {
        self.abandon_rebase();
        self.staged.clear();
    }

    /// What is held of the storage journal, visible or not: what to say to the authority, which
    /// prepares what follows on it; [`sync_receive`](Self::sync_receive) takes that.
    #[must_use]
    pub fn sync_request(&self) -> Option<Position> {
        let staged = self.staged.back().map(|staged| staged.position);
        staged.or_else(|| self.rebase.as_ref().and_then(Rebase::last_position)).or(self.base)
    }

    /// The hash of the entry that the mutation at `lsn` becomes, if it changes at the authority
    /// what it has changed here: worth to be said as long as that is likely, the entry is one that
    /// leaves as a whole, and the budget lasts.
    pub fn predict(&mut self, lsn: Lsn, budget: &mut Budget) -> Option<EntryHash> {
        if !self.predicts || !self.is_rebased() || budget.is_spent() {
            return None;
        }
        let index = lsn.get().checked_sub(self.first().get())?;
        let pages_max = self.view.limits().message_pages_max;
        let undecided = self.undecided.get_mut(usize::try_from(index).ok()?)?;
        let layer = undecided.layer.as_ref().filter(|layer| layer.pages.len() <= pages_max)?;
        let hash = undecided.hash.get_or_insert_with(|| {
            budget.spend_pages(layer.pages.len() as u64);
            hash_of(layer)
        });
        Some(*hash)
    }

    /// The entry that an own mutation was [predicted](Self::predict) to become, of which no pages
    /// have come.
    ///
    /// # Errors
    ///
    /// [`ReplicaError::Garbled`]: it is no such entry, or the layers were built anew since and have
    /// come out differently.
    pub fn predicted_entry(&mut self, head: &EntryPart) -> Result<ServerEntry, ReplicaError> {
        let EntryPart { range, position, origin, hash, is_last, .. } = *head;
        let undecided = origin.filter(|_| is_last && head.pages.is_empty()).and_then(|origin| {
            let is_own = origin == public_entry(self.origin(origin.lsn));
            self.undecided_at(origin.lsn).filter(|_| is_own)
        });
        let layer = undecided.and_then(|it| it.layer.as_ref().map(|layer| (layer, it.hash)));
        match layer {
            // Another entry may have come first, and changed nothing of what this one becomes.
            Some((set, known))
                if known.unwrap_or_else(|| hash_of(set)) == hash
                    && position.next == range.end() =>
            {
                Ok(ServerEntry { range, position, origin, set: set.clone(), hash })
            }
            _ => {
                self.predicts = false;
                Err(ReplicaError::Garbled { range })
            }
        }
    }

    /// A page as it is behind all that is held of the storage journal, whatever this side shows:
    /// what the next entry says may go by that. `None` if it is not in memory, or there is none.
    #[must_use]
    pub fn held_page(&self, pgid: Pgid) -> Option<Page> {
        let in_rebase = self.rebase.iter().flat_map(Rebase::entries);
        for entry in in_rebase.chain(&self.staged).rev() {
            if let Some(page) = entry.set.pages.get(&pgid) {
                return Some(page.clone());
            }
            // What was there before is gone, or is another document's.
            if entry.set.db_pages < pgid.0 || entry.range.start() == Lsn::FIRST {
                return None;
            }
        }
        self.view.base_page(pgid)
    }

    /// Runs a slice of what is due, if anything is.
    ///
    /// `Done(None)` means that more is to do, or nothing ([`is_rebased`](Self::is_rebased)
    /// tells); an [`Advance`] means that the new pages are visible now.
    ///
    /// `new_timeline` is the id of the one that undecided mutations go on in if they cannot in
    /// this one; another at each call. A rebase that can be [put off](Self::put_off) is begun
    /// unless it `may_wait`.
    pub fn step(
        &mut self,
        new_timeline: JournalId,
        may_wait: bool,
        budget: &mut Budget,
    ) -> Run<Option<Advance>> {
        if self.is_rebased() {
            return Run::Done(None);
        }
        let mut rebase = match self.rebase.take() {
            Some(rebase) => rebase,
            None => match self.fold_staged(budget) {
                Run::Done(Some(advance)) => return Run::Done(Some(advance)),
                Run::Fault(pgid) => return Run::Fault(pgid),
                Run::Done(None) if may_wait && self.put_off().is_some() => return Run::Done(None),
                Run::Done(None) | Run::Failed(_) => Rebase::begin(self, new_timeline),
            },
        };
        match rebase.step(self, budget) {
            Run::Done(RebaseStep::More) => {
                reached(Probe::RebaseSliced);
                self.rebase = Some(rebase);
                Run::Done(None)
            }
            Run::Done(RebaseStep::Complete) => Run::Done(Some(rebase.complete(self))),
            Run::Fault(pgid) => {
                reached(Probe::RebaseFaulted);
                self.rebase = Some(rebase);
                Run::Fault(pgid)
            }
            Run::Failed(failure) => {
                self.give_up();
                self.short = failure.is_passing();
                Run::Failed(failure)
            }
        }
    }

    /// Goes on with the view as it is, since what is due can not be run: the caller says why, and
    /// follows anew from what is held. What was to be migrated is when it is learnt of again.
    pub fn give_up(&mut self) {
        self.newest = self.built_for;
        self.retries = false;
        self.rebase = None;
        (self.withdrawn, self.renamed) = (None, None);
        self.staged.clear();
        self.stale = false;
        self.unrun |= !self.built;
        self.built = true;
    }

    /// The pages to fetch for the `kth` fault of [`step`](Self::step), from 0. A rebase may need
    /// base pages that readers do not, since a layer covers them.
    #[must_use]
    pub fn to_fetch(&self, fault: Pgid, kth: u32) -> Vec<Pgid> {
        match &self.rebase {
            Some(rebase) => rebase.view().to_fetch(fault, kth),
            None => self.view.fork().to_fetch(fault, kth),
        }
    }

    /// The pages to fetch for the `kth` fault of the [connection](Self::confirmed_reader) for what
    /// is confirmed, from 0.
    #[must_use]
    pub fn confirmed_to_fetch(&self, fault: Pgid, kth: u32) -> Vec<Pgid> {
        self.view.fork().to_fetch(fault, kth)
    }

    /// How often mutations were run again since this was opened.
    #[must_use]
    pub fn runs_again(&self) -> u64 {
        self.runs_again
    }

    /// How many mutations have a layer of their own, in the view and in a rebase under way.
    #[must_use]
    pub fn layers_count(&self) -> usize {
        let own = self.undecided.iter().filter(|undecided| undecided.layer.is_some()).count();
        own + self.rebase.as_ref().map_or(0, Rebase::layers_count)
    }

    /// How many pages those layers hold: in the view, and in a rebase under way.
    #[must_use]
    pub fn layer_pages_counts(&self) -> [usize; 2] {
        let own = self.undecided.iter().filter_map(|undecided| undecided.layer.as_ref());
        let pages_count = own.map(|layer| layer.pages.len()).sum();
        [pages_count, self.rebase.as_ref().map_or(0, Rebase::layer_pages_count)]
    }

    fn first(&self) -> Lsn {
        Lsn::new(self.head.get() - self.undecided.len() as u64).expect("BUG: LSNs start at 1")
    }

    fn abandon_rebase(&mut self) {
        if let Some(rebase) = self.rebase.take() {
            reached(Probe::RebaseAbandoned);
            for entry in rebase.into_entries().into_iter().rev() {
                self.staged.push_front(entry);
            }
            self.stale = true;
        }
    }

    fn is_predicted(&self, entry: &ServerEntry) -> bool {
        self.rebase.is_none()
            && self.staged.is_empty()
            && self.decides_lowest(entry)
            && self.undecided.oldest().is_some_and(|it| it.layer.as_ref() == Some(&entry.set))
    }

    /// Whether this entry follows on the base and decides the lowest undecided mutation, which
    /// lies over the same pages here.
    fn decides_lowest(&self, entry: &ServerEntry) -> bool {
        let origin = public_entry(self.origin(self.first()));
        !self.stale
            && self.migration.is_none()
            && self.base.is_some_and(|base| {
                base.journal == entry.position.journal && base.next == entry.range.start()
            })
            && entry.origin == Some(origin)
            && !self.undecided.is_empty()
    }

    /// Whether the oldest staged entry may be what the lowest undecided mutation does to the base.
    fn can_fold(&self) -> bool {
        self.staged.front().is_some_and(|entry| {
            let lowest = self.undecided.oldest().and_then(|lowest| lowest.layer.as_ref());
            self.decides_lowest(entry) && lowest.is_none_or(|layer| *layer == entry.set)
        })
    }

    /// Makes the oldest staged entry visible without a rebase, if it is what the lowest undecided
    /// mutation does to the base. One that shares a layer with others is run once for this: so each
    /// is, at most, however many are behind it.
    fn fold_staged(&mut self, budget: &mut Budget) -> Run<Option<Advance>> {
        if !self.staged.front().is_some_and(|entry| self.decides_lowest(entry)) {
            return Run::Done(None);
        }
        let lowest = self.undecided.oldest().expect("BUG: decides nothing");
        let mut ran = None;
        if lowest.layer.is_none() {
            reached(Probe::SharedLayerFolded);
            let origin = self.origin(self.first());
            let doctype = self.doctypes.get(&lowest.mutation.doctype);
            let mut writer =
                mem::replace(&mut self.writer, Writer::new(&self.view)).move_to(&self.view.fork());
            let run = program::run_frame(&mut writer, origin, &lowest.mutation, doctype);
            let steps = writer.take_steps();
            self.writer = writer.move_to(&self.view);
            let (verdict, set) = done!(run);
            budget.spend_pages(set.pages.len() as u64);
            budget.spend_steps(steps);
            ran_again(lowest.call);
            self.runs_again += 1;
            if lowest.predicted != Some(verdict) {
                // Those above it were built on something else: it was left out for want of memory.
                self.stale = true;
                return Run::Done(None);
            }
            ran = Some(set);
        }
        let layer = lowest.layer.as_ref().or(ran.as_ref());
        let staged = self.staged.pop_front_if(|entry| layer == Some(&entry.set));
        if let Some(entry) = staged {
            return Run::Done(Some(self.fold_lowest(entry)));
        }
        // It was not predicted, and need not be compared again: the layer is not kept for that.
        let entry = self.staged.front_mut().expect("BUG: it was looked at above");
        entry.origin = None;
        Run::Done(None)
    }

    /// The lowest layer becomes the entry: what is seen stays as it is.
    fn fold_lowest(&mut self, entry: ServerEntry) -> Advance {
        let lsn = self.first();
        let own = self.origin(lsn);
        let number = self.undecided.number(0);
        let lowest = self.undecided.pop_oldest().expect("BUG: predicted by nothing");
        if let Some(layer) = &lowest.layer {
            self.own_layers.give_back(layer);
        }
        self.predicts = !lowest.has_run_again;
        let (call, mutation) = (lowest.call, lowest.mutation);
        self.base = Some(entry.position);
        self.view.advance_base(&entry.set);
        self.is_confirmed_old = true;
        if self.undecided.is_empty() {
            self.view.set_overlay([]);
        } else {
            self.view.settle(&entry.set, number);
        }
        let verdict = lowest.predicted.expect("BUG: a layer without a verdict");
        Advance {
            entries: vec![entry.into_storage()],
            trim: Some(lsn.next()),
            decided: vec![Decided { entry: own, call, mutation, verdict }],
            ..Advance::default()
        }
    }
}

impl Called for Undecided {
    fn call(&self) -> CallId {
        self.call
    }

    fn size(&self) -> usize {
        self.body.len().max(UNDECIDED_SIZE_MIN)
    }
}

impl Undecided {
    fn read(frame: TimelineFrame) -> Self {
        // Frames were written by `issue`; one that cannot be read is rejected by the authority in
        // its place, and changes nothing here.
        let mutation = Mutation::decode(&frame.body).unwrap_or_else(|_| Mutation::unreadable());
        let (layer, hash, has_run_again, predicted) = (None, None, false, None);
        Self { call: frame.call, mutation, body: frame.body, layer, hash, has_run_again, predicted }
    }

    /// The frame at this place.
    #[must_use]
    pub fn frame(&self, lsn: Lsn) -> TimelineFrame {
        TimelineFrame { lsn, call: self.call, body: self.body.clone() }
    }
}

impl ServerEntry {
    fn into_storage(self) -> StorageEntry {
        StorageEntry {
            range: self.range,
            position: self.position,
            calls: Vec::new(),
            set: self.set,
        }
    }
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timeline {}", self.undecided())?;
        match self.base {
            Some(base) => write!(f, " | visible {}", base.next)?,
            None => f.write_str(" | nothing from the server")?,
        }
        if !self.staged.is_empty() {
            write!(f, " | staged {}", self.staged.len())?;
        }
        Ok(())
    }
}
