//! The words of the domain as types, and every limit with its unit.
//!
//! Hardly anything here does anything: these are the values that the rooms hand to one another. A
//! number that crosses a function boundary has a type of its own, so that an [`Lsn`] is never taken
//! for a [`Pgid`].
//!
//! # Where to start reading
//!
//! - [`Lsn`], [`LsnRange`] and [`Position`]: places in a journal, and how two sides compare them.
//! - [`Lineage`]: who wrote a journal, by which two sides find where their histories part.
//! - [`Page`] and [`PageSet`]: what SQLite reads, and what one commit changed; [`difference()`]:
//!   what one page lacks to be another; [`PageHash`]: what one is known by.
//! - [`limits`]: every bound, with its unit; [`Budget`]: what one slice of work may cost.
//! - [`probe`]: rare branches, which the simulator has to reach.
//!
//! # What this crate does not know
//!
//! Anything else.

mod base128;
mod budget;
mod difference;
mod entry_id;
mod error_code;
mod ids;
pub mod limits;
mod lineage;
mod lsn;
mod page;
mod page_hash;
mod parts;
mod position;
pub mod probe;
mod role;
mod shortened;
mod sorted_map;
mod unserved;
mod value;

pub use base128::{number_size, put_number, take_number};
pub use budget::{Budget, BudgetLimits};
pub use difference::{Coding, apply_difference, coded, difference, difference_of_all};
pub use entry_id::EntryId;
pub use error_code::{ErrorCode, Outcome, Remedy};
pub use ids::{
    CallId, ClientId, CopySecret, DocumentKey, Epoch, InvalidDocumentKey, JournalId, Life,
};
pub use lineage::{ImpossibleLineage, Lineage};
pub use lsn::{Lsn, LsnRange, NoLsn};
pub use page::{Page, PageSet, Pgid};
pub use page_hash::PageHash;
pub use parts::in_parts;
pub use position::{Chain, EntryHash, Position};
pub use role::{InvalidRole, Role};
pub use shortened::shortened;
pub use sorted_map::SortedMap;
pub use unserved::UnservedKind;
pub use value::{Params, Rows, Value, ValueRef};
