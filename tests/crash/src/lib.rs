//! The store after power cuts and damage, image by image.
//!
//! A script of appends, flushes, trims, compactions, journals and documents destroyed, replaced and
//! newly begun, and change-overs runs once for each of its disk calls, and the power goes off after
//! that call. Each way in which the un-flushed sectors can survive, or their blocks be torn, is an
//! **image**; it is opened, and what it holds has to be a state of the script's history, whole, and
//! none before the last that was called durable.
//!
//! A store has several lives: within a script its owner is killed, with what it wrote still in the
//! caches of the system, or the power is cut, or the device is full for a moment; the next owner
//! goes on with what is there, and hands over again what was lost. And some images are gone on with
//! in the same way, and cut a second time: what the first cut tore must not come back.
//!
//! # Where to start reading
//!
//! - [`Script`] and [`Cut`]: which images there are, and what is checked of one.
//! - `full.rs`: what holds at the end of each script, on a device that is full and stays so.
//! - `planted/`: faults that the sweep has to find (`npm run crash -- --planted`).
//! - [`damage`]: bits flipped and tails cut, instead of lost sectors.
//! - `main.rs`: `npm run crash`, all of it, and the replay of one image.
//! - `store.rs` of crate `testing`: the model, the workload and the driver, shared with the tests
//!   of crate `pages`.

mod choices;
mod cut;
pub mod damage;
mod full;
mod script;

// Not a dependency: tests of crate `pages` cannot depend on what depends on it.

pub use choices::ImageName;
pub use cut::Cut;
pub use script::{Contents, Script};
