//! Makes the n-th disk call fail, for every n, in every way.
//!
//! Goal: a failed call is never followed by a false acknowledgement, and the store opens
//! afterwards with everything that was called durable. Method: as in `crash.rs`, with the device
//! going on.

mod common;

use common::{Rng, observe, open, run};
use tidelog_disk::{CrashDevice, Fault};

const TURNS: usize = 30;

fn sweep(fault: Fault) -> (u64, u64) {
    let (mut broken, mut taken_back) = (0, 0);
    for call in 1.. {
        let device = CrashDevice::new();
        device.fail_call(call, fault);
        let run = run(device, 3, TURNS);
        broken += u64::from(run.is_broken);
        taken_back += u64::from(run.failed > 0);
        let mut rng = Rng::new(call);
        for image in 0..4 {
            let left = run.device.crash(&mut |versions| match image {
                0 => 0,
                1 => versions - 1,
                _ => rng.below(versions),
            });
            let observed = observe(&mut open(&left), &left);
            assert!(
                run.find(&observed).is_some(),
                "{fault:?} at call {call}, image {image}: not a state since {:?}",
                run.durable,
            );
        }
        if run.device.calls() < call {
            break;
        }
    }
    (broken, taken_back)
}

#[test]
fn a_failing_device_breaks_the_server_and_loses_nothing_durable() {
    let (broken, taken_back) = sweep(Fault::Device);
    assert!(broken > 100);
    assert_eq!(taken_back, 0);
}

#[test]
fn a_full_device_fails_the_appends_at_hand_and_the_store_goes_on() {
    let (_, taken_back) = sweep(Fault::Full);
    assert!(taken_back > 20, "only {taken_back} runs met it in an append");
}

#[test]
fn a_short_write_is_taken_for_a_full_device() {
    let (_, taken_back) = sweep(Fault::ShortWrite);
    assert!(taken_back > 20, "only {taken_back} runs met it in an append");
}

/// The device fills up for good at different points; in the end there is room again.
#[test]
fn a_store_on_a_device_that_stays_full_keeps_what_it_has() {
    for capacity in (8..400).step_by(16).map(|kib| kib * 1024) {
        let device = CrashDevice::new();
        device.set_capacity(Some(capacity));
        let run = run(device, 4, TURNS);
        run.device.set_capacity(None);
        let left = run.device.crash(&mut |_| 0);
        let observed = observe(&mut open(&left), &left);
        assert!(run.find(&observed).is_some(), "capacity {capacity}");
    }
}
