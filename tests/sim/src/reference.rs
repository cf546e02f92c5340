//! The reference: what was accepted, run through plain SQLite in the order in which it was
//! accepted, has to give the rows that are there in the end.

use std::collections::BTreeMap;

use rusqlite::functions::FunctionFlags;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, Error};
use tidelog_document::Doctype;
use tidelog_types::Value;

use crate::app::{ALL_CELLS, ENDS, JOB_TABLES, Release, Wish, doctype};
use crate::docs::Doc;
use crate::plain_file::PlainFile;
use crate::run_tables;
use crate::swarm::Kind;
use crate::system_tables;
use crate::task_tables;

/// What records an event where nobody counts events but SQLite, and what follows from one.
const FOLD: &str = "
    create table tidelog_events (
        sequence integer primary key, aggregate text, stream text, type text, data text
    );
    create trigger tidelog_follow after insert on tidelog_events begin
        insert into mark select new.data ->> 'id', count(*) from entry;
    end;";

/// What that makes of all events.
const FOLDED: &str = "
    select row_number() over (order by sequence), aggregate, stream,
           row_number() over (partition by stream order by sequence),
           type, 1, data, 'mutation:bump'
    from tidelog_events order by sequence";

/// What was recorded.
const RECORDED: &str = "
    select row_number() over (order by sequence), aggregate, stream, position, type, version, data,
           cause
    from tidelog_events where aggregate = 'total' order by sequence";

/// Those that are of another moment than the entry of their mutation, or of nobody, and streams
/// that are longer or shorter than they say.
const WRONG_EVENTS: &str = "
    select 'event', sequence, time, client from tidelog_events
    where aggregate = 'total'
      and (length(client) <> 32
           or not exists (select 1 from entry where id = data ->> 'id' and at = time))
    union all
    select 'stream', stream, length, null from tidelog_streams as s
    where length <> (select count(*) from tidelog_events as e
                     where e.stream = s.stream and e.aggregate = s.aggregate)";

/// A mutation that was issued.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) wish: Wish,
    pub(crate) now_ms: u64,
    pub(crate) release: Release,
}

/// The last file of each document: most are looked at more than once.
#[derive(Default)]
pub(crate) struct FoundFiles(BTreeMap<Doc, Found>);

impl FoundFiles {
    /// # Errors
    ///
    /// If it is no whole database of the app.
    pub(crate) fn open(&mut self, doc: Doc, file: &[u8]) -> Result<&Found, String> {
        if self.0.get(&doc).is_none_or(|found| found.bytes != file) {
            self.0.insert(doc, Found::open(file)?);
        }
        Ok(&self.0[&doc])
    }
}

/// A file that was exported, opened by a SQLite that knows nothing of Tidelog.
pub(crate) struct Found {
    bytes: Vec<u8>,
    connection: Connection,
    /// The names of the mutations that were applied, in their order.
    pub(crate) names: Vec<String>,
    /// Who has which claim.
    pub(crate) claims: BTreeMap<String, String>,
    /// What is in which cell.
    pub(crate) cells: Vec<String>,
    /// How the long ones end.
    pub(crate) ends: Vec<String>,
    /// Whether it has tasks.
    has_tasks: bool,
    /// The newest release that it was brought to, and how many entries there were then.
    pub(crate) release: Release,
    released_after: Option<usize>,
    _file: PlainFile,
}

