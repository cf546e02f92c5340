//! What can be seen of SQL without running it: calls that depend on the moment, names that are
//! ours.
//!
//! This is for a clear error early. What is hidden from it (in a view, a trigger, a value) is
//! refused when it runs.

use std::collections::BTreeSet;

use crate::failure::Failure;
use crate::guard::{NONDETERMINISTIC, is_system_name};

const DATE_FUNCTIONS: [&str; 7] =
    ["date", "time", "datetime", "julianday", "unixepoch", "strftime", "timediff"];

/// What SQL is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token<'s> {
    /// A name or keyword without quotes.
    Word(&'s str),
    /// A name in double quotes, brackets or backticks; without them, but with doubled quotes.
    Quoted(&'s str),
    /// A string literal, likewise.
    Text(&'s str),
    /// A character of anything else.
    Sign(char),
}

/// A call, or anything else in parentheses, that is not closed yet.
struct Open {
    /// Which date function is called, if one is.
    date_function: Option<String>,
    commas_count: usize,
    is_empty: bool,
}

/// Fails where `sql` visibly is not for an app's mutation or migration.
pub(crate) fn check(sql: &str) -> Result<(), Failure> {
    let tokens = tokens(sql);
    let mut open: Vec<Open> = Vec::new();
    let mut open_dates_count = 0;
    for (index, token) in tokens.iter().enumerate() {
        if *token == Token::Sign(')') {
            if let Some(Open { date_function: Some(name), commas_count, is_empty }) = open.pop() {
                open_dates_count -= 1;
                check_date_call(&name, commas_count, is_empty)?;
            }
            continue;
        }
        if let Some(around) = open.last_mut() {
            around.is_empty = false;
            around.commas_count += usize::from(*token == Token::Sign(','));
        }
        match *token {
            // SQLite takes a string for a name where only a name can stand.
            Token::Word(name) | Token::Quoted(name) | Token::Text(name) if is_system_name(name) => {
                return Err(Failure::forbidden(name));
            }
            Token::Word(word) => check_word(word, &tokens, index)?,
            Token::Text(text) if open_dates_count > 0 && is_of_the_moment(text) => {
                let name = open.iter().rev().find_map(|call| call.date_function.as_deref());
                let name = name.unwrap_or_default();
                return Err(Failure::nondeterministic(format!("{name}('{text}')")));
            }
            Token::Sign('(') => {
                let date_function = called_date_function(&tokens[..index]);
                open_dates_count += usize::from(date_function.is_some());
                open.push(Open { date_function, commas_count: 0, is_empty: true });
            }
            _ => {}
        }
    }
    Ok(())
}

/// The table that a statement makes of what another one selects, if it does.
pub(crate) fn made_of_select(statement: &str) -> Option<String> {
    let tokens = tokens(statement);
    let is = |index: usize, word: &str| match tokens.get(index) {
        Some(Token::Word(found)) => found.eq_ignore_ascii_case(word),
        _ => false,
    };
    let start = tokens.iter().take_while(|token| **token == Token::Sign(';')).count();
    if !is(start, "create") || !is(start + 1, "table") {
        return None;
    }
    let mut at = start + if is(start + 2, "if") && is(start + 3, "not") { 5 } else { 2 };
    if tokens.get(at + 1) == Some(&Token::Sign('.')) {
        at += 2;
    }
    if !is(at + 1, "as") {
        return None;
    }
    name_of(statement, *tokens.get(at)?).map(|(name, _)| name)
}

/// Where SQL inserts by the places of a table's columns, and not by their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsertByPlace {
    /// The table's name.
    pub table: String,
    /// Where the names would stand, in bytes of the SQL.
    pub at: usize,
}

/// All of them, in their order.
#[must_use]
pub fn inserts_by_place(sql: &str) -> Vec<InsertByPlace> {
    let tokens = tokens(sql);
    let is = |index: usize, word: &str| match tokens.get(index) {
        Some(Token::Word(found)) => found.eq_ignore_ascii_case(word),
        _ => false,
    };
    let places = (0..tokens.len()).filter(|index| is(*index, "into")).map(|into| into + 1);
    let by_place = places.filter_map(|mut at| {
        if tokens.get(at + 1) == Some(&Token::Sign('.')) {
            at += 2;
        }
        let last = if is(at + 1, "as") { at + 2 } else { at };
        let is_by_place = ["values", "select", "with"].iter().any(|word| is(last + 1, word));
        let (table, _) = name_of(sql, *tokens.get(at)?)?;
        let (_, end) = name_of(sql, *tokens.get(last)?)?;
        is_by_place.then_some(InsertByPlace { table, at: end })
    });
    by_place.collect()
}

/// The name that a token of `sql` is, without quotes, and where it ends.
fn name_of(sql: &str, token: Token<'_>) -> Option<(String, usize)> {
    let (Token::Word(name) | Token::Quoted(name) | Token::Text(name)) = token else { return None };
    let start = name.as_ptr() as usize - sql.as_ptr() as usize;
    let end = start + name.len();
    if let Token::Word(_) = token {
        return Some((name.to_owned(), end));
    }
    let quote = sql[..start].chars().last().expect("BUG: quoted without a quote");
    let name = match quote {
        '[' => name.to_owned(),
        _ => name.replace(&format!("{quote}{quote}"), &quote.to_string()),
    };
    Some((name, (end + 1).min(sql.len())))
}

/// Whether a statement looks at rows for what SQLite plans by.
pub(crate) fn is_analyze(statement: &str) -> bool {
    let first = each_token(statement).find(|token| *token != Token::Sign(';'));
    matches!(first, Some(Token::Word(word)) if word.eq_ignore_ascii_case("analyze"))
}

/// Whether SQLite has drawn one of these names of a table's columns. Of those that would have the
/// same name it numbers four, as in `a:1`, and draws the numbers of further ones.
pub(crate) fn has_drawn_name(names: &[String]) -> bool {
    let names: BTreeSet<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    names.iter().any(|name| {
        let base = name.trim_end_matches(|char: char| char.is_ascii_digit());
        let number = &name[base.len()..];
        let is_further = base.ends_with(':') && !matches!(number, "" | "1" | "2" | "3" | "4");
        is_further && (1..=4).all(|number| names.contains(&format!("{base}{number}")))
    })
}

fn check_word(word: &str, tokens: &[Token<'_>], index: usize) -> Result<(), Failure> {
    let lower = word.to_ascii_lowercase();
    if !NONDETERMINISTIC.contains(&&*lower) {
        return Ok(());
    }
    let is_column = index > 0 && tokens[index - 1] == Token::Sign('.');
    if lower.starts_with("current_") && !is_column {
        return Err(Failure::nondeterministic(lower));
    }
    if tokens.get(index + 1) == Some(&Token::Sign('(')) {
        return Err(Failure::nondeterministic(format!("{lower}()")));
    }
    Ok(())
}

/// The date function whose name stands last, before a parenthesis.
fn called_date_function(before: &[Token<'_>]) -> Option<String> {
    let Some(Token::Word(word)) = before.last() else { return None };
    let lower = word.to_ascii_lowercase();
    DATE_FUNCTIONS.contains(&&*lower).then_some(lower)
}

/// Whether a date function takes this for something that is another at another moment or place.
fn is_of_the_moment(text: &str) -> bool {
    ["now", "localtime", "utc"].iter().any(|moment| moment.eq_ignore_ascii_case(text))
}

/// A call of the date function `name` with so many commas between its arguments.
fn check_date_call(name: &str, commas_count: usize, is_empty: bool) -> Result<(), Failure> {
    // Without a time to start from, SQLite starts from now.
    let is_now = if name == "strftime" { commas_count == 0 && !is_empty } else { is_empty };
    if is_now {
        return Err(Failure::nondeterministic(format!("{name}() of now")));
    }
    Ok(())
}

pub(crate) fn tokens(sql: &str) -> Vec<Token<'_>> {
    each_token(sql).collect()
}

/// Without a list of them, which takes many times the bytes of the text.
pub(crate) fn each_token(sql: &str) -> impl Iterator<Item = Token<'_>> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        while let Some(first) = rest.chars().next() {
            let (token, size) = token_at(rest, first);
            rest = &rest[size..];
            if token.is_some() {
                return token;
            }
        }
        None
    })
}

