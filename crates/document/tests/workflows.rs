//! Workflows: started by devices, what their runs remember, and what lets them go on.

mod common;

use common::*;
use tidelog_document::{
    Change, Changed, CommandDefinition, Completion, Doctype, DoctypeError, EventDefinition,
    FoundOutcome, FoundRight, Free, InstanceId, MutationDefinition, NewCommand, NewEvent,
    NewRecord, NewRun, Outcome, Param, ParamKind, Recorded, StreamDefinition, TaskKind, Verdict,
    WorkflowDefinition, cancelling, check, find_given, find_outcome, find_records, sending,
    starting,
};
use tidelog_sqlite::{Failure, Run, View};
use tidelog_sync::CompletionAnswer;
use tidelog_types::limits::{Limits, RECORD_SIZE_MAX, WORKFLOW_RECORDS_MAX};
use tidelog_types::{ClientId, Value};

fn param(name: &str, kind: ParamKind) -> Param {
    Param { name: name.to_owned(), kind, optional: false }
}

fn workflow(name: &str, version: u32) -> WorkflowDefinition {
    let fields = vec![param("order", ParamKind::Text)];
    WorkflowDefinition { name: name.to_owned(), version, fields }
}

/// Orders that are paid, and what fulfils them.
fn shop() -> Doctype {
    let event = |name: &str| EventDefinition {
        name: name.to_owned(),
        fields: Vec::new(),
        upcasts: Vec::new(),
        project: Vec::new(),
    };
    let ship =
        "insert into tidelog_events (aggregate, stream, type) values ('order', :id, 'shipped')";
    Doctype {
        name: "shop".to_owned(),
        migrations: vec!["create table orders (id text primary key) strict".to_owned()],
        mutations: vec![MutationDefinition {
            name: "ship".to_owned(),
            params: vec![param("id", ParamKind::Text)],
            sql: vec![ship.to_owned()],
        }],
        streams: vec![StreamDefinition {
            name: "order".to_owned(),
            events: vec![event("paid"), event("shipped")],
            commands: vec![CommandDefinition {
                name: "pay".to_owned(),
                fields: Vec::new(),
                received: vec![
                    "select reject('no credit') where :stream = 'poor'".to_owned(),
                    "insert into orders values (:stream)".to_owned(),
                ],
                failed: Vec::new(),
                retries: 0,
                timeout_ms: 30_000,
            }],
        }],
        workflows: vec![workflow("fulfil", 1), workflow("pack", 1)],
    }
}

/// An authority, and a device that follows it.
struct Scene {
    doctype: Doctype,
    server: Server,
    device: Device,
    now_ms: u64,
}

/// What is handled.
fn kinds() -> Vec<TaskKind> {
    let kind = |aggregate: &str, name: &str| TaskKind {
        aggregate: aggregate.to_owned(),
        name: name.to_owned(),
    };
    vec![kind("fulfil", "1"), kind("pack", "1"), kind("order", "pay")]
}

fn with_shop(scenario: impl Fn(Scene)) {
    with_limited_shop(Limits::DEFAULT, scenario);
}

fn with_limited_shop(limits: Limits, scenario: impl Fn(Scene)) {
    for pool in POOLS {
        scenario(Scene::new(pool, limits));
    }
}

impl Scene {
    fn new(pool: usize, limits: Limits) -> Self {
        let doctype = shop();
        let server = Server::with_limits(9, pool, &doctype, limits);
        let device = Device::following(1, pool, &doctype, &server);
        Self { doctype, server, device, now_ms: 1_000_000 }
    }

    fn try_issue(&mut self, name: &str, args: &[(&str, Value)]) -> Result<(), Failure> {
        self.device.try_issue(&self.doctype, name, args).map(drop)
    }

    fn try_start(&mut self, workflow: &str, id: &str, args: &str) -> Result<(), Failure> {
        self.try_issue(&starting(workflow), &[("id", text(id)), ("args", text(args))])
    }

    /// Started by the device, and received by the authority.
    fn start(&mut self, id: &str) {
        self.try_start("fulfil", id, r#"{"order":"o1"}"#).expect("started");
        self.converge();
    }

    fn cancel(&mut self, id: &str) {
        self.try_issue(&cancelling("fulfil"), &[("id", text(id))]).expect("cancelled");
        self.converge();
    }

    fn ship(&mut self, id: &str) {
        self.try_issue("ship", &[("id", text(id))]).expect("shipped");
        self.converge();
    }

    /// What was predicted is what is decided, byte for byte.
    fn converge(&mut self) {
        let image = self.device.image();
        converge(&mut self.server, &mut self.device);
        assert_eq!(self.device.image(), image, "what was predicted is what was decided");
        let verdicts = self.device.verdicts();
        assert!(verdicts.iter().all(|(_, verdict)| *verdict == Verdict::Applied), "{verdicts:?}");
    }

    fn change(&mut self, change: &Change) -> Changed {
        let view = self.server.authority.view().clone();
        let Self { server, doctype, now_ms, .. } = self;
        let changed =
            server.rest.serve(&view, || server.authority.change(change, doctype, *now_ms));
        let (changed, committed) = changed.expect("decided");
        if let Some(committed) = committed {
            server.keep(committed, None);
        }
        follow(&self.server, &mut self.device);
        changed
    }

    fn register(&mut self) -> InstanceId {
        let (client, user, kinds) = (ClientId([7; 16]), "ada".to_owned(), kinds());
        match self.change(&Change::Register { client, user, kinds }) {
            Changed::Registered(instance) => instance,
            other => panic!("{other:?}"),
        }
    }

    fn dispatch(&mut self, instance: InstanceId) -> Option<u64> {
        self.dispatch_to(&[instance])
    }

    fn dispatch_to(&mut self, instances: &[InstanceId]) -> Option<u64> {
        let free = |instance: &InstanceId| Free {
            instance: *instance,
            kinds: kinds(),
            concurrency: 1_024,
        };
        let free: Vec<Free> = instances.iter().map(free).collect();
        loop {
            match self.change(&Change::Dispatch(free.clone())) {
                Changed::Dispatched { again: true, .. } => {}
                Changed::Dispatched { due_ms, .. } => return due_ms,
                other => panic!("{other:?}"),
            }
        }
    }

    fn decoded(&mut self, rows: tidelog_types::Rows) -> Vec<Vec<Value>> {
        rows.decode()
    }

    /// Number, attempt and id of what is given to it, and `!` of what is cancelled.
    fn given(&mut self, instance: InstanceId) -> Vec<String> {
        let view = self.server.authority.view().clone();
        let Self { server, .. } = self;
        let rows = server.rest.serve(&view, || find_given(server.authority.reader(), instance));
        let rows = self.decoded(rows.expect("found"));
        let said = |row: Vec<Value>| match (&row[0], &row[9], &row[2], &row[11..]) {
            (
                Value::Integer(number),
                Value::Integer(attempt),
                Value::Text(stream),
                [Value::Integer(cancelled), _],
            ) => {
                let mark = if *cancelled == 0 { "" } else { "!" };
                format!("{number}.{attempt} {stream}{mark}")
            }
            other => panic!("{other:?}"),
        };
        rows.into_iter().map(said).collect()
    }

    /// What a run remembers: name, count, state and result of each.
    fn records(&mut self, task: u64) -> Vec<String> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let view = self.server.authority.view().clone();
            let Self { server, .. } = self;
            let rows = server
                .rest
                .serve(&view, || find_records(server.authority.reader(), task, 0, after))
                .expect("found")
                .unwrap_or_default();
            let rows = self.decoded(rows);
            if rows.is_empty() {
                return all;
            }
            for row in rows {
                let cell = |place: usize| match &row[place] {
                    Value::Integer(number) => number.to_string(),
                    Value::Text(text) => text.clone(),
                    _ => String::new(),
                };
                after = cell(0).parse().expect("a number");
                let shown: Vec<String> = [1, 2, 3, 4, 5].map(cell).into_iter().collect();
                all.push(shown.join(" ").trim_end().to_owned());
            }
        }
    }

    fn outcome(&mut self, workflow: &str, id: &str) -> FoundOutcome {
        let view = self.server.authority.view().clone();
        let Self { server, .. } = self;
        let names = [workflow, id, "", id];
        let found = server.rest.serve(&view, || find_outcome(server.authority.reader(), names));
        found.expect("looked up")
    }

    /// State, reason and result of a run that is over.
    fn over(&mut self, workflow: &str, id: &str) -> [Value; 3] {
        let FoundOutcome::Over(rows) = self.outcome(workflow, id) else { panic!("over") };
        let [_, state, reason, _, _, result] = &rows.decode()[0][..] else { panic!("a row") };
        [state.clone(), reason.clone(), result.clone()]
    }

    fn complete(
        &mut self,
        instance: InstanceId,
        (task, attempt): (u64, u64),
        outcome: Outcome,
    ) -> CompletionAnswer {
        let completion = Completion { task, attempt, position: 0, outcome };
        let changed = self.change(&Change::Complete { instance, completion });
        changed.answer().expect("a completion")
    }

    fn done(&mut self, instance: InstanceId, attempt: (u64, u64), outcome: Outcome) {
        assert_eq!(self.complete(instance, attempt, outcome), CompletionAnswer::Done);
    }

    /// What the device sees.
    fn rows(&mut self, sql: &str) -> Vec<String> {
        let rows = self.device.query(sql);
        let cell = |row: Vec<Value>| match row.into_iter().next() {
            Some(Value::Text(text)) => text,
            other => panic!("{other:?}"),
        };
        rows.into_iter().map(cell).collect()
    }
}

