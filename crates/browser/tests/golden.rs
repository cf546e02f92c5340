//! Messages between tab and core, byte for byte as `js/test/codec.test.ts` writes and reads them.

#![cfg(not(target_arch = "wasm32"))]

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::de::DeserializeOwned;
use tidelog_client::{
    Again, Call, CallFailure, CommandName, Complete, Connection, Consumer, Events, FromCore,
    Handle, Handling, Memo, Mutate, OpenRequest, Other, Params, Query, Records, Request, Status,
    Storage, ToCore,
};
use tidelog_document::Outcome as TaskOutcome;
use tidelog_document::{
    CommandDefinition, Completion, Doctype, EventDefinition, InstanceId, MutationDefinition,
    NewCommand, NewEvent, NewRecord, NewRun, NewSnapshot, Param, ParamKind, Recorded,
    StreamDefinition, TaskKind, WantedEvents, WorkflowDefinition,
};
use tidelog_sync::StateText;
use tidelog_sync::codec::port;
use tidelog_types::{
    CallId, ClientId, EntryId, ErrorCode, JournalId, Life, Lsn, Outcome, Remedy, Role, Rows,
    UnservedKind, Value, ValueRef,
};

const COPY: ClientId = ClientId([4; 16]);

fn golden() -> BTreeMap<String, String> {
    serde_json::from_str(include_str!("../../../js/test/golden.json")).expect("JSON")
}

