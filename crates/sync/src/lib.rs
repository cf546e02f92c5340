//! Who has which LSNs, what to send next, and the messages that say so.
//!
//! Two journals of each document travel: a client's **timeline** goes up, the **storage journal**
//! comes down. After any break the two sides exchange positions and go on from there; whatever was
//! sent twice is recognised by its LSN.
//!
//! ```text
//! client                                    server
//!   Hello, Open(position)  ───────────────▶
//!                          ◀───────────────  Opened(position, next timeline LSN wanted, lives)
//!   Frames(timeline range) ───────────────▶
//!                          ◀───────────────  Entry(storage range), Acked(timeline LSN)
//!   Received(storage LSN)  ───────────────▶
//! ```
//!
//! # Where to start reading
//!
//! - `message.rs`: what is said. `PROTOCOL.md` lists it with every case of a broken connection.
//! - `envelope.rs`: how that becomes bytes, compressed where it pays.
//! - [`Sender`]: which timeline frames go up next.
//! - [`Follower`]: which storage entries a client lacks.
//! - `presence.rs`: what is said of who is there, and [`Roster`]: which of it somebody lacks.
//! - [`codec`]: the only place that knows how messages become bytes.
//!
//! # What this crate does not know
//!
//! Sockets and time; what a frame or a page means.

mod archive;
pub mod codec;
mod envelope;
mod follower;
mod message;
mod presence;
mod roster;
mod sender;

pub use archive::{ArchiveAnswer, ArchiveQuestion, ArchivedEvent};
pub use envelope::{MessageError, PROTOCOL_VERSION, decode_message, encode_message, message_size};
pub use follower::{Follower, FollowerStep};
pub use message::{
    ByeReason, Channel, CodedPage, CompletionAnswer, EntryPart, FromRoom, FromServer, Intent,
    OpenDoctype, PageCoding, ProbeId, Refusal, ToRoom, ToServer, UndecidedReason, WireFrame,
};
pub use presence::{Attendee, Hears, PresenceNews, PresenceWho, PresenceWord, Present, StateText};
pub use roster::{Roster, RosterNews, RosterReader, Seen};
pub use sender::{PeerAhead, Sender};
