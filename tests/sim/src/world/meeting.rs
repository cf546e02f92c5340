//! What goes wrong only where a few things meet.

use std::collections::BTreeSet;
use std::ops::Range;

use tidelog_client::{Call, TabId, ToCore};
use tidelog_types::probe::Probe;

use super::World;
use super::lives::TabOf;
use super::sockets::{Breaks, Conn, Expired, Muted};
use super::trouble::BARRED_MS_MAX;
use crate::device::{Device, fail_soon};
use crate::docs::Doc;
use crate::tab::Tab;

/// Milliseconds in which a tab is open, a mutation is recorded, and a device is back.
const OPEN_MS: u64 = 2_000;
const DONE_MS: u64 = 1_000;
const BACK_MS: u64 = 8_000;
/// Milliseconds in which a device whose cores have died often begins the next one, up to eight
/// seconds later, and that is lent a store, where it misses the first one for three.
const NEXT_CORE_MS: u64 = 12_000;
/// How often that is waited for.
const LOOKS: u32 = 4;
/// Milliseconds in which a document is handed over, and after which the server is looked at again.
const HANDED_OVER_MS: u64 = 1_000;
pub(super) const GLANCE_MS: u64 = 10;
/// Milliseconds in which a document is handed over, or nobody waits for that any more: a minute
/// behind what came last, and connections that are sought meanwhile.
const UNTAKEN_MS: u64 = 90_000;
/// Milliseconds in which a core hears what a tab asks, and its page server hears of it.
const ASKED_MS: u64 = 6;
/// Mutations that are issued in a row.
const SENT: u32 = 3;
/// Those of a tab while a document is handed over, and milliseconds between them.
const WRITTEN: u32 = 12;
const WRITTEN_MS: u64 = 20;
/// How often what a document writes finds no room.
const FAILURES: u32 = 3;
/// How often tabs say whether they stay away before their core dies, how often that does, and
/// milliseconds after which nobody takes one word for a later one.
const WORDS: u32 = 4;
const DEATHS: u32 = 3;
const SAID_MS: u64 = 1_100;
/// Milliseconds in which some tabs hear what another one said, and some do not yet.
const HEARD_BY_SOME_MS: u64 = 8;
/// Files that are taken out, and bytes of what is written meanwhile.
const EXPORTS: u32 = 4;
const LARGE: u64 = 30_000;
/// Milliseconds in which who waits for a server that lets nobody in is told so.
const BARRED_KNOWN_MS: u64 = 5_000;
/// Milliseconds after which a device has come back to a server that lets it in again.
const LET_IN_KNOWN_MS: u64 = 60_000;

/// A tab that waits until all is in step, and which of its cores it asked.
struct Waiting {
    tab: TabOf,
    call: Call,
    core: u32,
}

impl World {
    /// Whoever waits for a server is told that it lets nobody in, and comes back to it by itself
    /// once it does.
    pub(super) fn bar_out(&mut self) -> Result<(), String> {
        let (host, doc) = (0, Doc(0));
        let mut waiting = self.sync_everywhere(doc);
        let heard_ms = self.rng.below(SAID_MS);
        self.pass(HEARD_BY_SOME_MS + heard_ms)?;
        let hears = |conn: &Conn| conn.host == host && !conn.silent_down && !conn.silent_up;
        waiting.retain(|it| {
            let conns = || self.conns.values().filter(|conn| conn.device == it.tab.0);
            let here = &self.devices[it.tab.0];
            let tab = here.tabs.get(&it.tab.1);
            // What was asked before is waited for first, and may wait for a page.
            let reads = here.frozen_until_ms <= self.now_ms;
            reads && tab.is_some_and(|tab| tab.is_sending(doc)) && conns().any(hears)
        });
        let is_of_tokens = self.bar_server(host);
        // Tabs whose tokens were not refused are asked for theirs first.
        let token_ms = (0..self.devices.len()).map(|device| self.token_ms(device, doc)).max();
        let token_ms = token_ms.unwrap_or(0);
        self.pass(BARRED_KNOWN_MS + if is_of_tokens { token_ms } else { 0 })?;
        if self.barred.contains_key(&host)
            && let Some(it) = waiting.into_iter().find(|it| self.still_waits(it))
        {
            return Err(format!("{:?} waits for a server that bars it: {:?}", it.tab, it.call));
        }
        self.server_lets_in(host);
        self.pass(BARRED_MS_MAX + LET_IN_KNOWN_MS + token_ms)?;
        self.must_all_be_there(0..self.devices.len(), host, doc)
    }

