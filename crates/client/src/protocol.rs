//! What tabs ask of the core, and what it tells them.
//!
//! One message on a tab's port is a list of these, encoded by `tidelog_sync::codec`: a tab hands
//! over together what was issued in one turn of its event loop, and so does the core. The
//! TypeScript side is `js/src/codec.ts`. The order of variants and fields is what travels: a tab
//! and a core of different releases never talk, since each release is a worker of its own name.

use serde::{Deserialize, Serialize};
use tidelog_document::{Completion, Doctype, InstanceId, TaskKind, WantedEvents};
use tidelog_sync::{Present, StateText};
#[cfg(doc)]
use tidelog_types::limits::{CONSUMER_NAME_SIZE_MAX, CONSUMERS_MAX, PRESENCE_STATE_SIZE_MAX};
use tidelog_types::{
    CallId, ClientId, EntryId, ErrorCode, Outcome, Params, Remedy, Role, Rows, Value,
};

/// A tab's number for one of its calls, from 1, never reused by that tab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Call(pub u32);

/// A tab's number for one of its opened documents, from 1, never reused by that tab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Handle(pub u32);

/// What a tab may say. Every `call` gets exactly one answer, but for those that say otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToCore {
    /// A request about an open document, or the one that opens it. Requests about one document are
    /// carried out in the order in which they were made, those of all tabs in one queue.
    Ask {
        /// The call.
        call: Call,
        /// The tab's number for the document; from `Request::Open` on.
        handle: Handle,
        /// What is asked.
        request: Request,
    },
    /// Stop a watch, wait no longer for what a query, a sync or an export answers, or begin no
    /// deletion any more. Not answered, nor need that be.
    GiveUp {
        /// The call that began it.
        call: Call,
    },
    /// Delete a local copy, or all of a user's: none of them while one is not to be. Answered by
    /// `Done` or `Failed`.
    Destroy {
        /// The call.
        call: Call,
        /// The document's id; `None` for the copies of all documents.
        document: Option<String>,
        /// Whose copy.
        user: String,
        /// Also with mutations pending.
        force: bool,
        /// All tabs that have one open are told to close it first, and waited for a while.
        everywhere: bool,
    },
    /// Stay away from the server, or go back to it. Holds for the document in all tabs. Not
    /// answered.
    SetConnected {
        /// Which document.
        handle: Handle,
        /// When that was said, and which: see [`Memo::word`].
        word: u64,
    },
    /// The tab has a listener for rejections: tell it those that are kept. Not answered.
    ListenRejections {
        /// Which document.
        handle: Handle,
    },
    /// A listener has returned for this rejection: it need not be kept. Not answered.
    RejectionHandled {
        /// Which document.
        handle: Handle,
        /// The call that was rejected.
        id: CallId,
    },
    /// The answer to `TokenWanted`. Not answered.
    Token {
        /// The number of the question.
        question: u64,
        /// The token, or `None` if the app could not give one.
        token: Option<String>,
    },
    /// What the window knows of the device. Not answered.
    Device {
        /// Whether the browser promised not to evict.
        persisted: bool,
        /// Bytes used by this origin.
        usage: u64,
        /// Bytes that it may use.
        quota: u64,
    },
    /// The tab is looked at again, or there is a network again: look after the servers. Not
    /// answered.
    Nudge,
    /// The tab has heard so many lists of messages more. Not answered.
    Heard {
        /// How many.
        lists: u32,
    },
    /// The tab wants to know who is present, and is so itself if it says how. Not answered.
    Presence {
        /// Which document.
        handle: Handle,
        /// What it says of itself, of at most [`PRESENCE_STATE_SIZE_MAX`] bytes; `None` if it is
        /// not present.
        state: Option<String>,
    },
}

