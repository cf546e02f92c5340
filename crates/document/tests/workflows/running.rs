//! Runs that are started, go on and end.

use crate::scene::*;

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
        let requests = "select id || ' ' || name || ' ' || state from tidelog_requests";
        assert_eq!(scene.rows(requests), ["f call started"], "no step is among them");
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
                again(),
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

/// Goal: each attempt at a run hears of what it remembers as of the same time, also one whose
/// authority was not heard the first time. Method: what is done, what it sleeps for and what it
/// waits for is said again later.
#[test]
fn what_is_said_again_is_as_of_when_it_was_said_first() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        let sleep = record("s", 0, Recorded::Sleep { ms: 60_000 });
        for said in [step("a", "1"), sleep, wait_for("w", "shipped", 60_000)] {
            let (first_ms, name) = (scene.now_ms, said.name.clone());
            let outcome = progressed(vec![said], false);
            for later_ms in [0, 7, 20_000] {
                scene.now_ms = first_ms + later_ms;
                let answer = scene.complete_as_of(one, (1, 1), outcome.clone());
                assert_eq!(answer, (CompletionAnswer::Done, first_ms), "{name}, {later_ms} later");
            }
        }
    });
}

/// Goal: what is said again does nothing that it did not do the first time, whatever has changed:
/// the run hears of what is remembered. Method: a command is sent that nobody knows, and that is
/// known by the time at which it is said again.
#[test]
fn what_was_refused_is_not_done_as_it_is_said_again() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        let mut unknown = pay("o1");
        unknown.name = "bill".to_owned();
        let outcome = progressed(vec![record("bill", 0, Recorded::Send(unknown))], false);
        scene.done(one, (1, 1), outcome.clone());
        for stream in &mut scene.doctype.streams {
            let mut known = stream.commands.clone();
            known.iter_mut().for_each(|command| command.name = "bill".to_owned());
            stream.commands.extend(known);
        }
        scene.done(one, (1, 1), outcome);
        assert_eq!(scene.records(1), ["bill 0 command failed there is no command bill of order"]);
        assert_eq!(scene.rows("select command from tidelog_commands"), [""; 0]);
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

/// Goal: no event is lost between the last one that a run has heard of and its going on as new.
#[test]
fn a_run_that_goes_on_as_new_misses_no_event() {
    with_shop(|mut scene| {
        scene.ship("o1");
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
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

/// Goal: an event that happened before the last one that a run has heard of is not lost to what
/// goes on from it, and none is given twice, however often it goes on.
#[test]
fn a_run_that_goes_on_as_new_is_given_each_event_once() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        for order in ["o2", "o2", "o1"] {
            scene.ship(order);
        }
        scene.done(one, (1, 1), progressed(vec![wait_for("a", "shipped", 0)], true));
        scene.dispatch(one);
        assert_eq!(scene.records(1), ["a 0 event done 3"]);
        scene.done(one, (1, 2), again());
        scene.dispatch(one);
        let waits = vec![
            wait_for_order("a", "o2"),
            wait_for_order("b", "o2"),
            wait_for_order("c", "o2"),
            wait_for_order("d", "o1"),
        ];
        scene.done(one, (2, 1), progressed(waits, true));
        scene.dispatch(one);
        let heard =
            ["c 0 event waiting", "d 0 event waiting", "a 0 event done 1", "b 0 event done 2"];
        assert_eq!(scene.records(2), heard);
        scene.done(one, (2, 2), again());
        scene.dispatch(one);
        let waits = || vec![wait_for_order("a", "o1"), wait_for_order("b", "o2")];
        scene.done(one, (3, 1), progressed(waits(), true));
        assert_eq!(scene.records(3), ["a 0 event waiting", "b 0 event waiting"]);
        scene.ship("o1");
        scene.dispatch(one);
        assert_eq!(scene.records(3), ["b 0 event waiting", "a 0 event done 4"]);
        // What was not heard of is not given: the next one hears of it.
        scene.ship("o2");
        scene.done(one, (3, 2), again());
        scene.dispatch(one);
        scene.done(one, (4, 1), progressed(waits(), true));
        assert_eq!(scene.records(4), ["a 0 event waiting", "b 0 event done 5"]);
    });
}

