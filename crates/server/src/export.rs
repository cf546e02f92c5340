//! A document as a file.
//!
//! Whoever exports follows the document like a client that holds nothing, a chunk at a time, and
//! leaves when all is there. Pages come in any order and some come twice, so they are put together
//! in a file without a name on the disk of the store: memory holds one chunk of them.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tidelog_room::{Answer, ConnId, entry_size};
use tidelog_sync::{EntryPart, FromRoom, FromServer};
use tidelog_types::limits::{EXPORTS_OF_SUBJECT_MAX, PAGE_SIZE};
use tidelog_types::{DocumentKey, Lsn};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::info;

use crate::connection::Connection;
use crate::rooms::{RoomMail, RoomSender, TOO_MANY_ROOMS, asks_while};
use crate::shared::Shared;
use crate::shares::{Share, Shares};

/// Within which time the next part of a document comes.
const PART_TAKES: Duration = Duration::from_secs(10);
/// Bytes of the file that are in memory while it is sent, twice: one piece is on its way, and the
/// next one waits.
const PIECE_SIZE: usize = 256 * 1024;
/// Bytes of the file in a second that its reader takes at least, on average. Whoever takes fewer
/// would keep others from exporting.
pub(crate) const READER_RATE_MIN: f64 = 65_536.0;
/// Turns of an operator's own, so that subjects who take theirs slowly hold up none.
const OPERATORS_EXPORTS_MAX: usize = 2;
/// How far the reader may fall behind that.
pub(crate) const READER_PAUSES_MAX: Duration = Duration::from_secs(30);

/// Why somebody gets no document, and no list of them.
const TOO_MANY: &str = "too many documents are being exported";
/// The same of whoever has a part in that.
const TOO_MANY_OWN: &str = "too many documents are being exported for this subject: take one \
                            after the other";

/// Turns to export, which take room on the disk, or to list documents, which takes memory. Whoever
/// takes them slowly keeps nobody else from theirs.
pub(crate) struct Exports {
    pub(crate) turns: Arc<Semaphore>,
    /// Of an operator's, where there is none of those.
    own: Arc<Semaphore>,
    subjects: Arc<Shares<String>>,
}

/// A turn, until it is dropped.
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
    _share: Option<Share<String>>,
}

impl Exports {
    /// So many at once.
    pub(crate) fn new(count: usize) -> Self {
        let [turns, own] = [count, OPERATORS_EXPORTS_MAX].map(|it| Arc::new(Semaphore::new(it)));
        Self { turns, own, subjects: Shares::new(EXPORTS_OF_SUBJECT_MAX) }
    }

    /// A turn for this subject, or for whoever has none: an operator, or anybody on a development
    /// server.
    ///
    /// # Errors
    ///
    /// Why there is none now.
    pub(crate) fn turn(&self, subject: Option<&str>) -> Result<Turn, &'static str> {
        let share = |subject: &str| self.subjects.take(subject.to_owned()).ok_or(TOO_MANY_OWN);
        let _share = subject.map(share).transpose()?;
        let take = |turns: &Arc<Semaphore>| Arc::clone(turns).try_acquire_owned().ok();
        let own = || subject.is_none().then(|| take(&self.own)).flatten();
        let permit = take(&self.turns).or_else(own);
        Ok(Turn { _permit: permit.ok_or(TOO_MANY)?, _share })
    }
}

/// A document that was put together, or something else that is as much.
pub(crate) struct Exported<R = File> {
    source: R,
    pub(crate) size: u64,
}

impl Exported<Cursor<Vec<u8>>> {
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self { size: bytes.len() as u64, source: Cursor::new(bytes) }
    }
}

impl<R: Read + Send + 'static> Exported<R> {
    /// Its pieces, for somebody who takes them fast enough: otherwise they end too early, and all
    /// of it and its turn are given back, whether somebody looks for the next piece or not.
    pub(crate) fn pieces(
        self,
        turn: impl Send + 'static,
    ) -> impl Stream<Item = io::Result<Vec<u8>>> {
        let (sender, mut receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let _turn = turn;
            let mut due = Instant::now() + READER_PAUSES_MAX;
            let mut rest = Some(self);
            while let Some(left) = rest.take() {
                let read = left.read().await;
                let piece = match read {
                    Ok((piece, _)) if piece.is_empty() => return,
                    Ok((piece, left)) => {
                        rest = Some(left);
                        Ok(piece)
                    }
                    Err(error) => Err(error),
                };
                let size = piece.as_ref().map_or(0, Vec::len);
                match timeout_at(due, sender.send(piece)).await {
                    Ok(Ok(())) => due += Duration::from_secs_f64(size as f64 / READER_RATE_MIN),
                    Ok(Err(_)) => return,
                    Err(_) => return info!("an export was read too slowly"),
                }
            }
        });
        stream::poll_fn(move |context| receiver.poll_recv(context))
    }

    /// The next piece of it; empty at its end.
    async fn read(mut self) -> io::Result<(Vec<u8>, Self)> {
        spawn_blocking(move || {
            let mut piece = Vec::with_capacity(PIECE_SIZE);
            Read::by_ref(&mut self.source).take(PIECE_SIZE as u64).read_to_end(&mut piece)?;
            Ok((piece, self))
        })
        .await?
    }
}

