//! Local documents that are handed over: each is one document, once.
//!
//! Goal: no client makes the room, the store or those who wait hold more than one document that it
//! hands over, nor makes the server take what is no document of its doctype. Method: a room over a
//! store in memory, and what the store has staged.

use std::sync::{Arc, Mutex};

use tidelog_room::{Caution, ConnId, MayRun, RoomInput, Speaker, Suspect};
use tidelog_sync::{CodedPage, FromRoom, Intent, PageCoding, Refusal, ToRoom, codec};
use tidelog_testing::room::*;
use tidelog_types::limits::{ENTRY_PAGES_MAX, LSN_MAX, Limits, PAGE_SIZE};
use tidelog_types::{BudgetLimits, JournalId, Life, Lineage, Lsn, Page, Pgid, Position};

fn zeros(number: u32) -> CodedPage {
    CodedPage::new(Pgid(number), &Page::zeroed(), None)
}

/// One page of a seed, coded like this.
fn coded(coding: PageCoding) -> ToRoom {
    let ToRoom::Seed { position, db_pages, last, .. } = seed(&[], 9) else { unreachable!() };
    let pages = vec![CodedPage { pgid: Pgid(1), coding }];
    ToRoom::Seed { position, db_pages, pages, last }
}

fn seed(pages: &[u32], db_pages: u32) -> ToRoom {
    let journal = JournalId([9; 16]);
    ToRoom::Seed {
        position: Position { next: lsn(5), ..Position::start_of(journal) },
        db_pages,
        pages: pages.iter().map(|number| zeros(*number)).collect(),
        last: false,
    }
}

#[test]
fn a_seed_is_its_pages_in_their_order_and_no_more() {
    for (message, why) in [
        (seed(&[2], 9), "not from the first page on"),
        (seed(&[1, 2, 3], 2), "more than it says"),
        (seed(&[1], ENTRY_PAGES_MAX as u32 + 1), "more than a document may have"),
        (coded(PageCoding::Previous(vec![0, 1, 7])), "a page that goes by another one"),
        (coded(PageCoding::Zeros(vec![0xFF, 0x1F, 2, 7, 7])), "bytes behind the page"),
    ] {
        let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
        scene.open_on(ANN, CHANNEL, offer());
        scene.say(ANN, message);
        let heard = scene.read_all(ANN, &mut Copy::default());
        assert!(matches!(refusal(&heard), Refusal::Protocol { .. }), "{why}: {heard:?}");
    }
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.open_on(ANN, CHANNEL, offer());
    scene.say(ANN, seed(&[1, 2], 9));
    scene.say(ANN, seed(&[2], 9));
    let heard = scene.read_all(ANN, &mut Copy::default());
    assert!(matches!(refusal(&heard), Refusal::Protocol { .. }), "the same again: {heard:?}");
}

#[test]
fn a_seed_is_in_the_store_part_by_part_and_takes_its_place_as_a_whole() {
    let (file, parts) = large_seed(8);
    // The room has to fetch what it looks at: it keeps nothing.
    let limits = Limits { pool_pages_max: 4, fault_pages_max: 2, ..Limits::DEFAULT };
    let mut scene = Scene::new(limits, usize::MAX);
    scene.open_on(ANN, CHANNEL, offer_of_a_life());
    scene.appended.clear();
    let count = parts.len();
    for (part, index) in parts.into_iter().zip(1..) {
        scene.say(ANN, part);
        let staged: usize = scene.appended.iter().sum();
        assert_eq!(staged, (8 * index).min(file.len() / PAGE_SIZE));
        assert_eq!(
            scene.documents(),
            if index < count { ["notebook@staged"] } else { ["notebook"] }
        );
    }
    let heard = scene.read_all(ANN, &mut Copy::default());
    let is_taken = matches!(heard[..], [.., FromRoom::Seeded { .. }, FromRoom::Opened { .. }]);
    assert!(is_taken, "{heard:?}");
    assert!(scene.export() == file);
    // Whoever comes later is sent the same.
    let mut copy = Copy::default();
    scene.open(BOB);
    scene.read_all(BOB, &mut copy);
    assert!(copy.image() == file);
}

#[test]
fn a_seed_that_is_not_gone_on_with_is_given_back() {
    let (_, parts) = large_seed(8);
    let out_of_order = parts[0].clone();
    for end in [
        RoomInput::Left { conn: ANN },
        RoomInput::Message {
            conn: ANN,
            channel: CHANNEL,
            message: ToRoom::Close,
            speaker: Speaker::anybody(),
        },
        RoomInput::Message {
            conn: ANN,
            channel: CHANNEL,
            message: out_of_order,
            speaker: Speaker::anybody(),
        },
    ] {
        let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
        scene.open_on(ANN, CHANNEL, offer_of_a_life());
        scene.say(ANN, parts[0].clone());
        assert_eq!(scene.documents(), ["notebook@staged"]);
        scene.settle(end.clone());
        assert_eq!(scene.documents(), [""; 0], "{end:?}");
    }
}

