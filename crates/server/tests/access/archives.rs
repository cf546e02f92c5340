//! Events that leave a document for its archive: over HTTP, and by the binary.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tidelog_document::{Completion, NewSnapshot, Outcome};
use tidelog_sync::{ArchiveAnswer, ArchiveQuestion, FromRoom, FromServer, ToRoom, ToServer};
use tidelog_testing::server::{Client, texts};
use tidelog_types::JournalId;

use crate::commands::{code, complained, file, run_with, said};
use crate::common::{Answer, ROLES, Scene, app_keys, ask, join, start, token};
use crate::documents::{changed, put_as};
use crate::handling::{OWN, opened};
use crate::operator::{event, lines, path, stage};

const ADMIN: &str = ROLES[5].1;
const ROOT: &str = ROLES[6].1;
/// Events of the stream that is archived, before its command has recorded one more.
const COUNT: u64 = 600;

async fn post(scene: &Scene, what: &str, body: &str) -> Answer {
    ask(scene.at, "POST", &path(what), Some(&token(ADMIN)), body).await
}

fn json_of(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// All events that are wanted, page by page.
async fn told(scene: &Scene, query: &str) -> Vec<Value> {
    let (mut after, mut told) = (0, Vec::new());
    loop {
        let query = format!("events?after={after}{query}");
        let page = ask(scene.at, "GET", &path(&query), Some(&token(ROLES[2].1)), "").await;
        assert_eq!(page.status, 200, "{}", page.text());
        told.extend(lines(&page));
        after = page.header("tidelog-after").expect("a place").parse().expect("a number");
        if page.header("tidelog-more").as_deref() == Some("false") {
            return told;
        }
    }
}

/// The command of the first stream records one event, and what came before is kept as a state.
async fn completes_with_state(handler: &mut Client, position: u64) {
    let snapshot = Some(NewSnapshot { name: "v1".to_owned(), state: "[]".to_owned() });
    let data = r#"{"n":7}"#.to_owned();
    let events = vec![tidelog_document::NewEvent { name: "done".to_owned(), data }];
    let outcome = Outcome::Completed { events, sends: Vec::new(), starts: Vec::new(), snapshot };
    let completion = Completion { task: 1, attempt: 1, position, outcome }.encode();
    let complete = ToRoom::Complete { tag: 1, number: 1, completion };
    handler.tell(complete).await.expect("up");
    loop {
        if let FromRoom::Completed { answer, .. } = handler.hear_of().await.expect("up") {
            assert_eq!(format!("{answer:?}"), "Done");
            return;
        }
    }
}

/// A document whose stream `s1` can be archived, and another stream between, of which nothing is
/// kept.
async fn with_events() -> (Scene, Client, Client) {
    let (scene, client, mut handler) = stage(1).await;
    let secret = json!({ "user": SECRET_OF_EVENTS });
    for batch in 0..3 {
        let own = (1..=COUNT / 3)
            .map(|n| event("s1", batch * 1_000 + n, secret.clone()) + &event("s2", n, json!({})));
        let answer = post(&scene, "events", &own.collect::<String>()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    completes_with_state(&mut handler, COUNT).await;
    (scene, client, handler)
}

/// Whose the events are that are archived.
const SECRET_OF_EVENTS: &str = "Lovelace";

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|it| it == text.as_bytes())
}

async fn restarted(mut scene: Scene) -> Scene {
    scene.server.take().expect("it runs").stop().await;
    let server = start(scene.data.path(), app_keys()).await;
    Scene { at: server.address(), server: Some(server), data: scene.data }
}

/// Goal: an admin alone archives events, and whoever may read them reads the same as before, also
/// once the server has begun anew; the document has them no longer. Method: each role, and what is
/// told before and after.
#[tokio::test(flavor = "multi_thread")]
async fn an_admin_archives_events_and_everybody_reads_the_same() {
    let (scene, _client, _handler) = with_events().await;
    let ways = ["", "&aggregate=log", "&aggregate=log&stream=s1", "&aggregate=log&stream=s2"];
    let mut before = Vec::new();
    for way in ways {
        before.push(told(&scene, way).await);
    }
    assert_eq!(before.iter().map(Vec::len).collect::<Vec<_>>(), [1_201, 1_201, 601, 600]);
    for (role, grants) in ROLES {
        let body = r#"{"stream":"s1"}"#;
        let answer =
            ask(scene.at, "POST", &path("events/archive"), Some(&token(grants)), body).await;
        let expected = match role {
            "none" | "other" => 404,
            "admin" | "root" => 400,
            _ => 403,
        };
        assert_eq!(answer.status, expected, "{role}");
    }
    for (body, status, why) in [
        (r#"{"aggregate":"log","stream":"none"}"#, 404, "no such stream"),
        (r#"{"aggregate":"log","stream":"s1","more":1}"#, 400, "unknown field `more`"),
    ] {
        let refused = post(&scene, "events/archive", body).await;
        assert_eq!(refused.status, status, "{}", refused.text());
        assert!(refused.text().contains(why), "{}", refused.text());
    }
    assert!(has(&scene.bytes_of(OWN).await, SECRET_OF_EVENTS));
    let answer = post(&scene, "events/archive", r#"{"aggregate":"log"}"#).await;
    let counts = json!({
        "events": COUNT, "streams": 1, "without_state": 1, "awaited": 0, "next": null,
    });
    assert_eq!(json_of(&answer), counts);
    assert!(!has(&scene.bytes_of(OWN).await, SECRET_OF_EVENTS), "the document has none of them");
    let listed = ask(scene.at, "GET", "/v1/documents", Some(&token(ROOT)), "").await;
    assert_eq!(json_of(&listed), json!({ "documents": ["lists/a", OWN] }), "nobody sees it");

    let scene = restarted(scene).await;
    for (way, before) in ways.iter().zip(&before) {
        assert!(told(&scene, way).await == *before, "{way}");
    }
    let streams = lines(&ask(scene.at, "GET", &path("streams"), Some(&token(ADMIN)), "").await);
    let counts =
        streams.iter().map(|it| [&it["archived"], &it["events"], &it["first"]["position"]]);
    let expected = [[json!(COUNT), json!(1), json!(COUNT + 1)], [json!(0), json!(600), json!(1)]];
    assert_eq!(counts.collect::<Vec<_>>(), expected.each_ref().map(|it| it.each_ref()));
    let replay = r#"{"aggregate":"log","clear":["note"]}"#;
    let refused = post(&scene, "events/replay", replay).await;
    assert_eq!(refused.status, 409);
    assert!(refused.text().contains("events of stream s1 are archived"), "{}", refused.text());
    // What happens next has the place that it would have had.
    let answer = post(&scene, "events", &event("s1", 1, json!({ "position": COUNT + 2 }))).await;
    assert_eq!(json_of(&answer)["last"], json!(1_202));
    scene.stop().await;
}

/// Goal: whoever may read a document is given what has left it, part by part, and each question is
/// answered. Method: a reader that asks all at once, for another archive as well; and one without a
/// grant.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_asks_for_what_has_left() {
    let (scene, _client, _handler) = with_events().await;
    json_of(&post(&scene, "events/archive", r#"{"aggregate":"log"}"#).await);
    let sql = "select lower(hex(value)) from _tidelog_meta where key = 'archive'";
    let id = texts(&scene.bytes_of(OWN).await, sql).pop().expect("an archive");
    let byte = |at: usize| u8::from_str_radix(&id[at..at + 2], 16).expect("a digit");
    let archive = JournalId(std::array::from_fn(|nth| byte(2 * nth)));
    let question = |number: u32, archive, after| {
        ToRoom::Archived(ArchiveQuestion {
            number,
            archive,
            aggregate: Some("log".to_owned()),
            stream: Some("s1".to_owned()),
            types: Vec::new(),
            after,
        })
    };
    let mut reader = opened(&scene, ROLES[2].1, 4).await;
    reader.tell(question(1, archive, 0)).await.expect("up");
    reader.tell(question(2, JournalId([7; 16]), 0)).await.expect("up");
    reader.tell(question(3, archive, 1_198)).await.expect("up");
    let mut answers = Vec::new();
    while answers.len() < 3 {
        if let FromRoom::Archived { number, answer } = reader.hear_of().await.expect("up") {
            answers.push((number, answer));
        }
    }
    // In whichever order.
    answers.sort_by_key(|(number, _)| *number);
    let first = match &answers[0] {
        (1, ArchiveAnswer::Events { events, up_to }) => {
            assert_eq!(events.last().map(|it| it.sequence), Some(*up_to));
            events.iter().map(|it| it.position).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(first, (1..=256).collect::<Vec<_>>());
    assert_eq!(answers[1], (2, ArchiveAnswer::Elsewhere));
    match &answers[2] {
        (3, ArchiveAnswer::Events { events, up_to: 1_199 }) => assert_eq!(events.len(), 1),
        other => panic!("{other:?}"),
    }
    // Of a channel that is not open nothing is said.
    let mut other = join(scene.at, Some(&token(ROLES[1].1))).await.expect("welcome");
    other.tell(question(1, archive, 0)).await.expect("up");
    other.say(&ToServer::Ping).await.expect("up");
    assert_eq!(other.hear().await, Some(FromServer::Pong), "the next that it hears");
    scene.stop().await;
}

/// Goal: what is erased is erased in the archive too, and what happened keeps its place.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_is_erased_in_the_archive() {
    let (scene, _client, _handler) = with_events().await;
    json_of(&post(&scene, "events/archive", r#"{"aggregate":"log","stream":"s1"}"#).await);
    let answer = post(&scene, "erase", r#"{"aggregate":"log","stream":"s1"}"#).await;
    let counts = json_of(&answer);
    assert_eq!([&counts["events"], &counts["next"]], [&json!(COUNT + 1), &json!(null)]);
    let told = told(&scene, "&aggregate=log&stream=s1").await;
    assert_eq!(told.len() as u64, COUNT + 1);
    for (nth, event) in told.iter().enumerate() {
        let said = ["position", "erased", "user", "data"].map(|name| event[name].clone());
        assert_eq!(said, [json!(nth + 1), json!(1), json!(""), json!({})]);
    }
    scene.stop().await;
}

/// Goal: a document that is deleted has no archive any more, and one that is made of a file of it
/// says that it lacks that. Method: exported, deleted, and imported under the same name.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_goes_with_its_document() {
    let (scene, _client, mut handler) = with_events().await;
    json_of(&post(&scene, "events/archive", r#"{"aggregate":"log"}"#).await);
    // In which more could leave: an event more, and a state of all before it.
    let more = "update _tidelog_stream set length = 602 where stream = 's1';
                update _tidelog_snapshot set position = 601, sequence = 1201;
                insert into _tidelog_event
                select 1202, stream, 602, type, version, data, time, user, client, cause
                from _tidelog_event where sequence = 1201;";
    let bytes = changed(&scene.bytes_of(OWN).await, more);
    let document = format!("/v1/documents/{}", crate::common::escaped(OWN));
    let deleted = ask(scene.at, "DELETE", &document, Some(&token(ADMIN)), "").await;
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    let _ = handler.hear_of().await;
    let place = format!("{document}?doctype=notes");
    let (root, size) = (token(ROOT), bytes.len() as u64);
    let made = put_as(&scene, &place, Some(&root), size, &bytes).await;
    assert!(made.starts_with("201"), "{made}");
    let refused = ask(scene.at, "GET", &path("events"), Some(&token(ADMIN)), "").await;
    assert_eq!(refused.status, 409);
    assert!(refused.text().contains("that archive is not here"), "{}", refused.text());
    let later = ask(scene.at, "GET", &path("events?after=1200"), Some(&token(ADMIN)), "").await;
    assert_eq!(lines(&later).len(), 2, "what the document has is read");
    // Nothing more leaves, so that no archive has events behind those that are elsewhere.
    let answer = post(&scene, "events/archive", r#"{"aggregate":"log","stream":"s1"}"#).await;
    assert_eq!(answer.status, 409);
    assert!(answer.text().contains("the archive of another document"), "{}", answer.text());
    scene.stop().await;
}

/// Goal: a backup has the archives, and a server that is made of it reads the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_has_the_archives() {
    let (mut scene, _client, _handler) = with_events().await;
    let before = told(&scene, "").await;
    json_of(&post(&scene, "events/archive", r#"{"aggregate":"log"}"#).await);
    let folder = tempfile::tempdir().expect("a folder");
    let text = |path: &Path| path.to_str().expect("a text").to_owned();
    let (data, backup) = (text(scene.data.path()), text(&folder.path().join("backup")));
    let restored = text(&folder.path().join("data"));
    fs::create_dir(&restored).expect("a folder");
    for args in [
        ["backup", "--data", &data, &backup].as_slice(),
        &["restore", "--data", &restored, &backup, "--keep-tokens"],
        &["check", "--data", &restored],
    ] {
        let done = run_with(args, &[], b"");
        assert_eq!(code(&done), Some(0), "{}", complained(&done));
    }
    scene.server.take().expect("it runs").stop().await;
    let server = start(Path::new(&restored), app_keys()).await;
    let scene = Scene { at: server.address(), server: Some(server), data: scene.data };
    assert!(told(&scene, "").await == before, "not the same");
    scene.stop().await;
}

/// Goal: the binary says what became of it, of all streams of an aggregate or of one.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_archives_events_by_the_binary() {
    let (scene, _client, _handler) = with_events().await;
    let folder = tempfile::tempdir().expect("a folder");
    let token_file = file(folder.path(), "token", token(ADMIN));
    let server = format!("http://{}", scene.at);
    let variables = [("TIDELOG_SERVER", server.as_str()), ("TIDELOG_TOKEN_FILE", &token_file)];
    let run = |args: &[&str]| {
        let done = run_with(&[&["events", "archive", OWN], args].concat(), &variables, b"");
        assert_eq!(code(&done), Some(0), "{}", complained(&done));
        said(&done)
    };
    let expected = "archived 600 events of 1 streams\n\
                    1 streams stay whole: no state of them is kept\n";
    assert_eq!(run(&["log"]), expected);
    let again: Value = serde_json::from_str(&run(&["log", "s1", "--json"])).expect("JSON");
    assert_eq!(again, json!({ "events": 0, "streams": 0, "without_state": 0, "awaited": 0 }));
    scene.stop().await;
}
