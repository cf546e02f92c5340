//! What somebody who is no client wants of a document.

use tidelog_sync::{Channel, FromRoom, Intent, Refusal};
use tidelog_types::{CopySecret, JournalId, Lineage, Lsn};

use super::outbox::After;
use super::subscriber::{ChannelId, OpenRequest};
use super::{Answer, Ask, May, Room, RoomEffect, Service, State};

impl Room {
    pub(super) fn answer(&mut self, request: u64, ask: Ask) {
        let subscribers_count = self.subscribers.len();
        let is_damaged = self.settings.is_damaged;
        let State::Open(document) = &mut self.state else {
            let reason = "the store is damaged, and this document is not among what is left of it";
            let answer = match is_damaged {
                true => Answer::Failed { reason: reason.to_owned() },
                false => Answer::Missing,
            };
            // That it is gone may not be durable yet.
            self.outbox.after(After::Answer(request, answer));
            return;
        };
        match ask {
            Ask::Describe => {
                let answer = Answer::Description {
                    position: document.durable,
                    db_pages: document.authority.view().base_db_pages(),
                    subscribers_count,
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
            Ask::Export { conn } => {
                let storage = document.authority.position();
                let (from, wanted, lives) = (Lsn::FIRST, Lsn::FIRST, Lineage::default());
                let (timeline, intent, may) = (JournalId::NONE, Intent::Follow, May::Follow);
                let (doctype, secret, have) = (Vec::new(), CopySecret::NONE, None);
                let open = OpenRequest { doctype, timeline, secret, have, intent, may };
                let subscriber = self.subscribe(ChannelId { conn, channel: Channel(0) }, &open);
                let answer = Answer::Exporting;
                self.effects.push(RoomEffect::Answer { request, answer });
                // Nothing leaves that could still be lost.
                let opened = FromRoom::Opened { storage, from, wanted, lives };
                self.outbox.after(After::Follow { subscriber, from, opened });
            }
            Ask::Destroy => self.destroy(request),
        }
    }

    pub(super) fn destroy(&mut self, request: u64) {
        self.commit();
        for channel_id in self.vacate_all() {
            let refused = FromRoom::Refused(Refusal::Missing);
            self.outbox.after(After::TellChannel(channel_id, refused));
        }
        self.outbox.after(After::Answer(request, Answer::Destroyed));
        self.effects.push(RoomEffect::Store(self.outbox.destroy(self.document.clone())));
        self.state = State::Absent;
    }
}
