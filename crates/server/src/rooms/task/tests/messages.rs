//! Messages that wait, and what those who have gone left behind.

use super::*;

/// Goal: a connection that has left one of its documents has all its room for the others.
/// Method: one leaves while a chunk is read for it, and the room has so much to tell that it
/// does not get to that in the same step.
#[tokio::test]
async fn who_leaves_a_busy_room_has_nothing_reserved_there() {
    let scene = Scene::new(slow_settings());
    let (room, mut task) = scene.task();
    let say = |task: &mut RoomTask, mail| {
        let input = task.input(mail);
        task.step(input);
    };
    let (leaver, _end) = Connection::new(ConnId(1));
    let (stayer, _other_end) = Connection::new(ConnId(2));
    let has_reserved = || {
        let is_free = leaver.reserve(usize::MAX / 2, &list(), &room.downgrade());
        if is_free {
            leaver.release(usize::MAX / 2);
        }
        !is_free
    };

    say(&mut task, message(&leaver, open()));
    while !has_reserved() {
        let input = match task.room.wants_step() {
            true => RoomInput::GoOn,
            false => RoomInput::Store(*task.owner.replies.recv().await.expect("an answer")),
        };
        task.step(input);
    }
    say(&mut task, message(&stayer, open()));
    say(&mut task, RoomMail::Left { conn: leaver.id() });
    assert!(task.room.wants_step(), "it has not left yet");
    while task.room.wants_step() {
        task.step(RoomInput::GoOn);
    }
    assert!(task.room.takes_messages());
    assert!(!has_reserved());
}

/// Goal: what has come by the time the room gets to it goes to the disk together, and is told once.
/// Method: three messages, to a room that goes on gathering however slow the machine is; unread
/// ones, and those that waited while it worked on something else.
#[tokio::test]
async fn messages_that_have_come_are_one_append_and_one_acknowledgement() {
    goes_to_the_disk_together(|_, room, mail| room.send(mail).expect("it is there")).await;
    goes_to_the_disk_together(|task, _, mail| task.keep_waiting(mail)).await;
}

async fn goes_to_the_disk_together(come: impl Fn(&mut RoomTask, &RoomSender, RoomMail)) {
    let scene = Scene::new(settings());
    let counters = Arc::clone(&scene.rooms.counters);
    let (room, mut task) = scene.task();
    let (connection, mut end) = Connection::new(ConnId(1));
    room.send(message(&connection, open())).expect("it is there");
    let is_calm = |task: &RoomTask| task.room.takes_messages() && task.room.in_flight_size() == 0;
    step_until(&mut task, |task| is_calm(task) && task.inbox.is_empty() && !end.queue.is_empty())
        .await;
    let before = counters.appends.load(Ordering::Relaxed);
    while end.queue.try_recv().is_ok() {}

    for first in 1..=3 {
        let ToRoom::Frames { life, frames, .. } = frames() else { unreachable!("they are") };
        let (first, frames) = (Lsn::new(first).expect("from 1"), frames[..1].to_vec());
        come(&mut task, &room, message(&connection, ToRoom::Frames { life, first, frames }));
    }
    while task.room.counts().rejected < 3 || !is_calm(&task) {
        task.gathering = Duration::ZERO;
        let input = timeout(ANSWER_TAKES, task.next_input()).await.expect("in time");
        task.step(input.expect("it is there"));
    }
    assert_eq!(counters.appends.load(Ordering::Relaxed) - before, 1);
    let told = std::iter::from_fn(|| end.queue.try_recv().ok());
    let is_ack = |message: &FromServer| {
        matches!(message, FromServer::About { body: FromRoom::Acked { .. }, .. })
    };
    assert_eq!(told.filter(|message| is_ack(message)).count(), 1);
}

/// Goal: what is decided goes to the disk soon, however much more is at hand. Method: a crowd of
/// messages has come, for which a room needs many turns.
#[tokio::test]
async fn what_is_decided_does_not_wait_for_all_that_has_come() {
    let scene = Scene::new(settings());
    let counters = Arc::clone(&scene.rooms.counters);
    let (_room, mut task) = scene.task();
    let (connection, _end) = Connection::new(ConnId(1));
    task.keep_waiting(message(&connection, open()));
    for first in 1..=600 {
        let ToRoom::Frames { life, frames, .. } = frames() else { unreachable!("they are") };
        let (first, frames) = (Lsn::new(first).expect("from 1"), frames[..1].to_vec());
        task.keep_waiting(message(&connection, ToRoom::Frames { life, first, frames }));
    }
    let is_worked_off = async {
        while counters.rejected.load(Ordering::Relaxed) < 600 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        () = task.run() => unreachable!("somebody is there"),
        done = timeout(ANSWER_TAKES, is_worked_off) => done.expect("in time"),
    }
    let appends = counters.appends.load(Ordering::Relaxed);
    assert!(appends >= 4, "{appends}");
}

