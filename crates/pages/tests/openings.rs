//! How a store is opened: what is flushed before the first answer, what is damaged, and on which
//! disks.

use tidelog_disk::{CrashDevice, CrashDisk, Disk, DiskFault, MemoryDisk, StoreFiles};
use tidelog_pages::{OpenError, OwnerId, PageServer, Seed, StoreOptions, StoreReply, StoreRequest};
use tidelog_testing::store::make::{
    durable, entry_of_own_life as entry, key, request, storage, timeline,
};
use tidelog_testing::store::{OWNER, append, files, new, open, open_with, poll_all, seed, settle};
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{Epoch, Life};

/// Goal: a tab that takes the store over waits for one flush. Method: flushes are held while it is
/// opened, and the calls of the device counted until its first owner is let in.
#[test]
fn what_was_found_is_flushed_with_what_is_asked_first() {
    let (device, mut server) = new();
    append(&mut server, &device, 1, timeline("a", [1]));
    drop(server);
    device.hold_flushes(true);
    let mut server = open(&device);
    assert!(!device.has_held_flushes());
    device.hold_flushes(false);
    let calls = device.calls();
    server.serve(OWNER, StoreRequest::Hello { epoch: Epoch(0), life: Life::NONE });
    server.flush();
    assert!(matches!(server.poll().as_slice(), [(OWNER, StoreReply::Ready { .. })]));
    assert_eq!(device.calls() - calls, 2, "a write and a flush");
    drop(server);
    // Where nobody asks for anything, it is flushed by itself.
    let mut server = open(&device);
    device.hold_flushes(true);
    assert_eq!(poll_all(&mut server), []);
    assert!(device.has_held_flushes());
}

/// Goal: nobody goes on with what no disk may have. Method: the first flush after an opening fails,
/// behind a document that was found and is to be told.
#[test]
fn what_was_found_is_told_to_nobody_if_it_cannot_be_flushed() {
    let (device, mut server) = new();
    append(&mut server, &device, 1, timeline("a", [1]));
    drop(server);
    let mut server = open(&device);
    server.serve(OWNER, StoreRequest::Open { document: key("a") });
    device.fail_call(device.calls() + 1, DiskFault::Device);
    let replies = poll_all(&mut server);
    assert!(matches!(replies.as_slice(), [StoreReply::Broken { .. }]), "{replies:?}");
}

/// Of one disk a flush is complete when it was asked for, and nobody looks again later; of another
/// it is complete later, and then somebody looks.
#[test]
fn hello_is_answered_after_a_torn_tail_whenever_flushes_complete() {
    for holds_flushes in [false, true] {
        let (device, mut server) = new();
        append(&mut server, &device, 1, timeline("a", 1..3));
        device.hold_flushes(true);
        let mut torn = timeline("a", [3]);
        torn.timeline[0].body = vec![9; 2000];
        server.serve(OWNER, request(2, torn));
        server.flush();
        let mut sector = 0;
        let left = device.crash(&mut |versions| {
            sector += 1;
            if sector == 3 { 0 } else { versions - 1 }
        });
        left.hold_flushes(holds_flushes);
        let (mut server, report) = PageServer::open(files(&left), seed(&left)).expect("no damage");
        assert!(report.cut.is_some(), "the tail is torn");
        server.serve(OWNER, StoreRequest::Hello { epoch: Epoch(0), life: Life::NONE });
        server.flush();
        let replies = settle(&mut server, &left);
        assert!(matches!(replies.as_slice(), [StoreReply::Ready { .. }]), "{replies:?}");
    }
}

/// Goal: nobody is told of an append that may still find no room. Method: a document is opened
/// while a change-over holds an append to it back, at each step of it in turn, and there is no room
/// at one of the next calls, or there is.
#[test]
fn a_document_is_opened_once_what_was_appended_to_it_is_written() {
    let (mut held, mut full) = (0, 0);
    for (nth, fails) in (0..40).flat_map(|nth| (0..12).map(move |call| (nth, call))) {
        let (device, mut server) = new();
        let pages: Vec<(u32, u8)> = (1..=40).map(|pgid| (pgid, 1)).collect();
        server.serve(OWNER, request(1, storage("a", [entry(1, 2, 40, &pages)])));
        server.serve(OWNER, request(2, timeline("b", 1..50)));
        server.flush();
        device.hold_flushes(true);
        for _ in 0..nth {
            if !server.wants_poll() {
                device.complete_flushes();
            }
            server.poll();
        }
        server.serve(OWNER, request(3, timeline("b", [50])));
        server.flush();
        if !server.holds_back() {
            continue;
        }
        held += 1;
        device.fail_call(device.calls() + fails, DiskFault::Full);
        server.serve(OwnerId(2), StoreRequest::Open { document: key("b") });
        server.serve(OwnerId(3), StoreRequest::Open { document: key("a") });
        let mut replies = poll_all(&mut server);
        while server.holds_back() {
            assert!(replies.is_empty(), "step {nth}: what is in memory alone was told");
            device.complete_flushes();
            replies = poll_all(&mut server);
        }
        replies.extend(settle(&mut server, &device));
        if server.is_broken() {
            continue;
        }
        let is_full = replies.iter().any(|it| matches!(it, StoreReply::AppendFailed { .. }));
        full += u32::from(is_full);
        let opened = replies.iter().find_map(|reply| match reply {
            StoreReply::Opened { document, state, .. } if *document == key("b") => state.as_ref(),
            _ => None,
        });
        let state = opened.and_then(|state| state.timeline.as_ref()).expect("it is there");
        let end = if is_full { 50 } else { 51 };
        assert_eq!(state.range.end().get(), end, "step {nth}, call {fails}");
    }
    assert!(held > 2 && full > 0, "{held} held, {full} full");
}

