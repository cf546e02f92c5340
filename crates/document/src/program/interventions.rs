//! What whoever runs a server has done to a command: given again, or cancelled.

use tidelog_sqlite::{Failure, Run, SystemQueries as _, Transaction, Writer};
use tidelog_types::{PageSet, Value};

use super::tasks::{self, Started};
use super::{commands, done, single_integer, version};
use crate::Doctype;
use crate::operator::{CommandRef, Intervened, Intervention};

/// Does it, unless there is no such command or it is in another state.
pub(super) fn intervene(
    writer: &mut Writer,
    doctype: &Doctype,
    (command, intervention): (&CommandRef, &Intervention),
    now: i64,
) -> Run<(Intervened, PageSet)> {
    let nothing = |intervened| Run::Done((intervened, PageSet::default()));
    if !done!(version(writer)).is_some_and(|version| version.has_tasks) {
        return nothing(Intervened::NoCommand);
    }
    let Some(number) = done!(find(writer, command)) else { return nothing(Intervened::NoCommand) };
    // What was erased cannot be done again: nobody knows any more what was wished. Nor what has
    // lost its key: whoever has sent it again by that is done already, or will be.
    let sql = "select case when args is null then 'erased'
                           when state = 'failed' and key is null then 'forgotten'
                           else state end
               from tidelog_commands where number = ?1";
    let rows = done!(writer.query_system(sql, &[Value::Integer(number)]));
    let Some([Value::Text(state)]) = rows.first().map(Vec::as_slice) else {
        return nothing(Intervened::NoCommand);
    };
    let ran = match (intervention, state.as_str()) {
        (Intervention::Retry, "failed") => {
            writer.write(&mut |transaction| retry(transaction, number))
        }
        (Intervention::Cancel { reason }, "received" | "started" | "stopped") => {
            cancel(writer, doctype, number, reason, now)
        }
        (Intervention::Retry | Intervention::Cancel { .. }, _) => {
            return nothing(Intervened::InState(state.clone()));
        }
    };
    ran.map(|((), set)| (Intervened::Done(number.cast_unsigned()), set))
}

fn find(writer: &mut Writer, command: &CommandRef) -> Run<Option<i64>> {
    let rows = match command {
        CommandRef::Number(number) => return Run::Done(i64::try_from(*number).ok()),
        CommandRef::Key(names) => done!(writer.query_system(
            "select number from _tidelog_task
             where aggregate = ?1 and stream = ?2 and name = ?3 and key = ?4 and version is null",
            &names.clone().map(Value::Text),
        )),
    };
    Run::Done(single_integer(&rows))
}

/// It is as one that was received and has never failed; its attempts are counted on, so that those
/// of before stay fenced. Behind one of its stream that is ready or started it waits.
fn retry(transaction: &Transaction<'_>, number: i64) -> Result<(), Failure> {
    let number = [Value::Integer(number)];
    // Its next end comes behind all that there were.
    transaction.run_system(tasks::NOTE_LAST_ENDING, &number)?;
    transaction
        .run_system(
            "update _tidelog_task as task
             set state = iif(exists (select 1 from _tidelog_task as other
                                     where other.aggregate = task.aggregate
                                       and other.stream = task.stream and other.ended is null),
                             'waiting', 'ready'),
                 failures = 0, due = 0, first = null, last = null, reason = null, ended = null,
                 ending = null
             where number = ?1",
            &number,
        )
        .map(drop)
}

/// It has failed, with what follows from that.
fn cancel(
    writer: &mut Writer,
    doctype: &Doctype,
    number: i64,
    reason: &str,
    now: i64,
) -> Run<((), PageSet)> {
    let sql = format!("select {} from _tidelog_task where number = ?1", tasks::STARTED);
    let rows = done!(writer.query_system(&sql, &[Value::Integer(number)]));
    let Some(command) = rows.first().and_then(|row| Started::of_row(row)) else {
        unreachable!("BUG: a command that is not what it is")
    };
    commands::fail(writer, doctype, &command, reason, true, now)
}
