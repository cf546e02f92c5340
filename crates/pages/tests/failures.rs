//! Appends and destructions that fail: what is told, in which order, and what is left behind.

use tidelog_disk::{CrashDevice, DiskFault};
use tidelog_pages::{
    Append, AppendError, OwnerId, RequestId, StoreOptions, StoreReply, StoreRequest, Ticket,
};
use tidelog_testing::store::make::{
    durable, entry_of_own_life as entry, frame, key, page, read_of, request, storage, timeline,
};
use tidelog_testing::store::{
    OWNER, append, new, open, open_document, open_with, poll_all, read, settle,
};
use tidelog_types::limits::Limits;
use tidelog_types::{BudgetLimits, Epoch, Life, Pgid};

#[test]
fn a_full_device_fails_the_append_and_leaves_nothing_behind() {
    let (device, mut server) = new();
    append(&mut server, &device, 1, timeline("a", [1]));
    for fault in [DiskFault::Full, DiskFault::ShortWrite] {
        device.fail_call(device.calls() + 1, fault);
        server.serve(OWNER, request(2, timeline("a", [2])));
        server.flush();
        let error = AppendError::Full;
        let failed = StoreReply::AppendFailed { ticket: Ticket(2), error };
        assert_eq!(settle(&mut server, &device), [failed]);
        let opened = open_document(&mut server, &device, &key("a")).expect("it is there");
        let state = opened.timeline.expect("it was begun");
        assert_eq!(state.range.to_string(), "1..2", "LSN 2 was not given out");
    }
    assert_eq!(append(&mut server, &device, 3, timeline("a", [2])), [durable(3)]);
    let opened = open_document(&mut open(&device), &device, &key("a")).expect("it is there");
    assert_eq!(opened.timeline.map(|state| state.frames), Some(vec![frame(1), frame(2)]));
}

/// Goal: nobody is told that what is in the log was not recorded. Method: what another owner has
/// appended comes again behind something new that finds no room, and before it.
#[test]
fn what_is_handed_over_again_does_not_fail_with_what_finds_no_room() {
    let (device, mut server) = new();
    let notes = |name: &str| {
        let mut notes = Append::to(key(name));
        notes.record = Some(vec![6; 100].into());
        notes
    };
    assert_eq!(append(&mut server, &device, 6, notes("y")), [durable(6)]);
    let next = OwnerId(2);
    server.serve(next, StoreRequest::Hello { epoch: Epoch(0), life: Life::NONE });
    server.flush();
    settle(&mut server, &device);
    let full =
        |ticket| StoreReply::AppendFailed { ticket: Ticket(ticket), error: AppendError::Full };
    device.set_full(true);
    server.serve(next, request(5, timeline("x", [1])));
    server.serve(next, request(6, notes("y")));
    server.serve(next, request(7, timeline("z", [1])));
    server.flush();
    assert_eq!(settle(&mut server, &device), [full(5), full(7), durable(6)]);
    // What repeats something that is taken back fails with that.
    server.serve(next, request(8, timeline("y", [1])));
    server.serve(next, request(9, timeline("y", [1])));
    server.flush();
    assert_eq!(settle(&mut server, &device), [full(8), full(9)]);
    let opened = open_document(&mut open(&device), &device, &key("y")).expect("it is there");
    assert_eq!(opened.timeline.map(|state| state.frames), None);
}

/// Goal: whoever hears of a ticket may take those before it for done. Method: a destruction stands
/// between something new and something that comes again, and finds no room, nor by itself.
#[test]
fn no_later_ticket_is_told_before_a_destruction_that_finds_no_room() {
    let (device, mut server) = new();
    append(&mut server, &device, 6, timeline("y", [1]));
    append(&mut server, &device, 7, timeline("stays", [1]));
    let next = OwnerId(2);
    server.serve(next, StoreRequest::Hello { epoch: Epoch(0), life: Life::NONE });
    server.flush();
    settle(&mut server, &device);
    let full =
        |ticket| StoreReply::AppendFailed { ticket: Ticket(ticket), error: AppendError::Full };
    device.set_full(true);
    server.serve(next, request(4, timeline("x", [1])));
    server.serve(next, StoreRequest::Destroy { ticket: Ticket(5), document: key("stays") });
    server.serve(next, request(6, timeline("y", [1])));
    server.flush();
    assert_eq!(settle(&mut server, &device), [full(4), full(5), durable(6)]);
    open_document(&mut open(&device), &device, &key("stays")).expect("it is there");
}

