//! What one message, and one step, may cost a room.
//!
//! Goal: nobody makes a room hold or do more at once than `types/limits.rs` allows, and nobody else
//! notices. Method: a room over a store in memory, whose steps, pages and bytes are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidelog_document::Doctype;
use tidelog_room::{ConnId, MayRun, RoomInput, Speaker, ThreadClock};
use tidelog_sync::{FromRoom, Intent, ProbeId, Refusal, ToRoom, UndecidedReason, codec};
use tidelog_testing::room::*;
use tidelog_types::BudgetLimits;
use tidelog_types::limits::{Limits, PAGE_SIZE};

#[test]
fn a_long_message_is_worked_off_in_many_steps() {
    let slice = BudgetLimits { pages: 8, ..Limits::DEFAULT.slice };
    let mut scene = Scene::new(Limits { slice, ..Limits::DEFAULT }, usize::MAX);
    scene.open(ANN);
    scene.appended.clear();
    scene.frames(ANN, 1, adds(300));
    let most = scene.appended.iter().max().copied().expect("steps");
    assert!(most <= 8 + 8, "{most} pages in one step");
    assert_eq!(scene.room.counts().applied, 300);
    let heard = scene.read_all(ANN, &mut Copy::default());
    assert!(matches!(heard.last(), Some(FromRoom::Acked { next }) if *next == lsn(301)));
}

/// Goal: nobody keeps a room busy for somebody who has gone. Method: one leaves behind many frames,
/// of which the first one is done, or waits for a page.
#[test]
fn what_is_not_begun_is_forgotten_when_its_client_leaves() {
    for faults in [false, true] {
        let slice = BudgetLimits { steps: 1, ..Limits::DEFAULT.slice };
        let mut scene = Scene::new(Limits { slice, ..Limits::DEFAULT }, usize::MAX);
        scene.open(ANN);
        scene.open(BOB);
        if faults {
            scene.room.rest_deeply();
        }
        let message = ToRoom::Frames { life: LIFE, first: lsn(1), frames: adds(300) };
        scene.step(RoomInput::Message {
            conn: ANN,
            channel: CHANNEL,
            message,
            speaker: Speaker::anybody(),
        });
        assert_eq!(scene.room.counts().applied, u64::from(!faults));
        scene.settle(RoomInput::Left { conn: ANN });
        assert_eq!(scene.room.counts().applied, 1 + u64::from(!faults), "what is begun is done");
        // It says the rest again when it comes back, and nobody else notices.
        scene.open(ANN);
        scene.frames(ANN, 1, adds(300));
        scene.frames(BOB, 1, adds(1));
        assert_eq!(scene.room.counts().applied, 301);
    }
}

/// Each look takes a hundredth of what one run of a transaction may take.
#[derive(Debug, Default)]
struct Looks(AtomicU64);

impl ThreadClock for Looks {
    fn worked_ns(&self) -> u64 {
        self.0.fetch_add(100_000_000, Ordering::Relaxed)
    }
}

/// Goal: nobody keeps a room busy with a doctype that it only looks at. Method: migrations of which
/// each statement is within what one may cost, be it one long one or many short ones, and a room
/// that has little time for them.
#[test]
fn a_doctype_is_looked_at_for_no_longer_than_its_migrations_may_run() {
    let long = "create table note as
                with recursive c (x) as (select 1 union all select x + 1 from c where x < 100000)
                select max(x) as most from c";
    for slow in [long.to_owned(), "select 1;".repeat(200)] {
        let doctype = Doctype {
            name: "slow".to_owned(),
            migrations: vec!["create table log (id text) strict".to_owned(), slow],
            mutations: Vec::new(),
            streams: Vec::new(),
            workflows: Vec::new(),
        };
        let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
        scene.room = scene.room.with_clock(Arc::new(Looks::default()));
        scene.say(ANN, open_with(&doctype, 1));
        let heard = scene.read_all(ANN, &mut Copy::default());
        let Refusal::DoctypeInvalid { reason } = refusal(&heard) else { panic!("{heard:?}") };
        let start = "migration 2 of doctype slow does not run: over the budget of time";
        assert!(reason.starts_with(start), "{reason}");
    }
}

