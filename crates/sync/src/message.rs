//! The messages between client and server; `envelope.rs` says how they become bytes.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidelog_types::limits::{INSTANCE_KINDS_MAX, MESSAGE_FRAMES_MAX, MESSAGE_PAGES_MAX, PAGE_SIZE};
use tidelog_types::{
    CallId, ClientId, Coding, CopySecret, EntryHash, EntryId, JournalId, Life, Lineage, Lsn,
    LsnRange, Page, Pgid, Position, Role, coded, difference_of_all,
};

use crate::archive::{ArchiveAnswer, ArchiveQuestion};
use crate::presence::{PresenceNews, PresenceWord};

/// The client's number for a document on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Channel(pub u32);

/// The client's number for a question about a document; echoed in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProbeId(pub u32);

/// What a client says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToServer {
    /// The first message of a connection.
    Hello {
        /// The client's name for logs and histories; no credential.
        client: ClientId,
        /// The client's credential; absent on a development server.
        token: Option<String>,
    },
    /// A sign of life is asked for. Answered by [`FromServer::Pong`].
    Ping,
    /// A message about one document.
    About {
        /// The document's channel.
        channel: Channel,
        /// The message.
        body: ToRoom,
    },
    /// A later token of the same subject, which takes the place of the one before. Answered by
    /// [`FromServer::Admitted`] or [`FromServer::NotRenewed`].
    Renew {
        /// The client's credential.
        token: String,
    },
}

/// What a client says of a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToRoom {
    /// Follow this document under the channel's number.
    Open {
        /// The document's id.
        document: String,
        /// The doctype that the client knows it by.
        doctype: OpenDoctype,
        /// The timeline that its frames will come from.
        timeline: JournalId,
        /// The secret of the client's copy: frames are of the [client](tidelog_types::ClientId)
        /// that it hashes to.
        secret: CopySecret,
        /// What the client holds of the storage journal; `None` if nothing.
        have: Option<Position>,
        /// What the client wants of the document.
        intent: Intent,
    },
    /// Timeline frames `first..first + frames.len()`, durable at the client.
    Frames {
        /// The life that wrote the frames, a secret of the client and its server. Frames of two
        /// lives travel in two messages.
        life: Life,
        /// LSN of the first frame.
        first: Lsn,
        /// The frames, at most [`MESSAGE_FRAMES_MAX`].
        #[serde(deserialize_with = "frames")]
        frames: Vec<WireFrame>,
    },
    /// Pages of a local document that is to become the server's.
    Seed {
        /// Where the client's storage journal stands.
        position: Position,
        /// Size of the database in pages.
        db_pages: u32,
        /// Some of its pages, at most [`MESSAGE_PAGES_MAX`], by themselves.
        #[serde(deserialize_with = "pages")]
        pages: Vec<CodedPage>,
        /// Whether these are the last pages of the document.
        last: bool,
    },
    /// The client holds all storage entries before `next`.
    Received {
        /// The first LSN that it lacks.
        next: Lsn,
    },
    /// A question for the end of the storage journal. Answered by [`FromRoom::Probed`].
    Probe {
        /// Echoed in the answer.
        probe: ProbeId,
    },
    /// The client follows the document no longer.
    Close,
    /// Who of the client is present, and how. Not answered.
    Presence(PresenceWord),
    /// Somebody at the client handles tasks. Answered by [`FromRoom::Registered`] or
    /// [`FromRoom::NotRegistered`].
    Register {
        /// The client's number for it, on this channel.
        tag: u32,
        /// The number that it had, if it was registered before; 0 if not.
        instance: u64,
        /// What it handles, commands by aggregate and name, workflows by name and version: at most
        /// [`INSTANCE_KINDS_MAX`].
        #[serde(deserialize_with = "kinds")]
        kinds: Vec<(String, String)>,
        /// How many at a time.
        concurrency: u32,
    },
    /// That one handles none any longer. Not answered.
    Deregister {
        /// The client's number for it.
        tag: u32,
    },
    /// An attempt at a task has come to an end, or so far. Answered by [`FromRoom::Completed`].
    Complete {
        /// The client's number for who has made it.
        tag: u32,
        /// The client's number for what it says, whenever it is said: echoed in the answer.
        number: u32,
        /// What came of it, encoded.
        #[serde(with = "serde_bytes")]
        completion: Vec<u8>,
    },
    /// Which events has the archive of the document? Answered by [`FromRoom::Archived`].
    Archived(ArchiveQuestion),
}

