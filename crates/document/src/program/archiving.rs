//! Archiving: events leave the document once its archive has them durably.
//!
//! ```text
//! _tidelog_stream  archived       how many of its first events have left
//!                  archived_to    the sequence number of the last of those, 0 for none
//! _tidelog_meta    'archived:' and an aggregate's name: the greatest `archived_to` of its streams
//!                  'archive': the storage journal of the archive that has them
//!                  'archived': how many have left, of all streams
//! ```
//!
//! What leaves precedes a state that is kept. The last event of a stream stays, so that nobody has
//! its sequence number later; and so does what a run that is not over may still be told of: all
//! that has happened since its start, or what it may still be given since it went on as new. A
//! stream's length counts what has left.
//!
//! The archive is a document, with tables of events and no others, in which a stream has the events
//! that have left. What the document says counts: an archive may hold more of a stream than that,
//! where a server ended between the two, or another history was lost. That goes before more comes.

use tidelog_sqlite::{Failure, Run, SystemQueries, Transaction, Writer};
use tidelog_types::{JournalId, PageSet, Value};

use super::erasing::{Room, number_of};
use super::{done, single_integer, version};
use crate::archiving::{ArchivePart, ArchiveRefusal, LeavingEvent};
use crate::inspecting::StreamRef;

/// Events of one part.
const EVENTS_MAX: usize = 256;

/// The keys in `_tidelog_meta` of the id of the archive, of how many have left, and what those
/// begin with under which it stands up to where events of an aggregate have left.
pub(crate) const ARCHIVE_KEY: &str = "archive";
pub(crate) const ARCHIVED_KEY: &str = "archived";
pub(crate) const ARCHIVED_PREFIX: &str = "archived:";
/// What comes behind all of those.
pub(crate) const ARCHIVED_END: &str = "archived;";

/// What a stream says of what can leave.
struct Standing {
    number: i64,
    archived: u64,
    /// The position of the last event that can leave, as far as states are kept.
    bound: u64,
    /// The last event before what a run may be told of.
    sequence_max: i64,
    has_state: bool,
}

/// What there is of a stream, if it is there; without `has_tasks` no state is kept.
const FIND_STANDING: [&str; 2] = [
    "select number, archived, length, null, null from _tidelog_stream
     where aggregate = ?1 and stream = ?2",
    "select number, archived, length,
            (select max(position) from _tidelog_snapshot where stream = of.number),
            (select min(first) from _tidelog_task where ended is null and version is not null)
     from _tidelog_stream as of where aggregate = ?1 and stream = ?2",
];

fn named(stream: &StreamRef) -> [Value; 2] {
    [Value::Text(stream.aggregate.clone()), Value::Text(stream.stream.clone())]
}

fn standing_of(rows: &[Vec<Value>]) -> Option<Standing> {
    let [Value::Integer(number), archived, length, position, first] = rows.first()?.as_slice()
    else {
        return None;
    };
    let sequence_max = if let Value::Integer(first) = first { *first } else { i64::MAX };
    let bound = number_of(position).min(number_of(length).saturating_sub(1));
    let has_state = *position != Value::Null;
    Some(Standing {
        number: *number,
        archived: number_of(archived),
        bound,
        sequence_max,
        has_state,
    })
}

