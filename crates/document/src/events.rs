//! Reading the events of a document, oldest first.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidelog_sqlite::{Failure, Reader, Run, SystemQueries as _};
use tidelog_sync::ArchivedEvent;
use tidelog_types::{JournalId, Params, Rows, Value, ValueRef};

use crate::archiving::{ArchivedEvents, row_of};

use crate::program::{self, done};
use crate::streams::{UPCAST_PARAM, upcast_query};
use crate::{Doctype, EventDefinition};

/// Sequence numbers that one query looks through, so that it is bounded whatever it looks for.
const WINDOW: u64 = 10_000;

/// Events that one query answers at most.
const PAGE_EVENTS: u64 = 256;

/// The columns of `tidelog_events`: what is answered of an event, in this order. What was erased
/// has data all the same, in which there is nothing.
const COLUMNS: &str = "sequence, aggregate, stream, position, type, version, \
                       coalesce(data, '{}') as data, time, user, client, cause, erased";

/// Where some of them are.
const SEQUENCE: usize = 0;
const AGGREGATE: usize = 1;
const TYPE: usize = 4;
const VERSION: usize = 5;
const DATA: usize = 6;
const ERASED: usize = 11;

/// Which events are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedEvents {
    /// Of aggregates of this name; `None` for all.
    pub aggregate: Option<String>,
    /// Of this one of them; `None` for all.
    pub stream: Option<String>,
    /// Of these types; empty for all.
    pub types: Vec<String>,
    /// Behind this sequence number.
    pub after: u64,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum FoundEvents {
    /// These, oldest first, in the columns of `tidelog_events`, their data at the versions of the
    /// doctype. There may be more.
    Some(Rows),
    /// None up to this sequence number, and there are others behind it.
    NoneUpTo(u64),
    /// None. The last one of all has this sequence number, 0 where there is none.
    None(u64),
    /// Some of them may have left for an archive: with what that has, it can be told.
    Archived(InArchive),
}

/// Where events are found that have left their document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InArchive {
    /// Which archive has them.
    pub archive: JournalId,
    /// Up to which sequence number there may be some.
    pub up_to: u64,
    /// How many have left, of the stream that is wanted or of all: by that it is told whether more
    /// have since.
    pub count: u64,
}

/// Looks for events, a bounded number of them at a time. What `reader` reads need not be a document
/// that has any. `archived` are those of the same that its archive has.
pub fn find_events(
    reader: &mut Reader,
    doctype: &Doctype,
    wanted: &WantedEvents,
    archived: Option<&ArchivedEvents>,
) -> Run<FoundEvents> {
    let version = done!(program::version(reader));
    if !version.is_some_and(|version| version.has_events) {
        return Run::Done(FoundEvents::None(0));
    }
    let last = "select sequence from tidelog_events order by sequence desc limit 1";
    let last = match done!(reader.query(last, &Params::NONE)).decode().first().map(Vec::as_slice) {
        Some([Value::Integer(last)]) => u64::try_from(*last).unwrap_or(0),
        _ => 0,
    };
    // What is behind the last one is on its way, or of a history that was replaced by this one.
    if wanted.after >= last {
        return Run::Done(FoundEvents::None(last));
    }
    // A stream has an index of its own.
    let is_bounded = wanted.stream.is_some() && wanted.types.is_empty();
    let end = if is_bounded { last } else { last.min(wanted.after.saturating_add(WINDOW)) };
    let (rows, end) = match (done!(in_archive(reader, wanted)), archived) {
        (None, _) => (done!(query(reader, wanted, end)).0, end),
        // More may have left since the archive alone was asked, and be in neither.
        (Some(place), Some(archived))
            if archived.up_to > wanted.after
                && archived.count.is_none_or(|count| count == place.count) =>
        {
            let is_all = archived.up_to >= place.up_to;
            let end = if is_all { end } else { end.min(archived.up_to) };
            (done!(join(reader, wanted, archived, end)), end)
        }
        (Some(place), _) => return Run::Done(FoundEvents::Archived(place)),
    };
    if rows.count > 0 {
        return upcast(reader, doctype, rows).map(FoundEvents::Some);
    }
    Run::Done(if end < last { FoundEvents::NoneUpTo(end) } else { FoundEvents::None(last) })
}

