//! SQLite is compiled and set up as `flags.rs` says.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::Document;
use tidelog_sqlite::{SystemQueries as _, flags};
use tidelog_types::Value;

#[test]
fn the_flags_that_cargo_passes_are_those_of_the_crate() {
    let config =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.cargo/config.toml"))
            .unwrap();
    for variable in ["LIBSQLITE3_FLAGS", "SQLITE_WASM_RS_FLAGS"] {
        let (_, after) = config.split_once(&format!("\n{variable} = \"\"\"\n")).unwrap();
        let (list, _) = after.split_once("\"\"\"").unwrap();
        let list: Vec<&str> = list.split_whitespace().filter(|word| *word != "\\").collect();
        assert_eq!(list, flags::FLAGS, "{variable}");
    }
    for variable in ["HOST_CFLAGS", "TARGET_CFLAGS"] {
        let line = format!("{variable} = \"{}\"", flags::COMPILER_FLAGS.join(" "));
        assert!(config.lines().any(|it| it == line), "{line}");
    }
}

#[test]
fn sqlite_is_compiled_with_these_options() {
    assert_eq!(flags::compile_options(), flags::COMPILE_OPTIONS);
    assert_eq!(flags::version(), flags::VERSION);
}

#[test]
fn a_connection_is_set_up_alike_whether_compiled_so_or_told_so() {
    let mut document = Document::new();
    let settings = [
        ("foreign_keys", 1),
        ("secure_delete", 1),
        ("trusted_schema", 0),
        ("synchronous", 0),
        ("cache_spill", 0),
        ("cell_size_check", 1),
        ("page_size", 4096),
        ("cache_size", -2000),
        ("recursive_triggers", 0),
    ];
    document.migrate("create table t (a)");
    document
        .write(&mut |tx| {
            for (name, value) in settings {
                let rows = tx.run_system(&format!("pragma {name}"), &[])?;
                assert_eq!(rows, [[Value::Integer(value)]], "{name}");
            }
            let rows = tx.run_system("pragma journal_mode", &[])?;
            assert_eq!(rows, [[common::text("memory")]]);
            Ok(())
        })
        .unwrap();
    let rows = document.reader.query_system("pragma query_only", &[]).unwrap();
    assert_eq!(rows, [[Value::Integer(1)]]);
}
