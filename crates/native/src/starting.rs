//! Runs of workflows: what is started, and what comes of it.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tidelog_client::{CommandName as AskedName, Request};
use tidelog_document::{cancelling, starting};
use tidelog_types::{ErrorCode, Value};

use crate::commands::{is_key_reused, unsent};
use crate::database::{Database, Open, draw_uuid};
use crate::error::{Error, RunError};
use crate::receipt::Receipt;

impl Database {
    /// Starts a run of a workflow: `args` is what serde makes an object of.
    pub fn start(
        &self,
        workflow: &str,
        args: &impl Serialize,
        options: StartOptions,
    ) -> WorkflowReceipt {
        let id = options.id.map_or_else(draw_uuid, Ok);
        let (id, receipt) = match (id, serde_json::to_string(args)) {
            (Ok(id), Ok(args)) => {
                let texts = [("id", &id), ("args", &args)];
                let bound = texts.map(|(name, text)| (name.to_owned(), Value::Text(text.clone())));
                let receipt = self.open.mutate(starting(workflow), bound.into());
                (id, receipt)
            }
            (Err(error), _) => (String::new(), Receipt::failed(error)),
            (Ok(id), Err(error)) => {
                let message = format!("{workflow}: {error}");
                (id, unsent(ErrorCode::MutationArgument, message))
            }
        };
        let name = RunName { workflow: workflow.to_owned(), id };
        WorkflowReceipt::new(self.open.clone(), name, receipt)
    }

    /// Cancels a run: its code hears of it once, and may put right what was done. One that nobody
    /// has begun is over at once, and one that is over stays as it is.
    pub fn cancel(&self, workflow: &str, id: &str) -> Receipt {
        let id = ("id".to_owned(), Value::Text(id.to_owned()));
        self.open.mutate(cancelling(workflow), vec![id])
    }

    /// Waits until a run is over, whoever has started it: what its code has returned.
    ///
    /// # Errors
    ///
    /// [`RunError`] if it has failed or was cancelled, or nobody knows it.
    pub async fn run_outcome(&self, workflow: &str, id: &str) -> Result<Json, RunError> {
        let name = RunName { workflow: workflow.to_owned(), id: id.to_owned() };
        result_of(&self.open, name).await
    }
}

/// Which run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunName {
    /// The name of its workflow.
    pub workflow: String,
    /// Which run of it.
    pub id: String,
}

/// How a run is started.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct StartOptions {
    pub(crate) id: Option<String>,
}

impl StartOptions {
    /// Which run it is, of 1 to 256 bytes: of one workflow each id counts once, from whichever
    /// device, so that what is started again is the same run. An id is free again 24 hours after
    /// the end of its run. By default a UUID is drawn.
    pub fn id(id: impl Into<String>) -> Self {
        Self { id: Some(id.into()) }
    }
}

/// What becomes of a run: of the mutation that starts it, and of itself.
#[derive(Clone, Debug)]
pub struct WorkflowReceipt {
    of: Open,
    name: RunName,
    receipt: Receipt,
}

impl WorkflowReceipt {
    pub(crate) fn new(of: Open, name: RunName, receipt: Receipt) -> Self {
        Self { of, name, receipt }
    }

    /// Which run it is.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.name.id
    }

    /// Waits until that it is started is on this device's disk.
    ///
    /// # Errors
    ///
    /// As [`Receipt::durable`].
    pub async fn durable(&self) -> Result<u64, RunError> {
        self.receipt.durable().await.map_err(|error| self.named(error))
    }

    /// Waits until the authority has received it.
    ///
    /// # Errors
    ///
    /// [`RunError`] if it was not received.
    pub async fn confirmed(&self) -> Result<u64, RunError> {
        self.receipt.confirmed().await.map_err(|error| self.named(error))
    }

    /// Waits until the run is over, however long that takes: what its code has returned.
    ///
    /// # Errors
    ///
    /// [`RunError`] if it was not received, has failed or was cancelled.
    pub async fn completed(&self) -> Result<Json, RunError> {
        self.confirmed().await?;
        result_of(&self.of, self.name.clone()).await
    }

    /// That an id was used before has a class of its own.
    fn named(&self, error: Error) -> RunError {
        match is_key_reused(&error) {
            true => RunError::IdReused(self.name.clone()),
            false => RunError::Call(error),
        }
    }
}

#[derive(Deserialize)]
struct ResultRow {
    state: String,
    reason: Option<String>,
    result: Option<String>,
}

/// Waits until a run is over.
pub(crate) async fn result_of(of: &Open, name: RunName) -> Result<Json, RunError> {
    let RunName { workflow, id } = name.clone();
    let asked = AskedName { aggregate: workflow, stream: id.clone(), name: String::new(), key: id };
    let rows = of.rows(Request::Outcome(asked)).await?;
    let odd = |error: String| RunError::Call(Error::new(ErrorCode::Engine, error));
    let row = rows.to::<ResultRow>().map_err(|error| odd(error.to_string()))?.pop();
    match row {
        None => Err(RunError::Forgotten(name)),
        Some(ResultRow { state, result, .. }) if state == "completed" => {
            let result = result.as_deref().unwrap_or("null");
            serde_json::from_str(result).map_err(|error| odd(error.to_string()))
        }
        Some(ResultRow { state, .. }) if state == "cancelled" => Err(RunError::Cancelled(name)),
        Some(ResultRow { reason, .. }) => {
            Err(RunError::Failed { name, reason: reason.unwrap_or_default() })
        }
    }
}
