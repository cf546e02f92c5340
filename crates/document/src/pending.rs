//! The mutations without a verdict, in their order, found by place and by call.

use std::collections::{BTreeMap, VecDeque};

use tidelog_types::CallId;

/// What has a call to be found by.
pub(crate) trait Called {
    /// The call that issued it.
    fn call(&self) -> CallId;

    /// Its bytes.
    fn size(&self) -> usize;
}

/// Mutations without a verdict, oldest first.
pub(crate) struct Pending<T> {
    queue: VecDeque<T>,
    /// How many have left the queue at its front.
    left_count: u64,
    /// How many had come before each that is in the queue.
    by_call: BTreeMap<CallId, u64>,
    /// Bytes of all of them.
    size: usize,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), left_count: 0, by_call: BTreeMap::new(), size: 0 }
    }
}

impl<T: Called> Pending<T> {
    pub fn push(&mut self, issued: T) {
        self.size += issued.size();
        self.by_call.insert(issued.call(), self.left_count + self.queue.len() as u64);
        self.queue.push_back(issued);
    }

    pub fn pop_oldest(&mut self) -> Option<T> {
        let oldest = self.queue.pop_front()?;
        self.size -= oldest.size();
        let call = oldest.call();
        if self.by_call.get(&call) == Some(&self.left_count) {
            self.by_call.remove(&call);
        }
        self.left_count += 1;
        Some(oldest)
    }

    /// What is not found by its call, or is found and not there; for simulations. A call that was
    /// issued twice is found at its last place.
    pub fn doubt(&self) -> Option<String> {
        let mut places = BTreeMap::new();
        for (nth, issued) in self.queue.iter().enumerate() {
            places.insert(issued.call(), self.left_count + nth as u64);
        }
        let (by_call, size) = (&self.by_call, self.queue.iter().map(T::size).sum::<usize>());
        if places != *by_call {
            return Some(format!("calls are at {places:?}, and found at {by_call:?}"));
        }
        (size != self.size)
            .then(|| format!("they have {size} bytes, and {} by the count", self.size))
    }

    /// Bytes of all of them.
    pub fn size(&self) -> usize {
        self.size
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn get(&self, index: usize) -> Option<&T> {
        self.queue.get(index)
    }

    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.queue.get_mut(index)
    }

    pub fn oldest(&self) -> Option<&T> {
        self.queue.front()
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.queue.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.queue.iter_mut()
    }

    /// The sizes of some have changed.
    pub fn count_anew(&mut self) {
        self.size = self.queue.iter().map(T::size).sum();
    }

    /// How many have come before the one at that place: each has a number of its own.
    pub fn number(&self, index: usize) -> u64 {
        self.left_count + index as u64
    }

    /// The place of a call in the queue, from 0.
    pub fn index_of(&self, call: CallId) -> Option<u64> {
        self.by_call.get(&call).map(|before| before - self.left_count)
    }
}

impl<T: Called> FromIterator<T> for Pending<T> {
    fn from_iter<I: IntoIterator<Item = T>>(issued: I) -> Self {
        let mut pending = Self::default();
        issued.into_iter().for_each(|it| pending.push(it));
        pending
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Counts how often it is asked for its call.
    struct Asked<'a> {
        call: CallId,
        times: &'a Cell<u64>,
    }

    impl Called for Asked<'_> {
        fn call(&self) -> CallId {
            self.times.set(self.times.get() + 1);
            self.call
        }

        fn size(&self) -> usize {
            1
        }
    }

    /// Goal: a tab that asks again for all that it had asked is linear work, however much has no
    /// verdict. Method: each call is looked for among thousands, and then goes.
    #[test]
    fn a_call_is_found_without_a_look_at_the_others() {
        const COUNT: u64 = 20_000;
        let times = Cell::new(0);
        let call = |nth: u64| CallId(u128::from(nth).to_le_bytes());
        let mut pending: Pending<_> =
            (0..COUNT).map(|nth| Asked { call: call(nth), times: &times }).collect();
        for nth in 0..COUNT {
            assert_eq!(pending.index_of(call(nth)), Some(0));
            assert_eq!(pending.index_of(call(COUNT - 1)), Some(COUNT - 1 - nth));
            assert_eq!(pending.index_of(call(COUNT)), None);
            pending.pop_oldest();
            assert_eq!(pending.index_of(call(nth)), None);
        }
        assert!(times.get() <= 2 * COUNT, "{} calls are looked at", times.get());
    }
}
