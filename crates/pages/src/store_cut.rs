//! A cut through a store: its files as they stand, for whoever copies them while it goes on.

use std::sync::Arc;

use tidelog_journal::LogFile;

/// How a store stands at one moment, in its files. Whoever has copied the head and what the sizes
/// say has a store in which everything is that was durable then: the rest of the log file behind
/// the head, and the page file, whose other log file is empty.
///
/// For as long as it is kept nothing is written over that it speaks of, and everybody else goes on.
/// Only the log grows longer than it would: a checkpoint that begins meanwhile waits.
#[derive(Debug)]
pub struct StoreCut {
    /// Which log file. It is displayed as it is called.
    pub log: LogFile,
    /// What that begins with. It is not there any more once the log goes over to its other file.
    pub log_head: Vec<u8>,
    /// Bytes of the log, its head among them.
    pub log_size: u64,
    /// Bytes of the page file.
    pub pages_size: u64,
    /// As of a read that has not ended.
    pub(crate) _era: Arc<()>,
}

/// Why there is no cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// Something of the store is lost: what is left is to be read, and not to be copied as a whole.
    #[error("the store is damaged")]
    Damaged,
    /// The files cannot be read, or have to be opened anew.
    #[error("the store fails: {reason}")]
    Failed {
        /// What happened.
        reason: String,
    },
}
