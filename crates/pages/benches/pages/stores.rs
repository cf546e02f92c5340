//! Stores in folders, and the raw file beside them.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidelog_disk::{NativeDisk, StoreFiles};
use tidelog_pages::{PageServer, StoreOptions};

use tidelog_testing::timed;

pub type Server = PageServer<NativeDisk>;

/// A folder on the disk that is built on, since memory would flush in no time.
pub fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

/// A store that is open, and what was found in it flushed.
pub fn open_with(folder: &Path, options: StoreOptions) -> Server {
    timed::open(StoreFiles::in_folder(folder).expect("files"), options)
}

/// Writes bytes at the end of a file, and flushes it.
pub struct RawFile {
    file: std::fs::File,
    end: u64,
}

impl RawFile {
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("raw");
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(path);
        Self { file: file.expect("a new file"), end: 4096 }
    }

    /// Writes bytes over those that were written first, and flushes them.
    pub fn rewrite(&mut self, bytes: &[u8]) -> Duration {
        self.end = 4096;
        self.append(bytes)
    }

    pub fn append(&mut self, bytes: &[u8]) -> Duration {
        let began = Instant::now();
        self.file.write_all_at(bytes, self.end).expect("room");
        self.file.sync_data().expect("healthy");
        self.end += bytes.len() as u64;
        began.elapsed()
    }
}
