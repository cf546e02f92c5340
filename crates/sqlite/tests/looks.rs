//! What looks at large values again and again, by which a statement takes long that allocates
//! nothing. A process of its own: what SQLite allocates is counted for all of it.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::{Document, failure};
use tidelog_sqlite::{Failure, Params, Run, View};
use tidelog_types::Value;

/// Goal: no straight line of SQL takes long, though it allocates nothing and jumps nowhere, so that
/// SQLite never looks at its budget. Method: statements that look at one large value hundreds of
/// times, wherever it comes from, each of which takes a second or several.
#[test]
fn what_looks_at_a_large_value_again_and_again_is_over_its_budget() {
    let mut document = Document::new();
    document.migrate(
        "create table got (answer); create table big (x);
         insert into big values (hex(zeroblob(1500000)))",
    );
    let given = Value::Text("0".repeat(3_000_000));
    let literal = format!("(select '{}' as x limit 1)", "0".repeat(2_000_000));
    let mut run = |call: &str, count: usize, [x, from]: [&str; 2]| {
        let calls = format!("{}, ", call.replace('x', x)).repeat(count);
        let select = format!("select 0 in ({calls} 1) from {from}");
        let sql = format!("insert into got {select}");
        let written = document.write(&mut |tx| tx.run_app(&sql, &[("given", &given)]));
        let given = if x == ":given" { vec![(":given".into(), given.clone())] } else { Vec::new() };
        let asked = document.reader.query(&select, &Params::Named(given));
        match (asked, &written) {
            (Run::Failed(failure), Run::Failed(other)) => assert_eq!(failure, *other, "{call}"),
            (asked, written) => assert!(matches!((asked, written), (Run::Done(_), Run::Done(_)))),
        }
        written
    };
    let over = Failure::Budget { what: "40000000 steps".into() };
    for call in ["length(x)", "x + 1", "substr(x, 1500000, 1)"] {
        for value in [["x", "big"], [":given", "big"], ["x", &literal]] {
            assert_eq!(failure(run(call, 500, value)), over, "{call} of {}", &value[1][..3]);
            run(call, 50, value).unwrap();
        }
    }
}

/// Goal: nor does one that looks at what a schema says. Method: a view of a large literal, which a
/// statement of the same migration looks at, and one of what a schema may keep, which a mutation
/// does; and the same once the views are gone.
#[test]
fn what_looks_at_a_literal_of_the_schema_again_and_again_is_over_its_budget() {
    let over = Failure::Budget { what: "40000000 steps".into() };
    let view =
        |digits: usize| format!("create view v as select '{}' x limit 1", "0".repeat(digits));
    let look = |count: usize| {
        let calls = "length(x), ".repeat(count);
        format!("insert into got select 0 in ({calls} 1) from v")
    };
    let mut document = Document::new();
    document.migrate("create table got (answer)");
    let mut migrate = |count: usize| {
        let sql = format!("{}; {}; drop view v", view(2_000_000), look(count));
        document.write(&mut |tx| tx.run_migration(&sql))
    };
    assert_eq!(failure(migrate(500)), over);
    migrate(50).unwrap();
    document.app(&look(20_000).replace("from v", "from (select '' x limit 1)")).unwrap();

    document.migrate(&view(64 * 1024));
    assert_eq!(document.app_failure(&look(20_000)), over);
    let mut opened = Document::on(document.view.clone());
    assert_eq!(opened.app_failure(&look(20_000)), over, "whoever made it");
    document.app(&look(1_000)).unwrap();
    document.migrate("drop view v; create view v as select '' x limit 1");
    document.app(&look(20_000)).unwrap();
}

/// Goal: a long statement is over its budget for what it looks at, and not for what it writes.
/// Method: one that inserts many rows, and one large value.
#[test]
fn a_long_statement_may_write_large_values() {
    let mut document = Document::on(View::new(5_000, 0));
    document.migrate("create table file (name text, kind text, at integer, body blob) strict");
    let rows = ["(:name, :kind, :at, :body)"; 250].join(", ");
    let args = [
        ("name", Value::Text("a name".into())),
        ("kind", Value::Text("a kind".into())),
        ("at", Value::Integer(7)),
        ("body", Value::Blob(vec![7; 100_000])),
    ];
    let args = args.each_ref().map(|(name, value)| (*name, value));
    document
        .write(&mut |tx| tx.run_app(&format!("insert into file values {rows}"), &args))
        .unwrap();
    let large = Value::Blob(vec![7; 15 << 20]);
    let insert = "insert into file values (:name, :kind, :at, :body)";
    let args = args.map(|(name, value)| (name, if name == "body" { &large } else { value }));
    document.write(&mut |tx| tx.run_app(insert, &args)).unwrap();
    let digits = "0".repeat(1 << 20);
    document.migrate(&format!("insert into file values ('{digits}', '', 1, x'{digits}')"));
}
