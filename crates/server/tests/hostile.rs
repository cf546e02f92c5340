//! Clients that want more of the server than is theirs.
//!
//! Goal: nobody makes the server hold or do more than `types/limits.rs` allows, and nobody else
//! notices. Method: a room over a store in memory, whose steps, pages and bytes are counted; and
//! the server over real sockets, where only the order of answers is looked at.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidelog_disk::{MemoryDisk, StoreFiles};
use tidelog_document::Doctype;
use tidelog_pages::{OwnerId, PageServer, Seed, StoreOptions, StoreReply, StoreRequest};
use tidelog_room::{
    Answer, Ask, Caution, ConnId, Outlets, Room, RoomEffect, RoomInput, RoomSettings, Suspect,
    entry_size,
};
use tidelog_server::{ServeSettings, Server};
use tidelog_sync::{
    Channel, FromRoom, FromServer, Intent, ProbeId, Refusal, ToRoom, ToServer, UndecidedReason,
    WireFrame, codec,
};
use tidelog_testing::server::{
    CHANNEL, Client, Copy, Process, burner, frame, http, lsn, notes, settings, texts,
};
use tidelog_types::limits::{
    CONNECTION_CHANNELS_MAX, ENTRY_PAGES_MAX, HELLO_SIZE_MAX, LSN_MAX, Limits, PAGE_SIZE,
};
use tidelog_types::{
    BudgetLimits, DocumentKey, JournalId, Life, Lineage, Lsn, Page, Pgid, Position,
};

/// The binary.
const TIDELOG: &str = env!("CARGO_BIN_EXE_tidelog");

const ANN: ConnId = ConnId(1);
const BOB: ConnId = ConnId(2);

// --- a room, and what it asks of its store and says to its clients -----------------------------

/// The ways to clients: each takes so many bytes until they are read.
struct Ways {
    size_max: usize,
    reserved: Mutex<BTreeMap<ConnId, usize>>,
    /// How often they were looked at.
    looks: AtomicUsize,
    /// The most that was reserved on one.
    most: AtomicUsize,
}

impl Ways {
    fn reserved(&self, conn: ConnId) -> usize {
        self.reserved.lock().expect("no panic").get(&conn).copied().unwrap_or(0)
    }
}

impl Outlets for Ways {
    fn reserve(&self, conn: ConnId, size: usize) -> bool {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let mut reserved = self.reserved.lock().expect("no panic");
        let before = reserved.entry(conn).or_default();
        let fits = *before == 0 || *before + size <= self.size_max;
        *before += if fits { size } else { 0 };
        self.most.fetch_max(*before, Ordering::Relaxed);
        fits
    }

    fn release(&self, conn: ConnId, size: usize) {
        let mut reserved = self.reserved.lock().expect("no panic");
        let before = reserved.get_mut(&conn).expect("it was reserved");
        *before = before.checked_sub(size).expect("it was reserved");
    }
}

struct Scene {
    room: Room,
    ways: Arc<Ways>,
    store: PageServer<MemoryDisk>,
    /// Whether the store keeps to itself what is durable.
    holds_durable: bool,
    held: Vec<StoreReply>,
    /// What is on its way to clients, unread.
    unread: BTreeMap<ConnId, VecDeque<FromRoom>>,
    answers: Vec<Answer>,
    /// Pages that were appended, by the step that did it.
    appended: Vec<usize>,
}

