//! What the owners of documents ask of a page server, and what it answers.
//!
//! Owners are the core in a browser (one, for all its documents) and the rooms of a server (one a
//! document). Requests of one owner are carried out in the order in which they were made. All
//! that is to last goes through [`StoreRequest::Append`]; an owner keeps each append until it is
//! told that its ticket is durable, and hands it over again to the next page server if this one
//! goes away. The page server skips what it finds in its log already, so handing over twice is
//! harmless: entries are known by their places, and an append that puts something in the place of
//! something else by its owner's life and its ticket, which lie in the log with it.

use serde::{Deserialize, Serialize};
use tidelog_types::limits::ENTRY_PAGES_MAX;
use tidelog_types::{
    CallId, DocumentKey, Epoch, JournalId, Life, Lsn, LsnRange, Page, PageSet, Pgid, Position,
    UnservedKind,
};

/// An owner's number for one of its appends; counts up from 1 and is never reused by that owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ticket(pub u64);

/// An owner's number for a read, or for whatever else it asks without writing; it comes back with
/// the reply. An owner may use any but [`OPENING`](Self::OPENING).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

impl RequestId {
    /// What is told of a document that was to be opened.
    pub const OPENING: Self = Self(0);
}

/// An append, wherever it is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AppendId {
    /// Whose.
    pub life: Life,
    pub ticket: Ticket,
}

/// Who waits for the answer to a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Urgency {
    /// Somebody does: it goes first.
    User,
    /// Nobody does. It gets a small part of the time while somebody waits for something else.
    Background,
}

/// What an owner may ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StoreRequest {
    /// Fences: the first request of every owner that replaces another one (a core; rooms share
    /// their server's epoch and need not ask). Answered by [`StoreReply::Ready`]. From then on
    /// nothing of an earlier owner is accepted.
    Hello {
        /// The last epoch that this owner was granted, or 0. The page server grants a higher one
        /// than it ever did; a store that nobody ever held grants nothing to who has held one, and
        /// answers with the same epoch: that store is not this one.
        epoch: Epoch,
        /// Who counts the tickets, the same at each page server; [`Life::NONE`] for an owner that
        /// hands nothing over again.
        life: Life,
    },
    /// Where does this document stand? Answered by [`StoreReply::Opened`]. Creates nothing.
    Open {
        /// Which document.
        document: DocumentKey,
    },
    /// Make this durable, all of it or nothing. Answered by [`StoreReply::Durable`] for this
    /// ticket or a later one, or by [`StoreReply::AppendFailed`].
    Append {
        /// The owner's number for it.
        ticket: Ticket,
        /// What is to last.
        append: Append,
    },
    /// Pages of an append that follows, which is too large for one message. Nothing is begun
    /// before the append itself has come. Not answered: if they are too many, or another append
    /// of the owner comes between, the append fails.
    /// [`StoreRequest::into_parts`] makes them.
    Stage {
        /// The number of that append.
        ticket: Ticket,
        /// Some of its pages.
        pages: Vec<StagedPage>,
    },
    /// The newest versions of these pages of the storage journal, whether durable or not.
    /// Answered by one or more [`StoreReply::Pages`], or by [`StoreReply::Busy`]. No read of a
    /// document is answered from a failed append on until the document is opened again: its asker
    /// is about to hear that what it builds on was taken back.
    Read {
        /// Echoed in the reply.
        request: RequestId,
        /// Who waits for it.
        urgency: Urgency,
        /// Which document.
        document: DocumentKey,
        /// Which pages, ascending.
        pgids: Vec<Pgid>,
    },
    /// What does a follower lack that holds everything of this storage journal before `since`? The
    /// pages whose newest version is at or after that: a compaction, one entry for all LSNs from
    /// there to the head. Answered by one or more [`StoreReply::SyncPart`], by
    /// [`StoreReply::Unrelated`] or by [`StoreReply::Busy`].
    ///
    /// Whoever cannot take all of it at once asks for some pages at a time. What changes between
    /// two such requests is then in one of them or in neither: it has a later LSN, and is asked for
    /// by a `since` of where the journal stood at the first of them.
    ///
    /// The follower's part before it is its `sync_request`, which says what it holds, and the one
    /// after it is `sync_receive` (crate `document`).
    SyncPrepare {
        /// Echoed in the reply.
        request: RequestId,
        /// Who waits for it.
        urgency: Urgency,
        /// Which document.
        document: DocumentKey,
        /// The storage journal that the follower holds.
        journal: JournalId,
        /// The follower's next LSN.
        since: Lsn,
        /// The first page that is wanted.
        from: Pgid,
        /// How many pages at most.
        pages_max: u32,
    },
    /// Forget the document. Answered like an append.
    Destroy {
        /// The owner's number for it.
        ticket: Ticket,
        /// Which document.
        document: DocumentKey,
    },
    /// The names of all documents. Answered by [`StoreReply::Documents`].
    List {
        /// Echoed in the reply.
        request: RequestId,
    },
    /// The same as [`Read`](Self::Read) as of an LSN: the pages as they were when this storage
    /// journal stood there. So one page is got out of an entry without reading the entry. Answered
    /// by [`StoreReply::Pages`], [`StoreReply::Trimmed`] or [`StoreReply::Busy`].
    ReadAt {
        /// Echoed in the reply.
        request: RequestId,
        /// Who waits for it.
        urgency: Urgency,
        /// Which document.
        document: DocumentKey,
        /// Which pages, ascending.
        pgids: Vec<Pgid>,
        /// Which storage journal.
        journal: JournalId,
        /// The LSN that was next then.
        at: Lsn,
    },
    /// The next entries of a journal from a cursor on. Answered by one or more
    /// [`StoreReply::Entries`] if it is a storage journal, by one or more [`StoreReply::Frames`]
    /// if it is a timeline, by [`StoreReply::Trimmed`] or by [`StoreReply::Busy`].
    Entries {
        /// Echoed in the reply.
        request: RequestId,
        /// Who waits for it.
        urgency: Urgency,
        /// Which document.
        document: DocumentKey,
        /// From where, and which way.
        cursor: Cursor,
        /// How many at most.
        count: u32,
    },
}

