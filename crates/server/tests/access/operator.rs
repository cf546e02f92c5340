//! What an operator reads of a document, and does to its commands: over HTTP, and by the binary.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};
use tidelog_document::{Completion, NewEvent, Outcome, sending};
use tidelog_sync::{FromRoom, ToRoom};
use tidelog_testing::server::{Client, command};

use crate::commands::{code, complained, file, run_with, said};
use crate::common::{Answer, ROLES, Scene, ask, escaped, token, token_of_subject};
use crate::handling::{OWN, brings, opened, registers, scene_with_commands};

const TIDELOG: &str = env!("CARGO_BIN_EXE_tidelog");

/// A document with this many commands, and who handles them.
pub async fn stage(count: u64) -> (Scene, Client, Client) {
    let scene = scene_with_commands().await;
    let handles = ROLES[6].1.replace("}]", r#","handle":true}]"#);
    let mut client = opened(&scene, ROLES[6].1, 1).await;
    for number in 1..=count {
        let stream = format!("s{number}");
        let args = [("stream", stream.as_str()), ("args", "{}"), ("key", "k")];
        brings(&mut client, &sending("log", "do"), &args, number).await;
    }
    let mut handler = opened(&scene, &handles, 2).await;
    assert!(registers(&mut handler).await);
    (scene, client, handler)
}

/// What becomes of an attempt.
pub async fn completes(handler: &mut Client, task: u64, attempt: u64, outcome: Outcome) -> String {
    let completion = Completion { task, attempt, position: 0, outcome }.encode();
    let complete = ToRoom::Complete { tag: 1, number: 1, completion };
    handler.tell(complete).await.expect("up");
    loop {
        if let FromRoom::Completed { answer, .. } = handler.hear_of().await.expect("up") {
            return format!("{answer:?}");
        }
    }
}

pub fn done() -> Outcome {
    let events = vec![NewEvent { name: "done".to_owned(), data: r#"{"n":1}"#.to_owned() }];
    Outcome::Completed { events, sends: Vec::new(), starts: Vec::new(), snapshot: None }
}

pub fn failed() -> Outcome {
    Outcome::Failed { reason: "no".to_owned(), is_final: true }
}

pub fn lines(answer: &Answer) -> Vec<Value> {
    let text = answer.text();
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

pub fn path(what: &str) -> String {
    format!("/v1/documents/{}/{what}", escaped(OWN))
}

/// Goal: only who may read a document hears of its events and commands, and only who handles them,
/// or is an admin, has something done to one; each refusal says which. Method: each role, with and
/// without the grant; then what a command is not.
#[tokio::test(flavor = "multi_thread")]
async fn commands_are_given_again_and_cancelled_by_those_who_may() {
    let (scene, _client, mut handler) = stage(2).await;
    let post = async |what: &str, grants: &str, body: &str| {
        ask(scene.at, "POST", &path(what), Some(&token(grants)), body).await
    };
    let one = r#"{"number":1}"#;
    for (role, grants) in ROLES {
        let reads = ask(scene.at, "GET", &path("commands"), Some(&token(grants)), "").await.status;
        let tails = ask(scene.at, "GET", &path("events"), Some(&token(grants)), "").await.status;
        let retries = post("commands/retry", grants, one).await.status;
        let cancels = post("commands/cancel", grants, r#"{"number":77}"#).await;
        let expected = match role {
            "none" | "other" => [404, 404, 404, 404],
            "admin" | "root" => [200, 200, 409, 404],
            _ => [200, 200, 403, 403],
        };
        assert_eq!([reads, tails, retries, cancels.status], expected, "{role}");
        if role == "root" {
            assert_eq!(cancels.text(), "no such command\n");
        }
    }
    let handles = ROLES[2].1.replace("}]", r#","handle":true}]"#);
    let answer = post("commands/retry", &handles, one).await;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (409, "the command is started: one that has failed is given again\n")
    );
    let nonsense = post("commands/retry", &handles, r#"{"numbers":1}"#).await;
    assert_eq!(nonsense.status, 400);

    assert_eq!(completes(&mut handler, 1, 1, failed()).await, "Done");
    let by_key = r#"{"aggregate":"log","stream":"s1","command":"do","key":"k"}"#;
    let answer = post("commands/retry", &handles, by_key).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"number":1}"#));
    let bob = token_of_subject("bob", &handles);
    let cancelled = ask(scene.at, "POST", &path("commands/cancel"), Some(&bob), one).await;
    assert_eq!(cancelled.status, 200);
    assert_eq!(completes(&mut handler, 1, 2, done()).await, "Late", "it was given again before");
    let query = path("commands?state=failed");
    let listed = ask(scene.at, "GET", &query, Some(&bob), "").await;
    let listed = lines(&listed);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["reason"], "cancelled by bob");
    assert_eq!(listed[0]["args"], json!({}));
    let odd = ask(scene.at, "GET", &path("commands?state=lost"), Some(&bob), "").await;
    assert_eq!(odd.status, 400);
    scene.stop().await;
}

/// Goal: events come as lines of JSON, those that are asked for, and where to go on; the binary
/// prints the same, and goes on with what happens next. Method: commands that complete, before and
/// while it follows.
#[tokio::test(flavor = "multi_thread")]
async fn events_are_printed_as_lines_and_followed() {
    let (scene, _client, mut handler) = stage(4).await;
    for task in [1, 2] {
        assert_eq!(completes(&mut handler, task, 1, done()).await, "Done");
    }
    let get = async |query: &str| {
        ask(scene.at, "GET", &path(&format!("events{query}")), Some(&token(ROLES[2].1)), "").await
    };
    let answer = get("").await;
    assert_eq!(answer.header("content-type").as_deref(), Some("application/x-ndjson"));
    let events = lines(&answer);
    let brief = |event: &Value| (event["sequence"].clone(), event["stream"].clone());
    let all = [(json!(1), json!("s1")), (json!(2), json!("s2"))];
    assert_eq!(events.iter().map(brief).collect::<Vec<_>>(), all);
    assert_eq!(events[0]["data"], json!({ "n": 1 }));
    assert_eq!(events[0]["cause"], "command:1");
    assert_eq!(lines(&get("?after=1").await), events[1..]);
    assert_eq!(lines(&get("?aggregate=log&stream=s1").await), events[..1]);
    assert_eq!(lines(&get("?type=other").await), Vec::<Value>::new());
    let last = get("?after=2").await;
    let said_of = |name: &str| last.header(name).expect("said");
    assert_eq!((said_of("tidelog-after"), said_of("tidelog-more")), ("2".into(), "false".into()));
    assert_eq!(get("?before=2").await.status, 400);

    let folder = tempfile::tempdir().expect("a folder");
    let reader = file(folder.path(), "token", token(ROLES[2].1));
    let server = format!("http://{}", scene.at);
    let access = ["--server", &server, "--token-file", &reader];
    let run = |args: &[&str]| run_with(&[args, &access].concat(), &[], b"");
    let printed = run(&["events", "tail", OWN, "--after", "1"]);
    assert_eq!(code(&printed), Some(0), "{}", complained(&printed));
    let line: Value = serde_json::from_str(said(&printed).trim()).expect("one line of JSON");
    assert_eq!(line, events[1]);

    let follow = [&["events", "tail", OWN, "--follow", "--stream", "s4"], &access[..]].concat();
    let mut following = command(TIDELOG).args(follow).stdout(Stdio::piped()).spawn().expect("runs");
    let mut told = BufReader::new(following.stdout.take().expect("piped")).lines();
    assert_eq!(completes(&mut handler, 3, 1, done()).await, "Done");
    assert_eq!(completes(&mut handler, 4, 1, done()).await, "Done");
    let line = told.next().expect("a line").expect("text");
    let line: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(brief(&line), (json!(4), json!("s4")));
    following.kill().expect("it runs");
    following.wait().expect("ended");
    scene.stop().await;
}

/// Goal: an operator lists commands, has them given again and cancels them, by number and by key,
/// and is told what could not be done. Method: the binary.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_has_commands_given_again_and_cancels_them() {
    let (scene, _client, mut handler) = stage(2).await;
    assert_eq!(completes(&mut handler, 1, 1, failed()).await, "Done");
    let folder = tempfile::tempdir().expect("a folder");
    let admin = file(folder.path(), "admin", token(ROLES[5].1));
    let reader = file(folder.path(), "reader", token(ROLES[2].1));
    let server = format!("http://{}", scene.at);
    let run_as = |token: &str, args: &[&str]| {
        let access = ["--server", &server, "--token-file", token];
        run_with(&[&["commands"], args, &access].concat(), &[], b"")
    };
    let listed = run_as(&reader, &["list", OWN, "--state", "failed"]);
    assert_eq!(code(&listed), Some(0), "{}", complained(&listed));
    let line: Value = serde_json::from_str(said(&listed).trim()).expect("one line of JSON");
    assert_eq!((&line["number"], &line["reason"]), (&json!(1), &json!("no")));
    let all = run_as(&reader, &["list", OWN]);
    assert_eq!(said(&all).lines().count(), 2);

    let refused = run_as(&reader, &["retry", OWN, "1"]);
    assert_eq!(code(&refused), Some(1));
    assert!(complained(&refused).contains("admin, or handle"), "{}", complained(&refused));
    let again = run_as(&admin, &["retry", OWN, "log", "s1", "do", "k", "--json"]);
    assert_eq!(said(&again), "{\"number\":1}\n", "{}", complained(&again));
    let cancelled = run_as(&admin, &["cancel", OWN, "1"]);
    assert_eq!(said(&cancelled), "command 1 is cancelled\n", "{}", complained(&cancelled));
    let twice = run_as(&admin, &["cancel", OWN, "1"]);
    assert_eq!(code(&twice), Some(1));
    assert!(complained(&twice).contains("the command is failed"), "{}", complained(&twice));
    for unnamed in [&["retry", OWN, "log"][..], &["cancel", OWN, "log", "s1"]] {
        let output = run_as(&admin, unnamed);
        assert_eq!(code(&output), Some(2), "{}", complained(&output));
    }
    scene.stop().await;
}

pub fn event(stream: &str, n: u64, more: Value) -> String {
    let mut event =
        json!({ "aggregate": "log", "stream": stream, "type": "done", "data": {"n": n} });
    event.as_object_mut().expect("one").extend(more.as_object().expect("one").clone());
    format!("{event}\n")
}

/// Goal: only an admin of the document records events past its mutations, all of a request or none,
/// and each refusal says which it is. Method: each role, then events that cannot be.
#[tokio::test(flavor = "multi_thread")]
async fn events_are_recorded_by_an_admin_together_or_not_at_all() {
    let (scene, _client, _handler) = stage(1).await;
    let post = async |grants: &str, body: &str| {
        ask(scene.at, "POST", &path("events"), Some(&token(grants)), body).await
    };
    let admin = ROLES[5].1;
    let before = scene.bytes_of(OWN).await;
    for (role, grants) in ROLES {
        let expected = match role {
            "none" | "other" => 404,
            "admin" | "root" => 422,
            _ => 403,
        };
        let rejected = event("a", 1, json!({})) + &event("a", 2, json!({ "type": "lost" }));
        let answer = post(grants, &rejected).await;
        assert_eq!(answer.status, expected, "{role}: {}", answer.text());
        if expected == 422 {
            assert!(answer.text().starts_with("event 2 is rejected: "), "{}", answer.text());
        }
    }
    let too_many: String = (0..1_025).map(|n| event("a", n, json!({}))).collect();
    for (body, status, why) in [
        ("no JSON", 400, "line 1 is no event"),
        (&event("a", 1, json!({ "positon": 1 })), 400, "unknown field `positon`"),
        (
            &format!("\n{}", event("a", 1, json!({ "erased": 1 }))),
            400,
            "line 2 is of an event that",
        ),
        (
            &event("a", 1, json!({ "position": 2 })),
            409,
            "event 1 is to be another one of its stream",
        ),
        (&event("a", 1, json!({ "version": 2 })), 422, "is of version 2, and 1 is known"),
        (&event("a", 1, json!({ "time": 8_640_000_000_000_001_u64 })), 400, "line 1 is of no time"),
        (&too_many, 400, "1024 events are recorded at a time"),
        ("\n", 400, "there is no line"),
    ] {
        let answer = post(admin, body).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.text().contains(why), "{}", answer.text());
    }
    assert!(scene.bytes_of(OWN).await == before, "not a byte has changed");

    let given = json!({ "time": 7, "user": "eve", "position": 1, "sequence": 99, "client": "",
                        "cause": "mutation:x", "version": 1, "erased": 0 });
    let answer = post(admin, &(event("a", 1, given) + "\n" + &event("a", 2, json!({})))).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"events":2,"last":2}"#));
    let told = lines(&ask(scene.at, "GET", &path("events"), Some(&token(admin)), "").await);
    assert_eq!(told[0]["time"], 7);
    let users = [&told[0]["user"], &told[1]["user"]];
    assert_eq!(users, ["eve", "ada"]);
    assert_eq!([&told[0]["cause"], &told[1]["cause"]], ["append", "append"]);
    scene.stop().await;
}

/// Goal: what is printed of one document is recorded in another, however much it is, once. Method:
/// more events than go together, by the binary, twice.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_records_the_events_of_another_document() {
    let (scene, _client, _handler) = stage(1).await;
    let folder = tempfile::tempdir().expect("a folder");
    let token_file = file(folder.path(), "token", token(ROLES[5].1));
    let server = format!("http://{}", scene.at);
    let variables = [("TIDELOG_SERVER", server.as_str()), ("TIDELOG_TOKEN_FILE", &token_file)];
    let events: String =
        (1..=1_030).map(|n| event("long", n, json!({ "position": n, "user": "eve" }))).collect();
    let append = |events: &str| run_with(&["events", "append", OWN], &variables, events.as_bytes());
    let done = append(&events);
    assert_eq!(code(&done), Some(0), "{}", complained(&done));
    assert_eq!(said(&done), "recorded 1030 events; the last one is number 1030\n");
    let again = append(&events);
    assert_eq!(code(&again), Some(1));
    let complaint = complained(&again);
    assert!(complaint.contains("line 1: 0 events before it are recorded"), "{complaint}");
    assert!(complaint.contains("which has 1030: none is recorded"), "{complaint}");
    let tail = run_with(&["events", "tail", OWN], &variables, b"");
    let printed = said(&tail).replace(r#""stream":"long""#, r#""stream":"copy""#);
    // As an editor saves it, with one that does not follow on among the others.
    let mut lines: Vec<&str> = printed.lines().collect();
    let odd = event("copy", 0, json!({ "position": 7 }));
    lines.insert(1_027, odd.trim());
    let copied = append(&format!("\u{feff}\r\n{}\r\n", lines.join("\r\n\r\n")));
    assert_eq!(code(&copied), Some(1));
    let complaint = complained(&copied);
    let expected = "line 2056: 1027 events before it are recorded, and nothing from there on";
    assert!(complaint.contains(expected), "{complaint}");
    assert!(complaint.contains("event 1 is to be another one of its stream"), "{complaint}");
    let rest = &printed[printed.find(r#"{"sequence":1028,"#).expect("the rest")..];
    let named = file(folder.path(), "rest", rest);
    let rest = run_with(&["events", "append", OWN, &named, "--json"], &variables, b"");
    assert_eq!(said(&rest), "{\"events\":3,\"last\":2060}\n", "{}", complained(&rest));
    assert_eq!(said(&append("\n\n")), "recorded no events: there is no line\n");
    let long = append(&format!("\n{}", "x".repeat(4 * 1024 * 1024)));
    assert_eq!(code(&long), Some(2));
    assert!(
        complained(&long).contains("line 2 has 4194304 bytes or more"),
        "{}",
        complained(&long)
    );
    // Nobody answers there.
    let nobody = [("TIDELOG_SERVER", "http://127.0.0.1:9"), variables[1]];
    let unheard = run_with(&["events", "append", OWN], &nobody, odd.as_bytes());
    let complaint = complained(&unheard);
    assert!(complaint.contains("of the 1 from there on that is not known"), "{complaint}");
    scene.stop().await;
}
