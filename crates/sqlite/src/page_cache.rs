//! SQLite's own cache of pages, told which of its allocations are the document's.
//!
//! Whether a statement has to read a page hangs on what its connection kept, which differs between
//! hosts and may decide nothing: so pages of the document are left out of what [`memory`] counts
//! towards a budget. Those of temporary tables begin with their statement, on every host alike, and
//! count.

use std::ffi::{c_int, c_uint};
use std::sync::OnceLock;

use rusqlite::ffi;

use crate::memory;

/// A cache, and that of SQLite under it.
struct Cache {
    inner: *mut ffi::sqlite3_pcache,
    /// Whether its pages are a document's, and not those of a temporary table, which SQLite can not
    /// drop and read again.
    is_document: bool,
}

/// SQLite's own methods, under ours.
struct Original(ffi::sqlite3_pcache_methods2);

// SAFETY: functions that SQLite calls from any thread, and a pointer that only they look at.
unsafe impl Send for Original {}
// SAFETY: as above.
unsafe impl Sync for Original {}

static ORIGINAL: OnceLock<Original> = OnceLock::new();

/// Tells them apart from now on, unless SQLite runs already.
pub(crate) fn install() {
    let mut methods = ffi::sqlite3_pcache_methods2 {
        iVersion: 0,
        pArg: std::ptr::null_mut(),
        xInit: None,
        xShutdown: None,
        xCreate: None,
        xCachesize: None,
        xPagecount: None,
        xFetch: None,
        xUnpin: None,
        xRekey: None,
        xTruncate: None,
        xDestroy: None,
        xShrink: None,
    };
    // SAFETY: this operation takes a pointer to methods and fills them in.
    let code = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_GETPCACHE2, &raw mut methods) };
    if code != ffi::SQLITE_OK {
        return;
    }
    let original = &ORIGINAL.get_or_init(|| Original(methods)).0;
    let telling = ffi::sqlite3_pcache_methods2 {
        xCreate: Some(create),
        xCachesize: Some(cachesize),
        xPagecount: Some(pagecount),
        xFetch: Some(fetch),
        xUnpin: Some(unpin),
        xRekey: Some(rekey),
        xTruncate: Some(truncate),
        xDestroy: Some(destroy),
        xShrink: original.xShrink.map(|_| shrink as _),
        ..*original
    };
    // SAFETY: this operation copies complete methods, and refuses once SQLite runs.
    unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_PCACHE2, &raw const telling) };
}

fn original() -> &'static ffi::sqlite3_pcache_methods2 {
    &ORIGINAL.get().expect("BUG: installed before SQLite knew of us").0
}

/// # Safety
///
/// `cache` is one that [`create`] gave, and not destroyed.
unsafe fn inner(cache: *mut ffi::sqlite3_pcache) -> *mut ffi::sqlite3_pcache {
    // SAFETY: by contract of this function.
    unsafe { (*cache.cast::<Cache>()).inner }
}

unsafe extern "C" fn create(
    page_size: c_int,
    extra_size: c_int,
    is_purgeable: c_int,
) -> *mut ffi::sqlite3_pcache {
    let create = original().xCreate.expect("BUG: SQLite has a cache");
    // SAFETY: called as SQLite calls us.
    let inner = unsafe { create(page_size, extra_size, is_purgeable) };
    if inner.is_null() {
        return inner;
    }
    Box::into_raw(Box::new(Cache { inner, is_document: is_purgeable != 0 })).cast()
}

unsafe extern "C" fn fetch(
    cache: *mut ffi::sqlite3_pcache,
    key: c_uint,
    create: c_int,
) -> *mut ffi::sqlite3_pcache_page {
    let fetch = original().xFetch.expect("BUG: SQLite has a cache");
    // SAFETY: called as SQLite calls us, with what `create` gave.
    unsafe {
        let inner = inner(cache);
        match (*cache.cast::<Cache>()).is_document {
            true => memory::uncounted(|| fetch(inner, key, create)),
            false => fetch(inner, key, create),
        }
    }
}

unsafe extern "C" fn destroy(cache: *mut ffi::sqlite3_pcache) {
    let destroy = original().xDestroy.expect("BUG: SQLite has a cache");
    // SAFETY: called as SQLite calls us, the last time with what `create` gave.
    unsafe {
        let cache = Box::from_raw(cache.cast::<Cache>());
        destroy(cache.inner);
    }
}

unsafe extern "C" fn cachesize(cache: *mut ffi::sqlite3_pcache, pages: c_int) {
    let cachesize = original().xCachesize.expect("BUG: SQLite has a cache");
    // SAFETY: called as SQLite calls us, with what `create` gave.
    unsafe { cachesize(inner(cache), pages) }
}

unsafe extern "C" fn pagecount(cache: *mut ffi::sqlite3_pcache) -> c_int {
    let pagecount = original().xPagecount.expect("BUG: SQLite has a cache");
    // SAFETY: called as SQLite calls us, with what `create` gave.
    unsafe { pagecount(inner(cache)) }
}

unsafe extern "C" fn unpin(
    cache: *mut ffi::sqlite3_pcache,
    page: *mut ffi::sqlite3_pcache_page,
    discard: c_int,
) {
    let unpin = original().xUnpin.expect("BUG: SQLite has a cache");
    // SAFETY: called as SQLite calls us, with what `create` gave.
    unsafe { unpin(inner(cache), page, discard) }
}

unsafe extern "C" fn rekey(
    cache: *mut ffi::sqlite3_pcache,
    page: *mut ffi::sqlite3_pcache_page,
    old: c_uint,
    new: c_uint,
) {
    let rekey = original().xRekey.expect("BUG: SQLite has a cache");
    // SAFETY: called as SQLite calls us, with what `create` gave.
    unsafe { rekey(inner(cache), page, old, new) }
}

unsafe extern "C" fn truncate(cache: *mut ffi::sqlite3_pcache, limit: c_uint) {
    let truncate = original().xTruncate.expect("BUG: SQLite has a cache");
    // SAFETY: called as SQLite calls us, with what `create` gave.
    unsafe { truncate(inner(cache), limit) }
}

unsafe extern "C" fn shrink(cache: *mut ffi::sqlite3_pcache) {
    let shrink = original().xShrink.expect("BUG: installed where there is one");
    // SAFETY: called as SQLite calls us, with what `create` gave.
    unsafe { shrink(inner(cache)) }
}
