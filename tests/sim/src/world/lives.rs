//! Who is who, and who remembers what: machines that are put back, tabs that hear late, servers
//! that go back to before what they have just acknowledged.

use std::collections::BTreeSet;

use tidelog_client::TabId;
use tidelog_tab::Input as ToTab;
use tidelog_types::limits::CALL_SETTLES_MS;

use super::World;
use super::event::Event;
use crate::app::Wish;
use crate::device::{crash, kill};
use crate::docs::Doc;
use crate::tab::Tab;

/// Milliseconds in which a device is back after a power cut, and in which a tab more is open.
const BACK_MS: u64 = 8_000;
/// Simulated milliseconds in which a device meets a server that it could not reach, however long it
/// has waited before it tries again.
const MET_MS: u64 = 40_000;
const OPEN_MS: u64 = 2_000;
/// Milliseconds in which mutations are decided, or kept.
const DECIDED_MS: u64 = 2_000;
const KEPT_MS: u64 = 800;
/// Milliseconds in which a core that has just begun finds its server, and all is decided.
const FOUND_MS: u64 = 4_000;
/// Mutations that a machine sends before it is put back, or has acknowledged and not decided.
const SENT: u64 = 3;
/// Milliseconds after which a device reads what its server says, and in which all else is done.
const READ_AFTER_MS: u64 = 3_000;
const DONE_MS: u64 = 1_000;
/// Milliseconds in which tabs are told how their documents stand.
const TOLD_MS: u64 = 200;
/// Milliseconds in which a tab has found a core, though it could not reach the first one.
const REACHED_MS: u64 = 30_000;
/// How often a document is opened while it is being deleted, and milliseconds in which it may be.
const DELETIONS: u32 = 4;
const DELETED_MS: u64 = 10;
/// Milliseconds for which a disk does not say that there was no room for a deletion.
const DELETION_MS: u64 = 40;
/// Milliseconds in which a core has gone over to the page server that has the store.
const TAKEN_OVER_MS: u64 = 2_000;
/// Milliseconds for which a page server does nothing.
const FROZEN_MS: u64 = 5_000;
/// Milliseconds for which a tab is suspended, at least: all that it has asked for is late then.
const SUSPENDED_MS: u64 = 12_000;

/// A tab of a device.
pub(super) type TabOf = (usize, TabId);

impl World {
    // --- tabs that hear late ---------------------------------------------------------------------

    /// Gives the event back, unless it is for a tab that is busy.
    pub(super) fn unless_busy(&mut self, event: Event) -> Option<Event> {
        let waiting = event.tab().and_then(|tab| self.busy.get_mut(&tab));
        match waiting {
            Some(waiting) => {
                waiting.push(event);
                None
            }
            None => Some(event),
        }
    }

    /// From now on nothing that is said to a tab is heard.
    pub(super) fn keep_busy(&mut self, tab: TabOf) {
        self.note(&format!("device {}: tab {} is busy", tab.0, tab.1.0));
        self.trouble(tab.0);
        self.busy.entry(tab).or_default();
    }

    /// A tab hears all that was said to it meanwhile.
    pub(super) fn let_hear(&mut self, tab: TabOf) -> Result<(), String> {
        self.trouble(tab.0);
        for event in self.busy.remove(&tab).unwrap_or_default() {
            self.happen(event)?;
        }
        Ok(())
    }

    /// All hear what was said to them.
    pub(super) fn let_all_hear(&mut self) -> Result<(), String> {
        self.deaf_once_it_asked = None;
        for tab in self.busy.keys().copied().collect::<Vec<TabOf>>() {
            self.let_hear(tab)?;
        }
        Ok(())
    }

    // --- tabs that go away and come back ---------------------------------------------------------

