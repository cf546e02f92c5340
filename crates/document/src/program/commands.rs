//! Commands: sent by mutations, given by the authority to those who handle them, and over once they
//! have completed with events, or failed.
//!
//! ```text
//! _tidelog_command   number -> aggregate, stream, name, args, key     in order of receipt
//!                           -> time, user, client     of who has sent it
//!                           -> state, attempt, failures, instance, due
//!                           -> first, last            its events, by their sequence
//!                           -> reason, ended          why it has failed, and when it was over
//! _tidelog_instance  number -> client, user, since    who handles commands
//! ```
//!
//! The states of a command:
//!
//! ```text
//! waiting ──▶ ready ──▶ started ──▶ completed
//!               ▲          │  └───▶ failed
//!               └──────────┘  tried again, or given to somebody else
//! ```
//!
//! Of a stream one command at most is ready or started, the oldest that is not over: the others
//! wait. To send one is a mutation like any other, which devices predict. All else is decided by
//! the authority alone, by its clock, and is no frame of anybody's: each step is a transaction of
//! its own.

use tidelog_sqlite::{Failure, InsertedEvent, Run, SystemQueries, Transaction, Writer};
use tidelog_sync::CompletionAnswer;
use tidelog_types::limits::{
    COMMAND_BACKOFF_MS, COMMAND_BACKOFF_MS_MAX, COMMAND_KEY_SIZE_MAX, COMPLETION_ITEMS_MAX,
};
use tidelog_types::{ClientId, PageSet, Value, shortened};

use super::events::{Recorder, read_data};
use super::{done, reason_of, single_integer, version};
use crate::commands::{Change, Changed, Completion, Free, InstanceId, Outcome, Work};
use crate::{CommandDefinition, Doctype};

/// Commands that one dispatch gives away.
const GIVEN_MAX: usize = 64;
/// What is over and is forgotten with one dispatch, of each kind.
const FORGOTTEN_MAX: i64 = 16;
/// The key in `_tidelog_meta` of how many instances there ever were.
const INSTANCES_KEY: &str = "instances";

/// What begins the reason for which a command is not received whose key stands for another one.
pub(crate) const KEY_REUSED: &str = "key reused: ";

/// The key in `_tidelog_meta` under which the version of these tables stands, and that.
pub(super) const META_KEY: &str = "commands";
const META_VERSION: i64 = 1;

/// Makes the tables of commands of a document that has none, and those of events.
pub(crate) fn begin(transaction: &Transaction<'_>) -> Result<(), Failure> {
    let statements = [
        "create table _tidelog_command (number integer primary key, aggregate text not null,
         stream text not null, name text not null, args text not null, key text,
         time integer not null, user text not null, client blob not null, state text not null,
         attempt integer not null, failures integer not null, instance integer,
         due integer not null, first integer, last integer, reason text, ended integer) strict",
        "create unique index _tidelog_command_key on _tidelog_command
         (aggregate, stream, name, key) where key is not null",
        "create index _tidelog_command_pending on _tidelog_command (aggregate, stream)
         where ended is null",
        "create index _tidelog_command_ready on _tidelog_command (aggregate, name, due)
         where state = 'ready'",
        "create index _tidelog_command_due on _tidelog_command (due)
         where due > 0 and ended is null",
        "create index _tidelog_command_held on _tidelog_command (instance)
         where state = 'started'",
        "create index _tidelog_command_kept on _tidelog_command (ended)
         where ended is not null and key is not null",
        "create index _tidelog_command_ended on _tidelog_command (state, ended)
         where ended is not null",
        "create view tidelog_commands (number, aggregate, stream, command, args, key, state,
                                       attempt, time, user, client, instance, first, last, reason,
                                       ended) as
         select number, aggregate, stream, name, args, key,
                iif(state in ('waiting', 'ready'), 'received', state), attempt, time, user,
                lower(hex(client)), instance, first, last, reason, ended
         from _tidelog_command",
        "create table _tidelog_instance (number integer primary key, client blob not null,
         user text not null, since integer not null) strict",
        "create view tidelog_instances (instance, client, user, since) as
         select number, lower(hex(client)), user, since from _tidelog_instance",
    ];
    statements.into_iter().try_for_each(|sql| transaction.run_system(sql, &[]).map(drop))?;
    transaction
        .run_system(
            "insert into _tidelog_meta values (?1, ?2)",
            &[Value::Text(META_KEY.to_owned()), Value::Integer(META_VERSION)],
        )
        .map(drop)
}

/// A command as somebody sends it.
pub(super) struct Sent<'s> {
    pub aggregate: &'s str,
    pub command: &'s CommandDefinition,
    pub stream: &'s Value,
    pub args: &'s Value,
    pub key: &'s Value,
}

