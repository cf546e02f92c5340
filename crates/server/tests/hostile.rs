//! Clients that want more of the server than is theirs.
//!
//! Goal: nobody makes the server hold or do more than `types/limits.rs` allows, and nobody else
//! notices. Method: the server over real sockets, where only the order of answers is looked at.
//! What shows in a room alone is in that crate's tests.

use std::path::Path;
use std::time::Duration;

use tidelog_server::{ServeSettings, Server};
use tidelog_sync::{
    ByeReason, Channel, FromRoom, FromServer, Intent, Refusal, ToRoom, ToServer, codec,
};
use tidelog_testing::Rng;
use tidelog_testing::room::{
    Copy, LIFE, burner, frame, large_seed, lsn, notes, offer_of_a_life, open,
};
use tidelog_testing::server::{Client, PATIENCE, http, settings};
use tidelog_types::limits::{
    CONNECTION_CHANNELS_MAX, CONNECTION_MESSAGES_AHEAD_MAX, CONNECTION_MESSAGES_PER_S_MAX,
    EXPORTS_MAX, HELLO_SIZE_MAX, LARGE_MESSAGES_MAX, MESSAGE_SIZE_MAX, SMALL_MESSAGE_SIZE_MAX,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

async fn start(data: &Path) -> Server {
    Server::start(&settings(data)).await.expect("a server")
}

/// V5.
#[tokio::test]
async fn one_who_hands_nothing_over_is_not_waited_for() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut ann = Client::connect(server.address()).await.expect("up");
    ann.tell(open("list", 1, offer_of_a_life())).await.expect("up");
    assert_eq!(ann.hear_of().await, Some(FromRoom::SeedWanted));
    let (_, parts) = large_seed(64);
    ann.tell(parts[0].clone()).await.expect("up");
    let mut bob = Client::connect(server.address()).await.expect("up");
    bob.tell(open("list", 2, offer_of_a_life())).await.expect("up");
    assert_eq!(bob.hear_of().await, Some(FromRoom::SeedWanted), "its turn");
    assert!(matches!(ann.hear_of().await, Some(FromRoom::SeedTaken { .. })));
    assert!(matches!(ann.hear_of().await, Some(FromRoom::Refused(Refusal::Storage { .. }))));
    for part in parts {
        bob.tell(part).await.expect("up");
    }
    let heard = async {
        loop {
            match bob.hear_of().await {
                Some(FromRoom::SeedTaken { .. }) => {}
                other => return other,
            }
        }
    };
    assert!(matches!(heard.await, Some(FromRoom::Seeded { .. })));
    server.stop().await;
}

/// V10, V18. On one thread: a room that ran there would let nothing else happen meanwhile.
#[tokio::test(flavor = "current_thread")]
async fn a_room_that_is_busy_holds_up_neither_the_server_nor_its_own_connection() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut client = Client::connect(server.address()).await.expect("up");
    client.open_as("list", &burner(), 1, None).await.expect("up");
    assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
    let burn = |number: u64| frame(&burner(), "burn", &number.to_string());
    client.frames(1, (0..4).map(burn).collect()).await.expect("up");
    client.say(&ToServer::Ping).await.expect("up");
    let (status, _) = http(server.address(), "GET", "/healthz", "").await;
    assert_eq!(status, 200);
    let mut copy = Copy::default();
    loop {
        match client.hear().await.expect("up") {
            FromServer::Pong => break,
            FromServer::About { body: FromRoom::Entry(part), .. } => copy.take(part),
            FromServer::About { body: FromRoom::Acked { .. }, .. } => {
                panic!("Ping was answered after the frames")
            }
            _ => {}
        }
    }
    client.acked(&mut copy, 5).await.expect("acknowledged");
    server.stop().await;
}

fn about(number: u32, body: ToRoom) -> ToServer {
    ToServer::About { channel: Channel(number), body }
}

