//! A room over a store in memory, and clients that read when they are told to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tidelog_disk::{MemoryDisk, StoreFiles};
use tidelog_document::{Doctype, Mutation, MutationDefinition, Param, ParamKind, client_of};
use tidelog_pages::{OwnerId, PageServer, RequestId, Seed, StoreOptions, StoreReply, StoreRequest};
use tidelog_room::{
    Answer, Ask, ConnId, Doctypes, Outlets, Room, RoomEffect, RoomInput, RoomSettings, Speaker,
    entry_size,
};
use tidelog_sync::{
    Channel, CodedPage, EntryPart, FromRoom, FromServer, Intent, PageCoding, Refusal, ToRoom,
    WireFrame, codec,
};
use tidelog_types::limits::{Limits, PAGE_SIZE};
use tidelog_types::{
    CallId, DocumentKey, JournalId, Life, Lineage, Lsn, Page, Pgid, Position, Value,
};

pub const CHANNEL: Channel = Channel(3);

pub const ANN: ConnId = ConnId(1);
pub const BOB: ConnId = ConnId(2);

/// Who writes the frames.
pub const LIFE: Life = Life([7; 16]);

pub fn lsn(number: u64) -> Lsn {
    Lsn::new(number).expect("not 0")
}

/// Every mutation leaves a row; `note.id` is unique, `log` takes anything.
pub fn notes() -> Doctype {
    let id = Param { name: "id".to_owned(), kind: ParamKind::Text, optional: false };
    let mutation = |name: &str, sql: &str| MutationDefinition {
        name: name.to_owned(),
        params: vec![id.clone()],
        sql: vec![sql.to_owned()],
    };
    Doctype {
        name: "notes".to_owned(),
        migrations: vec![
            "create table note (id text primary key) strict".to_owned(),
            "create table log (number integer primary key, id text not null) strict".to_owned(),
        ],
        mutations: vec![
            mutation("add", "insert into note values (:id)"),
            mutation(
                "bulk",
                "with recursive n(i) as (values (1) union all select i + 1 from n where i < 300)
                 insert into log (id) select :id || hex(zeroblob(1500)) from n",
            ),
            mutation("log", "insert into log (id) values (:id)"),
            mutation("keep", "delete from log where id <> :id"),
            mutation("touch", "update log set id = substr(id, 2) || :id"),
        ],
        streams: Vec::new(),
        workflows: Vec::new(),
    }
}

/// With a mutation that takes a while.
pub fn burner() -> Doctype {
    let mut doctype = notes();
    let sql = "insert into log (id) select 'burnt' from
               (with recursive c (x) as (select 1 union all select x + 1 from c where x < 1500000)
                select max(x) as most from c) where most > 1";
    doctype.mutations.push(MutationDefinition {
        name: "burn".to_owned(),
        params: doctype.mutations[0].params.clone(),
        sql: vec![sql.to_owned()],
    });
    doctype
}

pub fn frame(doctype: &Doctype, name: &str, id: &str) -> WireFrame {
    frame_of("", doctype, name, id)
}

/// The same of this user.
pub fn frame_of(user: &str, doctype: &Doctype, name: &str, id: &str) -> WireFrame {
    let mutation = Mutation {
        doctype: doctype.hash(),
        name: name.to_owned(),
        args: vec![("id".to_owned(), Value::Text(id.to_owned()))],
        now_ms: 1,
        client: client_of(tidelog_types::CopySecret::NONE),
        user: user.to_owned(),
        kept_rejections: Lsn::FIRST,
        moved_from: None,
    };
    WireFrame { call: CallId([0; 16]), body: mutation.encode(), predicted: None }
}

/// What a client holds of a document.
#[derive(Clone, Debug, Default)]
pub struct Copy {
    pub position: Option<Position>,
    pub db_pages: u32,
    pub pages: BTreeMap<Pgid, Page>,
}

