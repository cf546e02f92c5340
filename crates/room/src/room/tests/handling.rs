//! Who handles a document's commands, over a real page server.

use tidelog_document::{
    CommandDefinition, CommandRef, Completion, EventDefinition, FoundEvents, Intervened,
    Intervention, NewEvent, NewRecord, Outcome, Recorded, StreamDefinition, WantedCommands,
    WantedEvents, WorkflowDefinition, sending, starting,
};
use tidelog_sync::CompletionAnswer;
use tidelog_types::limits::{INSTANCE_SILENT_MS, INSTANCES_MAX};

use super::*;

fn shop() -> Doctype {
    let event = EventDefinition {
        name: "placed".to_owned(),
        fields: Vec::new(),
        upcasts: Vec::new(),
        project: Vec::new(),
    };
    let command = CommandDefinition {
        name: "place".to_owned(),
        fields: Vec::new(),
        received: Vec::new(),
        failed: Vec::new(),
        retries: 1,
        timeout_ms: 60_000,
    };
    let (name, events, commands) = ("order".to_owned(), vec![event], vec![command]);
    let streams = vec![StreamDefinition { name, events, commands }];
    let workflow = WorkflowDefinition { name: "fulfil".to_owned(), version: 1, fields: Vec::new() };
    Doctype { streams, workflows: vec![workflow], ..notes() }
}

fn place(stream: &str) -> WireFrame {
    let name = sending("order", "place");
    frame(&shop(), &name, &[("stream", stream), ("args", "{}"), ("key", "k")])
}

fn register(tag: u32, instance: u64) -> ToRoom {
    let kinds = vec![("order".to_owned(), "place".to_owned())];
    ToRoom::Register { tag, instance, kinds, concurrency: 4 }
}

fn complete(tag: u32, command: u64, attempt: u64) -> ToRoom {
    let events = vec![NewEvent { name: "placed".to_owned(), data: "{}".to_owned() }];
    let outcome =
        Outcome::Completed { events, sends: Vec::new(), starts: Vec::new(), snapshot: None };
    let completion = Completion { task: command, attempt, position: 0, outcome }.encode();
    ToRoom::Complete { tag, number: 7, completion }
}

impl Scene {
    fn open_shop(&mut self, conn: ConnId) {
        self.open_as(conn, &shop(), None, Intent::Follow);
    }

    fn at(&mut self, now_ms: u64) {
        self.room.set_time(now_ms);
    }

    fn hears(&mut self, conn: ConnId, message: ToRoom) -> Vec<String> {
        self.say(conn, message);
        brief(&self.heard(conn))
    }

    fn commands(&mut self) -> Vec<String> {
        let pages: Vec<_> = self.export().into_iter().collect();
        let State::Open(document) = &mut self.room.state else { panic!("not open") };
        document.authority.view().fill(pages);
        let sql = "select number || ' ' || stream || ' ' || state || ' ' || attempt || ' ' ||
                   coalesce(instance, '') from tidelog_commands order by number";
        let rows = document.authority.reader().query(sql, &tidelog_sqlite::Params::NONE);
        let cell = |row: Vec<Value>| match row.into_iter().next() {
            Some(Value::Text(text)) => text,
            other => panic!("{other:?}"),
        };
        rows.unwrap().decode().into_iter().map(cell).collect()
    }
}