#[tokio::test]
async fn a_large_message_holds_its_space_until_it_is_worked_off() {
    let scene = Scene::new(slow_settings());
    let (room, mut task) = scene.task();
    let (space, large) = space(1);
    let (connection, _end) = Connection::new(ConnId(1));
    room.send(message(&connection, open())).expect("it is there");
    room.send(message_with(&connection, frames(), large())).expect("it is there");
    let is_done = |task: &RoomTask| {
        let is_done = task.room.counts().rejected == 100 && task.room.takes_messages();
        assert_eq!(space.available_permits(), usize::from(is_done));
        is_done
    };
    step_until(&mut task, is_done).await;
}

/// Goal: frames that had arrived are applied, though their client has gone. Method: it leaves
/// behind a large message, and there is space for another one.
#[tokio::test]
async fn what_those_who_have_gone_left_behind_is_heard_while_nobody_wants_its_space() {
    let scene = Scene::new(slow_settings());
    let (room, mut task) = scene.task();
    let (_space, large) = space(MESSAGE_SIZE_MAX);
    let (connection, _end) = Connection::new(ConnId(1));
    room.send(message(&connection, open())).expect("it is there");
    room.send(message_with(&connection, frames(), large())).expect("it is there");
    room.send(RoomMail::Left { conn: connection.id() }).expect("it is there");
    connection.end(Ending::Quiet);
    step_until(&mut task, |task| task.room.counts().rejected == 100).await;
}

/// Goal: those who have gone keep no room busy where others want the space for large messages.
/// Method: one has gone whose message is worked on, with its channel closed, and one whose
/// message waits.
#[tokio::test]
async fn what_is_left_behind_by_those_who_have_gone_is_not_worked_off() {
    let scene = Scene::new(slow_settings());
    let (room, mut task) = scene.task();
    let (space, large) = space(2);
    let (first, _end) = Connection::new(ConnId(1));
    let (second, _other_end) = Connection::new(ConnId(2));
    room.send(message(&first, open())).expect("it is there");
    room.send(message_with(&first, frames(), large())).expect("it is there");
    room.send(message(&first, ToRoom::Close)).expect("it is there");
    room.send(message_with(&second, open(), large())).expect("it is there");
    step_until(&mut task, |task| task.room.counts().rejected == 1).await;
    second.end(Ending::Quiet);
    room.send(RoomMail::Left { conn: second.id() }).expect("it is there");
    step_until(&mut task, |task| task.room.counts().rejected == 2).await;
    assert_eq!(space.available_permits(), 1, "what waited is dropped at once");
    first.end(Ending::Quiet);
    step_until(&mut task, |task| task.room.takes_messages()).await;
    assert_eq!(space.available_permits(), 2);
    assert!(task.room.counts().rejected <= 3, "what is begun is done");
}

/// Goal: what a token allowed is not done any more once it has ended, however much a room has to
/// do. Method: one has frames that are worked on, and some that wait.
#[tokio::test]
async fn nothing_more_is_done_for_one_whose_token_has_ended() {
    let scene = Scene::new(slow_settings());
    let (room, mut task) = scene.task();
    let (connection, _end) = Connection::new(ConnId(1));
    room.send(message(&connection, open())).expect("it is there");
    for _ in 0..2 {
        room.send(message(&connection, frames())).expect("it is there");
    }
    let (answer, _answered) = oneshot::channel();
    room.send(RoomMail::Ask { ask: Ask::Describe, answer, may_still: None }).expect("it is there");
    step_until(&mut task, |task| task.room.counts().rejected == 2).await;
    connection.end(Ending::Bye(ByeReason::Unauthenticated));
    step_until(&mut task, |task| task.asked == 1 && task.answers.is_empty()).await;
    assert!(task.room.counts().rejected <= 3, "what is begun is done");
}