/// A request about one document: the same value from the tab's message to where it is run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Open the document. Answered by `Opened` or `Failed`.
    Open(Box<OpenRequest>),
    /// Run a mutation. Answered by `Durable` or `Failed`, and then by `Confirmed` or `Rejected`.
    Mutate(Mutate),
    /// Run a query once. Answered by `Rows` or `Failed`.
    Query(Query),
    /// Run a query now and after every change that can affect it. Answered by `Rows` or `Failed`
    /// each time, until `GiveUp`.
    Watch(Query),
    /// Look for events that the authority has recorded. Answered by `Rows` once there are some, or
    /// by `Failed`; until then by nothing, as long as nobody gives up.
    Events(Events),
    /// Answered by `Done` when all that was pending has its verdict and all that the server had is
    /// visible; by `Failed` where trying again cannot help.
    Sync,
    /// Answered by `Exported` or `Failed`.
    Export,
    /// Let go of the document. Answered by `Done`.
    Close,
    /// Wait until a task is over. Answered by `Rows`: one row, with what the authority says of
    /// it, or none where it knows no such task any more; or by `Failed`. Until then by nothing,
    /// as long as nobody gives up.
    Outcome(CommandName),
    /// Handle tasks of these kinds. Answered by `Rows` or `Failed` each time, until `GiveUp`: all
    /// tasks that are given to this handler, and changed since.
    Handle(Handling),
    /// A handler has come to the end of an attempt. Answered by `Rows` once the authority has
    /// answered: one row, whose `answer` is `done`, `late` or `stale`, and `time` that of the
    /// authority, in milliseconds since the epoch.
    Complete(Complete),
    /// Read what a run remembers. Answered by `Rows` or `Failed`: records in their order, as many
    /// as go into an answer, and none at the end.
    Records(Records),
}

/// Which command; or, without a name, which run: by the names of its workflow, and its id twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandName {
    /// The aggregate's name.
    pub aggregate: String,
    /// Which of those.
    pub stream: String,
    /// The command's name.
    pub name: String,
    /// Its key.
    pub key: String,
}

/// What somebody handles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handling {
    /// Which tasks.
    pub kinds: Vec<TaskKind>,
    /// How many at a time.
    pub concurrency: u32,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complete {
    /// The call by which it handles them.
    pub handling: Call,
    /// Whom it was given to: who handles by that call may be another one by now, and have a task of
    /// the same number.
    pub instance: InstanceId,
    /// What came of it.
    pub completion: Completion,
}

/// Which records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// Of which run.
    pub task: u64,
    /// As of this attempt at least, which whoever asks was given: where the copy here was read anew
    /// since, it may not have come so far again.
    pub attempt: u64,
    /// Those behind that one.
    pub after: u64,
}

/// What a tab wants to open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenRequest {
    /// The document's id.
    pub document: String,
    /// Whose copy; empty for the device's.
    pub user: String,
    /// Address of the server, `ws://` or `wss://`; `None` for a local document.
    pub server: Option<String>,
    /// The doctype that the tab knows it by.
    pub doctype: Doctype,
    /// Whether the tab can be asked for a token.
    pub has_token: bool,
    /// [`Memo::word`], as an earlier core told it or the app has said it since; 0 at first.
    pub word: u64,
}

/// What a tab keeps of a document for the next core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memo {
    /// What apps have said of the server last: when, in half milliseconds since 1970 by the clock
    /// of the device, odd to stay away from it, even to go there; 0 for nothing. Of two words the
    /// higher one is the last, whichever tab it was said in, whatever that knew, and whichever
    /// comes first. Where the clock was set back, a tab counts on from the highest that it knows.
    pub word: u64,
    /// The copy that is on the disk. What is handed over from now on is recorded in it, or not at
    /// all.
    pub copy: Option<ClientId>,
    /// Where the journal that is written now ends on the disk, of no life: what is handed over from
    /// now on is recorded there or behind it. What was counted and is not on the disk may be taken
    /// back, and its LSNs given to others.
    pub head: Option<EntryId>,
}

/// A mutation as its tab issues it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mutate {
    /// The call's name in the journal.
    pub id: CallId,
    /// Which mutation.
    pub name: String,
    /// Its arguments.
    pub args: Vec<(String, Value)>,
    /// When it was issued, milliseconds since the epoch.
    pub now_ms: u64,
    /// Set if an earlier core was asked already.
    pub again: Option<Again>,
}

