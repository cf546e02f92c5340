//! A SQLite file becomes a document.
//!
//! The file is put on the disk of the store as it comes, without a name. When all of it is there,
//! the document's room is handed it as by a client that hands a local document over, a part at a
//! time: so nothing is taken that would not be taken from a client, and memory holds one part.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use futures_util::{Stream, StreamExt as _};
use serde::{Deserialize, Serialize};
use tidelog_access::TokenError;
use tidelog_document::Doctype;
use tidelog_room::{Answer, Ask, ConnId, May, Speaker};
use tidelog_sync::{Channel, CodedPage, FromRoom, FromServer, Intent, Refusal, ToRoom, codec};
use tidelog_types::limits::{IMPORT_SIZE_MAX, PAGE_SIZE};
use tidelog_types::{CopySecret, DocumentKey, JournalId, Life, Lineage, Lsn, Page, Pgid, Position};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

use crate::archive;
use crate::connection::{Connection, ConnectionEnd};
use crate::export::{self, Leaves, READER_PAUSES_MAX, READER_RATE_MIN};
use crate::large_messages::PERMIT_SIZE;
use crate::rooms::{MessagePermit, RoomMail, RoomSender, TOO_MANY_ROOMS};
use crate::shared::Shared;

/// Bytes of the file that are in memory before they are written.
const PIECE_SIZE: usize = 256 * 1024;
/// Pages in one part.
const PART_PAGES: u32 = 64;
/// Within which time a room takes a part in.
const PART_TAKES: Duration = Duration::from_secs(10);
/// The same of the last one: it looks at all of them then.
const LAST_PART_TAKES: Duration = Duration::from_secs(120);

/// Why a file did not become a document. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// No document can be called so.
    #[error("no document can have that name")]
    NoName,
    /// Nothing is known of the doctype.
    #[error("no doctype {0} is deployed")]
    NoDoctype(String),
    /// It is larger than any document.
    #[error("a document has at most {IMPORT_SIZE_MAX} bytes")]
    TooLarge,
    /// It came too slowly, or not all of it.
    #[error("the file did not come, or too slowly")]
    Late,
    /// It is not what could be a document.
    #[error("{0}")]
    Odd(String),
    /// There is one of that name.
    #[error("the document exists")]
    Exists,
    /// The token of whoever sent it has ended meanwhile.
    #[error(transparent)]
    Ended(TokenError),
    /// It had ended before a room could say whether there is such a document.
    #[error("the token has ended: get a new one")]
    LeftOut,
    /// The server could not do it now.
    #[error("{0}")]
    Failed(String),
}

impl ImportError {
    /// What is answered over HTTP, beside the reason.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NoName | Self::NoDoctype(_) | Self::Odd(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Late => StatusCode::REQUEST_TIMEOUT,
            Self::Exists => StatusCode::CONFLICT,
            Self::Ended(_) | Self::LeftOut => StatusCode::UNAUTHORIZED,
            Self::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<Refusal> for ImportError {
    /// The room does not take it.
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Exists => Self::Exists,
            Refusal::Protocol { reason } => Self::Odd(reason),
            Refusal::DoctypeMismatch { reason } | Refusal::DoctypeInvalid { reason } => {
                let hint = "a document is a file that export has written, changed or not";
                Self::Odd(format!("{reason}; {hint}"))
            }
            Refusal::Storage { reason } | Refusal::Access { reason } => Self::Failed(reason),
            Refusal::Damaged | Refusal::Missing | Refusal::Parted | Refusal::DoctypeWanted => {
                Self::Failed("the store is damaged, and takes no documents".to_owned())
            }
        }
    }
}

/// A document that was made of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Imported {
    pub(crate) document: String,
    pub(crate) doctype: String,
    /// Its storage journal.
    pub(crate) journal: String,
    pub(crate) next_lsn: u64,
}

/// What a file is about to become.
pub(crate) struct Import {
    shared: Arc<Shared>,
    document: DocumentKey,
    doctype: Doctype,
    /// It takes room on the disk, as an export does.
    _turn: export::Turn,
}

