//! Requests by a seed.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use tidelog_disk::SECTOR_SIZE;
use tidelog_journal::FRAME_HEADER_SIZE;
use tidelog_pages::{
    Append, RequestId, StorageEntry, StoreRequest, Ticket, TimelineFrame, Urgency,
};
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{
    CallId, Chain, DocumentKey, JournalId, Life, Lsn, LsnRange, Page, PageSet, Pgid, Position,
};

use super::Compaction;
use super::model::{Model, ModelDocument};
use crate::Rng;

impl Rng {
    fn bytes16(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next().to_le_bytes());
        bytes[8..].copy_from_slice(&self.next().to_le_bytes());
        bytes
    }

    /// A page like no other one, or more often one that has most in common with others: so its
    /// versions differ in little.
    pub fn page(&mut self) -> Page {
        let fill = self.next().to_le_bytes();
        let common = match self.below(8) {
            0 => return Page::new(&fill.repeat(PAGE_SIZE / 8)).expect("the size of a page"),
            1 => Page::zeroed(),
            _ => Page::new(&[0xC5; PAGE_SIZE]).expect("the size of a page"),
        };
        let changed = common.with(PAGE_SIZE - 8, &fill);
        (0..self.below(4)).fold(changed, |page, _| page.with(8 * self.below(511), &fill))
    }
}

/// What requests are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Of all kinds and sizes.
    Mixed,
    /// Most are small and end with a sector, so that one can survive a power cut without what
    /// stands behind it.
    Sectors,
    /// Now and then an entry has more pages than go into one frame.
    Large,
    /// Small ones, and among them some that are written in parts.
    Parts,
    /// Many are parts of an entry that comes in several appends, of a document that takes the place
    /// of another one in the end.
    Staged,
}

/// Makes requests that a store has to accept.
pub struct Workload {
    pub shape: Shape,
    pub rng: Rng,
    pub model: Model,
    ticket: u64,
    /// The number of the last compaction that was asked for.
    pub changes: u64,
    /// The newest requests, to be handed over again now and then.
    pub recent: Vec<Append>,
    /// Requests that have no effect yet, to be handed over again as their owner would.
    lost: VecDeque<StoreRequest>,
    pub documents: usize,
    pub may_destroy: bool,
}

impl Workload {
    pub fn new(seed: u64) -> Self {
        Self {
            shape: Shape::Mixed,
            rng: Rng::new(seed),
            model: Model::default(),
            ticket: 0,
            changes: 0,
            recent: Vec::new(),
            lost: VecDeque::new(),
            documents: 4,
            may_destroy: true,
        }
    }

    /// Goes on from an earlier state of the model, behind which these requests were lost.
    pub fn go_back_to(&mut self, model: Model, lost: VecDeque<StoreRequest>) {
        self.model = model;
        self.lost = lost;
        self.recent.clear();
    }

    fn document(&mut self) -> DocumentKey {
        let name = format!("document-{}", self.rng.below(self.documents));
        DocumentKey::new(&name, "").expect("a good name")
    }

    /// A request for what a follower lacks, and what has to be answered.
    pub fn changes(&mut self) -> (StoreRequest, Compaction) {
        self.changes += 1;
        let (request, document) = (self.changes, self.document());
        let known = self.model.0.get(&document).cloned().unwrap_or_default();
        let entries = known.storage.map_or(0, |position| position.next.get() - 1);
        let since = Lsn::FIRST.plus(self.rng.next() % (entries + 1));
        let held = known.storage.filter(|_| !self.rng.one_in(20));
        let answer = held.map_or(Err(known.storage), |position| {
            let pages = known.pages.iter().filter(|(_, (lsn, _))| *lsn >= since);
            let pages = pages.map(|(pgid, (_, page))| (*pgid, page.clone())).collect();
            Ok((position, PageSet { db_pages: known.db_pages, pages }))
        });
        let journal = held.map_or(JournalId([9; 16]), |position| position.journal);
        let urgency = Urgency::Background;
        (
            StoreRequest::SyncPrepare {
                request: RequestId(request),
                urgency,
                document,
                journal,
                since,
                from: Pgid(1),
                pages_max: u32::MAX,
            },
            answer,
        )
    }

    /// The next request, where the log ends there.
    pub fn next_at(&mut self, log_end: u64) -> StoreRequest {
        // Not always all of them: what is appended in their place may look much like them.
        if !self.lost.is_empty() && self.rng.one_in(3) {
            self.lost.clear();
        }
        if let Some(request) = self.lost.pop_front() {
            self.ticket += 1;
            let request = with_ticket(request, Ticket(self.ticket));
            self.model.apply(&request);
            return request;
        }
        match self.shape {
            Shape::Sectors if !self.rng.one_in(6) => self.sectors(log_end),
            Shape::Large if self.ticket == 0 || self.rng.one_in(12) => self.large(257..265),
            Shape::Parts if self.rng.one_in(4) => self.large(5..11),
            Shape::Parts if !self.rng.one_in(3) => self.notes(),
            Shape::Staged if !self.rng.one_in(3) => self.staged(),
            _ => self.next(),
        }
    }

    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> StoreRequest {
        let document = self.document();
        if self.may_destroy && self.rng.one_in(25) {
            self.ticket += 1;
            self.recent.retain(|append| append.document != document);
            let request = StoreRequest::Destroy { ticket: Ticket(self.ticket), document };
            self.model.apply(&request);
            return request;
        }
        if !self.recent.is_empty() && self.rng.one_in(12) {
            self.ticket += 1;
            let append = self.recent.pop().expect("not empty");
            self.recent.clear();
            return StoreRequest::Append { ticket: Ticket(self.ticket), append };
        }
        let append = self.append(document);
        self.request(append)
    }