/// Goal: what a client may rely on of the order of what it hears. Method: a command is received and
/// given at once, and completes: each is an entry, told before the answer, which is told once it is
/// on the disk.
#[test]
fn commands_are_given_as_they_are_received_and_answered_behind_their_entries() {
    let mut scene = Scene::new();
    scene.at(1_000_000);
    scene.open_shop(ANN);
    scene.open_shop(BOB);
    assert_eq!(scene.hears(BOB, register(5, 0)), ["entry 2..3", "registered 5 as 1000000"]);
    scene.heard(ANN);
    let heard = scene.frames(ANN, 1, vec![place("a")]);
    assert_eq!(brief(&heard), ["entry 3..5", "acked 2"]);
    assert_eq!(brief(&scene.heard(BOB)), ["entry 3..5"]);
    assert_eq!(scene.commands(), ["1 a started 1 1000000"]);
    assert_eq!(scene.hears(ANN, complete(5, 1, 1)), ["completed 7: Late"], "whose tag is that?");
    scene.waits = |reply| matches!(reply, StoreReply::Durable { .. });
    assert_eq!(scene.hears(BOB, complete(5, 1, 1)), [""; 0], "not before it is durable");
    scene.release();
    assert_eq!(brief(&scene.heard(BOB)), ["entry 5..6", "completed 7: Done"]);
    assert_eq!(scene.hears(BOB, complete(5, 1, 1)), ["completed 7: Late"], "it is over");
    assert_eq!(scene.commands(), ["1 a completed 1 "]);
}

/// Goal: whoever says again what it was not answered hears of it as of when it was said first, as
/// each later attempt does. Method: by the room's clock, over another connection.
#[test]
fn what_a_run_says_again_is_answered_as_of_when_it_was_said_first() {
    let mut scene = Scene::new();
    scene.at(1_000_000);
    scene.open_shop(ANN);
    scene.open_shop(BOB);
    let register = |instance| {
        let kinds = vec![("fulfil".to_owned(), "1".to_owned())];
        ToRoom::Register { tag: 5, instance, kinds, concurrency: 4 }
    };
    scene.hears(BOB, register(0));
    let run = frame(&shop(), &starting("fulfil"), &[("id", "f"), ("args", "{}")]);
    scene.frames(ANN, 1, vec![run]);
    let what = Recorded::Done { kind: "step".to_owned(), result: "1".to_owned() };
    let records = vec![NewRecord { name: "a".to_owned(), count: 0, what }];
    let outcome = Outcome::Progressed { records, suspends: false };
    let completion = Completion { task: 1, attempt: 1, position: 0, outcome }.encode();
    let answered = |scene: &mut Scene| {
        scene.say(BOB, ToRoom::Complete { tag: 5, number: 7, completion: completion.clone() });
        let as_of = |it| match it {
            FromRoom::Completed { answer, time_ms, .. } => Some((answer, time_ms)),
            _ => None,
        };
        scene.heard(BOB).into_iter().find_map(as_of)
    };
    scene.at(1_000_500);
    assert_eq!(answered(&mut scene), Some((CompletionAnswer::Done, 1_000_500)));
    scene.step(RoomInput::Left { conn: BOB });
    scene.at(1_009_000);
    scene.open_shop(BOB);
    scene.hears(BOB, register(1_000_000));
    assert_eq!(answered(&mut scene), Some((CompletionAnswer::Done, 1_000_500)));
}

/// Goal: whoever is away comes back as who it was, or has lost what it worked at; also where the
/// server began anew meanwhile. Method: by the room's clock.
#[test]
fn an_instance_comes_back_or_is_taken_for_gone() {
    let mut scene = Scene::new();
    scene.at(1_000_000);
    scene.open_shop(ANN);
    scene.open_shop(BOB);
    scene.hears(BOB, register(5, 0));
    scene.frames(ANN, 1, vec![place("a")]);
    scene.step(RoomInput::Left { conn: BOB });
    assert_eq!(scene.room.handling_due_at_ms(), Some(1_000_000 + INSTANCE_SILENT_MS));
    scene.at(1_000_000 + INSTANCE_SILENT_MS - 1);
    scene.step(RoomInput::GoOn);
    scene.open_shop(BOB);
    assert_eq!(scene.hears(BOB, register(6, 1_000_000)), ["registered 6 as 1000000"]);
    assert_eq!(scene.commands(), ["1 a started 1 1000000"]);
    scene.restart();
    scene.at(1_010_000);
    scene.open_shop(ANN);
    scene.open_shop(BOB);
    assert_eq!(scene.hears(ANN, register(1, 0)).last().expect("told"), "registered 1 as 1010000");
    assert_eq!(scene.commands(), ["1 a started 1 1000000"], "it may come back");
    assert_eq!(
        scene.hears(BOB, register(5, 1_000_000)).last().expect("told"),
        "registered 5 as 1000000"
    );
    scene.restart();
    scene.at(1_020_000);
    scene.open_shop(ANN);
    scene.hears(ANN, register(1, 1_010_000));
    assert_eq!(scene.room.handling_due_at_ms(), Some(1_020_000 + INSTANCE_SILENT_MS));
    scene.at(1_020_000 + INSTANCE_SILENT_MS);
    scene.step(RoomInput::GoOn);
    assert_eq!(scene.commands(), ["1 a started 2 1010000"], "it did not");
    assert_eq!(scene.hears(ANN, complete(1, 1, 2)).last().expect("told"), "completed 7: Done");
}

