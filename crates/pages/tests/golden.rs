//! Stores of every format version, as they lie in `tests/golden`: each opens and holds what was
//! put into it. `cargo xtask golden` writes the ones of the present version anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use tidelog_disk::{CrashDevice, Disk, StoreFiles};
use tidelog_pages::{
    Append, OpenError, PageServer, RequestId, StorageEntry, StoreOptions, StoreReply, StoreRequest,
    Ticket, TimelineFrame,
};
use tidelog_testing::store::{OWNER, changes, files, open, open_document, open_with, seed, settle};
use tidelog_types::limits::{EXTENT_PAGES, PAGE_SIZE};
use tidelog_types::{
    CallId, Chain, DocumentKey, Epoch, JournalId, Life, Lsn, LsnRange, Page, PageSet, Pgid,
    Position,
};

const VERSION: u32 = 1;
const SECTOR: usize = 512;
/// The sectors of a header, in log files as in the page file.
const HEADERS_AT: [usize; 2] = [0, 4096];

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
    let position = Position {
        journal: JournalId([2; 16]),
        life: Life([4; 16]),
        next: lsn(end),
        chain: Chain([end as u8; 32]),
    };
    let pages = pages.iter().map(|(pgid, fill)| (Pgid(*pgid), page(*fill))).collect();
    let calls = vec![(CallId([200 + start as u8; 16]), lsn(start))];
    let range = LsnRange::new(lsn(start), lsn(end));
    StorageEntry { range, position, calls, set: PageSet { db_pages, pages } }
}

/// Every kind of frame, in copied state and behind it, and a document that is gone.
fn write_store(device: &CrashDevice) {
    let options =
        StoreOptions { log_size_max: 44 * 1024, pool_pages_max: 8, ..StoreOptions::default() };
    let mut server = open_with(device, options);
    server.serve(OWNER, StoreRequest::Hello { epoch: Epoch(0), life: Life([1; 16]) });
    server.flush();
    assert_eq!(settle(&mut server, device), [StoreReply::Ready { epoch: Epoch(1) }]);
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
    // The last with a difference from the version before it, and one from zeros.
    groceries.storage = vec![entry(40, 41, 4, &[(2, 22), (4, 24)]), entry(41, 42, 5, &[])];
    groceries.storage[1].set.pages = changed_pages().into();
    serve(append, groceries);
}

fn changed_pages() -> [(Pgid, Page); 2] {
    [(Pgid(4), page(24).with(1000, b"changed")), (Pgid(5), Page::zeroed().with(4000, b"little"))]
}

/// What every version's store holds.
fn check_content(device: &CrashDevice) {
    let mut server = open(device);
    assert_eq!(server.epoch(), Epoch(1));
    let listed = tidelog_testing::store::ask(
        &mut server,
        device,
        StoreRequest::List { request: RequestId(1) },
    );
    let documents = vec![key("filler", ""), key("groceries", "ada")];
    assert_eq!(listed, [StoreReply::Documents { request: RequestId(1), documents }]);
    let filler = open_document(&mut server, device, &key("filler", "")).expect("it is there");
    assert_eq!(filler.record, b"small");
    assert_eq!(filler.storage, None);

    let groceries = key("groceries", "ada");
    let opened = open_document(&mut server, device, &groceries).expect("it is there");
    assert_eq!(opened.record, b"notes of ada");
    let timeline = opened.timeline.expect("it was begun");
    assert_eq!(timeline.journal, JournalId([1; 16]));
    assert_eq!(timeline.frames, (5..9).map(frame).collect::<Vec<_>>());
    let position = Position {
        journal: JournalId([2; 16]),
        life: Life([4; 16]),
        next: lsn(42),
        chain: Chain([42; 32]),
    };
    assert_eq!((opened.storage, opened.db_pages), (Some(position), 5));
    let calls = [(201, 1), (202, 2), (3, 3), (4, 4), (240, 40), (241, 41)];
    let mut found = opened.calls.clone();
    found.sort_unstable();
    let mut calls = calls.map(|(call, number)| (CallId([call; 16]), lsn(number)));
    calls.sort_unstable();
    assert_eq!(found, calls);
    let set = changes(&mut server, device, &groceries, Lsn::FIRST);
    let mut pages: BTreeMap<Pgid, Page> =
        [(1, 11), (2, 22), (3, 13)].map(|(pgid, fill)| (Pgid(pgid), page(fill))).into();
    pages.extend(changed_pages());
    assert_eq!(set.pages, pages);
    let since = changes(&mut server, device, &groceries, lsn(39));
    assert_eq!(since.pages.into_keys().collect::<Vec<_>>(), [2, 3, 4, 5].map(Pgid));
}

