use super::*;

fn record(record: u64, name: &str, kind: &str, result: Option<&str>) -> KnownRecord {
    let state = if result.is_some() { "done" } else { "waiting" }.to_owned();
    let time = result.map(|_| i64::try_from(record).expect("few"));
    let (name, kind) = (name.to_owned(), kind.to_owned());
    KnownRecord { record, name, count: 0, kind, state, result: result.map(str::to_owned), time }
}

fn progress(known: &[KnownRecord]) -> Progress {
    let known = known.iter().map(|it| ((it.name.clone(), it.count), it.clone())).collect();
    // Started by a clock that is ahead.
    Progress::new(known, 9_000, "")
}

fn sleep(progress: &mut Progress, name: &str) -> Ticket {
    progress.ask(name, Question::Wait(Recorded::Sleep { ms: 7 })).expect("it is asked")
}

fn step(progress: &mut Progress, name: &str) -> Ticket {
    progress.ask(name, Question::Work("step")).expect("it is asked")
}

/// Polls as a future does that somebody looks at.
fn look(progress: &mut Progress, ticket: Ticket) -> Poll<Told> {
    progress.take_told(ticket, &Context::from_waker(Waker::noop()))
}

fn names(next: &Next) -> Vec<&str> {
    next.records.iter().map(|(_, it)| it.name.as_str()).collect()
}

#[test]
fn what_is_remembered_is_told_in_its_order_and_not_in_that_of_the_code() {
    let known = [record(9, "a", "sleep", Some("x")), record(4, "b", "sleep", Some("y"))];
    let mut progress = progress(&known);
    let (a, b) = (sleep(&mut progress, "a"), sleep(&mut progress, "b"));
    let told: Vec<_> = std::iter::from_fn(|| progress.next_heard()).collect();
    assert_eq!([told[0].ticket, told[1].ticket], [b, a]);
    progress.tell(told[0].clone());
    assert_eq!(progress.now(), 4);
    assert_eq!(look(&mut progress, b), Poll::Ready(Told::Done(Some("y".to_owned()))));
    assert_eq!(look(&mut progress, a), Poll::Pending);
}

#[test]
fn a_run_suspends_once_nothing_but_waiting_is_left() {
    let mut progress = progress(&[record(1, "known", "sleep", Some("x"))]);
    let known = sleep(&mut progress, "known");
    let wait = sleep(&mut progress, "wait");
    let work = step(&mut progress, "work");
    assert!(!progress.want(work), "first it hears all that it remembers");
    assert!(!progress.take_next().suspends);
    // That the code does not look at what it is told keeps nobody up.
    let heard = progress.next_heard().expect("it is known");
    assert_eq!(heard.ticket, known);
    progress.tell(heard);
    assert!(progress.begin_wanted() && progress.want(work));
    progress.finish(work, Ok("1".to_owned()));
    let next = progress.take_next();
    assert_eq!((names(&next), next.suspends), (vec!["work"], false));
    progress.note_remembered(next.records, 8);
    let heard = progress.next_heard().expect("it is done");
    progress.tell(heard);
    assert_eq!(look(&mut progress, work), Poll::Ready(Told::Done(Some("1".to_owned()))));
    assert!(progress.take_next().suspends);
    assert_eq!(look(&mut progress, wait), Poll::Pending);
}

#[test]
fn a_step_that_is_given_up_keeps_nobody_up() {
    let mut progress = progress(&[]);
    let (work, _) = (step(&mut progress, "work"), sleep(&mut progress, "wait"));
    progress.want(work);
    progress.begin_wanted();
    assert!(!progress.take_next().suspends);
    progress.leave(work);
    assert!(progress.take_next().suspends);
}

#[test]
fn a_request_that_ends_before_its_beginning_was_told_is_one_record() {
    let mut progress = progress(&[]);
    let work = progress.ask("r", Question::Work("request")).expect("it is asked");
    progress.want(work);
    progress.begin_wanted();
    progress.finish(work, Ok("1".to_owned()));
    let next = progress.take_next();
    let (kind, result) = ("request".to_owned(), "1".to_owned());
    assert_eq!(next.records[0].1.what, Recorded::Done { kind, result });
    assert_eq!(next.records.len(), 1);
}

