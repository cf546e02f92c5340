//! The store's thread: one page server for all rooms, one flush for all that waits.

mod cuts;
mod size;

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidelog_disk::{DiskError, NativeDisk, StoreFiles};
use tidelog_pages::{
    AppendError, OpenError, OwnerId, PageServer, RequestId, Seed, StoreOptions, StoreReply,
    StoreRequest, Ticket,
};
use tidelog_room::{ARCHIVE, STAGED};
use tidelog_types::limits::Limits;
use tidelog_types::{DocumentKey, Life};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};

use crate::access;
use crate::counters::{Counters, add};
use cuts::Cuts;
pub(crate) use cuts::HeldCut;

/// After which time a store that failed is opened anew.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// How often a store that was whole is opened until it is believed to be damaged: a device that
/// failed may be back soon, and a damaged store is not written to before somebody has looked.
const DAMAGE_TRIES: u32 = 10;
/// After which time a store that nobody asks anything gives back the pages that it keeps.
const QUIET_STORE_RESTS: Duration = Duration::from_secs(10);
/// Within which time a question to the store is answered, unless it is in trouble.
const ANSWER_TAKES: Duration = Duration::from_secs(10);

/// Documents whose records the store is asked for at once.
const RECORDS_AT_ONCE: usize = 16;

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
    Enter {
        owner: OwnerId,
        replies: UnboundedSender<Box<StoreReply>>,
    },
    Leave {
        owner: OwnerId,
    },
    Ask {
        owner: OwnerId,
        request: Box<StoreRequest>,
    },
    /// Answered at once, or dropped while the store cannot be opened.
    Beat(oneshot::Sender<()>),
    /// Answered by what may be copied, or why nothing may.
    Cut(oneshot::Sender<Result<Arc<HeldCut>, String>>),
    Stop,
    /// A promise of the store's is broken.
    #[cfg(test)]
    Panic,
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
    damage: Arc<Mutex<Option<String>>>,
}

/// One who asks, and is answered.
pub(crate) struct StoreOwner {
    owner: OwnerId,
    mail: mpsc::Sender<StoreMail>,
    /// In boxes, since a queue makes room for some ahead.
    pub(crate) replies: UnboundedReceiver<Box<StoreReply>>,
}

impl Store {
    /// Opens the store in `folder` and starts its thread.
    pub(crate) fn open(
        folder: &Path,
        limits: Limits,
        counters: Arc<Counters>,
    ) -> Result<Self, OpenStoreError> {
        let (mut server, found) = open_page_server(folder, limits)?;
        begin(&mut server, found.as_deref());
        let damage = Arc::new(Mutex::new(found));
        measure(&server, folder, &counters);
        let (mail, inbox) = mpsc::channel();
        let thread = StoreThread {
            folder: folder.to_owned(),
            limits,
            inbox,
            needs_flush: false,
            owners: HashMap::new(),
            cuts: Cuts::default(),
            damage: Arc::clone(&damage),
            counters,
        };
        let failed = |error: std::io::Error| OpenStoreError::Failed { reason: error.to_string() };
        let thread = spawn(move || thread.run(server), || std::process::abort()).map_err(failed)?;
        let owners_ever = Arc::new(AtomicU64::new(1));
        let handle = StoreHandle { mail, owners_ever, damage };
        Ok(Self { handle, thread })
    }

    pub(crate) fn handle(&self) -> StoreHandle {
        self.handle.clone()
    }

    /// Carries out what it was asked so far, and closes the files.
    pub(crate) fn close(self) {
        // A thread that is gone has nothing left to carry out, and has ended the process.
        let _ = self.handle.mail.send(StoreMail::Stop);
        let _ = self.thread.join();
    }
}

/// Starts the store's thread. Without it nothing is durable any more and nobody would notice: if it
/// ends by a panic, `on_panic` ends the process, whose next life recovers from the disk.
fn spawn(
    run: impl FnOnce() + Send + 'static,
    on_panic: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("store".to_owned()).spawn(move || {
        // Nothing of what it left behind is looked at again.
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            error!("the store's thread broke a promise: the process ends");
            on_panic();
        }
    })
}