impl Scene {
    fn new(limits: Limits, way_size_max: usize) -> Self {
        let options = StoreOptions { limits, ..StoreOptions::default() };
        let (store, _) = PageServer::open_with(StoreFiles::in_memory(), Seed(1), options)
            .expect("an empty store");
        let ways = Arc::new(Ways {
            size_max: way_size_max,
            reserved: Mutex::default(),
            looks: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let document = DocumentKey::new("notebook", "").expect("a name");
        let settings = RoomSettings { dev: true, limits, ..RoomSettings::default() };
        let outlets = Arc::clone(&ways) as Arc<dyn Outlets>;
        Self {
            room: Room::new(document, settings, [1; 32], outlets),
            ways,
            store,
            holds_durable: false,
            held: Vec::new(),
            unread: BTreeMap::new(),
            answers: Vec::new(),
            appended: Vec::new(),
        }
    }

    fn step(&mut self, input: RoomInput) {
        let mut appended = 0;
        for effect in self.room.step(input) {
            match effect {
                RoomEffect::Send { conn, message } => {
                    let FromServer::About { body, .. } = message else {
                        panic!("of no document: {message:?}")
                    };
                    self.unread.entry(conn).or_default().push_back(body);
                }
                RoomEffect::Store(request) => {
                    if let StoreRequest::Append { append, .. } = &request {
                        let pages = append.storage.iter().map(|entry| entry.set.pages.len());
                        appended += pages.sum::<usize>();
                    }
                    self.store.serve(OwnerId(1), request);
                }
                RoomEffect::Answer { answer, .. } => self.answers.push(answer),
            }
        }
        self.appended.push(appended);
    }

    /// Takes a step, and then all that follow by themselves.
    fn settle(&mut self, input: RoomInput) {
        self.step(input);
        loop {
            if self.room.wants_step() {
                self.step(RoomInput::GoOn);
                continue;
            }
            self.store.flush();
            let replies = self.store.poll();
            if replies.is_empty() && !self.store.wants_poll() {
                return;
            }
            for (_, reply) in replies {
                if self.holds_durable && matches!(reply, StoreReply::Durable { .. }) {
                    self.held.push(reply);
                } else {
                    self.step(RoomInput::Store(reply));
                }
            }
        }
    }

    fn say(&mut self, conn: ConnId, message: ToRoom) {
        self.say_on(conn, CHANNEL, message);
    }

    fn say_on(&mut self, conn: ConnId, channel: Channel, message: ToRoom) {
        self.settle(RoomInput::Message { conn, channel, message });
    }

    fn open_on(&mut self, conn: ConnId, channel: Channel, intent: Intent) {
        self.say_on(conn, channel, open("notebook", conn.0 as u8, intent));
    }

    fn open(&mut self, conn: ConnId) {
        self.open_on(conn, CHANNEL, Intent::Follow);
    }

    fn frames(&mut self, conn: ConnId, first: u64, frames: Vec<WireFrame>) {
        self.say(conn, ToRoom::Frames { life: LIFE, first: lsn(first), frames });
    }

    /// The client reads the next message.
    fn read(&mut self, conn: ConnId) -> Option<FromRoom> {
        let message = self.unread.get_mut(&conn)?.pop_front()?;
        if let FromRoom::Entry(part) = &message {
            self.ways.release(conn, entry_size(part));
            self.settle(RoomInput::Writable { conn });
        }
        Some(message)
    }

    /// It reads all there is, and takes the entries into `copy`. Gives the others.
    fn read_all(&mut self, conn: ConnId, copy: &mut Copy) -> Vec<FromRoom> {
        let mut others = Vec::new();
        while let Some(message) = self.read(conn) {
            match message {
                FromRoom::Entry(part) => copy.take(part),
                other => others.push(other),
            }
        }
        others
    }

    /// It reads and takes in all there is. Gives the frames that the entries are of.
    fn read_origins(&mut self, conn: ConnId, copy: &mut Copy) -> Vec<Option<Lsn>> {
        let mut origins = Vec::new();
        while let Some(message) = self.read(conn) {
            let FromRoom::Entry(part) = message else { continue };
            let end = part.is_last.then_some((part.position.next, part.origin));
            copy.take(part);
            if let Some((next, origin)) = end {
                origins.push(origin.map(|origin| origin.lsn));
                self.say(conn, ToRoom::Received { next });
            }
        }
        origins
    }

    /// Bytes of entries that wait to be read.
    fn unread_size(&self, conn: ConnId) -> usize {
        let unread = self.unread.get(&conn).into_iter().flatten();
        let sizes = unread.filter_map(|message| match message {
            FromRoom::Entry(part) => Some(entry_size(part)),
            _ => None,
        });
        sizes.sum()
    }

    /// What the store has, with what is staged there.
    fn documents(&mut self) -> Vec<String> {
        self.store.serve(OwnerId(2), StoreRequest::List { request: 1 });
        match self.store.poll().pop() {
            Some((_, StoreReply::Documents { documents, .. })) => {
                documents.iter().map(ToString::to_string).collect()
            }
            other => panic!("unexpected: {other:?}"),
        }
    }

    fn export(&mut self) -> Vec<u8> {
        let conn = ConnId(1_000);
        self.settle(RoomInput::Ask { request: 1, ask: Ask::Export { conn } });
        assert_eq!(self.answers.pop(), Some(Answer::Exporting));
        let mut copy = Copy::default();
        self.read_all(conn, &mut copy);
        self.settle(RoomInput::Left { conn });
        copy.image()
    }
}

fn open(document: &str, timeline: u8, intent: Intent) -> ToRoom {
    ToRoom::Open {
        document: document.to_owned(),
        doctype: codec::encode(&notes()),
        timeline: JournalId([timeline; 16]),
        have: None,
        intent,
    }
}

/// Who writes the frames.
const LIFE: Life = Life([7; 16]);

fn offer() -> Intent {
    Intent::Offer { lives: Lineage::default() }
}

fn adds(count: u64) -> Vec<WireFrame> {
    (0..count).map(|number| frame(&notes(), "log", &number.to_string())).collect()
}

/// A document of about 2 MiB.
fn with_bulk(scene: &mut Scene) {
    scene.open(ANN);
    let bulk = |number: u64| frame(&notes(), "bulk", &number.to_string());
    scene.frames(ANN, 1, (0..2).map(bulk).collect());
    scene.read_all(ANN, &mut Copy::default());
}

fn refusal(heard: &[FromRoom]) -> &Refusal {
    match heard {
        [.., FromRoom::Refused(refusal)] => refusal,
        other => panic!("unexpected: {other:?}"),
    }
}

// --- V3, D15: one message is many steps --------------------------------------------------------

#[test]
fn a_long_message_is_worked_off_in_many_steps() {
    let slice = BudgetLimits { pages: 8, ..Limits::DEFAULT.slice };
    let mut scene = Scene::new(Limits { slice, ..Limits::DEFAULT }, usize::MAX);
    scene.open(ANN);
    scene.appended.clear();
    scene.frames(ANN, 1, adds(300));
    let most = scene.appended.iter().max().copied().expect("steps");
    assert!(most <= 8 + 8, "{most} pages in one step");
    assert_eq!(scene.room.counts().applied, 300);
    let heard = scene.read_all(ANN, &mut Copy::default());
    assert!(matches!(heard.last(), Some(FromRoom::Acked { next }) if *next == lsn(301)));
}

#[test]
fn frames_that_cost_nothing_but_their_number_end_a_step_too() {
    let slice = BudgetLimits { steps: 1_000, ..Limits::DEFAULT.slice };
    let mut scene = Scene::new(Limits { slice, ..Limits::DEFAULT }, usize::MAX);
    scene.open(ANN);
    scene.frames(ANN, 1, adds(1_000));
    scene.appended.clear();
    scene.frames(ANN, 1, adds(1_000));
    assert_eq!(scene.room.counts().applied, 1_000, "they came before");
    assert!(scene.appended.len() >= 50, "{} steps", scene.appended.len());
}

#[test]
fn what_is_not_durable_holds_up_what_comes_after_it() {
    let limits = Limits { room_pages_in_flight_max: 40, ..Limits::DEFAULT };
    let mut scene = Scene::new(limits, usize::MAX);
    scene.open(ANN);
    scene.appended.clear();
    scene.holds_durable = true;
    scene.frames(ANN, 1, adds(300));
    let held: usize = scene.appended.iter().sum();
    assert!((1..=40 + 8).contains(&held), "{held} pages");
    assert!(!scene.room.takes_messages(), "the rest of the message waits in the room");
    scene.holds_durable = false;
    for reply in std::mem::take(&mut scene.held) {
        scene.settle(RoomInput::Store(reply));
    }
    assert_eq!(scene.room.counts().applied, 300);
    assert!(scene.room.takes_messages());
}

// --- V4, D14: entries are made where there is room for them ------------------------------------

#[test]
fn a_client_that_reads_nothing_is_sent_no_more_than_there_is_room_for() {
    let room_for = 600 * 1024;
    let mut scene = Scene::new(Limits::DEFAULT, room_for);
    with_bulk(&mut scene);
    for channel in (1..=12).map(Channel) {
        scene.open_on(BOB, channel, Intent::Follow);
        let next = Lsn::new(LSN_MAX).expect("an LSN");
        scene.say_on(BOB, channel, ToRoom::Received { next });
    }
    assert!(scene.unread_size(BOB) > 0);
    assert!(scene.unread_size(BOB) <= room_for, "{} bytes", scene.unread_size(BOB));
    // Nor is it more when the document moves on.
    scene.frames(ANN, 3, adds(200));
    assert!(scene.unread_size(BOB) <= room_for, "{} bytes", scene.unread_size(BOB));
    // It costs nothing once it has left.
    scene.unread.remove(&BOB);
    let unread = scene.ways.reserved(BOB);
    scene.settle(RoomInput::Left { conn: BOB });
    assert!(scene.ways.reserved(BOB) <= unread);
}

#[test]
fn a_catch_up_ends_though_the_document_moves_on_with_each_part() {
    let limits = Limits { catch_up_pages: 8, message_pages_max: 8, ..Limits::DEFAULT };
    let mut scene = Scene::new(limits, 64 * 1024);
    with_bulk(&mut scene);
    scene.open(BOB);
    let (mut copy, mut parts, mut next, mut changed) = (Copy::default(), 0, 3, false);
    let end = loop {
        // Three mutations each time it reads one message, for as long as it has nothing whole.
        if copy.position.is_none() {
            scene.frames(ANN, next, adds(3));
            next += 3;
        }
        // One that changes a page which was sent already, and which none of the others changes.
        if parts == 2 && !changed {
            changed = true;
            scene.frames(ANN, next, vec![frame(&notes(), "add", "once")]);
            next += 1;
        }
        while scene.read(ANN).is_some() {}
        match scene.read(BOB) {
            Some(FromRoom::Entry(part)) => {
                parts += 1;
                copy.take(part);
                if let Some(position) = copy.position {
                    let next = position.next;
                    scene.say(BOB, ToRoom::Received { next });
                }
            }
            Some(_) => {}
            None => break copy.position.expect("it came to an end"),
        }
        assert!(parts < 2_000, "it does not come to an end");
    };
    assert!(copy.image() == scene.export(), "the same bytes on both sides at {}", end.next);
}

#[test]
fn an_entry_of_any_size_costs_a_client_that_reads_nothing_no_more_than_a_chunk() {
    let limits = Limits { catch_up_pages: 8, catch_up_pages_max: 32, ..Limits::DEFAULT };
    let mut scene = Scene::new(limits, 64 * 1024);
    scene.open(ANN);
    scene.open(BOB);
    let (mut own, mut copy) = (Copy::default(), Copy::default());
    scene.read_all(ANN, &mut own);
    scene.read_all(BOB, &mut copy);
    for number in 1..=4 {
        // Some 300 pages each.
        scene.frames(ANN, number, vec![frame(&notes(), "bulk", &number.to_string())]);
        let origins = scene.read_origins(ANN, &mut own);
        assert_eq!(origins, [Some(lsn(number))], "it is known as Ann's own");
        // Bob reads one part each time.
        match scene.read(BOB) {
            Some(FromRoom::Entry(part)) => copy.take(part),
            other => panic!("unexpected: {other:?}"),
        }
    }
    // All pages change again while he is sent them.
    scene.frames(ANN, 5, vec![frame(&notes(), "keep", "nothing")]);
    let most = scene.ways.most.load(Ordering::Relaxed);
    assert!(most <= 33 * 4200, "{most} bytes");
    scene.read_all(BOB, &mut copy);
    assert!(copy.image() == scene.export());
}

#[test]
fn a_client_that_reads_slower_than_others_write_is_sent_no_larger_chunks() {
    let limits = Limits { catch_up_pages: 2, catch_up_pages_max: 4, ..Limits::DEFAULT };
    let mut scene = Scene::new(limits, 16 * 1024);
    scene.open(ANN);
    let (mut own, mut copy) = (Copy::default(), Copy::default());
    scene.frames(ANN, 1, vec![frame(&notes(), "bulk", "1")]);
    scene.read_origins(ANN, &mut own);
    scene.open(BOB);
    assert!(matches!(scene.read(BOB), Some(FromRoom::Opened { .. })));
    for number in 2..=40 {
        for _ in 0..10 {
            if let Some(FromRoom::Entry(part)) = scene.read(BOB) {
                copy.take(part);
            }
        }
        // Each page of the document is another one.
        scene.frames(ANN, number, vec![frame(&notes(), "touch", "x")]);
        scene.read_origins(ANN, &mut own);
    }
    assert_eq!(copy.position, None, "he has come to no end");
    let most = scene.ways.most.load(Ordering::Relaxed);
    assert!(most <= 5 * 4200, "{most} bytes");
    scene.read_all(BOB, &mut copy);
    assert!(copy.image() == scene.export(), "now that they pause");
}

/// Whoever asks for a document as a file follows it like a client.
#[test]
fn an_export_takes_no_more_memory_than_a_chunk() {
    let limits = Limits { catch_up_pages: 8, pool_pages_max: 8, ..Limits::DEFAULT };
    let mut scene = Scene::new(limits, 64 * 1024);
    with_bulk(&mut scene);
    scene.room.rest();
    let kept = scene.room.kept_size();
    let conn = ConnId(1_000);
    scene.settle(RoomInput::Ask { request: 1, ask: Ask::Export { conn } });
    assert!(scene.unread_size(conn) > 0);
    let mut copy = Copy::default();
    while let Some(message) = scene.read(conn) {
        assert!(scene.unread_size(conn) <= 64 * 1024, "{} bytes", scene.unread_size(conn));
        assert_eq!(scene.room.kept_size(), kept, "it comes from the store");
        if let FromRoom::Entry(part) = message {
            copy.take(part);
        }
    }
    assert!(copy.db_pages > 500);
    scene.settle(RoomInput::Left { conn });
    let mut other = Copy::default();
    scene.open(BOB);
    scene.read_all(BOB, &mut other);
    assert!(copy.image() == other.image());
}

/// What is exported while others write is a state that the document had.
#[tokio::test]
async fn a_document_is_exported_whole_while_others_write() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let at = server.address();
    let (status, _) = http(at, "GET", "/v1/documents/list/export", "").await;
    assert_eq!(status, 404);
    let mut client = Client::connect(at).await.expect("up");
    client.open("list", 1, None).await.expect("up");
    assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
    let mut copy = Copy::default();
    client.frames(1, vec![frame(&notes(), "bulk", "x")]).await.expect("up");
    client.acked(&mut copy, 2).await.expect("up");
    let writes = tokio::spawn(async move {
        for number in 2..=60 {
            client.frames(number, vec![frame(&notes(), "touch", "y")]).await.expect("up");
            client.acked(&mut copy, number + 1).await.expect("up");
        }
    });
    for _ in 0..10 {
        let (status, file) = http(at, "GET", "/v1/documents/list/export", "").await;
        assert_eq!(status, 200);
        assert_eq!(texts(&file, "select count(distinct substr(id, -60)) || '' from log"), ["1"]);
        assert_eq!(texts(&file, "pragma integrity_check"), ["ok"]);
    }
    writes.await.expect("it wrote");
    server.stop().await;
}

// --- V8: a document that is full, even of verdicts -----------------------------------------------

#[test]
fn who_has_filled_a_document_with_rejections_waits_for_room_and_nobody_else_does() {
    let limits = Limits { document_pages_max: 20, verdict_pages_max: 8, ..Limits::DEFAULT };
    let mut scene = Scene::new(limits, usize::MAX);
    scene.open(ANN);
    scene.open(BOB);
    let mut copy = Copy::default();
    scene.read_all(BOB, &mut copy);
    let log = |size| frame(&notes(), "log", &"x".repeat(size));
    scene.frames(BOB, 1, (0..8).map(|_| log(4_000)).collect());
    // None of them is a mutation of the doctype, and the reason says so at length.
    let nonsense = |_| frame(&notes(), &"nonsense ".repeat(1_000), "");
    scene.frames(ANN, 1, (0..40).map(nonsense).collect());
    let mut own = Copy::default();
    let heard = scene.read_all(ANN, &mut own);
    let waits = heard.iter().find_map(|message| match message {
        FromRoom::Undecided { lsn, why: UndecidedReason::NoRoomForVerdict { .. } } => Some(*lsn),
        FromRoom::Refused(refusal) => panic!("{refusal:?}"),
        _ => None,
    });
    let waits = waits.expect("there is no room for forty of them");
    assert!(matches!(heard.last(), Some(FromRoom::Acked { next }) if *next == waits));
    let rejected = scene.room.counts().rejected;
    assert_eq!(rejected, waits.get() - 1);

    scene.frames(BOB, 9, vec![frame(&notes(), "keep", "nothing")]);
    let heard = scene.read_all(BOB, &mut copy);
    assert!(matches!(heard.last(), Some(FromRoom::Acked { next }) if *next == lsn(10)));
    assert_eq!(scene.room.counts().rejected, rejected, "Bob's were applied");
    assert!(copy.image() == scene.export());

    // There is room again.
    scene.read_all(ANN, &mut own);
    scene.open(ANN);
    scene.frames(ANN, waits.get(), vec![nonsense(0)]);
    let heard = scene.read_all(ANN, &mut Copy::default());
    assert!(matches!(heard.last(), Some(FromRoom::Acked { next }) if *next == waits.next()));
}

// --- V5: a seed is one document, once ----------------------------------------------------------

fn seed(pages: &[u32], db_pages: u32) -> ToRoom {
    let journal = JournalId([9; 16]);
    ToRoom::Seed {
        position: Position { next: lsn(5), ..Position::start_of(journal) },
        db_pages,
        pages: pages.iter().map(|number| (Pgid(*number), Page::zeroed()).into()).collect(),
        last: false,
    }
}

#[test]
fn a_seed_is_its_pages_in_their_order_and_no_more() {
    for (message, why) in [
        (seed(&[2], 9), "not from the first page on"),
        (seed(&[1, 2, 3], 2), "more than it says"),
        (seed(&[1], ENTRY_PAGES_MAX as u32 + 1), "more than a document may have"),
    ] {
        let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
        scene.open_on(ANN, CHANNEL, offer());
        scene.say(ANN, message);
        let heard = scene.read_all(ANN, &mut Copy::default());
        assert!(matches!(refusal(&heard), Refusal::Protocol { .. }), "{why}: {heard:?}");
    }
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.open_on(ANN, CHANNEL, offer());
    scene.say(ANN, seed(&[1, 2], 9));
    scene.say(ANN, seed(&[2], 9));
    let heard = scene.read_all(ANN, &mut Copy::default());
    assert!(matches!(refusal(&heard), Refusal::Protocol { .. }), "the same again: {heard:?}");
}

/// A document of about 2 MiB, in parts of so many pages.
fn large_seed(part_pages: usize) -> (Vec<u8>, Vec<ToRoom>) {
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    with_bulk(&mut scene);
    let file = scene.export();
    let position = Position { next: lsn(5), life: LIFE, ..Position::start_of(JournalId([9; 16])) };
    let db_pages = u32::try_from(file.len() / PAGE_SIZE).expect("few");
    let pages: Vec<(Pgid, Page)> = (1..)
        .map(Pgid)
        .zip(file.chunks(PAGE_SIZE).map(|bytes| Page::new(bytes).expect("a page")))
        .collect();
    let parts = pages.chunks(part_pages).map(|part| {
        let last = part.last().is_some_and(|(pgid, _)| pgid.0 == db_pages);
        let pages = part.iter().cloned().map(Into::into).collect();
        ToRoom::Seed { position, db_pages, pages, last }
    });
    let parts = parts.collect();
    (file, parts)
}

fn offer_of_a_life() -> Intent {
    let mut lives = Lineage::default();
    lives.note(LIFE, Lsn::FIRST);
    Intent::Offer { lives }
}

#[test]
fn a_seed_is_in_the_store_part_by_part_and_takes_its_place_as_a_whole() {
    let (file, parts) = large_seed(8);
    // The room has to fetch what it looks at: it keeps nothing.
    let limits = Limits { pool_pages_max: 4, fault_pages_max: 2, ..Limits::DEFAULT };
    let mut scene = Scene::new(limits, usize::MAX);
    scene.open_on(ANN, CHANNEL, offer_of_a_life());
    scene.appended.clear();
    let count = parts.len();
    for (part, index) in parts.into_iter().zip(1..) {
        scene.say(ANN, part);
        let staged: usize = scene.appended.iter().sum();
        assert_eq!(staged, (8 * index).min(file.len() / PAGE_SIZE));
        assert_eq!(
            scene.documents(),
            if index < count { ["notebook@staged"] } else { ["notebook"] }
        );
    }
    let heard = scene.read_all(ANN, &mut Copy::default());
    let is_taken = matches!(heard[..], [.., FromRoom::Seeded { .. }, FromRoom::Opened { .. }]);
    assert!(is_taken, "{heard:?}");
    assert!(scene.export() == file);
    // Whoever comes later is sent the same.
    let mut copy = Copy::default();
    scene.open(BOB);
    scene.read_all(BOB, &mut copy);
    assert!(copy.image() == file);
}

#[test]
fn a_seed_that_is_not_gone_on_with_is_given_back() {
    let (_, parts) = large_seed(8);
    let out_of_order = parts[0].clone();
    for end in [
        RoomInput::Left { conn: ANN },
        RoomInput::Message { conn: ANN, channel: CHANNEL, message: ToRoom::Close },
        RoomInput::Message { conn: ANN, channel: CHANNEL, message: out_of_order },
    ] {
        let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
        scene.open_on(ANN, CHANNEL, offer_of_a_life());
        scene.say(ANN, parts[0].clone());
        assert_eq!(scene.documents(), ["notebook@staged"]);
        scene.settle(end.clone());
        assert_eq!(scene.documents(), [""; 0], "{end:?}");
    }
}

#[test]
fn who_hands_over_faster_than_the_disk_takes_waits() {
    let limits = Limits { room_pages_in_flight_max: 16, ..Limits::DEFAULT };
    let (_, parts) = large_seed(8);
    let mut scene = Scene::new(limits, usize::MAX);
    scene.open_on(ANN, CHANNEL, offer_of_a_life());
    scene.appended.clear();
    scene.holds_durable = true;
    for part in parts.into_iter().take(9) {
        scene.say(ANN, part);
    }
    assert_eq!(scene.appended.iter().sum::<usize>(), 16);
    assert!(!scene.room.takes_messages(), "its connection is not read");
}

#[test]
fn one_local_document_is_handed_over_at_a_time() {
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.open_on(ANN, CHANNEL, offer());
    assert!(matches!(scene.read(ANN), Some(FromRoom::SeedWanted)));
    scene.open_on(BOB, CHANNEL, offer());
    assert_eq!(scene.read(BOB), None, "it is not known what becomes of the first");
    scene.settle(RoomInput::Left { conn: ANN });
    assert!(matches!(scene.read(BOB), Some(FromRoom::SeedWanted)));
}

/// V5.
#[tokio::test]
async fn one_who_hands_nothing_over_is_not_waited_for() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut ann = Client::connect(server.address()).await.expect("up");
    ann.tell(open("list", 1, offer_of_a_life())).await.expect("up");
    assert_eq!(ann.hear_of().await, Some(FromRoom::SeedWanted));
    let (_, parts) = large_seed(64);
    ann.tell(parts[0].clone()).await.expect("up");
    let mut bob = Client::connect(server.address()).await.expect("up");
    bob.tell(open("list", 2, offer_of_a_life())).await.expect("up");
    // Whoever offers gives up after ten seconds.
    let wanted = tokio::time::timeout(Duration::from_secs(9), bob.hear_of()).await;
    assert_eq!(wanted.expect("its turn"), Some(FromRoom::SeedWanted));
    assert!(matches!(ann.hear_of().await, Some(FromRoom::SeedTaken { .. })));
    assert!(matches!(ann.hear_of().await, Some(FromRoom::Refused(Refusal::Storage { .. }))));
    for part in parts {
        bob.tell(part).await.expect("up");
    }
    let heard = async {
        loop {
            match bob.hear_of().await {
                Some(FromRoom::SeedTaken { .. }) => {}
                other => return other,
            }
        }
    };
    assert!(matches!(heard.await, Some(FromRoom::Seeded { .. })));
    server.stop().await;
}

