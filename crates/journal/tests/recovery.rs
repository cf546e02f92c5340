//! What is found when a log is opened: torn tails, what was given up, and what never comes back.

mod common;

use common::{
    FRAME_SIZE, SECTOR_BODY, append, append_unflushed, change_over, head, memory, recover,
    survivors, written,
};
use tidelog_disk::{BLOCK_SIZE, CrashDevice, CrashDisk, Disk, DiskFault, MemoryDisk};
use tidelog_journal::{BatchNumber, FRAME_HEADER_SIZE, LOG_START, Log, LogFile, RecoverError};

/// Makes what was found durable, and that a torn tail was cut off: only then is anything written.
fn flush(log: &mut Log<CrashDisk>) {
    log.request_flush().expect("healthy");
    log.poll_flushed().expect("healthy");
    assert!(log.is_found_durable());
}

#[test]
fn a_tail_cut_at_any_byte_leaves_the_batches_before_it() {
    let whole = written(&[&[b"one"], &[b"two", b"three"]])[0].bytes().to_vec();
    let first_end = LOG_START as usize + BLOCK_SIZE;
    for size in first_end..first_end + 2 * FRAME_SIZE {
        let files = [MemoryDisk::holding(whole[..size].to_vec()), MemoryDisk::default()];
        let (_, report, bodies) = recover(files).expect("a torn tail is no damage");
        assert_eq!(bodies, [b"one".to_vec()], "cut at {size}");
        assert_eq!(report.size, first_end as u64);
        // Of less than a header nobody can tell what it was.
        let torn = size - first_end;
        assert_eq!(report.cut.is_some(), torn >= FRAME_HEADER_SIZE, "cut at {size}");
    }
}

#[test]
fn a_newer_format_is_refused_and_left_untouched() {
    let mut bytes = written(&[&[b"one"]])[0].bytes().to_vec();
    for copy in [0, 4096] {
        bytes[copy + 8] = 9;
        let checksum = crc32c::crc32c(&bytes[copy..copy + 508]).to_le_bytes();
        bytes[copy + 508..copy + 512].copy_from_slice(&checksum);
    }
    let device = CrashDevice::new();
    let mut file = device.file("a");
    file.write_at(0, &bytes).expect("room");
    let answer = recover([file, device.file("b")]).err();
    assert_eq!(answer, Some(RecoverError::NewerFormat { found: 9, known: 1 }));
    assert_eq!(device.bytes_of("a"), Some(bytes));
    assert_eq!(device.bytes_of("b").map(|bytes| bytes.len()), Some(0));
}

#[test]
fn what_could_not_be_written_never_comes_back() {
    let device = CrashDevice::new();
    let files = || [device.file("a"), device.file("b")];
    let (mut log, _, _) = recover(files()).expect("empty files");
    append(&mut log, &[b"kept"]);
    for body in [b"same", b"late", b"more", b"last"] {
        log.push(&head(1), &[body]);
        log.commit();
    }
    // Half of it, so two whole batches, gets to the device before that says that it is full.
    device.fail_call(device.calls() + 1, DiskFault::Full);
    assert!(log.write().is_err());
    let number = log.discard().expect("room for an end mark");
    let [a, b] = memory(&device);
    let (_, _, bodies) = recover([a, b]).expect("a whole log");
    assert_eq!(bodies, [b"kept".to_vec()], "even if nothing follows");
    append(&mut log, &[b"same"]);
    assert!(log.poll_flushed().expect("healthy") > number);
    drop(log);
    let (_, report, bodies) = recover(files()).expect("a whole log");
    assert_eq!(bodies, [b"kept".to_vec(), b"same".to_vec()], "the late one was taken back");
    assert_eq!(report.size, LOG_START + 2 * BLOCK_SIZE as u64);
}

