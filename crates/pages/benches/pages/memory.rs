//! What a document of 1 GiB takes in memory, in a process of its own each time.

use std::path::Path;
use std::process::Command;

use tidelog_types::limits::{LOG_SIZE_MAX, PAGE_SIZE, STORE_POOL_PAGES_MAX};

use crate::stores::{folder, open_with};
use tidelog_testing::table::Table;
use tidelog_testing::timed::{fill, options, read_all};

const PAGES: u32 = 256 * 1024;
/// What a process is told that is to be measured.
const FILLS: &str = "--memory-of-filling=";
const READS: &str = "--memory-of-reading=";
/// Pages that are asked for at once.
const READ_PAGES: u32 = 10_000;
/// Beside the pool, and what is asked for at once.
const REST_MAX: u64 = 32 * 1024 * 1024;

/// Does what such a process is for, if this is one, and prints the most memory that it had.
pub fn is_measured(arguments: &[String]) -> bool {
    let folder_of = |what| arguments.iter().find_map(|argument| argument.strip_prefix(what));
    if let Some(folder) = folder_of(FILLS) {
        let mut server = open_with(Path::new(folder), options(LOG_SIZE_MAX, STORE_POOL_PAGES_MAX));
        fill(&mut server, PAGES);
    } else if let Some(folder) = folder_of(READS) {
        let mut server = open_with(Path::new(folder), options(LOG_SIZE_MAX, STORE_POOL_PAGES_MAX));
        for first in (1..PAGES).step_by(READ_PAGES as usize) {
            read_all(&mut server, first..=(first + READ_PAGES - 1).min(PAGES));
        }
    } else {
        return false;
    }
    println!("{}", resident_max());
    true
}

/// The most memory that this process ever had, in bytes.
fn resident_max() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a system with /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("such a line");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

/// Writes a document of 1 GiB through the log, and reads all of it.
pub fn of_a_large_document(table: &mut Table) {
    let folder = folder();
    let pages = (STORE_POOL_PAGES_MAX + READ_PAGES as usize) * PAGE_SIZE;
    let bytes_max = pages as u64 + REST_MAX;
    for (what, argument) in [("written", FILLS), ("opened and read", READS)] {
        let program = std::env::current_exe().expect("this program");
        let argument = format!("{argument}{}", folder.path().display());
        let output = Command::new(program).arg(argument).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let bytes: u64 = text.trim().parse().expect("its memory");
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64);
        let goal = format!("<= {}", mib(bytes_max));
        let what = format!("memory, 1 GiB {what}");
        table.bound(&what, mib(bytes), String::new(), goal, bytes <= bytes_max);
    }
}