#[test]
fn who_hands_over_faster_than_the_disk_takes_waits() {
    let limits = Limits { room_pages_in_flight_max: 16, ..Limits::DEFAULT };
    let (_, parts) = large_seed(8);
    let mut scene = Scene::new(limits, usize::MAX);
    scene.open_on(ANN, CHANNEL, offer_of_a_life());
    scene.appended.clear();
    scene.holds_durable = true;
    for part in parts.into_iter().take(9) {
        scene.say(ANN, part);
    }
    assert_eq!(scene.appended.iter().sum::<usize>(), 16);
    assert!(!scene.room.takes_messages(), "its connection is not read");
}

#[test]
fn one_local_document_is_handed_over_at_a_time() {
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.open_on(ANN, CHANNEL, offer());
    assert!(matches!(scene.read(ANN), Some(FromRoom::SeedWanted)));
    scene.open_on(BOB, CHANNEL, offer());
    assert_eq!(scene.read(BOB), None, "it is not known what becomes of the first");
    scene.settle(RoomInput::Left { conn: ANN });
    assert!(matches!(scene.read(BOB), Some(FromRoom::SeedWanted)));
}

/// Spoils the rows of these timelines, on the leaves of their table, and nothing else.
fn spoil_timelines(file: &mut [u8], timelines: impl Iterator<Item = u8> + Clone) {
    const LEAF: u8 = 10;
    for page in file.chunks_mut(PAGE_SIZE).filter(|page| page[0] == LEAF) {
        for timeline in timelines.clone() {
            let at = page.windows(16).position(|bytes| bytes == [timeline; 16]);
            // Before the first column stand the record's header and its size.
            let size_at =
                at.and_then(|at| (at - 6..at).find(|start| page[*start] as usize == at - start));
            if let Some(size_at) = size_at {
                page[size_at] = 127;
            }
        }
    }
}

/// Goal: nobody is thrown out by what concerns another client alone. Method: a file in which some
/// timelines cannot be read is handed over, and a client of one of them comes.
#[test]
fn a_timeline_that_cannot_be_read_is_in_nobody_elses_way() {
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    for number in 1..=250 {
        let conn = ConnId(number);
        scene.open(conn);
        scene.frames(conn, 1, adds(1));
        scene.settle(RoomInput::Left { conn });
    }
    let mut file = scene.export();
    spoil_timelines(&mut file, 100..=140);
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.open_on(ANN, CHANNEL, offer_of_a_life());
    seed_of(&file, 64).into_iter().for_each(|part| scene.say(ANN, part));
    let heard = scene.read_all(ANN, &mut Copy::default());
    assert!(matches!(heard[..], [.., FromRoom::Opened { .. }]), "{heard:?}");
    let other = ConnId(120);
    scene.open(other);
    let heard = scene.read_all(other, &mut Copy::default());
    assert_eq!(refusal(&heard), &Refusal::Damaged);
    scene.frames(ANN, 2, adds(1));
    let heard: Vec<FromRoom> = std::iter::from_fn(|| scene.read(ANN)).collect();
    assert!(matches!(heard[..], [FromRoom::Entry(_), FromRoom::Acked { .. }]), "{heard:?}");
}

#[test]
fn one_who_is_silent_is_waited_for_less_long_where_others_may_find_no_room() {
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    for round in 0..5 {
        scene.open_on(ANN, CHANNEL, offer());
        let now_ms = round * 1_000_000;
        let alone_ms = scene.room.seed_overdue_at_ms(now_ms).expect("it ends in any case");
        assert_eq!(alone_ms - now_ms, 60_000 << round.min(3));
        scene.room.press_seed(true);
        let pressed_ms = scene.room.seed_overdue_at_ms(now_ms).expect("it ends sooner");
        assert_eq!(pressed_ms - now_ms, 5_000 << round.min(3));
        scene.settle(RoomInput::SeedOverdue { now_ms: pressed_ms });
        assert_eq!(scene.room.seed_size(), 0);
        scene.room.press_seed(false);
    }
}

/// How often one is refused, where others may find no room, until its document is taken over: each
/// part of it takes so long, and it begins anew each time. `None` if that is never.
fn refusals(part_pages: usize, part_takes_ms: u64) -> Option<u32> {
    let (_, parts) = large_seed(part_pages);
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.room.press_seed(true);
    let (mut now_ms, mut refused_count) = (0, 0);
    let mut waiting = parts.iter();
    scene.open_on(ANN, CHANNEL, offer_of_a_life());
    while let Some(part) = waiting.next() {
        let due_ms = scene.room.seed_overdue_at_ms(now_ms).expect("it ends in any case");
        if due_ms < now_ms + part_takes_ms {
            now_ms = due_ms.max(now_ms);
            scene.settle(RoomInput::SeedOverdue { now_ms });
            scene.open_on(ANN, CHANNEL, offer_of_a_life());
            (refused_count, waiting) = (refused_count + 1, parts.iter());
            if refused_count > 5 {
                return None;
            }
        } else {
            now_ms += part_takes_ms;
            scene.say(ANN, part.clone());
        }
    }
    let heard = scene.read_all(ANN, &mut Copy::default());
    assert!(matches!(heard[..], [.., FromRoom::Opened { .. }]), "{heard:?}");
    Some(refused_count)
}

