//! What a run remembers of its earlier attempts.

use std::collections::HashMap;

use serde::Deserialize;
use tidelog_client::{Records, Request};
use tidelog_types::ErrorCode;

use crate::attempts::GivenRow;
use crate::database::Open;
use crate::error::Error;

/// One record, as the core tells it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct KnownRecord {
    /// Its place in the order in which the run has heard of them.
    pub(crate) record: u64,
    pub(crate) name: String,
    pub(crate) count: u32,
    pub(crate) kind: String,
    /// `started`, `waiting`, `done` or `failed`.
    pub(crate) state: String,
    /// What was done, as text; why it has failed.
    pub(crate) result: Option<String>,
    /// When the run has heard of it, by the authority's clock; `None` where it has not yet.
    pub(crate) time: Option<i64>,
}

impl KnownRecord {
    /// Whether the run has heard what became of it: by this attempt nothing else counts.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "done" | "failed") && self.time.is_some()
    }
}

/// By what a record is found: its name, and how many of that name there were before.
pub(crate) type Known = HashMap<(String, u32), KnownRecord>;

/// All that a run remembers as of this attempt.
pub(crate) async fn read_records(of: &Open, row: &GivenRow) -> Result<Known, Error> {
    let (task, attempt) = (row.number, row.attempt);
    let (mut known, mut after) = (Known::new(), 0);
    loop {
        let rows = of.rows(Request::Records(Records { task, attempt, after })).await?;
        let records: Vec<KnownRecord> = rows
            .to()
            .map_err(|error| Error::new(ErrorCode::Engine, format!("no record: {error}")))?;
        let Some(last) = records.last() else { return Ok(known) };
        after = last.record;
        known.extend(records.into_iter().map(|it| ((it.name.clone(), it.count), it)));
    }
}