/// Goal: whoever was silent when its connection went is waited for no longer than one that left:
/// since it was last heard. Method: one that works at a command is silent; another one is there.
#[test]
fn an_instance_that_was_silent_is_gone_with_its_connection() {
    let mut scene = Scene::new();
    scene.at(1_000_000);
    scene.open_shop(ANN);
    scene.open_shop(BOB);
    scene.hears(BOB, register(5, 0));
    scene.frames(ANN, 1, vec![place("a")]);
    scene.hears(ANN, register(1, 0));
    assert_eq!(scene.commands(), ["1 a started 1 1000000"]);
    scene.at(1_030_000);
    scene.step(RoomInput::Silent { conn: BOB, for_ms: INSTANCE_SILENT_MS });
    scene.step(RoomInput::Left { conn: BOB });
    assert_eq!(scene.commands(), ["1 a started 2 1000001"], "at once");
    scene.step(RoomInput::Silent { conn: ANN, for_ms: 20_000 });
    assert_eq!(scene.room.handling_due_at_ms(), Some(1_040_000), "it may come back until then");
}

/// Goal: what a handler has said before it fell silent counts. Method: it completes a command while
/// the room may not run anything, and is silent for long then.
#[test]
fn what_was_said_before_a_silence_counts() {
    let mut scene = Scene::new();
    scene.at(1_000_000);
    scene.open_shop(ANN);
    scene.open_shop(BOB);
    scene.hears(BOB, register(5, 0));
    scene.frames(ANN, 1, vec![place("a")]);
    assert_eq!(scene.commands(), ["1 a started 1 1000000"]);
    scene.at(1_030_000);
    scene.room.let_run(MayRun::Nothing);
    scene.say(BOB, complete(5, 1, 1));
    scene.step(RoomInput::Silent { conn: BOB, for_ms: INSTANCE_SILENT_MS });
    scene.step(RoomInput::Left { conn: BOB });
    scene.room.let_run(MayRun::Everything);
    scene.step(RoomInput::GoOn);
    assert_eq!(scene.commands(), ["1 a completed 1 "]);
}

/// Goal: nobody handles commands who may not, whatever else it may do. Method: a writer; and one
/// who might, and may not any longer.
#[test]
fn only_one_who_may_handle_commands_does() {
    let mut scene = Scene::new();
    scene.at(1_000_000);
    scene.open_shop(ANN);
    let position = scene.position();
    let as_writer = |message| {
        let speaker = Speaker { may: May::Create, handles: false, subject: None };
        RoomInput::Message { conn: ANN, channel: CHANNEL, message, speaker }
    };
    scene.step(as_writer(register(1, 0)));
    assert_eq!(brief(&scene.heard(ANN)), ["not registered 1"]);
    assert_eq!(scene.position(), position);
    scene.hears(ANN, register(1, 0));
    scene.frames(ANN, 1, vec![place("a")]);
    assert_eq!(scene.commands(), ["1 a started 1 1000000"]);
    // It has lost the grant: what it was given is given to others, who may.
    scene.open_shop(BOB);
    scene.hears(BOB, register(1, 0));
    scene.heard(ANN);
    scene.step(as_writer(complete(1, 1, 1)));
    let heard = brief(&scene.heard(ANN));
    let told = ["not registered 1", "completed 7: Late"];
    assert!(told.iter().all(|it| heard.iter().any(|heard| heard == it)), "{heard:?}");
    assert_eq!(scene.commands(), ["1 a started 2 1000001"]);
}

