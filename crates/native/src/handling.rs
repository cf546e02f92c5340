//! What is given to a program to handle, and its attempts at that.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use serde::Deserialize;
use serde_json::Value as Json;
use tidelog_client::{Call, Complete, FromCore, Handling as Asked, Request};
use tidelog_document::{Completion, NewEvent as Recorded, Outcome, TaskKind};
use tidelog_types::limits::INSTANCE_COMMANDS_MAX;
use tidelog_types::{ErrorCode, Outcome as AskedOutcome};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tracing::warn;

use crate::database::Open;
use crate::engine::{Listener, Mail};
use crate::error::{Error, is_passing};
use crate::folds::Folds;
use crate::handler::{CommandContext, Effects, GivenCommand, Handler, HandlerError};
use crate::rows::Rows;

/// After which time an attempt is tried again that nobody could be told of, and the longest.
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_mins(5);

/// A program that handles commands of an aggregate. It ends when it is dropped: what is at work is
/// left to others then, at once.
#[derive(Debug)]
pub struct Handling {
    closing: watch::Sender<bool>,
    ended: watch::Receiver<Option<Result<(), Error>>>,
    worker: AbortHandle,
}

impl Handling {
    /// Begins nothing more, and resolves once what is at work has ended and others may have the
    /// rest.
    ///
    /// # Errors
    ///
    /// [`Error`] if there was nothing to handle any more, and why.
    pub async fn close(self) -> Result<(), Error> {
        self.closing.send_replace(true);
        self.ended().await
    }

    /// Waits until there is nothing to handle any more, as when the document is closed.
    ///
    /// # Errors
    ///
    /// [`Error`], why.
    pub async fn ended(&self) -> Result<(), Error> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().expect("BUG: waited for"),
            Err(_) => Err(Error::engine_ended(AskedOutcome::None)),
        }
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

/// A row of what is given.
#[derive(Clone, Debug, Deserialize)]
struct GivenRow {
    number: u64,
    aggregate: String,
    stream: String,
    name: String,
    args: String,
    key: String,
    time: i64,
    user: String,
    client: String,
    attempt: u64,
    /// How many events the stream had when it was given.
    position: u64,
    /// Whom it was given to.
    instance: u64,
}

/// Which attempt: where a server was restored, others have its number again.
type AttemptName = (u64, u64);

/// What the attempts at commands of one handler share.
struct Work<S> {
    of: Open,
    handler: Handler<S>,
    folds: Folds<S>,
    call: Call,
    is_closing: watch::Receiver<bool>,
}

/// Stops being given anything when it goes.
struct Registered {
    of: Open,
    call: Call,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.of.mailbox().send(Mail::GiveUp { call: self.call });
    }
}

/// Begins to handle commands.
pub(crate) fn handle<S>(of: Open, handler: Handler<S>, concurrency: u32) -> Result<Handling, Error>
where
    S: Clone + Send + Sync + 'static,
{
    let invalid = |message: String| Err(Error::new(ErrorCode::InvalidOption, message));
    let Handler { aggregate, commands, .. } = &handler;
    if concurrency == 0 || concurrency > INSTANCE_COMMANDS_MAX {
        return invalid(format!("concurrency has to be 1 to {INSTANCE_COMMANDS_MAX}"));
    }
    let unknown = commands.keys().find(|name| of.doctype().command(aggregate, name).is_none());
    if let Some(name) = unknown {
        return invalid(format!("{} has no command {name} of {aggregate}", of.doctype().name));
    }
    if commands.is_empty() {
        return invalid(format!("who handles {aggregate} has to name a command"));
    }
    let kind = |name: &String| TaskKind { aggregate: aggregate.clone(), name: name.clone() };
    let asked = Asked { kinds: commands.keys().map(kind).collect(), concurrency };
    let (news, given) = mpsc::unbounded_channel();
    let listener: Listener = Box::new(move |message| {
        // Until it is given up, which whoever has gone has seen to.
        let _ = news.send(message);
        ControlFlow::Continue(())
    });
    let call = of.mailbox().listen(of.handle(), Request::Handle(asked), listener);
    let registered = Registered { of: of.clone(), call };
    let (closing, is_closing) = watch::channel(false);
    let (end, ended) = watch::channel(None);
    let runtime = of.runtime().clone();
    let (folds, aggregate) = (Folds::new(), handler.aggregate.clone());
    let work = Arc::new(Work { of, handler, folds, call, is_closing: is_closing.clone() });
    let working = async move {
        let came_to = Attempts::new(work).work(given, is_closing).await;
        if let Err(error) = &came_to
            && error.code != ErrorCode::DocumentClosed
        {
            warn!(%error, %aggregate, "there are no commands to handle any more");
        }
        // Others may have the rest before whoever waits hears of it.
        drop(registered);
        end.send_replace(Some(came_to));
    };
    Ok(Handling { closing, ended, worker: runtime.spawn(working).abort_handle() })
}

/// The attempts that are at work.
struct Attempts<S> {
    work: Arc<Work<S>>,
    begun: HashMap<u64, (AttemptName, AbortHandle)>,
    /// They end with this.
    running: JoinSet<()>,
}