    /// Whoever of these wants a document of a server has a connection to it, or soon.
    pub(super) fn must_all_be_there(
        &mut self,
        devices: Range<usize>,
        host: usize,
        doc: Doc,
    ) -> Result<(), String> {
        let are_there =
            |world: &Self| devices.clone().try_for_each(|it| world.must_be_there(it, host, doc));
        // One whose cores have died has another one, which may die as well.
        for _ in 0..LOOKS {
            if are_there(self).is_ok() {
                break;
            }
            self.pass(NEXT_CORE_MS)?;
        }
        are_there(self)
    }

    fn must_be_there(&self, device: usize, host: usize, doc: Doc) -> Result<(), String> {
        let here = &self.devices[device];
        // What cores have died of is opened again only after two minutes.
        let holds = |tab: &&Tab| tab.held.contains_key(&doc) && !tab.is_shut(doc);
        let mut holders = here.tabs.values().filter(holds);
        let is_wanted = holders.next().is_some() && !here.tabs.values().any(|it| it.is_away(doc));
        let is_there = |conn: &Conn| conn.device == device && conn.host == host;
        if is_wanted
            && here.is_open()
            && !self.cut_off.contains(&device)
            && self.hosts[host].is_up()
            && !self.conns.values().any(is_there)
        {
            return Err(format!("device {device} stays away from a server that lets it in"));
        }
        Ok(())
    }

    /// A server refuses the token of whichever tab is asked for one first, and would let in another
    /// tab of that device.
    pub(super) fn refuse_a_token(&mut self) -> Result<(), String> {
        let (host, doc) = (0, Doc(0));
        let device = self.rng.index(self.devices.len());
        self.open_tab(device);
        self.pass(OPEN_MS)?;
        if self.holders(device, doc).len() < 2 {
            return Ok(());
        }
        self.note(&format!("device {device}: a token is refused"));
        self.expired = Some(Expired { device, token: None });
        let page_server_lives = self.rng.once_in(2);
        self.kill_core(device, page_server_lives);
        self.pass(BARRED_MS_MAX + LET_IN_KNOWN_MS)?;
        let refused = self.expired.as_ref().and_then(|expired| expired.token.clone());
        let is_let_in = |tab: &Tab| {
            let handle = tab.held.get(&doc).filter(|handle| !tab.port.lost.contains_key(handle));
            handle.is_some() && tab.port.is_heard && Some(tab.token()) != refused
        };
        let is_due = self.devices[device].tabs.values().any(is_let_in);
        // It is refused all the while.
        let came = match is_due {
            true => self.must_all_be_there(device..device + 1, host, doc),
            false => Ok(()),
        };
        self.expired = None;
        came
    }

    /// A tab of each device waits until all is in step, which is not at once.
    fn sync_everywhere(&mut self, doc: Doc) -> Vec<Waiting> {
        let mut waiting = Vec::new();
        for device in 0..self.devices.len() {
            let Some(tab) = self.holders(device, doc).first().copied() else { continue };
            self.add_in((device, tab), doc);
            let now_ms = self.now_ms;
            let sync = self.tab(device, tab).sync(doc, BTreeSet::new(), now_ms);
            let ToCore::Ask { call, .. } = sync else { unreachable!("BUG: it asks") };
            let core = self.tab(device, tab).port.core;
            self.send_to_core(device, tab, vec![sync]);
            waiting.push(Waiting { tab: (device, tab), call, core });
        }
        waiting
    }

    /// Whether it does, and nothing has kept its tab from being told since.
    fn still_waits(&self, waiting: &Waiting) -> bool {
        let (device, tab) = waiting.tab;
        let is_absent = |tab| self.busy.contains_key(tab) || self.hidden.contains(tab);
        let here = self.devices[device].tabs.get(&tab).filter(|_| !is_absent(&waiting.tab));
        let same = here.filter(|it| it.port.is_heard && it.port.core == waiting.core);
        // Without a store what was issued before may not be recorded, and nothing comes before it.
        let is_behind = |tab: &&Tab| {
            !self.devices[device].is_lent()
                && tab.unsettled.range(..waiting.call).any(|(_, it)| it.is_mutate())
        };
        same.filter(|it| !is_behind(it)).is_some_and(|it| it.unsettled.contains_key(&waiting.call))
    }

