//! The server: a room for each document, over one store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tidelog_disk::MemoryDisk;
use tidelog_document::FoundRight;
use tidelog_pages::{OwnerId, PageServer, StoreOptions, StoreRequest};
use tidelog_room::{
    Answer, Ask, ConnId, Doctypes, Identity, Outlets, Room, RoomEffect, RoomInput, RoomSettings,
    Speaker,
};
use tidelog_sync::{Channel, FromRoom, FromServer, Refusal, ToRoom, ToServer};
use tidelog_types::{DocumentKey, Life};

use crate::chance::Chance;
use crate::device::{open_store, poll};

/// What clients call the server.
pub(crate) const ADDRESS: &str = "ws://server";

/// A server in development: clients need no token and bring their doctypes along.
pub(crate) struct Server {
    store: PageServer<MemoryDisk>,
    /// What rooms have asked of it since it was served last.
    asked: VecDeque<(OwnerId, StoreRequest)>,
    rooms: BTreeMap<DocumentKey, RoomHere>,
    owners: BTreeMap<OwnerId, DocumentKey>,
    /// Connections, and the documents of their channels.
    conns: BTreeMap<ConnId, ConnHere>,
    chance: Chance,
    found_right: FoundRight,
    now_ms: u64,
    /// What is to be told, oldest first.
    pub(crate) told: Vec<(ConnId, FromServer)>,
    /// Connections that are of no use any more.
    pub(crate) closed: Vec<ConnId>,
    /// What a room has answered to the server itself.
    answer: Option<Answer>,
}

/// A connection.
struct ConnHere {
    identity: Arc<Identity>,
    channels: BTreeMap<Channel, DocumentKey>,
}

struct RoomHere {
    room: Room,
    owner: OwnerId,
    /// What it has not taken in yet.
    inbox: VecDeque<RoomInput>,
}

impl RoomHere {
    fn next(&mut self) -> Option<RoomInput> {
        if self.room.wants_step() {
            return Some(RoomInput::GoOn);
        }
        if self.room.takes_messages() { self.inbox.pop_front() } else { None }
    }
}

/// Ways to clients that take everything: what is sent is handed over at once.
struct AtOnce;

impl Outlets for AtOnce {
    fn reserve(&self, _: ConnId, _: usize) -> bool {
        true
    }

    fn release(&self, _: ConnId, _: usize) {}

    fn is_idle(&self, _: ConnId) -> bool {
        true
    }
}

impl Server {
    pub(crate) fn new(mut chance: Chance, found_right: FoundRight) -> Self {
        let mut life = Life::NONE;
        life.0.copy_from_slice(&chance.draw()[..16]);
        let store = open_store(&mut chance, StoreOptions { life, ..StoreOptions::default() });
        Self {
            store,
            asked: VecDeque::new(),
            rooms: BTreeMap::new(),
            owners: BTreeMap::new(),
            conns: BTreeMap::new(),
            chance,
            found_right,
            now_ms: 0,
            told: Vec::new(),
            closed: Vec::new(),
            answer: None,
        }
    }

    /// A client says something.
    pub(crate) fn hear(&mut self, now_ms: u64, conn: ConnId, message: ToServer) {
        self.now_ms = now_ms;
        match message {
            ToServer::Hello { client, .. } => {
                // As on any development server.
                let identity = Arc::new(Identity::new(None, client));
                self.conns.insert(conn, ConnHere { identity, channels: BTreeMap::new() });
                self.told.push((conn, FromServer::Welcome));
            }
            ToServer::Renew { .. } => self.told.push((conn, FromServer::NotRenewed)),
            ToServer::Ping => self.told.push((conn, FromServer::Pong)),
            ToServer::About { channel, body } => self.route(conn, channel, body),
        }
        self.run();
    }

    /// When somebody is to be told who is present, or a room has something to decide by the clock.
    pub(crate) fn due_at_ms(&self) -> Option<u64> {
        let due = |here: &RoomHere| {
            let handling = here.room.handling_due_at_ms();
            here.room.presence_due_at_ms().into_iter().chain(handling).min()
        };
        self.rooms.values().filter_map(due).min()
    }

