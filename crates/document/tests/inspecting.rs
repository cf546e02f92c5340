//! What whoever runs a server is told of streams.

mod common;

use common::*;
use tidelog_document::{
    Change, Changed, CommandDefinition, Completion, Doctype, Erasable, ErasedUpTo, EventDefinition,
    EventPlace, EventsOfKind, FailedUpTo, Free, Holder, InspectedStream, InspectedUpTo, InstanceId,
    KeptState, MutationDefinition, NewEvent, NewSnapshot, Outcome, Param, ParamKind,
    StreamDefinition, StreamRef, TaskKind, WantedStreams, WorkflowDefinition, find_failed,
    find_streams, inspect_stream, sending, starting,
};
use tidelog_types::{ClientId, Value};

fn param(name: &str, kind: ParamKind) -> Param {
    Param { name: name.to_owned(), kind, optional: false }
}

/// Orders that are noted, many at a time, and placed by a command; `versions` of a note.
fn shop(versions: usize) -> Doctype {
    let event = |name: &str, upcasts: Vec<String>| EventDefinition {
        name: name.to_owned(),
        fields: vec![param("text", ParamKind::Text)],
        upcasts,
        project: Vec::new(),
    };
    let note = "insert into tidelog_events (aggregate, stream, type, data)
                with n (n) as (select 1 union all select n + 1 from n where n < :count)
                select :aggregate, :id, 'noted', json_object('text', 'x') from n";
    let stream = |name: &str, commands: Vec<CommandDefinition>| StreamDefinition {
        name: name.to_owned(),
        events: vec![
            event("noted", vec![":data".to_owned(); versions - 1]),
            event("placed", Vec::new()),
        ],
        commands,
    };
    let place = CommandDefinition {
        name: "place".to_owned(),
        fields: Vec::new(),
        received: Vec::new(),
        failed: Vec::new(),
        retries: 0,
        timeout_ms: 30_000,
    };
    Doctype {
        name: "shop".to_owned(),
        migrations: vec!["create table orders (id text primary key) strict".to_owned()],
        mutations: vec![MutationDefinition {
            name: "note".to_owned(),
            params: vec![
                param("aggregate", ParamKind::Text),
                param("id", ParamKind::Text),
                param("count", ParamKind::Integer),
            ],
            sql: vec![note.to_owned()],
        }],
        streams: vec![stream("order", vec![place]), stream("visit", Vec::new())],
        workflows: vec![WorkflowDefinition {
            name: "fulfil".to_owned(),
            version: 1,
            fields: Vec::new(),
        }],
    }
}

struct Scene {
    doctype: Doctype,
    server: Server,
    device: Device,
}

impl Scene {
    fn new(pool: usize) -> Self {
        let doctype = shop(1);
        let server = Server::new(9, pool, &doctype);
        let device = Device::following(1, pool, &doctype, &server);
        Self { doctype, server, device }
    }

    fn issue(&mut self, name: &str, args: &[(&str, Value)]) {
        follow(&self.server, &mut self.device);
        self.device.issue(&self.doctype, name, args);
        converge(&mut self.server, &mut self.device);
    }

    fn note(&mut self, aggregate: &str, id: &str, count: i64) {
        let args =
            [("aggregate", text(aggregate)), ("id", text(id)), ("count", Value::Integer(count))];
        self.issue("note", &args);
    }

    fn send(&mut self, id: &str, key: &str) {
        let args = [("stream", text(id)), ("args", text("{}")), ("key", text(key))];
        self.issue(&sending("order", "place"), &args);
    }

    fn change(&mut self, change: &Change) -> Changed {
        let view = self.server.authority.view().clone();
        let Self { server, doctype, .. } = self;
        let changed = server.rest.serve(&view, || server.authority.change(change, doctype, 5_000));
        let (changed, committed) = changed.expect("decided");
        if let Some(committed) = committed {
            server.keep(committed, None);
        }
        changed
    }

