//! What a program in Rust has of events that have left their document.

use std::net::SocketAddr;

use serde_json::{Value, json as object};
use tidelog_native::{
    Database, Doctype, Engine, ErrorCode, Event, EventsFilter, Handler, NewEvent, OpenOptions,
    SendOptions, json,
};
use tidelog_testing::server::{PATIENCE, http, keep_state, settings, start_when_free};

const SHOP: &str = r#"{
    "name": "shop",
    "migrations": [],
    "mutations": {},
    "streams": {
        "order": {
            "events": { "placed": { "fields": { "n": "integer" }, "upcast": [], "project": [] } },
            "commands": {
                "place": {
                    "fields": {}, "received": [], "failed": [], "retries": 0, "timeout": 0
                }
            }
        }
    }
}"#;

fn shop() -> Doctype {
    json::parse(SHOP.as_bytes()).expect("a doctype")
}

/// Events of the stream before the last one, more than an answer has.
const COUNT: u64 = 300;

async fn until<T>(what: &str, waited: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("{what} is waited for"))
}

fn place(db: &Database) -> tidelog_native::CommandReceipt {
    db.send("order", "place", "o1", &object!({}), SendOptions::default())
}

async fn post(address: SocketAddr, what: &str, body: &str) -> (u16, Vec<u8>) {
    let path = format!("/v1/documents/shops%2F1/{what}");
    http(address, "POST", &path, &format!("Content-Length: {}\r\n\r\n{body}", body.len())).await
}

async fn all(db: &Database) -> Result<Vec<Event>, tidelog_native::Error> {
    let (mut events, mut told) = (db.events(EventsFilter::of("order").until_now()), Vec::new());
    while let Some(event) = events.next().await {
        told.push(event?);
    }
    Ok(told)
}

/// Goal: a program reads what has left as what has not, and folds a stream by all of it; without
/// its server it is told that it has it not. Method: events, all but one of which are archived, and
/// a device that comes later.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_left_is_read_and_folded() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start_when_free(&settings(data.path())).await;
    let address = server.address();
    let open = async || {
        let options = OpenOptions::new("shops/1").server(format!("ws://{address}"));
        let engine = Engine::in_memory().expect("an engine");
        let db = engine.open(&shop(), options).await.expect("a document");
        until("the server", db.sync()).await.expect("in step");
        db
    };
    let db = open().await;
    let event = |n: u64| {
        let data = object!({ "n": n });
        object!({ "aggregate": "order", "stream": "o1", "type": "placed", "data": data })
    };
    let lines: String = (1..=COUNT).map(|n| format!("{}\n", event(n))).collect();
    let (status, _) = post(address, "events", &lines).await;
    assert_eq!(status, 200);
    let receipt = place(&db);
    receipt.confirmed().await.expect("received");
    let event = ("placed", r#"{"n":1}"#);
    let shop = shop();
    let kept = keep_state(address, "shops/1", &shop, ["order", "place"], COUNT, event);
    until("the command", kept).await;
    until("the server", db.sync()).await.expect("in step");
    let before = all(&db).await.expect("all are here");
    assert_eq!(before.len() as u64, COUNT + 1);
    let what = r#"{"aggregate":"order"}"#;
    let (status, body) = post(address, "events/archive", what).await;
    let answer: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((status, &answer["events"]), (200, &object!(COUNT)));
    until("the server", db.sync()).await.expect("in step");
    assert_eq!(db.query("select sequence from tidelog_events", ()).await.expect("rows").len(), 1);
    assert!(until("the archive", all(&db)).await.expect("all are told") == before);

    let later = open().await;
    let handler = Handler::new("order", 0, |sum: i64, event| {
        sum + event.data["n"].as_i64().expect("a number")
    })
    .command("place", async |ctx, _: Value| {
        Ok(vec![NewEvent::new("placed", &object!({ "n": *ctx.state }))?])
    });
    let handling = later.handle(handler, 1).expect("handled");
    let placed = until("the fold", place(&db).completed()).await.expect("placed");
    let sum = (1..=COUNT).sum::<u64>() + 1;
    assert_eq!(placed.events[0].data["n"], object!(sum));
    handling.close().await.expect("closed");

    db.disconnect();
    let failed = until("an answer", all(&db)).await.expect_err("it is offline");
    assert_eq!(failed.code, ErrorCode::Archived);
    // Also at once, in the same millisecond.
    for _ in 0..5 {
        db.disconnect();
        db.connect();
        until("the server", db.sync()).await.expect("in step");
    }
    assert_eq!(until("the archive", all(&db)).await.expect("all").len() as u64, COUNT + 2);
    server.stop().await;
}
