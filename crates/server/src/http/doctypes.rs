//! `/v1/doctypes`: what is deployed.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tidelog_document::DoctypeError;
use tidelog_types::limits::DOCTYPE_JSON_SIZE_MAX;
use tokio::task::spawn_blocking;

use super::pass::Address;
use super::{body, failed, pass};
use crate::access::Pass;
use crate::deployments::DeployError;
use crate::shared::Shared;

pub(super) async fn list(State(shared): State<Arc<Shared>>, pass: Pass) -> Response {
    if let Some(refused) = pass::refusal_unless_admin(&pass) {
        return refused;
    }
    Json(json!({ "doctypes": shared.deployments.list() })).into_response()
}

pub(super) async fn deploy(
    State(shared): State<Arc<Shared>>,
    UrlPath(name): UrlPath<String>,
    pass: Pass,
    address: Address,
    request: Request,
) -> Response {
    if let Some(refused) = pass::refusal_unless_admin(&pass) {
        return refused;
    }
    let bytes = match body(request, DOCTYPE_JSON_SIZE_MAX).await {
        Ok(bytes) => bytes,
        Err(refused) => return refused,
    };
    let deployments = Arc::clone(&shared.deployments);
    let named = name.clone();
    let answer = match spawn_blocking(move || deployments.deploy(&name, &bytes)).await {
        Ok(Ok((deployed, true))) => (StatusCode::CREATED, Json(deployed)).into_response(),
        Ok(Ok((deployed, false))) => Json(deployed).into_response(),
        Ok(Err(error)) => (status_of(&error), format!("{error}\n")).into_response(),
        Err(_) => failed("the doctype could not be checked"),
    };
    let (who, outcome) = (pass::who(&pass, address), answer.status().as_u16());
    shared.rooms.audit().act("deploy", &who, Some(&named), outcome);
    answer
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