#[test]
fn one_who_hands_over_is_waited_for_as_long_as_something_comes() {
    let (_, parts) = large_seed(64);
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.open_on(ANN, CHANNEL, offer_of_a_life());
    scene.say(ANN, parts[0].clone());
    assert_eq!(scene.room.seed_overdue_at_ms(0), None, "nobody waits");
    scene.settle(RoomInput::SeedOverdue { now_ms: 60_000 });
    scene.open_on(BOB, CHANNEL, offer());
    let due_ms = scene.room.seed_overdue_at_ms(1_000).expect("Bob waits");
    assert!(due_ms < 10_000, "sooner than he gives up");
    scene.say(ANN, parts[1].clone());
    let later_ms = scene.room.seed_overdue_at_ms(4_000).expect("Bob waits");
    assert_eq!(later_ms - due_ms, 4_000);
    scene.settle(RoomInput::SeedOverdue { now_ms: due_ms });
    let heard = scene.read_all(ANN, &mut Copy::default());
    let is_taken = |said: &FromRoom| matches!(said, FromRoom::SeedTaken { .. });
    assert!(heard[0] == FromRoom::SeedWanted && heard[1..].iter().all(is_taken), "{heard:?}");
    scene.settle(RoomInput::SeedOverdue { now_ms: later_ms });
    let heard = scene.read_all(ANN, &mut Copy::default());
    assert!(matches!(heard[..], [FromRoom::Refused(_)]), "{heard:?}");
    assert_eq!(scene.read(BOB), Some(FromRoom::SeedWanted));
}

