//! Tabs that send commands, and tabs that handle them.

use tidelog_client::{
    Call, CommandName, Complete, FromCore, Handle, Handling, Request, TabId, ToCore,
};
use tidelog_document::{
    CommandDefinition, CommandRef, Completion, Doctype, EventDefinition, InstanceId, Intervened,
    Intervention, NewEvent, Outcome, Param, ParamKind, StreamDefinition, TaskKind, sending,
};
use tidelog_sync::UndecidedReason;
use tidelog_testing::client::server::{Server, back_online, offline, talk};
use tidelog_testing::client::*;
use tidelog_types::limits::{INSTANCE_SILENT_MS, Limits};
use tidelog_types::{ErrorCode, Role, Value};

/// The todo list, whose todos are asked to be finished.
fn handled_todos() -> Doctype {
    let mut doctype = todos();
    let event = EventDefinition {
        name: "finished".to_owned(),
        fields: vec![Param { name: "by".to_owned(), kind: ParamKind::Text, optional: false }],
        upcasts: Vec::new(),
        project: Vec::new(),
    };
    let command = CommandDefinition {
        name: "finish".to_owned(),
        fields: vec![Param { name: "by".to_owned(), kind: ParamKind::Text, optional: false }],
        received: Vec::new(),
        failed: Vec::new(),
        retries: 3,
        timeout_ms: 0,
    };
    let (name, events, commands) = ("todo".to_owned(), vec![event], vec![command]);
    doctype.streams = vec![StreamDefinition { name, events, commands }];
    doctype
}

fn online(seed: u8, server: &mut Server) -> Device {
    let mut device = Device::new(seed);
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), &handled_todos());
    device.opened(call);
    talk(server, &mut [&mut device]);
    device
}

fn ask(device: &mut Device, request: Request) -> Call {
    ask_in(device, TAB, HANDLE, request)
}

fn ask_in(device: &mut Device, tab: TabId, handle: Handle, request: Request) -> Call {
    let call = device.next_call();
    device.ask(tab, vec![ToCore::Ask { call, handle, request }]);
    call
}

