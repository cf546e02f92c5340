//! How much memory clients can make a server take that want more than is theirs.
//!
//! Run by hand: `cargo bench -p tidelog-server --bench hostile -- [NAME]`. For each attack of
//! `tests/hostile.rs` that is about memory: what the process had before it, at most meanwhile, and
//! a minute after it, in MiB. And how long `/healthz` takes while rooms are busy.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use tidelog_sync::{Channel, FromRoom, Intent, ToRoom, ToServer, WireFrame, codec};
use tidelog_testing::room::{Copy, burner, frame, lsn, notes};
use tidelog_testing::server::{Client, Process, http};
use tidelog_types::limits::{LSN_MAX, MESSAGE_FRAMES_MAX};
use tidelog_types::{CallId, JournalId, Life, Lineage, Lsn, Page, Pgid, Position};

/// The binary.
const TIDELOG: &str = env!("CARGO_BIN_EXE_tidelog");

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// After which time it is to be as it was.
const CALM: Duration = Duration::from_secs(75);

#[tokio::main]
async fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|it| it == name);
    if is_wanted("frames") {
        run("frames", |_| async {}, frames).await;
    }
    if is_wanted("readers") {
        run("readers", write_much, readers).await;
    }
    if is_wanted("seed") {
        run("seed", |_| async {}, seed).await;
    }
    if is_wanted("rooms") {
        run("rooms", |_| async {}, rooms).await;
    }
    if is_wanted("export") {
        run("export", write_much, export).await;
    }
    if is_wanted("documents") {
        run("documents", |_| async {}, documents).await;
    }
    if is_wanted("crowd") {
        run("crowd", |_| async {}, crowd).await;
    }
}

/// Runs an attack on a server of its own.
async fn run<P: Future<Output = ()>, A: Future<Output = ()>>(
    name: &str,
    prepare: impl FnOnce(SocketAddr) -> P,
    attack: impl FnOnce(SocketAddr) -> A,
) {
    let data = tempfile::tempdir().expect("a folder");
    Process::start(TIDELOG, data.path()).terminate();
    let process = Process::start(TIDELOG, data.path());
    prepare(process.address).await;
    let id = process.id();
    let before = memory_mib(id);
    let (most, ended) = (Arc::new(AtomicU64::new(before)), Arc::new(AtomicBool::new(false)));
    let looker = std::thread::spawn({
        let (most, ended) = (Arc::clone(&most), Arc::clone(&ended));
        move || {
            while !ended.load(Ordering::Relaxed) {
                most.fetch_max(memory_mib(id), Ordering::Relaxed);
                std::thread::sleep(LOOK_EVERY);
            }
        }
    });
    attack(process.address).await;
    ended.store(true, Ordering::Relaxed);
    looker.join().expect("it only looks");
    let most = most.load(Ordering::Relaxed);
    let end = memory_mib(id);
    tokio::time::sleep(CALM).await;
    let after = memory_mib(id);
    let (_, metrics) = http(process.address, "GET", "/metrics", "").await;
    let metrics = String::from_utf8(metrics).expect("text");
    let left = metrics.lines().filter(|line| {
        line.starts_with("tidelog_rooms ") || line.starts_with("tidelog_connections ")
    });
    println!("{name}: left are {}", left.collect::<Vec<_>>().join(", "));
    println!("{name}: {before} MiB before, {most} at most, {end} at the end, {after} in calm");
    assert_eq!(process.terminate(), Some(0));
}

