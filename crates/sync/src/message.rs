//! The messages between client and server.
//!
//! Every message is one binary WebSocket message:
//!
//! ```text
//! 0        2
//! +--------+---------------------------------+
//! | version| body, as `codec` writes it      |
//! | u16 LE |                                 |
//! +--------+---------------------------------+
//! ```
//!
//! The version comes first so that two sides that do not speak the same one can still say so.

use serde::{Deserialize, Serialize};
use tidelog_types::limits::MESSAGE_SIZE_MAX;
use tidelog_types::{CallId, ClientId, JournalId, Lsn, LsnRange, Page, Pgid, Position};

use crate::codec;

/// The version of the protocol that this code speaks.
pub const PROTOCOL_VERSION: u16 = 1;

/// What a client says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToServer {
    /// The first message of a connection.
    Hello {
        /// Which client; a name for logs and histories, no credential.
        client: ClientId,
        /// What proves who it is; absent on a development server.
        token: Option<String>,
    },
    /// Follow this document, under this number.
    Open {
        /// The client's number for the document on this connection.
        channel: u32,
        /// The document's id.
        document: String,
        /// The doctype that the client knows it by, encoded.
        #[serde(with = "serde_bytes")]
        doctype: Vec<u8>,
        /// The timeline that its frames will come from.
        timeline: JournalId,
        /// What the client holds of the storage journal; `None` if nothing.
        have: Option<Position>,
        /// What it wants.
        intent: Intent,
    },
    /// Timeline frames `first..first + frames.len()`, durable at the client.
    Frames {
        /// Which document.
        channel: u32,
        /// LSN of the first frame.
        first: Lsn,
        /// The frames.
        frames: Vec<WireFrame>,
    },
    /// Pages of a local document that is to become the server's.
    Seed {
        /// Which document.
        channel: u32,
        /// Where the client's storage journal stands.
        position: Position,
        /// Size of the database in pages.
        db_pages: u32,
        /// Some of its pages.
        pages: Vec<(Pgid, Page)>,
        /// Whether these are the last.
        last: bool,
    },
    /// The client holds all storage entries before `next`.
    Received {
        /// Which document.
        channel: u32,
        /// The first LSN that it lacks.
        next: Lsn,
    },
    /// Where does the storage journal stand? Answered by [`FromServer::Probed`].
    Probe {
        /// Which document.
        channel: u32,
        /// Echoed in the answer.
        request: u32,
    },
    /// The client follows the document no longer.
    Close {
        /// Which document.
        channel: u32,
    },
    /// Answered by [`FromServer::Pong`]: is anybody there?
    Ping,
}

/// What a client wants of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intent {
    /// Follow it, creating it if neither side ever had it.
    Follow,
    /// Make the client's local copy the server's, if the server has none of that name.
    Offer,
}

/// One timeline frame on its way: the same body as on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireFrame {
    /// The call that issued it.
    pub call: CallId,
    /// The mutation.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromServer {
    /// The answer to Hello.
    Welcome,
    /// The answer to Open: the document is followed from now on.
    Opened {
        /// Which document.
        channel: u32,
        /// Where the server's storage journal stands.
        storage: Position,
        /// The first timeline LSN that the server has not applied.
        wanted: Lsn,
    },
    /// The server has no such document and would take the client's: send [`ToServer::Seed`].
    SeedWanted {
        /// Which document.
        channel: u32,
    },
    /// The seed is the server's first entry now, on its disk. Opened follows.
    Seeded {
        /// Which document.
        channel: u32,
    },
    /// A storage entry, or a part of one, on the server's disk.
    Entry {
        /// Which document.
        channel: u32,
        /// The part.
        part: EntryPart,
    },
    /// All timeline frames before `next` are on the server's disk.
    Acked {
        /// Which document.
        channel: u32,
        /// The first that is not.
        next: Lsn,
    },
    /// Where the storage journal stands, on the server's disk.
    Probed {
        /// Which document.
        channel: u32,
        /// The request's number.
        request: u32,
        /// The next LSN.
        next: Lsn,
    },
    /// The server will not serve this document; the channel is closed.
    Refused {
        /// Which document.
        channel: u32,
        /// Why.
        refusal: Refusal,
    },
    /// The frames from `lsn` on stay undecided for now.
    Undecided {
        /// Which document.
        channel: u32,
        /// The first of them.
        lsn: Lsn,
        /// Why, for a person to read.
        reason: String,
    },
    /// The server closes the connection.
    Bye {
        /// Why.
        reason: ByeReason,
    },
    /// The answer to Ping.
    Pong,
}

