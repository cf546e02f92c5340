//! Asking a server over HTTP, with a token.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tidelog_types::limits::TOKEN_SIZE_MAX;
use ureq::Agent;

use super::{CommandError, read_text};
use crate::http::{AFTER, MORE};

/// For how long an answer is waited for.
const ANSWER_TAKES: Duration = Duration::from_secs(120);
/// Bytes of an answer that are read.
const ANSWER_SIZE_MAX: u64 = 4 * 1024 * 1024;

/// Why a server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("{0} is no address of a server: write https://HOST, with a port if it has one")]
    Address(String),
    #[error("TIDELOG_TOKEN or the file with the token has no token in it")]
    Token,
    #[error("the server at {server} does not answer")]
    Connection {
        server: String,
        #[source]
        source: ureq::Error,
    },
    #[error("the server refuses it ({status}): {reason}")]
    Refused { status: StatusCode, reason: String },
    #[error("{server} answers ({status}) as no server of Tidelog does")]
    Odd { server: String, status: StatusCode },
}

/// What was said of a page that was printed.
pub(super) struct Page {
    /// Behind which number the next one begins.
    pub(super) after: u64,
    /// Whether there may be more now.
    pub(super) has_more: bool,
    /// How many lines it had.
    pub(super) count: u64,
}

/// Who asks a server for something.
pub(super) struct Sender {
    server: String,
    token: Option<HeaderValue>,
}

impl Sender {
    /// To the server at that address, with the token of the file, or of the environment.
    pub(super) fn new(server: &str, token_file: Option<&Path>) -> Result<Self, CommandError> {
        let server = address(server).map_err(CommandError::usage)?;
        Ok(Self { server, token: token(token_file)? })
    }

    /// Sends these bytes of JSON; gives what the server says if it takes them.
    pub(super) fn send(
        &self,
        method: Method,
        path: &str,
        bytes: &[u8],
    ) -> Result<(StatusCode, Value), CommandError> {
        let (status, _, body) = self.ask(method, path, bytes)?;
        let answer = serde_json::from_slice(&body).ok().filter(Value::is_object);
        Ok((status, answer.ok_or_else(|| self.odd(status))?))
    }

    /// Prints the lines that a server answers, page by page, from behind a number on. Says behind
    /// which number others would be.
    pub(super) fn print_lines(&self, query: &Query, after: u64) -> Result<u64, CommandError> {
        let mut after = after;
        loop {
            let page = self.print_page(query, after)?;
            after = page.after;
            if !page.has_more {
                return Ok(after);
            }
        }
    }

    /// Prints one page of them.
    pub(super) fn print_page(&self, query: &Query, after: u64) -> Result<Page, CommandError> {
        let path = format!("{}&after={after}", query.0);
        let (status, headers, body) = self.ask(Method::GET, &path, &[])?;
        let said = |name: HeaderName| headers.get(name).and_then(|it| it.to_str().ok());
        let next = said(AFTER).and_then(|it| it.parse().ok());
        let after = next.ok_or_else(|| self.odd(status))?;
        let mut out = io::stdout().lock();
        out.write_all(&body).and_then(|()| out.flush()).map_err(CommandError::failed)?;
        let count = body.iter().filter(|byte| **byte == b'\n').count() as u64;
        Ok(Page { after, has_more: said(MORE) == Some("true"), count })
    }

    /// What the server says if it does not refuse.
    fn ask(
        &self,
        method: Method,
        path: &str,
        bytes: &[u8],
    ) -> Result<(StatusCode, HeaderMap, Vec<u8>), CommandError> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A token goes nowhere but where it was meant to.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(ANSWER_TAKES));
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server))
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let request = request.body(bytes).map_err(CommandError::failed)?;
        let no_answer = |source| {
            let server = self.server.clone();
            CommandError::failed(SendError::Connection { server, source })
        };
        let mut response = Agent::from(config.build()).run(request).map_err(no_answer)?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(ANSWER_SIZE_MAX);
        let body = body.read_to_vec().map_err(no_answer)?;
        if status.is_success() {
            return Ok((status, response.headers().clone(), body));
        }
        let reason = String::from_utf8_lossy(&body).trim().to_owned();
        Err(CommandError::failed(SendError::Refused { status, reason }))
    }

    /// What it answered makes no sense.
    pub(super) fn odd(&self, status: StatusCode) -> CommandError {
        CommandError::failed(SendError::Odd { server: self.server.clone(), status })
    }
}

/// With which status a server has refused that, if one has.
pub(super) fn refusal_of(error: &CommandError) -> Option<StatusCode> {
    let (CommandError::Usage(error) | CommandError::Failed(error)) = error;
    match error.downcast_ref() {
        Some(SendError::Refused { status, .. }) => Some(*status),
        _ => None,
    }
}

/// A question whose answer is lines: a path up to where in its order they begin.
pub(super) struct Query(String);

impl Query {
    /// For `what` of a document, with those of these that are wanted.
    pub(super) fn of(document: &str, what: &str, wanted: &[(&str, Option<&str>)]) -> Self {
        let escaped = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let mut path = format!("/v1/documents/{}/{what}?", escaped(document));
        for (name, value) in wanted {
            if let Some(value) = value {
                path += &format!("&{name}={}", escaped(value));
            }
        }
        Self(path)
    }
}

fn token(file: Option<&Path>) -> Result<Option<HeaderValue>, CommandError> {
    let text = match file {
        Some(path) => read_text(path, TOKEN_SIZE_MAX)?,
        None => match std::env::var("TIDELOG_TOKEN") {
            Ok(token) => token.trim().to_owned(),
            Err(std::env::VarError::NotPresent) => return Ok(None),
            Err(_) => return Err(CommandError::usage(SendError::Token)),
        },
    };
    let value = HeaderValue::from_str(&format!("Bearer {text}"));
    match value {
        Ok(mut value) if !text.is_empty() => {
            value.set_sensitive(true);
            Ok(Some(value))
        }
        _ => Err(CommandError::usage(SendError::Token)),
    }
}

/// The address without a slash behind it. What `open` is given is understood too.
fn address(text: &str) -> Result<String, SendError> {
    let wrong = || SendError::Address(text.to_owned());
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
