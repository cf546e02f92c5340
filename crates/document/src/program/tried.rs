//! Who handles which tasks, and who has tried one in vain: whoever has not is asked first.
//!
//! ```text
//! _tidelog_handled  instance, aggregate, name    what each instance handles
//!                     -> asked                   up to which number it was asked about what was
//!                                                stopped as it came; null: about all
//! _tidelog_tried    task, instance -> is_unfit   an attempt has failed there; or the code there
//!                                                does not fit the task
//! ```
//!
//! A task goes to those who have not tried it, and to the others where none of those has room.
//! Once all of its handlers have failed, all but the last of them count as if they had not tried.
//!
//! An instance whose code does not fit a task is never given it again, and that is no attempt that
//! has failed: the task is ready for the others, and *stopped* once it fits none of them. It is
//! ready again as soon as somebody registers who handles its kind.

use std::collections::BTreeSet;

use tidelog_sqlite::{Failure, Transaction};
use tidelog_types::{Value, shortened};

use super::HAS;
use super::tasks::Started;
use crate::tasks::TaskKind;

/// The tables of who handles tasks, with those of tasks.
pub(super) const STATEMENTS: [&str; 6] = [
    "create table _tidelog_handled (instance integer not null, aggregate text not null,
     name text not null, asked integer, primary key (instance, aggregate, name)) strict,
     without rowid",
    "create index _tidelog_handled_kind on _tidelog_handled (aggregate, name)",
    "create index _tidelog_handled_asked on _tidelog_handled (instance) where asked is not null",
    "create table _tidelog_tried (task integer not null, instance integer not null,
     is_unfit integer not null, primary key (task, instance)) strict, without rowid",
    "create index _tidelog_tried_instance on _tidelog_tried (instance)",
    // Whoever is to hear that a run is cancelled may be anybody, be the code as it may.
    "create trigger _tidelog_tried_over after update of ended, cancelled on _tidelog_task
     when new.ended is not null or new.cancelled = 1 begin
       delete from _tidelog_tried where task = new.number;
     end",
];

/// Whether the code of all who handle a task of `_tidelog_task as task` does not fit it, as SQL.
const FITS_NOBODY: &str = "
    not exists (select 1 from _tidelog_handled as handled
                where handled.aggregate = task.aggregate and handled.name = task.name
                  and not exists (select 1 from _tidelog_tried as tried
                                  where tried.task = task.number and is_unfit = 1
                                    and tried.instance = handled.instance))";

/// Tasks that are stopped about which somebody is asked with one dispatch.
const ASKED_MAX: usize = 256;

/// Somebody handles these from now on: what is stopped of them it is to be [asked](ask) about.
pub(super) fn handle(
    transaction: &Transaction<'_>,
    instance: &Value,
    kinds: &[TaskKind],
) -> Result<(), Failure> {
    for TaskKind { aggregate, name } in kinds.iter().collect::<BTreeSet<_>>() {
        let [aggregate, name] = [aggregate, name].map(|it| Value::Text(it.clone()));
        transaction.run_system(
            "insert into _tidelog_handled
             select ?1, ?2, ?3, iif(exists (select 1 from _tidelog_task
                                            where state = 'stopped' and aggregate = ?2
                                              and name = ?3), 0, null)",
            &[instance.clone(), aggregate, name],
        )?;
    }
    Ok(())
}

