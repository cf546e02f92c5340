//! What tabs do, and whether they are answered in time.

use tidelog_client::{Request, TabId, ToCore};
use tidelog_tab::Input as ToTab;
use tidelog_types::DocumentKey;
use tidelog_types::limits::CALL_SETTLES_MS;

use super::event::Event;
use super::{Lending, World};
use crate::app::{Release, Wish};
use crate::device::Device;
use crate::docs::Doc;
use crate::judge::Origin;
use crate::reference::Issued;
use crate::swarm::Swarm;
use crate::tab::Tab;

/// Names that are claimed at any time.
const CLAIMS: u64 = 12;
/// Mutations in a row that claim one name, where they contend for it.
const CONTENDERS: u64 = 8;
/// Milliseconds in which a live query shows what a query has shown.
const SHOWN_MS: u64 = 2_000;
/// Milliseconds that a call has where no core has ever served its tab: it may be downloaded still.
const LOADS_MS: u64 = 60_000;
/// Milliseconds in which what is written side by side finds a disk that is full, at most.
const FULL_MS: u64 = 40;
/// How often calls are looked at.
const LOOK_EVERY_MS: u64 = 1_000;

impl World {
    pub(super) fn act(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        if self.rng.once_in(3) {
            return self.go_wrong(device);
        }
        let tabs: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
        if let Some(tab) = self.rng.pick(&tabs) {
            if self.swarm.side_by_side && self.rng.once_in(2) {
                return self.write_side_by_side(device, tab);
            }
            if self.rng.once_in(6) {
                self.rearrange(device, tab);
            } else {
                self.ask(device, tab);
            }
        }
        Ok(())
    }

    /// A tab asks for this and that.
    pub(super) fn ask(&mut self, device: usize, tab: TabId) {
        let mut messages = Vec::new();
        for _ in 0..=self.rng.below(3) {
            let mut held: Vec<Doc> = self.devices[device].tabs[&tab].held.keys().copied().collect();
            held.retain(|doc| !self.is_elsewhere(device, *doc));
            let Some(doc) = self.rng.pick(&held) else { return };
            match self.rng.below(12) {
                0..=8 => messages.push(self.mutate(device, tab, doc)),
                9 => {
                    let must = self.judge.own(self.origin(device, tab, doc));
                    let now_ms = self.now_ms;
                    messages.push(self.tab(device, tab).query(doc, must, now_ms));
                    if self.swarm.exports {
                        messages.push(self.tab(device, tab).export(doc, now_ms));
                    }
                    if self.swarm.cells {
                        messages.extend(self.tab(device, tab).look_at(doc, now_ms));
                    }
                }
                10 => {
                    let must = self.judge.confirmed(doc);
                    let now_ms = self.now_ms;
                    messages.push(self.tab(device, tab).sync(doc, must, now_ms));
                }
                _ => {
                    let connected = self.rng.once_in(2);
                    messages.extend(self.set_connected(device, tab, doc, connected));
                }
            }
        }
        self.send_to_core(device, tab, messages);
    }

    /// A tab writes to all documents that it holds, a few times in a row: to a disk that may be
    /// full for the first of that.
    fn write_side_by_side(&mut self, device: usize, tab: TabId) -> Result<(), String> {
        let is_full = self.rng.once_in(2) && self.devices[device].page_server.is_some();
        if is_full {
            self.fill_disk(device);
        }
        for _ in 0..=self.rng.below(3) {
            let mut held: Vec<Doc> = self.devices[device].tabs[&tab].held.keys().copied().collect();
            held.retain(|doc| !self.is_elsewhere(device, *doc));
            let turn = self.rng.index(held.len().max(1));
            held.rotate_left(turn);
            let messages = held.into_iter().map(|doc| self.mutate(device, tab, doc)).collect();
            self.send_to_core(device, tab, messages);
        }
        if is_full {
            let ms = self.rng.below(FULL_MS);
            self.pass(ms)?;
            self.devices[device].disk.set_full(false);
        }
        Ok(())
    }

