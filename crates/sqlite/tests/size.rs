//! What the connections of a document take. A process of its own: what SQLite allocates is counted
//! for all of it.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::{Document, SCHEMA};
use tidelog_sqlite::held_size;

/// Goal: what a server keeps for its documents is bounded by what they take. Method: what SQLite
/// holds for a writer and for a reader, beside what they say, under small and large schemas: that
/// they found, that they have changed, and of whose views they know the columns by now.
fn assert_connections_say_what_they_take() {
    let all = ["*"; 50].join(", ");
    let create = |first: usize, count: usize| -> String {
        let table = |n| {
            format!(
                "create table table_{n} (id integer primary key, name text not null, at integer,
                 owner integer references table_{n}); create index at_{n} on table_{n} (at, name);
                 create view view_{n} as select {all} from table_{n};"
            )
        };
        (first..first + count).map(table).collect()
    };
    for (tables, more) in [(1, 0), (20, 0), (20, 100), (200, 0), (200, 100)] {
        let mut document = Document::new();
        document.migrate(&create(0, tables));
        document.query("select count(*) from table_0");
        if more > 0 {
            document.migrate(&create(tables, more));
        }
        document.query("select count(*) from table_0");
        for n in 0..tables {
            document.query(&format!("select id, id as number from view_{n}"));
        }
        let said = [document.reader.size(), document.writer.size()];
        let with_both = held_size()[0] as usize;
        document.reader.refresh();
        let with_writer = held_size()[0] as usize;
        document.writer.refresh();
        let held = [with_both - with_writer, with_writer - held_size()[0] as usize];
        for (said, held) in said.into_iter().zip(held) {
            let about = held * 3 / 4..held * 5 / 4;
            assert!(about.contains(&said), "{tables} and {more}: {said} of {held} bytes");
        }
        assert_eq!([document.reader.size(), document.writer.size()], [0, 0], "none is open");
    }
}

/// A server may have tens of thousands of documents open.
#[test]
fn the_connections_of_a_document_take_less_than_256_kib_and_say_what_they_take() {
    assert_connections_say_what_they_take();
    let held_by_one = || {
        let mut document = Document::new();
        document.migrate(SCHEMA);
        document.query("select count(*) from note");
        held_size()[0]
    };
    let held = held_by_one();
    assert!((1 << 10..256 << 10).contains(&held), "{held} bytes");
    // What it held is given back.
    let [left, most] = held_size();
    assert!(left < held / 4 && most >= held, "{left} of {held} bytes are left, {most} at most");
    assert_eq!(held_by_one(), held);
}
