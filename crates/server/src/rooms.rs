//! All rooms: each has one task that owns it, and a fixed number of threads runs them in turn.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidelog_pages::StoreReply;
use tidelog_room::{
    Answer, Ask, Caution, ConnId, Outlets, Room, RoomEffect, RoomInput, RoomSettings,
};
use tidelog_sync::{ByeReason, Channel, FromRoom, FromServer, ToRoom};
use tidelog_types::DocumentKey;
use tidelog_types::limits::{ROOM_LARGE_MESSAGES_SIZE_MAX, ROOMS_MAX};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, error, info};

use crate::connection::{Connection, Ending};
use crate::counters::{Counters, add, move_to};
use crate::cpu_time::CpuTime;
use crate::large_messages::{is_wanted, size_of};
use crate::store::{StoreHandle, StoreOwner};

/// After which time a room in which nobody is gives its memory back: a minute after a crowd has
/// left, the server has what it had before.
const EMPTY_ROOM_STAYS: Duration = Duration::from_secs(30);
/// After which time a room in which nothing happens gives back what it keeps for the next message.
const QUIET_ROOM_RESTS: Duration = Duration::from_millis(500);
/// How often a room looks whether too much is kept of documents that are handed over to all rooms.
const SEED_LOOKS_EVERY: Duration = Duration::from_secs(1);
/// Within which time a question is answered, or whoever asked is told that it is not.
const ANSWER_TAKES: Duration = Duration::from_secs(10);

/// Why somebody who asks is not answered.
pub(crate) const TOO_MANY_ROOMS: &str = "too many documents are open";

/// The way to a room's task. It is bounded by those who send: see [`MessagePermit`].
pub(crate) type RoomSender = mpsc::UnboundedSender<RoomMail>;
/// The same, for those for whom the room need not stay.
pub(crate) type WeakRoomSender = mpsc::WeakUnboundedSender<RoomMail>;

/// What a message takes until its room has worked it off: of what its connection may say before it
/// is listened to again, and of the room for large messages if it is one.
pub(crate) type MessagePermit = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

/// What a room's task is sent.
pub(crate) enum RoomMail {
    Message {
        connection: Connection,
        channel: Channel,
        message: Box<ToRoom>,
        permit: MessagePermit,
    },
    Left {
        conn: ConnId,
    },
    Writable {
        conn: ConnId,
    },
    Ask {
        ask: Ask,
        answer: oneshot::Sender<Answer>,
    },
    /// The document is to come on this connection.
    Export {
        connection: Connection,
        answer: oneshot::Sender<Answer>,
    },
}

impl RoomMail {
    /// Whether whoever asked was told that nothing came of it, or whoever said it has gone and says
    /// it again: what came whole is heard for as long as nobody else wants its space.
    fn is_for_nobody(&self) -> bool {
        match self {
            Self::Message { connection, permit: (_, large), .. } => {
                large.as_ref().is_some_and(is_wanted) && connection.has_ended()
            }
            Self::Ask { answer, .. } | Self::Export { answer, .. } => answer.is_closed(),
            Self::Left { .. } | Self::Writable { .. } => false,
        }
    }
}

/// The threads on which rooms are run, and nothing else: however much rooms have to do, the rest of
/// the server goes on. A room gives its thread back after each step.
pub(crate) struct RoomThreads(Option<Runtime>);

impl RoomThreads {
    pub(crate) fn start() -> std::io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(2, |count| count.get());
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
    threads: Handle,
}

impl Rooms {
    pub(crate) fn new(
        store: StoreHandle,
        settings: RoomSettings,
        caution: Arc<dyn Caution>,
        counters: Arc<Counters>,
        threads: Handle,
    ) -> Arc<Self> {
        Arc::new(Self { rooms: Mutex::default(), store, settings, caution, counters, threads })
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
        self.threads.spawn(self.task(document, sender.downgrade(), inbox).run());
        Some(sender)
    }

