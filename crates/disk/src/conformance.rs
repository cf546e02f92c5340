//! The laws of [`Disk`] as a suite that every implementation passes, natively and in a browser.
//!
//! [`run`] is for every disk; [`run_reopened`] for those that have something to open; and
//! [`run_failing`] for those that can be told to fail. What a power cut leaves is for whoever
//! keeps files behind a disk; the tests of [`CrashDevice`](crate::CrashDevice) show its own.

mod failing;
mod reopened;

use std::pin::pin;
use std::task::{Context, Waker};

use crate::{Disk, DiskError};

pub use failing::{Failure, run_failing};
pub use reopened::run_reopened;

/// Checks every law that can be checked without cutting the power, each on a new, empty disk.
///
/// # Panics
///
/// At the first law that is broken.
pub fn run<D: Disk>(mut new: impl FnMut() -> D) {
    run_with(&mut new, |_| {});
}

/// Like [`run`], for disks whose flushes complete later: `complete` is called after each request.
///
/// # Panics
///
/// At the first law that is broken.
pub fn run_with<D: Disk>(new: impl FnMut() -> D, mut complete: impl FnMut(&mut D)) {
    let mut suite = pin!(run_later(new, async |disk: &mut D| complete(disk)));
    let polled = suite.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_ready(), "BUG: nothing in it waits");
}

/// Like [`run`], for disks whose flushes complete some time later: `complete` waits for that.
///
/// # Panics
///
/// At the first law that is broken.
pub async fn run_later<D: Disk>(mut new: impl FnMut() -> D, mut complete: impl AsyncFnMut(&mut D)) {
    a_new_disk_is_empty(&new());
    a_write_is_seen_by_the_next_read(&mut new());
    a_gap_reads_as_zeros(&mut new());
    a_read_past_the_end_is_refused(&mut new());
    an_empty_write_changes_nothing(&mut new());
    an_absurd_place_is_refused(&mut new());
    the_size_can_be_set(&mut new());
    a_cut_tail_does_not_come_back(&mut new());
    growing_by_size_reads_as_zeros(&mut new());
    flushes_are_numbered_upwards(&mut new(), &mut complete).await;
    a_flush_changes_nothing_that_is_read(&mut new(), &mut complete).await;
    large_writes_arrive_whole(&mut new(), &mut complete).await;
}

fn read<D: Disk>(disk: &D, offset: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0xEE; count];
    disk.read_at(offset, &mut bytes).expect("a read within the file");
    bytes
}

fn a_new_disk_is_empty<D: Disk>(disk: &D) {
    assert_eq!(disk.size(), 0, "a new disk has no bytes");
    assert_eq!(disk.read_at(0, &mut []), Ok(()), "reading nothing at the end succeeds");
}

fn a_write_is_seen_by_the_next_read<D: Disk>(disk: &mut D) {
    disk.write_at(0, b"abcdef").expect("room");
    disk.write_at(2, b"XY").expect("room");
    assert_eq!(disk.size(), 6);
    assert_eq!(read(disk, 0, 6), b"abXYef");
    assert_eq!(read(disk, 3, 2), b"Ye");
    disk.write_at(4, b"1234").expect("room");
    assert_eq!(read(disk, 0, 8), b"abXY1234", "a write may pass the end");
}

fn a_gap_reads_as_zeros<D: Disk>(disk: &mut D) {
    disk.write_at(1000, b"z").expect("room");
    assert_eq!(disk.size(), 1001);
    let mut expected = vec![0; 1001];
    expected[1000] = b'z';
    assert_eq!(read(disk, 0, 1001), expected);
}

fn a_read_past_the_end_is_refused<D: Disk>(disk: &mut D) {
    disk.write_at(0, &[7; 100]).expect("room");
    for (offset, count) in [(0, 101), (100, 1), (99, 2), (5000, 1), (u64::MAX, 2)] {
        let answer = disk.read_at(offset, &mut vec![0; count]);
        assert!(
            matches!(answer, Err(DiskError::OutOfRange { size: 100, .. })),
            "{count} bytes at {offset} of 100 gave {answer:?}",
        );
    }
    assert_eq!(read(disk, 0, 100), [7; 100], "and the disk is still of use");
}

