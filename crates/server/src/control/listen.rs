//! The server's end of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use futures_util::{Stream, StreamExt as _, stream};
use tidelog_access::RevocationError;
use tidelog_room::Answer;
use tidelog_types::DocumentKey;
use tidelog_types::limits::IMPORT_SIZE_MAX;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use super::{Answered, Asked, FILE_NAME};
use crate::access::RevokeError;
use crate::audit::Who;
use crate::export;
use crate::import::{self, ImportError, Imported};
use crate::shared::Shared;
use crate::store::HeldCut;

/// Bytes of a line that asks: names may be long, and each of their characters six.
const LINE_SIZE_MAX: u64 = 16 * 1024;
/// Bytes of a file that are read at once.
const PIECE_SIZE: usize = 64 * 1024;
/// Why nobody's tokens are changed.
const NO_TOKENS: &str = "a server with --dev has no tokens: it asks nobody for one";
/// After which time one is listened to again where that failed.
const REST: Duration = Duration::from_secs(1);

/// Listens in this folder until the server stops.
pub(crate) fn listen(
    folder: &Path,
    shared: Arc<Shared>,
    stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let path = folder.join(FILE_NAME);
    // One that was killed left it; no other one can be there, since the store is ours.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    set_mode(&path)?;
    tokio::spawn(accept(listener, shared, stopped, path));
    Ok(())
}

fn set_mode(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

async fn accept(
    listener: UnixListener,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
    path: PathBuf,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    // One who is gone is answered nothing.
                    let _ = answer(stream, shared).await;
                });
            }
            Err(error) => {
                warn!(%error, "no command can be heard");
                sleep(REST).await;
            }
        }
    }
    let _ = std::fs::remove_file(path);
}

/// Answers one command until it is gone.
async fn answer(stream: UnixStream, shared: Arc<Shared>) -> io::Result<()> {
    let (read, write) = stream.into_split();
    let (store, read) = (shared.store.clone(), BufReader::new(read));
    let mut talk = Talk { shared, read, write, cut: None };
    let ended = talk.answer_all().await;
    if talk.cut.take().is_some() {
        store.cut_is_over();
    }
    ended
}

/// A command, and what it was given.
struct Talk {
    shared: Arc<Shared>,
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    cut: Option<Arc<HeldCut>>,
}

impl Talk {
    async fn answer_all(&mut self) -> io::Result<()> {
        loop {
            let mut line = Vec::new();
            if (&mut self.read).take(LINE_SIZE_MAX).read_until(b'\n', &mut line).await? == 0 {
                return Ok(());
            }
            match serde_json::from_slice(&line) {
                Ok(Asked::Cut) => {
                    let answered = self.cut().await;
                    self.say(&answered).await?;
                }
                Ok(Asked::Held) => {
                    let held = self.cut.as_ref().is_some_and(|it| it.is_held());
                    self.say(&Answered::Held { held }).await?;
                }
                Ok(Asked::Export { document }) => self.export(&document).await?,
                Ok(Asked::Import { document, doctype, size }) => {
                    let mut left = 0;
                    let answered = match self.import(&document, &doctype, size, &mut left).await? {
                        Ok(imported) => Answered::Imported(imported),
                        Err(why) => error(&why.to_string()),
                    };
                    self.say(&answered).await?;
                    // What of a file is still on its way asks for nothing, whatever it says.
                    if left > 0 {
                        return Ok(());
                    }
                }
                Ok(Asked::Ready) => {
                    let answered = match self.shared.readiness() {
                        Ok(()) => Answered::Ready { ready: true },
                        Err(why) => error(&why),
                    };
                    self.say(&answered).await?;
                }
                Ok(Asked::Revoke { subject }) => {
                    let answered = self.revoke(subject).await;
                    self.say(&answered).await?;
                }
                Ok(Asked::Forgive { subject }) => {
                    let answered = self.forgive(subject).await;
                    self.say(&answered).await?;
                }
                Err(_) => self.say(&error("that is no question")).await?,
            }
        }
    }

    async fn revoke(&self, subject: String) -> Answered {
        let Some(guard) = &self.shared.guard else { return error(NO_TOKENS) };
        let revoked = guard.revoke_subject(subject.clone()).await;
        self.tell("revoke", Some(&subject), revoked.map(|()| true))
    }

    async fn forgive(&self, subject: Option<String>) -> Answered {
        let Some(guard) = &self.shared.guard else { return error(NO_TOKENS) };
        let forgiven = guard.forgive(subject.clone()).await;
        self.tell("forgive", subject.as_deref(), forgiven)
    }

