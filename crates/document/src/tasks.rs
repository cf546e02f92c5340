//! Tasks on their way, which are commands and runs of workflows: what the authority decides of
//! them, and what it is told by those who handle them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidelog_sqlite::{Reader, Run, SystemQueries as _};
use tidelog_sync::CompletionAnswer;
use tidelog_sync::codec::{self, DecodeError};
use tidelog_types::limits::COMPLETION_SIZE_MAX;
use tidelog_types::{ClientId, JournalId, Rows, Value, shortened};

use crate::archiving::{ArchivePart, ArchiveRefusal};
use crate::erasing::{Erasable, EraseRefusal, Erased, ErasedUpTo};
use crate::events::as_ref;
use crate::inspecting::StreamRef;
use crate::operator::{AppendRefusal, AppendedEvent, CommandRef, Intervened, Intervention};
use crate::program::{self, done};
use crate::replaying::{Replay, ReplayRefusal, Replayed};
use crate::upcasting::{UpcastEvents, UpcastRefusal};
use crate::workflows::{NewRecord, NewRun};

/// The number of an instance: somebody who handles tasks of a document. Never used again in that
/// document, also where it is restored, so that it fences whoever was taken for gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId(pub u64);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A kind of task that an instance handles.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskKind {
    /// The name of the aggregate, or of the workflow.
    pub aggregate: String,
    /// The name of the command, or the version of the workflow.
    pub name: String,
}

/// What came of an attempt at a task, or comes of it so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// Which task.
    pub task: u64,
    /// Which attempt: it counts for nothing once there is a later one.
    pub attempt: u64,
    /// By what it was decided: of a command how many events its stream had, of a run the number of
    /// the last record of an event that its code was told of.
    pub position: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What an attempt at a task came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Of a command: these happened, and these are to be done next.
    Completed {
        /// Events of the command's own stream, in their order.
        events: Vec<NewEvent>,
        /// Commands for any streams.
        sends: Vec<NewCommand>,
        /// Runs of workflows.
        starts: Vec<NewRun>,
        /// What the stream's events come to before these, to be kept.
        snapshot: Option<NewSnapshot>,
    },
    /// Nothing happened. A run is not tried again.
    Failed {
        /// Why, for a person.
        reason: String,
        /// Whether it is not to be tried again.
        is_final: bool,
    },
    /// A run has come so far.
    Progressed {
        /// What it remembers from now on.
        records: Vec<NewRecord>,
        /// Whether it does nothing more before something that it waits for has happened: the
        /// attempt is over.
        suspends: bool,
    },
    /// A run has come to its end.
    Returned {
        /// With that, as JSON.
        result: String,
    },
    /// A run goes on with other arguments, a JSON object, and without its records.
    Continued {
        /// Those.
        args: String,
    },
    /// The code does not fit the task: a run remembers something else, or an event of the command's
    /// stream is of a newer release. It is left to others, and has not failed.
    Stopped {
        /// Why, for a person.
        reason: String,
    },
    /// A run that was cancelled has come to its end.
    Cancelled,
}

/// An event that a command records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEvent {
    /// The name of its type.
    pub name: String,
    /// What it says, a JSON object.
    pub data: String,
}

/// What the events of a stream come to, as one release of the app folds them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSnapshot {
    /// The name of the way of folding that made it.
    pub name: String,
    /// That, as JSON.
    pub state: String,
}

/// A command that another one sends, or a run.
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

    /// The same as it may travel. What is too large to is a failure for good: said again and again
    /// it would never arrive, nor would anything behind it.
    #[must_use]
    pub fn bounded(self) -> Self {
        let size = self.encode().len();
        if size <= COMPLETION_SIZE_MAX {
            return self;
        }
        let outcome = match self.outcome {
            Outcome::Failed { reason, is_final } => {
                Outcome::Failed { reason: shortened(reason), is_final }
            }
            Outcome::Stopped { reason } => Outcome::Stopped { reason: shortened(reason) },
            _ => Outcome::Failed {
                reason: format!(
                    "what it came to has {size} bytes, and may have {COMPLETION_SIZE_MAX}"
                ),
                is_final: true,
            },
        };
        Self { outcome, ..self }
    }

    /// The completion in these bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if they are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_untrusted(bytes)
    }
}

