//! Which doctypes a room takes that its document does not know.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use tidelog_document::DoctypeHash;

/// The doctypes that the rooms of a host take for documents that do not know them yet. Copies are
/// the same: what is deployed is taken by every room from then on.
#[derive(Clone, Debug)]
pub struct Doctypes(Option<Arc<RwLock<BTreeSet<DoctypeHash>>>>);

impl Doctypes {
    /// Whatever clients bring along.
    #[must_use]
    pub fn any() -> Self {
        Self(None)
    }

    /// Those that are [deployed](Self::deploy): none yet.
    #[must_use]
    pub fn deployed() -> Self {
        Self(Some(Arc::default()))
    }

    /// Takes this one from now on.
    pub fn deploy(&self, hash: DoctypeHash) {
        if let Some(deployed) = &self.0 {
            deployed.write().unwrap_or_else(PoisonError::into_inner).insert(hash);
        }
    }

    /// Whether a document may be used by this one.
    #[must_use]
    pub fn takes(&self, hash: DoctypeHash) -> bool {
        self.0.as_ref().is_none_or(|deployed| {
            deployed.read().unwrap_or_else(PoisonError::into_inner).contains(&hash)
        })
    }
}

impl Default for Doctypes {
    /// [`Doctypes::deployed`].
    fn default() -> Self {
        Self::deployed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deployed_is_taken_by_all_copies() {
        let (one, other) = (DoctypeHash([1; 32]), DoctypeHash([2; 32]));
        let doctypes = Doctypes::default();
        let copy = doctypes.clone();
        assert!(!copy.takes(one));
        doctypes.deploy(one);
        assert!(copy.takes(one) && !copy.takes(other));
        assert!(Doctypes::any().takes(other));
    }
}
