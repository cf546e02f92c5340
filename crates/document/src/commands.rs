//! Commands on their way: what the authority decides of them, and what it is told by those who
//! handle them.

use std::fmt;

use serde::{Deserialize, Serialize};
use tidelog_sqlite::{Reader, Run, SystemQueries as _};
use tidelog_sync::CompletionAnswer;
use tidelog_sync::codec::{self, DecodeError};
use tidelog_types::{ClientId, Rows, Value};

use crate::events::as_ref;
use crate::program::{self, done};

/// The number of an instance: somebody who handles commands of a document. Never used again in that
/// document, so that it fences whoever was taken for gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId(pub u64);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A kind of command that an instance handles.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CommandKind {
    /// The name of the aggregate.
    pub aggregate: String,
    /// The name of the command.
    pub name: String,
}

/// What came of an attempt at a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// Which command.
    pub command: u64,
    /// Which attempt: it counts for nothing once there is a later one.
    pub attempt: u64,
    /// How many events the stream had, by which the handler has decided.
    pub position: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What an attempt at a command came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// These happened, and these are to be done next.
    Completed {
        /// Events of the command's own stream, in their order.
        events: Vec<NewEvent>,
        /// Commands for any streams.
        sends: Vec<NewCommand>,
    },
    /// Nothing happened.
    Failed {
        /// Why, for a person.
        reason: String,
        /// Whether it is not to be tried again.
        is_final: bool,
    },
}

/// An event that a command records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEvent {
    /// The name of its type.
    pub name: String,
    /// What it says, a JSON object.
    pub data: String,
}

/// A command that another one sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewCommand {
    /// The aggregate's name.
    pub aggregate: String,
    /// Which of those.
    pub stream: String,
    /// The command's name.
    pub name: String,
    /// Its arguments, a JSON object.
    pub args: String,
    /// Its key.
    pub key: String,
}

impl Completion {
    /// The bytes in which it travels.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The completion in these bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if they are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes)
    }
}

/// Something that the authority decides by itself, with its own clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Somebody begins to handle commands.
    Register {
        /// The copy that it belongs to.
        client: ClientId,
        /// Whose that is.
        user: String,
    },
    /// Somebody handles none any longer: what it works at is given to others.
    Deregister(InstanceId),
    /// Commands are given to those who have room for them, and what has taken too long is taken
    /// back.
    Dispatch(Vec<Free>),
    /// An attempt has come to an end.
    Complete {
        /// Whose attempt.
        instance: InstanceId,
        /// What came of it.
        completion: Completion,
    },
}

/// An instance that commands may be given to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Free {
    /// Which.
    pub instance: InstanceId,
    /// What it handles.
    pub kinds: Vec<CommandKind>,
    /// How many it works at, at most.
    pub concurrency: u32,
}

/// What a [`Change`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// This is its number.
    Registered(InstanceId),
    /// It is gone.
    Deregistered,
    /// Commands were given, or there was nothing to give.
    Dispatched {
        /// When there may be more to do by the clock alone, if ever.
        due_ms: Option<u64>,
        /// Whether there is more to do now.
        again: bool,
    },
    /// The completion was taken, or not.
    Completed(CompletionAnswer),
}

/// What is known of a command by its name and key.
#[derive(Clone, Debug, PartialEq)]
pub enum FoundOutcome {
    /// There is none, or none any more.
    None,
    /// It is not over.
    Pending,
    /// It is: one row of its `number`, `state`, `reason`, and the sequence numbers of its `first`
    /// and `last` event.
    Over(Rows),
}

/// Looks for a command by its aggregate, stream, name and key.
pub fn find_outcome(
    reader: &mut Reader,
    [aggregate, stream, name, key]: [&str; 4],
) -> Run<FoundOutcome> {
    if !done!(program::version(reader)).is_some_and(|version| version.has_commands) {
        return Run::Done(FoundOutcome::None);
    }
    let texts = [aggregate, stream, name, key].map(|it| Value::Text(it.to_owned()));
    let rows = done!(reader.query_system(
        "select number, state, reason, first, last from _tidelog_command
         where aggregate = ?1 and stream = ?2 and name = ?3 and key = ?4",
        &texts,
    ));
    Run::Done(match rows.first().map(Vec::as_slice) {
        None => FoundOutcome::None,
        Some([_, Value::Text(state), ..]) if state == "completed" || state == "failed" => {
            FoundOutcome::Over(named(&["number", "state", "reason", "first", "last"], &rows))
        }
        Some(_) => FoundOutcome::Pending,
    })
}

/// The commands that are given to an instance, oldest first, each with how many events its stream
/// has.
pub fn find_given(reader: &mut Reader, instance: InstanceId) -> Run<Rows> {
    const COLUMNS: [&str; 11] = [
        "number",
        "aggregate",
        "stream",
        "name",
        "args",
        "key",
        "time",
        "user",
        "client",
        "attempt",
        "position",
    ];
    if !done!(program::version(reader)).is_some_and(|version| version.has_commands) {
        return Run::Done(named(&COLUMNS, &[]));
    }
    let number = Value::Integer(i64::try_from(instance.0).unwrap_or(i64::MAX));
    let rows = done!(reader.query_system(
        "select number, aggregate, stream, name, args, key, time, user, lower(hex(client)), attempt,
                coalesce((select length from _tidelog_stream as of
                          where of.aggregate = command.aggregate and of.stream = command.stream), 0)
         from _tidelog_command as command where state = 'started' and instance = ?1
         order by number",
        &[number],
    ));
    Run::Done(named(&COLUMNS, &rows))
}

fn named(columns: &[&str], values: &[Vec<Value>]) -> Rows {
    let columns = columns.iter().map(ToString::to_string).collect();
    let mut rows = Rows { columns, ..Rows::default() };
    for row in values {
        rows.push(row.iter().map(as_ref));
    }
    rows
}

/// What is kept of those who handle commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Who they are, and of which copies.
    pub instances: Vec<(InstanceId, ClientId)>,
    /// Whether any command is not over.
    pub is_pending: bool,
}
