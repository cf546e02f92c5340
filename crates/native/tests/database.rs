//! The client for programs in Rust, over real files and real sockets.

use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde::Deserialize;
use serde_json::json as object;
use tidelog_native::{
    CommandError, Connection, Database, Doctype, Engine, EngineError, ErrorCode, EventsFilter,
    OpenOptions, SendOptions, Value, json,
};
use tidelog_testing::server::{PATIENCE, Server, settings, start_when_free};

const SHOP: &str = r#"{
    "name": "shop",
    "migrations": [
        "create table note (id text primary key, text text not null) strict",
        "alter table note add column done integer not null default 0"
    ],
    "mutations": {
        "add": {
            "params": { "id": "uuid", "text": "text" },
            "sql": ["insert into note (id, text) values (:id, :text)"]
        },
        "order": {
            "params": { "id": "text" },
            "sql": [
              "insert into tidelog_events (aggregate, stream, type) select 'order', :id, 'placed'"
            ]
        }
    },
    "streams": {
        "order": {
            "events": { "placed": { "fields": {}, "upcast": [], "project": [] } },
            "commands": {
                "place": {
                    "fields": { "gift": "integer" }, "received": [], "failed": [],
                    "retries": 5, "timeout": 30000
                }
            }
        }
    }
}"#;

fn shop() -> Doctype {
    json::parse(SHOP.as_bytes()).expect("a doctype")
}

#[derive(Debug, PartialEq, Deserialize)]
struct Note {
    text: String,
    done: bool,
}

async fn texts(db: &Database) -> Vec<String> {
    let rows = db.query("select text from note order by text", ()).await.expect("rows");
    rows.to().expect("texts")
}

async fn add(db: &Database, text: &str) {
    db.mutate("add", [("text", text.into())]).await.expect("it is durable");
}

fn server_of(server: &Server) -> String {
    format!("ws://{}", server.address())
}

async fn serve(folder: &Path) -> Server {
    start_when_free(&settings(folder)).await
}

/// Waits for something of a document that comes.
async fn until<T>(what: &str, waited: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("{what} is waited for"))
}

#[tokio::test]
async fn what_is_durable_is_there_for_the_next_engine() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Engine::in_folder(folder.path()).expect("an engine");
    let db = engine.open(&shop(), OpenOptions::new("notes")).await.expect("a document");
    add(&db, "milk").await;
    let receipt = db.mutate("add", [("text", "bread".into())]);
    receipt.confirmed().await.expect("a local document confirms by itself");
    let found = db.query("select text, done from note where text = :t", [("t", "milk".into())]);
    let notes: Vec<Note> = found.await.expect("rows").to().expect("notes");
    assert_eq!(notes, [Note { text: "milk".to_owned(), done: false }]);
    assert!(
        matches!(Engine::in_folder(folder.path()), Err(EngineError::InUse { .. })),
        "a folder has one engine at a time"
    );
    db.close().await.expect("closed");
    engine.close().await;

    let engine = Engine::in_folder(folder.path()).expect("another engine");
    let db = engine.open(&shop(), OpenOptions::new("notes")).await.expect("a document");
    assert_eq!(texts(&db).await, ["bread", "milk"]);
}

#[tokio::test]
async fn an_engine_ends_with_what_was_opened_in_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Engine::in_folder(folder.path()).expect("an engine");
    let db = engine.open(&shop(), OpenOptions::new("notes")).await.expect("a document");
    drop(engine);
    add(&db, "milk").await;
    drop(db);
    let free = async {
        while Engine::in_folder(folder.path()).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    until("the folder", free).await;
}