/// Goal: who may not handle commands any longer is given none, also where it says nothing of those
/// that it has. Method: one of two loses the grant with what it was given; nobody else is told.
#[test]
fn what_one_was_given_who_handles_no_more_is_given_to_others_at_once() {
    let mut scene = Scene::new();
    scene.at(1_000_000);
    scene.open_shop(ANN);
    scene.hears(ANN, register(1, 0));
    scene.hears(ANN, register(2, 0));
    scene.frames(ANN, 1, vec![place("a")]);
    scene.open_shop(BOB);
    scene.hears(BOB, register(1, 0));
    scene.heard(ANN);
    scene.heard(BOB);
    scene.step(RoomInput::HandlesNoMore { conn: ANN, channel: CHANNEL });
    let heard = brief(&scene.heard(ANN));
    let told: Vec<_> = heard.iter().filter(|it| it.starts_with("not registered")).collect();
    assert_eq!(told, ["not registered 1", "not registered 2"], "{heard:?}");
    assert!(!brief(&scene.heard(BOB)).iter().any(|it| it.starts_with("not")));
    assert_eq!(scene.commands(), ["1 a started 2 1000002"]);
}

/// Goal: who may send, and not write otherwise, has its sends run, and nothing that stands behind
/// the first of anything else; what was taken before that keeps its verdict, and is acknowledged
/// before it hears so. Method: sends, a mutation between two of them, bytes that are no mutation,
/// the same again as one who may only follow, and as one who may write.
#[test]
fn of_one_who_may_only_send_nothing_but_sends_is_run() {
    let mut scene = Scene::new();
    scene.at(1_000_000);
    scene.open_shop(ANN);
    let says = |scene: &mut Scene, may, first: u64, frames: Vec<WireFrame>| {
        let first = Lsn::new(first).expect("from 1");
        let message = ToRoom::Frames { life: life_of(ANN), first, frames };
        let speaker = Speaker { may, handles: false, subject: None };
        scene.step(RoomInput::Message { conn: ANN, channel: CHANNEL, message, speaker });
        brief(&scene.heard(ANN))
    };
    let writes = || frame(&shop(), "add", &[("id", "a"), ("body", "")]);
    let rubbish = || WireFrame { call: CallId([0; 16]), body: vec![1, 2, 3], predicted: None };
    assert_eq!(says(&mut scene, May::Send, 1, vec![place("a")]), ["entry 2..3 of 1", "acked 2"]);
    let heard = says(&mut scene, May::Send, 1, vec![place("a"), place("b"), writes(), place("c")]);
    assert_eq!(heard, ["entry 3..4 of 2", "acked 3", "forbidden 3"]);
    let commands = ["1 a received 0 ", "2 b received 0 "];
    assert_eq!(scene.commands(), commands);
    assert_eq!(says(&mut scene, May::Send, 4, vec![place("d")]), [""; 0], "it knows");
    scene.open_shop(ANN);
    assert_eq!(says(&mut scene, May::Send, 3, vec![rubbish()]), ["acked 3", "forbidden 3"]);
    scene.open_shop(ANN);
    assert_eq!(says(&mut scene, May::Follow, 3, vec![place("c")]), ["forbidden 3"]);
    assert_eq!(scene.commands(), commands);
    scene.open_shop(ANN);
    let heard = says(&mut scene, May::Write, 3, vec![writes(), place("c")]);
    assert_eq!(heard, ["entry 4..5 of 3", "entry 5..6 of 4", "acked 5"]);
}