    /// A tab lets go of its core, and of all that it holds, and nothing happens in it any more.
    /// Says no of one that is away already, and of one that is busy.
    pub(super) fn hide(&mut self, tab: TabOf) -> Result<bool, String> {
        let is_there = self.devices[tab.0].tabs.contains_key(&tab.1);
        if !is_there || self.busy.contains_key(&tab) || !self.hidden.insert(tab) {
            return Ok(false);
        }
        self.note(&format!("device {}: tab {} is hidden", tab.0, tab.1.0));
        self.tab_takes(tab.0, tab.1, &ToTab::Hide)?;
        // What holds anything is not kept for the way back.
        if self.devices[tab.0].lending.holds(tab.1) {
            return Err(format!("device {}: tab {} is hidden with its worker", tab.0, tab.1.0));
        }
        self.keep_busy(tab);
        Ok(true)
    }

    /// It is shown again, and hears before or after that what it can still hear.
    pub(super) fn show(&mut self, tab: TabOf) -> Result<(), String> {
        if !self.hidden.remove(&tab) {
            return Ok(());
        }
        self.note(&format!("device {}: tab {} is shown again", tab.0, tab.1.0));
        if self.rng.once_in(2) {
            self.let_hear(tab)?;
        }
        self.tab_takes(tab.0, tab.1, &ToTab::Show)?;
        self.let_hear(tab)
    }

    /// Another core takes over, and one tab alone notices that.
    fn hand_to_another_core(&mut self, tab: TabOf, page_server_lives: bool) -> Result<(), String> {
        let device = tab.0;
        let others: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
        others.into_iter().for_each(|other| self.keep_busy((device, other)));
        self.kill_core(device, page_server_lives);
        self.notice_now(tab)
    }

    /// A tab hears again, first of all that its core is gone.
    fn notice_now(&mut self, tab: TabOf) -> Result<(), String> {
        self.let_hear(tab)?;
        let Some(here) = self.devices[tab.0].tabs.get(&tab.1) else { return Ok(()) };
        if here.port.is_heard { Ok(()) } else { self.tab_notices(tab.0, tab.1, here.port.core) }
    }

    /// A tab asks three cores in turn for one mutation, and hears of the third alone what became of
    /// it: the second has recorded it, and the others have issued so many since that it is
    /// forgotten. What the first one counted may never have come to the disk.
    pub(super) fn forget_calls(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        self.open_tab(device);
        self.pass(OPEN_MS)?;
        let holders = self.holders(device, Doc(0));
        let [late, other, ..] = holders[..] else { return Ok(()) };
        let is_frozen = self.rng.once_in(2) && self.devices[device].page_server.is_some();
        if is_frozen {
            self.freeze_lender(device, FROZEN_MS);
        }
        for _ in 0..2 + self.rng.below(4) {
            self.add_in((device, other), Doc(0));
        }
        self.pass(TOLD_MS)?;
        self.deaf_once_it_asked = Some((device, late));
        self.add_in((device, late), Doc(0));
        let ms = self.rng.below(TOLD_MS);
        self.pass(ms)?;
        let lives = !is_frozen && self.rng.once_in(2);
        self.hand_to_another_core((device, late), lives)?;
        self.pass(DECIDED_MS)?;
        self.notice_now((device, other))?;
        for _ in 0..self.rng.below(2) {
            self.add_in((device, other), Doc(0));
        }
        self.pass(FOUND_MS)?;
        self.deaf_once_it_asked = None;
        let lives = self.rng.once_in(2);
        self.hand_to_another_core((device, late), lives)?;
        self.pass(DECIDED_MS)?;
        self.let_all_hear()
    }

    /// A copy is deleted, and its tab does not hear of that; the next core, which it asks to delete
    /// it once more, finds no room for that. Or there is none to begin with, and the copy stays.
    pub(super) fn delete_twice(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        self.pass(OPEN_MS)?;
        let Some(diary) = self.diary_of(device) else { return Ok(()) };
        let Some(tab) = self.holders(device, diary).pop() else { return Ok(()) };
        let tab = (device, tab);
        (0..SENT).for_each(|_| self.add_in(tab, diary));
        self.pass(DONE_MS)?;
        if self.devices[device].page_server.is_none() {
            return Ok(());
        }
        if self.rng.once_in(3) {
            self.fill_disk(device);
            self.destroy(device, tab.1, diary, true);
            return self.pass(DONE_MS);
        }
        self.deaf_once_it_asked = Some(tab);
        self.destroy(device, tab.1, diary, true);
        self.pass(TOLD_MS)?;
        self.deaf_once_it_asked = None;
        self.hand_to_another_core(tab, true)?;
        self.fill_disk(device);
        self.pass(DONE_MS)?;
        self.let_all_hear()
    }