    fn dispatch(&mut self, instance: InstanceId) {
        let kind = |aggregate: &str, name: &str| TaskKind {
            aggregate: aggregate.to_owned(),
            name: name.to_owned(),
        };
        let kinds = vec![kind("order", "place"), kind("fulfil", "1")];
        self.change(&Change::Dispatch(vec![Free { instance, kinds, concurrency: 9 }]));
    }

    fn complete(&mut self, instance: InstanceId, task: u64, position: u64, outcome: Outcome) {
        let completion = Completion { task, attempt: 1, position, outcome };
        match self.change(&Change::Complete { instance, completion }).answer(0) {
            Some((tidelog_sync::CompletionAnswer::Done, _)) => {}
            other => panic!("{other:?}"),
        }
    }

    fn streams(&mut self, wanted: &WantedStreams) -> (Vec<String>, Option<u64>) {
        let view = self.server.authority.view().clone();
        let server = &mut self.server;
        let find = || find_streams(server.authority.reader(), wanted);
        let found = server.rest.serve(&view, find).expect("found");
        let names = found
            .streams
            .iter()
            .map(|(number, it)| format!("{number} {} {}", it.aggregate, it.stream));
        (names.collect(), found.next)
    }

    /// All of a stream, and in how many parts it came.
    fn inspect(&mut self, aggregate: &str, stream: &str) -> (InspectedStream, usize) {
        let stream = stream_ref(aggregate, stream);
        let (mut all, mut after) = (InspectedStream::default(), InspectedUpTo::default());
        for parts in 1.. {
            let view = self.server.authority.view().clone();
            let server = &mut self.server;
            let find = || inspect_stream(server.authority.reader(), &stream, after);
            let part = server.rest.serve(&view, find).expect("found");
            let next = part.next;
            all.add(part);
            match next {
                Some(next) => after = next,
                None => return (all, parts),
            }
        }
        unreachable!("it comes to its end")
    }
}

fn stream_ref(aggregate: &str, stream: &str) -> StreamRef {
    StreamRef { aggregate: aggregate.to_owned(), stream: stream.to_owned() }
}

fn kind(name: &str, version: u32, count: u64, size: u64) -> EventsOfKind {
    EventsOfKind { name: name.to_owned(), version, count, erased: 0, size }
}

