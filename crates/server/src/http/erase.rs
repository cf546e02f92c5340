//! `POST /v1/documents/{id}/erase`: what somebody has said in a document is erased.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tidelog_document::{Erasable, EraseRefusal, Erased, ErasedUpTo};
use tidelog_room::{Answer, Ask};
use tidelog_types::limits::EVENT_SIZE_MAX;
use tokio::time::Instant;

use super::act::Act;
use super::answered;
use super::pass::Address;
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
) -> Result<Response, Response> {
    let act = Act::by_admin("erase", &shared, &id, (pass, address))?;
    let what = act.body(request, BODY_SIZE_MAX, what_of).await?;
    Ok(act.carry_out(async move |act: Arc<Act>| erase_for_a_while(&act, what).await).await)
}

fn what_of(bytes: &[u8]) -> Result<(Erasable, ErasedUpTo), String> {
    let why = "what is erased is JSON: {\"aggregate\": \"...\", \"stream\": \"...\"}, or \
               {\"workflow\": \"...\", \"id\": \"...\"}";
    serde_json::from_slice::<What>(bytes).map(What::split).map_err(|_| why.to_owned())
}

/// Erases slice by slice, as long as the pass holds, and answers how much that was.
async fn erase_for_a_while(
    act: &Act,
    (what, mut after): (Erasable, ErasedUpTo),
) -> Result<Response, Response> {
    let ends_at = Instant::now() + ERASES_FOR;
    let mut all = Erased::default();
    loop {
        act.check()?;
        let ask = Ask::Erase { what: what.clone(), after };
        let erased = match act.ask(ask).await {
            Answer::Erased(Ok(erased)) => erased,
            Answer::Erased(Err(refusal)) => return Err(refused(&what, refusal)),
            answer => return Err(answered(act.document(), answer)),
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
    Ok(Json(json!({
        "events": all.events,
        "commands": all.commands,
        "runs": all.runs,
        "records": all.records,
        "next": next,
    }))
    .into_response())
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