/// Goal: a busy room leaves space for large messages to others. Method: as much is said to one
/// as it keeps, in a message that it works on and in one that waits, and then more.
#[tokio::test]
async fn whoever_says_more_to_a_room_than_it_keeps_comes_back_later() {
    let scene = Scene::new(slow_settings());
    let (room, mut task) = scene.task();
    let half = ROOM_LARGE_MESSAGES_SIZE_MAX / 2;
    let space = Arc::new(Semaphore::new(1024 * 1024));
    let large = |size: usize| {
        let count = u32::try_from(size / 1024).expect("few");
        Some(Space::new(Arc::clone(&space).try_acquire_many_owned(count).expect("there is space")))
    };
    let connections = [1, 2, 3].map(|number| Connection::new(ConnId(number)).0);
    room.send(message(&connections[0], open())).expect("it is there");
    let sizes = [half, half, 1024];
    for (connection, size) in connections.iter().zip(sizes) {
        room.send(message_with(connection, frames(), large(size))).expect("it is there");
    }
    room.send(message(&connections[2], ToRoom::Close)).expect("it is there");
    step_until(&mut task, |task| task.room.counts().rejected == 2).await;
    let endings = connections.map(|connection| connection.ended().borrow().clone());
    assert_eq!(endings, [None, None, Some(Ending::Bye(ByeReason::Slow))]);
    assert_eq!(space.available_permits(), 1024 * 1024 - 2 * half / 1024);
}

/// Goal: nothing is told of a gap. Method: one is let go for a message that the room does not keep,
/// with another one behind it.
#[tokio::test]
async fn nothing_is_heard_that_came_behind_a_message_that_a_room_did_not_keep() {
    let scene = Scene::new(slow_settings());
    let (room, mut task) = scene.task();
    let space = Arc::new(Semaphore::new(ROOM_LARGE_MESSAGES_SIZE_MAX / 1024 + 1));
    let all = u32::try_from(space.available_permits()).expect("few");
    let too_much = Arc::clone(&space).try_acquire_many_owned(all).expect("there is space");
    let (connection, _end) = Connection::new(ConnId(1));
    room.send(message(&connection, open())).expect("it is there");
    let mail = message_with(&connection, frames(), Some(Space::new(too_much)));
    room.send(mail).expect("it is there");
    room.send(message(&connection, frames())).expect("it is there");
    let (answer, _answered) = oneshot::channel();
    room.send(RoomMail::Ask { ask: Ask::Describe, answer, may_still: None }).expect("it is there");
    step_until(&mut task, |task| task.asked == 1 && task.answers.is_empty()).await;
    assert_eq!(*connection.ended().borrow(), Some(Ending::Bye(ByeReason::Slow)));
    assert_eq!(task.room.counts().rejected, 0);
}

/// Goal: those who have gone keep no room busy, also where each run waits for the store. Method:
/// a room that keeps no pages.
#[tokio::test]
async fn what_faults_is_not_gone_on_with_for_those_who_have_gone() {
    let scene = Scene::new(settings_with(Limits { pool_pages_max: 1, ..Limits::DEFAULT }));
    let (room, mut task) = scene.task();
    let (space, large) = space(1);
    let (connection, _end) = Connection::new(ConnId(1));
    room.send(message(&connection, open())).expect("it is there");
    room.send(message_with(&connection, frames(), large())).expect("it is there");
    step_until(&mut task, |task| task.room.counts().rejected >= 2).await;
    assert!(task.room.counts().rejected < 10, "each waits for the store");
    connection.end(Ending::Quiet);
    step_until(&mut task, |task| task.room.takes_messages()).await;
    assert!(task.room.counts().rejected < 15, "what is begun is done");
    assert_eq!(space.available_permits(), 1);
}

/// Goal: no few connections keep all space for large messages from others. Method: one whose
/// message takes long, and one whose message waits behind it; nobody wants their space, and then
/// others do.
#[tokio::test]
async fn whoever_holds_space_for_too_long_that_others_want_comes_back_later() {
    for is_wanted in [false, true] {
        let scene = Scene::new(slow_settings());
        let (room, mut task) = scene.task();
        let space = Arc::new(Semaphore::new(MESSAGE_SIZE_MAX));
        let large = || Space::new(Arc::clone(&space).try_acquire_owned().expect("there is space"));
        let connections = [1, 2].map(|number| Connection::new(ConnId(number)).0);
        for connection in &connections {
            room.send(message(connection, open())).expect("it is there");
            room.send(message_with(connection, frames(), Some(large()))).expect("it is there");
        }
        step_until(&mut task, |task| task.room.counts().rejected == 1).await;
        let all = u32::try_from(MESSAGE_SIZE_MAX - 2).expect("few");
        let _others = is_wanted.then(|| space.try_acquire_many(all).expect("there is space"));
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(20)).await;
        step_until(&mut task, |task| task.room.counts().rejected == 2).await;
        let has_ended = || connections.each_ref().map(Connection::has_ended);
        assert_eq!(has_ended(), [false; 2]);
        tokio::time::advance(Duration::from_secs(10)).await;
        step_until(&mut task, |task| task.room.counts().rejected == 3).await;
        assert_eq!(has_ended(), [is_wanted; 2]);
        tokio::time::resume();
        if is_wanted {
            step_until(&mut task, |task| task.room.takes_messages()).await;
            assert!(task.room.counts().rejected <= 4, "what is begun is done");
            assert_eq!(space.available_permits(), 2);
            let endings = connections.map(|connection| connection.ended().borrow().clone());
            assert!(endings.iter().all(|it| *it == Some(Ending::Bye(ByeReason::Slow))));
        }
    }
}

