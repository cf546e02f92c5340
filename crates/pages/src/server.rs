//! The queue before a store: requests in, replies out.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use tidelog_disk::{Disk, StoreFiles};
use tidelog_journal::{BatchNumber, Seed};
use tidelog_types::limits::Limits;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{Budget, DocumentKey, Epoch, JournalId, SortedMap};

use crate::acks::{Acks, SPARED_AT_ONCE, Spared, TakenBack};
use crate::append;
use crate::error::StoreError;
use crate::owners::{OwnerId, Owners};
use crate::plan::{Answer, Plan};
use crate::protocol::{AppendId, Urgency};
use crate::read_queue::ReadQueue;
use crate::reads::{ActiveRead, Served};
use crate::staging::Staged;
use crate::store::change_over::ChangeOvers;
use crate::store::discarding::Discarding;
use crate::store::recording::Recording;
use crate::store::{Store, StoreOptions};
use crate::waiting::{Waiting, WaitingLine};
use crate::{Append, AppendError, OpenError, RecoveryReport, StoreReply, StoreRequest, Ticket};

/// A store and the queue before it.
///
/// The host hands requests over with [`serve`](Self::serve), calls [`flush`](Self::flush) when it
/// has no more at hand (so that all of them share one flush), and then [`poll`](Self::poll) until
/// [`wants_poll`](Self::wants_poll) says that there is nothing left to do now; and again when a
/// flush of one of the disks has completed, where that is later.
///
/// Each poll serves at most [`Limits::read_chunk_pages`], or where reads hold something else up as
/// many as fit into one [slice](Limits::slice), so that it takes a bounded time; and an append that
/// costs more than a slice is recorded in several. Owners take turns; see [`Urgency`] for who goes
/// first, and [`StoreReply::Busy`] for what one may have outstanding.
///
/// Requests take effect in the order in which they are served. A read sees what was appended
/// before it, durable or not, and nothing that was appended later, however many turns it takes.
/// So replies to `Open`, `Read` and `SyncPrepare` may go out before what they tell of is durable:
/// an owner that acts on them towards others waits for a ticket of its own, or says hello first,
/// whose `Ready` covers all that was in the log.
#[derive(Debug)]
pub struct PageServer<D> {
    store: Store<D>,
    change_overs: ChangeOvers,
    owners: Owners,
    acks: Acks,
    /// Documents of which an append of this owner failed, until it opens them anew.
    refused: SortedMap<(OwnerId, DocumentKey), AppendError>,
    /// Of each owner, the pages of an append that is still to come.
    staged: SortedMap<OwnerId, Staged>,
    /// Served a chunk each in turn.
    reads: ReadQueue,
    /// An append that is being recorded: requests wait until that is done.
    recording: Option<Recorded>,
    /// An append that is taken back half recorded. The catalog has that half until then.
    half: Option<Recorded>,
    /// Whether appends that found no room are being taken back: requests wait until that is done.
    is_taking_back: bool,
    /// How far the log was read again for that.
    discarding: Option<Discarding>,
    /// Whether the files were [cleared](Self::lose): they are left alone.
    is_lost: bool,
    /// What found no room beside something else, and is still to be carried out again.
    spared: VecDeque<(OwnerId, Spared)>,
    waiting: WaitingLine,
    broken: Option<AppendError>,
    replies: Vec<(OwnerId, StoreReply)>,
}

/// What is being recorded, and who waits for it.
#[derive(Debug)]
struct Recorded {
    recording: Recording,
    /// Nobody, if the owner went away.
    owner: Option<OwnerId>,
    ticket: Ticket,
    names: Vec<DocumentKey>,
}

impl<D: Disk> PageServer<D> {
    /// Opens the store in these files, or begins one if they are empty. The seed is a number by
    /// chance, another one for each opening.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing durable has changed then.
    pub fn open(files: StoreFiles<D>, seed: Seed) -> Result<(Self, RecoveryReport), OpenError> {
        Self::open_with(files, seed, StoreOptions::default())
    }

