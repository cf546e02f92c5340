//! How large the store is, and how much room is left, for whoever watches the server.

use std::fs::metadata;
use std::path::Path;
use std::sync::atomic::Ordering;

use crate::counters::Counters;

/// Looks at the files of the store in `folder`. What cannot be read stays as it was.
pub(super) fn measure(folder: &Path, counters: &Counters) {
    let size = |name: &str| metadata(folder.join(name)).map(|it| it.len());
    if let (Ok(one), Ok(other)) = (size("log-a"), size("log-b")) {
        counters.store_log_size.store(one + other, Ordering::Relaxed);
    }
    if let Ok(size) = size("pages") {
        counters.store_pages_size.store(size, Ordering::Relaxed);
    }
    #[cfg(unix)]
    if let Ok(disk) = rustix::fs::statvfs(folder) {
        // What is kept for the system alone is of no use to us.
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        counters.disk_free_size.store(free, Ordering::Relaxed);
    }
}
