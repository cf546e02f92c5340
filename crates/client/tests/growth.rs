//! What a document with tasks takes in the long run: it stops growing once it forgets as much as it
//! receives, and nothing is written where nothing happens.

use tidelog_client::{Call, Complete, FromCore, Handle, Handling, Request, TabId, ToCore};
use tidelog_document::{
    CommandDefinition, Completion, Doctype, InstanceId, NewRecord, Outcome, Recorded,
    StreamDefinition, TaskKind, WorkflowDefinition, sending, starting,
};
use tidelog_pages::StoreRequest;
use tidelog_testing::client::server::{Server, talk};
use tidelog_testing::client::*;
use tidelog_types::Value;
use tidelog_types::limits::Limits;

/// Commands that are sent, and runs that are started, unless `TIDELOG_COMMANDS` says how many.
const COMMANDS: u64 = 3_000;

/// Tabs that are idle, unless `TIDELOG_TABS` says how many.
const TABS: u32 = 100;

/// Of those, how many are remembered: there is one a second.
const REMEMBERED: u64 = 500;

/// The todo list, whose todos are asked to be done, and which is tidied.
fn asked_todos() -> Doctype {
    let command = CommandDefinition {
        name: "do".to_owned(),
        fields: Vec::new(),
        received: Vec::new(),
        failed: Vec::new(),
        retries: 0,
        timeout_ms: 0,
    };
    let (name, events, commands) = ("todo".to_owned(), Vec::new(), vec![command]);
    let streams = vec![StreamDefinition { name, events, commands }];
    let tidy = WorkflowDefinition { name: "tidy".to_owned(), version: 1, fields: Vec::new() };
    Doctype { streams, workflows: vec![tidy], ..todos() }
}

fn ask(device: &mut Device, tab: TabId, handle: Handle, request: Request) -> Call {
    let call = device.next_call();
    device.ask(tab, vec![ToCore::Ask { call, handle, request }]);
    call
}

fn handling() -> Request {
    let kind = |(aggregate, name): (&str, &str)| TaskKind {
        aggregate: aggregate.to_owned(),
        name: name.to_owned(),
    };
    let kinds = [("todo", "do"), ("tidy", "1")].map(kind).to_vec();
    Request::Handle(Handling { kinds, concurrency: 16 })
}

/// Pages of the document, as it was handed over last.
fn pages(device: &Device) -> u32 {
    let mut entries = device.asked.iter().filter_map(|request| match request {
        StoreRequest::Append { append, .. } => append.storage.last(),
        _ => None,
    });
    entries.next_back().expect("it grows").set.db_pages
}

/// Goal: a document that handles commands for years is as large as what it remembers. Method: the
/// clock goes a second for each, and each is over at once.
#[test]
fn a_document_grows_no_more_once_it_forgets_as_much_as_it_receives() {
    let mut list = List::open();
    list.grows_no_more("commands", |list, nth| {
        let stream = format!("todo-{}", nth % 50);
        let args = [("stream", stream), ("args", "{}".to_owned()), ("key", format!("key {nth}"))];
        list.device.mutate(&sending("todo", "do"), &args.map(|(name, value)| (name, text(&value))));
        let (events, sends, starts) = (Vec::new(), Vec::new(), Vec::new());
        list.complete(nth, Outcome::Completed { events, sends, starts, snapshot: None });
    });
}

/// Goal: the same of one that runs workflows, with what they remember. Method: each run remembers
/// one step, and ends.
#[test]
fn a_document_grows_no_more_once_it_forgets_as_many_runs_as_it_starts() {
    let mut list = List::open();
    list.grows_no_more("runs", |list, nth| {
        let args = [("id", format!("tidy {nth}")), ("args", "{}".to_owned())];
        list.device.mutate(&starting("tidy"), &args.map(|(name, value)| (name, text(&value))));
        let what = Recorded::Done { kind: "step".to_owned(), result: "\"dusted\"".to_owned() };
        let records = vec![NewRecord { name: "dust".to_owned(), count: 0, what }];
        list.complete(nth, Outcome::Progressed { records, suspends: false });
        list.complete(nth, Outcome::Returned { result: "\"tidy\"".to_owned() });
    });
}

/// A list of one device, who handles its tasks itself.
struct List {
    device: Device,
    handler: Call,
}

