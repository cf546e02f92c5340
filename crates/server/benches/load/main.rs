//! How much a server does, and how quickly, beside what nobody can do without.
//!
//! Run by hand: `cargo bench -p tidelog-server --bench load -- [NAME ..]`, on a machine that does
//! nothing else, where a process may have some twenty thousand files open; `npm run bench` runs
//! `mutations`, `relay`, `catch-up` and `memory`. The clients are this process, which shares the
//! processors with the server: what each of them takes is printed. Whoever disturbs them is a
//! process of its own, which gets what they leave: elsewhere it has a machine of its own. So is a
//! relay that the server is compared with.
//! Figures of one run are compared with each other and with the goals, and nothing fails.
//!
//! `TIDELOG_LOAD_PART=50` has a fiftieth of the crowds and counts, to see that a measure works.
//! `--json` says the figures to `npm run bench` as well.

mod appends;
mod crowds;
mod disturbed;
mod outside;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use tidelog_sync::{FromRoom, FromServer, ToRoom, encode_message};
use tidelog_testing::figure;
use tidelog_testing::room::{frame, notes};
use tidelog_testing::server::{Client, Process};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::outside::{Outside, ROLE};

/// What the relay is called among the [roles](ROLE).
const RELAY: &str = "relay";

/// The binary.
const TIDELOG: &str = env!("CARGO_BIN_EXE_tidelog");

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    if let Some(role) = args.next().and_then(|it| it.strip_prefix(ROLE).map(str::to_owned)) {
        let at = args.next().unwrap_or_default();
        return match role.as_str() {
            RELAY => relays(Path::new(&at)).await,
            disturbed::BARE => disturbed::bare().await,
            _ => disturbed::disturb(&role, at.parse().expect("an address")).await,
        };
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|it| it == name);
    if is_wanted("mutations") {
        for (in_flight, goal) in [(1, 25_000), (4, 40_000)] {
            mutations(in_flight, goal).await;
        }
    }
    if is_wanted("appends") {
        for writers in [1, 16, 256] {
            appends::appends(writers).await;
        }
    }
    if is_wanted("relay") {
        relay().await;
    }
    if is_wanted("catch-up") {
        catch_up().await;
    }
    if is_wanted("memory") {
        memory().await;
    }
    if is_wanted("half-open") {
        disturbed::beside_half_open().await;
    }
    if is_wanted("logins") {
        disturbed::beside_logins().await;
    }
    if is_wanted("renewals") {
        disturbed::beside_renewals().await;
    }
    if is_wanted("flood") {
        disturbed::beside_flood().await;
    }
    if is_wanted("backup") {
        disturbed::backup().await;
    }
    if is_wanted("tokens") {
        crowds::tokens().await;
    }
    if is_wanted("presence") {
        crowds::presence().await;
    }
}

/// So many, or the part of them that was asked for.
fn scaled(count: usize) -> usize {
    let part = std::env::var("TIDELOG_LOAD_PART").ok().and_then(|part| part.parse().ok());
    (count / part.unwrap_or(1)).max(1)
}

/// A server of its own, with its data in a folder that goes with it.
fn started() -> (Process, tempfile::TempDir) {
    let data = tempfile::tempdir().expect("a folder");
    (Process::start(TIDELOG, data.path()), data)
}

async fn following(at: SocketAddr, document: &str, timeline: u8) -> Client {
    let mut client = Client::connect(at).await.expect("up");
    client.open(document, timeline, None).await.expect("up");
    while !matches!(client.hear_of().await.expect("up"), FromRoom::Opened { .. }) {}
    client
}