/// Goal: who is slow gets through also where others may find no room. Method: the first part takes
/// six seconds, and is refused once; then so much that it is refused twice, and goes on like that.
#[test]
fn one_who_is_slow_gets_through_where_others_may_find_no_room() {
    assert_eq!(refusals(64, 6_000), Some(1));
    assert_eq!(refusals(64, 12_000), Some(2));
}

/// Goal: nobody keeps others waiting by a page now and then. Method: parts that come soon enough,
/// each of so many pages that what comes in a minute is enough, a little less, and next to nothing.
#[test]
fn one_of_whom_too_little_comes_is_not_waited_for_where_others_may_find_no_room() {
    assert_eq!(refusals(5, 1_000), Some(0));
    assert_eq!(refusals(3, 1_000), Some(1), "in the end it has the time that it needs");
    assert_eq!(refusals(1, 4_000), None);
}

#[test]
fn one_who_hands_over_is_waited_for_as_long_as_something_comes() {
    let (_, parts) = large_seed(64);
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.open_on(ANN, CHANNEL, offer_of_a_life());
    scene.say(ANN, parts[0].clone());
    assert_eq!(scene.room.seed_overdue_at_ms(0), Some(60_000), "nobody waits");
    scene.settle(RoomInput::SeedOverdue { now_ms: 59_999 });
    scene.open_on(BOB, CHANNEL, offer());
    let due_ms = scene.room.seed_overdue_at_ms(1_000).expect("Bob waits");
    assert!(due_ms < 10_000, "sooner than he gives up");
    scene.say(ANN, parts[1].clone());
    let later_ms = scene.room.seed_overdue_at_ms(4_000).expect("Bob waits");
    assert_eq!(later_ms - due_ms, 4_000);
    scene.settle(RoomInput::SeedOverdue { now_ms: due_ms });
    let heard = scene.read_all(ANN, &mut Copy::default());
    let is_taken = |said: &FromRoom| matches!(said, FromRoom::SeedTaken { .. });
    assert!(heard[0] == FromRoom::SeedWanted && heard[1..].iter().all(is_taken), "{heard:?}");
    scene.settle(RoomInput::SeedOverdue { now_ms: later_ms });
    let heard = scene.read_all(ANN, &mut Copy::default());
    assert!(matches!(heard[..], [FromRoom::Refused(_)]), "{heard:?}");
    assert_eq!(scene.read(BOB), Some(FromRoom::SeedWanted));
}

/// Goal: whoever hands over loses no time in which the room takes nothing in. Method: it runs
/// nothing for longer than a turn lasts, while others wait for that to end.
#[test]
fn a_turn_to_hand_over_does_not_pass_while_the_room_takes_nothing_in() {
    let (_, parts) = large_seed(64);
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.open_on(ANN, CHANNEL, offer_of_a_life());
    scene.say(ANN, parts[0].clone());
    scene.open_on(BOB, CHANNEL, offer());
    assert_eq!(scene.room.seed_overdue_at_ms(0), Some(5_000), "something has to come");
    scene.room.let_run(MayRun::Nothing);
    let (conn, channel, message) = (ANN, CHANNEL, parts[1].clone());
    scene.step(RoomInput::Message { conn, channel, message, speaker: Speaker::anybody() });
    for now_ms in [1_000, 50_000, 100_000] {
        assert_eq!(scene.room.seed_overdue_at_ms(now_ms), None, "{now_ms}: nothing is taken in");
    }
    scene.room.let_run(MayRun::Everything);
    scene.settle(RoomInput::GoOn);
    assert_eq!(scene.room.seed_overdue_at_ms(100_000), Some(105_000));
}

#[test]
fn what_is_kept_of_a_document_is_counted_and_not_kept_for_somebody_silent() {
    let (_, parts) = large_seed(64);
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.open_on(ANN, CHANNEL, offer_of_a_life());
    let doctype_size = codec::encode(&notes()).len();
    assert_eq!(scene.room.seed_size(), doctype_size, "it is kept as it came");
    scene.say(ANN, parts[0].clone());
    assert!(scene.room.seed_size() > doctype_size);
    assert_eq!(scene.room.kept_size(), 0, "a rest would give nothing back");
    let due_ms = scene.room.seed_overdue_at_ms(0).expect("it ends in any case");
    scene.read_all(ANN, &mut Copy::default());
    scene.settle(RoomInput::SeedOverdue { now_ms: due_ms });
    let heard = scene.read_all(ANN, &mut Copy::default());
    assert!(matches!(heard[..], [FromRoom::Refused(Refusal::Storage { .. })]), "{heard:?}");
    assert_eq!((scene.room.seed_size(), scene.documents()), (0, Vec::new()));
    assert_eq!(scene.room.seed_overdue_at_ms(due_ms), None);
}

