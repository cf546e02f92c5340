//! `tidelog revoke` and `tidelog forgive`: whose tokens end before they expire, and hold again.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use tidelog_access::{RevocationError, Revocations};

use super::running::Running;
use super::store::hold;
use super::{CommandError, say};
use crate::access::{change_in, forgive, now_s};
use crate::control::{Answered, Asked};

/// Flags of `tidelog revoke`.
#[derive(Args, Clone, Debug)]
pub struct Revoke {
    /// Whose tokens end that were issued by now: `sub`, or a built-in user
    #[arg(value_name = "SUBJECT")]
    pub subject: String,

    /// Folder of the server's store, whether the server runs or not
    #[arg(long, env = "TIDELOG_DATA", value_name = "DIR", default_value = "tidelog-data")]
    pub data: PathBuf,

    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Flags of `tidelog forgive`.
#[derive(Args, Clone, Debug)]
pub struct Forgive {
    /// Whose tokens hold again that were ended by revoke
    #[arg(value_name = "SUBJECT", required_unless_present = "everybody")]
    pub subject: Option<String>,

    /// Tokens hold again that were ended by restore
    #[arg(long, conflicts_with = "subject")]
    pub everybody: bool,

    /// Folder of the server's store, whether the server runs or not
    #[arg(long, env = "TIDELOG_DATA", value_name = "DIR", default_value = "tidelog-data")]
    pub data: PathBuf,

    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, thiserror::Error)]
enum ForgiveError {
    #[error("no tokens of {0} were ended")]
    NotEnded(String),
}

impl Revoke {
    /// Ends the tokens, durably.
    ///
    /// # Errors
    ///
    /// [`CommandError`]; nothing has changed then, unless the answer was lost.
    pub fn run(&self) -> Result<(), CommandError> {
        let subject = self.subject.clone();
        change(&self.data, &Asked::Revoke { subject }, |revoked| {
            revoked.revoke_subject(&self.subject, now_s()).map(|()| true)
        })?;
        match self.json {
            true => say(json!({ "revoked": self.subject })),
            false => say(format_args!("tokens of {} are ended", self.subject)),
        }
    }
}

impl Forgive {
    /// Takes back that the tokens were ended, durably.
    ///
    /// # Errors
    ///
    /// [`CommandError`]; nothing has changed then, unless the answer was lost.
    pub fn run(&self) -> Result<(), CommandError> {
        let subject = self.subject.clone();
        let were_ended = change(&self.data, &Asked::Forgive { subject }, |revoked| {
            Ok(forgive(revoked, self.subject.as_deref()))
        })?;
        let whom = self.subject.as_deref().unwrap_or("everybody");
        match (were_ended, self.json) {
            (false, _) => Err(CommandError::failed(ForgiveError::NotEnded(whom.to_owned()))),
            (true, true) => say(json!({ "forgiven": whom })),
            (true, false) => say(format_args!("tokens of {whom} hold again")),
        }
    }
}

/// Has the server of that folder do it, or does it where none runs.
fn change(
    data: &Path,
    asked: &Asked,
    offline: impl FnOnce(&mut Revocations) -> Result<bool, RevocationError>,
) -> Result<bool, CommandError> {
    let Some(mut running) = Running::of(data)? else {
        // Nobody else writes there meanwhile.
        let _held = hold(data)?;
        return change_in(data, offline).map_err(CommandError::failed);
    };
    match running.ask(asked)? {
        Answered::Changed { changed } => Ok(changed),
        _ => Err(running.odd()),
    }
}
