//! The storage journal's way to those who follow the document.

use tidelog_pages::{StoreRequest, Urgency};
use tidelog_sync::{EntryPart, FollowerStep, FromServer, Origin};
use tidelog_types::limits::MESSAGE_PAGES_MAX;
use tidelog_types::{JournalId, Lsn, LsnRange, Page, PageSet, Pgid, Position};

use super::guest::{GuestId, Seat, parts};
use super::{Room, RoomEffect, State};

/// What a guest lacks, on its way from the store to the guest, a part at a time.
pub(super) struct CatchUp {
    guest: GuestId,
    /// The storage journal that the guest holds, and its next LSN.
    journal: JournalId,
    since: Lsn,
    /// Where the storage journal stood when the store was asked; `None` before its first answer.
    position: Option<Position>,
    db_pages: u32,
    /// Pages that came and were not sent yet.
    pages: Vec<(Pgid, Page)>,
    pages_sent: usize,
    /// Whether all have come.
    is_whole: bool,
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
        let (FollowerStep::CatchUp(since), State::Open(document)) = (step, &self.state) else {
            return;
        };
        let journal = document.authority.position().journal;
        // What was appended must be there before it is read.
        if let Some(request) = self.outbox.commit() {
            self.effects.push(RoomEffect::Store(request));
        }
        let request = self.next_request();
        self.catch_ups.insert(request, CatchUp::new(id, journal, since));
        self.ask_for_catch_up(request);
    }

    pub(super) fn ask_for_catch_up(&mut self, request: u64) {
        let Some(CatchUp { journal, since, .. }) = self.catch_ups.get(&request) else { return };
        self.effects.push(RoomEffect::Store(StoreRequest::SyncPrepare {
            request,
            urgency: Urgency::Background,
            document: self.document.clone(),
            journal: *journal,
            since: *since,
        }));
    }

    /// The store has read a part of what a guest lacks.
    pub(super) fn on_sync_part(
        &mut self,
        request: u64,
        position: Position,
        db_pages: u32,
        mut pages: Vec<(Pgid, Page)>,
        last: bool,
    ) {
        let Some(catch_up) = self.catch_ups.get_mut(&request) else { return };
        catch_up.position = Some(position);
        catch_up.db_pages = db_pages;
        catch_up.pages.append(&mut pages);
        catch_up.is_whole = last;
        self.send_catch_ups();
    }

    /// Sends of what guests lack what has come from the store, if it is durable by now.
    pub(super) fn send_catch_ups(&mut self) {
        let State::Open(document) = &self.state else { return };
        let durable = document.durable;
        let requests: Vec<u64> = self.catch_ups.keys().copied().collect();
        for request in requests {
            let Some(catch_up) = self.catch_ups.get_mut(&request) else { continue };
            let Some(guest) = self.guests.get_mut(&catch_up.guest) else {
                self.catch_ups.remove(&request);
                continue;
            };
            let is_durable = |position: &Position| {
                position.journal == durable.journal && position.next <= durable.next
            };
            let Some(position) = catch_up.position.filter(is_durable) else { continue };
            let Seat { conn, channel } = guest.seat;
            self.effects.extend(catch_up.take_parts(position).into_iter().map(|part| {
                RoomEffect::Send { conn, message: FromServer::Entry { channel, part } }
            }));
            if catch_up.is_whole {
                let id = catch_up.guest;
                guest.caught_up(position.next.max(catch_up.since), catch_up.pages_sent);
                let step = guest.next_step(durable.next);
                self.catch_ups.remove(&request);
                self.follow_up(id, step);
            }
        }
    }
}

impl CatchUp {
    fn new(guest: GuestId, journal: JournalId, since: Lsn) -> Self {
        Self {
            guest,
            journal,
            since,
            position: None,
            db_pages: 0,
            pages: Vec::new(),
            pages_sent: 0,
            is_whole: false,
        }
    }

    /// The parts of the entry that fill a message, and at the end what is left.
    fn take_parts(&mut self, position: Position) -> Vec<EntryPart> {
        let mut parts = Vec::new();
        if position.next <= self.since {
            return parts;
        }
        let (range, db_pages) = (LsnRange::new(self.since, position.next), self.db_pages);
        while self.pages.len() > MESSAGE_PAGES_MAX || self.is_whole {
            let count = self.pages.len().min(MESSAGE_PAGES_MAX);
            let pages: Vec<_> = self.pages.drain(..count).collect();
            self.pages_sent += count;
            let last = self.is_whole && self.pages.is_empty();
            parts.push(EntryPart { range, position, db_pages, origin: None, pages, last });
            if last {
                break;
            }
        }
        parts
    }
}
