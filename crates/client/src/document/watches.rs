//! Live queries, and what else a tab waits for: which of them have to run again, and what they said
//! last.

use std::collections::BTreeSet;

use tidelog_document::{
    ArchivedEvents, Doctype, FoundEvents, FoundOutcome, InstanceId, WantedEvents, find_endings,
    find_events, find_given, find_outcome, find_records,
};
use tidelog_sqlite::{Failure, ReadSet, Run, View};
use tidelog_types::{Pgid, Rows, SortedMap};

use super::archives::ArchiveWait;
use super::open::Open;
use crate::effect::TabId;
use crate::outbox::Outbox;
use crate::protocol::{Call, CallFailure, CommandName, Events, FromCore, Handle, Query, Records};

/// The live queries of all tabs, and those of them that wait for events.
#[derive(Default)]
pub(super) struct Watches {
    watches: SortedMap<(TabId, Call), Watch>,
    /// Up to which one those that wait for the end of a task have heard of endings; `None` if they
    /// have to look for themselves.
    endings_heard: Option<i64>,
    has_endings: bool,
    /// How often pages have changed.
    changes: u64,
    /// Whether nobody looks for what handlers are given: the copy was read anew, and may lack what
    /// they were told, until it has all of its server.
    given_wait: bool,
}

/// One live query, or a tab that waits for events: this one is over with its first answer.
pub(super) struct Watch {
    /// By which its tab holds the document.
    pub handle: Handle,
    watched: Watched,
    /// What its last run read; `None` if it has to run again whatever changes.
    read_set: Option<ReadSet>,
    rows: Option<Rows>,
    /// The first change since its last run for which it has to run again.
    dirty_since: Option<u64>,
    /// Until when it does not run again.
    rests_until_ms: u64,
    /// What it wants of the archive, while it does: it waits for nothing else then.
    archive: Option<ArchiveWait>,
}

/// A list of so many given tasks takes a small part of a millisecond to read and to tell. Whoever
/// is given many hears of further ones some milliseconds later, and not each time that one of them
/// comes or goes: most of the time is left for other work.
const GIVEN_PER_MS: u64 = 16;

enum Watched {
    Query(Query),
    Events(Events),
    Outcome {
        command: CommandName,
        /// Whether it is there, and was not over when this was looked at.
        is_pending: bool,
    },
    /// The tasks that are given to an instance, once it is one.
    Given {
        instance: Option<InstanceId>,
        /// What its tab was told last.
        told: Option<Rows>,
    },
    Records(Records),
}

impl Watch {
    pub fn new(handle: Handle, query: Query) -> Self {
        Self::of(handle, Watched::Query(query))
    }

    pub fn of_events(handle: Handle, events: Events) -> Self {
        Self::of(handle, Watched::Events(events))
    }

    pub fn of_outcome(handle: Handle, command: CommandName) -> Self {
        Self::of(handle, Watched::Outcome { command, is_pending: false })
    }

    pub fn of_given(handle: Handle) -> Self {
        Self::of(handle, Watched::Given { instance: None, told: None })
    }

    pub fn of_records(handle: Handle, records: Records) -> Self {
        Self::of(handle, Watched::Records(records))
    }

    fn of(handle: Handle, watched: Watched) -> Self {
        let (read_set, rows, dirty_since) = (None, None, None);
        let (rests_until_ms, archive) = (0, None);
        Self { handle, watched, read_set, rows, dirty_since, rests_until_ms, archive }
    }

    /// Why it has no answer, for its tab.
    pub fn failure_of(&self, failure: &Failure) -> CallFailure {
        let told = CallFailure::of_query(failure);
        match &self.watched {
            Watched::Query(query) => told.quoting(&query.sql),
            _ => told,
        }
    }

    /// Whether it is over once it has an answer.
    pub fn is_for_once(&self) -> bool {
        !matches!(self.watched, Watched::Query(_) | Watched::Given { .. })
    }

    fn is_of_given(&self) -> bool {
        matches!(self.watched, Watched::Given { .. })
    }

    /// Whether it looks for what an instance is given: whoever is none is given nothing.
    fn looks_for_given(&self) -> bool {
        matches!(self.watched, Watched::Given { instance: Some(_), .. })
    }

    /// Whether it looks at what is confirmed.
    fn is_of_confirmed(&self) -> bool {
        !matches!(self.watched, Watched::Query(_))
    }

    /// Whether there is nothing to look for before some task has ended.
    fn waits_for_end(&self) -> bool {
        matches!(self.watched, Watched::Outcome { is_pending: true, .. })
    }

