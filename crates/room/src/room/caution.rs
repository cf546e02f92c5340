//! What may end the process, and is not run for ever.

use std::fmt;

use serde::{Deserialize, Serialize};
use tidelog_document::{Change, Completion, Doctype};
use tidelog_types::{DocumentKey, EntryId, Position};

/// The reason that a mutation is rejected with which has ended the server.
pub const ENDED_THE_SERVER: &str =
    "the server crashed each time it ran this mutation, so it is not run again";

/// Why a task has failed where recording what it came to has ended the server.
pub(super) const ENDED_BY_COMPLETION: &str =
    "the server crashed each time it recorded what this had come to";

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

    /// What a room decides, where its document stands. What has come of an attempt is the same
    /// wherever that is: it is said again, behind what others have said.
    pub(super) fn change(document: &DocumentKey, change: &Change, at: Position) -> Self {
        let Position { journal, next, .. } = at;
        let kind = match change {
            Change::Complete { completion, .. } => {
                let hash = blake3::hash(&completion.encode()).to_hex();
                let Completion { task, attempt, .. } = completion;
                let what = format!(
                    "what attempt {attempt} at task {task} of document {journal} came to, {hash}"
                );
                return Self { document: document.document.clone(), what };
            }
            Change::Register { .. } | Change::Deregister(_) => "who handles its tasks",
            Change::Dispatch(_) => "who is given which task",
            Change::Erase { .. } => "what is erased",
            Change::Upcast { .. } => "events of older versions",
            Change::Replay(_) => "what follows from its events",
            Change::TakeIn(_) | Change::Archive { .. } => "events that leave a document",
            Change::Append { .. } => "events that an operator appends",
            Change::Intervene(..) => "what an operator does to a command",
        };
        let what = format!("{kind}, document {journal} at {next}");
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
