//! Many owners at one page server: whose turn it is, what each may have outstanding, and what one
//! read costs the device.

use std::collections::BTreeMap;

use tidelog_disk::CrashDevice;
use tidelog_pages::{
    Append, AppendError, OwnerId, RequestId, StorageEntry, StoreOptions, StoreReply, StoreRequest,
    Ticket, Urgency,
};
use tidelog_testing::store::make::key;
use tidelog_testing::store::{OWNER, Server, open_with, poll_all, settle};
use tidelog_types::limits::{Limits, PAGE_SIZE};
use tidelog_types::{JournalId, Lsn, LsnRange, Page, PageSet, Pgid, Position};

const CHUNK: u32 = Limits::DEFAULT.read_chunk_pages as u32;

/// A document of these pages, each filled with its number.
fn document(name: &str, pgids: impl IntoIterator<Item = u32>) -> StoreRequest {
    let journal = JournalId([2; 16]);
    let position = Position { next: Lsn::FIRST.next(), ..Position::start_of(journal) };
    let page = |pgid: u32| Page::new(&[pgid as u8; PAGE_SIZE]).expect("the size of a page");
    let pages: BTreeMap<_, _> = pgids.into_iter().map(|pgid| (Pgid(pgid), page(pgid))).collect();
    let db_pages = pages.last_key_value().map_or(0, |(pgid, _)| pgid.0);
    let set = PageSet { db_pages, pages };
    let range = LsnRange::one(Lsn::FIRST);
    let mut append = Append::to(key(name));
    append.begin_storage = Some(journal);
    append.storage = vec![StorageEntry { range, position, calls: Vec::new(), set }];
    StoreRequest::Append { ticket: Ticket(1), append }
}

fn read(request: u64, urgency: Urgency, pgids: impl IntoIterator<Item = u32>) -> StoreRequest {
    let pgids = pgids.into_iter().map(Pgid).collect();
    StoreRequest::Read { request: RequestId(request), urgency, document: key("a"), pgids }
}

/// A store whose log never changes over by itself, with so many pages of pool.
fn open(device: &CrashDevice, pool_pages_max: usize) -> Server {
    let options = StoreOptions { log_size_max: 1 << 30, pool_pages_max, ..StoreOptions::default() };
    open_with(device, options)
}

/// The same, holding document `a` with pages 1 to `count`.
fn holding(device: &CrashDevice, count: u32, pool_pages_max: usize) -> Server {
    let mut server = open(device, pool_pages_max);
    server.serve(OWNER, document("a", 1..=count));
    server.flush();
    settle(&mut server, device);
    server
}

/// Who was answered in each poll, and whether that was all.
fn polls(server: &mut Server, count: usize) -> Vec<Vec<(u64, u64)>> {
    let answers = |(OwnerId(owner), reply): (OwnerId, StoreReply)| match reply {
        StoreReply::Pages { request, .. } => (owner, request.0),
        StoreReply::SyncPart { request, .. } => (owner, 100 + request.0),
        other => panic!("unasked: {other:?}"),
    };
    (0..count).map(|_| server.poll().into_iter().map(answers).collect()).collect()
}

#[test]
fn owners_take_turns_and_one_with_many_reads_holds_up_nobody() {
    let device = CrashDevice::new();
    let mut server = holding(&device, 5 * CHUNK, 8);
    for request in 0..500 {
        server.serve(OwnerId(1), read(request, Urgency::User, 1..=CHUNK));
    }
    server.serve(OwnerId(2), read(0, Urgency::User, 1..=5 * CHUNK));
    assert_eq!(polls(&mut server, 3), [[(1, 0)], [(2, 0)], [(1, 1)]]);
    for request in 0..3 {
        server.serve(OwnerId(3), read(request, Urgency::User, [9]));
    }
    assert_eq!(polls(&mut server, 2), [vec![(3, 0), (3, 1), (3, 2)], vec![(2, 0)]]);
    server.forget_owner(OwnerId(1));
    assert_eq!(polls(&mut server, 4), [vec![(2, 0)], vec![(2, 0)], vec![(2, 0)], vec![]]);
    assert!(!server.wants_poll());
}

#[test]
fn what_a_user_waits_for_goes_before_what_nobody_waits_for() {
    let device = CrashDevice::new();
    let mut server = holding(&device, 5 * CHUNK, 8);
    let (urgency, document, journal) = (Urgency::Background, key("a"), JournalId([2; 16]));
    let (request, since) = (1, Lsn::FIRST);
    server.serve(
        OWNER,
        StoreRequest::SyncPrepare {
            request: RequestId(request),
            urgency,
            document,
            journal,
            since,
            from: Pgid(1),
            pages_max: u32::MAX,
        },
    );
    server.poll();
    for request in 0..20 {
        server.serve(OWNER, read(request, Urgency::User, 1..=CHUNK));
    }
    let polls = polls(&mut server, 25);
    let background: Vec<usize> = (0..25).filter(|poll| polls[*poll] == [(1, 101)]).collect();
    // Of the four turns that it still needs, two came while somebody waited.
    assert_eq!(background, [7, 15, 22, 23], "{polls:?}");
    assert_eq!(polls[24], [], "{polls:?}");
}

