//! What goes wrong.

use tidelog_client::TabId;
use tidelog_sync::{ByeReason, FromServer, PROTOCOL_VERSION, encode_message};
use tidelog_tab::Input as ToTab;

use super::World;
use super::event::Event;
use crate::device::fail_soon;
use crate::docs::Doc;
use crate::swarm::Trouble;
use crate::tab::MISTAKES;

/// Milliseconds for which a tab hears nothing, at most.
const BUSY_MS_MAX: u64 = 4_000;
/// Milliseconds for which a server lets nobody in, at most.
pub(super) const BARRED_MS_MAX: u64 = 30_000;
/// Milliseconds for which a tab is hidden, at most.
const HIDDEN_MS_MAX: u64 = 4_000;

impl World {
    /// Something has just gone wrong on a device.
    pub(super) fn trouble(&mut self, device: usize) {
        self.trouble_for(device, 0);
    }

    pub(super) fn trouble_for(&mut self, device: usize, ms: u64) {
        let here = &mut self.devices[device];
        here.trouble_ms = here.trouble_ms.max(self.now_ms + ms);
        here.tabs.values_mut().for_each(|tab| tab.note_trouble(self.now_ms));
        self.judge.note_trouble(device, self.now_ms);
    }

    pub(super) fn go_wrong(&mut self, device: usize) -> Result<(), String> {
        let host = self.rng.index(self.hosts.len());
        let trouble = self.rng.pick(&self.swarm.troubles).expect("BUG: time always passes");
        match trouble {
            Trouble::OpenTab => {
                self.note(&format!("device {device}: a tab more"));
                self.open_tab(device);
            }
            Trouble::CloseTab => {
                self.trouble(device);
                self.close_tab(device)?;
            }
            Trouble::KillCore => self.let_core_die(device, false)?,
            Trouble::SecondCore => self.let_core_die(device, true)?,
            Trouble::PowerCut => {
                self.note(&format!("device {device}: power cut"));
                self.cut_power_of(device);
            }
            Trouble::DeviceFull if self.devices[device].is_open() => {
                self.fill_disk(device);
            }
            Trouble::DeviceFails if self.devices[device].is_open() => {
                self.note(&format!("device {device}: the disk fails soon"));
                fail_soon(&self.devices[device].disk, &mut self.rng);
            }
            Trouble::FrozenLender if self.devices[device].page_server.is_some() => {
                let delay = self.rng.below(20_000);
                self.freeze_lender(device, delay);
                if self.rng.once_in(2) {
                    // Whoever opens something now waits, or gives it up.
                    self.open_tab(device);
                }
            }
            Trouble::BusyTab => {
                let tabs: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
                if let Some(tab) = self.rng.pick(&tabs) {
                    let delay = self.rng.below(BUSY_MS_MAX);
                    self.keep_busy((device, tab));
                    self.trouble_for(device, delay);
                    self.schedule(delay, Event::TabIsFree { device, tab });
                }
            }
            Trouble::HideTab => self.hide_a_tab(device)?,
            Trouble::ServerPowerCut if self.hosts[host].is_up() => {
                self.note(&format!("server {host}: power cut"));
                self.cut_power_of_server(host);
            }
            Trouble::ServerFull if self.hosts[host].is_up() => self.fill_server(host),
            Trouble::ServerFails if self.hosts[host].is_up() => {
                self.note(&format!("server {host}: the disk fails soon"));
                fail_soon(&self.hosts[host].disk, &mut self.rng);
            }
            Trouble::Retire => {
                let nth = self.rng.index(3);
                if self.hosts[host].retire(nth) {
                    self.note(&format!("server {host}: a room is empty and leaves"));
                }
            }
            Trouble::Cut => {
                if let Some(conn) = self.any_conn() {
                    self.note(&format!("connection {conn} is cut"));
                    self.cut(conn);
                }
            }
            Trouble::Silence | Trouble::OneWaySilence => {
                let (up, down) = match (trouble, self.rng.once_in(2)) {
                    (Trouble::Silence, _) => (true, true),
                    (_, up) => (up, !up),
                };
                if let Some(conn) = self.any_conn() {
                    self.note(&format!("connection {conn} falls silent: {up} {down}"));
                    let here = self.conns.get_mut(&conn).expect("BUG: listed");
                    here.silent_up |= up;
                    here.silent_down |= down;
                }
            }
            Trouble::SlowReader => {
                let delay = self.rng.below(3_000);
                if let Some(conn) = self.any_conn() {
                    self.note(&format!("connection {conn} is read {delay} ms late"));
                    self.conns.get_mut(&conn).expect("BUG: listed").read_after_ms = delay;
                }
            }
            Trouble::WorkerBreaks => self.break_worker(device),
            Trouble::ServerBars => {
                self.bar_server(host);
                self.server_lets_in(host);
            }
            Trouble::ServerStops if self.hosts[host].is_up() => self.stop_server(host),
            Trouble::Nudge => {
                self.note(&format!("device {device}: comes online, it seems"));
                for tab in self.devices[device].tabs.keys().copied().collect::<Vec<TabId>>() {
                    self.tab_takes(device, tab, &ToTab::Online)?;
                }
            }
            Trouble::Mistake => self.make_mistakes(device),
            _ => {
                let jump = self.rng.below(40_000);
                self.note(&format!("{jump} ms pass"));
                self.pass(jump)?;
            }
        }
        Ok(())
    }

