//! Every limit that users, peers or disks can meet, with its unit. Nowhere else in the workspace
//! stands such a bound; sizes of internal working steps stand where they are used.
//!
//! Bounds of formats and messages are constants. Bounds of behaviour are fields of [`Limits`], so
//! that a simulated world can shrink them.

use crate::BudgetLimits;

/// The highest LSN that is accepted from a peer or a disk.
pub const LSN_MAX: u64 = 1 << 62;

/// The highest LSN at which a document may stand that is handed over to a server, which counts on
/// from there.
pub const SEED_LSN_MAX: u64 = LSN_MAX / 2;

/// Lives that a document's pages remember of each timeline that was applied to it, at most: more
/// than that are not read.
pub const TIMELINE_LIVES_KEPT_MAX: usize = 16;

/// Rejections that one frame trims of those which its client has kept, the same on every side: the
/// frames behind it trim the rest. So none costs much more than what its mutation does.
pub const FRAME_REJECTIONS_TRIMMED_MAX: u64 = 256;

/// Lives that a local document may name which is offered to a server: as many as one remembers.
pub const OFFER_LIVES_MAX: usize = 64;

/// Bytes in a page: the unit SQLite reads and we ship.
pub const PAGE_SIZE: usize = 4096;

/// Pages in an extent of the page file.
pub const EXTENT_PAGES: u32 = 256;

/// Bytes of log after which the store checkpoints and changes over to the other log file.
pub const LOG_SIZE_MAX: u64 = 16 * 1024 * 1024;

/// [`LOG_SIZE_MAX`] on a device, where each write takes a block of its own.
///
/// Behind a checkpoint each page is written whole once more, so the longer the log, the less one
/// mutation writes.
pub const DEVICE_LOG_SIZE_MAX: u64 = 32 * 1024 * 1024;

/// Bytes of log with which a device may rest: whoever opens the store waits until its log is read.
pub const DEVICE_LOG_REST_SIZE_MAX: u64 = 8 * 1024 * 1024;

/// Milliseconds after which a log is changed over however short it is: so long, at most, it keeps
/// what was overwritten in pages meanwhile.
pub const LOG_AGE_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Bytes of one frame's body in the log.
pub const FRAME_BODY_SIZE_MAX: usize = 64 * 1024 * 1024;

/// Bytes of the longest string, blob or row that SQLite may make.
pub const SQL_VALUE_SIZE_MAX: usize = 16 * 1024 * 1024;

/// Bytes of one encoded mutation, its arguments included.
pub const MUTATION_SIZE_MAX: usize = 16 * 1024 * 1024;

/// Bytes of one event: its data, and the names of its type, its aggregate and its stream.
pub const EVENT_SIZE_MAX: usize = 256 * 1024;

/// Bytes of a command's key.
pub const COMMAND_KEY_SIZE_MAX: usize = 256;

/// Commands that one instance works at.
pub const INSTANCE_COMMANDS_MAX: u32 = 1024;

/// Types of events of which one question to an archive may be.
pub const ARCHIVE_TYPES_MAX: usize = 1024;

/// Bytes of all names in one question to an archive: those of an event have no more.
pub const ARCHIVE_NAMES_SIZE_MAX: usize = EVENT_SIZE_MAX;

/// Events in one answer of an archive.
pub const ARCHIVED_EVENTS_MAX: usize = 256;

/// Bytes of the events in one answer of an archive, not counting the one that passes the bound.
pub const ARCHIVED_SIZE_MAX: usize = 256 * 1024;

/// Kinds of commands that one instance handles.
pub const INSTANCE_KINDS_MAX: usize = 1024;

/// Instances of one document.
pub const INSTANCES_MAX: usize = 1024;

/// Events that a command records, and commands that it sends, as it completes.
pub const COMPLETION_ITEMS_MAX: usize = 1024;

/// Bytes of what an attempt at a command or a run comes to: it travels in one message.
pub const COMPLETION_SIZE_MAX: usize = 16 * 1024 * 1024;

/// Bytes of a stream's state, as JSON, that is kept beside its events.
pub const SNAPSHOT_SIZE_MAX: usize = 256 * 1024;

/// Bytes of the name of the way of folding by which it was made.
pub const SNAPSHOT_NAME_SIZE_MAX: usize = 64;

/// Ways of folding of which one stream has states, those that have come furthest.
pub const SNAPSHOTS_MAX: usize = 4;

