//! Doctypes that cannot work are refused before any document is touched.

use tidelog_document::{
    Doctype, DoctypeError, FoundRight, MutationDefinition, Param, ParamKind, check,
};
use tidelog_sqlite::{View, be_short_beyond};
use tidelog_types::limits::{DOCTYPE_SIZE_MAX, Limits};

fn doctype(migrations: &[&str], sql: &[&str]) -> Doctype {
    Doctype {
        name: "notes".to_owned(),
        migrations: migrations.iter().map(ToString::to_string).collect(),
        mutations: vec![MutationDefinition {
            name: "write".to_owned(),
            params: vec![Param { name: "id".to_owned(), kind: ParamKind::Text, optional: false }],
            sql: sql.iter().map(ToString::to_string).collect(),
        }],
        streams: Vec::new(),
        workflows: Vec::new(),
    }
}

const NOTE: &str = "create table note (id text primary key, at integer) strict";

fn checked(doctype: &Doctype) -> Result<(), DoctypeError> {
    check(doctype, &View::new(usize::MAX, 0), &FoundRight::default())
}

fn refusal(migrations: &[&str], sql: &[&str]) -> String {
    checked(&doctype(migrations, sql)).expect_err("it cannot work").to_string()
}

#[track_caller]
fn assert_refused(sql: &str, expected: &str) {
    let refusal = refusal(&[NOTE], &[sql]);
    let start = "mutation write of doctype notes cannot be used: ";
    assert!(refusal.starts_with(start) && refusal.contains(expected), "{sql}: {refusal}");
}

#[test]
fn a_doctype_that_works_is_let_through() {
    let sql = "insert into note values (:id, :now); select reject('no') where :client = ''";
    assert_eq!(checked(&doctype(&[NOTE], &[sql])), Ok(()));
}

/// Goal: nothing is written by a doctype that no server would ever take. Method: statements that
/// may be so long each, and are longer together.
#[test]
fn a_doctype_that_is_too_large_for_any_server_is_refused() {
    let of = |size: usize| {
        let long = format!("{NOTE}; -- {}", "x".repeat(size / 2));
        doctype(&[&long, &format!("-- {}", "x".repeat(size / 2))], &[])
    };
    assert_eq!(checked(&of(DOCTYPE_SIZE_MAX - 1024)), Ok(()));
    let refused = checked(&of(DOCTYPE_SIZE_MAX));
    assert!(matches!(refused, Err(DoctypeError::TooLarge { .. })), "{refused:?}");
}

/// Method: SQLite gets no memory, so that nothing is found out by running it.
#[test]
fn a_doctype_that_was_found_right_is_not_run_again_within_the_same_limits() {
    let of = |id: &str| doctype(&[NOTE], &[&format!("insert into note values (:id, {id})")]);
    let (found_right, view) = (FoundRight::default(), View::new(usize::MAX, 0));
    assert_eq!(check(&of("7"), &view, &found_right), Ok(()));
    let limits = Limits { mutation_pages_max: 7, ..Limits::DEFAULT };
    be_short_beyond(Some(0));
    let again = check(&of("7"), &view, &found_right.clone());
    let other = check(&of("8"), &view, &found_right);
    let elsewhere = check(&of("7"), &View::new(usize::MAX, 0).with_limits(limits), &found_right);
    be_short_beyond(None);
    assert_eq!(again, Ok(()));
    for unknown in [other, elsewhere] {
        assert!(matches!(unknown, Err(DoctypeError::Unchecked { .. })), "{unknown:?}");
    }
    assert_eq!(checked(&of("8")), Ok(()));
}

#[test]
fn what_two_runs_would_answer_otherwise_is_refused() {
    assert_refused("insert into note values (:id, random())", "not deterministic: random(): give");
    for sql in ["datetime('now')", "datetime()", "current_timestamp", "unixepoch('now', 'utc')"] {
        let sql = format!("insert into note values (:id, {sql})");
        assert_refused(&sql, "use :now, the milliseconds since 1970");
    }
    assert_refused("insert into note select :id, total_changes()", "total_changes");
}

