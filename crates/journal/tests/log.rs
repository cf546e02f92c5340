//! The log as its owner sees it: batches, recovery, damage, changing over.

use tidelog_disk::{CrashDevice, CrashDisk, Disk, Fault, MemoryDisk};
use tidelog_journal::{FrameHead, LOG_START, Log, LogFile, LogReport, ReadError, RecoverError};
use tidelog_types::{CallId, Chain, Epoch, JournalId, Lsn, LsnRange};

type Bodies = Vec<Vec<u8>>;

fn recover<D: Disk>(files: [D; 2]) -> Result<(Log<D>, LogReport, Bodies), RecoverError> {
    let mut bodies = Vec::new();
    let (log, report) = Log::recover(files, &mut |frame| {
        bodies.push(frame.body.to_vec());
        Ok(())
    })?;
    Ok((log, report, bodies))
}

fn head(kind: u8) -> FrameHead {
    FrameHead::new(kind, 7, Epoch(3))
}

/// A log in memory with one batch for each group of bodies, each flushed by itself.
fn written(batches: &[&[&[u8]]]) -> [MemoryDisk; 2] {
    let device = CrashDevice::new();
    let files = [device.file("a"), device.file("b")];
    let (mut log, _, _) = recover(files).expect("empty files");
    for batch in batches {
        append(&mut log, batch);
        log.poll_flushed().expect("healthy");
    }
    memory(&device)
}

fn append(log: &mut Log<CrashDisk>, bodies: &[&[u8]]) {
    for body in bodies {
        log.push(&head(1), &[body]);
    }
    log.commit();
    log.write().expect("room");
    log.request_flush().expect("healthy");
}

fn memory(device: &CrashDevice) -> [MemoryDisk; 2] {
    ["a", "b"].map(|name| MemoryDisk::holding(device.bytes_of(name).expect("a file")))
}

#[test]
fn batches_come_back_whole_and_in_order() {
    let (mut log, report, bodies) =
        recover(written(&[&[b"one"], &[b"two", b"", b"three"]])).expect("a whole log");
    assert_eq!(bodies, [b"one".to_vec(), b"two".to_vec(), b"".to_vec(), b"three".to_vec()]);
    assert_eq!((report.batches, report.cut, report.is_new), (2, None, false));
    assert_eq!(report.size, log.size());
    let place = log.push(&head(2), &[b"fo", b"ur"]);
    let number = log.commit();
    assert_eq!(log.read_frame(place.frame), Ok((head(2), b"four".to_vec())), "from the buffer");
    log.write().expect("room");
    assert_eq!(log.read_frame(place.frame), Ok((head(2), b"four".to_vec())), "from the file");
    assert!(!log.is_settled());
    log.request_flush().expect("healthy");
    assert_eq!(log.poll_flushed(), Ok(number));
    assert!(log.is_settled());
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
fn a_tail_cut_at_any_byte_leaves_the_batches_before_it() {
    let whole = written(&[&[b"one"], &[b"two", b"three"]])[0].bytes().to_vec();
    let first_end = LOG_START as usize + 144 + 8;
    for size in first_end..whole.len() - 8 {
        let files = [MemoryDisk::holding(whole[..size].to_vec()), MemoryDisk::default()];
        let (_, report, bodies) = recover(files).expect("a torn tail is no damage");
        assert_eq!(bodies, [b"one".to_vec()], "cut at {size}");
        assert_eq!(report.size, first_end as u64);
        let torn = size - first_end;
        assert_eq!(report.cut.map(|cut| cut.size > 0), (torn > 0).then_some(true));
    }
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let batches: &[&[&[u8]]] = &[&[b"one"], &[b"two", b"three"], &[b"four"]];
    let whole = written(batches)[0].bytes().to_vec();
    let all = ["one", "two", "three", "four"].map(|body| body.as_bytes().to_vec());
    let last_start = whole.len() - 8 - (144 + 8);
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let at = bit / 8;
        match recover([MemoryDisk::holding(bytes), MemoryDisk::default()]) {
            // Each header copy is enough, and the rest of their sectors' area means nothing.
            Ok((_, report, bodies)) if at < LOG_START as usize => {
                assert_eq!((bodies.as_slice(), report.cut), (all.as_slice(), None));
            }
            // Of the last batch nothing says that it was durable: it can only be a torn tail.
            Ok((_, report, bodies)) => {
                assert!(at >= last_start, "bit {bit} was not noticed");
                assert!(report.cut.is_some(), "bit {bit} was not reported");
                assert!(all.starts_with(&bodies), "bit {bit} changed a body");
            }
            Err(RecoverError::DamagedMiddle { file: LogFile::A, offset }) => {
                assert!(offset as usize <= at, "bit {bit} reported at {offset}");
                assert!((LOG_START as usize..last_start).contains(&at), "bit {bit}");
            }
            Err(other) => panic!("bit {bit}: {other}"),
        }
    }
}