#[tokio::test]
async fn two_devices_see_each_other_by_a_server() {
    let data = tempfile::tempdir().expect("a folder");
    let server = serve(data.path()).await;
    let open = async |engine: &Engine| {
        let options = OpenOptions::new("team/notes").server(server_of(&server));
        engine.open(&shop(), options).await.expect("a document")
    };
    let (one, other) = (Engine::in_memory().expect("one"), Engine::in_memory().expect("other"));
    let (one, other) = (open(&one).await, open(&other).await);
    let mut live = other.live("select text from note order by text", ());
    assert!(until("the first rows", live.next()).await.expect("open").expect("rows").is_empty());
    let lsn = until("the server", one.mutate("add", [("text", "milk".into())]).confirmed()).await;
    assert!(lsn.expect("it is confirmed") > 0);
    loop {
        let rows = until("news", live.next()).await.expect("open").expect("rows");
        if rows.len() == 1 {
            assert_eq!(rows[0].get("text"), Some(&Value::from("milk")));
            break;
        }
    }
    until("a sync", other.sync()).await.expect("synced");
    let status = other.status();
    assert_eq!(status.borrow().connection, Connection::Online);
    assert_eq!(status.borrow().pending, 0);
    other.close().await.expect("closed");
    assert!(
        until("the end", live.next()).await.is_none(),
        "a closed document ends what watches it"
    );
}

#[tokio::test]
async fn what_was_issued_without_a_server_is_sent_once_there_is_one() {
    let data = tempfile::tempdir().expect("a folder");
    let server = serve(data.path()).await;
    let address = server_of(&server);
    let engine = Engine::in_memory().expect("an engine");
    let options = OpenOptions::new("team/notes").server(&address);
    let db = engine.open(&shop(), options.clone()).await.expect("a document");
    db.disconnect();
    let mut status = db.status();
    let away = status.wait_for(|it| it.connection == Connection::Offline);
    until("being away", away).await.expect("told");
    let receipt = db.mutate("add", [("text", "milk".into())]);
    receipt.durable().await.expect("durable without a server");
    let early = tokio::time::timeout(Duration::from_millis(200), receipt.confirmed()).await;
    assert!(early.is_err(), "nobody can have confirmed it");
    db.connect();
    until("the server", receipt.confirmed()).await.expect("confirmed");
    let other = Engine::in_memory().expect("another engine");
    let db = other.open(&shop(), options).await.expect("a document");
    until("a sync", db.sync()).await.expect("synced");
    assert!(db.status().borrow().synced);
    assert_eq!(texts(&db).await, ["milk"]);
}

#[tokio::test]
async fn what_cannot_be_is_told_by_its_code() {
    let engine = Engine::in_memory().expect("an engine");
    let db = engine.open(&shop(), OpenOptions::new("notes")).await.expect("a document");
    let code = async |receipt: tidelog_native::Receipt| receipt.await.expect_err("refused").code;
    let none: [(&str, Value); 0] = [];
    assert_eq!(code(db.mutate("remove", none)).await, ErrorCode::UnknownMutation);
    assert_eq!(code(db.mutate("add", [("text", 7_i64.into())])).await, ErrorCode::MutationArgument);
    let same = || db.mutate("add", [("id", uuid(1).into()), ("text", "a".into())]);
    same().await.expect("durable");
    let error = same().await.expect_err("a second one of that id");
    assert_eq!((error.code, error.mutation.as_deref()), (ErrorCode::Rejected, Some("add")));
    let odd = db.query("select nothing from note", ()).await.expect_err("no such column");
    assert_eq!(odd.code, ErrorCode::Query);
    let again = db.clone();
    db.close().await.expect("closed");
    assert_eq!(
        again.query("select 1", ()).await.expect_err("closed").code,
        ErrorCode::DocumentClosed
    );
    assert_eq!(code(again.mutate("add", [("text", "b".into())])).await, ErrorCode::DocumentClosed);
    let nothing = Doctype { migrations: vec!["create".to_owned()], ..shop() };
    let options = OpenOptions::new("others");
    assert_eq!(engine.open(&nothing, options).await.expect_err("SQL").code, ErrorCode::Doctype);
}

fn uuid(number: u8) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

