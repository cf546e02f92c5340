//! How statements of an app fail, and what that leaves behind: nothing.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::{Document, failure, text};
use tidelog_sqlite::{Failure, Params, Run, View, Writer};
use tidelog_types::Value;
use tidelog_types::limits::Limits;

fn todos() -> Document {
    todos_on(View::new(1000, 0))
}

fn todos_on(view: View) -> Document {
    let mut document = Document::on(view);
    document
        .migrate("create table todo (id text primary key, title text not null, at text) strict");
    document
}

fn is_sql(failure: &Failure, part: &str) -> bool {
    matches!(failure, Failure::Sql { message } if message.contains(part))
}

fn limited(limits: Limits) -> Document {
    let mut document = todos_on(View::new(1000, 0).with_limits(limits));
    document.app("insert into todo values ('a', 'A', '')").unwrap();
    document
}

#[test]
fn reject_gives_the_reason_and_leaves_nothing_behind() {
    let mut document = todos();
    let sql = "insert into todo values ('a', 'A', ''); select reject('no ' || id) from todo;";
    let failure = document.app_failure(sql);
    assert_eq!(failure, Failure::Rejected { reason: "no a".into() });
    assert!(document.query("select * from todo").is_empty());
    let sql = "select reject('never') where exists (select 1 from todo)";
    document.app(sql).unwrap();
}

#[test]
fn reject_is_not_called_where_its_condition_is_false() {
    let mut document = todos();
    document.app("insert into todo values ('a', 'A', '')").unwrap();
    let sql = "select reject('no such todo') where not exists (select 1 from todo where id = 'a')";
    document.app(sql).unwrap();
    let sql = "select case when count(*) > 1 then reject('too many') end from todo";
    document.app(sql).unwrap();
}

#[test]
fn what_sqlite_refuses_is_told_in_its_words() {
    let mut document = todos();
    document.app("insert into todo values ('a', 'A', '')").unwrap();
    for (sql, message) in [
        ("insert into todo values ('a', 'B', '')", "UNIQUE constraint failed: todo.id"),
        ("insert into todo values ('b', null, '')", "NOT NULL constraint failed: todo.title"),
        ("insert into todo values ('b', x'00', '')", "cannot store BLOB value"),
        ("insert into absent values (1)", "no such table: absent"),
        ("insert nonsense", "syntax error"),
        ("select sqrt(2)", "no such function: sqrt"),
        ("insert or rollback into todo values ('a', 'B', '')", "UNIQUE constraint failed"),
        ("insert into todo values (\"a\", 'B', '')", "no such column: \"a\""),
    ] {
        let failure = document.app_failure(sql);
        assert!(is_sql(&failure, message), "{sql}: {failure}");
    }
    assert_eq!(document.query("select count(*) from todo"), [[Value::Integer(1)]]);
}

#[test]
fn a_transaction_in_which_a_statement_failed_is_not_committed_whatever_its_work_says() {
    let mut document = todos();
    let run = document.write(&mut |tx| {
        tx.run_app("insert into todo values ('a', 'A', '')", &[])?;
        assert!(tx.run_app("insert into todo values ('a', 'A', '')", &[]).is_err());
        assert!(tx.run_app("insert into todo values ('b', 'B', '')", &[]).is_err());
        Ok(())
    });
    assert!(is_sql(&failure(run), "UNIQUE"));
    assert!(document.query("select * from todo").is_empty());
}

#[test]
fn work_may_fail_by_itself() {
    let mut document = todos();
    let run = document.write(&mut |tx| {
        tx.run_app("insert into todo values ('a', 'A', '')", &[])?;
        Err(Failure::Rejected { reason: "thought better of it".into() })
    });
    assert!(matches!(failure(run), Failure::Rejected { .. }));
    assert!(document.query("select * from todo").is_empty());
}

