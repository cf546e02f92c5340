//! What a store of many documents keeps in memory, and how much of that it handles at a time.
//!
//! Goal: each document costs little, at rest and while the log changes over, however much its
//! owner noted and however many of its calls are remembered; no slice of that handles all of
//! them, and no entry all pages that its document had. Method: a store on native files, and an
//! allocator that counts.

use std::alloc::System;
use std::sync::Mutex;

use cap::Cap;
use tidelog_disk::{NativeDisk, StoreFiles};
use tidelog_pages::{
    Append, OwnerId, PageServer, Seed, StorageEntry, StoreOptions, StoreReply, StoreRequest, Ticket,
};
use tidelog_types::limits::Limits;
use tidelog_types::{
    BudgetLimits, CallId, Chain, DocumentKey, JournalId, Life, Lsn, LsnRange, Page, PageSet, Pgid,
    Position,
};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const OWNER: OwnerId = OwnerId(1);
/// As many calls as are remembered of a document, and so many that they would show in memory.
const CALLS: usize = 1024;
const SOME_CALLS: usize = 128;
const RECORD_SIZE: usize = 2048;
const DOCUMENTS_PER_FLUSH: usize = 64;
/// What a document may cost at rest: its name twice, its place in two maps, where all of it is.
const DOCUMENT_SIZE_MAX: usize = 2048;
/// While the log changes over: what the old one said up to a point, and what the new one says.
const CHANGING_SIZE_MAX: usize = 3 * DOCUMENT_SIZE_MAX;
/// What a store takes without any document: buffers, windows, the pool.
const STORE_SIZE_MAX: usize = 6 * 1024 * 1024;

/// All that is allocated is counted, whoever does it.
static ALONE: Mutex<()> = Mutex::new(());

type Server = PageServer<NativeDisk>;

fn key(number: usize) -> DocumentKey {
    DocumentKey::new(&format!("document-{number}"), "").expect("a good name")
}

/// A document of one page, with so many calls.
fn append(number: usize, calls: usize) -> Append {
    let mut append = Append::to(key(number));
    let (journal, life) = (JournalId([2; 16]), Life([3; 16]));
    append.record = Some(vec![number as u8; RECORD_SIZE].into());
    append.begin_storage = Some(journal);
    let range = LsnRange::new(Lsn::FIRST, Lsn::FIRST.plus(calls as u64));
    let call = |index: usize| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(number as u64).to_le_bytes());
        id[8..].copy_from_slice(&(index as u64).to_le_bytes());
        (CallId(id), Lsn::FIRST.plus(index as u64))
    };
    let position = Position { journal, life, next: range.end(), chain: Chain::default() };
    let pages = [(Pgid(1), Page::zeroed())].into();
    let set = PageSet { db_pages: 1, pages };
    let calls = (0..calls).map(call).collect();
    append.storage = vec![StorageEntry { range, position, calls, set }];
    append
}

fn open(folder: &std::path::Path) -> Server {
    open_with(folder, StoreOptions::default())
}

fn open_with(folder: &std::path::Path, options: StoreOptions) -> Server {
    let files = StoreFiles::in_folder(folder).expect("a folder");
    PageServer::open_with(files, Seed(7), options).expect("a store").0
}

/// A store of so many documents with so many calls each, the log of which has not changed over.
fn fill(folder: &std::path::Path, documents: usize, calls: usize) {
    let options = StoreOptions { log_size_max: 1 << 40, ..StoreOptions::default() };
    let mut server = open_with(folder, options);
    for number in 0..documents {
        let append = append(number, calls);
        server.serve(OWNER, StoreRequest::Append { ticket: Ticket(1 + number as u64), append });
        if number % DOCUMENTS_PER_FLUSH == 0 {
            server.flush();
            poll(&mut server);
        }
    }
    server.flush();
    poll(&mut server);
}

/// Polls until there is nothing left to do. Gives the most that was in memory meanwhile.
fn poll(server: &mut Server) -> usize {
    let mut most = ALLOCATOR.allocated();
    loop {
        drop(server.poll());
        most = most.max(ALLOCATOR.allocated());
        if !server.wants_poll() {
            return most;
        }
    }
}

/// Fills a store with so many documents, and gives what all take at rest, and while the log
/// changes over.
fn measure(documents: usize, calls: usize) -> (usize, usize) {
    let folder = tempfile::tempdir().expect("a folder");
    fill(folder.path(), documents, calls);
    let before = ALLOCATOR.allocated();
    let mut server = open(folder.path());
    poll(&mut server);
    let opened = ALLOCATOR.allocated() - before;
    // It grows until it changes over.
    let mut most = 0;
    for ticket in 0.. {
        let mut append = Append::to(key(0));
        append.record = Some(vec![ticket as u8; 1024 * 1024].into());
        let before_it = generation(&server);
        server.serve(OWNER, StoreRequest::Append { ticket: Ticket(1 + ticket), append });
        server.flush();
        most = most.max(poll(&mut server) - before);
        if generation(&server) != before_it {
            break;
        }
    }
    for number in [0, documents / 2, documents - 1] {
        server.serve(OWNER, StoreRequest::Open { document: key(number) });
        let replies = server.poll();
        let [(_, StoreReply::Opened { state: Some(state), .. })] = replies.as_slice() else {
            panic!("{replies:?}");
        };
        assert_eq!(state.calls.len(), calls);
        assert!(number == 0 || *state.record == vec![number as u8; RECORD_SIZE]);
    }
    println!("{documents} documents: {opened} bytes at rest, {most} at most in a change-over");
    (opened, most)
}