/// Goal: what is destroyed is not said to be there, though others find no room. Method: a
/// destruction is asked for again beside another one, on a device that is full by then.
#[test]
fn a_destruction_that_is_done_does_not_fail_when_it_is_asked_for_again() {
    let (device, mut server) = new();
    append(&mut server, &device, 1, timeline("gone", [1]));
    append(&mut server, &device, 2, timeline("stays", [1]));
    let destroy =
        |ticket, name| StoreRequest::Destroy { ticket: Ticket(ticket), document: key(name) };
    server.serve(OWNER, destroy(3, "gone"));
    server.flush();
    assert_eq!(settle(&mut server, &device), [durable(3)]);
    device.set_full(true);
    server.serve(OWNER, destroy(4, "stays"));
    server.serve(OWNER, destroy(5, "stays"));
    server.serve(OWNER, destroy(6, "gone"));
    server.flush();
    let full =
        |ticket| StoreReply::AppendFailed { ticket: Ticket(ticket), error: AppendError::Full };
    assert_eq!(settle(&mut server, &device), [full(4), full(5), durable(6)]);
    open_document(&mut open(&device), &device, &key("stays")).expect("it is there");
}

/// Goal: what was to begin a document anew does not become that of the one that stayed. Method: its
/// owner has as many appends outstanding as it may when it asks for its destruction.
#[test]
fn behind_a_document_that_could_not_be_destroyed_nothing_is_appended() {
    let device = CrashDevice::new();
    let limits = Limits { owner_appends_max: 1, ..Limits::DEFAULT };
    let options = StoreOptions { limits, ..StoreOptions::default() };
    let mut server = open_with(&device, options);
    append(&mut server, &device, 1, timeline("a", [1]));
    device.hold_flushes(true);
    server.serve(OWNER, request(2, timeline("a", [2])));
    server.serve(OWNER, StoreRequest::Destroy { ticket: Ticket(3), document: key("a") });
    assert_eq!(settle(&mut server, &device).len(), 2, "it was refused, and there is room again");
    let mut notes = Append::to(key("a"));
    notes.record = Some(vec![1].into());
    let failed = StoreReply::AppendFailed { ticket: Ticket(4), error: AppendError::Busy };
    assert_eq!(append(&mut server, &device, 4, notes), [failed]);
    let opened = open_document(&mut server, &device, &key("a")).expect("it is there");
    assert_eq!(opened.timeline.map(|state| state.range.to_string()).as_deref(), Some("1..3"));
    let destroy = StoreRequest::Destroy { ticket: Ticket(5), document: key("a") };
    server.serve(OWNER, destroy);
    server.flush();
    assert_eq!(settle(&mut server, &device), [durable(5)]);
}

