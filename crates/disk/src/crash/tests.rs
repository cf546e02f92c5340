use super::*;
use crate::conformance::{self, Failure};
use crate::{BLOCK_SIZE, Disk, SECTOR_SIZE};

fn read(disk: &CrashDisk, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    disk.read_at(0, &mut bytes).expect("within the file");
    bytes
}

#[test]
fn a_crash_disk_keeps_the_laws() {
    crate::conformance::run(|| CrashDevice::new().file("a"));
    crate::conformance::run_with(
        || {
            let device = CrashDevice::new();
            device.hold_flushes(true);
            device.file("a")
        },
        |disk| disk.device().complete_flushes(),
    );
}

#[test]
fn each_unflushed_sector_survives_or_not() {
    let device = CrashDevice::new();
    let mut disk = device.file("a");
    disk.write_at(0, &[1; 1536]).expect("room");
    disk.request_flush().expect("healthy");
    disk.write_at(0, &[2; 1536]).expect("room");
    let mut choices = [0, 1, 0].into_iter();
    let left = device.crash(&mut |_| choices.next().expect("three sectors"));
    let left = read(&left.file("a"), 1536);
    assert_eq!((left[0], left[511], left[512], left[1023]), (1, 1, 2, 2));
    assert_eq!(left[1024..], [1; 512]);
}

#[test]
fn a_torn_block_takes_its_durable_sectors_along() {
    let device = CrashDevice::new();
    let mut disk = device.file("a");
    disk.write_at(0, &[1; 3 * 4096]).expect("room");
    disk.request_flush().expect("healthy");
    // The same again harms nothing.
    disk.write_at(0, &[1; 600]).expect("room");
    disk.write_at(4096 + 600, &[2; 9]).expect("room");
    for choice in 0..3 {
        let mut asked = 0;
        let left = device.tear(&mut |versions| {
            asked += 1;
            assert_eq!(versions, 3);
            choice
        });
        assert_eq!(asked, 1, "one block has changed");
        let left = read(&left.file("a"), 3 * 4096);
        assert_eq!([&left[..4096], &left[8192..]].concat(), [1; 2 * 4096], "others are whole");
        let is_durable = |byte: &u8| *byte == 1;
        let block = &left[4096..8192];
        match choice {
            0 => assert!(block.iter().all(is_durable)),
            1 => assert!(block.chunks(512).all(|sector| !sector.iter().all(is_durable))),
            _ => assert_eq!(block[600..609], [2; 9]),
        }
    }
}

#[test]
fn a_sector_written_twice_can_survive_in_either_version() {
    let device = CrashDevice::new();
    let mut disk = device.file("a");
    disk.write_at(0, &[0; 512]).expect("room");
    disk.request_flush().expect("healthy");
    disk.write_at(0, b"old").expect("room");
    disk.write_at(1, b"new").expect("room");
    for (choice, expected) in [(0, b"\0\0\0\0"), (1, b"old\0"), (2, b"onew")] {
        assert_eq!(&disk.crash(&mut |_| choice)[..4], expected);
    }
}

#[test]
fn a_held_flush_covers_what_was_written_before_its_request() {
    let device = CrashDevice::new();
    device.hold_flushes(true);
    let mut disk = device.file("a");
    disk.write_at(0, b"before").expect("room");
    let id = disk.request_flush().expect("healthy");
    disk.write_at(0, b"BEHIND").expect("room");
    assert_eq!(disk.flushed(), Ok(None));
    assert_eq!(disk.crash(&mut |_| 0), b"");
    device.complete_flushes();
    assert_eq!(disk.flushed(), Ok(Some(id)));
    assert_eq!(disk.crash(&mut |_| 0), b"before");
    assert_eq!(disk.crash(&mut |count| count - 1), b"BEHIND");
}

