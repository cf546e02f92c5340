//! A mutation that ends the server each time it is run, and is sent again each time.
//!
//! Goal: the server does not die of it for ever; it rejects that mutation and no other, and says
//! why. Method: the binary, and a mutation that takes a while; whenever the server has named it as
//! what it runs, it gets SIGKILL, as from a system that is out of memory. Meanwhile others write.

use std::path::Path;
use std::time::Duration;

use tidelog_room::ENDED_THE_SERVER;
use tidelog_sync::{FromRoom, WireFrame};
use tidelog_testing::room::{Copy, burner, frame};
use tidelog_testing::server::{Client, Process, http, texts};
use tidelog_types::Lsn;

/// The binary.
const TIDELOG: &str = env!("CARGO_BIN_EXE_tidelog");

/// What the server says that it is running.
fn named(data: &Path) -> Option<String> {
    let file = std::fs::read_to_string(data.join("marks")).ok()?;
    let marks: serde_json::Value = serde_json::from_str(file.lines().next()?).ok()?;
    let what = marks["named"]["what"].as_str().filter(|_| marks["is_running"] == true)?;
    Some(what.to_owned())
}

async fn connect(process: &Process, document: &str, timeline: u8) -> (Client, Lsn, Copy) {
    let mut client = Client::connect(process.address).await.expect("up");
    client.open_as(document, &burner(), timeline, None).await.expect("up");
    let Some(FromRoom::Opened { wanted, .. }) = client.hear_of().await else { panic!("opened") };
    (client, wanted, Copy::default())
}

/// What the client sends whenever it comes back: one that ends the server, and one behind it.
fn sent_again(wanted: Lsn) -> Vec<WireFrame> {
    let all = [frame(&burner(), "burn", "bad"), frame(&burner(), "log", "behind")];
    all.into_iter().skip(wanted.get() as usize - 1).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mutation_that_ends_the_server_is_rejected_in_the_end() {
    let data = tempfile::tempdir().expect("a folder");
    let is_burn = |what: String| what.starts_with("frame 1 of timeline 0707");
    // A server that was stopped names nothing, so that nothing costs a second flush.
    assert_eq!(Process::start(TIDELOG, data.path()).terminate(), Some(0));
    let mut deaths = 0;
    let process = loop {
        let process = Process::start(TIDELOG, data.path());
        let (mut other, wanted, mut copy) = connect(&process, "other", 1).await;
        let number = wanted.get();
        let innocent = frame(&burner(), "log", &number.to_string());
        other.frames(number, vec![innocent]).await.expect("up");
        other.acked(&mut copy, number + 1).await.expect("innocent ones are applied");

        let (mut client, wanted, mut copy) = connect(&process, "list", 7).await;
        client.frames(wanted.get(), sent_again(wanted)).await.expect("up");
        let ends = async {
            // Of the first server nobody knows that it will die.
            let is_named = || deaths == 0 || named(data.path()).is_some_and(is_burn);
            while !is_named() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            biased;
            acked = client.acked(&mut copy, 3) => {
                acked.expect("up");
                break process;
            }
            () = ends => {}
        }
        if deaths == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(named(data.path()), None, "nothing is named in normal life");
        }
        process.kill();
        deaths += 1;
        assert!(deaths < 10, "it is run for ever");
    };
    assert_eq!(deaths, 3, "once in normal life, twice while it was named");
    let (status, file) = http(process.address, "GET", "/v1/documents/list/export", "").await;
    assert_eq!(status, 200);
    assert_eq!(texts(&file, "select id from log"), ["behind"], "applied are the others");
    let rejections = texts(&file, "select lsn || ' ' || reason from _tidelog_rejection");
    assert_eq!(rejections, [format!("1 {ENDED_THE_SERVER}")]);
    let (_, file) = http(process.address, "GET", "/v1/documents/other/export", "").await;
    assert_eq!(texts(&file, "select count(*) || '' from log"), ["4"]);
    assert_eq!(process.terminate(), Some(0));
}
