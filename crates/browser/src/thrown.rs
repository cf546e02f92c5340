//! What browsers throw at those who store something.

use tidelog_disk::DiskError;
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    type TextEncoder;

    #[wasm_bindgen(constructor)]
    fn new() -> TextEncoder;

    /// Takes anything, as what it says of itself.
    #[wasm_bindgen(method)]
    fn encode(this: &TextEncoder, thrown: &JsValue) -> Vec<u8>;
}

/// As an error of the device, which may be full.
pub(crate) fn device(thrown: &JsValue) -> DiskError {
    let said = TextEncoder::new().encode(thrown);
    if said.starts_with(b"QuotaExceededError") {
        return DiskError::Full;
    }
    DiskError::Device { reason: String::from_utf8_lossy(&said).into_owned() }
}
