//! The clock and the wires, and what arrives at their ends.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use tidelog_client::{Effect, FromCore, Input, SocketId, TabId, ToCore};
use tidelog_document::FoundRight;
use tidelog_room::{Answer, ConnId};
use tidelog_sync::{ToServer, decode_message, encode_message};
use tidelog_types::DocumentKey;

use crate::chance::Chance;
use crate::device::Device;
use crate::server::{ADDRESS, Server};

/// Events at one time after which it is sure that they have no end.
const EVENTS_AT_ONCE_MAX: u64 = 100_000_000;

/// The world's number for a device, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceId(pub usize);

/// Devices and a server, which do what is due when they are told to.
pub struct World {
    /// Milliseconds since the epoch.
    now_ms: u64,
    chance: Chance,
    /// One look at each doctype is enough for all cores and rooms.
    found_right: FoundRight,
    /// What is due now, in the order in which it came about: no message takes any time.
    due: VecDeque<Event>,
    devices: Vec<Device>,
    /// All tabs that are connected.
    tabs: BTreeMap<TabId, DeviceId>,
    last_tab: u32,
    server: Server,
    conns: BTreeMap<ConnId, Conn>,
    last_conn: u64,
    /// What tabs are told, oldest first, until it is taken.
    told: VecDeque<(TabId, Vec<FromCore>)>,
}

/// One WebSocket.
struct Conn {
    device: DeviceId,
    socket: SocketId,
}

/// Something that is on its way.
enum Event {
    /// To the core of this life.
    ToCore { device: DeviceId, life: u64, input: Input },
    /// To the server.
    ToServer { conn: ConnId, bytes: Vec<u8> },
    /// The server notices that a connection is gone.
    Left { conn: ConnId },
}