impl StoreHandle {
    pub(crate) fn owner(&self) -> StoreOwner {
        let owner = OwnerId(self.owners_ever.fetch_add(1, Ordering::Relaxed));
        let (sender, replies) = unbounded_channel();
        // If the thread is gone, the server is about to end.
        let _ = self.mail.send(StoreMail::Enter { owner, replies: sender });
        StoreOwner { owner, mail: self.mail.clone(), replies }
    }

    /// The names of all documents, without what is staged and archives; `None` if the store does
    /// not answer.
    pub(crate) async fn documents(&self) -> Option<Vec<DocumentKey>> {
        let mut owner = self.owner();
        owner.ask(StoreRequest::List { request: RequestId(1) });
        let answered = async {
            loop {
                match *owner.replies.recv().await? {
                    StoreReply::Documents { mut documents, .. } => {
                        documents.retain(|key| key.user != STAGED && key.user != ARCHIVE);
                        return Some(documents);
                    }
                    StoreReply::Broken { .. } => return None,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(ANSWER_TAKES, answered).await.ok().flatten()
    }

    /// Gives the record of each of these documents, as it is in the store; `None` if that does not
    /// answer. Those that cannot be read are left out.
    pub(crate) async fn records(
        &self,
        documents: Vec<DocumentKey>,
        mut each: impl FnMut(DocumentKey, Vec<u8>),
    ) -> Option<()> {
        let mut owner = self.owner();
        let mut left = documents.into_iter();
        let mut asked = 0;
        loop {
            while asked < RECORDS_AT_ONCE
                && let Some(document) = left.next()
            {
                owner.ask(StoreRequest::Open { document });
                asked += 1;
            }
            if asked == 0 {
                return Some(());
            }
            let reply = tokio::time::timeout(ANSWER_TAKES, owner.replies.recv());
            match *reply.await.ok()?? {
                StoreReply::Opened { document, state, .. } => {
                    asked -= 1;
                    state.into_iter().for_each(|it| each(document.clone(), it.record));
                }
                StoreReply::Damaged { .. } => asked -= 1,
                StoreReply::Busy { .. } | StoreReply::Broken { .. } => return None,
                _ => {}
            }
        }
    }

    /// Whether the thread is there, and its store open, once it says so: it may hang for long.
    pub(crate) async fn beats(&self) -> bool {
        let (beat, beaten) = oneshot::channel();
        let _ = self.mail.send(StoreMail::Beat(beat));
        beaten.await.is_ok()
    }

    /// What may be copied of the store as it stands now, for as long as that is kept; or why it
    /// may not.
    pub(crate) async fn cut(&self) -> Result<Arc<HeldCut>, String> {
        let (answer, answered) = oneshot::channel();
        let _ = self.mail.send(StoreMail::Cut(answer));
        match tokio::time::timeout(ANSWER_TAKES, answered).await {
            Ok(Ok(cut)) => cut,
            Ok(Err(_)) | Err(_) => Err("the store does not answer".to_owned()),
        }
    }

    /// Nobody copies any more what was copied: it is looked for now.
    pub(crate) fn cut_is_over(&self) {
        let (beat, _) = oneshot::channel();
        let _ = self.mail.send(StoreMail::Beat(beat));
    }

    /// What is wrong with it, if it can only be read.
    pub(crate) fn damage(&self) -> Option<String> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl StoreOwner {
    pub(crate) fn ask(&self, request: StoreRequest) {
        let _ = self.mail.send(StoreMail::Ask { owner: self.owner, request: Box::new(request) });
    }
}

impl Drop for StoreOwner {
    fn drop(&mut self) {
        let _ = self.mail.send(StoreMail::Leave { owner: self.owner });
    }
}

struct StoreThread {
    folder: PathBuf,
    limits: Limits,
    inbox: mpsc::Receiver<StoreMail>,
    needs_flush: bool,
    owners: HashMap<OwnerId, UnboundedSender<Box<StoreReply>>>,
    cuts: Cuts,
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
                Round::Stop => {
                    self.cuts.let_go();
                    while (server.is_behind() || server.holds_back()) && server.wants_poll() {
                        self.answer(&mut server);
                    }
                    server.mark_durable();
                    server.flush();
                    return;
                }
                Round::Broken => {
                    self.cuts.let_go();
                    // It holds the files.
                    drop(server);
                    let Some(opened) = self.reopen() else { return };
                    server = opened;
                }
            }
        }
    }

    fn round(&mut self, server: &mut PageServer<NativeDisk>) -> Round {
        // What is under way is carried on with; otherwise nothing happens until somebody asks.
        if !server.wants_poll() {
            let mail = match self.inbox.recv_timeout(QUIET_STORE_RESTS) {
                Err(RecvTimeoutError::Timeout) => {
                    server.rest();
                    server.mark_durable();
                    self.inbox.recv().ok()
                }
                mail => mail.ok(),
            };
            match mail {
                Some(StoreMail::Stop) | None => return Round::Stop,
                Some(mail) => self.take(server, mail),
            }
        }
        server.set_time(access::now_ms());
        // All that waits goes down together.
        let mut stop = false;
        while let Ok(mail) = self.inbox.try_recv() {
            stop |= matches!(mail, StoreMail::Stop);
            self.take(server, mail);
        }
        // Nobody hears of what was appended before the flush: so what a room finds in the store
        // when it opens its document is durable.
        if std::mem::take(&mut self.needs_flush) {
            let began = Instant::now();
            server.flush();
            self.counters.flush.note(began.elapsed());
            add(&self.counters.flushes, 1);
        }
        self.cuts.sweep(server);
        self.answer(server);
        if stop {
            Round::Stop
        } else if server.is_broken() {
            Round::Broken
        } else {
            Round::GoOn
        }
    }

    /// Lets the store do what it can do now, and passes on what it says.
    fn answer(&self, server: &mut PageServer<NativeDisk>) {
        for (owner, reply) in server.poll() {
            if let Some(replies) = self.owners.get(&owner) {
                // The owner may be gone.
                let _ = replies.send(Box::new(reply));
            }
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
            // What comes late of one who was turned away builds on what may be lost.
            StoreMail::Ask { owner, .. } if !self.owners.contains_key(&owner) => {}
            StoreMail::Ask { owner, request } => {
                let writes =
                    matches!(*request, StoreRequest::Append { .. } | StoreRequest::Destroy { .. });
                self.needs_flush |= writes;
                add(&self.counters.appends, u64::from(writes));
                server.serve(owner, *request);
            }
            StoreMail::Beat(beat) => {
                measure(server, &self.folder, &self.counters);
                // Who asked may not wait any longer.
                let _ = beat.send(());
            }
            StoreMail::Cut(answer) => {
                let _ = answer.send(self.cuts.take(server));
            }
            StoreMail::Stop => {}
            #[cfg(test)]
            StoreMail::Panic => panic!("BUG: planted by a test"),
        }
    }

    /// Opens the store anew as soon as that is possible; `None` if it is to stop before. Nobody is
    /// served by it who was by the one before: everybody is told, and comes anew.
    fn reopen(&mut self) -> Option<PageServer<NativeDisk>> {
        for owner in self.owners.keys().copied().collect::<Vec<_>>() {
            self.turn_owner_away(owner);
        }
        let was_whole = self.damage.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        let mut tries = 0;
        loop {
            tries += 1;
            let again_at = Instant::now() + REOPEN_AFTER;
            match open_page_server(&self.folder, self.limits) {
                Ok((_, Some(damage))) if was_whole && tries < DAMAGE_TRIES => {
                    warn!(%damage, "the store is damaged, unless it can be read again soon");
                }
                Ok((mut server, damage)) => {
                    begin(&mut server, damage.as_deref());
                    *self.damage.lock().unwrap_or_else(PoisonError::into_inner) = damage;
                    return Some(server);
                }
                Err(error) => warn!(?error, "the store cannot be opened again yet"),
            }
            loop {
                let left = again_at.saturating_duration_since(Instant::now());
                match self.inbox.recv_timeout(left) {
                    Ok(StoreMail::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
                    Ok(mail) => self.turn_away(mail),
                    Err(RecvTimeoutError::Timeout) => break,
                }
            }
        }
    }

    /// Answers for a store that is not open.
    fn turn_away(&mut self, mail: StoreMail) {
        match mail {
            StoreMail::Enter { owner, replies } => {
                self.owners.insert(owner, replies);
            }
            StoreMail::Leave { owner } => {
                self.owners.remove(&owner);
            }
            StoreMail::Ask { owner, .. } => self.turn_owner_away(owner),
            // Dropped: it is not alive. How much room there is may be why.
            StoreMail::Beat(_) => size::measure(&self.folder, &self.counters),
            StoreMail::Cut(_) | StoreMail::Stop => {}
            #[cfg(test)]
            StoreMail::Panic => panic!("BUG: planted by a test"),
        }
    }

    /// Says that the store is gone, and serves this owner no more.
    fn turn_owner_away(&mut self, owner: OwnerId) {
        if let Some(replies) = self.owners.remove(&owner) {
            let reason = "the store is being opened again".to_owned();
            let reply = StoreReply::Broken { error: AppendError::Device { reason } };
            // The owner may be gone.
            let _ = replies.send(Box::new(reply));
        }
    }
}

/// Notes how large an open store is.
fn measure(server: &PageServer<NativeDisk>, folder: &Path, counters: &Counters) {
    counters.store_documents.store(server.documents_count() as u64, Ordering::Relaxed);
    size::measure(folder, counters);
}

/// Takes a store that is open for what it is, damaged or not.
fn begin(server: &mut PageServer<NativeDisk>, damage: Option<&str>) {
    if let Some(damage) = damage {
        error!(%damage, "the store is damaged");
    }
    give_back(server);
}

/// Has the store forget the local documents that were being handed over when the last server ended,
/// or the last store, and the archives of documents that were being deleted.
fn give_back(server: &mut PageServer<NativeDisk>) {
    let owner = OwnerId(0);
    server.serve(owner, StoreRequest::List { request: RequestId(1) });
    let replies = server.poll().into_iter().filter(|(to, _)| *to == owner);
    let listed = replies.filter_map(|(_, reply)| match reply {
        StoreReply::Documents { documents, .. } => Some(documents),
        _ => None,
    });
    let listed: BTreeSet<DocumentKey> = listed.flatten().collect();
    let is_archive_of_nothing = |key: &DocumentKey| {
        let of = DocumentKey { user: String::new(), ..key.clone() };
        key.user == ARCHIVE && !listed.contains(&of)
    };
    let left = listed.iter().filter(|key| key.user == STAGED || is_archive_of_nothing(key));
    let left: Vec<DocumentKey> = left.cloned().collect();
    if left.is_empty() {
        return;
    }
    for (document, ticket) in left.into_iter().zip(1..) {
        info!(%document, "what is left of it is given back");
        server.serve(owner, StoreRequest::Destroy { ticket: Ticket(ticket), document });
    }
    // Nobody waits for it: if it fails, they are given back the next time.
    server.flush();
    server.forget_owner(owner);
}

/// The store in `folder`, and what is wrong with it if it is damaged.
fn open_page_server(
    folder: &Path,
    limits: Limits,
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
    let seed = Seed(getrandom::u64().expect("the system gives random bytes"));
    let mut life = Life::NONE;
    getrandom::fill(&mut life.0).expect("the system gives random bytes");
    let options =
        StoreOptions { life, limits, now_ms: access::now_ms(), ..StoreOptions::default() };
    let (server, found) =
        PageServer::open_with(files, seed, options).map_err(|error: OpenError| failed(&error))?;
    if let Some(cut) = &found.cut {
        warn!(?cut, "a torn tail of the log was cut: it was never acknowledged");
    }
    if let Some(damage) = &found.damage {
        debug!(?damage, "the log is damaged");
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

#[cfg(test)]
pub(crate) mod tests {
    use tidelog_document::Doctype;
    use tidelog_pages::{Append, TimelineFrame};
    use tidelog_room::{ConnId, Doctypes, RoomSettings, Speaker};
    use tidelog_sync::{Channel, FromRoom, FromServer, Intent, Refusal, ToRoom, codec};
    use tidelog_types::{BudgetLimits, CallId, JournalId, Lsn, Position};
    use tokio::sync::Semaphore;

    use crate::connection::Connection;
    use crate::marks::Marks;
    use crate::rooms::{MessagePermit, RoomMail, RoomThreads, Rooms};

    use super::*;

    /// A store's thread that does not run.
    fn thread(folder: &Path, inbox: mpsc::Receiver<StoreMail>) -> StoreThread {
        StoreThread {
            folder: folder.to_owned(),
            limits: Limits::DEFAULT,
            inbox,
            needs_flush: false,
            owners: HashMap::new(),
            cuts: Cuts::default(),
            damage: Arc::default(),
            counters: Arc::default(),
        }
    }

    #[test]
    fn a_store_thread_that_panics_ends_the_process() {
        let (ended, heard) = mpsc::channel();
        let end = move || ended.send(()).expect("the test waits");
        let thread = spawn(|| panic!("BUG: planted by a test"), end).expect("a thread");
        heard.recv().expect("the process would have ended");
        thread.join().expect("the panic went no further");
    }

    /// A process of its own, by this very binary: `Store::open` says how it ends.
    #[cfg(unix)]
    #[test]
    fn a_process_whose_store_thread_is_dead_is_aborted() {
        use std::os::unix::process::ExitStatusExt as _;

        const FOLDER: &str = "TIDELOG_TEST_STORE_FOLDER";
        let own = "store::tests::a_process_whose_store_thread_is_dead_is_aborted";
        if let Some(folder) = std::env::var_os(FOLDER) {
            let folder = PathBuf::from(folder);
            let store = Store::open(&folder, Limits::DEFAULT, Arc::default()).expect("a store");
            store.handle.mail.send(StoreMail::Panic).expect("it is there");
            std::thread::sleep(Duration::from_secs(60));
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let binary = std::env::current_exe().expect("this one");
        let child = std::process::Command::new(binary)
            .args(["--exact", own])
            .env(FOLDER, folder.path())
            .output();
        let status = child.expect("it runs").status;
        assert_eq!(status.signal(), Some(6), "{status}: it aborts");
        Store::open(folder.path(), Limits::DEFAULT, Arc::default()).expect("another").close();
    }

    #[tokio::test]
    async fn a_store_without_a_thread_is_not_alive() {
        let (handle, inbox) = silent_store();
        drop(inbox);
        assert!(!handle.beats().await);
    }

    /// The way to a store that says nothing.
    pub(crate) fn silent_store() -> (StoreHandle, mpsc::Receiver<impl Send>) {
        let (mail, inbox) = mpsc::channel();
        let owners_ever = Arc::new(AtomicU64::new(1));
        (StoreHandle { mail, owners_ever, damage: Arc::default() }, inbox)
    }

    #[test]
    fn a_store_that_cannot_be_opened_again_stops_all_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let no_folder = folder.path().join("file");
        std::fs::write(&no_folder, "in the way").expect("written");
        let (mail, inbox) = mpsc::channel();
        let mut thread = thread(&no_folder, inbox);
        let (owner, request) = (OwnerId(1), StoreRequest::List { request: RequestId(1) });
        let (replies, mut answers) = unbounded_channel();
        for mail_item in [
            StoreMail::Enter { owner, replies },
            StoreMail::Ask { owner, request: Box::new(request) },
            StoreMail::Stop,
        ] {
            mail.send(mail_item).expect("the thread is there");
        }
        assert!(thread.reopen().is_none());
        let answer = answers.try_recv().map(|reply| *reply);
        assert!(matches!(answer, Ok(StoreReply::Broken { .. })), "nobody waits");
    }

    /// Goal: what is appended becomes durable at once, whoever asks for something else beside it.
    /// Method: a question is read from the mail together with an append, behind it.
    #[test]
    fn an_append_with_a_question_behind_it_is_durable_in_the_same_round() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mail, inbox) = mpsc::channel();
        let (owner, (replies, mut answers)) = (OwnerId(1), unbounded_channel());
        let mut thread = thread(folder.path(), inbox);
        let mut server = thread.reopen().expect("nothing is in the way");
        thread.owners.insert(owner, replies);
        let mut append = Append::to(DocumentKey::new("list", "").expect("a name"));
        append.record = Some(vec![1].into());
        let append = StoreRequest::Append { ticket: Ticket(2), append };
        for request in [append, StoreRequest::List { request: RequestId(1) }].map(Box::new) {
            mail.send(StoreMail::Ask { owner, request }).expect("the thread is there");
        }
        assert!(matches!(thread.round(&mut server), Round::GoOn));
        let mut heard = std::iter::from_fn(|| answers.try_recv().ok());
        assert!(heard.any(|reply| *reply == StoreReply::Durable { ticket: Ticket(2) }));
    }

    /// Goal: nothing is built on an append that is lost. Method: a room has sent an append before
    /// it heard that the store is gone, and the thread finds it when the store is open again.
    #[test]
    fn what_was_sent_to_a_store_that_is_gone_is_not_carried_out_by_the_next() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mail, inbox) = mpsc::channel();
        let (owner, (replies, mut answers)) = (OwnerId(1), unbounded_channel());
        let mut thread = thread(folder.path(), inbox);
        thread.owners.insert(owner, replies);
        let mut append = Append::to(DocumentKey::new("list", "").expect("a name"));
        append.record = Some(vec![1].into());
        let request = Box::new(StoreRequest::Append { ticket: Ticket(2), append });
        mail.send(StoreMail::Ask { owner, request }).expect("the thread is there");
        let mut server = thread.reopen().expect("nothing is in the way");
        // There is something to hear, so the thread does not wait.
        assert!(matches!(thread.round(&mut server), Round::GoOn));
        assert!(server.to_string().starts_with("documents 0 "), "{server}");
        let answer = answers.try_recv().map(|reply| *reply);
        assert!(matches!(answer, Ok(StoreReply::Broken { .. })), "nobody waits");
        assert!(answers.try_recv().is_err(), "nothing else is said to it");
    }

