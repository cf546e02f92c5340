//! The door of a page server: what it is asked and answers, and whether what it calls durable is.
//!
//! Whoever is told that too early would otherwise be noticed only if the power went in the few
//! milliseconds before the flush.

use tidelog_disk::{CrashDevice, CrashDisk};
use tidelog_pages::{OwnerId, PageServer, StoreReply, StoreRequest};
use tidelog_testing::store::door::Door;

use crate::device::stand_in;
use crate::swarm::Swarm;

/// Of what becomes durable, one in so many is looked for on the disk.
const LOOKS_ONE_IN: u32 = 32;
/// Slices of work that a store has left at most since it was asked for something: three followers
/// that lack all of a large document took 2,500 of the smallest.
const SLICES_MAX: u32 = 4_000;
/// The same where runs of workflows write so many entries that a change-over takes as many more.
const SLICES_WITH_RUNS_MAX: u32 = 20_000;

pub(crate) struct StoreDoor {
    door: Door,
    disk: CrashDevice,
    swarm: Swarm,
    /// How often something could have been looked for.
    looks: u32,
    /// Slices of its work since it was asked for something.
    slices: u32,
}

impl StoreDoor {
    pub(crate) fn new(disk: &CrashDevice, swarm: &Swarm, is_damaged: bool) -> Self {
        let may_be_damaged = is_damaged || swarm.rots();
        let door = Door::new(disk, swarm.limits, may_be_damaged);
        Self { door, disk: disk.clone(), swarm: swarm.clone(), looks: 0, slices: 0 }
    }

    pub(crate) fn comes(&mut self, owner: OwnerId, request: &StoreRequest) {
        self.slices = 0;
        self.door.comes(owner, request);
    }

    pub(crate) fn forgets(&mut self, owner: OwnerId) {
        self.door.forgets(owner);
    }

    /// What came of a poll.
    ///
    /// # Errors
    ///
    /// It may not say so, has left something unsaid, or never comes to rest.
    pub(crate) fn leaves(
        &mut self,
        server: &PageServer<CrashDisk>,
        replies: &[(OwnerId, StoreReply)],
    ) -> Result<(), String> {
        self.slices += 1;
        let has_runs = self.swarm.has_runs();
        if self.slices > if has_runs { SLICES_WITH_RUNS_MAX } else { SLICES_MAX } {
            return Err("a store goes on and on, and nobody asks it for anything".to_owned());
        }
        self.door.leaves(replies, server.is_broken())?;
        if !server.wants_poll() && !self.disk.has_held_flushes() {
            self.door.rests()?;
            if server.is_behind() || server.holds_back() {
                return Err("a store at rest holds something back".to_owned());
            }
        }
        let Some((document, stand)) = self.door.take_durable() else { return Ok(()) };
        self.looks += 1;
        if self.looks % LOOKS_ONE_IN != 1 {
            return Ok(());
        }
        let found = stand_in(&self.disk.crash(&mut |_| 0), &document, &self.swarm)?;
        if found.as_ref().is_some_and(|found| *found != stand) {
            return Err(format!("{document} is durable at {stand:?}, and found at {found:?}"));
        }
        Ok(())
    }
}
