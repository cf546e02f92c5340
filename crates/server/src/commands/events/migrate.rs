//! `tidelog events migrate`: events of older versions are rewritten at the newest one.

use std::path::PathBuf;

use axum::http::Method;
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::super::sender::Sender;
use super::super::{CommandError, say};

/// Flags of `tidelog events migrate`.
#[derive(Args, Clone, Debug)]
pub struct Migrate {
    /// Name of the document
    #[arg(value_name = "DOCUMENT")]
    pub document: String,

    /// Those of this aggregate alone
    #[arg(long, value_name = "NAME")]
    pub aggregate: Option<String>,

    /// Address of the server: <https://sync.example.org>
    #[arg(long, env = "TIDELOG_SERVER", value_name = "URL")]
    pub server: String,

    /// File with a token that has the role admin on the document. Without it, the token is
    /// TIDELOG_TOKEN of the environment; a server with --dev needs none
    #[arg(long, env = "TIDELOG_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Print lines of JSON
    #[arg(long)]
    pub json: bool,
}

impl Migrate {
    /// Has the server migrate them, and prints each time how far it has come.
    pub(super) fn run(&self) -> Result<(), CommandError> {
        let sender = Sender::new(&self.server, self.token_file.as_deref())?;
        let document = utf8_percent_encode(&self.document, NON_ALPHANUMERIC);
        let path = format!("/v1/documents/{document}/events/migrate");
        let (mut events, mut after) = (0, 0);
        loop {
            let what = json!({ "aggregate": &self.aggregate, "after": after }).to_string();
            let (status, answer) = sender.send(Method::POST, &path, what.as_bytes())?;
            let number = |name: &str| answer[name].as_u64().ok_or_else(|| sender.odd(status));
            events += number("events")?;
            let (last, next) = (number("last")?, answer["next"].as_u64());
            match (self.json, next) {
                (true, next) => say(json!({ "events": events, "next": next, "last": last }))?,
                (false, None) => say(format_args!("migrated {events} events"))?,
                (false, Some(next)) => {
                    say(format_args!("migrated {events} events, up to number {next} of {last}"))?
                }
            }
            match next {
                Some(next) => after = next,
                None => return Ok(()),
            }
        }
    }
}
