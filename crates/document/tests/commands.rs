//! Commands: sent by devices, decided by the authority.

mod common;

use common::*;
use tidelog_document::{
    Authority, Change, Changed, CommandDefinition, CommandRef, Committed, Completion, Doctype,
    DoctypeError, Endings, Erasable, ErasedUpTo, EventDefinition, FoundCommands, FoundOutcome,
    FoundRight, Free, InstanceId, Intervened, Intervention, MutationDefinition, NewCommand,
    NewEvent, NewSnapshot, Outcome, Param, ParamKind, StreamDefinition, TaskKind, Verdict,
    WantedCommands, check, find_commands, find_endings, find_given, find_outcome, hash_of, sending,
};
use tidelog_sqlite::{Failure, SystemQueries as _, View};
use tidelog_sync::{CodedPage, CompletionAnswer};
use tidelog_types::limits::Limits;
use tidelog_types::{CallId, ClientId, JournalId, Lineage, Position, Value};

fn param(name: &str, kind: ParamKind) -> Param {
    Param { name: name.to_owned(), kind, optional: false }
}

fn texts_of(sql: &[&str]) -> Vec<String> {
    sql.iter().map(ToString::to_string).collect()
}

fn command(
    name: &str,
    fields: Vec<Param>,
    received: &[&str],
    failed: &[&str],
) -> CommandDefinition {
    CommandDefinition {
        name: name.to_owned(),
        fields,
        received: texts_of(received),
        failed: texts_of(failed),
        retries: 2,
        timeout_ms: 30_000,
    }
}

