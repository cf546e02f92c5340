//! What the connections of a document take. A process of its own: what SQLite allocates is counted
//! for all of it.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::{Document, SCHEMA};

/// A server may have tens of thousands of documents open.
#[test]
fn the_connections_of_a_document_take_less_than_256_kib() {
    // SAFETY: a plain counter of the library.
    let allocated = || unsafe { rusqlite::ffi::sqlite3_memory_used() };
    let mut document = Document::new();
    document.migrate(SCHEMA);
    document.query("select count(*) from note");
    let most = allocated();
    assert!(most < 256 << 10, "{most} bytes");
}
