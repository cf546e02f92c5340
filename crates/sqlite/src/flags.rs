//! How SQLite is compiled and set up: the same on every host, so that pages come out the same.
//!
//! The flags reach the compiler through `.cargo/config.toml`, as `LIBSQLITE3_FLAGS` natively and as
//! `SQLITE_WASM_RS_FLAGS` for WebAssembly. Both crates that compile SQLite bring flags of their
//! own; ours come after them, so each `-U` takes one back that one side sets and the other does
//! not.

use std::ffi::CStr;

use rusqlite::ffi;

/// The flags, in the order of `.cargo/config.toml`.
pub const FLAGS: &[&str] = &[
    // What pages hold.
    "-DSQLITE_DEFAULT_PAGE_SIZE=4096",
    "-DSQLITE_SECURE_DELETE",
    // What statements mean.
    "-DSQLITE_DEFAULT_FOREIGN_KEYS=1",
    "-DSQLITE_TRUSTED_SCHEMA=0",
    "-DSQLITE_DQS=0",
    "-USQLITE_ENABLE_UNKNOWN_SQL_FUNCTION",
    // What plans the planner chooses.
    "-USQLITE_ENABLE_STAT4",
    // A plan depends on no value, so that no statement is prepared anew for one.
    "-DSQLITE_ENABLE_QPSG",
    "-DSQLITE_DEFAULT_CACHE_SIZE=-2000",
    // Nothing is on disk, so nothing is synced.
    "-DSQLITE_TEMP_STORE=3",
    "-DSQLITE_DEFAULT_SYNCHRONOUS=0",
    // Functions of the C library give other last bits on other hosts.
    "-USQLITE_ENABLE_MATH_FUNCTIONS",
    // What one side has and the other lacks, and what a page would download for nothing. FTS5 is
    // 56 KB of compressed WebAssembly, an eighth of all there may be.
    "-USQLITE_SOUNDEX",
    "-USQLITE_ENABLE_FTS3",
    "-USQLITE_ENABLE_FTS3_PARENTHESIS",
    "-USQLITE_ENABLE_FTS5",
    "-USQLITE_ENABLE_RTREE",
    "-USQLITE_ENABLE_SESSION",
    "-USQLITE_ENABLE_PREUPDATE_HOOK",
    "-USQLITE_ENABLE_DBSTAT_VTAB",
    "-USQLITE_ENABLE_DBPAGE_VTAB",
    "-USQLITE_ENABLE_BYTECODE_VTAB",
    "-USQLITE_ENABLE_STMTVTAB",
    "-USQLITE_ENABLE_OFFSET_SQL_FUNC",
    "-USQLITE_ENABLE_UNLOCK_NOTIFY",
    "-USQLITE_ENABLE_COLUMN_METADATA",
    "-USQLITE_ENABLE_API_ARMOR",
    "-USQLITE_ENABLE_LOAD_EXTENSION",
    "-USQLITE_USE_URI",
    "-DSQLITE_OMIT_LOAD_EXTENSION",
    "-DSQLITE_OMIT_DEPRECATED",
    "-DSQLITE_OMIT_SHARED_CACHE",
    "-DSQLITE_OMIT_WAL",
    "-DSQLITE_OMIT_AUTOVACUUM",
    "-DSQLITE_OMIT_TRACE",
    "-DSQLITE_OMIT_DESERIALIZE",
    "-DSQLITE_OMIT_INCRBLOB",
    "-DSQLITE_OMIT_GET_TABLE",
    "-DSQLITE_OMIT_COMPLETE",
    "-DSQLITE_OMIT_TCL_VARIABLE",
    "-DSQLITE_OMIT_DECLTYPE",
];

/// What C compilers are told besides: as `HOST_CFLAGS` where the product runs on the host that it
/// is built on, else as `TARGET_CFLAGS`. Both come behind the `CFLAGS` of whoever builds.
pub const COMPILER_FLAGS: &[&str] = &[
    // No multiplication is fused with an addition, which would round once where two round twice:
    // compilers do that unasked for processors that can, all 64-bit ARMs among them.
    "-ffp-contract=off",
];