/// Goal: what those who have gone left behind is bounded, and heard up to there. Method: while a
/// room works on a long message, one says a small one, and others come, say one each, and go; or
/// one does while much waits for other rooms.
#[tokio::test]
async fn where_too_much_waits_nothing_is_kept_of_those_who_have_gone() {
    let size = 380 * PERMIT_SIZE;
    for (count, elsewhere_size, heard_count) in [(5, 0, 5), (50, 0, 0), (1, u64::MAX / 2, 0)] {
        let scene = Scene::new(slow_settings());
        scene.rooms.counters.small_waiting_size.fetch_add(elsewhere_size, Ordering::Relaxed);
        let (room, mut task) = scene.task();
        let permits = Arc::new(Semaphore::new(count * size / PERMIT_SIZE));
        let all = permits.available_permits();
        let connections = [0, 1].map(|number| Connection::new(ConnId(number)).0);
        for (number, connection) in connections.iter().enumerate() {
            room.send(message(connection, open_from(number))).expect("it is there");
            room.send(message(connection, frames())).expect("it is there");
        }
        step_until(&mut task, |task| task.room.counts().rejected == 1).await;
        for number in 2..2 + count {
            let (gone, _end) = Connection::new(ConnId(number as u64));
            room.send(message(&gone, open_from(number))).expect("it is there");
            let own = Arc::clone(&permits).try_acquire_many_owned((size / PERMIT_SIZE) as u32);
            let permit = MessagePermit::new(own.expect("permits"), None, &scene.rooms.counters);
            room.send(message_of(&gone, frames(), permit)).expect("it is there");
            gone.end(Ending::Quiet);
            room.send(RoomMail::Left { conn: gone.id() }).expect("it is there");
        }
        let (answer, _answered) = oneshot::channel();
        room.send(RoomMail::Ask { ask: Ask::Describe, answer, may_still: None })
            .expect("it is there");
        tokio::time::pause();
        tokio::time::advance(LOOKS_EVERY).await;
        tokio::time::resume();
        step_until(&mut task, |task| task.room.counts().rejected == 2).await;
        let kept_size = (all - permits.available_permits()) * PERMIT_SIZE;
        assert!(kept_size <= ROOM_SMALL_WAITING_SIZE_MAX, "{kept_size} bytes");
        step_until(&mut task, |task| task.asked == 1 && task.answers.is_empty()).await;
        assert_eq!(task.room.counts().rejected, 100 * (2 + heard_count));
        assert_eq!(permits.available_permits(), all);
    }
}

/// Goal: whoever has gone keeps no space while a run waits. Method: it waits for its turn, which
/// another one has.
#[tokio::test]
async fn no_more_space_is_held_for_those_who_have_gone_than_what_is_begun_takes() {
    let limits = Limits {
        rooms_kept_size_max: 1,
        turnless_run_size_max: 1,
        pool_pages_max: 1,
        ..Limits::DEFAULT
    };
    let scene = Scene::new(settings_with(limits));
    let other_run = Arc::clone(&scene.rooms.run_turns).try_acquire_owned().expect("a turn");
    let (room, mut task) = scene.task();
    let space = Arc::new(Semaphore::new(3));
    let large = Arc::clone(&space).try_acquire_many_owned(3).expect("there is space");
    let (connection, _end) = Connection::new(ConnId(1));
    room.send(message(&connection, open())).expect("it is there");
    let mail = message_with(&connection, frames(), Some(Space::new(large)));
    room.send(mail).expect("it is there");
    while let Ok(input) = timeout(2 * QUIET_ROOM_RESTS, task.next_input()).await {
        task.step(input.expect("it is there"));
    }
    assert!(matches!(task.run_turn, Turn::Awaited(_)));
    assert_eq!(space.available_permits(), 0);
    let goes = async {
        tokio::time::sleep(2 * QUIET_ROOM_RESTS).await;
        connection.end(Ending::Quiet);
    };
    tokio::join!(step_until(&mut task, |_| space.available_permits() == 2), goes);
    drop(other_run);
    step_until(&mut task, |task| task.room.takes_messages()).await;
    assert_eq!(space.available_permits(), 3);
    assert!(task.room.counts().rejected <= 2, "what is begun is done");
}
