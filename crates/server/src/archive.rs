//! The archives of documents: events that have left them.
//!
//! An archive is a document of the same store, beside the one that it belongs to, which nobody can
//! name. Events go there in parts, and each goes in this order, so that at every moment each of
//! them is somewhere, durably:
//!
//! ```text
//! document: which can leave ──▶ archive: taken in, durable ──▶ document: let go, durable
//! ```
//!
//! A server that ends between the last two has them in both places, and what the document says
//! counts: what its archive has beyond that goes before it takes more in. No part is on its way
//! while something of the document is erased, which is done in the document first, and then in its
//! archive: so nothing passes by.

use std::sync::Arc;

use tidelog_document::{
    ArchivePart, ArchiveRefusal, ArchivedEvents, Erasable, EraseRefusal, Erased, ErasedUpTo,
    FoundEvents, InArchive, StreamRef, WantedEvents,
};
use tidelog_room::{Answer, Ask, archive_of};
use tidelog_sync::{ArchiveAnswer, ArchiveQuestion, Channel, FromRoom, FromServer};
use tidelog_types::{DocumentKey, JournalId};
use tokio::sync::Mutex;

use crate::connection::Connection;
use crate::rooms::{Rooms, asking};

/// How often a part is begun anew where the document has changed meanwhile.
const TRIES_MAX: usize = 8;
/// How often an archive is read for one answer: once more where something has left before it was
/// this one's turn, from which on nothing does.
const READS_MAX: usize = 2;

/// What became of a part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Archived {
    /// How many events have left.
    pub(crate) events: u64,
    /// Whether more of them can leave.
    pub(crate) has_more: bool,
    /// Whether some stay that a run may still be told of.
    pub(crate) is_awaited: bool,
}

/// Why nothing became of it.
#[derive(Debug, PartialEq)]
pub(crate) enum ArchiveError {
    /// It may not be done.
    Refused(ArchiveRefusal),
    /// The room has no answer to that, but this.
    Answered(Box<Answer>),
}

