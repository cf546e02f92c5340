//! A server: rooms over one page server over one disk.
//!
//! As in the shell of the real one, rooms and store go their own ways: what rooms ask waits for the
//! store's next round, and what it answers for the rooms.

mod access;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidelog_disk::{CrashDevice, CrashDisk};
use tidelog_document::FoundRight;
use tidelog_pages::{OwnerId, PageServer, StoreReply, StoreRequest};
use tidelog_room::{
    Answer, Ask, Caution, ConnId, Doctypes, May, Outlets, Room, RoomEffect, RoomInput,
    RoomSettings, Speaker, entry_size,
};
use tidelog_sync::{Channel, CodedPage, FromRoom, FromServer, Refusal, ToRoom, ToServer};
use tidelog_types::limits::{Limits, PAGE_SIZE};
use tidelog_types::{DocumentKey, JournalId, Life, Page, Pgid, Role};

use crate::app;
use crate::device::{crash, kill, open_store_if};
use crate::doors::Names;
use crate::doors::RoomDoor;
use crate::doors::RoomNotes;
use crate::doors::StoreDoor;
use crate::doors::Talk;
use crate::guard::{Guard, Let};
use crate::rng::Rng;
use crate::swarm::Swarm;

pub(crate) struct Host {
    pub(crate) disk: CrashDevice,
    /// Counts up whenever the process is started.
    pub(crate) life: u64,
    running: Option<Running>,
    /// Whether the store's next round is due.
    pub(crate) is_due: bool,
    /// When it next looks after documents that are handed over.
    pub(crate) looks_at_ms: Option<u64>,
    /// When it next looks after tasks.
    pub(crate) tasks_look_at_ms: Option<u64>,
    /// Whether something is wrong with the log of its store, which is only read then.
    pub(crate) has_damaged_log: bool,
    /// Whether its clients say what no core does.
    pub(crate) serves_strangers: bool,
    /// Who is let in, where tokens are asked for.
    pub(crate) guard: Option<Guard>,
    /// What the time is by its clock.
    now_ms: u64,
    swarm: Swarm,
}

struct Running {
    /// `None` until it is opened anew.
    page_server: Option<PageServer<CrashDisk>>,
    store_door: StoreDoor,
    is_damaged: bool,
    serves_strangers: bool,
    is_guarded: bool,
    rooms: BTreeMap<DocumentKey, RoomHere>,
    owners: BTreeMap<OwnerId, DocumentKey>,
    owners_ever: u64,
    /// Connections that have said hello, and the documents of their channels.
    conns: BTreeMap<ConnId, BTreeMap<Channel, DocumentKey>>,
    /// What waits for the store's next round.
    inbox: VecDeque<(OwnerId, StoreRequest)>,
    ways: Arc<Ways>,
    found_right: FoundRight,
    /// What the time is by its clock.
    now_ms: u64,
    seed: Rng,
    /// Whether rooms and the store give back what they can all the time.
    rests: bool,
    /// What has come of the document that is exported, until all has.
    export: Option<BTreeMap<Pgid, Page>>,
    /// The storage journals that rooms have begun.
    journals: BTreeSet<JournalId>,
}

/// Who asks that a document be deleted.
const DELETION: u64 = 2;
/// Whoever exports, for the server itself.
const EXPORTER: ConnId = ConnId(u64::MAX);

struct RoomHere {
    room: Room,
    owner: OwnerId,
    /// What it has not taken in yet.
    inbox: VecDeque<RoomInput>,
    door: RoomDoor,
    talk: Talk,
    notes: RoomNotes,
    names: Arc<Names>,
    /// Whether it gathers what it decides, and how many steps it has taken.
    gathers: bool,
    steps_count: u64,
}

/// Of so many steps of a room one gives to the store what was gathered: others expect more.
const STEPS_GATHERED: u64 = 3;

impl RoomHere {
    fn next(&mut self) -> Option<RoomInput> {
        // As on a server, what has come goes before what was gathered.
        let takes_first = self.gathers && self.room.takes_messages() && !self.inbox.is_empty();
        if self.room.wants_step() && !takes_first {
            return Some(RoomInput::GoOn);
        }
        if self.room.takes_messages() { self.inbox.pop_front() } else { None }
    }

