//! Tasks: commands, and runs of workflows. Sent by mutations, given by the authority to those who
//! handle them, and over once they have completed, or failed.
//!
//! ```text
//! _tidelog_task      number -> aggregate, stream, name, args, key     in order of receipt; of a
//!                              run its workflow, its id, its version as text, its id; no args:
//!                              erased
//!                           -> time, user, client     of who has sent it
//!                           -> state, attempt, failures, instance, due
//!                           -> first, last            its events, by their sequence; of a run the
//!                                                     last one that it does not see
//!                           -> reason, ended, ending  why it has failed, when it was over, and its
//!                                                     place in the order in which tasks end;
//!                                                     by whose clock: `program/clocks.rs`
//!                           -> version                of a run alone
//!                           -> result, begun_with     what it came to, and what it was started
//!                                                     with before it went on as new
//!                           -> records                how many it has
//!                           -> cancelled              1: it is to hear that; 2: it has, before it
//!                                                     went on as new
//!                           -> woken                  whether something happened that it has not
//!                                                     heard
//!                           -> unfit                  `program/tried.rs`
//! _tidelog_instance  number -> client, user, since    who handles tasks
//! ```
//!
//! What each of them handles, and has tried in vain, stands in `program/tried.rs`.
//!
//! The states of a task:
//!
//! ```text
//! waiting ──▶ ready ──▶ started ──▶ completed, failed, cancelled, continued
//!               ▲          │
//!               ├──────────┤  tried again, or given to somebody else
//!               ├── suspended  a run waits for something
//!               └── stopped    it waits for somebody whose code fits it
//! ```
//!
//! Whoever runs the server has a command that has failed given again: it is ready, or waits. What
//! is not over of commands may fail by that one's word (`program/interventions.rs`).
//!
//! Of a stream one command at most is ready, started or stopped, the oldest that is not over, or
//! one before which an older one was given again: the others wait. To send one is a
//! mutation like any other, which devices predict, and so are the start of a
//! run and its cancelling. All else is decided by the authority alone, by its clock, and is no
//! frame of anybody's: each step is a transaction of its own.
//!
//! What a run remembers stands in `program/workflows.rs`.

use std::collections::BTreeMap;

use tidelog_sqlite::{Failure, Run, SystemQueries, Transaction, Writer};
use tidelog_sync::CompletionAnswer;
use tidelog_types::limits::{COMMAND_BACKOFF_MS_MAX, INSTANCES_MAX};
use tidelog_types::{ClientId, JournalId, PageSet, Value};

use super::events::Recorder;
use super::tried::Unfit;
use super::{
    HAS, appending, archiving, clocks, commands, done, erasing, interventions, replaying,
    single_integer, snapshots, tried, upcasting, version, workflows,
};
use crate::tasks::{Change, Changed, Completion, Free, InstanceId, TaskKind, Work};
use crate::{CommandDefinition, Doctype};

/// Tasks that one dispatch gives away.
const GIVEN_MAX: usize = 64;
/// What is over and is forgotten with one dispatch, of each kind.
const FORGOTTEN_MAX: i64 = 16;
/// The key in `_tidelog_meta` of the last instance's number.
const INSTANCES_KEY: &str = "instances";

/// The number of whichever task is received next, as SQL: no other one ever had it.
pub(super) const NEXT_NUMBER: &str = "
    1 + max(coalesce((select max(number) from _tidelog_task), 0),
            coalesce((select value from _tidelog_meta where key = 'forgotten'), 0))";
/// Keeps the number of this one if it is the last, which is forgotten: what its events name as
/// their cause is no other one later.
const NOTE_LAST_NUMBER: &str = "
    insert into _tidelog_meta
    select 'forgotten', number from _tidelog_task
    where number = ?1 and number = (select max(number) from _tidelog_task)
    on conflict (key) do update set value = max(value, excluded.value)";

/// The place of whichever task ends next, as SQL.
pub(super) const NEXT_ENDING: &str = "
    1 + max(coalesce((select max(ending) from _tidelog_task where ending is not null), 0),
            coalesce((select value from _tidelog_meta where key = 'endings'), 0))";