fn send(device: &mut Device, stream: &str, key: &str) -> Call {
    let args = [("stream", text(stream)), ("args", text(r#"{"by":"ada"}"#)), ("key", text(key))];
    device.mutate(&sending("todo", "finish"), &args)
}

fn outcome(device: &mut Device, stream: &str, key: &str) -> Call {
    let [aggregate, stream, name, key] = ["todo", stream, "finish", key].map(str::to_owned);
    ask(device, Request::Outcome(CommandName { aggregate, stream, name, key }))
}

fn handling(concurrency: u32) -> Request {
    let kind = TaskKind { aggregate: "todo".to_owned(), name: "finish".to_owned() };
    Request::Handle(Handling { kinds: vec![kind], concurrency })
}

/// The commands that a handler was told last: number, attempt and stream.
fn given(device: &Device, call: Call) -> Vec<(i64, i64, String)> {
    let last = device.rows_told(call).pop().expect("told");
    last.into_iter()
        .map(|row| match (&row[0], &row[9], &row[2]) {
            (Value::Integer(number), Value::Integer(attempt), Value::Text(stream)) => {
                (*number, *attempt, stream.clone())
            }
            other => panic!("{other:?}"),
        })
        .collect()
}

/// Which instance a handler was when it was given something last.
fn instance(device: &Device, call: Call) -> InstanceId {
    let lists = device.rows_told(call).into_iter().rev();
    let last = lists.flatten().next().expect("it was given something");
    match last.last() {
        Some(Value::Integer(instance)) => InstanceId(instance.unsigned_abs()),
        other => panic!("{other:?}"),
    }
}

fn complete(device: &mut Device, handling: Call, which: [u64; 3]) -> Call {
    let instance = instance(device, handling);
    complete_as(device, handling, instance, which)
}

fn complete_as(
    device: &mut Device,
    handling: Call,
    instance: InstanceId,
    [command, attempt, position]: [u64; 3],
) -> Call {
    let data = r#"{"by":"ada"}"#.to_owned();
    let events = vec![NewEvent { name: "finished".to_owned(), data }];
    let outcome =
        Outcome::Completed { events, sends: Vec::new(), starts: Vec::new(), snapshot: None };
    let completion = Completion { task: command, attempt, position, outcome };
    ask(device, Request::Complete(Complete { handling, instance, completion }))
}

/// Goal: what is too large to be said keeps nobody waiting, and is not said for ever. Method: a
/// command comes to that, and another one fails with a reason like that.
#[test]
fn what_an_attempt_comes_to_that_is_too_large_to_travel_has_failed() {
    let mut server = Server::default();
    let (mut shop, mut house) = (online(1, &mut server), online(2, &mut server));
    let handler = ask(&mut house, handling(4));
    for stream in ["a", "b"] {
        send(&mut shop, stream, "k");
    }
    talk(&mut server, &mut [&mut shop, &mut house]);
    let instance = instance(&house, handler);
    let event = NewEvent { name: "finished".to_owned(), data: "x".repeat(250_000) };
    let completed = Outcome::Completed {
        events: vec![event; 110],
        sends: Vec::new(),
        starts: Vec::new(),
        snapshot: None,
    };
    let failed = Outcome::Failed { reason: "y".repeat(28_000_000), is_final: true };
    for (task, outcome) in [(1, completed), (2, failed)] {
        let completion = Completion { task, attempt: 1, position: 0, outcome };
        let complete = Complete { handling: handler, instance, completion };
        let completed = ask(&mut house, Request::Complete(complete));
        talk(&mut server, &mut [&mut shop, &mut house]);
        assert_eq!(said(&house, completed), [text("done")]);
    }
    for (stream, why) in [("a", "what it came to has 27"), ("b", "yyy")] {
        let outcome = outcome(&mut shop, stream, "k");
        let answered = answered(&shop, outcome);
        let [_, state, Value::Text(reason), ..] = &answered[0][..] else { panic!("{answered:?}") };
        assert_eq!(*state, text("failed"));
        assert!(reason.starts_with(why) && reason.len() < 5_000, "{reason}");
    }
}

fn answered(device: &Device, call: Call) -> Vec<Vec<Value>> {
    let mut rows = device.rows_told(call).pop().unwrap_or_default();
    // By whose clock that was said, and when, is for runs alone.
    rows.iter_mut().for_each(|row| row.truncate(5));
    rows
}

/// What became of an attempt.
fn said(device: &Device, call: Call) -> Vec<Value> {
    answered(device, call).into_iter().map(|mut row| row.remove(0)).collect()
}

fn state(number: i64, state: &str, sequence: i64) -> Vec<Vec<Value>> {
    let [number, sequence] = [number, sequence].map(integer);
    vec![vec![number, text(state), Value::Null, sequence.clone(), sequence]]
}

/// Goal: a command that one device sends is given to another one, and its outcome comes back.
/// Method: sent offline, then online; handled by another device.
#[test]
fn a_command_goes_from_one_device_to_another_and_its_outcome_back() {
    let mut server = Server::default();
    let (mut shop, mut house) = (online(1, &mut server), online(2, &mut server));
    let handling = ask(&mut house, handling(4));
    assert_eq!(given(&house, handling), []);
    offline(&mut shop);
    let sent = send(&mut shop, "a", "k");
    assert!(matches!(shop.answer(sent), FromCore::Durable { .. }));
    let outcome = outcome(&mut shop, "a", "k");
    assert_eq!(shop.answers(outcome).len(), 0, "nobody has received it");
    back_online(&mut server, &mut shop);
    talk(&mut server, &mut [&mut shop, &mut house]);
    assert_eq!(given(&house, handling), [(1, 1, "a".to_owned())]);
    assert_eq!(shop.answers(outcome).len(), 0, "nobody has handled it");
    let completed = complete(&mut house, handling, [1, 1, 0]);
    assert_eq!(house.answers(completed).len(), 0, "nobody has decided");
    talk(&mut server, &mut [&mut shop, &mut house]);
    assert_eq!(said(&house, completed), [text("done")]);
    assert_eq!(given(&house, handling), []);
    assert_eq!(answered(&shop, outcome), state(1, "completed", 1));
    let unknown = self::outcome(&mut shop, "a", "another");
    assert_eq!(shop.rows_told(unknown), [Vec::<Vec<Value>>::new()], "there is none of that key");
}

/// Goal: whoever is given many is not told all of them each time one comes. Method: a local
/// document, where all are given at once; time passes as it is said to.
#[test]
fn a_handler_that_is_given_many_hears_of_more_some_milliseconds_later() {
    let mut device = Device::new(1);
    let call = device.start_open(TAB, None, &handled_todos());
    device.opened(call);
    let handler = ask(&mut device, handling(256));
    (0..15).for_each(|n| _ = send(&mut device, &n.to_string(), "k"));
    assert_eq!(given(&device, handler).len(), 15, "a few are told at once");
    let told = device.rows_told(handler).len();
    (15..200).for_each(|n| _ = send(&mut device, &n.to_string(), "k"));
    device.pass(12);
    assert_eq!(given(&device, handler).len(), 200);
    assert!(device.rows_told(handler).len() - told < 8, "{}", device.rows_told(handler).len());

    device.pass(12);
    complete(&mut device, handler, [1, 1, 0]);
    assert_eq!(given(&device, handler).len(), 199, "it was told some time ago");
    complete(&mut device, handler, [2, 1, 0]);
    device.pass(11);
    assert_eq!(given(&device, handler).len(), 199);
    device.pass(1);
    assert_eq!(given(&device, handler).len(), 198, "nobody has said anything else");
}

/// Goal: a list that rests is told on time though another tab's, which hears nothing, rested long
/// ago. Method: two tabs handle; the core is woken when it wants to be, and not otherwise.
#[test]
fn a_list_that_rests_is_told_though_another_tab_is_behind() {
    let limits = Limits { tab_unheard_size_max: 4_000, ..Limits::DEFAULT };
    let mut device = Device::with_limits(1, limits);
    for tab in [TAB, OTHER_TAB] {
        let call = device.start_open(tab, None, &handled_todos());
        device.opened(call);
    }
    let hear = |device: &mut Device| device.ask(TAB, vec![ToCore::Heard { lists: u32::MAX }]);
    let handler = ask(&mut device, handling(256));
    ask_in(&mut device, OTHER_TAB, HANDLE, handling(256));
    device.tabs_hear = false;
    (0..100).for_each(|n| _ = send(&mut device, &n.to_string(), "k"));
    for _ in 0..2 {
        hear(&mut device);
        device.pass(100);
    }
    let told = given(&device, handler).len();
    for n in 100..104 {
        send(&mut device, &n.to_string(), "k");
        hear(&mut device);
    }
    device.pass_awake(20);
    assert_eq!(given(&device, handler).len(), told + 4);
}

/// Goal: whoever has let go of it before the core got to it handles nothing. Method: both in one
/// turn of the tab, as where a page begins to handle and is taken away at once.
#[test]
fn who_gives_up_as_it_begins_to_handle_is_given_nothing() {
    let mut server = Server::default();
    let mut shop = online(1, &mut server);
    let call = shop.next_call();
    let begins = ToCore::Ask { call, handle: HANDLE, request: handling(4) };
    shop.ask(TAB, vec![begins, ToCore::GiveUp { call }]);
    send(&mut shop, "a", "k");
    talk(&mut server, &mut [&mut shop]);
    assert_eq!(shop.query("select count(*) from tidelog_instances"), [[Value::Integer(0)]]);
    assert_eq!(shop.query("select state from tidelog_commands"), [[text("received")]]);
}

/// Goal: whoever was told that it fails, and asks once more, is one and not two, where the server
/// decides and where this device does.
#[test]
fn who_asks_to_handle_once_more_is_the_only_one() {
    for is_local in [false, true] {
        let mut server = Server::default();
        let mut shop = match is_local {
            false => online(1, &mut server),
            true => {
                let mut device = Device::new(1);
                device.open(&handled_todos());
                device
            }
        };
        let call = ask(&mut shop, handling(4));
        talk(&mut server, &mut [&mut shop]);
        shop.ask(TAB, vec![ToCore::Ask { call, handle: HANDLE, request: handling(4) }]);
        talk(&mut server, &mut [&mut shop]);
        assert_eq!(shop.query("select count(*) from tidelog_instances"), [[Value::Integer(1)]]);
        send(&mut shop, "a", "k");
        talk(&mut server, &mut [&mut shop]);
        assert_eq!(given(&shop, call), [(1, 1, "a".to_owned())], "local: {is_local}");
    }
}

/// Goal: what is asked of a document that others have open too is not looked for any more once who
/// has asked has closed it. Method: it waits for what becomes of a command, closes, and that comes.
#[test]
fn what_was_waited_for_by_who_has_closed_is_told_nobody() {
    let mut server = Server::default();
    let mut shop = online(1, &mut server);
    let open = shop.start_open(OTHER_TAB, Some(SERVER), &handled_todos());
    assert!(matches!(shop.answers(open).last(), Some(FromCore::Opened { .. })));
    let handling = ask(&mut shop, handling(4));
    send(&mut shop, "a", "k");
    let [aggregate, stream, name, key] = ["todo", "a", "finish", "k"].map(str::to_owned);
    let wanted = Request::Outcome(CommandName { aggregate, stream, name, key });
    let call = ask_in(&mut shop, OTHER_TAB, HANDLE, wanted);
    ask_in(&mut shop, OTHER_TAB, HANDLE, Request::Close);
    talk(&mut server, &mut [&mut shop]);
    complete(&mut shop, handling, [1, 1, 0]);
    talk(&mut server, &mut [&mut shop]);
    assert_eq!(shop.answers(call).len(), 0, "nobody waits for it");
}

/// Goal: a command that has failed and is given again has the outcome that comes of that, and
/// whoever waits for it is told. Method: told that it has failed, asked anew once it is given
/// again, and told once another device has handled it.
#[test]
fn the_outcome_of_a_command_that_is_given_again_replaces_the_first_one() {
    let mut server = Server::default();
    let (mut shop, mut house) = (online(1, &mut server), online(2, &mut server));
    let handling = ask(&mut house, handling(4));
    send(&mut shop, "a", "k");
    let first = outcome(&mut shop, "a", "k");
    talk(&mut server, &mut [&mut shop, &mut house]);
    let reason = "cancelled by bob".to_owned();
    let cancelled = server.intervene(CommandRef::Number(1), Intervention::Cancel { reason });
    assert_eq!(cancelled, Intervened::Done(1));
    talk(&mut server, &mut [&mut shop, &mut house]);
    assert_eq!(given(&house, handling), [], "it is taken from whoever works at it");
    let failed = answered(&shop, first);
    assert_eq!(failed[0][1..3], [text("failed"), text("cancelled by bob")]);

    let again = server.intervene(CommandRef::Number(1), Intervention::Retry);
    assert_eq!(again, Intervened::Done(1));
    talk(&mut server, &mut [&mut shop, &mut house]);
    let second = outcome(&mut shop, "a", "k");
    assert_eq!(shop.answers(second).len(), 0, "it is not over");
    assert_eq!(given(&house, handling), [(1, 2, "a".to_owned())]);
    let late = complete(&mut house, handling, [1, 1, 0]);
    complete(&mut house, handling, [1, 2, 0]);
    talk(&mut server, &mut [&mut shop, &mut house]);
    assert_eq!(said(&house, late), [text("late")]);
    assert_eq!(answered(&shop, second), state(1, "completed", 1));
}

/// Goal: who may send, and not write otherwise, sends, offline too, and is told at once that it may
/// do nothing else; one who may no longer has what waits rejected, and sends none; one who may
/// again comes anew. Method: a server of tokens that says so, and changes its mind.
#[test]
fn one_who_may_only_send_sends_and_does_nothing_else() {
    let mut server = Server::default();
    server.subject = Some("ada".to_owned());
    let mut shop = Device::new(1);
    server.senders.insert(shop.number);
    shop.server_is_up = true;
    let call = shop.start_open(TAB, Some(SERVER), &handled_todos());
    shop.opened(call);
    talk(&mut server, &mut [&mut shop]);
    assert_eq!(shop.status().access, Some(Role::Send));
    let refused = add(&mut shop, "milk");
    let failure = shop.failure(refused);
    assert_eq!((failure.code, failure.outcome), (ErrorCode::Access, tidelog_types::Outcome::None));
    assert!(failure.message.contains("may only send commands to"), "{}", failure.message);
    offline(&mut shop);
    let sent = send(&mut shop, "a", "k");
    back_online(&mut server, &mut shop);
    assert_eq!(shop.fate(sent), "durable 1, confirmed 2");

    offline(&mut shop);
    let late = send(&mut shop, "b", "k");
    server.senders.clear();
    server.readers.insert(shop.number);
    back_online(&mut server, &mut shop);
    assert_eq!(shop.fate(late), "durable 2, rejected: access");
    let refused = send(&mut shop, "c", "k");
    assert_eq!(shop.code(refused), ErrorCode::Access);

    let opens = server.opens;
    for told in server.allow(shop.number, Role::Send) {
        shop.hear_server(&told);
    }
    talk(&mut server, &mut [&mut shop]);
    assert_eq!(server.opens, opens + 1, "only then are its frames taken again");
    let again = send(&mut shop, "c", "k");
    talk(&mut server, &mut [&mut shop]);
    assert_eq!(shop.fate(again), "durable 1, confirmed 3");
    assert_eq!(shop.query("select stream from tidelog_commands"), [[text("a")], [text("c")]]);
}

/// Goal: what one sends who may not bring its app's newer doctype is received once others have
/// brought that. Method: a server that does not know it, and then does; nobody is told of it.
#[test]
fn what_is_sent_by_an_app_that_is_newer_waits_for_somebody_who_may_bring_it() {
    let mut server = Server::default();
    server.subject = Some("ada".to_owned());
    let mut shop = Device::new(1);
    server.senders.insert(shop.number);
    shop.server_is_up = true;
    let call = shop.start_open(TAB, Some(SERVER), &handled_todos());
    shop.opened(call);
    talk(&mut server, &mut [&mut shop]);
    let reason = "doctype 00 is not known".to_owned();
    server.no_verdict = Some(UndecidedReason::UnknownDoctype { reason });
    let sent = send(&mut shop, "a", "k");
    talk(&mut server, &mut [&mut shop]);
    assert_eq!(shop.fate(sent), "durable 1");
    server.no_verdict = None;
    // It hears the server all the while: no connection that is lost brings it back.
    for _ in 0..4 {
        assert_eq!(shop.fate(sent), "durable 1");
        shop.pass(7_500);
        talk(&mut server, &mut [&mut shop]);
    }
    assert_eq!(shop.fate(sent), "durable 1, confirmed 2");
}

/// Goal: what a writer has issued who may only send by now is rejected from the first that is no
/// send on, and what it sent before that is received. Method: three are issued while it is away.
#[test]
fn what_a_writer_has_issued_who_may_only_send_by_now_is_rejected() {
    let mut server = Server::default();
    server.subject = Some("ada".to_owned());
    let mut shop = online(1, &mut server);
    offline(&mut shop);
    let before = send(&mut shop, "a", "k");
    let (between, behind) = (add(&mut shop, "milk"), send(&mut shop, "b", "k"));
    server.senders.insert(shop.number);
    back_online(&mut server, &mut shop);
    assert_eq!(shop.fate(before), "durable 1, confirmed 2");
    assert_eq!(shop.fate(between), "durable 2, rejected: access");
    assert_eq!(shop.fate(behind), "durable 3, rejected: access");
    assert_eq!(shop.query("select stream from tidelog_commands"), [[text("a")]]);
    assert_eq!(shop.query("select id from todo"), Vec::<Vec<Value>>::new());
    let again = send(&mut shop, "b", "k");
    talk(&mut server, &mut [&mut shop]);
    assert_eq!(shop.fate(again), "durable 1, confirmed 3");
}

/// Goal: where a device decides by itself it handles its commands by itself. Method: no server;
/// what it works at as its core dies is given to whoever handles them next, at once, since nobody
/// of that core can come back.
#[test]
fn a_local_document_handles_its_own_commands() {
    let mut device = Device::new(1);
    device.open(&handled_todos());
    send(&mut device, "a", "k");
    let first = ask(&mut device, handling(1));
    device.pass(10);
    assert_eq!(given(&device, first), [(1, 1, "a".to_owned())]);
    device.pass(1_000);
    device.kill_core();
    device.lend();
    device.open(&handled_todos());
    let second = ask(&mut device, handling(1));
    device.pass(10);
    assert_eq!(given(&device, second), [(1, 2, "a".to_owned())]);
    let late = complete(&mut device, second, [1, 1, 0]);
    let done = complete(&mut device, second, [1, 2, 0]);
    device.pass(10);
    assert_eq!(said(&device, late), [text("late")]);
    assert_eq!(said(&device, done), [text("done")]);
    let outcome = outcome(&mut device, "a", "k");
    assert_eq!(answered(&device, outcome), state(1, "completed", 1));
    let events = device.query("select type || cause from tidelog_events");
    assert_eq!(events, [[text("finishedcommand:1")]]);
}

#[test]
fn what_a_handler_of_a_local_document_leaves_is_given_to_the_next_one_at_once() {
    let mut device = Device::new(1);
    device.open(&handled_todos());
    send(&mut device, "a", "k");
    let first = ask(&mut device, handling(1));
    device.pass(10);
    assert_eq!(given(&device, first), [(1, 1, "a".to_owned())]);
    device.give_up(first);
    device.pass(10);
    assert_eq!(device.query("select instance from tidelog_instances"), Vec::<Vec<Value>>::new());
    let second = ask(&mut device, handling(1));
    device.pass(10);
    assert_eq!(given(&device, second), [(1, 2, "a".to_owned())]);
}

/// Goal: what follows when a tab goes, or does not hear, waits for nothing else to happen. Method:
/// a local document that two tabs handle, in a core that is woken only when it asks for that.
#[test]
fn what_a_tab_leaves_is_given_to_another_one_though_nothing_else_happens() {
    for closes in [true, false] {
        let mut device = Device::new(1);
        device.open(&handled_todos());
        device.start_open(OTHER_TAB, None, &handled_todos());
        send(&mut device, "a", "k");
        let first = ask(&mut device, handling(1));
        device.pass(10);
        let second = ask_in(&mut device, OTHER_TAB, HANDLE, handling(1));
        device.pass(10);
        assert_eq!(given(&device, first), [(1, 1, "a".to_owned())]);
        // That they hear something would be a step of the core.
        device.tabs_hear = false;
        if closes {
            ask(&mut device, Request::Close);
            device.pass_awake(10);
        } else {
            device.pass_awake(INSTANCE_SILENT_MS + 10);
        }
        assert_eq!(given(&device, second), [(1, 2, "a".to_owned())], "{closes}");
    }
}

/// Goal: whoever waits to be answered is, though nothing else happens. Method: a handler closes the
/// document, and has just said what came of its attempt.
#[test]
fn what_a_handler_has_said_is_answered_though_it_closes() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    device.start_open(OTHER_TAB, Some(SERVER), &handled_todos());
    let handler = ask(&mut device, handling(1));
    send(&mut device, "a", "k");
    talk(&mut server, &mut [&mut device]);
    assert_eq!(given(&device, handler), [(1, 1, "a".to_owned())]);
    device.tabs_hear = false;
    let done = complete(&mut device, handler, [1, 1, 0]);
    ask(&mut device, Request::Close);
    assert_eq!(said(&device, done), [text("late")]);
}

/// Goal: a handler that loses its server for a moment goes on as who it was, and one that is away
/// for long has lost what it worked at; so has one that closes, at once.
#[test]
fn whoever_is_away_for_long_loses_what_it_works_at() {
    let mut server = Server::default();
    let [mut one, mut two] = [1, 2].map(|seed| online(seed, &mut server));
    let ones = ask(&mut one, handling(1));
    talk(&mut server, &mut [&mut one, &mut two]);
    send(&mut two, "a", "k");
    talk(&mut server, &mut [&mut one, &mut two]);
    let twos = ask(&mut two, handling(1));
    talk(&mut server, &mut [&mut one, &mut two]);
    assert_eq!(given(&one, ones), [(1, 1, "a".to_owned())]);
    offline(&mut one);
    server.forget(one.number);
    server.now_ms += INSTANCE_SILENT_MS - 1;
    back_online(&mut server, &mut one);
    talk(&mut server, &mut [&mut one, &mut two]);
    assert_eq!(given(&one, ones), [(1, 1, "a".to_owned())], "it is back");
    offline(&mut one);
    server.forget(one.number);
    let done = complete(&mut one, ones, [1, 1, 0]);
    server.now_ms += INSTANCE_SILENT_MS;
    talk(&mut server, &mut [&mut two]);
    assert_eq!(given(&two, twos), [(1, 2, "a".to_owned())]);
    back_online(&mut server, &mut one);
    talk(&mut server, &mut [&mut one, &mut two]);
    assert_eq!(said(&one, done), [text("late")], "it is told at last");
    assert_eq!(given(&one, ones), []);
    ask(&mut two, Request::Close);
    talk(&mut server, &mut [&mut one, &mut two]);
    assert_eq!(given(&one, ones), [(1, 3, "a".to_owned())]);
    one.give_up(ones);
    talk(&mut server, &mut [&mut one, &mut two]);
    let again = ask(&mut one, handling(1));
    talk(&mut server, &mut [&mut one, &mut two]);
    assert_eq!(given(&one, again), [(1, 4, "a".to_owned())], "given up at once, too");
}

/// Goal: a tab that is frozen holds nothing up. Method: it hears nothing of what it is told; then
/// it goes on.
#[test]
fn a_tab_that_hears_nothing_loses_what_it_works_at_until_it_does() {
    let mut server = Server::default();
    let [mut one, mut two] = [1, 2].map(|seed| online(seed, &mut server));
    let ones = ask(&mut one, handling(1));
    talk(&mut server, &mut [&mut one, &mut two]);
    one.tabs_hear = false;
    send(&mut two, "a", "k");
    talk(&mut server, &mut [&mut one, &mut two]);
    let twos = ask(&mut two, handling(1));
    talk(&mut server, &mut [&mut one, &mut two]);
    assert_eq!(given(&two, twos), []);
    for _ in 0..12 {
        one.pass(INSTANCE_SILENT_MS / 10);
        talk(&mut server, &mut [&mut one, &mut two]);
    }
    assert_eq!(given(&two, twos), [(1, 2, "a".to_owned())]);
    two.give_up(twos);
    talk(&mut server, &mut [&mut one, &mut two]);
    let told = one.rows_told(ones).len();
    one.tabs_hear = true;
    one.ask(TAB, vec![ToCore::Heard { lists: 100 }]);
    one.pass(10);
    talk(&mut server, &mut [&mut one, &mut two]);
    assert!(one.rows_told(ones).len() > told);
    assert_eq!(given(&one, ones), [(1, 3, "a".to_owned())]);
}

/// Goal: the same of one that has so much to hear that it is not even told what it was given.
/// Method: a query has told it more than it may have to hear, and then it is given a command.
#[test]
fn a_tab_that_has_too_much_to_hear_loses_what_it_was_not_told_of() {
    let mut server = Server::default();
    let limits = Limits { tab_unheard_size_max: 4_000, ..Limits::DEFAULT };
    let mut one = Device::with_limits(1, limits);
    one.server_is_up = true;
    let call = one.start_open(TAB, Some(SERVER), &handled_todos());
    one.opened(call);
    talk(&mut server, &mut [&mut one]);
    let mut two = online(2, &mut server);
    let ones = ask(&mut one, handling(1));
    talk(&mut server, &mut [&mut one, &mut two]);
    one.tabs_hear = false;
    one.watch_in(TAB, "select printf('%8000c', 'x')");
    let told = one.rows_told(ones).len();
    send(&mut two, "a", "k");
    talk(&mut server, &mut [&mut one, &mut two]);
    assert_eq!(one.rows_told(ones).len(), told, "it is not told");
    let twos = ask(&mut two, handling(1));
    talk(&mut server, &mut [&mut one, &mut two]);
    assert_eq!(given(&two, twos), [], "it is the other's");
    for _ in 0..12 {
        one.pass(INSTANCE_SILENT_MS / 10);
        talk(&mut server, &mut [&mut one, &mut two]);
    }
    assert_eq!(given(&two, twos), [(1, 2, "a".to_owned())]);
}

/// Goal: what a frozen tab was given waits no longer than 30 seconds for it, though it has answered
/// just before. Method: by the millisecond, with another handler.
#[test]
fn a_tab_that_has_just_heard_is_waited_for_no_longer() {
    let mut server = Server::default();
    let [mut one, mut two] = [1, 2].map(|seed| online(seed, &mut server));
    let ones = ask(&mut one, handling(9));
    talk(&mut server, &mut [&mut one, &mut two]);
    send(&mut two, "a", "k");
    talk(&mut server, &mut [&mut one, &mut two]);
    assert_eq!(given(&one, ones).len(), 1, "it hears that");
    let twos = ask(&mut two, handling(9));
    talk(&mut server, &mut [&mut one, &mut two]);
    one.tabs_hear = false;
    for _ in 0..299 {
        one.pass(100);
    }
    talk(&mut server, &mut [&mut one, &mut two]);
    assert_eq!(given(&two, twos), []);
    one.pass(100);
    talk(&mut server, &mut [&mut one, &mut two]);
    assert_eq!(given(&two, twos), [(1, 2, "a".to_owned())]);
}

/// Goal: a device that was asleep takes no tab for frozen that had no time to answer. Method: the
/// core runs again after minutes, once more before its tab answers, and then the tab completes.
#[test]
fn a_tab_that_slept_along_with_its_core_goes_on_with_what_it_works_at() {
    let mut server = Server::default();
    let mut one = online(1, &mut server);
    let ones = ask(&mut one, handling(1));
    talk(&mut server, &mut [&mut one]);
    send(&mut one, "a", "k");
    talk(&mut server, &mut [&mut one]);
    assert_eq!(given(&one, ones), [(1, 1, "a".to_owned())]);
    let before = instance(&one, ones);
    one.tabs_hear = false;
    one.now_ms += 2 * INSTANCE_SILENT_MS;
    for ms in [0, 1, INSTANCE_SILENT_MS / 3 - 2] {
        one.pass_awake(ms);
        talk(&mut server, &mut [&mut one]);
    }
    one.tabs_hear = true;
    one.ask(TAB, vec![ToCore::Heard { lists: 100 }]);
    talk(&mut server, &mut [&mut one]);
    assert_eq!(instance(&one, ones), before);
    let done = complete(&mut one, ones, [1, 1, 0]);
    talk(&mut server, &mut [&mut one]);
    assert_eq!(said(&one, done), [text("done")]);
}

/// Goal: what a handler has done, and a restored server has not heard of, is done again, by that
/// handler. Method: the server is put back to before the end of a command, which is under way there
/// by an attempt of the same number.
#[test]
fn what_a_restored_server_has_lost_is_handled_again() {
    let mut server = Server::default();
    let mut one = online(1, &mut server);
    let ones = ask(&mut one, handling(1));
    talk(&mut server, &mut [&mut one]);
    send(&mut one, "a", "k");
    talk(&mut server, &mut [&mut one]);
    assert_eq!(given(&one, ones), [(1, 1, "a".to_owned())]);
    let before = instance(&one, ones);
    let kept = server.position().next;
    complete(&mut one, ones, [1, 1, 0]);
    talk(&mut server, &mut [&mut one]);
    assert_eq!(given(&one, ones), []);
    server.restore(kept);
    one.lose_socket();
    one.pass(10_000);
    talk(&mut server, &mut [&mut one]);
    assert_eq!(given(&one, ones), [], "it may be under way elsewhere");
    server.now_ms += INSTANCE_SILENT_MS;
    one.pass(10_000);
    talk(&mut server, &mut [&mut one]);
    assert_eq!(given(&one, ones), [(1, 2, "a".to_owned())]);
    assert!(instance(&one, ones) > before, "a number that was never used");
    let done = complete(&mut one, ones, [1, 2, 0]);
    talk(&mut server, &mut [&mut one]);
    assert_eq!(said(&one, done), [text("done")]);
}

/// Goal: what a handler was given is not taken from it because its own device reads an older copy
/// from the disk. Method: the disk takes nothing more, and then it does again.
#[test]
fn a_handler_keeps_what_it_was_given_while_its_disk_is_full() {
    let mut server = Server::default();
    let (mut one, mut two) = (online(1, &mut server), online(2, &mut server));
    let ones = ask(&mut one, handling(1));
    talk(&mut server, &mut [&mut one, &mut two]);
    one.fill_disk();
    send(&mut two, "a", "k");
    talk(&mut server, &mut [&mut one, &mut two]);
    for nth in 0..32 {
        if nth == 12 {
            one.disk.set_full(false);
        }
        one.pass(1_000);
        talk(&mut server, &mut [&mut one, &mut two]);
    }
    let lists = one.rows_told(ones);
    let given = lists.iter().skip_while(|list| list.is_empty());
    assert!(given.clone().count() > 1, "it was read anew: {lists:?}");
    assert!(given.clone().all(|list| list.len() == 1), "{lists:?}");
}

/// Goal: a tab that was frozen, and is the one that was given something no longer, is told so,
/// whatever its device's copy lacks. Method: the disk is full, and the device goes offline, before
/// it has all of the server again.
#[test]
fn a_frozen_tab_is_left_nothing_while_its_disk_is_full() {
    let mut server = Server::default();
    let (mut one, mut two) = (online(1, &mut server), online(2, &mut server));
    let ones = ask(&mut one, handling(1));
    talk(&mut server, &mut [&mut one, &mut two]);
    send(&mut two, "a", "k");
    talk(&mut server, &mut [&mut one, &mut two]);
    one.fill_disk();
    send(&mut two, "b", "k");
    talk(&mut server, &mut [&mut one, &mut two]);
    one.tabs_hear = false;
    one.pass(1_000);
    offline(&mut one);
    for _ in 0..60 {
        one.pass(1_000);
    }
    assert_eq!(given(&one, ones), []);
    one.ask(TAB, vec![ToCore::Heard { lists: u32::MAX }]);
    one.pass(1_000);
    assert_eq!(given(&one, ones), []);
}

/// Goal: what a tab says as its server is restored is taken for no other command's. Method: the
/// server is put back to before a command, another one has its number and attempt, and only then
/// what came of the first one arrives.
#[test]
fn what_came_of_a_command_that_a_server_has_lost_is_no_other_ones() {
    let mut server = Server::default();
    let (mut one, mut two) = (online(1, &mut server), online(2, &mut server));
    let ones = ask(&mut one, handling(1));
    talk(&mut server, &mut [&mut one, &mut two]);
    let kept = server.position().next;
    send(&mut two, "lost", "k");
    talk(&mut server, &mut [&mut one, &mut two]);
    assert_eq!(given(&one, ones), [(1, 1, "lost".to_owned())]);
    let before = instance(&one, ones);
    offline(&mut two);
    server.restore(kept);
    one.lose_socket();
    one.pass(10_000);
    talk(&mut server, &mut [&mut one]);
    send(&mut one, "other", "k");
    talk(&mut server, &mut [&mut one]);
    assert_eq!(given(&one, ones), [(1, 1, "other".to_owned())]);
    assert_ne!(instance(&one, ones), before);
    let late = complete_as(&mut one, ones, before, [1, 1, 0]);
    talk(&mut server, &mut [&mut one]);
    assert_eq!(said(&one, late), [text("late")]);
    let done = complete(&mut one, ones, [1, 1, 0]);
    talk(&mut server, &mut [&mut one]);
    assert_eq!(said(&one, done), [text("done")]);
}

/// Goal: what was done in a local document is not done again as that becomes a server's, and is not
/// kept for ever: its key counts for a day. Method: by the clock of a device that is a year behind
/// the server's, and a year ahead.
#[test]
fn what_was_done_before_a_hand_over_is_not_done_again() {
    const YEAR_MS: u64 = 365 * 24 * 3_600_000;
    for device_ms in [YEAR_MS, 3 * YEAR_MS] {
        let (mut server, mut device) = (Server::default(), Device::new(1));
        (server.now_ms, device.now_ms) = (2 * YEAR_MS, device_ms);
        let call = device.start_open(TAB, None, &handled_todos());
        device.opened(call);
        let local = ask(&mut device, handling(1));
        send(&mut device, "a", "k");
        assert_eq!(given(&device, local), [(1, 1, "a".to_owned())]);
        let done = complete(&mut device, local, [1, 1, 0]);
        assert_eq!(said(&device, done), [text("done")]);
        device.close(TAB);

        device.server_is_up = true;
        let call = device.start_open(TAB, Some(SERVER), &handled_todos());
        talk(&mut server, &mut [&mut device]);
        device.opened(call);
        let handler = ask(&mut device, handling(1));
        talk(&mut server, &mut [&mut device]);
        let again = |server: &mut Server, device: &mut Device| {
            send(device, "a", "k");
            talk(server, &mut [device]);
            given(device, handler)
        };
        assert_eq!(again(&mut server, &mut device), []);
        let known = outcome(&mut device, "a", "k");
        assert_eq!(answered(&device, known), state(1, "completed", 1));
        server.now_ms += Limits::DEFAULT.command_key_ms;
        server.dispatch();
        assert_eq!(again(&mut server, &mut device), []);
        server.now_ms += 1;
        server.dispatch();
        assert_eq!(again(&mut server, &mut device), [(2, 1, "a".to_owned())]);
    }
}
