//! What app SQL may not do, wherever it hides it.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::{Document, failure, text};
use tidelog_sqlite::{Failure, Params, SystemQueries as _};
use tidelog_types::Value;

fn document() -> Document {
    let mut document = Document::new();
    document.migrate("create table todo (id text primary key, title text, at text)");
    document
        .write(&mut |tx| {
            tx.run_system("create table _tidelog_applied (timeline blob, lsn integer)", &[])?;
            tx.run_system("insert into _tidelog_applied values (?, ?)", &[text("a"), text("b")])?;
            Ok(())
        })
        .unwrap();
    document
}

fn migration_failure(document: &mut Document, sql: &str) -> Failure {
    failure(document.write(&mut |tx| tx.run_migration(sql)))
}

#[track_caller]
fn assert_forbidden(failure: &Failure, sql: &str) {
    assert!(matches!(failure, Failure::Forbidden { .. }), "{sql}: {failure:?}");
}

#[track_caller]
fn assert_nondeterministic(failure: &Failure, sql: &str) {
    assert!(matches!(failure, Failure::Nondeterministic { .. }), "{sql}: {failure:?}");
}

#[test]
fn nobody_but_us_touches_our_tables() {
    let mut document = document();
    for sql in [
        "select * from _tidelog_applied",
        "select count(*) from main.\"_TideLog_applied\"",
        "select * from todo where id in (select timeline from _tidelog_applied)",
        "with x as (select * from _tidelog_applied) select * from x",
    ] {
        assert_forbidden(&document.app_failure(sql), sql);
        assert_forbidden(&document.query_failure(sql), sql);
        assert_forbidden(&migration_failure(&mut document, sql), sql);
    }
    for sql in [
        "insert into _tidelog_applied values (1, 2)",
        "update _tidelog_applied set lsn = 0",
        "delete from _tidelog_applied",
        "delete from \"_tidelog_\" \"x\"",
    ] {
        let app = document.app_failure(sql);
        let bad = sql.contains("\"x\"");
        assert!(bad || matches!(app, Failure::Forbidden { .. }), "{sql}: {app:?}");
    }
    for sql in [
        "drop table _tidelog_applied",
        "create table _tidelog_mine (a)",
        "create view _TIDELOG_v as select 1",
        "create index _tidelog_i on todo (title)",
        "create index i on _tidelog_applied (lsn)",
        "create trigger _tidelog_t after insert on todo begin select 1; end",
        "create trigger t after insert on _tidelog_applied begin select 1; end",
        "create trigger t after insert on todo begin delete from _tidelog_applied; end",
        "alter table _tidelog_applied rename to mine",
        "alter table todo rename to _tidelog_todo",
        "create table child (a references _tidelog_applied on delete cascade)",
        "create view v as select * from _tidelog_applied",
        // To SQLite a byte order mark is space.
        "create table child (a references \u{feff}_tidelog_applied (timeline))",
        "alter table todo rename to \u{feff}_tidelog_todo",
    ] {
        assert_forbidden(&migration_failure(&mut document, sql), sql);
    }
    let rows = document.reader.query_system("select lsn from _tidelog_applied", &[]).unwrap();
    assert_eq!(rows, [[text("b")]]);
}

#[test]
fn a_statement_of_ours_opens_no_door_for_the_same_text_of_an_app() {
    let mut document = document();
    let sql = "select lsn from _tidelog_applied";
    document.reader.query_system(sql, &[]).unwrap();
    assert_forbidden(&document.query_failure(sql), sql);
    let run = document.write(&mut |tx| {
        tx.run_system(sql, &[])?;
        tx.run_app(sql, &[])
    });
    assert_forbidden(&failure(run), sql);
}

