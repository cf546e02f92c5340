//! `tidelog ready`: whether a server serves clients, for whoever starts it and watches over it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::running::Running;
use super::{CommandError, say};
use crate::control::{Answered, Asked};

/// Within which time a server answers that serves anybody: whoever watches over it often looks.
const ANSWER_TAKES: Duration = Duration::from_secs(4);

/// Flags of `tidelog ready`.
#[derive(Args, Clone, Debug)]
pub struct Ready {
    /// Folder of the server's store
    #[arg(long, env = "TIDELOG_DATA", value_name = "DIR", default_value = "tidelog-data")]
    pub data: PathBuf,

    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, thiserror::Error)]
enum ReadyError {
    #[error("no server runs in {0}")]
    NoServer(PathBuf),
}

impl Ready {
    /// Asks the server of that folder.
    ///
    /// # Errors
    ///
    /// [`CommandError::Failed`] if it is not ready, or not there.
    pub fn run(&self) -> Result<(), CommandError> {
        let running = Running::of(&self.data)?;
        let none = || CommandError::failed(ReadyError::NoServer(self.data.clone()));
        let mut running = running.ok_or_else(none)?.within(ANSWER_TAKES)?;
        match (running.ask(&Asked::Ready)?, self.json) {
            (Answered::Ready { ready: true }, true) => say(json!({ "ready": true })),
            (Answered::Ready { ready: true }, false) => say("ready"),
            _ => Err(running.odd()),
        }
    }
}