/// Denies what it is told by name, and notes all that a room asks for.
#[derive(Default)]
struct Deaths {
    denied: Vec<String>,
    asked: Mutex<Vec<String>>,
}

impl Deaths {
    /// A shop whose server has died of these.
    fn by(denied: &[&String]) -> (Arc<Self>, Scene) {
        let denied = denied.iter().map(|it| (*it).clone()).collect();
        let deaths = Arc::new(Self { denied, ..Self::default() });
        let mut scene = Scene::new();
        scene.room = room(1, &scene.ways).with_caution(Arc::clone(&deaths) as Arc<dyn Caution>);
        scene.at(1_000_000);
        scene.open_shop(ANN);
        (deaths, scene)
    }

    /// By which names it was asked of what the first attempt at the first task comes to.
    fn of_first_attempt(&self) -> Vec<String> {
        let asked = std::mem::take(&mut *self.asked.lock().expect("no panic"));
        asked.into_iter().filter(|what| what.contains("attempt 1 at task 1")).collect()
    }
}

impl Caution for Deaths {
    fn run(&self, suspect: &dyn Fn() -> Suspect, run: &mut dyn FnMut()) -> bool {
        let Suspect { what, .. } = suspect();
        let is_run = !self.denied.contains(&what);
        self.asked.lock().expect("no panic").push(what);
        if is_run {
            run();
        }
        is_run
    }
}

/// V9, V23. Goal: what a task has come to, and the server has died of as it was recorded, is not
/// run for ever, and neither is that it has failed; all else goes on, and whoever watches the
/// server is told. Method: the same is said again, of which servers have died by its name, and then
/// by that of the failure as well.
#[test]
fn what_a_task_came_to_that_ended_the_server_is_recorded_as_a_failure() {
    let says = |denied: &[&String]| {
        let (deaths, mut scene) = Deaths::by(denied);
        scene.hears(ANN, register(5, 0));
        scene.frames(ANN, 1, vec![place("a"), place("b")]);
        let heard = scene.hears(ANN, complete(5, 1, 1)).pop().expect("an answer");
        scene.hears(ANN, complete(5, 2, 1));
        (heard, scene.commands(), deaths.of_first_attempt(), scene.room.take_untaken())
    };
    let (heard, commands, names, untaken) = says(&[]);
    assert_eq!((heard.as_str(), names.len(), untaken.len()), ("completed 7: Done", 1, 0));
    assert_eq!(commands, ["1 a completed 1 ", "2 b completed 1 "]);
    let (heard, commands, again, untaken) = says(&[&names[0]]);
    assert_eq!((heard.as_str(), again.len(), untaken.len()), ("completed 7: Done", 2, 0));
    assert_eq!(again[0], names[0], "it has the same name when it is said again");
    assert_eq!(commands, ["1 a failed 1 ", "2 b completed 1 "]);
    let (heard, commands, _, untaken) = says(&[&again[0], &again[1]]);
    assert_eq!(heard, "completed 7: Late");
    assert_eq!(commands, ["1 a started 1 1000000", "2 b completed 1 "]);
    let why = "what a task has come to cannot be written: the server crashed each time";
    assert_eq!(untaken, [why]);
}

/// Goal: nobody goes on with a run that has failed by what they say of it. Method: the server has
/// died of how far an attempt has come, and of another one of nothing.
#[test]
fn who_is_amid_a_run_hears_that_it_has_failed_by_what_ended_the_server() {
    let says = |denied: &[&String]| {
        let (deaths, mut scene) = Deaths::by(denied);
        let kinds = vec![("fulfil".to_owned(), "1".to_owned())];
        scene.hears(ANN, ToRoom::Register { tag: 5, instance: 0, kinds, concurrency: 4 });
        let run = frame(&shop(), &starting("fulfil"), &[("id", "f"), ("args", "{}")]);
        scene.frames(ANN, 1, vec![run]);
        let what = Recorded::Done { kind: "step".to_owned(), result: "1".to_owned() };
        let records = vec![NewRecord { name: "s".to_owned(), count: 0, what }];
        let outcome = Outcome::Progressed { records, suspends: false };
        let completion = Completion { task: 1, attempt: 1, position: 0, outcome }.encode();
        let said = ToRoom::Complete { tag: 5, number: 7, completion };
        let heard = scene.hears(ANN, said).pop().expect("an answer");
        (heard, deaths.of_first_attempt())
    };
    let (heard, names) = says(&[]);
    assert_eq!((heard.as_str(), names.len()), ("completed 7: Done", 1));
    let (heard, again) = says(&[&names[0]]);
    assert_eq!((heard.as_str(), again.len()), ("completed 7: Late", 2));
}

