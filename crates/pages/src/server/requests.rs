//! What a page server does for each request.

use std::collections::VecDeque;

use tidelog_disk::Disk;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{Budget, DocumentKey, Epoch, JournalId};

use super::{PageServer, Recorded};
use crate::append;
use crate::error::StoreError;
use crate::owners::OwnerId;
use crate::plan::{Answer, Plan};
use crate::protocol::{AppendId, RequestId, Urgency};
use crate::reads::{ActiveRead, Served};
use crate::staging::Staged;
use crate::{Append, AppendError, StoreReply, StoreRequest, Ticket};

impl<D: Disk> PageServer<D> {
    pub(super) fn carry_out(&mut self, owner: OwnerId, request: StoreRequest) {
        let admitted = match request {
            StoreRequest::Hello { life, .. } => self.owners.take_over(owner, life, self.epoch()),
            _ => self.owners.admit(owner, self.epoch()),
        };
        if let Err(error) = admitted {
            reached(Probe::OwnerFenced);
            self.replies.push((owner, refusal(&request, error)));
            return;
        }
        self.or_break(|server| server.carry_out_admitted(owner, request));
    }

    fn carry_out_admitted(
        &mut self,
        owner: OwnerId,
        request: StoreRequest,
    ) -> Result<(), StoreError> {
        match request {
            StoreRequest::Hello { .. } | StoreRequest::Stage { .. } if self.is_lost => {}
            StoreRequest::Append { ticket, append } if self.is_lost => {
                self.fail(owner, ticket, append.names(), cleared());
            }
            StoreRequest::Destroy { ticket, document } if self.is_lost => {
                self.fail(owner, ticket, vec![document], cleared());
            }
            StoreRequest::Hello { epoch, .. } => self.hello(owner, epoch)?,
            StoreRequest::Open { document } => self.open_document(owner, document)?,
            StoreRequest::Append { ticket, append } => self.append(owner, ticket, append)?,
            StoreRequest::Stage { ticket, pages } => {
                reached(Probe::PagesSentAhead);
                self.staged.get_or_insert_with(owner, || Staged::of(ticket)).add(ticket, pages);
            }
            StoreRequest::Read { request, urgency, document, pgids } => {
                let pages = self.store.places(&document, &pgids);
                let plan = Plan::of_pages(pages, Answer::Pages { damaged: Vec::new() });
                self.read(owner, urgency, request, document, plan);
            }
            StoreRequest::SyncPrepare {
                request,
                urgency,
                document,
                journal,
                since,
                from,
                pages_max,
            } => match self.store.sync_prepare(&document, (journal, since), from, pages_max) {
                Ok(plan) => self.read(owner, urgency, request, document, plan),
                Err(position) => {
                    let reply = StoreReply::Unrelated { request, document, position };
                    self.replies.push((owner, reply));
                }
            },
            StoreRequest::ReadAt { request, urgency, document, pgids, journal, at } => {
                let is_changing_over = self.change_overs.is_going_on();
                match self.store.places_at(&document, &pgids, journal, at, is_changing_over) {
                    Some(plan) => self.read(owner, urgency, request, document, plan),
                    None => self.trimmed(owner, request, document, journal),
                }
            }
            StoreRequest::Entries { request, urgency, document, cursor, count } => {
                match self.store.entries(&document, cursor, count) {
                    Err(StoreError::Damaged { .. }) => self.damaged(owner, request, document),
                    plan => match plan? {
                        Some(plan) => self.read(owner, urgency, request, document, plan),
                        None => self.trimmed(owner, request, document, cursor.journal),
                    },
                }
            }
            StoreRequest::Destroy { ticket, document } => self.destroy(owner, ticket, document)?,
            StoreRequest::List { request } => {
                let documents = self.store.catalog().numbers.keys().cloned().collect();
                self.replies.push((owner, StoreReply::Documents { request, documents }));
            }
        }
        if self.store.is_buffer_full() {
            self.write_log()?;
        }
        Ok(())
    }

