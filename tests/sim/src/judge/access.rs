//! Mutations that their device might not issue any more.

use super::{Fate, Judge};
use crate::doors::NO_ACCESS;

impl Judge {
    /// From now on a device gives tokens that do not allow to write.
    pub(crate) fn is_demoted(&mut self, device: usize) {
        self.demoted.insert(device, None);
    }

    /// They do again, and its core knows: what is issued from now on is not rejected for that.
    pub(crate) fn may_write(&mut self, device: usize) {
        let count = self.count;
        if let Some(until) = self.demoted.get_mut(&device) {
            until.get_or_insert(count);
        }
    }

    /// Whether what has no verdict may be rejected, or be about to, for want of access.
    pub(super) fn may_lack_access(&self, fate: &Fate) -> bool {
        let until = self.demoted.get(&fate.origin.device);
        until.is_some_and(|until| until.is_none_or(|count| fate.nth <= count))
    }

    pub(super) fn is_for_want_of_access(&self, fate: &Fate, reason: &str) -> bool {
        reason == NO_ACCESS && self.may_lack_access(fate)
    }

    /// Whoever is told so had no access for a while since it was issued, or when it was.
    ///
    /// # Errors
    ///
    /// It has had it all along.
    pub(super) fn judge_access(&self, name: &str, reason: &str) -> Result<(), String> {
        let is_it = |fate: &Fate| reason != NO_ACCESS || self.may_lack_access(fate);
        match self.fates.get(name).filter(|fate| !is_it(fate)) {
            Some(fate) => Err(format!("{name} is rejected for want of access: {fate:?}")),
            None => Ok(()),
        }
    }

    /// A mutation was refused where it was issued: nothing is left of it.
    pub(super) fn is_forbidden(&mut self, name: &str) -> Result<(), String> {
        let fate = self.fate(name)?;
        if fate.durable || fate.confirmed || fate.rejected.is_some() {
            return Err(format!("{name} was recorded, and might not be issued: {fate:?}"));
        }
        (fate.failed, fate.was_refused) = (true, true);
        match self.demoted.contains_key(&self.fates[name].origin.device) {
            true => Ok(()),
            false => Err(format!("{name} might not be issued, by one who may write")),
        }
    }
}
