//! What is deleted is on no page any more.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::{Document, Numbers};
use tidelog_types::Value;

/// What some rows have, and others lack.
const SECRET: &str = "Lovelace";

fn pages_with_it(document: &Document) -> usize {
    let has = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|it| it == SECRET.as_bytes());
    document.store.pages.values().filter(|page| has(page.bytes())).count()
}

/// Goal: wherever SQLite has moved a row meanwhile, nothing of it is left behind. Method: rows come
/// at random places of a table and of its index, change their size and go, until those that have
/// it are deleted.
#[test]
fn no_page_has_a_byte_of_what_was_deleted() {
    let mut document = Document::new();
    document.migrate(
        "create table note (id integer primary key, text text not null) strict;
         create index note_text on note (text)",
    );
    let mut numbers = Numbers::new(7);
    for _ in 0..1200 {
        let (id, size) = (numbers.below(100_000), numbers.below(80));
        let word = if id % 2 == 0 { SECRET } else { "somebody" };
        let said = format!("{:05} {}", id * 7919 % 100_000, word.repeat(1 + size as usize));
        document.app(&format!("insert or replace into note values ({id}, '{said}')")).unwrap();
        let longer = format!(
            "update note set text = text || text
             where id > {id} and id < {id} + 99 and length(text) < 900"
        );
        document.app(&longer).unwrap();
    }
    assert!(pages_with_it(&document) > 100);
    document.app("delete from note where id % 2 = 0").unwrap();
    assert_eq!(pages_with_it(&document), 0);
    let rows = document.query("select count(*) from note where instr(text, 'somebody')");
    assert_ne!(rows, [[Value::Integer(0)]], "the others are there");
}
