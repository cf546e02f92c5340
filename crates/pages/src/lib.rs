//! The page file, the page tables and the page server.
//!
//! A store is four files: two of log, one of pages, one spare. All that is to last is appended to
//! the log; when the log has grown long, the pages in it are written into the page file and the
//! rest of what is still needed is copied into the other log file. That is the checkpoint.
//!
//! # The way of a request
//!
//! ```text
//! serve ──▶ decide ──▶ log buffer, catalog ──▶ flush: one write, one flush ──▶ poll: Durable
//!                       reads: a chunk each in turn ─────────────────────────▶ poll: Pages
//! ```
//!
//! # Where to start reading
//!
//! - [`StoreRequest`] and [`StoreReply`]: what owners of documents ask, and what they are told.
//! - [`PageServer`]: the queue, and what becomes durable when.
//! - `catalog.rs`: what the store holds, as a fold over frames.
//! - `store/change_over.rs` and `FORMAT.md`: the checkpoint, and why it can be cut short anywhere.
//! - `read_queue.rs`: whose read is served next; `pool.rs`: which pages stay in memory.
//! - `page_table.rs`, `store/history.rs`: where each version of a page lies, and reading what was.
//!
//! # What this crate does not know
//!
//! SQLite, networks, and what a page, a mutation or a record says.

mod acks;
mod append;
mod catalog;
mod document;
mod error;
mod extents;
mod frame_body;
mod hashed;
mod heads;
mod ledger;
mod owners;
mod page_file;
mod page_table;
mod place;
mod plan;
mod pool;
mod protocol;
mod read_queue;
mod reads;
mod report;
mod server;
mod space;
mod staging;
mod store;
mod store_cut;
mod waiting;

pub use error::OpenError;
pub use ledger::AppendLedger;
pub use owners::OwnerId;
pub use protocol::{
    Append, AppendError, Cursor, Direction, OpenedDocument, RequestId, StagedPage, StorageEntry,
    StoreReply, StoreRequest, Ticket, TimelineFrame, TimelineState, Urgency,
};
pub use report::{DamageReport, RecoveryReport};
pub use server::PageServer;
pub use store::StoreOptions;
pub use store_cut::{CutError, StoreCut};
pub use tidelog_journal::{Cut, Damage, LogFile, Seed};