/// Something that the authority decides by itself, with its own clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Somebody begins to handle tasks.
    Register {
        /// The copy that it belongs to.
        client: ClientId,
        /// Whose that is.
        user: String,
        /// What it handles.
        kinds: Vec<TaskKind>,
    },
    /// Somebody handles none any longer: what it works at is given to others.
    Deregister(InstanceId),
    /// Tasks are given to those who have room for them, and what has taken too long is taken back.
    Dispatch(Vec<Free>),
    /// An attempt has come to an end.
    Complete {
        /// Whose attempt.
        instance: InstanceId,
        /// What came of it.
        completion: Completion,
    },
    /// What somebody has said is erased, a part of it.
    Erase {
        /// Of what.
        what: Erasable,
        /// How far that has come.
        after: ErasedUpTo,
    },
    /// Events of older versions are rewritten at the newest one, a part of them.
    Upcast {
        /// Of this aggregate alone; `None` for all.
        aggregate: Option<String>,
        /// Behind this sequence number.
        after: u64,
    },
    /// What follows from the events of an aggregate is made anew.
    Replay(Arc<Replay>),
    /// Whoever runs the server does something to a command.
    Intervene(CommandRef, Intervention),
    /// Events that have left another document are taken into this one, which is its archive.
    TakeIn(Arc<ArchivePart>),
    /// Events leave the document that its archive has durably.
    Archive {
        /// Of which stream.
        stream: StreamRef,
        /// Which archive has them.
        archive: JournalId,
        /// How many events of the stream have left before them.
        archived: u64,
        /// The position of the last of them.
        end: u64,
    },
    /// Whoever runs the server records events, all of them or none.
    Append {
        /// These, in their order.
        events: Arc<[AppendedEvent]>,
        /// Who that is.
        by: String,
    },
}

/// An instance that tasks may be given to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Free {
    /// Which.
    pub instance: InstanceId,
    /// What it handles.
    pub kinds: Vec<TaskKind>,
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
    /// Tasks were given, or there was nothing to give.
    Dispatched {
        /// When there may be more to do by the clock alone, if ever.
        due_ms: Option<u64>,
        /// Whether there is more to do now.
        again: bool,
    },
    /// Something was erased, or not.
    Erased(Result<Erased, EraseRefusal>),
    /// Events are of the newest version now, or not.
    Upcast(Result<UpcastEvents, UpcastRefusal>),
    /// It is made anew, or not.
    Replayed(Result<Replayed, ReplayRefusal>),
    /// It was done to a command, or not.
    Intervened(Intervened),
    /// So many are in the archive.
    TakenIn(u64),
    /// So many have left, or why none has.
    Archived(Result<u64, ArchiveRefusal>),
    /// Events were recorded, the last of them of this sequence number, or not.
    Appended(Result<u64, AppendRefusal>),
    /// The completion was taken, or not.
    Completed(CompletionAnswer),
    /// It was taken: a run remembers something more.
    Remembered {
        /// As of when, milliseconds since the epoch: where it was said before, as of then.
        time_ms: u64,
        /// Whether something may be to be given for that.
        leads_on: bool,
    },
}

impl Changed {
    /// What becomes of a completion that came now, if it was one, and as of when, milliseconds
    /// since the epoch: each attempt at a run hears of the same times.
    #[must_use]
    pub fn answer(&self, now_ms: u64) -> Option<(CompletionAnswer, u64)> {
        match self {
            Self::Completed(answer) => Some((*answer, now_ms)),
            Self::Remembered { time_ms, .. } => Some((CompletionAnswer::Done, *time_ms)),
            _ => None,
        }
    }
}

/// What is known of a command by its name and key, or of a run by its id.
#[derive(Clone, Debug, PartialEq)]
pub enum FoundOutcome {
    /// There is none, or none any more.
    None,
    /// It is not over.
    Pending,
    /// It is: one row of its `number`, `state`, `reason`, the sequence numbers of the `first` and
    /// `last` event of a command, and the `result` of a run.
    Over(Rows),
}

