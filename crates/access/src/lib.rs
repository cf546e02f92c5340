//! Who may do what: a token, keys and the time go in; a subject and its grants come out.
//!
//! There is one kind of token, a signed JWT. An app signs tokens for its users with a key of its
//! own, and the server signs tokens for its built-in users once their password was right.
//!
//! ```text
//! name, password ─▶ Users::check ─▶ role ─▶ OwnIssuer::mint ─▶ token
//!
//! token, time ─▶ Verifier::verify ─▶ Access { subject, grants, .. }
//!                                      ├─▶ Verifier::knows_key_of, as keys change
//!                                      ├─▶ Revocations::check
//!                                      └─▶ Grants::for_document(name) ─▶ Allowed { role, create }
//! ```
//!
//! # Where to start reading
//!
//! - [`Verifier`]: every rule that a token has to meet, in the order in which they are checked.
//! - [`Grants`]: what a token allows.
//! - [`Key`] and [`Keys`]: what an app's tokens are verified with.
//! - [`OwnIssuer`]: the server's own tokens.
//! - [`Users`] and [`PasswordHash`]: the built-in users.
//! - [`Revocations`]: tokens that ended before they expired.
//!
//! # What this crate does not know
//!
//! Sockets, files and settings; the time, which is an argument; chance, so that whoever needs a
//! salt, a secret or a token's id brings it along. Nothing is logged, and no error repeats any part
//! of a token, a key or a password.

mod access;
mod algorithm;
mod app_token;
mod claims;
mod error;
mod grant;
mod grants;
mod jwks;
mod jws;
mod key;
mod key_print;
mod keys;
mod own;
mod password_hash;
mod pattern;
mod policy;
mod revocations;
mod users;
mod verifier;

pub use access::Access;
pub use algorithm::Algorithm;
pub use app_token::AppToken;
pub use error::{
    GrantsError, InvalidAlgorithm, InvalidPattern, KeyError, MintError, PasswordError,
    RevocationError, TokenError,
};
pub use grant::Grant;
pub use grants::{Allowed, Grants};
pub use jwks::{SkipReason, SkippedKey};
pub use key::Key;
pub use key_print::KeyPrint;
pub use keys::Keys;
pub use own::{Login, OWN_ISSUER, OwnIssuer, OwnKey};
pub use password_hash::PasswordHash;
pub use pattern::Pattern;
pub use policy::Policy;
pub use revocations::Revocations;
pub use tidelog_types::{InvalidRole, Role};
pub use users::Users;
pub use verifier::Verifier;
