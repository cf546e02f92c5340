//! The server's own tokens, for its built-in users.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use serde::Serialize;
use tidelog_types::limits::{TOKEN_SIZE_MAX, TOKEN_TIME_S_MAX};

use crate::claims::{Claims, is_name};
use crate::jws::Jws;
use crate::{Grants, Key, KeyError, MintError, TokenError};

/// `iss` of the server's own tokens. No app's token may have it.
pub const OWN_ISSUER: &str = "tidelog";

/// The secret that the server signs its own tokens with. Nobody else has it.
#[derive(Clone, Debug)]
pub struct OwnKey {
    verifying: Key,
    signing: EncodingKey,
}

/// What decides over the server's own tokens: their key, and what ends them all or a user's.
#[derive(Clone, Debug)]
pub struct OwnIssuer {
    /// What the tokens are signed with.
    pub key: OwnKey,
    /// A text that a restore of the store replaces: tokens of another one are void.
    pub generation: String,
    /// Of each built-in user that may log in, the version of its password, as
    /// [`crate::Users::versions`] has it: tokens of another version are void.
    pub users: BTreeMap<String, String>,
}

/// What a token is made for, once a built-in user's password was right.
#[derive(Clone, Copy, Debug)]
pub struct Login<'l> {
    /// The user: one of [`OwnIssuer::users`].
    pub subject: &'l str,
    /// What the token allows.
    pub grants: &'l Grants,
    /// The token's name, by which it can be revoked: 1 to 256 bytes, different for each token.
    pub token_id: &'l str,
    /// Seconds for which the token is valid.
    pub lifetime_s: u64,
}

#[derive(Serialize)]
struct OwnClaims<'c> {
    iss: &'c str,
    sub: &'c str,
    iat: u64,
    exp: u64,
    jti: &'c str,
    tidelog: &'c Grants,
    #[serde(rename = "gen")]
    generation: &'c str,
    #[serde(rename = "pwv")]
    password_version: &'c str,
}

impl OwnKey {
    /// The key of this secret, which was drawn at random.
    ///
    /// # Errors
    ///
    /// As [`Key::from_secret`].
    pub fn new(secret: &[u8]) -> Result<Self, KeyError> {
        Ok(Self { verifying: Key::from_secret(secret)?, signing: EncodingKey::from_secret(secret) })
    }

    /// Whether an app has the same secret.
    pub(crate) fn is_shared_with(&self, key: &Key) -> bool {
        self.verifying.is_same_secret(key)
    }

    pub(crate) fn sign(&self, claims: &impl Serialize) -> String {
        let payload = serde_json::to_string(claims).expect("BUG: claims are texts and numbers");
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let header = encode(br#"{"typ":"JWT","alg":"HS256"}"#);
        let signed = format!("{header}.{}", encode(payload.as_bytes()));
        let signature =
            (DEFAULT_PROVIDER.signer_factory)(&self.verifying.algorithm().into(), &self.signing)
                .map(|signer| signer.sign(signed.as_bytes()))
                .expect("BUG: HMAC takes any secret");
        format!("{signed}.{}", encode(&signature))
    }
}

impl OwnIssuer {
    /// A token for a login at the second `now_s` since 1970.
    ///
    /// # Errors
    ///
    /// [`MintError`] for a token that [`crate::Verifier::verify`] would refuse.
    pub fn mint(&self, login: &Login<'_>, now_s: u64) -> Result<String, MintError> {
        let password_version = self.users.get(login.subject).ok_or(MintError::UnknownUser)?;
        if !is_name(login.subject) {
            return Err(MintError::UnknownUser);
        }
        if !is_name(login.token_id) {
            return Err(MintError::TokenId);
        }
        let exp = now_s.saturating_add(login.lifetime_s);
        if exp > TOKEN_TIME_S_MAX {
            return Err(MintError::Lifetime);
        }
        let token = self.key.sign(&OwnClaims {
            iss: OWN_ISSUER,
            sub: login.subject,
            iat: now_s,
            exp,
            jti: login.token_id,
            tidelog: login.grants,
            generation: &self.generation,
            password_version,
        });
        if token.len() > TOKEN_SIZE_MAX { Err(MintError::TooLarge) } else { Ok(token) }
    }

    /// Whether this server signed the token.
    pub(crate) fn signed(&self, jws: &Jws<'_>) -> bool {
        self.key.verifying.verifies(jws)
    }

    /// Whether a token that this server signed still holds.
    pub(crate) fn check(&self, claims: &Claims<'_>) -> Result<(), TokenError> {
        if !claims.is_issued_by(OWN_ISSUER) {
            return Err(TokenError::Issuer);
        }
        let version = self.users.get(&claims.subject()?).ok_or(TokenError::Void)?;
        if !claims.is_of_generation(&self.generation) || !claims.is_of_password(version) {
            return Err(TokenError::Void);
        }
        Ok(())
    }
}