/// Looks for a command by its aggregate, stream, name and key; for a run of a workflow by that
/// one's name, the run's id, no name, and the id once more.
pub fn find_outcome(
    reader: &mut Reader,
    [aggregate, stream, name, key]: [&str; 4],
) -> Run<FoundOutcome> {
    const COLUMNS: [&str; 6] = ["number", "state", "reason", "first", "last", "result"];
    if !done!(program::version(reader)).is_some_and(|version| version.has_tasks) {
        return Run::Done(FoundOutcome::None);
    }
    let sql = match name {
        "" => {
            "select number, state, reason, first, last, result, ended is null from _tidelog_task
             where aggregate = ?1 and stream = ?2 and ?3 is not null and key = ?4
               and version is not null"
        }
        _ => {
            "select number, state, reason, first, last, result, ended is null from _tidelog_task
             where aggregate = ?1 and stream = ?2 and name = ?3 and key = ?4 and version is null"
        }
    };
    let texts = [aggregate, stream, name, key].map(|it| Value::Text(it.to_owned()));
    let rows = done!(reader.query_system(sql, &texts));
    Run::Done(match rows.into_iter().next() {
        None => FoundOutcome::None,
        Some(mut row) => match row.pop() {
            Some(Value::Integer(0)) => FoundOutcome::Over(named(&COLUMNS, &[row])),
            _ => FoundOutcome::Pending,
        },
    })
}

/// Tasks that have ended, after a place in the order in which they do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endings {
    /// The place of the last one that there is; 0 where there is none.
    pub last: i64,
    /// Aggregate, stream, name and key of each that has one; the name of a run is empty.
    pub names: Vec<[String; 4]>,
    /// Whether there are more than these.
    pub has_more: bool,
}

/// How many endings are told of at a time.
const ENDINGS_MAX: usize = 256;

/// The tasks that have ended after that place, the first of them. Where the last place is before
/// it, others have taken the place of those that were there.
pub fn find_endings(reader: &mut Reader, after: i64) -> Run<Endings> {
    if !done!(program::version(reader)).is_some_and(|version| version.has_tasks) {
        return Run::Done(Endings { last: 0, names: Vec::new(), has_more: false });
    }
    let sql = "select max(ending) from _tidelog_task where ending is not null";
    let last = program::single_integer(&done!(reader.query_system(sql, &[]))).unwrap_or(0);
    let rows = done!(reader.query_system(
        "select aggregate, stream, iif(version is null, name, ''), key from _tidelog_task
         where ending is not null and ending > ?1 and key is not null
         order by ending limit ?2",
        &[Value::Integer(after), Value::Integer(ENDINGS_MAX as i64)],
    ));
    let has_more = rows.len() == ENDINGS_MAX;
    let names = rows.into_iter().filter_map(|row| match <[Value; 4]>::try_from(row).ok()? {
        [Value::Text(aggregate), Value::Text(stream), Value::Text(name), Value::Text(key)] => {
            Some([aggregate, stream, name, key])
        }
        _ => None,
    });
    Run::Done(Endings { last, names: names.collect(), has_more })
}

/// The tasks that are given to an instance, oldest first; of a command also how many events its
/// stream has. The name of a run is its version.
pub fn find_given(reader: &mut Reader, instance: InstanceId) -> Run<Rows> {
    const COLUMNS: [&str; 13] = [
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
        "is_cancelled",
        "instance",
    ];
    if !done!(program::version(reader)).is_some_and(|version| version.has_tasks) {
        return Run::Done(named(&COLUMNS, &[]));
    }
    let number = Value::Integer(i64::try_from(instance.0).unwrap_or(i64::MAX));
    let rows = done!(reader.query_system(
        "select number, aggregate, stream, name, args, key, time, user, lower(hex(client)), attempt,
                iif(version is null, coalesce((select length from _tidelog_stream as of
                    where of.aggregate = task.aggregate and of.stream = task.stream), 0), 0),
                cancelled = 1, instance
         from _tidelog_task as task where state = 'started' and instance = ?1
         order by number",
        &[number],
    ));
    Run::Done(named(&COLUMNS, &rows))
}

pub(crate) fn named(columns: &[&str], values: &[Vec<Value>]) -> Rows {
    let columns = columns.iter().map(ToString::to_string).collect();
    let mut rows = Rows { columns, ..Rows::default() };
    for row in values {
        rows.push(row.iter().map(as_ref));
    }
    rows
}

/// What is kept of those who handle tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Who they are, and of which copies.
    pub instances: Vec<(InstanceId, ClientId)>,
    /// Whether any task is not over.
    pub is_pending: bool,
}
