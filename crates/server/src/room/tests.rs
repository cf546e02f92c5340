//! Stories of one room over a real page server on a disk in memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidelog_disk::{MemoryDisk, StoreFiles};
use tidelog_document::{Doctype, Mutation, MutationDefinition, Param, ParamKind};
use tidelog_pages::{AppendError, OwnerId, PageServer, StoreReply};
use tidelog_sync::{Intent, codec};
use tidelog_types::limits::{MESSAGE_PAGES_MAX, OWNER_READS_MAX, READ_CHUNK_PAGES};
use tidelog_types::{CallId, Chain, ClientId, Value};

use super::*;

const ANN: ConnId = ConnId(1);
const BOB: ConnId = ConnId(2);

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
        client: ClientId([1; 16]),
        kept_rejections: Lsn::FIRST,
    };
    WireFrame { call: CallId([0; 16]), body: mutation.encode() }
}

fn add(id: &str) -> WireFrame {
    frame(&notes(), "add", &[("id", id), ("body", "text")])
}

/// A room, its store, and what its clients were told.
struct Scene {
    room: Room,
    store: PageServer<MemoryDisk>,
    owner: OwnerId,
    /// Which replies are held back.
    waits: fn(&StoreReply) -> bool,
    held: VecDeque<StoreReply>,
    told: BTreeMap<ConnId, Vec<FromServer>>,
    answers: Vec<Answer>,
    disconnected: Vec<ConnId>,
}

fn room(seed: u8) -> Room {
    let document = DocumentKey::new("notebook", "").expect("a name");
    Room::new(document, RoomSettings { dev: true, ..RoomSettings::default() }, [seed; 32])
}

impl Scene {
    fn new() -> Self {
        let (store, _) = PageServer::open(StoreFiles::in_memory()).expect("an empty store");
        Self {
            room: room(1),
            store,
            owner: OwnerId(1),
            waits: |_| false,
            held: VecDeque::new(),
            told: BTreeMap::new(),
            answers: Vec::new(),
            disconnected: Vec::new(),
        }
    }

    /// The server process begins anew over the same disk.
    fn restart(&mut self) {
        self.owner = OwnerId(self.owner.0 + 1);
        self.room = room(u8::try_from(self.owner.0).expect("few restarts"));
        self.told.clear();
    }

