//! What one call of a page server costs at most.
//!
//! Goal: no poll does work in proportion to the documents, the pages or the log of a store, and no
//! append is put together in memory, whatever its size. Method: disks that count their calls and
//! bytes, and slices of one piece of work.

use std::cell::Cell;
use std::ops::RangeInclusive;
use std::rc::Rc;

use tidelog_disk::{
    BLOCK_SIZE, CrashDevice, CrashDisk, Disk, DiskError, DiskFault, FlushId, StoreFiles,
};
use tidelog_journal::FRAME_HEADER_SIZE_MAX;
use tidelog_pages::{
    Append, AppendError, OwnerId, PageServer, RequestId, StagedPage, StorageEntry, StoreOptions,
    StoreReply, StoreRequest, Ticket, TimelineFrame,
};
use tidelog_testing::store::make::{
    self, durable, entry, frame, key, lsn, page, read_of, request, storage,
};
use tidelog_testing::store::{OWNER, poll_all, seed};
use tidelog_types::limits::{Limits, PAGE_SIZE};
use tidelog_types::{BudgetLimits, CallId, Lsn, Page, Pgid};

/// What was asked of all files of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    calls: u64,
    read: u64,
    /// Bytes that were read at once.
    read_max: u64,
    written: u64,
    /// Blocks that a device writes as one.
    blocks: u64,
    flushes: u64,
}

#[derive(Debug)]
struct Counted {
    disk: CrashDisk,
    counts: Rc<Cell<Counts>>,
}

impl Counted {
    fn count(&self, read: usize, written: usize) {
        let mut counts = self.counts.get();
        counts.calls += 1;
        counts.read += read as u64;
        counts.read_max = counts.read_max.max(read as u64);
        counts.written += written as u64;
        self.counts.set(counts);
    }
}

impl Disk for Counted {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.count(buf.len(), 0);
        self.disk.read_at(offset, buf)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        // Without the zeros that are written ahead, which no work was done for.
        let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        self.count(0, written);
        let mut counts = self.counts.get();
        let end = offset + written as u64;
        counts.blocks += end.div_ceil(BLOCK_SIZE as u64) - offset / BLOCK_SIZE as u64;
        self.counts.set(counts);
        self.disk.write_at(offset, bytes)
    }

    fn set_size(&mut self, size: u64) -> Result<(), DiskError> {
        self.count(0, 0);
        self.disk.set_size(size)
    }

    fn request_flush(&mut self) -> Result<FlushId, DiskError> {
        self.count(0, 0);
        self.counts.set(Counts { flushes: self.counts.get().flushes + 1, ..self.counts.get() });
        self.disk.request_flush()
    }

    fn flushed(&mut self) -> Result<Option<FlushId>, DiskError> {
        self.disk.flushed()
    }
}

struct Store {
    server: PageServer<Counted>,
    counts: Rc<Cell<Counts>>,
    device: CrashDevice,
}

impl Store {
    fn open(device: &CrashDevice, options: StoreOptions) -> Self {
        let counts = Rc::<Cell<Counts>>::default();
        let open = |name| {
            let disk = device.file(name);
            Ok::<_, ()>(Counted { disk, counts: counts.clone() })
        };
        let files = StoreFiles::open_each(open).expect("no errors");
        let (server, _) = PageServer::open_with(files, seed(device), options).expect("a store");
        Self { server, counts, device: device.clone() }
    }

    /// What something costs.
    fn cost<A>(&mut self, work: impl FnOnce(&mut PageServer<Counted>) -> A) -> (A, Counts) {
        let before = Counts { read_max: 0, ..self.counts.get() };
        self.counts.set(before);
        let answer = work(&mut self.server);
        let after = self.counts.get();
        let (calls, read) = (after.calls - before.calls, after.read - before.read);
        let (written, blocks) = (after.written - before.written, after.blocks - before.blocks);
        let flushes = after.flushes - before.flushes;
        (answer, Counts { calls, read, read_max: after.read_max, written, blocks, flushes })
    }

    fn settle(&mut self) -> Vec<StoreReply> {
        poll_all(&mut self.server)
    }

    fn shown(&self, what: &str) -> u64 {
        let text = self.server.to_string();
        let number = text.split(what).nth(1).and_then(|rest| rest.trim().split(' ').next());
        number.and_then(|number| number.parse().ok()).expect("it is displayed")
    }
}

/// A document with notes, three mutations that are not confirmed, and a page.
fn document(number: u64) -> Append {
    let mut append = storage(&format!("document-{number}"), [entry(1, 2, 1, &[(1, 7)])]);
    append.begin_timeline = Some((make::TIMELINE, Lsn::FIRST));
    let call =
        |it: u64| CallId(std::array::from_fn(|at| (number.to_le_bytes()[at % 8]) ^ it as u8));
    append.timeline = (1..=3).map(|it| TimelineFrame { call: call(it), ..frame(it) }).collect();
    append.record = Some(vec![3; 900].into());
    append
}