/// A reader's place in a journal, and the way that it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Which journal of the document: its storage journal or its timeline.
    pub journal: JournalId,
    /// Between two entries: the LSN that the later one begins with.
    pub at: Lsn,
    /// Which of the two is next.
    pub direction: Direction,
}

/// Which way a cursor goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// To later entries, up to the head.
    Forwards,
    /// To earlier ones, up to where the journal was trimmed: the latest comes first.
    Backwards,
}

/// Changes to one document that become durable together or not at all.
///
/// A document exists in a store from its first append on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Append {
    /// Which document.
    pub document: DocumentKey,
    /// The owner's own notes about the document, replacing the earlier ones; opaque here.
    pub record: Option<serde_bytes::ByteBuf>,
    /// Begin this timeline journal, empty at this LSN, in place of any other one.
    pub begin_timeline: Option<(JournalId, Lsn)>,
    /// Which timeline the next two are about; the current one, if none is named.
    pub timeline_id: Option<JournalId>,
    /// Frames for the end of the timeline, in order.
    pub timeline: Vec<TimelineFrame>,
    /// Forget the timeline's entries before this LSN.
    pub trim_timeline: Option<Lsn>,
    /// Begin this storage journal, in place of any other one: its pages are forgotten.
    pub begin_storage: Option<JournalId>,
    /// Begin it though it is here: the document is taken anew, of another history.
    pub is_anew: bool,
    /// Entries for the end of the storage journal, in order.
    pub storage: Vec<StorageEntry>,
    /// The last of them is not whole: the next storage entry goes on with it, of the same LSNs, and
    /// until one has ended it, the storage journal stands where it stood. Its pages can be read.
    pub is_cut: bool,
    /// In the end the document has this name, in place of the one that has it now.
    pub take_name: Option<DocumentKey>,
}