impl ToServer {
    /// About how many bytes what it lists takes in memory, beside the bytes of texts and pages: of
    /// small things that is many times what they take in the message.
    #[must_use]
    pub fn listed_size(&self) -> usize {
        /// With what an allocator adds.
        const TEXT_SIZE: usize = size_of::<String>() + 32;
        let Self::About { body, .. } = self else { return 0 };
        match body {
            ToRoom::Register { kinds, .. } => 2 * kinds.len() * TEXT_SIZE,
            ToRoom::Archived(question) => question.types.len() * TEXT_SIZE,
            ToRoom::Presence(word) => word.changes.len() * TEXT_SIZE,
            ToRoom::Seed { pages, .. } => pages.len() * size_of::<CodedPage>(),
            ToRoom::Frames { frames, .. } => frames.len() * size_of::<WireFrame>(),
            _ => 0,
        }
    }
}

/// What the authority makes of a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompletionAnswer {
    /// It is written down, one way or another, on the server's disk.
    Done,
    /// That attempt counts no longer, or never did.
    Late,
    /// Others have recorded events of that stream meanwhile: to be decided anew.
    Stale,
}

fn kinds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
    deserializer.deserialize_seq(Bounded::new(INSTANCE_KINDS_MAX))
}

/// Reads frames, at most [`MESSAGE_FRAMES_MAX`]. The size of a message does not bound their number
/// enough: small frames take more room in memory than in the message.
fn frames<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<WireFrame>, D::Error> {
    deserializer.deserialize_seq(Bounded::new(MESSAGE_FRAMES_MAX))
}

/// Reads pages, at most [`MESSAGE_PAGES_MAX`]: what is a difference in a message is a page in
/// memory.
fn pages<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<CodedPage>, D::Error> {
    deserializer.deserialize_seq(Bounded::new(MESSAGE_PAGES_MAX))
}

fn shared_pages<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[CodedPage]>, D::Error> {
    pages(deserializer).map(Arc::from)
}

fn as_slice<S: Serializer>(pages: &Arc<[CodedPage]>, serializer: S) -> Result<S::Ok, S::Error> {
    (**pages).serialize(serializer)
}

/// Reads a sequence of so many items at most.
pub(crate) struct Bounded<T> {
    count_max: usize,
    items: PhantomData<T>,
}

impl<T> Bounded<T> {
    pub(crate) fn new(count_max: usize) -> Self {
        Self { count_max, items: PhantomData }
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {} items", self.count_max)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            if items.len() == self.count_max {
                return Err(A::Error::invalid_length(self.count_max + 1, &self));
            }
            items.push(item);
        }
        Ok(items)
    }
}

/// What a client wants of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intent {
    /// Follow it, creating it if neither side ever had it.
    Follow,
    /// Make the client's local copy the server's, if the server has no document of that name or an
    /// earlier state of that copy.
    Offer {
        /// The lives that wrote the copy's storage journal.
        lives: Lineage,
    },
}

/// One timeline frame on its way: the same body as on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireFrame {
    /// The call that issued it.
    pub call: CallId,
    /// The mutation.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
    /// The first bytes of the [hash](EntryPart::hash) that its entry has, if it says what the
    /// client has seen the mutation change: then the client needs no pages. `None` if it keeps
    /// none, or others write as well.
    pub predicted: Option<[u8; 8]>,
}

/// A page on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodedPage {
    /// The page's number.
    pub pgid: Pgid,
    /// The page's bytes, coded.
    pub coding: PageCoding,
}

