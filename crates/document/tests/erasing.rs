//! Erasing what events, commands and runs say.

mod common;

use common::*;
use tidelog_document::{
    Change, Changed, CommandDefinition, CommandRef, Completion, Doctype, Erasable, EraseRefusal,
    Erased, ErasedUpTo, EventDefinition, FoundEvents, Free, InstanceId, Intervened, Intervention,
    MutationDefinition, NewEvent, NewRecord, NewSnapshot, Outcome, Param, ParamKind, Recorded,
    StreamDefinition, TaskKind, WantedEvents, WorkflowDefinition, find_events, sending, starting,
};
use tidelog_sqlite::Failure;
use tidelog_types::{ClientId, Value};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What is erased, and may be nowhere then; and what others have said, which stays.
const SECRET: &str = "Lovelace";
const OTHER: &str = "Babbage";

fn param(name: &str) -> Param {
    Param { name: name.to_owned(), kind: ParamKind::Text, optional: false }
}

/// Orders that are noted and placed; of a note the second version is shorter.
fn shop() -> Doctype {
    let event = |name: &str, upcasts: &[&str]| EventDefinition {
        name: name.to_owned(),
        fields: vec![param("text")],
        upcasts: upcasts.iter().map(ToString::to_string).collect(),
        project: Vec::new(),
    };
    let note = "insert into tidelog_events (aggregate, stream, type, data)
                values ('order', :id, 'noted', json_object('text', :text))";
    Doctype {
        name: "shop".to_owned(),
        migrations: vec!["create table orders (id text primary key) strict".to_owned()],
        mutations: vec![MutationDefinition {
            name: "note".to_owned(),
            params: vec![param("id"), param("text")],
            sql: vec![note.to_owned()],
        }],
        streams: vec![StreamDefinition {
            name: "order".to_owned(),
            events: vec![
                event("noted", &["json_object('text', substr(:data ->> 'text', 1, 3))"]),
                event("placed", &[]),
            ],
            commands: vec![CommandDefinition {
                name: "place".to_owned(),
                fields: vec![param("text")],
                received: Vec::new(),
                failed: Vec::new(),
                retries: 0,
                timeout_ms: 30_000,
            }],
        }],
        workflows: vec![WorkflowDefinition {
            name: "fulfil".to_owned(),
            version: 1,
            fields: vec![param("text")],
        }],
    }
}

/// An authority, and a device that follows it.
struct Scene {
    doctype: Doctype,
    server: Server,
    device: Device,
    handler: InstanceId,
    now_ms: u64,
}

fn with_shop(scenario: impl Fn(Scene)) {
    for pool in POOLS {
        let doctype = shop();
        let server = Server::new(9, pool, &doctype);
        let device = Device::following(1, pool, &doctype, &server);
        let (handler, now_ms) = (InstanceId(0), 10 * DAY_MS);
        let mut scene = Scene { doctype, server, device, handler, now_ms };
        let (client, user, kinds) = (ClientId([7; 16]), "ada".to_owned(), Vec::new());
        match scene.change(&Change::Register { client, user, kinds }) {
            Changed::Registered(handler) => scene.handler = handler,
            other => panic!("{other:?}"),
        }
        scenario(scene);
    }
}

/// About so many bytes that say it.
fn said(word: &str, size: usize) -> String {
    format!("{word} ").repeat(1 + size / (word.len() + 1))
}

fn order(stream: &str) -> Erasable {
    Erasable::Stream { aggregate: "order".to_owned(), stream: stream.to_owned() }
}

fn run(id: &str) -> Erasable {
    Erasable::Run { workflow: "fulfil".to_owned(), id: id.to_owned() }
}

fn has(image: &[u8], word: &str) -> bool {
    image.windows(word.len()).any(|bytes| bytes == word.as_bytes())
}

impl Scene {
    fn issue(&mut self, name: &str, args: &[(&str, Value)]) -> Result<(), Failure> {
        follow(&self.server, &mut self.device);
        let issued = self.device.try_issue(&self.doctype, name, args).map(drop);
        converge(&mut self.server, &mut self.device);
        issued
    }

    fn note(&mut self, id: &str, said: &str) {
        self.issue("note", &[("id", text(id)), ("text", text(said))]).expect("noted");
    }

