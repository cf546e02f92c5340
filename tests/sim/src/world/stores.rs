//! The stores of devices and servers, and those who work before them.

use tidelog_client::{Input, Notice, PageServerId, Storage, TabId};
use tidelog_pages::StoreRequest;

use super::event::{Event, Wire};
use super::{World, short};
use crate::device::ForPageServer;
use crate::host::Done;

impl World {
    pub(super) fn lend(&mut self, device: usize, life: u64) -> Result<(), String> {
        let here = &self.devices[device];
        let mut greeted = here.tabs.iter().filter(|(_, tab)| !tab.port.is_dead);
        let Some(tab) = greeted.next().map(|(id, _)| *id) else { return Ok(()) };
        if here.life != life || here.core.is_none() || here.page_server.is_some() {
            return Ok(());
        }
        // Files are made and opened only where there is room.
        self.devices[device].disk.set_full(false);
        let server = self.devices[device].lend(tab)?;
        self.note(&format!("device {device}: tab {} lends page server {}", tab.0, server.0));
        self.trouble(device);
        self.lent(device, server);
        Ok(())
    }

    pub(super) fn lent(&mut self, device: usize, server: PageServerId) {
        let storage = Storage::Opfs;
        self.step_core(device, Input::PageServerLent { server, settled_at_ms: 0, storage });
        let tabs: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
        tabs.into_iter().for_each(|tab| self.reach(device, tab));
    }

    /// Some tabs are told of what is durable by the page server's host itself.
    pub(super) fn reach(&mut self, device: usize, tab: TabId) {
        let here = &self.devices[device];
        let (Some(lent), life) = (&here.page_server, here.life) else { return };
        let server = lent.id;
        if tab.0.is_multiple_of(2) && !here.tabs[&tab].port.is_dead {
            let delay = self.rng.below(40);
            self.schedule(delay, Event::TabReached { device, life, tab, server });
        }
    }

    pub(super) fn ask_page_server(
        &mut self,
        device: usize,
        server: PageServerId,
        requests: Vec<StoreRequest>,
        notices: Vec<Notice>,
    ) {
        let Some(lent) = &self.devices[device].page_server else { return };
        if lent.id == server {
            let (worker, owner) = (lent.worker, lent.owner);
            let what = ForPageServer::Requests { owner, requests, notices };
            let event = Event::ToPageServer { device, worker, what };
            let delay_max = if self.swarm.hasty { 20 } else { 3 };
            self.carry(Wire::ToPageServer(device, owner), delay_max, event);
        }
    }

    /// Something has come for a page server: at once, or when its tab is no longer frozen.
    pub(super) fn page_server_gets(&mut self, device: usize, worker: u32, what: ForPageServer) {
        let here = &mut self.devices[device];
        let is_frozen = here.frozen_until_ms > self.now_ms;
        let Some(lent) = here.page_server.as_mut().filter(|lent| lent.worker == worker) else {
            return;
        };
        if is_frozen || !lent.frozen.is_empty() {
            lent.frozen.push_back(what);
        } else {
            self.page_server_takes(device, what);
        }
    }

    fn page_server_takes(&mut self, device: usize, what: ForPageServer) {
        let text = match &what {
            ForPageServer::Requests { requests, .. } => {
                Some(format!("{device} store {}", short(requests)))
            }
            ForPageServer::Turn | ForPageServer::Flushed => None,
        };
        text.into_iter().for_each(|text| self.note(&text));
        let here = &mut self.devices[device];
        let lent = here.page_server.as_mut().expect("BUG: it was there");
        match what {
            ForPageServer::Requests { owner, requests, notices } => {
                lent.serve(owner, requests);
                lent.notices.extend(notices.into_iter().map(|notice| (owner, notice)));
            }
            ForPageServer::Turn => lent.is_due = false,
            ForPageServer::Flushed => here.disk.complete_flushes(),
        }
        self.poll_page_server(device);
    }

    /// The tab that lends goes on, unless it was frozen again.
    pub(super) fn thaw(&mut self, device: usize) {
        if self.devices[device].frozen_until_ms > self.now_ms {
            return;
        }
        while let Some(lent) = &mut self.devices[device].page_server
            && let Some(what) = lent.frozen.pop_front()
        {
            self.page_server_takes(device, what);
        }
    }

