//! The clock and the wires, and what arrives at their ends.

mod ending;
mod sockets;
mod trouble;

use std::collections::BTreeMap;

use tidelog_client::{
    Effect, FromCore, Input, Notice, PageServerId, SocketId, Storage, TabId, ToCore,
};
use tidelog_pages::{StoreReply, StoreRequest, Ticket};
use tidelog_server::ConnId;
use tidelog_sync::{FromServer, decode_message};

use crate::device::{CORE, Device, Sizes};
use crate::host::Host;
use crate::judge::Judge;
use crate::rng::Rng;
use crate::tab::{OWN, Release};

const DEVICES: usize = 3;
/// Actions of tabs in the first part of a run, in which things go wrong.
const ACTIONS: u64 = 90;
/// Simulated milliseconds in which all has to settle once nothing goes wrong any more.
const SETTLE_MS: u64 = 300_000;

/// Three devices and a server.
pub struct World {
    seed: u64,
    rng: Rng,
    now_ms: u64,
    queue: BTreeMap<(u64, u64), Event>,
    last_event: u64,
    /// When the last message on each wire arrives: a wire keeps its order.
    wires: BTreeMap<Wire, u64>,
    devices: Vec<Device>,
    host: Host,
    conns: BTreeMap<u64, Conn>,
    last_conn: u64,
    last_name: u64,
    judge: Judge,
    trace: blake3::Hasher,
    verbose: bool,
    /// Milliseconds that a message over the net takes at most.
    net_ms_max: u64,
    /// What tabs that are opened now are of.
    release: Release,
    /// The action before which a release comes, in some worlds.
    release_at: Option<u64>,
    faults: bool,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Hash over everything that happened, in its order.
    pub trace: String,
    /// What the run was made of, for a person.
    pub summary: String,
}

/// One WebSocket.
struct Conn {
    device: usize,
    life: u64,
    socket: SocketId,
    host_life: u64,
    /// What is sent is lost, in both directions, and nobody is told.
    silent: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wire {
    TabToCore(usize, TabId),
    CoreToTab(usize, TabId),
    ToPageServer(usize),
    FromPageServer(usize),
    PageServerToTab(usize, TabId),
    ToServer(u64),
    FromServer(u64),
}

enum Event {
    TabToCore {
        device: usize,
        life: u64,
        tab: TabId,
        messages: Vec<ToCore>,
    },
    CoreToTab {
        device: usize,
        life: u64,
        tab: TabId,
        messages: Vec<FromCore>,
    },
    ToPageServer {
        device: usize,
        server: PageServerId,
        requests: Vec<StoreRequest>,
        notices: Vec<Notice>,
    },
    TabReached {
        device: usize,
        life: u64,
        tab: TabId,
        server: PageServerId,
    },
    FromPageServer {
        device: usize,
        server: PageServerId,
        replies: Vec<StoreReply>,
    },
    Flushed {
        device: usize,
        server: PageServerId,
    },
    Lend {
        device: usize,
        life: u64,
    },
    SocketUp {
        conn: u64,
    },
    ToServer {
        conn: u64,
        bytes: Vec<u8>,
    },
    FromServer {
        conn: u64,
        bytes: Vec<u8>,
    },
    SocketDown {
        device: usize,
        life: u64,
        socket: SocketId,
    },
    HostLeft {
        conn: u64,
    },
    HostFlushed {
        life: u64,
    },
    Wake {
        device: usize,
        life: u64,
    },
    RoomAgain {
        device: usize,
        life: u64,
    },
    /// A tab sees that the core of the life before is gone.
    TabNotices {
        device: usize,
        life: u64,
        tab: TabId,
    },
    StartHost,
    StartDevice {
        device: usize,
    },
}

impl World {
    /// The world of this seed; `verbose` prints what happens.
    #[must_use]
    pub fn new(seed: u64, verbose: bool) -> Self {
        let mut rng = Rng::new(seed);
        // Small enough that change-overs happen, and now and then the size of real life.
        let log_size_max = if rng.once_in(4) { 16 << 20 } else { 128 << 10 };
        let release_at = if rng.once_in(2) { Some(rng.below(ACTIONS)) } else { None };
        let pool_pages_max = [0, 4, 8192][usize::try_from(rng.below(3)).expect("BUG: below 3")];
        let sizes = Sizes { log_size_max, pool_pages_max };
        let net_ms_max = [3, 80, 400][usize::try_from(rng.below(3)).expect("BUG: below 3")];
        Self {
            seed,
            now_ms: 1_700_000_000_000,
            queue: BTreeMap::new(),
            last_event: 0,
            wires: BTreeMap::new(),
            devices: (0..DEVICES).map(|_| Device::new(sizes)).collect(),
            host: Host::new(sizes),
            conns: BTreeMap::new(),
            last_conn: 0,
            last_name: 0,
            judge: Judge::default(),
            trace: blake3::Hasher::new(),
            verbose,
            net_ms_max,
            release: Release::First,
            release_at,
            faults: true,
            rng,
        }
    }

