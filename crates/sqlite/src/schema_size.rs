//! What a schema takes of each connection that has read it, estimated from what is the same on
//! every host.

use tidelog_types::ValueRef;
use tidelog_types::limits::{SCHEMA_LITERAL_SIZE_MAX, SCHEMA_SIZE_MAX};

use crate::connection::Connection;
use crate::failure::Failure;
use crate::guard::is_system_name;
use crate::scan::{Token, each_token, literal_sizes};
use crate::state::Origin;

/// Bytes that each costs at most, where pointers have eight bytes: an object beside its SQL, a
/// column of a table or view beside its name, and one of an index.
const OBJECT_SIZE: usize = 512;
const COLUMN_SIZE: usize = 64;
const INDEX_COLUMN_SIZE: usize = 16;

/// What each costs that SQL is made of: a word, a literal or an operator, all of which SQLite keeps
/// as one expression or less; a word that stands for more; what opens a row of VALUES, which is a
/// SELECT; and what only holds others together.
const WORD_SIZE: usize = 96;
const LARGE_WORD_SIZE: usize = 384;
const OPENING_SIZE: usize = 128;
const PUNCTUATION_SIZE: usize = 16;

const LARGE_WORDS: [&str; 7] = ["select", "values", "in", "like", "glob", "match", "regexp"];

const OBJECTS: &str = "select type, name, sql, tbl_name from sqlite_schema order by rowid";

/// Fails if it is more than a schema may take.
pub(crate) fn check(connection: &mut Connection) -> Result<(), Failure> {
    estimate(connection).map(drop)
}

fn token_size(token: Token<'_>) -> usize {
    match token {
        Token::Word(word) if LARGE_WORDS.iter().any(|large| large.eq_ignore_ascii_case(word)) => {
            LARGE_WORD_SIZE
        }
        Token::Sign('(') => OPENING_SIZE,
        Token::Sign(')' | ',' | ';' | '.') => PUNCTUATION_SIZE,
        Token::Word(_) | Token::Quoted(_) | Token::Text(_) | Token::Sign(_) => WORD_SIZE,
    }
}

