//! What a verified token says.

use std::borrow::Cow;

use tidelog_types::limits::TOKEN_LEEWAY_S;

use crate::{Grants, KeyPrint};

/// What a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Who holds the token: `sub`.
    pub subject: String,
    /// What the token allows: `tidelog`; nothing if the token does not have the claim.
    pub grants: Grants,
    /// Second since 1970 at which the token expires: `exp`.
    pub expires_at_s: u64,
    /// Second since 1970 at which it was issued: `iat`.
    pub issued_at_s: Option<u64>,
    /// The token's name, by which it can be revoked: `jti`.
    pub token_id: Option<String>,
    /// A hash of what was signed. The signature is not in it: of some kinds there are several for
    /// the same token.
    pub signed: [u8; 32],
    /// Which of the app's keys verified it; `None` if this server issued it.
    pub key: Option<KeyPrint>,
    /// Whether this server issued it, to one of its built-in users.
    pub is_own: bool,
}

impl Access {
    /// Whether the token has expired at this second since 1970, [`TOKEN_LEEWAY_S`] included. A
    /// connection that outlives its token asks this again.
    #[must_use]
    pub fn is_expired(&self, now_s: u64) -> bool {
        now_s >= self.expires_at_s.saturating_add(TOKEN_LEEWAY_S)
    }

    /// By what the token is revoked: its `jti`, or else a hash of it.
    pub(crate) fn name(&self) -> Cow<'_, str> {
        match &self.token_id {
            Some(id) => Cow::Borrowed(id),
            None => format!("blake3:{}", blake3::Hash::from(self.signed).to_hex()).into(),
        }
    }
}