/// Where the storage journal of a local document stands at `next`.
fn local(next: u64) -> Position {
    Position { next: lsn(next), life: LIFE, ..Position::start_of(JournalId([9; 16])) }
}

fn open_from(have: Option<Position>, intent: Intent) -> ToRoom {
    ToRoom::Open {
        document: "notebook".to_owned(),
        doctype: codec::encode(&notes()),
        timeline: JournalId([1; 16]),
        have,
        intent,
    }
}

/// V13. The client was not heard when it was told that its document was taken over, and went on.
#[test]
fn a_full_store_takes_a_further_state_of_a_document_that_it_has() {
    let (_, parts) = large_seed(64);
    let mut scene = Scene::new(Limits { documents_max: 1, ..Limits::DEFAULT }, usize::MAX);
    for next in [5, 6] {
        scene.say(ANN, open_from(Some(local(next)), offer_of_a_life()));
        assert!(matches!(scene.read(ANN), Some(FromRoom::SeedWanted)), "at {next}");
        for part in parts.clone() {
            let ToRoom::Seed { db_pages, pages, last, .. } = part else { panic!("a seed") };
            scene.say(ANN, ToRoom::Seed { position: local(next), db_pages, pages, last });
        }
        let heard = scene.read_all(ANN, &mut Copy::default());
        let is_taken = matches!(heard[..], [.., FromRoom::Seeded { .. }, FromRoom::Opened { .. }]);
        assert!(is_taken, "at {next}: {heard:?}");
        scene.say(ANN, ToRoom::Close);
    }
}