    /// Tells the log what came of it, as over HTTP, and gives what is answered.
    fn tell(&self, event: &str, whom: Option<&str>, done: Result<bool, RevokeError>) -> Answered {
        let outcome = match &done {
            Ok(true) => StatusCode::NO_CONTENT,
            Ok(false) => StatusCode::NOT_FOUND,
            Err(RevokeError::Revocation(RevocationError::Name)) => StatusCode::BAD_REQUEST,
            Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        self.shared.rooms.audit().act(event, &Who::default(), whom, outcome.as_u16());
        match done {
            Ok(changed) => Answered::Changed { changed },
            Err(why) => error(&why.to_string()),
        }
    }

    async fn say(&mut self, answered: &Answered) -> io::Result<()> {
        let mut line = serde_json::to_vec(answered)?;
        line.push(b'\n');
        self.write.write_all(&line).await
    }

    async fn cut(&mut self) -> Answered {
        if self.cut.is_some() {
            return error("there is one already");
        }
        match self.shared.store.cut().await {
            Ok(held) => {
                self.shared.rooms.audit().act("cut", &Who::default(), None, 200);
                let HeldCut { log, log_head, log_size, pages_size, .. } = &**self.cut.insert(held);
                let (log, log_head) = (log.clone(), hex(log_head));
                Answered::Cut { log, log_head, log_size: *log_size, pages_size: *pages_size }
            }
            Err(reason) => error(&reason),
        }
    }

    async fn export(&mut self, document: &str) -> io::Result<()> {
        let Ok(key) = DocumentKey::new(document, "") else {
            return self.say(&no_document(document)).await;
        };
        let turn = match self.shared.exports.turn(None) {
            Ok(turn) => turn,
            Err(why) => return self.say(&error(why)).await,
        };
        let exported = match export::export(&self.shared, &key).await {
            Ok(exported) => exported,
            Err(Answer::Missing) => return self.say(&no_document(document)).await,
            Err(Answer::Failed { reason } | Answer::Unknown { reason }) => {
                return self.say(&error(&reason)).await;
            }
            Err(_) => return self.say(&error("the room answers something else")).await,
        };
        self.shared.rooms.audit().act("export", &Who::default(), Some(document), 200);
        self.say(&Answered::Export { export_size: exported.size }).await?;
        let mut left = exported.size;
        let mut pieces = std::pin::pin!(exported.pieces(turn));
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            left -= piece.len() as u64;
            self.write.write_all(&piece).await?;
        }
        match left {
            0 => Ok(()),
            // They end early for whoever takes them too slowly.
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The outer error is that of the connection. `left` says how many bytes of a file that was
    /// wanted have not been read.
    async fn import(
        &mut self,
        document: &str,
        doctype: &str,
        size: u64,
        left: &mut u64,
    ) -> io::Result<Result<Imported, ImportError>> {
        if size > IMPORT_SIZE_MAX {
            return Ok(Err(ImportError::TooLarge));
        }
        let shared = Arc::clone(&self.shared);
        let import = match import::prepare(&shared, document, doctype, None).await {
            Ok(import) => import,
            Err(why) => return Ok(Err(why)),
        };
        self.say(&Answered::Wanted { wanted: true }).await?;
        *left = size;
        let pieces = std::pin::pin!(pieces(&mut self.read, left));
        let imported = match import.receive(pieces, &|| Ok(())).await {
            Ok(came) => came.plant(|| Ok(())).await,
            Err(why) => Err(why),
        };
        let outcome = imported.as_ref().map_or_else(ImportError::status, |_| StatusCode::CREATED);
        // Whoever may open the socket is the server's own user.
        let (audit, who) = (shared.rooms.audit(), Who::default());
        audit.act("import", &who, Some(document), outcome.as_u16());
        Ok(imported)
    }
}

/// So many bytes that come, of which those are taken off that have.
fn pieces(
    read: &mut (impl AsyncRead + Unpin),
    left: &mut u64,
) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((read, left), async |(read, left)| {
        if *left == 0 {
            return Ok(None);
        }
        let mut piece = vec![0; PIECE_SIZE.min(usize::try_from(*left).unwrap_or(PIECE_SIZE))];
        let size = read.read(&mut piece).await?;
        if size == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        piece.truncate(size);
        *left -= size as u64;
        Ok(Some((Bytes::from(piece), (read, left))))
    })
}

fn error(reason: &str) -> Answered {
    Answered::Error { error: reason.to_owned() }
}

fn no_document(document: &str) -> Answered {
    error(&format!("there is no document {document}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