/// The last moment that an event can have happened at, milliseconds since 1970: the last that a
/// `Date` of JavaScript has.
pub const TIME_MS_MAX: u64 = 8_640_000_000_000_000;

/// Bytes of the lines by which whoever runs a server records events.
pub const APPEND_SIZE_MAX: usize = 4 * 1024 * 1024;

/// Events of an aggregate from which rows are made anew together, in one transaction.
pub const REPLAY_EVENTS_MAX: u64 = 100_000;

/// What one run of a workflow remembers: steps, requests and what it waits for. Who needs more goes
/// on as new.
pub const WORKFLOW_RECORDS_MAX: u64 = 10_000;

/// Events of a document before the last one that a run was given, of whatever kind, which may still
/// be given to it once it has gone on as new. No others are kept from the archive for it.
pub const WORKFLOW_SEEN_BEHIND_MAX: i64 = 10_000;

/// Kinds of events, each a stream and a type, of which a run that goes on as new knows which one it
/// was given last; what lies before the last one of another kind is not given to it any more.
pub const WORKFLOW_SEEN_KINDS_MAX: i64 = 256;

/// Bytes of what a step or a run comes to, as JSON.
pub const RECORD_SIZE_MAX: usize = 256 * 1024;

/// Bytes of the name of a step, or of anything else that a run remembers.
pub const RECORD_NAME_SIZE_MAX: usize = 256;

/// How long an instance may be away before what it works at is given to others.
pub const INSTANCE_SILENT_MS: u64 = 30_000;

/// How long after an attempt has failed a command is tried again at first; twice as long each time.
pub const COMMAND_BACKOFF_MS: u64 = 1_000;

/// The longest of these times.
pub const COMMAND_BACKOFF_MS_MAX: u64 = 300_000;

/// Consumers of events whose positions a copy of a document keeps.
pub const CONSUMERS_MAX: usize = 64;

/// Bytes of the name of a consumer of events.
pub const CONSUMER_NAME_SIZE_MAX: usize = 256;

/// Events that one statement of a mutation may record.
pub const STATEMENT_EVENTS_MAX: usize = 10_000;

/// Statements in one SQL text of a mutation, and texts in a mutation.
pub const MUTATION_STATEMENTS_MAX: usize = 1000;

/// Parameters of a mutation.
pub const MUTATION_PARAMS_MAX: usize = 1000;

/// Bytes of one message on the wire.
pub const MESSAGE_SIZE_MAX: usize = 24 * 1024 * 1024;

/// Bytes of the reason of a rejection, as it is written down and told. A longer one is shortened.
pub const REASON_SIZE_MAX: usize = 4096;

/// Bytes of a document's name, and of a user's.
pub const DOCUMENT_NAME_SIZE_MAX: usize = 512;

/// Bytes of a token.
pub const TOKEN_SIZE_MAX: usize = 8 * 1024;

/// Grants of a token: more than any token has room for with names of some length.
pub const TOKEN_GRANTS_MAX: usize = 128;

/// Bytes of a token's subject, and of its id.
pub const TOKEN_NAME_SIZE_MAX: usize = 256;

/// Seconds that the clocks of a token's issuer and of the server may differ, either way.
pub const TOKEN_LEEWAY_S: u64 = 60;

/// The last second since 1970 that a token may name: the end of the year 9999. A time in
/// milliseconds is beyond it.
pub const TOKEN_TIME_S_MAX: u64 = 253_402_300_799;

/// Keys that tokens are verified with.
pub const TOKEN_KEYS_MAX: usize = 64;

/// Bytes of a secret that tokens are signed with, at least: as many as its hash has.
pub const TOKEN_SECRET_SIZE_MIN: usize = 32;

/// Bytes of a file with keys.
pub const KEY_FILE_SIZE_MAX: u64 = 1024 * 1024;

/// Bits of an RSA key that tokens are signed with, at least.
pub const RSA_KEY_BITS_MIN: usize = 2048;
/// Bits of an RSA key, at most: what verifies takes no more.
pub const RSA_KEY_BITS_MAX: usize = 8192;

/// Tokens that a server remembers as revoked, until they expire.
pub const REVOKED_TOKENS_MAX: usize = 100_000;

/// Subjects that a server remembers as revoked.
pub const REVOKED_SUBJECTS_MAX: usize = 10_000;

