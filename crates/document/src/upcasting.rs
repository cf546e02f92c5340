//! Bringing the events that a document keeps to the newest versions of their types, for good.

/// What became of events of older versions: a part of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpcastEvents {
    /// How many are of the newest version now.
    pub events: u64,
    /// Up to which sequence number events were looked at.
    pub seen: u64,
    /// The sequence number of the last one that there is.
    pub last: u64,
    /// Whether there may be more behind that.
    pub has_more: bool,
}

/// Why no event is brought there, or no further one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpcastRefusal {
    /// The document has no events.
    #[error("the document has no streams")]
    NoStreams,
    /// The app has no such aggregate.
    #[error("no such aggregate")]
    UnknownAggregate,
    /// One cannot be. What stands before it is.
    #[error("{reason}")]
    Failed {
        /// Its sequence number.
        sequence: u64,
        /// Why, for a person; it names the event.
        reason: String,
    },
}
