//! What PROTOCOL.md says of tables is what a document has.

use crate::scene::*;

/// Goal: a file that was made by the paper alone is taken for a document. Method: each statement
/// that the product's tables come of, with those of events, commands and workflows.
#[test]
fn the_paper_has_each_table_word_for_word() {
    let paper = include_str!("../../../sync/PROTOCOL.md");
    let mut scene = Scene::new(usize::MAX, Limits::DEFAULT);
    let sql = "select sql from sqlite_schema where name like '%tidelog%' and sql is not null";
    let statements = scene.server.query_system(sql);
    assert!(statements.len() > 40, "{}", statements.len());
    let mut lacks = Vec::new();
    for statement in statements {
        let [Value::Text(statement)] = statement.as_slice() else { panic!("{statement:?}") };
        // SQLite writes down its first words by itself.
        let shown = statement
            .replacen("CREATE TABLE", "create table", 1)
            .replacen("CREATE UNIQUE INDEX", "create unique index", 1)
            .replacen("CREATE INDEX", "create index", 1)
            .replacen("CREATE TRIGGER", "create trigger", 1)
            .replacen("CREATE VIEW", "create view", 1);
        if !paper.contains(&shown) {
            lacks.push(shown);
        }
    }
    assert!(lacks.is_empty(), "{}", lacks.join("\n\n"));
}
