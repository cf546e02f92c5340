//! A plain model of a store, a workload, and a driver that compares the two.

#![allow(dead_code, reason = "each test file uses its part of it")]

use std::collections::BTreeMap;

use tidelog_disk::{CrashDevice, CrashDisk, StoreFiles};
use tidelog_pages::{
    Append, AppendError, OpenedDocument, OwnerId, PageServer, StorageEntry, StoreOptions,
    StoreReply, StoreRequest, Ticket, TimelineFrame,
};
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{
    CallId, Chain, DocumentKey, JournalId, Lsn, LsnRange, Page, PageSet, Pgid, Position,
};

pub type Server = PageServer<CrashDisk>;

pub const OWNER: OwnerId = OwnerId(1);

/// Numbers from a seed, the same each time.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn bytes16(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next().to_le_bytes());
        bytes[8..].copy_from_slice(&self.next().to_le_bytes());
        bytes
    }

    pub fn page(&mut self) -> Page {
        let fill = self.next().to_le_bytes();
        Page::new(&fill.repeat(PAGE_SIZE / 8)).expect("the size of a page")
    }
}

/// What one document should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelDocument {
    pub record: Vec<u8>,
    pub timeline: Option<(JournalId, Lsn, Vec<TimelineFrame>)>,
    pub storage: Option<Position>,
    pub db_pages: u32,
    /// Each page and its LSN.
    pub pages: BTreeMap<Pgid, (Lsn, Page)>,
}

/// What a store should hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model(pub BTreeMap<DocumentKey, ModelDocument>);

impl Model {
    /// Applies a request as the docs of the protocol say.
    pub fn apply(&mut self, request: &StoreRequest) {
        match request {
            StoreRequest::Append { append, .. } => {
                self.0.entry(append.document.clone()).or_default().append(append);
            }
            StoreRequest::Destroy { document, .. } => {
                self.0.remove(document);
            }
            _ => {}
        }
    }
}

impl ModelDocument {
    fn append(&mut self, append: &Append) {
        if let Some(record) = &append.record {
            self.record = record.to_vec();
        }
        if let Some((journal, start)) = append.begin_timeline
            && self.timeline.as_ref().is_none_or(|timeline| timeline.0 != journal)
        {
            self.timeline = Some((journal, start, Vec::new()));
        }
        if let Some((_, start, frames)) = &mut self.timeline {
            for frame in &append.timeline {
                if frame.lsn == start.plus(frames.len() as u64) {
                    frames.push(frame.clone());
                }
            }
            if let Some(floor) = append.trim_timeline {
                while *start < floor {
                    frames.remove(0);
                    *start = start.next();
                }
            }
        }
        if let Some(journal) = append.begin_storage
            && self.storage.is_none_or(|position| position.journal != journal)
        {
            self.storage = Some(Position::start_of(journal));
            self.db_pages = 0;
            self.pages.clear();
        }
        for entry in &append.storage {
            let position = self.storage.as_mut().expect("a storage journal");
            if entry.range.start() == position.next {
                *position = entry.position;
                self.db_pages = entry.set.db_pages;
                let lsn = Lsn::new(entry.range.end().get() - 1).expect("not empty");
                for (pgid, page) in &entry.set.pages {
                    self.pages.insert(*pgid, (lsn, page.clone()));
                }
                self.pages.retain(|pgid, _| pgid.0 <= entry.set.db_pages);
            }
        }
    }
}

/// Makes requests that a store has to accept.
pub struct Workload {
    pub rng: Rng,
    pub model: Model,
    ticket: u64,
    /// The newest requests, to be handed over again now and then.
    recent: Vec<Append>,
    pub documents: usize,
    pub may_destroy: bool,
}

impl Workload {
    pub fn new(seed: u64) -> Self {
        let rng = Rng::new(seed);
        let model = Model::default();
        Self { rng, model, ticket: 0, recent: Vec::new(), documents: 4, may_destroy: true }
    }

    pub fn next(&mut self) -> StoreRequest {
        self.ticket += 1;
        let ticket = Ticket(self.ticket);
        let name = format!("document-{}", self.rng.below(self.documents));
        let document = DocumentKey::new(&name, "").expect("a good name");
        if self.may_destroy && self.rng.one_in(25) {
            self.recent.retain(|append| append.document != document);
            let request = StoreRequest::Destroy { ticket, document };
            self.model.apply(&request);
            return request;
        }
        if !self.recent.is_empty() && self.rng.one_in(12) {
            let append = self.recent.pop().expect("not empty");
            self.recent.clear();
            return StoreRequest::Append { ticket, append };
        }
        let append = self.append(document);
        self.recent.push(append.clone());
        let request = StoreRequest::Append { ticket, append };
        self.model.apply(&request);
        request
    }