/// Orders that are placed and paid, of no more than a hundred in all.
fn shop() -> Doctype {
    let event = |name: &str, fields, project: &[&str]| EventDefinition {
        name: name.to_owned(),
        fields,
        upcasts: Vec::new(),
        project: texts_of(project),
    };
    let note =
        "insert into tidelog_events (aggregate, stream, type) values ('order', :id, 'noted')";
    Doctype {
        name: "shop".to_owned(),
        migrations: vec![
            "create table orders (id text primary key, state text, items integer, by text) strict;
             create table total (sum integer check (sum <= 100)) strict;
             insert into total values (0)"
                .to_owned(),
        ],
        mutations: vec![MutationDefinition {
            name: "note".to_owned(),
            params: vec![param("id", ParamKind::Text)],
            sql: vec![note.to_owned()],
        }],
        streams: vec![StreamDefinition {
            name: "order".to_owned(),
            events: vec![
                event("noted", vec![], &[]),
                event(
                    "placed",
                    vec![param("items", ParamKind::Integer)],
                    &[
                        "update orders set state = 'placed', items = :items where id = :stream",
                        "update total set sum = sum + :items",
                    ],
                ),
            ],
            commands: vec![
                command("pay", vec![], &[], &[]),
                command(
                    "place",
                    vec![param("items", ParamKind::Integer)],
                    &["insert into orders values (:stream, 'sent', :items, :user || :key)
                       on conflict (id) do update set state = 'sent'"],
                    &["update orders set state = :reason where id = :stream"],
                ),
            ],
        }],
        workflows: Vec::new(),
    }
}

/// What is handled.
fn kinds() -> Vec<TaskKind> {
    let kind = |name: &str| TaskKind { aggregate: "order".to_owned(), name: name.to_owned() };
    vec![kind("pay"), kind("place")]
}

/// An authority, and a device that follows it.
struct Scene {
    doctype: Doctype,
    server: Server,
    device: Device,
    now_ms: u64,
}

fn with_shop(scenario: impl Fn(Scene)) {
    with_limited_shop(Limits::DEFAULT, scenario);
}

fn with_limited_shop(limits: Limits, scenario: impl Fn(Scene)) {
    POOLS.into_iter().for_each(|pool| scenario(limited_shop(pool, limits)));
}

fn limited_shop(pool: usize, limits: Limits) -> Scene {
    let doctype = shop();
    let server = Server::with_limits(9, pool, &doctype, limits);
    let device = Device::following(1, pool, &doctype, &server);
    Scene { doctype, server, device, now_ms: 1_000_000 }
}

impl Scene {
    fn try_send(&mut self, stream: &str, name: &str, args: &str, key: &str) -> Result<(), Failure> {
        let name = sending("order", name);
        let args = [("stream", text(stream)), ("args", text(args)), ("key", text(key))];
        self.device.try_issue(&self.doctype, &name, &args).map(drop)
    }

    /// Sent by the device, and received by the authority.
    fn send(&mut self, stream: &str, name: &str, args: &str, key: &str) {
        self.try_send(stream, name, args, key).expect("it is sent");
        self.converge();
    }

    fn converge(&mut self) {
        follow(&self.server, &mut self.device);
        converge(&mut self.server, &mut self.device);
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
        changed
    }

    fn register(&mut self) -> InstanceId {
        let (client, user, kinds) = (ClientId([7; 16]), "ada".to_owned(), kinds());
        match self.change(&Change::Register { client, user, kinds }) {
            Changed::Registered(instance) => instance,
            other => panic!("{other:?}"),
        }
    }

    fn dispatch(&mut self, instance: InstanceId, concurrency: u32) -> Option<u64> {
        self.dispatch_to(&[instance], concurrency)
    }

    fn dispatch_to(&mut self, instances: &[InstanceId], concurrency: u32) -> Option<u64> {
        let free =
            |instance: &InstanceId| Free { instance: *instance, kinds: kinds(), concurrency };
        let change = Change::Dispatch(instances.iter().map(free).collect());
        loop {
            match self.change(&change) {
                Changed::Dispatched { again: true, .. } => {}
                Changed::Dispatched { due_ms, .. } => return due_ms,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Number, attempt and stream of what is given to it.
    fn given(&mut self, instance: InstanceId) -> Vec<(i64, i64, String)> {
        let view = self.server.authority.view().clone();
        let Self { server, .. } = self;
        let rows = server.rest.serve(&view, || find_given(server.authority.reader(), instance));
        let rows = rows.expect("found").decode();
        rows.into_iter()
            .map(|row| match (&row[0], &row[9], &row[2]) {
                (Value::Integer(number), Value::Integer(attempt), Value::Text(stream)) => {
                    (*number, *attempt, stream.clone())
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn outcome(&mut self, stream: &str, name: &str, key: &str) -> FoundOutcome {
        let view = self.server.authority.view().clone();
        let Self { server, .. } = self;
        let names = ["order", stream, name, key];
        server
            .rest
            .serve(&view, || find_outcome(server.authority.reader(), names))
            .expect("looked up")
    }

    fn endings(&mut self, after: i64) -> Endings {
        let view = self.server.authority.view().clone();
        let Self { server, .. } = self;
        let found = server.rest.serve(&view, || find_endings(server.authority.reader(), after));
        found.expect("looked up")
    }

    fn complete(
        &mut self,
        instance: InstanceId,
        [command, attempt, position]: [u64; 3],
        outcome: Outcome,
    ) -> CompletionAnswer {
        let completion = Completion { task: command, attempt, position, outcome };
        match self.change(&Change::Complete { instance, completion }) {
            Changed::Completed(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// Rows of a table that no query sees.
    fn count(&mut self, table: &str) -> i64 {
        let sql = format!("select count(*) from {table}");
        let view = self.server.authority.view().clone();
        let Self { server, .. } = self;
        let rows = server.rest.serve(&view, || server.authority.reader().query_system(&sql, &[]));
        match rows.expect("counted")[0][0] {
            Value::Integer(count) => count,
            ref other => panic!("{other:?}"),
        }
    }

    /// What the device sees, once it has heard.
    fn rows(&mut self, sql: &str) -> Vec<String> {
        follow(&self.server, &mut self.device);
        let rows = self.device.query(sql);
        let cell = |row: Vec<Value>| match row.into_iter().next() {
            Some(Value::Text(text)) => text,
            other => panic!("{other:?}"),
        };
        rows.into_iter().map(cell).collect()
    }
}

fn dispatching(instance: InstanceId, concurrency: u32) -> Change {
    Change::Dispatch(vec![Free { instance, kinds: kinds(), concurrency }])
}

fn placed(items: i64) -> Outcome {
    let data = format!("{{\"items\":{items}}}");
    let events = vec![NewEvent { name: "placed".to_owned(), data }];
    Outcome::Completed { events, sends: Vec::new(), starts: Vec::new(), snapshot: None }
}

/// The same, and what the events before it come to.
fn placed_with(name: &str, state: &str) -> Outcome {
    let Outcome::Completed { events, sends, starts, .. } = placed(1) else { unreachable!() };
    let snapshot = Some(NewSnapshot { name: name.to_owned(), state: state.to_owned() });
    Outcome::Completed { events, sends, starts, snapshot }
}

fn failed(reason: &str, is_final: bool) -> Outcome {
    Outcome::Failed { reason: reason.to_owned(), is_final }
}

const COMMANDS: &str = "select number || ' ' || stream || ' ' || command || ' ' || state || ' ' ||
                        attempt || ' ' || coalesce(first || '-' || last, reason, '')
                        from tidelog_commands order by number";

/// Goal: a command is seen where it is sent at once, with what follows from its receipt, and the
/// authority makes the same of it. Method: sent by a device, before and after it was received; then
/// given, completed, and told.
#[test]
fn a_command_is_received_given_and_completed() {
    with_shop(|mut scene| {
        scene.try_send("o1", "place", r#"{"items": 3}"#, "k").expect("sent");
        let seen = scene.device.query(COMMANDS);
        assert_eq!(seen, [[text("1 o1 place received 0 ")]]);
        let image = scene.device.image();
        scene.converge();
        assert_eq!(scene.device.image(), image, "what was predicted is what was decided");
        let one = scene.register();
        assert_eq!(scene.dispatch(one, 4), Some(1_030_000));
        assert_eq!(scene.given(one), [(1, 1, "o1".to_owned())]);
        assert_eq!(scene.outcome("o1", "place", "k"), FoundOutcome::Pending);
        assert_eq!(scene.complete(one, [1, 1, 0], placed(3)), CompletionAnswer::Done);
        assert_eq!(scene.rows(COMMANDS), ["1 o1 place completed 1 1-1"]);
        assert_eq!(scene.rows("select state || items from orders"), ["placed3"]);
        let causes = "select cause || time || data from tidelog_events";
        assert_eq!(scene.rows(causes), [r#"command:11000000{"items":3}"#]);
        let FoundOutcome::Over(rows) = scene.outcome("o1", "place", "k") else { panic!("over") };
        let [number, state, reason, first, last, _] = &rows.decode()[0][..] else {
            panic!("a row")
        };
        let one = Value::Integer(1);
        assert_eq!([number, first, last], [&one, &one, &one]);
        assert_eq!((state, reason), (&text("completed"), &Value::Null));
        assert_eq!(scene.outcome("o1", "place", "other"), FoundOutcome::None);
    });
}

/// Goal: of two attempts one counts. Method: the instance is taken for gone and another one is
/// given the command; what comes of the first attempt later, or of no attempt, changes nothing.
#[test]
fn late_foreign_and_invented_completions_are_refused() {
    with_shop(|mut scene| {
        scene.send("o1", "place", r#"{"items": 3}"#, "k");
        let [one, two] = [scene.register(), scene.register()];
        scene.dispatch(one, 1);
        scene.change(&Change::Deregister(one));
        scene.dispatch(two, 1);
        assert_eq!(scene.given(two), [(1, 2, "o1".to_owned())]);
        let position = scene.server.authority.position();
        for (instance, attempt) in [
            (one, [1, 1, 0]),
            (one, [1, 2, 0]),
            (two, [1, 1, 0]),
            (two, [1, 3, 0]),
            (two, [2, 1, 0]),
            (InstanceId(77), [1, 2, 0]),
        ] {
            let answer = scene.complete(instance, attempt, placed(3));
            assert_eq!(answer, CompletionAnswer::Late, "{instance} {attempt:?}");
        }
        assert_eq!(scene.complete(two, [1, 2, 1], placed(3)), CompletionAnswer::Stale);
        assert_eq!(scene.server.authority.position(), position, "no entry says any of it");
        assert_eq!(scene.complete(two, [1, 2, 0], placed(3)), CompletionAnswer::Done);
        assert_eq!(scene.complete(two, [1, 2, 0], placed(3)), CompletionAnswer::Late, "again");
        assert_eq!(scene.rows("select type from tidelog_events"), ["placed"]);
    });
}

/// Goal: state that a handler decides by is that of all events before. Method: a mutation records
/// one while it works.
#[test]
fn what_was_decided_by_an_older_state_is_decided_anew() {
    with_shop(|mut scene| {
        scene.send("o1", "place", r#"{"items": 3}"#, "k");
        let one = scene.register();
        scene.dispatch(one, 1);
        scene.device.issue(&scene.doctype.clone(), "note", &[("id", text("o1"))]);
        scene.converge();
        assert_eq!(scene.complete(one, [1, 1, 0], placed(3)), CompletionAnswer::Stale);
        assert_eq!(scene.complete(one, [1, 1, 1], placed(3)), CompletionAnswer::Done);
        assert_eq!(scene.rows("select type from tidelog_events"), ["noted", "placed"]);
    });
}

/// Goal: a stream's commands run one after the other in the order of their receipt, others beside
/// them.
#[test]
fn commands_of_a_stream_wait_for_each_other() {
    with_shop(|mut scene| {
        for (stream, key) in [("a", "1"), ("a", "2"), ("b", "3"), ("a", "4")] {
            scene.send(stream, "place", r#"{"items": 1}"#, key);
        }
        let one = scene.register();
        scene.dispatch(one, 4);
        assert_eq!(scene.given(one), [(1, 1, "a".to_owned()), (3, 1, "b".to_owned())]);
        assert_eq!(scene.complete(one, [1, 1, 0], placed(1)), CompletionAnswer::Done);
        scene.dispatch(one, 1);
        assert_eq!(scene.given(one), [(3, 1, "b".to_owned())], "it has no room for more");
        scene.dispatch(one, 2);
        assert_eq!(scene.given(one), [(2, 1, "a".to_owned()), (3, 1, "b".to_owned())]);
        assert_eq!(scene.complete(one, [2, 1, 1], failed("no", true)), CompletionAnswer::Done);
        scene.dispatch(one, 2);
        assert_eq!(scene.given(one), [(3, 1, "b".to_owned()), (4, 1, "a".to_owned())]);
    });
}

/// Goal: an attempt that fails is tried again later, as often as the app says, and then the command
/// has failed, with what follows from that; a final failure at once.
#[test]
fn attempts_that_fail_are_tried_again_and_then_given_up() {
    with_shop(|mut scene| {
        scene.send("o1", "place", r#"{"items": 3}"#, "k");
        scene.send("o2", "place", r#"{"items": 3}"#, "k");
        let one = scene.register();
        scene.dispatch(one, 2);
        assert_eq!(scene.complete(one, [2, 1, 0], failed("never", true)), CompletionAnswer::Done);
        assert_eq!(scene.complete(one, [1, 1, 0], failed("busy", false)), CompletionAnswer::Done);
        assert_eq!(scene.dispatch(one, 2), Some(1_001_000), "after a second");
        assert_eq!(scene.given(one), []);
        scene.now_ms += 1_000;
        assert_eq!(scene.dispatch(one, 2), Some(1_031_000), "so long it may take");
        // It takes too long, which is a failure too.
        scene.now_ms += 30_000;
        assert_eq!(scene.dispatch(one, 2), Some(1_033_000), "twice as long a pause");
        scene.now_ms += 2_000;
        scene.dispatch(one, 2);
        assert_eq!(scene.given(one), [(1, 3, "o1".to_owned())]);
        assert_eq!(scene.complete(one, [1, 3, 0], failed("busy", false)), CompletionAnswer::Done);
        assert_eq!(scene.rows(COMMANDS), ["1 o1 place failed 3 busy", "2 o2 place failed 1 never"]);
        assert_eq!(scene.rows("select id || state from orders"), ["o1busy", "o2never"]);
        assert_eq!(scene.dispatch(one, 2), None);
    });
}

/// Goal: whoever fails a command does not use up its retries while somebody else has room for it.
/// Method: two handlers; one that is alone; and three of whom each has failed once.
#[test]
fn a_command_that_failed_is_given_to_somebody_else() {
    with_shop(|mut scene| {
        scene.send("o1", "pay", "{}", "k");
        let all = [scene.register(), scene.register()];
        let [one, two] = all;
        let mine = |attempt| vec![(1, attempt, "o1".to_owned())];
        scene.dispatch_to(&all, 1);
        assert_eq!(scene.given(one), mine(1));
        scene.complete(one, [1, 1, 0], failed("busy", false));
        scene.now_ms += 1_000;
        scene.dispatch_to(&all, 1);
        assert_eq!(scene.given(two), mine(2), "the other one is asked");
        // It hears nothing, and takes too long.
        scene.now_ms += 30_000;
        scene.dispatch_to(&all, 1);
        scene.now_ms += 2_000;
        scene.dispatch_to(&[two, one], 1);
        assert_eq!(scene.given(one), mine(3), "each has failed once, and the other one last");
        scene.complete(one, [1, 3, 0], placed(1));

        scene.send("o1", "pay", "{}", "k2");
        scene.dispatch_to(&[one], 1);
        scene.complete(one, [2, 1, 1], failed("busy", false));
        scene.now_ms += 1_000;
        scene.send("o2", "pay", "{}", "k2");
        scene.dispatch_to(&[two], 1);
        assert_eq!(scene.given(two).len(), 1);
        scene.dispatch_to(&all, 1);
        assert!(scene.given(one).len() == 1, "the other one has no room");
        assert_eq!(scene.count("_tidelog_tried"), 1, "nothing is kept of what is over");
    });
}

/// Goal: a handler of an older release fails no command that a newer one can decide, and where
/// there is none the command waits for it. Method: two that do not know an event, and one that
/// does, that comes later.
#[test]
fn a_command_goes_to_a_handler_that_knows_its_events_or_waits_for_one() {
    with_shop(|mut scene| {
        let stopped = || Outcome::Stopped { reason: "no event packed".to_owned() };
        for key in ["k", "behind"] {
            scene.send("o1", "pay", "{}", key);
        }
        let (one, two) = (scene.register(), scene.register());
        scene.dispatch_to(&[one, two], 9);
        assert_eq!(scene.complete(one, [1, 1, 0], stopped()), CompletionAnswer::Done);
        scene.dispatch_to(&[one, two], 9);
        assert_eq!(scene.given(two), [(1, 2, "o1".to_owned())], "at once, and not to the same");
        scene.complete(two, [1, 2, 0], stopped());
        assert_eq!(scene.dispatch_to(&[one, two], 9), None, "nobody is left, nor will be by time");
        let stopped_at = |attempt| {
            let first = format!("1 o1 pay stopped {attempt} no event packed");
            [first, "2 o1 pay received 0 ".to_owned()]
        };
        assert_eq!(scene.rows(COMMANDS), stopped_at(2));

        let three = scene.register();
        scene.dispatch_to(&[one, two, three], 9);
        assert_eq!(scene.given(three), [(1, 3, "o1".to_owned())]);
        scene.complete(three, [1, 3, 0], failed("busy", false));
        scene.now_ms += 1_000;
        scene.dispatch_to(&[one, two, three], 9);
        assert_eq!(scene.given(three), [(1, 4, "o1".to_owned())], "the others cannot");
        scene.change(&Change::Deregister(three));
        assert_eq!(scene.dispatch_to(&[one, two], 9), None);
        assert_eq!(scene.rows(COMMANDS)[0], "1 o1 pay stopped 4 busy");

        // It has failed but once: as many retries are left as if nobody else had been asked.
        let four = scene.register();
        scene.dispatch_to(&[one, two, four], 9);
        scene.complete(four, [1, 5, 0], failed("busy", false));
        scene.now_ms += 2_000;
        scene.dispatch_to(&[one, two, four], 9);
        scene.complete(four, [1, 6, 0], placed(1));
        assert_eq!(scene.count("_tidelog_tried"), 0, "nothing is kept of what is over");
        scene.dispatch_to(&[one], 9);
        scene.complete(one, [2, 1, 1], stopped());
        scene.change(&Change::Deregister(two));
        scene.change(&Change::Deregister(four));
        assert_eq!(scene.rows(COMMANDS)[1], "2 o1 pay stopped 1 it fits no code");
        assert_eq!(scene.cancel(2), Intervened::Done(2), "an operator may end it");
        scene.change(&Change::Deregister(one));
        let left = ["_tidelog_handled", "_tidelog_tried"].map(|table| scene.count(table));
        assert_eq!(left, [0, 0], "nor of who is gone");
    });
}

/// Goal: what waits for other code costs nobody else anything. Method: many commands that are
/// stopped, and the steps of a dispatch, where no page that it needs has to be fetched amid it.
#[test]
fn a_dispatch_costs_the_same_however_many_are_stopped() {
    let mut scene = limited_shop(usize::MAX, Limits::DEFAULT);
    let one = scene.register();
    let mut steps = Vec::new();
    for many in [10, 300] {
        for nth in 0..many {
            scene.send(&format!("{many}-{nth}"), "pay", "{}", "k");
        }
        loop {
            scene.dispatch(one, 64);
            let given = scene.given(one);
            if given.is_empty() {
                break;
            }
            for (number, attempt, _) in given {
                let [number, attempt] = [number, attempt].map(i64::unsigned_abs);
                let outcome = Outcome::Stopped { reason: String::new() };
                scene.complete(one, [number, attempt, 0], outcome);
            }
        }
        scene.server.authority.take_steps();
        scene.dispatch(one, 64);
        steps.push(scene.server.authority.take_steps());
    }
    assert!(steps[1] < steps[0] + 100, "{steps:?}");
}

/// Goal: whoever comes is asked about all that is stopped, in parts of which none is large, and
/// about each once. Method: more than two parts; one that comes may do all of it, and one comes
/// whose code fits none, leaves, and comes again.
#[test]
fn whoever_comes_is_asked_about_what_is_stopped_in_parts() {
    with_limited_shop(Limits::DEFAULT, |mut scene| {
        const MANY: i64 = 600;
        for nth in 0..MANY {
            scene.send(&nth.to_string(), "pay", "{}", "k");
        }
        let count = |scene: &mut Scene, state: &str| {
            scene.count(&format!("_tidelog_task where state = '{state}'"))
        };
        for _ in 0..2 {
            let older = scene.register();
            let mut times = 0;
            while count(&mut scene, "stopped") < MANY || times == 0 {
                scene.dispatch(older, 64);
                for (number, attempt, _) in scene.given(older) {
                    times += 1;
                    let [number, attempt] = [number, attempt].map(i64::unsigned_abs);
                    let outcome = Outcome::Stopped { reason: String::new() };
                    scene.complete(older, [number, attempt, 0], outcome);
                }
                assert!(times <= MANY, "none of them again and again");
            }
            assert_eq!(times, MANY);
            assert_eq!(scene.dispatch(older, 64), None);
            scene.change(&Change::Deregister(older));
        }

        let newer = scene.register();
        assert_eq!(count(&mut scene, "ready"), 0);
        let free = Free { instance: newer, kinds: kinds(), concurrency: 1 };
        for left in [MANY - 256, MANY - 512, 0] {
            scene.change(&Change::Dispatch(vec![free.clone()]));
            assert_eq!(count(&mut scene, "stopped"), left);
        }
        assert_eq!(count(&mut scene, "ready"), MANY - 1);
    });
}

/// Goal: rules across aggregates hold: whoever breaks one has failed, and nothing of it is there.
#[test]
fn a_completion_that_breaks_a_rule_fails_the_command() {
    with_shop(|mut scene| {
        scene.send("o1", "place", r#"{"items": 101}"#, "k");
        let one = scene.register();
        scene.dispatch(one, 1);
        assert_eq!(scene.complete(one, [1, 1, 0], placed(101)), CompletionAnswer::Done);
        let said = scene.rows(COMMANDS);
        assert!(said[0].starts_with("1 o1 place failed 1 CHECK constraint"), "{said:?}");
        assert_eq!(scene.rows("select type from tidelog_events"), [] as [&str; 0]);
        let states = scene.rows("select state from orders");
        assert!(states[0].starts_with("CHECK"), "{states:?}");
    });
}

/// Goal: what a handler sends takes effect with its completion, or not at all.
#[test]
fn commands_that_a_completion_sends_are_received_with_it() {
    with_shop(|mut scene| {
        let sent = |name: &str, key: &str| NewCommand {
            aggregate: "order".to_owned(),
            stream: "o2".to_owned(),
            name: name.to_owned(),
            args: "{}".to_owned(),
            key: key.to_owned(),
        };
        let done = |sends| Outcome::Completed {
            events: Vec::new(),
            sends,
            starts: Vec::new(),
            snapshot: None,
        };
        for key in ["1", "2", "3"] {
            scene.send("o1", "pay", "{}", key);
        }
        let one = scene.register();
        scene.dispatch(one, 1);
        let twice = done(vec![sent("pay", "a"), sent("pay", "a")]);
        assert_eq!(scene.complete(one, [1, 1, 0], twice), CompletionAnswer::Done);
        scene.dispatch(one, 1);
        let wrong = done(vec![sent("pay", "b"), sent("place", "c")]);
        assert_eq!(scene.complete(one, [2, 1, 0], wrong), CompletionAnswer::Done);
        scene.dispatch(one, 1);
        let none = done(vec![sent("pay", "d"), sent("gone", "e")]);
        assert_eq!(scene.complete(one, [3, 1, 0], none), CompletionAnswer::Done);
        assert_eq!(
            scene.rows(COMMANDS),
            [
                "1 o1 pay completed 1 ",
                "2 o1 pay failed 1 command place of order cannot be received: \
                 argument items is missing",
                "3 o1 pay failed 1 there is no command gone of order",
                "4 o2 pay received 0 ",
            ]
        );
    });
}

/// Goal: a key counts once: for the same it is the same, for anything else it is refused; and it
/// counts no longer once the authority has forgotten it. Method: by two devices, before and after
/// the command is over.
#[test]
fn a_key_counts_once_until_it_is_forgotten() {
    let limits = Limits {
        command_key_ms: 10_000,
        command_completed_ms: 20_000,
        command_failed_ms: 30_000,
        ..Limits::DEFAULT
    };
    with_limited_shop(limits, |mut scene| {
        scene.send("o1", "place", r#"{"items": 3}"#, "k");
        scene.send("o1", "place", r#"{ "items":3 }"#, "k");
        assert_eq!(scene.rows(COMMANDS).len(), 1);
        for (name, args, key, why) in [
            ("place", r#"{"items":4}"#, "k", "key reused: place of o1 was sent"),
            ("place", r#"{"items":"x"}"#, "l", "command place of order cannot be received: argume"),
            ("place", r#"{"items":1,"more":1}"#, "l", "command place of order cannot be received"),
            ("place", "[]", "l", "command place of order cannot be received: its data are array"),
            ("place", r#"{"items":3}"#, "", "command place of order cannot be received: a key has"),
            ("pay", "{}", &"k".repeat(257), "command pay of order cannot be received: a key has"),
            ("gone", "{}", "k", "no mutation send:order.gone"),
        ] {
            match scene.try_send("o1", name, args, key) {
                Err(Failure::Rejected { reason }) => assert!(reason.starts_with(why), "{reason}"),
                other => panic!("{other:?}"),
            }
        }
        scene.send("o2", "place", r#"{"items": 4}"#, "k");
        let one = scene.register();
        scene.dispatch(one, 2);
        assert_eq!(scene.complete(one, [1, 1, 0], placed(3)), CompletionAnswer::Done);
        assert_eq!(scene.complete(one, [2, 1, 0], failed("no", true)), CompletionAnswer::Done);
        scene.send("o1", "place", r#"{"items": 3}"#, "k");
        assert_eq!(scene.rows(COMMANDS).len(), 2, "also once it is over");
        scene.now_ms += 10_001;
        scene.dispatch(one, 1);
        assert_eq!(scene.outcome("o1", "place", "k"), FoundOutcome::None);
        scene.now_ms += 10_000;
        scene.dispatch(one, 1);
        assert_eq!(scene.rows(COMMANDS), ["2 o2 place failed 1 no"]);
        scene.now_ms += 10_000;
        scene.dispatch(one, 1);
        assert_eq!(scene.rows(COMMANDS), [] as [&str; 0]);
        scene.send("o1", "place", r#"{"items": 5}"#, "k");
        assert_eq!(scene.rows(COMMANDS).len(), 1, "it is another one");
    });
}

/// Goal: numbers of instances are not used again, neither where the clock is set back nor where a
/// document is restored that has counted fewer.
#[test]
fn an_instance_has_a_number_of_its_own_for_ever() {
    with_shop(|mut scene| {
        let one = scene.register();
        scene.change(&Change::Deregister(one));
        scene.now_ms -= 500;
        let two = scene.register();
        let known = scene.rows("select instance || ' ' || user from tidelog_instances");
        assert_eq!(known, ["1000001 ada"]);
        scene.now_ms += 700;
        let three = scene.register();
        assert_eq!([one, two, three].map(|it| it.0), [1_000_000, 1_000_001, 1_000_200]);
    });
}

#[test]
fn commands_are_checked_before_any_document_is_touched() {
    let with = |fields: Vec<Param>, received: &str, failed: &str| {
        let mut doctype = shop();
        doctype.streams[0].commands = vec![command("c", fields, &[received], &[failed])];
        check(&doctype, &View::new(usize::MAX, 0), &FoundRight::default())
    };
    let ok = "select :stream, :key, :now, :client, :user";
    assert_eq!(with(vec![], ok, "select :reason, :key"), Ok(()));
    for (fields, received, failed, why) in [
        (vec![], "select :reason", "select 1", "it mentions :reason, which is no field"),
        (vec![], "select 1", "select :nope", "it mentions :nope, which is no field"),
        (
            vec![param("key", ParamKind::Text)],
            "select 1",
            "select 1",
            "a field cannot be named key",
        ),
        (vec![param("b", ParamKind::Blob)], "select 1", "select 1", "field b cannot be a blob"),
        (vec![], "selec 1", "select 1", "near \"selec\""),
    ] {
        match with(fields, received, failed) {
            Err(DoctypeError::Command { reason, .. }) => assert!(reason.contains(why), "{reason}"),
            other => panic!("{why}: {other:?}"),
        }
    }
    let mut doctype = shop();
    doctype.mutations[0].name = "send:order.place".to_owned();
    let run = check(&doctype, &View::new(usize::MAX, 0), &FoundRight::default());
    assert!(matches!(run, Err(DoctypeError::Mutation { .. })), "{run:?}");
}

/// Goal: a dispatch costs what it gives, not what waits. Method: many commands behind one another,
/// of one stream, and the steps of SQLite.
#[test]
fn a_dispatch_costs_the_same_however_many_wait() {
    with_shop(|mut scene| {
        let one = scene.register();
        let mut steps = Vec::new();
        for round in 0..2 {
            for nth in 0..[10, 120][round] {
                scene.send("o1", "pay", "{}", &format!("{round}-{nth}"));
            }
            scene.server.authority.take_steps();
            scene.dispatch(one, 1);
            steps.push(scene.server.authority.take_steps());
        }
        assert!(steps[1] < steps[0] + 1_000, "{steps:?}");
    });
}

/// Goal: a document does not grow faster than it forgets. Method: more is over than one dispatch
/// forgets.
#[test]
fn what_is_over_is_forgotten_until_nothing_is_left() {
    let limits = Limits { command_completed_ms: 20_000, ..Limits::DEFAULT };
    with_limited_shop(limits, |mut scene| {
        for nth in 0..40 {
            scene.send(&format!("o{nth}"), "pay", "{}", "k");
        }
        let one = scene.register();
        scene.dispatch(one, 40);
        let nothing = Outcome::Completed {
            events: Vec::new(),
            sends: Vec::new(),
            starts: Vec::new(),
            snapshot: None,
        };
        for nth in 1..=40 {
            let answer = scene.complete(one, [nth, 1, 0], nothing.clone());
            assert_eq!(answer, CompletionAnswer::Done);
        }
        scene.now_ms += 20_001;
        scene.dispatch(one, 40);
        assert_eq!(scene.rows(COMMANDS), [] as [&str; 0]);
    });
}

/// Goal: what an event names as its cause, and what an attempt is of, is never another one. Method:
/// the last command is forgotten, and the next one is received.
#[test]
fn no_command_has_the_number_of_one_that_is_forgotten() {
    let limits = Limits { command_completed_ms: 20_000, command_key_ms: 10_000, ..Limits::DEFAULT };
    with_limited_shop(limits, |mut scene| {
        let one = scene.register();
        for nth in 1..=3 {
            scene.send("o1", "place", r#"{"items":1}"#, "k");
            scene.dispatch(one, 1);
            assert_eq!(scene.rows(COMMANDS), [format!("{nth} o1 place started 1 ")]);
            let after = u64::try_from(nth - 1).expect("few");
            let answer = scene.complete(one, [after + 1, 1, after], placed(1));
            assert_eq!(answer, CompletionAnswer::Done);
            scene.now_ms += 20_001;
            scene.dispatch(one, 1);
            assert_eq!(scene.rows(COMMANDS), [] as [&str; 0]);
        }
    });
}

/// Goal: what is tried again waits no longer than the longest pause, also by a clock that was set
/// back, or by another one than that of the device which has handed the document over.
#[test]
fn a_pause_ends_by_whichever_clock_there_is() {
    with_shop(|mut scene| {
        scene.now_ms = 365 * 24 * 3_600_000;
        scene.send("o1", "place", r#"{"items":1}"#, "k");
        let one = scene.register();
        scene.dispatch(one, 1);
        let answer = scene.complete(one, [1, 1, 0], failed("not now", false));
        assert_eq!(answer, CompletionAnswer::Done);
        scene.dispatch(one, 1);
        assert_eq!(scene.rows(COMMANDS), ["1 o1 place received 1 not now"], "it waits");
        scene.now_ms = 1_000_000;
        scene.dispatch(one, 1);
        assert_eq!(scene.rows(COMMANDS), ["1 o1 place started 2 not now"]);
    });
}

const YEAR_MS: u64 = 365 * 24 * 3_600_000;

impl Scene {
    /// The same as [`change`](Self::change), in a document that is still local: by the clock of the
    /// device.
    fn change_locally(&mut self, change: &Change, now_ms: u64) -> Changed {
        let view = self.server.authority.view().clone();
        let Self { server, doctype, .. } = self;
        let Server { authority, rest, .. } = &mut *server;
        let call = CallId([7; 16]);
        let ran = rest.serve(&view, || authority.change_local(call, change, doctype, now_ms));
        let (changed, _) = ran.expect("decided");
        if let Some(entry) = authority.seal() {
            let hash = hash_of(&entry.set);
            let coded = entry.set.pages.iter().map(|(at, it)| CodedPage::new(*at, it, None));
            let coded = Some(coded.collect());
            server.keep(Committed { entry, hash, coded }, None);
        }
        follow(&self.server, &mut self.device);
        changed
    }

    /// Commands of a local document, one of each key, by that clock: all given, but for the last
    /// ones completed.
    fn decide_locally(&mut self, count: u64, left: u64, now_ms: u64) -> InstanceId {
        for nth in 1..=count {
            self.send(&format!("o{nth}"), "place", r#"{"items":0}"#, "k");
        }
        let (client, user) = (ClientId([7; 16]), "ada".to_owned());
        let begins = Change::Register { client, user, kinds: kinds() };
        let Changed::Registered(one) = self.change_locally(&begins, now_ms) else {
            panic!("it begins")
        };
        let mut completed = 0;
        while completed < count {
            self.change_locally(&dispatching(one, 64), now_ms);
            for task in completed + 1..=count.min(completed + 64) {
                if task <= count - left {
                    let completion =
                        Completion { task, attempt: 1, position: 0, outcome: placed(0) };
                    let change = Change::Complete { instance: one, completion };
                    let answer = self.change_locally(&change, now_ms).answer();
                    assert_eq!(answer, Some(CompletionAnswer::Done));
                }
            }
            completed += 64;
        }
        one
    }
}

/// Goal: what a local document brings to its server is kept there as long as what was over there,
/// and no longer: a key counts, and is done twice by nobody. Method: its device's clock was a year
/// behind, and a year ahead.
#[test]
fn what_was_over_before_a_hand_over_is_kept_by_the_clock_of_the_server() {
    for device_ms in [YEAR_MS, 3 * YEAR_MS] {
        with_shop(|mut scene| {
            let one = scene.decide_locally(2, 0, device_ms);
            scene.now_ms = 2 * YEAR_MS;
            scene.dispatch(one, 1);
            let ended = "select ended || '' from tidelog_commands";
            assert_eq!(scene.rows(ended), vec![scene.now_ms.to_string(); 2]);
            scene.now_ms += Limits::DEFAULT.command_key_ms;
            scene.dispatch(one, 1);
            scene.send("o1", "place", r#"{"items":0}"#, "k");
            let both = ["1 o1 place completed 1 1-1", "2 o2 place completed 1 2-2"];
            assert_eq!(scene.rows(COMMANDS), both, "its key counts");
            scene.now_ms += 1;
            scene.dispatch(one, 1);
            assert_eq!(scene.outcome("o1", "place", "k"), FoundOutcome::None);
            scene.now_ms = 2 * YEAR_MS + Limits::DEFAULT.command_completed_ms;
            scene.dispatch(one, 1);
            assert_eq!(scene.rows(COMMANDS), both);
            scene.now_ms += 1;
            scene.dispatch(one, 1);
            assert_eq!(scene.rows(COMMANDS), [] as [&str; 0]);
        });
    }
}

/// Goal: however much a local document brings, no dispatch takes the longer for it, and nothing of
/// it is forgotten meanwhile; nor is what is over since then taken for older. Method: more than a
/// dispatch looks at, which are given while that goes on.
#[test]
fn what_a_hand_over_brings_is_taken_over_in_parts() {
    let doctype = shop();
    let server = Server::new(9, usize::MAX, &doctype);
    let device = Device::following(1, usize::MAX, &doctype, &server);
    let mut scene = Scene { doctype, server, device, now_ms: 2 * YEAR_MS };
    let one = scene.decide_locally(520, 1, YEAR_MS);
    scene.send("p", "place", r#"{"items":0}"#, "k");
    let foreign = format!(
        "select count(*) || '' from tidelog_commands where ended is not null and ended <> {}",
        2 * YEAR_MS
    );
    let mut left = Vec::new();
    for _ in 0..4 {
        let changed = scene.change(&dispatching(one, 2));
        left.extend(scene.rows(&foreign));
        let Changed::Dispatched { again, .. } = changed else { panic!("{changed:?}") };
        assert!(again || left.len() > 2, "{left:?}");
        if left.len() == 1 {
            let given = scene.given(one);
            assert_eq!(given.len(), 2, "one of before, one since then: {given:?}");
            let answer = scene.complete(one, [521, 1, 0], placed(0));
            assert_eq!(answer, CompletionAnswer::Done);
        }
    }
    assert_eq!(left, ["263", "7", "0", "0"]);
    scene.now_ms += 1_000;
    scene.dispatch(one, 2);
    let ended = "select ended || '' from tidelog_commands where ended is not null group by 1";
    assert_eq!(scene.rows(ended), [(2 * YEAR_MS).to_string()], "and not again");
}

/// Goal: so is what a file brings that becomes another server's. Method: one of a year ago.
#[test]
fn what_was_over_in_a_file_is_kept_by_the_clock_of_its_server() {
    with_shop(|mut scene| {
        scene.send("o1", "place", r#"{"items":1}"#, "k");
        let one = scene.register();
        scene.dispatch(one, 1);
        assert_eq!(scene.complete(one, [1, 1, 0], placed(1)), CompletionAnswer::Done);
        let Server { authority, rest, .. } = &mut scene.server;
        let (view, journal) = (View::new(usize::MAX, rest.0.db_pages), JournalId([8; 16]));
        let position = Position { journal, ..authority.position() };
        *authority = Authority::new(view, position, Lineage::default(), SERVER);
        scene.now_ms += YEAR_MS;
        scene.dispatch(one, 1);
        let now = integer(scene.now_ms.cast_signed());
        let kept = scene.server.query("select key, ended from tidelog_commands");
        assert_eq!(kept, [[text("k"), now]]);
    });
}

/// Goal: who works at a command as its document is handed over has the time that it takes. Method:
/// given by a clock a year behind, and a year ahead.
#[test]
fn the_time_of_an_attempt_begins_anew_with_another_clock() {
    for device_ms in [YEAR_MS, 3 * YEAR_MS] {
        with_shop(|mut scene| {
            let one = scene.decide_locally(1, 1, device_ms);
            scene.now_ms = 2 * YEAR_MS;
            assert_eq!(scene.dispatch(one, 1), Some(2 * YEAR_MS + 30_000));
            assert_eq!(scene.rows(COMMANDS), ["1 o1 place started 1 "]);
            scene.now_ms += 30_000;
            scene.dispatch(one, 1);
            assert_eq!(scene.rows(COMMANDS), ["1 o1 place received 1 it has taken too long"]);
        });
    }
}

/// Goal: the key of what was erased counts for its time too, also where the server has given
/// nothing to anybody since the document was handed over.
#[test]
fn a_key_of_before_a_hand_over_counts_though_it_is_erased() {
    with_shop(|mut scene| {
        scene.decide_locally(1, 0, YEAR_MS);
        scene.now_ms = 2 * YEAR_MS;
        let [aggregate, stream] = ["order", "o1"].map(str::to_owned);
        let what = Erasable::Stream { aggregate, stream };
        scene.change(&Change::Erase { what, after: ErasedUpTo::default() });
        assert_eq!(scene.rows(COMMANDS), ["1 o1 place completed 1 1-1"]);
        assert!(matches!(scene.outcome("o1", "place", "k"), FoundOutcome::Over(_)));
    });
}

/// Goal: whoever knows of some endings finds those behind them, also once all that had ended is
/// forgotten.
#[test]
fn tasks_end_one_behind_the_other_whatever_is_forgotten() {
    let limits = Limits { command_completed_ms: 20_000, command_key_ms: 10_000, ..Limits::DEFAULT };
    with_limited_shop(limits, |mut scene| {
        let one = scene.register();
        for nth in 1..=3 {
            for stream in ["a", "b"] {
                scene.send(stream, "pay", "{}", &format!("k{nth}"));
            }
            assert_eq!(scene.endings(nth * 2 - 2).names, [] as [[String; 4]; 0]);
            scene.dispatch(one, 4);
            // The later one of both first.
            for number in [1, 0] {
                let (command, attempt, _) = scene.given(one)[number];
                let command = [command, attempt, 0].map(i64::cast_unsigned);
                let answer = scene.complete(one, command, failed("no", true));
                assert_eq!(answer, CompletionAnswer::Done);
            }
            let endings = scene.endings(nth * 2 - 1);
            let [aggregate, stream, name] = ["order", "a", "pay"].map(str::to_owned);
            assert_eq!(endings.names, [[aggregate, stream, name, format!("k{nth}")]]);
            assert_eq!(endings.last, nth * 2);
            scene.now_ms += Limits::DEFAULT.command_failed_ms + 1;
            scene.dispatch(one, 4);
            assert_eq!(scene.rows(COMMANDS), [] as [&str; 0]);
        }
    });
}

impl Scene {
    fn intervene(&mut self, command: CommandRef, intervention: Intervention) -> Intervened {
        match self.change(&Change::Intervene(command, intervention)) {
            Changed::Intervened(intervened) => intervened,
            other => panic!("{other:?}"),
        }
    }

    fn retry(&mut self, number: u64) -> Intervened {
        self.intervene(CommandRef::Number(number), Intervention::Retry)
    }

    fn cancel(&mut self, number: u64) -> Intervened {
        let reason = "cancelled by ada".to_owned();
        self.intervene(CommandRef::Number(number), Intervention::Cancel { reason })
    }

    fn listed(&mut self, state: Option<&str>, after: u64) -> (Vec<i64>, Option<u64>) {
        let view = self.server.authority.view().clone();
        let Self { server, .. } = self;
        let wanted = WantedCommands { state: state.map(str::to_owned), after };
        let found = server.rest.serve(&view, || find_commands(server.authority.reader(), &wanted));
        let FoundCommands { rows, next } = found.expect("found");
        let number = |row: Vec<Value>| match row[0] {
            Value::Integer(number) => number,
            ref other => panic!("{other:?}"),
        };
        (rows.decode().into_iter().map(number).collect(), next)
    }
}

/// Goal: a command that has failed is given again, its outcome replaces the first one under its
/// key, and is told behind all that has ended. Method: by its number and by its key; what attempts
/// of before say, at any number, counts for nothing; what is not failed stays as it is.
#[test]
fn a_command_that_has_failed_is_given_again() {
    with_shop(|mut scene| {
        scene.send("o1", "place", r#"{"items": 3}"#, "k");
        let one = scene.register();
        assert_eq!(scene.retry(1), Intervened::InState("received".to_owned()));
        scene.dispatch(one, 1);
        assert_eq!(scene.retry(1), Intervened::InState("started".to_owned()));
        scene.complete(one, [1, 1, 0], failed("no", true));
        let last = scene.endings(0).last;
        assert_eq!(scene.rows(COMMANDS), ["1 o1 place failed 1 no"]);
        assert_eq!(scene.rows("select state from orders"), ["no"]);

        assert_eq!(scene.retry(1), Intervened::Done(1));
        assert_eq!(scene.rows(COMMANDS), ["1 o1 place received 1 "]);
        assert_eq!(scene.outcome("o1", "place", "k"), FoundOutcome::Pending);
        assert_eq!(scene.retry(1), Intervened::InState("received".to_owned()), "once is enough");
        let late = scene.complete(one, [1, 1, 0], placed(3));
        assert_eq!(late, CompletionAnswer::Late, "nobody was given it");
        scene.send("o1", "place", r#"{"items": 3}"#, "k");
        assert_eq!(scene.rows(COMMANDS), ["1 o1 place received 1 "], "its key stands for it");
        scene.dispatch(one, 1);
        assert_eq!(scene.complete(one, [1, 1, 0], placed(3)), CompletionAnswer::Late, "fenced");
        assert_eq!(
            scene.complete(one, [1, 2, 0], failed("not yet", false)),
            CompletionAnswer::Done
        );
        assert_eq!(scene.rows(COMMANDS), ["1 o1 place received 2 not yet"], "it has retries anew");
        scene.now_ms += 1_000;
        scene.dispatch(one, 1);
        assert_eq!(scene.complete(one, [1, 3, 0], placed(3)), CompletionAnswer::Done);
        assert_eq!(scene.rows(COMMANDS), ["1 o1 place completed 3 1-1"]);
        let FoundOutcome::Over(rows) = scene.outcome("o1", "place", "k") else { panic!("over") };
        assert_eq!(rows.decode()[0][1], text("completed"));
        let endings = scene.endings(last);
        assert_eq!(endings.names.len(), 1, "whoever waits is told of its second end");
        assert_eq!(scene.retry(1), Intervened::InState("completed".to_owned()));
        assert_eq!(scene.cancel(1), Intervened::InState("completed".to_owned()));

        scene.send("o2", "place", r#"{"items": 200}"#, "k");
        scene.dispatch(one, 1);
        scene.complete(one, [2, 1, 0], failed("no", true));
        let names = ["order", "o2", "place", "k"].map(str::to_owned);
        let by_key = CommandRef::Key(names.clone());
        assert_eq!(scene.intervene(by_key, Intervention::Retry), Intervened::Done(2));
        let other = CommandRef::Key([&names[0], "o3", &names[2], &names[3]].map(|it| it.into()));
        assert_eq!(scene.intervene(other, Intervention::Retry), Intervened::NoCommand);
        for number in [0, 77, u64::MAX] {
            assert_eq!(scene.retry(number), Intervened::NoCommand);
        }
    });
}

/// Goal: a command that is not over is cancelled, with what follows from a failure, its attempt is
/// fenced, and its stream goes on. Method: one that is started, one that waits behind it, one that
/// is to be tried later; then the first one is given again after all.
#[test]
fn a_command_that_is_not_over_is_cancelled() {
    with_shop(|mut scene| {
        for key in ["1", "2", "3"] {
            scene.send("a", "place", r#"{"items": 1}"#, key);
        }
        scene.send("b", "place", r#"{"items": 1}"#, "4");
        let one = scene.register();
        scene.dispatch(one, 2);
        assert_eq!(scene.cancel(2), Intervened::Done(2), "it waits");
        assert_eq!(scene.given(one), [(1, 1, "a".to_owned()), (4, 1, "b".to_owned())]);
        assert_eq!(scene.cancel(1), Intervened::Done(1), "it is started");
        assert_eq!(scene.complete(one, [1, 1, 0], placed(1)), CompletionAnswer::Late);
        scene.complete(one, [4, 1, 0], failed("not now", false));
        assert_eq!(scene.cancel(4), Intervened::Done(4), "it is to be tried later");
        scene.now_ms += 60_000;
        scene.dispatch(one, 2);
        assert_eq!(scene.given(one), [(3, 1, "a".to_owned())], "its stream goes on");
        assert_eq!(
            scene.rows("select id || state from orders where id = 'b'"),
            ["bcancelled by ada"]
        );
        assert_eq!(
            scene.rows(COMMANDS),
            [
                "1 a place failed 1 cancelled by ada",
                "2 a place failed 0 cancelled by ada",
                "3 a place started 1 ",
                "4 b place failed 1 cancelled by ada",
            ]
        );
        assert_eq!(scene.cancel(1), Intervened::InState("failed".to_owned()));
        assert_eq!(scene.cancel(9), Intervened::NoCommand);
        assert_eq!(scene.rows("select type from tidelog_events"), [""; 0]);

        // It waits for the one that is started, and is next whoever else is cancelled meanwhile.
        assert_eq!(scene.retry(1), Intervened::Done(1));
        scene.send("a", "place", r#"{"items": 1}"#, "5");
        assert_eq!(scene.cancel(5), Intervened::Done(5));
        scene.dispatch(one, 2);
        assert_eq!(scene.given(one), [(3, 1, "a".to_owned())], "one at a time");
        assert_eq!(scene.complete(one, [3, 1, 0], placed(1)), CompletionAnswer::Done);
        scene.dispatch(one, 2);
        assert_eq!(scene.given(one), [(1, 2, "a".to_owned())]);
        assert_eq!(scene.complete(one, [1, 2, 1], placed(1)), CompletionAnswer::Done);
    });
}

/// Goal: what is given again is not done twice. Method: its key counts no longer, so that whoever
/// sends it again by that sends another one.
#[test]
fn a_failed_command_whose_key_counts_no_longer_is_not_given_again() {
    let limits = Limits { command_key_ms: 10_000, ..Limits::DEFAULT };
    with_limited_shop(limits, |mut scene| {
        scene.send("o1", "place", r#"{"items": 3}"#, "k");
        let one = scene.register();
        scene.dispatch(one, 1);
        scene.complete(one, [1, 1, 0], failed("no", true));
        scene.now_ms += 10_001;
        scene.dispatch(one, 1);
        assert_eq!(scene.retry(1), Intervened::InState("forgotten".to_owned()));
    });
}

#[test]
fn a_document_without_commands_has_none_to_give_again() {
    let mut doctype = shop();
    doctype.streams.clear();
    doctype.mutations.clear();
    let mut server = Server::with_limits(9, POOLS[0], &doctype, Limits::DEFAULT);
    let view = server.authority.view().clone();
    let change = Change::Intervene(CommandRef::Number(1), Intervention::Retry);
    let changed = server.rest.serve(&view, || server.authority.change(&change, &doctype, 1));
    let (changed, _) = changed.expect("it ran");
    assert_eq!(changed, Changed::Intervened(Intervened::NoCommand));
}

/// Goal: commands are listed by their numbers, all of them or those in one state, in pages that
/// say where to go on.
#[test]
fn commands_are_listed_in_pages() {
    with_shop(|mut scene| {
        assert_eq!(scene.listed(None, 0), (vec![], None));
        for stream in 0..70 {
            scene.send(&stream.to_string(), "pay", "{}", "k");
        }
        assert_eq!(scene.listed(None, 0), ((1..=64).collect(), Some(64)));
        assert_eq!(scene.listed(None, 64), ((65..=70).collect(), None));
        assert_eq!(scene.listed(None, 70), (vec![], None));
        scene.cancel(7);
        scene.cancel(69);
        assert_eq!(scene.listed(Some("failed"), 0), (vec![7], Some(64)), "no more were read");
        assert_eq!(scene.listed(Some("failed"), 64), (vec![69], None));
        assert_eq!(scene.listed(Some("failed"), 7), (vec![69], None));
        assert_eq!(scene.listed(Some("received"), 66), (vec![67, 68, 70], None));
        assert_eq!(scene.listed(Some("started"), 0), (vec![], Some(64)));
    });
}

/// Goal: what a stream's events come to is kept with a completion that is taken, of each way of
/// folding, and says before which events it stands. Method: a stream between whose events stands
/// another one's.
#[test]
fn a_snapshot_is_kept_with_the_completion_that_brings_it() {
    const SNAPSHOTS: &str = "select stream || ' ' || name || ' ' || position || ' ' ||
                             sequence || ' ' || state from tidelog_snapshots
                             order by stream, position";
    with_shop(|mut scene| {
        let one = scene.register();
        let mut step = |at: u64, position: u64, outcome: Outcome| {
            scene.send("o1", "place", r#"{"items": 3}"#, &format!("k{at}"));
            scene.dispatch(one, 4);
            let answer = scene.complete(one, [at, 1, position], outcome);
            (answer, scene.rows(SNAPSHOTS))
        };
        let done = |snapshots: &[&str]| {
            (CompletionAnswer::Done, snapshots.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(step(1, 0, placed_with("a", "0")), done(&[]), "nothing has happened yet");
        assert_eq!(step(2, 1, placed_with("a", "[1]")), done(&["o1 a 1 1 [1]"]));
        assert_eq!(step(3, 2, placed(1)), done(&["o1 a 1 1 [1]"]));
        let both = ["o1 a 1 1 [1]", "o1 b 3 3 {}"];
        assert_eq!(step(4, 3, placed_with("b", "{}")), done(&both));
        let both = ["o1 b 3 3 {}", "o1 a 4 4 [4]"];
        assert_eq!(step(5, 4, placed_with("a", "[4]")), done(&both));
        let large = format!("\"{}\"", "x".repeat(256 * 1024 - 1));
        let name = "n".repeat(65);
        let odd = [("a", "no JSON"), ("a", &large), ("", "1"), (&name, "1")];
        for (at, (name, state)) in (6..).zip(odd) {
            assert_eq!(step(at, at - 1, placed_with(name, state)), done(&both), "left out");
        }
        let stale = step(10, 8, placed_with("a", "[8]"));
        assert_eq!(stale, (CompletionAnswer::Stale, done(&both).1));
        let (largest, name) = (format!("\"{}\"", "x".repeat(256 * 1024 - 2)), "n".repeat(64));
        let outcome = placed_with(&name, &largest);
        assert_eq!(scene.complete(one, [10, 1, 9], outcome), CompletionAnswer::Done);
        assert_eq!(scene.rows(SNAPSHOTS)[2..], [format!("o1 {name} 9 9 {largest}")]);
        // Behind events of another stream, and more than are kept.
        let of_others = [("o2", 0, "a"), ("o1", 10, "c"), ("o1", 11, "d"), ("o1", 12, "e")];
        for (at, (stream, position, name)) in (11..).zip(of_others) {
            scene.send(stream, "place", r#"{"items": 3}"#, &format!("k{at}"));
            scene.dispatch(one, 4);
            scene.complete(one, [at, 1, position], placed_with(name, "[9]"));
        }
        let kept = [
            format!("o1 {name} 9 9 {largest}"),
            "o1 c 10 10 [9]".to_owned(),
            "o1 d 11 12 [9]".to_owned(),
            "o1 e 12 13 [9]".to_owned(),
        ];
        assert_eq!(scene.rows(SNAPSHOTS), kept);
        scene.send("o1", "place", r#"{"items": 3}"#, "k15");
        scene.dispatch(one, 4);
        let Outcome::Completed { mut events, sends, starts, snapshot } = placed_with("e", "[10]")
        else {
            unreachable!()
        };
        events[0].name = "unknown".to_owned();
        let outcome = Outcome::Completed { events, sends, starts, snapshot };
        assert_eq!(scene.complete(one, [15, 1, 13], outcome), CompletionAnswer::Done);
        assert_eq!(scene.rows(SNAPSHOTS), kept, "the command has failed");
    });
}

/// Goal: for want of room no snapshot is kept, and the command that brings it completes all the
/// same.
#[test]
fn a_snapshot_that_has_no_room_fails_no_command() {
    let limits = Limits { document_pages_max: 60, ..Limits::DEFAULT };
    with_limited_shop(limits, |mut scene| {
        let one = scene.register();
        let large = format!("\"{}\"", "x".repeat(256 * 1024 - 2));
        for (nth, outcome) in [(1, placed(1)), (2, placed_with("a", &large))] {
            scene.send("o1", "place", r#"{"items": 3}"#, &format!("k{nth}"));
            scene.dispatch(one, 4);
            scene.complete(one, [nth, 1, nth - 1], outcome);
        }
        let states = "select state || coalesce(reason, '') from tidelog_commands order by number";
        assert_eq!(scene.rows(states), ["completed", "completed"]);
    });
}
