//! What opening a store has found.

use tidelog_journal::{Cut, Damage};
use tidelog_types::{DocumentKey, Epoch};

/// What was found when a store was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Whether the files held no store before.
    pub is_new: bool,
    /// How many documents there are.
    pub documents: usize,
    /// Generation of the active log file: goes up by one with each change-over.
    pub generation: u64,
    /// Bytes of log that were read.
    pub log_size: u64,
    /// Batches appended since the last change-over.
    pub batches: u64,
    /// The highest epoch ever granted.
    pub epoch: Epoch,
    /// The torn tail of the log that was cut, if there was one.
    pub cut: Option<Cut>,
    /// What is lost because durable bytes of the log have changed. The store can then be read, and
    /// every append is refused.
    pub damage: Option<DamageReport>,
}

/// What damage to the log means for a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamageReport {
    /// Where durable bytes have changed, in the order of the file.
    pub places: Vec<Damage>,
    /// The documents of which something is lost, or of which nothing proves that it is not. They
    /// are as they were before; all others are whole.
    pub incomplete: Vec<DocumentKey>,
    /// How many documents there are signs of whose names are lost.
    pub nameless: usize,
}
