//! The net between the devices and the servers.

use tidelog_client::{Input, SocketId};
use tidelog_room::ConnId;
use tidelog_sync::{
    ByeReason, FromRoom, FromServer, Intent, ToRoom, ToServer, decode_message, encode_message,
};

use super::event::{Event, Wire};
use super::{World, short};
use crate::docs::url;

/// One WebSocket.
pub(super) struct Conn {
    pub(super) device: usize,
    pub(super) life: u64,
    pub(super) socket: SocketId,
    pub(super) host: usize,
    host_life: u64,
    /// What is sent up or down is lost, and nobody is told.
    pub(super) silent_up: bool,
    pub(super) silent_down: bool,
    /// Milliseconds after which the client reads what has come.
    pub(super) read_after_ms: u64,
    /// How often its server has said that it has taken pages of a document.
    parts_taken: u32,
}

/// A device whose connections fall silent once it has sent so many messages with frames, or with
/// pages of a document that it hands over.
pub(super) struct Muted {
    pub(super) device: usize,
    pub(super) frames_left: u32,
}

/// A device whose every connection breaks at the same part of a document that it hands over: when
/// the server has said so often that it has taken pages of it.
pub(super) struct Breaks {
    pub(super) device: usize,
    pub(super) parts: u32,
}

/// The first server refuses a token of this device from when that is first shown to it, and no
/// other one.
pub(super) struct Expired {
    pub(super) device: usize,
    pub(super) token: Option<String>,
}

impl World {
    pub(super) fn open_socket(&mut self, device: usize, socket: SocketId, address: &str) {
        let life = self.devices[device].life;
        let host = (0..self.hosts.len()).find(|host| address.starts_with(&url(*host)));
        let host = host.expect("BUG: no such server");
        let is_cut_off = self.cut_off.contains(&device);
        if is_cut_off || !self.hosts[host].is_up() || (self.faults && self.rng.once_in(5)) {
            return self.schedule(20, Event::SocketDown { device, life, socket });
        }
        self.last_conn += 1;
        let conn = self.last_conn;
        let here = Conn {
            device,
            life,
            socket,
            host,
            host_life: self.hosts[host].life,
            silent_up: false,
            silent_down: false,
            read_after_ms: 0,
            parts_taken: 0,
        };
        self.conns.insert(conn, here);
        self.devices[device].sockets.insert(socket, conn);
        let delay = self.rng.below(60);
        self.schedule(delay, Event::SocketUp { conn });
    }

    pub(super) fn socket_up(&mut self, conn: u64) {
        let Some(up) = self.conns.get(&conn) else { return };
        let (device, life, socket) = (up.device, up.life, up.socket);
        if self.devices[device].life == life {
            self.step_core(device, Input::SocketOpened { socket });
        }
    }

    /// How often a message arrives: over the net it may come twice. What makes a document does not,
    /// since no connection brings a message twice, and nobody repeats that one on another.
    fn times(&mut self) -> u32 {
        if self.faults && self.rng.once_in(20) { 2 } else { 1 }
    }

    pub(super) fn send_up(&mut self, conn: u64, bytes: &[u8]) {
        self.mute(conn, bytes);
        if self.conns.get(&conn).is_none_or(|conn| conn.silent_up) {
            return;
        }
        self.net_size += bytes.len() as u64;
        for _ in 0..if makes_document(bytes) { 1 } else { self.times() } {
            let event = Event::ToServer { conn, bytes: bytes.to_vec() };
            self.carry(Wire::ToServer(conn), self.swarm.net_ms_max, event);
        }
    }

    fn mute(&mut self, conn: u64, bytes: &[u8]) {
        let (Some(muted), Some(up)) = (&mut self.muted, self.conns.get_mut(&conn)) else { return };
        if up.device == muted.device && has_frames(bytes) {
            up.silent_up |= muted.frames_left == 0;
            muted.frames_left = muted.frames_left.saturating_sub(1);
        }
    }

    pub(super) fn send_down(
        &mut self,
        host: usize,
        sent: Vec<(ConnId, FromServer)>,
        closed: Vec<ConnId>,
    ) {
        for (ConnId(conn), message) in sent {
            let Some(to) = self.conns.get(&conn) else { continue };
            if to.silent_down || to.host_life != self.hosts[host].life {
                continue;
            }
            let slow = to.read_after_ms;
            let bytes = encode_message(&message);
            self.net_messages += u64::from(!matches!(message, FromServer::Pong));
            self.net_size += bytes.len() as u64;
            let is_seed = matches!(message, FromServer::About { body: FromRoom::SeedWanted, .. });
            for _ in 0..if is_seed { 1 } else { self.times() } {
                let delay = slow + self.rng.below(self.swarm.net_ms_max + 1);
                let event = Event::FromServer { conn, bytes: bytes.clone() };
                self.carry_in(Wire::FromServer(conn), delay, event);
            }
        }
        for ConnId(conn) in closed {
            self.cut(conn);
        }
    }