/// Goal: rooms that look at large documents keep no memory that nobody counts. Method: pages are
/// fetched of one that has come and is not the room's document yet.
#[test]
fn what_is_fetched_of_a_document_that_has_come_is_counted() {
    let (_, parts) = large_seed(64);
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.open_on(ANN, CHANNEL, offer_of_a_life());
    parts.into_iter().for_each(|part| scene.say(ANN, part));
    let is_fetched = |(kept, of_seed): &(usize, usize)| *kept > PAGE_SIZE && *of_seed > 0;
    assert!(scene.kept.iter().any(is_fetched), "{:?}", scene.kept);
}

/// Goal: a look at a document that has come can be given up at any time. Method: it is, a few
/// times, amid reading pages, and what had been asked for comes all the same.
#[test]
fn a_document_that_has_come_is_looked_at_anew_and_taken_over() {
    let (file, parts) = large_seed(64);
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.open_on(ANN, CHANNEL, offer_of_a_life());
    let (last, others) = parts.split_last().expect("some");
    others.iter().for_each(|part| scene.say(ANN, part.clone()));
    let (conn, channel, message) = (ANN, CHANNEL, last.clone());
    scene.step(RoomInput::Message { conn, channel, message, speaker: Speaker::anybody() });
    let mut times = 0;
    while times < 3 {
        scene.store.flush();
        for (_, reply) in scene.store.poll() {
            scene.step(RoomInput::Store(reply));
        }
        if scene.room.run_size() > 0 {
            scene.room.begin_run_anew();
            assert_eq!((scene.room.run_size(), scene.room.kept_size()), (0, 0));
            assert!(!scene.room.is_amid_run() && !scene.room.takes_messages());
            times += 1;
        }
        assert!(scene.room.wants_step() || scene.room.is_amid_run(), "it was not taken over yet");
        scene.step(RoomInput::GoOn);
    }
    scene.settle(RoomInput::GoOn);
    let heard = scene.read_all(ANN, &mut Copy::default());
    assert!(matches!(heard[..], [.., FromRoom::Opened { .. }]), "{heard:?}");
    assert_eq!(scene.export(), file);
}

#[test]
fn one_of_whom_no_more_is_kept_makes_way_and_comes_again() {
    let (_, parts) = large_seed(64);
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.open_on(ANN, CHANNEL, offer_of_a_life());
    scene.open_on(BOB, CHANNEL, offer_of_a_life());
    scene.say(ANN, parts[0].clone());
    scene.settle(RoomInput::SeedUnkept);
    let heard = scene.read_all(ANN, &mut Copy::default());
    assert!(matches!(heard.last(), Some(FromRoom::Refused(Refusal::Storage { .. }))), "{heard:?}");
    assert_eq!(scene.read(BOB), Some(FromRoom::SeedWanted));
    scene.settle(RoomInput::SeedUnkept);
    scene.open_on(ANN, CHANNEL, offer_of_a_life());
    assert_eq!(scene.read(ANN), Some(FromRoom::SeedWanted));
}

/// Where the storage journal of a local document stands at `next`.
fn local(next: u64) -> Position {
    Position { next: lsn(next), life: LIFE, ..Position::start_of(JournalId([9; 16])) }
}

fn open_from(have: Option<Position>, intent: Intent) -> ToRoom {
    ToRoom::Open {
        document: "notebook".to_owned(),
        doctype: codec::encode(&notes()).into(),
        timeline: JournalId([1; 16]),
        secret: tidelog_types::CopySecret::NONE,
        have,
        intent,
    }
}

/// V13. The client was not heard when it was told that its document was taken over, and went on.
#[test]
fn a_full_store_takes_a_further_state_of_a_document_that_it_has() {
    let (_, parts) = large_seed(64);
    let mut scene = Scene::new(Limits { documents_max: 1, ..Limits::DEFAULT }, usize::MAX);
    for next in [5, 6] {
        hand_over(&mut scene, next, &parts);
        assert!(matches!(scene.read(ANN), Some(FromRoom::SeedWanted)), "at {next}");
        let heard = scene.read_all(ANN, &mut Copy::default());
        let is_taken = matches!(heard[..], [.., FromRoom::Seeded { .. }, FromRoom::Opened { .. }]);
        assert!(is_taken, "at {next}: {heard:?}");
        scene.say(ANN, ToRoom::Close);
    }
}

/// Hands over the local document as it is at `next`.
fn hand_over(scene: &mut Scene, next: u64, parts: &[ToRoom]) {
    scene.say(ANN, open_from(Some(local(next)), offer_of_a_life()));
    for part in parts.iter().cloned() {
        let ToRoom::Seed { db_pages, pages, last, .. } = part else { panic!("a seed") };
        scene.say(ANN, ToRoom::Seed { position: local(next), db_pages, pages, last });
    }
}

