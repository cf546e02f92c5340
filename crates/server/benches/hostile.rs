//! How much memory clients can make a server take that want more than is theirs.
//!
//! Run by hand: `cargo bench -p tidelog-server --bench hostile -- [NAME]`. Of each attack it says
//! what the process had before it, at most meanwhile, and a minute after, in MiB; and how long
//! `/healthz` took while rooms were busy. If one of the goals is missed, it fails.
//!
//! A server that has just started is no measure of one at rest: whoever comes first has it map the
//! parts of the binary that serve clients, begin its threads and open its files, all of which stay
//! and none of which comes twice. So before an attack a client does what clients do and leaves, and
//! *idle* is what the process has when it has closed its rooms. What it had when it listened is
//! printed too.

use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use tidelog_sync::{
    Channel, CodedPage, FromRoom, Intent, PageCoding, ToRoom, ToServer, WireFrame, codec,
};
use tidelog_testing::room::{Copy, burner, frame, lsn, notes};
use tidelog_testing::server::{Client, Process, http};
use tidelog_types::limits::{LSN_MAX, MESSAGE_FRAMES_MAX};
use tidelog_types::{CallId, JournalId, Life, Lineage, Lsn, Page, Pgid, Position};

/// The binary.
const TIDELOG: &str = env!("CARGO_BIN_EXE_tidelog");

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// After which time a server that nobody uses is idle: it has closed its rooms.
const IDLE_AFTER: Duration = Duration::from_secs(75);
/// How long after an attack it is to be as it was.
const CALM: Duration = Duration::from_secs(60);

/// KiB that a server may have above idle during an attack.
const ABOVE_IDLE_MAX: u64 = 64 * 1024;
/// The same a minute after it, of what it has idle: one in so many.
const LEFT_PART_MAX: u64 = 10;
/// How long `/healthz` may take.
const HEALTH_TAKES: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|it| it == name);
    let mut missed = Vec::new();
    if is_wanted("frames") {
        missed.extend(run("frames", |_| async {}, frames).await.missed());
    }
    if is_wanted("readers") {
        missed.extend(run("readers", write_much, readers).await.missed());
    }
    if is_wanted("seed") {
        missed.extend(run("seed", |_| async {}, seed).await.missed());
    }
    if is_wanted("export") {
        missed.extend(run("export", write_much, export).await.missed());
    }
    if is_wanted("crowd") {
        missed.extend(run("crowd", documents_of_crowd, crowd).await.missed());
    }
    if is_wanted("rooms") {
        let most = run("rooms", |_| async {}, rooms).await.value;
        missed.extend((most > HEALTH_TAKES).then(|| format!("rooms: /healthz took {most:?}")));
    }
    if is_wanted("documents") {
        // What stays of documents is theirs: there is no goal but what the numbers say.
        run("documents", |_| async {}, documents).await;
    }
    if missed.is_empty() {
        println!("all goals are met");
        return ExitCode::SUCCESS;
    }
    println!("missed:\n{}", missed.join("\n"));
    ExitCode::FAILURE
}

/// What an attack gave, and the KiB that the process had.
struct Measured<T> {
    name: &'static str,
    value: T,
    idle: u64,
    most: u64,
    after: u64,
}

impl<T> Measured<T> {
    /// Which goals it missed.
    fn missed(&self) -> Vec<String> {
        let Self { name, idle, most, after, .. } = self;
        let above = (*most > idle + ABOVE_IDLE_MAX)
            .then(|| format!("{name}: {} MiB above idle", mib(most - idle)));
        let left = (*after > idle + idle / LEFT_PART_MAX)
            .then(|| format!("{name}: {} MiB are left a minute after", mib(after - idle)));
        above.into_iter().chain(left).collect()
    }
}

