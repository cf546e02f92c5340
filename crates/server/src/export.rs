//! A document as a file.
//!
//! Whoever exports follows the document like a client that holds nothing, a chunk at a time, and
//! leaves when all is there. Pages come in any order and some come twice, so they are put together
//! in a file without a name on the disk of the store: memory holds one chunk of them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidelog_room::{Answer, ConnId, entry_size};
use tidelog_sync::{EntryPart, FromRoom, FromServer};
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{DocumentKey, Lsn};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::connection::Connection;
use crate::rooms::{RoomMail, RoomSender, TOO_MANY_ROOMS};
use crate::server::Shared;

/// Within which time the next part of a document comes.
const PART_TAKES: Duration = Duration::from_secs(10);
/// Bytes of the file that are in memory while it is sent.
const PIECE_SIZE: usize = 256 * 1024;

/// A document that was put together.
pub(crate) struct Exported {
    file: File,
    pub(crate) size: u64,
}

impl Exported {
    /// The next piece of it; empty at its end.
    pub(crate) async fn read(mut self) -> io::Result<(Vec<u8>, Self)> {
        spawn_blocking(move || {
            let mut piece = Vec::with_capacity(PIECE_SIZE);
            Read::by_ref(&mut self.file).take(PIECE_SIZE as u64).read_to_end(&mut piece)?;
            Ok((piece, self))
        })
        .await?
    }
}

/// Tells the room that nobody listens any more, however that came.
struct Leaves {
    room: RoomSender,
    conn: ConnId,
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
    let mail = |answer| RoomMail::Export { connection: theirs, answer };
    match shared.rooms.ask_by(&room, mail).await {
        Answer::Exporting => {}
        other => return Err(other),
    }
    let folder = shared.data.clone();
    let mut file = blocking(move || tempfile::tempfile_in(folder)).await?;
    loop {
        let next = timeout(PART_TAKES, end.queue.recv()).await;
        let message = next.map_err(|_| failed("the document has too much to do"))?;
        let Some(FromServer::About { body, .. }) = message.map(|message| *message) else {
            return Err(failed("the room has closed"));
        };
        match body {
            FromRoom::Opened { storage, .. } if storage.next == Lsn::FIRST => {
                return Ok(Exported { file, size: 0 });
            }
            FromRoom::Entry(part) => {
                let (is_last, reserved) = (part.is_last, entry_size(&part));
                let size = u64::from(part.db_pages) * PAGE_SIZE as u64;
                file = blocking(move || write(file, part)).await?;
                if is_last {
                    return Ok(Exported { file, size });
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

/// Puts the pages of a part where they belong. The last one says how many there are.
fn write(mut file: File, part: EntryPart) -> io::Result<File> {
    for page in part.pages {
        let (pgid, page) = page.decoded();
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
