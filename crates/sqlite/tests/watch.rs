//! What a live query reads, and what touches it.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use std::collections::BTreeSet;

use common::Document;
use tidelog_sqlite::{Params, Reader, View, Writer};
use tidelog_types::Pgid;

const BY_LIST: &str = "select title from todo where list = 'l1' order by id";

fn document() -> Document {
    let mut document = Document::new();
    document.migrate(
        "create table todo (id integer primary key, list text, title text);
         create index todo_list on todo (list);
         create table other (id integer primary key, text text);",
    );
    let sql = "with recursive c (x) as (select 1 union all select x + 1 from c where x < 1000)
               insert into todo select x, 'l' || (x % 50), hex(zeroblob(100)) from c";
    document.app(sql).unwrap();
    document.app("insert into other values (1, 'x')").unwrap();
    document
}

#[test]
fn a_watched_query_is_touched_by_what_it_reads_and_by_nothing_else() {
    let mut document = document();
    let (rows, reads) = document.watch(BY_LIST);
    assert_eq!(rows.count, 20);
    let elsewhere = document.app("insert into other values (2, 'y')").unwrap();
    assert!(!reads.touched_by(&elsewhere.pgids(), &document.view));
    let here = document.app("update todo set title = 'new' where id = 1").unwrap();
    assert!(reads.touched_by(&here.pgids(), &document.view));
    document.migrate("create table third (a)");
    assert!(reads.touched_by(&BTreeSet::new(), &document.view));
}

/// Nothing but the last page of the value changes.
#[test]
fn a_query_of_a_long_value_is_touched_by_a_change_of_its_end() {
    let mut document = document();
    document.app("insert into other values (2, hex(zeroblob(10325)))").unwrap();
    document.reader.refresh();
    let (_, reads) = document.watch("select text from other where id = 2");
    let end = "update other set text = substr(text, 1, 20649) || '1' where id = 2";
    let set = document.app(end).unwrap();
    // The first one counts changes, and belongs to no query.
    assert_eq!(set.pages.keys().filter(|pgid| **pgid != Pgid(1)).count(), 1);
    assert!(reads.touched_by(&set.pgids(), &document.view));
}

#[test]
fn a_new_row_of_an_empty_answer_touches_it() {
    let mut document = document();
    let (rows, reads) = document.watch("select * from todo where list = 'none'");
    assert_eq!(rows.count, 0);
    let set = document.app("insert into todo values (5000, 'none', '')").unwrap();
    assert!(reads.touched_by(&set.pgids(), &document.view));
}

#[test]
fn each_watch_of_the_same_query_reads_the_same() {
    let mut document = document();
    let (_, first) = document.watch(BY_LIST);
    assert!(first.pages_count() > 2);
    let (_, second) = document.watch(BY_LIST);
    assert_eq!(first, second);
    document.query("select sum(length(title)) from todo");
    assert_eq!(document.watch(BY_LIST).1, first);
    document.reader.refresh();
    assert_eq!(document.watch(BY_LIST).1, first);
    document.app("insert into other values (2, 'y')").unwrap();
    assert_eq!(document.watch(BY_LIST).1, first);
    document.migrate("create table third (a)");
    // The first one after a change of the schema reads the schema as well.
    document.watch(BY_LIST);
    let after = document.watch(BY_LIST).1;
    assert_eq!(after.pages_count(), first.pages_count());
}

#[test]
fn a_query_without_tables_is_touched_by_nothing_but_the_schema() {
    let mut document = document();
    let (_, reads) = document.watch("select 1 + 1");
    let set = document.app("update todo set title = ''").unwrap();
    assert!(!reads.touched_by(&set.pgids(), &document.view));
    let (_, reads) = document.watch("select name from sqlite_schema");
    let set = document.app("update todo set title = 'x'").unwrap();
    assert!(!reads.touched_by(&set.pgids(), &document.view));
    let set = document.migrate("drop table other");
    assert!(reads.touched_by(&set.pgids(), &document.view));
}

#[test]
fn readers_see_what_was_pushed_and_after_a_refresh_what_was_taken_back() {
    let mut document = document();
    let count = "select count(*) from todo";
    let before = document.query(count);
    let set = document.app("delete from todo where id <= 10").unwrap();
    let after = document.query(count);
    assert_ne!(before, after);
    // A rebase without that layer.
    let layers: Vec<_> = vec![set];
    let fork = document.view.fork();
    assert_eq!(fork.db_pages(), 0);
    fork.push(&layers[0]);
    assert_eq!(document.query(count), after);
    document.reader.refresh();
    assert_eq!(document.query(count), after);
}

/// Goal: a query is run again where its tables lie elsewhere, though nothing that it read has
/// changed. Method: the same tables, made in another order, so that both schemas have one cookie.
#[test]
fn a_schema_with_the_same_cookie_and_its_tables_in_other_places_touches_every_query() {
    let view = View::new(usize::MAX, 0);
    let mut writer = Writer::new(&view);
    let mut made = |sql: &str| {
        writer.refresh();
        writer.write(&mut |transaction| transaction.run_migration(sql)).unwrap().1
    };
    let here = made("create table a (x); create table b (x)");
    let there = made("create table b (x); create table a (x); insert into b values (1)");
    view.set_overlay([&here]);
    let cookie = view.schema_cookie();
    let mut reader = Reader::new(&view);
    let (rows, reads) = reader.watch("select x from b", &Params::NONE).unwrap();
    assert_eq!(rows.count, 0);
    view.set_overlay([&there]);
    assert_eq!(view.schema_cookie(), cookie);
    let is_other = |pgid: &Pgid| here.pages.get(pgid) != there.pages.get(pgid);
    let changed: BTreeSet<Pgid> = there.pgids().into_iter().filter(is_other).collect();
    assert_eq!(changed, BTreeSet::from([Pgid(1), Pgid(2)]), "b was on page 3");
    assert!(reads.touched_by(&changed, &view));
    reader.refresh();
    assert_eq!(reader.watch("select x from b", &Params::NONE).unwrap().0.count, 1);
}