const RUNS: &str = "select number || ' ' || workflow || ' ' || id || ' ' || version || ' ' ||
                    state || ' ' || attempt || ' ' || records || ' ' ||
                    coalesce(result, reason, '') from tidelog_workflows order by number";

fn record(name: &str, count: u32, what: Recorded) -> NewRecord {
    NewRecord { name: name.to_owned(), count, what }
}

fn step(name: &str, result: &str) -> NewRecord {
    record(name, 0, Recorded::Done { kind: "step".to_owned(), result: result.to_owned() })
}

fn wait_for(name: &str, event: &str, timeout_ms: u64) -> NewRecord {
    let [aggregate, stream, event] = ["order", "o1", event].map(str::to_owned);
    record(name, 0, Recorded::WaitFor { aggregate, stream, event, timeout_ms })
}

fn pay(stream: &str) -> NewCommand {
    let [aggregate, stream, name, args, key] =
        ["order", stream, "pay", "{}", "by-run"].map(str::to_owned);
    NewCommand { aggregate, stream, name, args, key }
}

fn child(id: &str) -> NewRun {
    let [workflow, id, args] = ["pack", id, r#"{"order":"o1"}"#].map(str::to_owned);
    NewRun { workflow, id, args }
}

fn progressed(records: Vec<NewRecord>, suspends: bool) -> Outcome {
    Outcome::Progressed { records, suspends }
}

fn returned(result: &str) -> Outcome {
    Outcome::Returned { result: result.to_owned() }
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed { reason: reason.to_owned(), is_final: true }
}

/// Goal: a run is seen where it is started at once, is given to whoever handles its version, goes
/// on after each record, and comes to its end once.
#[test]
fn a_run_is_started_goes_on_and_returns() {
    with_shop(|mut scene| {
        scene.try_start("fulfil", "f", r#"{"order": "o1"}"#).expect("started");
        assert_eq!(scene.rows(RUNS), ["1 fulfil f 1 received 0 0 "]);
        scene.converge();
        let one = scene.register();
        assert_eq!(scene.dispatch(one), None);
        assert_eq!(scene.given(one), ["1.1 f"]);
        assert_eq!(scene.outcome("fulfil", "f"), FoundOutcome::Pending);
        scene.done(one, (1, 1), progressed(vec![step("label", "[7]")], false));
        scene.done(one, (1, 1), progressed(vec![record("call", 0, Recorded::Begun)], false));
        assert_eq!(scene.records(1), ["label 0 step done [7]", "call 0 request started"]);
        let called = Recorded::Failed { kind: "request".to_owned(), reason: "busy".to_owned() };
        scene.done(one, (1, 1), progressed(vec![record("call", 0, called)], false));
        assert_eq!(scene.records(1), ["label 0 step done [7]", "call 0 request failed busy"]);
        assert_eq!(scene.rows(RUNS), ["1 fulfil f 1 started 1 2 "]);
        scene.done(one, (1, 1), returned(r#"{"ok":true}"#));
        assert_eq!(scene.rows(RUNS), [r#"1 fulfil f 1 completed 1 2 {"ok":true}"#]);
        let over = [text("completed"), Value::Null, text(r#"{"ok":true}"#)];
        assert_eq!(scene.over("fulfil", "f"), over);
        assert_eq!(scene.complete(one, (1, 1), returned("1")), CompletionAnswer::Late);
        assert_eq!(scene.outcome("fulfil", "g"), FoundOutcome::None);
        assert!(scene.rows("select command from tidelog_commands").is_empty());
    });
}

/// Goal: an id stands for one run.
#[test]
fn a_run_that_is_started_twice_is_one() {
    with_shop(|mut scene| {
        scene.start("f");
        scene.start("f");
        assert_eq!(scene.rows(RUNS), ["1 fulfil f 1 received 0 0 "]);
        let other = scene.try_start("fulfil", "f", r#"{"order":"o2"}"#);
        let Err(Failure::Rejected { reason }) = other else { panic!("{other:?}") };
        let expected = "key reused: fulfil of f was sent by it before, with other arguments";
        assert_eq!(reason, expected);
        scene.try_start("pack", "f", r#"{"order":"o2"}"#).expect("of another workflow");
        for (id, args) in [("", r#"{"order":"o"}"#), ("g", "{}"), ("g", "[]"), ("g", "")] {
            let refused = scene.try_start("fulfil", id, args);
            assert!(matches!(refused, Err(Failure::Rejected { .. })), "{id} {args} {refused:?}");
        }
        let long = "x".repeat(257);
        assert!(scene.try_start("fulfil", &long, r#"{"order":"o"}"#).is_err());
        // As long as it is known, also once it is over.
        let one = scene.register();
        scene.converge();
        scene.dispatch(one);
        scene.done(one, (1, 1), returned("1"));
        scene.start("f");
        assert_eq!(scene.rows(RUNS).len(), 2);
    });
}

/// Goal: of two attempts one counts, whatever the other one says. Method: a handler is taken for
/// gone amid a run.
#[test]
fn what_a_late_attempt_says_is_not_remembered() {
    with_shop(|mut scene| {
        scene.start("f");
        let [one, two] = [scene.register(), scene.register()];
        scene.dispatch(one);
        scene.done(one, (1, 1), progressed(vec![step("a", "1")], false));
        scene.change(&Change::Deregister(one));
        scene.dispatch(two);
        assert_eq!(scene.given(two), ["1.2 f"]);
        let position = scene.server.authority.position();
        for (instance, attempt) in [(one, 1), (one, 2), (two, 1), (two, 3)] {
            for outcome in [
                progressed(vec![step("b", "2")], true),
                returned("2"),
                failed("no"),
                Outcome::Cancelled,
                Outcome::Stopped { reason: "no".to_owned() },
                Outcome::Continued { args: r#"{"order":"o"}"#.to_owned() },
            ] {
                let answer = scene.complete(instance, (1, attempt), outcome);
                assert_eq!(answer, CompletionAnswer::Late);
            }
        }
        assert_eq!(scene.server.authority.position(), position, "no entry says any of it");
        assert_eq!(scene.records(1), ["a 0 step done 1"], "and it is still remembered");
        // What was said twice is remembered once, as it was said first.
        scene.done(two, (1, 2), progressed(vec![step("a", "2"), step("b", "3")], false));
        assert_eq!(scene.records(1), ["a 0 step done 1", "b 0 step done 3"]);
        assert_eq!(scene.rows(RUNS), ["1 fulfil f 1 started 2 2 "]);
    });
}

/// Goal: a run that sleeps is nobody's, and goes on when its time has come by the clock of the
/// authority.
#[test]
fn a_run_sleeps_by_the_clock_of_the_authority() {
    with_shop(|mut scene| {
        scene.start("f");
        scene.start("g");
        let one = scene.register();
        scene.dispatch(one);
        let sleep = |ms| vec![record("sleep", 0, Recorded::Sleep { ms })];
        scene.done(one, (1, 1), progressed(sleep(5_000), true));
        scene.done(one, (2, 1), progressed(sleep(u64::MAX), true));
        assert_eq!(scene.dispatch(one), Some(1_005_000));
        assert!(scene.given(one).is_empty());
        let waiting = ["1 fulfil f 1 waiting 1 1 ", "2 fulfil g 1 waiting 1 1 "];
        assert_eq!(scene.rows(RUNS), waiting);
        scene.now_ms = 1_004_999;
        scene.dispatch(one);
        assert!(scene.given(one).is_empty());
        scene.now_ms = 1_005_000;
        assert_eq!(scene.dispatch(one), Some(u64::MAX / 2), "never, as good as");
        assert_eq!(scene.given(one), ["1.2 f"]);
        assert_eq!(scene.records(1), ["sleep 0 sleep done"]);
        let times = "select time || '' from tidelog_records where workflow || id = 'fulfilf'";
        assert_eq!(scene.rows(times), ["1005000"], "when the run was told");
    });
}

/// Goal: a run sees each event since its start once, whether it happens before it waits, while it
/// waits or while it does something else; and goes on without it when the time is over.
#[test]
fn a_run_waits_for_events() {
    with_shop(|mut scene| {
        scene.ship("o1");
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        // What happened before its start is nothing to it.
        scene.done(one, (1, 1), progressed(vec![wait_for("a", "shipped", 0)], true));
        scene.dispatch(one);
        assert!(scene.given(one).is_empty());
        scene.ship("o2");
        scene.dispatch(one);
        assert!(scene.given(one).is_empty(), "of another order");
        scene.ship("o1");
        assert_eq!(scene.rows(RUNS), ["1 fulfil f 1 waiting 1 1 "]);
        scene.dispatch(one);
        assert_eq!(scene.given(one), ["1.2 f"]);
        assert_eq!(scene.records(1), ["a 0 event done 3"]);
        // One that has happened meanwhile is there at once; each is seen once.
        scene.ship("o1");
        scene.done(one, (1, 2), progressed(vec![wait_for("b", "shipped", 0)], true));
        scene.dispatch(one);
        assert_eq!(scene.given(one), ["1.3 f"]);
        assert_eq!(scene.records(1)[1], "b 0 event done 4");
        // While it does something else.
        scene.done(one, (1, 3), progressed(vec![wait_for("c", "shipped", 0)], false));
        scene.ship("o1");
        scene.done(one, (1, 3), progressed(vec![step("d", "1")], true));
        scene.dispatch(one);
        assert_eq!(scene.given(one), ["1.4 f"]);
        assert_eq!(scene.records(1)[2..], ["d 0 step done 1", "c 0 event done 5"]);
        // Never.
        scene.done(one, (1, 4), progressed(vec![wait_for("e", "paid", 60_000)], true));
        assert_eq!(scene.dispatch(one), Some(1_060_000));
        scene.now_ms = 1_060_000;
        scene.dispatch(one);
        assert_eq!(scene.given(one), ["1.5 f"]);
        assert_eq!(scene.records(1)[4], "e 0 event done");
    });
}

/// Goal: a run sends a command, once, and hears of its end; what follows from its receipt may
/// refuse it, which the run hears.
#[test]
fn a_run_sends_commands() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        let send = |name: &str, stream: &str| record(name, 0, Recorded::Send(pay(stream)));
        scene.done(one, (1, 1), progressed(vec![send("pay", "o1")], true));
        assert_eq!(scene.rows("select id from orders"), ["o1"]);
        scene.dispatch(one);
        assert_eq!(scene.given(one), ["2.1 o1"], "the command, and not the run");
        let events = vec![NewEvent { name: "paid".to_owned(), data: "{}".to_owned() }];
        let paid = Outcome::Completed {
            events,
            sends: Vec::new(),
            starts: vec![child("p")],
            snapshot: None,
        };
        scene.done(one, (2, 1), paid);
        scene.dispatch(one);
        assert_eq!(scene.given(one), ["1.2 f", "3.1 p"]);
        let completed = r#"pay 0 command done {"first":1,"last":1}"#;
        assert_eq!(scene.records(1), [completed]);
        // Again with that key, refused, and of no such name.
        let mut unknown = pay("o1");
        unknown.name = "bill".to_owned();
        let records = vec![
            send("again", "o1"),
            send("refused", "poor"),
            record("unknown", 0, Recorded::Send(unknown)),
            step("last", "1"),
        ];
        scene.done(one, (1, 2), progressed(records, true));
        scene.dispatch(one);
        assert_eq!(scene.given(one), ["1.3 f", "3.1 p"]);
        // In the order in which it has heard of them.
        let expected = [
            completed,
            "last 0 step done 1",
            r#"again 0 command done {"first":1,"last":1}"#,
            "refused 0 command failed no credit",
            "unknown 0 command failed there is no command bill of order",
        ];
        assert_eq!(scene.records(1), expected);
        assert_eq!(scene.rows("select id from orders"), ["o1"], "nothing else came of it");
        // One that fails.
        scene.done(one, (1, 3), progressed(vec![send("third", "o3")], true));
        scene.dispatch(one);
        scene.done(one, (4, 1), failed("broke"));
        scene.dispatch(one);
        assert_eq!(scene.records(1)[5], "third 0 command failed broke");
        let causes = scene.rows("select command || ' ' || user from tidelog_commands");
        assert_eq!(causes, ["pay ", "pay "], "by whoever has started the run");
    });
}

/// Goal: a run starts another one, and hears of its end, also once that has gone on as new.
#[test]
fn a_run_starts_another_one_and_hears_of_its_end() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        let start = |name: &str, id: &str| record(name, 0, Recorded::Start(child(id)));
        scene.done(one, (1, 1), progressed(vec![start("a", "p"), start("b", "q")], true));
        scene.dispatch(one);
        assert_eq!(scene.given(one), ["2.1 p", "3.1 q"]);
        let args = r#"{"order": "o9"}"#.to_owned();
        scene.done(one, (2, 1), Outcome::Continued { args });
        scene.dispatch(one);
        assert_eq!(scene.given(one), ["3.1 q", "4.1 p"]);
        assert_eq!(scene.outcome("pack", "p"), FoundOutcome::Pending);
        scene.done(one, (4, 1), returned(r#""packed""#));
        assert_eq!(scene.rows(RUNS)[1], "2 pack p 1 continued 1 0 ");
        scene.dispatch(one);
        assert_eq!(scene.given(one), ["1.2 f", "3.1 q"]);
        assert_eq!(scene.records(1), ["b 0 workflow waiting", r#"a 0 workflow done "packed""#]);
        scene.done(one, (1, 2), progressed(vec![], true));
        scene.done(one, (3, 1), failed("lost"));
        scene.dispatch(one);
        assert_eq!(scene.records(1)[1], "b 0 workflow failed lost");
        // It was started with that, whatever it went on with.
        scene.try_start("pack", "p", r#"{"order":"o1"}"#).expect("the same one");
        assert!(scene.try_start("pack", "p", r#"{"order":"o9"}"#).is_err());
        // Not itself.
        let itself = NewRun { workflow: "fulfil".to_owned(), id: "f".to_owned(), ..child("f") };
        let itself = record("c", 0, Recorded::Start(itself));
        scene.done(one, (1, 3), progressed(vec![itself], true));
        assert_eq!(scene.records(1)[2], "c 0 workflow failed a run cannot wait for itself");
    });
}

/// Goal: whoever cancels a run is heard by it and by those that it has started, and it may clean up
/// first; one that nobody has begun is over at once.
#[test]
fn a_run_that_is_cancelled_hears_of_it() {
    with_shop(|mut scene| {
        scene.start("f");
        scene.start("g");
        scene.try_start("pack", "other", r#"{"order":"o1"}"#).expect("started");
        scene.converge();
        scene.cancel("g");
        let cancelled = || [text("cancelled"), text("cancelled"), Value::Null];
        assert_eq!(scene.over("fulfil", "g"), cancelled());
        let one = scene.register();
        scene.dispatch(one);
        let start = |name: &str, id: &str| record(name, 0, Recorded::Start(child(id)));
        let begun = vec![start("a", "p"), start("b", "other"), wait_for("c", "paid", 0)];
        scene.done(one, (1, 1), progressed(begun, true));
        scene.dispatch(one);
        assert_eq!(scene.given(one), ["3.1 other", "4.1 p"]);
        scene.cancel("f");
        scene.cancel("f");
        assert_eq!(scene.given(one), ["3.1 other", "4.1 p!"], "it was started by it");
        scene.dispatch(one);
        assert_eq!(scene.given(one), ["1.2 f!", "3.1 other", "4.1 p!"]);
        scene.done(one, (4, 1), Outcome::Cancelled);
        assert_eq!(scene.over("pack", "p"), cancelled());
        let heard = vec![record("d", 0, Recorded::Cancel), step("clean up", "1")];
        scene.done(one, (1, 2), progressed(heard, false));
        let records = scene.records(1);
        assert_eq!(records[0], "a 0 workflow failed cancelled");
        assert_eq!(records[3..], ["d 0 cancel failed", "clean up 0 step done 1"]);
        scene.done(one, (1, 2), Outcome::Cancelled);
        assert_eq!(scene.over("fulfil", "f"), cancelled());
        scene.cancel("f");
        let none = scene.try_issue(&cancelling("fulfil"), &[("id", text("none"))]);
        let Err(Failure::Rejected { reason }) = none else { panic!("{none:?}") };
        assert_eq!(reason, "there is no run none of workflow fulfil");
    });
}

/// Goal: each attempt hears of all that has happened in the order in which the run has heard of it,
/// whenever it began, and on a clock that stands still.
#[test]
fn a_run_hears_of_everything_in_one_order() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        let begun = |name: &str| record(name, 0, Recorded::Begun);
        let called = |name: &str| {
            let (kind, result) = ("request".to_owned(), "1".to_owned());
            record(name, 0, Recorded::Done { kind, result })
        };
        let waits = vec![begun("slow"), begun("quick"), wait_for("wait", "shipped", 0)];
        scene.done(one, (1, 1), progressed(waits, false));
        // It happens before the run has heard of anything, and that hears of it later.
        scene.ship("o1");
        scene.done(one, (1, 1), progressed(vec![called("quick")], false));
        scene.done(one, (1, 1), progressed(vec![called("slow")], true));
        scene.dispatch(one);
        let heard = ["quick 0 request done 1", "slow 0 request done 1", "wait 0 event done 1"];
        assert_eq!(scene.records(1), heard);
        scene.done(one, (1, 2), progressed(vec![step("last", "2")], false));
        assert_eq!(scene.records(1)[..3], heard);
        assert_eq!(scene.records(1)[3], "last 0 step done 2");
    });
}

/// Goal: where a run hears that it is cancelled it waits for nothing any more.
#[test]
fn what_a_run_waits_for_may_be_where_it_hears_that_it_is_cancelled() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        let begun = vec![wait_for("wait", "shipped", 50), record("call", 0, Recorded::Begun)];
        scene.done(one, (1, 1), progressed(begun, true));
        scene.cancel("f");
        scene.dispatch(one);
        assert_eq!(scene.given(one), ["1.2 f!"]);
        let cancel = |name: &str| record(name, 0, Recorded::Cancel);
        scene.done(one, (1, 2), progressed(vec![cancel("wait")], false));
        scene.done(one, (1, 2), progressed(vec![cancel("call")], true));
        let heard = ["wait 0 cancel failed", "call 0 cancel failed"];
        assert_eq!(scene.records(1), heard);
        // Nothing of it lets the run go on.
        scene.now_ms += 50;
        scene.ship("o1");
        scene.dispatch(one);
        assert!(scene.given(one).is_empty());
        assert_eq!(scene.records(1), heard);
        assert_eq!(scene.rows(RUNS), ["1 fulfil f 1 waiting 2 2 "]);
    });
}

/// Goal: the run hears that it is cancelled where its code hears it, also where what it waited for
/// has happened meanwhile: the next attempt is told the same. Method: an event comes between a
/// dispatch and what that attempt says, and is there for whoever waits for it afterwards.
#[test]
fn a_run_hears_that_it_is_cancelled_where_what_it_waits_for_has_just_happened() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        scene.done(one, (1, 1), progressed(vec![wait_for("wait", "shipped", 0)], true));
        scene.cancel("f");
        scene.dispatch(one);
        scene.ship("o1");
        assert_eq!(scene.records(1), ["wait 0 event done 1"]);
        let heard = vec![record("wait", 0, Recorded::Cancel)];
        scene.done(one, (1, 2), progressed(heard, false));
        assert_eq!(scene.records(1), ["wait 0 cancel failed"]);
        assert_eq!(scene.rows(RUNS), ["1 fulfil f 1 started 2 1 "], "one record");
        scene.done(one, (1, 2), progressed(vec![wait_for("again", "shipped", 0)], true));
        scene.dispatch(one);
        assert_eq!(scene.records(1), ["wait 0 cancel failed", "again 0 event done 1"]);
    });
}

/// Goal: whoever was given an attempt reads what the run has heard by that, and nothing of before.
#[test]
fn what_a_run_remembers_is_told_as_of_an_attempt() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        let view = scene.server.authority.view().clone();
        let Scene { server, .. } = &mut scene;
        let mut find = |attempt: u64| {
            let found =
                server.rest.serve(&view, || find_records(server.authority.reader(), 1, attempt, 0));
            found.expect("found").is_some()
        };
        assert_eq!([1, 2].map(&mut find), [true, false]);
    });
}

/// Goal: a run that no code fits waits for whoever comes next.
#[test]
fn a_run_that_no_code_fits_waits_for_another_release() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        scene.done(one, (1, 1), Outcome::Stopped { reason: "label is a step".to_owned() });
        scene.dispatch(one);
        assert!(scene.given(one).is_empty());
        assert_eq!(scene.rows(RUNS), ["1 fulfil f 1 stopped 1 0 label is a step"]);
        let two = scene.register();
        scene.dispatch(two);
        assert_eq!(scene.given(two), ["1.2 f"]);
    });
}

/// Goal: a run goes to whoever has code that fits it, also where somebody else of an older release
/// has come first. Method: two handlers; the one whose code fits leaves while the run waits.
#[test]
fn a_run_goes_to_whoever_has_code_that_fits() {
    with_shop(|mut scene| {
        let stopped = || Outcome::Stopped { reason: "label is a step".to_owned() };
        scene.start("f");
        let both = [scene.register(), scene.register()];
        let [one, two] = both;
        scene.dispatch_to(&both);
        scene.done(one, (1, 1), stopped());
        scene.dispatch_to(&both);
        assert_eq!((scene.given(one).len(), scene.given(two)), (0, vec!["1.2 f".to_owned()]));
        assert_eq!(scene.rows(RUNS), ["1 fulfil f 1 started 2 0 "]);
        let sleep = |name: &str| record(name, 0, Recorded::Sleep { ms: 1_000 });
        scene.done(two, (1, 2), progressed(vec![sleep("a")], true));
        scene.now_ms += 1_000;
        scene.dispatch_to(&both);
        assert_eq!(scene.given(two), ["1.3 f"], "and not to the first one, again and again");
        scene.done(two, (1, 3), progressed(vec![sleep("b")], true));

        scene.change(&Change::Deregister(two));
        scene.now_ms += 1_000;
        scene.dispatch_to(&[one]);
        assert_eq!(scene.given(one), ["1.4 f"], "it is asked anew, and says why it cannot");
        scene.done(one, (1, 4), stopped());
        scene.dispatch_to(&[one]);
        assert_eq!(scene.rows(RUNS), ["1 fulfil f 1 stopped 4 2 label is a step"]);
        scene.cancel("f");
        scene.dispatch_to(&[one]);
        assert_eq!(scene.given(one), ["1.5 f!"], "any code may hear that");
    });
}

/// Goal: what cannot be remembered does no harm: the run has failed, or the step, and says why.
#[test]
fn what_cannot_be_remembered_is_told() {
    with_shop(|mut scene| {
        for id in ["a", "b", "c", "d", "e", "f", "g"] {
            scene.start(id);
        }
        let one = scene.register();
        scene.dispatch(one);
        let large = format!("\"{}\"", "x".repeat(RECORD_SIZE_MAX - 2));
        let larger = format!("\"{}\"", "x".repeat(RECORD_SIZE_MAX - 1));
        scene.done(one, (1, 1), progressed(vec![step("large", &large)], false));
        let remembered = scene.records(1);
        assert_eq!(remembered[0].len(), "large 0 step done ".len() + RECORD_SIZE_MAX);
        scene.done(one, (1, 1), returned("no JSON"));
        let reason = |scene: &mut Scene, id: &str| match scene.over("fulfil", id) {
            [Value::Text(state), Value::Text(reason), _] if state == "failed" => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(reason(&mut scene, "a"), "a result is no JSON");
        // Its code was told of it as of what was done.
        scene.done(one, (6, 1), progressed(vec![step("larger", &larger)], false));
        let expected = "a result has 262145 bytes, and may have 262144";
        assert_eq!(reason(&mut scene, "f"), expected);
        scene.done(one, (7, 1), progressed(vec![step("none", "{")], false));
        assert_eq!(reason(&mut scene, "g"), "a result is no JSON");
        scene.done(one, (2, 1), progressed(vec![step("", "1")], false));
        assert!(reason(&mut scene, "b").starts_with("the name of what it records"));
        let args = r#"{"order":1}"#.to_owned();
        scene.done(one, (3, 1), Outcome::Continued { args });
        assert!(reason(&mut scene, "c").starts_with("workflow fulfil cannot go on as new: "));
        let none =
            Outcome::Completed { events: vec![], sends: vec![], starts: vec![], snapshot: None };
        scene.done(one, (4, 1), none);
        assert_eq!(reason(&mut scene, "d"), "it has ended as no workflow does");
        let refused = (0..17).map(|count| record("x", count, Recorded::Send(pay("poor"))));
        scene.done(one, (5, 1), progressed(refused.collect(), false));
        assert_eq!(reason(&mut scene, "e"), "no credit");
    });
}

/// Goal: a run does not grow without end, and what is over is forgotten with all that it remembers.
#[test]
fn runs_are_bounded_and_forgotten() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        let steps = |from: u32, count: u32| {
            let done = || Recorded::Done { kind: "step".to_owned(), result: "1".to_owned() };
            progressed((from..from + count).map(|n| record("s", n, done())).collect(), false)
        };
        for at in 0..9 {
            scene.done(one, (1, 1), steps(at * 1_000, 1_000));
        }
        scene.done(one, (1, 1), steps(9_000, 999));
        // What was begun may end.
        scene.done(one, (1, 1), progressed(vec![record("last", 0, Recorded::Begun)], false));
        let (kind, result) = ("request".to_owned(), "1".to_owned());
        let called = record("last", 0, Recorded::Done { kind, result });
        scene.done(one, (1, 1), progressed(vec![called], false));
        assert_eq!(scene.records(1).len() as u64, WORKFLOW_RECORDS_MAX);
        assert_eq!(scene.rows(RUNS), ["1 fulfil f 1 started 1 10000 "]);
        scene.done(one, (1, 1), steps(10_000, 1));
        let [_, reason, _] = scene.over("fulfil", "f");
        let expected = "it has over 10000 records: let it go on as new, by continueAsNew";
        assert_eq!(reason, text(expected));
        scene.now_ms += Limits::DEFAULT.command_failed_ms + 1;
        scene.dispatch(one);
        assert!(scene.rows(RUNS).is_empty());
        assert!(scene.records(1).is_empty());
        scene.start("f");
        assert_eq!(scene.rows(RUNS).len(), 1, "anew");
    });
}

