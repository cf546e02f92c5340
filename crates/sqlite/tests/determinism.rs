//! The same statements on the same pages write the same pages.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::{Document, GOLDEN_HASH, Numbers, SCHEMA, failure, run_script, statements};
use tidelog_sqlite::{Failure, Params, Run, View, Writer};
use tidelog_types::limits::Limits;
use tidelog_types::{PageSet, Value};

fn warm(document: &mut Document, sql: &str) -> PageSet {
    document.app(sql).unwrap()
}

/// Runs the same transactions, with `each` deciding how.
fn page_sets(
    seed: u64,
    mut each: impl FnMut(&mut Document, &mut Numbers, &str) -> PageSet,
) -> Vec<PageSet> {
    let mut document = Document::new();
    let mut sets = vec![document.migrate(SCHEMA)];
    let (mut numbers, mut others) = (Numbers::new(seed), Numbers::new(seed + 1000));
    for _ in 0..200 {
        let sql = statements(&mut numbers).join(";");
        sets.push(each(&mut document, &mut others, &sql));
    }
    sets
}

#[test]
fn neither_a_warm_connection_nor_a_rollback_before_leaves_a_mark() {
    for seed in 10..14 {
        let expected = page_sets(seed, |document, _, sql| warm(document, sql));
        let fresh = page_sets(seed, |document, _, sql| {
            document.writer.refresh();
            warm(document, sql)
        });
        assert_eq!(expected, fresh, "seed {seed}: fresh connections");
        let rolled_back = page_sets(seed, |document, others, sql| {
            let other = statements(others).join(";");
            let run = document.write(&mut |tx| {
                tx.run_app(&other, &[])?;
                Err(Failure::Rejected { reason: String::new() })
            });
            assert!(matches!(failure(run), Failure::Rejected { .. }));
            document.query("select sum(size) from note");
            warm(document, sql)
        });
        assert_eq!(expected, rolled_back, "seed {seed}: rollbacks between");
    }
}

#[test]
fn dropped_page_sets_leave_no_mark() {
    let expected = page_sets(20, |document, _, sql| warm(document, sql));
    for drop in [Writer::refresh, Writer::take_back] {
        let dropped = page_sets(20, |document, others, sql| {
            let other = statements(others).join(";");
            document.writer.write(&mut |tx| tx.run_app(&other, &[])).unwrap();
            drop(&mut document.writer);
            warm(document, sql)
        });
        assert_eq!(expected, dropped);
    }
}

#[test]
fn layers_pushed_one_by_one_and_at_once_are_the_same() {
    let mut document = Document::new();
    let mut layers = vec![document.migrate(SCHEMA)];
    let mut numbers = Numbers::new(5);
    for _ in 0..100 {
        layers.push(document.app(&statements(&mut numbers).join(";")).unwrap());
    }
    let fork = document.view.fork();
    fork.set_overlay(&layers);
    assert_eq!(fork.image(), document.view.image());
    let based = View::new(1000, 0);
    for layer in &layers {
        based.advance_base(layer);
    }
    assert_eq!(based.image(), document.view.image());
    let absorbed = layers.iter().fold(PageSet::default(), |mut all, layer| {
        all.absorb(layer);
        all
    });
    let at_once = View::new(1000, 0);
    at_once.push(&absorbed);
    assert_eq!(at_once.image(), document.view.image());
}

#[test]
fn the_pages_of_a_script_are_the_same_on_every_host() {
    assert_eq!(run_script(7, 300).store.hash(), GOLDEN_HASH);
}

/// Half a thousandth of a second, but for less than a product is rounded by: where it is multiplied
/// and added to in one step, which rounds once, this is another thousandth.
#[test]
fn a_product_is_rounded_before_something_is_added_to_it() {
    let mut document = Document::new();
    let sql = "select strftime('%f', 1000000000.0004843, 'unixepoch')";
    assert_eq!(document.query(sql), [[common::text("40.001")]]);
}

#[test]
fn limits_change_no_page() {
    let narrow = Limits { read_set_pages_max: 2000, ..Limits::default() };
    let mut document = Document::on(View::new(1, 0).with_limits(narrow));
    document.migrate(SCHEMA);
    let mut numbers = Numbers::new(7);
    for _ in 0..300 {
        document.app(&statements(&mut numbers).join(";\n")).unwrap();
    }
    assert_eq!(document.store.hash(), GOLDEN_HASH);
}

/// Goal: rowids are never drawn: SQLite does so in a table that has a row at the last one. Method:
/// every way to give it to a row.
#[test]
fn no_row_gets_the_rowid_behind_which_rowids_are_random() {
    let mut document = Document::new();
    document.migrate(
        "create table t (id integer primary key, a);
         create table plain (a);
         create table keyed (id integer primary key, a) without rowid;
         create table cause (a);
         create trigger r after insert on cause begin insert into t values (new.a, 0); end;
         insert into t values (9223372036854775806, 0)",
    );
    for sql in [
        "insert into t values (9223372036854775807, 0)",
        "insert into t (a) values (0)",
        "insert into t values (1, 0); update t set id = 9223372036854775807 where id = 1",
        "insert or replace into t values (9223372036854775807, 0)",
        "insert into t values (9223372036854775806, 0)
         on conflict do update set id = 9223372036854775807",
        "insert into plain (rowid, a) values (9223372036854775807, 0)",
        "insert into plain (rowid, a) select id + 1, a from t",
        "insert into cause values (9223372036854775807)",
        "insert into t values (9223372036854775807, 0); delete from t",
    ] {
        let failure = document.app_failure(sql);
        assert!(matches!(failure, Failure::Nondeterministic { .. }), "{sql}: {failure:?}");
        let run = document.write(&mut |tx| tx.run_migration(sql));
        assert!(matches!(run, Run::Failed(Failure::Nondeterministic { .. })), "{sql}: {run:?}");
    }
    document.app("insert into keyed values (9223372036854775807, 0)").unwrap();
    document.app("insert into plain values (9223372036854775807); delete from t").unwrap();
}

#[test]
fn writers_may_move_between_threads() {
    let mut document = Document::new();
    document.migrate("create table t (a)");
    for n in 0..4 {
        document = std::thread::spawn(move || {
            document.app(&format!("insert into t values ({n})")).unwrap();
            document
        })
        .join()
        .unwrap();
    }
    assert_eq!(document.query("select count(*) from t"), [[Value::Integer(4)]]);
    let others: Vec<_> =
        (0..4).map(|seed| std::thread::spawn(move || run_script(seed, 40).store.hash())).collect();
    for (seed, other) in (0..4).zip(others) {
        assert_eq!(other.join().unwrap(), run_script(seed, 40).store.hash());
    }
    let rows = document.reader.query("select max(a) from t", &Params::NONE).unwrap();
    assert_eq!(rows.decode(), [[Value::Integer(3)]]);
}
