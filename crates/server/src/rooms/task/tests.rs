use std::sync::atomic::AtomicU64;
use std::sync::mpsc as std_mpsc;

use tidelog_document::Doctype;
use tidelog_pages::AppendError;
use tidelog_room::{Caution, Suspect};
use tidelog_sync::{ByeReason, Channel, Intent, Refusal, ToRoom, WireFrame, codec};
use tidelog_types::limits::{Limits, MESSAGE_SIZE_MAX};
use tidelog_types::{BudgetLimits, CallId, JournalId, Life, Lineage, Lsn, Position};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::*;
use crate::large_messages::PERMIT_SIZE;
use crate::rooms::ANSWER_TAKES;
use crate::rooms::mail::RoomSender;
use crate::rooms::tests::{Scene, list};

fn settings() -> RoomSettings {
    settings_with(Limits::DEFAULT)
}

fn settings_with(limits: Limits) -> RoomSettings {
    RoomSettings { dev: true, limits, ..RoomSettings::default() }
}

fn message(connection: &Connection, body: ToRoom) -> RoomMail {
    message_with(connection, body, None)
}

fn message_with(connection: &Connection, body: ToRoom, space: Option<Space>) -> RoomMail {
    let own = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a permit");
    message_of(connection, body, MessagePermit::new(own, space, &Arc::default()))
}

fn message_of(connection: &Connection, body: ToRoom, permit: MessagePermit) -> RoomMail {
    let (connection, message) = (connection.clone(), Box::new(body));
    RoomMail::Message { connection, channel: Channel(1), message, permit }
}

fn open() -> ToRoom {
    let doctype = Doctype {
        name: "list".to_owned(),
        migrations: vec!["create table item (id text primary key) strict".to_owned()],
        mutations: Vec::new(),
    };
    ToRoom::Open {
        document: "list".to_owned(),
        doctype: codec::encode(&doctype),
        timeline: JournalId([1; 16]),
        have: None,
        intent: Intent::Follow,
    }
}

/// The same from a timeline of that number.
fn open_from(number: usize) -> ToRoom {
    let ToRoom::Open { document, doctype, have, intent, .. } = open() else {
        unreachable!("it opens")
    };
    let timeline = JournalId([u8::try_from(number).expect("few"); 16]);
    ToRoom::Open { document, doctype, timeline, have, intent }
}

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

/// Settings with which a room does one thing in a step.
fn slow_settings() -> RoomSettings {
    let slice = BudgetLimits { steps: 1, ..Limits::DEFAULT.slice };
    settings_with(Limits { slice, ..Limits::DEFAULT })
}

/// Many frames, each of which takes a step.
fn frames() -> ToRoom {
    let frame = WireFrame { call: CallId([0; 16]), body: b"no mutation".to_vec() };
    ToRoom::Frames { life: Life([1; 16]), first: Lsn::FIRST, frames: vec![frame; 100] }
}

/// Takes steps until this is so.
async fn step_until(task: &mut RoomTask, is_so: impl Fn(&RoomTask) -> bool) {
    while !is_so(task) {
        let input = timeout(ANSWER_TAKES, task.next_input()).await.expect("in time");
        task.step(input.expect("it is there"));
    }
}

