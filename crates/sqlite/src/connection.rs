//! One SQLite connection, its settings and its prepared statements.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_int};
use std::mem;
use std::ptr;
use std::sync::Arc;

use rusqlite::ffi;
use tidelog_types::limits::{DOCTYPE_SIZE_MAX, Limits, SCHEMA_SIZE_MAX, SQL_VALUE_SIZE_MAX};
use tidelog_types::{SortedMap, Value, ValueRef};

use crate::event::InsertedEvent;
use crate::failure::{Failure, Run};
use crate::guard::{Guard, PROGRESS_STEPS};
use crate::memory::Looks;
use crate::state::{Origin, Running, SharedState, State, announce, lock, opened};
use crate::statement::{Statement, Stepping, to_value};
use crate::view::{SchemaPages, View};
use crate::{flags, functions, memory, scan, vfs};

/// Bytes of scripts that a connection keeps prepared, statements and texts.
const SCRIPTS_SIZE_MAX: usize = 1024 * 1024;

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Dropped before the connection is closed.
    scripts: Scripts,
    db: *mut ffi::sqlite3,
    state: Arc<SharedState>,
    /// Called back by SQLite until the connection is closed.
    guard: Box<Guard>,
    /// The cookie of the schema that SQLite has read without a fault, before anything else.
    schema_cookie: Option<u32>,
    /// What it read that schema from, as long as it has seen no other one.
    schema_pages: Option<SchemaPages>,
    /// Bytes of the largest literal in the schema that SQLite has read, at which any statement may
    /// look that uses it.
    schema_literal: usize,
    /// Bytes that SQLite has for the schema; `None` if that may have grown since it was measured.
    schema_size: Cell<Option<usize>>,
    /// The cookie of the one that the last transaction left.
    last_cookie: Option<u32>,
    /// Bytes in its page cache; `None` if it may have changed since they were counted.
    cache_size: Cell<Option<usize>>,
}

// SAFETY: SQLite is compiled thread-safe wherever there are threads, and a connection, its
// statements and its callbacks are used by one thread at a time, through `&mut self`.
unsafe impl Send for Connection {}

/// Bytes that a connection may hold once it has read the schema. What one takes is estimated from
/// above, and may be on its way twice.
const OPENED_SIZE_MAX: usize = 2 * SCHEMA_SIZE_MAX;

/// Values for the parameters of a statement, given their names.
pub(crate) type Arrange<'a, 'v> = dyn Fn(&[Option<String>]) -> Result<Vec<&'v Value>, Failure> + 'a;

impl Connection {
    /// What bounds the view that it reads.
    pub fn limits(&self) -> Limits {
        *lock(&self.state).view.limits()
    }

    /// Opens a connection to the pages that `state` gives. Reads the header of page 1.
    pub fn open(state: &Arc<SharedState>) -> Result<Self, Failure> {
        vfs::register();
        let _running = Running::new(state);
        let number = announce(state);
        let name = CString::new(number.to_string()).expect("BUG: digits hold no zero byte");
        let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_NOMUTEX;
        let mut db = ptr::null_mut();
        // SAFETY: names end with zero bytes; `db` is ours, and closed by `Connection::drop`.
        let code =
            unsafe { ffi::sqlite3_open_v2(name.as_ptr(), &raw mut db, flags, vfs::NAME.as_ptr()) };
        // Nothing to take unless SQLite failed before it opened the file.
        drop(opened(number));
        if db.is_null() {
            return Err(Failure::shortage("memory"));
        }
        let guard = Guard::new(state, db);
        let mut connection = Self {
            scripts: Scripts::default(),
            db,
            state: Arc::clone(state),
            guard,
            schema_cookie: None,
            schema_pages: None,
            schema_literal: 0,
            schema_size: Cell::new(None),
            last_cookie: None,
            cache_size: Cell::new(None),
        };
        connection.check(code)?;
        within_schema_limits(state, || connection.set_up())?;
        connection.has_read_schema();
        Ok(connection)
    }