#[test]
fn a_newer_format_is_refused_and_left_untouched() {
    let mut bytes = written(&[&[b"one"]])[0].bytes().to_vec();
    for copy in [0, 2048] {
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
    device.fail_call(device.calls() + 1, Fault::Full);
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
    assert_eq!(report.size, LOG_START + 2 * 152);
}

#[test]
fn a_batch_that_was_cut_does_not_follow_its_twin() {
    // Two batches, of which the first is torn; then the first is appended again, byte for byte.
    let device = CrashDevice::new();
    let files = || [device.file("a"), device.file("b")];
    let (mut log, _, _) = recover(files()).expect("empty files");
    log.request_flush().expect("healthy");
    for body in [b"twin", b"late"] {
        log.push(&head(1), &[body]);
        log.commit();
    }
    log.write().expect("room");
    drop(log);
    device.file("a").write_at(LOG_START + 20, &[0xFF]).expect("room");
    let (mut log, report, bodies) = recover(files()).expect("a torn tail");
    assert!(bodies.is_empty());
    assert_eq!(report.cut.map(|cut| (cut.offset, cut.size)), Some((LOG_START, 2 * 152)));
    append(&mut log, &[b"twin"]);
    drop(log);
    let (_, _, bodies) = recover(files()).expect("a whole log");
    assert_eq!(bodies, [b"twin".to_vec()], "the late one was cut for good");
}

/// A body whose frame is one sector, so that a frame and what follows it survive apart.
const SECTOR_BODY: [u8; 512 - 144] = [5; 512 - 144];

#[test]
fn a_lost_end_mark_does_not_bring_back_what_was_cut() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    log.request_flush().expect("healthy");
    append_unflushed(&mut log, &SECTOR_BODY);
    append_unflushed(&mut log, &[6; 512 - 144]);
    // Of the two batches the second survives.
    let device = survivors(&device, &[false, true, false]);
    let (mut log, report, bodies) =
        recover([device.file("a"), device.file("b")]).expect("a torn tail");
    assert!(bodies.is_empty() && report.cut.is_some());
    append_unflushed(&mut log, &SECTOR_BODY);
    // Now the first one survives, and not the end mark behind it.
    let device = survivors(&device, &[true, false]);
    let (_, _, bodies) = recover([device.file("a"), device.file("b")]).expect("a whole log");
    assert_eq!(bodies, [SECTOR_BODY.to_vec()]);
}

#[test]
fn a_lost_end_mark_does_not_bring_back_what_could_not_be_written() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    log.request_flush().expect("healthy");
    for body in [SECTOR_BODY, [6; 512 - 144], [7; 512 - 144], [8; 512 - 144]] {
        log.push(&head(1), &[&body]);
        log.commit();
    }
    device.fail_call(device.calls() + 1, Fault::Full);
    assert!(log.write().is_err(), "after two whole batches");
    log.discard().expect("room for an end mark");
    log.request_flush().expect("healthy");
    append_unflushed(&mut log, &SECTOR_BODY);
    let device = survivors(&device, &[true, false]);
    let (_, _, bodies) = recover([device.file("a"), device.file("b")]).expect("a whole log");
    assert_eq!(bodies, [SECTOR_BODY.to_vec()]);
}

fn append_unflushed(log: &mut Log<CrashDisk>, body: &[u8]) {
    log.push(&head(1), &[body]);
    log.commit();
    log.write().expect("room");
}

/// A cut of the power that these un-flushed sectors survive, in order, and every new size.
fn survivors(device: &CrashDevice, sectors: &[bool]) -> CrashDevice {
    let mut count = 0;
    let _ = device.crash(&mut |_| {
        count += 1;
        0
    });
    // A new size, if there is one, is chosen before the sectors.
    let sizes = std::iter::repeat_n(true, count - sectors.len());
    let mut choices = sizes.chain(sectors.iter().copied());
    let left = device.crash(&mut |versions| {
        let survives = choices.next().expect("a choice for each sector");
        if survives { versions - 1 } else { 0 }
    });
    assert_eq!(choices.next(), None, "a sector for each choice");
    left
}

