//! What the person at the terminal, and CI, are told: steps, times and counts.

use std::fmt;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Tests that ran. A step that is no test and fails counts as one failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many held.
    pub passed: u64,
    /// How many did not.
    pub failed: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// What a suite came to.
#[derive(Debug, Default)]
pub struct Outcome {
    tally: Tally,
    /// What it said of each test that failed.
    failures: Vec<String>,
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.tally += other.tally;
        self.failures.extend(other.failures);
    }
}

/// Something failed, and a [`Report`] has said all about it.
#[derive(Debug)]
pub struct Reported;

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not everything holds")
    }
}

impl std::error::Error for Reported {}

/// So many lines of each suite are said again at the end.
const MAX_FAILURE_LINES: usize = 60;

/// Runs steps one after the other and remembers how they went.
#[derive(Default)]
pub struct Report {
    tally: Tally,
    steps: Vec<(String, Duration, Result<Tally, String>)>,
    failures: Vec<String>,
}

impl Report {
    /// A step that either holds or does not. Says which.
    pub fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> bool {
        self.suite(name, || work().map(|()| Outcome::default()))
    }

    /// A step that runs tests. Says whether all of them passed.
    pub fn suite(&mut self, name: &str, work: impl FnOnce() -> Result<Outcome>) -> bool {
        println!("==> {name}");
        let start = Instant::now();
        let outcome = work();
        let time = start.elapsed();
        let outcome = match outcome {
            Ok(Outcome { tally, failures }) => {
                self.remember(name, failures);
                Ok(tally)
            }
            Err(error) => {
                let text = format!("{error:#}");
                self.remember(name, text.lines().skip(1).map(str::to_owned).collect());
                Err(text)
            }
        };
        let tally = outcome.as_ref().copied().unwrap_or(Tally { passed: 0, failed: 1 });
        self.tally += tally;
        println!("    {name}: {} in {:.1} s", outcome_text(&outcome), time.as_secs_f64());
        self.steps.push((name.to_owned(), time, outcome));
        tally.failed == 0
    }

    fn remember(&mut self, name: &str, failures: Vec<String>) {
        if !failures.is_empty() {
            let left = failures.len().saturating_sub(MAX_FAILURE_LINES);
            self.failures.push(format!("==> what failed of {name}"));
            self.failures.extend(failures.into_iter().take(MAX_FAILURE_LINES));
            if left > 0 {
                self.failures.push(format!("    and {left} lines more, above"));
            }
        }
    }

    /// The summary: what failed, so that whoever sees the end alone sees why; then each step. Its
    /// last line is `N passed, M failed`, alone, if `counted`.
    ///
    /// # Errors
    ///
    /// If any step failed.
    pub fn finish(self, counted: bool) -> Result<()> {
        for line in &self.failures {
            println!("{line}");
        }
        println!();
        for (name, time, outcome) in &self.steps {
            let text = outcome_text(outcome);
            let first_line = text.lines().next().unwrap_or_default();
            println!("{:>8.1} s  {name}: {first_line}", time.as_secs_f64());
        }
        if counted {
            println!();
            println!("{}", self.tally);
        }
        if self.tally.failed > 0 { Err(Reported.into()) } else { Ok(()) }
    }
}

fn outcome_text(outcome: &Result<Tally, String>) -> String {
    match outcome {
        Ok(tally) if *tally == Tally::default() => "ok".to_owned(),
        Ok(tally) => tally.to_string(),
        Err(error) => format!("FAILED: {error}"),
    }
}

/// Sums the lines `test result: ok. 5 passed; 0 failed; ...` of cargo and of wasm-bindgen's runner.
fn count_cargo_tests(lines: &[String]) -> Tally {
    let mut tally = Tally::default();
    for line in lines {
        let Some((_, result)) = line.split_once("test result: ") else {
            continue;
        };
        let words: Vec<&str> = result.split_whitespace().collect();
        for pair in words.windows(2) {
            match pair[1] {
                "passed;" => tally.passed += pair[0].parse().unwrap_or(0),
                "failed;" => tally.failed += pair[0].parse().unwrap_or(0),
                _ => {}
            }
        }
    }
    tally
}

/// Reads the summary of `node --test`: lines like `# pass 5` or `ℹ pass 5`, the last of each.
pub fn count_node_tests(lines: &[String]) -> Tally {
    let last = |name: &str| {
        let number = |line: &String| {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["#" | "ℹ", word, number] if *word == name => number.parse::<u64>().ok(),
                _ => None,
            }
        };
        lines.iter().rev().find_map(number).unwrap_or(0)
    };
    Tally { passed: last("pass"), failed: last("fail") + last("cancelled") }
}

/// Reads the last line that is `N passed, M failed` and nothing else, as the simulator ends.
fn count_summary(lines: &[String]) -> Tally {
    let tally = |line: &String| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        [passed, "passed,", failed, "failed"] => {
            Some(Tally { passed: passed.parse().ok()?, failed: failed.parse().ok()? })
        }
        _ => None,
    };
    lines.iter().rev().find_map(tally).unwrap_or_default()
}

