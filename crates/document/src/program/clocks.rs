//! By whose clock tasks were over, and what becomes of the times of another one.
//!
//! What is over is kept for a while, by the clock of the authority, and no rule compares two
//! clocks. So whatever was over by another one is over as of when the authority first sees it:
//!
//! - a run that a mutation has cancelled, by the clock of the mutation's device: `ended` is below
//!   zero until then;
//! - what a document brings that becomes a server's: a local one that is handed over, or a file.
//!
//! ```text
//! _tidelog_meta  'clock' -> journal      of the server's document whose clock is gone by; a local
//!                                        document has none
//!                'foreign' -> ending     tasks up to this place in the order of endings are over
//!                                        by another clock
//! ```
//!
//! What was begun by another clock takes its time anew as well.

use tidelog_sqlite::{Failure, Run, SystemQueries, Transaction};
use tidelog_types::{JournalId, Value};

use super::{commands, single_integer};
use crate::Doctype;

/// Tasks of each kind whose times one dispatch replaces.
const REPLACED_MAX: i64 = 256;

const CLOCK_KEY: &str = "clock";
const FOREIGN_KEY: &str = "foreign";

/// Whether a task was over by the clock of the authority, if [that is known](is_known), as SQL.
pub(super) const IS_OWN: &str = "
    (ended >= 0 and ending > coalesce((select value from _tidelog_meta where key = 'foreign'), 0))";

/// A time by the clock of a device, until the authority [replaces](replace) it by its own. Views
/// say that one until then.
pub(super) fn foreign(time: &Value) -> Value {
    match time {
        Value::Integer(time) => Value::Integer(-(*time).max(1)),
        other => other.clone(),
    }
}

/// Whether this server has decided here before: times since then are its own. In a local document
/// all are the device's.
pub(super) fn is_known(queries: &mut dyn SystemQueries, server: Option<JournalId>) -> Run<bool> {
    let Some(JournalId(journal)) = server else { return Run::Done(true) };
    let sql = "select 1 from _tidelog_meta where key = ?1 and value = ?2";
    let clock = [Value::Text(CLOCK_KEY.to_owned()), Value::Blob(journal.to_vec())];
    queries.query_system(sql, &clock).map(|rows| !rows.is_empty())
}

/// A server decides here from now on: what there is was decided by another clock.
pub(super) fn take_over(
    transaction: &Transaction<'_>,
    doctype: &Doctype,
    JournalId(journal): JournalId,
    now: i64,
) -> Result<(), Failure> {
    if transaction.run_system("select 1 from _tidelog_task limit 1", &[])?.is_empty() {
        // There is nothing to say of it, yet.
        return Ok(());
    }
    let clock = [Value::Text(CLOCK_KEY.to_owned()), Value::Blob(journal.to_vec())];
    transaction.run_system("insert or replace into _tidelog_meta values (?1, ?2)", &clock)?;
    transaction.run_system(
        "insert or replace into _tidelog_meta
         select ?1, max(ending) from _tidelog_task where ending is not null
         having max(ending) is not null",
        &[Value::Text(FOREIGN_KEY.to_owned())],
    )?;
    let timed = transaction.run_system(
        "select distinct aggregate, name from _tidelog_task
         where due > 0 and ended is null and state = 'started'",
        &[],
    )?;
    for kind in timed {
        let [Value::Text(aggregate), Value::Text(name)] = kind.as_slice() else { continue };
        let due = commands::late_from(doctype, aggregate, name, now);
        transaction.run_system(
            "update _tidelog_task set due = ?3
             where due > 0 and ended is null and state = 'started'
               and aggregate = ?1 and name = ?2",
            &[kind[0].clone(), kind[1].clone(), Value::Integer(due)],
        )?;
    }
    Ok(())
}

/// What is over by another clock is over as of now: some of it. Says whether there is perhaps more.
pub(super) fn replace(transaction: &Transaction<'_>, now: i64) -> Result<bool, Failure> {
    let cancelled = transaction.run_system(
        "update _tidelog_task set ended = ?1 where number in
         (select number from _tidelog_task where state = 'cancelled' and ended < 0 limit ?2)
         returning number",
        &[Value::Integer(now), Value::Integer(REPLACED_MAX)],
    )?;
    let is_left = i64::try_from(cancelled.len()) == Ok(REPLACED_MAX);
    let key = Value::Text(FOREIGN_KEY.to_owned());
    let known = transaction
        .run_system("select value from _tidelog_meta where key = ?1", std::slice::from_ref(&key))?;
    let Some(last) = single_integer(&known) else { return Ok(is_left) };
    let replaced = transaction.run_system(
        "update _tidelog_task set ended = ?1 where number in
         (select number from _tidelog_task where ending is not null and ending <= ?2
          order by ending desc limit ?3)
         returning ending",
        &[Value::Integer(now), Value::Integer(last), Value::Integer(REPLACED_MAX)],
    )?;
    let first = replaced.iter().filter_map(|row| match row.as_slice() {
        [Value::Integer(ending)] => Some(*ending),
        _ => None,
    });
    match first.min().filter(|_| i64::try_from(replaced.len()) == Ok(REPLACED_MAX)) {
        Some(first) => {
            let before = [key, Value::Integer(first - 1)];
            transaction
                .run_system("update _tidelog_meta set value = ?2 where key = ?1", &before)?;
            Ok(true)
        }
        None => {
            transaction.run_system("delete from _tidelog_meta where key = ?1", &[key])?;
            Ok(is_left)
        }
    }
}