fn open_burner(document: &str) -> ToRoom {
    let mut body = open(document, 1, Intent::Follow);
    if let ToRoom::Open { doctype, .. } = &mut body {
        *doctype = codec::encode(&burner()).into();
    }
    body
}

fn burn() -> ToRoom {
    let frames = vec![frame(&burner(), "burn", "x"); 3];
    ToRoom::Frames { life: LIFE, first: lsn(1), frames }
}

/// How many mutations the server has applied.
async fn applied(server: &Server) -> u32 {
    let (_, metrics) = http(server.address(), "GET", "/metrics", "").await;
    let metrics = String::from_utf8(metrics).expect("text");
    let count = metrics.lines().find_map(|it| it.strip_prefix("tidelog_mutations_applied_total "));
    count.and_then(|it| it.parse().ok()).expect("a count")
}

/// Another client opens a document of its own, and writes in it.
async fn write_in_another_one(server: &Server) {
    let mut other = Client::connect(server.address()).await.expect("up");
    other.open("list", 2, None).await.expect("up");
    assert!(matches!(other.hear_of().await, Some(FromRoom::Opened { .. })));
    other.frames(1, vec![frame(&notes(), "add", "a")]).await.expect("up");
    other.acked(&mut Copy::default(), 2).await.expect("acknowledged");
}

/// Goal: whoever is quick does not wait until each document of another client has burnt for long.
/// Method: a client has many that do, and meanwhile another one opens one and writes in it.
#[tokio::test(flavor = "multi_thread")]
async fn documents_that_burn_leave_a_thread_to_those_of_others() {
    const BURNING: u32 = 60;
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut client = Client::connect(server.address()).await.expect("up");
    for number in 0..BURNING {
        client.say(&about(number, open_burner(&number.to_string()))).await.expect("up");
    }
    for number in 0..BURNING {
        client.say(&about(number, burn())).await.expect("up");
    }
    while applied(&server).await == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    write_in_another_one(&server).await;
    let count = applied(&server).await;
    assert!(count < BURNING / 2, "{count} had burnt");
    server.stop().await;
}

/// Goal: nor until the first document of each of many clients has, of none of which anybody knows
/// that it will. Method: all of them are open, and are made to burn at once.
#[tokio::test(flavor = "multi_thread")]
async fn documents_that_burn_for_the_first_time_leave_a_thread_to_those_of_others() {
    const BURNING: u32 = 60;
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut clients = Vec::new();
    for number in 0..BURNING {
        let mut client = Client::connect(server.address()).await.expect("up");
        client.tell(open_burner(&number.to_string())).await.expect("up");
        assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
        clients.push(client);
    }
    for client in &mut clients {
        client.tell(burn()).await.expect("up");
    }
    write_in_another_one(&server).await;
    let count = applied(&server).await;
    assert!(count < BURNING / 2, "{count} had burnt");
    server.stop().await;
}

/// V12.
#[tokio::test]
async fn what_is_no_hello_is_not_taken() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut client = Client::connect_silently(server.address()).await.expect("up");
    // Where it is cut off, it may not be possible to say all of it.
    let _ = client.say_bytes(vec![0; 64 * HELLO_SIZE_MAX as usize]).await;
    assert_eq!(client.hear().await, None, "it was not even looked at");
    server.stop().await;
}

/// V13.
#[tokio::test]
async fn the_documents_of_a_connection_are_bounded() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut client = Client::connect(server.address()).await.expect("up");
    let channels_max = CONNECTION_CHANNELS_MAX as u32;
    for channel in 1..=channels_max + 1 {
        let body = open("list", 1, Intent::Follow);
        let message = ToServer::About { channel: Channel(channel), body };
        client.say(&message).await.expect("up");
    }
    let (mut opened, mut refused) = (0, Vec::new());
    while opened + refused.len() <= channels_max as usize {
        match client.hear().await.expect("up") {
            FromServer::About { body: FromRoom::Opened { .. }, .. } => opened += 1,
            FromServer::About { channel, body: FromRoom::Refused(_) } => refused.push(channel.0),
            _ => {}
        }
    }
    assert_eq!(refused, [channels_max + 1]);
    server.stop().await;
}