/// The token at the start of `rest`, or nothing where a comment or space stands, and its size.
fn token_at(rest: &str, first: char) -> (Option<Token<'_>>, usize) {
    match first {
        '-' if rest.starts_with("--") => (None, rest.find('\n').unwrap_or(rest.len())),
        '/' if rest.starts_with("/*") => {
            (None, rest[2..].find("*/").map_or(rest.len(), |end| end + 4))
        }
        '\'' => quoted(rest, '\'', Token::Text),
        '"' | '`' => quoted(rest, first, Token::Quoted),
        '[' => quoted(rest, ']', Token::Quoted),
        // To SQLite a byte order mark is space, unless a word has begun before it.
        '\u{feff}' => (None, first.len_utf8()),
        _ if is_word(first) => {
            let size = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            (Some(Token::Word(&rest[..size])), size)
        }
        _ if first.is_whitespace() => (None, first.len_utf8()),
        _ => (Some(Token::Sign(first)), first.len_utf8()),
    }
}

/// Bytes of each string and blob that stands in `sql`.
pub(crate) fn literal_sizes(sql: &str) -> impl Iterator<Item = usize> {
    let mut before = None;
    each_token(sql).filter_map(move |token| match (before.replace(token), token) {
        (Some(Token::Word("x" | "X")), Token::Text(digits)) => Some(digits.len() / 2),
        (_, Token::Text(text)) => Some(text.len()),
        _ => None,
    })
}

