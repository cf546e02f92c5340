//! What there is of streams, for whoever runs a server: counts, not what events say.
//!
//! A stream may have millions of events, and a document thousands of streams: each of these
//! questions looks at a bounded number of rows, and says where the next one goes on.

use std::collections::BTreeMap;

use tidelog_sqlite::{Reader, Run, SystemQueries as _};
use tidelog_types::Value;

use crate::program::{self, done};

/// Streams that one question finds.
const STREAMS_MAX: u64 = 64;
/// Rows that one question looks at: streams, events of one, or commands.
const WINDOW: i64 = 10_000;

/// Which streams are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedStreams {
    /// Of aggregates of this name; `None` for all.
    pub aggregate: Option<String>,
    /// Behind this number.
    pub after: u64,
    /// So many, and no more than 64.
    pub limit: u64,
}

/// Which stream that is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamRef {
    /// The aggregate's name.
    pub aggregate: String,
    /// Which of those.
    pub stream: String,
}

/// Streams that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundStreams {
    /// Their numbers, by which they are sorted, and which they are.
    pub streams: Vec<(u64, StreamRef)>,
    /// Behind which number others may be, if there may.
    pub next: Option<u64>,
}

/// How far a stream was looked at. It begins with nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InspectedUpTo {
    /// The last event, by its sequence.
    pub event: u64,
    /// The last command, by its number.
    pub command: u64,
}

/// Where an event is, and when it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventPlace {
    /// Its place among all events.
    pub sequence: u64,
    /// Its place in its stream.
    pub position: u64,
    /// Milliseconds since 1970.
    pub time_ms: u64,
}

/// Who works at a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The number of the command.
    pub command: u64,
    /// The number of the instance.
    pub instance: u64,
    /// Its copy, as `tidelog_instances` says it, and whose that is; empty where it is not known.
    pub client: String,
    /// See there.
    pub user: String,
}

/// A state that is kept beside the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptState {
    /// The name of how it is made.
    pub name: String,
    /// The position of the last event that is in it.
    pub position: u64,
    /// Its bytes.
    pub size: u64,
}

/// How many events of one type and version there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsOfKind {
    /// The name of the type.
    pub name: String,
    /// The version at which they are kept.
    pub version: u32,
    /// How many.
    pub count: u64,
    /// How many of these were erased.
    pub erased: u64,
    /// The bytes of their data.
    pub size: u64,
}

/// A part of what there is of a stream: what is counted adds up, and the rest is as of the last
/// part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InspectedStream {
    /// Its number, if it has had events.
    pub number: Option<u64>,
    /// How many of its first events have left for the archive: the others are counted here.
    pub archived: u64,
    /// Events, by type and version.
    pub kinds: Vec<EventsOfKind>,
    /// The first event.
    pub first: Option<EventPlace>,
    /// The last one.
    pub last: Option<EventPlace>,
    /// Commands that wait for being given to somebody.
    pub received: u64,
    /// Commands that somebody works at.
    pub started: u64,
    /// Who does.
    pub holder: Option<Holder>,
    /// States that are kept.
    pub states: Vec<KeptState>,
    /// Where it goes on, if there is more.
    pub next: Option<InspectedUpTo>,
}

impl InspectedStream {
    /// Takes the part in that comes behind this.
    pub fn add(&mut self, part: Self) {
        let Self { mut kinds, mut received, mut started, .. } = std::mem::take(self);
        for more in &part.kinds {
            let is_it =
                |it: &&mut EventsOfKind| (&it.name, it.version) == (&more.name, more.version);
            match kinds.iter_mut().find(is_it) {
                Some(kind) => {
                    kind.count += more.count;
                    kind.erased += more.erased;
                    kind.size += more.size;
                }
                None => kinds.push(more.clone()),
            }
        }
        kinds.sort_by(|one, other| (&one.name, one.version).cmp(&(&other.name, other.version)));
        received += part.received;
        started += part.started;
        *self = Self { kinds, received, started, ..part };
    }
}

