//! The store after power cuts and damage, image by image.
//!
//! A script of appends, flushes, trims, compactions, destroyed and newly begun journals and
//! change-overs runs once for each of its disk calls, and the power goes off after that call. Each
//! way in which the un-flushed sectors can survive is an **image**; it is opened, and what it holds
//! has to be a state of the script's history, whole, and none before the last that was called
//! durable.
//!
//! # Where to start reading
//!
//! - [`Script`] and [`Cut`]: which images there are, and what is checked of one.
//! - [`damage`]: bits flipped and tails cut, instead of lost sectors.
//! - `main.rs`: `npm run crash`, all of it, and the replay of one image.
//! - `crates/pages/tests/common`: the model, the workload and the driver, shared with the tests
//!   of that crate.

mod choices;
mod cut;
pub mod damage;

// Not a dependency: tests of crate `pages` cannot depend on what depends on it.
#[path = "../../../crates/pages/tests/common/mod.rs"]
mod common;

pub use choices::ImageName;
pub use cut::{Cut, Script};
