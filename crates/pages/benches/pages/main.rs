//! The page server beside the raw calls that it cannot do without.
//!
//! `cargo bench -p tidelog-pages` prints a table at the end: our time, that of the raw calls in the
//! same run, and how many times as long ours is. `-- append read open checkpoint fair memory`
//! chooses; the last one writes 1 GiB and is left out unless it is asked for. What is done with a
//! store (`timed.rs` of crate `testing`) is done on the files of a browser too:
//! `npm run bench -- --storage`.

mod fair;
mod memory;
mod stores;

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use stores::{RawFile, folder, open_with};
use tidelog_testing::table::{Table, criterion, quantile};
use tidelog_testing::timed::{
    commit, fill, fill_document, fill_until_change_over, log_size, options, read_all,
    small_requests,
};
use tidelog_types::Lsn;
use tidelog_types::limits::{LOG_SIZE_MAX, PAGE_SIZE};

/// Pages of the document that is read.
const PAGES: u32 = 10_000;

/// So many owners wait for one small mutation each.
fn group_commit(table: &mut Table, callers: u64, goal: Option<f64>) {
    let folder = folder();
    let mut server = open_with(folder.path(), options(1 << 40, 1024));
    let mut raw = RawFile::new(folder.path());
    let mut lsn = Lsn::FIRST;
    commit(&mut server, small_requests(callers, 1, lsn));
    let before = log_size(&server);
    lsn = lsn.next();
    commit(&mut server, small_requests(callers, 1, lsn));
    let bytes = vec![7; usize::try_from(log_size(&server) - before).expect("small")];
    let ours = || {
        lsn = lsn.next();
        let appends = small_requests(callers, 1, lsn);
        let began = Instant::now();
        let replies = commit(&mut server, appends);
        assert_eq!(replies as u64, callers, "each is told");
        began.elapsed()
    };
    let what = format!("durable append, {callers} waiting");
    table.compare(&mut criterion(), &what, goal, ours, || raw.append(&bytes));
}

/// What is too short to be timed by itself: a hundred times, for different pages.
fn each(mut run: impl FnMut(u32)) -> impl FnMut() -> Duration {
    const TIMES: u32 = 100;
    move || {
        let began = Instant::now();
        (0..TIMES).for_each(&mut run);
        began.elapsed() / TIMES
    }
}

/// Many pages in one request, and single ones, in the pool and not.
fn reads(table: &mut Table) {
    let folder = folder();
    let mut server = open_with(folder.path(), options(LOG_SIZE_MAX, 1024));
    fill(&mut server, PAGES);
    RawFile::new(folder.path()).append(&vec![7; (PAGES as usize + 128) * PAGE_SIZE]);
    let raw = std::fs::File::open(folder.path().join("raw")).expect("a file");
    let raw_read = |page: u32, count: usize| {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; count * PAGE_SIZE];
        raw.read_exact_at(&mut bytes, u64::from(page) * PAGE_SIZE as u64).expect("within");
        black_box(bytes);
    };
    let ours = || {
        let began = Instant::now();
        assert_eq!(read_all(&mut server, 1..=PAGES), PAGES as usize);
        began.elapsed()
    };
    let bulk = || {
        let began = Instant::now();
        (1..PAGES).step_by(64).for_each(|page| raw_read(page, 64));
        began.elapsed()
    };
    table.compare(&mut criterion(), "read of 10,000 pages", None, ours, bulk);

    let page = vec![7; PAGE_SIZE];
    let hit = each(|_| assert_eq!(read_all(&mut server, 7..=7), 1));
    let copy = each(|_| drop(black_box(page.clone())));
    table.compare(&mut criterion(), "read of a page, hit (raw: a copy)", None, hit, copy);
    drop(server);

    let mut server = open_with(folder.path(), options(LOG_SIZE_MAX, 1));
    let spread = |n: u32| 1 + n * 97 % (PAGES - 100);
    let miss = each(|n| {
        let page = spread(n);
        assert_eq!(read_all(&mut server, page..=page), 1);
    });
    let pread = each(|n| raw_read(spread(n), 1));
    table.compare(&mut criterion(), "read of a page, miss", None, miss, pread);
}

