//! Runs of workflows: what they remember, what they wait for, and what lets them go on.
//!
//! ```text
//! _tidelog_record  number -> task, name, count   whose, and how it finds it again; of what a run
//!                                                has heard in the order in which it has
//!                         -> kind                step, request, sleep, event, command, workflow or
//!                                                cancel; seen: no record of its own, but which
//!                                                event of a kind the run was given last before it
//!                                                went on as new
//!                         -> state               started (a request), waiting, done or failed
//!                         -> result, time        null until it is known
//!                         -> due                 when a sleep is over, or a wait
//!                         -> aggregate, stream, event    what it waits for
//!                         -> awaited, is_own     which task it waits for, and whether that began
//!                                                with it
//! ```
//!
//! Whatever a run waits for changes its record where it happens: an event by whoever records it, in
//! the same transaction, which a device predicts; the end of a task with that; time as the
//! authority gives tasks to those who handle them. A changed record lets its run go on.

use tidelog_sqlite::{Failure, InsertedEvent, Run, Transaction, Writer};
use tidelog_sync::CompletionAnswer;
use tidelog_types::limits::{
    COMMAND_KEY_SIZE_MAX, COMPLETION_ITEMS_MAX, RECORD_NAME_SIZE_MAX, RECORD_SIZE_MAX,
    WORKFLOW_RECORDS_MAX, WORKFLOW_SEEN_BEHIND_MAX, WORKFLOW_SEEN_KINDS_MAX,
};
use tidelog_types::{PageSet, Value, shortened};

use super::events::{Recorder, read_data};
use super::tasks::{self, NEXT_ENDING, NEXT_NUMBER, Received, Started};
use super::{HAS, clocks, commands, reason_of, single_integer, tried};
use crate::tasks::{Changed, Completion, Outcome};
use crate::workflows::{NewRecord, NewRun, Recorded};
use crate::{Doctype, WorkflowDefinition};

/// Records whose time has come that one dispatch changes.
const AWAKE_MAX: i64 = 64;
/// Records that a run hears of as it is given, and bytes of their results, with one more.
const HEARD_MAX: i64 = 1024;
const HEARD_SIZE_MAX: i64 = 256 * 1024;
/// Records that are forgotten at a time, and bytes of their results, with one more than those.
const FORGOTTEN_MAX: i64 = 1024;
const FORGOTTEN_SIZE_MAX: i64 = 4 * 1024 * 1024;
/// Records of one message that cannot be, before the run has failed for that.
const REFUSED_MAX: usize = 16;
/// Runs that are cancelled with the one that has started them.
const CANCELLED_MAX: usize = 1024;

/// Why a run is over that was cancelled.
const CANCELLED: &str = "cancelled";

/// Whether run ?1 has heard that it is cancelled, or what it goes on from has, as SQL.
pub(super) const HAS_HEARD: &str = "
    (exists (select 1 from _tidelog_record where task = ?1 and kind = 'cancel')
     or (select cancelled from _tidelog_task where number = ?1) = 2)";

/// The tables of what runs remember, with those of tasks.
pub(super) const STATEMENTS: [&str; 13] = [
    "create table _tidelog_record (number integer primary key, task integer not null,
     name text not null, count integer not null, kind text not null, state text not null,
     result text, time integer, due integer not null, aggregate text, stream text, event text,
     awaited integer, is_own integer not null) strict",
    "create unique index _tidelog_record_name on _tidelog_record (task, name, count)",
    "create index _tidelog_record_task on _tidelog_record (task)",
    "create index _tidelog_record_due on _tidelog_record (due) where due > 0",
    "create index _tidelog_record_event on _tidelog_record (aggregate, stream, event)
     where state = 'waiting' and event is not null",
    "create index _tidelog_record_awaited on _tidelog_record (awaited)
     where state = 'waiting' and awaited is not null",
    "create index _tidelog_record_untimed on _tidelog_record (task) where time is null",
    "create trigger _tidelog_record_event_happens after insert on _tidelog_event begin
       update _tidelog_record
       set state = 'done', result = cast(new.sequence as text), time = null, due = 0
       where number in
         (select min(number) from _tidelog_record
          where state = 'waiting' and event is not null and event = new.type
            and (aggregate, stream) = (select of.aggregate, of.stream from _tidelog_stream as of
                                       where of.number = new.stream)
          group by task);
     end",
    "create trigger _tidelog_task_over after update of ended on _tidelog_task
     when old.ended is null and new.ended is not null begin
       update _tidelog_record
       set state = iif(new.state = 'completed', 'done', 'failed'), time = null,
           result = iif(new.state <> 'completed', new.reason,
                        iif(new.version is null,
                            json_object('first', new.first, 'last', new.last), new.result))
       where state = 'waiting' and awaited is not null and awaited = new.number;
     end",
    "create trigger _tidelog_record_resolved after update of state on _tidelog_record
     when old.state = 'waiting' begin
       update _tidelog_task set woken = 1, state = iif(state = 'suspended', 'ready', state)
       where number = new.task and ended is null;
     end",
    "create view tidelog_workflows (number, workflow, id, version, args, state, attempt, time,
                                    user, client, instance, records, is_cancelled, result, reason,
                                    ended) as
     select number, aggregate, stream, version, args,
            case when state in ('waiting', 'ready') and attempt = 0 then 'received'
                 when state in ('ready', 'suspended') then 'waiting' else state end,
            attempt, time, user, lower(hex(client)), instance, records, cancelled > 0, result,
            reason, abs(ended)
     from _tidelog_task where version is not null",
    "create view tidelog_records (record, number, workflow, id, name, count, kind, state, result,
                                  time, due) as
     select record.number, task.number, task.aggregate, task.stream, record.name, record.count,
            record.kind, record.state, record.result, record.time, nullif(record.due, 0)
     from _tidelog_record as record join _tidelog_task as task on task.number = record.task
     where record.kind <> 'seen'",
    "create view tidelog_requests (record, number, workflow, id, name, count, state, result,
                                   time) as
     select record, number, workflow, id, name, count, state, result, time
     from tidelog_records where kind = 'request'",
];