/// The most that one poll costs while a store of so many documents changes over.
fn most_of_a_change_over(documents: u64) -> Counts {
    let device = CrashDevice::new();
    let options = StoreOptions { log_size_max: 1 << 30, ..StoreOptions::default() };
    let mut store = Store::open(&device, options);
    for number in 1..=documents {
        store.server.serve(OWNER, request(number, document(number)));
    }
    store.server.flush();
    store.settle();
    drop(store);
    let limits = Limits { slice: BudgetLimits::SMALLEST, ..Limits::DEFAULT };
    let options = StoreOptions { log_size_max: 1, limits, ..StoreOptions::default() };
    let mut store = Store::open(&device, options);
    let mut most = Counts::default();
    let mut polls = 0;
    while store.server.wants_poll() {
        let ((), cost) = store.cost(|server| drop(server.poll()));
        most.calls = most.calls.max(cost.calls);
        most.read = most.read.max(cost.read);
        most.written = most.written.max(cost.written);
        polls += 1;
    }
    assert_eq!(store.shown("generation "), 2, "it has changed over");
    assert!(polls > documents, "in {polls} slices");
    assert_eq!(store.shown("documents "), documents);
    most
}

#[test]
fn no_poll_of_a_change_over_does_more_for_a_larger_store() {
    for documents in [300, 1200] {
        let most = most_of_a_change_over(documents);
        assert!(most.calls <= 8, "of {documents} documents: {most:?}");
        assert!(most.read <= 2 * PAGE_SIZE as u64, "of {documents} documents: {most:?}");
        // The other log is written in chunks.
        assert!(most.written <= 280 * 1024, "of {documents} documents: {most:?}");
    }
}

/// Goal: a burst of appends amid a change-over takes no memory of its size. Method: as a log is
/// read, more is appended to it than anybody has in memory at once, before it is read on.
#[test]
fn what_is_appended_amid_a_change_over_is_not_read_at_once() {
    let device = CrashDevice::new();
    let options = StoreOptions { log_size_max: 2 << 20, ..StoreOptions::default() };
    let mut store = Store::open(&device, options);
    let pages: Vec<_> = (1..=250).map(|pgid| (pgid, 7)).collect();
    let mut ticket = 0;
    let mut append = |store: &mut Store, count: u64| {
        for _ in 0..count {
            ticket += 1;
            let large = storage(&format!("large-{ticket}"), [entry(1, 2, 250, &pages)]);
            store.server.serve(OWNER, request(ticket, large));
        }
    };
    append(&mut store, 4);
    store.server.flush();
    store.server.poll();
    let before = store.shown("generation ");
    append(&mut store, 16);
    store.server.flush();
    let mut most = 0;
    while store.shown("generation ") == before {
        assert!(store.server.wants_poll(), "it changes over");
        let ((), cost) = store.cost(|server| drop(server.poll()));
        most = most.max(cost.read_max);
    }
    assert!(most > 256 * 1024, "much is read for what was appended: {most}");
    assert!(most <= 1024 * 1024, "{most} bytes at once");
}

/// Goal: no poll of a change-over does more for a larger document. Method: one of pages in the log,
/// and slices of one piece of work: as many polls as it has pages do without any disk.
#[test]
fn the_page_table_of_a_large_document_is_checkpointed_in_slices() {
    let device = CrashDevice::new();
    let limits = Limits { slice: BudgetLimits::SMALLEST, ..Limits::DEFAULT };
    let mut store = Store::open(&device, StoreOptions::default());
    store.server.serve(OWNER, request(1, large(9)));
    store.server.flush();
    store.settle();
    drop(store);
    let options = StoreOptions { log_size_max: 1, limits, ..StoreOptions::default() };
    let mut store = Store::open(&device, options);
    let mut in_memory = 0;
    while store.server.wants_poll() {
        let ((), cost) = store.cost(|server| drop(server.poll()));
        in_memory += u32::from(cost == Counts::default());
    }
    assert_eq!(store.shown("generation "), 2, "it has changed over");
    assert!(in_memory > PAGES, "{in_memory} polls");
}