/// Has those that have come asked about what was stopped before: it is ready, some of it at a time.
/// Says whether there is perhaps more.
pub(super) fn ask(transaction: &Transaction<'_>) -> Result<bool, Failure> {
    let rows = transaction.run_system(
        "select instance, aggregate, name, asked from _tidelog_handled
         where asked is not null limit 1",
        &[],
    )?;
    let Some(Ok(row)) = rows.into_iter().next().map(<[Value; 4]>::try_from) else {
        return Ok(false);
    };
    let [instance, aggregate, name, asked] = row;
    let stopped = transaction.run_system(
        "select number from _tidelog_task
         where state = 'stopped' and aggregate = ?1 and name = ?2 and number > ?3
         order by number limit ?4",
        &[aggregate.clone(), name.clone(), asked.clone(), Value::Integer(ASKED_MAX as i64)],
    )?;
    let last = stopped.last().map_or(asked.clone(), |row| row[0].clone());
    transaction.run_system(
        // It may have said of some already that they do not fit it.
        "update _tidelog_task as task set state = 'ready', reason = null
         where state = 'stopped' and aggregate = ?1 and name = ?2 and number > ?3 and number <= ?4
           and not exists (select 1 from _tidelog_tried as tried
                           where tried.task = task.number and tried.instance = ?5
                             and is_unfit = 1)",
        &[aggregate.clone(), name.clone(), asked, last.clone(), instance.clone()],
    )?;
    let asked = if stopped.len() == ASKED_MAX { last } else { Value::Null };
    transaction.run_system(
        "update _tidelog_handled set asked = ?4
         where instance = ?1 and aggregate = ?2 and name = ?3",
        &[instance, aggregate, name, asked],
    )?;
    Ok(true)
}

/// Somebody handles nothing any longer, and nothing is started there. What fits none of the others
/// is stopped; a run that waits is asked anew of them once it goes on.
pub(super) fn leave(transaction: &Transaction<'_>, instance: &Value) -> Result<(), Failure> {
    let instance = std::slice::from_ref(instance);
    transaction.run_system("delete from _tidelog_handled where instance = ?1", instance)?;
    transaction.run_system("delete from _tidelog_tried where instance = ?1", instance)?;
    let fits_nobody = format!(
        "select number from _tidelog_task as task
         where number in (select task from _tidelog_tried where is_unfit = 1)
           and state = ?1 and {FITS_NOBODY}"
    );
    let state = |state: &str| [Value::Text(state.to_owned())];
    transaction.run_system(
        &format!("delete from _tidelog_tried where task in ({fits_nobody})"),
        &state("suspended"),
    )?;
    transaction
        .run_system(
            &format!(
                "update _tidelog_task
                 set state = 'stopped', reason = coalesce(reason, 'it fits no code')
                 where number in ({fits_nobody})"
            ),
            &state("ready"),
        )
        .map(drop)
}

/// An attempt has failed, and others are asked first.
pub(super) fn note_failed(transaction: &Transaction<'_>, task: &Started) -> Result<(), Failure> {
    note(transaction, task, false)?;
    transaction
        .run_system(
            "delete from _tidelog_tried
             where task = ?1 and instance <> ?2 and is_unfit = 0
               and not exists (select 1 from _tidelog_handled
                               where aggregate = ?3 and name = ?4
                                 and instance not in (select instance from _tidelog_tried
                                                      where task = ?1))",
            &[
                Value::Integer(task.number),
                Value::Integer(task.instance),
                task.aggregate.clone(),
                Value::Text(task.name.clone()),
            ],
        )
        .map(drop)
}

/// The code of whoever has a task does not fit it. It is left to the others.
pub(super) fn stop(
    transaction: &Transaction<'_>,
    task: &Started,
    reason: &str,
) -> Result<(), Failure> {
    let number = Value::Integer(task.number);
    let is_news = transaction.run_system(
        "select cancelled = 1 and woken = 1 from _tidelog_task where number = ?1",
        std::slice::from_ref(&number),
    )?;
    // Whoever has stopped may not have heard that it was cancelled since.
    if is_news.first().is_none_or(|row| row[0] != HAS) {
        note(transaction, task, true)?;
    }
    let sql = format!(
        "update _tidelog_task as task
         set state = iif({FITS_NOBODY}, 'stopped', 'ready'), instance = null, due = 0,
             reason = iif({FITS_NOBODY}, ?2, reason)
         where number = ?1"
    );
    let reason = Value::Text(shortened(reason.to_owned()));
    transaction.run_system(&sql, &[number, reason]).map(drop)
}

fn note(transaction: &Transaction<'_>, task: &Started, is_unfit: bool) -> Result<(), Failure> {
    transaction
        .run_system(
            "insert into _tidelog_tried values (?1, ?2, ?3)
             on conflict do update set is_unfit = max(is_unfit, excluded.is_unfit)",
            &[
                Value::Integer(task.number),
                Value::Integer(task.instance),
                Value::Integer(is_unfit.into()),
            ],
        )
        .map(drop)
}
