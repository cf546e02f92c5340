//! When tasks of a document are due that nobody handles, told to the shell and kept in the store.

use tidelog_document::{
    CommandDefinition, Completion, EventDefinition, NewRecord, Outcome, Recorded, StreamDefinition,
    WorkflowDefinition, sending, starting,
};
use tidelog_types::limits::INSTANCE_SILENT_MS;

use super::*;

fn shop() -> Doctype {
    let command = CommandDefinition {
        name: "place".to_owned(),
        fields: Vec::new(),
        received: Vec::new(),
        failed: Vec::new(),
        retries: 1,
        timeout_ms: 0,
    };
    let event = EventDefinition {
        name: "placed".to_owned(),
        fields: Vec::new(),
        upcasts: Vec::new(),
        project: Vec::new(),
    };
    let (name, events, commands) = ("order".to_owned(), vec![event], vec![command]);
    let streams = vec![StreamDefinition { name, events, commands }];
    let workflow =
        |name: &str| WorkflowDefinition { name: name.to_owned(), version: 1, fields: Vec::new() };
    Doctype { streams, workflows: vec![workflow("fulfil"), workflow("bill")], ..notes() }
}

fn start(workflow: &str, id: &str) -> WireFrame {
    frame(&shop(), &starting(workflow), &[("id", id), ("args", "{}")])
}

fn place(stream: &str) -> WireFrame {
    let args = [("stream", stream), ("args", "{}"), ("key", "k")];
    frame(&shop(), &sending("order", "place"), &args)
}

fn register(tag: u32, aggregate: &str, name: &str) -> ToRoom {
    let kinds = vec![(aggregate.to_owned(), name.to_owned())];
    ToRoom::Register { tag, instance: 0, kinds, concurrency: 1_000 }
}

/// A run goes to sleep in its first attempt.
fn sleep(tag: u32, task: u64, count: u32, ms: u64) -> ToRoom {
    let name = "sleep".to_owned();
    let records = vec![NewRecord { name, count, what: Recorded::Sleep { ms } }];
    let outcome = Outcome::Progressed { records, suspends: true };
    let completion = Completion { task, attempt: 1, position: 0, outcome }.encode();
    ToRoom::Complete { tag, number: 1, completion }
}

fn end(tag: u32, task: u64, attempt: u64) -> ToRoom {
    let outcome = Outcome::Returned { result: "null".to_owned() };
    let completion = Completion { task, attempt, position: 0, outcome }.encode();
    ToRoom::Complete { tag, number: 1, completion }
}

fn brief(due: &DueTasks) -> String {
    let mut words: Vec<String> =
        due.at_ms.iter().map(|(kind, at)| format!("{} at {at}", kind.aggregate)).collect();
    words.extend(due.others_at_ms.map(|at| format!("others at {at}")));
    words.extend(due.stopped.iter().map(|(name, newest)| format!("{name} stopped, {newest}")));
    words.join(", ")
}

impl Scene {
    fn enter(&mut self, conn: ConnId) {
        self.open_as(conn, &shop(), None, Intent::Follow);
    }

    fn leave(&mut self, conn: ConnId) {
        self.step(RoomInput::Left { conn });
    }

    /// What was told since this was last asked.
    fn told_due(&mut self) -> Vec<String> {
        std::mem::take(&mut self.due).iter().map(brief).collect()
    }

    /// What the store has, as a server finds it that begins there.
    fn recorded(&mut self) -> Option<String> {
        let backup = self.backup();
        let mut store = open_store(&backup, self.openings + 1);
        let document = DocumentKey::new("notebook", "").expect("a name");
        store.serve(OwnerId(1), StoreRequest::Open { document });
        store.flush();
        loop {
            for (_, reply) in store.poll() {
                if let StoreReply::Opened { state, .. } = reply {
                    return recorded_due(&state.expect("it is there").record).as_ref().map(brief);
                }
            }
        }
    }
}