/// Where those are found that are wanted and have left, if there may be any.
fn in_archive(reader: &mut Reader, wanted: &WantedEvents) -> Run<Option<InArchive>> {
    let text = |text: &String| Value::Text(text.clone());
    let all = "(select value from _tidelog_meta where key = ?1)";
    let of_all = Value::Text(program::ARCHIVED_KEY.to_owned());
    let rows = match (&wanted.aggregate, &wanted.stream) {
        (Some(aggregate), Some(stream)) => {
            let sql = "select archived_to, archived from _tidelog_stream
                       where aggregate = ?1 and stream = ?2";
            done!(reader.query_system(sql, &[text(aggregate), text(stream)]))
        }
        (Some(aggregate), None) => {
            let sql = format!("select value, {all} from _tidelog_meta where key = ?2");
            let key = Value::Text(format!("{}{aggregate}", program::ARCHIVED_PREFIX));
            done!(reader.query_system(&sql, &[of_all, key]))
        }
        (None, _) => {
            let sql =
                format!("select max(value), {all} from _tidelog_meta where key >= ?2 and key < ?3");
            let [first, end] = [program::ARCHIVED_PREFIX, program::ARCHIVED_END]
                .map(|key| Value::Text(key.to_owned()));
            done!(reader.query_system(&sql, &[of_all, first, end]))
        }
    };
    let Some([Value::Integer(up_to), Value::Integer(count)]) = rows.first().map(Vec::as_slice)
    else {
        return Run::Done(None);
    };
    let (up_to, count) = (up_to.cast_unsigned(), count.cast_unsigned());
    if up_to <= wanted.after {
        return Run::Done(None);
    }
    let archive = done!(program::archive_of(reader)).unwrap_or(JournalId::NONE);
    Run::Done(Some(InArchive { archive, up_to, count }))
}

/// Those of the document, and those of its archive that it knows to be there, as far as both are
/// told.
fn join(
    reader: &mut Reader,
    wanted: &WantedEvents,
    archived: &ArchivedEvents,
    end: u64,
) -> Run<Rows> {
    let (here, is_full) = done!(query(reader, wanted, end));
    let mut events: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
    let number = |value: &Value| match value {
        Value::Integer(number) => number.cast_unsigned(),
        _ => 0,
    };
    for event in here.decode() {
        events.insert(number(&event[SEQUENCE]), event);
    }
    // Others may come between those of the document that were not told.
    let end = if is_full { events.keys().next_back().copied().unwrap_or(end) } else { end };
    let is_wanted = |event: &&ArchivedEvent| {
        (wanted.after < event.sequence && event.sequence <= end)
            && wanted.aggregate.as_ref().is_none_or(|it| *it == event.aggregate)
            && wanted.stream.as_ref().is_none_or(|it| *it == event.stream)
            && (wanted.types.is_empty() || wanted.types.contains(&event.name))
    };
    let mut left: BTreeMap<[&str; 2], u64> = BTreeMap::new();
    for event in archived.events.iter().filter(is_wanted) {
        let of = [event.aggregate.as_str(), &event.stream];
        let count = match left.get(&of) {
            Some(count) => *count,
            None => {
                let sql =
                    "select archived from _tidelog_stream where aggregate = ?1 and stream = ?2";
                let named = of.map(|name| Value::Text(name.to_owned()));
                let rows = done!(reader.query_system(sql, &named));
                let count = program::single_integer(&rows).unwrap_or(0).cast_unsigned();
                left.insert(of, count);
                count
            }
        };
        // What the archive has beyond that is of no history that this is one of.
        if event.position <= count {
            events.entry(event.sequence).or_insert_with(|| row_of(event.clone()));
        }
    }
    let mut joined = Rows { columns: here.columns, ..Rows::default() };
    for event in events.values() {
        joined.push(event.iter().map(as_ref));
    }
    Run::Done(joined)
}

/// The first of those that are wanted, up to the sequence number `end`, and whether there may be
/// more before that.
fn query(reader: &mut Reader, wanted: &WantedEvents, end: u64) -> Run<(Rows, bool)> {
    let WantedEvents { aggregate, stream, types, after } = wanted;
    let number = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let text = |text: &String| Value::Text(text.clone());
    let mut params = vec![("after".to_owned(), number(*after)), ("end".to_owned(), number(end))];
    let mut sql = format!(
        "select {COLUMNS} from tidelog_events where sequence > :after and sequence <= :end"
    );
    // All streams of an aggregate are in the order of neither: what is looked through is all.
    let aggregate_column = if stream.is_some() { "aggregate" } else { "+aggregate" };
    for (column, value) in [(aggregate_column, aggregate), ("stream", stream)] {
        if let Some(value) = value {
            let name = column.trim_start_matches('+');
            sql += &format!(" and {column} = :{name}");
            params.push((name.to_owned(), text(value)));
        }
    }
    for (nth, name) in types.iter().enumerate() {
        sql += if nth == 0 { " and type in (" } else { ", " };
        sql += &format!(":type{nth}");
        params.push((format!("type{nth}"), text(name)));
    }
    sql += if types.is_empty() { "" } else { ")" };
    sql += " order by sequence limit :limit";
    let mut limit = PAGE_EVENTS;
    loop {
        let mut params = params.clone();
        params.push(("limit".to_owned(), number(limit)));
        match reader.query(&sql, &Params::Named(params)) {
            // Large ones are fewer.
            Run::Failed(Failure::Budget { .. }) if limit > 1 => limit /= 4,
            run => {
                return run.map(|rows| {
                    let is_full = u64::from(rows.count) == limit;
                    (rows, is_full)
                });
            }
        }
    }
}