#[test]
fn mutations_and_migrations_keep_to_one_plain_transaction() {
    let mut document = document();
    for sql in [
        "begin",
        "commit",
        "rollback",
        "savepoint a",
        "release a",
        "pragma user_version = 7",
        "pragma foreign_keys = off",
        "pragma defer_foreign_keys = on",
        "pragma table_info (todo)",
        "select * from pragma_table_info('todo')",
        "attach ':memory:' as other",
        "detach main",
        "create temp table t (a)",
        "create temporary view t as select 1",
        "create temp trigger t after insert on todo begin select 1; end",
        "create virtual table t using fts5 (a)",
        "create table temp.t (a)",
    ] {
        assert_forbidden(&document.app_failure(sql), sql);
        assert_forbidden(&migration_failure(&mut document, sql), sql);
    }
    for sql in [
        "create table t (a)",
        "create index i on todo (title)",
        "create view v as select 1",
        "drop table todo",
        "alter table todo add column b",
        "create trigger t after insert on todo begin select 1; end",
        "analyze",
        "reindex",
    ] {
        assert_forbidden(&document.app_failure(sql), sql);
    }
    for sql in ["delete from sqlite_schema", "update sqlite_master set sql = ''"] {
        document.app_failure(sql);
        migration_failure(&mut document, sql);
    }
}

#[test]
fn a_migration_may_change_the_schema_in_every_plain_way() {
    let mut document = document();
    document.app("insert into todo values ('a', 'A', '')").unwrap();
    document.migrate(
        "create table list (id integer primary key, name text);
         insert into list (name) values ('first');
         create index todo_title on todo (title);
         create view titles as select title from todo;
         create trigger t after insert on list begin update list set name = 'x'; end;
         alter table list rename to lists;
         alter table lists rename column name to label;
         alter table lists add column size integer not null default 0 check (size >= 0);
         alter table lists add column twice integer as (size * 2);
         alter table lists drop column twice;
         analyze;
         reindex todo;
         drop view titles;
         drop index todo_title;
         drop trigger t;",
    );
    assert_eq!(
        document.query("select * from lists"),
        [[Value::Integer(1), text("first"), Value::Integer(0)]]
    );
    document.migrate("drop table lists");
}

#[test]
fn a_query_may_look_at_the_schema_and_at_the_clock() {
    let mut document = document();
    document.view.set_now(1_700_000_000_123);
    let rows = document.query("select datetime('now'), current_date, unixepoch('subsec')");
    assert_eq!(
        rows,
        [[text("2023-11-14 22:13:20"), text("2023-11-14"), Value::Real(1_700_000_000.123)]]
    );
    let local = document.query("select datetime(0, 'unixepoch', 'localtime')");
    assert!(matches!(&local[0][0], Value::Text(text) if text.len() == 19));
    document.query("select random(), randomblob(4)");
    for sql in [
        "pragma table_info(todo)",
        "pragma table_xinfo(todo)",
        "pragma table_list",
        "pragma index_list(todo)",
        "pragma index_info(sqlite_autoindex_todo_1)",
        "select name from pragma_table_info('todo')",
        "select name from sqlite_schema",
    ] {
        assert!(!document.query(sql).is_empty(), "{sql}");
    }
    document.query("pragma foreign_key_list(todo)");
    for sql in [
        "pragma user_version",
        "pragma query_only = off",
        "pragma journal_mode = delete",
        "pragma table_info(_tidelog_applied)",
        "select * from pragma_table_info('_tidelog_applied')",
        "select * from pragma_function_list",
        "begin",
        "savepoint a",
        "attach ':memory:' as other",
        "create temp table t (a)",
    ] {
        let failure = document.query_failure(sql);
        let refused = matches!(failure, Failure::Forbidden { .. } | Failure::ReadOnly);
        assert!(refused, "{sql}: {failure:?}");
    }
}

