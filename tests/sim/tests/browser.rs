//! What the core, the rooms and the tabs of a world say is the same in a browser as natively.
//!
//! Method: `npm test` has the simulator print natively what each of a hundred seeds gives, and
//! compiles that into this test, which runs them once more. Nobody keeps those figures: a change of
//! the product changes them on both sides.

#![cfg(target_arch = "wasm32")]

use tidelog_sim::{Told, World};
use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};

wasm_bindgen_test_configure!(run_in_dedicated_worker);

/// Lines of a seed and its trace.
const NATIVE: &str = env!("TIDELOG_SIM_TRACES", "what `tidelog-sim --traces A..B` prints natively");

#[wasm_bindgen_test]
async fn the_same_seeds_give_the_same_traces_as_natively() {
    tidelog_tab::load().await;
    let native = NATIVE.lines().map(|line| {
        let (seed, trace) = line.split_once(' ').expect("a seed and its trace");
        (seed.parse::<u64>().expect("a number"), trace)
    });
    let differing: Vec<u64> = native
        .filter(|(seed, trace)| run(*seed, Told::Trace).as_deref() != Ok(*trace))
        .map(|(seed, _)| seed)
        .collect();
    if let Some(seed) = differing.first() {
        // To be laid beside what `npm run sim -- --seed N --verbose` prints.
        let _ = run(*seed, Told::Everything);
    }
    assert!(differing.is_empty(), "these seeds gave another trace natively: {differing:?}");
}

fn run(seed: u64, told: Told) -> Result<String, String> {
    World::new(seed, told).run().map(|outcome| outcome.trace)
}