    fn hello(&mut self, owner: OwnerId, wanted: Epoch) -> Result<(), StoreError> {
        // Nobody waits any more for what an earlier owner has begun.
        for earlier in self.owners.known().filter(|known| *known != owner).collect::<Vec<_>>() {
            self.staged.remove(&earlier);
            self.reads.forget(earlier);
        }
        if wanted > self.epoch() && self.epoch() == Epoch::default() && !self.store.is_damaged() {
            // It held another store, whose data were cleared. Were this written down, the next page
            // server would grant it more, and it would take this store for its own.
            self.acks.ready(self.store.committed(), owner, wanted);
            return Ok(());
        }
        // Where no grant was written down, its owner alone may know of it.
        let wanted = if self.store.is_damaged() { next_epoch(wanted) } else { wanted };
        self.grant(owner, wanted.max(next_epoch(self.epoch())));
        Ok(())
    }

    pub(super) fn grant(&mut self, owner: OwnerId, epoch: Epoch) {
        self.store.record_epoch(epoch);
        let batch = self.store.committed();
        self.acks.granted(batch, owner, epoch);
    }

    fn open_document(&mut self, owner: OwnerId, document: DocumentKey) -> Result<(), StoreError> {
        // Write first, so a full device is reported before we say where the document stands.
        self.write_log()?;
        if self.is_taking_back || self.is_held_back(&document) {
            // Before what its owner did later.
            self.waiting.put_back(owner, StoreRequest::Open { document });
            return Ok(());
        }
        self.refused.remove(&(owner, document.clone()));
        let number = self.store.catalog().numbers.get(&document).copied();
        let Some(number) = number else {
            let life = self.store.options().life;
            self.replies.push((owner, StoreReply::Opened { document, life, state: None }));
            return Ok(());
        };
        let plan = match self.store.opened(number) {
            Err(StoreError::Damaged { .. }) => {
                self.damaged(owner, RequestId::OPENING, document);
                return Ok(());
            }
            plan => plan?,
        };
        let (urgency, request, _era) = (Urgency::User, RequestId::OPENING, self.store.reader());
        let read = ActiveRead { owner, urgency, request, document, plan, _era };
        // Most timelines are short: then there is nothing to wait for.
        self.serve_chunk(read, self.limits().read_chunk_pages).map(drop)
    }

    fn append(
        &mut self,
        owner: OwnerId,
        ticket: Ticket,
        mut append: Append,
    ) -> Result<(), StoreError> {
        self.make_room(owner)?;
        if self.is_taking_back {
            // It would be decided on what is taken back.
            self.waiting.put_back(owner, StoreRequest::Append { ticket, append });
            return Ok(());
        }
        let names = append.names();
        let number = self.store.catalog().number_for(&append.document);
        let staged = self.take_staged(owner, ticket);
        let joined = staged.map_or(Ok(()), |staged| staged.join(&mut append));
        let decided = joined.and_then(|()| {
            let id = self.owners.life().map(|life| AppendId { life, ticket });
            let store = &self.store;
            let known = store.catalog().documents.get(&number);
            let is_noted = |record: &[u8]| known.is_some_and(|it| store.is_noted(it, record));
            append::decide(append, id, known, &is_noted)
        });
        let is_new = !decided.as_ref().is_ok_and(VecDeque::is_empty);
        let decided = self.refusal_of(owner, &names, is_new).map_or(decided, Err);
        match decided {
            Ok(_) if !is_new => {
                let batch = self.store.committed();
                if self.store.is_written(number) {
                    self.acks.repeated(batch, owner, ticket);
                } else {
                    self.acks.durable(batch, owner, ticket, names);
                }
            }
            Ok(steps) => {
                let recording = self.store.begin_recording(number, steps);
                let recorded = Recorded { recording, owner: Some(owner), ticket, names };
                self.record(recorded, &mut Budget::new(self.limits().slice))?;
            }
            Err(error) => self.fail(owner, ticket, names, error),
        }
        Ok(())
    }

    /// Says that an append failed. What comes behind it of these names builds on it.
    fn fail(
        &mut self,
        owner: OwnerId,
        ticket: Ticket,
        names: Vec<DocumentKey>,
        error: AppendError,
    ) {
        for name in names {
            self.refused.insert((owner, name), error.clone());
        }
        self.replies.push((owner, StoreReply::AppendFailed { ticket, error }));
    }

