//! The connection that runs queries.

use tidelog_types::{Params, Rows, Value};

use crate::connection::{Connection, Lazy, Script};
use crate::failure::{Failure, Run};
use crate::params::arrange;
use crate::read_set::ReadSet;
use crate::state::{Origin, lock};
use crate::view::View;

/// A connection that can answer queries of ours, one for queries or one for mutations.
pub trait SystemQueries {
    /// Whether there is nothing to read: no table, not even one of SQLite's.
    fn is_of_nothing(&self) -> bool;

    /// Answers a query of ours, on any table. `params` by place.
    fn query_system(&mut self, sql: &str, params: &[Value]) -> Run<Vec<Vec<Value>>>;
}

/// A connection for queries. Opens when it is first used.
#[derive(Debug)]
pub struct Reader {
    view: View,
    connection: Lazy,
}

impl Reader {
    /// A reader on `view`.
    #[must_use]
    pub fn new(view: &View) -> Self {
        Self { view: view.clone(), connection: Lazy::new(view, false) }
    }

    /// Begins with a fresh connection next time: when the view was changed otherwise than by what
    /// was pushed.
    pub fn refresh(&mut self) {
        self.connection.refresh();
    }

    /// Whether it has a connection open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.connection.is_open()
    }

    /// About how many bytes its connection takes; 0 if none is open.
    #[must_use]
    pub fn size(&self) -> usize {
        self.connection.size()
    }

    /// Steps of SQLite's virtual machine that all queries took since this was last called, and what
    /// their allocations count for. Those that failed count too.
    pub fn take_steps(&mut self) -> u64 {
        std::mem::take(&mut lock(self.connection.state()).steps_taken)
    }

    /// A reader on another view, in which every page is what it was in this one: what SQLite holds
    /// of it stays true.
    #[must_use]
    pub fn go_on_with(mut self, view: &View) -> Self {
        self.connection.go_on_with(view);
        self.view = view.clone();
        self
    }

    /// A reader on another view, whose pages may be others. If the schema is the same, the
    /// connection stays open with all that is prepared, for half of a short transaction is to open
    /// one.
    #[must_use]
    pub fn move_to(mut self, view: &View) -> Self {
        self.connection.move_to(view);
        self.view = view.clone();
        self
    }

    /// Answers one query of an app.
    pub fn query(&mut self, sql: &str, params: &Params) -> Run<Rows> {
        let limit = self.view.limits().rows_size_max;
        let result = self
            .connection
            .begin()
            .and_then(|connection| answer(connection, sql, params, limit, &mut |_| {}));
        self.connection.end(result)
    }

    /// Answers one query of an app on an empty page cache, and tells which pages that took.
    pub fn watch(&mut self, sql: &str, params: &Params) -> Run<(Rows, ReadSet)> {
        let limit = self.view.limits().rows_size_max;
        // What preparing reads is the schema, and its cookie stands for that.
        let mut forget = |connection: &mut Connection| {
            connection.drop_page_cache();
            connection.forget_reads();
        };
        let result = self
            .connection
            .begin()
            .and_then(|connection| answer(connection, sql, params, limit, &mut forget));
        let schema = self.connection.schema_pages();
        let reads = lock(self.connection.state()).reads.clone();
        self.connection.end(result).map(|rows| (rows, ReadSet::new(reads, schema)))
    }
}

impl SystemQueries for Reader {
    fn is_of_nothing(&self) -> bool {
        self.view.db_pages() == 0
    }

    fn query_system(&mut self, sql: &str, params: &[Value]) -> Run<Vec<Vec<Value>>> {
        self.connection.query_system(sql, params)
    }
}

/// Runs the one statement of `sql`, calling `before` between preparing and running it.
fn answer(
    connection: &mut Connection,
    sql: &str,
    params: &Params,
    rows_size_max: usize,
    before: &mut dyn FnMut(&mut Connection),
) -> Result<Rows, Failure> {
    let mut script = connection.prepare(Origin::Query, sql)?;
    before(connection);
    let result = step_through(connection, &mut script, params, rows_size_max);
    if matches!(result, Ok(_) | Err(Failure::Faulted)) {
        connection.keep(Origin::Query, sql, script);
    }
    result
}

fn step_through(
    connection: &Connection,
    script: &mut Script,
    params: &Params,
    rows_size_max: usize,
) -> Result<Rows, Failure> {
    let _running = connection.begin_as(Origin::Query);
    let statement = match script.statements.as_mut_slice() {
        [statement] => statement,
        [] => return Err(Failure::sql("a query needs a statement")),
        [_, ..] => return Err(Failure::sql("a query is one statement")),
    };
    if !statement.is_read_only() {
        return Err(Failure::ReadOnly);
    }
    let values = arrange(params, statement.names())?;
    let _looks = connection.count_looks(statement, &values);
    connection.check_steps()?;
    let mut stepping = statement.start(&values).map_err(|code| connection.refused(code))?;
    let mut rows = Rows::default();
    let mut more = connection.step(&mut stepping)?;
    // Only now: the first step prepares the statement anew if the schema has changed.
    rows.columns = stepping.column_names();
    while more {
        rows.push(stepping.row());
        if rows.cells.len() > rows_size_max {
            return Err(Failure::budget(format!("{rows_size_max} bytes of rows")));
        }
        more = connection.step(&mut stepping)?;
    }
    Ok(rows)
}
