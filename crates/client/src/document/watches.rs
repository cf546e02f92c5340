//! Live queries: which of them have to run again, and what they said last.

use std::collections::BTreeSet;

use tidelog_sqlite::{ReadSet, Run, View};
use tidelog_types::{Pgid, Rows, SortedMap};

use super::open::Open;
use crate::effect::TabId;
use crate::outbox::Outbox;
use crate::protocol::{Call, CallFailure, FromCore, Query};

/// The live queries of all tabs.
#[derive(Default)]
pub(super) struct Watches(SortedMap<(TabId, Call), Watch>);

/// One live query.
pub(super) struct Watch {
    query: Query,
    /// What its last run read; `None` if it has to run again whatever changes.
    read_set: Option<ReadSet>,
    rows: Option<Rows>,
    is_dirty: bool,
}

impl Watch {
    pub fn new(query: Query) -> Self {
        Self { query, read_set: None, rows: None, is_dirty: false }
    }

    /// Runs the query once; says its rows if they are others than before.
    pub fn look(&mut self, open: &mut Open, now_ms: u64) -> Run<Option<Rows>> {
        match open.reader_at(now_ms).watch(&self.query.sql, &self.query.params) {
            Run::Done((rows, read_set)) => {
                self.read_set = Some(read_set);
                self.is_dirty = false;
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
        self.is_dirty = false;
    }
}

impl Watches {
    pub fn insert(&mut self, tab: TabId, call: Call, watch: Watch) {
        self.0.insert((tab, call), watch);
    }

    pub fn remove(&mut self, tab: TabId, call: Call) {
        self.0.remove(&(tab, call));
    }

    pub fn drop_tab(&mut self, tab: TabId) {
        self.0.retain(|(holder, _), _| *holder != tab);
    }

    /// The next one that has to run again; one of a tab that `is_behind` waits until it is not.
    pub fn next_dirty(
        &mut self,
        is_behind: impl Fn(TabId) -> bool,
    ) -> Option<(TabId, Call, &mut Watch)> {
        let mut watches = self.0.iter_mut();
        let (key, watch) = watches.find(|((tab, _), it)| it.is_dirty && !is_behind(*tab))?;
        Some((key.0, key.1, watch))
    }

    /// The pages that look different now concern some of them.
    pub fn mark(&mut self, changed: &BTreeSet<Pgid>, view: &View) {
        if changed.is_empty() {
            return;
        }
        let cookie = view.schema_cookie();
        for watch in self.0.values_mut() {
            let touched = |set: &ReadSet| set.touched_by_pages(changed, cookie);
            watch.is_dirty |= watch.read_set.as_ref().is_none_or(touched);
        }
    }

    /// None of them has an answer at present: there is no document.
    pub fn fail_all(&mut self, failure: &CallFailure, out: &mut Outbox) {
        for ((tab, call), watch) in self.0.iter_mut() {
            watch.fail();
            out.tell(*tab, FromCore::Failed { call: *call, failure: failure.clone() });
        }
    }

    /// All of them have to run again.
    pub fn mark_all(&mut self) {
        self.0.values_mut().for_each(|watch| watch.is_dirty = true);
    }
}
