//! What must hold in a browser as it does natively, in whatever worker it runs.

use std::ptr;

use crate::common::{Document, GOLDEN_HASH, failure, run_script, text};
use tidelog_sqlite::{Failure, Params, Reader, Run, flags};
use tidelog_types::{Pgid, Value};
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn a_database_is_opened_written_and_read() {
    let mut document = Document::new();
    document.migrate("create table todo (id text primary key, title text not null) strict");
    let title = text("Milch & Brot \u{1f35e}");
    let args = [("id", &text("a")), ("title", &title)];
    document.write(&mut |tx| tx.run_app("insert into todo values (:id, :title)", &args)).unwrap();
    assert_eq!(document.query("select * from todo"), [[text("a"), title]]);
    let failure = document.app_failure("insert into todo values ('a', 'B')");
    assert!(matches!(failure, Failure::Sql { message } if message.contains("UNIQUE")));
}

#[test]
fn sqlite_is_compiled_as_it_is_natively() {
    assert_eq!(flags::compile_options(), flags::COMPILE_OPTIONS);
    assert_eq!(flags::version(), flags::VERSION);
}

#[test]
fn the_pages_of_a_script_are_the_same_as_natively() {
    assert_eq!(run_script(7, 300).store.hash(), GOLDEN_HASH);
}

#[test]
fn a_page_that_is_not_in_memory_is_a_fault() {
    let document = run_script(1, 50);
    let view = document.store.view(16);
    let mut reader = Reader::new(&view);
    let sql = "select count(*), sum(length(body)) from note";
    assert_eq!(reader.query(sql, &Params::NONE), Run::Fault(Pgid(1)));
    let (rows, runs) = document.store.serve(&view, || reader.query(sql, &Params::NONE));
    let mut all_here = Reader::new(&document.view);
    assert_eq!(rows.unwrap(), all_here.query(sql, &Params::NONE).unwrap());
    assert!(runs > 2, "{runs} runs");
}

#[test]
fn an_endless_query_ends() {
    let mut document = Document::new();
    let failure = document.query_failure(
        "with recursive c (x) as (select 1 union all select x + 1 from c) select max(x) from c",
    );
    assert!(matches!(failure, Failure::Budget { .. }));
}

#[test]
fn deep_statements_do_not_overflow_the_stack_of_a_worker() {
    let mut document = Document::new();
    document.query(&format!("select {}1", "1 + ".repeat(490)));
    let sql = format!("select {}1{}", "abs(".repeat(490), ")".repeat(490));
    let _ = document.reader.query(&sql, &Params::NONE);
    for (open, close) in [("(select ", ")"), ("(", ")"), ("case when 1 then ", " end")] {
        for depth in [10, 50, 100, 200, 400, 2000] {
            let sql = format!("select {}1{}", open.repeat(depth), close.repeat(depth));
            let _ = document.reader.query(&sql, &Params::NONE);
        }
    }
    for depth in [10, 50, 80, 100, 160, 240, 2000] {
        let nested = "select * from (".repeat(depth);
        let sql = format!("{nested}select 1{}", ")".repeat(depth));
        let _ = document.reader.query(&sql, &Params::NONE);
    }
    let json = format!("select json('{}{}')", "[".repeat(1000), "]".repeat(1000));
    document.query(&json);
}

#[test]
fn clocks_and_chance_are_refused_as_natively() {
    let mut document = Document::new();
    document.migrate("create table t (a)");
    for sql in [
        "insert into t values (random())",
        "insert into t values (datetime('no' || 'w'))",
        "insert into t values (datetime(0, 'unixepoch', 'local' || 'time'))",
    ] {
        let failure = failure(document.app(sql));
        assert!(matches!(failure, Failure::Nondeterministic { .. }), "{sql}: {failure:?}");
    }
    document.view.set_now(1_700_000_000_000);
    assert_eq!(document.query("select unixepoch('now')"), [[Value::Integer(1_700_000_000)]]);
    for seconds in [0, 951_782_400, 1_709_251_199, 1_700_000_000, -631_152_000_i64, 4_102_444_800] {
        let sql =
            format!("select strftime('%Y %m %d %H %M %S', {seconds}, 'unixepoch', 'localtime')");
        let date = js_sys::Date::new(&(seconds as f64 * 1000.0).into());
        let expected = format!(
            "{:04} {:02} {:02} {:02} {:02} {:02}",
            date.get_full_year(),
            date.get_month() + 1,
            date.get_date(),
            date.get_hours(),
            date.get_minutes(),
            date.get_seconds(),
        );
        assert_eq!(document.query(&sql), [[Value::Text(expected)]]);
    }
}

/// Goal: no two workers draw the same numbers, by which apps name what they make. Method: SQLite
/// forgets its numbers, as if the worker had just begun, and a query draws some of them again.
#[test]
fn each_worker_draws_numbers_of_its_own() {
    let mut document = Document::new();
    document.migrate("create table t (a)");
    let mut drawn_at_first = || {
        // SAFETY: without a place to put numbers, SQLite forgets what it draws them from.
        unsafe { rusqlite::ffi::sqlite3_randomness(0, ptr::null_mut()) };
        document.query("select hex(randomblob(16)), random()")
    };
    assert_ne!(drawn_at_first(), drawn_at_first());
}
