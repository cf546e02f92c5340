//! What a server knows beside its documents: its own secret, what was revoked, what was deployed.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tidelog_access::Role;
use tidelog_server::Server;
use tidelog_testing::server::{PATIENCE, command};

use crate::common::{ROLES, ask, start, token, token_of_subject, with_passwords};
use crate::doctypes::{json_of, notes};

const TIDELOG: &str = env!("CARGO_BIN_EXE_tidelog");

/// A token of a login.
async fn log_in(server: &Server) -> String {
    let body = json!({ "user": "admin", "password": "a" }).to_string();
    let answer = ask(server.address(), "POST", "/v1/login", None, &body).await;
    let answer: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    answer["token"].as_str().expect("a token").to_owned()
}

/// What it comes to if a server is started in this folder. One that runs is killed.
fn started(data: &Path) -> Output {
    let mut command = command(TIDELOG);
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data);
    command.env("TIDELOG_ADMIN_PASSWORD", "a").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let began = Instant::now();
    while child.try_wait().expect("it is ours").is_none() && began.elapsed() < PATIENCE / 3 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    child.wait_with_output().expect("it has ended")
}

/// A file in another place for as long as this is there.
struct Aside<'p> {
    path: &'p Path,
    whole: Vec<u8>,
}

impl<'p> Aside<'p> {
    fn put(path: &'p Path) -> Self {
        let whole = std::fs::read(path).expect("it is there");
        std::fs::remove_file(path).expect("it is there");
        Self { path, whole }
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        match self.path.is_dir() {
            true => std::fs::remove_dir(self.path).expect("it is empty"),
            false => std::fs::remove_file(self.path).expect("it is there"),
        }
        std::fs::write(self.path, &self.whole).expect("written");
    }
}

/// Goal: a server that cannot read what it knows does not begin as one that never knew: it would
/// end every login, let in again whoever was locked out, or refuse every app. Method: each of the
/// files torn, cut off, unreadable, or with what a later release may have put there; then as it
/// was.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_read_what_it_knows_does_not_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let access = || with_passwords(&[(Role::Admin, "a")]);
    let root = token(ROLES[6].1);
    let eve = token_of_subject("eve", ROLES[6].1);
    let server = start(&data, access()).await;
    let at = server.address();
    let login = log_in(&server).await;
    let asks = async |method: &str, path: &str, token: &str, body: &str| {
        ask(at, method, path, Some(token), body).await.status
    };
    assert_eq!(asks("PUT", "/v1/doctypes/notes", &root, &json_of(&notes())).await, 201);
    assert_eq!(asks("POST", "/v1/revoke", &root, "{\"subject\":\"eve\"}").await, 204);
    server.stop().await;

    let mut doctypes = std::fs::read_dir(data.join("doctypes")).expect("a folder");
    let doctype = doctypes.next().expect("one").expect("a file").path();
    let files: [PathBuf; 3] = [data.join("access.json"), data.join("revocations.json"), doctype];
    for path in &files {
        let name = path.file_name().and_then(|it| it.to_str()).expect("a text");
        let aside = Aside::put(path);
        let whole = String::from_utf8(aside.whole.clone()).expect("a text");
        let newer = whole.replacen('{', "{\"later\":{\"x\":1},", 1);
        let half = whole[..whole.len() / 2].to_owned();
        for odd in [String::new(), half, "null".to_owned(), "{}".to_owned(), newer] {
            std::fs::write(path, &odd).expect("written");
            let output = started(&data);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{name} of {odd}: {said}");
            assert!(said.contains(name), "{said}");
            assert!(!said.contains(&whole[10..40]), "it is not quoted: {said}");
            assert!(output.stdout.is_empty(), "nobody was let in");
            assert_eq!(std::fs::read_to_string(path).expect("a text"), odd, "it is left alone");
        }
        std::fs::remove_file(path).expect("it is there");
        std::fs::create_dir(path).expect("what no file is, as one that cannot be read");
        let output = started(&data);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(said.contains(name), "{said}");
    }

    let server = start(&data, access()).await;
    let asks = async |path: &str, token: &str| {
        let answer = ask(server.address(), "GET", path, Some(token), "").await;
        (answer.status, answer.text())
    };
    assert_eq!(asks("/v1/documents", &login).await.0, 200, "logins hold");
    assert_eq!(asks("/v1/documents", &eve).await.0, 401, "and so does what was revoked");
    assert!(asks("/v1/doctypes", &root).await.1.contains("\"notes\""), "and what was deployed");
    server.stop().await;
}

/// Goal: what cannot be written down is answered so, and nothing has changed. Method: folders stand
/// in the places of the files.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_cannot_write_down_has_not_happened() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let server = start(&data, with_passwords(&[(Role::Admin, "a")])).await;
    let (root, eve) = (token(ROLES[6].1), token_of_subject("eve", ROLES[6].1));
    let asks = async |method: &str, path: &str, token: &str, body: &str| {
        ask(server.address(), method, path, Some(token), body).await.status
    };
    let (revocations, doctypes) = (data.join("revocations.json"), data.join("doctypes"));
    std::fs::create_dir(&revocations).expect("in its place");
    std::fs::write(&doctypes, "").expect("in its place");
    let json = json_of(&notes());
    assert_eq!(asks("POST", "/v1/revoke", &root, "{\"subject\":\"eve\"}").await, 503);
    assert_eq!(asks("GET", "/v1/documents", &eve, "").await, 200);
    assert_eq!(asks("PUT", "/v1/doctypes/notes", &root, &json).await, 503);
    let listed = ask(server.address(), "GET", "/v1/doctypes", Some(&root), "").await;
    assert_eq!(listed.text(), "{\"doctypes\":[]}");
    std::fs::remove_dir(&revocations).expect("away");
    std::fs::remove_file(&doctypes).expect("away");
    assert_eq!(asks("POST", "/v1/revoke", &root, "{\"subject\":\"eve\"}").await, 204);
    assert_eq!(asks("GET", "/v1/documents", &eve, "").await, 401);
    assert_eq!(asks("PUT", "/v1/doctypes/notes", &root, &json).await, 201);
    server.stop().await;
}
