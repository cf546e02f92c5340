//! How tabs come to a core, and lend it a page server: the browser's part in what they decide.
//!
//! Two locks let the tabs of a device agree, as `js/src/lending.ts` says: that of the turn, which a
//! tab has while it has a worker at hand, and that of the store, which the worker that serves has
//! until it ends. A worker goes on while its tab is busy.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidelog_client::{Input, PageServerFailure, PageServerId, Storage, TabId};
use tidelog_tab::{Effect, Input as ToTab};
use tidelog_types::UnservedKind;

use super::World;
use super::event::{Event, Wire};
use crate::swarm::Trouble;

/// Milliseconds that a tab needs to find its core or to start one, and that a lock, a port and the
/// messages of a worker take.
const FOUND_MS: u64 = 8;
const HOP_MS: u64 = 4;
/// Milliseconds in which a worker has loaded.
const LOADED_MS: u64 = 30;
/// Milliseconds for which a tab that looks for a core finds one that is about to die, at most, and
/// for which it finds none that says a word, where they are slow.
const DYING_MS_MAX: u64 = 500;
const SILENT_MS_MAX: u64 = 12_000;

/// A page server's worker, by the number that its tab has given it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Worker {
    pub(crate) tab: TabId,
    pub(crate) number: u32,
}

/// Tabs that a device ever has, at most.
const TABS_MAX: u32 = 1 << 16;

/// What a core calls a tab that has given it this number: each hello is another tab to it.
pub(super) fn port_of(tab: TabId, core: u32) -> TabId {
    assert!(tab.0 < TABS_MAX, "BUG: too many tabs");
    TabId(core * TABS_MAX + tab.0)
}

/// The tab that a core calls so, and its number for the core.
pub(super) fn tab_at(port: TabId) -> (TabId, u32) {
    (TabId(port.0 % TABS_MAX), port.0 / TABS_MAX)
}

/// What the tabs of a device have and want, and what the core knows of it.
#[derive(Default)]
pub(crate) struct Lending {
    /// Tabs that wait for their turn. The first one has it.
    turns: VecDeque<TabId>,
    /// Workers that have not loaded.
    loading: BTreeSet<Worker>,
    /// Workers that wait for the store. The first one has it, until it ends.
    line: VecDeque<Worker>,
    /// What the core was lent by each tab: what it uses, or what waits for the store.
    lent: BTreeMap<TabId, Lent>,
    /// What it uses of that, by its tab.
    used: Option<(PageServerId, TabId)>,
    /// Tabs in place of whose page server another one came, and who have not said that it ended.
    replaced: BTreeSet<TabId>,
    /// What the core calls each tab that has said hello.
    known: BTreeMap<TabId, TabId>,
    /// Until then a tab that looks for a core finds the one that has just died.
    pub(super) dying_until_ms: u64,
}

/// A page server, as the core calls it, and its worker.
#[derive(Clone, Copy)]
struct Lent {
    server: PageServerId,
    worker: Worker,
}

impl Lending {
    /// There is another core, which knows nobody yet.
    pub(crate) fn core_is_new(&mut self) {
        self.lent.clear();
        self.used = None;
        self.replaced.clear();
        self.known.clear();
    }

    /// Whether a tab has a worker, or waits for its turn to have one.
    pub(super) fn holds(&self, tab: TabId) -> bool {
        let mut workers = self.loading.iter().chain(&self.line);
        workers.any(|worker| worker.tab == tab) || self.turns.contains(&tab)
    }

    /// Whether a tab uses this port to the core at present.
    pub(super) fn is_known(&self, port: TabId) -> bool {
        self.known.get(&tab_at(port).0) == Some(&port)
    }

    /// The tab whose worker has the store next.
    pub(super) fn next_in_line(&self) -> Option<TabId> {
        self.line.get(1).map(|worker| worker.tab)
    }

    /// Whether all wait for a worker of which nothing is heard.
    pub(super) fn hangs(&self) -> bool {
        self.line.is_empty() && !self.loading.is_empty()
    }
}

