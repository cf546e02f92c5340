//! What can be done on a full device, and what makes room there.

use tidelog_disk::CrashDevice;
use tidelog_pages::{
    Append, AppendError, OwnerId, PageServer, StoreOptions, StoreReply, StoreRequest, Ticket,
};
use tidelog_testing::store::make::{
    durable, entry, key, page, read_of, request, storage, timeline,
};
use tidelog_testing::store::{
    OWNER, Server, ask, files, open_document, open_with, poll_all, seed, settle,
};
use tidelog_types::limits::{Limits, PAGE_SIZE};
use tidelog_types::{Epoch, Life, Pgid};

use super::{KIB, append, appended_over, destroy, kept, open, size, sizes};

/// Goal: whoever has filled the device can open the store, read, destroy a document, and then write
/// again. Method: documents of eight pages, until none fits; nothing is given from outside.
#[test]
fn a_device_that_the_store_has_filled_can_be_read_and_heals_once_something_is_destroyed() {
    for has_holes in [false, true] {
        fill_and_heal(has_holes);
    }
}

fn fill_and_heal(has_holes: bool) {
    let device = CrashDevice::new();
    device.let_holes_be(has_holes);
    let mut server = open(&device);
    device.set_capacity(Some(1600 * KIB));
    let pages: Vec<(u32, u8)> = (1..=8).map(|pgid| (pgid, pgid as u8)).collect();
    let document = |number: u64| storage(&format!("d{number}"), [entry(1, 2, 8, &pages)]);
    let mut count = 0;
    while append(&mut server, &device, count + 1, document(count + 1)) {
        count += 1;
    }
    assert!(count > 30, "only {count} documents");
    for size in [4000, 400, 4] {
        let mut notes = Append::to(key("notes"));
        // Where a change-over makes room for each, it goes on for ever.
        for _ in 0..300 {
            notes.record = Some(vec![notes.record.map_or(0, |old| old[0] ^ 1); size].into());
            open_document(&mut server, &device, &key("notes"));
            if !append(&mut server, &device, 900, notes.clone()) {
                break;
            }
        }
    }
    drop(server);
    for opening in 0..10 {
        let mut server = open(&device);
        server.serve(OWNER, StoreRequest::Hello { epoch: Epoch(0), life: Life::NONE });
        server.flush();
        let replies = settle(&mut server, &device);
        assert!(matches!(replies.as_slice(), [StoreReply::Ready { .. }]), "opening {opening}");
        let read = ask(&mut server, &device, read_of(1, "d1", [8]));
        let [StoreReply::Pages { pages, .. }] = read.as_slice() else { panic!("{read:?}") };
        assert_eq!(*pages, [(Pgid(8), page(8))]);
        assert!(open_document(&mut server, &device, &key(&format!("d{}", count + 1))).is_none());
        assert!(!append(&mut server, &device, 1000, document(count + 1)), "opening {opening}");
    }
    let mut server = open(&device);
    for number in 1..=count / 2 {
        destroy(&mut server, &device, 2000 + number, &format!("d{number}"));
    }
    for number in count + 1..=count + count / 4 {
        assert!(append(&mut server, &device, 3000 + number, document(number)), "{number}");
    }
}

