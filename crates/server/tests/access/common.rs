//! A server that knows an app's secret, and tokens that say whatever a test wants.

#![allow(dead_code, reason = "each of the tests uses some of it")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use tempfile::TempDir;
use tidelog_access::{Key, Keys, Role};
use tidelog_server::{AccessSettings, Password, ServeSettings, Server};
use tidelog_sync::{ByeReason, FromRoom, FromServer, ToServer};
use tidelog_testing::room::{Copy, frame, notes};
use tidelog_testing::server::{Client, PATIENCE, settings, start_when_free};
use tidelog_types::ClientId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const SECRET: &[u8; 32] = b"the secret of an app, 32 bytes..";
const OTHER_SECRET: &[u8; 32] = b"the secret of another app, .....";

/// Grants by what a test calls them.
pub const ROLES: [(&str, &str); 7] = [
    ("none", "[]"),
    ("other", r#"[{"document":"other/*","role":"admin","create":true}]"#),
    ("read", r#"[{"document":"lists/*","role":"read"}]"#),
    ("write", r#"[{"document":"lists/*","role":"write"}]"#),
    ("create", r#"[{"document":"lists/*","role":"write","create":true}]"#),
    ("admin", r#"[{"document":"lists/*","role":"admin","create":true}]"#),
    ("root", r#"[{"document":"*","role":"admin","create":true}]"#),
];

/// Tokens that no server takes, with the grants of whoever may do everything.
pub fn invalid_tokens() -> Vec<(&'static str, Option<String>)> {
    let (_, root) = ROLES[6];
    let mut torn = token(root);
    torn.pop();
    vec![
        ("expired", Some(token_of(SECRET, root, -61))),
        ("of another key", Some(token_of(OTHER_SECRET, root, 600))),
        ("torn", Some(torn)),
        ("nonsense", Some("sesame".to_owned())),
        ("none", None),
    ]
}

/// A token with these grants, for ten minutes.
pub fn token(grants: &str) -> String {
    token_of(SECRET, grants, 600)
}

/// One that is not taken any more after about so many seconds.
pub fn token_that_ends_in(grants: &str, seconds: i64) -> String {
    token_of(SECRET, grants, seconds - 60)
}

fn token_of(secret: &[u8], grants: &str, expires_in_s: i64) -> String {
    token_for("ada", secret, grants, expires_in_s)
}

/// A token of somebody else, for ten minutes.
pub fn token_of_subject(subject: &str, grants: &str) -> String {
    token_for(subject, SECRET, grants, 600)
}

fn token_for(subject: &str, secret: &[u8], grants: &str, expires_in_s: i64) -> String {
    let exp = now_s().saturating_add_signed(expires_in_s);
    token_by(secret, &format!(r#""sub":"{subject}","exp":{exp},"tidelog":{grants}"#))
}

pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A token with these claims, signed with this secret.
pub fn token_by(secret: &[u8], claims: &str) -> String {
    token_headed(r#"{"alg":"HS256","typ":"JWT"}"#, secret, claims)
}

/// The same with this header.
pub fn token_headed(header: &str, secret: &[u8], claims: &str) -> String {
    let payload = format!("{{{claims}}}");
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", encode(header), encode(&payload));
    let key = EncodingKey::from_secret(secret);
    let signature = crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).expect("signed");
    format!("{signed}.{signature}")
}

/// Waits for the last word of the server, and gives it.
pub async fn bye(client: &mut Client) -> ByeReason {
    let last_word = async {
        loop {
            if let FromServer::Bye { reason } = client.hear().await.expect("a last word") {
                return reason;
            }
        }
    };
    tokio::time::timeout(PATIENCE / 2, last_word).await.expect("a last word")
}

/// A public key that a server takes tokens by, of which anybody may know.
pub const PUBLIC_KEY: &str = include_str!("../../../access/tests/keys/p256.pub.pem");

/// Its name.
pub const PUBLIC_KEY_ID: &str = "public";

pub fn app_keys() -> AccessSettings {
    let public = Key::from_pem(PUBLIC_KEY).expect("a key").with_id(PUBLIC_KEY_ID);
    let secret = Key::from_secret(SECRET).expect("a key").with_id("secret");
    let keys = Keys::new([secret, public]).expect("few");
    AccessSettings { keys, ..AccessSettings::default() }
}

pub fn with_passwords(passwords: &[(Role, &str)]) -> AccessSettings {
    let plain = |(role, text): &(Role, &str)| (*role, Password::Plain((*text).to_owned()));
    let passwords: BTreeMap<_, _> = passwords.iter().map(plain).collect();
    AccessSettings { passwords, ..app_keys() }
}

pub async fn start(data: &Path, access: AccessSettings) -> Server {
    let settings = ServeSettings { dev: false, access, ..settings(data) };
    start_when_free(&settings).await
}

/// A server without `--dev` that has some documents.
pub struct Scene {
    pub server: Option<Server>,
    pub at: SocketAddr,
    pub data: TempDir,
}

impl Scene {
    pub async fn new(documents: &[&str]) -> Self {
        Self::with(documents, app_keys()).await
    }

    pub async fn with(documents: &[&str], access: AccessSettings) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        begin(data.path(), documents).await;
        let server = start(data.path(), access).await;
        Self { at: server.address(), server: Some(server), data }
    }

    pub async fn stop(mut self) {
        self.server.take().expect("it runs").stop().await;
    }

    /// What is written down of tokens that were ended.
    pub fn revocations(&self) -> Option<Vec<u8>> {
        std::fs::read(self.data.path().join("revocations.json")).ok()
    }

    /// All bytes of the document.
    pub async fn bytes_of(&self, document: &str) -> Vec<u8> {
        let path = format!("/v1/documents/{}/export", escaped(document));
        let answer = ask(self.at, "GET", &path, Some(&token(ROLES[6].1)), "").await;
        assert_eq!(answer.status, 200);
        answer.body
    }
}

/// Begins these documents in a store.
pub async fn begin(data: &Path, documents: &[&str]) {
    let dev = Server::start(&settings(data)).await.expect("a server");
    for document in documents {
        let mut client = Client::connect(dev.address()).await.expect("up");
        client.open(document, 1, None).await.expect("up");
        assert!(matches!(client.hear_of().await, Some(FromRoom::Opened { .. })));
        client.frames(1, vec![frame(&notes(), "add", "first")]).await.expect("up");
        client.acked(&mut Copy::default(), 2).await.expect("up");
    }
    dev.stop().await;
}

pub fn escaped(document: &str) -> String {
    document.replace('/', "%2F")
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.to_owned())
    }
}

/// Asks over HTTP.
pub async fn ask(
    at: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: &str,
) -> Answer {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    ask_with(at, method, path, &token.unwrap_or_default(), body).await
}

/// Asks with these lines among the headers.
pub async fn ask_with(at: SocketAddr, method: &str, path: &str, lines: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(at).await.expect("the server listens");
    let size = body.len();
    let host = if lines.contains("Host: ") { String::new() } else { format!("Host: {at}\r\n") };
    let request = format!(
        "{method} {path} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: {size}\r\n\
         {lines}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("answered");
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").expect("a header");
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
    let body = answer.split_off(end + 4);
    // The date differs from second to second.
    let head = head.lines().filter(|line| !line.starts_with("date:"));
    let head = head.collect::<Vec<_>>().join("\n");
    Answer { status, head, body }
}

/// Says Hello with this token. Gives what the server said in place of Welcome, if it did.
pub async fn join(at: SocketAddr, token: Option<&str>) -> Result<Client, ByeReason> {
    join_from(at, token, &[]).await
}

/// The same with these headers.
pub async fn join_from(
    at: SocketAddr,
    token: Option<&str>,
    headers: &[(&'static str, &'static str)],
) -> Result<Client, ByeReason> {
    let mut client = Client::connect_with(at, headers).await.expect("up");
    let token = token.map(str::to_owned);
    client.say(&ToServer::Hello { client: ClientId([1; 16]), token }).await.expect("up");
    loop {
        match client.hear().await.expect("an answer") {
            FromServer::Admitted { .. } => {}
            FromServer::Welcome => return Ok(client),
            FromServer::Bye { reason } => return Err(reason),
            other => panic!("unexpected: {other:?}"),
        }
    }
}
