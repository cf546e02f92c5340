//! Keys of an app's own tokens, as an operator names them.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use tidelog_access::Role;
use tidelog_server::{AccessFlags, Serve, Server};
use tidelog_testing::server::http;

use crate::common::{SECRET, ask, now_s, start, token_by, with_passwords};
use crate::ends::ENDS_WITHIN;

const ROOT: &str = r#"[{"document":"*","role":"admin"}]"#;

/// The keys of the tests of tokens.
const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../access/tests/keys");

fn der(name: &str) -> Vec<u8> {
    let pem = std::fs::read_to_string(Path::new(KEYS).join(name)).expect("a key");
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(body).expect("a PEM")
}

fn public(name: &str) -> PathBuf {
    Path::new(KEYS).join(name)
}

fn claims() -> String {
    format!(r#""sub":"ada","exp":{},"tidelog":{ROOT}"#, now_s() + 600)
}

fn signed(algorithm: Algorithm) -> String {
    let key = match algorithm {
        Algorithm::EdDSA => EncodingKey::from_ed_der(&der("ed25519.pem")),
        Algorithm::ES256 => EncodingKey::from_ec_der(&der("p256.pem")),
        Algorithm::RS256 => EncodingKey::from_rsa_der(&der("rsa.pem")),
        other => panic!("{other:?} has no file"),
    };
    let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
    let header = format!(r#"{{"alg":"{algorithm:?}","typ":"JWT"}}"#);
    let signed = format!("{}.{}", encode(header), encode(format!("{{{}}}", claims())));
    let signature = crypto::sign(signed.as_bytes(), &key, algorithm).expect("signed");
    format!("{signed}.{signature}")
}

/// A JWKS of the RSA key: what stands in its PKCS #1 before the exponent, five bytes.
fn jwks() -> String {
    let der = der("rsa.pkcs1.pub.pem");
    let n = URL_SAFE_NO_PAD.encode(&der[der.len() - 5 - 256..der.len() - 5]);
    format!(r#"{{"keys":[{{"kty":"RSA","n":"{n}","e":"AQAB","kid":"one"}}]}}"#)
}

async fn started(data: &Path, access: AccessFlags) -> Server {
    let flags = Serve { access, ..Serve::default() };
    start(data, flags.resolve().expect("usable").access).await
}

async fn status(server: &Server, token: &str) -> u16 {
    ask(server.address(), "GET", "/v1/documents", Some(token), "").await.status
}

/// Goal: an app signs by whatever keys it has, several at once, and one that is gone ends its
/// tokens. Method: a secret, two PEMs and a JWKS, which is written anew with another key.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_signed_by_keys_of_each_kind_at_once() {
    let [data, files] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let [secret, set] = ["secret", "jwks"].map(|name| files.path().join(name));
    std::fs::write(&secret, SECRET).expect("written");
    std::fs::write(&set, jwks()).expect("written");
    let access = AccessFlags {
        token_secret_file: Some(secret),
        token_keys: ["ed25519.pub.pem", "p256.pub.pem"].map(public).to_vec(),
        token_jwks_file: Some(set.clone()),
        ..AccessFlags::default()
    };
    let server = started(data.path(), access).await;
    let of_secret = token_by(SECRET, &claims());
    let [ed, ec, rsa] = [Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256].map(signed);
    for token in [&of_secret, &ed, &ec, &rsa] {
        assert_eq!(status(&server, token).await, 200, "{token}");
    }
    let other = URL_SAFE_NO_PAD.encode([7; 32]);
    let other = format!(r#"{{"keys":[{{"kty":"oct","alg":"HS256","k":"{other}"}}]}}"#);
    std::fs::write(&set, other).expect("written");
    tokio::time::sleep(ENDS_WITHIN).await;
    assert_eq!(status(&server, &rsa).await, 401, "its key is gone");
    for token in [&of_secret, &ed, &ec] {
        assert_eq!(status(&server, token).await, 200, "{token}");
    }
    server.stop().await;
}

/// Goal: a token that was made for somebody else's server, or by somebody else, opens nothing.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_of_the_issuer_and_for_the_audience_that_were_named() {
    let [data, files] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let secret = files.path().join("secret");
    std::fs::write(&secret, SECRET).expect("written");
    let access = AccessFlags {
        token_secret_file: Some(secret),
        token_issuer: Some("https://app.example.org".to_owned()),
        token_audience: Some("tidelog".to_owned()),
        ..AccessFlags::default()
    };
    let server = started(data.path(), access).await;
    let [iss, aud] = [r#""iss":"https://app.example.org""#, r#""aud":"tidelog""#];
    for (more, expected) in [
        (format!("{iss},{aud}"), 200),
        (format!(r#"{iss},"aud":["other","tidelog"]"#), 200),
        (format!(r#"{iss},"aud":"other""#), 401),
        (format!(r#""iss":"https://example.org",{aud}"#), 401),
        (iss.to_owned(), 401),
        (aud.to_owned(), 401),
    ] {
        let token = token_by(SECRET, &format!("{},{more}", claims()));
        assert_eq!(status(&server, &token).await, expected, "{more}");
    }
    server.stop().await;
}

/// Goal: an app's token stands for none of the server's own users. Method: one that has a password,
/// and one that has none, whose name is as good as any.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_app_for_a_user_of_the_server_is_refused() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path(), with_passwords(&[(Role::Admin, "sesame")])).await;
    for (subject, expected) in [("admin", 401), ("reader", 200), ("ada", 200)] {
        let exp = now_s() + 600;
        let claims = format!(r#""sub":"{subject}","exp":{exp},"tidelog":{ROOT}"#);
        assert_eq!(status(&server, &token_by(SECRET, &claims)).await, expected, "{subject}");
    }
    server.stop().await;
}

/// Goal: pages of each origin are let in that was named.
#[tokio::test(flavor = "multi_thread")]
async fn each_origin_that_was_named_is_let_in() {
    let data = tempfile::tempdir().expect("a folder");
    let [one, two] = ["https://one.example.org", "https://two.example.org"];
    let allow_origins = [one, two].map(str::to_owned).to_vec();
    let access = AccessFlags { allow_origins, ..AccessFlags::default() };
    let server = started(data.path(), access).await;
    for (origin, expected) in [(one, 401), (two, 401), ("https://example.org", 403)] {
        let header = format!("Origin: {origin}\r\n");
        let (status, _) = http(server.address(), "GET", "/v1/documents", &header).await;
        // Who is let in lacks a token.
        assert_eq!(status, expected, "{origin}");
    }
    server.stop().await;
}