/// What is in memory is all that there is of it then.
#[test]
fn a_document_that_waited_to_be_opened_is_opened_once_the_files_are_lost() {
    for nth in 0..40 {
        let (device, mut server) = new();
        let pages: Vec<(u32, u8)> = (1..=40).map(|pgid| (pgid, 1)).collect();
        server.serve(OWNER, request(1, storage("a", [entry(1, 2, 40, &pages)])));
        server.flush();
        device.hold_flushes(true);
        for _ in 0..nth {
            if !server.wants_poll() {
                device.complete_flushes();
            }
            server.poll();
        }
        server.serve(OWNER, request(3, timeline("b", [1])));
        server.flush();
        server.serve(OwnerId(2), StoreRequest::Open { document: key("b") });
        server.lose();
        let replies = poll_all(&mut server);
        assert!(replies.iter().any(|it| matches!(it, StoreReply::Opened { .. })), "{replies:?}");
    }
}

/// Goal: whoever comes first after a power cut does not wait for room that pages of others need.
/// Method: the page file has grown for the pages of an append, and the power cut takes that back.
#[test]
fn what_brings_no_pages_does_not_make_the_page_file_longer() {
    let device = CrashDevice::new();
    let open = |device| open_with(device, StoreOptions::default());
    let mut server = open(&device);
    let pages: Vec<(u32, u8)> = (1..=100).map(|pgid| (pgid, 1)).collect();
    // Its header is flushed before.
    append(&mut server, &device, 1, timeline("b", [1]));
    append(&mut server, &device, 2, storage("a", [entry(1, 2, 100, &pages)]));
    let size = |device: &CrashDevice| device.bytes_of("pages").expect("a file").len();
    let left = device.crash(&mut |_| 0);
    let short = size(&left);
    assert!(short < 100 * PAGE_SIZE && size(&device) > 100 * PAGE_SIZE);
    let mut server = open(&left);
    server.serve(OWNER, StoreRequest::Hello { epoch: Epoch(0), life: Life::NONE });
    server.flush();
    let replies = settle(&mut server, &left);
    assert!(matches!(replies.as_slice(), [StoreReply::Ready { .. }]), "{replies:?}");
    assert_eq!(size(&left), short);
    append(&mut server, &left, 3, storage("a", [entry(2, 3, 100, &[(1, 2)])]));
    assert!(size(&left) > 100 * PAGE_SIZE, "there is room for what is in the log");
}

#[test]
fn damage_and_newer_formats_are_told_at_opening() {
    let (device, mut server) = new();
    append(&mut server, &device, 1, timeline("a", [1]));
    append(&mut server, &device, 2, timeline("a", [2]));
    drop(server);
    let with = |file: &str, changes: &[(u64, u8)]| {
        let left = device.crash(&mut |versions| versions - 1);
        for (at, byte) in changes {
            left.file(file).write_at(*at, &[*byte]).expect("room");
        }
        PageServer::open(files(&left), seed(&left)).map(|_| ())
    };
    assert_eq!(with("log-a", &[]), Ok(()));
    let headless = with("log-a", &[(3, 0), (4096 + 3, 0)]);
    assert!(matches!(headless, Err(OpenError::Log(_))), "{headless:?}");
}

#[test]
fn a_store_in_memory_and_one_in_a_folder_work_alike() {
    fn exercise<D: Disk>(files: StoreFiles<D>) {
        let options =
            StoreOptions { log_size_max: 30_000, pool_pages_max: 4, ..StoreOptions::default() };
        let (mut server, report) =
            PageServer::open_with(files, Seed(1), options).expect("new files");
        assert!(report.is_new);
        for ticket in 1..100 {
            let set = entry(ticket, ticket + 1, 9, &[(ticket as u32 % 9 + 1, ticket as u8)]);
            server.serve(OWNER, request(ticket, storage("a", [set])));
            server.flush();
            assert!(server.poll().contains(&(OWNER, durable(ticket))), "ticket {ticket}");
            while server.wants_poll() {
                server.poll();
            }
        }
    }
    exercise(StoreFiles::<MemoryDisk>::in_memory());
    exercise::<CrashDisk>(files(&CrashDevice::new()));
    let folder = tempfile::tempdir().expect("a folder");
    exercise(StoreFiles::in_folder(folder.path()).expect("new files"));
    let (_, report) =
        PageServer::open(StoreFiles::in_folder(folder.path()).expect("a store"), Seed(2))
            .expect("the store is whole");
    assert!(!report.is_new && report.generation > 5);
}
