//! What is left after a device failed.

use super::read;
use crate::{Disk, DiskError};

/// What goes wrong at the next call that it can go wrong at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The next flush fails, at its request or when it should complete.
    Flush,
    /// The next write writes some of its bytes, or none, and says how many.
    ShortWrite,
    /// The next write claims a length that it was not given.
    AbsurdLength,
    /// The next write, or change of size, meets a full device.
    Full,
}

/// Checks what a failure leaves, each on a new, empty disk: `fail` makes the next call of that
/// kind fail, `complete` is called after each flush request.
///
/// # Panics
///
/// At the first law that is broken.
pub fn run_failing<D: Disk>(
    mut new: impl FnMut() -> D,
    mut fail: impl FnMut(&mut D, Failure),
    mut complete: impl FnMut(&mut D),
) {
    a_failed_flush_poisons_the_file(&mut new(), &mut fail, &mut complete);
    for failure in [Failure::ShortWrite, Failure::AbsurdLength, Failure::Full] {
        let disk = &mut new();
        a_failed_write_leaves_the_rest_alone(disk, failure, &mut fail, &mut complete);
    }
    a_size_there_is_no_room_for_changes_nothing(&mut new(), &mut fail);
}

fn a_failed_flush_poisons_the_file<D: Disk>(
    disk: &mut D,
    fail: &mut impl FnMut(&mut D, Failure),
    complete: &mut impl FnMut(&mut D),
) {
    disk.write_at(0, b"abc").expect("room");
    disk.request_flush().expect("healthy so far");
    complete(disk);
    disk.write_at(3, b"def").expect("room");
    fail(disk, Failure::Flush);
    if disk.request_flush().is_ok() {
        complete(disk);
    }
    let poisoned = Err(DiskError::Poisoned);
    assert_eq!(disk.flushed(), poisoned, "it is not known what survives");
    assert_eq!(disk.write_at(0, b"abc").err(), poisoned.clone().err());
    assert_eq!(disk.set_size(1).err(), poisoned.clone().err());
    assert_eq!(disk.read_at(0, &mut [0; 3]).err(), poisoned.clone().err());
    assert_eq!(disk.request_flush().err(), poisoned.err(), "a failed flush is not repeated");
    assert_eq!(disk.size(), 6, "the size alone is still told");
}

fn a_failed_write_leaves_the_rest_alone<D: Disk>(
    disk: &mut D,
    failure: Failure,
    fail: &mut impl FnMut(&mut D, Failure),
    complete: &mut impl FnMut(&mut D),
) {
    disk.write_at(0, &[1; 2000]).expect("room");
    fail(disk, failure);
    let error = disk.write_at(500, &[2; 1000]).expect_err("it was told to fail");
    assert!(error.is_full(), "{failure:?} gave {error:?}, which no owner survives");
    assert_eq!(disk.size(), 2000);
    assert_eq!(read(disk, 0, 500), [1; 500], "before the write");
    assert_eq!(read(disk, 1500, 500), [1; 500], "after it");
    let within = read(disk, 500, 1000);
    assert!(within.iter().all(|byte| matches!(byte, 1 | 2)), "old or new, and nothing else");

    fail(disk, failure);
    disk.write_at(2000, &[3; 1000]).expect_err("it was told to fail");
    assert!((2000..=3000).contains(&disk.size()), "it grew to {}", disk.size());
    assert_eq!(read(disk, 1500, 500), [1; 500], "before the write");

    disk.write_at(500, &[4; 10]).expect("what there is room for");
    disk.request_flush().expect("the file is still of use");
    complete(disk);
    assert!(disk.flushed().expect("the file is still of use").is_some());
    assert_eq!(read(disk, 500, 10), [4; 10]);
}

fn a_size_there_is_no_room_for_changes_nothing<D: Disk>(
    disk: &mut D,
    fail: &mut impl FnMut(&mut D, Failure),
) {
    disk.write_at(0, b"abc").expect("room");
    fail(disk, Failure::Full);
    let error = disk.set_size(9000).expect_err("it was told to fail");
    assert!(error.is_full(), "{error:?}");
    assert_eq!(disk.size(), 3);
    assert_eq!(read(disk, 0, 3), b"abc");
}