    /// A tab of another device asks for all that was confirmed by now, whatever it still waits for.
    pub(super) fn sync_elsewhere(&mut self, device: usize) {
        let other = (device + 1 + self.rng.index(self.devices.len() - 1)) % self.devices.len();
        let tabs: Vec<TabId> = self.devices[other].tabs.keys().copied().collect();
        let Some(tab) = self.rng.pick(&tabs) else { return };
        let mut messages = Vec::new();
        for doc in self.tab(other, tab).held.keys().copied().collect::<Vec<Doc>>() {
            if self.docs.spec(doc).host.is_some() {
                let (must, now_ms) = (self.judge.confirmed(doc), self.now_ms);
                messages.push(self.tab(other, tab).sync(doc, must, now_ms));
            }
        }
        self.send_to_core(other, tab, messages);
    }

    /// A tab wants a document to go away from its server, or back.
    pub(super) fn set_connected(
        &mut self,
        device: usize,
        tab: TabId,
        doc: Doc,
        connected: bool,
    ) -> Option<ToCore> {
        let now_ms = self.now_ms;
        let message = self.tab(device, tab).set_connected(doc, connected, now_ms)?;
        for (id, other) in &mut self.devices[device].tabs {
            other.note_connected(doc, connected, *id == tab, now_ms);
        }
        Some(message)
    }

    pub(super) fn mutate(&mut self, device: usize, tab: TabId, doc: Doc) -> ToCore {
        self.last_name += 1;
        let name = format!("m{}", self.last_name);
        let Swarm { contended, cells, long_cells, .. } = self.swarm;
        let claim = if cells { "take" } else { "claim" };
        let mutation = match self.rng.below(14) {
            0..=3 if contended => claim,
            0 if long_cells => "stretch",
            1..=3 if long_cells => "end",
            0..=3 if cells => "put",
            0..=3 => "add",
            4 | 5 => "bump",
            6 | 7 => claim,
            8..=10 => "fold",
            11 | 12 if self.swarm.large => "large",
            13 if self.swarm.heavy => "heavy",
            _ => "prune",
        };
        let number = match (mutation, self.rng.next()) {
            // A name of its own for each few mutations, wherever they are issued.
            ("claim" | "take", _) if contended => CLAIMS + self.last_name / CONTENDERS,
            ("claim" | "take", number) => number % CLAIMS,
            (_, number) => number,
        };
        let wish = Wish::new(mutation, &name, number);
        self.issue(device, tab, doc, wish, &name)
    }

    pub(super) fn claim(&mut self, device: usize, tab: TabId, doc: Doc, number: u64) -> ToCore {
        self.last_name += 1;
        let name = format!("m{}", self.last_name);
        self.issue(device, tab, doc, Wish::new("claim", &name, number), &name)
    }

    pub(super) fn issue(
        &mut self,
        device: usize,
        tab: TabId,
        doc: Doc,
        wish: Wish,
        name: &str,
    ) -> ToCore {
        let (now_ms, clock_ms) = (self.now_ms, self.devices[device].clock(self.now_ms));
        let origin = self.origin(device, tab, doc);
        let release = self.devices[device].tabs[&tab].release;
        let issued = Issued { wish: wish.clone(), now_ms: clock_ms, release };
        self.judge.issued(name, origin, issued, now_ms);
        self.tab(device, tab).mutate(doc, wish, name, [now_ms, clock_ms])
    }

    pub(super) fn tab(&mut self, device: usize, tab: TabId) -> &mut crate::tab::Tab {
        self.devices[device].tabs.get_mut(&tab).expect("BUG: no such tab")
    }

    pub(super) fn origin(&self, device: usize, tab: TabId, doc: Doc) -> Origin {
        Origin { doc, device, tab: self.devices[device].tabs[&tab].id_prefix }
    }