    /// Runs it to its end.
    ///
    /// # Errors
    ///
    /// A sentence that says what did not hold.
    pub fn run(mut self) -> Result<Outcome, String> {
        self.host.start(&mut self.rng)?;
        for device in 0..DEVICES {
            self.start_device(device)?;
        }
        for action in 0..ACTIONS {
            if self.release_at == Some(action) {
                self.note("a release of the app");
                self.release = Release::Second;
            }
            for _ in 0..self.rng.below(40) {
                self.next_event()?;
            }
            self.act()?;
        }
        self.faults = false;
        self.heal()?;
        self.converge("after the faults")?;
        // What converged must also be what is on the disks.
        for device in 0..DEVICES {
            self.note(&format!("device {device}: power cut at the end"));
            self.devices[device].cut_power(&mut self.rng);
            self.start_device(device)?;
        }
        let file = self.converge("after a last power cut")?;
        self.judge.judge_shared(&file)?;
        for device in 0..DEVICES {
            let own = self.export(device, OWN, "at the end")?;
            self.judge.judge_own(device, &own)?;
            for tab in self.devices[device].tabs.values() {
                self.judge.judge_rejections(device, &tab.told_rejections)?;
            }
        }
        let (durable, confirmed, rejected) = self.judge.counts();
        Ok(Outcome {
            trace: self.trace.finalize().to_hex()[..16].to_owned(),
            summary: format!(
                "seed {}: {} events, {} mutations, {durable} durable, {confirmed} confirmed, \
                 {rejected} rejected",
                self.seed, self.last_event, self.last_name
            ),
        })
    }

    // --- events --------------------------------------------------------------------------------

    fn next_at(&self) -> Option<u64> {
        self.queue.keys().next().map(|(at, _)| *at)
    }

    fn next_event(&mut self) -> Result<(), String> {
        let Some(((at, _), event)) = self.queue.pop_first() else { return Ok(()) };
        self.now_ms = self.now_ms.max(at);
        self.happen(event)
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::TabToCore { device, life, tab, messages } => {
                if self.devices[device].life == life {
                    self.note(&format!("{device}.{} asks {messages:?}", tab.0));
                    self.step_core(device, Input::FromTab { tab, messages });
                }
            }
            Event::CoreToTab { device, life, tab, messages } => {
                if self.devices[device].life == life {
                    self.tab_hears(device, tab, messages)?;
                }
            }
            Event::ToPageServer { device, server, requests, notices } => {
                self.page_server_hears(device, server, requests, notices);
            }
            Event::TabReached { device, life, tab, server } => {
                if self.devices[device].life == life {
                    self.step_core(device, Input::TabReached { tab, server });
                }
            }
            Event::FromPageServer { device, server, replies } => {
                self.step_core(device, Input::FromPageServer { server, replies });
            }
            Event::Flushed { device, server } => {
                let here = &mut self.devices[device];
                if here.page_server.as_ref().is_some_and(|lent| lent.id == server) {
                    here.disk.complete_flushes();
                    self.poll_page_server(device);
                }
            }
            Event::Lend { device, life } => self.lend(device, life)?,
            Event::SocketUp { conn } => self.socket_up(conn),
            Event::ToServer { conn, bytes } => self.host_hears(conn, &bytes),
            Event::FromServer { conn, bytes } => {
                if let Some(to) = self.conns.get(&conn).filter(|to| !to.silent) {
                    let (device, socket) = (to.device, to.socket);
                    if self.devices[device].life == to.life {
                        if self.verbose {
                            let message = decode_message::<FromServer>(&bytes);
                            let message = message.map(|message| short(&format!("{message:?}")));
                            self.note(&format!("{device} hears {message:?}"));
                        }
                        self.step_core(device, Input::FromServer { socket, bytes });
                    }
                }
            }
            Event::SocketDown { device, life, socket } => {
                if self.devices[device].life == life {
                    self.step_core(device, Input::SocketClosed { socket });
                }
            }
            Event::HostLeft { conn } => {
                let done = self.host.left(ConnId(conn));
                self.host_did(done);
            }
            Event::HostFlushed { life } => {
                if self.host.life == life {
                    let done = self.host.flushed();
                    self.host_did(done);
                }
            }
            Event::Wake { device, life } => {
                // A later wish has replaced an earlier one.
                let here = &mut self.devices[device];
                if here.life == life && here.wake_at_ms.is_some_and(|at| at <= self.now_ms) {
                    here.wake_at_ms = None;
                    self.step_core(device, Input::Wake);
                }
            }
            Event::RoomAgain { device, life } => {
                if self.devices[device].life == life {
                    self.devices[device].disk.set_capacity(None);
                }
            }
            Event::TabNotices { device, life, tab } => self.tab_notices(device, life, tab),
            Event::StartHost => {
                if !self.host.is_up() {
                    self.note("server: starts");
                    self.host.start(&mut self.rng)?;
                }
            }
            Event::StartDevice { device } => self.start_device(device)?,
        }
        Ok(())
    }

