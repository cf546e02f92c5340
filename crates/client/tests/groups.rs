//! What belongs together of commands and runs, and the power that is cut after every call of the
//! disk: all of it is there, or nothing.
//!
//! Each group is one entry of the storage journal. So the story is told once without a cut, and the
//! document behind each of its entries has to hold together; then it is told again up to each call
//! after which a cut can leave something else, and what is left has to be the document behind one
//! of those entries, with all that was told by then.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use tidelog_client::{Call, Complete, FromCore, Handling, Request, ToCore};
use tidelog_disk::{CrashDevice, StoreFiles};
use tidelog_document::{
    CommandDefinition, Completion, Doctype, EventDefinition, InstanceId, MutationDefinition,
    NewCommand, NewEvent, NewRecord, NewRun, NewSnapshot, Outcome, Param, ParamKind, Recorded,
    StreamDefinition, TaskKind, WorkflowDefinition, cancelling, sending, starting,
};
use tidelog_pages::{
    OwnerId, PageServer, RequestId, Seed, StoreOptions, StoreReply, StoreRequest, Urgency,
};
use tidelog_testing::client::*;
use tidelog_types::{DocumentKey, Page, Pgid, Value};

/// Orders that are placed and shipped, and the work that follows from that.
fn shop() -> Doctype {
    let event = |name: &str, sql: &str| EventDefinition {
        name: name.to_owned(),
        fields: Vec::new(),
        upcasts: Vec::new(),
        project: vec![sql.to_owned()],
    };
    let command = |name: &str| CommandDefinition {
        name: name.to_owned(),
        fields: Vec::new(),
        received: vec![format!("insert into asked values (:stream, '{name}', :key)")],
        failed: vec![format!("insert into lost values (:stream, '{name}', :key, :reason)")],
        retries: 1,
        timeout_ms: 60_000,
    };
    let n = Param { name: "n".to_owned(), kind: ParamKind::Integer, optional: true };
    let record = "insert into tidelog_events (aggregate, stream, type)
                  values ('order', 'order-3', 'shipped')";
    Doctype {
        name: "shop".to_owned(),
        migrations: vec![
            "create table asked (stream text, command text, key text) strict;
             create table lost (stream text, command text, key text, reason text) strict;
             create table happened (sequence integer primary key, what text) strict"
                .to_owned(),
        ],
        mutations: vec![MutationDefinition {
            name: "ship".to_owned(),
            params: Vec::new(),
            sql: vec![record.to_owned()],
        }],
        streams: vec![StreamDefinition {
            name: "order".to_owned(),
            events: vec![
                event("placed", "insert into happened values (:sequence, 'placed')"),
                event("shipped", "insert into happened values (:sequence, 'shipped')"),
            ],
            commands: vec![command("pack"), command("place")],
        }],
        workflows: vec![WorkflowDefinition {
            name: "fulfil".to_owned(),
            version: 1,
            fields: vec![n],
        }],
    }
}

