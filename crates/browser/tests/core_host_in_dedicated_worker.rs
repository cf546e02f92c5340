//! The tests of `core_host/mod.rs` in a dedicated worker.

#![cfg(target_arch = "wasm32")]

mod core_host;

wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_dedicated_worker);
