//! One prepared statement: binding, stepping, reading columns.

use std::ffi::{CStr, c_char, c_int};
use std::marker::PhantomData;
use std::ptr;

use rusqlite::ffi;
use tidelog_types::{Value, ValueRef};

use crate::memory::{self, Looks};
use crate::scan;

/// A prepared statement. Its connection outlives it: see `connection.rs`.
#[derive(Debug)]
pub(crate) struct Statement {
    raw: *mut ffi::sqlite3_stmt,
    /// The parameters in their order, with prefix; `None` for `?` and `?7`.
    names: Vec<Option<String>>,
    /// Whether running it leaves the database as it is.
    read_only: bool,
    /// How many times it may look at each value before SQLite looks at its budget, besides those
    /// that are any statement's, and the bytes of the largest value that stands in its text.
    looks: u64,
    largest_literal: usize,
}

/// Operations that are any statement's: what it looks at with them takes seconds at most. And how
/// many there are for each look at a value, at least.
const SHORT_PROGRAM_OPERATIONS: u64 = 256;
const LOOK_OPERATIONS: u64 = 2;
/// Bytes that SQLite has for an operation, on any host at least.
const OPERATION_SIZE_MIN: usize = 20;

/// Operations that do not count: they look at no byte of a value, or make a row of it, which is
/// allocated. Of rows that are inserted, and of long lists of constants, there is nothing else.
const MOVING: [&[u8]; 11] = [
    b"Blob",
    b"Copy",
    b"IdxInsert",
    b"Integer",
    b"MakeRecord",
    b"Null",
    b"Real",
    b"SCopy",
    b"String8",
    b"Variable",
    b"Yield",
];
/// Where the list of operations has their names.
const NAME_COLUMN: usize = 1;

impl Statement {
    /// Prepares the first statement of `sql`, which ends with a zero byte. Gives it (`None` if
    /// there was nothing but space and comments) and how many bytes of `sql` it took.
    ///
    /// # Safety
    ///
    /// `db` is an open connection that is not closed before the statement is dropped.
    pub unsafe fn prepare(
        db: *mut ffi::sqlite3,
        sql: &[u8],
    ) -> Result<(Option<Self>, usize), c_int> {
        let mut raw = ptr::null_mut();
        let mut tail: *const c_char = ptr::null();
        assert_eq!(sql.last(), Some(&0), "BUG: SQL without a zero byte behind it");
        let start = sql.as_ptr().cast::<c_char>();
        let Ok(size) = c_int::try_from(sql.len()) else {
            return Err(ffi::SQLITE_TOOBIG);
        };
        let persistent = ffi::SQLITE_PREPARE_PERSISTENT as _;
        // SAFETY: `db` is open; `start` has `size` bytes, the last one zero; the outputs are ours.
        let code = unsafe {
            ffi::sqlite3_prepare_v3(db, start, size, persistent, &raw mut raw, &raw mut tail)
        };
        if code != ffi::SQLITE_OK {
            return Err(code);
        }
        let used = match tail.is_null() {
            true => sql.len() - 1,
            false => tail as usize - start as usize,
        };
        if raw.is_null() {
            return Ok((None, used));
        }
        // SAFETY: `raw` is a statement that was just prepared.
        let (names, read_only) =
            unsafe { (parameter_names(raw), ffi::sqlite3_stmt_readonly(raw) != 0) };
        let mut statement = Self { raw, names, read_only, looks: 0, largest_literal: 0 };
        statement.note_looks(&sql[..used])?;
        Ok((Some(statement), used))
    }

    fn note_looks(&mut self, sql: &[u8]) -> Result<(), c_int> {
        let is_short = self.size() <= SHORT_PROGRAM_OPERATIONS as usize * OPERATION_SIZE_MIN;
        // SAFETY: `raw` is a prepared statement.
        if is_short || unsafe { ffi::sqlite3_stmt_isexplain(self.raw) } != 0 {
            return Ok(());
        }
        // Whether it is prepared already is not to make a difference, and it is soon done.
        let count = memory::uncounted(|| self.operations_count())?;
        self.looks = count.saturating_sub(SHORT_PROGRAM_OPERATIONS) / LOOK_OPERATIONS;
        self.largest_literal = scan::largest_literal(str::from_utf8(sql).unwrap_or_default());
        Ok(())
    }

