//! Appends: when they are durable, what comes of those that are handed over again, and which are
//! out of place.

use std::collections::BTreeMap;

use tidelog_disk::CrashDevice;
use tidelog_pages::{
    Append, AppendError, OwnerId, PageServer, StorageEntry, StoreReply, StoreRequest, TimelineFrame,
};
use tidelog_testing::store::make::{
    STORAGE, TIMELINE, durable, entry_of_own_life as entry, key, lsn, page, request, storage,
    timeline,
};
use tidelog_testing::store::{
    OWNER, Server, append, change_over, files, new, observe, open, open_document, poll_all, seed,
    settle,
};
use tidelog_types::limits::LSN_MAX;
use tidelog_types::{
    CallId, Chain, Epoch, JournalId, Life, Lsn, LsnRange, PageSet, Pgid, Position,
};

fn is_out_of_place(replies: &[StoreReply]) -> bool {
    let [StoreReply::AppendFailed { error, .. }] = replies else { return false };
    matches!(error, AppendError::OutOfPlace { .. })
}

#[test]
fn an_append_is_durable_only_once_its_flush_is_complete() {
    let (device, mut server) = new();
    // The store is begun first.
    assert_eq!(poll_all(&mut server), []);
    device.hold_flushes(true);
    server.serve(OWNER, request(1, timeline("a", 1..3)));
    assert_eq!(poll_all(&mut server), [], "not flushed");
    server.flush();
    assert_eq!(poll_all(&mut server), [], "the flush is under way");
    device.complete_flushes();
    assert_eq!(poll_all(&mut server), [durable(1)]);
}

#[test]
fn many_appends_share_one_write_and_one_flush() {
    let device = CrashDevice::new();
    let (mut server, _) = PageServer::open(files(&device), seed(&device)).expect("an empty store");
    let calls = device.calls();
    server.serve(OWNER, request(1, timeline("a", [1])));
    for number in 2..=100 {
        server.serve(OWNER, request(number, timeline("a", [number])));
        server.serve(OwnerId(2), request(number, timeline("b", 1..=number)));
    }
    server.flush();
    assert_eq!(device.calls() - calls, 2);
    let replies = server.poll();
    assert_eq!(replies, [(OWNER, durable(100)), (OwnerId(2), durable(100))]);
}

#[test]
fn a_timeline_longer_than_the_log_does_not_make_the_log_change_over_all_the_time() {
    let (device, mut server) = new();
    let mut long = timeline("a", []);
    for number in 1..=200 {
        let body = vec![3; 1048];
        let call = CallId([0; 16]);
        long.timeline.push(TimelineFrame { lsn: lsn(number), call, body });
    }
    append(&mut server, &device, 1, long);
    let calls = device.calls();
    for ticket in 2..60 {
        append(&mut server, &device, ticket, timeline("b", [ticket - 1]));
    }
    assert!(device.calls() - calls < 3 * 60, "{} calls", device.calls() - calls);
}

#[test]
fn what_is_handed_over_again_is_skipped_and_what_is_out_of_place_refused() {
    let (device, mut server) = new();
    let mut first = timeline("a", 1..5);
    first.trim_timeline = Some(lsn(2));
    append(&mut server, &device, 1, first.clone());
    append(&mut server, &device, 2, storage("b", [entry(1, 4, 1, &[(1, 1)])]));
    let size = device.bytes_of("log-a").expect("a file").len();
    assert_eq!(append(&mut server, &device, 3, first), [durable(3)]);
    let again = storage("b", [entry(1, 4, 1, &[(1, 99)])]);
    assert_eq!(append(&mut server, &device, 4, again), [durable(4)]);
    assert_eq!(device.bytes_of("log-a").expect("a file").len(), size, "nothing was written");
    assert_eq!(append(&mut server, &device, 5, timeline("a", 4..7)), [durable(5)], "a part of it");

    let wrong = [
        timeline("a", [8]),
        storage("b", [entry(5, 6, 1, &[])]),
        storage("b", [entry(3, 6, 1, &[])]),
        storage("b", [entry(4, 5, 1, &[(2, 0)])]),
        storage("b", [entry(4, 5, 1, &[(0, 0)])]),
    ];
    for append_of in wrong {
        let mut server = open(&device);
        assert!(is_out_of_place(&append(&mut server, &device, 6, append_of.clone())));
        let mut other_call = timeline("a", [3]);
        other_call.timeline[0].call = CallId([99; 16]);
        let mut server = open(&device);
        assert!(is_out_of_place(&append(&mut server, &device, 6, other_call)));
    }
    let mut no_timeline = timeline("c", [1]);
    no_timeline.begin_timeline = None;
    assert!(is_out_of_place(&append(&mut server, &device, 6, no_timeline)));
    assert_eq!(open_document(&mut server, &device, &key("c")), None, "and nothing was made");
}

