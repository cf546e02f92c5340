//! What may end the process, and is not run for ever.

use std::fmt;

use serde::{Deserialize, Serialize};
use tidelog_document::Doctype;
use tidelog_types::{DocumentKey, EntryId, Position};

/// The reason that a mutation is rejected with which has ended the server.
pub const ENDED_THE_SERVER: &str =
    "the server crashed each time it ran this mutation, so it is not run again";

/// Something that a client sent and that is run: the same thing has the same name when it is sent
/// again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// The document's name.
    pub document: String,
    /// What is run in it.
    pub what: String,
}

impl Suspect {
    pub(super) fn frame(document: &DocumentKey, origin: EntryId) -> Self {
        let EntryId { journal: timeline, life, lsn } = origin;
        let what = format!("frame {lsn} of timeline {timeline} by life {life}");
        Self { document: document.document.clone(), what }
    }

    pub(super) fn seed(document: &DocumentKey, position: Position) -> Self {
        let Position { journal, life, next, .. } = position;
        let what = format!("document {journal} at {next} by life {life}, handed over");
        Self { document: document.document.clone(), what }
    }

    pub(super) fn migrations(document: &DocumentKey, doctype: &Doctype) -> Self {
        let what = format!("migrations of doctype {}", doctype.hash());
        Self { document: document.document.clone(), what }
    }
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.what, self.document)
    }
}

/// Who knows what was being run when a server died.
///
/// An implementation keeps these rules:
///
/// 1. `run` is called at most once, before [`run`](Self::run) returns, and exactly once if that
///    is true.
/// 2. If it is false, the process has died while this was run, and would again.
pub trait Caution: Send + Sync {
    /// Runs what a client sent, and says so; false if it must not be run.
    fn run(&self, suspect: &dyn Fn() -> Suspect, run: &mut dyn FnMut()) -> bool;
}

/// For those who outlive whatever a client may send.
pub(super) struct NoCaution;

impl Caution for NoCaution {
    fn run(&self, _: &dyn Fn() -> Suspect, run: &mut dyn FnMut()) -> bool {
        run();
        true
    }
}

/// The value of a run; `None` if it must not be run.
pub(super) fn cautiously<T>(
    caution: &dyn Caution,
    suspect: impl Fn() -> Suspect,
    mut run: impl FnMut() -> T,
) -> Option<T> {
    let mut value = None;
    let is_run = caution.run(&suspect, &mut || value = Some(run()));
    assert!(is_run == value.is_some(), "BUG: it was run and denied, or neither");
    value
}
