//! Stories of one room over a real page server on a disk in memory.

mod access;
mod archiving;
mod bounds;
mod damage;
mod due;
mod erasing;
mod handling;
mod naming;
mod positions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use tidelog_disk::{CrashDevice, CrashDisk, StoreFiles};
use tidelog_document::{
    Doctype, Mutation, MutationDefinition, Param, ParamKind, client_of, hash_of,
};
use tidelog_pages::{AppendError, OwnerId, PageServer, Seed, StoreOptions, StoreReply};
use tidelog_sync::{Channel, FromServer, Intent, codec};
use tidelog_types::limits::Limits;
use tidelog_types::{CallId, PageSet, Value};

use super::*;

const ANN: ConnId = ConnId(1);
const BOB: ConnId = ConnId(2);
/// Whoever exports, for the server itself.
const EXPORTER: ConnId = ConnId(1_000);
const CHANNEL: Channel = Channel(7);

fn lsn(number: u64) -> Lsn {
    Lsn::new(number).expect("not 0")
}

fn doctype(migrations: &[&str]) -> Doctype {
    let param =
        |name: &str| Param { name: name.to_owned(), kind: ParamKind::Text, optional: false };
    Doctype {
        name: "notes".to_owned(),
        migrations: migrations.iter().map(ToString::to_string).collect(),
        mutations: vec![
            MutationDefinition {
                name: "add".to_owned(),
                params: vec![param("id"), param("body")],
                sql: vec!["insert into note (id, body) values (:id, :body)".to_owned()],
            },
            MutationDefinition {
                name: "fill".to_owned(),
                params: vec![],
                sql: vec![
                    "with recursive n(i) as (values (1) union all select i + 1 from n \
                           where i < 3000) insert into note (id, body) \
                           select 'fill ' || i, hex(zeroblob(500)) from n"
                        .to_owned(),
                ],
            },
        ],
        streams: Vec::new(),
        workflows: Vec::new(),
    }
}

fn notes() -> Doctype {
    doctype(&["create table note (id text primary key, body text) strict"])
}

fn frame(doctype: &Doctype, name: &str, args: &[(&str, &str)]) -> WireFrame {
    let mutation = Mutation {
        doctype: doctype.hash(),
        name: name.to_owned(),
        args: args
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::Text((*value).to_owned())))
            .collect(),
        now_ms: 1,
        client: client_of(tidelog_types::CopySecret::NONE),
        user: String::new(),
        kept_rejections: Lsn::FIRST,
        moved_from: None,
    };
    WireFrame { call: CallId([0; 16]), body: mutation.encode(), predicted: None }
}

fn add(id: &str) -> WireFrame {
    frame(&notes(), "add", &[("id", id), ("body", "text")])
}

/// The life of a client's core.
fn life_of(conn: ConnId) -> Life {
    Life([100 + u8::try_from(conn.0).expect("few"); 16])
}

/// A room, its store, and what its clients were told.
struct Scene {
    room: Room,
    ways: Arc<Ways>,
    device: CrashDevice,
    /// How often the store was opened: each time it is another life.
    openings: u8,
    store: PageServer<CrashDisk>,
    owner: OwnerId,
    /// Which replies are held back.
    waits: fn(&StoreReply) -> bool,
    held: VecDeque<StoreReply>,
    told: BTreeMap<ConnId, Vec<FromRoom>>,
    answers: Vec<Answer>,
    /// What was told of due tasks, the last of it last.
    due: Vec<DueTasks>,
}

fn open_store(device: &CrashDevice, opening: u8) -> PageServer<CrashDisk> {
    let files = StoreFiles::open_each(|name| Ok::<_, ()>(device.file(name))).expect("no errors");
    let options = StoreOptions { life: Life([opening; 16]), ..StoreOptions::default() };
    PageServer::open_with(files, Seed(opening.into()), options).expect("a store").0
}

/// The ways to clients: as much as a connection takes at once, or nothing more.
#[derive(Default)]
struct Ways(Mutex<BTreeMap<ConnId, Way>>);

#[derive(Default)]
struct Way {
    reserved: usize,
    is_blocked: bool,
}

impl Ways {
    fn of<T>(&self, conn: ConnId, look: impl FnOnce(&mut Way) -> T) -> T {
        look(self.0.lock().expect("no panic").entry(conn).or_default())
    }
}

impl Outlets for Ways {
    fn reserve(&self, conn: ConnId, size: usize) -> bool {
        self.of(conn, |way| {
            way.reserved += if way.is_blocked { 0 } else { size };
            !way.is_blocked
        })
    }

    fn release(&self, conn: ConnId, size: usize) {
        self.of(conn, |way| way.reserved = way.reserved.checked_sub(size).expect("it was taken"));
    }

