//! Keys from a JWKS, the form in which an identity provider publishes them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::claims::present;
use crate::{Algorithm, Key, KeyError, Keys};

/// A key of a JWKS that is left out, since it is not for this purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedKey {
    /// Its place in the list, from 0.
    pub index: usize,
    /// Why it is left out.
    pub reason: SkipReason,
}

/// Why a key of a JWKS is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// `use` or `key_ops` says that it is for something else than to verify signatures.
    Use,
    /// `kty` or `crv` is none that can be used here.
    Type,
    /// `alg` is none that can be used here.
    Algorithm,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Use => "it is not for verifying signatures",
            Self::Type => "it is neither Ed25519, P-256, RSA nor a secret",
            Self::Algorithm => "its algorithm is neither HS256, EdDSA, ES256 nor RS256",
        })
    }
}

#[derive(Deserialize)]
struct Jwks<'j> {
    #[serde(borrow)]
    keys: Vec<&'j RawValue>,
}

/// A JWK: its members as RFC 7517 and RFC 7518 have them; those that do not matter are passed over.
#[derive(Deserialize)]
struct Jwk<'j> {
    kty: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    k: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    d: Option<&'j RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    p: Option<&'j RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    q: Option<&'j RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    dp: Option<&'j RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    dq: Option<&'j RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    qi: Option<&'j RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    oth: Option<&'j RawValue>,
}

impl Keys {
    /// The keys of a JWKS, and those that are left out.
    ///
    /// A key is left out if it is for something else: `use` other than `sig`, `key_ops` without
    /// `verify`, a type, curve or algorithm that is not used here. A key that is wrong makes the
    /// whole JWKS unusable: one with private parts, of a size that is not safe, with an `alg` that
    /// its type does not have, or that cannot be decoded. A `kty` of `oct` is a secret for HS256.
    ///
    /// # Errors
    ///
    /// [`KeyError::Jwks`] if it is no JWKS; [`KeyError::InJwks`] for a key that is wrong;
    /// [`KeyError::NoKeys`] if all are left out; [`KeyError::TooMany`].
    pub fn from_jwks(json: &str) -> Result<(Self, Vec<SkippedKey>), KeyError> {
        let jwks: Jwks = serde_json::from_str(json).map_err(|_| KeyError::Jwks)?;
        let mut keys = Vec::new();
        let mut skipped = Vec::new();
        for (index, raw) in jwks.keys.iter().enumerate() {
            let within = |source| KeyError::InJwks { index, source: Box::new(source) };
            let jwk: Jwk = serde_json::from_str(raw.get()).map_err(|_| within(KeyError::Jwks))?;
            match jwk.key().map_err(within)? {
                Ok(key) => keys.push(key),
                Err(reason) => skipped.push(SkippedKey { index, reason }),
            }
        }
        if keys.is_empty() {
            return Err(KeyError::NoKeys);
        }
        Ok((Self::new(keys)?, skipped))
    }
}

impl Jwk<'_> {
    /// The key, or why it is left out.
    fn key(&self) -> Result<Result<Key, SkipReason>, KeyError> {
        // Of a key that is left out, too: a file with private keys is in the wrong place.
        if self.has_private_parts() {
            return Err(KeyError::Private);
        }
        let algorithm = match self.algorithm() {
            Ok(algorithm) => algorithm,
            Err(reason) => return Ok(Err(reason)),
        };
        let key = self.key_for(algorithm)?;
        let key = match &self.alg {
            Some(alg) => key.expected_for(alg.parse().map_err(|_| KeyError::Unusable)?)?,
            None => key,
        };
        Ok(Ok(match &self.kid {
            Some(id) => key.with_id(id),
            None => key,
        }))
    }

    fn has_private_parts(&self) -> bool {
        [self.d, self.p, self.q, self.dp, self.dq, self.qi, self.oth].iter().any(Option::is_some)
    }

    /// The algorithm that the key's type has, or why the key is left out.
    fn algorithm(&self) -> Result<Algorithm, SkipReason> {
        let is_other = self.purpose.as_ref().is_some_and(|purpose| purpose != "sig");
        let verifies = |ops: &Vec<String>| ops.iter().any(|it| it == "verify");
        if is_other || !self.key_ops.as_ref().is_none_or(verifies) {
            return Err(SkipReason::Use);
        }
        let algorithm = match (self.kty.as_str(), self.crv.as_deref()) {
            ("oct", _) => Algorithm::Hs256,
            ("RSA", _) => Algorithm::Rs256,
            ("EC", Some("P-256")) => Algorithm::Es256,
            ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
            _ => return Err(SkipReason::Type),
        };
        let is_used = |alg: &String| alg.parse::<Algorithm>().is_ok();
        if self.alg.as_ref().is_none_or(is_used) {
            Ok(algorithm)
        } else {
            Err(SkipReason::Algorithm)
        }
    }

    fn key_for(&self, algorithm: Algorithm) -> Result<Key, KeyError> {
        match algorithm {
            Algorithm::Hs256 => Key::from_secret(&bytes(&self.k)?),
            Algorithm::EdDsa => Key::from_ed25519(&coordinate(&self.x)?),
            Algorithm::Es256 => {
                let point = [&[4], &*coordinate(&self.x)?, &*coordinate(&self.y)?].concat();
                Key::from_p256(&point)
            }
            Algorithm::Rs256 => Key::from_rsa(&bytes(&self.n)?, &bytes(&self.e)?),
        }
    }
}

fn bytes(member: &Option<String>) -> Result<Vec<u8>, KeyError> {
    let text = member.as_ref().ok_or(KeyError::Unusable)?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::Unusable)
}

/// The 32 bytes of a point's coordinate.
fn coordinate(member: &Option<String>) -> Result<Vec<u8>, KeyError> {
    let bytes = bytes(member)?;
    if bytes.len() == 32 { Ok(bytes) } else { Err(KeyError::Unusable) }
}
