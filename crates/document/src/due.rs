//! When tasks of a document are due: what its host keeps of them while the document is closed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidelog_sqlite::{Reader, Run, SystemQueries as _};
use tidelog_types::Value;

use crate::program::{self, done};
use crate::tasks::TaskKind;

/// Kinds of tasks, and timers of runs, that are looked at; and tasks that were given to somebody.
const KINDS_MAX: usize = 256;
const TIMERS_MAX: i64 = 64;
const STARTED_MAX: i64 = 1024;
/// Kinds of which tasks wait for code that fits them.
const STOPPED_MAX: usize = 1024;
/// Bytes of all the names of what is ready, was given or sleeps, and of what is stopped, of which
/// the rest is found once one of those has been dealt with. No doctype has so many but on purpose.
const NAMES_SIZE_MAX: usize = 64 * 1024;

/// When tasks that are not over are due next. What waits for something else than time is not
/// among them, and becomes due by what happens in the document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueTasks {
    /// By their kinds: milliseconds since the epoch, 0 for at once.
    pub at_ms: BTreeMap<TaskKind, u64>,
    /// From then on tasks of any name may be due: only the nearest were looked at.
    pub others_at_ms: Option<u64>,
    /// Aggregates and workflows of which commands and runs wait for code that fits them, and the
    /// largest number of those.
    pub stopped: BTreeMap<String, u64>,
}

impl DueTasks {
    /// Whether nothing is due, ever.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// When the first of them is due, if ever.
    #[must_use]
    pub fn first_ms(&self) -> Option<u64> {
        self.at_ms.values().copied().chain(self.others_at_ms).min()
    }

    fn note(&mut self, names: &mut Names, [aggregate, name]: [&str; 2], at: i64) {
        let at_ms = u64::try_from(at).unwrap_or(0);
        let kind = TaskKind { aggregate: aggregate.to_owned(), name: name.to_owned() };
        match self.at_ms.get_mut(&kind) {
            Some(known) => *known = at_ms.min(*known),
            None if names.have_room_for(&[aggregate, name]) => _ = self.at_ms.insert(kind, at_ms),
            None => self.note_others(at),
        }
    }

    fn note_others(&mut self, at: i64) {
        let at = u64::try_from(at).unwrap_or(0);
        self.others_at_ms = Some(self.others_at_ms.map_or(at, |known| known.min(at)));
    }
}

/// Names that are noted, by how many bytes more there may be.
struct Names(usize);

impl Names {
    fn have_room_for(&mut self, names: &[&str]) -> bool {
        let size = names.iter().map(|name| name.len()).sum();
        let left = self.0.checked_sub(size);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

/// When the first that is ready of a kind is due: of those that fit the same instances one search
/// finds it.
const FIND_EARLIEST: &str = "
    with recursive fits (unfit) as (
        select min(unfit) from _tidelog_task
        where state = 'ready' and aggregate = ?1 and name = ?2
        union all
        select (select min(task.unfit) from _tidelog_task as task
                where state = 'ready' and aggregate = ?1 and name = ?2
                  and task.unfit > fits.unfit)
        from fits where fits.unfit is not null)
    select min((select min(due) from _tidelog_task as task
                where state = 'ready' and aggregate = ?1 and name = ?2
                  and task.unfit = fits.unfit))
    from fits where fits.unfit is not null";

/// The first kinds of which there are tasks in this state, as aggregate and name, by a search for
/// each: so many at most, and none behind those whose names are too long. Says whether these are
/// all.
fn kinds_of(reader: &mut Reader, state: &str, count_max: usize) -> Run<(Vec<[Value; 2]>, bool)> {
    // The next name of the same aggregate, or the first one of the next aggregate.
    let find_next = format!(
        "select ?1, name from (select (select min(name) from _tidelog_task
                                       where state = '{state}' and aggregate = ?1
                                         and name > ?2) as name)
         where name is not null
         union all
         select aggregate, (select min(name) from _tidelog_task as task
                            where state = '{state}' and task.aggregate = it.aggregate)
         from (select (select min(aggregate) from _tidelog_task
                       where state = '{state}' and aggregate > ?1) as aggregate) as it
         where aggregate is not null
         limit 1"
    );
    let (mut kinds, mut size) = (Vec::new(), 0);
    let mut last = [const { String::new() }; 2].map(Value::Text);
    loop {
        let rows = done!(reader.query_system(&find_next, &last));
        let Some(Ok(next)) = rows.into_iter().next().map(<[Value; 2]>::try_from) else {
            return Run::Done((kinds, true));
        };
        if kinds.len() == count_max || size > NAMES_SIZE_MAX {
            return Run::Done((kinds, false));
        }
        size += next.iter().map(size_of_name).sum::<usize>();
        kinds.push(next.clone());
        last = next;
    }
}