/// V15. Goal: what is kept of a closed document is bounded, however its tasks are called. Method:
/// more names than are kept, each of them long.
#[test]
fn long_names_are_not_kept_of_a_closed_document() {
    let name = |number: usize| format!("{}{number}", "w".repeat(400));
    let workflow = |number| WorkflowDefinition { name: name(number), version: 1, fields: vec![] };
    let mut doctype = Doctype { workflows: (0..250).map(workflow).collect(), ..notes() };
    doctype.workflows.sort_by(|one, other| one.name.cmp(&other.name));
    let mut scene = Scene::new();
    scene.room.set_time(1_000_000);
    scene.open_as(ANN, &doctype, None, Intent::Follow);
    let started =
        |number| frame(&doctype, &starting(&name(number)), &[("id", "a"), ("args", "{}")]);
    scene.frames(ANN, 1, (0..250).map(started).collect());
    scene.leave(ANN);
    let due = scene.due.pop().expect("it is told");
    let size: usize = due.at_ms.keys().map(|it| it.aggregate.len() + it.name.len()).sum();
    let count = due.at_ms.len();
    assert!(size <= 64 * 1024 && count > 100, "{size} bytes of {count} names");
    assert_eq!(due.others_at_ms, Some(0), "there are more");
}

/// Goal: the store says when a document is due that nobody has open. Method: a run sleeps, and
/// everybody leaves; it is opened, changed, and left.
#[test]
fn what_is_due_is_recorded_as_the_last_one_leaves() {
    let mut scene = Scene::new();
    scene.room.set_time(1_000_000);
    scene.enter(ANN);
    scene.leave(ANN);
    assert_eq!(scene.recorded().as_deref(), Some(""), "nothing is");
    scene.enter(ANN);
    scene.enter(BOB);
    scene.say(BOB, register(5, "fulfil", "1"));
    scene.frames(ANN, 1, vec![start("fulfil", "a")]);
    assert_eq!(scene.recorded(), None, "it has changed, and nobody knows yet");
    scene.say(BOB, sleep(5, 1, 0, 60_000));
    scene.say(BOB, ToRoom::Deregister { tag: 5 });
    scene.leave(BOB);
    assert_eq!(scene.recorded(), None);
    scene.leave(ANN);
    assert_eq!(scene.recorded().as_deref(), Some("fulfil at 1060000"));
    assert_eq!(scene.told_due().last().map(String::as_str), Some("fulfil at 1060000"));
    scene.restart();
    scene.enter(ANN);
    scene.leave(ANN);
    assert_eq!(scene.told_due().last().map(String::as_str), Some("fulfil at 1060000"));
    scene.room.set_time(1_060_000);
    scene.enter(BOB);
    scene.say(BOB, register(6, "fulfil", "1"));
    scene.say(BOB, end(6, 1, 2));
    scene.say(BOB, ToRoom::Deregister { tag: 6 });
    scene.leave(BOB);
    assert_eq!(scene.recorded().as_deref(), Some(""), "it is over");
    assert_eq!(scene.told_due().last().map(String::as_str), Some(""));
}

/// Goal: a document that was changed as its server died is not taken for what it was before.
/// Method: the server dies behind the first entry since somebody looked, and the next one looks.
#[test]
fn a_document_that_was_open_as_its_server_died_is_looked_at() {
    let mut scene = Scene::new();
    scene.room.set_time(1_000_000);
    scene.enter(ANN);
    scene.leave(ANN);
    assert_eq!(scene.recorded().as_deref(), Some(""));
    scene.enter(ANN);
    scene.frames(ANN, 1, vec![place("a")]);
    scene.restart();
    assert_eq!(scene.recorded(), None);
    scene.told_due();
    assert_eq!(scene.ask(Ask::Look), Answer::Looked);
    assert_eq!(scene.told_due(), ["order at 0"]);
    assert_eq!(scene.recorded().as_deref(), Some("order at 0"));
}

/// Goal: what somebody was given who never comes back is due, and not before somebody could be
/// given it. Method: it leaves; or the server dies, with whom it knew.
#[test]
fn what_was_given_to_one_who_is_gone_is_due_again() {
    let mut scene = Scene::new();
    scene.room.set_time(1_000_000);
    scene.enter(ANN);
    scene.say(ANN, register(5, "fulfil", "1"));
    scene.frames(ANN, 1, vec![start("fulfil", "a")]);
    let amid = scene.backup();
    scene.leave(ANN);
    let behind = "fulfil at 1030000";
    assert_eq!(scene.told_due().last().map(String::as_str), Some(behind), "it may come back");
    assert_eq!(scene.recorded().as_deref(), Some(behind), "though the server may die meanwhile");
    scene.room.set_time(1_000_000 + INSTANCE_SILENT_MS);
    scene.step(RoomInput::GoOn);
    assert_eq!(scene.told_due().last().map(String::as_str), Some("fulfil at 0"));
    scene.restore(&amid);
    assert_eq!(scene.ask(Ask::Look), Answer::Looked);
    assert_eq!(scene.told_due(), ["fulfil at 0"]);
}

