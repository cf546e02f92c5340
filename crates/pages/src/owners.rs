//! Who may ask.

use std::collections::BTreeSet;

use tidelog_types::{Epoch, Life};

use crate::AppendError;

/// One client of a page server: a core, or a room. The host numbers them in the order in which it
/// gave them a way to ask, and never reuses a number: so a core has a higher one than those that it
/// came after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub u64);

/// The owners that have asked for something, and who of them may go on.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    known: BTreeSet<OwnerId>,
    /// The newest that said hello: from then on nobody else is served.
    holder: Option<(OwnerId, Life)>,
}

impl Owners {
    /// Notes that `owner` is there. Says why it is not served, if it is not.
    pub fn admit(&mut self, owner: OwnerId, epoch: Epoch) -> Result<(), AppendError> {
        self.known.insert(owner);
        match self.holder {
            Some((holder, _)) if holder != owner => Err(AppendError::Fenced { current: epoch }),
            _ => Ok(()),
        }
    }

    /// Gives the store to `owner` alone, unless a newer one has it: what a dead core said can come
    /// after what its successor said, even if it is its first word.
    pub fn take_over(
        &mut self,
        owner: OwnerId,
        life: Life,
        epoch: Epoch,
    ) -> Result<(), AppendError> {
        self.known.insert(owner);
        match self.holder {
            Some((holder, _)) if holder > owner => Err(AppendError::Fenced { current: epoch }),
            _ => {
                self.holder = Some((owner, life));
                Ok(())
            }
        }
    }

    /// Who counts the tickets of those that are served, if their appends can come again.
    pub fn life(&self) -> Option<Life> {
        self.holder.map(|(_, life)| life).filter(|life| *life != Life::NONE)
    }

    /// Forgets an owner that went away.
    pub fn forget(&mut self, owner: OwnerId) {
        self.known.remove(&owner);
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
        assert_eq!(owners.take_over(OwnerId(3), Life::NONE, EPOCH), Ok(()));
        assert_eq!(owners.admit(OwnerId(1), EPOCH), FENCED);
        assert_eq!(owners.admit(OwnerId(3), EPOCH), Ok(()));
    }

    #[test]
    fn an_owner_that_was_fenced_off_cannot_come_back() {
        let mut owners = Owners::default();
        assert_eq!(owners.take_over(OwnerId(1), Life::NONE, EPOCH), Ok(()));
        assert_eq!(owners.take_over(OwnerId(2), Life::NONE, EPOCH), Ok(()));
        assert_eq!(owners.take_over(OwnerId(1), Life::NONE, EPOCH), FENCED);
        assert_eq!(
            owners.take_over(OwnerId(2), Life::NONE, EPOCH),
            Ok(()),
            "the holder may ask again"
        );
    }

    #[test]
    fn the_first_hello_of_an_older_owner_takes_nothing_from_a_newer_one() {
        let mut owners = Owners::default();
        assert_eq!(owners.take_over(OwnerId(2), Life::NONE, EPOCH), Ok(()));
        assert_eq!(owners.take_over(OwnerId(1), Life::NONE, EPOCH), FENCED);
        assert_eq!(owners.admit(OwnerId(2), EPOCH), Ok(()));
    }
}