/// The database of a new document, with what this SQL has done to it, as a seed.
fn seed_after(sql: &str) -> ToRoom {
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.open(ANN);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("local.sqlite");
    std::fs::write(&path, scene.export()).expect("written");
    let database = rusqlite::Connection::open(&path).expect("a database");
    database.execute_batch(sql).expect("it runs");
    drop(database);
    let file = std::fs::read(&path).expect("a file");
    let pages: Vec<(Pgid, Page)> = (1..)
        .map(Pgid)
        .zip(file.chunks(PAGE_SIZE).map(|bytes| Page::new(bytes).expect("a page")))
        .collect();
    ToRoom::Seed {
        position: Position { next: lsn(5), life: LIFE, ..Position::start_of(JournalId([9; 16])) },
        db_pages: u32::try_from(pages.len()).expect("few"),
        pages: pages.into_iter().map(Into::into).collect(),
        last: true,
    }
}

fn planted(sql: &str) -> Vec<FromRoom> {
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    let mut lives = Lineage::default();
    lives.note(LIFE, Lsn::FIRST);
    scene.open_on(ANN, CHANNEL, Intent::Offer { lives });
    scene.say(ANN, seed_after(sql));
    scene.read_all(ANN, &mut Copy::default())
}

/// V15.
#[test]
fn a_seed_has_the_schema_of_its_doctype_and_nothing_else() {
    let heard = planted("insert into note values ('mine')");
    let is_taken = matches!(heard[..], [.., FromRoom::Seeded { .. }, FromRoom::Opened { .. }]);
    assert!(is_taken, "{heard:?}");
    for sql in [
        "create trigger spy after insert on _tidelog_timeline begin delete from note; end",
        "create view extra as select 1",
        "drop table log",
        "pragma writable_schema = on; update sqlite_schema set sql = 'create nonsense'",
    ] {
        let heard = planted(sql);
        let is_refused =
            matches!(refusal(&heard), Refusal::Protocol { .. } | Refusal::DoctypeInvalid { .. });
        assert!(is_refused, "{sql}: {heard:?}");
    }
}