    fn step_core(&mut self, device: usize, input: Input) {
        let now_ms = self.now_ms;
        let Some(core) = &mut self.devices[device].core else { return };
        let effects = core.step(now_ms, input);
        let life = self.devices[device].life;
        for effect in effects {
            match effect {
                Effect::ToTab { tab, messages } => {
                    let event = Event::CoreToTab { device, life, tab, messages };
                    self.carry(Wire::CoreToTab(device, tab), 3, event);
                }
                Effect::ToPageServer { server, requests, notices } => {
                    let event = Event::ToPageServer { device, server, requests, notices };
                    self.carry(Wire::ToPageServer(device), 3, event);
                }
                Effect::OpenSocket { socket, .. } => self.open_socket(device, socket),
                Effect::ToServer { socket, bytes } => {
                    if let Some(conn) = self.devices[device].sockets.get(&socket).copied() {
                        self.carry_far(conn, Wire::ToServer(conn), &bytes, |bytes| {
                            Event::ToServer { conn, bytes }
                        });
                    }
                }
                Effect::CloseSocket { socket } => {
                    if let Some(conn) = self.devices[device].sockets.remove(&socket) {
                        self.conns.remove(&conn);
                        self.schedule(1, Event::HostLeft { conn });
                    }
                }
                Effect::WakeAt { at_ms } => {
                    let delay = at_ms.saturating_sub(self.now_ms);
                    self.devices[device].wake_at_ms = Some(self.now_ms + delay);
                    self.schedule(delay, Event::Wake { device, life });
                }
            }
        }
    }

    fn tab_hears(
        &mut self,
        device: usize,
        tab: TabId,
        messages: Vec<FromCore>,
    ) -> Result<(), String> {
        let mut answers = Vec::new();
        for message in messages {
            let Some(here) = self.devices[device].tabs.get_mut(&tab) else { return Ok(()) };
            let text = format!("{device}.{} hears {message:?}", tab.0);
            let heard = here.hear(message);
            self.note(&short(&text));
            let (news, more) = heard.map_err(|what| format!("device {device}: {what}"))?;
            news.into_iter().for_each(|news| self.judge.hear(news));
            answers.extend(more);
        }
        if !answers.is_empty() {
            self.send_to_core(device, tab, answers);
        }
        Ok(())
    }

    fn lend(&mut self, device: usize, life: u64) -> Result<(), String> {
        let here = &self.devices[device];
        let mut greeted = here.tabs.iter().filter(|(_, tab)| !tab.is_unaware);
        let Some(tab) = greeted.next().map(|(id, _)| *id) else { return Ok(()) };
        if here.life != life || here.core.is_none() || here.page_server.is_some() {
            return Ok(());
        }
        // Files are made and opened only where there is room.
        self.devices[device].disk.set_capacity(None);
        let server = self.devices[device].lend(tab)?;
        self.note(&format!("device {device}: tab {} lends page server {}", tab.0, server.0));
        let storage = Storage::Opfs;
        self.step_core(device, Input::PageServerLent { server, settled_at_ms: 0, storage });
        let tabs: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
        tabs.into_iter().for_each(|tab| self.reach(device, tab));
        Ok(())
    }