    /// What owns the room of `document`, to which this is the way, with both its ends.
    fn task(
        self: &Arc<Self>,
        document: &DocumentKey,
        room: WeakRoomSender,
        inbox: mpsc::UnboundedReceiver<RoomMail>,
    ) -> RoomTask {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).expect("the system gives random bytes");
        let is_damaged = self.store.damage().is_some();
        let settings = RoomSettings { is_damaged, ..self.settings.clone() };
        let ways =
            Arc::new(Ways { document: document.clone(), room, connections: Mutex::default() });
        let outlets = Arc::clone(&ways) as Arc<dyn Outlets>;
        RoomTask {
            room: Room::new(document.clone(), settings, seed, outlets)
                .with_caution(Arc::clone(&self.caution))
                .with_clock(Arc::new(CpuTime)),
            document: document.clone(),
            rooms: Arc::clone(self),
            owner: self.store.owner(),
            ways,
            inbox,
            waiting: VecDeque::new(),
            permits: Vec::new(),
            speaker: None,
            left: Vec::new(),
            answers: BTreeMap::new(),
            asked: 0,
            is_resting: true,
            is_retired: false,
            began: Instant::now(),
            kept_size: 0,
            seed_size: 0,
        }
    }

    /// Asks the room of `document`.
    pub(crate) async fn ask(self: &Arc<Self>, document: &DocumentKey, ask: Ask) -> Answer {
        match self.room(document) {
            Some(room) => self.ask_by(&room, |answer| RoomMail::Ask { ask, answer }).await,
            None => Answer::Failed { reason: TOO_MANY_ROOMS.to_owned() },
        }
    }

    /// Asks a room by this mail.
    pub(crate) async fn ask_by(
        &self,
        room: &RoomSender,
        mail: impl FnOnce(oneshot::Sender<Answer>) -> RoomMail,
    ) -> Answer {
        let failed = |reason: &str| Answer::Failed { reason: reason.to_owned() };
        let (answer, answered) = oneshot::channel();
        // A room that is gone drops the question, which is an answer.
        let _ = room.send(mail(answer));
        match timeout(ANSWER_TAKES, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => failed("the room has closed"),
            // It is not begun any more, if it was not.
            Err(_) => failed("the document has too much to do: look whether it was done"),
        }
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

/// The connections of those who are in a room.
struct Ways {
    document: DocumentKey,
    room: WeakRoomSender,
    connections: Mutex<BTreeMap<ConnId, Connection>>,
}

impl Ways {
    fn to(&self, conn: ConnId) -> Option<Connection> {
        self.connections().get(&conn).cloned()
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<ConnId, Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outlets for Ways {
    fn reserve(&self, conn: ConnId, size: usize) -> bool {
        self.to(conn).is_some_and(|to| to.reserve(size, &self.document, &self.room))
    }

    fn release(&self, conn: ConnId, size: usize) {
        if let Some(to) = self.to(conn) {
            to.release(size);
        }
    }
}

struct RoomTask {
    room: Room,
    document: DocumentKey,
    rooms: Arc<Rooms>,
    owner: StoreOwner,
    ways: Arc<Ways>,
    inbox: mpsc::UnboundedReceiver<RoomMail>,
    /// What clients said while the room worked on something else.
    waiting: VecDeque<RoomMail>,
    /// Of the messages that the room works on.
    permits: Vec<MessagePermit>,
    /// Who said the latest of them, unless that one is known to have gone.
    speaker: Option<Connection>,
    /// Those of whom the room may not have worked off yet that they left.
    left: Vec<ConnId>,
    answers: BTreeMap<u64, oneshot::Sender<Answer>>,
    asked: u64,
    /// Whether nothing has happened since it gave back what it can.
    is_resting: bool,
    /// Whether it ended since nobody needed it.
    is_retired: bool,
    /// Where the room's clock begins.
    began: Instant,
    /// What it has a part in of what all rooms keep.
    kept_size: u64,
    /// And of what all rooms keep of documents that are handed over.
    seed_size: u64,
}

impl RoomTask {
    async fn run(mut self) {
        add(&self.rooms.counters.rooms, 1);
        debug!(document = %self.document, "room opened");
        while let Some(input) = self.next_input().await {
            self.is_resting = false;
            self.step(input);
            if self.keep() > self.kept_size_max() {
                self.room.rest_deeply();
                self.keep();
            }
            let before = self.seed_size;
            let seeds_size_max = self.rooms.settings.limits.seeds_kept_size_max;
            if self.keep_seed() > seeds_size_max && self.seed_size > before {
                self.step(RoomInput::SeedUnkept);
                self.keep_seed();
            }
            // Other rooms have their turns.
            yield_now().await;
        }
        debug!(document = %self.document, "room closed");
    }

    /// `None` once nobody needs the room any more.
    async fn next_input(&mut self) -> Option<RoomInput> {
        loop {
            if self.room.takes_messages()
                && let Some(mail) = self.waiting.pop_front()
            {
                match mail.is_for_nobody() {
                    true => continue,
                    false => return Some(self.input(mail)),
                }
            }
            let is_at_rest = self.room.is_at_rest();
            let overdue_at_ms = self.seed_overdue_at_ms();
            let overdue_at = self.began + Duration::from_millis(overdue_at_ms.unwrap_or(0));
            let look_at = overdue_at.min(Instant::now() + SEED_LOOKS_EVERY);
            tokio::select! {
                biased;
                Some(reply) = self.owner.replies.recv() => return Some(RoomInput::Store(*reply)),
                mail = self.inbox.recv() => match mail? {
                    RoomMail::Writable { conn } => return Some(RoomInput::Writable { conn }),
                    mail => self.keep_waiting(mail),
                },
                () = std::future::ready(()), if self.room.wants_step() => {
                    return Some(self.go_on());
                }
                () = sleep_until(look_at), if overdue_at_ms.is_some() => {
                    let now_ms = self.now_ms();
                    if self.seed_overdue_at_ms().is_some_and(|at_ms| at_ms <= now_ms) {
                        return Some(RoomInput::SeedOverdue { now_ms });
                    }
                }
                () = tokio::time::sleep(QUIET_ROOM_RESTS), if !self.is_resting => {
                    self.is_resting = true;
                    // Where there is room for them, the pages stay.
                    match self.keep() > self.kept_size_max() / 2 {
                        true => self.room.rest_deeply(),
                        false => self.room.rest(),
                    }
                    self.keep();
                    add(&self.rooms.counters.gone, 1);
                }
                () = tokio::time::sleep(EMPTY_ROOM_STAYS), if is_at_rest => {
                    if self.rooms.retire(&self.document, &self.inbox) {
                        self.is_retired = true;
                        return None;
                    }
                }
            }
        }
    }

    /// Goes on with what the room works on, but not with what those who have gone left behind.
    fn go_on(&mut self) -> RoomInput {
        self.waiting.retain(|mail| !mail.is_for_nobody());
        let is_wanted = self.permits.iter().filter_map(|(_, large)| large.as_ref()).any(is_wanted);
        match self.speaker.take_if(|speaker| is_wanted && speaker.has_ended()) {
            Some(gone) => RoomInput::Left { conn: gone.id() },
            None => RoomInput::GoOn,
        }
    }

    /// Keeps what the room does not get to yet. Whoever says more than there is room for comes back
    /// later.
    fn keep_waiting(&mut self, mail: RoomMail) {
        if let RoomMail::Message { connection, permit: (_, Some(large)), .. } = &mail
            && self.large_size() + size_of(large) > ROOM_LARGE_MESSAGES_SIZE_MAX
        {
            return connection.end(Ending::Bye(ByeReason::Slow));
        }
        self.waiting.push_back(mail);
    }

    /// Bytes of large messages that wait, or that the room works on.
    fn large_size(&self) -> usize {
        let waiting = self.waiting.iter().filter_map(|mail| match mail {
            RoomMail::Message { permit, .. } => Some(permit),
            _ => None,
        });
        waiting.chain(&self.permits).filter_map(|(_, large)| large.as_ref()).map(size_of).sum()
    }

    /// Where more than half is kept of what may be, the room is pressed.
    fn seed_overdue_at_ms(&mut self) -> Option<u64> {
        let kept_size = self.rooms.counters.seeds_kept_size.load(Ordering::Relaxed);
        let size_max = self.rooms.settings.limits.seeds_kept_size_max;
        self.room.press_seed(kept_size > size_max / 2);
        self.room.seed_overdue_at_ms(self.now_ms())
    }

    fn kept_size_max(&self) -> u64 {
        self.rooms.settings.limits.rooms_kept_size_max
    }

    /// Counts what the room keeps now. Gives what all rooms do.
    fn keep(&mut self) -> u64 {
        let now = self.room.kept_size() as u64;
        move_to(&self.rooms.counters.rooms_kept_size, &mut self.kept_size, now)
    }

    /// The same of a document that is handed over.
    fn keep_seed(&mut self) -> u64 {
        let now = self.room.seed_size() as u64;
        move_to(&self.rooms.counters.seeds_kept_size, &mut self.seed_size, now)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn input(&mut self, mail: RoomMail) -> RoomInput {
        match mail {
            RoomMail::Message { connection, channel, message, permit } => {
                let conn = connection.id();
                self.speaker = Some(connection.clone());
                self.ways.connections().insert(conn, connection);
                self.permits.push(permit);
                RoomInput::Message { conn, channel, message: *message }
            }
            RoomMail::Left { conn } => RoomInput::Left { conn },
            RoomMail::Writable { conn } => RoomInput::Writable { conn },
            RoomMail::Ask { ask, answer } => {
                self.asked += 1;
                self.answers.insert(self.asked, answer);
                RoomInput::Ask { request: self.asked, ask }
            }
            RoomMail::Export { connection, answer } => {
                self.asked += 1;
                self.answers.insert(self.asked, answer);
                let conn = connection.id();
                self.ways.connections().insert(conn, connection);
                RoomInput::Ask { request: self.asked, ask: Ask::Export { conn } }
            }
        }
    }

    fn step(&mut self, input: RoomInput) {
        let counters = Arc::clone(&self.rooms.counters);
        if let RoomInput::Store(
            StoreReply::AppendFailed { error, .. } | StoreReply::Broken { error },
        ) = &input
        {
            error!(document = %self.document, %error, "the store failed");
            add(&counters.store_failures, 1);
        }
        if matches!(input, RoomInput::Store(StoreReply::Broken { .. })) {
            // It answers this owner no more.
            self.owner = self.rooms.store.owner();
        }
        let is_opened = matches!(input, RoomInput::Store(StoreReply::Opened { .. }));
        if is_opened && self.rooms.store.damage().is_some() {
            self.room.note_damage();
        }
        if let RoomInput::Left { conn } = input {
            self.left.push(conn);
        }
        let writable = match input {
            RoomInput::Writable { conn } => self.ways.to(conn),
            _ => None,
        };
        let before = self.room.counts();
        let effects = self.room.step(input);
        if let Some(connection) = writable {
            connection.heard(&self.document);
        }
        let after = self.room.counts();
        add(&counters.applied, after.applied - before.applied);
        add(&counters.rejected, after.rejected - before.rejected);
        for effect in effects {
            self.carry_out(effect);
        }
        if self.room.takes_messages() {
            self.permits.clear();
            self.speaker = None;
            // Only now: the room has given back what it had reserved there.
            for conn in self.left.drain(..) {
                let left = self.ways.connections().remove(&conn);
                left.inspect(|connection| connection.withdraw(&self.document));
            }
        }
    }

    fn end_connections(&mut self) {
        for connection in self.ways.connections().values() {
            connection.end(Ending::Quiet);
        }
        // Those whose first message is still unread are not among them.
        let unread = std::iter::from_fn(|| self.inbox.try_recv().ok());
        for mail in self.waiting.drain(..).chain(unread) {
            if let RoomMail::Message { connection, .. } = mail {
                connection.end(Ending::Quiet);
            }
        }
    }

    fn carry_out(&mut self, effect: RoomEffect) {
        match effect {
            RoomEffect::Send { conn, message } => {
                if let FromServer::About { body: FromRoom::Refused(refusal), .. } = &message {
                    info!(document = %self.document, conn = conn.0, ?refusal, "refused");
                    add(&self.rooms.counters.refusals, 1);
                }
                if let Some(connection) = self.ways.to(conn) {
                    connection.send(message);
                }
            }
            RoomEffect::Store(request) => self.owner.ask(request),
            RoomEffect::Answer { request, answer } => {
                if let Some(waiting) = self.answers.remove(&request) {
                    // Who asked may have gone meanwhile.
                    let _ = waiting.send(answer);
                }
            }
        }
    }
}

impl Drop for RoomTask {
    /// Also after a panic: a room that broke its promises takes nobody along, and whoever was in
    /// it comes back to a new one. Nobody was in a room that has retired: it knows connections that
    /// it refused, and hears what these had on the way.
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!(document = %self.document, "a room broke a promise: its clients come back");
            add(&self.rooms.counters.room_panics, 1);
        }
        // Before anybody is told, who then comes to another room.
        self.inbox.close();
        self.rooms.forget(&self.document);
        if !self.is_retired {
            self.end_connections();
        }
        self.rooms.counters.rooms.fetch_sub(1, Ordering::Relaxed);
        self.rooms.counters.rooms_kept_size.fetch_sub(self.kept_size, Ordering::Relaxed);
        self.rooms.counters.seeds_kept_size.fetch_sub(self.seed_size, Ordering::Relaxed);
        add(&self.rooms.counters.gone, 1);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc as std_mpsc;

    use super::*;
    use tidelog_document::Doctype;
    use tidelog_pages::AppendError;
    use tidelog_room::Suspect;
    use tidelog_sync::{Intent, Refusal, WireFrame, codec};
    use tidelog_types::limits::{Limits, MESSAGE_SIZE_MAX};
    use tidelog_types::{BudgetLimits, CallId, JournalId, Life, Lineage, Lsn, Position};
    use tokio::sync::Semaphore;

    use crate::marks::Marks;
    use crate::store::Store;

    /// Rooms over a new store, and the threads that they run on.
    fn rooms_in(folder: &Path, settings: RoomSettings) -> (Store, RoomThreads, Arc<Rooms>) {
        let store = Store::open(folder, settings.limits, Arc::default()).expect("a store");
        let threads = RoomThreads::start().expect("threads");
        let caution = Arc::new(Marks::open(folder));
        let rooms = Rooms::new(store.handle(), settings, caution, Arc::default(), threads.handle());
        (store, threads, rooms)
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_to_a_room_that_has_too_much_to_do_is_answered() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = RoomSettings::default();
        let (store, _threads, rooms) = rooms_in(folder.path(), settings);
        let document = DocumentKey::new("list", "").expect("a name");
        let (busy, _mail) = mpsc::unbounded_channel();
        rooms.rooms().insert(document.clone(), busy);
        let answer = timeout(2 * ANSWER_TAKES, rooms.ask(&document, Ask::Describe)).await;
        let answer = answer.expect("an answer, whatever it is");
        assert!(matches!(answer, Answer::Failed { .. }), "{answer:?}");
        store.close();
    }

    /// V13. Goal: however many documents are asked for, no more are open than may be, and those who
    /// are there go on. Method: a table that is full, one place of which comes free.
    #[tokio::test]
    async fn as_many_documents_are_open_as_may_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = RoomSettings::default();
        let (store, _threads, rooms) = rooms_in(folder.path(), settings);
        let document = |number: usize| DocumentKey::new(&number.to_string(), "").expect("a name");
        let (open, _mail) = mpsc::unbounded_channel();
        rooms.rooms().extend((0..ROOMS_MAX).map(|number| (document(number), open.clone())));
        assert!(rooms.room(&document(ROOMS_MAX)).is_none());
        let answer = rooms.ask(&document(ROOMS_MAX), Ask::Describe).await;
        assert_eq!(answer, Answer::Failed { reason: TOO_MANY_ROOMS.to_owned() });
        let known = rooms.room(&document(7)).expect("it is open");
        assert!(known.same_channel(&open));
        rooms.rooms().remove(&document(7));
        let room = rooms.room(&document(ROOMS_MAX)).expect("there is room");
        assert!(!room.same_channel(&open), "one of its own");
        assert_eq!(rooms.rooms().len(), ROOMS_MAX);
        store.close();
    }

    /// Goal: whoever asks for a document while the server ends is answered. Method: the threads of
    /// its rooms are gone already.
    #[tokio::test]
    async fn a_room_is_asked_for_in_vain_once_there_are_no_threads() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = RoomSettings::default();
        let (store, threads, rooms) = rooms_in(folder.path(), settings);
        drop(threads);
        let document = DocumentKey::new("list", "").expect("a name");
        let (done, is_done) = std_mpsc::channel();
        std::thread::spawn(move || done.send(rooms.room(&document)));
        let room = is_done.recv_timeout(Duration::from_secs(10)).expect("an answer");
        // The threads may just be about to end, and drop it then.
        let room = room.expect("there are few rooms");
        let closed = timeout(Duration::from_secs(10), room.closed()).await;
        assert!(closed.is_ok(), "nobody is in it");
        store.close();
    }

    fn message(connection: &Connection, body: ToRoom) -> RoomMail {
        message_with(connection, body, None)
    }

    fn message_with(
        connection: &Connection,
        body: ToRoom,
        large: Option<OwnedSemaphorePermit>,
    ) -> RoomMail {
        let own = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a permit");
        let permit = (own, large);
        let (connection, message) = (connection.clone(), Box::new(body));
        RoomMail::Message { connection, channel: Channel(1), message, permit }
    }

    fn open() -> ToRoom {
        let doctype = Doctype {
            name: "list".to_owned(),
            migrations: vec!["create table item (id text primary key) strict".to_owned()],
            mutations: Vec::new(),
        };
        ToRoom::Open {
            document: "list".to_owned(),
            doctype: codec::encode(&doctype),
            timeline: JournalId([1; 16]),
            have: None,
            intent: Intent::Follow,
        }
    }

    /// Goal: a connection that has left one of its documents has all its room for the others.
    /// Method: one leaves while a chunk is read for it, and the room has so much to tell that it
    /// does not get to that in the same step.
    #[tokio::test]
    async fn who_leaves_a_busy_room_has_nothing_reserved_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, _threads, rooms) = rooms_in(folder.path(), slow_settings());
        let document = DocumentKey::new("list", "").expect("a name");
        let (room, mail) = mpsc::unbounded_channel();
        let mut task = rooms.task(&document, room.downgrade(), mail);
        let say = |task: &mut RoomTask, mail| {
            let input = task.input(mail);
            task.step(input);
        };
        let (leaver, _end) = Connection::new(ConnId(1));
        let (stayer, _other_end) = Connection::new(ConnId(2));
        let has_reserved = || {
            let is_free = leaver.reserve(usize::MAX / 2, &document, &room.downgrade());
            if is_free {
                leaver.release(usize::MAX / 2);
            }
            !is_free
        };

        say(&mut task, message(&leaver, open()));
        while !has_reserved() {
            let input = match task.room.wants_step() {
                true => RoomInput::GoOn,
                false => RoomInput::Store(*task.owner.replies.recv().await.expect("an answer")),
            };
            task.step(input);
        }
        say(&mut task, message(&stayer, open()));
        say(&mut task, RoomMail::Left { conn: leaver.id() });
        assert!(task.room.wants_step(), "it has not left yet");
        while task.room.wants_step() {
            task.step(RoomInput::GoOn);
        }
        assert!(task.room.takes_messages());
        assert!(!has_reserved());
        store.close();
    }

    /// Settings with which a room does one thing in a step.
    fn slow_settings() -> RoomSettings {
        let slice = BudgetLimits { steps: 1, ..Limits::DEFAULT.slice };
        let limits = Limits { slice, ..Limits::DEFAULT };
        RoomSettings { dev: true, limits, ..RoomSettings::default() }
    }

    /// Many frames, each of which takes a step.
    fn frames() -> ToRoom {
        let frame = WireFrame { call: CallId([0; 16]), body: b"no mutation".to_vec() };
        ToRoom::Frames { life: Life([1; 16]), first: Lsn::FIRST, frames: vec![frame; 100] }
    }

    /// Takes steps until this is so.
    async fn step_until(task: &mut RoomTask, is_so: impl Fn(&RoomTask) -> bool) {
        while !is_so(task) {
            let input = timeout(ANSWER_TAKES, task.next_input()).await.expect("in time");
            task.step(input.expect("it is there"));
        }
    }

    /// Space for so many large messages.
    fn space(count: usize) -> (Arc<Semaphore>, impl Fn() -> Option<OwnedSemaphorePermit>) {
        let space = Arc::new(Semaphore::new(count));
        let theirs = Arc::clone(&space);
        (space, move || Some(Arc::clone(&theirs).try_acquire_owned().expect("there is space")))
    }

    #[tokio::test]
    async fn a_large_message_holds_its_space_until_it_is_worked_off() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, _threads, rooms) = rooms_in(folder.path(), slow_settings());
        let document = DocumentKey::new("list", "").expect("a name");
        let (room, mail) = mpsc::unbounded_channel();
        let mut task = rooms.task(&document, room.downgrade(), mail);
        let (space, large) = space(1);
        let (connection, _end) = Connection::new(ConnId(1));
        room.send(message(&connection, open())).expect("it is there");
        room.send(message_with(&connection, frames(), large())).expect("it is there");
        let is_done = |task: &RoomTask| {
            let is_done = task.room.counts().rejected == 100 && task.room.takes_messages();
            assert_eq!(space.available_permits(), usize::from(is_done));
            is_done
        };
        step_until(&mut task, is_done).await;
        store.close();
    }

    /// Goal: frames that had arrived are applied, though their client has gone. Method: it leaves
    /// behind a large message, and there is space for another one.
    #[tokio::test]
    async fn what_those_who_have_gone_left_behind_is_heard_while_nobody_wants_its_space() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, _threads, rooms) = rooms_in(folder.path(), slow_settings());
        let document = DocumentKey::new("list", "").expect("a name");
        let (room, mail) = mpsc::unbounded_channel();
        let mut task = rooms.task(&document, room.downgrade(), mail);
        let (_space, large) = space(MESSAGE_SIZE_MAX);
        let (connection, _end) = Connection::new(ConnId(1));
        room.send(message(&connection, open())).expect("it is there");
        room.send(message_with(&connection, frames(), large())).expect("it is there");
        room.send(RoomMail::Left { conn: connection.id() }).expect("it is there");
        connection.end(Ending::Quiet);
        step_until(&mut task, |task| task.room.counts().rejected == 100).await;
        store.close();
    }

    /// Goal: those who have gone keep no room busy where others want the space for large messages.
    /// Method: one has gone whose message is worked on, with its channel closed, and one whose
    /// message waits.
    #[tokio::test]
    async fn what_is_left_behind_by_those_who_have_gone_is_not_worked_off() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, _threads, rooms) = rooms_in(folder.path(), slow_settings());
        let document = DocumentKey::new("list", "").expect("a name");
        let (room, mail) = mpsc::unbounded_channel();
        let mut task = rooms.task(&document, room.downgrade(), mail);
        let (space, large) = space(2);
        let (first, _end) = Connection::new(ConnId(1));
        let (second, _other_end) = Connection::new(ConnId(2));
        room.send(message(&first, open())).expect("it is there");
        room.send(message_with(&first, frames(), large())).expect("it is there");
        room.send(message(&first, ToRoom::Close)).expect("it is there");
        room.send(message_with(&second, open(), large())).expect("it is there");
        step_until(&mut task, |task| task.room.counts().rejected == 1).await;
        second.end(Ending::Quiet);
        room.send(RoomMail::Left { conn: second.id() }).expect("it is there");
        step_until(&mut task, |task| task.room.counts().rejected == 2).await;
        assert_eq!(space.available_permits(), 1, "what waited is dropped at once");
        first.end(Ending::Quiet);
        step_until(&mut task, |task| task.room.takes_messages()).await;
        assert_eq!(space.available_permits(), 2);
        assert!(task.room.counts().rejected <= 3, "what is begun is done");
        store.close();
    }

    /// Goal: a busy room leaves space for large messages to others. Method: as much is said to one
    /// as it keeps, in a message that it works on and in one that waits, and then more.
    #[tokio::test]
    async fn whoever_says_more_to_a_room_than_it_keeps_comes_back_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, _threads, rooms) = rooms_in(folder.path(), slow_settings());
        let document = DocumentKey::new("list", "").expect("a name");
        let (room, mail) = mpsc::unbounded_channel();
        let mut task = rooms.task(&document, room.downgrade(), mail);
        let half = ROOM_LARGE_MESSAGES_SIZE_MAX / 2;
        let space = Arc::new(Semaphore::new(1024 * 1024));
        let large = |size: usize| {
            let count = u32::try_from(size / 1024).expect("few");
            Some(Arc::clone(&space).try_acquire_many_owned(count).expect("there is space"))
        };
        let connections = [1, 2, 3].map(|number| Connection::new(ConnId(number)).0);
        room.send(message(&connections[0], open())).expect("it is there");
        let sizes = [half, half, 1024];
        for (connection, size) in connections.iter().zip(sizes) {
            room.send(message_with(connection, frames(), large(size))).expect("it is there");
        }
        room.send(message(&connections[2], ToRoom::Close)).expect("it is there");
        step_until(&mut task, |task| task.room.counts().rejected == 2).await;
        let endings = connections.map(|connection| connection.ended().borrow().clone());
        assert_eq!(endings, [None, None, Some(Ending::Bye(ByeReason::Slow))]);
        assert_eq!(space.available_permits(), 1024 * 1024 - 2 * half / 1024);
        store.close();
    }

    /// Goal: whoever a room refused goes on with its other documents once that room is gone.
    /// Method: one is refused, another one says something in the instant in which it retires.
    #[tokio::test(start_paused = true)]
    async fn a_room_that_retires_ends_no_connection() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = RoomSettings { dev: true, ..RoomSettings::default() };
        let (store, _threads, rooms) = rooms_in(folder.path(), settings);
        let document = DocumentKey::new("list", "").expect("a name");
        let (room, mail) = mpsc::unbounded_channel();
        let mut task = rooms.task(&document, room.downgrade(), mail);
        let (refused, mut end) = Connection::new(ConnId(1));
        let (late, _other_end) = Connection::new(ConnId(2));
        let ToRoom::Open { document, doctype, timeline, intent, .. } = open() else {
            unreachable!("it opens")
        };
        let have = Some(Position::start_of(timeline));
        let open = ToRoom::Open { document, doctype, timeline, have, intent };
        room.send(message(&refused, open)).expect("it is there");
        let began = Instant::now();
        while let Some(input) = task.next_input().await {
            task.step(input);
        }
        assert!(began.elapsed() >= EMPTY_ROOM_STAYS);
        let (space, large) = space(1);
        let unread = message_with(&late, ToRoom::Close, large());
        room.send(unread).expect("it is not gone yet");
        drop(task);
        assert_eq!(space.available_permits(), 1);
        let heard = end.queue.try_recv().map(|message| *message);
        let body = FromRoom::Refused(Refusal::Missing);
        assert_eq!(heard, Ok(FromServer::About { channel: Channel(1), body }));
        for connection in [refused, late] {
            assert_eq!(*connection.ended().borrow(), None);
        }
        store.close();
    }

    /// Says that something is about to be run, waits to be told, and breaks a promise.
    struct Trap(Mutex<(std_mpsc::Sender<()>, std_mpsc::Receiver<()>)>);

    impl Caution for Trap {
        fn run(&self, _: &dyn Fn() -> Suspect, _: &mut dyn FnMut()) -> bool {
            let (entered, told) = &*self.0.lock().expect("no panic before");
            entered.send(()).expect("the test waits");
            told.recv().expect("the test tells");
            panic!("BUG: planted by a test")
        }
    }

    /// Goal: nobody waits for a room that is gone. Method: it panics over the first one's message
    /// while the second one's waits.
    #[tokio::test]
    async fn whoever_a_room_did_not_get_to_before_it_panicked_comes_back_to_a_new_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path(), Limits::DEFAULT, Arc::default()).expect("a store");
        let threads = RoomThreads::start().expect("threads");
        let settings = RoomSettings { dev: true, ..RoomSettings::default() };
        let ((entered, heard), (tell, told)) = (std_mpsc::channel(), std_mpsc::channel());
        let trap = Arc::new(Trap(Mutex::new((entered, told))));
        let rooms = Rooms::new(store.handle(), settings, trap, Arc::default(), threads.handle());
        let document = DocumentKey::new("list", "").expect("a name");
        let room = rooms.room(&document).expect("there is room");
        let (first, _end) = Connection::new(ConnId(1));
        let (second, _other_end) = Connection::new(ConnId(2));
        let (space, large) = space(2);
        room.send(message_with(&first, open(), large())).expect("it is there");
        heard.recv().expect("it runs something");
        room.send(message_with(&second, open(), large())).expect("it is there");
        tell.send(()).expect("it waits");
        for connection in [first, second] {
            let mut ended = connection.ended();
            let ending = timeout(ANSWER_TAKES, ended.wait_for(Option::is_some)).await;
            assert_eq!(*ending.expect("it is told").expect("it is there"), Some(Ending::Quiet));
        }
        assert!(rooms.rooms().is_empty(), "it takes no other one's place");
        let all = timeout(ANSWER_TAKES, space.acquire_many(2)).await;
        assert!(all.is_ok(), "nothing is held any more");
        store.close();
    }

    /// What was logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// V23. Goal: whoever watches a server sees which document was hit. Method: the store fails
    /// under a room, and then the room breaks a promise.
    #[tokio::test]
    async fn what_goes_wrong_in_a_room_is_logged_with_its_document_and_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path(), Limits::DEFAULT, Arc::default()).expect("a store");
        let threads = RoomThreads::start().expect("threads");
        let (caution, counters) = (Arc::new(Marks::open(folder.path())), Arc::default());
        let (handle, settings) = (store.handle(), RoomSettings::default());
        let rooms = Rooms::new(handle, settings, caution, Arc::clone(&counters), threads.handle());
        let document = DocumentKey::new("unlucky", "").expect("a name");
        let (room, mail) = mpsc::unbounded_channel();
        let mut task = rooms.task(&document, room.downgrade(), mail);
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        // For all of the process: a thread that has none lets others see nothing either.
        tracing::subscriber::set_global_default(subscriber).expect("no other test logs");
        task.step(RoomInput::Store(StoreReply::Broken { error: AppendError::Full }));
        let panics = std::panic::AssertUnwindSafe(|| {
            let _task = task;
            panic!("BUG: planted by a test");
        });
        assert!(std::panic::catch_unwind(panics).is_err());
        let log = String::from_utf8(log.0.lock().expect("no panic").clone()).expect("text");
        let is_error = |line: &&str| line.contains("ERROR") && line.contains("unlucky");
        assert_eq!(log.lines().filter(is_error).count(), 2, "{log}");
        assert_eq!(counters.store_failures.load(Ordering::Relaxed), 1);
        assert_eq!(counters.room_panics.load(Ordering::Relaxed), 1);
        store.close();
    }

    /// Goal: what somebody was told had failed is not done later. Method: whoever asks for a
    /// document's destruction goes away before the room gets there.
    #[tokio::test]
    async fn a_question_whose_asker_has_gone_is_not_asked() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = RoomSettings { dev: true, ..RoomSettings::default() };
        let (store, _threads, rooms) = rooms_in(folder.path(), settings);
        let document = DocumentKey::new("list", "").expect("a name");
        let (room, mail) = mpsc::unbounded_channel();
        let mut task = rooms.task(&document, room.downgrade(), mail);
        let ask = |ask| {
            let (answer, answered) = oneshot::channel();
            room.send(RoomMail::Ask { ask, answer }).expect("it is there");
            answered
        };
        drop(ask(Ask::Destroy));
        let _described = ask(Ask::Describe);
        let input = timeout(ANSWER_TAKES, task.next_input()).await.expect("the second question");
        let is_second = matches!(input, Some(RoomInput::Ask { ask: Ask::Describe, .. }));
        assert!(is_second, "the first one is not asked");
        store.close();
    }

    #[tokio::test]
    async fn all_rooms_keep_no_more_of_what_is_handed_over_than_they_may() {
        let folder = tempfile::tempdir().expect("a folder");
        let ToRoom::Open { doctype, timeline, have, .. } = open() else { unreachable!() };
        let seeds_kept_size_max = doctype.len() as u64;
        let limits = Limits { seeds_kept_size_max, ..Limits::DEFAULT };
        let store = Store::open(folder.path(), limits, Arc::default()).expect("a store");
        let threads = RoomThreads::start().expect("threads");
        let settings = RoomSettings { dev: true, limits, ..RoomSettings::default() };
        let (caution, counters) = (Arc::new(Marks::open(folder.path())), Arc::default());
        let rooms =
            Rooms::new(store.handle(), settings, caution, Arc::clone(&counters), threads.handle());
        let (connection, mut end) = Connection::new(ConnId(1));
        let mut offer = async |name: &str| {
            let offer = ToRoom::Open {
                document: name.to_owned(),
                doctype: doctype.clone(),
                timeline,
                have,
                intent: Intent::Offer { lives: Lineage::default() },
            };
            let document = DocumentKey::new(name, "").expect("a name");
            let room = rooms.room(&document).expect("there is room");
            room.send(message(&connection, offer)).expect("it is there");
            let heard = timeout(ANSWER_TAKES, end.queue.recv()).await.expect("in time");
            match *heard.expect("it is there") {
                FromServer::About { body, .. } => (room, body),
                other => panic!("{other:?}"),
            }
        };
        // A room counts what it keeps behind what it says.
        let comes_to = async |size: u64| {
            while counters.seeds_kept_size.load(Ordering::Relaxed) != size {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let (first, said) = offer("first").await;
        assert_eq!(said, FromRoom::SeedWanted);
        timeout(ANSWER_TAKES, comes_to(seeds_kept_size_max)).await.expect("the first is counted");
        let (_second, said) = offer("second").await;
        assert_eq!(said, FromRoom::SeedWanted);
        let heard = timeout(ANSWER_TAKES, end.queue.recv()).await.expect("in time");
        let refused = heard.map(|message| *message);
        let is_refused = matches!(
            refused,
            Some(FromServer::About { body: FromRoom::Refused(Refusal::Storage { .. }), .. })
        );
        assert!(is_refused, "{refused:?}");
        timeout(ANSWER_TAKES, comes_to(seeds_kept_size_max)).await.expect("one is kept");
        assert_eq!(counters.rooms_kept_size.load(Ordering::Relaxed), 0);
        first.send(RoomMail::Left { conn: ConnId(1) }).expect("it is there");
        timeout(ANSWER_TAKES, comes_to(0)).await.expect("nothing is kept");
        store.close();
    }

    /// Goal: those who hand over nothing do not keep others from it. Method: one of them is silent,
    /// and then the server keeps much of what others hand over.
    #[tokio::test(start_paused = true)]
    async fn a_silent_seed_goes_soon_once_there_is_little_room_for_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = RoomSettings { dev: true, ..RoomSettings::default() };
        let (store, _threads, rooms) = rooms_in(folder.path(), settings);
        let document = DocumentKey::new("list", "").expect("a name");
        let (room, mail) = mpsc::unbounded_channel();
        let mut task = rooms.task(&document, room.downgrade(), mail);
        let (silent, _end) = Connection::new(ConnId(1));
        let ToRoom::Open { document, doctype, timeline, have, .. } = open() else { unreachable!() };
        let intent = Intent::Offer { lives: Lineage::default() };
        let offer = ToRoom::Open { document, doctype, timeline, have, intent };
        room.send(message(&silent, offer)).expect("it is there");
        while task.room.seed_size() == 0 {
            let input = task.next_input().await.expect("it is there");
            task.step(input);
        }
        let began = Instant::now();
        let mut is_overdue = async |after: Duration| {
            let overdue = async {
                loop {
                    match task.next_input().await.expect("it is there") {
                        RoomInput::SeedOverdue { .. } => break,
                        input => task.step(input),
                    }
                }
            };
            timeout(after, overdue).await.is_ok()
        };
        assert!(!is_overdue(Duration::from_secs(20)).await, "there is room");
        let kept_size = Limits::DEFAULT.seeds_kept_size_max / 2 + 1;
        rooms.counters.seeds_kept_size.fetch_add(kept_size, Ordering::Relaxed);
        assert!(is_overdue(Duration::from_secs(20)).await);
        assert!(began.elapsed() < Duration::from_secs(22), "after {:?}", began.elapsed());
        store.close();
    }

    #[tokio::test]
    async fn a_room_keeps_nothing_where_all_rooms_keep_as_much_as_they_may() {
        for (rooms_kept_size_max, keeps) in [(u64::MAX, true), (1, false)] {
            let folder = tempfile::tempdir().expect("a folder");
            let limits = Limits { rooms_kept_size_max, ..Limits::DEFAULT };
            let store = Store::open(folder.path(), limits, Arc::default()).expect("a store");
            let threads = RoomThreads::start().expect("threads");
            let settings = RoomSettings { dev: true, limits, ..RoomSettings::default() };
            let (caution, counters) = (Arc::new(Marks::open(folder.path())), Arc::default());
            let rooms = Rooms::new(
                store.handle(),
                settings,
                caution,
                Arc::clone(&counters),
                threads.handle(),
            );
            let document = DocumentKey::new("list", "").expect("a name");
            let room = rooms.room(&document).expect("there is room");
            let (connection, mut end) = Connection::new(ConnId(1));
            room.send(message(&connection, open())).expect("it is there");
            let entry = async {
                loop {
                    let message = *end.queue.recv().await.expect("it is there");
                    if let FromServer::About { body: FromRoom::Entry(_), .. } = message {
                        break;
                    }
                }
            };
            timeout(ANSWER_TAKES, entry).await.expect("the document");
            assert_eq!(counters.rooms_kept_size.load(Ordering::Relaxed) > 0, keeps);
            assert_eq!(rooms.ask(&document, Ask::Destroy).await, Answer::Destroyed);
            store.close();
        }
    }
}
