//! The shell that gives the core and the page server their web APIs.
//!
//! Two WebAssembly modules are made of it, one a feature: `core` for the SharedWorker, and
//! `page-server` for the dedicated worker that owns the files, or, in windows without files, for
//! the SharedWorker too. Ports, sockets, locks and timers
//! are in the TypeScript of `worker/`; here their bytes become values, and the other way round.
//!
//! ```text
//! port ── bytes ──▶ Core ── Input ──▶ tidelog_client ── Effect ──▶ Host ── bytes ──▶ port, socket
//! port ── bytes ──▶ PageServerHost ──▶ tidelog_pages ──▶ OpfsDisk ──▶ sync access handles
//!                         │                         └──▶ IdbDisk ──▶ IndexedDB
//!                         └── bytes of notices, once they are durable ──▶ ports of tabs
//! ```
//!
//! # Where to start reading
//!
//! - [`Core`]: steps of the core, and one function for each thing that can happen to it.
//!   [`check_doctype()`]: what tools ask before there is any core.
//! - [`PageServerHost`]: the store; [`OpfsDisk`] and [`IdbDisk`]: what it is kept in;
//!   [`warm_up()`]: what a page server does while it waits for another one to end.
//!
//! # What this crate does not know
//!
//! What is to be done: it decides nothing.

#[cfg(feature = "core")]
mod check;
#[cfg(feature = "core")]
mod core_host;
#[cfg(feature = "page-server")]
mod idb;
#[cfg(feature = "page-server")]
mod idb_disk;
#[cfg(feature = "page-server")]
mod opfs_disk;
#[cfg(feature = "page-server")]
mod page_server_host;
mod panics;
#[cfg(feature = "page-server")]
mod thrown;
#[cfg(feature = "page-server")]
mod warm_up;

use serde_bytes::ByteBuf;
use tidelog_pages::Ticket;

/// A notice of crate `client` as it travels to the page server, which need not know what it says:
/// the append, the tab, and the bytes of the list of messages.
pub(crate) type EncodedNotice = (Ticket, u32, ByteBuf);

#[cfg(feature = "core")]
pub use check::check_doctype;
#[cfg(feature = "core")]
pub use core_host::{Core, Host};
#[cfg(feature = "page-server")]
pub use idb::IdbDatabase;
#[cfg(feature = "page-server")]
pub use idb_disk::IdbDisk;
#[cfg(feature = "page-server")]
pub use opfs_disk::OpfsDisk;
#[cfg(feature = "page-server")]
pub use page_server_host::{Left, PageServerHost, ReplyHost, Unopened};
#[cfg(feature = "page-server")]
pub use warm_up::warm_up;
