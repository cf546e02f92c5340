//! `POST /v1/documents/{id}/erase`: what somebody has said in a document is erased.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tidelog_access::Role;
use tidelog_document::{Erasable, EraseRefusal, Erased, ErasedUpTo};
use tidelog_room::{Answer, Ask};
use tidelog_types::DocumentKey;
use tidelog_types::limits::EVENT_SIZE_MAX;
use tokio::time::Instant;

use super::pass::Address;
use super::{answered, body, no_name, pass};
use crate::access::Pass;
use crate::shared::Shared;

/// Bytes of a request: it names a stream, which is no longer than an event.
const BODY_SIZE_MAX: usize = 2 * EVENT_SIZE_MAX;
/// For how long one request erases, and for the slice that has begun by then.
const ERASES_FOR: Duration = Duration::from_secs(20);

/// What is to be erased.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, untagged)]
enum What {
    Stream { aggregate: String, stream: String, after: Option<Place> },
    Run { workflow: String, id: String, after: Option<Place> },
}

/// How far erasing has come, as an answer has said.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    event: u64,
    task: u64,
}

impl What {
    fn split(self) -> (Erasable, ErasedUpTo) {
        let (what, after) = match self {
            Self::Stream { aggregate, stream, after } => {
                (Erasable::Stream { aggregate, stream }, after)
            }
            Self::Run { workflow, id, after } => (Erasable::Run { workflow, id }, after),
        };
        let after = after.map(|Place { event, task }| ErasedUpTo { event, task });
        (what, after.unwrap_or_default())
    }
}

pub(super) async fn erase(
    State(shared): State<Arc<Shared>>,
    UrlPath(id): UrlPath<String>,
    pass: Pass,
    address: Address,
    request: Request,
) -> Response {
    if let Some(refused) = pass::refusal(&pass, &id, Role::Admin) {
        return refused;
    }
    let bytes = match body(request, BODY_SIZE_MAX).await {
        Ok(bytes) => bytes,
        Err(refused) => return refused,
    };
    let Ok(what) = serde_json::from_slice::<What>(&bytes) else {
        let why = "what is erased is JSON: {\"aggregate\": \"...\", \"stream\": \"...\"}, or \
                   {\"workflow\": \"...\", \"id\": \"...\"}\n";
        return (StatusCode::BAD_REQUEST, why).into_response();
    };
    let Ok(document) = DocumentKey::new(&id, "") else { return no_name() };
    // Whoever hangs up meanwhile has erased something all the same, and that is written down.
    let erasing = tokio::spawn(async move {
        let answer = erase_for_a_while(&shared, &document, &pass, what.split()).await;
        let (who, outcome) = (pass::who(&pass, address), answer.status().as_u16());
        shared.rooms.audit().act("erase", &who, Some(&id), outcome);
        answer
    });
    erasing.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// Erases slice by slice, as long as the pass holds, and answers how much that was.
async fn erase_for_a_while(
    shared: &Arc<Shared>,
    document: &DocumentKey,
    pass: &Pass,
    (what, mut after): (Erasable, ErasedUpTo),
) -> Response {
    let ends_at = Instant::now() + ERASES_FOR;
    let mut all = Erased::default();
    loop {
        if let Some(refused) = pass::refusal_if_ended(shared, pass) {
            return refused;
        }
        let ask = Ask::Erase { what: what.clone(), after };
        let erased = match shared.rooms.ask(document, ask).await {
            Answer::Erased(Ok(erased)) => erased,
            Answer::Erased(Err(refusal)) => return refused(&what, refusal),
            answer => return answered(&document.document, answer),
        };
        all.events += erased.events;
        all.commands += erased.commands;
        all.runs += erased.runs;
        all.records += erased.records;
        all.next = erased.next;
        match erased.next {
            Some(next) if Instant::now() < ends_at => after = next,
            _ => break,
        }
    }
    let next = all.next.map(|ErasedUpTo { event, task }| json!({ "event": event, "task": task }));
    Json(json!({
        "events": all.events,
        "commands": all.commands,
        "runs": all.runs,
        "records": all.records,
        "next": next,
    }))
    .into_response()
}

fn refused(what: &Erasable, refusal: EraseRefusal) -> Response {
    let (one, many) = match what {
        Erasable::Stream { .. } => ("stream", "streams"),
        Erasable::Run { .. } => ("run", "workflows"),
    };
    let (status, why) = match refusal {
        EraseRefusal::HasNone => (StatusCode::CONFLICT, format!("the document has no {many}")),
        EraseRefusal::Unknown => (StatusCode::NOT_FOUND, format!("no such {one}")),
        EraseRefusal::Unfinished { number } => {
            let what = if one == "stream" { "command" } else { "run" };
            let why = format!("{what} {number} is not over: erase it once it has ended");
            (StatusCode::CONFLICT, why)
        }
    };
    (status, format!("{why}\n")).into_response()
}
