//! What an operator is told of streams, and does to all events of a document: over HTTP, and by the
//! binary.

use serde_json::{Value, json};
use tidelog_testing::server::texts;

use crate::commands::{code, complained, file, run_with, said};
use crate::common::{Answer, ROLES, Scene, ask, token};
use crate::handling::{OWN, deploy_with, handled_with, opened_as};
use crate::operator::{completes, done, event, failed, lines, path, stage};

/// What a role may where an admin alone may: this, if it may.
fn expected_of(role: &str, allowed: u16) -> u16 {
    match role {
        "none" | "other" => 404,
        "admin" | "root" => allowed,
        _ => 403,
    }
}

const ADMIN: &str = ROLES[5].1;

async fn get(scene: &Scene, grants: &str, query: &str) -> Answer {
    ask(scene.at, "GET", &path(query), Some(&token(grants)), "").await
}

async fn append(scene: &Scene, events: &str) {
    let answer = ask(scene.at, "POST", &path("events"), Some(&token(ADMIN)), events).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Goal: only an admin of the document is told of its streams, and of each what there is; each
/// refusal says which. Method: each role, and what cannot be asked.
#[tokio::test(flavor = "multi_thread")]
async fn an_admin_is_told_of_streams() {
    let (scene, _client, mut handler) = stage(3).await;
    assert_eq!(completes(&mut handler, 1, 1, done()).await, "Done");
    assert_eq!(completes(&mut handler, 2, 1, failed()).await, "Done");
    for (role, grants) in ROLES {
        let status = get(&scene, grants, "streams").await.status;
        assert_eq!(status, expected_of(role, 200), "{role}");
    }
    let told = lines(&get(&scene, ADMIN, "streams?aggregate=log").await);
    assert_eq!(told.len(), 1, "{told:?}");
    let time = told[0]["last"]["time"].clone();
    let place = json!({ "sequence": 1, "position": 1, "time": time });
    let expected = json!({
        "number": 1, "aggregate": "log", "stream": "s1", "events": 1, "archived": 0,
        "erased": 0, "bytes": 7,
        "first": place, "last": place, "types": [{ "type": "done", "version": 1, "events": 1 }],
        "received": 0, "started": 0, "failed": 0, "holder": null, "snapshots": [],
    });
    assert_eq!(told[0], expected);
    let of = async |stream: &str| {
        let told =
            lines(&get(&scene, ADMIN, &format!("streams?aggregate=log&stream={stream}")).await);
        told.into_iter().next().expect("a line")
    };
    assert_eq!((&of("s2").await["failed"], &of("s2").await["events"]), (&json!(1), &json!(0)));
    let third = of("s3").await;
    assert_eq!((&third["started"], &third["holder"]["command"]), (&json!(1), &json!(3)));
    assert_eq!(third["holder"]["user"], "ada");
    for (query, status, why) in [
        ("streams?aggregate=log&stream=s9", 404, "no such stream\n"),
        ("streams?stream=s1", 400, "a stream is named with its aggregate"),
        ("streams?limit=0", 400, "limit is from 1 to 64"),
        ("streams?limit=65", 400, "limit is from 1 to 64"),
        ("streams?before=1", 400, "unknown field `before`"),
    ] {
        let answer = get(&scene, ADMIN, query).await;
        assert_eq!(answer.status, status, "{query}: {}", answer.text());
        assert!(answer.text().contains(why), "{query}: {}", answer.text());
    }
    let plain = "/v1/documents/lists%2Fa/streams";
    let none = ask(scene.at, "GET", plain, Some(&token(ADMIN)), "").await;
    assert_eq!((none.status, none.text().as_str()), (200, ""));
    scene.stop().await;
}

/// Goal: the binary prints each stream once, page by page, or as many as are wanted. Method: more
/// streams than a page has.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_prints_streams_by_the_binary() {
    let (scene, _client, _handler) = stage(1).await;
    let events: String = (1..=130).map(|n| event(&format!("o{n}"), n, json!({}))).collect();
    append(&scene, &events).await;
    let folder = tempfile::tempdir().expect("a folder");
    let token_file = file(folder.path(), "token", token(ADMIN));
    let server = format!("http://{}", scene.at);
    let variables = [("TIDELOG_SERVER", server.as_str()), ("TIDELOG_TOKEN_FILE", &token_file)];
    let inspect =
        |args: &[&str]| run_with(&[&["events", "inspect", OWN], args].concat(), &variables, b"");
    let printed = |args: &[&str]| {
        let output = inspect(args);
        assert_eq!(code(&output), Some(0), "{}", complained(&output));
        let line = |line: &str| -> Value { serde_json::from_str(line).expect("JSON") };
        let text = said(&output);
        let numbers = text.lines().map(|it| line(it)["number"].as_u64().expect("one"));
        numbers.collect::<Vec<_>>()
    };
    assert_eq!(printed(&[]), (1..=130).collect::<Vec<_>>());
    assert_eq!(printed(&["--limit", "66", "--after", "2"]), (3..=68).collect::<Vec<_>>());
    assert_eq!(printed(&["--aggregate", "other"]), [0_u64; 0]);
    assert_eq!(printed(&["--aggregate", "log", "--stream", "o7"]), [7]);
    for (args, expected, why) in [
        (&["--aggregate", "log", "--stream", "none"][..], 1, "no such stream"),
        (&["--stream", "o7"], 2, "--aggregate"),
        (&["--limit", "0"], 2, "--limit"),
    ] {
        let refused = inspect(args);
        assert_eq!(code(&refused), Some(expected), "{}", complained(&refused));
        assert!(complained(&refused).contains(why), "{}", complained(&refused));
    }
    scene.stop().await;
}

