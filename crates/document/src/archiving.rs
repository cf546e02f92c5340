//! Events that leave their document: they go to its archive, which is a document of the server's
//! own, beside it. What precedes a state that is kept can go, and is read from the archive then.

use tidelog_sqlite::{Reader, Run};
use tidelog_sync::ArchivedEvent;
use tidelog_types::limits::{ARCHIVED_EVENTS_MAX, ARCHIVED_SIZE_MAX};
use tidelog_types::{JournalId, Value};

use crate::events::FoundEvents;
use crate::inspecting::StreamRef;
use crate::{Doctype, StreamDefinition, program};

/// Events of one stream on their way to an archive: a part of those that can go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivePart {
    /// Which stream.
    pub stream: StreamRef,
    /// Which archive has the events before these; `None` where no events of the document have left
    /// it yet.
    pub archive: Option<JournalId>,
    /// How many events of the stream have left before these.
    pub archived: u64,
    /// Those that leave next.
    pub events: Vec<LeavingEvent>,
    /// Whether there may be more behind these.
    pub has_more: bool,
    /// Whether events stay that precede the state, since a run that is not over may wait for them.
    pub is_awaited: bool,
}

/// An event that leaves, as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeavingEvent {
    /// Its place among all events of the document.
    pub sequence: u64,
    /// Its place in its stream.
    pub position: u64,
    /// The name of its type.
    pub name: String,
    /// At which version of that its data are.
    pub version: u32,
    /// What it says; `None` where that was erased.
    pub data: Option<String>,
    /// When it was issued.
    pub time_ms: i64,
    /// Whose it is.
    pub user: String,
    /// The copy that issued it.
    pub client: Vec<u8>,
    /// What it was recorded by.
    pub cause: String,
}

impl LeavingEvent {
    /// The event of such a row: sequence, position, type, version, data, time, user, client, cause.
    pub(crate) fn of_row(row: Vec<Value>) -> Option<Self> {
        let [
            Value::Integer(sequence),
            Value::Integer(position),
            Value::Text(name),
            Value::Integer(version),
            data,
            Value::Integer(time_ms),
            Value::Text(user),
            Value::Blob(client),
            Value::Text(cause),
        ] = <[Value; 9]>::try_from(row).ok()?
        else {
            return None;
        };
        let data = if let Value::Text(data) = data { Some(data) } else { None };
        let (sequence, position) = (sequence.cast_unsigned(), position.cast_unsigned());
        let version = u32::try_from(version).ok()?;
        Some(Self { sequence, position, name, version, data, time_ms, user, client, cause })
    }

    /// The same row, without the place in its stream and that among all.
    pub(crate) fn row(&self) -> [Value; 7] {
        let Self { name, version, data, time_ms, user, client, cause, .. } = self.clone();
        [
            Value::Text(name),
            Value::Integer(version.into()),
            data.map_or(Value::Null, Value::Text),
            Value::Integer(time_ms),
            Value::Text(user),
            Value::Blob(client),
            Value::Text(cause),
        ]
    }
}

impl ArchivePart {
    /// The position of the last of them, or of the last one that left before.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.archived + self.events.len() as u64
    }
}

/// Why no event of a stream leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveRefusal {
    /// The document has no events.
    #[error("the document has no streams")]
    NoStreams,
    /// There is no such stream.
    #[error("no such stream")]
    Unknown,
    /// Nobody has kept what its events come to.
    #[error("no state of it is kept")]
    NoState,
    /// Events of the document are in an archive that is not here: it was made of a file.
    #[error("events of it are in the archive of another document, which it was copied from")]
    Elsewhere,
    /// The document has changed since the events were read.
    #[error("the document has changed meanwhile")]
    Moved,
}

/// Events of an archive, for whoever reads on in the document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchivedEvents {
    /// These, oldest first.
    pub events: Vec<ArchivedEvent>,
    /// Up to which sequence number they are all that are wanted.
    pub up_to: u64,
    /// How many had left, as [`InArchive`](crate::InArchive) says it, when the archive was asked;
    /// `None` where the document was looked through as well, so that it does not matter how many
    /// have left since.
    pub count: Option<u64>,
}

