//! How long confirms take while somebody disturbs the server, beside what they take without.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jsonwebtoken::{EncodingKey, Header};
use tidelog_sync::{ByeReason, FromRoom, FromServer, ToRoom, ToServer};
use tidelog_testing::room::{frame_of, notes};
use tidelog_testing::server::{Client, Process, command, http, texts};
use tidelog_types::ClientId;
use tidelog_types::limits::CONNECTIONS_OF_SUBJECT_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{interval, sleep, timeout, timeout_at};

use crate::outside::{Outside, say_and_wait};
use crate::{TIDELOG, percentiles, scaled};

/// What may disturb, and what it says once it is about to.
const HALF_OPEN: &str = "half-open";
const LOGINS: &str = "logins";
const RENEWALS: &str = "renewals";
const FLOOD: &str = "flood";
const READY: &str = "ready";

/// What is disturbed in the server's place: a listener that takes every connection, and refuses
/// what it is asked once it has the head.
pub(crate) const BARE: &str = "bare";
/// How long the bare listener waits for a head, as the server does.
const HEAD_TAKES: Duration = Duration::from_secs(10);

/// How long each of the two loads is measured, once it has warmed up.
const WARM_UP: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(10);
/// Those who write, each to a document of its own, and how often.
const WRITERS: usize = 40;
const WRITES_EVERY: Duration = Duration::from_millis(25);

const SECRET: &[u8; 32] = b"the secret of an app, 32 bytes..";

/// A server that asks for tokens, and the folder in which its data lie.
pub(crate) struct Guarded {
    pub(crate) server: Process,
    pub(crate) folder: tempfile::TempDir,
}

impl Guarded {
    /// With documents, which only a development server begins without a doctype that is deployed.
    pub(crate) async fn start(documents: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (data, secret) = (folder.path().join("data"), folder.path().join("secret"));
        std::fs::write(&secret, SECRET).expect("written");
        let open = Process::start(TIDELOG, &data);
        for number in 0..documents {
            drop(crate::following(open.address, &document(number), 1).await);
        }
        assert_eq!(open.terminate(), Some(0));
        let mut command = command(TIDELOG);
        command.env("TIDELOG_ADMIN_PASSWORD", "a password of the admin");
        // What is refused is told in the log otherwise, which this process would have to read.
        command.env("RUST_LOG", "error");
        Self { server: Process::start_guarded(command, &data, &secret), folder }
    }
}

fn document(number: usize) -> String {
    format!("list {number}")
}

/// A token of a writer, for an hour.
pub(crate) fn token() -> String {
    token_of("ada")
}

/// One of a writer among many, each of whom has no more connections than a subject may.
pub(crate) fn token_in_crowd(number: usize) -> String {
    token_of(&format!("ada {}", number / CONNECTIONS_OF_SUBJECT_MAX))
}

fn token_of(subject: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let exp = now.expect("after 1970").as_secs() + 3_600;
    let grants = serde_json::json!([{ "document": "*", "role": "write", "create": true }]);
    let claims = serde_json::json!({ "sub": subject, "exp": exp, "tidelog": grants });
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET))
        .expect("signed")
}

/// A connection that was let in by a token.
pub(crate) async fn joined(at: SocketAddr, token: String) -> Result<Client, ByeReason> {
    let mut client = Client::connect_silently(at).await.ok_or(ByeReason::Slow)?;
    let hello = ToServer::Hello { client: ClientId([1; 16]), token: Some(token) };
    client.say(&hello).await.ok_or(ByeReason::Slow)?;
    loop {
        match client.hear().await {
            Some(FromServer::Welcome) => return Ok(client),
            Some(FromServer::Bye { reason }) => return Err(reason),
            Some(_) => {}
            None => return Err(ByeReason::Slow),
        }
    }
}

/// Writers at work, each of which says how long its confirms took since it was asked last.
struct Writers {
    tasks: Vec<JoinHandle<Vec<(Instant, Duration)>>>,
    is_over: Arc<AtomicBool>,
    /// How many of each are confirmed.
    confirmed: Vec<Arc<AtomicU64>>,
}

