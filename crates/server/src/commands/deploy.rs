//! `tidelog deploy`: a doctype goes to a server.

use std::path::PathBuf;

use axum::http::{Method, StatusCode};
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tidelog_document::json;
use tidelog_types::limits::DOCTYPE_JSON_SIZE_MAX;

use super::sender::Sender;
use super::{CommandError, read, say};

/// Flags of `tidelog deploy`.
#[derive(Args, Clone, Debug)]
pub struct Deploy {
    /// JSON of the doctype, as `npx tidelog extract` prints it; - reads it from standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Address of the server: <https://sync.example.org>
    #[arg(long, env = "TIDELOG_SERVER", value_name = "URL")]
    pub server: String,

    /// File with a token that has the role admin on *. Without it, the token is TIDELOG_TOKEN of
    /// the environment; a server with --dev needs none
    #[arg(long, env = "TIDELOG_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Deploy nothing: have the server run the migrations on each of its documents, and take them
    /// back. Prints which documents could not be migrated; exit code 1 if there are any
    #[arg(long)]
    pub check: bool,

    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, thiserror::Error)]
enum DeployError {
    #[error("it is not what JSON.stringify makes of a doctype")]
    Doctype(#[source] serde_json::Error),
    #[error("{failed} documents could not be migrated, and nothing was changed")]
    Trial { failed: usize },
}

impl Deploy {
    /// Sends the doctype, and prints what the server knows it by.
    ///
    /// # Errors
    ///
    /// [`CommandError`]; nothing has changed on the server then, unless its answer was lost.
    pub fn run(&self) -> Result<(), CommandError> {
        let sender = Sender::new(&self.server, self.token_file.as_deref())?;
        let bytes = read(&self.file, DOCTYPE_JSON_SIZE_MAX)?;
        let doctype = json::parse(&bytes)
            .map_err(|error| CommandError::failed(DeployError::Doctype(error)))?;
        let name = utf8_percent_encode(&doctype.name, NON_ALPHANUMERIC);
        let path = format!("/v1/doctypes/{name}");
        if self.check {
            return self.try_out(&sender, &path, &bytes);
        }
        let (status, answer) = sender.send(Method::PUT, &path, &bytes)?;
        let is_new = status == StatusCode::CREATED;
        let (name, hash, version) = (&answer["name"], &answer["hash"], &answer["migrations"]);
        if self.json {
            let line = json!({ "name": name, "hash": hash, "version": version, "new": is_new });
            return say(line);
        }
        let what = if is_new { "is deployed" } else { "was deployed before" };
        let [name, hash] = [name, hash].map(|it| it.as_str().unwrap_or_default());
        say(format_args!("doctype {name} {what}: version {version}, hash {hash}"))
    }

    /// Has the server try it, which says each time how far it has come.
    fn try_out(&self, sender: &Sender, path: &str, bytes: &[u8]) -> Result<(), CommandError> {
        let (mut tried, mut failures) = (0, Vec::new());
        let mut query = "?check".to_owned();
        let last = loop {
            let (status, mut answer) =
                sender.send(Method::PUT, &format!("{path}{query}"), bytes)?;
            let odd = || sender.odd(status);
            tried += answer["tried"].as_u64().ok_or_else(odd)?;
            let Value::Array(more) = answer["failures"].take() else { return Err(odd()) };
            failures.extend(more);
            let Some(next) = answer["next"].as_str() else { break answer };
            query = format!("?check&after={}", utf8_percent_encode(next, NON_ALPHANUMERIC));
        };
        let failed = failures.len();
        if self.json {
            let (name, hash, version) = (&last["name"], &last["hash"], &last["migrations"]);
            say(json!({
                "name": name, "hash": hash, "version": version,
                "tried": tried, "failures": failures,
            }))?;
        } else {
            for failure in &failures {
                let [document, reason] =
                    ["document", "reason"].map(|it| failure[it].as_str().unwrap_or_default());
                say(format_args!("{document}: {reason}"))?;
            }
            let name = last["name"].as_str().unwrap_or_default();
            say(format_args!("doctype {name} was tried on {tried} documents: {failed} failures"))?;
        }
        match failed {
            0 => Ok(()),
            _ => Err(CommandError::failed(DeployError::Trial { failed })),
        }
    }
}
