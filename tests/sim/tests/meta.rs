//! The simulator itself: one seed is one run, and seeds differ.

#![cfg(not(target_arch = "wasm32"))]

use tidelog_sim::{Told, World};

fn trace(seed: u64) -> String {
    World::new(seed, Told::Trace).run().expect("the seed passes").trace
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    assert_eq!(trace(7), trace(7));
}

#[test]
fn two_seeds_give_two_traces() {
    assert_ne!(trace(8), trace(9));
}

#[test]
fn twenty_seeds_pass() {
    for seed in 100..120 {
        if let Err(what) = World::new(seed, Told::Nothing).run() {
            panic!("seed {seed}: {what}");
        }
    }
}
