//! What is believed of a log whose durable bytes have changed.

mod common;

use common::{FRAME_SIZE, SECTOR_BODY, append, change_over, head, lost, memory, recover, written};
use tidelog_disk::{BLOCK_SIZE, CrashDevice, CrashDisk, Disk, MemoryDisk};
use tidelog_journal::{
    Damage, DocumentNumber, FRAME_HEADER_SIZE, FrameHead, LOG_START, Log, LogFile, RecoverError,
};
use tidelog_types::Epoch;

/// The same as an offset.
const SIZE: u64 = FRAME_SIZE as u64;

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let batches: &[&[&[u8]]] = &[&[b"one"], &[b"two", b"three"], &[b"four"]];
    let whole = written(batches)[0].bytes().to_vec();
    let all = ["one", "two", "three", "four"].map(|body| body.as_bytes().to_vec());
    // Three writes, each with blocks of its own, of one, two and one frame.
    let [first, second, last] = [0, 1, 2].map(|nth| LOG_START as usize + nth * BLOCK_SIZE);
    let is_gap = |at: usize| {
        (first + FRAME_SIZE..second).contains(&at) || at >= second + 2 * FRAME_SIZE && at < last
    };
    for bit in 0..whole.len() * 8 {
        let at = bit / 8;
        if (at < LOG_START as usize || is_gap(at)) && !bit.is_multiple_of(13) {
            continue;
        }
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (bit % 8);
        match recover([MemoryDisk::holding(bytes), MemoryDisk::default()]) {
            // Each header copy is enough, and the rest of their sectors' area means nothing.
            Ok((_, report, bodies)) if at < LOG_START as usize => {
                assert_eq!((bodies.as_slice(), report.cut), (all.as_slice(), None));
            }
            Ok((_, report, bodies)) if is_gap(at) || at >= last + FRAME_SIZE + 8 => {
                assert_eq!((bodies.as_slice(), report.damage.len()), (all.as_slice(), 0));
            }
            // Of the last batch nothing says that it was durable: it can only be a torn tail.
            Ok((_, report, bodies)) if at >= last => {
                assert!(report.cut.is_some(), "bit {bit} was not reported");
                assert!(report.damage.is_empty(), "bit {bit}: {report:?}");
                assert!(bodies.len() >= 3 && all.starts_with(&bodies), "bit {bit}");
            }
            Ok((log, report, bodies)) => {
                let (start, size, left) = match at - LOG_START as usize {
                    ..FRAME_SIZE => (0, BLOCK_SIZE as u64, &all[1..]),
                    _ => {
                        (SIZE, 2 * BLOCK_SIZE as u64 - SIZE, &[all[0].clone(), all[3].clone()][..])
                    }
                };
                let offset = LOG_START + start;
                assert_eq!(report.damage, [Damage { file: LogFile::A, offset, size }], "bit {bit}");
                assert_eq!((log.is_damaged(), report.cut), (true, None), "bit {bit}");
                assert_eq!(bodies, left, "bit {bit}");
            }
            Err(other) => panic!("bit {bit}: {other}"),
        }
    }
}

#[test]
fn damage_in_the_copied_state_is_damage() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    append(&mut log, &[b"old"]);
    change_over(&mut log, &[b"state", b"of", b"three"], &[]);
    let [a, b] = memory(&device);
    let mut bytes = b.bytes().to_vec();
    bytes[LOG_START as usize + FRAME_SIZE + 4] ^= 4;
    let files = || [a.clone(), MemoryDisk::holding(bytes.clone())];
    let (_, report, bodies) = recover(files()).expect("a damaged log can be read");
    let damage = Damage { file: LogFile::B, offset: LOG_START + SIZE, size: SIZE };
    assert_eq!(report.damage, [damage], "the older file must not be used instead");
    assert_eq!(bodies, [b"state".to_vec(), b"three".to_vec()]);
    assert_eq!(lost(files()), [(LOG_START + SIZE, None)]);
}