/// Goal: what owners note takes memory only while it is asked for. Method: a document with notes
/// and the calls of many entries, in a store that has changed over; each opening reads all of it
/// again.
#[test]
fn records_and_calls_are_read_from_the_log_each_time_they_are_asked_for() {
    const RECORD_SIZE: u64 = 100_000;
    const CALLS: u64 = 500;
    let device = CrashDevice::new();
    let mut store = Store::open(&device, StoreOptions::default());
    let entries = (1..=CALLS).map(|at| {
        let calls = vec![(CallId(u128::from(at).to_be_bytes()), lsn(at))];
        StorageEntry { calls, ..entry(at, at + 1, 1, &[(1, 7)]) }
    });
    let mut append = storage("noted", entries);
    append.record = Some(vec![3; RECORD_SIZE as usize].into());
    store.server.serve(OWNER, request(1, append));
    store.server.flush();
    store.settle();
    drop(store);
    let options = StoreOptions { log_size_max: 1, ..StoreOptions::default() };
    let mut store = Store::open(&device, options);
    store.settle();
    assert_eq!(store.shown("generation "), 2, "it has changed over");
    for _ in 0..2 {
        let (replies, cost) = store.cost(|server| {
            server.serve(READER, StoreRequest::Open { document: key("noted") });
            server.poll()
        });
        let [(_, StoreReply::Opened { state: Some(state), .. })] = &replies[..] else {
            panic!("{replies:?}");
        };
        let found = (state.record.len() as u64, state.calls.len() as u64);
        assert_eq!(found, (RECORD_SIZE, CALLS));
        assert!(cost.read > RECORD_SIZE + 16 * CALLS, "{cost:?}");
    }
}

/// Goal: no poll does more for a longer log when an append finds no room. Method: many documents,
/// and as many more as the device has room for.
#[test]
fn what_finds_no_room_is_taken_back_in_slices() {
    let device = CrashDevice::new();
    let limits = Limits { slice: BudgetLimits::SMALLEST, ..Limits::DEFAULT };
    let options = StoreOptions { log_size_max: 1 << 30, limits, ..StoreOptions::default() };
    let mut store = Store::open(&device, options);
    for number in 1..=300 {
        store.server.serve(OWNER, request(number, document(number)));
    }
    store.server.flush();
    store.settle();
    device.set_capacity(Some(device.used()));
    let (mut number, mut most, mut replies) = (301, Counts::default(), Vec::new());
    let is_refused = |reply: &StoreReply| matches!(reply, StoreReply::AppendFailed { .. });
    while !replies.iter().any(is_refused) {
        store.server.serve(OWNER, request(number, document(number)));
        store.server.flush();
        replies.clear();
        while replies.is_empty() {
            let (polled, cost) = store.cost(PageServer::poll);
            most.calls = most.calls.max(cost.calls);
            most.read = most.read.max(cost.read);
            replies.extend(polled.into_iter().map(|(_, reply)| reply));
        }
        number += 1;
    }
    assert!(most.calls <= 8, "{most:?}");
    assert!(most.read <= 2 * PAGE_SIZE as u64, "{most:?}");
    assert_eq!(store.shown("documents "), number - 2, "the last of them is not there");
}

/// Goal: no poll does more the more is carried out beside something that finds no room. Method:
/// many documents are destroyed in the same write as one is begun, which fails; the log is read
/// again once.
#[test]
fn what_is_spared_beside_what_finds_no_room_is_carried_out_in_slices() {
    const GONE: u64 = 240;
    let device = CrashDevice::new();
    let slice = BudgetLimits { bytes: BLOCK_SIZE as u64, ..Limits::DEFAULT.slice };
    let limits = Limits { slice, ..Limits::DEFAULT };
    let options = StoreOptions { log_size_max: 1 << 30, limits, ..StoreOptions::default() };
    let mut store = Store::open(&device, options);
    for number in 1..=300 {
        store.server.serve(OWNER, request(number, document(number)));
    }
    store.server.flush();
    store.settle();
    let size = store.shown("size ");
    for gone in 1..=GONE {
        let (ticket, Append { document, .. }) = (Ticket(300 + gone), document(gone));
        store.server.serve(OWNER, StoreRequest::Destroy { ticket, document });
    }
    let mut notes = Append::to(key("new"));
    notes.record = Some(b"notes".to_vec().into());
    store.server.serve(READER, request(1, notes));
    device.fail_call(device.calls() + 1, DiskFault::Full);
    store.server.flush();
    let (mut most, mut all, mut replies) = (Counts::default(), Counts::default(), Vec::new());
    while store.server.is_behind() {
        let (polled, cost) = store.cost(PageServer::poll);
        most.calls = most.calls.max(cost.calls);
        most.written = most.written.max(cost.written);
        all.read += cost.read;
        replies.extend(polled);
    }
    replies.extend(store.settle().into_iter().map(|reply| (OWNER, reply)));
    assert!(most.calls <= 8 && most.written <= 2 * BLOCK_SIZE as u64, "{most:?}");
    assert!(all.read < 2 * size, "{all:?} of {size}");
    let (ticket, error) = (Ticket(1), AppendError::Full);
    assert!(replies.contains(&(READER, StoreReply::AppendFailed { ticket, error })), "{replies:?}");
    assert!(replies.contains(&(OWNER, durable(300 + GONE))), "{replies:?}");
    assert_eq!(store.shown("documents "), 300 - GONE);
}

const PAGES: u32 = 96;
const READER: OwnerId = OwnerId(2);