/// Keeps the place of this one if it is the last, which is forgotten or begins anew: the next
/// one ends behind it.
pub(super) const NOTE_LAST_ENDING: &str = "
    insert into _tidelog_meta
    select 'endings', ending from _tidelog_task
    where number = ?1
      and ending = (select max(ending) from _tidelog_task where ending is not null)
    on conflict (key) do update set value = max(value, excluded.value)";

/// What begins the reason for which a task is not received whose key stands for another one.
pub(crate) const KEY_REUSED: &str = "key reused: ";

/// The key in `_tidelog_meta` under which the version of these tables stands, and that.
pub(super) const META_KEY: &str = "tasks";
const META_VERSION: i64 = 1;

/// Makes the tables of tasks of a document that has none.
pub(crate) fn begin(transaction: &Transaction<'_>) -> Result<(), Failure> {
    let statements = [
        "create table _tidelog_task (number integer primary key, aggregate text not null,
         stream text not null, name text not null, args text, key text,
         time integer not null, user text not null, client blob not null, state text not null,
         attempt integer not null, failures integer not null, instance integer,
         due integer not null, first integer, last integer, reason text, ended integer,
         ending integer, version integer, result text, begun_with text, records integer not null,
         cancelled integer not null, woken integer not null, unfit text not null) strict",
        "create unique index _tidelog_task_key on _tidelog_task
         (aggregate, stream, name, key) where key is not null",
        "create index _tidelog_task_pending on _tidelog_task (aggregate, stream)
         where ended is null",
        "create index _tidelog_task_ready on _tidelog_task (aggregate, name, unfit, due)
         where state = 'ready'",
        "create index _tidelog_task_stopped on _tidelog_task (aggregate, name)
         where state = 'stopped'",
        "create index _tidelog_task_due on _tidelog_task (state, due)
         where due > 0 and ended is null",
        "create index _tidelog_task_held on _tidelog_task (instance)
         where state = 'started'",
        "create index _tidelog_task_kept on _tidelog_task (ended)
         where ended is not null and key is not null",
        "create index _tidelog_task_ended on _tidelog_task (state, ended)
         where ended is not null",
        "create index _tidelog_task_ending on _tidelog_task (ending) where ending is not null",
        "create view tidelog_commands (number, aggregate, stream, command, args, key, state,
                                       attempt, time, user, client, instance, first, last, reason,
                                       ended) as
         select number, aggregate, stream, name, args, key,
                iif(state in ('waiting', 'ready'), 'received', state), attempt, time, user,
                lower(hex(client)), instance, first, last, reason, ended
         from _tidelog_task where version is null",
        "create table _tidelog_instance (number integer primary key, client blob not null,
         user text not null, since integer not null) strict",
        "create view tidelog_instances (instance, client, user, since) as
         select number, lower(hex(client)), user, since from _tidelog_instance",
    ];
    let all = statements.into_iter().chain(tried::STATEMENTS).chain(workflows::STATEMENTS);
    all.chain(snapshots::STATEMENTS)
        .try_for_each(|sql| transaction.run_system(sql, &[]).map(drop))?;
    transaction
        .run_system(
            "insert into _tidelog_meta values (?1, ?2)",
            &[Value::Text(META_KEY.to_owned()), Value::Integer(META_VERSION)],
        )
        .map(drop)
}

/// A task as somebody sends it.
pub(super) struct Received {
    pub aggregate: String,
    pub stream: Value,
    pub name: String,
    pub args: Value,
    pub key: Value,
    /// The version of a run.
    pub version: Option<u32>,
}

