//! What operators rely on: proxies, metrics, and how much of a stranger is listened to.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::json;
use tidelog_access::Role;
use tidelog_server::{AccessSettings, ServeSettings};
use tidelog_sync::{ByeReason, FromRoom, FromServer, ToServer};
use tidelog_testing::room::{frame_of, notes};
use tidelog_testing::server::{Client, PATIENCE, settings, start_when_free};
use tidelog_types::ClientId;
use tidelog_types::limits::{HELLO_SIZE_MAX, LOGIN_FAILURES_MAX, TOKEN_SIZE_MAX};

use crate::common::{
    ROLES, Scene, app_keys, ask, ask_with, join, start, token, token_of_subject,
    token_that_ends_in, with_passwords,
};
use crate::matrix::heard;

/// The status of a login that says, by these headers, where it comes from.
async fn login_from(at: SocketAddr, lines: &str, password: &str) -> u16 {
    let body = json!({ "user": "admin", "password": password }).to_string();
    ask_with(at, "POST", "/v1/login", lines, &body).await.status
}

fn behind(proxies: &[&str]) -> AccessSettings {
    let trusted_proxies = proxies.iter().map(|it| it.parse().expect("a network")).collect();
    AccessSettings { trusted_proxies, ..with_passwords(&[(Role::Admin, "a")]) }
}

/// Goal: behind a proxy an address that fails too often waits, and no other one does, whatever it
/// says of itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_says_where_a_login_comes_from() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path(), behind(&["127.0.0.0/8", "10.0.0.0/8"])).await;
    let at = server.address();
    for number in 0..LOGIN_FAILURES_MAX {
        // What it forges stands before what the proxies add.
        let lines = format!("X-Forwarded-For: 192.0.2.{number}, 198.51.100.1, 10.0.0.2\r\n");
        assert_eq!(login_from(at, &lines, "wrong").await, 401);
    }
    let same = "X-Forwarded-For: 192.0.2.99\r\nX-Forwarded-For: 198.51.100.1\r\n";
    assert_eq!(login_from(at, same, "a").await, 429);
    for other in ["X-Forwarded-For: 198.51.100.1, 198.51.100.2\r\n", ""] {
        assert_eq!(login_from(at, other, "a").await, 200, "{other}");
    }
    server.stop().await;
}

/// Goal: nobody gets more tries by a header. Method: one that says another address each time, with
/// no proxy, and behind one that is another.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_header_gives_nobody_another_address() {
    for proxies in [&[][..], &["10.0.0.0/8"]] {
        let data = tempfile::tempdir().expect("a folder");
        let server = start(data.path(), behind(proxies)).await;
        let at = server.address();
        let lines = |number: u32| {
            format!("X-Forwarded-For: 10.0.0.{number}\r\nForwarded: for=10.0.0.{number}\r\n")
        };
        for number in 0..LOGIN_FAILURES_MAX {
            assert_eq!(login_from(at, &lines(number), "wrong").await, 401);
        }
        assert_eq!(login_from(at, &lines(99), "a").await, 429);
        server.stop().await;
    }
}

/// Goal: metrics are for this machine and for admins, unless they are opened; a proxy on this
/// machine is not this machine, nor is a page whose name points here.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_this_machine_and_for_admins() {
    for metrics_open in [false, true] {
        let data = tempfile::tempdir().expect("a folder");
        let server = start(data.path(), AccessSettings { metrics_open, ..app_keys() }).await;
        let at = server.address();
        assert_eq!(ask(at, "GET", "/metrics", None, "").await.status, 200, "this machine");
        let closed = |status: u16| if metrics_open { 200 } else { status };
        for header in [
            "X-Forwarded-For: 127.0.0.1",
            "Forwarded: for=127.0.0.1",
            "X-Real-IP: ::1",
            // A page whose name was made to point here.
            "Host: rebound.example.org",
        ] {
            let of = async |token: Option<String>| {
                let token = token.map(|it| format!("Authorization: Bearer {it}\r\n"));
                let lines = format!("{header}\r\n{}", token.unwrap_or_default());
                ask_with(at, "GET", "/metrics", &lines, "").await.status
            };
            assert_eq!(of(None).await, closed(401), "{header}");
            assert_eq!(of(Some("sesame".to_owned())).await, closed(401));
            assert_eq!(of(Some(token(ROLES[5].1))).await, closed(403), "admin of some");
            assert_eq!(of(Some(token(ROLES[6].1))).await, 200);
        }
        server.stop().await;
    }
}