/// Four pages a slice, two in each frame.
fn in_slices() -> StoreOptions {
    let slice = BudgetLimits { pages: 4, ..Limits::DEFAULT.slice };
    let limits = Limits { slice, frame_pages_max: 2, read_chunk_pages: 1, ..Limits::DEFAULT };
    StoreOptions { log_buffer_size_max: 8 * 1024, limits, ..StoreOptions::default() }
}

fn large(fill: u8) -> Append {
    let pages: Vec<(u32, u8)> = (1..=PAGES).map(|pgid| (pgid, fill)).collect();
    storage("large", [entry(1, 2, PAGES, &pages)])
}

fn fills(replies: &[(OwnerId, StoreReply)]) -> Vec<u8> {
    fills_of(replies.iter().map(|(_, reply)| reply))
}

fn fills_of<'a>(replies: impl IntoIterator<Item = &'a StoreReply>) -> Vec<u8> {
    let pages = replies.into_iter().filter_map(|reply| match reply {
        StoreReply::Pages { pages, .. } => Some(pages),
        _ => None,
    });
    pages.flatten().map(|(_, page)| page.bytes()[0]).collect()
}

#[test]
fn a_large_append_is_recorded_in_slices_while_earlier_reads_are_served() {
    let mut store = Store::open(&CrashDevice::new(), in_slices());
    let small: Vec<(u32, u8)> = (1..=20).map(|pgid| (pgid, 1)).collect();
    store.server.serve(OWNER, request(1, storage("small", [entry(1, 2, 20, &small)])));
    store.server.flush();
    store.settle();
    store.server.serve(READER, read_of(1, "small", 1..=20));
    let slice_max = (4 + 2) * (PAGE_SIZE as u64 + 200);
    let ((), cost) = store.cost(|server| server.serve(OWNER, request(2, large(9))));
    assert!(cost.written < slice_max, "{cost:?}");
    // It waits, and so is told of all of it.
    store.server.serve(READER, read_of(2, "large", [1, PAGES]));
    store.server.flush();
    let (mut polls, mut earlier, mut later, mut durable_at) = (0, 0, Vec::new(), 0);
    while store.server.wants_poll() {
        let (replies, cost) = store.cost(PageServer::poll);
        assert!(cost.written < slice_max, "poll {polls}: {cost:?}");
        polls += 1;
        let read = fills(&replies);
        earlier += read.iter().filter(|fill| **fill == 1).count();
        if polls == 5 {
            assert!(earlier > 0, "a read that was asked for before is served meanwhile");
        }
        later.extend(read.into_iter().filter(|fill| *fill != 1));
        if replies.contains(&(OWNER, durable(2))) {
            durable_at = polls;
        }
    }
    assert!(durable_at > PAGES as usize / 4 - 2, "after {durable_at} of {polls} polls");
    assert_eq!((earlier, later), (20, vec![9, 9]));
    let mut store = Store::open(&store.device, in_slices());
    store.server.serve(READER, read_of(3, "large", 1..=PAGES));
    assert_eq!(store.settle().len(), PAGES as usize, "and it is there");
}

/// Goal: a read of pages of which each lies in many pieces is served by its pieces. Method: eight
/// pages that each of twenty entries changed a little, from a store that was opened anew.
#[test]
fn pages_in_many_pieces_are_read_in_slices() {
    const PIECES: u64 = 20;
    let limits = Limits { read_chunk_pages: 8, ..Limits::DEFAULT };
    let options = || StoreOptions { log_size_max: 1 << 24, limits, ..StoreOptions::default() };
    let row = |number: u64| Page::new(&[0xC5; PAGE_SIZE]).expect("a page").with(8, &[number as u8]);
    let mut store = Store::open(&CrashDevice::new(), options());
    for at in 1..=PIECES {
        let mut entry = entry(at, at + 1, 8, &[]);
        entry.set.pages = (1..=8).map(|pgid| (Pgid(pgid), row(at))).collect();
        store.server.serve(OWNER, request(at, storage("a", [entry])));
        store.server.flush();
        store.settle();
    }
    let mut store = Store::open(&store.device, options());
    store.server.serve(READER, read_of(1, "a", 1..=8));
    let (mut most, mut pages_count) = (0, 0);
    while store.server.wants_poll() {
        let (replies, cost) = store.cost(PageServer::poll);
        most = most.max(cost.calls);
        pages_count += fills(&replies).len();
    }
    assert_eq!(pages_count, 8);
    assert!((8..2 * PIECES).contains(&most), "{most} calls in one poll");
}

