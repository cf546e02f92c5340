//! What a server asks of an app's tokens beside a signature.

use std::collections::BTreeSet;

/// What a server asks of an app's tokens beside a signature.
///
/// Where the app's keys sign tokens for other services too, as an identity provider's do, set both
/// `issuer` and `audience`: a token that was made for another service is valid here otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The `iss` that a token must have, if any is asked for. With [`crate::OWN_ISSUER`] here, no
    /// app's token is valid.
    pub issuer: Option<String>,
    /// The `aud` that a token must have, alone or in a list, if any is asked for.
    pub audience: Option<String>,
    /// Subjects that no app token may have. The users of [`crate::OwnIssuer`] are so anyway.
    pub reserved_subjects: BTreeSet<String>,
}
