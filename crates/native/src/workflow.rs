//! How a program has runs of a workflow go on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidelog_types::ErrorCode;

use crate::attempts::{self, Attempt, GivenRow, Handling, Work};
use crate::commands::CommandName;
use crate::database::{Database, Open};
use crate::error::Error;
use crate::progress::Progress;
use crate::records::read_records;
use crate::run::{Driver, Running, Shared};
use crate::run_context::WorkflowContext;
use crate::trying::json_of;

type Code =
    Box<dyn Fn(WorkflowContext, &str) -> Result<Running<'static>, serde_json::Error> + Send + Sync>;

impl Database {
    /// Has runs of a workflow go on, up to `concurrency` at a time, at most 1,024. Whoever handles
    /// is given runs by the authority; several share them, whether they are pages, Node or Rust.
    ///
    /// # Errors
    ///
    /// [`Error`] of code `InvalidOption` if the doctype has no such workflow, or not that version.
    pub fn handle_workflow(&self, workflow: Workflow, concurrency: u32) -> Result<Handling, Error> {
        self.open.must_be_open()?;
        handle(self.open.clone(), workflow, concurrency)
    }
}

/// How runs of a workflow go on: an async function, or one for each version.
///
/// ```no_run
/// use std::time::Duration;
///
/// use serde::Deserialize;
/// use tidelog_native::{Database, Workflow};
///
/// #[derive(Deserialize)]
/// struct Fulfil {
///     order: String,
/// }
///
/// # fn handle(db: &Database) -> Result<(), tidelog_native::Error> {
/// let fulfil = Workflow::new("fulfil", async |ctx, Fulfil { order }| {
///     ctx.send("order", "pay", &order, &serde_json::json!({})).await?;
///     let week = Duration::from_secs(7 * 24 * 3600);
///     if ctx.wait_for("order", &order, "shipped", week).await?.is_none() {
///         return Err(ctx.fail("nobody has shipped it"));
///     }
///     Ok("shipped")
/// });
/// let handling = db.handle_workflow(fulfil, 16)?;
/// # Ok(())
/// # }
/// ```
///
/// The function is run from its beginning each time that a run goes on. What it has done by its
/// context it does not do again: it is given what the run remembers of that. So what it does
/// besides has to come to the same each time.
#[must_use]
pub struct Workflow {
    name: String,
    /// By version; `None` is that of the doctype.
    codes: BTreeMap<Option<u32>, Code>,
}

impl Workflow {
    /// By this function runs of the doctype's version go on. A run that was started with another
    /// one is left to others: see [`Workflow::version`].
    pub fn new<A, T, F, C>(workflow: impl Into<String>, code: C) -> Self
    where
        A: DeserializeOwned,
        T: Serialize,
        F: Future<Output = Result<T, WorkflowError>> + Send + 'static,
        C: Fn(WorkflowContext, A) -> F + Send + Sync + 'static,
    {
        Self::versions(workflow).with(None, code)
    }

    /// By functions that are named next, by [`Workflow::version`].
    pub fn versions(workflow: impl Into<String>) -> Self {
        Self { name: workflow.into(), codes: BTreeMap::new() }
    }

    /// By this function runs go on that were started with that version, from 1.
    pub fn version<A, T, F, C>(self, version: u32, code: C) -> Self
    where
        A: DeserializeOwned,
        T: Serialize,
        F: Future<Output = Result<T, WorkflowError>> + Send + 'static,
        C: Fn(WorkflowContext, A) -> F + Send + Sync + 'static,
    {
        self.with(Some(version), code)
    }

    fn with<A, T, F, C>(mut self, version: Option<u32>, code: C) -> Self
    where
        A: DeserializeOwned,
        T: Serialize,
        F: Future<Output = Result<T, WorkflowError>> + Send + 'static,
        C: Fn(WorkflowContext, A) -> F + Send + Sync + 'static,
    {
        let code: Code = Box::new(move |ctx, args| {
            let running = code(ctx, serde_json::from_str(args)?);
            Ok(Box::pin(async move { json_of(&running.await?).map_err(WorkflowError::Failed) }))
        });
        self.codes.insert(version, code);
        self
    }
}

impl fmt::Debug for Workflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions: Vec<&Option<u32>> = self.codes.keys().collect();
        f.debug_struct("Workflow").field("name", &self.name).field("versions", &versions).finish()
    }
}

/// A run as it is given to a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenRun {
    /// Its place among all commands and runs of the document, from 1; another one as it goes on as
    /// new.
    pub number: u64,
    /// The workflow's name.
    pub workflow: String,
    /// Which run of it.
    pub id: String,
    /// The version that it was started with.
    pub version: u32,
    /// When it was started, milliseconds since the epoch by the clock of that device.
    pub time_ms: i64,
    /// Who has started it.
    pub user: String,
    /// The copy that has started it, in hexadecimal digits.
    pub client: String,
    /// Which attempt this is, from 1: each time that it goes on is one.
    pub attempt: u64,
}

