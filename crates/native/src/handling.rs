//! Deciding commands: from the state of a stream to what the authority makes of it.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use serde_json::Value as Json;
use tidelog_document::{NewEvent as Recorded, NewSnapshot, Outcome};
use tidelog_types::ErrorCode;
use tracing::warn;

use crate::attempts::{self, Attempt, GivenRow, Handling, Work};
use crate::database::Open;
use crate::error::Error;
use crate::folds::{Folded, Folds};
use crate::handler::{CommandContext, Effects, GivenCommand, Handler, HandlerError};

/// How the commands of an aggregate are decided.
struct Deciding<S> {
    of: Open,
    handler: Handler<S>,
    folds: Folds<S>,
}

/// Begins to handle commands.
pub(crate) fn handle<S>(of: Open, handler: Handler<S>, concurrency: u32) -> Result<Handling, Error>
where
    S: Clone + Send + Sync + 'static,
{
    let invalid = |message: String| Err(Error::new(ErrorCode::InvalidOption, message));
    let Handler { aggregate, commands, .. } = &handler;
    let unknown = commands.keys().find(|name| of.doctype().command(aggregate, name).is_none());
    if let Some(name) = unknown {
        return invalid(format!("{} has no command {name} of {aggregate}", of.doctype().name));
    }
    if let Some(flaw) = handler.keeping.as_ref().and_then(|keeping| keeping.flaw()) {
        return invalid(flaw);
    }
    let kinds = (aggregate.clone(), commands.keys().cloned().collect());
    let deciding = Deciding { of: of.clone(), handler, folds: Folds::new() };
    attempts::handle(of, kinds, concurrency, deciding)
}

impl<S: Clone + Send + Sync + 'static> Work for Deciding<S> {
    /// From the stream's state to what the authority makes of it: anew while that is stale.
    async fn carry_out(&self, attempt: &Attempt) -> Result<(), Error> {
        let row = &attempt.row;
        let command = Arc::new(GivenCommand::of(row));
        let mut least = row.position;
        loop {
            let (position, outcome) = self.outcome(row, &command, least).await?;
            let keeps = matches!(&outcome, Outcome::Completed { snapshot: Some(_), .. });
            let answer = attempt.complete(position, outcome).await?;
            if !answer.is_stale() {
                if keeps && answer.is_done() {
                    self.folds.note_snapshot(&row.stream, position);
                }
                return Ok(());
            }
            // Others have recorded more: with that it is decided anew.
            least = position + 1;
        }
    }
}

impl<S: Clone + Send + Sync> Deciding<S> {
    /// What an attempt comes to, by how many events.
    async fn outcome(
        &self,
        row: &GivenRow,
        command: &Arc<GivenCommand>,
        least: u64,
    ) -> Result<(u64, Outcome), Error> {
        let effects = Arc::new(Mutex::new(Some(Effects::default())));
        let folding = self.folds.state_of(&self.of, &self.handler, &row.stream, least);
        // What evolves is the program's too.
        let folded = match AssertUnwindSafe(folding).catch_unwind().await {
            Ok(Ok(folded)) => folded,
            Ok(Err(error)) if error.is_passing() => return Err(error),
            Ok(Err(error)) if error.code == ErrorCode::DocumentClosed => return Err(error),
            // It is the archive that is away, and no failure of the command.
            Ok(Err(error)) if error.code == ErrorCode::Archived => return Err(error),
            // An event of a newer release, which others may know.
            Ok(Err(error)) if error.code == ErrorCode::DoctypeMismatch => {
                warn!(%error, ?command, "a command is left to others");
                return Ok((0, Outcome::Stopped { reason: error.to_string() }));
            }
            Ok(Err(error)) => {
                warn!(%error, ?command, "an attempt at a command has failed");
                return Ok((0, failed(&error.to_string(), false)));
            }
            Err(_) => return Ok((0, failed("the program panicked", false))),
        };
        let snapshot = self.snapshot_of(&row.stream, &folded);
        let ctx = CommandContext {
            state: folded.state,
            command: Arc::clone(command),
            effects: Arc::clone(&effects),
        };
        let args: Json = serde_json::from_str(&row.args).unwrap_or_default();
        let decide = async { (self.handler.commands[&row.name])(ctx, args).await };
        let decided = match AssertUnwindSafe(decide).catch_unwind().await {
            Ok(decided) => decided,
            Err(_) => Err(HandlerError::Again("the handler panicked".into())),
        };
        let outcome = match decided {
            Ok(events) => {
                let odd = events
                    .iter()
                    .find(|it| self.of.doctype().event(&command.aggregate, &it.kind).is_none());
                if let Some(odd) = odd {
                    let reason = format!("{} has no event {}", command.aggregate, odd.kind);
                    warn!(%reason, ?command, "a command has failed");
                    return Ok((folded.position, failed(&reason, true)));
                }
                let event = |it: crate::NewEvent| Recorded { name: it.kind, data: it.data };
                let events = events.into_iter().map(event).collect();
                let effects = effects.lock().unwrap_or_else(PoisonError::into_inner).take();
                let Effects { sends, starts } = effects.unwrap_or_default();
                Outcome::Completed { events, sends, starts, snapshot }
            }
            Err(HandlerError::Failed(reason)) => failed(&reason, true),
            Err(HandlerError::Again(error)) => {
                warn!(%error, ?command, "an attempt at a command has failed");
                failed(&error.to_string(), false)
            }
        };
        Ok((folded.position, outcome))
    }

    /// What is to be kept of the state. That it cannot be is no failure of the command.
    fn snapshot_of(&self, stream: &str, folded: &Folded<S>) -> Option<NewSnapshot> {
        let aggregate = &self.handler.aggregate;
        match self.folds.snapshot_of(&self.handler, stream, folded) {
            Ok(snapshot) => snapshot,
            Err(why) => {
                warn!(%why, %aggregate, %stream, "a state is not kept");
                None
            }
        }
    }
}

fn failed(reason: &str, is_final: bool) -> Outcome {
    Outcome::Failed { reason: reason.to_owned(), is_final }
}
