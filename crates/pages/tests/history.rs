//! Reading what was: single storage entries, and pages as of an LSN.

use std::collections::BTreeMap;

use tidelog_disk::CrashDevice;
use tidelog_pages::Direction::{Backwards, Forwards};
use tidelog_pages::{
    Append, AppendError, Cursor, Direction, OwnerId, RequestId, StorageEntry, StoreReply,
    StoreRequest, Ticket, TimelineFrame, Urgency,
};
use tidelog_testing::Rng;
use tidelog_testing::store::make::{
    STORAGE, TIMELINE, durable, entry, frame, key, lsn, page, request, storage, timeline,
};
use tidelog_testing::store::{OWNER, Server, ask, changes, open, open_document, settle};
use tidelog_types::limits::{ENTRY_PAGES_MAX, Limits};
use tidelog_types::{CallId, JournalId, LsnRange, Page, Pgid};

fn range(start: u64, end: u64) -> LsnRange {
    LsnRange::new(lsn(start), lsn(end))
}

/// The next entries of the storage journal from an LSN on, or of what comes before it.
fn entries_of(name: &str, at: u64, direction: Direction, count: u32) -> StoreRequest {
    let (urgency, document) = (Urgency::Background, key(name));
    let cursor = Cursor { journal: STORAGE, at: lsn(at), direction };
    StoreRequest::Entries { request: RequestId(3), urgency, document, cursor, count }
}

fn forwards(at: u64) -> StoreRequest {
    entries_of("a", at, Forwards, u32::MAX)
}

fn pages_at(name: &str, pgids: impl IntoIterator<Item = u32>, at: u64) -> StoreRequest {
    let pgids = pgids.into_iter().map(Pgid).collect();
    let (urgency, document, journal) = (Urgency::User, key(name), STORAGE);
    StoreRequest::ReadAt { request: RequestId(4), urgency, document, pgids, journal, at: lsn(at) }
}

/// The entries, or the LSNs that there are entries for.
fn entries(
    server: &mut Server,
    device: &CrashDevice,
    request: StoreRequest,
) -> Result<Vec<StorageEntry>, Option<LsnRange>> {
    let mut found: Vec<StorageEntry> = Vec::new();
    let mut goes_on = false;
    let mut replies = ask(server, device, request);
    replies.retain(|reply| !matches!(reply, StoreReply::Durable { .. }));
    let count = replies.len();
    for (index, reply) in replies.into_iter().enumerate() {
        match reply {
            StoreReply::Entries { mut entries, is_cut, last, .. } => {
                assert_eq!(last, index + 1 == count);
                if std::mem::replace(&mut goes_on, is_cut) {
                    let rest = entries.remove(0).set.pages;
                    assert!(rest.len() <= Limits::DEFAULT.read_chunk_pages);
                    found.last_mut().expect("its beginning").set.pages.extend(rest);
                }
                found.extend(entries);
            }
            StoreReply::Trimmed { history, .. } => return Err(history),
            other => panic!("unasked: {other:?}"),
        }
    }
    Ok(found)
}

fn pages(
    server: &mut Server,
    device: &CrashDevice,
    request: StoreRequest,
) -> Result<BTreeMap<Pgid, Page>, Option<LsnRange>> {
    let mut found = BTreeMap::new();
    for reply in ask(server, device, request) {
        match reply {
            StoreReply::Pages { pages, .. } => found.extend(pages),
            StoreReply::Trimmed { history, .. } => return Err(history),
            other => panic!("unasked: {other:?}"),
        }
    }
    Ok(found)
}

/// Entries of all sorts: with several calls and none, of a range, shrinking, without pages.
fn sorts() -> Vec<StorageEntry> {
    let mut sorts = vec![
        entry(1, 2, 4, &[(1, 1), (2, 1), (3, 1), (4, 1)]),
        entry(2, 40, 4, &[(2, 2)]),
        entry(40, 41, 2, &[]),
        entry(41, 42, 4, &[(3, 3), (4, 3)]),
    ];
    sorts[1].calls = vec![(CallId([8; 16]), lsn(2)), (CallId([9; 16]), lsn(30))];
    sorts[3].calls = Vec::new();
    sorts
}