/// Looks whether a file of this subject would be taken as this document, of the newest doctype of
/// this name: before all of it is taken in for nothing.
pub(crate) async fn prepare(
    shared: &Arc<Shared>,
    document: &str,
    doctype: &str,
    subject: Option<&str>,
) -> Result<Import, ImportError> {
    let document = DocumentKey::new(document, "").map_err(|_| ImportError::NoName)?;
    let newest = shared.deployments.newest(doctype);
    let doctype = newest.ok_or_else(|| ImportError::NoDoctype(doctype.to_owned()))?;
    let turn = shared.exports.turn(subject);
    let _turn = turn.map_err(|why| ImportError::Failed(why.to_owned()))?;
    match shared.rooms.ask(&document, Ask::Describe).await {
        Answer::Missing => match archive::forget_what_is_left(&shared.rooms, &document).await {
            Ok(()) => {
                let shared = Arc::clone(shared);
                Ok(Import { shared, document, doctype, _turn })
            }
            Err(Answer::LeftOut) => Err(ImportError::LeftOut),
            Err(Answer::Failed { reason } | Answer::Unknown { reason }) => {
                Err(ImportError::Failed(reason))
            }
            Err(_) => Err(ImportError::Failed("its archive answers something else".to_owned())),
        },
        Answer::Description { .. } => Err(ImportError::Exists),
        Answer::LeftOut => Err(ImportError::LeftOut),
        Answer::Failed { reason } | Answer::Unknown { reason } => Err(ImportError::Failed(reason)),
        _ => Err(ImportError::Failed("the room answers something else".to_owned())),
    }
}

impl Import {
    /// Takes the file in. Now and then it is asked whether whoever sends it may do that still: a
    /// file may take hours to come.
    pub(crate) async fn receive<E>(
        self,
        file: impl Stream<Item = Result<Bytes, E>> + Unpin,
        may_still: &impl Fn() -> Result<(), TokenError>,
    ) -> Result<Came, ImportError> {
        let file = receive(&self.shared, file, may_still).await?;
        Ok(Came { import: self, file })
    }
}

/// An import whose file is here.
pub(crate) struct Came {
    import: Import,
    file: Received,
}

impl Came {
    /// Makes the file the document. It is asked before each part that the room is handed whether
    /// whoever sent it may do that still.
    pub(crate) async fn plant(
        self,
        may_still: impl Fn() -> Result<(), TokenError>,
    ) -> Result<Imported, ImportError> {
        let Self { import: Import { shared, document, doctype, _turn }, file } = self;
        let position = plant(&shared, &document, &doctype, file, may_still).await?;
        Ok(Imported {
            document: document.document,
            doctype: doctype.name,
            journal: position.journal.to_hex(),
            next_lsn: position.next.get(),
        })
    }
}

/// A file that came whole, of so many pages.
struct Received {
    file: File,
    db_pages: u32,
}

/// Takes the file in.
async fn receive<E>(
    shared: &Shared,
    mut stream: impl Stream<Item = Result<Bytes, E>> + Unpin,
    may_still: &impl Fn() -> Result<(), TokenError>,
) -> Result<Received, ImportError> {
    let folder = shared.data.clone();
    let mut file = blocking(move || tempfile::tempfile_in(folder)).await?;
    let (mut size, mut due) = (0, Instant::now() + READER_PAUSES_MAX);
    let mut piece = Vec::with_capacity(PIECE_SIZE);
    loop {
        let next = timeout_at(due, stream.next()).await.map_err(|_| ImportError::Late)?;
        let bytes = next.transpose().map_err(|_| ImportError::Late)?;
        let is_last = bytes.is_none();
        let bytes = bytes.unwrap_or_else(Bytes::new);
        size += bytes.len() as u64;
        if size > IMPORT_SIZE_MAX {
            return Err(ImportError::TooLarge);
        }
        due += Duration::from_secs_f64(bytes.len() as f64 / READER_RATE_MIN);
        piece.extend_from_slice(&bytes);
        if is_last || piece.len() >= PIECE_SIZE {
            may_still().map_err(ImportError::Ended)?;
            (file, piece) = blocking(move || {
                file.write_all(&piece)?;
                piece.clear();
                Ok((file, piece))
            })
            .await?;
        }
        if is_last {
            break;
        }
    }
    blocking(move || {
        file.rewind()?;
        let mut header = Vec::new();
        Read::by_ref(&mut file).take(100).read_to_end(&mut header)?;
        Ok((file, header))
    })
    .await
    .and_then(|(file, header)| {
        let db_pages = pages_of(&header, size).map_err(ImportError::Odd)?;
        Ok(Received { file, db_pages })
    })
}

