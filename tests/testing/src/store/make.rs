//! Requests in few words.

use tidelog_pages::{
    Append, RequestId, StorageEntry, StoreReply, StoreRequest, Ticket, TimelineFrame, Urgency,
};
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{
    CallId, Chain, DocumentKey, JournalId, Life, Lsn, LsnRange, Page, PageSet, Pgid, Position,
};

pub const TIMELINE: JournalId = JournalId([1; 16]);
pub const STORAGE: JournalId = JournalId([2; 16]);

pub fn key(name: &str) -> DocumentKey {
    DocumentKey::new(name, "").expect("a good name")
}

pub fn lsn(number: u64) -> Lsn {
    Lsn::new(number).expect("from 1")
}

pub fn page(fill: u8) -> Page {
    Page::new(&[fill; PAGE_SIZE]).expect("the size of a page")
}

pub fn frame(number: u64) -> TimelineFrame {
    TimelineFrame { lsn: lsn(number), call: CallId([number as u8; 16]), body: vec![7; 20] }
}

pub fn timeline(name: &str, numbers: impl IntoIterator<Item = u64>) -> Append {
    let mut append = Append::to(key(name));
    append.begin_timeline = Some((TIMELINE, Lsn::FIRST));
    append.timeline = numbers.into_iter().map(frame).collect();
    append
}

pub fn entry(start: u64, end: u64, db_pages: u32, pages: &[(u32, u8)]) -> StorageEntry {
    let position = Position {
        journal: STORAGE,
        life: Life([3; 16]),
        next: lsn(end),
        chain: Chain([end as u8; 32]),
    };
    let pages = pages.iter().map(|(pgid, fill)| (Pgid(*pgid), page(*fill))).collect();
    let set = PageSet { db_pages, pages };
    let range = LsnRange::new(lsn(start), lsn(end));
    StorageEntry { range, position, calls: vec![(CallId([start as u8; 16]), range.start())], set }
}

/// As [`entry`], but each of a life of its own.
pub fn entry_of_own_life(start: u64, end: u64, db_pages: u32, pages: &[(u32, u8)]) -> StorageEntry {
    let mut entry = entry(start, end, db_pages, pages);
    entry.position.life = Life([end as u8; 16]);
    entry
}

pub fn storage(name: &str, entries: impl IntoIterator<Item = StorageEntry>) -> Append {
    let mut append = Append::to(key(name));
    append.begin_storage = Some(STORAGE);
    append.storage = entries.into_iter().collect();
    append
}

pub fn request(ticket: u64, append: Append) -> StoreRequest {
    StoreRequest::Append { ticket: Ticket(ticket), append }
}

pub fn read_of(request: u64, name: &str, pgids: impl IntoIterator<Item = u32>) -> StoreRequest {
    let (document, pgids) = (key(name), pgids.into_iter().map(Pgid).collect());
    StoreRequest::Read { request: RequestId(request), urgency: Urgency::User, document, pgids }
}

pub fn durable(ticket: u64) -> StoreReply {
    StoreReply::Durable { ticket: Ticket(ticket) }
}
