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
pub fn notes() -> Doctype {
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

/// What the documents of the scene, which have the note `first`, cannot be migrated to.
fn impossible() -> Doctype {
    let mut impossible = notes();
    impossible.migrations.push("insert into note select 'first'".to_owned());
    impossible
}

/// Goal: a doctype that is only tried changes nothing, and is told to be wrong where it is. Method:
/// of three documents of an older one, one has a row that is in the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_doctype_is_tried_on_all_documents_and_changes_none() {
    let scene = Scene::new(&["lists/a", "lists/b"]).await;
    let root = token(ROLES[6].1);
    assert_eq!(deploy(&scene, "notes", &json_of(&notes()), Some(&root)).await.status, 201);
    assert!(is_opened(&opened(&scene, "lists/free", &notes(), "create").await));
    let other = Doctype { name: "others".to_owned(), ..notes() };
    assert_eq!(deploy(&scene, "others", &json_of(&other), Some(&root)).await.status, 201);
    assert!(is_opened(&opened(&scene, "lists/other", &other, "create").await));
    let documents = ["lists/a", "lists/b", "lists/free", "lists/other"];
    let bytes = async || {
        let mut all = Vec::new();
        for document in documents {
            all.push(scene.bytes_of(document).await);
        }
        all
    };
    let before = bytes().await;
    let [impossible, newer] = [impossible(), newer()].map(|it| json_of(&it));
    let tried = async |json: &str, query: &str| {
        let path = format!("notes?check{query}");
        let answer = deploy(&scene, &path, json, Some(&root)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice::<Value>(&answer.body).expect("JSON")
    };
    let failing = |answer: &Value| {
        let failures = answer["failures"].as_array().expect("a list").iter();
        failures.map(|it| it["document"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    let answer = tried(&impossible, "").await;
    assert_eq!((&answer["tried"], &answer["next"]), (&json!(3), &Value::Null), "{answer}");
    assert_eq!(failing(&answer), ["lists/a", "lists/b"]);
    let reason = answer["failures"][0]["reason"].as_str().expect("a text");
    assert!(reason.contains("UNIQUE constraint failed: note.id"), "{reason}");
    assert_eq!(failing(&tried(&impossible, "&after=lists%2Fa").await), ["lists/b"]);
    let answer = tried(&newer, "").await;
    assert_eq!((&answer["tried"], failing(&answer)), (&json!(3), Vec::new()), "{answer}");
    assert!(bytes().await == before, "nothing has changed");
    let listed = ask(scene.at, "GET", "/v1/doctypes", Some(&root), "").await;
    assert!(listed.text().matches("\"name\"").count() == 2, "{}", listed.text());
    let refused = opened(&scene, "lists/free", &self::newer(), "write").await;
    assert!(matches!(refused, FromRoom::Refused(Refusal::DoctypeMismatch { .. })), "{refused:?}");

    // What could not even be deployed is not tried, and only an admin tries.
    let answer = deploy(&scene, "notes?check", "{}", Some(&root)).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let admin = token(ROLES[5].1);
    assert_eq!(deploy(&scene, "notes?check", &newer, Some(&admin)).await.status, 403);
    assert_eq!(deploy(&scene, "notes?chekc", &newer, Some(&root)).await.status, 400);
    scene.stop().await;
}

/// Goal: a document whose migration fails goes on as it was, and is told of once. Method: clients
/// open it by a deployed doctype that it cannot have, and by the one that it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_cannot_be_migrated_stays_as_it_was() {
    let scene = Scene::new(&["lists/own"]).await;
    let root = token(ROLES[6].1);
    for doctype in [notes(), impossible()] {
        let answer = deploy(&scene, "notes", &json_of(&doctype), Some(&root)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let before = scene.bytes_of("lists/own").await;
    for _ in 0..3 {
        let refused = opened(&scene, "lists/own", &impossible(), "write").await;
        let FromRoom::Refused(Refusal::DoctypeInvalid { reason }) = refused else {
            panic!("{refused:?}")
        };
        assert!(reason.contains("UNIQUE constraint failed"), "{reason}");
    }
    assert!(scene.bytes_of("lists/own").await == before);
    assert!(is_opened(&opened(&scene, "lists/own", &notes(), "write").await));
    let metrics = ask(scene.at, "GET", "/metrics", None, "").await.text();
    assert!(metrics.contains("\ntidelog_migrations_failed_total 3\n"), "{metrics}");
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_doctype_of_a_name_is_given_as_it_was_sent() {
    let scene = Scene::new(&[]).await;
    let root = token(ROLES[6].1);
    let name = "a doctype/é?";
    let [older, newer] = [notes(), newer()].map(|it| Doctype { name: name.to_owned(), ..it });
    let path = "a%20doctype%2F%C3%A9%3F";
    for doctype in [&older, &newer] {
        let answer = deploy(&scene, path, &json_of(doctype), Some(&root)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let get = async |path: &str, token: &str| {
        ask(scene.at, "GET", &format!("/v1/doctypes/{path}"), Some(token), "").await
    };
    let given = get(path, &root).await;
    assert_eq!(given.header("content-type").as_deref(), Some("application/json"));
    let expected: Value = serde_json::from_str(&json_of(&newer)).expect("JSON");
    assert_eq!(serde_json::from_slice::<Value>(&given.body).expect("JSON"), expected);
    let again = deploy(&scene, path, &given.text(), Some(&root)).await;
    assert_eq!(again.status, 200, "it is the same: {}", again.text());
    assert_eq!(get("absent", &root).await.status, 404);
    assert_eq!(get(path, &token(ROLES[5].1)).await.status, 403);
    scene.stop().await;
}
