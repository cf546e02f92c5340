//! What a payload claims, read so that nothing odd passes for something else.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tidelog_types::limits::{TOKEN_NAME_SIZE_MAX, TOKEN_TIME_S_MAX};

use crate::{Grant, Grants, TokenError};

/// The claims that count, each as its JSON; others are passed over. A claim that stands twice makes
/// the payload malformed, since two readers could take it for two things.
#[derive(Deserialize)]
pub(crate) struct Claims<'p> {
    #[serde(borrow, default, deserialize_with = "present")]
    iss: Option<&'p RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    aud: Option<&'p RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    sub: Option<&'p RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    exp: Option<&'p RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    nbf: Option<&'p RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    iat: Option<&'p RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    jti: Option<&'p RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    tidelog: Option<&'p RawValue>,
    #[serde(borrow, default, deserialize_with = "present", rename = "gen")]
    generation: Option<&'p RawValue>,
    #[serde(borrow, default, deserialize_with = "present", rename = "pwv")]
    password_version: Option<&'p RawValue>,
}

/// `aud`, in either of its forms.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl<'p> Claims<'p> {
    pub(crate) fn parse(json: &'p str) -> Result<Self, TokenError> {
        object(json).ok_or(TokenError::Malformed { part: "payload" })
    }

    /// Whether `iss` is this text. Without the claim it is not.
    pub(crate) fn is_issued_by(&self, issuer: &str) -> bool {
        text(self.iss).is_some_and(|it| it == issuer)
    }

    /// Whether `aud` is this text, or a list with it.
    pub(crate) fn is_for(&self, audience: &str) -> bool {
        match self.aud.and_then(|raw| serde_json::from_str(raw.get()).ok()) {
            Some(Audience::One(one)) => one == audience,
            Some(Audience::Several(several)) => several.iter().any(|it| it == audience),
            None => false,
        }
    }

    pub(crate) fn subject(&self) -> Result<String, TokenError> {
        text(self.sub).filter(|it| is_name(it)).ok_or(TokenError::Subject)
    }

    pub(crate) fn expires_at_s(&self) -> Result<u64, TokenError> {
        self.exp.and_then(second).ok_or(TokenError::Malformed { part: "exp" })
    }

    pub(crate) fn not_before_s(&self) -> Result<Option<u64>, TokenError> {
        optional(self.nbf, "nbf", second)
    }

    pub(crate) fn issued_at_s(&self) -> Result<Option<u64>, TokenError> {
        optional(self.iat, "iat", second)
    }

    pub(crate) fn token_id(&self) -> Result<Option<String>, TokenError> {
        optional(self.jti, "jti", |raw| text(Some(raw)).filter(|it| is_name(it)))
    }

    /// The grants; none without the claim.
    pub(crate) fn grants(&self) -> Result<Grants, TokenError> {
        let Some(raw) = self.tidelog else { return Ok(Grants::default()) };
        let list: Vec<&RawValue> =
            serde_json::from_str(raw.get()).map_err(|_| TokenError::Grants)?;
        let grants: Option<Vec<Grant>> = list.into_iter().map(|it| object(it.get())).collect();
        grants.and_then(|grants| Grants::new(grants).ok()).ok_or(TokenError::Grants)
    }

    /// Whether the token is of this generation.
    pub(crate) fn is_of_generation(&self, generation: &str) -> bool {
        text(self.generation).is_some_and(|it| it == generation)
    }

    /// Whether the token is for this version of its user's password.
    pub(crate) fn is_of_password(&self, version: &str) -> bool {
        text(self.password_version).is_some_and(|it| it == version)
    }
}

/// Whether subjects and token ids may be named so.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= TOKEN_NAME_SIZE_MAX && !text.chars().any(char::is_control)
}

/// Reads a JSON object. A list of its fields' values in their order, which would do as well, is
/// none.
pub(crate) fn object<'o, T: Deserialize<'o>>(json: &'o str) -> Option<T> {
    let is_object = json.trim_ascii_start().starts_with('{');
    is_object.then(|| serde_json::from_str(json).ok()).flatten()
}

/// Reads what is there, `null` too: for an `Option` alone, that would be as if it were not.
pub(crate) fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn text(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok()
}

/// A time as RFC 7519 has it, in seconds since 1970: a number, of which a fraction is dropped.
fn second(raw: &RawValue) -> Option<u64> {
    let time: f64 = serde_json::from_str(raw.get()).ok()?;
    // No time that passes is beyond what a float has exactly.
    (0.0..=TOKEN_TIME_S_MAX as f64).contains(&time).then_some(time as u64)
}

fn optional<T>(
    raw: Option<&RawValue>,
    part: &'static str,
    read: impl Fn(&RawValue) -> Option<T>,
) -> Result<Option<T>, TokenError> {
    raw.map(|raw| read(raw).ok_or(TokenError::Malformed { part })).transpose()
}
