//! A log that is old is changed over, and nothing that was overwritten is left in any file.

use tidelog_disk::{CrashDevice, StoreFiles};
use tidelog_testing::store::make::{entry, storage, timeline};
use tidelog_testing::store::{Server, append, generation, observe, open, settle};
use tidelog_types::limits::LOG_AGE_MS_MAX;

/// Some day.
const NOW_MS: u64 = 20_000 * LOG_AGE_MS_MAX;

/// What pages are filled with that are overwritten.
const SECRET: u8 = 0xB7;

/// Which files have what was overwritten.
fn leaks(device: &CrashDevice) -> Vec<&'static str> {
    let has = |name: &&'static str| {
        let bytes = device.bytes_of(name).unwrap_or_default();
        bytes.windows(64).any(|it| it.iter().all(|byte| *byte == SECRET))
    };
    StoreFiles::<()>::NAMES.into_iter().filter(has).collect()
}

/// Time passes, and somebody asks for something.
fn at(server: &mut Server, device: &CrashDevice, now_ms: u64) {
    server.set_time(now_ms);
    server.flush();
    settle(server, device);
}

fn write(server: &mut Server, device: &CrashDevice, nth: u64, fill: u8) {
    let pages: Vec<(u32, u8)> = (1..=4).map(|pgid| (pgid, fill)).collect();
    append(server, device, nth, storage("a", [entry(nth, nth + 1, 4, &pages)]));
}

/// A store whose page file has something, all of which was overwritten since.
fn overwritten() -> (CrashDevice, Server) {
    let device = CrashDevice::new();
    let mut server = open(&device);
    at(&mut server, &device, NOW_MS);
    write(&mut server, &device, 1, 1);
    write(&mut server, &device, 2, SECRET);
    append(&mut server, &device, 3, timeline("b", 1..5));
    at(&mut server, &device, NOW_MS + LOG_AGE_MS_MAX);
    assert_eq!(leaks(&device), ["pages"], "checkpointed, and in no log");
    write(&mut server, &device, 3, 3);
    write(&mut server, &device, 4, SECRET);
    write(&mut server, &device, 5, 4);
    (device, server)
}

#[test]
fn what_was_overwritten_is_in_no_file_once_the_log_is_a_day_old() {
    let (device, mut server) = overwritten();
    let (before, begun_ms) = (generation(&server), NOW_MS + LOG_AGE_MS_MAX);
    at(&mut server, &device, begun_ms + LOG_AGE_MS_MAX - 1);
    assert_eq!((generation(&server), leaks(&device).len()), (before, 2));
    let kept = observe(&mut server, &device);
    at(&mut server, &device, begun_ms + LOG_AGE_MS_MAX);
    assert_eq!((generation(&server), leaks(&device).len()), (before + 1, 0));
    assert_eq!(observe(&mut server, &device), kept);
    for days in 2..9 {
        at(&mut server, &device, begun_ms + days * LOG_AGE_MS_MAX);
    }
    assert!(generation(&server) <= before + 2, "nothing was appended that could go");
}

/// Goal: the age of a log is known to whoever opens it next. Method: opened before and after it
/// has come, and with a clock that was set back by years meanwhile; and one whose beginning nobody
/// knew.
#[test]
fn a_log_is_as_old_as_it_is_whoever_opens_it() {
    let begun_ms = NOW_MS + LOG_AGE_MS_MAX;
    for (now_ms, is_old) in [
        (begun_ms + 1, false),
        (begun_ms - 1, false),
        (begun_ms + LOG_AGE_MS_MAX, true),
        (begun_ms / 2, true),
    ] {
        let (device, server) = overwritten();
        let before = generation(&server);
        drop(server);
        let mut server = open(&device);
        at(&mut server, &device, now_ms);
        assert_eq!(generation(&server) > before, is_old);
        assert_eq!(leaks(&device).is_empty(), is_old);
    }
    let device = CrashDevice::new();
    let mut server = open(&device);
    write(&mut server, &device, 1, SECRET);
    at(&mut server, &device, 0);
    assert_eq!(generation(&server), 1, "nobody has told the time");
    drop(server);
    let mut server = open(&device);
    at(&mut server, &device, NOW_MS);
    assert_eq!(generation(&server), 2);
}

/// Goal: the power may be cut at any call meanwhile. Method: so it is, at each in turn; all is
/// there then as it was, and nothing that was overwritten, once somebody has asked for something.
#[test]
fn nothing_is_left_though_the_power_is_cut_meanwhile() {
    let (mut cuts, mut is_over) = (0, false);
    while !is_over {
        let (device, mut server) = overwritten();
        let kept = observe(&mut server, &device);
        let now_ms = NOW_MS + 2 * LOG_AGE_MS_MAX;
        device.power_off_after(device.calls() + cuts);
        server.set_time(now_ms);
        server.flush();
        settle(&mut server, &device);
        is_over = leaks(&device).is_empty() && !server.is_broken();
        cuts += 1;
        drop(server);
        for survives in [0, usize::MAX] {
            let device = device.crash(&mut |count| survives.min(count.saturating_sub(1)));
            let mut server = open(&device);
            at(&mut server, &device, now_ms);
            assert_eq!(leaks(&device), Vec::<&str>::new(), "cut after {cuts} calls");
            assert_eq!(observe(&mut server, &device), kept);
        }
    }
    assert!(cuts > 20, "{cuts} cuts");
}
