//! All rooms: each has one task that owns it, and a fixed number of threads runs them in turn.

mod mail;
mod pace;
mod task;
#[cfg(test)]
pub(crate) mod tests;
mod turn;
mod turns;
mod unconfirmed;
mod waiting;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidelog_document::DoctypeHash;
use tidelog_room::{Answer, Ask, Caution, RoomSettings};
use tidelog_types::DocumentKey;
use tidelog_types::limits::{FAILURES_LOGGED_MAX, ROOMS_MAX};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::agenda::Agenda;
use crate::audit::Audit;
use crate::counters::Counters;
use crate::store::StoreHandle;
pub(crate) use mail::{MessagePermit, RoomMail, RoomSender, WeakRoomSender};
pub(crate) use pace::Pace;
use task::RoomTask;
pub(crate) use turns::DocumentTurns;

/// Within which time a question is answered, or whoever asked is told that it is not.
const ANSWER_TAKES: Duration = Duration::from_secs(10);

/// What is answered where that was not enough.
const TOO_MUCH: &str = "the document has too much to do";

/// Rooms that have an entry on its way to the disk at once, where all together have too much.
const WRITE_TURNS: usize = 2;
/// Rooms that have the one turn to run, or one to write, which wait for no turn of slow rooms.
const HOLDERS: usize = 1 + WRITE_TURNS;

/// Why somebody who asks is not answered.
pub(crate) const TOO_MANY_ROOMS: &str = "too many documents are open";

/// Whether whoever asks may still.
pub(crate) type MayStill = Arc<dyn Fn() -> bool + Send + Sync>;

tokio::task_local! {
    /// Of whoever asks in this task, if it is anybody who may not for good.
    static MAY_STILL: Option<MayStill>;
}

/// Does this, which asks rooms for somebody who may for as long as that is so: what a room has not
/// begun by then it does not.
pub(crate) async fn asking<F: Future>(may_still: Option<MayStill>, work: F) -> F::Output {
    MAY_STILL.scope(may_still, work).await
}

/// By which this task [asks](asking).
pub(crate) fn asks_while() -> Option<MayStill> {
    MAY_STILL.try_with(Clone::clone).ok().flatten()
}

/// The threads on which rooms are run, and nothing else: however much rooms have to do, the rest of
/// the server goes on. A room gives its thread back after a step, or several short ones, and where
/// its steps take long, there is always a thread left for others.
pub(crate) struct RoomThreads(Option<Runtime>);

impl RoomThreads {
    pub(crate) fn start() -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(2, |count| count.get());
        // More than there are turns of slow rooms, which may take all cores where nobody else
        // has anything to do.
        let threads = cores + 1 + HOLDERS;
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("rooms")
            .enable_time()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    pub(crate) fn handle(&self) -> Handle {
        self.0.as_ref().expect("BUG: taken only when dropped").handle().clone()
    }
}

impl Drop for RoomThreads {
    /// Nobody waits for a step that is under way.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Where rooms are found and made.
pub(crate) struct Rooms {
    rooms: Mutex<HashMap<DocumentKey, RoomSender>>,
    store: StoreHandle,
    settings: RoomSettings,
    caution: Arc<dyn Caution>,
    counters: Arc<Counters>,
    /// Where rooms tell when their tasks are due.
    agenda: Arc<Agenda>,
    /// Where it is told who was refused.
    audit: Audit,
    threads: Handle,
    /// Of runs that keep much: see [`RunTurn`](turn::RunTurn).
    run_turns: Arc<Semaphore>,
    /// Of entries where much is on its way: see [`WriteTurn`](turn::WriteTurn).
    write_turns: Arc<Semaphore>,
    /// Of steps that take long: see [`SlowTurn`](turn::SlowTurn).
    slow_turns: Arc<Semaphore>,
    /// Of each document while its events are on their way to an archive, or erased.
    archiving: DocumentTurns,
    /// What was logged of documents that could not be migrated.
    failures: Mutex<BTreeSet<(DocumentKey, DoctypeHash)>>,
}

impl Rooms {
    pub(crate) fn new(
        store: StoreHandle,
        settings: RoomSettings,
        caution: Arc<dyn Caution>,
        counters: Arc<Counters>,
        threads: Handle,
    ) -> Arc<Self> {
        let slow_turns = threads.metrics().num_workers().saturating_sub(1 + HOLDERS).max(1);
        Arc::new(Self {
            rooms: Mutex::default(),
            store,
            settings,
            caution,
            counters,
            agenda: Arc::default(),
            audit: Audit::default(),
            threads,
            run_turns: Arc::new(Semaphore::new(1)),
            write_turns: Arc::new(Semaphore::new(WRITE_TURNS)),
            slow_turns: Arc::new(Semaphore::new(slow_turns)),
            archiving: DocumentTurns::default(),
            failures: Mutex::default(),
        })
    }

