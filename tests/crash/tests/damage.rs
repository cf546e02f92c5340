//! A part of the damage that `npm run crash` does, in seconds.

use std::alloc::System;

use cap::Cap;
use tidelog_crash::damage::{Outcome, Rest, Tally};
use tidelog_disk::StoreFiles;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// One test, since what is allocated is counted for the whole process.
#[test]
fn damage_gives_no_wrong_answer_no_panic_and_no_large_allocation() {
    let rest = Rest::new(|| ALLOCATOR.total_allocated());
    assert_eq!(rest.untouched(), Ok(Outcome::Whole));
    let mut tally = Tally::default();
    let mut note = |what: &str, place: u64, outcome: Result<Outcome, String>| {
        tally.note(outcome.unwrap_or_else(|error| panic!("{what} {place}: {error}")));
    };
    for bit in (0..rest.bits()).step_by(1009) {
        note("bit", bit, rest.flip(bit));
    }
    let made_again = Rest::made_again(|| ALLOCATOR.total_allocated());
    let destruction = made_again.flip_destruction(23).expect("what was made since then is there");
    assert!(destruction.reported > 20, "{destruction}");
    let pairs = rest.flip_pairs(4001).expect("as much of it as is whole");
    assert!(pairs.reported > 50, "{pairs}");
    let unmarked = rest.flip_unmarked(509).expect("a cut tail that is reported");
    assert!(unmarked.reported > 5, "{unmarked}");
    for size in rest.tail_sizes().step_by(41) {
        note("cut off at", size, rest.cut_off(size));
    }
    for (name, bits) in rest.other_files() {
        for bit in (0..bits).step_by(40_009) {
            note(name, bit, rest.flip_in(name, bit));
        }
    }
    for (nth, name) in (0..).zip(StoreFiles::<()>::NAMES) {
        note("lost", nth, rest.lose(name));
    }
    assert!(tally.refused >= 2, "without its log or its pages: {tally}");
    assert!(tally.whole > 10 && tally.reported > 300, "{tally}");
}