#[test]
fn a_failed_flush_poisons_the_file() {
    let device = CrashDevice::new();
    let mut disk = device.file("a");
    device.fail_call(2, DiskFault::Device);
    disk.write_at(0, b"abc").expect("room");
    assert!(matches!(disk.request_flush(), Err(DiskError::Device { .. })));
    assert_eq!(disk.write_at(0, b"abc"), Err(DiskError::Poisoned));
    assert_eq!(disk.request_flush(), Err(DiskError::Poisoned));
    assert_eq!(disk.flushed(), Err(DiskError::Poisoned));
    assert_eq!(disk.read_at(0, &mut [0; 3]), Err(DiskError::Poisoned));
}

#[test]
fn a_full_device_says_so_and_takes_what_still_fits() {
    let device = CrashDevice::new();
    device.set_capacity(Some(10));
    let (mut first, mut second) = (device.file("a"), device.file("b"));
    first.write_at(0, b"123456").expect("room");
    assert_eq!(second.write_at(0, b"12345"), Err(DiskError::Full));
    assert_eq!(second.size(), 2, "half of it had been written");
    second.write_at(0, b"1234").expect("room");
    assert_eq!(first.set_size(7), Err(DiskError::Full));
}

#[test]
fn the_power_goes_off_after_a_given_call() {
    let device = CrashDevice::new();
    device.power_off_after(1);
    let mut disk = device.file("a");
    disk.write_at(0, b"abc").expect("the first call");
    assert!(disk.write_at(0, b"xyz").is_err());
    assert!(disk.read_at(0, &mut [0; 3]).is_err());
    let left = device.crash(&mut |count| count - 1);
    assert_eq!(left.bytes_of("a").as_deref(), Some(b"abc".as_slice()));
}

#[test]
fn a_crash_disk_fails_as_the_laws_say() {
    for holds in [false, true] {
        for late in [false, true] {
            let new = || {
                let device = CrashDevice::new();
                device.hold_flushes(holds);
                device.file("a")
            };
            let fail = |disk: &mut CrashDisk, failure| {
                let fault = match failure {
                    Failure::Flush if late => DiskFault::LateFlush,
                    Failure::Flush => DiskFault::Device,
                    Failure::ShortWrite if late => DiskFault::NothingWritten,
                    Failure::ShortWrite => DiskFault::ShortWrite,
                    Failure::AbsurdLength => DiskFault::AbsurdLength,
                    Failure::Full => DiskFault::Full,
                };
                let device = disk.device();
                device.fail_call(device.calls() + 1, fault);
            };
            conformance::run_failing(new, fail, |disk| disk.device().complete_flushes());
        }
    }
}

#[test]
fn each_fault_writes_what_it_says_and_claims_what_it_says() {
    let said = [
        (DiskFault::Device, 3, None),
        (DiskFault::Full, 3, None),
        (DiskFault::ShortWrite, 3, Some(3)),
        (DiskFault::NothingWritten, 0, Some(0)),
        (DiskFault::AbsurdLength, 3, Some(4_294_967_288)),
        (DiskFault::LateFlush, 3, None),
    ];
    assert_eq!(said.map(|(fault, _, _)| fault), DiskFault::ALL);
    for (fault, size, claimed) in said {
        let device = CrashDevice::new();
        device.fail_call(1, fault);
        let mut disk = device.file("a");
        let error = disk.write_at(0, b"abcdef").expect_err("told to fail");
        if let Some(written) = claimed {
            assert_eq!(error, DiskError::ShortWrite { expected: 6, written });
        }
        assert_eq!(disk.size(), size, "{fault:?}");
    }
}

/// Every way in which a cut can leave a write of three sectors that grew the file.
#[test]
fn a_cut_loses_tears_and_reorders_by_sectors() {
    let device = CrashDevice::new();
    let mut disk = device.file("a");
    disk.write_at(0, &[1; 3 * SECTOR_SIZE]).expect("room");
    let mut seen = std::collections::BTreeSet::new();
    for choice in 0..1 << 4 {
        let mut bit = 0;
        let image = disk.crash(&mut |versions| {
            assert_eq!(versions, 2, "as it was, or as it was written");
            bit += 1;
            choice >> (bit - 1) & 1
        });
        assert!(image.is_empty() || image.len() == 3 * SECTOR_SIZE, "the size, or not");
        for sector in image.chunks(SECTOR_SIZE) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is never torn");
        }
        seen.insert(image);
    }
    assert_eq!(seen.len(), 1 + 8, "no size and no bytes, or any of the sectors");
}