/// Durable mutations a second in a thousand documents, each with its client.
async fn mutations(in_flight: u64, goal: u64) {
    const WARM_UP: Duration = Duration::from_secs(3);
    const MEASURED: Duration = Duration::from_secs(10);
    let documents = scaled(1_000);
    let (server, _data) = started();
    let (acked, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut clients = Vec::new();
    for number in 0..documents {
        clients.push(following(server.address, &format!("list {number}"), 1).await);
    }
    // Only now: who comes to a server that is busy waits for long.
    let writing = clients.into_iter().map(|client| {
        tokio::spawn(writes(client, in_flight, Arc::clone(&acked), Arc::clone(&is_over)))
    });
    let clients: Vec<_> = writing.collect();
    let [rate, ours, theirs] = measured(&server, &acked, WARM_UP, MEASURED).await;
    is_over.store(true, Ordering::Relaxed);
    println!(
        "mutations, {in_flight} in flight in each of {documents} documents: {rate:.0} a second \
         (goal {goal}); {ours:.0} % of a processor for the clients, {theirs:.0} % for the server"
    );
    let measure = format!("mutations, {in_flight} in flight");
    figure::say(&measure, "a second", rate);
    figure::say(&measure, "% of a processor for the clients", ours);
    figure::say(&measure, "% of a processor for the server", theirs);
    join_all(clients).await;
}

/// How many were acknowledged a second, once warm, and what the clients and the server took for it,
/// in hundredths of a processor.
async fn measured(
    server: &Process,
    acked: &AtomicU64,
    warm_up: Duration,
    lasts: Duration,
) -> [f64; 3] {
    tokio::time::sleep(warm_up).await;
    let processes = [std::process::id(), server.id()];
    let before = processes.map(processor_ms);
    let (count, began) = (acked.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(lasts).await;
    let (took, count) = (began.elapsed(), acked.load(Ordering::Relaxed) - count);
    let after = processes.map(processor_ms);
    let [ours, theirs] = [0, 1].map(|it| share(after[it] - before[it], took) as f64);
    [count as f64 / took.as_secs_f64(), ours, theirs]
}

/// Writes rows until told that it is over, so many of them unacknowledged at once.
async fn writes(
    mut client: Client,
    in_flight: u64,
    acked: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
) -> Option<()> {
    let row = frame(&notes(), "log", "a row of some twenty bytes");
    let (mut sent, mut done) = (0, 0);
    while !is_over.load(Ordering::Relaxed) {
        while sent < done + in_flight {
            sent += 1;
            client.frames(sent, vec![row.clone()]).await?;
        }
        match client.hear_of().await? {
            FromRoom::Acked { next } => {
                let news = (next.get() - 1).saturating_sub(done);
                acked.fetch_add(news, Ordering::Relaxed);
                done += news;
            }
            FromRoom::Entry(part) if part.is_last => {
                client.tell(ToRoom::Received { next: part.position.next }).await?;
            }
            _ => {}
        }
    }
    Some(())
}

/// From one client through the server to another one, beside a relay that writes what it hands on
/// to a file and flushes it.
async fn relay() {
    let count = scaled(2_000) as u64;
    let (server, data) = started();
    let mut from = following(server.address, "list", 1).await;
    let mut to = following(server.address, "list", 2).await;
    let row = frame(&notes(), "log", "a row of some twenty bytes");
    let mut took = Vec::new();
    for number in 1..=count {
        let began = Instant::now();
        from.frames(number, vec![row.clone()]).await.expect("up");
        let part = loop {
            if let FromRoom::Entry(part) = to.hear_of().await.expect("up")
                && part.origin.is_some()
            {
                break part;
            }
        };
        took.push(began.elapsed());
        to.tell(ToRoom::Received { next: part.position.next }).await.expect("up");
        loop {
            if let FromRoom::Acked { next } = from.hear_of().await.expect("up")
                && next.get() > number
            {
                break;
            }
        }
        from.tell(ToRoom::Received { next: part.position.next }).await.expect("up");
    }
    let ours = percentiles(took);
    let file = data.path().join("relay");
    let mut outside = Outside::start(RELAY, file.to_str().expect("text"), false);
    let address = outside.says().await.parse().expect("an address");
    let (mut from, mut to) = (connected(address).await, connected(address).await);
    let mut took = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        from.send(Message::Binary(vec![7; 220].into())).await.expect("up");
        to.next().await.expect("up").expect("up");
        took.push(began.elapsed());
    }
    let bare = percentiles(took);
    for (nth, name, goal) in [(0, "p50", 1.2), (1, "p99", 1.5)] {
        let ratio = ours[nth].as_secs_f64() / bare[nth].as_secs_f64();
        println!(
            "client to client, {name}: {:?}, a relay with a flush {:?}: {ratio:.2} (goal {goal})",
            ours[nth], bare[nth]
        );
        figure::say(&format!("relay {name}"), "of a bare relay", ratio);
        figure::say(&format!("relay {name}"), "ms", ours[nth].as_secs_f64() * 1e3);
    }
}

type Raw = WebSocketStream<TcpStream>;

/// In a process of its own: hands on what the first to connect says to the second.
async fn relays(file: &Path) {
    /// Each into blocks of its own, which are laid out ahead, as those of a log are.
    const BLOCK: i64 = 4096;
    let mut file = File::create(file).expect("a file");
    file.write_all(&vec![0; 32 << 20]).expect("room");
    file.sync_all().expect("flushed");
    file.rewind().expect("a file");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    let (mut from, mut to) = (accepted(&listener).await, accepted(&listener).await);
    while let Some(Ok(message)) = from.next().await {
        file.write_all(&message.clone().into_data()).expect("room");
        file.seek(SeekFrom::Current(BLOCK)).expect("a file");
        file.sync_data().expect("flushed");
        if to.send(message).await.is_err() {
            break;
        }
    }
}

async fn accepted(listener: &TcpListener) -> Raw {
    let (stream, _) = listener.accept().await.expect("a client");
    stream.set_nodelay(true).expect("a socket");
    tokio_tungstenite::accept_async(stream).await.expect("a client")
}

async fn connected(address: SocketAddr) -> Raw {
    let stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    let url = format!("ws://{address}/");
    tokio_tungstenite::client_async(url, stream).await.expect("it answers").0
}

/// A client that lacks a hundred thousand mutations, beside a socket with as many bytes.
async fn catch_up() {
    const AT_ONCE: u64 = 1_000;
    let mutations = scaled(100_000) as u64;
    let (server, _data) = started();
    let mut writer = following(server.address, "list", 1).await;
    for first in (1..=mutations).step_by(usize::try_from(AT_ONCE).expect("few")) {
        let rows =
            (first..first + AT_ONCE).map(|number| frame(&notes(), "log", &number.to_string()));
        writer.frames(first, rows.collect()).await.expect("up");
        loop {
            match writer.hear_of().await.expect("up") {
                FromRoom::Acked { next } if next.get() >= first + AT_ONCE => break,
                FromRoom::Entry(part) if part.is_last => {
                    writer.tell(ToRoom::Received { next: part.position.next }).await.expect("up");
                }
                _ => {}
            }
        }
    }
    drop(writer);
    let mut client = Client::connect(server.address).await.expect("up");
    let began = Instant::now();
    client.open("list", 2, None).await.expect("up");
    let (mut heard, mut end) = (Vec::new(), None);
    loop {
        let said = client.hear().await.expect("up");
        let mut is_all = false;
        if let FromServer::About { body, .. } = &said {
            match body {
                FromRoom::Opened { storage, .. } => end = Some(storage.next),
                FromRoom::Entry(part) if part.is_last => {
                    let next = part.position.next;
                    client.tell(ToRoom::Received { next }).await.expect("up");
                    is_all = end.is_some_and(|end| next >= end);
                }
                _ => {}
            }
        }
        heard.push(said);
        if is_all {
            break;
        }
    }
    let took = began.elapsed();
    let sizes: Vec<usize> = heard.iter().map(|said| encode_message(said).len()).collect();
    let bytes: usize = sizes.iter().sum();
    let bare = sent_through_a_socket(sizes).await;
    let rate = |took: Duration| bytes as f64 / took.as_secs_f64() / 1e6;
    println!(
        "catching up {mutations} mutations: {bytes} bytes in {took:?}, {:.1} MB/s; a socket {:.1} \
         MB/s: {:.2} of it (goal 0.5)",
        rate(took),
        rate(bare),
        rate(took) / rate(bare)
    );
    figure::say("catching up", "of a socket's bytes a second", rate(took) / rate(bare));
    figure::say("catching up", "MB/s", rate(took));
}

/// How long messages of these sizes take.
async fn sent_through_a_socket(sizes: Vec<usize>) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let count = sizes.len();
    tokio::spawn(async move {
        let mut socket = accepted(&listener).await;
        socket.next().await.expect("asked").expect("asked");
        for size in sizes {
            socket.send(Message::Binary(vec![7; size].into())).await.expect("up");
        }
        socket.next().await
    });
    let mut socket = connected(address).await;
    let began = Instant::now();
    socket.send(Message::Binary(vec![1].into())).await.expect("up");
    for _ in 0..count {
        socket.next().await.expect("up").expect("up");
    }
    began.elapsed()
}