impl Writers {
    /// Begins to write; `every` so often, or each as soon as the one before is confirmed.
    async fn start(at: SocketAddr, count: usize, every: Option<Duration>, token: &str) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (mut tasks, mut confirmed) = (Vec::new(), Vec::new());
        for number in 0..count {
            let mut client = joined(at, token.to_owned()).await.expect("welcome");
            client.open(&document(number), 2, None).await.expect("up");
            while !matches!(client.hear_of().await.expect("up"), FromRoom::Opened { .. }) {}
            let (is_over, done) = (Arc::clone(&is_over), Arc::new(AtomicU64::new(0)));
            confirmed.push(Arc::clone(&done));
            // Not all at once.
            let late = every.map(|every| every.mul_f64(number as f64 / count as f64));
            tasks.push(tokio::spawn(async move {
                sleep(late.unwrap_or_default()).await;
                write(client, every, &is_over, &done).await
            }));
        }
        Self { tasks, is_over, confirmed }
    }

    /// What took how long between these.
    async fn end(self) -> Vec<(Instant, Duration)> {
        self.is_over.store(true, Ordering::Relaxed);
        let all = join_all(self.tasks).await;
        all.into_iter().flat_map(|took| took.expect("it writes to the end")).collect()
    }
}

async fn write(
    mut client: Client,
    every: Option<Duration>,
    is_over: &AtomicBool,
    done: &AtomicU64,
) -> Vec<(Instant, Duration)> {
    let row = frame_of("ada", &notes(), "log", "a row of some twenty bytes");
    let mut turns = every.map(interval);
    let (mut took, mut number) = (Vec::new(), 0);
    while !is_over.load(Ordering::Relaxed) {
        if let Some(turns) = &mut turns {
            turns.tick().await;
        }
        number += 1;
        let began = Instant::now();
        client.frames(number, vec![row.clone()]).await.expect("up");
        loop {
            match client.hear_of().await.expect("up") {
                FromRoom::Acked { next } if next.get() > number => break,
                FromRoom::Entry(part) if part.is_last => {
                    client.tell(ToRoom::Received { next: part.position.next }).await.expect("up");
                }
                _ => {}
            }
        }
        took.push((began, began.elapsed()));
        done.store(number, Ordering::Relaxed);
    }
    took
}

/// Measures confirms without a disturbance, then with one by another process, and prints a row.
async fn beside(disturbance: &str, what: &str) {
    let guarded = Guarded::start(WRITERS).await;
    let at = guarded.server.address;
    let outside = prepared(disturbance, &at.to_string()).await;
    let writers = Writers::start(at, WRITERS, Some(WRITES_EVERY), &token()).await;
    sleep(WARM_UP).await;
    let calm = measured().await;
    let (disturbed, said) = disturbed_by(outside).await;
    let took = writers.end().await;
    say(what, 1.2, &took, [&calm, &disturbed]);
    println!("{what}: {said}");
}

/// The same beside the same disturbance of a bare listener on the same machine: what connections
/// and whoever makes them take of the processors is taken there, too. Each twice, in turn.
async fn beside_bare(disturbance: &str, what: &str) {
    let guarded = Guarded::start(WRITERS).await;
    let at = guarded.server.address;
    let mut bare = Outside::start(BARE, "", false);
    let bare_at = bare.says().await;
    let writers = Writers::start(at, WRITERS, Some(WRITES_EVERY), &token()).await;
    sleep(WARM_UP).await;
    let calm = measured().await;
    let mut disturbed: [Vec<Range<Instant>>; 2] = Default::default();
    for at in [&bare_at, &at.to_string(), &bare_at, &at.to_string()] {
        let (range, said) = disturbed_by(prepared(disturbance, at).await).await;
        println!("{what}, of {}: {said}", if *at == bare_at { BARE } else { "the server" });
        disturbed[usize::from(*at != bare_at)].push(range);
        // What is left of it ends.
        sleep(HEAD_TAKES).await;
    }
    let took = writers.end().await;
    let [of_bare, of_server] = disturbed.map(|ranges| p99_within(&took, &ranges));
    let calm = p99_within(&took, &[calm]);
    let ratio = of_server.as_secs_f64() / of_bare.as_secs_f64();
    println!(
        "{what}: p99 of confirms {of_server:?}, beside the same of a bare listener {of_bare:?}: \
         {ratio:.2} (goal 1.2); without {calm:?}"
    );
}

async fn measured() -> Range<Instant> {
    let begun = Instant::now();
    sleep(MEASURED).await;
    begun..Instant::now()
}

/// Another process, which is about to disturb what is there.
async fn prepared(disturbance: &str, at: &str) -> Outside {
    let mut outside = Outside::start(disturbance, at, true);
    assert_eq!(outside.says().await, READY);
    outside
}