impl Append {
    /// An append that changes nothing of `document` yet.
    #[must_use]
    pub fn to(document: DocumentKey) -> Self {
        Self {
            document,
            record: None,
            begin_timeline: None,
            timeline_id: None,
            timeline: Vec::new(),
            trim_timeline: None,
            begin_storage: None,
            is_anew: false,
            storage: Vec::new(),
            is_cut: false,
            take_name: None,
        }
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self {
            document: _,
            record: None,
            begin_timeline: None,
            timeline_id: None,
            timeline,
            trim_timeline: None,
            begin_storage: None,
            is_anew: false,
            storage,
            is_cut: false,
            take_name: None,
        } = self
        else {
            return false;
        };
        timeline.is_empty() && storage.is_empty()
    }

    /// Whether it does no more than take in what is held elsewhere too: entries for the end of a
    /// storage journal, and the trim that goes with them. So it can wait.
    #[must_use]
    pub fn only_follows(&self) -> bool {
        let Self {
            document: _,
            record: None,
            begin_timeline: None,
            timeline_id: _,
            timeline,
            trim_timeline: _,
            begin_storage: None,
            is_anew: false,
            storage: _,
            is_cut: false,
            take_name: None,
        } = self
        else {
            return false;
        };
        timeline.is_empty()
    }

    /// The names of its document, before and in the end: what comes behind it of either builds on
    /// it.
    pub(crate) fn names(&self) -> Vec<DocumentKey> {
        [&self.document].into_iter().chain(&self.take_name).cloned().collect()
    }
}

/// One entry of a timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineFrame {
    /// Its place; the timeline's head, or before it when it is handed over again.
    pub lsn: Lsn,
    /// The call that issued it.
    pub call: CallId,
    /// The mutation, opaque here.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

/// One entry of a storage journal: the pages that a range of its LSNs changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StorageEntry {
    /// The LSNs that it stands for; starts at the journal's head, or before it when handed over
    /// again.
    pub range: LsnRange,
    /// Where the journal stands after it: `next` is the range's end.
    pub position: Position,
    /// The calls that it carries out, each with its own LSN, where this side is the authority and
    /// tabs called.
    pub calls: Vec<(CallId, Lsn)>,
    /// What changed.
    #[serde(with = "crate::hashed::page_set")]
    pub set: PageSet,
}

/// A page of an append, sent ahead of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StagedPage {
    /// Which of the append's storage entries it belongs to, from 0.
    pub entry: u32,
    /// Which page.
    pub pgid: Pgid,
    /// The page.
    #[serde(with = "crate::hashed::page")]
    pub page: Page,
}