/// Writes a task down, unless its key stands for the same one already. Says which one it is, and
/// whether it is new.
pub(super) fn receive(
    transaction: &Transaction<'_>,
    received: Received,
    by: &Recorder<'_>,
) -> Result<(i64, bool), Failure> {
    let Received { aggregate, stream, name, args, key, version } = received;
    let texts = [aggregate, name].map(Value::Text);
    let [aggregate, name] = texts;
    let sql = match version {
        None => {
            "select number, args from _tidelog_task
             where aggregate = ?1 and stream = ?2 and name = ?3 and key = ?4 and version is null"
        }
        // Of any version.
        Some(_) => {
            "select number, coalesce(begun_with, args) from _tidelog_task
             where aggregate = ?1 and stream = ?2 and ?3 is not null and key = ?4
               and version is not null"
        }
    };
    let known = [aggregate.clone(), stream.clone(), name.clone(), key.clone()];
    let kept = transaction.run_system(sql, &known)?;
    if let Some([Value::Integer(number), kept]) = kept.first().map(Vec::as_slice) {
        // What was erased is nobody's to compare.
        if *kept == args || *kept == Value::Null {
            return Ok((*number, false));
        }
        let text = |value: &Value| match value {
            Value::Text(text) => text.clone(),
            _ => String::new(),
        };
        let [of, stream] =
            [text(if version.is_some() { &aggregate } else { &name }), text(&stream)];
        return Err(Failure::Rejected {
            reason: format!(
                "{KEY_REUSED}{of} of {stream} was sent by it before, with other arguments"
            ),
        });
    }
    let sql = format!(
        "insert into _tidelog_task
         select {NEXT_NUMBER}, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8,
                iif(exists (select 1 from _tidelog_task
                            where aggregate = ?1 and stream = ?2 and ended is null),
                    'waiting', 'ready'),
                0, 0, null, 0,
                iif(?9 is null, null, coalesce((select max(sequence) from _tidelog_event), 0)),
                null, null, null, null, ?9, null, null, 0, 0, 0, '[]'"
    );
    let written = transaction.write_system(
        &sql,
        &[
            aggregate,
            stream,
            name,
            args,
            key,
            by.time.clone(),
            by.user.clone(),
            by.client.clone(),
            version.map_or(Value::Null, |it| Value::Integer(it.into())),
        ],
    )?;
    Ok((written.rowid, true))
}

/// Who handles tasks of a document, and whether there are any. A document that was made elsewhere
/// may say that more do than may: one more of them is told.
pub(crate) fn work(queries: &mut dyn SystemQueries) -> Run<Work> {
    if !done!(version(queries)).is_some_and(|version| version.has_tasks) {
        return Run::Done(Work::default());
    }
    let sql = "select number, client from _tidelog_instance order by number desc limit ?1";
    let count_max = i64::try_from(INSTANCES_MAX + 1).unwrap_or(i64::MAX);
    let rows = done!(queries.query_system(sql, &[Value::Integer(count_max)]));
    let instances = rows.iter().filter_map(|row| match row.as_slice() {
        [Value::Integer(number), Value::Blob(client)] => {
            let client = ClientId(client.as_slice().try_into().ok()?);
            Some((InstanceId(number.cast_unsigned()), client))
        }
        _ => None,
    });
    let instances = instances.collect();
    let sql = "select 1 from _tidelog_task where ended is null limit 1";
    let is_pending = !done!(queries.query_system(sql, &[])).is_empty();
    Run::Done(Work { instances, is_pending })
}

/// Carries out what the authority decides: a server, by the journal of its document, or else this
/// device. Nothing has changed where the pages say so.
pub(crate) fn change(
    writer: &mut Writer,
    doctype: &Doctype,
    change: &Change,
    (server, now_ms): (Option<JournalId>, u64),
) -> Run<(Changed, PageSet)> {
    let now = i64::try_from(now_ms).unwrap_or(i64::MAX);
    match change {
        Change::Register { client, user, kinds } => {
            writer.write(&mut |transaction| register(transaction, *client, user, kinds, now))
        }
        Change::Deregister(instance) => writer.write(&mut |transaction| {
            let instance = [number_value(instance.0)];
            transaction.run_system(
                "update _tidelog_task set state = 'ready', instance = null, due = 0
                 where state = 'started' and instance = ?1",
                &instance,
            )?;
            let sql = "delete from _tidelog_instance where number = ?1";
            transaction.run_system(sql, &instance)?;
            tried::leave(transaction, &instance[0])?;
            Ok(Changed::Deregistered)
        }),
        Change::Dispatch(free) => dispatch(writer, doctype, free, (server, now)),
        Change::Complete { instance, completion } => {
            complete(writer, doctype, *instance, completion, now)
        }
        Change::Erase { what, after } => {
            let ran = erasing::erase(writer, what, *after, (server, now));
            ran.map(|(erased, set)| (Changed::Erased(erased), set))
        }
        Change::Upcast { aggregate, after } => {
            let ran = upcasting::upcast(writer, doctype, aggregate.as_deref(), *after);
            ran.map(|(upcast, set)| (Changed::Upcast(upcast), set))
        }
        Change::Replay(wanted) => {
            let ran = replaying::replay(writer, doctype, wanted);
            ran.map(|(replayed, set)| (Changed::Replayed(replayed), set))
        }
        Change::TakeIn(part) => archiving::take_in(writer, part)
            .map(|((), set)| (Changed::TakenIn(part.events.len() as u64), set)),
        Change::Archive { stream, archive, archived, end } => {
            let ran = archiving::let_go(writer, stream, *archive, [*archived, *end]);
            ran.map(|(archived, set)| (Changed::Archived(archived), set))
        }
        Change::Append { events, by } => {
            let ran = appending::append(writer, doctype, events, by, now);
            ran.map(|(appended, set)| (Changed::Appended(appended), set))
        }
        Change::Intervene(command, intervention) => {
            let ran = interventions::intervene(writer, doctype, (command, intervention), now);
            ran.map(|(intervened, set)| (Changed::Intervened(intervened), set))
        }
    }
}