/// Tells the room that nobody listens any more, however that came.
pub(crate) struct Leaves {
    pub(crate) room: RoomSender,
    pub(crate) conn: ConnId,
}

impl Drop for Leaves {
    fn drop(&mut self) {
        // A room that is closed has forgotten us already.
        let _ = self.room.send(RoomMail::Left { conn: self.conn });
    }
}

/// Puts the document together.
///
/// # Errors
///
/// What the room answers if there is none, or why it could not be done.
pub(crate) async fn export(shared: &Shared, document: &DocumentKey) -> Result<Exported, Answer> {
    let Some(room) = shared.rooms.room(document) else {
        return Err(failed(TOO_MANY_ROOMS));
    };
    let conn = ConnId(shared.connections_ever.fetch_add(1, Ordering::Relaxed));
    let (connection, mut end) = Connection::new(conn);
    let _leaves = Leaves { room: room.clone(), conn };
    let theirs = connection.clone();
    let may_still = asks_while();
    let asked_by = may_still.clone();
    let mail = |answer| RoomMail::Export { connection: theirs, answer, may_still: asked_by };
    match shared.rooms.ask_by(&room, mail).await {
        Answer::Exporting => {}
        other => return Err(other),
    }
    let folder = shared.data.clone();
    let mut file = blocking(move || tempfile::tempfile_in(folder)).await?;
    let began = Instant::now();
    loop {
        let next = timeout(PART_TAKES, end.queue.recv()).await;
        let message = next.map_err(|_| failed("the document has too much to do"))?;
        let Some(FromServer::About { body, .. }) = message.map(|message| *message) else {
            return Err(failed("the room has closed"));
        };
        match body {
            FromRoom::Opened { storage, .. } if storage.next == Lsn::FIRST => {
                return Ok(Exported { source: file, size: 0 });
            }
            FromRoom::Entry(part) => {
                let (is_last, reserved) = (part.is_last, entry_size(&part));
                let size = u64::from(part.db_pages) * PAGE_SIZE as u64;
                file = blocking(move || write(file, part)).await?;
                if is_last {
                    return Ok(Exported { source: file, size });
                }
                if may_still.as_ref().is_some_and(|may_still| !may_still()) {
                    return Err(Answer::LeftOut);
                }
                // It begins anew for as long as others write more than is read meanwhile.
                if began.elapsed() > takes_at_most(size) {
                    return Err(failed("others write in the document without a pause"));
                }
                // There is room for the next one.
                connection.release(reserved);
            }
            FromRoom::Refused(refusal) => {
                return Err(failed(&format!("the document cannot be read: {refusal:?}")));
            }
            _ => {}
        }
    }
}

/// How long somebody may take for so many bytes, whoever puts them together or reads them.
fn takes_at_most(size: u64) -> Duration {
    READER_PAUSES_MAX + Duration::from_secs_f64(size as f64 / READER_RATE_MIN)
}

/// Puts the pages of a part where they belong. The last one says how many there are.
fn write(mut file: File, part: EntryPart) -> io::Result<File> {
    for page in part.pages.iter() {
        let pgid = page.pgid;
        // What is read for somebody who has nothing goes by no other page.
        let page = page.decoded(|_| None).ok_or(io::ErrorKind::InvalidData)?;
        file.seek(SeekFrom::Start(u64::from(pgid.0 - 1) * PAGE_SIZE as u64))?;
        file.write_all(page.bytes())?;
    }
    if part.is_last {
        file.set_len(u64::from(part.db_pages) * PAGE_SIZE as u64)?;
        file.rewind()?;
    }
    Ok(file)
}

async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Answer> {
    let done = spawn_blocking(run).await.map_err(io::Error::from);
    done.flatten().map_err(|error| failed(&format!("the file cannot be written: {error}")))
}

