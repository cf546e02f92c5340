//! What takes much before SQLite looks at its budget. A process of its own: what SQLite allocates
//! is counted for all of it.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::Document;
use tidelog_sqlite::{Failure, View};
use tidelog_types::Value;
use tidelog_types::limits::Limits;

/// Goal: a budget ends what takes long or much within one step, and while a statement is prepared.
/// Method: a small one, and SQL that would take far more before SQLite looks at it again.
#[test]
fn what_takes_much_between_two_looks_at_the_budget_ends() {
    let limits = Limits { statement_steps_max: 1_000_000, ..Limits::default() };
    let large = format!("select 1{}", ", hex(zeroblob(4000000))".repeat(40));
    let many = "select 1;".repeat(20_000);
    let over = Failure::Budget { what: "1000000 steps".into() };
    let mut document = Document::on(View::new(1000, 0).with_limits(limits));
    // SAFETY: a plain counter of the library.
    let most_allocated = || unsafe { rusqlite::ffi::sqlite3_memory_highwater(1) };
    most_allocated();
    assert_eq!(document.app_failure(&large), over);
    assert_eq!(document.query_failure(&large), over);
    let most = most_allocated();
    assert!(most < 100 << 20, "{most} bytes were allocated");
    assert_eq!(document.app_failure(&many), over);
    assert_eq!(document.query("select 1"), [[Value::Integer(1)]]);

    // What is kept prepared is bounded by its bytes.
    for n in 0..100 {
        let list = format!("{n}, ").repeat(10_000);
        document.query(&format!("select 1 where {n} in ({list} 0)"));
    }
    // SAFETY: as above.
    let allocated = unsafe { rusqlite::ffi::sqlite3_memory_used() };
    assert!(allocated < 8 << 20, "{allocated} bytes are kept");
    // Each statement of a migration has a budget of its own.
    document.migrate(&many);
}