    /// Runs the query once; says its rows if they are others than before. One for events says them
    /// once there are some, and looks through a bounded number of others each time. Where the copy
    /// `has_all` events and ends before those that are wanted, another history took the place of
    /// theirs; where it has not, they may be on their way.
    pub fn look(
        &mut self,
        open: &mut Open,
        doctype: Option<&Doctype>,
        has_all: bool,
        now_ms: u64,
    ) -> Run<Option<Rows>> {
        let query = match &mut self.watched {
            Watched::Query(query) => query,
            Watched::Outcome { command, is_pending } => {
                let CommandName { aggregate, stream, name, key } = command;
                // What this device has sent and nobody has decided is not there yet.
                let has_all = has_all && !open.has_undecided();
                let reader = open.confirmed_reader_at(now_ms);
                let found = match find_outcome(reader, [&*aggregate, stream, name, key]) {
                    Run::Done(found) => found,
                    Run::Fault(pgid) => return Run::Fault(pgid),
                    Run::Failed(failure) => return Run::Failed(failure),
                };
                self.dirty_since = None;
                *is_pending = found == FoundOutcome::Pending;
                return Run::Done(match found {
                    FoundOutcome::Over(rows) => Some(rows),
                    FoundOutcome::None if has_all => Some(Rows::default()),
                    FoundOutcome::None | FoundOutcome::Pending => None,
                });
            }
            Watched::Records(Records { task, attempt, after }) => {
                let run = find_records(open.confirmed_reader_at(now_ms), *task, *attempt, *after);
                if matches!(run, Run::Done(_)) {
                    self.dirty_since = None;
                }
                return run;
            }
            Watched::Given { instance, .. } => {
                let reader = open.confirmed_reader_at(now_ms);
                let run = match instance {
                    Some(instance) => find_given(reader, *instance),
                    None => Run::Done(Rows::default()),
                };
                let rows = match run {
                    Run::Done(rows) => rows,
                    Run::Fault(pgid) => return Run::Fault(pgid),
                    Run::Failed(failure) => return Run::Failed(failure),
                };
                self.dirty_since = None;
                self.rests_until_ms = now_ms + u64::from(rows.count) / GIVEN_PER_MS;
                if self.rows.as_ref() == Some(&rows) {
                    return Run::Done(None);
                }
                self.rows = Some(rows.clone());
                return Run::Done(Some(rows));
            }
            Watched::Events(Events { wanted, waits, .. }) => {
                let Some(doctype) = doctype else {
                    self.dirty_since = None;
                    return Run::Done(None);
                };
                let reader = open.confirmed_reader_at(now_ms);
                let archived = self.archive.as_ref().and_then(|wait| wait.has.as_ref());
                let found = match find_events(reader, doctype, wanted, archived) {
                    Run::Done(found) => found,
                    Run::Fault(pgid) => return Run::Fault(pgid),
                    Run::Failed(failure) => return Run::Failed(failure),
                };
                self.dirty_since = None;
                if let FoundEvents::Archived(place) = found {
                    self.archive = Some(ArchiveWait::of(place, self.archive.take(), now_ms));
                    return Run::Done(None);
                }
                self.archive = None;
                return Run::Done(match found {
                    FoundEvents::Archived(_) => unreachable!("BUG: it is waited for"),
                    FoundEvents::Some(rows) => Some(rows),
                    FoundEvents::NoneUpTo(sequence) => {
                        wanted.after = sequence;
                        // As whoever has waited least: see `Watches::requeue`.
                        self.dirty_since = Some(u64::MAX);
                        None
                    }
                    FoundEvents::None(last) => {
                        wanted.after = if has_all { last } else { last.max(wanted.after) };
                        (!*waits).then(Rows::default)
                    }
                });
            }
        };
        match open.reader_at(now_ms).watch(&query.sql, &query.params) {
            Run::Done((rows, read_set)) => {
                self.read_set = Some(read_set);
                self.dirty_since = None;
                if self.rows.as_ref() == Some(&rows) {
                    return Run::Done(None);
                }
                self.rows = Some(rows.clone());
                Run::Done(Some(rows))
            }
            Run::Fault(pgid) => Run::Fault(pgid),
            Run::Failed(failure) => {
                self.fail();
                Run::Failed(failure)
            }
        }
    }

    /// It has no answer at present, and is run again whatever changes.
    pub fn fail(&mut self) {
        self.read_set = None;
        self.rows = None;
        self.dirty_since = None;
    }
}

/// What somebody was waiting for, and waits for the disk.
pub(super) struct Found {
    pub tab: TabId,
    pub call: Call,
    pub rows: Rows,
    /// Looks again if the disk does not have it in the end.
    pub watch: Watch,
}

impl Found {
    pub fn tell(self, out: &mut Outbox) {
        out.tell(self.tab, FromCore::Rows { call: self.call, rows: self.rows });
    }
}

