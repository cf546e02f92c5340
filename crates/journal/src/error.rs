//! What opening and reading a log can meet.

use tidelog_disk::DiskError;

use crate::LogFile;

/// Why a log could not be opened. The files are as they were, but where the device failed: then a
/// tail that was never durable may be cut off, or a log begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// Neither copy of a file's header is whole, so which file is the newer cannot be told.
    #[error("the header of {file} is damaged")]
    DamagedHeader {
        /// Which file.
        file: LogFile,
    },
    /// The file with the log is gone, or what says that it is one.
    #[error("the log is gone")]
    Lost,
    /// Whole frames that say something impossible.
    #[error("the log makes no sense at offset {offset}: {reason}")]
    Malformed {
        /// Where the frame begins.
        offset: u64,
        /// What is impossible about it.
        reason: String,
    },
    /// A newer release wrote this store. Run that one.
    #[error("the store has format version {found}, and this release knows up to {known}")]
    NewerFormat {
        /// The version in the file.
        found: u32,
        /// The highest version that can be read.
        known: u32,
    },
    /// The device failed.
    #[error("cannot read the log")]
    Disk(#[from] DiskError),
}

/// Why bytes of the log could not be read back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The frame is no longer what was written, or the device cannot read it.
    #[error("the frame at offset {offset} of the log is damaged")]
    Damaged {
        /// Where the frame begins, or what of it cannot be read.
        offset: u64,
    },
    /// The device failed.
    #[error("cannot read the log")]
    Disk(#[from] DiskError),
}
