//! Which calls a document has recorded, for tabs that ask again.

use std::collections::{BTreeMap, VecDeque};

use tidelog_types::{CallId, Lsn};

/// The newest calls and their LSNs, in the journal that holds them.
pub(super) struct Recorded {
    lsns: BTreeMap<CallId, Lsn>,
    /// Oldest first. A call that was taken back may still stand here.
    order: VecDeque<CallId>,
    calls_max: usize,
}

impl Recorded {
    /// None yet, of which it will keep so many.
    pub(super) fn new(calls_max: usize) -> Self {
        Self { lsns: BTreeMap::new(), order: VecDeque::new(), calls_max }
    }

    pub(super) fn insert(&mut self, call: CallId, lsn: Lsn) {
        if self.lsns.insert(call, lsn).is_none() {
            self.order.push_back(call);
        }
        while self.order.len() > self.calls_max {
            if let Some(oldest) = self.order.pop_front() {
                self.lsns.remove(&oldest);
            }
        }
    }

    pub(super) fn extend(&mut self, calls: impl IntoIterator<Item = (CallId, Lsn)>) {
        calls.into_iter().for_each(|(call, lsn)| self.insert(call, lsn));
    }

    /// It was taken back.
    pub(super) fn remove(&mut self, call: CallId) {
        self.lsns.remove(&call);
    }

    pub(super) fn get(&self, call: CallId) -> Option<Lsn> {
        self.lsns.get(&call).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_calls_are_forgotten_first() {
        let call = |n: usize| CallId((n as u128).to_be_bytes());
        let mut recorded = Recorded::new(8);
        recorded.extend((0..=8).map(|n| (call(n), Lsn::FIRST.plus(n as u64))));
        assert_eq!(recorded.get(call(0)), None);
        assert_eq!(recorded.get(call(1)), Some(Lsn::FIRST.plus(1)));
        recorded.remove(call(1));
        assert_eq!(recorded.get(call(1)), None);
    }
}
