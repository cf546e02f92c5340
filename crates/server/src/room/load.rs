//! What the store says, and how a room gets at its document and lets go of it.

use std::collections::VecDeque;

use tidelog_pages::{AppendError, OpenedDocument, StoreReply};
use tidelog_sqlite::View;
use tidelog_sync::{FromServer, Refusal};
use tidelog_types::limits::POOL_PAGES_MAX;
use tidelog_types::{Page, Pgid};

use super::document::Document;
use super::guest::Seat;
use super::record::RoomRecord;
use super::{Answer, Fetch, Room, RoomEffect, State, Work};

impl Room {
    pub(super) fn on_store(&mut self, reply: StoreReply) {
        match reply {
            StoreReply::Opened { state, .. } => self.on_opened(state),
            StoreReply::Durable { ticket } => {
                self.settles_at = self.settles_at.filter(|last| *last > ticket);
                self.outbox.on_durable(ticket);
                self.commit();
            }
            StoreReply::AppendFailed { ticket, error } => {
                self.settings.is_damaged |= error == AppendError::Damaged;
                if self.outbox.waits_for(ticket) {
                    self.settles_at = self.outbox.last_before(ticket);
                    self.poison(&error.to_string());
                }
                self.settles_at = self.settles_at.filter(|last| *last != ticket);
            }
            StoreReply::Broken { error } => {
                self.settles_at = None;
                self.poison(&error.to_string());
            }
            StoreReply::Pages { request, pages, last, .. } => {
                self.on_pages(request, pages, last);
                if last {
                    self.ask_again();
                }
            }
            StoreReply::SyncPart { request, position, db_pages, pages, last, .. } => {
                self.on_sync_part(request, position, db_pages, pages, last);
                if last {
                    self.ask_again();
                }
            }
            // The document is another by now: those who followed the one before were let go.
            StoreReply::Unrelated { request, .. } => {
                self.catch_ups.remove(&request);
            }
            StoreReply::Busy { request, .. } => {
                self.refused.insert(request);
            }
            StoreReply::Ready { .. }
            | StoreReply::Entries { .. }
            | StoreReply::Frames { .. }
            | StoreReply::Trimmed { .. }
            | StoreReply::Documents { .. } => {}
        }
    }

    pub(super) fn on_opened(&mut self, opened: Option<Box<OpenedDocument>>) {
        if !matches!(self.state, State::Opening) {
            return;
        }
        let Some(opened) = opened else {
            self.state = State::Absent;
            return;
        };
        let Some(position) = opened.storage else {
            self.state = State::Absent;
            return;
        };
        let record = match RoomRecord::decode(&opened.record) {
            Ok(record) => record,
            Err(_) if opened.is_incomplete => RoomRecord::default(),
            Err(_) => {
                return self.poison(
                    "the document was written by a release of the server that this one cannot \
                     read: run the newer one; nothing was touched",
                );
            }
        };
        let view = View::new(POOL_PAGES_MAX, opened.db_pages);
        view.fill(opened.first_page.map(|page| (Pgid(1), page)).into_iter().collect());
        let mut document = Document::new(view, position, record, position);
        document.is_incomplete = opened.is_incomplete;
        self.settings.is_damaged |= opened.is_incomplete;
        self.state = State::Open(Box::new(document));
    }

    pub(super) fn on_pages(&mut self, request: u64, mut pages: Vec<(Pgid, Page)>, last: bool) {
        let Some(fetch) = &mut self.fetch else { return };
        if fetch.request != request {
            return;
        }
        fetch.pages.append(&mut pages);
        if !last {
            return;
        }
        let Some(Fetch { pages, asked, .. }) = self.fetch.take() else { return };
        let State::Open(document) = &self.state else { return };
        let view = document.authority.view();
        view.fill(pages);
        // Running again would ask for it again, for ever.
        let absent = asked.into_iter().find(|pgid| view.base_page(*pgid).is_none());
        if let Some(absent) = absent {
            self.settles_at = self.outbox.last_in_flight();
            self.poison(&format!("page {absent} is not in the store"));
        }
    }

    /// The store has answered a read, so it may take in those that it had no room for.
    fn ask_again(&mut self) {
        for request in std::mem::take(&mut self.refused) {
            if self.catch_ups.contains_key(&request) {
                self.ask_for_catch_up(request);
            } else if self.fetch.as_ref().is_some_and(|fetch| fetch.request == request) {
                self.ask_for_pages();
            }
        }
    }

    /// The state here is not what is on the disk: everybody is told, and the next message opens
    /// the document anew.
    pub(super) fn poison(&mut self, reason: &str) {
        let mut seats: Vec<Seat> =
            std::mem::take(&mut self.guests).into_values().map(|guest| guest.seat).collect();
        let mut requests = self.outbox.reset();
        let mut left = VecDeque::new();
        for work in std::mem::take(&mut self.queue) {
            match work {
                Work::Open(seat, _) => seats.push(seat),
                Work::Ask(request, _) => requests.push(request),
                Work::Left(conn) => left.push_back(Work::Left(conn)),
                Work::Frames { .. } | Work::Seed { .. } | Work::Probe(..) | Work::Close(_) => {}
            }
        }
        let refusal = Refusal::Storage { reason: reason.to_owned() };
        for Seat { conn, channel } in seats {
            let message = FromServer::Refused { channel, refusal: refusal.clone() };
            self.effects.push(RoomEffect::Send { conn, message });
        }
        for request in requests {
            let answer = Answer::Failed { reason: reason.to_owned() };
            self.effects.push(RoomEffect::Answer { request, answer });
        }
        self.queue = left;
        self.fetch = None;
        self.faults_count = 0;
        self.catch_ups.clear();
        self.state = State::Closed;
    }
}