impl World {
    /// Carries out what concerns ports, locks and workers.
    pub(super) fn carry_out(&mut self, device: usize, tab: TabId, effect: Effect) {
        let here = &mut self.devices[device];
        let (life, lending) = (here.life, &mut here.lending);
        match effect {
            Effect::Connect { core } => {
                self.tab(device, tab).port.sought = Some(core);
                if self.swarm.mute_browsers && self.faults && self.rng.once_in(4) {
                    self.note(&format!("device {device}: tab {} finds no core", tab.0));
                    return self.trouble_for(device, SILENT_MS_MAX);
                }
                let delay = self.rng.below(FOUND_MS);
                self.schedule(delay, Event::TabConnects { device, tab, core });
            }
            Effect::WatchLock { core, .. } => {
                let port = &mut self.tab(device, tab).port;
                port.is_watching = true;
                if !port.is_heard {
                    self.schedule(0, Event::TabNotices { device, tab, core });
                }
            }
            Effect::Reach { server } => self.reached(device, tab, PageServerId(server)),
            Effect::Queue => {
                lending.turns.push_back(tab);
                if lending.turns.len() == 1 {
                    self.begin_turn(device);
                }
            }
            Effect::EndTurn => self.end_turn(device, tab),
            Effect::Spawn { worker } => self.spawn(device, Worker { tab, number: worker }),
            Effect::End { worker } => {
                let worker = Worker { tab, number: worker };
                self.let_have_a_last_word(device, worker);
                self.end_worker(device, worker);
            }
            Effect::Lend { worker } => self.lend_to_core(device, tab, Ok(worker)),
            Effect::CannotLend { reason } => self.lend_to_core(device, tab, Err(reason)),
            Effect::LendEnded => {
                let core = self.tab(device, tab).port.core;
                self.say_to_core(device, tab, Event::LendEnded { device, life, tab, core });
            }
            Effect::Leave { .. } => {
                let port = &mut self.tab(device, tab).port;
                (port.sought, port.is_heard, port.is_watching) = (None, false, false);
            }
            Effect::LetGo => {
                let core = self.tab(device, tab).port.core;
                let delay = self.rng.below(HOP_MS);
                self.schedule(delay, Event::TabLetsGo { device, life, tab, core });
            }
            effect => unreachable!("BUG: no tab wants {effect:?} here"),
        }
    }

    /// What is said to a core that is gone is lost.
    fn say_to_core(&mut self, device: usize, tab: TabId, event: Event) {
        let port = &self.tab(device, tab).port;
        if port.is_heard {
            let wire = Wire::TabToCore(device, port_of(tab, port.core));
            self.carry(wire, 3, event);
        }
    }

    fn lend_to_core(&mut self, device: usize, tab: TabId, worker: Result<u32, String>) {
        let (life, core) = (self.devices[device].life, self.tab(device, tab).port.core);
        self.say_to_core(device, tab, Event::TabLends { device, life, tab, core, worker });
    }

    /// Whether the core knows a tab by this number.
    pub(super) fn is_known(&self, device: usize, tab: TabId, core: u32) -> bool {
        self.devices[device].lending.is_known(port_of(tab, core))
    }

    /// Whether a tab still listens to the core that it has given this number.
    pub(super) fn hears(&self, device: usize, tab: TabId, core: u32) -> bool {
        let port = self.devices[device].tabs.get(&tab).map(|tab| &tab.port);
        port.is_some_and(|port| port.is_heard && port.core == core)
    }

    // --- cores -----------------------------------------------------------------------------------

    /// A tab has found its core, which may be about to die, and says hello.
    pub(super) fn connect(&mut self, device: usize, tab: TabId, core: u32) -> Result<(), String> {
        let here = &mut self.devices[device];
        let (life, is_alive) = (here.life, here.lending.dying_until_ms <= self.now_ms);
        let Some(port) = here.tabs.get_mut(&tab).map(|tab| &mut tab.port) else { return Ok(()) };
        // It may have gone away meanwhile.
        if port.sought.take_if(|sought| *sought == core).is_none() {
            return Ok(());
        }
        if self.turned_away.take_if(|it| *it == (device, tab)).is_some() {
            self.note(&format!("device {device}: tab {} reaches no core", tab.0));
            self.trouble(device);
            let reason = "its script does not load".to_owned();
            return self.tab_takes(device, tab, &ToTab::Refused { core, reason });
        }
        (port.core, port.is_heard, port.is_watching) = (core, is_alive, false);
        if self.swarm.slow_welcomes {
            // It may have waited for long, and waits again.
            self.trouble(device);
        }
        self.say_to_core(device, tab, Event::Hello { device, life, tab, core });
        self.tab_takes(device, tab, &ToTab::Connected { core, place: 0 })
    }

