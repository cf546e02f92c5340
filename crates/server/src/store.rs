//! The store's thread: one page server for all rooms, one flush for all that waits.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tidelog_disk::{DiskError, NativeDisk, StoreFiles};
use tidelog_pages::{OpenError, OwnerId, PageServer, StoreReply, StoreRequest};
use tidelog_types::DocumentKey;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{error, info, warn};

use crate::counters::{Counters, add};

/// After which time a store that failed is opened anew.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// Within which time a question to the store is answered, unless it is in trouble.
const ANSWER_TAKES: Duration = Duration::from_secs(10);

/// Why a store could not be opened.
#[derive(Debug)]
pub(crate) enum OpenStoreError {
    /// Another process has it.
    InUse,
    /// Anything else.
    Failed { reason: String },
}

/// What the thread is sent.
enum StoreMail {
    Enter { owner: OwnerId, replies: UnboundedSender<StoreReply> },
    Leave { owner: OwnerId },
    Ask { owner: OwnerId, request: StoreRequest },
    Stop,
}

/// The store and its thread.
pub(crate) struct Store {
    handle: StoreHandle,
    thread: JoinHandle<()>,
}

/// A way to the store's thread.
#[derive(Clone)]
pub(crate) struct StoreHandle {
    mail: mpsc::Sender<StoreMail>,
    owners_ever: Arc<AtomicU64>,
    is_open: Arc<AtomicBool>,
    damage: Arc<Mutex<Option<String>>>,
}

/// One who asks, and is answered.
pub(crate) struct StoreOwner {
    owner: OwnerId,
    mail: mpsc::Sender<StoreMail>,
    pub(crate) replies: UnboundedReceiver<StoreReply>,
}

impl Store {
    /// Opens the store in `folder` and starts its thread.
    pub(crate) fn open(folder: &Path, counters: Arc<Counters>) -> Result<Self, OpenStoreError> {
        let (server, found) = open_page_server(folder)?;
        let damage = Arc::new(Mutex::new(found));
        let (mail, inbox) = mpsc::channel();
        let is_open = Arc::new(AtomicBool::new(true));
        let thread = StoreThread {
            folder: folder.to_owned(),
            inbox,
            needs_flush: false,
            owners: HashMap::new(),
            is_open: Arc::clone(&is_open),
            damage: Arc::clone(&damage),
            counters,
        };
        let failed = |error: std::io::Error| OpenStoreError::Failed { reason: error.to_string() };
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || thread.run(server))
            .map_err(failed)?;
        let owners_ever = Arc::new(AtomicU64::new(1));
        let handle = StoreHandle { mail, owners_ever, is_open, damage };
        Ok(Self { handle, thread })
    }

    pub(crate) fn handle(&self) -> StoreHandle {
        self.handle.clone()
    }

    /// Carries out what it was asked so far, and closes the files.
    pub(crate) fn close(self) {
        // A thread that is gone has nothing left to carry out.
        let _ = self.handle.mail.send(StoreMail::Stop);
        if self.thread.join().is_err() {
            error!("the store's thread panicked");
        }
    }
}

impl StoreHandle {
    pub(crate) fn owner(&self) -> StoreOwner {
        let owner = OwnerId(self.owners_ever.fetch_add(1, Ordering::Relaxed));
        let (sender, replies) = unbounded_channel();
        // If the thread is gone, the server is about to end.
        let _ = self.mail.send(StoreMail::Enter { owner, replies: sender });
        StoreOwner { owner, mail: self.mail.clone(), replies }
    }