/// See [`crate::find_archivable()`].
pub(crate) fn find_archivable(
    queries: &mut dyn SystemQueries,
    stream: &StreamRef,
) -> Run<Result<ArchivePart, ArchiveRefusal>> {
    let version = done!(version(queries)).unwrap_or_default();
    if !version.has_events {
        return Run::Done(Err(ArchiveRefusal::NoStreams));
    }
    let sql = FIND_STANDING[usize::from(version.has_tasks)];
    let Some(standing) = standing_of(&done!(queries.query_system(sql, &named(stream)))) else {
        return Run::Done(Err(ArchiveRefusal::Unknown));
    };
    if !standing.has_state {
        return Run::Done(Err(ArchiveRefusal::NoState));
    }
    let archive = done!(archive_of(queries));
    let Standing { number, archived, bound, sequence_max, .. } = standing;
    // One more tells whether there are more.
    let count = bound.saturating_sub(archived).min(EVENTS_MAX as u64 + 1);
    let sizes = done!(queries.query_system(
        "select sequence, coalesce(octet_length(data), 0) from _tidelog_event
         where stream = ?1 order by sequence limit ?2",
        &[Value::Integer(number), Value::Integer(count.cast_signed())],
    ));
    let may_leave = |row: &&Vec<Value>| number_of(&row[0]).cast_signed() <= sequence_max;
    let mut room = Room::default();
    let free = sizes.iter().take_while(may_leave).count();
    let leaving = &sizes[..free.min(EVENTS_MAX)];
    let taken = leaving.iter().take_while(|row| room.takes(&row[1])).count();
    let mut events = Vec::new();
    if let Some(last) = taken.checked_sub(1) {
        let rows = done!(queries.query_system(
            "select sequence, position, type, version, data, time, user, client, cause
             from _tidelog_event where stream = ?1 and sequence <= ?2 order by sequence",
            &[Value::Integer(number), sizes[last][0].clone()],
        ));
        events = rows.into_iter().filter_map(LeavingEvent::of_row).collect();
        assert_eq!(events.len(), taken, "BUG: events of a stream are not in their order");
    }
    let (has_more, is_awaited) = (taken < free, free < sizes.len());
    let stream = stream.clone();
    Run::Done(Ok(ArchivePart { stream, archive, archived, events, has_more, is_awaited }))
}

/// Which archive has what has left, if anything has.
pub(crate) fn archive_of(queries: &mut dyn SystemQueries) -> Run<Option<JournalId>> {
    let sql = "select value from _tidelog_meta where key = ?1";
    let rows = done!(queries.query_system(sql, &[Value::Text(ARCHIVE_KEY.to_owned())]));
    Run::Done(match rows.first().map(Vec::as_slice) {
        Some([Value::Blob(id)]) => id.as_slice().try_into().ok().map(JournalId),
        _ => None,
    })
}

/// Takes a part in, in the archive. What it holds of the stream beyond those that have left goes
/// first, and so does what has the place of one of these, of a history that was lost.
pub(super) fn take_in(writer: &mut Writer, part: &ArchivePart) -> Run<((), PageSet)> {
    writer.write(&mut |transaction| {
        let [aggregate, stream] = named(&part.stream);
        let archived = Value::Integer(part.archived.cast_signed());
        let end = Value::Integer(part.end().cast_signed());
        let rows = transaction.run_system(
            "insert into _tidelog_stream (aggregate, stream, length) values (?1, ?2, ?3)
             on conflict (aggregate, stream) do update set length = excluded.length
             returning number",
            &[aggregate, stream, end],
        )?;
        let number = Value::Integer(single_integer(&rows).unwrap_or_default());
        transaction.run_system(
            "delete from _tidelog_event where stream = ?1 and position > ?2",
            &[number.clone(), archived],
        )?;
        for event in &part.events {
            let [name, version, data, time, user, client, cause] = event.row();
            let [sequence, position] =
                [event.sequence, event.position].map(|it| Value::Integer(it.cast_signed()));
            transaction.run_system(
                "insert or replace into _tidelog_event
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                &[
                    sequence,
                    number.clone(),
                    position,
                    name,
                    version,
                    data,
                    time,
                    user,
                    client,
                    cause,
                ],
            )?;
        }
        Ok(())
    })
}