    fn is_idle(&self, conn: ConnId) -> bool {
        self.of(conn, |way| way.reserved == 0 && !way.is_blocked)
    }
}

fn room(seed: u8, ways: &Arc<Ways>) -> Room {
    let document = DocumentKey::new("notebook", "").expect("a name");
    let settings = RoomSettings { doctypes: Doctypes::any(), ..RoomSettings::default() };
    Room::new(document, settings, [seed; 32], Arc::clone(ways) as Arc<dyn Outlets>)
}

impl Scene {
    fn new() -> Self {
        Self::of(1)
    }

    /// A server that draws other ids and lives than others.
    fn of(number: u8) -> Self {
        let device = CrashDevice::new();
        let ways = Arc::new(Ways::default());
        Self {
            room: room(number, &ways),
            ways,
            store: open_store(&device, number),
            device,
            openings: number,
            owner: OwnerId(1),
            waits: |_| false,
            held: VecDeque::new(),
            told: BTreeMap::new(),
            answers: Vec::new(),
            due: Vec::new(),
        }
    }

    /// The server process begins anew over the same disk.
    fn restart(&mut self) {
        self.restore(&self.backup());
    }

    /// The store is opened anew after a failure, by the same process.
    fn reopen_store(&mut self) {
        self.device = self.backup();
        self.openings += 1;
        self.store = open_store(&self.device, self.openings);
        self.owner = OwnerId(self.owner.0 + 1);
    }

    /// The store's files as they are now.
    fn backup(&self) -> CrashDevice {
        self.device.kill()
    }

    /// The server process begins anew over these files.
    fn restore(&mut self, files: &CrashDevice) {
        self.device = files.kill();
        self.openings += 1;
        self.store = open_store(&self.device, self.openings);
        self.owner = OwnerId(self.owner.0 + 1);
        self.room = room(u8::try_from(self.owner.0).expect("few restarts"), &self.ways);
        self.told.clear();
    }

    fn step(&mut self, input: RoomInput) {
        let mut effects = self.room.step(input);
        while !effects.is_empty() || self.room.wants_step() {
            for effect in std::mem::take(&mut effects) {
                match effect {
                    RoomEffect::Send { conn, message } => {
                        let FromServer::About { channel, body } = message else {
                            panic!("of no document: {message:?}")
                        };
                        assert!(channel == CHANNEL || conn == EXPORTER, "{body:?}");
                        if let FromRoom::Entry(part) = &body {
                            self.ways.release(conn, entry_size(part));
                        }
                        self.told.entry(conn).or_default().push(body);
                    }
                    RoomEffect::Store(request) => self.store.serve(self.owner, request),
                    RoomEffect::Answer { answer, .. } => self.answers.push(answer),
                    RoomEffect::Due(due) => self.due.push(due),
                }
            }
            if self.room.wants_step() {
                effects.extend(self.room.step(RoomInput::GoOn));
                continue;
            }
            self.store.flush();
            while self.store.wants_poll() || effects.is_empty() {
                let replies = self.store.poll();
                if replies.is_empty() && !self.store.wants_poll() {
                    break;
                }
                for (_, reply) in replies {
                    if (self.waits)(&reply) {
                        self.held.push_back(reply);
                    } else {
                        effects.extend(self.room.step(RoomInput::Store(reply)));
                    }
                }
            }
        }
    }

    /// Asks the store for as much as it takes in.
    fn crowd_store(&mut self) {
        for request in 0..Limits::DEFAULT.owner_reads_max as u64 {
            let document = DocumentKey::new("notebook", "").expect("a good name");
            let (request, urgency) = (u64::MAX - request, Urgency::User);
            let read = StoreRequest::Read {
                request: RequestId(request),
                urgency,
                document,
                pgids: Vec::new(),
            };
            self.store.serve(self.owner, read);
        }
    }

    fn release_one(&mut self) {
        let reply = self.held.pop_front().expect("one is held");
        self.step(RoomInput::Store(reply));
    }

    fn release(&mut self) {
        self.waits = |_| false;
        while !self.held.is_empty() {
            self.release_one();
        }
    }

    fn say(&mut self, conn: ConnId, message: ToRoom) {
        self.step(RoomInput::Message {
            conn,
            channel: CHANNEL,
            message,
            speaker: Speaker::anybody(),
        });
    }

    fn open_as(
        &mut self,
        conn: ConnId,
        doctype: &Doctype,
        have: Option<Position>,
        intent: Intent,
    ) -> Vec<FromRoom> {
        self.say(
            conn,
            ToRoom::Open {
                document: "notebook".to_owned(),
                doctype: codec::encode(doctype).into(),
                timeline: JournalId([u8::try_from(conn.0).expect("few"); 16]),
                secret: tidelog_types::CopySecret::NONE,
                have,
                intent,
            },
        );
        self.heard(conn)
    }

