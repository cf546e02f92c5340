//! The log while it is appended to: batches, the bytes of a frame, the file that grows.

mod common;

use common::{FRAME_SIZE, append, head, memory, recover, written};
use tidelog_disk::{CrashDevice, CrashDisk, Disk};
use tidelog_journal::{
    DocumentNumber, FRAME_HEADER_SIZE, FrameHead, LOG_START, Log, ReadError, Seed, Witness,
};
use tidelog_types::{CallId, Chain, Epoch, JournalId, Lsn, LsnRange};

#[test]
fn batches_come_back_whole_and_in_order() {
    let (mut log, report, bodies) =
        recover(written(&[&[b"one"], &[b"two", b"", b"three"]])).expect("a whole log");
    assert_eq!(bodies, [b"one".to_vec(), b"two".to_vec(), b"".to_vec(), b"three".to_vec()]);
    assert_eq!((report.batches, report.cut, report.is_new), (2, None, false));
    assert_eq!(report.size, log.size());
    let place = log.push(&head(2), &[b"fo", b"ur"]);
    let number = log.commit();
    assert_eq!(
        log.read_frame(log.frame_at(place.frame)),
        Ok((head(2), b"four".to_vec())),
        "from the buffer"
    );
    log.write().expect("room");
    assert_eq!(
        log.read_frame(log.frame_at(place.frame)),
        Ok((head(2), b"four".to_vec())),
        "from the file"
    );
    assert!(!log.is_all_durable());
    log.request_flush().expect("healthy");
    assert_eq!(log.poll_flushed(), Ok(number));
    assert!(log.is_all_durable());
}

#[test]
fn many_batches_take_one_write_and_one_flush() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    log.request_flush().expect("healthy");
    let calls = device.calls();
    for _ in 0..100 {
        log.push(&head(1), &[b"small"]);
        log.commit();
    }
    log.write().expect("room");
    log.request_flush().expect("healthy");
    assert_eq!(device.calls() - calls, 2);
}

#[test]
fn written_frames_are_read_in_pieces() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    append(&mut log, &[b"one"]);
    append(&mut log, &[b"two", b"three"]);
    let limit = log.written_size();
    append(&mut log, &[b"four"]);
    let mut found = Vec::new();
    let mut at = LOG_START;
    let mut pieces = 0;
    while at < limit {
        let mut visit = |frame: tidelog_journal::FoundFrame<'_>, part| {
            found.push((frame.place.frame, frame.body.to_vec(), part));
        };
        at = log.read_from(at, limit, 200, &mut visit).expect("whole frames");
        pieces += 1;
    }
    assert_eq!((at, pieces), (limit, 2));
    let expected = [("one", (0, 1)), ("two", (0, 2)), ("three", (1, 2))];
    let expected = expected.map(|(body, part)| (body.as_bytes().to_vec(), part));
    assert_eq!(found.iter().map(|it| (it.1.clone(), it.2)).collect::<Vec<_>>(), expected);
    device.file("a").write_at(found[1].0 + FRAME_HEADER_SIZE as u64 + 5, b"?").expect("room");
    let answer = log.read_from(LOG_START, limit, 10_000, &mut |_, _| {});
    assert_eq!(
        answer,
        Err(ReadError::Damaged { offset: LOG_START + FRAME_SIZE as u64 }),
        "behind the first"
    );
}

#[test]
fn a_frame_that_rots_while_the_log_is_open_is_not_handed_out() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    let place = log.push(&head(1), &[b"body"]);
    log.commit();
    log.write().expect("room");
    device.file("a").write_at(place.body, b"B").expect("room");
    assert_eq!(
        log.read_frame(log.frame_at(place.frame)),
        Err(ReadError::Damaged { offset: place.frame })
    );
}