impl ArchivedEvents {
    /// What was found in an archive behind `after`, of which the document has said that so many
    /// had left: as many as one answer has.
    #[must_use]
    pub fn of(found: FoundEvents, after: u64, count: u64) -> Self {
        let count = Some(count);
        let rows = match found {
            FoundEvents::Some(rows) => rows,
            FoundEvents::NoneUpTo(up_to) => return Self { up_to, count, ..Self::default() },
            FoundEvents::None(_) => {
                return Self { up_to: u64::MAX, count, ..Self::default() };
            }
            FoundEvents::Archived(_) => {
                return Self { up_to: after, count, ..Self::default() };
            }
        };
        let (mut events, mut size) = (Vec::new(), 0);
        for event in rows.decode().into_iter().filter_map(archived_event) {
            if events.len() == ARCHIVED_EVENTS_MAX || size >= ARCHIVED_SIZE_MAX {
                break;
            }
            size += event.size();
            events.push(event);
        }
        let up_to = events.last().map_or(after, |event| event.sequence);
        Self { events, up_to, count }
    }

    /// What was found behind `after` in a document and its archive, as one, for whoever has a copy
    /// of that document: as many as one answer has, and none behind `left_up_to`, since nothing of
    /// those has left.
    #[must_use]
    pub fn of_both(found: FoundEvents, after: u64, left_up_to: u64) -> Self {
        let last = if let FoundEvents::None(last) = found { last } else { u64::MAX };
        let Self { mut events, up_to, .. } = Self::of(found, after, 0);
        events.retain(|event| event.sequence <= left_up_to);
        Self { events, up_to: up_to.min(last).min(left_up_to), count: None }
    }
}

/// The event of a row of `tidelog_events`.
fn archived_event(row: Vec<Value>) -> Option<ArchivedEvent> {
    let [
        Value::Integer(sequence),
        Value::Text(aggregate),
        Value::Text(stream),
        Value::Integer(position),
        Value::Text(name),
        Value::Integer(version),
        Value::Text(data),
        Value::Integer(time_ms),
        Value::Text(user),
        Value::Text(client),
        Value::Text(cause),
        Value::Integer(is_erased),
    ] = <[Value; 12]>::try_from(row).ok()?
    else {
        return None;
    };
    Some(ArchivedEvent {
        sequence: sequence.cast_unsigned(),
        aggregate,
        stream,
        position: position.cast_unsigned(),
        name,
        version: u32::try_from(version).ok()?,
        data: (is_erased == 0).then_some(data),
        time_ms,
        user,
        client,
        cause,
    })
}

/// The same row.
pub(crate) fn row_of(event: ArchivedEvent) -> Vec<Value> {
    let is_erased = Value::Integer(event.data.is_none().into());
    vec![
        Value::Integer(event.sequence.cast_signed()),
        Value::Text(event.aggregate),
        Value::Text(event.stream),
        Value::Integer(event.position.cast_signed()),
        Value::Text(event.name),
        Value::Integer(event.version.into()),
        Value::Text(event.data.unwrap_or_else(|| "{}".to_owned())),
        Value::Integer(event.time_ms),
        Value::Text(event.user),
        Value::Text(event.client),
        Value::Text(event.cause),
        is_erased,
    ]
}

/// The doctype of archives: no app's, and no mutation is ever run by it.
#[must_use]
pub fn archive_doctype() -> Doctype {
    let (events, commands) = (Vec::new(), Vec::new());
    let stream = StreamDefinition { name: "archived".to_owned(), events, commands };
    Doctype { name: "archive".to_owned(), streams: vec![stream], ..Doctype::default() }
}

/// Reads those events of a stream that can leave next, a bounded number of them.
pub fn find_archivable(
    reader: &mut Reader,
    stream: &StreamRef,
) -> Run<Result<ArchivePart, ArchiveRefusal>> {
    program::find_archivable(reader, stream)
}
