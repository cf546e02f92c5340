//! Stores of every format version, as they lie in `tests/golden`: each opens and holds what was
//! put into it. `cargo xtask golden` writes the ones of the present version anew.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{OWNER, changes, files, open, open_document, settle};
use tidelog_disk::{CrashDevice, Disk, StoreFiles};
use tidelog_pages::{
    Append, OpenError, PageServer, StorageEntry, StoreOptions, StoreReply, StoreRequest, Ticket,
    TimelineFrame,
};
use tidelog_types::limits::{EXTENT_PAGES, PAGE_SIZE};
use tidelog_types::{
    CallId, Chain, DocumentKey, Epoch, JournalId, Lsn, LsnRange, Page, PageSet, Pgid, Position,
};

const VERSION: u32 = 1;
const SECTOR: usize = 512;
/// The sectors of a header, in log files as in the page file.
const HEADERS_AT: [usize; 2] = [0, 2048];

fn folder(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/golden/store-v{version}"))
}

fn key(name: &str, user: &str) -> DocumentKey {
    DocumentKey::new(name, user).expect("a good name")
}

fn lsn(number: u64) -> Lsn {
    Lsn::new(number).expect("from 1")
}

fn page(fill: u8) -> Page {
    Page::new(&[fill; PAGE_SIZE]).expect("the size of a page")
}

fn frame(number: u64) -> TimelineFrame {
    let body = format!("mutation {number}").into_bytes();
    TimelineFrame { lsn: lsn(number), call: CallId([number as u8; 16]), body }
}

/// An entry for `start..end` whose pages hold nothing but the number `fill`.
fn entry(start: u64, end: u64, db_pages: u32, pages: &[(u32, u8)]) -> StorageEntry {
    let position =
        Position { journal: JournalId([2; 16]), next: lsn(end), chain: Chain([end as u8; 32]) };
    let pages = pages.iter().map(|(pgid, fill)| (Pgid(*pgid), page(*fill))).collect();
    let calls = vec![(CallId([200 + start as u8; 16]), lsn(start))];
    let range = LsnRange::new(lsn(start), lsn(end));
    StorageEntry { range, position, calls, set: PageSet { db_pages, pages } }
}

/// Every kind of frame, in copied state and behind it, and a document that is gone.
fn write_store(device: &CrashDevice) {
    let options =
        StoreOptions { log_size_max: 24 * 1024, pool_pages_max: 8, ..StoreOptions::default() };
    let (mut server, _) = PageServer::open_with(files(device), options).expect("empty files");
    server.serve(OWNER, StoreRequest::Hello { epoch: Epoch(7) });
    server.flush();
    assert_eq!(settle(&mut server, device), [StoreReply::Ready { epoch: Epoch(7) }]);
    let mut ticket = 0;
    let mut serve = |request: fn(Ticket, Append) -> StoreRequest, append: Append| {
        ticket += 1;
        server.serve(OWNER, request(Ticket(ticket), append));
        server.flush();
        let replies = settle(&mut server, device);
        assert_eq!(replies, [StoreReply::Durable { ticket: Ticket(ticket) }]);
    };
    let append = |ticket, append| StoreRequest::Append { ticket, append };
    let destroy = |ticket, of: Append| StoreRequest::Destroy { ticket, document: of.document };

    let mut groceries = Append::to(key("groceries", "ada"));
    groceries.record = Some(b"notes of ada".to_vec().into());
    groceries.begin_timeline = Some((JournalId([1; 16]), lsn(3)));
    groceries.timeline = (3..8).map(frame).collect();
    groceries.begin_storage = Some(JournalId([2; 16]));
    groceries.storage = vec![entry(1, 2, 2, &[(1, 11), (2, 12)]), entry(2, 40, 3, &[(3, 13)])];
    serve(append, groceries);
    serve(append, Append::to(key("gone", "")));
    let mut filler = Append::to(key("filler", ""));
    filler.record = Some(vec![b'f'; 9000].into());
    // The log changes over here.
    serve(append, filler.clone());
    filler.record = Some(b"small".to_vec().into());
    serve(append, filler);
    serve(destroy, Append::to(key("gone", "")));
    let mut groceries = Append::to(key("groceries", "ada"));
    groceries.timeline = vec![frame(8)];
    groceries.trim_timeline = Some(lsn(5));
    groceries.storage = vec![entry(40, 41, 4, &[(2, 22), (4, 24)])];
    serve(append, groceries);
}

