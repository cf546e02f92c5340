//! A part of `npm run crash`, in seconds.
//!
//! Goal: what was called durable is never lost, nothing is invented, and what is found is a state
//! that the store had, whole. Method: a script is carried out once; then once for each disk call,
//! where the power goes off, and un-flushed sectors survive by chance, or their blocks are torn.

use tidelog_crash::{Contents, Script};

const TURNS: usize = 4;
const IMAGES_PER_CUT: u64 = 3;

fn script(seed: u64) -> Script {
    Script::new(seed, TURNS).expect("a script that holds without another cut")
}

fn sweep(seed: u64) -> Contents {
    let script = script(seed);
    assert!(script.cuts().len() > 25, "too short to prove anything: {:?}", script.cuts());
    for call in script.cuts() {
        if let Err((image, what)) = script.cut(*call).check_few(IMAGES_PER_CUT) {
            panic!("{seed}:{call}:{image}: {what}");
        }
    }
    script.contents()
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
fn sectors_that_survive_alone_bring_nothing_back() {
    sweep(105);
}

#[test]
fn an_image_has_a_name_by_which_it_is_found_again() {
    let script = script(100);
    let cut = script.cut(40);
    for name in ["c0", "r0", "r199", "t0", "k"] {
        cut.check_one(name.parse().expect("a name")).expect("a sound image");
    }
    let beyond = cut.check_one("c9999999".parse().expect("a name"));
    assert_eq!(beyond, Err("there is no such image".to_owned()));
}

#[test]
fn parts_of_an_entry_and_the_name_that_its_document_takes_are_there_or_not() {
    for seed in [104, 115] {
        let contents = sweep(seed).to_string();
        assert!(!contents.contains(" 0 names taken"), "{contents}");
    }
}