/// A run is started, by a mutation or another task. One of that id and those arguments is that one.
/// Says which, and whether it is new.
pub(super) fn receive(
    transaction: &Transaction<'_>,
    workflow: &WorkflowDefinition,
    [id, args]: [&Value; 2],
    by: &Recorder<'_>,
) -> Result<(i64, bool), Failure> {
    let reject = |why: &str| Failure::Rejected {
        reason: format!("workflow {} cannot be started: {why}", workflow.name),
    };
    let [Value::Text(id_text), Value::Text(args_text)] = [id, args] else {
        return Err(reject("it is started with its id and arguments, as texts"));
    };
    if !(1..=COMMAND_KEY_SIZE_MAX).contains(&id_text.len()) {
        return Err(reject(&format!("an id has 1 to {COMMAND_KEY_SIZE_MAX} bytes")));
    }
    // As large as an event, and no larger.
    InsertedEvent::of_texts(&workflow.name, id_text, "run", args_text)?;
    let (args, _) = read_data(transaction, &workflow.fields, args)?.map_err(|why| reject(&why))?;
    let received = Received {
        aggregate: workflow.name.clone(),
        stream: id.clone(),
        name: workflow.version.to_string(),
        args,
        key: id.clone(),
        version: Some(workflow.version),
    };
    tasks::receive(transaction, received, by)
}

/// Starts a run for another task.
pub(super) fn start(
    transaction: &Transaction<'_>,
    doctype: &Doctype,
    run: &NewRun,
    by: &Recorder<'_>,
) -> Result<(i64, bool), Failure> {
    let Some(workflow) = doctype.workflow(&run.workflow) else {
        return Err(Failure::Rejected { reason: format!("there is no workflow {}", run.workflow) });
    };
    let texts = [&run.id, &run.args].map(|it| Value::Text(it.clone()));
    let [id, args] = &texts;
    receive(transaction, workflow, [id, args], by)
}

/// A run is to hear that it is cancelled, and so are those that it waits for and has started; one
/// that nobody has begun is over. Of one that is over nothing changes, nor of what one that has
/// heard already waits for: that may be what undoes the rest.
pub(super) fn cancel(
    transaction: &Transaction<'_>,
    workflow: &WorkflowDefinition,
    id: &Value,
    by: &Recorder<'_>,
) -> Result<(), Failure> {
    let named = [Value::Text(workflow.name.clone()), id.clone()];
    let rows = transaction.run_system(
        "select number from _tidelog_task
         where aggregate = ?1 and stream = ?2 and ended is null and version is not null",
        &named,
    )?;
    if rows.is_empty() {
        let known = transaction.run_system(
            "select 1 from _tidelog_task
             where aggregate = ?1 and stream = ?2 and key = ?2 and version is not null",
            &named,
        )?;
        let reason = format!("there is no run {} of workflow {}", text_of(id), workflow.name);
        return if known.is_empty() { Err(Failure::Rejected { reason }) } else { Ok(()) };
    }
    cancel_each(transaction, rows.into_iter().flatten().collect(), by)
}

