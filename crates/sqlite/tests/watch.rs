//! What a live query reads, and what touches it.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use std::collections::BTreeSet;

use common::Document;
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
    assert!(!reads.touched_by(&elsewhere));
    let here = document.app("update todo set title = 'new' where id = 1").unwrap();
    assert!(reads.touched_by(&here));
    let cookie = document.view.schema_cookie();
    let pgids: BTreeSet<_> = here.pages.keys().copied().collect();
    assert!(reads.touched_by_pages(&pgids, cookie));
    let pgids: BTreeSet<_> = elsewhere.pages.keys().copied().collect();
    assert!(!reads.touched_by_pages(&pgids, cookie));
    let schema = document.migrate("create table third (a)");
    assert!(reads.touched_by(&schema));
    assert!(reads.touched_by_pages(&BTreeSet::new(), document.view.schema_cookie()));
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
    assert!(reads.touched_by(&set));
}

#[test]
fn a_new_row_of_an_empty_answer_touches_it() {
    let mut document = document();
    let (rows, reads) = document.watch("select * from todo where list = 'none'");
    assert_eq!(rows.count, 0);
    let set = document.app("insert into todo values (5000, 'none', '')").unwrap();
    assert!(reads.touched_by(&set));
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
    assert!(!reads.touched_by(&set));
    let (_, reads) = document.watch("select name from sqlite_schema");
    let set = document.app("update todo set title = 'x'").unwrap();
    assert!(!reads.touched_by(&set));
    assert!(reads.touched_by(&document.migrate("drop table other")));
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