/// Goal: no write damages what an earlier flush has made durable. Method: everything that was
/// written since is torn, block by block, at each step of a log: behind a flush, behind one that is
/// under way, where batches are given up, where a tail is cut off, and where a durable mark is
/// written.
#[test]
fn a_torn_write_leaves_what_was_durable() {
    let device = CrashDevice::new();
    let files = |device: &CrashDevice| [device.file("a"), device.file("b")];
    let (mut log, _, _) = recover(files(&device)).expect("empty files");
    append(&mut log, &[b"first"]);
    flush(&mut log);
    device.hold_flushes(true);
    let mut durable = 1;
    let check = |device: &CrashDevice, durable: usize, what: &str| {
        let (_, report, bodies) = recover(files(&device.tear(&mut |_| 1))).expect(what);
        assert!(report.damage.is_empty() && bodies.len() == durable, "{what}: {report:?}");
    };
    append_unflushed(&mut log, b"behind a flush");
    check(&device, durable, "behind a flush");
    log.request_flush().expect("healthy");
    append_unflushed(&mut log, b"while it is under way");
    device.complete_flushes();
    log.poll_flushed().expect("healthy");
    durable += 1;
    check(&device, durable, "behind a flush that was under way");
    log.request_flush().expect("healthy");
    device.complete_flushes();
    log.poll_flushed().expect("healthy");
    durable += 1;
    log.mark_durable().expect("healthy");
    check(&device, durable, "a durable mark");
    // A batch in parts, behind one that is durable only with the first of them.
    log.push(&head(1), &[b"before a part"]);
    log.commit();
    log.write().expect("room");
    log.push_part(&head(1), &[b"part"], (0, 3));
    log.write_parts().expect("room");
    log.request_flush().expect("healthy");
    device.complete_flushes();
    log.poll_flushed().expect("healthy");
    durable += 1;
    log.push_part(&head(1), &[b"the rest"], (1, 3));
    device.fail_call(device.calls() + 1, DiskFault::Full);
    assert!(log.write_parts().is_err());
    log.give_up_parts();
    check(&device, durable, "a part that found no room");
    log.discard().expect("room for an end mark");
    check(&device, durable, "parts that were given up");
    let place = log.push(&head(1), &[b"torn"]);
    log.commit();
    log.write().expect("room");
    drop(log);
    // Its header survives, and its body does not.
    device.file("a").write_at(place.body, &[0]).expect("room");
    device.complete_flushes();
    let device = device.crash(&mut |versions| versions - 1);
    device.hold_flushes(true);
    let (_, report, _) = recover(files(&device)).expect("a torn tail");
    assert!(report.cut.is_some());
    check(&device, durable, "a tail that was cut off");
}

#[test]
fn what_could_not_be_written_does_not_come_back_after_a_flush_that_failed() {
    let device = CrashDevice::new();
    let files = || [device.file("a"), device.file("b")];
    let (mut log, _, _) = recover(files()).expect("empty files");
    append(&mut log, &[b"kept"]);
    log.push(&head(1), &[b"late"]);
    log.commit();
    // All of it gets to the device, which says that it is full.
    device.fail_call(device.calls() + 1, DiskFault::Full);
    assert!(log.write().is_err());
    let mut file = device.file("a");
    file.request_flush().expect("healthy");
    log.discard().expect("room for an end mark");
    device.fail_flushes();
    let device = device.kill();
    let files = |device: &CrashDevice| [device.file("a"), device.file("b")];
    let (mut log, _, bodies) = recover(files(&device)).expect("a whole log");
    assert_eq!(bodies, [b"kept".to_vec()]);
    flush(&mut log);
    let (_, _, bodies) = recover(files(&device.crash(&mut |_| 0))).expect("a whole log");
    assert_eq!(bodies, [b"kept".to_vec()], "it was taken back, and that was flushed");
}

#[test]
fn a_batch_that_was_cut_does_not_follow_its_twin() {
    // Two batches, of which the first is torn; then the first is appended again, byte for byte.
    let device = CrashDevice::new();
    let files = || [device.file("a"), device.file("b")];
    let (mut log, _, _) = recover(files()).expect("empty files");
    flush(&mut log);
    for body in [b"twin", b"late"] {
        log.push(&head(1), &[body]);
        log.commit();
    }
    log.write().expect("room");
    drop(log);
    device.file("a").write_at(LOG_START + 20, &[0xFF]).expect("room");
    let (mut log, report, bodies) = recover(files()).expect("a torn tail");
    assert!(bodies.is_empty());
    assert_eq!(
        report.cut.map(|cut| (cut.offset, cut.size)),
        Some((LOG_START, 2 * FRAME_SIZE as u64))
    );
    flush(&mut log);
    append(&mut log, &[b"twin"]);
    drop(log);
    let (_, _, bodies) = recover(files()).expect("a whole log");
    assert_eq!(bodies, [b"twin".to_vec()], "the late one was cut for good");
}