    /// Some tabs are told of what is durable by the page server's host itself.
    fn reach(&mut self, device: usize, tab: TabId) {
        let here = &self.devices[device];
        let (Some(lent), life) = (&here.page_server, here.life) else { return };
        let server = lent.id;
        if tab.0.is_multiple_of(2) && !here.tabs[&tab].is_unaware {
            let delay = self.rng.below(40);
            self.schedule(delay, Event::TabReached { device, life, tab, server });
        }
    }

    fn page_server_hears(
        &mut self,
        device: usize,
        server: PageServerId,
        requests: Vec<StoreRequest>,
        notices: Vec<Notice>,
    ) {
        let lent = self.devices[device].page_server.as_mut();
        let Some(lent) = lent.filter(|lent| lent.id == server) else { return };
        let text = short(&format!("{device} store {requests:?}"));
        for request in requests {
            lent.server.serve(CORE, request);
        }
        lent.server.flush();
        lent.notices.extend(notices);
        self.note(&text);
        self.poll_page_server(device);
    }

    fn poll_page_server(&mut self, device: usize) {
        let Some(lent) = &mut self.devices[device].page_server else { return };
        let server = lent.id;
        let mut replies: Vec<StoreReply> = Vec::new();
        loop {
            replies.extend(lent.server.poll().into_iter().map(|(_, reply)| reply));
            if !lent.server.wants_poll() {
                break;
            }
        }
        for reply in &replies {
            match reply {
                StoreReply::Durable { ticket } => self.give_notice(device, *ticket),
                StoreReply::AppendFailed { ticket, .. } => {
                    let lent = self.devices[device].page_server.as_mut().expect("BUG: polled");
                    lent.notices.retain(|notice| notice.ticket != *ticket);
                }
                _ => {}
            }
        }
        if self.devices[device].disk.has_held_flushes() {
            let delay = self.flush_ms();
            self.schedule(delay, Event::Flushed { device, server });
        }
        if !replies.is_empty() {
            let event = Event::FromPageServer { device, server, replies };
            self.carry(Wire::FromPageServer(device), 3, event);
        }
    }

    /// The page server's host tells tabs by itself what is durable.
    fn give_notice(&mut self, device: usize, durable: Ticket) {
        let life = self.devices[device].life;
        let lent = self.devices[device].page_server.as_mut().expect("BUG: polled");
        let (due, kept) = std::mem::take(&mut lent.notices)
            .into_iter()
            .partition(|notice: &Notice| notice.ticket <= durable);
        lent.notices = kept;
        for Notice { tab, messages, .. } in due {
            let event = Event::CoreToTab { device, life, tab, messages };
            self.carry(Wire::PageServerToTab(device, tab), 3, event);
        }
    }

    /// What is said to a core that has died is lost; what waits for an answer is said again.
    fn send_to_core(&mut self, device: usize, tab: TabId, messages: Vec<ToCore>) {
        let here = &self.devices[device];
        if here.tabs.get(&tab).is_some_and(|tab| tab.is_unaware) {
            return;
        }
        let life = here.life;
        let event = Event::TabToCore { device, life, tab, messages };
        self.carry(Wire::TabToCore(device, tab), 3, event);
    }

    /// Delivers after everything that was sent on the same wire before.
    fn carry(&mut self, wire: Wire, delay_max_ms: u64, event: Event) {
        let at = self.now_ms + self.rng.below(delay_max_ms + 1);
        let last = self.wires.entry(wire).or_insert(0);
        *last = at.max(*last);
        let delay = *last - self.now_ms.min(*last);
        self.schedule(delay, event);
    }

    /// How long a flush takes: a few milliseconds, and now and then much longer.
    fn flush_ms(&mut self) -> u64 {
        let max = if self.rng.once_in(8) { 600 } else { 12 };
        self.rng.below(max)
    }

    fn schedule(&mut self, delay_ms: u64, event: Event) {
        self.last_event += 1;
        self.queue.insert((self.now_ms + delay_ms, self.last_event), event);
    }

    fn note(&mut self, text: &str) {
        self.trace.update(&self.now_ms.to_le_bytes());
        self.trace.update(text.as_bytes());
        if self.verbose {
            println!("{:>9} {text}", self.now_ms - 1_700_000_000_000);
        }
    }
}

fn short(text: &str) -> String {
    text.chars().take(400).collect()
}
