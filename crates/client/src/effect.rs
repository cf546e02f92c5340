//! What happens to the client, and what it wants done.

use serde::{Deserialize, Serialize};
use tidelog_pages::{StoreReply, StoreRequest, Ticket};
use tidelog_types::UnservedKind;

use crate::protocol::{FromCore, Storage, ToCore};

/// The shell's number for a tab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TabId(pub u32);

/// The shell's number for a page server, higher for each new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PageServerId(pub u32);

/// The client's number for a socket, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SocketId(pub u32);

/// Something that happened. The shell turns every callback into one of these.
#[derive(Clone, Debug)]
pub enum Input {
    /// A tab asks something: all that it issued in one turn of its event loop.
    FromTab {
        /// Which tab.
        tab: TabId,
        /// What it asks.
        messages: Vec<ToCore>,
    },
    /// A tab is gone, with everything that it waited for.
    TabClosed {
        /// Which tab.
        tab: TabId,
    },
    /// A page server is at hand; it replaces any earlier one.
    PageServerLent {
        /// Its number.
        server: PageServerId,
        /// Until when a power cut could still lose its files, milliseconds since the epoch: in
        /// Chromium 45 s after they were made, elsewhere 0.
        settled_at_ms: u64,
        /// What it keeps them in.
        storage: Storage,
    },
    /// The page server in use can tell this tab by itself what becomes durable.
    TabReached {
        /// Which tab.
        tab: TabId,
        /// Which page server.
        server: PageServerId,
    },
    /// A page server answers.
    FromPageServer {
        /// Which; answers of a replaced one are ignored.
        server: PageServerId,
        /// What it says.
        replies: Vec<StoreReply>,
    },
    /// The page server is gone, and no other is at hand yet.
    PageServerGone {
        /// Which.
        server: PageServerId,
    },
    /// The page server's worker could not open its files.
    PageServerFailed {
        /// Which.
        server: PageServerId,
        /// What it said.
        failure: PageServerFailure,
    },
    /// A socket is connected.
    SocketOpened {
        /// Which.
        socket: SocketId,
    },
    /// A socket brought a message.
    FromServer {
        /// Which.
        socket: SocketId,
        /// The message's bytes.
        bytes: Vec<u8>,
    },
    /// A socket is closed or could not be connected.
    SocketClosed {
        /// Which.
        socket: SocketId,
    },
    /// The time that was asked for by [`Effect::WakeAt`] has come; harmless at any other.
    Wake,
}

/// A page server could not start, or cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageServerFailure {
    /// Why.
    pub kind: UnservedKind,
    /// What it said, for people.
    pub reason: String,
}

impl PageServerFailure {
    /// A failure of this kind.
    #[must_use]
    pub fn new(kind: UnservedKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }
}

/// What a page server's host tells a tab by itself, past the core, as soon as an append is durable:
/// a message less on the way that a caller waits for. It is dropped if the append fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// The append.
    pub ticket: Ticket,
    /// Which tab.
    pub tab: TabId,
    /// What to tell it.
    pub messages: Vec<FromCore>,
}

/// Something to be done. The shell does it and decides nothing.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Tell a tab.
    ToTab {
        /// Which.
        tab: TabId,
        /// What.
        messages: Vec<FromCore>,
    },
    /// Ask the page server.
    ToPageServer {
        /// Which.
        server: PageServerId,
        /// What, in this order.
        requests: Vec<StoreRequest>,
        /// What its host is to tell tabs by itself: all of one step, with its first message, so
        /// that no append of theirs can fail before.
        notices: Vec<Notice>,
    },
    /// Connect a socket to this address, its `/v1/sync` already in place.
    OpenSocket {
        /// Its number.
        socket: SocketId,
        /// The address.
        url: String,
    },
    /// Send one binary message.
    ToServer {
        /// On which socket.
        socket: SocketId,
        /// The message's bytes.
        bytes: Vec<u8>,
    },
    /// Close a socket; nothing more is expected of it.
    CloseSocket {
        /// Which.
        socket: SocketId,
    },
    /// Call with [`Input::Wake`] at this time; replaces an earlier wish.
    WakeAt {
        /// Milliseconds on the clock that `step` is given.
        at_ms: u64,
    },
}