/// Goal: what is handed over again is neither appended twice nor refused, whatever has taken its
/// place since, and however long that is ago. Method: all appends of a core are handed over again,
/// of which the first begins a timeline, the third another one and takes the storage journal anew,
/// and each but the last has a record; right away, and after a change-over.
#[test]
fn what_is_handed_over_again_changes_nothing_however_late_it_comes() {
    let core = Life([9; 16]);
    let hello = |server: &mut Server, device: &CrashDevice, life: Life| {
        server.serve(OWNER, StoreRequest::Hello { epoch: Epoch(0), life });
        server.flush();
        assert!(matches!(settle(server, device).as_slice(), [StoreReply::Ready { .. }]));
    };
    let other = JournalId([77; 16]);
    let mut appends = vec![timeline("a", 1..4), timeline("a", 4..5), timeline("a", 1..3)];
    for (number, append) in appends.iter_mut().enumerate() {
        append.record = Some(vec![number as u8; 9].into());
        append.timeline_id = Some(if number == 2 { other } else { TIMELINE });
    }
    appends[0].begin_storage = Some(STORAGE);
    appends[0].storage = vec![entry(1, 4, 1, &[(1, 1)])];
    appends[1].begin_timeline = None;
    appends[2].begin_timeline = Some((other, Lsn::FIRST));
    (appends[2].begin_storage, appends[2].is_anew) = (Some(STORAGE), true);
    appends[2].storage = vec![entry(1, 9, 1, &[(1, 2)])];
    let mut last = timeline("a", 3..5);
    (last.begin_timeline, last.timeline_id) = (None, Some(other));
    last.storage = vec![entry(9, 10, 1, &[(1, 3)])];
    appends.push(last);

    for fillers in [0, 5] {
        let (device, mut server) = new();
        hello(&mut server, &device, core);
        let hand_over = |server: &mut Server| {
            for (ticket, again) in (1..).zip(&appends) {
                assert_eq!(append(server, &device, ticket, again.clone()), [durable(ticket)]);
            }
        };
        hand_over(&mut server);
        let opened = open_document(&mut server, &device, &key("a"));
        for ticket in 10..10 + fillers {
            let mut filler = Append::to(key("filler"));
            filler.record = Some(vec![ticket as u8; 4 << 20].into());
            append(&mut server, &device, ticket, filler);
        }
        assert_eq!(server.to_string().contains("generation 1"), fillers == 0, "{server}");
        drop(server);
        let mut server = open(&device);
        hello(&mut server, &device, core);
        hand_over(&mut server);
        assert_eq!(open_document(&mut server, &device, &key("a")), opened);
        // Tickets of another core say nothing.
        hello(&mut server, &device, Life([8; 16]));
        let mut nobodys = timeline("a", 3..4);
        (nobodys.begin_timeline, nobodys.timeline_id) = (None, Some(JournalId([78; 16])));
        assert!(is_out_of_place(&append(&mut server, &device, 2, nobodys)));
    }
}

#[test]
fn another_entry_at_a_known_lsn_is_refused_and_not_called_durable() {
    let (device, mut server) = new();
    let entries = [entry(1, 4, 1, &[(1, 1)]), entry(4, 5, 1, &[(1, 2)])];
    append(&mut server, &device, 1, storage("a", entries.clone()));
    append(&mut server, &device, 2, storage("b", entries.clone()));
    let others: [fn(&mut Position); 2] =
        [|it| it.life = Life([99; 16]), |it| it.chain = Chain([99; 32])];
    for (number, other) in others.into_iter().enumerate() {
        for index in [0, 1] {
            let mut append_of = storage("a", [entries[index].clone()]);
            append_of.begin_storage = None;
            other(&mut append_of.storage[0].position);
            let ticket = 3 + 2 * number as u64 + index as u64;
            let mut server = open(&device);
            assert!(is_out_of_place(&append(&mut server, &device, ticket, append_of)));
        }
    }
}

/// Goal: what is appended can be read at the next opening, however high its LSNs. Method: each
/// journal is brought to the last LSN there is, and then asked for one more; another document and
/// the next opening must not notice.
#[test]
fn an_lsn_past_the_last_one_is_refused_and_concerns_nobody_else() {
    let (device, mut server) = new();
    let last = Lsn::new(LSN_MAX).expect("the last one");
    let mut hostile = storage("a", [entry(1, LSN_MAX, 1, &[(1, 1)])]);
    hostile.begin_timeline = Some((TIMELINE, last));
    assert_eq!(append(&mut server, &device, 1, hostile), [durable(1)]);
    for (ticket, next) in [
        (2, timeline("a", [LSN_MAX])),
        (3, {
            let mut one_more = storage("a", []);
            let range = LsnRange::new(last, last.next());
            let position = Position { next: last.next(), ..Position::start_of(STORAGE) };
            let set = PageSet { db_pages: 1, pages: BTreeMap::from([(Pgid(1), page(2))]) };
            one_more.storage = vec![StorageEntry { range, position, calls: Vec::new(), set }];
            one_more
        }),
        (4, {
            let mut begun = Append::to(key("a"));
            begun.begin_timeline = Some((JournalId([9; 16]), last.next()));
            begun
        }),
    ] {
        assert!(is_out_of_place(&append(&mut server, &device, ticket, next)), "ticket {ticket}");
        open_document(&mut server, &device, &key("a"));
    }
    let mut late_call = storage("b", [entry(1, 2, 1, &[(1, 1)])]);
    late_call.storage[0].calls = vec![(CallId([1; 16]), last.next())];
    assert!(is_out_of_place(&append(&mut server, &device, 5, late_call)));
    assert_eq!(append(&mut server, &device, 6, timeline("c", [1])), [durable(6)]);
    let mut next = open(&device);
    assert_eq!(observe(&mut next, &device), observe(&mut server, &device));
    change_over(&mut next, &device, 2);
    assert!(open_document(&mut open(&device), &device, &key("c")).is_some());
}

#[test]
fn after_a_failed_append_the_document_is_refused_until_it_is_opened_anew() {
    let (device, mut server) = new();
    append(&mut server, &device, 1, timeline("a", [1]));
    assert!(is_out_of_place(&append(&mut server, &device, 2, timeline("a", [3]))));
    assert!(is_out_of_place(&append(&mut server, &device, 3, timeline("a", [2]))), "in place");
    assert_eq!(append(&mut server, &device, 4, timeline("b", [1])), [durable(4)], "another one");
    open_document(&mut server, &device, &key("a")).expect("it is there");
    assert_eq!(append(&mut server, &device, 5, timeline("a", [2])), [durable(5)]);
}