/// What never is, whatever was cut off: each finds rows that do not hold together.
const ODD: [(&str, &str); 17] = [
    (
        "a command without what follows from its receipt",
        "select * from tidelog_commands as of where not exists (select 1 from asked
         where (stream, command, key) = (of.stream, of.command, of.key))",
    ),
    (
        "what follows from the receipt of no command",
        "select * from asked where not exists (select 1 from tidelog_commands as of
         where (asked.stream, asked.command, asked.key) = (of.stream, of.command, of.key))",
    ),
    (
        "a task that is at work with nobody",
        "select * from _tidelog_task where state = 'started' and (attempt = 0
         or instance is null or instance not in (select number from _tidelog_instance))",
    ),
    (
        "a task that somebody has, and is not at work",
        "select * from _tidelog_task where state <> 'started' and ended is null
         and instance is not null",
    ),
    (
        "two of a stream at once",
        "select aggregate, stream from _tidelog_task where state in ('ready', 'started')
         and version is null group by 1, 2 having count(*) > 1",
    ),
    (
        "a completed command without its events",
        "select * from _tidelog_task as task where version is null and state = 'completed'
         and last - first + 1 <> (select count(*) from _tidelog_event
                                  where cause = 'command:' || task.number)",
    ),
    (
        "events of a command that is not completed",
        "select * from _tidelog_event where cause like 'command:%' and not exists
         (select 1 from _tidelog_task where cause = 'command:' || number and state = 'completed')",
    ),
    (
        "an event without what follows from it, or that without its event",
        "select sequence from _tidelog_event where sequence not in (select sequence from happened)
         union select sequence from happened
         where sequence not in (select sequence from _tidelog_event)",
    ),
    (
        "a stream that is shorter or longer than its events",
        "select * from _tidelog_stream as of where length <> (select count(*) from _tidelog_event
         where stream = of.number) or length <> (select max(position) from _tidelog_event
         where stream = of.number)",
    ),
    (
        "sequence numbers with gaps",
        "select max(sequence) from _tidelog_event having max(sequence) <> count(*)",
    ),
    (
        "what a completed command sends and starts, without the other or without its end",
        "select 1 where 1 < (select count(distinct it) from (
             select exists (select 1 from _tidelog_task where key = '1:0' and version is null) as it
             union all select exists (select 1 from _tidelog_task where stream = '1:0')
             union all select exists (select 1 from _tidelog_task where number = 1
                                      and state = 'completed')))",
    ),
    (
        "a completed command without the state that it keeps, or the other way about",
        "select 1 where (select count(*) from tidelog_snapshots)
         <> (select count(*) from tidelog_commands where key = 'again' and state = 'completed')",
    ),
    (
        "a failed command without what follows from that, or the other way about",
        "select 1 where (select count(*) from lost)
         <> (select count(*) from tidelog_commands where state = 'failed')",
    ),
    (
        "a run with another number of records than it has",
        "select * from _tidelog_task as task where version is not null and ended is null
         and records <> (select count(*) from tidelog_records where number = task.number)",
    ),
    (
        "records of a run that is gone",
        "select * from _tidelog_record where task not in (select number from _tidelog_task)",
    ),
    (
        "a run that waits for an event which has happened since it was started",
        "select * from _tidelog_record as it join _tidelog_task as task on task.number = it.task
         where it.event = 'shipped' and it.state = 'waiting' and exists
         (select 1 from happened where what = 'shipped' and sequence > task.first)",
    ),
    (
        "a run that waits for a command which is over, or does not while it is not",
        "select * from _tidelog_record as it join _tidelog_task as task on task.number = it.awaited
         where (it.state = 'waiting') <> (task.ended is null)",
    ),
];

/// What is given to the handler: number, name of the aggregate, stream, attempt, position.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Given {
    task: u64,
    attempt: u64,
    position: u64,
    instance: InstanceId,
    aggregate: String,
    stream: String,
    name: String,
    is_cancelled: bool,
    args: String,
}

/// A device, whoever handles what there is to do, and what they were told.
struct Shop {
    device: Device,
    handling: Vec<Call>,
    answered: BTreeSet<(u64, u64, usize)>,
    /// Of what was told that it is done: what has to be there from then on.
    promised: Vec<String>,
}

impl Shop {
    fn new(disk: Option<CrashDevice>) -> Self {
        let mut device = Device::new(1);
        if let Some(disk) = disk {
            device.restore_profile(&disk);
        }
        Self { device, handling: Vec::new(), answered: BTreeSet::new(), promised: Vec::new() }
    }

    fn is_off(&self) -> bool {
        self.device.disk.is_off()
    }

    /// Waits for nothing: of a device without power nothing comes.
    fn ask(&mut self, request: Request) -> Call {
        let call = self.device.next_call();
        self.device.ask(TAB, vec![ToCore::Ask { call, handle: HANDLE, request }]);
        call
    }

