//! The storage journal's way to those who follow the document.

use tidelog_pages::{StoreRequest, Urgency};
use tidelog_sync::{FollowerStep, FromServer, Origin};
use tidelog_types::{Lsn, LsnRange, PageSet, Position};

use super::guest::{GuestId, Seat, parts};
use super::{Room, RoomEffect, State};

/// Changes that were read for a guest.
pub(super) struct Changes {
    pub(super) guest: GuestId,
    pub(super) since: Lsn,
    pub(super) position: Position,
    pub(super) set: PageSet,
}

impl Room {
    pub(super) fn on_received(&mut self, seat: Seat, next: Lsn) {
        let State::Open(document) = &self.state else { return };
        let durable = document.durable.next;
        let Some(id) = self.guest_at(seat) else { return };
        let Some(guest) = self.guests.get_mut(&id) else { return };
        guest.on_received(next);
        let step = guest.next_step(durable);
        self.follow_up(id, step);
    }

    pub(super) fn begin_following(
        &mut self,
        id: GuestId,
        storage: Position,
        wanted: Lsn,
        from: Lsn,
    ) {
        let State::Open(document) = &self.state else { return };
        let durable = document.durable.next;
        let Some(guest) = self.guests.get_mut(&id) else { return };
        let channel = guest.seat.channel;
        guest.follow(from);
        let step = guest.next_step(durable);
        self.tell(id, FromServer::Opened { channel, storage, wanted });
        self.follow_up(id, step);
    }

    pub(super) fn broadcast(
        &mut self,
        range: LsnRange,
        position: Position,
        set: &PageSet,
        origin: Option<Origin>,
    ) {
        let ids: Vec<GuestId> = self.guests.keys().copied().collect();
        for id in ids {
            let Some(guest) = self.guests.get_mut(&id) else { continue };
            match guest.on_entry(range, set.pages.len()) {
                FollowerStep::SendEntry => self.send_entry(id, range, position, set, origin),
                step => self.follow_up(id, step),
            }
        }
    }

    pub(super) fn send_entry(
        &mut self,
        id: GuestId,
        range: LsnRange,
        position: Position,
        set: &PageSet,
        origin: Option<Origin>,
    ) {
        let Some(guest) = self.guests.get(&id) else { return };
        let Seat { conn, channel } = guest.seat;
        self.effects.extend(
            parts(range, position, set, origin).into_iter().map(|part| RoomEffect::Send {
                conn,
                message: FromServer::Entry { channel, part },
            }),
        );
    }

    pub(super) fn follow_up(&mut self, id: GuestId, step: FollowerStep) {
        let FollowerStep::CatchUp(since) = step else { return };
        // What was appended must be there before it is read.
        if let Some(request) = self.outbox.commit() {
            self.effects.push(RoomEffect::Store(request));
        }
        let request = self.next_request();
        self.catch_ups.insert(request, (id, since));
        self.ask_for_changes(request, since);
    }

    pub(super) fn ask_for_changes(&mut self, request: u64, since: Lsn) {
        self.effects.push(RoomEffect::Store(StoreRequest::Changes {
            request,
            urgency: Urgency::Background,
            document: self.document.clone(),
            since,
        }));
    }

    /// Sends those changes whose position is durable by now.
    pub(super) fn release_held(&mut self) {
        let State::Open(document) = &self.state else { return };
        let durable = document.durable;
        let held = std::mem::take(&mut self.held);
        for changes in held {
            if changes.position.journal != durable.journal {
                continue;
            }
            if changes.position.next > durable.next {
                self.held.push(changes);
                continue;
            }
            let Changes { guest: id, since, position, set } = changes;
            let end = position.next.max(since);
            if since < end {
                self.send_entry(id, LsnRange::new(since, end), position, &set, None);
            }
            let Some(guest) = self.guests.get_mut(&id) else { continue };
            guest.caught_up(end, set.pages.len());
            let step = guest.next_step(durable.next);
            self.follow_up(id, step);
        }
    }
}
