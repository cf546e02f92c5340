//! Everything over HTTP but the sync itself.

mod act;
mod append;
mod archive;
mod commands;
mod doctypes;
mod documents;
mod due;
mod erase;
mod events;
mod lines;
mod login;
mod migrate;
mod pass;
mod replay;
mod streams;
mod tokens;

use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _, to_bytes};
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use futures_util::StreamExt as _;
use hyper::upgrade::OnUpgrade;
use serde_json::json;
use tidelog_access::Role;
use tidelog_room::{Answer, Ask, Service};
use tidelog_sync::ByeReason;
use tidelog_types::DocumentKey;
use tidelog_types::limits::PAGE_SIZE;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::services::ServeDir;
use tower_http::set_header::SetResponseHeaderLayer;
use tracing::debug;

use crate::access::{Guard, Pass};
use crate::audit::Who;
use crate::door::Upgrade;
use crate::export::{Exported, Turn};
use crate::shared::Shared;
use crate::{export, loopback, socket};
pub(crate) use append::APPEND_EVENTS_MAX;
pub(crate) use due::DueListeners;
pub(crate) use lines::{AFTER, MORE};
use pass::Address;
pub(crate) use streams::PAGE_STREAMS_MAX;

/// Bytes of a file that are read at once: each visitor who takes one has some of these in memory.
const FILE_PIECE_SIZE: usize = 8 * 1024;

/// Within which time a request's body has to come.
const BODY_TAKES: Duration = Duration::from_secs(10);
/// For how long browsers may remember what a page may ask.
const PREFLIGHT_STAYS: Duration = Duration::from_secs(600);

type Ours = State<Arc<Shared>>;

/// All that the server answers.
pub(crate) fn router(shared: Arc<Shared>, examples: Option<&Path>) -> Router {
    let of_tokens = Router::new()
        .route("/v1/login", post(login::login))
        .route("/v1/logout", post(tokens::log_out))
        .route("/v1/revoke", post(tokens::revoke))
        .route("/v1/forgive", post(tokens::forgive));
    let mut api = Router::new()
        .route("/v1/doctypes", get(doctypes::list))
        .route("/v1/doctypes/{name}", get(doctypes::newest).put(doctypes::deploy))
        .route("/v1/due", get(due::due))
        .route("/v1/documents", get(documents::list))
        .route("/v1/documents/{id}", get(describe).put(documents::import).delete(destroy))
        .route("/v1/documents/{id}/export", get(export))
        .route("/v1/documents/{id}/erase", post(erase::erase))
        .route("/v1/documents/{id}/events", get(events::events).post(append::append))
        .route("/v1/documents/{id}/events/archive", post(archive::archive))
        .route("/v1/documents/{id}/events/migrate", post(migrate::migrate))
        .route("/v1/documents/{id}/events/replay", post(replay::replay))
        .route("/v1/documents/{id}/streams", get(streams::streams))
        .route("/v1/documents/{id}/commands", get(commands::list))
        .route("/v1/documents/{id}/commands/retry", post(commands::retry))
        .route("/v1/documents/{id}/commands/cancel", post(commands::cancel))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&shared), pass::while_it_holds))
        .merge(of_tokens);
    api = match shared.guard.clone() {
        None => {
            let origin = AllowOrigin::predicate(|origin, _| loopback::allows_origin(origin));
            let cors =
                CorsLayer::new().allow_origin(origin).allow_methods([Method::GET, Method::DELETE]);
            api.layer(cors)
        }
        // No cookie says who asks, and so no page has anything to lend.
        Some(guard) => {
            let origin = AllowOrigin::predicate(move |origin, _| guard.allows_origin(origin));
            let cors = CorsLayer::new()
                .allow_origin(origin)
                .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
                .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
                .max_age(PREFLIGHT_STAYS);
            let of_pages = middleware::from_fn_with_state(Arc::clone(&shared), pass::of_pages);
            api.layer(cors).layer(of_pages)
        }
    };
    let is_dev = shared.guard.is_none();
    let mut router = api
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), pass::audited))
        .with_state(Arc::clone(&shared));
    if let Some(folder) = examples {
        router = with_examples(router, folder);
    }
    if is_dev {
        router = router.layer(middleware::from_fn(loopback::only));
    }
    // A page is told there why it is refused, since browsers keep the answers of a handshake to
    // themselves.
    let of_sync = Router::new().route("/v1/sync", get(sync));
    let audited = middleware::from_fn_with_state(Arc::clone(&shared), pass::audited);
    router.merge(of_sync.layer(audited).with_state(shared))
}