    /// The names of all documents; `None` if the store does not answer.
    pub(crate) async fn documents(&self) -> Option<Vec<DocumentKey>> {
        let mut owner = self.owner();
        owner.ask(StoreRequest::List { request: 1 });
        let answered = async {
            loop {
                match owner.replies.recv().await? {
                    StoreReply::Documents { documents, .. } => return Some(documents),
                    StoreReply::Broken { .. } => return None,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(ANSWER_TAKES, answered).await.ok().flatten()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// What is wrong with it, if it can only be read.
    pub(crate) fn damage(&self) -> Option<String> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl StoreOwner {
    pub(crate) fn ask(&self, request: StoreRequest) {
        let _ = self.mail.send(StoreMail::Ask { owner: self.owner, request });
    }
}

impl Drop for StoreOwner {
    fn drop(&mut self) {
        let _ = self.mail.send(StoreMail::Leave { owner: self.owner });
    }
}

struct StoreThread {
    folder: PathBuf,
    inbox: mpsc::Receiver<StoreMail>,
    needs_flush: bool,
    owners: HashMap<OwnerId, UnboundedSender<StoreReply>>,
    is_open: Arc<AtomicBool>,
    damage: Arc<Mutex<Option<String>>>,
    counters: Arc<Counters>,
}

enum Round {
    GoOn,
    Stop,
    /// The store has to be opened anew.
    Broken,
}

impl StoreThread {
    fn run(mut self, mut server: PageServer<NativeDisk>) {
        loop {
            match self.round(&mut server) {
                Round::GoOn => {}
                Round::Stop => return,
                Round::Broken => {
                    self.is_open.store(false, Ordering::Relaxed);
                    // It holds the files.
                    drop(server);
                    server = self.reopen();
                    self.is_open.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    fn round(&mut self, server: &mut PageServer<NativeDisk>) -> Round {
        // What is under way is carried on with; otherwise nothing happens until somebody asks.
        if !server.wants_poll() {
            match self.inbox.recv() {
                Ok(StoreMail::Stop) | Err(_) => return Round::Stop,
                Ok(mail) => self.take(server, mail),
            }
        }
        // All that waits goes down together.
        let mut stop = false;
        while let Ok(mail) = self.inbox.try_recv() {
            stop |= matches!(mail, StoreMail::Stop);
            self.take(server, mail);
        }
        // Nobody hears of what was appended before the flush: so what a room finds in the store
        // when it opens its document is durable.
        if std::mem::take(&mut self.needs_flush) {
            server.flush();
            add(&self.counters.flushes, 1);
        }
        for (owner, reply) in server.poll() {
            if let Some(replies) = self.owners.get(&owner) {
                // The owner may be gone.
                let _ = replies.send(reply);
            }
        }
        if stop {
            Round::Stop
        } else if server.is_broken() {
            Round::Broken
        } else {
            Round::GoOn
        }
    }

    fn take(&mut self, server: &mut PageServer<NativeDisk>, mail: StoreMail) {
        match mail {
            StoreMail::Enter { owner, replies } => {
                self.owners.insert(owner, replies);
            }
            StoreMail::Leave { owner } => {
                self.owners.remove(&owner);
                server.forget_owner(owner);
            }
            StoreMail::Ask { owner, request } => {
                let writes =
                    matches!(request, StoreRequest::Append { .. } | StoreRequest::Destroy { .. });
                self.needs_flush |= writes;
                add(&self.counters.appends, u64::from(writes));
                server.serve(owner, request);
            }
            StoreMail::Stop => {}
        }
    }

    fn reopen(&self) -> PageServer<NativeDisk> {
        loop {
            match open_page_server(&self.folder) {
                Ok((server, damage)) => {
                    *self.damage.lock().unwrap_or_else(PoisonError::into_inner) = damage;
                    return server;
                }
                Err(error) => warn!(?error, "the store cannot be opened again yet"),
            }
            std::thread::sleep(REOPEN_AFTER);
        }
    }
}

/// The store in `folder`, and what is wrong with it if it is damaged.
fn open_page_server(
    folder: &Path,
) -> Result<(PageServer<NativeDisk>, Option<String>), OpenStoreError> {
    let failed = |error: &dyn std::error::Error| {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            reason = format!("{reason}: {error}");
            cause = error.source();
        }
        OpenStoreError::Failed { reason }
    };
    let files = match StoreFiles::in_folder(folder) {
        Ok(files) => files,
        Err(DiskError::Busy) => return Err(OpenStoreError::InUse),
        Err(error) => return Err(failed(&error)),
    };
    let (server, found) = PageServer::open(files).map_err(|error: OpenError| failed(&error))?;
    if let Some(cut) = &found.cut {
        warn!(?cut, "a torn tail of the log was cut: it was never acknowledged");
    }
    if let Some(damage) = &found.damage {
        error!(?damage, "the log is damaged: the store can be read, and every write is refused");
    }
    info!(
        documents = found.documents,
        log_size = found.log_size,
        batches = found.batches,
        "the store is open"
    );
    let damage = found.damage.map(|damage| {
        format!(
            "the log is damaged in {} places, and {} documents are incomplete: what is whole can \
             be read, and every write is refused; restore the folder from a backup",
            damage.places.len(),
            damage.incomplete.len() + damage.nameless,
        )
    });
    Ok((server, damage))
}