/// Run on every new connection: what no flag can say. Each of them takes as long as a query.
pub(crate) const PRAGMAS: &[&str] =
    &["pragma journal_mode = memory", "pragma cache_spill = off", "pragma cell_size_check = on"];

/// Compile options that say how SQLite runs on its host, not what it does: they may differ.
const HOST_OPTIONS: &[&str] = &[
    "ATOMIC_INTRINSICS",
    "COMPILER",
    "HAVE_ISNAN",
    "MAX_MMAP_SIZE",
    "MAX_WORKER_THREADS",
    "MUTEX_NOOP",
    "MUTEX_OMIT",
    "MUTEX_PTHREADS",
    "OS_OTHER",
    "SYSTEM_MALLOC",
    "THREADSAFE",
];

/// The options that SQLite says it was compiled with, but for those of its host.
#[must_use]
pub fn compile_options() -> Vec<String> {
    let mut options = Vec::new();
    for index in 0.. {
        // SAFETY: any index may be asked for; past the last there is null, else a constant text.
        let option = unsafe {
            let option = ffi::sqlite3_compileoption_get(index);
            if option.is_null() {
                break;
            }
            CStr::from_ptr(option)
        };
        let option = option.to_string_lossy();
        let name = option.split('=').next().unwrap_or_default();
        if !HOST_OPTIONS.contains(&name) {
            options.push(option.into_owned());
        }
    }
    options
}

/// What [`compile_options`] gives on every host.
pub const COMPILE_OPTIONS: &[&str] = &[
    "DEFAULT_AUTOVACUUM",
    "DEFAULT_CACHE_SIZE=-2000",
    "DEFAULT_FILE_FORMAT=4",
    "DEFAULT_FOREIGN_KEYS",
    "DEFAULT_JOURNAL_SIZE_LIMIT=-1",
    "DEFAULT_MMAP_SIZE=0",
    "DEFAULT_PAGE_SIZE=4096",
    "DEFAULT_PCACHE_INITSZ=20",
    "DEFAULT_RECURSIVE_TRIGGERS",
    "DEFAULT_SECTOR_SIZE=4096",
    "DEFAULT_SYNCHRONOUS=0",
    "DEFAULT_WAL_AUTOCHECKPOINT=1000",
    "DEFAULT_WAL_SYNCHRONOUS=0",
    "DEFAULT_WORKER_THREADS=0",
    "DIRECT_OVERFLOW_READ",
    "DQS=0",
    "ENABLE_QPSG",
    "MALLOC_SOFT_LIMIT=1024",
    "MAX_ATTACHED=10",
    "MAX_COLUMN=2000",
    "MAX_COMPOUND_SELECT=500",
    "MAX_DEFAULT_PAGE_SIZE=8192",
    "MAX_EXPR_DEPTH=1000",
    "MAX_FUNCTION_ARG=1000",
    "MAX_LENGTH=1000000000",
    "MAX_LIKE_PATTERN_LENGTH=50000",
    "MAX_PAGE_COUNT=0xfffffffe",
    "MAX_PAGE_SIZE=65536",
    "MAX_SCHEMA=10000000",
    "MAX_SQL_LENGTH=1000000000",
    "MAX_TRIGGER_DEPTH=1000",
    "MAX_VARIABLE_NUMBER=32766",
    "MAX_VDBE_OP=250000000",
    "OMIT_AUTOVACUUM",
    "OMIT_COMPLETE",
    "OMIT_DECLTYPE",
    "OMIT_DEPRECATED",
    "OMIT_DESERIALIZE",
    "OMIT_GET_TABLE",
    "OMIT_INCRBLOB",
    "OMIT_LOAD_EXTENSION",
    "OMIT_SHARED_CACHE",
    "OMIT_TCL_VARIABLE",
    "OMIT_WAL",
    "SECURE_DELETE",
    "TEMP_STORE=3",
];

/// The version of SQLite on every host.
pub const VERSION: &str = "3.54.1";

/// SQLite's version.
#[must_use]
pub fn version() -> String {
    // SAFETY: a constant text.
    let version = unsafe { CStr::from_ptr(ffi::sqlite3_libversion()) };
    version.to_string_lossy().into_owned()
}