    /// Has it expect more behind its next step, or not, whatever comes.
    fn gather(&mut self) {
        self.steps_count += 1;
        let is_last = self.steps_count.is_multiple_of(STEPS_GATHERED);
        self.room.expect_more(self.gathers && !is_last);
    }

    fn has_work(&self) -> bool {
        self.room.wants_step() || (self.room.takes_messages() && !self.inbox.is_empty())
    }
}

/// The ways to clients, which take only so much at once.
struct Ways {
    size_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    sizes: BTreeMap<ConnId, usize>,
    refused: BTreeSet<ConnId>,
}

impl Ways {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outlets for Ways {
    fn reserve(&self, conn: ConnId, size: usize) -> bool {
        let mut taken = self.taken();
        let before = taken.sizes.get(&conn).copied().unwrap_or(0);
        let fits = before == 0 || before + size <= self.size_max;
        if fits {
            taken.sizes.insert(conn, before + size);
        } else {
            taken.refused.insert(conn);
        }
        fits
    }

    fn release(&self, conn: ConnId, size: usize) {
        let mut taken = self.taken();
        let before = taken.sizes.remove(&conn).unwrap_or(0);
        let left = before.checked_sub(size).expect("BUG: more was given back than was taken");
        if left > 0 {
            taken.sizes.insert(conn, left);
        }
    }

    fn is_idle(&self, conn: ConnId) -> bool {
        !self.taken().sizes.contains_key(&conn)
    }
}

/// What the server did.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) sent: Vec<(ConnId, FromServer)>,
    pub(crate) closed: Vec<ConnId>,
    /// Connections that were let in by another token than before, and until when that is good.
    pub(crate) admitted: Vec<(ConnId, u64)>,
    pub(crate) exported: Option<Vec<u8>>,
    /// What is said of a document that was to be deleted.
    pub(crate) deleted: Option<Answer>,
    /// Answers of the store, on their way to their rooms.
    pub(crate) replies: Vec<(OwnerId, StoreReply)>,
    /// The store failed and has to be opened anew.
    pub(crate) is_broken: bool,
    /// A room has said what it may not.
    pub(crate) wrong: Option<String>,
}

impl Host {
    pub(crate) fn new(swarm: &Swarm) -> Self {
        let disk = CrashDevice::new();
        disk.hold_flushes(!swarm.flushes_at_once);
        let mut swarm = swarm.clone();
        // What a room writes comes at once, and would be refused each time.
        swarm.limits.owner_waiting_size_max = Limits::DEFAULT.owner_waiting_size_max;
        swarm.limits.owner_appends_max = Limits::DEFAULT.owner_appends_max;
        Self {
            disk,
            life: 0,
            running: None,
            is_due: false,
            looks_at_ms: None,
            tasks_look_at_ms: None,
            has_damaged_log: false,
            serves_strangers: false,
            guard: swarm.guarded.then(Guard::default),
            now_ms: 0,
            swarm,
        }
    }

    /// From its next start on.
    pub(crate) fn give_room_for_verdicts(&mut self) {
        self.swarm.limits.verdict_pages_max = Limits::DEFAULT.verdict_pages_max;
    }

    fn begins_anew(&mut self) {
        self.life += 1;
        self.is_due = false;
        self.tasks_look_at_ms = None;
        self.guard.iter_mut().for_each(Guard::forget_all);
    }