    /// A tab is suspended that has closed a document and wants its copy deleted. It goes on with
    /// another core, which may be slow, and which dies as well: of what was given up meanwhile
    /// nothing is asked of either.
    pub(super) fn sleep_on_deletion(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        self.open_tab(device);
        self.pass(OPEN_MS)?;
        let Some(diary) = self.diary_of(device) else { return Ok(()) };
        let Some(tab) = self.holders(device, diary).pop() else { return Ok(()) };
        let (tab, force) = ((device, tab), self.rng.once_in(2));
        self.destroy(device, tab.1, diary, force);
        self.keep_busy(tab);
        let ms = SUSPENDED_MS + self.rng.below(SUSPENDED_MS);
        self.trouble_for(device, ms);
        let page_server_lives = self.rng.once_in(2);
        self.kill_core(device, page_server_lives);
        self.pass(ms)?;
        if self.rng.once_in(2) && self.devices[device].page_server.is_some() {
            self.freeze_lender(device, FROZEN_MS);
        }
        self.let_hear(tab)?;
        self.pass(FOUND_MS)?;
        self.kill_core(device, page_server_lives);
        self.pass(BACK_MS)
    }

    /// The document that a device keeps for itself.
    fn diary_of(&self, device: usize) -> Option<Doc> {
        let is_diary = |doc: &Doc| {
            let spec = self.docs.spec(*doc);
            spec.device == Some(device) && spec.moves_to.is_none()
        };
        self.docs.of(device).into_iter().find(is_diary)
    }

    /// A tab holds documents, and waits for nothing; its core dies, and it cannot reach the next
    /// one. It finds one by itself.
    pub(super) fn turn_away(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        self.pass(OPEN_MS)?;
        let Some(tab) = self.rng.pick(&self.holders(device, Doc(0))) else { return Ok(()) };
        let messages = self.tab(device, tab).stop_watching();
        self.send_to_core(device, tab, messages);
        self.pass(DECIDED_MS)?;
        // It may have been closed meanwhile, or asked to close the document.
        if !self.holders(device, Doc(0)).contains(&tab) {
            return Ok(());
        }
        self.turned_away = Some((device, tab));
        if self.rng.once_in(2) {
            // What waits for a server is told as well that there is no core to ask it.
            let now_ms = self.now_ms;
            let sync = self.tab(device, tab).sync(Doc(0), BTreeSet::new(), now_ms);
            self.send_to_core(device, tab, vec![sync]);
        }
        let page_server_lives = self.rng.once_in(2);
        self.kill_core(device, page_server_lives);
        for _ in 0..REACHED_MS / DONE_MS {
            self.pass(DONE_MS)?;
            let is_due = self.turned_away.is_some();
            let there = self.devices[device].tabs.get(&tab);
            if there.is_none_or(|it| it.port.is_heard && !is_due) {
                self.turned_away = None;
                return Ok(());
            }
        }
        Err(format!("{device}.{} has documents open, and looks for no core", tab.0))
    }

