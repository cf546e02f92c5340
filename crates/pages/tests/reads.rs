//! Reads of pages and of changes: what they see, and what is said of pages that are damaged.

use std::collections::BTreeMap;

use tidelog_disk::{CrashDevice, Disk};
use tidelog_pages::{OwnerId, RequestId, StoreOptions, StoreReply, StoreRequest, Urgency};
use tidelog_testing::store::make::{
    STORAGE, durable, entry_of_own_life as entry, key, lsn, page, read_of, request, storage,
    timeline,
};
use tidelog_testing::store::{
    OWNER, Server, append, ask, change_over, changes, new, open, open_document, open_with, settle,
    sync_prepare,
};
use tidelog_types::limits::{Limits, PAGE_SIZE};
use tidelog_types::{BudgetLimits, JournalId, Pgid};

#[test]
fn a_long_read_is_served_in_turn_with_others_and_sees_one_state() {
    let (device, mut server) = new();
    let count = 10 * Limits::DEFAULT.read_chunk_pages as u32;
    let all: Vec<(u32, u8)> = (1..=count).map(|pgid| (pgid, 1)).collect();
    append(&mut server, &device, 1, storage("a", [entry(1, 2, count, &all)]));
    let long = |pgids: std::ops::RangeInclusive<u32>| read_of(1, "a", pgids);
    settle(&mut server, &device);
    server.serve(OWNER, long(1..=count));
    server.serve(OwnerId(2), long(5..=5));
    let again: Vec<(u32, u8)> = (1..=count).map(|pgid| (pgid, 2)).collect();
    server.serve(OWNER, request(2, storage("a", [entry(2, 3, count, &again)])));
    let first = [server.poll(), server.poll()].concat();
    assert!(first.iter().any(|(owner, _)| *owner == OwnerId(2)), "it did not wait");
    let mut seen = 0;
    for reply in first
        .into_iter()
        .chain(std::iter::from_fn(|| server.wants_poll().then(|| server.poll())).flatten())
    {
        if let (OWNER, StoreReply::Pages { pages, last, .. }) = reply {
            assert!(pages.len() <= Limits::DEFAULT.read_chunk_pages);
            assert!(pages.iter().all(|(_, found)| *found == page(1)), "as when it was asked");
            seen += pages.len() as u32;
            assert_eq!(last, seen == count);
        }
    }
    assert_eq!(seen, count);
}

#[test]
fn changes_are_the_pages_that_a_follower_lacks() {
    let (device, mut server) = new();
    let entries = [
        entry(1, 2, 4, &[(1, 1), (2, 1), (3, 1), (4, 1)]),
        entry(2, 50, 4, &[(2, 2)]),
        entry(50, 51, 3, &[(3, 3)]),
    ];
    append(&mut server, &device, 1, storage("a", entries));
    let since = |server: &mut Server, from: u64| {
        let set = changes(server, &device, &key("a"), lsn(from));
        assert_eq!(set.db_pages, 3);
        set.pages.into_keys().map(|pgid| pgid.0).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        assert_eq!(since(&mut server, 1), [1, 2, 3]);
        assert_eq!(since(&mut server, 2), [2, 3]);
        assert_eq!(since(&mut server, 30), [2, 3], "within a range");
        assert_eq!(since(&mut server, 50), [3]);
        assert_eq!(since(&mut server, 51), Vec::<u32>::new());
        change_over(&mut server, &device, 2);
    }
    let mut unrelated = |document: &str, journal: JournalId, since: u64| {
        sync_prepare(&mut server, &device, &key(document), journal, lsn(since))
            .expect_err("it does not follow")
            .map(|position| position.next)
    };
    assert_eq!(unrelated("b", STORAGE, 1), None, "no such document");
    assert_eq!(unrelated("a", JournalId([7; 16]), 1), Some(lsn(51)), "another journal");
    assert_eq!(unrelated("a", STORAGE, 52), Some(lsn(51)), "it never came that far");
}

