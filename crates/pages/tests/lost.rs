//! A store whose files were cleared under it: read, and nothing else.

use tidelog_disk::CrashDevice;
use tidelog_pages::{AppendError, OwnerId, StoreReply, StoreRequest, Ticket};
use tidelog_testing::store::make::{
    durable, entry, key, page, read_of, request, storage, timeline,
};
use tidelog_testing::store::{OWNER, Server, open, open_document, poll_all, settle};
use tidelog_types::{Epoch, Life, Pgid};

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
