//! What happens to a room, and what it wants done.

use std::sync::Arc;
use std::time::Duration;

use tidelog_document::{
    AppendRefusal, AppendedEvent, ArchivePart, ArchiveRefusal, ArchivedEvents, CommandRef, Doctype,
    DoctypeHash, DueTasks, Erasable, EraseRefusal, Erased, ErasedUpTo, FailedCommands, FailedUpTo,
    FoundCommands, FoundEvents, FoundRight, FoundStreams, InspectedStream, InspectedUpTo,
    Intervened, Intervention, Replay, ReplayRefusal, Replayed, StreamRef, UpcastEvents,
    UpcastRefusal, WantedCommands, WantedEvents, WantedStreams,
};
use tidelog_pages::{StoreReply, StoreRequest};
use tidelog_sync::{Channel, FromServer, PresenceWord, Refusal, ToRoom};
use tidelog_types::limits::Limits;
use tidelog_types::{JournalId, Position};

use super::{Doctypes, Identity};

/// The shell's number for a connection, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// What a client may do with the document when it says something. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum May {
    /// Follow it.
    Follow,
    /// Send commands, start runs and cancel them as well.
    Send,
    /// Change it as well.
    Write,
    /// Begin it as well, if it is not there.
    Create,
}

/// Who says something, as the shell knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// What it may do.
    pub may: May,
    /// Whether it may handle commands as well.
    pub handles: bool,
    /// Whose token it has shown: its mutations are that user's. `None` where nobody is asked for
    /// one.
    pub subject: Option<Arc<str>>,
}

impl Speaker {
    /// Whoever comes to a server that asks nobody who that is.
    #[must_use]
    pub fn anybody() -> Self {
        Self { may: May::Create, handles: true, subject: None }
    }
}

/// Something that happened to a room.
#[derive(Clone, Debug)]
pub enum RoomInput {
    /// A client says something of this document.
    Message {
        /// On which connection.
        conn: ConnId,
        /// Under which number it knows the document there.
        channel: Channel,
        /// What.
        message: ToRoom,
        /// Who says it.
        speaker: Speaker,
    },
    /// A client said something that it may not say, which is not here: whoever is on that channel
    /// is sent away.
    Refuse {
        /// On which connection.
        conn: ConnId,
        /// Under which number it knows the document there.
        channel: Channel,
        /// Why.
        refusal: Refusal,
    },
    /// A client may not handle tasks any longer: what it was given is given to others.
    HandlesNoMore {
        /// On which connection.
        conn: ConnId,
        /// Under which number it knows the document there.
        channel: Channel,
    },
    /// A connection is about to go of which nothing was heard: whoever handled tasks there was last
    /// heard that long ago.
    Silent {
        /// Which.
        conn: ConnId,
        /// How long, in milliseconds.
        for_ms: u64,
    },
    /// A connection is gone. Of the frames that it said, those that are not begun are forgotten.
    Left {
        /// Which.
        conn: ConnId,
    },
    /// There may be room for entries again on a connection where there was none.
    Writable {
        /// Which.
        conn: ConnId,
    },
    /// Too little has come of the document that is handed over while others wait with theirs: see
    /// [`Room::seed_overdue_at_ms`](super::Room::seed_overdue_at_ms).
    SeedOverdue {
        /// The time, on the same clock.
        now_ms: u64,
    },
    /// Of the documents that are handed over to a server it keeps more than it may: this one comes
    /// another time. See [`Room::seed_size`](super::Room::seed_size).
    SeedUnkept,
    /// A client says who of its own is present, and hears others.
    Presence {
        /// On which connection.
        conn: ConnId,
        /// Under which number it knows the document there.
        channel: Channel,
        /// Who it is.
        identity: Arc<Identity>,
        /// What it says.
        word: PresenceWord,
        /// Whether there is room on this server for more who are present.
        has_room: bool,
        /// The time, on the shell's clock.
        now_ms: u64,
    },
    /// Somebody is to be told who is present: see
    /// [`Room::presence_due_at_ms`](super::Room::presence_due_at_ms).
    PresenceDue {
        /// The time, on the same clock.
        now_ms: u64,
    },
    /// The step before was cut short: see [`Room::wants_step`](super::Room::wants_step).
    GoOn,
    /// The store answers.
    Store(StoreReply),
    /// The shell asks, for somebody who is no client.
    Ask {
        /// The shell's number for the question.
        request: u64,
        /// The question.
        ask: Ask,
    },
}

/// What a room may run, as long as it is told nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayRun {
    /// Nothing.
    Nothing,
    /// What its thread does within this time in each step. A run that takes longer is cut off,
    /// without a verdict: the room runs nothing more then, and begins that run anew once it is told
    /// again what it may run.
    Briefly(Duration),
    /// Everything, for as long as a run may take.
    Everything,
}

