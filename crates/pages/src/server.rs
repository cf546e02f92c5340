//! The queue before a store: requests in, replies out.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use tidelog_disk::{Disk, StoreFiles};
use tidelog_journal::Cut;
use tidelog_types::limits::LOG_BUFFER_SIZE_MAX;
use tidelog_types::{DocumentKey, Epoch, Lsn, PageSet};

use crate::append;
use crate::error::Fault;
use crate::owners::{OwnerId, Owners};
use crate::promises::Promises;
use crate::reads::{ActiveRead, Answer};
use crate::store::{Store, StoreOptions};
use crate::{Append, AppendError, OpenError, StoreReply, StoreRequest, Ticket};

/// What was found when a store was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Whether the files held no store before.
    pub is_new: bool,
    /// How many documents there are.
    pub documents: usize,
    /// Generation of the active log file: goes up by one with each change-over.
    pub generation: u64,
    /// Bytes of log that were read.
    pub log_size: u64,
    /// Batches appended since the last change-over.
    pub batches: u64,
    /// The highest epoch ever granted.
    pub epoch: Epoch,
    /// The torn tail of the log that was cut, if there was one.
    pub cut: Option<Cut>,
}

/// A store and the queue before it.
///
/// The host hands requests over with [`serve`](Self::serve), calls [`flush`](Self::flush) when it
/// has no more at hand (so that all of them share one flush), and then [`poll`](Self::poll) until
/// [`wants_poll`](Self::wants_poll) says that there is nothing left to do now; and again when a
/// flush of one of the disks has completed, where that is later.
///
/// Requests take effect in the order in which they are served. A read sees what was appended
/// before it, durable or not, and nothing that was appended later, however many chunks it takes.
/// So replies to `Open`, `Read` and `Changes` may go out before what they tell of is durable: an
/// owner that acts on them towards others waits for a ticket of its own, or says hello first,
/// whose `Ready` covers all that was in the log.
#[derive(Debug)]
pub struct PageServer<D> {
    store: Store<D>,
    owners: Owners,
    promises: Promises,
    /// Documents of which an append of this owner failed, until it opens them anew.
    refused: BTreeMap<(OwnerId, DocumentKey), AppendError>,
    /// Served a chunk each in turn.
    reads: VecDeque<ActiveRead>,
    /// What came in while the log changes over.
    waiting: VecDeque<(OwnerId, StoreRequest)>,
    /// A flush was asked for meanwhile.
    flush_wanted: bool,
    broken: Option<AppendError>,
    replies: Vec<(OwnerId, StoreReply)>,
}

impl<D: Disk> PageServer<D> {
    /// Opens the store in these files, or begins one if they are empty.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; the files are then as they were.
    pub fn open(files: StoreFiles<D>) -> Result<(Self, RecoveryReport), OpenError> {
        Self::open_with(files, StoreOptions::default())
    }

