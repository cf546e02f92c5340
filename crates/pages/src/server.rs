//! The queue before a store: requests in, replies out.

mod requests;
mod taking_back;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use tidelog_disk::{Disk, StoreFiles};
use tidelog_journal::Seed;
use tidelog_types::limits::Limits;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{Budget, DocumentKey, Epoch, SortedMap};

use crate::acks::{Acks, Spared};
use crate::error::StoreError;
use crate::owners::{OwnerId, Owners};
use crate::read_queue::ReadQueue;
use crate::staging::Staged;
use crate::store::change_over::ChangeOvers;
use crate::store::discarding::Discarding;
use crate::store::recording::Recording;
use crate::store::{Store, StoreOptions};
use crate::waiting::{Waiting, WaitingLine};
use crate::{
    AppendError, CutError, OpenError, RecoveryReport, StoreCut, StoreReply, StoreRequest, Ticket,
};

/// A store and the queue before it.
///
/// The host hands requests over with [`serve`](Self::serve), calls [`flush`](Self::flush) when it
/// has no more at hand (so that all of them share one flush), and then [`poll`](Self::poll) until
/// [`wants_poll`](Self::wants_poll) says that there is nothing left to do now; and again when a
/// flush of one of the disks has completed, where that is later.
///
/// Each poll serves at most [`Limits::read_chunk_pages`], or where reads hold something else up as
/// many as fit into one [slice](Limits::slice), so that it takes a bounded time; and an append that
/// costs more than a slice is recorded in several. Owners take turns; see
/// [`Urgency`](crate::Urgency) for who goes first, and [`StoreReply::Busy`] for what one may have
/// outstanding.
///
/// Requests take effect in the order in which they are served. A read sees what was appended
/// before it, durable or not, and nothing that was appended later, however many turns it takes.
/// So replies to `Read` and `SyncPrepare` may go out before what they tell of is durable; and those
/// to `Open`, but not before it is written, since what finds no room never was. An owner that acts
/// on them towards others waits for a ticket of its own, or says hello first, whose `Ready` covers
/// all that was in the log.
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
    /// Whether they are forgotten by now, and what is [spared](Self::spared) is being carried out.
    is_discarded: bool,
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
            is_discarded: false,
            discarding: None,
            is_lost: false,
            spared: VecDeque::new(),
            waiting: WaitingLine::default(),
            broken: None,
            replies: Vec::new(),
        };
        Ok((server, report))
    }

    /// What the time is, in milliseconds since the epoch, until it is told anew. A log that is
    /// older than [`LOG_AGE_MS_MAX`](tidelog_types::limits::LOG_AGE_MS_MAX) is changed over, so
    /// that what was overwritten in pages is in no file any more; where nobody tells the time,
    /// none is old.
    pub fn set_time(&mut self, now_ms: u64) {
        self.store.set_time(now_ms);
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

    /// How many documents the store has, whatever they are for.
    #[must_use]
    pub fn documents_count(&self) -> usize {
        self.store.catalog().documents.len()
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
        let is_at_work = self.recording.is_some() || self.is_taking_back;
        let is_opening_held = self.waiting.next_opens().is_some_and(|it| self.is_held_back(it));
        is_at_work || self.is_filled() || is_opening_held
    }

    /// Whether something of this document waits until it may be written, and may find no room then.
    fn is_held_back(&self, document: &DocumentKey) -> bool {
        let number = self.store.catalog().numbers.get(document);
        let is_unwritten = number.is_some_and(|number| !self.store.is_written(*number));
        !self.is_lost && is_unwritten && !self.store.may_write()
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
        self.is_discarded = false;
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

    /// For a host that nobody has asked for anything for a while: what made the log long is written
    /// where it belongs, so that the next opening does not wait until all of it is read. Goes on
    /// for as long as somebody polls.
    pub fn shorten_log(&mut self) {
        if self.broken.is_none() && !self.is_lost {
            self.change_overs.rest(&self.store);
        }
    }

    /// A cut through the store as it stands: all that was called durable is in it.
    ///
    /// # Errors
    ///
    /// [`CutError`]; everything goes on then.
    pub fn cut(&self) -> Result<StoreCut, CutError> {
        if let Some(error) = &self.broken {
            return Err(CutError::Failed { reason: error.to_string() });
        }
        if self.store.is_damaged() {
            return Err(CutError::Damaged);
        }
        self.store.cut().map_err(|error| CutError::Failed { reason: error.to_string() })
    }

    /// Bytes of the log up to its end.
    #[must_use]
    pub fn log_size(&self) -> u64 {
        self.store.log_size()
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
            let pages_count = self.serve_turn()?;
            budget.spend_pages(pages_count);
            if pages_count == 0 {
                // By somebody who reads the files themselves.
                break;
            }
        }
        if self.change_overs.is_due(&self.store) {
            // What is appended before it goes before its point.
            self.write_log()?;
            if self.is_taking_back {
                return Ok(());
            }
            self.change_overs.begin(&mut self.store)?;
        }
        if self.change_overs.advance(&mut self.store)? {
            // What was appended while batches were held.
            self.flush_now()?;
        }
        let waits = !self.replies.is_empty();
        self.change_overs.shed(&mut self.store, waits)
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
            // What a page takes in the log says nothing of what it takes to record it.
            budget.spend_pages(waiting.pages_count() as u64);
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