    /// The pages that were sent ahead of this append. Of those of another one, which it has come
    /// before, only that is kept.
    fn take_staged(&mut self, owner: OwnerId, ticket: Ticket) -> Option<Staged> {
        let staged = self.staged.remove(&owner)?;
        if staged.is_of(ticket) {
            return Some(staged);
        }
        self.staged.insert(owner, staged.overtaken());
        None
    }

    /// An append that had no room where requests wait: nothing is left of it.
    pub(super) fn refuse(&mut self, owner: OwnerId, ticket: Ticket, names: Vec<DocumentKey>) {
        self.take_staged(owner, ticket);
        match self.owners.admit(owner, self.epoch()) {
            Err(fenced) => self.fail(owner, ticket, Vec::new(), fenced),
            Ok(()) => {
                let error = self.refusal_of(owner, &names, true).unwrap_or(AppendError::Busy);
                self.fail(owner, ticket, names, error);
            }
        }
    }

    /// Goes on with an append until it is recorded or the budget is spent.
    pub(super) fn record(
        &mut self,
        mut recorded: Recorded,
        budget: &mut Budget,
    ) -> Result<(), StoreError> {
        let went = match recorded.recording.can_go_on(&self.store) {
            true => self.store.record(&mut recorded.recording, budget),
            false => Ok(false),
        };
        match went {
            Ok(false) => self.recording = Some(recorded),
            Ok(true) => self.ack_recorded(&recorded),
            Err(error) => {
                self.ack_recorded(&recorded);
                self.half = Some(recorded);
                return self.or_take_back(Err(error));
            }
        }
        Ok(())
    }

    pub(super) fn ack_recorded(&mut self, Recorded { owner, ticket, names, .. }: &Recorded) {
        if let Some(owner) = owner {
            self.ack(*owner, *ticket, names.clone());
        }
    }

    /// Why nothing is appended to a document of these names, whatever it is. What is not `is_new`,
    /// but in the log already, is refused only behind a failure, where there is no such thing.
    fn refusal_of(
        &self,
        owner: OwnerId,
        names: &[DocumentKey],
        is_new: bool,
    ) -> Option<AppendError> {
        let failed = |name: &DocumentKey| self.refused.get(&(owner, name.clone()));
        if !self.refused.is_empty()
            && let Some(error) = names.iter().find_map(failed)
        {
            reached(Probe::AppendBehindFailure);
            return Some(error.clone());
        }
        if !is_new {
            return None;
        }
        if self.store.is_damaged() {
            return Some(AppendError::Damaged);
        }
        let (numbers, documents_max) = (&self.store.catalog().numbers, self.limits().documents_max);
        // A user's copy of a document that is here may take its place: it is no further one.
        let is_here = |name: &DocumentKey| {
            let nobodys = DocumentKey { user: String::new(), ..name.clone() };
            numbers.contains_key(name) || numbers.contains_key(&nobodys)
        };
        if numbers.len() >= documents_max && !names.iter().any(is_here) {
            return Some(AppendError::TooManyDocuments { documents_max });
        }
        self.is_full_of(owner).then_some(AppendError::Busy)
    }

    /// An owner that has as many appends outstanding as it may waits for the device now.
    fn make_room(&mut self, owner: OwnerId) -> Result<(), StoreError> {
        if self.is_full_of(owner) { self.flush_now() } else { Ok(()) }
    }

    fn is_full_of(&self, owner: OwnerId) -> bool {
        let appends_max = self.limits().owner_appends_max;
        self.acks.count() >= appends_max && self.acks.count_of(owner) >= appends_max
    }

    fn destroy(
        &mut self,
        owner: OwnerId,
        ticket: Ticket,
        document: DocumentKey,
    ) -> Result<(), StoreError> {
        self.make_room(owner)?;
        if self.is_taking_back {
            self.waiting.put_back(owner, StoreRequest::Destroy { ticket, document });
            return Ok(());
        }
        let is_damaged = self.store.is_damaged();
        if self.store.catalog().numbers.contains_key(&document)
            && (is_damaged || self.is_full_of(owner))
        {
            let error = if is_damaged { AppendError::Damaged } else { AppendError::Busy };
            self.fail(owner, ticket, vec![document], error);
            return Ok(());
        }
        self.forget_document(owner, ticket, document);
        Ok(())
    }