    pub(crate) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Whether its store is not open, since it failed.
    pub(crate) fn is_broken(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.page_server.is_none())
    }

    pub(crate) fn start(&mut self, rng: &mut Rng) -> Result<(), String> {
        self.begins_anew();
        let is_damaged = self.has_damaged_log;
        let store = open_store_if(is_damaged, &self.disk, life_of(rng), &self.swarm)?;
        self.running = Some(Running {
            page_server: Some(store),
            store_door: StoreDoor::new(&self.disk, &self.swarm, is_damaged),
            is_damaged,
            serves_strangers: self.serves_strangers,
            is_guarded: self.guard.is_some(),
            rooms: BTreeMap::new(),
            owners: BTreeMap::new(),
            owners_ever: 0,
            conns: BTreeMap::new(),
            inbox: VecDeque::new(),
            found_right: app::found_right(),
            now_ms: self.now_ms,
            ways: Arc::new(Ways { size_max: self.swarm.way_size_max, taken: Mutex::default() }),
            seed: Rng::new(rng.next()),
            rests: self.swarm.rooms_rest,
            export: None,
            journals: BTreeSet::new(),
        });
        Ok(())
    }

    pub(crate) fn cut_power(&mut self, rng: &mut Rng) {
        self.running = None;
        self.begins_anew();
        self.disk = crash(&self.disk, &self.swarm, rng);
    }

    /// The process ends: what it wrote is on the disk, flushed or not.
    pub(crate) fn stop(&mut self) {
        self.running = None;
        self.begins_anew();
        self.disk = kill(&self.disk, &self.swarm);
    }

    /// What the time is by its clock, from now on.
    pub(crate) fn set_time(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.running.iter_mut().for_each(|running| running.now_ms = now_ms);
    }

    /// When a room decides something of tasks by the clock alone.
    pub(crate) fn tasks_due_at_ms(&self) -> Option<u64> {
        let rooms = self.running.as_ref()?.rooms.values();
        rooms.filter_map(|here| here.room.handling_due_at_ms()).min()
    }

    /// When a room looks after a document that is handed over, and of which nothing comes.
    pub(crate) fn overdue_at_ms(&mut self, now_ms: u64) -> Option<u64> {
        let rooms = self.running.as_mut()?.rooms.values_mut();
        rooms.filter_map(|here| here.room.seed_overdue_at_ms(now_ms)).min()
    }

    /// The store's thread opens it anew after a failure.
    pub(crate) fn reopen(&mut self) -> Result<(), String> {
        self.disk = kill(&self.disk, &self.swarm);
        let Some(running) = &mut self.running else { return Ok(()) };
        let life = life_of(&mut running.seed);
        let store = open_store_if(self.has_damaged_log, &self.disk, life, &self.swarm)?;
        running.page_server = Some(store);
        running.store_door = StoreDoor::new(&self.disk, &self.swarm, self.has_damaged_log);
        Ok(())
    }

    pub(crate) fn left(&mut self, conn: ConnId) -> Done {
        let mut done = Done::default();
        self.guard.iter_mut().for_each(|guard| guard.forget(conn));
        let Some(running) = &mut self.running else { return done };
        let channels = running.conns.remove(&conn).unwrap_or_default();
        let mut documents: Vec<DocumentKey> = channels.into_values().collect();
        documents.sort_unstable();
        documents.dedup();
        for document in documents {
            running.tell(&document, RoomInput::Left { conn }, &self.swarm, &mut done);
        }
        done
    }

    pub(crate) fn hear(&mut self, conn: ConnId, message: ToServer) -> Done {
        let mut done = Done::default();
        let Some(running) = &mut self.running else { return done };
        match message {
            ToServer::Hello { token, .. } => {
                let answers = match &mut self.guard {
                    None => vec![FromServer::Welcome],
                    Some(guard) => guard.greet(conn, token.as_deref()),
                };
                if !matches!(answers[..], [FromServer::Bye { .. }]) {
                    running.conns.entry(conn).or_default();
                }
                let pass = self.guard.as_ref().and_then(|guard| guard.pass(conn));
                done.admitted.extend(pass.map(|pass| (conn, pass.until_ms)));
                done.sent.extend(answers.into_iter().map(|answer| (conn, answer)));
            }
            ToServer::Renew { token } => self.renew(conn, &token, &mut done),
            ToServer::Ping => done.sent.push((conn, FromServer::Pong)),
            ToServer::About { channel, body } => {
                let guarded = (self.guard.as_mut(), &self.swarm);
                running.route(conn, channel, body, guarded, &mut done);
            }
        }
        done
    }

    /// Drops a room in which nobody is, as the hall does after a while.
    pub(crate) fn retire(&mut self, nth: usize) -> bool {
        let Some(running) = &mut self.running else { return false };
        let channels = || running.conns.values().flat_map(BTreeMap::values);
        let is_asked = |document: &DocumentKey| channels().any(|asked| asked == document);
        let at_rest = running
            .rooms
            .iter()
            .filter(|(_, here)| here.room.is_at_rest() && here.inbox.is_empty())
            .filter(|(document, _)| !is_asked(document));
        let Some(document) = at_rest.map(|(document, _)| document.clone()).nth(nth) else {
            return false;
        };
        if let Some(here) = running.rooms.remove(&document) {
            running.owners.remove(&here.owner);
            if let Some(page_server) = &mut running.page_server {
                page_server.forget_owner(here.owner);
                running.store_door.forgets(here.owner);
            }
        }
        true
    }

    pub(crate) fn export(&mut self, document: &DocumentKey) -> Done {
        let mut done = Done::default();
        if let Some(running) = &mut self.running {
            let ask = RoomInput::Ask { request: 1, ask: Ask::Export { conn: EXPORTER } };
            running.export = Some(BTreeMap::new());
            running.tell(document, ask, &self.swarm, &mut done);
        }
        done
    }

    /// An operator deletes a document.
    pub(crate) fn destroy(&mut self, document: &DocumentKey) -> Done {
        let mut done = Done::default();
        if let Some(running) = &mut self.running {
            let ask = RoomInput::Ask { request: DELETION, ask: Ask::Destroy };
            running.tell(document, ask, &self.swarm, &mut done);
        }
        done
    }

    /// Whether an append to this document waits for the store's next round.
    pub(crate) fn is_writing(&self, document: &DocumentKey) -> bool {
        let mut inbox = self.running.iter().flat_map(|running| &running.inbox);
        inbox.any(|(_, request)| match request {
            StoreRequest::Append { append, .. } => append.document == *document,
            _ => false,
        })
    }

    /// Whether the store has something to do.
    pub(crate) fn wants_round(&self) -> bool {
        let Some(running) = &self.running else { return false };
        let Some(page_server) = &running.page_server else { return false };
        !running.inbox.is_empty()
            || page_server.wants_poll()
            || running.rooms.values().any(RoomHere::has_work)
            || !running.ways.taken().refused.is_empty()
    }

    /// All that waits goes down together.
    pub(crate) fn round(&mut self, now_ms: u64) -> Done {
        let mut done = Done::default();
        let Some(running) = &mut self.running else { return done };
        running.end_overdue(now_ms, &mut done);
        running.decide_due(&mut done);
        running.work(&mut done);
        let Some(page_server) = &mut running.page_server else { return done };
        if running.rests && !page_server.wants_poll() {
            // Nobody has asked for anything for a while.
            page_server.rest();
            page_server.mark_durable();
        }
        let mut has_writes = false;
        for (owner, request) in running.inbox.drain(..) {
            has_writes |=
                matches!(request, StoreRequest::Append { .. } | StoreRequest::Destroy { .. });
            running.store_door.comes(owner, &request);
            page_server.serve(owner, request);
        }
        if has_writes {
            page_server.flush();
        }
        done.replies = page_server.poll();
        let wrong = running.store_door.leaves(page_server, &done.replies).err();
        done.wrong = done.wrong.take().or(wrong);
        if page_server.is_broken() {
            running.page_server = None;
            done.is_broken = true;
        }
        done
    }

    /// An answer of the store has come to its room.
    pub(crate) fn answered(&mut self, owner: OwnerId, reply: StoreReply) -> Done {
        let mut done = Done::default();
        let Some(running) = &mut self.running else { return done };
        let Some(document) = running.owners.get(&owner).cloned() else { return done };
        if matches!(reply, StoreReply::Broken { .. }) {
            // The store answers this owner no more, and the next one carries nothing out for it.
            running.owners.remove(&owner);
            running.inbox.retain(|(asking, _)| *asking != owner);
            let other = running.new_owner(&document);
            if let Some(here) = running.rooms.get_mut(&document) {
                here.owner = other;
            }
        }
        running.step(&document, RoomInput::Store(reply), &mut done);
        done
    }

    pub(crate) fn flushed(&mut self) {
        self.disk.complete_flushes();
    }
}