/// The same of a change-over, which writes them to their slots.
#[test]
fn pages_in_many_pieces_are_checkpointed_in_slices() {
    const PIECES: u64 = 20;
    let options = |log_size_max| StoreOptions { log_size_max, ..StoreOptions::default() };
    let row = |number: u64| Page::new(&[0xC5; PAGE_SIZE]).expect("a page").with(8, &[number as u8]);
    let mut store = Store::open(&CrashDevice::new(), options(1 << 24));
    for at in 1..=PIECES {
        let mut entry = entry(at, at + 1, 64, &[]);
        entry.set.pages = (1..=64).map(|pgid| (Pgid(pgid), row(at))).collect();
        store.server.serve(OWNER, request(at, storage("a", [entry])));
        store.server.flush();
        store.settle();
    }
    let mut store = Store::open(&store.device, options(1 << 14));
    let mut costs = Vec::new();
    while store.server.wants_poll() || store.device.has_held_flushes() {
        let (_, cost) = store.cost(PageServer::poll);
        costs.push(cost);
        store.device.complete_flushes();
    }
    let calls: Vec<u64> = costs.iter().map(|cost| cost.calls).collect();
    assert!(calls.iter().sum::<u64>() > 64 * PIECES, "not all were read: {calls:?}");
    let is_bounded = |calls: &u64| *calls <= 64 + 2 * PIECES;
    assert!(calls.iter().all(is_bounded), "{calls:?} calls in each poll");
    let of_pages = costs.iter().filter(|cost| cost.calls > PIECES);
    let flushes: u64 = of_pages.map(|cost| cost.flushes).sum();
    assert_eq!(flushes, 1, "what is read is no reason to flush");
}

/// Appends of three pages of zeros each, which wait until a large one is there.
const SMALL: RangeInclusive<u64> = 2..=40;

fn small(at: u64) -> StoreRequest {
    let mut entry = entry(at - 1, at, 3, &[]);
    entry.set.pages = (1..=3).map(|pgid| (Pgid(pgid), Page::zeroed())).collect();
    request(at, storage("small", [entry]))
}

fn must_be_carried_out_in_slices(store: &mut Store) {
    store.server.flush();
    let mut polls = 0;
    while store.server.wants_poll() {
        let (replies, _) = store.cost(PageServer::poll);
        let durable =
            replies.iter().filter(|(_, reply)| matches!(reply, StoreReply::Durable { .. }));
        assert!(durable.count() <= 3, "poll {polls}");
        polls += 1;
    }
    assert!(polls >= 40 * 3 / 4, "{polls} polls");
}

/// Goal: appends that had to wait are carried out in slices of their pages, though they take few
/// bytes in the log.
#[test]
fn what_had_to_wait_is_carried_out_in_slices_of_pages() {
    let mut store = Store::open(&CrashDevice::new(), in_slices());
    store.server.serve(OWNER, request(1, large(9)));
    SMALL.for_each(|at| store.server.serve(OWNER, small(at)));
    must_be_carried_out_in_slices(&mut store);
}

/// The same of pages that are sent ahead of their append.
#[test]
fn pages_ahead_that_had_to_wait_are_carried_out_in_slices() {
    let mut store = Store::open(&CrashDevice::new(), in_slices());
    store.server.serve(OWNER, request(1, large(9)));
    let parts = SMALL.flat_map(|at| small(at).into_parts(2));
    parts.for_each(|part| store.server.serve(OWNER, part));
    must_be_carried_out_in_slices(&mut store);
}

#[test]
fn a_large_append_of_an_owner_that_went_away_stays() {
    let mut store = Store::open(&CrashDevice::new(), in_slices());
    store.server.serve(OWNER, request(1, large(9)));
    let mut notes = Append::to(key("notes"));
    notes.record = Some(vec![5; 50].into());
    store.server.serve(OWNER, request(2, notes));
    store.server.flush();
    store.server.forget_owner(OWNER);
    assert_eq!(store.settle(), [], "nobody is told");
    let mut store = Store::open(&store.device, in_slices());
    assert_eq!(store.shown("documents "), 2);
    store.server.serve(READER, read_of(1, "large", [PAGES]));
    let [StoreReply::Pages { pages, .. }] = &store.settle()[..] else { panic!("no page") };
    assert_eq!(pages[..], [(Pgid(PAGES), page(9))]);
}

/// Wherever a change-over waits for a flush, a large append that comes then takes little memory.
#[test]
fn a_large_append_that_comes_while_batches_are_held_waits() {
    let mut longest = 0;
    for flushes in 0..12 {
        let device = CrashDevice::new();
        let options = StoreOptions { log_size_max: 16 * 1024, ..in_slices() };
        let mut store = Store::open(&device, options);
        store.settle();
        device.hold_flushes(true);
        let mut notes = Append::to(key("notes"));
        notes.record = Some(vec![5; 20_000].into());
        store.server.serve(OWNER, request(1, notes));
        store.server.flush();
        store.settle();
        for _ in 0..flushes {
            device.complete_flushes_of_one(&mut |_| 0);
            store.settle();
        }
        let before = store.shown(" size ");
        let ((), mut cost) = store.cost(|server| {
            server.serve(OWNER, request(2, large(9)));
            server.flush();
        });
        while store.server.wants_poll() {
            let (_, more) = store.cost(|server| drop(server.poll()));
            cost.written += more.written;
            cost.blocks += more.blocks;
        }
        let written = cost.blocks * BLOCK_SIZE as u64;
        let in_memory = store.shown(" size ").saturating_sub(before + written);
        assert!(in_memory < 32 * 1024, "{in_memory} bytes after {flushes} flushes");
        longest += u64::from(cost.written == 0);
        while device.has_held_flushes() {
            device.complete_flushes();
            store.settle();
        }
        let mut store = Store::open(&device, in_slices());
        store.server.serve(READER, read_of(1, "large", [1, PAGES]));
        assert_eq!(store.settle().len(), 2, "after {flushes} flushes");
    }
    assert!(longest > 0, "batches were never held");
}