/// Bytes without the zeros behind them.
fn used(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)]
}

/// The files of a version, which are kept without the room at their ends.
fn read_store(version: u32) -> [(&'static str, Vec<u8>); 4] {
    StoreFiles::<()>::NAMES.map(|name| {
        let mut bytes = fs::read(folder(version).join(name)).unwrap_or_default();
        if name == "pages" {
            let extent = EXTENT_PAGES as usize * PAGE_SIZE;
            bytes.resize(2 * PAGE_SIZE + (bytes.len() - 2 * PAGE_SIZE).next_multiple_of(extent), 0);
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
        assert!(
            used(&bytes) == used(&golden),
            "{name} has changed: another version, or cargo xtask golden"
        );
    }
}

#[test]
fn a_newer_version_is_refused_and_left_untouched() {
    for name in ["log-a", "log-b", "pages"] {
        let mut store = read_store(VERSION);
        let file = store.iter_mut().find(|(file, _)| *file == name).expect("one of the files");
        // Nothing is left in the one that is not in use.
        let size = file.1.len().max(2 * HEADERS_AT[1]);
        file.1.resize(size, 0);
        for at in HEADERS_AT {
            let sector = &mut file.1[at..at + SECTOR];
            // One of the log files is not in use.
            sector[..8].copy_from_slice(if name == "pages" { b"TIDEPAGE" } else { b"TIDELOG1" });
            sector[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
            let checksum = crc32c::crc32c(&sector[..SECTOR - 4]).to_le_bytes();
            sector[SECTOR - 4..].copy_from_slice(&checksum);
        }
        let device = device_of(&store);
        let error = PageServer::open(files(&device), seed(&device)).err();
        assert_eq!(error, Some(OpenError::NewerFormat { found: VERSION + 1, known: VERSION }));
        for (file, bytes) in &store {
            assert!(device.bytes_of(file).as_ref() == Some(bytes), "{file} was touched");
        }
        assert_eq!(device.unflushed_sectors(), 0, "not even with what was there");
    }
}

/// The files of a version as records of IndexedDB, which `crates/browser/FORMAT.md` draws: each
/// with its size before it.
fn blocks_of(store: &[(&'static str, Vec<u8>)]) -> Vec<u8> {
    const BLOCK_SIZE: usize = 16 * 1024;
    const SIZE: u32 = u32::MAX;
    let mut records = Vec::new();
    let mut put = |file: usize, block: u32, bytes: &[u8]| {
        records.extend_from_slice(&(8 + bytes.len() as u32).to_le_bytes());
        records.extend_from_slice(&((file as u64) << 32 | u64::from(block)).to_le_bytes());
        records.extend_from_slice(bytes);
    };
    for (file, (_, bytes)) in store.iter().enumerate().filter(|(_, (_, it))| !it.is_empty()) {
        for (number, block) in (0..).zip(bytes.chunks(BLOCK_SIZE)) {
            if block.iter().any(|byte| *byte != 0) {
                let mut block = block.to_vec();
                block.resize(BLOCK_SIZE, 0);
                put(file, number, &block);
            }
        }
        put(file, SIZE, &(bytes.len() as u64).to_le_bytes());
    }
    records
}

/// Opened by `crates/browser/tests/idb/golden.rs`, in browsers.
#[test]
fn the_golden_blocks_are_those_of_the_golden_store() {
    for version in 1..=VERSION {
        assert!(unpacked(&format!("blocks-v{version}.gz")) == blocks_of(&read_store(version)));
    }
}

fn golden_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn unpacked(name: &str) -> Vec<u8> {
    let packed = fs::read(golden_file(name)).expect("a golden file");
    let mut bytes = Vec::new();
    GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes).expect("what was packed");
    bytes
}

fn pack(name: &str, bytes: &[u8]) {
    let file = fs::File::create(golden_file(name)).expect("a folder");
    let mut packer = GzEncoder::new(file, Compression::best());
    packer.write_all(bytes).expect("room");
    packer.finish().expect("room");
}

/// Pages of an entry that is more than one frame.
const LARGE_PAGES: u32 = 300;

/// One entry of two frames with pages, and of one behind them.
fn write_large(device: &CrashDevice) {
    let (mut server, _) = PageServer::open(files(device), seed(device)).expect("empty files");
    let pages: Vec<(u32, u8)> = (1..=LARGE_PAGES).map(|pgid| (pgid, pgid as u8)).collect();
    let mut append = Append::to(key("large", ""));
    append.begin_storage = Some(JournalId([2; 16]));
    append.storage = vec![entry(1, 2, LARGE_PAGES, &pages), entry(2, 3, LARGE_PAGES, &[(7, 77)])];
    server.serve(OWNER, StoreRequest::Append { ticket: Ticket(1), append });
    server.flush();
    assert_eq!(settle(&mut server, device), [StoreReply::Durable { ticket: Ticket(1) }]);
}

/// The log of a version with a large entry, without the room behind its end.
fn read_large(version: u32) -> Vec<u8> {
    unpacked(&format!("large-v{version}.gz"))
}

#[test]
fn an_entry_of_several_frames_of_every_version_is_read_whole() {
    for version in 1..=VERSION {
        let device = device_of(&[("log-a", read_large(version))]);
        let mut server = open(&device);
        let set = changes(&mut server, &device, &key("large", ""), Lsn::FIRST);
        let fill = |pgid| if pgid == 7 { 77 } else { pgid as u8 };
        let expected = (1..=LARGE_PAGES).map(|pgid| (Pgid(pgid), page(fill(pgid))));
        assert!(set.pages == expected.collect() && set.db_pages == LARGE_PAGES);
        let since = changes(&mut server, &device, &key("large", ""), lsn(2));
        assert_eq!(since.pages.into_keys().collect::<Vec<_>>(), [Pgid(7)]);
    }
}

#[test]
fn a_large_entry_is_written_today_as_in_the_golden_log() {
    let device = CrashDevice::new();
    write_large(&device);
    let written = device.bytes_of("log-a").expect("a file");
    assert!(written == read_large(VERSION), "another version, or cargo xtask golden");
}

#[test]
fn every_kind_of_frame_is_in_the_golden_files() {
    let mut kinds = BTreeSet::new();
    let [(_, log_a), (_, log_b), ..] = read_store(VERSION);
    for log in [log_a, log_b, read_large(VERSION)] {
        // One of them is not in use any more, and nothing is left in it.
        let Some(salt) = log.get(40..44).map(<[u8]>::to_vec) else { continue };
        let frames = log[8192..].windows(13).step_by(8).filter(|it| it.starts_with(&salt));
        kinds.extend(frames.map(|frame| frame[12]));
    }
    // All but the one for names that documents take from others.
    assert_eq!(kinds, (1..=16).filter(|kind| *kind != 15).collect());
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
        bytes.truncate(used(&bytes).len().next_multiple_of(PAGE_SIZE));
        fs::write(folder(VERSION).join(name), bytes).expect("room");
    }
    pack(&format!("blocks-v{VERSION}.gz"), &blocks_of(&read_store(VERSION)));
    let device = CrashDevice::new();
    write_large(&device);
    pack(&format!("large-v{VERSION}.gz"), &device.bytes_of("log-a").expect("a file"));
}