async fn sync(
    State(shared): Ours,
    Extension(connection): Extension<Upgrade>,
    mut request: Request,
) -> Response {
    if shared.is_stopping() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the server goes down\n").into_response();
    }
    let Some(accept) = accepted(request.headers()) else {
        return (StatusCode::BAD_REQUEST, "a WebSocket handshake is expected\n").into_response();
    };
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return (StatusCode::UPGRADE_REQUIRED, "this connection stays HTTP\n").into_response();
    };
    // Taken before the connection is: a crowd that comes at once is no larger than any other.
    let Ok(seat) = Arc::clone(&shared.seats).try_acquire_owned() else {
        return failed("too many connections");
    };
    let address = shared.address(request.extensions(), request.headers());
    let Ok(greeting) = shared.greeting(address) else {
        return failed("too many connections of this address are not let in yet");
    };
    let is_served = match &shared.guard {
        None => loopback::is_ours(request.headers()),
        Some(guard) => guard.serves(request.headers()),
    };
    if !is_served {
        let (origin, host) =
            [header::ORIGIN, header::HOST].map(|it| request.headers().get(it)).into();
        // A page may be refused as often as it likes.
        debug!(?origin, ?host, "refused: this server does not serve that page");
    }
    if !is_served && shared.guard.is_some() {
        let who = Who { subject: None, address };
        shared.rooms.audit().refused(&who, None, "origin");
    }
    let refusal = (!is_served).then_some(ByeReason::Origin);
    tokio::spawn(async move {
        let _seat = seat;
        // A client that is gone already is nobody to serve.
        if let Ok(upgraded) = upgrade.await {
            connection.done();
            socket::serve(upgraded, shared, address, refusal, greeting).await;
        }
    });
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// The answer to the key of a WebSocket handshake, if these are the headers of one.
fn accepted(headers: &HeaderMap) -> Option<HeaderValue> {
    let has = |name: HeaderName, word: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).is_some_and(|value| {
            value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
        })
    };
    let is_handshake = has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| is_handshake)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}

async fn readyz(State(shared): Ours) -> Response {
    match shared.readiness() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => failed(&format!("not ready: {why}")),
    }
}

/// This machine asks no further, unless through a proxy; whoever else does needs a token.
async fn metrics(
    State(shared): Ours,
    Address(address): Address,
    headers: HeaderMap,
    pass: Result<Pass, Response>,
) -> Response {
    let is_open = |guard: &Arc<Guard>| guard.opens_metrics(address, &headers);
    if !shared.guard.as_ref().is_none_or(is_open) {
        let refused = match pass {
            Ok(pass) => pass::refusal_unless_admin(&pass),
            Err(refused) => Some(refused),
        };
        if let Some(refused) = refused {
            return refused;
        }
    }
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    let outbox_size = shared.outbox_size();
    let is_ready = shared.readiness().is_ok();
    (kind, shared.counters.text(outbox_size, is_ready, shared.certificate_left_s())).into_response()
}

async fn describe(State(shared): Ours, UrlPath(id): UrlPath<String>, pass: Pass) -> Response {
    ask(&shared, &id, &pass, Role::Read, Ask::Describe).await
}

async fn export(State(shared): Ours, UrlPath(id): UrlPath<String>, pass: Pass) -> Response {
    if let Some(refused) = pass::refusal(&pass, &id, Role::Read) {
        return refused;
    }
    let Ok(document) = DocumentKey::new(&id, "") else { return no_name() };
    let turn = match shared.exports.turn(pass.subject()) {
        Ok(turn) => turn,
        Err(why) => return failed(why),
    };
    match export::export(&shared, &document).await {
        Ok(exported) => sent("application/vnd.sqlite3", exported, turn, (&shared, pass)),
        Err(answer) => answered(&id, answer),
    }
}