/// The first part of an entry that comes in several appends.
fn cut(fill: u8) -> Append {
    let pages: Vec<(u32, u8)> = (1..=PAGES).map(|pgid| (pgid, fill)).collect();
    let mut entry = entry(1, 2, PAGES, &pages);
    entry.calls.clear();
    Append { is_cut: true, ..storage("cut", [entry]) }
}

/// Wherever a change-over is, an append that leaves an entry cut is recorded whole before batches
/// are held, or after.
#[test]
fn an_append_that_cuts_an_entry_is_not_torn_by_a_change_over() {
    for polls in 0..80 {
        let device = CrashDevice::new();
        let options = StoreOptions { log_size_max: 16 * 1024, ..in_slices() };
        let mut store = Store::open(&device, options);
        let mut notes = Append::to(key("notes"));
        notes.record = Some(vec![5; 20_000].into());
        store.server.serve(OWNER, request(1, notes));
        store.server.flush();
        for _ in 0..polls {
            store.server.poll();
        }
        store.server.serve(OWNER, request(2, cut(9)));
        let mut end = entry(1, 2, PAGES, &[]);
        end.calls.clear();
        store.server.serve(OWNER, request(3, storage("cut", [end])));
        store.server.flush();
        store.settle();
        let mut store = Store::open(&device, in_slices());
        store.server.serve(READER, read_of(1, "cut", 1..=PAGES));
        let pages = store.settle();
        assert_eq!(pages.len(), PAGES as usize, "after {polls} polls");
    }
}

/// A host that stops says what is durable, whatever was being recorded.
#[test]
fn nothing_is_called_durable_amid_an_append() {
    let options = StoreOptions { log_buffer_size_max: 1 << 20, ..in_slices() };
    let mut store = Store::open(&CrashDevice::new(), options);
    store.server.flush();
    store.settle();
    store.server.serve(OWNER, request(1, cut(9)));
    store.server.mark_durable();
    let mut replies = Vec::new();
    while store.server.wants_poll() {
        replies.extend(store.server.poll());
        store.server.mark_durable();
    }
    assert_eq!(replies, [(OWNER, durable(1))]);
}

#[test]
fn whoever_waits_behind_an_append_is_told_that_the_server_is_broken() {
    let mut store = Store::open(&CrashDevice::new(), in_slices());
    store.server.flush();
    store.settle();
    store.server.serve(OWNER, request(1, large(9)));
    store.server.serve(READER, read_of(1, "large", [1]));
    store.server.flush();
    store.device.fail_call(store.device.calls() + 1, DiskFault::Device);
    let replies = store.server.poll();
    let told = |owner| {
        let is_told = |(to, reply): &&(OwnerId, StoreReply)| {
            *to == owner && matches!(reply, StoreReply::Broken { .. })
        };
        replies.iter().filter(is_told).count()
    };
    assert_eq!((told(OWNER), told(READER)), (1, 1), "{replies:?}");
}

/// Goal: nothing is called durable of which a part is missing. Method: an append in parts that
/// waited for another one meets a device that fails once, at each call in turn, and works again.
#[test]
fn an_append_that_failed_half_written_is_not_durable() {
    let requests = || (1..).zip(["large", "other"]);
    for nth in 0.. {
        let mut store = Store::open(&CrashDevice::new(), in_slices());
        store.server.flush();
        store.settle();
        for (ticket, name) in requests() {
            store.server.serve(OWNER, request(ticket, Append { document: key(name), ..large(9) }));
        }
        store.server.flush();
        store.device.fail_call(store.device.calls() + 1 + nth, DiskFault::Device);
        let replies = store.settle();
        let broken = replies.iter().position(|it| matches!(it, StoreReply::Broken { .. }));
        assert!(broken.is_none_or(|at| at + 1 == replies.len()), "{nth}: {replies:?}");
        let mut again = Store::open(&store.device.kill(), in_slices());
        for (ticket, name) in requests().filter(|(ticket, _)| replies.contains(&durable(*ticket))) {
            again.server.serve(OWNER, read_of(ticket, name, 1..=PAGES));
            let found = again.settle();
            assert_eq!(fills_of(&found), [9; PAGES as usize], "{nth}: {name}: {found:?}");
        }
        if replies.contains(&durable(2)) && broken.is_none() {
            assert!(nth > 10, "{nth} calls are too few to prove anything");
            break;
        }
    }
}

