//! What tabs do, and what goes wrong meanwhile.

use tidelog_client::{Input, TabId};

use super::{DEVICES, Event, World};
use crate::judge::Document;
use crate::tab::{OWN, SHARED};

impl World {
    pub(super) fn act(&mut self) -> Result<(), String> {
        let device = usize::try_from(self.rng.below(DEVICES as u64)).expect("BUG: small");
        if self.rng.once_in(4) {
            return self.go_wrong(device);
        }
        let tabs: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
        if let Some(tab) = self.rng.pick(&tabs) {
            self.ask(device, tab);
        }
        Ok(())
    }

    /// A tab asks for this and that.
    fn ask(&mut self, device: usize, tab: TabId) {
        let mut messages = Vec::new();
        for _ in 0..=self.rng.below(3) {
            let what = self.rng.below(10);
            let connected = self.rng.once_in(2);
            let name = format!("m{}", self.last_name + 1);
            let claim = self.rng.below(12);
            let own = self.rng.once_in(4);
            let (handle, document) =
                if own { (OWN, Document::Own) } else { (SHARED, Document::Shared) };
            let now_ms = self.now_ms;
            let tab = self.devices[device].tabs.get_mut(&tab).expect("BUG: listed");
            let mutation = match what {
                0..=2 => "add",
                3 | 4 => "bump",
                5 | 6 => "claim",
                7 => {
                    messages.push(tab.query(handle));
                    continue;
                }
                8 => {
                    messages.push(tab.sync());
                    continue;
                }
                _ => {
                    messages.push(tab.set_connected(connected));
                    continue;
                }
            };
            messages.push(tab.mutate(handle, mutation, &name, claim, now_ms));
            self.last_name += 1;
            self.judge.issued(&name, device, document, mutation == "bump");
        }
        self.send_to_core(device, tab, messages);
    }

    pub(super) fn go_wrong(&mut self, device: usize) -> Result<(), String> {
        match self.rng.below(10) {
            9 if self.devices[device].is_open() => {
                self.note(&format!("device {device}: the disk is full"));
                self.devices[device].fill_disk();
                let (life, delay) = (self.devices[device].life, self.rng.below(5_000));
                self.schedule(delay, Event::RoomAgain { device, life });
            }
            0 => {
                self.note(&format!("device {device}: a tab more"));
                self.open_tab(device);
            }
            1 => self.close_tab(device),
            2 => {
                // Most cores shall leave something on its way.
                let tabs: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
                tabs.into_iter().for_each(|tab| self.ask(device, tab));
                for _ in 0..self.rng.below(30) {
                    self.next_event()?;
                }
                self.note(&format!("device {device}: the core is killed"));
                self.kill_core(device);
            }
            3 => {
                self.note(&format!("device {device}: power cut"));
                self.cut_sockets(device);
                self.devices[device].cut_power(&mut self.rng);
                let delay = self.rng.below(3_000);
                self.schedule(delay, Event::StartDevice { device });
            }
            4 if self.host.is_up() => {
                self.note("server: power cut");
                self.host.cut_power(&mut self.rng);
                let conns: Vec<u64> = self.conns.keys().copied().collect();
                for conn in conns {
                    self.cut(conn);
                }
                let delay = self.rng.below(3_000);
                self.schedule(delay, Event::StartHost);
            }
            5 | 6 => {
                let conns: Vec<u64> = self.conns.keys().copied().collect();
                if let Some(conn) = self.rng.pick(&conns) {
                    self.note(&format!("connection {conn} is cut"));
                    self.cut(conn);
                }
            }
            7 => {
                let conns: Vec<u64> = self.conns.keys().copied().collect();
                if let Some(conn) = self.rng.pick(&conns) {
                    self.note(&format!("connection {conn} falls silent"));
                    self.conns.get_mut(&conn).expect("BUG: listed").silent = true;
                }
            }
            _ => {
                let jump = self.rng.below(40_000);
                self.note(&format!("{jump} ms pass"));
                let until = self.now_ms + jump;
                while self.next_at().is_some_and(|at| at <= until) {
                    self.next_event()?;
                }
                self.now_ms = self.now_ms.max(until);
            }
        }
        Ok(())
    }

