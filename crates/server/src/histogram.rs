//! How long something took, as Prometheus wants to be told.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds: from a step of a room to a disk that hangs. What
/// `docs/deploy/alerts.yml` asks for is among them: in between, Prometheus guesses.
const BOUNDS_US: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_000_000, 10_000_000,
];

/// Counts how long something took, from any thread.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// Of each bucket, what is in none before it; behind them, what is in none.
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub(crate) fn note(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound_us| *bound_us < took_us);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(took_us, Ordering::Relaxed);
    }

    /// As Prometheus reads it: each bucket counts those before it too.
    pub(crate) fn write(&self, text: &mut String, name: &str, help: &str) {
        let name = format!("tidelog_{name}_seconds");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
        let bounds = BOUNDS_US.map(|bound_us| (bound_us as f64 / 1e6).to_string());
        let mut count = 0;
        for (index, noted) in self.counts.iter().enumerate() {
            count += noted.load(Ordering::Relaxed);
            let bound = bounds.get(index).map_or("+Inf", String::as_str);
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let sum_s = self.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(text, "{name}_sum {sum_s}\n{name}_count {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_counts_what_took_no_longer() {
        let histogram = Histogram::default();
        for took_us in [0, 100, 101, 1_000_000, 60_000_000] {
            histogram.note(Duration::from_micros(took_us));
        }
        let mut text = String::new();
        histogram.write(&mut text, "flush", "Flushes.");
        for line in [
            "# TYPE tidelog_flush_seconds histogram",
            "tidelog_flush_seconds_bucket{le=\"0.0001\"} 2",
            "tidelog_flush_seconds_bucket{le=\"0.00025\"} 3",
            "tidelog_flush_seconds_bucket{le=\"1\"} 4",
            "tidelog_flush_seconds_bucket{le=\"10\"} 4",
            "tidelog_flush_seconds_bucket{le=\"+Inf\"} 5",
            "tidelog_flush_seconds_sum 61.000201",
            "tidelog_flush_seconds_count 5",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} in {text}");
        }
    }
}
