//! Who may handle the commands of a document.

use tidelog_document::{CommandDefinition, Doctype, StreamDefinition};
use tidelog_sync::{FromRoom, ToRoom};
use tidelog_testing::server::Client;

use crate::common::{ROLES, Scene, ask, join, token};
use crate::doctypes::{json_of, notes};

const OWN: &str = "lists/handled";

fn handled() -> Doctype {
    let command = CommandDefinition {
        name: "do".to_owned(),
        fields: Vec::new(),
        received: Vec::new(),
        failed: Vec::new(),
        retries: 0,
        timeout_ms: 0,
    };
    let (name, events, commands) = ("log".to_owned(), Vec::new(), vec![command]);
    Doctype { streams: vec![StreamDefinition { name, events, commands }], ..notes() }
}

async fn opened(scene: &Scene, grants: &str, timeline: u8) -> Client {
    let mut client = join(scene.at, Some(&token(grants))).await.expect("welcome");
    client.open_as(OWN, &handled(), timeline, None).await.expect("up");
    while !matches!(client.hear_of().await.expect("up"), FromRoom::Opened { .. }) {}
    client
}

/// What becomes of one who would handle commands.
async fn registers(client: &mut Client) -> bool {
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

/// Goal: commands are handled by whoever is let, and by nobody else, and who is not changes
/// nothing. Method: each role without the grant, and with it, for this document and for another
/// one.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_handles_commands_where_it_says_so_whatever_its_role() {
    let scene = Scene::new(&["lists/a"]).await;
    let (_, root) = ROLES[6];
    let streams = r#","streams":{"log":{"events":{},"commands":{"do":{"fields":{},
        "received":[],"failed":[],"retries":0,"timeout":0}}}}}"#;
    let json = json_of(&notes());
    let json = format!("{}{streams}", json.strip_suffix('}').expect("an object"));
    let root_token = token(root);
    let deployed = ask(scene.at, "PUT", "/v1/doctypes/notes", Some(&root_token), &json).await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
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
