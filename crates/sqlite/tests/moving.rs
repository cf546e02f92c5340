//! Connections that go on with a view in which any page may be another one.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::{Document, text};
use tidelog_sqlite::{Params, Reader, View, Writer};
use tidelog_types::Value;

const TABLE: &str = "create table t (id integer primary key, word text)";

/// A document with `rows` rows that all say `word`.
/// Its writer was opened on that schema.
fn document(schema: &str, word: &str, rows: usize) -> Document {
    let mut document = Document::new();
    document.migrate(schema);
    document.writer.refresh();
    for id in 0..rows {
        document.app(&format!("insert into t values ({id}, '{word}')")).unwrap();
    }
    document
}

fn rows_of(reader: &mut Reader, sql: &str) -> Vec<Vec<Value>> {
    reader.query(sql, &Params::NONE).unwrap().decode()
}

#[test]
fn with_the_same_schema_they_stay_open_and_see_the_other_pages() {
    // As many transactions each, so that the header of page 1 does not tell them apart.
    let (mut first, second) = (document(TABLE, "first", 3), document(TABLE, "second", 3));
    assert_eq!(first.query("select distinct word from t"), [[text("first")]]);
    let mut reader = first.reader.move_to(&second.view);
    assert!(reader.is_open());
    assert_eq!(rows_of(&mut reader, "select distinct word from t"), [[text("second")]]);

    let mut writer = first.writer.move_to(&second.view);
    assert!(writer.is_open());
    let sql = "insert into t select id + 10, word from t";
    let ((), set) = writer.write(&mut |tx| tx.run_app(sql, &[])).unwrap();
    second.view.push(&set);
    let sql = "select count(*), count(distinct word), max(word) from t";
    let expected = [[Value::Integer(6), Value::Integer(1), text("second")]];
    assert_eq!(rows_of(&mut Reader::new(&second.view), sql), expected);
}

#[test]
fn with_another_schema_of_the_same_number_they_begin_anew() {
    let other = "create table t (word text, id integer primary key)";
    let mut first = document(TABLE, "first", 1);
    let mut second = Document::new();
    second.migrate(other);
    second.app("insert into t (id, word) values (7, 'second')").unwrap();
    assert_eq!(first.view.schema_cookie(), second.view.schema_cookie());
    assert_eq!(first.query("select * from t"), [[Value::Integer(0), text("first")]]);
    let mut reader = first.reader.move_to(&second.view);
    assert!(!reader.is_open());
    assert_eq!(rows_of(&mut reader, "select * from t"), [[text("second"), Value::Integer(7)]]);
    let writer = first.writer.move_to(&second.view);
    assert!(!writer.is_open());
}

#[test]
fn with_another_schema_on_further_pages_they_begin_anew() {
    // More tables than page 1 holds.
    let tables = |last: &str| {
        let tables =
            (0..40).map(|n| format!("create table t{n} (id integer, {} text)", "c".repeat(200)));
        tables.chain([last.to_owned()]).collect::<Vec<_>>().join(";")
    };
    let mut first = Document::new();
    first.migrate(&tables("create table last (a text, b text)"));
    first.app("insert into last values ('first', '')").unwrap();
    let mut second = Document::new();
    second.migrate(&tables("create table last (b text, a text)"));
    second.app("insert into last values ('second', '')").unwrap();
    assert_eq!(first.view.schema_cookie(), second.view.schema_cookie());
    assert_eq!(first.query("select a from last"), [[text("first")]]);
    let mut reader = first.reader.move_to(&second.view);
    assert!(!reader.is_open());
    assert_eq!(rows_of(&mut reader, "select b from last"), [[text("second")]]);
}

#[test]
fn one_that_has_migrated_begins_anew_on_what_has_not() {
    let (first, second) = (document(TABLE, "first", 1), document(TABLE, "second", 1));
    let Document { view, mut writer, .. } = first;
    let migration = "alter table t add column more text default 'more'";
    let ((), set) = writer.write(&mut |tx| tx.run_migration(migration)).unwrap();
    view.push(&set);
    let mut writer = writer.move_to(&second.view);
    let sql = "insert into t values (1, 'two columns')";
    writer.write(&mut |tx| tx.run_app(sql, &[])).unwrap();
}

#[test]
fn a_page_that_is_not_here_is_no_proof_of_the_schema() {
    let first = document(TABLE, "first", 1);
    let view = View::new(16, first.store.db_pages);
    let writer: Writer = first.writer.move_to(&view);
    assert!(!writer.is_open());
}
