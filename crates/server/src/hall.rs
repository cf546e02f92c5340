//! All rooms: each has one task that owns it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidelog_pages::StoreReply;
use tidelog_sync::ToServer;
use tidelog_types::DocumentKey;
use tidelog_types::limits::ROOM_INBOX_MESSAGES_MAX;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error};

use crate::connection::{Connection, Ending};
use crate::counters::{Counters, add};
use crate::room::{Answer, Ask, ConnId, Room, RoomEffect, RoomInput, RoomSettings};
use crate::store::{StoreHandle, StoreOwner};

/// After which time a room in which nobody is gives its memory back.
const EMPTY_ROOM_STAYS: Duration = Duration::from_secs(60);

/// What a room's task is sent.
pub(crate) enum RoomMail {
    Message { connection: Connection, message: ToServer },
    Left { conn: ConnId },
    Ask { ask: Ask, answer: oneshot::Sender<Answer> },
}

/// Where rooms are found and made.
pub(crate) struct Hall {
    rooms: Mutex<HashMap<DocumentKey, mpsc::Sender<RoomMail>>>,
    store: StoreHandle,
    settings: RoomSettings,
    counters: Arc<Counters>,
}

impl Hall {
    pub(crate) fn new(
        store: StoreHandle,
        settings: RoomSettings,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        Arc::new(Self { rooms: Mutex::default(), store, settings, counters })
    }

    /// The room of `document`, made if there is none. It stays for as long as the sender is kept.
    pub(crate) fn room(self: &Arc<Self>, document: &DocumentKey) -> mpsc::Sender<RoomMail> {
        let mut rooms = self.rooms();
        if let Some(room) = rooms.get(document).filter(|room| !room.is_closed()) {
            return room.clone();
        }
        let (sender, inbox) = mpsc::channel(ROOM_INBOX_MESSAGES_MAX);
        rooms.insert(document.clone(), sender.clone());
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).expect("the system gives random bytes");
        let settings = RoomSettings { is_damaged: self.store.damage().is_some(), ..self.settings };
        let task = RoomTask {
            room: Room::new(document.clone(), settings, seed),
            document: document.clone(),
            hall: Arc::clone(self),
            owner: self.store.owner(),
            connections: BTreeMap::new(),
            answers: BTreeMap::new(),
            asked: 0,
        };
        tokio::spawn(task.run(inbox));
        sender
    }

    /// Asks the room of `document`.
    pub(crate) async fn ask(self: &Arc<Self>, document: &DocumentKey, ask: Ask) -> Answer {
        let (answer, answered) = oneshot::channel();
        let room = self.room(document);
        let failed = |reason: &str| Answer::Failed { reason: reason.to_owned() };
        if room.send(RoomMail::Ask { ask, answer }).await.is_err() {
            return failed("the room has closed");
        }
        answered.await.unwrap_or_else(|_| failed("the room has closed"))
    }

    fn rooms(&self) -> std::sync::MutexGuard<'_, HashMap<DocumentKey, mpsc::Sender<RoomMail>>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the room out, unless somebody has just come.
    fn retire(&self, document: &DocumentKey, inbox: &mpsc::Receiver<RoomMail>) -> bool {
        let mut rooms = self.rooms();
        if inbox.sender_strong_count() > 1 || !inbox.is_empty() {
            return false;
        }
        rooms.remove(document);
        true
    }
}

struct RoomTask {
    room: Room,
    document: DocumentKey,
    hall: Arc<Hall>,
    owner: StoreOwner,
    connections: BTreeMap<ConnId, Connection>,
    answers: BTreeMap<u64, oneshot::Sender<Answer>>,
    asked: u64,
}

impl RoomTask {
    async fn run(mut self, mut inbox: mpsc::Receiver<RoomMail>) {
        add(&self.hall.counters.rooms, 1);
        debug!(document = %self.document, "room opened");
        loop {
            let input = tokio::select! {
                biased;
                Some(reply) = self.owner.replies.recv() => RoomInput::Store(reply),
                mail = inbox.recv() => match mail {
                    Some(mail) => self.input(mail),
                    None => break,
                },
                () = tokio::time::sleep(EMPTY_ROOM_STAYS), if self.room.is_at_rest() => {
                    if self.hall.retire(&self.document, &inbox) {
                        break;
                    }
                    continue;
                }
            };
            self.step(input);
        }
        debug!(document = %self.document, "room closed");
    }

    fn input(&mut self, mail: RoomMail) -> RoomInput {
        match mail {
            RoomMail::Message { connection, message } => {
                let conn = connection.id();
                self.connections.insert(conn, connection);
                RoomInput::Message { conn, message }
            }
            RoomMail::Left { conn } => {
                self.connections.remove(&conn);
                RoomInput::Left { conn }
            }
            RoomMail::Ask { ask, answer } => {
                self.asked += 1;
                self.answers.insert(self.asked, answer);
                RoomInput::Ask { request: self.asked, ask }
            }
        }
    }

    fn step(&mut self, input: RoomInput) {
        if let RoomInput::Store(
            StoreReply::AppendFailed { error, .. } | StoreReply::Broken { error },
        ) = &input
        {
            error!(document = %self.document, %error, "the store failed");
        }
        if matches!(input, RoomInput::Store(StoreReply::Broken { .. })) {
            // It answers this owner no more.
            self.owner = self.hall.store.owner();
        }
        let before = self.room.counts();
        let effects = tokio::task::block_in_place(|| self.room.step(input));
        let after = self.room.counts();
        add(&self.hall.counters.applied, after.applied - before.applied);
        add(&self.hall.counters.rejected, after.rejected - before.rejected);
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: RoomEffect) {
        match effect {
            RoomEffect::Send { conn, message } => {
                if let Some(connection) = self.connections.get(&conn) {
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
            RoomEffect::Disconnect { conn } => {
                if let Some(connection) = self.connections.get(&conn) {
                    connection.end(Ending::Quiet);
                }
            }
        }
    }
}

impl Drop for RoomTask {
    /// Also after a panic: a room that broke its promises takes nobody along, and whoever was in
    /// it comes back to a new one.
    fn drop(&mut self) {
        for connection in self.connections.values() {
            connection.end(Ending::Quiet);
        }
        self.hall.counters.rooms.fetch_sub(1, Ordering::Relaxed);
    }
}
