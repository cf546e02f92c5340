//! Small rules about text, which neither rustfmt nor biome checks.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::repo::Repo;
use crate::run;

const COLUMNS_MAX: usize = 100;

/// Crates in which one seed replays everything.
const PURE: [&str; 11] = [
    "types", "disk", "journal", "pages", "sync", "sqlite", "document", "client", "room", "world",
    "access",
];

/// Clocks, chance, and orders that differ between two runs.
const IMPURE: [&str; 7] =
    ["SystemTime", "Instant", "HashMap", "HashSet", "RandomState", "getrandom", "thread_rng"];

/// Checks every text file that git knows or would take.
pub fn check(repo: &Repo) -> Result<()> {
    let mut git = run::program("git", &repo.root);
    let list = run::stdout_of(git.args(["ls-files", "-z", "-co", "--exclude-standard"]))
        .context("git cannot list the files")?;
    let mut breaches = Vec::new();
    for name in list.split('\0').filter(|name| !name.is_empty()) {
        // A file may be listed and deleted, or be no text.
        if let Ok(text) = fs::read_to_string(repo.root.join(name)) {
            breaches.extend(breaches_in(name, &text));
        }
    }
    if !breaches.is_empty() {
        bail!("{} untidy places:\n{}", breaches.len(), breaches.join("\n"));
    }
    Ok(())
}

fn breaches_in(name: &str, text: &str) -> Vec<String> {
    let extension = Path::new(name).extension().and_then(|it| it.to_str()).unwrap_or_default();
    let mut breaches = Vec::new();
    if name.ends_with("package-lock.json") && text.contains("\"resolved\": \"http") {
        breaches.push(format!("  {name}: names a registry; see .npmrc"));
    }
    let is_source = matches!(extension, "rs" | "ts" | "tsx" | "mjs" | "js" | "css" | "html");
    if !is_source && !matches!(extension, "md" | "toml" | "json" | "sh") {
        return breaches;
    }
    for (index, line) in text.lines().enumerate() {
        let mut say = |what: &str| breaches.push(format!("  {name}:{}: {what}", index + 1));
        let is_code = matches!(extension, "rs" | "ts" | "tsx");
        if is_code && line.chars().count() > COLUMNS_MAX {
            say("longer than 100 columns");
        }
        if extension == "rs" && !is_comment(line) {
            if !name.starts_with("crates/sqlite/") && is_unsafe(line) {
                say("unsafe code outside crate sqlite");
            }
            let room = name.strip_prefix("crates/").and_then(|rest| rest.split('/').next());
            // A bench takes the time: that is what it is for.
            let is_bench = name.contains("/benches/");
            if room.is_some_and(|room| PURE.contains(&room) && !is_bench)
                && let Some(word) = IMPURE.iter().find(|word| has_word(line, word))
            {
                say(&format!("{word}: these crates take time and chance from outside"));
            }
        }
        if is_source && is_loose_end(line) {
            say("a loose end that names no issue");
        }
        if names_a_machine(line) {
            say("a path of somebody's machine");
        }
    }
    breaches
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

fn is_unsafe(line: &str) -> bool {
    let forms = ["{", "fn", "impl", "extern", "trait"];
    line.split("unsafe ").skip(1).any(|rest| forms.iter().any(|form| rest.starts_with(form)))
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |it: Option<char>| it.is_some_and(|it| it.is_alphanumeric() || it == '_');
    line.match_indices(word).any(|(at, _)| {
        !is_part(line[..at].chars().next_back()) && !is_part(line[at + word.len()..].chars().next())
    })
}

/// A marker of unfinished work is fine with the number of an issue: `(#12)`.
fn is_loose_end(line: &str) -> bool {
    let markers = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    markers.iter().any(|marker| {
        line.match_indices(marker).any(|(at, _)| {
            let is_word = |it: Option<char>| it.is_some_and(|it| it.is_alphanumeric() || it == '_');
            let rest = &line[at + marker.len()..];
            !is_word(line[..at].chars().next_back())
                && !is_word(rest.chars().next())
                && !rest.starts_with("(#")
        })
    })
}

fn names_a_machine(line: &str) -> bool {
    let folders = [
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("C:\\", "Users"),
    ];
    folders.iter().any(|folder| {
        line.match_indices(folder).any(|(at, _)| {
            // `~/x/` and `target/x/` are relative; only an absolute path is of a machine.
            !line[..at].ends_with(|it: char| it.is_alphanumeric() || "~._-}>)".contains(it))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loose_end_needs_an_issue() {
        let marker = concat!("TO", "DO");
        assert!(is_loose_end(&format!("// {marker}: later")));
        assert!(!is_loose_end(&format!("// {marker}(#12): later")));
        assert!(!is_loose_end(&format!("let {marker}S = 1;")));
    }

    #[test]
    fn the_pure_crates_keep_no_hash_maps_and_only_sqlite_is_unsafe() {
        let map = "use std::collections::HashMap;";
        assert_eq!(breaches_in("crates/document/src/lib.rs", map).len(), 1);
        assert!(breaches_in("crates/server/src/lib.rs", map).is_empty());
        let block = concat!("let x = unsafe", " { y() };");
        assert_eq!(breaches_in("crates/server/src/lib.rs", block).len(), 1);
        assert!(breaches_in("crates/sqlite/src/lib.rs", block).is_empty());
    }

    #[test]
    fn a_path_of_a_machine_is_noticed() {
        assert!(names_a_machine(concat!("open(\"/ho", "me/ada/x\")")));
        assert!(!names_a_machine("https://example.org/home"));
        assert!(!names_a_machine(concat!("api.example.org/ho", "me/ada")));
    }

    #[test]
    fn a_long_line_is_noticed() {
        let text = "x".repeat(COLUMNS_MAX + 1);
        assert_eq!(breaches_in("a.rs", &text).len(), 1);
        assert!(breaches_in("a.rs", &text[1..]).is_empty());
    }
}
