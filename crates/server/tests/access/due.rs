//! Who is told which documents have tasks that are due, and of which.

use std::net::SocketAddr;
use std::time::Duration;

use tidelog_document::sending;
use tidelog_sync::{FromRoom, ToRoom};
use tidelog_testing::server::{Client, PATIENCE};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::common::{ROLES, app_keys, ask, start, token, token_that_ends_in};
use crate::handling::{OWN, brings, opened, registers, scene_with_commands};

const ROOT: &str = ROLES[6].1;
/// Leave to handle the commands of these documents, and nothing else of them but to read.
const HANDLER: &str = r#"[{"document":"lists/*","role":"read","handle":true}]"#;

/// One who listens to what is due.
struct Ear {
    stream: TcpStream,
    said: String,
}

impl Ear {
    async fn new(at: SocketAddr, token: &str, documents: &str) -> Self {
        let mut stream = TcpStream::connect(at).await.expect("the server listens");
        let request = format!(
            "GET /v1/due?documents={documents} HTTP/1.1\r\nHost: {at}\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut ear = Self { stream, said: String::new() };
        // Behind the head the first line is empty, or of runs that have stopped.
        ear.hears("\r\n\r\n").await;
        assert!(ear.said.starts_with("HTTP/1.1 200"), "{}", ear.said);
        ear
    }

    /// False at the end.
    async fn hear(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let count = self.stream.read(&mut bytes).await.unwrap_or(0);
        self.said.push_str(&String::from_utf8_lossy(&bytes[..count]));
        count > 0
    }

    async fn hears(&mut self, text: &str) {
        let heard = async {
            while !self.said.contains(text) {
                assert!(self.hear().await, "it has ended: {}", self.said);
            }
        };
        if timeout(PATIENCE, heard).await.is_err() {
            panic!("{text} was not said: {}", self.said);
        }
    }

    /// All that is said in a second.
    async fn hears_for_a_second(&mut self) -> &str {
        let _ = timeout(Duration::from_secs(1), async { while self.hear().await {} }).await;
        &self.said
    }
}

fn told() -> String {
    format!(r#"{{"document":"{OWN}","due":["log"]}}"#)
}

async fn sends(client: &mut Client, key: &str, lsn: u64) {
    let args = [("stream", key), ("args", "{}"), ("key", key)];
    let answer = brings(client, &sending("log", "do"), &args, lsn).await;
    assert!(matches!(answer, FromRoom::Acked { .. }), "{answer:?}");
}

/// Goal: who may handle the commands of a document is told that it has some which nobody does, be
/// it open or closed, also by a server that began since, and that it has none any more; and nobody
/// else is, nor of others. Method: a command is sent, everybody leaves, the server begins anew, and
/// somebody comes who handles it.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_with_work_is_told_to_whoever_may_handle_it() {
    let mut scene = scene_with_commands().await;
    let mut elsewhere = {
        let grants = r#"[{"document":"*","role":"read"},
                         {"document":"other/*","role":"read","handle":true}]"#;
        Ear::new(scene.at, &token(grants), "*").await
    };
    let mut ear = Ear::new(scene.at, &token(HANDLER), "lists/*").await;
    let mut client = opened(&scene, ROOT, 1).await;
    sends(&mut client, "a", 1).await;
    ear.hears(&told()).await;
    drop((client, ear));
    // The room has heard that they are gone, and the server is stopped.
    sleep(Duration::from_millis(200)).await;
    scene.server.take().expect("it runs").stop().await;
    let server = start(scene.data.path(), app_keys()).await;
    scene.at = server.address();
    scene.server = Some(server);
    let mut ear = Ear::new(scene.at, &token(HANDLER), "lists/handled*").await;
    ear.hears(&told()).await;
    let metrics = ask(scene.at, "GET", "/metrics", None, "").await.text();
    assert!(metrics.contains("\ntidelog_rooms 0\n"), "nobody had to open it: {metrics}");
    let handler = ROOT.replace("}]", r#","handle":true}]"#);
    let mut client = opened(&scene, &handler, 2).await;
    assert!(registers(&mut client).await);
    ear.hears(&format!(r#"{{"document":"{OWN}","due":[]}}"#)).await;
    let mut ear = Ear::new(scene.at, &token(HANDLER), "*").await;
    let said = ear.hears_for_a_second().await;
    assert!(!said.contains(OWN), "it is handled: {said}");
    client.tell(ToRoom::Deregister { tag: 1 }).await.expect("up");
    ear.hears(&told()).await;
    let mut other = Ear::new(scene.at, &token(HANDLER), "lists/a*").await;
    let said = other.hears_for_a_second().await;
    assert!(!said.contains(OWN), "it is not meant: {said}");
    elsewhere.hears_for_a_second().await;
    assert!(!elsewhere.said.contains(OWN), "{}", elsewhere.said);
    scene.stop().await;
}

/// Goal: of two who listen both are told, one of them soon, and each again as long as nobody does
/// anything. Method: two ears.
#[tokio::test(flavor = "multi_thread")]
async fn everybody_who_listens_is_told() {
    let scene = scene_with_commands().await;
    let handler = token(HANDLER);
    let mut ears =
        [Ear::new(scene.at, &handler, "*").await, Ear::new(scene.at, &handler, "*").await];
    let mut client = opened(&scene, ROOT, 1).await;
    sends(&mut client, "a", 1).await;
    for ear in &mut ears {
        ear.hears(&told()).await;
        ear.said.clear();
    }
    for ear in &mut ears {
        ear.hears(&told()).await;
    }
    scene.stop().await;
}

/// Goal: nobody listens longer than its token holds, or at a server that stops. Method: one that
/// ends soon; and a server that is stopped.
#[tokio::test(flavor = "multi_thread")]
async fn listening_ends_with_the_token_and_the_server() {
    let scene = scene_with_commands().await;
    let mut short = Ear::new(scene.at, &token_that_ends_in(HANDLER, 3), "*").await;
    let mut long = Ear::new(scene.at, &token(HANDLER), "*").await;
    let ended = timeout(PATIENCE, async { while short.hear().await {} }).await;
    assert!(ended.is_ok(), "{}", short.said);
    scene.stop().await;
    let ended = timeout(PATIENCE, async { while long.hear().await {} }).await;
    assert!(ended.is_ok(), "{}", long.said);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_pattern_is_refused_and_so_is_who_may_handle_none_of_it() {
    let scene = scene_with_commands().await;
    let handler = token(HANDLER);
    for (path, status) in [
        ("/v1/due", 400),
        ("/v1/due?documents=", 400),
        ("/v1/due?documents=a*b", 400),
        ("/v1/due?documents=other/*", 403),
    ] {
        assert_eq!(ask(scene.at, "GET", path, Some(&handler), "").await.status, status, "{path}");
    }
    scene.stop().await;
}
