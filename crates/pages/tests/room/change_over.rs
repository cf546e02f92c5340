//! What a change-over needs is there when the device is full.

use tidelog_disk::{CrashDevice, Disk as _};
use tidelog_pages::{Append, AppendError, OwnerId, StoreOptions, StoreReply, StoreRequest, Ticket};
use tidelog_testing::store::make::{
    durable, entry, key, page, read_of, request, storage, timeline,
};
use tidelog_testing::store::{OWNER, Server, ask, open_document, open_with, settle};
use tidelog_types::limits::{Limits, PAGE_SIZE};
use tidelog_types::{Epoch, Life, Pgid};

use super::{KIB, append, appended_over, destroy, kept, open, size, sizes};

/// Goal: a store whose page file lacks room for what is in the log lets its owner in. Method: a
/// page file that is too short, as a power cut can leave it, and nothing fits on the device.
#[test]
fn an_owner_is_let_in_though_the_pages_of_the_log_have_no_room_in_the_page_file() {
    let device = CrashDevice::new();
    let mut server = open(&device);
    let pages: Vec<(u32, u8)> = (1..=12).map(|pgid| (pgid, pgid as u8)).collect();
    assert!(append(&mut server, &device, 1, storage("d", [entry(1, 2, 12, &pages)])));
    drop(server);
    device.file("pages").set_size(2 * PAGE_SIZE as u64).expect("it gets shorter");
    device.set_capacity(Some(device.used()));
    let mut server = open(&device);
    for epoch in 1..=10 {
        let hello = StoreRequest::Hello { epoch: Epoch(0), life: Life::NONE };
        server.serve(OwnerId(epoch), hello);
        server.flush();
        assert_eq!(settle(&mut server, &device), [StoreReply::Ready { epoch: Epoch(epoch) }]);
    }
    let of = storage("e", [entry(1, 2, 1, &[(1, 1)])]);
    server.serve(OwnerId(10), request(2, of));
    server.flush();
    let full = StoreReply::AppendFailed { ticket: Ticket(2), error: AppendError::Full };
    assert_eq!(settle(&mut server, &device), [full]);
    device.set_capacity(None);
    server.serve(OwnerId(10), request(3, storage("f", [entry(1, 2, 1, &[(1, 1)])])));
    server.flush();
    assert_eq!(settle(&mut server, &device), [durable(3)]);
    assert!(size(&device, "pages") >= 15 * PAGE_SIZE as u64);
}

/// Goal: all that was accepted until the device was full can be checkpointed then, and the store
/// goes on. Method: documents of eight pages, of one and of none until none fits, before the first
/// change-over of all.
#[test]
fn what_was_accepted_can_be_checkpointed_once_the_device_is_full() {
    for has_holes in [false, true] {
        let device = CrashDevice::new();
        device.let_holes_be(has_holes);
        device.set_capacity(Some(3000 * KIB));
        let limits = Limits { frame_pages_max: 16, ..sizes().limits };
        let options = StoreOptions { limits, log_size_max: 8192 * KIB, ..sizes() };
        let mut server = open_with(&device, options);
        let document = |name: &str, count: u32| {
            let pages: Vec<(u32, u8)> = (1..=count).map(|pgid| (pgid, pgid as u8)).collect();
            storage(name, [entry(1, 2, count, &pages)])
        };
        let mut names: Vec<(String, u32)> = Vec::new();
        for count in [8, 1] {
            for number in 0..1000 {
                let name = format!("{count}.{number}");
                if !append(&mut server, &device, 1, document(&name, count)) {
                    break;
                }
                names.push((name, count));
            }
        }
        assert!(names.len() > 30, "only {} documents", names.len());
        let generation = |server: &Server| {
            let said = server.to_string();
            let (_, generation) = said.split_once("generation ").expect("it says so");
            generation.split(' ').next().map(str::to_owned)
        };
        let before = generation(&server);
        let mut more = 0;
        while generation(&server) == before {
            more += 1;
            assert!(more < 300, "holes: {has_holes}: no checkpoint: {server}");
            append(&mut server, &device, 1, timeline(&format!("t{more}"), []));
        }
        drop(server);
        let mut server = open(&device);
        for (name, count) in &names {
            let read = ask(&mut server, &device, read_of(1, name, [*count]));
            let [StoreReply::Pages { pages, .. }] = read.as_slice() else { panic!("{read:?}") };
            assert_eq!(*pages, [(Pgid(*count), page(*count as u8))]);
        }
        for (name, _) in &names[..names.len() / 2] {
            destroy(&mut server, &device, 2, name);
        }
        for number in 0..8 {
            let of = document(&format!("again{number}"), 8);
            assert!(append(&mut server, &device, 3, of), "holes: {has_holes}: {number}");
        }
    }
}

