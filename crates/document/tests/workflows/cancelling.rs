//! Runs that are cancelled.

use crate::scene::*;

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
        // What is said again changes nothing.
        scene.done(one, (1, 2), progressed(vec![cancel("wait")], false));
        scene.done(one, (1, 2), progressed(vec![cancel("wait")], true));
        let heard = ["call 0 request started", "wait 0 cancel failed"];
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

/// Goal: a run hears once of a cancel, and of one that there is, and not in place of what it may
/// have carried out, which stays known.
#[test]
fn a_cancel_that_no_run_hears_of_fails_the_run() {
    with_shop(|mut scene| {
        for id in ["none", "twice", "begun"] {
            scene.start(id);
        }
        let one = scene.register();
        scene.dispatch(one);
        let cancel = |name: &str| record(name, 0, Recorded::Cancel);
        let begun = record("call", 0, Recorded::Begun);
        scene.done(one, (3, 1), progressed(vec![begun, wait_for("wait", "paid", 0)], false));
        ["twice", "begun"].iter().for_each(|id| scene.cancel(id));
        scene.fails(one, (1, 1), progressed(vec![cancel("a")], false));
        scene.fails(one, (2, 1), progressed(vec![cancel("a"), cancel("b")], false));
        scene.fails(one, (3, 1), progressed(vec![cancel("call")], false));
        let reason = |id: &str, scene: &mut Scene| match &scene.over("fulfil", id)[1] {
            Value::Text(reason) => reason.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(reason("none", &mut scene), "it has no cancel to hear of");
        assert_eq!(reason("twice", &mut scene), "it has no cancel to hear of");
        let of_begun = "it hears of a cancel where it waits for nothing";
        assert_eq!(reason("begun", &mut scene), of_begun);
        let requests = "select state from tidelog_requests";
        assert_eq!(scene.rows(requests), ["started"]);
    });
}

/// Goal: no event is lost to a run that hears in place of one that it is cancelled. Method: it has
/// two waits for the same, hears at the first, and each event is told by another one of them.
#[test]
fn an_event_that_a_cancelled_run_did_not_hear_of_is_given_to_what_waits_for_the_next() {
    for ships in 1..=3 {
        with_shop(|mut scene| {
            scene.start("f");
            let one = scene.register();
            scene.dispatch(one);
            let waits = ["a", "b", "c"].map(|name| wait_for(name, "shipped", 0));
            scene.done(one, (1, 1), progressed(waits.to_vec(), true));
            scene.cancel("f");
            scene.dispatch(one);
            for _ in 0..ships {
                scene.ship("o1");
            }
            let heard = vec![record("b", 0, Recorded::Cancel)];
            scene.done(one, (1, 2), progressed(heard, true));
            scene.dispatch(one);
            let mut told = vec!["a 0 event done 1".to_owned()];
            match ships {
                1 => told.insert(0, "c 0 event waiting".to_owned()),
                _ => told.push("c 0 event done 2".to_owned()),
            }
            let mut records = scene.records(1);
            records.retain(|it| it != "b 0 cancel failed");
            assert_eq!(records, told);
            let next = progressed(vec![wait_for("d", "shipped", 0)], true);
            scene.done(one, (1, 3), next);
            let of_last = match ships {
                3 => "d 0 event done 3",
                _ => "d 0 event waiting",
            };
            assert_eq!(scene.records(1).last().map(String::as_str), Some(of_last));
        });
    }
}

/// Goal: whatever a run has started before it hears that it is cancelled is cancelled with it.
/// Method: it starts one before the cancel, and one between that and hearing of it.
#[test]
fn what_a_run_starts_before_it_hears_that_it_is_cancelled_is_cancelled_too() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        let start = |name: &str, id: &str| record(name, 0, Recorded::Start(child(id)));
        scene.done(one, (1, 1), progressed(vec![start("a", "p")], false));
        scene.cancel("f");
        scene.done(one, (1, 1), progressed(vec![start("b", "q")], true));
        let of = "select id || ' ' || state from tidelog_workflows where workflow = 'pack'";
        assert_eq!(scene.rows(of), ["p cancelled", "q cancelled"]);
        scene.dispatch(one);
        assert_eq!(scene.given(one), ["1.2 f!"]);
        let failed = ["a 0 workflow failed cancelled", "b 0 workflow failed cancelled"];
        assert_eq!(scene.records(1), failed);
    });
}

