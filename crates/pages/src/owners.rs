//! Who may ask.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_types::Epoch;

use crate::AppendError;

/// One client of a page server: a core, or a room. The host numbers them and never reuses a
/// number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub u64);

/// The owners that have asked for something, and who of them may go on.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    known: BTreeSet<OwnerId>,
    /// The one that said hello last: from then on nobody else is served.
    holder: Option<OwnerId>,
    /// Owners that said hello or were there before, and are not the holder any more.
    fenced: BTreeSet<OwnerId>,
    /// Owners that met damage: they have to begin anew.
    broken: BTreeMap<OwnerId, AppendError>,
}

impl Owners {
    /// Notes that `owner` is there. Says why it is not served, if it is not.
    pub fn admit(&mut self, owner: OwnerId, epoch: Epoch) -> Result<(), AppendError> {
        self.known.insert(owner);
        if let Some(error) = self.broken.get(&owner) {
            return Err(error.clone());
        }
        match self.holder {
            Some(holder) if holder != owner => Err(AppendError::Fenced { current: epoch }),
            _ => Ok(()),
        }
    }

    /// Gives the store to `owner` alone, unless it was fenced off before.
    pub fn take_over(&mut self, owner: OwnerId, epoch: Epoch) -> Result<(), AppendError> {
        if self.fenced.contains(&owner) {
            return Err(AppendError::Fenced { current: epoch });
        }
        self.known.insert(owner);
        self.broken.remove(&owner);
        self.fenced.extend(self.known.iter().filter(|known| **known != owner));
        self.holder = Some(owner);
        Ok(())
    }

    /// Serves `owner` no more.
    pub fn break_off(&mut self, owner: OwnerId, error: AppendError) {
        self.broken.insert(owner, error);
    }

    /// Forgets an owner that went away.
    pub fn forget(&mut self, owner: OwnerId) {
        self.known.remove(&owner);
        self.broken.remove(&owner);
        self.fenced.remove(&owner);
    }

    pub fn known(&self) -> impl Iterator<Item = OwnerId> + '_ {
        self.known.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch(4);
    const FENCED: Result<(), AppendError> = Err(AppendError::Fenced { current: EPOCH });

    #[test]
    fn nobody_is_fenced_until_somebody_says_hello() {
        let mut owners = Owners::default();
        assert_eq!(owners.admit(OwnerId(1), EPOCH), Ok(()));
        assert_eq!(owners.admit(OwnerId(2), EPOCH), Ok(()));
        assert_eq!(owners.take_over(OwnerId(3), EPOCH), Ok(()));
        assert_eq!(owners.admit(OwnerId(1), EPOCH), FENCED);
        assert_eq!(owners.admit(OwnerId(3), EPOCH), Ok(()));
    }

    #[test]
    fn an_owner_that_was_fenced_off_cannot_come_back() {
        let mut owners = Owners::default();
        assert_eq!(owners.take_over(OwnerId(1), EPOCH), Ok(()));
        assert_eq!(owners.take_over(OwnerId(2), EPOCH), Ok(()));
        assert_eq!(owners.take_over(OwnerId(1), EPOCH), FENCED);
        assert_eq!(owners.take_over(OwnerId(2), EPOCH), Ok(()), "the holder may ask again");
    }
}