    fn open(&mut self, conn: ConnId, have: Option<Position>) -> Vec<FromRoom> {
        self.open_as(conn, &notes(), have, Intent::Follow)
    }

    fn frames(&mut self, conn: ConnId, first: u64, frames: Vec<WireFrame>) -> Vec<FromRoom> {
        self.frames_of(conn, life_of(conn), first, frames)
    }

    fn frames_of(
        &mut self,
        conn: ConnId,
        life: Life,
        first: u64,
        frames: Vec<WireFrame>,
    ) -> Vec<FromRoom> {
        self.say(conn, ToRoom::Frames { life, first: lsn(first), frames });
        self.heard(conn)
    }

    fn heard(&mut self, conn: ConnId) -> Vec<FromRoom> {
        self.told.remove(&conn).unwrap_or_default()
    }

    fn ask(&mut self, ask: Ask) -> Answer {
        self.step(RoomInput::Ask { request: 1, ask });
        self.answers.pop().expect("an answer")
    }

    /// All pages, as they come to one who exports the document.
    fn export(&mut self) -> BTreeMap<Pgid, Page> {
        assert_eq!(self.ask(Ask::Export { conn: EXPORTER }), Answer::Exporting);
        let mut pages = BTreeMap::new();
        let mut is_whole = false;
        for message in self.heard(EXPORTER) {
            if let FromRoom::Entry(part) = message {
                let alone = |page: &CodedPage| (page.pgid, page.decoded(|_| None).expect("a page"));
                pages.extend(part.pages.iter().map(alone));
                is_whole |= part.is_last;
            }
        }
        assert!(is_whole);
        self.step(RoomInput::Left { conn: EXPORTER });
        pages
    }

    fn position(&self) -> Position {
        self.position_and_size().0
    }

    fn position_and_size(&self) -> (Position, u32) {
        let State::Open(document) = &self.room.state else { panic!("not open: {}", self.room) };
        (document.authority.position(), document.authority.view().base_db_pages())
    }
}

/// The messages in a short form.
fn brief(messages: &[FromRoom]) -> Vec<String> {
    let brief = |message: &FromRoom| match message {
        FromRoom::Opened { storage, wanted, .. } => {
            format!("opened {} wanted {wanted}", storage.next)
        }
        FromRoom::Entry(part) => {
            let origin = part.origin.map_or(String::new(), |it| format!(" of {}", it.lsn));
            format!("entry {}{origin}", part.range)
        }
        FromRoom::Acked { next } => format!("acked {next}"),
        FromRoom::Undecided { lsn, .. } => format!("undecided {lsn}"),
        FromRoom::Forbidden { lsn } => format!("forbidden {lsn}"),
        FromRoom::Allowed { role } => format!("allowed to {role}"),
        FromRoom::Refused(refusal) => {
            let text = format!("{refusal:?}");
            format!("refused {}", text.split(' ').next().unwrap_or_default())
        }
        FromRoom::SeedWanted => "seed wanted".to_owned(),
        FromRoom::SeedTaken { pages_count } => format!("seed taken {pages_count}"),
        FromRoom::Seeded { .. } => "seeded".to_owned(),
        FromRoom::Probed { next, .. } => format!("probed {next}"),
        FromRoom::Presence(news) => format!("presence of {}", news.present.len()),
        FromRoom::Archived { number, .. } => format!("archived {number}"),
        FromRoom::Registered { tag, instance } => format!("registered {tag} as {instance}"),
        FromRoom::NotRegistered { tag, .. } => format!("not registered {tag}"),
        FromRoom::Completed { number, answer, .. } => format!("completed {number}: {answer:?}"),
    };
    messages.iter().map(brief).collect()
}

#[test]
fn the_first_client_creates_the_document_and_gets_it() {
    let mut scene = Scene::new();
    let heard = scene.open(ANN, None);
    assert_eq!(brief(&heard), ["opened 2 wanted 1", "entry 1..2"]);
    assert_eq!(
        scene.room.to_string(),
        "notebook head 2 durable 2 | subscribers 1 queued 0 appends 0"
    );
}

#[test]
fn a_mutation_of_one_reaches_the_other_with_its_verdict() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.open(BOB, None);
    let heard = scene.frames(ANN, 1, vec![add("a"), add("b")]);
    assert_eq!(brief(&heard), ["entry 2..3 of 1", "entry 3..4 of 2", "acked 3"]);
    assert_eq!(brief(&scene.heard(BOB)), ["entry 2..4"]);
    assert_eq!(scene.room.counts(), RoomCounts { applied: 2, rejected: 0 });
}