    /// A core welcomes a tab, and wants its page server to have a way to it. Of a tab that it has
    /// welcomed before it takes leave first, unless that was for a newer port, which was faster.
    pub(super) fn welcome(&mut self, device: usize, tab: TabId, core: u32) {
        let port = port_of(tab, core);
        if self.devices[device].lending.known.get(&tab).is_some_and(|known| *known > port) {
            return;
        }
        self.tab_is_gone(device, tab);
        self.devices[device].lending.known.insert(tab, port);
        let input = ToTab::Welcome { core, lock: String::new() };
        self.carry(Wire::CoreToTab(device, port), 3, Event::ToTab { device, tab, input });
        if !self.devices[device].tabs.contains_key(&tab) {
            // It said hello and was closed, and its core finds that its lock is free.
            let life = self.devices[device].life;
            self.schedule(HOP_MS, Event::TabLetsGo { device, life, tab, core });
        }
        self.reach(device, tab);
    }

    /// Asks a tab for a way from the page server to it.
    fn reach(&mut self, device: usize, tab: TabId) {
        let here = &self.devices[device];
        let lent = here.page_server.as_ref().filter(|_| here.is_lent());
        let port = here.tabs.get(&tab).map(|tab| &tab.port).filter(|port| port.is_heard);
        let (Some(lent), Some(port)) = (lent, port) else { return };
        if !self.is_known(device, tab, port.core) {
            return;
        }
        let input = ToTab::Reach { core: port.core, server: lent.id.0 };
        let wire = Wire::CoreToTab(device, port_of(tab, port.core));
        self.carry(wire, 3, Event::ToTab { device, tab, input });
    }

    /// Some tabs are told of what is durable by the page server's host itself.
    fn reached(&mut self, device: usize, tab: TabId, server: PageServerId) {
        let life = self.devices[device].life;
        let port = &self.tab(device, tab).port;
        let core = port.core;
        if tab.0.is_multiple_of(2) && port.is_heard {
            // Another page server may be lent before.
            let is_slow = self.swarm.side_by_side && self.rng.once_in(3);
            let ms = if is_slow { 2_000 } else { 40 };
            let delay = self.rng.below(ms);
            self.schedule(delay, Event::TabReached { device, life, tab, core, server });
        }
    }

    /// The core is gone. Each of its tabs sees that in its own time: a busy one long after the
    /// others have gone on. Whoever looks for a core before that may find the dying one.
    pub(super) fn core_is_gone(&mut self, device: usize) {
        if self.faults && self.rng.once_in(2) {
            let ms = if self.swarm.slow_welcomes { SILENT_MS_MAX } else { DYING_MS_MAX };
            let until_ms = self.now_ms + self.rng.below(ms);
            self.devices[device].lending.dying_until_ms = until_ms;
        }
        let tabs: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
        for tab in tabs {
            let port = &mut self.tab(device, tab).port;
            let (core, is_told) = (port.core, port.is_heard && port.is_watching);
            port.is_heard = false;
            if is_told {
                let delay_max = if self.rng.once_in(2) { 4_000 } else { 50 };
                let delay = self.rng.below(delay_max);
                self.schedule(delay, Event::TabNotices { device, tab, core });
            }
        }
    }

    // --- turns and workers -----------------------------------------------------------------------

    fn begin_turn(&mut self, device: usize) {
        if let Some(tab) = self.devices[device].lending.turns.front().copied() {
            let delay = self.rng.below(HOP_MS);
            self.schedule(delay, Event::ToTab { device, tab, input: ToTab::Turn });
        }
    }

    /// A tab has its turn no longer, or does not wait for it any more.
    fn end_turn(&mut self, device: usize, tab: TabId) {
        let turns = &mut self.devices[device].lending.turns;
        let Some(place) = turns.iter().rposition(|it| *it == tab) else { return };
        turns.remove(place);
        if place == 0 {
            self.begin_turn(device);
        }
    }

    fn spawn(&mut self, device: usize, worker: Worker) {
        self.devices[device].lending.loading.insert(worker);
        let Worker { tab, number } = worker;
        let may_fail = self.faults && self.swarm.troubles.contains(&Trouble::WorkerBreaks);
        match self.rng.below(8) {
            0 if may_fail => {
                self.note(&format!("device {device}: the worker of tab {} does not load", tab.0));
                let reason = "its script does not load".to_owned();
                self.worker_says(device, tab, ToTab::Unloaded { worker: number, reason });
            }
            1 if may_fail => {
                self.note(&format!("device {device}: the worker of tab {} says nothing", tab.0));
            }
            _ => {
                let delay = self.rng.below(LOADED_MS);
                self.schedule(delay, Event::WorkerLoaded { device, worker });
            }
        }
    }