/// How a page travels: as [`Coding`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PageCoding {
    /// All bytes of the page.
    Whole(Page),
    /// Its difference from zeros.
    Zeros(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Its difference from the version before the entry. Only an entry has such pages that is one
    /// part, and goes to those who have all before it.
    Previous(#[serde(with = "serde_bytes")] Vec<u8>),
}

impl CodedPage {
    /// A page in the fewest bytes, for one who has this version before it; by itself if there is
    /// none.
    #[must_use]
    pub fn new(pgid: Pgid, page: &Page, previous: Option<&Page>) -> Self {
        let (coding, bytes) = coded(page.bytes(), previous.map(Page::bytes), PAGE_SIZE - 1);
        let coding = match coding {
            Coding::Whole => PageCoding::Whole(page.clone()),
            Coding::Zeros => PageCoding::Zeros(bytes.into_owned()),
            Coding::Previous => PageCoding::Previous(bytes.into_owned()),
        };
        Self { pgid, coding }
    }

    /// A page as it is after these changes, one behind the other, for one who has the version
    /// before the first of them.
    #[must_use]
    pub fn after<'c>(pgid: Pgid, page: &Page, changes: impl IntoIterator<Item = &'c Self>) -> Self {
        let mut differences = Vec::new();
        for change in changes {
            let PageCoding::Previous(difference) = &change.coding else {
                return Self::new(pgid, page, None);
            };
            differences.push(difference.as_slice());
        }
        let alone = Self::new(pgid, page, None);
        match difference_of_all(page.bytes(), differences) {
            Some(of_all) if of_all.len() < alone.size() => {
                Self { pgid, coding: PageCoding::Previous(of_all) }
            }
            _ => alone,
        }
    }

    /// Bytes that it takes, beside its number and how they are coded.
    #[must_use]
    pub fn size(&self) -> usize {
        match &self.coding {
            PageCoding::Whole(_) => PAGE_SIZE,
            PageCoding::Zeros(bytes) | PageCoding::Previous(bytes) => bytes.len(),
        }
    }

    /// Whether it takes the version before it to read this one.
    #[must_use]
    pub fn needs_previous(&self) -> bool {
        matches!(self.coding, PageCoding::Previous(_))
    }

    /// The page, by the version before it if it [takes](Self::needs_previous) one. `None` if it
    /// does and there is none, or if its bytes say no page.
    #[must_use]
    pub fn decoded(&self, previous: impl FnOnce(Pgid) -> Option<Page>) -> Option<Page> {
        match &self.coding {
            PageCoding::Whole(page) => Some(page.clone()),
            PageCoding::Zeros(difference) => Page::zeroed().changed_by(difference),
            PageCoding::Previous(difference) => previous(self.pgid)?.changed_by(difference),
        }
    }
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromServer {
    /// The answer to Hello.
    Welcome,
    /// The answer to Ping.
    Pong,
    /// The server closes the connection.
    Bye {
        /// Why the server closes it.
        reason: ByeReason,
    },
    /// A message about one document.
    About {
        /// The document's channel.
        channel: Channel,
        /// The message.
        body: FromRoom,
    },
    /// A token was taken: said before Welcome, and as the answer to Renew.
    Admitted {
        /// Whose token it is.
        subject: String,
        /// Seconds for which the server takes it yet.
        seconds_left: u64,
    },
    /// The token of a Renew was not taken: the one before holds for as long as it does.
    NotRenewed,
}

/// What a server says of a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromRoom {
    /// The answer to Open: the document is followed from now on.
    Opened {
        /// Where the server's storage journal stands.
        storage: Position,
        /// The LSN at which the entries begin that follow: the client's position if the server has
        /// it, else the first LSN.
        from: Lsn,
        /// The first LSN of the client's timeline that the server has not applied.
        wanted: Lsn,
        /// The public lives of who wrote the frames of the client's timeline that the server has
        /// applied.
        lives: Lineage,
    },
    /// The server has no such document, or an earlier state of it, and would take the client's:
    /// send [`ToRoom::Seed`].
    SeedWanted,
    /// What the client offered is the server's, on its disk. Opened follows.
    Seeded {
        /// Where the server's storage journal stands: the offered position, with the chain that it
        /// has on the server.
        position: Position,
    },
    /// A storage entry, or a part of one, on the server's disk.
    Entry(EntryPart),
    /// The timeline frames that this client has sent before `next` are on the server's disk.
    Acked {
        /// The first frame of which that is not said.
        next: Lsn,
    },
    /// The frames from `lsn` on stay undecided for now.
    Undecided {
        /// The first undecided frame.
        lsn: Lsn,
        /// Why they stay undecided.
        why: UndecidedReason,
    },
    /// Where the storage journal stands, on the server's disk.
    Probed {
        /// The number of the [`ToRoom::Probe`] that this answers.
        probe: ProbeId,
        /// The storage journal's next LSN.
        next: Lsn,
    },
    /// The server will not serve this document; the channel is closed.
    Refused(Refusal),
    /// So much of the seed was taken in: there is room for more.
    SeedTaken {
        /// Pages from the first one on.
        pages_count: u32,
    },
    /// What the client's token allows with the document: said before anything else as it is opened,
    /// and when that changes. A server that asks for no token allows everything, and says nothing.
    Allowed {
        /// What.
        role: Role,
    },
    /// The frames from `lsn` on are neither run nor recorded, since the client's token does not
    /// allow to change the document. None is taken on this channel before it is opened again.
    Forbidden {
        /// The first of them.
        lsn: Lsn,
    },
    /// Who else is present.
    Presence(PresenceNews),
    /// Somebody at the client handles tasks from now on: those that are given to it stand in the
    /// document under this number.
    Registered {
        /// The client's number for it.
        tag: u32,
        /// Its number in the document.
        instance: u64,
    },
    /// Somebody at the client may not handle tasks.
    NotRegistered {
        /// The client's number for it.
        tag: u32,
        /// Why, for a person to read.
        reason: String,
    },
    /// What became of a [`ToRoom::Complete`]. Its entry has come before.
    Completed {
        /// The client's number for who has made the attempt.
        tag: u32,
        /// The client's number for what it has said.
        number: u32,
        /// What became of it.
        answer: CompletionAnswer,
        /// What the time was where that was decided, in milliseconds since the epoch: as it was
        /// said first, of what a run has done and remembers.
        time_ms: u64,
    },
    /// The answer to [`ToRoom::Archived`].
    Archived {
        /// The number of the question.
        number: u32,
        /// The answer.
        answer: ArchiveAnswer,
    },
}

