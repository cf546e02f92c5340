//! The words of the domain as types, and every limit with its unit.
//!
//! Nothing here does anything: these are the values that the rooms hand to one another. A number
//! that crosses a function boundary has a type of its own, so that an [`Lsn`] is never taken for a
//! [`Pgid`].
//!
//! # Where to start reading
//!
//! - [`Lsn`], [`LsnRange`] and [`Position`]: places in a journal, and how two sides compare them.
//! - [`Page`] and [`PageSet`]: what SQLite reads, and what one commit changed.
//! - [`limits`]: every bound, with its unit.
//!
//! # What this crate does not know
//!
//! Anything else.

mod error_code;
mod ids;
pub mod limits;
mod lsn;
mod page;
mod position;
mod sorted_map;
mod value;

pub use error_code::{ErrorCode, Outcome};
pub use ids::{CallId, ClientId, DocumentKey, Epoch, InvalidDocumentKey, JournalId};
pub use lsn::{Lsn, LsnRange, NoLsn};
pub use page::{Page, PageSet, Pgid};
pub use position::{Chain, Position};
pub use sorted_map::SortedMap;
pub use value::{Rows, Value, ValueRef};