    /// Nothing but the schema was read in this transaction so far.
    fn has_read_schema(&mut self) {
        let state = lock(&self.state);
        self.schema_cookie = state.view.schema_cookie();
        self.schema_pages = SchemaPages::of(&state.view, state.reads.iter());
    }

    fn set_up(&mut self) -> Result<(), Failure> {
        let writes = lock(&self.state).writes;
        lock(&self.state).origin = Origin::System;
        let limits = [
            (ffi::SQLITE_LIMIT_LENGTH, SQL_VALUE_SIZE_MAX as c_int),
            (ffi::SQLITE_LIMIT_SQL_LENGTH, DOCTYPE_SIZE_MAX as c_int),
            (ffi::SQLITE_LIMIT_ATTACHED, 0),
            (ffi::SQLITE_LIMIT_WORKER_THREADS, 0),
            (ffi::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000),
            // Each path of `json_set` is looked for in all of a value.
            (ffi::SQLITE_LIMIT_FUNCTION_ARG, 127),
            // Depth is stack, and a worker has one megabyte of it.
            (ffi::SQLITE_LIMIT_EXPR_DEPTH, 500),
            (ffi::SQLITE_LIMIT_PARSER_DEPTH, 500),
            (ffi::SQLITE_LIMIT_TRIGGER_DEPTH, 100),
        ];
        for (limit, value) in limits {
            // SAFETY: the connection is open.
            unsafe { ffi::sqlite3_limit(self.db, limit, value) };
        }
        // The first of them reads the schema and the statistics: whoever wrote these has not chosen
        // how long that takes.
        self.guard.watch();
        for pragma in flags::PRAGMAS {
            self.run(Origin::System, pragma, &no_values, &mut |_| Ok(()))?;
        }
        functions::add_to(self.db, &self.state, writes)?;
        self.read_literals()?;
        if !writes {
            self.run(Origin::System, "pragma query_only = on", &no_values, &mut |_| Ok(()))?;
        }
        self.scripts = Scripts::default();
        Ok(())
    }