#[test]
fn a_page_that_rotted_is_never_handed_out() {
    for (file, changes_over) in [("log-a", 0), ("pages", 1)] {
        let (device, mut server) = new();
        append(&mut server, &device, 1, storage("a", [entry(1, 2, 1, &[(1, 0xAB)])]));
        append(&mut server, &device, 2, timeline("b", [1]));
        change_over(&mut server, &device, changes_over);
        // A store opened before the damage, so that the log was whole then; its pool is empty.
        let mut server = open(&device);
        let bytes = device.bytes_of(file).expect("a file");
        let at = bytes.windows(PAGE_SIZE).position(|run| run.iter().all(|byte| *byte == 0xAB));
        let at = at.expect("the page lies there") as u64 + 100;
        device.file(file).write_at(at, &[0xAA]).expect("room");
        server.serve(OwnerId(2), request(1, timeline("b", [2])));
        server.serve(OWNER, read_of(1, "a", [1]));
        server.flush();
        let replies = server.poll();
        let to_owner = replies.iter().filter(|(owner, _)| *owner == OWNER);
        let to_owner: Vec<_> = to_owner.map(|(_, reply)| reply).collect();
        let damaged =
            StoreReply::Damaged { request: RequestId(1), document: key("a"), pgids: vec![Pgid(1)] };
        assert_eq!(to_owner.last(), Some(&&damaged));
        assert!(replies.contains(&(OwnerId(2), durable(1))), "others go on");
        // The owner does too, and with other documents; even a change-over that meets the page.
        for ticket in 2..9 {
            let mut filler = timeline("b", [ticket + 1]);
            filler.timeline[0].body = vec![1; 10_000];
            assert_eq!(append(&mut server, &device, ticket, filler), [durable(ticket)]);
        }
        let opened = open_document(&mut server, &device, &key("a")).expect("it is there");
        assert_eq!(opened.first_page, None, "it is asked for, and then said to be damaged");
    }
}

#[test]
fn what_is_intact_is_read_beside_a_damaged_page_and_a_compaction_is_never_a_part() {
    let (device, mut server) = new();
    let pages: Vec<(u32, u8)> = (1..=40).map(|pgid| (pgid, pgid as u8)).collect();
    append(&mut server, &device, 1, storage("a", [entry(1, 2, 40, &pages)]));
    let mut server = open(&device);
    let bytes = device.bytes_of("pages").expect("a file");
    let at = bytes.windows(PAGE_SIZE).position(|run| run.iter().all(|byte| *byte == 30));
    let at = at.expect("the page lies there") as u64 + 100;
    device.file("pages").write_at(at, &[0xAA]).expect("room");
    let damaged =
        |request| StoreReply::Damaged { request, document: key("a"), pgids: vec![Pgid(30)] };
    let mut replies = ask(&mut server, &device, read_of(1, "a", 1..=40));
    assert_eq!(replies.pop(), Some(damaged(RequestId(1))));
    let mut read = BTreeMap::new();
    for reply in replies {
        let StoreReply::Pages { pages, last: false, .. } = reply else { panic!("{reply:?}") };
        read.extend(pages);
    }
    let intact = (1..=40).filter(|pgid| *pgid != 30);
    assert_eq!(read, intact.map(|pgid| (Pgid(pgid), page(pgid as u8))).collect());
    let (urgency, document) = (Urgency::User, key("a"));
    let prepare = StoreRequest::SyncPrepare {
        request: RequestId(2),
        urgency,
        document,
        journal: STORAGE,
        since: lsn(1),
        from: Pgid(1),
        pages_max: u32::MAX,
    };
    assert_eq!(ask(&mut server, &device, prepare).pop(), Some(damaged(RequestId(2))));
}

/// How many pages are in the replies of one poll.
fn pages_polled(server: &mut Server) -> usize {
    let pages = server.poll().into_iter().map(|(_, reply)| match reply {
        StoreReply::Pages { pages, .. } => pages.len(),
        _ => 0,
    });
    pages.sum()
}

/// Goal: a poll takes a bounded time, whatever it is that waits for reads. Method: a read of two
/// thousand pages is asked for, and then a change-over has to wait for it, or appends that are
/// taken back.
#[test]
fn a_poll_serves_only_so_many_pages_though_reads_hold_something_up() {
    let limits =
        Limits { slice: BudgetLimits { pages: 64, ..Limits::DEFAULT.slice }, ..Limits::DEFAULT };
    let options = StoreOptions { log_size_max: 96 * 1024, limits, ..StoreOptions::default() };
    let most = 64 + Limits::DEFAULT.read_chunk_pages * 2;
    for is_full in [false, true] {
        let device = CrashDevice::new();
        let mut server = open_with(&device, options);
        let pages: Vec<(u32, u8)> = (1..=2000).map(|pgid| (pgid, 1)).collect();
        append(&mut server, &device, 1, storage("a", [entry(1, 2, 2000, &pages)]));
        server.serve(OwnerId(2), read_of(1, "a", 1..=2000));
        if is_full {
            device.set_capacity(Some(0));
        }
        let mut filler = timeline("filler", []);
        filler.record = Some(vec![1; 20_000_000].into());
        server.serve(OWNER, request(2, filler));
        server.flush();
        let mut polled = Vec::new();
        while server.wants_poll() {
            polled.push(pages_polled(&mut server));
        }
        assert_eq!(polled.iter().sum::<usize>(), 2000);
        assert!(polled.iter().all(|count| *count <= most), "{is_full}: {polled:?}");
        assert!(polled.contains(&64), "{is_full}: it was held up");
    }
}
