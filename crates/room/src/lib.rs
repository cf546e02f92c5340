//! The server's side of one document as one state machine: inputs in, effects out.
//!
//! ```text
//! clients ─ToRoom─▶ ┌──────┐ ─Append, Read──▶ page server
//!       ◀─FromRoom─ │ Room │ ◀─Durable, Pages─
//!    shell ──Ask──▶ └──────┘
//!       ◀─Answer──
//! ```
//!
//! What the core is for a device ([`tidelog_document::Replica`] and all that waits for it), the
//! room is for a server: it runs what clients send, and tells them what came of it once that is
//! durable. The shell around it is crate `server`; the simulator is another one.
//!
//! # Where to start reading
//!
//! - [`Room::step`], then `room/frames.rs`: mutations are run.
//! - `room/io.rs`: what goes in and comes out.
//! - `room/outbox.rs`: what waits until it is durable. `room/follow.rs`: what followers lack.
//! - `room/due.rs`: when tasks are due, for as long as nobody handles them.
//! - `room/presence.rs`: who is here, of which nothing is ever durable.
//!
//! # What this crate does not know
//!
//! Sockets, tasks, threads, clocks: how long a run took it is told by a [`ThreadClock`], what ended
//! the server before by [`Caution`], and randomness is a seed.

mod room;

pub use room::{
    ARCHIVE, Answer, Ask, Caution, ConnId, Doctypes, ENDED_THE_SERVER, FailedMigration, Identity,
    May, MayRun, Outlets, Room, RoomCounts, RoomEffect, RoomInput, RoomSettings, STAGED, Service,
    Speaker, Suspect, ThreadClock, archive_of, entry_size, received_size, recorded_due,
};