    /// Opens a store with other sizes than the usual ones.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(
        files: StoreFiles<D>,
        options: StoreOptions,
    ) -> Result<(Self, RecoveryReport), OpenError> {
        let (mut store, log) = Store::open(files, options)?;
        // What was found may still be in the caches of the system, where a killed process left
        // it.
        store.log.request_flush()?;
        let report = RecoveryReport {
            is_new: log.is_new,
            documents: store.catalog.documents.len(),
            generation: log.generation,
            log_size: log.size,
            batches: log.batches,
            epoch: store.catalog.epoch,
            cut: log.cut,
        };
        let server = Self {
            store,
            owners: Owners::default(),
            promises: Promises::default(),
            refused: BTreeMap::new(),
            reads: VecDeque::new(),
            waiting: VecDeque::new(),
            flush_wanted: false,
            broken: None,
            replies: Vec::new(),
        };
        Ok((server, report))
    }

    /// Carries out a request, after all that were served before it.
    pub fn serve(&mut self, owner: OwnerId, request: StoreRequest) {
        if let Some(error) = &self.broken {
            self.replies.push((owner, StoreReply::Broken { error: error.clone() }));
        } else if self.store.change_over.is_some() {
            self.waiting.push_back((owner, request));
        } else {
            self.carry_out(owner, request);
        }
    }

    /// Writes what was appended and asks for one flush of all of it.
    pub fn flush(&mut self) {
        if self.store.change_over.is_some() {
            self.flush_wanted = true;
        } else if self.broken.is_none() {
            self.or_break(|server| {
                server.write_log()?;
                Ok(server.store.log.request_flush()?)
            });
        }
    }

    /// Does what can be done now, a chunk of each read among it, and gives the replies.
    pub fn poll(&mut self) -> Vec<(OwnerId, StoreReply)> {
        if self.broken.is_none() {
            self.or_break(Self::work);
        }
        std::mem::take(&mut self.replies)
    }

    /// Whether another [`poll`](Self::poll) has something to do now, without any flush
    /// completing.
    #[must_use]
    pub fn wants_poll(&self) -> bool {
        let can_work = !self.reads.is_empty() || self.store.wants_change_over();
        !self.replies.is_empty() || (self.broken.is_none() && can_work)
    }

    /// Forgets an owner that went away, and what it asked for. What it appended stays.
    pub fn forget_owner(&mut self, owner: OwnerId) {
        self.owners.forget(owner);
        self.reads.retain(|read| read.owner != owner);
        self.waiting.retain(|(from, _)| *from != owner);
        self.promises.forget(owner);
        self.refused.retain(|(from, _), _| *from != owner);
        self.replies.retain(|(to, _)| *to != owner);
    }

    /// Whether the store has to be opened anew: nobody is served any more.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// The highest epoch granted.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.store.catalog.epoch
    }

    fn or_break(&mut self, work: impl FnOnce(&mut Self) -> Result<(), Fault>) {
        if let Err(fault) = work(self) {
            let error = fault.to_append_error();
            for owner in self.owners.known() {
                self.replies.push((owner, StoreReply::Broken { error: error.clone() }));
            }
            self.broken = Some(error);
        }
    }

    fn work(&mut self) -> Result<(), Fault> {
        self.keep_promises()?;
        if self.store.change_over.is_none() {
            self.serve_chunks()?;
            // What is settled already need not wait for a change-over; but a busy store must not
            // put it off for ever.
            let is_late = self.store.log.size() >= 2 * self.store.change_over_at;
            if !self.store.wants_change_over() || !(self.replies.is_empty() || is_late) {
                return Ok(());
            }
            self.begin_change_over()?;
        }
        if self.store.change_over.is_some() && self.store.advance()? {
            self.keep_promises()?;
            self.serve_waiting()?;
        }
        Ok(())
    }

    fn begin_change_over(&mut self) -> Result<(), Fault> {
        while !self.reads.is_empty() {
            self.serve_chunks()?;
        }
        self.write_log()?;
        self.store.begin_change_over()
    }

    fn serve_waiting(&mut self) -> Result<(), Fault> {
        for (owner, request) in std::mem::take(&mut self.waiting) {
            self.carry_out(owner, request);
        }
        if std::mem::take(&mut self.flush_wanted) && self.broken.is_none() {
            self.write_log()?;
            self.store.log.request_flush()?;
        }
        Ok(())
    }

    /// Says what is durable by now.
    fn keep_promises(&mut self) -> Result<(), Fault> {
        let durable = self.store.log.poll_flushed()?;
        // What was found at opening is durable only since the first flush after it.
        if self.store.log.is_found_durable() {
            self.promises.keep(durable, &mut self.replies);
        }
        Ok(())
    }

    fn carry_out(&mut self, owner: OwnerId, request: StoreRequest) {
        let admitted = match request {
            StoreRequest::Hello { .. } => self.owners.take_over(owner, self.epoch()),
            _ => self.owners.admit(owner, self.epoch()),
        };
        if let Err(error) = admitted {
            self.replies.push((owner, refusal(&request, error)));
            return;
        }
        self.or_break(|server| server.carry_out_admitted(owner, request));
    }

    fn carry_out_admitted(&mut self, owner: OwnerId, request: StoreRequest) -> Result<(), Fault> {
        match request {
            StoreRequest::Hello { epoch } => self.hello(owner, epoch),
            StoreRequest::Open { document } => self.open_document(owner, document)?,
            StoreRequest::Append { ticket, append } => self.append(owner, ticket, append),
            StoreRequest::Read { request, document, pgids } => {
                let places = self.store.places(&document, &pgids);
                let answer = Answer::Pages;
                self.reads.push_back(ActiveRead { owner, request, document, places, answer });
            }
            StoreRequest::Changes { request, document, since } => {
                self.changes(owner, request, document, since);
            }
            StoreRequest::Destroy { ticket, document } => self.destroy(owner, ticket, document),
            StoreRequest::List { request } => {
                let documents = self.store.catalog.numbers.keys().cloned().collect();
                self.replies.push((owner, StoreReply::Documents { request, documents }));
            }
        }
        if self.store.log.buffered() > LOG_BUFFER_SIZE_MAX {
            self.write_log()?;
        }
        Ok(())
    }

    fn hello(&mut self, owner: OwnerId, wanted: Epoch) {
        let epoch = wanted.max(Epoch(self.epoch().0.saturating_add(1)));
        self.store.record_epoch(epoch);
        let batch = self.store.log.committed();
        self.promises.ready(batch, owner, epoch);
    }

    fn open_document(&mut self, owner: OwnerId, document: DocumentKey) -> Result<(), Fault> {
        // A full device is better met before saying where the document stands.
        self.write_log()?;
        self.refused.remove(&(owner, document.clone()));
        let number = self.store.catalog.numbers.get(&document).copied();
        let state = match number.map(|number| self.store.opened(number)).transpose() {
            Ok(state) => state.map(Box::new),
            Err(fault) => return self.meet(owner, fault),
        };
        self.replies.push((owner, StoreReply::Opened { document, state }));
        Ok(())
    }

    fn append(&mut self, owner: OwnerId, ticket: Ticket, append: Append) {
        let key = (owner, append.document.clone());
        let refused = self.refused.get(&key).cloned();
        let current = self.store.catalog.get(&append.document);
        let decided = refused.map_or_else(|| append::decide(&append, current), Err);
        match decided {
            Ok(steps) => {
                let number = self.store.catalog.number_for(&append.document);
                self.store.record(number, &steps);
                self.promise(owner, ticket, key.1);
            }
            Err(error) => {
                self.refused.insert(key, error.clone());
                self.replies.push((owner, StoreReply::AppendFailed { ticket, error }));
            }
        }
    }

    fn destroy(&mut self, owner: OwnerId, ticket: Ticket, document: DocumentKey) {
        if let Some(number) = self.store.catalog.numbers.get(&document).copied() {
            self.store.record_destroy(number);
        }
        self.promise(owner, ticket, document);
    }

    fn promise(&mut self, owner: OwnerId, ticket: Ticket, document: DocumentKey) {
        self.promises.durable(self.store.log.committed(), owner, ticket, document);
    }

    fn changes(&mut self, owner: OwnerId, request: u64, document: DocumentKey, since: Lsn) {
        let active = self.store.log.active();
        let stored = self.store.catalog.get(&document);
        let places = stored.into_iter().flat_map(|stored| {
            let newer = stored.pages.iter().filter(|(_, entry)| entry.lsn >= since);
            newer.map(|(pgid, entry)| entry.place(stored.incarnation, *pgid, active))
        });
        let places = places.collect();
        let db_pages = stored.map_or(0, |stored| stored.db_pages);
        let position = stored.and_then(|stored| stored.storage);
        let set = PageSet { db_pages, pages: BTreeMap::new() };
        let answer = Answer::Changes { position, set };
        self.reads.push_back(ActiveRead { owner, request, document, places, answer });
    }

    /// Gives every active read its turn.
    fn serve_chunks(&mut self) -> Result<(), Fault> {
        for mut read in std::mem::take(&mut self.reads) {
            let (reply, is_done) = match read.serve_chunk(&mut self.store) {
                Ok(served) => served,
                Err(fault) => {
                    self.meet(read.owner, fault)?;
                    continue;
                }
            };
            self.replies.extend(reply.map(|reply| (read.owner, reply)));
            if !is_done {
                self.reads.push_back(read);
            }
        }
        Ok(())
    }

    /// Damage concerns the one who met it; a device that fails concerns everybody.
    fn meet(&mut self, owner: OwnerId, fault: Fault) -> Result<(), Fault> {
        if !matches!(fault, Fault::Damaged { .. }) {
            return Err(fault);
        }
        let error = fault.to_append_error();
        self.owners.break_off(owner, error.clone());
        self.reads.retain(|read| read.owner != owner);
        self.replies.push((owner, StoreReply::Broken { error }));
        Ok(())
    }

    /// Writes what was appended. If there is no room for it, it is as if it had never been.
    fn write_log(&mut self) -> Result<(), Fault> {
        match self.store.log.write() {
            Ok(()) => Ok(()),
            Err(error) if error.is_full() => self.take_back(),
            Err(error) => Err(error.into()),
        }
    }

    fn take_back(&mut self) -> Result<(), Fault> {
        // These were asked before it was known, and are answered from the buffer.
        while !self.reads.is_empty() {
            self.serve_chunks()?;
        }
        let written = self.store.log.written();
        let batch = self.store.discard()?;
        for key in self.promises.take_back(written, batch) {
            self.refused.insert(key, AppendError::Full);
        }
        Ok(self.store.log.request_flush()?)
    }
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
        let documents = self.store.catalog.documents.len();
        write!(f, "documents {documents} epoch {} | {}", self.epoch(), self.store.log)?;
        let (promises, reads) = (self.promises.count(), self.reads.len());
        write!(f, " | promises {promises} reads {reads} waiting {}", self.waiting.len())
    }
}