impl<S: Clone + Send + Sync + 'static> Attempts<S> {
    fn new(work: Arc<Work<S>>) -> Self {
        Self { work, begun: HashMap::new(), running: JoinSet::new() }
    }

    /// Carries out what is given until it is closed, or there is nothing any more.
    async fn work(
        mut self,
        mut given: mpsc::UnboundedReceiver<FromCore>,
        mut is_closing: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let closed = self.work.of.closed();
        tokio::pin!(closed);
        loop {
            let is_done = *is_closing.borrow();
            if is_done && self.running.is_empty() {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = &mut closed => {
                    return Err(Error::new(ErrorCode::DocumentClosed, "the document was closed"));
                }
                // Whoever could close it has dropped it, and this with it.
                _ = is_closing.wait_for(|it| *it), if !is_done => {}
                Some(_) = self.running.join_next() => {}
                message = given.recv() => {
                    match message {
                        Some(FromCore::Rows { rows, .. }) => {
                            self.take(&rows.into(), !is_done)?;
                        }
                        // The document's status says so as well, and it is asked again.
                        Some(FromCore::Failed { failure, .. }) if is_passing(failure.code) => {}
                        Some(FromCore::Failed { failure, .. }) => return Err(failure.into()),
                        Some(_) => {}
                        None => return Err(Error::engine_ended(AskedOutcome::None)),
                    }
                }
            }
        }
    }

    /// All that is given now: what is no longer was taken away.
    fn take(&mut self, rows: &Rows, begins: bool) -> Result<(), Error> {
        let rows: Vec<GivenRow> = rows
            .to()
            .map_err(|error| Error::new(ErrorCode::Engine, format!("no command: {error}")))?;
        let given: HashMap<u64, AttemptName> =
            rows.iter().map(|row| (row.number, (row.attempt, row.instance))).collect();
        self.begun.retain(|number, (attempt, running)| {
            let is_given = given.get(number) == Some(attempt);
            if !is_given {
                running.abort();
            }
            is_given
        });
        for row in rows {
            if !begins || self.begun.contains_key(&row.number) {
                continue;
            }
            let (number, attempt) = (row.number, (row.attempt, row.instance));
            let work = Arc::clone(&self.work);
            let running = self.running.spawn(async move { work.carry_out(row).await });
            self.begun.insert(number, (attempt, running));
        }
        Ok(())
    }
}

impl<S: Clone + Send + Sync> Work<S> {
    /// Until the attempt is over, or counts no longer: where it could not be told what became of
    /// it, it would be nobody's, and nobody would be given it.
    async fn carry_out(&self, row: GivenRow) {
        let GivenRow { number, aggregate, stream, name, key, time, user, client, attempt, .. } =
            row.clone();
        let time_ms = time;
        let command = Arc::new(GivenCommand {
            number,
            aggregate,
            stream,
            name,
            key,
            time_ms,
            user,
            client,
            attempt,
        });
        let (mut backoff, mut is_closing) = (BACKOFF, self.is_closing.clone());
        while let Err(error) = self.attempt(&row, &command).await {
            warn!(%error, ?command, "what became of an attempt cannot be told");
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                // It is left to others.
                _ = is_closing.wait_for(|it| *it) => return,
            }
            backoff = (2 * backoff).min(BACKOFF_MAX);
        }
    }

    /// From the stream's state to what the authority makes of it: anew while that is stale.
    async fn attempt(&self, row: &GivenRow, command: &Arc<GivenCommand>) -> Result<(), Error> {
        let mut least = row.position;
        loop {
            let (position, outcome) = self.outcome(row, command, least).await?;
            let completion =
                Completion { task: row.number, attempt: row.attempt, position, outcome };
            let asked = Complete { handling: self.call, completion };
            let answer = self.of.rows(Request::Complete(asked)).await?;
            let answers: Vec<AnswerRow> = answer.to().unwrap_or_default();
            if answers.first().is_none_or(|it| it.answer != "stale") {
                return Ok(());
            }
            // Others have recorded more: with that it is decided anew.
            least = position + 1;
        }
    }

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
            // An event of a newer release, say, which others may know.
            Ok(Err(error)) => {
                warn!(%error, ?command, "an attempt at a command has failed");
                return Ok((0, failed(&error.to_string(), false)));
            }
            Err(_) => return Ok((0, failed("the program panicked", false))),
        };
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
                Outcome::Completed { events, sends, starts, snapshot: None }
            }
            Err(HandlerError::Failed(reason)) => failed(&reason, true),
            Err(HandlerError::Again(error)) => {
                warn!(%error, ?command, "an attempt at a command has failed");
                failed(&error.to_string(), false)
            }
        };
        Ok((folded.position, outcome))
    }
}

#[derive(Deserialize)]
struct AnswerRow {
    answer: String,
}

fn failed(reason: &str, is_final: bool) -> Outcome {
    Outcome::Failed { reason: reason.to_owned(), is_final }
}
