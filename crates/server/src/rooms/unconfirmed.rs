//! How long frames take from when they came until their client is told that they are durable.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use tidelog_room::ConnId;
use tidelog_sync::{Channel, FromRoom, FromServer, ToRoom};
use tidelog_types::Lsn;

/// Messages with frames of a channel of which it is remembered when they came.
const REMEMBERED_MAX: usize = 256;

/// Messages with frames that are not acknowledged yet.
#[derive(Default)]
pub(super) struct Unconfirmed(BTreeMap<(ConnId, Channel), VecDeque<Message>>);

struct Message {
    /// Behind the LSN of its last frame.
    end: u64,
    came_at: Instant,
}

impl Unconfirmed {
    /// Something has come to which the room gets now.
    pub(super) fn heard(&mut self, id: (ConnId, Channel), message: &ToRoom, came_at: Instant) {
        let ToRoom::Frames { first, frames, .. } = message else { return };
        let end = first.get().saturating_add(frames.len() as u64);
        let messages = self.0.entry(id).or_default();
        if messages.len() < REMEMBERED_MAX {
            messages.push_back(Message { end, came_at });
        }
    }

    /// Something is told. Gives how long those took that are acknowledged by it.
    pub(super) fn told(&mut self, conn: ConnId, message: &FromServer) -> Vec<Duration> {
        let FromServer::About { channel, body } = message else { return Vec::new() };
        let id = (conn, *channel);
        match body {
            FromRoom::Acked { next } => self.acked(id, *next),
            FromRoom::Refused(_) | FromRoom::Forbidden { .. } => {
                self.0.remove(&id);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn acked(&mut self, id: (ConnId, Channel), next: Lsn) -> Vec<Duration> {
        let Some(messages) = self.0.get_mut(&id) else { return Vec::new() };
        let acked_count = messages.iter().take_while(|it| it.end <= next.get()).count();
        let took = messages.drain(..acked_count).map(|it| it.came_at.elapsed()).collect();
        if messages.is_empty() {
            self.0.remove(&id);
        }
        took
    }

    /// The connection has left.
    pub(super) fn left(&mut self, conn: ConnId) {
        let all: RangeInclusive<_> = (conn, Channel(0))..=(conn, Channel(u32::MAX));
        let channels: Vec<_> = self.0.range(all).map(|(id, _)| *id).collect();
        channels.iter().for_each(|id| drop(self.0.remove(id)));
    }
}

#[cfg(test)]
mod tests {
    use tidelog_sync::WireFrame;
    use tidelog_types::{CallId, Life};

    use super::*;

    fn frames(first: u64, count: usize) -> ToRoom {
        let frame = WireFrame { call: CallId([0; 16]), body: Vec::new(), predicted: None };
        let first = Lsn::new(first).expect("from 1");
        ToRoom::Frames { life: Life([1; 16]), first, frames: vec![frame; count] }
    }

    fn acked(next: u64) -> FromServer {
        let next = Lsn::new(next).expect("from 1");
        FromServer::About { channel: Channel(1), body: FromRoom::Acked { next } }
    }

    #[test]
    fn each_message_is_counted_once_all_its_frames_are_acknowledged() {
        let (mut unconfirmed, now) = (Unconfirmed::default(), Instant::now());
        let [own, other] = [1, 2].map(|conn| (ConnId(conn), Channel(1)));
        for (id, first) in [(own, 1), (own, 4), (other, 1), (own, 7)] {
            unconfirmed.heard(id, &frames(first, 3), now);
        }
        assert_eq!(unconfirmed.told(own.0, &acked(3)).len(), 0);
        assert_eq!(unconfirmed.told(own.0, &acked(8)).len(), 2);
        assert_eq!(unconfirmed.told(own.0, &acked(8)).len(), 0);
        assert_eq!(unconfirmed.told(own.0, &acked(10)).len(), 1);
        assert_eq!(unconfirmed.told(other.0, &acked(10)).len(), 1);
        assert!(unconfirmed.0.is_empty());
    }

    #[test]
    fn nothing_is_kept_of_one_who_has_left_and_little_of_one_who_hears_nothing() {
        let (mut unconfirmed, now) = (Unconfirmed::default(), Instant::now());
        for first in 1..10_000 {
            unconfirmed.heard((ConnId(1), Channel(1)), &frames(first, 1), now);
        }
        unconfirmed.heard((ConnId(2), Channel(1)), &frames(1, 1), now);
        assert_eq!(unconfirmed.0[&(ConnId(1), Channel(1))].len(), REMEMBERED_MAX);
        unconfirmed.left(ConnId(1));
        assert_eq!(unconfirmed.0.len(), 1);
    }
}