    /// The disk of a server is full for a while.
    pub(super) fn fill_server(&mut self, host: usize) {
        self.note(&format!("server {host}: the disk is full"));
        self.hosts[host].disk.set_full(true);
        let (life, delay) = (self.hosts[host].life, self.rng.below(5_000));
        self.schedule(delay, Event::HostHasRoom { host, life });
    }

    /// The tab that lends is frozen, and its page server with it.
    pub(super) fn freeze_lender(&mut self, device: usize, delay: u64) {
        self.note(&format!("device {device}: the lender is frozen for {delay} ms"));
        self.trouble_for(device, delay);
        let here = &mut self.devices[device];
        here.frozen_until_ms = here.frozen_until_ms.max(self.now_ms + delay);
        self.schedule(delay, Event::Thaw { device });
    }

    /// A tab goes where it can hold nothing, with something on its way, and comes back before or
    /// after that has arrived.
    fn hide_a_tab(&mut self, device: usize) -> Result<(), String> {
        let here = &self.devices[device];
        let lender = here.page_server.as_ref().map(|lent| lent.worker.tab);
        let tabs: Vec<TabId> = here.tabs.keys().copied().collect();
        let any = self.rng.pick(&tabs);
        // Whatever is on its way to the disk waits for another worker then.
        let Some(tab) = lender.filter(|_| self.rng.once_in(2)).or(any) else { return Ok(()) };
        self.ask(device, tab);
        self.ask(device, tab);
        for _ in 0..self.rng.below(12) {
            self.next_event()?;
        }
        let delay_max = [40, HIDDEN_MS_MAX][self.rng.index(2)];
        let delay = self.rng.below(delay_max);
        if self.hide((device, tab))? {
            self.trouble_for(device, delay);
            self.schedule(delay, Event::TabIsShown { device, tab });
        }
        Ok(())
    }

    /// For a while nothing more fits on the disk of a device.
    pub(super) fn fill_disk(&mut self, device: usize) {
        self.note(&format!("device {device}: the disk is full"));
        let (life, delay) = (self.devices[device].life, self.rng.below(5_000));
        self.trouble_for(device, delay);
        self.devices[device].disk.set_full(true);
        self.schedule(delay, Event::RoomAgain { device, life });
    }

    /// The power of a device goes, and comes back a while later.
    pub(super) fn cut_power_of(&mut self, device: usize) {
        self.trouble(device);
        self.cut_sockets(device);
        self.devices[device].cut_power(&mut self.rng);
        let delay = self.rng.below(3_000);
        self.schedule(delay, Event::StartDevice { device });
    }

    /// The same of a server.
    pub(super) fn cut_power_of_server(&mut self, host: usize) {
        self.hosts[host].cut_power(&mut self.rng);
        self.look_for_deleted(host);
        for conn in self.conns_of(host) {
            self.cut(conn);
        }
        let delay = self.rng.below(3_000);
        self.schedule(delay, Event::StartHost { host });
    }

    /// A server says that it goes down, and comes back.
    pub(super) fn stop_server(&mut self, host: usize) {
        self.note(&format!("server {host}: stops"));
        let bye = encode_message(&FromServer::Bye { reason: ByeReason::Shutdown });
        for conn in self.conns_of(host) {
            self.device_hears(conn, bye.clone());
            self.cut(conn);
        }
        self.hosts[host].stop();
        self.look_for_deleted(host);
        let delay = self.rng.below(3_000);
        self.schedule(delay, Event::StartHost { host });
    }

    /// A server knows nobody from now on, or is of another version. Says whether another token
    /// might help, as far as clients know.
    pub(super) fn bar_server(&mut self, host: usize) -> bool {
        // A token is refused as often as everything else together.
        let of_all = [ByeReason::Version, ByeReason::Origin][(self.now_ms % 2) as usize].clone();
        let reason = [of_all, ByeReason::Unauthenticated][self.rng.index(2)].clone();
        let is_of_tokens = reason == ByeReason::Unauthenticated;
        self.note(&format!("server {host}: lets nobody in: {reason:?}"));
        let mut bye = encode_message(&FromServer::Bye { reason });
        let is_unread = self.rng.once_in(3);
        if is_unread {
            bye[..2].copy_from_slice(&(PROTOCOL_VERSION + 1).to_le_bytes());
        }
        for conn in self.conns_of(host) {
            self.device_hears(conn, bye.clone());
            self.cut(conn);
        }
        self.barred.insert(host, bye);
        is_of_tokens && !is_unread
    }