/// The lines in which cargo and wasm-bindgen's runner tell of tests that failed: from `failures:`
/// to the next `test result:`.
fn failures_of_cargo(lines: &[String]) -> Vec<String> {
    let mut is_told = false;
    let mut failures = Vec::new();
    for line in lines {
        is_told = (is_told || line == "failures:") && !line.starts_with("test result:");
        if is_told && !line.is_empty() {
            failures.push(line.clone());
        }
    }
    failures
}

/// The lines in which `node --test` tells again of tests that failed, at its end.
fn failures_of_node(lines: &[String]) -> Vec<String> {
    let from = lines.iter().rposition(|line| line.ends_with("failing tests:"));
    let told = lines[from.unwrap_or(lines.len())..].iter().skip(1);
    told.filter(|line| !line.is_empty()).cloned().collect()
}

/// The last lines, where the end tells what failed.
pub fn last_lines(lines: &[String]) -> Vec<String> {
    lines[lines.len().saturating_sub(30)..].to_vec()
}

/// Turns "it exited like that, and counted that" into an outcome: no test at all is a failure, and
/// so is a bad exit that no counted failure explains.
pub fn judge(
    succeeded: bool,
    mut tally: Tally,
    failures: impl FnOnce() -> Vec<String>,
) -> Result<Outcome> {
    if succeeded && tally == Tally::default() {
        bail!("no test ran");
    }
    if !succeeded && tally.failed == 0 {
        tally.failed = 1;
    }
    let failures = if tally.failed > 0 { failures() } else { Vec::new() };
    Ok(Outcome { tally, failures })
}

/// [`judge`]s a run of cargo's tests, or of wasm-bindgen's.
pub fn judge_cargo(succeeded: bool, lines: &[String]) -> Result<Outcome> {
    judge(succeeded, count_cargo_tests(lines), || failures_of_cargo(lines))
}

/// [`judge`]s a run of `node --test`.
pub fn judge_node(succeeded: bool, lines: &[String]) -> Result<Outcome> {
    judge(succeeded, count_node_tests(lines), || failures_of_node(lines))
}

/// [`judge`]s a run that ends with `N passed, M failed`.
pub fn judge_summary(succeeded: bool, lines: &[String]) -> Result<Outcome> {
    judge(succeeded, count_summary(lines), || last_lines(lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn results_of_all_test_binaries_are_summed() {
        let tally = count_cargo_tests(&lines(
            "running 2 tests\n\
             test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
             test result: FAILED. 3 passed; 4 failed; 0 ignored",
        ));
        assert_eq!(tally.to_string(), "5 passed, 4 failed");
    }

    #[test]
    fn node_is_counted_by_its_summary() {
        let tally = count_node_tests(&lines("✔ one (5ms)\nℹ tests 3\nℹ pass 2\nℹ fail 1"));
        assert_eq!(tally.to_string(), "2 passed, 1 failed");
    }

    #[test]
    fn the_simulator_is_counted_by_its_last_line() {
        let tally = count_summary(&lines("seed 7 failed\n499 passed, 1 failed"));
        assert_eq!(tally.to_string(), "499 passed, 1 failed");
        assert_eq!(count_summary(&lines("all is well")), Tally::default());
    }

    #[test]
    fn a_run_without_tests_has_failed() {
        assert!(judge(true, Tally::default(), Vec::new).is_err());
        assert!(judge(true, Tally { passed: 1, failed: 0 }, Vec::new).is_ok());
    }

    #[test]
    fn a_bad_exit_is_a_failure_even_if_all_counted_tests_passed() {
        let tally = Tally { passed: 3, failed: 0 };
        let outcome = judge(false, tally, Vec::new).expect("it is counted");
        assert_eq!(outcome.tally.failed, 1);
    }

    #[test]
    fn what_failed_is_said_again() {
        let cargo = lines(
            "..F\n\nfailures:\n\n---- a stdout ----\nleft: 1\n\nfailures:\n    a\n\n\
             test result: FAILED. 2 passed; 1 failed\n\nrunning 1 test",
        );
        let told = ["failures:", "---- a stdout ----", "left: 1", "failures:", "    a"];
        assert_eq!(failures_of_cargo(&cargo), told);

        let node = lines("✖ one (5ms)\nℹ fail 1\n\n✖ failing tests:\n\ntest at a:1\n✖ one (5ms)");
        assert_eq!(failures_of_node(&node), ["test at a:1", "✖ one (5ms)"]);
        assert!(failures_of_node(&lines("ℹ fail 0")).is_empty());

        let mut report = Report::default();
        let many = vec!["x".to_owned(); MAX_FAILURE_LINES + 2];
        report.suite("s", || judge(false, Tally::default(), || many));
        assert_eq!(report.failures.len(), MAX_FAILURE_LINES + 2);
        assert_eq!(report.failures.last().unwrap(), "    and 2 lines more, above");
    }
}
