//! The net between the devices and the server.

use tidelog_client::{Input, SocketId};
use tidelog_server::ConnId;
use tidelog_sync::{decode_message, encode_message};

use super::{Conn, Event, Wire, World, short};
use crate::host::Done;

impl World {
    pub(super) fn open_socket(&mut self, device: usize, socket: SocketId) {
        let life = self.devices[device].life;
        if !self.host.is_up() || (self.faults && self.rng.once_in(5)) {
            return self.schedule(20, Event::SocketDown { device, life, socket });
        }
        self.last_conn += 1;
        let conn = self.last_conn;
        let host_life = self.host.life;
        self.conns.insert(conn, Conn { device, life, socket, host_life, silent: false });
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

    /// Sends over the net, where a message may come twice.
    pub(super) fn carry_far(
        &mut self,
        conn: u64,
        wire: Wire,
        bytes: &[u8],
        event: impl Fn(Vec<u8>) -> Event,
    ) {
        if self.conns.get(&conn).is_none_or(|conn| conn.silent) {
            return;
        }
        let times = if self.faults && self.rng.once_in(20) { 2 } else { 1 };
        for _ in 0..times {
            self.carry(wire, self.net_ms_max, event(bytes.to_vec()));
        }
    }

    pub(super) fn cut(&mut self, conn: u64) {
        let Some(cut) = self.conns.remove(&conn) else { return };
        self.devices[cut.device].sockets.remove(&cut.socket);
        self.schedule(
            1,
            Event::SocketDown { device: cut.device, life: cut.life, socket: cut.socket },
        );
        self.schedule(1, Event::HostLeft { conn });
    }

    pub(super) fn cut_sockets(&mut self, device: usize) {
        for (_, conn) in std::mem::take(&mut self.devices[device].sockets) {
            self.conns.remove(&conn);
            self.schedule(1, Event::HostLeft { conn });
        }
    }

    pub(super) fn host_hears(&mut self, conn: u64, bytes: &[u8]) {
        let Some(from) = self.conns.get(&conn).filter(|from| !from.silent) else { return };
        if from.host_life != self.host.life {
            return;
        }
        let Ok(message) = decode_message(bytes) else {
            return self.note(&format!("connection {conn}: not a message"));
        };
        self.note(&short(&format!("server hears {conn} {message:?}")));
        let done = self.host.hear(ConnId(conn), message);
        self.host_did(done);
    }

    pub(super) fn host_did(&mut self, done: Done) {
        for (ConnId(conn), message) in done.sent {
            let bytes = encode_message(&message);
            self.carry_far(conn, Wire::FromServer(conn), &bytes, |bytes| Event::FromServer {
                conn,
                bytes,
            });
        }
        for ConnId(conn) in done.closed {
            self.cut(conn);
        }
        if done.flushes {
            let delay = self.flush_ms();
            let life = self.host.life;
            self.schedule(delay, Event::HostFlushed { life });
        }
    }
}