/// Goal: a further state of a document costs a step what a step may cost, however many follow it.
/// Method: it is read from the store for each of them once it is there; steps are as small as can
/// be.
#[test]
fn a_further_state_is_read_for_many_followers_in_many_steps() {
    let limits = Limits { slice: BudgetLimits::SMALLEST, ..Limits::DEFAULT };
    let (file, parts) = large_seed(64);
    let mut scene = Scene::new(limits, usize::MAX);
    hand_over(&mut scene, 5, &parts);
    let conns = (10..50).map(ConnId);
    let mut copies = vec![Copy::default(); conns.clone().count()];
    for (conn, copy) in conns.clone().zip(&mut copies) {
        scene.open(conn);
        scene.read_all(conn, copy);
    }
    scene.holds_durable = true;
    hand_over(&mut scene, 6, &parts);
    scene.holds_durable = false;
    let mut reads_by_step = Vec::new();
    for reply in std::mem::take(&mut scene.held) {
        let mut input = Some(RoomInput::Store(reply));
        while let Some(next) = input.take() {
            let before = scene.reads_count;
            scene.step(next);
            reads_by_step.push(scene.reads_count - before);
            input = scene.room.wants_step().then_some(RoomInput::GoOn);
        }
    }
    assert_eq!(reads_by_step.iter().sum::<usize>(), conns.clone().count());
    assert!(reads_by_step.iter().all(|count| *count <= 1), "{reads_by_step:?}");
    scene.settle(RoomInput::GoOn);
    for (conn, copy) in conns.zip(&mut copies) {
        scene.read_all(conn, copy);
        assert!(copy.image() == file, "the same bytes on both sides");
        assert_eq!(copy.position.map(|position| position.next), Some(lsn(6)));
    }
}

/// The database of a new document, with what this SQL has done to it, as a seed.
fn seed_after(sql: &str) -> ToRoom {
    seed_with(sql, |_, _| {})
}

/// The same, with a change to the file's bytes. It is told where tables begin.
fn seed_with(sql: &str, change: impl FnOnce(&mut [u8], &dyn Fn(&str) -> usize)) -> ToRoom {
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.open(ANN);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("local.sqlite");
    std::fs::write(&path, scene.export()).expect("written");
    let database = rusqlite::Connection::open(&path).expect("a database");
    database.execute_batch(sql).expect("it runs");
    let mut file = std::fs::read(&path).expect("a file");
    change(&mut file, &|name| {
        let root = "select rootpage from sqlite_schema where name = ?1";
        let root = database.query_row(root, [name], |row| row.get::<_, u32>(0));
        root.expect("it has a root") as usize
    });
    drop(database);
    let pages: Vec<(Pgid, Page)> = (1..)
        .map(Pgid)
        .zip(file.chunks(PAGE_SIZE).map(|bytes| Page::new(bytes).expect("a page")))
        .collect();
    ToRoom::Seed {
        position: Position { next: lsn(5), life: LIFE, ..Position::start_of(JournalId([9; 16])) },
        db_pages: u32::try_from(pages.len()).expect("few"),
        pages: pages.iter().map(|(pgid, page)| CodedPage::new(*pgid, page, None)).collect(),
        last: true,
    }
}

fn planted(sql: &str) -> Vec<FromRoom> {
    taken_from(seed_after(sql))
}

fn taken_from(seed: ToRoom) -> Vec<FromRoom> {
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    let mut lives = Lineage::default();
    lives.note(LIFE, Lsn::FIRST);
    scene.open_on(ANN, CHANNEL, Intent::Offer { lives });
    scene.say(ANN, seed);
    scene.read_all(ANN, &mut Copy::default())
}

/// V15.
#[test]
fn a_seed_has_the_schema_of_its_doctype_and_nothing_else() {
    let heard = planted("insert into note values ('mine')");
    let is_taken = matches!(heard[..], [.., FromRoom::Seeded { .. }, FromRoom::Opened { .. }]);
    assert!(is_taken, "{heard:?}");
    for sql in [
        "create trigger spy after insert on _tidelog_timeline begin delete from note; end",
        "create view extra as select 1",
        "drop table log",
        "pragma writable_schema = on; update sqlite_schema set sql = 'create nonsense'",
    ] {
        let heard = planted(sql);
        let is_refused =
            matches!(refusal(&heard), Refusal::Protocol { .. } | Refusal::DoctypeInvalid { .. });
        assert!(is_refused, "{sql}: {heard:?}");
    }
}