/// What a thousand appends cost that are made durable one by one, and by how much the log grows.
fn cost_of_a_thousand(append: impl Fn(u64) -> Append) -> (Counts, u64) {
    let options = StoreOptions { log_size_max: 1 << 30, ..StoreOptions::default() };
    let mut store = Store::open(&CrashDevice::new(), options);
    store.server.serve(OWNER, request(1, document(1)));
    store.server.flush();
    store.settle();
    let before = store.shown(" size ");
    let mut cost = Counts::default();
    for number in 0..1000 {
        let ((), more) = store.cost(|server| {
            server.serve(OWNER, request(2 + number, append(number)));
            server.flush();
        });
        assert_eq!(store.settle(), [durable(2 + number)]);
        cost.written += more.written;
        cost.blocks += more.blocks;
    }
    (cost, store.shown(" size ") - before)
}

#[test]
fn a_small_append_costs_one_block_and_new_pages_cost_as_many_as_they_are() {
    let mutation = |number: u64| {
        let mut append = Append::to(key("document-1"));
        append.timeline = vec![TimelineFrame { body: vec![7; 200], ..frame(4 + number) }];
        append
    };
    let changes = |number: u64, pages: [Page; 2]| {
        let mut entry = entry(2 + number, 3 + number, 9, &[]);
        entry.set.pages = [Pgid(1), Pgid(2)].into_iter().zip(pages).collect();
        storage("document-1", [entry])
    };
    let row = |number: u64| Page::zeroed().with(number as usize * 3, &number.to_le_bytes());
    let change = |number: u64| changes(number, [row(number), row(number + 100)]);
    let fill = |number: u64| page(1 + (number % 250) as u8);
    let replace = |number: u64| changes(number, [fill(number), fill(number + 100)]);
    let count = 1000;
    for (blocks, append) in
        [(count, &mutation as &dyn Fn(u64) -> Append), (count, &change), (3 * count, &replace)]
    {
        let (cost, grown) = cost_of_a_thousand(append);
        assert_eq!((cost.blocks, grown), (blocks, blocks * BLOCK_SIZE as u64), "{cost:?}");
    }
}

/// Where each append takes a block, a log of 4 MiB is full after a thousand of them: that makes
/// change-overs more frequent, and neither writes nor flushes many more.
#[test]
fn change_overs_cost_little_beside_the_appends_that_fill_the_log() {
    const APPENDS: u64 = 4000;
    let options = StoreOptions { log_size_max: 4 << 20, ..StoreOptions::default() };
    let device = CrashDevice::new();
    let mut store = Store::open(&device, options);
    for number in 1..=100 {
        store.server.serve(OWNER, request(number, document(number)));
    }
    store.server.flush();
    store.settle();
    let generation = || {
        let of = |name| device.bytes_of(name).expect("a file")[16..24].try_into().expect("eight");
        ["log-a", "log-b"].map(|name| u64::from_le_bytes(of(name))).into_iter().max()
    };
    let (before, generation_before) = (store.counts.get(), generation());
    for number in 0..APPENDS {
        let mut append = Append::to(key("document-1"));
        append.timeline = vec![TimelineFrame { body: vec![7; 200], ..frame(4 + number) }];
        append.trim_timeline = Some(lsn(1 + number));
        store.server.serve(OWNER, request(101 + number, append));
        store.server.flush();
        assert!(store.settle().contains(&durable(101 + number)));
    }
    let after = store.counts.get();
    let change_overs = generation().zip(generation_before).map(|(after, before)| after - before);
    let flushes = after.flushes - before.flushes;
    let blocks = after.blocks - before.blocks;
    assert_eq!(change_overs, Some(4), "one for each 4 MiB");
    assert!(flushes < APPENDS + APPENDS / 100, "{flushes} flushes");
    assert!(blocks < APPENDS + APPENDS / 8, "{blocks} blocks");
}

fn held_up(limits: Limits) -> Store {
    let options = in_slices();
    let limits = Limits { slice: options.limits.slice, frame_pages_max: 2, ..limits };
    let mut store = Store::open(&CrashDevice::new(), StoreOptions { limits, ..options });
    store.server.serve(OWNER, request(0, document(1)));
    store.server.flush();
    store.settle();
    store.server.serve(OWNER, request(1, large(9)));
    assert!(store.server.is_behind(), "it is recorded in several slices");
    store
}

