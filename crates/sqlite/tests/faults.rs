//! Pages that are not in memory: runs again, gives the same.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::{Document, Numbers, SCHEMA, Store, TABLES, run_script, statements};
use rusqlite::types::ValueRef as PlainValue;
use tidelog_sqlite::{Params, Reader, Run, View, Writer, be_short_beyond};
use tidelog_types::limits::Limits;
use tidelog_types::{Pgid, Value};

/// 10,000 rows on more than 5,000 pages.
fn rows_of_20_mib() -> Store {
    let mut document = Document::on(View::new(10_000, 0));
    document.migrate("create table t (id integer primary key, body blob)");
    for batch in 0..10 {
        let sql = format!(
            "with recursive c (x) as (select 1 union all select x + 1 from c where x < 1000)
             insert into t select x + {batch} * 1000, zeroblob(2040) from c"
        );
        document.app(&sql).unwrap();
    }
    let store = document.store;
    assert!(store.db_pages > 5000, "{} pages", store.db_pages);
    store
}

#[test]
fn a_cold_scan_of_20_mib_takes_less_than_200_runs() {
    let store = rows_of_20_mib();
    let view = store.view(100);
    let mut reader = Reader::new(&view);
    let sql = "select sum(length(body)) from t";
    let (rows, runs) = store.serve(&view, || reader.query(sql, &Params::NONE));
    assert_eq!(rows.unwrap().decode(), [[Value::Integer(20_400_000)]]);
    assert!(runs < 200, "{runs} runs");
    // It ran with all of its pages, and lets go of them afterwards.
    assert!(view.pool_pages() > 5000);
    view.evict();
    assert!(view.pool_pages() <= 100);
}

/// Goal: whoever reads here and there gets no whole document into memory. Method: one query reads
/// 40 rows on pages far from one another, and faults at each.
#[test]
fn scattered_reads_fetch_as_much_for_a_late_fault_as_for_any_other() {
    let store = rows_of_20_mib();
    let fault_pages_max = 16;
    let view = store.view(100).with_limits(Limits { fault_pages_max, ..Limits::DEFAULT });
    let mut reader = Reader::new(&view);
    let ids: Vec<_> = (0..40).map(|number| (number * 7_919 % 10_000 + 1).to_string()).collect();
    let sql = format!("select count(body) from t where id in ({})", ids.join(","));
    let (rows, runs) = store.serve(&view, || reader.query(&sql, &Params::NONE));
    assert_eq!(rows.unwrap().decode(), [[Value::Integer(40)]]);
    let faults_count = runs as usize - 1;
    assert!(faults_count > 30, "{faults_count} faults");
    let fetched = view.pool_pages();
    assert!(fetched <= faults_count * fault_pages_max, "{fetched} for {faults_count} faults");
}

#[test]
fn with_a_pool_of_16_pages_everything_is_as_in_plain_sqlite() {
    for seed in 1..=3 {
        compare_with_plain_sqlite(seed);
    }
}

/// Goal: faults change no result. Method: the same random transactions here, with nearly no pages
/// in memory, and in an in-memory database of SQLite's own; compare all rows now and then, and all
/// pages with those of a run that never faulted.
fn compare_with_plain_sqlite(seed: u64) {
    let plain = rusqlite::Connection::open_in_memory().unwrap();
    plain.execute_batch(SCHEMA).unwrap();
    let mut first = Document::new();
    first.migrate(SCHEMA);
    let mut store = first.store;
    let view = store.view(16);
    let (mut writer, mut reader) = (Writer::new(&view), Reader::new(&view));
    let mut numbers = Numbers::new(seed);
    let mut faults = 0;
    for number in 0..150 {
        let sql = statements(&mut numbers).join(";");
        plain.execute_batch(&format!("begin; {sql}; commit")).unwrap();
        let (done, runs) = store.serve(&view, || writer.write(&mut |tx| tx.run_app(&sql, &[])));
        let ((), set) = done.unwrap();
        faults += runs - 1;
        store.apply(&set);
        view.advance_base(&set);
        view.evict();
        assert!(view.pool_pages() <= 16);
        if number % 10 == 9 {
            for table in TABLES {
                let (rows, _) = store.serve(&view, || reader.query(table, &Params::NONE));
                assert_eq!(rows.unwrap().decode(), plain_rows(&plain, table), "{table}");
                view.evict();
            }
        }
    }
    assert!(faults > 300, "only {faults} faults");
    assert_eq!(store.hash(), run_script(seed, 150).store.hash());
}