/// Goal: a workflow that cannot be used is said before any document is touched.
#[test]
fn what_is_wrong_with_a_workflow_is_told() {
    let reason_of = |doctype: &Doctype| {
        let view = View::new(1_000, 0);
        match check(doctype, &view, &FoundRight::default()) {
            Err(DoctypeError::Workflow { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    let of = |workflow: WorkflowDefinition| Doctype { workflows: vec![workflow], ..shop() };
    assert_eq!(reason_of(&of(workflow("order", 1))), "an aggregate has the same name");
    assert_eq!(reason_of(&of(workflow("fulfil", 0))), "its first version is 1");
    let fields = vec![param("bytes", ParamKind::Blob)];
    let blob = WorkflowDefinition { fields, ..workflow("fulfil", 1) };
    assert!(reason_of(&of(blob)).contains("cannot be a blob"));
    let mut taken = shop();
    taken.mutations[0].name = starting("fulfil");
    let view = View::new(1_000, 0);
    let found = check(&taken, &view, &FoundRight::default());
    assert!(matches!(found, Err(DoctypeError::Mutation { .. })), "{found:?}");
    let alone = Doctype { streams: Vec::new(), mutations: Vec::new(), ..shop() };
    assert_eq!(check(&alone, &view, &FoundRight::default()), Ok(()), "without any stream");
}

/// Goal: the end of a request that was begun is no further record, at the bound too.
#[test]
fn the_last_record_of_a_run_may_be_a_request() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        let done = |kind: &str| Recorded::Done { kind: kind.to_owned(), result: "1".to_owned() };
        let most = u32::try_from(WORKFLOW_RECORDS_MAX).expect("few");
        for at in (0..most - 1).step_by(1_000) {
            let to = (at + 1_000).min(most - 1);
            let steps = (at..to).map(|count| record("s", count, done("step"))).collect();
            scene.done(one, (1, 1), progressed(steps, false));
        }
        scene.done(one, (1, 1), progressed(vec![record("call", 0, Recorded::Begun)], false));
        scene.done(one, (1, 1), progressed(vec![record("call", 0, done("request"))], false));
        assert_eq!(scene.rows(RUNS), ["1 fulfil f 1 started 1 10000 "]);
        // What is there already is none either.
        scene.done(one, (1, 1), progressed(vec![record("s", 7, done("step"))], false));
        scene.done(one, (1, 1), returned("1"));
        assert_eq!(scene.rows(RUNS), ["1 fulfil f 1 completed 1 10000 1"]);
    });
}

/// Goal: of two waits for the same, each has an event of its own, whenever they happen.
#[test]
fn each_wait_sees_an_event_of_its_own() {
    with_shop(|mut scene| {
        scene.start("f");
        scene.start("g");
        let one = scene.register();
        scene.dispatch(one);
        let waits = || vec![wait_for("a", "shipped", 0), wait_for("b", "shipped", 0)];
        scene.done(one, (1, 1), progressed(waits(), true));
        scene.done(one, (2, 1), progressed(waits(), true));
        scene.ship("o1");
        for run in [1, 2] {
            assert_eq!(scene.records(run), ["a 0 event done 1", "b 0 event waiting"]);
        }
        scene.ship("o1");
        for run in [1, 2] {
            assert_eq!(scene.records(run), ["a 0 event done 1", "b 0 event done 2"]);
        }
    });
}

/// Goal: in a document that is full there is room for verdicts still, whatever runs remember.
#[test]
fn what_runs_remember_leaves_room_for_verdicts() {
    const PAGES: usize = 100;
    let limits = Limits { document_pages_max: PAGES, verdict_pages_max: 40, ..Limits::DEFAULT };
    with_limited_shop(limits, |mut scene| {
        for id in ["f", "g", "h", "i"] {
            scene.start(id);
        }
        let one = scene.register();
        scene.dispatch(one);
        let large = |size| format!("\"{}\"", "x".repeat(size));
        let full = "over the budget of 100 pages in a document";
        let step = |nth| {
            let (kind, result) = ("step".to_owned(), large(20_000));
            progressed(vec![record("s", nth, Recorded::Done { kind, result })], false)
        };
        for nth in 0..20 {
            scene.complete(one, (1, 1), step(nth));
        }
        assert!(scene.rows(RUNS)[0].ends_with(full), "{:?}", scene.rows(RUNS));
        scene.done(one, (2, 1), returned(&large(120_000)));
        let args = format!(r#"{{"order":{}}}"#, large(120_000));
        scene.done(one, (3, 1), Outcome::Continued { args: args.clone() });
        let over = [text("failed"), text(full), Value::Null];
        assert_eq!([scene.over("fulfil", "g"), scene.over("fulfil", "h")], [over.clone(), over]);
        // A device that has more room predicts that they are started.
        for id in ["a", "b", "c", "d"] {
            scene.try_start("fulfil", id, &args).expect("predicted");
        }
        converge(&mut scene.server, &mut scene.device);
        let rejected = Verdict::Rejected { reason: full.to_owned() };
        let verdicts = scene.device.verdicts();
        let rejected = verdicts.iter().filter(|(_, verdict)| *verdict == rejected).count();
        assert!(rejected >= 3, "{verdicts:?}");
        assert!(scene.server.authority.view().db_pages() as usize <= PAGES + 2);
    });
}

/// Goal: a result is not copied without bounds. Method: a run waits for another one many times.
#[test]
fn what_many_wait_for_is_bounded() {
    let limits = Limits { mutation_pages_max: 200, ..Limits::DEFAULT };
    with_limited_shop(limits, |mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        let start = |nth| record("p", nth, Recorded::Start(child("p")));
        scene.done(one, (1, 1), progressed((0..100).map(start).collect(), true));
        scene.dispatch(one);
        scene.done(one, (2, 1), returned(&format!("\"{}\"", "x".repeat(20_000))));
        let why = "over the budget of 200 changed pages";
        assert_eq!(scene.over("pack", "p"), [text("failed"), text(why), Value::Null]);
        scene.dispatch(one);
        assert_eq!(scene.given(one), ["1.2 f"]);
        assert_eq!(scene.records(1)[99], format!("p 99 workflow failed {why}"));
    });
}

/// Goal: what a run remembers is read and forgotten in parts, by its bytes too. Method: results
/// that lie on many pages, and how many are asked for.
#[test]
fn large_results_are_read_and_forgotten_in_parts() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        let large = format!("\"{}\"", "é".repeat(RECORD_SIZE_MAX / 2 - 1));
        for nth in 0..40 {
            let (kind, result) = ("step".to_owned(), large.clone());
            let done = vec![record("s", nth, Recorded::Done { kind, result })];
            scene.done(one, (1, 1), progressed(done, false));
        }
        let view = scene.server.authority.view().clone();
        view.evict();
        let (mut fetched, mut kth) = (0, 0);
        let rows = loop {
            match find_records(scene.server.authority.reader(), 1, 1, 0) {
                Run::Done(rows) => break rows.expect("it was given"),
                Run::Failed(failure) => panic!("{failure}"),
                Run::Fault(pgid) => {
                    let wanted = view.to_fetch(pgid, kth);
                    kth += 1;
                    fetched += wanted.len();
                    let pages = &scene.server.rest.0.pages;
                    view.fill(wanted.into_iter().map(|it| (it, pages[&it].clone())).collect());
                }
            }
        };
        assert_eq!(rows.decode().len(), 5, "a mebibyte, and one more");
        assert!(fetched < 1_500, "{fetched} pages");
        view.evict();
        assert_eq!(scene.records(1).len(), 40);
        scene.done(one, (1, 1), returned("1"));
        scene.now_ms += Limits::DEFAULT.command_completed_ms + 1;
        let before = scene.server.entries.len();
        scene.dispatch(one);
        assert!(scene.server.entries.len() - before >= 3, "4 MiB at a time");
        assert!(scene.rows(RUNS).is_empty() && scene.records(1).is_empty());
    });
}