/// Runs an attack on a server of its own.
async fn run<P: Future<Output = ()>, A: Future<Output = T>, T>(
    name: &'static str,
    prepare: impl FnOnce(SocketAddr) -> P,
    attack: impl FnOnce(SocketAddr) -> A,
) -> Measured<T> {
    let data = tempfile::tempdir().expect("a folder");
    Process::start(TIDELOG, data.path()).terminate();
    let process = Process::start(TIDELOG, data.path());
    let id = process.id();
    let fresh = memory(id);
    ordinary_client(process.address).await;
    prepare(process.address).await;
    tokio::time::sleep(IDLE_AFTER).await;
    let idle = memory(id);
    let (most, ended) = (Arc::new(AtomicU64::new(idle)), Arc::new(AtomicBool::new(false)));
    let looker = std::thread::spawn({
        let (most, ended) = (Arc::clone(&most), Arc::clone(&ended));
        move || {
            while !ended.load(Ordering::Relaxed) {
                most.fetch_max(memory(id), Ordering::Relaxed);
                std::thread::sleep(LOOK_EVERY);
            }
        }
    });
    let value = attack(process.address).await;
    ended.store(true, Ordering::Relaxed);
    looker.join().expect("it only looks");
    let most = most.load(Ordering::Relaxed);
    tokio::time::sleep(CALM).await;
    let after = memory(id);
    let [fresh_mib, idle_mib, most_mib, after_mib] = [fresh, idle, most, after].map(mib);
    println!("{name}: {fresh_mib} MiB when it listened, {idle_mib} idle");
    println!("{name}: {most_mib} MiB at most, {after_mib} a minute after");
    let (_, metrics) = http(process.address, "GET", "/metrics", "").await;
    let metrics = String::from_utf8(metrics).expect("text");
    let left = metrics.lines().filter(|line| {
        line.starts_with("tidelog_rooms ") || line.starts_with("tidelog_connections ")
    });
    println!("{name}: left are {}", left.collect::<Vec<_>>().join(", "));
    assert_eq!(process.terminate(), Some(0));
    Measured { name, value, idle, most, after }
}

/// What a server has in memory, in KiB.
fn memory(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.expect("Linux says it")
}

fn mib(kib: u64) -> String {
    format!("{:.1}", kib as f64 / 1024.0)
}

/// Writes a little, follows, looks at the document as a file, and leaves.
async fn ordinary_client(at: SocketAddr) {
    let mut client = Client::connect(at).await.expect("up");
    opened(&mut client, "ordinary").await;
    let mut copy = Copy::default();
    for number in 1..=20 {
        let name = if number % 5 == 0 { "bulk" } else { "log" };
        client.frames(number, vec![frame(&notes(), name, "x")]).await.expect("up");
        client.acked(&mut copy, number + 1).await.expect("up");
    }
    client.sync(&mut copy).await.expect("up");
    let (status, file) = http(at, "GET", "/v1/documents/ordinary/export", "").await;
    assert!(status == 200 && file == copy.image(), "the same bytes on both sides");
}

async fn opened(client: &mut Client, document: &str) {
    client.open(document, 1, None).await.expect("up");
    while !matches!(client.hear_of().await.expect("up"), FromRoom::Opened { .. }) {}
}

fn open(intent: Intent) -> ToRoom {
    ToRoom::Open {
        document: "list".to_owned(),
        doctype: codec::encode(&notes()).into(),
        timeline: JournalId([7; 16]),
        secret: tidelog_types::CopySecret::NONE,
        have: None,
        intent,
    }
}

/// V3: many frames in few messages: none of them a mutation, then all of them.
async fn frames(at: SocketAddr) {
    let mut client = Client::connect(at).await.expect("up");
    opened(&mut client, "list").await;
    let empty = WireFrame { call: CallId([0; 16]), body: Vec::new(), predicted: None };
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
        let pages = (1..=64).map(|number| CodedPage {
            pgid: Pgid(part * 64 + number),
            coding: PageCoding::Whole(Page::zeroed()),
        });
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
async fn rooms(at: SocketAddr) -> Duration {
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
    took[199]
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
                doctype: codec::encode(&notes()).into(),
                timeline: JournalId([7; 16]),
                secret: tidelog_types::CopySecret::NONE,
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

/// Documents that a crowd opens, and that stay when it has left.
const CROWD_DOCUMENTS: u32 = 300;

async fn documents_of_crowd(at: SocketAddr) {
    let mut client = Client::connect(at).await.expect("up");
    for number in 0..CROWD_DOCUMENTS {
        opened(&mut client, &format!("list {number}")).await;
        client.tell(ToRoom::Close).await.expect("up");
    }
}

/// V19: connections that come, open a document each tenth time, and leave.
async fn crowd(at: SocketAddr) {
    let mut clients = Vec::new();
    for number in 0..10 * CROWD_DOCUMENTS {
        let Some(mut client) = Client::connect(at).await else { break };
        if number % 10 == 0 {
            opened(&mut client, &format!("list {}", number / 10)).await;
        }
        clients.push(client);
    }
    println!("crowd: {} connections", clients.len());
    tokio::time::sleep(Duration::from_secs(2)).await;
}
