//! What can be seen of SQL without running it: calls that depend on the moment, names that are
//! ours.
//!
//! This is for a clear error early. What is hidden from it (in a view, a trigger, a value) is
//! refused when it runs.

use crate::failure::Failure;
use crate::guard::{NONDETERMINISTIC, is_system_name};

const DATE_FUNCTIONS: [&str; 7] =
    ["date", "time", "datetime", "julianday", "unixepoch", "strftime", "timediff"];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'s> {
    /// A name or keyword without quotes.
    Word(&'s str),
    /// A name in double quotes, brackets or backticks; without them, but with doubled quotes.
    Quoted(&'s str),
    /// A string literal, likewise.
    Text(&'s str),
    /// A character of anything else.
    Sign(char),
}

/// Fails where `sql` visibly is not for an app's mutation or migration.
pub(crate) fn check(sql: &str) -> Result<(), Failure> {
    let tokens = tokens(sql);
    for (index, token) in tokens.iter().enumerate() {
        match *token {
            // SQLite takes a string for a name where only a name can stand.
            Token::Word(name) | Token::Quoted(name) | Token::Text(name) if is_system_name(name) => {
                return Err(Failure::forbidden(name));
            }
            Token::Word(word) => check_word(word, &tokens, index)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_word(word: &str, tokens: &[Token<'_>], index: usize) -> Result<(), Failure> {
    let lower = word.to_ascii_lowercase();
    let is_column = index > 0 && tokens[index - 1] == Token::Sign('.');
    if lower.starts_with("current_") && NONDETERMINISTIC.contains(&&*lower) && !is_column {
        return Err(Failure::nondeterministic(lower));
    }
    if tokens.get(index + 1) != Some(&Token::Sign('(')) {
        return Ok(());
    }
    if NONDETERMINISTIC.contains(&&*lower) {
        return Err(Failure::nondeterministic(format!("{lower}()")));
    }
    if DATE_FUNCTIONS.contains(&&*lower) {
        return check_date_call(&lower, &tokens[index + 2..]);
    }
    Ok(())
}

/// `rest` begins behind the opening parenthesis of a call of the date function `name`.
fn check_date_call(name: &str, rest: &[Token<'_>]) -> Result<(), Failure> {
    let mut depth = 1;
    let mut commas = 0;
    let mut size = 0;
    for token in rest {
        match token {
            Token::Sign('(') => depth += 1,
            Token::Sign(')') => depth -= 1,
            Token::Sign(',') if depth == 1 => commas += 1,
            Token::Text(text)
                if ["now", "localtime", "utc"].contains(&&*text.to_ascii_lowercase()) =>
            {
                return Err(Failure::nondeterministic(format!("{name}('{text}')")));
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
        size += 1;
    }
    // Without a time to start from, SQLite starts from now.
    let is_now = if name == "strftime" { commas == 0 && size > 0 } else { size == 0 };
    if depth == 0 && is_now {
        return Err(Failure::nondeterministic(format!("{name}() of now")));
    }
    Ok(())
}

fn tokens(sql: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let (token, size) = match first {
            '-' if rest.starts_with("--") => (None, rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => {
                (None, rest[2..].find("*/").map_or(rest.len(), |end| end + 4))
            }
            '\'' => quoted(rest, '\'', Token::Text),
            '"' | '`' => quoted(rest, first, Token::Quoted),
            '[' => quoted(rest, ']', Token::Quoted),
            _ if is_word(first) => {
                let size = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                (Some(Token::Word(&rest[..size])), size)
            }
            _ if first.is_whitespace() => (None, first.len_utf8()),
            _ => (Some(Token::Sign(first)), first.len_utf8()),
        };
        tokens.extend(token);
        rest = &rest[size..];
    }
    tokens
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
            "",
            "'",
        ] {
            assert_eq!(check(sql), Ok(()), "{sql}");
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
        ] {
            assert!(matches!(check(sql), Err(Failure::Forbidden { .. })), "{sql}");
        }
    }
}
