//! What a bench says to `npm run bench`, beside what it prints for people.

/// Says a figure, as a line of JSON, if the bench was asked for these by `--json`.
pub fn say(measure: &str, unit: &str, median: f64) {
    if std::env::args().any(|it| it == "--json") {
        println!(r#"{{"measure":"{measure}","unit":"{unit}","median":{median}}}"#);
    }
}