    pub(super) fn cut(&mut self, conn: u64) {
        let Some(cut) = self.conns.remove(&conn) else { return };
        let Conn { device, life, socket, host, .. } = cut;
        self.devices[device].sockets.remove(&socket);
        self.schedule(1, Event::SocketDown { device, life, socket });
        self.schedule(1, Event::HostLeft { host, conn });
    }

    /// A device closes a connection, or is gone.
    pub(super) fn hang_up(&mut self, conn: u64) {
        if let Some(Conn { host, .. }) = self.conns.remove(&conn) {
            self.schedule(1, Event::HostLeft { host, conn });
        }
    }

    pub(super) fn cut_sockets(&mut self, device: usize) {
        for conn in std::mem::take(&mut self.devices[device].sockets).into_values() {
            self.hang_up(conn);
        }
    }

    pub(super) fn host_hears(&mut self, conn: u64, bytes: &[u8]) {
        let Some(from) = self.conns.get(&conn).filter(|from| !from.silent_up) else { return };
        let host = from.host;
        if from.host_life != self.hosts[host].life {
            return;
        }
        let Ok(message) = decode_message::<ToServer>(bytes) else {
            return self.note(&format!("connection {conn}: not a message"));
        };
        self.net_messages += u64::from(!matches!(message, ToServer::Ping));
        self.note_bytes(bytes);
        self.tell(|| format!("server {host} hears {conn} {}", short(&message)));
        if let Some(bye) = self.says_instead_of_welcome(conn, &message) {
            self.device_hears(conn, bye);
            return self.cut(conn);
        }
        let now_ms = self.token_clock();
        self.hosts[host].guard.iter_mut().for_each(|guard| guard.now_ms = now_ms);
        let done = self.hosts[host].hear(ConnId(conn), message);
        self.host_did(host, done);
    }

    /// What a server says to one whom it does not let in.
    fn says_instead_of_welcome(&mut self, conn: u64, message: &ToServer) -> Option<Vec<u8>> {
        let (ToServer::Hello { token, .. }, Some(from)) = (message, self.conns.get(&conn)) else {
            return None;
        };
        if let Some(bye) = self.barred.get(&from.host) {
            return Some(bye.clone());
        }
        let is_its = |it: &&mut Expired| it.device == from.device && from.host == 0;
        let expired = self.expired.as_mut().filter(is_its)?;
        let token = token.as_ref()?;
        let refused = expired.token.get_or_insert_with(|| token.clone());
        let reason = ByeReason::Unauthenticated;
        (refused == token).then(|| encode_message(&FromServer::Bye { reason }))
    }

    pub(super) fn device_hears(&mut self, conn: u64, bytes: Vec<u8>) {
        let Some(to) = self.conns.get(&conn).filter(|to| !to.silent_down) else { return };
        let (device, socket, life) = (to.device, to.socket, to.life);
        if self.devices[device].life != life {
            return;
        }
        self.note_bytes(&bytes);
        self.tell(|| {
            let message = decode_message::<FromServer>(&bytes);
            format!("{device} hears {:?}", message.map(|message| short(&message)))
        });
        let breaks = self.breaks_at(conn, &bytes);
        self.access.is_told(device, &bytes);
        self.step_core(device, Input::FromServer { socket, bytes });
        if breaks {
            self.cut(conn);
        }
    }

    fn breaks_at(&mut self, conn: u64, bytes: &[u8]) -> bool {
        let (Some(breaks), Some(to)) = (&self.breaks, self.conns.get_mut(&conn)) else {
            return false;
        };
        to.parts_taken += u32::from(takes_pages(bytes));
        breaks.device == to.device && breaks.parts <= to.parts_taken
    }
}

/// Whether it brings frames of a timeline, or pages of a document.
fn has_frames(bytes: &[u8]) -> bool {
    let Ok(ToServer::About { body, .. }) = decode_message(bytes) else { return false };
    matches!(body, ToRoom::Frames { .. } | ToRoom::Seed { .. })
}

/// Whether a server says that it has taken pages of a document.
fn takes_pages(bytes: &[u8]) -> bool {
    let message = decode_message(bytes);
    matches!(message, Ok(FromServer::About { body: FromRoom::SeedTaken { .. }, .. }))
}

/// Whether it offers a local document, or hands one over.
fn makes_document(bytes: &[u8]) -> bool {
    match decode_message(bytes) {
        Ok(ToServer::About { body: ToRoom::Open { intent, .. }, .. }) => intent != Intent::Follow,
        Ok(ToServer::About { body: ToRoom::Seed { .. }, .. }) => true,
        _ => false,
    }
}