#[test]
fn what_a_mutation_may_not_do_is_refused() {
    assert_refused("pragma user_version = 1", "not allowed");
    assert_refused("attach ':memory:' as other", "not allowed");
    assert_refused("begin", "not allowed");
    assert_refused("create table other (x)", "not allowed");
    assert_refused("delete from _tidelog_timeline", "not allowed");
    assert_refused("insert into note select lsn, 1 from _tidelog_rejection", "not allowed");
}

#[test]
fn what_does_not_prepare_is_refused_in_the_words_of_sqlite() {
    assert_refused("insert into notes values (:id, 1)", "no such table: notes");
    assert_refused("insert into note values (:id)", "2 columns but 1 values");
    assert_refused("insert note", "syntax error");
    assert_refused("insert into note values (?, 1)", "parameter without a name");
    assert_refused(
        "insert into note values (:name, 1)",
        "it mentions :name, which is no parameter",
    );
}

#[test]
fn a_parameter_cannot_take_the_name_of_what_every_mutation_is_given() {
    let mut doctype = doctype(&[NOTE], &["insert into note values (:now, 1)"]);
    doctype.mutations[0].params[0].name = "now".to_owned();
    let refusal = checked(&doctype).expect_err("it is taken").to_string();
    assert!(refusal.contains("a parameter cannot be named now"), "{refusal}");
}

#[test]
fn a_migration_that_does_not_run_is_named_by_its_number() {
    let broken = refusal(&[NOTE, "alter table note add column"], &[]);
    assert!(broken.starts_with("migration 2 of doctype notes does not run: "), "{broken}");
    let by_default = "create table log (at text default (random()));
                      insert into log default values";
    let broken = refusal(&[by_default], &[]);
    assert!(broken.contains("migration 1") && broken.contains("not deterministic"), "{broken}");
    let broken = refusal(&["create table _tidelog_mine (x)"], &[]);
    assert!(broken.contains("not allowed"), "{broken}");
    let statistics = "insert into sqlite_stat1 values ('note', null, '9')";
    let broken = refusal(&[NOTE, "analyze", statistics], &[]);
    assert!(broken.contains("migration 3") && broken.contains("not allowed: sqlite"), "{broken}");
    let broken = refusal(&["create temp table t (x)"], &[]);
    assert!(broken.contains("not allowed"), "{broken}");
    for hidden in [
        "create table t (x references \u{feff}_tidelog_rejection (reason))",
        "create table t (x); alter table t rename to \u{feff}_tidelog_t",
    ] {
        let broken = refusal(&[NOTE, hidden], &[]);
        assert!(broken.contains("migration 2") && broken.contains("not allowed"), "{broken}");
    }
}

/// SQLite numbers columns of the same name, up to four: the numbers of further ones it draws.
#[test]
fn a_migration_in_which_column_names_are_drawn_is_refused() {
    let made_of = |columns: &str| format!("create table t as select {columns}");
    let few = made_of("1 as a, 1 as a, 1 as a, 1 as a, 1 as a");
    assert_eq!(checked(&doctype(&[NOTE, &few], &[])), Ok(()));
    for columns in ["1 as a, 1 as a, 1 as a, 1 as a, 1 as a, 1 as a", "1, 1, 1, 1, 1, 1"] {
        let broken = refusal(&[NOTE, &made_of(columns)], &[]);
        assert!(broken.contains("migration 2") && broken.contains("not deterministic"), "{broken}");
    }
}

#[test]
fn column_names_that_were_drawn_are_seen_before_the_next_statement() {
    let six = "1 as a, 1 as a, 1 as a, 1 as a, 1 as a, 1 as a";
    for table in ["d", "\"d\"", "main.[d]", "'d'"] {
        let hidden = format!(
            "create table {table} as select {six};
             create table log as select sql from sqlite_schema where name = 'd'; drop table d"
        );
        let broken = refusal(&[NOTE, &hidden], &[]);
        assert!(broken.contains("migration 2") && broken.contains("not deterministic"), "{broken}");
    }
    let honest = "create table screen (\"16:9\" text, \"4:3\" text);
                  create table other as select * from screen";
    assert_eq!(checked(&doctype(&[NOTE, honest], &[])), Ok(()));
    let numbered = r#"create table t ("a:1", "a:2", "a:3", "a:4", "a:5")"#;
    assert_eq!(checked(&doctype(&[NOTE, numbered], &[])), Ok(()));
}