/// Goal: a run that is cut off has no verdict, and has one once it may take as long as it takes.
/// Method: a mutation takes seconds and its room has half a second, twice, and then as much
/// as any; after that a migration the same.
#[test]
fn a_run_that_is_cut_off_begins_anew_once_it_may_take_longer() {
    let slow = |rest: &str| "select 1;".repeat(10) + rest;
    let mut doctype = notes();
    let log = doctype.mutations.iter_mut().find(|it| it.name == "log").expect("defined");
    log.sql = vec![slow(&log.sql.concat())];
    let mut newer = doctype.clone();
    newer.migrations.push(slow(""));
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.room = scene.room.with_clock(Arc::new(Looks::default()));
    scene.say(ANN, open_with(&doctype, 1));
    let heard =
        |scene: &mut Scene| -> Vec<FromRoom> { std::iter::from_fn(|| scene.read(ANN)).collect() };
    heard(&mut scene);
    let frames = vec![frame(&doctype, "log", "a"), frame(&doctype, "log", "b")];
    let frames = ToRoom::Frames { life: LIFE, first: lsn(1), frames };
    for message in [frames, open_with(&newer, 1)] {
        let before = scene.room.counts();
        scene.room.let_run(MayRun::Briefly(Duration::from_millis(500)));
        scene.say(ANN, message);
        for _ in 0..2 {
            assert!(scene.room.is_held_back() && !scene.room.wants_step());
            assert_eq!((scene.room.counts(), heard(&mut scene)), (before, Vec::new()));
            scene.room.let_run(MayRun::Briefly(Duration::from_millis(500)));
            scene.settle(RoomInput::GoOn);
        }
        scene.room.let_run(MayRun::Everything);
        scene.settle(RoomInput::GoOn);
        let is_refused = |it: &FromRoom| matches!(it, FromRoom::Refused(_));
        let heard = heard(&mut scene);
        assert!(!heard.is_empty() && !heard.iter().any(is_refused), "{heard:?}");
    }
    assert_eq!((scene.room.counts().applied, scene.room.counts().rejected), (2, 0));
}

/// A room with little time that has a document of 2 MiB and fetches one page for a fault.
fn slow_scene() -> Scene {
    let limits = Limits { fault_pages_max: 1, ..Limits::DEFAULT };
    let mut scene = Scene::new(limits, usize::MAX);
    scene.room = scene.room.with_clock(Arc::new(Looks::default()));
    with_bulk(&mut scene);
    scene
}

/// Takes a third of what one run may, and then reads here and there.
fn slow_and_scattered() -> String {
    let update = "update log set id = substr(id, 2) where number in (
        with recursive n(i) as (values (1) union all select i + 15 from n where i < 585)
        select i from n)";
    "select 1;".repeat(30) + update
}

fn open_with(doctype: &Doctype, number: u8) -> ToRoom {
    let ToRoom::Open { document, timeline, have, intent, .. } =
        open("notebook", number, Intent::Follow)
    else {
        unreachable!("it opens")
    };
    ToRoom::Open {
        document,
        doctype: codec::encode(doctype).into(),
        timeline,
        secret: tidelog_types::CopySecret::NONE,
        have,
        intent,
    }
}

/// Goal: what is not in memory is no reason against a mutation. Method: one goes over all of a
/// document, so that all its runs together take much longer than the last one.
#[test]
fn a_mutation_each_run_of_which_takes_little_is_applied_however_often_it_faults() {
    let mut scene = slow_scene();
    scene.room.rest_deeply();
    scene.frames(ANN, 3, vec![frame(&notes(), "touch", "x")]);
    assert_eq!(scene.room.counts().applied, 3);
}

