//! The tests of `web/mod.rs` in a shared worker.

#![cfg(target_arch = "wasm32")]

mod common;
mod web;

wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_shared_worker);
