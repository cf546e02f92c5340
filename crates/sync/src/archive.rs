//! Events that have left a document, as a client asks the server for them.

use serde::{Deserialize, Deserializer, Serialize};
use tidelog_types::JournalId;
use tidelog_types::limits::{ARCHIVE_TYPES_MAX, ARCHIVED_EVENTS_MAX};

use crate::message::Bounded;

/// What a client wants of the archive of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveQuestion {
    /// The client's number for it; echoed in the answer.
    pub number: u32,
    /// Which archive has them, as the document says it.
    pub archive: JournalId,
    /// Of aggregates of this name; `None` for all.
    pub aggregate: Option<String>,
    /// Of this one of them; `None` for all.
    pub stream: Option<String>,
    /// Of these types; empty for all. At most [`ARCHIVE_TYPES_MAX`].
    #[serde(deserialize_with = "types")]
    pub types: Vec<String>,
    /// Behind this sequence number.
    pub after: u64,
}

impl ArchiveQuestion {
    /// Bytes of all names in it, at most [`ARCHIVE_NAMES_SIZE_MAX`].
    ///
    /// [`ARCHIVE_NAMES_SIZE_MAX`]: tidelog_types::limits::ARCHIVE_NAMES_SIZE_MAX
    #[must_use]
    pub fn names_size(&self) -> usize {
        let names = self.types.iter().chain(&self.aggregate).chain(&self.stream);
        names.map(String::len).sum()
    }
}

/// What the server answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArchiveAnswer {
    /// These, oldest first.
    Events {
        /// Some of them, at most [`ARCHIVED_EVENTS_MAX`].
        #[serde(deserialize_with = "events")]
        events: Vec<ArchivedEvent>,
        /// Up to which sequence number they are all that are wanted.
        up_to: u64,
    },
    /// That archive is not here.
    Elsewhere,
    /// It cannot be read now.
    Failed {
        /// Why, for a person to read.
        reason: String,
    },
}

/// An event as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedEvent {
    /// Its place among all events of the document.
    pub sequence: u64,
    /// The name of its aggregate.
    pub aggregate: String,
    /// Which of those.
    pub stream: String,
    /// Its place in that.
    pub position: u64,
    /// The name of its type.
    pub name: String,
    /// The version of its data.
    pub version: u32,
    /// What it says; `None` where that was erased.
    pub data: Option<String>,
    /// When it was issued, milliseconds since 1970.
    pub time_ms: i64,
    /// Whose it is.
    pub user: String,
    /// The copy that issued it, in hexadecimal digits.
    pub client: String,
    /// What it was recorded by.
    pub cause: String,
}

impl ArchivedEvent {
    /// About how many bytes it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        let data = self.data.as_ref().map_or(0, String::len);
        let texts = [&self.aggregate, &self.stream, &self.name, &self.user, &self.client];
        128 + data + self.cause.len() + texts.map(|text| text.len()).iter().sum::<usize>()
    }
}

impl ArchiveAnswer {
    /// About how many bytes it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Events { events, .. } => events.iter().map(ArchivedEvent::size).sum(),
            Self::Elsewhere => 0,
            Self::Failed { reason } => reason.len(),
        }
    }
}

fn types<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_seq(Bounded::new(ARCHIVE_TYPES_MAX))
}

fn events<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ArchivedEvent>, D::Error> {
    deserializer.deserialize_seq(Bounded::new(ARCHIVED_EVENTS_MAX))
}
