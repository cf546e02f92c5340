//! Events as SQL inserts them: into a view, whose trigger calls a function, which notes them here.
//! Whoever runs the statement records them once it has ended, so that all that an event needs
//! besides is known there and nowhere in SQL.

use tidelog_types::limits::EVENT_SIZE_MAX;

use crate::failure::Failure;

/// The view of all events, the trigger for what is inserted there, and the function that it calls.
pub const EVENTS_VIEW: &str = "tidelog_events";
/// See [`EVENTS_VIEW`].
pub const EVENTS_TRIGGER: &str = "tidelog_events_insert";
/// See [`EVENTS_VIEW`].
pub const EVENTS_FUNCTION: &str = "tidelog_insert_event";

/// The views of what is recorded of events and tasks, and the tables that they read.
pub(crate) const VIEWS: [&str; 8] = [
    EVENTS_VIEW,
    "tidelog_streams",
    "tidelog_commands",
    "tidelog_workflows",
    "tidelog_records",
    "tidelog_requests",
    "tidelog_instances",
    "tidelog_snapshots",
];
/// See [`VIEWS`].
pub(crate) const TABLES: [&str; 6] = [
    "_tidelog_event",
    "_tidelog_stream",
    "_tidelog_task",
    "_tidelog_record",
    "_tidelog_instance",
    "_tidelog_snapshot",
];

/// An event that a statement has inserted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsertedEvent {
    /// The name of its aggregate.
    pub aggregate: String,
    /// Which of those.
    pub stream: String,
    /// The name of its type.
    pub name: String,
    /// What it says, as JSON, if that is some.
    pub data: String,
}

impl InsertedEvent {
    /// An event of these, or how much too large it would be.
    ///
    /// # Errors
    ///
    /// A failure for what no event has.
    pub fn of_texts(
        aggregate: &str,
        stream: &str,
        name: &str,
        data: &str,
    ) -> Result<Self, Failure> {
        Self::new([aggregate, stream, name, data].map(|it| Some(it.as_bytes())))
    }

    /// An event of these, which the values of a row are to be.
    pub(crate) fn new(
        [aggregate, stream, name, data]: [Option<&[u8]>; 4],
    ) -> Result<Self, Failure> {
        let size: usize = [aggregate, stream, name, data].iter().flatten().map(|it| it.len()).sum();
        if size > EVENT_SIZE_MAX {
            return Err(Failure::budget(format!("{EVENT_SIZE_MAX} bytes of an event")));
        }
        let text = |what: &str, bytes: Option<&[u8]>| match bytes {
            Some(bytes) if !bytes.is_empty() => Ok(String::from_utf8_lossy(bytes).into_owned()),
            _ => Err(Failure::sql(format!("an event is inserted with its {what}"))),
        };
        Ok(Self {
            aggregate: text("aggregate", aggregate)?,
            stream: text("stream", stream)?,
            name: text("type", name)?,
            data: text("data", data.or(Some(b"{}")))?,
        })
    }

    pub(crate) fn size(&self) -> usize {
        let Self { aggregate, stream, name, data } = self;
        size_of::<Self>() + aggregate.len() + stream.len() + name.len() + data.len()
    }
}