/// Space for so many large messages.
fn space(count: usize) -> (Arc<Semaphore>, impl Fn() -> Option<Space>) {
    let space = Arc::new(Semaphore::new(count));
    let theirs = Arc::clone(&space);
    (space, move || {
        Some(Space::new(Arc::clone(&theirs).try_acquire_owned().expect("there is space")))
    })
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
    room.send(RoomMail::Ask { ask: Ask::Describe, answer }).expect("it is there");
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
        room.send(RoomMail::Ask { ask: Ask::Describe, answer }).expect("it is there");
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

/// The same of a document that this client had, and that is not there any more.
fn open_what_it_had() -> ToRoom {
    let ToRoom::Open { document, doctype, timeline, intent, .. } = open() else {
        unreachable!("it opens")
    };
    let have = Some(Position::start_of(timeline));
    ToRoom::Open { document, doctype, timeline, have, intent }
}

/// Takes steps until it retires. Gives after which time that was.
async fn retires(task: &mut RoomTask) -> Duration {
    let began = Instant::now();
    while let Some(input) = task.next_input().await {
        task.step(input);
    }
    began.elapsed()
}

/// V13. Goal: whoever asks for documents that there are not keeps no rooms from others. Method: a
/// room in which nobody is: its document is there, is not there, or was never asked for, since
/// whoever came to it has left before.
#[tokio::test]
async fn a_room_whose_document_is_not_there_retires_at_once() {
    for (said, is_there) in [(Some(open()), true), (Some(open_what_it_had()), false), (None, false)]
    {
        let scene = Scene::new(settings());
        let (room, mut task) = scene.task();
        let (connection, _end) = Connection::new(ConnId(1));
        if let Some(said) = said {
            let input = task.input(message(&connection, said));
            task.step(input);
            step_until(&mut task, |task| task.room.takes_messages()).await;
        }
        room.send(RoomMail::Left { conn: connection.id() }).expect("it is there");
        tokio::time::pause();
        let after = retires(&mut task).await;
        tokio::time::resume();
        assert_eq!(after >= EMPTY_ROOM_STAYS, is_there, "{after:?}");
        assert!(is_there || after < Duration::from_secs(1), "{after:?}");
    }
}

/// Goal: who hands over slowly gets through. Method: nothing came of a document for too long, and
/// its room still knows that, though there is none, for whoever comes back.
#[tokio::test(start_paused = true)]
async fn a_room_that_was_too_impatient_stays() {
    let scene = Scene::new(settings());
    let (room, mut task) = scene.task();
    let (silent, _end) = Connection::new(ConnId(1));
    let ToRoom::Open { document, doctype, timeline, have, .. } = open() else { unreachable!() };
    let intent = Intent::Offer { lives: Lineage::default() };
    let offer = ToRoom::Open { document, doctype, timeline, have, intent };
    room.send(message(&silent, offer)).expect("it is there");
    while task.room.seed_size() == 0 {
        let input = task.next_input().await.expect("it is there");
        task.step(input);
    }
    let after = retires(&mut task).await;
    assert!(after >= EMPTY_ROOM_STAYS + Duration::from_secs(60), "{after:?}");
}

/// Goal: whoever a room refused goes on with its other documents once that room is gone.
/// Method: one is refused, another one says something in the instant in which it retires.
#[tokio::test(start_paused = true)]
async fn a_room_that_retires_ends_no_connection() {
    let scene = Scene::new(settings());
    let (room, mut task) = scene.task();
    let (refused, mut end) = Connection::new(ConnId(1));
    let (late, _other_end) = Connection::new(ConnId(2));
    room.send(message(&refused, open_what_it_had())).expect("it is there");
    retires(&mut task).await;
    let (space, large) = space(1);
    let unread = message_with(&late, ToRoom::Close, large());
    room.send(unread).expect("it is not gone yet");
    drop(task);
    assert_eq!(space.available_permits(), 1);
    let heard = end.queue.try_recv().map(|message| *message);
    let body = FromRoom::Refused(Refusal::Missing);
    assert_eq!(heard, Ok(FromServer::About { channel: Channel(1), body }));
    for connection in [refused, late] {
        assert_eq!(*connection.ended().borrow(), None);
    }
}

/// Says that something is about to be run, waits to be told, and breaks a promise.
struct Trap(Mutex<(std_mpsc::Sender<()>, std_mpsc::Receiver<()>)>);

impl Caution for Trap {
    fn run(&self, _: &dyn Fn() -> Suspect, _: &mut dyn FnMut()) -> bool {
        let (entered, told) = &*self.0.lock().expect("no panic before");
        entered.send(()).expect("the test waits");
        told.recv().expect("the test tells");
        panic!("BUG: planted by a test")
    }
}

/// Goal: nobody waits for a room that is gone. Method: it panics over the first one's message
/// while the second one's waits.
#[tokio::test]
async fn whoever_a_room_did_not_get_to_before_it_panicked_comes_back_to_a_new_one() {
    let ((entered, heard), (tell, told)) = (std_mpsc::channel(), std_mpsc::channel());
    let trap = Arc::new(Trap(Mutex::new((entered, told))));
    let scene = Scene::with_caution(settings(), |_| trap);
    let room = scene.rooms.room(&list()).expect("there is room");
    let (first, _end) = Connection::new(ConnId(1));
    let (second, _other_end) = Connection::new(ConnId(2));
    let (space, large) = space(2);
    room.send(message_with(&first, open(), large())).expect("it is there");
    heard.recv().expect("it runs something");
    room.send(message_with(&second, open(), large())).expect("it is there");
    tell.send(()).expect("it waits");
    for connection in [first, second] {
        let mut ended = connection.ended();
        let ending = timeout(ANSWER_TAKES, ended.wait_for(Option::is_some)).await;
        assert_eq!(*ending.expect("it is told").expect("it is there"), Some(Ending::Quiet));
    }
    assert!(scene.rooms.rooms().is_empty(), "it takes no other one's place");
    let all = timeout(ANSWER_TAKES, space.acquire_many(2)).await;
    assert!(all.is_ok(), "nothing is held any more");
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// V23. Goal: whoever watches a server sees which document was hit. Method: the store fails
/// under a room, and then the room breaks a promise.
#[tokio::test]
async fn what_goes_wrong_in_a_room_is_logged_with_its_document_and_counted() {
    let scene = Scene::new(RoomSettings::default());
    let counters = &scene.rooms.counters;
    // Other tests log too.
    let unlucky = DocumentKey::new("unlucky", "").expect("a name");
    let (_room, mut task) = scene.task_of(&unlucky);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    // For all of the process: a thread that has none lets others see nothing either.
    tracing::subscriber::set_global_default(subscriber).expect("no other test logs");
    task.step(RoomInput::Store(StoreReply::Broken { error: AppendError::Full }));
    let panics = std::panic::AssertUnwindSafe(|| {
        let _task = task;
        panic!("BUG: planted by a test");
    });
    assert!(std::panic::catch_unwind(panics).is_err());
    let log = String::from_utf8(log.0.lock().expect("no panic").clone()).expect("text");
    let is_error = |line: &&str| line.contains("ERROR") && line.contains("unlucky");
    assert_eq!(log.lines().filter(is_error).count(), 2, "{log}");
    assert_eq!(counters.store_failures.load(Ordering::Relaxed), 1);
    assert_eq!(counters.room_panics.load(Ordering::Relaxed), 1);
}

/// Goal: what somebody was told had failed is not done later. Method: whoever asks for a
/// document's destruction goes away before the room gets there.
#[tokio::test]
async fn a_question_whose_asker_has_gone_is_not_asked() {
    let scene = Scene::new(settings());
    let (room, mut task) = scene.task();
    let ask = |ask| {
        let (answer, answered) = oneshot::channel();
        room.send(RoomMail::Ask { ask, answer }).expect("it is there");
        answered
    };
    drop(ask(Ask::Destroy));
    let _described = ask(Ask::Describe);
    let input = timeout(ANSWER_TAKES, task.next_input()).await.expect("the second question");
    let is_second = matches!(input, Some(RoomInput::Ask { ask: Ask::Describe, .. }));
    assert!(is_second, "the first one is not asked");
}

#[tokio::test]
async fn all_rooms_keep_no_more_of_what_is_handed_over_than_they_may() {
    let ToRoom::Open { doctype, timeline, have, .. } = open() else { unreachable!() };
    let seeds_kept_size_max = doctype.len() as u64;
    let scene = Scene::new(settings_with(Limits { seeds_kept_size_max, ..Limits::DEFAULT }));
    let counters = &scene.rooms.counters;
    let (connection, mut end) = Connection::new(ConnId(1));
    let mut offer = async |name: &str| {
        let offer = ToRoom::Open {
            document: name.to_owned(),
            doctype: doctype.clone(),
            timeline,
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
    let offer = ToRoom::Open { document, doctype, timeline, have, intent };
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

/// To this clock each step takes so long.
#[derive(Debug)]
struct Steps {
    take_ns: u64,
    now_ns: AtomicU64,
}

impl ThreadClock for Steps {
    fn worked_ns(&self) -> u64 {
        self.now_ns.fetch_add(self.take_ns, Ordering::Relaxed)
    }
}

/// The room of a document of this client's, with many frames, each of which takes a step that is as
/// long as that.
fn busy(
    scene: &Scene,
    name: &str,
    client: &Connection,
    step_takes: Duration,
) -> (RoomSender, RoomTask) {
    let (room, mut task) = scene.task_of(&DocumentKey::new(name, "").expect("a name"));
    let take_ns = u64::try_from(step_takes.as_nanos()).expect("few");
    task.clock = Arc::new(Steps { take_ns, now_ns: AtomicU64::new(0) });
    // The room looks as often as it likes: to it no time passes, and nothing is cut off.
    let outlets = Arc::clone(&task.ways) as Arc<dyn Outlets>;
    let none = Room::new(task.document.clone(), settings(), [0; 32], outlets);
    let timed = std::mem::replace(&mut task.room, none);
    task.room = timed.with_clock(Arc::new(Steps { take_ns: 0, now_ns: AtomicU64::new(0) }));
    room.send(message(client, open())).expect("it is there");
    room.send(message(client, frames())).expect("it is there");
    (room, task)
}

const LONG: Duration = Duration::from_millis(21);
const SHORT: Duration = Duration::from_millis(19);

/// Goal: however many documents burn, others find a thread. Method: a room whose steps take long,
/// and one of the same client whose steps do not, which nobody can know; others have all turns.
/// Somebody else's room gets on meanwhile, and they do once there is a turn.
#[tokio::test]
async fn a_room_whose_steps_take_long_waits_for_its_turn_and_so_do_all_of_its_client() {
    let scene = Scene::new(slow_settings());
    let turns = Arc::clone(&scene.rooms.slow_turns);
    let count = u32::try_from(turns.available_permits()).expect("few");
    let others = turns.acquire_many(count).await.expect("they are free");
    let (slow, _end) = Connection::new(ConnId(1));
    let (quick, _other_end) = Connection::new(ConnId(2));
    let is_done = |task: &RoomTask| task.room.counts().rejected == 100;
    let waits = |task: &RoomTask| matches!(task.slow_turn, Turn::Awaited(_));
    let (_room, mut first) = busy(&scene, "first", &slow, LONG);
    let (_other_room, mut second) = busy(&scene, "second", &slow, SHORT);
    for task in [&mut first, &mut second] {
        let gets_on = timeout(QUIET_ROOM_RESTS, step_until(task, is_done)).await;
        assert!(gets_on.is_err() && waits(task));
        assert_eq!(task.room.counts().rejected, 0, "not even its document is open");
    }
    let (_third_room, mut third) = busy(&scene, "third", &quick, SHORT);
    step_until(&mut third, |task| {
        assert!(!waits(task));
        is_done(task)
    })
    .await;
    drop(others);
    tokio::join!(step_until(&mut first, is_done), step_until(&mut second, is_done));
    assert_eq!(turns.available_permits(), count as usize, "each is given back");
}

/// Goal: what others wait for is not held while its room waits for something else. Method: a room
/// whose steps take long has a turn to write, and others have all turns of slow rooms.
#[tokio::test]
async fn a_room_that_holds_others_up_waits_for_no_turn_of_slow_rooms() {
    let scene = Scene::new(slow_settings());
    let turns = Arc::clone(&scene.rooms.slow_turns);
    let count = u32::try_from(turns.available_permits()).expect("few");
    let _others = turns.acquire_many(count).await.expect("they are free");
    let (client, _end) = Connection::new(ConnId(1));
    let (_room, mut task) = busy(&scene, "first", &client, LONG);
    task.write_turn = Turn::Taken { _turn: Vec::new() };
    let is_done = |task: &RoomTask| task.room.counts().rejected == 100;
    let gets_on = timeout(QUIET_ROOM_RESTS, step_until(&mut task, is_done)).await;
    assert!(gets_on.is_ok(), "it waits");
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
