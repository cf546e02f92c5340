//! The client's half of a timeline's way to the server.

use std::collections::VecDeque;
use std::fmt;

use tidelog_types::probe::{Probe, reached};
use tidelog_types::{Lsn, LsnRange};

/// Says which timeline frames to send next.
///
/// It does no I/O and reads no clock. It is given `durable`, never `head`, so a frame that this
/// device could still lose is never sent.
#[derive(Clone, Debug)]
pub struct Sender {
    /// All frames before this LSN are on the server's disk.
    acked: Lsn,
    /// The end of what was sent on this connection. `None` until the server has said what it
    /// wants: before that, any frame could be a duplicate or a gap.
    sent: Option<Lsn>,
    /// Sizes of the frames `acked..sent`, in bytes.
    in_flight_sizes: VecDeque<usize>,
    /// The sum of them.
    in_flight_size: usize,
}

/// The server claims frames that were never durable here: it follows another timeline, or this
/// device lost part of its own. Never trim on such a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server wants timeline LSN {wanted}, but only those before {durable} exist")]
pub struct PeerAhead {
    /// What it wants next.
    pub wanted: Lsn,
    /// What there is.
    pub durable: Lsn,
}

impl Sender {
    /// A sender of a timeline whose frames before `acked` are known to be at the server.
    #[must_use]
    pub fn new(acked: Lsn) -> Self {
        Self { acked, sent: None, in_flight_sizes: VecDeque::new(), in_flight_size: 0 }
    }

    /// All frames before this are on the server's disk.
    #[must_use]
    pub fn acked(&self) -> Lsn {
        self.acked
    }