#[test]
fn what_depends_on_the_moment_is_refused_when_it_is_checked() {
    let mut document = document();
    for sql in [
        "insert into todo values ('a', random(), '')",
        "insert into todo values ('a', \"random\"(), '')",
        "insert into todo values ('a', hex(randomblob(4)), '')",
        "insert into todo values ('a', 'A', datetime('now'))",
        "insert into todo values ('a', 'A', current_timestamp)",
        "insert into todo values ('a', total_changes(), '')",
    ] {
        let run = document.write(&mut |tx| {
            assert_nondeterministic(&tx.check_app(sql).unwrap_err(), sql);
            // The check is no statement: the transaction goes on.
            tx.run_app("insert into todo values ('b', 'B', '')", &[])?;
            tx.run_app("delete from todo", &[])
        });
        run.unwrap();
        assert_nondeterministic(&document.app_failure(sql), sql);
    }
}

#[test]
fn checking_tells_which_parameters_there_are_and_what_is_wrong() {
    let mut document = document();
    document
        .write(&mut |tx| {
            let sql = "insert into todo values (:id, :title, :id);
                       update todo set at = $now where id = @id; -- that is all";
            assert_eq!(tx.check_app(sql)?, ["id", "now", "title"]);
            assert_eq!(tx.check_app("")?, Vec::<String>::new());
            for sql in [
                "insert into absent values (1)",
                "select nonsense(1)",
                "select no_column from todo",
                "select from",
                "update todo set at = ?",
                "create table t (a)",
                "begin",
                "delete from _tidelog_applied",
            ] {
                assert!(tx.check_app(sql).is_err(), "{sql}");
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_depends_on_the_moment_is_refused_when_it_runs_wherever_it_hides() {
    let mut document = document();
    // As a database would have them that something else made.
    document
        .write(&mut |tx| {
            for sql in [
                "create table lucky (a, number default (random()))",
                "create table unlucky (a, bytes default (randomblob(3)))",
                "create table stamped (a, at default current_timestamp)",
                "create table dated (a, at default (strftime('%s', 'now')))",
                "create table counted (a, n default (total_changes()))",
                "create view clock as select julianday('now') as at",
                "create table t1 (a)",
                "create trigger r1 after insert on t1 begin select random(); end",
                "create table t2 (a)",
                "create trigger r2 after insert on t2 begin
                     update todo set at = datetime('now'); end",
            ] {
                tx.run_system(sql, &[])?;
            }
            Ok(())
        })
        .unwrap();
    document.app("insert into todo values ('a', 'now', 'localtime')").unwrap();
    for sql in [
        "insert into lucky (a) values (1)",
        "insert into unlucky (a) values (1)",
        "insert into stamped (a) values (1)",
        "insert into dated (a) values (1)",
        "insert into counted (a) values (1)",
        "insert into lucky (a) select at from clock",
        "insert into t1 values (1)",
        "insert into t2 values (1)",
        "select datetime(title) from todo",
        "select datetime(0, 'unixepoch', at) from todo",
        "insert or ignore into stamped (a) values (1)",
        "select coalesce(date(), 'no time')",
        "select datetime('subsec')",
    ] {
        assert_nondeterministic(&document.app_failure(sql), sql);
    }
    for sql in [
        "insert into lucky values (1, 2)",
        "insert into stamped values (1, 2)",
        "insert into todo values (datetime(1700000000, 'unixepoch'), '', '')",
    ] {
        document.app(sql).unwrap();
    }
}

#[test]
fn migrations_with_defaults_that_depend_on_the_moment_are_refused() {
    let mut document = document();
    for sql in [
        "create table t (a, at text default current_timestamp)",
        "create table t (a, at text default (datetime('now')))",
        "create table t (a default (random()))",
        "create trigger t after insert on todo begin select randomblob(3); end",
    ] {
        assert_nondeterministic(&migration_failure(&mut document, sql), sql);
    }
}

#[test]
fn counters_start_at_nothing_in_every_transaction() {
    let mut document = document();
    document.migrate("create table seen (rowid_before integer, changes_before integer)");
    document.app("insert into todo values ('a', 'A', ''), ('b', 'B', '')").unwrap();
    for _ in 0..2 {
        document
            .write(&mut |tx| {
                tx.run_system("insert into _tidelog_applied values (1, 1), (2, 2)", &[])?;
                tx.run_app("insert into seen values (last_insert_rowid(), changes())", &[])
            })
            .unwrap();
    }
    let zeros = [Value::Integer(0), Value::Integer(0)];
    assert_eq!(document.query("select * from seen"), [zeros.clone(), zeros]);
    document
        .app(
            "update todo set at = '';
             select reject('changed ' || changes()) where changes() <> 2;
             delete from todo where id = 'none';
             select reject('changed ' || changes()) where changes() <> 0;",
        )
        .unwrap();
}

#[test]
fn a_query_by_name_gets_its_values() {
    let mut document = document();
    let params = Params::Named(vec![("x".into(), Value::Integer(7))]);
    let rows = document.reader.query("select :x + 1", &params).unwrap();
    assert_eq!(rows.decode(), [[Value::Integer(8)]]);
}

/// A connection reads them once, and plans by what it has read.
#[test]
fn a_mutation_leaves_the_statistics_alone() {
    let mut document = Document::new();
    document.migrate(
        "create table note (a); create index note_a on note (a); insert into note values (1);
         create table log (id integer primary key autoincrement); insert into log values (1);
         create trigger sly after update on note begin delete from sqlite_stat1; end; analyze",
    );
    for sql in [
        "update sqlite_stat1 set stat = '1000000 1000000'",
        "insert into SQLITE_STAT1 values ('note', 'note_a', '9 9')",
        "delete from sqlite_stat1",
        "update note set a = 2",
    ] {
        let failure = document.app_failure(sql);
        assert!(matches!(failure, Failure::Forbidden { .. }), "{sql}: {failure}");
    }
    document.app("update sqlite_sequence set seq = 7; insert into log default values").unwrap();
    assert_eq!(document.query("select max(id) from log"), [[Value::Integer(8)]]);
}

/// What has written them plans as they were, and whoever comes to the document as they are.
#[test]
fn a_migration_changes_the_statistics_by_analyze_alone() {
    const SLY: &str = "create trigger sly after update on note begin
                       delete from sqlite_stat1; end;";
    let begun = || {
        let mut document = Document::new();
        document.migrate(
            "create table note (a); create index note_a on note (a); insert into note values (1);
             create table log (id integer primary key autoincrement); analyze",
        );
        document
    };
    for sql in [
        "update sqlite_stat1 set stat = '1000000 1000000'",
        "insert into SQLITE_STAT1 values ('note', 'note_a', '9 9')",
        "with a as (select 1) delete from \"sqlite_stat1\"",
        "drop table log; replace into \u{feff}sqlite_stat1 values ('note', 'note_a', '9 9')",
        &format!("{SLY} update note set a = 2"),
        &format!("{SLY} insert into note values (2); analyze; update note set a = 2"),
    ] {
        let run = begun().write(&mut |tx| tx.run_migration(sql));
        let failure = failure(run);
        assert!(matches!(failure, Failure::Forbidden { .. }), "{sql}: {failure}");
    }
    let mut document = begun();
    document.migrate(
        "insert into log default values; update sqlite_sequence set seq = 7; analyze note; analyze;
         drop index note_a; create index note_a on note (a); reindex; analyze note_a;
         alter table note rename to letter; alter table letter add b; alter table letter drop b;
         alter table letter rename a to c; analyze sqlite_schema; drop table letter;
         drop table sqlite_stat1; create table note (a); insert into note values (1); analyze",
    );
    assert_eq!(document.query("select count(*) > 0 from sqlite_stat1"), [[Value::Integer(1)]]);
}

/// Also where memory was short while a statement was prepared, it is not what is forbidden.
#[test]
fn what_was_not_prepared_is_not_judged_by_what_it_began_with() {
    let mut document = Document::new();
    document.migrate("create table note (a); insert into note values (1); analyze");
    let run = document.write(&mut |tx| tx.run_migration("insert into sqlite_stat1 values (1)"));
    let failure = failure(run);
    assert!(matches!(failure, Failure::Sql { .. }), "{failure}");
}