fn an_empty_write_changes_nothing<D: Disk>(disk: &mut D) {
    disk.write_at(0, b"abc").expect("room");
    disk.write_at(1, b"").expect("room for nothing");
    disk.write_at(900, b"").expect("room for nothing");
    assert_eq!(disk.size(), 3);
    assert_eq!(read(disk, 0, 3), b"abc");
}

fn an_absurd_place_is_refused<D: Disk>(disk: &mut D) {
    disk.write_at(0, b"abc").expect("room");
    assert!(disk.write_at(u64::MAX - 1, b"xyz").is_err(), "there is no such place");
    assert!(disk.set_size(u64::MAX).is_err(), "there is no such size");
    assert_eq!(disk.size(), 3);
    assert_eq!(read(disk, 0, 3), b"abc");
}

fn growing_by_size_reads_as_zeros<D: Disk>(disk: &mut D) {
    disk.write_at(0, &[5; 900]).expect("room");
    disk.set_size(300).expect("a smaller size");
    disk.set_size(1300).expect("room");
    assert_eq!(disk.size(), 1300);
    assert_eq!(read(disk, 0, 300), [5; 300]);
    assert_eq!(read(disk, 300, 1000), [0; 1000], "nothing of the old tail comes back");
}

fn the_size_can_be_set<D: Disk>(disk: &mut D) {
    disk.write_at(0, b"abcdef").expect("room");
    disk.set_size(10).expect("room");
    assert_eq!(disk.size(), 10);
    assert_eq!(read(disk, 0, 10), b"abcdef\0\0\0\0");
    disk.set_size(2).expect("a smaller size");
    assert_eq!(disk.size(), 2);
    assert!(disk.read_at(0, &mut [0; 3]).is_err(), "what was cut off is gone");
    disk.set_size(0).expect("a smaller size");
    assert_eq!(disk.size(), 0);
}

fn a_cut_tail_does_not_come_back<D: Disk>(disk: &mut D) {
    disk.write_at(0, &[5; 2000]).expect("room");
    disk.set_size(700).expect("a smaller size");
    disk.write_at(1500, b"z").expect("room");
    assert_eq!(read(disk, 0, 700), [5; 700]);
    assert_eq!(read(disk, 700, 800), [0; 800], "the gap reads as zeros, not as the old tail");
}

async fn flushes_are_numbered_upwards<D: Disk>(
    disk: &mut D,
    complete: &mut impl AsyncFnMut(&mut D),
) {
    assert_eq!(disk.flushed(), Ok(None), "nothing was asked for");
    disk.write_at(0, b"abc").expect("room");
    let first = disk.request_flush().expect("a healthy disk");
    complete(disk).await;
    let done = disk.flushed().expect("a healthy disk");
    assert_eq!(done, Some(first), "the only flush is complete");
    disk.write_at(3, b"def").expect("room");
    let second = disk.request_flush().expect("a healthy disk");
    let third = disk.request_flush().expect("a flush of nothing new");
    assert!(first < second && second < third, "numbers count up");
    complete(disk).await;
    assert_eq!(disk.flushed(), Ok(Some(third)));
    assert_eq!(read(disk, 0, 6), b"abcdef");
}

async fn a_flush_changes_nothing_that_is_read<D: Disk>(
    disk: &mut D,
    complete: &mut impl AsyncFnMut(&mut D),
) {
    disk.write_at(0, &[1; 1200]).expect("room");
    disk.request_flush().expect("a healthy disk");
    disk.write_at(600, &[2; 1200]).expect("room");
    complete(disk).await;
    let expected = [[1; 600].as_slice(), &[2; 1200]].concat();
    assert_eq!(read(disk, 0, 1800), expected, "what was written since is seen all the same");
}

async fn large_writes_arrive_whole<D: Disk>(disk: &mut D, complete: &mut impl AsyncFnMut(&mut D)) {
    let bytes: Vec<u8> = (0..3_000_001_u32).map(|index| (index * 31 / 7) as u8).collect();
    disk.write_at(5, &bytes).expect("room for 3 MB");
    disk.request_flush().expect("a healthy disk");
    complete(disk).await;
    assert_eq!(disk.size(), 3_000_006);
    assert!(read(disk, 5, bytes.len()) == bytes, "3 MB came back changed");
}