fn server_with(entries: Vec<StorageEntry>) -> (CrashDevice, Server) {
    let device = CrashDevice::new();
    let mut server = open(&device);
    server.serve(OWNER, request(1, storage("a", entries)));
    server.flush();
    assert_eq!(settle(&mut server, &device), [durable(1)]);
    (device, server)
}

fn change_over(server: &mut Server, device: &CrashDevice) {
    let mut filler = Append::to(key("filler"));
    filler.record = Some(vec![1; 50_000].into());
    server.serve(OWNER, request(99, filler));
    server.flush();
    settle(server, device);
}

#[test]
fn a_cursor_goes_through_the_entries_either_way() {
    let (device, mut server) = server_with(sorts());
    let backwards: Vec<StorageEntry> = sorts().into_iter().rev().collect();
    for _ in 0..2 {
        let mut entries = |at, direction, count| {
            entries(&mut server, &device, entries_of("a", at, direction, count))
        };
        assert_eq!(entries(1, Forwards, 9), Ok(sorts()));
        assert_eq!(entries(2, Forwards, 2), Ok(sorts()[1..3].to_vec()));
        assert_eq!(entries(42, Forwards, 9), Ok(Vec::new()), "the head");
        assert_eq!(entries(42, Backwards, 9), Ok(backwards.clone()));
        assert_eq!(entries(41, Backwards, 2), Ok(backwards[1..3].to_vec()));
        assert_eq!(entries(1, Backwards, 9), Ok(Vec::new()), "the start");
        for direction in [Forwards, Backwards] {
            assert_eq!(entries(3, direction, 9), Err(Some(range(1, 42))), "amid an entry");
            assert_eq!(entries(43, direction, 9), Err(Some(range(1, 42))), "not there yet");
        }
        drop(server);
        server = open(&device);
    }
    let nothing = entries(&mut server, &device, entries_of("b", 1, Forwards, 9));
    assert_eq!(nothing, Err(None));
}

/// The LSNs of a timeline's entries, or those that there are entries for.
fn frames(
    server: &mut Server,
    device: &CrashDevice,
    cursor: Cursor,
    count: u32,
) -> Result<Vec<u64>, Option<LsnRange>> {
    let (request, urgency, document) = (5, Urgency::Background, key("t"));
    let asked =
        StoreRequest::Entries { request: RequestId(request), urgency, document, cursor, count };
    let mut found = Vec::new();
    for reply in ask(server, device, asked) {
        match reply {
            StoreReply::Frames { frames, .. } => found.extend(frames),
            StoreReply::Trimmed { history, .. } => return Err(history),
            StoreReply::Durable { .. } => {}
            other => panic!("unasked: {other:?}"),
        }
    }
    let number = |it: TimelineFrame| {
        assert_eq!(it, frame(it.lsn.get()));
        it.lsn.get()
    };
    Ok(found.into_iter().map(number).collect())
}

#[test]
fn a_cursor_goes_through_a_timeline_too() {
    let (device, mut server) = server_with(sorts());
    let mut append = timeline("t", 1..=300);
    append.trim_timeline = Some(lsn(3));
    server.serve(OWNER, request(2, append));
    server.flush();
    settle(&mut server, &device);
    for _ in 0..3 {
        let mut frames = |at, direction, count| {
            let cursor = Cursor { journal: TIMELINE, at: lsn(at), direction };
            frames(&mut server, &device, cursor, count)
        };
        assert_eq!(frames(3, Forwards, 1000), Ok((3..=300).collect()));
        assert_eq!(frames(300, Forwards, 1000), Ok(vec![300]));
        assert_eq!(frames(301, Forwards, 1000), Ok(vec![]), "the head");
        assert_eq!(frames(301, Backwards, 1000), Ok((3..=300).rev().collect()));
        assert_eq!(frames(200, Backwards, 2), Ok(vec![199, 198]));
        assert_eq!(frames(3, Backwards, 2), Err(Some(range(3, 301))), "trimmed");
        assert_eq!(frames(2, Forwards, 2), Err(Some(range(3, 301))), "trimmed");
        assert_eq!(frames(302, Backwards, 2), Err(Some(range(3, 301))), "not there yet");
        change_over(&mut server, &device);
        drop(server);
        server = open(&device);
    }
    let cursor = Cursor { journal: STORAGE, at: lsn(3), direction: Forwards };
    assert_eq!(frames(&mut server, &device, cursor, 1), Err(None), "another journal");
}

