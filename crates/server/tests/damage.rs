//! A server whose log has rotted: what it still serves, what it refuses, and what it says.

use std::net::SocketAddr;
use std::path::Path;

use tidelog_document::Doctype;
use tidelog_server::Server;
use tidelog_sync::{FromRoom, Intent, Refusal, ToRoom, codec};
use tidelog_testing::room::{Copy, frame, notes};
use tidelog_testing::server::{Client, http, settings, texts};
use tidelog_types::{JournalId, Lineage};

async fn start(data: &Path) -> Server {
    Server::start(&settings(data)).await.expect("a server")
}

/// A client with these notes in a document of its own, all acknowledged.
async fn with_notes(at: SocketAddr, document: &str, timeline: u8, ids: &[&str]) -> Copy {
    let mut client = Client::connect(at).await.expect("up");
    let mut copy = Copy::default();
    client.open(document, timeline, None).await.expect("up");
    assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
    for (n, id) in (1..).zip(ids) {
        client.frames(n, vec![frame(&notes(), "add", id)]).await.expect("up");
        client.acked(&mut copy, n + 1).await.expect("acknowledged");
    }
    client.sync(&mut copy).await.expect("up");
    copy
}

/// Flips a bit of the first place in the log where `text` is.
fn flip(data: &Path, text: &str) {
    let path = data.join("log-a");
    let mut log = std::fs::read(&path).expect("a log");
    let at = log.windows(text.len()).position(|it| it == text.as_bytes()).expect("it is there");
    log[at] ^= 1;
    std::fs::write(&path, log).expect("written");
}

