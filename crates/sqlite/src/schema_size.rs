//! What a schema takes of each connection that has read it, estimated from what is the same on
//! every host.

use tidelog_types::limits::SCHEMA_SIZE_MAX;
use tidelog_types::{Value, ValueRef};

use crate::connection::Connection;
use crate::failure::Failure;
use crate::guard::is_system_name;
use crate::scan::tokens_count;
use crate::state::Origin;

/// Bytes that each costs at most, where pointers have eight bytes: an object beside its SQL, a word
/// of that, a column of a table or view beside its name, and one of an index.
const OBJECT_SIZE: usize = 512;
const TOKEN_SIZE: usize = 96;
const COLUMN_SIZE: usize = 64;
const INDEX_COLUMN_SIZE: usize = 16;

const OBJECTS: &str = "select type, name, sql, tbl_name from sqlite_schema order by rowid";
const COLUMNS: &str = "select count(*), sum(octet_length(name)) from pragma_table_xinfo(?1)";
const INDEX_COLUMNS: &str = "select count(*), 0 from pragma_index_xinfo(?1)";

/// Fails if it is more than a schema may take.
pub(crate) fn check(connection: &mut Connection) -> Result<(), Failure> {
    let mut size = 0;
    let mut add = |more: usize| {
        size += more;
        match size > SCHEMA_SIZE_MAX {
            true => Err(Failure::budget(format!("{SCHEMA_SIZE_MAX} bytes for a schema"))),
            false => Ok(()),
        }
    };
    let mut objects = Vec::new();
    connection.run(Origin::System, OBJECTS, &|_| Ok(Vec::new()), &mut |row| {
        let text = |index| match row.column(index) {
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            _ => String::new(),
        };
        if is_system_name(&text(3)) {
            return Ok(());
        }
        let sql = text(2);
        add(OBJECT_SIZE + sql.len() + TOKEN_SIZE * tokens_count(&sql))?;
        objects.push((text(0), Value::Text(text(1))));
        Ok(())
    })?;
    for (kind, name) in &objects {
        let (sql, column_size) = match kind.as_str() {
            "table" | "view" => (COLUMNS, COLUMN_SIZE),
            "index" => (INDEX_COLUMNS, INDEX_COLUMN_SIZE),
            _ => continue,
        };
        match columns_of(connection, sql, name) {
            Ok([count, names_size]) => add(count.saturating_mul(column_size) + names_size)?,
            // A view of what is not there: nobody can use it, and it has no columns.
            Err(Failure::Sql { .. }) => connection.forgive(),
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

/// How many columns something has, and the bytes of their names. Under the budget of a query: there
/// may be no end to what views are made of.
fn columns_of(connection: &mut Connection, sql: &str, name: &Value) -> Result<[usize; 2], Failure> {
    let mut found = [0; 2];
    connection.run(Origin::Query, sql, &|_| Ok(vec![name]), &mut |row| {
        found = [0, 1].map(|index| match row.column(index) {
            ValueRef::Integer(number) => usize::try_from(number).unwrap_or(0),
            _ => 0,
        });
        Ok(())
    })?;
    Ok(found)
}