impl Found {
    /// # Errors
    ///
    /// If it is no whole database of the app.
    pub(crate) fn open(bytes: &[u8]) -> Result<Self, String> {
        let file = PlainFile::new(bytes)?;
        let open = || -> rusqlite::Result<_> {
            let connection = Connection::open(file.path())?;
            let check: String =
                connection.query_row("pragma integrity_check", [], |row| row.get(0))?;
            let names = connection
                .prepare("select id from entry order by seq")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<Vec<String>>>()?;
            let claims = connection
                .prepare("select name, id from claim")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<BTreeMap<String, String>>>()?;
            let texts = |sql| {
                let mut statement = connection.prepare(sql)?;
                statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()
            };
            let texts = (texts(ALL_CELLS)?, texts(ENDS)?);
            let released = released(&connection)?;
            let jobs = "select count(*) from sqlite_schema where name = 'job'";
            let has_tasks: bool = connection.query_row(jobs, [], |row| row.get(0))?;
            Ok((connection, check, names, claims, texts, released, has_tasks))
        };
        let (connection, check, names, claims, (cells, ends), released, has_tasks) =
            open().map_err(|error| format!("the file: {error}"))?;
        let (release, released_after) = released;
        if check != "ok" {
            return Err(format!("the file is not whole: {check}"));
        }
        let bytes = bytes.to_vec();
        let _file = file;
        Ok(Self {
            bytes,
            connection,
            names,
            claims,
            cells,
            ends,
            has_tasks,
            release,
            released_after,
            _file,
        })
    }

    /// Whether the system tables say what may be so.
    ///
    /// # Errors
    ///
    /// What cannot be.
    pub(crate) fn judge_system(&self, lives_kept_max: usize) -> Result<(), String> {
        system_tables::judge(&self.connection, lives_kept_max)
    }

    /// What it says of tasks, if it has any.
    ///
    /// # Errors
    ///
    /// What cannot be.
    pub(crate) fn tasks(&self) -> Result<Option<task_tables::Tasks>, String> {
        self.has_tasks.then(|| task_tables::Tasks::read(&self.connection)).transpose()
    }

    /// What it says of runs, if it may have any.
    ///
    /// # Errors
    ///
    /// What cannot be.
    pub(crate) fn runs(&self, has_runs: bool) -> Result<Option<run_tables::Runs>, String> {
        (self.has_tasks && has_runs).then(|| run_tables::Runs::read(&self.connection)).transpose()
    }

    /// Whether running what was accepted gives these rows. `issued` knows every mutation.
    ///
    /// # Errors
    ///
    /// What differs.
    pub(crate) fn compare<'i>(
        &self,
        issued: impl Fn(&str) -> Option<&'i Issued>,
    ) -> Result<(), String> {
        let replayed = self.replay(issued).map_err(|e| format!("replay: {e}"))?;
        let (theirs, ours) = (dump(&self.connection), dump(&replayed));
        let (mut theirs, mut ours) = (theirs.map_err(text)?, ours.map_err(text)?);
        if self.release == Release::Second {
            let events = "the events".to_owned();
            let found = rows(&self.connection, RECORDED).map_err(text)?;
            theirs.insert(events.clone(), found);
            ours.insert(events, rows(&replayed, FOLDED).map_err(text)?);
            let wrong = rows(&self.connection, WRONG_EVENTS).map_err(text)?;
            if !wrong.is_empty() {
                return Err(format!("events that cannot be: {wrong:?}"));
            }
        }
        // What follows from tasks is judged by itself.
        for table in JOB_TABLES {
            theirs.remove(table);
            ours.remove(table);
        }
        if theirs.len() != ours.len() {
            return Err(format!("tables {:?}, and {:?}", theirs.keys(), ours.keys()));
        }
        for (table, rows) in &ours {
            let found = &theirs[table];
            if found != rows {
                let at = found.iter().zip(rows).position(|(a, b)| a != b);
                return Err(format!(
                    "{table} is not what its mutations make of it: {} rows instead of {}, first \
                     other row at {at:?}: {:?} instead of {:?}",
                    found.len(),
                    rows.len(),
                    at.map(|at| &found[at]),
                    at.map(|at| &rows[at]),
                ));
            }
        }
        Ok(())
    }

    fn replay<'i>(
        &self,
        issued: impl Fn(&str) -> Option<&'i Issued>,
    ) -> rusqlite::Result<Connection> {
        let connection = Connection::open_in_memory()?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.create_scalar_function("reject", 1, FunctionFlags::SQLITE_UTF8, |context| {
            let reason: String = context.get(0)?;
            Err::<i64, _>(Error::UserFunctionError(reason.into()))
        })?;
        let kind = if self.has_tasks { Kind::WithTasks } else { Kind::Plain };
        let doctypes = Release::ALL.map(|release| doctype(release, kind));
        let (migrations, released_after) =
            (&doctypes[self.release as usize].migrations, self.released_after);
        connection.execute_batch(&migrations[0])?;
        if self.release == Release::Second {
            connection.execute_batch(FOLD)?;
        }
        for (index, name) in self.names.iter().enumerate() {
            if released_after == Some(index) {
                connection.execute_batch(&migrations[1])?;
            }
            if let Some(issued) = issued(name) {
                run(&connection, &doctypes[issued.release as usize], issued)?;
            }
        }
        if released_after == Some(self.names.len()) {
            connection.execute_batch(&migrations[1])?;
        }
        Ok(connection)
    }
}

