//! Those who handle tasks of a local document, whose disk refuses what was decided.

use tidelog_client::{
    Call, CommandName, Complete, Events, FromCore, Handle, Handling, Mutate, OpenRequest, Params,
    Query, Request,
};
use tidelog_document::{
    CommandDefinition, Completion, Doctype, EventDefinition, InstanceId, NewEvent, Outcome,
    StreamDefinition, TaskKind, WantedEvents, sending,
};
use tidelog_pages::{StoreReply, StoreRequest};
use tidelog_testing::client::core::{Core, answer_reads, key, pages_up_to, stored_up_to};
use tidelog_testing::client::*;
use tidelog_types::limits::Limits;
use tidelog_types::{Life, Value};

const HANDLING: Call = Call(2);

/// A core with a local document and somebody who was given its one command.
fn given(limits: Limits) -> Core {
    let mut core = sent(limits);
    handle(&mut core);
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    core
}

fn handle(core: &mut Core) {
    let kind = TaskKind { aggregate: "todo".to_owned(), name: "do".to_owned() };
    core.ask(HANDLING, HANDLE, Request::Handle(Handling { kinds: vec![kind], concurrency: 1 }));
}

/// A doctype with one command.
fn commanded() -> Doctype {
    let command = CommandDefinition {
        name: "do".to_owned(),
        fields: Vec::new(),
        received: Vec::new(),
        failed: Vec::new(),
        retries: 0,
        timeout_ms: 0,
    };
    let event = EventDefinition {
        name: "done".to_owned(),
        fields: Vec::new(),
        upcasts: Vec::new(),
        project: Vec::new(),
    };
    let (name, events, commands) = ("todo".to_owned(), vec![event], vec![command]);
    let streams = vec![StreamDefinition { name, events, commands }];
    Doctype { streams, ..todos() }
}

fn open(core: &mut Core, (call, handle): (Call, Handle), doctype: Doctype) {
    let (document, user, server) = ("list".to_owned(), String::new(), None);
    let open = OpenRequest { document, user, server, doctype, has_token: false, word: 0 };
    core.ask(call, handle, Request::Open(Box::new(open)));
}

/// A core with a local document in which a command was sent.
fn sent(limits: Limits) -> Core {
    let mut core = Core::with_limits(limits);
    open(&mut core, (Call(1), HANDLE), commanded());
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    send(&mut core, Call(3), "a");
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    core
}

fn send(core: &mut Core, call: Call, stream: &str) {
    let args = [("stream", stream), ("args", "{}"), ("key", "k")];
    let args = args.map(|(name, value)| (name.to_owned(), text(value))).to_vec();
    let (id, name) = (call_id(call), sending("todo", "do"));
    core.ask(call, HANDLE, Request::Mutate(Mutate { id, name, args, now_ms: 1_000, again: None }));
}

/// The handler says that the command has completed.
fn complete(core: &mut Core, call: Call) {
    let event = NewEvent { name: "done".to_owned(), data: "{}".to_owned() };
    let outcome = Outcome::Completed {
        events: vec![event],
        sends: Vec::new(),
        starts: Vec::new(),
        snapshot: None,
    };
    let completion = Completion { task: 1, attempt: 1, position: 0, outcome };
    let complete = Complete { handling: HANDLING, instance: instance(core), completion };
    core.ask(call, HANDLE, Request::Complete(complete));
}

/// Which instance the handler was when it was given something last.
fn instance(core: &Core) -> InstanceId {
    let lists = core.told.iter().rev().filter_map(|it| match it {
        FromCore::Rows { call: HANDLING, rows } => Some(rows.decode()),
        _ => None,
    });
    let number = lists.flatten().find_map(|row| match row.last() {
        Some(Value::Integer(number)) => Some(number.unsigned_abs()),
        _ => None,
    });
    InstanceId(number.expect("it was given something"))
}

fn entries(core: &Core) -> usize {
    let entries = core.asked.iter().map(|request| match request {
        StoreRequest::Append { append, .. } => append.storage.len(),
        _ => 0,
    });
    entries.sum()
}

