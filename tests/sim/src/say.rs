//! What a person reads of a world.

#[cfg(target_arch = "wasm32")]
pub(crate) use browser::say;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// Where nothing that is printed is seen.
#[cfg(target_arch = "wasm32")]
mod browser {
    use wasm_bindgen::prelude::wasm_bindgen;

    #[wasm_bindgen]
    extern "C" {
        #[wasm_bindgen(js_namespace = console, js_name = log)]
        pub(crate) fn say(line: &str);
    }
}