/// Goal: no frame of a tail that was cut follows the same batch appended again, though the end mark
/// between them gets lost. Method: the two are one another's twins but for the attempt, as they are
/// where both were committed after what was before them was known to be durable, or both before.
#[test]
fn a_lost_end_mark_does_not_bring_back_what_was_cut() {
    for is_known_durable in [false, true] {
        let device = CrashDevice::new();
        let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
        log.request_flush().expect("healthy");
        if is_known_durable {
            log.poll_flushed().expect("healthy");
        }
        for body in [SECTOR_BODY, [6; 512 - FRAME_HEADER_SIZE]] {
            log.push(&head(1), &[&body]);
            log.commit();
        }
        log.write().expect("room");
        let cut = first_frame_without_attempt(&device);
        // Of the two batches the second survives.
        let device = survivors(&device, &[false, true]);
        let (mut log, report, bodies) =
            recover([device.file("a"), device.file("b")]).expect("a torn tail");
        assert!(bodies.is_empty() && report.cut.is_some());
        if is_known_durable {
            flush(&mut log);
        }
        append_unflushed(&mut log, &SECTOR_BODY);
        if !is_known_durable {
            flush(&mut log);
            log.write().expect("room");
        }
        assert_eq!(first_frame_without_attempt(&device), cut, "not the same batch");
        // Now the first one survives, and not the end mark behind it.
        let device = survivors(&device, &[true, false]);
        let (_, _, bodies) = recover([device.file("a"), device.file("b")]).expect("a whole log");
        assert!(bodies == [SECTOR_BODY.to_vec()], "{} batches, {is_known_durable}", bodies.len());
    }
}

/// The first frame, of one sector, but for its attempt and the checksum over that.
fn first_frame_without_attempt(device: &CrashDevice) -> Vec<u8> {
    let start = LOG_START as usize;
    let mut frame = device.bytes_of("a").expect("a file")[start..start + 512].to_vec();
    frame[4..8].fill(0);
    frame[30..34].fill(0);
    frame
}

#[test]
fn a_lost_end_mark_does_not_bring_back_what_could_not_be_written() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    append(&mut log, &[&SECTOR_BODY]);
    log.poll_flushed().expect("healthy");
    for body in [
        SECTOR_BODY,
        [6; 512 - FRAME_HEADER_SIZE],
        [7; 512 - FRAME_HEADER_SIZE],
        [8; 512 - FRAME_HEADER_SIZE],
    ] {
        log.push(&head(1), &[&body]);
        log.commit();
    }
    device.fail_call(device.calls() + 1, DiskFault::Full);
    assert!(log.write().is_err(), "after two whole batches");
    log.discard().expect("room for an end mark");
    log.request_flush().expect("healthy");
    append_unflushed(&mut log, &SECTOR_BODY);
    let device = survivors(&device, &[true, false]);
    let (_, _, bodies) = recover([device.file("a"), device.file("b")]).expect("a whole log");
    assert_eq!(bodies, [SECTOR_BODY.to_vec(), SECTOR_BODY.to_vec()]);
}

#[test]
fn a_log_whose_header_was_lost_begins_anew_and_takes_nothing_for_its_own() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    append_unflushed(&mut log, b"one");
    // The header's sectors that are not zeros are chosen behind the size, before the frame's.
    let mut choices = 0;
    let device = device.crash(&mut |versions| {
        choices += 1;
        if (2..4).contains(&choices) { 0 } else { versions - 1 }
    });
    for _ in 0..2 {
        let (mut log, report, bodies) =
            recover([device.file("a"), device.file("b")]).expect("no damage");
        assert_eq!((report.generation, bodies.len(), report.cut.is_some()), (1, 0, false));
        log.request_flush().expect("healthy");
    }
}

