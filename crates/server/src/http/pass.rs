//! Who asks over HTTP: `Authorization: Bearer TOKEN`.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tidelog_access::{Pattern, Role, TokenError};

use crate::access::Pass;
use crate::audit::Who;
use crate::rooms::{MayStill, asking};
use crate::shared::Shared;

impl FromRequestParts<Arc<Shared>> for Pass {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Response> {
        let Some(guard) = &shared.guard else { return Ok(Self::Everything) };
        if let Some(Verified(verified)) = parts.extensions.remove() {
            return passed(verified);
        }
        let Some(token) = bearer(&parts.headers) else {
            let why = "a token is needed: log in by POST /v1/login, or ask the app for one, and \
                       send it as Authorization: Bearer TOKEN";
            return Err(unauthenticated(why, "no token"));
        };
        passed(guard.verify(token))
    }
}

#[expect(clippy::result_large_err, reason = "an answer, of which there is one a request")]
fn passed(verified: Result<Pass, TokenError>) -> Result<Pass, Response> {
    verified.map_err(|error| refused_by(&error))
}

/// In a request: what its token has turned out to be, which is looked at once.
#[derive(Clone)]
struct Verified(Result<Pass, TokenError>);

/// The address of whoever asks.
pub(super) struct Address(pub(super) Option<IpAddr>);

impl FromRequestParts<Arc<Shared>> for Address {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        shared: &Arc<Shared>,
    ) -> Result<Self, Infallible> {
        Ok(Self(shared.address(&parts.extensions, &parts.headers)))
    }
}

/// Who asks, for the log.
pub(super) fn who(pass: &Pass, Address(address): Address) -> Who {
    Who { subject: pass.subject().map(str::to_owned), address }
}

/// In an answer: it is a refusal for want of access, of which the log tells.
#[derive(Clone)]
struct Refused {
    subject: Option<String>,
    document: Option<String>,
    why: &'static str,
}

impl Refused {
    fn of(pass: &Pass, document: Option<&str>, why: &'static str) -> Self {
        let [subject, document] = [pass.subject(), document].map(|it| it.map(str::to_owned));
        Self { subject, document, why }
    }
}

/// Tells the log of whoever is refused for want of access.
pub(super) async fn audited(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let address = shared.address(request.extensions(), request.headers());
    let mut answer = next.run(request).await;
    if let Some(Refused { subject, document, why }) = answer.extensions_mut().remove() {
        let who = Who { subject, address };
        shared.rooms.audit().refused(&who, document.as_deref(), why);
    }
    answer
}

/// Has rooms do nothing for a token that has ended before they have begun it, which is answered so.
pub(super) async fn while_it_holds(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Response {
    let guard = shared.guard.as_deref();
    let token = guard.zip(bearer(request.headers()));
    let Some(verified) = token.map(|(guard, token)| guard.verify(token)) else {
        return next.run(request).await;
    };
    request.extensions_mut().insert(Verified(verified.clone()));
    let Ok(pass) = verified else { return next.run(request).await };
    let known = Arc::clone(&shared);
    let may_still: MayStill = Arc::new(move || known.check(&pass).is_ok());
    asking(Some(may_still), next.run(request)).await
}

/// What whoever asks is answered whose token had ended before that was begun.
pub(super) fn left_out() -> Response {
    unauthenticated("the token has ended: get a new one", "ended")
}

/// The token of a request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn unauthenticated(why: &str, code: &'static str) -> Response {
    let asks = [(header::WWW_AUTHENTICATE, "Bearer")];
    let refused = Extension(Refused::of(&Pass::Nothing, None, code));
    (StatusCode::UNAUTHORIZED, asks, refused, format!("{why}\n")).into_response()
}

/// What whoever asks is answered whose token does not allow this role with the document.
pub(super) fn refusal(pass: &Pass, document: &str, role: Role) -> Option<Response> {
    match pass.for_document(document) {
        Some(allowed) if allowed.role >= role => None,
        Some(_) => {
            let refused = Refused::of(pass, Some(document), "role");
            Some(forbidden(&format!("{role} on the document"), refused))
        }
        // As if it were not there, be it or not.
        None => {
            let refused = Refused::of(pass, Some(document), "no grant");
            Some((Extension(refused), super::missing()).into_response())
        }
    }
}

/// The same of whoever may neither handle the document's commands nor administer it.
pub(super) fn refusal_unless_handle(pass: &Pass, document: &str) -> Option<Response> {
    match pass.for_document(document) {
        Some(allowed) if allowed.handle => None,
        Some(allowed) if allowed.role < Role::Admin => {
            let refused = Refused::of(pass, Some(document), "role");
            Some(forbidden("admin, or handle, on the document", refused))
        }
        _ => refusal(pass, document, Role::Admin),
    }
}

/// The same of whoever may handle commands of no document that this pattern means.
pub(super) fn refusal_unless_handle_some(pass: &Pass, pattern: &Pattern) -> Option<Response> {
    let refused = || Refused::of(pass, None, "role");
    let is_refused = !pass.handles_some_of(pattern);
    is_refused.then(|| forbidden("handle on some of the documents", refused()))
}

/// The same of whoever is no admin of the whole server.
pub(super) fn refusal_unless_admin(pass: &Pass) -> Option<Response> {
    match pass.everywhere() {
        Some(Role::Admin) => None,
        _ => Some(forbidden("admin on *", Refused::of(pass, None, "role"))),
    }
}

/// What whoever asks is answered whose token has ended while the request was being said.
pub(super) fn refusal_if_ended(shared: &Shared, pass: &Pass) -> Option<Response> {
    shared.check(pass).err().map(|error| refused_by(&error))
}

/// What whoever asks is answered whose token is not taken.
pub(super) fn refused_by(error: &TokenError) -> Response {
    unauthenticated(&error.to_string(), error.code())
}

fn forbidden(role: &str, refused: Refused) -> Response {
    let why = format!("the token does not allow this: it takes the role {role}\n");
    (StatusCode::FORBIDDEN, Extension(refused), why).into_response()
}

/// Refuses requests of pages that are not served here.
pub(super) async fn of_pages(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    match &shared.guard {
        Some(guard) if !guard.serves(request.headers()) => {
            let why = "pages of this origin are not served: name it by --allow-origin\n";
            let refused = Extension(Refused::of(&Pass::Nothing, None, "origin"));
            (StatusCode::FORBIDDEN, refused, why).into_response()
        }
        _ => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_stands_behind_bearer() {
        let of = |value: &'static str| {
            let headers = [(header::AUTHORIZATION, HeaderValue::from_static(value))];
            bearer(&headers.into_iter().collect()).map(str::to_owned)
        };
        assert_eq!(of("Bearer a.b.c").as_deref(), Some("a.b.c"));
        assert_eq!(of("bearer  a.b.c ").as_deref(), Some("a.b.c"));
        for other in ["Basic a.b.c", "a.b.c", "Bearer", ""] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
