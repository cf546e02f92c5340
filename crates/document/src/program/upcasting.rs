//! Upcasting: events of older versions are rewritten as what a reader is told of them.
//!
//! ```text
//! event     data become what the upcasts make of them, version the newest
//! ```
//!
//! Everything else of an event stays, and what was erased stays as it is: it has no data. It is
//! done in slices, each of them an entry, so that no entry is larger than a mutation's. A slice
//! goes on behind the one before it; done again from the beginning, it finds what is left.

use tidelog_sqlite::{Failure, Run, Transaction, Writer};
use tidelog_types::limits::EVENT_SIZE_MAX;
use tidelog_types::{PageSet, Value};

use super::erasing::Room;
use super::{HAS, done, reason_of, single_integer, version};
use crate::events::{not_brought, place_of, upcast_from};
use crate::streams::UPCAST_PARAM;
use crate::upcasting::{UpcastEvents, UpcastRefusal};
use crate::{Doctype, EventDefinition};

/// Events that one slice rewrites, and those that it looks at.
const EVENTS_MAX: usize = 256;
const LOOKS_MAX: usize = 2048;

/// Upcasts a slice of the events behind `after`, of that aggregate alone if one is named.
pub(super) fn upcast(
    writer: &mut Writer,
    doctype: &Doctype,
    aggregate: Option<&str>,
    after: u64,
) -> Run<(Result<UpcastEvents, UpcastRefusal>, PageSet)> {
    let refused = |refusal| Run::Done((Err(refusal), PageSet::default()));
    if !done!(version(writer)).is_some_and(|version| version.has_events) {
        return refused(UpcastRefusal::NoStreams);
    }
    let is_known = |name: &str| doctype.streams.iter().any(|stream| stream.name == name);
    if !aggregate.is_none_or(is_known) {
        return refused(UpcastRefusal::UnknownAggregate);
    }
    let mut count_max = EVENTS_MAX;
    loop {
        let mut reached = Reached::default();
        let ran = writer.write(&mut |transaction| {
            transaction.bound_as_apps();
            reached = Reached::default();
            Slice { transaction, doctype, aggregate, count_max }.upcast(after, &mut reached)
        });
        let Reached { count, sequence, place, version } = reached;
        match ran {
            // Those before it are not to wait for it, and what is too much together may not be
            // one by one.
            Run::Failed(Failure::Budget { .. }) if count > 0 => count_max = count.div_ceil(2),
            Run::Failed(failure) if count > 0 && !failure.is_passing() => count_max = count,
            Run::Failed(failure) => {
                return match reason_of(failure) {
                    Ok(reason) => {
                        let reason = not_brought(&place, version, &reason);
                        refused(UpcastRefusal::Failed { sequence, reason })
                    }
                    Err(failure) => Run::Failed(failure),
                };
            }
            ran => return ran.map(|(upcast, set)| (Ok(upcast), set)),
        }
    }
}

/// How far a slice has come.
#[derive(Default)]
struct Reached {
    /// How many events were rewritten before the one that it is at.
    count: usize,
    /// The sequence number of that.
    sequence: u64,
    /// Which one that is, for a person, and which version it is brought to.
    place: String,
    version: usize,
}

struct Slice<'s, 't> {
    transaction: &'s Transaction<'t>,
    doctype: &'s Doctype,
    aggregate: Option<&'s str>,
    count_max: usize,
}

impl Slice<'_, '_> {
    fn upcast(&self, after: u64, reached: &mut Reached) -> Result<UpcastEvents, Failure> {
        let last = "select coalesce(max(sequence), 0) from _tidelog_event";
        let last = single_integer(&self.transaction.run_system(last, &[])?).unwrap_or(0);
        let looks_max = Value::Integer(i64::try_from(LOOKS_MAX).unwrap_or(i64::MAX));
        let found = self.transaction.run_system(
            "select sequence, of.aggregate, type, version, octet_length(data), data is null
             from _tidelog_event as event join _tidelog_stream as of on of.number = event.stream
             where sequence > ?1 order by sequence limit ?2",
            &[Value::Integer(after.cast_signed()), looks_max],
        )?;
        let (mut events, mut seen, mut room) = (0, after, Room::default());
        let mut is_all = found.len() < LOOKS_MAX;
        for row in &found {
            let [
                Value::Integer(sequence),
                Value::Text(aggregate),
                Value::Text(name),
                Value::Integer(from),
                size,
                is_erased,
            ] = row.as_slice()
            else {
                continue;
            };
            let from = u32::try_from(*from).unwrap_or(u32::MAX);
            let is_wanted = self.aggregate.is_none_or(|wanted| wanted == aggregate.as_str());
            let definition = self.doctype.event(aggregate, name);
            let definition = definition.filter(|it| is_wanted && it.version() > from);
            if let (Some(definition), true) = (definition, *is_erased != HAS) {
                if events == self.count_max || !room.takes(size) {
                    is_all = false;
                    break;
                }
                let number = sequence.cast_unsigned();
                *reached = Reached {
                    count: events,
                    sequence: number,
                    place: place_of(number, name, aggregate),
                    version: definition.upcasts.len() + 1,
                };
                self.rewrite(definition, *sequence, from, reached)?;
                events += 1;
            }
            seen = sequence.cast_unsigned();
        }
        let (events, last) = (events as u64, last.cast_unsigned());
        Ok(UpcastEvents { events, seen, last, has_more: !is_all })
    }

    fn rewrite(
        &self,
        definition: &EventDefinition,
        sequence: i64,
        from: u32,
        reached: &mut Reached,
    ) -> Result<(), Failure> {
        let number = Value::Integer(sequence);
        let sql = "select data from _tidelog_event where sequence = ?1";
        let rows = self.transaction.run_system(sql, std::slice::from_ref(&number))?;
        let Some(mut data) = rows.into_iter().flatten().next() else { return Ok(()) };
        let mut query =
            |sql: &str, data: &Value| self.transaction.query_app(sql, &[(UPCAST_PARAM, data)]);
        upcast_from(&mut query, definition, from, &mut data).map_err(|(version, failure)| {
            reached.version = version;
            failure
        })?;
        let size = if let Value::Text(text) = &data { text.len() } else { 0 };
        if size > EVENT_SIZE_MAX {
            let message = format!("it gives {size} bytes, and an event has {EVENT_SIZE_MAX}");
            return Err(Failure::Sql { message });
        }
        let newest = Value::Integer(i64::from(definition.version()));
        let sql = "update _tidelog_event set data = ?2, version = ?3 where sequence = ?1";
        self.transaction.run_system(sql, &[number, data, newest]).map(drop)
    }
}