impl Running {
    fn new_owner(&mut self, document: &DocumentKey) -> OwnerId {
        self.owners_ever += 1;
        let owner = OwnerId(self.owners_ever);
        self.owners.insert(owner, document.clone());
        owner
    }

    /// Finds the room that a message is for, as a connection's reader does.
    fn route(
        &mut self,
        conn: ConnId,
        channel: Channel,
        message: ToRoom,
        (guard, swarm): (Option<&mut Guard>, &Swarm),
        done: &mut Done,
    ) {
        let Some(channels) = self.conns.get_mut(&conn) else {
            // One that was said goodbye to has not heard so yet.
            done.closed.extend(guard.is_none().then_some(conn));
            return;
        };
        let taken = guard.map(|guard| guard.takes(conn, channel, &message));
        let speaker = match taken.unwrap_or_else(|| Let::Through(Speaker::anybody())) {
            Let::Through(speaker) => speaker,
            Let::Nothing => return,
            Let::Refuse(refusal) => {
                match channels.get(&channel).cloned() {
                    Some(document) if !matches!(message, ToRoom::Open { .. }) => {
                        let refuse = RoomInput::Refuse { conn, channel, refusal };
                        self.tell(&document, refuse, swarm, done);
                    }
                    _ => {
                        let body = FromRoom::Refused(refusal);
                        done.sent.push((conn, FromServer::About { channel, body }));
                    }
                }
                return;
            }
        };
        if let ToRoom::Open { document, .. } = &message {
            let Ok(document) = DocumentKey::new(document, "") else {
                let refusal = Refusal::Protocol { reason: "no such name".to_owned() };
                let body = FromRoom::Refused(refusal);
                return done.sent.push((conn, FromServer::About { channel, body }));
            };
            match channels.get(&channel) {
                Some(known) if *known != document => return done.closed.push(conn),
                _ => channels.insert(channel, document),
            };
            if self.is_guarded {
                let role = if speaker.may < May::Write { Role::Read } else { Role::Write };
                let body = FromRoom::Allowed { role };
                done.sent.push((conn, FromServer::About { channel, body }));
            }
        }
        // A channel that was refused or closed may still have had some messages on the way.
        let Some(document) = channels.get(&channel).cloned() else { return };
        if matches!(message, ToRoom::Close) {
            channels.remove(&channel);
        }
        self.tell(&document, RoomInput::Message { conn, channel, message, speaker }, swarm, done);
    }

