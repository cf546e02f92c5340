//! The SQL functions of a connection: those that could take for ever, and, of a writing one,
//! `reject`, those that must not tell the truth, and what notes an event.

use std::ffi::{CStr, c_char, c_int};
use std::sync::Arc;

use rusqlite::ffi;
use tidelog_types::limits::SQL_VALUE_SIZE_MAX;

use crate::event::InsertedEvent;
use crate::failure::Failure;
use crate::guard::QUADRATIC_FORBIDDEN;
use crate::linear::{self, Chars, Plain};
use crate::state::{BYTES_PER_STEP, Origin, SharedState, lock};

type Function =
    unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int, *mut *mut ffi::sqlite3_value);

/// Name, number of arguments, function. They replace SQLite's own of the same name, also where a
/// column's default or a trigger calls them, which the authorizer does not always see.
const FUNCTIONS: [(&CStr, c_int, Function); 8] = [
    (c"reject", 1, reject),
    (c"changes", 0, changes),
    (c"random", 0, random),
    (c"randomblob", 1, randomblob),
    (c"total_changes", 0, total_changes),
    (c"sqlite_compileoption_get", 1, compile_option),
    (c"sqlite_compileoption_used", 1, compile_option),
    (c"tidelog_insert_event", 4, insert_event),
];

/// The same of those that fail on every connection.
const QUADRATIC: [(&CStr, c_int, Function); 2] =
    [(c"json_patch", 2, json_patch), (c"jsonb_patch", 2, json_patch)];

/// The same of those that always answer the same, on every connection.
const LINEAR: [(&CStr, c_int, Function); 9] = [
    (c"glob", 2, glob),
    (c"instr", 2, instr),
    (c"like", 2, like),
    (c"like", 3, like),
    (c"replace", 3, replace),
    (c"trim", 2, trim),
    (c"ltrim", 2, ltrim),
    (c"rtrim", 2, rtrim),
    (c"unhex", 2, unhex),
];

