//! What it costs that pages are not in memory: queries of a core that has just started, beside the
//! same ones again.
//!
//! `cargo bench -p tidelog-client`. The page server is the real one, on a disk in memory: what is
//! measured is runs that end in faults, requests and copies, not a device.

use std::time::{Duration, Instant};

use tidelog_testing::client::{Device, fill_shelves, integer, shelves};
use tidelog_testing::table::{Table, median};

/// Cold starts that are measured.
const ROUNDS: usize = 9;
const LOOKUPS: u32 = 1_000;
const BOOKS: u32 = 10_500;

fn scan(device: &mut Device) -> Duration {
    let began = Instant::now();
    let rows = device.query("select count(*), sum(length(text)) from book");
    assert_eq!(rows[0][0], integer(i64::from(BOOKS)));
    began.elapsed()
}

fn look_up(device: &mut Device) -> Duration {
    let began = Instant::now();
    for number in 0..LOOKUPS {
        let id = number * 7_919 % BOOKS + 1;
        let sql = format!("select length(text) from book where id = {id}");
        assert_eq!(device.query(&sql).len(), 1);
    }
    began.elapsed()
}

fn compare(table: &mut Table, what: &str, mut run: impl FnMut(&mut Device) -> Duration) {
    let mut device = Device::new(1);
    fill_shelves(&mut device, BOOKS);
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        device.kill_core();
        device.open(&shelves());
        device.told.clear();
        cold.push(run(&mut device));
        device.told.clear();
        warm.push(run(&mut device));
    }
    table.add(what, None, median(&mut cold), median(&mut warm));
}

fn main() {
    let mut table = Table::default();
    compare(&mut table, "a scan of 20 MiB", scan);
    compare(&mut table, "1,000 lookups all over 20 MiB", look_up);
    table.print("pages that are not in memory (ours: cold, raw: warm)");
}