/// V15. Goal: what is found to be another schema has not taken the server's memory before that.
/// Method: views of which each byte stands for many.
#[test]
fn a_seed_with_a_schema_that_is_too_large_is_refused_before_it_is_read() {
    // Past SQLite, which would read them here.
    let insert = |number| {
        let ones = "1,".repeat(200_000);
        format!(
            "insert into sqlite_schema values
                 ('view', 'v{number}', 'v{number}', 0, 'create view v{number} as
                                                        select 1 in ({ones} 1)');"
        )
    };
    let inserts: String = (0..12).map(insert).collect();
    let seed = seed_after(&format!("pragma writable_schema = on; {inserts}"));
    let [_, most_before] = tidelog_sqlite::held_size();
    assert!(most_before < 48 << 20, "{most_before} bytes to make it");
    let heard = taken_from(seed);
    let Refusal::Protocol { reason } = refusal(&heard) else { panic!("{heard:?}") };
    assert!(reason.contains("bytes for a schema"), "{reason}");
    let [_, most] = tidelog_sqlite::held_size();
    assert!(most < 64 << 20, "{most} bytes");
}

/// Goal: nobody makes a room read a whole file each time that it opens the document. Method: SQLite
/// reads its own statistics with the schema, and there are 36 MB of them.
#[test]
fn a_seed_with_more_statistics_than_there_can_be_is_refused_before_they_are_read() {
    let seed = seed_after(
        "analyze;
         with recursive n (i) as (select 1 union all select i + 1 from n where i < 9000)
             insert into sqlite_stat1 select 'note', null, hex(zeroblob(1900)) from n",
    );
    let heard = taken_from(seed);
    let Refusal::Protocol { reason } = refusal(&heard) else { panic!("{heard:?}") };
    assert!(reason.contains("pages for a schema"), "{reason}");
}

/// Goal: no mutation writes where the verdicts are. Method: files in which a table or an index of
/// the app begins where something else does, or where nothing can; the schema says the same.
#[test]
fn the_tables_of_a_seed_begin_on_pages_of_their_own() {
    let root_of = |name| format!("(select rootpage from sqlite_schema where name = '{name}')");
    let others = [root_of("_tidelog_timeline"), root_of("_tidelog_meta"), root_of("note")];
    let nowhere = ["0", "1", "-1", "null", "'x'"].map(str::to_owned);
    for root in others.iter().chain(&nowhere) {
        for name in ["log", "sqlite_autoindex_note_1"] {
            let heard = planted(&format!(
                "pragma writable_schema = on;
                 update sqlite_schema set rootpage = {root} where name = '{name}'"
            ));
            let refusal = refusal(&heard);
            let is_refused =
                matches!(refusal, Refusal::Protocol { .. } | Refusal::DoctypeInvalid { .. });
            assert!(is_refused, "{name} at {root}: {heard:?}");
        }
    }
}

/// Rows on many pages, some long, and free pages.
const MANY_PAGES: &str = "
    with recursive n (i) as (select 1 union all select i + 1 from n where i < 9000)
        insert into note select hex(zeroblob(50)) || i from n;
    insert into note select hex(zeroblob(9000)) || rowid from note where rowid % 100 = 0;
    delete from note where rowid > 6000 and rowid < 9000;
    delete from note where rowid < 50";

/// Goal: no page of a seed is given out again as another's. Method: files in which one stands where
/// it belongs, and once more: among the free pages, under another page, behind a long value.
#[test]
fn each_page_of_a_seed_stands_in_one_place() {
    let write = |file: &mut [u8], page: usize, at: usize, what: usize| {
        let at = (page - 1) * PAGE_SIZE + at;
        file[at..at + 4].copy_from_slice(&u32::try_from(what).expect("small").to_be_bytes());
    };
    let read = |file: &[u8], page: usize, at: usize| {
        let at = (page - 1) * PAGE_SIZE + at;
        u32::from_be_bytes(file[at..at + 4].try_into().expect("four")) as usize
    };
    let heard = planted(MANY_PAGES);
    let is_taken = matches!(heard[..], [.., FromRoom::Seeded { .. }, FromRoom::Opened { .. }]);
    assert!(is_taken, "{heard:?}");

    type Change<'c> = &'c dyn Fn(&mut [u8], &dyn Fn(&str) -> usize);
    let free_leaf: Change<'_> = &|file, root_of| {
        let trunk = read(file, 1, 32);
        assert!(trunk > 1 && read(file, trunk, 4) > 0, "no free pages");
        write(file, trunk, 8, root_of("_tidelog_timeline"));
    };
    let free_trunk: Change<'_> = &|file, root_of| {
        write(file, 1, 32, root_of("_tidelog_timeline"));
        write(file, 1, 36, 1);
    };
    let child: Change<'_> = &|file, root_of| {
        let root = root_of("note");
        assert_eq!(file[(root - 1) * PAGE_SIZE], 5, "a table of many pages");
        write(file, root, 8, root_of("_tidelog_timeline"));
    };
    let long_value: Change<'_> = &|file, root_of| {
        // A chain ends with nothing behind it, and follows something else.
        let pages = 2..=file.len() / PAGE_SIZE;
        let is_chain = |page: &usize| {
            let next = read(file, *page, 0);
            let bytes = &file[(*page - 1) * PAGE_SIZE + 4..*page * PAGE_SIZE];
            next > 1 && bytes.iter().all(|byte| *byte == b'0')
        };
        let page = pages.into_iter().find(is_chain).expect("a long value");
        write(file, page, 0, root_of("_tidelog_timeline"));
    };
    let other_size: Change<'_> = &|file, _| write(file, 1, 28, file.len() / PAGE_SIZE - 1);
    // SQLite opens it for reading alone, or takes its texts for others.
    let write_version: Change<'_> = &|file, _| file[18] = 2;
    let utf_16: Change<'_> = &|file, _| write(file, 1, 56, 2);
    let changes = [free_leaf, free_trunk, child, long_value, other_size, write_version, utf_16];
    for (index, change) in changes.into_iter().enumerate() {
        let heard = taken_from(seed_with(MANY_PAGES, change));
        let reason = "a seed with pages in the place of others".to_owned();
        assert_eq!(*refusal(&heard), Refusal::Protocol { reason }, "{index}: {heard:?}");
    }
}