fn plain_rows(plain: &rusqlite::Connection, sql: &str) -> Vec<Vec<Value>> {
    let mut statement = plain.prepare(sql).unwrap();
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let mut all = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let value = |index| match row.get_ref(index).unwrap() {
            PlainValue::Null => Value::Null,
            PlainValue::Integer(number) => Value::Integer(number),
            PlainValue::Real(number) => Value::Real(number),
            PlainValue::Text(text) => Value::Text(String::from_utf8(text.to_vec()).unwrap()),
            PlainValue::Blob(bytes) => Value::Blob(bytes.to_vec()),
        };
        all.push((0..columns).map(value).collect());
    }
    all
}

/// The root page of a table, asked where all pages are.
fn root(document: &mut Document, table: &str) -> Pgid {
    let sql = format!("select rootpage from sqlite_schema where name = '{table}'");
    match document.query(&sql)[0][0] {
        Value::Integer(root) => Pgid(u32::try_from(root).unwrap()),
        _ => panic!("no root page"),
    }
}

#[test]
fn a_connection_that_has_read_another_schema_outlives_a_fault_on_rows() {
    let mut document = Document::new();
    document.migrate("create table t (a)");
    document.app("insert into t values (1)").unwrap();
    let root = root(&mut document, "t");
    let view = document.store.view(100);
    let mut reader = Reader::new(&view);
    let sql = "select a from t";
    assert!(document.store.serve(&view, || reader.query(sql, &Params::NONE)).0.is_ok());
    view.advance_base(&document.migrate("alter table t add column b default 2"));
    view.rest();
    assert_eq!(reader.query(sql, &Params::NONE), Run::Fault(Pgid(1)));
    view.fill(document.store.fetch(vec![Pgid(1)]));
    assert_eq!(reader.query(sql, &Params::NONE), Run::Fault(root));
    assert!(reader.is_open());
    view.fill(document.store.fetch(vec![root]));
    let rows = reader.query("select * from t", &Params::NONE).unwrap().decode();
    assert_eq!(rows, [[Value::Integer(1), Value::Integer(2)]]);
}

/// Method: there is no memory for one.
#[test]
fn no_connection_is_opened_where_the_first_page_is_not_in_memory() {
    let mut document = Document::new();
    document.migrate("create table t (a)");
    let view = document.store.view(100);
    let mut reader = Reader::new(&view);
    be_short_beyond(Some(0));
    let run = reader.query("select a from t", &Params::NONE);
    be_short_beyond(None);
    assert_eq!(run, Run::Fault(Pgid(1)));
}

#[test]
fn a_fault_that_sqlite_swallows_is_noticed() {
    let mut document = Document::new();
    document.migrate("create table t (a, b); create index t_a on t (a); create index t_b on t (b)");
    document.app("insert into t values (1, 2), (3, 4), (5, 6)").unwrap();
    document.migrate("analyze");
    let stat = root(&mut document, "sqlite_stat1");
    let view = document.store.view(100);
    let all = (1..=document.store.db_pages).map(Pgid).filter(|pgid| *pgid != stat);
    view.fill(document.store.fetch(all.collect()));
    let mut reader = Reader::new(&view);
    let sql = "select b from t where a = 3";
    // SQLite goes on without its statistics, and would answer.
    assert_eq!(reader.query(sql, &Params::NONE), Run::Fault(stat));
    assert_eq!(Writer::new(&view).write(&mut |tx| tx.run_app(sql, &[])), Run::Fault(stat));
    // Nor does work that drops the error get away with it.
    let run = Writer::new(&view).write(&mut |tx| {
        let _ = tx.run_app(sql, &[]);
        let _ = tx.check_app(sql);
        Ok(())
    });
    assert_eq!(run, Run::Fault(stat));
    view.fill(document.store.fetch(vec![stat]));
    let rows = reader.query(sql, &Params::NONE).unwrap();
    assert_eq!(rows.decode(), [[Value::Integer(4)]]);
}

#[test]
fn a_connection_lives_through_the_faults_of_what_it_runs() {
    let mut document = Document::new();
    document.migrate("create table t (id integer primary key, body blob)");
    document.app("insert into t values (1, zeroblob(9000)), (2, zeroblob(9000))").unwrap();
    let view = document.store.view(100);
    view.fill(document.store.fetch(vec![Pgid(1)]));
    let (mut writer, mut reader) = (Writer::new(&view), Reader::new(&view));
    let sql = "select sum(length(body)) from t";
    assert!(matches!(reader.query(sql, &Params::NONE), Run::Fault(_)));
    assert!(reader.is_open());
    let (changed, runs) = document.store.serve(&view, || {
        let run = writer.write(&mut |tx| {
            tx.run_app("insert into t values (3, zeroblob(5))", &[])?;
            tx.run_app("update t set body = zeroblob(9) where length(body) > 9", &[])
        });
        assert!(writer.is_open());
        run
    });
    assert!(runs > 1, "no fault");
    // Nothing is left of what had run before the faults.
    let changed = changed.unwrap().1;
    let expected = document.write(&mut |tx| {
        tx.run_app("insert into t values (3, zeroblob(5))", &[])?;
        tx.run_app("update t set body = zeroblob(9) where length(body) > 9", &[])
    });
    assert_eq!(changed, expected.unwrap());
    view.push(&changed);
    let (rows, _) = document.store.serve(&view, || reader.query(sql, &Params::NONE));
    assert_eq!(rows.unwrap().decode(), [[Value::Integer(23)]]);
}

