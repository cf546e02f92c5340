//! The states of streams: what their events come to, from where they were looked at last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use tidelog_client::{Events as Asked, Query, Request};
use tidelog_document::{NewSnapshot, WantedEvents};
use tidelog_types::{ErrorCode, Value};

use crate::database::Open;
use crate::error::Error;
use crate::events::{Event, events_of};
use crate::handler::Handler;

/// Streams whose states are kept here, those that were asked for last.
const STATES_MAX: usize = 1_024;

/// Events after which a state is kept in the document again, where the program wants that.
const SNAPSHOT_EVENTS: u64 = 1_000;

const SNAPSHOT: &str = "select state, position, sequence from tidelog_snapshots
    where aggregate = ? and stream = ? and name = ?";

/// The state of a stream after so many events.
pub(crate) struct Folded<S> {
    pub(crate) state: Arc<S>,
    /// How many.
    pub(crate) position: u64,
    /// The last one's place among all events of the document.
    sequence: u64,
    /// That one, by which it is told apart from one that took its place when a server was restored.
    /// `None` of the one behind which a snapshot stands, which went back with the document.
    last: Option<Event>,
    /// After how many events the document has kept a state, as far as is known here.
    snapshot_at: u64,
}

impl<S> Clone for Folded<S> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), last: self.last.clone(), ..*self }
    }
}

/// The states of an aggregate's streams.
pub(crate) struct Folds<S> {
    kept: Mutex<Kept<S>>,
}

struct Kept<S> {
    /// By stream, with when it was asked for.
    states: HashMap<String, (u64, Folded<S>)>,
    asked: u64,
}

#[derive(Deserialize)]
struct SnapshotRow {
    state: String,
    position: u64,
    sequence: u64,
}

impl<S: Clone> Folds<S> {
    pub(crate) fn new() -> Self {
        Self { kept: Mutex::new(Kept { states: HashMap::new(), asked: 0 }) }
    }

    /// The state of a stream by `least` events or more: it waits for those that are yet to come.
    pub(crate) async fn state_of(
        &self,
        of: &Open,
        handler: &Handler<S>,
        stream: &str,
        least: u64,
    ) -> Result<Folded<S>, Error> {
        let mut folded = self.known(of, handler, stream).await?;
        while folded.position < least {
            if folded.last.is_some() {
                // Whoever asks again goes on from here: an attempt has no time for a stream of any
                // length.
                self.kept().keep(stream, folded.clone());
            }
            let events = read(of, handler, stream, folded.sequence, true).await?;
            if events.first().is_some_and(|it| it.position != folded.position + 1) {
                // A server was restored meanwhile: that is another history.
                folded = begun(of, handler, stream).await?;
                continue;
            }
            fold(of, handler, &mut folded, events)?;
        }
        // By an event that was read here it is known again.
        if folded.last.is_some() {
            self.kept().keep(stream, folded.clone());
        }
        Ok(folded)
    }

    /// What of a state the document is to keep now, if anything.
    ///
    /// # Errors
    ///
    /// Why it cannot be kept, which is said once.
    pub(crate) fn snapshot_of(
        &self,
        handler: &Handler<S>,
        stream: &str,
        folded: &Folded<S>,
    ) -> Result<Option<NewSnapshot>, String> {
        let Some(keeping) = &handler.keeping else { return Ok(None) };
        let Folded { state, position, snapshot_at, last, .. } = folded;
        if last.is_none() || position.saturating_sub(*snapshot_at) < SNAPSHOT_EVENTS {
            return Ok(None);
        }
        keeping.write(state).map(Some).inspect_err(|_| self.note_snapshot(stream, *position))
    }

    /// The document has kept that.
    pub(crate) fn note_snapshot(&self, stream: &str, position: u64) {
        if let Some((_, folded)) = self.kept().states.get_mut(stream) {
            folded.snapshot_at = position;
        }
    }

    /// What is known of a stream, brought to what there is now; or from where it is folded.
    async fn known(
        &self,
        of: &Open,
        handler: &Handler<S>,
        stream: &str,
    ) -> Result<Folded<S>, Error> {
        let known = self.kept().states.get(stream).cloned();
        if let Some((_, mut folded)) = known
            && let Some(last) = &folded.last
        {
            let mut events = read(of, handler, stream, last.sequence - 1, false).await?;
            if events.first() == Some(last) {
                events.remove(0);
                fold(of, handler, &mut folded, events)?;
                return Ok(folded);
            }
        }
        begun(of, handler, stream).await
    }

    fn kept(&self) -> MutexGuard<'_, Kept<S>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Kept<S> {
    fn keep(&mut self, stream: &str, folded: Folded<S>) {
        self.asked += 1;
        self.states.insert(stream.to_owned(), (self.asked, folded));
        if self.states.len() > STATES_MAX {
            let oldest = self.states.iter().min_by_key(|(_, (asked, _))| *asked);
            let oldest = oldest.map(|(stream, _)| stream.clone());
            oldest.and_then(|stream| self.states.remove(&stream));
        }
    }
}

/// From where a stream is folded that is not known here: the state that the document has kept, or
/// that of a stream in which nothing has happened.
async fn begun<S: Clone>(
    of: &Open,
    handler: &Handler<S>,
    stream: &str,
) -> Result<Folded<S>, Error> {
    if let Some(keeping) = &handler.keeping {
        let texts = [handler.aggregate.as_str(), stream, &keeping.name];
        let params: Vec<Value> = texts.map(|it| Value::Text(it.to_owned())).into();
        let query = Query { sql: SNAPSHOT.to_owned(), params: params.into() };
        let rows = of.rows(Request::Query(query)).await?;
        let kept: Vec<SnapshotRow> = rows.to().unwrap_or_default();
        if let Some(SnapshotRow { state, position, sequence }) = kept.into_iter().next()
            && let Some(state) = keeping.read(&state)
        {
            let state = Arc::new(state);
            return Ok(Folded { state, position, sequence, last: None, snapshot_at: position });
        }
    }
    let state = Arc::new(handler.initial.clone());
    Ok(Folded { state, position: 0, sequence: 0, last: None, snapshot_at: 0 })
}

async fn read<S>(
    of: &Open,
    handler: &Handler<S>,
    stream: &str,
    after: u64,
    waits: bool,
) -> Result<Vec<Event>, Error> {
    let (aggregate, stream) = (Some(handler.aggregate.clone()), Some(stream.to_owned()));
    let wanted = WantedEvents { aggregate, stream, types: Vec::new(), after };
    let asked = Asked { wanted, waits, consumer: None };
    events_of(&of.rows(Request::Events(asked)).await?)
}

fn fold<S: Clone>(
    of: &Open,
    handler: &Handler<S>,
    folded: &mut Folded<S>,
    events: Vec<Event>,
) -> Result<(), Error> {
    let mut state = S::clone(&folded.state);
    for event in events {
        let Event { kind, version, .. } = &event;
        let known = of.doctype().event(&handler.aggregate, kind);
        if known.is_none_or(|known| *version > known.version()) {
            let message = format!(
                "this release knows no event {kind} of version {version}: deploy a newer one"
            );
            return Err(Error::new(ErrorCode::DoctypeMismatch, message));
        }
        state = (handler.evolve)(state, &event);
        (folded.position, folded.sequence) = (event.position, event.sequence);
        folded.last = Some(event);
    }
    folded.state = Arc::new(state);
    Ok(())
}
