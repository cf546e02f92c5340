//! The stores of devices and servers, and those who work before them.

use tidelog_client::{Notice, PageServerId};
use tidelog_pages::StoreRequest;

use super::event::{Event, Wire};
use super::lending::{Worker, tab_at};
use super::{World, short};
use crate::device::ForPageServer;
use crate::host::Done;

/// Milliseconds that what a core says before it dies is under way, at most: the next core may have
/// said its first word before.
const LAST_WORDS_MS_MAX: u64 = 1_500;

impl World {
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
            let delay_max = match self.swarm.hasty {
                true if self.devices[device].ends_once_lent => LAST_WORDS_MS_MAX,
                true => 20,
                // Something fails while more is under way.
                false if self.swarm.side_by_side => 20,
                false => 3,
            };
            self.carry(Wire::ToPageServer(device, owner), delay_max, event);
        }
    }

    /// What a core that dies has asked its page server, and is still on its way, takes its time.
    pub(super) fn hold_last_words_up(&mut self, device: usize) {
        let delay = self.rng.below(LAST_WORDS_MS_MAX);
        let last_words: Vec<_> =
            self.queue.extract_if(.., |_, event| event.asks_store_of(device)).collect();
        for ((at, number), event) in last_words {
            self.queue.insert((at + delay, number), event);
        }
    }

    /// Something has come for a page server: at once, or when its tab is no longer frozen.
    pub(super) fn page_server_gets(&mut self, device: usize, worker: Worker, what: ForPageServer) {
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
        if let ForPageServer::Requests { requests, .. } = &what {
            self.note_with(|| format!("{device} store {}", short(requests)));
        }
        let here = &mut self.devices[device];
        let lent = here.page_server.as_mut().expect("BUG: it was there");
        match what {
            ForPageServer::Requests { owner, requests, notices } => {
                lent.serve(owner, requests);
                lent.notices.extend(notices.into_iter().map(|notice| (owner, notice)));
            }
            ForPageServer::Turn => lent.is_due = false,
            ForPageServer::Flushed => here.disk.complete_flushes(),
            ForPageServer::Rest => {
                lent.rest();
                return self.poll_page_server(device);
            }
        }
        self.poll_page_server(device);
        if let Some(lent) = &self.devices[device].page_server
            && self.rng.once_in(8)
        {
            let (worker, what) = (lent.worker, ForPageServer::Rest);
            let delay = self.rng.below(2_000);
            self.schedule(delay, Event::ToPageServer { device, worker, what });
        }
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
        while !late && !is_broken && lent.wrong.is_none() && lent.server.wants_poll() {
            let (more, also, breaks) = lent.poll();
            replies.extend(more);
            told.extend(also);
            is_broken = breaks;
        }
        let wrong = lent.wrong.take().map(|what| format!("device {device}: {what}"));
        self.wrong = self.wrong.take().or(wrong);
        let goes_on = !is_broken && lent.server.wants_poll() && !lent.is_due;
        lent.is_due |= goes_on;
        if goes_on {
            let delay = self.rng.below(4);
            let what = ForPageServer::Turn;
            self.schedule(delay, Event::ToPageServer { device, worker, what });
        }
        for Notice { tab: port, messages, .. } in told {
            // The core has taken the ways of those back that have left it.
            if self.devices[device].lending.is_known(port) {
                let (tab, _) = tab_at(port);
                let event = Event::PageServerToTab { device, life, tab, messages };
                self.carry(Wire::PageServerToTab(device, tab), 3, event);
            }
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
            self.break_worker(device);
        }
    }

    // --- servers -------------------------------------------------------------------------------

    pub(super) fn host_did(&mut self, host: usize, done: Done) {
        self.wrong = self.wrong.take().or(done.wrong);
        self.are_admitted(host, done.admitted);
        self.send_down(host, done.sent, done.closed);
        if done.exported.is_some() {
            self.exported = done.exported;
        }
        self.deleted(host, done.deleted);
        self.look_at_clock(host);
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
        self.deleted(host, done.deleted);
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
        self.look_at_clock(host);
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