/// A row of the client's timeline that names more lives than anybody remembers.
#[test]
fn what_a_client_is_told_when_it_opens_is_short_whatever_the_pages_say() {
    let timeline = "x'0101010101010101' || x'0101010101010101'";
    // Each of 24 bytes: an id, and an LSN that rises. 64 KiB of it are SQL's to repeat.
    let rows = (1..=2_000_u64).map(|number| {
        let id = format!("{number:032x}");
        format!("{id}{}", hex(&number.to_le_bytes()))
    });
    let lives: String = rows.collect();
    let heard = planted(&format!(
        "insert into _tidelog_timeline values (cast({timeline} as blob), 9999, x'{lives}', 1)"
    ));
    let [.., FromRoom::Opened { wanted, lives, .. }] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!(*wanted, lsn(9999), "the row is its own");
    assert_eq!(lives.lives().count(), 0, "none of them is known");
}

/// What servers before this one have died of, and what is run now.
#[derive(Default)]
struct Deaths {
    denied: Vec<Suspect>,
    run: Mutex<Vec<Suspect>>,
}

impl Caution for Deaths {
    fn run(&self, suspect: &dyn Fn() -> Suspect, run: &mut dyn FnMut()) -> bool {
        let suspect = suspect();
        let is_run = !self.denied.contains(&suspect);
        self.run.lock().expect("no panic").push(suspect);
        if is_run {
            run();
        }
        is_run
    }
}

/// V9. The same document is known by its name when it comes again, whoever opened the store.
#[test]
fn a_seed_that_ended_the_server_is_not_looked_at_for_ever() {
    let (_, parts) = large_seed(64);
    let hand_over = |denied: Vec<Suspect>| {
        let deaths = Arc::new(Deaths { denied, ..Deaths::default() });
        let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
        scene.room = scene.room.with_caution(Arc::clone(&deaths) as Arc<dyn Caution>);
        scene.open_on(ANN, CHANNEL, offer_of_a_life());
        parts.iter().for_each(|part| scene.say(ANN, part.clone()));
        let heard = scene.read_all(ANN, &mut Copy::default());
        (heard, deaths.run.lock().expect("no panic").pop().expect("it was looked at"))
    };
    let (heard, last) = hand_over(Vec::new());
    assert!(heard.iter().any(|said| matches!(said, FromRoom::Seeded { .. })), "{heard:?}");
    let (heard, again) = hand_over(vec![last.clone()]);
    assert_eq!(last, again);
    assert!(matches!(refusal(&heard), Refusal::Protocol { .. }), "{heard:?}");
}

