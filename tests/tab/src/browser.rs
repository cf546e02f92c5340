//! The engine of the browser that this runs in.

use serde_json::Value;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::MODULES;

#[wasm_bindgen(module = "/src/browser.js")]
extern "C" {
    #[wasm_bindgen(js_name = importModules)]
    async fn import_modules(names: Vec<String>, sources: Vec<String>);
}

// See `machine.js`.
#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = stepJson)]
    fn step_json(tab: u32, now: f64, input: &str) -> String;
    pub(crate) fn number(tab: u32, kind: &str) -> u32;
    pub(crate) fn forget(tab: u32);
}

pub(crate) fn step(tab: u32, now: f64, input: &Value) -> Value {
    let effects = step_json(tab, now, &input.to_string());
    serde_json::from_str(&effects).expect("BUG: effects are JSON")
}

/// Loads what tabs run: before the first [`Machine`](crate::Machine), and once.
pub async fn load() {
    let (names, sources) =
        MODULES.iter().map(|(name, source)| (String::from(*name), String::from(*source))).unzip();
    import_modules(names, sources).await;
}
