//! The server over a real socket.

use std::net::SocketAddr;
use std::path::Path;

use tidelog_document::Doctype;
use tidelog_server::{ServeSettings, Server};
use tidelog_sync::{
    ByeReason, Channel, FromRoom, FromServer, Intent, OpenDoctype, PROTOCOL_VERSION, Refusal,
    ToRoom, ToServer, codec, encode_message,
};
use tidelog_testing::Rng;
use tidelog_testing::room::{Copy, frame, lsn, notes};
use tidelog_testing::server::{Client, http, settings, texts};
use tidelog_types::{ClientId, JournalId, Life, Position};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn start(data: &Path) -> Server {
    Server::start(&settings(data)).await.expect("a server")
}

async fn opened(client: &mut Client, copy: &Copy, timeline: u8) -> (Position, u64) {
    client.open("list", timeline, copy.position).await.expect("connected");
    match client.hear_of().await.expect("an answer") {
        FromRoom::Opened { storage, wanted, .. } => (storage, wanted.get()),
        other => panic!("unexpected: {other:?}"),
    }
}

async fn refusal(client: &mut Client) -> Refusal {
    match client.hear_of().await.expect("an answer") {
        FromRoom::Refused(refusal) => refusal,
        other => panic!("unexpected: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mutation_reaches_a_second_client_and_survives_a_restart() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let (mut ann, mut anns) =
        (Client::connect(server.address()).await.expect("up"), Copy::default());
    let (mut bob, mut bobs) =
        (Client::connect(server.address()).await.expect("up"), Copy::default());
    assert_eq!(opened(&mut ann, &anns, 1).await.1, 1);
    opened(&mut bob, &bobs, 2).await;
    let doctype = notes();
    let frames = vec![frame(&doctype, "add", "a"), frame(&doctype, "add", "b")];
    ann.frames(1, frames.clone()).await.expect("up");
    ann.acked(&mut anns, 3).await.expect("acknowledged");
    // Sent twice, applied once.
    ann.frames(1, frames).await.expect("up");
    ann.acked(&mut anns, 3).await.expect("acknowledged again");
    bob.sync(&mut bobs).await.expect("up");
    ann.sync(&mut anns).await.expect("up");
    assert_eq!(anns.position, bobs.position);
    assert_eq!(texts(&bobs.image(), "select id from note order by id"), ["a", "b"]);
    let (_, metrics) = http(server.address(), "GET", "/metrics", "").await;
    let metrics = String::from_utf8(metrics).expect("text");
    let counted = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|count| count.trim().parse::<u64>().ok()).expect("a number")
    };
    assert_eq!(counted("tidelog_confirm_seconds_count"), 2);
    assert!(counted("tidelog_flush_seconds_count") >= 2);
    assert!(counted("tidelog_step_seconds_count") >= 5);

    server.stop().await;
    assert_eq!(bob.hear().await, Some(FromServer::Bye { reason: ByeReason::Shutdown }));
    let server = start(data.path()).await;
    let mut ann = Client::connect(server.address()).await.expect("up");
    let (storage, wanted) = opened(&mut ann, &anns, 1).await;
    assert_eq!((Some(storage), wanted), (anns.position, 3));
    let (status, file) = http(server.address(), "GET", "/v1/documents/list/export", "").await;
    assert_eq!(status, 200);
    assert!(file == bobs.image(), "the same bytes on both sides");
    server.stop().await;
}