/// The append behind the first `count` entries fails, and the document is read anew from them.
fn refuse_behind(core: &mut Core, count: usize) {
    core.fail(core.last_ticket());
    let state = Some(Box::new(stored_up_to(core, count)));
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state });
    let pages = pages_up_to(core, count);
    answer_reads(core, &pages);
}

fn rows(core: &Core, of: Call) -> Option<Vec<Vec<Value>>> {
    core.told.iter().rev().find_map(|it| match it {
        FromCore::Rows { call, rows } if *call == of => Some(rows.decode()),
        _ => None,
    })
}

/// The commands that the handler has, by number and stream.
fn streams(core: &Core) -> Vec<(i64, String)> {
    let rows = rows(core, HANDLING).expect("it was told");
    let named = |row: Vec<Value>| match (&row[0], &row[2]) {
        (Value::Integer(number), Value::Text(stream)) => (*number, stream.clone()),
        other => panic!("{other:?}"),
    };
    rows.into_iter().map(named).collect()
}

fn query(core: &mut Core, call: Call) {
    let sql = "select state, (select count(*) from tidelog_events) from tidelog_commands";
    let query = Query { sql: sql.to_owned(), params: Params::NONE };
    core.ask(call, HANDLE, Request::Query(query));
}

fn completed() -> Vec<Vec<Value>> {
    vec![vec![text("completed"), Value::Integer(1)]]
}

/// Goal: a handler is not told that something is done which the disk may lose, and what the disk
/// has refused is decided once more. Method: the append that has it fails, and the next one does
/// not.
#[test]
fn what_a_handler_has_said_is_done_once_the_disk_has_it() {
    let mut core = given(Limits::DEFAULT);
    assert_eq!(streams(&core).len(), 1);
    let count = entries(&core);
    complete(&mut core, Call(4));
    assert!(entries(&core) > count, "it is on its way");
    assert_eq!(rows(&core, Call(4)), None);
    refuse_behind(&mut core, count);
    assert_eq!(rows(&core, Call(4)), None);
    core.pass(2_000);
    assert_eq!(rows(&core, Call(4)), None);
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    assert_eq!(rows(&core, Call(4)).map(|rows| rows[0][0].clone()), Some(text("done")));
    query(&mut core, Call(5));
    assert_eq!(rows(&core, Call(5)), Some(completed()));
}

/// Goal: nobody is told of an event, or of the end of a command, which the disk may lose; what it
/// has is told at once, also while it takes nothing. Method: both are waited for, the append that
/// has them fails, and the next one does not; then it takes no more.
#[test]
fn what_has_come_of_a_command_is_told_once_the_disk_has_it() {
    let mut core = given(Limits::DEFAULT);
    let wait = |core: &mut Core, outcome: Call, events: Call| {
        let [aggregate, stream, name, key] = ["todo", "a", "do", "k"].map(str::to_owned);
        let command = CommandName { aggregate, stream, name, key };
        core.ask(outcome, HANDLE, Request::Outcome(command));
        let wanted = WantedEvents::default();
        core.ask(events, HANDLE, Request::Events(Events { wanted, waits: true, consumer: None }));
    };
    wait(&mut core, Call(4), Call(5));
    let told = |core: &Core, of: [Call; 2]| of.map(|of| rows(core, of).is_some());
    let count = entries(&core);
    complete(&mut core, Call(6));
    assert!(entries(&core) > count, "it is on its way");
    assert_eq!(told(&core, [Call(4), Call(5)]), [false; 2]);
    refuse_behind(&mut core, count);
    assert_eq!(told(&core, [Call(4), Call(5)]), [false; 2]);
    core.pass(2_000);
    assert_eq!(told(&core, [Call(4), Call(5)]), [false; 2]);
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    assert_eq!(told(&core, [Call(4), Call(5)]), [true; 2]);
    let count = entries(&core);
    core.add(Call(7), "milk");
    refuse_behind(&mut core, count);
    wait(&mut core, Call(8), Call(9));
    assert_eq!(told(&core, [Call(8), Call(9)]), [true; 2]);
}

