//! Which doctypes documents may be of, without `--dev`.

use serde_json::{Map, Value, json};
use tidelog_document::{Doctype, ParamKind};
use tidelog_sync::{FromRoom, Refusal};
use tidelog_testing::room::{Copy, frame_of};

use crate::common::{Answer, ROLES, Scene, app_keys, ask, invalid_tokens, join, start, token};

/// The doctype as `JSON.stringify` writes what `doctype` returns.
pub fn json_of(doctype: &Doctype) -> String {
    let mutation = |it: &tidelog_document::MutationDefinition| {
        let params: Map<String, Value> = it
            .params
            .iter()
            .map(|param| {
                assert_eq!(param.kind, ParamKind::Text);
                let optional = if param.optional { "?" } else { "" };
                (param.name.clone(), json!(format!("text{optional}")))
            })
            .collect();
        (it.name.clone(), json!({ "params": params, "sql": it.sql }))
    };
    let mutations: Map<String, Value> = doctype.mutations.iter().map(mutation).collect();
    let Doctype { name, migrations, .. } = doctype;
    json!({ "name": name, "migrations": migrations, "mutations": mutations }).to_string()
}

/// With its mutations sorted, as those of every client are.
fn notes() -> Doctype {
    let mut notes = tidelog_testing::room::notes();
    notes.mutations.sort_by(|one, other| one.name.cmp(&other.name));
    notes
}

fn newer() -> Doctype {
    let mut newer = notes();
    newer.migrations.push("alter table note add column done integer".to_owned());
    newer.mutations[0].sql = vec!["insert into note values (:id, 1)".to_owned()];
    newer
}

async fn deploy(scene: &Scene, name: &str, json: &str, token: Option<&str>) -> Answer {
    ask(scene.at, "PUT", &format!("/v1/doctypes/{name}"), token, json).await
}

async fn opened(scene: &Scene, document: &str, doctype: &Doctype, role: &str) -> FromRoom {
    let grants = ROLES.iter().find(|(name, _)| *name == role).expect("a role").1;
    let mut client = join(scene.at, Some(&token(grants))).await.expect("welcome");
    client.open_as(document, doctype, 5, None).await.expect("up");
    client.hear_of().await.expect("an answer")
}

fn is_opened(answer: &FromRoom) -> bool {
    matches!(answer, FromRoom::Opened { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_admin_of_the_whole_server_deploys_and_lists() {
    let scene = Scene::new(&[]).await;
    let json = json_of(&notes());
    let mut cases: Vec<_> = ROLES
        .map(|(role, grants)| (role, Some(token(grants)), if role == "root" { 201 } else { 403 }))
        .into();
    cases.extend(invalid_tokens().into_iter().map(|(what, token)| (what, token, 401)));
    for (what, token, status) in cases {
        let answer = deploy(&scene, "notes", &json, token.as_deref()).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        let listed = ask(scene.at, "GET", "/v1/doctypes", token.as_deref(), "").await;
        let expected = if status == 201 { 200 } else { status };
        assert_eq!(listed.status, expected, "{what}");
    }
    scene.stop().await;
}

/// Goal: a document is begun by a doctype that was deployed and by no other one, and the doctype
/// that clients bring is the one that was deployed. Method: a client opens before and after.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_begun_by_a_deployed_doctype_only() {
    let mut scene = Scene::new(&[]).await;
    let root = token(ROLES[6].1);
    let refused = opened(&scene, "lists/new", &notes(), "create").await;
    assert!(matches!(refused, FromRoom::Refused(Refusal::DoctypeMismatch { .. })), "{refused:?}");
    let json = json_of(&notes());
    let answer = deploy(&scene, "notes", &json, Some(&root)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let hash: String = notes().hash().0.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(body, json!({ "name": "notes", "hash": hash, "migrations": 2 }));
    assert_eq!(deploy(&scene, "notes", &json, Some(&root)).await.status, 200, "it is there");

    let refused = opened(&scene, "lists/new", &notes(), "write").await;
    assert!(matches!(refused, FromRoom::Refused(Refusal::Access { .. })), "{refused:?}");
    assert!(is_opened(&opened(&scene, "lists/new", &notes(), "create").await));
    assert!(is_opened(&opened(&scene, "lists/new", &notes(), "write").await));
    let refused = opened(&scene, "lists/newer", &newer(), "create").await;
    assert!(matches!(refused, FromRoom::Refused(Refusal::DoctypeMismatch { .. })), "{refused:?}");

    scene.server.take().expect("it runs").stop().await;
    let server = start(scene.data.path(), app_keys()).await;
    scene.at = server.address();
    scene.server = Some(server);
    assert!(is_opened(&opened(&scene, "lists/later", &notes(), "create").await), "it was kept");
    let listed = ask(scene.at, "GET", "/v1/doctypes", Some(&root), "").await;
    let listed: Value = serde_json::from_slice(&listed.body).expect("JSON");
    assert_eq!(listed, json!({ "doctypes": [body] }));
    scene.stop().await;
}

/// Goal: only a writer brings a document to a newer doctype, and only to one that was deployed.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_migrated_to_a_deployed_successor_by_a_writer_only() {
    let scene = Scene::new(&["lists/own"]).await;
    let root = token(ROLES[6].1);
    let before = scene.bytes_of("lists/own").await;
    let refused = opened(&scene, "lists/own", &newer(), "write").await;
    assert!(matches!(refused, FromRoom::Refused(Refusal::DoctypeMismatch { .. })), "{refused:?}");
    for doctype in [notes(), newer()] {
        let answer = deploy(&scene, "notes", &json_of(&doctype), Some(&root)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let mut edited = notes();
    edited.migrations[0].push_str(" -- edited");
    let answer = deploy(&scene, "notes", &json_of(&edited), Some(&root)).await;
    assert_eq!(answer.status, 409);
    assert!(answer.text().contains("migration 1 of notes"), "{}", answer.text());

    assert!(is_opened(&opened(&scene, "lists/own", &newer(), "read").await));
    assert_eq!(scene.bytes_of("lists/own").await, before, "a reader migrates nothing");
    assert!(is_opened(&opened(&scene, "lists/own", &newer(), "write").await));
    assert_ne!(scene.bytes_of("lists/own").await, before);
    // Frames of either are taken.
    let mut client = join(scene.at, Some(&token(ROLES[3].1))).await.expect("welcome");
    client.open_as("lists/own", &newer(), 6, None).await.expect("up");
    assert!(is_opened(&client.hear_of().await.expect("an answer")));
    client.frames(1, vec![frame_of("ada", &newer(), "add", "newer")]).await.expect("up");
    client.acked(&mut Copy::default(), 2).await.expect("acknowledged");
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_doctype_is_not_deployed() {
    let scene = Scene::new(&[]).await;
    let root = token(ROLES[6].1);
    let json = json_of(&notes());
    let broken = json_of(&Doctype { migrations: vec!["create nonsense".to_owned()], ..notes() });
    for (name, json) in [("notes", "{}"), ("other", json.as_str()), ("notes", broken.as_str())] {
        let answer = deploy(&scene, name, json, Some(&root)).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    let listed = ask(scene.at, "GET", "/v1/doctypes", Some(&root), "").await;
    assert_eq!(listed.text(), "{\"doctypes\":[]}");
    scene.stop().await;
}
