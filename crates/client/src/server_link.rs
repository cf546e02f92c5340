//! The way to one server: one socket for all documents that are synced there.

use tidelog_sync::{ByeReason, FromServer, MessageError, ToServer, decode_message};
use tidelog_types::{ClientId, DocumentKey, SortedMap};

use crate::effect::SocketId;
use crate::outbox::Outbox;
use crate::protocol::CallFailure;
use crate::rng::Rng;

/// Milliseconds without a word from the server after which it is asked for one.
const PING_AFTER_MS: u64 = 15_000;
/// Milliseconds without a word after which the connection counts as broken.
const SILENCE_MS: u64 = 30_000;
/// Milliseconds that connecting may take, up to the server's welcome.
const CONNECT_MS: u64 = 8_000;
/// Milliseconds before the second try; doubles with each, up to the longest.
const RETRY_FIRST_MS: u64 = 250;
const RETRY_LONGEST_MS: u64 = 10_000;

/// How far the way to a server has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nobody wants it, or it waits for the next try.
    Idle,
    /// A socket is being opened, or the server's welcome is awaited.
    Connecting,
    /// The socket is open; a tab was asked for a token.
    WantsToken,
    /// The server is there.
    Welcomed,
}

/// The way to one server.
#[derive(Debug)]
pub(crate) struct ServerLink {
    url: String,
    client: ClientId,
    socket: Option<SocketId>,
    pub(crate) stage: Stage,
    tries: u32,
    retry_at_ms: u64,
    heard_at_ms: u64,
    pinged: bool,
    next_channel: u32,
    channels: SortedMap<u32, DocumentKey>,
    /// Why it is not there, while it is not.
    pub(crate) failure: Option<CallFailure>,
    /// Whether trying again cannot help: another version, no access.
    pub(crate) barred: bool,
}

/// What a message of a server is about.
pub(crate) enum Heard {
    /// The server has let us in.
    Welcome,
    /// About a document.
    About(DocumentKey, u32, FromServer),
    /// Nothing to do.
    Nothing,
    /// The connection is of no use any more.
    Broken,
}

impl ServerLink {
    pub(crate) fn new(url: String, client: ClientId) -> Self {
        Self {
            url,
            client,
            socket: None,
            stage: Stage::Idle,
            tries: 0,
            retry_at_ms: 0,
            heard_at_ms: 0,
            pinged: false,
            next_channel: 1,
            channels: SortedMap::new(),
            failure: None,
            barred: false,
        }
    }

    pub(crate) fn is_socket(&self, socket: SocketId) -> bool {
        self.socket == Some(socket)
    }

    /// The documents that have a channel on the connection.
    pub(crate) fn followers(&self) -> Vec<DocumentKey> {
        self.channels.values().cloned().collect()
    }

    /// Sends, if the server is there.
    pub(crate) fn send(&self, message: &ToServer, out: &mut Outbox) {
        if let (Some(socket), Stage::Welcomed) = (self.socket, self.stage) {
            out.send(socket, message);
        }
    }

    /// Does what time asks for. Says whether the connection was given up.
    pub(crate) fn tick(
        &mut self,
        now_ms: u64,
        wanted: bool,
        next_socket: &mut u32,
        out: &mut Outbox,
    ) -> bool {
        if !wanted {
            let was_open = self.socket.is_some();
            self.drop_socket(out);
            self.stage = Stage::Idle;
            self.failure = None;
            self.barred = false;
            self.tries = 0;
            self.retry_at_ms = 0;
            return was_open;
        }
        match self.stage {
            Stage::Idle if self.barred => {}
            Stage::Idle if now_ms >= self.retry_at_ms => {
                *next_socket += 1;
                let socket = SocketId(*next_socket);
                self.socket = Some(socket);
                self.stage = Stage::Connecting;
                self.heard_at_ms = now_ms;
                self.pinged = false;
                out.open_socket(socket, format!("{}/v1/sync", self.url.trim_end_matches('/')));
                out.wake_at(now_ms + CONNECT_MS);
            }
            Stage::Idle => out.wake_at(self.retry_at_ms),
            Stage::Connecting | Stage::WantsToken => {
                if now_ms >= self.heard_at_ms + CONNECT_MS {
                    return true;
                }
                out.wake_at(self.heard_at_ms + CONNECT_MS);
            }
            Stage::Welcomed => {
                let silent_ms = now_ms.saturating_sub(self.heard_at_ms);
                if silent_ms >= SILENCE_MS {
                    return true;
                }
                if silent_ms >= PING_AFTER_MS && !self.pinged {
                    self.pinged = true;
                    self.send(&ToServer::Ping, out);
                }
                let next = if self.pinged { SILENCE_MS } else { PING_AFTER_MS };
                out.wake_at(self.heard_at_ms + next);
            }
        }
        false
    }