    /// A document is handed over, and the line breaks as the server has it; another device opens it
    /// there and writes before it is offered again. Or the device is full then.
    pub(super) fn lose_seeded(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        let other = (device + 1) % self.devices.len();
        self.pass(OPEN_MS)?;
        let is_draft = |doc: &Doc| {
            let is_offered = self.devices[device].offered.contains(doc);
            self.docs.spec(*doc).moves_to.is_some() && !is_offered
        };
        let Some(draft) = self.docs.of(device).into_iter().find(is_draft) else { return Ok(()) };
        let Some(tab) = self.holders(device, draft).pop() else { return Ok(()) };
        // So that pages of it are free.
        self.wish_in((device, tab), draft, "large", LARGE);
        self.wish_in((device, tab), draft, "clear", 0);
        (0..SENT).for_each(|_| self.add_in((device, tab), draft));
        self.pass(DONE_MS)?;
        if !self.holders(device, draft).contains(&tab) {
            return Ok(());
        }
        let (docs, now_ms) = (self.docs.clone(), self.now_ms);
        let host = docs.spec(draft).moves_to.expect("BUG: a draft");
        // It is offered once this is on the disk too.
        self.add_in((device, tab), draft);
        let open = self.tab(device, tab).hand_over(&docs, draft, now_ms);
        self.devices[device].offered.insert(draft);
        self.send_to_core(device, tab, vec![open]);
        for _ in 0..HANDED_OVER_MS / GLANCE_MS {
            self.pass(GLANCE_MS)?;
            if self.is_on_server(host, draft)? {
                break;
            }
        }
        if self.rng.once_in(3) {
            // There is no room to write down whose it is now.
            self.fill_disk(device);
            return self.pass(BACK_MS);
        }
        self.cut_device_off(device);
        self.pass(DONE_MS)?;
        // A release would write to it here, as does what its core decides of tasks, so that it were
        // another one than what others write to.
        let is_written_here = self.swarm.release_at.is_some() || self.swarm.has_tasks();
        if !is_written_here && self.hosts[host].is_up() && self.is_on_server(host, draft)? {
            self.note(&format!("device {other}: opens {draft:?} too"));
            self.docs.join(draft, other);
            self.devices[other].moved.insert(draft);
            self.open_all(other);
            self.pass(OPEN_MS)?;
            let joined = self.holders(other, draft);
            joined.into_iter().for_each(|tab| self.add_in((other, tab), draft));
            self.pass(DONE_MS)?;
        }
        self.cut_off.remove(&device);
        self.pass(BACK_MS)
    }

    /// Whether others write to a document of which this device does not know yet that it was handed
    /// over: what it wrote itself would make another one of it.
    pub(super) fn is_elsewhere(&self, device: usize, doc: Doc) -> bool {
        !self.docs.spec(doc).joined.is_empty() && !self.devices[device].moved.contains(&doc)
    }

    /// Every device hands a document of the same name over. What one of them sends may end amid its
    /// pages, and the others wait.
    pub(super) fn hand_over_rivals(&mut self) -> Result<(), String> {
        self.pass(OPEN_MS)?;
        for device in 0..self.devices.len() {
            let is_draft = |doc: &Doc| self.docs.spec(*doc).moves_to.is_some();
            let Some(draft) = self.docs.of(device).into_iter().find(is_draft) else { continue };
            let holders = self.holders(device, draft);
            holders.into_iter().for_each(|tab| self.add_in((device, tab), draft));
        }
        self.pass(DONE_MS)?;
        if !self.rng.once_in(4) {
            let (device, frames_left) = (self.rng.index(self.devices.len()), self.rng.index(6));
            let frames_left = u32::try_from(frames_left).expect("BUG: below six");
            self.muted = Some(Muted { device, frames_left });
        }
        self.rival(None);
        let host = usize::from(self.swarm.tokens);
        if self.rng.once_in(2)
            && self.pass_until(Probe::OfferWaited, HANDED_OVER_MS)?
            && self.hosts[host].is_up()
        {
            self.note(&format!("server {host}: the disk fails soon, and offers wait"));
            fail_soon(&self.hosts[host].disk, &mut self.rng);
        }
        Ok(())
    }