    fn handle(&mut self) {
        let kind = |aggregate: &str, name: &str| TaskKind {
            aggregate: aggregate.to_owned(),
            name: name.to_owned(),
        };
        let kinds = vec![kind("fulfil", "1"), kind("order", "pack"), kind("order", "place")];
        let call = self.ask(Request::Handle(Handling { kinds, concurrency: 8 }));
        self.handling.push(call);
    }

    fn given(&self) -> Vec<Given> {
        let Some(call) = self.handling.last() else { return Vec::new() };
        let rows = self.device.rows_told(*call).pop().unwrap_or_default();
        let given = |row: &Vec<Value>| Given {
            task: number(&row[0]),
            attempt: number(&row[9]),
            position: number(&row[10]),
            instance: InstanceId(number(&row[12])),
            aggregate: string(&row[1]),
            stream: string(&row[2]),
            name: string(&row[3]),
            is_cancelled: number(&row[11]) == 1,
            args: string(&row[4]),
        };
        rows.iter().map(given).collect()
    }

    /// Has everything carried out that is given, until there is nothing more without the clock.
    fn work(&mut self) {
        let mut rounds = 0;
        'work: while !self.is_off() {
            rounds += 1;
            assert!(rounds < 200, "nothing comes to an end: {:?}", self.given());
            for given in self.given() {
                let Some(records) = self.records_of(given.task) else { return };
                let attempt = (given.task, given.attempt, records.len() + done(&records));
                if self.answered.contains(&attempt) {
                    continue;
                }
                let outcome = self.decide(&given, &records);
                self.complete(&given, outcome);
                self.answered.insert(attempt);
                continue 'work;
            }
            return;
        }
    }

    /// Name and state of what a run remembers; `None` where nobody answers.
    fn records_of(&mut self, task: u64) -> Option<BTreeMap<String, String>> {
        let sql = format!("select name, state from tidelog_records where number = {task}");
        let call = self.device.start_query(TAB, &sql);
        let rows = self.device.rows_told(call).pop()?;
        Some(rows.iter().map(|row| (string(&row[0]), string(&row[1]))).collect())
    }

    fn complete(&mut self, given: &Given, outcome: Outcome) {
        let Given { task, attempt, position, instance, .. } = *given;
        let promised = promised_by(task, &outcome);
        let completion = Completion { task, attempt, position, outcome };
        let handling = *self.handling.last().expect("it was given");
        let call = self.ask(Request::Complete(Complete { handling, instance, completion }));
        let told = self.device.rows_told(call).pop();
        if told.is_some_and(|rows| rows[0][0] == text("done")) {
            self.promised.extend(promised);
        }
    }

    /// What the handler comes to.
    fn decide(&self, given: &Given, records: &BTreeMap<String, String>) -> Outcome {
        let is_done = |name: &str| records.get(name).is_some_and(|state| state != "waiting");
        match (given.aggregate.as_str(), given.name.as_str(), given.stream.as_str()) {
            ("order", "place", stream) => {
                let follows = stream == "order-1" && given.position == 0;
                let keeps = stream == "order-1" && given.position > 0;
                let pack = command("pack", "order-2", "1:0");
                let run = NewRun {
                    workflow: "fulfil".to_owned(),
                    id: "1:0".to_owned(),
                    args: "{}".to_owned(),
                };
                let snapshot = NewSnapshot { name: "order-1".to_owned(), state: "{}".to_owned() };
                Outcome::Completed {
                    events: vec![event("placed"), event("placed")],
                    sends: if follows { vec![pack] } else { Vec::new() },
                    starts: if follows { vec![run] } else { Vec::new() },
                    snapshot: keeps.then_some(snapshot),
                }
            }
            ("order", ..) => {
                let (reason, is_final) = ("out of stock".to_owned(), given.attempt > 1);
                Outcome::Failed { reason, is_final }
            }
            (_, _, "1:0") if !is_done("a") => progressed(
                false,
                vec![
                    ("a", Recorded::Done { kind: "step".to_owned(), result: "1".to_owned() }),
                    ("b", Recorded::Begun),
                ],
            ),
            (_, _, "1:0") if records.len() == 2 && done(records) == 1 => {
                let result = "2".to_owned();
                let what = Recorded::Done { kind: "request".to_owned(), result };
                progressed(false, vec![("b", what)])
            }
            (_, _, "1:0") if records.len() == 2 => progressed(
                true,
                vec![
                    ("place", Recorded::Send(command("place", "order-3", "r:0"))),
                    ("sleep", Recorded::Sleep { ms: 1_000 }),
                    (
                        "shipped",
                        Recorded::WaitFor {
                            aggregate: "order".to_owned(),
                            stream: "order-3".to_owned(),
                            event: "shipped".to_owned(),
                            timeout_ms: 0,
                        },
                    ),
                ],
            ),
            (_, _, "1:0") if done(records) == records.len() => {
                Outcome::Returned { result: "3".to_owned() }
            }
            (_, _, "renewed") if given.is_cancelled => Outcome::Cancelled,
            (_, _, "renewed") if given.args == "{}" => {
                Outcome::Continued { args: r#"{"n":2}"#.to_owned() }
            }
            (_, _, "renewed") if records.is_empty() => {
                progressed(true, vec![("long", Recorded::Sleep { ms: 1 << 40 })])
            }
            (_, _, "stopped") if self.handling.len() == 1 => {
                Outcome::Stopped { reason: "by other code".to_owned() }
            }
            (_, _, "stopped") => {
                Outcome::Failed { reason: "no code fits".to_owned(), is_final: true }
            }
            _ => progressed(true, Vec::new()),
        }
    }

    fn mutate(&mut self, name: &str, args: &[(&str, &str)]) {
        let args: Vec<_> = args.iter().map(|(name, value)| (*name, text(value))).collect();
        self.device.mutate(name, &args);
    }

    fn place(&mut self, key: &str) {
        let args = [("stream", "order-1"), ("args", "{}"), ("key", key)];
        self.mutate(&sending("order", "place"), &args);
    }

    /// All of it, or as much as the power lasts.
    fn tell(&mut self) {
        let open = self.device.start_open(TAB, None, &shop());
        let is_open = matches!(self.device.answers(open).last(), Some(FromCore::Opened { .. }));
        if !is_open {
            assert!(self.is_off(), "it opens where there is power");
            return;
        }
        self.handle();
        let id = |id| [("id", id), ("args", "{}")];
        let parts: [&dyn Fn(&mut Self); 9] = [
            &|it| it.place("k"),
            &|it| it.place("again"),
            // A second attempt at what has failed, and the end of the sleep.
            &|it| it.device.pass(5_000),
            &|it| it.mutate("ship", &[]),
            &|it| it.mutate(&starting("fulfil"), &id("renewed")),
            &|it| it.mutate(&cancelling("fulfil"), &[("id", "renewed")]),
            &|it| it.mutate(&starting("fulfil"), &id("stopped")),
            &|it| {
                let call = *it.handling.last().expect("somebody handles");
                it.device.give_up(call);
            },
            &Self::handle,
        ];
        for part in parts {
            self.work();
            if self.is_off() {
                return;
            }
            part(self);
        }
        self.work();
    }
}

