//! Who may ask.

use tidelog_types::{Epoch, Life, SortedMap};

use crate::AppendError;

/// One client of a page server: a core, or a room. The host numbers them and never reuses a
/// number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub u64);

/// The owners that have asked for something, and who of them may go on.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    known: SortedMap<OwnerId, Standing>,
    /// The one that said hello last: from then on nobody else is served.
    holder: Option<(OwnerId, Life)>,
}

#[derive(Debug, Default)]
struct Standing {
    /// It said hello or was there before another one did, and is not the holder any more.
    fenced: bool,
}

impl Owners {
    /// Notes that `owner` is there. Says why it is not served, if it is not.
    pub fn admit(&mut self, owner: OwnerId, epoch: Epoch) -> Result<(), AppendError> {
        self.known.get_or_insert_with(owner, Standing::default);
        match self.holder {
            Some((holder, _)) if holder != owner => Err(AppendError::Fenced { current: epoch }),
            _ => Ok(()),
        }
    }

    /// Gives the store to `owner` alone, unless it was fenced off before.
    pub fn take_over(
        &mut self,
        owner: OwnerId,
        life: Life,
        epoch: Epoch,
    ) -> Result<(), AppendError> {
        let standing = self.known.get_or_insert_with(owner, Standing::default);
        if standing.fenced {
            return Err(AppendError::Fenced { current: epoch });
        }
        for (known, standing) in self.known.iter_mut() {
            standing.fenced |= *known != owner;
        }
        self.holder = Some((owner, life));
        Ok(())
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
        self.known.keys().copied()
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
}
