//! The sync server: tasks, sockets and settings around rooms; the binary `tidelog` is a few lines
//! over it.
//!
//! ```text
//! WebSocket ──▶ connection ──▶ room task ──▶ store thread
//!  (socket.rs)                 (rooms.rs)     (store.rs)
//!                              Room::step    PageServer over native files,
//!                                            one flush for all that waits
//! ```
//!
//! Each document has one [room](tidelog_room::Room), and each room one task that owns it. The room
//! decides and does nothing; its task carries out what it decided. All rooms share one store, which
//! has a thread of its own, and so share each flush.
//!
//! # Where to start reading
//!
//! - `house.rs`: what there is behind the door.
//! - `rooms.rs`: a room's task, and what it does with what the room decided.
//! - `store.rs`: how many rooms share one page server.
//! - `socket.rs`: a connection's life; `socket/reader.rs`: what its client says, and
//!   `socket/writer.rs`: what it is told.
//! - `door.rs`: how connections come in, and `tls.rs` what is spoken with them.
//! - `access.rs`: who may come in, and what for.
//! - `agenda.rs`: which documents have work, while nobody has them open.
//! - `deployments.rs`: the doctypes that documents may be of.
//! - `settings.rs`: flags, environment, file.
//! - `commands.rs`: what an operator types beside `serve`.
//!
//! # What this crate does not know
//!
//! Browsers; what a room decides, and what a mutation means; what the bytes of the store look like.

mod access;
mod agenda;
mod allowance;
mod archive;
mod audit;
mod backup;
mod client_address;
mod commands;
mod connection;
mod control;
mod counters;
mod cpu_time;
mod deployments;
mod door;
mod durable_file;
mod export;
mod gate;
mod heartbeat;
mod histogram;
mod house;
mod http;
mod import;
mod large_messages;
mod loopback;
mod marks;
mod rooms;
mod said;
mod server;
mod settings;
mod shared;
mod shares;
mod socket;
mod store;
mod tls;

pub use access::AccessError;
pub use commands::{
    Backup, Check, CommandError, Config, Deploy, DocumentCommands, Events, Export, Forgive, Import,
    Ready,
};
pub use commands::{Restore, Revoke, Token, User};
pub use deployments::DoctypesError;
pub use server::{Server, ServerError};
pub use settings::{AccessFlags, AccessSettings, KeyFiles, LogFormat, Password, Serve};
pub use settings::{ServeSettings, SettingsError, TlsError, TlsFlags, TlsSettings};