/// Goal: who hands a document over takes no thread of the server for long. Method: a file of a few
/// pages, each of which names the next one hundreds of times, as the table does that SQLite reads
/// whenever it opens a file.
#[test]
fn a_seed_whose_schema_names_pages_again_and_again_is_not_read() {
    let interior = |page: &mut [u8], start: usize, next: u8| {
        let cells = start + 12;
        let count = (PAGE_SIZE - cells) / 7;
        page[start..cells].copy_from_slice(&[5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, next]);
        page[start + 3..start + 5]
            .copy_from_slice(&u16::try_from(count).expect("few").to_be_bytes());
        for index in 0..count {
            let at = PAGE_SIZE - 5 * (index + 1);
            page[at..at + 5].copy_from_slice(&[0, 0, 0, next, 1]);
            let pointer = u16::try_from(at).expect("within").to_be_bytes();
            page[cells + 2 * index..cells + 2 * index + 2].copy_from_slice(&pointer);
        }
    };
    let seed = seed_with("select 1", |file, _| {
        for number in 1..6 {
            let page = &mut file[(number - 1) * PAGE_SIZE..number * PAGE_SIZE];
            let start = if number == 1 { 100 } else { 0 };
            interior(page, start, u8::try_from(number + 1).expect("few"));
        }
    });
    let ToRoom::Seed { db_pages, .. } = &seed else { panic!("a seed") };
    assert!(*db_pages >= 6, "{db_pages} are too few");
    let heard = taken_from(seed);
    let reason = "a seed with pages in the place of others".to_owned();
    assert_eq!(*refusal(&heard), Refusal::Protocol { reason }, "{heard:?}");
}

/// Goal: what a client may say of a timeline's end is no place behind which nothing can be said.
/// Method: a document is handed over in which one has come as far as LSNs go, and goes on there.
#[test]
fn a_timeline_that_has_come_to_its_end_takes_no_frame() {
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.open_on(ANN, CHANNEL, offer_of_a_life());
    let timeline = hex(&[ANN.0 as u8; 16]);
    let row = format!("x'{timeline}', {LSN_MAX}, x'', 1, null");
    let row = format!("insert into _tidelog_timeline values ({row})");
    scene.say(ANN, seed_after(&row));
    scene.read_all(ANN, &mut Copy::default());
    scene.frames(ANN, LSN_MAX, adds(2));
    let heard = scene.read_all(ANN, &mut Copy::default());
    assert!(matches!(refusal(&heard), Refusal::Protocol { .. }), "{heard:?}");
}

/// Goal: nobody brings a journal in which there is no place for whoever writes next. Method: seeds
/// that end at the last LSN there is, with pages and without, and one that ends far before.
#[test]
fn a_seed_leaves_room_for_what_is_written_behind_it() {
    let at = |next: u64, pages: bool| {
        let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
        scene.open_on(ANN, CHANNEL, offer_of_a_life());
        let ToRoom::Seed { db_pages, pages: all, .. } = seed_after("select 1") else {
            panic!("a seed")
        };
        let (db_pages, pages) = if pages { (db_pages, all) } else { (0, Vec::new()) };
        scene.say(ANN, ToRoom::Seed { position: local(next), db_pages, pages, last: true });
        scene
    };
    for has_pages in [true, false] {
        let mut scene = at(LSN_MAX, has_pages);
        let heard = scene.read_all(ANN, &mut Copy::default());
        assert!(matches!(refusal(&heard), Refusal::Protocol { .. }), "{has_pages}: {heard:?}");
        assert_eq!(scene.documents(), [""; 0], "{has_pages}: nothing is kept of it");
        // The room goes on.
        scene.open(BOB);
        scene.frames(BOB, 1, adds(1));
        let heard = scene.read_all(BOB, &mut Copy::default());
        assert!(matches!(heard.last(), Some(FromRoom::Acked { .. })), "{heard:?}");
    }
    let mut scene = at(LSN_MAX / 2, true);
    scene.frames(ANN, 1, adds(3));
    let ToRoom::Seed { pages, .. } = seed_after("select 1") else { panic!("a seed") };
    let handed_over = |page: &CodedPage| (page.pgid, page.decoded(|_| None).expect("a page"));
    let pages = pages.iter().map(handed_over).collect();
    let mut copy = Copy { position: Some(local(LSN_MAX / 2)), pages, ..Copy::default() };
    let heard = scene.read_all(ANN, &mut copy);
    assert!(matches!(heard.last(), Some(FromRoom::Acked { next }) if *next == lsn(4)), "{heard:?}");
}

