//! Whose read is served next.
//!
//! Each owner has a queue of its own, and owners take turns, a chunk of pages each: so one with a
//! thousand reads does not hold up one with a single read. An owner that comes with something
//! after it had nothing goes before those that have been waiting for more, as in *FQ-CoDel* (RFC
//! 8290); it can do so again only when the others have had their turns. So while an owner waits,
//! each other one is served at most once.
//!
//! What a user waits for goes first; while there is any of it, every
//! [`USER_TURNS`]`+ 1`st turn is for what nobody waits for.

use std::collections::VecDeque;

use tidelog_types::SortedMap;
use tidelog_types::limits::Limits;

use crate::OwnerId;
use crate::protocol::Urgency;
use crate::reads::ActiveRead;

/// Turns in a row for what users wait for, while something else waits too.
const USER_TURNS: u32 = 7;

/// The reads that wait, and the order in which they are served.
#[derive(Debug, Default)]
pub(crate) struct ReadQueue {
    user: Ring,
    background: Ring,
    /// Turns for users since the last one in the background.
    user_turns: u32,
    outstanding: SortedMap<OwnerId, Outstanding>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Outstanding {
    reads: usize,
    pages: usize,
}

/// Owners in turn.
#[derive(Debug, Default)]
struct Ring {
    /// The reads of each owner. One that has none left keeps its place for one more round.
    queues: SortedMap<OwnerId, VecDeque<ActiveRead>>,
    /// Owners that had no place when their first read came: they go before `old`.
    new: VecDeque<OwnerId>,
    /// Owners that have had a turn.
    old: VecDeque<OwnerId>,
}

impl ReadQueue {
    /// Whether a read of so many pages can be taken in: its owner may have only so much
    /// outstanding. One that has nothing else outstanding may ask for any number of pages.
    pub fn has_room(&self, owner: OwnerId, pages: usize, limits: &Limits) -> bool {
        let Some(outstanding) = self.outstanding.get(&owner) else { return true };
        outstanding.reads < limits.owner_reads_max
            && outstanding.pages.saturating_add(pages) <= limits.owner_read_pages_max
    }

    pub fn push(&mut self, read: ActiveRead) {
        self.count(&read);
        self.ring(read.urgency).queue(read.owner).push_back(read);
    }

    fn count(&mut self, read: &ActiveRead) {
        let outstanding = self.outstanding.get_or_insert_with(read.owner, Outstanding::default);
        outstanding.reads += 1;
        outstanding.pages += read.plan.left();
    }

    /// Whose turn it is, and for what.
    pub fn next(&mut self) -> Option<(Urgency, OwnerId)> {
        let is_due = self.user_turns >= USER_TURNS;
        let order = match is_due {
            true => [Urgency::Background, Urgency::User],
            false => [Urgency::User, Urgency::Background],
        };
        let (urgency, owner) = order
            .into_iter()
            .find_map(|urgency| self.ring(urgency).next().map(|owner| (urgency, owner)))?;
        self.user_turns = match urgency {
            Urgency::User if !self.background.queues.is_empty() => self.user_turns + 1,
            _ => 0,
        };
        Some((urgency, owner))
    }

    /// The next read of an owner whose turn it is. [`put_back`](Self::put_back) it unless it is
    /// done.
    pub fn take(&mut self, urgency: Urgency, owner: OwnerId) -> Option<ActiveRead> {
        let read = self.ring(urgency).queues.get_mut(&owner)?.pop_front()?;
        let outstanding = self.outstanding.get_mut(&owner).expect("BUG: a read nobody asked for");
        outstanding.reads -= 1;
        outstanding.pages -= read.plan.left();
        if outstanding.reads == 0 {
            self.outstanding.remove(&owner);
        }
        Some(read)
    }

    /// Puts a read back that is not done. What users wait for takes turns within an owner too; the
    /// rest is served one after the other, so that one of its answers is half given and not all.
    pub fn put_back(&mut self, read: ActiveRead) {
        self.count(&read);
        let queue = self.ring(read.urgency).queue(read.owner);
        match read.urgency {
            Urgency::User => queue.push_back(read),
            Urgency::Background => queue.push_front(read),
        }
    }

    pub fn forget(&mut self, owner: OwnerId) {
        self.outstanding.remove(&owner);
        for ring in [&mut self.user, &mut self.background] {
            ring.queues.remove(&owner);
            ring.new.retain(|waiting| *waiting != owner);
            ring.old.retain(|waiting| *waiting != owner);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// How many reads wait.
    pub fn len(&self) -> usize {
        self.outstanding.values().map(|outstanding| outstanding.reads).sum()
    }

    fn ring(&mut self, urgency: Urgency) -> &mut Ring {
        match urgency {
            Urgency::User => &mut self.user,
            Urgency::Background => &mut self.background,
        }
    }
}

impl Ring {
    fn queue(&mut self, owner: OwnerId) -> &mut VecDeque<ActiveRead> {
        let new = &mut self.new;
        self.queues.get_or_insert_with(owner, || {
            new.push_back(owner);
            VecDeque::new()
        })
    }

    /// Pops the next owner that has reads, and moves it to the back.
    fn next(&mut self) -> Option<OwnerId> {
        loop {
            let owner = self.new.pop_front().or_else(|| self.old.pop_front())?;
            if self.queues.get(&owner).is_some_and(|queue| !queue.is_empty()) {
                self.old.push_back(owner);
                return Some(owner);
            }
            self.queues.remove(&owner);
        }
    }
}

#[cfg(test)]
mod tests;
