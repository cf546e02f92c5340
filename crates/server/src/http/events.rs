//! `GET /v1/documents/{id}/events`: what has happened, a page at a time.

use std::sync::Arc;

use axum::extract::{Path as UrlPath, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tidelog_access::Role;
use tidelog_document::{FoundEvents, WantedEvents};
use tidelog_room::{Answer, Ask};
use tidelog_types::{DocumentKey, Rows};

use super::lines::Lines;
use super::{answered, failed, no_name, pass};
use crate::access::Pass;
use crate::archive::{self, Read};
use crate::shared::Shared;

/// Which events somebody wants to know of.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    aggregate: Option<String>,
    stream: Option<String>,
    #[serde(rename = "type")]
    name: Option<String>,
    /// Those behind this sequence number.
    #[serde(default)]
    after: u64,
}

/// Whoever asks has it read in one bounded query, and takes it at a pace of their own.
pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    UrlPath(id): UrlPath<String>,
    pass: Pass,
    Query(wanted): Query<Wanted>,
) -> Response {
    if let Some(refused) = pass::refusal(&pass, &id, Role::Read) {
        return refused;
    }
    let Ok(document) = DocumentKey::new(&id, "") else { return no_name() };
    // What is read may be many MiB, of which the answer has some.
    let _turn = match shared.exports.turn(pass.subject()) {
        Ok(turn) => turn,
        Err(why) => return failed(why),
    };
    let Wanted { aggregate, stream, name, after } = wanted;
    let types = name.into_iter().collect();
    let wanted = WantedEvents { aggregate, stream, types, after };
    let answer = match archive::read(&shared.rooms, &document, &wanted, Ask::Events).await {
        Ok(Read::Found(found, _)) => Answer::Events(found),
        Ok(Read::Elsewhere(up_to)) => return elsewhere(up_to),
        Err(answer) => answer,
    };
    match answer {
        Answer::Events(FoundEvents::Some(rows)) => {
            let lines = Lines::of(&rows, "data");
            let last = lines.last().unwrap_or(after);
            lines.answer((last, true))
        }
        Answer::Events(FoundEvents::NoneUpTo(seen)) => nothing().answer((seen, true)),
        Answer::Events(FoundEvents::None(last)) => nothing().answer((last, false)),
        answer => answered(&id, answer),
    }
}

/// What is said of events that have left a document before it was copied here.
fn elsewhere(up_to: u64) -> Response {
    let why = format!(
        "events up to {up_to} are archived, and that archive is not here: the document was made of \
         a file\n"
    );
    (StatusCode::CONFLICT, why).into_response()
}

fn nothing() -> Lines {
    Lines::of(&Rows::default(), "data")
}
