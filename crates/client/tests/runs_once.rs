//! Runs of workflows on many devices, handled by some of them while cores die, lines break and
//! clocks run apart: what a run remembers is done once, and it comes to its end.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_client::{Call, Complete, FromCore, Handling, Records, Request, ToCore};
use tidelog_document::{
    CommandDefinition, Completion, Doctype, EventDefinition, InstanceId, NewCommand, NewEvent,
    NewRecord, NewRun, Outcome, Recorded, StreamDefinition, TaskKind, WorkflowDefinition,
    cancelling, sending, starting,
};
use tidelog_sync::{FromRoom, FromServer};
use tidelog_testing::Rng;
use tidelog_testing::client::server::{Server, offline, talk};
use tidelog_testing::client::*;
use tidelog_types::Value;
use tidelog_types::limits::INSTANCE_SILENT_MS;

fn doctype() -> Doctype {
    let mut doctype = todos();
    let event = |name: &str| EventDefinition {
        name: name.to_owned(),
        fields: Vec::new(),
        upcasts: Vec::new(),
        project: Vec::new(),
    };
    let command = CommandDefinition {
        name: "do".to_owned(),
        fields: Vec::new(),
        received: Vec::new(),
        failed: Vec::new(),
        retries: 1,
        timeout_ms: 0,
    };
    doctype.streams = vec![StreamDefinition {
        name: "todo".to_owned(),
        events: vec![event("done"), event("seen")],
        commands: vec![command],
    }];
    let workflow =
        |name: &str| WorkflowDefinition { name: name.to_owned(), version: 1, fields: Vec::new() };
    doctype.workflows = vec![workflow("child"), workflow("work")];
    doctype
}

/// What a run does, one after the other.
const PLAN: [&str; 6] = ["step", "do", "sleep", "seen", "child", "last"];

struct World {
    server: Server,
    devices: Vec<Device>,
    handling: Vec<Option<Call>>,
    started: BTreeSet<String>,
    cancelled: BTreeSet<String>,
    /// How often each step was done at the far end, by run and name: at least once.
    effects: BTreeMap<(String, String), u32>,
    rng: Rng,
}