/// Goal: only an admin migrates events, and is told how far that has come; what is read stays the
/// same. Method: more events than one answer is about, and a release that has an upcast.
#[tokio::test(flavor = "multi_thread")]
async fn an_admin_migrates_events_and_reads_the_same() {
    let (scene, _client, _handler) = stage(1).await;
    for batch in 0..5 {
        let events = (1..=1_000).map(|n| event("long", batch * 1_000 + n, json!({})));
        append(&scene, &events.collect::<String>()).await;
    }
    let upcasts = ["json_object('n', (:data ->> 'n') * 2)"];
    deploy_with(&scene, &upcasts, &[]).await;
    let _newer = opened_as(&scene, &handled_with(&upcasts, &[]), ADMIN, 3).await;
    let folder = tempfile::tempdir().expect("a folder");
    let token_file = file(folder.path(), "token", token(ADMIN));
    let server = format!("http://{}", scene.at);
    let variables = [("TIDELOG_SERVER", server.as_str()), ("TIDELOG_TOKEN_FILE", &token_file)];
    let run = |args: &[&str]| run_with(&[&["events"], args].concat(), &variables, b"");
    let tail = || said(&run(&["tail", OWN]));
    let read = tail();
    assert!(read.contains(r#""version":2,"data":{"n":10000}"#), "{}", &read[..300]);
    let post = async |grants: &str, body: &str| {
        ask(scene.at, "POST", &path("events/migrate"), Some(&token(grants)), body).await
    };
    let before = scene.bytes_of(OWN).await;
    for (role, grants) in ROLES {
        assert_eq!(
            post(grants, r#"{"stream":"a"}"#).await.status,
            expected_of(role, 400),
            "{role}"
        );
    }
    let unknown = post(ADMIN, r#"{"aggregate":"other"}"#).await;
    assert_eq!((unknown.status, unknown.text().as_str()), (404, "no such aggregate\n"));
    assert!(scene.bytes_of(OWN).await == before, "not a byte has changed");

    let done = run(&["migrate", OWN, "--aggregate", "log"]);
    assert_eq!(code(&done), Some(0), "{}", complained(&done));
    let (text, mut lines_before) = (said(&done), 0);
    for line in text.lines() {
        let word = |nth: usize| line.split(' ').nth(nth).and_then(|it| it.parse::<u64>().ok());
        let count = word(1).expect("how many");
        assert!(count > lines_before, "{text}");
        lines_before = count;
        assert!(count == 5_000 || line.ends_with("of 5000"), "{text}");
    }
    assert!(text.lines().count() > 1 && text.ends_with("migrated 5000 events\n"), "{text}");
    let told = lines(&get(&scene, ADMIN, "streams").await);
    assert_eq!(told[0]["types"], json!([{ "type": "done", "version": 2, "events": 5_000 }]));
    assert!(tail() == read, "what is read is the same");
    let again = run(&["migrate", OWN, "--json"]);
    let none: Value = serde_json::from_str(&said(&again)).expect("one line of JSON");
    assert_eq!(none, json!({ "events": 0, "next": null, "last": 5_000 }));
    scene.stop().await;
}

/// Goal: only an admin replays events, and each refusal says what is wrong and changes nothing; a
/// dry run changes nothing either. Method: a release in which rows follow from events of before,
/// and one event that it rejects.
#[tokio::test(flavor = "multi_thread")]
async fn an_admin_replays_events_into_a_table() {
    let (scene, _client, _handler) = stage(1).await;
    let events: String = (1..=3).map(|n| event("s", n, json!({}))).collect();
    append(&scene, &events).await;
    let project = [
        "insert into note (id) values (:stream || :position || :user)",
        "select reject('too many') where :n > 3",
    ];
    deploy_with(&scene, &[], &project).await;
    let _newer = opened_as(&scene, &handled_with(&[], &project), ADMIN, 3).await;
    let post = async |grants: &str, body: &str| {
        ask(scene.at, "POST", &path("events/replay"), Some(&token(grants)), body).await
    };
    let before = scene.bytes_of(OWN).await;
    for (role, grants) in ROLES {
        let body = r#"{"aggregate":"log","clear":["_tidelog_event"]}"#;
        assert_eq!(post(grants, body).await.status, expected_of(role, 422), "{role}");
    }
    let dry = r#"{"aggregate":"log","clear":["note"],"dry_run":true}"#;
    let answer = post(ADMIN, dry).await;
    let table = json!([{ "table": "note", "before": 0, "after": 3 }]);
    let said_of = |answer: &Answer| serde_json::from_slice::<Value>(&answer.body).expect("JSON");
    let expected = json!({ "events": 3, "erased": 0, "tables": table, "dry_run": true });
    assert_eq!((answer.status, said_of(&answer)), (200, expected));
    for (body, status, why) in [
        (r#"{"aggregate":"log"}"#, 400, "missing field `clear`"),
        (r#"{"aggregate":"log","clear":[]}"#, 400, "clear names no table"),
        (r#"{"aggregate":"other","clear":["note"]}"#, 404, "no such aggregate"),
        (r#"{"aggregate":"log","clear":["none"]}"#, 422, "table none cannot be emptied"),
    ] {
        let answer = post(ADMIN, body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        assert!(answer.text().contains(why), "{body}: {}", answer.text());
    }
    assert!(scene.bytes_of(OWN).await == before, "not a byte has changed");

    let folder = tempfile::tempdir().expect("a folder");
    let token_file = file(folder.path(), "token", token(ADMIN));
    let server = format!("http://{}", scene.at);
    let variables = [("TIDELOG_SERVER", server.as_str()), ("TIDELOG_TOKEN_FILE", &token_file)];
    let replay = |args: &[&str]| {
        let args = [&["events", "replay", OWN, "--aggregate", "log"], args].concat();
        run_with(&args, &variables, b"")
    };
    let ids = async || texts(&scene.bytes_of(OWN).await, "select id from note order by id");
    let dry = replay(&["--clear", "note", "--dry-run"]);
    assert_eq!(said(&dry), "note: 0 rows before, 3 after\nwould replay 3 events\n");
    assert_eq!(ids().await, [""; 0]);
    let done = replay(&["--clear", "note"]);
    assert_eq!(code(&done), Some(0), "{}", complained(&done));
    assert_eq!(said(&done), "note: 0 rows before, 3 after\nreplayed 3 events\n");
    assert_eq!(ids().await, ["s1ada", "s2ada", "s3ada"]);
    let again = replay(&["--clear", "note", "--json"]);
    let table = json!([{ "table": "note", "before": 3, "after": 3 }]);
    let expected = json!({ "events": 3, "erased": 0, "tables": table, "dry_run": false });
    assert_eq!(serde_json::from_str::<Value>(&said(&again)).expect("JSON"), expected);

    let unnamed = replay(&[]);
    assert_eq!(code(&unnamed), Some(2), "{}", complained(&unnamed));
    let odd = [r#"json_object('n', 9)"#];
    deploy_with(&scene, &odd, &project).await;
    let _newest = opened_as(&scene, &handled_with(&odd, &project), ADMIN, 4).await;
    let rejected = replay(&["--clear", "note"]);
    assert_eq!(code(&rejected), Some(1));
    let why = "event 1, done of log, cannot be replayed: too many";
    assert!(complained(&rejected).contains(why), "{}", complained(&rejected));
    assert_eq!(ids().await.len(), 3, "nothing has changed");
    scene.stop().await;
}
