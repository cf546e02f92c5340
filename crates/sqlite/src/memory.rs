//! What SQLite allocates, counted and bounded per thread.
//!
//! Steps alone are no measure of work: one step can make a value of sixteen megabytes, and what is
//! prepared takes none. Allocated bytes tell about those, so the budget counts them as well, and
//! what is over it is not allocated: SQLite then ends the statement wherever it is. Only the pages
//! of a document in SQLite's cache are left out; see [`page_cache`](crate::page_cache).
//!
//! Nor are bytes alone a measure of work: a statement can look at one value thousands of times,
//! allocate nothing for that, and jump nowhere, so that SQLite never looks at its budget. So the
//! largest block counts as often as the statement may look at it: see [`Looks`].
//!
//! What all threads hold is bounded too. SQLite would count that itself, under a lock that each
//! allocation and each freeing of every thread takes.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

use rusqlite::ffi;
use tidelog_types::limits::SQL_VALUE_SIZE_MAX;

/// Bytes of memory that SQLite may hold in the whole process. Past it, allocations fail, and with
/// them the statement that asked: better than the process.
const HELD_SIZE_MAX: i64 = if cfg!(target_arch = "wasm32") { 512 << 20 } else { 4 << 30 };

/// Bytes that SQLite holds, and that it held at most.
static HELD: AtomicI64 = AtomicI64::new(0);
static MOST_HELD: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
    static ALLOWED: Cell<u64> = const { Cell::new(u64::MAX) };
    static IS_UNCOUNTED: Cell<bool> = const { Cell::new(false) };
    /// How many bytes each byte of the largest block counts for besides itself, and that block.
    static LOOKS: Cell<u64> = const { Cell::new(0) };
    static LARGEST: Cell<u64> = const { Cell::new(0) };
    static HELD_MAX: Cell<i64> = const { Cell::new(HELD_SIZE_MAX) };
    /// Bytes that were allocated on this thread, less those freed, and how many may be.
    static HELD_HERE: Cell<i64> = const { Cell::new(0) };
    static HELD_HERE_MAX: Cell<i64> = const { Cell::new(i64::MAX) };
    static IS_BEYOND: Cell<bool> = const { Cell::new(false) };
}

/// Runs this while SQLite takes no more than so many bytes more on this thread than it holds now.
/// `None` if it wanted more: then it failed for want of memory, wherever it was.
pub(crate) fn within<T>(bytes: usize, run: impl FnOnce() -> T) -> Option<T> {
    /// Also where it panics: the thread may go on with something else.
    struct Ended;
    impl Drop for Ended {
        fn drop(&mut self) {
            HELD_HERE_MAX.set(i64::MAX);
        }
    }
    let _ended = Ended;
    HELD_HERE_MAX.set(HELD_HERE.get().saturating_add_unsigned(bytes as u64));
    IS_BEYOND.set(false);
    let value = run();
    (!IS_BEYOND.get()).then_some(value)
}

/// Has this thread find the process short of memory as soon as SQLite holds so many bytes in it,
/// or as soon as it otherwise would: for tests of what follows. `None` is as it was.
pub fn be_short_beyond(bytes: Option<u64>) {
    let bytes = bytes.and_then(|bytes| i64::try_from(bytes).ok());
    HELD_MAX.set(bytes.map_or(HELD_SIZE_MAX, |bytes| bytes.min(HELD_SIZE_MAX)));
}

/// Lets SQLite allocate so many bytes on this thread, counted from when it was last asked what it
/// has allocated.
pub(crate) fn allow(bytes: u64) {
    ALLOWED.set(bytes);
}

/// Bytes that this thread has allocated through SQLite since it last asked.
pub(crate) fn take_allocated() -> u64 {
    ALLOCATED.take()
}

/// While it lives, a statement runs on this thread that looks at each value so many times, if it is
/// a straight line. No value is larger than the largest block that is allocated for it meanwhile,
/// or that it was there [before](Self::see).
pub(crate) struct Looks(());

impl Looks {
    pub fn begin(count: u64) -> Self {
        LOOKS.set(count);
        LARGEST.set(0);
        Self(())
    }

    /// The statement has a value of so many bytes that was not allocated for it.
    pub fn see(&self, size: usize) {
        ALLOCATED.set(ALLOCATED.get().saturating_add(looked_at(size as u64)));
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        LOOKS.set(0);
    }
}

/// What a block counts for besides its own bytes.
fn looked_at(size: u64) -> u64 {
    // What is larger is no value.
    let size = size.min(SQL_VALUE_SIZE_MAX as u64);
    let larger = size.saturating_sub(LARGEST.get());
    LARGEST.set(LARGEST.get() + larger);
    larger.saturating_mul(LOOKS.get())
}

/// What SQLite allocates for this counts towards no budget.
pub(crate) fn uncounted<T>(allocate: impl FnOnce() -> T) -> T {
    let was_uncounted = IS_UNCOUNTED.replace(true);
    let allocated = allocate();
    IS_UNCOUNTED.set(was_uncounted);
    allocated
}

