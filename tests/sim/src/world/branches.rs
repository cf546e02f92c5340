//! What happens only within a few milliseconds: the world waits until the product is there.

use tidelog_client::TabId;
use tidelog_types::probe::{self, Probe};

use super::World;

/// Milliseconds in which a tab is open, and in which a mutation is recorded or refused.
const OPEN_MS: u64 = 2_000;
const DONE_MS: u64 = 1_000;
/// How often each of this is tried in its world.
const TRIES: u32 = 3;
/// Mutations that are issued in a row.
const SENT: u32 = 2;
/// Milliseconds in which a core hears what its tab asks, and in which that tab cannot hear yet what
/// the page server made of it.
const ASKED_MS: u64 = 3;
const UNHEARD_MS: u64 = 5;

impl World {
    /// Lets things happen until this branch is entered, or so many milliseconds have passed. Says
    /// whether it was.
    pub(super) fn pass_until(&mut self, reached: Probe, ms: u64) -> Result<bool, String> {
        let (until, before) = (self.now_ms + ms, probe::count(reached));
        while self.next_at().is_some_and(|at| at <= until) {
            self.next_event()?;
            if probe::count(reached) > before {
                return Ok(true);
            }
        }
        self.now_ms = self.now_ms.max(until);
        Ok(false)
    }

    /// What a tab issues finds no room, and the tab is away when its core says so: it comes back to
    /// the same core, and asks again for what was taken back.
    pub(super) fn fail_unheard(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        self.open_tab(device);
        self.pass(OPEN_MS)?;
        for _ in 0..TRIES {
            let Some(doc) = self.rng.pick(&self.docs.of(device)) else { return Ok(()) };
            let lender = self.lender(device);
            let others = |tab: &TabId| lender.is_some_and(|lender| lender != *tab);
            let mut holders = self.holders(device, doc);
            holders.retain(others);
            let Some(tab) = holders.pop() else { continue };
            self.fill_disk(device);
            (0..SENT).for_each(|_| self.add_in((device, tab), doc));
            let ms = ASKED_MS + self.rng.below(UNHEARD_MS);
            self.pass(ms)?;
            let is_away = self.hide((device, tab))?;
            self.pass_until(Probe::AppendFailedAndReloaded, DONE_MS)?;
            self.devices[device].disk.set_full(false);
            let ms = self.rng.below(DONE_MS);
            self.pass(ms)?;
            if self.rng.once_in(2) {
                // It takes the place of what was taken back.
                self.wish(device, doc, "add", 0);
            }
            if is_away {
                self.show((device, tab))?;
            }
            self.pass(DONE_MS)?;
        }
        Ok(())
    }

    fn lender(&self, device: usize) -> Option<TabId> {
        self.devices[device].page_server.as_ref().map(|lent| lent.worker.tab)
    }
}