/// Goal: a full device lets its owner in however often that comes: a log that is full of epochs is
/// changed over before the last room is taken. Method: a device that is filled with documents, or
/// with notes in a long log, and 200 owners one after the other.
#[test]
fn a_full_device_lets_in_one_owner_after_the_other() {
    for (has_holes, log_size_max) in [(false, 96), (true, 8192)] {
        let device = CrashDevice::new();
        device.let_holes_be(has_holes);
        let options = StoreOptions { log_size_max: log_size_max * KIB, ..sizes() };
        let open = || open_with(&device, options);
        let mut server = open();
        device.set_capacity(Some(1600 * KIB));
        let pages: Vec<(u32, u8)> = (1..=8).map(|pgid| (pgid, pgid as u8)).collect();
        let mut count = 0;
        for size in [4000, 4] {
            loop {
                let name = format!("d{}", count + 1);
                let mut of = storage(&name, [entry(1, 2, 8, &pages)]);
                of.record = Some(vec![1; size].into());
                if !append(&mut server, &device, count + 1, of) {
                    break;
                }
                count += 1;
            }
        }
        assert!(count > 10, "only {count} documents");
        drop(server);
        for number in 1..=200 {
            let mut server = open();
            let owner = OwnerId(number);
            server.serve(owner, StoreRequest::Hello { epoch: Epoch(0), life: Life::NONE });
            server.flush();
            let replies = settle(&mut server, &device);
            let ready = StoreReply::Ready { epoch: Epoch(number) };
            assert_eq!(replies, [ready], "{has_holes} {log_size_max}: {number}: {server}");
            let name = format!("d{}", number % count + 1);
            let read = ask_of(&mut server, &device, owner, read_of(1, &name, [8]));
            let [StoreReply::Pages { pages, .. }] = read.as_slice() else { panic!("{read:?}") };
            assert_eq!(*pages, [(Pgid(8), page(8))]);
        }
    }
}

/// Goal: what makes room is carried out on a full device though others append at the same time.
/// Method: a device that is full, and a write with appends before and behind a destruction.
#[test]
fn what_is_destroyed_beside_appends_makes_room_on_a_full_device_too() {
    let device = CrashDevice::new();
    let mut server = open(&device);
    for ticket in 1..=3 {
        let of = storage(&format!("d{ticket}"), [entry(1, 2, 1, &[(1, 1)])]);
        assert!(append(&mut server, &device, ticket, of));
    }
    let large = |ticket| {
        let mut large = Append::to(key(&format!("large{ticket}")));
        large.record = Some(vec![1; 300_000].into());
        request(ticket, large)
    };
    let used = ["log-a", "log-b", "pages"].iter().map(|file| size(&device, file));
    device.set_capacity(Some(used.sum()));
    for ticket in 1..=3 {
        let (others, document) = (OwnerId(1 + ticket), key(&format!("d{ticket}")));
        server.serve(others, large(1));
        server.serve(OWNER, StoreRequest::Destroy { ticket: Ticket(10 + ticket), document });
        server.serve(others, large(2));
        server.flush();
        let mut replies = settle(&mut server, &device);
        replies.retain(|reply| *reply == durable(10 + ticket));
        assert_eq!(replies.len(), 1, "destruction {ticket}");
    }
    let mut server = open(&device);
    for ticket in 1..=3 {
        assert!(open_document(&mut server, &device, &key(&format!("d{ticket}"))).is_none());
    }
}

/// Goal: the same while a change-over holds batches back. Method: a device becomes full after each
/// flush of a change-over in turn, and then something is destroyed behind a large append.
#[test]
fn what_is_destroyed_while_batches_are_held_makes_room_on_a_full_device_too() {
    let mut held = 0;
    for flushes in 0..12 {
        let device = CrashDevice::new();
        let mut server = open(&device);
        assert!(append(&mut server, &device, 1, storage("d", [entry(1, 2, 1, &[(1, 1)])])));
        let mut filler = timeline("filler", []);
        filler.record = Some(vec![1; 100_000].into());
        device.hold_flushes(true);
        server.serve(OWNER, request(2, filler));
        server.flush();
        for _ in 0..flushes {
            poll_all(&mut server);
            device.complete_flushes();
        }
        poll_all(&mut server);
        let used = ["log-a", "log-b", "pages"].iter().map(|file| size(&device, file));
        device.set_capacity(Some(used.sum()));
        let mut large = Append::to(key("large"));
        large.record = Some(vec![1; 600_000].into());
        let written = server.to_string();
        server.serve(OwnerId(2), request(1, large));
        server.serve(OwnerId(2), StoreRequest::Destroy { ticket: Ticket(9), document: key("d") });
        server.flush();
        held += usize::from(server.holds_back() && written.contains("generation 1"));
        let mut replies = Vec::new();
        for _ in 0..30 {
            device.complete_flushes();
            replies.extend(poll_all(&mut server));
        }
        let full = StoreReply::AppendFailed { ticket: Ticket(1), error: AppendError::Full };
        assert!(replies.contains(&full), "after {flushes} flushes: {replies:?}");
        assert!(replies.contains(&durable(9)), "after {flushes} flushes: {replies:?}");
    }
    assert!(held > 0, "batches were never held");
}