/// Goal: a doctype of a few megabytes takes neither hours nor gigabytes. Method: what is allowed
/// at most, and one more; and far more than that.
#[test]
fn a_mutation_has_a_bounded_number_of_parameters_and_statements() {
    let select = |count: usize| "select :id;".repeat(count);
    assert_eq!(checked(&doctype(&[NOTE], &[&select(1000)])), Ok(()));
    assert_refused(&select(1001), "more than 1000 statements");
    assert_refused(&select(300_000), "more than 1000 statements");
    let many: Vec<&str> = vec!["select 1"; 1001];
    let broken = refusal(&[NOTE], &many);
    assert!(broken.contains("more than 1000 statements"), "{broken}");
    let mut wide = doctype(&[NOTE], &["select 1"]);
    let param = wide.mutations[0].params[0].clone();
    wide.mutations[0].params =
        (0..1001).map(|n| Param { name: format!("p{n}"), ..param.clone() }).collect();
    let broken = checked(&wide).expect_err("too many").to_string();
    assert!(broken.contains("more than 1000 parameters"), "{broken}");
    let names: String = (0..30_000).map(|n| format!("select :n{n};")).collect();
    assert_refused(&names, "more than 1000 statements");
}

/// Goal: no doctype takes much memory of each connection of each of its documents. Method: schemas
/// that are large in their own ways, and ones of an ordinary size.
#[test]
fn a_doctype_whose_schema_takes_too_much_of_each_connection_is_refused() {
    let columns = |count: usize| {
        let columns: Vec<String> = (0..count).map(|n| format!("column_{n} text")).collect();
        columns.join(", ")
    };
    let wide = format!("create table wide ({})", columns(1990));
    let view = |n: usize| format!("create view view_{n} as select * from wide;");
    let views: String = (0..100).map(view).collect();
    let nested: String = (0..100)
        .map(|n| match n {
            0 => "create view v0 as select * from wide;".to_owned(),
            n => format!("create view v{n} as select * from v{};", n - 1),
        })
        .collect();
    let tables: String =
        (0..1500).map(|n| format!("create table t{n} ({});", columns(20))).collect();
    let checks: String =
        (0..200).map(|n| format!("create table t{n} (a{});", ", check (a)".repeat(500))).collect();
    let key = columns(1000).replace(" text", "");
    let indexes: String = (0..600).map(|n| format!("create index i{n} on t (b);")).collect();
    let indexes =
        format!("create table t ({key}, b, primary key ({key})) without rowid; {indexes}");
    let large = [
        vec![wide.as_str(), &views],
        vec![&wide, &nested],
        vec![&tables],
        vec![&checks],
        vec![&indexes],
    ];
    for migrations in large {
        let broken = refusal(&migrations, &[]);
        assert!(broken.contains("over the budget of 8388608 bytes for a schema"), "{broken}");
        let last = format!("migration {} of doctype notes", migrations.len());
        assert!(broken.starts_with(&last), "{broken}");
    }
    let some: String = (0..300)
        .map(|n| {
            format!(
                "create table t{n} ({}); create index i{n} on t{n} (column_1, column_2);
                 create view v{n} as select *, rowid from t{n} where column_1 = 'a';
                 create trigger r{n} after insert on t{n} begin delete from t0; end;",
                columns(12)
            )
        })
        .collect();
    assert_eq!(checked(&doctype(&[&wide, &some], &[])), Ok(()));
    let members = |row: &str| {
        let members: Vec<String> =
            (0..13).map(|n| format!("'column_{n}', {row}.column_{n}")).collect();
        members.join(", ")
    };
    let audited: String = (0..200)
        .map(|n| {
            let table = format!("create table t{n} ({});", columns(13));
            [("insert", "new"), ("update", "new"), ("delete", "old")].iter().fold(
                table,
                |all, (deed, row)| {
                    let members = members(row);
                    format!(
                        "{all} create trigger {deed}_{n} after {deed} on t{n} begin
                         insert into audit values (json_object({members})); end;"
                    )
                },
            )
        })
        .collect();
    assert_eq!(checked(&doctype(&["create table audit (what text)", &audited], &[])), Ok(()));
    let tables = |count: usize| -> String {
        (0..count).map(|n| format!("create table t{n} ({});", columns(10))).collect()
    };
    assert_eq!(checked(&doctype(&[&tables(2000)], &[])), Ok(()));
    let of_nothing = "create view v as select * from nowhere; create view w as select * from v";
    let write = "insert into note values (:id, 1)";
    assert_eq!(checked(&doctype(&[NOTE, of_nothing], &[write])), Ok(()));
}

