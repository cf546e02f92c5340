//! Commands: what is sent to an aggregate to be decided, and what comes of it.

use serde::Deserialize;
use tidelog_client::{CommandName as AskedName, Events as Asked, Request};
use tidelog_document::WantedEvents;
use tidelog_types::{ErrorCode, Outcome};

use crate::database::Open;
use crate::error::{CommandError, Error};
use crate::events::{Event, events_of};
use crate::receipt::Receipt;

/// What begins the reason of a rejection where a key stands for another command.
const KEY_REUSED: &str = "key reused: ";

/// Which command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandName {
    /// The name of its aggregate.
    pub aggregate: String,
    /// Which of those.
    pub stream: String,
    /// The name of its type.
    pub name: String,
    /// The key that it was sent by.
    pub key: String,
}

/// How a command is sent.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct SendOptions {
    pub(crate) key: Option<String>,
}

impl SendOptions {
    /// What the command is known by, of 1 to 256 bytes: of one stream and one type of command each
    /// key counts once, from whichever device, so that what is sent again is the same command. A
    /// key is free again 24 hours after the end of its command. By default a UUID is drawn.
    pub fn key(key: impl Into<String>) -> Self {
        Self { key: Some(key.into()) }
    }
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandOutcome {
    /// The events that it has recorded, which may be none.
    pub events: Vec<Event>,
}

/// What becomes of a command: of the mutation that sends it, and of itself.
#[derive(Clone, Debug)]
pub struct CommandReceipt {
    of: Open,
    name: CommandName,
    receipt: Receipt,
}

impl CommandReceipt {
    pub(crate) fn new(of: Open, name: CommandName, receipt: Receipt) -> Self {
        Self { of, name, receipt }
    }

    /// The key that it was sent by.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.name.key
    }

    /// Waits until that it is sent is on this device's disk.
    ///
    /// # Errors
    ///
    /// As [`Receipt::durable`].
    pub async fn durable(&self) -> Result<u64, CommandError> {
        self.receipt.durable().await.map_err(|error| self.named(error))
    }

    /// Waits until the authority has received it.
    ///
    /// # Errors
    ///
    /// [`CommandError`] if it was not received.
    pub async fn confirmed(&self) -> Result<u64, CommandError> {
        self.receipt.confirmed().await.map_err(|error| self.named(error))
    }

    /// Waits until somebody has handled it, however long that takes.
    ///
    /// # Errors
    ///
    /// [`CommandError`] if it was not received, or has failed for good.
    pub async fn completed(&self) -> Result<CommandOutcome, CommandError> {
        self.confirmed().await?;
        outcome(&self.of, self.name.clone()).await
    }

    /// That a key was used before has a class of its own.
    fn named(&self, error: Error) -> CommandError {
        match is_key_reused(&error) {
            true => CommandError::KeyReused(self.name.clone()),
            false => CommandError::Call(error),
        }
    }
}

/// Whether a key stands for another command, or an id for another run.
pub(crate) fn is_key_reused(error: &Error) -> bool {
    error.code == ErrorCode::Rejected
        && error.reason.as_ref().is_some_and(|reason| reason.starts_with(KEY_REUSED))
}

#[derive(Deserialize)]
struct OutcomeRow {
    state: String,
    reason: Option<String>,
    first: Option<u64>,
    last: Option<u64>,
}

/// Waits until a command is over, and reads what it has recorded.
pub(crate) async fn outcome(of: &Open, name: CommandName) -> Result<CommandOutcome, CommandError> {
    let CommandName { aggregate, stream, name: command, key } = name.clone();
    let asked = AskedName { aggregate, stream, name: command, key };
    let rows = of.rows(Request::Outcome(asked)).await?;
    let odd = |error: crate::DecodeError| Error::new(ErrorCode::Engine, error.to_string());
    let Some(row) = rows.to::<OutcomeRow>().map_err(odd)?.pop() else {
        return Err(CommandError::Forgotten(name));
    };
    if row.state != "completed" {
        let reason = row.reason.unwrap_or_default();
        return Err(CommandError::Failed { name, reason });
    }
    let (Some(first), Some(last)) = (row.first, row.last) else {
        return Ok(CommandOutcome { events: Vec::new() });
    };
    let mut events = Vec::new();
    let mut after = first.saturating_sub(1);
    while after < last {
        let (aggregate, stream) = (Some(name.aggregate.clone()), Some(name.stream.clone()));
        let wanted = WantedEvents { aggregate, stream, types: Vec::new(), after };
        let asked = Asked { wanted, waits: false, consumer: None };
        let found = events_of(&of.rows(Request::Events(asked)).await?)?;
        let Some(newest) = found.last() else { break };
        after = newest.sequence;
        events.extend(found.into_iter().filter(|event| event.sequence <= last));
    }
    Ok(CommandOutcome { events })
}

/// A command that was not even sent.
pub(crate) fn unsent(code: ErrorCode, message: String) -> Receipt {
    Receipt::failed(Error { outcome: Outcome::None, ..Error::new(code, message) })
}
