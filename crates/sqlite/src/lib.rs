//! SQLite over pages that come from anywhere: from a document's base, from the layers over it, or,
//! where they are not in memory, from whoever fetches them next.
//!
//! # The way of a read
//!
//! ```text
//!  app SQL ──▶ SQLite ──xRead──▶ vfs ──▶ pages of the running transaction
//!                                         └▶ View: overlay ─▶ base (buffer pool)
//!                                                              └▶ not in memory: a fault
//! ```
//!
//! SQLite reads synchronously, so a page that is not in memory cannot be waited for. The read
//! fails, the transaction is rolled back, and the caller gets [`Run::Fault`]: it fetches
//! [`View::to_fetch`], calls [`View::fill`] and runs the transaction again.
//!
//! A write never changes a [`View`]: it ends as a [`PageSet`](tidelog_types::PageSet), the pages
//! that its commit wrote, and the caller decides what becomes of that.
//!
//! # Where to start reading
//!
//! - [`View`]: what connections read; [`Writer`] and [`Reader`]: who reads.
//! - `state.rs`: what one connection's VFS and callbacks tell its owner, faults above all.
//! - `guard.rs`: what app SQL may do, and for how long.
//! - [`flags`]: how SQLite is compiled, the same natively and for WebAssembly.
//!
//! # What this crate does not know
//!
//! Peers, tabs, journals, and who fetches a page.

mod base_pool;
mod connection;
mod event;
mod failure;
pub mod flags;
mod functions;
mod gap;
mod guard;
#[cfg(target_arch = "wasm32")]
mod host;
mod linear;
mod local_time;
mod memory;
mod page_cache;
mod params;
#[cfg(all(target_arch = "wasm32", feature = "plain-files"))]
pub mod plain_files;
mod read_set;
mod reader;
mod scan;
mod schema_size;
mod state;
mod statement;
mod transaction;
mod vfs;
mod view;
mod writer;

pub use event::{EVENTS_FUNCTION, EVENTS_TRIGGER, EVENTS_VIEW, InsertedEvent};
pub use failure::{Failure, Run};
pub use memory::{be_short_beyond, held_size};
pub use read_set::ReadSet;
pub use reader::{Reader, SystemQueries};
pub use scan::{InsertByPlace, inserts_by_place};
pub use tidelog_types::Params;
pub use transaction::{Transaction, WrittenRows};
pub use view::{Stopwatch, TimeLeft, View};
pub use writer::Writer;