/// Goal: frames that had arrived are applied, though their client was killed. Method: several say
/// something large, and go away at once.
#[tokio::test(flavor = "multi_thread")]
async fn what_arrived_whole_is_heard_however_soon_its_client_goes_away() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let doctype = notes();
    for timeline in 1..=8 {
        let mut client = Client::connect(server.address()).await.expect("up");
        let mut copy = Copy::default();
        opened(&mut client, &copy, timeline).await;
        // With something unread the system would drop what is on its way.
        client.sync(&mut copy).await.expect("up");
        let id = format!("{timeline}{}", Rng::new(timeline.into()).letters(100_000));
        let (life, frames) = (Life([timeline; 16]), vec![frame(&doctype, "add", &id)]);
        let said = ToRoom::Frames { life, first: lsn(1), frames };
        client.tell_and_leave(said).await.expect("up");
    }
    let mut client = Client::connect(server.address()).await.expect("up");
    let mut copy = Copy::default();
    opened(&mut client, &copy, 9).await;
    client.frames(1, vec![frame(&doctype, "add", "last")]).await.expect("up");
    client.acked(&mut copy, 2).await.expect("acknowledged");
    client.sync(&mut copy).await.expect("up");
    let firsts = texts(&copy.image(), "select substr(id, 1, 1) from note order by id");
    assert_eq!(firsts, ["1", "2", "3", "4", "5", "6", "7", "8", "l"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_version_is_answered_in_ours() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut client = Client::connect_silently(server.address()).await.expect("up");
    let mut hello = encode_message(&ToServer::Hello { client: ClientId([1; 16]), token: None });
    hello[..2].copy_from_slice(&(PROTOCOL_VERSION + 1).to_le_bytes());
    client.say_bytes(hello).await.expect("up");
    assert_eq!(client.hear().await, Some(FromServer::Bye { reason: ByeReason::Version }));
    assert_eq!(client.hear().await, None);

    let mut client = Client::connect_silently(server.address()).await.expect("up");
    client.say(&ToServer::Ping).await.expect("up");
    assert!(matches!(
        client.hear().await,
        Some(FromServer::Bye { reason: ByeReason::Protocol { .. } })
    ));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_deleted_behind_a_client_is_told_and_changes_nothing() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut client = Client::connect(server.address()).await.expect("up");
    let mut copy = Copy::default();
    opened(&mut client, &copy, 1).await;
    client.sync(&mut copy).await.expect("up");
    server.stop().await;

    let empty = tempfile::tempdir().expect("a folder");
    let server = start(empty.path()).await;
    let mut client = Client::connect(server.address()).await.expect("up");
    client.open("list", 1, copy.position).await.expect("up");
    assert_eq!(refusal(&mut client).await, Refusal::Missing);
    let (_, list) = http(server.address(), "GET", "/v1/documents", "").await;
    assert_eq!(String::from_utf8_lossy(&list), "{\"documents\":[]}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_deleted_by_the_operator_is_missing_to_its_clients() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut client = Client::connect(server.address()).await.expect("up");
    let mut copy = Copy::default();
    opened(&mut client, &copy, 1).await;
    client.sync(&mut copy).await.expect("up");
    let (status, text) = http(server.address(), "GET", "/v1/documents/list", "").await;
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(status, 200);
    assert!(text.contains("\"doctype\":\"notes\"") && text.contains("\"clients\":1"), "{text}");
    let (status, _) = http(server.address(), "DELETE", "/v1/documents/list", "").await;
    assert_eq!(status, 204);
    assert_eq!(refusal(&mut client).await, Refusal::Missing);
    let (status, _) = http(server.address(), "GET", "/v1/documents/list/export", "").await;
    assert_eq!(status, 404);
    server.stop().await;
}

fn named() -> OpenDoctype {
    OpenDoctype::Named(notes().hash().0)
}

fn open_by(doctype: OpenDoctype) -> ToRoom {
    ToRoom::Open {
        document: "list".to_owned(),
        doctype,
        timeline: JournalId([1; 16]),
        secret: tidelog_types::CopySecret::NONE,
        have: None,
        intent: Intent::Follow,
    }
}

/// Goal: a server is brought no doctype that it has, and each one that it has not. Method: one
/// names a doctype, brings it and names it again, also after a restart; then the server comes back
/// with an empty folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_doctype_is_wanted_once_and_again_by_a_server_that_has_lost_it() {
    let (first, second) = (tempfile::tempdir(), tempfile::tempdir());
    let (first, second) = (first.expect("a folder"), second.expect("a folder"));
    for (data, is_known) in [(&first, false), (&first, true), (&second, false)] {
        let server = start(data.path()).await;
        let mut client = Client::connect(server.address()).await.expect("up");
        client.tell(open_by(named())).await.expect("up");
        if !is_known {
            assert_eq!(refusal(&mut client).await, Refusal::DoctypeWanted);
            client.tell(open_by(codec::encode(&notes()).into())).await.expect("up");
        }
        let answer = client.hear_of().await;
        assert!(matches!(answer, Some(FromRoom::Opened { .. })), "{is_known}: {answer:?}");
        let mut other = Client::connect(server.address()).await.expect("up");
        other.tell(open_by(named())).await.expect("up");
        assert!(matches!(other.hear_of().await, Some(FromRoom::Opened { .. })));
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_doctypes_of_one_name_need_one_to_succeed_the_other() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut old = Client::connect(server.address()).await.expect("up");
    let mut copy = Copy::default();
    opened(&mut old, &copy, 1).await;

    let mut other = notes();
    other.migrations[1].push_str(" -- another one");
    let mut client = Client::connect(server.address()).await.expect("up");
    client.open_as("list", &other, 2, None).await.expect("up");
    assert!(matches!(refusal(&mut client).await, Refusal::DoctypeMismatch { .. }));

    let mut newer = notes();
    newer.migrations.push("alter table note add column done integer".to_owned());
    newer.mutations[0].sql = vec!["insert into note values (:id, 1)".to_owned()];
    client.open_as("list", &newer, 2, None).await.expect("up");
    assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
    let mut theirs = Copy::default();
    client.frames(1, vec![frame(&newer, "add", "b")]).await.expect("up");
    client.acked(&mut theirs, 2).await.expect("up");
    // What the older one inserts has the columns that it knows.
    let doctype = notes();
    let frames = vec![frame(&doctype, "add", "a"), frame(&doctype, "log", "a")];
    old.frames(1, frames).await.expect("up");
    old.acked(&mut copy, 3).await.expect("up");
    old.sync(&mut copy).await.expect("up");
    assert_eq!(texts(&copy.image(), "select id from note"), ["a", "b"]);
    assert_eq!(texts(&copy.image(), "select id from log"), ["a"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_nobody_up() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut slow = Client::connect(server.address()).await.expect("up");
    slow.open("list", 2, None).await.expect("up");
    let mut ann = Client::connect(server.address()).await.expect("up");
    let mut copy = Copy::default();
    opened(&mut ann, &copy, 1).await;
    let doctype = notes();
    // Some 60 MB in memory, and 10 MB on the way: far more than a follower is sent ahead, and than
    // the socket's buffers.
    let mut rng = Rng::new(1);
    for number in 1..=50 {
        let (name, id) = match number % 2 {
            0 => ("bulk", "x".to_owned()),
            _ => ("log", rng.letters(400_000)),
        };
        ann.frames(number, vec![frame(&doctype, name, &id)]).await.expect("up");
        ann.acked(&mut copy, number + 1).await.expect("up");
    }
    let mut late = Copy::default();
    assert!(matches!(slow.hear_of().await, Some(FromRoom::Opened { .. })));
    slow.sync(&mut late).await.expect("it may come back late");
    ann.sync(&mut copy).await.expect("up");
    assert!(late.image() == copy.image());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_dev_a_client_without_a_valid_token_is_refused() {
    let data = tempfile::tempdir().expect("a folder");
    let settings = ServeSettings { dev: false, ..settings(data.path()) };
    let server = Server::start(&settings).await.expect("a server");
    let mut client = Client::connect_silently(server.address()).await.expect("up");
    let hello = ToServer::Hello { client: ClientId([1; 16]), token: Some("x".to_owned()) };
    client.say(&hello).await.expect("up");
    let bye = FromServer::Bye { reason: ByeReason::Unauthenticated };
    assert_eq!(client.hear().await, Some(bye));
    let (status, _) = http(server.address(), "GET", "/v1/documents", "").await;
    assert_eq!(status, 401);
    server.stop().await;
}

/// The status of what is asked of the server by that name.
async fn http_of(at: SocketAddr, host: &str, path: &str) -> u16 {
    let mut stream = TcpStream::connect(at).await.expect("the server listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    answer.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_development_server_answers_pages_of_this_machine_only() {
    let data = tempfile::tempdir().expect("a folder");
    let examples = tempfile::tempdir().expect("a folder");
    let dist = examples.path().join("todo").join("dist");
    std::fs::create_dir_all(&dist).expect("a folder");
    std::fs::write(dist.join("index.html"), "the todo app").expect("written");
    std::fs::write(dist.join("core.wasm"), "\0asm").expect("written");
    let settings =
        ServeSettings { serve: Some(examples.path().to_owned()), ..settings(data.path()) };
    let server = Server::start(&settings).await.expect("a server");
    let at = server.address();
    let elsewhere = "Origin: https://example.org\r\n";
    let here = "Origin: http://localhost:5173\r\n";
    for path in ["/v1/documents", "/healthz", "/readyz", "/metrics", "/", "/todo/"] {
        assert_eq!(http(at, "GET", path, here).await.0, 200, "{path}");
        assert_eq!(http(at, "GET", path, elsewhere).await.0, 403, "{path}");
        // By a name that was made to point here.
        assert_eq!(http_of(at, "example.org", path).await, 403, "{path}");
    }
    let hello = ToServer::Hello { client: ClientId([1; 16]), token: None };
    let elsewhere = [("Origin", "https://example.org"), ("Host", "example.org")];
    for (header, is_served) in elsewhere
        .map(|it| (it, false))
        .into_iter()
        .chain([(("Origin", "http://localhost:5173"), true), (("Host", "localhost:8787"), true)])
    {
        let mut client = Client::connect_with(at, &[header]).await.expect("up");
        client.say(&hello).await.expect("up");
        let refused = FromServer::Bye { reason: ByeReason::Origin };
        let said = if is_served { FromServer::Welcome } else { refused };
        assert_eq!(client.hear().await, Some(said), "{header:?}");
    }

    let index = http(at, "GET", "/", "").await;
    assert!(String::from_utf8_lossy(&index.1).contains("href=\"/todo/\""));
    assert_eq!(http(at, "GET", "/todo/", "").await, (200, b"the todo app".to_vec()));
    assert_eq!(http(at, "GET", "/todo/core.wasm", "").await.0, 200);
    assert_eq!(http(at, "GET", "/todo", "").await.0, 308);
    assert_eq!(http(at, "GET", "/todo/../../secret", "").await.0, 404);
    assert_eq!(http(at, "GET", "/healthz", "").await.0, 200);
    assert_eq!(http(at, "GET", "/readyz", "").await.0, 200);
    let metrics = http(at, "GET", "/metrics", "").await.1;
    assert!(String::from_utf8_lossy(&metrics).contains("tidelog_connections 0"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_follows_many_documents() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut client = Client::connect(server.address()).await.expect("up");
    for channel in (1..=20).map(Channel) {
        let open = ToRoom::Open {
            document: format!("list {}", channel.0),
            doctype: tidelog_sync::codec::encode(&notes()).into(),
            timeline: JournalId([1; 16]),
            secret: tidelog_types::CopySecret::NONE,
            have: None,
            intent: tidelog_sync::Intent::Follow,
        };
        client.say(&ToServer::About { channel, body: open }).await.expect("up");
        let (life, frames) = (Life([1; 16]), vec![frame(&notes(), "add", "a")]);
        let body = ToRoom::Frames { life, first: lsn(1), frames };
        client.say(&ToServer::About { channel, body }).await.expect("up");
    }
    let mut acked = 0;
    while acked < 20 {
        if let FromRoom::Acked { next } = client.hear_of().await.expect("up") {
            assert_eq!(next, lsn(2));
            acked += 1;
        }
    }
    client.tell(ToRoom::Close).await.expect("up");
    client.say(&ToServer::Ping).await.expect("up");
    while client.hear().await.expect("up") != FromServer::Pong {}
    server.stop().await;
}

/// What is exported while others write is a state that the document had.
#[tokio::test]
async fn a_document_is_exported_whole_while_others_write() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let at = server.address();
    let (status, _) = http(at, "GET", "/v1/documents/list/export", "").await;
    assert_eq!(status, 404);
    let mut client = Client::connect(at).await.expect("up");
    client.open("list", 1, None).await.expect("up");
    assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
    let mut copy = Copy::default();
    client.frames(1, vec![frame(&notes(), "bulk", "x")]).await.expect("up");
    client.acked(&mut copy, 2).await.expect("up");
    let writes = tokio::spawn(async move {
        for number in 2..=60 {
            client.frames(number, vec![frame(&notes(), "touch", "y")]).await.expect("up");
            client.acked(&mut copy, number + 1).await.expect("up");
        }
    });
    for _ in 0..10 {
        let (status, file) = http(at, "GET", "/v1/documents/list/export", "").await;
        assert_eq!(status, 200);
        assert_eq!(texts(&file, "select count(distinct substr(id, -60)) || '' from log"), ["1"]);
        assert_eq!(texts(&file, "pragma integrity_check"), ["ok"]);
    }
    writes.await.expect("it wrote");
    server.stop().await;
}

/// V23. Who has to bring its doctype is not kept out.
#[tokio::test]
async fn what_goes_wrong_is_counted() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut client = Client::connect(server.address()).await.expect("up");
    client.tell(open_by(named())).await.expect("up");
    assert_eq!(refusal(&mut client).await, Refusal::DoctypeWanted);
    let broken = Doctype { migrations: vec!["create nonsense".to_owned()], ..notes() };
    client.open_as("list", &broken, 1, None).await.expect("up");
    assert!(matches!(client.hear_of().await, Some(FromRoom::Refused(_))));
    client.say_bytes(vec![1, 0, 9, 9, 9, 9]).await.expect("up");
    assert!(matches!(client.hear().await, Some(FromServer::Bye { .. })));
    assert_eq!(client.hear().await, None);
    let (_, metrics) = http(server.address(), "GET", "/metrics", "").await;
    let metrics = String::from_utf8(metrics).expect("text");
    for line in [
        "tidelog_refusals_total 1",
        "tidelog_byes_total 1",
        "tidelog_room_panics_total 0",
        "tidelog_closes_total{reason=\"protocol\"} 1",
        "tidelog_closes_total{reason=\"gone\"} 0",
        "tidelog_outbox_bytes 0",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} in {metrics}");
    }
    server.stop().await;
}