fn register(
    transaction: &Transaction<'_>,
    client: ClientId,
    user: &str,
    kinds: &[TaskKind],
    now: i64,
) -> Result<Changed, Failure> {
    // A file that was taken over may have brought tasks that are nobody's.
    transaction.run_system(
        "update _tidelog_task set state = 'ready', instance = null, due = 0
         where state = 'started'
           and (instance is null or instance not in (select number from _tidelog_instance))",
        &[],
    )?;
    let rows = transaction.run_system(
        // By the time, too: in a document that is restored the count is one of before.
        "insert into _tidelog_meta values (?1, max(1, ?2))
         on conflict (key) do update set value = max(value + 1, excluded.value) returning value",
        &[Value::Text(INSTANCES_KEY.to_owned()), Value::Integer(now)],
    )?;
    let number = single_integer(&rows).unwrap_or_default();
    transaction.run_system(
        "insert into _tidelog_instance values (?1, ?2, ?3, ?4)",
        &[
            Value::Integer(number),
            Value::Blob(client.0.to_vec()),
            Value::Text(user.to_owned()),
            Value::Integer(now),
        ],
    )?;
    tried::handle(transaction, &Value::Integer(number), kinds)?;
    Ok(Changed::Registered(InstanceId(number.cast_unsigned())))
}

/// A task that is started, or not over, as far as its end needs it.
pub(super) struct Started {
    pub number: i64,
    pub aggregate: Value,
    pub stream: Value,
    pub name: String,
    pub args: Value,
    pub key: Value,
    pub user: Value,
    pub client: Value,
    pub failures: i64,
    pub records: i64,
    pub instance: i64,
    attempt: i64,
    is_run: bool,
    /// Whether another one of its stream is before it: that one's end is what the next waits for.
    is_waiting: bool,
}

pub(super) const STARTED: &str =
    "number, aggregate, stream, name, args, key, user, client, attempt, failures,
     coalesce(instance, 0), records, version is not null, state = 'waiting'";

impl Started {
    pub(super) fn of_row(row: &[Value]) -> Option<Self> {
        let [
            Value::Integer(number),
            aggregate,
            stream,
            Value::Text(name),
            args,
            key,
            user,
            client,
            Value::Integer(attempt),
            Value::Integer(failures),
            Value::Integer(instance),
            Value::Integer(records),
            Value::Integer(is_run),
            Value::Integer(is_waiting),
        ] = row
        else {
            return None;
        };
        Some(Self {
            number: *number,
            aggregate: aggregate.clone(),
            stream: stream.clone(),
            name: name.clone(),
            args: args.clone(),
            key: key.clone(),
            user: user.clone(),
            client: client.clone(),
            attempt: *attempt,
            failures: *failures,
            instance: *instance,
            records: *records,
            is_run: *is_run != 0,
            is_waiting: *is_waiting != 0,
        })
    }

    fn what(&self) -> &'static str {
        if self.is_run { "workflow" } else { "command" }
    }

    /// What the app says of it, if it is a command that it knows.
    pub fn definition<'d>(&self, doctype: &'d Doctype) -> Option<&'d CommandDefinition> {
        match &self.aggregate {
            Value::Text(aggregate) => doctype.command(aggregate, &self.name),
            _ => None,
        }
    }

    /// Who has sent it, for what follows from it.
    pub fn recorder<'d>(&self, doctype: &'d Doctype, now: i64) -> Recorder<'d> {
        let hex = match &self.client {
            Value::Blob(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            _ => String::new(),
        };
        Recorder {
            doctype,
            time: Value::Integer(now),
            user: self.user.clone(),
            client: self.client.clone(),
            client_text: Value::Text(hex),
            cause: Value::Text(format!("{}:{}", self.what(), self.number)),
        }
    }
}

