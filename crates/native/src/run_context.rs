//! What the code of a workflow does by its context.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidelog_document::{NewCommand, NewRun, Recorded};
use tidelog_types::limits::{COMMAND_KEY_SIZE_MAX, RECORD_NAME_SIZE_MAX};

use crate::commands::{CommandName, SendOptions};
use crate::events::Event;
use crate::progress::{Question, Told};
use crate::run::Shared;
use crate::starting::StartOptions;
use crate::step::{Asking, Step, Wait, invalid, read_json};
use crate::trying::{StepError, Untold, json_of};
use crate::workflow::{GivenRun, NewArgs, WorkflowError};

/// The longest time that travels, as JavaScript counts: 285,000 years.
const TIME_MS_MAX: u64 = (1 << 53) - 1;

/// What the code of a workflow is given beside the arguments of a run. Whatever it does by this is
/// recorded by name, and is not done again when the run goes on elsewhere: the code is run from its
/// beginning then, and is answered from the records.
///
/// What its functions give is to be awaited by the code itself, not by a task that it spawns. Where
/// nothing but waiting is left, or another one has the run now, the code is dropped where it waits.
pub struct WorkflowContext {
    /// Which run this is, who has started it and when.
    pub run: Arc<GivenRun>,
    shared: Arc<Shared>,
}

/// What a command of a run has recorded: its first event and its last one, by their sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentOutcome {
    /// The first one.
    pub first: u64,
    /// The last one.
    pub last: u64,
}

/// The same as it is recorded.
#[derive(Deserialize)]
struct Sequences {
    first: Option<u64>,
    last: Option<u64>,
}

