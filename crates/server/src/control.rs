//! The way from a command to the server of the same folder: a Unix socket in it, for its owner
//! alone. A line of JSON asks, and a line of JSON answers.
//!
//! ```text
//! {"ask":"cut"}  ▶ ◀ {"log":"log-a","log_head":"5449…","log_size":8192,"pages_size":8192}
//!                    the command copies the files: nothing of them is written over meanwhile
//! {"ask":"held"} ▶ ◀ {"held":true}
//! ```
//!
//! What cannot be done is answered by `{"error":"…"}`. With the connection the cut ends too.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::store::{HeldCut, StoreHandle};

/// What the socket is called, in the folder of the store.
pub(crate) const FILE_NAME: &str = "control";
/// Bytes of a line that asks.
const LINE_SIZE_MAX: u64 = 1024;
/// After which time one is listened to again where that failed.
const REST: Duration = Duration::from_secs(1);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(crate) enum Asked {
    /// A cut through the store.
    Cut,
    /// Whether that was held all the time.
    Held,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Answered {
    /// It could not be done.
    Error {
        /// Why.
        error: String,
    },
    /// What may be copied.
    Cut {
        /// What the log file is called.
        log: String,
        /// What it begins with, in hexadecimal digits.
        log_head: String,
        /// Bytes of it.
        log_size: u64,
        /// Bytes of the page file.
        pages_size: u64,
    },
    /// Whether it was held.
    Held {
        /// Whether.
        held: bool,
    },
}

/// Listens in this folder until the server stops.
pub(crate) fn listen(
    folder: &Path,
    store: StoreHandle,
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
    tokio::spawn(accept(listener, store, stopped, path));
    Ok(())
}

fn set_mode(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

async fn accept(
    listener: UnixListener,
    store: StoreHandle,
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
                let store = store.clone();
                tokio::spawn(async move {
                    // One who is gone is answered nothing.
                    let _ = answer(stream, store).await;
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
async fn answer(stream: UnixStream, store: StoreHandle) -> io::Result<()> {
    let mut cut = None;
    let ended = converse(stream, &store, &mut cut).await;
    if cut.take().is_some() {
        store.cut_is_over();
    }
    ended
}

async fn converse(
    stream: UnixStream,
    store: &StoreHandle,
    cut: &mut Option<Arc<HeldCut>>,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        if (&mut read).take(LINE_SIZE_MAX).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let answered = match serde_json::from_slice(&line) {
            Ok(Asked::Cut) if cut.is_some() => error("there is one already"),
            Ok(Asked::Cut) => match store.cut().await {
                Ok(held) => {
                    info!("a backup is being made");
                    let HeldCut { log, log_head, log_size, pages_size, .. } = &**cut.insert(held);
                    let (log_size, pages_size) = (*log_size, *pages_size);
                    Answered::Cut {
                        log: log.clone(),
                        log_head: hex(log_head),
                        log_size,
                        pages_size,
                    }
                }
                Err(reason) => error(&reason),
            },
            Ok(Asked::Held) => Answered::Held { held: cut.as_ref().is_some_and(|it| it.is_held()) },
            Err(_) => error("that is no question"),
        };
        let mut line = serde_json::to_vec(&answered)?;
        line.push(b'\n');
        write.write_all(&line).await?;
    }
}

fn error(reason: &str) -> Answered {
    Answered::Error { error: reason.to_owned() }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