/// Those, and what each has started and waits for.
fn cancel_each(
    transaction: &Transaction<'_>,
    mut numbers: Vec<Value>,
    by: &Recorder<'_>,
) -> Result<(), Failure> {
    let mut next = 0;
    while let Some(number) = numbers.get(next).cloned() {
        next += 1;
        let room = i64::try_from(CANCELLED_MAX.saturating_sub(numbers.len())).unwrap_or(0);
        let own = transaction.run_system(
            &format!(
                "select awaited from _tidelog_record
                 where task = ?1 and kind = 'workflow' and state = 'waiting' and is_own = 1
                   and not {HAS_HEARD}
                 limit ?2"
            ),
            &[number.clone(), Value::Integer(room)],
        )?;
        numbers.extend(own.into_iter().flatten());
        transaction.run_system(
            &format!(
                "update _tidelog_task
                 set cancelled = 1, woken = 1,
                     state = iif(state in ('suspended', 'stopped'), 'ready', state)
                 where number = ?1 and ended is null and not {HAS_HEARD}
                   and (attempt > 0 or begun_with is not null)"
            ),
            std::slice::from_ref(&number),
        )?;
        let over = transaction.run_system(
            &format!(
                "update _tidelog_task
                 set cancelled = 1, state = 'cancelled', reason = ?2, ended = ?3,
                     ending = {NEXT_ENDING}
                 where number = ?1 and ended is null and attempt = 0 and begun_with is null
                 returning aggregate, stream"
            ),
            &[number, Value::Text(CANCELLED.to_owned()), clocks::foreign(&by.time)],
        )?;
        // Another release may have commands of that name.
        if let Some([workflow, id]) = over.first().map(Vec::as_slice) {
            tasks::ready_next(transaction, [workflow, id])?;
        }
    }
    Ok(())
}

/// Whether a run that was cancelled has not heard of it.
fn is_to_hear_of_cancel(transaction: &Transaction<'_>, run: &Started) -> Result<bool, Failure> {
    let rows = transaction.run_system(
        &format!(
            "select 1 from _tidelog_task where number = ?1 and cancelled = 1 and not {HAS_HEARD}"
        ),
        &[Value::Integer(run.number)],
    )?;
    Ok(!rows.is_empty())
}

/// Lets runs go on whose time has come: some of them. Says whether there are perhaps more.
pub(super) fn wake(transaction: &Transaction<'_>, now: i64) -> Result<bool, Failure> {
    let rows = transaction.run_system(
        "update _tidelog_record set state = 'done', due = 0, time = null where number in
         (select number from _tidelog_record where due > 0 and due <= ?1 order by due limit ?2)
         returning number",
        &[Value::Integer(now), Value::Integer(AWAKE_MAX)],
    )?;
    Ok(i64::try_from(rows.len()) == Ok(AWAKE_MAX))
}

/// When the time of the next one comes, if ever.
pub(super) fn due(transaction: &Transaction<'_>, now: i64) -> Result<Option<i64>, Failure> {
    let rows = transaction.run_system(
        // What is more than nothing, too, lets it be found by the index.
        "select min(due) from _tidelog_record where due > ?1 and due > 0",
        &[Value::Integer(now)],
    )?;
    Ok(single_integer(&rows))
}

/// A run is given to somebody, who hears of what has happened until then as of now: by whose clock
/// it happened is nothing to go by. It stands behind all that the run has heard before, so that
/// each attempt hears of everything in the same order. What is too much at a time it hears with the
/// next attempt.
pub(super) fn note_time(
    transaction: &Transaction<'_>,
    task: &Value,
    now: i64,
) -> Result<(), Failure> {
    let heard = transaction.run_system(
        "select number from
         (select number, sum(size) over (order by number
                             rows between unbounded preceding and 1 preceding) as before
          from (select number, coalesce(octet_length(result), 0) as size from _tidelog_record
                where task = ?1 and time is null and state <> 'waiting'
                order by number limit ?2))
         where before is null or before <= ?3 order by number",
        &[task.clone(), Value::Integer(HEARD_MAX), Value::Integer(HEARD_SIZE_MAX)],
    )?;
    if heard.is_empty() {
        return Ok(());
    }
    for number in heard.into_iter().flatten() {
        transaction.run_system(
            "update _tidelog_record
             set number = (select max(number) + 1 from _tidelog_record), time = ?2
             where number = ?1",
            &[number, Value::Integer(now)],
        )?;
    }
    transaction
        .run_system(
            "update _tidelog_task set woken = 1 where number = ?1 and exists
             (select 1 from _tidelog_record
              where task = ?1 and time is null and state <> 'waiting')",
            std::slice::from_ref(task),
        )
        .map(drop)
}

/// Forgets records of a task that is over: some of them. Says how many, and whether there are more.
pub(super) fn forget(
    transaction: &Transaction<'_>,
    task: &Value,
) -> Result<(usize, bool), Failure> {
    let forgotten = transaction.run_system(
        "delete from _tidelog_record where number in
         (select number from
          (select number, sum(size) over (order by number
                              rows between unbounded preceding and 1 preceding) as before
           from (select number, coalesce(octet_length(result), 0) as size from _tidelog_record
                 where task = ?1 order by number limit ?2))
          where before is null or before <= ?3)
         returning kind <> 'seen'",
        &[task.clone(), Value::Integer(FORGOTTEN_MAX), Value::Integer(FORGOTTEN_SIZE_MAX)],
    )?;
    let sql = "select 1 from _tidelog_record where task = ?1 limit 1";
    let left = transaction.run_system(sql, std::slice::from_ref(task))?;
    Ok((forgotten.iter().filter(|row| row[0] == HAS).count(), !left.is_empty()))
}

