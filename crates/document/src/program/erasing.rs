//! Erasing: what events, commands and runs say is overwritten, and their rows stay.
//!
//! ```text
//! event     data becomes null, user and client those of nobody
//! command   the same of its arguments; its reason says that it was erased; its key goes
//! run       the same, and its result and what it was begun with; its records go
//! snapshot  it goes
//! ```
//!
//! What is left says that something happened, to what, in which order and when. A stream's name, a
//! run's id, types and names of commands stay. So does the key of a command for as long as it
//! counts: what is sent again by it must not be done twice.
//!
//! It is done in slices, each of them an entry, so that no entry is larger than a mutation's. A
//! slice goes on behind the one before it, and the first begins anew: what was erased stays so.

use tidelog_sqlite::{Failure, Run, Transaction, Writer};
use tidelog_types::{JournalId, PageSet, Value};

use super::{HAS, clocks, done, single_integer, snapshots, version, workflows};
use crate::erasing::{Erasable, EraseRefusal, Erased, ErasedUpTo};

/// Events of one slice, and tasks that are looked at for it.
const EVENTS_MAX: usize = 256;
const TASKS_MAX: u64 = 1024;
/// Bytes of data, arguments and results that one slice erases, with one more than those.
const SIZE_MAX: i64 = 1024 * 1024;

/// What stands for a reason that was erased.
const ERASED_REASON: &str = "erased";

/// Erases a slice behind `after`.
pub(super) fn erase(
    writer: &mut Writer,
    what: &Erasable,
    after: ErasedUpTo,
    (server, now): (Option<JournalId>, i64),
) -> Run<(Result<Erased, EraseRefusal>, PageSet)> {
    let version = done!(version(writer)).unwrap_or_default();
    let has_any = match what {
        Erasable::Stream { .. } => version.has_events,
        Erasable::Run { .. } => version.has_tasks,
    };
    if !has_any {
        return Run::Done((Err(EraseRefusal::HasNone), PageSet::default()));
    }
    let knows_clock = done!(clocks::is_known(writer, server));
    writer.write(&mut |transaction| {
        let slice = Slice { transaction, what, now, knows_clock, has_tasks: version.has_tasks };
        if let Some(refusal) = slice.refusal(after)? {
            return Ok(Err(refusal));
        }
        slice.erase(after).map(Ok)
    })
}

struct Slice<'s, 't> {
    transaction: &'s Transaction<'t>,
    what: &'s Erasable,
    now: i64,
    /// Whether that is the clock of what is over, or of some of it.
    knows_clock: bool,
    has_tasks: bool,
}

impl Slice<'_, '_> {
    /// Aggregate and stream, or workflow and id.
    fn named(&self) -> [Value; 2] {
        let names = match self.what {
            Erasable::Stream { aggregate, stream } => [aggregate, stream],
            Erasable::Run { workflow, id } => [workflow, id],
        };
        names.map(|name| Value::Text(name.clone()))
    }

    fn is_stream(&self) -> bool {
        matches!(self.what, Erasable::Stream { .. })
    }

    /// Why nothing is erased; from the second slice on it is known that there is something.
    fn refusal(&self, after: ErasedUpTo) -> Result<Option<EraseRefusal>, Failure> {
        let [aggregate, stream] = self.named();
        let named = [aggregate, stream, Value::Integer(self.is_stream().into())];
        if self.has_tasks {
            let unfinished = self.transaction.run_system(
                "select min(number) from _tidelog_task
                 where aggregate = ?1 and stream = ?2 and ended is null
                   and (version is null) = ?3",
                &named,
            )?;
            if let Some(number) = single_integer(&unfinished) {
                return Ok(Some(EraseRefusal::Unfinished { number: number.cast_unsigned() }));
            }
        }
        if after != ErasedUpTo::default() {
            return Ok(None);
        }
        let has_events = self.is_stream() && self.stream_number()?.is_some();
        if has_events || !self.has_tasks {
            return Ok((!has_events).then_some(EraseRefusal::Unknown));
        }
        let sql = "select 1 from _tidelog_task
                   where aggregate = ?1 and stream = ?2 and (version is null) = ?3 limit 1";
        let is_known = !self.transaction.run_system(sql, &named)?.is_empty();
        Ok((!is_known).then_some(EraseRefusal::Unknown))
    }

    fn stream_number(&self) -> Result<Option<i64>, Failure> {
        let sql = "select number from _tidelog_stream where aggregate = ?1 and stream = ?2";
        Ok(single_integer(&self.transaction.run_system(sql, &self.named())?))
    }

    fn erase(&self, after: ErasedUpTo) -> Result<Erased, Failure> {
        let mut erased = Erased::default();
        if self.is_stream()
            && let Some(stream) = self.stream_number()?
        {
            if self.has_tasks {
                snapshots::forget(self.transaction, stream)?;
            }
            if let Some(event) = self.erase_events(stream, after.event, &mut erased)? {
                erased.next = Some(ErasedUpTo { event, ..after });
                return Ok(erased);
            }
        }
        if self.has_tasks {
            let task = self.erase_tasks(after.task, &mut erased)?;
            // The events are done.
            erased.next = task.map(|task| ErasedUpTo { event: i64::MAX.cast_unsigned(), task });
        }
        Ok(erased)
    }

