//! `tidelog events replay`: what follows from events is made anew.

use std::path::PathBuf;

use axum::http::Method;
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::super::sender::Sender;
use super::super::{CommandError, say};

/// Flags of `tidelog events replay`.
#[derive(Args, Clone, Debug)]
pub struct Replay {
    /// Name of the document
    #[arg(value_name = "DOCUMENT")]
    pub document: String,

    /// Name of the aggregate whose events are replayed, in all of its streams
    #[arg(long, value_name = "NAME")]
    pub aggregate: String,

    /// Table of the app that is emptied first; may be given more than once
    #[arg(long, value_name = "TABLE", required = true)]
    pub clear: Vec<String>,

    /// Change nothing, and say what would come of it
    #[arg(long)]
    pub dry_run: bool,

    /// Address of the server: <https://sync.example.org>
    #[arg(long, env = "TIDELOG_SERVER", value_name = "URL")]
    pub server: String,

    /// File with a token that has the role admin on the document. Without it, the token is
    /// TIDELOG_TOKEN of the environment; a server with --dev needs none
    #[arg(long, env = "TIDELOG_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

impl Replay {
    /// Has the server do it, and prints what has come of it, table by table.
    pub(super) fn run(&self) -> Result<(), CommandError> {
        let sender = Sender::new(&self.server, self.token_file.as_deref())?;
        let document = utf8_percent_encode(&self.document, NON_ALPHANUMERIC);
        let path = format!("/v1/documents/{document}/events/replay");
        let what = json!({
            "aggregate": &self.aggregate,
            "clear": &self.clear,
            "dry_run": self.dry_run,
        });
        let (status, answer) = sender.send(Method::POST, &path, what.to_string().as_bytes())?;
        if self.json {
            return say(answer);
        }
        let odd = || sender.odd(status);
        let events = answer["events"].as_u64().ok_or_else(odd)?;
        let erased = answer["erased"].as_u64().ok_or_else(odd)?;
        for table in answer["tables"].as_array().ok_or_else(odd)? {
            let name = table["table"].as_str().ok_or_else(odd)?;
            let [before, after] = ["before", "after"].map(|it| table[it].as_u64());
            let (before, after) = before.zip(after).ok_or_else(odd)?;
            say(format_args!("{name}: {before} rows before, {after} after"))?;
        }
        let of_erased = match erased {
            0 => String::new(),
            _ => format!(", and passed over {erased} that were erased"),
        };
        match self.dry_run {
            true => say(format_args!("would replay {events} events{of_erased}")),
            false => say(format_args!("replayed {events} events{of_erased}")),
        }
    }
}
