//! `tidelog deploy`: a doctype goes to a server.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, Uri, header};
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tidelog_types::limits::{DOCTYPE_JSON_SIZE_MAX, TOKEN_SIZE_MAX};
use ureq::Agent;

use super::{CommandError, read, read_text, say};
use crate::deployments::json;

/// For how long an answer is waited for.
const ANSWER_TAKES: Duration = Duration::from_secs(120);
/// Bytes of an answer that are read.
const ANSWER_SIZE_MAX: u64 = 4 * 1024 * 1024;

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
    #[error("{0} is no address of a server: write https://HOST, with a port if it has one")]
    Address(String),
    #[error("TIDELOG_TOKEN or the file with the token has no token in it")]
    Token,
    #[error("it is not what JSON.stringify makes of a doctype")]
    Doctype(#[source] serde_json::Error),
    #[error("the server at {server} does not answer")]
    Connection {
        server: String,
        #[source]
        source: ureq::Error,
    },
    #[error("the server refuses it ({status}): {reason}")]
    Refused { status: StatusCode, reason: String },
    #[error("{failed} documents could not be migrated, and nothing was changed")]
    Trial { failed: usize },
    #[error("{server} answers ({status}) as no server of Tidelog does")]
    Odd { server: String, status: StatusCode },
}

impl Deploy {
    /// Sends the doctype, and prints what the server knows it by.
    ///
    /// # Errors
    ///
    /// [`CommandError`]; nothing has changed on the server then, unless its answer was lost.
    pub fn run(&self) -> Result<(), CommandError> {
        let server = address(&self.server).map_err(CommandError::usage)?;
        let token = self.token()?;
        let bytes = read(&self.file, DOCTYPE_JSON_SIZE_MAX)?;
        let doctype = json::parse(&bytes)
            .map_err(|error| CommandError::failed(DeployError::Doctype(error)))?;
        let name = utf8_percent_encode(&doctype.name, NON_ALPHANUMERIC);
        let sender = Sender { server, token };
        let path = format!("/v1/doctypes/{name}");
        if self.check {
            return self.try_out(&sender, &path, &bytes);
        }
        let (status, answer) = sender.put(&path, &bytes)?;
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
            let (status, mut answer) = sender.put(&format!("{path}{query}"), bytes)?;
            let odd = || {
                let server = sender.server.clone();
                CommandError::failed(DeployError::Odd { server, status })
            };
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

    fn token(&self) -> Result<Option<HeaderValue>, CommandError> {
        let text = match &self.token_file {
            Some(path) => read_text(path, TOKEN_SIZE_MAX)?,
            None => match std::env::var("TIDELOG_TOKEN") {
                Ok(token) => token.trim().to_owned(),
                Err(std::env::VarError::NotPresent) => return Ok(None),
                Err(_) => return Err(CommandError::usage(DeployError::Token)),
            },
        };
        let value = HeaderValue::from_str(&format!("Bearer {text}"));
        match value {
            Ok(mut value) if !text.is_empty() => {
                value.set_sensitive(true);
                Ok(Some(value))
            }
            _ => Err(CommandError::usage(DeployError::Token)),
        }
    }
}

/// Who sends something to a server.
struct Sender {
    server: String,
    token: Option<HeaderValue>,
}

impl Sender {
    /// Sends these bytes of JSON; gives what the server says if it takes them.
    fn put(&self, path: &str, bytes: &[u8]) -> Result<(StatusCode, Value), CommandError> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A token goes nowhere but where it was meant to.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(ANSWER_TAKES));
        let mut request = Agent::from(config.build())
            .put(format!("{}{path}", self.server))
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let no_answer = |source| {
            let server = self.server.clone();
            CommandError::failed(DeployError::Connection { server, source })
        };
        let mut response = request.send(bytes).map_err(no_answer)?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(ANSWER_SIZE_MAX);
        let body = body.read_to_vec().map_err(no_answer)?;
        if status.is_success() {
            let answer = serde_json::from_slice(&body).ok().filter(Value::is_object);
            let server = self.server.clone();
            let odd = || CommandError::failed(DeployError::Odd { server, status });
            return Ok((status, answer.ok_or_else(odd)?));
        }
        let reason = String::from_utf8_lossy(&body).trim().to_owned();
        Err(CommandError::failed(DeployError::Refused { status, reason }))
    }
}

/// The address without a slash behind it. What `open` is given is understood too.
fn address(text: &str) -> Result<String, DeployError> {
    let wrong = || DeployError::Address(text.to_owned());
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let scheme = match uri.scheme_str() {
        Some("http" | "ws") => "http",
        Some("https" | "wss") => "https",
        _ => return Err(wrong()),
    };
    let authority = uri.authority().map(|it| it.as_str()).unwrap_or_default();
    // A password there would be seen by everybody on the machine.
    if authority.is_empty() || authority.contains('@') || uri.query().is_some() {
        return Err(wrong());
    }
    Ok(format!("{scheme}://{authority}{}", uri.path().trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_that_of_a_server() {
        for (text, expected) in [
            ("https://sync.example.org", "https://sync.example.org"),
            ("http://127.0.0.1:8787/", "http://127.0.0.1:8787"),
            ("ws://[::1]:8787", "http://[::1]:8787"),
            ("wss://example.org/sync/", "https://example.org/sync"),
        ] {
            assert_eq!(address(text).expect("an address"), expected);
        }
        for text in ["", "example.org", "/v1", "ftp://a", "https://a:b@c", "https://a?b", "http://"]
        {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