/// Goal: a full device is taken over though its last owner appends at the same time. Method: large
/// appends before a hello, and requests of the new owner behind that, in one write.
#[test]
fn a_hello_beside_appends_is_answered_on_a_full_device_too() {
    let device = CrashDevice::new();
    let mut server = open(&device);
    assert!(append(&mut server, &device, 1, storage("d", [entry(1, 2, 1, &[(1, 1)])])));
    let mut large = Append::to(key("large"));
    large.record = Some(vec![1; 300_000].into());
    let used = ["log-a", "log-b", "pages"].iter().map(|file| size(&device, file));
    device.set_capacity(Some(used.sum()));
    let mut granted = Epoch(0);
    for turn in 1..=3 {
        server.serve(OwnerId(turn), request(10, large.clone()));
        let life = Life([1; 16]);
        server.serve(OwnerId(turn + 1), StoreRequest::Hello { epoch: granted, life });
        server.serve(OwnerId(turn + 1), request(1, large.clone()));
        server.flush();
        let replies = settle(&mut server, &device);
        let full = |ticket| StoreReply::AppendFailed { ticket, error: AppendError::Full };
        let [failed, ready] = [full(Ticket(10)), StoreReply::Ready { epoch: Epoch(turn) }];
        assert_eq!(replies, [failed, full(Ticket(1)), ready], "turn {turn}");
        granted = Epoch(turn);
        let read = ask_of(&mut server, &device, OwnerId(turn + 1), read_of(1, "d", [1]));
        assert!(matches!(read.as_slice(), [StoreReply::Pages { .. }]), "{read:?}");
    }
    assert_eq!(open(&device).epoch(), granted, "it lasts");
    server.serve(OwnerId(4), StoreRequest::Destroy { ticket: Ticket(11), document: key("d") });
    server.flush();
    assert_eq!(settle(&mut server, &device), [durable(11)]);
}

fn ask_of(
    server: &mut Server,
    device: &CrashDevice,
    owner: OwnerId,
    request: StoreRequest,
) -> Vec<StoreReply> {
    server.serve(owner, request);
    settle(server, device)
}

#[test]
fn a_full_device_has_room_again_where_the_log_is_full_of_what_nobody_needs() {
    let device = CrashDevice::new();
    let options = StoreOptions { log_size_max: 1024 * KIB, ..sizes() };
    let mut server = open_with(&device, options);
    device.set_capacity(Some(700 * KIB));
    let mut failed = 0;
    for ticket in 1..200 {
        let mut notes = Append::to(key("notes"));
        notes.record = Some(vec![ticket as u8; 8000].into());
        if !append(&mut server, &device, ticket, notes) {
            failed += 1;
            open_document(&mut server, &device, &key("notes"));
        }
    }
    assert!((1..20).contains(&failed), "{failed} of 199 appends failed");
}

/// Goal: whoever goes on appending to a full device keeps nobody from making room. Method: a log
/// full of what nobody needs, and one poll for each append, as of a host that is never idle; with
/// requests at hand before each poll, and without.
#[test]
fn appends_that_find_no_room_do_not_starve_the_change_over_that_makes_some() {
    for is_behind in [false, true] {
        let device = CrashDevice::new();
        let options = StoreOptions { log_size_max: 1024 * KIB, ..sizes() };
        let mut server = open_with(&device, options);
        device.set_capacity(Some(700 * KIB));
        let mut failed = 0;
        for ticket in 1..400 {
            let mut notes = Append::to(key("notes"));
            notes.record = Some(vec![ticket as u8; 8000].into());
            server.serve(OWNER, StoreRequest::Open { document: key("notes") });
            server.serve(OWNER, request(ticket, notes.clone()));
            server.flush();
            if is_behind {
                server.serve(OwnerId(2), StoreRequest::Open { document: key("notes") });
                server.serve(OwnerId(2), request(ticket, notes));
            }
            let replies = server.poll().into_iter();
            let is_failed = |reply: &StoreReply| matches!(reply, StoreReply::AppendFailed { .. });
            failed += replies.filter(|(to, reply)| *to == OWNER && is_failed(reply)).count();
        }
        assert!((1..150).contains(&failed), "{is_behind}: {failed} of 399 appends failed");
    }
}