/// Goal: a document without commands is none the worse for one who would handle some.
#[test]
fn a_document_without_commands_is_handled_by_nobody() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    let position = scene.position();
    assert_eq!(scene.hears(ANN, register(1, 0)), ["not registered 1"]);
    assert_eq!(scene.hears(ANN, complete(1, 1, 1)), ["completed 7: Late"]);
    assert_eq!(scene.hears(ANN, ToRoom::Deregister { tag: 1 }), [""; 0]);
    assert_eq!(scene.position(), position);
}

#[test]
fn there_are_only_so_many_instances() {
    let mut scene = Scene::new();
    scene.at(1_000_000);
    scene.open_shop(ANN);
    let count = u32::try_from(INSTANCES_MAX).expect("few");
    for tag in 0..count {
        let told = scene.hears(ANN, register(tag, 0));
        assert!(told.iter().any(|it| it.starts_with("registered")), "{told:?}");
    }
    assert_eq!(scene.hears(ANN, register(count, 0)), [format!("not registered {count}")]);
    scene.say(ANN, ToRoom::Deregister { tag: 7 });
    scene.heard(ANN);
    let told = scene.hears(ANN, register(count, 0));
    assert_eq!(told.last().expect("told"), &format!("registered {count} as {}", 1_000_000 + count));
}

/// Goal: a clock that is set back holds nobody up. Method: by an hour, just after a handler left.
#[test]
fn a_clock_that_is_set_back_makes_nobody_wait_longer() {
    let mut scene = Scene::new();
    scene.at(10_000_000);
    scene.open_shop(ANN);
    scene.open_shop(BOB);
    scene.hears(BOB, register(1, 0));
    scene.frames(ANN, 1, vec![place("a")]);
    scene.hears(ANN, register(1, 0));
    scene.step(RoomInput::Left { conn: BOB });
    scene.at(6_000_000);
    scene.step(RoomInput::GoOn);
    scene.at(6_000_000 + INSTANCE_SILENT_MS);
    scene.step(RoomInput::GoOn);
    assert_eq!(scene.commands(), ["1 a started 2 10000001"]);
}

/// Goal: the same for what is tried again. Method: a command fails for now, and the clock is set
/// back.
#[test]
fn what_is_tried_again_waits_for_no_clock_that_was_set_back() {
    let mut scene = Scene::new();
    scene.at(10_000_000);
    scene.open_shop(ANN);
    scene.hears(ANN, register(1, 0));
    scene.frames(ANN, 1, vec![place("a")]);
    scene.hears(ANN, fail(1, 1, 1, false));
    assert_eq!(scene.commands(), ["1 a received 1 "]);
    scene.at(6_000_000);
    scene.step(RoomInput::GoOn);
    assert_eq!(scene.commands(), ["1 a started 2 10000000"]);
}

