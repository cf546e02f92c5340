//! A part of `npm run crash`, in seconds.
//!
//! Goal: what was called durable is never lost, nothing is invented, and what is found is a state
//! that the store had, whole. Method: a script is carried out once; then once for each disk call,
//! where the power goes off, and un-flushed sectors survive by chance, or their blocks are torn.

use tidelog_crash::{Contents, Cut, Script};

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
    sweep(105);
}

#[test]
fn a_power_cut_while_flushes_are_under_way_keeps_what_was_durable() {
    sweep(106);
}

#[test]
fn sectors_that_survive_alone_bring_nothing_back() {
    sweep(111);
}

#[test]
fn a_batch_in_parts_that_finds_no_room_leaves_what_was_there_before() {
    let contents = sweep(118).to_string();
    assert!(!contents.contains(" 0 requests refused"), "{contents}");
}

#[test]
fn an_image_has_a_name_by_which_it_is_found_again() {
    let script = script(105);
    let first = |cut: &Cut<'_>| cut.check_one("c0".parse().expect("a name"));
    let mut cuts = script.cuts().iter().skip(20).map(|call| script.cut(*call));
    let cut = cuts.find(|cut| first(cut).is_ok()).expect("one with few sectors");
    for name in ["c0", "r0", "r199", "t0", "k"] {
        cut.check_one(name.parse().expect("a name")).expect("a sound image");
    }
    let beyond = cut.check_one("c9999999".parse().expect("a name"));
    assert_eq!(beyond, Err("there is no such image".to_owned()));
}

/// Two, and tests of their own: each takes as long as all of the others together.
fn sweep_where_a_name_is_taken(seed: u64) {
    let contents = sweep(seed).to_string();
    assert!(!contents.contains(" 0 names taken"), "{contents}");
}

#[test]
fn parts_of_an_entry_and_the_name_that_its_document_takes_are_there_or_not() {
    sweep_where_a_name_is_taken(110);
}

#[test]
fn other_parts_of_an_entry_and_the_name_that_its_document_takes_are_there_or_not() {
    sweep_where_a_name_is_taken(125);
}