    /// Whether the server has said what it wants, on this connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.sent.is_some()
    }

    /// The connection broke: what was in flight may or may not have arrived.
    pub fn disconnected(&mut self) {
        self.sent = None;
        self.forget_in_flight();
    }

    fn forget_in_flight(&mut self) {
        self.in_flight_sizes.clear();
        self.in_flight_size = 0;
    }

    /// The server says which frame it wants next. That can be one that it has acknowledged: then it
    /// was restored to before that, and is sent it again.
    ///
    /// # Errors
    ///
    /// [`PeerAhead`] if that is beyond what is durable here.
    pub fn connected(&mut self, wanted: Lsn, durable: Lsn) -> Result<(), PeerAhead> {
        if wanted > durable {
            return Err(PeerAhead { wanted, durable });
        }
        self.acked = wanted;
        self.sent = Some(self.acked);
        self.forget_in_flight();
        Ok(())
    }

    /// The frames to send now: at most what a window of so many bytes leaves room for. `size_of`
    /// gives a frame's size. Counts them as sent.
    pub fn next_to_send(
        &mut self,
        durable: Lsn,
        in_flight_size_max: usize,
        size_of: impl Fn(Lsn) -> usize,
    ) -> LsnRange {
        let Some(sent) = self.sent else {
            return LsnRange::empty_at(self.acked);
        };
        let in_flight_count = sent.get() - self.acked.get();
        assert_eq!(self.in_flight_sizes.len() as u64, in_flight_count, "BUG: other sizes: {self}");
        let mut in_flight = self.in_flight_size;
        let mut end = sent;
        while end < durable {
            let size = size_of(end);
            // One frame always fits, however large: else it would never go.
            if in_flight > 0 && in_flight + size > in_flight_size_max {
                reached(Probe::FrameWindowFull);
                break;
            }
            in_flight += size;
            self.in_flight_sizes.push_back(size);
            end = end.next();
        }
        self.in_flight_size = in_flight;
        self.sent = Some(end);
        LsnRange::new(sent, end)
    }

    /// The server has all frames before `next` on its disk. Repeats and old news are harmless.
    pub fn on_acked(&mut self, next: Lsn, durable: Lsn) -> Result<(), PeerAhead> {
        if next > durable {
            return Err(PeerAhead { wanted: next, durable });
        }
        while self.acked < next {
            self.acked = self.acked.next();
            self.in_flight_size -= self.in_flight_sizes.pop_front().unwrap_or(0);
        }
        if let Some(sent) = &mut self.sent {
            *sent = (*sent).max(self.acked);
        }
        assert!(self.sent.is_none_or(|sent| self.acked <= sent), "BUG: acked past sent: {self}");
        Ok(())
    }

    /// What does not add up, given the window; for simulations.
    #[must_use]
    pub fn doubt(&self, in_flight_size_max: usize) -> Option<String> {
        let sizes = &self.in_flight_sizes;
        let sum: usize = sizes.iter().sum();
        let fits = sizes.len() <= 1 || sum <= in_flight_size_max;
        let is_so = sum == self.in_flight_size && fits;
        (!is_so).then(|| format!("{self}: {sizes:?} in flight count {}", self.in_flight_size))
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sent {
            Some(sent) => write!(f, "acked {} sent {sent}", self.acked),
            None => write!(f, "acked {} not connected", self.acked),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const WINDOW: usize = 100;

    fn lsn(number: u64) -> Lsn {
        Lsn::new(number).expect("not 0")
    }

    #[test]
    fn nothing_is_sent_before_the_server_said_what_it_wants() {
        let mut sender = Sender::new(lsn(3));
        assert!(sender.next_to_send(lsn(9), WINDOW, |_| 1).is_empty());
        sender.connected(lsn(5), lsn(9)).expect("5 is durable");
        assert_eq!(sender.next_to_send(lsn(9), WINDOW, |_| 1).to_string(), "5..9");
        assert_eq!(sender.next_to_send(lsn(9), WINDOW, |_| 1).to_string(), "9..9");
    }

    #[test]
    fn only_what_is_durable_is_sent() {
        let mut sender = Sender::new(lsn(1));
        sender.connected(lsn(1), lsn(1)).expect("1 is the head");
        assert!(sender.next_to_send(lsn(1), WINDOW, |_| 1).is_empty());
        assert_eq!(sender.next_to_send(lsn(2), WINDOW, |_| 1).to_string(), "1..2");
    }

    #[test]
    fn after_a_break_unacknowledged_frames_are_sent_again() {
        let mut sender = Sender::new(lsn(1));
        sender.connected(lsn(1), lsn(6)).expect("known");
        assert_eq!(sender.next_to_send(lsn(6), WINDOW, |_| 1).count(), 5);
        sender.on_acked(lsn(3), lsn(6)).expect("known");
        sender.disconnected();
        sender.connected(lsn(4), lsn(6)).expect("known");
        assert_eq!(sender.next_to_send(lsn(6), WINDOW, |_| 1).to_string(), "4..6");
    }

    #[test]
    fn a_server_that_lost_what_it_had_acknowledged_is_sent_it_again() {
        let mut sender = Sender::new(lsn(1));
        sender.connected(lsn(1), lsn(6)).expect("known");
        assert_eq!(sender.next_to_send(lsn(6), WINDOW, |_| 1).to_string(), "1..6");
        sender.on_acked(lsn(6), lsn(6)).expect("known");
        sender.disconnected();
        sender.connected(lsn(3), lsn(6)).expect("known");
        assert_eq!(sender.acked(), lsn(3));
        assert_eq!(sender.next_to_send(lsn(6), WINDOW, |_| 1).to_string(), "3..6");
    }

    #[test]
    fn a_server_that_claims_what_was_never_written_is_noticed() {
        let mut sender = Sender::new(lsn(1));
        assert!(sender.connected(lsn(7), lsn(6)).is_err());
        sender.connected(lsn(1), lsn(6)).expect("known");
        assert!(sender.on_acked(lsn(7), lsn(6)).is_err());
        assert_eq!(sender.acked(), lsn(1));
    }

    #[test]
    fn what_is_acknowledged_makes_room_in_the_window() {
        let mut sender = Sender::new(lsn(1));
        sender.connected(lsn(1), lsn(9)).expect("known");
        assert_eq!(sender.next_to_send(lsn(9), 30, |_| 10).to_string(), "1..4");
        sender.on_acked(lsn(3), lsn(9)).expect("known");
        assert_eq!(sender.next_to_send(lsn(9), 30, |_| 10).to_string(), "4..6");
        sender.disconnected();
        sender.connected(lsn(3), lsn(9)).expect("known");
        assert_eq!(sender.next_to_send(lsn(9), 30, |_| 10).to_string(), "3..6");
    }

    /// Goal: what is sent on the word of one acknowledgement after the other is linear work,
    /// however much is in flight.
    #[test]
    fn each_frame_is_measured_no_more_than_twice() {
        const COUNT: u64 = 1_000;
        let (mut sender, measured) = (Sender::new(lsn(1)), Cell::new(0));
        let durable = lsn(COUNT + 1);
        let size_of = |_| {
            measured.set(measured.get() + 1);
            10
        };
        sender.connected(lsn(1), durable).expect("known");
        for acked in 1..=COUNT + 1 {
            sender.on_acked(lsn(acked), durable).expect("known");
            sender.next_to_send(durable, 100 * 10, size_of);
        }
        assert!(measured.get() <= 2 * COUNT, "{measured:?}");
    }

    #[test]
    fn the_window_bounds_what_is_in_flight_but_never_stops_a_large_frame() {
        let mut sender = Sender::new(lsn(1));
        sender.connected(lsn(1), lsn(10)).expect("known");
        let large = WINDOW + 1;
        assert_eq!(sender.next_to_send(lsn(10), WINDOW, |_| large).to_string(), "1..2");
        assert!(sender.next_to_send(lsn(10), WINDOW, |_| large).is_empty());
        sender.on_acked(lsn(2), lsn(10)).expect("known");
        assert_eq!(sender.next_to_send(lsn(10), WINDOW, |_| large).to_string(), "2..3");
    }
}