fn promised_by(task: u64, outcome: &Outcome) -> Vec<String> {
    let state = |state: &str| {
        vec![format!("select 1 from _tidelog_task where number = {task} and state = '{state}'")]
    };
    match outcome {
        Outcome::Completed { .. } | Outcome::Returned { .. } => state("completed"),
        Outcome::Failed { is_final: true, .. } => state("failed"),
        Outcome::Cancelled => state("cancelled"),
        Outcome::Continued { .. } => state("continued"),
        Outcome::Progressed { records, .. } => {
            let record = |record: &NewRecord| {
                format!(
                    "select 1 from _tidelog_task where number = {task} and (ended is not null or
                     exists (select 1 from _tidelog_record
                     where task = {task} and name = '{}'))",
                    record.name
                )
            };
            records.iter().map(record).collect()
        }
        Outcome::Failed { .. } | Outcome::Stopped { .. } => Vec::new(),
    }
}

fn done(records: &BTreeMap<String, String>) -> usize {
    records.values().filter(|state| ["done", "failed"].contains(&state.as_str())).count()
}

fn progressed(suspends: bool, records: Vec<(&str, Recorded)>) -> Outcome {
    let record =
        |(name, what): (&str, Recorded)| NewRecord { name: name.to_owned(), count: 0, what };
    Outcome::Progressed { records: records.into_iter().map(record).collect(), suspends }
}

