//! The server killed again and again while clients write.
//!
//! Goal: nothing that was acknowledged is lost, nothing is applied twice, and no position that a
//! follower was sent is ever taken back. Method: three clients write as fast as they can, each to
//! its own timeline; the process gets SIGKILL twenty times; after each start they go on from the
//! positions exchanged. In the end the log of mutations in the document holds each exactly once,
//! and each follower holds the server's pages byte for byte.

mod common;

use std::time::Duration;

use common::{Client, Copy, Process, frame, http, lsn, notes, texts};
use tidelog_sync::FromRoom;

/// Frames that a client has under way at once.
const WINDOW: u64 = 20;
const CLIENTS: u8 = 3;
const KILLS: u64 = 20;

struct Writer {
    timeline: u8,
    /// All frames before this were acknowledged.
    acked: u64,
    copy: Copy,
}

impl Writer {
    /// Writes until the connection is gone.
    async fn write(&mut self, process: std::net::SocketAddr) -> Option<()> {
        let mut client = Client::connect(process).await?;
        client.open("shared", self.timeline, self.copy.position).await?;
        let FromRoom::Opened { storage, wanted, .. } = client.hear_of().await? else {
            panic!("opened")
        };
        if let Some(have) = self.copy.position {
            assert_eq!(storage.journal, have.journal, "the server still knows what it sent");
            assert!(storage.next >= have.next, "what was sent was durable");
        }
        assert!(wanted >= lsn(self.acked), "what was acknowledged is there");
        self.acked = wanted.get();
        let doctype = notes();
        // Some of what is applied already is sent again, as after a break that both sides missed.
        let mut sent = self.acked.saturating_sub(5).max(1);
        loop {
            while sent < self.acked + WINDOW {
                let id = format!("{} {sent}", self.timeline);
                client.frames(sent, vec![frame(&doctype, "log", &id)]).await?;
                sent += 1;
            }
            if let FromRoom::Acked { next } = client.follow(&mut self.copy).await? {
                self.acked = self.acked.max(next.get());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_loses_nothing_and_applies_nothing_twice() {
    let data = tempfile::tempdir().expect("a folder");
    let mut writers: Vec<Writer> = (1..=CLIENTS)
        .map(|timeline| Writer { timeline, acked: 1, copy: Copy::default() })
        .collect();
    for round in 1..=KILLS {
        let process = Process::start(data.path());
        let address = process.address;
        let tasks: Vec<_> = writers
            .into_iter()
            .map(|mut writer| {
                tokio::spawn(async move {
                    writer.write(address).await;
                    writer
                })
            })
            .collect();
        // Another point in the flow each time.
        tokio::time::sleep(Duration::from_millis(60 + round * 37 % 190)).await;
        process.kill();
        writers = Vec::new();
        for task in tasks {
            writers.push(task.await.expect("no promise was broken"));
        }
    }
    let acked: u64 = writers.iter().map(|writer| writer.acked - 1).sum();
    assert!(acked > KILLS, "it did write: {acked}");

    let process = Process::start(data.path());
    let (status, file) = http(process.address, "GET", "/v1/documents/shared/export", "").await;
    assert_eq!(status, 200);
    let mut applied = texts(&file, "select id from log order by number");
    for writer in &writers {
        let of_this: Vec<&String> =
            applied.iter().filter(|id| id.starts_with(&format!("{} ", writer.timeline))).collect();
        let expected: Vec<String> =
            (1..=of_this.len()).map(|number| format!("{} {number}", writer.timeline)).collect();
        // The lists are long: only say that they differ.
        assert!(of_this == expected.iter().collect::<Vec<_>>(), "each once, in order");
        assert!(of_this.len() as u64 >= writer.acked - 1, "all that was acknowledged");
    }
    let total = applied.len();
    applied.sort();
    applied.dedup();
    assert_eq!(applied.len(), total);

    for writer in &mut writers {
        let mut client = Client::connect(process.address).await.expect("the server runs");
        client.open("shared", writer.timeline, writer.copy.position).await.expect("it runs");
        assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
        client.sync(&mut writer.copy).await.expect("it runs");
        assert!(writer.copy.image() == file, "the same bytes on both sides");
    }
    assert_eq!(process.terminate(), Some(0));
}
