//! `/v1/documents`: which there are, and a new one of a SQLite file.

use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::Json;
use axum::body::HttpBody as _;
use axum::extract::{Path as UrlPath, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tidelog_access::Role;
use tidelog_types::limits::IMPORT_SIZE_MAX;
use tokio::task::spawn_blocking;

use super::act::to_its_end;
use super::pass::Address;
use super::{failed, pass, sent};
use crate::access::Pass;
use crate::export::Exported;
use crate::import::{self, ImportError};
use crate::shared::Shared;

/// Which documents somebody wants to know of.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// Those whose names begin so.
    #[serde(default)]
    prefix: String,
    /// Those behind this name.
    after: Option<String>,
    /// At most so many: of none nobody could say where the next page begins.
    limit: Option<NonZeroUsize>,
}

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    pass: Pass,
    Query(page): Query<Page>,
) -> Response {
    self::page(&shared, pass, page).await
}

/// The names on this page that may be read, sorted byte by byte, and where the next page begins.
pub(super) async fn page(shared: &Arc<Shared>, pass: Pass, page: Page) -> Response {
    // Of many documents their names are many MiB.
    let turn = match shared.exports.turn(pass.subject()) {
        Ok(turn) => turn,
        Err(why) => return failed(why),
    };
    let Some(documents) = shared.store.documents().await else {
        return failed("the store does not answer");
    };
    let sent_by = (shared, pass.clone());
    // Each name is held against each grant: who has many of both keeps nobody else waiting.
    let listed = spawn_blocking(move || {
        let names = documents.into_iter().map(|key| key.document);
        let Page { prefix, after, limit } = page;
        let is_meant = |name: &String| {
            name.starts_with(&prefix)
                && after.as_ref().is_none_or(|after| name > after)
                && pass.for_document(name).is_some()
        };
        let mut names: Vec<String> = names.filter(is_meant).collect();
        names.sort_unstable();
        let limit = limit.map_or(usize::MAX, NonZeroUsize::get);
        let is_last = names.len() <= limit;
        names.truncate(limit);
        let mut listed = json!({ "documents": names });
        if !is_last {
            listed["next"] = json!(names.last());
        }
        Exported::of(listed.to_string().into())
    });
    match listed.await {
        Ok(listed) => sent("application/json", listed, turn, sent_by),
        Err(_) => failed("the names could not be listed"),
    }
}

/// What a file is to become.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    doctype: String,
}

pub(super) async fn import(
    State(shared): State<Arc<Shared>>,
    UrlPath(id): UrlPath<String>,
    pass: Pass,
    address: Address,
    Query(Wanted { doctype }): Query<Wanted>,
    request: Request,
) -> Response {
    if let Some(refused) = pass::refusal(&pass, &id, Role::Admin) {
        return refused;
    }
    let body = request.into_body();
    if body.size_hint().lower() > IMPORT_SIZE_MAX {
        return refused(&ImportError::TooLarge);
    }
    let import = match import::prepare(&shared, &id, &doctype, pass.subject()).await {
        Ok(import) => import,
        Err(error) => return refused(&error),
    };
    let came = import.receive(body.into_data_stream(), &|| shared.check(&pass)).await;
    to_its_end(async move {
        let imported = match came {
            Ok(came) => came.plant(|| shared.check(&pass)).await,
            Err(error) => Err(error),
        };
        let answer = match imported {
            Ok(imported) => (StatusCode::CREATED, Json(imported)).into_response(),
            Err(error) => refused(&error),
        };
        let (who, outcome) = (pass::who(&pass, address), answer.status().as_u16());
        shared.rooms.audit().act("import", &who, Some(&id), outcome);
        answer
    })
    .await
}

fn refused(error: &ImportError) -> Response {
    match error {
        ImportError::Ended(error) => pass::refused_by(error),
        ImportError::LeftOut => pass::left_out(),
        error => (error.status(), format!("{error}\n")).into_response(),
    }
}
