//! The server: rooms over one page server over one disk.

use std::collections::BTreeMap;

use tidelog_disk::{CrashDevice, CrashDisk};
use tidelog_pages::{OwnerId, PageServer, StoreReply};
use tidelog_server::{Answer, Ask, ConnId, Room, RoomEffect, RoomInput, RoomSettings};
use tidelog_sync::{FromServer, ToServer};
use tidelog_types::DocumentKey;

use crate::device::{Sizes, crash, open_store};
use crate::rng::Rng;
use crate::tab::DOCUMENT;

pub(crate) struct Host {
    pub(crate) disk: CrashDevice,
    /// Counts up whenever the process is started.
    pub(crate) life: u64,
    running: Option<Running>,
    sizes: Sizes,
}

struct Running {
    page_server: PageServer<CrashDisk>,
    room: Room,
    owner: OwnerId,
    /// Connections that have said hello.
    greeted: BTreeMap<ConnId, ()>,
}

/// What the server did in one step.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) sent: Vec<(ConnId, FromServer)>,
    pub(crate) closed: Vec<ConnId>,
    pub(crate) exported: Option<Vec<u8>>,
    /// Whether a flush is under way that was not before.
    pub(crate) flushes: bool,
}

impl Host {
    pub(crate) fn new(sizes: Sizes) -> Self {
        let disk = CrashDevice::new();
        disk.hold_flushes(true);
        Self { disk, life: 0, running: None, sizes }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn start(&mut self, rng: &mut Rng) -> Result<(), String> {
        self.life += 1;
        let key = DocumentKey::new(DOCUMENT, "").map_err(|error| error.to_string())?;
        self.running = Some(Running {
            page_server: open_store(&self.disk, self.sizes)?,
            room: Room::new(key, RoomSettings { dev: true, ..RoomSettings::default() }, rng.seed()),
            owner: OwnerId(self.life),
            greeted: BTreeMap::new(),
        });
        Ok(())
    }

    pub(crate) fn cut_power(&mut self, rng: &mut Rng) {
        self.running = None;
        self.life += 1;
        self.disk = crash(&self.disk, rng);
    }

    pub(crate) fn left(&mut self, conn: ConnId) -> Done {
        let Some(running) = &mut self.running else { return Done::default() };
        running.greeted.remove(&conn);
        let effects = running.room.step(RoomInput::Left { conn });
        self.carry_out(effects)
    }

    pub(crate) fn hear(&mut self, conn: ConnId, message: ToServer) -> Done {
        let Some(running) = &mut self.running else { return Done::default() };
        match message {
            ToServer::Hello { .. } => {
                running.greeted.insert(conn, ());
                Done { sent: vec![(conn, FromServer::Welcome)], ..Done::default() }
            }
            ToServer::Ping => Done { sent: vec![(conn, FromServer::Pong)], ..Done::default() },
            message if running.greeted.contains_key(&conn) => {
                let effects = running.room.step(RoomInput::Message { conn, message });
                self.carry_out(effects)
            }
            _ => Done { closed: vec![conn], ..Done::default() },
        }
    }

    pub(crate) fn export(&mut self) -> Done {
        let Some(running) = &mut self.running else { return Done::default() };
        let effects = running.room.step(RoomInput::Ask { request: 1, ask: Ask::Export });
        self.carry_out(effects)
    }

    pub(crate) fn flushed(&mut self) -> Done {
        self.disk.complete_flushes();
        self.carry_out(Vec::new())
    }

    fn carry_out(&mut self, effects: Vec<RoomEffect>) -> Done {
        let mut done = Done::default();
        let Some(running) = &mut self.running else { return done };
        let mut effects = effects;
        loop {
            for effect in std::mem::take(&mut effects) {
                match effect {
                    RoomEffect::Send { conn, message } => done.sent.push((conn, message)),
                    RoomEffect::Store(request) => {
                        running.page_server.serve(running.owner, request);
                    }
                    RoomEffect::Answer { answer: Answer::File(file), .. } => {
                        done.exported = Some(file);
                    }
                    RoomEffect::Answer { .. } => {}
                    RoomEffect::Disconnect { conn } => done.closed.push(conn),
                }
            }
            running.page_server.flush();
            let replies: Vec<(OwnerId, StoreReply)> = running.page_server.poll();
            if replies.is_empty() && !running.page_server.wants_poll() {
                break;
            }
            for (_, reply) in replies {
                effects.extend(running.room.step(RoomInput::Store(reply)));
            }
        }
        done.flushes = self.disk.has_held_flushes();
        done
    }
}