/// A timeline that is not read in one turn.
fn long_timeline(server: &mut Server, device: &CrashDevice) -> Vec<TimelineFrame> {
    let mut long = timeline("t", 1..=60);
    long.timeline.iter_mut().for_each(|frame| frame.body = vec![frame.lsn.get() as u8; 9000]);
    server.serve(OWNER, request(2, long.clone()));
    server.flush();
    settle(server, device);
    long.timeline
}

#[test]
fn a_long_timeline_is_read_in_turns() {
    let (device, mut server) = server_with(sorts());
    let long = long_timeline(&mut server, &device);
    server.serve(OWNER, StoreRequest::Open { document: key("t") });
    let other = OwnerId(7);
    server.serve(other, pages_at("a", [1], 42));
    let mut order = Vec::new();
    while server.wants_poll() {
        for (owner, reply) in server.poll() {
            if let StoreReply::Opened { state, .. } = reply {
                let timeline = state.expect("it is there").timeline.expect("it was begun");
                assert!(timeline.frames == long);
            }
            order.push(owner);
        }
    }
    assert_eq!(order, [other, OWNER], "the other one had its turn meanwhile");
}

#[test]
fn a_timeline_is_read_as_it_was_when_it_was_asked_for_whatever_changes_over_meanwhile() {
    let (device, mut server) = server_with(sorts());
    let long = long_timeline(&mut server, &device);
    let mut opened = 0;
    for number in 0..100 {
        server.serve(OwnerId(100 + number), StoreRequest::Open { document: key("t") });
        if number == 20 {
            let mut trim = Append::to(key("t"));
            trim.trim_timeline = Some(lsn(11));
            server.serve(OWNER, request(3, trim));
        }
        let mut filler = Append::to(key("filler"));
        filler.record = Some(vec![number as u8; 50_000].into());
        server.serve(OWNER, request(4 + number, filler));
        server.flush();
        for (OwnerId(owner), reply) in server.poll() {
            if let StoreReply::Durable { .. } = reply {
                continue;
            }
            let StoreReply::Opened { state, .. } = reply else { panic!("{owner}: {reply:?}") };
            let timeline = state.expect("it is there").timeline.expect("it was begun");
            let first = if owner <= 120 { 0 } else { 10 };
            assert!(timeline.frames == long[first..], "asked for by {owner}");
            opened += 1;
        }
    }
    assert!(opened > 10, "{opened}");
}

#[test]
fn an_entry_of_many_frames_comes_back_in_parts() {
    let mut rng = Rng::new(7);
    let mut large = entry(1, 2, 700, &[]);
    large.set.pages = (1..=700).map(|pgid| (Pgid(pgid), rng.page())).collect();
    let all = vec![large, entry(2, 3, 700, &[(5, 5)]), entry(3, 4, 700, &[])];
    let device = CrashDevice::new();
    let mut server = open(&device);
    server.serve(OWNER, request(1, storage("a", all.clone())));
    let found = entries(&mut server, &device, forwards(1));
    assert_eq!(found.map(|found| found == all), Ok(true));
}

#[test]
fn pages_are_read_as_of_any_entry_since_the_checkpoint() {
    let (device, mut server) = server_with(sorts());
    let check = |server: &mut Server, at: u64, expected: &[(u32, u8)]| {
        let expected = expected.iter().map(|(pgid, fill)| (Pgid(*pgid), page(*fill))).collect();
        assert_eq!(pages(server, &device, pages_at("a", 1..=5, at)), Ok(expected), "at {at}");
    };
    for _ in 0..2 {
        check(&mut server, 1, &[]);
        check(&mut server, 2, &[(1, 1), (2, 1), (3, 1), (4, 1)]);
        check(&mut server, 40, &[(1, 1), (2, 2), (3, 1), (4, 1)]);
        check(&mut server, 41, &[(1, 1), (2, 2)]);
        check(&mut server, 42, &[(1, 1), (2, 2), (3, 3), (4, 3)]);
        let amid = pages(&mut server, &device, pages_at("a", [1], 7));
        assert_eq!(amid, Err(Some(range(1, 42))));
        drop(server);
        server = open(&device);
    }
}