/// When it has disturbed that, and what came of it.
async fn disturbed_by(mut outside: Outside) -> (Range<Instant>, String) {
    outside.goes_on().await;
    sleep(WARM_UP).await;
    let range = measured().await;
    (range, outside.says().await)
}

/// In a process of its own: says where it listens.
pub(crate) async fn bare() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    loop {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        tokio::spawn(timeout(HEAD_TAKES, async move {
            let (mut heard, mut buffer) = (Vec::new(), [0; 1_024]);
            while !heard.windows(4).any(|it| it == b"\r\n\r\n") {
                match stream.read(&mut buffer).await {
                    Ok(count @ 1..) => heard.extend_from_slice(&buffer[..count]),
                    _ => return,
                }
            }
            let answer = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.write_all(answer).await;
        }));
    }
}

/// In a process of its own: prepares, waits for a word, disturbs for as long as that is measured,
/// and says what came of it.
pub(crate) async fn disturb(disturbance: &str, at: SocketAddr) {
    match disturbance {
        HALF_OPEN => half_open(at).await,
        LOGINS => logins(at).await,
        RENEWALS => renewals(at).await,
        FLOOD => flood(at).await,
        other => panic!("{other} is no disturbance"),
    }
}

pub(crate) async fn beside_half_open() {
    beside_bare(HALF_OPEN, &format!("{} half-sent requests", scaled(10_000))).await;
}

pub(crate) async fn beside_logins() {
    beside_bare(LOGINS, &format!("{} bad logins a second", scaled(1_000))).await;
}

pub(crate) async fn beside_renewals() {
    beside(RENEWALS, &format!("{} renewals in {} s", scaled(10_000), MEASURED.as_secs())).await;
}

pub(crate) async fn beside_flood() {
    beside(FLOOD, "one client that says as much as it can").await;
}

/// Until it is measured no more.
fn end() -> Instant {
    Instant::now() + WARM_UP + MEASURED
}

fn say(
    what: &str,
    goal: f64,
    took: &[(Instant, Duration)],
    [calm, disturbed]: [&Range<Instant>; 2],
) {
    let within = |range: &Range<Instant>| p99_within(took, std::slice::from_ref(range));
    let (without, with) = (within(calm), within(disturbed));
    let ratio = with.as_secs_f64() / without.as_secs_f64();
    println!("{what}: p99 of confirms {with:?}, without {without:?}: {ratio:.2} (goal {goal})");
}

fn p99_within(took: &[(Instant, Duration)], ranges: &[Range<Instant>]) -> Duration {
    let is_within = |at: &Instant| ranges.iter().any(|range| range.contains(at));
    let of = took.iter().filter(|(at, _)| is_within(at)).map(|(_, took)| *took);
    let [_, p99] = percentiles(of.collect());
    p99
}