/// Goal: nobody brings lives at which whoever writes next in their document stumbles. Method: a
/// seed that ends before its fifth LSN, with lives that cannot have written it; and one of nothing.
#[test]
fn a_seed_is_of_the_lives_that_wrote_it() {
    let later = Life([8; 16]);
    let lineage = |lives: &[(Life, u64)]| {
        let mut lineage = Lineage::default();
        lives.iter().for_each(|(life, begin)| lineage.note(*life, lsn(*begin)));
        lineage
    };
    let offered = |lives: &[(Life, u64)], seed: ToRoom| {
        let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
        scene.open_on(ANN, CHANNEL, Intent::Offer { lives: lineage(lives) });
        scene.say(ANN, seed);
        scene.read_all(ANN, &mut Copy::default())
    };
    let full = || seed_after("insert into note values ('mine')");
    let heard = offered(&[(later, 1), (LIFE, 4)], full());
    assert!(heard.iter().any(|said| matches!(said, FromRoom::Seeded { .. })), "{heard:?}");
    // Who sees another document of the store knows under which life it is open.
    let (mut scene, mut copy) = (Scene::new(Limits::DEFAULT, usize::MAX), Copy::default());
    scene.open(ANN);
    scene.frames(ANN, 1, adds(1));
    scene.read_all(ANN, &mut copy);
    let store = copy.position.expect("it has an entry").life;
    for lives in [
        &[][..],
        &[(LIFE, 5)],
        &[(LIFE, 1), (later, 5)],
        &[(LIFE, 1), (later, 3)],
        &[(LIFE, 1), (later, 2), (LIFE, 3)],
        &[(store, 1), (LIFE, 3)],
    ] {
        let heard = offered(lives, full());
        assert!(matches!(refusal(&heard), Refusal::Protocol { .. }), "{lives:?}: {heard:?}");
    }
    let empty = || ToRoom::Seed {
        position: Position::start_of(JournalId([9; 16])),
        db_pages: 0,
        pages: Vec::new(),
        last: true,
    };
    let heard = offered(&[], empty());
    assert!(heard.iter().any(|said| matches!(said, FromRoom::Seeded { .. })), "{heard:?}");
    let heard = offered(&[(LIFE, 1)], empty());
    assert!(matches!(refusal(&heard), Refusal::Protocol { .. }), "{heard:?}");
}

/// A row of the client's timeline that names more lives than anybody remembers.
#[test]
fn what_a_client_is_told_when_it_opens_is_short_whatever_the_pages_say() {
    let timeline = "x'0101010101010101' || x'0101010101010101'";
    // Each of 24 bytes: an id, and an LSN that rises. 64 KiB of it are SQL's to repeat.
    let rows = (1..=2_000_u64).map(|number| {
        let id = format!("{number:032x}");
        format!("{id}{}", hex(&number.to_le_bytes()))
    });
    let lives: String = rows.collect();
    let heard = planted(&format!(
        "insert into _tidelog_timeline values (cast({timeline} as blob), 9999, x'{lives}', 1, null)"
    ));
    let [.., FromRoom::Opened { wanted, lives, .. }] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!(*wanted, lsn(9999), "the row is its own");
    assert_eq!(lives.lives().count(), 0, "none of them is known");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What servers before this one have died of, and what is run now.
#[derive(Default)]
struct Deaths {
    denied: Vec<Suspect>,
    run: Mutex<Vec<Suspect>>,
}

impl Caution for Deaths {
    fn run(&self, suspect: &dyn Fn() -> Suspect, run: &mut dyn FnMut()) -> bool {
        let suspect = suspect();
        let is_run = !self.denied.contains(&suspect);
        self.run.lock().expect("no panic").push(suspect);
        if is_run {
            run();
        }
        is_run
    }
}

/// V9. The same document is known by its name when it comes again, whoever opened the store.
#[test]
fn a_seed_that_ended_the_server_is_not_looked_at_for_ever() {
    let (_, parts) = large_seed(64);
    let hand_over = |denied: Vec<Suspect>| {
        let deaths = Arc::new(Deaths { denied, ..Deaths::default() });
        let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
        scene.room = scene.room.with_caution(Arc::clone(&deaths) as Arc<dyn Caution>);
        scene.open_on(ANN, CHANNEL, offer_of_a_life());
        parts.iter().for_each(|part| scene.say(ANN, part.clone()));
        let heard = scene.read_all(ANN, &mut Copy::default());
        let mut run = deaths.run.lock().expect("no panic");
        let is_of_migrations = |suspect: &&Suspect| suspect.what.starts_with("migrations");
        let before = run.iter().take_while(is_of_migrations).count();
        (heard, before, run.pop().expect("it was looked at"))
    };
    let (heard, looks_at_doctype, last) = hand_over(Vec::new());
    assert_eq!(looks_at_doctype, 2, "whether it can be used, and what its schema is");
    assert!(heard.iter().any(|said| matches!(said, FromRoom::Seeded { .. })), "{heard:?}");
    let (heard, _, again) = hand_over(vec![last.clone()]);
    assert_eq!(last, again);
    assert!(matches!(refusal(&heard), Refusal::Protocol { .. }), "{heard:?}");
}

#[test]
fn an_offer_names_no_more_lives_than_are_kept() {
    let mut lives = Lineage::default();
    for number in 1..=65 {
        lives.note(Life([number; 16]), lsn(u64::from(number)));
    }
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.open_on(ANN, CHANNEL, Intent::Offer { lives });
    let heard = scene.read_all(ANN, &mut Copy::default());
    assert!(matches!(refusal(&heard), Refusal::Protocol { .. }), "{heard:?}");
}
