//! Snapshots: what the events of a stream come to, kept beside them, so that whoever folds them
//! begins there.
//!
//! ```text
//! _tidelog_snapshot  stream -> version             by which way of folding
//!                           -> position, sequence  of the last event that is in it
//!                           -> state               JSON
//! ```
//!
//! One for each stream at most. A handler sends it with the completion of a command, before whose
//! events it stands; it says nothing that the events do not, so it is left out, not refused, where
//! it is too large, and goes where the stream is erased.

use tidelog_sqlite::{Failure, Transaction};
use tidelog_types::Value;
use tidelog_types::limits::SNAPSHOT_SIZE_MAX;

use crate::tasks::NewSnapshot;

/// The table, and the view of it.
pub(super) const STATEMENTS: [&str; 2] = [
    "create table _tidelog_snapshot (stream integer primary key, version integer not null,
     position integer not null, sequence integer not null, state text not null) strict",
    "create view tidelog_snapshots (aggregate, stream, version, position, sequence, state) as
     select aggregate, of.stream, version, position, sequence, state
     from _tidelog_snapshot as kept join _tidelog_stream as of on of.number = kept.stream",
];

/// Keeps what all events of a stream come to, unless a later way of folding has made what is there.
pub(super) fn keep(
    transaction: &Transaction<'_>,
    [aggregate, stream]: [&Value; 2],
    snapshot: &NewSnapshot,
) -> Result<(), Failure> {
    let NewSnapshot { version, state } = snapshot;
    if state.len() > SNAPSHOT_SIZE_MAX {
        return Ok(());
    }
    transaction
        .run_system(
            "insert into _tidelog_snapshot
             select number, ?3, length,
                    (select max(sequence) from _tidelog_event as event
                     where event.stream = of.number), ?4
             from _tidelog_stream as of
             where aggregate = ?1 and stream = ?2 and json_valid(?4)
             on conflict (stream) do update
             set version = excluded.version, position = excluded.position,
                 sequence = excluded.sequence, state = excluded.state
             where excluded.version >= version",
            &[
                aggregate.clone(),
                stream.clone(),
                Value::Integer(i64::from(*version)),
                Value::Text(state.clone()),
            ],
        )
        .map(drop)
}

/// What stream of that number comes to is not kept any longer.
pub(super) fn forget(transaction: &Transaction<'_>, stream: i64) -> Result<(), Failure> {
    let sql = "delete from _tidelog_snapshot where stream = ?1";
    transaction.run_system(sql, &[Value::Integer(stream)]).map(drop)
}