/// Goal: no event is lost between the last one that a run has heard of and its going on as new.
#[test]
fn a_run_that_goes_on_as_new_misses_no_event() {
    with_shop(|mut scene| {
        scene.ship("o1");
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        let again = || Outcome::Continued { args: r#"{"order":"o1"}"#.to_owned() };
        // Before it has waited for any.
        scene.ship("o1");
        scene.done(one, (1, 1), again());
        scene.dispatch(one);
        scene.done(one, (2, 1), progressed(vec![wait_for("a", "shipped", 0)], true));
        scene.dispatch(one);
        assert_eq!(scene.records(2), ["a 0 event done 2"]);
        // Behind the last one that it has heard of, and while it waits without having heard.
        scene.done(one, (2, 2), progressed(vec![wait_for("b", "shipped", 0)], false));
        scene.ship("o1");
        scene.ship("o1");
        scene.done(one, (2, 2), again());
        scene.dispatch(one);
        let waits = vec![wait_for("a", "shipped", 0), wait_for("b", "shipped", 0)];
        scene.done(one, (3, 1), progressed(waits, true));
        assert_eq!(scene.records(3), ["a 0 event done 3", "b 0 event done 4"]);
    });
}

/// Goal: a run and a command are two things, also where one release calls an aggregate as another
/// one calls a workflow.
#[test]
fn runs_and_commands_of_one_name_are_told_apart() {
    for pool in POOLS {
        let mut old = shop();
        old.workflows.retain(|workflow| workflow.name == "fulfil");
        let command = |name: &str| CommandDefinition {
            name: name.to_owned(),
            fields: vec![param("order", ParamKind::Text)],
            received: Vec::new(),
            ..old.streams[0].commands[0].clone()
        };
        let commands = vec![command("1"), command("do")];
        old.streams.push(StreamDefinition { name: "pack".to_owned(), events: vec![], commands });
        let new = shop();
        assert!(new.succeeds(&old) && old.succeeds(&new));
        let mut server = Server::new(9, pool, &old);
        server.learn(&new);
        let mut device = Device::following(1, pool, &old, &server);
        device.reopen(&[&old, &new]);
        let mut scene = Scene { doctype: new, server, device, now_ms: 1_000_000 };
        let args = r#"{"order":"o1"}"#;
        let send = |scene: &mut Scene, id: &str, name: &str| {
            let args = [("stream", text(id)), ("args", text(args)), ("key", text(id))];
            scene.device.issue(&old, &sending("pack", name), &args);
            scene.converge();
        };
        send(&mut scene, "x", "do");
        scene.try_start("pack", "x", args).expect("started");
        let none = scene.try_issue(&cancelling("pack"), &[("id", text("none"))]);
        assert!(none.is_err());
        scene.converge();
        scene.try_start("pack", "y", args).expect("started");
        send(&mut scene, "y", "do");
        let both = "select group_concat(it, ' ') from
                    (select 'run ' || id as it from tidelog_workflows union all
                     select command || ' ' || stream from tidelog_commands)";
        assert_eq!(scene.rows(both), ["run x run y do x do y"]);
        // One is over, and the other one's turn has come.
        scene.try_issue(&cancelling("pack"), &[("id", text("y"))]).expect("cancelled");
        scene.converge();
        let one = scene.register();
        let kinds =
            ["do", "1"].map(|name| TaskKind { aggregate: "pack".into(), name: name.into() });
        let free = vec![Free { instance: one, kinds: kinds.to_vec(), concurrency: 9 }];
        scene.change(&Change::Dispatch(free));
        assert_eq!(scene.given(one), ["1.1 x", "4.1 y"]);
    }
}

/// Goal: a run remembers what a run does, and nothing else.
#[test]
fn what_a_run_has_done_is_a_step_or_a_request() {
    with_shop(|mut scene| {
        let one = scene.register();
        for (nth, kind) in ["event", "workflow", "sleep", ""].into_iter().enumerate() {
            scene.start(kind.get(..1).unwrap_or("none"));
            scene.dispatch(one);
            let (kind, result) = (kind.to_owned(), "7".to_owned());
            let done = match nth % 2 {
                0 => Recorded::Done { kind, result },
                _ => Recorded::Failed { kind, reason: result },
            };
            let run = nth as u64 + 1;
            scene.done(one, (run, 1), progressed(vec![record("a", 0, done)], false));
            assert!(scene.records(run).is_empty());
        }
        let why = "what it records as done is neither a step nor a request";
        let reasons = scene.rows("select reason from tidelog_workflows where state = 'failed'");
        assert_eq!(reasons, [why; 4]);
    });
}

/// Goal: a run that is cancelled as it stops hears of it, once.
#[test]
fn a_run_that_is_cancelled_as_it_stops_hears_of_it() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        scene.cancel("f");
        let stopped = || Outcome::Stopped { reason: "no".to_owned() };
        scene.done(one, (1, 1), stopped());
        scene.dispatch(one);
        assert_eq!(scene.given(one), ["1.2 f!"]);
        scene.done(one, (1, 2), stopped());
        scene.dispatch(one);
        assert!(scene.given(one).is_empty());
        assert_eq!(scene.rows(RUNS), ["1 fulfil f 1 stopped 2 0 no"]);
    });
}

