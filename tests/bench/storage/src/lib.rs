//! The store on the files of a browser, to be timed by a page.
//!
//! The scripts in `tests/bench/site/storage` open the files, call what is here, take the time, and
//! make the raw calls beside it. What is done with a store is the same as in the native benches.
//!
//! # Where to start reading
//!
//! - [`Store`]: the shipped page server on the shipped disk, in the worker that takes the time.
//! - `port.rs`: requests as they are sent to a page server in a worker of its own.
//!
//! # What this crate does not know
//!
//! Clocks, and what comes out.

mod port;

use tidelog_browser::OpfsDisk;
use tidelog_disk::{Disk, StoreFiles};
use tidelog_pages::{OwnerId, PageServer, StoreRequest};
use tidelog_testing::timed;
use tidelog_types::Lsn;
use wasm_bindgen::prelude::*;
use web_sys::FileSystemSyncAccessHandle;

/// Bytes that are read at once to be checked, as when a log is opened.
const WINDOW_SIZE: usize = 1024 * 1024;

/// Prints panics to the console.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|panic| {
        web_sys::console::error_1(&panic.to_string().into());
    }));
}

fn disk(handle: FileSystemSyncAccessHandle) -> OpfsDisk {
    OpfsDisk::new(handle).expect("a file that tells its size")
}

/// A store that is open. Freeing it lets go of its files, as the end of its worker would.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Store {
    server: PageServer<OpfsDisk>,
    /// What is committed next.
    prepared: Vec<(OwnerId, StoreRequest)>,
    /// Where each small document stands.
    lsn: Lsn,
}

#[wasm_bindgen]
impl Store {
    /// Opens the store in these files, or begins one.
    #[wasm_bindgen(constructor)]
    pub fn open(
        log_a: FileSystemSyncAccessHandle,
        log_b: FileSystemSyncAccessHandle,
        pages: FileSystemSyncAccessHandle,
        spare: FileSystemSyncAccessHandle,
        log_size_max: f64,
        pool_pages_max: usize,
    ) -> Self {
        let [log_a, log_b, pages, spare] = [log_a, log_b, pages, spare].map(disk);
        let files = StoreFiles { log_a, log_b, pages, spare };
        let options = timed::options(log_size_max as u64, pool_pages_max);
        let server = timed::open(files, options);
        Self { server, prepared: Vec::new(), lsn: Lsn::FIRST }
    }

    /// Makes the appends of a commit: so many small ones of each of so many owners.
    pub fn prepare(&mut self, owners: u32, calls: u32) {
        self.prepared = timed::small_requests(owners.into(), calls.into(), self.lsn);
        self.lsn = self.lsn.plus(calls.into());
    }

    /// Makes them durable. Gives how many owners were told so.
    pub fn commit(&mut self) -> usize {
        timed::commit(&mut self.server, std::mem::take(&mut self.prepared))
    }

    /// Bytes of log.
    #[wasm_bindgen(js_name = logSize)]
    pub fn log_size(&self) -> f64 {
        timed::log_size(&self.server) as f64
    }

    /// Writes the first pages of a document, and lets everything come to rest.
    pub fn fill(&mut self, document: &str, pages: u32) {
        timed::fill_document(&mut self.server, document, pages);
    }

    /// Appends as much as makes a log of this size change over, and does not yet let it.
    #[wasm_bindgen(js_name = fillLog)]
    pub fn fill_log(&mut self, log_size_max: f64) {
        timed::fill_until_change_over(&mut self.server, log_size_max as u64);
    }

    /// Does what can be done now. Says whether there is more.
    pub fn poll(&mut self) -> bool {
        self.server.poll();
        self.server.wants_poll()
    }

    /// Reads these pages of document `a`. Gives how many there are.
    pub fn read(&mut self, first: u32, last: u32) -> usize {
        timed::read_all(&mut self.server, first..=last)
    }
}

/// Reads a whole file and checks what it says: the least that opening a log must do.
#[wasm_bindgen]
pub fn checksum(handle: FileSystemSyncAccessHandle) -> u32 {
    let disk = disk(handle);
    let mut bytes = vec![0; WINDOW_SIZE];
    let (mut at, mut checksum) = (0, 0);
    while at < disk.size() {
        let left = usize::try_from(disk.size() - at).unwrap_or(usize::MAX);
        let window = &mut bytes[..left.min(WINDOW_SIZE)];
        disk.read_at(at, window).expect("within the file");
        checksum = crc32c::crc32c_append(checksum, window);
        at += window.len() as u64;
    }
    checksum
}