/// An attempt at a run has come to an end, or so far.
pub(super) fn complete(
    writer: &mut Writer,
    doctype: &Doctype,
    run: &Started,
    completion: &Completion,
    now: i64,
) -> Run<(Changed, PageSet)> {
    let ended = match &completion.outcome {
        Outcome::Progressed { records, suspends } => {
            return match why_not_remembered(records) {
                None => progress(writer, doctype, run, (records, *suspends), now),
                Some(reason) => fail_amid(writer, run, &reason, now),
            };
        }
        Outcome::Returned { result } => {
            let ran = writer.write(&mut |transaction| {
                transaction.bound_as_apps();
                check_result(transaction, result)?;
                let over = [Value::Null, Value::Null, Value::Null, Value::Text(result.clone())];
                tasks::end(transaction, run, "completed", over, now)
            });
            or_failed(writer, run, ran, now)
        }
        Outcome::Continued { args } => {
            let told = i64::try_from(completion.position).unwrap_or(i64::MAX);
            let ran = writer.write(&mut |transaction| {
                go_on_as_new(transaction, doctype, run, (args, told), now)
            });
            or_failed(writer, run, ran, now)
        }
        Outcome::Stopped { reason } => {
            writer.write(&mut |transaction| tried::stop(transaction, run, reason))
        }
        Outcome::Cancelled => writer.write(&mut |transaction| {
            let why = Value::Text(CANCELLED.to_owned());
            let over = [Value::Null, Value::Null, why, Value::Null];
            tasks::end(transaction, run, "cancelled", over, now)
        }),
        Outcome::Failed { reason, .. } => fail(writer, run, reason, now),
        Outcome::Completed { .. } => fail(writer, run, "it has ended as no workflow does", now),
    };
    ended.map(|((), set)| (Changed::Completed(CompletionAnswer::Done), set))
}

/// The run has failed for good where what it has come to cannot be written down.
fn or_failed(
    writer: &mut Writer,
    run: &Started,
    ran: Run<((), PageSet)>,
    now: i64,
) -> Run<((), PageSet)> {
    match ran {
        Run::Failed(failure) => match reason_of(failure) {
            Ok(reason) => fail(writer, run, &reason, now),
            Err(failure) => Run::Failed(failure),
        },
        ran => ran,
    }
}

fn fail(writer: &mut Writer, run: &Started, reason: &str, now: i64) -> Run<((), PageSet)> {
    writer.write(&mut |transaction| {
        let why = Value::Text(shortened(reason.to_owned()));
        let over = [Value::Null, Value::Null, why, Value::Null];
        tasks::end(transaction, run, "failed", over, now)
    })
}

/// The run has failed for good, though its handler meant to go on: the attempt counts no longer.
fn fail_amid(
    writer: &mut Writer,
    run: &Started,
    reason: &str,
    now: i64,
) -> Run<(Changed, PageSet)> {
    fail(writer, run, reason, now)
        .map(|((), set)| (Changed::Completed(CompletionAnswer::Late), set))
}

fn why_not_remembered(records: &[NewRecord]) -> Option<String> {
    if records.len() > COMPLETION_ITEMS_MAX {
        return Some(format!("it has over {COMPLETION_ITEMS_MAX} records at a time"));
    }
    let is_right = |it: &NewRecord| (1..=RECORD_NAME_SIZE_MAX).contains(&it.name.len());
    if !records.iter().all(is_right) {
        return Some(format!(
            "the name of what it records has not 1 to {RECORD_NAME_SIZE_MAX} bytes"
        ));
    }
    // All else is remembered as what happens, and not as what somebody says of it.
    let is_known = |it: &NewRecord| match &it.what {
        Recorded::Done { kind, .. } | Recorded::Failed { kind, .. } => {
            matches!(kind.as_str(), "step" | "request")
        }
        _ => true,
    };
    let why = "what it records as done is neither a step nor a request";
    (!records.iter().all(is_known)).then(|| why.to_owned())
}