/// It is an export until its last piece has been taken, which may take hours: it ends too early
/// where the pass ends by which it was asked for.
fn sent<R: Read + Send + 'static>(
    kind: &'static str,
    exported: Exported<R>,
    turn: Turn,
    (shared, pass): (&Arc<Shared>, Pass),
) -> Response {
    let shared = Arc::clone(shared);
    let holds = move |piece| match shared.check(&pass) {
        Ok(()) => piece,
        Err(_) => Err(ErrorKind::PermissionDenied.into()),
    };

    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_LENGTH, HeaderValue::from(exported.size)),
    ];
    (headers, Body::from_stream(exported.pieces(turn).map(holds))).into_response()
}

async fn destroy(
    State(shared): Ours,
    UrlPath(id): UrlPath<String>,
    pass: Pass,
    address: Address,
) -> Response {
    if let Some(refused) = pass::refusal(&pass, &id, Role::Admin) {
        return refused;
    }
    let Ok(document) = DocumentKey::new(&id, "") else { return no_name() };
    act::to_its_end(async move {
        let answer = answered(&id, crate::archive::destroy(&shared.rooms, &document).await);
        let (who, outcome) = (pass::who(&pass, address), answer.status().as_u16());
        shared.rooms.audit().act("delete", &who, Some(&id), outcome);
        answer
    })
    .await
}

/// Asks the document's room what takes this role.
async fn ask(shared: &Arc<Shared>, id: &str, pass: &Pass, role: Role, ask: Ask) -> Response {
    if let Some(refused) = pass::refusal(pass, id, role) {
        return refused;
    }
    let Ok(document) = DocumentKey::new(id, "") else { return no_name() };
    answered(id, shared.rooms.ask(&document, ask).await)
}

/// The body of a request, if it has at most so many bytes and comes in time.
async fn body(request: Request, size_max: usize) -> Result<Bytes, Response> {
    let too_large = || {
        let why = format!("the body has more than {size_max} bytes\n");
        (StatusCode::PAYLOAD_TOO_LARGE, why).into_response()
    };
    let body = request.into_body();
    if body.size_hint().lower() > size_max as u64 {
        return Err(too_large());
    }
    match timeout(BODY_TAKES, to_bytes(body, size_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body is late\n").into_response()),
    }
}

fn missing() -> Response {
    (StatusCode::NOT_FOUND, "no such document\n").into_response()
}

fn no_name() -> Response {
    (StatusCode::BAD_REQUEST, "no document can have that name\n").into_response()
}

fn answered(id: &str, answer: Answer) -> Response {
    match answer {
        Answer::Missing => missing(),
        Answer::Description { position, db_pages, subscribers_count, doctype, service } => {
            Json(json!({
                "document": id,
                "state": match service {
                    Service::Full => "whole",
                    Service::ReadOnly => "read-only",
                    Service::None => "incomplete",
                },
                "doctype": doctype,
                "journal": position.journal.to_hex(),
                "next_lsn": position.next.get(),
                "size_bytes": u64::from(db_pages) * PAGE_SIZE as u64,
                "clients": subscribers_count,
            }))
            .into_response()
        }
        Answer::OfOther
        | Answer::Tried { .. }
        | Answer::Erased(_)
        | Answer::Upcast(_)
        | Answer::Archivable(_)
        | Answer::TakenIn(_)
        | Answer::Archived(_)
        | Answer::OtherArchive
        | Answer::Replayed(_)
        | Answer::Events(_)
        | Answer::Commands(_)
        | Answer::Streams(_)
        | Answer::Stream(_)
        | Answer::FailedCommands(_)
        | Answer::Intervened(_)
        | Answer::Appended(_)
        | Answer::Looked
        | Answer::Exporting
        | Answer::Destroyed => StatusCode::NO_CONTENT.into_response(),
        Answer::LeftOut => pass::left_out(),
        Answer::Failed { reason } => failed(&reason),
        Answer::Unknown { reason } => failed(&format!("{reason}: look whether it was done")),
    }
}

fn failed(reason: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response()
}

/// Each folder of `folder` that has a `dist` in it, under its name, and a page that links to them.
fn with_examples(mut router: Router, folder: &Path) -> Router {
    let mut links = String::new();
    for name in examples_in(folder) {
        let files = ServeDir::new(folder.join(&name).join("dist"));
        let files = files.with_buf_chunk_size(FILE_PIECE_SIZE);
        let below = format!("/{name}/");
        links.push_str(&format!("<li><a href=\"{below}\">{name}</a></li>\n"));
        let to = below.clone();
        router = router
            .route(&format!("/{name}"), get(move || async move { Redirect::permanent(&to) }))
            .nest_service(&below, files);
    }
    let page = format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>Tidelog examples</title>\n\
         <body style=\"font: 1.1rem system-ui; margin: 3rem\">\n\
         <h1>Tidelog</h1>\n<ul>\n{links}</ul>\n"
    );
    let fresh = SetResponseHeaderLayer::if_not_present(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache"),
    );
    router.route("/", get(move || async move { Html(page) })).layer(fresh)
}