#[test]
fn a_deferred_foreign_key_fails_at_the_commit() {
    let mut document = Document::new();
    document.migrate(
        "create table a (id integer primary key);
         create table b (a references a deferrable initially deferred)",
    );
    let failure = document.app_failure("insert into b values (1)");
    assert!(is_sql(&failure, "FOREIGN KEY constraint failed"));
    document.app("insert into b values (1); insert into a values (1)").unwrap();
    let failure = document.app_failure("delete from a");
    assert!(is_sql(&failure, "FOREIGN KEY constraint failed"));
}

#[test]
fn arguments_are_bound_by_name_and_none_may_lack() {
    let mut document = todos();
    let (id, title) = (text("a"), text("A"));
    let args = [("id", &id), ("title", &title), ("unused", &title)];
    document
        .write(&mut |tx| {
            tx.run_app(
                "insert into todo values (:id, :title, ''); update todo set title = @title || $id",
                &args,
            )
        })
        .unwrap();
    assert_eq!(document.query("select title from todo"), [[text("Aa")]]);
    let run = document.write(&mut |tx| tx.run_app("delete from todo where id = :who", &args));
    assert!(is_sql(&failure(run), "no value for :who"));
    let run = document.write(&mut |tx| tx.run_app("delete from todo where id = ?", &args));
    assert!(is_sql(&failure(run), "without a name"));
}

#[test]
fn a_query_that_writes_is_read_only() {
    let mut document = todos();
    for sql in [
        "insert into todo values ('a', 'A', '')",
        "delete from todo",
        "create table t (a)",
        "drop table todo",
        "alter table todo add column b",
        "with x as (select 1) insert into todo select 'a', 'b', '' from x",
        "insert into todo values ('a', 'A', '') returning id",
        "analyze",
        "reindex",
        "vacuum",
    ] {
        assert_eq!(document.query_failure(sql), Failure::ReadOnly, "{sql}");
    }
}

#[test]
fn a_query_is_one_statement_with_all_its_values() {
    let mut document = todos();
    assert!(is_sql(&document.query_failure("select 1; select 2"), "one statement"));
    assert!(is_sql(&document.query_failure(" -- nothing"), "needs a statement"));
    assert!(is_sql(&document.query_failure("select 1\0"), "zero byte"));
    assert!(is_sql(
        &document.query_failure("select ?"),
        "it has 1 parameters, and is given 0 values"
    ));
    assert!(is_sql(&document.query_failure("select reject('x')"), "no such function"));
    let mut query = |sql: &str, params: Params| document.reader.query(sql, &params);
    let rows = query(
        "select ?1, :b, ?1;",
        Params::Positional(vec![Value::Integer(1), Value::Blob(vec![7])]),
    );
    let rows = rows.unwrap();
    assert_eq!(rows.columns, ["?1", ":b", "?1"]);
    let seven = Value::Blob(vec![7]);
    assert_eq!(rows.decode(), [[Value::Integer(1), seven, Value::Integer(1)]]);
    let named = Params::Named(vec![("b".into(), text("x\0y")), (":a".into(), Value::Real(0.5))]);
    let rows = query("select :a as half, @b", named.clone()).unwrap();
    assert_eq!(rows.decode(), [[Value::Real(0.5), text("x\0y")]]);
    assert!(is_sql(
        &failure(query("select :a", named)),
        "no parameter is called b: it has 1 parameters (:a)"
    ));
}

#[test]
fn an_endless_query_ends() {
    let mut document = todos();
    let endless = "with recursive c (x) as (select 1 union all select x + 1 from c)
                   select max(x) from c";
    assert!(matches!(document.query_failure(endless), Failure::Budget { .. }));
    let failure = document.app_failure(endless);
    assert!(matches!(failure, Failure::Budget { .. }));
    assert_eq!(document.query("select 1"), [[Value::Integer(1)]]);
}