/// What a handler is given, and waits for the disk: it does nothing for what the disk may lose.
pub(super) struct Given {
    key: (TabId, Call),
    instance: Option<InstanceId>,
    rows: Rows,
}

impl Watches {
    pub fn insert(&mut self, tab: TabId, call: Call, watch: Watch) {
        self.watches.insert((tab, call), watch);
        self.requeue(tab, call);
    }

    /// One that has run and goes on has its next turn behind all that wait by now, and before what
    /// has to run again later.
    pub fn requeue(&mut self, tab: TabId, call: Call) {
        let Some(watch) = self.watches.get_mut(&(tab, call)) else { return };
        if watch.dirty_since.is_some() {
            self.changes += 1;
            watch.dirty_since = Some(self.changes);
        }
    }

    pub fn has(&self, tab: TabId, call: Call) -> bool {
        self.watches.contains_key(&(tab, call))
    }

    pub fn remove(&mut self, tab: TabId, call: Call) -> Option<Watch> {
        self.watches.remove(&(tab, call))
    }

    /// Whether none of those by which a tab holds the document by this handle has to run again,
    /// besides those of handlers.
    pub fn are_current(&self, tab: TabId, handle: Handle) -> bool {
        let its = |((holder, _), watch): &(&(TabId, Call), &Watch)| {
            *holder == tab && watch.handle == handle && !watch.is_of_given()
        };
        self.watches.iter().filter(its).all(|(_, watch)| watch.dirty_since.is_none())
    }

    /// Whose they are.
    pub fn tabs(&self) -> impl Iterator<Item = TabId> {
        self.watches.keys().map(|(holder, _)| *holder)
    }

    pub fn drop_tab(&mut self, tab: TabId) {
        self.watches.retain(|(holder, _), _| *holder != tab);
    }

    /// That tab has closed the document: those of its handlers go with them.
    pub fn drop_handle(&mut self, tab: TabId, handle: Handle) {
        self.watches.retain(|(holder, _), watch| {
            (*holder, watch.handle) != (tab, handle) || watch.is_of_given()
        });
    }

    /// The next one that has to run again: whichever has waited longest, since one run can be all
    /// that is done between two changes. One of a tab that `is_behind` waits until it is not.
    pub fn next_dirty(
        &mut self,
        now_ms: u64,
        is_behind: impl Fn(TabId) -> bool,
    ) -> Option<(TabId, Call, &mut Watch)> {
        let may_run = |((tab, _), watch): &(&(TabId, Call), &mut Watch)| {
            let waits = self.given_wait && watch.looks_for_given();
            !is_behind(*tab) && watch.rests_until_ms <= now_ms && !waits
        };
        let watches = self.watches.iter_mut().filter(may_run);
        let dirty = watches.filter_map(|(key, it)| Some((it.dirty_since?, key, it)));
        let (_, key, watch) = dirty.min_by_key(|(since, ..)| *since)?;
        Some((key.0, key.1, watch))
    }

    /// When the first of those that have to run again, and do not yet, does.
    pub fn next_rested_ms(&self, now_ms: u64) -> Option<u64> {
        let dirty = self.watches.values().filter(|watch| watch.dirty_since.is_some());
        dirty.map(|watch| watch.rests_until_ms).filter(|at_ms| *at_ms > now_ms).min()
    }

    /// The pages that look different now concern some of them.
    pub fn mark(&mut self, changed: &BTreeSet<Pgid>, view: &View) {
        if changed.is_empty() {
            return;
        }
        self.mark_if(|watch| {
            let touched = |set: &ReadSet| set.touched_by(changed, view);
            !watch.is_of_confirmed() && watch.read_set.as_ref().is_none_or(touched)
        });
    }

    /// Something was confirmed: there may be events, or tasks.
    pub fn mark_confirmed(&mut self) {
        self.mark_if(|watch| watch.is_of_confirmed() && !watch.waits_for_end());
        self.has_endings = true;
    }

    /// Whether it is to be found out which tasks have ended, for those that wait for that.
    pub fn wants_endings(&self) -> bool {
        self.has_endings && self.watches.values().any(Watch::waits_for_end)
    }