    /// A server that was barred lets in again, some time from now.
    pub(super) fn server_lets_in(&mut self, host: usize) {
        let delay = self.rng.below(BARRED_MS_MAX);
        self.schedule(delay, Event::HostLetsIn { host });
    }

    /// Tabs ask for what no document has.
    fn make_mistakes(&mut self, device: usize) {
        let tabs: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
        for tab in tabs {
            let held: Vec<Doc> = self.tab(device, tab).held.keys().copied().collect();
            let Some(doc) = self.rng.pick(&held) else { continue };
            let (nth, now_ms) = (self.rng.index(MISTAKES), self.now_ms);
            let message = self.tab(device, tab).mistake(doc, nth, now_ms);
            self.send_to_core(device, tab, vec![message]);
        }
    }

    fn any_conn(&mut self) -> Option<u64> {
        let conns: Vec<u64> = self.conns.keys().copied().collect();
        self.rng.pick(&conns)
    }

    fn conns_of(&self, host: usize) -> Vec<u64> {
        let of_host = self.conns.iter().filter(|(_, conn)| conn.host == host);
        of_host.map(|(conn, _)| *conn).collect()
    }

    /// The core is killed; or another one takes over while the page server lives on and still has
    /// what the first one asked on its way.
    fn let_core_die(&mut self, device: usize, page_server_lives: bool) -> Result<(), String> {
        // Most cores shall leave something on its way.
        let tabs: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
        if self.swarm.hasty && tabs.len() < 2 {
            // What two tabs have on its way may come in another order to the next core.
            self.open_tab(device);
        }
        tabs.into_iter().for_each(|tab| self.ask(device, tab));
        for _ in 0..self.rng.below(30) {
            self.next_event()?;
        }
        self.kill_core(device, page_server_lives);
        if page_server_lives && self.swarm.hasty {
            // The one that has taken over is killed as soon, and its first word may come after that
            // of the next one.
            self.devices[device].ends_once_lent = true;
        }
        Ok(())
    }

    /// The same without more ado, unless there is none.
    pub(super) fn kill_core(&mut self, device: usize, page_server_lives: bool) {
        if self.devices[device].core.is_none() {
            return;
        }
        self.start_another_core(device, page_server_lives);
    }

    /// The core ends, and its tabs go to another one.
    pub(super) fn start_another_core(&mut self, device: usize, page_server_lives: bool) {
        self.note(&format!("device {device}: the core is killed"));
        self.trouble(device);
        self.cut_sockets(device);
        if !page_server_lives {
            self.break_worker(device);
        }
        if self.swarm.hasty && self.rng.once_in(2) {
            self.hold_last_words_up(device);
        }
        self.devices[device].start_core(&mut self.rng);
        self.core_is_gone(device);
    }

    /// Nothing goes wrong any more: all are back, and reach each other.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.note("nothing goes wrong any more");
        self.faults = false;
        for tab in self.hidden.clone() {
            self.show(tab)?;
        }
        self.let_all_hear()?;
        self.cut_off.clear();
        self.barred.clear();
        self.muted = None;
        self.breaks = None;
        self.give_right_tokens();
        self.restore_server()?;
        for host in 0..self.hosts.len() {
            self.hosts[host].disk.set_full(false);
            if !self.hosts[host].is_up() {
                self.hosts[host].start(&mut self.rng)?;
            }
        }
        for conn in self.conns.values_mut() {
            conn.read_after_ms = 0;
        }
        self.clear_rotten()?;
        for device in 0..self.devices.len() {
            self.start_device(device)?;
            self.devices[device].disk.set_full(false);
            self.devices[device].lending.dying_until_ms = 0;
            self.devices[device].frozen_until_ms = 0;
            self.thaw(device);
            self.open_all(device);
        }
        self.connect_all();
        Ok(())
    }

    /// Every tab calls the documents that it has back to their servers.
    pub(super) fn connect_all(&mut self) {
        for device in 0..self.devices.len() {
            let tabs: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
            for tab in tabs {
                let docs = self.docs.of(device).into_iter();
                let messages =
                    docs.filter_map(|doc| self.set_connected(device, tab, doc, true)).collect();
                self.send_to_core(device, tab, messages);
            }
        }
    }

    /// Every tab has every document of its device open, with its server: one that another tab has
    /// handed over stays offline otherwise.
    pub(super) fn open_all(&mut self, device: usize) {
        let (docs, now_ms) = (self.docs.clone(), self.now_ms);
        let tabs: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
        for tab in tabs {
            let mut messages = Vec::new();
            for doc in docs.of(device) {
                let online = self.devices[device].moved.contains(&doc);
                let here = self.tab(device, tab);
                if !here.wants(doc) {
                    messages.push(here.open(&docs, doc, online, now_ms));
                } else if online && here.holds_locally(doc) {
                    messages.push(here.hand_over(&docs, doc, now_ms));
                }
            }
            self.send_to_core(device, tab, messages);
        }
    }
}
