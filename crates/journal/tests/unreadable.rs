//! What is believed of a log that the device cannot read in some place.

mod common;

use common::{append, append_unflushed, change_over, recover};
use tidelog_disk::{BLOCK_SIZE, CrashDevice, CrashDisk, Disk, SECTOR_SIZE};
use tidelog_journal::{LOG_START, RecoverError};

const BLOCK: u64 = BLOCK_SIZE as u64;

fn files(device: &CrashDevice) -> [CrashDisk; 2] {
    ["a", "b"].map(|name| device.file(name))
}

/// The same device, and a sector of this block of the file cannot be read.
fn without(device: &CrashDevice, file: &str, block: u64) -> CrashDevice {
    let left = device.kill();
    let sector = block * BLOCK + block % 8 * SECTOR_SIZE as u64;
    left.make_unreadable(file, sector..sector + SECTOR_SIZE as u64);
    left
}

/// Goal: what cannot be read where something may have been written is damage; what lies behind is
/// nothing. Method: batches of one block and of several, and each block of the file in turn.
#[test]
fn a_block_that_cannot_be_read_is_damage_up_to_the_end_and_nothing_behind_it() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover(files(&device)).expect("empty files");
    let long = [7; 2 * BLOCK_SIZE];
    let batches: [&[&[u8]]; 4] = [&[b"one"], &[b"two", &long], &[b"three"], &[b"four"]];
    for batch in batches {
        append(&mut log, batch);
        log.poll_flushed().expect("healthy");
    }
    let first = LOG_START / BLOCK;
    // The next batch would begin in the last of these.
    let blocks_of = [first..first + 1, first + 1..first + 4, first + 4..first + 5];
    let next = first + 6;
    assert_eq!(log.size().div_ceil(BLOCK), next);
    device.file("a").set_size((next + 4) * BLOCK).expect("room");
    let all: Vec<&[&[u8]]> = batches.to_vec();
    for block in first..next + 4 {
        let left = without(&device, "a", block);
        let (mut log, report, bodies) = recover(files(&left)).expect("it can be read");
        let lost = blocks_of.iter().position(|blocks| blocks.contains(&block));
        let lost = lost.or((block == next - 1).then_some(3));
        let kept = all.iter().enumerate().filter(|(nth, _)| Some(*nth) != lost);
        let kept: Vec<Vec<u8>> =
            kept.flat_map(|(_, batch)| batch.iter().map(|body| body.to_vec())).collect();
        assert_eq!((bodies, report.cut), (kept, None), "block {block}");
        assert_eq!(report.damage.len(), usize::from(block <= next), "block {block}: {report:?}");
        // Of the block behind it the same is to be said once the log ends there.
        if block > next + 1 {
            append(&mut log, &[b"five"]);
            let (_, report, bodies) = recover(files(&left)).expect("it can be read");
            assert_eq!((bodies.len(), report.damage.len()), (6, 0), "block {block}");
        }
    }
}

/// Goal: a tail that may have been durable is not cut off. Method: a batch of which nothing says
/// that it is durable lacks a block: since that cannot be read, or because of a power cut, beside
/// a block behind the tail that cannot be read.
#[test]
fn a_tail_with_a_block_that_cannot_be_read_is_damage_and_a_torn_one_beside_such_a_block_is_cut() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover(files(&device)).expect("empty files");
    append(&mut log, &[b"one"]);
    log.poll_flushed().expect("healthy");
    append_unflushed(&mut log, &[7; 2 * BLOCK_SIZE]);
    let middle = LOG_START / BLOCK + 2;
    let behind = middle + 3;
    device.file("a").set_size((behind + 1) * BLOCK).expect("room");

    let left = without(&device, "a", middle);
    let before = left.bytes_of("a");
    let (log, report, bodies) = recover(files(&left)).expect("it can be read");
    assert_eq!((bodies.len(), report.damage.len(), log.is_damaged()), (1, 1, true));
    assert_eq!(left.bytes_of("a"), before, "nothing is written to it");

    let left = without(&device, "a", behind);
    left.file("a").write_at(middle * BLOCK, &[0; BLOCK_SIZE]).expect("room");
    let (_, report, bodies) = recover(files(&left)).expect("it can be read");
    assert_eq!((bodies.len(), report.damage.len()), (1, 0));
    assert!(report.cut.is_some());
}

#[test]
fn a_header_of_which_one_copy_cannot_be_read_is_the_other_copy() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover(files(&device)).expect("empty files");
    append(&mut log, &[b"old"]);
    change_over(&mut log, &[b"state"], &[]);
    append(&mut log, &[b"new"]);
    for (file, block) in [("a", 0), ("a", 1), ("b", 0), ("b", 1)] {
        let left = without(&device, file, block);
        let (_, report, bodies) = recover(files(&left)).expect("it can be read");
        assert_eq!(report.damage, [], "{file} {block}");
        assert_eq!(bodies, [b"state".to_vec(), b"new".to_vec()], "{file} {block}");
    }
}

#[test]
fn a_log_of_which_nothing_can_be_read_is_not_opened() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover(files(&device)).expect("empty files");
    append(&mut log, &[b"one"]);
    device.make_unreadable("a", 0..u64::MAX);
    let opened = recover(files(&device)).map(drop);
    assert!(matches!(opened, Err(RecoverError::Disk(_))), "{opened:?}");
}
