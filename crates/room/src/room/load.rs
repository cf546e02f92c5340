//! What the store says, and how a room gets at its document and lets go of it.

use std::collections::VecDeque;

use tidelog_pages::{AppendError, OpenedDocument, RequestId, StoreReply};
use tidelog_sqlite::View;
use tidelog_sync::{FromRoom, Refusal};
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{DocumentKey, Life, Page, Pgid};

use super::document::Document;
use super::follow::Chunk;
use super::outbox::Lost;
use super::record::RoomRecord;
use super::refusal::brief;
use super::{Answer, Ask, Fetch, Room, RoomEffect, State, Work};

impl Room {
    pub(super) fn on_store(&mut self, reply: StoreReply) {
        let has_room = reply.ends_a_read();
        match reply {
            StoreReply::Opened { document, life, state } => {
                if document == self.document {
                    self.on_opened(life, state);
                }
            }
            StoreReply::Durable { ticket } => {
                self.outbox.on_durable(ticket);
                self.commit();
            }
            StoreReply::AppendFailed { ticket, error } => {
                self.settings.is_damaged |= error == AppendError::Damaged;
                if let Some(staging) = self.outbox.on_staging_failed(ticket) {
                    self.refuse_seed(staging.seeding, &error);
                } else if let Some(lost) = self.outbox.on_failed(ticket) {
                    self.poison(&error.to_string(), lost);
                }
            }
            StoreReply::Broken { error } => {
                let lost = self.outbox.reset();
                self.poison(&error.to_string(), lost);
            }
            StoreReply::Pages { request, pages, last, .. } => {
                self.on_pages(request, pages, last);
            }
            StoreReply::SyncPart { request, position, db_pages, pages, next, last, .. } => {
                self.on_sync_part(request, Chunk { position, db_pages, pages, next }, last);
            }
            // The document is another by now: those who followed the one before were let go.
            StoreReply::Unrelated { request, .. } => {
                if let Some(id) = self.reads.remove(&request) {
                    self.stop_catching_up(id);
                }
            }
            StoreReply::Damaged { request, pgids, .. } => {
                self.on_damaged(request, &pgids);
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
        if has_room {
            self.ask_again();
        }
    }

    pub(super) fn on_opened(&mut self, life: Life, opened: Option<Box<OpenedDocument>>) {
        if !matches!(self.state, State::Opening) {
            return;
        }
        self.life = life;
        self.forget_tasks();
        let Some((opened, position)) = opened.and_then(|it| it.storage.map(|at| (it, at))) else {
            self.state = State::Absent;
            self.tell_none_is_due();
            return;
        };
        let record = match RoomRecord::decode(&opened.record) {
            Ok(record) => record,
            Err(_) if opened.is_incomplete => RoomRecord::default(),
            Err(_) => {
                return self.poison(
                    "the document was written by a release of the server that this one cannot \
                     read: run the newer one; nothing was touched",
                    Lost::default(),
                );
            }
        };
        let view = self.new_view(opened.db_pages);
        view.fill(opened.first_page.map(|page| (Pgid(1), page)).into_iter().collect());
        let mut document = Document::new(view, position, record, position, life);
        document.is_incomplete = opened.is_incomplete;
        self.settings.is_damaged |= opened.is_incomplete;
        self.state = State::Open(Box::new(document));
    }

    pub(super) fn on_pages(
        &mut self,
        request: RequestId,
        mut pages: Vec<(Pgid, Page)>,
        last: bool,
    ) {
        let Some(fetch) = &mut self.fetch else { return };
        if fetch.request != request {
            return;
        }
        self.fetched_pages += pages.len();
        fetch.pages.append(&mut pages);
        if !last {
            return;
        }
        let Some(Fetch { work, document, pages, asked, .. }) = self.fetch.take() else { return };
        let absent = self.view_of(&work, &document).and_then(|view| {
            view.fill(pages);
            asked.into_iter().find(|pgid| view.base_page(*pgid).is_none())
        });
        match absent {
            // Running again would ask for it again, for ever.
            Some(absent) => self.give_up(work, &format!("page {absent} is not in the store")),
            None => self.queue.push_front(work),
        }
    }

    /// By which view this work reads this document of the store.
    fn view_of(&self, work: &Work, document: &DocumentKey) -> Option<&View> {
        let (read, view) = self.read_by(work)?;
        (read == *document).then_some(view)
    }

    /// These pages are no longer what was written. Whoever cannot do without them is told, and
    /// everybody else goes on.
    fn on_damaged(&mut self, request: RequestId, pgids: &[Pgid]) {
        if let Some(id) = self.reads.remove(&request) {
            if let Some(channel_id) = self.subscribers.get(&id).map(|it| it.channel_id) {
                self.vacate(channel_id);
                self.effects.push(channel_id.say(FromRoom::Refused(Refusal::Damaged)));
            }
            return;
        }
        let damaged = || match pgids.first() {
            Some(pgid) => format!("page {pgid} is damaged"),
            None => "the document is damaged".to_owned(),
        };
        if matches!(self.state, State::Opening) && request == RequestId::OPENING {
            return self.poison(&damaged(), Lost::default());
        }
        let Some(fetch) = self.fetch.take_if(|fetch| fetch.request == request) else { return };
        if let Some(view) = self.view_of(&fetch.work, &fetch.document) {
            view.fill(fetch.pages);
        }
        if !pgids.contains(&fetch.needed) {
            return self.queue.push_front(fetch.work);
        }
        self.refuse(&fetch.work, Refusal::Damaged);
        self.run_ended();
    }

    /// The store has answered a read, so there is room for one of those that it had no room for: to
    /// refuse the others takes it as long as to plan them. What a run waits for comes first, and
    /// then the oldest. Where one is refused another one is under way, whose end asks for the next.
    fn ask_again(&mut self) {
        if self.fetch.as_ref().is_some_and(|fetch| self.refused.remove(&fetch.request)) {
            return self.ask_for_pages();
        }
        while let Some(request) = self.refused.pop_first() {
            if self.ask_for_chunk(request) {
                return;
            }
        }
    }

    /// The state here is not what is on the disk: everybody is told, those who waited for what is
    /// lost too, and the next message opens the document anew.
    pub(super) fn poison(&mut self, reason: &str, lost: Lost) {
        reached(Probe::RoomPoisoned);
        if !self.offers.is_empty() {
            reached(Probe::RoomPoisonedAmidOffers);
        }
        // What is durable is so whatever else is lost.
        self.tell_all_that_is_durable();
        self.tell_any_is_due();
        let Lost { questions: mut requests, mut in_doubt, mut channel_ids, is_left_staged } = lost;
        let is_in_doubt = !in_doubt.is_empty();
        self.has_abandoned |= is_left_staged;
        channel_ids.extend(self.vacate_all());
        let mut left = VecDeque::new();
        let waits = self.fetch.take().map(|fetch| fetch.work);
        for work in waits.into_iter().chain(std::mem::take(&mut self.queue)) {
            match work {
                Work::Open(channel_id, _) => channel_ids.push(channel_id),
                Work::Ask(request, ask) => {
                    // The deletion before it may have done what it asks for.
                    in_doubt.extend((is_in_doubt && ask == Ask::Destroy).then_some(request));
                    requests.push(request);
                }
                Work::Left(conn) => left.push_back(Work::Left(conn)),
                // Whoever was to be sent away is.
                Work::Refuse(..)
                | Work::Frames { .. }
                | Work::Seed { .. }
                | Work::Probe(..)
                | Work::Handling { .. }
                | Work::HandlesNoMore(_)
                | Work::Change(_)
                | Work::Look
                | Work::Silent(..)
                | Work::Close(_) => {}
            }
        }
        let refusal = brief(Refusal::Storage { reason: reason.to_owned() });
        for channel_id in channel_ids {
            self.effects.push(channel_id.say(FromRoom::Refused(refusal.clone())));
        }
        for request in requests {
            let reason = reason.to_owned();
            let answer = match in_doubt.contains(&request) {
                true => Answer::Unknown { reason },
                false => Answer::Failed { reason },
            };
            self.effects.push(RoomEffect::Answer { request, answer });
        }
        self.queue = left;
        self.faults_count = 0;
        self.fetched_pages = 0;
        self.refused.clear();
        self.state = State::Closed;
    }
}