    /// Operations that look at values, those of triggers included. Unlike the bytes that SQLite has
    /// for them, they are the same on every host.
    fn operations_count(&mut self) -> Result<u64, c_int> {
        let mut count = 0;
        self.list_instead_of_running(true)?;
        let mut listing = Stepping { raw: self.raw, borrowed: PhantomData };
        while listing.step()? {
            let moves = matches!(listing.column(NAME_COLUMN), ValueRef::Text(name)
                if MOVING.contains(&name));
            count += u64::from(!moves);
        }
        drop(listing);
        self.list_instead_of_running(false)?;
        Ok(count)
    }

    fn list_instead_of_running(&mut self, lists: bool) -> Result<(), c_int> {
        // SAFETY: `raw` is a prepared statement that is not being run.
        match unsafe { ffi::sqlite3_stmt_explain(self.raw, c_int::from(lists)) } {
            ffi::SQLITE_OK => Ok(()),
            code => Err(code),
        }
    }

    /// Counts how often it may look at values from now on, until the result is dropped. `values`
    /// are those of its parameters, and `in_schema` the bytes of the largest value that the schema
    /// gives it.
    pub fn count_looks(&self, values: &[&Value], in_schema: usize) -> Looks {
        let looks = Looks::begin(self.looks);
        let given = values.iter().map(|value| match value {
            Value::Text(text) => text.len(),
            Value::Blob(bytes) => bytes.len(),
            Value::Null | Value::Integer(_) | Value::Real(_) => 0,
        });
        looks.see(given.max().unwrap_or(0).max(self.largest_literal).max(in_schema));
        looks
    }

    pub fn names(&self) -> &[Option<String>] {
        &self.names
    }

    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Bytes of memory that SQLite has for it.
    pub fn size(&self) -> usize {
        // SAFETY: `raw` is a prepared statement.
        let size = unsafe { ffi::sqlite3_stmt_status(self.raw, ffi::SQLITE_STMTSTATUS_MEMUSED, 0) };
        usize::try_from(size).unwrap_or(0)
    }

    /// How often SQLite has prepared it anew by itself.
    #[cfg(test)]
    pub fn reprepared(&self) -> c_int {
        // SAFETY: `raw` is a prepared statement.
        unsafe { ffi::sqlite3_stmt_status(self.raw, ffi::SQLITE_STMTSTATUS_REPREPARE, 0) }
    }

    /// Binds `values` to the parameters, in their order. They stay borrowed until the run is
    /// dropped, since SQLite does not copy them.
    pub fn start<'v>(&'v mut self, values: &[&'v Value]) -> Result<Stepping<'v>, c_int> {
        assert_eq!(values.len(), self.names.len(), "BUG: each parameter needs a value");
        // From here on the run resets the statement when it is dropped, whatever happens.
        let stepping = Stepping { raw: self.raw, borrowed: PhantomData };
        for (value, index) in values.iter().zip(1..) {
            stepping.bind(index, value)?;
        }
        Ok(stepping)
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: the statement is ours, its connection is open, and nobody uses it afterwards.
        unsafe { ffi::sqlite3_finalize(self.raw) };
    }
}

/// # Safety
///
/// `raw` is a prepared statement.
unsafe fn parameter_names(raw: *mut ffi::sqlite3_stmt) -> Vec<Option<String>> {
    // SAFETY: by contract of this function.
    let count = unsafe { ffi::sqlite3_bind_parameter_count(raw) };
    let name = |index| {
        // SAFETY: the same; a name is null or ends with a zero byte and lives as long as `raw`.
        let name = unsafe {
            let name = ffi::sqlite3_bind_parameter_name(raw, index);
            if name.is_null() {
                return None;
            }
            CStr::from_ptr(name)
        };
        let name = name.to_string_lossy().into_owned();
        (!name.starts_with('?')).then_some(name)
    };
    (1..=count).map(name).collect()
}

/// One run of a statement. Dropping it resets the statement and lets go of what was bound.
pub(crate) struct Stepping<'v> {
    raw: *mut ffi::sqlite3_stmt,
    borrowed: PhantomData<&'v mut Statement>,
}