    /// Finds out which tasks have ended, since that was done last: who waits for one of them looks
    /// for it.
    pub fn find_endings(&mut self, open: &mut Open, now_ms: u64) -> Run<()> {
        let after = self.endings_heard.unwrap_or(i64::MAX);
        let endings = match find_endings(open.confirmed_reader_at(now_ms), after) {
            Run::Done(endings) => endings,
            Run::Fault(pgid) => return Run::Fault(pgid),
            Run::Failed(failure) => return Run::Failed(failure),
        };
        self.has_endings = false;
        // Of many, or of another history, each looks for its own.
        let is_another = self.endings_heard.is_none_or(|heard| endings.last < heard);
        let all_look = is_another || endings.has_more;
        self.endings_heard = Some(endings.last);
        self.mark_if(|watch| match &watch.watched {
            Watched::Outcome { command, is_pending: true } => {
                let CommandName { aggregate, stream, name, key } = command;
                let is_it = |it: &[String; 4]| it.each_ref() == [aggregate, stream, name, key];
                all_look || endings.names.iter().any(is_it)
            }
            _ => false,
        });
        Run::Done(())
    }

    /// All that wait for the end of a task look for it themselves.
    pub fn look_for_ends(&mut self) {
        (self.has_endings, self.endings_heard) = (false, None);
        self.mark_if(Watch::waits_for_end);
    }

    /// What handlers are given is looked for later, or again.
    pub fn let_given_wait(&mut self, wait: bool) {
        self.given_wait = wait;
    }

    /// A handler of commands is this instance now, or none.
    pub fn note_instance(&mut self, (tab, call): (TabId, Call), instance: Option<InstanceId>) {
        self.changes += 1;
        let Some(watch) = self.watches.get_mut(&(tab, call)) else { return };
        let Watched::Given { instance: before, .. } = &mut watch.watched else { return };
        if *before != instance {
            // A list of the one before may be on its way to the disk, and is not told.
            watch.rows = None;
        }
        *before = instance;
        watch.dirty_since.get_or_insert(self.changes);
    }

    /// What a handler is given, of these rows of its watch; the rows of any other.
    pub fn as_given(&self, key: (TabId, Call), rows: Rows) -> Result<Given, Rows> {
        match self.watches.get(&key).map(|watch| &watch.watched) {
            Some(&Watched::Given { instance, .. }) => Ok(Given { key, instance, rows }),
            _ => Err(rows),
        }
    }

    /// Tells a handler what it is given, unless it is another instance by now.
    pub fn give(&mut self, given: Given, out: &mut Outbox) {
        let Given { key: (tab, call), instance, rows } = given;
        let Some(watch) = self.watches.get_mut(&(tab, call)) else { return };
        if let Watched::Given { instance: now, told } = &mut watch.watched
            && *now == instance
        {
            *told = Some(rows.clone());
            out.tell(tab, FromCore::Rows { call, rows });
        }
    }

    /// The disk has lost what a handler was to be given: it is told of what is there.
    pub fn give_again(&mut self, given: &Given) {
        self.changes += 1;
        let Some(watch) = self.watches.get_mut(&given.key) else { return };
        watch.rows = None;
        watch.dirty_since.get_or_insert(self.changes);
    }

    /// What a handler was told last, if it was given any.
    pub fn given(&self, key: &(TabId, Call)) -> Option<&Rows> {
        match &self.watches.get(key)?.watched {
            Watched::Given { told, .. } => told.as_ref().filter(|rows| rows.count > 0),
            _ => None,
        }
    }

    /// None of them has an answer at present: there is no document.
    pub fn fail_all(&mut self, failure: &CallFailure, out: &mut Outbox) {
        for ((tab, call), watch) in self.watches.iter_mut() {
            watch.fail();
            out.tell(*tab, FromCore::Failed { call: *call, failure: failure.clone() });
        }
    }

    /// Those that want something of the archive, and which events.
    pub fn archive_waits(
        &mut self,
    ) -> impl Iterator<Item = (TabId, Call, &mut ArchiveWait, &WantedEvents)> {
        self.watches.iter_mut().filter_map(|((tab, call), watch)| match &watch.watched {
            Watched::Events(Events { wanted, .. }) => {
                Some((*tab, *call, watch.archive.as_mut()?, wanted))
            }
            _ => None,
        })
    }

    /// The archive has answered, and whoever has asked by this number looks again.
    pub fn hear_archive(&mut self, number: u32, archived: ArchivedEvents) {
        self.changes += 1;
        let mut answer = Some(archived);
        for watch in self.watches.values_mut() {
            if watch.archive.as_mut().is_some_and(|wait| wait.hear(number, &mut answer)) {
                watch.dirty_since.get_or_insert(self.changes);
                return;
            }
        }
    }

    /// All of them have to run again.
    pub fn mark_all(&mut self) {
        self.endings_heard = None;
        self.mark_if(|_| true);
    }

    fn mark_if(&mut self, is_touched: impl Fn(&Watch) -> bool) {
        self.changes += 1;
        for watch in self.watches.values_mut() {
            if watch.dirty_since.is_none() && is_touched(watch) {
                watch.dirty_since = Some(self.changes);
            }
        }
    }
}
