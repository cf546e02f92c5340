//! What goes wrong, as a program is told.

use tidelog_client::CallFailure;
use tidelog_types::{ErrorCode, Outcome};

use crate::commands::CommandName;
use crate::starting::RunName;

/// Why something did not come of what was asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct Error {
    /// Its class, by which a program goes.
    pub code: ErrorCode,
    /// Whether it left something behind.
    pub outcome: Outcome,
    /// What happened and what helps, for a person.
    pub message: String,
    /// Which mutation, where one was rejected.
    pub mutation: Option<String>,
    /// The reason given, where one was rejected.
    pub reason: Option<String>,
}

impl Error {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let outcome = Outcome::None;
        Self { code, outcome, message: message.into(), mutation: None, reason: None }
    }

    /// The engine ended before it had answered, and may have left that behind.
    pub(crate) fn engine_ended(outcome: Outcome) -> Self {
        let message = "the engine has ended: begin another one";
        Self { outcome, ..Self::new(ErrorCode::Engine, message) }
    }

    /// Whether it may go by itself, while somebody waits.
    pub(crate) fn is_passing(&self) -> bool {
        is_passing(self.code)
    }
}

/// Whether what failed so may succeed when it is asked again, without anybody mending anything.
pub(crate) fn is_passing(code: ErrorCode) -> bool {
    use ErrorCode::{Engine, Storage, StorageFull};

    matches!(code, Engine | Storage | StorageFull)
}

impl From<CallFailure> for Error {
    fn from(failure: CallFailure) -> Self {
        let CallFailure { code, outcome, message, mutation, reason, .. } = failure;
        Self { code, outcome, message, mutation, reason }
    }
}

/// Why nothing came of a command, or nobody can tell.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CommandError {
    /// It was not received, or it could not be asked what became of it.
    #[error(transparent)]
    Call(#[from] Error),
    /// Its key stands for a command with other arguments.
    #[error("the key {} stands for another command of {} {}", .0.key, .0.aggregate, .0.stream)]
    KeyReused(CommandName),
    /// It has failed for good.
    #[error("command {} of {} {} has failed: {reason}", name.name, name.aggregate, name.stream)]
    Failed {
        /// Which.
        name: CommandName,
        /// Why, as its handler says.
        reason: String,
    },
    /// It is so long ago that nobody knows what became of it.
    #[error("nobody knows any more what became of command {} of {} {}",
        .0.name, .0.aggregate, .0.stream)]
    Forgotten(CommandName),
}

/// Why nothing came of a run of a workflow, or nobody can tell.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RunError {
    /// It was not received, or it could not be asked what became of it.
    #[error(transparent)]
    Call(#[from] Error),
    /// Its id stands for a run with other arguments.
    #[error("the id {} stands for another run of workflow {}", .0.id, .0.workflow)]
    IdReused(RunName),
    /// It has failed.
    #[error("run {} of workflow {} has failed: {reason}", name.id, name.workflow)]
    Failed {
        /// Which.
        name: RunName,
        /// Why, as its code says.
        reason: String,
    },
    /// It was cancelled.
    #[error("run {} of workflow {} was cancelled", .0.id, .0.workflow)]
    Cancelled(RunName),
    /// It is so long ago that nobody knows what became of it.
    #[error("nobody knows any more what became of run {} of workflow {}", .0.id, .0.workflow)]
    Forgotten(RunName),
}