/// Writes down what the run remembers, and what it waits for. What it wants of others and cannot be
/// is remembered as what has failed; what it has done itself it knows already, and has failed with.
fn progress(
    writer: &mut Writer,
    doctype: &Doctype,
    run: &Started,
    (records, suspends): (&[NewRecord], bool),
    now: i64,
) -> Run<(Changed, PageSet)> {
    let mut refused: Vec<(usize, String)> = Vec::new();
    let failure = loop {
        let mut at = 0;
        let ran = writer.write(&mut |transaction| {
            transaction.bound_as_apps();
            let by = run.recorder(doctype, now);
            let mut written = Written::default();
            // Looked for once: it is among all that the run remembers.
            let mut is_to_hear = is_to_hear_of_cancel(transaction, run)?;
            for (place, record) in records.iter().enumerate() {
                at = place;
                let failed = refused.iter().find(|(refused, _)| *refused == place);
                match failed {
                    Some((_, reason)) => note_failed(transaction, run, record, reason),
                    None => remember(transaction, run, record, &mut is_to_hear, &by),
                }
                .map(|it| written.add(&it))?;
            }
            at = records.len();
            note_progress(transaction, run, &written, suspends)?;
            Ok(written.time)
        });
        let failure = match ran {
            Run::Done((time, set)) => {
                let leads_on = suspends || records.iter().any(|it| it.what.leads_on());
                let time_ms = time.unwrap_or(now).unsigned_abs();
                return Run::Done((Changed::Remembered { time_ms, leads_on }, set));
            }
            Run::Fault(pgid) => return Run::Fault(pgid),
            Run::Failed(failure) => failure,
        };
        match reason_of(failure) {
            Ok(reason) if refused.len() < REFUSED_MAX && is_first(&refused, at, records) => {
                refused.push((at, reason));
            }
            Ok(reason) => break reason,
            Err(failure) => return Run::Failed(failure),
        }
    };
    fail_amid(writer, run, &failure, now)
}

/// Whether it is a record of what it wants of others that has failed to be written, and for the
/// first time.
fn is_first(refused: &[(usize, String)], at: usize, records: &[NewRecord]) -> bool {
    records.get(at).is_some_and(|it| it.what.leads_on())
        && refused.iter().all(|(refused, _)| *refused != at)
}

/// What of some records was written.
#[derive(Default)]
struct Written {
    /// How many are new.
    count: i64,
    /// Whether the run is to hear of any: its handler waits for it.
    is_news: bool,
    /// As of when they were written, where they were there already.
    time: Option<i64>,
}

impl Written {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.is_news |= other.is_news;
        self.time = self.time.max(other.time);
    }
}

fn note_progress(
    transaction: &Transaction<'_>,
    run: &Started,
    written: &Written,
    suspends: bool,
) -> Result<(), Failure> {
    // What was begun, and has ended, is one record.
    if run.records.saturating_add(written.count).unsigned_abs() > WORKFLOW_RECORDS_MAX {
        let reason = format!(
            "it has over {WORKFLOW_RECORDS_MAX} records: let it go on as new, by continueAsNew"
        );
        return Err(Failure::Rejected { reason });
    }
    transaction
        .run_system(
            "update _tidelog_task
             set records = records + ?2, woken = max(woken, ?3),
                 instance = iif(?4, null, instance),
                 state = iif(?4, iif(max(woken, ?3), 'ready', 'suspended'), state)
             where number = ?1",
            &[
                Value::Integer(run.number),
                Value::Integer(written.count),
                Value::Integer(written.is_news.into()),
                Value::Integer(suspends.into()),
            ],
        )
        .map(drop)
}

/// Writes one record down, of a run that is to hear that it is cancelled until it says that it has.
fn remember(
    transaction: &Transaction<'_>,
    run: &Started,
    record: &NewRecord,
    is_to_hear: &mut bool,
    by: &Recorder<'_>,
) -> Result<Written, Failure> {
    let row = Row::new(run, record);
    let time = &by.time;
    // What was refused the first time might be done by now, and the run hears that it was not.
    if record.what.leads_on()
        && let Some(known) = row.known(transaction)?
    {
        return Ok(known);
    }
    match &record.what {
        Recorded::Done { result, .. } => {
            check_result(transaction, result)?;
            row.end(transaction, "done", Value::Text(result.clone()), time)
        }
        Recorded::Failed { reason, .. } => {
            row.end(transaction, "failed", Value::Text(shortened(reason.clone())), time)
        }
        Recorded::Begun => row.insert(transaction, "started", time),
        Recorded::Cancel => match row.known_as("cancel", transaction)? {
            Some(known) => Ok(known),
            None if std::mem::take(is_to_hear) => row.cancel(transaction, time),
            None => Err(Failure::Rejected { reason: "it has no cancel to hear of".to_owned() }),
        },
        Recorded::Sleep { ms } => {
            let due = due_after(time, *ms);
            Row { due, ..row }.insert(transaction, "waiting", &Value::Null)
        }
        Recorded::WaitFor { aggregate, stream, event, timeout_ms } => {
            // No longer than what happens.
            InsertedEvent::of_texts(aggregate, stream, event, "{}")?;
            let waits_for = [aggregate, stream, event].map(|it| Value::Text(it.clone()));
            let due = if *timeout_ms == 0 { 0 } else { due_after(time, *timeout_ms) };
            let happened = find_event(transaction, run, &waits_for)?;
            let row = Row { waits_for, ..row };
            match happened {
                Some(sequence) => Row { result: Value::Text(sequence.to_string()), ..row }.insert(
                    transaction,
                    "done",
                    &Value::Null,
                ),
                None => Row { due, ..row }.insert(transaction, "waiting", &Value::Null),
            }
        }
        Recorded::Send(sent) => {
            let number = commands::send(transaction, by.doctype, sent, by)?;
            row.wait_for_task(transaction, number, false)
        }
        Recorded::Start(new) => {
            let (number, is_new) = start(transaction, by.doctype, new, by)?;
            if number == run.number {
                let reason = "a run cannot wait for itself".to_owned();
                return Err(Failure::Rejected { reason });
            }
            // What it had started before was cancelled with it.
            if is_new && *is_to_hear {
                cancel_each(transaction, vec![Value::Integer(number)], by)?;
            }
            row.wait_for_task(transaction, number, is_new)
        }
    }
}

