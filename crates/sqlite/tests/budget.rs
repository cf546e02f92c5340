//! What takes much before SQLite looks at its budget. A process of its own: what SQLite allocates
//! is counted for all of it.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::Document;
use tidelog_sqlite::{Failure, Run, View, held_size};
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
    assert_eq!(document.app_failure(&large), over);
    assert_eq!(document.query_failure(&large), over);
    let [_, most] = held_size();
    assert!((4 << 20..100 << 20).contains(&most), "{most} bytes were held");
    assert_eq!(document.app_failure(&many), over);
    assert_eq!(document.query("select 1"), [[Value::Integer(1)]]);

    // What is kept prepared is bounded by its bytes.
    for n in 0..100 {
        let list = format!("{n}, ").repeat(10_000);
        document.query(&format!("select 1 where {n} in ({list} 0)"));
    }
    let [held, _] = held_size();
    assert!(held < 8 << 20, "{held} bytes are kept");
    // Each statement of a migration has a budget of its own.
    document.migrate(&many);
}

/// Goal: what a statement puts aside counts as well, also in pieces of the size of a page. Method:
/// a table that is made for the statement, and rows that are sorted.
#[test]
fn what_a_statement_puts_aside_counts() {
    let limits = Limits { statement_steps_max: 1_000_000, ..Limits::default() };
    let over = Failure::Budget { what: "1000000 steps".into() };
    let mut document = Document::on(View::new(1000, 0).with_limits(limits));
    let numbers = |count: u32| {
        format!("with recursive n(i) as (select 1 union all select i + 1 from n limit {count})")
    };
    let made = ", m as materialized (select i, zeroblob(400000) as b from n)
         select count(*) from m where i > 0";
    assert_eq!(document.app_failure(&format!("{}{made}", numbers(60))), over);
    for size in [4000, 4070, 4080, 4200, 4300] {
        let sorted = format!(
            "select count(b) from (select b from (select i, randomblob({size}) as b from n)
             order by i % 7, b limit 100000)"
        );
        assert_eq!(document.query_failure(&format!("{} {sorted}", numbers(6_000))), over);
    }
    let few = format!("{} {}", numbers(10), "select count(*) from (select i from n order by -i)");
    document.query(&few);
}

/// Goal: what becomes of a mutation does not hang on what its connection has prepared before.
/// Method: with each budget around what it takes, it is run behind another one that does the same,
/// or behind itself, which does little there.
#[test]
fn a_mutation_is_over_its_budget_prepared_or_not() {
    let never = "or n = 1 ".repeat(200);
    let [sql, other] = [":n", "+:n"].map(|limit| {
        format!(
            "insert into t with recursive c(n) as (select 1 union all select n + 1 from c)
             select n from c where n > 0 {never} limit {limit}"
        )
    });
    let mut ended = [0, 0];
    for statement_steps_max in (2_000..60_000).step_by(500) {
        let limits = Limits { statement_steps_max, ..Limits::default() };
        let [prepared, unprepared] = [&sql, &other].map(|first| {
            let mut document = Document::on(View::new(1000, 0).with_limits(limits));
            document.migrate("create table t (n integer) strict");
            let runs = [(first, 1), (&sql, 400)].map(|(sql, n)| {
                document.write(&mut |tx| tx.run_app(sql, &[("n", &Value::Integer(n))]))
            });
            runs.map(|run| matches!(run, Run::Done(_)))
        });
        assert_eq!(prepared, unprepared, "with {statement_steps_max} steps");
        ended[usize::from(prepared[1])] += 1;
    }
    assert!(ended.iter().all(|count| *count > 2), "{ended:?}");
}

/// Goal: nor on which pages its connection keeps. Method: a mutation reads many, which the one that
/// wrote them keeps and a new one does not.
#[test]
fn a_mutation_is_over_its_budget_whichever_pages_are_kept() {
    let mut ended = [0, 0];
    for statement_steps_max in (1_500..20_000).step_by(500) {
        let limits = Limits { statement_steps_max, ..Limits::default() };
        let [mut keeps, mut reads] =
            [(); 2].map(|()| Document::on(View::new(1000, 0).with_limits(limits)));
        for sql in [
            "create table t (n integer primary key, b blob) strict; create table first (n)",
            &"insert into t (b) values (zeroblob(3000));".repeat(40),
        ] {
            reads.view.push(&keeps.migrate(sql));
        }
        // A connection that writes for the first time gets room to rearrange pages.
        reads.app("insert into first values (1)").unwrap();
        reads.view.push(&keeps.migrate("delete from first"));
        let [kept, read] = [&mut keeps, &mut reads].map(|document| {
            let run =
                document.app("update t set n = -n where n > (select sum(a.n > b.n) from t a, t b)");
            matches!(run, Run::Done(_))
        });
        assert_eq!(kept, read, "with {statement_steps_max} steps");
        ended[usize::from(kept)] += 1;
    }
    assert!(ended.iter().all(|count| *count > 0), "{ended:?}");
}
