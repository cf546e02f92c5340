//! What runs wait for, and what they hear.

use crate::scene::*;

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
