//! The log beside the raw calls that it cannot do without.
//!
//! `cargo bench -p tidelog-journal` prints a table at the end: our time, that of the raw calls
//! for the same bytes in the same run, and how many times as long ours is.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidelog_disk::NativeDisk;
use tidelog_journal::{DocumentNumber, FrameHead, Log, Seed, Witness};
use tidelog_testing::table::{self, Table};
use tidelog_types::Epoch;

/// Bytes of one small mutation.
const BODY_SIZE: usize = 200;

/// A folder on the disk that is built on, since memory would flush in no time.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

fn open(folder: &Path) -> Log<NativeDisk> {
    let file = |name| NativeDisk::open(&folder.join(name)).expect("a new file");
    let (mut log, _) =
        Log::recover([file("a"), file("b")], Witness::None, Seed(1), 0, &mut |_| Ok(()))
            .expect("empty files");
    log.request_flush().expect("healthy");
    log
}

/// Writes bytes at the end of a file, and flushes it.
struct RawFile {
    file: std::fs::File,
    end: u64,
}

impl RawFile {
    fn new(folder: &Path) -> Self {
        let path = folder.join("raw");
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(path);
        Self { file: file.expect("a new file"), end: 4096 }
    }

    fn append(&mut self, bytes: &[u8]) -> Duration {
        let began = Instant::now();
        self.file.write_all_at(bytes, self.end).expect("room");
        self.file.sync_data().expect("healthy");
        self.end += bytes.len() as u64;
        began.elapsed()
    }
}

/// So many callers wait for one batch each.
fn group_commit(table: &mut Table, callers: usize, goal: Option<f64>) {
    let folder = folder();
    let mut log = open(folder.path());
    let mut raw = RawFile::new(folder.path());
    let body = vec![7; BODY_SIZE];
    let size = frame_size(&mut log, &body);
    let bytes = vec![7; callers * size];
    let ours = || {
        let began = Instant::now();
        for _ in 0..callers {
            log.push(&FrameHead::new(6, DocumentNumber(1), Epoch(1)), &[&body]);
            log.commit();
        }
        log.write().expect("room");
        log.request_flush().expect("healthy");
        assert_eq!(log.poll_flushed(), Ok(log.committed()));
        began.elapsed()
    };
    let what = format!("log: durable append, {callers} waiting");
    table.compare(&mut table::criterion(), &what, goal, ours, || raw.append(&bytes));
}

fn frame_size(log: &mut Log<NativeDisk>, body: &[u8]) -> usize {
    let before = log.size();
    log.push(&FrameHead::new(6, DocumentNumber(1), Epoch(1)), &[body]);
    log.commit();
    usize::try_from(log.size() - before).expect("a small frame")
}

/// Opens a log of 50 MB whose process was killed, beside reading its bytes and checking them.
fn recovery(table: &mut Table) {
    let folder = folder();
    let mut log = open(folder.path());
    while log.size() < 50_000_000 {
        for _ in 0..50 {
            log.push(&FrameHead::new(6, DocumentNumber(1), Epoch(1)), &[&[7; 4096]]);
            log.commit();
        }
        log.write().expect("room");
    }
    drop(log);
    let ours = || {
        let began = Instant::now();
        drop(open(folder.path()));
        began.elapsed()
    };
    let raw = || {
        let began = Instant::now();
        let bytes = std::fs::read(folder.path().join("a")).expect("a file");
        assert_ne!(crc32c::crc32c(&bytes), 0);
        began.elapsed()
    };
    table.compare(&mut table::criterion(), "log: open 50 MB", None, ours, raw);
}

fn main() {
    let mut table = Table::default();
    group_commit(&mut table, 1, None);
    group_commit(&mut table, 16, None);
    group_commit(&mut table, 256, Some(1.25));
    recovery(&mut table);
    table.print("tidelog-journal, in one run; raw: write and fdatasync, or read and checksum");
}