/// Bytes of a password.
pub const PASSWORD_SIZE_MAX: usize = 1024;

/// KiB of memory that a password's hash may take.
pub const PASSWORD_MEMORY_KIB_MAX: u32 = 256 * 1024;

/// Passes over that memory that a password's hash may take.
pub const PASSWORD_PASSES_MAX: u32 = 16;

/// Lanes that a password's hash may take.
pub const PASSWORD_LANES_MAX: u32 = 4;

/// Logins that may fail in a row from one address before it has to wait.
pub const LOGIN_FAILURES_MAX: u32 = 10;

/// Addresses of which a server remembers that logins failed.
pub const LOGIN_ADDRESSES_MAX: usize = 10_000;

/// Networks of which a server remembers that somebody has logged in from there.
pub const LOGIN_NETWORKS_MAX: usize = 4096;

/// Passwords that a server checks at once of networks from which somebody has logged in lately, and
/// as many of all others: each takes 19 MiB, or what its hash asks for.
pub const LOGINS_AT_ONCE_MAX: usize = 1;

/// Logins that wait for that, or have it: more are refused. Half of the places are for networks
/// from which somebody has logged in lately.
pub const LOGINS_WAITING_MAX: usize = 64;

/// Lines of the audit log in a second, but for what admins do and for logins that are right.
pub const AUDIT_LINES_MAX: u32 = 100;

/// Bytes of the body of a login.
pub const LOGIN_SIZE_MAX: usize = 16 * 1024;

/// Doctypes that are deployed on a server.
pub const DEPLOYED_DOCTYPES_MAX: usize = 4096;

/// Bytes of a doctype as JSON, with all that is escaped there.
pub const DOCTYPE_JSON_SIZE_MAX: usize = 2 * DOCTYPE_SIZE_MAX;

/// Bytes of an encoded doctype.
pub const DOCTYPE_SIZE_MAX: usize = 4 * 1024 * 1024;

/// Milliseconds within which a call of a tab settles, with a result or an error.
pub const CALL_SETTLES_MS: u64 = 10_000;

/// Milliseconds that a query may take in a core: all tabs of a site wait meanwhile.
pub const QUERY_MS_MAX: u64 = 5_000;

/// Pages that a page server's buffer pool keeps.
pub const STORE_POOL_PAGES_MAX: usize = 1024;

/// Pages that one storage entry may change: it is put together in memory. No document has more,
/// since whoever comes to it is sent all of it as one entry.
pub const ENTRY_PAGES_MAX: usize = 131_072;

/// Pages of a document that verdicts alone may fill, unless a test shrinks them.
const VERDICT_PAGES: usize = 1024;

/// Pages that one append may change in all its entries: what an owner may have sent ahead of it.
pub const APPEND_PAGES_MAX: usize = 2 * ENTRY_PAGES_MAX;

/// Bytes of appends that a page server keeps in memory before it writes them out.
pub const LOG_BUFFER_SIZE_MAX: usize = 4 * 1024 * 1024;

/// Bytes that a connection may say before it has said Hello.
pub const HELLO_SIZE_MAX: u64 = 16 * 1024;

/// Bytes of messages of one connection that wait for rooms before it is not read any further, not
/// counting the message that passes the bound.
pub const CONNECTION_IN_SIZE_MAX: usize = 4 * 1024 * 1024;

/// Bytes of a message that any connection to a server may say at any time, not counting the read
/// that passes the bound: more than whatever has an arbitrary size is cut into.
pub const SMALL_MESSAGE_SIZE_MAX: u64 = 384 * 1024;

/// Connections to a server that may be saying a longer one at once: others wait for their turn.
pub const LARGE_MESSAGES_MAX: usize = 16;

/// Bytes of longer messages that a server keeps of all connections, from when it begins to read
/// them until rooms have worked them off.
pub const LARGE_MESSAGES_SIZE_MAX: usize = 512 * 1024 * 1024;

/// Bytes of them that one room keeps.
pub const ROOM_LARGE_MESSAGES_SIZE_MAX: usize = 64 * 1024 * 1024;

/// Bytes of shorter messages that wait for one room beyond which it keeps none of those who have
/// gone. Of those who are there each connection has its own bound.
pub const ROOM_SMALL_WAITING_SIZE_MAX: usize = 4 * 1024 * 1024;

/// The same of those that wait for all rooms of a server. Beyond it, whoever has one among them is
/// not read any further.
pub const SMALL_WAITING_SIZE_MAX: u64 = 256 * 1024 * 1024;

