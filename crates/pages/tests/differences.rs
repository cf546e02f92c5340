//! Pages that lie in the log as differences from the versions before them.

use std::collections::BTreeMap;

use tidelog_disk::{BLOCK_SIZE, CrashDevice, SECTOR_SIZE};
use tidelog_pages::{
    Cursor, Direction, RequestId, StorageEntry, StoreOptions, StoreReply, StoreRequest, Urgency,
};
use tidelog_testing::store::make::{STORAGE, durable, entry, key, lsn, request, storage};
use tidelog_testing::store::{
    OWNER, Server, append, ask, change_over, log_end, open, open_with, read, settle,
};
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{Page, Pgid};

/// A page that differs in few bytes from those of numbers close by, and has nothing but them in
/// common with zeros.
fn row(number: u64) -> Page {
    let at = (number % 400 * 8) as usize;
    Page::new(&[0xC5; PAGE_SIZE]).expect("a page").with(at, &number.to_le_bytes())
}

/// The entry at an LSN: page 1 changes in each, page 2 in each tenth.
fn change(at: u64) -> StorageEntry {
    let mut entry = entry(at, at + 1, 2, &[]);
    entry.set.pages.insert(Pgid(1), row(at));
    if at == 1 || at.is_multiple_of(10) {
        entry.set.pages.insert(Pgid(2), row(1000 + at));
    }
    entry
}

fn append_changes(server: &mut Server, device: &CrashDevice, lsns: std::ops::Range<u64>) {
    for at in lsns {
        assert_eq!(append(server, device, at, storage("a", [change(at)])), [durable(at)]);
    }
}

fn roomy() -> StoreOptions {
    StoreOptions { log_size_max: 1 << 24, ..StoreOptions::default() }
}

fn server_with(lsns: std::ops::Range<u64>) -> (CrashDevice, Server) {
    let device = CrashDevice::new();
    let mut server = open_with(&device, roomy());
    append_changes(&mut server, &device, lsns);
    (device, server)
}

fn pages_at(server: &mut Server, device: &CrashDevice, at: u64) -> BTreeMap<Pgid, Page> {
    let replies = ask(
        server,
        device,
        StoreRequest::ReadAt {
            request: RequestId(4),
            urgency: Urgency::User,
            document: key("a"),
            pgids: vec![Pgid(1), Pgid(2)],
            journal: STORAGE,
            at: lsn(at),
        },
    );
    let pages = replies.into_iter().flat_map(|reply| match reply {
        StoreReply::Pages { pages, .. } => pages,
        other => panic!("unasked: {other:?}"),
    });
    pages.collect()
}

/// Goal: a small change is little in the log, however much of its page is used. Method: the log
/// grows by a block for each, though two pages are full.
#[test]
fn a_small_change_of_a_full_page_takes_a_block() {
    let (device, mut server) = server_with(1..3);
    let before = log_end(&server);
    append_changes(&mut server, &device, 3..23);
    assert_eq!(log_end(&server) - before, 20 * BLOCK_SIZE as u64);
}

/// Goal: every version can be had for as long as the log has it, whoever has the pages in memory.
/// Method: each of a hundred versions, and each entry, from a store that was opened anew, again
/// and again without what is kept in memory.
#[test]
fn every_version_that_the_log_has_can_be_read() {
    let (device, mut server) = server_with(1..101);
    for round in 0..3 {
        for at in 1..=100 {
            let newest = |at: u64| if at < 10 { 1001 } else { 1000 + at / 10 * 10 };
            let expected = [(Pgid(1), row(at)), (Pgid(2), row(newest(at)))];
            assert_eq!(pages_at(&mut server, &device, at + 1), expected.into(), "{at}");
            if round > 0 {
                server.rest();
            }
        }
        server = open_with(&device, roomy());
    }
    let cursor = Cursor { journal: STORAGE, at: lsn(1), direction: Direction::Forwards };
    let replies = ask(
        &mut server,
        &device,
        StoreRequest::Entries {
            request: RequestId(5),
            urgency: Urgency::User,
            document: key("a"),
            cursor,
            count: 100,
        },
    );
    let mut entries: Vec<StorageEntry> = Vec::new();
    let mut was_cut = false;
    for reply in replies {
        let StoreReply::Entries { entries: some, is_cut, .. } = reply else {
            panic!("unasked: {reply:?}")
        };
        let mut some = some.into_iter();
        // The rest of an entry of which a part has come.
        if was_cut && let (Some(begun), Some(rest)) = (entries.last_mut(), some.next()) {
            begun.set.absorb(&rest.set);
        }
        entries.extend(some);
        was_cut = is_cut;
    }
    assert_eq!(entries, (1..=100).map(change).collect::<Vec<_>>());
}

