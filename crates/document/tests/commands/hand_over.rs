//! Commands of a local document as it becomes the server's, and by whose clock they are over.

use crate::scene::*;

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
                    let answer = self.change_locally(&change, now_ms).answer(now_ms);
                    assert_eq!(answer, Some((CompletionAnswer::Done, now_ms)));
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