/// Requests that are half said, and said anew once the server has given them up.
async fn half_open(at: SocketAddr) {
    say_and_wait(READY).await;
    let (end, said) = (end(), Arc::new(AtomicU64::new(0)));
    let each = (0..scaled(10_000)).map(|_| {
        let said = Arc::clone(&said);
        tokio::spawn(async move {
            while Instant::now() < end {
                let connecting = timeout(MEASURED, TcpStream::connect(at)).await;
                let Ok(Ok(mut stream)) = connecting else {
                    sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let half = b"GET /v1/documents HTTP/1.1\r\nhost: localhost\r\nx: ";
                let _ = stream.write_all(half).await;
                said.fetch_add(1, Ordering::Relaxed);
                // Until it is hung up.
                let _ = timeout_at(end.into(), stream.read_u8()).await;
            }
        })
    });
    join_all(each).await;
    println!("{} were said", said.load(Ordering::Relaxed));
}

/// Logins with wrong passwords, each from an address of its own, so that all are looked at that the
/// server has time for.
async fn logins(at: SocketAddr) {
    say_and_wait(READY).await;
    let (end, answers): (_, Arc<[AtomicU64; 3]>) = (end(), Arc::default());
    let mut turns = interval(Duration::from_secs(1).div_f64(scaled(1_000) as f64));
    let mut number = 0_u32;
    while Instant::now() < end {
        turns.tick().await;
        number += 1;
        let (answers, [_, a, b, c]) = (Arc::clone(&answers), number.to_be_bytes());
        tokio::spawn(async move {
            let body = r#"{"user":"admin","password":"a guess"}"#;
            let extra = format!(
                "X-Forwarded-For: 10.{a}.{b}.{c}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let asked = timeout(MEASURED, log_in(at, &extra)).await;
            let nth = match asked {
                Ok(Some(401)) => 0,
                Ok(Some(_)) => 1,
                _ => 2,
            };
            answers[nth].fetch_add(1, Ordering::Relaxed);
        });
    }
    let [wrong, refused, none] = [0, 1, 2].map(|nth| answers[nth].load(Ordering::Relaxed));
    println!("of {number} {wrong} were looked at, {refused} refused, {none} not answered");
}

async fn log_in(at: SocketAddr, extra: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(at).await.ok()?;
    let head = format!("POST /v1/login HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n");
    stream.write_all(format!("{head}{extra}").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

/// Connections that all renew their tokens within the time that is measured.
async fn renewals(at: SocketAddr) {
    let count = scaled(10_000);
    let mut links = Vec::new();
    for number in 0..count {
        links.push(joined(at, token_in_crowd(number)).await.expect("welcome"));
    }
    say_and_wait(READY).await;
    sleep(WARM_UP).await;
    let renewed = Arc::new(AtomicU64::new(0));
    let each = links.into_iter().enumerate().map(|(number, mut link)| {
        let (renewed, token) = (Arc::clone(&renewed), token_in_crowd(number));
        tokio::spawn(async move {
            sleep(MEASURED.mul_f64(number as f64 / count as f64)).await;
            link.say(&ToServer::Renew { token }).await.expect("up");
            if let Some(FromServer::Admitted { .. }) = link.hear().await {
                renewed.fetch_add(1, Ordering::Relaxed);
            }
            link
        })
    });
    join_all(each).await;
    println!("{} were admitted", renewed.load(Ordering::Relaxed));
}

/// One client that says the least there is, as fast as it can.
async fn flood(at: SocketAddr) {
    let mut client = joined(at, token()).await.expect("welcome");
    say_and_wait(READY).await;
    let (end, mut said) = (end(), 0);
    while Instant::now() < end {
        for _ in 0..100 {
            client.say(&ToServer::Ping).await.expect("up");
        }
        for _ in 0..100 {
            client.hear().await.expect("up");
        }
        said += 100;
    }
    println!("it said {said}");
}

/// A backup while everybody writes as much as they can; then what it has is held against what was
/// confirmed before it began.
pub(crate) async fn backup() {
    let count = scaled(1_000);
    let guarded = Guarded::start(count).await;
    let writers = Writers::start(guarded.server.address, count, None, &token()).await;
    sleep(WARM_UP).await;
    let calm = Instant::now();
    sleep(MEASURED).await;
    let calm = calm..Instant::now();
    let before: Vec<u64> =
        writers.confirmed.iter().map(|done| done.load(Ordering::Relaxed)).collect();
    let (data, copy) = (guarded.folder.path().join("data"), guarded.folder.path().join("copy"));
    let began = Instant::now();
    run(["backup".as_ref(), "--data".as_ref(), &*data, &*copy]).await;
    let during = began..Instant::now();
    let took = writers.end().await;
    let size = std::fs::metadata(&copy).expect("a file").len();
    let took_ms = (during.end - during.start).as_millis();
    let what = format!("a backup of {} MiB in {took_ms} ms, {count} writers", size >> 20);
    say(&what, 2.0, &took, [&calm, &during]);
    assert_eq!(guarded.server.terminate(), Some(0));

    let restored = guarded.folder.path().join("restored");
    run(["restore".as_ref(), "--data".as_ref(), &*restored, &*copy]).await;
    let server = Process::start(TIDELOG, &restored);
    let mut missing = 0;
    for (number, confirmed) in before.iter().enumerate() {
        let path = format!("/v1/documents/list%20{number}/export");
        let (status, file) = http(server.address, "GET", &path, "").await;
        assert_eq!(status, 200, "{path}");
        let rows = texts(&file, "select cast(count(*) as text) from log");
        missing += confirmed.saturating_sub(rows[0].parse().expect("a number"));
    }
    println!("{what}: {missing} that were confirmed before it began are missing (goal 0)");
}

async fn run(args: [&Path; 4]) {
    let mut command = command(TIDELOG);
    command.args(args);
    let output = spawn_blocking(move || command.output()).await.expect("no panic");
    let output = output.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
