//! What SQL may do, and for how long.
//!
//! SQLite asks [`authorize`] about each thing that a statement does while it prepares it, triggers
//! included, and calls [`progress`] every few hundred steps while it runs, and [`written`] for each
//! row that it writes.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Arc;

use rusqlite::ffi;

use crate::event;
use crate::failure::Failure;
use crate::state::{Origin, SharedState, lock};

/// Tables, indexes, triggers and views whose names begin so are ours.
pub(crate) const SYSTEM_PREFIX: &str = "_tidelog_";

/// Functions that two runs on the same pages would answer differently.
pub(crate) const NONDETERMINISTIC: [&str; 8] = [
    "random",
    "randomblob",
    "total_changes",
    "current_time",
    "current_date",
    "current_timestamp",
    "sqlite_compileoption_get",
    "sqlite_compileoption_used",
];

/// Functions that compare each member of one argument with each of the other within one step: two
/// objects of 1.6 MB take five minutes, which nothing can end.
const QUADRATIC: [&str; 2] = ["json_patch", "jsonb_patch"];
/// What is said of them.
pub(crate) const QUADRATIC_FORBIDDEN: &str =
    "json_patch(), since its time cannot be bounded: use json_set()";

/// Pragmas that a query may use: they only tell about the schema.
const QUERY_PRAGMAS: [&str; 7] = [
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
    "index_xinfo",
    "foreign_key_list",
];

/// Steps of SQLite's virtual machine between two looks at the budget. Fewer bound no more: SQLite
/// calls back where it jumps back or gives a row, and not between.
pub(crate) const PROGRESS_STEPS: u64 = 250;

/// Bytes of memory that a page takes in SQLite's cache, at most.
const CACHED_PAGE_SIZE: usize = 4608;

/// Pages that SQLite may keep in its cache from one transaction to the next.
const WARM_PAGES: usize = 1024;

/// What apps may use, as far as that is of no use to them otherwise, and none of theirs is called.
const RESERVED_PREFIX: &str = "tidelog_";

pub(crate) fn is_system_name(name: &str) -> bool {
    begins_with(name, SYSTEM_PREFIX)
}