/// Goal: a document whose room lost what it had is looked at by whoever comes, and not taken for
/// what it was. Method: the store breaks amid an append.
#[test]
fn after_a_store_that_failed_anything_may_be_due() {
    let mut scene = Scene::new();
    scene.room.set_time(1_000_000);
    scene.enter(ANN);
    assert_eq!(scene.told_due(), [""]);
    scene.waits = |reply| matches!(reply, StoreReply::Durable { .. });
    scene.frames(ANN, 1, vec![place("a")]);
    scene.held.clear();
    let reason = "unplugged".to_owned();
    let broken = StoreReply::Broken { error: AppendError::Device { reason } };
    scene.step(RoomInput::Store(broken));
    assert_eq!(scene.told_due(), ["others at 0"]);
}

/// Goal: in a document that is open, what somebody there handles is nobody else's, and the rest is
/// told. Method: one who handles one kind, then none.
#[test]
fn what_nobody_handles_who_is_there_is_told() {
    let mut scene = Scene::new();
    scene.room.set_time(1_000_000);
    scene.enter(ANN);
    assert_eq!(scene.told_due(), [""], "there was none");
    scene.enter(BOB);
    scene.say(BOB, register(5, "fulfil", "1"));
    scene.frames(ANN, 1, vec![start("fulfil", "a"), start("bill", "b"), place("c")]);
    assert_eq!(scene.room.looks_at_ms(), Some(1_000_250));
    assert_eq!(scene.told_due(), [""; 0], "not each time that something happens");
    scene.room.set_time(1_000_250);
    scene.step(RoomInput::GoOn);
    assert_eq!(scene.told_due(), ["bill at 0, order at 0"]);
    assert_eq!(scene.room.looks_at_ms(), None, "nothing has happened since");
    scene.say(BOB, register(6, "bill", "1"));
    assert_eq!(scene.told_due(), ["order at 0"], "at once");
    scene.say(BOB, register(8, "order", "another"));
    assert_eq!(scene.told_due(), [""; 0], "that is not what is due");
    scene.frames(ANN, 2, vec![place("d")]);
    scene.room.set_time(1_000_500);
    scene.step(RoomInput::GoOn);
    assert_eq!(scene.told_due(), [""; 0], "and nothing new of that");
    let outcome = Outcome::Stopped { reason: "it does not fit".to_owned() };
    let (task, attempt, position) = (1, 1, 0);
    let completion = Completion { task, attempt, position, outcome }.encode();
    scene.say(BOB, ToRoom::Complete { tag: 5, number: 1, completion });
    scene.room.set_time(1_000_750);
    scene.step(RoomInput::GoOn);
    assert_eq!(scene.told_due(), ["order at 0, fulfil stopped, 1"], "it fits nobody here");
}

/// Goal: to look takes the same time however many runs sleep, and none of them is forgotten.
/// Method: more of them than are looked at.
#[test]
fn where_many_runs_sleep_others_may_be_due_behind_the_nearest() {
    let mut scene = Scene::new();
    scene.room.set_time(1_000_000);
    scene.enter(ANN);
    scene.say(ANN, register(5, "fulfil", "1"));
    let frames = (0..100).map(|id| start("fulfil", &id.to_string()));
    scene.frames(ANN, 1, frames.collect());
    for task in 1..=100 {
        scene.say(ANN, sleep(5, task, 0, task * 1_000));
    }
    scene.say(ANN, ToRoom::Deregister { tag: 5 });
    scene.leave(ANN);
    assert_eq!(scene.recorded().as_deref(), Some("fulfil at 1001000, others at 1064000"));
}

#[test]
fn of_a_document_that_is_deleted_nothing_is_due() {
    let mut scene = Scene::new();
    scene.room.set_time(1_000_000);
    scene.enter(ANN);
    scene.frames(ANN, 1, vec![place("a")]);
    scene.leave(ANN);
    assert_eq!(scene.told_due().last().map(String::as_str), Some("order at 0"));
    assert_eq!(scene.ask(Ask::Destroy), Answer::Destroyed);
    assert_eq!(scene.told_due(), [""]);
}