#[test]
fn a_query_that_does_much_in_each_step_ends_too() {
    let mut document = todos();
    for value in ["hex(zeroblob(4000000))", "replace(hex(zeroblob(1000000)), '0', '12')"] {
        let sql = format!(
            "with recursive c (x) as (select 1 union all select x + 1 from c)
             select sum(length({value} || x)) from c"
        );
        let failure = document.query_failure(&sql);
        assert!(matches!(failure, Failure::Budget { .. }), "{failure:?}");
    }
    let sql = "with recursive c (x) as (select 1 union all select x + 1 from c)
               select count(*) from (select x, zeroblob(1000000) as z from c order by z)";
    assert!(matches!(document.query_failure(sql), Failure::Budget { .. }));
}

#[test]
fn a_mutation_has_one_budget_and_each_query_its_own() {
    let limits = Limits { statement_steps_max: 30_000, ..Limits::default() };
    let mut document = limited(limits);
    let count = "with recursive c (x) as (select 1 union all select x + 1 from c where x < 1000)
                 select max(x) from c;";
    for _ in 0..3 {
        document.query(count);
        document.app(count).unwrap();
    }
    let over = Failure::Budget { what: "30000 steps".into() };
    assert_eq!(document.app_failure(&count.repeat(3)), over);
    assert_eq!(
        document.app_failure(&"select 1;".repeat(10_000)),
        over,
        "too short to be looked at"
    );
    let too_long = count.replace("1000", "10000");
    assert_eq!(document.query_failure(&too_long), over);
    assert_eq!(document.app_failure(&too_long), over);
}

#[test]
fn a_document_stops_growing_where_one_entry_could_not_carry_it() {
    let limits = Limits { document_pages_max: 20, ..Limits::default() };
    let mut document = limited(limits);
    let add = |count: u32| {
        format!(
            "with recursive c (x) as (select 1 union all select x + 1 from c where x < {count})
             insert into todo select hex(zeroblob(2000)) || x, '', '' from c"
        )
    };
    let over = Failure::Budget { what: "20 pages in a document".into() };
    assert_eq!(document.app_failure(&add(40)), over);
    document.app(&add(2)).unwrap();
    assert_eq!(document.query("select count(*) from todo"), [[Value::Integer(3)]]);

    // What is ours has room beyond that, and what takes no more room is the app's as before.
    let ours =
        |count: u32| add(count).replace("|| x", "|| 'ours' || x").replace("insert", "replace");
    document.write(&mut |tx| tx.run_system(&ours(40), &[]).map(drop)).unwrap();
    assert!(document.store.db_pages > 40);
    document.app("update todo set at = 'x'").unwrap();
    assert_eq!(document.app_failure(&add(40).replace("|| x", "|| 'more' || x")), over);
    let beyond = document.write(&mut |tx| tx.run_system(&ours(4000), &[]).map(drop));
    assert_eq!(failure(beyond), over);
}

#[test]
fn a_table_that_is_full_says_nothing_of_the_document() {
    let mut document = todos();
    document.migrate("create table log (id integer primary key autoincrement)");
    document.app("insert into log values (1)").unwrap();
    document.app("update sqlite_sequence set seq = 9223372036854775807").unwrap();
    assert!(is_sql(&document.app_failure("insert into log values (null)"), "is full"));
}

#[test]
fn rows_values_and_changed_pages_have_a_budget() {
    let limits = Limits { rows_size_max: 1000, mutation_pages_max: 50, ..Limits::default() };
    let mut document = limited(limits);
    let failure = document.query_failure("select hex(zeroblob(1000))");
    assert_eq!(failure, Failure::Budget { what: "1000 bytes of rows".into() });
    let failure = document.query_failure("select length(hex(zeroblob(10000000)))");
    assert_eq!(failure, Failure::Budget { what: "16777216 bytes in a value".into() });
    let many = |count: u32| {
        format!(
            "with recursive c (x) as (select 1 union all select x + 1 from c where x < {count})
             insert into todo select 'id' || x, hex(zeroblob(1000)), '' from c"
        )
    };
    document.app(&many(20)).unwrap();
    document.app("delete from todo").unwrap();
    let over = Failure::Budget { what: "50 changed pages".into() };
    assert_eq!(document.app_failure(&many(200)), over);
    // Far beyond, the end comes before all of it is in memory.
    assert_eq!(document.app_failure(&many(20_000)), over);
    assert_eq!(document.query("select count(*) from todo"), [[Value::Integer(0)]]);
}