fn size_of_name(name: &Value) -> usize {
    if let Value::Text(name) = name { name.len() } else { 0 }
}

/// Looks when tasks are due next, however many there are, and whatever they are called. What
/// somebody was given is due once others may be given it, at `given_ms`: nobody may be there any
/// more.
pub fn find_due(reader: &mut Reader, given_ms: u64) -> Run<DueTasks> {
    let mut due = DueTasks::default();
    if !done!(program::version(reader)).is_some_and(|version| version.has_tasks) {
        return Run::Done(due);
    }
    let mut names = Names(NAMES_SIZE_MAX);
    let (ready, are_all) = done!(kinds_of(reader, "ready", KINDS_MAX));
    for kind in &ready {
        let rows = done!(reader.query_system(FIND_EARLIEST, kind));
        if let ([Value::Text(aggregate), Value::Text(name)], Some([Value::Integer(at)])) =
            (kind, rows.first().map(Vec::as_slice))
        {
            due.note(&mut names, [aggregate, name], *at);
        }
    }
    if !are_all {
        due.note_others(0);
    }
    let started = done!(reader.query_system(
        "select distinct aggregate, name from
         (select aggregate, name from _tidelog_task where state = 'started' limit ?1)",
        &[Value::Integer(STARTED_MAX)],
    ));
    for kind in &started {
        if let [Value::Text(aggregate), Value::Text(name)] = kind.as_slice() {
            let given_at = i64::try_from(given_ms).unwrap_or(i64::MAX);
            due.note(&mut names, [aggregate, name], given_at);
        }
    }
    let timers = done!(reader.query_system(
        "select timer.due, task.aggregate, task.name, task.ended is null from
         (select due, task from _tidelog_record where due > 0 order by due limit ?1) as timer
         left join _tidelog_task as task on task.number = timer.task
         order by timer.due",
        &[Value::Integer(TIMERS_MAX)],
    ));
    for timer in &timers {
        if let [Value::Integer(at), Value::Text(aggregate), Value::Text(name), Value::Integer(1)] =
            timer.as_slice()
        {
            due.note(&mut names, [aggregate, name], *at);
        }
    }
    if let Some([Value::Integer(at), ..]) = timers.last().map(Vec::as_slice)
        && i64::try_from(timers.len()) == Ok(TIMERS_MAX)
    {
        due.note_others(*at);
    }
    let mut names = Names(NAMES_SIZE_MAX);
    let (stopped, _) = done!(kinds_of(reader, "stopped", STOPPED_MAX));
    for kind in &stopped {
        let newest = done!(reader.query_system(
            "select number from _tidelog_task
             where state = 'stopped' and aggregate = ?1 and name = ?2
             order by number desc limit 1",
            kind,
        ));
        if let (Value::Text(aggregate), Some([Value::Integer(number)])) =
            (&kind[0], newest.first().map(Vec::as_slice))
            && (due.stopped.contains_key(aggregate.as_str()) || names.have_room_for(&[aggregate]))
        {
            let newest = due.stopped.entry(aggregate.clone()).or_default();
            *newest = number.unsigned_abs().max(*newest);
        }
    }
    Run::Done(due)
}