/// Adds the functions to a connection, which does not outlive `state` and writes if `writes`.
pub(crate) fn add_to(
    db: *mut ffi::sqlite3,
    state: &Arc<SharedState>,
    writes: bool,
) -> Result<(), Failure> {
    let app = Arc::as_ptr(state).cast_mut().cast();
    // Allowed in triggers and defaults; not called deterministic, or SQLite would call them before
    // it knows whether it has to.
    let own = ffi::SQLITE_UTF8 | ffi::SQLITE_INNOCUOUS;
    let same = own | ffi::SQLITE_DETERMINISTIC;
    let writing = if writes { &FUNCTIONS[..] } else { &[] };
    let failing = writing.iter().chain(&QUADRATIC).map(|it| (it, own));
    for ((name, arguments, function), flags) in failing.chain(LINEAR.iter().map(|it| (it, same))) {
        let (name, arguments, function) = (name.as_ptr(), *arguments, Some(*function));
        // SAFETY: `db` is open; `app` lives as long as it does, being held by its owner.
        let code = unsafe {
            ffi::sqlite3_create_function_v2(
                db, name, arguments, flags, app, function, None, None, None,
            )
        };
        if code != ffi::SQLITE_OK {
            return Err(Failure::shortage("memory"));
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

/// What the trigger calls for each row that is inserted into the view of all events.
unsafe extern "C" fn insert_event(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: there are four arguments, and it is this function's context; what is read of them is
    // copied before this returns.
    unsafe {
        let values = [0, 1, 2, 3].map(|index| bytes_of(*arguments.add(index), false));
        let event = InsertedEvent::new(values);
        let size = event.as_ref().map_or(0, InsertedEvent::size);
        if !may_look_at(context, size) {
            return;
        }
        let is_apps = lock(state_of(context)).origin == Origin::App;
        match event {
            Ok(event) if is_apps => lock(state_of(context)).insert_event(event),
            Ok(_) => fail(context, Failure::forbidden("events of anything but a mutation")),
            Err(failure) => fail(context, failure),
        }
    }
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

unsafe extern "C" fn json_patch(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    _: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: it is this function's context.
    unsafe { fail(context, Failure::forbidden(QUADRATIC_FORBIDDEN)) };
}

/// An argument's bytes as a text, or as they are if it is a blob and `as_blob`; `None` if it is
/// null.
///
/// # Safety
///
/// `value` is an argument of the function that is being called. The bytes are there until it
/// returns, or the value is asked for in another way.
unsafe fn bytes_of<'a>(value: *mut ffi::sqlite3_value, as_blob: bool) -> Option<&'a [u8]> {
    // SAFETY: by contract of this function; a pointer that is not null has that many bytes.
    unsafe {
        if ffi::sqlite3_value_type(value) == ffi::SQLITE_NULL {
            return None;
        }
        let bytes = match as_blob {
            true => ffi::sqlite3_value_blob(value).cast::<u8>(),
            false => ffi::sqlite3_value_text(value),
        };
        let size = usize::try_from(ffi::sqlite3_value_bytes(value)).unwrap_or(0);
        match bytes.is_null() {
            true => (size == 0).then_some(&[]),
            false => Some(std::slice::from_raw_parts(bytes, size)),
        }
    }
}

/// Counts what looking at so many bytes costs; false once the statement has to end.
///
/// # Safety
///
/// `context` is that of a function added by [`add_to`].
unsafe fn may_look_at(context: *mut ffi::sqlite3_context, size: usize) -> bool {
    // SAFETY: by contract of this function; SQLite copies the message.
    unsafe {
        let mut state = lock(state_of(context));
        state.count_steps(size as u64 / BYTES_PER_STEP);
        let goes_on = state.noted().is_none();
        drop(state);
        if !goes_on {
            ffi::sqlite3_result_error(context, c"failed".as_ptr(), -1);
        }
        goes_on
    }
}

/// # Safety
///
/// `context` is that of a function added by [`add_to`].
unsafe fn answer(context: *mut ffi::sqlite3_context, text: &[u8]) {
    let (start, size) = (text.as_ptr().cast(), text.len() as u64);
    let (copy, encoding) = (ffi::SQLITE_TRANSIENT(), ffi::SQLITE_UTF8 as _);
    // SAFETY: by contract of this function; SQLite copies the text.
    unsafe { ffi::sqlite3_result_text64(context, start, size, copy, encoding) };
}

/// How a pattern is written.
struct Writing<'w> {
    /// What stands for any text.
    any: u8,
    /// What else stands for something else than itself.
    others: &'w [char],
    /// Whether ASCII letters match in either case.
    folds: bool,
}

/// Compares a pattern with a text, by `compare` where SQLite has to; counts what that costs at
/// most.
///
/// # Safety
///
/// `context` is that of a function added by [`add_to`], and the values are its arguments.
unsafe fn compare(
    context: *mut ffi::sqlite3_context,
    [pattern, text]: [*mut ffi::sqlite3_value; 2],
    writing: &Writing<'_>,
    compare: impl FnOnce(*const c_char, *const c_char) -> c_int,
) {
    // SAFETY: by contract of this function.
    unsafe {
        let (Some(pattern), Some(text)) = (bytes_of(pattern, false), bytes_of(text, false)) else {
            return;
        };
        let database = ffi::sqlite3_context_db_handle(context);
        let size_max = ffi::sqlite3_limit(database, ffi::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, -1);
        if pattern.len() > usize::try_from(size_max).unwrap_or(0) {
            let message = c"LIKE or GLOB pattern too complex";
            return ffi::sqlite3_result_error(context, message.as_ptr(), -1);
        }
        if !may_look_at(context, text.len()) {
            return;
        }
        let plain = Plain::of(pattern, writing.any, writing.others);
        let answer = match plain.and_then(|plain| plain.matches(text, writing.folds)) {
            Some(answer) => answer,
            None => {
                // Behind what stands for any text, the rest is looked for at each place.
                let is_anywhere = pattern.contains(&writing.any);
                let times = if is_anywhere { pattern.len() } else { 0 };
                if !may_look_at(context, text.len().saturating_mul(times)) {
                    return;
                }
                // They are followed by a zero byte, but where they are nothing.
                let start = |bytes: &[u8]| match bytes {
                    [] => c"".as_ptr(),
                    _ => bytes.as_ptr().cast(),
                };
                compare(start(pattern), start(text)) == 0
            }
        };
        ffi::sqlite3_result_int(context, c_int::from(answer));
    }
}

/// Does what SQLite's does, but that the character which escapes is none that stands for others.
unsafe extern "C" fn like(
    context: *mut ffi::sqlite3_context,
    count: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: there are so many arguments, and it is this function's context. The texts end with
    // zero bytes, and are there until this returns.
    unsafe {
        let mut escape = None;
        if count == 3 {
            let Some(bytes) = bytes_of(*arguments.add(2), false) else { return };
            let mut chars = str::from_utf8(bytes).unwrap_or_default().chars();
            escape = match (chars.next(), chars.next()) {
                (Some(char), None) if !matches!(char, '%' | '_') => Some(char),
                _ => {
                    let message = c"ESCAPE expression must be a single character, not % or _";
                    return ffi::sqlite3_result_error(context, message.as_ptr(), -1);
                }
            };
        }
        let others = ['_', escape.unwrap_or('_')];
        let writing = Writing { any: b'%', others: &others, folds: true };
        compare(context, [*arguments, *arguments.add(1)], &writing, |pattern, text| {
            ffi::sqlite3_strlike(pattern, text, escape.map_or(0, u32::from))
        });
    }
}

unsafe extern "C" fn glob(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: there are two arguments, and it is this function's context. The texts end with zero
    // bytes, and are there until this returns.
    unsafe {
        let writing = Writing { any: b'*', others: &['?', '['], folds: false };
        compare(context, [*arguments, *arguments.add(1)], &writing, |pattern, text| {
            ffi::sqlite3_strglob(pattern, text)
        });
    }
}

unsafe extern "C" fn instr(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: there are two arguments, and it is this function's context.
    unsafe {
        let [hay, needle] = [*arguments, *arguments.add(1)];
        let is_blob = |value| ffi::sqlite3_value_type(value) == ffi::SQLITE_BLOB;
        let as_blobs = is_blob(hay) && is_blob(needle);
        let (Some(hay), Some(needle)) = (bytes_of(hay, as_blobs), bytes_of(needle, as_blobs))
        else {
            return;
        };
        if may_look_at(context, hay.len() + needle.len()) {
            let place = match as_blobs {
                true => linear::byte_place(hay, needle),
                false => linear::char_place(hay, needle),
            };
            ffi::sqlite3_result_int64(context, place as i64);
        }
    }
}

unsafe extern "C" fn replace(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: there are three arguments, and it is this function's context.
    unsafe {
        let (Some(hay), Some(needle)) =
            (bytes_of(*arguments, false), bytes_of(*arguments.add(1), false))
        else {
            return;
        };
        // SQLite takes one that begins with a zero byte for empty.
        if needle.first().is_none_or(|first| *first == 0) {
            return answer(context, hay);
        }
        let Some(other) = bytes_of(*arguments.add(2), false) else { return };
        if may_look_at(context, hay.len() + needle.len() + other.len()) {
            match linear::replaced(hay, needle, other, SQL_VALUE_SIZE_MAX) {
                Some(text) => answer(context, &text),
                None => ffi::sqlite3_result_error_toobig(context),
            }
        }
    }
}

/// # Safety
///
/// As for the functions that it does the work of.
unsafe fn trim_by(
    context: *mut ffi::sqlite3_context,
    arguments: *mut *mut ffi::sqlite3_value,
    trim: impl for<'t> Fn(&Chars<'_>, &'t [u8]) -> &'t [u8],
) {
    // SAFETY: there are two arguments, and it is this function's context.
    unsafe {
        let (Some(text), Some(chars)) =
            (bytes_of(*arguments, false), bytes_of(*arguments.add(1), false))
        else {
            return;
        };
        if !may_look_at(context, chars.len()) {
            return;
        }
        let chars = Chars::of(chars);
        // Of each length one is looked for at each place.
        if may_look_at(context, text.len().saturating_mul(chars.sizes_count())) {
            answer(context, trim(&chars, text));
        }
    }
}

unsafe extern "C" fn trim(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: as this function is called.
    unsafe { trim_by(context, arguments, |chars, text| chars.trim_end(chars.trim_start(text))) };
}

unsafe extern "C" fn ltrim(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: as this function is called.
    unsafe { trim_by(context, arguments, |chars, text| chars.trim_start(text)) };
}

unsafe extern "C" fn rtrim(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: as this function is called.
    unsafe { trim_by(context, arguments, |chars, text| chars.trim_end(text)) };
}

unsafe extern "C" fn unhex(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: there are two arguments, and it is this function's context.
    unsafe {
        let (Some(text), Some(between)) =
            (bytes_of(*arguments, false), bytes_of(*arguments.add(1), false))
        else {
            return;
        };
        if may_look_at(context, text.len() + between.len())
            && let Some(bytes) = linear::unhexed(text, between)
        {
            let (start, size) = (bytes.as_ptr().cast(), bytes.len() as u64);
            ffi::sqlite3_result_blob64(context, start, size, ffi::SQLITE_TRANSIENT());
        }
    }
}
