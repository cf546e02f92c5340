//! Why something is refused. No message repeats any part of a token, a key or a password.

use tidelog_types::limits::{
    DOCUMENT_NAME_SIZE_MAX, PASSWORD_SIZE_MAX, REVOKED_SUBJECTS_MAX, REVOKED_TOKENS_MAX,
    RSA_KEY_BITS_MAX, RSA_KEY_BITS_MIN, TOKEN_GRANTS_MAX, TOKEN_KEYS_MAX, TOKEN_NAME_SIZE_MAX,
    TOKEN_SECRET_SIZE_MIN, TOKEN_SIZE_MAX,
};

use crate::Algorithm;

/// Why a token is refused. The client may be told all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is longer than [`TOKEN_SIZE_MAX`] bytes.
    #[error("the token has more than {TOKEN_SIZE_MAX} bytes: issue one with fewer claims")]
    TooLarge,
    /// It is no JWT, or a claim is not what RFC 7519 says.
    #[error("the token's {part} cannot be read: issue it as RFC 7519 says, and send it unchanged")]
    Malformed {
        /// The part: `parts`, `header`, `payload`, `signature`, or a claim's name.
        part: &'static str,
    },
    /// Its header has `crit`.
    #[error("the token's header has `crit`: issue it without")]
    Critical,
    /// `alg` is none of the four, or not the algorithm of the key that it names.
    #[error("the token has another algorithm than its key: sign it with the key's")]
    Algorithm,
    /// No key is configured that it could be signed with.
    #[error("no key is configured for the token: configure the key that its `kid` names")]
    UnknownKey,
    /// No key that it could be signed with made its signature.
    #[error("the token's signature is not by a configured key: sign it with one, or log in again")]
    Signature,
    /// `exp` has passed.
    #[error("the token has expired: get a new one")]
    Expired,
    /// `nbf` or `iat` is to come.
    #[error("the token is not valid yet: wait, or set the clocks of issuer and server")]
    NotYetValid,
    /// `iss` is not the one that is asked for, or is the server's own.
    #[error("the token's `iss` is not the one that this server takes: issue it with that one")]
    Issuer,
    /// `aud` is not the one that is asked for.
    #[error("the token's `aud` lacks the one that this server takes: issue it for that one")]
    Audience,
    /// `sub` is missing, or is no name.
    #[error(
        "the token needs a `sub` of 1 to {TOKEN_NAME_SIZE_MAX} bytes without control characters"
    )]
    Subject,
    /// `tidelog` is there and is no list of grants.
    #[error(
        "the token's `tidelog` claim needs to be a list of at most {TOKEN_GRANTS_MAX} grants, each \
         with `document` (a name, or a prefix that ends in `*`), `role` (read, write or admin), \
         and `create` or not"
    )]
    Grants,
    /// It is an app's token with the name of a built-in user.
    #[error("the token's `sub` is the name of a built-in user: choose another one")]
    Reserved,
    /// It is the server's own, and from before a restore or a new password.
    #[error("the token was ended by a restore or a new password: log in again")]
    Void,
    /// It was revoked.
    #[error("the token was revoked: get a new one")]
    Revoked,
}

impl TokenError {
    /// A short name of the reason, which stays the same over releases.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "too-large",
            Self::Malformed { .. } => "malformed",
            Self::Critical => "critical",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown-key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Subject => "subject",
            Self::Grants => "grants",
            Self::Reserved => "reserved",
            Self::Void => "void",
            Self::Revoked => "revoked",
        }
    }
}

/// Why keys cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A secret of too few bytes.
    #[error("a secret needs {TOKEN_SECRET_SIZE_MIN} bytes or more, and this one has {size}")]
    SecretTooShort {
        /// Its size in bytes.
        size: usize,
    },
    /// What a public key comes in, in place of a secret: whoever has it could sign.
    #[error("the secret is a public key, or what one comes in: configure it as such")]
    SecretIsPublic,
    /// Text that is not one PEM.
    #[error("not one PEM: a file with one `BEGIN PUBLIC KEY` is needed")]
    Pem,
    /// A key that signs where one is needed that verifies.
    #[error("a private key, which belongs with the issuer alone: configure the public key")]
    Private,
    /// Neither of the public keys that can be used.
    #[error("not a public key of Ed25519, P-256 or RSA: a certificate or another curve cannot be")]
    Unusable,
    /// An RSA key of another size.
    #[error("an RSA key needs {RSA_KEY_BITS_MIN} to {RSA_KEY_BITS_MAX} bits, and this has {bits}")]
    RsaSize {
        /// Its size in bits.
        bits: usize,
    },
    /// A key of another algorithm than is said.
    #[error("the key cannot be used with {algorithm}")]
    Mismatch {
        /// The algorithm that is said.
        algorithm: Algorithm,
    },
    /// More than [`TOKEN_KEYS_MAX`] keys.
    #[error("more than {TOKEN_KEYS_MAX} keys")]
    TooMany,
    /// Text that is no JWKS, or a key in it that is no JWK.
    #[error("not a JWKS: a JSON object is needed with a list of JWKs as `keys`")]
    Jwks,
    /// A JWKS in which no key can be used.
    #[error("no key of the JWKS can be used here")]
    NoKeys,
    /// A key of a JWKS cannot be used.
    #[error("key {index} of the JWKS cannot be used")]
    InJwks {
        /// Its place in the list, from 0.
        index: usize,
        /// Why.
        #[source]
        source: Box<KeyError>,
    },
    /// An app's secret that is the server's own as well: the app could sign for built-in users.
    #[error("an app has the server's own secret: give it one of its own")]
    OwnSecret,
}

/// Why the server's own token is not made: nobody could use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// No built-in user of that name.
    #[error("no built-in user has this name")]
    UnknownUser,
    /// The token's id is no name.
    #[error("a token's id has 1 to {TOKEN_NAME_SIZE_MAX} bytes without control characters")]
    TokenId,
    /// The token would end after the year 9999.
    #[error("the token would end after the year 9999")]
    Lifetime,
    /// The token would be longer than [`TOKEN_SIZE_MAX`] bytes.
    #[error("the token would have more than {TOKEN_SIZE_MAX} bytes: fewer grants are needed")]
    TooLarge,
}

/// Why a password or its hash cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// A password of another size.
    #[error("a password has 1 to {PASSWORD_SIZE_MAX} bytes")]
    Size,
    /// Text that is no PHC string of argon2id, version 19.
    #[error("not a PHC string of argon2id, version 19, with salt and hash")]
    Phc,
    /// Parameters that would take too much memory or time for a login.
    #[error("the hash asks for too much memory, or for too many passes or lanes")]
    Costly,
}

/// Why something is not revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// No token can have such a name.
    #[error(
        "a token's id or subject has 1 to {TOKEN_NAME_SIZE_MAX} bytes without control characters"
    )]
    Name,
    /// As much is revoked as can be kept.
    #[error(
        "{REVOKED_TOKENS_MAX} tokens or {REVOKED_SUBJECTS_MAX} subjects are revoked already: \
         forgive subjects whose tokens have expired, or replace the key that signs them"
    )]
    Full,
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a document's name of at most {DOCUMENT_NAME_SIZE_MAX} bytes without control characters is \
     needed, with `*` at its end only"
)]
pub struct InvalidPattern;

/// Why a text is no algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an algorithm is HS256, EdDSA, ES256 or RS256")]
pub struct InvalidAlgorithm;

/// Why grants cannot be used together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {TOKEN_GRANTS_MAX} grants")]
pub struct GrantsError;
