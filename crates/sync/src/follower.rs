//! The server's half of a storage journal's way to one client.

use std::fmt;

use tidelog_types::probe::{Probe, reached};
use tidelog_types::{Lsn, LsnRange};

/// What one client holds of the storage journal, and what it was sent.
///
/// A client that is up to date gets each entry as it becomes durable. One that lags (it has just
/// come, or does not read) gets nothing until it has caught up with what it was sent, and then one
/// entry that stands for all that it lacks: so a slow reader costs the server nothing.
#[derive(Clone, Debug)]
pub struct Follower {
    /// The client holds everything before this.
    received: Lsn,
    /// The client was sent everything before this.
    sent: Lsn,
    /// The changes since `sent` are being read for it.
    catching_up: bool,
    /// Entries that it may have been sent and not yet acknowledged.
    in_flight_max: u64,
}

/// What to do for a follower now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowerStep {
    /// Nothing: it has everything, or has to read first.
    Rest,
    /// Send it the entry that was just made durable.
    SendEntry,
    /// Read what changed since this LSN and send it as one entry.
    CatchUp(Lsn),
}

impl Follower {
    /// A follower who holds everything before `next`, and may be sent so many entries unread.
    #[must_use]
    pub fn new(next: Lsn, in_flight_max: u64) -> Self {
        Self { received: next, sent: next, catching_up: false, in_flight_max }
    }

    /// What it was sent: everything before this.
    #[must_use]
    pub fn sent(&self) -> Lsn {
        self.sent
    }

    /// The client has said that it holds everything before this.
    #[must_use]
    pub fn received(&self) -> Lsn {
        self.received
    }

    /// Whether the changes since what it was sent are being read for it.
    #[must_use]
    pub fn is_catching_up(&self) -> bool {
        self.catching_up
    }

    /// The client says that it holds everything before `next`.
    pub fn on_received(&mut self, next: Lsn) {
        self.received = self.received.max(next.min(self.sent));
    }

    /// The entry of `range` has just become durable.
    pub fn on_entry(&mut self, range: LsnRange) -> FollowerStep {
        let in_turn = self.sent == range.start();
        if in_turn && !self.catching_up && self.has_room() {
            self.sent = range.end();
            return FollowerStep::SendEntry;
        }
        self.next_step(range.end())
    }

    /// What to do, given that everything before `durable` may leave.
    pub fn next_step(&mut self, durable: Lsn) -> FollowerStep {
        if self.catching_up || self.sent >= durable {
            return FollowerStep::Rest;
        }
        if !self.has_room() {
            reached(Probe::FollowerHeldBack);
            return FollowerStep::Rest;
        }
        self.catching_up = true;
        FollowerStep::CatchUp(self.sent)
    }

    /// The changes up to `end` were read and sent.
    pub fn caught_up(&mut self, end: Lsn) {
        self.catching_up = false;
        self.sent = self.sent.max(end);
    }

    fn has_room(&self) -> bool {
        self.sent.get() - self.received.get() < self.in_flight_max
    }
}

impl fmt::Display for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let catching_up = if self.catching_up { " catching up" } else { "" };
        write!(f, "received {} sent {}{catching_up}", self.received, self.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_FLIGHT_MAX: u64 = 16;

    fn lsn(number: u64) -> Lsn {
        Lsn::new(number).expect("not 0")
    }

    #[test]
    fn one_who_is_up_to_date_gets_each_entry() {
        let mut follower = Follower::new(lsn(4), IN_FLIGHT_MAX);
        assert_eq!(follower.on_entry(LsnRange::one(lsn(4))), FollowerStep::SendEntry);
        assert_eq!(follower.on_entry(LsnRange::one(lsn(5))), FollowerStep::SendEntry);
        assert_eq!(follower.to_string(), "received 4 sent 6");
    }

    #[test]
    fn one_who_lags_gets_one_entry_for_all_that_it_lacks() {
        let mut follower = Follower::new(lsn(4), IN_FLIGHT_MAX);
        assert_eq!(follower.next_step(lsn(9)), FollowerStep::CatchUp(lsn(4)));
        assert_eq!(follower.on_entry(LsnRange::one(lsn(9))), FollowerStep::Rest);
        follower.caught_up(lsn(9));
        assert_eq!(follower.next_step(lsn(10)), FollowerStep::CatchUp(lsn(9)));
        follower.caught_up(lsn(10));
        assert_eq!(follower.on_entry(LsnRange::one(lsn(10))), FollowerStep::SendEntry);
    }

    #[test]
    fn one_who_does_not_read_is_sent_nothing_more() {
        let mut follower = Follower::new(lsn(1), IN_FLIGHT_MAX);
        let mut at = lsn(1);
        for _ in 0..IN_FLIGHT_MAX {
            assert_eq!(follower.on_entry(LsnRange::one(at)), FollowerStep::SendEntry);
            at = at.next();
        }
        assert_eq!(follower.on_entry(LsnRange::one(at)), FollowerStep::Rest);
        follower.on_received(at);
        assert_eq!(follower.next_step(at.next()), FollowerStep::CatchUp(at));
    }
}
