//! Cuts the power after every disk call of a workload and opens what is left.
//!
//! Goal: what was called durable is never lost, nothing is invented, and what is found is a state
//! that the store had, whole. Method: one run counts the disk calls; then one run for each call
//! stops the power there, and random subsets of the un-flushed sectors survive.

mod common;

use common::{OWNER, Rng, Run, files, is_same, observe, open, run, settle, small_log};
use tidelog_disk::CrashDevice;
use tidelog_pages::{Append, PageServer, StoreRequest, Ticket};
use tidelog_types::DocumentKey;

const TURNS: usize = 35;
const IMAGES_PER_CUT: usize = 20;

fn sweep(seed: u64, holds_flushes: bool) {
    let new_device = || {
        let device = CrashDevice::new();
        device.hold_flushes(holds_flushes);
        device
    };
    let whole = run(new_device(), seed, TURNS);
    assert!(!whole.is_broken);
    assert_eq!(whole.durable, whole.history.last().expect("some").0, "all became durable");
    let calls = whole.device.calls();
    assert!(calls > 200, "too short a workload to prove anything: {calls} calls");
    let (mut server, report) =
        PageServer::open_with(files(&whole.device), small_log()).expect("a whole store");
    assert!(report.generation > 4, "too few change-overs: {report:?}");
    assert_eq!(report.cut, None);
    let found = whole.find(&observe(&mut server, &whole.device));
    assert_eq!(found, Some(whole.history.len() - 1));

    let mut rng = Rng::new(seed + 1000);
    for cut in 0..calls {
        let device = new_device();
        device.power_off_after(cut);
        let run = run(device, seed, TURNS);
        assert!(run.is_broken || holds_flushes, "the power went off at call {cut}");
        for image in 0..IMAGES_PER_CUT {
            let left = run.device.crash(&mut choice(&mut rng, image));
            check(&run, &left, cut, image);
        }
    }
}

/// Ways to choose which version of a sector survives: none, the newest, and mixtures.
fn choice(rng: &mut Rng, image: usize) -> impl FnMut(usize) -> usize + '_ {
    move |versions| match image % 5 {
        _ if image == 0 => 0,
        _ if image == 1 => versions - 1,
        0 if !rng.one_in(8) => 0,
        1 if !rng.one_in(8) => versions - 1,
        _ => rng.below(versions),
    }
}

fn check(run: &Run, left: &CrashDevice, cut: u64, image: usize) {
    let mut server = open(left);
    let observed = observe(&mut server, left);
    let found = run.find(&observed);
    let found = found.unwrap_or_else(|| {
        panic!("cut after call {cut}, image {image}: not a state since {:?}", run.durable)
    });
    if image % 4 == 3 {
        go_on(run, left, server, found, image);
    }
}

/// A store that was opened after a cut works, and what the cut tore never comes back.
fn go_on(run: &Run, left: &CrashDevice, mut server: common::Server, found: usize, image: usize) {
    let mut append = Append::to(DocumentKey::new("after", "").expect("a good name"));
    append.record = Some(vec![image as u8; 40].into());
    let request = StoreRequest::Append { ticket: Ticket(1), append };
    let mut expected = run.history[found].1.clone();
    expected.apply(&request);
    server.serve(OWNER, request);
    server.flush();
    settle(&mut server, left);
    drop(server);
    for survives in [false, true] {
        let left = left.crash(&mut |versions| if survives { versions - 1 } else { 0 });
        let observed = observe(&mut open(&left), &left);
        assert!(is_same(&observed, &expected), "a cut tail came back, or an append got lost");
    }
}

#[test]
fn a_power_cut_after_any_disk_call_keeps_what_was_durable() {
    sweep(1, false);
}

#[test]
fn a_power_cut_while_flushes_are_under_way_keeps_what_was_durable() {
    sweep(2, true);
}
