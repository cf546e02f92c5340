//! What a bench prints: our time beside that of the raw calls, measured in turn.

use std::time::Duration;

use criterion::Criterion;

/// The rows of one bench.
#[derive(Default)]
pub struct Table(Vec<Row>);

struct Row {
    what: String,
    ours: String,
    raw: String,
    ratio: Option<f64>,
    goal: String,
    is_met: Option<bool>,
}

/// The one in the middle.
pub fn median(times: &mut [Duration]) -> Duration {
    quantile(times, 0.5)
}

/// The time that this share of them does not exceed.
pub fn quantile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share) as usize]
}

/// Settings for runs that take milliseconds each.
pub fn criterion() -> Criterion {
    let times = (Duration::from_millis(500), Duration::from_secs(3));
    Criterion::default().sample_size(20).warm_up_time(times.0).measurement_time(times.1)
}

impl Table {
    /// Measures both, one after the other each time; each says itself how long it took. `goal` is
    /// how many times as long ours may take.
    pub fn compare(
        &mut self,
        criterion: &mut Criterion,
        what: &str,
        goal: Option<f64>,
        mut ours: impl FnMut() -> Duration,
        mut raw: impl FnMut() -> Duration,
    ) {
        let (mut of_ours, mut of_raw) = (Vec::new(), Vec::new());
        criterion.bench_function(what, |bencher| {
            bencher.iter_custom(|count| {
                let mut total = Duration::ZERO;
                for _ in 0..count {
                    let took = ours();
                    of_ours.push(took);
                    of_raw.push(raw());
                    total += took;
                }
                total
            });
        });
        self.add(what, goal, median(&mut of_ours), median(&mut of_raw));
    }

    /// Adds what was measured otherwise.
    pub fn add(&mut self, what: &str, goal: Option<f64>, ours: Duration, raw: Duration) {
        let ratio = ours.as_secs_f64() / raw.as_secs_f64();
        self.0.push(Row {
            what: what.to_owned(),
            ours: format!("{ours:.2?}"),
            raw: format!("{raw:.2?}"),
            ratio: Some(ratio),
            goal: goal.map(|goal| format!("<= {goal}")).unwrap_or_default(),
            is_met: goal.map(|goal| ratio <= goal),
        });
    }

    /// Adds a figure that has to stay below a bound.
    pub fn bound(&mut self, what: &str, ours: String, raw: String, goal: String, is_met: bool) {
        let (what, is_met) = (what.to_owned(), Some(is_met));
        self.0.push(Row { what, ours, raw, ratio: None, goal, is_met });
    }

    /// Prints all rows.
    pub fn print(&self, title: &str) {
        let head = ["what", "ours", "raw", "ratio", "goal", ""].map(str::to_owned);
        let rows = self.0.iter().map(|row| {
            let ratio = row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            let met = row.is_met.map_or("", |is_met| if is_met { "met" } else { "MISSED" });
            let cells = [&row.what, &row.ours, &row.raw, &ratio, &row.goal].map(String::clone);
            let [what, ours, raw, ratio, goal] = cells;
            [what, ours, raw, ratio, goal, met.to_owned()]
        });
        let rows: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        println!("\n{title}");
        for row in &rows {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                format!("{cell:<width$}", width = width(column).unwrap_or_default())
            });
            println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
        }
    }
}
