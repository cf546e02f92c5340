//! Commands: what is received of them, and what comes of an attempt at one.

use tidelog_sqlite::{Failure, InsertedEvent, Run, SystemQueries as _, Transaction, Writer};
use tidelog_sync::CompletionAnswer;
use tidelog_types::limits::{
    COMMAND_BACKOFF_MS, COMMAND_BACKOFF_MS_MAX, COMMAND_KEY_SIZE_MAX, COMPLETION_ITEMS_MAX,
};
use tidelog_types::{PageSet, Value, shortened};

use super::columns::run_app;
use super::events::{Recorder, read_data};
use super::tasks::{self, Received, Started};
use super::{done, reason_of, single_integer, snapshots, tried, workflows};
use crate::tasks::{Completion, NewCommand, NewSnapshot, Outcome};
use crate::{CommandDefinition, Doctype};

/// How often one is tried again of which nothing is said.
const RETRIES: i64 = 5;
/// How long one may take of which nothing is known: long, since what it was made for may be.
const TIMEOUT_MS: u32 = 10 * 60_000;

/// When one is late that is given now, 0 for never. One that the newest release has no more is
/// handled by an older one, which alone knows how long it may take.
pub(super) fn late_from(doctype: &Doctype, aggregate: &str, name: &str, now: i64) -> i64 {
    match doctype.command(aggregate, name).map_or(TIMEOUT_MS, |it| it.timeout_ms) {
        0 => 0,
        timeout_ms => now.saturating_add(timeout_ms.into()),
    }
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
/// the same before is that one. Says which.
pub(super) fn receive(
    transaction: &Transaction<'_>,
    sent: &Sent<'_>,
    by: &Recorder<'_>,
) -> Result<i64, Failure> {
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
    let received = Received {
        aggregate: aggregate.to_owned(),
        stream: stream.clone(),
        name: command.name.clone(),
        args,
        key: key.clone(),
        version: None,
    };
    let (number, is_new) = tasks::receive(transaction, received, by)?;
    if !is_new {
        return Ok(number);
    }
    fields.extend([
        ("stream", stream.clone()),
        ("key", key.clone()),
        ("now", by.time.clone()),
        ("client", by.client_text.clone()),
        ("user", by.user.clone()),
    ]);
    run_all(transaction, by.doctype, &command.received, &fields)?;
    Ok(number)
}

fn run_all(
    transaction: &Transaction<'_>,
    doctype: &Doctype,
    statements: &[String],
    args: &[(&str, Value)],
) -> Result<(), Failure> {
    let args: Vec<(&str, &Value)> = args.iter().map(|(name, value)| (*name, value)).collect();
    statements.iter().try_for_each(|sql| run_app(transaction, doctype, sql, &args))
}

/// Sends a command for another task.
pub(super) fn send(
    transaction: &Transaction<'_>,
    doctype: &Doctype,
    sent: &NewCommand,
    by: &Recorder<'_>,
) -> Result<i64, Failure> {
    let Some(command) = doctype.command(&sent.aggregate, &sent.name) else {
        let reason = format!("there is no command {} of {}", sent.name, sent.aggregate);
        return Err(Failure::Rejected { reason });
    };
    let texts = [&sent.stream, &sent.args, &sent.key].map(|it| Value::Text(it.clone()));
    let [stream, args, key] = &texts;
    receive(transaction, &Sent { aggregate: &sent.aggregate, command, stream, args, key }, by)
}

/// An attempt at a command has come to an end.
pub(super) fn complete(
    writer: &mut Writer,
    doctype: &Doctype,
    command: &Started,
    completion: &Completion,
    now: i64,
) -> Run<(CompletionAnswer, PageSet)> {
    let ended = match &completion.outcome {
        Outcome::Failed { reason, is_final } => {
            fail(writer, doctype, command, reason, *is_final, now)
        }
        Outcome::Completed { events, sends, starts, snapshot } => {
            let length = done!(writer.query_system(
                "select length from _tidelog_stream where aggregate = ?1 and stream = ?2",
                &[command.aggregate.clone(), command.stream.clone()],
            ));
            if single_integer(&length).unwrap_or(0).cast_unsigned() != completion.position {
                return Run::Done((CompletionAnswer::Stale, PageSet::default()));
            }
            if events.len().max(sends.len() + starts.len()) > COMPLETION_ITEMS_MAX {
                let why = format!("it has over {COMPLETION_ITEMS_MAX} events, or sends");
                fail(writer, doctype, command, &why, true, now)
            } else {
                let mut carry_out = |snapshot: Option<&NewSnapshot>| {
                    writer.write(&mut |transaction| {
                        if let Some(snapshot) = snapshot {
                            let of = [&command.aggregate, &command.stream];
                            snapshots::keep(transaction, of, snapshot)?;
                        }
                        carry_out(transaction, doctype, command, &completion.outcome, now)
                    })
                };
                // It is not worth a command.
                let ran = match carry_out(snapshot.as_ref()) {
                    Run::Failed(failure) if snapshot.is_some() && !failure.is_passing() => {
                        carry_out(None)
                    }
                    ran => ran,
                };
                match ran {
                    Run::Failed(failure) => match reason_of(failure) {
                        // It breaks a rule: so it would each time.
                        Ok(reason) => fail(writer, doctype, command, &reason, true, now),
                        Err(failure) => Run::Failed(failure),
                    },
                    ran => ran,
                }
            }
        }
        Outcome::Stopped { reason } => {
            writer.write(&mut |transaction| tried::stop(transaction, command, reason))
        }
        _ => fail(writer, doctype, command, "it has ended as no command does", true, now),
    };
    ended.map(|((), set)| (CompletionAnswer::Done, set))
}

/// A command has completed: its events, what follows from them, and what it sends, at once.
fn carry_out(
    transaction: &Transaction<'_>,
    doctype: &Doctype,
    command: &Started,
    outcome: &Outcome,
    now: i64,
) -> Result<(), Failure> {
    let Outcome::Completed { events, sends, starts, .. } = outcome else { return Ok(()) };
    transaction.bound_as_apps();
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
        send(transaction, doctype, sent, &recorder)?;
    }
    for run in starts {
        workflows::start(transaction, doctype, run, &recorder)?;
    }
    let sql = "select max(sequence) from _tidelog_event";
    let last = match events.is_empty() {
        true => None,
        false => single_integer(&transaction.run_system(sql, &[])?),
    };
    let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
    let sequence = |it: Option<i64>| it.map_or(Value::Null, Value::Integer);
    let first = sequence(last.map(|last| last - count + 1));
    let over = [first, sequence(last), Value::Null, Value::Null];
    tasks::end(transaction, command, "completed", over, now)
}

