//! The functions that replace SQLite's own for mutations: the same answers, in bounded time.
//!
//! Goal: a mutation cannot tell them from SQLite's, whatever it gives them, and cannot make one of
//! them run for long. Method: mutations compute, queries, for which SQLite's own are in force,
//! compare; and values that would take SQLite's own hours are given to ours.

mod common;

use common::{Document, Numbers};
use tidelog_sqlite::{Failure, View};
use tidelog_types::Value;
use tidelog_types::limits::Limits;

/// A value as SQL: texts of few characters, so that one is often in another, some of them broken;
/// blobs, numbers and null.
fn value(numbers: &mut Numbers) -> String {
    let size = numbers.below(6) * numbers.below(4);
    let pieces = ["61", "61", "62", "c3a9", "e282ac", "80", "c3", "20"];
    let hex: String = (0..size).map(|_| pieces[numbers.below(8) as usize]).collect();
    match numbers.below(12) {
        0 => "null".to_owned(),
        1 => numbers.below(2_000).to_string(),
        2 => format!("{}.5", numbers.below(20)),
        3..=5 => format!("x'{hex}'"),
        6 => format!("cast(x'{hex}0061' as text)"),
        _ => format!("cast(x'{hex}' as text)"),
    }
}

const CALLS: [&str; 5] =
    ["instr(x, y)", "replace(x, y, z)", "trim(x, y)", "ltrim(x, y)", "rtrim(x, y)"];

#[test]
fn mutations_and_queries_get_the_same_answers() {
    let mut document = Document::new();
    document.migrate("create table given (x, y, z); create table got (call, id, answer)");
    let mut numbers = Numbers::new(3);
    for _ in 0..40 {
        let rows: Vec<String> = (0..100)
            .map(|_| {
                let [x, y, z] = [(); 3].map(|()| value(&mut numbers));
                format!("({x}, {y}, {z})")
            })
            .collect();
        document.app(&format!("insert into given values {}", rows.join(","))).unwrap();
    }
    for call in CALLS {
        let sql = format!("insert into got select '{call}', rowid, {call} from given");
        document.app(&sql).unwrap();
        let compare = format!(
            "select hex(x), typeof(x), hex(y), typeof(y), hex(z), answer, {call}
             from given join got on id = given.rowid
             where call = '{call}'
               and (answer is not {call} or typeof(answer) is not typeof({call})) limit 3"
        );
        assert_eq!(document.query(&compare), [[Value::Null; 0]; 0], "{call}");
    }
    assert_eq!(document.query("select count(*) from got"), [[Value::Integer(20_000)]]);
}

#[test]
fn values_that_nearly_match_everywhere_take_no_longer() {
    let mut document = Document::new();
    document.migrate("create table got (answer)");
    // With SQLite's own: 10^13 comparisons, within one step.
    let many = "(select replace(hex(zeroblob(4000000)), '0', 'a'))";
    for call in ["instr(a, substr(a, 1, 4000000) || 'b')", "length(trim(a, substr(a, 1, 4000000)))"]
    {
        let sql = format!("insert into got select {call} from (select {many} as a)");
        document.app(&sql).unwrap();
    }
    let zero = Value::Integer(0);
    assert_eq!(document.query("select answer from got"), [[zero.clone()], [zero]]);
}

#[test]
fn what_they_look_at_counts() {
    let limits = Limits { statement_steps_max: 100_000, ..Limits::default() };
    let mut document = Document::on(View::new(1000, 0).with_limits(limits));
    document.migrate("create table big (a); insert into big values (zeroblob(500000))");
    let look = "select instr(a, x'01') from big;";
    document.app(look).unwrap();
    let over = Failure::Budget { what: "100000 steps".into() };
    assert_eq!(document.app_failure(&look.repeat(4)), over);
}
