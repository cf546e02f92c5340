//! How a log is opened, appended to and cut off.

#![allow(dead_code, reason = "each test file uses its part of it")]

use std::sync::atomic::{AtomicU64, Ordering};

use tidelog_disk::{CrashDevice, CrashDisk, Disk, MemoryDisk};
use tidelog_journal::{
    DocumentNumber, FRAME_HEADER_SIZE, Found, FrameHead, Log, LogReport, RecoverError, Seed,
    Witness,
};
use tidelog_types::Epoch;

pub type Bodies = Vec<Vec<u8>>;

/// A number that no test has used before: as by chance, but for its order.
pub fn seed() -> Seed {
    static OPENINGS: AtomicU64 = AtomicU64::new(1);
    Seed(OPENINGS.fetch_add(1, Ordering::Relaxed))
}

pub fn recover<D: Disk>(files: [D; 2]) -> Result<(Log<D>, LogReport, Bodies), RecoverError> {
    let mut bodies = Vec::new();
    let (log, report) = Log::recover(files, Witness::None, seed(), 0, &mut |found| {
        if let Found::Frame(frame) = found {
            bodies.push(frame.body.to_vec());
        }
        Ok(())
    })?;
    Ok((log, report, bodies))
}

/// What is lost of a damaged log: where, and whose it is.
pub fn lost<D: Disk>(files: [D; 2]) -> Vec<(u64, Option<u64>)> {
    let mut lost = Vec::new();
    let answer = Log::recover(files, Witness::None, seed(), 0, &mut |found| {
        if let Found::Lost { offset, head, .. } = found {
            lost.push((offset, head.map(|head| head.document.0)));
        }
        Ok(())
    });
    answer.expect("a damaged log can be read");
    lost
}

pub fn head(kind: u8) -> FrameHead {
    FrameHead::new(kind, DocumentNumber(7), Epoch(3))
}

/// A log in memory with one batch for each group of bodies, each flushed by itself.
pub fn written(batches: &[&[&[u8]]]) -> [MemoryDisk; 2] {
    let device = CrashDevice::new();
    let files = [device.file("a"), device.file("b")];
    let (mut log, _, _) = recover(files).expect("empty files");
    for batch in batches {
        append(&mut log, batch);
        log.poll_flushed().expect("healthy");
    }
    let [mut a, b] = memory(&device);
    // Without the room behind the end mark.
    a.set_size(log.size() + 8).expect("less than there is");
    [a, b]
}

pub fn append(log: &mut Log<CrashDisk>, bodies: &[&[u8]]) {
    for body in bodies {
        log.push(&head(1), &[body]);
    }
    log.commit();
    log.write().expect("room");
    log.request_flush().expect("healthy");
}

pub fn append_unflushed(log: &mut Log<CrashDisk>, body: &[u8]) {
    log.push(&head(1), &[body]);
    log.commit();
    log.write().expect("room");
}

pub fn memory(device: &CrashDevice) -> [MemoryDisk; 2] {
    ["a", "b"].map(|name| MemoryDisk::holding(device.bytes_of(name).expect("a file")))
}

/// Bytes of a frame without a call and a chain whose body has up to six bytes.
pub const FRAME_SIZE: usize = 104;

/// A body whose frame is one sector, so that a frame and what follows it survive apart.
pub const SECTOR_BODY: [u8; 512 - FRAME_HEADER_SIZE] = [5; 512 - FRAME_HEADER_SIZE];

/// A cut of the power that these un-flushed sectors survive, in order, and every new size.
pub fn survivors(device: &CrashDevice, sectors: &[bool]) -> CrashDevice {
    // A new size, if there is one, is chosen before the sectors.
    let sizes = std::iter::repeat_n(true, device.choices().len() - sectors.len());
    let mut choices = sizes.chain(sectors.iter().copied());
    let left = device.crash(&mut |versions| {
        let survives = choices.next().expect("a choice for each sector");
        if survives { versions - 1 } else { 0 }
    });
    assert_eq!(choices.next(), None, "a sector for each choice");
    left
}

/// Copies `state` and a batch of `tail` into the other file and goes over to it.
pub fn change_over(log: &mut Log<CrashDisk>, state: &[&[u8]], tail: &[&[u8]]) {
    log.begin_copy().expect("room");
    for body in state {
        log.copy(&head(1), &[body]).expect("room");
    }
    log.end_state().expect("room");
    for (index, body) in (0..).zip(tail) {
        log.copy_part(&head(1), &[body], (index, tail.len() as u32)).expect("room");
    }
    log.hold();
    let id = log.flush_copy().expect("room");
    assert_eq!(log.is_copy_flushed(id), Ok(true));
    let id = log.seal().expect("room");
    assert_eq!(log.is_copy_flushed(id), Ok(true));
    assert_eq!(log.switch(), Ok(Vec::new()));
    log.poll_flushed().expect("healthy");
}