/// What a tab knows of a mutation that it asks anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// What it was told is durable.
    pub durable: Option<EntryId>,
    /// [`Memo::copy`] when it was handed over first.
    pub copy: Option<ClientId>,
    /// No entry before these can be its own: [`Memo::head`] when it was handed over first, and the
    /// entry of a call that the tab made before it.
    pub since: [Option<EntryId>; 2],
}

/// One statement that reads, and its parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Query {
    /// The statement.
    pub sql: String,
    /// Its parameters.
    pub params: Params,
}

/// Which events a tab wants, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// Which.
    pub wanted: WantedEvents,
    /// Whether it waits where there are none yet: if not, `Rows` of none are the answer.
    pub waits: bool,
    /// For whom they are, if this copy is to keep how far that has come.
    pub consumer: Option<Consumer>,
}

/// Who goes on with the events where it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumer {
    /// Its name, of at most [`CONSUMER_NAME_SIZE_MAX`] bytes; one of [`CONSUMERS_MAX`].
    pub name: String,
    /// Whether it wants those behind what is kept of it, if that is behind what it says. If not, it
    /// has dealt with all that is not behind what it says, and that is kept.
    pub begins: bool,
}

/// What the core tells a tab.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromCore {
    /// The document is open.
    Opened {
        /// The call.
        call: Call,
        /// How it stands.
        status: Status,
        /// For the next core.
        memo: Memo,
    },
    /// The call failed.
    Failed {
        /// The call.
        call: Call,
        /// Why.
        failure: CallFailure,
    },
    /// The mutation is on this device's disk.
    Durable {
        /// The call.
        call: Call,
        /// Its entry in the timeline (in the storage journal of a local document).
        entry: EntryId,
    },
    /// The mutation was applied by the authority.
    Confirmed {
        /// The call.
        call: Call,
        /// Its entry, as in `Durable`: on another port that may still be on its way.
        entry: EntryId,
        /// The first storage LSN at which this device saw it.
        lsn: u64,
    },
    /// The mutation was rejected by the server.
    Rejected {
        /// The call.
        call: Call,
        /// Its entry, as in `Durable`: on another port that may still be on its way.
        entry: EntryId,
        /// Why, with `mutation` and `reason`.
        failure: CallFailure,
    },
    /// The answer to a query, or news of a watch.
    Rows {
        /// The call.
        call: Call,
        /// The rows.
        rows: Rows,
    },
    /// A SQLite file.
    Exported {
        /// The call.
        call: Call,
        /// Its bytes.
        #[serde(with = "serde_bytes")]
        file: Vec<u8>,
    },
    /// It is done.
    Done {
        /// The call.
        call: Call,
    },
    /// The server takes in the local document that an `Open` offers it, or that it waits for, which
    /// takes as long as the line needs: an answer follows, or this again, within a minute.
    HandingOver {
        /// The call.
        call: Call,
    },
    /// How a document stands now.
    Status {
        /// Which document.
        handle: Handle,
        /// How it stands.
        status: Status,
        /// For the next core.
        memo: Memo,
    },
    /// A mutation of this client was rejected by the server.
    RejectionNews {
        /// Which document.
        handle: Handle,
        /// The call that issued it, to tell repeats.
        id: CallId,
        /// Which mutation.
        mutation: String,
        /// Its arguments.
        args: Vec<(String, Value)>,
        /// Why.
        reason: String,
        /// Its timeline LSN.
        lsn: u64,
    },
    /// The server wants to know who this is.
    TokenWanted {
        /// Which document.
        handle: Handle,
        /// The number of this question, which its answer names: other cores ask by others. Below
        /// 2^53, since tabs count in JavaScript.
        question: u64,
    },
    /// A tab deletes the copy in all tabs: the document is to be closed. Said once.
    CloseWanted {
        /// Which document.
        handle: Handle,
    },
    /// Who is present.
    Presence {
        /// Which document.
        handle: Handle,
        /// How many, seen or not, whoever is told included.
        count: u32,
        /// The keys of all others who are seen from now on; `None` if they are those of before.
        keys: Option<Vec<u64>>,
        /// Those of them of whom there is something new.
        others: Vec<Other>,
    },
}

