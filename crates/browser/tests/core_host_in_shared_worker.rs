//! The tests of `core_host/mod.rs` in a shared worker.

#![cfg(target_arch = "wasm32")]

mod core_host;

wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_shared_worker);