/// Bytes that wait to be sent on one connection before it is not read any further.
pub const CONNECTION_OUT_SIZE_MAX: usize = 256 * 1024;

/// Bytes of storage entries that wait to be sent on one connection, or are read for it, not
/// counting those that nothing else waited before.
pub const CONNECTION_ENTRIES_SIZE_MAX: usize = 1024 * 1024;

/// Messages that one connection may say in a second, for long: one that says more is read slower.
pub const CONNECTION_MESSAGES_PER_S_MAX: u32 = 4_000;

/// Messages that it may say at once beside those: some for each document that it may have open.
pub const CONNECTION_MESSAGES_AHEAD_MAX: u32 = 8 * 1024;

/// Bytes of the transport's own that count as a message: what stands before each frame, and frames
/// that belong to none.
pub const CONNECTION_OVERHEAD_SIZE: u64 = 16;

/// Tokens that one connection may renew at once: more than a client has tabs that are asked.
pub const CONNECTION_RENEWALS_AHEAD_MAX: u32 = 16;

/// Milliseconds after which it may renew another one.
pub const CONNECTION_RENEWAL_MS: u64 = 1_000;

/// Bytes of what one who is present says of itself, as JSON.
pub const PRESENCE_STATE_SIZE_MAX: usize = 4096;

/// Others who are present with a document that each is told of: those who came first.
pub const PRESENCE_SEEN_MAX: usize = 100;

/// Open handles of one client that are present with a document.
pub const PRESENCE_ATTENDEES_MAX: usize = 64;

/// Open handles of one connection that are present with any document.
pub const CONNECTION_ATTENDEES_MAX: usize = 1024;

/// Milliseconds between two words on who is present, either way.
pub const PRESENCE_TICK_MS: u64 = 100;

/// Milliseconds after which a client says again that it is there.
pub const PRESENCE_SIGN_MS: u64 = 4_000;

/// Milliseconds of silence after which nobody of a client is present any more.
pub const PRESENCE_SILENT_MS: u64 = 12_000;

/// Bytes on who is present that one client is told of a document in a second.
pub const PRESENCE_RATE_SIZE_MAX: usize = 64 * 1024;

/// Bytes of one word on who is present, but for the last entry in it.
pub const PRESENCE_NEWS_SIZE_MAX: usize = 8 * 1024;

/// Words on who is present that a client is told before it says that it has heard some of them.
pub const PRESENCE_UNHEARD_MAX: usize = 8;

/// Bytes of them, but for the last one.
pub const PRESENCE_UNHEARD_SIZE_MAX: usize = 24 * 1024;

/// Words on who is present after which a client says that it has heard them.
pub const PRESENCE_HEARD_MAX: u32 = 4;

/// Bytes of such words after which it says so.
pub const PRESENCE_HEARD_SIZE_MAX: usize = 8 * 1024;

/// Bytes of all who are present with any document of a server, beyond which nobody else is.
pub const PRESENCE_KEPT_SIZE_MAX: u64 = 256 * 1024 * 1024;

/// Documents that one connection may have open.
pub const CONNECTION_CHANNELS_MAX: usize = 1024;

/// Connections to one server, unless its settings say otherwise.
pub const CONNECTIONS_MAX: usize = 100_000;

/// Those of one address among them that are not let in, but for this machine and for proxies that
/// are trusted: more are refused. Where there may be fewer connections in all it is a quarter of
/// them.
pub const HELLOS_OF_ADDRESS_MAX: usize = 1024;

/// Those of one subject among all of them: all who use an app may have one token. Where there may
/// be fewer connections in all it is half of them.
pub const CONNECTIONS_OF_SUBJECT_MAX: usize = 10_000;

/// Those who listen at one server to which documents have work.
pub const DUE_LISTENERS_MAX: usize = 128;

/// Those of one subject among them: all workers of an app may have one token.
pub const DUE_LISTENERS_OF_SUBJECT_MAX: usize = DUE_LISTENERS_MAX / 2;

/// Connections to one server that are no WebSocket, or not yet: others wait for their turn.
pub const VISITORS_MAX: usize = 1024;

/// Those of one address among them, but for this machine and for proxies that are trusted: more are
/// not let in. Where there may be fewer in all it is a quarter of them.
pub const VISITORS_OF_ADDRESS_MAX: usize = VISITORS_MAX / 4;

