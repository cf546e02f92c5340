//! Replaying: what follows from the events of an aggregate is made anew, in one transaction.
//!
//! ```text
//! tables that are named   lose all rows
//! each event, in order    its `project` runs, as when it was recorded, with its data as they are
//!                         at the newest version, and its own stream, places, time, user and client
//! ```
//!
//! Nothing is recorded by it. An event that was erased has no data, and nothing follows from it.

use tidelog_sqlite::{Failure, Run, Transaction, Writer};
use tidelog_types::limits::REPLAY_EVENTS_MAX;
use tidelog_types::{PageSet, Value};

use super::erasing::number_of;
use super::events::{Mentioned, project, read_data};
use super::{archiving, done, reason_of, single_integer, version};
use crate::Doctype;
use crate::events::upcast_from;
use crate::replaying::{Replay, ReplayRefusal, Replayed, ReplayedTable};
use crate::streams::UPCAST_PARAM;

/// Events that are in memory at a time.
const EVENTS_AT_ONCE: usize = 64;

/// What the names begin with of tables that are no app's.
const FOREIGN_PREFIXES: [&str; 4] = ["_tidelog_", "tidelog_", "sqlite_", "pragma_"];

/// The tables whose rows go, or change, with rows of a table.
const FIND_DEPENDENTS: &str = "
    select child.name from sqlite_schema as child, pragma_foreign_key_list(child.name) as key
    where child.type = 'table' and lower(key.\"table\") = lower(?1)
      and key.on_delete not in ('NO ACTION', 'RESTRICT')
    order by child.name";

/// Makes it anew.
pub(super) fn replay(
    writer: &mut Writer,
    doctype: &Doctype,
    wanted: &Replay,
) -> Run<(Result<Replayed, ReplayRefusal>, PageSet)> {
    let refused = |refusal| Run::Done((Err(refusal), PageSet::default()));
    if !done!(version(writer)).is_some_and(|version| version.has_events) {
        return refused(ReplayRefusal::NoStreams);
    }
    if doctype.streams.iter().all(|stream| stream.name != wanted.aggregate) {
        return refused(ReplayRefusal::UnknownAggregate);
    }
    // The event that it came to.
    let mut reached = None;
    let ran = writer.write(&mut |transaction| {
        reached = None;
        transaction.bound_as_apps();
        Anew { transaction, doctype, wanted }.make(&mut reached)
    });
    let (replayed, set) = match ran {
        Run::Failed(failure) => {
            let reason = match reason_of(failure) {
                Ok(reason) => reason,
                Err(failure) => return Run::Failed(failure),
            };
            return refused(match reached {
                Some((sequence, name)) => {
                    let aggregate = wanted.aggregate.clone();
                    ReplayRefusal::Event { sequence, name, aggregate, reason }
                }
                None => ReplayRefusal::Failed { reason },
            });
        }
        ran => done!(ran),
    };
    if wanted.is_dry {
        writer.take_back();
        return Run::Done((replayed, PageSet::default()));
    }
    Run::Done((replayed, set))
}

struct Anew<'s, 't> {
    transaction: &'s Transaction<'t>,
    doctype: &'s Doctype,
    wanted: &'s Replay,
}

/// The event that it came to, if it came to one: its sequence number and its type.
type Reached = Option<(u64, String)>;

impl Anew<'_, '_> {
    fn make(&self, reached: &mut Reached) -> Result<Result<Replayed, ReplayRefusal>, Failure> {
        let sql = "select coalesce(sum(length), 0) from _tidelog_stream where aggregate = ?1";
        let aggregate = Value::Text(self.wanted.aggregate.clone());
        let count = self.transaction.run_system(sql, &[aggregate])?;
        let count = single_integer(&count).unwrap_or(0).cast_unsigned();
        if count > REPLAY_EVENTS_MAX {
            let count_max = REPLAY_EVENTS_MAX;
            return Ok(Err(ReplayRefusal::TooMany { count, count_max }));
        }
        if let Some(stream) = archiving::find_archived(self.transaction, &self.wanted.aggregate)? {
            return Ok(Err(ReplayRefusal::Archived { stream }));
        }
        let names = match self.names()? {
            Ok(names) => names,
            Err(refusal) => return Ok(Err(refusal)),
        };
        // Rows of other tables may name rows that are back at the end.
        self.transaction.run_system("pragma defer_foreign_keys = on", &[])?;
        let before = self.counts(&names)?;
        for name in &names {
            self.transaction.run_app(&format!("delete from {}", quoted(name)), &[])?;
        }
        let (events, erased) = self.project_all(reached)?;
        *reached = None;
        let after = self.counts(&names)?;
        let tables = names.into_iter().zip(before.into_iter().zip(after));
        let tables = tables.map(|(name, (rows_before, rows_after))| ReplayedTable {
            name,
            rows_before,
            rows_after,
        });
        Ok(Ok(Replayed { events, erased, tables: tables.collect(), is_dry: self.wanted.is_dry }))
    }

    /// The tables by the names that they have, each once, or which one is not to be emptied.
    fn names(&self) -> Result<Result<Vec<String>, ReplayRefusal>, Failure> {
        let refused = |name: &str, reason: &str| {
            Ok(Err(ReplayRefusal::Table { name: name.to_owned(), reason: reason.to_owned() }))
        };
        let mut names: Vec<String> = Vec::new();
        for table in &self.wanted.tables {
            let lower = table.to_ascii_lowercase();
            if FOREIGN_PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
                return refused(table, "it is none of the app's");
            }
            let sql = "select name from sqlite_schema where type = 'table' and lower(name) = ?1";
            let found = self.transaction.run_system(sql, &[Value::Text(lower)])?;
            let Some([Value::Text(name)]) = found.first().map(Vec::as_slice) else {
                return refused(table, "there is no such table");
            };
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        for name in &names {
            let of = [Value::Text(name.clone())];
            for row in self.transaction.run_system(FIND_DEPENDENTS, &of)? {
                if let [Value::Text(child)] = row.as_slice()
                    && !names.contains(child)
                {
                    let reason = format!("rows of {child} would go, or change, with its own");
                    return refused(name, &reason);
                }
            }
        }
        Ok(Ok(names))
    }

    /// How many rows they have.
    fn counts(&self, names: &[String]) -> Result<Vec<u64>, Failure> {
        let count = |name: &String| {
            let sql = format!("select count(*) from {}", quoted(name));
            let rows = self.transaction.query_app(&sql, &[])?;
            Ok(single_integer(&rows).unwrap_or(0).cast_unsigned())
        };
        names.iter().map(count).collect()
    }

    /// From how many events rows follow, and how many were erased.
    fn project_all(&self, reached: &mut Reached) -> Result<(u64, u64), Failure> {
        let at_once = Value::Integer(i64::try_from(EVENTS_AT_ONCE).unwrap_or(i64::MAX));
        let (mut events, mut erased, mut after) = (0, 0, Value::Integer(0));
        loop {
            let found = self.transaction.run_system(
                // In the order of the events, however many streams there are.
                "select sequence, of.stream, position, type, version, data, time, user,
                        lower(hex(client))
                 from _tidelog_event as event
                 cross join _tidelog_stream as of on of.number = event.stream
                 where sequence > ?1 and of.aggregate = ?2 order by sequence limit ?3",
                &[after, Value::Text(self.wanted.aggregate.clone()), at_once.clone()],
            )?;
            let is_last = found.len() < EVENTS_AT_ONCE;
            let Some(last) = found.last().map(|row| row[0].clone()) else {
                return Ok((events, erased));
            };
            for row in found {
                match self.project_one(row, reached)? {
                    true => events += 1,
                    false => erased += 1,
                }
            }
            if is_last {
                return Ok((events, erased));
            }
            after = last;
        }
    }

    /// False for one that was erased.
    fn project_one(&self, row: Vec<Value>, reached: &mut Reached) -> Result<bool, Failure> {
        let Ok(
            [
                sequence,
                stream,
                position,
                Value::Text(name),
                Value::Integer(version),
                mut data,
                time,
                user,
                client,
            ],
        ) = <[Value; 9]>::try_from(row)
        else {
            unreachable!("BUG: an event of other columns")
        };
        if data == Value::Null {
            return Ok(false);
        }
        *reached = Some((number_of(&sequence), name.clone()));
        let rejected = |reason: String| Failure::Rejected { reason };
        let Some(definition) = self.doctype.event(&self.wanted.aggregate, &name) else {
            return Err(rejected(format!("doctype {} has none", self.doctype.name)));
        };
        let mut query =
            |sql: &str, data: &Value| self.transaction.query_app(sql, &[(UPCAST_PARAM, data)]);
        let from = u32::try_from(version).unwrap_or(u32::MAX);
        upcast_from(&mut query, definition, from, &mut data).map_err(|(_, failure)| failure)?;
        let read = read_data(self.transaction, &definition.fields, &data)?;
        let (_, fields) = read.map_err(rejected)?;
        let mentioned = Mentioned {
            stream: &stream,
            sequence: &sequence,
            position: &position,
            time: &time,
            client: &client,
            user: &user,
        };
        project(self.transaction, self.doctype, definition, &fields, &mentioned)?;
        Ok(true)
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use tidelog_sqlite::View;

    use super::super::{begin_document, events};
    use super::*;
    use crate::StreamDefinition;

    /// Goal: more events than may be are refused before one of them is looked at. Method: a stream
    /// that says it has so many, and none.
    #[test]
    fn more_events_than_may_be_are_refused() {
        let replay_of = |count: u64| {
            let view = View::new(usize::MAX, 0);
            let mut writer = Writer::new(&view);
            let ran = writer.write(&mut |transaction| {
                begin_document(transaction)?;
                events::begin(transaction)?;
                let sql = "insert into _tidelog_stream values (1, 'order', 'o', ?1, 0, 0)";
                transaction.run_system(sql, &[Value::Integer(count.cast_signed())])?;
                transaction.run_migration("create table orders (id text)")
            });
            view.advance_base(&ran.unwrap().1);
            let (name, events, commands) = ("order".to_owned(), Vec::new(), Vec::new());
            let streams = vec![StreamDefinition { name, events, commands }];
            let doctype = Doctype { streams, ..Doctype::default() };
            let tables = vec!["orders".to_owned()];
            let wanted = Replay { aggregate: "order".to_owned(), tables, is_dry: false };
            replay(&mut writer, &doctype, &wanted).unwrap().0
        };
        let count_max = REPLAY_EVENTS_MAX;
        assert!(replay_of(count_max).is_ok());
        let too_many = ReplayRefusal::TooMany { count: count_max + 1, count_max };
        assert_eq!(replay_of(count_max + 1), Err(too_many));
    }
}
