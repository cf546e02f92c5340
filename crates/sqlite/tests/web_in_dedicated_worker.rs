//! The tests of `web/mod.rs` in a dedicated worker.

#![cfg(target_arch = "wasm32")]

mod common;
mod web;

wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_dedicated_worker);
