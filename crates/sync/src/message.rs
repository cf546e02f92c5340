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

use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use tidelog_types::limits::{MESSAGE_FRAMES_MAX, MESSAGE_SIZE_MAX};
use tidelog_types::{
    CallId, ClientId, EntryHash, EntryId, JournalId, Life, Lineage, Lsn, LsnRange, Page, Pgid,
    Position,
};

use crate::codec;

/// The version of the protocol that this code speaks.
pub const PROTOCOL_VERSION: u16 = 1;

/// The client's number for a document on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Channel(pub u32);

/// The client's number for a question about a document; echoed in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProbeId(pub u32);

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
    /// Answered by [`FromServer::Pong`]: is anybody there?
    Ping,
    /// About one document.
    About {
        /// Which.
        channel: Channel,
        /// What is said of it.
        body: ToRoom,
    },
}

/// What a client says of a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToRoom {
    /// Follow this document under the channel's number.
    Open {
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
        /// Who wrote them: frames of two lives travel in two messages.
        life: Life,
        /// LSN of the first frame.
        first: Lsn,
        /// The frames, so many at most: [`MESSAGE_FRAMES_MAX`].
        #[serde(deserialize_with = "frames")]
        frames: Vec<WireFrame>,
    },
    /// Pages of a local document that is to become the server's.
    Seed {
        /// Where the client's storage journal stands.
        position: Position,
        /// Size of the database in pages.
        db_pages: u32,
        /// Some of its pages.
        pages: Vec<CodedPage>,
        /// Whether these are the last.
        last: bool,
    },
    /// The client holds all storage entries before `next`.
    Received {
        /// The first LSN that it lacks.
        next: Lsn,
    },
    /// Where does the storage journal stand? Answered by [`FromRoom::Probed`].
    Probe {
        /// Echoed in the answer.
        probe: ProbeId,
    },
    /// The client follows the document no longer.
    Close,
}

/// Frames of few bytes take more room in memory than in a message, so their number has a bound of
/// its own, which is looked at while they are read.
fn frames<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<WireFrame>, D::Error> {
    struct Frames;
    impl<'de> Visitor<'de> for Frames {
        type Value = Vec<WireFrame>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MESSAGE_FRAMES_MAX} frames")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
            let mut frames = Vec::new();
            while let Some(frame) = sequence.next_element()? {
                if frames.len() == MESSAGE_FRAMES_MAX {
                    return Err(A::Error::invalid_length(MESSAGE_FRAMES_MAX + 1, &self));
                }
                frames.push(frame);
            }
            Ok(frames)
        }
    }
    deserializer.deserialize_seq(Frames)
}

/// What a client wants of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intent {
    /// Follow it, creating it if neither side ever had it.
    Follow,
    /// Make the client's local copy the server's, if what the server has of that name is nothing,
    /// or an earlier state of that copy.
    Offer {
        /// Who wrote the copy's storage journal.
        lives: Lineage,
    },
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

/// A page on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodedPage {
    /// Which page.
    pub pgid: Pgid,
    /// What it is.
    pub coding: PageCoding,
}

/// How a page travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PageCoding {
    /// As it is.
    Whole(Page),
}

impl CodedPage {
    /// The page and its number.
    #[must_use]
    pub fn decoded(self) -> (Pgid, Page) {
        let PageCoding::Whole(page) = self.coding;
        (self.pgid, page)
    }
}

impl From<(Pgid, Page)> for CodedPage {
    fn from((pgid, page): (Pgid, Page)) -> Self {
        Self { pgid, coding: PageCoding::Whole(page) }
    }
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromServer {
    /// The answer to Hello.
    Welcome,
    /// The answer to Ping.
    Pong,
    /// The server closes the connection.
    Bye {
        /// Why.
        reason: ByeReason,
    },
    /// About one document.
    About {
        /// Which.
        channel: Channel,
        /// What is said of it.
        body: FromRoom,
    },
}

/// What a server says of a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromRoom {
    /// The answer to Open: the document is followed from now on.
    Opened {
        /// Where the server's storage journal stands.
        storage: Position,
        /// The entries that follow begin here: where the client's position is, if the server has
        /// it, and else at the first LSN.
        from: Lsn,
        /// The first LSN of the client's timeline that the server has not applied.
        wanted: Lsn,
        /// Who wrote what the server has applied of it.
        lives: Lineage,
    },
    /// The server has no such document, or an earlier state of it, and would take the client's:
    /// send [`ToRoom::Seed`].
    SeedWanted,
    /// What the client offered is the server's, on its disk. Opened follows.
    Seeded {
        /// Where its storage journal stands: what was offered, with the chain that it has here.
        position: Position,
    },
    /// A storage entry, or a part of one, on the server's disk.
    Entry(EntryPart),
    /// All timeline frames before `next` are on the server's disk.
    Acked {
        /// The first that is not.
        next: Lsn,
    },
    /// The frames from `lsn` on stay undecided for now.
    Undecided {
        /// The first of them.
        lsn: Lsn,
        /// Why, for a person to read.
        reason: String,
    },
    /// Where the storage journal stands, on the server's disk.
    Probed {
        /// The question's number.
        probe: ProbeId,
        /// The next LSN.
        next: Lsn,
    },
    /// The server will not serve this document; the channel is closed.
    Refused(Refusal),
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
    pub origin: Option<EntryId>,
    /// Pages of this part.
    pub pages: Vec<CodedPage>,
    /// The hash of the entry up to here, this part included. An entry of one LSN is proven by its
    /// chain too, but one that stands for several by this alone.
    pub hash: EntryHash,
    /// Whether this is the entry's last part.
    pub is_last: bool,
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
    /// The frames are not those of this timeline that the server has applied: another copy of the
    /// client has written on. Open again: `Opened` tells where the two part.
    Parted,
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
        let body = ToRoom::Frames {
            life: Life([3; 16]),
            first: Lsn::FIRST.plus(2),
            frames: vec![WireFrame { call: CallId([5; 16]), body: vec![8, 9] }],
        };
        let message = ToServer::About { channel: Channel(2), body };
        let hex: String = encode_message(&message).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "0100020000000200000001000000030303030303030303030303030303030300000000000000\
             0100000000000000050505050505050505050505050505050200000000000000\
             0809"
        );
    }

    #[test]
    fn a_message_of_too_many_frames_is_refused() {
        let of = |count| {
            let frame = WireFrame { call: CallId([5; 16]), body: Vec::new() };
            let first = Lsn::FIRST;
            let (life, frames) = (Life([3; 16]), vec![frame; count]);
            let body = ToRoom::Frames { life, first, frames };
            encode_message(&ToServer::About { channel: Channel(2), body })
        };
        assert!(decode_message::<ToServer>(&of(MESSAGE_FRAMES_MAX)).is_ok());
        assert!(decode_message::<ToServer>(&of(MESSAGE_FRAMES_MAX + 1)).is_err());
    }

    #[test]
    fn a_number_that_is_no_lsn_is_refused() {
        for number in [0, u64::MAX] {
            let mut bytes = encode_message(&ToServer::About {
                channel: Channel(1),
                body: ToRoom::Received { next: Lsn::FIRST },
            });
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