/// Takes back one command that has taken too long; or lets runs go on that have slept, gives tasks
/// to those who have room for them, in turn, and forgets what was over long ago.
fn dispatch(
    writer: &mut Writer,
    doctype: &Doctype,
    free: &[Free],
    (server, now): (Option<JournalId>, i64),
) -> Run<(Changed, PageSet)> {
    let new_server = if done!(clocks::is_known(writer, server)) { None } else { server };
    let sql = format!(
        "select {STARTED} from _tidelog_task
         where due > 0 and due <= ?1 and ended is null and state = 'started' limit 1"
    );
    let late = done!(writer.query_system(&sql, &[Value::Integer(now)]));
    if new_server.is_none()
        && let Some(late) = late.first().and_then(|row| Started::of_row(row))
    {
        let end = commands::fail(writer, doctype, &late, "it has taken too long", false, now);
        let ((), set) = done!(end);
        return Run::Done((Changed::Dispatched { due_ms: None, again: true }, set));
    }
    writer.write(&mut |transaction| {
        if let Some(server) = new_server {
            clocks::take_over(transaction, doctype, server, now)?;
        }
        let more_awake = workflows::wake(transaction, now)?;
        end_foreign_pauses(transaction, now)?;
        let more_asked = tried::ask(transaction)?;
        let given = give(transaction, doctype, free, now)?;
        // What was over by another clock says nothing of how long it was kept.
        let is_left = clocks::replace(transaction, now)? || forget(transaction, now)?;
        let due = transaction.run_system(
            // What is more than nothing, too, is for the index; what is said first bounds it.
            "select min(due) from
             (select min(due) as due from _tidelog_task
              where state = 'started' and due > ?1 and due > 0 and ended is null
              union all
              select min(due) from _tidelog_task
              where state = 'ready' and due > ?1 and due > 0 and ended is null)",
            &[Value::Integer(now)],
        )?;
        let due = single_integer(&due).into_iter().chain(workflows::due(transaction, now)?).min();
        let due_ms = due.map(i64::cast_unsigned);
        let again = given == GIVEN_MAX || is_left || more_awake || more_asked;
        Ok(Changed::Dispatched { due_ms, again })
    })
}

/// A command that is tried again waits no longer than the longest pause: another clock has said so
/// that this one would not come to for longer, before it was set back, or on a device that has
/// handed the document over.
fn end_foreign_pauses(transaction: &Transaction<'_>, now: i64) -> Result<(), Failure> {
    let longest_ms = i64::try_from(COMMAND_BACKOFF_MS_MAX).unwrap_or(i64::MAX);
    let sql = "update _tidelog_task set due = 0
               where due > ?1 and due > 0 and ended is null and state = 'ready'";
    transaction.run_system(sql, &[Value::Integer(now.saturating_add(longest_ms))]).map(drop)
}

/// Gives tasks away, one to each in turn. Says how many.
fn give(
    transaction: &Transaction<'_>,
    doctype: &Doctype,
    free: &[Free],
    now: i64,
) -> Result<usize, Failure> {
    let held = transaction.run_system(
        "select instance, count(*) from _tidelog_task where state = 'started' group by instance",
        &[],
    )?;
    let held_by = |instance: InstanceId| {
        let number = number_value(instance.0);
        held.iter().find(|row| row[0] == number).map_or(0, |row| match row[1] {
            Value::Integer(count) => count.unsigned_abs() as usize,
            _ => 0,
        })
    };
    let mut free: Vec<(&Free, usize)> = free
        .iter()
        .map(|it| (it, (it.concurrency as usize).saturating_sub(held_by(it.instance))))
        .collect();
    let sql = "select exists (select 1 from _tidelog_tried)";
    let is_any_tried = transaction.run_system(sql, &[])?.first().is_some_and(|row| row[0] == HAS);
    let rounds = if is_any_tried { &[Round::Untried, Round::Tried][..] } else { &[Round::Tried] };
    let mut ready = BTreeMap::new();
    for kind in free.iter().filter(|(_, room)| *room > 0).flat_map(|(it, _)| &it.kinds) {
        if !ready.contains_key(kind) {
            ready.insert(kind, tried::unfit_for(transaction, kind)?);
        }
    }
    let giving = Giving { transaction, doctype, ready, now };
    let mut given = 0;
    for round in rounds {
        let mut asked: Vec<usize> = (0..free.len()).collect();
        while given < GIVEN_MAX && !asked.is_empty() {
            let mut still = Vec::new();
            for nth in asked {
                let (it, room) = &mut free[nth];
                let may = *room > 0 && given < GIVEN_MAX;
                if may && giving.give_one(it, *round)? {
                    given += 1;
                    *room -= 1;
                    still.push(nth);
                }
            }
            asked = still;
        }
    }
    Ok(given)
}