/// How many pages a file with this header has, or why it cannot be a document.
fn pages_of(header: &[u8], size: u64) -> Result<u32, String> {
    if header.len() < 100 || !header.starts_with(b"SQLite format 3\0") {
        return Err("it is no SQLite file".to_owned());
    }
    let page_size = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        size => usize::from(size),
    };
    if page_size != PAGE_SIZE {
        return Err(format!(
            "its pages have {page_size} bytes, and those of a document {PAGE_SIZE}: pragma \
             page_size = {PAGE_SIZE}; vacuum"
        ));
    }
    if header[18..20] != [1, 1] {
        return Err("it is in WAL mode: pragma journal_mode = delete".to_owned());
    }
    if header[20] != 0 {
        return Err("it keeps bytes of each page to itself".to_owned());
    }
    if !size.is_multiple_of(PAGE_SIZE as u64) {
        return Err("it ends amid a page".to_owned());
    }
    Ok(u32::try_from(size / PAGE_SIZE as u64).expect("BUG: it is no larger than a document"))
}

/// Makes the file the document, of this doctype. Gives where its storage journal stands then.
async fn plant(
    shared: &Shared,
    document: &DocumentKey,
    doctype: &Doctype,
    received: Received,
    may_still: impl Fn() -> Result<(), TokenError>,
) -> Result<Position, ImportError> {
    may_still().map_err(ImportError::Ended)?;
    let failed = |reason: &str| ImportError::Failed(reason.to_owned());
    let room = shared.rooms.room(document).ok_or_else(|| failed(TOO_MANY_ROOMS))?;
    let conn = ConnId(shared.connections_ever.fetch_add(1, Ordering::Relaxed));
    let (connection, end) = Connection::new(conn);
    let _leaves = Leaves { room: room.clone(), conn };
    let mut offer = Offer { shared, room, connection, end };
    let (journal, timeline, life) = (JournalId(random()), JournalId(random()), Life(random()));
    let position = Position { life, next: Lsn::FIRST.plus(1), ..Position::start_of(journal) };
    let mut lives = Lineage::default();
    lives.note(life, Lsn::FIRST);
    offer.say(ToRoom::Open {
        document: document.document.clone(),
        doctype: codec::encode(doctype).into(),
        timeline,
        // No frames come of it, and nobody else goes on with it.
        secret: CopySecret(random()),
        have: Some(position),
        intent: Intent::Offer { lives },
    });
    let FromRoom::SeedWanted = offer.hear(PART_TAKES).await? else {
        return Err(ImportError::Exists);
    };
    let Received { mut file, db_pages } = received;
    for first in (1..=db_pages).step_by(PART_PAGES as usize) {
        let end = (first + PART_PAGES).min(db_pages + 1);
        let pages;
        (file, pages) = blocking(move || {
            let pages = read(&file, first..end)?;
            Ok((file, pages))
        })
        .await?;
        let last = end > db_pages;
        may_still().map_err(ImportError::Ended)?;
        offer.say(ToRoom::Seed { position, db_pages, pages, last });
        let takes = if last { LAST_PART_TAKES } else { PART_TAKES };
        match offer.hear(takes).await? {
            FromRoom::SeedTaken { .. } if !last => {}
            FromRoom::Seeded { position } if last => return Ok(position),
            _ => return Err(failed("the room answers something else")),
        }
    }
    Err(failed("the file has no pages"))
}

/// The pages of these numbers, by themselves.
fn read(mut file: &File, pgids: Range<u32>) -> io::Result<Vec<CodedPage>> {
    let mut bytes = [0; PAGE_SIZE];
    file.seek(SeekFrom::Start(u64::from(pgids.start - 1) * PAGE_SIZE as u64))?;
    pgids
        .map(|pgid| {
            file.read_exact(&mut bytes)?;
            let page = Page::new(&bytes).expect("BUG: a page has as many bytes");
            Ok(CodedPage::new(Pgid(pgid), &page, None))
        })
        .collect()
}