/// A storage entry, or a part of one that is too large for one message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntryPart {
    /// The LSNs that the entry stands for.
    pub range: LsnRange,
    /// Where the storage journal stands after it.
    pub position: Position,
    /// Size of the database after it, in pages.
    pub db_pages: u32,
    /// The timeline frame that the entry applies or rejects, if it decides a single one, with the
    /// public life of its writer.
    pub origin: Option<EntryId>,
    /// Pages of this part, at most [`MESSAGE_PAGES_MAX`]; shared by all who are sent it.
    #[serde(serialize_with = "as_slice", deserialize_with = "shared_pages")]
    pub pages: Arc<[CodedPage]>,
    /// Whether the entry is what its client has [predicted](WireFrame::predicted): then it is one
    /// part, without pages.
    pub is_predicted: bool,
    /// The hash of the entry up to this part, included. An entry of one LSN is proven by its chain
    /// too; an entry of several LSNs by this hash alone.
    pub hash: EntryHash,
    /// Whether this is the entry's last part.
    pub is_last: bool,
}

/// Why a frame stays undecided, and all behind it. Opening the document again asks anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UndecidedReason {
    /// The server does not know the frame's doctype.
    UnknownDoctype {
        /// The reason, for a person to read.
        reason: String,
    },
    /// The frame's verdict cannot be written into the document, which is full.
    NoRoomForVerdict {
        /// The reason, for a person to read.
        reason: String,
    },
    /// The frame's verdict cannot be written into the document, which is not what it should be.
    VerdictFailed {
        /// The reason, for a person to read.
        reason: String,
    },
}

/// The doctype that a client opens a document by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenDoctype {
    /// Its hash, which is enough for a server whose document knows it. Any other one answers
    /// [`Refusal::DoctypeWanted`].
    Named([u8; 32]),
    /// All of it, encoded.
    Whole(#[serde(with = "serde_bytes")] Vec<u8>),
}

impl OpenDoctype {
    /// Bytes that it brings.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Named(hash) => hash.len(),
            Self::Whole(bytes) => bytes.len(),
        }
    }
}

impl From<Vec<u8>> for OpenDoctype {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Whole(bytes)
    }
}