/// Tasks among which one is looked for that somebody has not tried in vain. Behind these it is
/// given the first one all the same: where there are many, they have failed at everybody.
const UNTRIED_LOOKED_AT_MAX: i64 = 64;

/// Who is asked: first those who have not tried a task in vain, then all whose code may fit it.
#[derive(Clone, Copy, PartialEq)]
enum Round {
    Untried,
    Tried,
}

/// Tasks of one dispatch, as they are given.
struct Giving<'a, 't> {
    transaction: &'a Transaction<'t>,
    doctype: &'a Doctype,
    /// Whom tasks that are ready do not fit, by their kind.
    ready: BTreeMap<&'a TaskKind, Vec<Unfit>>,
    now: i64,
}

impl Giving<'_, '_> {
    fn give_one(&self, free: &Free, round: Round) -> Result<bool, Failure> {
        for kind in &free.kinds {
            if let Some(number) = self.first(kind, free.instance, round)? {
                self.start(number, kind, free.instance)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The first task of a kind that somebody may be given. Of those that fit the same instances
    /// one search finds the first: nobody walks what does not fit it.
    fn first(
        &self,
        kind: &TaskKind,
        instance: InstanceId,
        round: Round,
    ) -> Result<Option<i64>, Failure> {
        let mut first = None;
        let ready = self.ready.get(kind).into_iter().flatten();
        for unfit in ready.filter(|it| !it.has(instance)) {
            let rows = self.transaction.run_system(
                "select due, number from
                 (select due, number from _tidelog_task
                  where state = 'ready' and aggregate = ?1 and name = ?2 and unfit = ?3
                    and due <= ?4
                  order by due, number limit ?7)
                 where ?5 or not exists (select 1 from _tidelog_tried
                                         where task = number and instance = ?6)
                 order by due, number limit 1",
                &[
                    Value::Text(kind.aggregate.clone()),
                    Value::Text(kind.name.clone()),
                    unfit.value(),
                    Value::Integer(self.now),
                    Value::Integer((round == Round::Tried).into()),
                    number_value(instance.0),
                    Value::Integer(if round == Round::Tried { 1 } else { UNTRIED_LOOKED_AT_MAX }),
                ],
            )?;
            if let Some([Value::Integer(due), Value::Integer(number)]) =
                rows.first().map(Vec::as_slice)
            {
                first = first.into_iter().chain([(*due, *number)]).min();
            }
        }
        Ok(first.map(|(_, number)| number))
    }

    fn start(&self, number: i64, kind: &TaskKind, instance: InstanceId) -> Result<(), Failure> {
        let TaskKind { aggregate, name } = kind;
        let number = Value::Integer(number);
        let sql = "select 1 from _tidelog_task where number = ?1 and version is not null";
        let is_run = !self.transaction.run_system(sql, std::slice::from_ref(&number))?.is_empty();
        let due = match is_run {
            true => 0,
            false => commands::late_from(self.doctype, aggregate, name, self.now),
        };
        self.transaction.write_system(
            "update _tidelog_task
             set state = 'started', attempt = attempt + 1, instance = ?2, due = ?3, woken = 0
             where number = ?1",
            &[number.clone(), number_value(instance.0), Value::Integer(due)],
        )?;
        if is_run { workflows::note_time(self.transaction, &number, self.now) } else { Ok(()) }
    }
}

/// Forgets keys, and then tasks, that were over long ago: some of them. Says whether there are
/// perhaps more.
fn forget(transaction: &Transaction<'_>, now: i64) -> Result<bool, Failure> {
    let limits = transaction.limits();
    let before =
        |ms: u64| Value::Integer(now.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)));
    let count = Value::Integer(FORGOTTEN_MAX);
    let most = usize::try_from(FORGOTTEN_MAX).unwrap_or(usize::MAX);
    let rows = transaction.run_system(
        "update _tidelog_task set key = null where number in
         (select number from _tidelog_task
          where ended is not null and key is not null and ended < ?1 order by ended limit ?2)
         returning number",
        &[before(limits.command_key_ms), count.clone()],
    )?;
    let mut is_left = rows.len() == most;
    let (completed, failed) = (limits.command_completed_ms, limits.command_failed_ms);
    for (state, ms) in [
        ("completed", completed),
        ("cancelled", completed),
        ("continued", completed),
        ("failed", failed),
    ] {
        let rows = transaction.run_system(
            "select number, exists (select 1 from _tidelog_record where task = it.number)
             from _tidelog_task as it
             where ended is not null and state = ?1 and ended < ?2 order by ended limit ?3",
            &[Value::Text(state.to_owned()), before(ms), count.clone()],
        )?;
        is_left |= rows.len() == most;
        for row in rows {
            let [number, has_records] = row.as_slice() else { continue };
            if *has_records == HAS && workflows::forget(transaction, number)?.1 {
                // The rest of them with the next dispatch.
                return Ok(true);
            }
            let number = std::slice::from_ref(number);
            transaction.run_system(NOTE_LAST_ENDING, number)?;
            transaction.run_system(NOTE_LAST_NUMBER, number)?;
            transaction.run_system("delete from _tidelog_task where number = ?1", number)?;
        }
    }
    Ok(is_left)
}

fn complete(
    writer: &mut Writer,
    doctype: &Doctype,
    instance: InstanceId,
    completion: &Completion,
    now: i64,
) -> Run<(Changed, PageSet)> {
    let sql =
        format!("select {STARTED} from _tidelog_task where number = ?1 and state = 'started'");
    let rows = done!(writer.query_system(&sql, &[number_value(completion.task)]));
    let counts = |it: &Started| {
        (it.instance.cast_unsigned(), it.attempt.cast_unsigned())
            == (instance.0, completion.attempt)
    };
    let started = rows.first().and_then(|row| Started::of_row(row)).filter(counts);
    let Some(task) = started else {
        return Run::Done((Changed::Completed(CompletionAnswer::Late), PageSet::default()));
    };
    if task.is_run {
        return workflows::complete(writer, doctype, &task, completion, now);
    }
    let (answer, set) = done!(commands::complete(writer, doctype, &task, completion, now));
    Run::Done((Changed::Completed(answer), set))
}

/// A task is over, and the next one of its stream is ready, unless this one was not either. `over`
/// are its first and last event,
/// reason and result.
pub(super) fn end(
    transaction: &Transaction<'_>,
    task: &Started,
    state: &str,
    [first, last, reason, result]: [Value; 4],
    now: i64,
) -> Result<(), Failure> {
    transaction.run_system(
        &format!(
            "update _tidelog_task
         set state = ?2, instance = null, due = 0, first = ?3, last = ?4, reason = ?5, result = ?6,
             ended = ?7, ending = {NEXT_ENDING}
         where number = ?1"
        ),
        &[
            Value::Integer(task.number),
            Value::Text(state.to_owned()),
            first,
            last,
            reason,
            result,
            Value::Integer(now),
        ],
    )?;
    match task.is_waiting {
        true => Ok(()),
        false => ready_next(transaction, [&task.aggregate, &task.stream]),
    }
}

/// A task of that stream is over, and the next one is ready.
pub(super) fn ready_next(
    transaction: &Transaction<'_>,
    [aggregate, stream]: [&Value; 2],
) -> Result<(), Failure> {
    transaction
        .run_system(
            "update _tidelog_task set state = 'ready' where state = 'waiting' and number =
             (select min(number) from _tidelog_task
              where aggregate = ?1 and stream = ?2 and ended is null)",
            &[aggregate.clone(), stream.clone()],
        )
        .map(drop)
}

fn number_value(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}