/// An attempt has come to nothing: it is tried again later, or the command has failed for good.
pub(super) fn fail(
    writer: &mut Writer,
    doctype: &Doctype,
    command: &Started,
    reason: &str,
    is_final: bool,
    now: i64,
) -> Run<((), PageSet)> {
    let definition = command.definition(doctype);
    // A command that the newest release has no more is handled by an older one, and tried as often
    // as one that says nothing of that.
    let retries = definition.map_or(RETRIES, |it| i64::from(it.retries));
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
    tried::note_failed(transaction, command)?;
    let doublings = u32::try_from(command.failures).unwrap_or(u32::MAX).min(20);
    let backoff_ms = (COMMAND_BACKOFF_MS << doublings).min(COMMAND_BACKOFF_MS_MAX);
    let due = now.saturating_add(i64::try_from(backoff_ms).unwrap_or(i64::MAX));
    transaction
        .run_system(
            "update _tidelog_task
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
    run_all(transaction, by.doctype, &definition.failed, &fields)
}

fn end_failed(
    transaction: &Transaction<'_>,
    command: &Started,
    reason: &str,
    now: i64,
) -> Result<(), Failure> {
    let why = Value::Text(reason.to_owned());
    tasks::end(transaction, command, "failed", [Value::Null, Value::Null, why, Value::Null], now)
}