/// What the shell may ask of a room. Answered by [`RoomEffect::Answer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// How does it stand?
    Describe,
    /// All of it, as one entry that comes in parts on this connection, as to one who follows the
    /// document and has nothing: until the connection [leaves](RoomInput::Left).
    Export {
        /// A connection of the shell's own.
        conn: ConnId,
    },
    /// Could it be migrated to this doctype? That is run, and nothing is left of it.
    Try {
        /// The doctype, which was found right.
        doctype: Arc<Doctype>,
    },
    /// Erase a slice of what somebody has said.
    Erase {
        /// Of what.
        what: Erasable,
        /// How far that has come.
        after: ErasedUpTo,
    },
    /// Rewrite a slice of the events of older versions at the newest one.
    Upcast {
        /// Of this aggregate alone; `None` for all.
        aggregate: Option<String>,
        /// Behind this sequence number.
        after: u64,
    },
    /// Make anew what follows from the events of an aggregate, all of it or nothing.
    Replay(Arc<Replay>),
    /// What has happened? A bounded part of it, with what an archive has of the same.
    Events(WantedEvents, Option<Arc<ArchivedEvents>>),
    /// The same, with their data as they were recorded: for whoever knows the versions.
    Recorded(WantedEvents, Option<Arc<ArchivedEvents>>),
    /// Which events of this stream can leave next? A bounded number of them.
    Archivable(StreamRef),
    /// Take these in: this is the archive of the document that they leave. One that is not there
    /// begins with them.
    TakeIn(Arc<ArchivePart>),
    /// Let those events go that the archive of this id has, from the position behind `archived` up
    /// to `end`.
    Archive {
        /// Of which stream.
        stream: StreamRef,
        /// Which archive has them, durably.
        archive: JournalId,
        /// How many events of the stream have left before.
        archived: u64,
        /// The position of the last of them.
        end: u64,
    },
    /// What has this archive of the events that are wanted, if it is the one of that id?
    Archived(WantedEvents, JournalId),
    /// Which commands are there? A bounded part of them.
    Commands(WantedCommands),
    /// Which streams are there? A bounded number of them.
    Streams(WantedStreams),
    /// What is there of this one, from there on? A bounded part of it.
    Stream(StreamRef, InspectedUpTo),
    /// Of which streams have commands failed? A bounded number of these, from there on.
    FailedCommands(FailedUpTo),
    /// Do that to a command.
    Intervene(CommandRef, Intervention),
    /// Record these events, all of them or none.
    Append {
        /// These.
        events: Arc<[AppendedEvent]>,
        /// Who asks for it.
        by: String,
    },
    /// Look when its tasks are due, and tell: see [`RoomEffect::Due`].
    Look,
    /// Forget the document, for good.
    Destroy,
}

/// What can be done with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// It is there for everybody.
    Full,
    /// The store is damaged, and the document is not: its clients can catch up, and nothing is
    /// applied.
    ReadOnly,
    /// Something of it is lost, or may be. Its clients may have seen that, so they are sent away,
    /// and it is here to be exported as it was before.
    None,
}

/// What a room answers the shell.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// There is no such document.
    Missing,
    /// How it stands.
    Description {
        /// Where its storage journal stands, on the disk.
        position: Position,
        /// Its size in pages.
        db_pages: u32,
        /// How many clients follow it.
        subscribers_count: usize,
        /// The newest doctype's name.
        doctype: String,
        /// What can be done with it.
        service: Service,
    },
    /// The document is of a doctype of another name.
    OfOther,
    /// The doctype was tried.
    Tried {
        /// Why the document cannot be migrated to it, if it cannot.
        failure: Option<String>,
    },
    /// A slice was erased, durably, or why nothing was.
    Erased(Result<Erased, EraseRefusal>),
    /// A slice is of the newest version, durably, or why nothing more is.
    Upcast(Result<UpcastEvents, UpcastRefusal>),
    /// It is made anew, durably, or not.
    Replayed(Result<Replayed, ReplayRefusal>),
    /// These have happened, durably.
    Events(FoundEvents),
    /// These can leave, durably there, or why none can.
    Archivable(Result<ArchivePart, ArchiveRefusal>),
    /// They are in the archive of this id, durably, or why not.
    TakenIn(Result<JournalId, ArchiveRefusal>),
    /// So many have left, durably, or why none has.
    Archived(Result<u64, ArchiveRefusal>),
    /// Another archive is wanted than this.
    OtherArchive,
    /// These are there, durably.
    Commands(FoundCommands),
    /// These are there, durably.
    Streams(FoundStreams),
    /// That is there of it, durably.
    Stream(InspectedStream),
    /// So many have, durably.
    FailedCommands(FailedCommands),
    /// It was done, durably, or not.
    Intervened(Intervened),
    /// They were recorded, durably, up to this sequence number, or not.
    Appended(Result<u64, AppendRefusal>),
    /// It was looked when its tasks are due.
    Looked,
    /// The document is on its way.
    Exporting,
    /// The document is forgotten.
    Destroyed,
    /// It was not begun, since whoever asked may not any more. Of the shell alone.
    LeftOut,
    /// It was not done.
    Failed {
        /// Why, for a person.
        reason: String,
    },
    /// It may be done, or not: the store failed amid it, or the room is gone.
    Unknown {
        /// What happened, for a person.
        reason: String,
    },
}

/// Something that a room wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum RoomEffect {
    /// Tell a client.
    Send {
        /// On which connection.
        conn: ConnId,
        /// What.
        message: FromServer,
    },
    /// Ask the store.
    Store(StoreRequest),
    /// Answer the shell.
    Answer {
        /// The question's number.
        request: u64,
        /// The answer.
        answer: Answer,
    },
    /// From now on its tasks that nobody handles who is here are due then.
    Due(DueTasks),
}

/// How a room is to behave.
#[derive(Clone, Debug, Default)]
pub struct RoomSettings {
    /// The doctypes that it takes beside those that its document knows.
    pub doctypes: Doctypes,
    /// The store is damaged: it can be read, and nothing is written to it.
    pub is_damaged: bool,
    /// How much it keeps, runs and sends.
    pub limits: Limits,
    /// Doctypes that rooms of the same host have found right.
    pub found_right: FoundRight,
}

/// What a room has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoomCounts {
    /// Mutations applied.
    pub applied: u64,
    /// Mutations rejected.
    pub rejected: u64,
}

/// A doctype to which a document could not be migrated: it stayed as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedMigration {
    /// The doctype's hash.
    pub doctype: DoctypeHash,
    /// Its name.
    pub name: String,
    /// Why, for a person.
    pub reason: String,
}
