//! `POST /v1/documents/{id}/events/archive`: events that precede a state that is kept leave the
//! document, for its archive.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tidelog_document::{ArchiveRefusal, StreamRef, WantedStreams};
use tidelog_room::{Answer, Ask};
use tidelog_types::limits::EVENT_SIZE_MAX;
use tokio::time::Instant;

use super::act::Act;
use super::answered;
use super::pass::Address;
use crate::access::Pass;
use crate::archive::{ArchiveError, Archived};
use crate::shared::Shared;

/// Bytes of a request: it names a stream, which is no longer than an event.
const BODY_SIZE_MAX: usize = 2 * EVENT_SIZE_MAX;
/// For how long one request archives, and for the part that has begun by then: whoever asks hears
/// often how far it has come.
const ARCHIVES_FOR: Duration = Duration::from_secs(5);
/// Streams that are looked for at a time.
const STREAMS_AT_ONCE: u64 = 64;

/// What is to be archived.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct What {
    aggregate: String,
    stream: Option<String>,
    /// Streams behind this number.
    #[serde(default)]
    after: u64,
}

/// What has come of it.
#[derive(Default)]
struct Sum {
    events: u64,
    streams: u64,
    without_state: u64,
    awaited: u64,
}

pub(super) async fn archive(
    State(shared): State<Arc<Shared>>,
    UrlPath(id): UrlPath<String>,
    pass: Pass,
    address: Address,
    request: Request,
) -> Result<Response, Response> {
    let act = Act::by_admin("archive", &shared, &id, (pass, address))?;
    let what = act.body(request, BODY_SIZE_MAX, what_of).await?;
    Ok(act.carry_out(async move |act: Arc<Act>| archive_for_a_while(&act, what).await).await)
}

fn what_of(bytes: &[u8]) -> Result<What, String> {
    serde_json::from_slice(bytes).map_err(|error| {
        format!(
            "what is archived is JSON: {{\"aggregate\": \"...\"}}, or that and \
             {{\"stream\": \"...\"}}: {error}"
        )
    })
}

/// Archives part by part, as long as the pass holds, and answers how far it has come.
async fn archive_for_a_while(
    act: &Act,
    What { aggregate, stream, mut after }: What,
) -> Result<Response, Response> {
    let ends_at = Instant::now() + ARCHIVES_FOR;
    let mut sum = Sum::default();
    if let Some(stream) = stream {
        let is_done = sum.add(act, &StreamRef { aggregate, stream }, ends_at, true).await?;
        return Ok(sum.answer((!is_done).then_some(after)));
    }
    loop {
        let (aggregate, limit) = (Some(aggregate.clone()), STREAMS_AT_ONCE);
        let found = match act.ask(Ask::Streams(WantedStreams { aggregate, after, limit })).await {
            Answer::Streams(found) => found,
            answer => return Err(answered(act.document(), answer)),
        };
        for (number, stream) in &found.streams {
            if !sum.add(act, stream, ends_at, false).await? {
                return Ok(sum.answer(Some(after)));
            }
            after = *number;
        }
        match found.next {
            None => return Ok(sum.answer(None)),
            Some(next) => after = next,
        }
        if Instant::now() >= ends_at {
            return Ok(sum.answer(Some(after)));
        }
    }
}

impl Sum {
    /// Archives of that stream what can be. Says whether all of it is.
    async fn add(
        &mut self,
        act: &Act,
        stream: &StreamRef,
        ends_at: Instant,
        is_named: bool,
    ) -> Result<bool, Response> {
        let mut events = 0;
        let is_done = loop {
            act.check()?;
            let archived = match act.archive(stream).await {
                Ok(archived) => archived,
                Err(ArchiveError::Refused(ArchiveRefusal::NoState)) => {
                    self.without_state += 1;
                    break true;
                }
                // It is gone since it was found: the document is another one.
                Err(ArchiveError::Refused(ArchiveRefusal::Unknown)) if !is_named => break true,
                Err(error) => return Err(refused(act, error)),
            };
            let Archived { events: more, has_more, is_awaited } = archived;
            events += more;
            if !has_more {
                self.awaited += u64::from(is_awaited);
                break true;
            }
            if Instant::now() >= ends_at {
                break false;
            }
        };
        self.note(events, is_done);
        Ok(is_done)
    }

    /// So many events of a stream have left. One that is not done counts where it is: there is more
    /// of it to leave, by another request.
    fn note(&mut self, events: u64, is_done: bool) {
        self.events += events;
        self.streams += u64::from(is_done && events > 0);
    }

    fn answer(&self, next: Option<u64>) -> Response {
        Json(json!({
            "events": self.events,
            "streams": self.streams,
            "without_state": self.without_state,
            "awaited": self.awaited,
            "next": next,
        }))
        .into_response()
    }
}

fn refused(act: &Act, error: ArchiveError) -> Response {
    let refusal = match error {
        ArchiveError::Refused(refusal) => refusal,
        ArchiveError::Answered(answer) => return answered(act.document(), *answer),
    };
    let status = match refusal {
        ArchiveRefusal::Unknown => StatusCode::NOT_FOUND,
        ArchiveRefusal::NoStreams | ArchiveRefusal::NoState | ArchiveRefusal::Elsewhere => {
            StatusCode::CONFLICT
        }
        ArchiveRefusal::Moved => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, format!("{refusal}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a stream that several requests archive counts once in their sum.
    #[test]
    fn a_stream_counts_where_it_is_done() {
        let (mut first, mut second) = (Sum::default(), Sum::default());
        first.note(7, true);
        first.note(0, true);
        first.note(256, false);
        second.note(44, true);
        assert_eq!([first.events + second.events, first.streams + second.streams], [307, 2]);
    }
}
