//! The browser side as one state machine: inputs in, effects out.
//!
//! ```text
//!   tabs ──ToCore──▶ ┌────────┐ ──Append, Read──▶ page server
//!        ◀─FromCore─ │ Client │ ◀─Durable, Pages─
//!                    └────────┘ ──Open, Frames──▶ server
//!                        ▲      ◀─Entry, Acked───
//!                      Wake
//! ```
//!
//! It never waits: what has to wait (for a page, for the disk, for the server) is kept, and goes on
//! with the input that brings it. A receipt settles when its append is durable, a frame goes to the
//! server only after that, and the timeline is trimmed in the same append as the entry that decides
//! it.
//!
//! # Where to start reading
//!
//! - [`Client::step`], then `document/mod.rs`: one document and everything that waits on it.
//! - `protocol.rs`: what tabs may ask. `effect.rs`: what the shell does.
//! - `store_link.rs` and `server_link.rs`: the ways to the page server and to a server; by whose
//!   token that is, `token_turns.rs` and `renewal.rs` say.
//!
//! # What this crate does not know
//!
//! web-sys, promises, clocks: time comes in with every input, randomness once, as a seed.

mod at_work;
mod client;
mod document;
mod effect;
mod failure;
mod outbox;
mod protocol;
mod record;
mod renewal;
mod rng;
mod server_link;
mod settings;
mod store_link;
mod tab_flow;
mod token_turns;

pub use at_work::AtWork;
pub use client::Client;
pub use effect::{Effect, Input, Notice, PageServerFailure, PageServerId, SocketId, TabId};
pub use protocol::{
    Again, Call, CallFailure, CommandName, Complete, Connection, Consumer, Events, FromCore,
    Handle, Handling, Memo, Mutate, OpenRequest, Other, Query, Records, Request, Status, Storage,
    ToCore,
};
pub use record::KeptRejections;
pub use settings::ClientSettings;
pub use tidelog_document::warm_up;
pub use tidelog_sqlite::{Stopwatch, TimeLeft};
pub use tidelog_types::Params;