impl World {
    /// A world without devices at this time, milliseconds since the epoch. The same calls in a
    /// world of the same seed do the same.
    #[must_use]
    pub fn new(now_ms: u64, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let found_right = FoundRight::default();
        let server = Server::new(Chance::new(chance.draw_number()), found_right.clone());
        Self {
            now_ms,
            chance,
            found_right,
            due: VecDeque::new(),
            devices: Vec::new(),
            tabs: BTreeMap::new(),
            last_tab: 0,
            server,
            conns: BTreeMap::new(),
            last_conn: 0,
            told: VecDeque::new(),
        }
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Thirty-two random bytes, which the seed repeats.
    pub fn draw(&mut self) -> [u8; 32] {
        self.chance.draw()
    }

    // --- devices and tabs ----------------------------------------------------------------------

    /// Makes a device with an empty store, which reaches the server.
    pub fn add_device(&mut self) -> DeviceId {
        self.devices.push(Device::new(&mut self.chance));
        DeviceId(self.devices.len() - 1)
    }

    /// A tab asks for the core of its device, which starts with the first one.
    pub fn connect(&mut self, device: DeviceId) -> TabId {
        let here = &mut self.devices[device.0];
        if !here.has_core() {
            let input = here.start_core(&mut self.chance, self.found_right.clone());
            self.tell_core(device, input);
        }
        self.last_tab += 1;
        let tab = TabId(self.last_tab);
        self.devices[device.0].tabs.insert(tab);
        self.tabs.insert(tab, device);
        tab
    }

    /// A tab is closed. With the last one its core ends, at once: whatever was not durable is lost.
    pub fn leave(&mut self, tab: TabId) {
        let Some(device) = self.tabs.remove(&tab) else { return };
        self.told.retain(|(to, _)| *to != tab);
        self.tell_core(device, Input::TabClosed { tab });
        let here = &mut self.devices[device.0];
        here.tabs.remove(&tab);
        if here.tabs.is_empty() {
            for conn in here.end_core() {
                self.hang_up(conn);
            }
        }
    }

    /// A tab says something to its core. What a tab says that has left is lost.
    pub fn hear(&mut self, tab: TabId, messages: Vec<ToCore>) {
        if let Some(device) = self.tabs.get(&tab) {
            self.tell_core(*device, Input::FromTab { tab, messages });
        }
    }

    /// What a tab is told next.
    pub fn take_told(&mut self) -> Option<(TabId, Vec<FromCore>)> {
        self.told.pop_front()
    }

    // --- the net and the server ----------------------------------------------------------------

    /// Cuts a device off, or lets it reach the server again. What is on its way then is lost.
    pub fn set_online(&mut self, device: DeviceId, is_online: bool) {
        let here = &mut self.devices[device.0];
        here.is_online = is_online;
        if is_online {
            return;
        }
        for (socket, conn) in std::mem::take(&mut here.sockets) {
            self.hang_up(conn);
            self.tell_core(device, Input::SocketClosed { socket });
        }
    }

    /// Deletes a document on the server, as an operator does. Says whether there was one.
    ///
    /// # Panics
    ///
    /// Where the store in memory fails.
    pub fn delete(&mut self, document: &DocumentKey) -> bool {
        let answer = self.server.delete(document);
        self.carry_from_server();
        match answer {
            Answer::Destroyed => true,
            Answer::Missing => false,
            other => panic!("BUG: a document in memory cannot be deleted: {other:?}"),
        }
    }

    fn open_socket(&mut self, device: DeviceId, socket: SocketId, url: &str) {
        let here = &mut self.devices[device.0];
        if !here.is_online || !url.starts_with(ADDRESS) {
            return self.tell_core(device, Input::SocketClosed { socket });
        }
        self.last_conn += 1;
        let conn = ConnId(self.last_conn);
        here.sockets.insert(socket, conn);
        self.conns.insert(conn, Conn { device, socket });
        self.tell_core(device, Input::SocketOpened { socket });
    }

    /// The device knows: the server is told.
    fn hang_up(&mut self, conn: ConnId) {
        if self.conns.remove(&conn).is_some() {
            self.due.push_back(Event::Left { conn });
        }
    }

    fn carry_from_server(&mut self) {
        for (conn, message) in std::mem::take(&mut self.server.told) {
            let Some(&Conn { device, socket }) = self.conns.get(&conn) else { continue };
            self.tell_core(device, Input::FromServer { socket, bytes: encode_message(&message) });
        }
        for conn in std::mem::take(&mut self.server.closed) {
            let Some(&Conn { device, socket }) = self.conns.get(&conn) else { continue };
            self.devices[device.0].sockets.remove(&socket);
            self.hang_up(conn);
            self.tell_core(device, Input::SocketClosed { socket });
        }
    }

    // --- time ----------------------------------------------------------------------------------

    /// Does all that is due now.
    ///
    /// # Panics
    ///
    /// Where that has no end.
    pub fn run(&mut self) {
        for _ in 0..EVENTS_AT_ONCE_MAX {
            if let Some(event) = self.due.pop_front() {
                self.happen(event);
            } else if let Some(device) = self.next_awake() {
                self.devices[device.0].wake_at_ms = None;
                self.tell_core(device, Input::Wake);
            } else if self.server.due_at_ms().is_some_and(|at| at <= self.now_ms) {
                self.server.pass(self.now_ms);
                self.carry_from_server();
            } else {
                return;
            }
        }
        panic!("BUG: something goes on and on, and no time passes");
    }

    fn next_awake(&self) -> Option<DeviceId> {
        let is_due = |device: &Device| device.wake_at_ms.is_some_and(|at| at <= self.now_ms);
        self.devices.iter().position(is_due).map(DeviceId)
    }

    /// When something is due next, milliseconds since the epoch. `None`: never.
    #[must_use]
    pub fn next_at_ms(&self) -> Option<u64> {
        if !self.due.is_empty() {
            return Some(self.now_ms);
        }
        let wakes = self.devices.iter().filter_map(|device| device.wake_at_ms);
        wakes.chain(self.server.due_at_ms()).min().map(|at| at.max(self.now_ms))
    }

    /// Does all that is due in time, and leaves the clock there.
    pub fn pass(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        self.run();
        while let Some(at) = self.next_at_ms().filter(|at| *at <= until) {
            self.now_ms = at;
            self.run();
        }
        self.now_ms = until;
    }

    // --- what happens --------------------------------------------------------------------------

    fn tell_core(&mut self, device: DeviceId, input: Input) {
        let life = self.devices[device.0].life;
        self.due.push_back(Event::ToCore { device, life, input });
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToCore { device, life, input } => {
                let here = &mut self.devices[device.0];
                if here.life == life {
                    for effect in here.step(self.now_ms, input) {
                        self.carry_out(device, effect);
                    }
                }
            }
            Event::ToServer { conn, bytes } => {
                if !self.conns.contains_key(&conn) {
                    return;
                }
                match decode_message::<ToServer>(&bytes) {
                    Ok(message) => self.server.hear(self.now_ms, conn, message),
                    Err(error) => panic!("BUG: a core says what is no message: {error}"),
                }
                self.carry_from_server();
            }
            Event::Left { conn } => {
                self.server.left(conn);
                self.carry_from_server();
            }
        }
    }

    fn carry_out(&mut self, device: DeviceId, effect: Effect) {
        match effect {
            Effect::ToTab { tab, messages } => {
                if self.tabs.contains_key(&tab) {
                    self.told.push_back((tab, messages));
                }
            }
            // Tabs have no way past the core here, so there are no notices.
            Effect::ToPageServer { server, requests, notices: _ } => {
                let here = &mut self.devices[device.0];
                if server == here.page_server_id() {
                    let input = here.serve(requests);
                    self.tell_core(device, input);
                }
            }
            Effect::OpenSocket { socket, url } => self.open_socket(device, socket, &url),
            Effect::ToServer { socket, bytes } => {
                if let Some(&conn) = self.devices[device.0].sockets.get(&socket) {
                    self.due.push_back(Event::ToServer { conn, bytes });
                }
            }
            Effect::CloseSocket { socket } => {
                if let Some(conn) = self.devices[device.0].sockets.remove(&socket) {
                    self.hang_up(conn);
                }
            }
            Effect::WakeAt { at_ms } => self.devices[device.0].wake_at_ms = Some(at_ms),
        }
    }
}