    pub(crate) fn agenda(&self) -> &Arc<Agenda> {
        &self.agenda
    }

    pub(crate) fn store(&self) -> &StoreHandle {
        &self.store
    }

    /// The turns to move events between a document and its archive, or to erase some.
    pub(crate) fn archiving(&self) -> &DocumentTurns {
        &self.archiving
    }

    pub(crate) fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The room of `document`, made if there is none; `None` if there are as many as may be. It
    /// stays for as long as the sender is kept: so that is for what is said to it now. Whoever may
    /// say more keeps a weak one, since a room in which nobody is does not stay for that.
    pub(crate) fn room(self: &Arc<Self>, document: &DocumentKey) -> Option<RoomSender> {
        let mut rooms = self.rooms();
        if let Some(room) = rooms.get(document).filter(|room| !room.is_closed()) {
            return Some(room.clone());
        }
        if rooms.len() >= ROOMS_MAX {
            return None;
        }
        let (sender, inbox) = mpsc::unbounded_channel();
        rooms.insert(document.clone(), sender.clone());
        // Where there are no threads any more the task is dropped at once, and leaves the table.
        drop(rooms);
        let mut task = RoomTask::new(self, document, sender.downgrade(), inbox);
        // By reference, or the future would have room for it twice.
        self.threads.spawn(async move { task.run().await });
        Some(sender)
    }

    /// Asks the room of `document`.
    pub(crate) async fn ask(self: &Arc<Self>, document: &DocumentKey, ask: Ask) -> Answer {
        match self.room(document) {
            Some(room) => {
                let may_still = asks_while();
                self.ask_by(&room, |answer| RoomMail::Ask { ask, answer, may_still }).await
            }
            None => Answer::Failed { reason: TOO_MANY_ROOMS.to_owned() },
        }
    }

    /// Asks a room by this mail.
    pub(crate) async fn ask_by(
        &self,
        room: &RoomSender,
        mail: impl FnOnce(oneshot::Sender<Answer>) -> RoomMail,
    ) -> Answer {
        let unknown = |reason: &str| Answer::Unknown { reason: reason.to_owned() };
        let (answer, answered) = oneshot::channel();
        // A room that is gone drops the question, which is an answer.
        let _ = room.send(mail(answer));
        match timeout(ANSWER_TAKES, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => unknown("the room has closed"),
            // It is not begun any more, if it was not.
            Err(_) => unknown(TOO_MUCH),
        }
    }

    /// Whether it was not said yet that the document cannot be migrated to this doctype, and is to
    /// be said now: clients do not make the log as long as they like.
    fn is_first_failure(&self, document: &DocumentKey, doctype: DoctypeHash) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.len() < FAILURES_LOGGED_MAX && failures.insert((document.clone(), doctype))
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<DocumentKey, RoomSender>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the room out if it is gone, and no other one is in its place.
    fn forget(&self, document: &DocumentKey) {
        let mut rooms = self.rooms();
        if rooms.get(document).is_some_and(RoomSender::is_closed) {
            rooms.remove(document);
        }
    }

    /// Takes the room out, unless somebody has just come.
    fn retire(&self, document: &DocumentKey, inbox: &mpsc::UnboundedReceiver<RoomMail>) -> bool {
        let mut rooms = self.rooms();
        if inbox.sender_strong_count() > 1 || !inbox.is_empty() {
            return false;
        }
        rooms.remove(document);
        // What a crowd has taken is given back when it has left.
        if rooms.len() < rooms.capacity() / 4 {
            rooms.shrink_to_fit();
        }
        true
    }
}