#[test]
fn after_the_power_went_off_no_held_flush_completes() {
    let device = CrashDevice::new();
    device.hold_flushes(true);
    device.power_off_after(2);
    let mut disk = device.file("a");
    disk.write_at(0, b"abc").expect("the first call");
    disk.request_flush().expect("the second call");
    assert!(!device.has_held_flushes(), "none that may still complete");
    device.complete_flushes();
    device.complete_flushes_of_one(&mut |_| 0);
    assert_eq!(disk.flushed(), Ok(None));
    assert_eq!(disk.crash(&mut |_| 0), b"");
}

#[test]
fn after_a_failed_flush_what_it_covered_may_still_be_lost() {
    for fault in [DiskFault::Device, DiskFault::LateFlush] {
        let device = CrashDevice::new();
        let mut disk = device.file("a");
        disk.write_at(0, b"abc").expect("room");
        device.fail_call(2, fault);
        let _ = disk.request_flush();
        assert_eq!(disk.flushed(), Err(DiskError::Poisoned));
        assert_eq!(disk.crash(&mut |_| 0), b"");
        assert_eq!(disk.crash(&mut |count| count - 1), b"abc");
    }
}

#[test]
fn an_image_is_a_device_of_its_own() {
    let device = CrashDevice::new();
    let mut disk = device.file("a");
    disk.write_at(0, b"abc").expect("room");
    disk.request_flush().expect("healthy");
    let image = device.crash(&mut |_| 0);
    image.file("a").write_at(0, b"xyz").expect("room");
    assert_eq!(device.bytes_of("a").as_deref(), Some(b"abc".as_slice()));
    assert_eq!(image.bytes_of("a").as_deref(), Some(b"xyz".as_slice()));
    assert_eq!(image.crash(&mut |_| 0).bytes_of("a").as_deref(), Some(b"abc".as_slice()));
}

#[test]
fn the_calls_after_which_a_cut_leaves_something_else_are_known() {
    let device = CrashDevice::new();
    device.hold_flushes(true);
    let mut disk = device.file("a");
    disk.write_at(0, b"abc").expect("room");
    read(&disk, 3);
    read(&disk, 3);
    disk.request_flush().expect("healthy");
    device.complete_flushes();
    read(&disk, 3);
    read(&disk, 3);
    disk.set_size(1).expect("a smaller size");
    assert_eq!(device.changing_calls(), [1, 4, 5, 7]);
}

#[test]
fn a_flush_that_failed_leaves_clean_what_it_covered() {
    for fault in [DiskFault::Device, DiskFault::LateFlush] {
        let device = CrashDevice::new();
        let mut file = device.file("a");
        file.write_at(0, &[1; 600]).expect("room");
        device.fail_call(device.calls() + 1, fault);
        let flushed = file.request_flush().and_then(|_| file.flushed());
        assert!(flushed.is_err(), "{fault:?}");
        let device = device.kill();
        let mut file = device.file("a");
        file.write_at(0, &[1; 512]).expect("room");
        file.request_flush().expect("healthy");
        assert_eq!(device.bytes_of("a"), Some(vec![1; 600]), "it is seen");
        let left = device.crash(&mut |_| 0).bytes_of("a").expect("a file");
        assert_eq!(left, [[1; 512].as_slice(), &[0; 88]].concat(), "and only half of it durable");
        assert_eq!(device.unflushed_sectors(), 1);
    }
}

