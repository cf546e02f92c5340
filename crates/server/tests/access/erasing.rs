//! Erasing what a document's events and commands say, over HTTP and by the binary.

use serde_json::{Value, json};
use tidelog_document::{
    Doctype, EventDefinition, MutationDefinition, Param, ParamKind, StreamDefinition, sending,
};
use tidelog_sync::{FromRoom, WireFrame};
use tidelog_testing::room::{Copy, frame_of};
use tidelog_testing::server::texts;

use crate::commands::{code, complained, file, run_with, said};
use crate::common::{Answer, ROLES, Scene, ask, escaped, join, token};
use crate::doctypes::{json_of, notes};

const DOCUMENT: &str = "lists/erased";
const SECRET: &str = "Lovelace";

/// Notes that are told as events of their names, with data, and one command.
fn told() -> Doctype {
    let id = Param { name: "id".to_owned(), kind: ParamKind::Text, optional: false };
    let insert = format!(
        "insert into tidelog_events (aggregate, stream, type, data)
         values ('note', :id, 'told', json_object('text', '{SECRET}'))"
    );
    let event = EventDefinition {
        name: "told".to_owned(),
        fields: vec![Param { name: "text".to_owned(), ..id.clone() }],
        upcasts: Vec::new(),
        project: Vec::new(),
    };
    let mut doctype = notes();
    let (name, params) = ("tell".to_owned(), vec![id]);
    doctype.mutations.push(MutationDefinition { name, params, sql: vec![insert] });
    doctype.mutations.sort_by(|one, other| one.name.cmp(&other.name));
    let command = tidelog_document::CommandDefinition {
        name: "ask".to_owned(),
        fields: Vec::new(),
        received: Vec::new(),
        failed: Vec::new(),
        retries: 0,
        timeout_ms: 0,
    };
    let (name, events, commands) = ("note".to_owned(), vec![event], vec![command]);
    doctype.streams = vec![StreamDefinition { name, events, commands }];
    doctype
}

/// The same as it is deployed.
fn told_json() -> String {
    let json = json_of(&Doctype { streams: Vec::new(), ..told() });
    let streams = r#","streams":{"note":{"events":{"told":{"fields":{"text":"text"},"upcast":[],
        "project":[]}},"commands":{"ask":{"fields":{},"received":[],"failed":[],"retries":0,
        "timeout":0}}}}}"#;
    format!("{}{streams}", json.strip_suffix('}').expect("an object"))
}

