//! Makes the n-th disk call fail, for every n, in every way.
//!
//! Goal: a failed call is never followed by a false acknowledgement, and the store opens
//! afterwards with everything that was called durable. Method: one run for each call; then some of
//! the un-flushed sectors are lost, and the store is opened.

use tidelog_disk::{CrashDevice, DiskFault};
use tidelog_pages::{PageServer, StoreOptions, StoreReply, StoreRequest};
use tidelog_testing::Rng;
use tidelog_testing::store::{OWNER, Run, files, observe, open, run_with, seed, settle};

const TURNS: usize = 10;
const SEED: u64 = 3;

/// Small, so that the log changes over within the few turns.
fn sizes() -> StoreOptions {
    StoreOptions {
        log_size_max: 12 * 1024,
        pool_pages_max: 8,
        log_buffer_size_max: 6 * 1024,
        ..StoreOptions::default()
    }
}

/// What became of the runs of a sweep.
#[derive(Debug, Default)]
struct Swept {
    /// Runs that ended with a server that had to be opened anew.
    broken: u64,
    /// Runs in which appends were refused.
    taken_back: u64,
}

fn sweep(fault: DiskFault) -> Swept {
    let mut swept = Swept::default();
    for holds_flushes in [false, true] {
        let device = || {
            let device = CrashDevice::new();
            device.hold_flushes(holds_flushes);
            device
        };
        let clean = run_with(device(), SEED, TURNS, sizes());
        let (_, report) =
            PageServer::open(files(&clean.device), seed(&clean.device)).expect("a whole store");
        assert!(report.generation > 1, "too few change-overs: {report:?}");
        for call in 1.. {
            let device = device();
            device.fail_call(call, fault);
            let run = run_with(device, SEED, TURNS, sizes());
            if run.device.calls() < call {
                assert!(!run.is_broken && run.failed.is_empty(), "nothing failed");
                break;
            }
            swept.broken += u64::from(run.is_broken);
            swept.taken_back += u64::from(!run.failed.is_empty());
            check(&run, &format!("{fault:?} at call {call}"));
        }
    }
    swept
}

/// Whatever survives, the store opens with everything that was called durable.
fn check(run: &Run, what: &str) {
    let mut rng = Rng::new(run.device.calls());
    for image in 0..5 {
        let left = match image {
            // The next page server opens what is in the caches of the system.
            4 => run.device.kill(),
            _ => run.device.crash(&mut |versions| match image {
                0 => 0,
                1 => versions - 1,
                _ => rng.below(versions),
            }),
        };
        let mut server = open(&left);
        let observed = observe(&mut server, &left);
        let found = run.find(&observed);
        assert!(found.is_some(), "{what}, image {image}: not a state since {:?}", run.durable);
        // Whoever is told that it is let in may rely on what it found.
        server.serve(
            OWNER,
            StoreRequest::Hello { epoch: run.granted, life: tidelog_types::Life::NONE },
        );
        server.flush();
        let replies = settle(&mut server, &left);
        assert!(matches!(replies.as_slice(), [StoreReply::Ready { .. }]), "{what}: {replies:?}");
        let left = left.crash(&mut |_| 0);
        let again = observe(&mut open(&left), &left);
        assert!(again == observed, "{what}, image {image}: what was found got lost");
    }
}

#[test]
fn a_failing_device_breaks_the_server_and_loses_nothing_durable() {
    let swept = sweep(DiskFault::Device);
    assert!(swept.broken > 100 && swept.taken_back == 0, "{swept:?}");
}

#[test]
fn a_full_device_fails_the_appends_at_hand_and_the_store_goes_on() {
    let swept = sweep(DiskFault::Full);
    assert!(swept.taken_back > 10, "{swept:?}");
}

#[test]
fn a_short_write_is_taken_for_a_full_device() {
    let swept = sweep(DiskFault::ShortWrite);
    assert!(swept.taken_back > 10, "{swept:?}");
}

#[test]
fn a_write_of_nothing_is_taken_for_a_full_device() {
    let swept = sweep(DiskFault::NothingWritten);
    assert!(swept.taken_back > 10, "{swept:?}");
}

#[test]
fn a_write_of_an_absurd_length_is_taken_for_a_full_device() {
    let swept = sweep(DiskFault::AbsurdLength);
    assert!(swept.taken_back > 10, "{swept:?}");
}

#[test]
fn a_flush_that_fails_later_breaks_the_server_and_loses_nothing_durable() {
    let swept = sweep(DiskFault::LateFlush);
    assert!(swept.broken > 100 && swept.taken_back == 0, "{swept:?}");
}

/// The device fills up for good at different points; in the end there is room again.
#[test]
fn a_store_on_a_device_that_stays_full_keeps_what_it_has() {
    for capacity in (8..120).step_by(4).map(|kib| kib * 1024) {
        let device = CrashDevice::new();
        device.set_capacity(Some(capacity));
        let run = run_with(device, 4, TURNS, sizes());
        run.device.set_capacity(None);
        let left = run.device.crash(&mut |_| 0);
        let observed = observe(&mut open(&left), &left);
        assert!(run.find(&observed).is_some(), "capacity {capacity}");
    }
}