fn generation(server: &Server) -> String {
    let text = server.to_string();
    let generation = text.split_once("generation ").and_then(|(_, rest)| rest.split(' ').next());
    generation.expect("a server says which log is in use").to_owned()
}

fn check(documents: usize, calls: usize) {
    let _alone = ALONE.lock();
    let (opened, most) = measure(documents, calls);
    assert!(opened < STORE_SIZE_MAX + documents * DOCUMENT_SIZE_MAX);
    assert!(most < STORE_SIZE_MAX + documents * CHANGING_SIZE_MAX);
}

#[test]
fn a_document_costs_little_however_much_is_noted_of_it() {
    check(1000, CALLS);
}

#[test]
fn ten_thousand_documents_cost_little() {
    check(10_000, SOME_CALLS);
}

/// The most bytes that one poll takes or gives back while so many documents change over.
fn most_of_a_poll(documents: usize) -> usize {
    let folder = tempfile::tempdir().expect("a folder");
    fill(folder.path(), documents, CALLS);
    let limits = Limits { slice: BudgetLimits::SMALLEST, ..Limits::DEFAULT };
    let options = StoreOptions { log_size_max: 1, limits, ..StoreOptions::default() };
    let mut server = open_with(folder.path(), options);
    let before = generation(&server);
    let mut most = 0;
    while server.wants_poll() {
        let (held, taken) = (ALLOCATOR.allocated(), ALLOCATOR.total_allocated());
        drop(server.poll());
        let taken = ALLOCATOR.total_allocated() - taken;
        let given_back = (held + taken) - ALLOCATOR.allocated();
        most = most.max(taken.max(given_back));
    }
    assert!(generation(&server) != before, "it has changed over");
    most
}

#[test]
fn no_poll_of_a_change_over_handles_more_memory_in_a_larger_store() {
    let _alone = ALONE.lock();
    // A chunk of the other log, and the zeros behind it, in a buffer that grows by doubling.
    let most_max = 4 * 1024 * 1024;
    for documents in [100, 800] {
        let most = most_of_a_poll(documents);
        println!("{documents} documents: {most} bytes at most in one poll");
        assert!(most < most_max, "{most} bytes of {documents} documents");
    }
}

/// An entry that leaves the document so many pages, of which it brings some.
fn resize(nth: u64, db_pages: u32, pages: std::ops::RangeInclusive<u32>) -> Append {
    let mut append = Append::to(key(0));
    let range = LsnRange::one(Lsn::FIRST.plus(nth));
    let (journal, life) = (JournalId([2; 16]), Life([3; 16]));
    append.begin_storage = (nth == 0).then_some(journal);
    let position = Position { journal, life, next: range.end(), chain: Chain::default() };
    let pages = pages.map(|pgid| (Pgid(pgid), Page::zeroed())).collect();
    append.storage =
        vec![StorageEntry { range, position, calls: vec![], set: PageSet { db_pages, pages } }];
    append
}

/// The bytes that are allocated for each of these entries, one after the other, of a document that
/// has so many pages before.
fn taken_by_entries(db_pages: u32, sizes: &[u32]) -> Vec<usize> {
    let folder = tempfile::tempdir().expect("a folder");
    let options = StoreOptions { log_size_max: 1 << 40, ..StoreOptions::default() };
    let mut server = open_with(folder.path(), options);
    let mut taken = Vec::new();
    let first = resize(0, db_pages, 1..=db_pages);
    let later = (1..).zip(sizes).map(|(nth, db_pages)| resize(nth, *db_pages, 1..=1));
    for (ticket, append) in (1..).zip(std::iter::once(first).chain(later)) {
        let before = ALLOCATOR.total_allocated();
        server.serve(OWNER, StoreRequest::Append { ticket: Ticket(ticket), append });
        server.flush();
        poll(&mut server);
        taken.push(ALLOCATOR.total_allocated() - before);
    }
    taken.split_off(1)
}

/// Goal: pages that a document has lost are no work for each of its later entries, though they are
/// in its page table until the next change-over. Method: a document loses few pages or many, and
/// then goes on, smaller by none or by some in each entry.
#[test]
fn pages_that_are_gone_are_handled_once() {
    const LATER: usize = 64;
    let _alone = ALONE.lock();
    for step in [0, 4] {
        let sizes: Vec<u32> = (0..LATER as u32).map(|nth| 4 * LATER as u32 - step * nth).collect();
        let [few, many] = [300, 8_000].map(|db_pages| {
            let taken = taken_by_entries(db_pages, &sizes);
            taken[1..].iter().sum::<usize>() / (LATER - 1)
        });
        println!("an entry takes {few} bytes where few pages are gone, {many} where many are");
        assert!(many < few + 1024, "{many} bytes instead of {few}");
    }
}