#[test]
fn an_offer_names_no_more_lives_than_are_kept() {
    let mut lives = Lineage::default();
    for number in 1..=65 {
        lives.note(Life([number; 16]), lsn(u64::from(number)));
    }
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.open_on(ANN, CHANNEL, Intent::Offer { lives });
    let heard = scene.read_all(ANN, &mut Copy::default());
    assert!(matches!(refusal(&heard), Refusal::Protocol { .. }), "{heard:?}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// --- V19, V21: a room costs what happens in it -------------------------------------------------

#[test]
fn a_room_that_rested_goes_on_as_if_it_had_not() {
    let images = [false, true].map(|rests| {
        let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
        scene.open(ANN);
        for number in 1..=20 {
            if rests {
                scene.room.rest();
            }
            scene.frames(ANN, number, vec![frame(&notes(), "log", &number.to_string())]);
        }
        assert_eq!(scene.room.counts().applied, 20);
        scene.export()
    });
    assert!(images[0] == images[1]);
}

#[test]
fn a_room_that_gave_all_back_goes_on_as_if_it_had_not() {
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    with_bulk(&mut scene);
    assert!(scene.room.kept_size() > 1024 * 1024);
    for number in 3..=6 {
        scene.room.rest_deeply();
        assert_eq!(scene.room.kept_size(), 0);
        scene.step(RoomInput::Message {
            conn: ANN,
            channel: CHANNEL,
            message: ToRoom::Frames {
                life: LIFE,
                first: lsn(number),
                frames: vec![frame(&notes(), "touch", "x")],
            },
        });
        // Not between two runs of one mutation.
        let (kept, waits) = (scene.room.kept_size(), !scene.room.takes_messages());
        scene.room.rest_deeply();
        assert!(!waits || kept == 0 || scene.room.kept_size() > 0);
        scene.settle(RoomInput::GoOn);
    }
    assert_eq!(scene.room.counts().applied, 6);
    let mut copy = Copy::default();
    scene.open(BOB);
    scene.read_all(BOB, &mut copy);
    assert!(copy.image() == scene.export());
}

/// What one client says costs the same however many others are there, and each entry one look at
/// the way to each of them.
#[test]
fn work_grows_with_those_whom_it_is_for() {
    let looks_with = |others: u64| {
        // What they are sent fills their ways: all but one of them lag from then on.
        let mut scene = Scene::new(Limits::DEFAULT, 16 * 1024);
        scene.open(ANN);
        let mut copy = Copy::default();
        scene.read_all(ANN, &mut copy);
        for conn in (1..=others).map(|number| ConnId(10 + number)) {
            scene.open(conn);
        }
        let looks = |scene: &Scene| scene.ways.looks.swap(0, Ordering::Relaxed);
        looks(&scene);
        for number in 1..=10 {
            scene.frames(ANN, number, vec![frame(&notes(), "log", &number.to_string())]);
            scene.read_all(ANN, &mut copy);
        }
        let of_entries = looks(&scene);
        // Those of one client alone.
        for number in 11..=20 {
            let next = copy.position.expect("it follows").next;
            scene.say(ANN, ToRoom::Received { next });
            scene.say(ANN, ToRoom::Probe { probe: ProbeId(number) });
            scene.settle(RoomInput::Writable { conn: ANN });
        }
        (of_entries, looks(&scene))
    };
    let (alone, own_alone) = looks_with(1);
    let (crowded, own_crowded) = looks_with(1_000);
    assert_eq!(own_alone, own_crowded, "of what concerns one client");
    assert!(crowded <= 1_000 * alone, "{alone} with one, {crowded} with a thousand");
}

// --- over real sockets -------------------------------------------------------------------------

async fn start(data: &Path) -> Server {
    Server::start(&settings(data)).await.expect("a server")
}

/// V10, V18. On one thread: a room that ran there would let nothing else happen meanwhile.
#[tokio::test(flavor = "current_thread")]
async fn a_room_that_is_busy_holds_up_neither_the_server_nor_its_own_connection() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut client = Client::connect(server.address()).await.expect("up");
    client.open_as("list", &burner(), 1, None).await.expect("up");
    assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
    let burn = |number: u64| frame(&burner(), "burn", &number.to_string());
    client.frames(1, (0..4).map(burn).collect()).await.expect("up");
    client.say(&ToServer::Ping).await.expect("up");
    let (status, _) = http(server.address(), "GET", "/healthz", "").await;
    assert_eq!(status, 200);
    let mut copy = Copy::default();
    loop {
        match client.hear().await.expect("up") {
            FromServer::Pong => break,
            FromServer::About { body: FromRoom::Entry(part), .. } => copy.take(part),
            FromServer::About { body: FromRoom::Acked { .. }, .. } => {
                panic!("Ping was answered after the frames")
            }
            _ => {}
        }
    }
    client.acked(&mut copy, 5).await.expect("acknowledged");
    server.stop().await;
}

/// V12.
#[tokio::test]
async fn what_is_no_hello_is_not_taken() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut client = Client::connect_silently(server.address()).await.expect("up");
    // Where it is cut off, it may not be possible to say all of it.
    let _ = client.say_bytes(vec![0; 64 * HELLO_SIZE_MAX as usize]).await;
    assert_eq!(client.hear().await, None, "it was not even looked at");
    server.stop().await;
}

/// V13.
#[tokio::test]
async fn the_documents_of_a_connection_are_bounded() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut client = Client::connect(server.address()).await.expect("up");
    let channels_max = CONNECTION_CHANNELS_MAX as u32;
    for channel in 1..=channels_max + 1 {
        let body = open("list", 1, Intent::Follow);
        let message = ToServer::About { channel: Channel(channel), body };
        client.say(&message).await.expect("up");
    }
    let (mut opened, mut refused) = (0, Vec::new());
    while opened + refused.len() <= channels_max as usize {
        match client.hear().await.expect("up") {
            FromServer::About { body: FromRoom::Opened { .. }, .. } => opened += 1,
            FromServer::About { channel, body: FromRoom::Refused(_) } => refused.push(channel.0),
            _ => {}
        }
    }
    assert_eq!(refused, [channels_max + 1]);
    server.stop().await;
}

