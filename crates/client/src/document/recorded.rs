//! Which calls a document has recorded, for tabs that ask again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use tidelog_types::{CallId, EntryId};

/// The newest calls and their entries.
pub(super) struct Recorded {
    entries: BTreeMap<CallId, EntryId>,
    /// Oldest first.
    order: VecDeque<CallId>,
    calls_max: usize,
    /// Whether there may have been older ones.
    pub(super) has_forgotten: bool,
}

impl Recorded {
    /// No calls yet; keeps the newest `calls_max`.
    pub(super) fn new(calls_max: usize) -> Self {
        let (entries, order) = (BTreeMap::new(), VecDeque::new());
        Self { entries, order, calls_max, has_forgotten: false }
    }

    pub(super) fn insert(&mut self, call: CallId, entry: EntryId) {
        if self.entries.insert(call, entry).is_none() {
            self.order.push_back(call);
        }
        while self.order.len() > self.calls_max {
            if let Some(oldest) = self.order.pop_front() {
                self.entries.remove(&oldest);
                self.has_forgotten = true;
            }
        }
    }

    pub(super) fn extend(&mut self, calls: impl IntoIterator<Item = (CallId, EntryId)>) {
        calls.into_iter().for_each(|(call, entry)| self.insert(call, entry));
    }

    /// Forgets calls that were taken back. One that is recorded once more is the newest one.
    pub(super) fn remove_all(&mut self, calls: &BTreeSet<CallId>) {
        if !calls.is_empty() {
            self.entries.retain(|call, _| !calls.contains(call));
            self.order.retain(|call| !calls.contains(call));
        }
    }

    /// Whether no call is forgotten whose entry is this one or follows it, in the journal that is
    /// written now.
    pub(super) fn knows_all_since(&self, since: EntryId) -> bool {
        let oldest = self.order.front().and_then(|call| self.entries.get(call));
        oldest.is_some_and(|oldest| oldest.journal != since.journal || oldest.lsn <= since.lsn)
    }

    /// Whether one is here that was issued later through the same handle.
    pub(super) fn has_later(&self, call: CallId) -> bool {
        let later = (Bound::Excluded(call), Bound::Included(call.last_of_its_kin()));
        self.entries.range(later).next().is_some()
    }

    pub(super) fn get(&self, call: CallId) -> Option<EntryId> {
        self.entries.get(&call).copied()
    }
}

#[cfg(test)]
mod tests {
    use tidelog_types::{JournalId, Life, Lsn};

    use super::*;

    fn call(n: u64) -> CallId {
        CallId(u128::from(n).to_be_bytes())
    }

    fn entry(n: u64) -> EntryId {
        EntryId { journal: JournalId([1; 16]), life: Life::NONE, lsn: Lsn::FIRST.plus(n) }
    }

    #[test]
    fn the_oldest_calls_are_forgotten_first() {
        let mut recorded = Recorded::new(8);
        recorded.extend((0..=8).map(|n| (call(n), entry(n))));
        assert_eq!(recorded.get(call(0)), None);
        assert_eq!(recorded.get(call(1)), Some(entry(1)));
        recorded.remove_all(&[call(1)].into());
        assert_eq!(recorded.get(call(1)), None);
    }

    /// Goal: nothing is run twice since nobody knows that it was recorded. Method: a call is taken
    /// back, and recorded again behind others.
    #[test]
    fn a_call_that_is_recorded_again_is_as_new_as_that() {
        let mut recorded = Recorded::new(3);
        recorded.insert(call(1), entry(1));
        recorded.remove_all(&[call(1)].into());
        recorded.extend([(2, 1), (1, 2), (3, 3)].map(|(n, at)| (call(n), entry(at))));
        assert_eq!(recorded.get(call(1)), Some(entry(2)));
        recorded.insert(call(4), entry(4));
        assert_eq!(recorded.get(call(2)), None, "that one was the oldest");
        assert!(recorded.knows_all_since(entry(2)) && !recorded.knows_all_since(entry(1)));
    }
}
