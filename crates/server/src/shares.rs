//! How many of something each may have at once: so nobody takes what there is for all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is taken, by whose it is.
pub(crate) struct Shares<W> {
    max: usize,
    taken: Mutex<BTreeMap<W, usize>>,
}

/// One of what somebody may have, until it is dropped.
pub(crate) struct Share<W: Ord> {
    shares: Arc<Shares<W>>,
    whose: W,
}

impl<W: Clone + Ord> Shares<W> {
    /// Each may have so many.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: Mutex::default() })
    }

    /// One more; `None` for whoever has as many as may be.
    pub(crate) fn take(self: &Arc<Self>, whose: W) -> Option<Share<W>> {
        let mut taken = self.taken();
        let count = taken.get(&whose).copied().unwrap_or(0);
        if count >= self.max {
            return None;
        }
        taken.insert(whose.clone(), count + 1);
        Some(Share { shares: Arc::clone(self), whose })
    }
}

impl<W> Shares<W> {
    fn taken(&self) -> MutexGuard<'_, BTreeMap<W, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Ord> Drop for Share<W> {
    fn drop(&mut self) {
        let mut taken = self.shares.taken();
        let count = taken.get_mut(&self.whose).expect("BUG: it is taken");
        *count -= 1;
        if *count == 0 {
            taken.remove(&self.whose);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_as_many_as_may_be_and_leaves_nothing_behind() {
        let shares = Shares::new(2);
        let ada = [shares.take("ada"), shares.take("ada")];
        assert!(ada.iter().all(Option::is_some));
        assert!(shares.take("ada").is_none());
        let bob = shares.take("bob").expect("his own");
        let [one, other] = ada;
        drop(one);
        assert!(shares.take("ada").is_some(), "and it is given back at once");
        drop((other, bob));
        assert!(shares.taken().is_empty());
    }
}