fn estimate(connection: &mut Connection) -> Result<usize, Failure> {
    let mut size = 0;
    let mut add = |more: usize| {
        size += more;
        match size > SCHEMA_SIZE_MAX {
            true => Err(Failure::budget(format!("{SCHEMA_SIZE_MAX} bytes for a schema"))),
            false => Ok(()),
        }
    };
    let mut objects = Vec::new();
    connection.run(Origin::System, OBJECTS, &|_| Ok(Vec::new()), &mut |row| {
        let text = |index| match row.column(index) {
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            _ => String::new(),
        };
        if is_system_name(&text(3)) {
            return Ok(());
        }
        let sql = text(2);
        // Each statement that uses it may look at it as often as the statement is long.
        if literal_sizes(&sql).any(|size| size > SCHEMA_LITERAL_SIZE_MAX) {
            let what = format!("{SCHEMA_LITERAL_SIZE_MAX} bytes for a literal in a schema");
            return Err(Failure::budget(what));
        }
        add(OBJECT_SIZE + sql.len() + each_token(&sql).map(token_size).sum::<usize>())?;
        objects.push((text(0), text(1)));
        Ok(())
    })?;
    for (kind, name) in &objects {
        let (pragma, column_size) = match kind.as_str() {
            "table" | "view" => ("table_xinfo", COLUMN_SIZE),
            "index" => ("index_xinfo", INDEX_COLUMN_SIZE),
            _ => continue,
        };
        // Under the budget of a query: there may be no end to what views are made of.
        match connection.columns_of(Origin::Query, pragma, name) {
            Ok(names) if kind == "index" => add(names.len() * column_size)?,
            Ok(names) => add(names.iter().map(|name| column_size + name.len()).sum())?,
            // A view of what is not there: nobody can use it, and it has no columns.
            Err(Failure::Sql { .. }) if kind == "view" => connection.forgive(),
            Err(failure) => return Err(failure),
        }
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{Lazy, no_values};
    use crate::view::View;

    /// What the schema that `sql` makes is estimated at, and what SQLite has for it then, with the
    /// columns of all views learnt.
    fn sizes(sql: &str) -> [usize; 2] {
        let mut lazy = Lazy::new(&View::new(usize::MAX, 0), true);
        let connection = lazy.begin().expect("opens");
        connection.run(Origin::Migration, sql, &no_values, &mut |_| Ok(())).expect(sql);
        let estimated = estimate(connection).expect("it is looked at");
        [estimated, connection.schema_size()]
    }

    fn listed(count: usize, member: impl Fn(usize) -> String) -> String {
        (0..count).map(member).collect::<Vec<_>>().join(",")
    }

    #[track_caller]
    fn assert_no_more_than_estimated(sql: &str) {
        let [estimated, used] = sizes(sql);
        assert!(used <= estimated, "{used} of {estimated} bytes: {sql:.300}");
    }

    /// Goal: what is let through takes no more than it may. Method: what SQLite has for schemas
    /// that are as good as all made of one thing.
    #[test]
    fn sqlite_takes_no_more_for_a_schema_than_is_estimated() {
        for term in [
            "1",
            "1.5",
            "''",
            "x'00'",
            "a",
            "t.a",
            "~~~~~~~~~~a",
            "not a",
            "a isnull",
            "a|a&a<<a",
            "a->>a",
            "a like a",
            "a not like a",
            "a glob a",
            "a like a escape 1",
            "a between 1 and 2",
            "a is not distinct from a",
            "a in(1)",
            "a in()",
            "a collate nocase",
            "cast(a as b)",
            "abs(a)",
            "changes()",
            "(1,2)=(1,2)",
            "case when a then a end",
        ] {
            let many = listed(500, |_| term.to_owned());
            assert_no_more_than_estimated(&format!("create table t (a check (a in ({many})))"));
        }
        for term in [
            "a",
            "main.t.a",
            "a glob a",
            "a in t",
            "(a,a)in t",
            "(select 1)",
            "(values(1))",
            "(select*from t)",
            "(select 1 from t,t,t,t)",
            "(select 1 from(select 1),(select 1))",
            "exists(select 1)",
            "(select 1 from json_each(a))",
            "(with c(a)as(select 1)select 1)",
        ] {
            let many = listed(500, |_| term.to_owned());
            assert_no_more_than_estimated(&format!(
                "create table t (a); create view v as select a from t where a in ({many})"
            ));
        }
        for column in ["1", "a", "t.a", "a b", "count()over()", "count()filter(where 1)"] {
            let many = listed(400, |_| column.to_owned());
            assert_no_more_than_estimated(&format!(
                "create table t (a); create view v as select {many} from t"
            ));
        }
        let unions = vec!["select 1"; 400].join(" union ");
        let rows = listed(2000, |_| "(1)".to_owned());
        for select in [unions, format!("values{rows}")] {
            assert_no_more_than_estimated(&format!("create view v as {select}"));
        }
        for step in [
            "select 1;",
            "values(1);",
            "select raise(ignore);",
            "delete from t;",
            "insert into t values(1);",
            "update t set a=1;",
            "replace into t select a from t;",
            "insert into t values(1)on conflict do nothing;",
            "insert into t values(1),(1),(1),(1);",
        ] {
            let many = step.repeat(500);
            assert_no_more_than_estimated(&format!(
                "create table t (a primary key);
                 create trigger r after insert on t begin {many} end"
            ));
        }
    }

    /// The same for schemas of many small objects, and of tables with many of something.
    #[test]
    fn sqlite_takes_no_more_for_many_objects_than_is_estimated() {
        for object in [
            "create table t_(a)",
            "create table t_(a unique,b unique,c unique)",
            "create table t_(a primary key,b,c)without rowid",
            "create view t_ as select 1",
            "create view t_(a,b,c)as select 1,2,3",
            "create index t_ on t(a)",
            "create index t_ on t(a,a,a,a,a,a,a,a)",
            "create index t_ on t(a+1)",
            "create index t_ on t(a)where a",
            "create trigger t_ delete on t begin select 1;end",
            "create trigger t_ delete on t when 1 begin select 1;end",
            "create trigger t_ update of a,a,a,a on t begin select 1;end",
        ] {
            let many: String =
                (0..300).map(|n| format!("{};", object.replace('_', &n.to_string()))).collect();
            assert_no_more_than_estimated(&format!("create table t (a);{many}"));
        }
        for part in [
            ",a_",
            ",a_ text not null",
            ",a_ default 1",
            ",a_ default(1)",
            ",a_ as(1)",
            ",a_ unique",
            ",a_ references t",
            ",check(a)",
            ",foreign key(a)references t",
            ",constraint b check(a)",
        ] {
            let many: String = (0..500).map(|n| part.replace('_', &n.to_string())).collect();
            assert_no_more_than_estimated(&format!("create table t (a{many})"));
        }
    }

    /// An ordinary schema is not refused for what it does not take.
    #[test]
    fn an_ordinary_schema_is_estimated_at_less_than_twelve_times_what_it_takes() {
        let columns = listed(13, |n| format!("column_{n} text"));
        let members = listed(13, |n| format!("'column_{n}', new.column_{n}"));
        let tables: String = (0..50).map(|n| format!("create table t{n} ({columns});")).collect();
        let triggers: String = (0..50)
            .map(|n| {
                format!(
                    "create trigger r{n} after insert on t{n} begin
                     insert into t0 (column_0) values (json_object({members})); end;"
                )
            })
            .collect();
        for (sql, times) in [(tables.clone(), 12), (tables + &triggers, 5)] {
            let [estimated, used] = sizes(&sql);
            assert!(estimated < used * times, "{used} of {estimated} bytes");
        }
    }
}
