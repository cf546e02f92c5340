//! A store whose files were cleared under it: read, and nothing else.

use tidelog_disk::CrashDevice;
use tidelog_pages::{AppendError, OwnerId, StoreOptions, StoreReply, StoreRequest, Ticket};
use tidelog_testing::store::make::{
    durable, entry, key, page, read_of, request, storage, timeline,
};
use tidelog_testing::store::{
    OWNER, Server, open, open_document, open_with, poll_all, settle, small_log,
};
use tidelog_types::limits::Limits;
use tidelog_types::{BudgetLimits, Epoch, Life, Pgid};

/// A store whose next poll begins a change-over.
fn about_to_change_over() -> (CrashDevice, Server) {
    let device = CrashDevice::new();
    let mut server = open(&device);
    let pages: Vec<(u32, u8)> = (1..=40).map(|pgid| (pgid, 1)).collect();
    server.serve(OWNER, request(1, storage("a", [entry(1, 2, 40, &pages)])));
    server.serve(OWNER, request(2, timeline("b", 1..50)));
    server.flush();
    (device, server)
}

fn is_refused(replies: &[StoreReply], ticket: Ticket) -> bool {
    let [StoreReply::AppendFailed { ticket: failed, error }] = replies else { return false };
    *failed == ticket && matches!(error, AppendError::Device { .. })
}

/// Does a piece of what is left to be done, if anything is.
fn goes_on(server: &mut Server, device: &CrashDevice) -> bool {
    let is_left = server.wants_poll() || device.has_held_flushes();
    if !server.wants_poll() {
        device.complete_flushes();
    }
    server.poll();
    is_left
}

/// Goal: what is in memory is the last copy, and stays readable whatever was under way: a write or
/// a flush could fail, and the store would break. Method: the files are cleared after each call of
/// a change-over in turn, batches held for it or not, and all later calls that change one counted.
#[test]
fn a_store_whose_files_are_gone_is_read_and_touches_them_no_more() {
    let (mut steps, mut held) = (0, 0);
    loop {
        let (device, mut server) = about_to_change_over();
        device.hold_flushes(true);
        if !(0..steps).all(|_| goes_on(&mut server, &device)) {
            break;
        }
        steps += 1;
        server.serve(OWNER, request(3, timeline("b", [50])));
        server.flush();
        held += u32::from(server.holds_back());
        server.lose();
        // The end of the flush that was asked for before is noted with the next call.
        let changes = device.changing_calls().len() + 1;
        device.complete_flushes();
        let replies = poll_all(&mut server);
        assert!(!replies.contains(&durable(3)), "step {steps}: {replies:?}");

        server.serve(OWNER, request(4, timeline("b", [51])));
        server.flush();
        let replies = poll_all(&mut server);
        assert!(is_refused(&replies, Ticket(4)), "step {steps}: {replies:?}");
        let document = key("b");
        server
            .serve(OWNER, StoreRequest::Destroy { ticket: Ticket(5), document: document.clone() });
        assert!(is_refused(&poll_all(&mut server), Ticket(5)), "step {steps}");
        let opened = open_document(&mut server, &device, &document).expect("it is there");
        assert_eq!(opened.timeline.map(|it| it.range.end().get()), Some(51));
        // Who was refused goes on with what was there before, and opens nothing anew.
        server.serve(OWNER, request(6, storage("a", [entry(2, 3, 40, &[(7, 2)])])));
        server.flush();
        assert!(is_refused(&poll_all(&mut server), Ticket(6)), "step {steps}");
        server.serve(OWNER, read_of(6, "a", [7]));
        match poll_all(&mut server).as_slice() {
            [StoreReply::Pages { pages, last: true, .. }] => {
                assert_eq!(*pages, [(Pgid(7), page(1))]);
            }
            other => panic!("step {steps}: {other:?}"),
        }
        server.mark_durable();
        assert_eq!(poll_all(&mut server), [], "it is not broken");
        assert_eq!(device.changing_calls().len(), changes, "step {steps}");
    }
    assert!(steps > 10 && held > 0, "{steps} steps, batches held in {held}");
}

#[test]
fn a_store_whose_files_are_gone_lets_nobody_in() {
    let (device, mut server) = about_to_change_over();
    let hello = StoreRequest::Hello { epoch: Epoch(0), life: Life::NONE };
    device.hold_flushes(true);
    server.serve(OWNER, hello.clone());
    server.flush();
    server.lose();
    device.complete_flushes();
    server.serve(OwnerId(2), hello);
    server.flush();
    assert_eq!(settle(&mut server, &device), []);
}

/// Goal: an append that the loss of the files meets half recorded is there whole, and the files are
/// left alone. Method: one that is written in parts, and the files are lost after each poll in
/// turn, on a device that has room for it and on one that has none, where it is being taken back
/// and a read holds that up.
#[test]
fn an_append_that_is_half_recorded_when_the_files_go_is_whole_in_memory() {
    const PAGES: u32 = 1000;
    let slice = BudgetLimits { pages: 64, ..Limits::DEFAULT.slice };
    let limits = Limits { slice, ..Limits::DEFAULT };
    let options = StoreOptions { limits, ..small_log() };
    for has_room in [false, true] {
        let (mut steps, mut halves) = (0, 0);
        loop {
            let device = CrashDevice::new();
            let mut server = open_with(&device, options);
            let pages = |fill| (1..=PAGES).map(|pgid| (pgid, fill)).collect::<Vec<_>>();
            server.serve(OWNER, request(1, storage("a", [entry(1, 2, PAGES, &pages(1))])));
            server.flush();
            assert_eq!(settle(&mut server, &device), [durable(1)]);
            device.set_capacity((!has_room).then(|| device.used()));
            server.serve(OwnerId(2), read_of(1, "a", 1..=PAGES));
            server.serve(OWNER, request(2, storage("a", [entry(2, 3, PAGES, &pages(2))])));
            let replies = (0..steps).flat_map(|_| server.poll()).map(|(_, reply)| reply);
            let failed = |reply| matches!(reply, StoreReply::AppendFailed { .. });
            if replies.filter(|reply| *reply == durable(2) || failed(reply.clone())).count() > 0 {
                break;
            }
            halves += u32::from(server.is_behind());
            steps += 1;
            server.lose();
            let changes = device.changing_calls().len();
            poll_all(&mut server);
            server.serve(OwnerId(3), read_of(2, "a", 1..=PAGES));
            let mut fills = [0; 3];
            for reply in poll_all(&mut server) {
                let StoreReply::Pages { pages, .. } = reply else { panic!("{steps}: {reply:?}") };
                pages.iter().for_each(|(_, page)| fills[usize::from(page.bytes()[0])] += 1);
            }
            let is_whole = fills == [0, 0, PAGES] || fills == [0, PAGES, 0];
            assert!(is_whole, "room: {has_room}, step {steps}: {fills:?}");
            assert!(!server.is_broken(), "room: {has_room}, step {steps}");
            assert_eq!(device.changing_calls().len(), changes, "room: {has_room}, step {steps}");
        }
        assert!(halves > 1, "room: {has_room}: half recorded in {halves} of {steps} steps");
    }
}