/// Somebody else who is present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// Its number: who came later has a higher one.
    pub key: u64,
    /// The subject of its token, if any, and its client; `None` if that was told before.
    pub who: Option<(Option<String>, ClientId)>,
    /// What it says of itself.
    pub state: StateText,
}

impl From<&Present> for Other {
    fn from(Present { key, who, state }: &Present) -> Self {
        let who = who.as_ref().map(|who| (who.user.clone(), who.client));
        Self { key: *key, who, state: state.clone() }
    }
}

impl FromCore {
    /// The call that it answers; `None` for news of a document.
    #[must_use]
    pub fn call(&self) -> Option<Call> {
        match self {
            Self::Opened { call, .. }
            | Self::Failed { call, .. }
            | Self::Rejected { call, .. }
            | Self::Durable { call, .. }
            | Self::Confirmed { call, .. }
            | Self::Rows { call, .. }
            | Self::Exported { call, .. }
            | Self::Done { call }
            | Self::HandingOver { call } => Some(*call),
            Self::Status { .. }
            | Self::RejectionNews { .. }
            | Self::TokenWanted { .. }
            | Self::CloseWanted { .. }
            | Self::Presence { .. } => None,
        }
    }
}

/// About how many bytes the arguments of a mutation take.
pub(crate) fn size_of_args(args: &[(String, Value)]) -> usize {
    let size = |value: &Value| match value {
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
        _ => 8,
    };
    args.iter().map(|(name, value)| name.len() + size(value) + 32).sum()
}

/// A failure as a tab is told of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallFailure {
    /// Its class.
    pub code: ErrorCode,
    /// Whether the call left something behind.
    pub outcome: Outcome,
    /// What happened and what the caller can do, for a person.
    pub message: String,
    /// Which mutation, where one was rejected.
    pub mutation: Option<String>,
    /// The reason given, where one was rejected.
    pub reason: Option<String>,
    /// What helps: as a rule what its code says.
    #[serde(skip)]
    pub remedy: Remedy,
}

/// How a document stands, for `db.status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The way to the server.
    pub connection: Connection,
    /// Whether the app stays away from the server: so did the last tab want it that said anything.
    pub away: bool,
    /// What is wrong, while it lasts.
    pub error: Option<CallFailure>,
    /// Mutations without a verdict.
    pub pending: u64,
    /// The storage LSN up to which this device has seen the server's verdicts; 0 before the first.
    pub confirmed_lsn: u64,
    /// What keeps the data.
    pub storage: Storage,
    /// Whether a power cut could still lose the files themselves.
    pub settling: bool,
    /// Whether the browser promised not to evict.
    pub persisted: bool,
    /// Bytes used by this origin.
    pub usage: u64,
    /// Bytes that it may use.
    pub quota: u64,
    /// The timeline's LSNs: it starts here; everything before these is acked, durable, issued.
    pub timeline: [u64; 4],
    /// The storage journal's: everything before these is durable here, visible here.
    pub storage_lsns: [u64; 2],
    /// Whether this copy has ever had all that its server had; always of a local document.
    pub synced: bool,
    /// Whether a newer release than that of who is told this has migrated the document.
    pub newer_elsewhere: bool,
    /// What the server has said last that the token allows with the document; `None` of a local
    /// one, and where it has said nothing or allows nothing.
    pub access: Option<Role>,
}

/// The way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Connection {
    /// There is no server.
    Local,
    /// On the way.
    Connecting,
    /// There.
    Online,
    /// Not there; tried again by itself, unless told to stay away.
    Offline,
}

/// What keeps the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Storage {
    /// Files of the origin private file system.
    Opfs,
    /// IndexedDB.
    IndexedDb,
    /// Memory only.
    Memory,
    /// No page server at the moment.
    Waiting,
}
