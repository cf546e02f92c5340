//! What `tidelog/testing` runs in Node: cores, their stores, a server, a net and a clock in one
//! WebAssembly module.
//!
//! ```text
//! tabs (TypeScript) ──ToCore──▶ ┌───────────────────────────────────────┐
//!                   ◀─FromCore─ │ World                                 │
//!                               │  Device: Client and a PageServer      │
//!             pass, set_online ▶│  Device: Client and a PageServer      │
//!                               │  Server: a Room per document, a store │
//!                               └───────────────────────────────────────┘
//! ```
//!
//! All of it is the shipped code; only what carries messages, keeps bytes and tells the time is
//! another one. Messages take no time, disks are memory that is flushed at once, and time passes
//! only when [`World::pass`] says so. Nothing goes wrong here but the net, when a test says so: the
//! simulator in `tests/sim` is the one that breaks things.
//!
//! # Where to start reading
//!
//! - [`World`]: what happens, in which order. `device.rs`: a core and its page
//!   server. `server.rs`: rooms over one store.
//! - `exports.rs`: what `js/src/node/world.ts` calls.
//!
//! # What this crate does not know
//!
//! Threads, sockets, files, promises, and what a real clock shows. Randomness is a seed.

mod chance;
mod device;
mod exports;
mod server;
mod world;

pub use world::{DeviceId, World};