/// Goal: what is said close together goes to the disk together, and nothing of it is told before.
/// Method: two messages, the first of which is not the last that is at hand.
#[test]
fn frames_that_come_close_together_are_one_append_and_one_acknowledgement() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.waits = |reply| matches!(reply, StoreReply::Durable { .. });
    scene.room.expect_more(true);
    assert_eq!(scene.room.step(frames_input(1, "a")).len(), 0, "there is more at hand");
    assert!(scene.room.wants_step(), "unless there is not");
    scene.room.expect_more(false);
    scene.step(frames_input(2, "b"));
    assert_eq!(brief(&scene.heard(ANN)), [""; 0], "nothing is durable");
    let state = "notebook head 4 durable 2 | subscribers 1 queued 0 appends 1";
    assert_eq!(scene.room.to_string(), state);
    scene.release();
    let heard = brief(&scene.heard(ANN));
    assert_eq!(heard, ["entry 2..3 of 1", "entry 3..4 of 2", "acked 3"]);
}

/// Goal: whoever hears of many entries at once has to take in one, and has the same pages; who has
/// sent them all gets each, without pages if it has predicted it. Method: what each entry says is
/// known from a room that is told the same frames one by one.
#[test]
fn entries_of_one_append_leave_as_one() {
    let ids = ["a", "b", "c", "d"];
    let mut scene = Scene::new();
    scene.open(ANN, None);
    let mut predicted = Vec::new();
    for (id, first) in ids.into_iter().zip(1..) {
        let heard = scene.frames(ANN, first, vec![add(id)]);
        let [FromRoom::Entry(part), ..] = &*heard else { panic!("{heard:?}") };
        predicted.push(WireFrame { predicted: Some(part.hash.start()), ..add(id) });
    }
    let one_by_one = scene.export();

    for sent in [predicted.clone(), ids.map(add).to_vec()] {
        let mut scene = Scene::new();
        scene.open(ANN, None);
        let mut held = PageSet::default();
        hear(&mut held, &scene.open(BOB, None));
        let are_predicted = sent == predicted;
        let heard = scene.frames(ANN, 1, sent);
        let alone = ["entry 2..3 of 1", "entry 3..4 of 2", "entry 4..5 of 3", "entry 5..6 of 4"];
        let is_without_pages = |message: &FromRoom| match message {
            FromRoom::Entry(part) => part.is_predicted && part.pages.is_empty(),
            _ => true,
        };
        assert_eq!(brief(&heard), [&alone[..], &["acked 5"]].concat());
        assert_eq!(heard.iter().all(is_without_pages), are_predicted);
        let heard = scene.heard(BOB);
        assert_eq!(brief(&heard), ["entry 2..6"]);
        hear(&mut held, &heard);
        assert!(held.pages == one_by_one && scene.export() == one_by_one);
    }
}

/// Takes in an entry as one who has all before it, and makes sure that it is what it says.
fn hear(held: &mut PageSet, messages: &[FromRoom]) {
    for message in messages {
        let FromRoom::Entry(part) = message else { continue };
        let previous = |pgid: Pgid| held.pages.get(&pgid).cloned();
        let decoded = |page: &CodedPage| Some((page.pgid, page.decoded(previous)?));
        let pages = part.pages.iter().map(decoded).collect::<Option<_>>().expect("pages");
        let set = PageSet { db_pages: part.db_pages, pages };
        assert_eq!(hash_of(&set), part.hash, "{}", part.range);
        held.absorb(&set);
    }
}

#[test]
fn what_was_held_for_more_goes_on_its_way_where_nothing_comes() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.room.expect_more(true);
    assert_eq!(scene.room.step(frames_input(1, "a")).len(), 0);
    scene.room.expect_more(false);
    scene.step(RoomInput::GoOn);
    assert_eq!(brief(&scene.heard(ANN)), ["entry 2..3 of 1", "acked 2"]);
}

/// A frame of Ann's.
fn frames_input(first: u64, id: &str) -> RoomInput {
    let frames = vec![add(id)];
    let message = ToRoom::Frames { life: life_of(ANN), first: lsn(first), frames };
    RoomInput::Message { conn: ANN, channel: CHANNEL, message, speaker: Speaker::anybody() }
}

#[test]
fn frames_that_came_before_are_acknowledged_and_not_applied_again() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.frames(ANN, 1, vec![add("a")]);
    let again = scene.frames(ANN, 1, vec![add("a"), add("b")]);
    assert_eq!(brief(&again), ["entry 3..4 of 2", "acked 3"]);
    assert_eq!(brief(&scene.frames(ANN, 1, vec![add("a")])), ["acked 2"]);
    assert_eq!(scene.room.counts().applied, 2);
}

#[test]
fn a_gap_in_a_timeline_is_refused() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    assert_eq!(brief(&scene.frames(ANN, 2, vec![add("b")])), ["refused Protocol"]);
    assert!(scene.frames(ANN, 1, vec![add("a")]).is_empty(), "the channel is closed");
    assert_eq!(brief(&scene.open(ANN, None))[0], "opened 2 wanted 1");
}

