//! The SQL functions of a writing connection: `reject`, and those that must not tell the truth.

use std::ffi::{CStr, c_int};
use std::sync::Arc;

use rusqlite::ffi;

use crate::failure::Failure;
use crate::state::{SharedState, lock};

type Function =
    unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int, *mut *mut ffi::sqlite3_value);

/// Name, number of arguments, function. They replace SQLite's own of the same name, also where a
/// column's default or a trigger calls them, which the authorizer does not always see.
const FUNCTIONS: [(&CStr, c_int, Function); 7] = [
    (c"reject", 1, reject),
    (c"changes", 0, changes),
    (c"random", 0, random),
    (c"randomblob", 1, randomblob),
    (c"total_changes", 0, total_changes),
    (c"sqlite_compileoption_get", 1, compile_option),
    (c"sqlite_compileoption_used", 1, compile_option),
];

/// Adds the functions to a connection, which does not outlive `state`.
pub(crate) fn add_to(db: *mut ffi::sqlite3, state: &Arc<SharedState>) -> Result<(), Failure> {
    let app = Arc::as_ptr(state).cast_mut().cast();
    // Allowed in triggers and defaults; not called deterministic, or SQLite would call them before
    // it knows whether it has to.
    let flags = ffi::SQLITE_UTF8 | ffi::SQLITE_INNOCUOUS;
    for (name, arguments, function) in FUNCTIONS {
        let name = name.as_ptr();
        let function = Some(function);
        // SAFETY: `db` is open; `app` lives as long as it does, being held by its owner.
        let code = unsafe {
            ffi::sqlite3_create_function_v2(
                db, name, arguments, flags, app, function, None, None, None,
            )
        };
        if code != ffi::SQLITE_OK {
            return Err(Failure::budget("memory"));
        }
    }
    Ok(())
}

/// # Safety
///
/// `context` is that of a function added by [`add_to`].
unsafe fn state_of<'a>(context: *mut ffi::sqlite3_context) -> &'a SharedState {
    // SAFETY: `add_to` gave a pointer to a state that outlives the connection.
    unsafe { &*ffi::sqlite3_user_data(context).cast::<SharedState>() }
}

/// Notes the failure and ends the statement.
///
/// # Safety
///
/// `context` is that of a function added by [`add_to`].
unsafe fn fail(context: *mut ffi::sqlite3_context, failure: Failure) {
    // SAFETY: by contract of this function; SQLite copies the message.
    unsafe {
        lock(state_of(context)).fail(failure);
        ffi::sqlite3_result_error(context, c"failed".as_ptr(), -1);
    }
}

unsafe extern "C" fn reject(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: there is one argument. Its text is null, or has that many bytes until this returns.
    let reason = unsafe {
        let text = ffi::sqlite3_value_text(*arguments);
        let size = usize::try_from(ffi::sqlite3_value_bytes(*arguments)).unwrap_or(0);
        match text.is_null() {
            true => String::new(),
            false => String::from_utf8_lossy(std::slice::from_raw_parts(text, size)).into_owned(),
        }
    };
    // SAFETY: it is this function's context.
    unsafe { fail(context, Failure::Rejected { reason }) };
}

/// Like SQLite's, but a new connection and one that was used before give the same.
unsafe extern "C" fn changes(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    _: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: it is this function's context, and its connection is open.
    unsafe {
        let count = match lock(state_of(context)).app_changed {
            true => ffi::sqlite3_changes64(ffi::sqlite3_context_db_handle(context)),
            false => 0,
        };
        ffi::sqlite3_result_int64(context, count);
    }
}

unsafe extern "C" fn random(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    _: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: it is this function's context.
    unsafe { fail(context, Failure::nondeterministic("random()")) };
}

unsafe extern "C" fn randomblob(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    _: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: it is this function's context.
    unsafe { fail(context, Failure::nondeterministic("randomblob()")) };
}

unsafe extern "C" fn total_changes(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    _: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: it is this function's context.
    unsafe { fail(context, Failure::nondeterministic("total_changes()")) };
}

unsafe extern "C" fn compile_option(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    _: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: it is this function's context.
    unsafe { fail(context, Failure::nondeterministic("sqlite_compileoption()")) };
}
