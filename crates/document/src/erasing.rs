//! Erasing what events, commands and runs say, while what happened keeps its place.

use serde::{Deserialize, Serialize};

/// What data are erased of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Erasable {
    /// The events of a stream, and its commands.
    Stream {
        /// The aggregate's name.
        aggregate: String,
        /// Which of those.
        stream: String,
    },
    /// The runs of an id, and what they remember.
    Run {
        /// The workflow's name.
        workflow: String,
        /// The run's id.
        id: String,
    },
}

/// How far erasing has come. It begins with nothing, and may begin again at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ErasedUpTo {
    /// The last event, by its sequence.
    pub event: u64,
    /// The last task that was looked at, by its number.
    pub task: u64,
}

/// What was erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// How many events.
    pub events: u64,
    /// How many commands.
    pub commands: u64,
    /// How many runs of a workflow.
    pub runs: u64,
    /// How many records of those.
    pub records: u64,
    /// Where it goes on, if there may be more.
    pub next: Option<ErasedUpTo>,
}

/// Why nothing is erased, or nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EraseRefusal {
    /// The document has no events, or no workflows.
    #[error("the document has none")]
    HasNone,
    /// There is no such stream, or no such run.
    #[error("there is no such one")]
    Unknown,
    /// A command of the stream, or the run, is not over.
    #[error("number {number} is not over")]
    Unfinished {
        /// Its number.
        number: u64,
    },
}