/// Bytes of a request's head.
pub const REQUEST_HEAD_SIZE_MAX: usize = 32 * 1024;

/// Bytes that a client says until TLS is agreed on, not counting the read that passes the bound.
pub const HANDSHAKE_SIZE_MAX: u64 = 16 * 1024;

/// Documents of one server that are exported at once, lists of all documents among them.
pub const EXPORTS_MAX: usize = 8;

/// Those of one subject among them, imports and trials of doctypes too: whoever takes them slowly
/// keeps nobody else from theirs.
pub const EXPORTS_OF_SUBJECT_MAX: usize = EXPORTS_MAX / 2;

/// Seconds for which a server tries a doctype on its documents before it says how far it has come.
pub const TRIAL_S_MAX: u64 = 20;

/// Documents of which it then says that they cannot be migrated.
pub const TRIAL_FAILURES_MAX: usize = 100;

/// Documents and doctypes of which a server logs that they cannot be migrated, until it starts
/// anew.
pub const FAILURES_LOGGED_MAX: usize = 1000;

/// Bytes of a SQLite file that becomes a document: as many as a document may have.
pub const IMPORT_SIZE_MAX: u64 = 512 * 1024 * 1024;
const _: () = assert!(IMPORT_SIZE_MAX == ENTRY_PAGES_MAX as u64 * PAGE_SIZE as u64);

/// Backups and checks of one server that are made at once, while it runs.
pub const BACKUPS_MAX: usize = 1;

/// Bytes that the log of a server may grow by while a backup is made, which is given up then.
pub const BACKUP_LOG_SIZE_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// Documents of one server that are open at once.
pub const ROOMS_MAX: usize = 50_000;

/// Timeline frames in one message.
pub const MESSAGE_FRAMES_MAX: usize = 128 * 1024;

/// Pages in one message, however they are coded: as many as fit into one whole.
pub const MESSAGE_PAGES_MAX: usize = MESSAGE_SIZE_MAX / PAGE_SIZE;

/// Doctypes under which one document may be used on a server.
pub const DOCTYPES_MAX: usize = 256;

/// Bytes that the schema of a doctype may take in each connection that has read it, by an estimate
/// that is the same on every host: see `Transaction::check_schema_size` of crate `sqlite`. A
/// connection that is opened takes no more than twice that, whatever the file says.
pub const SCHEMA_SIZE_MAX: usize = 8 * 1024 * 1024;

/// Pages that a connection reads to learn the schema, and with it what `ANALYZE` has left in
/// `sqlite_stat1`: a schema of [`SCHEMA_SIZE_MAX`] takes a quarter of them.
pub const SCHEMA_PAGES_MAX: usize = 4 * SCHEMA_SIZE_MAX / PAGE_SIZE;

/// Bytes of a literal in a schema that a doctype leaves behind, as of a view, a trigger, a default
/// or a check: long statements count it as often as they may look at it, whether they do or not.
pub const SCHEMA_LITERAL_SIZE_MAX: usize = 64 * 1024;

/// Bytes of all doctypes of a document: they stand in one frame of the log.
pub const DOCTYPES_SIZE_MAX: usize = 16 * 1024 * 1024;

/// Bytes of a store in IndexedDB, all of which are in memory too while it is open.
pub const BLOCK_STORE_SIZE_MAX: u64 = 256 * 1024 * 1024;