#[test]
fn a_change_over_trims_history_up_to_where_it_began() {
    let (device, mut server) = server_with(sorts());
    change_over(&mut server, &device);
    let later = entry(42, 43, 4, &[(2, 9)]);
    server.serve(OWNER, request(2, storage("a", [later.clone()])));
    server.flush();
    settle(&mut server, &device);
    for _ in 0..2 {
        let trimmed = entries(&mut server, &device, forwards(41));
        assert_eq!(trimmed, Err(Some(range(42, 43))));
        let found = entries(&mut server, &device, forwards(42));
        assert_eq!(found, Ok(vec![later.clone()]));
        let back = |at| entries_of("a", at, Backwards, 9);
        assert_eq!(entries(&mut server, &device, back(43)), Ok(vec![later.clone()]));
        let trimmed = entries(&mut server, &device, back(42));
        assert_eq!(trimmed, Err(Some(range(42, 43))));
        let trimmed = pages(&mut server, &device, pages_at("a", [2], 41));
        assert_eq!(trimmed, Err(Some(range(42, 43))));
        for (at, fill) in [(42, 2), (43, 9)] {
            let found = pages(&mut server, &device, pages_at("a", [2], at));
            assert_eq!(found, Ok([(Pgid(2), page(fill))].into()));
        }
        drop(server);
        server = open(&device);
    }
    server.serve(
        OWNER,
        request(3, {
            let mut anew = Append::to(key("a"));
            anew.begin_storage = Some(JournalId([7; 16]));
            anew
        }),
    );
    let found = entries(&mut server, &device, forwards(42));
    assert_eq!(found, Err(None), "another journal");
}