    /// The tab that has the store next is blocked as the one that lends is closed: the core goes
    /// over to its worker all the same.
    pub(super) fn block_next(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        (0..2).for_each(|_| self.open_tab(device));
        self.pass(OPEN_MS)?;
        let here = &self.devices[device];
        let (life, lender) = (here.life, here.page_server.as_ref().map(|it| it.worker.tab));
        let (Some(lender), Some(next)) = (lender, here.lending.next_in_line()) else {
            return Ok(());
        };
        let has_core = here
            .tabs
            .get(&next)
            .is_some_and(|tab| tab.port.is_heard && self.is_known(device, next, tab.port.core));
        if !has_core || !here.tabs.contains_key(&lender) {
            return Ok(());
        }
        self.keep_busy((device, next));
        self.holders(device, Doc(0)).into_iter().for_each(|tab| self.add_in((device, tab), Doc(0)));
        self.close_this_tab(device, lender);
        self.pass(TAKEN_OVER_MS)?;
        let here = &self.devices[device];
        let has_store = here.page_server.as_ref().is_some_and(|it| it.worker.tab == next);
        if here.life == life && has_store && !here.is_lent() {
            return Err(format!("device {device}: all wait for tab {}, which is blocked", next.0));
        }
        self.let_hear((device, next))
    }

    /// A tab opens the document that its device keeps for itself while that is being deleted: it
    /// begins anew once it is gone, or is what it was where there was no room for the deletion,
    /// whose tab may be gone by then.
    pub(super) fn open_behind_deletion(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        self.open_tab(device);
        self.pass(OPEN_MS)?;
        let Some(diary) = self.diary_of(device) else { return Ok(()) };
        let has_room = self.rng.once_in(2);
        for _ in 0..DELETIONS {
            let holders = self.holders(device, diary);
            let (Some(tab), Some(other)) = (holders.first(), holders.last()) else { break };
            let (mut tab, mut other) = (*tab, *other);
            let lent = self.devices[device].page_server.as_ref();
            if !has_room && lent.is_some_and(|lent| lent.worker.tab == tab) {
                (tab, other) = (other, tab);
            }
            self.destroy(device, tab, diary, true);
            if !has_room {
                self.hold_deletion_up(device)?;
            }
            let ms = self.rng.below(DELETED_MS);
            self.pass(ms)?;
            if self.devices[device].tabs.get(&other).is_some_and(|it| !it.wants(diary)) {
                self.make_again(device, other, diary);
            }
            let is_left = !has_room && tab != other && self.rng.once_in(2);
            if is_left {
                self.pass(DELETED_MS)?;
                if self.devices[device].tabs.contains_key(&tab) {
                    self.close_this_tab(device, tab);
                    self.open_tab(device);
                }
            }
            self.pass(KEPT_MS)?;
        }
        self.pass(CALL_SETTLES_MS)?;
        let here = &self.devices[device];
        let is_quiet = here.is_lent() && here.trouble_ms + CALL_SETTLES_MS < self.now_ms;
        let waits = |it: &Tab| it.wants(diary) && !it.held.contains_key(&diary);
        if is_quiet && here.tabs.values().any(waits) {
            return Err(format!("device {device}: {diary:?} was deleted, and does not begin anew"));
        }
        Ok(())
    }

    /// A core that is to delete something asks its page server for that, which takes its time, and
    /// has no room for it.
    fn hold_deletion_up(&mut self, device: usize) -> Result<(), String> {
        let (until, before) =
            (self.now_ms + TOLD_MS, self.devices[device].core_door.deletions_count);
        while self.next_at().is_some_and(|at| at <= until) {
            self.next_event()?;
            if self.devices[device].core_door.deletions_count > before {
                self.fill_disk(device);
                self.freeze_lender(device, DELETION_MS);
                break;
            }
        }
        Ok(())
    }

    // --- what is the same, and is not ------------------------------------------------------------

    /// A machine is put back, with its memory, to where its core had begun: the same life writes
    /// others at the LSNs of those that its server has had of it. Where it wrote as many as the
    /// server has, nobody could tell; nor where it lost its power before it met the server, and so
    /// began another life behind them.
    pub(super) fn put_machine_back(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        self.cut_power_of(device);
        let disk = kill(&self.devices[device].disk, &self.swarm);
        let issued = self.judge.issued_count();
        self.pass(BACK_MS)?;
        let (life, seed) = (self.devices[device].life, self.devices[device].core_seed);
        self.add_some(device, SENT);
        self.pass(DECIDED_MS)?;
        let confirmed = self.judge.confirmed_of(Doc(0), device, issued);
        if self.devices[device].life != life || confirmed < 2 {
            return Ok(());
        }
        self.note(&format!("device {device}: the machine is put back"));
        self.put_store_back(device, issued, &disk)?;
        self.devices[device].next_core_seed = Some(seed);
        self.cut_off.insert(device);
        self.pass(BACK_MS)?;
        self.add_some(device, confirmed - 1);
        self.pass(KEPT_MS)?;
        self.cut_off.remove(&device);
        self.pass(MET_MS)?;
        if !self.devices[device].is_lent() {
            // Without a store it has met nobody, and may write more before it does: it is an
            // ordinary device that went back, of another life.
            self.put_store_back(device, issued, &disk)?;
        }
        Ok(())
    }

