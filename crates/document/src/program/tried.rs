//! Who handles which tasks, and who has tried one in vain: whoever has not is asked first.
//!
//! ```text
//! _tidelog_handled  instance, aggregate, name    what each instance handles
//!                     -> asked                   up to which number it was asked about what was
//!                                                stopped as it came; null: about all
//! _tidelog_tried    task, instance               an attempt has failed there
//! _tidelog_task     number -> unfit              whose code does not fit it: numbers of instances
//!                                                as a JSON array, in their order, and
//!                                                perhaps of some that are gone
//! ```
//!
//! A task goes to those who have not tried it, and to the others where none of those has room.
//! Once all of its handlers have failed, all but the last of them count as if they had not tried.
//!
//! An instance whose code does not fit a task is never given it again, and that is no attempt that
//! has failed: the task is ready for the others, and *stopped* once it fits none of them. It is
//! ready again as soon as somebody registers who handles its kind. Tasks that do not fit the same
//! instances have the same `unfit`, by which whoever may have none of them passes over all at once:
//! a look is a search for each `unfit` that there is. Who has left may be a part of one until its
//! row is written.

use std::collections::BTreeSet;

use tidelog_sqlite::{Failure, Transaction};
use tidelog_types::{Value, shortened};

use super::tasks::Started;
use super::workflows::HAS_HEARD;
use crate::tasks::{InstanceId, TaskKind};

/// The tables of who handles tasks, with those of tasks.
pub(super) const STATEMENTS: [&str; 7] = [
    "create table _tidelog_handled (instance integer not null, aggregate text not null,
     name text not null, asked integer, primary key (instance, aggregate, name)) strict,
     without rowid",
    "create index _tidelog_handled_kind on _tidelog_handled (aggregate, name)",
    "create index _tidelog_handled_asked on _tidelog_handled (instance) where asked is not null",
    "create table _tidelog_tried (task integer not null, instance integer not null,
     primary key (task, instance)) strict, without rowid",
    "create index _tidelog_tried_instance on _tidelog_tried (instance)",
    "create index _tidelog_task_unfit on _tidelog_task (state) where unfit <> '[]'",
    // Whoever is to hear that a run is cancelled may be anybody, be the code as it may.
    "create trigger _tidelog_tried_over after update of ended, cancelled on _tidelog_task
     when new.ended is not null or new.cancelled = 1 begin
       delete from _tidelog_tried where task = new.number;
       update _tidelog_task set unfit = '[]' where number = new.number and unfit <> '[]';
     end",
];

/// Whether the code of all who handle a task of `_tidelog_task as task` does not fit it, as SQL.
const FITS_NOBODY: &str = "
    not exists (select 1 from _tidelog_handled as handled
                where handled.aggregate = task.aggregate and handled.name = task.name
                  and handled.instance not in (select value from json_each(task.unfit)))";

/// A number of `task.unfit` is that of somebody who is there. Others harm nobody, since no number
/// is used again: to take each out as it leaves would write every row that has it.
const IS_THERE: &str = "
    value in (select instance from _tidelog_handled as handled
              where handled.aggregate = task.aggregate and handled.name = task.name)";

/// Tasks that are stopped about which somebody is asked with one dispatch.
const ASKED_MAX: usize = 256;

/// Instances whose code does not fit some task.
pub(super) struct Unfit {
    text: String,
    instances: Vec<u64>,
}

impl Unfit {
    /// As it stands with the tasks.
    pub(super) fn value(&self) -> Value {
        Value::Text(self.text.clone())
    }

    pub(super) fn has(&self, instance: InstanceId) -> bool {
        self.instances.contains(&instance.0)
    }
}

/// Whom tasks of a kind that are ready do not fit: the same instances once, however many tasks.
pub(super) fn unfit_for(
    transaction: &Transaction<'_>,
    kind: &TaskKind,
) -> Result<Vec<Unfit>, Failure> {
    let [aggregate, name] = [&kind.aggregate, &kind.name].map(|it| Value::Text(it.clone()));
    let mut found = Vec::new();
    let mut last = Value::Text(String::new());
    loop {
        let rows = transaction.run_system(
            "select min(unfit) from _tidelog_task
             where state = 'ready' and aggregate = ?1 and name = ?2 and unfit > ?3",
            &[aggregate.clone(), name.clone(), last],
        )?;
        let Some([Value::Text(text)]) = rows.first().map(Vec::as_slice) else {
            return Ok(found);
        };
        let numbers = text.trim_matches(['[', ']']).split(',');
        let instances = numbers.filter_map(|it| it.parse().ok()).collect();
        found.push(Unfit { text: text.clone(), instances });
        last = Value::Text(text.clone());
    }
}

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
        &format!(
            "update _tidelog_task as task
             set state = 'ready', reason = null,
                 unfit = (select json_group_array(value) from json_each(task.unfit)
                          where {IS_THERE})
         where state = 'stopped' and aggregate = ?1 and name = ?2 and number > ?3 and number <= ?4
           and ?5 not in (select value from json_each(task.unfit))"
        ),
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
    let fits_nobody = format!("unfit <> '[]' and {FITS_NOBODY}");
    transaction.run_system(
        &format!(
            "update _tidelog_task as task set unfit = '[]'
             where state = 'suspended' and {fits_nobody}"
        ),
        &[],
    )?;
    transaction
        .run_system(
            &format!(
                "update _tidelog_task as task
                 set state = 'stopped', reason = coalesce(reason, 'it fits no code')
                 where state = 'ready' and {fits_nobody}"
            ),
            &[],
        )
        .map(drop)
}

/// An attempt has failed, and others are asked first.
pub(super) fn note_failed(transaction: &Transaction<'_>, task: &Started) -> Result<(), Failure> {
    let [number, instance] = [task.number, task.instance].map(Value::Integer);
    transaction.run_system(
        "insert into _tidelog_tried values (?1, ?2) on conflict do nothing",
        &[number.clone(), instance.clone()],
    )?;
    transaction
        .run_system(
            "delete from _tidelog_tried
             where task = ?1 and instance <> ?2
               and not exists (select 1 from _tidelog_handled
                               where aggregate = ?3 and name = ?4
                                 and instance not in (select instance from _tidelog_tried
                                                      where task = ?1)
                                 and instance not in
                                     (select value from json_each(
                                        (select unfit from _tidelog_task where number = ?1))))",
            &[number, instance, task.aggregate.clone(), Value::Text(task.name.clone())],
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
    transaction.run_system(
        // Whoever has stopped may not have heard that it was cancelled since.
        &format!(
            "update _tidelog_task as task
             set unfit = (select json_group_array(value) from
                          (select value from json_each(task.unfit) where {IS_THERE}
                           union select ?2 order by 1))
             where number = ?1 and not (cancelled = 1 and woken = 1 and not {HAS_HEARD})"
        ),
        &[number.clone(), Value::Integer(task.instance)],
    )?;
    let sql = format!(
        "update _tidelog_task as task
         set state = iif({FITS_NOBODY}, 'stopped', 'ready'), instance = null, due = 0,
             reason = iif({FITS_NOBODY}, ?2, reason)
         where number = ?1"
    );
    let reason = Value::Text(shortened(reason.to_owned()));
    transaction.run_system(&sql, &[number, reason]).map(drop)
}