impl WorkflowContext {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { run: Arc::clone(&shared.run), shared: Arc::clone(shared) }
    }

    /// Milliseconds since the epoch by the server's clock, of the latest that the run has heard of;
    /// at the beginning when it was started. The same each time.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.shared.progress().now()
    }

    /// A number from 0 up to 1, the same each time.
    #[must_use]
    pub fn random(&self) -> f64 {
        self.shared.progress().draw()
    }

    /// Does something, at least once, and records what it comes to, as JSON of at most 256 KiB.
    /// Where it fails or panics it is tried again, later each time; after that it has failed, which
    /// is recorded too: [`WorkflowError::StepFailed`]. See [`Step`] for how often.
    pub fn step<'r, T, F, W>(&'r self, name: impl Into<String>, mut work: W) -> Step<'r, T>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, StepError>> + Send + 'r,
        W: FnMut() -> F + Send + 'r,
    {
        self.work("step", name.into(), move |_| work())
    }

    /// The same for what is asked of others: with a key that is the same at each try, by which they
    /// can tell that it is the same request. What `work` gives is what is kept of the answer.
    pub fn request<'r, T, F, W>(&'r self, name: impl Into<String>, work: W) -> Step<'r, T>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, StepError>> + Send + 'r,
        W: FnMut(String) -> F + Send + 'r,
    {
        self.work("request", name.into(), work)
    }

    fn work<'r, T, F, W>(&'r self, kind: &'static str, name: String, mut work: W) -> Step<'r, T>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, StepError>> + Send + 'r,
        W: FnMut(String) -> F + Send + 'r,
    {
        let key = self.key_of(&name, self.count_of(&name));
        let asking = self.ask(&name, Question::Work(kind));
        let once = Box::new(move || {
            let tried = work(key.clone());
            let recorded = async move {
                let came = tried.await.map_err(Untold::Again)?;
                json_of(&came).map_err(Untold::Never)
            };
            Box::pin(recorded) as _
        });
        Step::new(asking, name, once)
    }

    /// Waits so long, by the server's clock.
    pub fn sleep(&self, time: Duration) -> Wait<()> {
        self.sleep_named("sleep", time)
    }

    /// The same by a name of its own, by which it is found again when the code has changed.
    pub fn sleep_named(&self, name: &str, time: Duration) -> Wait<()> {
        let asking = match ms_of(time) {
            Ok(ms) => self.ask(name, Question::Wait(Recorded::Sleep { ms })),
            Err(error) => Asking::refused(&self.shared, error),
        };
        Wait::new(asking, |_| Ok(Ok(())))
    }

    /// Waits for an event of a stream: the first one since the run's start that it has not had.
    /// `None` once the time is over; without a time it waits for as long as it takes.
    pub fn wait_for(
        &self,
        aggregate: &str,
        stream: impl Into<String>,
        event: &str,
        timeout: impl Into<Option<Duration>>,
    ) -> Wait<Option<Event>> {
        let name = format!("waitFor:{aggregate}.{event}");
        self.wait_for_named(&name, aggregate, stream, event, timeout)
    }

    /// The same by a name of its own.
    pub fn wait_for_named(
        &self,
        name: &str,
        aggregate: &str,
        stream: impl Into<String>,
        event: &str,
        timeout: impl Into<Option<Duration>>,
    ) -> Wait<Option<Event>> {
        // None at all would be for as long as it takes.
        let timeout = timeout.into().map_or(Ok(0), |it| ms_of(it).map(|ms| ms.max(1)));
        let asking = match (self.shared.of.doctype().event(aggregate, event), timeout) {
            (None, _) => self.refused(format!("there is no event {event} of {aggregate}")),
            (_, Err(error)) => Asking::refused(&self.shared, error),
            (Some(_), Ok(timeout_ms)) => {
                let (aggregate, event) = (aggregate.to_owned(), event.to_owned());
                let stream = stream.into();
                let waiting = Recorded::WaitFor { aggregate, stream, event, timeout_ms };
                self.ask(name, Question::Wait(waiting))
            }
        };
        Wait::new(asking, |told| match told {
            Told::Event(event) => Ok(Ok(Some(*event))),
            _ => Ok(Ok(None)),
        })
    }

    /// Sends a command to any stream, and waits for its end: its events by their sequence, or
    /// `None` where it has recorded none; [`WorkflowError::CommandFailed`].
    pub fn send(
        &self,
        aggregate: &str,
        command: &str,
        stream: impl Into<String>,
        args: &impl Serialize,
    ) -> Wait<Option<SentOutcome>> {
        self.send_with(aggregate, command, stream, args, SendOptions::default())
    }

    /// The same, with a key that the program gives it.
    pub fn send_with(
        &self,
        aggregate: &str,
        command: &str,
        stream: impl Into<String>,
        args: &impl Serialize,
        options: SendOptions,
    ) -> Wait<Option<SentOutcome>> {
        let record = format!("send:{aggregate}.{command}");
        let key = options.key.unwrap_or_else(|| self.id_of(&record));
        let (aggregate, stream) = (aggregate.to_owned(), stream.into());
        let named = CommandName { aggregate, stream, name: command.to_owned(), key };
        let CommandName { aggregate, stream, name, key } = named.clone();
        let is_known = self.shared.of.doctype().command(&aggregate, &name).is_some();
        let asking = match (serde_json::to_string(args), checked_id(&key)) {
            (Err(error), _) => Asking::refused(&self.shared, error.into()),
            (_, Err(error)) => Asking::refused(&self.shared, error),
            _ if !is_known => self.refused(format!("there is no command {name} of {aggregate}")),
            (Ok(args), Ok(())) => {
                let command = NewCommand { aggregate, stream, name, args, key };
                self.ask(&record, Question::Wait(Recorded::Send(command)))
            }
        };
        Wait::new(asking, move |told| match told {
            Told::Failed(reason) => {
                Ok(Err(WorkflowError::CommandFailed { name: named.clone(), reason }))
            }
            told => {
                let Sequences { first, last } = read_json(&record, told)?;
                Ok(Ok(first.zip(last).map(|(first, last)| SentOutcome { first, last })))
            }
        })
    }

    /// Starts another run, and waits for its end: what it has returned;
    /// [`WorkflowError::RunFailed`].
    pub fn start<T: DeserializeOwned>(&self, workflow: &str, args: &impl Serialize) -> Wait<T> {
        self.start_with(workflow, args, StartOptions::default())
    }

    /// The same, with an id that the program gives it.
    pub fn start_with<T: DeserializeOwned>(
        &self,
        workflow: &str,
        args: &impl Serialize,
        options: StartOptions,
    ) -> Wait<T> {
        let record = format!("start:{workflow}");
        let (workflow, id) =
            (workflow.to_owned(), options.id.unwrap_or_else(|| self.id_of(&record)));
        let is_known = self.shared.of.doctype().workflow(&workflow).is_some();
        let asking = match (serde_json::to_string(args), checked_id(&id)) {
            (Err(error), _) => Asking::refused(&self.shared, error.into()),
            (_, Err(error)) => Asking::refused(&self.shared, error),
            _ if !is_known => self.refused(format!("there is no workflow {workflow}")),
            (Ok(args), Ok(())) => {
                let run = NewRun { workflow: workflow.clone(), id: id.clone(), args };
                self.ask(&record, Question::Wait(Recorded::Start(run)))
            }
        };
        Wait::new(asking, move |told| match told {
            Told::Failed(reason) => {
                let (workflow, id) = (workflow.clone(), id.clone());
                Ok(Err(WorkflowError::RunFailed { workflow, id, reason }))
            }
            told => read_json(&record, told).map(Ok),
        })
    }

    /// Ends the run and begins it anew under its id, with these arguments and without records,
    /// where the code returns it: `return Err(ctx.continue_as_new(&args))`. What this one was given
    /// of events that one is not given again.
    #[must_use = "the run goes on as new where the code returns this"]
    pub fn continue_as_new(&self, args: &impl Serialize) -> WorkflowError {
        match serde_json::to_string(args) {
            Ok(args) => WorkflowError::ContinueAsNew(NewArgs(args)),
            Err(error) => error.into(),
        }
    }

    /// That the run has failed, where the code returns it: `return Err(ctx.fail("no paper"))`.
    #[must_use = "the run has failed where the code returns this"]
    pub fn fail(&self, reason: impl Into<String>) -> WorkflowError {
        WorkflowError::Failed(reason.into())
    }

    fn ask(&self, name: &str, question: Question) -> Asking {
        if !(1..=RECORD_NAME_SIZE_MAX).contains(&name.len()) {
            let most = RECORD_NAME_SIZE_MAX;
            return self.refused(format!("what a run records has a name of 1 to {most} bytes"));
        }
        Asking::new(&self.shared, name, question)
    }

    fn refused(&self, message: String) -> Asking {
        Asking::refused(&self.shared, invalid(message))
    }

    fn count_of(&self, name: &str) -> u32 {
        self.shared.progress().count_of(name)
    }

    /// The same each time, whoever has the run go on: by this others know what comes of the run.
    fn key_of(&self, name: &str, count: u32) -> String {
        let GivenRun { workflow, id, number, .. } = &*self.run;
        let part = |text: &str| text.replace('%', "%25").replace('/', "%2F");
        // What goes on as new is asked for anew, and so is it by a run of an id that was forgotten.
        format!("{}/{}~{number}/{}/{count}", part(workflow), part(id), part(name))
    }

    /// The key of a command, or the id of a run, that is the same each time.
    fn id_of(&self, name: &str) -> String {
        let count = self.count_of(name);
        let key = self.key_of(name, count);
        // Runs that start runs have longer and longer ones.
        match key.len() <= COMMAND_KEY_SIZE_MAX {
            true => key,
            false => format!("~{}/{name}/{count}", self.run.number),
        }
    }
}

/// What is known by more bytes than may be, or none, nobody can send or start.
fn checked_id(id: &str) -> Result<(), WorkflowError> {
    match (1..=COMMAND_KEY_SIZE_MAX).contains(&id.len()) {
        true => Ok(()),
        false => Err(invalid(format!("a key or an id has 1 to {COMMAND_KEY_SIZE_MAX} bytes"))),
    }
}

/// Milliseconds, and no less than was said.
fn ms_of(time: Duration) -> Result<u64, WorkflowError> {
    let ms = u64::try_from(time.as_nanos().div_ceil(1_000_000)).ok();
    ms.filter(|it| *it <= TIME_MS_MAX)
        .ok_or_else(|| invalid(format!("a run waits {TIME_MS_MAX} milliseconds at most")))
}

impl fmt::Debug for WorkflowContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkflowContext").field("run", &self.run).finish_non_exhaustive()
    }
}
