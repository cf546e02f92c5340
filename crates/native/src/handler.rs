//! How a program handles the commands of an aggregate.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use tidelog_document::{NewCommand, NewRun};

use crate::attempts::GivenRow;
use crate::events::Event;
use crate::keeping::Keeping;

type Deciding = Pin<Box<dyn Future<Output = Result<Vec<NewEvent>, HandlerError>> + Send>>;
type Decide<S> = Box<dyn Fn(CommandContext<S>, Json) -> Deciding + Send + Sync>;
type Evolve<S> = Box<dyn Fn(S, &Event) -> S + Send + Sync>;

/// How commands of an aggregate are handled: what the events of a stream come to, and what is
/// decided by that.
///
/// ```no_run
/// use serde::Deserialize;
/// use tidelog_native::{Database, Handler, NewEvent};
///
/// #[derive(Clone, Default)]
/// struct Order {
///     is_placed: bool,
/// }
///
/// #[derive(Deserialize)]
/// struct Place {
///     items: Vec<String>,
/// }
///
/// # fn handle(db: &Database) -> Result<(), tidelog_native::Error> {
/// let orders = Handler::new("order", Order::default(), |order, event| match event.kind.as_str() {
///     "placed" => Order { is_placed: true },
///     _ => order,
/// })
/// .command("place", async |ctx, Place { items }| {
///     if ctx.state.is_placed {
///         return Err(ctx.fail("it was placed before"));
///     }
///     Ok(vec![NewEvent::new("placed", &serde_json::json!({ "items": items }))?])
/// });
/// let handling = db.handle(orders, 16)?;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct Handler<S> {
    pub(crate) aggregate: String,
    pub(crate) initial: S,
    pub(crate) evolve: Evolve<S>,
    /// How states are kept in the document, if they are.
    pub(crate) keeping: Option<Keeping<S>>,
    pub(crate) commands: BTreeMap<String, Decide<S>>,
}

/// What a handler is given beside the arguments of its command.
#[derive(Clone, Debug)]
pub struct CommandContext<S> {
    /// What the stream's events come to: never older than what the last command of it has recorded.
    pub state: Arc<S>,
    /// The command.
    pub command: Arc<GivenCommand>,
    /// `None` once its handler has ended.
    pub(crate) effects: Arc<Mutex<Option<Effects>>>,
}

/// What a command brings about beside its events.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) sends: Vec<NewCommand>,
    pub(crate) starts: Vec<NewRun>,
}

/// A command as it is given to a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenCommand {
    /// Its place among all commands of the document, from 1.
    pub number: u64,
    /// The name of its aggregate.
    pub aggregate: String,
    /// Which of those.
    pub stream: String,
    /// The name of its type.
    pub name: String,
    /// The key that it was sent by.
    pub key: String,
    /// When it was sent, milliseconds since the epoch by the clock of that device.
    pub time_ms: i64,
    /// Who has sent it.
    pub user: String,
    /// The copy that has sent it, in hexadecimal digits.
    pub client: String,
    /// Which attempt this is, from 1.
    pub attempt: u64,
}

/// An event that a command comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    pub(crate) kind: String,
    pub(crate) data: String,
}

/// Why a handler comes to no decision.
#[derive(Debug)]
pub enum HandlerError {
    /// The command has failed for good, for this reason.
    Failed(String),
    /// The attempt has failed, and is tried again as often as the command says.
    Again(Box<dyn std::error::Error + Send + Sync>),
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::Again(Box::new(error))
    }
}

impl GivenCommand {
    pub(crate) fn of(row: &GivenRow) -> Self {
        let GivenRow { number, aggregate, stream, name, key, time, user, client, attempt, .. } =
            row.clone();
        let time_ms = time;
        Self { number, aggregate, stream, name, key, time_ms, user, client, attempt }
    }
}

impl NewEvent {
    /// An event of this type: `data` is what serde makes an object of.
    ///
    /// # Errors
    ///
    /// If serde cannot.
    pub fn new(kind: impl Into<String>, data: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self { kind: kind.into(), data: serde_json::to_string(data)? })
    }

    /// An event of this type, which says nothing more.
    #[must_use]
    pub fn bare(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), data: "{}".to_owned() }
    }
}

