//! Stores in folders, with documents of some size, and the raw file beside them.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidelog_disk::{NativeDisk, StoreFiles};
use tidelog_pages::{
    Append, OwnerId, PageServer, StorageEntry, StoreOptions, StoreReply, StoreRequest, Ticket,
    Urgency,
};
use tidelog_types::limits::{LOG_SIZE_MAX, PAGE_SIZE};
use tidelog_types::{Chain, DocumentKey, JournalId, LsnRange, Page, PageSet, Pgid, Position};

pub type Server = PageServer<NativeDisk>;

/// Pages in one entry of those that fill a document.
const ENTRY_PAGES: u32 = 256;

/// A folder on the disk that is built on, since memory would flush in no time.
pub fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

pub fn options(log_size_max: u64, pool_pages_max: usize) -> StoreOptions {
    StoreOptions { log_size_max, pool_pages_max }
}

/// A store that is open, and what was found in it flushed.
pub fn open_with(folder: &Path, options: StoreOptions) -> Server {
    let files = StoreFiles::in_folder(folder).expect("files");
    let (mut server, _) = PageServer::open_with(files, options).expect("a store");
    server.flush();
    drain(&mut server);
    server
}

/// Polls until there is nothing left to do.
pub fn drain(server: &mut Server) -> Vec<StoreReply> {
    let mut replies = Vec::new();
    loop {
        replies.extend(server.poll().into_iter().map(|(_, reply)| reply));
        if !server.wants_poll() {
            return replies;
        }
    }
}

/// Makes all of this durable with one flush, and counts who was told so.
pub fn commit(server: &mut Server, requests: Vec<(OwnerId, StoreRequest)>) -> usize {
    requests.into_iter().for_each(|(owner, request)| server.serve(owner, request));
    server.flush();
    let is_durable = |reply: &StoreReply| matches!(reply, StoreReply::Durable { .. });
    server.poll().iter().filter(|(_, reply)| is_durable(reply)).count()
}

fn key(name: &str) -> DocumentKey {
    DocumentKey::new(name, "").expect("a good name")
}

/// The position of a document, where a new one would begin if there is none.
fn position(server: &mut Server, name: &str) -> Position {
    server.serve(OwnerId(1), StoreRequest::Open { document: key(name) });
    let found = drain(server).into_iter().find_map(|reply| match reply {
        StoreReply::Opened { state, .. } => state.and_then(|state| state.storage),
        _ => None,
    });
    found.unwrap_or_else(|| Position::start_of(JournalId([2; 16])))
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
pub fn fill(server: &mut Server, count: u32) {
    fill_document(server, "a", count);
}

pub fn fill_document(server: &mut Server, name: &str, count: u32) {
    for append in appends(position(server, name), name, count) {
        server.serve(OwnerId(1), append);
        server.flush();
        drain(server);
    }
}

/// Appends as much as makes a log change over, and does not yet let it.
pub fn fill_until_change_over(server: &mut Server) {
    let count = (LOG_SIZE_MAX / PAGE_SIZE as u64) as u32;
    for append in appends(position(server, "a"), "a", count) {
        server.serve(OwnerId(1), append);
    }
    server.flush();
}

pub fn read(pgids: RangeInclusive<u32>) -> StoreRequest {
    let (request, urgency, document) = (1, Urgency::User, key("a"));
    StoreRequest::Read { request, urgency, document, pgids: pgids.map(Pgid).collect() }
}

/// How many of these pages are given.
pub fn read_all(server: &mut Server, pgids: RangeInclusive<u32>) -> usize {
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

/// Writes bytes at the end of a file, and flushes it.
pub struct RawFile {
    file: std::fs::File,
    end: u64,
}

impl RawFile {
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("raw");
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(path);
        Self { file: file.expect("a new file"), end: 4096 }
    }

    /// Writes bytes over those that were written first, and flushes them.
    pub fn rewrite(&mut self, bytes: &[u8]) -> Duration {
        self.end = 4096;
        self.append(bytes)
    }

    pub fn append(&mut self, bytes: &[u8]) -> Duration {
        let began = Instant::now();
        self.file.write_all_at(bytes, self.end).expect("room");
        self.file.sync_data().expect("healthy");
        self.end += bytes.len() as u64;
        began.elapsed()
    }
}
