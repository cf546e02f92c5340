//! Requests by a seed.

use std::collections::BTreeMap;

use tidelog_pages::{Append, StorageEntry, StoreRequest, Ticket, TimelineFrame, Urgency};
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{
    CallId, Chain, DocumentKey, JournalId, Lsn, LsnRange, Page, PageSet, Pgid, Position,
};

use super::Compaction;
use super::model::{Model, ModelDocument};

#[path = "../../../journal/tests/common/rng.rs"]
mod rng;

pub use rng::Rng;

impl Rng {
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

/// Makes requests that a store has to accept.
pub struct Workload {
    pub rng: Rng,
    pub model: Model,
    ticket: u64,
    /// The number of the last compaction that was asked for.
    pub changes: u64,
    /// The newest requests, to be handed over again now and then.
    pub recent: Vec<Append>,
    pub documents: usize,
    pub may_destroy: bool,
}

impl Workload {
    pub fn new(seed: u64) -> Self {
        let rng = Rng::new(seed);
        let model = Model::default();
        let recent = Vec::new();
        Self { rng, model, ticket: 0, changes: 0, recent, documents: 4, may_destroy: true }
    }

    /// Goes on from an earlier state of the model.
    pub fn go_back_to(&mut self, model: Model) {
        self.model = model;
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
        (StoreRequest::SyncPrepare { request, urgency, document, journal, since }, answer)
    }

    pub fn next(&mut self) -> StoreRequest {
        self.ticket += 1;
        let ticket = Ticket(self.ticket);
        let document = self.document();
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