#[test]
fn what_was_sealed_was_durable_though_no_later_frame_says_so() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    change_over(&mut log, &[b"state"], &[b"one", b"two"]);
    let [a, b] = memory(&device);
    for frame in 0..3 {
        let mut bytes = b.bytes().to_vec();
        // The state is written by itself.
        let at = [0, BLOCK_SIZE, BLOCK_SIZE + FRAME_SIZE][frame];
        bytes[LOG_START as usize + at + FRAME_HEADER_SIZE + 5] ^= 4;
        let files = [a.clone(), MemoryDisk::holding(bytes)];
        let (_, report, bodies) = recover(files).expect("a damaged log can be read");
        let left = if frame == 0 { 2 } else { 1 };
        assert_eq!((report.damage.len(), report.cut, bodies.len()), (1, None, left), "{frame}");
    }
}

#[test]
fn a_damaged_body_is_lost_alone_and_its_header_says_whose_it_was() {
    let frame = |log: &mut Log<CrashDisk>, document: u64, body: &[u8]| {
        log.push(&FrameHead::new(1, DocumentNumber(document), Epoch(1)), &[body]);
    };
    let device = CrashDevice::new();
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    // Whole frames of this very place, within a body: they are not looked for where the header
    // tells the body's size.
    for document in 1..=3 {
        frame(&mut log, document, b"first");
        frame(&mut log, document, b"second");
        log.commit();
        log.write().expect("room");
        log.request_flush().expect("healthy");
        log.poll_flushed().expect("healthy");
    }
    let [a, b] = memory(&device);
    let mut bytes = a.bytes().to_vec();
    bytes[LOG_START as usize + BLOCK_SIZE + FRAME_SIZE + FRAME_HEADER_SIZE] ^= 1;
    let files = || [MemoryDisk::holding(bytes.clone()), b.clone()];
    let (_, report, bodies) = recover(files()).expect("a damaged log can be read");
    // From the end of the batch before to the begin of the one behind.
    let size = 2 * BLOCK_SIZE as u64 - 2 * SIZE;
    let offset = LOG_START + 2 * SIZE;
    assert_eq!(report.damage, [Damage { file: LogFile::A, offset, size }]);
    assert_eq!(bodies.len(), 4, "a batch is there whole or not at all");
    let at = LOG_START + BLOCK_SIZE as u64;
    assert_eq!(lost(files()), [(at, Some(2)), (at + SIZE, Some(2))]);
}

/// Goal: nothing that was given up is believed behind what is damaged later. Method: three batches
/// of a sector each are written at once, the one in the middle is torn, so that the last stands in
/// the block in which the log then ends; what is appended next lies behind that block, and then the
/// batch before the gap loses its header.
#[test]
fn what_was_cut_is_not_found_behind_damage() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    append(&mut log, &[b"first"]);
    log.poll_flushed().expect("healthy");
    for _ in 0..3 {
        log.push(&head(1), &[&SECTOR_BODY]);
        log.commit();
    }
    log.write().expect("room");
    drop(log);
    let start = LOG_START + BLOCK_SIZE as u64;
    device.file("a").write_at(start + 512, &[0; 512]).expect("room");
    let (mut log, report, bodies) =
        recover([device.file("a"), device.file("b")]).expect("a torn tail");
    assert_eq!((bodies.len(), report.cut.map(|cut| cut.offset)), (2, Some(start + 512)));
    log.request_flush().expect("healthy");
    log.poll_flushed().expect("healthy");
    append(&mut log, &[b"next"]);
    append(&mut log, &[b"last"]);
    let [a, b] = memory(&device);
    let mut bytes = a.bytes().to_vec();
    bytes[usize::try_from(start).expect("small") + 20] ^= 1;
    let (_, report, bodies) =
        recover([MemoryDisk::holding(bytes), b]).expect("a damaged log can be read");
    assert_eq!(bodies, [b"first".to_vec(), b"next".to_vec(), b"last".to_vec()]);
    assert_eq!(report.damage.len(), 1);
}