fn examples_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join("dist").is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.chars().all(|it| it.is_ascii_alphanumeric() || it == '-'))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures_util::stream;
    use tidelog_room::RoomSettings;

    use super::*;
    use crate::rooms::tests::Scene;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_too_large_or_late_is_not_waited_for() {
        let of = body_of;
        assert_eq!(of(Body::from("12345")).await, Ok(Bytes::from("12345")));
        assert_eq!(of(Body::from("123456")).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
        let unsized_body = Body::from_stream(stream::iter(["123", "456"].map(io::Result::Ok)));
        assert_eq!(of(unsized_body).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
        let late = Body::from_stream(stream::pending::<io::Result<Bytes>>());
        let late = timeout(2 * BODY_TAKES, of(late)).await.expect("an answer");
        assert_eq!(late, Err(StatusCode::REQUEST_TIMEOUT));
    }

    async fn body_of(it: Body) -> Result<Bytes, StatusCode> {
        body(Request::new(it), 5).await.map_err(|refused| refused.status())
    }

    /// Goal: whoever sends clients here, and whoever watches, sees that the store hangs. Method: it
    /// says nothing for as long as that is taken for slow, and longer.
    #[tokio::test(start_paused = true)]
    async fn a_server_whose_store_does_not_answer_is_not_ready() {
        let scene = Scene::new(RoomSettings::default());
        let shared = Arc::new(Shared::of(&scene));
        let told = async || {
            let ready = readyz(State(Arc::clone(&shared))).await;
            let ours = State(Arc::clone(&shared));
            let pass = Ok(Pass::Everything);
            let numbers = metrics(ours, Address(None), HeaderMap::new(), pass).await;
            let text = |answer: Response| async {
                let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await;
                String::from_utf8(bytes.expect("a body").to_vec()).expect("a text")
            };
            let status = ready.status();
            let is_told = text(numbers).await.contains("\ntidelog_ready 1\n");
            (status, text(ready).await, is_told)
        };
        assert_eq!(told().await, (StatusCode::OK, "ready\n".to_owned(), true));
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(told().await.0, StatusCode::OK, "it may be slow");
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (status, why, is_told) = told().await;
        let why_not = "not ready: the store does not answer";
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(why.contains(why_not) && !is_told, "{why}");
    }

    /// Goal: however many ask for the names of all documents, which may be many MiB, the store and
    /// the server's memory hold only so many lists at once. Method: all turns are taken, then one
    /// is free.
    #[tokio::test]
    async fn there_are_only_so_many_lists_of_documents_at_once() {
        let scene = Scene::new(RoomSettings::default());
        let shared = Arc::new(Shared::of(&scene));
        let _own: Vec<_> = std::iter::from_fn(|| shared.exports.turn(None).ok()).collect();
        let status = async || {
            let query = documents::Page::default();
            documents::page(&shared, Pass::Everything, query).await.status()
        };
        assert_eq!(status().await, StatusCode::SERVICE_UNAVAILABLE);
        shared.exports.turns.add_permits(1);
        assert_eq!(status().await, StatusCode::OK);
    }
}