/// Goal: nothing is decided on what is about to be taken back. Method: an owner has as many appends
/// outstanding as it may, some of them written, and comes with one that takes several slices: there
/// is no room for what is not written.
#[test]
fn an_append_that_waits_for_room_in_vain_comes_after_what_is_taken_back() {
    let device = CrashDevice::new();
    let limits = Limits {
        owner_appends_max: 3,
        slice: BudgetLimits { pages: 1, ..Limits::DEFAULT.slice },
        frame_pages_max: 1,
        ..Limits::DEFAULT
    };
    let options = StoreOptions { log_buffer_size_max: 4096, limits, ..StoreOptions::default() };
    let open = |device: &CrashDevice| open_with(device, options);
    let mut server = open(&device);
    append(&mut server, &device, 1, storage("a", [entry(1, 2, 1, &[(1, 1)])]));
    for ticket in [2, 3] {
        let mut noted = timeline("b", [ticket - 1]);
        noted.record = Some(vec![ticket as u8; 3000].into());
        server.serve(OWNER, request(ticket, noted));
    }
    server.serve(OWNER, request(4, timeline("b", [3])));
    device.fail_call(device.calls() + 1, DiskFault::Full);
    let pages = [(1, 2), (2, 2), (3, 2), (4, 2)];
    server.serve(OWNER, request(5, storage("a", [entry(2, 3, 4, &pages)])));
    server.flush();
    let failed = StoreReply::AppendFailed { ticket: Ticket(4), error: AppendError::Full };
    let replies = settle(&mut server, &device);
    assert_eq!(replies, [durable(3), failed, durable(5)]);
    let expected = pages.map(|(pgid, fill)| (Pgid(pgid), page(fill)));
    assert_eq!(read(&mut open(&device), &device, "a", &[1, 2, 3, 4]), expected);
}

#[test]
fn a_failure_is_told_only_when_nothing_of_the_append_can_be_found_again() {
    let (device, mut server) = new();
    append(&mut server, &device, 1, timeline("a", [1]));
    device.hold_flushes(true);
    device.fail_call(device.calls() + 1, DiskFault::Full);
    let mut large = timeline("a", [2]);
    large.record = Some(vec![1; 5000].into());
    server.serve(OWNER, request(2, timeline("a", [2])));
    server.serve(OWNER, request(3, large));
    server.flush();
    assert_eq!(poll_all(&mut server), [], "ticket 2 has reached the device");
    device.complete_flushes();
    assert_eq!(poll_all(&mut server).len(), 2);
    let left = device.crash(&mut |_| 0);
    let opened = open_document(&mut open(&left), &left, &key("a")).expect("it is there");
    assert_eq!(opened.timeline.map(|state| state.frames), Some(vec![frame(1)]));
}

#[test]
fn nobody_reads_behind_a_failed_append_before_it_is_told() {
    let (device, mut server) = new();
    append(&mut server, &device, 1, storage("a", [entry(1, 2, 1, &[(1, 1)])]));
    device.hold_flushes(true);
    device.fail_call(device.calls() + 1, DiskFault::Full);
    server.serve(OWNER, request(2, storage("a", [entry(2, 3, 1, &[(1, 2)])])));
    server.flush();
    server.serve(OWNER, read_of(1, "a", [1]));
    assert_eq!(poll_all(&mut server), [], "the page of entry 1 is older than what was appended");
    device.complete_flushes();
    let failed = StoreReply::AppendFailed { ticket: Ticket(2), error: AppendError::Full };
    assert_eq!(poll_all(&mut server), [failed]);
    device.hold_flushes(false);
    open_document(&mut server, &device, &key("a")).expect("it is there");
    assert_eq!(read(&mut server, &device, "a", &[1]), [(Pgid(1), page(1))]);
}

#[test]
fn a_failed_flush_breaks_the_server_for_everybody() {
    let (device, mut server) = new();
    server.serve(OwnerId(2), StoreRequest::List { request: RequestId(1) });
    server.serve(OWNER, request(1, timeline("a", [1])));
    device.fail_call(device.calls() + 2, DiskFault::Device);
    server.flush();
    let broken = |to: OwnerId, replies: &[(OwnerId, StoreReply)]| {
        let mut replies = replies.iter();
        replies.any(|(owner, reply)| *owner == to && matches!(reply, StoreReply::Broken { .. }))
    };
    let replies = server.poll();
    assert!(broken(OWNER, &replies) && broken(OwnerId(2), &replies));
    assert!(replies.iter().all(|(_, reply)| !matches!(reply, StoreReply::Durable { .. })));
    server.serve(OWNER, StoreRequest::List { request: RequestId(2) });
    assert!(broken(OWNER, &server.poll()));
    assert!(!server.wants_poll());
}
