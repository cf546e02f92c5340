//! Keeping the states of streams in the document, as JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidelog_document::NewSnapshot;
use tidelog_types::limits::{SNAPSHOT_NAME_SIZE_MAX, SNAPSHOT_SIZE_MAX};

/// How states are kept: by which name, and what JSON is made of them.
pub(crate) struct Keeping<S> {
    pub(crate) name: String,
    write: fn(&S) -> Result<String, serde_json::Error>,
    read: fn(&str) -> Result<S, serde_json::Error>,
}

impl<S: Serialize + DeserializeOwned> Keeping<S> {
    pub(crate) fn new(name: String) -> Self {
        Self { name, write: serde_json::to_string, read: |json| serde_json::from_str(json) }
    }
}

impl<S> Keeping<S> {
    /// What is wrong with its name.
    pub(crate) fn flaw(&self) -> Option<String> {
        let is_name = (1..=SNAPSHOT_NAME_SIZE_MAX).contains(&self.name.len());
        let flaw = format!("a snapshot has a name of 1 to {SNAPSHOT_NAME_SIZE_MAX} bytes");
        (!is_name).then_some(flaw)
    }

    /// What is kept of a state, or why nothing is.
    pub(crate) fn write(&self, state: &S) -> Result<NewSnapshot, String> {
        let json = (self.write)(state).map_err(|error| error.to_string())?;
        if json.len() > SNAPSHOT_SIZE_MAX {
            let (size, most) = (json.len(), SNAPSHOT_SIZE_MAX);
            return Err(format!("a state of {size} bytes is not kept: {most} are, at most"));
        }
        (self.read)(&json).map_err(|error| format!("serde would not read it again: {error}"))?;
        Ok(NewSnapshot { name: self.name.clone(), state: json })
    }

    /// The state that was kept. `None` where that is of another shape.
    pub(crate) fn read(&self, json: &str) -> Option<S> {
        (self.read)(json).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct State {
        sum: f64,
        note: String,
    }

    fn state(sum: f64, size: usize) -> State {
        State { sum, note: "x".repeat(size) }
    }

    #[test]
    fn a_state_comes_back_as_it_was() {
        let keeping = Keeping::new("order-1".to_owned());
        let kept = keeping.write(&state(1.5, 3)).expect("kept");
        assert_eq!(kept.name, "order-1");
        assert_eq!(keeping.read(&kept.state), Some(state(1.5, 3)));
        assert_eq!(keeping.read(r#"{"sum":"1.5"}"#), None);
    }

    #[test]
    fn what_would_not_come_back_is_not_kept() {
        let keeping = Keeping::new("order-1".to_owned());
        let odd = keeping.write(&state(f64::NAN, 0)).expect_err("no number");
        assert!(odd.contains("read it again"), "{odd}");
        let large = keeping.write(&state(0.0, SNAPSHOT_SIZE_MAX)).expect_err("too large");
        assert!(large.contains("262144 are, at most"), "{large}");
    }

    #[test]
    fn a_name_has_1_to_64_bytes() {
        let flaw = |size| Keeping::<State>::new("n".repeat(size)).flaw();
        assert_eq!([0, 1, 64, 65].map(|size| flaw(size).is_some()), [true, false, false, true]);
    }
}
