//! What is given to a program to handle, commands or runs, and its attempts at that.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde::Deserialize;
use tidelog_client::{Call, Complete, FromCore, Handling as Asked, Request};
use tidelog_document::{Completion, InstanceId, TaskKind};
use tidelog_types::limits::{INSTANCE_COMMANDS_MAX, INSTANCE_KINDS_MAX};
use tidelog_types::{ErrorCode, Outcome};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tracing::warn;

use crate::database::Open;
use crate::engine::{Listener, Mail};
use crate::error::{Error, is_passing};
use crate::rows::Rows;

/// After which time an attempt is tried again that nobody could be told of, and the longest.
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_mins(5);

/// A program that handles commands of an aggregate, or runs of a workflow. It ends when it is
/// dropped: what is at work is left to others then, at once.
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
            Err(_) => Err(Error::engine_ended(Outcome::None)),
        }
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

/// A row of what is given: a command, or a run of the workflow `aggregate`, whose id is `stream`,
/// and whose version `name`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct GivenRow {
    pub(crate) number: u64,
    pub(crate) aggregate: String,
    pub(crate) stream: String,
    pub(crate) name: String,
    pub(crate) args: String,
    pub(crate) key: String,
    pub(crate) time: i64,
    pub(crate) user: String,
    pub(crate) client: String,
    pub(crate) attempt: u64,
    /// How many events the stream of a command had when it was given.
    pub(crate) position: u64,
    /// Whether a run is to hear that it was cancelled.
    is_cancelled: bool,
    /// Whom it was given to.
    instance: u64,
}

/// Which attempt: where a server was restored, others have its number again.
type AttemptName = (u64, u64);

/// What is handled, and how.
pub(crate) trait Work: Send + Sync + 'static {
    /// Carries out one attempt until it is over. It is dropped once it counts no longer.
    ///
    /// # Errors
    ///
    /// [`Error`] if nobody could be told what became of it: it is carried out again then.
    fn carry_out(&self, attempt: &Attempt) -> impl Future<Output = Result<(), Error>> + Send;
}

/// One attempt at a command or a run.
pub(crate) struct Attempt {
    of: Open,
    /// The call by which it was given.
    handling: Call,
    /// As it was given first.
    pub(crate) row: GivenRow,
    /// Whether the run is to hear that it was cancelled: that may come while it is at work.
    pub(crate) is_cancelled: watch::Receiver<bool>,
}

/// What the authority says of a completion.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    answer: String,
    /// The authority's time, milliseconds since the epoch.
    pub(crate) time: i64,
}

impl Answer {
    /// It is written down.
    pub(crate) fn is_done(&self) -> bool {
        self.answer == "done"
    }

    /// Others have recorded more events meanwhile: it is to be decided anew.
    pub(crate) fn is_stale(&self) -> bool {
        self.answer == "stale"
    }
}

