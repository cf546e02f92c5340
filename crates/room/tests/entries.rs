//! Storage entries on their way to those who follow: they are made where there is room for them.
//!
//! Goal: a client that reads slowly, or not at all, costs no more than a chunk of the document, and
//! comes to the same bytes in the end. Method: a room over a store in memory, and clients whose
//! ways take so many bytes until they are read.

use std::sync::atomic::Ordering;

use tidelog_room::{Ask, ConnId, RoomInput, entry_size};
use tidelog_sync::{Channel, CodedPage, EntryPart, FromRoom, Intent, ToRoom, WireFrame};
use tidelog_testing::room::*;
use tidelog_types::Lsn;
use tidelog_types::limits::{LSN_MAX, Limits};

#[test]
fn a_client_that_reads_nothing_is_sent_no_more_than_there_is_room_for() {
    let room_for = 600 * 1024;
    let mut scene = Scene::new(Limits::DEFAULT, room_for);
    with_bulk(&mut scene);
    for channel in (1..=12).map(Channel) {
        scene.open_on(BOB, channel, Intent::Follow);
        let next = Lsn::new(LSN_MAX).expect("an LSN");
        scene.say_on(BOB, channel, ToRoom::Received { next });
    }
    assert!(scene.unread_size(BOB) > 0);
    assert!(scene.unread_size(BOB) <= room_for, "{} bytes", scene.unread_size(BOB));
    // Nor is it more when the document moves on.
    scene.frames(ANN, 3, adds(200));
    assert!(scene.unread_size(BOB) <= room_for, "{} bytes", scene.unread_size(BOB));
    // It costs nothing once it has left.
    scene.unread.remove(&BOB);
    let unread = scene.ways.reserved(BOB);
    scene.settle(RoomInput::Left { conn: BOB });
    assert!(scene.ways.reserved(BOB) <= unread);
}

/// Goal: who has all before an entry is sent what it changes, and who lags whole pages; where an
/// entry has more pages than a message, nobody goes by what is sent in pieces.
#[test]
fn who_is_up_to_date_is_sent_what_an_entry_changes() {
    let limits = Limits { message_pages_max: 8, ..Limits::DEFAULT };
    let mut scene = Scene::new(limits, usize::MAX);
    scene.open(ANN);
    scene.frames(ANN, 1, adds(3));
    let parts_of = |scene: &mut Scene, conn: ConnId, copy: &mut Copy| {
        let mut parts = Vec::new();
        while let Some(said) = scene.read(conn) {
            if let FromRoom::Entry(part) = said {
                parts.push(part.clone());
                copy.take(part);
            }
        }
        parts
    };
    let (mut own, mut copy) = (Copy::default(), Copy::default());
    let to_ann = parts_of(&mut scene, ANN, &mut own);
    let by_previous = |part: &EntryPart| part.pages.iter().any(CodedPage::needs_previous);
    assert!(to_ann[1..].iter().all(by_previous), "she was there before they were made");
    let size = |part: &EntryPart| part.pages.iter().map(CodedPage::size).sum::<usize>();
    assert!(to_ann[1..].iter().all(|part| size(part) < 1_000));
    scene.open(BOB);
    let to_bob = parts_of(&mut scene, BOB, &mut copy);
    assert!(!to_bob.is_empty() && !to_bob.iter().any(by_previous), "he has nothing");
    scene.frames(ANN, 4, vec![frame(&notes(), "bulk", "many")]);
    for (conn, copy) in [(ANN, &mut own), (BOB, &mut copy)] {
        let parts = parts_of(&mut scene, conn, copy);
        assert!(parts.len() > 8 && !parts.iter().any(by_previous));
        assert!(copy.image() == scene.export());
    }
}

/// Goal: what a follower has received and not said so is a bounded amount of its memory, however
/// few bytes it took on the way.
#[test]
fn a_follower_that_says_nothing_is_sent_as_many_pages_as_it_may_keep() {
    let page = 4_200;
    let limits = Limits { entries_in_flight_size_max: 30 * page, ..Limits::DEFAULT };
    let mut scene = Scene::new(limits, usize::MAX);
    scene.open(ANN);
    scene.open(BOB);
    // One by one: those that are decided together are one entry, of fewer pages.
    for (first, add) in (1..).zip(adds(50)) {
        scene.frames(ANN, first, vec![add]);
    }
    let (mut pages_count, mut size) = (0, 0);
    while let Some(said) = scene.read(BOB) {
        if let FromRoom::Entry(part) = said {
            pages_count += part.pages.len();
            size += entry_size(&part);
        }
    }
    assert!((20..=36).contains(&pages_count), "{pages_count} pages");
    assert!(size < 30 * page / 2, "{size} bytes");
}

/// Goal: only who has predicted an entry is sent none of its pages. Method: a frame says how the
/// hash of its entry begins, or how that of another one does.
#[test]
fn who_has_predicted_an_entry_is_sent_no_pages() {
    let of = |scene: &mut Scene, conn: ConnId| {
        let mut last = None;
        while let Some(said) = scene.read(conn) {
            if let FromRoom::Entry(part) = said {
                last = Some((part.is_predicted, part.pages.is_empty(), part.hash));
            }
        }
        last.expect("an entry")
    };
    let hear = |predicted: Option<[u8; 8]>| {
        let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
        scene.open(ANN);
        scene.open(BOB);
        scene.frames(ANN, 1, vec![WireFrame { predicted, ..adds(1).remove(0) }]);
        [ANN, BOB].map(|conn| of(&mut scene, conn))
    };
    let [(is_predicted, is_empty, hash), _] = hear(None);
    assert!(!is_predicted && !is_empty);
    assert_eq!(hear(Some(hash.start())), [(true, true, hash), (false, false, hash)]);
    assert_eq!(hear(Some([9; 8])), [(false, false, hash); 2]);
}