    /// Tells who is present, and decides by the clock, where that is due.
    pub(crate) fn pass(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        let is_due =
            |here: &RoomHere| here.room.presence_due_at_ms().is_some_and(|at| at <= now_ms);
        let due = self.rooms.iter().filter(|(_, here)| is_due(here));
        let due: Vec<DocumentKey> = due.map(|(document, _)| document.clone()).collect();
        for document in due {
            self.step(&document, RoomInput::PresenceDue { now_ms });
        }
        let is_due =
            |here: &RoomHere| here.room.handling_due_at_ms().is_some_and(|at| at <= now_ms);
        let due = self.rooms.iter().filter(|(_, here)| is_due(here));
        let due: Vec<DocumentKey> = due.map(|(document, _)| document.clone()).collect();
        for document in due {
            self.step(&document, RoomInput::GoOn);
        }
        self.run();
    }

    /// A connection is gone.
    pub(crate) fn left(&mut self, conn: ConnId) {
        let Some(ConnHere { channels, .. }) = self.conns.remove(&conn) else { return };
        let mut documents: Vec<DocumentKey> = channels.into_values().collect();
        documents.sort_unstable();
        documents.dedup();
        for document in documents {
            self.tell(&document, RoomInput::Left { conn });
        }
        self.run();
    }

    /// Deletes a document, as an operator does.
    pub(crate) fn delete(&mut self, document: &DocumentKey) -> Answer {
        self.tell(document, RoomInput::Ask { request: 1, ask: Ask::Destroy });
        self.run();
        self.answer.take().expect("BUG: a room answers once it has nothing left to do")
    }

    /// Finds the room that a message is for.
    fn route(&mut self, conn: ConnId, channel: Channel, message: ToRoom) {
        let Some(ConnHere { identity, channels }) = self.conns.get_mut(&conn) else {
            return self.closed.push(conn);
        };
        if let ToRoom::Open { document, .. } = &message {
            let Ok(document) = DocumentKey::new(document, "") else {
                let refusal = Refusal::Protocol { reason: "no such name".to_owned() };
                let body = FromRoom::Refused(refusal);
                return self.told.push((conn, FromServer::About { channel, body }));
            };
            channels.insert(channel, document);
        }
        // A channel that was refused or closed may still have had some messages on the way.
        let Some(document) = channels.get(&channel).cloned() else { return };
        if matches!(message, ToRoom::Close) {
            channels.remove(&channel);
        }
        let input = match message {
            ToRoom::Presence(word) => {
                let (identity, now_ms) = (Arc::clone(identity), self.now_ms);
                RoomInput::Presence { conn, channel, identity, word, has_room: true, now_ms }
            }
            message => RoomInput::Message { conn, channel, message, speaker: Speaker::anybody() },
        };
        self.tell(&document, input);
    }

    /// Something for a room, which is made if it is not there.
    fn tell(&mut self, document: &DocumentKey, input: RoomInput) {
        if !self.rooms.contains_key(document) {
            let found_right = self.found_right.clone();
            let settings =
                RoomSettings { doctypes: Doctypes::any(), found_right, ..RoomSettings::default() };
            let room = Room::new(document.clone(), settings, self.chance.draw(), Arc::new(AtOnce));
            let owner = OwnerId(self.owners.len() as u64 + 1);
            self.owners.insert(owner, document.clone());
            let here = RoomHere { room, owner, inbox: VecDeque::new() };
            self.rooms.insert(document.clone(), here);
        }
        let here = self.rooms.get_mut(document).expect("BUG: made above");
        here.inbox.push_back(input);
    }

    /// Has rooms and store do all that they can do.
    fn run(&mut self) {
        loop {
            self.work();
            if self.asked.is_empty() && !self.store.wants_poll() {
                return;
            }
            for (owner, request) in self.asked.drain(..) {
                self.store.serve(owner, request);
            }
            self.store.flush();
            for (owner, reply) in poll(&mut self.store) {
                let document = self.owners[&owner].clone();
                self.step(&document, RoomInput::Store(reply));
            }
        }
    }

    /// Has each room work off what it was told, as far as it need not wait for the store.
    fn work(&mut self) {
        let documents: Vec<DocumentKey> = self.rooms.keys().cloned().collect();
        for document in documents {
            while let Some(next) = self.rooms.get_mut(&document).and_then(RoomHere::next) {
                self.step(&document, next);
            }
        }
    }

    fn step(&mut self, document: &DocumentKey, input: RoomInput) {
        let here = self.rooms.get_mut(document).expect("BUG: no room is ever dropped");
        here.room.set_time(self.now_ms);
        for effect in here.room.step(input) {
            match effect {
                RoomEffect::Send { conn, message } => self.told.push((conn, message)),
                RoomEffect::Store(request) => self.asked.push_back((here.owner, request)),
                RoomEffect::Answer { answer, .. } => self.answer = Some(answer),
                // Nobody works in a world but who is there.
                RoomEffect::Due(_) => {}
            }
        }
    }
}