    fn worker_says(&mut self, device: usize, tab: TabId, input: ToTab) {
        self.carry(Wire::WorkerToTab(device, tab), HOP_MS, Event::ToTab { device, tab, input });
    }

    /// A worker that nobody has ended has loaded, and waits in line for the store.
    pub(super) fn worker_loaded(&mut self, device: usize, worker: Worker) {
        let lending = &mut self.devices[device].lending;
        if !lending.loading.remove(&worker) {
            return;
        }
        lending.line.push_back(worker);
        let is_first = lending.line.len() == 1;
        let input = ToTab::Loaded { worker: worker.number };
        self.worker_says(device, worker.tab, input);
        if is_first {
            self.next_worker(device);
        }
    }

    fn next_worker(&mut self, device: usize) {
        if let Some(worker) = self.devices[device].lending.line.front().copied() {
            let delay = self.rng.below(HOP_MS);
            self.schedule(delay, Event::WorkerServes { device, worker });
        }
    }

    /// The store is free for the first worker in line, which opens it.
    pub(super) fn worker_serves(&mut self, device: usize, worker: Worker) -> Result<(), String> {
        let here = &mut self.devices[device];
        if here.lending.line.front() != Some(&worker) {
            return Ok(());
        }
        // Files are made and opened only where there is room.
        here.disk.set_full(false);
        here.open_store(worker)?;
        self.note(&format!("device {device}: tab {} has the store", worker.tab.0));
        self.worker_says(device, worker.tab, ToTab::Serves { worker: worker.number });
        self.say_ready(device);
        Ok(())
    }

    /// Who has the store says so to the core, if that was lent it.
    fn say_ready(&mut self, device: usize) {
        let here = &self.devices[device];
        let Some(worker) = here.page_server.as_ref().map(|it| it.worker) else { return };
        let lent = here.lending.lent.get(&worker.tab).filter(|lent| lent.worker == worker);
        let (Some(Lent { server, .. }), life) = (lent.copied(), here.life) else { return };
        // Each has a port of its own: what two of them say has no order.
        let delay = self.rng.below(HOP_MS);
        self.schedule(delay, Event::ServerReady { device, life, server });
    }

    /// What a worker has said just before its tab ends it is still on its way.
    fn let_have_a_last_word(&mut self, device: usize, worker: Worker) {
        if !self.faults || !self.rng.once_in(2) {
            return;
        }
        let here = &self.devices[device];
        let Worker { tab, number } = worker;
        let serves = here.page_server.as_ref().is_some_and(|lent| lent.worker == worker);
        if here.lending.loading.contains(&worker) {
            self.worker_says(device, tab, ToTab::Loaded { worker: number });
        } else if serves {
            self.worker_says(device, tab, ToTab::Broke { worker: number });
        }
    }

    /// A worker ends, wherever it is.
    fn end_worker(&mut self, device: usize, worker: Worker) {
        if self.devices[device].lending.hangs() {
            // Up to now, and maybe nobody has looked for a while.
            self.trouble(device);
        }
        let here = &mut self.devices[device];
        here.lending.loading.remove(&worker);
        let Some(place) = here.lending.line.iter().position(|it| *it == worker) else { return };
        here.lending.line.remove(place);
        if here.page_server.as_ref().is_some_and(|lent| lent.worker == worker) {
            here.drop_page_server();
        }
        if place == 0 {
            self.next_worker(device);
        }
    }

    /// The page server cannot go on, as its worker says. Until that ends, no other has the store.
    pub(super) fn break_worker(&mut self, device: usize) {
        let here = &mut self.devices[device];
        let Some(Worker { tab, number }) = here.page_server.as_ref().map(|lent| lent.worker) else {
            return;
        };
        here.drop_page_server();
        self.note(&format!("device {device}: the worker of tab {} breaks", tab.0));
        self.trouble(device);
        self.worker_says(device, tab, ToTab::Broke { worker: number });
    }