/// Goal: to cancel a run is bounded, however many it has started.
#[test]
fn so_many_runs_are_cancelled_with_one() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        let start = |nth: u32| record("p", nth, Recorded::Start(child(&nth.to_string())));
        for from in [0, 600] {
            let records = (from..from + 600).map(start).collect();
            scene.done(one, (1, 1), progressed(records, false));
        }
        scene.cancel("f");
        let count = "select count(*) || '' from tidelog_workflows where is_cancelled";
        assert_eq!(scene.rows(count), ["1024"]);
        let over = "select count(*) || '' from tidelog_records where state = 'failed'";
        assert_eq!(scene.rows(over), ["1023"]);
    });
}

/// Goal: what waits costs nothing where nothing happens to it. Method: the steps of SQLite, with
/// few and with many that sleep, and wait for events and for others.
#[test]
fn an_event_and_a_dispatch_cost_the_same_however_many_wait() {
    // Where pages are fetched the steps are those of the runs that fault, too.
    let mut scene = Scene::new(usize::MAX, Limits::DEFAULT);
    let one = scene.register();
    let mut steps = Vec::new();
    let mut run = 0;
    for count in [10, 300] {
        for _ in 0..count {
            run += 1;
            scene.start(&format!("f{run}"));
        }
        scene.dispatch(one);
        for task in run + 1 - count..=run {
            let [aggregate, event] = ["order", "shipped"].map(str::to_owned);
            let wait = Recorded::WaitFor {
                aggregate,
                stream: format!("o{task}"),
                event,
                timeout_ms: 90_000,
            };
            let sleep = Recorded::Sleep { ms: 80_000 };
            let waits = vec![record("a", 0, wait), record("b", 0, sleep)];
            scene.done(one, (task, 1), progressed(waits, true));
        }
        scene.dispatch(one);
        scene.server.authority.take_steps();
        scene.dispatch(one);
        let dispatched = scene.server.authority.take_steps();
        scene.ship("none");
        steps.push([dispatched, scene.server.authority.take_steps()]);
    }
    let is_same = |of: usize| steps[1][of] < steps[0][of] + 500;
    assert!(is_same(0) && is_same(1), "{steps:?}");
}

