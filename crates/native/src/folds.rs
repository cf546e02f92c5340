//! The states of streams: what their events come to, from where they were looked at last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidelog_client::{Events as Asked, Request};
use tidelog_document::WantedEvents;
use tidelog_types::ErrorCode;

use crate::database::Open;
use crate::error::Error;
use crate::events::{Event, events_of};
use crate::handler::Handler;

/// Streams whose states are kept, those that were asked for last.
const STATES_MAX: usize = 1_024;

/// The state of a stream after so many events.
pub(crate) struct Folded<S> {
    pub(crate) state: Arc<S>,
    /// How many.
    pub(crate) position: u64,
    /// The last one, by which it is told apart from one that took its place when a server was
    /// restored.
    last: Option<Event>,
}

impl<S> Clone for Folded<S> {
    fn clone(&self) -> Self {
        let Self { state, position, last } = self;
        Self { state: Arc::clone(state), position: *position, last: last.clone() }
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
            let after = folded.last.as_ref().map_or(0, |last| last.sequence);
            let events = read(of, handler, stream, after, true).await?;
            if events.first().is_some_and(|it| it.position != folded.position + 1) {
                // A server was restored meanwhile: that is another history.
                folded = nothing_yet(handler);
                continue;
            }
            fold(of, handler, &mut folded, events)?;
        }
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).keep(stream, folded.clone());
        Ok(folded)
    }

    /// What is known of a stream, brought to what there is now; or the state of one in which
    /// nothing has happened.
    async fn known(
        &self,
        of: &Open,
        handler: &Handler<S>,
        stream: &str,
    ) -> Result<Folded<S>, Error> {
        let known = self.kept.lock().unwrap_or_else(PoisonError::into_inner).states.remove(stream);
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
        Ok(nothing_yet(handler))
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

/// The state of a stream in which nothing has happened.
fn nothing_yet<S: Clone>(handler: &Handler<S>) -> Folded<S> {
    Folded { state: Arc::new(handler.initial.clone()), position: 0, last: None }
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
        folded.position = event.position;
        folded.last = Some(event);
    }
    folded.state = Arc::new(state);
    Ok(())
}