fn check(name: &str, bytes: &[u8]) {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(golden().get(name), Some(&hex), "{name}");
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn values() -> Vec<Value> {
    vec![
        Value::Null,
        Value::Integer(-2),
        Value::Integer(i64::MIN),
        Value::Real(1.5),
        text("grün 🌊"),
        Value::Blob(vec![0, 255]),
    ]
}

fn doctype() -> Doctype {
    let kinds = [
        ("t", ParamKind::Text),
        ("i", ParamKind::Integer),
        ("r", ParamKind::Real),
        ("b", ParamKind::Blob),
        ("o", ParamKind::Boolean),
        ("j", ParamKind::Json),
        ("u", ParamKind::Uuid),
    ];
    let param = |(name, kind): (&str, ParamKind)| Param {
        name: name.to_owned(),
        kind,
        optional: name == "r",
    };
    let definition = |name: &str, params: Vec<Param>, sql: &[&str]| MutationDefinition {
        name: name.to_owned(),
        params,
        sql: sql.iter().map(ToString::to_string).collect(),
    };
    Doctype {
        name: "kinds".to_owned(),
        migrations: vec!["create table a (b)".to_owned()],
        mutations: vec![
            definition("all", kinds.map(param).into(), &["select :t", "select :i"]),
            definition("none", vec![], &["delete from a"]),
        ],
        streams: vec![StreamDefinition {
            name: "order".to_owned(),
            events: vec![
                EventDefinition {
                    name: "placed".to_owned(),
                    fields: vec![
                        Param { name: "items".to_owned(), kind: ParamKind::Json, optional: false },
                        Param { name: "note".to_owned(), kind: ParamKind::Text, optional: true },
                    ],
                    upcasts: vec![":data".to_owned()],
                    project: vec!["select :items".to_owned()],
                },
                EventDefinition {
                    name: "sent".to_owned(),
                    fields: vec![],
                    upcasts: vec![],
                    project: vec![],
                },
            ],
            commands: vec![CommandDefinition {
                name: "place".to_owned(),
                fields: vec![
                    Param { name: "items".to_owned(), kind: ParamKind::Json, optional: false },
                    Param { name: "gift".to_owned(), kind: ParamKind::Boolean, optional: true },
                ],
                received: vec!["select :items".to_owned()],
                failed: vec!["select :reason".to_owned()],
                retries: 3,
                timeout_ms: 90_000,
            }],
        }],
        workflows: vec![WorkflowDefinition {
            name: "fulfil".to_owned(),
            version: 2,
            fields: vec![Param {
                name: "order".to_owned(),
                kind: ParamKind::Text,
                optional: false,
            }],
        }],
    }
}

fn failure() -> CallFailure {
    CallFailure {
        code: ErrorCode::Rejected,
        outcome: Outcome::Unknown,
        message: "no".to_owned(),
        mutation: Some("add".to_owned()),
        reason: None,
        remedy: Remedy::Retry,
    }
}

fn status(error: Option<CallFailure>) -> Status {
    Status {
        connection: Connection::Offline,
        away: true,
        error,
        pending: 3,
        confirmed_lsn: 1 << 40,
        storage: Storage::Waiting,
        settling: true,
        persisted: false,
        usage: 5,
        quota: 6,
        timeline: [1, 2, 3, 4],
        storage_lsns: [7, 8],
        synced: true,
        newer_elsewhere: true,
        access: Some(Role::Write),
    }
}

fn entry() -> EntryId {
    let lsn = Lsn::new(14).expect("not 0");
    EntryId { journal: JournalId([5; 16]), life: Life([6; 16]), lsn }
}

fn again(durable: Option<EntryId>) -> ToCore {
    let (call, handle) = (Call(7), Handle(3));
    let (id, name, args) = (CallId([8; 16]), "none".to_owned(), Vec::new());
    let again = Some(Again { durable, copy: durable.map(|_| COPY), since: [durable, None] });
    let request = Request::Mutate(Mutate { id, name, args, now_ms: 0, again });
    ToCore::Ask { call, handle, request }
}

fn new_command() -> NewCommand {
    let text = str::to_owned;
    let [aggregate, stream, name, args, key] = ["order", "p", "place", "{}", "k"].map(text);
    NewCommand { aggregate, stream, name, args, key }
}

fn new_run() -> NewRun {
    let [workflow, id, args] = ["fulfil", "f", "{}"].map(str::to_owned);
    NewRun { workflow, id, args }
}

fn new_record((what, count): (Recorded, u32)) -> NewRecord {
    NewRecord { name: "label".to_owned(), count, what }
}

/// One of each kind.
fn records() -> [Recorded; 8] {
    let [step, result, reason] = ["step", "[1]", "why"].map(str::to_owned);
    let [aggregate, stream, event] = ["order", "o", "placed"].map(str::to_owned);
    [
        Recorded::Done { kind: step.clone(), result },
        Recorded::Failed { kind: step, reason },
        Recorded::Begun,
        Recorded::Sleep { ms: 1 << 40 },
        Recorded::WaitFor { aggregate, stream, event, timeout_ms: 1 << 40 },
        Recorded::Send(new_command()),
        Recorded::Start(new_run()),
        Recorded::Cancel,
    ]
}

fn completed(outcome: TaskOutcome) -> ToCore {
    let completion = Completion { task: 1 << 40, attempt: 2, position: 3, outcome };
    let request = Request::Complete(Complete {
        handling: Call(6),
        instance: InstanceId(1 << 41),
        completion,
    });
    ToCore::Ask { call: Call(7), handle: Handle(3), request }
}

#[test]
fn what_a_tab_asks_is_written_as_typescript_writes_it() {
    let (call, handle) = (Call(7), Handle(3));
    let named = || vec![("a".to_owned(), Value::Integer(1))];
    let messages = vec![
        ToCore::Ask {
            call,
            handle,
            request: Request::Open(Box::new(OpenRequest {
                document: "groceries".to_owned(),
                user: "ada".to_owned(),
                server: Some("ws://localhost:1".to_owned()),
                doctype: doctype(),
                has_token: true,
                word: 3,
            })),
        },
        ToCore::Ask {
            call,
            handle,
            request: Request::Mutate(Mutate {
                id: CallId([9; 16]),
                name: "add".to_owned(),
                args: values().into_iter().map(|value| ("a".to_owned(), value)).collect(),
                now_ms: 1_700_000_000_123,
                again: None,
            }),
        },
        again(None),
        again(Some(entry())),
        ToCore::Ask {
            call,
            handle,
            request: Request::Query(Query {
                sql: "select ?".to_owned(),
                params: Params::Positional(values()),
            }),
        },
        ToCore::Ask {
            call,
            handle,
            request: Request::Watch(Query {
                sql: "select :a".to_owned(),
                params: Params::Named(named()),
            }),
        },
        ToCore::Ask {
            call,
            handle,
            request: Request::Events(Events {
                wanted: WantedEvents {
                    aggregate: Some("order".to_owned()),
                    stream: Some("o".to_owned()),
                    types: vec!["sent".to_owned()],
                    after: 7,
                },
                waits: true,
                consumer: Some(Consumer { name: "mail".to_owned(), begins: true }),
            }),
        },
        ToCore::Ask {
            call,
            handle,
            request: Request::Events(Events {
                wanted: WantedEvents::default(),
                waits: false,
                consumer: None,
            }),
        },
        ToCore::GiveUp { call },
        ToCore::Ask { call, handle, request: Request::Sync },
        ToCore::Ask { call, handle, request: Request::Export },
        ToCore::Ask { call, handle, request: Request::Close },
        ToCore::Ask {
            call,
            handle,
            request: Request::Outcome(CommandName {
                aggregate: "order".to_owned(),
                stream: "o".to_owned(),
                name: "place".to_owned(),
                key: "k".to_owned(),
            }),
        },
        ToCore::Ask {
            call,
            handle,
            request: Request::Handle(Handling {
                kinds: vec![TaskKind { aggregate: "order".to_owned(), name: "place".to_owned() }],
                concurrency: 16,
            }),
        },
        completed(TaskOutcome::Completed {
            events: vec![NewEvent { name: "placed".to_owned(), data: "{}".to_owned() }],
            sends: vec![new_command()],
            starts: vec![new_run()],
            snapshot: Some(NewSnapshot { name: "v2".to_owned(), state: "{}".to_owned() }),
        }),
        completed(TaskOutcome::Completed {
            events: Vec::new(),
            sends: Vec::new(),
            starts: Vec::new(),
            snapshot: None,
        }),
        completed(TaskOutcome::Failed { reason: "why".to_owned(), is_final: true }),
        completed(TaskOutcome::Progressed {
            records: records().into_iter().zip(0..).map(new_record).collect(),
            suspends: true,
        }),
        completed(TaskOutcome::Returned { result: "null".to_owned() }),
        completed(TaskOutcome::Continued { args: "{}".to_owned() }),
        completed(TaskOutcome::Stopped { reason: "why".to_owned() }),
        completed(TaskOutcome::Cancelled),
        ToCore::Ask {
            call,
            handle,
            request: Request::Records(Records { task: 1 << 40, attempt: 2, after: 1 << 41 }),
        },
        ToCore::Destroy {
            call,
            document: Some("d".to_owned()),
            user: String::new(),
            force: true,
            everywhere: false,
        },
        ToCore::Destroy {
            call,
            document: None,
            user: "ada".to_owned(),
            force: false,
            everywhere: true,
        },
        ToCore::SetConnected { handle, word: 3 },
        ToCore::ListenRejections { handle },
        ToCore::RejectionHandled { handle, id: CallId([9; 16]) },
        ToCore::Token { question: 1 << 40, token: None },
        ToCore::Token { question: 5, token: Some("t".to_owned()) },
        ToCore::Device { persisted: true, usage: 1 << 33, quota: 1 << 34 },
        ToCore::Nudge,
        ToCore::Heard { lists: 16 },
        ToCore::Presence { handle, state: None },
        ToCore::Presence { handle, state: Some("{}".to_owned()) },
    ];
    check("toCore", &port::encode(&messages));
}

fn other(key: u64, who: Option<(Option<String>, ClientId)>) -> Other {
    Other { key, who, state: StateText::new("{}").expect("short") }
}

#[test]
fn what_the_core_tells_is_written_as_typescript_reads_it() {
    let (call, handle) = (Call(7), Handle(3));
    let memo = Memo { word: 3, copy: Some(COPY), head: Some(entry()) };
    let mut rows = Rows { columns: vec!["a".to_owned(), "ü".to_owned()], ..Rows::default() };
    rows.push([ValueRef::Null, ValueRef::Integer(1 << 53)]);
    rows.push([ValueRef::Real(-0.5), ValueRef::Text("grün, and rather long".as_bytes())]);
    rows.push([ValueRef::Blob(&[1, 2]), ValueRef::Integer(-1)]);
    let messages = vec![
        FromCore::Opened { call, status: status(None), memo },
        FromCore::Failed { call, failure: failure() },
        FromCore::Durable { call, entry: entry() },
        FromCore::Confirmed { call, entry: entry(), lsn: 15 },
        FromCore::Rejected { call, entry: entry(), failure: failure() },
        FromCore::Rows { call, rows },
        FromCore::Exported { call, file: vec![83, 81] },
        FromCore::Done { call },
        FromCore::HandingOver { call },
        FromCore::Status { handle, status: status(Some(failure())), memo: Memo::default() },
        FromCore::RejectionNews {
            handle,
            id: CallId([9; 16]),
            mutation: "add".to_owned(),
            args: vec![("a".to_owned(), text("b"))],
            reason: "why".to_owned(),
            lsn: 16,
        },
        FromCore::TokenWanted { handle, question: 1 << 40 },
        FromCore::CloseWanted { handle },
        FromCore::Presence { handle, count: 1, keys: None, others: vec![] },
        FromCore::Presence {
            handle,
            count: 4,
            keys: Some(vec![5, 6, 7]),
            others: vec![
                other(5, Some((Some("ada".to_owned()), ClientId([3; 16])))),
                other(6, Some((None, ClientId([3; 16])))),
                other(7, None),
            ],
        },
    ];
    check("fromCore", &port::encode(&messages));
}

/// The names of what counts, in the order of its numbers.
fn names<T: DeserializeOwned + Debug>() -> String {
    let numbered = (0u32..).map_while(|number| port::decode::<T>(&number.to_le_bytes()).ok());
    numbered.map(|it| format!("{it:?}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn what_counts_is_in_the_same_order_in_typescript() {
    let golden = golden();
    let check = |name: &str, names: String| assert_eq!(golden.get(name), Some(&names), "{name}");
    check("errorCodes", names::<ErrorCode>());
    check("connections", names::<Connection>());
    check("storages", names::<Storage>());
    check("roles", names::<Role>());
    check("unservedKinds", names::<UnservedKind>());
    assert_eq!(names::<UnservedKind>(), UnservedKind::ALL.map(|it| format!("{it:?}")).join(" "));
}