/// Goal: each thing that is told of a stream is what the document has of that stream. Method: one
/// of each: two versions, a state that is kept, a command that somebody works at, one that waits,
/// one that has failed, and a run of a workflow, which is none.
#[test]
fn a_stream_is_told_with_its_events_and_commands() {
    for pool in POOLS {
        let mut scene = Scene::new(pool);
        scene.note("order", "o1", 2);
        scene.note("visit", "o1", 1);
        scene.doctype = shop(2);
        let Scene { server, device, doctype } = &mut scene;
        server.learn(doctype);
        device.reopen(&[&shop(1), doctype]);
        scene.note("order", "o1", 1);
        let (client, user, kinds) = (ClientId([7; 16]), "ada".to_owned(), Vec::new());
        let register = Change::Register { client, user, kinds };
        let Changed::Registered(instance) = scene.change(&register) else { panic!("registered") };
        scene.issue(&starting("fulfil"), &[("id", text("o1")), ("args", text("{}"))]);
        ["k1", "k2", "k3", "k4"].into_iter().for_each(|key| scene.send("o1", key));
        scene.dispatch(instance);
        let events =
            vec![NewEvent { name: "placed".to_owned(), data: r#"{"text":""}"#.to_owned() }];
        let (name, state) = ("order-1".to_owned(), "[1]".to_owned());
        let snapshot = Some(NewSnapshot { name, state });
        let placed = Outcome::Completed { events, sends: Vec::new(), starts: Vec::new(), snapshot };
        scene.complete(instance, 2, 3, placed);
        scene.dispatch(instance);
        let failed = || Outcome::Failed { reason: "no".to_owned(), is_final: true };
        scene.complete(instance, 3, 4, failed());
        scene.dispatch(instance);
        scene.complete(instance, 1, 0, failed());

        let (inspected, parts) = scene.inspect("order", "o1");
        let place = |sequence, position, time_ms| Some(EventPlace { sequence, position, time_ms });
        let expected = InspectedStream {
            number: Some(1),
            archived: 0,
            kinds: vec![
                kind("noted", 1, 2, 2 * r#"{"text":"x"}"#.len() as u64),
                kind("noted", 2, 1, r#"{"text":"x"}"#.len() as u64),
                kind("placed", 1, 1, r#"{"text":""}"#.len() as u64),
            ],
            first: place(1, 1, 1_000),
            last: place(5, 4, 5_000),
            received: 1,
            started: 1,
            holder: Some(Holder {
                command: 4,
                instance: instance.0,
                client: ClientId([7; 16]).to_hex(),
                user: "ada".to_owned(),
            }),
            states: vec![KeptState { name: "order-1".to_owned(), position: 3, size: 3 }],
            next: None,
        };
        assert_eq!((inspected, parts), (expected, 1));
        let view = scene.server.authority.view().clone();
        let server = &mut scene.server;
        let find = || find_failed(server.authority.reader(), FailedUpTo::default());
        let found = server.rest.serve(&view, find).expect("found");
        assert_eq!((found.counts, found.next), (vec![(stream_ref("order", "o1"), 1)], None));
        assert_eq!(scene.inspect("order", "none").0, InspectedStream::default());
    }
}

#[test]
fn erased_events_are_told_as_such() {
    let mut scene = Scene::new(usize::MAX);
    scene.note("visit", "v", 2);
    let what = Erasable::Stream { aggregate: "visit".to_owned(), stream: "v".to_owned() };
    scene.change(&Change::Erase { what, after: ErasedUpTo::default() });
    scene.note("visit", "v", 1);
    let (inspected, _) = scene.inspect("visit", "v");
    let size = r#"{"text":"x"}"#.len() as u64;
    assert_eq!(inspected.kinds, [EventsOfKind { erased: 2, ..kind("noted", 1, 3, size) }]);
}

/// Goal: no question looks at more than so many rows, and nothing is left out between two. Method:
/// a stream with more events than that, beside another one; more streams than a page has.
#[test]
fn a_large_stream_and_many_of_them_come_in_parts() {
    let mut scene = Scene::new(usize::MAX);
    for _ in 0..3 {
        scene.note("order", "large", 5_000);
        scene.note("visit", "v", 1);
    }
    let (inspected, parts) = scene.inspect("order", "large");
    let size = r#"{"text":"x"}"#.len() as u64;
    assert_eq!((inspected.kinds, parts), (vec![kind("noted", 1, 15_000, 15_000 * size)], 2));
    let last = inspected.last.expect("it has one");
    assert_eq!((last.sequence, last.position), (15_002, 15_000));

    for nth in 0..70 {
        scene.note("order", &format!("o{nth}"), 1);
    }
    let all = WantedStreams { aggregate: None, after: 0, limit: 64 };
    let (first, next) = scene.streams(&all);
    assert_eq!((first.len(), first[1].as_str(), next), (64, "2 visit v", Some(64)));
    let (rest, next) = scene.streams(&WantedStreams { after: 64, ..all.clone() });
    assert_eq!((rest.len(), rest[0].as_str(), next), (8, "65 order o62", None));
    let visits = WantedStreams { aggregate: Some("visit".to_owned()), ..all.clone() };
    assert_eq!(scene.streams(&visits), (vec!["2 visit v".to_owned()], None));
    let two = WantedStreams { limit: 2, ..all };
    assert_eq!(scene.streams(&two).1, Some(2));
}