#[test]
fn an_owner_that_asks_for_too_much_is_told_so_and_others_are_served() {
    let device = CrashDevice::new();
    let mut server = holding(&device, 1, 8);
    for request in 0..=Limits::DEFAULT.owner_reads_max as u64 {
        server.serve(OwnerId(1), read(request, Urgency::User, [1]));
    }
    server.serve(OwnerId(2), read(0, Urgency::User, [1]));
    let replies = server.poll();
    let busy = |request| (OwnerId(1), StoreReply::Busy { request, document: key("a") });
    assert_eq!(replies[0], busy(RequestId(Limits::DEFAULT.owner_reads_max as u64)));
    let left = poll_all(&mut server).len() + replies.len();
    assert_eq!(left, Limits::DEFAULT.owner_reads_max + 2);

    let many = || (0..=Limits::DEFAULT.owner_read_pages_max).map(|_| 1);
    server.serve(OwnerId(1), read(1, Urgency::User, many()));
    server.serve(OwnerId(1), read(2, Urgency::User, [1]));
    assert!(
        server.poll().contains(&busy(RequestId(2))),
        "a single one may be large, and a second may not"
    );
    server.forget_owner(OwnerId(1));
    server.serve(OwnerId(1), read(3, Urgency::User, [1]));
    assert_eq!(polls(&mut server, 1), [[(1, 3)]]);
}

#[test]
fn an_owner_has_only_so_many_appends_that_are_not_durable() {
    let device = CrashDevice::new();
    let mut server = open(&device, 8);
    // Nothing is left of what a new store has to say before all else.
    assert_eq!(server.poll(), []);
    device.hold_flushes(true);
    let append = |ticket: u64| {
        let mut append = Append::to(key(["a", "b"][ticket as usize % 2]));
        append.record = Some(vec![ticket as u8].into());
        StoreRequest::Append { ticket: Ticket(ticket), append }
    };
    for ticket in 1..=Limits::DEFAULT.owner_appends_max as u64 {
        server.serve(OWNER, append(ticket));
    }
    assert_eq!(server.poll(), []);
    let ticket = Limits::DEFAULT.owner_appends_max as u64 + 1;
    let mut append_more = |owner: OwnerId, ticket| {
        server.serve(owner, append(ticket));
        server.poll()
    };
    let failed = |ticket| {
        let (ticket, error) = (Ticket(ticket), AppendError::Busy);
        vec![(OWNER, StoreReply::AppendFailed { ticket, error })]
    };
    assert_eq!(append_more(OWNER, ticket), failed(ticket));
    assert_eq!(append_more(OwnerId(2), 1), [], "another one goes on");
    device.complete_flushes();
    let durable = StoreReply::Durable { ticket: Ticket(Limits::DEFAULT.owner_appends_max as u64) };
    assert_eq!(append_more(OWNER, ticket + 1), [(OWNER, durable)], "there is room again");
    assert_eq!(append_more(OWNER, ticket + 2), failed(ticket + 2), "until it is opened anew");
}

#[test]
fn pages_that_lie_side_by_side_are_read_with_one_call() {
    let device = CrashDevice::new();
    drop(holding(&device, 200, 8));
    for pool_pages_max in [1, 1000] {
        // Opened anew, so that the pool is empty.
        let mut server = open(&device, pool_pages_max);
        server.flush();
        server.poll();
        let calls = |server: &mut Server, pgids: Vec<u32>| {
            let before = device.calls();
            server.serve(OWNER, read(1, Urgency::User, pgids));
            poll_all(server);
            device.calls() - before
        };
        assert_eq!(calls(&mut server, (1..=CHUNK).collect()), 1);
        assert_eq!(calls(&mut server, vec![90, 70, 71, 91]), 2, "in any order");
        let again = calls(&mut server, (65..=72).collect());
        assert_eq!(again, if pool_pages_max == 1 { 1 } else { 2 }, "around what is in the pool");
    }
}

#[test]
fn what_is_not_written_yet_is_read_from_the_buffer_whatever_the_pool_holds() {
    let device = CrashDevice::new();
    let mut server = open(&device, 1);
    server.flush();
    poll_all(&mut server);
    server.serve(OWNER, document("a", 1..=50));
    let calls = device.calls();
    server.serve(OWNER, read(1, Urgency::User, 1..=50));
    let pages = poll_all(&mut server).into_iter().flat_map(|reply| match reply {
        StoreReply::Pages { pages, .. } => pages,
        other => panic!("unasked: {other:?}"),
    });
    let pages: Vec<(Pgid, Page)> = pages.collect();
    assert!(pages.iter().all(|(pgid, page)| page.bytes() == [pgid.0 as u8; PAGE_SIZE]));
    assert_eq!((pages.len(), device.calls()), (50, calls), "the device has nothing of it");
}
