//! The keys that an app's tokens are verified with.

use tidelog_types::limits::TOKEN_KEYS_MAX;

use crate::jws::Jws;
use crate::{Key, KeyError, KeyPrint, TokenError};

/// The keys that an app's tokens are verified with, at most [`TOKEN_KEYS_MAX`]: several while one
/// takes the place of another. Without any, no app's token is valid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// These keys. Two may have the same id: either may have signed then.
    ///
    /// # Errors
    ///
    /// [`KeyError::TooMany`] for more than [`TOKEN_KEYS_MAX`].
    pub fn new(keys: impl IntoIterator<Item = Key>) -> Result<Self, KeyError> {
        let keys: Vec<Key> = keys.into_iter().take(TOKEN_KEYS_MAX + 1).collect();
        if keys.len() > TOKEN_KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        Ok(Self(keys))
    }

    /// These keys, and others.
    ///
    /// # Errors
    ///
    /// [`KeyError::TooMany`] if they are more than [`TOKEN_KEYS_MAX`] together.
    pub fn with(self, others: Self) -> Result<Self, KeyError> {
        Self::new(self.0.into_iter().chain(others.0))
    }

    /// The keys.
    #[must_use]
    pub fn as_slice(&self) -> &[Key] {
        &self.0
    }

    /// Whether one of them is this one.
    pub(crate) fn contains(&self, print: KeyPrint) -> bool {
        self.0.iter().any(|key| key.print() == print)
    }

    /// Which of the keys that may have signed the token did.
    pub(crate) fn verify(&self, jws: &Jws<'_>) -> Result<KeyPrint, TokenError> {
        let named: Vec<&Key> = self.0.iter().filter(|key| is_named(key, jws)).collect();
        if named.is_empty() {
            return Err(TokenError::UnknownKey);
        }
        if named.iter().all(|key| key.algorithm() != jws.algorithm) {
            return Err(TokenError::Algorithm);
        }
        let signer = named.into_iter().find(|key| key.verifies(jws));
        signer.map(Key::print).ok_or(TokenError::Signature)
    }
}

/// Whether the token may mean this key: it names none, or this one, or the key has no name.
fn is_named(key: &Key, jws: &Jws<'_>) -> bool {
    match (key.id(), &jws.key_id) {
        (Some(id), Some(named)) => id == named,
        (None, _) | (_, None) => true,
    }
}