    /// Runs every statement of `sql`, showing each row to `row`.
    pub fn run(
        &mut self,
        origin: Origin,
        sql: &str,
        arrange: &Arrange<'_, '_>,
        row: &mut dyn FnMut(&Stepping<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut next = Some(0);
        while let Some(index) = next {
            next = self.run_part(origin, sql, index, arrange, row)?;
            if lock(&self.state).has_inserted() {
                return Err(Failure::forbidden("events of anything but a mutation itself"));
            }
        }
        Ok(())
    }

    /// Runs the statements of `sql` from the one at `index` on, up to one that inserts events: says
    /// which is next then.
    pub fn run_part(
        &mut self,
        origin: Origin,
        sql: &str,
        index: usize,
        arrange: &Arrange<'_, '_>,
        row: &mut dyn FnMut(&Stepping<'_>) -> Result<(), Failure>,
    ) -> Result<Option<usize>, Failure> {
        let _running = self.begin_as(origin);
        let mut script = self.scripts.take(origin, sql);
        let result = self.run_script(origin, &mut script, sql, index, arrange, row);
        // One that is run once is not kept.
        if origin != Origin::Migration && matches!(result, Ok(_) | Err(Failure::Faulted)) {
            self.scripts.keep(origin, sql, script);
        }
        result
    }

    /// What the last statement has inserted into the view of all events.
    pub fn take_inserted(&self) -> Vec<InsertedEvent> {
        lock(&self.state).take_inserted()
    }

    fn run_script(
        &mut self,
        origin: Origin,
        script: &mut Script,
        sql: &str,
        mut index: usize,
        arrange: &Arrange<'_, '_>,
        row: &mut dyn FnMut(&Stepping<'_>) -> Result<(), Failure>,
    ) -> Result<Option<usize>, Failure> {
        let mut start = script.prepared_size;
        while self.prepare_up_to(index, script, sql)? {
            self.run_statement(origin, &mut script.statements[index], arrange, row)?;
            match origin {
                Origin::Migration => {
                    script.statements.clear();
                    self.check_made(&sql[start..script.prepared_size])?;
                    start = script.prepared_size;
                }
                Origin::System | Origin::App | Origin::Query => index += 1,
            }
            if lock(&self.state).has_inserted() {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// Fails if a statement of a migration has made a table some of whose columns have names that
    /// SQLite drew: another run would draw others. Before the next one can see them.
    fn check_made(&mut self, statement: &str) -> Result<(), Failure> {
        let Some(table) = scan::made_of_select(statement) else { return Ok(()) };
        let names = self.columns_of(Origin::System, "table_info", &table);
        lock(&self.state).origin = Origin::Migration;
        if scan::has_drawn_name(&names?) {
            let what = format!("the column names of {table}, as too many are the same");
            return Err(Failure::nondeterministic(what));
        }
        Ok(())
    }

    /// The names of the columns of `of`, as a pragma tells them. By the pragma itself: the table of
    /// what it tells, `pragma_table_info`, has a name that an app's table can take.
    pub fn columns_of(
        &mut self,
        origin: Origin,
        pragma: &str,
        of: &str,
    ) -> Result<Vec<String>, Failure> {
        let sql = format!("pragma main.{pragma}(\"{}\")", of.replace('"', "\"\""));
        let _running = self.begin_as(origin);
        let mut names = Vec::new();
        let name_column = if pragma.starts_with("index") { 2 } else { 1 };
        let row = &mut |row: &Stepping<'_>| {
            names.push(match row.column(name_column) {
                ValueRef::Text(name) => String::from_utf8_lossy(name).into_owned(),
                _ => String::new(),
            });
            Ok(())
        };
        self.run_script(origin, &mut Script::default(), &sql, 0, &no_values, row)?;
        Ok(names)
    }

    fn run_statement(
        &mut self,
        origin: Origin,
        statement: &mut Statement,
        arrange: &Arrange<'_, '_>,
        row: &mut dyn FnMut(&Stepping<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.check_time()?;
        let values = arrange(statement.names())?;
        let read_only = statement.is_read_only();
        let looks = (origin != Origin::System).then(|| self.count_looks(statement, &values));
        self.check_steps()?;
        let mut stepping = statement.start(&values).map_err(|code| self.refused(code))?;
        while self.step(&mut stepping)? {
            row(&stepping)?;
        }
        // What came since the guard last looked.
        let steps = stepping.take_steps() % PROGRESS_STEPS;
        drop((stepping, looks));
        let mut state = lock(&self.state);
        state.count_steps(steps);
        state.app_changed |= !read_only && origin.is_deterministic();
        state.noted().map_or(Ok(()), Err)
    }

    /// Counts how often a statement may look at values from now on, until the result is dropped.
    pub fn count_looks(&self, statement: &Statement, values: &[&Value]) -> Looks {
        let in_schema = self.schema_literal.max(lock(&self.state).made_literal);
        statement.count_looks(values, in_schema)
    }

    /// Before each of an app's statements, and before each is prepared: those that take few steps
    /// can take long all the same, and SQLite calls back in none of them.
    fn check_time(&self) -> Result<(), Failure> {
        let mut state = lock(&self.state);
        if state.origin != Origin::System {
            state.check_time();
        }
        state.noted().map_or(Ok(()), Err)
    }

    /// Counts what was allocated, or stands for that.
    pub fn check_steps(&self) -> Result<(), Failure> {
        let mut state = lock(&self.state);
        state.count_steps(0);
        state.noted().map_or(Ok(()), Err)
    }

    /// Runs a statement to its next row; false at the end.
    pub fn step(&self, stepping: &mut Stepping<'_>) -> Result<bool, Failure> {
        lock(&self.state).steps_now = true;
        let result = stepping.step();
        lock(&self.state).steps_now = false;
        result.map_err(|code| self.refused(code))
    }

    /// What went wrong while SQLite ran, given its code.
    pub fn refused(&self, code: c_int) -> Failure {
        // What it was not given counts, and tells why it was not.
        lock(&self.state).count_steps(0);
        self.failure(code)
    }

    /// Prepares every statement of `sql` without running it.
    pub fn prepare(&mut self, origin: Origin, sql: &str) -> Result<Script, Failure> {
        let _running = self.begin_as(origin);
        let mut script = self.scripts.take(origin, sql);
        while self.prepare_up_to(script.statements.len(), &mut script, sql)? {}
        Ok(script)
    }

    /// Prepares every statement of `sql`, shows it to `look` and drops it.
    pub fn prepare_each(
        &mut self,
        origin: Origin,
        sql: &str,
        look: &mut dyn FnMut(&Statement) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let _running = self.begin_as(origin);
        let mut script = Script::default();
        while self.prepare_up_to(0, &mut script, sql)? {
            script.statements.drain(..).try_for_each(|statement| look(&statement))?;
        }
        Ok(())
    }

    /// Keeps what [`prepare`](Self::prepare) gave for the next time.
    pub fn keep(&mut self, origin: Origin, sql: &str, script: Script) {
        self.scripts.keep(origin, sql, script);
    }

    /// Marks what follows as run for `origin`, until the result is dropped.
    pub fn begin_as(&self, origin: Origin) -> Running {
        lock(&self.state).begin_as(origin);
        Running::new(&self.state)
    }

    /// Sees to it that statement `index` of `sql` is prepared; false if there are not that many.
    fn prepare_up_to(
        &mut self,
        index: usize,
        script: &mut Script,
        sql: &str,
    ) -> Result<bool, Failure> {
        while script.statements.len() <= index {
            if script.prepared_size == sql.len() {
                script.unprepared = Vec::new();
                return Ok(false);
            }
            if script.unprepared.is_empty() {
                script.unprepared = [sql.as_bytes(), b"\0"].concat();
            }
            self.check_time()?;
            // To prepare a statement, SQLite learns the columns of views and keeps them.
            self.schema_size.set(None);
            let mut state = lock(&self.state);
            state.count_steps(0);
            state.begin_prepare();
            state.start_statement();
            drop(state);
            let rest = &script.unprepared[script.prepared_size..];
            // SAFETY: the connection is open, and drops its statements before it closes.
            let prepared = unsafe { Statement::prepare(self.db, rest) };
            let used = prepared.as_ref().ok().map(|(_, used)| *used);
            let statement = used.map(|used| &sql[script.prepared_size..][..used]);
            let mut state = lock(&self.state);
            state.count_steps(0);
            state.end_prepare(statement);
            state.count_steps(0);
            let noted = state.noted();
            drop(state);
            let (statement, used) = match noted {
                Some(failure) => return Err(failure),
                None => prepared.map_err(|code| self.failure(code))?,
            };
            if statement.is_none() && used == 0 {
                return Err(Failure::sql("a zero byte in SQL"));
            }
            script.prepared_size += used;
            script.statements.extend(statement);
        }
        Ok(true)
    }

    /// What went wrong, given SQLite's code for it. What the state has noted goes first.
    fn failure(&self, code: c_int) -> Failure {
        if let Some(noted) = lock(&self.state).noted() {
            return noted;
        }
        failure_of(code, || self.message())
    }

    fn message(&self) -> String {
        // SAFETY: the connection is open; its message ends with a zero byte and is copied at once.
        let message = unsafe { CStr::from_ptr(ffi::sqlite3_errmsg(self.db)) };
        message.to_string_lossy().into_owned()
    }

    fn check(&self, code: c_int) -> Result<(), Failure> {
        let noted = lock(&self.state).noted();
        match (noted, code) {
            (Some(noted), _) => Err(noted),
            (None, ffi::SQLITE_OK) => Ok(()),
            (None, code) => Err(self.failure(code)),
        }
    }

    /// Whether a transaction is open.
    pub fn in_transaction(&self) -> bool {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_get_autocommit(self.db) == 0 }
    }

    pub fn last_insert_rowid(&self) -> i64 {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_last_insert_rowid(self.db) }
    }

    /// How many rows the last statement has written that writes, without those of its triggers.
    pub fn changes(&self) -> u64 {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_changes64(self.db) }.cast_unsigned()
    }

    pub fn set_last_insert_rowid(&self, rowid: i64) {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_set_last_insert_rowid(self.db, rowid) };
    }

    /// What was changed is for no `changes()` of the app's.
    pub fn forget_changes(&self) {
        lock(&self.state).app_changed = false;
    }

    /// Takes back a failure that concerned nothing but the statement it was noted for.
    pub fn forgive(&self) {
        lock(&self.state).forgive();
    }

    /// What the transaction does from here on has a budget of its own.
    pub fn start_budget(&self) {
        lock(&self.state).start_budget();
    }

    /// See [`Transaction::bound_as_apps`](crate::Transaction::bound_as_apps).
    pub fn bound_as_apps(&self) {
        lock(&self.state).bound_as_apps();
    }

    /// Counts the pages read from here on only.
    pub fn forget_reads(&self) {
        lock(&self.state).reads.clear();
    }

    /// Another transaction begins. Where the schema is another one by now, SQLite reads that first:
    /// what faults later has its pages alone to fetch. Where page 1 is not in memory, it comes no
    /// further than there.
    fn look_at_schema(&mut self) -> Result<(), Failure> {
        self.cache_size.set(None);
        let cookie = lock(&self.state).view.schema_cookie();
        if cookie.is_none() || cookie == self.schema_cookie {
            return Ok(());
        }
        lock(&self.state).doubt_schema();
        self.schema_pages = None;
        // They would be prepared anew as they run.
        self.scripts = Scripts::default();
        self.drop_page_cache();
        let state = Arc::clone(&self.state);
        within_schema_limits(&state, || self.read_schema())?;
        lock(&self.state).trust_schema();
        self.has_read_schema();
        Ok(())
    }

    /// SQLite reads the schema, whichever it holds.
    fn read_schema(&mut self) -> Result<(), Failure> {
        let _running = self.begin_as(Origin::System);
        ["pragma writable_schema = reset", "select 1 from sqlite_schema limit 1"]
            .into_iter()
            .try_for_each(|sql| {
                let script = &mut Script::default();
                self.run_script(Origin::System, script, sql, 0, &no_values, &mut |_| Ok(()))
                    .map(drop)
            })?;
        self.read_literals()
    }

    fn read_literals(&mut self) -> Result<(), Failure> {
        let mut largest = 0;
        let row = &mut |row: &Stepping<'_>| {
            if let ValueRef::Text(sql) = row.column(0) {
                largest = largest.max(scan::largest_literal(&String::from_utf8_lossy(sql)));
            }
            Ok(())
        };
        self.run(Origin::System, "select sql from sqlite_schema", &no_values, row)?;
        self.schema_literal = largest;
        Ok(())
    }

    /// Whether SQLite holds the schema of `view`: the one that it has read last is in both views.
    /// Cookies alone do not tell: two sides migrate a document differently.
    fn has_schema_of(&self, view: &View) -> bool {
        let cookies = [lock(&self.state).view.schema_cookie(), view.schema_cookie()];
        cookies == [self.schema_cookie; 2]
            && self.schema_pages.as_ref().is_some_and(|pages| pages.are_those_of(view))
    }

    /// After a fault or a failure: rolls back, and lets go of all pages, as if it had been opened
    /// just now. False if it is not to be trusted any more.
    fn recover(&mut self) -> bool {
        if !lock(&self.state).has_whole_schema() {
            return false;
        }
        lock(&self.state).forget_failure();
        if self.in_transaction()
            && self.run(Origin::System, "rollback", &no_values, &mut |_| Ok(())).is_err()
        {
            return false;
        }
        self.drop_page_cache();
        true
    }

    /// A transaction has ended. If it left another schema, that has to be measured anew: also where
    /// nothing was prepared, SQLite may have read it.
    fn note_schema(&mut self) {
        let cookie = lock(&self.state).schema_cookie();
        if cookie.is_none() || cookie != self.last_cookie {
            self.schema_size.set(None);
            self.last_cookie = cookie;
        }
    }

    /// Bytes that SQLite has for the schema. It goes through all of it for that, so it does only
    /// when somebody asks.
    pub fn schema_size(&self) -> usize {
        let measure = || self.guard.status(ffi::SQLITE_DBSTATUS_SCHEMA_USED);
        let size = self.schema_size.get().unwrap_or_else(measure);
        self.schema_size.set(Some(size));
        size
    }

    /// About how many bytes it takes: what SQLite has for its schema and its pages, the statements
    /// that are kept, and what any connection takes.
    fn size(&self) -> usize {
        let cache_size = self.cache_size.get().unwrap_or_else(|| self.guard.cache_size());
        self.cache_size.set(Some(cache_size));
        BARE_SIZE + self.schema_size() + self.scripts.size + cache_size
    }

    /// Empties SQLite's page cache. The schema stays.
    pub fn drop_page_cache(&self) {
        self.cache_size.set(None);
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_db_release_memory(self.db) };
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _running = Running::new(&self.state);
        self.scripts = Scripts::default();
        // SAFETY: the connection is open, none of its statements is left, and nobody uses it again.
        let code = unsafe { ffi::sqlite3_close(self.db) };
        debug_assert_eq!(code, ffi::SQLITE_OK, "BUG: a statement outlives its connection");
    }
}