/// Goal: what a run was started with, and that it is cancelled, stays known however often it goes
/// on as new.
#[test]
fn a_run_that_goes_on_as_new_is_the_same_to_others() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        for run in 1..=3 {
            scene.dispatch(one);
            if run == 3 {
                scene.cancel("f");
            }
            let args = format!(r#"{{"order":"again{run}"}}"#);
            scene.done(one, (run, 1), Outcome::Continued { args });
        }
        scene.start("f");
        assert!(scene.try_start("fulfil", "f", r#"{"order":"again1"}"#).is_err());
        assert_eq!(scene.rows(RUNS).len(), 4);
        scene.dispatch(one);
        assert_eq!(scene.given(one), ["4.1 f!"]);
    });
}

/// Goal: a run hears of as much at a time as is bounded, and of all in the end.
#[test]
fn a_run_hears_of_large_results_in_parts() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        let start = |nth: u32| record("p", nth, Recorded::Start(child(&nth.to_string())));
        scene.done(one, (1, 1), progressed((0..6).map(start).collect(), true));
        scene.dispatch(one);
        let large = format!("\"{}\"", "x".repeat(200_000));
        (2..8).for_each(|run| scene.done(one, (run, 1), returned(&large)));
        let unheard = "select count(*) || '' from tidelog_records where time is null";
        for (attempt, count) in [(2, "4"), (3, "2"), (4, "0")] {
            scene.dispatch(one);
            assert_eq!(scene.given(one), [format!("1.{attempt} f")]);
            assert_eq!(scene.rows(unheard), [count]);
            scene.done(one, (1, attempt), progressed(vec![], true));
        }
        scene.dispatch(one);
        assert!(scene.given(one).is_empty());
    });
}

