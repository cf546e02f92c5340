//! The columns of tables as each release of the app knows them.
//!
//! `insert into t values (...)` says by place what each column gets, so it is written for the
//! columns that a release's own migrations have made. What an older release has issued runs after
//! the migrations of newer ones, where the table may have more columns, or others. So a migration
//! that changes the columns of a table leaves in the document what they were, and what an older
//! release inserts by place is run with their names:
//!
//! ```text
//! _tidelog_meta    'columns/todo/000002' -> '["id","title"]'    those of todo until the third
//!                                                               migration has run
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use tidelog_sqlite::{Failure, InsertByPlace, Transaction, inserts_by_place};
use tidelog_types::Value;

use crate::Doctype;

/// What changes with the schema, and with nothing else.
const FIND_SCHEMA: &str = "select schema_version from pragma_schema_version";

/// Each table of the app, in small letters as SQLite compares them, with its columns that can be
/// inserted, as JSON.
const FIND_ALL: &str = "
    select lower(it.name), json_group_array(part.name order by part.cid)
    from sqlite_schema as it, pragma_table_info(it.name) as part
    where it.type = 'table' and lower(substr(it.name, 1, 9)) <> '_tidelog_'
    group by it.name";

const NOTE: &str = "insert or replace into _tidelog_meta values (?1, ?2)";

/// Those of a table for a release of so many migrations: what the next one that changed them left.
const FIND_NAMES: &str = "
    select part.value from json_each(
        (select value from _tidelog_meta
         where key >= ?1 and key < ?2 and length(key) = length(?1) order by key limit 1)) as part
    order by part.key";

const FIND_VERSION: &str = "select value from _tidelog_meta where key = 'version'";

/// Runs the migrations of a document, one after the other.
#[derive(Default)]
pub(crate) struct Migrating {
    /// The schema behind the last one, and the columns of its tables.
    before: Option<(Value, Columns)>,
}

type Columns = BTreeMap<String, String>;

impl Migrating {
    /// Runs the migration behind `seen` ones, and notes what the columns were that it has changed.
    pub(crate) fn run(
        &mut self,
        transaction: &Transaction<'_>,
        seen: usize,
        migration: &str,
    ) -> Result<(), Failure> {
        let (schema, before) = match self.before.take() {
            Some(before) => before,
            None => (schema(transaction)?, all(transaction)?),
        };
        transaction.run_migration(migration)?;
        let now = self::schema(transaction)?;
        if now == schema {
            self.before = Some((schema, before));
            return Ok(());
        }
        let after = all(transaction)?;
        for (table, columns) in before {
            if after.get(&table) != Some(&columns) {
                transaction.run_system(NOTE, &[key(&table, seen), Value::Text(columns)])?;
            }
        }
        self.before = Some((now, after));
        Ok(())
    }
}

fn schema(transaction: &Transaction<'_>) -> Result<Value, Failure> {
    let rows = transaction.run_system(FIND_SCHEMA, &[])?;
    Ok(rows.into_iter().flatten().next().unwrap_or(Value::Null))
}

fn all(transaction: &Transaction<'_>) -> Result<Columns, Failure> {
    let rows = transaction.run_system(FIND_ALL, &[])?;
    let row = |row: Vec<Value>| match <[Value; 2]>::try_from(row) {
        Ok([Value::Text(table), Value::Text(columns)]) => Some((table, columns)),
        _ => None,
    };
    Ok(rows.into_iter().filter_map(row).collect())
}

/// Keys of a table are in the order of these numbers.
fn key(table: &str, seen: usize) -> Value {
    Value::Text(format!("columns/{}/{seen:06}", table.to_ascii_lowercase()))
}

/// Runs SQL of the app that stands in `doctype`.
pub(super) fn run_app(
    transaction: &Transaction<'_>,
    doctype: &Doctype,
    sql: &str,
    args: &[(&str, &Value)],
) -> Result<(), Failure> {
    transaction.run_app(&as_written(transaction, doctype, sql)?, args)
}

/// The SQL as it was meant where it was written: with the names of the columns that tables had for
/// `doctype`, wherever it inserts by place and they have others by now.
pub(super) fn as_written<'s>(
    transaction: &Transaction<'_>,
    doctype: &Doctype,
    sql: &'s str,
) -> Result<Cow<'s, str>, Failure> {
    let places = inserts_by_place(sql);
    if places.is_empty() {
        return Ok(Cow::Borrowed(sql));
    }
    let (own, seen) = (doctype.migrations.len(), version(transaction)?);
    if seen <= own {
        return Ok(Cow::Borrowed(sql));
    }
    let mut known: BTreeMap<String, Option<String>> = BTreeMap::new();
    let (mut written, mut end) = (String::with_capacity(sql.len()), 0);
    for InsertByPlace { table, at } in places {
        let names = match known.entry(table.to_ascii_lowercase()) {
            Entry::Occupied(names) => names.into_mut(),
            Entry::Vacant(place) => {
                let range = [key(&table, own), key(&table, seen)];
                let rows = transaction.run_system(FIND_NAMES, &range)?;
                let names = rows.iter().flatten().map(quoted).collect::<Vec<_>>().join(", ");
                place.insert((!names.is_empty()).then_some(names))
            }
        };
        if let Some(names) = names {
            written.extend([&sql[end..at], " (", names, ")"]);
            end = at;
        }
    }
    written.push_str(&sql[end..]);
    Ok(Cow::Owned(written))
}

fn version(transaction: &Transaction<'_>) -> Result<usize, Failure> {
    Ok(match transaction.run_system(FIND_VERSION, &[])?.first().map(Vec::as_slice) {
        Some([Value::Integer(version)]) => usize::try_from(*version).unwrap_or_default(),
        _ => 0,
    })
}

fn quoted(name: &Value) -> String {
    match name {
        Value::Text(name) => format!("\"{}\"", name.replace('"', "\"\"")),
        _ => unreachable!("BUG: a column without a name"),
    }
}