/// Goal: a page is a difference from the version before it and from no other one. Method: an older
/// version is all that is in memory as the next one is written.
#[test]
fn an_older_version_in_memory_is_no_base() {
    let (device, mut server) = server_with(1..20);
    server.rest();
    assert_eq!(pages_at(&mut server, &device, 5)[&Pgid(1)], row(4));
    append_changes(&mut server, &device, 20..21);
    drop(server);
    let mut server = open_with(&device, roomy());
    assert_eq!(
        read(&mut server, &device, "a", &[1, 2]),
        [(Pgid(1), row(20)), (Pgid(2), row(1020))]
    );
}

/// Goal: a page is had with a bounded number of reads. Method: of a page that changed in each of
/// many entries, sectors of the log rot one by one: how many of its versions does each concern?
#[test]
fn a_version_is_made_of_at_most_thirty_two_pieces() {
    let (device, server) = server_with(1..101);
    drop(server);
    let end = log_end(&open_with(&device, roomy()));
    let mut most = 0;
    let mut least = usize::MAX;
    for block in (2..end / BLOCK_SIZE as u64).step_by(7) {
        let copy = device.kill();
        let mut server = open_with(&copy, roomy());
        copy.make_unreadable("log-a", block * BLOCK_SIZE as u64..(block + 1) * BLOCK_SIZE as u64);
        let request = |at: u64| StoreRequest::ReadAt {
            request: RequestId(4),
            urgency: Urgency::User,
            document: key("a"),
            pgids: vec![Pgid(1)],
            journal: STORAGE,
            at: lsn(at + 1),
        };
        let mut lost = 0;
        for at in 1..=100 {
            server.rest();
            let replies = ask(&mut server, &copy, request(at));
            lost += usize::from(!matches!(replies.as_slice(), [StoreReply::Pages { .. }]));
        }
        (most, least) = (most.max(lost), least.min(lost));
    }
    assert!(least >= 1, "a block that no version needs");
    assert!((20..=32).contains(&most), "{most} versions need one piece");
}

/// Goal: what lies in the log before a change-over is no base of what comes behind it, however the
/// change-over ends. Method: changes go on during a change-over, a step of the store beside each,
/// until it has ended; then the store is opened anew, and after one more.
#[test]
fn changes_during_a_change_over_outlive_the_log_before_it() {
    let device = CrashDevice::new();
    let options = StoreOptions { log_size_max: 128 * 1024, ..StoreOptions::default() };
    let mut server = open_with(&device, options);
    device.hold_flushes(true);
    for at in 1..400 {
        server.serve(OWNER, request(at, storage("a", [change(at)])));
        server.flush();
        server.poll();
        if at.is_multiple_of(3) {
            device.complete_flushes();
            server.poll();
        }
    }
    device.hold_flushes(false);
    device.complete_flushes();
    settle(&mut server, &device);
    let expected = [(Pgid(1), row(399)), (Pgid(2), row(1390))];
    assert_eq!(read(&mut server, &device, "a", &[1, 2]), expected);
    for _ in 0..2 {
        drop(server);
        server = open_with(&device, options);
        assert_eq!(read(&mut server, &device, "a", &[1, 2]), expected);
        change_over(&mut server, &device, 1);
        server.rest();
        assert_eq!(read(&mut server, &device, "a", &[1, 2]), expected);
    }
}

/// Goal: a slot that a change-over writes over is no base of anything. Method: power cuts at each
/// step of some change-overs, with changes before and behind their points, that take along all that
/// is not flushed, nothing of it, or some.
#[test]
fn a_power_cut_amid_a_change_over_takes_no_base_along() {
    let device = CrashDevice::new();
    let options = StoreOptions { log_size_max: 64 * 1024, ..StoreOptions::default() };
    let mut server = open_with(&device, options);
    append_changes(&mut server, &device, 1..12);
    device.hold_flushes(true);
    let (mut newest, mut flushed) = (11, 11);
    for step in 0..600 {
        if step % 7 == 0 {
            newest += 1;
            server.serve(OWNER, request(newest, storage("a", [change(newest)])));
            server.flush();
        }
        if step % 3 == 0 {
            device.complete_flushes();
        }
        for (_, reply) in server.poll() {
            let StoreReply::Durable { ticket } = reply else { panic!("unasked: {reply:?}") };
            flushed = ticket.0;
        }
        for chosen in 0..3 {
            let copy = device.crash(&mut |count| chosen * (count - 1) / 2);
            let mut after = open(&copy);
            let found: BTreeMap<Pgid, Page> =
                read(&mut after, &copy, "a", &[1, 2]).into_iter().collect();
            let at = (flushed..=newest).find(|at| found[&Pgid(1)] == row(*at));
            let at = at.unwrap_or_else(|| panic!("step {step}: nothing from {flushed} on"));
            assert_eq!(found[&Pgid(2)], row(1000 + at / 10 * 10), "step {step}");
        }
    }
}

