//! `/v1/doctypes`: what is deployed.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tidelog_document::{DoctypeError, json};
use tidelog_room::{Answer, Ask};
use tidelog_types::limits::{DOCTYPE_JSON_SIZE_MAX, TRIAL_FAILURES_MAX, TRIAL_S_MAX};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::act::to_its_end;
use super::pass::Address;
use super::{body, failed, pass};
use crate::access::Pass;
use crate::deployments::{DeployError, Deployed};
use crate::shared::Shared;

/// Why nothing can be said of a doctype.
const UNCHECKED: &str = "the doctype could not be checked";

pub(super) async fn list(State(shared): State<Arc<Shared>>, pass: Pass) -> Response {
    if let Some(refused) = pass::refusal_unless_admin(&pass) {
        return refused;
    }
    Json(json!({ "doctypes": shared.deployments.list() })).into_response()
}

pub(super) async fn newest(
    State(shared): State<Arc<Shared>>,
    UrlPath(name): UrlPath<String>,
    pass: Pass,
) -> Response {
    if let Some(refused) = pass::refusal_unless_admin(&pass) {
        return refused;
    }
    match shared.deployments.newest(&name) {
        Some(doctype) => {
            let kind = [(header::CONTENT_TYPE, "application/json")];
            (kind, json::write(&doctype)).into_response()
        }
        None => (StatusCode::NOT_FOUND, "no such doctype\n").into_response(),
    }
}

/// What is wanted beside a doctype.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// It is only to be tried.
    check: Option<String>,
    /// On the documents behind this name.
    after: Option<String>,
}

pub(super) async fn deploy(
    State(shared): State<Arc<Shared>>,
    UrlPath(name): UrlPath<String>,
    pass: Pass,
    address: Address,
    Query(Wanted { check, after }): Query<Wanted>,
    request: Request,
) -> Response {
    if let Some(refused) = pass::refusal_unless_admin(&pass) {
        return refused;
    }
    let bytes = match body(request, DOCTYPE_JSON_SIZE_MAX).await {
        Ok(bytes) => bytes,
        Err(refused) => return refused,
    };
    if let Some(refused) = pass::refusal_if_ended(&shared, &pass) {
        return refused;
    }
    if check.is_some() {
        return try_on_documents(&shared, pass.subject(), name, bytes, after).await;
    }
    let deployments = Arc::clone(&shared.deployments);
    let named = name.clone();
    to_its_end(async move {
        let answer = match spawn_blocking(move || deployments.deploy(&name, &bytes)).await {
            Ok(Ok((deployed, true))) => (StatusCode::CREATED, Json(deployed)).into_response(),
            Ok(Ok((deployed, false))) => Json(deployed).into_response(),
            Ok(Err(error)) => refused(&error),
            Err(_) => failed(UNCHECKED),
        };
        let (who, outcome) = (pass::who(&pass, address), answer.status().as_u16());
        shared.rooms.audit().act("deploy", &who, Some(&named), outcome);
        answer
    })
    .await
}

/// Tries the doctype on the documents that are of an older one, from `after` on, for as long as one
/// answer may take.
async fn try_on_documents(
    shared: &Arc<Shared>,
    subject: Option<&str>,
    name: String,
    bytes: Bytes,
    after: Option<String>,
) -> Response {
    // It knows the names of all documents meanwhile, as who lists them.
    let _turn = match shared.exports.turn(subject) {
        Ok(turn) => turn,
        Err(why) => return failed(why),
    };
    let deployments = Arc::clone(&shared.deployments);
    let (doctype, deployed) = match spawn_blocking(move || deployments.examine(&name, &bytes)).await
    {
        Ok(Ok((doctype, deployed))) => (Arc::new(doctype), deployed),
        Ok(Err(error)) => return refused(&error),
        Err(_) => return failed(UNCHECKED),
    };
    let Some(mut documents) = shared.store.documents().await else {
        return failed("the store does not answer");
    };
    documents.retain(|key| after.as_ref().is_none_or(|after| key.document > *after));
    documents.sort_unstable();
    let (mut tried, mut failures, mut next) = (0, Vec::new(), None);
    let ends_at = Instant::now() + Duration::from_secs(TRIAL_S_MAX);
    let mut documents = documents.into_iter().peekable();
    while let Some(key) = documents.next() {
        let ask = Ask::Try { doctype: Arc::clone(&doctype) };
        let failure = match shared.rooms.ask(&key, ask).await {
            // It may have been deleted just now.
            Answer::OfOther | Answer::Missing => None,
            Answer::Tried { failure } => {
                tried += 1;
                failure
            }
            Answer::Failed { reason } | Answer::Unknown { reason } => {
                Some(format!("it could not be tried: {reason}"))
            }
            Answer::LeftOut => return pass::left_out(),
            answer => unreachable!("BUG: {answer:?}"),
        };
        let reason = failure.map(|reason| json!({ "document": &key.document, "reason": reason }));
        failures.extend(reason);
        let is_enough = Instant::now() >= ends_at || failures.len() >= TRIAL_FAILURES_MAX;
        if is_enough && documents.peek().is_some() {
            next = Some(key.document);
            break;
        }
    }
    let Deployed { name, hash, migrations } = deployed;
    Json(json!({
        "name": name,
        "hash": hash,
        "migrations": migrations,
        "tried": tried,
        "failures": failures,
        "next": next,
    }))
    .into_response()
}

fn refused(error: &DeployError) -> Response {
    (status_of(error), format!("{error}\n")).into_response()
}

fn status_of(error: &DeployError) -> StatusCode {
    match error {
        DeployError::NoSuccessor { .. } | DeployError::Full => StatusCode::CONFLICT,
        DeployError::FolderChanged
        | DeployError::Read(_)
        | DeployError::Write(_)
        | DeployError::Doctype(DoctypeError::Unchecked { .. }) => StatusCode::SERVICE_UNAVAILABLE,
        DeployError::Json(_) | DeployError::Name { .. } | DeployError::Doctype(_) => {
            StatusCode::BAD_REQUEST
        }
    }
}
