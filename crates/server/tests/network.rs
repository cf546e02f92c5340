//! Clients that write through a network which delays, stalls and cuts.
//!
//! Goal: nothing that was acknowledged is lost, nothing is applied twice or out of order, and every
//! client ends with the server's pages, whatever the network does, as in `kill.rs` whatever happens
//! to the server. Method: rooms, the store's thread and sockets as they are, behind a proxy that
//! tears what it forwards into pieces at any byte, holds them up for a while or for ever, one way
//! or both, and cuts. What it does follows from a seed; when threads run does not, so a run that
//! failed is not repeated exactly. (A simulated network, as of turmoil, has a clock that does not
//! wait for threads, and rooms and store have threads of their own.)

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidelog_server::Server;
use tidelog_testing::server::{PATIENCE, Writer, check_writers, settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

const CLIENTS: u8 = 4;
const PAUSE: Duration = Duration::from_millis(20);
/// How long there is trouble at least, and how often of each kind.
const TROUBLE: Duration = Duration::from_secs(5);
const TROUBLES: u64 = 10;

/// What the proxy does, and whether it still does it.
#[derive(Default)]
struct Trouble {
    is_over: AtomicBool,
    cuts: AtomicU64,
    stalls: AtomicU64,
}

/// Numbers that follow from a seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % end
    }
}

/// Forwards what comes until one of both is gone, or the trouble ends it.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut numbers: Numbers,
    trouble: Arc<Trouble>,
) -> Option<()> {
    let mut buffer = [0; 4096];
    loop {
        let size_max = match trouble.is_over.load(Ordering::Relaxed) {
            true => buffer.len(),
            false => 1 + numbers.below(buffer.len() as u64) as usize,
        };
        let size = from.read(&mut buffer[..size_max]).await.ok().filter(|size| *size > 0)?;
        if !trouble.is_over.load(Ordering::Relaxed) {
            match numbers.below(200) {
                0 => {
                    trouble.cuts.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
                1 => {
                    // Nothing more comes this way, and the other way goes on for a while.
                    trouble.stalls.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(400)).await;
                    trouble.cuts.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
                2..=4 => {
                    trouble.stalls.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(50 + numbers.below(250))).await;
                }
                _ => sleep(Duration::from_millis(numbers.below(4))).await,
            }
        }
        to.write_all(&buffer[..size]).await.ok()?;
    }
}

/// A way to the server through trouble.
async fn proxy(server: SocketAddr, trouble: Arc<Trouble>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut seed = 1;
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(server).await else { return };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            seed += 2;
            let up = forward(from_client, to_server, Numbers(seed), Arc::clone(&trouble));
            let down = forward(from_server, to_client, Numbers(seed + 1), Arc::clone(&trouble));
            // Whichever ends first takes the other along.
            tokio::spawn(async move {
                tokio::select! {
                    _ = up => {}
                    _ = down => {}
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_stalls_and_cuts_loses_nothing_and_applies_nothing_twice() {
    let data = tempfile::tempdir().expect("a folder");
    let server = Server::start(&settings(data.path())).await.expect("a server");
    let trouble = Arc::new(Trouble::default());
    let way = proxy(server.address(), Arc::clone(&trouble)).await;
    let tasks: Vec<_> = (1..=CLIENTS)
        .map(|timeline| {
            let trouble = Arc::clone(&trouble);
            tokio::spawn(async move {
                let mut writer = Writer::new(timeline);
                while !trouble.is_over.load(Ordering::Relaxed) {
                    // Until it is cut off. One that is not is let go a while after the trouble.
                    let _ = timeout(TROUBLE, writer.write_until(way, |_| false)).await;
                    sleep(PAUSE).await;
                }
                // The trouble is over, and it goes on from where both sides are.
                let more = writer.acked + 100;
                let gets_on = async {
                    while writer.write_until(way, |acked| acked > more).await.is_none() {
                        sleep(PAUSE).await;
                    }
                };
                timeout(PATIENCE, gets_on).await.expect("it gets on");
                writer
            })
        })
        .collect();
    sleep(TROUBLE).await;
    let counts = [&trouble.cuts, &trouble.stalls];
    let is_enough = || counts.iter().all(|count| count.load(Ordering::Relaxed) > TROUBLES);
    let enough = async {
        while !is_enough() {
            sleep(PAUSE).await;
        }
    };
    timeout(PATIENCE, enough).await.expect("there is trouble");
    trouble.is_over.store(true, Ordering::Relaxed);
    let mut writers = Vec::new();
    for task in tasks {
        writers.push(task.await.expect("no promise was broken"));
    }
    check_writers(way, &mut writers).await;
    server.stop().await;
}