#[test]
fn what_cannot_be_applied_is_rejected_in_its_place_and_holds_nobody_up() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    let rubbish = WireFrame { call: CallId([0; 16]), body: vec![1, 2, 3], predicted: None };
    let heard = scene.frames(ANN, 1, vec![add("a"), rubbish, add("a"), add("b")]);
    assert_eq!(brief(&heard).last().map(String::as_str), Some("acked 5"));
    assert_eq!(scene.room.counts(), RoomCounts { applied: 2, rejected: 2 });
}

#[test]
fn an_unknown_doctype_stops_its_timeline_until_it_is_brought() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    let newer = doctype(&[notes().migrations[0].as_str(), "alter table note add column at text"]);
    let theirs = frame(&newer, "add", &[("id", "b"), ("body", "")]);
    let heard = scene.frames(ANN, 1, vec![add("a"), theirs.clone(), add("c")]);
    assert_eq!(brief(&heard), ["entry 2..3 of 1", "undecided 2", "acked 2"]);
    assert!(scene.frames(ANN, 4, vec![add("d")]).is_empty(), "left alone");

    let have = Some(scene.position());
    let heard = scene.open_as(ANN, &newer, have, Intent::Follow);
    assert_eq!(brief(&heard), ["opened 4 wanted 2", "entry 3..4"]);
    let heard = scene.frames(ANN, 2, vec![theirs, add("c")]);
    assert_eq!(brief(&heard).last().map(String::as_str), Some("acked 4"));
    assert_eq!(scene.room.counts().applied, 3);
}

#[test]
fn a_document_that_a_client_had_from_a_server_is_not_created_anew() {
    let mut scene = Scene::new();
    let have = Some(Position { next: lsn(5), ..Position::start_of(JournalId([9; 16])) });
    assert_eq!(brief(&scene.open(ANN, have)), ["refused Missing"]);
    assert_eq!(scene.ask(Ask::Describe), Answer::Missing);
}

#[test]
fn a_doctype_that_is_no_successor_or_cannot_work_is_refused() {
    let mut scene = Scene::new();
    let broken = doctype(&["create tabel"]);
    let heard = scene.open_as(ANN, &broken, None, Intent::Follow);
    assert_eq!(brief(&heard), ["refused DoctypeInvalid"]);
    scene.open(ANN, None);
    let other = doctype(&["create table note (id text primary key, body text, at text) strict"]);
    let heard = scene.open_as(BOB, &other, None, Intent::Follow);
    assert_eq!(brief(&heard), ["refused DoctypeMismatch"]);
    let newer = doctype(&[notes().migrations[0].as_str(), "create table more (id text) strict"]);
    let heard = scene.open_as(BOB, &newer, None, Intent::Follow);
    assert_eq!(brief(&heard), ["opened 3 wanted 1", "entry 1..3"]);
    assert_eq!(brief(&scene.heard(ANN)), ["entry 2..3"]);
    // The older one is still good.
    let heard = scene.frames(ANN, 1, vec![add("a")]);
    assert_eq!(brief(&heard), ["entry 3..4 of 1", "acked 2"]);
}

#[test]
fn nothing_leaves_before_it_is_durable() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.waits = |reply| matches!(reply, StoreReply::Durable { .. });
    assert!(scene.frames(ANN, 1, vec![add("a")]).is_empty());
    assert!(scene.open(BOB, None).is_empty());
    scene.say(BOB, ToRoom::Probe { probe: ProbeId(1) });
    scene.release();
    assert_eq!(brief(&scene.heard(ANN)), ["entry 2..3 of 1", "acked 2"]);
    assert_eq!(brief(&scene.heard(BOB)), ["opened 3 wanted 1", "probed 3", "entry 1..3"]);
}

#[test]
fn a_restart_keeps_everything_and_faults_bring_the_pages_back() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.frames(ANN, 1, vec![frame(&notes(), "fill", &[]), add("a")]);
    let have = scene.position();
    scene.restart();
    let heard = scene.open(ANN, Some(have));
    assert_eq!(brief(&heard), ["opened 4 wanted 3"]);
    let heard = scene.frames(ANN, 2, vec![add("a"), add("b")]);
    assert_eq!(brief(&heard), ["entry 4..5 of 3", "acked 4"]);
    let pages = scene.export();
    assert!(pages[&Pgid(1)].bytes().starts_with(b"SQLite format 3\0"));
    let Answer::Description { db_pages, .. } = scene.ask(Ask::Describe) else { panic!("one") };
    assert_eq!(pages.len(), db_pages as usize);
}

