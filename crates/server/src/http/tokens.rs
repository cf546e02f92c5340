//! `POST /v1/logout`, `POST /v1/revoke` and `POST /v1/forgive`: tokens end before they expire, and
//! hold again.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tidelog_access::RevocationError;
use tidelog_types::limits::LOGIN_SIZE_MAX;

use super::act::to_its_end;
use super::pass::Address;
use super::{body, failed, pass};
use crate::access::{Pass, RevokeError};
use crate::shared::Shared;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revocation {
    subject: String,
}

/// Whose tokens are to hold again.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Forgiven {
    Subject(String),
    Everybody(bool),
}

pub(super) async fn log_out(
    State(shared): State<Arc<Shared>>,
    pass: Pass,
    address: Address,
) -> Response {
    let who = pass::who(&pass, address);
    let (Some(guard), Pass::Granted(access)) = (shared.guard.clone(), pass) else {
        return no_tokens();
    };
    // A page that logs out may be left at once.
    to_its_end(async move {
        let answer = answered(guard.revoke(access).await);
        shared.expiries.end_others(&guard);
        shared.rooms.audit().act("logout", &who, None, answer.status().as_u16());
        answer
    })
    .await
}

pub(super) async fn revoke(
    State(shared): State<Arc<Shared>>,
    pass: Pass,
    address: Address,
    request: Request,
) -> Response {
    let Some(guard) = &shared.guard else { return no_tokens() };
    let bytes = match words_of_admin(&shared, &pass, request).await {
        Ok(bytes) => bytes,
        Err(refused) => return refused,
    };
    let Ok(Revocation { subject }) = serde_json::from_slice(&bytes) else {
        let why = "whose tokens end is JSON: {\"subject\": \"...\"}\n";
        return (StatusCode::BAD_REQUEST, why).into_response();
    };
    let guard = Arc::clone(guard);
    let shared = Arc::clone(&shared);
    to_its_end(async move {
        let answer = answered(guard.revoke_subject(subject.clone()).await);
        // Whoever hears that they have ended relies on it.
        shared.expiries.end_others(&guard);
        let (who, outcome) = (pass::who(&pass, address), answer.status().as_u16());
        shared.rooms.audit().act("revoke", &who, Some(&subject), outcome);
        answer
    })
    .await
}

pub(super) async fn forgive(
    State(shared): State<Arc<Shared>>,
    pass: Pass,
    address: Address,
    request: Request,
) -> Response {
    let Some(guard) = &shared.guard else { return no_tokens() };
    let bytes = match words_of_admin(&shared, &pass, request).await {
        Ok(bytes) => bytes,
        Err(refused) => return refused,
    };
    let subject = match serde_json::from_slice(&bytes) {
        Ok(Forgiven::Subject(subject)) => Some(subject),
        Ok(Forgiven::Everybody(true)) => None,
        _ => {
            let why = "whose tokens hold again is JSON: {\"subject\": \"...\"}, or \
                       {\"everybody\": true}\n";
            return (StatusCode::BAD_REQUEST, why).into_response();
        }
    };
    let guard = Arc::clone(guard);
    let shared = Arc::clone(&shared);
    to_its_end(async move {
        let answer = match guard.forgive(subject.clone()).await {
            Ok(true) => StatusCode::NO_CONTENT.into_response(),
            Ok(false) => (StatusCode::NOT_FOUND, "no such tokens were ended\n").into_response(),
            Err(error) => failed(&error.to_string()),
        };
        let (who, outcome) = (pass::who(&pass, address), answer.status().as_u16());
        shared.rooms.audit().act("forgive", &who, subject.as_deref(), outcome);
        answer
    })
    .await
}

/// What an admin says, whose token has not ended by the end of that.
async fn words_of_admin(shared: &Shared, pass: &Pass, request: Request) -> Result<Bytes, Response> {
    if let Some(refused) = pass::refusal_unless_admin(pass) {
        return Err(refused);
    }
    let bytes = body(request, LOGIN_SIZE_MAX).await?;
    match pass::refusal_if_ended(shared, pass) {
        Some(refused) => Err(refused),
        None => Ok(bytes),
    }
}

fn no_tokens() -> Response {
    let why = "a server with --dev has no tokens: it asks nobody for one\n";
    (StatusCode::NOT_FOUND, why).into_response()
}

fn answered(revoked: Result<(), RevokeError>) -> Response {
    match revoked {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error @ RevokeError::Revocation(RevocationError::Name)) => {
            (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response()
        }
        Err(error) => failed(&error.to_string()),
    }
}