/// Goal: nobody without a token keeps others from their connections. Method: behind a proxy one
/// address has as many that are silent as it may, then one of them says Hello.
#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_so_many_connections_that_have_not_said_hello() {
    let data = tempfile::tempdir().expect("a folder");
    let access = behind(&["127.0.0.1/32", "198.51.100.3/32"]);
    let settings = settings(data.path());
    let settings = ServeSettings { dev: false, access, connections_max: 12, ..settings };
    let server = start_when_free(&settings).await;
    let at = server.address();
    let connect =
        async |from: &'static str| Client::connect_with(at, &[("x-forwarded-for", from)]).await;
    let [one, other] = ["198.51.100.1", "198.51.100.2"];
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(connect(one).await.expect("a quarter of them"));
    }
    assert!(connect(one).await.is_none());
    let elsewhere = connect(other).await.expect("that is not theirs");
    let token = Some(token(ROLES[2].1));
    let hello = ToServer::Hello { client: ClientId([1; 16]), token };
    silent[0].say(&hello).await.expect("up");
    while silent[0].hear().await.expect("up") != FromServer::Welcome {}
    let more = connect(one).await.expect("one of them was let in");
    // Through a proxy that does not say for whom many come.
    for _ in 0..4 {
        silent.push(connect("198.51.100.3").await.expect("it is trusted"));
    }
    drop((silent, elsewhere, more));
    server.stop().await;
}

/// Goal: the same of those who say Hello without a token, and stay for as long as they can. Method:
/// as many as there are places in all come from one address, one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_are_not_let_in_count_for_as_long_as_they_are_there() {
    let data = tempfile::tempdir().expect("a folder");
    let access = behind(&["127.0.0.1/32"]);
    let settings = settings(data.path());
    let settings = ServeSettings { dev: false, access, connections_max: 12, ..settings };
    let server = start_when_free(&settings).await;
    let at = server.address();
    let connect =
        async |from: &'static str| Client::connect_with(at, &[("x-forwarded-for", from)]).await;
    let mut refused = Vec::new();
    for _ in 0..12 {
        let Some(mut client) = connect("198.51.100.1").await else { continue };
        let hello = ToServer::Hello { client: ClientId([1; 16]), token: None };
        client.say(&hello).await.expect("up");
        let bye = FromServer::Bye { reason: ByeReason::Unauthenticated };
        assert_eq!(client.hear().await, Some(bye));
        refused.push(client);
    }
    assert_eq!(refused.len(), 3, "a quarter of them");
    connect("198.51.100.2").await.expect("that is not theirs");
    drop(refused);
    let again = async { while connect("198.51.100.1").await.is_none() {} };
    tokio::time::timeout(PATIENCE, again).await.expect("they have gone");
    server.stop().await;
}