#[tokio::test]
async fn a_rejection_is_told_once_also_after_a_restart() {
    let (data, folder) =
        (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("one"));
    let server = serve(data.path()).await;
    let options = OpenOptions::new("team/notes").server(server_of(&server));
    let engine = Engine::in_folder(folder.path()).expect("an engine");
    let db = engine.open(&shop(), options.clone()).await.expect("a document");
    db.disconnect();
    let mut status = db.status();
    until("being away", status.wait_for(|it| it.connection == Connection::Offline))
        .await
        .expect("told");
    let taken = || [("id", uuid(1).into()), ("text", "mine".into())];
    let mine = db.mutate("add", taken());
    mine.durable().await.expect("durable");
    let others = Engine::in_memory().expect("an engine");
    let theirs = others.open(&shop(), options.clone()).await.expect("a document");
    until("the server", theirs.mutate("add", taken()).confirmed()).await.expect("first");
    db.connect();
    let error = until("the verdict", mine.confirmed()).await.expect_err("second");
    assert_eq!(error.code, ErrorCode::Rejected);
    db.close().await.expect("closed");
    engine.close().await;

    let engine = Engine::in_folder(folder.path()).expect("another engine");
    let db = engine.open(&shop(), options.clone()).await.expect("a document");
    let rejections = db.rejections();
    until("a sync", db.sync()).await.expect("synced");
    add(&db, "one that nobody has heard of it by").await;
    drop(rejections);
    let mut rejections = db.rejections();
    let told = until("the rejection", rejections.recv()).await.expect("kept");
    assert_eq!((told.mutation.as_str(), told.args.len()), ("add", 2));
    assert!(rejections.recv().now_or_never().is_none(), "that was the only one");
    // What was received is noted with what is written next.
    add(&db, "another").await;
    db.close().await.expect("closed");
    engine.close().await;

    let engine = Engine::in_folder(folder.path()).expect("a third engine");
    let db = engine.open(&shop(), options).await.expect("a document");
    let mut rejections = db.rejections();
    until("a sync", db.sync()).await.expect("synced");
    assert!(rejections.recv().now_or_never().is_none(), "it was told");
}

#[tokio::test]
async fn closing_waits_for_the_disk_and_whoever_waits_for_more_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Engine::in_folder(folder.path()).expect("an engine");
    for _ in 0..50 {
        let options = OpenOptions::new("notes").server("ws://127.0.0.1:1");
        let db = engine.open(&shop(), options).await.expect("a document");
        let receipt = db.mutate("add", [("text", "milk".into())]);
        let verdict = tokio::spawn(async move {
            let confirmed = receipt.confirmed().await;
            (receipt.durable().await, confirmed)
        });
        let receipt = db.mutate("add", [("text", "bread".into())]);
        let mut events = db.events(EventsFilter::all());
        let event = tokio::spawn(async move { events.next().await });
        let command =
            db.send("order", "place", "a", &object!({ "gift": 1 }), SendOptions::default());
        let command = tokio::spawn(async move { command.completed().await });
        tokio::task::yield_now().await;
        db.close().await.expect("closed");
        assert!(receipt.durable().now_or_never().expect("it is known").is_ok());
        let (durable, confirmed) = until("the verdict", verdict).await.expect("no panic");
        durable.expect("it was on the disk");
        assert_eq!(confirmed.expect_err("nobody confirms it").code, ErrorCode::DocumentClosed);
        let event = until("an event", event).await.expect("no panic").expect("more");
        assert_eq!(event.expect_err("closed").code, ErrorCode::DocumentClosed);
        let command = until("the command", command).await.expect("no panic");
        assert!(matches!(command, Err(CommandError::Call(_))), "{command:?}");
    }
}

