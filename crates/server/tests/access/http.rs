//! Roles over HTTP.

use crate::common::{
    Answer, ROLES, Scene, ask, ask_with, escaped, invalid_tokens, join_from, start, token,
};
use tidelog_server::AccessSettings;
use tidelog_sync::ByeReason;

const OWN: &str = "lists/own";
const ABSENT: &str = "lists/absent";

/// What is asked of a document: a method and what stands behind its path.
const REQUESTS: [(&str, &str); 3] = [("GET", ""), ("GET", "/export"), ("DELETE", "")];

async fn asks(scene: &Scene, method: &str, document: &str, behind: &str, token: &str) -> Answer {
    let path = format!("/v1/documents/{}{behind}", escaped(document));
    ask(scene.at, method, &path, Some(token), "").await
}

/// Goal: each role may do what it says, with a document that is there and with one that is not, and
/// who may not change one changes no byte of it. Method: every role asks for everything.
#[tokio::test(flavor = "multi_thread")]
async fn each_role_is_answered_what_it_may_have() {
    let scene = Scene::new(&[OWN, "lists/doomed admin", "lists/doomed root"]).await;
    let before = scene.bytes_of(OWN).await;
    for (role, grants) in ROLES {
        let token = token(grants);
        // Describe and export take read, a deletion takes admin.
        let expected = |is_there: bool| match role {
            "none" | "other" => [404, 404, 404],
            "read" | "write" | "create" if is_there => [200, 200, 403],
            "read" | "write" | "create" => [404, 404, 403],
            _ if is_there => [200, 200, 204],
            _ => [404, 404, 404],
        };
        for (document, is_there) in [(OWN, true), (ABSENT, false)] {
            let statuses = REQUESTS.into_iter().zip(expected(is_there));
            for ((method, behind), expected) in statuses {
                let own = format!("lists/doomed {role}").replace(' ', "%20");
                let document = if expected == 204 { own.as_str() } else { document };
                let answer = asks(&scene, method, document, behind, &token).await;
                assert_eq!(answer.status, expected, "{role} {method} {document}{behind}");
            }
        }
        assert_eq!(scene.bytes_of(OWN).await, before, "{role}");
    }
    scene.stop().await;
}

/// Goal: without a grant nobody learns which documents there are.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_grant_existing_and_absent_documents_look_alike() {
    let scene = Scene::new(&[OWN]).await;
    for (role, grants) in [ROLES[0], ROLES[1]] {
        for (method, behind) in REQUESTS {
            let token = token(grants);
            let existing = asks(&scene, method, OWN, behind, &token).await;
            let absent = asks(&scene, method, ABSENT, behind, &token).await;
            assert_eq!(existing, absent, "{role} {method} {behind}");
        }
    }
    // To a reader, one that is not there is as to whoever may not read it.
    let reader = asks(&scene, "GET", ABSENT, "", &token(ROLES[2].1)).await;
    let nobody = asks(&scene, "GET", ABSENT, "", &token(ROLES[0].1)).await;
    assert_eq!(reader, nobody);
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_may_be_read_is_listed() {
    let scene = Scene::new(&[OWN, "other/one", "third"]).await;
    for (role, grants) in ROLES {
        let expected = match role {
            "none" => "[]",
            "other" => "[\"other/one\"]",
            "root" => "[\"lists/own\",\"other/one\",\"third\"]",
            _ => "[\"lists/own\"]",
        };
        let answer = ask(scene.at, "GET", "/v1/documents", Some(&token(grants)), "").await;
        assert_eq!(answer.text(), format!("{{\"documents\":{expected}}}"), "{role}");
    }
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_answered_without_a_valid_token() {
    let scene = Scene::new(&[OWN]).await;
    let before = scene.bytes_of(OWN).await;
    for (what, token) in invalid_tokens() {
        for (method, behind) in REQUESTS.into_iter().chain([("LIST", "")]) {
            let path = match method {
                "LIST" => "/v1/documents".to_owned(),
                _ => format!("/v1/documents/{}{behind}", escaped(OWN)),
            };
            let method = method.replace("LIST", "GET");
            let answer = ask(scene.at, &method, &path, token.as_deref(), "").await;
            assert_eq!(answer.status, 401, "{what} {method} {path}");
            assert_eq!(answer.header("WWW-Authenticate").as_deref(), Some("Bearer"));
            let words = match what {
                "expired" => "the token has expired: get a new one",
                "none" => "a token is needed",
                _ => "the token",
            };
            assert!(answer.text().starts_with(words), "{what}: {}", answer.text());
        }
    }
    assert_eq!(scene.bytes_of(OWN).await, before);
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_answered_by_their_origin() {
    let data = tempfile::tempdir().expect("a folder");
    let allow_origins = vec!["https://app.example.org".to_owned()];
    let access = AccessSettings { allow_origins, ..crate::common::app_keys() };
    let server = start(data.path(), access).await;
    let at = server.address();
    let token = token(ROLES[6].1);
    let own = format!("http://{at}");
    for (origin, status, allowed) in [
        ("https://app.example.org", 200, Some("https://app.example.org")),
        (own.as_str(), 200, None),
        ("https://example.org", 403, None),
        ("null", 403, None),
    ] {
        let lines = format!("Origin: {origin}\r\nAuthorization: Bearer {token}\r\n");
        let answer = ask_with(at, "GET", "/v1/documents", &lines, "").await;
        assert_eq!(answer.status, status, "{origin}");
        assert_eq!(answer.header("Access-Control-Allow-Origin").as_deref(), allowed, "{origin}");
        assert_eq!(answer.header("Access-Control-Allow-Credentials"), None);
        let lines = format!("Origin: {origin}\r\n");
        let login = ask_with(at, "POST", "/v1/login", &lines, "{}").await;
        assert_eq!(login.status == 403, status == 403, "{origin}");
    }
    let asks = "Origin: https://app.example.org\r\nAccess-Control-Request-Method: DELETE\r\n\
                Access-Control-Request-Headers: authorization\r\n";
    let answer = ask_with(at, "OPTIONS", "/v1/documents/x", asks, "").await;
    let headers = answer.header("Access-Control-Allow-Headers").expect("some");
    assert!(headers.contains("authorization"), "{headers}");

    for (origin, is_served) in [
        ("https://app.example.org", true),
        ("https://example.org", false),
        ("http://localhost:5173", false),
    ] {
        let joined = join_from(at, Some(&token), &[("Origin", origin)]).await;
        assert_eq!(joined.err(), (!is_served).then_some(ByeReason::Origin), "{origin}");
    }
    let of_host = [("Origin", "https://sync.example.org"), ("Host", "sync.example.org")];
    assert!(join_from(at, Some(&token), &of_host).await.is_ok(), "its own host");
    server.stop().await;
}

/// Goal: no token is in a URL, which logs and histories keep. Method: it is said there, as some
/// servers take it.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_a_url_opens_nothing() {
    let scene = Scene::new(&["lists/own"]).await;
    let root = token(ROLES[6].1);
    for name in ["token", "access_token", "authorization"] {
        for path in ["/v1/documents", "/v1/documents/lists%2Fown", "/v1/doctypes"] {
            let answer = ask(scene.at, "GET", &format!("{path}?{name}={root}"), None, "").await;
            assert_eq!(answer.status, 401, "{name} {path}");
        }
    }
    scene.stop().await;
}
