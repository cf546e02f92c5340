//! Which document a connection has open under which number.
//!
//! All that a client says of a document names its channel. The reader enters a channel when it is
//! opened, with the room that the document has by then, and looks that room up for each later
//! message. A room need not stay for a channel. It hears when the connection has closed its last
//! one there, or has ended, however that came.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_room::ConnId;
use tidelog_sync::{Attendee, Channel, PresenceWord};
use tidelog_types::DocumentKey;
use tidelog_types::limits::{
    CONNECTION_ATTENDEES_MAX, CONNECTION_CHANNELS_MAX, PRESENCE_ATTENDEES_MAX,
};

use crate::rooms::{RoomMail, RoomSender, WeakRoomSender};

/// The documents that a connection has open.
pub(super) struct Channels {
    conn: ConnId,
    pub(super) open: BTreeMap<Channel, OpenChannel>,
    /// Those who were said to be present.
    pub(super) attendees: BTreeSet<(Channel, Attendee)>,
}

pub(super) struct OpenChannel {
    pub(super) document: DocumentKey,
    /// A room that refused the channel need not stay for it.
    pub(super) room: WeakRoomSender,
    /// Whether something was said of it that may not be said: nothing more is heard of it until it
    /// is opened again, and so its room is told no more than is opened.
    pub(super) is_sent_away: bool,
}

impl Channels {
    /// Those of a connection that has none open.
    pub(super) fn new(conn: ConnId) -> Self {
        Self { conn, open: BTreeMap::new(), attendees: BTreeSet::new() }
    }

    pub(super) fn enter(&mut self, channel: Channel, document: DocumentKey, room: &RoomSender) {
        let room = room.downgrade();
        self.open.insert(channel, OpenChannel { document, room, is_sent_away: false });
    }

    /// The room of a channel that is open, as far as we know.
    pub(super) fn room(&self, channel: Channel) -> Option<RoomSender> {
        self.open.get(&channel).filter(|known| !known.is_sent_away)?.room.upgrade()
    }

    /// Whether there may be no further one. Of those that were refused, and that their client has
    /// not closed, some have no room any more: they are forgotten first.
    pub(super) fn is_full(&mut self) -> bool {
        if self.open.len() >= CONNECTION_CHANNELS_MAX {
            self.open.retain(|_, channel| channel.room.strong_count() > 0);
            self.attendees.retain(|(channel, _)| self.open.contains_key(channel));
        }
        self.open.len() >= CONNECTION_CHANNELS_MAX
    }

    /// Takes out of what is said of those who are present on a channel whoever is one too many on
    /// the connection: no room knows of the others.
    pub(super) fn limit(&mut self, channel: Channel, word: &mut PresenceWord) {
        word.changes.retain(|(attendee, state)| {
            let whose = (channel, *attendee);
            if state.is_none() {
                self.attendees.remove(&whose);
                return true;
            }
            if self.attendees.contains(&whose) {
                return true;
            }
            // Those whom a room leaves out take nothing of what there is for other documents.
            let of_channel = (channel, Attendee(0))..=(channel, Attendee(u32::MAX));
            self.attendees.len() < CONNECTION_ATTENDEES_MAX
                && self.attendees.range(of_channel).count() < PRESENCE_ATTENDEES_MAX
                && self.attendees.insert(whose)
        });
    }

    /// Forgets a channel, and tells its room if it was the last one there.
    pub(super) fn close(&mut self, channel: Channel) {
        let Some(OpenChannel { document, room, .. }) = self.open.remove(&channel) else { return };
        self.attendees.retain(|(other, _)| *other != channel);
        // A room that is gone has forgotten us already, and another one may be in its place.
        let Some(room) = room.upgrade() else { return };
        let is_there = |other: &OpenChannel| {
            let other = (other.document == document).then(|| other.room.upgrade()).flatten();
            other.is_some_and(|other| other.same_channel(&room))
        };
        if !self.open.values().any(is_there) {
            let _ = room.send(RoomMail::Left { conn: self.conn });
        }
    }
}

impl Drop for Channels {
    /// Tells every room that the connection was in, however it ends.
    fn drop(&mut self) {
        let mut told = BTreeSet::new();
        for OpenChannel { document, room, .. } in std::mem::take(&mut self.open).into_values() {
            let left = RoomMail::Left { conn: self.conn };
            if !told.contains(&document)
                && room.upgrade().is_some_and(|room| room.send(left).is_ok())
            {
                told.insert(document);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tidelog_room::ThreadClock as _;
    use tokio::sync::mpsc::error::TryRecvError;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::cpu_time::CpuTime;

    #[test]
    fn a_room_hears_when_a_connection_has_closed_its_last_channel_there() {
        let (room, mut mail) = unbounded_channel();
        let document = DocumentKey::new("list", "").expect("a name");
        let mut channels = Channels::new(ConnId(7));
        for number in [1, 2, 3] {
            channels.enter(Channel(number), document.clone(), &room);
        }
        channels.close(Channel(1));
        channels.close(Channel(1));
        assert!(mail.try_recv().is_err(), "it is still there");
        drop(channels);
        assert!(matches!(mail.try_recv(), Ok(RoomMail::Left { conn: ConnId(7) })));
        assert!(mail.try_recv().is_err(), "once");
    }

    /// Goal: nobody waits for a connection that leaves, however many documents it had. Method: as
    /// many as it may have, with names that are long and alike.
    #[test]
    fn a_connection_leaves_many_documents_as_fast_as_it_came_to_them() {
        let (room, mut mail) = unbounded_channel();
        let mut channels = Channels::new(ConnId(7));
        let document = |number| DocumentKey::new(&format!("{number:0512}"), "").expect("a name");
        let documents: Vec<_> = (0..CONNECTION_CHANNELS_MAX).map(document).collect();
        let entering = CpuTime.worked_ns();
        for (document, number) in documents.into_iter().zip(0..) {
            channels.enter(Channel(number), document, &room);
        }
        let leaving = CpuTime.worked_ns();
        drop(channels);
        let (entered, left) = (leaving - entering, CpuTime.worked_ns() - leaving);
        assert!(left < 20 * entered, "{left} ns, and {entered} to enter");
        let heard = std::iter::from_fn(|| mail.try_recv().ok()).count();
        assert_eq!(heard, CONNECTION_CHANNELS_MAX, "each room hears of it");
    }

    /// Goal: whoever opens names that there are not keeps no rooms open. Method: a channel whose
    /// room is gone, and another one of the same document, whose room came later.
    #[test]
    fn a_channel_keeps_no_room() {
        let (room, mut mail) = unbounded_channel();
        let document = DocumentKey::new("list", "").expect("a name");
        let mut channels = Channels::new(ConnId(7));
        channels.enter(Channel(2), document.clone(), &room);
        drop(room);
        assert!(matches!(mail.try_recv(), Err(TryRecvError::Disconnected)), "nobody holds it");
        let (later, mut mail) = unbounded_channel();
        channels.enter(Channel(1), document, &later);
        drop(channels);
        assert!(matches!(mail.try_recv(), Ok(RoomMail::Left { conn: ConnId(7) })));
    }
}
