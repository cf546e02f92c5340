//! What has happened: events of streams, those of before and then those that come.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::Value as Json;
use tidelog_client::{Consumer, Events as Asked, Request};
use tidelog_document::WantedEvents;
use tidelog_types::ErrorCode;

use crate::database::Open;
use crate::error::Error;
use crate::rows::Rows;

/// Which events are wanted, and until when.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct EventsFilter {
    wanted: WantedEvents,
    consumer: Option<String>,
    ends: bool,
}

impl EventsFilter {
    /// All events of a document.
    pub fn all() -> Self {
        Self::default()
    }

    /// Those of all streams of an aggregate.
    pub fn of(aggregate: impl Into<String>) -> Self {
        let wanted = WantedEvents { aggregate: Some(aggregate.into()), ..WantedEvents::default() };
        Self { wanted, ..Self::default() }
    }

    /// Of this stream alone.
    pub fn stream(mut self, stream: impl Into<String>) -> Self {
        self.wanted.stream = Some(stream.into());
        self
    }

    /// Of these types alone.
    pub fn types<T: Into<String>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.wanted.types = types.into_iter().map(Into::into).collect();
        self
    }

    /// Behind this sequence number.
    pub fn after(mut self, sequence: u64) -> Self {
        self.wanted.after = sequence;
        self
    }

    /// Goes on behind those that were dealt with under this name before, in this copy of the
    /// document: each event at least once, and again where the process ended meanwhile. An event is
    /// dealt with when the next one is asked for.
    pub fn consumer(mut self, name: impl Into<String>) -> Self {
        self.consumer = Some(name.into());
        self
    }

    /// Ends behind the last one that there is, in place of waiting for others.
    pub fn until_now(mut self) -> Self {
        self.ends = true;
        self
    }
}

/// An event as it was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its place among all events of the document, from 1, without gaps.
    pub sequence: u64,
    /// The name of its aggregate.
    pub aggregate: String,
    /// Which of those.
    pub stream: String,
    /// Its place among the events of that, from 1, without gaps.
    pub position: u64,
    /// The name of its type.
    pub kind: String,
    /// The version of its data, from 1.
    pub version: u32,
    /// What it says, an object; an empty one where that was erased.
    pub data: Json,
    /// Whether somebody has erased what it said.
    pub is_erased: bool,
    /// When it was issued, milliseconds since the epoch by the clock of that device.
    pub time_ms: i64,
    /// Whose it is.
    pub user: String,
    /// The copy that issued it, in hexadecimal digits.
    pub client: String,
    /// What it was recorded by: `mutation:` or `command:` and which, or `append`.
    pub cause: String,
}

#[derive(Deserialize)]
struct EventRow {
    sequence: u64,
    aggregate: String,
    stream: String,
    position: u64,
    #[serde(rename = "type")]
    kind: String,
    version: u32,
    data: String,
    erased: bool,
    time: i64,
    user: String,
    client: String,
    cause: String,
}

/// The events in these rows.
pub(crate) fn events_of(rows: &Rows) -> Result<Vec<Event>, Error> {
    let odd = |what: String| Error::new(ErrorCode::Engine, format!("no event was told: {what}"));
    let rows: Vec<EventRow> = rows.to().map_err(|error| odd(error.to_string()))?;
    let event = |row: EventRow| {
        let EventRow { sequence, aggregate, stream, position, kind, version, user, client, .. } =
            row;
        let data = serde_json::from_str(&row.data).map_err(|error| odd(error.to_string()))?;
        let (is_erased, time_ms, cause) = (row.erased, row.time, row.cause);
        Ok(Event {
            sequence,
            aggregate,
            stream,
            position,
            kind,
            version,
            data,
            is_erased,
            time_ms,
            user,
            client,
            cause,
        })
    };
    rows.into_iter().map(event).collect()
}

/// Events in the order of their sequence numbers, those that the authority has recorded.
#[derive(Debug)]
pub struct Events {
    of: Open,
    wanted: WantedEvents,
    consumer: Option<Consumer>,
    waits: bool,
    found: VecDeque<Event>,
    has_ended: bool,
}

impl Events {
    pub(crate) fn new(of: Open, EventsFilter { wanted, consumer, ends }: EventsFilter) -> Self {
        let consumer = consumer.map(|name| Consumer { name, begins: true });
        Self { of, wanted, consumer, waits: !ends, found: VecDeque::new(), has_ended: false }
    }

    /// Waits for the next event. `None` behind the last one, where only those of until now are
    /// wanted.
    ///
    /// # Errors
    ///
    /// [`Error`], as once the document is closed. Asked again it goes on where it was.
    pub async fn next(&mut self) -> Option<Result<Event, Error>> {
        if self.found.is_empty() && !self.has_ended {
            match self.find().await {
                Ok(found) => self.found = found.into(),
                Err(error) => return Some(Err(error)),
            }
        }
        let event = self.found.pop_front()?;
        self.wanted.after = event.sequence;
        Some(Ok(event))
    }

    async fn find(&mut self) -> Result<Vec<Event>, Error> {
        let (wanted, waits) = (self.wanted.clone(), self.waits);
        let asked = Asked { wanted, waits, consumer: self.consumer.clone() };
        let found = events_of(&self.of.rows(Request::Events(asked)).await?)?;
        self.has_ended = found.is_empty();
        if let Some(consumer) = &mut self.consumer {
            consumer.begins = false;
        }
        Ok(found)
    }
}
