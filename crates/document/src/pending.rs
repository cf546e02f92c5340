//! The mutations without a verdict, in their order, found by place and by call.

use std::collections::{BTreeMap, VecDeque};

use tidelog_types::CallId;

use crate::Undecided;

/// Mutations without a verdict, oldest first.
#[derive(Default)]
pub(crate) struct Pending {
    queue: VecDeque<Undecided>,
    /// How many have left the queue at its front.
    left_count: u64,
    /// How many had come before each that is in the queue.
    by_call: BTreeMap<CallId, u64>,
}

impl Pending {
    pub fn push(&mut self, undecided: Undecided) {
        self.by_call.insert(undecided.call, self.left_count + self.queue.len() as u64);
        self.queue.push_back(undecided);
    }

    pub fn pop_oldest(&mut self) -> Option<Undecided> {
        let oldest = self.queue.pop_front()?;
        if self.by_call.get(&oldest.call) == Some(&self.left_count) {
            self.by_call.remove(&oldest.call);
        }
        self.left_count += 1;
        Some(oldest)
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn get(&self, index: usize) -> Option<&Undecided> {
        self.queue.get(index)
    }

    pub fn oldest(&self) -> Option<&Undecided> {
        self.queue.front()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Undecided> {
        self.queue.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Undecided> {
        self.queue.iter_mut()
    }

    /// The place of a call in the queue, from 0.
    pub fn index_of(&self, call: CallId) -> Option<u64> {
        self.by_call.get(&call).map(|before| before - self.left_count)
    }
}

impl FromIterator<Undecided> for Pending {
    fn from_iter<I: IntoIterator<Item = Undecided>>(undecided: I) -> Self {
        let mut pending = Self::default();
        undecided.into_iter().for_each(|it| pending.push(it));
        pending
    }
}