/// What every version's store holds.
fn check_content(device: &CrashDevice) {
    let mut server = open(device);
    assert_eq!(server.epoch(), Epoch(7));
    let listed = common::ask(&mut server, device, StoreRequest::List { request: 1 });
    let documents = vec![key("filler", ""), key("groceries", "ada")];
    assert_eq!(listed, [StoreReply::Documents { request: 1, documents }]);
    let filler = open_document(&mut server, device, &key("filler", "")).expect("it is there");
    assert_eq!(filler.record, b"small");
    assert_eq!(filler.storage, None);

    let groceries = key("groceries", "ada");
    let opened = open_document(&mut server, device, &groceries).expect("it is there");
    assert_eq!(opened.record, b"notes of ada");
    let timeline = opened.timeline.expect("it was begun");
    assert_eq!(timeline.journal, JournalId([1; 16]));
    assert_eq!(timeline.frames, (5..9).map(frame).collect::<Vec<_>>());
    let position = Position { journal: JournalId([2; 16]), next: lsn(41), chain: Chain([41; 32]) };
    assert_eq!((opened.storage, opened.db_pages), (Some(position), 4));
    let calls = [(201, 1), (202, 2), (3, 3), (4, 4), (240, 40)];
    let mut found = opened.calls.clone();
    found.sort_unstable();
    let mut calls = calls.map(|(call, number)| (CallId([call; 16]), lsn(number)));
    calls.sort_unstable();
    assert_eq!(found, calls);
    let set = changes(&mut server, device, &groceries, Lsn::FIRST);
    let pages = [(1, 11), (2, 22), (3, 13), (4, 24)];
    assert_eq!(set.pages, pages.map(|(pgid, fill)| (Pgid(pgid), page(fill))).into());
    let since = changes(&mut server, device, &groceries, lsn(39));
    assert_eq!(since.pages.into_keys().collect::<Vec<_>>(), [Pgid(2), Pgid(3), Pgid(4)]);
}

/// The files of a version; the page file is kept without the empty end of its last extent.
fn read_store(version: u32) -> [(&'static str, Vec<u8>); 4] {
    StoreFiles::<()>::NAMES.map(|name| {
        let mut bytes = fs::read(folder(version).join(name)).unwrap_or_default();
        if name == "pages" {
            let extent = EXTENT_PAGES as usize * PAGE_SIZE;
            bytes.resize(PAGE_SIZE + (bytes.len() - PAGE_SIZE).next_multiple_of(extent), 0);
        }
        (name, bytes)
    })
}

fn device_of(store: &[(&'static str, Vec<u8>)]) -> CrashDevice {
    let device = CrashDevice::new();
    for (name, bytes) in store {
        let mut file = device.file(name);
        file.write_at(0, bytes).expect("room");
        file.request_flush().expect("healthy");
    }
    device
}

#[test]
fn the_store_of_every_version_opens_and_holds_what_was_put_into_it() {
    for version in 1..=VERSION {
        check_content(&device_of(&read_store(version)));
    }
}

#[test]
fn what_is_written_today_is_the_golden_store_byte_for_byte() {
    let device = CrashDevice::new();
    write_store(&device);
    for (name, golden) in read_store(VERSION) {
        let bytes = device.bytes_of(name).expect("a file");
        assert!(bytes == golden, "{name} has changed: another version, or cargo xtask golden");
    }
}

#[test]
fn a_newer_version_is_refused_and_left_untouched() {
    for name in ["log-a", "log-b", "pages"] {
        let mut store = read_store(VERSION);
        let file = store.iter_mut().find(|(file, _)| *file == name).expect("one of the files");
        for at in HEADERS_AT {
            let sector = &mut file.1[at..at + SECTOR];
            sector[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
            let checksum = crc32c::crc32c(&sector[..SECTOR - 4]).to_le_bytes();
            sector[SECTOR - 4..].copy_from_slice(&checksum);
        }
        let device = device_of(&store);
        let error = PageServer::open(files(&device)).err();
        assert_eq!(error, Some(OpenError::NewerFormat { found: VERSION + 1, known: VERSION }));
        for (file, bytes) in &store {
            assert!(device.bytes_of(file).as_ref() == Some(bytes), "{file} was touched");
        }
        assert_eq!(device.unflushed_sectors(), 0, "not even with what was there");
    }
}

/// Run by `cargo xtask golden`.
#[test]
#[ignore = "writes the golden files of the present version anew"]
fn write_the_golden_store() {
    let device = CrashDevice::new();
    write_store(&device);
    check_content(&device);
    fs::create_dir_all(folder(VERSION)).expect("a folder");
    for name in StoreFiles::<()>::NAMES {
        let mut bytes = device.bytes_of(name).expect("a file");
        if name == "pages" {
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            bytes.truncate(used.next_multiple_of(PAGE_SIZE));
        }
        fs::write(folder(VERSION).join(name), bytes).expect("room");
    }
}
