//! `POST /v1/login`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tidelog_types::limits::LOGIN_SIZE_MAX;

use super::body;
use crate::access::{LoggedIn, LoginError};
use crate::audit::LET_IN;
use crate::settings::USERS;
use crate::shared::Shared;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    user: String,
    password: String,
}

pub(super) async fn login(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let Some(guard) = &shared.guard else {
        let why = "a server with --dev has no logins: it asks nobody for a token\n";
        return (StatusCode::NOT_FOUND, why).into_response();
    };
    let Some(address) = shared.address(request.extensions(), request.headers()) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let bytes = match body(request, LOGIN_SIZE_MAX).await {
        Ok(bytes) => bytes,
        Err(refused) => return refused,
    };
    let Ok(Credentials { user, password }) = serde_json::from_slice(&bytes) else {
        let why = "a login is JSON: {\"user\": \"...\", \"password\": \"...\"}\n";
        return (StatusCode::BAD_REQUEST, why).into_response();
    };
    let known = USERS.into_iter().map(|(name, _)| name).find(|name| *name == user);
    let logged_in = guard.log_in(address, user, password).await;
    let outcome = match &logged_in {
        Ok(_) => LET_IN,
        Err(LoginError::Wrong) => "wrong",
        Err(LoginError::TooMany { .. }) => "too many",
        Err(LoginError::Failed) => "failed",
    };
    shared.rooms.audit().login(known, address, outcome);
    match logged_in {
        Ok(LoggedIn { token, expires_at_s }) => {
            let fresh = [(header::CACHE_CONTROL, "no-store")];
            (fresh, Json(json!({ "token": token, "expires_at": expires_at_s }))).into_response()
        }
        Err(LoginError::Wrong) => {
            (StatusCode::UNAUTHORIZED, "no such user, or another password\n").into_response()
        }
        Err(LoginError::TooMany { after }) => {
            let seconds = after.as_millis().div_ceil(1_000).to_string();
            let why = "too many logins: try again later\n";
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, seconds)], why).into_response()
        }
        Err(LoginError::Failed) => super::failed("the password could not be checked"),
    }
}
