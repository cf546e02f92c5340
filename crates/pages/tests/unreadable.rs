//! A device that cannot read some place of a file for good: that place is damage, and no more.

use std::ops::Range;

use tidelog_disk::{CrashDevice, DiskFault, SECTOR_SIZE};
use tidelog_pages::{Append, OwnerId, PageServer, RequestId, StoreReply, StoreRequest};
use tidelog_testing::store::make::{
    durable, entry_of_own_life as entry, key, page, read_of, storage, timeline,
};
use tidelog_testing::store::{
    Server, append, ask, change_over, files, log_end, new, open, open_document, read, seed, settle,
    small_log,
};
use tidelog_types::Pgid;
use tidelog_types::limits::PAGE_SIZE;

/// A store with a document of three pages, each full of its pgid, and another document; opened
/// after so many change-overs.
fn with_documents(change_overs: usize) -> (CrashDevice, Server) {
    let (device, mut server) = new();
    let pages = [(1, 1), (2, 2), (3, 3)];
    append(&mut server, &device, 1, storage("a", [entry(1, 2, 3, &pages)]));
    append(&mut server, &device, 2, storage("b", [entry(1, 2, 1, &[(1, 9)])]));
    append(&mut server, &device, 3, timeline("c", [1]));
    change_over(&mut server, &device, change_overs);
    let server = open(&device);
    (device, server)
}

/// Makes a sector unreadable in the middle of a page that is full of this.
fn wear_out_page(device: &CrashDevice, file: &str, fill: u8) {
    let bytes = device.bytes_of(file).expect("a file");
    let at = bytes.windows(PAGE_SIZE).position(|run| run.iter().all(|byte| *byte == fill));
    let at = at.expect("the page lies there") as u64 + 1024;
    device.make_unreadable(file, at..at + SECTOR_SIZE as u64);
}

/// Goal: a page that the device cannot read is that page lost, told as often as it is asked for.
/// Method: one in the middle of others, in the log and in a slot, read twice, and twice more by
/// the next server, beside other documents and appends.
#[test]
fn a_page_that_cannot_be_read_is_damaged_and_nothing_else_is() {
    for (file, change_overs) in [("log-a", 0), ("pages", 1)] {
        let (device, mut server) = with_documents(change_overs);
        wear_out_page(&device, file, 2);
        for turn in [1, 2] {
            let request = RequestId(turn);
            let damaged = StoreReply::Damaged { request, document: key("a"), pgids: vec![Pgid(2)] };
            let replies = ask(&mut server, &device, read_of(turn, "a", 1..=3));
            let [StoreReply::Pages { pages, last: false, .. }, last] = replies.as_slice() else {
                panic!("{file}, read {turn}: {replies:?}");
            };
            assert_eq!(*pages, [(Pgid(1), page(1)), (Pgid(3), page(3))], "{file}, read {turn}");
            assert_eq!(*last, damaged, "{file}, read {turn}");
            assert_eq!(read(&mut server, &device, "b", &[1]), [(Pgid(1), page(9))]);
            server.rest();
        }
        assert_eq!(append(&mut server, &device, 4, timeline("c", [2])), [durable(4)]);
        assert!(!server.is_broken(), "{file}");
    }
}

#[test]
fn a_document_whose_first_page_cannot_be_read_is_opened_without_it() {
    let (device, mut server) = with_documents(1);
    wear_out_page(&device, "pages", 1);
    let opened = open_document(&mut server, &device, &key("a")).expect("it is there");
    assert_eq!(opened.first_page, None, "whoever needs it asks for it, and is told");
}

/// Goal: a frame of the log that cannot be read is that of one document. Method: the notes of one
/// lie there when it is opened.
#[test]
fn a_document_whose_notes_cannot_be_read_is_damaged_and_others_are_opened() {
    let (device, mut server) = with_documents(0);
    let mut notes = Append::to(key("a"));
    notes.record = Some(vec![0xEE; 5000].into());
    append(&mut server, &device, 4, notes);
    let bytes = device.bytes_of("log-a").expect("a file");
    let at = bytes.windows(5000).position(|run| run.iter().all(|byte| *byte == 0xEE));
    let at = at.expect("they lie there") as u64 + 3000;
    device.make_unreadable("log-a", at..at + SECTOR_SIZE as u64);
    for owner in [OwnerId(2), OwnerId(3)] {
        server.serve(owner, StoreRequest::Open { document: key("a") });
        let replies = settle(&mut server, &device);
        let [StoreReply::Damaged { request: RequestId::OPENING, .. }] = replies.as_slice() else {
            panic!("{replies:?}");
        };
        open_document(&mut server, &device, &key("b")).expect("it is there");
    }
}

#[test]
fn what_cannot_be_read_once_is_read_again() {
    let (device, mut server) = with_documents(1);
    for call in 1..9 {
        server.rest();
        device.fail_call(device.calls() + call, DiskFault::Device);
        let opened = open_document(&mut server, &device, &key("a")).expect("it is there");
        assert_eq!(opened.first_page, Some(page(1)), "call {call}");
        assert_eq!(read(&mut server, &device, "a", &[1, 2, 3]).len(), 3, "call {call}");
    }
}