    /// A tab opens, closes, hands over or deletes a document.
    fn rearrange(&mut self, device: usize, tab: TabId) {
        let now_ms = self.now_ms;
        let docs = self.docs.clone();
        let of_device = docs.of(device);
        let Some(doc) = self.rng.pick(&of_device) else { return };
        let is_held = self.devices[device].tabs[&tab].held.contains_key(&doc);
        let is_moved = self.devices[device].moved.contains(&doc);
        match self.rng.below(3) {
            0 if self.swarm.drafts => {
                let drafts: Vec<Doc> = of_device
                    .into_iter()
                    .filter(|doc| docs.spec(*doc).moves_to.is_some())
                    .filter(|doc| self.devices[device].tabs[&tab].held.contains_key(doc))
                    .collect();
                let may_go = |draft: &&Doc| !self.swarm.rivals || self.is_own(device, **draft);
                if let Some(draft) = drafts.first().filter(|_| !is_moved).filter(may_go) {
                    let open = self.tab(device, tab).hand_over(&docs, *draft, now_ms);
                    self.devices[device].offered.insert(*draft);
                    self.send_to_core(device, tab, vec![open]);
                    if self.swarm.rivals {
                        self.rival(Some(device));
                    }
                }
            }
            1 if self.swarm.closing && is_held => {
                let messages = self.tab(device, tab).close(doc, now_ms).unwrap_or_default();
                self.send_to_core(device, tab, messages);
            }
            1 if self.swarm.closing && !self.tab(device, tab).wants(doc) => {
                let open = self.tab(device, tab).open(&docs, doc, is_moved, now_ms);
                self.send_to_core(device, tab, vec![open]);
            }
            // What is being handed over stays.
            _ if self.swarm.destroying
                && self.rng.once_in(3)
                && docs.spec(doc).moves_to.is_none() =>
            {
                let force = self.rng.once_in(2);
                if self.rng.once_in(2)
                    && let Some(holder) = self.holders(device, doc).pop()
                {
                    // It is on its way to the disk as the document is closed and deleted.
                    self.wish_in((device, holder), doc, "add", 0);
                }
                self.destroy(device, tab, doc, force);
                if self.rng.once_in(2) {
                    if self.rng.once_in(2) && self.devices[device].page_server.is_some() {
                        self.fill_disk(device);
                    }
                    self.make_again(device, tab, doc);
                }
            }
            _ => {}
        }
    }

    /// All devices but one hand over their drafts of the same name, at the same time.
    pub(super) fn rival(&mut self, device: Option<usize>) {
        let (docs, now_ms) = (self.docs.clone(), self.now_ms);
        for other in (0..self.devices.len()).filter(|other| Some(*other) != device) {
            let of_device = docs.of(other).into_iter();
            let mut drafts = of_device.filter(|doc| docs.spec(*doc).moves_to.is_some());
            let Some(draft) = drafts.next() else { continue };
            let is_own = self.is_own(other, draft);
            let mut tabs = self.devices[other].tabs.iter();
            let holds = tabs.find(|(_, tab)| tab.held.contains_key(&draft) && is_own);
            let Some(tab) = holds.map(|(tab, _)| *tab) else { continue };
            let open = self.tab(other, tab).hand_over(&docs, draft, now_ms);
            self.devices[other].offered.insert(draft);
            self.send_to_core(other, tab, vec![open]);
        }
    }

    /// Whether a draft is on its device's disk, and at no server. One that there was no room for
    /// would be opened from the server, which may have a rival's.
    fn is_own(&self, device: usize, draft: Doc) -> bool {
        self.judge.has_durable(device, draft) && !self.devices[device].moved.contains(&draft)
    }

    /// A tab opens what was just deleted, or was to be.
    pub(super) fn make_again(&mut self, device: usize, tab: TabId, doc: Doc) {
        let (docs, now_ms) = (self.docs.clone(), self.now_ms);
        let is_moved = self.devices[device].moved.contains(&doc);
        let open = self.tab(device, tab).open(&docs, doc, is_moved, now_ms);
        self.send_to_core(device, tab, vec![open]);
    }

    /// All tabs let go of a document, and one deletes the device's copy. That one may be heard
    /// before the others: the copy stays then. Or they do so as the core tells them to.
    pub(super) fn destroy(&mut self, device: usize, tab: TabId, doc: Doc, force: bool) {
        let everywhere = (self.seed ^ self.now_ms).is_multiple_of(2);
        if everywhere {
            // The next core may be asked once more, shortly before its caller is told.
            self.close_wanted_until_ms = self.now_ms + 2 * CALL_SETTLES_MS;
        } else {
            self.close_in_all(device, doc);
        }
        let now_ms = self.now_ms;
        let docs = self.docs.clone();
        // From when it is asked until it is said, what is not decided may go or stay.
        let mut others = self.devices[device].tabs.values();
        let is_alone = !others.any(|tab| tab.deletes(&docs.spec(doc).key));
        let destroy = self.tab(device, tab).destroy(&docs, doc, (force, everywhere), now_ms);
        self.judge.may_drop(doc, device, self.host_of(doc).is_none(), is_alone);
        if everywhere {
            self.judge.closes_everywhere(doc, device, now_ms + CALL_SETTLES_MS);
        }
        self.devices[device].deleted.remove(&doc);
        self.send_to_core(device, tab, vec![destroy]);
    }