/// How far the commands that have failed were looked at: they are in the order of that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailedUpTo {
    /// When the last one had failed, milliseconds since 1970.
    pub ended_ms: i64,
    /// Its number.
    pub command: i64,
}

/// A part of the commands that have failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailedCommands {
    /// How many, by their streams.
    pub counts: Vec<(StreamRef, u64)>,
    /// Where it goes on, if there is more.
    pub next: Option<FailedUpTo>,
}

/// Looks for streams that have events, a bounded number of them at a time.
pub fn find_streams(reader: &mut Reader, wanted: &WantedStreams) -> Run<FoundStreams> {
    if !done!(program::version(reader)).is_some_and(|version| version.has_events) {
        return Run::Done(FoundStreams::default());
    }
    let limit = wanted.limit.clamp(1, STREAMS_MAX);
    let end = wanted.after.cast_signed().saturating_add(WINDOW);
    let rows = done!(reader.query_system(
        "select number, aggregate, stream from _tidelog_stream
         where number > ?1 and number <= ?2 and (?3 is null or aggregate = ?3)
         order by number limit ?4",
        &[
            Value::Integer(wanted.after.cast_signed()),
            Value::Integer(end),
            wanted.aggregate.clone().map_or(Value::Null, Value::Text),
            Value::Integer(limit.cast_signed()),
        ],
    ));
    let streams: Vec<_> = rows
        .into_iter()
        .filter_map(|row| match <[Value; 3]>::try_from(row).ok()? {
            [number, aggregate, stream] => Some((count(&number), stream_ref(aggregate, stream)?)),
        })
        .collect();
    let is_full = streams.len() as u64 == limit;
    let seen = match streams.last() {
        Some((number, _)) if is_full => number.cast_signed(),
        _ => end,
    };
    let last = done!(reader.query_system("select max(number) from _tidelog_stream", &[]));
    let last = program::single_integer(&last).unwrap_or(0);
    let next = (seen < last).then(|| seen.cast_unsigned());
    Run::Done(FoundStreams { streams, next })
}

/// Looks at a part of one stream, which may have none of all that.
pub fn inspect_stream(
    reader: &mut Reader,
    stream: &StreamRef,
    after: InspectedUpTo,
) -> Run<InspectedStream> {
    let version = done!(program::version(reader)).unwrap_or_default();
    let mut inspected = InspectedStream::default();
    let named = [Value::Text(stream.aggregate.clone()), Value::Text(stream.stream.clone())];
    if version.has_events {
        let sql =
            "select number, archived from _tidelog_stream where aggregate = ?1 and stream = ?2";
        let found = done!(reader.query_system(sql, &named));
        if let Some([Value::Integer(number), archived]) = found.first().map(Vec::as_slice) {
            let number = *number;
            inspected.archived = count(archived);
            inspected.number = Some(number.cast_unsigned());
            done!(look_at_events(reader, Value::Integer(number), after, &mut inspected));
            if version.has_tasks {
                done!(look_at_states(reader, Value::Integer(number), &mut inspected));
            }
        }
    }
    // Of events there may be more: commands are counted once those are.
    if version.has_tasks && inspected.next.is_none() {
        done!(look_at_commands(reader, named, after, &mut inspected));
    }
    Run::Done(inspected)
}