    /// A server goes back to before what it has acknowledged to a device that reads late: it was
    /// sent nothing of that, since it has not said that it has what came before.
    pub(super) fn lose_acked(&mut self) -> Result<(), String> {
        let (host, device) = (0, self.rng.index(self.devices.len()));
        let other = (device + 1) % self.devices.len();
        self.pass(OPEN_MS)?;
        self.note(&format!("device {device}: reads late what its server says"));
        let conns = self.conns.values_mut();
        conns
            .filter(|conn| (conn.device, conn.host) == (device, host))
            .for_each(|conn| conn.read_after_ms = READ_AFTER_MS);
        self.add_some(other, 1);
        self.pass(DONE_MS)?;
        let backup = crash(&self.hosts[host].disk, &self.swarm, &mut self.rng);
        self.add_some(device, SENT);
        self.pass(READ_AFTER_MS + 3 * DONE_MS / 2)?;
        self.give_server(host, kill(&backup, &self.swarm))?;
        self.pass(BACK_MS)
    }

    /// A server goes back while a device is cut off that has sent it more; when it is back, the
    /// server has something else of another one, and it wants to be in step.
    pub(super) fn sync_behind(&mut self) -> Result<(), String> {
        let (host, device) = (0, self.rng.index(self.devices.len()));
        let other = (device + 1) % self.devices.len();
        self.pass(OPEN_MS)?;
        let backup = kill(&self.hosts[host].disk, &self.swarm);
        self.add_some(device, SENT + 2);
        self.pass(DECIDED_MS)?;
        self.cut_device_off(device);
        self.give_server(host, backup)?;
        self.pass(BACK_MS)?;
        self.add_some(other, 1);
        self.pass(FOUND_MS)?;
        self.cut_off.remove(&device);
        let (must, now_ms) = (self.judge.confirmed(Doc(0)), self.now_ms);
        for tab in self.holders(device, Doc(0)) {
            let sync = self.tab(device, tab).sync(Doc(0), must.clone(), now_ms);
            self.send_to_core(device, tab, vec![sync]);
        }
        self.pass(BACK_MS)
    }

    // --- what is issued --------------------------------------------------------------------------

    /// The tabs of a device that hold a document.
    pub(super) fn holders(&self, device: usize, doc: Doc) -> Vec<TabId> {
        let tabs = self.devices[device].tabs.iter();
        tabs.filter(|(_, tab)| tab.held.contains_key(&doc)).map(|(tab, _)| *tab).collect()
    }

    /// A device adds so many to the document that everybody has, if it is open there.
    fn add_some(&mut self, device: usize, count: u64) {
        if let Some(tab) = self.holders(device, Doc(0)).first() {
            (0..count).for_each(|_| self.add_in((device, *tab), Doc(0)));
        }
    }

    pub(super) fn add_in(&mut self, tab: TabOf, doc: Doc) {
        self.wish_in(tab, doc, "add", 0);
    }

    pub(super) fn wish_in(
        &mut self,
        (device, tab): TabOf,
        doc: Doc,
        mutation: &'static str,
        number: u64,
    ) {
        self.last_name += 1;
        let name = format!("m{}", self.last_name);
        let message = self.issue(device, tab, doc, Wish::new(mutation, &name, number), &name);
        self.send_to_core(device, tab, vec![message]);
    }
}