impl<S> Handler<S> {
    /// One of an aggregate: `initial` is the state of a stream in which nothing has happened, and
    /// `evolve` gives the state after an event, from that before it. It sees nothing else, and each
    /// time the same comes of the same. Of an event that was erased it sees no data.
    pub fn new(
        aggregate: impl Into<String>,
        initial: S,
        evolve: impl Fn(S, &Event) -> S + Send + Sync + 'static,
    ) -> Self {
        let (aggregate, evolve) = (aggregate.into(), Box::new(evolve));
        Self { aggregate, initial, evolve, keeping: None, commands: BTreeMap::new() }
    }

    /// Has states kept in the document, every 1,000 events of a stream, so that whoever handles its
    /// commands next begins there, and not at the first event. `name`, of 1 to 64 bytes, says how
    /// they are made, by `initial` and `evolve`: give another one with each release that makes
    /// others of the same events, and to each of several who handle an aggregate and do not make
    /// the same.
    ///
    /// A state is kept as the JSON that serde makes of it, of at most 256 KiB: what serde leaves
    /// out of it is lost. One that is too large, or that serde cannot read again, is logged and not
    /// kept, and the command goes on. Where what was kept is no state of this type the stream is
    /// folded from its first event.
    pub fn snapshot(mut self, name: impl Into<String>) -> Self
    where
        S: Serialize + DeserializeOwned + 'static,
    {
        self.keeping = Some(Keeping::new(name.into()));
        self
    }

    /// Decides commands of that name, by events that one comes to. Those that are not named are
    /// left to others. An attempt that counts no longer, as after the command's timeout, is dropped
    /// where it waits.
    pub fn command<A, F, D>(mut self, name: impl Into<String>, decide: D) -> Self
    where
        A: DeserializeOwned,
        F: Future<Output = Result<Vec<NewEvent>, HandlerError>> + Send + 'static,
        D: Fn(CommandContext<S>, A) -> F + Send + Sync + 'static,
    {
        let decide: Decide<S> = Box::new(move |ctx, args| match serde_json::from_value(args) {
            Ok(args) => Box::pin(decide(ctx, args)),
            Err(error) => Box::pin(std::future::ready(Err(error.into()))),
        });
        self.commands.insert(name.into(), decide);
        self
    }
}

impl<S> CommandContext<S> {
    /// That the command has failed for good.
    #[must_use]
    pub fn fail(&self, reason: impl Into<String>) -> HandlerError {
        HandlerError::Failed(reason.into())
    }

    /// Sends a command to any stream: in the transaction in which this one completes, or not at
    /// all. It is known by the number of this command and its place among what this sends.
    ///
    /// # Errors
    ///
    /// If serde cannot make JSON of `args`, or the handler has ended.
    pub fn send(
        &self,
        aggregate: impl Into<String>,
        command: impl Into<String>,
        stream: impl Into<String>,
        args: &impl Serialize,
    ) -> Result<(), serde_json::Error> {
        let args = serde_json::to_string(args)?;
        let mut effects = self.effects();
        let effects = effects.as_mut().ok_or_else(late)?;
        let key = format!("{}:{}", self.command.number, effects.sends.len());
        let (aggregate, stream, name) = (aggregate.into(), stream.into(), command.into());
        effects.sends.push(NewCommand { aggregate, stream, name, args, key });
        Ok(())
    }

    /// Starts a run of a workflow, likewise.
    ///
    /// # Errors
    ///
    /// If serde cannot make JSON of `args`, or the handler has ended.
    pub fn start(
        &self,
        workflow: impl Into<String>,
        args: &impl Serialize,
    ) -> Result<(), serde_json::Error> {
        let args = serde_json::to_string(args)?;
        let mut effects = self.effects();
        let effects = effects.as_mut().ok_or_else(late)?;
        let id = format!("{}:{}", self.command.number, effects.starts.len());
        effects.starts.push(NewRun { workflow: workflow.into(), id, args });
        Ok(())
    }

    fn effects(&self) -> std::sync::MutexGuard<'_, Option<Effects>> {
        self.effects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn late() -> serde_json::Error {
    serde::ser::Error::custom("a command sends and starts before its handler ends")
}

impl<S> fmt::Debug for Handler<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commands: Vec<&String> = self.commands.keys().collect();
        f.debug_struct("Handler")
            .field("aggregate", &self.aggregate)
            .field("commands", &commands)
            .finish_non_exhaustive()
    }
}
