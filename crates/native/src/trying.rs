//! Steps of a run: tried until they come to something, or have failed.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use tidelog_types::limits::{COMMAND_BACKOFF_MS, COMMAND_BACKOFF_MS_MAX, RECORD_SIZE_MAX};
use tidelog_types::shortened;
use tracing::warn;

/// How often a step is tried again, and how long a try may take, where nothing is said of that.
const RETRIES: u32 = 5;
const TIMEOUT: Duration = Duration::from_secs(30);

/// One try: what it comes to, as JSON.
pub(crate) type Try<'s> = Pin<Box<dyn Future<Output = Result<String, Untold>> + Send + 's>>;

/// Why a step has come to nothing: any error, by `?`. It is tried again.
#[derive(Debug)]
pub struct StepError(Box<dyn std::error::Error + Send + Sync>);

impl StepError {
    /// For this reason.
    pub fn new(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for StepError {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

/// Why a try has come to nothing.
pub(crate) enum Untold {
    /// It is worth another one.
    Again(StepError),
    /// It comes to what cannot be recorded, however often it is tried.
    Never(String),
}

/// How a step is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trying {
    pub(crate) retries: u32,
    /// `None` for as long as it likes.
    pub(crate) timeout: Option<Duration>,
}

impl Default for Trying {
    fn default() -> Self {
        Self { retries: RETRIES, timeout: Some(TIMEOUT) }
    }
}

impl Trying {
    /// Tries until something comes of it, as JSON, or the last retry has failed: then why.
    pub(crate) async fn try_often<'s>(
        self,
        step: &str,
        mut once: impl FnMut() -> Try<'s>,
    ) -> Result<String, String> {
        let mut backoff_ms = COMMAND_BACKOFF_MS;
        let mut failures = 0;
        loop {
            let error = match self.try_once(&mut once).await {
                Ok(result) => return Ok(result),
                Err(Untold::Never(reason)) => {
                    warn!(%reason, %step, "a step has failed");
                    return Err(shortened(reason));
                }
                Err(Untold::Again(error)) => error,
            };
            warn!(%error, %step, "a try of a step has failed");
            if failures >= self.retries {
                return Err(shortened(error.to_string()));
            }
            failures += 1;
            tokio::time::sleep(Duration::from_millis(backoff_ms)).await;
            backoff_ms = (2 * backoff_ms).min(COMMAND_BACKOFF_MS_MAX);
        }
    }

    async fn try_once<'s>(self, once: &mut impl FnMut() -> Try<'s>) -> Result<String, Untold> {
        let again = |reason: &str| Err(Untold::Again(StepError::new(reason)));
        // What is called may panic as well as what it gives.
        let tried = AssertUnwindSafe(async { once().await }).catch_unwind();
        let tried = match self.timeout {
            None => Ok(tried.await),
            Some(timeout) => tokio::time::timeout(timeout, tried).await,
        };
        match tried {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => again("it has panicked"),
            Err(_) => again("it has taken too long"),
        }
    }
}

/// What is recorded of a value.
pub(crate) fn json_of(value: &impl serde::Serialize) -> Result<String, String> {
    let json = serde_json::to_string(value)
        .map_err(|error| format!("it comes to what JSON does not take: {error}"))?;
    if json.len() > RECORD_SIZE_MAX {
        let most = RECORD_SIZE_MAX;
        return Err(format!("it comes to more than {most} bytes of JSON: keep less"));
    }
    Ok(json)
}
