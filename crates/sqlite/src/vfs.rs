//! SQLite's file system, as far as it needs one: a database file whose pages a [`State`] gives.
//!
//! There are no other files: journals and temporary tables are in memory, and a lock means nothing,
//! since one owner runs all connections of a document in turn.
//!
//! [`State`]: crate::state::State

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::{Arc, Once};

use rusqlite::ffi;
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{Page, Pgid};

use crate::failure::Failure;
use crate::gap::clear_gap;
use crate::state::{self, Read, SharedState};

/// The name under which SQLite knows this VFS.
pub(crate) const NAME: &CStr = c"tidelog";

/// Milliseconds from the Julian epoch, which SQLite counts from, to the Unix epoch.
const JULIAN_UNIX_EPOCH_MS: i64 = 210_866_760_000_000;

/// Makes the VFS known to SQLite, once per process. It does not become the default one.
pub(crate) fn register() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        crate::memory::install();
        crate::page_cache::install();
        let vfs = Box::leak(Box::new(vfs()));
        // SAFETY: `vfs` is complete and lives for ever, as SQLite asks; its functions keep to
        // SQLite's contract, see each of them.
        let code = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
        assert_eq!(code, ffi::SQLITE_OK, "BUG: SQLite does not take a complete VFS");
        crate::local_time::install();
    });
}

fn vfs() -> ffi::sqlite3_vfs {
    ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: size_of::<File>() as c_int,
        mxPathname: 64,
        pNext: ptr::null_mut(),
        zName: NAME.as_ptr(),
        pAppData: ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: None,
        xCurrentTimeInt64: Some(current_time_int64),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }
}

