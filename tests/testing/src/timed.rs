//! Stores with documents of some size, and what is asked of them, whatever disk they are on: native
//! files here, and those of a browser in `tests/bench/storage`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use tidelog_disk::{Disk, StoreFiles};
use tidelog_pages::{
    Append, OwnerId, PageServer, RequestId, Seed, StorageEntry, StoreOptions, StoreReply,
    StoreRequest, Ticket, TimelineFrame, Urgency,
};
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{
    CallId, Chain, DocumentKey, JournalId, Lsn, LsnRange, Page, PageSet, Pgid, Position,
};

/// Pages in one entry of those that fill a document.
const ENTRY_PAGES: u32 = 256;

pub fn options(log_size_max: u64, pool_pages_max: usize) -> StoreOptions {
    StoreOptions { log_size_max, pool_pages_max, ..StoreOptions::default() }
}

/// A store that is open, and what was found in it flushed.
pub fn open<D: Disk>(files: StoreFiles<D>, options: StoreOptions) -> PageServer<D> {
    let (mut server, _) = PageServer::open_with(files, Seed(1), options).expect("a store");
    server.flush();
    drain(&mut server);
    server
}

/// Polls until there is nothing left to do.
pub fn drain(server: &mut PageServer<impl Disk>) -> Vec<StoreReply> {
    let mut replies = Vec::new();
    loop {
        replies.extend(server.poll().into_iter().map(|(_, reply)| reply));
        if !server.wants_poll() {
            return replies;
        }
    }
}

/// So many small mutations of each of so many owners, from `lsn` on of each.
pub fn small_appends(owners: u64, calls: u64, lsn: Lsn) -> impl Iterator<Item = (OwnerId, Append)> {
    (1..=owners).map(move |owner| {
        let mut append = Append::to(key(&format!("document-{owner}")));
        append.begin_timeline = Some((JournalId([owner as u8; 16]), Lsn::FIRST));
        let call = CallId([owner as u8; 16]);
        let frame = |nth| TimelineFrame { lsn: lsn.plus(nth), call, body: vec![7; 200] };
        append.timeline = (0..calls).map(frame).collect();
        (OwnerId(owner), append)
    })
}

/// The same as requests.
pub fn small_requests(owners: u64, calls: u64, lsn: Lsn) -> Vec<(OwnerId, StoreRequest)> {
    let ticket = Ticket(lsn.get());
    let appends = small_appends(owners, calls, lsn);
    appends.map(|(owner, append)| (owner, StoreRequest::Append { ticket, append })).collect()
}

/// Makes all of this durable with one flush, and counts who was told so.
pub fn commit(server: &mut PageServer<impl Disk>, requests: Vec<(OwnerId, StoreRequest)>) -> usize {
    requests.into_iter().for_each(|(owner, request)| server.serve(owner, request));
    server.flush();
    let is_durable = |reply: &StoreReply| matches!(reply, StoreReply::Durable { .. });
    server.poll().iter().filter(|(_, reply)| is_durable(reply)).count()
}

/// Bytes of log, which a server says among other things.
pub fn log_size(server: &PageServer<impl Disk>) -> u64 {
    let text = server.to_string();
    let size = text.split(" size ").nth(1).and_then(|rest| rest.split(' ').next());
    size.and_then(|size| size.parse().ok()).expect("it says so")
}

fn key(name: &str) -> DocumentKey {
    DocumentKey::new(name, "").expect("a good name")
}

/// The position of a document, where a new one would begin if there is none.
fn position(server: &mut PageServer<impl Disk>, name: &str) -> Position {
    server.serve(OwnerId(1), StoreRequest::Open { document: key(name) });
    let found = drain(server).into_iter().find_map(|reply| match reply {
        StoreReply::Opened { state, .. } => state.and_then(|state| state.storage),
        _ => None,
    });
    found.unwrap_or_else(start)
}

fn start() -> Position {
    Position::start_of(JournalId([2; 16]))
}

/// Appends that write the first `count` pages of a document that is not there yet.
pub fn first_appends(name: &str, count: u32) -> impl Iterator<Item = StoreRequest> {
    appends(start(), name, count)
}

/// Appends that write the first `count` pages of a document, made one by one.
fn appends(mut position: Position, name: &str, count: u32) -> impl Iterator<Item = StoreRequest> {
    let append = move |first: u32| {
        let lsn = position.next;
        position = Position { next: lsn.next(), chain: Chain::default(), ..position };
        let page = |pgid: u32| {
            let fill = (u64::from(pgid) << 32 | lsn.get()).to_le_bytes();
            (Pgid(pgid), Page::new(&fill.repeat(PAGE_SIZE / 8)).expect("the size of a page"))
        };
        let last = (first + ENTRY_PAGES - 1).min(count);
        let pages: BTreeMap<Pgid, Page> = (first..=last).map(page).collect();
        let set = PageSet { db_pages: count, pages };
        let mut append = Append::to(key(name));
        append.begin_storage = Some(position.journal);
        let range = LsnRange::one(lsn);
        append.storage = vec![StorageEntry { range, position, calls: Vec::new(), set }];
        StoreRequest::Append { ticket: Ticket(lsn.get()), append }
    };
    (1..=count).step_by(ENTRY_PAGES as usize).map(append)
}

/// Writes the first `count` pages of document `a`, and lets everything come to rest.
pub fn fill(server: &mut PageServer<impl Disk>, count: u32) {
    fill_document(server, "a", count);
}

pub fn fill_document(server: &mut PageServer<impl Disk>, name: &str, count: u32) {
    for append in appends(position(server, name), name, count) {
        server.serve(OwnerId(1), append);
        server.flush();
        drain(server);
    }
}

/// Appends as much as makes a log of this size change over, and does not yet let it.
pub fn fill_until_change_over(server: &mut PageServer<impl Disk>, log_size_max: u64) {
    let count = (log_size_max / PAGE_SIZE as u64) as u32;
    for append in appends(position(server, "a"), "a", count) {
        server.serve(OwnerId(1), append);
    }
    server.flush();
}

pub fn read(pgids: RangeInclusive<u32>) -> StoreRequest {
    let (request, urgency, document) = (1, Urgency::User, key("a"));
    StoreRequest::Read {
        request: RequestId(request),
        urgency,
        document,
        pgids: pgids.map(Pgid).collect(),
    }
}

/// How many of these pages are given.
pub fn read_all(server: &mut PageServer<impl Disk>, pgids: RangeInclusive<u32>) -> usize {
    server.serve(OwnerId(1), read(pgids));
    let mut count = 0;
    while server.wants_poll() {
        for (_, reply) in server.poll() {
            let StoreReply::Pages { pages, .. } = reply else { panic!("unasked: {reply:?}") };
            count += pages.len();
        }
    }
    count
}
