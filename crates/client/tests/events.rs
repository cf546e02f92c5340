//! Tabs that follow the events of a document.

use tidelog_client::{Call, Consumer, Events, FromCore, Request, ToCore};
use tidelog_document::{
    Doctype, EventDefinition, Param, ParamKind, StreamDefinition, WantedEvents,
};
use tidelog_testing::client::server::{Server, talk};
use tidelog_testing::client::*;
use tidelog_types::limits::{CONSUMER_NAME_SIZE_MAX, CONSUMERS_MAX, Limits};
use tidelog_types::{ErrorCode, Value};

/// The todo list with events, whose data are of that many versions.
fn told_todos(upcasts: &[&str]) -> Doctype {
    let mut doctype = todos();
    let id = [("id", ParamKind::Text), ("n", ParamKind::Integer)];
    let event = |name: &str, upcasts: &[&str]| EventDefinition {
        name: name.to_owned(),
        fields: vec![Param { name: "n".to_owned(), kind: ParamKind::Json, optional: true }],
        upcasts: upcasts.iter().map(ToString::to_string).collect(),
        project: Vec::new(),
    };
    let insert = |name: &str| {
        format!(
            "insert into tidelog_events (aggregate, stream, type, data)
             values ('todo', :id, '{name}', json_object('n', :n))"
        )
    };
    doctype.mutations.extend([
        define("begin", &id, &[&insert("begun")]),
        define("finish", &id, &[&insert("finished")]),
        define(
            "many",
            &id,
            &["with recursive i(i) as (values (1) union all select i + 1 from i where i < :n)
             insert into tidelog_events (aggregate, stream, type, data)
             select 'todo', :id, 'begun', json_object('n', i) from i"],
        ),
    ]);
    doctype.mutations.sort_by(|one, other| one.name.cmp(&other.name));
    let events = vec![event("begun", upcasts), event("finished", &[])];
    let (name, commands) = ("todo".to_owned(), Vec::new());
    doctype.streams = vec![StreamDefinition { name, events, commands }];
    doctype
}

fn online(seed: u8, doctype: &Doctype, server: &mut Server) -> Device {
    let mut device = Device::new(seed);
    open_online(&mut device, doctype, server);
    device
}

fn open_online(device: &mut Device, doctype: &Doctype, server: &mut Server) {
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), doctype);
    device.opened(call);
    talk(server, &mut [device]);
}

fn say(device: &mut Device, name: &str, id: &str, n: i64) -> Call {
    device.mutate(name, &[("id", text(id)), ("n", integer(n))])
}

fn ask(device: &mut Device, wanted: WantedEvents, waits: bool) -> Call {
    ask_for(device, None, wanted, waits)
}

fn ask_for(
    device: &mut Device,
    consumer: Option<Consumer>,
    wanted: WantedEvents,
    waits: bool,
) -> Call {
    let call = device.next_call();
    let request = Request::Events(Events { wanted, waits, consumer });
    device.ask(TAB, vec![ToCore::Ask { call, handle: HANDLE, request }]);
    call
}

fn after(after: u64) -> WantedEvents {
    WantedEvents { after, ..WantedEvents::default() }
}

