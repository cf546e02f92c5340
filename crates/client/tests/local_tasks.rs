//! Those who handle tasks of a local document, whose disk refuses what was decided.

use tidelog_client::{
    Call, CommandName, Complete, Events, FromCore, Handle, Handling, Mutate, OpenRequest, Params,
    Query, Request,
};
use tidelog_document::{
    CommandDefinition, Completion, Doctype, EventDefinition, NewEvent, Outcome, StreamDefinition,
    TaskKind, WantedEvents, sending,
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

/// A core with a local document in which a command was sent.
fn sent(limits: Limits) -> Core {
    let mut core = Core::with_limits(limits);
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
    let open = OpenRequest {
        document: "list".to_owned(),
        user: String::new(),
        server: None,
        doctype: Doctype { streams, ..todos() },
        has_token: false,
        word: 0,
    };
    core.ask(Call(1), HANDLE, Request::Open(Box::new(open)));
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
    core.ask(call, HANDLE, Request::Complete(Complete { handling: HANDLING, completion }));
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
    assert_eq!(rows(&core, HANDLING).map(|rows| rows.len()), Some(1));
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

/// Goal: what was given, and the disk has lost, is given again. Method: the append that says who
/// handles commands, and was given one, fails.
#[test]
fn what_the_disk_does_not_know_to_be_given_is_given_again() {
    let mut core = sent(Limits::DEFAULT);
    let count = entries(&core);
    handle(&mut core);
    assert_eq!(rows(&core, HANDLING).map(|rows| rows.len()), Some(1));
    refuse_behind(&mut core, count);
    core.pass(2_000);
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    complete(&mut core, Call(4));
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    assert_eq!(rows(&core, Call(4)).map(|rows| rows[0][0].clone()), Some(text("done")));
}

/// Goal: what a handler does for a command that the disk has lost is not taken for another one's,
/// which has its number and attempt by then: its tab knows them apart by whom they are given to.
/// Method: a command is given while the disk is still to have it, and is refused; then another one
/// is sent. And one that the disk has is refused nothing of: it stays with the same.
#[test]
fn what_comes_of_a_command_that_was_taken_back_is_nobody_elses() {
    let mut core = sent(Limits::DEFAULT);
    handle(&mut core);
    let given = |core: &Core| {
        let rows = rows(core, HANDLING).expect("it was told");
        let [row] = <[Vec<Value>; 1]>::try_from(rows).expect("one is given");
        let [number, stream, attempt, instance] = [0, 2, 9, 12].map(|column| row[column].clone());
        ((number, stream, attempt), instance)
    };
    let called = |number, stream| (Value::Integer(number), text(stream), Value::Integer(1));
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    let (what, first) = given(&core);
    assert_eq!(what, called(1, "a"));
    let count = entries(&core);
    core.add(Call(4), "milk");
    refuse_behind(&mut core, count);
    core.pass(2_000);
    assert_eq!(given(&core), (called(1, "a"), first.clone()));
    complete(&mut core, Call(5));
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });

    let count = entries(&core);
    send(&mut core, Call(6), "lost");
    assert_eq!(given(&core), (called(2, "lost"), first.clone()));
    refuse_behind(&mut core, count);
    send(&mut core, Call(7), "other");
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    let (what, second) = given(&core);
    assert_eq!(what, called(2, "other"));
    assert_ne!(second, first);
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