/// Lets the events go that the archive of this id has durably, up to this position of the stream,
/// where they begin as they were read. Says how many that were.
pub(super) fn let_go(
    writer: &mut Writer,
    stream: &StreamRef,
    archive: JournalId,
    [archived, end]: [u64; 2],
) -> Run<(Result<u64, ArchiveRefusal>, PageSet)> {
    let refused = |refusal| Run::Done((Err(refusal), PageSet::default()));
    let version = done!(version(writer)).unwrap_or_default();
    if !version.has_events {
        return refused(ArchiveRefusal::NoStreams);
    }
    if done!(archive_of(writer)).is_some_and(|known| known != archive) {
        return refused(ArchiveRefusal::Elsewhere);
    }
    let sql = FIND_STANDING[usize::from(version.has_tasks)];
    let Some(standing) = standing_of(&done!(writer.query_system(sql, &named(stream)))) else {
        return refused(ArchiveRefusal::Unknown);
    };
    // A state may be gone that was kept, and a run may have begun: those were not there when the
    // events were read.
    if standing.archived != archived || end > standing.bound || end <= archived {
        return refused(ArchiveRefusal::Moved);
    }
    let mut is_awaited = false;
    let ran = writer.write(&mut |transaction| {
        let last = transaction.run_system(
            "select sequence from _tidelog_event where stream = ?1
             order by sequence limit 1 offset ?2",
            &[Value::Integer(standing.number), Value::Integer((end - archived - 1).cast_signed())],
        )?;
        let last = single_integer(&last).unwrap_or_default();
        is_awaited = last > standing.sequence_max;
        if is_awaited {
            return Ok(0);
        }
        remove(transaction, standing.number, last, end)?;
        note(transaction, stream, archive, last)?;
        let count = end - archived;
        transaction.run_system(
            "insert into _tidelog_meta values (?1, ?2)
             on conflict (key) do update set value = value + excluded.value",
            &[Value::Text(ARCHIVED_KEY.to_owned()), Value::Integer(count.cast_signed())],
        )?;
        Ok(count)
    });
    match ran {
        Run::Done(_) if is_awaited => refused(ArchiveRefusal::Moved),
        ran => ran.map(|(count, set)| (Ok(count), set)),
    }
}

fn remove(transaction: &Transaction<'_>, number: i64, last: i64, end: u64) -> Result<(), Failure> {
    let (number, last) = (Value::Integer(number), Value::Integer(last));
    let sql = "delete from _tidelog_event where stream = ?1 and sequence <= ?2";
    transaction.run_system(sql, &[number.clone(), last.clone()])?;
    let sql = "update _tidelog_stream set archived = ?2, archived_to = ?3 where number = ?1";
    transaction.run_system(sql, &[number, Value::Integer(end.cast_signed()), last]).map(drop)
}

/// Notes where what has left is found, and how far that of an aggregate goes.
fn note(
    transaction: &Transaction<'_>,
    stream: &StreamRef,
    archive: JournalId,
    last: i64,
) -> Result<(), Failure> {
    let archived = format!("{ARCHIVED_PREFIX}{}", stream.aggregate);
    let rows = [
        (archived, Value::Integer(last)),
        (ARCHIVE_KEY.to_owned(), Value::Blob(archive.0.to_vec())),
    ];
    for (key, value) in rows {
        transaction.run_system(
            "insert into _tidelog_meta values (?1, ?2)
             on conflict (key) do update set value = max(value, excluded.value)",
            &[Value::Text(key), value],
        )?;
    }
    Ok(())
}

/// Which streams of an aggregate have events that have left, if any: the name of one.
pub(super) fn find_archived(
    transaction: &Transaction<'_>,
    aggregate: &str,
) -> Result<Option<String>, Failure> {
    let aggregate = Value::Text(aggregate.to_owned());
    let sql = "select stream from _tidelog_stream where aggregate = ?1 and archived > 0 limit 1";
    let rows = transaction.run_system(sql, &[aggregate])?;
    Ok(match rows.into_iter().flatten().next() {
        Some(Value::Text(stream)) => Some(stream),
        _ => None,
    })
}