/// Why a server does not serve a document to a client. Nothing changed on either side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The server has no such document, but the client had it from a server.
    Missing,
    /// A document of that name exists, and the client offered another one.
    Exists,
    /// The server's document cannot be used by the client's doctype.
    DoctypeMismatch {
        /// The reason, for a person to read.
        reason: String,
    },
    /// The client's doctype cannot work.
    DoctypeInvalid {
        /// The reason, for a person to read.
        reason: String,
    },
    /// The client has no access to the document.
    Access {
        /// The reason, for a person to read.
        reason: String,
    },
    /// The client broke the protocol.
    Protocol {
        /// The reason, for a person to read.
        reason: String,
    },
    /// The server's own disk failed; trying again later may help.
    Storage {
        /// The reason, for a person to read.
        reason: String,
    },
    /// The server has applied other frames of this timeline: another copy of the client has written
    /// on. The client opens again, and [`FromRoom::Opened`] tells where the two copies part.
    Parted,
    /// Data on the server's disk are damaged. Until its operator has mended that, the server does
    /// not serve this document, or takes no frames for it.
    Damaged,
    /// The server's document does not know the doctype of that hash: the client opens it again by
    /// all of its doctypes as wholes.
    DoctypeWanted,
}

/// Why a server closes a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ByeReason {
    /// The server speaks another version of the protocol than the client.
    Version,
    /// The server goes down; the client may come back later.
    Shutdown,
    /// The token is missing, wrong or expired.
    Unauthenticated,
    /// The client broke the protocol.
    Protocol {
        /// The reason, for a person to read.
        reason: String,
    },
    /// The client does not read its messages.
    Slow,
    /// The client is a page that this server does not serve, by where it comes from or by the name
    /// that it has called the server by: a development server serves those of its own machine, any
    /// other one those of its own host and of the origins that it was told.
    Origin,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec, decode_message, encode_message};

    #[test]
    fn the_bytes_of_a_message_do_not_change_unnoticed() {
        let body = ToRoom::Frames {
            life: Life([3; 16]),
            first: Lsn::FIRST.plus(2),
            frames: vec![WireFrame {
                call: CallId([5; 16]),
                body: vec![8, 9],
                predicted: Some([7; 8]),
            }],
        };
        let message = ToServer::About { channel: Channel(2), body };
        let hex: String = encode_message(&message).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "010002020103030303030303030303030303030303030105050505050505050505050505050505020809\
             010707070707070707"
        );
    }

    #[test]
    fn a_message_of_too_many_frames_is_refused() {
        let of = |count| {
            let frame = WireFrame { call: CallId([5; 16]), body: Vec::new(), predicted: None };
            let first = Lsn::FIRST;
            let (life, frames) = (Life([3; 16]), vec![frame; count]);
            let body = ToRoom::Frames { life, first, frames };
            encode_message(&ToServer::About { channel: Channel(2), body })
        };
        assert!(decode_message::<ToServer>(&of(MESSAGE_FRAMES_MAX)).is_ok());
        assert!(decode_message::<ToServer>(&of(MESSAGE_FRAMES_MAX + 1)).is_err());
    }

    /// Goal: whoever counts what waits counts small things as what they take in memory. Method:
    /// short names, and pages of zeros.
    #[test]
    fn small_things_count_as_what_they_take_in_memory() {
        let kinds = vec![("a".to_owned(), "b".to_owned()); INSTANCE_KINDS_MAX];
        let names_size = INSTANCE_KINDS_MAX * 2 * (size_of::<String>() + 1);
        let body = ToRoom::Register { tag: 1, instance: 0, kinds, concurrency: 1 };
        let register = ToServer::About { channel: Channel(2), body };
        assert!(encode_message(&register).len() < names_size / 8);
        assert!(register.listed_size() > names_size);
        let page = CodedPage { pgid: Pgid(1), coding: PageCoding::Zeros(Vec::new()) };
        let (position, pages) = (Position::start_of(JournalId([1; 16])), vec![page; 1000]);
        let body = ToRoom::Seed { position, db_pages: 1, pages, last: false };
        let seed = ToServer::About { channel: Channel(2), body };
        assert!(seed.listed_size() >= 1000 * size_of::<CodedPage>());
        assert_eq!(ToServer::Ping.listed_size(), 0);
    }

    /// Goal: few bytes are no more memory than as many pages whole.
    #[test]
    fn a_message_of_too_many_pages_is_refused() {
        let of = |count| {
            let page = CodedPage { pgid: Pgid(1), coding: PageCoding::Zeros(Vec::new()) };
            let position = Position::start_of(JournalId([1; 16]));
            let pages = vec![page; count];
            let body = ToRoom::Seed { position, db_pages: 1, pages, last: false };
            encode_message(&ToServer::About { channel: Channel(2), body })
        };
        assert!(decode_message::<ToServer>(&of(MESSAGE_PAGES_MAX)).is_ok());
        assert!(decode_message::<ToServer>(&of(MESSAGE_PAGES_MAX + 1)).is_err());
    }

    /// Goal: of several changes one is left, by which whoever has the version before the first gets
    /// to the last. Method: pages by chance, some of which take back what earlier ones did.
    #[test]
    fn several_changes_of_a_page_are_one() {
        let mut state = 7_u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for round in 0..300 {
            let first = Page::new(&[round as u8; PAGE_SIZE]).expect("a page");
            let (mut page, mut changes) = (first.clone(), Vec::new());
            for _ in 0..1 + next(4) {
                let before = page.clone();
                for _ in 0..1 + next(20) {
                    let (at, byte) = (next(PAGE_SIZE - 3), [next(3) as u8; 3]);
                    page = page.with(at, &byte[..1 + next(3)]);
                }
                changes.push(CodedPage::new(Pgid(3), &page, Some(&before)));
            }
            let one = CodedPage::after(Pgid(3), &page, &changes);
            let most: usize = changes.iter().map(CodedPage::size).sum();
            assert_eq!(one.decoded(|_| Some(first.clone())), Some(page.clone()));
            // What has moved is said in parts where something is put into it later.
            assert!(one.size() <= 2 * most, "{} of {most}", one.size());
            let alone = CodedPage::new(Pgid(3), &page, None);
            let after_alone = CodedPage::after(Pgid(3), &page, [&changes[0], &alone]);
            assert_eq!(after_alone, alone, "it needs nothing before it");
        }
    }

    #[test]
    fn a_page_comes_back_from_each_coding_and_from_nothing_else() {
        let full = Page::new(&[7; PAGE_SIZE]).expect("a page");
        let (near, few) = (full.with(9, b"tide"), Page::zeroed().with(9, b"tide"));
        let coded = |page, previous| CodedPage::new(Pgid(3), page, previous);
        let sizes = [
            (coded(&full, None), PAGE_SIZE, false),
            (coded(&few, None), 6, false),
            (coded(&near, Some(&full)), 6, true),
            (coded(&few, Some(&full)), 6, false),
        ];
        for (page, size, needs_previous) in sizes {
            assert_eq!((page.size(), page.needs_previous()), (size, needs_previous), "{page:?}");
        }
        assert_eq!(coded(&full, None).decoded(|_| None), Some(full.clone()));
        assert_eq!(coded(&few, None).decoded(|_| None), Some(few.clone()));
        let by_full = |pgid: Pgid| (pgid == Pgid(3)).then(|| full.clone());
        assert_eq!(coded(&near, Some(&full)).decoded(by_full), Some(near.clone()));
        assert_eq!(coded(&near, Some(&full)).decoded(|_| None), None, "it goes by another one");
        let bytes_behind = CodedPage { pgid: Pgid(3), coding: PageCoding::Zeros(vec![1, 10, 9]) };
        assert_eq!(bytes_behind.decoded(|_| None), None);
    }

    #[test]
    fn a_number_that_is_no_lsn_is_refused() {
        for number in [0, u64::MAX] {
            let mut bytes = encode_message(&ToServer::About {
                channel: Channel(1),
                body: ToRoom::Received { next: Lsn::FIRST },
            });
            bytes.truncate(bytes.len() - 1);
            bytes.append(&mut codec::encode(&number));
            assert!(decode_message::<ToServer>(&bytes).is_err(), "{number}");
        }
    }
}
