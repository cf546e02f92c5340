//! Tokens as an app signs them, for whoever tries things out without one.

use serde::Serialize;

use crate::own::OwnKey;
use crate::{Grants, KeyError};

/// What an app's token says. Whether a server takes it, [`crate::Verifier::verify`] knows.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AppToken<'t> {
    /// Who issued it, where the server asks.
    #[serde(rename = "iss", skip_serializing_if = "Option::is_none")]
    pub issuer: Option<&'t str>,
    /// For whom, where the server asks.
    #[serde(rename = "aud", skip_serializing_if = "Option::is_none")]
    pub audience: Option<&'t str>,
    /// Whose token it is.
    #[serde(rename = "sub")]
    pub subject: &'t str,
    /// When it was issued, in seconds since 1970.
    #[serde(rename = "iat")]
    pub issued_at_s: u64,
    /// When it ends.
    #[serde(rename = "exp")]
    pub expires_at_s: u64,
    /// What it allows.
    #[serde(rename = "tidelog")]
    pub grants: &'t Grants,
}

impl AppToken<'_> {
    /// The token, signed by HS256 with the secret that the app and its servers share.
    ///
    /// # Errors
    ///
    /// As [`crate::Key::from_secret`].
    pub fn sign(&self, secret: &[u8]) -> Result<String, KeyError> {
        Ok(OwnKey::new(secret)?.sign(self))
    }
}