/// Goal: an entry may have a page as it was, whose difference takes no bytes, wherever a
/// change-over begins. Method: such entries amid change-overs, the last page of each as it was in
/// some and another one in others, and what is read at the end.
#[test]
fn a_page_as_it_was_goes_over_with_the_log() {
    let device = CrashDevice::new();
    let options = StoreOptions { log_size_max: 64 * 1024, ..StoreOptions::default() };
    let mut server = open_with(&device, options);
    device.hold_flushes(true);
    let mut at = 0;
    for step in 0..4000 {
        if step % 5 == 0 {
            at += 1;
            let mut entry = entry(at, at + 1, 2, &[]);
            // Frames of any length, which end in blocks of eight bytes.
            let more = row(at).with(4000, &[at as u8; 16][..(at % 16) as usize]);
            entry.set.pages.insert(Pgid(1), more);
            entry.set.pages.insert(Pgid(2), row(1000 + at / 3));
            server.serve(OWNER, request(at, storage("a", [entry])));
            server.flush();
        }
        if step % 3 == 0 {
            device.complete_flushes();
        }
        server.poll();
    }
    device.hold_flushes(false);
    settle(&mut server, &device);
    let expected = [(Pgid(2), row(1000 + at / 3))];
    assert_eq!(read(&mut server, &device, "a", &[2]), expected);
    drop(server);
    let mut again = open_with(&device, options);
    assert_eq!(read(&mut again, &device, "a", &[2]), expected);
}

/// Goal: damage to one version is none to those that are not made of it.
#[test]
fn a_piece_that_rots_damages_what_is_made_of_it_and_nothing_else() {
    let (device, mut server) = server_with(1..20);
    // The sector in which entry 10 lies, with a piece of either page.
    let at = log_end(&server) - 9 * BLOCK_SIZE as u64 - BLOCK_SIZE as u64;
    server.rest();
    device.make_unreadable("log-a", at..at + SECTOR_SIZE as u64);
    for pgid in [1, 2] {
        let replies =
            ask(&mut server, &device, tidelog_testing::store::make::read_of(7, "a", [pgid]));
        let is_damaged = |reply: &StoreReply| matches!(reply, StoreReply::Damaged { .. });
        assert!(replies.iter().any(is_damaged), "page {pgid}: {replies:?}");
    }
    assert_eq!(pages_at(&mut server, &device, 10)[&Pgid(1)], row(9), "it comes before");
}

/// Goal: a page is hashed where it is made, and what is read is held against that hash, however the
/// page lies in the log and in the page file. Method: pages that come with the hash of another one
/// are taken as they come, and are damaged once they are read back.
#[test]
fn what_is_read_is_held_against_the_hash_that_came_with_it() {
    let device = CrashDevice::new();
    let mut server = open_with(&device, roomy());
    let wrong = |number: u64| row(number).hashed(row(number + 1).hash());
    let mut first = entry(1, 2, 3, &[]);
    first.set.pages = [(Pgid(1), row(1)), (Pgid(2), wrong(2)), (Pgid(3), row(3))].into();
    let mut second = entry(2, 3, 3, &[]);
    second.set.pages = [(Pgid(1), row(4)), (Pgid(3), wrong(5))].into();
    assert_eq!(append(&mut server, &device, 1, storage("a", [first])), [durable(1)]);
    assert_eq!(append(&mut server, &device, 2, storage("a", [second])), [durable(2)]);
    drop(server);
    let mut server = open_with(&device, roomy());
    let read = tidelog_testing::store::make::read_of(7, "a", [1, 2, 3]);
    let (mut intact, mut damaged) = (Vec::new(), Vec::new());
    for reply in ask(&mut server, &device, read) {
        match reply {
            StoreReply::Pages { pages, .. } => intact.extend(pages),
            StoreReply::Damaged { pgids, .. } => damaged.extend(pgids),
            other => panic!("unasked: {other:?}"),
        }
    }
    assert_eq!((intact, damaged), (vec![(Pgid(1), row(4))], vec![Pgid(2), Pgid(3)]));
}