    /// Goal: a document is not called missing whose name may be what was lost. Method: the test is
    /// the store's thread, whose store fails under a room and is found damaged.
    #[tokio::test]
    async fn a_room_hears_that_the_store_was_found_damaged_when_it_was_opened_anew() {
        let (mail, inbox) = mpsc::channel();
        let (owners_ever, damage) = (Arc::new(AtomicU64::new(1)), Arc::default());
        let handle = StoreHandle { mail, owners_ever, damage: Arc::clone(&damage) };
        let threads = RoomThreads::start().expect("threads");
        let folder = tempfile::tempdir().expect("a folder");
        let caution = Arc::new(Marks::open(folder.path()));
        let settings = RoomSettings { doctypes: Doctypes::any(), ..RoomSettings::default() };
        let rooms = Rooms::new(handle, settings, caution, Arc::default(), threads.handle());
        let document = DocumentKey::new("list", "").expect("a name");
        let room = rooms.room(&document).expect("there is room");
        let (connection, mut end) = Connection::new(ConnId(1));
        let doctype = Doctype {
            name: "list".to_owned(),
            migrations: vec![],
            mutations: vec![],
            streams: Vec::new(),
            workflows: Vec::new(),
        };
        let open = ToRoom::Open {
            document: "list".to_owned(),
            doctype: codec::encode(&doctype).into(),
            timeline: JournalId([1; 16]),
            secret: tidelog_types::CopySecret::NONE,
            have: Some(Position::start_of(JournalId([2; 16]))),
            intent: Intent::Follow,
        };
        let mut refusals = Vec::new();
        for is_open in [false, true] {
            let own = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a permit");
            let permit = MessagePermit::new(own, None, &Arc::default());
            let (connection, message) = (connection.clone(), Box::new(open.clone()));
            let (channel, speaker) = (Channel(1), Speaker::anybody());
            let mail = RoomMail::Message { connection, channel, message, speaker, permit };
            room.send(mail).expect("it is there");
            let (mut room_replies, reply) = (
                None,
                match is_open {
                    true => StoreReply::Opened {
                        document: document.clone(),
                        life: Life::NONE,
                        state: None,
                    },
                    false => StoreReply::Broken { error: AppendError::Full },
                },
            );
            loop {
                match inbox.recv().expect("the room asks") {
                    StoreMail::Enter { replies, .. } => room_replies = Some(replies),
                    StoreMail::Ask { .. } => break,
                    _ => {}
                }
            }
            let replies = room_replies.expect("whoever asks has entered");
            replies.send(Box::new(reply)).expect("it waits");
            *damage.lock().expect("no panic") = Some("it rots".to_owned());
            match *end.queue.recv().await.expect("it is there") {
                FromServer::About { body: FromRoom::Refused(refusal), .. } => {
                    refusals.push(refusal);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(
            matches!(refusals[..], [Refusal::Storage { .. }, Refusal::Damaged]),
            "{refusals:?}"
        );
    }

    #[test]
    fn what_was_staged_when_the_server_ended_is_given_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let documents = |server: &mut PageServer<NativeDisk>| {
            server.serve(OwnerId(1), StoreRequest::List { request: RequestId(1) });
            let mut replies = server.poll();
            replies.retain(|(_, reply)| matches!(reply, StoreReply::Documents { .. }));
            let Some((_, StoreReply::Documents { documents, .. })) = replies.pop() else {
                panic!("a list")
            };
            documents.into_iter().map(|key| key.to_string()).collect::<Vec<_>>()
        };
        let (mut server, _) = open_page_server(folder.path(), Limits::DEFAULT).expect("a store");
        for (user, ticket) in ["", STAGED].into_iter().zip(1..) {
            let mut append = Append::to(DocumentKey::new("list", user).expect("a name"));
            append.record = Some(vec![1].into());
            server.serve(OwnerId(1), StoreRequest::Append { ticket: Ticket(ticket), append });
        }
        server.flush();
        assert_eq!(documents(&mut server).len(), 2);
        drop(server);
        Store::open(folder.path(), Limits::DEFAULT, Arc::default()).expect("a store").close();
        let (mut server, _) = open_page_server(folder.path(), Limits::DEFAULT).expect("a store");
        assert_eq!(documents(&mut server), ["list"]);
    }

    /// Goal: an archive whose document is gone goes when the server starts, and no other.
    #[test]
    fn an_archive_without_its_document_is_given_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut server, _) = open_page_server(folder.path(), Limits::DEFAULT).expect("a store");
        let keys = [("list", ""), ("list", ARCHIVE), ("gone", ARCHIVE)];
        for ((name, user), ticket) in keys.into_iter().zip(1..) {
            let mut append = Append::to(DocumentKey::new(name, user).expect("a name"));
            append.record = Some(vec![1].into());
            server.serve(OwnerId(1), StoreRequest::Append { ticket: Ticket(ticket), append });
        }
        server.flush();
        drop(server);
        Store::open(folder.path(), Limits::DEFAULT, Arc::default()).expect("a store").close();
        let (mut server, _) = open_page_server(folder.path(), Limits::DEFAULT).expect("a store");
        server.serve(OwnerId(1), StoreRequest::List { request: RequestId(1) });
        let listed = server.poll().into_iter().find_map(|(_, reply)| match reply {
            StoreReply::Documents { documents, .. } => Some(documents),
            _ => None,
        });
        let left = listed.expect("a list").into_iter().map(|key| (key.document, key.user));
        let expected = keys[..2].iter().map(|(name, user)| (name.to_string(), user.to_string()));
        assert_eq!(left.collect::<BTreeSet<_>>(), expected.collect());
    }