/// What a call was answered: the sequence, stream, type, version and data of each event.
fn events(device: &Device, call: Call) -> Option<Vec<String>> {
    let rows = device.answers(call).into_iter().find_map(|answer| match answer {
        FromCore::Rows { rows, .. } => Some(rows.decode()),
        _ => None,
    });
    let cell = |value: &Value| match value {
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    let line = |row: &Vec<Value>| [0, 2, 4, 5, 6].map(|column| cell(&row[column])).join(" ");
    rows.map(|rows| rows.iter().map(line).collect())
}

/// Goal: a tab is told events once the server has them, in its order, and each once. Method: it
/// waits while this device and another one issue mutations that record some, offline and online.
#[test]
fn events_are_told_once_they_are_confirmed() {
    let doctype = told_todos(&[]);
    let mut server = Server::default();
    let mut one = online(1, &doctype, &mut server);
    let mut other = online(2, &doctype, &mut server);
    let first = ask(&mut one, after(0), true);
    say(&mut one, "begin", "a", 1);
    assert_eq!(one.query("select count(*) from tidelog_events"), [[integer(1)]]);
    assert_eq!(events(&one, first), None, "it is predicted, and no more");
    say(&mut other, "begin", "b", 2);
    talk(&mut server, &mut [&mut other]);
    talk(&mut server, &mut [&mut one, &mut other]);
    assert_eq!(events(&one, first), Some(vec!["1 b begun 1 {\"n\":2}".to_owned()]));
    let second = ask(&mut one, after(1), true);
    assert_eq!(events(&one, second), Some(vec!["2 a begun 1 {\"n\":1}".to_owned()]));
    // It was told all that there is.
    let third = ask(&mut one, after(2), true);
    say(&mut one, "remove", "nothing", 0);
    talk(&mut server, &mut [&mut one, &mut other]);
    assert_eq!(events(&one, third), None);
    say(&mut other, "finish", "a", 3);
    talk(&mut server, &mut [&mut other, &mut one]);
    assert_eq!(events(&one, third), Some(vec!["3 a finished 1 {\"n\":3}".to_owned()]));
    say(&mut other, "finish", "b", 4);
    talk(&mut server, &mut [&mut other, &mut one]);
    assert_eq!(one.answers(third).len(), 1, "one answer each");
    let fourth = ask(&mut one, after(4), true);
    one.give_up(fourth);
    say(&mut one, "finish", "b", 5);
    talk(&mut server, &mut [&mut other, &mut one]);
    assert_eq!(one.answers(fourth).len(), 0);
    let none = ask(&mut one, after(5), false);
    assert_eq!(events(&one, none), Some(vec![]), "who does not wait is told that there are none");
}

#[test]
fn a_tab_is_told_those_events_that_it_wants() {
    let doctype = told_todos(&[]);
    let mut device = Device::new(1);
    device.lend();
    device.open(&doctype);
    for (name, id) in [("begin", "a"), ("begin", "b"), ("finish", "a"), ("begin", "c")] {
        say(&mut device, name, id, 0);
    }
    let sequences = |wanted: WantedEvents, device: &mut Device| {
        let call = ask(device, wanted, false);
        let lines = events(device, call).expect("an answer");
        lines.iter().map(|line| line[..1].to_owned()).collect::<String>()
    };
    let [todo, none] = ["todo", "none"].map(|it| Some(it.to_owned()));
    let of = |stream: &str| Some(stream.to_owned());
    let of_a = WantedEvents { aggregate: todo.clone(), stream: of("a"), ..after(0) };
    assert_eq!(sequences(after(0), &mut device), "1234");
    assert_eq!(sequences(after(2), &mut device), "34");
    assert_eq!(sequences(of_a.clone(), &mut device), "13");
    assert_eq!(sequences(WantedEvents { after: 1, ..of_a }, &mut device), "3");
    assert_eq!(
        sequences(WantedEvents { aggregate: todo.clone(), ..after(0) }, &mut device),
        "1234"
    );
    assert_eq!(sequences(WantedEvents { aggregate: none, ..after(0) }, &mut device), "");
    let types = vec!["finished".to_owned(), "lost".to_owned()];
    assert_eq!(sequences(WantedEvents { types, ..after(0) }, &mut device), "3");
    let waits =
        ask(&mut device, WantedEvents { aggregate: todo, stream: of("b"), ..after(2) }, true);
    say(&mut device, "finish", "c", 0);
    assert_eq!(events(&device, waits), None);
    say(&mut device, "finish", "b", 0);
    assert_eq!(events(&device, waits), Some(vec!["6 b finished 1 {\"n\":0}".to_owned()]));
}

/// Goal: whoever catches up is told all, whatever it lacks in memory, and what is looked through at
/// a time is bounded. Method: 30,000 events, of which few are wanted, in a small pool.
#[test]
fn thousands_of_events_are_told_in_parts() {
    let doctype = told_todos(&[]);
    let mut device = Device::with_pool(1, 64);
    device.lend();
    device.open(&doctype);
    for nth in 0..3 {
        let filled = say(&mut device, "many", &format!("s{nth}"), 10_000);
        device.pass(2_000);
        assert!(device.fate(filled).contains("durable"), "{}", device.fate(filled));
    }
    say(&mut device, "finish", "end", 7);
    device.pass(1_000);
    let mut told = Vec::new();
    let mut last = 0;
    loop {
        let call = ask(&mut device, after(last), false);
        device.pass(1_000);
        let part = events(&device, call).expect("an answer");
        assert!(part.len() <= 256);
        if part.is_empty() {
            break;
        }
        last += part.len() as u64;
        told.extend(part);
    }
    assert_eq!(told.len(), 30_001);
    assert_eq!(told[10_000], "10001 s1 begun 1 {\"n\":1}");
    let types = vec!["finished".to_owned()];
    let call = ask(&mut device, WantedEvents { types, ..after(0) }, true);
    device.pass(1_000);
    assert_eq!(events(&device, call), Some(vec!["30001 end finished 1 {\"n\":7}".to_owned()]));
}

/// Goal: whoever looks through many events lets live queries have their turn. Method: one looks for
/// what is behind 30,000 others while a query has to run again.
#[test]
fn a_live_query_does_not_wait_for_who_looks_through_all_events() {
    let doctype = told_todos(&[]);
    let mut device = Device::new(1);
    device.lend();
    device.open(&doctype);
    let count = device.watch("select count(*) from todo");
    for nth in 0..3 {
        say(&mut device, "many", &format!("s{nth}"), 10_000);
        device.pass(2_000);
    }
    say(&mut device, "finish", "end", 7);
    device.pass(1_000);
    let add = [("id", text("a")), ("title", text("milk"))];
    let (_, add) = device.mutation("add", &add);
    let call = device.next_call();
    let wanted = WantedEvents { types: vec!["finished".to_owned()], ..after(0) };
    let request = Request::Events(Events { wanted, waits: true, consumer: None });
    device.told.clear();
    device.ask(TAB, vec![ToCore::Ask { call, handle: HANDLE, request }, add]);
    device.pass(1_000);
    let told = device.told.iter().filter(|(_, it)| matches!(it, FromCore::Rows { .. }));
    let told: Vec<_> = told.map(|(_, it)| it.call().expect("of a call")).collect();
    assert_eq!(told, [count, call]);
}

/// Goal: data of an older release are told as the newer one knows them. Method: an event of version
/// 1, and a release with two upcasts, one of which cannot run on what it is given.
#[test]
fn older_events_are_brought_to_the_version_of_who_asks() {
    let mut server = Server::default();
    let first = told_todos(&[]);
    let newest = told_todos(&[
        "json_set(:data, '$.n', json_extract(:data, '$.n') + 1)",
        "json_set(:data, '$.n', json_extract(:data, '$.n') * 10)",
    ]);
    let mut older = online(1, &first, &mut server);
    say(&mut older, "begin", "a", 4);
    say(&mut older, "finish", "a", 4);
    talk(&mut server, &mut [&mut older]);
    let mut newer = online(2, &newest, &mut server);
    say(&mut newer, "begin", "b", 4);
    talk(&mut server, &mut [&mut newer, &mut older]);
    let call = ask(&mut newer, after(0), true);
    let told = ["1 a begun 3 {\"n\":50}", "2 a finished 1 {\"n\":4}", "3 b begun 3 {\"n\":4}"];
    assert_eq!(events(&newer, call).expect("an answer"), told);
    let call = ask(&mut older, after(2), true);
    assert_eq!(events(&older, call).expect("an answer"), ["3 b begun 3 {\"n\":4}"]);
}

/// Goal: an upcast gives data as they are promised, or the loop is told which event that is about
/// and what is wrong. Method: upcasts that give jsonb, nothing, or no object, or that fail.
#[test]
fn what_an_upcast_gives_is_an_object_or_the_loop_is_told_what_is_wrong() {
    let first = told_todos(&[]);
    let told = |upcast: &str| {
        let mut device = Device::new(3);
        device.lend();
        device.open(&first);
        say(&mut device, "finish", "a", 4);
        say(&mut device, "begin", "a", 4);
        let call = device.start_open(OTHER_TAB, None, &told_todos(&[upcast]));
        device.opened(call);
        let call = device.next_call();
        let events = Events { wanted: after(0), waits: true, consumer: None };
        let request = Request::Events(events);
        device.ask(OTHER_TAB, vec![ToCore::Ask { call, handle: HANDLE, request }]);
        if let Some(told) = self::events(&device, call) {
            return Ok(told);
        }
        assert_eq!(device.code(call), ErrorCode::Query);
        let why = device.failure(call).message.split(';').next().unwrap_or_default().to_owned();
        say(&mut device, "begin", "a", 4);
        assert_eq!(device.answers(call).len(), 1, "it is over");
        Err(why)
    };
    let expected = ["1 a finished 1 {\"n\":4}", "2 a begun 2 {\"n\":5}"].map(str::to_owned);
    assert_eq!(told("jsonb_set(:data, '$.n', 5)"), Ok(expected.to_vec()));
    assert_eq!(told("json_object('n', 5) -- whatever it was"), Ok(expected.to_vec()));
    for (upcast, why) in [
        ("json_set(:data, 'n', 1)", "bad JSON path: 'n'"),
        ("null", "it gives null, and no object"),
        ("json_extract(:data, '$.n')", "it gives integer, and no object"),
        ("'[]'", "it gives array, and no object"),
        ("'nonsense'", "malformed JSON"),
    ] {
        let start = "event 2, begun of todo, cannot be brought to version 2: ";
        assert_eq!(told(upcast), Err(format!("{start}{why}")), "{upcast}");
    }
}

/// Goal: whoever waited for events of a history that was replaced is told those of the new one that
/// come. Method: a server is put back to before events that a device has been told, and sends what
/// it has left entry by entry; the device says that it has been told more than there is, too.
#[test]
fn events_behind_the_last_of_a_restored_server_are_told_when_they_come() {
    let doctype = told_todos(&[]);
    let mut server = Server::default();
    let mut one = online(1, &doctype, &mut server);
    say(&mut one, "begin", "a", 1);
    talk(&mut server, &mut [&mut one]);
    let kept = server.position().next;
    say(&mut one, "begin", "a", 2);
    say(&mut one, "begin", "a", 3);
    talk(&mut server, &mut [&mut one]);
    let waits = ask(&mut one, after(3), true);
    server.restore(kept);
    one.lose_socket();
    let offline = ask(&mut one, after(9), true);
    one.pass(10_000);
    talk(&mut server, &mut [&mut one]);
    assert_eq!(events(&one, waits), None);
    say(&mut one, "begin", "a", 4);
    talk(&mut server, &mut [&mut one]);
    let told = Some(vec!["2 a begun 1 {\"n\":4}".to_owned()]);
    assert_eq!([events(&one, waits), events(&one, offline)], [told.clone(), told]);
}

/// Goal: a copy that is behind does not tell again what it was said was told. Method: a new device
/// is sent three events one by one, of which its app knows two from elsewhere; so is one that has
/// to wait for its server.
#[test]
fn a_copy_that_is_behind_tells_nothing_again() {
    let doctype = told_todos(&[]);
    let mut server = Server::default();
    let mut one = online(1, &doctype, &mut server);
    for n in 1..=2 {
        say(&mut one, "begin", "a", n);
        talk(&mut server, &mut [&mut one]);
    }
    let mut new = Device::new(2);
    new.server_is_up = true;
    let call = new.start_open(TAB, Some(SERVER), &doctype);
    new.opened(call);
    let waits = ask(&mut new, after(2), true);
    let ahead = ask(&mut new, after(7), true);
    talk(&mut server, &mut [&mut new]);
    assert_eq!([events(&new, waits), events(&new, ahead)], [None, None]);
    say(&mut one, "begin", "a", 3);
    talk(&mut server, &mut [&mut one, &mut new]);
    let told = Some(vec!["3 a begun 1 {\"n\":3}".to_owned()]);
    assert_eq!([events(&new, waits), events(&new, ahead)], [told.clone(), told]);
}

/// Goal: pages that only the layers have in memory are fetched for who reads what is confirmed.
/// Method: a pool of no page, and mutations without a verdict over each page of the events.
#[test]
fn what_is_confirmed_is_read_below_what_is_undecided() {
    let doctype = told_todos(&[]);
    let mut server = Server::default();
    let mut one = Device::with_limits(1, Limits { pool_pages_max: 0, ..Limits::DEFAULT });
    open_online(&mut one, &doctype, &mut server);
    say(&mut one, "many", "a", 300);
    talk(&mut server, &mut [&mut one]);
    one.server_is_up = false;
    one.lose_socket();
    for n in 0..3 {
        say(&mut one, "many", "a", 300 + n);
    }
    let call = ask(&mut one, after(290), true);
    one.pass(100);
    assert_eq!(events(&one, call).expect("an answer").len(), 10);
}

/// Goal: a consumer goes on where it ended, after a reload and the death of a core, and no more of
/// them are kept than may be. Method: it deals with one event of three; then many others come.
#[test]
fn a_consumer_goes_on_where_it_ended() {
    let doctype = told_todos(&[]);
    let mut device = Device::new(1);
    device.lend();
    device.open(&doctype);
    for n in 1..=3 {
        say(&mut device, "begin", "a", n);
    }
    let consumer = |name: &str, begins: bool| Some(Consumer { name: name.to_owned(), begins });
    let first = |device: &mut Device, name: &str, from: u64| {
        let call = ask_for(device, consumer(name, true), after(from), false);
        events(device, call).expect("an answer").first().map(|line| line[..1].to_owned())
    };
    assert_eq!(first(&mut device, "mail", 0).as_deref(), Some("1"));
    let call = ask_for(&mut device, consumer("mail", false), after(1), false);
    assert_eq!(events(&device, call).expect("an answer").len(), 2);
    assert_eq!(first(&mut device, "mail", 0).as_deref(), Some("2"));
    assert_eq!(first(&mut device, "mail", 2).as_deref(), Some("3"), "whoever wants less");
    assert_eq!(first(&mut device, "print", 0).as_deref(), Some("1"), "another one");
    device.flushed();
    device.kill_core();
    device.lend();
    device.open(&doctype);
    assert_eq!(first(&mut device, "mail", 0).as_deref(), Some("2"));
    let mut fate = |name: &str| {
        let call = ask_for(&mut device, consumer(name, false), after(1), false);
        matches!(device.answer(call), FromCore::Rows { .. })
    };
    for nth in 1..CONSUMERS_MAX {
        assert!(fate(&format!("c{nth}")));
    }
    assert!(!fate("one too many") && fate("c1") && fate("mail"));
    assert!(!fate(&"x".repeat(CONSUMER_NAME_SIZE_MAX + 1)));
}