    /// A tab is gone, with its worker and its place wherever it waits, and the core sees that.
    pub(super) fn tab_is_closed(&mut self, device: usize, tab: TabId) {
        self.tab_is_gone(device, tab);
        let lending = &self.devices[device].lending;
        let workers = lending.loading.iter().chain(&lending.line);
        let workers: Vec<Worker> = workers.filter(|it| it.tab == tab).copied().collect();
        workers.into_iter().for_each(|worker| self.end_worker(device, worker));
        while self.devices[device].lending.turns.contains(&tab) {
            self.end_turn(device, tab);
        }
    }

    /// The core knows a tab no more, and uses nothing that it has lent.
    pub(super) fn tab_is_gone(&mut self, device: usize, tab: TabId) {
        if let Some(port) = self.devices[device].lending.known.remove(&tab) {
            self.step_core(device, Input::TabClosed { tab: port });
        }
        self.lend_ended(device, tab);
    }

    /// A core cannot read what a tab has asked it, and leaves it. The tab comes back.
    pub(super) fn leave_unread(&mut self, device: usize, tab: TabId) {
        let core = self.tab(device, tab).port.core;
        if self.hears(device, tab, core) && self.is_known(device, tab, core) {
            self.note(&format!("device {device}: nobody can read what tab {} asks", tab.0));
            self.tab_is_gone(device, tab);
            let wire = Wire::CoreToTab(device, port_of(tab, core));
            self.carry(wire, 3, Event::TabNotices { device, tab, core });
        }
    }

    // --- what the core is lent -------------------------------------------------------------------

    /// A core is lent the page server of a tab, or hears why it is not.
    pub(super) fn tab_lends(&mut self, device: usize, tab: TabId, worker: Result<u32, String>) {
        match worker {
            Ok(number) => {
                self.lend_ended(device, tab);
                let here = &mut self.devices[device];
                let server = here.next_page_server();
                let worker = Worker { tab, number };
                here.lending.lent.insert(tab, Lent { server, worker });
                let has_store = here.page_server.as_ref().is_some_and(|it| it.worker == worker);
                self.note(&format!(
                    "device {device}: tab {} lends page server {}",
                    tab.0, server.0
                ));
                if has_store {
                    self.say_ready(device);
                }
            }
            Err(reason) if self.devices[device].lending.lent.is_empty() => {
                let server = self.devices[device].next_page_server();
                self.note(&format!("device {device}: tab {} cannot lend", tab.0));
                self.trouble(device);
                let failure = PageServerFailure::new(UnservedKind::Unavailable, reason);
                self.step_core(device, Input::PageServerFailed { server, failure });
            }
            Err(_) => {}
        }
    }

    /// What the core was lent has the store, or had it: the core goes over to it.
    pub(super) fn server_ready(&mut self, device: usize, server: PageServerId) {
        let here = &mut self.devices[device];
        let mut lent = here.lending.lent.iter().map(|(tab, lent)| (*tab, *lent));
        let Some((tab, lent)) = lent.find(|(_, lent)| lent.server == server) else { return };
        here.go_over(lent.worker, server);
        self.note(&format!("device {device}: page server {} is used", server.0));
        self.trouble(device);
        let lending = &mut self.devices[device].lending;
        if let Some((server, lender)) = lending.used.replace((server, tab)) {
            lending.lent.remove(&lender);
            lending.replaced.insert(lender);
            self.step_core(device, Input::PageServerGone { server });
        }
        let storage = Storage::Opfs;
        self.step_core(device, Input::PageServerLent { server, settled_at_ms: 0, storage });
        let tabs: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
        tabs.into_iter().for_each(|tab| self.reach(device, tab));
        let here = &mut self.devices[device];
        let life = here.life;
        if std::mem::take(&mut here.ends_once_lent) && self.faults {
            self.schedule(0, Event::KillCore { device, life });
        }
    }

    /// What a tab has lent has ended. It came late, if it came in place of one of which nobody has
    /// said so.
    pub(super) fn lend_ended(&mut self, device: usize, tab: TabId) {
        let lending = &mut self.devices[device].lending;
        lending.replaced.remove(&tab);
        lending.lent.remove(&tab);
        let Some((server, _)) = lending.used.take_if(|it| it.1 == tab) else { return };
        let replaced = std::mem::take(&mut lending.replaced);
        self.step_core(device, Input::PageServerGone { server });
        for tab in replaced {
            let Some(port) = self.devices[device].lending.known.get(&tab).copied() else {
                continue;
            };
            let input = ToTab::LendAgain { core: tab_at(port).1 };
            self.carry(Wire::CoreToTab(device, port), 3, Event::ToTab { device, tab, input });
        }
    }
}
