//! What a room's task is sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tidelog_room::{Answer, Ask, ConnId, Identity, Speaker};
use tidelog_sync::{Channel, PresenceWord, Refusal, ToRoom};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::MayStill;
use crate::connection::Connection;
use crate::counters::{Counters, add};
use crate::large_messages::{PERMIT_SIZE, Space};

/// The way to a room's task. It is bounded by those who send: see [`MessagePermit`].
pub(crate) type RoomSender = mpsc::UnboundedSender<RoomMail>;
/// The same, for those for whom the room need not stay.
pub(crate) type WeakRoomSender = mpsc::WeakUnboundedSender<RoomMail>;

/// What a message takes until its room has worked it off.
pub(crate) struct MessagePermit {
    /// Of what its connection may say before it is listened to again.
    own: OwnedSemaphorePermit,
    /// Of the room for large messages, if it is one.
    pub(super) space: Option<Space>,
    /// Where it is counted if it is none.
    counters: Arc<Counters>,
    /// When the message had come.
    pub(super) came_at: Instant,
}

impl MessagePermit {
    pub(crate) fn new(
        own: OwnedSemaphorePermit,
        space: Option<Space>,
        counters: &Arc<Counters>,
    ) -> Self {
        let (counters, came_at) = (Arc::clone(counters), Instant::now());
        let permit = Self { own, space, counters, came_at };
        add(&permit.counters.small_waiting_size, permit.small_size() as u64);
        permit
    }

    /// Bytes for which there is no space but that of its connection.
    fn small_size(&self) -> usize {
        if self.space.is_some() { 0 } else { self.own.num_permits() * PERMIT_SIZE }
    }
}

impl Drop for MessagePermit {
    fn drop(&mut self) {
        let size = self.small_size() as u64;
        self.counters.small_waiting_size.fetch_sub(size, Ordering::Relaxed);
    }
}

/// What a room's task is sent.
pub(crate) enum RoomMail {
    Message {
        connection: Connection,
        channel: Channel,
        message: Box<ToRoom>,
        /// What it may do, by its token.
        speaker: Speaker,
        permit: MessagePermit,
    },
    /// Who of a client is present: it waits for nothing that the room works on.
    Presence {
        conn: ConnId,
        channel: Channel,
        identity: Arc<Identity>,
        word: PresenceWord,
        permit: MessagePermit,
    },
    /// Somebody said what it may not say.
    Refuse {
        conn: ConnId,
        channel: Channel,
        refusal: Refusal,
    },
    /// A client may not handle tasks any longer.
    HandlesNoMore {
        conn: ConnId,
        channel: Channel,
    },
    /// Nothing was heard of the connection for so long, and it is left next.
    Silent {
        conn: ConnId,
        lasted: Duration,
    },
    Left {
        conn: ConnId,
    },
    Writable {
        conn: ConnId,
    },
    Ask {
        ask: Ask,
        answer: oneshot::Sender<Answer>,
        may_still: Option<MayStill>,
    },
    /// The document is to come on this connection.
    Export {
        connection: Connection,
        answer: oneshot::Sender<Answer>,
        may_still: Option<MayStill>,
    },
}

impl RoomMail {
    /// Whether whoever asked was told that nothing came of it, or whoever said it has gone and says
    /// it again: what came whole is heard for as long as nobody else wants its space, and what is
    /// small unless there is [too much](super::waiting::Waiting::sweep).
    pub(super) fn is_for_nobody(&self) -> bool {
        match self {
            Self::Message { connection, permit, .. } => {
                let is_wanted = permit.space.as_ref().is_some_and(Space::is_wanted);
                connection.is_heard_no_more() || (is_wanted && connection.has_ended())
            }
            Self::Ask { answer, .. } | Self::Export { answer, .. } => answer.is_closed(),
            Self::Presence { .. }
            | Self::Refuse { .. }
            | Self::HandlesNoMore { .. }
            | Self::Silent { .. }
            | Self::Left { .. }
            | Self::Writable { .. } => false,
        }
    }

    /// What is to be begun now; whoever asked and may not any more is told so.
    pub(super) fn if_it_may(self) -> Option<Self> {
        match self {
            Self::Ask { answer, may_still: Some(may_still), .. }
            | Self::Export { answer, may_still: Some(may_still), .. }
                if !may_still() =>
            {
                let _ = answer.send(Answer::LeftOut);
                None
            }
            mail => Some(mail),
        }
    }

    /// What it holds of the room for large messages.
    pub(super) fn space(&self) -> Option<&Space> {
        match self {
            Self::Message { permit, .. } => permit.space.as_ref(),
            _ => None,
        }
    }

    /// Bytes that nothing else bounds where whoever sent it has gone.
    pub(super) fn small_size(&self) -> usize {
        match self {
            Self::Message { permit, .. } => permit.small_size(),
            _ => size_of::<Self>(),
        }
    }

    /// Lets go whoever said a message that has held its space for too long.
    pub(super) fn let_go_if_overdue(&self) {
        if let Self::Message { connection, .. } = self
            && self.space().is_some_and(Space::is_overdue)
        {
            connection.let_go();
        }
    }
}
