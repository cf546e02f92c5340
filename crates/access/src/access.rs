//! What a verified token says.

use tidelog_types::limits::TOKEN_LEEWAY_S;

use crate::Grants;

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
}