impl GivenRun {
    fn of(row: &GivenRow) -> Self {
        let GivenRow { number, aggregate, stream, name, time, user, client, attempt, .. } =
            row.clone();
        let version = name.parse().unwrap_or_default();
        let (workflow, id, time_ms) = (aggregate, stream, time);
        Self { number, workflow, id, version, time_ms, user, client, attempt }
    }
}

/// Why the code of a run goes no further. What it lets out is the end of the run: it has failed,
/// unless it is cancelled or goes on as new.
#[derive(Debug)]
#[non_exhaustive]
pub enum WorkflowError {
    /// The run has failed, for this reason: see [`WorkflowContext::fail`].
    Failed(String),
    /// The run is cancelled. The code hears of it once, at whatever it waits for or wants to do
    /// next, and may put right what was done, by its context as ever.
    Cancelled,
    /// A step or a request has failed, as often as it was tried.
    StepFailed {
        /// Its name.
        step: String,
        /// Why.
        reason: String,
    },
    /// A command that the run has sent has failed for good.
    CommandFailed {
        /// Which.
        name: CommandName,
        /// Why, as its handler says.
        reason: String,
    },
    /// A run that this one has started has failed, or was cancelled.
    RunFailed {
        /// The name of its workflow.
        workflow: String,
        /// Which run of it.
        id: String,
        /// Why.
        reason: String,
    },
    /// The run goes on as new: see [`WorkflowContext::continue_as_new`].
    ContinueAsNew(NewArgs),
    /// Anything else that has gone wrong in the code.
    Other(Box<dyn std::error::Error + Send + Sync>),
}

/// The arguments with which a run goes on as new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewArgs(pub(crate) String);

impl fmt::Display for WorkflowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(reason) => f.write_str(reason),
            Self::Cancelled => f.write_str("the run is cancelled"),
            Self::StepFailed { step, reason } => write!(f, "step {step} has failed: {reason}"),
            Self::CommandFailed { name, reason } => {
                let CommandName { aggregate, stream, name, .. } = name;
                write!(f, "command {name} of {aggregate} {stream} has failed: {reason}")
            }
            Self::RunFailed { workflow, id, reason } => {
                write!(f, "run {id} of workflow {workflow} has failed: {reason}")
            }
            Self::ContinueAsNew(_) => f.write_str("the run goes on as new"),
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for WorkflowError {
    fn from(error: E) -> Self {
        Self::Other(Box::new(error))
    }
}

/// Runs of a workflow that go on here.
struct Runs {
    of: Open,
    /// By the names of versions.
    codes: BTreeMap<String, Code>,
}

/// Begins to have runs go on.
fn handle(of: Open, workflow: Workflow, concurrency: u32) -> Result<Handling, Error> {
    let Workflow { name, codes } = workflow;
    let doctype = &of.doctype().name;
    let Some(known) = of.doctype().workflow(&name) else {
        return Err(Error::new(
            ErrorCode::InvalidOption,
            format!("{doctype} has no workflow {name}"),
        ));
    };
    let newest = known.version;
    let odd = codes.keys().flatten().find(|version| !(1..=newest).contains(*version));
    if let Some(odd) = odd {
        let message = format!("{name} has no version {odd}: it has 1 to {newest}");
        return Err(Error::new(ErrorCode::InvalidOption, message));
    }
    let named = |(version, code): (Option<u32>, _)| (version.unwrap_or(newest).to_string(), code);
    let codes: BTreeMap<String, Code> = codes.into_iter().map(named).collect();
    let kinds = (name, codes.keys().cloned().collect());
    attempts::handle(of.clone(), kinds, concurrency, Runs { of, codes })
}

impl Work for Runs {
    async fn carry_out(&self, attempt: &Attempt) -> Result<(), Error> {
        let row = &attempt.row;
        let run = Arc::new(GivenRun::of(row));
        let known = read_records(&self.of, row).await?;
        let drawn_from = serde_json::json!([run.workflow, run.id, run.number]).to_string();
        let progress = Progress::new(known, run.time_ms, &drawn_from);
        let shared = Arc::new(Shared::new(self.of.clone(), run, progress));
        let ctx = WorkflowContext::new(&shared);
        // The authority gives what is handled and nothing else.
        let code = &self.codes[&row.name];
        let stopping = Arc::clone(&shared);
        let running = async move {
            match code(ctx, &row.args) {
                Ok(running) => running.await,
                Err(error) => {
                    stopping.stop(format!("its arguments are of no such type: {error}"));
                    std::future::pending().await
                }
            }
        };
        let driven = Driver::new(attempt, &shared, Box::pin(running)).drive().await;
        shared.progress().give_up();
        driven
    }
}
