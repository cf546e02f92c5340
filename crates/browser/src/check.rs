//! Checks doctypes for whoever builds an app.

use tidelog_document::{Doctype, FoundRight, check};
use tidelog_sqlite::{View, inserts_by_place};
use tidelog_sync::codec;
use wasm_bindgen::prelude::*;

/// What is wrong with a doctype, as a core finds before it opens a document of it; nothing if that
/// is right.
///
/// `doctype` is encoded as in messages.
#[wasm_bindgen(js_name = checkDoctype)]
#[must_use]
pub fn check_doctype(doctype: &[u8]) -> Option<String> {
    let flaw = match codec::decode::<Doctype>(doctype) {
        Ok(doctype) => check(&doctype, &View::new(usize::MAX, 0), &FoundRight::default()).err()?,
        Err(error) => return Some(error.to_string()),
    };
    Some(flaw.to_string())
}

/// What is not wrong with a doctype, and will be: one line for each mutation that inserts without
/// the names of columns.
///
/// `doctype` is encoded as in messages.
#[wasm_bindgen(js_name = hintsOn)]
#[must_use]
pub fn hints_on(doctype: &[u8]) -> Vec<String> {
    let Ok(doctype) = codec::decode::<Doctype>(doctype) else { return Vec::new() };
    let hints = doctype.mutations.iter().filter_map(|mutation| {
        let table = mutation.sql.iter().find_map(|sql| inserts_by_place(sql))?;
        Some(format!(
            "mutation {} of doctype {} inserts into {table} without the names of its columns: once \
             a migration adds one, what an older release of the app issued offline is rejected; \
             write insert into {table} (...) values (...)",
            mutation.name, doctype.name
        ))
    });
    hints.collect()
}
