//! The change-over as its owners notice it: not at all.

use std::collections::BTreeMap;

use tidelog_disk::{CrashDevice, DiskFault};
use tidelog_pages::{
    AppendError, Cursor, Direction, OwnerId, PageServer, RequestId, StoreOptions, StoreReply,
    StoreRequest, Ticket, Urgency,
};
use tidelog_testing::Rng;
use tidelog_testing::store::make::{
    TIMELINE, durable, entry, frame, key, lsn, page, read_of, request, storage, timeline,
};
use tidelog_testing::store::{
    OWNER, Server, files, log_end, observe, open, open_document, open_with, poll_all, seed, settle,
    small_log,
};
use tidelog_types::limits::Limits;
use tidelog_types::{BudgetLimits, CallId, Page, Pgid};

const READER: OwnerId = OwnerId(2);

fn generation(server: &Server) -> u64 {
    let text = server.to_string();
    let after = text.split("generation ").nth(1).expect("it is displayed");
    after.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

/// A store whose next poll begins a change-over: documents `a` with these pages in the page file,
/// `b` with a timeline, and of `a` some pages in the log.
fn about_to_change_over(pages: u32) -> (CrashDevice, Server) {
    let device = CrashDevice::new();
    let mut server = open(&device);
    let all: Vec<(u32, u8)> = (1..=pages).map(|pgid| (pgid, 1)).collect();
    server.serve(OWNER, request(1, storage("a", [entry(1, 2, pages, &all)])));
    server.serve(OWNER, request(2, timeline("b", 1..50)));
    let mut filler = timeline("c", []);
    filler.record = Some(vec![1; 60_000].into());
    server.serve(OWNER, request(3, filler.clone()));
    server.flush();
    settle(&mut server, &device);
    assert_eq!(generation(&server), 2);
    let newer: Vec<(u32, u8)> = (1..=pages).map(|pgid| (pgid, 2)).collect();
    server.serve(OWNER, request(3, storage("a", [entry(2, 3, pages, &newer)])));
    filler.record = Some(vec![2; 140_000].into());
    server.serve(OWNER, request(3, filler));
    server.flush();
    (device, server)
}

fn pages_of(replies: Vec<(OwnerId, StoreReply)>) -> BTreeMap<Pgid, Page> {
    let pages = replies.into_iter().filter_map(|(_, reply)| match reply {
        StoreReply::Pages { pages, .. } => Some(pages),
        _ => None,
    });
    pages.flatten().collect()
}

#[test]
fn reads_and_appends_are_served_at_each_step_of_a_change_over() {
    let (device, mut server) = about_to_change_over(500);
    let before = generation(&server);
    let (mut ticket, mut polls) = (3, 0);
    // Both logs, the page file, and the appends of each step.
    while generation(&server) == before {
        ticket += 1;
        polls += 1;
        assert!(polls < 200, "it comes to an end though appends go on");
        server.serve(OWNER, request(ticket, timeline("b", [46 + ticket])));
        server.serve(READER, read_of(ticket, "a", [7]));
        server.flush();
        let calls = device.calls();
        let replies = server.poll();
        assert!(device.calls() - calls < 100, "{} disk calls at once", device.calls() - calls);
        assert!(replies.contains(&(OWNER, durable(ticket))), "poll {polls}: {replies:?}");
        assert_eq!(pages_of(replies), [(Pgid(7), page(2))].into());
    }
    assert!(polls > 10, "it was all done at once");
    let expected = observe(&mut server, &device);
    let mut server = open(&device);
    assert_eq!(observe(&mut server, &device), expected);
    let opened = open_document(&mut server, &device, &key("b")).expect("it is there");
    assert_eq!(opened.timeline.map(|it| it.range.end().get()), Some(ticket + 47));
}

/// A read of the entry of the timeline `b` at this LSN, and what follows it.
fn last_entry_of_b(at: u64) -> StoreRequest {
    let cursor = Cursor { journal: TIMELINE, at: lsn(at), direction: Direction::Forwards };
    let (request, urgency) = (RequestId(5), Urgency::User);
    StoreRequest::Entries { request, urgency, document: key("b"), cursor, count: u32::MAX }
}

#[test]
fn what_is_appended_while_batches_are_held_is_read_at_once_and_durable_in_the_new_log() {
    let (device, mut server) = about_to_change_over(100);
    device.hold_flushes(true);
    let before = generation(&server);
    let (mut ticket, mut held) = (3, 0);
    while generation(&server) == before {
        while server.wants_poll() {
            server.poll();
        }
        ticket += 1;
        server.serve(OWNER, request(ticket, timeline("b", [46 + ticket])));
        server.flush();
        held += u64::from(!server.to_string().contains(&format!("written {}", ticket + 2)));
        server.serve(READER, last_entry_of_b(46 + ticket));
        let read = server.poll().into_iter().find_map(|(_, reply)| match reply {
            StoreReply::Frames { frames, .. } => Some(frames),
            _ => None,
        });
        assert_eq!(read, Some(vec![frame(46 + ticket)]));
        device.complete_flushes();
    }
    assert!((1..4).contains(&held), "held for {held} flushes");
    device.hold_flushes(false);
    let replies = settle(&mut server, &device);
    assert!(replies.contains(&durable(ticket)), "{replies:?}");
    let left = device.crash(&mut |_| 0);
    let opened = open_document(&mut open(&left), &left, &key("b")).expect("it is there");
    assert_eq!(opened.timeline.map(|it| it.range.end().get()), Some(ticket + 47));
}

/// Goal: a flush for which there is no room is never taken for a write that left the file as it
/// was, and whoever waits is told what lacks. Method: each call of a change-over in turn is told
/// that the device is full.
#[test]
fn a_flush_that_there_is_no_room_for_is_told_as_that() {
    let mut full_count = 0;
    for nth in 1.. {
        let (device, mut server) = about_to_change_over(100);
        let before = generation(&server);
        let call = device.calls() + nth;
        device.fail_call(call, DiskFault::Full);
        let mut ticket = 3;
        let mut broken = None;
        while generation(&server) == before && broken.is_none() && device.calls() < 2 * call {
            ticket += 1;
            server.serve(OWNER, request(ticket, timeline("b", [46 + ticket])));
            server.flush();
            broken = settle(&mut server, &device).into_iter().find_map(|reply| match reply {
                StoreReply::Broken { error } => Some(error),
                _ => None,
            });
        }
        match broken {
            Some(AppendError::Full) => full_count += 1,
            Some(AppendError::Device { reason }) => {
                assert!(!reason.contains("poisoned"), "call {nth}: {reason}");
            }
            Some(other) => panic!("call {nth}: {other:?}"),
            None => {}
        }
        if device.calls() < call {
            break;
        }
    }
    assert!(full_count > 3, "flushes failed {full_count} times");
}

/// Goal: a store that stops carries out what it was asked, though batches are held. Method: a
/// change-over in small slices, an append at each of its polls in turn, and the end of a server.
#[test]
fn what_is_appended_while_batches_are_held_is_carried_out_by_a_store_that_stops() {
    let limits = Limits {
        slice: BudgetLimits { bytes: 4 * 1024, ..Limits::DEFAULT.slice },
        ..Limits::DEFAULT
    };
    let options = StoreOptions { log_size_max: 64 * 1024, limits, ..StoreOptions::default() };
    let mut held = 0;
    for polls in 0..=u8::MAX {
        let device = CrashDevice::new();
        let mut server = open_with(&device, options);
        for ticket in 1..=20 {
            server.serve(OWNER, request(ticket, timeline("b", [ticket])));
            let mut filler = timeline(&format!("filler{ticket}"), []);
            filler.record = Some(vec![1; 3_500].into());
            server.serve(OWNER, request(ticket, filler));
        }
        server.flush();
        for poll in 0..polls {
            let mut filler = timeline("filler", []);
            filler.record = Some(vec![poll; 3_000].into());
            server.serve(OWNER, request(100, filler));
            server.flush();
            server.poll();
        }
        if generation(&server) > 1 {
            break;
        }
        server.serve(OWNER, request(200, timeline("late", [1])));
        server.flush();
        held += usize::from(server.holds_back());
        while (server.is_behind() || server.holds_back()) && server.wants_poll() {
            server.poll();
        }
        server.mark_durable();
        server.flush();
        drop(server);
        let left = device.crash(&mut |_| 0);
        let late = open_document(&mut open(&left), &left, &key("late"));
        assert!(late.is_some(), "after {polls} polls, held {held} times");
    }
    assert!(held > 0, "batches were never held");
}

/// Goal: what is appended while batches are held takes a bounded part of the memory, however long a
/// flush takes, and is carried out then. Method: a flush after which nothing completes, for each
/// number of flushes, and a hundred appends.
#[test]
fn only_so_much_is_kept_of_what_is_appended_while_batches_are_held() {
    const BUFFER_SIZE: usize = 32 * 1024;
    let options = StoreOptions {
        log_size_max: 16 * 1024,
        log_buffer_size_max: BUFFER_SIZE,
        ..StoreOptions::default()
    };
    let mut held = 0;
    for flushes in 0..12 {
        let device = CrashDevice::new();
        let mut server = open_with(&device, options);
        settle(&mut server, &device);
        device.hold_flushes(true);
        let notes = |ticket: u64| {
            let mut notes = timeline(&format!("notes{ticket}"), []);
            notes.record = Some(vec![5; 5_000].into());
            request(ticket, notes)
        };
        (1..=4).for_each(|ticket| server.serve(OWNER, notes(ticket)));
        server.flush();
        poll_all(&mut server);
        for _ in 0..flushes {
            device.complete_flushes_of_one(&mut |_| 0);
            poll_all(&mut server);
        }
        let before = log_end(&server);
        for ticket in 5..105 {
            server.serve(OWNER, notes(ticket));
            server.flush();
        }
        if server.holds_back() {
            held += 1;
            let kept = log_end(&server) - before;
            assert!(kept < BUFFER_SIZE as u64 + 8 * 1024, "{kept} bytes after {flushes} flushes");
        }
        let replies = settle(&mut server, &device);
        assert!(replies.contains(&durable(104)), "after {flushes} flushes: {replies:?}");
    }
    assert!(held > 0, "batches were never held");
}

#[test]
fn a_read_that_was_asked_for_before_sees_what_was_there_then() {
    let device = CrashDevice::new();
    let mut server = open(&device);
    let count = 40 * 64;
    let all = |fill| (1..=count).map(|pgid| (pgid, fill)).collect::<Vec<(u32, u8)>>();
    server.serve(OWNER, request(1, storage("a", [entry(1, 2, count, &all(1))])));
    server.flush();
    settle(&mut server, &device);
    // Without a pool the pages come from their slots.
    drop(server);
    let mut server = open(&device);
    let before = generation(&server);
    server.serve(READER, read_of(1, "a", 1..=count));
    // Pages that the read comes to last.
    let newer: Vec<(u32, u8)> = (count - 19..=count).map(|pgid| (pgid, 2)).collect();
    server.serve(OWNER, request(2, storage("a", [entry(2, 3, count, &newer)])));
    server.flush();
    let mut found = BTreeMap::new();
    (0..30).for_each(|_| found.extend(pages_of(server.poll())));
    assert_eq!(found.len(), 30 * Limits::DEFAULT.read_chunk_pages, "a chunk for each poll");
    while server.wants_poll() {
        found.extend(pages_of(server.poll()));
    }
    assert!(generation(&server) > before);
    assert_eq!(found.len(), count as usize);
    assert!(found.values().all(|found| *found == page(1)));
}

#[test]
fn documents_that_are_destroyed_or_begun_anew_meanwhile_are_what_they_became() {
    for polls in 0..14 {
        let (device, mut server) = about_to_change_over(100);
        (0..polls).for_each(|_| drop(server.poll()));
        let destroy = StoreRequest::Destroy { ticket: Ticket(4), document: key("a") };
        server.serve(OWNER, destroy);
        server.serve(OWNER, request(5, storage("a", [entry(1, 2, 3, &[(2, 77)])])));
        server.serve(OWNER, request(6, storage("c", [entry(1, 2, 2, &[(1, 5), (2, 6)])])));
        server.serve(OWNER, request(7, storage("c", [entry(2, 3, 1, &[])])));
        server.flush();
        settle(&mut server, &device);
        let expected = observe(&mut server, &device);
        assert_eq!(expected.0[&key("a")].pages.keys().collect::<Vec<_>>(), [&Pgid(2)]);
        assert_eq!(expected.0[&key("c")].pages.keys().collect::<Vec<_>>(), [&Pgid(1)]);
        assert_eq!(observe(&mut open(&device), &device), expected, "after {polls} polls");
    }
}

#[test]
fn a_change_over_without_room_is_given_up_and_done_later() {
    let (device, mut server) = about_to_change_over(100);
    let mut large = timeline("b", []);
    large.record = Some(vec![1; 900_000].into());
    server.serve(OWNER, request(4, large));
    server.flush();
    let before = generation(&server);
    let size = |name| device.bytes_of(name).map_or(0, |bytes| bytes.len() as u64);
    device.set_capacity(Some(["log-a", "log-b", "pages"].map(size).iter().sum()));
    settle(&mut server, &device);
    assert_eq!(generation(&server), before);
    device.set_capacity(None);
    for ticket in 5..40 {
        server.serve(OWNER, request(ticket, timeline("b", [45 + ticket])));
        let fill = storage("c", [entry(ticket - 4, ticket - 3, 1, &[(1, ticket as u8)])]);
        server.serve(OWNER, request(1000 + ticket, fill));
        server.flush();
        settle(&mut server, &device);
    }
    assert!(generation(&server) > before);
    let expected = observe(&mut server, &device);
    assert_eq!(observe(&mut open(&device), &device), expected);
}

#[test]
fn a_seal_that_fails_breaks_the_server_and_loses_nothing() {
    let mut broken = 0;
    for call in 1..40 {
        let (device, mut server) = about_to_change_over(100);
        let expected = observe(&mut open(&device.kill()), &device);
        device.fail_call(device.calls() + call, DiskFault::Full);
        settle(&mut server, &device);
        broken += usize::from(server.is_broken());
        assert_eq!(observe(&mut open(&device.kill()), &device), expected, "call {call}");
    }
    assert!(broken > 0, "no call was the seal");
}

#[test]
fn a_power_cut_at_any_step_of_a_change_over_keeps_what_was_durable() {
    let (mut images, mut sealed) = (0, 0);
    for seed in 1..12 {
        let mut rng = Rng::new(seed);
        let (device, mut server) = about_to_change_over(12);
        device.hold_flushes(true);
        let before = generation(&server);
        let (mut ticket, mut acknowledged) = (3, 3);
        let mut steps_left = 12;
        while generation(&server) == before || steps_left > 0 {
            steps_left -= i32::from(generation(&server) != before);
            if rng.one_in(3) {
                ticket += 1;
                server.serve(OWNER, request(ticket, timeline("b", [46 + ticket])));
                server.flush();
            }
            if rng.one_in(2) {
                device.complete_flushes_of_one(&mut |count| rng.below(count));
            }
            for (_, reply) in server.poll() {
                if let StoreReply::Durable { ticket: Ticket(durable) } = reply {
                    acknowledged = durable;
                }
            }
            for mood in 0..4 {
                let left = device.crash(&mut |versions| match mood {
                    0 if !rng.one_in(8) => 0,
                    1 if !rng.one_in(8) => versions - 1,
                    _ => rng.below(versions),
                });
                let mut reopened = open(&left);
                sealed += usize::from(generation(&reopened) != before);
                let observed = observe(&mut reopened, &left);
                let pages = observed.0[&key("a")].pages.values();
                assert!(pages.map(|(_, found)| found).eq(vec![&page(2); 12]), "seed {seed}");
                let timeline = observed.0[&key("b")].timeline.as_ref().expect("it was begun");
                let durable = 49 + acknowledged as usize - 3;
                assert!((durable..=durable + 40).contains(&timeline.2.len()), "seed {seed}");
                images += 1;
            }
        }
    }
    assert!(images > 1000 && sealed > 200, "{images} images, {sealed} of the new log");
}

/// Goal: to open costs what the log has, and not what its files have been used for. Method: each
/// file is in use three times, and the log is opened at every size that it then has. What is read
/// beside twice the log are headers, and the room that is kept for the next change-over.
#[test]
fn opening_reads_at_most_twice_the_log_though_its_files_were_used_before() {
    const HEADERS_AND_ROOM: u64 = 400 * 1024;
    let device = CrashDevice::new();
    let options = StoreOptions { log_size_max: 256 * 1024, ..StoreOptions::default() };
    let opened = PageServer::open_with(files(&device), seed(&device), options);
    let (mut server, _) = opened.expect("empty files");
    let mut sizes = Vec::new();
    for lsn in 1.. {
        let all: Vec<(u32, u8)> = (1..=3).map(|pgid| (pgid, lsn as u8)).collect();
        server.serve(OWNER, request(lsn, storage("a", [entry(lsn, lsn + 1, 3, &all)])));
        server.flush();
        settle(&mut server, &device);
        match generation(&server) {
            0..7 => continue,
            7 => {}
            _ => break,
        }
        let image = device.crash(&mut |versions| versions - 1);
        let opened = PageServer::open_with(files(&image), seed(&image), options);
        let (_, report) = opened.expect("a whole store");
        sizes.push(report.log_size);
        let (read, size) = (image.bytes_read(), report.log_size);
        assert!(read <= 2 * size + HEADERS_AND_ROOM, "{read} bytes read of {size}");
    }
    assert!(sizes.len() > 10 && sizes.iter().any(|size| *size > 200 * 1024), "{sizes:?}");
}

/// Goal: a log that is long is short again once nobody asks for anything, without any append; one
/// that is short is left alone, and so is one of a host that knows no time, which could not tell
/// whether one was given up lately. Method: rests of a store whose log has each size up to the one
/// at which it would be changed over amid the work.
#[test]
fn a_store_rests_with_a_short_log() {
    const HOUR_MS: u64 = 3_600_000;
    let size_max = 1024 * 1024;
    let rest_size_max = 128 * 1024;
    let options = StoreOptions {
        log_size_max: size_max,
        log_rest_size_max: rest_size_max,
        ..StoreOptions::default()
    };
    let device = CrashDevice::new();
    let mut server = open_with(&device, options);
    let mut shortened = 0;
    for lsn in 1..=600 {
        let knows_time = lsn < 400;
        server.set_time(if knows_time { HOUR_MS } else { 0 });
        server
            .serve(OWNER, request(lsn, storage("a", [entry(lsn, lsn + 1, 1, &[(1, lsn as u8)])])));
        server.flush();
        settle(&mut server, &device);
        // Rests come and go while the log is short.
        let (before, size) = (generation(&server), server.log_size());
        if lsn % 7 == 0 {
            server.shorten_log();
            settle(&mut server, &device);
            let is_shortened = generation(&server) > before;
            assert_eq!(is_shortened, knows_time && size >= rest_size_max, "at {size}");
            shortened += u64::from(is_shortened);
        } else {
            assert_eq!(generation(&server), before, "amid the work, at {size}");
        }
    }
    assert!(shortened > 3, "{shortened}");
}

/// Goal: whoever asks again for what it issued lately is told what became of it, however often the
/// log has changed over. Method: more calls than are kept, some of them found as a change-over has
/// copied them.
#[test]
fn the_latest_calls_are_kept() {
    let device = CrashDevice::new();
    let limits = Limits { calls_kept_max: 20, ..Limits::DEFAULT };
    let options = StoreOptions { limits, ..small_log() };
    let mut filler = timeline("c", []);
    for (numbers, record) in [(1..26, 1), (26..28, 2)] {
        let mut server = open_with(&device, options);
        for number in numbers {
            let changed = storage("a", [entry(number, number + 1, 1, &[(1, number as u8)])]);
            server.serve(OWNER, request(number, changed));
        }
        filler.record = Some(vec![record; 200_000].into());
        server.serve(OWNER, request(9, filler.clone()));
        server.flush();
        let before = generation(&server);
        settle(&mut server, &device);
        assert!(generation(&server) > before, "it has not changed over");
    }
    let mut server = open_with(&device, options);
    let opened = open_document(&mut server, &device, &key("a")).expect("it is there");
    let calls: Vec<_> = (8..28).map(|n| (CallId([n; 16]), lsn(u64::from(n)))).collect();
    assert_eq!(opened.calls, calls);
}