/// Goal: a device that stays full has room for as much as was destroyed, however long its log may
/// grow before a change-over is due. Method: documents that only the log has, until none fits; one
/// is destroyed, and one as large is appended, a few times if need be.
#[test]
fn what_is_destroyed_on_a_device_that_stays_full_has_its_room_taken_by_what_is_as_large() {
    for free in [300, 700, 1600] {
        let device = CrashDevice::new();
        let opened = PageServer::open(files(&device), seed(&device));
        let mut server = opened.expect("a store").0;
        assert!(append(&mut server, &device, 1, kept("d1", 40)));
        device.set_capacity(Some(device.used() + free * KIB));
        let mut count = 1;
        while append(&mut server, &device, 1, kept(&format!("d{}", count + 1), 40)) {
            count += 1;
        }
        for number in 1..=3 {
            destroy(&mut server, &device, 1, &format!("d{number}"));
            let name = format!("d{}", count + number);
            let has_room = (0..4).any(|_| {
                open_document(&mut server, &device, &key(&name));
                append(&mut server, &device, 1, kept(&name, 40))
            });
            assert!(has_room, "{free} KiB: {number}: {server}");
        }
    }
}

/// Goal: the other log file has room for a change-over on a full device, whatever the size of what
/// is kept. Method: one change-over makes room for the next, and then the device is full: only what
/// nobody needs any more can make room.
#[test]
fn a_full_device_has_room_for_a_change_over_whatever_is_kept() {
    for kept in [1, 40, 60, 80, 100, 120, 150, 200, 300] {
        let device = CrashDevice::new();
        let options = StoreOptions { log_size_max: 700 * KIB, ..sizes() };
        let mut server = open_with(&device, options);
        let mut large = Append::to(key("large"));
        large.record = Some(vec![1; kept * 1024].into());
        assert!(append(&mut server, &device, 1, large));
        let mut failed = 0;
        for ticket in 2..400 {
            if ticket == 100 {
                let used = ["log-a", "log-b", "pages"].iter().map(|file| size(&device, file));
                device.set_capacity(Some(used.sum()));
            }
            let mut notes = Append::to(key("notes"));
            notes.record = Some(vec![ticket as u8; 8000].into());
            if !append(&mut server, &device, ticket, notes) {
                failed += 1;
                open_document(&mut server, &device, &key("notes"));
            }
        }
        assert!(failed < 30, "{kept} KiB are kept: {failed} of 300 appends failed");
    }
}

/// Goal: what the other log file has for a change-over is room, and no hole that takes none before
/// it is written. Method: the device is full before the first change-over, and has room for as many
/// appends as where there are no holes.
#[test]
fn what_is_kept_for_a_change_over_is_there_when_the_device_is_full() {
    for kept in [1, 20, 40] {
        let [with, without] = [true, false].map(|holes| appended_while_full(kept, holes));
        assert!(without > 200, "{kept} KiB are kept: {without} of 300 appends succeeded");
        assert_eq!(with, without, "{kept} KiB are kept");
    }
}

/// How many of 300 appends succeed on a device that is full.
fn appended_while_full(kept: usize, has_holes: bool) -> usize {
    let device = CrashDevice::new();
    device.let_holes_be(has_holes);
    let mut server = open(&device);
    let mut large = Append::to(key("large"));
    large.record = Some(vec![1; kept * 1024].into());
    assert!(append(&mut server, &device, 1, large));
    device.set_capacity(Some(device.used()));
    appended_over(&mut server, &device)
}