    /// All tabs let go of a document, and are heard: who deletes it then is not heard before them.
    pub(super) fn let_all_close(&mut self, device: usize, doc: Doc) -> Result<(), String> {
        self.close_in_all(device, doc);
        self.pass(CALL_SETTLES_MS)
    }

    fn close_in_all(&mut self, device: usize, doc: Doc) {
        let now_ms = self.now_ms;
        let tabs: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
        let mut all = Vec::new();
        for tab in tabs {
            if let Some(messages) = self.tab(device, tab).close(doc, now_ms) {
                all.push((tab, messages));
            }
        }
        for (tab, messages) in all {
            self.send_to_core(device, tab, messages);
        }
    }

    pub(super) fn destroyed(&mut self, device: usize, document: &DocumentKey) {
        let all = self.docs.of(device);
        let doc = all.into_iter().find(|doc| self.docs.spec(*doc).key == *document);
        if let Some(doc) = doc {
            self.note(&format!("device {device}: {document} is deleted"));
            self.judge.dropped(doc, device, self.host_of(doc).is_none());
            self.devices[device].deleted.insert(doc);
            let tabs = self.devices[device].tabs.values_mut();
            tabs.for_each(|tab| tab.is_owed_nothing_of(doc));
        }
    }

    /// A copy was not deleted, its tab was told, and nothing of it was.
    pub(super) fn stays(&mut self, device: usize, document: &DocumentKey) {
        let all = self.docs.of(device);
        let doc = all.into_iter().find(|doc| self.docs.spec(*doc).key == *document);
        if let Some(doc) = doc {
            self.judge.stays(doc, device);
        }
    }

    /// A tab asks once more what failed for the moment, unless it has opened that in another way
    /// since.
    pub(super) fn ask_again(&mut self, device: usize, tab: TabId, message: ToCore) {
        let now_ms = self.now_ms;
        let Some(here) = self.devices[device].tabs.get_mut(&tab) else { return };
        if let ToCore::Ask { call, handle, request: Request::Open(_) } = &message
            && here.has_opened_since(*call, *handle)
        {
            here.unsettled.remove(call);
            return;
        }
        let same = |asked: &&mut crate::tab::Asked| asked.message == message;
        if let Some(asked) = here.unsettled.values_mut().find(same) {
            asked.is_asked_again(now_ms);
            self.send_to_core(device, tab, vec![message]);
        }
    }

