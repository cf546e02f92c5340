//! Snapshots: what the events of a stream come to, kept beside them, so that whoever folds them
//! begins there.
//!
//! ```text
//! _tidelog_snapshot  stream, name -> position, sequence  of the last event that is in it
//!                                 -> state               JSON
//! ```
//!
//! The name is that of the way of folding: two who handle commands of one stream need not fold
//! alike, nor do two releases. A handler sends one with the completion of a command, before whose
//! events it stands. It says nothing that the events do not: so it is left out, not refused, where
//! it cannot be kept, and goes where the stream is erased.

use tidelog_sqlite::{Failure, Transaction};
use tidelog_types::Value;
use tidelog_types::limits::{SNAPSHOT_NAME_SIZE_MAX, SNAPSHOT_SIZE_MAX, SNAPSHOTS_MAX};

use crate::tasks::NewSnapshot;

/// The table, and the view of it.
pub(super) const STATEMENTS: [&str; 2] = [
    "create table _tidelog_snapshot (stream integer not null, name text not null,
     position integer not null, sequence integer not null, state text not null,
     primary key (stream, name)) strict, without rowid",
    "create view tidelog_snapshots (aggregate, stream, name, position, sequence, state) as
     select aggregate, of.stream, name, position, sequence, state
     from _tidelog_snapshot as kept join _tidelog_stream as of on of.number = kept.stream",
];

/// Keeps what all events of a stream come to, and the few that have come furthest.
pub(super) fn keep(
    transaction: &Transaction<'_>,
    [aggregate, stream]: [&Value; 2],
    snapshot: &NewSnapshot,
) -> Result<(), Failure> {
    let NewSnapshot { name, state } = snapshot;
    if !(1..=SNAPSHOT_NAME_SIZE_MAX).contains(&name.len()) || state.len() > SNAPSHOT_SIZE_MAX {
        return Ok(());
    }
    let kept = transaction.run_system(
        "insert into _tidelog_snapshot
         select number, ?3, length,
                (select max(sequence) from _tidelog_event as event
                 where event.stream = of.number), ?4
         from _tidelog_stream as of
         where aggregate = ?1 and stream = ?2 and json_valid(?4)
         on conflict (stream, name) do update
         set position = excluded.position, sequence = excluded.sequence, state = excluded.state
         returning stream",
        &[aggregate.clone(), stream.clone(), Value::Text(name.clone()), Value::Text(state.clone())],
    )?;
    let Some([stream]) = kept.first().map(Vec::as_slice) else { return Ok(()) };
    transaction
        .run_system(
            "delete from _tidelog_snapshot where stream = ?1 and name in
             (select name from _tidelog_snapshot where stream = ?1
              order by position desc, name limit -1 offset ?2)",
            &[stream.clone(), Value::Integer(SNAPSHOTS_MAX as i64)],
        )
        .map(drop)
}

/// What the stream of that number comes to is not kept any longer.
pub(super) fn forget(transaction: &Transaction<'_>, stream: i64) -> Result<(), Failure> {
    let sql = "delete from _tidelog_snapshot where stream = ?1";
    transaction.run_system(sql, &[Value::Integer(stream)]).map(drop)
}