/// What SQLite allocates for an open file: its own head, then ours.
#[repr(C)]
struct File {
    head: ffi::sqlite3_file,
    /// From `Arc::into_raw` at open to `Arc::from_raw` at close.
    state: *const SharedState,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(no_op),
    xFileSize: Some(file_size),
    xLock: Some(no_op),
    xUnlock: Some(no_op),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// The state behind an open file.
///
/// # Safety
///
/// `file` was opened by [`open`] and not closed since.
unsafe fn state_of<'a>(file: *mut ffi::sqlite3_file) -> &'a SharedState {
    // SAFETY: `open` wrote a whole `File` here, and the `Arc` behind it is held until `close`.
    unsafe { &*(*file.cast::<File>()).state }
}

/// The page and the offset in it that `size` bytes at `offset` belong to, if they are in one page.
fn locate(size: c_int, offset: i64) -> Option<(Pgid, usize, usize)> {
    let (size, offset) = (usize::try_from(size).ok()?, u64::try_from(offset).ok()?);
    let pgid = u32::try_from(offset / PAGE_SIZE as u64).ok()?.checked_add(1)?;
    let within = (offset % PAGE_SIZE as u64) as usize;
    (within + size <= PAGE_SIZE).then_some((Pgid(pgid), within, size))
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives `szOsFile` bytes; without methods it will not close what is not open.
    unsafe { (*file).pMethods = ptr::null() };
    if name.is_null() || flags & ffi::SQLITE_OPEN_MAIN_DB == 0 {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: a file name that is not null ends with a zero byte.
    let name = unsafe { CStr::from_ptr(name) };
    let number = name.to_str().ok().and_then(|name| name.parse().ok());
    let Some(state) = number.and_then(state::opened) else {
        return ffi::SQLITE_CANTOPEN;
    };
    let opened = File {
        head: ffi::sqlite3_file { pMethods: &raw const METHODS },
        state: Arc::into_raw(state),
    };
    // SAFETY: `file` has room for a `File` and is aligned for one, being a malloc of its own part.
    unsafe { file.cast::<File>().write(opened) };
    if !out_flags.is_null() {
        // SAFETY: not null, so it is SQLite's variable.
        unsafe { *out_flags = flags };
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: the file is open, and SQLite closes it once: the count of `open` is given back.
    unsafe { drop(Arc::from_raw((*file.cast::<File>()).state)) };
    // SAFETY: as above; a file without methods is a closed one.
    unsafe { (*file).pMethods = ptr::null() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    out: *mut c_void,
    size: c_int,
    offset: i64,
) -> c_int {
    let Some((pgid, within, size)) = locate(size, offset) else {
        return ffi::SQLITE_IOERR_READ;
    };
    // SAFETY: SQLite gives `size` writable bytes, which it does not look at meanwhile. They may be
    // uninitialised.
    let out = unsafe { std::slice::from_raw_parts_mut(out.cast::<MaybeUninit<u8>>(), size) };
    // SAFETY: the file is open.
    match state::lock(unsafe { state_of(file) }).read(pgid, within, out) {
        Read::Copied => ffi::SQLITE_OK,
        Read::Beyond => {
            out.fill(MaybeUninit::new(0));
            ffi::SQLITE_IOERR_SHORT_READ
        }
        Read::Failed => ffi::SQLITE_IOERR_READ,
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    size: c_int,
    offset: i64,
) -> c_int {
    let Some((pgid, 0, PAGE_SIZE)) = locate(size, offset) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: SQLite gives `size` bytes, which is the size of a page.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), PAGE_SIZE) };
    let mut cleared = [0; PAGE_SIZE];
    cleared.copy_from_slice(bytes);
    // What SQLite keeps of the page has that gap still, which it never reads.
    clear_gap(pgid, &mut cleared);
    let page = Page::new(&cleared).expect("BUG: that is the size of a page");
    // SAFETY: the file is open.
    match state::lock(unsafe { state_of(file) }).write(pgid, page) {
        true => ffi::SQLITE_OK,
        false => ffi::SQLITE_IOERR_WRITE,
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    let Ok(db_pages) = u32::try_from(size / PAGE_SIZE as i64) else {
        return ffi::SQLITE_IOERR_TRUNCATE;
    };
    // SAFETY: the file is open.
    state::lock(unsafe { state_of(file) }).truncate(db_pages);
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: the file is open, and `out` is SQLite's variable.
    unsafe { *out = state::lock(state_of(file)).db_size() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn no_op(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(_: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: `out` is SQLite's variable.
    unsafe { *out = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    PAGE_SIZE as c_int
}

unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    // A write never tears a neighbour: nothing to journal for it.
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE | ffi::SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, _: *const c_char, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    _: *const c_char,
    _: c_int,
    out: *mut c_int,
) -> c_int {
    // Asked for journals only, and there are none.
    // SAFETY: `out` is SQLite's variable.
    unsafe { *out = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    size: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: a name given to SQLite ends with a zero byte.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if name.len() > size as usize {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: `out` has room for `size` bytes and is not the name.
    unsafe { ptr::copy_nonoverlapping(name.as_ptr(), out.cast::<u8>(), name.len()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, size: c_int, out: *mut c_char) -> c_int {
    // SQLite seeds from its default VFS, never from this one; should it ever, let it be the same.
    // SAFETY: `out` has room for `size` bytes.
    unsafe { ptr::write_bytes(out.cast::<u8>(), 0, size as usize) };
    size
}

unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, _: c_int) -> c_int {
    0
}

/// The time as whoever runs may know it; `None` if it may not.
fn now_ms() -> Option<i64> {
    state::with_running(|state| {
        if state.writes {
            state.fail(Failure::nondeterministic("the current time"));
            return None;
        }
        i64::try_from(state.view.now_ms()).ok()
    })
    .flatten()
}

unsafe extern "C" fn current_time_int64(_: *mut ffi::sqlite3_vfs, out: *mut i64) -> c_int {
    let Some(now_ms) = now_ms() else {
        return ffi::SQLITE_ERROR;
    };
    // SAFETY: `out` is SQLite's variable.
    unsafe { *out = now_ms + JULIAN_UNIX_EPOCH_MS };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    let Some(now_ms) = now_ms() else {
        return ffi::SQLITE_ERROR;
    };
    // SAFETY: `out` is SQLite's variable.
    unsafe { *out = (now_ms + JULIAN_UNIX_EPOCH_MS) as f64 / 86_400_000.0 };
    ffi::SQLITE_OK
}
