//! Who may send the commands of a document, and who may handle them.

use serde_json::json;
use tidelog_document::{
    CommandDefinition, Doctype, EventDefinition, Mutation, Param, ParamKind, StreamDefinition,
    sending,
};
use tidelog_sync::{FromRoom, ToRoom, WireFrame};
use tidelog_testing::room::frame_of;
use tidelog_testing::server::Client;
use tidelog_types::Value;

use crate::common::{ROLES, Scene, ask, join, token};
use crate::doctypes::{json_of, notes};
use crate::ends::ENDS_WITHIN;
use crate::on_no_disk::renewed;

pub const OWN: &str = "lists/handled";

fn handled() -> Doctype {
    handled_with(&[], &[])
}

/// The same, where this is said of what is done: how to bring it up to date, and what follows.
pub fn handled_with(upcasts: &[&str], project: &[&str]) -> Doctype {
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    let command = CommandDefinition {
        name: "do".to_owned(),
        fields: Vec::new(),
        received: Vec::new(),
        failed: Vec::new(),
        retries: 0,
        timeout_ms: 0,
    };
    let event = EventDefinition {
        name: "done".to_owned(),
        fields: vec![Param { name: "n".to_owned(), kind: ParamKind::Integer, optional: false }],
        upcasts: texts(upcasts),
        project: texts(project),
    };
    let (name, events, commands) = ("log".to_owned(), vec![event], vec![command]);
    Doctype { streams: vec![StreamDefinition { name, events, commands }], ..notes() }
}

pub async fn opened(scene: &Scene, grants: &str, timeline: u8) -> Client {
    opened_as(scene, &handled(), grants, timeline).await
}

/// The document as it is opened by this doctype.
pub async fn opened_as(scene: &Scene, doctype: &Doctype, grants: &str, timeline: u8) -> Client {
    let mut client = join(scene.at, Some(&token(grants))).await.expect("welcome");
    client.open_as(OWN, doctype, timeline, None).await.expect("up");
    while !matches!(client.hear_of().await.expect("up"), FromRoom::Opened { .. }) {}
    client
}

