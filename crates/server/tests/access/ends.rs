//! Tokens that end before they expire: by a logout, a revocation, or with their key.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tidelog_access::Role;
use tidelog_document::Doctype;
use tidelog_server::{AccessFlags, AccessSettings, Serve, Server};
use tidelog_sync::{ByeReason, FromRoom};
use tidelog_testing::room::{burner, frame_of};
use tidelog_testing::server::Client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::common::{
    Answer, ROLES, SECRET, Scene, ask, bye, join, now_s, start, token, token_by, token_of_subject,
    with_passwords,
};
use crate::doctypes::{json_of, notes};
use crate::documents::{changed, deploy, put_as};
use crate::handling::{deployed_streams, handled_with};

const ROOT: &str = ROLES[6].1;

/// Within which time a token that was ended has ended its connections, on a machine that has much
/// else to do: a second is promised.
pub const ENDS_WITHIN: Duration = Duration::from_millis(2_500);

async fn status(at: SocketAddr, token: &str) -> u16 {
    ask(at, "GET", "/v1/documents", Some(token), "").await.status
}

pub async fn log_in(at: SocketAddr, user: &str, password: &str) -> String {
    let body = json!({ "user": user, "password": password }).to_string();
    let answer = ask(at, "POST", "/v1/login", None, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    body["token"].as_str().expect("a text").to_owned()
}

async fn log_out(at: SocketAddr, token: &str) -> Answer {
    ask(at, "POST", "/v1/logout", Some(token), "").await
}

async fn revoke(at: SocketAddr, token: &str, body: &str) -> Answer {
    ask(at, "POST", "/v1/revoke", Some(token), body).await
}

async fn joined(at: SocketAddr, token: &str) -> Client {
    join(at, Some(token)).await.expect("welcome")
}

/// The connection ends in time, since its token has.
async fn ends(client: &mut Client) {
    let began = Instant::now();
    assert_eq!(bye(client).await, ByeReason::Unauthenticated);
    assert!(began.elapsed() < ENDS_WITHIN, "{:?}", began.elapsed());
}

async fn goes_on(client: &mut Client) {
    client.say(&tidelog_sync::ToServer::Ping).await.expect("up");
    assert_eq!(client.hear().await, Some(tidelog_sync::FromServer::Pong));
}

/// A token of ada's with these claims beside that it may do everything.
fn ada(claims: &str) -> String {
    let exp = now_s() + 600;
    token_by(SECRET, &format!(r#""sub":"ada","exp":{exp},"tidelog":{ROOT},{claims}"#))
}

fn users() -> AccessSettings {
    with_passwords(&[(Role::Admin, "a"), (Role::Write, "w")])
}

/// Goal: one logout ends one token, for good. Method: the server's own and an app's, with an id and
/// without, each with a connection, and a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_logout_ends_one_token_and_its_connections_for_good() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path(), users()).await;
    let at = server.address();
    let other = log_in(at, "writer", "w").await;
    let mut stays = joined(at, &other).await;
    let tokens = [log_in(at, "writer", "w").await, ada(r#""jti":"t1""#), ada(r#""n":1"#)];
    for token in &tokens {
        let mut clients = [joined(at, token).await, joined(at, token).await];
        assert_eq!(log_out(at, token).await.status, 204);
        for client in &mut clients {
            ends(client).await;
        }
        assert_eq!(join(at, Some(token)).await.err(), Some(ByeReason::Unauthenticated));
        let again = log_out(at, token).await;
        assert_eq!((again.status, again.text().as_str()), (401, REVOKED));
    }
    goes_on(&mut stays).await;
    for stays in [&other, &ada(r#""jti":"t2""#), &ada(r#""n":2"#)] {
        assert_eq!(status(at, stays).await, 200);
    }
    assert_eq!(log_out(at, "sesame").await.status, 401);
    assert_eq!(ask(at, "POST", "/v1/logout", None, "").await.status, 401);
    server.stop().await;

    let server = start(data.path(), users()).await;
    for token in &tokens {
        assert_eq!(status(server.address(), token).await, 401);
    }
    assert_eq!(status(server.address(), &other).await, 200);
    server.stop().await;
}

const REVOKED: &str = "the token was revoked: get a new one\n";

/// Goal: all tokens of a subject that were issued before end, for good, and those issued behind
/// that pass. Method: a login in the same second, and a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_ends_all_tokens_of_a_subject_that_were_issued_before() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path(), users()).await;
    let at = server.address();
    let admin = log_in(at, "admin", "a").await;
    let tokens = [log_in(at, "writer", "w").await, log_in(at, "writer", "w").await];
    let mut clients = [joined(at, &tokens[0]).await, joined(at, &tokens[1]).await];
    let mut others = joined(at, &admin).await;
    assert_eq!(revoke(at, &admin, r#"{"subject":"writer"}"#).await.status, 204);
    for client in &mut clients {
        ends(client).await;
    }
    let fresh = log_in(at, "writer", "w").await;
    assert_eq!(status(at, &fresh).await, 200, "in the same second");
    goes_on(&mut others).await;

    // The app's clock may be ahead by a minute, and some tokens do not say when they were issued.
    let issued = |ago_s: i64| {
        let (now, soon) = (now_s().saturating_add_signed(-ago_s), now_s() + 600);
        token_by(SECRET, &format!(r#""sub":"ada","exp":{soon},"iat":{now},"tidelog":{ROOT}"#))
    };
    let old = [ada(r#""n":1"#), issued(500), issued(0)];
    assert_eq!(revoke(at, &old[0], r#"{"subject":"ada"}"#).await.status, 204, "herself too");
    for token in &old {
        assert_eq!(status(at, token).await, 401);
    }
    server.stop().await;

    let server = start(data.path(), users()).await;
    let at = server.address();
    for token in old.iter().chain(&tokens) {
        assert_eq!(status(at, token).await, 401);
    }
    for token in [&fresh, &admin] {
        assert_eq!(status(at, token).await, 200);
    }
    server.stop().await;
}

/// Goal: there is a way back for whoever was locked out by mistake. Method: tokens that do not say
/// when they were issued, which never hold again otherwise; of one subject, and of everybody, as
/// in a restored folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_taken_back_for_good() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path(), users()).await;
    let at = server.address();
    let tokens = [ada(r#""n":1"#), ada(r#""jti":"t1""#)];
    let admin = log_in(at, "admin", "a").await;
    let forgive = async |at, token: &str, body: &str| {
        ask(at, "POST", "/v1/forgive", Some(token), body).await.status
    };
    assert_eq!(log_out(at, &tokens[1]).await.status, 204);
    assert_eq!(revoke(at, &admin, r#"{"subject":"ada"}"#).await.status, 204);
    for (role, grants) in ROLES.into_iter().filter(|(role, _)| *role != "root") {
        let other = token_of_subject("bob", grants);
        assert_eq!(forgive(at, &other, r#"{"subject":"ada"}"#).await, 403, "{role}");
    }
    assert_eq!(forgive(at, &tokens[0], r#"{"subject":"ada"}"#).await, 401, "not by herself");
    for body in ["", "{}", r#"{"subject":1}"#, r#"{"everybody":false}"#, r#"{"subjects":"a"}"#] {
        assert_eq!(forgive(at, &admin, body).await, 400, "{body}");
    }
    for body in [r#"{"subject":"eve"}"#, r#"{"everybody":true}"#] {
        assert_eq!(forgive(at, &admin, body).await, 404, "{body}");
    }
    assert_eq!(status(at, &tokens[0]).await, 401, "nobody was");
    assert_eq!(forgive(at, &admin, r#"{"subject":"ada"}"#).await, 204);
    let holds = [200, 401];
    for (token, expected) in tokens.iter().zip(holds) {
        assert_eq!(status(at, token).await, expected, "what was logged out stays so");
    }
    server.stop().await;

    let file = data.path().join("revocations.json");
    let mut ended: Value =
        serde_json::from_slice(&std::fs::read(&file).expect("a file")).expect("JSON");
    ended["everybody"] = now_s().into();
    std::fs::write(&file, ended.to_string()).expect("written");
    let server = start(data.path(), users()).await;
    let at = server.address();
    let admin = log_in(at, "admin", "a").await;
    assert_eq!(status(at, &tokens[0]).await, 401);
    assert_eq!(forgive(at, &admin, r#"{"everybody":true}"#).await, 204);
    for (token, expected) in tokens.iter().zip(holds) {
        assert_eq!(status(at, token).await, expected);
    }
    server.stop().await;
    let server = start(data.path(), users()).await;
    assert_eq!(status(server.address(), &tokens[0]).await, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_admin_of_everything_revokes_and_only_what_is_a_subject() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path(), users()).await;
    let at = server.address();
    let body = r#"{"subject":"ada"}"#;
    for (role, grants) in ROLES {
        if role != "root" {
            assert_eq!(revoke(at, &token(grants), body).await.status, 403, "{role}");
        }
    }
    assert_eq!(ask(at, "POST", "/v1/revoke", None, body).await.status, 401);
    let admin = log_in(at, "admin", "a").await;
    for body in ["", "{}", r#"{"subject":1}"#, r#"{"subject":""}"#, r#"{"subject":"a\n"}"#] {
        assert_eq!(revoke(at, &admin, body).await.status, 400, "{body}");
    }
    assert_eq!(status(at, &token(ROOT)).await, 200, "nobody was");
    server.stop().await;
}

/// Goal: what takes long to say changes nothing where its token has ended meanwhile. Method: a file
/// that is to become a document, and a doctype, whose last byte comes behind a revocation.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_to_its_end_after_its_token_ended_changes_nothing() {
    let scene = Scene::new(&["lists/own"]).await;
    deploy(&scene, &notes()).await;
    let root = token_of_subject("root", ROOT);
    let file = scene.bytes_of("lists/own").await;
    let mut newer = notes();
    newer.migrations.push("create table done (id text) strict".to_owned());
    let cases = [
        ("/v1/documents/lists%2Fnew?doctype=notes", file),
        ("/v1/doctypes/notes", json_of(&newer).into_bytes()),
        ("/v1/revoke", br#"{"subject":"root"}"#.to_vec()),
    ];
    let mut streams = Vec::new();
    for (path, body) in &cases {
        let mut stream = TcpStream::connect(scene.at).await.expect("it listens");
        let (size, token) = (body.len(), ada(r#""n":1"#));
        let method = if *path == "/v1/revoke" { "POST" } else { "PUT" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {size}\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        let begin = [head.as_bytes(), &body[..size - 1]].concat();
        stream.write_all(&begin).await.expect("sent");
        streams.push(stream);
    }
    // All of them are being listened to.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(revoke(scene.at, &root, r#"{"subject":"ada"}"#).await.status, 204);
    for (mut stream, (path, body)) in streams.into_iter().zip(&cases) {
        stream.write_all(&body[body.len() - 1..]).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        assert!(answer.starts_with("HTTP/1.1 401 "), "{path}: {answer}");
    }
    let answer = ask(scene.at, "GET", "/v1/documents/lists%2Fnew", Some(&root), "").await;
    assert_eq!(answer.status, 404, "and root's tokens hold");
    let newest = ask(scene.at, "GET", "/v1/doctypes/notes", Some(&root), "").await;
    assert!(newest.status == 200 && !newest.text().contains("table done"), "{}", newest.text());
    scene.stop().await;
}

/// Goal: nothing more of a document leaves once the token has ended by which it was asked for.
/// Method: an export that is larger than what is on its way, of which nothing is read before.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_ends_with_its_token() {
    let scene = Scene::new(&["lists/own"]).await;
    deploy(&scene, &notes()).await;
    let root = token_of_subject("root", ROOT);
    let more = "with recursive n(i) as (values (1) union all select i + 1 from n where i < 12000)
                insert into log (id) select hex(zeroblob(1000)) || i from n";
    let file = changed(&scene.bytes_of("lists/own").await, more);
    let path = "/v1/documents/large?doctype=notes";
    let answer = put_as(&scene, path, Some(&root), file.len() as u64, &file).await;
    assert!(answer.starts_with("201 "), "{answer}");
    for (is_revoked, is_whole) in [(false, true), (true, false)] {
        let mut stream = TcpStream::connect(scene.at).await.expect("it listens");
        let request = format!(
            "GET /v1/documents/large/export HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Authorization: Bearer {}\r\n\r\n",
            ada(r#""n":1"#)
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut head = [0; 15];
        stream.read_exact(&mut head).await.expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        if is_revoked {
            assert_eq!(revoke(scene.at, &root, r#"{"subject":"ada"}"#).await.status, 204);
        }
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert_eq!(rest.len() > file.len(), is_whole, "{} of {}", rest.len(), file.len());
    }
    scene.stop().await;
}

/// Goal: keys change while the server runs, and a token goes with its key. Method: a file with a
/// secret is written anew, then with nonsense, then it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_whose_key_is_gone_ends_within_a_second() {
    let data = tempfile::tempdir().expect("a folder");
    let files = tempfile::tempdir().expect("a folder");
    let path = files.path().join("secret");
    let secrets = ["1", "2"].map(|it| it.repeat(32));
    std::fs::write(&path, &secrets[0]).expect("written");
    let server = start_with_secret(data.path(), &path).await;
    let at = server.address();
    let claims = format!(r#""sub":"ada","exp":{},"tidelog":{ROOT}"#, now_s() + 600);
    let tokens = secrets.each_ref().map(|it| token_by(it.as_bytes(), &claims));
    let mut client = joined(at, &tokens[0]).await;
    assert_eq!(join(at, Some(&tokens[1])).await.err(), Some(ByeReason::Unauthenticated));

    std::fs::write(&path, &secrets[1]).expect("written");
    ends(&mut client).await;
    assert_eq!(status(at, &tokens[0]).await, 401);
    let mut client = joined(at, &tokens[1]).await;

    for change in [Some("sesame"), None] {
        match change {
            Some(text) => std::fs::write(&path, text).expect("written"),
            None => std::fs::remove_file(&path).expect("away"),
        }
        tokio::time::sleep(ENDS_WITHIN / 2).await;
        goes_on(&mut client).await;
        assert_eq!(status(at, &tokens[1]).await, 200, "{change:?}");
    }
    std::fs::write(&path, &secrets[0]).expect("written");
    ends(&mut client).await;
    assert_eq!(status(at, &tokens[0]).await, 200);
    server.stop().await;
}

/// Goal: what expired, was revoked or has lost its key stops within a second. Method: each of them
/// a few times, of which the quickest counts: the others tell what else the machine had to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_stops_within_a_second() {
    let data = tempfile::tempdir().expect("a folder");
    let files = tempfile::tempdir().expect("a folder");
    let path = files.path().join("secret");
    std::fs::write(&path, SECRET).expect("written");
    let server = start_with_secret(data.path(), &path).await;
    let at = server.address();
    let token_until = |subject: &str, exp: u64| {
        token_by(SECRET, &format!(r#""sub":"{subject}","exp":{exp},"tidelog":{ROOT}"#))
    };
    let mut quickest = [Duration::MAX; 3];
    for time in 0..5 {
        let for_long = |subject: &str| token_until(&format!("{subject}{time}"), now_s() + 600);
        let least = |all: &mut Duration, took: Duration| *all = took.min(*all);

        // It holds for a minute more, and a client that is there by then for as long.
        let ends_at_s = now_s() + 2;
        let mut client = joined(at, &token_until("ada", ends_at_s - 60)).await;
        assert_eq!(bye(&mut client).await, ByeReason::Unauthenticated);
        let since_then = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        least(&mut quickest[0], since_then.saturating_sub(Duration::from_secs(ends_at_s)));

        let mut client = joined(at, &for_long("eve")).await;
        let body = format!(r#"{{"subject":"eve{time}"}}"#);
        assert_eq!(revoke(at, &for_long("root"), &body).await.status, 204);
        let revoked_at = Instant::now();
        assert_eq!(bye(&mut client).await, ByeReason::Unauthenticated);
        least(&mut quickest[1], revoked_at.elapsed());

        let mut client = joined(at, &for_long("mia")).await;
        std::fs::write(&path, "x".repeat(32)).expect("written");
        let gone_at = Instant::now();
        assert_eq!(bye(&mut client).await, ByeReason::Unauthenticated);
        least(&mut quickest[2], gone_at.elapsed());
        std::fs::write(&path, SECRET).expect("written");
        while status(at, &for_long("root")).await != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if quickest.iter().all(|it| *it < Duration::from_secs(1)) {
            break;
        }
    }
    assert!(quickest.iter().all(|it| *it < Duration::from_secs(1)), "{quickest:?}");
    server.stop().await;
}

async fn start_with_secret(data: &Path, secret: &Path) -> Server {
    let access =
        AccessFlags { token_secret_file: Some(secret.to_owned()), ..AccessFlags::default() };
    let flags = Serve { access, ..Serve::default() };
    start(data, flags.resolve().expect("usable").access).await
}

/// Goal: a page that logs out may be left at once: where its token ends, so do its connections.
/// Method: whoever asks for it hangs up a little later each time.
#[tokio::test(flavor = "multi_thread")]
async fn a_logout_by_whoever_hangs_up_ends_its_connections() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path(), users()).await;
    let at = server.address();
    let mut ended = 0;
    for later in 0..40 {
        let token = log_in(at, "admin", "a").await;
        let mut client = joined(at, &token).await;
        let mut page = TcpStream::connect(at).await.expect("up");
        let asks = format!(
            "POST /v1/logout HTTP/1.1\r\nHost: {at}\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: 0\r\n\r\n"
        );
        page.write_all(asks.as_bytes()).await.expect("up");
        tokio::time::sleep(Duration::from_micros(100 * later)).await;
        drop(page);
        let mut looks = 0;
        while status(at, &token).await != 401 && looks < 10 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            looks += 1;
        }
        // It may have hung up before anybody has read what it asked for.
        if status(at, &token).await == 401 {
            ends(&mut client).await;
            ended += 1;
        }
    }
    assert!(ended > 0);
    server.stop().await;
}

/// Goal: what is asked and not begun is not done by a token that has ended meanwhile. Method: a
/// document whose room is at work for some seconds is to be deleted, and an event to be appended,
/// and the token of whoever asks for it is ended.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_room_is_not_done_by_a_token_that_has_ended() {
    const BUSY: &str = "/v1/documents/lists%2Fbusy";
    let scene = Scene::new(&[]).await;
    let mut burner = Doctype { mutations: burner().mutations, ..handled_with(&[], &[]) };
    burner.mutations.sort_by(|one, other| one.name.cmp(&other.name));
    let root = token(ROOT);
    let streams = deployed_streams(&[], &[]);
    let mut json: Value = serde_json::from_str(&json_of(&burner)).expect("JSON");
    json["streams"] = streams;
    let json = json.to_string();
    assert_eq!(ask(scene.at, "PUT", "/v1/doctypes/notes", Some(&root), &json).await.status, 201);
    let mut writer = joined(scene.at, &root).await;
    writer.open_as("lists/busy", &burner, 1, None).await.expect("up");
    let burn = |number: u64| frame_of("ada", &burner, "burn", &number.to_string());
    writer.frames(1, (0..7).map(burn).collect()).await.expect("up");
    // The room is at it.
    let is_at_it = |said: &FromRoom| matches!(said, FromRoom::Entry(it) if it.origin.is_some());
    while !is_at_it(&writer.hear_of().await.expect("up")) {}
    let event = r#"{"aggregate":"log","stream":"a","type":"done","data":{"n":1}}"#;
    let at = scene.at;
    let asked = [
        ("PUT", format!("{BUSY}?doctype=notes"), "no file"),
        ("POST", format!("{BUSY}/events"), event),
        ("DELETE", BUSY.to_owned(), ""),
    ];
    let asked = asked.map(|(method, path, body)| {
        let bob = token_of_subject("bob", ROOT);
        tokio::spawn(async move { ask(at, method, &path, Some(&bob), body).await })
    });
    // Both were let in by then, or else they are refused as any other.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(revoke(scene.at, &root, r#"{"subject":"bob"}"#).await.status, 204);
    for asked in asked {
        let refused = asked.await.expect("an answer");
        // Were they let in behind that, they would be told that it was revoked.
        assert_eq!(refused.text(), "the token has ended: get a new one\n");
        let asks_for = refused.header("WWW-Authenticate");
        assert_eq!((refused.status, asks_for.as_deref()), (401, Some("Bearer")));
    }
    let events = ask(scene.at, "GET", &format!("{BUSY}/events"), Some(&root), "").await;
    assert_eq!((events.status, events.text().as_str()), (200, ""));
    scene.stop().await;
}
