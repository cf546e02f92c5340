//! How long things take on a native disk. Run with `cargo test --release -p tidelog-pages --test
//! speed -- --ignored --nocapture --test-threads 1`.

mod common;
#[path = "common/make.rs"]
#[allow(dead_code, reason = "each test file uses its part of it")]
mod make;

use std::time::{Duration, Instant};

use common::OWNER;
use make::{entry, read_of, request, storage, timeline};
use tidelog_disk::{NativeDisk, StoreFiles};
use tidelog_pages::{Append, OwnerId, PageServer, RecoveryReport, StoreOptions, StoreReply};

type Native = PageServer<NativeDisk>;

fn open(folder: &std::path::Path, log_size_max: u64) -> (Native, RecoveryReport, Duration) {
    let start = Instant::now();
    let files = StoreFiles::in_folder(folder).expect("a folder");
    let options = StoreOptions { log_size_max, ..StoreOptions::default() };
    let (server, report) = PageServer::open_with(files, options).expect("a store");
    (server, report, start.elapsed())
}

fn settle(server: &mut Native) {
    while server.wants_poll() {
        server.poll();
    }
}

/// Appends `size` bytes of storage entries of 64 pages each to a document of 4,096 pages.
fn fill(server: &mut Native, size: u64) {
    let db_pages = 4096;
    for ticket in 1..=size / (64 * 4096) {
        let first = ticket as u32 * 64 % db_pages;
        let pages: Vec<(u32, u8)> =
            (1..=64).map(|index| ((first + index * 61) % db_pages + 1, ticket as u8)).collect();
        let entry = entry(ticket, ticket + 1, db_pages, &pages);
        server.serve(OWNER, request(ticket, storage("large", [entry])));
        if ticket % 16 == 0 {
            server.flush();
            server.poll();
        }
    }
    server.flush();
    server.poll();
}

#[test]
#[ignore = "takes seconds, and is about time"]
fn a_log_of_50_mb_opens_in_a_second() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut server, ..) = open(folder.path(), 1 << 40);
    fill(&mut server, 50_000_000);
    drop(server);
    let (_, report, took) = open(folder.path(), 1 << 40);
    println!("open after a crash, {} bytes of log of pages: {took:?}", report.log_size);
    assert!(report.log_size > 49_000_000 && took < Duration::from_secs(1));

    let folder = tempfile::tempdir().expect("a folder");
    let (mut server, ..) = open(folder.path(), 1 << 40);
    for ticket in 0..250_000 {
        server.serve(OWNER, request(ticket + 1, timeline("many", [ticket + 1])));
    }
    server.flush();
    server.poll();
    drop(server);
    let (_, report, took) = open(folder.path(), 1 << 40);
    println!("the same, {} bytes of small batches: {took:?}", report.log_size);
    assert!(report.log_size > 45_000_000 && took < Duration::from_secs(1));
}

#[test]
#[ignore = "takes seconds, and is about time"]
fn a_store_of_1000_documents_opens_in_a_second() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut server, ..) = open(folder.path(), 16 << 20);
    for document in 0..1000 {
        let name = format!("document-{document}");
        let pages: Vec<(u32, u8)> = (1..=50).map(|pgid| (pgid, document as u8)).collect();
        let mut append = timeline(&name, 1..20);
        append.begin_storage = Some(make::STORAGE);
        append.storage = vec![entry(1, 2, 50, &pages)];
        append.record = Some(vec![1; 300].into());
        server.serve(OWNER, request(document + 1, append));
        server.flush();
        settle(&mut server);
    }
    drop(server);
    let (_, report, took) = open(folder.path(), 16 << 20);
    println!("{} documents, {} bytes of log: {took:?}", report.documents, report.log_size);
    assert!(report.documents == 1000 && took < Duration::from_secs(1));
}

/// The time below which 99 of 100 are, and the longest.
fn worst(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    format!("{} times: p50 {p50:?}, p99 {p99:?}, max {:?}", times.len(), times[times.len() - 1])
}

#[test]
#[ignore = "takes seconds, and is about time"]
fn small_requests_do_not_notice_a_change_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut server, ..) = open(folder.path(), 16 << 20);
    let mut ticket = 0;
    let mut small = |server: &mut Native| {
        ticket += 1;
        let (start, mut left) = (Instant::now(), (None, None));
        server.serve(OwnerId(2), request(ticket, timeline("small", [ticket])));
        server.serve(OwnerId(2), read_of(ticket, "large", [ticket as u32 * 37 % 4096 + 1]));
        server.flush();
        while left.0.is_none() || left.1.is_none() {
            for (_, reply) in server.poll() {
                match reply {
                    StoreReply::Durable { .. } => left.0 = Some(start.elapsed()),
                    StoreReply::Pages { .. } => left.1 = Some(start.elapsed()),
                    _ => {}
                }
            }
        }
        (left.0.expect("both"), left.1.expect("both"))
    };
    let (mut quiet, mut busy) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    let mut entries = 0;
    for _ in 0..6 {
        for _ in 0..200 {
            let (append, read) = small(&mut server);
            quiet.0.push(append);
            quiet.1.push(read);
        }
        let mut filled = 0;
        while !server.wants_poll() {
            entries += 1;
            filled += 1;
            let pages: Vec<(u32, u8)> =
                (1..=64).map(|index| ((entries as u32 + index * 61) % 4096 + 1, 1)).collect();
            let entry = entry(entries, entries + 1, 4096, &pages);
            server.serve(OWNER, request(1_000_000 + entries, storage("large", [entry])));
            server.flush();
        }
        assert!(filled < 100);
        while server.wants_poll() {
            let (append, read) = small(&mut server);
            busy.0.push(append);
            busy.1.push(read);
        }
    }
    println!("appends, quiet:              {}", worst(quiet.0));
    println!("appends, during change-over: {}", worst(busy.0));
    println!("reads, quiet:                {}", worst(quiet.1));
    println!("reads, during change-over:   {}", worst(busy.1));
    let mut plain = Append::to(make::key("small"));
    plain.record = Some(vec![1].into());
    server.serve(OWNER, request(2_000_000, plain));
}
