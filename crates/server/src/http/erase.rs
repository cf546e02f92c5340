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
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    event: u64,
    task: u64,
    /// Of the archive, once the document itself is done.
    #[serde(default)]
    archive: bool,
}

impl What {
    fn split(self) -> (Erasable, Place) {
        let (what, after) = match self {
            Self::Stream { aggregate, stream, after } => {
                (Erasable::Stream { aggregate, stream }, after)
            }
            Self::Run { workflow, id, after } => (Erasable::Run { workflow, id }, after),
        };
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

fn what_of(bytes: &[u8]) -> Result<(Erasable, Place), String> {
    let why = "what is erased is JSON: {\"aggregate\": \"...\", \"stream\": \"...\"}, or \
               {\"workflow\": \"...\", \"id\": \"...\"}";
    serde_json::from_slice::<What>(bytes).map(What::split).map_err(|_| why.to_owned())
}

/// Erases slice by slice, as long as the pass holds, and answers how much that was.
async fn erase_for_a_while(
    act: &Act,
    (what, Place { event, task, archive: mut is_archive }): (Erasable, Place),
) -> Result<Response, Response> {
    let ends_at = Instant::now() + ERASES_FOR;
    let mut after = ErasedUpTo { event, task };
    let mut all = Erased::default();
    loop {
        act.check()?;
        let erased = match act.erase(&what, after, is_archive).await {
            Ok(Ok(erased)) => erased,
            Ok(Err(refusal)) => return Err(refused(&what, refusal)),
            Err(answer) => return Err(answered(act.document(), answer)),
        };
        all.events += erased.events;
        all.commands += erased.commands;
        all.runs += erased.runs;
        all.records += erased.records;
        all.next = erased.next;
        // What has left the document is erased once nothing more of it can leave unseen.
        if erased.next.is_none() && !is_archive && matches!(what, Erasable::Stream { .. }) {
            (is_archive, all.next) = (true, Some(ErasedUpTo::default()));
        }
        match all.next {
            Some(next) if Instant::now() < ends_at => after = next,
            _ => break,
        }
    }
    let place =
        |ErasedUpTo { event, task }| json!({ "event": event, "task": task, "archive": is_archive });
    let next = all.next.map(place);
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