#[test]
fn one_who_comes_late_gets_one_entry_in_parts() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.frames(ANN, 1, vec![frame(&notes(), "fill", &[]), add("a")]);
    let heard = scene.open(BOB, None);
    let parts: Vec<_> = heard
        .iter()
        .filter_map(|message| match message {
            FromRoom::Entry(part) => Some(part),
            _ => None,
        })
        .collect();
    assert!(parts.len() > 1, "more pages than one message takes");
    let (last, others) = parts.split_last().expect("some");
    assert!(last.is_last && others.iter().all(|part| !part.is_last));
    assert!(others.iter().all(|part| part.pages.len() == Limits::DEFAULT.message_pages_max));
    assert_eq!(last.range.to_string(), "1..4");
}

#[test]
fn the_parts_of_an_entry_are_sent_as_they_are_read_and_to_nobody_who_opened_anew() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.frames(ANN, 1, vec![frame(&notes(), "fill", &[]), add("a")]);
    let db_pages = scene.position_and_size().1;
    scene.waits = |reply| matches!(reply, StoreReply::SyncPart { .. });
    assert_eq!(brief(&scene.open(BOB, None)), ["opened 4 wanted 1"]);
    let turns = Limits::DEFAULT.catch_up_pages / Limits::DEFAULT.read_chunk_pages;
    (1..turns).for_each(|_| scene.release_one());
    assert!(scene.heard(BOB).is_empty(), "the chunk is not whole");
    // Pages in several pieces take a turn for fewer of them.
    let mut heard = Vec::new();
    while heard.is_empty() {
        scene.release_one();
        heard = scene.heard(BOB);
    }
    let [FromRoom::Entry(part)] = heard.as_slice() else { panic!("{heard:?}") };
    assert!(part.pages.len() == Limits::DEFAULT.catch_up_pages && !part.is_last);
    // Nothing of another entry comes between.
    scene.frames(ANN, 3, vec![add("b")]);
    assert!(scene.heard(BOB).is_empty());

    assert_eq!(brief(&scene.open(BOB, None)), ["opened 5 wanted 1"]);
    scene.release();
    let mut pages = BTreeSet::new();
    let heard = scene.heard(BOB);
    for (index, message) in heard.iter().enumerate() {
        let FromRoom::Entry(part) = message else { panic!("{message:?}") };
        assert_eq!(
            (part.range.to_string().as_str(), part.is_last),
            ("1..5", index + 1 == heard.len())
        );
        pages.extend(part.pages.iter().map(|page| page.pgid));
    }
    assert_eq!(pages.len(), db_pages as usize);
    assert_eq!(scene.ways.of(BOB, |way| way.reserved), 0, "all that was reserved was given back");
}

#[test]
fn reads_that_the_store_has_no_room_for_are_asked_for_again() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.frames(ANN, 1, vec![frame(&notes(), "fill", &[]), add("a")]);
    let have = scene.position();
    scene.restart();
    scene.crowd_store();
    assert_eq!(brief(&scene.open(ANN, Some(have))), ["opened 4 wanted 3"]);
    scene.crowd_store();
    assert_eq!(brief(&scene.frames(ANN, 3, vec![add("b")])), ["entry 4..5 of 3", "acked 4"]);
    scene.crowd_store();
    assert!(brief(&scene.open(BOB, None)).contains(&"entry 1..5".to_owned()));
}

#[test]
fn one_who_does_not_read_is_sent_no_more_and_then_one_entry() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.open(BOB, None);
    let State::Open(document) = &scene.room.state else { panic!("open") };
    let durable = document.durable.next;
    let id = scene.room.subscriber_at(ChannelId { conn: BOB, channel: CHANNEL }).expect("there");
    let subscriber = scene.room.subscribers.get_mut(&id).expect("there");
    subscriber.caught_up(durable, Limits::DEFAULT.entries_in_flight_size_max);
    let heard = scene.frames(ANN, 1, vec![add("a"), add("b")]);
    assert_eq!(brief(&heard).last().map(String::as_str), Some("acked 3"));
    assert!(scene.heard(BOB).is_empty(), "there is no room for more");
    scene.say(BOB, ToRoom::Received { next: durable });
    assert_eq!(brief(&scene.heard(BOB)), ["entry 2..4"]);
}

#[test]
fn a_store_that_fails_closes_the_room_and_the_next_message_opens_it() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    let input = RoomInput::Message {
        conn: ANN,
        channel: CHANNEL,
        message: ToRoom::Frames { life: life_of(ANN), first: lsn(1), frames: vec![add("a")] },
        speaker: Speaker::anybody(),
    };
    let lost = scene.room.step(input);
    let Some(RoomEffect::Store(StoreRequest::Append { ticket, .. })) = lost.first() else {
        panic!("an append: {lost:?}")
    };
    let failed = StoreReply::AppendFailed { ticket: *ticket, error: AppendError::Full };
    scene.step(RoomInput::Store(failed));
    assert_eq!(brief(&scene.heard(ANN)), ["refused Storage"]);
    assert_eq!(brief(&scene.open(ANN, None)), ["opened 2 wanted 1", "entry 1..2"]);
    let heard = scene.frames(ANN, 1, vec![add("a")]);
    assert_eq!(brief(&heard), ["entry 2..3 of 1", "acked 2"]);
}