/// What becomes of one who would handle commands.
pub async fn registers(client: &mut Client) -> bool {
    let kinds = vec![("log".to_owned(), "do".to_owned())];
    let register = ToRoom::Register { tag: 1, instance: 0, kinds, concurrency: 1 };
    client.tell(register).await.expect("up");
    loop {
        match client.hear_of().await.expect("up") {
            FromRoom::Registered { .. } => return true,
            FromRoom::NotRegistered { reason, .. } => {
                assert!(reason.contains("the token does not allow"), "{reason}");
                return false;
            }
            FromRoom::Entry(_) | FromRoom::Allowed { .. } => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
}

/// A server that takes the doctype.
pub async fn scene_with_commands() -> Scene {
    let scene = Scene::new(&["lists/a"]).await;
    deploy_with(&scene, &[], &[]).await;
    scene
}

/// The streams of a doctype [with that](handled_with), as JSON.
pub fn deployed_streams(upcasts: &[&str], project: &[&str]) -> serde_json::Value {
    let event = json!({ "fields": { "n": "integer" }, "upcast": upcasts, "project": project });
    let command = json!({ "fields": {}, "received": [], "failed": [], "retries": 0, "timeout": 0 });
    json!({ "log": { "events": { "done": event }, "commands": { "do": command } } })
}

/// Deploys the doctype [with that](handled_with).
pub async fn deploy_with(scene: &Scene, upcasts: &[&str], project: &[&str]) {
    let mut json: serde_json::Value = serde_json::from_str(&json_of(&notes())).expect("JSON");
    json["streams"] = deployed_streams(upcasts, project);
    let (root, json) = (token(ROLES[6].1), json.to_string());
    let deployed = ask(scene.at, "PUT", "/v1/doctypes/notes", Some(&root), &json).await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
}

/// What is answered to what one says who brings a mutation of this name.
pub async fn brings(client: &mut Client, name: &str, args: &[(&str, &str)], lsn: u64) -> FromRoom {
    let mut frame: WireFrame = frame_of("ada", &handled(), name, "");
    let mut mutation = Mutation::decode(&frame.body).expect("a mutation");
    let arg = |(name, text): &(&str, &str)| ((*name).to_owned(), Value::Text((*text).to_owned()));
    mutation.args = args.iter().map(arg).collect();
    frame.body = mutation.encode();
    client.frames(lsn, vec![frame]).await.expect("up");
    loop {
        match client.hear_of().await.expect("up") {
            FromRoom::Entry(_) | FromRoom::Allowed { .. } => {}
            FromRoom::Acked { next } if next.get() <= lsn => {}
            answer => return answer,
        }
    }
}

/// Goal: commands are sent by whoever may write, or may send, and a mutation of the app's own by
/// the former alone. Method: each role, and that of a reader with the grant, here and elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_sends_commands_where_it_says_so_or_may_write() {
    let scene = scene_with_commands().await;
    drop(opened(&scene, ROLES[6].1, 1).await);
    let read = ROLES[2].1;
    let sender = read.replace("}]", r#","send":true}]"#);
    let elsewhere = r#"},{"document":"other/*","role":"read","send":true}]"#;
    let elsewhere = read.replace("}]", elsewhere);
    for (number, (grants, sends, writes)) in (10..).zip([
        (read, false, false),
        (elsewhere.as_str(), false, false),
        (sender.as_str(), true, false),
        (ROLES[3].1, true, true),
        (ROLES[5].1, true, true),
    ]) {
        let mut client = opened(&scene, grants, number).await;
        let key = number.to_string();
        let args = [("stream", "a"), ("args", "{}"), ("key", key.as_str())];
        let answer = brings(&mut client, &sending("log", "do"), &args, 1).await;
        let next = if sends { 2 } else { 1 };
        let is = |answer: &FromRoom| match answer {
            FromRoom::Acked { .. } => true,
            FromRoom::Forbidden { .. } => false,
            other => panic!("{other:?}"),
        };
        assert_eq!(is(&answer), sends, "{grants}");
        if sends {
            let answer = brings(&mut client, "add", &[("id", key.as_str())], next).await;
            assert_eq!(is(&answer), writes, "{grants}");
        }
    }
    scene.stop().await;
}

/// Goal: commands are handled by whoever is let, and by nobody else, and who is not changes
/// nothing. Method: each role without the grant, and with it, for this document and for another
/// one.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_handles_commands_where_it_says_so_whatever_its_role() {
    let scene = scene_with_commands().await;
    let (_, root) = ROLES[6];
    drop(opened(&scene, root, 1).await);
    let before = scene.bytes_of(OWN).await;
    for (number, (role, grants)) in (10..).zip(ROLES.into_iter().skip(2)) {
        let mut client = opened(&scene, grants, number).await;
        assert!(!registers(&mut client).await, "{role}");
        let elsewhere = r#"{"document":"other/*","role":"admin","handle":true}]"#;
        let grants = grants.replace(']', &format!(",{elsewhere}"));
        let mut client = opened(&scene, &grants, number + 20).await;
        assert!(!registers(&mut client).await, "{role} elsewhere");
    }
    assert_eq!(scene.bytes_of(OWN).await, before, "nothing of it is in the document");
    for (number, (role, grants)) in (50..).zip(ROLES.into_iter().skip(2)) {
        let grants = grants.replace("}]", r#","handle":true}]"#);
        let mut client = opened(&scene, &grants, number).await;
        assert!(registers(&mut client).await, "{role}");
    }
    assert_ne!(scene.bytes_of(OWN).await, before);
    scene.stop().await;
}

/// Goal: who handles commands does for as long as its token says so. Method: it is renewed by one
/// with the same role that says nothing of commands.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_token_that_lets_handle_nothing_ends_that_at_once() {
    let scene = scene_with_commands().await;
    drop(opened(&scene, ROLES[6].1, 1).await);
    let reads = ROLES[2].1;
    let mut client = opened(&scene, &reads.replace("}]", r#","handle":true}]"#), 2).await;
    assert!(registers(&mut client).await);
    renewed(&mut client, &token(reads)).await;
    let hears = async {
        loop {
            match client.hear_of().await.expect("up") {
                FromRoom::NotRegistered { tag, reason } => break (tag, reason),
                FromRoom::Entry(_) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    };
    let (tag, reason) = tokio::time::timeout(ENDS_WITHIN, hears).await.expect("at once");
    assert!(tag == 1 && reason.contains("the token does not allow"), "{tag}: {reason}");
    scene.stop().await;
}
