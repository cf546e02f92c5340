//! What a room's task is sent.

use tidelog_room::{Answer, Ask, ConnId};
use tidelog_sync::{Channel, ToRoom};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::connection::Connection;
use crate::large_messages::is_wanted;

/// The way to a room's task. It is bounded by those who send: see [`MessagePermit`].
pub(crate) type RoomSender = mpsc::UnboundedSender<RoomMail>;
/// The same, for those for whom the room need not stay.
pub(crate) type WeakRoomSender = mpsc::WeakUnboundedSender<RoomMail>;

/// What a message takes until its room has worked it off: of what its connection may say before it
/// is listened to again, and of the room for large messages if it is one.
pub(crate) type MessagePermit = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

/// What a room's task is sent.
pub(crate) enum RoomMail {
    Message {
        connection: Connection,
        channel: Channel,
        message: Box<ToRoom>,
        permit: MessagePermit,
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
    },
    /// The document is to come on this connection.
    Export {
        connection: Connection,
        answer: oneshot::Sender<Answer>,
    },
}

impl RoomMail {
    /// Whether whoever asked was told that nothing came of it, or whoever said it has gone and says
    /// it again: what came whole is heard for as long as nobody else wants its space.
    pub(super) fn is_for_nobody(&self) -> bool {
        match self {
            Self::Message { connection, permit: (_, large), .. } => {
                large.as_ref().is_some_and(is_wanted) && connection.has_ended()
            }
            Self::Ask { answer, .. } | Self::Export { answer, .. } => answer.is_closed(),
            Self::Left { .. } | Self::Writable { .. } => false,
        }
    }
}