#[test]
fn a_destroyed_document_is_missing_to_those_who_had_it() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    let have = scene.position();
    assert_eq!(scene.ask(Ask::Destroy), Answer::Destroyed);
    assert_eq!(brief(&scene.heard(ANN)), vec!["refused Missing".to_owned()]);
    scene.restart();
    assert_eq!(brief(&scene.open(ANN, Some(have))), ["refused Missing"]);
    assert_eq!(brief(&scene.open(BOB, None))[0], "opened 2 wanted 1");
}

/// Goal: nobody waits for ever on a channel that the room has let go. Method: the store refuses to
/// forget the document, or is gone before it could.
#[test]
fn those_who_had_a_document_that_could_not_be_destroyed_are_sent_away() {
    for is_gone in [false, true] {
        let mut scene = Scene::new();
        scene.open(ANN, None);
        let have = scene.position();
        let effects = scene.room.step(RoomInput::Ask { request: 1, ask: Ask::Destroy });
        let [RoomEffect::Store(StoreRequest::Destroy { ticket, .. })] = effects[..] else {
            panic!("the store was asked: {effects:?}")
        };
        let error = AppendError::Full;
        scene.step(RoomInput::Store(match is_gone {
            true => StoreReply::Broken { error },
            false => StoreReply::AppendFailed { ticket, error },
        }));
        match (is_gone, &scene.answers[..]) {
            (true, [Answer::Unknown { .. }]) | (false, [Answer::Failed { .. }]) => {}
            (_, answers) => panic!("{answers:?}"),
        }
        assert_eq!(brief(&scene.heard(ANN)), ["refused Storage"]);
        assert_eq!(brief(&scene.open(ANN, Some(have))), ["opened 2 wanted 1"]);
    }
}

/// Goal: nobody hears of what may still be otherwise. Method: while the store forgets the document,
/// one who has it comes, one asks for it, and one offers another; then the disk is full, or not.
#[test]
fn nobody_is_told_that_a_document_is_gone_before_it_is() {
    for is_full in [false, true] {
        let mut scene = Scene::new();
        scene.open(ANN, None);
        let have = scene.position();
        let effects = scene.room.step(RoomInput::Ask { request: 1, ask: Ask::Destroy });
        let [RoomEffect::Store(StoreRequest::Destroy { ticket, .. })] = effects[..] else {
            panic!("the store was asked: {effects:?}")
        };
        assert!(scene.open(BOB, Some(have)).is_empty(), "it is not gone yet");
        scene.step(RoomInput::Ask { request: 2, ask: Ask::Describe });
        assert!(scene.answers.is_empty(), "{:?}", scene.answers);
        let intent = Intent::Offer { lives: tidelog_types::Lineage::default() };
        assert!(scene.open_as(ConnId(3), &notes(), None, intent).is_empty());
        scene.step(RoomInput::Store(match is_full {
            true => StoreReply::AppendFailed { ticket, error: AppendError::Full },
            false => StoreReply::Durable { ticket },
        }));
        let heard = [ANN, BOB, ConnId(3)].map(|conn| brief(&scene.heard(conn)));
        if is_full {
            assert_eq!(heard, [["refused Storage"]; 3]);
            let failed = |answer: &Answer| matches!(answer, Answer::Failed { .. });
            assert!(scene.answers.len() == 2 && scene.answers.iter().all(failed));
            assert_eq!(brief(&scene.open(BOB, Some(have))), ["opened 2 wanted 1"]);
        } else {
            assert_eq!(heard, [["refused Missing"], ["refused Missing"], ["seed wanted"]]);
            assert_eq!(scene.answers, [Answer::Destroyed, Answer::Missing]);
        }
    }
}

/// Goal: what was answered as not destroyed is there. Method: a mutation finds no room on the disk,
/// and the document is to be destroyed before the room has heard of that.
#[test]
fn a_document_of_which_it_was_said_that_it_could_not_be_destroyed_is_there() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.waits =
        |reply| matches!(reply, StoreReply::AppendFailed { .. } | StoreReply::Durable { .. });
    scene.device.set_full(true);
    scene.frames(ANN, 1, vec![add("a")]);
    assert!(!scene.held.is_empty(), "there is no room");
    scene.device.set_full(false);
    scene.step(RoomInput::Ask { request: 1, ask: Ask::Destroy });
    scene.release();
    assert!(matches!(scene.answers[..], [Answer::Failed { .. }]), "{:?}", scene.answers);
    assert!(matches!(scene.ask(Ask::Describe), Answer::Description { .. }));
    scene.answers.clear();
    assert_eq!(scene.ask(Ask::Destroy), Answer::Destroyed);
}