#[tokio::test]
async fn events_are_told_those_of_before_and_those_that_come() {
    let engine = Engine::in_memory().expect("an engine");
    let db = engine.open(&shop(), OpenOptions::new("notes")).await.expect("a document");
    let place = async |id: &str| {
        db.mutate("order", [("id", id.into())]).confirmed().await.expect("recorded");
    };
    place("order-1").await;
    let mut events = db.events(EventsFilter::of("order").consumer("mail"));
    let first = until("the first", events.next()).await.expect("more").expect("an event");
    assert_eq!((first.sequence, first.stream.as_str()), (1, "order-1"));
    assert_eq!((first.kind.as_str(), &first.data), ("placed", &object!({})));
    assert_eq!((first.cause.as_str(), first.client.len()), ("mutation:order", 32));
    let (second, ()) = tokio::join!(until("the second", events.next()), place("order-2"));
    assert_eq!(second.expect("more").expect("an event").sequence, 2);
    // The second was not dealt with: whoever goes on under this name is told it again.
    drop(events);
    let mut again = db.events(EventsFilter::all().consumer("mail").until_now());
    let event = again.next().await.expect("one").expect("an event");
    assert_eq!(event.stream, "order-2");
    assert!(again.next().await.is_none(), "that was the last");
    assert!(again.next().await.is_none(), "and still is");
}

#[tokio::test]
async fn a_command_that_nobody_handles_waits_and_its_key_counts_once() {
    let engine = Engine::in_memory().expect("an engine");
    let db = engine.open(&shop(), OpenOptions::new("notes")).await.expect("a document");
    let send = |gift| {
        let key = SendOptions::key("checkout-41");
        db.send("order", "place", "order-7", &object!({ "gift": gift }), key)
    };
    let receipt = send(1);
    receipt.confirmed().await.expect("received");
    let early = tokio::time::timeout(Duration::from_millis(100), receipt.completed()).await;
    assert!(early.is_err(), "nobody handles it");
    send(1).confirmed().await.expect("the same command");
    let reused = send(2).confirmed().await.expect_err("another command");
    assert!(matches!(reused, CommandError::KeyReused(name) if name.key == "checkout-41"));
    let rows = db.query("select count(*) from tidelog_commands", ()).await.expect("rows");
    assert_eq!(rows.to::<u32>().expect("a number"), [1]);
    let forgotten = db.outcome("order", "place", "order-7", "nobody's").await;
    assert!(matches!(forgotten, Err(CommandError::Forgotten(_))));
}

#[tokio::test]
async fn a_token_is_asked_for_and_one_that_panics_is_asked_again() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    let data = tempfile::tempdir().expect("a folder");
    let server = serve(data.path()).await;
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let options = OpenOptions::new("team/notes").server(server_of(&server)).token(move || {
        assert_ne!(count.fetch_add(1, Ordering::Relaxed), 0, "the first time there is none");
        async { Some("a development server takes any".to_owned()) }
    });
    let engine = Engine::in_memory().expect("an engine");
    let db = engine.open(&shop(), options).await.expect("a document");
    until("a sync", db.sync()).await.expect("synced");
    assert!(asked.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_says_so_and_is_opened_once_it_can() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("data");
    std::fs::write(&place, "something else").expect("a file");
    let engine = Engine::in_folder(&place).expect("an engine");
    let open = async || engine.open(&shop(), OpenOptions::new("notes")).await;
    assert_eq!(open().await.expect_err("a file is in the way").code, ErrorCode::Storage);
    std::fs::remove_file(&place).expect("removed");
    let opened = async {
        loop {
            match open().await {
                Ok(db) => return db,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    add(&until("the folder", opened).await, "milk").await;
}

#[tokio::test]
async fn a_document_is_destroyed_once_nobody_has_it() {
    let engine = Engine::in_memory().expect("an engine");
    let db = engine.open(&shop(), OpenOptions::new("notes")).await.expect("a document");
    add(&db, "milk").await;
    let error = engine.destroy("notes", "", false).await.expect_err("it is open");
    assert_eq!(error.code, ErrorCode::DocumentInUse);
    db.close().await.expect("closed");
    engine.destroy("notes", "", false).await.expect("destroyed");
    let db = engine.open(&shop(), OpenOptions::new("notes")).await.expect("a new one");
    assert!(texts(&db).await.is_empty());
}