/// V13. An impossible name too is another one than that of the document which is open there.
#[tokio::test]
async fn a_channel_is_of_one_document() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    for name in ["other", ""] {
        let mut client = Client::connect(server.address()).await.expect("up");
        client.open("list", 1, None).await.expect("up");
        assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
        client.open(name, 1, None).await.expect("up");
        let said = loop {
            match client.hear().await {
                Some(FromServer::About { body: FromRoom::Entry(_), .. }) => {}
                said => break said,
            }
        };
        let is_bye = matches!(said, Some(FromServer::Bye { reason: ByeReason::Protocol { .. } }));
        assert!(is_bye, "{name:?}: {said:?}");
    }
    // On a channel of its own it is refused, and nothing else is.
    let mut client = Client::connect(server.address()).await.expect("up");
    client.open("", 1, None).await.expect("up");
    assert!(matches!(client.hear_of().await, Some(FromRoom::Refused(Refusal::Protocol { .. }))));
    client.open("list", 1, None).await.expect("up");
    assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
    server.stop().await;
}

/// V13.
#[tokio::test]
async fn the_documents_of_a_store_are_bounded() {
    let data = tempfile::tempdir().expect("a folder");
    let settings = ServeSettings { documents_max: 2, ..settings(data.path()) };
    let server = Server::start(&settings).await.expect("a server");
    let mut client = Client::connect(server.address()).await.expect("up");
    let mut answers = Vec::new();
    for (name, number) in ["one", "two", "three"].into_iter().zip(1..) {
        let message =
            ToServer::About { channel: Channel(number), body: open(name, 1, Intent::Follow) };
        client.say(&message).await.expect("up");
        while answers.len() < number as usize {
            match client.hear().await.expect("up") {
                FromServer::About { body: FromRoom::Opened { .. }, .. } => answers.push(None),
                FromServer::About { body: FromRoom::Refused(refusal), .. } => {
                    answers.push(Some(refusal));
                }
                _ => {}
            }
        }
    }
    let reason = "there are 2 documents, and no more may be".to_owned();
    assert_eq!(answers, [None, None, Some(Refusal::Storage { reason })]);
    // The others go on, and one that is gone makes room.
    let mut other = Client::connect(server.address()).await.expect("up");
    other.open("two", 2, None).await.expect("up");
    assert!(matches!(other.hear_of().await, Some(FromRoom::Opened { .. })));
    assert_eq!(http(server.address(), "DELETE", "/v1/documents/one", "").await.0, 204);
    let mut third = Client::connect(server.address()).await.expect("up");
    third.open("three", 3, None).await.expect("up");
    assert!(matches!(third.hear_of().await, Some(FromRoom::Opened { .. })));
    server.stop().await;
}

/// V12.
#[tokio::test]
async fn there_are_only_so_many_connections() {
    let data = tempfile::tempdir().expect("a folder");
    let settings = ServeSettings { connections_max: 2, ..settings(data.path()) };
    let server = Server::start(&settings).await.expect("a server");
    let at = server.address();
    let first = Client::connect(at).await.expect("there is room");
    // One that has not said Hello counts as well.
    let _second = Client::connect_silently(at).await.expect("there is room");
    assert!(Client::connect_silently(at).await.is_none(), "there is none");
    drop(first);
    let connected = async {
        while Client::connect_silently(at).await.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, connected).await.expect("there is room again");
    server.stop().await;
}

/// V12.
#[tokio::test(start_paused = true)]
async fn pings_do_not_renew_the_time_for_a_hello() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut client = Client::connect_silently(server.address()).await.expect("up");
    let began = Instant::now();
    while client.ping().await.is_some() {
        // The client's half hears what ends the connection.
        let next = tokio::time::timeout(Duration::from_secs(1), client.hear()).await;
        match next {
            Ok(Some(FromServer::Bye { .. }) | None) => break,
            Ok(Some(other)) => panic!("unexpected: {other:?}"),
            Err(_) => assert!(began.elapsed() < Duration::from_secs(60), "it pings for ever"),
        }
    }
    assert!(began.elapsed() >= Duration::from_secs(9), "it was given time");
    assert!(began.elapsed() < Duration::from_secs(20), "after {:?}", began.elapsed());
    server.stop().await;
}