#[test]
fn what_somebody_looks_at_hears_of_a_cancel_and_nothing_else() {
    let mut progress = progress(&[]);
    let _nobody = sleep(&mut progress, "nobody looks");
    let looked = sleep(&mut progress, "looked at");
    assert_eq!(look(&mut progress, looked), Poll::Pending);
    progress.note_cancelled(true);
    progress.hear_of_cancel();
    progress.hear_of_cancel();
    let next = progress.take_next();
    assert_eq!(names(&next), ["nobody looks", "looked at"]);
    assert_eq!(next.records[1].1.what, Recorded::Cancel);
    progress.note_remembered(next.records, 1);
    let heard = progress.next_heard().expect("it is told");
    assert_eq!((heard.ticket, heard.told), (looked, Told::Cancelled));
}

#[test]
fn amid_a_step_a_cancel_is_not_swallowed_by_what_nobody_looks_at() {
    let mut progress = progress(&[]);
    let _held = sleep(&mut progress, "held and never awaited");
    let lost = sleep(&mut progress, "lost a race");
    progress.note_cancelled(false);
    assert_eq!(look(&mut progress, lost), Poll::Pending);
    let work = step(&mut progress, "work");
    progress.want(work);
    assert!(progress.begin_wanted());
    progress.note_cancelled(true);
    assert_eq!(look(&mut progress, work), Poll::Pending);
    let sent = progress.take_next();
    progress.note_remembered(sent.records, 1);
    progress.hear_of_cancel();
    progress.finish(work, Ok("1".to_owned()));
    // Before it has heard of the end of that as well.
    progress.hear_of_cancel();
    let next = progress.take_next();
    assert_eq!(names(&next), ["work"]);
    // What it does next it does not begin, but hears of it there.
    let then = step(&mut progress, "then");
    assert_eq!(look(&mut progress, then), Poll::Pending);
    assert!(!progress.want(then) && !progress.begin_wanted());
    progress.note_remembered(next.records, 2);
    let heard = progress.next_heard().expect("it is done");
    progress.tell(heard);
    assert!(matches!(look(&mut progress, work), Poll::Ready(Told::Done(_))));
    progress.hear_of_cancel();
    let next = progress.take_next();
    assert_eq!((names(&next), &next.records[0].1.what), (vec!["then"], &Recorded::Cancel));
}

#[test]
fn a_cancel_is_not_swallowed_by_what_has_lost_a_race_and_is_kept() {
    let mut progress = progress(&[]);
    let loser = sleep(&mut progress, "kept loser");
    assert_eq!(look(&mut progress, loser), Poll::Pending);
    let later = sleep(&mut progress, "later");
    assert_eq!(look(&mut progress, later), Poll::Pending);
    let sent = progress.take_next();
    progress.note_remembered(sent.records, 1);
    progress.note_cancelled(true);
    progress.hear_of_cancel();
    assert_eq!(names(&progress.take_next()), ["later"]);
}

#[test]
fn what_waits_beside_a_step_hears_of_a_cancel_at_once() {
    for is_step_last in [false, true] {
        let mut progress = progress(&[]);
        let (nap, work) = (sleep(&mut progress, "nap"), step(&mut progress, "work"));
        progress.want(work);
        progress.begin_wanted();
        progress.note_cancelled(true);
        for ticket in if is_step_last { [nap, work] } else { [work, nap] } {
            assert_eq!(look(&mut progress, ticket), Poll::Pending);
        }
        progress.hear_of_cancel();
        assert_eq!(progress.take_next().records[0].1.what, Recorded::Cancel);
    }
}

