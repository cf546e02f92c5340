//! What whoever runs a server does with the events and commands of a document.

use tidelog_sqlite::{Reader, Run, SystemQueries as _};
use tidelog_types::{Rows, Value};

use crate::program::{self, done};
use crate::tasks::named;

/// Commands that one query answers at most.
const PAGE_COMMANDS: i64 = 64;

/// Numbers that one query looks through, so that it is bounded whatever it looks for.
const WINDOW: i64 = 10_000;

/// The columns of `tidelog_commands`: what is answered of a command, in this order.
const COLUMNS: [&str; 16] = [
    "number",
    "aggregate",
    "stream",
    "command",
    "args",
    "key",
    "state",
    "attempt",
    "time",
    "user",
    "client",
    "instance",
    "first",
    "last",
    "reason",
    "ended",
];

/// Which command somebody means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandRef {
    /// By its number.
    Number(u64),
    /// By its aggregate, stream, name and key, as whoever has sent it knows it.
    Key([String; 4]),
}

/// What is to become of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intervention {
    /// One that has failed is given to handlers again, as if it had come now.
    Retry,
    /// One that is not over has failed for good. What an attempt at it comes to counts no longer.
    Cancel {
        /// Why, for a person.
        reason: String,
    },
}

/// What came of an [`Intervention`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intervened {
    /// It was done, to the command of this number.
    Done(u64),
    /// There is no such command, or none any more.
    NoCommand,
    /// The command is in this state, as `tidelog_commands` says it, and nothing was done.
    InState(String),
}

/// An event that whoever runs a server records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendedEvent {
    /// The name of its aggregate.
    pub aggregate: String,
    /// Which of those.
    pub stream: String,
    /// The name of its type.
    pub name: String,
    /// What it says, a JSON object.
    pub data: String,
    /// Of which version of that type it is; `None` for the newest, which it has to be.
    pub version: Option<u32>,
    /// When it happened, in milliseconds since 1970; `None` for now.
    pub time_ms: Option<u64>,
    /// Who it was; `None` for whoever records it.
    pub user: Option<String>,
    /// Which event of its stream it has to be, from 1, if that matters: so nothing is recorded
    /// twice.
    pub position: Option<u64>,
}

/// Why events were not recorded: none of them, whichever it was. They are counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendRefusal {
    /// The document has no streams.
    NoStreams,
    /// One would have had another position in its stream.
    Misplaced {
        /// Which of them.
        nth: usize,
        /// How many events the stream has before it.
        length: u64,
    },
    /// One is none that the stream may have, or breaks a rule of what follows from it.
    Rejected {
        /// Which of them.
        nth: usize,
        /// Why, for a person.
        reason: String,
    },
}

/// Which commands are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedCommands {
    /// In this state, as `tidelog_commands` says it; `None` for all.
    pub state: Option<String>,
    /// Behind this number.
    pub after: u64,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundCommands {
    /// In the columns of `tidelog_commands`, by their numbers.
    pub rows: Rows,
    /// Behind which number others may be, if there may.
    pub next: Option<u64>,
}

/// Looks for commands, a bounded number of them at a time.
pub fn find_commands(reader: &mut Reader, wanted: &WantedCommands) -> Run<FoundCommands> {
    let nothing = FoundCommands { rows: named(&COLUMNS, &[]), next: None };
    if !done!(program::version(reader)).is_some_and(|version| version.has_tasks) {
        return Run::Done(nothing);
    }
    let after = i64::try_from(wanted.after).unwrap_or(i64::MAX);
    let ends = done!(reader.query_system(
        "select (select min(number) from _tidelog_task where number > ?1),
                (select max(number) from _tidelog_task)",
        &[Value::Integer(after)],
    ));
    let Some([Value::Integer(first), Value::Integer(last)]) = ends.first().map(Vec::as_slice)
    else {
        return Run::Done(nothing);
    };
    // Where a state is asked for, each row is read that far.
    let window = if wanted.state.is_some() { PAGE_COMMANDS } else { WINDOW };
    let end = first.saturating_add(window - 1).min(*last);
    let state = wanted.state.clone().map_or(Value::Null, Value::Text);
    let sql = format!(
        "select {} from tidelog_commands
         where number >= ?1 and number <= ?2 and (?3 is null or state = ?3)
         order by number limit ?4",
        COLUMNS.join(", ")
    );
    let bounds =
        [Value::Integer(*first), Value::Integer(end), state, Value::Integer(PAGE_COMMANDS)];
    let rows = done!(reader.query_system(&sql, &bounds));
    let is_full = i64::try_from(rows.len()).unwrap_or(i64::MAX) == PAGE_COMMANDS;
    let seen = match rows.last().map(|row| &row[0]) {
        Some(Value::Integer(number)) if is_full => *number,
        _ => end,
    };
    let next = (seen < *last).then(|| seen.cast_unsigned());
    Run::Done(FoundCommands { rows: named(&COLUMNS, &rows), next })
}
