//! Logins of the built-in users.

use serde_json::{Value, json};
use tidelog_access::Role;
use tidelog_types::limits::{LOGIN_FAILURES_MAX, LOGIN_SIZE_MAX};

use crate::common::{Answer, ask, join, start, with_passwords};

async fn log_in(at: std::net::SocketAddr, user: &str, password: &str) -> Answer {
    let body = json!({ "user": user, "password": password }).to_string();
    ask(at, "POST", "/v1/login", None, &body).await
}

fn token_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert!(body["expires_at"].as_u64().expect("a number") > 1_700_000_000);
    body["token"].as_str().expect("a text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_user_has_its_role_and_one_without_a_password_cannot_log_in() {
    let data = tempfile::tempdir().expect("a folder");
    let access = with_passwords(&[(Role::Admin, "a"), (Role::Read, "r")]);
    let server = start(data.path(), access).await;
    let at = server.address();
    for (user, password, deletes) in [("admin", "a", 404), ("reader", "r", 403)] {
        let token = token_of(&log_in(at, user, password).await);
        let deletes_it = ask(at, "DELETE", "/v1/documents/x", Some(&token), "").await;
        assert_eq!(deletes_it.status, deletes, "{user}");
        assert!(join(at, Some(&token)).await.is_ok());
    }
    let [wrong, unset, nobody] = [
        log_in(at, "admin", "r").await,
        log_in(at, "writer", "").await,
        log_in(at, "x", "a").await,
    ];
    assert_eq!(wrong.status, 401);
    assert_eq!((&wrong, &wrong), (&unset, &nobody), "nobody learns who there is");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_login_is_refused() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path(), with_passwords(&[(Role::Admin, "a")])).await;
    let at = server.address();
    for body in ["", "{}", "[]", r#"{"user":"admin","password":1}"#, r#"{"user":"admin"}"#] {
        assert_eq!(ask(at, "POST", "/v1/login", None, body).await.status, 400, "{body}");
    }
    let long = "x".repeat(LOGIN_SIZE_MAX);
    assert_eq!(log_in(at, "admin", &long).await.status, 413);
    assert_eq!(ask(at, "GET", "/v1/login", None, "").await.status, 405);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_fails_too_often_has_to_wait() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path(), with_passwords(&[(Role::Admin, "a")])).await;
    let at = server.address();
    let token = token_of(&log_in(at, "admin", "a").await);
    for _ in 0..LOGIN_FAILURES_MAX {
        assert_eq!(log_in(at, "admin", "wrong").await.status, 401);
    }
    let refused = log_in(at, "admin", "a").await;
    assert_eq!(refused.status, 429);
    let after: u64 = refused.header("Retry-After").expect("when").parse().expect("seconds");
    assert!((1..=10).contains(&after), "{after}");
    assert!(join(at, Some(&token)).await.is_ok(), "who is logged in stays so");
    server.stop().await;
}

/// Goal: a restart ends no login, and a new password those of its user alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_ends_the_tokens_of_its_user_and_a_restart_ends_none() {
    let data = tempfile::tempdir().expect("a folder");
    let users = [(Role::Admin, "a"), (Role::Read, "r")];
    let server = start(data.path(), with_passwords(&users)).await;
    let mut tokens = Vec::new();
    for (user, password) in [("admin", "a"), ("reader", "r")] {
        tokens.push(token_of(&log_in(server.address(), user, password).await));
    }
    server.stop().await;
    for (access, admin, reader) in [
        (with_passwords(&users), 200, 200),
        (with_passwords(&[(Role::Admin, "new"), (Role::Read, "r")]), 401, 200),
        (with_passwords(&[(Role::Admin, "a")]), 200, 401),
    ] {
        let server = start(data.path(), access).await;
        for (token, status) in tokens.iter().zip([admin, reader]) {
            let answer = ask(server.address(), "GET", "/v1/documents", Some(token), "").await;
            assert_eq!(answer.status, status, "{}", answer.text());
        }
        server.stop().await;
    }
    let elsewhere = tempfile::tempdir().expect("a folder");
    let server = start(elsewhere.path(), with_passwords(&users)).await;
    let answer = ask(server.address(), "GET", "/v1/documents", Some(&tokens[0]), "").await;
    assert_eq!(answer.status, 401, "another server");
    server.stop().await;
}