fn event(name: &str) -> NewEvent {
    NewEvent { name: name.to_owned(), data: "{}".to_owned() }
}

fn command(name: &str, stream: &str, key: &str) -> NewCommand {
    let [aggregate, stream, name, args, key] =
        ["order", stream, name, "{}", key].map(str::to_owned);
    NewCommand { aggregate, stream, name, args, key }
}

fn number(value: &Value) -> u64 {
    match value {
        Value::Integer(number) => number.unsigned_abs(),
        Value::Text(text) => text.parse().expect("a number"),
        other => panic!("{other:?}"),
    }
}

fn string(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    }
}

type Pages = BTreeMap<Pgid, Page>;

/// The document behind each entry that was handed over, by the LSN that is next there.
fn behind_each(device: &Device) -> BTreeMap<u64, Pages> {
    let (mut behind, mut pages) = (BTreeMap::new(), Pages::new());
    for request in &device.asked {
        let StoreRequest::Append { append, .. } = request else { continue };
        assert!(!append.is_cut, "the story is a small one");
        for entry in &append.storage {
            pages.extend(entry.set.pages.clone());
            pages.retain(|pgid, _| pgid.0 <= entry.set.db_pages);
            behind.insert(entry.position.next.get(), pages.clone());
        }
    }
    behind
}

/// What is on a disk: the LSN that is next, and the pages; `None` where there is no document.
fn found(disk: &CrashDevice) -> Option<(u64, Pages)> {
    let files = StoreFiles::open_each(|name| Ok::<_, ()>(disk.file(name))).expect("no errors");
    let opened = PageServer::open_with(files, Seed(1), StoreOptions::default());
    let (mut server, _) = opened.expect("a power cut damages no store");
    let document = DocumentKey::new("list", "").expect("a good name");
    let mut ask = |request| {
        server.serve(OwnerId(1), request);
        let mut replies = server.poll();
        while server.wants_poll() {
            replies.extend(server.poll());
        }
        replies
    };
    let opened = ask(StoreRequest::Open { document: document.clone() });
    let [(_, StoreReply::Opened { state, .. })] = opened.as_slice() else { panic!("{opened:?}") };
    let state = state.as_ref()?;
    let position = state.storage?;
    let (request, urgency) = (RequestId(2), Urgency::User);
    let pgids = (1..=state.db_pages).map(Pgid).collect();
    let replies = ask(StoreRequest::Read { request, urgency, document, pgids });
    let mut pages = Pages::new();
    for (_, reply) in replies {
        let StoreReply::Pages { pages: some, .. } = reply else { panic!("{reply:?}") };
        pages.extend(some);
    }
    Some((position.next.get(), pages))
}

/// A document to be asked as stock SQLite does.
struct Opened {
    database: Connection,
    _file: tempfile::NamedTempFile,
}

fn open(image: &[u8]) -> Opened {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), image).expect("written");
    Opened { database: Connection::open(file.path()).expect("a database"), _file: file }
}