/// What a page server answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StoreReply {
    /// The store is open under this epoch, and all earlier owners are fenced off.
    Ready {
        /// The epoch granted, durable.
        epoch: Epoch,
    },
    /// Where a document stands.
    Opened {
        /// Which document.
        document: DocumentKey,
        /// The life under which the store is open, for owners that have none of their own.
        life: Life,
        /// `None` if the store has never heard of it.
        state: Option<Box<OpenedDocument>>,
    },
    /// Everything up to this ticket survives a power cut.
    Durable {
        /// The highest such ticket of this owner.
        ticket: Ticket,
    },
    /// This append left nothing behind; later ones of the same document, by its name or by the one
    /// that it was to take, are refused as well until the document of that name is opened anew. Its
    /// owner does so once every older append is answered: this answer may overtake theirs.
    AppendFailed {
        /// Which append.
        ticket: Ticket,
        /// Why.
        error: AppendError,
    },
    /// Pages that were asked for.
    Pages {
        /// The request's number.
        request: RequestId,
        /// Which document.
        document: DocumentKey,
        /// The pages that are here. One that is past the end or absent is not listed.
        pages: Vec<(Pgid, Page)>,
        /// Whether the request is answered in full.
        last: bool,
    },
    /// A part of what a follower lacks, in the order of the pages. All parts together make one
    /// entry for all LSNs from the follower's up to `position`.
    SyncPart {
        /// The request's number.
        request: RequestId,
        /// Which document.
        document: DocumentKey,
        /// Where the storage journal stood when this was asked.
        position: Position,
        /// Size of the database then, in pages.
        db_pages: u32,
        /// Some of the pages, each in one part only.
        pages: Vec<(Pgid, Page)>,
        /// The first page that was left out, since no more were asked for.
        next: Option<Pgid>,
        /// Whether that is all that was asked for.
        last: bool,
    },
    /// Nothing here follows on what the follower says it holds: this is another storage journal,
    /// or it never came that far.
    Unrelated {
        /// The request's number.
        request: RequestId,
        /// Which document.
        document: DocumentKey,
        /// Where the storage journal stands. `None`: no such document or storage journal.
        position: Option<Position>,
    },
    /// Storage entries that were asked for.
    Entries {
        /// The request's number.
        request: RequestId,
        /// Which document.
        document: DocumentKey,
        /// The entries in the order of the cursor, as they were appended; one of many pages comes
        /// in parts, each with some of them.
        entries: Vec<StorageEntry>,
        /// Whether the last of these goes on in the next reply.
        is_cut: bool,
        /// Whether the request is answered in full.
        last: bool,
    },
    /// Timeline entries that were asked for.
    Frames {
        /// The request's number.
        request: RequestId,
        /// Which document.
        document: DocumentKey,
        /// The entries in the order of the cursor, as they were appended.
        frames: Vec<TimelineFrame>,
        /// Whether the request is answered in full.
        last: bool,
    },
    /// The log does not have what was asked for: it was trimmed, or is not there yet, or the LSN
    /// is amid those that one entry stands for, or of that entry the log has only the end.
    /// [`StoreRequest::SyncPrepare`] answers for any LSN of a storage journal.
    Trimmed {
        /// The request's number.
        request: RequestId,
        /// Which document.
        document: DocumentKey,
        /// The LSNs that the log has entries of that journal for. `None`: no such document or
        /// journal.
        history: Option<LsnRange>,
    },
    /// The request ends here: something that it is about is no longer what was written, and can
    /// never be had again. What else was asked for may have been told before. Nothing but this
    /// document is concerned. A document whose timeline is damaged cannot be opened.
    Damaged {
        /// The request's number, or [`RequestId::OPENING`].
        request: RequestId,
        /// Which document.
        document: DocumentKey,
        /// The pages that are damaged, of those that were asked for or needed for the answer.
        pgids: Vec<Pgid>,
    },
    /// This read was not taken in: its owner has as much outstanding as it may
    /// ([`Limits::owner_reads_max`], [`Limits::owner_read_pages_max`]). Ask again when one of the
    /// others has ended: [`StoreReply::ends_a_read`].
    ///
    /// [`Limits::owner_reads_max`]: tidelog_types::limits::Limits::owner_reads_max
    /// [`Limits::owner_read_pages_max`]: tidelog_types::limits::Limits::owner_read_pages_max
    Busy {
        /// The request's number.
        request: RequestId,
        /// Which document.
        document: DocumentKey,
    },
    /// All documents of the store, in the order of their names.
    Documents {
        /// The request's number.
        request: RequestId,
        /// Their names.
        documents: Vec<DocumentKey>,
    },
    /// The page server cannot go on: nothing more will be answered, and the store has to be
    /// opened anew. Nothing that was called durable is lost.
    Broken {
        /// Why.
        error: AppendError,
    },
}

