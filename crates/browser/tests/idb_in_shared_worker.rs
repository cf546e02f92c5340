//! The tests of `idb/mod.rs` in a shared worker.

#![cfg(target_arch = "wasm32")]

mod idb;

wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_shared_worker);