#[test]
fn a_size_beyond_the_file_allocates_nothing() {
    let mut bytes = written(&[&[b"one"]])[0].bytes().to_vec();
    let at = LOG_START as usize + 8;
    bytes[at..at + 4].copy_from_slice(&(60 * 1024 * 1024_u32).to_le_bytes());
    let files = [MemoryDisk::holding(bytes), MemoryDisk::default()];
    let (_, report, bodies) = recover(files).expect("a torn tail");
    assert!(bodies.is_empty() && report.cut.is_some());
}

#[test]
fn a_torn_batch_is_not_completed_by_the_same_one_appended_again() {
    let device = CrashDevice::new();
    let files = |device: &CrashDevice| [device.file("a"), device.file("b")];
    let (mut log, _, _) = recover(files(&device)).expect("empty files");
    log.request_flush().expect("healthy");
    let long = [5; 1024 - FRAME_HEADER_SIZE];
    for body in [long.as_slice(), &SECTOR_BODY] {
        log.push(&head(1), &[body]);
        log.commit();
    }
    log.write().expect("room");
    // Of the first batch the header survives and not the rest of its body; the second does.
    let device = survivors(&device, &[true, false, true]);
    device.hold_flushes(true);
    let (mut log, report, bodies) = recover(files(&device)).expect("a torn tail");
    assert!(bodies.is_empty() && report.cut.is_some());
    // Appended again it would put there what is missing, while its own header may get lost.
    log.request_flush().expect("healthy");
    append_unflushed(&mut log, &long);
    assert_eq!(log.written().0, 0, "it waits until the tail is cut off for good");
    let mut images = 0;
    loop {
        let mut bit = 0;
        let left = device.crash(&mut |versions| {
            bit += 1;
            if images >> (bit - 1) & 1 == 1 { versions - 1 } else { 0 }
        });
        let (_, _, bodies) = recover(files(&left)).expect("no damage");
        assert!(bodies.is_empty(), "the second batch is back");
        images += 1;
        if images >> bit == 1 {
            break;
        }
    }
    device.complete_flushes();
    log.poll_flushed().expect("healthy");
    log.write().expect("room");
    let (_, _, bodies) = recover(files(&device.kill())).expect("a whole log");
    assert_eq!(bodies, [long.to_vec()]);
}

/// Goal: what was read at opening is durable once the first flush after it is, though a cache held
/// it for flushed. Method: a flush fails and leaves what it covered clean; the log is opened anew,
/// flushed, and the power cut.
#[test]
fn what_a_failed_flush_left_in_the_caches_is_written_again() {
    for fault in [DiskFault::Device, DiskFault::LateFlush] {
        let device = CrashDevice::new();
        let files = |device: &CrashDevice| [device.file("a"), device.file("b")];
        let (mut log, _, _) = recover(files(&device)).expect("empty files");
        for flushes_failed in [false, true] {
            append_unflushed(&mut log, &[4; 5000]);
            if flushes_failed {
                device.fail_call(device.calls() + 1, fault);
            }
            let flushed = log.request_flush().and_then(|()| log.poll_flushed());
            assert_eq!(flushed.is_err(), flushes_failed);
        }
        let device = device.kill();
        let (mut log, report, bodies) = recover(files(&device)).expect("the power stayed on");
        assert_eq!((bodies.len(), report.cut), (2, None));
        flush(&mut log);
        let left = device.crash(&mut |_| 0);
        let (_, report, bodies) = recover(files(&left)).expect("no damage");
        assert_eq!((bodies.len(), report.cut), (2, None), "{fault:?}: it was called durable");
    }
}

/// The same of the very first flush, which covers the header.
#[test]
fn a_header_that_a_failed_flush_left_in_the_caches_is_written_again() {
    let device = CrashDevice::new();
    let files = |device: &CrashDevice| [device.file("a"), device.file("b")];
    let (mut log, _, _) = recover(files(&device)).expect("empty files");
    append_unflushed(&mut log, b"one");
    device.fail_call(device.calls() + 1, DiskFault::Device);
    assert!(log.request_flush().is_err());
    let device = device.kill();
    let (mut log, _, bodies) = recover(files(&device)).expect("the power stayed on");
    assert_eq!(bodies, [b"one".to_vec()]);
    flush(&mut log);
    let (_, report, bodies) = recover(files(&device.crash(&mut |_| 0))).expect("no damage");
    assert_eq!((bodies, report.is_new), (vec![b"one".to_vec()], false));
}

