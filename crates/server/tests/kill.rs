//! The server killed again and again while clients write.
//!
//! Goal: nothing that was acknowledged is lost, nothing is applied twice, and no position that a
//! follower was sent is ever taken back. Method: three clients write as fast as they can, each to
//! its own timeline; the process gets SIGKILL twenty times; after each start they go on from the
//! positions exchanged. In the end the log of mutations in the document holds each exactly once,
//! and each follower holds the server's pages byte for byte.

use std::sync::Arc;

use tidelog_testing::server::{PATIENCE, Process, Writer, check_writers};
use tokio::sync::Notify;
use tokio::time::timeout;

/// The binary.
const TIDELOG: &str = env!("CARGO_BIN_EXE_tidelog");

const CLIENTS: u8 = 3;
const KILLS: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_loses_nothing_and_applies_nothing_twice() {
    let data = tempfile::tempdir().expect("a folder");
    let mut writers: Vec<Writer> = (1..=CLIENTS).map(Writer::new).collect();
    for round in 1..=KILLS {
        let process = Process::start(TIDELOG, data.path());
        let address = process.address;
        let heard = Arc::new(Notify::new());
        let tasks: Vec<_> = writers
            .into_iter()
            .map(|mut writer| {
                let heard = Arc::clone(&heard);
                tokio::spawn(async move {
                    let hears = |_| {
                        heard.notify_one();
                        false
                    };
                    assert!(writer.write_until(address, hears).await.is_none(), "it is killed");
                    writer
                })
            })
            .collect();
        // Another point in the flow each time.
        let acks = async {
            for _ in 0..10 + round * 37 % 50 {
                heard.notified().await;
            }
        };
        timeout(PATIENCE, acks).await.expect("they write");
        process.kill();
        writers = Vec::new();
        for task in tasks {
            writers.push(task.await.expect("no promise was broken"));
        }
    }
    let acked: u64 = writers.iter().map(|writer| writer.acked - 1).sum();
    assert!(acked > KILLS, "it did write: {acked}");

    let process = Process::start(TIDELOG, data.path());
    check_writers(process.address, &mut writers).await;
    assert_eq!(process.terminate(), Some(0));
}