/// Goal: a run that has heard that it is cancelled is not asked to hear it again.
#[test]
fn a_run_that_has_heard_of_a_cancel_waits_on_whoever_cancels_it_again() {
    with_shop(|mut scene| {
        scene.start("f");
        let one = scene.register();
        scene.dispatch(one);
        scene.cancel("f");
        let waits = ["b", "c"].map(|name| wait_for(name, "shipped", 0));
        let heard = [vec![record("a", 0, Recorded::Cancel)], waits.to_vec()].concat();
        scene.done(one, (1, 1), progressed(heard, true));
        // It was cancelled while that attempt was under way, and has heard since.
        scene.dispatch(one);
        scene.done(one, (1, 2), progressed(vec![], true));
        let of_run = "select state || ' ' || attempt from tidelog_workflows";
        assert_eq!(scene.rows(of_run), ["waiting 2"]);
        scene.cancel("f");
        scene.dispatch(one);
        assert_eq!(scene.rows(of_run), ["waiting 2"]);
        // Nor is anybody asked again whose code does not fit it, where something happens meanwhile.
        scene.ship("o1");
        scene.dispatch(one);
        scene.ship("o1");
        scene.cancel("f");
        scene.done(one, (1, 3), Outcome::Stopped { reason: "no".to_owned() });
        scene.dispatch(one);
        assert_eq!(scene.rows(of_run), ["stopped 3"]);
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

/// Goal: a run that was cancelled hears of it once, also where it goes on as new. Method: it does
/// so behind that, and before it has heard of it.
#[test]
fn a_cancelled_run_that_goes_on_as_new_hears_of_it_once() {
    with_shop(|mut scene| {
        let one = scene.register();
        scene.start("f");
        scene.dispatch(one);
        scene.cancel("f");
        scene.done(one, (1, 1), again());
        scene.dispatch(one);
        assert_eq!(scene.given(one), ["2.1 f!"], "it is the new one that hears of it");
        let heard = vec![record("a", 0, Recorded::Cancel)];
        scene.done(one, (2, 1), progressed(heard, false));
        scene.done(one, (2, 1), again());
        scene.dispatch(one);
        assert_eq!(scene.given(one), ["3.1 f"]);
        // Somebody else has cancelled it too, and is late.
        scene.cancel("f");
        assert_eq!(scene.given(one), ["3.1 f"]);
        let is_so = "select 'yes' from tidelog_workflows where number = 3 and is_cancelled = 1";
        assert_eq!(scene.rows(is_so), ["yes"]);
        scene.done(one, (3, 1), again());
        scene.dispatch(one);
        assert_eq!(scene.given(one), ["4.1 f"]);
        // Nor does that take from it what it has begun since, perhaps to undo the rest.
        let begun = vec![record("undo", 0, Recorded::Start(child("r")))];
        scene.done(one, (4, 1), progressed(begun, false));
        scene.cancel("f");
        let of_undo = "select state from tidelog_workflows where workflow = 'pack'";
        assert_eq!(scene.rows(of_undo), ["received"]);
        // What no code fits is not told to be for everybody.
        scene.done(one, (4, 1), Outcome::Stopped { reason: "no".to_owned() });
        let of_run = "select state from tidelog_workflows where number = 4";
        assert_eq!(scene.rows(of_run), ["stopped"]);
        scene.cancel("f");
        assert_eq!(scene.rows(of_run), ["stopped"]);
    });
}

/// The same of what it has begun within the round in which it has heard.
#[test]
fn a_run_that_has_heard_of_a_cancel_keeps_what_it_begins_then() {
    with_shop(|mut scene| {
        let one = scene.register();
        scene.start("f");
        scene.dispatch(one);
        scene.cancel("f");
        let begun =
            vec![record("a", 0, Recorded::Cancel), record("undo", 0, Recorded::Start(child("r")))];
        scene.done(one, (1, 1), progressed(begun, false));
        scene.cancel("f");
        let of_undo = "select state from tidelog_workflows where workflow = 'pack'";
        assert_eq!(scene.rows(of_undo), ["received"]);
    });
}

/// Goal: what the code of a run has begun it can always undo. Method: it is cancelled as it goes on
/// as new, before that is given to anybody; also where it was cancelled before, and had not heard.
#[test]
fn a_run_that_is_cancelled_as_it_goes_on_as_new_hears_of_it() {
    for is_cancelled_before in [false, true] {
        with_shop(|mut scene| {
            let one = scene.register();
            scene.start("f");
            scene.dispatch(one);
            if is_cancelled_before {
                scene.cancel("f");
            }
            scene.done(one, (1, 1), again());
            scene.cancel("f");
            scene.dispatch(one);
            assert_eq!(scene.given(one), ["2.1 f!"]);
        });
    }
}
