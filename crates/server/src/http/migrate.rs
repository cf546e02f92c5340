//! `POST /v1/documents/{id}/events/migrate`: events of older versions are rewritten at the newest.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tidelog_document::UpcastRefusal;
use tidelog_room::{Answer, Ask};
use tidelog_types::limits::EVENT_SIZE_MAX;
use tokio::time::Instant;

use super::act::Act;
use super::answered;
use super::pass::Address;
use crate::access::Pass;
use crate::shared::Shared;

/// Bytes of a request: it names an aggregate, which is no longer than an event.
const BODY_SIZE_MAX: usize = 2 * EVENT_SIZE_MAX;
/// For how long one request migrates, and for the slice that has begun by then: whoever asks hears
/// often how far it has come.
const MIGRATES_FOR: Duration = Duration::from_secs(5);
/// Events that it rewrites, not counting the slice that passes the bound.
const EVENTS_MAX: u64 = 4096;

/// What is to be migrated.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct What {
    aggregate: Option<String>,
    /// Behind this sequence number.
    #[serde(default)]
    after: u64,
}

pub(super) async fn migrate(
    State(shared): State<Arc<Shared>>,
    UrlPath(id): UrlPath<String>,
    pass: Pass,
    address: Address,
    request: Request,
) -> Result<Response, Response> {
    let act = Act::by_admin("migrate", &shared, &id, (pass, address))?;
    let what = act.body(request, BODY_SIZE_MAX, what_of).await?;
    Ok(act.carry_out(async move |act: Arc<Act>| migrate_for_a_while(&act, what).await).await)
}

fn what_of(bytes: &[u8]) -> Result<What, String> {
    let why =
        |error| format!("what is migrated is JSON: {{}}, or {{\"aggregate\": \"...\"}}: {error}");
    serde_json::from_slice(bytes).map_err(why)
}

/// Migrates slice by slice, as long as the pass holds, and answers how far it has come.
async fn migrate_for_a_while(
    act: &Act,
    What { aggregate, mut after }: What,
) -> Result<Response, Response> {
    let ends_at = Instant::now() + MIGRATES_FOR;
    let mut events = 0;
    loop {
        act.check()?;
        let ask = Ask::Upcast { aggregate: aggregate.clone(), after };
        let upcast = match act.ask(ask).await {
            Answer::Upcast(Ok(upcast)) => upcast,
            Answer::Upcast(Err(refusal)) => return Err(refused(&refusal)),
            answer => return Err(answered(act.document(), answer)),
        };
        events += upcast.events;
        after = upcast.seen;
        if !upcast.has_more || events >= EVENTS_MAX || Instant::now() >= ends_at {
            let next = upcast.has_more.then_some(after);
            let answer = json!({ "events": events, "last": upcast.last, "next": next });
            return Ok(Json(answer).into_response());
        }
    }
}

fn refused(refusal: &UpcastRefusal) -> Response {
    let (status, more) = match refusal {
        UpcastRefusal::NoStreams => (StatusCode::CONFLICT, ""),
        UpcastRefusal::UnknownAggregate => (StatusCode::NOT_FOUND, ""),
        UpcastRefusal::Failed { .. } => {
            (StatusCode::UNPROCESSABLE_ENTITY, ": those before it are migrated, it is as it was")
        }
    };
    (status, format!("{refusal}{more}\n")).into_response()
}