    fn send(&mut self, stream: &str, said: &str, key: &str) -> Result<(), Failure> {
        let args = text(&format!("{{\"text\":\"{said}\"}}"));
        let name = sending("order", "place");
        self.issue(&name, &[("stream", text(stream)), ("args", args), ("key", text(key))])
    }

    fn start(&mut self, id: &str, said: &str) {
        let args = text(&format!("{{\"text\":\"{said}\"}}"));
        self.issue(&starting("fulfil"), &[("id", text(id)), ("args", args)]).expect("started");
    }

    fn change(&mut self, change: &Change) -> Changed {
        let view = self.server.authority.view().clone();
        let Self { server, doctype, now_ms, .. } = self;
        let changed =
            server.rest.serve(&view, || server.authority.change(change, doctype, *now_ms));
        let (changed, committed) = changed.expect("decided");
        if let Some(committed) = committed {
            server.keep(committed, None);
        }
        changed
    }

    /// Gives what there is to the handler, and ends it like this.
    fn handle(&mut self, outcome: impl Fn() -> Outcome) {
        let instance = self.handler;
        let kind = |aggregate: &str, name: &str| TaskKind {
            aggregate: aggregate.to_owned(),
            name: name.to_owned(),
        };
        let kinds = vec![kind("order", "place"), kind("fulfil", "1")];
        self.change(&Change::Dispatch(vec![Free { instance, kinds, concurrency: 9 }]));
        let given = "select number, attempt, coalesce((select length from _tidelog_stream as of
                       where of.aggregate = task.aggregate and of.stream = task.stream), 0)
                     from _tidelog_task as task where state = 'started'";
        for row in self.server.query_system(given) {
            let [Value::Integer(task), Value::Integer(attempt), Value::Integer(position)] = row[..]
            else {
                panic!("{row:?}")
            };
            let [task, attempt, position] = [task, attempt, position].map(i64::cast_unsigned);
            let completion = Completion { task, attempt, position, outcome: outcome() };
            self.change(&Change::Complete { instance, completion });
        }
    }

    fn slice(&mut self, what: &Erasable, after: ErasedUpTo) -> Result<Erased, EraseRefusal> {
        match self.change(&Change::Erase { what: what.clone(), after }) {
            Changed::Erased(erased) => erased,
            other => panic!("{other:?}"),
        }
    }

    /// Events, commands, runs, records, and how many slices it took.
    fn erase(&mut self, what: &Erasable) -> Result<[u64; 5], EraseRefusal> {
        let (mut all, mut after) = ([0; 5], ErasedUpTo::default());
        loop {
            let Erased { events, commands, runs, records, next } = self.slice(what, after)?;
            for (sum, more) in all.iter_mut().zip([events, commands, runs, records, 1]) {
                *sum += more;
            }
            let Some(next) = next else { break };
            assert!(next > after, "it comes to its end");
            after = next;
        }
        follow(&self.server, &mut self.device);
        assert!(self.device.image() == self.server.rest.image(), "a device has the same");
        Ok(all)
    }

    fn rows(&mut self, sql: &str) -> Vec<String> {
        let rows = self.server.query(sql);
        let cell = |row: Vec<Value>| match row.into_iter().next() {
            Some(Value::Text(text)) => text,
            other => panic!("{other:?}"),
        };
        rows.into_iter().map(cell).collect()
    }

    /// What loops are told of the events: position, data, and whether they are erased.
    fn told(&mut self, stream: &str) -> Vec<String> {
        let wanted = WantedEvents {
            aggregate: Some("order".to_owned()),
            stream: Some(stream.to_owned()),
            ..WantedEvents::default()
        };
        let view = self.server.authority.view().clone();
        let Self { server, doctype, .. } = self;
        let find = || find_events(server.authority.reader(), doctype, &wanted, None);
        let FoundEvents::Some(rows) = server.rest.serve(&view, find).expect("found") else {
            return Vec::new();
        };
        let place = |name: &str| rows.columns.iter().position(|it| it == name).expect("a column");
        let places = ["position", "data", "erased"].map(place);
        let cell = |value: &Value| match value {
            Value::Text(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            other => panic!("{other:?}"),
        };
        rows.decode().iter().map(|row| places.map(|it| cell(&row[it])).join(" ")).collect()
    }
}