fn failed(reason: &str) -> Answer {
    Answer::Failed { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::StreamExt;
    use tidelog_room::RoomSettings;
    use tidelog_sync::Channel;
    use tidelog_types::{EntryHash, JournalId, LsnRange, Position};
    use tokio::time::sleep;

    use super::*;
    use crate::rooms::tests::{Scene, list};
    use crate::rooms::{MayStill, asking};

    const PIECES: usize = 64;

    fn exported() -> Exported {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&vec![7; PIECES * PIECE_SIZE]).expect("written");
        file.rewind().expect("at its start");
        Exported { source: file, size: (PIECES * PIECE_SIZE) as u64 }
    }

    /// Goal: however many subjects export, an operator may. Method: two have all turns.
    #[test]
    fn an_operator_has_turns_of_its_own() {
        let exports = Exports::new(2 * EXPORTS_OF_SUBJECT_MAX);
        let subjects = ["ada", "eve"].iter().cycle().take(2 * EXPORTS_OF_SUBJECT_MAX);
        let turns: Vec<_> = subjects.map(|it| exports.turn(Some(it)).expect("one")).collect();
        assert_eq!(exports.turn(Some("bob")).err(), Some(TOO_MANY));
        let own = [exports.turn(None), exports.turn(None)];
        assert!(own.iter().all(Result::is_ok) && exports.turn(None).is_err());
        drop(turns);
        assert!(exports.turn(Some("bob")).is_ok() && exports.turn(None).is_ok());
    }

    /// How much somebody gets who pauses so long before each piece, and when its turn ends.
    async fn read(pause: Duration) -> (usize, Duration) {
        let turns = Arc::new(Semaphore::new(1));
        let turn = Arc::clone(&turns).try_acquire_owned().expect("one");
        let began = Instant::now();
        let given_back = tokio::spawn(async move {
            turns.acquire().await.expect("never closed").forget();
            began.elapsed()
        });
        let mut pieces = pin!(exported().pieces(turn));
        let mut size = 0;
        loop {
            sleep(pause).await;
            let Some(piece) = pieces.next().await else { break };
            size += piece.expect("it can be read").len();
        }
        (size, given_back.await.expect("no panic"))
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_hardly_reads_an_export_keeps_nobody_else_from_one() {
        let (size, took) = read(Duration::from_secs(60)).await;
        assert!(size < 4 * PIECE_SIZE, "{size}");
        assert!(took <= READER_PAUSES_MAX + Duration::from_secs(10), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_reads_an_export_at_the_least_rate_gets_all_of_it() {
        let pause = Duration::from_secs_f64(PIECE_SIZE as f64 / READER_RATE_MIN);
        let (size, took) = read(pause).await;
        assert_eq!(size, PIECES * PIECE_SIZE);
        assert!(took > pause * 60, "{took:?}");
    }

    /// A room that sends a part every few seconds, and no last one.
    async fn sends_without_end(mut mail: mpsc::UnboundedReceiver<RoomMail>) {
        let Some(RoomMail::Export { connection, answer, .. }) = mail.recv().await else {
            panic!("it is asked for")
        };
        answer.send(Answer::Exporting).expect("it is waited for");
        let position = Position::start_of(JournalId([7; 16]));
        let (range, hash) = (LsnRange::empty_at(Lsn::FIRST), EntryHash::default());
        let (pages, is_last, origin, db_pages) = (Arc::default(), false, None, 1);
        let is_predicted = false;
        let part =
            EntryPart { range, position, db_pages, origin, pages, is_predicted, hash, is_last };
        let (channel, body) = (Channel(0), FromRoom::Entry(part.clone()));
        let (room, _mail) = mpsc::unbounded_channel();
        loop {
            let fits = connection.reserve(entry_size(&part), &list(), &room.downgrade());
            assert!(fits, "it is taken as it comes");
            connection.send(FromServer::About { channel, body: body.clone() });
            sleep(PART_TAKES / 2).await;
        }
    }

    /// Goal: a document that others write in without end keeps nobody else from exporting.
    #[tokio::test(start_paused = true)]
    async fn an_export_does_not_take_for_ever() {
        let scene = Scene::new(RoomSettings::default());
        let shared = Shared::of(&scene);
        let (document, began) = (list(), Instant::now());
        tokio::select! {
            exported = export(&shared, &document) => {
                assert!(matches!(exported, Err(Answer::Failed { .. })));
            }
            () = sends_without_end(scene.mail()) => {}
            () = sleep(10 * READER_PAUSES_MAX) => panic!("it takes for ever"),
        }
        assert!(began.elapsed() >= READER_PAUSES_MAX, "{:?}", began.elapsed());
    }

    /// Goal: nothing more is put together for whoever may not have it any longer. Method: that is
    /// so from some time on.
    #[tokio::test(start_paused = true)]
    async fn an_export_is_left_off_once_whoever_asked_may_not_any_longer() {
        let scene = Scene::new(RoomSettings::default());
        let (shared, document, began) = (Shared::of(&scene), list(), Instant::now());
        let may_still: MayStill = Arc::new(move || began.elapsed() < 2 * PART_TAKES);
        let exports = asking(Some(may_still), export(&shared, &document));
        tokio::select! {
            exported = exports => assert!(matches!(exported, Err(Answer::LeftOut))),
            () = sends_without_end(scene.mail()) => {}
            () = sleep(3 * PART_TAKES) => panic!("it goes on"),
        }
    }
}
