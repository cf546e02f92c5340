//! The log that all journals of a store share.
//!
//! Everything that must last is first a [`Frame`](FrameHead) here, in a batch that becomes
//! durable whole or not at all. One flush serves all journals of all documents.
//!
//! # The way of a batch
//!
//! ```text
//!       push, commit          write            request_flush, poll_flushed
//! body ─────────────▶ buffer ───────▶ written ──────────────────────────▶ durable
//!                                                 ...when the file is long: begin_copy, seal,
//!                                                 switch: what is needed goes to the other file
//! ```
//!
//! # Where to start reading
//!
//! - `FORMAT.md`: the bytes, and what is believed after a crash.
//! - [`Log`]: append, flush, read, change over.
//! - `frame.rs`: the codec; `writer.rs`: batches; `recovery.rs`: what a reader believes;
//!   `salvage.rs`: what of a damaged log; `change_over.rs`: going over to the other file.
//!
//! # What this crate does not know
//!
//! What a frame means, who may write one, and that there is a network.

mod change_over;
mod error;
mod frame;
mod header;
mod log;
mod log_file;
mod read;
mod recovery;
mod salvage;
mod scan;
mod successor;
mod window;
mod witness;
mod writer;

pub use change_over::HeldFrame;
pub use error::{ReadError, RecoverError};
pub use frame::{
    BatchPart, DocumentNumber, FRAME_HEADER_SIZE, FRAME_HEADER_SIZE_MAX, FrameHead, frame_size_max,
};
pub use header::{LOG_START, Seed};
pub use log::{BatchNumber, Log};
pub use log_file::LogFile;
pub use read::FrameAt;
pub use scan::{Cut, Damage, Found, LogReport};
pub use window::FoundFrame;
pub use witness::Witness;
pub use writer::FramePlace;
