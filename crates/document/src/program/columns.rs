//! The columns of tables as each release of the app knows them.
//!
//! `insert into t values (...)` says by place what each column gets, so it is written for the
//! columns that a release's own migrations have made. What an older release has issued runs after
//! the migrations of newer ones, where the table may have more columns, or others. So a migration
//! that changes the columns of a table leaves in the document what they were, and what an older
//! release inserts by place is run with their names:
//!
//! ```text
//! _tidelog_meta    'columns/2/todo' -> '["id","title"]'    those of todo until the third migration
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;

use tidelog_sqlite::{Failure, Transaction, inserts_by_place};
use tidelog_types::Value;

use crate::Doctype;

/// Each table of the app, in small letters as SQLite compares them, with its columns that can be
/// inserted, as JSON.
const FIND_ALL: &str = "
    select lower(it.name), json_group_array(part.name order by part.cid)
    from sqlite_schema as it, pragma_table_info(it.name) as part
    where it.type = 'table' and lower(substr(it.name, 1, 9)) <> '_tidelog_'
    group by it.name";

const NOTE: &str = "insert or replace into _tidelog_meta values (?1, ?2)";

const FIND_NAMES: &str = "
    select part.value from _tidelog_meta as it, json_each(it.value) as part
    where it.key = ?1 order by part.key";

const FIND_VERSION: &str = "select value from _tidelog_meta where key = 'version'";

/// Runs the migration behind `seen` ones, and notes what the columns were that it has changed.
pub(crate) fn run_migration(
    transaction: &Transaction<'_>,
    seen: usize,
    migration: &str,
) -> Result<(), Failure> {
    let before = all(transaction)?;
    transaction.run_migration(migration)?;
    if before.is_empty() {
        return Ok(());
    }
    let after = all(transaction)?;
    for (table, columns) in before {
        if after.get(&table).is_some_and(|now| *now != columns) {
            transaction.run_system(NOTE, &[key(seen, &table), Value::Text(columns)])?;
        }
    }
    Ok(())
}

fn all(transaction: &Transaction<'_>) -> Result<BTreeMap<String, String>, Failure> {
    let rows = transaction.run_system(FIND_ALL, &[])?;
    let row = |row: Vec<Value>| match <[Value; 2]>::try_from(row) {
        Ok([Value::Text(table), Value::Text(columns)]) => Some((table, columns)),
        _ => None,
    };
    Ok(rows.into_iter().filter_map(row).collect())
}

fn key(seen: usize, table: &str) -> Value {
    Value::Text(format!("columns/{seen}/{}", table.to_ascii_lowercase()))
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
    let seen = match transaction.run_system(FIND_VERSION, &[])?.first().map(Vec::as_slice) {
        Some([Value::Integer(version)]) => usize::try_from(*version).unwrap_or_default(),
        _ => 0,
    };
    let mut written = Cow::Borrowed(sql);
    // From behind: what stands before stays where it is.
    for place in places.iter().rev() {
        for seen in doctype.migrations.len()..seen {
            let rows = transaction.run_system(FIND_NAMES, &[key(seen, &place.table)])?;
            if !rows.is_empty() {
                let quoted = rows.iter().flatten().map(|name| match name {
                    Value::Text(name) => format!("\"{}\"", name.replace('"', "\"\"")),
                    _ => unreachable!("BUG: a column without a name"),
                });
                let names = quoted.collect::<Vec<_>>().join(", ");
                written.to_mut().insert_str(place.at, &format!(" ({names})"));
                break;
            }
        }
    }
    Ok(written)
}
