//! Events that leave their document for its archive, and are read all the same.

mod common;

use std::sync::Arc;

use common::*;
use tidelog_document::{
    ArchivePart, ArchiveRefusal, ArchivedEvents, Change, Changed, CommandDefinition, Completion,
    Doctype, Erasable, ErasedUpTo, EventDefinition, FoundEvents, Free, InArchive, InstanceId,
    MutationDefinition, NewEvent, NewSnapshot, Outcome, Param, ParamKind, Replay, ReplayRefusal,
    StreamDefinition, StreamRef, TaskKind, WantedEvents, WorkflowDefinition, archive_doctype,
    find_archivable, find_events, sending, starting,
};
use tidelog_types::{ClientId, JournalId, Value};

fn param(name: &str) -> Param {
    Param { name: name.to_owned(), kind: ParamKind::Text, optional: false }
}

/// Orders and visits that are noted; an order is placed by a command, and a workflow may wait.
fn shop() -> Doctype {
    let event = |name: &str, upcasts: &[&str]| EventDefinition {
        name: name.to_owned(),
        fields: vec![param("text")],
        upcasts: upcasts.iter().map(ToString::to_string).collect(),
        project: Vec::new(),
    };
    let command = CommandDefinition {
        name: "place".to_owned(),
        fields: Vec::new(),
        received: Vec::new(),
        failed: Vec::new(),
        retries: 0,
        timeout_ms: 30_000,
    };
    let stream = |name: &str| StreamDefinition {
        name: name.to_owned(),
        events: vec![event("noted", &["json_set(:data, '$.new', 1)"]), event("placed", &[])],
        commands: vec![command.clone()],
    };
    Doctype {
        name: "shop".to_owned(),
        migrations: vec!["create table orders (id text primary key) strict".to_owned()],
        mutations: vec![MutationDefinition {
            name: "note".to_owned(),
            params: ["aggregate", "id", "text"].map(param).to_vec(),
            sql: vec![
                "insert into tidelog_events (aggregate, stream, type, data)
                 select :aggregate, id.value, 'noted', json_object('text', :text)
                 from json_each(:id) as id"
                    .to_owned(),
            ],
        }],
        streams: vec![stream("order"), stream("visit")],
        workflows: vec![WorkflowDefinition {
            name: "fulfil".to_owned(),
            version: 1,
            fields: Vec::new(),
        }],
    }
}

/// A document, its archive, and a device that follows the former.
struct Scene {
    doctype: Doctype,
    server: Server,
    device: Device,
    archive: Server,
    handler: InstanceId,
}

fn with_shop(scenario: impl Fn(Scene)) {
    for pool in POOLS {
        let doctype = shop();
        let server = Server::new(9, pool, &doctype);
        let device = Device::following(1, pool, &doctype, &server);
        let archive = Server::new(8, pool, &archive_doctype());
        let mut scene = Scene { doctype, server, device, archive, handler: InstanceId(0) };
        let (client, user, kinds) = (ClientId([7; 16]), "ada".to_owned(), Vec::new());
        match scene.change(&Change::Register { client, user, kinds }) {
            Changed::Registered(handler) => scene.handler = handler,
            other => panic!("{other:?}"),
        }
        scenario(scene);
    }
}

fn order(stream: &str) -> StreamRef {
    StreamRef { aggregate: "order".to_owned(), stream: stream.to_owned() }
}

fn change_of(server: &mut Server, doctype: &Doctype, change: &Change) -> Changed {
    let view = server.authority.view().clone();
    let (rest, authority) = (server.rest.clone(), &mut server.authority);
    let changed = rest.serve(&view, || authority.change(change, doctype, 5_000));
    let (changed, committed) = changed.expect("decided");
    if let Some(committed) = committed {
        server.keep(committed, None);
    }
    changed
}

impl Scene {
    fn issue(&mut self, name: &str, args: &[(&str, Value)]) {
        follow(&self.server, &mut self.device);
        self.device.try_issue(&self.doctype, name, args).expect("issued");
        converge(&mut self.server, &mut self.device);
    }

    /// One event of each of these streams.
    fn note(&mut self, aggregate: &str, ids: &[&str], said: &str) {
        let ids = format!("[\"{}\"]", ids.join("\",\""));
        let args = [("aggregate", text(aggregate)), ("id", text(&ids)), ("text", text(said))];
        self.issue("note", &args);
    }

    fn change(&mut self, change: &Change) -> Changed {
        change_of(&mut self.server, &self.doctype, change)
    }