    /// Something for a room, which is made if it is not there.
    fn tell(&mut self, document: &DocumentKey, input: RoomInput, swarm: &Swarm, done: &mut Done) {
        if !self.rooms.contains_key(document) {
            let settings = RoomSettings {
                doctypes: Doctypes::any(),
                limits: swarm.limits,
                is_damaged: self.is_damaged,
                found_right: self.found_right.clone(),
            };
            let outlets = Arc::clone(&self.ways) as Arc<dyn Outlets>;
            let names = Arc::new(Names::default());
            let room = Room::new(document.clone(), settings, self.seed.seed(), outlets)
                .with_caution(Arc::clone(&names) as Arc<dyn Caution>);
            let owner = self.new_owner(document);
            let (inbox, door) = (VecDeque::new(), RoomDoor::default());
            let may_part = swarm.devices_part() || swarm.servers_go_back();
            let doubts = self.serves_strangers;
            let mut talk = Talk::new(swarm.limits, self.is_damaged, may_part, doubts);
            talk.forks = swarm.forks();
            talk.has_tasks = swarm.has_tasks();
            let notes = RoomNotes::new(swarm.limits);
            let (gathers, steps_count) = (swarm.rooms_gather, 0);
            let here =
                RoomHere { room, owner, inbox, door, talk, notes, names, gathers, steps_count };
            self.rooms.insert(document.clone(), here);
        }
        let here = self.rooms.get_mut(document).expect("BUG: made above");
        here.inbox.push_back(input);
        if let Some(next) = here.next() {
            self.step(document, next, done);
        }
    }

    /// Every room does a slice of what it has to do.
    fn work(&mut self, done: &mut Done) {
        let writable = std::mem::take(&mut self.ways.taken().refused);
        let documents: Vec<DocumentKey> = self.rooms.keys().cloned().collect();
        for document in documents {
            for conn in &writable {
                self.step(&document, RoomInput::Writable { conn: *conn }, done);
            }
            let next = self.rooms.get_mut(&document).and_then(RoomHere::next);
            if let Some(next) = next {
                self.step(&document, next, done);
            }
        }
        let taken = self.ways.taken();
        for here in self.rooms.values_mut() {
            let wrong = here.talk.rests(&here.room, |conn| taken.refused.contains(&conn)).err();
            let wrong = wrong.or_else(|| here.room.doubt());
            done.wrong = done.wrong.take().or(wrong);
        }
        let is_idle = |here: &RoomHere| {
            let has_nothing = here.inbox.is_empty() && here.room.takes_messages();
            has_nothing && !here.has_work() && !here.talk.waits()
        };
        if !taken.sizes.is_empty() && self.rooms.values().all(is_idle) {
            let what = || "rooms wait for nothing, and keep ways reserved".to_owned();
            done.wrong.get_or_insert_with(what);
        }
    }

