//! From a token to what it allows.

use tidelog_types::limits::TOKEN_LEEWAY_S;

use crate::TokenError;
use crate::claims::Claims;
use crate::jws::Jws;
use crate::{Access, Algorithm, KeyError, KeyPrint, Keys, OWN_ISSUER, OwnIssuer, Policy};

/// What tokens are verified by: the app's keys and policy, and the server's own issuer.
#[derive(Clone, Debug)]
pub struct Verifier {
    keys: Keys,
    policy: Policy,
    own: Option<OwnIssuer>,
}

impl Verifier {
    /// Verifies by these. Without keys no app's token is valid, and without `own` no login.
    ///
    /// # Errors
    ///
    /// [`KeyError::OwnSecret`] if one of the keys is the server's own secret.
    pub fn new(keys: Keys, policy: Policy, own: Option<OwnIssuer>) -> Result<Self, KeyError> {
        let is_shared =
            |own: &OwnIssuer| keys.as_slice().iter().any(|it| own.key.is_shared_with(it));
        if own.as_ref().is_some_and(is_shared) {
            return Err(KeyError::OwnSecret);
        }
        Ok(Self { keys, policy, own })
    }

    /// The same by other keys of the app's.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn with_keys(&self, keys: Keys) -> Result<Self, KeyError> {
        Self::new(keys, self.policy.clone(), self.own.clone())
    }

    /// The app's keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// What the token allows at the second `now_s` since 1970. Whether it was revoked,
    /// [`crate::Revocations::check`] knows.
    ///
    /// The rules, in the order in which they are checked:
    ///
    /// 1. At most 8 KiB; three parts in base64url without padding; the header is a JSON object
    ///    whose `alg` is one of [`Algorithm`], without `crit`. Keys that it brings do not count.
    /// 2. The signature is by a key of that algorithm: of `kid`, or without an id; by any if the
    ///    header has no `kid`. The server's own key is tried first, for HS256 without `kid`.
    /// 3. The payload is a JSON object in which none of the claims below stands twice.
    /// 4. An app's token: `iss` and `aud` (a text, or a list with it) are those of the policy,
    ///    where it asks; `iss` is never [`OWN_ISSUER`]; `sub` is neither reserved nor a built-in
    ///    user. The server's own token: generation and password are the current ones.
    /// 5. `sub` is a text of 1 to 256 bytes without control characters; so is `jti`, if it is
    ///    there.
    /// 6. `exp`, and `nbf` and `iat` if they are there, are numbers of seconds from 0 to the year
    ///    9999; a fraction is dropped. `exp` is to come, `nbf` and `iat` are not, by a clock that
    ///    may be 60 seconds wrong either way.
    /// 7. `tidelog` is a list of grants; without it the token allows nothing.
    ///
    /// # Errors
    ///
    /// [`TokenError`] for the first rule that the token does not meet.
    pub fn verify(&self, token: &str, now_s: u64) -> Result<Access, TokenError> {
        let jws = Jws::parse(token)?;
        let own = self.own.as_ref().filter(|_| may_be_own(&jws));
        let signed_own = own.filter(|own| own.signed(&jws));
        let key = match signed_own {
            Some(_) => None,
            // Where the server's own key was tried, more than a key that nobody knows is wrong.
            None => Some(self.keys.verify(&jws).map_err(|error| match own {
                Some(_) => TokenError::Signature,
                None => error,
            })?),
        };
        let json = jws.payload_json()?;
        let claims = Claims::parse(&json)?;
        match signed_own {
            Some(own) => own.check(&claims)?,
            None => self.check_app(&claims)?,
        }
        access(&claims, &jws, key, now_s)
    }

    /// Whether a token that was valid could still be, by its key: that is the server's own, or one
    /// of those here.
    #[must_use]
    pub fn knows_key_of(&self, access: &Access) -> bool {
        access.key.is_none_or(|key| self.keys.contains(key))
    }

    /// What is asked of an app's token beside its signature.
    fn check_app(&self, claims: &Claims<'_>) -> Result<(), TokenError> {
        let is_wanted = |issuer: &String| claims.is_issued_by(issuer);
        if claims.is_issued_by(OWN_ISSUER) || !self.policy.issuer.as_ref().is_none_or(is_wanted) {
            return Err(TokenError::Issuer);
        }
        let is_here = |audience: &String| claims.is_for(audience);
        if !self.policy.audience.as_ref().is_none_or(is_here) {
            return Err(TokenError::Audience);
        }
        let subject = claims.subject()?;
        let is_user = self.own.as_ref().is_some_and(|own| own.users.contains_key(&subject));
        if is_user || self.policy.reserved_subjects.contains(&subject) {
            return Err(TokenError::Reserved);
        }
        Ok(())
    }
}

/// Whether the token has the header of those that [`OwnIssuer::mint`] makes.
fn may_be_own(jws: &Jws<'_>) -> bool {
    jws.algorithm == Algorithm::Hs256 && jws.key_id.is_none()
}

/// What the claims of any token come to, if it is their time.
fn access(
    claims: &Claims<'_>,
    jws: &Jws<'_>,
    key: Option<KeyPrint>,
    now_s: u64,
) -> Result<Access, TokenError> {
    let access = Access {
        subject: claims.subject()?,
        expires_at_s: claims.expires_at_s()?,
        issued_at_s: claims.issued_at_s()?,
        token_id: claims.token_id()?,
        grants: claims.grants()?,
        signed: *blake3::hash(jws.signed.as_bytes()).as_bytes(),
        key,
        is_own: key.is_none(),
    };
    if access.is_expired(now_s) {
        return Err(TokenError::Expired);
    }
    let is_to_come = |second: u64| second > now_s.saturating_add(TOKEN_LEEWAY_S);
    if access.issued_at_s.is_some_and(is_to_come) || claims.not_before_s()?.is_some_and(is_to_come)
    {
        return Err(TokenError::NotYetValid);
    }
    Ok(access)
}