/// Goal: pages that are in the log have room in the page file too, and no holes. Method: pages that
/// no change-over has seen yet, and then the device is full.
#[test]
fn pages_in_the_log_have_their_slots_when_the_device_is_full() {
    for has_holes in [false, true] {
        let device = CrashDevice::new();
        device.let_holes_be(has_holes);
        let mut server = open(&device);
        assert!(append(&mut server, &device, 1, storage("d", [entry(1, 2, 1, &[(1, 1)])])));
        assert!(append(&mut server, &device, 2, kept("filler", 100)));
        assert!(server.to_string().contains("generation 2 "), "{server}");
        let pages: Vec<(u32, u8)> = (1..=12).map(|pgid| (pgid, pgid as u8)).collect();
        assert!(append(&mut server, &device, 3, storage("e", [entry(1, 2, 12, &pages)])));
        assert!(server.to_string().contains("generation 2 "), "{server}");
        device.set_capacity(Some(device.used()));
        let succeeded = appended_over(&mut server, &device);
        assert!(succeeded > 250, "holes: {has_holes}: {succeeded} of 300 appends succeeded");
    }
}

/// Goal: slots that are made ahead take no room that an append needs. Method: an owner is let in
/// and writes a document of four pages, on devices of more and more room: each has room for it that
/// has more than one that has.
#[test]
fn slots_that_are_made_ahead_give_way_to_the_log() {
    let pages: Vec<(u32, u8)> = (1..=4).map(|pgid| (pgid, 7)).collect();
    let fits = |capacity: u64| {
        let device = CrashDevice::new();
        device.set_capacity(Some(capacity));
        let mut server = open(&device);
        server.serve(OWNER, StoreRequest::Hello { epoch: Epoch(0), life: Life::NONE });
        server.flush();
        let ready = settle(&mut server, &device);
        assert!(matches!(ready[..], [StoreReply::Ready { .. }]), "{ready:?}");
        append(&mut server, &device, 1, storage("d", [entry(1, 2, 4, &pages)]))
    };
    let fits: Vec<bool> = (150..220).step_by(2).map(|kib| fits(kib * KIB)).collect();
    assert!(fits.is_sorted() && fits.contains(&true) && fits.contains(&false), "{fits:?}");
}

/// Goal: an append that finds no room has given back what it took when its owner is told. Method:
/// one whose pages have room in the page file, and not in the log beside it.
#[test]
fn an_append_without_room_gives_back_what_the_page_file_got_for_it() {
    let device = CrashDevice::new();
    let mut server = open(&device);
    assert!(append(&mut server, &device, 1, storage("d", [entry(1, 2, 1, &[(1, 1)])])));
    let before = size(&device, "pages");
    for pages in [60, 300] {
        let pages: Vec<(u32, u8)> = (1..=pages).map(|pgid| (pgid, pgid as u8)).collect();
        device.set_capacity(Some(device.used() + pages.len() as u64 * 6 * KIB));
        let of = storage("e", [entry(1, 2, pages.len() as u32, &pages)]);
        server.serve(OWNER, request(2, of));
        server.flush();
        let mut replies = server.poll();
        while replies.is_empty() {
            replies = server.poll();
        }
        let error = AppendError::Full;
        let full = StoreReply::AppendFailed { ticket: Ticket(2), error };
        assert_eq!(replies, [(OWNER, full)]);
        assert_eq!(size(&device, "pages"), before);
        settle(&mut server, &device);
        open_document(&mut server, &device, &key("e"));
    }
    assert!(append(&mut server, &device, 3, kept("notes", 30)));
}

/// Goal: pages that are in the log keep the slots that were made for them, though an append behind
/// them finds no room. Method: a small append and one that is written in parts, before one flush.
#[test]
fn an_append_without_room_leaves_those_before_it_their_slots() {
    let device = CrashDevice::new();
    let limits = Limits { frame_pages_max: 16, ..sizes().limits };
    let log_buffer_size_max = 64 * 1024;
    let options = StoreOptions { log_size_max: 4096 * KIB, log_buffer_size_max, limits, ..sizes() };
    let mut server = open_with(&device, options);
    assert!(append(&mut server, &device, 1, storage("d", [entry(1, 2, 1, &[(1, 1)])])));
    device.set_capacity(Some(device.used() + 700 * KIB));
    let document = |name: &str, count: u32| {
        let pages: Vec<(u32, u8)> = (1..=count).map(|pgid| (pgid, pgid as u8)).collect();
        storage(name, [entry(1, 2, count, &pages)])
    };
    server.serve(OWNER, request(2, document("small", 8)));
    server.serve(OwnerId(2), request(1, document("large", 300)));
    server.flush();
    let full = StoreReply::AppendFailed { ticket: Ticket(1), error: AppendError::Full };
    let mut replies = Vec::new();
    while !replies.contains(&full) {
        replies.extend(server.poll().into_iter().map(|(_, reply)| reply));
    }
    assert!(replies.contains(&durable(2)), "{replies:?}");
    let slots = size(&device, "pages") / PAGE_SIZE as u64 - 2;
    assert!(slots >= 9, "9 pages are in the log, and there are {slots} slots");
}

