//! Clients and a server in one process, from one seed, with everything going wrong that may.
//!
//! Three devices (tabs, core, page server, disk) and a server with its disk, all of them the
//! shipped crates; only what carries messages and keeps time is made here. One seed decides
//! everything: the same seed gives the same trace hash.
//!
//! # What may go wrong
//!
//! - A message between a device and the server is delayed, comes twice, or is lost together with
//!   all that follows it on that connection; the connection is cut, or just falls silent.
//! - A tab is closed; the tab that lends the page server is closed, between any two of its steps;
//!   the core is killed, which its tabs see in their own time; a device or the server loses power,
//!   and with it any of its un-flushed sectors.
//! - A flush takes its time. A device's disk is full for a while.
//! - A new release of the app comes, with a successor of the doctype.
//!
//! Ports within a browser lose nothing while both ends live, and a power cut does not damage
//! sectors that were flushed: the design does not promise to survive more, so no more is injected
//! here.
//!
//! # What has to hold
//!
//! When the faults have stopped, all sides converge byte for byte; every call of a living tab has
//! settled; each mutation that was called durable was applied once or rejected once, one that was
//! called confirmed was applied once, and one that failed left nothing (`judge.rs`).
//!
//! # Where to start reading
//!
//! [`World::run`], then `world/trouble.rs`, `device.rs` and `host.rs`. That a run would notice
//! what it is there for is shown by the faults in `planted/`, each a change that breaks the
//! product.

mod device;
mod host;
mod judge;
mod rng;
mod tab;
mod world;

pub use world::{Outcome, World};
