//! Workflows: functions of an app that run for as long as they like, from one record to the next.
//! What a run has done stands in its records, and is not done again when it goes on elsewhere.

use serde::{Deserialize, Serialize};
use tidelog_sqlite::{Reader, Run, SystemQueries as _};
use tidelog_types::{Rows, Value};

use crate::Param;
use crate::program::{self, done};
use crate::tasks::{NewCommand, named};

/// Records that are told of at a time, and bytes of their results, with one more than those.
const RECORDS_TOLD_MAX: i64 = 256;
const RECORDS_TOLD_SIZE_MAX: i64 = 1024 * 1024;

/// A workflow as an app defines it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowDefinition {
    /// Its name; no aggregate of the doctype has the same.
    pub name: String,
    /// Which version of it runs have that are started from now on.
    pub version: u32,
    /// What the arguments of a run are.
    pub fields: Vec<Param>,
}

/// A run that is to be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewRun {
    /// The workflow's name.
    pub workflow: String,
    /// Which run: one that is there already is that one.
    pub id: String,
    /// Its arguments, a JSON object.
    pub args: String,
}

/// What a run has done, or waits for, and is to remember.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewRecord {
    /// Its name.
    pub name: String,
    /// How many of that name the run had before.
    pub count: u32,
    /// What there is to remember.
    pub what: Recorded,
}

/// See [`NewRecord`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recorded {
    /// Something was done, and this came of it.
    Done {
        /// `step` or `request`.
        kind: String,
        /// As JSON.
        result: String,
    },
    /// Nothing came of it, as often as it was tried.
    Failed {
        /// `step` or `request`.
        kind: String,
        /// Why.
        reason: String,
    },
    /// A request was begun.
    Begun,
    /// The run goes on after so many milliseconds, by the authority's clock.
    Sleep {
        /// How many.
        ms: u64,
    },
    /// The run waits for an event.
    WaitFor {
        /// The name of its aggregate.
        aggregate: String,
        /// Which of those.
        stream: String,
        /// The name of its type.
        event: String,
        /// How long, in milliseconds; 0 for as long as it takes.
        timeout_ms: u64,
    },
    /// A command is sent, and the run waits for its end.
    Send(NewCommand),
    /// Another run is started, and this one waits for its end.
    Start(NewRun),
    /// The run has heard here that it is cancelled.
    Cancel,
}

impl Recorded {
    /// Whether there may be something to do for it by others, or by the clock.
    pub(crate) fn leads_on(&self) -> bool {
        match self {
            Self::Sleep { .. } | Self::WaitFor { .. } | Self::Send(_) | Self::Start(_) => true,
            Self::Done { .. } | Self::Failed { .. } | Self::Begun | Self::Cancel => false,
        }
    }

    /// After how many milliseconds it is due by the clock; 0 for what never is.
    pub(crate) fn due_in_ms(&self) -> u64 {
        match self {
            Self::Sleep { ms } => *ms,
            Self::WaitFor { timeout_ms, .. } => *timeout_ms,
            _ => 0,
        }
    }

    /// What kind of record it makes.
    pub(crate) fn kind(&self) -> &str {
        match self {
            Self::Done { kind, .. } | Self::Failed { kind, .. } => kind,
            Self::Begun => "request",
            Self::Sleep { .. } => "sleep",
            Self::WaitFor { .. } => "event",
            Self::Send(_) => "command",
            Self::Start(_) => "workflow",
            Self::Cancel => "cancel",
        }
    }
}

/// The records of a run after that one, oldest first: some of them, and none at the end. A result
/// is JSON of a step, a request, a command or another run, the sequence number of an event, and the
/// reason where it failed. `None` where this attempt at the run is not there yet: whoever was given
/// it would take what happened before it for what waits.
pub fn find_records(reader: &mut Reader, task: u64, attempt: u64, after: u64) -> Run<Option<Rows>> {
    const COLUMNS: [&str; 9] =
        ["record", "name", "count", "kind", "state", "result", "time", "aggregate", "stream"];
    if !done!(program::version(reader)).is_some_and(|version| version.has_tasks) {
        return Run::Done(None);
    }
    let number = |it: u64| Value::Integer(i64::try_from(it).unwrap_or(i64::MAX));
    let sql = "select 1 from _tidelog_task where number = ?1 and attempt >= ?2";
    if done!(reader.query_system(sql, &[number(task), number(attempt)])).is_empty() {
        return Run::Done(None);
    }
    let rows = done!(reader.query_system(
        // Of results that are not told only the size is read.
        "select number, name, count, kind, state, result, time, aggregate, stream
         from _tidelog_record where number in
         (select number from
          (select number, sum(size) over (order by number
                              rows between unbounded preceding and 1 preceding) as before
           from (select number, coalesce(octet_length(result), 0) as size from _tidelog_record
                 where task = ?1 and number > ?2 and kind <> 'seen'
                 order by number limit ?3))
          where before is null or before <= ?4)
         order by number",
        &[
            number(task),
            number(after),
            Value::Integer(RECORDS_TOLD_MAX),
            Value::Integer(RECORDS_TOLD_SIZE_MAX)
        ],
    ));
    Run::Done(Some(named(&COLUMNS, &rows)))
}
