//! `/v1/documents/{id}/commands`: which there are, and what whoever runs the server does to one.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path as UrlPath, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tidelog_access::Role;
use tidelog_document::{CommandRef, Intervened, Intervention, WantedCommands};
use tidelog_room::{Answer, Ask};
use tidelog_types::DocumentKey;
use tidelog_types::limits::EVENT_SIZE_MAX;

use super::act::to_its_end;
use super::lines::Lines;
use super::pass::Address;
use super::{answered, body, failed, no_name, pass};
use crate::access::Pass;
use crate::shared::Shared;

/// Bytes of a request: it names a command, whose names are no longer than an event.
const BODY_SIZE_MAX: usize = 2 * EVENT_SIZE_MAX;

/// The states of commands, as `tidelog_commands` says them.
const STATES: [&str; 5] = ["received", "started", "stopped", "completed", "failed"];

type Ours = State<Arc<Shared>>;

/// Which commands somebody wants to know of.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    state: Option<String>,
    /// Those behind this number.
    #[serde(default)]
    after: u64,
}

/// Which command somebody means.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, untagged)]
enum Named {
    Number { number: u64 },
    Key { aggregate: String, stream: String, command: String, key: String },
}

impl From<Named> for CommandRef {
    fn from(named: Named) -> Self {
        match named {
            Named::Number { number } => Self::Number(number),
            Named::Key { aggregate, stream, command, key } => {
                Self::Key([aggregate, stream, command, key])
            }
        }
    }
}

pub(super) async fn list(
    State(shared): Ours,
    UrlPath(id): UrlPath<String>,
    pass: Pass,
    Query(Wanted { state, after }): Query<Wanted>,
) -> Response {
    if let Some(refused) = pass::refusal(&pass, &id, Role::Read) {
        return refused;
    }
    if state.as_ref().is_some_and(|state| !STATES.contains(&state.as_str())) {
        let why = format!("a command is {}\n", STATES.join(", "));
        return (StatusCode::BAD_REQUEST, why).into_response();
    }
    let Ok(document) = DocumentKey::new(&id, "") else { return no_name() };
    // What is read may be many MiB, of which the answer has some.
    let _turn = match shared.exports.turn(pass.subject()) {
        Ok(turn) => turn,
        Err(why) => return failed(why),
    };
    let wanted = WantedCommands { state, after };
    match shared.rooms.ask(&document, Ask::Commands(wanted)).await {
        Answer::Commands(found) => {
            let lines = Lines::of(&found.rows, "args");
            let last = lines.last().unwrap_or(after);
            lines.answer((found.next.unwrap_or(last), found.next.is_some()))
        }
        answer => answered(&id, answer),
    }
}

pub(super) async fn retry(
    state: Ours,
    UrlPath(id): UrlPath<String>,
    pass: Pass,
    address: Address,
    request: Request,
) -> Response {
    intervene(state, &id, (pass, address), Intervention::Retry, request).await
}

pub(super) async fn cancel(
    state: Ours,
    UrlPath(id): UrlPath<String>,
    pass: Pass,
    address: Address,
    request: Request,
) -> Response {
    let by = pass.subject().unwrap_or("whoever runs the server");
    let cancel = Intervention::Cancel { reason: format!("cancelled by {by}") };
    intervene(state, &id, (pass, address), cancel, request).await
}

async fn intervene(
    State(shared): Ours,
    id: &str,
    (pass, address): (Pass, Address),
    intervention: Intervention,
    request: Request,
) -> Response {
    if let Some(refused) = pass::refusal_unless_handle(&pass, id) {
        return refused;
    }
    let bytes = match body(request, BODY_SIZE_MAX).await {
        Ok(bytes) => bytes,
        Err(refused) => return refused,
    };
    let Ok(named) = serde_json::from_slice::<Named>(&bytes) else {
        let why = "a command is named by JSON: {\"number\": 7}, or {\"aggregate\": \"...\", \
                   \"stream\": \"...\", \"command\": \"...\", \"key\": \"...\"}\n";
        return (StatusCode::BAD_REQUEST, why).into_response();
    };
    let Ok(document) = DocumentKey::new(id, "") else { return no_name() };
    // It may have ended while the request was being said.
    if let Some(refused) = pass::refusal_if_ended(&shared, &pass) {
        return refused;
    }
    let (deed, fits) = match intervention {
        Intervention::Retry => ("retry", "one that has failed is given again"),
        Intervention::Cancel { .. } => ("cancel", "one that is not over is cancelled"),
    };
    let ask = Ask::Intervene(named.into(), intervention);
    let id = id.to_owned();
    let work = async move {
        let answer = match shared.rooms.ask(&document, ask).await {
            Answer::Intervened(Intervened::Done(number)) => {
                Json(json!({ "number": number })).into_response()
            }
            Answer::Intervened(Intervened::NoCommand) => {
                (StatusCode::NOT_FOUND, "no such command\n").into_response()
            }
            Answer::Intervened(Intervened::InState(state)) => {
                (StatusCode::CONFLICT, format!("the command is {state}: {fits}\n")).into_response()
            }
            answer => answered(&id, answer),
        };
        let (who, outcome) = (pass::who(&pass, address), answer.status().as_u16());
        shared.rooms.audit().act(deed, &who, Some(&id), outcome);
        answer
    };
    to_its_end(work).await
}