    /// A command of a stream records so many events, and what came before is kept as a state.
    fn place(&mut self, stream: &StreamRef, count: usize) {
        let StreamRef { aggregate, stream } = stream;
        let key = self.server.entries.len().to_string();
        let name = sending(aggregate, "place");
        let args = [("stream", text(stream)), ("args", text("{}")), ("key", text(&key))];
        self.issue(&name, &args);
        let (instance, name) = (self.handler, "place".to_owned());
        let kinds = vec![TaskKind { aggregate: aggregate.clone(), name }];
        self.change(&Change::Dispatch(vec![Free { instance, kinds, concurrency: 9 }]));
        let given = "select number, attempt, coalesce((select length from _tidelog_stream as of
                       where of.aggregate = task.aggregate and of.stream = task.stream), 0)
                     from _tidelog_task as task where state = 'started' and version is null";
        let rows = self.server.query_system(given);
        let [Value::Integer(task), Value::Integer(attempt), Value::Integer(position)] = rows[0][..]
        else {
            panic!("{rows:?}")
        };
        let [task, attempt, position] = [task, attempt, position].map(i64::cast_unsigned);
        let event = NewEvent { name: "placed".to_owned(), data: r#"{"text":"p"}"#.to_owned() };
        let snapshot = NewSnapshot { name: "v1".to_owned(), state: "[]".to_owned() };
        let outcome = Outcome::Completed {
            events: vec![event; count],
            sends: Vec::new(),
            starts: Vec::new(),
            snapshot: Some(snapshot),
        };
        let completion = Completion { task, attempt, position, outcome };
        self.change(&Change::Complete { instance, completion });
    }

    fn archivable(&mut self, stream: &StreamRef) -> Result<ArchivePart, ArchiveRefusal> {
        let view = self.server.authority.view().clone();
        let Self { server, .. } = self;
        let (rest, authority) = (server.rest.clone(), &mut server.authority);
        rest.serve(&view, || find_archivable(authority.reader(), stream)).expect("found")
    }

    fn archive_id(&self) -> JournalId {
        self.archive.authority.position().journal
    }

    fn take_in(&mut self, part: ArchivePart) {
        let count = part.events.len() as u64;
        let change = Change::TakeIn(Arc::new(part));
        let taken = change_of(&mut self.archive, &archive_doctype(), &change);
        assert_eq!(taken, Changed::TakenIn(count));
    }

    fn let_go(&mut self, part: &ArchivePart) -> Result<u64, ArchiveRefusal> {
        let (archive, end) = (self.archive_id(), part.end());
        let (stream, archived) = (part.stream.clone(), part.archived);
        match self.change(&Change::Archive { stream, archive, archived, end }) {
            Changed::Archived(archived) => archived,
            other => panic!("{other:?}"),
        }
    }

    /// Archives all of a stream that can be; says how many events that were, and how many parts.
    fn archive(&mut self, stream: &StreamRef) -> [u64; 2] {
        let mut all = [0, 0];
        loop {
            let part = self.archivable(stream).expect("it can be");
            if !part.events.is_empty() {
                self.take_in(part.clone());
                all[0] += self.let_go(&part).expect("it is as it was read");
                all[1] += 1;
            }
            if !part.has_more {
                follow(&self.server, &mut self.device);
                assert!(self.device.image() == self.server.rest.image(), "a device has the same");
                return all;
            }
        }
    }

    fn find(&mut self, wanted: &WantedEvents, archived: Option<&ArchivedEvents>) -> FoundEvents {
        let view = self.server.authority.view().clone();
        let Self { server, doctype, .. } = self;
        let (rest, authority) = (server.rest.clone(), &mut server.authority);
        let find = || find_events(authority.reader(), doctype, wanted, archived);
        rest.serve(&view, find).expect("found")
    }

    /// What the archive has of the same.
    fn find_archived(&mut self, wanted: &WantedEvents, count: u64) -> ArchivedEvents {
        let view = self.archive.authority.view().clone();
        let doctype = archive_doctype();
        let (rest, authority) = (self.archive.rest.clone(), &mut self.archive.authority);
        let find = || find_events(authority.reader(), &doctype, wanted, None);
        let found = rest.serve(&view, find).expect("found");
        ArchivedEvents::of(found, wanted.after, count)
    }

    /// All that are wanted, page by page: sequence, stream, position, version and data.
    fn told(&mut self, wanted: &WantedEvents) -> Vec<String> {
        let (mut wanted, mut told) = (wanted.clone(), Vec::new());
        loop {
            let mut found = self.find(&wanted, None);
            if let FoundEvents::Archived(place) = found {
                let archived = self.find_archived(&wanted, place.count);
                found = self.find(&wanted, Some(&archived));
            }
            match found {
                FoundEvents::Some(rows) => {
                    let cell = |value: &Value| match value {
                        Value::Text(text) => text.clone(),
                        Value::Integer(number) => number.to_string(),
                        other => panic!("{other:?}"),
                    };
                    for row in rows.decode() {
                        let Value::Integer(sequence) = row[0] else { panic!("{row:?}") };
                        assert!(sequence.cast_unsigned() > wanted.after, "in their order");
                        wanted.after = sequence.cast_unsigned();
                        told.push([0, 2, 3, 5, 6].map(|it| cell(&row[it])).join(" "));
                    }
                }
                FoundEvents::NoneUpTo(seen) => {
                    assert!(seen > wanted.after, "it comes to its end");
                    wanted.after = seen;
                }
                FoundEvents::None(_) => return told,
                FoundEvents::Archived(place) => panic!("{place:?}"),
            }
        }
    }
}

