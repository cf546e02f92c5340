//! Durable bytes: the [`Disk`] trait, its laws and its implementations.
//!
//! This is the only door to storage in the workspace. A store is four such files, made once and
//! never renamed or deleted.
//!
//! ```text
//! write_at ──▶ seen by read_at ──▶ request_flush ──(later)──▶ flushed: survives a power cut
//! ```
//!
//! # Where to start reading
//!
//! - [`Disk`]: the laws. [`conformance`] checks them for any implementation.
//! - [`MemoryDisk`], [`NativeDisk`]: bytes in memory, and in a file of the operating system.
//! - [`CrashDevice`]: disks whose power can be cut at any call, for tests and the simulator.
//! - [`StoreFiles`]: the four files of a store.
//!
//! # What this crate does not know
//!
//! What the bytes mean.

pub mod conformance;
mod crash;
mod disk;
mod error;
mod memory;
#[cfg(not(target_arch = "wasm32"))]
mod native;
mod store_files;
mod unreadable;

pub use crash::{CrashDevice, CrashDisk, DiskFault, Grown};
pub use disk::{BLOCK_SIZE, Disk, FlushId, SECTOR_SIZE};
pub use error::DiskError;
pub use memory::MemoryDisk;
#[cfg(not(target_arch = "wasm32"))]
pub use native::NativeDisk;
pub use store_files::StoreFiles;
pub use unreadable::{read_around, read_or_lose};