    #[test]
    fn what_was_staged_when_the_store_failed_is_given_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut server, _) = open_page_server(folder.path(), Limits::DEFAULT).expect("a store");
        let mut append = Append::to(DocumentKey::new("list", STAGED).expect("a name"));
        append.record = Some(vec![1].into());
        server.serve(OwnerId(1), StoreRequest::Append { ticket: Ticket(1), append });
        server.flush();
        assert!(server.to_string().starts_with("documents 1 "), "{server}");
        drop(server);
        let (_mail, inbox) = mpsc::channel();
        let server = thread(folder.path(), inbox).reopen().expect("nothing is in the way");
        assert!(server.to_string().starts_with("documents 0 "), "{server}");
    }

    #[test]
    fn a_store_that_stops_carries_out_what_waits_behind_a_large_append() {
        let folder = tempfile::tempdir().expect("a folder");
        let slice = BudgetLimits { bytes: 1024, ..Limits::DEFAULT.slice };
        let limits = Limits { slice, ..Limits::DEFAULT };
        let store = Store::open(folder.path(), limits, Arc::default()).expect("a store");
        let owner = store.handle().owner();
        for ticket in 1..=2 {
            let key = DocumentKey::new(&format!("list-{ticket}"), "").expect("a name");
            let mut append = Append::to(key);
            append.begin_timeline = Some((JournalId([1; 16]), Lsn::FIRST));
            append.timeline = (1..=100)
                .map(|number| TimelineFrame {
                    lsn: Lsn::new(number).expect("from 1"),
                    call: CallId([u8::try_from(number).expect("few"); 16]),
                    body: vec![7; 500],
                })
                .collect();
            owner.ask(StoreRequest::Append { ticket: Ticket(ticket), append });
        }
        store.close();
        let (server, _) = open_page_server(folder.path(), Limits::DEFAULT).expect("a store");
        assert!(server.to_string().starts_with("documents 2 "), "{server}");
    }

    #[test]
    fn a_store_thread_that_was_told_to_stop_ends_alone() {
        let thread = spawn(|| (), || panic!("the process would have ended")).expect("a thread");
        thread.join().expect("it ended alone");
    }
}
