//! Every limit that users, peers or disks can meet, with its unit. Nowhere else in the workspace
//! stands such a bound; sizes of internal working steps stand where they are used.

/// The highest LSN that is taken from outside.
pub const LSN_MAX: u64 = 1 << 62;

/// Bytes in a page: the unit SQLite reads and we ship.
pub const PAGE_SIZE: usize = 4096;

/// Pages in an extent of the page file.
pub const EXTENT_PAGES: u32 = 256;

/// Bytes of log after which the store checkpoints and changes over to the other log file.
pub const LOG_SIZE_MAX: u64 = 16 * 1024 * 1024;

/// The same in a browser, where the log is read by WebAssembly while a page waits.
pub const BROWSER_LOG_SIZE_MAX: u64 = 4 * 1024 * 1024;

/// Bytes of one frame's body in the log.
pub const FRAME_BODY_SIZE_MAX: usize = 64 * 1024 * 1024;

/// Pages that a buffer pool keeps when nothing pins more.
pub const POOL_PAGES_MAX: usize = 8192;

/// Pages that one transaction may read before it fails.
pub const READ_SET_PAGES_MAX: usize = 32_768;

/// Pages fetched at most for one fault.
pub const FAULT_PAGES_MAX: u32 = 256;

/// Virtual machine steps of SQLite that one statement run by an app may take.
pub const STATEMENT_STEPS_MAX: u64 = 40_000_000;

/// Pages that one mutation may change.
pub const MUTATION_PAGES_MAX: usize = 16_384;

/// Bytes of the longest string, blob or row that SQLite may make.
pub const SQL_VALUE_SIZE_MAX: usize = 16 * 1024 * 1024;

/// Bytes of the encoded rows that one query may answer with.
pub const ROWS_SIZE_MAX: usize = 256 * 1024 * 1024;

/// Undecided mutations that have a layer of their own; younger ones share one.
pub const LAYERS_MAX: usize = 1024;

/// Bytes of one encoded mutation, its arguments included.
pub const MUTATION_SIZE_MAX: usize = 16 * 1024 * 1024;

/// Bytes of one message on the wire.
pub const MESSAGE_SIZE_MAX: usize = 24 * 1024 * 1024;

/// Pages in one message on the wire: entries with more travel in parts.
pub const MESSAGE_PAGES_MAX: usize = 256;

/// Bytes of timeline frames that are on their way to the server at once.
pub const FRAMES_IN_FLIGHT_SIZE_MAX: usize = 4 * 1024 * 1024;

/// Storage entries that a follower may have been sent and not yet acknowledged.
pub const ENTRIES_IN_FLIGHT_MAX: u64 = 1024;

/// Bytes of a document's name, and of a user's.
pub const DOCUMENT_NAME_SIZE_MAX: usize = 512;

/// Bytes of an encoded doctype.
pub const DOCTYPE_SIZE_MAX: usize = 4 * 1024 * 1024;

/// Rejections that a client keeps for a listener; the oldest go first.
pub const REJECTIONS_KEPT_MAX: usize = 4096;

/// Re-runs of undecided mutations in one slice of a rebase.
pub const REBASE_SLICE_MUTATIONS: usize = 64;

/// Milliseconds after which a call of a tab has settled, one way or the other.
pub const CALL_SETTLES_MS: u64 = 10_000;

/// Pages that a page server's buffer pool keeps.
pub const STORE_POOL_PAGES_MAX: usize = 1024;

/// Pages that a page server reads for one owner before the next one has its turn.
pub const READ_CHUNK_PAGES: usize = 16;

/// Reads that one owner of a page server may have outstanding.
pub const OWNER_READS_MAX: usize = 1024;

/// Pages that those may be about in all. A single one may be about more.
pub const OWNER_READ_PAGES_MAX: usize = 256 * 1024;

/// Appends of one owner of a page server that may wait to become durable.
pub const OWNER_APPENDS_MAX: usize = 64 * 1024;

/// Pages in one message of an append to a page server: those of a larger one are sent ahead.
pub const APPEND_PART_PAGES_MAX: usize = 256;

/// Pages that one storage entry may change: it is put together in memory.
pub const ENTRY_PAGES_MAX: usize = 131_072;

/// Pages that one append may change in all its entries: what an owner may have sent ahead of it.
pub const APPEND_PAGES_MAX: usize = 2 * ENTRY_PAGES_MAX;

/// Pages in one frame of the log: entries with more take several.
pub const FRAME_PAGES_MAX: usize = 256;

/// Bytes of appends that a page server keeps in memory before it writes them out.
pub const LOG_BUFFER_SIZE_MAX: usize = 4 * 1024 * 1024;

/// Calls of storage entries that a document remembers when the log forgets the entries.
pub const CALLS_KEPT_MAX: usize = 1024;

/// Calls of a document that a core remembers, for tabs that ask again.
pub const CALLS_REMEMBERED_MAX: usize = 16 * 1024;

/// Bytes of storage entries that a follower may have been sent and not yet received, not counting
/// the entry that passes the bound.
pub const ENTRIES_IN_FLIGHT_SIZE_MAX: usize = 8 * 1024 * 1024;

/// Messages from clients that wait for a room before their connections are not read any further.
pub const ROOM_INBOX_MESSAGES_MAX: usize = 64;

/// Messages that wait to be sent to one client before it is let go.
pub const SEND_QUEUE_MESSAGES_MAX: usize = 8192;

/// Bytes of a store in IndexedDB, all of which are in memory too while it is open.
pub const BLOCK_STORE_SIZE_MAX: u64 = 256 * 1024 * 1024;
