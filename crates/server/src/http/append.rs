//! `POST /v1/documents/{id}/events`: whoever runs the server records events.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use serde_json::value::RawValue;
use tidelog_document::{AppendRefusal, AppendedEvent};
use tidelog_room::{Answer, Ask};
use tidelog_types::limits::{APPEND_SIZE_MAX, COMPLETION_ITEMS_MAX, TIME_MS_MAX};

use super::act::Act;
use super::pass::Address;
use super::{answered, failed};
use crate::access::Pass;
use crate::shared::Shared;

/// Events of one request, which are recorded together or not at all.
pub(crate) const APPEND_EVENTS_MAX: usize = COMPLETION_ITEMS_MAX;

/// One event: a line as `GET` answers it, or as somebody writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    aggregate: String,
    stream: String,
    #[serde(rename = "type")]
    name: String,
    data: Box<RawValue>,
    version: Option<u32>,
    time: Option<u64>,
    user: Option<String>,
    position: Option<u64>,
    #[serde(default)]
    erased: u8,
    /// Each document has its own of these.
    #[serde(rename = "sequence")]
    _sequence: Option<IgnoredAny>,
    #[serde(rename = "client")]
    _client: Option<IgnoredAny>,
    #[serde(rename = "cause")]
    _cause: Option<IgnoredAny>,
}

pub(super) async fn append(
    State(shared): State<Arc<Shared>>,
    UrlPath(id): UrlPath<String>,
    pass: Pass,
    address: Address,
    request: Request,
) -> Result<Response, Response> {
    let act = Act::by_admin("append", &shared, &id, (pass, address))?;
    // Many of several MiB each would be more than the server has.
    let turn = shared.exports.turn(act.subject()).map_err(failed)?;
    let events = act.body(request, APPEND_SIZE_MAX, events_of).await?;
    let deed = async move |act: Arc<Act>| {
        let (_turn, count) = (turn, events.len());
        let by = act.subject().unwrap_or_default().to_owned();
        match act.ask(Ask::Append { events: events.into(), by }).await {
            Answer::Appended(Ok(last)) => {
                Ok(Json(json!({ "events": count, "last": last })).into_response())
            }
            Answer::Appended(Err(refusal)) => Err(refused(&refusal)),
            answer => Err(answered(act.document(), answer)),
        }
    };
    Ok(act.carry_out(deed).await)
}

fn events_of(bytes: &[u8]) -> Result<Vec<AppendedEvent>, String> {
    let mut events = Vec::new();
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    for (nth, line) in lines.filter(|(_, line)| !line.trim_ascii().is_empty()) {
        let number = nth + 1;
        let line: Line = serde_json::from_slice(line).map_err(|error| {
            format!(
                "line {number} is no event: {error}; one is {{\"aggregate\": \"...\", \"stream\": \
                 \"...\", \"type\": \"...\", \"data\": {{...}}}}"
            )
        })?;
        if line.time.is_some_and(|time| time > TIME_MS_MAX) {
            return Err(format!("line {number} is of no time, in milliseconds since 1970"));
        }
        if line.erased != 0 {
            return Err(format!("line {number} is of an event that was erased"));
        }
        if events.len() == APPEND_EVENTS_MAX {
            return Err(format!("{APPEND_EVENTS_MAX} events are recorded at a time, at most"));
        }
        events.push(AppendedEvent {
            aggregate: line.aggregate,
            stream: line.stream,
            name: line.name,
            data: line.data.get().to_owned(),
            version: line.version,
            time_ms: line.time,
            user: line.user,
            position: line.position,
        });
    }
    if events.is_empty() {
        return Err("there is no line".to_owned());
    }
    Ok(events)
}

fn refused(refusal: &AppendRefusal) -> Response {
    let (status, why) = match refusal {
        AppendRefusal::NoStreams => {
            (StatusCode::CONFLICT, "the document has no streams".to_owned())
        }
        AppendRefusal::Misplaced { nth, length } => {
            let why = format!(
                "event {} is to be another one of its stream, which has {length}: none is recorded",
                nth + 1
            );
            (StatusCode::CONFLICT, why)
        }
        AppendRefusal::Rejected { nth, reason } => {
            let why = format!("event {} is rejected: {reason}: none is recorded", nth + 1);
            (StatusCode::UNPROCESSABLE_ENTITY, why)
        }
    };
    (status, format!("{why}\n")).into_response()
}
