//! Checks doctypes for whoever builds an app.

use tidelog_document::{Doctype, FoundRight, check};
use tidelog_sqlite::View;
use tidelog_sync::codec::port;
use wasm_bindgen::prelude::*;

/// What is wrong with a doctype, as a core finds before it opens a document of it; nothing if that
/// is right.
///
/// `doctype` is encoded as in messages.
#[wasm_bindgen(js_name = checkDoctype)]
#[must_use]
pub fn check_doctype(doctype: &[u8]) -> Option<String> {
    let flaw = match port::decode::<Doctype>(doctype) {
        Ok(doctype) => check(&doctype, &View::new(usize::MAX, 0), &FoundRight::default()).err()?,
        Err(error) => return Some(error.to_string()),
    };
    Some(flaw.to_string())
}
