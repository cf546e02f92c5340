//! What the connections of a document take. A process of its own: what SQLite allocates is counted
//! for all of it.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::{Document, SCHEMA};
use tidelog_sqlite::held_size;

/// A server may have tens of thousands of documents open.
#[test]
fn the_connections_of_a_document_take_less_than_256_kib() {
    let held_by_one = || {
        let mut document = Document::new();
        document.migrate(SCHEMA);
        document.query("select count(*) from note");
        held_size()[0]
    };
    let held = held_by_one();
    assert!((1 << 10..256 << 10).contains(&held), "{held} bytes");
    // What it held is given back.
    let [left, most] = held_size();
    assert!(left < held / 4 && most >= held, "{left} of {held} bytes are left, {most} at most");
    assert_eq!(held_by_one(), held);
}
