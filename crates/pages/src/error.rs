//! What opening and running a store can meet.

use tidelog_disk::DiskError;
use tidelog_journal::{ReadError, RecoverError};
use tidelog_types::UnservedKind;

use crate::AppendError;

/// Why a store could not be opened. Nothing durable has changed; a tail of the log that was not may
/// be cut off, and where there was no log, one may be begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A newer release wrote this store. Run that one.
    #[error("the store has format version {found}, and this release knows up to {known}")]
    NewerFormat {
        /// The version in the files.
        found: u32,
        /// The highest version that can be read.
        known: u32,
    },
    /// The page file's header is damaged.
    #[error("the header of the page file is damaged")]
    DamagedPageFile,
    /// The log is damaged in another way.
    #[error("the log cannot be read")]
    Log(#[source] RecoverError),
    /// The device failed, or is full.
    #[error("cannot open the store")]
    Disk(#[from] DiskError),
}

impl OpenError {
    /// Why a page server does not serve that failed so.
    #[must_use]
    pub fn why_unserved(&self) -> UnservedKind {
        match self {
            Self::NewerFormat { .. } => UnservedKind::NewerFormat,
            Self::Disk(error) if error.lacks_room() => UnservedKind::Full,
            Self::Disk(_) => UnservedKind::Unavailable,
            _ => UnservedKind::Damaged,
        }
    }

    /// It and what caused it, in one line.
    #[must_use]
    pub fn reasons(&self) -> String {
        reasons(self)
    }
}

fn reasons(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {}", reasons(cause)));
    format!("{error}{}", cause.unwrap_or_default())
}

impl From<RecoverError> for OpenError {
    fn from(error: RecoverError) -> Self {
        match error {
            RecoverError::NewerFormat { found, known } => Self::NewerFormat { found, known },
            RecoverError::Disk(error) => Self::Disk(error),
            other => Self::Log(other),
        }
    }
}

/// Why the page server cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("{0}")]
    Disk(#[from] DiskError),
    #[error("{what} is damaged")]
    Damaged { what: String },
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Disk(error) => Self::Disk(error),
            ReadError::Damaged { offset } => {
                Self::Damaged { what: format!("the frame at {offset} of the log") }
            }
            other => Self::Damaged { what: other.to_string() },
        }
    }
}

impl StoreError {
    /// Whether a write found no room, which changed nothing that counts.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Disk(error) if error.is_full())
    }

    pub fn to_append_error(&self) -> AppendError {
        match self {
            Self::Disk(error) if error.lacks_room() => AppendError::Full,
            error => AppendError::Device { reason: error.to_string() },
        }
    }
}
