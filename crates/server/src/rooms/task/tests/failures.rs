//! Rooms that break their promises, and whoever waits for an answer.

use super::*;
use crate::rooms::MayStill;

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
        room.send(RoomMail::Ask { ask, answer, may_still: None }).expect("it is there");
        answered
    };
    drop(ask(Ask::Destroy));
    let _described = ask(Ask::Describe);
    let input = timeout(ANSWER_TAKES, task.next_input()).await.expect("the second question");
    let is_second = matches!(input, Some(RoomInput::Ask { ask: Ask::Describe, .. }));
    assert!(is_second, "the first one is not asked");
}

/// Goal: what was not begun is not done for somebody who may not any longer. Method: a question and
/// an export of one who may not, and a question of one who may.
#[tokio::test]
async fn what_is_asked_by_one_who_may_not_any_longer_is_left_out() {
    let scene = Scene::new(settings());
    let (room, mut task) = scene.task();
    let may = |may: bool| -> Option<MayStill> { Some(Arc::new(move || may)) };
    let ask = |ask, may_still| {
        let (answer, answered) = oneshot::channel();
        room.send(RoomMail::Ask { ask, answer, may_still }).expect("it is there");
        answered
    };
    let destroyed = ask(Ask::Destroy, may(false));
    let (answer, exported) = oneshot::channel();
    let (connection, _end) = Connection::new(ConnId(1));
    let export = RoomMail::Export { connection, answer, may_still: may(false) };
    room.send(export).expect("it is there");
    let _described = ask(Ask::Describe, may(true));
    let input = timeout(ANSWER_TAKES, task.next_input()).await.expect("the last question");
    assert!(matches!(input, Some(RoomInput::Ask { ask: Ask::Describe, .. })), "and no other");
    for left_out in [destroyed, exported] {
        assert_eq!(left_out.await.expect("an answer"), Answer::LeftOut);
    }
}