/// Runs what reads the schema, which in a file that came from somewhere may be anything.
fn within_schema_limits(
    state: &SharedState,
    read: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    lock(state).reads_schema = true;
    let result = memory::within(OPENED_SIZE_MAX, read);
    lock(state).reads_schema = false;
    result.unwrap_or_else(|| Err(Failure::budget(format!("{SCHEMA_SIZE_MAX} bytes for a schema"))))
}

/// For statements without parameters.
pub(crate) fn no_values(names: &[Option<String>]) -> Result<Vec<&'static Value>, Failure> {
    assert!(names.is_empty(), "BUG: a statement of ours lacks its values");
    Ok(Vec::new())
}

/// The statements of one SQL text, as far as they are prepared.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub statements: Vec<Statement>,
    /// Bytes of the text that they came from.
    prepared_size: usize,
    /// The text with a zero byte behind it, as long as some of it is not prepared: without one
    /// SQLite copies all that is left for each statement.
    unprepared: Vec<u8>,
    used: u64,
    /// Bytes of the statements and the text, once it is kept, and how many statements that were.
    size: usize,
    measured: usize,
}

/// Scripts kept prepared, the least recently used out first. By origin, since what an origin may do
/// is decided when a statement is prepared.
#[derive(Debug, Default)]
struct Scripts {
    scripts: SortedMap<Origin, SortedMap<Box<str>, Script>>,
    /// Bytes of all of them.
    size: usize,
    clock: u64,
}

