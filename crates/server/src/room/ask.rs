//! What somebody who is no client wants of a document.

use tidelog_sync::{FromServer, Refusal};

use super::guest::Seat;
use super::outbox::After;
use super::{Answer, Ask, Halt, Room, RoomEffect, Service, State};

impl Room {
    pub(super) fn answer(&mut self, request: u64, ask: Ask) -> Result<(), Halt> {
        let guests_count = self.guests.len();
        let is_damaged = self.settings.is_damaged;
        let State::Open(document) = &mut self.state else {
            let reason = "the store is damaged, and this document is not among what is left of it";
            let answer = match is_damaged {
                true => Answer::Failed { reason: reason.to_owned() },
                false => Answer::Missing,
            };
            self.effects.push(RoomEffect::Answer { request, answer });
            return Ok(());
        };
        match ask {
            Ask::Describe => {
                let answer = Answer::Description {
                    position: document.durable,
                    db_pages: document.authority.view().base_db_pages(),
                    guests_count,
                    doctype: document
                        .record
                        .newest()
                        .map_or_else(String::new, |it| it.name.clone()),
                    service: match (document.is_incomplete, is_damaged) {
                        (true, _) => Service::None,
                        (false, true) => Service::ReadOnly,
                        (false, false) => Service::Full,
                    },
                };
                self.effects.push(RoomEffect::Answer { request, answer });
            }
            Ask::Export => {
                let file = document.whole_image()?;
                // Nothing leaves that could still be lost.
                self.outbox.after(After::Answer(request, Answer::File(file)));
            }
            Ask::Destroy => self.destroy(request),
        }
        Ok(())
    }

    pub(super) fn destroy(&mut self, request: u64) {
        self.commit();
        for guest in std::mem::take(&mut self.guests).into_values() {
            let Seat { conn, channel } = guest.seat;
            let message = FromServer::Refused { channel, refusal: Refusal::Missing };
            self.outbox.after(After::TellConn(conn, message));
        }
        self.outbox.after(After::Answer(request, Answer::Destroyed));
        self.effects.push(RoomEffect::Store(self.outbox.destroy()));
        self.state = State::Absent;
    }
}