impl List {
    fn open() -> Self {
        let limits = Limits {
            command_completed_ms: 1_000 * REMEMBERED,
            command_key_ms: 500 * REMEMBERED,
            ..Limits::DEFAULT
        };
        let mut device = Device::with_limits(1, limits);
        device.open(&asked_todos());
        let handler = ask(&mut device, TAB, HANDLE, handling());
        Self { device, handler }
    }

    /// Ends the task that was given last, or says how far it has come.
    fn complete(&mut self, task: u64, outcome: Outcome) {
        let given = self.device.rows_told(self.handler).pop().expect("told");
        assert_eq!(given[0][0], Value::Integer(task.cast_signed()), "it is given");
        let completion = Completion { task, attempt: 1, position: 0, outcome };
        let Some(&Value::Integer(instance)) = given[0].last() else { panic!("{given:?}") };
        let instance = InstanceId(instance.unsigned_abs());
        let complete = Complete { handling: self.handler, instance, completion };
        let completed = ask(&mut self.device, TAB, HANDLE, Request::Complete(complete));
        assert_eq!(self.device.rows_told(completed).pop().expect("told")[0][0], text("done"));
    }

    /// Does this again and again, a second later each time.
    fn grows_no_more(&mut self, what: &str, mut once: impl FnMut(&mut Self, u64)) {
        let count = std::env::var("TIDELOG_COMMANDS").ok().and_then(|it| it.parse().ok());
        let count: u64 = count.unwrap_or(COMMANDS);
        let mut largest = 0;
        for nth in 1..=count {
            self.device.pass(1_000);
            once(self, nth);
            let pages = pages(&self.device);
            if nth <= 2 * REMEMBERED {
                largest = largest.max(pages);
            }
            // What is free on one page and another is not where it is wanted.
            let is_bounded = pages <= largest + largest / 10;
            assert!(is_bounded, "{pages} pages after {nth} {what}, and {largest} before");
            (self.device.told, self.device.asked) = (Vec::new(), Vec::new());
        }
        println!("{largest} pages for {REMEMBERED} {what} that are remembered, after {count}");
    }
}

/// Goal: who is idle costs no write. Method: many tabs watch and handle for ten minutes, in which
/// the core asks them whether they hear.
#[test]
fn idle_tabs_write_nothing() {
    let count = std::env::var("TIDELOG_TABS").ok().and_then(|it| it.parse().ok()).unwrap_or(TABS);
    let mut server = Server::default();
    let mut device = Device::new(1);
    device.server_is_up = true;
    for tab in (1..=count).map(TabId) {
        let call = device.start_open(tab, Some(SERVER), &asked_todos());
        if tab == TAB {
            talk(&mut server, &mut [&mut device]);
        }
        assert!(matches!(device.answers(call).last(), Some(FromCore::Opened { .. })), "{tab:?}");
        ask(&mut device, tab, HANDLE, handling());
        device.watch_in(tab, "select count(*) from todo");
    }
    let until_now = |server: &mut Server, device: &mut Device, ms| {
        device.pass_awake(ms);
        server.now_ms += ms;
        talk(server, &mut [device]);
    };
    // One of them is at work, and is asked.
    let args = [("stream", "a"), ("args", "{}"), ("key", "k")];
    let args = args.map(|(name, value)| (name, text(value)));
    device.mutate(&sending("todo", "do"), &args);
    talk(&mut server, &mut [&mut device]);
    // What follows from their coming is written, within a second of its coming.
    (0..2).for_each(|_| until_now(&mut server, &mut device, 60_000));
    let registered = device.query("select count(*) from tidelog_instances");
    assert_eq!(registered, [[Value::Integer(count.into())]]);
    device.asked.clear();
    let position = server.document.as_ref().expect("a document").position();
    for _ in 0..60 {
        until_now(&mut server, &mut device, 10_000);
    }
    let writes = device.asked.iter().filter(|it| matches!(it, StoreRequest::Append { .. }));
    assert_eq!(writes.count(), 0, "the device has written");
    let after = server.document.as_ref().expect("a document").position();
    assert_eq!(after, position, "the server has written");
    let registered = device.query("select count(*) from tidelog_instances");
    assert_eq!(registered, [[Value::Integer(count.into())]], "all of them are still there");
    let at_work = device.query("select attempt from tidelog_commands where state = 'started'");
    assert_eq!(at_work, [[Value::Integer(1)]], "and the one is still at work");
}
