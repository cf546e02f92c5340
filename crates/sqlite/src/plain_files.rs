//! Files that plain SQLite finds in a browser, where it has a file system in memory: for tests that
//! compare what is ours with what knows nothing of it.

use sqlite_wasm_rs::vfs::VfsFilesManager as _;
use sqlite_wasm_rs::vfs::memvfs::MemVfsUtil;
use sqlite_wasm_rs::vfs::transfer::DbTransfer as _;

/// Makes a file of these bytes.
///
/// # Errors
///
/// If there is one of that name, or no memory.
pub fn write(name: &str, bytes: &[u8]) -> Result<(), String> {
    files().import_db_unchecked(name, bytes).map_err(|error| error.to_string())
}

/// Removes a file that nobody has open.
pub fn remove(name: &str) {
    let Ok(_existed) = files().remove(name);
}

fn files() -> MemVfsUtil {
    // SAFETY: plain.
    unsafe { rusqlite::ffi::sqlite3_initialize() };
    // SAFETY: a module of WebAssembly without shared memory has one thread.
    unsafe { MemVfsUtil::get() }.expect("BUG: SQLite has its file system once it is initialised")
}
