//! The log as its owner sees it: batches, recovery, damage, changing over.

use tidelog_disk::{CrashDevice, CrashDisk, Disk, Fault, MemoryDisk};
use tidelog_journal::{
    Damage, FRAME_HEADER_SIZE, Found, FrameHead, LOG_START, Log, LogFile, LogReport, ReadError,
    RecoverError,
};
use tidelog_types::{CallId, Chain, Epoch, JournalId, Lsn, LsnRange};

type Bodies = Vec<Vec<u8>>;

fn recover<D: Disk>(files: [D; 2]) -> Result<(Log<D>, LogReport, Bodies), RecoverError> {
    let mut bodies = Vec::new();
    let (log, report) = Log::recover(files, &mut |found| {
        if let Found::Frame(frame) = found {
            bodies.push(frame.body.to_vec());
        }
        Ok(())
    })?;
    Ok((log, report, bodies))
}

/// What is lost of a damaged log: where, and whose it is.
fn lost<D: Disk>(files: [D; 2]) -> Vec<(u64, Option<u64>)> {
    let mut lost = Vec::new();
    let answer = Log::recover(files, &mut |found| {
        if let Found::Lost { offset, document } = found {
            lost.push((offset, document));
        }
        Ok(())
    });
    answer.expect("a damaged log can be read");
    lost
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
    let first_end = LOG_START as usize + FRAME_HEADER_SIZE + 8;
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
    let last_start = whole.len() - 8 - (FRAME_HEADER_SIZE + 8);
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
            Ok((_, report, bodies)) if at >= last_start => {
                assert!(report.cut.is_some(), "bit {bit} was not reported");
                assert!(report.damage.is_empty(), "bit {bit}: {report:?}");
                assert!(bodies.len() >= 3 && all.starts_with(&bodies), "bit {bit}");
            }
            Ok((log, report, bodies)) => {
                let (start, size, left) = match at - LOG_START as usize {
                    ..168 => (0, 168, &all[1..]),
                    _ => (168, 2 * 168, &[all[0].clone(), all[3].clone()][..]),
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
    assert_eq!(report.size, LOG_START + 2 * 168);
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
    assert_eq!(report.cut.map(|cut| (cut.offset, cut.size)), Some((LOG_START, 2 * 168)));
    append(&mut log, &[b"twin"]);
    drop(log);
    let (_, _, bodies) = recover(files()).expect("a whole log");
    assert_eq!(bodies, [b"twin".to_vec()], "the late one was cut for good");
}

/// A body whose frame is one sector, so that a frame and what follows it survive apart.
const SECTOR_BODY: [u8; 512 - FRAME_HEADER_SIZE] = [5; 512 - FRAME_HEADER_SIZE];

#[test]
fn a_lost_end_mark_does_not_bring_back_what_was_cut() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    log.request_flush().expect("healthy");
    append_unflushed(&mut log, &SECTOR_BODY);
    append_unflushed(&mut log, &[6; 512 - FRAME_HEADER_SIZE]);
    // Of the two batches the second survives.
    let device = survivors(&device, &[false, true]);
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
    for body in [
        SECTOR_BODY,
        [6; 512 - FRAME_HEADER_SIZE],
        [7; 512 - FRAME_HEADER_SIZE],
        [8; 512 - FRAME_HEADER_SIZE],
    ] {
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
    let _ = device.crash(&mut |versions| {
        count += 1;
        versions - 1
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
    // The header's sectors that are not zeros are chosen behind the size, before the frame's.
    let mut choices = 0;
    let device = device.crash(&mut |versions| {
        choices += 1;
        if (2..4).contains(&choices) { 0 } else { versions - 1 }
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

/// Copies `state` and a batch of `tail` into the other file and goes over to it.
fn change_over(log: &mut Log<CrashDisk>, state: &[&[u8]], tail: &[&[u8]]) {
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
    assert_eq!(log.switch(), []);
}

#[test]
fn after_a_change_over_only_the_copied_state_and_what_follows_it_is_there() {
    let device = CrashDevice::new();
    let files = || [device.file("a"), device.file("b")];
    let (mut log, _, _) = recover(files()).expect("empty files");
    for round in 0..5_u8 {
        append(&mut log, &[b"old", b"older"]);
        change_over(&mut log, &[b"state", &[round]], &[b"tail", b"twin"]);
        append(&mut log, &[&[round, round]]);
        let (_, report, bodies) = recover(files()).expect("a whole log");
        let expected: [&[u8]; 5] = [b"state", &[round], b"tail", b"twin", &[round, round]];
        assert_eq!(bodies, expected);
        assert_eq!((report.generation, report.batches), (u64::from(round) + 2, 2));
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
    log.end_state().expect("room");
    log.copy_part(&head(1), &[b"appended"], (0, 1)).expect("room");
    let id = log.flush_copy().expect("room");
    assert_eq!(log.is_copy_flushed(id), Ok(true));
    drop(log);

    let (mut log, _, bodies) = recover(files()).expect("the old log");
    assert_eq!(bodies, [b"old".to_vec()]);
    // The second try copies less: what the first one left behind it must not be taken for more.
    change_over(&mut log, &[b"state of three"], &[]);
    drop(log);
    let (_, report, bodies) = recover(files()).expect("the new log");
    assert_eq!(bodies, [b"state of three".to_vec()]);
    assert_eq!(report.cut, None);
}

#[test]
fn what_is_committed_while_batches_are_held_goes_into_the_new_file_and_can_be_read_in_both() {
    let device = CrashDevice::new();
    let files = || [device.file("a"), device.file("b")];
    let (mut log, _, _) = recover(files()).expect("empty files");
    append(&mut log, &[b"old"]);
    log.begin_copy().expect("room");
    log.copy(&head(1), &[b"state"]).expect("room");
    log.end_state().expect("room");
    log.hold();
    let place = log.push(&head(2), &[b"held"]);
    log.push(&head(2), &[b"too"]);
    let number = log.commit();
    log.write().expect("nothing to do");
    assert!(log.written() < number && log.poll_flushed().expect("healthy") < number);
    log.flush_copy().expect("room");
    log.seal().expect("room");
    let held = log.switch();
    assert_eq!(held.iter().map(|frame| frame.ends_batch).collect::<Vec<_>>(), [false, true]);
    for frame in held {
        log.push(&frame.head, &[&frame.body]);
    }
    assert_eq!(log.commit(), number);
    let mut body = [0; 4];
    log.read_at(LogFile::A, place.body, &mut body).expect("still there");
    assert_eq!(&body, b"held");
    log.write().expect("room");
    log.request_flush().expect("healthy");
    assert_eq!(log.poll_flushed(), Ok(number));
    drop(log);
    let (_, report, bodies) = recover(files()).expect("a whole log");
    assert_eq!(bodies, [b"state".to_vec(), b"held".to_vec(), b"too".to_vec()]);
    assert_eq!((report.batches, report.cut), (1, None));
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
    device.file("a").write_at(found[1].0 + 165, b"?").expect("room");
    let answer = log.read_from(LOG_START, limit, 1000, &mut |_, _| {});
    assert_eq!(answer, Err(ReadError::Damaged { offset: found[1].0 }));
    assert!(log.read_head(found[1].0).is_ok(), "its header is whole");
}

#[test]
fn damage_in_the_copied_state_is_damage() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    append(&mut log, &[b"old"]);
    change_over(&mut log, &[b"state", b"of", b"three"], &[]);
    let [a, b] = memory(&device);
    let mut bytes = b.bytes().to_vec();
    bytes[LOG_START as usize + 168 + 4] ^= 4;
    let files = || [a.clone(), MemoryDisk::holding(bytes.clone())];
    let (_, report, bodies) = recover(files()).expect("a damaged log can be read");
    let damage = Damage { file: LogFile::B, offset: LOG_START + 168, size: 168 };
    assert_eq!(report.damage, [damage], "the older file must not be used instead");
    assert_eq!(bodies, [b"state".to_vec(), b"three".to_vec()]);
    assert_eq!(lost(files()), [(LOG_START + 168, None)]);
}

#[test]
fn what_was_sealed_was_durable_though_no_later_frame_says_so() {
    let device = CrashDevice::new();
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    change_over(&mut log, &[b"state"], &[b"one", b"two"]);
    let [a, b] = memory(&device);
    for frame in 0..3 {
        let mut bytes = b.bytes().to_vec();
        bytes[LOG_START as usize + 168 * frame + 165] ^= 4;
        let files = [a.clone(), MemoryDisk::holding(bytes)];
        let (_, report, bodies) = recover(files).expect("a damaged log can be read");
        let left = if frame == 0 { 2 } else { 1 };
        assert_eq!((report.damage.len(), report.cut, bodies.len()), (1, None, left), "{frame}");
    }
}

#[test]
fn a_damaged_body_is_lost_alone_and_its_header_says_whose_it_was() {
    let frame = |log: &mut Log<CrashDisk>, document: u64, body: &[u8]| {
        log.push(&FrameHead::new(1, document, Epoch(1)), &[body]);
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
    bytes[LOG_START as usize + 3 * 168 + 160] ^= 1;
    let files = || [MemoryDisk::holding(bytes.clone()), b.clone()];
    let (_, report, bodies) = recover(files()).expect("a damaged log can be read");
    let at = LOG_START + 2 * 168;
    assert_eq!(report.damage, [Damage { file: LogFile::A, offset: at, size: 2 * 168 }]);
    assert_eq!(bodies.len(), 4, "a batch is there whole or not at all");
    assert_eq!(lost(files()), [(at, Some(2)), (at + 168, Some(2))]);
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
    let (mut log, _, _) = recover([device.file("a"), device.file("b")]).expect("empty files");
    let head = FrameHead {
        kind: 6,
        document: 0x0102,
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
    let frame = &bytes[LOG_START as usize..];
    assert_eq!(frame.len(), 168 + 8, "the frame and the end mark");
    let expected = [
        "544c6631",
        &hex(&frame[4..8]),
        "04000000",
        "06010000",
        &hex(&frame[16..20]),
        &hex(&crc32c::crc32c(&bytes[..32]).to_le_bytes()),
        "0100000000000000",
        "0000000000000000",
        "00000000",
        "00000000",
        "01000000",
        "00000000",
        "0201000000000000",
        "0605000000000000",
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
    let covered = [&LOG_START.to_le_bytes()[..], &frame[8..160]].concat();
    assert_eq!(frame[4..8], crc32c::crc32c(&covered).to_le_bytes());
    assert_eq!(frame[16..20], crc32c::crc32c(&frame[160..168]).to_le_bytes());
    assert_eq!(hex(&frame[4..8]), "04288c2b");
    assert_eq!(hex(header_checksum), "d5f3bfbd");
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
    while log.size() + 8200 < left + 20_000 {
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