impl Copy {
    /// Takes a whole entry, whose parts come in one after another.
    pub fn take(&mut self, part: EntryPart) {
        let next = self.position.map_or(Lsn::FIRST, |it| it.next);
        let follows = part.range.start() == next;
        assert!(follows || part.range.start() == Lsn::FIRST, "{} at {next}", part.range);
        for page in part.pages.iter() {
            let pgid = page.pgid;
            let page = page.decoded(|pgid| self.pages.get(&pgid).cloned()).expect("a page");
            self.pages.insert(pgid, page);
        }
        if part.is_last {
            self.position = Some(part.position);
            self.db_pages = part.db_pages;
            self.pages.retain(|pgid, _| pgid.0 <= part.db_pages);
        }
    }

    /// The database as a file.
    pub fn image(&self) -> Vec<u8> {
        (1..=self.db_pages).flat_map(|number| self.pages[&Pgid(number)].bytes().to_vec()).collect()
    }
}

/// The ways to clients: each takes so many bytes until they are read.
pub struct Ways {
    pub size_max: usize,
    pub reserved: Mutex<BTreeMap<ConnId, usize>>,
    /// How often they were looked at.
    pub looks: AtomicUsize,
    /// The most that was reserved on one.
    pub most: AtomicUsize,
}

impl Ways {
    pub fn reserved(&self, conn: ConnId) -> usize {
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

    fn is_idle(&self, conn: ConnId) -> bool {
        self.reserved(conn) == 0
    }
}

pub struct Scene {
    pub room: Room,
    pub ways: Arc<Ways>,
    pub store: PageServer<MemoryDisk>,
    /// Whether the store keeps to itself what is durable.
    pub holds_durable: bool,
    pub held: Vec<StoreReply>,
    /// What is on its way to clients, unread.
    pub unread: BTreeMap<ConnId, VecDeque<FromRoom>>,
    pub answers: Vec<Answer>,
    /// Pages that were appended, by the step that did it.
    pub appended: Vec<usize>,
    /// Reads for those who follow that the store was asked for.
    pub reads_count: usize,
    /// Bytes that the room kept after each step, and of a document that is handed over.
    pub kept: Vec<(usize, usize)>,
}

impl Scene {
    pub fn new(limits: Limits, way_size_max: usize) -> Self {
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
        let settings =
            RoomSettings { doctypes: Doctypes::any(), limits, ..RoomSettings::default() };
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
            reads_count: 0,
            kept: Vec::new(),
        }
    }

