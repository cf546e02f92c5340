//! What an operator does with commands.

use crate::scene::*;

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

    pub(crate) fn cancel(&mut self, number: u64) -> Intervened {
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
