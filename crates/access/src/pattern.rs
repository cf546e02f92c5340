//! Which documents a grant is about.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tidelog_types::limits::DOCUMENT_NAME_SIZE_MAX;

use crate::InvalidPattern;

/// A document's name, or a prefix of names that ends in `*`; `*` alone matches every document.
///
/// Names are compared byte by byte. `lists/*` matches `lists/` and `lists/a/b`, but neither `lists`
/// nor `listsx`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Pattern(String);

impl Pattern {
    /// The pattern that `text` spells.
    ///
    /// # Errors
    ///
    /// [`InvalidPattern`] if the name or prefix is longer than [`DOCUMENT_NAME_SIZE_MAX`] bytes, if
    /// it holds a `*` or a control character, or if there is no text at all.
    pub fn new(text: &str) -> Result<Self, InvalidPattern> {
        let name = text.strip_suffix('*').unwrap_or(text);
        let is_odd = |it: char| it == '*' || it.is_control();
        if text.is_empty() || name.len() > DOCUMENT_NAME_SIZE_MAX || name.contains(is_odd) {
            return Err(InvalidPattern);
        }
        Ok(Self(text.to_owned()))
    }

    /// The pattern that matches every document: `*`.
    #[must_use]
    pub fn everything() -> Self {
        Self("*".to_owned())
    }

    /// Whether this is `*` alone.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0 == "*"
    }

    /// Whether the document of this name is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => self.0 == name,
        }
    }

    /// Whether a document can be meant by both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self.0.strip_suffix('*'), other.0.strip_suffix('*')) {
            (Some(own), Some(theirs)) => own.starts_with(theirs) || theirs.starts_with(own),
            (_, None) => self.matches(&other.0),
            (None, _) => other.matches(&self.0),
        }
    }

    /// The pattern as tokens spell it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        Self::new(text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        Self::new(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).expect("a pattern")
    }

    #[test]
    fn patterns_overlap_where_a_name_is_meant_by_both() {
        let both = [("a/*", "a/b"), ("a/*", "a/b*"), ("*", "a"), ("a", "a"), ("a*", "a")];
        let none = [("a/*", "a"), ("a/*", "b/*"), ("a", "b"), ("a/b", "a/c*")];
        for (one, other) in both {
            assert!(pattern(one).overlaps(&pattern(other)), "{one} {other}");
            assert!(pattern(other).overlaps(&pattern(one)), "{other} {one}");
        }
        for (one, other) in none {
            assert!(!pattern(one).overlaps(&pattern(other)), "{one} {other}");
            assert!(!pattern(other).overlaps(&pattern(one)), "{other} {one}");
        }
    }

    #[test]
    fn a_name_matches_itself_alone() {
        assert!(pattern("lists/a").matches("lists/a"));
        for other in ["lists/", "lists/ab", "Lists/a", "lists/a ", "", "*"] {
            assert!(!pattern("lists/a").matches(other), "{other}");
        }
    }

    #[test]
    fn a_prefix_matches_what_begins_with_it() {
        for inside in ["lists/", "lists/a", "lists/a/b", "lists/*"] {
            assert!(pattern("lists/*").matches(inside), "{inside}");
        }
        for outside in ["lists", "listsx", "list", "Lists/a", "", "x/lists/a"] {
            assert!(!pattern("lists/*").matches(outside), "{outside}");
        }
    }

    #[test]
    fn a_star_alone_matches_everything() {
        assert!(Pattern::everything().matches("lists/a"));
        assert!(Pattern::everything().is_everything());
        assert_eq!(pattern("*"), Pattern::everything());
        assert!(!pattern("a*").is_everything());
    }

    #[test]
    fn a_star_anywhere_but_at_the_end_is_refused() {
        for text in ["*a", "a*b", "**", "a**", "*/a", "lists/*/b*"] {
            assert_eq!(Pattern::new(text), Err(InvalidPattern), "{text}");
        }
    }

    #[test]
    fn what_could_be_no_documents_name_is_refused() {
        let longest = "a".repeat(DOCUMENT_NAME_SIZE_MAX);
        assert!(Pattern::new(&longest).is_ok());
        assert!(Pattern::new(&format!("{longest}*")).is_ok());
        for text in ["", "a\n", "\0*", &format!("{longest}a"), &format!("{longest}a*")] {
            assert_eq!(Pattern::new(text), Err(InvalidPattern));
        }
    }
}