    /// A tab opens what it has with another server, where somebody else has a document of that
    /// name: it keeps what it has, and goes on with that once it names the right server.
    pub(super) fn meet_namesake(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        let stranger = self.devices.len();
        self.note(&format!("device {stranger}: has a document of a name that others use"));
        let namesake = self.docs.share_namesake(Doc(0), 1, stranger);
        self.devices.push(Device::new(&self.swarm, &mut self.rng));
        self.start_device(stranger)?;
        self.pass(OPEN_MS)?;
        if let Some(tab) = self.holders(device, Doc(0)).pop() {
            self.add_in((device, tab), Doc(0));
        }
        for tab in self.holders(stranger, namesake) {
            (0..SENT).for_each(|_| self.add_in((stranger, tab), namesake));
        }
        self.pass(DONE_MS)?;
        let Some(tab) = self.holders(device, Doc(0)).pop() else { return Ok(()) };
        // Whoever has nothing of a server takes what another one has, if that has anything.
        for (disk, doc) in [(&self.devices[device].disk, Doc(0)), (&self.hosts[1].disk, namesake)] {
            let durable = self.names_on(&disk.crash(&mut |_| 0), doc)?;
            if durable.is_none_or(|durable| durable.names.is_empty()) {
                return Ok(());
            }
        }
        self.add_in((device, tab), Doc(0));
        let (docs, now_ms) = (self.docs.clone(), self.now_ms);
        let open = self.tab(device, tab).open_at(&docs, Doc(0), 1, now_ms);
        self.send_to_core(device, tab, vec![open]);
        let ms = self.rng.below(DONE_MS);
        self.pass(ms)?;
        if self.holders(device, Doc(0)).contains(&tab) {
            self.add_in((device, tab), Doc(0));
        }
        self.pass(DONE_MS)?;
        if self.devices[device].tabs.contains_key(&tab) {
            let now_ms = self.now_ms;
            let open = self.tab(device, tab).open(&docs, Doc(0), false, now_ms);
            self.send_to_core(device, tab, vec![open]);
        }
        self.pass(BACK_MS)
    }

    /// A tab takes a document out as a file, again and again, while much is written.
    pub(super) fn export_amid(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        self.pass(OPEN_MS)?;
        for _ in 0..EXPORTS {
            let Some(tab) = self.holders(device, Doc(0)).first().copied() else { return Ok(()) };
            let now_ms = self.now_ms;
            let export = self.tab(device, tab).export(Doc(0), now_ms);
            self.send_to_core(device, tab, vec![export]);
            for _ in 0..SENT {
                let size = LARGE + self.rng.below(LARGE);
                self.wish(device, Doc(0), "large", size);
                self.pass(GLANCE_MS)?;
            }
        }
        self.pass(DONE_MS)
    }

    /// The tab that hands a document over is closed amid that, while another one writes to it.
    pub(super) fn close_offering(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        self.open_tab(device);
        self.pass(OPEN_MS)?;
        let is_draft = |doc: &Doc| {
            let is_offered = self.devices[device].offered.contains(doc);
            self.docs.spec(*doc).moves_to.is_some() && !is_offered
        };
        let Some(draft) = self.docs.of(device).into_iter().find(is_draft) else { return Ok(()) };
        let [offering, other, ..] = self.holders(device, draft)[..] else { return Ok(()) };
        (0..SENT).for_each(|_| self.add_in((device, other), draft));
        self.pass(DONE_MS)?;
        if self.holders(device, draft).len() < 2 {
            return Ok(());
        }
        let (docs, now_ms) = (self.docs.clone(), self.now_ms);
        let open = self.tab(device, offering).hand_over(&docs, draft, now_ms);
        self.devices[device].offered.insert(draft);
        self.send_to_core(device, offering, vec![open]);
        let ms = self.rng.below(HANDED_OVER_MS);
        self.pass(ms)?;
        if self.devices[device].tabs.contains_key(&offering) {
            self.close_this_tab(device, offering);
        }
        for _ in 0..WRITTEN {
            if self.holders(device, draft).contains(&other) {
                self.add_in((device, other), draft);
            }
            self.pass(WRITTEN_MS)?;
        }
        self.pass(BACK_MS)
    }