    /// Documents of which nothing comes while others wait with theirs.
    fn end_overdue(&mut self, now_ms: u64, done: &mut Done) {
        let is_overdue = |here: &mut RoomHere| {
            here.room.seed_overdue_at_ms(now_ms).is_some_and(|at_ms| at_ms <= now_ms)
        };
        let rooms = self.rooms.iter_mut().filter_map(|(key, here)| is_overdue(here).then_some(key));
        for document in rooms.cloned().collect::<Vec<_>>() {
            self.step(&document, RoomInput::SeedOverdue { now_ms }, done);
        }
    }

    /// What rooms decide of tasks by the clock.
    fn decide_due(&mut self, done: &mut Done) {
        let now_ms = self.now_ms;
        let is_due = |here: &RoomHere| {
            here.room.takes_messages()
                && here.room.handling_due_at_ms().is_some_and(|at| at <= now_ms)
        };
        let rooms = self.rooms.iter().filter_map(|(key, here)| is_due(here).then_some(key));
        for document in rooms.cloned().collect::<Vec<_>>() {
            self.step(&document, RoomInput::GoOn, done);
        }
    }

    fn step(&mut self, document: &DocumentKey, input: RoomInput, done: &mut Done) {
        let Some(here) = self.rooms.get_mut(document) else { return };
        here.room.set_time(self.now_ms);
        let mut wrong = here.door.comes(document, &input).err();
        here.talk.comes(document, &input);
        here.notes.comes(document, &input);
        here.gather();
        let effects = here.room.step(input);
        let runs = here.names.take_runs();
        if self.is_guarded {
            wrong = wrong.or(runs.iter().find_map(|what| here.talk.has_run(what).err()));
        }
        for effect in effects {
            wrong = wrong.or(here.door.leaves(&effect).err());
            wrong = wrong.or(here.talk.leaves(document, &effect).err());
            wrong = wrong.or(here.notes.leaves(document, &effect, &mut self.journals).err());
            // What is no mutation is rejected without a run, and what a room decides is none.
            if !self.serves_strangers && !here.talk.has_tasks {
                wrong = wrong.or(here.names.leaves(document, &effect).err());
            }
            match effect {
                RoomEffect::Send { conn: EXPORTER, message } => {
                    let FromServer::About { body: FromRoom::Entry(part), .. } = message else {
                        continue;
                    };
                    self.ways.release(EXPORTER, entry_size(&part));
                    // What the room writes behind that goes by pages that whoever follows has.
                    let Some(export) = &mut self.export else { continue };
                    let alone = |page: &CodedPage| (page.pgid, page.decoded(|_| None));
                    for (pgid, page) in part.pages.iter().map(alone) {
                        export.insert(pgid, page.expect("a page by itself"));
                    }
                    if part.is_last {
                        let export = self.export.take().expect("BUG: it was there just now");
                        here.inbox.push_back(RoomInput::Left { conn: EXPORTER });
                        let mut file = vec![0; part.db_pages as usize * PAGE_SIZE];
                        for (number, place) in (1..).zip(file.chunks_exact_mut(PAGE_SIZE)) {
                            if let Some(page) = export.get(&Pgid(number)) {
                                place.copy_from_slice(page.bytes());
                            }
                        }
                        done.exported = Some(file);
                    }
                }
                RoomEffect::Send { conn, message } => {
                    if let FromServer::About { body: FromRoom::Entry(part), .. } = &message {
                        self.ways.release(conn, entry_size(part));
                    }
                    done.sent.push((conn, message));
                }
                RoomEffect::Store(request) => self.inbox.push_back((here.owner, request)),
                RoomEffect::Answer { request: DELETION, answer } => {
                    done.deleted = Some(answer);
                }
                RoomEffect::Answer { .. } | RoomEffect::Due(_) => {}
            }
        }
        // As in a server whose rooms keep more than they may together.
        if self.rests && self.seed.once_in(3) {
            here.room.rest_deeply();
            wrong = wrong.or(here.talk.has_rested(&here.room).err());
        }
        done.wrong = done.wrong.take().or(wrong);
    }
}

/// The life that an opening of a server's store is.
fn life_of(rng: &mut Rng) -> Life {
    let mut life = Life::NONE;
    life.0[..8].copy_from_slice(&rng.next().to_le_bytes());
    life
}