/// Goal: whoever watches the server sees how large its store is, and how much room is left. Method:
/// the files themselves.
#[tokio::test(flavor = "multi_thread")]
async fn the_numbers_tell_how_large_the_store_is() {
    let scene = Scene::new(&["lists/a", "lists/b"]).await;
    let size = |name: &str| {
        std::fs::metadata(scene.data.path().join(name)).expect("a file of the store").len()
    };
    let told = async |name: &str| -> u64 {
        let metrics = ask(scene.at, "GET", "/metrics", None, "").await.text();
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("tidelog_{name} ")));
        line.expect("it is told").parse().expect("a number")
    };
    assert_eq!(told("store_documents").await, 2);
    assert!(told("disk_free_bytes").await > 0);
    // A store that was just opened may be at work yet.
    let all = async {
        while told("store_log_bytes").await != size("log-a") + size("log-b")
            || told("store_pages_bytes").await != size("pages")
        {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("as the files are");
    assert!(size("pages") > 0);
    // What comes later is told too.
    let token = token(ROLES[6].1);
    let deleted = ask(scene.at, "DELETE", "/v1/documents/lists%2Fa", Some(&token), "").await;
    assert_eq!(deleted.status, 204);
    let deletion = async {
        while told("store_documents").await != 1 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, deletion).await.expect("within a second or two");
    scene.stop().await;
}

/// Goal: nobody with a token keeps others from their connections. Method: one subject has as many
/// as it may, of which one ends.
#[tokio::test(flavor = "multi_thread")]
async fn one_subject_has_so_many_connections() {
    let data = tempfile::tempdir().expect("a folder");
    let (access, settings) = (app_keys(), settings(data.path()));
    let settings = ServeSettings { dev: false, access, connections_max: 6, ..settings };
    let server = start_when_free(&settings).await;
    let at = server.address();
    let grants = ROLES[2].1;
    let mut ada = Vec::new();
    for _ in 0..3 {
        ada.push(join(at, Some(&token(grants))).await.expect("half of them"));
    }
    // By another token as well.
    let another = token_that_ends_in(grants, 300);
    assert_eq!(join(at, Some(&another)).await.err(), Some(ByeReason::Slow));
    let bob = token_of_subject("bob", grants);
    let _bob = join(at, Some(&bob)).await.expect("that is not theirs");
    let metrics = ask(at, "GET", "/metrics", None, "").await.text();
    assert!(metrics.contains("closes_total{reason=\"full\"} 1"), "{metrics}");
    drop(ada.pop());
    let again = async { while join(at, Some(&another)).await.is_err() {} };
    tokio::time::timeout(PATIENCE, again).await.expect("it is given back");
    server.stop().await;
}

/// Goal: a stranger is listened to for as long as a token may be, and not much longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_hello_is_heard_up_to_its_size() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path(), app_keys()).await;
    for (size, is_heard) in [(TOKEN_SIZE_MAX, true), (HELLO_SIZE_MAX as usize + 4096, false)] {
        let mut client = Client::connect_silently(server.address()).await.expect("up");
        // Such that it stays as long as it is, however it is packed.
        let mut token = String::new();
        for number in 0_u32.. {
            token.push_str(blake3::hash(&number.to_le_bytes()).to_hex().as_str());
            if token.len() >= size {
                break;
            }
        }
        token.truncate(size);
        let hello = ToServer::Hello { client: ClientId([1; 16]), token: Some(token) };
        let _ = client.say(&hello).await;
        let answer = client.hear().await;
        let refused = Some(FromServer::Bye { reason: ByeReason::Unauthenticated });
        assert_eq!(answer == refused, is_heard, "{size}: {answer:?}");
    }
    server.stop().await;
}

/// Goal: what a watcher keeps for years names nobody. Method: documents and users of odd names do
/// something, and are refused something.
#[tokio::test(flavor = "multi_thread")]
async fn no_label_of_a_number_names_a_document_or_a_user() {
    let names = ["lists/zanzibar", "zoe@example.org"];
    let scene = Scene::new(&[names[0]]).await;
    let zoe = token_of_subject(names[1], ROLES[3].1);
    let mut client = join(scene.at, Some(&zoe)).await.expect("welcome");
    client.open(names[0], 2, None).await.expect("up");
    assert!(matches!(heard(&mut client).await, FromRoom::Opened { .. }));
    client.frames(1, vec![frame_of(names[1], &notes(), "add", "x")]).await.expect("up");
    assert!(matches!(heard(&mut client).await, FromRoom::Acked { .. }));
    assert_eq!(ask(scene.at, "DELETE", "/v1/documents/zanzibar", Some(&zoe), "").await.status, 404);
    assert!(join(scene.at, Some("zoe")).await.is_err());
    let metrics = ask(scene.at, "GET", "/metrics", None, "").await.text();
    for name in ["zanzibar", "zoe"] {
        assert!(!metrics.contains(name), "{name} in {metrics}");
    }
    let mut labels = BTreeSet::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let Some((_, rest)) = line.split_once('{') else { continue };
        let (inner, _) = rest.split_once('}').expect("it ends");
        labels.extend(inner.split(',').map(|it| it.split('=').next().expect("a name").to_owned()));
    }
    assert_eq!(labels, ["le", "reason"].map(str::to_owned).into());
    scene.stop().await;
}