/// A task as it was given.
#[derive(Clone)]
struct Given {
    task: u64,
    attempt: u64,
    position: u64,
    instance: InstanceId,
    of: String,
    id: String,
    is_cancelled: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            server: Server::default(),
            devices: (1..4).map(Device::new).collect(),
            handling: vec![None; 3],
            started: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            effects: BTreeMap::new(),
            rng: Rng::new(seed),
        };
        (0..3).for_each(|nth| world.open(nth));
        world
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.next() % bound
    }

    fn open(&mut self, nth: usize) {
        self.devices[nth].server_is_up = true;
        self.devices[nth].start_open(TAB, Some(SERVER), &doctype());
        self.talk();
    }

    fn talk(&mut self) {
        talk(&mut self.server, &mut self.devices.iter_mut().collect::<Vec<_>>());
    }

    fn ask(&mut self, nth: usize, request: Request) -> Call {
        let device = &mut self.devices[nth];
        let call = device.next_call();
        device.ask(TAB, vec![ToCore::Ask { call, handle: HANDLE, request }]);
        call
    }

    fn handle(&mut self, nth: usize, concurrency: u32) {
        let kind = |(aggregate, name): (&str, &str)| TaskKind {
            aggregate: aggregate.to_owned(),
            name: name.to_owned(),
        };
        let kinds = [("todo", "do"), ("work", "1"), ("child", "1")].map(kind).to_vec();
        self.handling[nth] = Some(self.ask(nth, Request::Handle(Handling { kinds, concurrency })));
    }

    /// What a device was given last.
    fn given(&self, nth: usize) -> Vec<Given> {
        let Some(call) = self.handling[nth] else { return Vec::new() };
        let last = self.devices[nth].rows_told(call).pop().unwrap_or_default();
        let given = |row: &Vec<Value>| Given {
            task: number(&row[0]),
            attempt: number(&row[9]),
            position: number(&row[10]),
            instance: InstanceId(number(&row[12])),
            of: string(&row[1]),
            id: string(&row[2]),
            is_cancelled: number(&row[11]) != 0,
        };
        last.iter().map(given).collect()
    }

    fn complete(&mut self, nth: usize, given: &Given, outcome: Outcome) {
        self.start_completing(nth, given, outcome);
    }

    fn start_completing(&mut self, nth: usize, given: &Given, outcome: Outcome) -> Call {
        let handling = self.handling[nth].expect("it was given");
        let Given { task, attempt, position, instance, .. } = *given;
        let completion = Completion { task, attempt, position, outcome };
        self.ask(nth, Request::Complete(Complete { handling, instance, completion }))
    }

    /// What a handler is told to have become of what it has said.
    fn said(&self, nth: usize, completing: Call) -> Vec<String> {
        let lists = self.devices[nth].rows_told(completing).into_iter().flatten();
        lists.map(|row| string(&row[0])).collect()
    }

    /// The state of each record of a run, by name; `None` where this device is not told now.
    fn records(&mut self, nth: usize, task: u64, attempt: u64) -> Option<BTreeMap<String, String>> {
        let (mut records, mut after) = (BTreeMap::new(), 0);
        loop {
            let call = self.ask(nth, Request::Records(Records { task, attempt, after }));
            let rows = self.devices[nth].rows_told(call).pop()?;
            let Some(last) = rows.last() else { return Some(records) };
            after = number(&last[0]);
            records.extend(rows.iter().map(|row| (string(&row[1]), string(&row[4]))));
        }
    }

    /// A handler does the next thing of what it was given, knowing nothing but its records.
    fn work(&mut self, nth: usize, given: &Given) {
        match given.of.as_str() {
            "todo" => {
                let events = vec![NewEvent { name: "done".to_owned(), data: "{}".to_owned() }];
                let done = Outcome::Completed {
                    events,
                    sends: Vec::new(),
                    starts: Vec::new(),
                    snapshot: None,
                };
                return self.complete(nth, given, done);
            }
            "child" => {
                let result = "\"packed\"".to_owned();
                return self.complete(nth, given, Outcome::Returned { result });
            }
            _ => {}
        }
        let Some(records) = self.records(nth, given.task, given.attempt) else { return };
        if given.is_cancelled && !records.contains_key("cancel") {
            let records = vec![new_record("cancel", Recorded::Cancel)];
            let cancels = Outcome::Progressed { records, suspends: false };
            return self.complete(nth, given, cancels);
        }
        if given.is_cancelled {
            return self.complete(nth, given, Outcome::Cancelled);
        }
        let next = PLAN.iter().find(|name| {
            !matches!(records.get(**name).map(String::as_str), Some("done" | "failed"))
        });
        let outcome = match next {
            None => Outcome::Returned { result: "\"worked\"".to_owned() },
            Some(name) if records.contains_key(*name) => {
                Outcome::Progressed { records: Vec::new(), suspends: true }
            }
            Some(name) => {
                let what = self.recorded(given, name);
                let suspends = !matches!(what, Recorded::Done { .. }) && self.below(2) == 0;
                Outcome::Progressed { records: vec![new_record(name, what)], suspends }
            }
        };
        self.complete(nth, given, outcome);
    }

    fn recorded(&mut self, given: &Given, name: &str) -> Recorded {
        let text = str::to_owned;
        match name {
            "do" => {
                let [aggregate, name, args] = ["todo", "do", "{}"].map(text);
                let (stream, key) = (given.id.clone(), given.id.clone());
                Recorded::Send(NewCommand { aggregate, stream, name, args, key })
            }
            "sleep" => Recorded::Sleep { ms: self.below(20_000) },
            "seen" => {
                let [aggregate, event] = ["todo", "seen"].map(text);
                let stream = given.id.clone();
                Recorded::WaitFor { aggregate, stream, event, timeout_ms: 40_000 }
            }
            "child" => {
                let [workflow, args] = ["child", "{}"].map(text);
                Recorded::Start(NewRun { workflow, id: given.id.clone(), args })
            }
            _ => {
                *self.effects.entry((given.id.clone(), text(name))).or_default() += 1;
                Recorded::Done { kind: text("step"), result: text("1") }
            }
        }
    }

    fn mutate(&mut self, nth: usize, name: &str, args: &[(&str, Value)]) -> bool {
        let call = self.devices[nth].mutate(name, args);
        matches!(self.devices[nth].answers(call)[..], [FromCore::Durable { .. }, ..])
    }

    fn step(&mut self) {
        let nth = self.below(3) as usize;
        let id = format!("r{}", self.below(6));
        match self.below(16) {
            0..2 => {
                let args = [("id", text(&id)), ("args", text("{}"))];
                if self.mutate(nth, &starting("work"), &args) {
                    self.started.insert(id);
                }
            }
            2 if self.below(4) == 0 && self.started.contains(&id) => {
                if self.mutate(nth, &cancelling("work"), &[("id", text(&id))]) {
                    self.cancelled.insert(id);
                }
            }
            2 => {
                let args = [("stream", text(&id)), ("args", text("{}")), ("key", text(&id))];
                self.mutate(nth, &sending("todo", "do"), &args);
            }
            3 if self.handling[nth].is_none() => {
                let concurrency = 1 + self.below(3) as u32;
                self.handle(nth, concurrency);
            }
            3 => {
                let call = self.handling[nth].take().expect("it handles");
                self.devices[nth].give_up(call);
            }
            4..10 => {
                let given = self.given(nth);
                if !given.is_empty() {
                    let which = given[self.below(given.len() as u64) as usize].clone();
                    self.work(nth, &which);
                }
            }
            10 if self.devices[nth].socket.is_some() => {
                offline(&mut self.devices[nth]);
                self.server.forget(self.devices[nth].number);
            }
            10 => self.devices[nth].server_is_up = true,
            11 => {
                self.devices[nth].kill_core();
                self.server.forget(self.devices[nth].number);
                self.devices[nth].lend();
                self.handling[nth] = None;
                self.open(nth);
            }
            12 => self.server.now_ms += self.below(INSTANCE_SILENT_MS * 2),
            13 => {
                let ms = self.below(INSTANCE_SILENT_MS);
                self.devices[nth].pass(ms);
            }
            _ => self.talk(),
        }
    }

    /// All come back, one handles what is left, and nothing fails any more.
    fn end(&mut self) {
        for nth in 0..3 {
            if let Some(call) = self.handling[nth].take() {
                self.devices[nth].give_up(call);
            }
            self.devices[nth].server_is_up = true;
            self.devices[nth].pass(20_000);
        }
        self.talk();
        self.handle(0, 3);
        self.talk();
        for _ in 0..150 {
            for which in self.given(0) {
                self.work(0, &which);
                self.talk();
            }
            self.server.now_ms += 20_000;
            self.devices.iter_mut().for_each(|device| device.pass(20_000));
            self.talk();
        }
    }
}