impl Scripts {
    /// One that is kept leaves its place, which counts as its text.
    fn take(&mut self, origin: Origin, sql: &str) -> Script {
        let Some(place) = self.place_of(origin, sql) else { return Script::default() };
        let left = Script { used: place.used, size: sql.len(), ..Script::default() };
        let script = mem::replace(place, left);
        self.size = self.size - script.size + sql.len();
        script
    }

    fn place_of(&mut self, origin: Origin, sql: &str) -> Option<&mut Script> {
        self.scripts.get_mut(&origin)?.get_mut(sql)
    }

    fn keep(&mut self, origin: Origin, sql: &str, mut script: Script) {
        if script.measured != script.statements.len() {
            script.measured = script.statements.len();
            script.size = sql.len() + script.statements.iter().map(Statement::size).sum::<usize>();
        }
        if script.size > SCRIPTS_SIZE_MAX {
            let place = self.scripts.get_mut(&origin).and_then(|scripts| scripts.remove(sql));
            self.size -= place.map_or(0, |place| place.size);
            return;
        }
        self.clock += 1;
        script.used = self.clock;
        self.size += script.size;
        // The same text may have been prepared twice.
        if let Some(place) = self.place_of(origin, sql) {
            let before = mem::replace(place, script);
            self.size -= before.size;
        } else {
            self.scripts.get_or_insert_with(origin, SortedMap::new).insert(sql.into(), script);
        }
        while self.size > SCRIPTS_SIZE_MAX {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let all = self.scripts.values_mut();
        let oldest = all
            .filter_map(|scripts| {
                let (sql, script) = scripts.iter().min_by_key(|(_, script)| script.used)?;
                Some((script.used, sql.clone(), scripts))
            })
            .min_by_key(|(used, ..)| *used);
        let oldest = oldest.and_then(|(_, sql, scripts)| scripts.remove(&sql));
        self.size -= oldest.expect("BUG: bytes of no script").size;
    }
}

/// About how many bytes a connection takes without schema, statements and pages.
const BARE_SIZE: usize = 64 * 1024;

/// A connection that is opened when it is needed, and dropped when it is not to be trusted.
#[derive(Debug)]
pub(crate) struct Lazy {
    state: Arc<SharedState>,
    connection: Option<Connection>,
}

impl Lazy {
    pub fn new(view: &View, writes: bool) -> Self {
        let state = Arc::new(SharedState::new(State::new(view, writes)));
        Self { state, connection: None }
    }