impl From<ArchiveRefusal> for ArchiveError {
    fn from(refusal: ArchiveRefusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Answer> for ArchiveError {
    fn from(answer: Answer) -> Self {
        Self::Answered(Box::new(answer))
    }
}

/// Has those events of a stream leave that can, a bounded number of them.
pub(crate) async fn archive(
    rooms: &Arc<Rooms>,
    document: &DocumentKey,
    stream: &StreamRef,
) -> Result<Archived, ArchiveError> {
    let _turn = rooms.archiving().of(document).await?;
    let mut tries = 0;
    loop {
        let part = match rooms.ask(document, Ask::Archivable(stream.clone())).await {
            Answer::Archivable(part) => part?,
            answer => return Err(answer.into()),
        };
        tries += 1;
        match move_on(rooms, document, part).await {
            Err(ArchiveError::Refused(ArchiveRefusal::Moved)) if tries < TRIES_MAX => {}
            moved => return moved,
        }
    }
}

/// Has a part leave.
async fn move_on(
    rooms: &Arc<Rooms>,
    document: &DocumentKey,
    part: ArchivePart,
) -> Result<Archived, ArchiveError> {
    let ArchivePart { archived, has_more, is_awaited, .. } = part;
    let (stream, end) = (part.stream.clone(), part.end());
    if part.events.is_empty() {
        return Ok(Archived { events: 0, has_more, is_awaited });
    }
    if part.archive.is_none() {
        begin(rooms, document).await?;
    }
    let archive = take_in(rooms, document, part).await?;
    let ask = Ask::Archive { stream, archive, archived, end };
    match rooms.ask(document, ask).await {
        Answer::Archived(events) => Ok(Archived { events: events?, has_more, is_awaited }),
        answer => Err(answer.into()),
    }
}

/// Nothing has left the document yet: its archive begins with nothing, whatever is left of the one
/// of a document that had the name before.
async fn begin(rooms: &Arc<Rooms>, document: &DocumentKey) -> Result<(), ArchiveError> {
    match rooms.ask(&archive_of(document), Ask::Destroy).await {
        Answer::Missing | Answer::Destroyed => Ok(()),
        answer => Err(answer.into()),
    }
}

/// Has the archive take a part in, durably. Gives its id.
pub(crate) async fn take_in(
    rooms: &Arc<Rooms>,
    document: &DocumentKey,
    part: ArchivePart,
) -> Result<JournalId, ArchiveError> {
    match rooms.ask(&archive_of(document), Ask::TakeIn(Arc::new(part))).await {
        Answer::TakenIn(archive) => Ok(archive?),
        // Something has left, and where it went is not here.
        Answer::Missing => Err(ArchiveError::Refused(ArchiveRefusal::Elsewhere)),
        answer => Err(answer.into()),
    }
}

/// What was read of a document, and of its archive where something may have left.
pub(crate) enum Read {
    /// These events of both, as they are at one moment, and where those are that have left, if any
    /// of them may have.
    Found(FoundEvents, Option<InArchive>),
    /// What has left up to this sequence number is not here.
    Elsewhere(u64),
}

/// Reads a bounded number of events, as `ask` has the document asked for them with what its archive
/// has. Nothing leaves between the two.
pub(crate) async fn read(
    rooms: &Arc<Rooms>,
    document: &DocumentKey,
    wanted: &WantedEvents,
    ask: impl Fn(WantedEvents, Option<Arc<ArchivedEvents>>) -> Ask,
) -> Result<Read, Answer> {
    let mut place = match rooms.ask(document, ask(wanted.clone(), None)).await {
        Answer::Events(FoundEvents::Archived(place)) => place,
        Answer::Events(found) => return Ok(Read::Found(found, None)),
        answer => return Err(answer),
    };
    let _turn = rooms.archiving().of(document).await?;
    for _ in 0..READS_MAX {
        let InArchive { archive, up_to, count } = place;
        let of_archive = Ask::Archived(wanted.clone(), archive);
        let archived = match rooms.ask(&archive_of(document), of_archive).await {
            Answer::Events(found) => ArchivedEvents::of(found, wanted.after, count),
            Answer::Missing | Answer::OtherArchive => return Ok(Read::Elsewhere(up_to)),
            answer => return Err(answer),
        };
        let of_both = ask(wanted.clone(), Some(Arc::new(archived)));
        match rooms.ask(document, of_both).await {
            Answer::Events(FoundEvents::Archived(other)) => place = other,
            Answer::Events(found) => return Ok(Read::Found(found, Some(place))),
            answer => return Err(answer),
        }
    }
    Err(Answer::Failed { reason: "events are being archived".to_owned() })
}

/// Answers what a client wants of the archive of its document, which it may read. One question of
/// a connection is answered after the other, and each once what the client was told before has
/// been read: so no more waits for it than one answer.
pub(crate) async fn answer(
    rooms: &Arc<Rooms>,
    document: &DocumentKey,
    question: ArchiveQuestion,
    to: &Asker,
) {
    let Asker { connection, channel, turn } = to;
    let _turn = turn.lock().await;
    connection.has_room().await;
    if connection.has_ended() {
        return;
    }
    let ArchiveQuestion { number, archive, aggregate, stream, types, after } = question;
    let wanted = WantedEvents { aggregate, stream, types, after };
    let answer = match read(rooms, document, &wanted, Ask::Recorded).await {
        // Of another document than whoever asks has.
        Ok(Read::Found(_, Some(place))) if place.archive != archive => ArchiveAnswer::Elsewhere,
        Ok(Read::Found(found, place)) => {
            let left_up_to = place.map_or(u64::MAX, |place| place.up_to);
            let ArchivedEvents { events, up_to, .. } =
                ArchivedEvents::of_both(found, wanted.after, left_up_to);
            ArchiveAnswer::Events { events, up_to }
        }
        Ok(Read::Elsewhere(_)) => ArchiveAnswer::Elsewhere,
        Err(Answer::Failed { reason } | Answer::Unknown { reason }) => {
            ArchiveAnswer::Failed { reason }
        }
        Err(_) => ArchiveAnswer::Failed { reason: "the archive does not answer".to_owned() },
    };
    let body = FromRoom::Archived { number, answer };
    connection.send(FromServer::About { channel: *channel, body });
}

/// Who asks, and where it is answered.
pub(crate) struct Asker {
    pub(crate) connection: Connection,
    pub(crate) channel: Channel,
    /// That of the connection.
    pub(crate) turn: Arc<Mutex<()>>,
}

/// Erases a slice of what the document or, once that is done, its archive has. `Err` says why
/// not, as its room does.
pub(crate) async fn erase(
    rooms: &Arc<Rooms>,
    document: &DocumentKey,
    what: &Erasable,
    after: ErasedUpTo,
    is_archive: bool,
) -> Result<Result<Erased, EraseRefusal>, Answer> {
    let _turn = rooms.archiving().of(document).await?;
    let ask = Ask::Erase { what: what.clone(), after };
    if !is_archive {
        return match rooms.ask(document, ask).await {
            Answer::Erased(erased) => Ok(erased),
            answer => Err(answer),
        };
    }
    match rooms.ask(&archive_of(document), ask).await {
        Answer::Erased(Ok(erased)) => Ok(Ok(erased)),
        // Nothing of it has left.
        Answer::Missing | Answer::Erased(Err(EraseRefusal::HasNone | EraseRefusal::Unknown)) => {
            Ok(Ok(Erased::default()))
        }
        Answer::Erased(refused) => Ok(refused),
        answer => Err(answer),
    }
}

/// Forgets a document, and then its archive: a document is never there without what has left it.
/// What is left of an archive where that fails is found by nobody, and goes when the same is done
/// again, when events leave a document of that name, or when a server starts.
pub(crate) async fn destroy(rooms: &Arc<Rooms>, document: &DocumentKey) -> Answer {
    let _turn = match rooms.archiving().of(document).await {
        Ok(turn) => turn,
        Err(late) => return late,
    };
    let answer = rooms.ask(document, Ask::Destroy).await;
    if !matches!(answer, Answer::Missing | Answer::Destroyed) {
        return answer;
    }
    // What was begun is ended, whoever may still.
    match asking(None, rooms.ask(&archive_of(document), Ask::Destroy)).await {
        Answer::Missing => answer,
        of_archive => of_archive,
    }
}

/// Forgets what is left of the archive of a document that is not there, before it is made of a
/// file: such a file may name that archive.
pub(crate) async fn forget_what_is_left(
    rooms: &Arc<Rooms>,
    document: &DocumentKey,
) -> Result<(), Answer> {
    let _turn = rooms.archiving().of(document).await?;
    match rooms.ask(document, Ask::Describe).await {
        Answer::Missing => {}
        answer @ (Answer::LeftOut | Answer::Failed { .. } | Answer::Unknown { .. }) => {
            return Err(answer);
        }
        // Somebody may have made it meanwhile.
        _ => return Ok(()),
    }
    match rooms.ask(&archive_of(document), Ask::Destroy).await {
        Answer::Missing | Answer::Destroyed => Ok(()),
        answer => Err(answer),
    }
}

#[cfg(test)]
mod tests {
    use tidelog_document::LeavingEvent;
    use tidelog_room::RoomSettings;

    use super::*;
    use crate::rooms::RoomMail;
    use crate::rooms::tests::{Scene, list};

    fn part(archive: Option<JournalId>, archived: u64) -> ArchivePart {
        let event = LeavingEvent {
            sequence: archived + 1,
            position: archived + 1,
            name: "begun".to_owned(),
            version: 1,
            data: Some("{}".to_owned()),
            time_ms: 0,
            user: String::new(),
            client: vec![7; 16],
            cause: String::new(),
        };
        ArchivePart {
            stream: StreamRef { aggregate: "todo".to_owned(), stream: "a".to_owned() },
            archive,
            archived,
            events: vec![event],
            has_more: false,
            is_awaited: false,
        }
    }

    /// Goal: a document is never there without what has left it: where it cannot be deleted, its
    /// archive stays. Method: a room that answers so; then one that has deleted it.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_archive_is_deleted_behind_its_document() {
        let scene = Scene::new(RoomSettings::default());
        let (rooms, document) = (&scene.rooms, list());
        let archive = take_in(rooms, &document, part(None, 0)).await.expect("there is room");
        let mut mail = scene.mail();
        let answers =
            [Answer::Failed { reason: "no".to_owned() }, Answer::Destroyed, Answer::Missing];
        let room = tokio::spawn(async move {
            for said in answers {
                let Some(RoomMail::Ask { ask: Ask::Destroy, answer, .. }) = mail.recv().await
                else {
                    panic!("something else")
                };
                let _ = answer.send(said);
            }
            mail
        });
        let is_there = async || {
            let ask = Ask::Archived(WantedEvents::default(), archive);
            matches!(rooms.ask(&archive_of(&document), ask).await, Answer::Events(_))
        };
        assert!(matches!(destroy(rooms, &document).await, Answer::Failed { .. }));
        assert!(is_there().await, "what has left it can be read");
        assert_eq!(destroy(rooms, &document).await, Answer::Destroyed);
        assert!(!is_there().await);
        // What was left of one is deleted with the name.
        take_in(rooms, &document, part(None, 0)).await.expect("there is room");
        assert_eq!(destroy(rooms, &document).await, Answer::Destroyed);
        assert_eq!(rooms.ask(&archive_of(&document), Ask::Describe).await, Answer::Missing);
        drop(room.await);
        // Before one is made of a file.
        take_in(rooms, &document, part(None, 0)).await.expect("there is room");
        let mut mail = scene.mail();
        let room = tokio::spawn(async move {
            for said in [Answer::Looked, Answer::Missing] {
                let Some(RoomMail::Ask { ask: Ask::Describe, answer, .. }) = mail.recv().await
                else {
                    panic!("something else")
                };
                let _ = answer.send(said);
            }
            mail
        });
        let archive = archive_of(&document);
        let describe = || rooms.ask(&archive, Ask::Describe);
        assert_eq!(forget_what_is_left(rooms, &document).await, Ok(()));
        assert_ne!(describe().await, Answer::Missing, "it is that of a document");
        assert_eq!(forget_what_is_left(rooms, &document).await, Ok(()));
        assert_eq!(describe().await, Answer::Missing);
        drop(room.await);
    }

    /// Goal: what is left of the archive of a deleted document is in no other one's. Method: a
    /// document of the same name, of which the first events leave.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_archive_begins_with_nothing() {
        let scene = Scene::new(RoomSettings::default());
        let (rooms, document) = (&scene.rooms, list());
        let former = take_in(rooms, &document, part(None, 0)).await.expect("there is room");
        let mut mail = scene.mail();
        let room = tokio::spawn(async move {
            let Some(RoomMail::Ask { ask: Ask::Archive { .. }, answer, .. }) = mail.recv().await
            else {
                panic!("something else")
            };
            let _ = answer.send(Answer::Archived(Ok(1)));
            mail
        });
        move_on(rooms, &document, part(None, 0)).await.expect("it has left");
        let ask = Ask::Archived(WantedEvents::default(), former);
        assert_eq!(rooms.ask(&archive_of(&document), ask).await, Answer::OtherArchive);
        drop(room.await);
    }
}
