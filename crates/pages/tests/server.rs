//! What owners ask of a page server, and what they are told.

use std::collections::BTreeMap;

use tidelog_disk::{CrashDevice, CrashDisk, Disk, DiskFault, MemoryDisk, StoreFiles};
use tidelog_pages::{
    Append, AppendError, OpenError, OwnerId, PageServer, RequestId, Seed, StorageEntry,
    StoreOptions, StoreReply, StoreRequest, Ticket, TimelineFrame, Urgency,
};
use tidelog_testing::Rng;
use tidelog_testing::store::make::{
    STORAGE, TIMELINE, durable, frame, key, lsn, page, read_of, request, storage, timeline,
};
use tidelog_testing::store::{
    OWNER, Server, ask, changes, files, observe, open, open_document, open_with, poll_all, seed,
    settle, sync_prepare,
};
use tidelog_types::limits::{EXTENT_PAGES, LSN_MAX, Limits, PAGE_SIZE};
use tidelog_types::{
    BudgetLimits, CallId, Chain, Epoch, JournalId, Life, Lsn, LsnRange, Page, PageSet, Pgid,
    Position,
};

/// As other tests make them, but each of a life of its own.
fn entry(start: u64, end: u64, db_pages: u32, pages: &[(u32, u8)]) -> StorageEntry {
    let position = Position {
        journal: STORAGE,
        life: Life([end as u8; 16]),
        next: lsn(end),
        chain: Chain([end as u8; 32]),
    };
    let pages = pages.iter().map(|(pgid, fill)| (Pgid(*pgid), page(*fill))).collect();
    let set = PageSet { db_pages, pages };
    let range = LsnRange::new(lsn(start), lsn(end));
    StorageEntry { range, position, calls: vec![(CallId([start as u8; 16]), range.start())], set }
}

/// Appends, flushes, and gives what is answered.
fn append(
    server: &mut Server,
    device: &CrashDevice,
    ticket: u64,
    append: Append,
) -> Vec<StoreReply> {
    server.serve(OWNER, request(ticket, append));
    server.flush();
    settle(server, device)
}

fn is_out_of_place(replies: &[StoreReply]) -> bool {
    let [StoreReply::AppendFailed { error, .. }] = replies else { return false };
    matches!(error, AppendError::OutOfPlace { .. })
}

fn read(server: &mut Server, device: &CrashDevice, name: &str, pgids: &[u32]) -> Vec<(Pgid, Page)> {
    let request = read_of(9, name, pgids.iter().copied());
    let mut found = Vec::new();
    for reply in ask(server, device, request) {
        let StoreReply::Pages { pages, .. } = reply else { panic!("read answered {reply:?}") };
        found.extend(pages);
    }
    found
}

fn new() -> (CrashDevice, Server) {
    let device = CrashDevice::new();
    let server = open(&device);
    (device, server)
}