fn new_record(name: &str, what: Recorded) -> NewRecord {
    NewRecord { name: name.to_owned(), count: 0, what }
}

fn number(value: &Value) -> u64 {
    match value {
        Value::Integer(number) => number.unsigned_abs(),
        other => panic!("{other:?}"),
    }
}

fn string(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    }
}

/// Goal: whoever starts a run, however often, and whoever dies amid it: it comes to its end once,
/// what it has sent and started was handled once, and nobody is held up for good. Method: three
/// devices do at random what apps and browsers do to them; their handlers know nothing of a run but
/// what it remembers.
#[test]
fn each_run_comes_to_its_end_once_whatever_happens() {
    let (mut completed, mut repeated) = (0, 0);
    for seed in 0..20 {
        let mut world = World::new(seed);
        for _ in 0..300 {
            world.step();
        }
        world.end();
        let World { started, cancelled, effects, devices, .. } = &mut world;
        let device = &mut devices[1];
        let runs = device.query(
            "select id, state, coalesce(result, reason, number || '') from tidelog_workflows
             where workflow = 'work' order by id",
        );
        let mut ids = BTreeSet::new();
        for run in runs {
            let [id, state, result] = [0, 1, 2].map(|column| string(&run[column]));
            let ends = match state.as_str() {
                "completed" => result == "\"worked\"",
                "cancelled" => cancelled.contains(&id),
                _ => false,
            };
            assert!(ends, "seed {seed}: {id} {state} {result}");
            if state == "completed" {
                completed += 1;
                for name in ["step", "last"] {
                    let times = effects.get(&(id.clone(), name.to_owned())).copied();
                    assert!(times >= Some(1), "seed {seed}: {id} {name}");
                    repeated += u32::from(times > Some(1));
                }
            }
            assert!(ids.insert(id), "seed {seed}");
        }
        assert_eq!(ids, *started, "seed {seed}");
        // Whatever was to be done for a run, or by hand with its key, was done once.
        let done = device.query(
            "select stream from tidelog_events where type = 'done' group by stream
             having count(*) <> 1",
        );
        assert_eq!(done, Vec::<Vec<Value>>::new(), "seed {seed}");
        let lacking = device.query(
            "select id from tidelog_workflows as run where state = 'completed' and workflow = 'work'
             and (select count(*) from tidelog_records as record
                  where record.number = run.number and record.state in ('done')) <> 6",
        );
        assert_eq!(lacking, Vec::<Vec<Value>>::new(), "seed {seed}");
        let image = world.server.image();
        for device in &mut world.devices {
            assert!(device.image() == image, "seed {seed}");
        }
    }
    assert!(completed >= 40 && repeated > 0, "{completed} completed, {repeated} steps repeated");
}

/// Goal: an answer is that of what it answers, however often it comes: one attempt of a run says
/// more than once how far it has come. Method: the answer to the first comes once more, as to what
/// was said on two connections, while the second is on its way.
#[test]
fn an_answer_that_comes_again_answers_nothing_else() {
    let mut world = World::new(1);
    world.handle(0, 1);
    assert!(world.mutate(1, &starting("work"), &[("id", text("r")), ("args", text("{}"))]));
    world.talk();
    let [given] = &world.given(0)[..] else { panic!("it is given") };
    let records = vec![new_record("step", world.recorded(given, "step"))];
    let so_far = Outcome::Progressed { records, suspends: false };
    let first = world.start_completing(0, given, so_far);
    let sent = world.devices[0].take_sent().pop().expect("it says so");
    let answers = world.server.hear(world.devices[0].number, sent);
    let is_answer =
        |it: &&FromServer| matches!(it, FromServer::About { body: FromRoom::Completed { .. }, .. });
    let answer = answers.iter().find(is_answer).expect("it is answered").clone();
    world.talk();
    world.devices[0].hear_server(&answer);
    assert_eq!(world.said(0, first), ["done"]);

    let result = "1".to_owned();
    let second = world.start_completing(0, given, Outcome::Returned { result });
    world.devices[0].hear_server(&answer);
    assert_eq!(world.said(0, second), [""; 0], "the server has not even heard it");
    world.talk();
    assert_eq!(world.said(0, second), ["done"]);
}