/// Goal: nobody keeps a room busy by what is not in memory. Method: a mutation faults again and
/// again, late in each of its runs.
#[test]
fn a_mutation_that_faults_again_and_again_ends_when_all_its_runs_have_taken_too_long() {
    let mut scene = slow_scene();
    let mut doctype = notes();
    let mut slow = doctype.mutation("touch").expect("defined").clone();
    slow.name = "slow".to_owned();
    slow.sql = vec![slow_and_scattered()];
    doctype.mutations.push(slow);
    scene.say(ANN, open_with(&doctype, 1));
    let slow = || vec![frame(&doctype, "slow", "x")];
    scene.frames(ANN, 3, slow());
    assert_eq!(scene.room.counts().applied, 3);
    scene.room.rest_deeply();
    scene.frames(ANN, 4, slow());
    assert_eq!(scene.room.counts().rejected, 1);
    // The next one has as much as any.
    scene.frames(ANN, 5, adds(1));
    assert_eq!(scene.room.counts().applied, 4);
}

/// Goal: nor by a migration, with which its clients come again and again: of a doctype that is not
/// valid they ask seldom. Method: one faults like that mutation.
#[test]
fn a_migration_whose_runs_take_too_long_together_is_refused_as_if_one_did() {
    let mut scene = slow_scene();
    let mut newer = notes();
    newer.migrations.push(slow_and_scattered());
    scene.room.rest_deeply();
    scene.say(BOB, open_with(&newer, 2));
    let heard = scene.read_all(BOB, &mut Copy::default());
    let Refusal::DoctypeInvalid { reason } = refusal(&heard) else { panic!("{heard:?}") };
    assert!(reason.contains("over the budget of time"), "{reason}");
}

#[test]
fn frames_that_cost_nothing_but_their_number_end_a_step_too() {
    let slice = BudgetLimits { steps: 1_000, ..Limits::DEFAULT.slice };
    let mut scene = Scene::new(Limits { slice, ..Limits::DEFAULT }, usize::MAX);
    scene.open(ANN);
    scene.frames(ANN, 1, adds(1_000));
    scene.appended.clear();
    scene.frames(ANN, 1, adds(1_000));
    assert_eq!(scene.room.counts().applied, 1_000, "they came before");
    assert!(scene.appended.len() >= 50, "{} steps", scene.appended.len());
}

#[test]
fn what_is_not_durable_holds_up_what_comes_after_it() {
    let limits = Limits { room_pages_in_flight_max: 40, ..Limits::DEFAULT };
    let mut scene = Scene::new(limits, usize::MAX);
    scene.open(ANN);
    scene.appended.clear();
    scene.holds_durable = true;
    scene.frames(ANN, 1, adds(300));
    let held: usize = scene.appended.iter().sum();
    assert!((1..=40 + 8).contains(&held), "{held} pages");
    assert!(!scene.room.takes_messages(), "the rest of the message waits in the room");
    scene.holds_durable = false;
    for reply in std::mem::take(&mut scene.held) {
        scene.settle(RoomInput::Store(reply));
    }
    assert_eq!(scene.room.counts().applied, 300);
    assert!(scene.room.takes_messages());
}

#[test]
fn a_room_that_may_run_nothing_tells_what_is_durable_and_goes_on_once_it_may() {
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.open(ANN);
    scene.read_all(ANN, &mut Copy::default());
    scene.holds_durable = true;
    scene.frames(ANN, 1, adds(1));
    scene.holds_durable = false;
    scene.room.let_run(MayRun::Nothing);
    assert!(!scene.room.is_held_back(), "there is nothing to run");
    scene.frames(ANN, 2, adds(1));
    for reply in std::mem::take(&mut scene.held) {
        scene.settle(RoomInput::Store(reply));
    }
    let heard: Vec<FromRoom> = std::iter::from_fn(|| scene.read(ANN)).collect();
    assert!(matches!(heard[..], [FromRoom::Entry(_), FromRoom::Acked { .. }]), "{heard:?}");
    assert!(scene.room.is_held_back() && !scene.room.wants_step());
    scene.room.let_run(MayRun::Everything);
    assert!(!scene.room.is_held_back() && scene.room.wants_step());
    scene.settle(RoomInput::GoOn);
    assert_eq!(scene.room.counts().applied, 2);
}

