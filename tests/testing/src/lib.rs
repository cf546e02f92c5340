//! What the tests and benches of several crates share.
//!
//! # Where to start reading
//!
//! - [`runs()`]: random operations against a plain model, and how to replay a run.
//! - `store.rs`: a store on a device that can fail, its model and its workloads; `store/make.rs`:
//!   requests in few words; `timed.rs`: what benches do with a store, on any disk.
//! - `client.rs`: a device around a client; `client/server.rs`: a server for it, and how it gets
//!   online; `client/todos.rs`: the list that both have; `client/core.rs`: a core alone.
//! - `room.rs`: a room alone, over a store in memory, and the notes that its clients write.
//! - `server.rs`: a small client of a server, over a real socket, and a server process.
//! - `decoders.rs`: what a decoder must keep, whatever bytes it is given.
//! - `table.rs`: what a bench prints; `figure.rs`: what it says to `npm run bench`.
//!
//! # What this crate does not know
//!
//! What is tested. No product code depends on it, and everything beyond chance is a feature, so
//! that tests of a crate build no more than they need.

#![allow(missing_docs, reason = "helpers of tests, with names that say it all")]

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "decoders")]
pub mod decoders;
pub mod figure;
mod rng;
#[cfg(feature = "room")]
pub mod room;
mod runs;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "store")]
pub mod store;
#[cfg(feature = "table")]
pub mod table;
#[cfg(feature = "store")]
pub mod timed;

pub use rng::Rng;
pub use runs::runs;
