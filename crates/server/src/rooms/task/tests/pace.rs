//! The turns of rooms that take long.

use futures_util::FutureExt as _;

use super::*;

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

/// Goal: nor while its room waits for others of its client. Method: one of these has the client's
/// turn to write, and the room has the turn to read much.
#[tokio::test]
async fn a_room_that_holds_others_up_waits_for_no_turn_of_its_client() {
    let scene = Scene::new(settings());
    let (client, _end) = Connection::new(ConnId(1));
    let (_room, mut task) = busy(&scene, "first", &client, SHORT);
    step_until(&mut task, |task| task.worked_on.is_some()).await;
    let _other = Arc::clone(&client.pace().write_turns).try_acquire_owned().expect("it is free");
    let comes = |task: &RoomTask| -> bool {
        let mut turn = task.turn(|pace| &pace.write_turns, &scene.rooms.write_turns, ());
        turn.comes().now_or_never().is_some()
    };
    assert!(!comes(&task));
    task.run_turn = Turn::Taken { _turn: Vec::new() };
    assert!(comes(&task));
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

/// Goal: a room with much to do gives its thread back again and again, though not after each short
/// step. Method: one thread, and somebody else on it who looks how far the room has come.
#[tokio::test]
async fn a_room_with_much_to_do_lets_others_have_its_thread() {
    let scene = Scene::new(slow_settings());
    let counters = Arc::clone(&scene.rooms.counters);
    let (room, mut task) = scene.task();
    let (connection, _end) = Connection::new(ConnId(1));
    room.send(message(&connection, open())).expect("it is there");
    let ToRoom::Frames { life, first, frames } = frames() else { unreachable!("they are") };
    let count = 10 * frames.len() as u64;
    let frames = frames.into_iter().cycle().take(count as usize).collect();
    room.send(message(&connection, ToRoom::Frames { life, first, frames })).expect("it is there");
    let runs = tokio::spawn(async move { task.run().await });
    let seen = timeout(ANSWER_TAKES, async {
        let mut seen = std::collections::BTreeSet::new();
        while seen.last() != Some(&count) {
            seen.insert(counters.rejected.load(Ordering::Relaxed));
            yield_now().await;
        }
        seen.len() as u64
    });
    let seen = seen.await.expect("in time");
    assert!((4..count / 2).contains(&seen), "{seen} times in {count} steps");
    runs.abort();
}