    pub(super) fn forget_document(
        &mut self,
        owner: OwnerId,
        ticket: Ticket,
        document: DocumentKey,
    ) {
        // Of one that is gone nothing is left to be done.
        if let Some(number) = self.store.catalog().numbers.get(&document).copied() {
            self.store.record_destroy(number);
        }
        self.acks.destroyed(self.store.committed(), owner, ticket, document);
    }

    fn ack(&mut self, owner: OwnerId, ticket: Ticket, names: Vec<DocumentKey>) {
        self.acks.durable(self.store.committed(), owner, ticket, names);
    }

    /// What the log has of a document is not what was written.
    fn damaged(&mut self, owner: OwnerId, request: RequestId, document: DocumentKey) {
        let reply = StoreReply::Damaged { request, document, pgids: Vec::new() };
        self.replies.push((owner, reply));
    }

    fn trimmed(
        &mut self,
        owner: OwnerId,
        request: RequestId,
        document: DocumentKey,
        journal: JournalId,
    ) {
        let history = self.store.history(&document, journal);
        self.replies.push((owner, StoreReply::Trimmed { request, document, history }));
    }

    fn read(
        &mut self,
        owner: OwnerId,
        urgency: Urgency,
        request: RequestId,
        document: DocumentKey,
        plan: Plan,
    ) {
        // Its owner still builds on what was taken back, and hears of that only once nothing of it
        // can be found again: older pages beside those that it has would be a state that never was.
        // Once the files are lost it keeps what it has appended, and opens nothing anew.
        if !self.is_lost && self.refused.contains_key(&(owner, document.clone())) {
            return;
        }
        if self.reads.has_room(owner, plan.left(), self.limits()) {
            let _era = self.store.reader();
            self.reads.push(ActiveRead { owner, urgency, request, document, plan, _era });
        } else {
            reached(Probe::OwnerBusy);
            self.replies.push((owner, StoreReply::Busy { request, document }));
        }
    }

    /// Gives one owner its turn: a chunk of pages, of as many reads as that is. Gives how many
    /// pages that took.
    pub(super) fn serve_turn(&mut self) -> Result<u64, StoreError> {
        let Some((urgency, owner)) = self.reads.next() else { return Ok(0) };
        let mut left = self.limits().read_chunk_pages;
        while left > 0
            && let Some(read) = self.reads.take(urgency, owner)
        {
            left = left.saturating_sub(self.serve_chunk(read, left)?);
        }
        Ok((self.limits().read_chunk_pages - left) as u64)
    }

    /// Goes on with a read. Gives how many pages and pieces of pages that took.
    fn serve_chunk(&mut self, mut read: ActiveRead, reads_max: usize) -> Result<usize, StoreError> {
        let owner = read.owner;
        let Served { replies, reads_count, is_done } =
            read.serve_chunk(&mut self.store, reads_max)?;
        self.replies.extend(replies.into_iter().map(|reply| (owner, reply)));
        if !is_done {
            reached(Probe::ReadSliced);
            self.reads.put_back(read);
        }
        Ok(reads_count)
    }
}

fn cleared() -> AppendError {
    AppendError::Device { reason: "the data of this site were cleared".to_owned() }
}

fn next_epoch(Epoch(epoch): Epoch) -> Epoch {
    Epoch(epoch.saturating_add(1))
}

/// How a request of an owner that is not served is answered.
fn refusal(request: &StoreRequest, error: AppendError) -> StoreReply {
    match (request, &error) {
        (
            StoreRequest::Append { ticket, .. } | StoreRequest::Destroy { ticket, .. },
            AppendError::Fenced { .. },
        ) => StoreReply::AppendFailed { ticket: *ticket, error },
        _ => StoreReply::Broken { error },
    }
}
