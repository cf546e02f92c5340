//! Commands as they are given to handlers, and what becomes of that.

use std::collections::BTreeSet;

use tidelog_document::find_due;
use tidelog_sqlite::Run;

use crate::scene::*;

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

/// Goal: a command that the newest release of an app has no more is not lost by one bad moment of
/// the release that handles it. Method: it fails once.
#[test]
fn a_command_that_is_known_no_more_is_tried_again() {
    with_shop(|mut scene| {
        scene.send("o1", "pay", "{}", "k");
        scene.doctype.streams[0].commands.retain(|it| it.name != "pay");
        let one = scene.register();
        scene.dispatch(one, 1);
        scene.complete(one, [1, 1, 0], failed("busy", false));
        assert_eq!(scene.rows(COMMANDS), ["1 o1 pay received 1 busy"]);
        scene.now_ms += 1_000;
        scene.dispatch(one, 1);
        scene.complete(one, [1, 2, 0], failed("no", true));
        assert_eq!(scene.rows(COMMANDS), ["1 o1 pay failed 2 no"]);
    });
}

/// Goal: nor does one for which its older release does not come to an end hold up its stream.
#[test]
fn a_command_that_is_known_no_more_is_late_one_day() {
    with_shop(|mut scene| {
        scene.send("o1", "pay", "{}", "k");
        scene.doctype.streams[0].commands.retain(|it| it.name != "pay");
        let one = scene.register();
        scene.dispatch(one, 1);
        scene.now_ms += 599_999;
        scene.dispatch(one, 1);
        assert_eq!(scene.rows(COMMANDS), ["1 o1 pay started 1 "]);
        scene.now_ms += 1;
        scene.dispatch(one, 1);
        assert_eq!(scene.rows(COMMANDS), ["1 o1 pay received 1 it has taken too long"]);
    });
}

/// It is given all that it may be, and none of that fits its code.
fn stop_all(scene: &mut Scene, instance: InstanceId) {
    loop {
        scene.dispatch(instance, 64);
        let given = scene.given(instance);
        if given.is_empty() {
            break;
        }
        for (number, attempt, _) in given {
            let [number, attempt] = [number, attempt].map(i64::unsigned_abs);
            let outcome = Outcome::Stopped { reason: String::new() };
            scene.complete(instance, [number, attempt, 0], outcome);
        }
    }
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
        stop_all(&mut scene, one);
        scene.server.authority.take_steps();
        scene.dispatch(one, 64);
        steps.push(scene.server.authority.take_steps());
    }
    assert!(steps[1] < steps[0] + 100, "{steps:?}");
}

/// Goal: what fits somebody else alone costs a dispatch nothing, and hides nothing that is behind
/// it. Method: many commands that fit neither of two handlers, in whichever order they have said
/// so, and are left to a third one; the steps of a dispatch to these, and of one more command.
#[test]
fn a_dispatch_costs_the_same_however_many_fit_somebody_else() {
    let mut scene = limited_shop(usize::MAX, Limits::DEFAULT);
    let [one, two, _newer] = [scene.register(), scene.register(), scene.register()];
    let mut steps = Vec::new();
    for many in [10, 300] {
        for nth in 0..many {
            scene.send(&format!("{many}-{nth}"), "pay", "{}", "k");
        }
        loop {
            scene.dispatch_to(&[one, two], 8);
            let given = [one, two].map(|it| scene.given(it));
            if given.iter().all(Vec::is_empty) {
                break;
            }
            for (instance, given) in [one, two].into_iter().zip(given) {
                for (number, attempt, _) in given {
                    let [number, attempt] = [number, attempt].map(i64::unsigned_abs);
                    let outcome = Outcome::Stopped { reason: String::new() };
                    scene.complete(instance, [number, attempt, 0], outcome);
                }
            }
        }
        scene.server.authority.take_steps();
        scene.dispatch_to(&[one, two], 64);
        let vain = scene.server.authority.take_steps();
        scene.send(&format!("{many}-more"), "pay", "{}", "k");
        scene.server.authority.take_steps();
        scene.dispatch_to(&[two], 64);
        steps.push([vain, scene.server.authority.take_steps()]);
        let [(number, attempt, _)] = scene.given(two)[..] else { panic!("the one behind") };
        let [number, attempt] = [number, attempt].map(i64::unsigned_abs);
        scene.complete(two, [number, attempt, 0], placed(0));
    }
    assert_eq!(scene.count("_tidelog_task where state = 'ready'"), 310);
    let unfit = "(select distinct unfit from _tidelog_task where state = 'ready')";
    assert_eq!(scene.count(unfit), 1, "in one order, whoever was asked first");
    let is_same = |of: usize| steps[1][of] < steps[0][of] + 100;
    assert!(is_same(0) && is_same(1), "{steps:?}");
}

