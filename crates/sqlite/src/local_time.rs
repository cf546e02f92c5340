//! Local time: known to queries, unknown to mutations, since two hosts have two of them.
//!
//! SQLite asks the C library, past every VFS. Its own test hook lets us answer in between.

use std::ffi::{c_int, c_void};

use rusqlite::ffi;

use crate::failure::Failure;
use crate::state;

type Hook = unsafe extern "C" fn(*const c_void, *mut c_void) -> c_int;

/// Has SQLite ask us from now on.
pub(crate) fn install() {
    let hook: Hook = local_time;
    let use_hook: c_int = 2;
    // SAFETY: this operation takes a number and, if that is 2, a function as ours.
    unsafe { ffi::sqlite3_test_control(ffi::SQLITE_TESTCTRL_LOCALTIME_FAULT, use_hook, hook) };
}

/// Fills in `out`, a `struct tm`, for `time`, a `time_t`. Not 0: there is no answer.
unsafe extern "C" fn local_time(time: *const c_void, out: *mut c_void) -> c_int {
    let refused = state::with_running(|state| {
        if state.writes {
            state.fail(Failure::nondeterministic("local time"));
        }
        state.writes
    });
    if refused == Some(true) {
        return 1;
    }
    // SAFETY: both are as SQLite gave them.
    c_int::from(!unsafe { ask_host(time, out) })
}

/// # Safety
///
/// `time` is a `time_t`, `out` a `struct tm`.
#[cfg(unix)]
unsafe fn ask_host(time: *const c_void, out: *mut c_void) -> bool {
    unsafe extern "C" {
        fn localtime_r(time: *const c_void, out: *mut c_void) -> *mut c_void;
    }
    // SAFETY: by contract of this function.
    !unsafe { localtime_r(time, out) }.is_null()
}

/// # Safety
///
/// `time` is a `time_t`, `out` a `struct tm` of the C library that sqlite-wasm-rs brings along.
#[cfg(target_arch = "wasm32")]
unsafe fn ask_host(time: *const c_void, out: *mut c_void) -> bool {
    /// Nine numbers, an offset and a pointer.
    const STRUCT_TM_SIZE: usize = 44;
    unsafe extern "C" {
        fn rust_sqlite_wasm_localtime(time: *const c_void) -> *const u8;
    }
    // SAFETY: by contract of this function; the result is null or a `struct tm` of its own.
    unsafe {
        let found = rust_sqlite_wasm_localtime(time);
        if !found.is_null() {
            std::ptr::copy_nonoverlapping(found, out.cast::<u8>(), STRUCT_TM_SIZE);
        }
        !found.is_null()
    }
}

/// # Safety
///
/// None: it does not look.
#[cfg(not(any(unix, target_arch = "wasm32")))]
unsafe fn ask_host(_: *const c_void, _: *mut c_void) -> bool {
    false
}
