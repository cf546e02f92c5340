//! The way to a client, as the rest of the server holds it.

use std::sync::Arc;

use tidelog_sync::{ByeReason, FromServer};
use tokio::sync::{mpsc, watch};

use crate::room::ConnId;

/// How a connection ends, from our side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Without a word: the client comes back by itself.
    Quiet,
    /// With a reason.
    Bye(ByeReason),
}

/// A handle to a connection. Sending never waits: a client that does not read is let go.
#[derive(Clone)]
pub(crate) struct Connection {
    id: ConnId,
    queue: mpsc::Sender<FromServer>,
    ending: Arc<watch::Sender<Option<Ending>>>,
}

/// The other end, for the connection's own writer.
pub(crate) struct ConnectionEnd {
    pub(crate) queue: mpsc::Receiver<FromServer>,
    pub(crate) ending: watch::Receiver<Option<Ending>>,
}

impl Connection {
    pub(crate) fn new(id: ConnId, messages_max: usize) -> (Self, ConnectionEnd) {
        let (sender, queue) = mpsc::channel(messages_max);
        let (tell, ending) = watch::channel(None);
        let connection = Self { id, queue: sender, ending: Arc::new(tell) };
        (connection, ConnectionEnd { queue, ending })
    }

    pub(crate) fn id(&self) -> ConnId {
        self.id
    }

    pub(crate) fn send(&self, message: FromServer) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(message) {
            self.end(Ending::Bye(ByeReason::Slow));
        }
    }

    /// Changes when the connection is to end.
    pub(crate) fn ended(&self) -> watch::Receiver<Option<Ending>> {
        self.ending.subscribe()
    }

    /// The first reason stands.
    pub(crate) fn end(&self, ending: Ending) {
        self.ending.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(ending);
            }
            first
        });
    }
}
