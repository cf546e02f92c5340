//! Commands that a program in Rust handles.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json as object;
use tidelog_native::{
    CommandError, CommandReceipt, Database, Doctype, Engine, ErrorCode, Handler, NewEvent,
    OpenOptions, SendOptions, json,
};
use tidelog_testing::server::{PATIENCE, settings, start_when_free};

const SHOP: &str = r#"{
    "name": "shop",
    "migrations": [],
    "mutations": {},
    "streams": {
        "order": {
            "events": {
                "placed": { "fields": { "items": "integer" }, "upcast": [], "project": [] },
                "shipped": { "fields": {}, "upcast": [], "project": [] }
            },
            "commands": {
                "place": {
                    "fields": { "items": "integer" }, "received": [], "failed": [],
                    "retries": 5, "timeout": 30000
                },
                "ship": {
                    "fields": {}, "received": [], "failed": [], "retries": 5, "timeout": 30000
                }
            }
        }
    }
}"#;

fn shop() -> Doctype {
    json::parse(SHOP.as_bytes()).expect("a doctype")
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Order {
    items: i64,
    is_shipped: bool,
}

#[derive(Deserialize)]
struct Place {
    items: i64,
}

#[derive(Deserialize)]
struct Nothing {}

fn orders() -> Handler<Order> {
    Handler::new("order", Order::default(), |order, event| match event.kind.as_str() {
        "placed" => {
            Order { items: order.items + event.data["items"].as_i64().expect("a number"), ..order }
        }
        "shipped" => Order { is_shipped: true, ..order },
        other => panic!("there is no event {other}"),
    })
    .command("place", async |ctx, Place { items }| {
        if ctx.state.is_shipped {
            return Err(ctx.fail("it is shipped"));
        }
        Ok(vec![NewEvent::new("placed", &object!({ "items": items }))?])
    })
}

fn place(db: &Database, stream: &str, items: i64) -> CommandReceipt {
    db.send("order", "place", stream, &object!({ "items": items }), SendOptions::default())
}

async fn until<T>(what: &str, waited: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("{what} is waited for"))
}

async fn local() -> Database {
    let engine = Engine::in_memory().expect("an engine");
    engine.open(&shop(), OpenOptions::new("shops/1")).await.expect("a document")
}

#[tokio::test]
async fn commands_are_decided_by_what_has_happened() {
    let db = local().await;
    let handler = orders().command("ship", async |ctx, Nothing {}| {
        // By both that came before it, though all three were sent at once.
        assert_eq!(ctx.state.items, 5);
        Ok(vec![NewEvent::bare("shipped")])
    });
    let handling = db.handle(handler, 16).expect("handled");
    let (first, second) = (place(&db, "order-7", 2), place(&db, "order-7", 3));
    let ship = db.send("order", "ship", "order-7", &object!({}), SendOptions::default());
    let late = place(&db, "order-7", 9);
    let outcome = until("the first", first.completed()).await.expect("placed");
    assert_eq!(outcome.events.len(), 1);
    assert_eq!((outcome.events[0].position, &outcome.events[0].data["items"]), (1, &object!(2)));
    until("the second", second.completed()).await.expect("placed");
    until("shipping", ship.completed()).await.expect("shipped");
    let failed = until("the last", late.completed()).await.expect_err("too late");
    assert!(matches!(failed, CommandError::Failed { reason, .. } if reason == "it is shipped"));
    handling.close().await.expect("closed");
}

