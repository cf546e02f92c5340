//! Connections that let nobody in yet, seen at the door of a core: each is given up in time, so
//! that the next try comes, and whoever is asked for a token next has a turn.
//!
//! A core that waits longer gets there too, once another tab is asked, or the line breaks.

use std::collections::BTreeMap;

use tidelog_client::{Effect, Input, SocketId};

/// Milliseconds that a core waits at most for a connection, for a token, or for a welcome, with
/// what it may be late by.
const STEP_MS_MAX: u64 = 9_000;

/// Since when each connection has got no further.
#[derive(Default)]
pub(super) struct Greetings {
    since_ms: BTreeMap<SocketId, u64>,
    now_ms: u64,
}

impl Greetings {
    /// # Errors
    ///
    /// One was not given up in time.
    pub(super) fn comes(&mut self, input: &Input, now_ms: u64) -> Result<(), String> {
        self.now_ms = now_ms;
        match input {
            Input::SocketOpened { socket } => self.gets_on(*socket),
            // It lets us in, or not.
            Input::FromServer { socket, .. } | Input::SocketClosed { socket } => {
                self.since_ms.remove(socket);
            }
            _ => {}
        }
        match self.since_ms.values().find(|since_ms| **since_ms + STEP_MS_MAX < now_ms) {
            Some(since_ms) => Err(format!("a server is greeted since {since_ms}, at {now_ms}")),
            None => Ok(()),
        }
    }

    pub(super) fn leaves(&mut self, effect: &Effect) {
        match effect {
            Effect::OpenSocket { socket, .. } => _ = self.since_ms.insert(*socket, self.now_ms),
            Effect::CloseSocket { socket } => _ = self.since_ms.remove(socket),
            Effect::ToServer { socket, .. } => self.gets_on(*socket),
            _ => {}
        }
    }

    fn gets_on(&mut self, socket: SocketId) {
        self.since_ms.entry(socket).and_modify(|since_ms| *since_ms = self.now_ms);
    }
}
