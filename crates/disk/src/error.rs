//! What a device can answer instead of doing its work.

/// Why a disk did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The read would have passed the end of the file.
    #[error("{count} bytes at {offset} pass the end of the file at {size}")]
    OutOfRange {
        /// Where the read was to begin.
        offset: u64,
        /// How many bytes were wanted.
        count: usize,
        /// Size of the file, in bytes.
        size: u64,
    },
    /// The device, or this site's share of it, has no more room.
    #[error("the device is full")]
    Full,
    /// The device, or this site's share of it, has no room for what was to be flushed: it is not
    /// durable, and the file is poisoned.
    #[error("the device has no room for what was to be flushed")]
    FlushFull,
    /// The device wrote fewer bytes than it was given, or claims an impossible number.
    #[error("the device wrote {written} of {expected} bytes")]
    ShortWrite {
        /// How many bytes were to be written.
        expected: usize,
        /// How many it says it wrote.
        written: u64,
    },
    /// An earlier flush failed. Open the file anew to learn what survived.
    #[error("the file is poisoned by an earlier failed flush")]
    Poisoned,
    /// Somebody else has the file open.
    #[error("the file is in use by another owner")]
    Busy,
    /// The file was deleted under its owner: what is written goes nowhere.
    #[error("the file is gone")]
    Gone,
    /// The device failed.
    #[error("the device failed: {reason}")]
    Device {
        /// What it said.
        reason: String,
    },
}

impl DiskError {
    /// Whether there was no room for a write: it left nothing that counts, and a smaller one may
    /// succeed. Of a flush that is never so.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full | Self::ShortWrite { .. })
    }

    /// Whether it is room that lacks, whatever became of the file.
    #[must_use]
    pub fn lacks_room(&self) -> bool {
        self.is_full() || *self == Self::FlushFull
    }

    /// The error of a flush that failed for this reason.
    #[must_use]
    pub fn of_flush(self) -> Self {
        if self.is_full() { Self::FlushFull } else { self }
    }
}