/// How many entries there were when another release came, and which, if one did.
fn released(connection: &Connection) -> rusqlite::Result<(Release, Option<usize>)> {
    for release in Release::ALL {
        let Some(table) = release.own_table() else { continue };
        let has_it = "select count(*) from sqlite_schema where name = ?1";
        if connection.query_row(has_it, [table], |row| row.get::<_, i64>(0))? > 0 {
            let at = format!("select entries from {table} where id = 'the release'");
            let entries: i64 = connection.query_row(&at, [], |row| row.get(0))?;
            return Ok((release, usize::try_from(entries).ok()));
        }
    }
    Ok((Release::First, None))
}

fn text(error: Error) -> String {
    error.to_string()
}

fn run(connection: &Connection, doctype: &Doctype, issued: &Issued) -> rusqlite::Result<()> {
    let definition = doctype.mutation(issued.wish.mutation).expect("BUG: the app's own mutation");
    let now = Value::Integer(i64::try_from(issued.now_ms).expect("BUG: this century"));
    let args = issued.wish.args.iter().map(|(name, value)| (name.as_str(), value));
    let args: Vec<(&str, &Value)> = args.chain([("now", &now)]).collect();
    for sql in &definition.sql {
        let mut statement = connection.prepare_cached(sql)?;
        for (name, value) in &args {
            if let Some(index) = statement.parameter_index(&format!(":{name}"))? {
                statement.raw_bind_parameter(index, to_sql(value))?;
            }
        }
        let mut rows = statement.raw_query();
        while rows.next()?.is_some() {}
    }
    Ok(())
}

fn to_sql(value: &Value) -> Sql {
    match value {
        Value::Null => Sql::Null,
        Value::Integer(number) => Sql::Integer(*number),
        Value::Real(number) => Sql::Real(*number),
        Value::Text(text) => Sql::Text(text.clone()),
        Value::Blob(bytes) => Sql::Blob(bytes.clone()),
    }
}

type Tables = BTreeMap<String, Vec<Vec<Sql>>>;

/// All rows of all tables of the app, and what the schema says.
fn dump(connection: &Connection) -> rusqlite::Result<Tables> {
    let of_app = "from sqlite_schema where name not like '%tidelog\\_%' escape '\\'
                  and name not like 'sqlite%'";
    let schema = format!("select name, type, sql {of_app} order by name");
    let tables = format!("select name {of_app} and type = 'table'");
    let names: Vec<String> = connection
        .prepare(&tables)?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut dump = Tables::from([("the schema".to_owned(), rows(connection, &schema)?)]);
    for name in names {
        let all = rows(connection, &format!("select * from {name} order by rowid"))?;
        dump.insert(name, all);
    }
    Ok(dump)
}

fn rows(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<Vec<Sql>>> {
    let mut statement = connection.prepare(sql)?;
    let columns = statement.column_count();
    statement.query_map([], |row| (0..columns).map(|column| row.get(column)).collect())?.collect()
}