#[test]
fn who_has_filled_a_document_with_rejections_waits_for_room_and_nobody_else_does() {
    let limits = Limits { document_pages_max: 20, verdict_pages_max: 8, ..Limits::DEFAULT };
    let mut scene = Scene::new(limits, usize::MAX);
    scene.open(ANN);
    scene.open(BOB);
    let mut copy = Copy::default();
    scene.read_all(BOB, &mut copy);
    let log = |size| frame(&notes(), "log", &"x".repeat(size));
    scene.frames(BOB, 1, (0..8).map(|_| log(4_000)).collect());
    // None of them is a mutation of the doctype, and the reason says so at length.
    let nonsense = |_| frame(&notes(), &"nonsense ".repeat(1_000), "");
    scene.frames(ANN, 1, (0..40).map(nonsense).collect());
    let mut own = Copy::default();
    let heard = scene.read_all(ANN, &mut own);
    let waits = heard.iter().find_map(|message| match message {
        FromRoom::Undecided { lsn, why: UndecidedReason::NoRoomForVerdict { .. } } => Some(*lsn),
        FromRoom::Refused(refusal) => panic!("{refusal:?}"),
        _ => None,
    });
    let waits = waits.expect("there is no room for forty of them");
    assert!(matches!(heard.last(), Some(FromRoom::Acked { next }) if *next == waits));
    let rejected = scene.room.counts().rejected;
    assert_eq!(rejected, waits.get() - 1);

    scene.frames(BOB, 9, vec![frame(&notes(), "keep", "nothing")]);
    let heard = scene.read_all(BOB, &mut copy);
    assert!(matches!(heard.last(), Some(FromRoom::Acked { next }) if *next == lsn(10)));
    assert_eq!(scene.room.counts().rejected, rejected, "Bob's were applied");
    assert!(copy.image() == scene.export());

    // There is room again.
    scene.read_all(ANN, &mut own);
    scene.open(ANN);
    scene.frames(ANN, waits.get(), vec![nonsense(0)]);
    let heard = scene.read_all(ANN, &mut Copy::default());
    assert!(matches!(heard.last(), Some(FromRoom::Acked { next }) if *next == waits.next()));
}

/// Goal: a crowd that lags costs the store no more than what it is sent. Method: all of them wait
/// for a chunk, and the store takes one read at a time.
#[test]
fn what_the_store_had_no_room_for_is_asked_for_once_for_each_read_that_ends() {
    let limits = Limits { owner_reads_max: 1, ..Limits::DEFAULT };
    let mut scene = Scene::new(limits, 1024 * 1024);
    scene.open(ANN);
    scene.frames(ANN, 1, adds(10));
    let mut copies = vec![Copy::default(); 100];
    let conns = (0..100).map(|number| ConnId(10 + number));
    for conn in conns.clone() {
        let message = open("notebook", 9, Intent::Follow);
        scene.step(RoomInput::Message {
            conn,
            channel: CHANNEL,
            message,
            speaker: Speaker::anybody(),
        });
    }
    scene.reads_count = 0;
    scene.settle(RoomInput::GoOn);
    for (conn, copy) in conns.zip(&mut copies) {
        scene.read_all(conn, copy);
        assert_eq!(copy.position.map(|position| position.next), Some(lsn(12)), "it has all of it");
    }
    assert!(scene.reads_count <= 300, "{} reads", scene.reads_count);
}

#[test]
fn a_room_that_rested_goes_on_as_if_it_had_not() {
    let images = [false, true].map(|rests| {
        let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
        scene.open(ANN);
        for number in 1..=20 {
            if rests {
                scene.room.rest();
            }
            scene.frames(ANN, number, vec![frame(&notes(), "log", &number.to_string())]);
        }
        assert_eq!(scene.room.counts().applied, 20);
        scene.export()
    });
    assert!(images[0] == images[1]);
}