#[tokio::test]
async fn an_attempt_that_fails_or_panics_is_tried_again() {
    let db = local().await;
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&attempts);
    let handler = orders().command("ship", move |ctx, Nothing {}| {
        let nth = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            assert_eq!(u64::from(nth) + 1, ctx.command.attempt);
            match nth {
                0 => Err(std::io::Error::other("the printer is away").into()),
                1 => panic!("there is no paper"),
                _ => Ok(vec![NewEvent::bare("shipped")]),
            }
        }
    });
    let _handling = db.handle(handler, 1).expect("handled");
    let ship = db.send("order", "ship", "order-7", &object!({}), SendOptions::default());
    until("shipping", ship.completed()).await.expect("shipped");
    assert_eq!(attempts.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn an_event_that_there_is_not_fails_its_command() {
    let db = local().await;
    let handler =
        orders().command("ship", async |_, Nothing {}| Ok(vec![NewEvent::bare("shiped")]));
    let _handling = db.handle(handler, 1).expect("handled");
    let ship = db.send("order", "ship", "order-7", &object!({}), SendOptions::default());
    let failed = until("the end", ship.completed()).await.expect_err("no such event");
    assert!(matches!(failed, CommandError::Failed { reason, .. } if reason.contains("shiped")));
}

/// Goal: what this release cannot read holds its command up for nobody, and fails none. Method: an
/// event that a newer release has recorded, and a handler of that release, which comes later.
#[tokio::test]
async fn a_command_is_left_to_a_handler_that_can_read_what_has_happened() {
    let engine = Engine::in_memory().expect("an engine");
    let open = async |doctype: &Doctype| {
        engine.open(doctype, OpenOptions::new("shops/1")).await.expect("a document")
    };
    let older = open(&shop()).await;
    let newer = SHOP.replace(
        r#""shipped": {"#,
        r#""sent": { "fields": {}, "upcast": [],
        "project": [] }, "shipped": {"#,
    );
    let newer = open(&json::parse(newer.as_bytes()).expect("a doctype")).await;
    let sent = orders().command("ship", async |_, Nothing {}| Ok(vec![NewEvent::bare("sent")]));
    let handling = newer.handle(sent, 1).expect("handled");
    let ship = newer.send("order", "ship", "order-7", &object!({}), SendOptions::default());
    until("shipping", ship.completed()).await.expect("sent");
    handling.close().await.expect("closed");
    let handling = older.handle(orders(), 1).expect("handled");
    let placed = place(&newer, "order-7", 1);
    placed.confirmed().await.expect("received");
    let stopped = async {
        let sql = "select number from tidelog_commands
                   where state = 'stopped' and attempt = 1 and reason like '%knows no event sent%'";
        while newer.query(sql, ()).await.expect("rows").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    until("stopping", stopped).await;
    let knows = Handler::new("order", Order::default(), |order, _| order)
        .command("place", async |_, Nothing {}| Ok(vec![NewEvent::bare("shipped")]));
    let others = newer.handle(knows, 1).expect("handled");
    assert_eq!(until("placing", placed.completed()).await.expect("placed").events.len(), 1);
    // The one of before comes first, and has still failed nothing.
    let again = place(&newer, "order-7", 1);
    assert_eq!(until("placing", again.completed()).await.expect("placed").events.len(), 1);
    until("closing", handling.close()).await.expect("closed");
    until("closing", others.close()).await.expect("closed");
}

#[tokio::test]
async fn a_handler_that_has_ended_sends_nothing() {
    let db = local().await;
    let (late, mut has_come) = tokio::sync::mpsc::unbounded_channel();
    let handler = orders().command("ship", move |ctx, Nothing {}| {
        let _ = late.send(ctx);
        async { Ok(vec![NewEvent::bare("shipped")]) }
    });
    let _handling = db.handle(handler, 1).expect("handled");
    let ship = db.send("order", "ship", "order-7", &object!({}), SendOptions::default());
    until("shipping", ship.completed()).await.expect("shipped");
    let ctx = has_come.recv().await.expect("it has");
    ctx.send("order", "place", "order-8", &object!({ "items": 1 })).expect_err("too late");
}

#[tokio::test]
async fn what_a_handler_sends_is_sent_with_its_completion() {
    let db = local().await;
    let handler = orders().command("ship", async |ctx, Nothing {}| {
        ctx.send("order", "place", "order-8", &object!({ "items": 1 }))?;
        Ok(vec![NewEvent::bare("shipped")])
    });
    let _handling = db.handle(handler, 16).expect("handled");
    let ship = db.send("order", "ship", "order-7", &object!({}), SendOptions::default());
    until("shipping", ship.completed()).await.expect("shipped");
    let rows = db.query("select key from tidelog_commands where stream = 'order-8'", ()).await;
    let keys: Vec<String> = rows.expect("rows").to().expect("keys");
    let sent = db.outcome("order", "place", "order-8", &keys[0]);
    assert_eq!(until("the other", sent).await.expect("placed").events.len(), 1);
}

/// Goal: a program that goes amid a command holds nobody up, and the command is done once.
#[tokio::test]
async fn what_one_device_left_another_one_does() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start_when_free(&settings(data.path())).await;
    let open = async || {
        let options = OpenOptions::new("shops/1").server(format!("ws://{}", server.address()));
        let engine = Engine::in_memory().expect("an engine");
        engine.open(&shop(), options).await.expect("a document")
    };
    let (shop, one, other) = (open().await, open().await, open().await);
    let (began, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let handler = orders().command("ship", move |_, Nothing {}| {
        let _ = began.send(());
        std::future::pending()
    });
    let handling = one.handle(handler, 16).expect("handled");
    let ship = shop.send("order", "ship", "order-7", &object!({}), SendOptions::default());
    until("the first handler", has_begun.recv()).await.expect("begun");
    drop(handling);
    let handler =
        orders().command("ship", async |_, Nothing {}| Ok(vec![NewEvent::bare("shipped")]));
    let handling = other.handle(handler, 16).expect("handled");
    let outcome = until("shipping", ship.completed()).await.expect("shipped");
    assert_eq!(outcome.events.len(), 1);
    handling.close().await.expect("closed");
}

/// How often orders were shipped and placed, and of how many events that is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Tally {
    placed: u64,
    shipped: u64,
}

/// Goal: whoever handles commands of a long stream begins where somebody else has come to. Method:
/// engines at a server that know nothing handle a command each, one of them with another way of
/// folding, and one whose states have another shape.
#[tokio::test]
async fn an_engine_that_comes_later_folds_but_what_came_since() {
    /// As many as a state is kept after.
    const EVENTS: u64 = 1_000;

    let data = tempfile::tempdir().expect("a folder");
    let server = start_when_free(&settings(data.path())).await;
    let open = async || {
        let options = OpenOptions::new("shops/1").server(format!("ws://{}", server.address()));
        let engine = Engine::in_memory().expect("an engine");
        let db = engine.open(&shop(), options).await.expect("a document");
        db.sync().await.expect("synced");
        db
    };
    /// Ships once by that way of folding: by which state, and of how many events that was made.
    async fn ship<S>(db: &Database, handler: Handler<S>, folded: &AtomicU32) -> (S, u32)
    where
        S: Clone + Send + Sync + 'static,
    {
        let (seen, mut has_seen) = tokio::sync::mpsc::unbounded_channel();
        let handler = handler.command("ship", move |ctx, Nothing {}| {
            let _ = seen.send(S::clone(&ctx.state));
            async { Ok(vec![NewEvent::bare("shipped")]) }
        });
        let handling = db.handle(handler, 1).expect("handled");
        let sent = db.send("order", "ship", "order-7", &object!({}), SendOptions::default());
        until("shipping", sent.completed()).await.expect("shipped");
        handling.close().await.expect("closed");
        (has_seen.recv().await.expect("a state"), folded.load(Ordering::Relaxed))
    }
    let tally = async |db: &Database, name: &str| {
        let folded = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&folded);
        let handler = Handler::new("order", Tally::default(), move |tally: Tally, event| {
            counted.fetch_add(1, Ordering::Relaxed);
            match event.kind.as_str() {
                "placed" => Tally { placed: tally.placed + 1, ..tally },
                _ => Tally { shipped: tally.shipped + 1, ..tally },
            }
        });
        ship(db, handler.snapshot(name), &folded).await
    };
    let seen = |placed, shipped, folded: u64| {
        (Tally { placed, shipped }, u32::try_from(folded).expect("few"))
    };
    let first = open().await;
    let handler =
        Handler::new("order", (), |(), _| ()).command("place", async |_, Place { items }| {
            let placed = |_| NewEvent::new("placed", &object!({ "items": 1 }));
            Ok((0..items).map(placed).collect::<Result<_, _>>()?)
        });
    let handling = first.handle(handler, 1).expect("handled");
    let all = place(&first, "order-7", i64::try_from(EVENTS).expect("few"));
    until("all", all.completed()).await.expect("placed");
    handling.close().await.expect("closed");

    assert_eq!(tally(&first, "v1").await, seen(EVENTS, 0, EVENTS));
    let kept =
        "select name || ' ' || position || ' ' || state from tidelog_snapshots order by name";
    let kept_of = async |db: &Database| -> Vec<String> {
        db.query(kept, ()).await.expect("rows").to().expect("texts")
    };
    assert_eq!(kept_of(&first).await, [r#"v1 1000 {"placed":1000,"shipped":0}"#]);
    assert_eq!(tally(&open().await, "v1").await, seen(EVENTS, 1, 1));
    // Another way of folding begins at the first event, and so does a state of another shape.
    assert_eq!(tally(&open().await, "v2").await, seen(EVENTS, 2, EVENTS + 2));
    let fourth = open().await;
    let folded = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&folded);
    let list = Handler::new("order", Vec::<u64>::new(), move |_, event| {
        counted.fetch_add(1, Ordering::Relaxed);
        vec![event.position]
    });
    let other_shape = ship(&fourth, list.snapshot("v1"), &folded).await;
    assert_eq!(other_shape, (vec![EVENTS + 3], u32::try_from(EVENTS + 3).expect("few")));
    assert_eq!(
        kept_of(&fourth).await,
        ["v1 1003 [1003]", r#"v2 1002 {"placed":1000,"shipped":2}"#]
    );
}

#[tokio::test]
async fn a_state_that_cannot_be_kept_holds_no_command_up() {
    let db = local().await;
    let place_all = |items: i64| place(&db, "order-7", items);
    let handler = Handler::new("order", String::new(), |state: String, _| state + &"x".repeat(300))
        .snapshot("large")
        .command("place", async |ctx, Place { items }| {
            let placed = |_| NewEvent::new("placed", &object!({ "items": ctx.state.len() }));
            Ok((0..items).map(placed).collect::<Result<_, _>>()?)
        });
    let handling = db.handle(handler, 1).expect("handled");
    until("many", place_all(1_000).completed()).await.expect("placed");
    let last = until("one more", place_all(1).completed()).await.expect("placed");
    assert_eq!(last.events[0].data["items"], object!(300_000));
    assert!(db.query("select * from tidelog_snapshots", ()).await.expect("rows").is_empty());
    handling.close().await.expect("closed");
    let long = orders_kept("n".repeat(65));
    assert_eq!(db.handle(long, 1).expect_err("too long").code, ErrorCode::InvalidOption);
}

fn orders_kept(name: String) -> Handler<u8> {
    Handler::new("order", 0, |state, _| state)
        .snapshot(name)
        .command("ship", async |_, Nothing {}| Ok(Vec::new()))
}

#[tokio::test]
async fn closing_waits_for_what_is_at_work_and_begins_nothing_more() {
    let db = local().await;
    let (began, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let handler = orders().command("ship", move |_, Nothing {}| {
        let _ = began.send(());
        async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Ok(vec![NewEvent::bare("shipped")])
        }
    });
    let handling = db.handle(handler, 1).expect("handled");
    let send =
        |stream: &str| db.send("order", "ship", stream, &object!({}), SendOptions::default());
    let (first, second) = (send("order-1"), send("order-2"));
    until("the handler", has_begun.recv()).await.expect("begun");
    handling.close().await.expect("closed");
    until("the first", first.completed()).await.expect("shipped");
    assert!(has_begun.try_recv().is_err(), "nothing more is begun");
    let waits = tokio::time::timeout(Duration::from_millis(100), second.completed()).await;
    assert!(waits.is_err(), "nobody handles it");
}

#[tokio::test]
async fn what_cannot_be_handled_is_refused_and_a_closed_document_ends_it() {
    let db = local().await;
    let none = Handler::new("order", (), |(), _| ());
    assert_eq!(db.handle(none, 1).expect_err("nothing").code, ErrorCode::InvalidOption);
    let odd = orders().command("shipp", async |_, Nothing {}| Ok(Vec::new()));
    assert_eq!(db.handle(odd, 1).expect_err("misspelt").code, ErrorCode::InvalidOption);
    assert_eq!(db.handle(orders(), 0).expect_err("none").code, ErrorCode::InvalidOption);
    let handling = db.handle(orders(), 1).expect("handled");
    db.close().await.expect("closed");
    let ended = until("the end", handling.ended()).await.expect_err("closed");
    assert_eq!(ended.code, ErrorCode::DocumentClosed);
}