/// What cannot be remembered as it is is remembered as what has failed.
fn note_failed(
    transaction: &Transaction<'_>,
    run: &Started,
    record: &NewRecord,
    reason: &str,
) -> Result<Written, Failure> {
    let reason = Value::Text(shortened(reason.to_owned()));
    // It hears of it when it is given the next time.
    let ended = Row::new(run, record).end(transaction, "failed", reason, &Value::Null);
    ended.map(|written| Written { is_news: true, ..written })
}

fn due_after(time: &Value, ms: u64) -> i64 {
    let now = if let Value::Integer(now) = time { *now } else { 0 };
    // What is never due has none.
    now.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX)).max(1)
}

/// The first such event since the run's start that it has not seen yet, nor has what it went on
/// from.
fn find_event(
    transaction: &Transaction<'_>,
    run: &Started,
    waits_for: &[Value; 3],
) -> Result<Option<i64>, Failure> {
    let [aggregate, stream, event] = waits_for;
    let rows = transaction.run_system(
        "select sequence from _tidelog_event
         where stream = (select number from _tidelog_stream where aggregate = ?2 and stream = ?3)
           and type = ?4
           and sequence > max((select coalesce(first, 0) from _tidelog_task where number = ?1),
               coalesce((select max(cast(result as integer)) from _tidelog_record
                         where task = ?1 and kind in ('event', 'seen') and aggregate = ?2
                           and stream = ?3 and event = ?4), 0))
         order by sequence limit 1",
        &[Value::Integer(run.number), aggregate.clone(), stream.clone(), event.clone()],
    )?;
    Ok(single_integer(&rows))
}

/// A wait of a run is there no more, which was that record: number, aggregate, stream and type of
/// what it waited for, and the event that it got, of which the run has not heard. The next wait for
/// such an event gets it, and that one's goes to the next.
fn pass_on(
    transaction: &Transaction<'_>,
    run: &Value,
    mut freed: Vec<Value>,
) -> Result<(), Failure> {
    if freed.last() == Some(&Value::Null) {
        return Ok(());
    }
    freed.push(run.clone());
    transaction
        .run_system(
            "update _tidelog_record set state = 'done', result = next.result, due = 0
             from (select number, lag(result, 1, ?5) over (order by number) as result
                   from _tidelog_record
                   where task = ?6 and number > ?1 and kind = 'event' and aggregate = ?2
                     and stream = ?3 and event = ?4 and time is null
                     and (state = 'waiting' or result is not null)) as next
             where _tidelog_record.number = next.number and next.result is not null",
            &freed,
        )
        .map(drop)
}

/// A record as it is to stand.
struct Row<'r> {
    run: &'r Started,
    record: &'r NewRecord,
    result: Value,
    due: i64,
    /// Aggregate, stream and type of an event.
    waits_for: [Value; 3],
}

impl<'r> Row<'r> {
    fn new(run: &'r Started, record: &'r NewRecord) -> Self {
        let waits_for = [Value::Null, Value::Null, Value::Null];
        Self { run, record, result: Value::Null, due: 0, waits_for }
    }

    /// One that is there already stays as it is, also as of when.
    fn insert(
        self,
        transaction: &Transaction<'_>,
        state: &str,
        time: &Value,
    ) -> Result<Written, Failure> {
        // Nobody has heard of it yet, and it lets the run go on.
        let is_news = state == "done" && *time == Value::Null;
        let [aggregate, stream, event] = self.waits_for.clone();
        let Self { run, record, .. } = self;
        let written = transaction.write_system(
            "insert into _tidelog_record
             values (null, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, null, 0)
             on conflict do nothing",
            &[
                Value::Integer(run.number),
                Value::Text(record.name.clone()),
                Value::Integer(record.count.into()),
                Value::Text(record.what.kind().to_owned()),
                Value::Text(state.to_owned()),
                self.result.clone(),
                time.clone(),
                Value::Integer(self.due),
                aggregate,
                stream,
                event,
            ],
        )?;
        match written.count {
            0 => Ok(self.known(transaction)?.unwrap_or_default()),
            _ => Ok(Written { count: 1, is_news, time: None }),
        }
    }