#[test]
fn a_log_whose_header_was_lost_begins_above_what_is_left_of_it() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    append_unflushed(&mut log, b"one");
    // The header's sectors are the first eight.
    let mut choices = 0;
    let device = device.crash(&mut |versions| {
        choices += 1;
        if (2..10).contains(&choices) { 0 } else { versions - 1 }
    });
    for _ in 0..2 {
        let (mut log, report, bodies) =
            recover([device.file("a"), device.file("b")]).expect("no damage");
        assert_eq!((report.generation, bodies.len()), (2, 0));
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

/// Copies `bodies` into the other file and goes over to it.
fn change_over(log: &mut Log<CrashDisk>, bodies: &[&[u8]]) {
    log.begin_copy().expect("room");
    for body in bodies {
        log.copy(&head(1), &[body]).expect("room");
    }
    let id = log.finish_copy().expect("room");
    assert_eq!(log.is_copy_flushed(id), Ok(true));
    let id = log.seal().expect("room");
    assert_eq!(log.is_copy_flushed(id), Ok(true));
    log.switch();
}

#[test]
fn after_a_change_over_only_the_copied_state_and_what_follows_it_is_there() {
    let device = CrashDevice::new();
    let files = || [device.file("a"), device.file("b")];
    let (mut log, _, _) = recover(files()).expect("empty files");
    for round in 0..5_u8 {
        append(&mut log, &[b"old", b"older"]);
        change_over(&mut log, &[b"state", &[round]]);
        append(&mut log, &[&[round, round]]);
        let (_, report, bodies) = recover(files()).expect("a whole log");
        assert_eq!(bodies, [b"state".to_vec(), vec![round], vec![round, round]]);
        assert_eq!((report.generation, report.batches), (u64::from(round) + 2, 1));
        assert_eq!(report.cut, None);
    }
}

#[test]
fn a_change_over_that_was_cut_short_did_not_happen() {
    let device = CrashDevice::new();
    let files = || [device.file("a"), device.file("b")];
    let (mut log, _, _) = recover(files()).expect("empty files");
    append(&mut log, &[b"old"]);
    log.begin_copy().expect("room");
    log.copy(&head(1), &[b"state", b" of three"]).expect("room");
    log.copy(&head(1), &[b"gone before the next try"]).expect("room");
    let id = log.finish_copy().expect("room");
    assert_eq!(log.is_copy_flushed(id), Ok(true));
    drop(log);

    let (mut log, _, bodies) = recover(files()).expect("the old log");
    assert_eq!(bodies, [b"old".to_vec()]);
    // The second try copies less: what the first one left behind it must not be taken for more.
    change_over(&mut log, &[b"state of three"]);
    drop(log);
    let (_, report, bodies) = recover(files()).expect("the new log");
    assert_eq!(bodies, [b"state of three".to_vec()]);
    assert_eq!(report.cut, None);
}

#[test]
fn damage_in_the_copied_state_is_damage() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    append(&mut log, &[b"old"]);
    change_over(&mut log, &[b"state"]);
    let [a, b] = memory(&device);
    let mut bytes = b.bytes().to_vec();
    bytes[LOG_START as usize + 146] ^= 4;
    let answer = recover([a, MemoryDisk::holding(bytes)]).err();
    let damage = RecoverError::DamagedMiddle { file: LogFile::B, offset: LOG_START };
    assert_eq!(answer, Some(damage), "the older file must not be used instead");
}

#[test]
fn a_frame_that_rots_while_the_log_is_open_is_not_handed_out() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    let place = log.push(&head(1), &[b"body"]);
    log.commit();
    log.write().expect("room");
    device.file("a").write_at(place.body, b"B").expect("room");
    assert_eq!(log.read_frame(place.frame), Err(ReadError::Damaged { offset: place.frame }));
}

/// The bytes of a frame, written down: a change of them is a change of the format.
#[test]
fn the_bytes_of_a_frame_are_the_ones_in_the_format() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    let head = FrameHead {
        kind: 6,
        document: 0x0102,
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
    let frame = &bytes[LOG_START as usize..];
    assert_eq!(frame.len(), 152 + 8, "the frame and the end mark");
    let expected = [
        "544c6631",
        &hex(&frame[4..8]),
        "04000000",
        "06010000",
        "0100000000000000",
        "0000000000000000",
        &hex(header_checksum),
        "00000000",
        "00000000",
        "01000000",
        "0201000000000000",
        "0403000000000000",
        &"aa".repeat(16),
        "0e00000000000000",
        "0f00000000000000",
        &"bb".repeat(16),
        &"cc".repeat(32),
        "6d696c6b",
        "00000000",
        "0000000000000000",
    ]
    .concat();
    assert_eq!(hex(frame), expected);
    let covered = [&LOG_START.to_le_bytes()[..], &frame[8..152]].concat();
    assert_eq!(frame[4..8], crc32c::crc32c(&covered).to_le_bytes());
    assert_eq!(hex(&frame[4..8]), "d6b11e4a");
    assert_eq!(hex(header_checksum), "fdbad1c4");
}