/// A page file that lost its end is one whose slots there cannot be read.
#[test]
fn pages_behind_the_end_of_a_page_file_that_was_cut_off_are_damaged() {
    let (device, mut server) = with_documents(1);
    let slots = 3 * PAGE_SIZE as u64;
    tidelog_disk::Disk::set_size(&mut device.file("pages"), slots).expect("it gets shorter");
    let replies = ask(&mut server, &device, read_of(1, "a", 1..=3));
    let [.., StoreReply::Damaged { pgids, .. }] = replies.as_slice() else {
        panic!("{replies:?}");
    };
    assert!(!pgids.is_empty() && !server.is_broken());
}

/// What a device says that fails at every place is no word about pages, though the system may have
/// the headers in memory and answer for those.
#[test]
fn a_device_that_reads_nothing_at_all_breaks_the_server() {
    for from in [0, 2 * PAGE_SIZE as u64] {
        let (device, mut server) = with_documents(1);
        device.make_unreadable("pages", from..u64::MAX);
        let replies = ask(&mut server, &device, read_of(1, "a", 1..=3));
        assert!(matches!(replies.as_slice(), [StoreReply::Broken { .. }]), "{from}: {replies:?}");
    }
}

/// Goal: a store is opened whose log cannot be read in one place, and says what is lost. Method: a
/// sector of the page of one document, and one behind the end of the log.
#[test]
fn a_store_whose_log_cannot_be_read_in_one_place_is_opened() {
    let (device, server) = with_documents(0);
    let end = log_end(&server);
    drop(server);
    let worn = device.kill();
    wear_out_page(&worn, "log-a", 2);
    let (mut server, report) =
        PageServer::open_with(files(&worn), seed(&worn), small_log()).expect("it can be read");
    assert_eq!(report.damage.expect("a page is lost").nameless, 1, "all of `a` was one batch");
    assert_eq!(read(&mut server, &worn, "b", &[1]), [(Pgid(1), page(9))]);

    let behind = end.next_multiple_of(4096) + 4096;
    device.make_unreadable("log-a", behind..behind + SECTOR_SIZE as u64);
    let (mut server, report) =
        PageServer::open_with(files(&device), seed(&device), small_log()).expect("it is whole");
    assert_eq!(report.damage, None);
    assert_eq!(append(&mut server, &device, 4, timeline("c", [2])), [durable(4)]);
}

/// Appends 10 kB to a document for each ticket. Answers how many calls of the device each took.
fn fill(server: &mut Server, device: &CrashDevice, tickets: Range<u64>) -> Vec<u64> {
    let mut calls = Vec::new();
    for ticket in tickets {
        let mut filler = timeline("c", [ticket - 2]);
        filler.timeline[0].body = vec![1; 10_000];
        let before = device.calls();
        assert_eq!(append(server, device, ticket, filler), [durable(ticket)]);
        calls.push(device.calls() - before);
    }
    calls
}

/// A change-over that meets what cannot be read is given up, and the log grows.
#[test]
fn a_change_over_that_meets_a_page_that_cannot_be_read_is_given_up() {
    let (device, mut server) = with_documents(0);
    wear_out_page(&device, "log-a", 2);
    fill(&mut server, &device, 4..30);
    assert!(server.to_string().contains("log log-a generation 1"), "{server}");
}

#[test]
fn a_change_over_is_tried_again_until_the_place_can_be_read() {
    let (device, mut server) = with_documents(0);
    wear_out_page(&device, "log-a", 2);
    fill(&mut server, &device, 4..30);
    device.make_readable("log-a");
    fill(&mut server, &device, 30..40);
    assert!(server.to_string().contains("log log-b generation 2"), "{server}");
    let pages = [(Pgid(1), page(1)), (Pgid(2), page(2)), (Pgid(3), page(3))];
    assert_eq!(read(&mut server, &device, "a", &[1, 2, 3]), pages);
}

/// Goal: a place that stays unreadable costs a try for each quarter that the log grows by, since
/// each reads the log from its beginning. Method: a try takes calls beside those of its append.
#[test]
fn a_change_over_that_never_can_be_is_tried_seldom() {
    let (device, mut server) = with_documents(0);
    wear_out_page(&device, "log-a", 2);
    let calls = fill(&mut server, &device, 4..204);
    let tries = calls.iter().filter(|calls| **calls > 20).count();
    assert!((4..=16).contains(&tries), "{tries} tries while the log grew to {}", log_end(&server));
    assert!(server.to_string().contains("log log-a generation 1"), "{server}");
}

#[test]
fn a_page_file_of_which_one_copy_of_the_header_cannot_be_read_is_opened() {
    for copy in [0, PAGE_SIZE as u64] {
        let (device, _) = with_documents(1);
        device.make_unreadable("pages", copy..copy + SECTOR_SIZE as u64);
        let pages = read(&mut open(&device), &device, "a", &[3]);
        assert_eq!(pages, [(Pgid(3), page(3))], "copy at {copy}");
    }
}