/// The most of them; 0 if none stands there.
pub(crate) fn largest_literal(sql: &str) -> usize {
    // Most schemas have none, and each connection that opens looks at all of its schema.
    if sql.contains('\'') { literal_sizes(sql).max().unwrap_or(0) } else { 0 }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

/// The quoted token at the start of `sql`, and its size with quotes.
fn quoted<'s>(
    sql: &'s str,
    end: char,
    token: fn(&'s str) -> Token<'s>,
) -> (Option<Token<'s>>, usize) {
    let mut at = 1;
    loop {
        let Some(found) = sql[at..].find(end) else {
            return (Some(token(&sql[1..])), sql.len());
        };
        at += found + 1;
        let doubled = end != ']' && sql[at..].starts_with(end);
        if !doubled {
            return (Some(token(&sql[1..at - 1])), at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inserted_by_place_is_seen() {
        // A # stands where the names would.
        for sql in [
            "insert into t# values (:id, 0)",
            "INSERT OR REPLACE INTO main . t# SELECT id FROM other",
            "replace into \"t\" as new# values (1)",
            "insert into [t]#values(1)",
            "insert into u (a) values (1); insert into /* here */ t# values (2)",
            "insert into t# with one as (select 1) select * from one",
            "with one as (select 1) insert into 't' as \"a b\"# select * from one",
        ] {
            let at = sql.find('#').expect("where the names would stand");
            let table = "t".to_owned();
            let bare = sql.replace('#', "");
            assert_eq!(inserts_by_place(&bare), [InsertByPlace { table, at }], "{sql}");
        }
        let both = inserts_by_place("insert into \"a\"\"b\" values (1); insert into é values (2)");
        let both: Vec<(&str, usize)> = both.iter().map(|it| (&*it.table, it.at)).collect();
        assert_eq!(both, [("a\"b", 18), ("é", 45)]);
        for sql in [
            "insert into t (id) values (:id)",
            "insert into t as new (id) select id from other on conflict (id) do nothing",
            "insert into t default values",
            "select 'insert into t values (1)' from \"into\"",
            "insert into",
            "update t set id = 1",
        ] {
            assert_eq!(inserts_by_place(sql), [], "{sql}");
        }
    }

    fn is_nondeterministic(sql: &str) -> bool {
        matches!(check(sql), Err(Failure::Nondeterministic { .. }))
    }

    #[test]
    fn what_depends_on_the_moment_is_seen() {
        for sql in [
            "insert into t values (random())",
            "insert into t values (RandomBlob (16))",
            "insert into t values (datetime('now'))",
            "insert into t values (strftime('%s', 'NOW'))",
            "insert into t values (strftime('%s'))",
            "insert into t values (date())",
            "insert into t values (unixepoch(/* nothing */))",
            "insert into t values (datetime(:now / 1000, 'unixepoch', 'localtime'))",
            "create table t (at text default CURRENT_TIMESTAMP)",
            "select total_changes()",
            "select \u{feff}random\n\u{feff}(\u{feff})",
            "select date(\u{feff})",
        ] {
            assert!(is_nondeterministic(sql), "{sql}");
        }
    }

    #[test]
    fn what_only_looks_like_it_is_left_alone() {
        for sql in [
            "select 'random()', \"random\", t.current_date, random from t",
            "select datetime(:now / 1000, 'unixepoch') -- datetime('now')",
            "select 'it''s now', [now], `it``s` /* random() */",
            "insert into log (date, time) values (:date, 'now')",
            "select strftime('%Y', at), date(at, '+1 day') from t",
            "select 'tidelog_', \"_tide",
            "select x\u{feff}_tidelog_applied, random\u{feff}() from t",
            "",
            "'",
        ] {
            assert_eq!(check(sql), Ok(()), "{sql}");
        }
    }

    #[test]
    fn calls_within_calls_are_looked_at_once() {
        let deep = "date(".repeat(400_000);
        assert_eq!(check(&deep), Ok(()), "to refuse that is for SQLite");
        assert!(is_nondeterministic(&format!("{deep}'now'")));
        assert!(is_nondeterministic("select date(max(1, (select 'now')))"));
        assert!(is_nondeterministic("select max(1, date(), 2)"));
        assert_eq!(check("select strftime(max(1, 2), at), date(:at), 'now'"), Ok(()));
    }

    #[test]
    fn literals_are_as_large_as_what_they_stand_for() {
        let sql = "select 'it''s', x'0102' || X'03', \"name\" -- 'none'";
        assert!(literal_sizes(sql).eq([5, 2, 1]));
    }

    #[test]
    fn tables_made_of_a_select_are_seen_with_their_names() {
        for (sql, name) in [
            ("create table t as select 1", "t"),
            (" /* a */ ; CREATE TABLE if not exists main.\"a\"\"b\" As values (1)", "a\"b"),
            ("create table [a[b] as with x as (select 1) select * from x", "a[b"),
            ("create table 'it''s'as select 1", "it's"),
        ] {
            assert_eq!(made_of_select(sql).as_deref(), Some(name), "{sql}");
        }
        for sql in ["create table t (a)", "create view t as select 1", "select 1", "create table"] {
            assert_eq!(made_of_select(sql), None, "{sql}");
        }
    }

    #[test]
    fn our_own_names_are_seen_however_they_are_written() {
        for sql in [
            "select * from _tidelog_applied",
            "select * from main._TideLog_applied",
            "select * from \"_tidelog_applied\"",
            "alter table todo rename to '_tidelog_todo'",
            "select * from [_tidelog_applied",
            "select * from \u{feff}_tidelog_applied",
            "select * from\n\u{feff}\u{feff}[_tidelog_applied]",
        ] {
            assert!(matches!(check(sql), Err(Failure::Forbidden { .. })), "{sql}");
        }
    }
}
