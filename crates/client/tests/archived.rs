//! Tabs that want events which have left the document.

use tidelog_client::{Call, Events, FromCore, Request, ToCore};
use tidelog_document::{
    ArchivePart, Change, Changed, CommandDefinition, Completion, Doctype, EventDefinition, Free,
    NewSnapshot, Outcome, Param, ParamKind, StreamDefinition, StreamRef, TaskKind, WantedEvents,
    find_archivable, sending,
};
use tidelog_sync::{ToRoom, ToServer};
use tidelog_testing::client::server::{Server, talk};
use tidelog_testing::client::*;
use tidelog_types::{ClientId, ErrorCode, Value};

/// The todo list with events, and a command by which a state is kept.
fn told_todos() -> Doctype {
    let mut doctype = todos();
    let id = [("id", ParamKind::Text), ("n", ParamKind::Integer)];
    doctype.mutations.push(define(
        "begin",
        &id,
        &["with recursive i(i) as (values (1) union all select i + 1 from i where i < :n)
         insert into tidelog_events (aggregate, stream, type, data)
         select 'todo', :id, 'begun', json_object('n', i) from i"],
    ));
    doctype.mutations.sort_by(|one, other| one.name.cmp(&other.name));
    let event = EventDefinition {
        name: "begun".to_owned(),
        fields: vec![Param { name: "n".to_owned(), kind: ParamKind::Json, optional: true }],
        upcasts: Vec::new(),
        project: Vec::new(),
    };
    let command = CommandDefinition {
        name: "keep".to_owned(),
        fields: Vec::new(),
        received: Vec::new(),
        failed: Vec::new(),
        retries: 0,
        timeout_ms: 0,
    };
    let (name, events, commands) = ("todo".to_owned(), vec![event], vec![command]);
    doctype.streams = vec![StreamDefinition { name, events, commands }];
    doctype
}

fn todo(stream: &str) -> StreamRef {
    StreamRef { aggregate: "todo".to_owned(), stream: stream.to_owned() }
}

/// A device whose stream `a` has so many events, all but the last of which have left, and one of
/// `b` behind them.
fn archived(count: i64) -> (Server, Device) {
    let (mut server, mut device) = of_two_streams(count);
    assert_eq!(server.archive(&todo("a")), count.unsigned_abs() - 1);
    talk(&mut server, &mut [&mut device]);
    (server, device)
}

fn keep_state(server: &mut Server, position: u64) {
    let (client, user) = (ClientId([7; 16]), String::new());
    let register = Change::Register { client, user, kinds: Vec::new() };
    let Changed::Registered(instance) = server.change(&register) else { panic!("it registers") };
    let kinds = vec![TaskKind { aggregate: "todo".to_owned(), name: "keep".to_owned() }];
    server.change(&Change::Dispatch(vec![Free { instance, kinds, concurrency: 1 }]));
    let snapshot = Some(NewSnapshot { name: "v1".to_owned(), state: "1".to_owned() });
    let (events, sends, starts) = (Vec::new(), Vec::new(), Vec::new());
    let outcome = Outcome::Completed { events, sends, starts, snapshot };
    let completion = Completion { task: 1, attempt: 1, position, outcome };
    server.change(&Change::Complete { instance, completion });
}

fn ask(device: &mut Device, wanted: WantedEvents) -> Call {
    let call = device.next_call();
    let request = Request::Events(Events { wanted, waits: false, consumer: None });
    device.ask(TAB, vec![ToCore::Ask { call, handle: HANDLE, request }]);
    call
}

fn after(after: u64) -> WantedEvents {
    WantedEvents { after, ..WantedEvents::default() }
}

/// The sequence numbers and streams of the events that a call was answered.
fn events(device: &Device, call: Call) -> Option<Vec<(u64, String)>> {
    let rows = device.answers(call).into_iter().find_map(|answer| match answer {
        FromCore::Rows { rows, .. } => Some(rows.decode()),
        _ => None,
    })?;
    let event = |row: &Vec<Value>| match (&row[0], &row[2]) {
        (Value::Integer(sequence), Value::Text(stream)) => {
            (sequence.unsigned_abs(), stream.clone())
        }
        other => panic!("{other:?}"),
    };
    Some(rows.iter().map(event).collect())
}

/// All events behind that, page by page.
fn told(server: &mut Server, device: &mut Device, wanted: &WantedEvents) -> Vec<(u64, String)> {
    let (mut told, mut wanted) = (Vec::new(), wanted.clone());
    loop {
        let call = ask(device, wanted.clone());
        talk(server, &mut [device]);
        let page = events(device, call).expect("an answer");
        let Some((last, _)) = page.last() else { return told };
        wanted.after = *last;
        told.extend(page);
    }
}

/// Goal: a tab is told what has left in its place, and each once, from whichever sequence number
/// on; the document does not get it back. Method: more events than one answer has.
#[test]
fn what_has_left_is_asked_of_the_server() {
    let (mut server, mut device) = archived(600);
    let expected: Vec<_> =
        (1..=600).map(|n| (n, "a".to_owned())).chain([(601, "b".to_owned())]).collect();
    for after in [0, 1, 255, 256, 598, 599, 600] {
        let wanted = self::after(after);
        let told = told(&mut server, &mut device, &wanted);
        assert_eq!(told, expected[usize::try_from(after).expect("few")..], "{after}");
    }
    let (aggregate, stream) = (Some("todo".to_owned()), Some("a".to_owned()));
    let of_a = WantedEvents { aggregate, stream, ..after(3) };
    assert_eq!(told(&mut server, &mut device, &of_a), expected[3..600]);
    let types = vec!["none".to_owned()];
    assert_eq!(told(&mut server, &mut device, &WantedEvents { types, ..after(0) }), []);
    let here = device.query("select count(*) from tidelog_events");
    assert_eq!(here, [[integer(2)]], "no more is in the document");
}

/// Goal: without its server a device says that it has not what has left, gives what it has, and
/// has all of it once the server is there. Method: asked offline, and on the way.
#[test]
fn without_the_server_it_is_said_what_is_not_there() {
    let (mut server, mut device) = archived(10);
    device.server_is_up = false;
    device.lose_socket();
    let failed = ask(&mut device, after(0));
    device.pass(20_000);
    assert_eq!(device.code(failed), ErrorCode::Archived);
    let here = ask(&mut device, after(9));
    assert_eq!(events(&device, here).expect("at once").len(), 2);
    device.server_is_up = true;
    device.pass(60_000);
    talk(&mut server, &mut [&mut device]);
    assert_eq!(told(&mut server, &mut device, &after(0)).len(), 11);
}

/// Goal: an archive that is not there is said to be so, and nobody waits for it. Method: the server
/// has lost it, as where a document was made of a file.
#[test]
fn an_archive_that_is_elsewhere_is_not_waited_for() {
    let (mut server, mut device) = archived(10);
    server.archive = None;
    let failed = ask(&mut device, after(0));
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.code(failed), ErrorCode::Archived);
    let here = ask(&mut device, after(9));
    assert_eq!(events(&device, here).expect("at once").len(), 2);
}