    /// The same where it is there as something of that kind.
    fn known_as(
        &self,
        kind: &str,
        transaction: &Transaction<'_>,
    ) -> Result<Option<Written>, Failure> {
        let rows = transaction.run_system(
            "select 1 from _tidelog_record where task = ?1 and name = ?2 and count = ?3
             and kind = ?4",
            &[
                Value::Integer(self.run.number),
                Value::Text(self.record.name.clone()),
                Value::Integer(self.record.count.into()),
                Value::Text(kind.to_owned()),
            ],
        )?;
        if rows.is_empty() { Ok(None) } else { self.known(transaction) }
    }

    /// What was written of it, if it is there already.
    fn known(&self, transaction: &Transaction<'_>) -> Result<Option<Written>, Failure> {
        let Self { run, record, .. } = self;
        let rows = transaction.run_system(
            "select coalesce(time, iif(due > 0, due - ?4, null)) from _tidelog_record
             where task = ?1 and name = ?2 and count = ?3",
            &[
                Value::Integer(run.number),
                Value::Text(record.name.clone()),
                Value::Integer(record.count.into()),
                Value::Integer(i64::try_from(record.what.due_in_ms()).unwrap_or(i64::MAX)),
            ],
        )?;
        let known = Written { time: single_integer(&rows), ..Written::default() };
        Ok((!rows.is_empty()).then_some(known))
    }

    /// One that was begun has come to its end, or one that nobody had heard of.
    fn end(
        self,
        transaction: &Transaction<'_>,
        state: &str,
        result: Value,
        time: &Value,
    ) -> Result<Written, Failure> {
        let begun = transaction.write_system(
            "update _tidelog_record
             set number = (select max(number) + 1 from _tidelog_record), state = ?4, result = ?5,
                 time = ?6
             where task = ?1 and name = ?2 and count = ?3 and state = 'started'",
            &[
                Value::Integer(self.run.number),
                Value::Text(self.record.name.clone()),
                Value::Integer(self.record.count.into()),
                Value::Text(state.to_owned()),
                result.clone(),
                time.clone(),
            ],
        )?;
        match begun.count == 0 {
            true => Self { result, ..self }.insert(transaction, state, time),
            false => Ok(Written::default()),
        }
    }

    /// The run has heard here that it is cancelled, in place of what it waited for: also where that
    /// has happened since, and the run has not heard of it. An event of those is there for what
    /// waits for the next one. What was begun, or heard, stays what it is.
    fn cancel(self, transaction: &Transaction<'_>, time: &Value) -> Result<Written, Failure> {
        let run = Value::Integer(self.run.number);
        let waited = transaction.run_system(
            "delete from _tidelog_record
             where task = ?1 and name = ?2 and count = ?3
               and (state = 'waiting' or time is null)
             returning number, aggregate, stream, event, result",
            &[
                run.clone(),
                Value::Text(self.record.name.clone()),
                Value::Integer(self.record.count.into()),
            ],
        )?;
        let known = i64::try_from(waited.len()).unwrap_or_default();
        for freed in waited {
            pass_on(transaction, &run, freed)?;
        }
        let written = self.insert(transaction, "failed", time)?;
        if written.count == 0 {
            let reason = "it hears of a cancel where it waits for nothing".to_owned();
            return Err(Failure::Rejected { reason });
        }
        Ok(Written { count: written.count - known, ..written })
    }

    /// It waits for the end of that task, which may be over.
    fn wait_for_task(
        self,
        transaction: &Transaction<'_>,
        number: i64,
        is_own: bool,
    ) -> Result<Written, Failure> {
        let Self { run, record, .. } = self;
        let rows = transaction.run_system(
            "insert into _tidelog_record
             select null, ?1, ?2, ?3, ?4,
                    case when ended is null then 'waiting' when state = 'completed' then 'done'
                         else 'failed' end,
                    case when ended is null then null when state <> 'completed' then reason
                         when version is null then json_object('first', first, 'last', last)
                         else result end,
                    null, 0, null, null, null, number, ?6
             from _tidelog_task where number = ?5
             on conflict do nothing returning state <> 'waiting'",
            &[
                Value::Integer(run.number),
                Value::Text(record.name.clone()),
                Value::Integer(record.count.into()),
                Value::Text(record.what.kind().to_owned()),
                Value::Integer(number),
                Value::Integer(is_own.into()),
            ],
        )?;
        let is_news = rows.first().is_some_and(|row| row[0] == HAS);
        Ok(Written { count: i64::from(!rows.is_empty()), is_news, time: None })
    }
}

