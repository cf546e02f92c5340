//! What completions bring, and what is refused before.

use crate::scene::*;

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