    /// The page server does a slice of its work, or all of it.
    fn poll_page_server(&mut self, device: usize) {
        let life = self.devices[device].life;
        let late = self.swarm.late_stores;
        let Some(lent) = &mut self.devices[device].page_server else { return };
        let (server, worker) = (lent.id, lent.worker);
        let (mut replies, mut told, mut is_broken) = lent.poll();
        while !late && !is_broken && lent.server.wants_poll() {
            let (more, also, breaks) = lent.poll();
            replies.extend(more);
            told.extend(also);
            is_broken = breaks;
        }
        let goes_on = !is_broken && lent.server.wants_poll() && !lent.is_due;
        lent.is_due |= goes_on;
        if goes_on {
            let delay = self.rng.below(4);
            let what = ForPageServer::Turn;
            self.schedule(delay, Event::ToPageServer { device, worker, what });
        }
        for Notice { tab, messages, .. } in told {
            let event = Event::PageServerToTab { device, life, tab, messages };
            self.carry(Wire::PageServerToTab(device, tab), 3, event);
        }
        if self.devices[device].disk.has_held_flushes() {
            let delay = self.flush_ms();
            let what = ForPageServer::Flushed;
            self.schedule(delay, Event::ToPageServer { device, worker, what });
        }
        if !replies.is_empty() {
            let event = Event::FromPageServer { device, life, server, replies };
            self.carry(Wire::FromPageServer(device), 3, event);
        }
        if is_broken {
            self.note(&format!("device {device}: page server {} is broken", server.0));
            self.trouble(device);
            self.devices[device].drop_page_server();
            let delay = 5 + self.rng.below(500);
            self.schedule(delay, Event::Lend { device, life });
        }
    }

    // --- servers -------------------------------------------------------------------------------

    pub(super) fn host_did(&mut self, host: usize, done: Done) {
        self.wrong = self.wrong.take().or(done.wrong);
        self.send_down(host, done.sent, done.closed);
        if done.exported.is_some() {
            self.exported = done.exported;
        }
        self.host_works(host);
    }

    /// The store's thread has its next round soon, if there is something to do.
    pub(super) fn host_works(&mut self, host: usize) {
        if self.hosts[host].wants_round() && !self.hosts[host].is_due {
            self.hosts[host].is_due = true;
            let life = self.hosts[host].life;
            let delay = if self.swarm.late_stores { self.rng.below(5) } else { 0 };
            self.schedule(delay, Event::HostRound { host, life });
        }
    }

    pub(super) fn host_round(&mut self, host: usize) {
        self.hosts[host].is_due = false;
        let now_ms = self.now_ms;
        let done = self.hosts[host].round(now_ms);
        let life = self.hosts[host].life;
        self.wrong = self.wrong.take().or(done.wrong);
        self.send_down(host, done.sent, done.closed);
        if done.exported.is_some() {
            self.exported = done.exported;
        }
        for (owner, reply) in done.replies {
            let event = Event::HostAnswers { host, life, owner, reply };
            let delay = if self.swarm.late_stores { self.rng.below(4) } else { 0 };
            self.carry_in(Wire::ToRooms(host), delay, event);
        }
        if done.is_broken {
            self.note(&format!("server {host}: its store is broken"));
            self.schedule(1_000, Event::HostReopens { host, life });
        }
        if self.hosts[host].disk.has_held_flushes() {
            let delay = self.flush_ms();
            self.schedule(delay, Event::HostFlushed { host, life });
        }
        let overdue_at_ms = self.hosts[host].overdue_at_ms(now_ms);
        if overdue_at_ms != self.hosts[host].looks_at_ms {
            self.hosts[host].looks_at_ms = overdue_at_ms;
            let delay = overdue_at_ms.map(|at_ms| at_ms.saturating_sub(now_ms));
            delay
                .into_iter()
                .for_each(|delay| self.schedule(delay, Event::HostRound { host, life }));
        }
        self.host_works(host);
    }

    pub(super) fn host_reopens(&mut self, host: usize, life: u64) -> Result<(), String> {
        if self.hosts[host].life == life && self.hosts[host].is_broken() {
            self.note(&format!("server {host}: opens its store anew"));
            self.hosts[host].reopen()?;
            self.host_works(host);
        }
        Ok(())
    }
}