/// Writes a command down, and runs what follows from its receipt. One with a key that was used for
/// the same before is that one.
pub(super) fn receive(
    transaction: &Transaction<'_>,
    sent: &Sent<'_>,
    by: &Recorder<'_>,
) -> Result<(), Failure> {
    let Sent { aggregate, command, stream, args, key } = *sent;
    let reject = |why: &str| Failure::Rejected {
        reason: format!("command {} of {aggregate} cannot be received: {why}", command.name),
    };
    if !matches!(key, Value::Text(key) if (1..=COMMAND_KEY_SIZE_MAX).contains(&key.len())) {
        return Err(reject(&format!("a key has 1 to {COMMAND_KEY_SIZE_MAX} bytes")));
    }
    let [Value::Text(stream_text), Value::Text(args_text)] = [stream, args] else {
        return Err(reject("it is sent with its stream and arguments, as texts"));
    };
    // As large as an event, and no larger.
    InsertedEvent::of_texts(aggregate, stream_text, &command.name, args_text)?;
    let (args, mut fields) =
        read_data(transaction, &command.fields, args)?.map_err(|why| reject(&why))?;
    let (aggregate, name) = (Value::Text(aggregate.to_owned()), Value::Text(command.name.clone()));
    let kept = transaction.run_system(
        "select args from _tidelog_command
         where aggregate = ?1 and stream = ?2 and name = ?3 and key = ?4",
        &[aggregate.clone(), stream.clone(), name.clone(), key.clone()],
    )?;
    if let Some(kept) = kept.first().and_then(|row| row.first()) {
        return if *kept == args {
            Ok(())
        } else {
            let reason = format!(
                "{KEY_REUSED}{} of {stream_text} was sent by it before, with other arguments",
                command.name
            );
            Err(Failure::Rejected { reason })
        };
    }
    transaction.run_system(
        "insert into _tidelog_command
         select null, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8,
                iif(exists (select 1 from _tidelog_command
                            where aggregate = ?1 and stream = ?2 and ended is null),
                    'waiting', 'ready'),
                0, 0, null, 0, null, null, null, null",
        &[
            aggregate,
            stream.clone(),
            name,
            args,
            key.clone(),
            by.time.clone(),
            by.user.clone(),
            by.client.clone(),
        ],
    )?;
    fields.extend([
        ("stream", stream.clone()),
        ("key", key.clone()),
        ("now", by.time.clone()),
        ("client", by.client_text.clone()),
        ("user", by.user.clone()),
    ]);
    run_all(transaction, &command.received, &fields)
}

fn run_all(
    transaction: &Transaction<'_>,
    statements: &[String],
    args: &[(&str, Value)],
) -> Result<(), Failure> {
    let args: Vec<(&str, &Value)> = args.iter().map(|(name, value)| (*name, value)).collect();
    statements.iter().try_for_each(|sql| transaction.run_app(sql, &args))
}

/// Who handles commands of a document, and whether there are any.
pub(crate) fn work(queries: &mut dyn SystemQueries) -> Run<Work> {
    if !done!(version(queries)).is_some_and(|version| version.has_commands) {
        return Run::Done(Work::default());
    }
    let rows = done!(queries.query_system("select number, client from _tidelog_instance", &[]));
    let instances = rows.iter().filter_map(|row| match row.as_slice() {
        [Value::Integer(number), Value::Blob(client)] => {
            let client = ClientId(client.as_slice().try_into().ok()?);
            Some((InstanceId(number.cast_unsigned()), client))
        }
        _ => None,
    });
    let instances = instances.collect();
    let sql = "select 1 from _tidelog_command where ended is null limit 1";
    let is_pending = !done!(queries.query_system(sql, &[])).is_empty();
    Run::Done(Work { instances, is_pending })
}

/// Carries out what the authority decides. Nothing has changed where the pages say so.
pub(crate) fn change(
    writer: &mut Writer,
    doctype: &Doctype,
    change: &Change,
    now_ms: u64,
) -> Run<(Changed, PageSet)> {
    let now = i64::try_from(now_ms).unwrap_or(i64::MAX);
    match change {
        Change::Register { client, user } => {
            writer.write(&mut |transaction| register(transaction, *client, user, now))
        }
        Change::Deregister(instance) => writer.write(&mut |transaction| {
            let instance = [number_value(instance.0)];
            transaction.run_system(
                "update _tidelog_command set state = 'ready', instance = null, due = 0
                 where state = 'started' and instance = ?1",
                &instance,
            )?;
            let sql = "delete from _tidelog_instance where number = ?1";
            transaction.run_system(sql, &instance)?;
            Ok(Changed::Deregistered)
        }),
        Change::Dispatch(free) => dispatch(writer, doctype, free, now),
        Change::Complete { instance, completion } => {
            complete(writer, doctype, *instance, completion, now)
        }
    }
}

