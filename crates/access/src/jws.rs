//! A token before anything in it is believed: three parts, and a header that says how to verify.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidelog_types::limits::TOKEN_SIZE_MAX;

use crate::claims::{object, present};
use crate::{Algorithm, TokenError};

/// A token that has the form of one. Nobody has verified it.
///
/// ```text
/// base64url(header) . base64url(payload) . base64url(signature)
/// └───────────── signed ───────────────┘
/// ```
pub(crate) struct Jws<'t> {
    /// What the header says it is signed with: a claim like any other.
    pub(crate) algorithm: Algorithm,
    /// The id of the key, if the header names one.
    pub(crate) key_id: Option<String>,
    /// The bytes that were signed.
    pub(crate) signed: &'t str,
    /// The signature's bytes.
    pub(crate) signature: Vec<u8>,
    payload: &'t str,
}

/// What of a header counts. Keys that it brings along (`jwk`, `jku`, `x5u`, `x5c`) do not.
#[derive(Deserialize)]
struct Header<'h> {
    alg: String,
    #[serde(borrow, default, deserialize_with = "present")]
    kid: Option<&'h RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    crit: Option<&'h RawValue>,
}

impl<'t> Jws<'t> {
    /// Takes a token apart.
    pub(crate) fn parse(token: &'t str) -> Result<Self, TokenError> {
        if token.len() > TOKEN_SIZE_MAX {
            return Err(TokenError::TooLarge);
        }
        let (signed, header, payload, signature) = parts(token).ok_or(malformed("parts"))?;
        let json = json(header).ok_or(malformed("header"))?;
        let header: Header<'_> = object(&json).ok_or(malformed("header"))?;
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        Ok(Self {
            algorithm: header.alg.parse().map_err(|_| TokenError::Algorithm)?,
            key_id: header.key_id()?,
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed("signature"))?,
            payload,
        })
    }

    /// The payload's JSON. Whoever asks has verified the signature.
    pub(crate) fn payload_json(&self) -> Result<String, TokenError> {
        json(self.payload).ok_or(malformed("payload"))
    }
}

impl Header<'_> {
    fn key_id(&self) -> Result<Option<String>, TokenError> {
        let text = |raw: &RawValue| serde_json::from_str(raw.get());
        self.kid.map(text).transpose().map_err(|_| malformed("header"))
    }
}

/// What is signed, and the three parts.
fn parts(token: &str) -> Option<(&str, &str, &str, &str)> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, payload) = signed.split_once('.')?;
    (!payload.contains('.')).then_some((signed, header, payload, signature))
}

fn json(part: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

const fn malformed(part: &'static str) -> TokenError {
    TokenError::Malformed { part }
}
