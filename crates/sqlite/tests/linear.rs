//! The functions that replace SQLite's own: the same answers, in bounded time.
//!
//! Goal: neither a mutation nor a query can tell them from SQLite's, whatever it gives them, nor
//! make one of them run for long. Method: both compute, and plain SQLite compares; and values that
//! would take SQLite's own hours are given to ours.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Document, Numbers, failure};
use tidelog_sqlite::{Failure, Stopwatch, TimeLeft, View};
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

const CALLS: [&str; 14] = [
    "instr(x, y)",
    "replace(x, y, z)",
    "trim(x, y)",
    "ltrim(x, y)",
    "rtrim(x, y)",
    "x like y",
    "x like y escape 'a'",
    "x like upper(y) || '%' || z",
    "x like '%' || y || '_' || z || '%' escape '\u{e9}'",
    "x glob y || '*[^b]' || z",
    "x glob '*' || y || '?' || z",
    "unhex(x, y)",
    "unhex(z || hex(x) || y, y || z)",
    "unhex(cast(x'80c3' as text) || hex(x) || z, cast(x'c080efbfbd' as text) || y)",
];

#[test]
fn mutations_and_queries_get_the_answers_of_plain_sqlite() {
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
        let name = call.replace('\'', "''");
        let sql = format!("insert into got select '{name}', rowid, {call} from given");
        document.app(&sql).unwrap();
    }
    let others = |call: &str| {
        let name = call.replace('\'', "''");
        format!(
            "select quote(x) || ', ' || quote(y) || ', ' || quote(z) || ': ' || quote(answer)
             from given join got on id = given.rowid
             where call = '{name}'
               and (answer is not ({call}) or typeof(answer) is not typeof({call})) limit 3"
        )
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("given.sqlite");
    std::fs::write(&path, document.view.image().expect("all is in memory")).expect("written");
    let plain = rusqlite::Connection::open(&path).expect("a database");
    for call in CALLS {
        let mut others_of_plain = plain.prepare(&others(call)).expect("it prepares");
        let found = others_of_plain.query_map([], |row| row.get::<_, String>(0)).expect("it runs");
        assert_eq!(found.collect::<Result<Vec<_>, _>>(), Ok(Vec::new()), "{call}");
        assert_eq!(document.query(&others(call)), [[Value::Null; 0]; 0], "{call}");
    }
    assert_eq!(document.query("select count(*) from got"), [[Value::Integer(56_000)]]);
}

#[test]
fn values_that_nearly_match_everywhere_take_no_longer() {
    let mut document = Document::new();
    document.migrate("create table got (answer)");
    // With SQLite's own: 10^12 comparisons, within one step.
    let many = "(select replace(hex(zeroblob(1000000)), '0', 'a'))";
    for call in [
        "instr(a, substr(a, 1, 1000000) || 'b')",
        "length(trim(a, substr(a, 1, 1000000)))",
        "length(unhex(replace(a, 'a', 'g'), replace(a, 'a', 'h') || 'g'))",
    ] {
        let sql = format!("select {call} from (select {many} as a)");
        document.app(&format!("insert into got {sql}")).unwrap();
        assert_eq!(document.query(&sql), [[Value::Integer(0)]], "{call}");
    }
    assert_eq!(document.query("select distinct answer from got"), [[Value::Integer(0)]]);
}