/// The bytes of a frame, written down: a change of them is a change of the format.
#[test]
fn the_bytes_of_a_frame_are_the_ones_in_the_format() {
    let device = CrashDevice::new();
    let files = [device.file("a"), device.file("b")];
    let (mut log, _) =
        Log::recover(files, Witness::None, Seed(1), 0, &mut |_| Ok(())).expect("empty files");
    let head = FrameHead {
        kind: 6,
        document: DocumentNumber(0x0102),
        nth: 0x0506,
        epoch: Epoch(0x0304),
        journal: JournalId([0xAA; 16]),
        lsns: LsnRange::checked(14, 15),
        call: Some(CallId([0xBB; 16])),
        chain: Chain([0xCC; 32]),
    };
    assert_eq!(head.lsns.map(LsnRange::start), Lsn::new(14));
    log.push(&head, &[b"milk"]);
    log.commit();
    log.write().expect("room");
    let bytes = device.bytes_of("a").expect("a file");
    let header_checksum = &bytes[508..512];
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let salt = &bytes[40..48];
    let frame = &bytes[LOG_START as usize..][..152 + 8];
    assert!(bytes[LOG_START as usize + 152..].iter().all(|byte| *byte == 0), "room behind it");
    let expected = [
        &hex(&salt[..4]),
        &hex(&frame[4..8]),
        "04000000",
        "0603",
        &hex(&frame[14..18]),
        &hex(&crc32c::crc32c(&bytes[..32]).to_le_bytes()),
        "0000000000000000",
        "00000000",
        "00000000",
        "01000000",
        "0201000000000000",
        "0605000000000000",
        "0403000000000000",
        &"aa".repeat(16),
        "0e00000000000000",
        "0f00000000000000",
        &"bb".repeat(16),
        &"cc".repeat(32),
        "6d696c6b",
        "0000",
        "0000000000000000",
    ]
    .concat();
    assert_eq!(hex(frame), expected);
    let covered = [salt, &LOG_START.to_le_bytes()[..], &frame[8..146]].concat();
    assert_eq!(frame[4..8], crc32c::crc32c(&covered).to_le_bytes());
    assert_eq!(frame[14..18], crc32c::crc32c(&frame[146..152]).to_le_bytes());
    assert_eq!(hex(&frame[4..8]), "201ee490");
    assert_eq!(hex(header_checksum), "6271f071");
}

/// A log with batches of `size` bytes each, and how often its file grew.
fn grown(device: &CrashDevice, batches: usize, size: usize) -> (Log<CrashDisk>, usize) {
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    let mut sizes = std::collections::BTreeSet::new();
    for number in 0..batches {
        append(&mut log, &[&vec![number as u8; size]]);
        sizes.insert(device.file("a").size());
    }
    (log, sizes.len())
}

#[test]
fn a_long_log_seldom_grows_its_file() {
    let (log, times) = grown(&CrashDevice::new(), 400, 8000);
    assert!(log.size() > 3_000_000, "{}", log.size());
    assert!(times < 24, "grown {times} times");
}

#[test]
fn a_device_without_room_ahead_takes_what_fits() {
    let device = CrashDevice::new();
    let (mut log, _) = grown(&device, 8, 8000);
    let left = device.file("a").size();
    device.set_capacity(Some(left + 20_000));
    // A block more than its body is, and what is kept for what makes room.
    while log.size() + (3 + 32) * 4096 < left + 20_000 {
        append(&mut log, &[&[1; 8000]]);
    }
    log.push(&head(1), &[&[2; 20_000]]);
    log.commit();
    assert!(log.write().expect_err("the device is full").is_full());
    log.discard().expect("an end mark fits");
    log.request_flush().expect("healthy");
    let (_, report, bodies) = recover(memory(&device)).expect("a whole log");
    assert!(bodies.len() > 9 && bodies.iter().all(|body| body.len() == 8000));
    assert_eq!(report.cut, None);
}

/// Goal: what was taken of the reserve is put back as soon as the device has room for that, and not
/// only where it has room for a log of twice the length too. Method: a device that is full while
/// most of the reserve is taken, and then has room for the reserve alone.
#[test]
fn the_reserve_is_filled_up_again_where_there_is_room_for_nothing_more() {
    let device = CrashDevice::new();
    let (mut log, _) = grown(&device, 60, 8000);
    device.set_capacity(Some(device.used()));
    let mut grant = || {
        log.push(&head(1), &[&[3; 20]]);
        log.commit_from_reserve();
        log.write().expect("there is room left");
        log.is_reserve_low()
    };
    assert!((0..100_000).any(|_| grant()), "it is never taken");
    device.set_capacity(Some(device.used() + 150 * 1024));
    assert!(!grant(), "it is as low as before");
}

#[test]
fn a_power_cut_while_the_file_grows_ahead_leaves_what_was_durable() {
    for batches in 7..12 {
        for seed in 0..40_usize {
            let device = CrashDevice::new();
            let (mut log, _) = grown(&device, batches, 8000);
            for _ in 0..3 {
                log.push(&head(1), &[&[7; 8000]]);
                log.commit();
                log.write().expect("room");
            }
            let mut sector = seed;
            let left = device.crash(&mut |versions| {
                sector = sector.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (sector >> 33) % versions
            });
            let (_, _, bodies) = recover(memory(&left)).expect("what was durable");
            assert!(bodies.len() >= batches && bodies.len() <= batches + 3);
        }
    }
}