    pub fn step(&mut self, input: RoomInput) {
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
                    let is_read = matches!(request, StoreRequest::SyncPrepare { .. });
                    self.reads_count += usize::from(is_read);
                    self.store.serve(OwnerId(1), request);
                }
                RoomEffect::Answer { answer, .. } => self.answers.push(answer),
                RoomEffect::Due(_) => {}
            }
        }
        self.appended.push(appended);
        self.kept.push((self.room.kept_size(), self.room.seed_size()));
    }

    /// Takes a step, and then all that follow by themselves.
    pub fn settle(&mut self, input: RoomInput) {
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

    pub fn say(&mut self, conn: ConnId, message: ToRoom) {
        self.say_on(conn, CHANNEL, message);
    }

    pub fn say_on(&mut self, conn: ConnId, channel: Channel, message: ToRoom) {
        self.settle(RoomInput::Message { conn, channel, message, speaker: Speaker::anybody() });
    }

    pub fn open_on(&mut self, conn: ConnId, channel: Channel, intent: Intent) {
        self.say_on(conn, channel, open("notebook", conn.0 as u8, intent));
    }

    pub fn open(&mut self, conn: ConnId) {
        self.open_on(conn, CHANNEL, Intent::Follow);
    }

    pub fn frames(&mut self, conn: ConnId, first: u64, frames: Vec<WireFrame>) {
        self.say(conn, ToRoom::Frames { life: LIFE, first: lsn(first), frames });
    }

    /// The client reads the next message.
    pub fn read(&mut self, conn: ConnId) -> Option<FromRoom> {
        let message = self.unread.get_mut(&conn)?.pop_front()?;
        if let FromRoom::Entry(part) = &message {
            self.ways.release(conn, entry_size(part));
            self.settle(RoomInput::Writable { conn });
        }
        Some(message)
    }

    /// It reads all there is, and takes the entries into `copy`. Gives the others.
    pub fn read_all(&mut self, conn: ConnId, copy: &mut Copy) -> Vec<FromRoom> {
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
    pub fn read_origins(&mut self, conn: ConnId, copy: &mut Copy) -> Vec<Option<Lsn>> {
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
    pub fn unread_size(&self, conn: ConnId) -> usize {
        let unread = self.unread.get(&conn).into_iter().flatten();
        let sizes = unread.filter_map(|message| match message {
            FromRoom::Entry(part) => Some(entry_size(part)),
            _ => None,
        });
        sizes.sum()
    }

    /// What the store has, with what is staged there.
    pub fn documents(&mut self) -> Vec<String> {
        self.store.serve(OwnerId(2), StoreRequest::List { request: RequestId(1) });
        match self.store.poll().pop() {
            Some((_, StoreReply::Documents { documents, .. })) => {
                documents.iter().map(ToString::to_string).collect()
            }
            other => panic!("unexpected: {other:?}"),
        }
    }

    pub fn export(&mut self) -> Vec<u8> {
        let conn = ConnId(1_000);
        self.settle(RoomInput::Ask { request: 1, ask: Ask::Export { conn } });
        assert_eq!(self.answers.pop(), Some(Answer::Exporting));
        let mut copy = Copy::default();
        self.read_all(conn, &mut copy);
        self.settle(RoomInput::Left { conn });
        copy.image()
    }
}

pub fn open(document: &str, timeline: u8, intent: Intent) -> ToRoom {
    ToRoom::Open {
        document: document.to_owned(),
        doctype: codec::encode(&notes()).into(),
        timeline: JournalId([timeline; 16]),
        secret: tidelog_types::CopySecret::NONE,
        have: None,
        intent,
    }
}

pub fn offer() -> Intent {
    Intent::Offer { lives: Lineage::default() }
}

pub fn adds(count: u64) -> Vec<WireFrame> {
    (0..count).map(|number| frame(&notes(), "log", &number.to_string())).collect()
}

/// A document of about 2 MiB.
pub fn with_bulk(scene: &mut Scene) {
    scene.open(ANN);
    let bulk = |number: u64| frame(&notes(), "bulk", &number.to_string());
    scene.frames(ANN, 1, (0..2).map(bulk).collect());
    scene.read_all(ANN, &mut Copy::default());
}

pub fn refusal(heard: &[FromRoom]) -> &Refusal {
    match heard {
        [.., FromRoom::Refused(refusal)] => refusal,
        other => panic!("unexpected: {other:?}"),
    }
}

/// A document of about 2 MiB, in parts of so many pages.
pub fn large_seed(part_pages: usize) -> (Vec<u8>, Vec<ToRoom>) {
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    with_bulk(&mut scene);
    let file = scene.export();
    let parts = seed_of(&file, part_pages);
    (file, parts)
}

/// The hand-over of this file, in parts of so many pages.
pub fn seed_of(file: &[u8], part_pages: usize) -> Vec<ToRoom> {
    let position = Position { next: lsn(5), life: LIFE, ..Position::start_of(JournalId([9; 16])) };
    let db_pages = u32::try_from(file.len() / PAGE_SIZE).expect("few");
    let pages: Vec<(Pgid, Page)> = (1..)
        .map(Pgid)
        .zip(file.chunks(PAGE_SIZE).map(|bytes| Page::new(bytes).expect("a page")))
        .collect();
    let parts = pages.chunks(part_pages).map(|part| {
        let last = part.last().is_some_and(|(pgid, _)| pgid.0 == db_pages);
        let whole = |(pgid, page): &(Pgid, Page)| CodedPage {
            pgid: *pgid,
            coding: PageCoding::Whole(page.clone()),
        };
        let pages = part.iter().map(whole).collect();
        ToRoom::Seed { position, db_pages, pages, last }
    });
    parts.collect()
}

pub fn offer_of_a_life() -> Intent {
    let mut lives = Lineage::default();
    lives.note(LIFE, Lsn::FIRST);
    Intent::Offer { lives }
}
