//! Source with faults in it, each behind a switch.
//!
//! The function around a fault stands there with it and without, and which of the two is carried
//! out is decided when it is called: so a fault may change statements, expressions, and what is
//! declared. Where functions begin and end is read off the indentation, which the formatters of
//! both languages keep.
//!
//! ```text
//! fn is_due(&self) -> bool {        fn is_due(&self) -> bool {
//!     self.size > 10                    match planted {
//! }                                         Some("crash/due_too_late") => { self.size > 11 }
//!                                           _ => { self.size > 10 }
//!                                       }
//!                                   }
//! ```

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context as _, Result, ensure};

use crate::{Fault, VARIABLE};

/// A source file, and the faults in it.
#[derive(Debug)]
pub struct Source<'a> {
    language: Language,
    text: &'a str,
    /// By the lines of a function's body, where it begins and ends, its faulty versions: the
    /// fault's name, and the body.
    faulty: BTreeMap<(usize, usize), Vec<(String, String)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Rust,
    /// The engine that runs it has a global variable `planted`.
    TypeScript,
}

impl<'a> Source<'a> {
    /// Without a fault.
    #[must_use]
    pub fn new(file: &str, text: &'a str) -> Self {
        let language = if file.ends_with(".ts") { Language::TypeScript } else { Language::Rust };
        Self { language, text, faulty: BTreeMap::new() }
    }

    /// Adds a fault.
    ///
    /// # Errors
    ///
    /// If its lines are not there exactly once, or not in a function.
    pub fn plant(&mut self, name: &str, fault: &Fault) -> Result<()> {
        let Fault { file, from, to, .. } = fault;
        let found = self.text.matches(from.as_str()).count();
        ensure!(found == 1, "{file} has its lines {found} times");
        let (before, _) = self.text.split_once(from.as_str()).expect("BUG: they were found");
        let start = before.matches('\n').count();
        let change = start..start + from.trim_end_matches('\n').matches('\n').count() + 1;
        let lines: Vec<&str> = self.text.lines().collect();
        let body = body_around(self.language, &lines, &change)
            .with_context(|| format!("its lines are in no function of {file}"))?;
        let is_nested = |(start, end): &(usize, usize)| {
            (*start, *end) != (body.start, body.end) && *start < body.end && body.start < *end
        };
        ensure!(!self.faulty.keys().any(is_nested), "it is in a function within one with a fault");

        let broken = self.text.replacen(from.as_str(), to, 1);
        let broken: Vec<&str> = broken.lines().collect();
        let end = broken.len() - (lines.len() - body.end);
        let text = broken[body.start..end].join("\n");
        self.faulty.entry((body.start, body.end)).or_default().push((name.to_owned(), text));
        Ok(())
    }

    /// The text with all faults.
    #[must_use]
    pub fn woven(&self) -> String {
        let lines: Vec<&str> = self.text.lines().collect();
        let (mut woven, mut at) = (Vec::new(), 0);
        for ((start, end), faulty) in &self.faulty {
            woven.push(lines[at..*start].join("\n"));
            woven.push(self.language.choice(faulty, &lines[*start..*end].join("\n")));
            at = *end;
        }
        woven.push(lines[at..].join("\n"));
        woven.join("\n") + "\n"
    }
}

impl Language {
    /// Of these bodies the one whose fault is switched on, or else the sound one.
    fn choice(self, faulty: &[(String, String)], sound: &str) -> String {
        let (begin, end) = match self {
            Self::Rust => {
                let lazy = "std::sync::LazyLock";
                let known = format!("{lazy}::new(|| std::env::var({VARIABLE:?}).ok())");
                let planted = format!("static PLANTED: {lazy}<Option<String>> = {known};");
                (
                    format!("{planted}\nmatch PLANTED.as_deref() {{\n"),
                    format!("_ => {{\n{sound}\n}}\n}}"),
                )
            }
            Self::TypeScript => (String::new(), format!("{{\n{sound}\n}}")),
        };
        let case = |(name, body): &(String, String)| match self {
            Self::Rust => format!("Some({name:?}) => {{\n{body}\n}}\n"),
            Self::TypeScript => {
                let planted = "(globalThis as { planted?: string }).planted";
                format!("if ({planted} === {name:?}) {{\n{body}\n}} else ")
            }
        };
        let cases: String = faulty.iter().map(case).collect();
        begin + &cases + &end
    }

    /// Whether the block that this line opens is a function's body.
    fn opens_function(self, lines: &[&str], at: usize) -> bool {
        let line = lines[at].trim();
        if !line.ends_with('{') {
            return false;
        }
        // What it belongs to may have begun some lines above.
        let is_rest = |line: &str| line.starts_with([')', '{']) || line == "where";
        let same = |above: &usize| indentation(lines[*above]) == indentation(lines[at]);
        let mut head = (0..=at).rev().filter(same).map(|above| lines[above].trim());
        let head = head.find(|line| !is_rest(line)).unwrap_or_default();
        match self {
            Self::Rust => head.split(' ').any(|word| word == "fn"),
            Self::TypeScript => match parent(lines, at) {
                Some(parent) => lines[parent].split(' ').any(|word| word == "class"),
                None => head.split(' ').any(|word| word == "function"),
            },
        }
    }
}