fn placed(word: &str, size: usize) -> Outcome {
    let data = format!("{{\"text\":\"{}\"}}", said(word, size));
    let events = vec![NewEvent { name: "placed".to_owned(), data }];
    Outcome::Completed { events, sends: Vec::new(), starts: Vec::new(), snapshot: None }
}

const EVENTS: &str = "select sequence || ' ' || stream || ' ' || position || ' ' || type || ' ' ||
                      iif(user || client = '', '-', 'by') || ' ' || coalesce(data, 'null') || ' ' ||
                      erased from tidelog_events order by sequence";
const COMMANDS: &str = "select number || ' ' || stream || ' ' || state || ' ' ||
                        iif(user || client = '', '-', 'by') || ' ' || coalesce(args, 'null') ||
                        ' ' || coalesce(key, 'null') || ' ' ||
                        coalesce(reason, first || '-' || last)
                        from tidelog_commands order by number";

/// Goal: what is erased is gone, and what happened stays in its place. Method: two orders, one of
/// them erased.
#[test]
fn what_a_stream_says_is_erased_and_its_events_keep_their_places() {
    with_shop(|mut scene| {
        scene.note("o1", "Ada");
        scene.note("o2", "Charles");
        scene.send("o1", "Ada", "k").expect("sent");
        scene.handle(|| placed("Ada", 0));
        scene.send("o1", "Ada", "k2").expect("sent");
        scene.handle(|| Outcome::Failed { reason: "not Ada".to_owned(), is_final: true });
        assert_eq!(scene.erase(&order("o1")), Ok([2, 2, 0, 0, 1]));
        assert_eq!(
            scene.rows(EVENTS),
            [
                "1 o1 1 noted - null 1",
                r#"2 o2 1 noted by {"text":"Charles"} 0"#,
                "3 o1 2 placed - null 1"
            ]
        );
        let commands = ["1 o1 completed - null k 3-3", "2 o1 failed - null k2 erased"];
        assert_eq!(scene.rows(COMMANDS), commands);
        assert_eq!(scene.told("o1"), ["1 {} 1", "2 {} 1"], "and no upcast has run on it");
        assert_eq!(scene.told("o2"), [r#"1 {"text":"Charles"} 0"#]);
        scene.note("o1", "anew");
        assert_eq!(scene.told("o1"), ["1 {} 1", "2 {} 1", r#"3 {"text":"anew"} 0"#]);
        assert_eq!(scene.erase(&order("o1")), Ok([1, 0, 0, 0, 1]), "what came since");
        assert_eq!(scene.erase(&order("o1")), Ok([0, 0, 0, 0, 1]), "nothing is left");
    });
}

/// Goal: what events come to says what they said, and goes with them; others' stay.
#[test]
fn what_events_come_to_is_erased_with_them() {
    with_shop(|mut scene| {
        for (stream, word) in [("o1", SECRET), ("o2", OTHER)] {
            scene.note(stream, word);
            scene.send(stream, "", stream).expect("sent");
            scene.handle(|| {
                let Outcome::Completed { events, sends, starts, .. } = placed("", 0) else {
                    unreachable!()
                };
                let state = format!("{{\"by\":\"{word}\"}}");
                let snapshot = Some(NewSnapshot { name: "v1".to_owned(), state });
                Outcome::Completed { events, sends, starts, snapshot }
            });
        }
        let kept = "select stream from tidelog_snapshots order by stream";
        assert_eq!(scene.rows(kept), ["o1", "o2"]);
        scene.erase(&order("o1")).expect("erased");
        assert_eq!(scene.rows(kept), ["o2"]);
        let image = scene.server.rest.image();
        assert_eq!([SECRET, OTHER].map(|word| has(&image, word)), [false, true]);
    });
}

/// Goal: an older release's data are never brought up to date once they are erased.
#[test]
fn no_upcast_runs_on_what_was_erased() {
    with_shop(|mut scene| {
        let of_before = {
            let mut doctype = scene.doctype.clone();
            doctype.streams[0].events[0].upcasts.clear();
            doctype
        };
        scene.server.learn(&of_before);
        let newest = std::mem::replace(&mut scene.doctype, of_before.clone());
        scene.device.reopen(&[&newest, &of_before]);
        scene.note("o1", "Lovelace");
        scene.doctype = newest;
        assert_eq!(scene.told("o1"), [r#"1 {"text":"Lov"} 0"#]);
        scene.erase(&order("o1")).expect("erased");
        assert_eq!(scene.told("o1"), ["1 {} 1"]);
    });
}

/// Goal: what is erased is not done again by whoever sends it again. Method: a key is used once
/// more, with the same arguments and with others, then after it counts no longer.
#[test]
fn a_key_counts_as_long_as_it_would_have() {
    with_shop(|mut scene| {
        scene.send("o1", "Ada", "k").expect("sent");
        scene.handle(|| placed("Ada", 0));
        scene.erase(&order("o1")).expect("erased");
        for said in ["Ada", "anybody"] {
            scene.send("o1", said, "k").expect("it was sent before");
            assert_eq!(scene.rows(COMMANDS), ["1 o1 completed - null k 1-1"]);
        }
        scene.now_ms += DAY_MS + 1;
        scene.erase(&order("o1")).expect("erased");
        assert_eq!(scene.rows(COMMANDS), ["1 o1 completed - null null 1-1"]);
    });
}

#[test]
fn what_is_not_over_or_not_there_is_not_erased() {
    with_shop(|mut scene| {
        assert_eq!(scene.erase(&order("o1")), Err(EraseRefusal::Unknown));
        assert_eq!(scene.erase(&run("f")), Err(EraseRefusal::Unknown));
        scene.note("o1", "Ada");
        scene.send("o1", "Ada", "k").expect("sent");
        scene.start("f", "Ada");
        let unfinished = |number| Err(EraseRefusal::Unfinished { number });
        assert_eq!(scene.erase(&order("o1")), unfinished(1));
        assert_eq!(scene.erase(&run("f")), unfinished(2));
        assert_eq!(scene.told("o1"), [r#"1 {"text":"Ada"} 0"#], "nothing was");
        assert_eq!(scene.erase(&run("o1")), Err(EraseRefusal::Unknown), "an order is no run");
        assert_eq!(scene.erase(&order("f")), Err(EraseRefusal::Unknown), "a run is no order");
    });
}

#[test]
fn a_command_that_was_erased_is_not_given_again() {
    with_shop(|mut scene| {
        scene.send("o1", "Ada", "k").expect("sent");
        scene.handle(|| Outcome::Failed { reason: "not Ada".to_owned(), is_final: true });
        scene.erase(&order("o1")).expect("erased");
        let retry = Change::Intervene(CommandRef::Number(1), Intervention::Retry);
        let erased = Intervened::InState("erased".to_owned());
        assert_eq!(scene.change(&retry), Changed::Intervened(erased));
        assert_eq!(scene.rows(COMMANDS), ["1 o1 failed - null k erased"]);
    });
}

#[test]
fn a_document_without_events_has_none_to_erase() {
    let doctype = Doctype { streams: Vec::new(), workflows: Vec::new(), ..shop() };
    let mut plain = doctype.clone();
    plain.mutations.clear();
    let mut server = Server::new(9, usize::MAX, &plain);
    for what in [order("o1"), run("f")] {
        let erase = Change::Erase { what, after: ErasedUpTo::default() };
        let view = server.authority.view().clone();
        let changed = server.rest.serve(&view, || server.authority.change(&erase, &plain, 1));
        let (changed, committed) = changed.expect("decided");
        assert_eq!(changed, Changed::Erased(Err(EraseRefusal::HasNone)));
        assert!(committed.is_none());
    }
}

#[test]
fn a_run_is_erased_with_what_it_remembers() {
    with_shop(|mut scene| {
        let result = format!("\"{SECRET}\"");
        scene.start("f", SECRET);
        scene.start("g", OTHER);
        let step = |name: &str| NewRecord {
            name: name.to_owned(),
            count: 0,
            what: Recorded::Done { kind: "step".to_owned(), result: result.clone() },
        };
        let records = || vec![step("a"), step("b")];
        scene.handle(|| Outcome::Progressed { records: records(), suspends: false });
        scene.handle(|| Outcome::Returned { result: result.clone() });
        // The handler is still at them: the same attempts go on.
        let instance = scene.handler;
        for task in [1, 2] {
            let outcome = Outcome::Returned { result: result.clone() };
            let completion = Completion { task, attempt: 1, position: 0, outcome };
            scene.change(&Change::Complete { instance, completion });
        }
        let runs = "select id || ' ' || state || ' ' || coalesce(args, 'null') || ' ' || result
                    from tidelog_workflows order by number";
        assert_eq!(scene.rows(runs)[0], format!(r#"f completed {{"text":"{SECRET}"}} "{SECRET}""#));
        assert_eq!(scene.erase(&run("f")), Ok([0, 0, 1, 2, 2]));
        assert_eq!(scene.rows(runs)[0], "f completed null null");
        assert_eq!(scene.rows("select id || name from tidelog_records"), ["ga", "gb"]);
        assert_eq!(scene.erase(&run("g")), Ok([0, 0, 1, 2, 2]));
        assert!(!has(&scene.server.rest.image(), SECRET));
    });
}

/// Goal: no page has a byte of what was erased, whatever SQLite has moved about before. Method:
/// streams are written by turns, small and large, commands of them change between others of their
/// index, one stream is erased in slices, and all pages of both sides are searched.
#[test]
fn no_page_has_a_byte_of_what_was_erased() {
    let doctype = shop();
    let mut scene = Scene {
        server: Server::new(9, usize::MAX, &doctype),
        device: Device::new(1, usize::MAX, &doctype),
        doctype,
        handler: InstanceId(0),
        now_ms: 10 * DAY_MS,
    };
    let (client, user, kinds) = (ClientId([7; 16]), String::new(), Vec::new());
    if let Changed::Registered(handler) = scene.change(&Change::Register { client, user, kinds }) {
        scene.handler = handler;
    }
    for round in 0..25_usize {
        for nth in round * 8..round * 8 + 8 {
            let size = [0, 40, 700, 3000, 9000, 20_000][nth * 7 % 6];
            for (stream, word) in [("o1", SECRET), ("o2", OTHER)] {
                let (noted, args) = (said(word, size), said(word, size / 4));
                // Keys that come between those of before.
                let key = format!("{}-{}", nth * 7919 % 200, "x".repeat(nth % 60));
                let args = text(&format!("{{\"text\":\"{args}\"}}"));
                let of_stream = ("stream", text(stream));
                let Scene { device, doctype, .. } = &mut scene;
                device.issue(doctype, "note", &[("id", text(stream)), ("text", text(&noted))]);
                let name = sending("order", "place");
                device.issue(doctype, &name, &[of_stream, ("args", args), ("key", text(&key))]);
            }
        }
        converge(&mut scene.server, &mut scene.device);
        for nth in 0..8 {
            scene.handle(|| match nth % 5 {
                0 => Outcome::Failed { reason: said("because", nth * 90), is_final: true },
                _ => placed("somebody", nth * 900),
            });
        }
        follow(&scene.server, &mut scene.device);
    }
    let count = |image: &[u8]| [SECRET, OTHER].map(|word| has(image, word));
    assert_eq!(count(&scene.server.rest.image()), [true, true]);
    let events = "select cast(length as text) from tidelog_streams where stream = 'o1'";
    let there = scene.rows(events);
    let [events, commands, .., slices] = scene.erase(&order("o1")).expect("erased");
    assert_eq!(([events.to_string()].to_vec(), commands), (there, 200));
    assert_eq!(count(&scene.server.rest.image()), [false, true]);
    assert_eq!(count(&scene.device.image()), [false, true]);
    let pages = scene.server.entries.iter().rev().take(usize::try_from(slices).expect("few"));
    assert!(pages.map(|entry| entry.set.pages.len()).max() < Some(2048), "an entry is bounded");
}

/// Goal: erasing that was cut short goes on. Method: one slice, and then all of it from the
/// beginning.
#[test]
fn erasing_that_was_cut_short_goes_on_when_it_is_done_again() {
    with_shop(|mut scene| {
        for _ in 0..3 {
            scene.note("o1", &said(SECRET, 200_000));
            scene.note("o1", &said(SECRET, 200_000));
        }
        scene.note("o1", &said(SECRET, 200_000));
        let first = scene.slice(&order("o1"), ErasedUpTo::default()).expect("erased");
        assert_eq!((first.events, first.next.is_some()), (6, true));
        assert!(has(&scene.server.rest.image(), SECRET));
        assert_eq!(scene.erase(&order("o1")), Ok([1, 0, 0, 0, 1]));
        assert!(!has(&scene.server.rest.image(), SECRET));
    });
}
