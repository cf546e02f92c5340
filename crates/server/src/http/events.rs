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
use crate::archive;
use crate::shared::Shared;

/// How often an archive is asked anew where more events have left the document meanwhile.
const TRIES_MAX: u32 = 8;

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
    let mut answer = shared.rooms.ask(&document, Ask::Events(wanted.clone(), None)).await;
    // Once more where more have left meanwhile.
    for _ in 0..TRIES_MAX {
        let Answer::Events(FoundEvents::Archived(place)) = answer else { break };
        let archived = match archive::read(&shared.rooms, &document, &wanted, place).await {
            Ok(Some(archived)) => Arc::new(archived),
            Ok(None) => return elsewhere(place.up_to),
            Err(answer) => return answered(&id, answer),
        };
        answer = shared.rooms.ask(&document, Ask::Events(wanted.clone(), Some(archived))).await;
    }
    match answer {
        Answer::Events(FoundEvents::Some(rows)) => {
            let lines = Lines::of(&rows, "data");
            let last = lines.last().unwrap_or(after);
            lines.answer((last, true))
        }
        Answer::Events(FoundEvents::NoneUpTo(seen)) => nothing().answer((seen, true)),
        Answer::Events(FoundEvents::None(last)) => nothing().answer((last, false)),
        Answer::Events(FoundEvents::Archived(_)) => failed("events are being archived"),
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
