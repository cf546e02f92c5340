//! `GET /v1/documents/{id}/streams`: what there is of each stream, for whoever runs the server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path as UrlPath, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tidelog_access::Role;
use tidelog_document::{
    EventPlace, FailedUpTo, InspectedStream, InspectedUpTo, StreamRef, WantedStreams,
};
use tidelog_room::{Answer, Ask};
use tidelog_types::DocumentKey;
use tokio::time::Instant;

use super::lines::{LINES_SIZE_MAX, page};
use super::{answered, failed, no_name, pass};
use crate::access::Pass;
use crate::shared::Shared;

/// Streams of one page.
pub(crate) const PAGE_STREAMS_MAX: u64 = 64;
/// For how long one page is put together, and for the stream that has begun by then.
const LOOKS_FOR: Duration = Duration::from_secs(20);

/// Which streams somebody wants to know of.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    aggregate: Option<String>,
    stream: Option<String>,
    /// Those behind this number.
    #[serde(default)]
    after: u64,
    limit: Option<u64>,
}

/// Each stream is looked at by itself, and a large one in parts: the room does other work between.
pub(super) async fn streams(
    State(shared): State<Arc<Shared>>,
    UrlPath(id): UrlPath<String>,
    pass: Pass,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Response> {
    if let Some(refused) = pass::refusal(&pass, &id, Role::Admin) {
        return Err(refused);
    }
    let wrong = |why: &str| (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response();
    let limit = wanted.limit.unwrap_or(PAGE_STREAMS_MAX);
    if !(1..=PAGE_STREAMS_MAX).contains(&limit) {
        return Err(wrong(&format!("limit is from 1 to {PAGE_STREAMS_MAX}")));
    }
    let document = DocumentKey::new(&id, "").map_err(|_| no_name())?;
    let _turn = shared.exports.turn(pass.subject()).map_err(failed)?;
    let look = Look { shared: &shared, document: &document, pass: &pass };
    match wanted {
        Wanted { aggregate: Some(aggregate), stream: Some(stream), .. } => {
            look.at_one(StreamRef { aggregate, stream }).await
        }
        Wanted { stream: Some(_), .. } => {
            Err(wrong("a stream is named with its aggregate: ?aggregate=...&stream=..."))
        }
        Wanted { aggregate, after, .. } => {
            look.at_all(WantedStreams { aggregate, after, limit }).await
        }
    }
}

struct Look<'l> {
    shared: &'l Arc<Shared>,
    document: &'l DocumentKey,
    pass: &'l Pass,
}

impl Look<'_> {
    async fn ask(&self, ask: Ask) -> Result<Answer, Response> {
        pass::refusal_if_ended(self.shared, self.pass).map_or(Ok(()), Err)?;
        Ok(self.shared.rooms.ask(self.document, ask).await)
    }

    #[expect(clippy::result_large_err, reason = "an answer, of which there is one a request")]
    fn no_answer<T>(&self, answer: Answer) -> Result<T, Response> {
        Err(answered(&self.document.document, answer))
    }

    async fn at_one(&self, stream: StreamRef) -> Result<Response, Response> {
        let inspected = self.inspect(&stream).await?;
        let failed = self.failed().await?.remove(&stream).unwrap_or(0);
        let has_any = inspected.number.is_some() || inspected.received + inspected.started > 0;
        if !has_any && failed == 0 {
            return Err((StatusCode::NOT_FOUND, "no such stream\n").into_response());
        }
        let after = inspected.number.unwrap_or(0);
        Ok(page(line(&stream, &inspected, failed), (after, false)))
    }

    async fn at_all(&self, wanted: WantedStreams) -> Result<Response, Response> {
        let ends_at = Instant::now() + LOOKS_FOR;
        let after = wanted.after;
        let found = match self.ask(Ask::Streams(wanted)).await? {
            Answer::Streams(found) => found,
            answer => return self.no_answer(answer),
        };
        let failed = match found.streams.is_empty() {
            true => BTreeMap::new(),
            false => self.failed().await?,
        };
        let (mut text, count) = (String::new(), found.streams.len());
        for (nth, (number, stream)) in found.streams.iter().enumerate() {
            let inspected = self.inspect(stream).await?;
            text += &line(stream, &inspected, failed.get(stream).copied().unwrap_or(0));
            let is_full = text.len() >= LINES_SIZE_MAX || Instant::now() >= ends_at;
            if is_full && nth + 1 < count {
                return Ok(page(text, (*number, true)));
            }
        }
        let last = found.streams.last().map_or(after, |(number, _)| *number);
        Ok(page(text, (found.next.unwrap_or(last), found.next.is_some())))
    }

    /// All of one, part by part.
    async fn inspect(&self, stream: &StreamRef) -> Result<InspectedStream, Response> {
        let (mut all, mut after) = (InspectedStream::default(), InspectedUpTo::default());
        loop {
            let part = match self.ask(Ask::Stream(stream.clone(), after)).await? {
                Answer::Stream(part) => part,
                answer => return self.no_answer(answer),
            };
            let next = part.next;
            all.add(part);
            match next {
                Some(next) => after = next,
                None => return Ok(all),
            }
        }
    }

    /// How many commands of each stream have failed.
    async fn failed(&self) -> Result<BTreeMap<StreamRef, u64>, Response> {
        let (mut counts, mut after) = (BTreeMap::new(), FailedUpTo::default());
        loop {
            let failed = match self.ask(Ask::FailedCommands(after)).await? {
                Answer::FailedCommands(failed) => failed,
                answer => return self.no_answer(answer),
            };
            for (stream, count) in failed.counts {
                *counts.entry(stream).or_insert(0) += count;
            }
            match failed.next {
                Some(next) => after = next,
                None => return Ok(counts),
            }
        }
    }
}

fn line(stream: &StreamRef, inspected: &InspectedStream, failed: u64) -> String {
    let place = |place: &Option<EventPlace>| {
        place.map(
            |it| json!({ "sequence": it.sequence, "position": it.position, "time": it.time_ms }),
        )
    };
    let types: Vec<Value> = inspected
        .kinds
        .iter()
        .map(|it| json!({ "type": it.name, "version": it.version, "events": it.count }))
        .collect();
    let holder = inspected.holder.as_ref().map(|it| {
        json!({
            "command": it.command,
            "instance": it.instance,
            "client": it.client,
            "user": it.user,
        })
    });
    let snapshots: Vec<Value> = inspected
        .states
        .iter()
        .map(|it| json!({ "name": it.name, "position": it.position, "bytes": it.size }))
        .collect();
    let sum = |of: fn(&tidelog_document::EventsOfKind) -> u64| {
        inspected.kinds.iter().map(of).sum::<u64>()
    };
    let line = json!({
        "number": inspected.number,
        "aggregate": stream.aggregate,
        "stream": stream.stream,
        "events": sum(|it| it.count),
        "archived": inspected.archived,
        "erased": sum(|it| it.erased),
        "bytes": sum(|it| it.size),
        "first": place(&inspected.first),
        "last": place(&inspected.last),
        "types": types,
        "received": inspected.received,
        "started": inspected.started,
        "failed": failed,
        "holder": holder,
        "snapshots": snapshots,
    });
    format!("{line}\n")
}