/// Goal: what is cut off does not come back, whichever of its sectors a second power cut leaves.
/// Method: a frame lacks a sector of zeros, in the place of which something else stands.
#[test]
fn what_was_cut_does_not_come_back_with_a_sector_of_zeros() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    append(&mut log, &[b"first"]);
    log.poll_flushed().expect("healthy");
    for body in [b"whole".as_slice(), &[0; 1500]] {
        log.push(&head(1), &[body]);
        log.commit();
    }
    log.write().expect("room");
    drop(log);
    let lacking = LOG_START + BLOCK_SIZE as u64 + 512;
    device.file("a").write_at(lacking, &[7; 512]).expect("room");
    device.file("a").request_flush().expect("healthy");
    device.hold_flushes(true);
    let (log, report, bodies) = recover([device.file("a"), device.file("b")]).expect("a torn tail");
    assert_eq!((bodies.len(), report.cut.is_some()), (2, true));
    drop(log);
    for mix in 0..1 << device.unflushed_sectors() {
        let mut left: u32 = mix;
        let image = device.crash(&mut |versions| {
            let newest = left & 1;
            left >>= 1;
            if newest == 1 { versions - 1 } else { 0 }
        });
        let (_, _, bodies) =
            recover([image.file("a"), image.file("b")]).expect("whatever is left of the tail");
        assert_eq!(bodies, [b"first".to_vec(), b"whole".to_vec()], "{mix:b}");
    }
}

#[test]
fn an_offset_that_no_file_has_is_not_believed() {
    let whole = written(&[&[b"one"], &[b"two"]])[0].bytes().to_vec();
    let absurd = (u64::MAX - 7).to_le_bytes();
    let opened =
        |bytes: &[u8]| recover([MemoryDisk::holding(bytes.to_vec()), MemoryDisk::default()]);
    // The state end, and what was durable.
    for at in [24, 32] {
        let mut bytes = whole.clone();
        for copy in [0, BLOCK_SIZE] {
            bytes[copy + at..copy + at + 8].copy_from_slice(&absurd);
            let checksum = crc32c::crc32c(&bytes[copy..copy + 508]).to_le_bytes();
            bytes[copy + 508..copy + 512].copy_from_slice(&checksum);
        }
        assert_eq!(opened(&bytes).err(), Some(RecoverError::DamagedHeader { file: LogFile::A }));
    }
    // And what a frame says was durable.
    let (mut bytes, salt) = (whole.clone(), &whole[40..48]);
    let offset = LOG_START + BLOCK_SIZE as u64;
    let frame = &mut bytes[usize::try_from(offset).expect("small")..];
    frame[22..30].copy_from_slice(&absurd);
    let place = crc32c::crc32c_append(crc32c::crc32c(salt), &offset.to_le_bytes());
    let checksum = crc32c::crc32c_append(place, &frame[8..FRAME_HEADER_SIZE]).to_le_bytes();
    frame[4..8].copy_from_slice(&checksum);
    let (_, report, bodies) = opened(&bytes).expect("a torn tail");
    assert_eq!((bodies, report.damage.len()), (vec![b"one".to_vec()], 0));
}

/// Goal: no file keeps a reader busy for ever. Method: the copied state of one ends in the middle
/// of a batch.
#[test]
fn a_batch_across_the_end_of_the_state_is_lost() {
    let mut bytes = written(&[&[b"one", b"two"]])[0].bytes().to_vec();
    let state_end = LOG_START + SIZE;
    for copy in [0, BLOCK_SIZE] {
        bytes[copy + 24..copy + 32].copy_from_slice(&state_end.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[copy..copy + 508]).to_le_bytes();
        bytes[copy + 508..copy + 512].copy_from_slice(&checksum);
    }
    let (_, report, bodies) =
        recover([MemoryDisk::holding(bytes), MemoryDisk::default()]).expect("a damaged log");
    assert_eq!(bodies, Vec::<Vec<u8>>::new());
    assert_eq!(report.damage.len(), 1);
}
