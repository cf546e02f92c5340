//! Snapshots that completions bring.

use crate::scene::*;

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
