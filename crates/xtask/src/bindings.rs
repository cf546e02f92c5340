//! What is left out of the scripts that wasm-bindgen makes around modules: that serves callers
//! and browsers that we do not have. Bundlers leave out functions that nobody calls, and a page
//! without a bundler downloads them; the rest nobody else leaves out.

use anyhow::{Context, Result, bail};

/// Whom a script is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// Scripts of the package, which compile their module themselves.
    Package,
    /// Pages of benchmarks, which let the script fetch it.
    Benches,
}

/// A part of a script: from one text up to another, which stays.
struct Part {
    from: &'static str,
    until: &'static str,
    instead: &'static str,
    /// Whether some scripts do without it.
    is_optional: bool,
}

const fn part(from: &'static str, until: &'static str, instead: &'static str) -> Part {
    Part { from, until, instead, is_optional: false }
}

const UNUSED: [Part; 6] = [
    // It is called once, with the module in an object.
    part(
        "function initSync(module) {",
        "    const instance",
        "function initSync({ module }) {\n    const imports = __wbg_get_imports();\n",
    ),
    // Nobody asks for these, and nothing was cached before.
    part("    wasmModule = module;", "    wasm.__wbindgen_start();", ""),
    // Safari's decoder is worn out after 2 GiB: ours decodes a few names and addresses.
    part("    numBytesDecoded += bytes.length;", "    return cachedTextDecoder", ""),
    part("const MAX_SAFARI_DECODE_BYTES", "function decodeText", ""),
    // Memory that has grown is another buffer, in every browser.
    Part {
        is_optional: true,
        ..part(
            "    if (cachedDataViewMemory0 === null ||",
            "    return cachedDataViewMemory0;",
            "    if (cachedDataViewMemory0?.buffer !== wasm.memory.buffer) {\n        \
             cachedDataViewMemory0 = new DataView(wasm.memory.buffer);\n    }\n",
        )
    },
    // Every browser with OPFS has it.
    Part {
        is_optional: true,
        ..part("(typeof FinalizationRegistry === 'undefined')", "new FinalizationRegistry(", "")
    },
];

/// The way in for those who have no module, and let the script fetch it.
const FETCHING: [Part; 3] = [
    part("async function __wbg_load(", "function initSync(", ""),
    part("let __wbg_init_promise;", "export {", ""),
    part(", __wbg_init as default", " }", ""),
];

/// The script without what nobody needs.
pub fn trim(mut script: String, whom: For) -> Result<String> {
    let fetching = FETCHING.iter().filter(|_| whom == For::Package);
    for Part { from, until, instead, is_optional } in UNUSED.iter().chain(fetching) {
        let Some(start) = script.find(from) else {
            if *is_optional {
                continue;
            }
            bail!("there is no {from}");
        };
        let length = script[start..].find(until).with_context(|| format!("no {until}"))?;
        script.replace_range(start..start + length, instead);
    }
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: &str = "\
let cachedTextDecoder = new TextDecoder();
const MAX_SAFARI_DECODE_BYTES = 2146435072;
let numBytesDecoded = 0;
function decodeText(bytes) {
    numBytesDecoded += bytes.length;
    if (numBytesDecoded >= MAX_SAFARI_DECODE_BYTES) {
        cachedTextDecoder = new TextDecoder();
    }
    return cachedTextDecoder.decode(bytes);
}
function __wbg_finalize_init(instance, module) {
    wasm = instance.exports;
    wasmModule = module;
    cachedUint8ArrayMemory0 = null;
    wasm.__wbindgen_start();
    return wasm;
}
async function __wbg_load(module, imports) {
}
function initSync(module) {
    if (wasm !== undefined) return wasm;
    const imports = __wbg_get_imports();
    const instance = new WebAssembly.Instance(module, imports);
    return __wbg_finalize_init(instance, module);
}
let __wbg_init_promise;
export { initSync, __wbg_init as default };
";

    #[test]
    fn a_script_of_the_package_has_what_its_workers_call_and_no_more() {
        let trimmed = "\
let cachedTextDecoder = new TextDecoder();
function decodeText(bytes) {
    return cachedTextDecoder.decode(bytes);
}
function __wbg_finalize_init(instance, module) {
    wasm = instance.exports;
    wasm.__wbindgen_start();
    return wasm;
}
function initSync({ module }) {
    const imports = __wbg_get_imports();
    const instance = new WebAssembly.Instance(module, imports);
    return __wbg_finalize_init(instance, module);
}
export { initSync };
";
        let package = trim(MADE.to_owned(), For::Package).expect("all of it is there");
        assert_eq!(package, trimmed);
        let benches = trim(MADE.to_owned(), For::Benches).expect("all of it is there");
        assert!(benches.contains("__wbg_init as default"));
    }

    #[test]
    fn what_a_later_wasm_bindgen_says_in_other_words_is_named() {
        let made = MADE.replace("wasmModule = module;", "wasmModule ??= module;");
        let error = trim(made, For::Package).expect_err("it is not there").to_string();
        assert_eq!(error, "there is no     wasmModule = module;");
    }

    #[test]
    fn a_view_of_memory_is_made_anew_once_that_has_grown() {
        let made = format!(
            "function view() {{
    if (cachedDataViewMemory0 === null || cachedDataViewMemory0.buffer.detached === true) {{
        cachedDataViewMemory0 = new DataView(wasm.memory.buffer);
    }}
    return cachedDataViewMemory0;
}}
{MADE}"
        );
        let trimmed = trim(made, For::Package).expect("all of it is there");
        assert!(trimmed.contains("if (cachedDataViewMemory0?.buffer !== wasm.memory.buffer) {"));
        assert!(!trimmed.contains("detached"));
    }
}
