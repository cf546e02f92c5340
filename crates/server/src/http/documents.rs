//! `/v1/documents`: which there are.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::{TOO_MANY_EXPORTS, failed, sent};
use crate::access::Pass;
use crate::export::Exported;
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
    /// At most so many.
    limit: Option<usize>,
}

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    pass: Pass,
    Query(page): Query<Page>,
) -> Response {
    self::page(&shared, &pass, page).await
}

/// The names on this page that may be read, sorted byte by byte, and where the next page begins.
pub(super) async fn page(shared: &Arc<Shared>, pass: &Pass, page: Page) -> Response {
    // Of many documents their names are many MiB.
    let Ok(turn) = Arc::clone(&shared.exports).try_acquire_owned() else {
        return failed(TOO_MANY_EXPORTS);
    };
    let Some(documents) = shared.store.documents().await else {
        return failed("the store does not answer");
    };
    let names = documents.into_iter().map(|key| key.document);
    let Page { prefix, after, limit } = page;
    let is_meant = |name: &String| {
        name.starts_with(&prefix)
            && after.as_ref().is_none_or(|after| name > after)
            && pass.for_document(name).is_some()
    };
    let mut names: Vec<String> = names.filter(is_meant).collect();
    names.sort_unstable();
    let limit = limit.unwrap_or(usize::MAX);
    let is_last = names.len() <= limit;
    names.truncate(limit);
    let next = names.last().filter(|_| !is_last);
    let listed = Exported::of(json!({ "documents": names, "next": next }).to_string().into());
    sent("application/json", listed, turn)
}