/// Bounds that a host hands to what it starts, so that a test may shrink them until each is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pages that a buffer pool keeps, unless a running transaction needs more.
    pub pool_pages_max: usize,
    /// The same of all documents of a core together, beside the one that was asked last.
    pub pools_pages_max: usize,
    /// Pages that one transaction may read before it fails.
    pub read_set_pages_max: usize,
    /// Pages fetched at most for one fault, unless a transaction has many of them.
    pub fault_pages_max: usize,
    /// Virtual machine steps of SQLite that one mutation, one query, or one statement of a
    /// migration may take. Bytes that SQLite allocates count too, and those that our own functions
    /// look at.
    ///
    /// SQLite looks at its budget where it jumps back, and not in a straight line, however long. So
    /// the largest value that a statement makes, is given or finds in the schema counts as often as
    /// a long one may look at it. What a short one may cost, of 256 operations of SQLite's, is not
    /// counted: some hundred looks at a value of 16 MiB take seconds. Nor is what SQLite's own
    /// functions and comparisons look at, round by round of a loop: there a clock ends a query, and
    /// on a server anything.
    pub statement_steps_max: u64,
    /// Pages that one mutation may change.
    pub mutation_pages_max: usize,
    /// Pages that mutations may make a document grow to.
    pub document_pages_max: usize,
    /// Pages beyond those that verdicts alone may fill, so that a full document can reject
    /// mutations.
    pub verdict_pages_max: usize,
    /// Bytes of the encoded rows that one query may answer with.
    pub rows_size_max: usize,
    /// Bytes of the undecided mutations of a document, not counting the one that passes the bound:
    /// with more of them nothing more is issued. Whoever opens a document has them all in memory,
    /// three times over for a while.
    pub undecided_size_max: usize,
    /// Undecided mutations that have a layer of their own; all others share one.
    pub layers_max: usize,
    /// Pages in the layers that undecided mutations have of their own, of what is shown and of a
    /// rebase under way each. A mutation that changes more than is left shares a layer.
    pub layer_pages_max: usize,
    /// Mutations that one LSN of the authority's may cause to be run again: with more of them over
    /// it, a rebase waits for more to come. So draining any number of them is linear work.
    pub runs_per_lsn: u64,
    /// What one slice of work may cost, not counting the piece of work that passes the bound.
    pub slice: BudgetLimits,
    /// Calls of a document that a core remembers, for tabs that ask again.
    pub calls_remembered_max: usize,
    /// Calls of storage entries that a document remembers when the log forgets the entries.
    pub calls_kept_max: usize,
    /// Rejections that a client keeps for a listener; the oldest go first.
    pub rejections_kept_max: usize,
    /// Bytes of the kept rejections without the newest: all are written anew with what is new of
    /// them, once for all that comes while they are being written.
    pub rejections_kept_size_max: usize,
    /// Rejections that it keeps after a listener has returned, for a tab that asks again.
    pub handled_rejections_kept_max: usize,
    /// Bytes that a tab was told and has not said that it heard, beyond which it is told nothing
    /// that it did not ask for. Far more than a tab hears before it says so.
    pub tab_unheard_size_max: usize,
    /// Pages of entries that a room has on their way to the disk before it runs no more, not
    /// counting the entry that passes the bound; each answer that waits with them counts as one.
    pub room_pages_in_flight_max: usize,
    /// Bytes that all rooms of a server together have on their way to the disk: beyond it a room
    /// runs no more until all of its own have got there.
    pub rooms_in_flight_size_max: u64,
    /// Bytes that all rooms of a server together keep in memory for their next messages, and for
    /// runs. Beyond that a room gives back after each step what it keeps, but not what a run has
    /// read that goes on; and of the runs that have read [much](Self::turnless_run_size_max) one
    /// at a time reads more. Beyond twice that any other run gives back what it has read, and
    /// begins anew in its turn.
    pub rooms_kept_size_max: u64,
    /// Bytes that were read for a run beyond which it waits for its turn to read more, where all
    /// rooms together keep more than they may.
    pub turnless_run_size_max: u64,
    /// Bytes that all rooms of a server together keep in memory of documents that are handed over.
    pub seeds_kept_size_max: u64,
    /// Pages that a room reads at once for a follower who lags, at first.
    pub catch_up_pages: usize,
    /// Pages that a room sends one follower at once, or reads for it, unless the one before is
    /// more: at most half of what a connection takes.
    pub catch_up_pages_max: usize,
    /// Pages of a document that is handed over which a client has on their way, beyond those that
    /// the server has taken.
    pub seed_pages_ahead_max: usize,
    /// Lives that a document's authority remembers of its storage journal; older ones are unknown.
    pub lives_kept_max: usize,
    /// Lives that a document's pages remember of each timeline that was applied to it, the same on
    /// every side: at most [`TIMELINE_LIVES_KEPT_MAX`]. Older ones are unknown.
    pub timeline_lives_kept_max: usize,
    /// Pages in one message on the wire: entries with more are read from the store, as those are
    /// that a follower lacks, and travel in parts.
    pub message_pages_max: usize,
    /// Pages in one message of an append to a page server: those of a larger one are sent ahead.
    pub append_part_pages_max: usize,
    /// Bytes of timeline frames in one message on the wire, unless it is a single one: what the
    /// server says to each shows that the line carries something.
    pub message_frames_size_max: usize,
    /// Bytes of timeline frames that are on their way to the server at once.
    pub frames_in_flight_size_max: usize,
    /// Storage entries that a follower may have been sent and not yet acknowledged.
    pub entries_in_flight_max: u64,
    /// Bytes of storage entries that a follower may have been sent and not yet received, not
    /// counting the entry that passes the bound.
    pub entries_in_flight_size_max: usize,
    /// Bytes of storage entries of a document that a client holds for the disk before it takes no
    /// more from the server, not counting those that were sent before it stopped.
    pub entries_unstored_size_max: usize,
    /// Bytes of storage entries that a client puts off until they can go to the disk with something
    /// that somebody waits for, not counting the entry that passes the bound. What a page that is
    /// closed has put off runs once more as the document is opened next.
    pub entries_put_off_size_max: usize,
    /// Pages that a page server reads for one owner before the next one has its turn.
    pub read_chunk_pages: usize,
    /// Reads that one owner of a page server may have outstanding.
    pub owner_reads_max: usize,
    /// Pages that an owner's outstanding reads may ask for in all. A single read may ask for more.
    pub owner_read_pages_max: usize,
    /// Appends of one owner of a page server that may wait to become durable.
    pub owner_appends_max: usize,
    /// Bytes of appends of one owner behind which no other begins to wait for its turn at a page
    /// server. A single append may have more.
    pub owner_waiting_size_max: usize,
    /// Pages in one frame of the log: entries with more take several.
    pub frame_pages_max: usize,
    /// Documents of one store: each costs memory for as long as it is there.
    pub documents_max: usize,
    /// How long a command's key counts once the command is over.
    pub command_key_ms: u64,
    /// How long a command is kept that has completed.
    pub command_completed_ms: u64,
    /// How long one is kept that has failed.
    pub command_failed_ms: u64,
}