/// What idle connections take, what small rooms take besides, and what is left of both.
async fn memory() {
    /// Rooms are closed by then.
    const CALM: Duration = Duration::from_secs(90);
    let count = scaled(5_000);
    let (server, _data) = started();
    let (at, id) = (server.address, server.id());
    drop(following(at, "first", 1).await);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = kib_of(id);
    let mut idle = Vec::new();
    for _ in 0..count {
        idle.push(Client::connect(at).await.expect("up"));
    }
    let connected = kib_of(id);
    drop(idle);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let left = kib_of(id);
    let each = |kib: u64| kib as f64 / count as f64;
    let connections = connected.saturating_sub(before);
    let (taken, kept) = (each(connections), each(left.saturating_sub(before)));
    println!(
        "an idle connection: {taken:.1} KiB (goal 32); {kept:.1} KiB of each are left once they \
         are gone"
    );
    figure::say("idle connection", "KiB", taken);
    figure::say("idle connection", "KiB that are left", kept);
    let before = kib_of(id);
    let row = frame(&notes(), "log", "a row of some twenty bytes");
    let mut rooms = Vec::new();
    for number in 0..count {
        let mut client = following(at, &format!("list {number}"), 1).await;
        client.frames(1, vec![row.clone()]).await.expect("up");
        while !matches!(client.hear_of().await.expect("up"), FromRoom::Acked { .. }) {}
        rooms.push(client);
    }
    let opened = kib_of(id);
    drop(rooms);
    tokio::time::sleep(CALM).await;
    let left = kib_of(id);
    let taken = each(opened.saturating_sub(before).saturating_sub(connections));
    let kept = each(left.saturating_sub(before));
    println!(
        "a small room: {taken:.1} KiB (goal 48) besides its connection; {kept:.1} KiB of each are \
         left"
    );
    figure::say("small room", "KiB", taken);
    figure::say("small room", "KiB that are left", kept);
}

/// What a process has in memory, in KiB.
fn kib_of(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.expect("Linux says it")
}

/// What a process has had of all processors, in milliseconds.
fn processor_ms(id: u32) -> u64 {
    const TICK_MS: u64 = 10;
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("Linux says it");
    // Behind the name, which may hold anything.
    let (_, fields) = stat.rsplit_once(") ").expect("fields");
    let ticks = fields.split(' ').skip(11).take(2).map(|it| it.parse::<u64>().expect("ticks"));
    ticks.sum::<u64>() * TICK_MS
}

/// Percent of one processor.
fn share(ms: u64, took: Duration) -> u64 {
    ms * 100 / took.as_millis() as u64
}

/// The median, and what 99 of a hundred take no longer than.
fn percentiles(mut took: Vec<Duration>) -> [Duration; 2] {
    took.sort();
    [took[took.len() / 2], took[took.len() * 99 / 100]]
}