/// V12.
#[tokio::test(start_paused = true)]
async fn a_request_that_never_ends_is_not_waited_for() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut client = TcpStream::connect(server.address()).await.expect("up");
    client.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: ").await.expect("up");
    let began = Instant::now();
    loop {
        let read = tokio::time::timeout(Duration::from_secs(1), client.read_u8());
        if read.await.is_ok_and(|read| read.is_err()) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "it goes on for ever");
        // Where it is cut off, nothing more can be said.
        let _ = client.write_all(b"x").await;
    }
    assert!(began.elapsed() >= Duration::from_secs(9), "after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(20), "after {:?}", began.elapsed());
    server.stop().await;
}

/// V12. Goal: what is half said takes only so much memory, and whoever has more to say gets to it.
/// Method: as many as may begin large messages, and do not go on; then another one says one.
#[tokio::test(start_paused = true)]
async fn only_so_many_say_a_large_message_at_once() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let part = || vec![0; 2 * SMALL_MESSAGE_SIZE_MAX as usize];
    let mut holders = Vec::new();
    for _ in 0..LARGE_MESSAGES_MAX {
        let mut holder = Client::connect(server.address()).await.expect("up");
        holder.begin_to_say(part()).await.expect("up");
        holders.push(holder);
    }
    let mut client = Client::connect(server.address()).await.expect("up");
    let began = Instant::now();
    // The transport takes some of it, and the rest as soon as the server reads it.
    let both = async { tokio::join!(client.begin_to_say(part()), holders[0].hear()) };
    let both = tokio::time::timeout(2 * PATIENCE, both).await;
    let (said, heard) = both.expect("nobody has a turn for ever");
    said.expect("its turn comes");
    assert_eq!(heard, Some(FromServer::Bye { reason: ByeReason::Slow }));
    assert!(began.elapsed() >= Duration::from_secs(30), "after {:?}", began.elapsed());
    assert_eq!(client.hear().await, Some(FromServer::Pong), "unasked, while it waited");
    server.stop().await;
}

/// V12. Goal: so is what is said behind a message that is large enough to be looked behind. Method:
/// as above, and then two messages at once, of which the second one is too long without a turn.
#[tokio::test(start_paused = true)]
async fn what_comes_early_counts_for_the_message_that_it_begins() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let size = SMALL_MESSAGE_SIZE_MAX as usize;
    let mut holders = Vec::new();
    for _ in 0..LARGE_MESSAGES_MAX {
        let mut holder = Client::connect(server.address()).await.expect("up");
        holder.begin_to_say(vec![0; 2 * size]).await.expect("up");
        holders.push(holder);
    }
    let mut client = Client::connect(server.address()).await.expect("up");
    // Of a document that it has not opened: nobody answers.
    for size in [size / 2, size + 32 * 1024] {
        let text = Rng::new(1).letters(size);
        client.frames(1, vec![frame(&notes(), "add", &text)]).await.expect("up");
    }
    client.say(&ToServer::Ping).await.expect("up");
    let began = Instant::now();
    assert_eq!(client.hear().await, Some(FromServer::Pong));
    assert!(began.elapsed() >= Duration::from_secs(5), "it comes unasked, while it waits");
    server.stop().await;
}

/// A socket that is closed with something unread takes along what was said before.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_much_on_its_way_hears_why_it_is_let_go() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let mut client = Client::connect(server.address()).await.expect("up");
    client.say_bytes(b"nonsense".to_vec()).await.expect("up");
    client.begin_to_say(vec![0; MESSAGE_SIZE_MAX / 2]).await.expect("all of it is read");
    let heard = client.hear().await;
    let is_bye = matches!(heard, Some(FromServer::Bye { reason: ByeReason::Version }));
    assert!(is_bye, "{heard:?}");
    server.stop().await;
}