    /// Every connection of a device breaks at the same part of a document that it hands over. To
    /// begin it once more is no progress: whoever waits for it is told that it does not get there.
    pub(super) fn break_offering(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        self.pass(OPEN_MS)?;
        let is_draft = |doc: &Doc| {
            let is_offered = self.devices[device].offered.contains(doc);
            self.docs.spec(*doc).moves_to.is_some() && !is_offered
        };
        let Some(draft) = self.docs.of(device).into_iter().find(is_draft) else { return Ok(()) };
        let Some(tab) = self.holders(device, draft).pop() else { return Ok(()) };
        self.wish_in((device, tab), draft, "large", LARGE);
        self.pass(BACK_MS)?;
        if !self.holders(device, draft).contains(&tab) {
            return Ok(());
        }
        let (docs, asked_ms) = (self.docs.clone(), self.now_ms);
        let open = self.tab(device, tab).hand_over(&docs, draft, asked_ms);
        let ToCore::Ask { call, .. } = open else { unreachable!("BUG: it asks") };
        self.devices[device].offered.insert(draft);
        let parts = 1 + u32::try_from(self.rng.below(3)).expect("BUG: below three");
        self.note(&format!("device {device}: each connection breaks at part {parts} of {draft:?}"));
        self.breaks = Some(Breaks { device, parts });
        self.send_to_core(device, tab, vec![open]);
        self.pass(UNTAKEN_MS)?;
        self.breaks = None;
        let here = &self.devices[device];
        let waits = here.tabs.get(&tab).is_some_and(|it| it.unsettled.contains_key(&call));
        match waits && here.trouble_ms <= asked_ms {
            true => Err(format!("device {device}: {draft:?} is not handed over, without end")),
            false => Ok(()),
        }
    }

    /// What a document writes finds no room, and the page server's worker breaks before what others
    /// wrote after that is durable.
    pub(super) fn fail_amid(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        self.pass(OPEN_MS)?;
        for _ in 0..FAILURES {
            let tabs: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
            let Some(tab) = self.rng.pick(&tabs) else { return Ok(()) };
            let held: Vec<Doc> = self.tab(device, tab).held.keys().copied().collect();
            let Some(first) = self.rng.pick(&held) else { return Ok(()) };
            self.fill_disk(device);
            self.add_in((device, tab), first);
            let is_left = self.rng.once_in(2);
            let ms = self.rng.below(if is_left { ASKED_MS } else { GLANCE_MS });
            self.pass(ms)?;
            if is_left && self.devices[device].tabs.contains_key(&tab) {
                // What it would have been told goes nowhere, and it asks again.
                self.leave_unread(device, tab);
            }
            for doc in held.into_iter().filter(|doc| *doc != first) {
                if self.holders(device, doc).contains(&tab) {
                    self.add_in((device, tab), doc);
                }
            }
            self.devices[device].disk.set_full(false);
            let ms = self.rng.below(GLANCE_MS);
            self.pass(ms)?;
            self.break_worker(device);
            self.pass(DONE_MS)?;
        }
        self.pass(BACK_MS)
    }

    /// A tab of a new release opens a document whose mutations are run again and again, since
    /// another device writes to it too, and writes as soon as it may.
    pub(super) fn release_amid(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        let other = (device + 1) % self.devices.len();
        // Before what the other one writes has come, or as it comes.
        let opens_at = self.rng.below(4 * u64::from(WRITTEN));
        self.pass(OPEN_MS)?;
        for nth in 0..4 * u64::from(WRITTEN) {
            if nth == opens_at {
                self.open_tab(device);
            }
            let writers = [device, other].into_iter().filter(|_| nth < 2 * u64::from(WRITTEN));
            for writer in writers {
                // What the newest tab wants may need the new release.
                if let Some(tab) = self.holders(writer, Doc(0)).pop() {
                    self.wish_in((writer, tab), Doc(0), "bump", 0);
                }
            }
            self.pass(WRITTEN_MS)?;
        }
        self.pass(BACK_MS)
    }

    /// Tabs say in turns, and again, whether a document is to stay away from its server; the next
    /// core goes by the last word, whichever tab comes back first.
    pub(super) fn say_again(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        self.open_tab(device);
        self.pass(OPEN_MS)?;
        for _ in 0..DEATHS {
            let mut connected = false;
            for _ in 0..WORDS {
                connected = self.rng.once_in(2);
                self.say_whether_connected(device, connected);
                self.pass(SAID_MS)?;
            }
            // Of this word some tabs do not hear; who says the next may know nothing of it, and be
            // back at the next core before those who do.
            self.say_whether_connected(device, !connected);
            let heard_ms = self.rng.below(HEARD_BY_SOME_MS);
            self.pass(heard_ms)?;
            let page_server_lives = self.rng.once_in(2);
            self.kill_core(device, page_server_lives);
            self.pass(SAID_MS)?;
            self.say_whether_connected(device, connected);
            self.pass(BACK_MS)?;
        }
        Ok(())
    }

    fn say_whether_connected(&mut self, device: usize, connected: bool) {
        let Some(tab) = self.rng.pick(&self.holders(device, Doc(0))) else { return };
        let word = self.set_connected(device, tab, Doc(0), connected);
        self.send_to_core(device, tab, word.into_iter().collect());
    }
}