/// V13.
#[tokio::test]
async fn the_documents_of_a_store_are_bounded() {
    let data = tempfile::tempdir().expect("a folder");
    let settings = ServeSettings { documents_max: 2, ..settings(data.path()) };
    let server = Server::start(&settings).await.expect("a server");
    let mut client = Client::connect(server.address()).await.expect("up");
    let mut answers = Vec::new();
    for (name, number) in ["one", "two", "three"].into_iter().zip(1..) {
        let message =
            ToServer::About { channel: Channel(number), body: open(name, 1, Intent::Follow) };
        client.say(&message).await.expect("up");
        while answers.len() < number as usize {
            match client.hear().await.expect("up") {
                FromServer::About { body: FromRoom::Opened { .. }, .. } => answers.push(None),
                FromServer::About { body: FromRoom::Refused(refusal), .. } => {
                    answers.push(Some(refusal));
                }
                _ => {}
            }
        }
    }
    let reason = "there are 2 documents, and no more may be".to_owned();
    assert_eq!(answers, [None, None, Some(Refusal::Storage { reason })]);
    // The others go on, and one that is gone makes room.
    let mut other = Client::connect(server.address()).await.expect("up");
    other.open("two", 2, None).await.expect("up");
    assert!(matches!(other.hear_of().await, Some(FromRoom::Opened { .. })));
    assert_eq!(http(server.address(), "DELETE", "/v1/documents/one", "").await.0, 204);
    let mut third = Client::connect(server.address()).await.expect("up");
    third.open("three", 3, None).await.expect("up");
    assert!(matches!(third.hear_of().await, Some(FromRoom::Opened { .. })));
    server.stop().await;
}

/// V12.
#[tokio::test]
async fn there_are_only_so_many_connections() {
    let data = tempfile::tempdir().expect("a folder");
    let settings = ServeSettings { connections_max: 2, ..settings(data.path()) };
    let server = Server::start(&settings).await.expect("a server");
    let at = server.address();
    let first = Client::connect(at).await.expect("there is room");
    // One that has not said Hello counts as well.
    let _second = Client::connect_silently(at).await.expect("there is room");
    assert!(Client::connect_silently(at).await.is_none(), "there is none");
    drop(first);
    let mut tries = 0;
    while Client::connect_silently(at).await.is_none() {
        tries += 1;
        assert!(tries < 1_000, "there is room again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.stop().await;
}

/// V12.
#[tokio::test(start_paused = true)]
async fn pings_do_not_renew_the_time_for_a_hello() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut client = Client::connect_silently(server.address()).await.expect("up");
    let began = tokio::time::Instant::now();
    while client.ping().await.is_some() {
        // The client's half hears what ends the connection.
        let next = tokio::time::timeout(Duration::from_secs(1), client.hear()).await;
        match next {
            Ok(Some(FromServer::Bye { .. }) | None) => break,
            Ok(Some(other)) => panic!("unexpected: {other:?}"),
            Err(_) => assert!(began.elapsed() < Duration::from_secs(60), "it pings for ever"),
        }
    }
    assert!(began.elapsed() >= Duration::from_secs(9), "it was given time");
    assert!(began.elapsed() < Duration::from_secs(20), "after {:?}", began.elapsed());
    server.stop().await;
}

/// V11.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_told_to_stop_does_within_ten_seconds() {
    let data = tempfile::tempdir().expect("a folder");
    for _ in 0..3 {
        assert_eq!(
            Process::start(TIDELOG, data.path()).terminate(),
            Some(0),
            "as soon as it listens"
        );
    }
    let process = Process::start(TIDELOG, data.path());
    let mut clients = Vec::new();
    // More rooms than threads, each with work for long; nobody reads what is said.
    for number in 0..8 {
        let mut client = Client::connect(process.address).await.expect("up");
        client.open_as(&format!("list {number}"), &burner(), 1, None).await.expect("up");
        assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
        clients.push(client);
    }
    // A local document half handed over, and one who has not said Hello.
    let (_, mut parts) = large_seed(64);
    parts.pop();
    let mut seeder = Client::connect(process.address).await.expect("up");
    seeder.tell(open("seed", 9, offer_of_a_life())).await.expect("up");
    for part in parts {
        seeder.tell(part).await.expect("up");
    }
    let silent = Client::connect_silently(process.address).await.expect("up");
    for client in &mut clients {
        let burn = |number: u64| frame(&burner(), "burn", &number.to_string());
        client.frames(1, (0..200).map(burn).collect()).await.expect("up");
    }
    let began = std::time::Instant::now();
    let ended = tokio::task::spawn_blocking(move || process.terminate()).await.expect("it ends");
    assert_eq!(ended, Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    drop((clients, seeder, silent));
}

/// V23.
#[tokio::test]
async fn what_goes_wrong_is_counted() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut client = Client::connect(server.address()).await.expect("up");
    let broken = Doctype { migrations: vec!["create nonsense".to_owned()], ..notes() };
    client.open_as("list", &broken, 1, None).await.expect("up");
    assert!(matches!(client.hear_of().await, Some(FromRoom::Refused(_))));
    client.say_bytes(vec![1, 0, 9, 9, 9, 9]).await.expect("up");
    assert!(matches!(client.hear().await, Some(FromServer::Bye { .. })));
    assert_eq!(client.hear().await, None);
    let (_, metrics) = http(server.address(), "GET", "/metrics", "").await;
    let metrics = String::from_utf8(metrics).expect("text");
    for line in ["tidelog_refusals_total 1", "tidelog_byes_total 1", "tidelog_room_panics_total 0"]
    {
        assert!(metrics.lines().any(|it| it == line), "{line} in {metrics}");
    }
    server.stop().await;
}

/// V25.
#[cfg(target_os = "linux")]
#[test]
fn files_are_for_their_owner_and_as_many_may_be_open_as_the_system_allows() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let process = Process::start_with_few_files(TIDELOG, &data);
    let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for file in std::fs::read_dir(&data).expect("a folder") {
        assert_eq!(mode(&file.expect("a file").path()), 0o600);
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id()));
    let limits = limits.expect("it runs");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut numbers = line.expect("a line").split_whitespace();
    assert_eq!(numbers.next(), numbers.next(), "soft and hard");
    assert_eq!(process.terminate(), Some(0));
}