fn memory_mib(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

async fn opened(client: &mut Client, document: &str) {
    client.open(document, 1, None).await.expect("up");
    while !matches!(client.hear_of().await.expect("up"), FromRoom::Opened { .. }) {}
}

fn open(intent: Intent) -> ToRoom {
    ToRoom::Open {
        document: "list".to_owned(),
        doctype: codec::encode(&notes()),
        timeline: JournalId([7; 16]),
        have: None,
        intent,
    }
}

/// V3: many frames in few messages: none of them a mutation, then all of them.
async fn frames(at: SocketAddr) {
    let mut client = Client::connect(at).await.expect("up");
    opened(&mut client, "list").await;
    let empty = WireFrame { call: CallId([0; 16]), body: Vec::new() };
    let mut copy = Copy::default();
    let mut first = 1;
    for _ in 0..2 {
        client.frames(first, vec![empty.clone(); MESSAGE_FRAMES_MAX / 16]).await.expect("up");
        first += (MESSAGE_FRAMES_MAX / 16) as u64;
    }
    let tiny = frame(&notes(), "log", "x");
    client.frames(first, vec![tiny; MESSAGE_FRAMES_MAX / 16]).await.expect("up");
    first += (MESSAGE_FRAMES_MAX / 16) as u64;
    client.acked(&mut copy, first).await.expect("up");
    // More than there may be: the connection ends, before there is room for all of them.
    let _ = client.frames(first, vec![empty; 1_000_000]).await;
    while client.hear().await.is_some() {}
}

async fn write_much(at: SocketAddr) {
    let mut client = Client::connect(at).await.expect("up");
    opened(&mut client, "list").await;
    let mut copy = Copy::default();
    for number in 1..=100 {
        let bulk = frame(&notes(), "bulk", &number.to_string());
        client.frames(number, vec![bulk]).await.expect("up");
        client.acked(&mut copy, number + 1).await.expect("up");
    }
}

/// V4: clients that never read, and say that they have everything.
async fn readers(at: SocketAddr) {
    let mut silent = Vec::new();
    for channels in [1, 1, 1, 1, 1, 12] {
        let mut client = Client::connect(at).await.expect("up");
        for channel in 1..=channels {
            let channel = Channel(channel);
            let body = open(Intent::Follow);
            client.say(&ToServer::About { channel, body }).await.expect("up");
            let next = Lsn::new(LSN_MAX).expect("an LSN");
            for _ in 0..20 {
                let body = ToRoom::Received { next };
                client.say(&ToServer::About { channel, body }).await.expect("up");
            }
        }
        silent.push(client);
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
}

/// V5: a local document without an end.
async fn seed(at: SocketAddr) {
    let mut client = Client::connect(at).await.expect("up");
    client.tell(open(Intent::Offer { lives: Lineage::default() })).await.expect("up");
    for part in 0..2_000 {
        let pages = (1..=64).map(|number| (Pgid(part * 64 + number), Page::zeroed()).into());
        let part = ToRoom::Seed {
            position: Position { next: lsn(2), ..Position::start_of(JournalId([9; 16])) },
            db_pages: 131_072,
            pages: pages.collect(),
            last: false,
        };
        if client.tell(part).await.is_none() {
            break;
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
}

/// V10: many documents whose rooms have work for long. How long does `/healthz` take meanwhile?
async fn rooms(at: SocketAddr) {
    let mut clients = Vec::new();
    for number in 0..64 {
        let mut client = Client::connect(at).await.expect("up");
        client.open_as(&format!("list {number}"), &burner(), 1, None).await.expect("up");
        while !matches!(client.hear_of().await.expect("up"), FromRoom::Opened { .. }) {}
        clients.push(client);
    }
    for client in &mut clients {
        let burn = |number: u64| frame(&burner(), "burn", &number.to_string());
        client.frames(1, (0..200).map(burn).collect()).await.expect("up");
    }
    let mut took = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        assert_eq!(http(at, "GET", "/healthz", "").await.0, 200);
        took.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    took.sort();
    println!("rooms: /healthz took {:?} at the median, {:?} at most", took[100], took[199]);
}

/// V19: a document as a file, four times at once.
async fn export(at: SocketAddr) {
    let files = (0..4).map(|_| tokio::spawn(http(at, "GET", "/v1/documents/list/export", "")));
    for file in join_all(files).await {
        let (status, file) = file.expect("it came");
        println!("export: status {status}, {} MiB", file.len() >> 20);
    }
}

/// V13: many documents, in each of which something happens again and again.
async fn documents(at: SocketAddr) {
    const CONNECTIONS: u32 = 20;
    const CHANNELS: u32 = 1_000;
    let clients = (0..CONNECTIONS).map(|conn| async move {
        let mut client = Client::connect(at).await.expect("up");
        for channel in (1..=CHANNELS).map(Channel) {
            let body = ToRoom::Open {
                document: format!("list {conn} {}", channel.0),
                doctype: codec::encode(&notes()),
                timeline: JournalId([7; 16]),
                have: None,
                intent: Intent::Follow,
            };
            client.say(&ToServer::About { channel, body }).await.expect("up");
            while !matches!(
                client.hear_of().await.expect("up"),
                FromRoom::Entry(_) | FromRoom::Refused(_)
            ) {}
        }
        for number in 1..=3 {
            for channel in (1..=CHANNELS).map(Channel) {
                let frames = vec![frame(&notes(), "log", "x")];
                let body = ToRoom::Frames { life: Life::NONE, first: lsn(number), frames };
                client.say(&ToServer::About { channel, body }).await.expect("up");
            }
            let mut acked = 0;
            while acked < CHANNELS {
                let heard = client.hear_of().await.expect("up");
                acked += u32::from(matches!(heard, FromRoom::Acked { .. }));
            }
        }
        client
    });
    let clients = join_all(clients.map(tokio::spawn)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop(clients);
}

/// V19: connections that come, open a document of their own each tenth time, and leave.
async fn crowd(at: SocketAddr) {
    let mut clients = Vec::new();
    for number in 0..3_000 {
        let Some(mut client) = Client::connect(at).await else { break };
        if number % 10 == 0 {
            opened(&mut client, &format!("list {number}")).await;
        }
        clients.push(client);
    }
    println!("crowd: {} connections", clients.len());
    tokio::time::sleep(Duration::from_secs(2)).await;
}
