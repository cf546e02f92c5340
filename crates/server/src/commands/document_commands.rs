//! `tidelog commands`: what an operator does with the commands of a document.

use std::path::PathBuf;

use axum::http::Method;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::sender::{Query, Sender};
use super::{CommandError, say};

/// Flags of `tidelog commands`.
#[derive(Args, Clone, Debug)]
pub struct DocumentCommands {
    /// What to do with them
    #[command(subcommand)]
    pub deed: CommandsDeed,
}

/// What to do with commands.
#[derive(Clone, Debug, Subcommand)]
pub enum CommandsDeed {
    /// Print commands in the order of their receipt, each as a line of JSON
    List(List),
    /// Have a command that has failed given to handlers again
    Retry(Intervene),
    /// Have a command that is not over fail for good: what a handler makes of it counts no longer
    Cancel(Intervene),
}

/// Flags of `tidelog commands list`.
#[derive(Args, Clone, Debug)]
pub struct List {
    /// Name of the document
    #[arg(value_name = "DOCUMENT")]
    pub document: String,

    /// Those in this state alone
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(STATES))]
    pub state: Option<String>,

    /// Those behind this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub after: u64,

    /// Address of the server: <https://sync.example.org>
    #[arg(long, env = "TIDELOG_SERVER", value_name = "URL")]
    pub server: String,

    /// File with a token that has the role read on the document. Without it, the token is
    /// TIDELOG_TOKEN of the environment; a server with --dev needs none
    #[arg(long, env = "TIDELOG_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

const STATES: [&str; 5] = ["received", "started", "stopped", "completed", "failed"];

/// Flags of `tidelog commands retry` and `tidelog commands cancel`.
#[derive(Args, Clone, Debug)]
pub struct Intervene {
    /// Name of the document
    #[arg(value_name = "DOCUMENT")]
    pub document: String,

    /// The command's number, or the name of its stream's aggregate
    #[arg(value_name = "NUMBER|AGGREGATE")]
    pub command: String,

    /// Which of the aggregate's streams, the command's name, and its key
    #[arg(value_name = "STREAM COMMAND KEY", num_args = 0..=3)]
    pub key: Vec<String>,

    /// Address of the server: <https://sync.example.org>
    #[arg(long, env = "TIDELOG_SERVER", value_name = "URL")]
    pub server: String,

    /// File with a token that has handle, or the role admin, on the document. Without it, the token
    /// is TIDELOG_TOKEN of the environment; a server with --dev needs none
    #[arg(long, env = "TIDELOG_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Why nobody knows which command is meant.
#[derive(Debug, thiserror::Error)]
#[error("name a command by its NUMBER, or by AGGREGATE STREAM COMMAND KEY")]
struct Unnamed;

impl DocumentCommands {
    /// Does it, and prints what came of that.
    ///
    /// # Errors
    ///
    /// [`CommandError`]; nothing has changed on the server then, unless its answer was lost.
    pub fn run(&self) -> Result<(), CommandError> {
        match &self.deed {
            CommandsDeed::List(list) => list.run(),
            CommandsDeed::Retry(intervene) => intervene.run("retry", "is given again"),
            CommandsDeed::Cancel(intervene) => intervene.run("cancel", "is cancelled"),
        }
    }
}

impl List {
    fn run(&self) -> Result<(), CommandError> {
        let sender = Sender::new(&self.server, self.token_file.as_deref())?;
        let query = Query::of(&self.document, "commands", &[("state", self.state.as_deref())]);
        sender.print_lines(&query, self.after).map(drop)
    }
}

impl Intervene {
    fn run(&self, deed: &str, done: &str) -> Result<(), CommandError> {
        let named = self.named().ok_or_else(|| CommandError::usage(Unnamed))?.to_string();
        let sender = Sender::new(&self.server, self.token_file.as_deref())?;
        let document = utf8_percent_encode(&self.document, NON_ALPHANUMERIC);
        let path = format!("/v1/documents/{document}/commands/{deed}");
        let (status, answer) = sender.send(Method::POST, &path, named.as_bytes())?;
        let number = answer["number"].as_u64().ok_or_else(|| sender.odd(status))?;
        match self.json {
            true => say(json!({ "number": number })),
            false => say(format_args!("command {number} {done}")),
        }
    }

    fn named(&self) -> Option<Value> {
        match self.key.as_slice() {
            [] => self.command.parse::<u64>().ok().map(|number| json!({ "number": number })),
            [stream, command, key] => Some(json!({
                "aggregate": self.command, "stream": stream, "command": command, "key": key,
            })),
            _ => None,
        }
    }
}