/// The same events with their data as the doctype knows them. What it does not know stays as it is,
/// and so does what was erased.
fn upcast(reader: &mut Reader, doctype: &Doctype, rows: Rows) -> Run<Rows> {
    if doctype.streams.iter().flat_map(|stream| &stream.events).all(|it| it.upcasts.is_empty()) {
        return Run::Done(rows);
    }
    let mut events = rows.decode();
    let has_data = |event: &&mut Vec<Value>| event[ERASED] == Value::Integer(0);
    for event in events.iter_mut().filter(has_data) {
        let (Value::Text(aggregate), Value::Text(name)) = (&event[AGGREGATE], &event[TYPE]) else {
            continue;
        };
        let Some(definition) = doctype.event(aggregate, name) else { continue };
        let (Value::Integer(from), Value::Integer(sequence)) = (&event[VERSION], &event[SEQUENCE])
        else {
            continue;
        };
        let from = u32::try_from(*from).unwrap_or(u32::MAX);
        if from >= definition.version() {
            continue;
        }
        let mut fault = None;
        let mut query = |sql: &str, data: &Value| {
            let params = Params::Named(vec![(UPCAST_PARAM.to_owned(), data.clone())]);
            match reader.query(sql, &params) {
                Run::Done(rows) => Ok(rows.decode()),
                Run::Failed(failure) => Err(failure),
                Run::Fault(pgid) => {
                    fault = Some(pgid);
                    Err(Failure::Faulted)
                }
            }
        };
        let mut data = event[DATA].clone();
        if let Err((version, why)) = upcast_from(&mut query, definition, from, &mut data) {
            return match (fault, why) {
                (Some(pgid), _) => Run::Fault(pgid),
                (None, Failure::Sql { message }) => {
                    let place = place_of(sequence.cast_unsigned(), name, aggregate);
                    let message = not_brought(&place, version, &message);
                    Run::Failed(Failure::Sql { message })
                }
                (None, failure) => Run::Failed(failure),
            };
        }
        event[DATA] = data;
        event[VERSION] = Value::Integer(i64::from(definition.version()));
    }
    let mut upcast = Rows { columns: rows.columns, ..Rows::default() };
    for event in &events {
        upcast.push(event.iter().map(as_ref));
    }
    Run::Done(upcast)
}

/// Answers a query of `:data`.
type QueryOfData<'q> = dyn FnMut(&str, &Value) -> Result<Vec<Vec<Value>>, Failure> + 'q;

/// Brings the data of an event of that version to the newest one. What it fails with says which
/// version they could not be brought to, and why.
pub(crate) fn upcast_from(
    query: &mut QueryOfData<'_>,
    definition: &EventDefinition,
    version: u32,
    data: &mut Value,
) -> Result<(), (usize, Failure)> {
    let seen = usize::try_from(version.saturating_sub(1)).unwrap_or(usize::MAX);
    for (nth, upcast) in definition.upcasts.iter().enumerate().skip(seen) {
        let fail = |failure| (nth + 2, failure);
        let rows = query(&upcast_query(upcast), data).map_err(fail)?;
        *data = match rows.into_iter().next().as_deref() {
            Some([json, Value::Text(kind)]) if kind == "object" => json.clone(),
            Some([_, Value::Text(kind)]) => {
                let message = format!("it gives {kind}, and no object");
                return Err(fail(Failure::Sql { message }));
            }
            _ => unreachable!("BUG: no answer to what it is"),
        };
    }
    Ok(())
}

/// Which event that is, for a person.
pub(crate) fn place_of(sequence: u64, name: &str, aggregate: &str) -> String {
    format!("event {sequence}, {name} of {aggregate},")
}

/// Why it is not of that version.
pub(crate) fn not_brought(place: &str, version: usize, why: &str) -> String {
    format!("{place} cannot be brought to version {version}: {why}")
}

pub(crate) fn as_ref(value: &Value) -> ValueRef<'_> {
    match value {
        Value::Null => ValueRef::Null,
        Value::Integer(number) => ValueRef::Integer(*number),
        Value::Real(number) => ValueRef::Real(*number),
        Value::Text(text) => ValueRef::Text(text.as_bytes()),
        Value::Blob(bytes) => ValueRef::Blob(bytes),
    }
}