    pub fn state(&self) -> &Arc<SharedState> {
        &self.state
    }

    /// Begins a transaction's worth of reading, on a connection that is open.
    pub fn begin(&mut self) -> Result<&mut Connection, Failure> {
        lock(&self.state).begin();
        match &mut self.connection {
            Some(connection) => connection.look_at_schema()?,
            None => {
                lock(&self.state).need_first_page()?;
                self.connection = Some(Connection::open(&self.state)?);
            }
        }
        Ok(self.connection.as_mut().expect("BUG: opened above"))
    }

    /// Answers a query of ours, on any table. `params` by place.
    pub fn query_system(&mut self, sql: &str, params: &[Value]) -> Run<Vec<Vec<Value>>> {
        let mut rows = Vec::new();
        let arrange = |_: &[Option<String>]| Ok(params.iter().collect());
        let mut row = |row: &Stepping<'_>| {
            rows.push(row.row().map(to_value).collect());
            Ok(())
        };
        let result = self
            .begin()
            .and_then(|connection| connection.run(Origin::System, sql, &arrange, &mut row));
        self.end(result).map(|()| rows)
    }

    /// What the schema was read from that its connection holds, as far as that is known.
    pub fn schema_pages(&self) -> Option<SchemaPages> {
        self.connection.as_ref()?.schema_pages.clone()
    }