    /// Erases events of that stream. Gives the last one, if there may be more.
    fn erase_events(
        &self,
        stream: i64,
        after: u64,
        erased: &mut Erased,
    ) -> Result<Option<u64>, Failure> {
        let (stream, after) = (Value::Integer(stream), Value::Integer(after.cast_signed()));
        let count_max = Value::Integer(i64::try_from(EVENTS_MAX).unwrap_or(i64::MAX));
        let found = self.transaction.run_system(
            "select sequence, coalesce(octet_length(data), 0) from _tidelog_event
             where stream = ?1 and sequence > ?2 order by sequence limit ?3",
            &[stream.clone(), after.clone(), count_max],
        )?;
        let mut room = Room::default();
        let taken = found.iter().take_while(|row| room.takes(&row[1])).count();
        let Some([last, _]) = taken.checked_sub(1).map(|last| found[last].as_slice()) else {
            return Ok(None);
        };
        let rows = self.transaction.run_system(
            "update _tidelog_event set data = null, user = '', client = x''
             where stream = ?1 and sequence > ?2 and sequence <= ?3 and data is not null
             returning 1",
            &[stream, after, last.clone()],
        )?;
        erased.events += rows.len() as u64;
        let is_all = taken == found.len() && found.len() < EVENTS_MAX;
        Ok(if is_all { None } else { Some(number_of(last)) })
    }

    /// Erases commands of the stream, or runs of the id. Gives the last task that was looked at, if
    /// there may be more.
    fn erase_tasks(&self, after: u64, erased: &mut Erased) -> Result<Option<u64>, Failure> {
        let least =
            self.integer("select min(number) from _tidelog_task where number > ?1", after)?;
        let Some(first) = least else { return Ok(None) };
        let end = first.saturating_add(TASKS_MAX);
        let [aggregate, stream] = self.named();
        let found = self.transaction.run_system(
            "select number, exists (select 1 from _tidelog_record where task = it.number),
                    coalesce(octet_length(args), 0) + coalesce(octet_length(result), 0)
                    + coalesce(octet_length(begun_with), 0)
             from _tidelog_task as it
             where number >= ?1 and number < ?2 and +aggregate = ?3 and +stream = ?4
               and (version is null) = ?5
             order by number",
            &[
                Value::Integer(first.cast_signed()),
                Value::Integer(end.cast_signed()),
                aggregate,
                stream,
                Value::Integer(self.is_stream().into()),
            ],
        )?;
        let mut room = Room::default();
        for row in &found {
            let [number, has_records, size] = row.as_slice() else { continue };
            let before = number_of(number) - 1;
            if !room.takes(size) {
                return Ok(Some(before));
            }
            if *has_records == HAS {
                let (count, is_left) = workflows::forget(self.transaction, number)?;
                erased.records += count as u64;
                if is_left {
                    return Ok(Some(before));
                }
            }
            let is_new = self.erase_task(number)?;
            let count = if self.is_stream() { &mut erased.commands } else { &mut erased.runs };
            *count += u64::from(is_new);
            // What one task remembers may be all that a slice takes.
            if *has_records == HAS {
                return Ok(Some(number_of(number)));
            }
        }
        let last = self.integer("select max(number) from _tidelog_task where number >= ?1", end)?;
        Ok(last.map(|_| end - 1))
    }

    /// Says whether it was not erased before.
    fn erase_task(&self, number: &Value) -> Result<bool, Failure> {
        let key_ms = i64::try_from(self.transaction.limits().command_key_ms).unwrap_or(i64::MAX);
        let counts_since = Value::Integer(self.now.saturating_sub(key_ms));
        let rows = self.transaction.run_system(
            "update _tidelog_task
             set args = null, user = '', client = x'', reason = iif(reason is null, null, ?2),
                 result = iif(result is null, null, 'null'), begun_with = null
             where number = ?1 and args is not null returning 1",
            &[number.clone(), Value::Text(ERASED_REASON.to_owned())],
        )?;
        if self.knows_clock {
            let sql = format!(
                "update _tidelog_task set key = null
                 where number = ?1 and key is not null and ended < ?2 and {}",
                clocks::IS_OWN
            );
            self.transaction.run_system(&sql, &[number.clone(), counts_since])?;
        }
        Ok(!rows.is_empty())
    }

    fn integer(&self, sql: &str, number: u64) -> Result<Option<u64>, Failure> {
        let rows = self.transaction.run_system(sql, &[Value::Integer(number.cast_signed())])?;
        Ok(single_integer(&rows).map(i64::cast_unsigned))
    }
}

/// What one slice may still erase, or rewrite.
pub(super) struct Room(i64);

impl Default for Room {
    fn default() -> Self {
        Self(SIZE_MAX)
    }
}

impl Room {
    /// Whether something of this size may be as well. What comes first may be of any.
    pub(super) fn takes(&mut self, size: &Value) -> bool {
        let may = self.0 > 0;
        self.0 -= if let Value::Integer(size) = size { *size } else { 0 };
        may
    }
}

pub(super) fn number_of(value: &Value) -> u64 {
    if let Value::Integer(number) = value { number.cast_unsigned() } else { 0 }
}