    pub(super) fn close_tab(&mut self, device: usize) {
        let tabs: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
        let Some(tab) = self.rng.pick(&tabs) else { return };
        self.note(&format!("device {device}: tab {} is closed", tab.0));
        self.devices[device].tabs.remove(&tab);
        if self.devices[device].tabs.is_empty() {
            // The core goes with its last tab; a new one opens the app again later.
            self.cut_sockets(device);
            let here = &mut self.devices[device];
            here.core = None;
            here.life += 1;
            here.drop_page_server();
            let delay = self.rng.below(2_000);
            self.schedule(delay, Event::StartDevice { device });
            return;
        }
        self.step_core(device, Input::TabClosed { tab });
        if self.devices[device].page_server.as_ref().is_some_and(|lent| lent.tab == tab) {
            self.devices[device].drop_page_server();
            let life = self.devices[device].life;
            let delay = 5 + self.rng.below(25);
            self.schedule(delay, Event::Lend { device, life });
        }
    }

    pub(super) fn kill_core(&mut self, device: usize) {
        if self.devices[device].core.is_none() {
            return;
        }
        self.cut_sockets(device);
        self.devices[device].drop_page_server();
        self.devices[device].start_core(&mut self.rng);
        let life = self.devices[device].life;
        let tabs: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
        for tab in tabs {
            let here = self.devices[device].tabs.get_mut(&tab).expect("BUG: listed");
            here.is_unaware = true;
            // Each sees it in its own time: a busy one long after the others have gone on.
            let delay_max = if self.rng.once_in(2) { 4_000 } else { 50 };
            let delay = self.rng.below(delay_max);
            self.schedule(delay, Event::TabNotices { device, life, tab });
        }
    }

    pub(super) fn tab_notices(&mut self, device: usize, life: u64, tab: TabId) {
        let here = &mut self.devices[device];
        let Some(unaware) = here.tabs.get_mut(&tab).filter(|_| here.life == life) else { return };
        unaware.is_unaware = false;
        let messages = unaware.open_again();
        self.send_to_core(device, tab, messages);
        self.reach(device, tab);
        let delay = self.rng.below(50);
        self.schedule(delay, Event::Lend { device, life });
    }

    pub(super) fn start_device(&mut self, device: usize) -> Result<(), String> {
        if self.devices[device].core.is_some() {
            return Ok(());
        }
        self.devices[device].start_core(&mut self.rng);
        self.open_tab(device);
        let life = self.devices[device].life;
        self.schedule(1, Event::Lend { device, life });
        Ok(())
    }

    pub(super) fn open_tab(&mut self, device: usize) {
        if self.devices[device].core.is_none() {
            return;
        }
        let prefix = (device as u64) << 16 | self.devices[device].life;
        let tab = self.devices[device].new_tab(prefix, self.release);
        let messages = self.devices[device].tabs.get_mut(&tab).expect("BUG: made it").open();
        self.send_to_core(device, tab, messages);
        // Every tab offers to lend. Others may have closed before they saw that a core had died.
        let life = self.devices[device].life;
        self.schedule(50, Event::Lend { device, life });
    }

    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.note("nothing goes wrong any more");
        if !self.host.is_up() {
            self.host.start(&mut self.rng)?;
        }
        for device in 0..DEVICES {
            self.start_device(device)?;
            self.devices[device].disk.set_capacity(None);
            let tabs: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
            for tab in tabs {
                let back = self.devices[device].tabs[&tab].set_connected(true);
                self.send_to_core(device, tab, vec![back]);
            }
        }
        Ok(())
    }
}