impl Limits {
    /// The limits of the product; tests and simulated worlds shrink them.
    pub const DEFAULT: Self = Self {
        pool_pages_max: 8192,
        pools_pages_max: 32_768,
        read_set_pages_max: 32_768,
        fault_pages_max: 256,
        statement_steps_max: 40_000_000,
        mutation_pages_max: 16_384,
        document_pages_max: ENTRY_PAGES_MAX - VERDICT_PAGES,
        verdict_pages_max: VERDICT_PAGES,
        rows_size_max: 256 * 1024 * 1024,
        undecided_size_max: 64 * 1024 * 1024,
        layers_max: 1024,
        layer_pages_max: 8192,
        runs_per_lsn: 4,
        slice: BudgetLimits { pages: 1024, steps: 2_000_000, bytes: 1024 * 1024 },
        calls_remembered_max: 16 * 1024,
        calls_kept_max: 1024,
        rejections_kept_max: 4096,
        rejections_kept_size_max: 1024 * 1024,
        handled_rejections_kept_max: 64,
        tab_unheard_size_max: 1024 * 1024,
        room_pages_in_flight_max: 1024,
        rooms_in_flight_size_max: 256 * 1024 * 1024,
        rooms_kept_size_max: 256 * 1024 * 1024,
        turnless_run_size_max: 1024 * 1024,
        seeds_kept_size_max: 64 * 1024 * 1024,
        catch_up_pages: 64,
        catch_up_pages_max: 120,
        seed_pages_ahead_max: 256,
        lives_kept_max: OFFER_LIVES_MAX,
        timeline_lives_kept_max: TIMELINE_LIVES_KEPT_MAX,
        message_pages_max: 64,
        append_part_pages_max: 256,
        message_frames_size_max: 256 * 1024,
        frames_in_flight_size_max: 4 * 1024 * 1024,
        entries_in_flight_max: 1024,
        entries_in_flight_size_max: 8 * 1024 * 1024,
        entries_unstored_size_max: 16 * 1024 * 1024,
        entries_put_off_size_max: 64 * 1024,
        read_chunk_pages: 16,
        owner_reads_max: 1024,
        owner_read_pages_max: 256 * 1024,
        owner_appends_max: 64 * 1024,
        owner_waiting_size_max: 256 * 1024 * 1024,
        frame_pages_max: 256,
        documents_max: 100_000,
        command_key_ms: 24 * 60 * 60 * 1000,
        command_completed_ms: 7 * 24 * 60 * 60 * 1000,
        command_failed_ms: 30 * 24 * 60 * 60 * 1000,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