    pub fn refresh(&mut self) {
        self.connection = None;
    }

    pub fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    /// About how many bytes the connection takes; 0 if none is open.
    pub fn size(&self) -> usize {
        self.connection.as_ref().map_or(0, Connection::size)
    }

    /// Goes on with another view, in which every page is what it was in this one.
    pub fn go_on_with(&mut self, view: &View) {
        let mut state = lock(&self.state);
        state.view = view.clone();
        state.steps_taken = 0;
    }

    /// Goes on with another view, in which any page may be another one.
    pub fn move_to(&mut self, view: &View) {
        match &self.connection {
            Some(connection) if connection.has_schema_of(view) => connection.drop_page_cache(),
            _ => self.refresh(),
        }
        self.go_on_with(view);
    }

    /// How the transaction that began with [`begin`](Self::begin) ended. A fault that was raised
    /// outranks every result, since SQLite swallows some.
    pub fn end<T>(&mut self, result: Result<T, Failure>) -> Run<T> {
        let state = lock(&self.state);
        let (fault, noted) = (state.fault(), state.noted());
        let writes = state.writes;
        if fault.is_some() {
            state.view.note_fault(state.reads.count());
        }
        drop(state);
        if let Some(pgid) = fault {
            if !self.connection.as_mut().is_some_and(Connection::recover) {
                self.refresh();
            }
            return Run::Fault(pgid);
        }
        self.connection.iter_mut().for_each(Connection::note_schema);
        let failure = match (noted, result) {
            (None, Ok(result)) => return Run::Done(result),
            (Some(failure), _) | (None, Err(failure)) => failure,
        };
        assert_ne!(failure, Failure::Faulted, "BUG: a fault that nobody raised");
        // What a failed query read is still true; a failed transaction is rolled back.
        let is_harmless = match failure {
            Failure::Sql { .. } | Failure::ReadOnly | Failure::Forbidden { .. } => true,
            Failure::Rejected { .. } => writes,
            _ => false,
        };
        let recovers = |connection: &mut Connection| !writes || connection.recover();
        if !is_harmless || !self.connection.as_mut().is_some_and(recovers) {
            self.refresh();
        }
        Run::Failed(failure)
    }