    fn request(&mut self, append: Append) -> StoreRequest {
        self.ticket += 1;
        self.recent.push(append.clone());
        let request = StoreRequest::Append { ticket: Ticket(self.ticket), append };
        self.model.apply(&request);
        request
    }

    /// Notes of such a size that the log ends with a sector.
    fn sectors(&mut self, log_end: u64) -> StoreRequest {
        let mut append = Append::to(self.document());
        let name = append.document.document.len();
        let is_new = !self.model.0.contains_key(&append.document);
        let before = if is_new { (FRAME_HEADER_SIZE + 4 + name).next_multiple_of(8) } else { 0 };
        let start = log_end as usize + before + FRAME_HEADER_SIZE;
        let sectors = 1 + usize::from(self.rng.one_in(3));
        let end = start.next_multiple_of(SECTOR_SIZE) + (sectors - 1) * SECTOR_SIZE;
        append.record = Some(vec![self.rng.next() as u8; end - start].into());
        self.request(append)
    }

    /// A few bytes.
    fn notes(&mut self) -> StoreRequest {
        let mut append = Append::to(self.document());
        append.record = Some(vec![self.rng.next() as u8; 1 + self.rng.below(200)].into());
        self.request(append)
    }

    /// A new storage journal, whose first entry is one of several frames.
    fn large(&mut self, sizes: Range<u32>) -> StoreRequest {
        let mut append = Append::to(self.document());
        let db_pages = sizes.start + self.rng.below(sizes.len()) as u32;
        let pages = (1..=db_pages).map(|pgid| (Pgid(pgid), self.rng.page())).collect();
        let journal = JournalId(self.rng.bytes16());
        let range = LsnRange::one(Lsn::FIRST);
        let chain = Chain::default();
        let life = Life(journal.0);
        let position = Position { journal, life, next: range.end(), chain };
        append.begin_storage = Some(journal);
        let set = PageSet { db_pages, pages };
        append.storage = vec![StorageEntry { range, position, calls: Vec::new(), set }];
        self.request(append)
    }

    /// The next part of the document that is put together, or its end, or the name that it takes.
    fn staged(&mut self) -> StoreRequest {
        const DB_PAGES: usize = 12;
        let mut append = Append::to(staged_key());
        let before = self.model.0.get(&append.document).and_then(|document| document.storage);
        let range = LsnRange::new(Lsn::FIRST, Lsn::FIRST.plus(8));
        if before.is_none_or(|position| position.next == range.start()) {
            let journal =
                before.map_or_else(|| JournalId(self.rng.bytes16()), |position| position.journal);
            append.begin_storage = before.is_none().then_some(journal);
            append.is_cut = before.is_none() || !self.rng.one_in(3);
            let mut set = PageSet { db_pages: DB_PAGES as u32, pages: BTreeMap::new() };
            for _ in 0..self.rng.below(4) {
                set.pages.insert(Pgid(1 + self.rng.below(DB_PAGES) as u32), self.rng.page());
            }
            let position = Position { next: range.end(), ..Position::start_of(journal) };
            append.storage = vec![StorageEntry { range, position, calls: Vec::new(), set }];
        }
        if !append.is_cut && (append.storage.is_empty() || self.rng.one_in(2)) {
            let name = self.document();
            // Nothing that was said of either name can be said again.
            self.recent.retain(|recent| recent.document != name);
            append.take_name = Some(name);
        }
        self.ticket += 1;
        let request = StoreRequest::Append { ticket: Ticket(self.ticket), append };
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
            if chain.0[0].is_multiple_of(3) {
                position.life = Life(chain.0[..16].try_into().expect("16 bytes"));
            }
            position = Position { next: end, chain, ..position };
            let calls =
                (0..rng.below(3)).map(|n| (CallId(rng.bytes16()), range.start().plus(n as u64)));
            let calls = calls.collect();
            append.storage.push(StorageEntry { range, position, calls, set });
        }
    }
}

/// The name of a document before it takes another one's.
pub fn staged_key() -> DocumentKey {
    DocumentKey::new("staged", "").expect("a good name")
}

/// The same request once more.
pub fn with_ticket(request: StoreRequest, ticket: Ticket) -> StoreRequest {
    match request {
        StoreRequest::Append { append, .. } => StoreRequest::Append { ticket, append },
        StoreRequest::Destroy { document, .. } => StoreRequest::Destroy { ticket, document },
        other => panic!("{other:?} has no ticket"),
    }
}
