//! Making anew what follows from the events of an aggregate in the tables of the app.

/// What is to be made anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// From the events of this aggregate, all of its streams.
    pub aggregate: String,
    /// In these tables of the app, which are emptied first.
    pub tables: Vec<String>,
    /// Whether nothing of it is to stay.
    pub is_dry: bool,
}

/// What came of a [`Replay`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// From how many events rows follow.
    pub events: u64,
    /// From how many nothing does any more, since they were erased.
    pub erased: u64,
    /// The tables that were emptied, by the names that they have.
    pub tables: Vec<ReplayedTable>,
    /// Whether nothing of it has stayed.
    pub is_dry: bool,
}

/// A table that was emptied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayedTable {
    /// Its name.
    pub name: String,
    /// How many rows it had.
    pub rows_before: u64,
    /// How many it has then.
    pub rows_after: u64,
}

/// Why nothing is made anew, and everything is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayRefusal {
    /// The document has no events.
    #[error("the document has no streams")]
    NoStreams,
    /// The app has no such aggregate.
    #[error("no such aggregate")]
    UnknownAggregate,
    /// A table is not to be emptied.
    #[error("table {name} cannot be emptied: {reason}")]
    Table {
        /// Its name.
        name: String,
        /// Why, for a person.
        reason: String,
    },
    /// There are more events than may be.
    #[error("{count} events are more than are replayed at a time, {count_max}")]
    TooMany {
        /// How many.
        count: u64,
        /// How many may be.
        count_max: u64,
    },
    /// Events of a stream have left for the archive: rows that follow from them would be lost.
    #[error("events of stream {stream} are archived, and nothing is made anew without them")]
    Archived {
        /// Which stream.
        stream: String,
    },
    /// What follows from an event cannot be.
    #[error("event {sequence}, {name} of {aggregate}, cannot be replayed: {reason}")]
    Event {
        /// Its sequence number.
        sequence: u64,
        /// Its type.
        name: String,
        /// What it happened to.
        aggregate: String,
        /// Why, for a person.
        reason: String,
    },
    /// All of it together cannot be.
    #[error("it cannot be replayed: {reason}")]
    Failed {
        /// Why, for a person.
        reason: String,
    },
}