fn register(
    transaction: &Transaction<'_>,
    client: ClientId,
    user: &str,
    now: i64,
) -> Result<Changed, Failure> {
    // A file that was taken over may have brought commands that are nobody's.
    transaction.run_system(
        "update _tidelog_command set state = 'ready', instance = null, due = 0
         where state = 'started'
           and (instance is null or instance not in (select number from _tidelog_instance))",
        &[],
    )?;
    let rows = transaction.run_system(
        "insert into _tidelog_meta values (?1, 1)
         on conflict (key) do update set value = value + 1 returning value",
        &[Value::Text(INSTANCES_KEY.to_owned())],
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
    Ok(Changed::Registered(InstanceId(number.cast_unsigned())))
}

/// A command that is started, as far as its end needs it.
struct Started {
    number: i64,
    aggregate: Value,
    stream: Value,
    name: String,
    args: Value,
    key: Value,
    user: Value,
    client: Value,
    attempt: i64,
    failures: i64,
    instance: i64,
}

const STARTED: &str = "number, aggregate, stream, name, args, key, user, client, attempt, failures,
                       instance";

impl Started {
    fn of_row(row: &[Value]) -> Option<Self> {
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
        })
    }

    fn definition<'d>(&self, doctype: &'d Doctype) -> Option<&'d CommandDefinition> {
        match &self.aggregate {
            Value::Text(aggregate) => doctype.command(aggregate, &self.name),
            _ => None,
        }
    }

    /// Who has sent it, for what follows from it.
    fn recorder<'d>(&self, doctype: &'d Doctype, now: i64) -> Recorder<'d> {
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
            cause: Value::Text(format!("command:{}", self.number)),
        }
    }
}

/// Takes back one command that has taken too long; or gives commands to those who have room for
/// them, in turn, and forgets what was over long ago.
fn dispatch(
    writer: &mut Writer,
    doctype: &Doctype,
    free: &[Free],
    now: i64,
) -> Run<(Changed, PageSet)> {
    let sql = format!(
        "select {STARTED} from _tidelog_command
         where due > 0 and due <= ?1 and ended is null and state = 'started' limit 1"
    );
    let late = done!(writer.query_system(&sql, &[Value::Integer(now)]));
    if let Some(late) = late.first().and_then(|row| Started::of_row(row)) {
        let end = fail(writer, doctype, &late, "it has taken too long", false, now);
        let ((), set) = done!(end);
        return Run::Done((Changed::Dispatched { due_ms: None, again: true }, set));
    }
    writer.write(&mut |transaction| {
        let given = give(transaction, doctype, free, now)?;
        let is_left = forget(transaction, now)?;
        let due = transaction.run_system(
            // What is more than nothing, too, lets it be found by the index.
            "select min(due) from _tidelog_command where due > 0 and due > ?1 and ended is null",
            &[Value::Integer(now)],
        )?;
        let due_ms = single_integer(&due).map(i64::cast_unsigned);
        Ok(Changed::Dispatched { due_ms, again: given == GIVEN_MAX || is_left })
    })
}