/// Goal: to find what is due costs the same however much there is, and to leave what one has
/// stopped writes no more than that one is gone. Method: many commands that wait for a handler, and
/// then for one whose code fits; the steps of a look, and the pages that change as the one leaves
/// whose code does not.
#[test]
fn a_look_at_what_is_due_and_a_leave_cost_the_same_however_many_wait() {
    let costs = [10, 300].map(|many| {
        let mut scene = limited_shop(usize::MAX, Limits::DEFAULT);
        let note = "n".repeat(1_000);
        for nth in 0..many {
            scene.send(&format!("{nth}-{note}"), "pay", "{}", "k");
        }
        let look = |scene: &mut Scene| {
            scene.server.authority.take_steps();
            let due = find_due(scene.server.authority.reader(), 0);
            let Run::Done(due) = due else { panic!("a fault") };
            (due, scene.server.authority.take_steps())
        };
        let (ready, of_ready) = look(&mut scene);
        assert_eq!((ready.at_ms.len(), ready.stopped.len()), (1, 0));
        let one = scene.register();
        let other = scene.register();
        stop_all(&mut scene, one);
        let before = scene.server.rest.image();
        scene.change(&Change::Deregister(one));
        let after = scene.server.rest.image();
        let pages = before.chunks(4096).zip(after.chunks(4096));
        let changed = pages.filter(|(before, after)| before != after).count() as u64;
        scene.change(&Change::Deregister(other));
        [of_ready, changed]
    });
    let is_same = |of: usize, more: u64| costs[1][of] <= costs[0][of] + more;
    assert!(is_same(0, 100) && is_same(1, 2), "{costs:?}");
}

/// Goal: tasks are given in the order of their times, and of their numbers, whomever they fit.
/// Method: some that fit all, before and behind others that fit but one; one is tried again later.
#[test]
fn what_fits_few_is_given_in_its_order() {
    with_shop(|mut scene| {
        let [busy, older, newer] = [scene.register(), scene.register(), scene.register()];
        for nth in 1..=6 {
            scene.send(&nth.to_string(), "pay", "{}", "k");
        }
        // The first two are held, the next two fit one alone.
        scene.dispatch(busy, 2);
        scene.dispatch(older, 2);
        for number in [3, 4] {
            let outcome = Outcome::Stopped { reason: String::new() };
            scene.complete(older, [number, 1, 0], outcome);
        }
        scene.complete(busy, [1, 1, 0], failed("busy", false));
        scene.change(&Change::Deregister(busy));
        scene.now_ms += 2_000;
        let order = [2, 3, 4, 5, 6, 1];
        for count in 1..=order.len() {
            scene.dispatch(newer, count as u32);
            let numbers: BTreeSet<i64> = scene.given(newer).iter().map(|it| it.0).collect();
            assert_eq!(numbers, order[..count].iter().copied().collect());
        }
    });
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

/// The steps in which it is given one task, which comes to this.
fn steps_of_one(scene: &mut Scene, instance: InstanceId, outcome: Outcome) -> u64 {
    scene.server.authority.take_steps();
    scene.dispatch(instance, 1);
    let steps = scene.server.authority.take_steps();
    let [(number, attempt, _)] = scene.given(instance)[..] else { panic!("one of them") };
    let [number, attempt] = [number, attempt].map(i64::unsigned_abs);
    scene.complete(instance, [number, attempt, 0], outcome);
    steps
}

/// Goal: what has failed everywhere for a while is handled as quickly as anything else once that is
/// over. Method: many commands that have failed once at the only handler, and are due again; the
/// steps of a dispatch.
#[test]
fn a_dispatch_costs_the_same_however_many_have_failed_once() {
    let mut scene = limited_shop(usize::MAX, Limits::DEFAULT);
    let one = scene.register();
    let mut steps = Vec::new();
    for many in [100, 900] {
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
                scene.complete(one, [number, attempt, 0], failed("not now", false));
            }
        }
        scene.now_ms += 60_000;
        steps.push(steps_of_one(&mut scene, one, failed("not now", false)));
    }
    assert!(steps[1] < steps[0] + 300, "{steps:?}");
}

/// Goal: whoever is given one task pays for one. Method: the steps of a dispatch of one that is
/// ready alone, and of one among many.
#[test]
fn a_dispatch_looks_at_what_it_gives() {
    let mut scene = limited_shop(usize::MAX, Limits::DEFAULT);
    let one = scene.register();
    let mut steps = Vec::new();
    for many in [1, 200] {
        for nth in 0..many {
            scene.send(&format!("{many}-{nth}"), "pay", "{}", "k");
        }
        steps.push(steps_of_one(&mut scene, one, failed("no", true)));
    }
    assert!(steps[1] < steps[0] + 300, "{steps:?}");
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