    fn step(&mut self, input: RoomInput) {
        let mut effects = self.room.step(input);
        while !effects.is_empty() {
            for effect in std::mem::take(&mut effects) {
                match effect {
                    RoomEffect::Send { conn, message } => {
                        self.told.entry(conn).or_default().push(message);
                    }
                    RoomEffect::Store(request) => self.store.serve(self.owner, request),
                    RoomEffect::Answer { answer, .. } => self.answers.push(answer),
                    RoomEffect::Disconnect { conn } => self.disconnected.push(conn),
                }
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
        for request in 0..OWNER_READS_MAX as u64 {
            let document = DocumentKey::new("notebook", "").expect("a good name");
            let (request, urgency) = (u64::MAX - request, Urgency::User);
            let read = StoreRequest::Read { request, urgency, document, pgids: Vec::new() };
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

    fn say(&mut self, conn: ConnId, message: ToServer) {
        self.step(RoomInput::Message { conn, message });
    }

    fn open_as(
        &mut self,
        conn: ConnId,
        doctype: &Doctype,
        have: Option<Position>,
        intent: Intent,
    ) -> Vec<FromServer> {
        self.say(
            conn,
            ToServer::Open {
                channel: 7,
                document: "notebook".to_owned(),
                doctype: codec::encode(doctype),
                timeline: JournalId([u8::try_from(conn.0).expect("few"); 16]),
                have,
                intent,
            },
        );
        self.heard(conn)
    }

    fn open(&mut self, conn: ConnId, have: Option<Position>) -> Vec<FromServer> {
        self.open_as(conn, &notes(), have, Intent::Follow)
    }

    fn frames(&mut self, conn: ConnId, first: u64, frames: Vec<WireFrame>) -> Vec<FromServer> {
        self.say(conn, ToServer::Frames { channel: 7, first: lsn(first), frames });
        self.heard(conn)
    }

    fn heard(&mut self, conn: ConnId) -> Vec<FromServer> {
        self.told.remove(&conn).unwrap_or_default()
    }

    fn ask(&mut self, ask: Ask) -> Answer {
        self.step(RoomInput::Ask { request: 1, ask });
        self.answers.pop().expect("an answer")
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
fn brief(messages: &[FromServer]) -> Vec<String> {
    let brief = |message: &FromServer| match message {
        FromServer::Opened { storage, wanted, .. } => {
            format!("opened {} wanted {wanted}", storage.next)
        }
        FromServer::Entry { part, .. } => {
            let origin = part.origin.map_or(String::new(), |it| format!(" of {}", it.lsn));
            format!("entry {}{origin}", part.range)
        }
        FromServer::Acked { next, .. } => format!("acked {next}"),
        FromServer::Undecided { lsn, .. } => format!("undecided {lsn}"),
        FromServer::Refused { refusal, .. } => {
            let text = format!("{refusal:?}");
            format!("refused {}", text.split(' ').next().unwrap_or_default())
        }
        FromServer::SeedWanted { .. } => "seed wanted".to_owned(),
        FromServer::Seeded { .. } => "seeded".to_owned(),
        FromServer::Probed { next, .. } => format!("probed {next}"),
        other => format!("{other:?}"),
    };
    messages.iter().map(brief).collect()
}

#[test]
fn the_first_client_creates_the_document_and_gets_it() {
    let mut scene = Scene::new();
    let heard = scene.open(ANN, None);
    assert_eq!(brief(&heard), ["opened 2 wanted 1", "entry 1..2"]);
    assert_eq!(scene.room.to_string(), "notebook head 2 durable 2 | guests 1 queued 0 appends 0");
}

#[test]
fn a_mutation_of_one_reaches_the_other_with_its_verdict() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.open(BOB, None);
    let heard = scene.frames(ANN, 1, vec![add("a"), add("b")]);
    assert_eq!(brief(&heard), ["entry 2..3 of 1", "entry 3..4 of 2", "acked 3"]);
    let bob = scene.heard(BOB);
    assert_eq!(brief(&bob), ["entry 2..3 of 1", "entry 3..4 of 2"]);
    assert_eq!(scene.room.counts(), RoomCounts { applied: 2, rejected: 0 });
}

#[test]
fn frames_that_came_before_are_acknowledged_and_not_applied_again() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.frames(ANN, 1, vec![add("a")]);
    let again = scene.frames(ANN, 1, vec![add("a"), add("b")]);
    assert_eq!(brief(&again), ["entry 3..4 of 2", "acked 3"]);
    assert_eq!(brief(&scene.frames(ANN, 1, vec![add("a")])), ["acked 3"]);
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
    let rubbish = WireFrame { call: CallId([0; 16]), body: vec![1, 2, 3] };
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
    scene.say(BOB, ToServer::Probe { channel: 7, request: 1 });
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
    let Answer::File(file) = scene.ask(Ask::Export) else { panic!("a file") };
    assert!(file.starts_with(b"SQLite format 3\0"));
    let Answer::Description { db_pages, .. } = scene.ask(Ask::Describe) else { panic!("one") };
    assert_eq!(file.len(), db_pages as usize * 4096);
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
            FromServer::Entry { part, .. } => Some(part),
            _ => None,
        })
        .collect();
    assert!(parts.len() > 1, "more pages than one message takes");
    let (last, others) = parts.split_last().expect("some");
    assert!(last.last && others.iter().all(|part| !part.last));
    assert!(others.iter().all(|part| part.pages.len() == MESSAGE_PAGES_MAX));
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
    let turns = MESSAGE_PAGES_MAX / READ_CHUNK_PAGES;
    (0..turns).for_each(|_| scene.release_one());
    assert!(scene.heard(BOB).is_empty(), "whether it is the last part is not known yet");
    scene.release_one();
    let heard = scene.heard(BOB);
    let [FromServer::Entry { part, .. }] = heard.as_slice() else { panic!("{heard:?}") };
    assert!(part.pages.len() == MESSAGE_PAGES_MAX && !part.last);
    // Nothing of another entry comes between.
    scene.frames(ANN, 3, vec![add("b")]);
    assert!(scene.heard(BOB).is_empty());

    assert_eq!(brief(&scene.open(BOB, None)), ["opened 5 wanted 1"]);
    scene.release();
    let mut pages = BTreeSet::new();
    let heard = scene.heard(BOB);
    for (index, message) in heard.iter().enumerate() {
        let FromServer::Entry { part, .. } = message else { panic!("{message:?}") };
        assert_eq!(
            (part.range.to_string().as_str(), part.last),
            ("1..5", index + 1 == heard.len())
        );
        pages.extend(part.pages.iter().map(|(pgid, _)| *pgid));
    }
    assert_eq!(pages.len(), db_pages as usize);
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
    let id = scene.room.guest_at(Seat { conn: BOB, channel: 7 }).expect("there");
    let guest = scene.room.guests.get_mut(&id).expect("there");
    guest.caught_up(durable, 4096);
    let heard = scene.frames(ANN, 1, vec![add("a"), add("b")]);
    assert_eq!(brief(&heard).last().map(String::as_str), Some("acked 3"));
    assert!(scene.heard(BOB).is_empty(), "there is no room for more");
    scene.say(BOB, ToServer::Received { channel: 7, next: durable });
    assert_eq!(brief(&scene.heard(BOB)), ["entry 2..4"]);
}

#[test]
fn a_server_restored_from_a_backup_begins_another_journal() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.open(BOB, None);
    scene.frames(ANN, 1, vec![add("a")]);
    let old = scene.position();
    scene.restart();
    scene.open(BOB, Some(old));
    let ahead = Position { next: lsn(9), chain: Chain([3; 32]), ..old };
    let heard = scene.open(ANN, Some(ahead));
    assert_eq!(brief(&heard), ["opened 3 wanted 2", "entry 1..3"]);
    let new = scene.position();
    assert_ne!(new.journal, old.journal);
    assert_eq!(scene.disconnected, [BOB]);

    let other_chain = Position { chain: Chain([4; 32]), ..new };
    let heard = scene.open(BOB, Some(other_chain));
    assert_eq!(brief(&heard), ["opened 3 wanted 1", "entry 1..3"]);
    assert_ne!(scene.position().journal, new.journal);
    scene.restart();
    assert_eq!(brief(&scene.open(ANN, Some(new))), ["opened 3 wanted 2", "entry 1..3"]);
}

#[test]
fn a_store_that_fails_closes_the_room_and_the_next_message_opens_it() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    let input = RoomInput::Message {
        conn: ANN,
        message: ToServer::Frames { channel: 7, first: lsn(1), frames: vec![add("a")] },
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
fn a_local_document_becomes_the_servers_once() {
    // The seed is what another room holds.
    let mut local = Scene::new();
    local.open(ANN, None);
    local.frames(ANN, 1, vec![frame(&notes(), "fill", &[])]);
    let position = local.position();
    let State::Open(document) = &local.room.state else { panic!("open") };
    let view = document.authority.view();
    let db_pages = view.base_db_pages();
    let pages: Vec<_> = (1..=db_pages)
        .map(|number| (Pgid(number), view.base_page(Pgid(number)).expect("all here")))
        .collect();

    let mut scene = Scene::new();
    let offer = |scene: &mut Scene, position| {
        brief(&scene.open_as(ANN, &notes(), Some(position), Intent::Offer))
    };
    assert_eq!(offer(&mut scene, position), ["seed wanted"]);
    let (first, second) = pages.split_at(10);
    for (pages, last) in [(first, false), (second, true)] {
        let pages = pages.to_vec();
        scene.say(ANN, ToServer::Seed { channel: 7, position, db_pages, pages, last });
    }
    assert_eq!(brief(&scene.heard(ANN)), ["seeded", "opened 3 wanted 2"]);
    assert_eq!(offer(&mut scene, position), ["seeded", "opened 3 wanted 2"]);
    let other = Position { journal: JournalId([5; 16]), ..position };
    assert_eq!(offer(&mut scene, other), ["refused Exists"]);
    scene.restart();
    assert_eq!(brief(&scene.open(BOB, None))[0], "opened 3 wanted 1");
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

#[test]
fn a_room_that_everybody_left_is_at_rest() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.open(BOB, None);
    assert!(!scene.room.is_at_rest());
    scene.say(ANN, ToServer::Close { channel: 7 });
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
    assert!(scene.frames(ANN, 2, vec![add("b")]).is_empty(), "it has no seat");
    let described = scene.ask(Ask::Describe);
    assert!(matches!(described, Answer::Description { service: Service::None, .. }));
    assert!(matches!(scene.ask(Ask::Export), Answer::File(_)));
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
    scene.say(BOB, ToServer::Probe { channel: 7, request: 1 });
    assert!(matches!(scene.heard(BOB)[..], [FromServer::Probed { .. }]));
    let described = scene.ask(Ask::Describe);
    assert!(matches!(described, Answer::Description { service: Service::ReadOnly, .. }));
}