/// Gives commands away, one to each in turn. Says how many.
fn give(
    transaction: &Transaction<'_>,
    doctype: &Doctype,
    free: &[Free],
    now: i64,
) -> Result<usize, Failure> {
    let held = transaction.run_system(
        "select instance, count(*) from _tidelog_command where state = 'started' group by instance",
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
        .filter(|(_, room)| *room > 0)
        .collect();
    let mut given = 0;
    while given < GIVEN_MAX && !free.is_empty() {
        let mut still = Vec::new();
        for (it, room) in free {
            if given < GIVEN_MAX && give_one(transaction, doctype, it, now)? {
                given += 1;
                if room > 1 {
                    still.push((it, room - 1));
                }
            }
        }
        free = still;
    }
    Ok(given)
}

fn give_one(
    transaction: &Transaction<'_>,
    doctype: &Doctype,
    free: &Free,
    now: i64,
) -> Result<bool, Failure> {
    for kind in &free.kinds {
        let timeout_ms =
            doctype.command(&kind.aggregate, &kind.name).map_or(0, |it| i64::from(it.timeout_ms));
        let due = if timeout_ms == 0 { 0 } else { now.saturating_add(timeout_ms) };
        let given = transaction.run_system(
            "update _tidelog_command
             set state = 'started', attempt = attempt + 1, instance = ?4, due = ?5
             where number = (select number from _tidelog_command
                             where state = 'ready' and aggregate = ?1 and name = ?2 and due <= ?3
                             order by due, number limit 1)
             returning number",
            &[
                Value::Text(kind.aggregate.clone()),
                Value::Text(kind.name.clone()),
                Value::Integer(now),
                number_value(free.instance.0),
                Value::Integer(due),
            ],
        )?;
        if !given.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Forgets keys, and then commands, that were over long ago: some of them. Says whether there are
/// perhaps more.
fn forget(transaction: &Transaction<'_>, now: i64) -> Result<bool, Failure> {
    let limits = transaction.limits();
    let before =
        |ms: u64| Value::Integer(now.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)));
    let count = Value::Integer(FORGOTTEN_MAX);
    let most = usize::try_from(FORGOTTEN_MAX).unwrap_or(usize::MAX);
    let rows = transaction.run_system(
        "update _tidelog_command set key = null where number in
         (select number from _tidelog_command
          where ended is not null and key is not null and ended < ?1 order by ended limit ?2)
         returning number",
        &[before(limits.command_key_ms), count.clone()],
    )?;
    let mut is_left = rows.len() == most;
    for (state, ms) in
        [("completed", limits.command_completed_ms), ("failed", limits.command_failed_ms)]
    {
        let rows = transaction.run_system(
            "delete from _tidelog_command where number in
             (select number from _tidelog_command
              where ended is not null and state = ?1 and ended < ?2 order by ended limit ?3)
             returning number",
            &[Value::Text(state.to_owned()), before(ms), count.clone()],
        )?;
        is_left |= rows.len() == most;
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
    let refused = |why| Run::Done((Changed::Completed(why), PageSet::default()));
    let sql =
        format!("select {STARTED} from _tidelog_command where number = ?1 and state = 'started'");
    let rows = done!(writer.query_system(&sql, &[number_value(completion.command)]));
    let Some(command) = rows.first().and_then(|row| Started::of_row(row)) else {
        return refused(CompletionAnswer::Late);
    };
    if (command.instance.cast_unsigned(), command.attempt.cast_unsigned())
        != (instance.0, completion.attempt)
    {
        return refused(CompletionAnswer::Late);
    }
    let ended = match &completion.outcome {
        Outcome::Failed { reason, is_final } => {
            fail(writer, doctype, &command, reason, *is_final, now)
        }
        Outcome::Completed { events, sends } => {
            let length = done!(writer.query_system(
                "select length from _tidelog_stream where aggregate = ?1 and stream = ?2",
                &[command.aggregate.clone(), command.stream.clone()],
            ));
            if single_integer(&length).unwrap_or(0).cast_unsigned() != completion.position {
                return refused(CompletionAnswer::Stale);
            }
            if events.len() > COMPLETION_ITEMS_MAX || sends.len() > COMPLETION_ITEMS_MAX {
                let why = format!("it has over {COMPLETION_ITEMS_MAX} events, or sends");
                fail(writer, doctype, &command, &why, true, now)
            } else {
                let ran = writer.write(&mut |transaction| {
                    carry_out(transaction, doctype, &command, &completion.outcome, now)
                });
                match ran {
                    Run::Failed(failure) => match reason_of(failure) {
                        // It breaks a rule: so it would each time.
                        Ok(reason) => fail(writer, doctype, &command, &reason, true, now),
                        Err(failure) => Run::Failed(failure),
                    },
                    ran => ran,
                }
            }
        }
    };
    ended.map(|((), set)| (Changed::Completed(CompletionAnswer::Done), set))
}

/// A command has completed: its events, what follows from them, and what it sends, at once.
fn carry_out(
    transaction: &Transaction<'_>,
    doctype: &Doctype,
    command: &Started,
    outcome: &Outcome,
    now: i64,
) -> Result<(), Failure> {
    let Outcome::Completed { events, sends } = outcome else { return Ok(()) };
    let recorder = command.recorder(doctype, now);
    let [Value::Text(aggregate), Value::Text(stream)] = [&command.aggregate, &command.stream]
    else {
        unreachable!("BUG: a command without its stream")
    };
    for event in events {
        let event = InsertedEvent::of_texts(aggregate, stream, &event.name, &event.data)?;
        recorder.record(transaction, event)?;
    }
    for sent in sends {
        let Some(definition) = doctype.command(&sent.aggregate, &sent.name) else {
            let reason = format!("there is no command {} of {}", sent.name, sent.aggregate);
            return Err(Failure::Rejected { reason });
        };
        let texts = [&sent.stream, &sent.args, &sent.key].map(|it| Value::Text(it.clone()));
        let [stream, args, key] = &texts;
        let sent = Sent { aggregate: &sent.aggregate, command: definition, stream, args, key };
        receive(transaction, &sent, &recorder)?;
    }
    let sql = "select max(sequence) from _tidelog_event";
    let last = match events.is_empty() {
        true => None,
        false => single_integer(&transaction.run_system(sql, &[])?),
    };
    let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
    let sequence = |it: Option<i64>| it.map_or(Value::Null, Value::Integer);
    let first = sequence(last.map(|last| last - count + 1));
    end(transaction, command, "completed", [first, sequence(last), Value::Null], now)
}

/// An attempt has come to nothing: it is tried again later, or the command has failed for good.
fn fail(
    writer: &mut Writer,
    doctype: &Doctype,
    command: &Started,
    reason: &str,
    is_final: bool,
    now: i64,
) -> Run<((), PageSet)> {
    let definition = command.definition(doctype);
    let retries = definition.map_or(0, |it| i64::from(it.retries));
    let reason = shortened(reason.to_owned());
    if !is_final && command.failures < retries {
        return writer.write(&mut |transaction| try_later(transaction, command, &reason, now));
    }
    let ran = writer.write(&mut |transaction| {
        if let Some(definition) = definition {
            run_failed(transaction, doctype, definition, command, &reason, now)?;
        }
        end_failed(transaction, command, &reason, now)
    });
    match ran {
        Run::Failed(failure) => match reason_of(failure) {
            Ok(second) => {
                let reason = format!("{reason}; and what follows from that failed: {second}");
                writer.write(&mut |transaction| {
                    end_failed(transaction, command, &shortened(reason.clone()), now)
                })
            }
            Err(failure) => Run::Failed(failure),
        },
        ran => ran,
    }
}

fn try_later(
    transaction: &Transaction<'_>,
    command: &Started,
    reason: &str,
    now: i64,
) -> Result<(), Failure> {
    let doublings = u32::try_from(command.failures).unwrap_or(u32::MAX).min(20);
    let backoff_ms = (COMMAND_BACKOFF_MS << doublings).min(COMMAND_BACKOFF_MS_MAX);
    let due = now.saturating_add(i64::try_from(backoff_ms).unwrap_or(i64::MAX));
    transaction
        .run_system(
            "update _tidelog_command
             set state = 'ready', instance = null, failures = failures + 1, reason = ?2, due = ?3
             where number = ?1",
            &[Value::Integer(command.number), Value::Text(reason.to_owned()), Value::Integer(due)],
        )
        .map(drop)
}

fn run_failed(
    transaction: &Transaction<'_>,
    doctype: &Doctype,
    definition: &CommandDefinition,
    command: &Started,
    reason: &str,
    now: i64,
) -> Result<(), Failure> {
    // Another release of the app may have had other arguments.
    let read = read_data(transaction, &definition.fields, &command.args)?;
    let (_, mut fields) = read.map_err(|reason| Failure::Rejected { reason })?;
    let by = command.recorder(doctype, now);
    fields.extend([
        ("stream", command.stream.clone()),
        ("key", command.key.clone()),
        ("now", by.time.clone()),
        ("client", by.client_text.clone()),
        ("user", by.user.clone()),
        ("reason", Value::Text(reason.to_owned())),
    ]);
    run_all(transaction, &definition.failed, &fields)
}

fn end_failed(
    transaction: &Transaction<'_>,
    command: &Started,
    reason: &str,
    now: i64,
) -> Result<(), Failure> {
    let why = Value::Text(reason.to_owned());
    end(transaction, command, "failed", [Value::Null, Value::Null, why], now)
}

/// A command is over, and the next one of its stream is ready.
fn end(
    transaction: &Transaction<'_>,
    command: &Started,
    state: &str,
    [first, last, reason]: [Value; 3],
    now: i64,
) -> Result<(), Failure> {
    transaction.run_system(
        "update _tidelog_command
         set state = ?2, instance = null, due = 0, first = ?3, last = ?4, reason = ?5, ended = ?6
         where number = ?1",
        &[
            Value::Integer(command.number),
            Value::Text(state.to_owned()),
            first,
            last,
            reason,
            Value::Integer(now),
        ],
    )?;
    transaction
        .run_system(
            "update _tidelog_command set state = 'ready' where state = 'waiting' and number =
             (select min(number) from _tidelog_command
              where aggregate = ?1 and stream = ?2 and ended is null)",
            &[command.aggregate.clone(), command.stream.clone()],
        )
        .map(drop)
}

fn number_value(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}