/// Goal: the time of a wait that is over comes to nothing.
#[test]
fn what_a_run_has_heard_of_stays_as_it_was() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        scene.done(one, (1, 1), progressed(vec![wait_for("a", "shipped", 50)], true));
        scene.ship("o1");
        assert_eq!(scene.dispatch(one), None, "nothing is due any more");
        scene.done(one, (1, 2), progressed(vec![wait_for("b", "paid", 0)], true));
        scene.now_ms += 50;
        scene.dispatch(one);
        assert!(scene.given(one).is_empty());
        let times = "select time || '' from tidelog_records where name = 'a'";
        assert_eq!(scene.rows(times), ["1000000"]);
    });
}

/// Goal: however a run has come to its end, it is forgotten.
#[test]
fn runs_that_were_cancelled_or_go_on_are_forgotten() {
    with_shop(|mut scene| {
        scene.start("f");
        scene.start("g");
        scene.cancel("g");
        let one = scene.register();
        scene.dispatch(one);
        let args = r#"{"order":"o1"}"#.to_owned();
        scene.done(one, (1, 1), Outcome::Continued { args });
        scene.now_ms += Limits::DEFAULT.command_completed_ms + 1;
        scene.dispatch(one);
        assert_eq!(scene.rows(RUNS), ["3 fulfil f 1 started 1 0 "]);
    });
}