/// Goal: a damaged page that only what the room itself decides needs harms nobody else. Method: the
/// room has nothing in memory, and what it decides finds the page damaged.
#[test]
fn a_damaged_page_ends_the_handling_and_nothing_else() {
    let mut scene = Scene::new();
    scene.at(1_000_000);
    scene.open_shop(ANN);
    scene.hears(ANN, register(1, 0));
    scene.frames(ANN, 1, vec![place("a")]);
    scene.open_shop(BOB);
    let State::Open(document) = &scene.room.state else { panic!("not open") };
    document.authority.view().rest_but(|_| false);
    scene.step(RoomInput::Left { conn: ANN });
    scene.waits = |reply| matches!(reply, StoreReply::Pages { .. });
    scene.at(1_000_000 + INSTANCE_SILENT_MS);
    scene.step(RoomInput::GoOn);
    assert_eq!(scene.room.handling_due_at_ms(), None, "not while it waits for pages");
    scene.find_damaged(|_| true);
    assert_eq!(scene.room.handling_due_at_ms(), None, "nobody is asked for it again");
    assert_eq!(brief(&scene.heard(BOB)), [""; 0]);
}

/// Goal: a damaged page that an operator's question needs fails that question, and harms nobody
/// else. Method: the same, with nothing in memory as it is asked.
#[test]
fn a_damaged_page_fails_what_an_operator_asks_and_nothing_else() {
    for ask in [Ask::Events(WantedEvents::default(), None), Ask::Look] {
        let mut scene = Scene::new();
        scene.open_shop(ANN);
        scene.frames(ANN, 1, vec![place("a")]);
        scene.heard(ANN);
        let State::Open(document) = &scene.room.state else { panic!("not open") };
        document.authority.view().rest_but(|_| false);
        scene.waits = |reply| matches!(reply, StoreReply::Pages { .. });
        scene.step(RoomInput::Ask { request: 1, ask });
        scene.find_damaged(|_| true);
        let answer = scene.answers.pop();
        assert!(matches!(answer, Some(Answer::Failed { .. })), "{answer:?}");
        assert_eq!(brief(&scene.heard(ANN)), [""; 0]);
    }
}