    fn append(&mut self, document: DocumentKey) -> Append {
        let before = self.model.0.get(&document).cloned().unwrap_or_default();
        let rng = &mut self.rng;
        let mut append = Append::to(document);
        if rng.one_in(4) {
            append.record = Some(vec![rng.next() as u8; rng.below(600)].into());
        }
        let mut timeline = before.timeline.clone();
        if timeline.is_none() || rng.one_in(40) {
            let begin = (JournalId(rng.bytes16()), Lsn::FIRST.plus(rng.below(3) as u64));
            append.begin_timeline = Some(begin);
            timeline = Some((begin.0, begin.1, Vec::new()));
        }
        let (_, start, frames) = timeline.expect("just begun");
        let mut head = start.plus(frames.len() as u64);
        for _ in 0..rng.below(3) {
            let body = vec![rng.next() as u8; rng.below(1500)];
            let call = CallId(rng.bytes16());
            append.timeline.push(TimelineFrame { lsn: head, call, body });
            head = head.next();
        }
        if rng.one_in(3) {
            let count = (head.get() - start.get()) as usize;
            append.trim_timeline = Some(start.plus(rng.below(count + 1) as u64));
        }
        if rng.one_in(2) {
            self.storage(&before, &mut append);
        }
        append
    }

    fn storage(&mut self, before: &ModelDocument, append: &mut Append) {
        let rng = &mut self.rng;
        let mut position = before.storage;
        let mut db_pages = before.db_pages;
        if position.is_none() || rng.one_in(30) {
            let journal = JournalId(rng.bytes16());
            append.begin_storage = Some(journal);
            position = Some(Position::start_of(journal));
            db_pages = 0;
        }
        let mut position = position.expect("just begun");
        for _ in 0..=rng.below(2) {
            if rng.one_in(6) {
                db_pages /= 2;
            }
            db_pages = (db_pages + rng.below(3) as u32).max(1);
            let mut set = PageSet { db_pages, pages: BTreeMap::new() };
            for _ in 0..rng.below(4) {
                let pgid = Pgid(1 + rng.below(db_pages as usize) as u32);
                set.pages.insert(pgid, rng.page());
            }
            let end = position.next.plus(1 + rng.below(2) as u64 * rng.below(50) as u64);
            let range = LsnRange::new(position.next, end);
            let mut chain = Chain::default();
            chain.0[..16].copy_from_slice(&rng.bytes16());
            position = Position { next: end, chain, ..position };
            let calls =
                (0..rng.below(3)).map(|n| (CallId(rng.bytes16()), range.start().plus(n as u64)));
            let calls = calls.collect();
            append.storage.push(StorageEntry { range, position, calls, set });
        }
    }
}

/// The files of a store on this device.
pub fn files(device: &CrashDevice) -> StoreFiles<CrashDisk> {
    StoreFiles::open_each(|name| Ok::<_, ()>(device.file(name))).expect("no errors")
}

pub fn small_log() -> StoreOptions {
    StoreOptions { log_size_max: 48 * 1024, pool_pages_max: 8 }
}

pub fn open(device: &CrashDevice) -> Server {
    let opened = PageServer::open_with(files(device), small_log());
    opened.expect("the store can always be opened").0
}

/// Polls until there is nothing left to do, completing flushes that a device holds.
pub fn settle(server: &mut Server, device: &CrashDevice) -> Vec<StoreReply> {
    let mut replies = poll_all(server);
    while device.has_held_flushes() {
        device.complete_flushes();
        replies.extend(poll_all(server));
    }
    replies
}

/// Polls until there is nothing left to do now.
pub fn poll_all(server: &mut Server) -> Vec<StoreReply> {
    let mut replies = Vec::new();
    loop {
        replies.extend(server.poll().into_iter().map(|(_, reply)| reply));
        if !server.wants_poll() {
            return replies;
        }
    }
}

pub fn ask(server: &mut Server, device: &CrashDevice, request: StoreRequest) -> Vec<StoreReply> {
    server.serve(OWNER, request);
    settle(server, device)
}

pub fn open_document(
    server: &mut Server,
    device: &CrashDevice,
    document: &DocumentKey,
) -> Option<OpenedDocument> {
    let replies = ask(server, device, StoreRequest::Open { document: document.clone() });
    match replies.as_slice() {
        [StoreReply::Opened { state, .. }] => state.as_deref().cloned(),
        other => panic!("open answered {other:?}"),
    }
}

/// Everything that a server holds, asked for as an owner would.
pub fn observe(server: &mut Server, device: &CrashDevice) -> Model {
    let replies = ask(server, device, StoreRequest::List { request: 1 });
    let [StoreReply::Documents { documents, .. }] = replies.as_slice() else {
        panic!("list answered {replies:?}");
    };
    let mut model = Model::default();
    for key in documents {
        let opened = open_document(server, device, key).expect("it was listed");
        let timeline = opened.timeline.map(|timeline| {
            assert_eq!(timeline.range.count(), timeline.frames.len() as u64);
            (timeline.journal, timeline.range.start(), timeline.frames)
        });
        let mut pages = BTreeMap::new();
        if opened.storage.is_some() {
            pages = changes(server, device, key, Lsn::FIRST).pages;
        }
        let pages = pages.into_iter().map(|(pgid, page)| (pgid, (Lsn::FIRST, page))).collect();
        let (storage, db_pages) = (opened.storage, opened.db_pages);
        let document = ModelDocument { record: opened.record, timeline, storage, db_pages, pages };
        model.0.insert(key.clone(), document);
    }
    model
}