/// Those that there may be at once where there are few connections.
const VISITORS: usize = 2 * EXPORTS_MAX;

/// V12.
#[tokio::test(start_paused = true)]
async fn there_are_only_so_many_connections_that_say_nothing() {
    let data = tempfile::tempdir().expect("a folder");
    let settings = ServeSettings { connections_max: 2, ..settings(data.path()) };
    let server = Server::start(&settings).await.expect("a server");
    let at = server.address();
    let _socket = Client::connect(at).await.expect("one that is upgraded is counted elsewhere");
    let began = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..VISITORS {
        silent.push(TcpStream::connect(at).await.expect("there is room"));
    }
    assert_eq!(http(at, "GET", "/healthz", "").await.0, 200, "its turn comes");
    assert!(began.elapsed() >= Duration::from_secs(9), "after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(30), "after {:?}", began.elapsed());
    server.stop().await;
}

/// V12: those who ask again and again over one connection hold no place for good.
#[tokio::test(start_paused = true)]
async fn those_who_keep_their_connections_shut_nobody_out() {
    let data = tempfile::tempdir().expect("a folder");
    let settings = ServeSettings { connections_max: 2, ..settings(data.path()) };
    let server = Server::start(&settings).await.expect("a server");
    let at = server.address();
    let mut visits = tokio::task::JoinSet::new();
    for _ in 0..VISITORS {
        let mut stream = TcpStream::connect(at).await.expect("there is room");
        visits.spawn(async move {
            let request = format!("GET /healthz HTTP/1.1\r\nHost: {at}\r\n\r\n");
            while stream.write_all(request.as_bytes()).await.is_ok() {
                let mut answer = [0; 1024];
                if stream.read(&mut answer).await.is_ok_and(|size| size == 0) {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        });
    }
    let connected = tokio::time::timeout(Duration::from_secs(30), Client::connect(at)).await;
    connected.expect("soon").expect("its turn comes");
    visits.abort_all();
    server.stop().await;
}

/// What a client says in less time than it may.
#[derive(Clone, Copy, Debug)]
enum Flood {
    Messages,
    /// Of the transport, which are no messages.
    Pings,
}

/// Goal: who says more than it may is read slower, and that is all: each message has its answer,
/// nobody is sent away, and others have theirs meanwhile. Method: all answers take at least as long
/// as the server has to wait.
#[tokio::test(flavor = "multi_thread")]
async fn who_says_much_in_little_time_is_read_slower_and_answered_all_the_same() {
    const OVER: u32 = CONNECTION_MESSAGES_PER_S_MAX;
    const COUNT: u32 = CONNECTION_MESSAGES_AHEAD_MAX + OVER;
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path()).await;
    let at = server.address();
    for flood in [Flood::Messages, Flood::Pings] {
        let began = Instant::now();
        let mut client = Client::connect(at).await.expect("up");
        let mut other = Client::connect(at).await.expect("up");
        for _ in 0..COUNT {
            match flood {
                Flood::Messages => client.say(&ToServer::Ping).await.expect("up"),
                Flood::Pings => client.ping().await.expect("up"),
            }
        }
        client.say(&ToServer::Ping).await.expect("up");
        other.say(&ToServer::Ping).await.expect("up");
        assert_eq!(other.hear().await, Some(FromServer::Pong), "{flood:?}");
        let mut answers = match flood {
            Flood::Messages => COUNT + 1,
            Flood::Pings => 1,
        };
        while answers > 0 {
            assert_eq!(client.hear().await, Some(FromServer::Pong), "{flood:?}");
            answers -= 1;
        }
        assert!(began.elapsed() >= Duration::from_secs(1), "{flood:?}: {:?}", began.elapsed());
    }
    server.stop().await;
}
