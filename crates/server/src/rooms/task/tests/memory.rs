//! What all rooms keep, and have on its way to the disk, and the turns of those that want more.

use super::*;

#[tokio::test]
async fn all_rooms_keep_no_more_of_what_is_handed_over_than_they_may() {
    let ToRoom::Open { doctype, timeline, have, .. } = open() else { unreachable!() };
    let seeds_kept_size_max = doctype.size() as u64;
    let scene = Scene::new(settings_with(Limits { seeds_kept_size_max, ..Limits::DEFAULT }));
    let counters = &scene.rooms.counters;
    let (connection, mut end) = Connection::new(ConnId(1));
    let mut offer = async |name: &str| {
        let offer = ToRoom::Open {
            document: name.to_owned(),
            doctype: doctype.clone(),
            timeline,
            secret: tidelog_types::CopySecret::NONE,
            have,
            intent: Intent::Offer { lives: Lineage::default() },
        };
        let document = DocumentKey::new(name, "").expect("a name");
        let room = scene.rooms.room(&document).expect("there is room");
        room.send(message(&connection, offer)).expect("it is there");
        let heard = timeout(ANSWER_TAKES, end.queue.recv()).await.expect("in time");
        match *heard.expect("it is there") {
            FromServer::About { body, .. } => (room, body),
            other => panic!("{other:?}"),
        }
    };
    // A room counts what it keeps behind what it says.
    let comes_to = async |size: u64| {
        while counters.seeds_kept_size.load(Ordering::Relaxed) != size {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (first, said) = offer("first").await;
    assert_eq!(said, FromRoom::SeedWanted);
    timeout(ANSWER_TAKES, comes_to(seeds_kept_size_max)).await.expect("the first is counted");
    let (_second, said) = offer("second").await;
    assert_eq!(said, FromRoom::SeedWanted);
    let heard = timeout(ANSWER_TAKES, end.queue.recv()).await.expect("in time");
    let refused = heard.map(|message| *message);
    let is_refused = matches!(
        refused,
        Some(FromServer::About { body: FromRoom::Refused(Refusal::Storage { .. }), .. })
    );
    assert!(is_refused, "{refused:?}");
    timeout(ANSWER_TAKES, comes_to(seeds_kept_size_max)).await.expect("one is kept");
    assert_eq!(counters.rooms_kept_size.load(Ordering::Relaxed), 0);
    first.send(RoomMail::Left { conn: ConnId(1) }).expect("it is there");
    timeout(ANSWER_TAKES, comes_to(0)).await.expect("nothing is kept");
}

/// Goal: those who hand over nothing do not keep others from it. Method: one of them is silent,
/// and then the server keeps much of what others hand over.
#[tokio::test(start_paused = true)]
async fn a_silent_seed_goes_soon_once_there_is_little_room_for_others() {
    let scene = Scene::new(settings());
    let (room, mut task) = scene.task();
    let (silent, _end) = Connection::new(ConnId(1));
    let ToRoom::Open { document, doctype, timeline, have, .. } = open() else { unreachable!() };
    let intent = Intent::Offer { lives: Lineage::default() };
    let offer = ToRoom::Open {
        document,
        doctype,
        timeline,
        secret: tidelog_types::CopySecret::NONE,
        have,
        intent,
    };
    room.send(message(&silent, offer)).expect("it is there");
    while task.room.seed_size() == 0 {
        let input = task.next_input().await.expect("it is there");
        task.step(input);
    }
    let began = Instant::now();
    let mut is_overdue = async |after: Duration| {
        let overdue = async {
            loop {
                match task.next_input().await.expect("it is there") {
                    RoomInput::SeedOverdue { .. } => break,
                    input => task.step(input),
                }
            }
        };
        timeout(after, overdue).await.is_ok()
    };
    assert!(!is_overdue(Duration::from_secs(20)).await, "there is room");
    let kept_size = Limits::DEFAULT.seeds_kept_size_max / 2 + 1;
    scene.rooms.counters.seeds_kept_size.fetch_add(kept_size, Ordering::Relaxed);
    assert!(is_overdue(Duration::from_secs(20)).await);
    assert!(began.elapsed() < Duration::from_secs(22), "after {:?}", began.elapsed());
}

/// Goal: however many rooms run what keeps much, only one of them at a time gets more pages.
/// Method: rooms that keep no pages between two runs, and more than they may amid one; another one
/// has the turn, and then two of them go on in turn.
#[tokio::test]
async fn runs_that_keep_much_wait_for_their_turn_where_all_rooms_keep_more_than_they_may() {
    let (rooms_kept_size_max, turnless_run_size_max, pool_pages_max) = (1, 1, 1);
    let scene = Scene::new(settings_with(Limits {
        rooms_kept_size_max,
        turnless_run_size_max,
        pool_pages_max,
        ..Limits::DEFAULT
    }));
    let turns = Arc::clone(&scene.rooms.run_turns);
    let other_run = Arc::clone(&turns).try_acquire_owned().expect("a turn");
    let (connection, _end) = Connection::new(ConnId(1));
    let rooms = ["a", "b"].map(|name| {
        let document = DocumentKey::new(name, "").expect("a name");
        let room = scene.rooms.room(&document).expect("there is room");
        room.send(message(&connection, open())).expect("it is there");
        room.send(message(&connection, frames())).expect("it is there");
        room
    });
    let rejected = || scene.rooms.counters.rejected.load(Ordering::Relaxed);
    let comes_to = async |count: u64| {
        while rejected() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waits = timeout(Duration::from_millis(500), comes_to(10)).await;
    assert!(waits.is_err(), "it is another one's turn");
    drop(other_run);
    timeout(ANSWER_TAKES, comes_to(200)).await.expect("they take turns");
    drop(rooms);
    let turn = timeout(ANSWER_TAKES, turns.acquire()).await;
    assert!(turn.is_ok(), "it is given back");
}

/// Goal: whoever runs what is small waits for no large run, whatever its room keeps besides.
/// Method: another run has the turn, and a room keeps its connections, which take more than each
/// run reads.
#[tokio::test]
async fn a_run_that_reads_little_waits_for_no_turn() {
    let (turnless_run_size_max, pool_pages_max) = (64 * 1024, 1);
    let limits = Limits { turnless_run_size_max, pool_pages_max, ..Limits::DEFAULT };
    let scene = Scene::new(settings_with(limits));
    let too_much = limits.rooms_kept_size_max;
    scene.rooms.counters.rooms_kept_size.fetch_add(too_much, Ordering::Relaxed);
    let _other_run = Arc::clone(&scene.rooms.run_turns).try_acquire_owned().expect("a turn");
    let (room, mut task) = scene.task();
    let (connection, _end) = Connection::new(ConnId(1));
    room.send(message(&connection, open())).expect("it is there");
    room.send(message(&connection, frames())).expect("it is there");
    step_until(&mut task, |task| task.room.counts().rejected == 100).await;
}

/// Goal: however many rooms run what is small, what their runs keep is bounded. Method: all rooms
/// keep far more than they may, another run has the turn, and a room reads a page at a time.
#[tokio::test]
async fn a_run_begins_anew_in_its_turn_where_all_rooms_keep_far_more_than_they_may() {
    let scene = Scene::new(settings_with(Limits { pool_pages_max: 1, ..Limits::DEFAULT }));
    let counters = Arc::clone(&scene.rooms.counters);
    let far_too_much = 2 * Limits::DEFAULT.rooms_kept_size_max;
    counters.rooms_kept_size.fetch_add(far_too_much, Ordering::Relaxed);
    let other_run = Arc::clone(&scene.rooms.run_turns).try_acquire_owned().expect("a turn");
    let (room, mut task) = scene.task();
    let (connection, _end) = Connection::new(ConnId(1));
    room.send(message(&connection, open())).expect("it is there");
    room.send(message(&connection, frames())).expect("it is there");
    let is_done = |task: &RoomTask| task.room.counts().rejected == 100;
    let waits = timeout(2 * QUIET_ROOM_RESTS, step_until(&mut task, is_done)).await;
    assert!(waits.is_err() && matches!(task.run_turn, Turn::Awaited(_)));
    assert_eq!((task.room.run_size(), task.room.kept_size()), (0, 0));
    drop(other_run);
    step_until(&mut task, is_done).await;
    step_until(&mut task, |task| !task.run_turn.is_taken()).await;
    assert_eq!(scene.rooms.run_turns.available_permits(), 1, "it is given back");
}

/// Goal: a client with many documents holds up nobody more than one that has one. Method: three
/// rooms of one client and one of another all wait for a turn for each of their runs.
#[tokio::test]
async fn a_run_waits_for_no_more_runs_of_a_client_that_has_many_documents() {
    let scene = Scene::new(settings_with(Limits { pool_pages_max: 1, ..Limits::DEFAULT }));
    let far_too_much = 2 * Limits::DEFAULT.rooms_kept_size_max;
    scene.rooms.counters.rooms_kept_size.fetch_add(far_too_much, Ordering::Relaxed);
    let other_run = Arc::clone(&scene.rooms.run_turns).try_acquire_owned().expect("a turn");
    let ((many, _end), (one, _other_end)) =
        (Connection::new(ConnId(1)), Connection::new(ConnId(2)));
    let [mut first, mut second, mut third, mut last] =
        [("a", &many), ("b", &many), ("c", &many), ("d", &one)].map(|(name, connection)| {
            let (room, task) = scene.task_of(&DocumentKey::new(name, "").expect("a name"));
            room.send(message(connection, open())).expect("it is there");
            room.send(message(connection, frames())).expect("it is there");
            (room, task)
        });
    for (_, task) in [&mut first, &mut second, &mut third, &mut last] {
        let never = timeout(QUIET_ROOM_RESTS, step_until(task, |_| false)).await;
        assert!(never.is_err() && matches!(task.run_turn, Turn::Awaited(_)));
    }
    drop(other_run);
    tokio::select! {
        () = step_until(&mut first.1, |_| false) => {}
        () = step_until(&mut second.1, |_| false) => {}
        () = step_until(&mut third.1, |_| false) => {}
        () = step_until(&mut last.1, |task| task.room.counts().rejected == 100) => {}
    }
    let of_many: u64 =
        [&first, &second, &third].map(|(_, it)| it.room.counts().rejected).iter().sum();
    assert!((80..=150).contains(&of_many), "{of_many} runs beside 100");
}

/// Goal: a turn is one run's, and the next run of the same message waits behind those of others.
/// Method: one room works on many frames, each of which faults, and has the turn while another one
/// waits for it.
#[tokio::test]
async fn a_turn_ends_with_its_run_whatever_else_its_message_brings() {
    let limits = Limits {
        rooms_kept_size_max: 1,
        turnless_run_size_max: 1,
        pool_pages_max: 1,
        ..Limits::DEFAULT
    };
    let scene = Scene::new(settings_with(limits));
    let (connection, _end) = Connection::new(ConnId(1));
    let [(_room, mut first), (_other_room, mut second)] = ["a", "b"].map(|name| {
        let document = DocumentKey::new(name, "").expect("a name");
        let (room, task) = scene.task_of(&document);
        room.send(message(&connection, open())).expect("it is there");
        room.send(message(&connection, frames())).expect("it is there");
        (room, task)
    });
    let has_turn = |task: &RoomTask| task.run_turn.is_taken() && task.room.counts().rejected > 0;
    step_until(&mut first, has_turn).await;
    let before = first.room.counts().rejected;
    let waits = timeout(QUIET_ROOM_RESTS, step_until(&mut second, has_turn)).await;
    assert!(waits.is_err() && matches!(second.run_turn, Turn::Awaited(_)));
    tokio::select! {
        () = step_until(&mut first, |task| task.room.counts().rejected == 100) => {}
        () = step_until(&mut second, |task| task.room.counts().rejected == 1) => {}
    }
    let after = first.room.counts().rejected;
    assert!(after <= before + 3, "{after} runs had their turn, {before} before the other waited");
}

#[tokio::test]
async fn a_room_keeps_nothing_where_all_rooms_keep_as_much_as_they_may() {
    for (rooms_kept_size_max, keeps) in [(u64::MAX, true), (1, false)] {
        let scene = Scene::new(settings_with(Limits { rooms_kept_size_max, ..Limits::DEFAULT }));
        let room = scene.rooms.room(&list()).expect("there is room");
        let (connection, mut end) = Connection::new(ConnId(1));
        room.send(message(&connection, open())).expect("it is there");
        let entry = async {
            loop {
                let message = *end.queue.recv().await.expect("it is there");
                if let FromServer::About { body: FromRoom::Entry(_), .. } = message {
                    break;
                }
            }
        };
        timeout(ANSWER_TAKES, entry).await.expect("the document");
        let kept_size = scene.rooms.counters.rooms_kept_size.load(Ordering::Relaxed);
        assert_eq!(kept_size > 0, keeps);
        assert_eq!(scene.rooms.ask(&list(), Ask::Destroy).await, Answer::Destroyed);
    }
}

/// Goal: what all rooms together have on its way to the disk is bounded. Method: others have as
/// much as they may, or not, and a room is told of many mutations at once.
#[tokio::test]
async fn a_room_waits_for_the_disk_where_all_rooms_have_much_on_its_way() {
    let mut appends = Vec::new();
    for others in [0, Limits::DEFAULT.rooms_in_flight_size_max + 1] {
        let scene = Scene::new(settings());
        let counters = &scene.rooms.counters;
        counters.rooms_in_flight_size.fetch_add(others, Ordering::Relaxed);
        let room = scene.rooms.room(&list()).expect("there is room");
        let (connection, _end) = Connection::new(ConnId(1));
        room.send(message(&connection, open())).expect("it is there");
        room.send(message(&connection, frames())).expect("it is there");
        let all = async {
            while counters.rejected.load(Ordering::Relaxed) < 100 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(ANSWER_TAKES, all).await.expect("it gets on");
        assert_eq!(scene.rooms.ask(&list(), Ask::Destroy).await, Answer::Destroyed);
        appends.push(counters.appends.load(Ordering::Relaxed));
        // It is counted once the step has ended in which that is answered.
        let none_is_left = async {
            while counters.rooms_in_flight_size.load(Ordering::Relaxed) != others {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(ANSWER_TAKES, none_is_left).await.expect("all of it is on the disk");
    }
    assert!(appends[1] >= 100 && appends[0] < 50, "{appends:?}");
}

/// Goal: nor does it have one entry there beyond that, before it is its turn. Method: others have
/// the turns, and then give them back.
#[tokio::test]
async fn where_all_rooms_have_much_on_its_way_a_room_waits_for_its_turn() {
    let scene = Scene::new(settings());
    let counters = &scene.rooms.counters;
    let much = Limits::DEFAULT.rooms_in_flight_size_max + 1;
    counters.rooms_in_flight_size.fetch_add(much, Ordering::Relaxed);
    let turns = Arc::clone(&scene.rooms.write_turns);
    let count = u32::try_from(turns.available_permits()).expect("few");
    let others = turns.acquire_many(count).await.expect("they are free");
    let (connection, _end) = Connection::new(ConnId(1));
    let rooms = ["a", "b", "c"].map(|name| {
        let document = DocumentKey::new(name, "").expect("a name");
        let room = scene.rooms.room(&document).expect("there is room");
        room.send(message(&connection, open())).expect("it is there");
        room.send(message(&connection, frames())).expect("it is there");
        room
    });
    let rejected = || counters.rejected.load(Ordering::Relaxed);
    let comes_to = async |count: u64| {
        while rejected() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(timeout(Duration::from_millis(300), comes_to(1)).await.is_err(), "it is not its turn");
    drop(others);
    timeout(ANSWER_TAKES, comes_to(300)).await.expect("they take turns");
    drop(rooms);
    let given_back = timeout(ANSWER_TAKES, turns.acquire_many(count)).await;
    assert!(given_back.is_ok());
}
