use std::path::Path;
use std::sync::mpsc as std_mpsc;

use tempfile::TempDir;

use super::*;
use crate::marks::Marks;
use crate::store::Store;

/// Rooms over a store of their own, and the threads that they run on.
pub(crate) struct Scene {
    pub(crate) rooms: Arc<Rooms>,
    threads: Option<RoomThreads>,
    store: Option<Store>,
    _folder: TempDir,
}

impl Scene {
    pub(crate) fn new(settings: RoomSettings) -> Self {
        Self::with_caution(settings, |folder| Arc::new(Marks::open(folder)))
    }

    /// The same, with this caution in the store's folder.
    pub(super) fn with_caution(
        settings: RoomSettings,
        caution: impl FnOnce(&Path) -> Arc<dyn Caution>,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let counters = Arc::new(Counters::default());
        let store = Store::open(folder.path(), settings.limits, Arc::clone(&counters));
        let store = store.expect("a store");
        let threads = RoomThreads::start().expect("threads");
        let caution = caution(folder.path());
        let rooms = Rooms::new(store.handle(), settings, caution, counters, threads.handle());
        Self { rooms, threads: Some(threads), store: Some(store), _folder: folder }
    }

    pub(crate) fn store(&self) -> StoreHandle {
        self.rooms.store.clone()
    }

    /// What comes for the room of [that document](list), which the test is.
    pub(crate) fn mail(&self) -> mpsc::UnboundedReceiver<RoomMail> {
        let (room, mail) = mpsc::unbounded_channel();
        self.rooms.rooms().insert(list(), room);
        mail
    }

    /// The way to a room of that document which is in no table, and what owns it.
    pub(super) fn task(&self) -> (RoomSender, RoomTask) {
        self.task_of(&list())
    }

    pub(super) fn task_of(&self, document: &DocumentKey) -> (RoomSender, RoomTask) {
        let (room, mail) = mpsc::unbounded_channel();
        let task = RoomTask::new(&self.rooms, document, room.downgrade(), mail);
        (room, task)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.store.take().into_iter().for_each(Store::close);
    }
}

/// The document that tests are about.
pub(crate) fn list() -> DocumentKey {
    DocumentKey::new("list", "").expect("a name")
}

#[tokio::test(start_paused = true)]
async fn a_question_to_a_room_that_has_too_much_to_do_is_answered() {
    let scene = Scene::new(RoomSettings::default());
    let _mail = scene.mail();
    let answer = timeout(2 * ANSWER_TAKES, scene.rooms.ask(&list(), Ask::Describe)).await;
    let answer = answer.expect("an answer, whatever it is");
    assert!(matches!(answer, Answer::Unknown { .. }), "{answer:?}");
}

/// V13. Goal: however many documents are asked for, no more are open than may be, and those who
/// are there go on. Method: a table that is full, one place of which comes free.
#[tokio::test]
async fn as_many_documents_are_open_as_may_be() {
    let scene = Scene::new(RoomSettings::default());
    let rooms = &scene.rooms;
    let document = |number: usize| DocumentKey::new(&number.to_string(), "").expect("a name");
    let (open, _mail) = mpsc::unbounded_channel();
    rooms.rooms().extend((0..ROOMS_MAX).map(|number| (document(number), open.clone())));
    assert!(rooms.room(&document(ROOMS_MAX)).is_none());
    let answer = rooms.ask(&document(ROOMS_MAX), Ask::Describe).await;
    assert_eq!(answer, Answer::Failed { reason: TOO_MANY_ROOMS.to_owned() });
    let known = rooms.room(&document(7)).expect("it is open");
    assert!(known.same_channel(&open));
    rooms.rooms().remove(&document(7));
    let room = rooms.room(&document(ROOMS_MAX)).expect("there is room");
    assert!(!room.same_channel(&open), "one of its own");
    assert_eq!(rooms.rooms().len(), ROOMS_MAX);
}

/// Goal: whoever asks for a document while the server ends is answered. Method: the threads of
/// its rooms are gone already.
#[tokio::test]
async fn a_room_is_asked_for_in_vain_once_there_are_no_threads() {
    let mut scene = Scene::new(RoomSettings::default());
    scene.threads = None;
    let (done, is_done) = std_mpsc::channel();
    let rooms = Arc::clone(&scene.rooms);
    std::thread::spawn(move || done.send(rooms.room(&list())));
    let room = is_done.recv_timeout(Duration::from_secs(10)).expect("an answer");
    // The threads may just be about to end, and drop it then.
    let room = room.expect("there are few rooms");
    let closed = timeout(Duration::from_secs(10), room.closed()).await;
    assert!(closed.is_ok(), "nobody is in it");
}