/// Opens what a killed process left behind.
fn open_after_crash(table: &mut Table) {
    let second = Duration::from_secs(1);
    let folder = folder();
    let mut server = open_with(folder.path(), options(1 << 40, 1024));
    while log_size(&server) < 50_000_000 {
        fill(&mut server, 1_000);
    }
    drop(server);
    measure_open(table, "open after crash, log of 50 MB", folder.path(), second);

    let folder = stores::folder();
    let mut server = open_with(folder.path(), options(1 << 40, 1024));
    for number in 0..1_000 {
        fill_document(&mut server, &format!("document-{number}"), 5);
    }
    drop(server);
    measure_open(table, "open after crash, 1,000 documents", folder.path(), second);
}

fn measure_open(table: &mut Table, what: &str, folder: &Path, goal: Duration) {
    let mut times = Vec::new();
    let ours = || {
        let began = Instant::now();
        drop(open_with(folder, options(1 << 40, 1024)));
        times.push(began.elapsed());
        began.elapsed()
    };
    let raw = || {
        let began = Instant::now();
        black_box(crc32c::crc32c(&std::fs::read(folder.join("log-a")).expect("a file")));
        began.elapsed()
    };
    let mut criterion = criterion().sample_size(10);
    table.compare(&mut criterion, what, None, ours, raw);
    let slowest = times.iter().max().copied().unwrap_or_default();
    let (ours, goal_text) = (format!("{slowest:.2?}"), format!("<= {goal:?}"));
    let what = format!("{what}, slowest");
    table.bound(&what, ours, String::new(), goal_text, slowest <= goal);
}

/// The whole of a log of 16 MiB goes into the page file, in slices.
fn checkpoint(table: &mut Table) {
    let folder = folder();
    let mut server = open_with(folder.path(), options(LOG_SIZE_MAX, 1024));
    let mut raw = RawFile::new(folder.path());
    let mut slices = Vec::new();
    let pages = (LOG_SIZE_MAX / PAGE_SIZE as u64) as usize;
    let bytes = vec![7; pages * PAGE_SIZE];
    let ours = || {
        fill_until_change_over(&mut server, LOG_SIZE_MAX);
        let began = Instant::now();
        while server.wants_poll() {
            let began = Instant::now();
            server.poll();
            slices.push(began.elapsed());
        }
        began.elapsed()
    };
    let mut criterion = criterion().sample_size(10);
    table.compare(&mut criterion, "checkpoint of 16 MiB", None, ours, || raw.rewrite(&bytes));
    let slice = quantile(&mut slices, 0.5);
    let longest = slices.last().copied().unwrap_or_default();
    println!("a slice of it takes {slice:.2?}, the longest of {} took {longest:.2?}", slices.len());
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if memory::is_measured(&arguments) {
        return;
    }
    let named: Vec<&String> = arguments.iter().filter(|it| !it.starts_with('-')).collect();
    let wants = |part: &str| match named.is_empty() {
        true => part != "memory",
        false => named.iter().any(|name| *name == part),
    };
    let mut table = Table::default();
    if wants("append") {
        group_commit(&mut table, 1, None);
        group_commit(&mut table, 16, None);
        group_commit(&mut table, 256, Some(1.25));
    }
    if wants("read") {
        reads(&mut table);
    }
    if wants("open") {
        open_after_crash(&mut table);
    }
    if wants("checkpoint") {
        checkpoint(&mut table);
    }
    if wants("fair") {
        fair::one_page_beside_many(&mut table);
    }
    if wants("memory") {
        memory::of_a_large_document(&mut table);
    }
    table.print("tidelog-pages, in one run; raw: the calls for the same bytes");
}