/// Goal: nobody does anything for a command that the disk may lose. Method: the append that says
/// who handles commands, and is given one, fails, and the next one does not.
#[test]
fn a_command_is_given_once_the_disk_has_that() {
    let mut core = sent(Limits::DEFAULT);
    let count = entries(&core);
    handle(&mut core);
    assert!(entries(&core) > count, "it is on its way");
    assert_eq!(streams(&core), []);
    refuse_behind(&mut core, count);
    core.pass(2_000);
    assert_eq!(streams(&core), []);
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    assert_eq!(streams(&core), [(1, "a".to_owned())]);
    complete(&mut core, Call(4));
    // It was read anew: what was not needed so far is on the disk alone.
    let pages = pages_up_to(&core, entries(&core));
    answer_reads(&mut core, &pages);
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    assert_eq!(rows(&core, Call(4)).map(|rows| rows[0][0].clone()), Some(text("done")));
}

/// Goal: what is done for a command is not taken for another one's, which has its number by then.
/// Method: a command is lost with what gives it; then another one is sent.
#[test]
fn a_command_that_the_disk_has_lost_was_given_to_nobody() {
    let mut core = given(Limits::DEFAULT);
    assert_eq!(streams(&core), [(1, "a".to_owned())]);
    complete(&mut core, Call(4));
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    let count = entries(&core);
    send(&mut core, Call(5), "lost");
    refuse_behind(&mut core, count);
    send(&mut core, Call(6), "other");
    core.pass(2_000);
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    assert_eq!(streams(&core), [(2, "other".to_owned())]);
    let lists = core.told.iter().filter_map(|it| match it {
        FromCore::Rows { call: HANDLING, rows } => Some(rows.decode()),
        _ => None,
    });
    assert!(lists.flatten().all(|row| row[2] != text("lost")));
}

/// Goal: what a handler has said as another instance counts for none, also where the disk has lost
/// it. Method: its tab hears nothing for long while the append is under way, which then fails.
#[test]
fn what_the_disk_has_lost_of_a_handler_that_hears_nothing_is_not_decided_again() {
    let mut core = given(Limits::DEFAULT);
    let count = entries(&core);
    complete(&mut core, Call(4));
    let ticket = core.last_ticket();
    for _ in 0..8 {
        core.pass(10_000);
    }
    core.fail(ticket);
    let state = Some(Box::new(stored_up_to(&core, count)));
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state });
    let pages = pages_up_to(&core, count);
    answer_reads(&mut core, &pages);
    assert_eq!(rows(&core, Call(4)).map(|rows| rows[0][0].clone()), Some(text("late")));
}

/// Goal: who handles commands does so once the document is that of a release which has some.
/// Method: one of an older release; the disk refuses what brings it to the newer one, and then
/// takes it.
#[test]
fn a_document_that_stays_at_an_older_release_ends_no_handler() {
    let mut core = Core::with_limits(Limits::DEFAULT);
    open(&mut core, (Call(1), Handle(9)), todos());
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    let count = entries(&core);
    open(&mut core, (Call(4), HANDLE), commanded());
    handle(&mut core);
    refuse_behind(&mut core, count);
    core.pass(2_000);
    let failed = |it: &FromCore| matches!(it, FromCore::Failed { call: HANDLING, .. });
    assert!(!core.told.iter().any(failed));
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    send(&mut core, Call(3), "a");
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    assert_eq!(streams(&core), [(1, "a".to_owned())]);
}

/// Goal: pages that no disk has stay in memory. Method: a disk has refused something, so that what
/// a handler says waits; then all documents of the core have too many pages, and another one was
/// asked last.
#[test]
fn what_was_decided_and_waits_for_the_disk_stays_in_memory() {
    let mut core = given(Limits { pools_pages_max: 0, ..Limits::DEFAULT });
    let count = entries(&core);
    core.add(Call(4), "milk");
    refuse_behind(&mut core, count);
    let pages = pages_up_to(&core, count);
    complete(&mut core, Call(5));
    answer_reads(&mut core, &pages);
    core.ask_to_open(TAB, Call(6), Handle(9), "other", None);
    core.reply(StoreReply::Opened { document: key("other"), life: Life::NONE, state: None });
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    query(&mut core, Call(7));
    answer_reads(&mut core, &pages);
    assert_eq!(rows(&core, Call(7)), Some(completed()));
}