/// Goal: a run that is cancelled before anybody has begun it is kept as long as others, and no
/// longer, by whichever clock it was cancelled. Method: by one a year behind, and one a year ahead.
#[test]
fn a_run_that_is_cancelled_by_a_wrong_clock_is_kept_as_long_as_others() {
    const YEAR_MS: u64 = 365 * 24 * 3_600_000;
    for device_ms in [0, 2 * YEAR_MS] {
        with_shop(|mut scene| {
            (scene.now_ms, scene.device.clock_ms) = (YEAR_MS, device_ms);
            // The authority knows the document, before it is cancelled.
            let one = scene.register();
            scene.start("f");
            scene.change(&Change::Dispatch(Vec::new()));
            scene.cancel("f");
            let ended = "select (abs(ended - time) < 10) || '' from tidelog_workflows";
            assert_eq!(scene.rows(ended), ["1"], "by the clock of the device, until it is seen");
            let run = "1 fulfil f 1 cancelled 0 0 cancelled";
            scene.dispatch(one);
            assert_eq!(
                scene.rows("select ended || '' from tidelog_workflows"),
                [format!("{YEAR_MS}")]
            );
            scene.now_ms += Limits::DEFAULT.command_key_ms;
            scene.dispatch(one);
            scene.start("f");
            assert_eq!(scene.rows(RUNS), [run], "its id counts");
            scene.now_ms += 1;
            scene.dispatch(one);
            assert_eq!(scene.outcome("fulfil", "f"), FoundOutcome::None);
            scene.now_ms = YEAR_MS + Limits::DEFAULT.command_completed_ms;
            scene.dispatch(one);
            assert_eq!(scene.rows(RUNS), [run]);
            scene.now_ms += 1;
            scene.dispatch(one);
            assert!(scene.rows(RUNS).is_empty());
        });
    }
}