/// A storage entry, or a part of one that is too large for one message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntryPart {
    /// The LSNs that the entry stands for.
    pub range: LsnRange,
    /// Where the storage journal stands after it.
    pub position: Position,
    /// Size of the database after it, in pages.
    pub db_pages: u32,
    /// The timeline frame that it applies or rejects, if it stands for just one.
    pub origin: Option<Origin>,
    /// Pages of this part.
    pub pages: Vec<(Pgid, Page)>,
    /// Whether this is the entry's last part.
    pub last: bool,
}

/// A frame, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Which timeline.
    pub timeline: JournalId,
    /// Which of its frames.
    pub lsn: Lsn,
}

/// Why a server does not serve a document to a client. Nothing changed on either side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The server has no such document, but the client had it from a server.
    Missing,
    /// A document of that name exists, and the client offered another one.
    Exists,
    /// The client's doctype is none that the server's document can be used by.
    DoctypeMismatch {
        /// For a person to read.
        reason: String,
    },
    /// The doctype cannot work.
    DoctypeInvalid {
        /// For a person to read.
        reason: String,
    },
    /// The client may not.
    Access {
        /// For a person to read.
        reason: String,
    },
    /// The client broke the protocol.
    Protocol {
        /// For a person to read.
        reason: String,
    },
    /// The server's own disk failed; trying again later may help.
    Storage {
        /// For a person to read.
        reason: String,
    },
    /// What the server has on its disk is damaged: until somebody has mended it, it does not serve
    /// this document, or takes no frames for it.
    Damaged,
}

/// Why a server closes a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ByeReason {
    /// It speaks another version than the client.
    Version,
    /// It goes down; come back later.
    Shutdown,
    /// The token is missing, wrong or expired.
    Unauthenticated,
    /// The client broke the protocol.
    Protocol {
        /// For a person to read.
        reason: String,
    },
    /// The client does not read what it is sent.
    Slow,
}

/// Why a message was not understood.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Longer than any message may be.
    #[error("message of {size} bytes is over the limit of {MESSAGE_SIZE_MAX} bytes")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// The other side speaks another version.
    #[error("the other side speaks protocol version {theirs}, we speak {PROTOCOL_VERSION}")]
    Version {
        /// Theirs.
        theirs: u16,
    },
    /// Not a message.
    #[error("not a message")]
    Malformed(#[source] Option<codec::DecodeError>),
}

/// The bytes of a message.
#[must_use]
pub fn encode_message<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = PROTOCOL_VERSION.to_le_bytes().to_vec();
    bytes.append(&mut codec::encode(message));
    bytes
}

/// The message in `bytes`.
///
/// # Errors
///
/// [`MessageError`] if they are none of this version.
pub fn decode_message<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    if bytes.len() > MESSAGE_SIZE_MAX {
        return Err(MessageError::TooLarge { size: bytes.len() });
    }
    let Some((version, body)) = bytes.split_first_chunk::<2>() else {
        return Err(MessageError::Malformed(None));
    };
    let theirs = u16::from_le_bytes(*version);
    if theirs != PROTOCOL_VERSION {
        return Err(MessageError::Version { theirs });
    }
    codec::decode(body).map_err(|source| MessageError::Malformed(Some(source)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_told_apart_from_rubbish() {
        let mut bytes = encode_message(&ToServer::Ping);
        assert_eq!(decode_message::<ToServer>(&bytes).ok(), Some(ToServer::Ping));
        bytes[0] = 9;
        assert!(matches!(
            decode_message::<ToServer>(&bytes),
            Err(MessageError::Version { theirs: 9 })
        ));
        assert!(matches!(decode_message::<ToServer>(&[1]), Err(MessageError::Malformed(_))));
    }

    #[test]
    fn the_bytes_of_a_message_do_not_change_unnoticed() {
        let message = ToServer::Frames {
            channel: 2,
            first: Lsn::FIRST.plus(2),
            frames: vec![WireFrame { call: CallId([5; 16]), body: vec![8, 9] }],
        };
        let hex: String = encode_message(&message).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "01000200000002000000030000000000000001000000000000000505050505050505050505050505050\
             502000000000000000809"
        );
    }

    #[test]
    fn a_number_that_is_no_lsn_is_refused() {
        for number in [0, u64::MAX] {
            let mut bytes = encode_message(&ToServer::Received { channel: 1, next: Lsn::FIRST });
            let at = bytes.len() - 8;
            bytes[at..].copy_from_slice(&u64::to_le_bytes(number));
            assert!(decode_message::<ToServer>(&bytes).is_err(), "{number}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(0_u8.., 0..200)) {
            let mut message = PROTOCOL_VERSION.to_le_bytes().to_vec();
            message.extend_from_slice(&bytes);
            if let Ok(decoded) = decode_message::<FromServer>(&message) {
                assert_eq!(encode_message(&decoded), message);
            }
        }
    }
}
