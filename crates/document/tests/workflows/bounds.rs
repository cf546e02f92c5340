//! How much runs may remember and wait for, and how long they are kept.

use crate::scene::*;

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
        scene.fails(one, (6, 1), progressed(vec![step("larger", &larger)], false));
        let expected = "a result has 262145 bytes, and may have 262144";
        assert_eq!(reason(&mut scene, "f"), expected);
        scene.fails(one, (7, 1), progressed(vec![step("none", "{")], false));
        assert_eq!(reason(&mut scene, "g"), "a result is no JSON");
        scene.fails(one, (2, 1), progressed(vec![step("", "1")], false));
        assert!(reason(&mut scene, "b").starts_with("the name of what it records"));
        let args = r#"{"order":1}"#.to_owned();
        scene.done(one, (3, 1), Outcome::Continued { args });
        assert!(reason(&mut scene, "c").starts_with("workflow fulfil cannot go on as new: "));
        let none =
            Outcome::Completed { events: vec![], sends: vec![], starts: vec![], snapshot: None };
        scene.done(one, (4, 1), none);
        assert_eq!(reason(&mut scene, "d"), "it has ended as no workflow does");
        let refused = (0..17).map(|count| record("x", count, Recorded::Send(pay("poor"))));
        scene.fails(one, (5, 1), progressed(refused.collect(), false));
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
        scene.fails(one, (1, 1), steps(10_000, 1));
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

/// Goal: however a run has come to its end, it is forgotten.
#[test]
fn runs_that_were_cancelled_or_go_on_are_forgotten() {
    with_shop(|mut scene| {
        scene.start("f");
        scene.start("g");
        scene.cancel("g");
        let one = scene.register();
        scene.dispatch(one);
        scene.done(one, (1, 1), again());
        scene.now_ms += Limits::DEFAULT.command_completed_ms + 1;
        scene.dispatch(one);
        assert_eq!(scene.rows(RUNS), ["3 fulfil f 1 started 1 0 "]);
    });
}