/// Goal: no table of an app answers what is asked about the schema. Method: ones with the names of
/// SQLite's own tables for that, which have to stay and which are gone by the end.
#[test]
fn no_table_of_an_app_stands_for_what_tells_of_the_schema() {
    let columns: Vec<String> = (0..1900).map(|n| format!("column_{n}")).collect();
    let wide = format!("create table wide ({})", columns.join(", "));
    let views: String =
        (0..200).map(|n| format!("create view v{n} as select * from wide;")).collect();
    for impostor in ["pragma_table_xinfo (a)", "Pragma_foreign_key_list (\"table\")"] {
        let create = format!("create table {impostor}");
        let broken = refusal(&[&create, &wide, &views], &[]);
        assert!(broken.to_lowercase().contains("not allowed: pragma_"), "{broken}");
    }
    let six = "1 as a, 1 as a, 1 as a, 1 as a, 1 as a, 1 as a";
    let passing = format!(
        "create table pragma_table_info (name); create table t as select {six};
         drop table pragma_table_info"
    );
    let broken = refusal(&[NOTE, &passing], &[]);
    assert!(broken.contains("migration 2") && broken.contains("not deterministic"), "{broken}");
}

/// Goal: a mutation that is let through runs on a connection that has just been opened. Method:
/// views one in the other, more than SQLite goes down at once, of all of which the check asks for
/// the columns; a migration that has used them one by one; and few enough.
#[test]
fn a_mutation_is_prepared_by_a_connection_that_knows_no_views() {
    let nested = |count: usize, each: &str| -> String {
        (1..count).fold("create table v0 (a);".to_owned(), |all, n| {
            let each = each.replace('_', &n.to_string());
            format!("{all} create view v{n} as select a from v{}; {each}", n - 1)
        })
    };
    let write = |last: usize| format!("insert into note select a, 1 from v{last}");
    for each in ["", "insert into note select a, 2 from v_;"] {
        let broken = refusal(&[NOTE, &nested(600, each)], &[&write(599)]);
        assert!(
            broken.contains("mutation write") && broken.contains("nested too deep"),
            "{broken}"
        );
    }
    assert_eq!(checked(&doctype(&[NOTE, &nested(50, "")], &[&write(49)])), Ok(()));
}

/// Goal: no statement has to count a large literal that it does not name.
#[test]
fn a_large_literal_in_a_schema_is_refused() {
    for sql in [
        "create view v as select 'X' as x",
        "create trigger tr after insert on note begin select 'X'; end",
        "create table t (a text default 'X') strict",
    ] {
        let of = |size: usize| sql.replace('X', &"0".repeat(size));
        assert_eq!(checked(&doctype(&[NOTE, &of(64 << 10)], &[])), Ok(()), "{sql}");
        let broken = refusal(&[NOTE, &of((64 << 10) + 1)], &[]);
        assert!(broken.contains("65536 bytes for a literal in a schema"), "{broken}");
    }
}