impl Attempt {
    /// Tells the authority what the attempt came to, or has come to so far; of a command, by how
    /// many events of its stream.
    pub(crate) async fn complete(
        &self,
        position: u64,
        outcome: tidelog_document::Outcome,
    ) -> Result<Answer, Error> {
        let (task, attempt) = (self.row.number, self.row.attempt);
        let instance = InstanceId(self.row.instance);
        let completion = Completion { task, attempt, position, outcome };
        let asked = Complete { handling: self.handling, instance, completion };
        let rows = self.of.rows(Request::Complete(asked)).await?;
        let answer = rows.to().ok().and_then(|mut answers: Vec<Answer>| answers.pop());
        answer.ok_or_else(|| Error::new(ErrorCode::Engine, "the engine answered something else"))
    }
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

/// Begins to handle tasks of these names of an aggregate or a workflow.
pub(crate) fn handle(
    of: Open,
    (aggregate, names): (String, Vec<String>),
    concurrency: u32,
    work: impl Work,
) -> Result<Handling, Error> {
    let invalid = |message: String| Err(Error::new(ErrorCode::InvalidOption, message));
    if concurrency == 0 || concurrency > INSTANCE_COMMANDS_MAX {
        return invalid(format!("concurrency has to be 1 to {INSTANCE_COMMANDS_MAX}"));
    }
    if names.is_empty() || names.len() > INSTANCE_KINDS_MAX {
        let most = INSTANCE_KINDS_MAX;
        return invalid(format!("who handles {aggregate} names 1 to {most} commands or versions"));
    }
    let kind = |name: String| TaskKind { aggregate: aggregate.clone(), name };
    let asked = Asked { kinds: names.into_iter().map(kind).collect(), concurrency };
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
    let working = async move {
        let came_to = Attempts::new(of, call, work, is_closing).work(given).await;
        if let Err(error) = &came_to
            && error.code != ErrorCode::DocumentClosed
        {
            warn!(%error, %aggregate, "there is nothing to handle any more");
        }
        // Others may have the rest before whoever waits hears of it.
        drop(registered);
        end.send_replace(Some(came_to));
    };
    Ok(Handling { closing, ended, worker: runtime.spawn(working).abort_handle() })
}

/// The attempts that are at work.
struct Attempts<W> {
    of: Open,
    call: Call,
    work: Arc<W>,
    is_closing: watch::Receiver<bool>,
    begun: HashMap<u64, Begun>,
    /// They end with this.
    running: JoinSet<()>,
}

/// An attempt that was begun, and may be over.
struct Begun {
    name: AttemptName,
    running: AbortHandle,
    is_cancelled: watch::Sender<bool>,
}

impl<W: Work> Attempts<W> {
    fn new(of: Open, call: Call, work: W, is_closing: watch::Receiver<bool>) -> Self {
        let (work, begun, running) = (Arc::new(work), HashMap::new(), JoinSet::new());
        Self { of, call, work, is_closing, begun, running }
    }

    /// Carries out what is given until it is closed, or there is nothing any more.
    async fn work(mut self, mut given: mpsc::UnboundedReceiver<FromCore>) -> Result<(), Error> {
        let closed = self.of.closed();
        let mut is_closing = self.is_closing.clone();
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
                        None => return Err(Error::engine_ended(Outcome::None)),
                    }
                }
            }
        }
    }

    /// All that is given now: what is no longer was taken away.
    fn take(&mut self, rows: &Rows, begins: bool) -> Result<(), Error> {
        let rows: Vec<GivenRow> = rows
            .to()
            .map_err(|error| Error::new(ErrorCode::Engine, format!("nothing given: {error}")))?;
        let given: HashSet<(u64, AttemptName)> =
            rows.iter().map(|row| (row.number, (row.attempt, row.instance))).collect();
        self.begun.retain(|number, begun| {
            let is_given = given.contains(&(*number, begun.name));
            if !is_given {
                begun.running.abort();
            }
            is_given
        });
        for row in rows {
            if let Some(begun) = self.begun.get(&row.number) {
                begun.is_cancelled.send_replace(row.is_cancelled);
            } else if begins {
                self.begin(row);
            }
        }
        Ok(())
    }

    fn begin(&mut self, row: GivenRow) {
        let (number, name) = (row.number, (row.attempt, row.instance));
        let (cancel, is_cancelled) = watch::channel(row.is_cancelled);
        let attempt = Attempt { of: self.of.clone(), handling: self.call, row, is_cancelled };
        let (work, is_closing) = (Arc::clone(&self.work), self.is_closing.clone());
        let running = self.running.spawn(carry_out(work, attempt, is_closing));
        self.begun.insert(number, Begun { name, running, is_cancelled: cancel });
    }
}

/// Until the attempt is over, or counts no longer: where it could not be told what became of it, it
/// would be nobody's, and nobody would be given it.
async fn carry_out<W: Work>(work: Arc<W>, attempt: Attempt, mut is_closing: watch::Receiver<bool>) {
    let mut backoff = BACKOFF;
    loop {
        // What the program has given may panic as it is dropped, too.
        let carried = AssertUnwindSafe(work.carry_out(&attempt)).catch_unwind().await;
        let panicked = |_| Err(Error::new(ErrorCode::Engine, "the program has panicked"));
        let Err(error) = carried.unwrap_or_else(panicked) else { return };
        let GivenRow { number, aggregate, .. } = &attempt.row;
        warn!(%error, number, %aggregate, "what became of an attempt cannot be told");
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            // It is left to others.
            _ = is_closing.wait_for(|it| *it) => return,
        }
        backoff = (2 * backoff).min(BACKOFF_MAX);
    }
}