fn begins_with(name: &str, prefix: &str) -> bool {
    let start = name.as_bytes().get(..prefix.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// What the callbacks of one connection look at. Not moved while the connection is open.
#[derive(Debug)]
pub(crate) struct Guard {
    state: Arc<SharedState>,
    db: *mut ffi::sqlite3,
}

impl Guard {
    pub fn new(state: &Arc<SharedState>, db: *mut ffi::sqlite3) -> Box<Self> {
        Box::new(Self { state: Arc::clone(state), db })
    }

    /// Has SQLite call back from now on.
    pub fn watch(&self) {
        let this = ptr_to(self);
        // SAFETY: `db` is open, and `self` stays where it is until `db` is closed.
        unsafe {
            ffi::sqlite3_set_authorizer(self.db, Some(authorize), this);
            ffi::sqlite3_progress_handler(self.db, PROGRESS_STEPS as c_int, Some(progress), this);
            if lock(&self.state).writes {
                ffi::sqlite3_update_hook(self.db, Some(written), this);
            }
        }
    }

    /// Bytes in the connection's page cache.
    pub fn cache_size(&self) -> usize {
        self.status(ffi::SQLITE_DBSTATUS_CACHE_USED)
    }

    /// What SQLite counts of the connection.
    pub fn status(&self, what: c_int) -> usize {
        let (mut now, mut most) = (0, 0);
        // SAFETY: `db` is open; both outputs are ours.
        unsafe { ffi::sqlite3_db_status(self.db, what, &raw mut now, &raw mut most, 0) };
        usize::try_from(now).unwrap_or(0)
    }

    /// Counts another stretch of steps; false once the statement has to end.
    fn go_on(&self) -> bool {
        let cache_pages = self.cache_size() / CACHED_PAGE_SIZE;
        let mut state = lock(&self.state);
        state.count_steps(PROGRESS_STEPS);
        // What fills the cache beyond what was read was written. Rough, but before the memory is
        // gone; the exact count is taken at the commit.
        state.check_cache(cache_pages, WARM_PAGES);
        state.check_time();
        state.noted().is_none()
    }
}

fn ptr_to(guard: &Guard) -> *mut c_void {
    std::ptr::from_ref(guard).cast_mut().cast()
}

unsafe extern "C" fn progress(guard: *mut c_void) -> c_int {
    // SAFETY: given by `watch`, and only while the connection is open.
    let guard = unsafe { &*guard.cast::<Guard>() };
    c_int::from(!guard.go_on())
}

/// A row was inserted or changed, or is gone. Behind the last rowid SQLite draws those of new rows,
/// as other runs would not: so no row gets that one.
unsafe extern "C" fn written(
    guard: *mut c_void,
    action: c_int,
    _database: *const c_char,
    _table: *const c_char,
    rowid: i64,
) {
    if rowid == i64::MAX && action != ffi::SQLITE_DELETE {
        // SAFETY: given by `watch`, and only while the connection is open.
        let guard = unsafe { &*guard.cast::<Guard>() };
        let what = format!("the rowid {rowid}, behind which rowids are random");
        lock(&guard.state).fail(Failure::nondeterministic(what));
    }
}

unsafe extern "C" fn authorize(
    guard: *mut c_void,
    action: c_int,
    first: *const c_char,
    second: *const c_char,
    database: *const c_char,
    within: *const c_char,
) -> c_int {
    // SAFETY: given by `watch`, and only while the connection is open.
    let guard = unsafe { &*guard.cast::<Guard>() };
    // SAFETY: null or ending with a zero byte, for as long as this call.
    let [first, second, database, within] =
        [first, second, database, within].map(|it| unsafe { text(it) });
    let mut state = lock(&guard.state);
    match deed(action) {
        Deed::Schema | Deed::Upkeep => {
            state.doubt_schema();
            state.is_of_schema = true;
        }
        Deed::Write if state.origin == Origin::Migration && is_of_sqlite(first) => {
            state.writes_of_sqlite = Some(first.to_owned());
        }
        _ => {}
    }
    match judge(state.origin, action, [first, second], database, within) {
        Ok(()) => ffi::SQLITE_OK,
        Err(failure) => {
            state.fail(failure);
            ffi::SQLITE_DENY
        }
    }
}

/// # Safety
///
/// `text` is null, or ends with a zero byte and lives as long as the result.
unsafe fn text<'t>(text: *const c_char) -> &'t str {
    if text.is_null() {
        return "";
    }
    // SAFETY: by contract of this function.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap_or("")
}

/// What kind of thing an action is.
enum Deed {
    Read,
    Write,
    Schema,
    /// What goes over all tables, ours too, and changes none of their rows.
    Upkeep,
    Temporary,
    Transaction,
    Attach,
    Pragma,
    Function,
    Other,
}

fn deed(action: c_int) -> Deed {
    match action {
        ffi::SQLITE_READ => Deed::Read,
        ffi::SQLITE_INSERT | ffi::SQLITE_UPDATE | ffi::SQLITE_DELETE => Deed::Write,
        ffi::SQLITE_CREATE_INDEX
        | ffi::SQLITE_CREATE_TABLE
        | ffi::SQLITE_CREATE_TRIGGER
        | ffi::SQLITE_CREATE_VIEW
        | ffi::SQLITE_CREATE_VTABLE
        | ffi::SQLITE_DROP_INDEX
        | ffi::SQLITE_DROP_TABLE
        | ffi::SQLITE_DROP_TRIGGER
        | ffi::SQLITE_DROP_VIEW
        | ffi::SQLITE_DROP_VTABLE
        | ffi::SQLITE_ALTER_TABLE => Deed::Schema,
        ffi::SQLITE_REINDEX | ffi::SQLITE_ANALYZE => Deed::Upkeep,
        ffi::SQLITE_CREATE_TEMP_INDEX
        | ffi::SQLITE_CREATE_TEMP_TABLE
        | ffi::SQLITE_CREATE_TEMP_TRIGGER
        | ffi::SQLITE_CREATE_TEMP_VIEW
        | ffi::SQLITE_DROP_TEMP_INDEX
        | ffi::SQLITE_DROP_TEMP_TABLE
        | ffi::SQLITE_DROP_TEMP_TRIGGER
        | ffi::SQLITE_DROP_TEMP_VIEW => Deed::Temporary,
        ffi::SQLITE_TRANSACTION | ffi::SQLITE_SAVEPOINT => Deed::Transaction,
        ffi::SQLITE_ATTACH | ffi::SQLITE_DETACH => Deed::Attach,
        ffi::SQLITE_PRAGMA => Deed::Pragma,
        ffi::SQLITE_FUNCTION => Deed::Function,
        _ => Deed::Other,
    }
}

/// Whether SQL of `origin` may do this to `names` in `database`, as SQLite tells it: `within` is
/// the innermost view or trigger that does it.
fn judge(
    origin: Origin,
    action: c_int,
    [first, second]: [&str; 2],
    database: &str,
    within: &str,
) -> Result<(), Failure> {
    if origin == Origin::System {
        return Ok(());
    }
    let deed = deed(action);
    // Whatever else is called like one of these views, a part of a statement, sees no more. SQLite
    // does not say within what it counts the rows of a table of which it reads no column.
    let is_one_of =
        |names: &[&str], name: &str| names.iter().any(|it| it.eq_ignore_ascii_case(name));
    if let Deed::Read = deed
        && is_one_of(&event::TABLES, first)
        && (is_one_of(&event::VIEWS, within) || second.is_empty())
    {
        return Ok(());
    }
    if let (Deed::Function, event::EVENTS_FUNCTION) = (&deed, second)
        && within != event::EVENTS_TRIGGER
    {
        return Err(Failure::forbidden(format!("{second}(): insert into {}", event::EVENTS_VIEW)));
    }
    // A column may be called anything; tables, indexes, views and triggers may not.
    let names = match deed {
        Deed::Schema | Deed::Pragma => [first, second],
        Deed::Read | Deed::Write => [first, ""],
        _ => ["", ""],
    };
    if let Some(name) = names.into_iter().find(|name| is_system_name(name)) {
        return Err(Failure::forbidden(name));
    }
    let is_reserved = |name: &&str| begins_with(name, RESERVED_PREFIX);
    if let (Deed::Schema, Some(name)) = (&deed, [first, second].into_iter().find(is_reserved)) {
        return Err(Failure::forbidden(format!("{name}: that prefix is reserved")));
    }
    // ALTER TABLE looks for triggers there by an UPDATE; new things come by an INSERT.
    let is_new = matches!(deed, Deed::Schema) || action == ffi::SQLITE_INSERT;
    if is_new && database.eq_ignore_ascii_case("temp") {
        return Err(Failure::forbidden("temporary tables, views and triggers"));
    }
    match (deed, origin) {
        (Deed::Temporary, _) => Err(Failure::forbidden("temporary tables, views and triggers")),
        (Deed::Transaction, _) => Err(Failure::forbidden("transaction statements")),
        (Deed::Attach, _) => Err(Failure::forbidden("other databases")),
        (Deed::Pragma, _) if may_pragma(origin, first) => Ok(()),
        (Deed::Pragma, _) => Err(Failure::forbidden(format!("pragma {first}"))),
        (Deed::Write | Deed::Schema | Deed::Upkeep, Origin::Query) => Err(Failure::ReadOnly),
        (Deed::Write, Origin::App) if first.eq_ignore_ascii_case("sqlite_master") => {
            Err(Failure::forbidden("changing the schema in a mutation"))
        }
        // A connection that has read them plans as they were, and another one as they are.
        (Deed::Write, Origin::App) if is_of_sqlite(first) => Err(Failure::forbidden(first)),
        (Deed::Schema | Deed::Upkeep, Origin::App) => {
            Err(Failure::forbidden("changing the schema in a mutation"))
        }
        (Deed::Schema, _) if is_virtual(action) => Err(Failure::forbidden("virtual tables")),
        (Deed::Function, Origin::App | Origin::Migration)
            if NONDETERMINISTIC.iter().any(|name| name.eq_ignore_ascii_case(second)) =>
        {
            Err(Failure::nondeterministic(format!("{second}()")))
        }
        (Deed::Function, _) if QUADRATIC.iter().any(|name| name.eq_ignore_ascii_case(second)) => {
            Err(Failure::forbidden(QUADRATIC_FORBIDDEN))
        }
        _ => Ok(()),
    }
}

/// Whether SQLite keeps something of its own in a table that apps have no need to change.
fn is_of_sqlite(table: &str) -> bool {
    let lower = table.to_ascii_lowercase();
    lower.starts_with("sqlite_") && lower != "sqlite_sequence"
}

fn is_virtual(action: c_int) -> bool {
    matches!(action, ffi::SQLITE_CREATE_VTABLE | ffi::SQLITE_DROP_VTABLE)
}

fn may_pragma(origin: Origin, name: &str) -> bool {
    let is = |other: &str| other.eq_ignore_ascii_case(name);
    match origin {
        Origin::System => true,
        Origin::Query => QUERY_PRAGMAS.iter().any(|other| is(other)),
        // SQLite runs it itself, to check rows against what ALTER TABLE adds.
        Origin::Migration => is("quick_check"),
        Origin::App => false,
    }
}