/// Goal: what may have been carried out is known before its run hears of a cancel. Method: it is
/// looked at beside what waits and what is not begun.
#[test]
fn what_was_begun_is_asked_once_more_before_anything_hears_of_a_cancel() {
    let mut known = record(1, "pay", "request", None);
    known.state = "started".to_owned();
    let mut progress = progress(&[known]);
    let (nap, work) = (sleep(&mut progress, "nap"), step(&mut progress, "work"));
    let pay = progress.ask("pay", Question::Work("request")).expect("it is asked");
    progress.note_cancelled(true);
    for ticket in [pay, nap, work] {
        assert_eq!(look(&mut progress, ticket), Poll::Pending);
        progress.want(ticket);
    }
    progress.hear_of_cancel();
    assert!(progress.begin_wanted() && progress.want(pay) && !progress.want(work));
    progress.hear_of_cancel();
    let sent = progress.take_next();
    assert_eq!(names(&sent), ["nap"]);
    progress.note_remembered(sent.records, 1);
    progress.finish(pay, Ok("1".to_owned()));
    let sent = progress.take_next();
    progress.note_remembered(sent.records, 2);
    let heard = progress.next_heard().expect("it is done");
    progress.tell(heard);
    assert!(matches!(look(&mut progress, pay), Poll::Ready(Told::Done(_))));
    progress.hear_of_cancel();
    assert_eq!(progress.take_next().records[0].1.what, Recorded::Cancel);
}

/// Goal: what a run was told of is the same at each attempt. Method: of two waits one is given up,
/// and something else is told behind that; in one attempt, and in a second one.
#[test]
fn the_last_event_that_was_told_is_so_whoever_looks_at_it() {
    let event = |progress: &mut Progress, name: &str| {
        let of = |it: &str| it.to_owned();
        let (aggregate, stream, event) = (of("order"), of(name), of("shipped"));
        let wait = Recorded::WaitFor { aggregate, stream, event, timeout_ms: 0 };
        progress.ask(name, Question::Wait(wait)).expect("it is asked")
    };
    let known = [
        record(3, "a", "event", Some("1")),
        record(4, "b", "event", Some("2")),
        record(5, "step", "step", Some("x")),
    ];
    for is_known in [false, true] {
        let mut progress = progress(if is_known { &known } else { &known[..2] });
        let (_a, b) = (event(&mut progress, "a"), event(&mut progress, "b"));
        let heard = progress.next_heard().expect("it is there");
        progress.tell(heard);
        assert_eq!(progress.told(), 3);
        progress.leave(b);
        step(&mut progress, "step");
        while let Some(heard) = progress.next_heard() {
            progress.tell(heard);
        }
        assert_eq!(progress.told(), 4);
    }
}

#[test]
fn another_kind_by_a_name_stops_the_run_and_it_asks_for_nothing_more() {
    let mut progress = progress(&[record(1, "label", "step", Some("x"))]);
    assert_eq!(progress.ask("label", Question::Work("request")), None);
    assert!(matches!(progress.outcome(), Some(Outcome::Stopped { .. })));
    assert_eq!(progress.ask("other", Question::Work("request")), None);
    assert!(progress.take_next().records.is_empty());
}

#[test]
fn a_run_remembers_10_000_things_and_has_failed_with_one_more() {
    let mut progress = progress(&[]);
    for _ in 0..WORKFLOW_RECORDS_MAX {
        sleep(&mut progress, "nap");
    }
    assert_eq!(progress.outcome(), None);
    assert_eq!(progress.take_next().records.len(), COMPLETION_ITEMS_MAX);
    sleep(&mut progress, "nap");
    assert!(matches!(progress.outcome(), Some(Outcome::Failed { is_final: true, .. })));
}

#[test]
fn what_is_large_travels_in_parts() {
    let mut progress = progress(&[]);
    for at in 0..20 {
        let work = step(&mut progress, "large");
        progress.want(work);
        progress.begin_wanted();
        progress.finish(work, Ok("x".repeat(256 * 1024)));
        assert_eq!(progress.count_of("large"), at + 1);
    }
    let counts = [(); 3].map(|()| progress.take_next().records.len());
    assert_eq!(counts, [16, 4, 0]);
}