#[test]
fn what_a_checkpoint_writes_over_is_gone_and_never_something_else() {
    let (device, mut server) = server_with(sorts());
    change_over(&mut server, &device);
    let many: Vec<StorageEntry> =
        (42..60).map(|at| entry(at, at + 1, 4, &[(2, at as u8), (3, at as u8)])).collect();
    server.serve(OWNER, request(2, storage("a", many)));
    server.flush();
    // The page that lies in its slot, as of the last checkpoint; at each step of the next.
    let (mut there, mut gone) = (0, 0);
    for _ in 0..20 {
        let left = device.kill();
        let mut reopened = open(&left);
        for server in [&mut server, &mut reopened] {
            server.serve(OWNER, pages_at("a", [2], 42));
            let replies = server.poll().into_iter().map(|(_, reply)| reply);
            let reply = replies.filter(|reply| !matches!(reply, StoreReply::Durable { .. })).last();
            match reply.expect("an answer") {
                StoreReply::Pages { pages, .. } => {
                    assert_eq!(pages, [(Pgid(2), page(2))]);
                    there += 1;
                }
                StoreReply::Trimmed { .. } => gone += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(there > 0 && gone > 0, "{there} {gone}");
}

#[test]
fn a_compaction_is_right_where_the_document_was_smaller_in_between() {
    let (device, mut server) = server_with(sorts());
    for _ in 0..2 {
        // A follower at 2 has the first pages 3 and 4, which were dropped and written again.
        let set = changes(&mut server, &device, &key("a"), lsn(2));
        assert_eq!((set.db_pages, set.pages.keys().map(|it| it.0).collect()), (4, vec![2, 3, 4]));
        assert_eq!(set.pages[&Pgid(4)], page(3));
        change_over(&mut server, &device);
    }
    let mut smaller = storage("a", [entry(42, 43, 1, &[])]);
    smaller.begin_storage = Some(STORAGE);
    server.serve(OWNER, request(3, smaller));
    for _ in 0..2 {
        let set = changes(&mut server, &device, &key("a"), lsn(2));
        assert_eq!((set.db_pages, set.pages.len()), (1, 0), "what is beyond the end is not told");
        change_over(&mut server, &device);
    }
}

/// A part of an entry, or what ends it.
fn part(is_cut: bool, end: u64, pages: &[(u32, u8)]) -> Append {
    Append { is_cut, ..storage("a", [entry(42, end, 4, pages)]) }
}

/// Goal: an entry is told of whole or not at all. Method: a change-over comes between its parts, so
/// that the log has only the last.
#[test]
fn an_entry_whose_parts_a_change_over_came_between_is_trimmed() {
    let (device, mut server) = server_with(sorts());
    let append = |server: &mut Server, ticket, append| {
        assert_eq!(ask(server, &device, request(ticket, append)), []);
        server.flush();
        assert_eq!(settle(server, &device), [durable(ticket)]);
    };
    append(&mut server, 2, part(true, 50, &[(1, 7)]));
    change_over(&mut server, &device);
    let trimmed = Some(range(50, 50));
    for _ in 0..2 {
        let before = pages(&mut server, &device, pages_at("a", [1, 2], 42));
        assert_eq!(before, Err(trimmed), "page 1 is newer by now");
        drop(server);
        server = open(&device);
    }
    append(&mut server, 3, part(false, 50, &[(2, 8)]));
    for _ in 0..2 {
        assert_eq!(entries(&mut server, &device, forwards(42)), Err(trimmed));
        let backwards = entries_of("a", 50, Backwards, 1);
        assert_eq!(entries(&mut server, &device, backwards), Err(trimmed));
        assert_eq!(entries(&mut server, &device, forwards(50)), Ok(Vec::new()), "the head");
        assert_eq!(pages(&mut server, &device, pages_at("a", [1, 2], 42)), Err(trimmed));
        let found = pages(&mut server, &device, pages_at("a", [1, 2], 50));
        assert_eq!(found, Ok(BTreeMap::from([(Pgid(1), page(7)), (Pgid(2), page(8))])));
        drop(server);
        server = open(&device);
    }
    let next = entry(50, 51, 4, &[(3, 9)]);
    append(&mut server, 4, storage("a", [next.clone()]));
    assert_eq!(entries(&mut server, &device, forwards(50)), Ok(vec![next]));
}

/// Goal: pages of an entry that is not whole never end up in another one. Method: one of other LSNs
/// comes behind a part of it, before a change-over and after, and behind an opening.
#[test]
fn an_entry_that_is_not_whole_is_gone_on_with_or_its_journal_is_begun_anew() {
    let (device, mut server) = server_with(sorts());
    let ask = |server: &mut Server, append| {
        open_document(server, &device, &key("a"));
        server.serve(OWNER, request(2, append));
        server.flush();
        settle(server, &device)
    };
    let is_refused = |replies: &[StoreReply]| {
        let error = match replies {
            [StoreReply::AppendFailed { error, .. }] => error,
            other => panic!("{other:?}"),
        };
        matches!(error, AppendError::OutOfPlace { .. })
    };
    assert_eq!(ask(&mut server, part(true, 50, &[(1, 7)])), [durable(2)]);
    for _ in 0..3 {
        for (is_cut, end) in [(false, 43), (true, 49), (false, 51)] {
            assert!(is_refused(&ask(&mut server, part(is_cut, end, &[(2, 9)]))), "42..{end}");
        }
        assert_eq!(ask(&mut server, part(true, 50, &[(2, 8)])), [durable(2)]);
        change_over(&mut server, &device);
        drop(server);
        server = open(&device);
    }
    assert_eq!(ask(&mut server, part(false, 50, &[])), [durable(2)]);
    let unended = Append { is_cut: true, ..storage("a", [entry(50, 60, 4, &[(1, 7)])]) };
    assert_eq!(ask(&mut server, unended), [durable(2)]);
    let anew = Append { is_anew: true, ..storage("a", [entry(1, 2, 4, &[(3, 3)])]) };
    assert_eq!(ask(&mut server, anew), [durable(2)]);
}

#[test]
fn an_entry_over_its_limit_is_refused_and_named() {
    let (device, mut server) = server_with(sorts());
    let count = ENTRY_PAGES_MAX as u32 + 1;
    let mut large = entry(42, 43, count, &[]);
    let page = page(1);
    large.set.pages = (1..=count).map(|pgid| (Pgid(pgid), page.clone())).collect();
    let replies = ask(&mut server, &device, request(2, storage("a", [large])));
    let error = AppendError::EntryTooLarge { pages: count as usize };
    assert_eq!(replies, [StoreReply::AppendFailed { ticket: Ticket(2), error }]);
}
