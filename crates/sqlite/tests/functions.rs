//! Which SQL functions mutations and queries may call.
//!
//! Goal: a function that another SQLite, or another setting, brings is looked at before apps have
//! it: whether two runs of a mutation get the same of it, and whether its time grows with the
//! lengths of its arguments and not with the product of them, since nothing ends it. Method:
//! SQLite's own list.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use std::collections::BTreeSet;
use tidelog_sqlite::SystemQueries as _;

use common::Document;
use tidelog_types::Value;

/// SQLite's own that are allowed, with the numbers of their arguments as SQLite tells them: below 0
/// is any number. The times of day and of dates fail by the clock that they ask.
const ALLOWED: &str = "
    ->/2 ->>/2 abs/1 avg/1 char/-1 coalesce/-4 concat/-3 concat_ws/-4 count/0 count/1 cume_dist/0
    current_date/0 current_time/0 current_timestamp/0 date/-1 datetime/-1 dense_rank/0
    first_value/1 format/-1 group_concat/1 group_concat/2 hex/1 if/-4 ifnull/2 iif/-4 json/1
    json_array/-1 json_array_insert/-1 json_array_length/1 json_array_length/2
    json_error_position/1 json_extract/-1 json_group_array/1 json_group_object/2 json_insert/-1
    json_object/-1 json_pretty/1 json_pretty/2 json_quote/1 json_remove/-1 json_replace/-1
    json_set/-1 json_type/1 json_type/2 json_valid/1 json_valid/2 jsonb/1 jsonb_array/-1
    jsonb_array_insert/-1 jsonb_extract/-1 jsonb_group_array/1 jsonb_group_object/2
    jsonb_insert/-1 jsonb_object/-1 jsonb_remove/-1 jsonb_replace/-1 jsonb_set/-1 julianday/-1
    lag/1 lag/2 lag/3 last_insert_rowid/0 last_value/1 lead/1 lead/2 lead/3 length/1 likelihood/2
    likely/1 lower/1 ltrim/1 max/-3 max/1 min/-3 min/1 nth_value/2 ntile/1 nullif/2
    octet_length/1 percent_rank/0 printf/-1 quote/1 rank/0 round/1 round/2 row_number/0 rtrim/1
    sign/1 sqlite_log/2 sqlite_source_id/0 sqlite_version/0 strftime/-1 string_agg/2 substr/2
    substr/3 substring/2 substring/3 subtype/1 sum/1 time/-1 timediff/2 total/1 trim/1 typeof/1
    unhex/1 unicode/1 unistr/1 unistr_quote/1 unixepoch/-1 unlikely/1 upper/1 zeroblob/1";

/// Those of every connection: ours, which take the place of SQLite's own, and `match`, which is
/// there to fail.
const OURS: &str = "
    glob/2 instr/2 json_patch/2 jsonb_patch/2 like/2 like/3 ltrim/2 match/2 replace/3 rtrim/2 trim/2
    unhex/2";

/// SQLite's own that depend on the moment: those of a mutation are ours.
const OF_THE_MOMENT: &str = "
    changes/0 random/0 randomblob/1 sqlite_compileoption_get/1 sqlite_compileoption_used/1
    total_changes/0";

/// Ours, which only a mutation has, and of those one only as an event is inserted.
const REJECT: &str = "reject/1 tidelog_insert_event/4";

const LIST: &str = "select name || '/' || narg, min(builtin) from pragma_function_list group by 1";

fn set(list: &str) -> BTreeSet<String> {
    list.split_whitespace().map(str::to_owned).collect()
}

/// SQLite's own functions in a list, and those of the connection.
fn functions(rows: Vec<Vec<Value>>) -> [BTreeSet<String>; 2] {
    let mut functions = [BTreeSet::new(), BTreeSet::new()];
    for row in rows {
        let [Value::Text(function), Value::Integer(is_builtin)] = &row[..] else {
            panic!("{row:?}")
        };
        functions[usize::from(*is_builtin == 0)].insert(function.clone());
    }
    functions
}

#[track_caller]
fn assert_has(rows: Vec<Vec<Value>>, builtin: &[&str], ours: &[&str]) {
    for (found, expected) in functions(rows).iter().zip([builtin, ours]) {
        let others: Vec<_> =
            found.symmetric_difference(&set(&expected.join(" "))).cloned().collect();
        assert!(others.is_empty(), "{others:?}");
    }
}

#[test]
fn a_mutation_has_the_functions_that_were_looked_at_and_no_other() {
    let mut rows = Vec::new();
    let run = Document::new().write(&mut |transaction| {
        rows = transaction.run_system(LIST, &[])?;
        Ok(())
    });
    run.unwrap();
    assert_has(rows, &[ALLOWED], &[OURS, OF_THE_MOMENT, REJECT]);
}

#[test]
fn a_query_has_the_functions_that_were_looked_at_and_no_other() {
    let rows = Document::new().reader.query_system(LIST, &[]).unwrap();
    assert_has(rows, &[ALLOWED, OF_THE_MOMENT], &[OURS]);
}