/// What SQLite makes of a schema that it could not read to its end is not known.
#[test]
fn a_connection_ends_with_a_fault_in_a_schema() {
    let mut document = Document::new();
    document.migrate("create table t (a, b); create index t_a on t (a); create index t_b on t (b)");
    document.app("insert into t values (1, 2), (3, 4), (5, 6)").unwrap();
    let sql = "select b from t where a = 3";
    // SQLite prepares it anew while it runs, and would go on without the statistics.
    let mut reader = Reader::new(&document.view);
    reader.query(sql, &Params::NONE).unwrap();
    document.migrate("analyze");
    let stat = root(&mut document, "sqlite_stat1");
    let Document { view, store, .. } = document;
    view.set_overlay([]);
    view.reset_base(store.db_pages);
    let all = (1..=store.db_pages).map(Pgid).filter(|pgid| *pgid != stat);
    view.fill(store.fetch(all.collect()));
    assert!(reader.is_open());
    assert_eq!(reader.query(sql, &Params::NONE), Run::Fault(stat));
    assert!(!reader.is_open());
}

#[test]
fn a_check_that_faults_is_a_fault_of_the_transaction() {
    let document = run_script(1, 5);
    let view = document.store.view(100);
    let mut writer = Writer::new(&view);
    let (names, runs) = document.store.serve(&view, || {
        writer.write(&mut |tx| {
            Ok(tx.check_app("delete from note where id = :id").unwrap_or_default())
        })
    });
    assert_eq!(names.unwrap().0, ["id"]);
    assert!(runs > 1);
}

#[test]
fn every_page_may_be_the_one_that_is_missing() {
    let document = run_script(3, 60);
    let store: Store = document.store;
    let sql = "select count(*), sum(size) from note join log on log.detail = note.id";
    let expected = {
        let view = store.view(1000);
        let mut reader = Reader::new(&view);
        store.serve(&view, || reader.query(sql, &Params::NONE)).0.unwrap()
    };
    for missing in 1..=store.db_pages {
        let view = store.view(1000);
        let rest = (1..=store.db_pages).filter(|pgid| *pgid != missing).map(Pgid);
        view.fill(store.fetch(rest.collect()));
        let mut reader = Reader::new(&view);
        let (rows, runs) = store.serve(&view, || reader.query(sql, &Params::NONE));
        assert_eq!(rows.unwrap(), expected, "without page {missing}");
        assert!(runs <= 2);
    }
}

#[test]
fn a_view_says_what_it_lacks_and_gives_a_file_that_plain_sqlite_reads() {
    let document = run_script(4, 60);
    let view = document.store.view(10);
    assert!(view.image().is_none());
    assert_eq!(view.schema_cookie(), None);
    loop {
        let missing = view.missing();
        if missing.is_empty() {
            break;
        }
        view.fill(document.store.fetch(missing));
    }
    assert_eq!(view.schema_cookie(), document.view.schema_cookie());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), view.image().unwrap()).unwrap();
    let plain = rusqlite::Connection::open(file.path()).unwrap();
    let check: String = plain.query_row("pragma integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let mut reader = Reader::new(&view);
    for table in TABLES {
        let rows = reader.query(table, &Params::NONE).unwrap().decode();
        assert_eq!(rows, plain_rows(&plain, table), "{table}");
    }
}

#[test]
fn an_empty_database_answers_and_exports() {
    let view = View::new(10, 0);
    assert_eq!(view.image(), Some(Vec::new()));
    assert_eq!(view.schema_cookie(), Some(0));
    let rows = Reader::new(&view).query("select name from sqlite_schema", &Params::NONE);
    assert_eq!(rows.unwrap().count, 0);
    let ((), set) = Writer::new(&view).write(&mut |_| Ok(())).unwrap();
    assert_eq!((set.db_pages, set.pages.len()), (0, 0));
}
