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
use tidelog_access::Role;
use tidelog_document::{AppendRefusal, AppendedEvent};
use tidelog_room::{Answer, Ask};
use tidelog_types::DocumentKey;
use tidelog_types::limits::{APPEND_SIZE_MAX, COMPLETION_ITEMS_MAX, TIME_MS_MAX};

use super::pass::Address;
use super::{answered, body, failed, no_name, pass};
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
) -> Response {
    if let Some(refused) = pass::refusal(&pass, &id, Role::Admin) {
        return refused;
    }
    // Many of several MiB each would be more than the server has.
    let turn = match shared.exports.turn(pass.subject()) {
        Ok(turn) => turn,
        Err(why) => return failed(why),
    };
    let events = match body(request, APPEND_SIZE_MAX).await.map(|bytes| events_of(&bytes)) {
        Ok(Ok(events)) => events,
        Ok(Err(why)) => return (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
        Err(refused) => return refused,
    };
    let Ok(document) = DocumentKey::new(&id, "") else { return no_name() };
    // It may have ended while the request was being said.
    if let Some(refused) = pass::refusal_if_ended(&shared, &pass) {
        return refused;
    }
    let by = pass.subject().unwrap_or_default().to_owned();
    // Whoever hangs up meanwhile has recorded them all the same, and that is written down.
    let appending = tokio::spawn(async move {
        let (_turn, count) = (turn, events.len());
        let ask = Ask::Append { events: events.into(), by };
        let answer = shared.rooms.ask(&document, ask).await;
        let answer = match answer {
            Answer::Appended(Ok(last)) => {
                Json(json!({ "events": count, "last": last })).into_response()
            }
            Answer::Appended(Err(refusal)) => refused(&refusal),
            answer => answered(&document.document, answer),
        };
        let (who, outcome) = (pass::who(&pass, address), answer.status().as_u16());
        shared.rooms.audit().act("append", &who, Some(&document.document), outcome);
        answer
    });
    appending.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
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