/// Fills the log with a document nobody looks at, until it has changed over `times` times.
fn change_over(server: &mut Server, device: &CrashDevice, times: usize) {
    let generation = |server: &Server| {
        let text = server.to_string();
        let after = text.split("generation ").nth(1).expect("it is displayed");
        after.split(' ').next().and_then(|number| number.parse::<u64>().ok()).expect("a number")
    };
    let target = generation(server) + times as u64;
    let mut ticket = 1_000_000;
    while generation(server) < target {
        ticket += 1;
        let mut filler = Append::to(key("zz-filler"));
        filler.record = Some(vec![ticket as u8; 9000].into());
        assert_eq!(append(server, device, ticket, filler), [durable(ticket)]);
    }
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

#[test]
fn a_document_comes_back_as_it_was_appended() {
    let (device, mut server) = new();
    assert_eq!(open_document(&mut server, &device, &key("a")), None);
    let mut first = timeline("a", 1..5);
    first.record = Some(b"notes".to_vec().into());
    first.trim_timeline = Some(lsn(3));
    first.begin_storage = Some(STORAGE);
    first.storage = vec![entry(1, 2, 3, &[(1, 11), (3, 33)]), entry(2, 8, 3, &[(3, 44)])];
    assert_eq!(append(&mut server, &device, 1, first), [durable(1)]);
    for _ in 0..3 {
        let opened = open_document(&mut server, &device, &key("a")).expect("it is there");
        assert_eq!(opened.record, b"notes");
        let state = opened.timeline.expect("it was begun");
        assert_eq!((state.journal, state.range.to_string()), (TIMELINE, "3..5".to_owned()));
        assert_eq!(state.frames, [frame(3), frame(4)]);
        assert_eq!(opened.storage.map(|position| position.next), Some(lsn(8)));
        assert_eq!((opened.db_pages, opened.first_page), (3, Some(page(11))));
        let calls = [(CallId([1; 16]), lsn(1)), (CallId([2; 16]), lsn(2))];
        assert_eq!(opened.calls, [calls, calls].concat(), "trimmed ones, and storage entries");
        let pages = read(&mut server, &device, "a", &[1, 2, 3, 4]);
        assert_eq!(pages, [(Pgid(1), page(11)), (Pgid(3), page(44))]);
        drop(server);
        server = open(&device);
        change_over(&mut server, &device, 1);
    }
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

/// Goal: a document that its server has lost a part of is replaced on the disk too, though the
/// journal keeps its id. Method: a journal of three entries begins anew with another, shorter one,
/// which is handed over again, as it is and after a change-over. It begins as the old one does.
#[test]
fn a_storage_journal_can_begin_anew_under_its_id() {
    let (device, mut server) = new();
    let old = [entry(1, 4, 3, &[(1, 1), (2, 2), (3, 3)]), entry(4, 7, 3, &[(2, 4)])];
    append(&mut server, &device, 1, storage("a", old));
    let mut anew =
        storage("a", [entry(1, 4, 3, &[(1, 1), (2, 2), (3, 3)]), entry(4, 5, 2, &[(2, 6)])]);
    anew.storage[1].position.life = Life([9; 16]);
    anew.is_anew = true;
    for ticket in 2..4 {
        assert_eq!(append(&mut server, &device, ticket, anew.clone()), [durable(ticket)]);
        let opened = open_document(&mut server, &device, &key("a")).expect("it is there");
        assert_eq!(opened.storage, Some(anew.storage[1].position));
        let pages = read(&mut server, &device, "a", &[1, 2, 3]);
        assert_eq!(pages, [(Pgid(1), page(1)), (Pgid(2), page(6))]);
    }
    change_over(&mut server, &device, 1);
    drop(server);
    let mut server = open(&device);
    let opened = open_document(&mut server, &device, &key("a")).expect("it is there");
    assert_eq!(opened.storage, Some(anew.storage[1].position));
    assert_eq!(append(&mut server, &device, 4, anew), [durable(4)]);
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
fn a_long_read_is_served_in_turn_with_others_and_sees_one_state() {
    let (device, mut server) = new();
    let count = 10 * Limits::DEFAULT.read_chunk_pages as u32;
    let all: Vec<(u32, u8)> = (1..=count).map(|pgid| (pgid, 1)).collect();
    append(&mut server, &device, 1, storage("a", [entry(1, 2, count, &all)]));
    let long = |pgids: std::ops::RangeInclusive<u32>| read_of(1, "a", pgids);
    settle(&mut server, &device);
    server.serve(OWNER, long(1..=count));
    server.serve(OwnerId(2), long(5..=5));
    let again: Vec<(u32, u8)> = (1..=count).map(|pgid| (pgid, 2)).collect();
    server.serve(OWNER, request(2, storage("a", [entry(2, 3, count, &again)])));
    let first = [server.poll(), server.poll()].concat();
    assert!(first.iter().any(|(owner, _)| *owner == OwnerId(2)), "it did not wait");
    let mut seen = 0;
    for reply in first
        .into_iter()
        .chain(std::iter::from_fn(|| server.wants_poll().then(|| server.poll())).flatten())
    {
        if let (OWNER, StoreReply::Pages { pages, last, .. }) = reply {
            assert!(pages.len() <= Limits::DEFAULT.read_chunk_pages);
            assert!(pages.iter().all(|(_, found)| *found == page(1)), "as when it was asked");
            seen += pages.len() as u32;
            assert_eq!(last, seen == count);
        }
    }
    assert_eq!(seen, count);
}

#[test]
fn changes_are_the_pages_that_a_follower_lacks() {
    let (device, mut server) = new();
    let entries = [
        entry(1, 2, 4, &[(1, 1), (2, 1), (3, 1), (4, 1)]),
        entry(2, 50, 4, &[(2, 2)]),
        entry(50, 51, 3, &[(3, 3)]),
    ];
    append(&mut server, &device, 1, storage("a", entries));
    let since = |server: &mut Server, from: u64| {
        let set = changes(server, &device, &key("a"), lsn(from));
        assert_eq!(set.db_pages, 3);
        set.pages.into_keys().map(|pgid| pgid.0).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        assert_eq!(since(&mut server, 1), [1, 2, 3]);
        assert_eq!(since(&mut server, 2), [2, 3]);
        assert_eq!(since(&mut server, 30), [2, 3], "within a range");
        assert_eq!(since(&mut server, 50), [3]);
        assert_eq!(since(&mut server, 51), Vec::<u32>::new());
        change_over(&mut server, &device, 2);
    }
    let mut unrelated = |document: &str, journal: JournalId, since: u64| {
        sync_prepare(&mut server, &device, &key(document), journal, lsn(since))
            .expect_err("it does not follow")
            .map(|position| position.next)
    };
    assert_eq!(unrelated("b", STORAGE, 1), None, "no such document");
    assert_eq!(unrelated("a", JournalId([7; 16]), 1), Some(lsn(51)), "another journal");
    assert_eq!(unrelated("a", STORAGE, 52), Some(lsn(51)), "it never came that far");
}

#[test]
fn calls_are_remembered_across_a_change_over() {
    let (device, mut server) = new();
    append(&mut server, &device, 1, storage("a", [entry(1, 2, 1, &[(1, 1)])]));
    change_over(&mut server, &device, 3);
    drop(server);
    let opened = open_document(&mut open(&device), &device, &key("a")).expect("it is there");
    assert_eq!(opened.calls, [(CallId([1; 16]), lsn(1))]);
}

#[test]
fn a_document_of_which_pages_are_absent_is_like_any_other() {
    let (device, mut server) = new();
    // Of nine pages two are here, and later one more.
    append(&mut server, &device, 1, storage("a", [entry(1, 5, 9, &[(2, 2), (7, 7)])]));
    append(&mut server, &device, 2, storage("a", [entry(5, 6, 9, &[(4, 4)])]));
    for _ in 0..3 {
        let opened = open_document(&mut server, &device, &key("a")).expect("it is there");
        assert_eq!((opened.db_pages, opened.first_page, opened.is_incomplete), (9, None, false));
        let (urgency, document) = (Urgency::User, key("a"));
        let pgids = (1..=10).map(Pgid).collect();
        let read = StoreRequest::Read { request: RequestId(1), urgency, document, pgids };
        let replies = ask(&mut server, &device, read);
        let [StoreReply::Pages { pages, last: true, .. }] = replies.as_slice() else {
            panic!("{replies:?}")
        };
        let here = [(Pgid(2), page(2)), (Pgid(4), page(4)), (Pgid(7), page(7))];
        assert_eq!(pages.as_slice(), here, "an absent page is not listed");
        let lacks = changes(&mut server, &device, &key("a"), lsn(5));
        assert_eq!(lacks.pages.into_keys().collect::<Vec<_>>(), [Pgid(4)]);
        change_over(&mut server, &device, 1);
        drop(server);
        server = open(&device);
    }
    append(&mut server, &device, 90, storage("a", [entry(6, 7, 9, &[(1, 1)])]));
    let opened = open_document(&mut server, &device, &key("a")).expect("it is there");
    assert_eq!(opened.first_page, Some(page(1)), "it was fetched");
}

#[test]
fn the_extents_of_a_destroyed_document_are_used_again() {
    let (device, mut server) = new();
    let count = EXTENT_PAGES;
    let mut sizes = Vec::new();
    for round in 0..6_u8 {
        let all: Vec<(u32, u8)> = (1..=count).map(|pgid| (pgid, round)).collect();
        let ticket = u64::from(round) * 10 + 1;
        append(&mut server, &device, ticket, storage("a", [entry(1, 2, count, &all)]));
        change_over(&mut server, &device, 1);
        assert_eq!(read(&mut server, &device, "a", &[count]), [(Pgid(count), page(round))]);
        let destroy = StoreRequest::Destroy { ticket: Ticket(ticket + 1), document: key("a") };
        server.serve(OWNER, destroy);
        server.flush();
        assert_eq!(settle(&mut server, &device), [durable(ticket + 1)]);
        assert_eq!(open_document(&mut server, &device, &key("a")), None);
        change_over(&mut server, &device, 1);
        sizes.push(device.bytes_of("pages").expect("a file").len());
    }
    assert!(sizes.iter().all(|size| *size == sizes[0]), "the page file grew: {sizes:?}");
}

#[test]
fn a_begun_storage_journal_forgets_the_pages_of_the_one_before() {
    let (device, mut server) = new();
    append(&mut server, &device, 1, storage("a", [entry(1, 2, 2, &[(1, 1), (2, 2)])]));
    change_over(&mut server, &device, 1);
    let mut again = Append::to(key("a"));
    again.begin_storage = Some(JournalId([3; 16]));
    append(&mut server, &device, 2, again);
    let opened = open_document(&mut server, &device, &key("a")).expect("it is there");
    assert_eq!(opened.storage, Some(Position::start_of(JournalId([3; 16]))));
    assert_eq!((opened.db_pages, opened.first_page), (0, None));
    assert_eq!(read(&mut server, &device, "a", &[1, 2]), []);
}

#[test]
fn a_page_that_rotted_is_never_handed_out() {
    for (file, changes_over) in [("log-a", 0), ("pages", 1)] {
        let (device, mut server) = new();
        append(&mut server, &device, 1, storage("a", [entry(1, 2, 1, &[(1, 0xAB)])]));
        append(&mut server, &device, 2, timeline("b", [1]));
        change_over(&mut server, &device, changes_over);
        // A store opened before the damage, so that the log was whole then; its pool is empty.
        let mut server = open(&device);
        let bytes = device.bytes_of(file).expect("a file");
        let at = bytes.windows(PAGE_SIZE).position(|run| run.iter().all(|byte| *byte == 0xAB));
        let at = at.expect("the page lies there") as u64 + 100;
        device.file(file).write_at(at, &[0xAA]).expect("room");
        server.serve(OwnerId(2), request(1, timeline("b", [2])));
        server.serve(OWNER, read_of(1, "a", [1]));
        server.flush();
        let replies = server.poll();
        let to_owner = replies.iter().filter(|(owner, _)| *owner == OWNER);
        let to_owner: Vec<_> = to_owner.map(|(_, reply)| reply).collect();
        let damaged =
            StoreReply::Damaged { request: RequestId(1), document: key("a"), pgids: vec![Pgid(1)] };
        assert_eq!(to_owner.last(), Some(&&damaged));
        assert!(replies.contains(&(OwnerId(2), durable(1))), "others go on");
        // The owner does too, and with other documents; even a change-over that meets the page.
        for ticket in 2..9 {
            let mut filler = timeline("b", [ticket + 1]);
            filler.timeline[0].body = vec![1; 10_000];
            assert_eq!(append(&mut server, &device, ticket, filler), [durable(ticket)]);
        }
        let opened = open_document(&mut server, &device, &key("a")).expect("it is there");
        assert_eq!(opened.first_page, None, "it is asked for, and then said to be damaged");
    }
}

#[test]
fn what_is_intact_is_read_beside_a_damaged_page_and_a_compaction_is_never_a_part() {
    let (device, mut server) = new();
    let pages: Vec<(u32, u8)> = (1..=40).map(|pgid| (pgid, pgid as u8)).collect();
    append(&mut server, &device, 1, storage("a", [entry(1, 2, 40, &pages)]));
    let mut server = open(&device);
    let bytes = device.bytes_of("pages").expect("a file");
    let at = bytes.windows(PAGE_SIZE).position(|run| run.iter().all(|byte| *byte == 30));
    let at = at.expect("the page lies there") as u64 + 100;
    device.file("pages").write_at(at, &[0xAA]).expect("room");
    let damaged =
        |request| StoreReply::Damaged { request, document: key("a"), pgids: vec![Pgid(30)] };
    let mut replies = ask(&mut server, &device, read_of(1, "a", 1..=40));
    assert_eq!(replies.pop(), Some(damaged(RequestId(1))));
    let mut read = BTreeMap::new();
    for reply in replies {
        let StoreReply::Pages { pages, last: false, .. } = reply else { panic!("{reply:?}") };
        read.extend(pages);
    }
    let intact = (1..=40).filter(|pgid| *pgid != 30);
    assert_eq!(read, intact.map(|pgid| (Pgid(pgid), page(pgid as u8))).collect());
    let (urgency, document) = (Urgency::User, key("a"));
    let prepare = StoreRequest::SyncPrepare {
        request: RequestId(2),
        urgency,
        document,
        journal: STORAGE,
        since: lsn(1),
        from: Pgid(1),
        pages_max: u32::MAX,
    };
    assert_eq!(ask(&mut server, &device, prepare).pop(), Some(damaged(RequestId(2))));
}

#[test]
fn an_entry_larger_than_a_frame_is_one_entry() {
    let (device, mut server) = new();
    let mut rng = Rng::new(5);
    let count = 700;
    let pages: BTreeMap<Pgid, Page> = (1..=count).map(|pgid| (Pgid(pgid), rng.page())).collect();
    let mut large = entry(1, 2, count, &[]);
    large.set.pages = pages.clone();
    append(&mut server, &device, 1, storage("a", [large]));
    for _ in 0..2 {
        assert_eq!(changes(&mut server, &device, &key("a"), Lsn::FIRST).pages, pages);
        drop(server);
        server = open(&device);
        change_over(&mut server, &device, 1);
    }
}

#[test]
fn a_timeline_longer_than_the_log_does_not_make_the_log_change_over_all_the_time() {
    let (device, mut server) = new();
    let mut long = timeline("a", []);
    for number in 1..=200 {
        let body = vec![3; 1000];
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
