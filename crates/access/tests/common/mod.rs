//! Keys for tests alone, and tokens that say whatever a test wants.

#![allow(dead_code, reason = "each test uses some of it")]

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use tidelog_access::{Access, Grants, Key, Keys, Login, OwnIssuer, OwnKey, Policy, Role};
use tidelog_access::{TokenError, Verifier};

pub const ED25519: &str = include_str!("../keys/ed25519.pem");
pub const ED25519_PUBLIC: &str = include_str!("../keys/ed25519.pub.pem");
pub const OTHER_ED25519: &str = include_str!("../keys/other.pem");
pub const P256: &str = include_str!("../keys/p256.pem");
pub const P256_PUBLIC: &str = include_str!("../keys/p256.pub.pem");
pub const RSA: &str = include_str!("../keys/rsa.pem");
pub const RSA_PUBLIC: &str = include_str!("../keys/rsa.pub.pem");
pub const RSA_PUBLIC_PKCS1: &str = include_str!("../keys/rsa.pkcs1.pub.pem");

pub const SECRET: &[u8; 32] = b"the secret of an app, 32 bytes..";
pub const OWN_SECRET: &[u8; 32] = b"the secret of the server itself.";

/// The second of all tests.
pub const NOW_S: u64 = 1_800_000_000;

/// A payload that is valid for ten minutes.
pub const PAYLOAD: &str = r#"{"sub":"ada","exp":1800000600,"iat":1800000000,
    "tidelog":[{"document":"lists/*","role":"write"}]}"#;

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn decode(part: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(part).expect("base64url")
}

pub fn der(pem: &str) -> Vec<u8> {
    pem::parse(pem).expect("a PEM").into_contents()
}

/// Who signs a token.
pub enum Signer<'s> {
    Secret(&'s [u8]),
    Ed25519(&'s str),
    P256,
    Rsa,
}

impl Signer<'_> {
    fn key(&self) -> (EncodingKey, Algorithm) {
        match self {
            Self::Secret(secret) => (EncodingKey::from_secret(secret), Algorithm::HS256),
            Self::Ed25519(pem) => (EncodingKey::from_ed_der(&der(pem)), Algorithm::EdDSA),
            Self::P256 => (EncodingKey::from_ec_der(&der(P256)), Algorithm::ES256),
            Self::Rsa => (EncodingKey::from_rsa_der(&der(RSA)), Algorithm::RS256),
        }
    }

    /// A token of this header and payload, whatever they say.
    pub fn sign(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        let (key, algorithm) = self.key();
        let signed = format!("{}.{}", encode(header), encode(payload));
        let signature = crypto::sign(signed.as_bytes(), &key, algorithm).expect("signed");
        format!("{signed}.{signature}")
    }

    /// A token of this payload, with the header that it ought to have.
    pub fn token(&self, payload: &str) -> String {
        let (_, algorithm) = self.key();
        self.sign(format!(r#"{{"alg":"{algorithm:?}","typ":"JWT"}}"#), payload)
    }
}

pub const APP: Signer<'static> = Signer::Secret(SECRET);

/// One of each kind, with its key.
pub fn each_kind() -> [(Signer<'static>, Key); 4] {
    [
        (APP, secret_key()),
        (Signer::Ed25519(ED25519), Key::from_pem(ED25519_PUBLIC).expect("a key")),
        (Signer::P256, Key::from_pem(P256_PUBLIC).expect("a key")),
        (Signer::Rsa, Key::from_pem(RSA_PUBLIC).expect("a key")),
    ]
}

pub fn secret_key() -> Key {
    Key::from_secret(SECRET).expect("a key")
}

pub fn keys(keys: impl IntoIterator<Item = Key>) -> Keys {
    Keys::new(keys).expect("few keys")
}

/// Takes tokens by these keys, and asks for nothing else.
pub fn verifier(app: impl IntoIterator<Item = Key>) -> Verifier {
    Verifier::new(keys(app), Policy::default(), None).expect("usable")
}

/// What a payload comes to that an app signed.
pub fn verify(payload: &str) -> Result<Access, TokenError> {
    verifier([secret_key()]).verify(&APP.token(payload), NOW_S)
}

/// [`verify`] for these claims beside `sub` and `exp`.
pub fn verify_with(claims: &str) -> Result<Access, TokenError> {
    verify(&format!(r#"{{"sub":"ada","exp":1800000600,{claims}}}"#))
}

pub fn policy(issuer: Option<&str>, audience: Option<&str>, reserved: &[&str]) -> Policy {
    Policy {
        issuer: issuer.map(str::to_owned),
        audience: audience.map(str::to_owned),
        reserved_subjects: reserved.iter().map(|it| (*it).to_owned()).collect::<BTreeSet<_>>(),
    }
}

pub fn own_issuer() -> OwnIssuer {
    let version = |name: &str, version: &str| (name.to_owned(), version.to_owned());
    OwnIssuer {
        key: OwnKey::new(OWN_SECRET).expect("a key"),
        generation: "g1".to_owned(),
        users: BTreeMap::from([version("admin", "v1"), version("reader", "v2")]),
    }
}

/// Takes the server's own tokens, and those of an app.
pub fn server() -> Verifier {
    Verifier::new(keys([secret_key()]), Policy::default(), Some(own_issuer())).expect("usable")
}

pub fn own_token(subject: &str) -> String {
    let grants = Grants::on_everything(Role::Admin);
    let login = Login { subject, grants: &grants, token_id: "t1", lifetime_s: 600 };
    own_issuer().mint(&login, NOW_S).expect("minted")
}

/// The refusal of a part that cannot be read.
pub fn malformed<T>(part: &'static str) -> Result<T, TokenError> {
    Err(TokenError::Malformed { part })
}
