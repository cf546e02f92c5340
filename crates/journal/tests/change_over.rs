//! Going over to the other file.

mod common;

use common::{append, change_over, head, recover};
use tidelog_disk::CrashDevice;
use tidelog_journal::LogFile;

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
    let held = log.switch().expect("room");
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

/// Goal: the other file takes the most that fits of what it may have, but leaves what it does not
/// need. Method: devices with room for all of it, for the least of it, and for less.
#[test]
fn the_other_file_grows_to_the_least_size_where_the_device_lacks_room_for_the_most() {
    for (room, expected) in [(1000, 600), (600, 600), (599, 300), (300, 300), (299, 100)] {
        let device = CrashDevice::new();
        let files = || [device.file("a"), device.file("b")];
        let (mut log, _, _) = recover(files()).expect("empty files");
        append(&mut log, &[b"old"]);
        let mut resize = |sizes| while !log.resize_other(&sizes, 1 << 16).expect("healthy") {};
        resize(100 << 10..=100 << 10);
        device.set_capacity(Some(device.used() + ((room - 100) << 10)));
        resize(300 << 10..=600 << 10);
        let size = device.bytes_of("b").map(|bytes| bytes.len());
        assert_eq!(size, Some(expected << 10), "room for {room} KiB");
        device.set_capacity(None);
        resize(400 << 10..=500 << 10);
        assert_eq!(device.bytes_of("b").map(|bytes| bytes.len()), Some(500 << 10));
    }
}