/// Whether it may be remembered.
fn check_result(transaction: &Transaction<'_>, result: &str) -> Result<(), Failure> {
    let reject = |why: String| Err(Failure::Rejected { reason: format!("a result {why}") });
    if result.len() > RECORD_SIZE_MAX {
        return reject(format!("has {} bytes, and may have {RECORD_SIZE_MAX}", result.len()));
    }
    let is_json =
        transaction.run_system("select json_valid(?1)", &[Value::Text(result.to_owned())])?;
    match is_json.first().is_some_and(|row| row[0] == HAS) {
        true => Ok(()),
        false => reject("is no JSON".to_owned()),
    }
}

/// Which events task ?1 was given, whose code was told of its records up to number ?2: the last one
/// of each kind that it waited for.
const SEEN: &str = "select aggregate, stream, event, max(cast(result as integer)) as last
     from _tidelog_record
     where task = ?1 and state = 'done' and time is not null and result is not null
       and (kind = 'seen' or kind = 'event' and number <= ?2)
     group by aggregate, stream, event";

/// The new run knows which events were given to the old one, and so is given none of them again:
/// those behind its own `first`, which takes in that there are not too many. The old one need not
/// know them any more.
fn carry_seen(
    transaction: &Transaction<'_>,
    [old, new]: &[Value; 2],
    told: i64,
    now: i64,
) -> Result<(), Failure> {
    transaction.run_system(
        &format!(
            "insert into _tidelog_record
             select null, ?3, '', row_number() over (), 'seen', 'done', cast(last as text), ?4, 0,
                    aggregate, stream, event, null, 0
             from ({SEEN})
             where last > (select first from _tidelog_task where number = ?3)"
        ),
        &[old.clone(), Value::Integer(told), new.clone(), Value::Integer(now)],
    )?;
    transaction
        .run_system(
            "delete from _tidelog_record where task = ?1 and kind = 'seen'",
            std::slice::from_ref(old),
        )
        .map(drop)
}

/// The run goes on as a new one of the same id, whom whoever waits for it waits for then. That one
/// is given what this one might have been given of events, back to some before the last one that
/// was given: what lies before is lost to it and may be archived, so that a run without end keeps
/// no more than that. And it hears that it is cancelled if this one has not.
fn go_on_as_new(
    transaction: &Transaction<'_>,
    doctype: &Doctype,
    run: &Started,
    (args, told): (&str, i64),
    now: i64,
) -> Result<(), Failure> {
    let name = text_of(&run.aggregate);
    let reject = |why: &str| Failure::Rejected {
        reason: format!("workflow {name} cannot go on as new: {why}"),
    };
    let workflow = doctype.workflow(name).ok_or_else(|| reject("it is not known any more"))?;
    transaction.bound_as_apps();
    InsertedEvent::of_texts(name, text_of(&run.stream), "run", args)?;
    let args = Value::Text(args.to_owned());
    let (args, _) = read_data(transaction, &workflow.fields, &args)?.map_err(|why| reject(&why))?;
    let sql = format!(
        "insert into _tidelog_task
         select {NEXT_NUMBER}, aggregate, stream, ?3, ?4, null, ?6, user, client, 'ready', 0, 0,
                null, 0,
                max(coalesce(first, 0), coalesce((select max(last) - ?7 from ({SEEN})), 0),
                    coalesce((select last from ({SEEN}) order by last desc limit 1 offset ?8), 0)),
                null, null, null, null, ?5, null, coalesce(begun_with, args), 0,
                iif(cancelled = 1 and {HAS_HEARD}, 2, cancelled),
                0, '[]'
         from _tidelog_task where number = ?1
         returning number"
    );
    let rows = transaction.run_system(
        &sql,
        &[
            Value::Integer(run.number),
            Value::Integer(told),
            Value::Text(workflow.version.to_string()),
            args,
            Value::Integer(workflow.version.into()),
            Value::Integer(now),
            Value::Integer(WORKFLOW_SEEN_BEHIND_MAX),
            Value::Integer(WORKFLOW_SEEN_KINDS_MAX),
        ],
    )?;
    let number = Value::Integer(single_integer(&rows).unwrap_or_default());
    let both = [Value::Integer(run.number), number];
    carry_seen(transaction, &both, told, now)?;
    transaction.run_system(
        "update _tidelog_record set awaited = ?2
         where state = 'waiting' and awaited is not null and awaited = ?1",
        &both,
    )?;
    transaction.run_system("update _tidelog_task set key = null where number = ?1", &both[..1])?;
    transaction.run_system(
        "update _tidelog_task set key = ?2 where number = ?1",
        &[both[1].clone(), run.key.clone()],
    )?;
    let over = [Value::Null, Value::Null, Value::Null, Value::Null];
    tasks::end(transaction, run, "continued", over, now)
}

fn text_of(value: &Value) -> &str {
    match value {
        Value::Text(text) => text,
        _ => "",
    }
}