/// Goal: whoever asks is answered at once, also where parts leave as fast as may be, and is told
/// each event once. Method: one more part has left by the time that each answer comes.
#[test]
fn a_reader_is_answered_while_parts_leave() {
    let (mut server, mut device) = of_two_streams(5_000);
    archive_a_part(&mut server);
    talk(&mut server, &mut [&mut device]);
    let (mut next, mut rounds) = (1, 0);
    let mut call = ask(&mut device, after(0));
    while next <= 5_000 {
        rounds += 1;
        let said = device.take_sent();
        assert!(said.len() < 3, "{said:?}");
        let answers: Vec<_> =
            said.into_iter().flat_map(|message| server.hear(1, message)).collect();
        if rounds < 15 {
            archive_a_part(&mut server);
        }
        for news in server.news(1).iter().chain(&answers) {
            device.hear_server(news);
        }
        let told = events(&device, call).expect("answered by its first question");
        for (sequence, _) in told {
            assert_eq!(sequence, next, "in round {rounds}");
            next += 1;
        }
        call = ask(&mut device, after(next - 1));
    }
    assert!(rounds > 15, "{rounds}");
}

/// Goal: nobody passes over events since a server that was restored says what its archive has now.
/// Method: one that is restored to where fewer had left; a device asks once it has heard that, and
/// before it has the document as it is there.
#[test]
fn nobody_passes_over_events_of_a_server_that_was_restored() {
    let (mut server, mut device) = of_two_streams(600);
    let part = archive_a_part(&mut server);
    talk(&mut server, &mut [&mut device]);
    let next = server.document.as_ref().expect("a document").position().next;
    server.archive(&todo("a"));
    talk(&mut server, &mut [&mut device]);
    assert_eq!(told(&mut server, &mut device, &after(256)).len(), 345);
    device.server_is_up = false;
    device.lose_socket();
    server.restore(next);
    // As a server tells it to whoever has another history: as one entry.
    server.join(usize::try_from(next.get() - 1).expect("few"));
    server.archive = None;
    server.take_into_archive(part);
    device.server_is_up = true;
    device.pass(60_000);
    if device.socket.is_none() {
        device.pass(5_000);
    }
    // Up to where it has heard that its copy is another one, and no further.
    for _ in 0..2 {
        for message in device.take_sent() {
            server.hear(1, message).iter().for_each(|answer| device.hear_server(answer));
        }
    }
    let call = ask(&mut device, after(256));
    let said = device.take_sent();
    let is_question =
        |it: &ToServer| matches!(it, ToServer::About { body: ToRoom::Archived(_), .. });
    assert!(!said.iter().any(is_question), "{said:?}");
    assert_eq!(events(&device, call), None);
    for message in said {
        server.hear(1, message).iter().for_each(|answer| device.hear_server(answer));
    }
    talk(&mut server, &mut [&mut device]);
    assert_eq!(events(&device, call).expect("an answer")[0].0, 257);
    assert_eq!(told(&mut server, &mut device, &after(0)).len(), 601);
}

/// A device with so many events of a stream `a` that can leave, and one of `b` behind them.
fn of_two_streams(count: i64) -> (Server, Device) {
    let doctype = told_todos();
    let (mut server, mut device) = (Server::default(), Device::new(1));
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), &doctype);
    device.opened(call);
    talk(&mut server, &mut [&mut device]);
    device.mutate("begin", &[("id", text("a")), ("n", integer(count))]);
    let name = sending("todo", "keep");
    device.mutate(&name, &[("stream", text("a")), ("args", text("{}")), ("key", text("k"))]);
    device.mutate("begin", &[("id", text("b")), ("n", integer(1))]);
    talk(&mut server, &mut [&mut device]);
    keep_state(&mut server, count.unsigned_abs());
    (server, device)
}

/// Has one part of `a` leave.
fn archive_a_part(server: &mut Server) -> ArchivePart {
    let reader = server.document.as_mut().expect("a document").reader();
    let part = find_archivable(reader, &todo("a")).unwrap().expect("it can be archived");
    let (archived, end) = (part.archived, part.end());
    let archive = server.take_into_archive(part.clone());
    server.change(&Change::Archive { stream: todo("a"), archive, archived, end });
    part
}