/// Goal: the same of what was appended since the last change-over. Method: most of the log is kept
/// when the device becomes full, and only the rest can make room.
#[test]
fn what_is_kept_since_the_last_change_over_has_room_in_the_next_when_the_device_is_full() {
    for kept in [50, 60, 100, 200, 400] {
        let device = CrashDevice::new();
        let options = StoreOptions { log_size_max: 700 * KIB, ..sizes() };
        let mut server = open_with(&device, options);
        let mut large = timeline("large", 1..=3 * kept);
        large.record = Some(vec![1; 512 * kept as usize].into());
        assert!(append(&mut server, &device, 1, large));
        device.set_capacity(Some(device.used()));
        let succeeded = appended_over(&mut server, &device);
        assert!(succeeded > 250, "{kept} KiB are kept: {succeeded} of 300 appends succeeded");
    }
}

/// Goal: the same of much, which is copied by many writes, each with blocks of its own. Method: a
/// long timeline of entries whose frames end amid a block; the other log file is begun anew where
/// the device has room for the least that it needs.
#[test]
fn what_is_kept_of_several_mebibytes_has_room_in_the_next_log_when_the_device_is_full() {
    for mebibytes in [5, 12] {
        let device = CrashDevice::new();
        let options = StoreOptions { log_size_max: 64 * 1024 * KIB, ..sizes() };
        let open = || open_with(&device, options);
        let mut server = open();
        let mut large = timeline("large", 1..=mebibytes * 205);
        large.timeline.iter_mut().for_each(|frame| frame.body = vec![1; 5000]);
        assert!(append(&mut server, &device, 1, large));
        drop(server);
        device.file("log-b").set_size(0).expect("it gets shorter");
        device.set_capacity(Some(device.used() + mebibytes * 1070 * KIB + 230 * KIB));
        let mut server = open();
        assert!(append(&mut server, &device, 2, timeline("d", [])));
        device.set_capacity(Some(device.used()));
        for ticket in 3..23 {
            let mut notes = Append::to(key("notes"));
            notes.record = Some(vec![ticket as u8; 80_000].into());
            if !append(&mut server, &device, ticket, notes) {
                open_document(&mut server, &device, &key("notes"));
            }
        }
        assert!(!server.to_string().contains("generation 1 "), "no change-over: {server}");
    }
}

/// A store whose other log file is about to grow for what is kept, 400 KiB of it, on a device that
/// has so much room beside the log.
fn about_to_grow(free: u64) -> (CrashDevice, Server) {
    let device = CrashDevice::new();
    let options = StoreOptions { log_size_max: 4096 * KIB, ..sizes() };
    let mut server = open_with(&device, options);
    assert!(append(&mut server, &device, 1, timeline("d", [])));
    server.serve(OWNER, request(2, kept("large", 400)));
    server.flush();
    device.set_capacity(Some(device.used() + free));
    (device, server)
}

/// Goal: where there is no room for all that the other log file may have, it has what the next
/// change-over needs, and no more. Method: a device that has room for that, and then for nothing.
#[test]
fn the_other_log_file_has_what_it_needs_where_there_is_no_room_for_more() {
    let (device, mut server) = about_to_grow(550 * KIB);
    settle(&mut server, &device);
    let other = size(&device, "log-b");
    assert!((592 * KIB..620 * KIB).contains(&other), "it has {other} bytes");
    assert!(append(&mut server, &device, 3, kept("more", 30)));
    let more = size(&device, "log-b") - other;
    assert!((14 * KIB..50 * KIB).contains(&more), "it has grown by {more} bytes");
    device.set_capacity(Some(device.used()));
    let succeeded = appended_over(&mut server, &device);
    assert!(succeeded > 250, "{succeeded} of 300 appends succeeded");
}

#[test]
fn the_other_log_file_that_found_no_room_at_all_grows_once_there_is_some() {
    let (device, mut server) = about_to_grow(300 * KIB);
    let before = size(&device, "log-b");
    settle(&mut server, &device);
    assert_eq!(size(&device, "log-b"), before, "it has taken room in vain");
    device.set_capacity(None);
    assert!(append(&mut server, &device, 3, kept("more", 100)));
    let other = size(&device, "log-b");
    assert!(other > 692 * KIB, "it has {other} bytes");
}