/// Whoever hands over, in the place of a client.
struct Offer<'s> {
    shared: &'s Shared,
    room: RoomSender,
    connection: Connection,
    end: ConnectionEnd,
}

impl Offer<'_> {
    fn say(&self, message: ToRoom) {
        let size = match &message {
            ToRoom::Open { doctype, .. } => doctype.size(),
            _ => PART_PAGES as usize * PAGE_SIZE,
        };
        // Nothing is said before what was said before is worked off.
        let count = size / PERMIT_SIZE + 1;
        let own = Arc::new(Semaphore::new(count));
        let own = own.try_acquire_many_owned(u32::try_from(count).expect("BUG: a small message"));
        let own = own.expect("BUG: all of them are free");
        let permit = MessagePermit::new(own, None, &self.shared.counters);
        // Whoever asked may begin the document, and nothing is said but that.
        let speaker = Speaker { may: May::Create, handles: false, subject: None };
        let (connection, channel) = (self.connection.clone(), Channel(0));
        let message = Box::new(message);
        // A room that is gone says nothing.
        let _ = self.room.send(RoomMail::Message { connection, channel, message, speaker, permit });
    }

    /// What the room answers, unless it refuses.
    async fn hear(&mut self, takes: Duration) -> Result<FromRoom, ImportError> {
        let next = timeout(takes, self.end.queue.recv()).await;
        let late = |_| ImportError::Failed("the document has too much to do".to_owned());
        let Some(FromServer::About { body, .. }) = next.map_err(late)?.map(|message| *message)
        else {
            return Err(ImportError::Failed("the room has closed".to_owned()));
        };
        match body {
            FromRoom::Refused(refusal) => Err(refusal.into()),
            body => Ok(body),
        }
    }
}

async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ImportError> {
    let done = spawn_blocking(run).await.map_err(io::Error::from);
    done.flatten().map_err(|error| ImportError::Failed(format!("the file cannot be kept: {error}")))
}

fn random<const SIZE: usize>() -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tidelog_room::RoomSettings;

    use super::*;
    use crate::rooms::tests::Scene;

    /// How it ends if these pieces come, and nothing more for as long as the server waits.
    async fn received(pieces: &[&'static [u8]]) -> (Option<ImportError>, Duration) {
        let scene = Scene::new(RoomSettings::default());
        let came = stream::iter(pieces.to_vec()).map(Bytes::from_static).map(io::Result::Ok);
        let body = came.chain(stream::pending());
        let began = Instant::now();
        let shared = Shared::of(&scene);
        let takes = 10 * READER_PAUSES_MAX;
        let received =
            timeout(takes, receive(&shared, body, &|| Ok(()))).await.expect("it is not waited for");
        (received.err(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_hardly_comes_is_not_waited_for() {
        let (error, took) = received(&[]).await;
        assert!(matches!(error, Some(ImportError::Late)), "{error:?}");
        assert!(took <= READER_PAUSES_MAX + Duration::from_secs(1), "{took:?}");
        let (error, more) = received(&[&[0; 640 * 1024]]).await;
        assert!(matches!(error, Some(ImportError::Late)), "{error:?}");
        assert!(more >= took + Duration::from_secs(9), "what came has its time: {more:?}");
    }

    #[test]
    fn only_what_could_be_a_document_is_handed_over() {
        let mut header = [0; 100];
        header[..16].copy_from_slice(b"SQLite format 3\0");
        header[16..20].copy_from_slice(&[0x10, 0, 1, 1]);
        assert_eq!(pages_of(&header, 8192), Ok(2));
        let other = |at: usize, byte: u8| {
            let mut header = header;
            header[at] = byte;
            pages_of(&header, 8192)
        };
        // Another file, another page size, WAL to write or to read, reserved bytes.
        for (at, byte) in [(0, b's'), (16, 0x20), (17, 1), (18, 2), (19, 2), (20, 12)] {
            assert!(other(at, byte).is_err(), "{at}");
        }
        assert!(pages_of(&header, 8193).is_err());
        assert!(pages_of(&header[..99], 8192).is_err());
    }
}