#[test]
fn a_transaction_that_reads_too_much_is_told_so() {
    let limits = Limits { read_set_pages_max: 20, ..Limits::default() };
    let mut document = limited(limits);
    for n in 0..10 {
        document
            .app(&format!(
                "with recursive c (x) as (select 1 union all select x + 1 from c where x < 10)
                 insert into todo select 'id{n} ' || x, hex(zeroblob(1000)), '' from c"
            ))
            .unwrap();
    }
    let failure = document.query_failure("select sum(length(title)) from todo");
    assert_eq!(failure, Failure::ReadSetTooLarge { pages: 21 });
    document.writer.refresh();
    let failure = document.app_failure("update todo set title = ''");
    assert_eq!(failure, Failure::ReadSetTooLarge { pages: 21 });
    assert_eq!(document.query("select 1 from todo where id = 'a'").len(), 1);
}

#[test]
fn deep_and_long_statements_fail_as_statements() {
    let mut document = todos();
    let deep = format!("select {}1", "1 + ".repeat(499));
    document.query(&deep.replacen("1 + ", "", 1));
    let deep = format!("select {}1", "1 + ".repeat(600));
    assert!(is_sql(&document.query_failure(&deep), "too large"));
    let nested = format!("select {}1{}", "(select ".repeat(600), ")".repeat(600));
    document.query_failure(&nested);
    let nested = format!("{}select 1{}", "select * from (".repeat(600), ")".repeat(600));
    document.query_failure(&nested);
    let pattern = format!("select 'a' like '{}'", "%a".repeat(600));
    assert!(is_sql(&document.query_failure(&pattern), "too complex"));
}

#[test]
fn a_connection_outlives_what_the_app_rejects_and_keeps_nothing_of_it() {
    let (mut document, mut other) = (todos(), todos());
    for sql in ["select reject('no')", "insert into todo values ('x', 'again', '')", "no sql"] {
        document.app("delete from todo").unwrap();
        other.app("delete from todo").unwrap();
        let sql = format!("insert into todo values ('x', 'N', ''); {sql}");
        document.app_failure(&sql);
        assert!(document.writer.is_open(), "{sql}");
        let next = "insert into todo values ('y', 'N', '')";
        assert_eq!(document.app(next), other.app(next), "{sql}");
    }
}

/// Method: the header of page 1 does not tell the two transactions apart.
#[test]
fn what_was_taken_back_is_not_seen_by_the_next_transaction() {
    let mut document = todos();
    document.app("insert into todo values ('a', 'A', '')").unwrap();
    let sql = "insert into todo values ('x', 'taken back', '')";
    document.writer.write(&mut |tx| tx.run_app(sql, &[])).unwrap();
    document.writer.take_back();
    assert!(document.writer.is_open());
    let sql = "insert into todo values ('b', 'B', '')";
    let ((), set) = Writer::new(&document.view).write(&mut |tx| tx.run_app(sql, &[])).unwrap();
    document.view.push(&set);
    document.app("insert into todo select id || id, title, at from todo").unwrap();
    let ids = document.query("select group_concat(id) from (select id from todo order by id)");
    assert_eq!(ids, [[text("a,aa,b,bb")]]);
}

#[test]
fn a_writer_that_failed_goes_on() {
    let mut document = todos();
    for n in 0..20 {
        document.app_failure("select reject('no')");
        document.app(&format!("insert into todo values ('{n}', 'N', '')")).unwrap();
    }
    assert_eq!(document.query("select count(*) from todo"), [[Value::Integer(20)]]);
    assert!(matches!(document.app("select 1"), Run::Done(set) if set.pages.is_empty()));
}