/// Goal: what was planned holds only if it still does. Method: an instance comes back, and one
/// leaves, ahead of what was planned of it in the same step.
#[test]
fn what_is_planned_of_an_instance_holds_only_while_it_is_so() {
    let mut scene = Scene::new();
    scene.at(1_000_000);
    scene.open_shop(ANN);
    scene.open_shop(BOB);
    scene.hears(BOB, register(5, 0));
    scene.step(RoomInput::Left { conn: BOB });
    scene.open_shop(BOB);
    scene.at(1_000_000 + INSTANCE_SILENT_MS);
    assert_eq!(
        scene.hears(BOB, register(6, 1_000_000)).last().expect("told"),
        "registered 6 as 1000000"
    );
    scene.frames(ANN, 1, vec![place("a")]);
    assert_eq!(scene.commands(), ["1 a started 1 1000000"], "it is there");
    scene.at(1_000_000 + INSTANCE_SILENT_MS + 60_000);
    scene.say(BOB, ToRoom::Deregister { tag: 6 });
    assert_eq!(scene.commands(), ["1 a ready 1 "].map(|it| it.replace("ready", "received")));
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn fail(tag: u32, command: u64, attempt: u64, is_final: bool) -> ToRoom {
    let outcome = Outcome::Failed { reason: "no".to_owned(), is_final };
    let completion = Completion { task: command, attempt, position: 0, outcome }.encode();
    ToRoom::Complete { tag, number: 7, completion }
}

/// Goal: what whoever runs the server has done to a command is an entry like any other, answered
/// once it is on the disk, and whoever handles commands hears of it at once. Method: one fails, is
/// given again, and is cancelled while it is worked at; nothing is in memory as that is asked.
#[test]
fn a_command_is_given_again_and_cancelled_by_whoever_runs_the_server() {
    let mut scene = Scene::new();
    let retry = || Ask::Intervene(CommandRef::Number(1), Intervention::Retry);
    let reason = "cancelled by ada".to_owned();
    let cancel =
        || Ask::Intervene(CommandRef::Number(1), Intervention::Cancel { reason: reason.clone() });
    assert_eq!(scene.ask(retry()), Answer::Missing);
    scene.at(1_000_000);
    scene.open_shop(ANN);
    scene.open_shop(BOB);
    assert_eq!(scene.ask(retry()), Answer::Intervened(Intervened::NoCommand));
    scene.hears(BOB, register(5, 0));
    scene.frames(ANN, 1, vec![place("a")]);
    scene.hears(BOB, fail(5, 1, 1, true));
    assert_eq!(scene.commands(), ["1 a failed 1 "]);
    scene.heard(ANN);
    let State::Open(document) = &scene.room.state else { panic!("not open") };
    document.authority.view().rest_but(|_| false);
    scene.waits = |reply| matches!(reply, StoreReply::Durable { .. });
    scene.step(RoomInput::Ask { request: 1, ask: retry() });
    assert_eq!(scene.answers, [], "not before it is durable");
    scene.release();
    assert_eq!(scene.answers.pop(), Some(Answer::Intervened(Intervened::Done(1))));
    let heard = brief(&scene.heard(BOB));
    assert!(heard.iter().all(|it| it.starts_with("entry")), "{heard:?}");
    assert_eq!(scene.commands(), ["1 a started 2 1000000"], "it is given at once");
    let in_state = Intervened::InState("started".to_owned());
    assert_eq!(scene.ask(retry()), Answer::Intervened(in_state));
    assert_eq!(scene.ask(cancel()), Answer::Intervened(Intervened::Done(1)));
    scene.heard(BOB);
    assert_eq!(scene.hears(BOB, complete(5, 1, 2)), ["completed 7: Late"]);
    assert_eq!(scene.commands(), ["1 a failed 2 "]);
    let Answer::Commands(found) = scene.ask(Ask::Commands(WantedCommands::default())) else {
        panic!("commands")
    };
    let row = &found.rows.decode()[0];
    assert_eq!((&row[6], &row[14]), (&text("failed"), &text("cancelled by ada")));
    assert_eq!(found.next, None);
}

/// Goal: events are read in bounded parts, those alone that are on the disk, by anybody's pace.
/// Method: one is on its way to the disk; nothing is in memory.
#[test]
fn events_are_read_once_they_are_durable() {
    let mut scene = Scene::new();
    let events = |after| Ask::Events(WantedEvents { after, ..WantedEvents::default() }, None);
    scene.at(1_000_000);
    scene.open_shop(ANN);
    assert_eq!(scene.ask(events(0)), Answer::Events(FoundEvents::None(0)));
    scene.hears(ANN, register(1, 0));
    scene.frames(ANN, 1, vec![place("a")]);
    scene.waits = |reply| matches!(reply, StoreReply::Durable { .. });
    scene.say(ANN, complete(1, 1, 1));
    let State::Open(document) = &scene.room.state else { panic!("not open") };
    document.authority.view().rest_but(|_| false);
    scene.step(RoomInput::Ask { request: 1, ask: events(0) });
    assert_eq!(scene.answers, [], "it could still be lost");
    scene.release();
    let Some(Answer::Events(FoundEvents::Some(rows))) = scene.answers.pop() else {
        panic!("an event")
    };
    let row = &rows.decode()[0];
    assert_eq!((&row[0], &row[4]), (&Value::Integer(1), &text("placed")));
    assert_eq!(scene.ask(events(1)), Answer::Events(FoundEvents::None(1)));
}

/// Goal: a store that is only read has nothing done to its commands.
#[test]
fn a_damaged_store_has_nothing_done_to_its_commands() {
    let mut scene = Scene::new();
    scene.at(1_000_000);
    scene.open_shop(ANN);
    scene.frames(ANN, 1, vec![place("a")]);
    scene.room.settings.is_damaged = true;
    let cancel = Intervention::Cancel { reason: String::new() };
    let answer = scene.ask(Ask::Intervene(CommandRef::Number(1), cancel));
    assert!(matches!(answer, Answer::Failed { .. }), "{answer:?}");
    assert_eq!(scene.commands(), ["1 a received 0 "]);
}