/// A server with a document in which this was done.
async fn stage(frames: Vec<WireFrame>) -> Scene {
    let scene = Scene::new(&["lists/plain"]).await;
    let root = token(ROLES[6].1);
    let deployed = ask(scene.at, "PUT", "/v1/doctypes/notes", Some(&root), &told_json()).await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
    let mut client = join(scene.at, Some(&root)).await.expect("welcome");
    client.open_as(DOCUMENT, &told(), 5, None).await.expect("up");
    loop {
        match client.hear_of().await.expect("up") {
            FromRoom::Opened { .. } => break,
            FromRoom::Allowed { .. } => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    let next = 1 + frames.len() as u64;
    client.frames(1, frames).await.expect("up");
    client.acked(&mut Copy::default(), next).await.expect("up");
    scene
}

fn tell(stream: &str) -> WireFrame {
    frame_of("ada", &told(), "tell", stream)
}

async fn erase(scene: &Scene, document: &str, role: usize, what: &Value) -> Answer {
    let path = format!("/v1/documents/{}/erase", escaped(document));
    ask(scene.at, "POST", &path, Some(&token(ROLES[role].1)), &what.to_string()).await
}

/// Places in [`ROLES`].
const READ: usize = 2;
const WRITE: usize = 3;
const ADMIN: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_of_the_document_erases_a_stream() {
    let scene = stage(vec![tell("a"), tell("b"), tell("a")]).await;
    let what = json!({ "aggregate": "note", "stream": "a" });
    let before = scene.bytes_of(DOCUMENT).await;
    for (role, expected) in [(0, 404), (READ, 403), (WRITE, 403)] {
        let answer = erase(&scene, DOCUMENT, role, &what).await;
        assert_eq!(answer.status, expected, "{}", answer.text());
    }
    assert!(scene.bytes_of(DOCUMENT).await == before, "nothing of it is erased");
    let answer = erase(&scene, DOCUMENT, ADMIN, &what).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let counts: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let expected = json!({ "events": 2, "commands": 0, "runs": 0, "records": 0, "next": null });
    assert_eq!(counts, expected);
    let sql = "select stream || position || coalesce(data, '') || erased from tidelog_events";
    let told = [r#"a11"#, r#"b1{"text":"Lovelace"}0"#, r#"a21"#];
    assert_eq!(texts(&scene.bytes_of(DOCUMENT).await, sql), told);
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_erased_is_told_apart() {
    let mut sent = frame_of("ada", &told(), "add", "x");
    let mut mutation = tidelog_document::Mutation::decode(&sent.body).expect("one");
    let text = |text: &str| tidelog_types::Value::Text(text.to_owned());
    mutation.name = sending("note", "ask");
    mutation.args = [("stream", "c"), ("args", "{}"), ("key", "k")]
        .map(|(name, value)| (name.to_owned(), text(value)))
        .to_vec();
    sent.body = mutation.encode();
    let scene = stage(vec![tell("a"), sent]).await;
    let stream = |stream: &str| json!({ "aggregate": "note", "stream": stream });
    for (document, what, status, said) in [
        (DOCUMENT, stream("z"), 404, "no such stream"),
        (DOCUMENT, stream("c"), 409, "command 1 is not over"),
        (DOCUMENT, json!({ "workflow": "w", "id": "x" }), 404, "no such run"),
        (DOCUMENT, json!({ "aggregate": "note" }), 400, "what is erased is JSON"),
        (DOCUMENT, json!({ "aggregate": "note", "stream": "a", "id": "x" }), 400, "is JSON"),
        ("lists/plain", stream("a"), 409, "the document has no streams"),
        ("lists/absent", stream("a"), 404, "no such document"),
    ] {
        let answer = erase(&scene, document, ADMIN, &what).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        assert!(answer.text().contains(said), "{what}: {}", answer.text());
    }
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_erases_a_stream_by_the_binary() {
    let scene = stage(vec![tell("a"), tell("a b/c?")]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let token_file = file(folder.path(), "token", token(ROLES[ADMIN].1));
    let server = format!("http://{}", scene.at);
    let variables = [("TIDELOG_SERVER", server.as_str()), ("TIDELOG_TOKEN_FILE", &token_file)];
    let erase = |args: &[&str]| {
        let args: Vec<&str> = ["events", "erase"].iter().chain(args).copied().collect();
        run_with(&args, &variables, b"")
    };
    let done = erase(&[DOCUMENT, "note", "a b/c?"]);
    assert_eq!(code(&done), Some(0), "{}", complained(&done));
    assert_eq!(said(&done), "erased 1 events and 0 commands\n");
    let again = erase(&[DOCUMENT, "note", "a b/c?", "--json"]);
    let counts: Value = serde_json::from_str(&said(&again)).expect("JSON");
    assert_eq!(counts, json!({ "events": 0, "commands": 0, "runs": 0, "records": 0 }));
    for (args, why) in [
        ([DOCUMENT, "note", "z"].as_slice(), "no such stream"),
        (&[DOCUMENT, "w", "x", "--workflow"], "no such run"),
        (&["other/own", "note", "a"], "no such document"),
    ] {
        let refused = erase(args);
        assert_eq!(code(&refused), Some(1));
        assert!(complained(&refused).contains(why), "{}", complained(&refused));
    }
    let sql = "select stream || erased from tidelog_events";
    assert_eq!(texts(&scene.bytes_of(DOCUMENT).await, sql), ["a0", "a b/c?1"]);
    scene.stop().await;
}