fn all() -> WantedEvents {
    WantedEvents::default()
}

fn of(stream: &StreamRef) -> WantedEvents {
    let StreamRef { aggregate, stream } = stream.clone();
    WantedEvents { aggregate: Some(aggregate), stream: Some(stream), ..all() }
}

/// All the ways in which events are asked for.
fn ways() -> Vec<WantedEvents> {
    let of_aggregate = |name: &str| WantedEvents { aggregate: Some(name.to_owned()), ..all() };
    let types = |name: &str| WantedEvents { types: vec![name.to_owned()], ..all() };
    vec![
        all(),
        of_aggregate("order"),
        of_aggregate("visit"),
        of(&order("a")),
        of(&order("b")),
        of(&order("none")),
        types("placed"),
        WantedEvents { after: 7, ..all() },
        WantedEvents { after: 7, types: vec!["noted".to_owned()], ..of(&order("a")) },
    ]
}

/// Goal: what has left is read as it was before, in each way, and what happens then has the places
/// that it would have had. Method: streams that take turns, of which one is archived, and then
/// another; each time the same is asked.
#[test]
fn what_has_left_is_read_as_it_was() {
    with_shop(|mut scene| {
        for n in 0..6 {
            scene.note("order", &["a", "b"], &n.to_string());
            scene.note("visit", &["a"], &n.to_string());
        }
        scene.place(&order("a"), 3);
        scene.place(&order("b"), 1);
        let before: Vec<Vec<String>> = ways().iter().map(|it| scene.told(it)).collect();
        assert_eq!(before[0].len(), 22);
        assert_eq!(scene.archive(&order("a")), [6, 1], "up to the state");
        for (wanted, before) in ways().iter().zip(&before) {
            assert_eq!(scene.told(wanted), *before, "{wanted:?}");
        }
        let place = InArchive { archive: scene.archive_id(), up_to: 16, count: 6 };
        assert_eq!(scene.find(&of(&order("a")), None), FoundEvents::Archived(place));
        // Only whoever may want some of them is told that they have left.
        let visits = WantedEvents { aggregate: Some("visit".to_owned()), ..all() };
        assert!(matches!(scene.find(&visits, None), FoundEvents::Some(_)));
        let later = WantedEvents { after: 16, ..of(&order("a")) };
        assert!(matches!(scene.find(&later, None), FoundEvents::Some(_)));

        assert_eq!(scene.archive(&order("a")), [0, 0], "there is no more");
        scene.place(&order("a"), 1);
        assert_eq!(scene.archive(&order("a")), [3, 1]);
        assert_eq!(scene.archive(&order("b")), [6, 1]);
        let told = scene.told(&of(&order("a")));
        assert_eq!(told[..9], before[3][..]);
        assert_eq!(told[9], r#"23 a 10 1 {"text":"p"}"#);
        assert_eq!(scene.told(&all())[..22], before[0][..]);
        let streams = "select stream || ' ' || length || ' ' || archived from tidelog_streams
                       where aggregate = 'order' order by stream";
        assert_eq!(scene.server.query(streams), [[text("a 10 9")], [text("b 7 6")]]);
    });
}

/// Goal: a stream of more events than a part has leaves in parts, and pages of what is read come
/// from both sides. Method: some hundreds of events of two streams, one of which is archived.
#[test]
fn a_long_stream_leaves_in_parts() {
    let doctype = shop();
    let server = Server::new(9, 16, &doctype);
    let device = Device::following(1, 16, &doctype, &server);
    let archive = Server::new(8, 16, &archive_doctype());
    let mut scene = Scene { doctype, server, device, archive, handler: InstanceId(0) };
    let (client, user, kinds) = (ClientId([7; 16]), "ada".to_owned(), Vec::new());
    let register = Change::Register { client, user, kinds };
    let Changed::Registered(handler) = scene.change(&register) else { panic!("it registers") };
    scene.handler = handler;
    let ids: Vec<&str> = ["a", "b"].into_iter().cycle().take(700).collect();
    scene.note("order", &ids, "x");
    scene.note("order", &ids, &"large".repeat(3_000));
    scene.place(&order("a"), 1);
    let before = [all(), of(&order("a")), of(&order("b"))].map(|it| scene.told(&it));
    let [events, parts] = scene.archive(&order("a"));
    assert!(events == 700 && parts > 3, "{events} in {parts}");
    let after = [all(), of(&order("a")), of(&order("b"))].map(|it| scene.told(&it));
    assert!(after == before, "not the same");
    let types = vec!["placed".to_owned()];
    assert_eq!(scene.told(&WantedEvents { types, ..all() }).len(), 1);
}

/// Goal: whatever a crash or a restore has left in an archive, each event is read once, as the
/// document says. Method: a part of another history of the stream, and one that had been taken in
/// and was not let go.
#[test]
fn what_an_archive_has_beyond_the_document_is_not_read_and_goes() {
    with_shop(|mut scene| {
        for n in 0..4 {
            scene.note("order", &["a", "b"], &n.to_string());
        }
        scene.place(&order("a"), 1);
        let before = scene.told(&all());
        let mut part = scene.archivable(&order("a")).expect("some");
        assert_eq!(part.events.len(), 4);
        let mut lost = part.clone();
        for event in &mut lost.events {
            event.data = Some(r#"{"text":"of another history"}"#.to_owned());
            event.sequence += 1;
        }
        lost.events.push(lost.events[3].clone());
        (lost.events[4].position, lost.events[4].sequence) = (5, 40);
        scene.take_in(lost);
        assert_eq!(scene.told(&all()), before, "the document says that nothing has left");
        // A server ends behind the first of two steps, and the next one begins anew.
        scene.take_in(part.clone());
        assert_eq!(scene.told(&all()), before);
        part = scene.archivable(&order("a")).expect("the same");
        scene.take_in(part.clone());
        assert_eq!(scene.let_go(&part), Ok(4));
        assert_eq!(scene.told(&all()), before);
        let left = "select sequence from tidelog_events order by sequence";
        let sequences: Vec<Vec<Value>> = [1, 3, 5, 7].map(|it| vec![Value::Integer(it)]).to_vec();
        assert_eq!(scene.archive.query(left), sequences, "nothing else is there");
        assert_eq!(scene.let_go(&part), Err(ArchiveRefusal::Moved), "it has left");
        // An event of that other history, in whose place something else has happened.
        let mut lost = ArchivePart { stream: order("b"), archived: 0, ..part.clone() };
        lost.events.truncate(1);
        (lost.events[0].position, lost.events[0].sequence) = (5, 10);
        scene.take_in(lost);
        scene.note("visit", &["v"], "later");
        let orders = WantedEvents { aggregate: Some("order".to_owned()), ..all() };
        assert_eq!(scene.told(&orders), before);
    });
}

/// Goal: what cannot leave does not, and it is said why. Method: each reason, and a run that may
/// be told of all since its start.
#[test]
fn what_cannot_leave_stays() {
    with_shop(|mut scene| {
        scene.note("order", &["a", "a"], "before");
        assert_eq!(scene.archivable(&order("a")), Err(ArchiveRefusal::NoState));
        assert_eq!(scene.archivable(&order("none")), Err(ArchiveRefusal::Unknown));
        scene.issue(&starting("fulfil"), &[("id", text("f")), ("args", text("{}"))]);
        scene.note("order", &["a"], "since");
        scene.place(&order("a"), 1);
        let part = scene.archivable(&order("a")).expect("some");
        let positions: Vec<u64> = part.events.iter().map(|it| it.position).collect();
        assert_eq!((positions, part.has_more, part.is_awaited), (vec![1, 2], false, true));
        let mut too_far = part.clone();
        too_far.events.push(part.events[1].clone());
        assert_eq!(scene.let_go(&too_far), Err(ArchiveRefusal::Moved), "the run may wait for it");
        assert_eq!(scene.archive(&order("a")), [2, 1]);
        let elsewhere = JournalId([77; 16]);
        let (stream, archived, end) = (order("a"), 2, 3);
        let change = Change::Archive { stream, archive: elsewhere, archived, end };
        let refused = Changed::Archived(Err(ArchiveRefusal::Elsewhere));
        assert_eq!(scene.change(&change), refused);
    });
}

/// Goal: events that leave between the two questions are not passed over. Method: what an archive
/// had before more left, for all of them and for one stream.
#[test]
fn what_leaves_meanwhile_is_asked_for_once_more() {
    with_shop(|mut scene| {
        scene.note("order", &["a", "b", "a", "b"], "x");
        scene.place(&order("a"), 1);
        scene.place(&order("b"), 1);
        scene.archive(&order("a"));
        for (wanted, stream) in [(all(), order("b")), (of(&order("a")), order("a"))] {
            let before = scene.told(&wanted);
            let FoundEvents::Archived(place) = scene.find(&wanted, None) else { panic!("some") };
            let archived = scene.find_archived(&wanted, place.count);
            scene.place(&stream, 1);
            assert!(scene.archive(&stream)[0] > 0);
            let found = scene.find(&wanted, Some(&archived));
            assert!(matches!(found, FoundEvents::Archived(_)), "{found:?}");
            assert_eq!(scene.told(&wanted)[..before.len()], before);
        }
    });
}

/// Goal: what has left is told at the newest version of its type, as what has not. Method: an event
/// of before.
#[test]
fn what_has_left_is_brought_to_the_newest_version() {
    with_shop(|mut scene| {
        scene.note("order", &["a", "a"], "x");
        scene.place(&order("a"), 1);
        let mut part = scene.archivable(&order("a")).expect("some");
        part.events[0].version = 1;
        scene.take_in(part.clone());
        assert_eq!(scene.let_go(&part), Ok(2));
        let told = scene.told(&of(&order("a")));
        assert_eq!(told[..2], [r#"1 a 1 2 {"text":"x","new":1}"#, r#"2 a 2 2 {"text":"x"}"#]);
    });
}

/// Goal: the last event of a stream stays, whatever state is kept: no later one has its place.
/// Method: a state of all events there are.
#[test]
fn the_last_event_of_a_stream_stays() {
    with_shop(|mut scene| {
        scene.note("order", &["a", "a"], "x");
        scene.place(&order("a"), 0);
        assert_eq!(scene.archive(&order("a")), [1, 1]);
        scene.note("order", &["a"], "later");
        let told = scene.told(&of(&order("a")));
        let places: Vec<&str> = told.iter().map(|it| &it[..5]).collect();
        assert_eq!(places, ["1 a 1", "2 a 2", "3 a 3"]);
    });
}

/// Goal: what was archived is not made anew by halves, and is erased in the archive as well.
#[test]
fn what_has_left_is_not_replayed_and_is_erased() {
    with_shop(|mut scene| {
        scene.note("order", &["a", "b"], "secret");
        scene.place(&order("a"), 1);
        scene.archive(&order("a"));
        let (aggregate, tables) = ("order".to_owned(), vec!["orders".to_owned()]);
        let replay = Change::Replay(Replay { aggregate, tables, is_dry: false }.into());
        let refused = Err(ReplayRefusal::Archived { stream: "a".to_owned() });
        assert_eq!(scene.change(&replay), Changed::Replayed(refused));
        let what = Erasable::Stream { aggregate: "order".to_owned(), stream: "a".to_owned() };
        let change = Change::Erase { what, after: ErasedUpTo::default() };
        scene.change(&change);
        match change_of(&mut scene.archive, &archive_doctype(), &change) {
            Changed::Erased(Ok(erased)) => assert_eq!((erased.events, erased.next), (1, None)),
            other => panic!("{other:?}"),
        }
        let secret = b"secret";
        let has = |image: &[u8]| image.windows(secret.len()).any(|it| it == secret);
        assert!(!has(&scene.archive.rest.image()), "not a byte of it is left");
        assert_eq!(scene.told(&of(&order("a")))[0], "1 a 1 2 {}");
    });
}