/// Goal: nobody is told that a document is there which is gone. Method: the disk fails once the
/// store has written that it is forgotten, and a new store finds that in the log.
#[test]
fn a_document_whose_store_failed_as_it_was_destroyed_is_not_said_to_be_there() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    let have = scene.position();
    scene.device.hold_flushes(true);
    scene.step(RoomInput::Ask { request: 1, ask: Ask::Destroy });
    scene.device.fail_flushes();
    for (_, reply) in scene.store.poll() {
        scene.step(RoomInput::Store(reply));
    }
    assert!(matches!(scene.answers[..], [Answer::Unknown { .. }]), "{:?}", scene.answers);
    scene.reopen_store();
    assert_eq!(brief(&scene.open(BOB, Some(have))), ["refused Missing"]);
}

/// Goal: the same for whoever asked behind the first one, who may have been answered by nobody.
/// Method: two wait for the document to be destroyed, and the store fails amid the first deletion.
#[test]
fn nobody_who_asked_behind_a_deletion_of_unknown_fate_is_told_that_the_document_is_there() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.device.hold_flushes(true);
    for request in [1, 2] {
        scene.step(RoomInput::Ask { request, ask: Ask::Destroy });
    }
    scene.device.fail_flushes();
    for (_, reply) in scene.store.poll() {
        scene.step(RoomInput::Store(reply));
    }
    let [Answer::Unknown { .. }, Answer::Unknown { .. }] = scene.answers[..] else {
        panic!("{:?}", scene.answers)
    };
    scene.reopen_store();
    assert_eq!(scene.ask(Ask::Describe), Answer::Missing);
}

#[test]
fn a_room_that_everybody_left_is_at_rest() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.open(BOB, None);
    assert!(!scene.room.is_at_rest());
    scene.say(ANN, ToRoom::Close);
    scene.step(RoomInput::Left { conn: BOB });
    assert!(scene.room.is_at_rest(), "{}", scene.room);
}

/// Goal: nobody is sent what may be older than what was confirmed to it, and nothing is written.
/// Method: the store says of the document that it is incomplete.
#[test]
fn an_incomplete_document_is_served_to_nobody() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.frames(ANN, 1, vec![add("a")]);
    let have = scene.position();
    scene.restart();
    scene.waits = |reply| matches!(reply, StoreReply::Opened { .. });
    scene.open(ANN, Some(have));
    let Some(StoreReply::Opened { state: Some(state), .. }) = scene.held.front_mut() else {
        panic!("the store was asked")
    };
    state.is_incomplete = true;
    scene.release_one();
    assert_eq!(brief(&scene.heard(ANN)), ["refused Damaged"]);
    assert_eq!(brief(&scene.open(BOB, None)), ["refused Damaged"]);
    assert!(scene.frames(ANN, 2, vec![add("b")]).is_empty(), "it has no channel_id");
    let described = scene.ask(Ask::Describe);
    assert!(matches!(described, Answer::Description { service: Service::None, .. }));
    assert!(!scene.export().is_empty());
    assert!(scene.room.to_string().ends_with("appends 0"), "{}", scene.room);
}

/// Goal: who only reads is not sent away time and again because somebody writes. Method: the store
/// refuses the append of one of two clients.
#[test]
fn in_a_damaged_store_who_writes_is_refused_and_who_reads_stays() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.open(BOB, None);
    scene.waits = |reply| matches!(reply, StoreReply::Durable { .. });
    scene.frames(ANN, 1, vec![add("a")]);
    let Some(StoreReply::Durable { ticket }) = scene.held.pop_front() else { panic!("appended") };
    let error = AppendError::Damaged;
    scene.step(RoomInput::Store(StoreReply::AppendFailed { ticket, error }));
    for conn in [ANN, BOB] {
        assert!(brief(&scene.heard(conn)).contains(&"refused Storage".to_owned()));
    }
    scene.waits = |_| false;

    assert!(brief(&scene.open(BOB, None))[0].starts_with("opened"));
    assert!(brief(&scene.open(ANN, None))[0].starts_with("opened"));
    assert_eq!(brief(&scene.frames(ANN, 2, vec![add("b")])), ["refused Damaged"]);
    assert!(scene.heard(BOB).is_empty(), "it hears nothing of that");
    scene.say(BOB, ToRoom::Probe { probe: ProbeId(1) });
    assert!(matches!(scene.heard(BOB)[..], [FromRoom::Probed { .. }]));
    let described = scene.ask(Ask::Describe);
    assert!(matches!(described, Answer::Description { service: Service::ReadOnly, .. }));
}
