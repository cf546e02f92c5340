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

/// Something failed, and a [`Report`] has said all about it.
#[derive(Debug)]
pub struct Reported;

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not everything holds")
    }
}

impl std::error::Error for Reported {}

/// Runs steps one after the other and remembers how they went.
#[derive(Default)]
pub struct Report {
    tally: Tally,
    steps: Vec<(String, Duration, Result<Tally, String>)>,
}

impl Report {
    /// A step that either holds or does not. Says which.
    pub fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> bool {
        self.suite(name, || work().map(|()| Tally::default()))
    }

    /// A step that runs tests. Says whether all of them passed.
    pub fn suite(&mut self, name: &str, work: impl FnOnce() -> Result<Tally>) -> bool {
        println!("==> {name}");
        let start = Instant::now();
        let outcome = work();
        let time = start.elapsed();
        let outcome = outcome.map_err(|error| format!("{error:#}"));
        let tally = outcome.as_ref().copied().unwrap_or(Tally { passed: 0, failed: 1 });
        self.tally += tally;
        println!("    {name}: {} in {:.1} s", outcome_text(&outcome), time.as_secs_f64());
        self.steps.push((name.to_owned(), time, outcome));
        tally.failed == 0
    }

    /// The summary. Its last line is `N passed, M failed`, alone, if `counted`.
    ///
    /// # Errors
    ///
    /// If any step failed.
    pub fn finish(self, counted: bool) -> Result<()> {
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
pub fn count_cargo_tests(lines: &[String]) -> Tally {
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
pub fn count_summary(lines: &[String]) -> Tally {
    let tally = |line: &String| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        [passed, "passed,", failed, "failed"] => {
            Some(Tally { passed: passed.parse().ok()?, failed: failed.parse().ok()? })
        }
        _ => None,
    };
    lines.iter().rev().find_map(tally).unwrap_or_default()
}

/// Turns "it exited like that, and counted that" into an outcome: no test at all is a failure, and
/// so is a bad exit that no counted failure explains.
pub fn judge(succeeded: bool, mut tally: Tally) -> Result<Tally> {
    if succeeded && tally == Tally::default() {
        bail!("no test ran");
    }
    if !succeeded && tally.failed == 0 {
        tally.failed = 1;
    }
    Ok(tally)
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
        assert!(judge(true, Tally::default()).is_err());
        assert!(judge(true, Tally { passed: 1, failed: 0 }).is_ok());
    }

    #[test]
    fn a_bad_exit_is_a_failure_even_if_all_counted_tests_passed() {
        let tally = judge(false, Tally { passed: 3, failed: 0 }).expect("it is counted");
        assert_eq!(tally.failed, 1);
    }
}