/// A page may hold anything: here, all frames of the log that it will be in, as they stand there.
#[test]
fn a_body_that_looks_like_frames_is_never_taken_for_frames() {
    let forged = |bodies: &[&[u8]]| {
        let [file, _] = written(&[bodies]);
        file.bytes()[LOG_START as usize..].to_vec()
    };
    // A torn batch whose body has whole frames at the very offsets at which they claim to stand.
    let inner = forged(&[&[0; 40], b"forged", b"too"]);
    let at = FRAME_HEADER_SIZE + 40;
    let body = [&[0; 40], &inner[at..]].concat();
    let [mut file, other] = written(&[&[&body]]);
    file.write_at(LOG_START + 20, &[0xFF]).expect("room");
    let (_, report, bodies) = recover([file, other]).expect("a torn tail");
    assert!(bodies.is_empty() && report.damage.is_empty());
    let size = report.cut.map(|cut| cut.size);
    assert!(size.is_some_and(|size| size < 8 + 1), "nothing behind it is known of: {size:?}");
}

#[test]
fn a_damaged_header_of_the_file_that_is_not_active_refuses_nothing() {
    let device = CrashDevice::new();
    let files = || [device.file("a"), device.file("b")];
    let (mut log, _, _) = recover(files()).expect("empty files");
    append(&mut log, &[b"old"]);
    change_over(&mut log, &[b"state"], &[]);
    append(&mut log, &[b"new"]);
    let damage = |disk: &MemoryDisk, at: &[u64]| {
        let mut bytes = disk.bytes().to_vec();
        at.iter().for_each(|at| bytes[*at as usize + 3] ^= 0x10);
        MemoryDisk::holding(bytes)
    };
    let [a, b] = memory(&device);
    let whole = [b"state".to_vec(), b"new".to_vec()];
    let (_, _, bodies) = recover([damage(&a, &[0, 4096]), b.clone()]).expect("b is active");
    assert_eq!(bodies, whole);
    let (_, _, bodies) = recover([a.clone(), damage(&b, &[0])]).expect("one copy is enough");
    assert_eq!(bodies, whole);
    let answer = recover([a, damage(&b, &[0, 4096])]).err();
    let damaged = RecoverError::DamagedHeader { file: LogFile::B };
    assert_eq!(answer, Some(damaged), "the older file is not used instead");
}

/// Goal: opening takes a time that the log's size bounds, whatever its files were used for before.
/// Method: each file is used three times, for more than now; then what opening reads is counted.
#[test]
fn opening_reads_a_log_once_though_its_files_were_used_before() {
    let device = CrashDevice::new();
    let files = || [device.file("a"), device.file("b")];
    let (mut log, _, _) = recover(files()).expect("empty files");
    for round in 0..6_u8 {
        for _ in 0..4000 {
            append_unflushed(&mut log, &[round; 400]);
        }
        log.request_flush().expect("healthy");
        log.poll_flushed().expect("healthy");
        change_over(&mut log, &[b"state"], &[]);
    }
    for number in 0..500_u32 {
        append_unflushed(&mut log, &vec![number as u8; 400]);
    }
    log.request_flush().expect("healthy");
    log.poll_flushed().expect("healthy");
    let live = log.size();
    drop(log);
    let before = device.bytes_read();
    let (mut log, _, bodies) = recover(files()).expect("a whole log");
    assert_eq!(bodies.len(), 501);
    let read = device.bytes_read() - before;
    let stale = device.file("b").size() + device.file("a").size();
    assert!(read <= stale, "{read} bytes read of {stale}: none of them twice");
    assert!(log.resize_other(&(0..=0), 1 << 16).expect("it is not needed"));
    assert!(device.file("a").size().min(device.file("b").size()) == 0, "{live}");
}