    /// What the last transaction has written is not so: lets go of it.
    pub fn take_back(&mut self) {
        match &self.connection {
            Some(connection) if lock(&self.state).has_whole_schema() => {
                connection.drop_page_cache();
            }
            _ => self.refresh(),
        }
    }
}

/// What SQLite's code means, with its words for it.
fn failure_of(code: c_int, message: impl FnOnce() -> String) -> Failure {
    match (code, code & 0xff) {
        (ffi::SQLITE_IOERR_NOMEM, _) | (_, ffi::SQLITE_NOMEM) => Failure::shortage("memory"),
        (_, ffi::SQLITE_TOOBIG) => {
            Failure::budget(format!("{SQL_VALUE_SIZE_MAX} bytes in a value"))
        }
        (_, ffi::SQLITE_READONLY) => Failure::ReadOnly,
        (_, ffi::SQLITE_AUTH) => Failure::forbidden(message()),
        _ => Failure::sql(message()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_memory_says_nothing_about_the_statement() {
        let failure = |code| failure_of(code, || "its words".to_owned());
        for code in [ffi::SQLITE_NOMEM, ffi::SQLITE_IOERR_NOMEM] {
            assert!(failure(code).is_passing(), "{code}");
        }
        for code in [ffi::SQLITE_TOOBIG, ffi::SQLITE_CONSTRAINT, ffi::SQLITE_CORRUPT] {
            assert!(!failure(code).is_passing(), "{code}: another run ends the same");
        }
    }

    /// SQLite goes through all of a schema to say how large it is, and in a browser nobody asks.
    #[test]
    fn the_schema_is_measured_when_somebody_asks_and_it_may_have_grown() {
        let mut lazy = Lazy::new(&View::new(usize::MAX, 0), true);
        let mut run = |sql: &str, asks: bool| {
            let connection = lazy.begin().expect("opens");
            let result = connection.run(Origin::System, sql, &no_values, &mut |_| Ok(()));
            assert!(matches!(lazy.end(result), Run::Done(())), "{sql}");
            let is_measured = || lazy.connection.as_ref().unwrap().schema_size.get().is_some();
            let before = is_measured();
            assert!(!asks || lazy.size() > 0 && is_measured());
            before
        };
        run("create table t (a)", false);
        assert!(!run("select 1", false), "nobody has asked");
        assert!(!run("select 1", true), "nor so far");
        assert!(run("select 1", true), "it is as it was");
        assert!(!run("select 2", true), "something was prepared");
        assert!(!run("create table u (a)", false), "it has changed");
    }

    #[test]
    fn a_statement_is_prepared_once_whatever_it_is_given() {
        let mut lazy = Lazy::new(&View::new(usize::MAX, 0), true);
        let connection = lazy.begin().expect("opens");
        let run = |connection: &mut Connection, sql: &str, values: &[Value]| {
            let arrange = |_: &[Option<String>]| Ok(values.iter().collect());
            connection.run(Origin::System, sql, &arrange, &mut |_| Ok(())).expect("runs");
        };
        run(connection, "create table t (a integer, b integer, c integer)", &[]);
        run(connection, "create index t_a on t (a)", &[]);
        let sql = "select c from t where a = ?1 and b = ?2 order by c limit ?3";
        for (b, limit) in [(0, 1), (5, 100), (1, 7), (9, 0)] {
            let values = [Value::Integer(b), Value::Integer(b), Value::Integer(limit)];
            run(connection, sql, &values);
        }
        let kept = connection.scripts.take(Origin::System, sql);
        assert_eq!(kept.statements.iter().map(Statement::reprepared).collect::<Vec<_>>(), [0]);
    }
}