pub fn changes(
    server: &mut Server,
    device: &CrashDevice,
    document: &DocumentKey,
    since: Lsn,
) -> PageSet {
    let request = StoreRequest::Changes { request: 2, document: document.clone(), since };
    match ask(server, device, request).as_slice() {
        [StoreReply::Changes { set, .. }] => set.clone(),
        other => panic!("changes answered {other:?}"),
    }
}

/// Whether the two are the same but for the LSNs of pages, which cannot be observed.
pub fn is_same(observed: &Model, model: &Model) -> bool {
    let plain = |model: &Model| {
        let mut model = model.clone();
        for document in model.0.values_mut() {
            document.pages.values_mut().for_each(|(lsn, _)| *lsn = Lsn::FIRST);
        }
        model
    };
    *observed == plain(model)
}

/// What a run of a workload left behind.
pub struct Run {
    pub device: CrashDevice,
    /// The states that the requests led to, from the empty one on; a request that failed is not
    /// among them.
    pub history: Vec<(Ticket, Model)>,
    /// The highest ticket called durable.
    pub durable: Ticket,
    /// Tickets that failed because the device was full.
    pub failed: u64,
    pub is_broken: bool,
}

impl Run {
    /// The state in the history, at or after the durable one, that the store holds.
    pub fn find(&self, observed: &Model) -> Option<usize> {
        let first = self.history.iter().rposition(|(ticket, _)| *ticket <= self.durable);
        let first = first.expect("the empty state has ticket 0");
        (first..self.history.len()).find(|index| is_same(observed, &self.history[*index].1))
    }
}

/// Runs `turns` turns of some requests, a flush and polls, until the end or until the server
/// breaks.
pub fn run(device: CrashDevice, seed: u64, turns: usize) -> Run {
    let history = vec![(Ticket(0), Model::default())];
    let mut run =
        Run { device: device.clone(), history, durable: Ticket(0), failed: 0, is_broken: false };
    let opened = PageServer::open_with(files(&device), small_log());
    let Ok((mut server, _)) = opened else {
        run.is_broken = true;
        return run;
    };
    let mut workload = Workload::new(seed);
    for _ in 0..turns {
        for _ in 0..=workload.rng.below(3) {
            let request = workload.next();
            let ticket = ticket_of(&request);
            run.history.push((ticket, workload.model.clone()));
            server.serve(OWNER, request);
        }
        server.flush();
        // Where flushes are held, some stay under way while the next requests are served, and the
        // files complete theirs in any order.
        let mut replies = poll_all(&mut server);
        while device.has_held_flushes() && !workload.rng.one_in(4) {
            device.complete_flushes_of_one(&mut |count| workload.rng.below(count));
            replies.extend(poll_all(&mut server));
        }
        let failed = take_in(&mut run, &replies);
        if run.is_broken {
            return run;
        }
        if let Some(failed) = failed {
            run.history.retain(|(ticket, _)| *ticket < failed);
            workload.model = run.history.last().expect("the empty state").1.clone();
            workload.recent.clear();
            for index in 0..workload.documents {
                let name = format!("document-{index}");
                let document = DocumentKey::new(&name, "").expect("a good name");
                server.serve(OWNER, StoreRequest::Open { document });
            }
            take_in(&mut run, &settle(&mut server, &device));
        }
    }
    take_in(&mut run, &settle(&mut server, &device));
    run
}

pub fn ticket_of(request: &StoreRequest) -> Ticket {
    match request {
        StoreRequest::Append { ticket, .. } | StoreRequest::Destroy { ticket, .. } => *ticket,
        other => panic!("{other:?} has no ticket"),
    }
}

/// Notes what the replies say; gives the first ticket that failed.
fn take_in(run: &mut Run, replies: &[StoreReply]) -> Option<Ticket> {
    let mut first_failed = None;
    for reply in replies {
        match reply {
            StoreReply::Durable { ticket } => {
                assert!(*ticket >= run.durable, "durable went back");
                run.durable = *ticket;
            }
            StoreReply::AppendFailed { ticket, error } => {
                assert_eq!(*error, AppendError::Full, "ticket {ticket:?}");
                run.failed += 1;
                first_failed = first_failed.or(Some(*ticket));
            }
            StoreReply::Broken { .. } => run.is_broken = true,
            StoreReply::Opened { .. } => {}
            other => panic!("unasked: {other:?}"),
        }
    }
    first_failed
}