/// Goal: the older file goes only once the newer one cannot get lost any more. Method: the owner is
/// killed when the seal is written and not flushed, and the power is cut at each call after that.
#[test]
fn the_older_file_is_kept_until_the_seal_of_the_newer_one_is_flushed() {
    let files = |device: &CrashDevice| [device.file("a"), device.file("b")];
    let device = CrashDevice::new();
    let (mut log, _, _) = recover(files(&device)).expect("empty files");
    append(&mut log, &[b"old"]);
    log.begin_copy().expect("room");
    log.copy(&head(1), &[b"old"]).expect("room");
    log.end_state().expect("room");
    log.hold();
    log.flush_copy().expect("room");
    // The seal is written, and its flush does not happen.
    device.power_off_after(device.calls() + 1);
    assert!(log.seal().is_err());
    for calls in 1.. {
        let device = device.kill();
        let end = device.calls() + calls;
        device.power_off_after(end);
        if let Ok((mut log, _, _)) = recover(files(&device)) {
            let _ = log.request_flush().and_then(|()| log.poll_flushed());
        }
        let (_, report, bodies) = recover(files(&device.crash(&mut |_| 0))).expect("no damage");
        assert_eq!((bodies, report.is_new), (vec![b"old".to_vec()], false), "after call {calls}");
        if device.calls() < end {
            break;
        }
    }
}

/// Goal: nothing is called durable while the older file could be taken for the active one, if the
/// header of the newer gets lost. Method: the owner is killed when that the older file is not in
/// use is written and not flushed; the next one appends, and loses what nobody asked to be flushed.
#[test]
fn that_the_older_file_is_not_in_use_is_flushed_by_the_next_owner_if_not_by_the_last() {
    let files = |device: &CrashDevice| [device.file("a"), device.file("b")];
    let device = CrashDevice::new();
    let (mut log, _, _) = recover(files(&device)).expect("empty files");
    append(&mut log, &[b"old"]);
    log.begin_copy().expect("room");
    log.copy(&head(1), &[b"state"]).expect("room");
    log.end_state().expect("room");
    log.hold();
    log.flush_copy().expect("room");
    log.seal().expect("room");
    device.hold_flushes(true);
    assert_eq!(log.switch(), Ok(Vec::new()));
    let device = device.kill();
    device.hold_flushes(false);
    let (mut log, _, _) = recover(files(&device)).expect("a whole log");
    append(&mut log, &[b"new"]);
    assert!(log.poll_flushed().expect("healthy") > BatchNumber(0));
    let device = device.crash(&mut |_| 0);
    let (_, _, bodies) = recover(files(&device)).expect("a whole log");
    assert_eq!(bodies, [b"state".to_vec(), b"new".to_vec()]);
    device.file("b").write_at(0, &[7; 8192]).expect("room");
    let answer = recover(files(&device)).err();
    let damaged = RecoverError::DamagedHeader { file: LogFile::B };
    assert_eq!(answer, Some(damaged), "the older file is not used instead");
}

/// Goal: the same where the older file was cut off. Method: the owner is killed at the seal, the
/// next one when it has cut the older file off and not flushed that; and the one after that
/// appends.
#[test]
fn that_the_older_file_is_cut_off_is_flushed_by_the_next_owner_if_not_by_the_last() {
    let files = |device: &CrashDevice| [device.file("a"), device.file("b")];
    let device = CrashDevice::new();
    let (mut log, _, _) = recover(files(&device)).expect("empty files");
    append(&mut log, &[b"old"]);
    log.begin_copy().expect("room");
    log.copy(&head(1), &[b"state"]).expect("room");
    log.end_state().expect("room");
    log.hold();
    log.flush_copy().expect("room");
    log.seal().expect("room");
    let device = device.kill();
    let (mut log, _, _) = recover(files(&device)).expect("a whole log");
    log.request_flush().expect("healthy");
    device.hold_flushes(true);
    assert_eq!(log.poll_flushed(), Ok(BatchNumber(0)));
    assert_eq!((device.file("a").size(), device.has_held_flushes()), (0, true));
    let device = device.kill();
    device.hold_flushes(false);
    let (mut log, _, _) = recover(files(&device)).expect("a whole log");
    append(&mut log, &[b"new"]);
    assert!(log.poll_flushed().expect("healthy") > BatchNumber(0));
    let device = device.crash(&mut |_| 0);
    device.file("b").write_at(0, &[7; 8192]).expect("room");
    let answer = recover(files(&device)).err();
    let damaged = RecoverError::DamagedHeader { file: LogFile::B };
    assert_eq!(answer, Some(damaged), "the older file is not used instead");
}