    /// The socket is open: say who we are, or ask for a token first.
    pub(crate) fn opened(&mut self, now_ms: u64, needs_token: bool, out: &mut Outbox) {
        self.heard_at_ms = now_ms;
        if needs_token {
            self.stage = Stage::WantsToken;
        } else {
            self.hello(None, out);
        }
    }

    pub(crate) fn hello(&mut self, token: Option<String>, out: &mut Outbox) {
        self.stage = Stage::Connecting;
        if let Some(socket) = self.socket {
            out.send(socket, &ToServer::Hello { client: self.client, token });
        }
    }

    /// What the server said.
    pub(crate) fn hear(&mut self, now_ms: u64, bytes: &[u8]) -> Heard {
        self.heard_at_ms = now_ms;
        self.pinged = false;
        let message = match decode_message::<FromServer>(bytes) {
            Ok(message) => message,
            Err(error) => {
                self.barred = matches!(error, MessageError::Version { .. });
                self.failure = Some(CallFailure::protocol(&format!("{}: {error}", self.url)));
                return Heard::Broken;
            }
        };
        match message {
            FromServer::Welcome => {
                self.stage = Stage::Welcomed;
                self.tries = 0;
                self.failure = None;
                Heard::Welcome
            }
            FromServer::Pong => Heard::Nothing,
            FromServer::Bye { reason } => {
                self.failure = CallFailure::of_bye(&self.url, &reason);
                self.barred = matches!(reason, ByeReason::Version | ByeReason::Unauthenticated);
                Heard::Broken
            }
            message => match channel_of(&message).and_then(|channel| {
                self.channels.get(&channel).map(|document| (document.clone(), channel))
            }) {
                Some((document, channel)) => Heard::About(document, channel, message),
                // Of a channel that was closed meanwhile.
                None => Heard::Nothing,
            },
        }
    }

    /// The connection is gone: try again later, a little longer each time.
    pub(crate) fn lost(&mut self, now_ms: u64, rng: &mut Rng, out: &mut Outbox) {
        self.drop_socket(out);
        self.stage = Stage::Idle;
        if self.barred {
            return;
        }
        let longest = (RETRY_FIRST_MS << self.tries.min(6)).min(RETRY_LONGEST_MS);
        self.tries += 1;
        self.retry_at_ms = now_ms + longest / 2 + rng.below(longest / 2 + 1);
        if self.failure.is_none() {
            self.failure = Some(CallFailure::unreachable(&self.url));
        }
        out.wake_at(self.retry_at_ms);
    }

    /// A number for a document on this connection.
    pub(crate) fn open_channel(&mut self, document: DocumentKey) -> u32 {
        let channel = self.next_channel;
        self.next_channel += 1;
        self.channels.insert(channel, document);
        channel
    }

    pub(crate) fn close_channel(&mut self, channel: u32) {
        self.channels.remove(&channel);
    }

    /// Forget what barred it, and try at once: somebody asks for it anew.
    pub(crate) fn try_now(&mut self) {
        self.barred = false;
        self.retry_at_ms = 0;
    }

    fn drop_socket(&mut self, out: &mut Outbox) {
        if let Some(socket) = self.socket.take() {
            out.close_socket(socket);
        }
        self.channels.clear();
    }
}

fn channel_of(message: &FromServer) -> Option<u32> {
    match message {
        FromServer::Opened { channel, .. }
        | FromServer::SeedWanted { channel }
        | FromServer::Seeded { channel }
        | FromServer::Entry { channel, .. }
        | FromServer::Acked { channel, .. }
        | FromServer::Probed { channel, .. }
        | FromServer::Refused { channel, .. }
        | FromServer::Undecided { channel, .. } => Some(*channel),
        FromServer::Welcome | FromServer::Bye { .. } | FromServer::Pong => None,
    }
}