#[test]
fn what_takes_the_product_of_its_arguments_is_not_there() {
    let mut document = Document::new();
    document.migrate("create table got (answer)");
    for call in ["json_patch('{}', '{}')", "hex(jsonb_patch('{}', '{}'))", "JSON_Patch('{}', '{}')"]
    {
        let insert = format!("insert into got select {call}");
        let refused = document.app_failure(&insert);
        assert!(matches!(refused, Failure::Forbidden { .. }), "{call}: {refused}");
        let refused = document.query_failure(&format!("select {call} is null"));
        assert!(matches!(refused, Failure::Forbidden { .. }), "{call}: {refused}");
    }
    document.migrate("create view patched as select json_patch('{}', '{}') as answer");
    let refused = document.query_failure("select answer from patched");
    assert!(matches!(refused, Failure::Forbidden { .. }), "{refused}");
    // Where SQLite does not say what is called.
    let migration = "create table later (a, b default (json_patch('{}', '{}')));
                     insert into later (a) values (1)";
    let refused = failure(document.write(&mut |transaction| transaction.run_migration(migration)));
    assert!(matches!(refused, Failure::Forbidden { .. }), "{refused}");
    // Each of them would be looked for in all of the value.
    let paths: String = (0..100).map(|number| format!(", '$.a{number}', 1")).collect();
    let refused = document.app_failure(&format!("insert into got select json_set('{{}}'{paths})"));
    assert!(matches!(refused, Failure::Sql { .. }), "{refused}");
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

#[test]
fn patterns_that_nearly_match_everywhere_are_over_the_budget() {
    let mut document = Document::new();
    document.migrate("create table got (answer)");
    let text = "(select replace(hex(zeroblob(4000000)), '0', 'a'))";
    let pattern = "(select '%' || substr(replace(hex(zeroblob(500)), '0', 'a'), 1, 900) || '_b')";
    for call in ["like", "glob"] {
        let pattern = match call {
            "glob" => pattern.replace('%', "*").replace('_', "?"),
            _ => pattern.to_owned(),
        };
        // Without what stands for one character it is searched for, in linear time.
        let plain = pattern.replace(['_', '?'], "");
        let sql = format!("select {text} {call} {plain}");
        assert_eq!(document.query(&sql), [[Value::Integer(0)]], "{call}");
        let sql = format!("select {text} {call} {pattern}");
        assert!(matches!(document.query_failure(&sql), Failure::Budget { .. }), "{call}");
        let sql = format!("insert into got {sql}");
        assert!(matches!(document.app_failure(&sql), Failure::Budget { .. }), "{call}");
    }
}

/// A text or a pattern as SQL: of few characters, most of which stand for others somewhere.
fn pattern(numbers: &mut Numbers) -> String {
    let pieces = [
        "61", "41", "62", "25", "25", "2a", "2a", "5f", "3f", "5b615d", "c3a9", "c389", "e0a3a9",
        "efbfbd", "efbfbf", "80", "c3", "5a", "7a", "00",
    ];
    let pieces_count = [4, 13, pieces.len() as u64][numbers.below(3) as usize];
    let mut some = |size| {
        let hex = (0..numbers.below(size)).map(|_| pieces[numbers.below(pieces_count) as usize]);
        hex.collect::<String>()
    };
    let middle = some(6);
    let [start, end] = [some(2), some(2)].map(|hex| hex.replace("61", "25").replace("62", "2a"));
    format!("cast(x'{start}{middle}{end}' as text)")
}

#[test]
fn patterns_match_as_in_plain_sqlite() {
    let calls = [
        "y like x",
        "y glob x",
        "y like x escape 'a'",
        "y like x escape '\u{e9}'",
        "y like x || '%'",
    ];
    let (mut document, mut numbers) = (Document::new(), Numbers::new(5));
    document.migrate("create table given (x, y)");
    let pairs: Vec<String> = (0..20_000)
        .map(|_| format!("({}, {})", pattern(&mut numbers), pattern(&mut numbers)))
        .collect();
    for pairs in pairs.chunks(500) {
        document.app(&format!("insert into given values {}", pairs.join(","))).unwrap();
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("given.sqlite");
    std::fs::write(&path, document.view.image().expect("all is in memory")).expect("written");
    let plain = rusqlite::Connection::open(&path).expect("a database");
    for call in calls {
        let sql = format!("select group_concat(iif({call}, rowid, ''), ' ') from given");
        let expected: String = plain.query_row(&sql, [], |row| row.get(0)).expect("it runs");
        assert!(expected.split_whitespace().count() > 300, "{call}: too few match");
        assert_eq!(document.query(&sql), [[Value::Text(expected)]], "{call}");
    }
}

#[test]
fn what_contains_a_phrase_is_found_in_all_of_many_texts() {
    let limits = Limits { statement_steps_max: 1_000_000, ..Limits::default() };
    let mut document = Document::on(View::new(2000, 0).with_limits(limits));
    document.migrate("create table note (body)");
    let note = "insert into note select replace(hex(zeroblob(100000)), '00', 'Some words ')";
    (0..4).for_each(|_| drop(document.app(note).unwrap()));
    for found in ["like '%words some words some%'", "like '% WORDS '", "glob '*words Some words*'"]
    {
        let sql = format!("select count(*) from note where body {found}");
        assert_eq!(document.query(&sql), [[Value::Integer(4)]], "{found}");
    }
    let inner = "select count(*) from note where body like '%words some%words some%'";
    assert!(matches!(document.query_failure(inner), Failure::Budget { .. }));
}

/// Says this after so many looks.
#[derive(Debug)]
struct Looks {
    says: TimeLeft,
    max: AtomicUsize,
    left: AtomicUsize,
    starts: AtomicUsize,
}

impl Looks {
    fn new(max: usize) -> Arc<Self> {
        Self::that_say(TimeLeft::NoneEver, max)
    }

    fn that_say(says: TimeLeft, max: usize) -> Arc<Self> {
        let [max, left, starts] = [max, 0, 0].map(AtomicUsize::new);
        Arc::new(Self { says, max, left, starts })
    }
}

impl Stopwatch for Looks {
    fn start(&self) {
        self.starts.fetch_add(1, Ordering::Relaxed);
        self.left.store(self.max.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn time_left(&self) -> TimeLeft {
        let take_one = |left: usize| Some(left.saturating_sub(1));
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one);
        if left == Ok(0) { self.says } else { TimeLeft::Enough }
    }
}

#[test]
fn a_transaction_that_takes_too_long_ends_though_its_steps_are_few() {
    let looks = Looks::new(100);
    let view = View::new(1000, 0).with_stopwatch(Arc::clone(&looks) as Arc<dyn Stopwatch>);
    let mut document = Document::on(view);
    document.migrate("create table got (answer)");
    let count = |rows: u64| {
        format!(
            "insert into got with recursive c (x) as
             (select 1 union all select x + 1 from c where x < {rows}) select max(length(x)) from c"
        )
    };
    let over = Failure::Budget { what: "time".into() };
    assert_eq!(document.app_failure(&count(1_000_000)), over);
    let starts = looks.starts.load(Ordering::Relaxed);
    document.app(&count(100)).unwrap();
    assert!(looks.starts.load(Ordering::Relaxed) > starts);
}

#[test]
fn a_transaction_that_is_cut_off_has_no_verdict_and_leaves_nothing_behind() {
    let looks = Looks::that_say(TimeLeft::NoneNow, 100);
    let view = View::new(1000, 0).with_stopwatch(Arc::clone(&looks) as Arc<dyn Stopwatch>);
    let mut document = Document::on(view);
    document.migrate("create table got (answer)");
    let slow = "insert into got values ('before');
                insert into got with recursive c (x) as
                (select 1 union all select x + 1 from c where x < 1000000) select max(x) from c";
    let failure = document.app_failure(slow);
    assert!(failure == Failure::CutOff && failure.is_passing());
    looks.max.store(usize::MAX, Ordering::Relaxed);
    assert_eq!(document.query("select count(*) from got"), [[Value::Integer(0)]]);
    document.app(slow).unwrap();
}

#[test]
fn a_query_that_takes_too_long_ends_and_a_mutation_does_not() {
    let looks: &'static Looks = Box::leak(Box::new(Arc::into_inner(Looks::new(100)).unwrap()));
    let mut document = Document::on(View::new(1000, 0).with_query_stopwatch(Some(looks)));
    document.migrate("create table got (answer)");
    let count = |rows: u64| {
        format!(
            "with recursive c (x) as (select 1 union all select x + 1 from c where x < {rows})
             select max(length(x)) from c"
        )
    };
    let over = Failure::Budget { what: "time".into() };
    assert_eq!(document.query_failure(&count(1_000_000)), over);
    assert_eq!(document.query(&count(100)), [[Value::Integer(3)]], "each has its own time");
    document.app(&format!("insert into got {}", count(1_000_000))).unwrap();
}

#[test]
fn short_statements_end_too_once_they_have_taken_too_long_together() {
    let looks = Looks::new(1_000);
    let view = View::new(1000, 0).with_stopwatch(Arc::clone(&looks) as Arc<dyn Stopwatch>);
    let mut document = Document::on(view);
    document.migrate("create table got (answer); insert into got values (1)");
    // None of them takes as many steps as SQLite takes from one call to the next.
    let many = "update got set answer = answer + 1;".repeat(200);
    document.app(&many).unwrap();
    looks.max.store(100, Ordering::Relaxed);
    let over = Failure::Budget { what: "time".into() };
    assert_eq!(document.app_failure(&many), over, "they are prepared already");
    assert_eq!(failure(document.write(&mut |tx| tx.run_migration(&many))), over);
    let check = |document: &mut Document| {
        let mut checked = Ok(Vec::new());
        document
            .write(&mut |tx| {
                checked = tx.check_app(&many);
                Ok(())
            })
            .unwrap();
        checked
    };
    assert_eq!(check(&mut document), Err(over));
    looks.max.store(1_000, Ordering::Relaxed);
    assert_eq!(check(&mut document), Ok(Vec::new()));
    document.migrate(&many);
    assert_eq!(document.query("select answer from got"), [[Value::Integer(401)]]);
}