fn look_at_events(
    reader: &mut Reader,
    stream: Value,
    after: InspectedUpTo,
    inspected: &mut InspectedStream,
) -> Run<()> {
    for (place, order) in [(&mut inspected.first, "asc"), (&mut inspected.last, "desc")] {
        let sql = format!(
            "select sequence, position, time from _tidelog_event where stream = ?1
             order by sequence {order} limit 1"
        );
        let rows = done!(reader.query_system(&sql, std::slice::from_ref(&stream)));
        *place = rows.first().map(|row| EventPlace {
            sequence: count(&row[0]),
            position: count(&row[1]),
            time_ms: count(&row[2]),
        });
    }
    // How long a text is stands before it: its data are not read.
    let rows = done!(reader.query_system(
        "select type, version, count(*), sum(data is null), sum(coalesce(octet_length(data), 0)),
                max(sequence)
         from (select type, version, data, sequence from _tidelog_event
               where stream = ?1 and sequence > ?2 order by sequence limit ?3)
         group by type, version",
        &[stream, Value::Integer(after.event.cast_signed()), Value::Integer(WINDOW)],
    ));
    let mut seen = after.event;
    for row in &rows {
        let [Value::Text(name), version, events, erased, size, last] = row.as_slice() else {
            continue;
        };
        seen = seen.max(count(last));
        inspected.kinds.push(EventsOfKind {
            name: name.clone(),
            version: u32::try_from(count(version)).unwrap_or(u32::MAX),
            count: count(events),
            erased: count(erased),
            size: count(size),
        });
    }
    if inspected.last.is_some_and(|last| last.sequence > seen) {
        inspected.next = Some(InspectedUpTo { event: seen, ..after });
    }
    Run::Done(())
}

fn look_at_states(reader: &mut Reader, stream: Value, inspected: &mut InspectedStream) -> Run<()> {
    let rows = done!(reader.query_system(
        "select name, position, octet_length(state) from _tidelog_snapshot where stream = ?1
         order by name",
        &[stream],
    ));
    inspected.states = rows
        .into_iter()
        .filter_map(|row| match <[Value; 3]>::try_from(row).ok()? {
            [Value::Text(name), position, size] => {
                Some(KeptState { name, position: count(&position), size: count(&size) })
            }
            _ => None,
        })
        .collect();
    Run::Done(())
}

fn look_at_commands(
    reader: &mut Reader,
    named: [Value; 2],
    after: InspectedUpTo,
    inspected: &mut InspectedStream,
) -> Run<()> {
    let [aggregate, stream] = named;
    // One at a time is started, and that is the first which is not over.
    let rows = done!(reader.query_system(
        "select task.number, task.instance, lower(hex(held.client)), held.user
         from (select number, instance, state from _tidelog_task
               where aggregate = ?1 and stream = ?2 and ended is null and version is null
               order by number limit 1) as task
         left join _tidelog_instance as held on held.number = task.instance
         where state = 'started'",
        &[aggregate.clone(), stream.clone()],
    ));
    inspected.holder = rows.into_iter().next().and_then(|row| {
        let [command, instance, client, user] = <[Value; 4]>::try_from(row).ok()?;
        let text = |value| if let Value::Text(text) = value { text } else { String::new() };
        Some(Holder {
            command: count(&command),
            instance: count(&instance),
            client: text(client),
            user: text(user),
        })
    });
    let rows = done!(reader.query_system(
        "select count(*), sum(state = 'started'), max(number)
         from (select state, number from _tidelog_task
               where aggregate = ?1 and stream = ?2 and ended is null and version is null
                 and number > ?3
               order by number limit ?4)",
        &[aggregate, stream, Value::Integer(after.command.cast_signed()), Value::Integer(WINDOW),],
    ));
    let Some([all, started, last]) = rows.first().map(Vec::as_slice) else { return Run::Done(()) };
    inspected.started = count(started);
    inspected.received = count(all) - inspected.started;
    if count(all) == WINDOW.cast_unsigned() {
        let event = inspected.last.map_or(after.event, |last| last.sequence);
        inspected.next = Some(InspectedUpTo { event, command: count(last) });
    }
    Run::Done(())
}