/// Goal: a server has room for many small documents that nobody changes now, and each is there at
/// once. Method: after a rest a document of several pages takes less than one, and goes on.
#[test]
fn a_small_document_at_rest_takes_few_bytes() {
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    scene.open(ANN);
    scene.frames(ANN, 1, vec![frame(&notes(), "log", "a")]);
    assert!(scene.room.kept_size() > 5 * PAGE_SIZE, "{}", scene.room.kept_size());
    scene.room.rest();
    assert!(scene.room.kept_size() < PAGE_SIZE, "{}", scene.room.kept_size());
    scene.frames(ANN, 2, vec![frame(&notes(), "log", "b")]);
    assert_eq!(scene.room.counts().applied, 2);
    assert!(scene.room.kept_size() > 5 * PAGE_SIZE, "{}", scene.room.kept_size());
}

#[test]
fn a_room_that_gave_all_back_goes_on_as_if_it_had_not() {
    let mut scene = Scene::new(Limits::DEFAULT, usize::MAX);
    with_bulk(&mut scene);
    assert!(scene.room.kept_size() > 1024 * 1024);
    for number in 3..=6 {
        scene.room.rest_deeply();
        assert_eq!(scene.room.kept_size(), 0);
        scene.step(RoomInput::Message {
            conn: ANN,
            channel: CHANNEL,
            message: ToRoom::Frames {
                life: LIFE,
                first: lsn(number),
                frames: vec![frame(&notes(), "touch", "x")],
            },
            speaker: Speaker::anybody(),
        });
        // Not between two runs of one mutation.
        let (kept, waits) = (scene.room.kept_size(), !scene.room.takes_messages());
        scene.room.rest_deeply();
        assert!(!waits || kept == 0 || scene.room.kept_size() > 0);
        scene.settle(RoomInput::GoOn);
    }
    assert_eq!(scene.room.counts().applied, 6);
    let mut copy = Copy::default();
    scene.open(BOB);
    scene.read_all(BOB, &mut copy);
    assert!(copy.image() == scene.export());
}

/// What one client says costs the same however many others are there, and each entry one look at
/// the way to each of them.
#[test]
fn work_grows_with_those_whom_it_is_for() {
    let looks_with = |others: u64| {
        // What they are sent fills their ways: all but one of them lag from then on.
        let mut scene = Scene::new(Limits::DEFAULT, 16 * 1024);
        scene.open(ANN);
        let mut copy = Copy::default();
        scene.read_all(ANN, &mut copy);
        for conn in (1..=others).map(|number| ConnId(10 + number)) {
            scene.open(conn);
        }
        let looks = |scene: &Scene| scene.ways.looks.swap(0, Ordering::Relaxed);
        looks(&scene);
        for number in 1..=10 {
            scene.frames(ANN, number, vec![frame(&notes(), "log", &number.to_string())]);
            scene.read_all(ANN, &mut copy);
        }
        let of_entries = looks(&scene);
        // Those of one client alone.
        for number in 11..=20 {
            let next = copy.position.expect("it follows").next;
            scene.say(ANN, ToRoom::Received { next });
            scene.say(ANN, ToRoom::Probe { probe: ProbeId(number) });
            scene.settle(RoomInput::Writable { conn: ANN });
        }
        (of_entries, looks(&scene))
    };
    let (alone, own_alone) = looks_with(1);
    let (crowded, own_crowded) = looks_with(1_000);
    assert_eq!(own_alone, own_crowded, "of what concerns one client");
    assert!(crowded <= 1_000 * alone, "{alone} with one, {crowded} with a thousand");
}

/// Goal: what a run waits for is counted as soon as it is in memory. Method: a mutation goes over
/// all of a document of which nothing is, and the store brings the pages one by one.
#[test]
fn pages_that_a_run_waits_for_are_counted_as_they_come() {
    let limits = Limits { read_chunk_pages: 1, ..Limits::DEFAULT };
    let mut scene = Scene::new(limits, usize::MAX);
    scene.open(ANN);
    scene.frames(ANN, 1, vec![frame(&notes(), "bulk", "a")]);
    scene.room.rest_deeply();
    assert_eq!(scene.room.kept_size(), 0);
    scene.kept.clear();
    scene.frames(ANN, 2, vec![frame(&notes(), "touch", "b")]);
    let rises = scene.kept.windows(2).filter(|pair| pair[0].0 < pair[1].0).count();
    assert!(rises > 100, "{rises} times: {:?}", scene.kept);
}