/// Goal: where the page file cannot grow, a document with extents of its own takes slots that small
/// ones have left. Method: small ones are destroyed; there is room for the pages in the log, and
/// not for an extent behind the others.
#[test]
fn a_large_document_takes_slots_of_small_ones_that_are_gone_where_there_are_no_others() {
    let device = CrashDevice::new();
    let mut server = open(&device);
    let small: Vec<(u32, u8)> = (1..=30).map(|pgid| (pgid, 1)).collect();
    for number in 1..=12 {
        let of = storage(&format!("d{number}"), [entry(1, 2, 30, &small)]);
        assert!(append(&mut server, &device, number, of));
    }
    device.set_capacity(Some(device.used() + 700 * KIB));
    for number in 1..=4 {
        destroy(&mut server, &device, 20 + number, &format!("d{number}"));
    }
    for (nth, pgids) in [1..=40, 41..=80].into_iter().enumerate() {
        let (start, pages) = (1 + nth as u64, pgids.map(|pgid| (pgid, 9)).collect::<Vec<_>>());
        let mut large = storage("large", [entry(start, start + 1, 2000, &pages)]);
        large.begin_storage = large.begin_storage.filter(|_| nth == 0);
        let is_there = (0..4).any(|_| {
            open_document(&mut server, &device, &key("large"));
            append(&mut server, &device, 30, large.clone())
        });
        assert!(is_there, "entry {start}: {server}");
    }
    let read = ask(&mut open(&device), &device, read_of(1, "large", [80]));
    let [StoreReply::Pages { pages, .. }] = read.as_slice() else { panic!("{read:?}") };
    assert_eq!(*pages, [(Pgid(80), page(9))]);
}

/// Goal: what was appended during a change-over needs no more slots behind it than before. Method:
/// a document has grown so large that its extents are its own, the first one with it, which is
/// shared before that; and a small one is begun after each flush of the change-over in turn.
#[test]
fn a_change_over_finds_slots_for_what_is_appended_meanwhile_where_there_are_some() {
    for flushes in 0..10 {
        let device = CrashDevice::new();
        let mut server = open(&device);
        let small: Vec<(u32, u8)> = (1..=100).map(|pgid| (pgid, 1)).collect();
        let large: Vec<(u32, u8)> = (101..=1100).map(|pgid| (pgid, 1)).collect();
        device.hold_flushes(true);
        server.serve(OWNER, request(1, storage("a", [entry(1, 2, 100, &small)])));
        server.serve(OWNER, request(2, storage("a", [entry(2, 3, 1100, &large)])));
        server.flush();
        for _ in 0..flushes {
            poll_all(&mut server);
            device.complete_flushes();
        }
        poll_all(&mut server);
        server.serve(OWNER, request(3, storage("b", [entry(1, 2, 1, &[(1, 7)])])));
        server.flush();
        for _ in 0..40 {
            device.complete_flushes();
            poll_all(&mut server);
        }
        device.hold_flushes(false);
        assert!(!server.to_string().contains("generation 1 "), "{server}");
        device.set_capacity(Some(device.used()));
        let succeeded = appended_over(&mut server, &device);
        assert!(succeeded > 250, "{flushes} flushes: {succeeded} of 300 appends succeeded");
        let read = ask(&mut open(&device), &device, read_of(1, "b", [1]));
        let [StoreReply::Pages { pages, .. }] = read.as_slice() else { panic!("{read:?}") };
        assert_eq!(*pages, [(Pgid(1), page(7))]);
    }
}