/// Counts commands that have failed, a bounded number of them at a time.
pub fn find_failed(reader: &mut Reader, after: FailedUpTo) -> Run<FailedCommands> {
    if !done!(program::version(reader)).is_some_and(|version| version.has_tasks) {
        return Run::Done(FailedCommands::default());
    }
    // Runs of workflows are among them.
    let rows = done!(reader.query_system(
        "select ended, number, aggregate, stream, version is null from _tidelog_task
         where state = 'failed' and ended is not null and ended >= ?1
           and (ended > ?1 or number > ?2)
         order by ended, number limit ?3",
        &[Value::Integer(after.ended_ms), Value::Integer(after.command), Value::Integer(WINDOW)],
    ));
    let next = match rows.last().map(Vec::as_slice) {
        Some([Value::Integer(ended_ms), Value::Integer(command), ..])
            if rows.len() as i64 == WINDOW =>
        {
            Some(FailedUpTo { ended_ms: *ended_ms, command: *command })
        }
        _ => None,
    };
    let mut counts = BTreeMap::new();
    for row in rows {
        if let Ok([_, _, aggregate, stream, Value::Integer(1)]) = <[Value; 5]>::try_from(row)
            && let Some(stream) = stream_ref(aggregate, stream)
        {
            *counts.entry(stream).or_insert(0) += 1;
        }
    }
    Run::Done(FailedCommands { counts: counts.into_iter().collect(), next })
}

fn stream_ref(aggregate: Value, stream: Value) -> Option<StreamRef> {
    match (aggregate, stream) {
        (Value::Text(aggregate), Value::Text(stream)) => Some(StreamRef { aggregate, stream }),
        _ => None,
    }
}

/// What counts something is never negative.
fn count(value: &Value) -> u64 {
    if let Value::Integer(number) = value { u64::try_from(*number).unwrap_or(0) } else { 0 }
}

#[cfg(test)]
mod tests {
    use tidelog_sqlite::{View, Writer};

    use super::*;

    /// A document with so many commands that wait, and tasks that have failed; of these each third
    /// is a run, and thousands have failed at one moment.
    fn reader_of(waiting: i64, failed: i64) -> Reader {
        let view = View::new(usize::MAX, 0);
        let ran = Writer::new(&view).write(&mut |transaction| {
            program::begin_document(transaction)?;
            program::begin_events(transaction)?;
            program::begin_tasks(transaction)?;
            let sql = "insert into _tidelog_task
                 with n (n) as (select 1 union all select n + 1 from n where n < ?1 + ?2)
                 select n, 'order', 'o' || (n % 2), 'place', '{}', null, 0, '', x'',
                        iif(n <= ?1, 'waiting', 'failed'), 0, 0, null, 0, null, null, null,
                        iif(n <= ?1, null, n / 7000), null, iif(n <= ?1 or n % 3, null, 1), null,
                        null, 0, 0, 0, '[]'
                 from n where n <= ?1 + ?2";
            transaction.run_system(sql, &[Value::Integer(waiting), Value::Integer(failed)])
        });
        view.advance_base(&ran.unwrap().1);
        Reader::new(&view)
    }

    /// Goal: no question counts more than so many commands, and none is counted twice or left out.
    /// Method: of each kind more than that.
    #[test]
    fn many_commands_are_counted_in_parts() {
        let mut reader = reader_of(2 * WINDOW + 2, 2 * WINDOW);
        let stream = StreamRef { aggregate: "order".to_owned(), stream: "o0".to_owned() };
        let first = inspect_stream(&mut reader, &stream, InspectedUpTo::default()).unwrap();
        let next = first.next.expect("there is one more");
        assert_eq!((first.received, next.command), (10_000, 20_000));
        let second = inspect_stream(&mut reader, &stream, next).unwrap();
        assert_eq!((second.received, second.next), (1, None));

        let (mut counts, mut parts, mut after) = (BTreeMap::new(), 0, FailedUpTo::default());
        loop {
            let failed = find_failed(&mut reader, after).unwrap();
            parts += 1;
            for (stream, count) in failed.counts {
                *counts.entry(stream.stream).or_insert(0) += count;
            }
            let Some(next) = failed.next else { break };
            after = next;
        }
        let is_of =
            |rest: i64| (20_003..=40_002).filter(|n| n % 3 != 0 && n % 2 == rest).count() as u64;
        let expected = [("o0".to_owned(), is_of(0)), ("o1".to_owned(), is_of(1))];
        assert_eq!((counts, parts), (BTreeMap::from(expected), 3));
    }
}