    /// Opens a store with other sizes than the usual ones.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(
        files: StoreFiles<D>,
        seed: Seed,
        options: StoreOptions,
    ) -> Result<(Self, RecoveryReport), OpenError> {
        let (store, report) = Store::open(files, seed, options)?;
        let server = Self {
            change_overs: ChangeOvers::of(&store),
            store,
            owners: Owners::default(),
            acks: Acks::default(),
            refused: SortedMap::new(),
            staged: SortedMap::new(),
            reads: ReadQueue::default(),
            recording: None,
            half: None,
            is_taking_back: false,
            discarding: None,
            is_lost: false,
            spared: VecDeque::new(),
            waiting: WaitingLine::default(),
            broken: None,
            replies: Vec::new(),
        };
        Ok((server, report))
    }

    /// Carries out a request, after all that were served before it.
    pub fn serve(&mut self, owner: OwnerId, request: StoreRequest) {
        if let Some(error) = &self.broken {
            self.replies.push((owner, StoreReply::Broken { error: error.clone() }));
        } else if self.is_held_up() || !self.waiting.is_empty() {
            if self.is_taking_back {
                reached(Probe::WaitedForTakingBack);
            }
            let limits = &self.store.options().limits;
            if let Some(busy) = self.waiting.push(owner, request, limits) {
                reached(Probe::OwnerBusy);
                self.replies.push((owner, busy));
            }
        } else {
            self.carry_out(owner, request);
        }
    }

    /// Whether something that it was asked for waits until another [`poll`](Self::poll) carries it
    /// out, an append that is being recorded among it.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let is_recording = self.recording.is_some() || self.is_taking_back;
        self.broken.is_none() && (is_recording || !self.waiting.is_empty())
    }

    /// Whether something that was appended waits until another [`poll`](Self::poll), or a flush,
    /// lets it be written: a change-over holds it back.
    #[must_use]
    pub fn holds_back(&self) -> bool {
        let is_unwritten = self.store.written() < self.store.committed();
        self.broken.is_none() && !self.is_lost && is_unwritten && !self.store.may_write()
    }

    /// Whether requests have to wait.
    fn is_held_up(&self) -> bool {
        self.recording.is_some() || self.is_taking_back || self.is_filled()
    }

    /// Whether as much as may be kept in memory waits there until something may be written.
    fn is_filled(&self) -> bool {
        !self.is_lost && self.store.is_buffer_full() && !self.store.may_write()
    }

    /// Writes what was appended and asks for one flush of all of it.
    pub fn flush(&mut self) {
        if self.broken.is_none() && !self.is_lost {
            self.or_break(|server| {
                server.write_log()?;
                server.store.request_flush()
            });
        }
    }

    /// Says in the log that all of it is durable, if it is, without a flush: what rots there later
    /// is then told from a tail that a power cut tore. For a host that stops, or that nobody has
    /// asked for anything for a while.
    pub fn mark_durable(&mut self) {
        if self.broken.is_none() && !self.is_lost {
            self.or_break(|server| server.store.mark_durable());
        }
    }

    /// Does what can be done now, a chunk of each read among it, and gives the replies.
    pub fn poll(&mut self) -> Vec<(OwnerId, StoreReply)> {
        if self.broken.is_none() {
            self.or_break(Self::work);
        }
        if !self.waiting.is_empty() {
            let waiting = &self.waiting;
            self.replies.retain(|(to, _)| !waiting.is_leaving(*to));
        }
        std::mem::take(&mut self.replies)
    }

    /// The files were cleared under the store. What is here is the last copy, and is served to who
    /// reads it; the files are left alone, since a call that fails would break the store.
    ///
    /// Nobody is let in from now on, and what is to be appended or destroyed fails. Of what is on
    /// its way to the disk nothing is said: it is there to be read, and never becomes durable.
    pub fn lose(&mut self) {
        self.is_lost = true;
        self.is_taking_back = false;
        self.discarding = None;
        self.spared.clear();
        self.acks = Acks::default();
        self.change_overs.stop(&mut self.store);
        self.store.leave_alone();
        // One that has begun is recorded to its end, in memory: part of it would be a state that
        // never was.
        let has_begun = |it: &Recorded| it.recording.can_go_on(&self.store);
        self.recording = self.half.take().or(self.recording.take()).filter(has_begun);
    }

    /// Whether another [`poll`](Self::poll) has something to do now, without any flush
    /// completing.
    #[must_use]
    pub fn wants_poll(&self) -> bool {
        let changes_over = self.change_overs.is_due(&self.store) || self.change_overs.can_advance();
        let recording = self.recording.as_ref();
        let records = recording.is_some_and(|it| it.recording.can_go_on(&self.store));
        let is_served = !self.waiting.is_empty() && !self.is_held_up();
        let has_chores = !self.is_lost && (changes_over || self.store.owes_flush());
        let is_behind = self.is_taking_back || records || is_served;
        let can_work = !self.reads.is_empty() || has_chores || is_behind;
        !self.replies.is_empty() || (self.broken.is_none() && can_work)
    }

    /// Forgets an owner that went away, and what it asked for. What it appended stays.
    pub fn forget_owner(&mut self, owner: OwnerId) {
        for recorded in [&mut self.recording, &mut self.half].into_iter().flatten() {
            recorded.owner = recorded.owner.filter(|from| *from != owner);
        }
        if self.waiting.has(owner) {
            self.waiting.leave(owner);
        } else {
            self.forget(owner);
        }
    }

    fn forget(&mut self, owner: OwnerId) {
        self.owners.forget(owner);
        self.reads.forget(owner);
        self.acks.forget(owner);
        self.staged.remove(&owner);
        self.spared.retain(|(from, _)| *from != owner);
        self.refused.retain(|(from, _), _| *from != owner);
        self.replies.retain(|(to, _)| *to != owner);
    }

    /// Gives back what is kept in memory for the next reads.
    pub fn rest(&mut self) {
        self.store.clear_pool();
    }

    /// Whether the store has to be opened anew: nobody is served any more.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// The highest epoch granted.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.store.catalog().epoch
    }

    fn limits(&self) -> &Limits {
        &self.store.options().limits
    }

    fn or_break(&mut self, work: impl FnOnce(&mut Self) -> Result<(), StoreError>) {
        if let Err(error) = work(self) {
            let error = error.to_append_error();
            if !self.store.is_found_durable() {
                // What was found may be on no disk: nobody shall go on with it.
                let is_failure =
                    |reply: &StoreReply| matches!(reply, StoreReply::AppendFailed { .. });
                self.replies.retain(|(_, reply)| is_failure(reply));
            }
            // Of some all that they asked for waits.
            let waiting = self.waiting.owners();
            for owner in self.owners.known().chain(waiting).collect::<BTreeSet<_>>() {
                self.replies.push((owner, StoreReply::Broken { error: error.clone() }));
            }
            self.broken = Some(error);
        }
    }

    fn work(&mut self) -> Result<(), StoreError> {
        if !self.is_lost {
            self.send_acks()?;
        }
        let mut budget = Budget::new(self.limits().slice);
        budget.spend_pages(self.serve_turn()?);
        if self.is_taking_back {
            self.go_on_taking_back(&mut budget)?;
        } else if let Some(recorded) = self.recording.take() {
            self.record(recorded, &mut budget)?;
            self.serve_waiting(&mut budget)?;
        } else if !self.waiting.is_empty() {
            self.serve_waiting(&mut budget)?;
        }
        if self.broken.is_some() || self.is_lost || self.is_taking_back {
            return Ok(());
        }
        // A busy store must not put a change-over off for ever.
        while self.change_overs.is_held_up_by_reads(&mut self.store) && !budget.is_spent() {
            budget.spend_pages(self.serve_turn()?);
        }
        if self.change_overs.is_due(&self.store) {
            self.change_overs.begin(&mut self.store)?;
        }
        if self.change_overs.advance(&mut self.store)? {
            // What was appended while batches were held.
            self.flush_now()?;
        }
        self.change_overs.shed(&mut self.store)
    }

    /// Carries out what had to wait, until something holds it up again or the budget is spent.
    fn serve_waiting(&mut self, budget: &mut Budget) -> Result<(), StoreError> {
        if self.is_held_up() {
            return Ok(());
        }
        while !self.is_held_up()
            && !budget.is_spent()
            && self.broken.is_none()
            && let Some((owner, waiting)) = self.waiting.pop()
        {
            let before = self.store.log_size();
            match waiting {
                Waiting::Request(request) => self.carry_out(owner, *request),
                Waiting::AppendRefused { ticket, names } => self.refuse(owner, ticket, names),
                Waiting::PagesRefused { ticket } => {
                    self.staged.insert(owner, Staged::refused(ticket));
                }
                Waiting::Left => self.forget(owner),
            }
            budget.spend_steps(1);
            budget.spend_bytes(self.store.log_size().saturating_sub(before));
        }
        // What is half written of a store that broke meanwhile is nobody's to finish.
        if self.broken.is_some() {
            return Ok(());
        }
        // Whoever asked for a flush did so long ago.
        self.flush_now()
    }

    /// Says what is durable by now.
    fn send_acks(&mut self) -> Result<(), StoreError> {
        self.look_at_flushes()?;
        // What had to wait until a torn tail was gone for good.
        if self.store.owes_flush() {
            reached(Probe::WroteAfterCut);
            self.flush_now()
        } else {
            Ok(())
        }
    }

    /// Writes all that may be written, asks for a flush, and says what is durable: of some disks a
    /// flush is complete once it was asked for, and nobody would come to look at it later.
    fn flush_now(&mut self) -> Result<(), StoreError> {
        if self.is_lost {
            return Ok(());
        }
        self.write_log()?;
        self.store.request_flush()?;
        self.look_at_flushes()
    }

    fn look_at_flushes(&mut self) -> Result<(), StoreError> {
        if let Some(durable) = self.store.poll_durable()? {
            self.acks.release(durable, &mut self.replies);
        }
        Ok(())
    }

    fn carry_out(&mut self, owner: OwnerId, request: StoreRequest) {
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

    fn grant(&mut self, owner: OwnerId, epoch: Epoch) {
        self.store.record_epoch(epoch);
        let batch = self.store.committed();
        self.acks.granted(batch, owner, epoch);
    }

    fn open_document(&mut self, owner: OwnerId, document: DocumentKey) -> Result<(), StoreError> {
        // Write first, so a full device is reported before we say where the document stands.
        self.write_log()?;
        if self.is_taking_back {
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
                self.damaged(owner, 0, document);
                return Ok(());
            }
            plan => plan?,
        };
        let (urgency, request, _era) = (Urgency::User, 0, self.store.reader());
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
    fn refuse(&mut self, owner: OwnerId, ticket: Ticket, names: Vec<DocumentKey>) {
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
    fn record(&mut self, mut recorded: Recorded, budget: &mut Budget) -> Result<(), StoreError> {
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

    fn ack_recorded(&mut self, Recorded { owner, ticket, names, .. }: &Recorded) {
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

    fn forget_document(&mut self, owner: OwnerId, ticket: Ticket, document: DocumentKey) {
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
    fn damaged(&mut self, owner: OwnerId, request: u64, document: DocumentKey) {
        let reply = StoreReply::Damaged { request, document, pgids: Vec::new() };
        self.replies.push((owner, reply));
    }

    fn trimmed(&mut self, owner: OwnerId, request: u64, document: DocumentKey, journal: JournalId) {
        let history = self.store.history(&document, journal);
        self.replies.push((owner, StoreReply::Trimmed { request, document, history }));
    }

    fn read(
        &mut self,
        owner: OwnerId,
        urgency: Urgency,
        request: u64,
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
    fn serve_turn(&mut self) -> Result<u64, StoreError> {
        let Some((urgency, owner)) = self.reads.next() else { return Ok(0) };
        let mut left = self.limits().read_chunk_pages;
        while left > 0
            && let Some(read) = self.reads.take(urgency, owner)
        {
            left = left.saturating_sub(self.serve_chunk(read, left)?);
        }
        Ok((self.limits().read_chunk_pages - left) as u64)
    }

    /// Goes on with a read. Gives how many pages that took.
    fn serve_chunk(&mut self, mut read: ActiveRead, pages_max: usize) -> Result<usize, StoreError> {
        let owner = read.owner;
        let Served { replies, pages_count, is_done } =
            read.serve_chunk(&mut self.store, pages_max)?;
        self.replies.extend(replies.into_iter().map(|reply| (owner, reply)));
        if !is_done {
            reached(Probe::ReadSliced);
            self.reads.put_back(read);
        }
        Ok(pages_count)
    }

    /// Writes what was appended. If there is no room for it, it is as if it had never been, but for
    /// what may take the reserve.
    fn write_log(&mut self) -> Result<(), StoreError> {
        if self.is_taking_back || self.is_lost {
            return Ok(());
        }
        let written = self.store.write();
        self.or_take_back(written)
    }

    fn or_take_back(&mut self, written: Result<(), StoreError>) -> Result<(), StoreError> {
        match written {
            Err(error) if error.is_full() && !self.is_lost => {
                self.take_back();
                Ok(())
            }
            written => written,
        }
    }

    /// What was appended and not written is taken back. Reads that were asked for before that was
    /// known are answered first, from the buffer, and nothing else is served meanwhile.
    fn take_back(&mut self) {
        reached(Probe::TakenBack);
        self.is_taking_back = true;
        // It was decided on what is taken back.
        if let Some(recorded) = self.recording.take() {
            self.store.give_up();
            self.ack_recorded(&recorded);
            self.half = Some(recorded);
        }
    }

    /// Goes on with that. What had to wait is for the next poll: were it to fail as well, nothing
    /// would ever come to the change-over that makes room.
    fn go_on_taking_back(&mut self, budget: &mut Budget) -> Result<(), StoreError> {
        while !self.reads.is_empty() && !budget.is_spent() {
            budget.spend_pages(self.serve_turn()?);
        }
        if !self.reads.is_empty() {
            return Ok(());
        }
        // What an earlier one left is not dropped at once.
        if !self.change_overs.go_on_forgetting(budget) {
            return Ok(());
        }
        let begun = self.discarding.take().map_or_else(|| self.store.begin_discarding(), Ok);
        let mut discarding = begun?;
        if !self.store.go_on_discarding(&mut discarding, budget)? {
            self.discarding = Some(discarding);
            return Ok(());
        }
        let written = self.store.written();
        let needed_reserve = self.store.needs_reserve();
        let (batch, former) = self.store.end_discarding(discarding)?;
        self.change_overs.forget(former);
        self.half = None;
        let numbers = &self.store.catalog().numbers;
        let is_there = |document: &DocumentKey| numbers.contains_key(document);
        let TakenBack { refused, spared } =
            self.acks.take_back(written, batch, needed_reserve, &is_there);
        let is_reserve_spent = !needed_reserve && spared.is_empty();
        for key in refused {
            self.refused.insert(key, AppendError::Full);
        }
        for spared in spared.into_iter().rev() {
            self.spared.push_front(spared);
        }
        if is_reserve_spent {
            self.refuse_spared(batch);
        }
        self.is_taking_back = false;
        // Before anything joins it that must leave the reserve alone.
        while !self.spared.is_empty() {
            self.carry_out_spared();
            self.write_log()?;
            if self.is_taking_back {
                return Ok(());
            }
        }
        self.flush_now()
    }

    /// Carries out what is written at once of what was spared: one grant, or as many destructions
    /// as fit into a block.
    fn carry_out_spared(&mut self) {
        for _ in 0..SPARED_AT_ONCE {
            match self.spared.pop_front() {
                Some((owner, Spared::Destroy(ticket, document))) => {
                    self.forget_document(owner, ticket, document);
                }
                Some((owner, Spared::Repeat(ticket))) => {
                    self.acks.repeated(self.store.committed(), owner, ticket);
                }
                Some((owner, Spared::Grant(epoch))) => return self.grant(owner, epoch),
                None => return,
            }
            if matches!(self.spared.front(), Some((_, Spared::Grant(_)))) {
                return;
            }
        }
    }

    /// Not even what makes room has any: what is left of that would find none either.
    fn refuse_spared(&mut self, batch: BatchNumber) {
        for (owner, spared) in std::mem::take(&mut self.spared) {
            let numbers = &self.store.catalog().numbers;
            match spared {
                Spared::Destroy(ticket, document) if !numbers.contains_key(&document) => {
                    self.acks.repeated(batch, owner, ticket);
                }
                Spared::Destroy(ticket, document) => {
                    self.refused.insert((owner, document), AppendError::Full);
                    self.acks.not_destroyed(batch, owner, ticket);
                }
                Spared::Repeat(ticket) => self.acks.repeated(batch, owner, ticket),
                grant @ Spared::Grant(_) => self.spared.push_back((owner, grant)),
            }
        }
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

impl<D: Disk> fmt::Display for PageServer<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (acks, reads) = (self.acks.count(), self.reads.len());
        let staged: usize = self.staged.values().map(Staged::count).sum();
        let waiting = self.waiting.bytes();
        write!(f, "{} | acks {acks} reads {reads} staged {staged} ", self.store)?;
        write!(f, "waiting {waiting}")
    }
}
