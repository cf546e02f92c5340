//! The laws of files that can be opened more than once.

use super::read;
use crate::{Disk, DiskError};

/// Checks the laws of opening on one file, new and empty at the first call of `open`. `complete`
/// is called after each flush request.
///
/// # Panics
///
/// At the first law that is broken.
pub fn run_reopened<D: Disk>(
    mut open: impl FnMut() -> Result<D, DiskError>,
    mut complete: impl FnMut(&mut D),
) {
    let mut disk = open().expect("a new file");
    assert_eq!(disk.size(), 0, "a new file has no bytes");
    assert_eq!(open().err(), Some(DiskError::Busy), "a file has one owner at a time");
    disk.write_at(3, b"tide").expect("room");
    disk.write_at(700, &[7; 5000]).expect("room");
    disk.set_size(4000).expect("a smaller size");
    disk.request_flush().expect("a healthy disk");
    complete(&mut disk);
    drop(disk);

    let mut disk = open().expect("its owner let go of it");
    assert_eq!(disk.size(), 4000, "the size is found again");
    assert_eq!(read(&disk, 0, 8), b"\0\0\0tide\0");
    assert_eq!(read(&disk, 699, 3301)[1..], [7; 3300]);
    assert_eq!(disk.flushed(), Ok(None), "flushes are those of this owner");
    disk.set_size(0).expect("a smaller size");
    disk.request_flush().expect("a healthy disk");
    complete(&mut disk);
    drop(disk);
    assert_eq!(open().expect("its owner let go of it").size(), 0);
}
