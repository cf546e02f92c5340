//! A part of `npm run crash`, in seconds.
//!
//! Goal: what was called durable is never lost, nothing is invented, and what is found is a state
//! that the store had, whole. Method: one run counts the disk calls; then one run for each call
//! stops the power there, and un-flushed sectors survive by chance.

use tidelog_crash::Script;

const TURNS: usize = 16;
const IMAGES_PER_CUT: u64 = 6;

fn sweep(seed: u64) {
    let script = Script { seed, turns: TURNS };
    let calls = script.calls();
    assert!(calls > 100, "too short a script to prove anything: {calls} calls");
    for call in 0..=calls {
        if let Err((image, what)) = script.cut(call).check_some(IMAGES_PER_CUT) {
            panic!("{seed}:{call}:{image}: {what}");
        }
    }
}

#[test]
fn a_power_cut_after_any_disk_call_keeps_what_was_durable() {
    sweep(100);
}

#[test]
fn a_power_cut_while_flushes_are_under_way_keeps_what_was_durable() {
    sweep(101);
}

#[test]
fn an_image_has_a_name_by_which_it_is_found_again() {
    let cut = Script { seed: 100, turns: TURNS }.cut(40);
    for name in ["c0", "r0", "r199"] {
        cut.check_one(name.parse().expect("a name")).expect("a sound image");
    }
    let beyond = cut.check_one("c9999999".parse().expect("a name"));
    assert_eq!(beyond, Err("there is no such image".to_owned()));
}