/// What is cut off goes at once or not at all, and a file that grows again begins with zeros.
#[test]
fn a_file_that_was_cut_off_is_so_whole() {
    let device = CrashDevice::new();
    let mut file = device.file("a");
    file.write_at(0, &[1; 2048]).expect("room");
    file.request_flush().expect("healthy");
    device.hold_flushes(true);
    file.set_size(700).expect("less");
    file.write_at(1024, &[1; 512]).expect("room");
    let images = |device: &CrashDevice, sizes: usize| {
        let mut choice = 0;
        let left = device.crash(&mut |versions| {
            choice += 1;
            if choice == 1 { sizes } else { versions - 1 }
        });
        left.bytes_of("a").expect("a file")
    };
    let half = [[1; 700].as_slice(), &[0; 324]].concat();
    let cut_off = [half.as_slice(), &[1; 1024]].concat();
    assert_eq!(images(&device, 0), cut_off, "the size is as it was, and the sector cleared");
    assert_eq!(images(&device, 1), half[..700]);
    assert_eq!(images(&device, 2), [half.as_slice(), &[1; 512]].concat());
    file.request_flush().expect("healthy");
    device.complete_flushes();
    assert_eq!(images(&device, 0), [half.as_slice(), &[1; 512]].concat());
}

#[test]
fn on_a_full_device_what_is_there_can_be_written_again_and_cleared() {
    let device = CrashDevice::new();
    let mut file = device.file("a");
    file.write_at(0, &[1; 100]).expect("room");
    device.set_full(true);
    assert_eq!(file.write_at(50, &[2; 10]), Err(DiskError::Full));
    assert_eq!(file.write_at(100, &[1; 10]), Err(DiskError::Full));
    file.write_at(10, &[1; 10]).expect("it is there");
    file.write_at(20, &[0; 10]).expect("nothing");
    device.set_full(false);
    file.write_at(50, &[2; 10]).expect("room");
}

#[test]
fn a_hole_is_every_block_that_a_file_has_got_without_a_write_and_no_other() {
    let block = BLOCK_SIZE as u64;
    for (before, after, used) in
        [(0, 3 * block, 0), (block, 3 * block, block), (10, 3 * block + 10, block + 10)]
    {
        let device = CrashDevice::new();
        device.let_holes_be(true);
        let mut file = device.file("a");
        file.write_at(0, &vec![1; usize::try_from(before).expect("small")]).expect("room");
        file.set_size(after).expect("no room is needed");
        assert_eq!(device.used(), used, "from {before} to {after}");
    }
}

#[test]
fn holes_take_up_no_room_after_a_crash_either() {
    let device = CrashDevice::new();
    device.let_holes_be(true);
    let mut file = device.file("a");
    file.write_at(0, &[1; BLOCK_SIZE]).expect("room");
    file.set_size(10 * BLOCK_SIZE as u64).expect("no room is needed");
    file.request_flush().expect("healthy");
    let used = device.used();
    let images = [device.crash(&mut |_| 0), device.tear(&mut |_| 0), device.kill()];
    for (nth, left) in images.iter().enumerate() {
        assert_eq!(left.used(), used, "{nth}");
        left.set_capacity(Some(used));
        let mut file = left.file("a");
        assert_eq!(file.write_at(5 * BLOCK_SIZE as u64, &[1; 10]), Err(DiskError::Full), "{nth}");
        file.set_size(20 * BLOCK_SIZE as u64).expect("no room is needed");
    }
}

#[test]
fn bytes_that_cannot_be_read_cost_no_others_and_stay_so_whoever_comes() {
    let device = CrashDevice::new();
    device.file("a").write_at(0, &[1; 4 * SECTOR_SIZE]).expect("room");
    let sector = SECTOR_SIZE as u64;
    device.make_unreadable("a", sector..2 * sector);
    for device in [device.clone(), device.kill(), device.crash(&mut |versions| versions - 1)] {
        let disk = device.file("a");
        let can_read = |offset, count| disk.read_at(offset, &mut vec![0; count]).is_ok();
        assert!(can_read(0, SECTOR_SIZE) && can_read(2 * sector, 2 * SECTOR_SIZE));
        assert!(!can_read(0, SECTOR_SIZE + 1) && !can_read(2 * sector - 1, 1));
        device.make_readable("a");
        assert!(can_read(0, 4 * SECTOR_SIZE), "until the device has them again");
    }
}