    /// Every call settles within ten seconds of what went wrong last, but for those that wait for
    /// a server, and live queries show what there is.
    pub(super) fn look_at_calls(&mut self) -> Result<(), String> {
        if self.now_ms < self.next_look_ms {
            return Ok(());
        }
        self.next_look_ms = self.now_ms + LOOK_EVERY_MS;
        for device in 0..self.devices.len() {
            if self.devices[device].lending.hangs() {
                self.trouble(device);
            }
        }
        self.look_again();
        for (device, here) in self.devices.iter().enumerate() {
            for (id, tab) in &here.tabs {
                if self.now_ms > here.trouble_ms + SHOWN_MS
                    && !self.busy.contains_key(&(device, *id))
                {
                    self.must_be_over(here, tab)
                        .map_err(|what| format!("device {device} tab {}: {what}", id.0))?;
                }
                if self.now_ms > here.trouble_ms + SHOWN_MS
                    && let Some((doc, live)) = tab.outdated_since(self.now_ms - SHOWN_MS)
                {
                    return Err(format!(
                        "device {device} tab {}: a live query of {doc:?} does not show the \
                         {live:?} that a query has shown",
                        id.0,
                    ));
                }
                let late = tab.unsettled.iter().find(|(call, asked)| {
                    let waits_for_server =
                        asked.is_sync() || asked.is_late || tab.confirming.contains_key(call);
                    let since_ms = asked.at_ms.max(here.trouble_ms);
                    let loads_by_ms = since_ms + LOADS_MS;
                    // The ten seconds begin once nothing has to be downloaded any more.
                    let by_ms = tab.port.loaded_ms().map_or(loads_by_ms, |loaded_ms| {
                        loads_by_ms.min(since_ms.max(loaded_ms) + CALL_SETTLES_MS)
                    });
                    !waits_for_server && self.now_ms > by_ms
                });
                if let Some((_, asked)) = late {
                    return Err(format!(
                        "device {device} tab {} has waited for {} ms: {}",
                        id.0,
                        self.now_ms - asked.at_ms,
                        super::short(&asked.message),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whoever was told that the disk has refused something is told when that is over.
    fn must_be_over(&self, here: &Device, tab: &Tab) -> Result<(), String> {
        for (doc, failure) in tab.failures() {
            let document = &self.docs.spec(doc).key;
            let over_since = here.core_door.over_since(document, failure);
            if over_since.is_some_and(|at_ms| at_ms + SHOWN_MS < here.clock(self.now_ms)) {
                return Err(format!("it is told of {document} what is over: {failure:?}"));
            }
        }
        Ok(())
    }

    /// Tabs whose live queries do not show what a query did look once more.
    fn look_again(&mut self) {
        let now_ms = self.now_ms;
        let mut asks = Vec::new();
        for (device, here) in self.devices.iter_mut().enumerate() {
            let shown_ms = now_ms.saturating_sub(SHOWN_MS);
            let tabs = here.tabs.iter_mut();
            asks.extend(tabs.map(|(id, tab)| (device, *id, tab.look_again(shown_ms, now_ms))));
        }
        for (device, tab, messages) in asks {
            self.send_to_core(device, tab, messages);
        }
    }

    pub(super) fn tab_notices(
        &mut self,
        device: usize,
        tab: TabId,
        core: u32,
    ) -> Result<(), String> {
        self.trouble(device);
        let here = self.devices[device].tabs.get_mut(&tab);
        let port = here.map(|tab| &mut tab.port).filter(|port| port.core == core);
        // A lock comes free once.
        if port.is_some_and(|port| std::mem::take(&mut port.is_watching)) {
            self.tab_takes(device, tab, &ToTab::Gone { core })?;
        }
        Ok(())
    }

    pub(super) fn start_device(&mut self, device: usize) -> Result<(), String> {
        if self.devices[device].core.is_some() {
            return Ok(());
        }
        self.trouble(device);
        self.devices[device].start_core(&mut self.rng);
        self.open_tab(device);
        Ok(())
    }

    pub(super) fn open_tab(&mut self, device: usize) {
        self.open_tab_of(device, self.release);
    }

    /// A tab of this release opens all that its device has; none does if the device is off.
    pub(super) fn open_tab_of(&mut self, device: usize, release: Release) -> Option<TabId> {
        self.devices[device].core.as_ref()?;
        let (docs, now_ms) = (self.docs.clone(), self.now_ms);
        let prefix = (device as u64) << 16 | self.devices[device].life;
        let tab = self.devices[device].new_tab(prefix, release);
        let mut messages = Vec::new();
        for doc in docs.of(device) {
            let online = self.devices[device].moved.contains(&doc);
            messages.push(self.tab(device, tab).open(&docs, doc, online, now_ms));
        }
        self.send_to_core(device, tab, messages);
        Some(tab)
    }

    pub(super) fn close_tab(&mut self, device: usize) -> Result<(), String> {
        let tabs: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
        let Some(tab) = self.rng.pick(&tabs) else { return Ok(()) };
        if self.swarm.last_words {
            self.say_last_words(device, tab)?;
        }
        if self.devices[device].tabs.contains_key(&tab) {
            self.close_this_tab(device, tab);
        }
        Ok(())
    }

    /// A tab says of all that it holds whether that is to stay away from its server. Whoever is
    /// closed may be gone before others hear of it.
    fn say_last_words(&mut self, device: usize, tab: TabId) -> Result<(), String> {
        let held: Vec<Doc> = self.tab(device, tab).held.keys().copied().collect();
        for doc in held {
            let connected = self.rng.once_in(3);
            let word = self.set_connected(device, tab, doc, connected);
            self.send_to_core(device, tab, word.into_iter().collect());
        }
        for _ in 0..self.rng.below(20) {
            self.next_event()?;
        }
        Ok(())
    }

    pub(super) fn close_this_tab(&mut self, device: usize, tab: TabId) {
        self.note(&format!("device {device}: tab {} is closed", tab.0));
        self.devices[device].tabs.remove(&tab);
        if self.devices[device].tabs.is_empty() {
            // The core goes with its last tab; a new one opens the app again later.
            self.cut_sockets(device);
            let here = &mut self.devices[device];
            here.core = None;
            here.life += 1;
            here.lending = Lending::default();
            here.drop_page_server();
            let delay = self.rng.below(2_000);
            self.schedule(delay, Event::StartDevice { device });
            return;
        }
        self.tab_is_closed(device, tab);
    }
}