impl Stepping<'_> {
    fn bind(&self, index: c_int, value: &Value) -> Result<(), c_int> {
        // SAFETY: `raw` is a prepared statement. Text and blobs are borrowed for as long as `self`
        // lives, which takes the bindings back when it is dropped: so SQLite may keep the pointers.
        let code = unsafe {
            match value {
                Value::Null => ffi::sqlite3_bind_null(self.raw, index),
                Value::Integer(number) => ffi::sqlite3_bind_int64(self.raw, index, *number),
                Value::Real(number) => ffi::sqlite3_bind_double(self.raw, index, *number),
                Value::Text(text) => ffi::sqlite3_bind_text64(
                    self.raw,
                    index,
                    text.as_ptr().cast(),
                    text.len() as u64,
                    ffi::SQLITE_STATIC(),
                    ffi::SQLITE_UTF8 as _,
                ),
                Value::Blob(bytes) => ffi::sqlite3_bind_blob64(
                    self.raw,
                    index,
                    bytes.as_ptr().cast(),
                    bytes.len() as u64,
                    ffi::SQLITE_STATIC(),
                ),
            }
        };
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(code) }
    }

    /// Runs to the next row; false at the end.
    pub fn step(&mut self) -> Result<bool, c_int> {
        // SAFETY: `raw` is a prepared statement.
        match unsafe { ffi::sqlite3_step(self.raw) } {
            ffi::SQLITE_ROW => Ok(true),
            ffi::SQLITE_DONE => Ok(false),
            code => Err(code),
        }
    }

    /// Steps that it has taken; counts from 0 again.
    pub fn take_steps(&self) -> u64 {
        let counter = ffi::SQLITE_STMTSTATUS_VM_STEP;
        // SAFETY: `raw` is a prepared statement.
        let steps = unsafe { ffi::sqlite3_stmt_status(self.raw, counter, 1) };
        u64::try_from(steps).unwrap_or(0)
    }

    pub fn columns_count(&self) -> usize {
        // SAFETY: `raw` is a prepared statement.
        let count = unsafe { ffi::sqlite3_column_count(self.raw) };
        usize::try_from(count).unwrap_or(0)
    }

    pub fn column_names(&self) -> Vec<String> {
        let name = |index: usize| {
            // SAFETY: `raw` is a prepared statement with more than `index` columns; the name is
            // null (out of memory) or ends with a zero byte, and lives until the next step.
            unsafe {
                let name = ffi::sqlite3_column_name(self.raw, index as c_int);
                if name.is_null() {
                    return String::new();
                }
                CStr::from_ptr(name).to_string_lossy().into_owned()
            }
        };
        (0..self.columns_count()).map(name).collect()
    }

    /// A column of the row that the last step gave.
    pub fn column(&self, index: usize) -> ValueRef<'_> {
        let index = index as c_int;
        // SAFETY: `raw` is a prepared statement at a row. Pointers are asked for before sizes, as
        // SQLite wants, and stay valid until the next step, for which `self` must not be borrowed.
        unsafe {
            match ffi::sqlite3_column_type(self.raw, index) {
                ffi::SQLITE_INTEGER => {
                    ValueRef::Integer(ffi::sqlite3_column_int64(self.raw, index))
                }
                ffi::SQLITE_FLOAT => ValueRef::Real(ffi::sqlite3_column_double(self.raw, index)),
                ffi::SQLITE_TEXT => {
                    let text = ffi::sqlite3_column_text(self.raw, index);
                    ValueRef::Text(self.bytes(text.cast(), index))
                }
                ffi::SQLITE_BLOB => {
                    let bytes = ffi::sqlite3_column_blob(self.raw, index);
                    ValueRef::Blob(self.bytes(bytes.cast(), index))
                }
                _ => ValueRef::Null,
            }
        }
    }

    /// # Safety
    ///
    /// `start` is what SQLite gave for the text or blob in column `index` of the row at hand.
    unsafe fn bytes(&self, start: *const u8, index: c_int) -> &[u8] {
        // SAFETY: by contract of this function.
        let size = unsafe { ffi::sqlite3_column_bytes(self.raw, index) };
        if start.is_null() || size <= 0 {
            return &[];
        }
        // SAFETY: SQLite says that there are `size` bytes, until the next step.
        unsafe { std::slice::from_raw_parts(start, size as usize) }
    }

    /// The row that the last step gave.
    pub fn row(&self) -> impl Iterator<Item = ValueRef<'_>> {
        (0..self.columns_count()).map(|index| self.column(index))
    }
}

impl Drop for Stepping<'_> {
    fn drop(&mut self) {
        // SAFETY: `raw` is a prepared statement.
        unsafe {
            ffi::sqlite3_reset(self.raw);
            ffi::sqlite3_clear_bindings(self.raw);
        }
    }
}

/// A value of its own.
pub(crate) fn to_value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}