impl StoreReply {
    /// Whether something that was outstanding has ended with this, an opening too: there may be
    /// room for what was [`Busy`](Self::Busy).
    #[must_use]
    pub fn ends_a_read(&self) -> bool {
        match self {
            Self::Opened { .. }
            | Self::Unrelated { .. }
            | Self::Trimmed { .. }
            | Self::Damaged { .. } => true,
            Self::Pages { last, .. }
            | Self::SyncPart { last, .. }
            | Self::Entries { last, .. }
            | Self::Frames { last, .. } => *last,
            Self::Ready { .. }
            | Self::Durable { .. }
            | Self::AppendFailed { .. }
            | Self::Busy { .. }
            | Self::Documents { .. }
            | Self::Broken { .. } => false,
        }
    }
}

/// Where a document stood when it was opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenedDocument {
    /// The owner's notes.
    #[serde(with = "serde_bytes")]
    pub record: Vec<u8>,
    /// Its timeline, if one was begun.
    pub timeline: Option<TimelineState>,
    /// Where its storage journal stands, if one was begun.
    pub storage: Option<Position>,
    /// Size of the database at that position, in pages.
    pub db_pages: u32,
    /// The latest calls that are recorded and not in `timeline`: those of storage entries with
    /// their storage LSNs, those of trimmed timeline entries with their timeline LSNs.
    pub calls: Vec<(CallId, Lsn)>,
    /// Page 1, if it is here, since nobody can do without it.
    pub first_page: Option<Page>,
    /// The store is damaged, and something of this document is lost, or nothing proves that it is
    /// not: all of this, and the pages, is as it was at some time before. Pages may be missing.
    pub is_incomplete: bool,
}

/// A timeline as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineState {
    /// Its id.
    pub journal: JournalId,
    /// Its entries: trimmed before the start, head at the end.
    pub range: LsnRange,
    /// The entries themselves.
    pub frames: Vec<TimelineFrame>,
}

/// Why an append failed. In every case this page server has recorded nothing of it; what an earlier
/// one was handed too may be recorded where it is [`Fenced`](Self::Fenced) or [`Busy`](Self::Busy),
/// which are said before the store is looked at, or [`Damaged`](Self::Damaged), where it may be
/// among what is lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AppendError {
    /// The device has no more room.
    #[error("the device is full")]
    Full,
    /// Too many appends of this owner wait for the device, or too much for its turn.
    #[error("too many appends are not durable yet")]
    Busy,
    /// A newer owner took over.
    #[error("fenced off by epoch {current}")]
    Fenced {
        /// The epoch that holds the store.
        current: Epoch,
    },
    /// A storage entry is over its limit, [`ENTRY_PAGES_MAX`].
    #[error("an entry of {pages} pages, and {ENTRY_PAGES_MAX} are allowed")]
    EntryTooLarge {
        /// How many pages it changes.
        pages: usize,
    },
    /// It would begin a document, and there are as many as may be ([`Limits::documents_max`]).
    ///
    /// [`Limits::documents_max`]: tidelog_types::limits::Limits::documents_max
    #[error("there are {documents_max} documents, and no more may be")]
    TooManyDocuments {
        /// How many may be.
        documents_max: usize,
    },
    /// It does not start at the journal's head, or a part of it is over its limit.
    #[error("append out of place: {reason}")]
    OutOfPlace {
        /// What was wrong with it.
        reason: String,
    },
    /// Durable bytes of the store have changed: what is left can be read, and nothing is written.
    #[error("the store is damaged: it can be read, and not be written")]
    Damaged,
    /// The device failed, or the files are gone.
    #[error("the device failed: {reason}")]
    Device {
        /// What it said.
        reason: String,
    },
}
impl AppendError {
    /// Why a page server cannot go on that [broke](StoreReply::Broken) of this. The next one looks
    /// whether anything is damaged.
    #[must_use]
    pub fn why_unserved(&self) -> UnservedKind {
        match self {
            Self::Full => UnservedKind::Full,
            _ => UnservedKind::Unavailable,
        }
    }
}