#[test]
fn a_catch_up_ends_though_the_document_moves_on_with_each_part() {
    let limits = Limits { catch_up_pages: 8, message_pages_max: 8, ..Limits::DEFAULT };
    let mut scene = Scene::new(limits, 64 * 1024);
    with_bulk(&mut scene);
    scene.open(BOB);
    let (mut copy, mut parts, mut next, mut changed) = (Copy::default(), 0, 3, false);
    let end = loop {
        // Three mutations each time it reads one message, for as long as it has nothing whole.
        if copy.position.is_none() {
            scene.frames(ANN, next, adds(3));
            next += 3;
        }
        // One that changes a page which was sent already, and which none of the others changes.
        if parts == 2 && !changed {
            changed = true;
            scene.frames(ANN, next, vec![frame(&notes(), "add", "once")]);
            next += 1;
        }
        while scene.read(ANN).is_some() {}
        match scene.read(BOB) {
            Some(FromRoom::Entry(part)) => {
                parts += 1;
                copy.take(part);
                if let Some(position) = copy.position {
                    let next = position.next;
                    scene.say(BOB, ToRoom::Received { next });
                }
            }
            Some(_) => {}
            None => break copy.position.expect("it came to an end"),
        }
        assert!(parts < 2_000, "it does not come to an end");
    };
    assert!(copy.image() == scene.export(), "the same bytes on both sides at {}", end.next);
}

#[test]
fn an_entry_of_any_size_costs_a_client_that_reads_nothing_no_more_than_a_chunk() {
    let limits = Limits { catch_up_pages: 8, catch_up_pages_max: 32, ..Limits::DEFAULT };
    let mut scene = Scene::new(limits, 64 * 1024);
    scene.open(ANN);
    scene.open(BOB);
    let (mut own, mut copy) = (Copy::default(), Copy::default());
    scene.read_all(ANN, &mut own);
    scene.read_all(BOB, &mut copy);
    for number in 1..=4 {
        // Some 300 pages each.
        scene.frames(ANN, number, vec![frame(&notes(), "bulk", &number.to_string())]);
        let origins = scene.read_origins(ANN, &mut own);
        assert_eq!(origins, [Some(lsn(number))], "it is known as Ann's own");
        // Bob reads one part each time.
        match scene.read(BOB) {
            Some(FromRoom::Entry(part)) => copy.take(part),
            other => panic!("unexpected: {other:?}"),
        }
    }
    // All pages change again while he is sent them.
    scene.frames(ANN, 5, vec![frame(&notes(), "keep", "nothing")]);
    let most = scene.ways.most.load(Ordering::Relaxed);
    assert!(most <= 33 * 4200, "{most} bytes");
    scene.read_all(BOB, &mut copy);
    assert!(copy.image() == scene.export());
}

#[test]
fn a_client_that_reads_slower_than_others_write_is_sent_no_larger_chunks() {
    let limits = Limits { catch_up_pages: 2, catch_up_pages_max: 4, ..Limits::DEFAULT };
    let mut scene = Scene::new(limits, 16 * 1024);
    scene.open(ANN);
    let (mut own, mut copy) = (Copy::default(), Copy::default());
    scene.frames(ANN, 1, vec![frame(&notes(), "bulk", "1")]);
    scene.read_origins(ANN, &mut own);
    scene.open(BOB);
    assert!(matches!(scene.read(BOB), Some(FromRoom::Opened { .. })));
    for number in 2..=40 {
        for _ in 0..10 {
            if let Some(FromRoom::Entry(part)) = scene.read(BOB) {
                copy.take(part);
            }
        }
        // Each page of the document is another one.
        scene.frames(ANN, number, vec![frame(&notes(), "touch", "x")]);
        scene.read_origins(ANN, &mut own);
    }
    assert_eq!(copy.position, None, "he has come to no end");
    let most = scene.ways.most.load(Ordering::Relaxed);
    assert!(most <= 5 * 4200, "{most} bytes");
    scene.read_all(BOB, &mut copy);
    assert!(copy.image() == scene.export(), "now that they pause");
}

/// Whoever asks for a document as a file follows it like a client.
#[test]
fn an_export_takes_no_more_memory_than_a_chunk() {
    let limits = Limits { catch_up_pages: 8, pool_pages_max: 8, ..Limits::DEFAULT };
    let mut scene = Scene::new(limits, 64 * 1024);
    with_bulk(&mut scene);
    scene.room.rest();
    let kept = scene.room.kept_size();
    let conn = ConnId(1_000);
    scene.settle(RoomInput::Ask { request: 1, ask: Ask::Export { conn } });
    assert!(scene.unread_size(conn) > 0);
    let mut copy = Copy::default();
    while let Some(message) = scene.read(conn) {
        assert!(scene.unread_size(conn) <= 64 * 1024, "{} bytes", scene.unread_size(conn));
        scene.room.rest();
        assert_eq!(scene.room.kept_size(), kept, "it comes from the store");
        if let FromRoom::Entry(part) = message {
            copy.take(part);
        }
    }
    assert!(copy.db_pages > 500);
    scene.settle(RoomInput::Left { conn });
    let mut other = Copy::default();
    scene.open(BOB);
    scene.read_all(BOB, &mut other);
    assert!(copy.image() == other.image());
}
