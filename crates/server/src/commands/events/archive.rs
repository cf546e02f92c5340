//! `tidelog events archive`: events that precede a state that is kept leave the document.

use std::path::PathBuf;

use axum::http::Method;
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::super::sender::Sender;
use super::super::{CommandError, say};

/// Flags of `tidelog events archive`.
#[derive(Args, Clone, Debug)]
pub struct Archive {
    /// Name of the document
    #[arg(value_name = "DOCUMENT")]
    pub document: String,

    /// Name of the streams' aggregate
    #[arg(value_name = "AGGREGATE")]
    pub aggregate: String,

    /// Which of its streams; without it, all
    #[arg(value_name = "STREAM")]
    pub stream: Option<String>,

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

/// What is counted of it, as the server says it.
const COUNTS: [&str; 4] = ["events", "streams", "without_state", "awaited"];

impl Archive {
    /// Has the server archive them, which says each time how far it has come.
    pub(super) fn run(&self) -> Result<(), CommandError> {
        let sender = Sender::new(&self.server, self.token_file.as_deref())?;
        let document = utf8_percent_encode(&self.document, NON_ALPHANUMERIC);
        let path = format!("/v1/documents/{document}/events/archive");
        let mut what = json!({ "aggregate": &self.aggregate, "stream": &self.stream });
        let mut all = [0; COUNTS.len()];
        loop {
            let (status, answer) = sender.send(Method::POST, &path, what.to_string().as_bytes())?;
            for (sum, name) in all.iter_mut().zip(COUNTS) {
                *sum += answer[name].as_u64().ok_or_else(|| sender.odd(status))?;
            }
            match answer["next"].as_u64() {
                Some(next) => what["after"] = json!(next),
                None => break,
            }
        }
        let [events, streams, without_state, awaited] = all;
        if self.json {
            return say(json!({
                "events": events, "streams": streams, "without_state": without_state,
                "awaited": awaited,
            }));
        }
        say(format_args!("archived {events} events of {streams} streams"))?;
        if without_state > 0 {
            say(format_args!("{without_state} streams stay whole: no state of them is kept"))?;
        }
        match awaited {
            0 => Ok(()),
            _ => say(format_args!(
                "of {awaited} streams some stay: a run that is not over may wait for them"
            )),
        }
    }
}