/// Bytes that SQLite holds in the whole process now, and that it held at most.
#[must_use]
pub fn held_size() -> [u64; 2] {
    [&HELD, &MOST_HELD].map(|size| u64::try_from(size.load(Ordering::Relaxed)).unwrap_or(0))
}

/// Counts so many bytes more; false if they are not allowed.
fn count(size: c_int) -> bool {
    let counted = if IS_UNCOUNTED.get() { 0 } else { u64::try_from(size).unwrap_or(0) };
    let counted = counted.saturating_add(looked_at(counted));
    let allocated = ALLOCATED.get().saturating_add(counted);
    ALLOCATED.set(allocated);
    if HELD_HERE.get().saturating_add(i64::from(size)) > HELD_HERE_MAX.get() {
        IS_BEYOND.set(true);
        return false;
    }
    let held = HELD.load(Ordering::Relaxed).saturating_add(i64::from(size));
    (IS_UNCOUNTED.get() || allocated <= ALLOWED.get()) && held <= HELD_MAX.get()
}

/// SQLite holds so many bytes more, or fewer.
fn hold(size: i64) {
    HELD_HERE.set(HELD_HERE.get() + size);
    let held = HELD.fetch_add(size, Ordering::Relaxed) + size;
    if held > MOST_HELD.load(Ordering::Relaxed) {
        MOST_HELD.fetch_max(held, Ordering::Relaxed);
    }
}

/// SQLite's own allocator, under ours.
struct Original(ffi::sqlite3_mem_methods);

// SAFETY: functions that SQLite calls from any thread, and a pointer that only they look at.
unsafe impl Send for Original {}
// SAFETY: as above.
unsafe impl Sync for Original {}

static ORIGINAL: OnceLock<Original> = OnceLock::new();

/// Counts from now on, unless SQLite runs already: then nothing is ever counted.
pub(crate) fn install() {
    let mut methods = ffi::sqlite3_mem_methods {
        xMalloc: None,
        xFree: None,
        xRealloc: None,
        xSize: None,
        xRoundup: None,
        xInit: None,
        xShutdown: None,
        pAppData: std::ptr::null_mut(),
    };
    // SAFETY: this operation takes a pointer to methods and fills them in.
    let code = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_GETMALLOC, &raw mut methods) };
    if code != ffi::SQLITE_OK {
        return;
    }
    let original = &ORIGINAL.get_or_init(|| Original(methods)).0;
    let counting = ffi::sqlite3_mem_methods {
        xMalloc: Some(malloc),
        xRealloc: Some(realloc),
        xFree: Some(free),
        ..*original
    };
    // SAFETY: this operation copies complete methods, and refuses once SQLite runs.
    unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MALLOC, &raw const counting) };
    // SAFETY: this operation takes whether SQLite counts what it holds.
    unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, 0 as c_int) };
    // Else each connection begins with room for twenty pages, most of which many never use.
    let (nowhere, none): (*mut c_void, c_int) = (std::ptr::null_mut(), 0);
    // SAFETY: this operation takes memory, the size of a page in it and their number.
    unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_PAGECACHE, nowhere, none, none) };
}

fn original() -> &'static ffi::sqlite3_mem_methods {
    &ORIGINAL.get().expect("BUG: installed before SQLite knew of us").0
}

unsafe extern "C" fn malloc(size: c_int) -> *mut c_void {
    if !count(size) {
        return std::ptr::null_mut();
    }
    let malloc = original().xMalloc.expect("BUG: an allocator allocates");
    // SAFETY: called as SQLite calls us.
    let new = unsafe { malloc(size) };
    hold(size_of_block(new));
    new
}

unsafe extern "C" fn free(old: *mut c_void) {
    let free = original().xFree.expect("BUG: an allocator frees");
    hold(-size_of_block(old));
    // SAFETY: called as SQLite calls us, and `old` came from the allocator under ours.
    unsafe { free(old) }
}

/// Bytes in what was allocated; 0 if nothing was.
fn size_of_block(block: *mut c_void) -> i64 {
    if block.is_null() {
        return 0;
    }
    let size = original().xSize.expect("BUG: an allocator knows sizes");
    // SAFETY: it came from the allocator under ours, and was not freed.
    i64::from(unsafe { size(block) })
}

unsafe extern "C" fn realloc(old: *mut c_void, size: c_int) -> *mut c_void {
    if !count(size) {
        return std::ptr::null_mut();
    }
    let realloc = original().xRealloc.expect("BUG: an allocator reallocates");
    let old_size = size_of_block(old);
    // SAFETY: called as SQLite calls us, and `old` came from the allocator under ours.
    let new = unsafe { realloc(old, size) };
    if !new.is_null() {
        hold(size_of_block(new) - old_size);
    }
    new
}
