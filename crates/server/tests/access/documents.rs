//! Documents of a server: which there are, and new ones of files.

use std::time::Duration;

use serde_json::{Value, json};
use tidelog_document::Doctype;
use tidelog_sync::FromRoom;
use tidelog_testing::room::{Copy, frame_of};
use tidelog_testing::server::texts;
use tidelog_types::limits::{
    EXPORTS_MAX, EXPORTS_OF_SUBJECT_MAX, IMPORT_SIZE_MAX, INSTANCES_MAX, PAGE_SIZE,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{ROLES, Scene, ask, escaped, invalid_tokens, join, token, token_of_subject};
use crate::doctypes::{json_of, notes};
use crate::process::comes;

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_listed_by_prefix_and_page() {
    let names = ["a", "lists/a", "lists/b", "lists/é", "other/x"];
    let scene = Scene::new(&names).await;
    let listed = async |query: &str, role: usize| {
        let path = format!("/v1/documents{query}");
        let answer = ask(scene.at, "GET", &path, Some(&token(ROLES[role].1)), "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        (body["documents"].clone(), body["next"].clone())
    };
    let (root, read) = (6, 2);
    assert_eq!(listed("", root).await, (json!(names), Value::Null));
    assert_eq!(listed("", read).await.0, json!(["lists/a", "lists/b", "lists/é"]));
    assert_eq!(listed("?prefix=lists%2F", root).await.0, json!(["lists/a", "lists/b", "lists/é"]));
    assert_eq!(listed("?prefix=o", read).await.0, json!([]), "what it may not read");
    assert_eq!(listed("?limit=2", root).await, (json!(["a", "lists/a"]), json!("lists/a")));
    let second = listed("?limit=2&after=lists%2Fa", root).await;
    assert_eq!(second, (json!(["lists/b", "lists/é"]), json!("lists/é")));
    let third = listed("?limit=2&after=lists%2F%C3%A9", root).await;
    assert_eq!(third, (json!(["other/x"]), Value::Null));
    // A page is of what may be read: that it ends is no word of what is behind it.
    assert_eq!(listed("?limit=3", read).await.1, Value::Null);
    let first = listed("?prefix=lists%2F&limit=1", read).await;
    assert_eq!(first, (json!(["lists/a"]), json!("lists/a")));
    for wrong in ["?limit=x", "?limit=-1", "?limit=0", "?perfix=a"] {
        let path = format!("/v1/documents{wrong}");
        let answer = ask(scene.at, "GET", &path, Some(&token(ROLES[6].1)), "").await;
        assert_eq!(answer.status, 400, "{wrong}");
    }
    scene.stop().await;
}

/// Sends bytes over HTTP, under this size.
pub async fn put_as(
    scene: &Scene,
    path: &str,
    token: Option<&str>,
    size: u64,
    body: &[u8],
) -> String {
    let mut stream = TcpStream::connect(scene.at).await.expect("the server listens");
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let (token, at) = (token.unwrap_or_default(), scene.at);
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Length: {size}\r\n\
         {token}\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    // It may answer before it has read all.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.strip_prefix("HTTP/1.1 ").expect("an answer").to_owned()
}

async fn import(scene: &Scene, document: &str, role: usize, file: &[u8]) -> String {
    let path = format!("/v1/documents/{}?doctype=notes", escaped(document));
    put_as(scene, &path, Some(&token(ROLES[role].1)), file.len() as u64, file).await
}

pub async fn deploy(scene: &Scene, doctype: &Doctype) {
    let root = token(ROLES[6].1);
    let answer = ask(scene.at, "PUT", "/v1/doctypes/notes", Some(&root), &json_of(doctype)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
}

/// The file as it is after this.
pub fn changed(file: &[u8], sql: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("changed.sqlite");
    std::fs::write(&path, file).expect("written");
    let database = rusqlite::Connection::open(&path).expect("a database");
    database.execute_batch(sql).expect("it runs");
    drop(database);
    std::fs::read(&path).expect("a file")
}

/// Places in [`ROLES`].
const ADMIN: usize = 5;
const ROOT: usize = 6;

/// Goal: what was exported becomes a document again, whoever has changed its rows meanwhile, and
/// goes on as any other. Method: a client writes in it afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_becomes_a_document_that_clients_go_on_with() {
    let scene = Scene::new(&["lists/own"]).await;
    deploy(&scene, &notes()).await;
    let file = scene.bytes_of("lists/own").await;
    let answer = import(&scene, "lists/copy", ADMIN, &file).await;
    assert!(answer.starts_with("201 "), "{answer}");
    assert!(scene.bytes_of("lists/copy").await == file, "byte for byte");
    let more = "with recursive n(i) as (values (1) union all select i + 1 from n where i < 3000)
                insert into log (id) select hex(zeroblob(500)) || i from n;
                insert into note values ('by hand')";
    let answer = import(&scene, "lists/large", ADMIN, &changed(&file, more)).await;
    assert!(answer.starts_with("201 "), "{answer}");

    let mut client = join(scene.at, Some(&token(ROLES[3].1))).await.expect("welcome");
    client.open_as("lists/large", &notes(), 5, None).await.expect("up");
    assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
    client.frames(1, vec![frame_of("ada", &notes(), "add", "by a client")]).await.expect("up");
    let mut copy = Copy::default();
    client.acked(&mut copy, 2).await.expect("up");
    client.sync(&mut copy).await.expect("up");
    let titles = texts(&copy.image(), "select id from note order by id");
    assert_eq!(titles, ["by a client", "by hand", "first"]);
    assert_eq!(texts(&copy.image(), "select count(*) || '' from log"), ["3000"]);

    // One of an older release is migrated.
    let mut newer = notes();
    newer.migrations.push("create table done (id text) strict".to_owned());
    deploy(&scene, &newer).await;
    let answer = import(&scene, "lists/older", ADMIN, &file).await;
    assert!(answer.starts_with("201 "), "{answer}");
    let tables = "select name from sqlite_schema where name = 'done'";
    assert_eq!(texts(&scene.bytes_of("lists/older").await, tables), ["done"]);
    scene.stop().await;
}

/// Goal: nobody keeps all others from exports, imports and lists. Method: one sends as many files
/// as there may be of all, and does not end them; then somebody else asks, and then they end.
#[tokio::test(flavor = "multi_thread")]
async fn one_subject_does_not_take_all_turns_to_export_and_import() {
    let scene = Scene::new(&["lists/own"]).await;
    deploy(&scene, &notes()).await;
    let file = scene.bytes_of("lists/own").await;
    let [ada, bob] = ["ada", "bob"].map(|subject| token_of_subject(subject, ROLES[ADMIN].1));
    let mut streams = Vec::new();
    for number in 0..EXPORTS_MAX {
        let mut stream = TcpStream::connect(scene.at).await.expect("the server listens");
        let head = format!(
            "PUT /v1/documents/lists%2F{number}?doctype=notes HTTP/1.1\r\nHost: localhost\r\n\
             Connection: close\r\nContent-Length: {}\r\nAuthorization: Bearer {ada}\r\n\r\n",
            file.len()
        );
        let begin = [head.as_bytes(), &file[..file.len() - 1]].concat();
        stream.write_all(&begin).await.expect("sent");
        streams.push(stream);
    }
    let lists =
        async |token: &str| ask(scene.at, "GET", "/v1/documents", Some(token), "").await.status;
    // All of them have come by then: who looks takes a turn for that.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(lists(&ada).await, 503, "she has taken what she may");
    assert_eq!(lists(&bob).await, 200);
    let export = "/v1/documents/lists%2Fown/export";
    for (token, expected) in [(&ada, 503), (&bob, 200)] {
        assert_eq!(ask(scene.at, "GET", export, Some(token), "").await.status, expected);
    }
    let mut answers = Vec::new();
    for mut stream in streams {
        // Some were refused before they said all of it.
        let _ = stream.write_all(&file[file.len() - 1..]).await;
        let mut answer = vec![0; 12];
        let _ = stream.read_exact(&mut answer).await;
        answers.push(String::from_utf8_lossy(&answer[9..]).into_owned());
    }
    let made = answers.iter().filter(|it| *it == "201").count();
    assert_eq!(made, EXPORTS_OF_SUBJECT_MAX, "{answers:?}");
    assert!(comes(async || lists(&ada).await == 200).await, "they are given back");
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_admin_makes_a_document_of_a_file_and_none_over_another() {
    let scene = Scene::new(&["lists/own"]).await;
    deploy(&scene, &notes()).await;
    let file = scene.bytes_of("lists/own").await;
    let before = ask(scene.at, "GET", "/v1/documents", Some(&token(ROLES[ROOT].1)), "").await;
    for (role, status) in [(0, "404 "), (1, "404 "), (2, "403 "), (3, "403 "), (4, "403 ")] {
        let answer = import(&scene, "lists/new", role, &file).await;
        assert!(answer.starts_with(status), "{}: {answer}", ROLES[role].0);
    }
    for (what, token) in invalid_tokens() {
        let path = "/v1/documents/lists%2Fnew?doctype=notes";
        let answer = put_as(&scene, path, token.as_deref(), file.len() as u64, &file).await;
        assert!(answer.starts_with("401 "), "{what}: {answer}");
    }
    let other = changed(&file, "insert into note values ('another')");
    let answer = import(&scene, "lists/own", ROOT, &other).await;
    assert!(answer.starts_with("409 "), "{answer}");
    assert!(scene.bytes_of("lists/own").await == file);
    let after = ask(scene.at, "GET", "/v1/documents", Some(&token(ROLES[ROOT].1)), "").await;
    assert_eq!(after, before);
    for role in [ADMIN, ROOT] {
        let answer = import(&scene, &format!("lists/{role}"), role, &file).await;
        assert!(answer.starts_with("201 "), "{answer}");
    }
    scene.stop().await;
}

/// V13. Goal: whoever follows a document does not have the server keep more handlers of its tasks
/// than there may be. Method: files that have as many, and one more.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_which_more_handle_tasks_than_may_is_refused() {
    let (scene, _client, _handler) = crate::operator::stage(1).await;
    let own = scene.bytes_of(crate::handling::OWN).await;
    for (count, expected) in [(INSTANCES_MAX, "201"), (INSTANCES_MAX + 1, "400")] {
        let file = changed(
            &own,
            &format!(
                "delete from _tidelog_instance;
                 with recursive number (n) as
                     (select 1 union all select n + 1 from number where n < {count})
                 insert into _tidelog_instance select n, zeroblob(16), '', 0 from number"
            ),
        );
        let path = format!("/v1/documents/{}?doctype=notes", escaped(&format!("own/{count}")));
        let made = put_as(&scene, &path, Some(&token(ROLES[6].1)), file.len() as u64, &file).await;
        assert!(made.starts_with(expected), "{count}: {made}");
    }
    scene.stop().await;
}

/// Goal: nothing becomes a document that is none of the doctype, and it is said why. Method: files
/// of which each is wrong in one way.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_document_of_the_doctype_is_refused_with_the_reason() {
    let scene = Scene::new(&["lists/own"]).await;
    deploy(&scene, &notes()).await;
    let file = scene.bytes_of("lists/own").await;
    let plain = changed(b"", "create table note (id text primary key) strict");
    let mut torn = file.clone();
    torn[PAGE_SIZE..2 * PAGE_SIZE].fill(0xff);
    let mut in_wal_mode = file.clone();
    in_wal_mode[18..20].fill(2);
    let cases: [(Vec<u8>, &str); 11] = [
        (Vec::new(), "no SQLite file"),
        (b"sesame".repeat(1000), "no SQLite file"),
        (file[..file.len() - 1].to_vec(), "amid a page"),
        (file[..file.len() - PAGE_SIZE].to_vec(), "a seed"),
        (torn, "a seed"),
        (changed(&file, "pragma page_size = 512; vacuum"), "512 bytes"),
        (in_wal_mode, "WAL"),
        (changed(&file, "create index by_id on log (id)"), "index by_id is too much"),
        (changed(&file, "drop table note"), "table note is not there"),
        (
            changed(&file, "drop table note; create table note (id text) strict"),
            "table note is not there, or another one",
        ),
        (plain, "export has written"),
    ];
    for (file, reason) in cases {
        let answer = import(&scene, "lists/new", ADMIN, &file).await;
        assert!(answer.starts_with("400 ") && answer.contains(reason), "{reason}: {answer}");
    }
    let root = token(ROLES[ROOT].1);
    for query in ["", "?doctype=absent", "?doctype=notes&more=1"] {
        let path = format!("/v1/documents/lists%2Fnew{query}");
        let answer = put_as(&scene, &path, Some(&root), file.len() as u64, &file).await;
        assert!(answer.starts_with("400 "), "{query}: {answer}");
    }
    let path = "/v1/documents/lists%2Fnew?doctype=notes";
    let answer = put_as(&scene, path, Some(&root), IMPORT_SIZE_MAX + 1, b"").await;
    assert!(answer.starts_with("413 "), "{answer}");
    let there = ask(scene.at, "GET", "/v1/documents/lists%2Fnew", Some(&root), "").await;
    assert_eq!(there.status, 404, "{}", there.text());
    assert!(import(&scene, "lists/new", ADMIN, &file).await.starts_with("201 "), "and a right one");
    scene.stop().await;
}