/// Goal: an event that has lost a race is not lost to what goes on from the run. Method: both that
/// it waits for have happened as it is given again, and its code goes on as new by the first.
#[test]
fn a_run_that_goes_on_as_new_by_one_of_two_events_is_given_the_other_one() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        let waits = || vec![wait_for_order("a", "o1"), wait_for_order("b", "o2")];
        scene.done(one, (1, 1), progressed(waits(), true));
        scene.ship("o1");
        scene.ship("o2");
        scene.dispatch(one);
        assert_eq!(scene.records(1), ["a 0 event done 1", "b 0 event done 2"]);
        let first = scene.numbers(1)[0];
        let [task, attempt, position] = [1, 2, first];
        let completion = Completion { task, attempt, position, outcome: again() };
        scene.change(&Change::Complete { instance: one, completion });
        scene.dispatch(one);
        scene.done(one, (2, 1), progressed(waits(), true));
        assert_eq!(scene.records(2), ["a 0 event waiting", "b 0 event done 2"]);
    });
}

/// Goal: a run that goes on as new without end keeps no event from its archive for ever, and what
/// it knows of those that it was given goes with it.
#[test]
fn a_run_that_goes_on_as_new_reaches_back_so_far_and_leaves_nothing() {
    let limits = Limits { command_completed_ms: 1_000, ..Limits::DEFAULT };
    with_limited_shop(limits, |mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        scene.ship("o2");
        scene.ship("o3");
        for _ in 0..10 {
            let thousand = format!("[{}]", vec![r#""o3""#; 1_000].join(","));
            scene.try_issue("ship_all", &[("ids", text(&thousand))]).expect("shipped");
            scene.converge();
        }
        scene.ship("o1");
        scene.done(one, (1, 1), progressed(vec![wait_for("a", "shipped", 0)], true));
        scene.dispatch(one);
        assert_eq!(scene.records(1), ["a 0 event done 10003"]);
        scene.done(one, (1, 2), again());
        scene.dispatch(one);
        let waits = vec![wait_for_order("a", "o2"), wait_for_order("b", "o3")];
        scene.done(one, (2, 1), progressed(waits, true));
        assert_eq!(scene.records(2), ["a 0 event waiting", "b 0 event done 4"]);
        let first = "select first from _tidelog_task where number = 2";
        assert_eq!(scene.server.query_system(first), [[Value::Integer(3)]]);
        scene.dispatch(one);
        scene.done(one, (2, 2), again());
        scene.dispatch(one);
        let known = "select stream, result from _tidelog_record where kind = 'seen'
                     order by stream";
        let seen = [["o1", "10003"], ["o3", "4"]].map(|row| row.map(text).to_vec());
        assert_eq!(scene.server.query_system(known), seen);
        scene.done(one, (3, 1), returned("1"));
        scene.now_ms += 10_000;
        for _ in 0..4 {
            scene.dispatch(one);
        }
        assert!(scene.rows(RUNS).is_empty());
        let left = "select count(*) from _tidelog_record";
        assert_eq!(scene.server.query_system(left), [[Value::Integer(0)]]);
    });
}

/// Goal: however often a run goes on as new, what is known of events that it was given takes no
/// more than so much, and nothing for each round.
#[test]
fn what_a_run_knows_as_it_goes_on_as_new_grows_with_nothing() {
    const KNOWN: &str = "select count(*), min(task) from _tidelog_record where kind = 'seen'";
    let mut scene = Scene::new(usize::MAX, Limits::DEFAULT);
    scene.start("f");
    let one = scene.register();
    scene.ship("never waited for");
    let kinds = WORKFLOW_SEEN_KINDS_MAX.unsigned_abs();
    let mut round = 1;
    for order in 0..kinds + 10 {
        let order = format!("o{order}");
        scene.ship(&order);
        scene.dispatch(one);
        scene.done(one, (round, 1), progressed(vec![wait_for_order("a", &order)], true));
        scene.dispatch(one);
        scene.done(one, (round, 2), again());
        round += 1;
        let known = scene.server.query_system(KNOWN);
        let count = (round - 1).min(kinds);
        let [count, task] = [count, round].map(|it| Value::Integer(it.cast_signed()));
        assert_eq!(known, [[count, task]]);
    }
    scene.dispatch(one);
    let waits = ["never waited for", "o9", "o10"].map(|order| wait_for_order(order, order));
    scene.done(one, (round, 1), progressed(waits.to_vec(), true));
    assert!(scene.records(round).iter().all(|it| it.ends_with(" waiting")));
    let erased = "select count(*) from tidelog_records where number < (select max(number)
                  from tidelog_workflows)";
    let records = scene.server.query_system(erased);
    assert_eq!(records, [[Value::Integer((kinds + 10).cast_signed())]]);
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
            scene.fails(one, (run, 1), progressed(vec![record("a", 0, done)], false));
            assert!(scene.records(run).is_empty());
        }
        let why = "what it records as done is neither a step nor a request";
        let reasons = scene.rows("select reason from tidelog_workflows where state = 'failed'");
        assert_eq!(reasons, [why; 4]);
    });
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
