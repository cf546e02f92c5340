//! Owners that follow each other: what each is granted, and what becomes of those that went away.

use tidelog_pages::{AppendError, OwnerId, StagedPage, StoreReply, StoreRequest, Ticket};
use tidelog_testing::store::make::{
    durable, entry_of_own_life as entry, key, page, read_of, request, storage, timeline,
};
use tidelog_testing::store::{OWNER, Server, append, change_over, new, open, poll_all, settle};
use tidelog_types::{Epoch, Life, Pgid};

#[test]
fn a_new_epoch_fences_off_the_owners_before_it() {
    let (device, mut server) = new();
    let hello = |server: &mut Server, owner: u64, epoch: u64| {
        server.serve(OwnerId(owner), StoreRequest::Hello { epoch: Epoch(epoch), life: Life::NONE });
        assert_eq!(server.poll(), [], "not durable yet");
        server.flush();
        server.poll()
    };
    let ready = |epoch| StoreReply::Ready { epoch: Epoch(epoch) };
    assert_eq!(hello(&mut server, 1, 0), [(OWNER, ready(1))]);
    append(&mut server, &device, 1, timeline("a", [1]));
    assert_eq!(hello(&mut server, 2, 6), [(OwnerId(2), ready(6))]);
    server.serve(OWNER, request(2, timeline("a", [2])));
    let error = AppendError::Fenced { current: Epoch(6) };
    let failed = StoreReply::AppendFailed { ticket: Ticket(2), error: error.clone() };
    assert_eq!(server.poll(), [(OWNER, failed)]);
    server.serve(OWNER, StoreRequest::Hello { epoch: Epoch(100), life: Life::NONE });
    assert_eq!(server.poll(), [(OWNER, StoreReply::Broken { error })]);
    drop(server);
    let mut server = open(&device);
    assert_eq!(server.epoch(), Epoch(6));
    change_over(&mut server, &device, 1);
    drop(server);
    assert_eq!(hello(&mut open(&device), 3, 0), [(OwnerId(3), ready(7))]);
}

/// Goal: a core whose data were cleared finds that out, however many page servers die before it has
/// heard of their grant.
#[test]
fn a_store_that_nobody_ever_held_grants_nothing_to_who_has_held_one() {
    let (device, server) = new();
    drop(server);
    for (owner, epoch, granted) in [(1, 3, 3), (2, 3, 3), (3, 0, 1), (4, 1, 2)] {
        let mut server = open(&device);
        let hello = StoreRequest::Hello { epoch: Epoch(epoch), life: Life::NONE };
        server.serve(OwnerId(owner), hello);
        server.flush();
        let ready = StoreReply::Ready { epoch: Epoch(granted) };
        assert_eq!(server.poll(), [(OwnerId(owner), ready)]);
    }
}

#[test]
fn the_late_hello_of_a_dead_core_takes_nothing_from_its_successor() {
    let (device, mut server) = new();
    let hello = || StoreRequest::Hello { epoch: Epoch(0), life: Life::NONE };
    let successor = OwnerId(2);
    server.serve(successor, hello());
    server.flush();
    assert_eq!(server.poll(), [(successor, StoreReply::Ready { epoch: Epoch(1) })]);
    server.serve(OWNER, hello());
    let error = AppendError::Fenced { current: Epoch(1) };
    assert_eq!(server.poll(), [(OWNER, StoreReply::Broken { error })]);
    server.serve(successor, request(1, timeline("a", [1])));
    server.flush();
    assert_eq!(settle(&mut server, &device), [durable(1)]);
    assert_eq!(server.epoch(), Epoch(1), "nothing was granted meanwhile");
}

#[test]
fn an_owner_that_went_away_takes_its_requests_with_it() {
    let (device, mut server) = new();
    let all: Vec<(u32, u8)> = (1..=300).map(|pgid| (pgid, 1)).collect();
    append(&mut server, &device, 1, storage("a", [entry(1, 2, 300, &all)]));
    server.serve(OwnerId(2), read_of(1, "a", 1..=300));
    server.poll();
    server.forget_owner(OwnerId(2));
    assert!(!server.wants_poll());
    assert_eq!(server.poll(), []);
}

/// There is no room twice, and in between a document was to be opened.
#[test]
fn an_owner_that_went_away_is_told_nothing_of_what_waited_twice() {
    const GONE: OwnerId = OwnerId(2);
    let (device, mut server) = new();
    append(&mut server, &device, 1, timeline("a", [1]));
    device.set_full(true);
    server.serve(OWNER, request(2, timeline("a", [2])));
    server.flush();
    server.serve(OWNER, request(3, timeline("b", [1])));
    server.serve(GONE, StoreRequest::Open { document: key("a") });
    server.forget_owner(GONE);
    let mut replies = Vec::new();
    while server.wants_poll() {
        replies.extend(server.poll());
    }
    let failed = replies.iter().filter(|(_, reply)| is_failure(reply)).count();
    assert_eq!(failed, 2, "{replies:?}");
    assert!(replies.iter().all(|(owner, _)| *owner == OWNER), "{replies:?}");
}

fn is_failure(reply: &StoreReply) -> bool {
    matches!(reply, StoreReply::AppendFailed { .. })
}

#[test]
fn nothing_of_an_owner_stays_in_memory_once_another_one_has_said_hello() {
    let (device, mut server) = new();
    let pages: Vec<(u32, u8)> = (1..=100).map(|pgid| (pgid, 1)).collect();
    append(&mut server, &device, 1, storage("a", [entry(1, 2, 100, &pages)]));
    let staged = (1..=50).map(|pgid| StagedPage { entry: 0, pgid: Pgid(pgid), page: page(1) });
    server.serve(OWNER, StoreRequest::Stage { ticket: Ticket(2), pages: staged.collect() });
    server.serve(OWNER, read_of(1, "a", 1..=100));
    assert!(server.to_string().ends_with("reads 1 staged 50 waiting 0"), "{server}");
    server.serve(OwnerId(2), StoreRequest::Hello { epoch: Epoch(0), life: Life::NONE });
    assert!(server.to_string().ends_with("reads 0 staged 0 waiting 0"), "{server}");
    server.flush();
    let ready = StoreReply::Ready { epoch: Epoch(1) };
    assert_eq!(poll_all(&mut server), [ready]);
}