/// Spaces before a line; `None` of one that is empty.
fn indentation(line: &str) -> Option<usize> {
    (!line.trim().is_empty()).then(|| line.len() - line.trim_start().len())
}

/// The nearest line above that has fewer spaces before it.
fn parent(lines: &[&str], at: usize) -> Option<usize> {
    let here = indentation(lines[at])?;
    (0..at).rev().find(|above| indentation(lines[*above]).is_some_and(|there| there < here))
}

/// The lines within the innermost function that has all of the change within.
fn body_around(language: Language, lines: &[&str], change: &Range<usize>) -> Option<Range<usize>> {
    let outermost =
        change.clone().min_by_key(|at| indentation(lines[*at]).unwrap_or(usize::MAX))?;
    let mut opening = parent(lines, outermost);
    while let Some(at) = opening {
        let is_end = |below: &usize| {
            indentation(lines[*below]) == indentation(lines[at])
                && lines[*below].trim_start().starts_with('}')
        };
        // What a `case` begins has no end of its own.
        let end = (at + 1..lines.len()).find(is_end);
        if let Some(end) = end.filter(|end| at < change.start && change.end <= *end)
            && language.opens_function(lines, at)
        {
            return Some(at + 1..end);
        }
        opening = parent(lines, at);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUST: &str = "\
impl Log {
    pub fn is_due<D>(
        &self,
        size: u64,
    ) -> bool
    where
        D: Disk,
    {
        let more = || {
            size > 1
        };

        size > 10 && more()
    }

    fn other(&self) {
        self.work();
    }
}
";

    fn woven(file: &str, text: &str, changes: &[(&str, &str)]) -> Result<String> {
        let mut source = Source::new(file, text);
        for (index, (from, to)) in changes.iter().enumerate() {
            let [file, from, to] = [file, from, to].map(str::to_owned);
            let fault = Fault { file, from, to, noticed_at: None, worlds: None };
            source.plant(&format!("hunt/{index}"), &fault)?;
        }
        Ok(source.woven())
    }

    /// What is left of a woven text when a switch is set, without what chooses.
    fn lines_of(text: &str) -> Vec<&str> {
        text.lines().map(str::trim).collect()
    }

    #[test]
    fn a_function_is_there_with_each_of_its_faults_and_without() {
        let changes = [("size > 10", "size > 11"), ("size > 1\n", "size > 2\n")];
        let woven = woven("a.rs", RUST, &changes).expect("a function");
        let lines = lines_of(&woven);
        let at = |wanted: &str| lines.iter().filter(|line| **line == wanted).count();
        assert_eq!(at("Some(\"hunt/0\") => {"), 1, "{woven}");
        assert_eq!(at("size > 11 && more()"), 1);
        assert_eq!(at("size > 10 && more()"), 2);
        assert_eq!((at("size > 1"), at("size > 2")), (2, 1));
        assert_eq!((at("self.work();"), at("{")), (1, 1), "nothing else has changed");
        assert_eq!(woven.matches('{').count(), woven.matches('}').count());
    }

    #[test]
    fn a_case_of_a_switch_is_in_the_function_around_that() {
        let text = "export class Tab {\n  step(now: number): void {\n    switch (now) {\n\
                    \x20     case 1:\n        this.#stop();\n        break;\n    }\n  }\n}\n";
        let woven = woven("tab.ts", text, &[("this.#stop();", "")]).expect("a method");
        let lines = lines_of(&woven);
        assert_eq!(lines[1], "step(now: number): void {");
        assert_eq!(lines.iter().filter(|line| **line == "switch (now) {").count(), 2);
        assert_eq!(lines.iter().filter(|line| **line == "this.#stop();").count(), 1);
    }

    #[test]
    fn a_method_of_a_class_is_chosen_likewise() {
        let text = "export class Tab {\n  #count = 0;\n\n  step(\n    now: number,\n  ): number {\n\
                    \x20   if (now > 1) {\n      return 1;\n    }\n    return 2;\n  }\n}\n";
        let woven = woven("tab.ts", text, &[("return 1;", "return 3;")]).expect("a method");
        let lines = lines_of(&woven);
        assert_eq!(lines[5], "): number {");
        assert!(lines[6].contains("planted === \"hunt/0\""), "{woven}");
        assert_eq!((lines[8], lines[13]), ("return 3;", "return 1;"));
    }

    #[test]
    fn a_function_of_no_class_is_chosen_however_many_lines_its_head_takes() {
        let text = "export function told(\n  error: Error,\n): Error {\n  return error;\n}\n";
        let woven = woven("call.ts", text, &[("return error", "return none")]).expect("a function");
        let lines = lines_of(&woven);
        assert_eq!((lines[2], lines[4]), ("): Error {", "return none;"), "{woven}");
        assert!(lines[3].contains("planted === \"hunt/0\""), "{woven}");
    }

    #[test]
    fn what_cannot_be_planted_is_said() {
        let why = |change| woven("a.rs", RUST, &[change]).expect_err("no").to_string();
        assert_eq!(why(("nowhere", "")), "a.rs has its lines 0 times");
        assert_eq!(why(("self", "")), "a.rs has its lines 3 times");
        assert_eq!(why(("size: u64", "")), "its lines are in no function of a.rs");
    }
}