#[test]
fn only_so_many_reads_of_an_owner_wait_behind_an_append() {
    let limits = Limits { owner_reads_max: 3, owner_read_pages_max: 4, ..Limits::DEFAULT };
    let busy = |request| (READER, StoreReply::Busy { request, document: key("large") });
    let mut store = held_up(limits);
    for request in 1..=5 {
        store.server.serve(READER, read_of(request, "large", [1]));
    }
    store.server.serve(OWNER, read_of(6, "large", [1]));
    assert_eq!(
        store.server.poll(),
        [busy(RequestId(4)), busy(RequestId(5))],
        "the others wait for their turn"
    );
    let answered = |replies: &[StoreReply]| fills_of(replies).len();
    assert_eq!(answered(&store.settle()), 4);

    let mut store = held_up(limits);
    store.server.serve(READER, read_of(1, "large", 1..=7));
    store.server.serve(READER, read_of(2, "large", [1]));
    assert_eq!(
        store.server.poll(),
        [busy(RequestId(2))],
        "a single one may be large, and a second may not"
    );
    assert_eq!(answered(&store.settle()), 7);
}

/// What is refused is refused in its turn, and nothing of it is kept meanwhile. What makes room
/// never is: to trim, and to destroy a document.
#[test]
fn only_so_much_of_what_an_owner_appends_waits_behind_an_append() {
    const MAX: usize = 10 * PAGE_SIZE;
    const CALL_SIZE: usize = 24;
    let mut store = held_up(Limits { owner_waiting_size_max: MAX, ..Limits::DEFAULT });
    let change = |name: &str, count: u32| {
        let pages: Vec<(u32, u8)> = (1..=count).map(|pgid| (pgid, 5)).collect();
        storage(name, [entry(1, 2, PAGES, &pages)])
    };
    let ahead = |count: usize| {
        let page = StagedPage { entry: 0, pgid: Pgid(1), page: page(5) };
        StoreRequest::Stage { ticket: Ticket(4), pages: vec![page; count] }
    };
    store.server.serve(OWNER, request(2, change("first", 20)));
    for ticket in 10..60 {
        store.server.serve(OWNER, request(ticket, change("more", 20)));
    }
    for _ in 0..50 {
        store.server.serve(OWNER, ahead(10));
    }
    store.server.serve(OWNER, request(4, change("ahead", 0)));
    let mut trim = Append::to(key("document-1"));
    trim.trim_timeline = Some(lsn(3));
    store.server.serve(OWNER, request(5, trim));
    store.server.serve(OWNER, StoreRequest::Destroy { ticket: Ticket(6), document: key("first") });
    store.server.serve(READER, request(7, change("others", 20)));
    let sizes = 2 * (20 * PAGE_SIZE + FRAME_HEADER_SIZE_MAX + CALL_SIZE) as u64;
    assert_eq!(store.shown(" waiting "), sizes, "what came first of each");
    let failed =
        |ticket: u64| StoreReply::AppendFailed { ticket: Ticket(ticket), error: AppendError::Busy };
    let replies = store.settle();
    let refused: Vec<_> = replies.iter().filter(|it| !is_durable(it)).cloned().collect();
    let expected: Vec<_> = (10..60).chain([4]).map(failed).collect();
    assert_eq!(refused, expected);
    // The answer for 6 is that for 5 too.
    let done = replies.iter().filter(|it| is_durable(it));
    assert_eq!(done.cloned().collect::<Vec<_>>(), [1, 2, 6, 7].map(durable));
    assert_eq!(store.shown(" waiting "), 0);

    store.server.serve(OWNER, StoreRequest::Open { document: key("more") });
    store.server.serve(OWNER, request(120, change("more", 2)));
    store.server.flush();
    assert!(store.settle().contains(&durable(120)), "there is room again");
}

/// Goal: what takes up memory counts, whatever it is made of. Method: an append of many calls, or
/// of many mutations without a byte, waits, and another one comes behind it; and so does a trim.
#[test]
fn calls_and_mutations_count_in_what_an_owner_may_have_waiting() {
    let mut calls = storage("a", [entry(1, 2, PAGES, &[])]);
    calls.storage[0].calls = vec![(CallId([1; 16]), lsn(1)); 2000];
    let mut mutations = make::timeline("a", 1..=300);
    mutations.timeline.iter_mut().for_each(|frame| frame.body.clear());
    for large in [calls, mutations] {
        let limits = Limits { owner_waiting_size_max: 10 * PAGE_SIZE, ..Limits::DEFAULT };
        let mut store = held_up(limits);
        store.server.serve(OWNER, request(2, large));
        store.server.serve(OWNER, request(3, make::timeline("b", [1])));
        store.server.serve(OWNER, request(4, make::timeline("c", [])));
        let mut trim = Append::to(key("document-1"));
        trim.trim_timeline = Some(lsn(3));
        store.server.serve(OWNER, request(5, trim));
        let mut replies = store.settle();
        replies.retain(|reply| !is_durable(reply));
        let busy =
            |ticket| StoreReply::AppendFailed { ticket: Ticket(ticket), error: AppendError::Busy };
        assert_eq!(replies, [busy(3), busy(4)], "what comes behind");
    }
}

fn is_durable(reply: &StoreReply) -> bool {
    matches!(reply, StoreReply::Durable { .. })
}