async fn get(at: SocketAddr, path: &str) -> (u16, String) {
    let (status, body) = http(at, "GET", path, "").await;
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// What a new connection hears when it opens the document with this copy of it.
async fn open(at: SocketAddr, document: &str, copy: &Copy) -> (Client, FromRoom) {
    let mut client = Client::connect(at).await.expect("up");
    client.open(document, 1, copy.position).await.expect("up");
    let answer = client.hear_of().await.expect("an answer");
    (client, answer)
}

const DAMAGED: FromRoom = FromRoom::Refused(Refusal::Damaged);

/// Goal: no client is sent pages that are older than what was confirmed to it, none is told that
/// its document is missing, and those of other documents go on reading. Method: a bit of an entry
/// in the middle of the log is flipped while the server is down.
#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_document_is_refused_and_the_others_are_read() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let hurt = with_notes(server.address(), "hurt", 1, &["hurt-a", "hurt-b", "hurt-c"]).await;
    let whole = with_notes(server.address(), "whole", 2, &["whole-a", "whole-b"]).await;
    server.stop().await;
    flip(data.path(), "hurt-b");
    let log = std::fs::read(data.path().join("log-a")).expect("a log");

    let server = start(data.path()).await;
    let at = server.address();
    assert_eq!(open(at, "hurt", &hurt).await.1, DAMAGED);
    assert_eq!(open(at, "hurt", &Copy::default()).await.1, DAMAGED, "nor to others");
    assert_eq!(open(at, "gone", &hurt).await.1, DAMAGED, "not: missing");
    let mut ann = Client::connect(at).await.expect("up");
    let offer = ToRoom::Open {
        document: "offered".to_owned(),
        doctype: codec::encode(&notes()).into(),
        timeline: JournalId([1; 16]),
        secret: tidelog_types::CopySecret::NONE,
        have: hurt.position,
        intent: Intent::Offer { lives: Lineage::default() },
    };
    ann.tell(offer).await.expect("up");
    assert_eq!(ann.hear_of().await, Some(DAMAGED));

    let mut read = Copy::default();
    let (mut reader, opened) = open(at, "whole", &read).await;
    assert!(matches!(opened, FromRoom::Opened { .. }), "{opened:?}");
    reader.sync(&mut read).await.expect("up");
    assert_eq!((read.position, read.image()), (whole.position, whole.image()));
    let mut writer = Client::connect(at).await.expect("up");
    writer.open("whole", 2, whole.position).await.expect("up");
    assert!(matches!(writer.hear_of().await, Some(FromRoom::Opened { .. })));
    writer.frames(3, vec![frame(&notes(), "add", "late")]).await.expect("up");
    assert_eq!(writer.hear_of().await, Some(DAMAGED));
    let newer = Doctype { migrations: [notes().migrations, vec![more()]].concat(), ..notes() };
    writer.open_as("whole", &newer, 2, whole.position).await.expect("up");
    assert_eq!(writer.hear_of().await, Some(DAMAGED), "a migration would be a write");
    reader.sync(&mut read).await.expect("who only reads stays");

    let (status, reason) = get(at, "/readyz").await;
    assert_eq!(status, 503);
    assert!(reason.contains("damaged in 1 places, and 1 documents are incomplete"), "{reason}");
    assert_eq!(get(at, "/healthz").await.0, 200, "the process is well");
    let (_, described) = get(at, "/v1/documents/hurt").await;
    assert!(described.contains(r#""state":"incomplete""#), "{described}");
    let (_, described) = get(at, "/v1/documents/whole").await;
    assert!(described.contains(r#""state":"read-only""#), "{described}");
    assert_eq!(get(at, "/v1/documents/gone").await.0, 503, "nobody knows");
    let (status, file) = http(at, "GET", "/v1/documents/hurt/export", "").await;
    assert_eq!(status, 200);
    assert_eq!(texts(&file, "select id from note"), ["hurt-a"], "as it was before");
    assert_eq!(http(at, "DELETE", "/v1/documents/hurt", "").await.0, 503);
    server.stop().await;
    assert!(std::fs::read(data.path().join("log-a")).expect("a log") == log, "nothing was written");
}

/// A server that was stopped has said at the end of its log that all of it is durable.
#[tokio::test(flavor = "multi_thread")]
async fn rot_in_the_last_batch_is_not_taken_for_a_torn_tail() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let hurt = with_notes(server.address(), "hurt", 1, &["hurt-a", "hurt-b"]).await;
    server.stop().await;
    flip(data.path(), "hurt-b");
    let server = start(data.path()).await;
    assert_eq!(open(server.address(), "hurt", &hurt).await.1, DAMAGED);
    assert_eq!(get(server.address(), "/readyz").await.0, 503);
    server.stop().await;
}

fn more() -> String {
    "create table more (id text primary key) strict".to_owned()
}

/// Goal: nobody has lost anything by having been refused. Method: the flipped bit is put back, as
/// an operator does with a folder, and the clients come again with what they had.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_goes_on_once_the_folder_is_mended() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut hurt = with_notes(server.address(), "hurt", 1, &["hurt-a", "hurt-b", "hurt-c"]).await;
    server.stop().await;
    let log = std::fs::read(data.path().join("log-a")).expect("a log");
    flip(data.path(), "hurt-b");
    let server = start(data.path()).await;
    assert_eq!(open(server.address(), "hurt", &hurt).await.1, DAMAGED);
    server.stop().await;

    std::fs::write(data.path().join("log-a"), log).expect("written");
    let server = start(data.path()).await;
    let at = server.address();
    assert_eq!(get(at, "/readyz").await.0, 200);
    let (mut client, opened) = open(at, "hurt", &hurt).await;
    match opened {
        FromRoom::Opened { storage, .. } => assert_eq!(Some(storage), hurt.position),
        other => panic!("unexpected: {other:?}"),
    }
    client.frames(4, vec![frame(&notes(), "add", "hurt-d")]).await.expect("up");
    client.acked(&mut hurt, 5).await.expect("acknowledged");
    let (_, described) = get(at, "/v1/documents/hurt").await;
    assert!(described.contains(r#""state":"whole""#), "{described}");
    server.stop().await;
}