fn open_pages(pages: &Pages) -> Opened {
    let image: Vec<u8> = pages.values().flat_map(|page| page.bytes().to_vec()).collect();
    open(&image)
}

fn finds(Opened { database, .. }: &Opened, sql: &str) -> bool {
    let mut statement = database.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    statement.exists([]).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn holds_together(database: &Opened, when: &str) {
    if !finds(database, "select 1 from sqlite_schema where name = '_tidelog_task'") {
        return;
    }
    for (what, sql) in ODD {
        assert!(!finds(database, sql), "{when}: {what}");
    }
}

#[test]
fn the_document_behind_each_entry_holds_together() {
    let mut shop = Shop::new(None);
    shop.tell();
    let behind = behind_each(&shop.device);
    for (lsn, pages) in &behind {
        holds_together(&open_pages(pages), &format!("before {lsn}"));
    }
    // All of the story was told.
    let end = open(&shop.device.image());
    for (number, (stream, state)) in [
        ("order-1", "completed"),
        ("order-2", "failed"),
        ("1:0", "completed"),
        ("order-3", "completed"),
        ("order-1", "completed"),
        ("renewed", "continued"),
        ("renewed", "cancelled"),
        ("stopped", "failed"),
    ]
    .into_iter()
    .enumerate()
    {
        let sql = format!(
            "select 1 from _tidelog_task
             where (number, stream, state) = ({}, '{stream}', '{state}')",
            number + 1
        );
        assert!(finds(&end, &sql), "{stream} is not {state}");
    }
    assert!(
        finds(&end, "select 1 where 7 = (select count(*) from happened)"),
        "six placed, one shipped"
    );
}

#[test]
fn the_power_cut_after_any_call_leaves_all_of_a_group_or_nothing() {
    let mut whole = Shop::new(None);
    whole.tell();
    let behind = behind_each(&whole.device);
    let mut lsns = BTreeSet::new();
    for call in whole.device.disk.changing_calls() {
        let mut cut = Shop::new(None);
        cut.device.disk.power_off_after(call);
        cut.tell();
        let mut odd = 0;
        let choosers: [&mut dyn FnMut(usize) -> usize; 3] =
            [&mut |_| 0, &mut |versions| versions - 1, &mut |versions| {
                odd += 1;
                if odd % 2 == 0 { 0 } else { versions - 1 }
            }];
        for (nth, choose) in choosers.into_iter().enumerate() {
            let disk = cut.device.disk.crash(choose);
            let when = format!("cut after call {call}, in way {nth}");
            let Some((lsn, pages)) = found(&disk) else {
                assert!(cut.promised.is_empty(), "{when}");
                continue;
            };
            assert!(behind.get(&lsn) == Some(&pages), "{when}: no document behind an entry");
            lsns.insert(lsn);
            let left = open_pages(&pages);
            for promised in &cut.promised {
                assert!(finds(&left, promised), "{when}: told and not there: {promised}");
            }
            goes_on(disk, &when);
        }
    }
    assert!(behind.keys().all(|lsn| lsns.contains(lsn)), "each entry was the last one once");
}

/// The next core finds all that is left to do, and it is done once.
fn goes_on(disk: CrashDevice, when: &str) {
    let mut shop = Shop::new(Some(disk));
    shop.tell();
    // For a run that was started only after it had happened.
    shop.mutate("ship", &[]);
    shop.device.pass(60_000);
    shop.work();
    let end = open(&shop.device.image());
    holds_together(&end, when);
    for (what, sql) in [
        ("not over", "select 1 from _tidelog_task where ended is null"),
        (
            "not done once",
            "select 1 where 6 <> (select count(*) from happened where what = 'placed')",
        ),
        (
            "not gone on as new, and cancelled, once",
            "select 1 where 'cancelled,continued' is not
             (select group_concat(state order by state) from _tidelog_task
              where stream = 'renewed')",
        ),
    ] {
        assert!(!finds(&end, sql), "{when}: {what}");
    }
}
