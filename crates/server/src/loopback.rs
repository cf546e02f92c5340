//! Who may talk to a development server: pages and tools of the same machine.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Refuses requests that a page from elsewhere makes the browser send: by its origin, or by a name
/// that was made to point here.
pub(crate) async fn only(request: Request, next: Next) -> Response {
    if is_ours(request.headers()) {
        next.run(request).await
    } else {
        let why =
            "a server with --dev serves pages and tools of its own machine only, by localhost\n";
        (StatusCode::FORBIDDEN, why).into_response()
    }
}

/// Whether who asks with these headers is of this machine.
pub(crate) fn is_ours(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    text(header::ORIGIN).is_none_or(is_loopback_origin)
        && text(header::HOST).is_none_or(is_loopback_host)
}

/// For CORS: pages of another port of this machine may read answers.
pub(crate) fn allows_origin(origin: &HeaderValue) -> bool {
    origin.to_str().is_ok_and(is_loopback_origin)
}

fn is_loopback_origin(origin: &str) -> bool {
    origin.split_once("://").is_some_and(|(_, host)| is_loopback_host(host))
}

fn is_loopback_host(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "localhost:5173", "127.0.0.1:80", "[::1]:8787", "a.localhost"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["example.org", "localhost.example.org", "127.0.0.1.example.org:80", ""] {
            assert!(!is_loopback_host(host), "{host}");
        }
        assert!(is_loopback_origin("http://localhost:5173"));
        assert!(!is_loopback_origin("https://example.org"));
        assert!(!is_loopback_origin("null"));
    }
}
