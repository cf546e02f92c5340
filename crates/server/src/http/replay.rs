//! `POST /v1/documents/{id}/events/replay`: what follows from events is made anew.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tidelog_document::{Replay, ReplayRefusal, Replayed};
use tidelog_room::{Answer, Ask};
use tidelog_types::limits::EVENT_SIZE_MAX;

use super::act::Act;
use super::answered;
use super::pass::Address;
use crate::access::Pass;
use crate::shared::Shared;

/// Bytes of a request: it names an aggregate and tables.
const BODY_SIZE_MAX: usize = 2 * EVENT_SIZE_MAX;

/// What is to be made anew.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct What {
    aggregate: String,
    clear: Vec<String>,
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn replay(
    State(shared): State<Arc<Shared>>,
    UrlPath(id): UrlPath<String>,
    pass: Pass,
    address: Address,
    request: Request,
) -> Result<Response, Response> {
    let act = Act::by_admin("replay", &shared, &id, (pass, address))?;
    let replay = act.body(request, BODY_SIZE_MAX, replay_of).await?;
    let deed = async move |act: Arc<Act>| match act.ask(Ask::Replay(Arc::new(replay))).await {
        Answer::Replayed(Ok(replayed)) => Ok(Json(json_of(&replayed)).into_response()),
        Answer::Replayed(Err(refusal)) => Err(refused(&refusal)),
        answer => Err(answered(act.document(), answer)),
    };
    Ok(act.carry_out(deed).await)
}

fn replay_of(bytes: &[u8]) -> Result<Replay, String> {
    let what = serde_json::from_slice::<What>(bytes).map_err(|error| {
        format!(
            "what is replayed is JSON: {{\"aggregate\": \"...\", \"clear\": [\"...\"]}}: {error}"
        )
    })?;
    let What { aggregate, clear: tables, dry_run: is_dry } = what;
    match tables.is_empty() {
        true => Err("clear names no table: rows would be there twice".to_owned()),
        false => Ok(Replay { aggregate, tables, is_dry }),
    }
}

fn json_of(replayed: &Replayed) -> Value {
    let Replayed { events, erased, tables, is_dry } = replayed;
    let tables: Vec<Value> = tables
        .iter()
        .map(|it| json!({ "table": it.name, "before": it.rows_before, "after": it.rows_after }))
        .collect();
    json!({ "events": events, "erased": erased, "tables": tables, "dry_run": is_dry })
}

fn refused(refusal: &ReplayRefusal) -> Response {
    let status = match refusal {
        ReplayRefusal::NoStreams | ReplayRefusal::Archived { .. } => StatusCode::CONFLICT,
        ReplayRefusal::UnknownAggregate => StatusCode::NOT_FOUND,
        ReplayRefusal::Table { .. }
        | ReplayRefusal::TooMany { .. }
        | ReplayRefusal::Event { .. }
        | ReplayRefusal::Failed { .. } => StatusCode::UNPROCESSABLE_ENTITY,
    };
    (status, format!("{refusal}\n")).into_response()
}
