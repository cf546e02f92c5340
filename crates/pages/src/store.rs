//! The log, the page file and what is known of them.

pub(crate) mod change_over;
pub(crate) mod discarding;
mod fetch;
mod history;
mod lookups;
mod readers;
pub(crate) mod recording;
mod state_copy;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use tidelog_disk::{Disk, DiskError, StoreFiles};
use tidelog_journal::{BatchNumber, Damage, DocumentNumber, Log, LogReport, Seed};
use tidelog_types::Life;
use tidelog_types::limits::{
    DEVICE_LOG_REST_SIZE_MAX, DEVICE_LOG_SIZE_MAX, LOG_BUFFER_SIZE_MAX, LOG_SIZE_MAX, Limits,
    STORE_POOL_PAGES_MAX,
};

use crate::catalog::Catalog;
use crate::document::Standing;
use crate::error::StoreError;
use crate::page_file::PageFile;
use crate::pool::BufferPool;
use crate::space::Space;
use crate::store::readers::Readers;
use crate::{DamageReport, OpenError, RecoveryReport, StoreCut};

/// Slots that are made ahead where the device has room, so that not every new page takes a write of
/// its own; and no more than there are.
const AHEAD_SLOTS_MAX: u32 = 16;

/// What may differ from one host of a store to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The life that this opening of the store is, for owners that have none of their own.
    pub life: Life,
    /// Bytes of log after which the store checkpoints and changes over to the other log file.
    pub log_size_max: u64,
    /// Bytes of log after which it does so once nobody asks for anything: see
    /// [`PageServer::shorten_log`](crate::PageServer::shorten_log).
    pub log_rest_size_max: u64,
    /// Pages in the buffer pool.
    pub pool_pages_max: usize,
    /// Bytes of appends that are kept in memory before they are written out.
    pub log_buffer_size_max: usize,
    /// How much it keeps and serves.
    pub limits: Limits,
    /// What the time is as it is opened, in milliseconds since the epoch; 0 where nobody knows.
    pub now_ms: u64,
}

impl StoreOptions {
    /// For the store of a device that is kept in memory, with a copy elsewhere or without: a long
    /// log would spare no write that counts there, and takes room.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { log_size_max: DEVICE_LOG_REST_SIZE_MAX, ..Self::of_device() }
    }

    /// For the store of a device, in files.
    #[must_use]
    pub fn of_device() -> Self {
        Self {
            log_size_max: DEVICE_LOG_SIZE_MAX,
            log_rest_size_max: DEVICE_LOG_REST_SIZE_MAX,
            ..Self::default()
        }
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            life: Life::NONE,
            log_size_max: LOG_SIZE_MAX,
            log_rest_size_max: LOG_SIZE_MAX,
            pool_pages_max: STORE_POOL_PAGES_MAX,
            log_buffer_size_max: LOG_BUFFER_SIZE_MAX,
            limits: Limits::DEFAULT,
            now_ms: 0,
        }
    }
}

/// The store at rest, without the queue before it: see [`PageServer`](crate::PageServer).
#[derive(Debug)]
pub(crate) struct Store<D> {
    log: Log<D>,
    pages: PageFile<D>,
    /// Open so that nobody else has it.
    _spare: D,
    catalog: Catalog,
    pool: BufferPool,
    options: StoreOptions,
    space: Space,
    /// Numbers of the documents of which something was appended and is not written.
    unwritten: BTreeSet<DocumentNumber>,
    readers: Readers,
    /// What lies before it in the active log is no base of a difference: the point of the
    /// change-over that goes on, or of one that was given up. What comes behind that is copied as
    /// it is.
    bases_from: u64,
    /// When the active log was begun, in milliseconds since the epoch: long ago if nobody knew,
    /// unless it is this opening that has begun it.
    begun_ms: u64,
    is_new: bool,
    /// Whether a flush was asked for since the store was opened: what was found may still be in
    /// the caches of the system, where a killed process left it.
    is_found_flushed: bool,
}

impl<D: Disk> Store<D> {
    pub fn open(
        files: StoreFiles<D>,
        seed: Seed,
        options: StoreOptions,
    ) -> Result<(Self, RecoveryReport), OpenError> {
        let StoreFiles { log_a, log_b, pages, spare } = files;
        let mut pages = PageFile::open(pages)?;
        let mut catalog = Catalog::new(pages.slots());
        let logs = [log_a, log_b];
        let (log, report) =
            Log::recover(logs, pages.witness(), seed, options.now_ms, &mut |found| {
                catalog.take_in(found)
            })?;
        if pages.is_unusable() && catalog.extents.is_claimed() {
            return Err(OpenError::DamagedPageFile);
        }
        if !log.is_damaged() {
            pages.make_room_for_header()?;
        }
        catalog.extents.let_grow();
        let pool = BufferPool::new(options.pool_pages_max);
        let begun_ms = log.begun_ms();
        let mut store = Self {
            log,
            pages,
            _spare: spare,
            catalog,
            pool,
            options,
            space: Space::Plenty,
            unwritten: BTreeSet::new(),
            readers: Readers::default(),
            bases_from: 0,
            begun_ms,
            is_new: report.is_new,
            is_found_flushed: false,
        };
        // Nothing is written behind a torn tail before this. Else it is done with the first flush
        // that anybody asks for: whoever takes the store over waits for one, and not for two.
        if report.cut.is_some() {
            store.log.request_flush()?;
            store.is_found_flushed = true;
        }
        let report = store.recovery_report(report);
        Ok((store, report))
    }

    fn recovery_report(&self, log: LogReport) -> RecoveryReport {
        RecoveryReport {
            is_new: log.is_new,
            documents: self.catalog.documents.len(),
            generation: log.generation,
            log_size: log.size,
            batches: log.batches,
            epoch: self.catalog.epoch,
            cut: log.cut,
            damage: self.damage_report(log.damage),
        }
    }

    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// Whether nothing can be appended, since durable bytes of the log have changed.
    pub fn is_damaged(&self) -> bool {
        self.log.is_damaged()
    }

    /// Whether all that was found at opening is on the disk.
    pub fn is_found_durable(&self) -> bool {
        self.log.is_found_durable()
    }

    /// What the time is, in milliseconds since the epoch, until it is told anew.
    pub fn set_time(&mut self, now_ms: u64) {
        if std::mem::take(&mut self.is_new) {
            self.begun_ms = now_ms;
        }
        self.log.set_time(now_ms);
    }

    /// The last batch that was appended.
    pub fn committed(&self) -> BatchNumber {
        self.log.committed()
    }

    /// The last batch that was written.
    pub fn written(&self) -> BatchNumber {
        self.log.written()
    }

    /// Bytes of the log up to its end, what is not written included.
    pub fn log_size(&self) -> u64 {
        self.log.size()
    }

    /// Whether as much was appended and not written as may be kept in memory.
    pub fn is_buffer_full(&self) -> bool {
        self.log.buffered() > self.options.log_buffer_size_max
    }

    /// Writes what was appended, if there is also room for the next checkpoint of it.
    pub fn write(&mut self) -> Result<(), StoreError> {
        let before = self.log.written();
        self.write_with_slots(Log::write)?;
        if self.log.written() > before && self.log.is_reserve_low() {
            // Before nothing is left for what lets an owner in.
            self.space.missing();
        }
        if self.log.written() == self.log.committed() && !self.log.is_amid_parts() {
            self.unwritten.clear();
            self.pages.keep_reserved();
        }
        Ok(())
    }

    /// Writes to the log what has slots in the page file. Those that are only made ahead give way
    /// to it.
    fn write_with_slots(
        &mut self,
        write: impl Fn(&mut Log<D>) -> Result<(), DiskError>,
    ) -> Result<(), StoreError> {
        self.reserve_slots()?;
        let mut written = write(&mut self.log);
        let slots = self.catalog.extents.slots();
        if written.as_ref().is_err_and(DiskError::is_full) && self.pages.give_back_beyond(slots)? {
            written = write(&mut self.log);
        }
        Ok(written?)
    }

    /// Whether there is a document of this number, and all of it is written.
    pub fn is_written(&self, number: DocumentNumber) -> bool {
        self.catalog.documents.contains_key(&number) && !self.unwritten.contains(&number)
    }

    /// Makes room in the page file for all pages that are in the log or on their way there. What
    /// may take the last room there is brings no pages, and is not held up by those of others: a
    /// power cut may have taken back what the file had grown by.
    fn reserve_slots(&mut self) -> Result<(), StoreError> {
        let has_more = self.log.written() < self.log.committed() || self.log.is_amid_parts();
        if !has_more || !self.log.may_write() || !self.log.needs_reserve() {
            return Ok(());
        }
        let slots = self.catalog.extents.slots();
        let ahead = if self.space.is_plenty() { slots.min(AHEAD_SLOTS_MAX) } else { 0 };
        Ok(self.pages.reserve(&(slots..=slots.saturating_add(ahead)))?)
    }

    /// Whether something may be written now.
    pub fn may_write(&self) -> bool {
        self.log.may_write()
    }

    /// Writes nothing more to the log, for good: what is appended is there in memory alone.
    pub fn leave_alone(&mut self) {
        self.log.leave_alone();
    }

    /// Whether something that waits to be written must leave the reserve of the log alone.
    pub fn needs_reserve(&self) -> bool {
        self.log.needs_reserve()
    }

    pub fn request_flush(&mut self) -> Result<(), StoreError> {
        self.log.request_flush()?;
        self.is_found_flushed = true;
        Ok(())
    }

    /// Whether batches that had to wait may be written and flushed now.
    pub fn owes_flush(&self) -> bool {
        self.log.owes_flush()
    }

    pub fn mark_durable(&mut self) -> Result<(), StoreError> {
        Ok(self.log.mark_durable()?)
    }

    /// The last batch that is durable; `None` as long as not even what was found at opening is.
    pub fn poll_durable(&mut self) -> Result<Option<BatchNumber>, StoreError> {
        // Whoever has appended something asks for a flush of it.
        if !self.is_found_flushed && self.log.written() == self.log.committed() {
            self.request_flush()?;
        }
        let durable = self.log.poll_flushed()?;
        // What was found at opening is durable only since the first flush after it.
        let is_known = self.log.is_found_durable() && self.is_attested()?;
        Ok(is_known.then_some(durable))
    }

    /// Held by a read until it ends: nothing is written over the places that it knows.
    pub fn reader(&self) -> Arc<()> {
        self.readers.era()
    }

    /// How the files stand now, held until whoever copies them has done so. What a change-over that
    /// goes on writes over, at the slots of pages, is newer in the log before its point, and that
    /// is before the end of what is written; one that begins later waits for its readers first.
    pub fn cut(&self) -> Result<StoreCut, StoreError> {
        // What lies behind the last slot that is taken may be given back at any time.
        let pages_size = self.pages.size_up_to(self.catalog.extents.slots());
        let log_size = self.log.written_size();
        let (log, log_head) = (self.log.active(), self.log.head()?);
        Ok(StoreCut { log, log_head, log_size, pages_size, _era: self.readers.era() })
    }

    /// Gives back what is kept in memory for the next reads.
    pub fn clear_pool(&mut self) {
        self.pool.clear();
    }

    /// Whether the page file says that there is a log: before anything in that is called durable,
    /// so that it cannot get lost and be taken for one that never was.
    fn is_attested(&mut self) -> Result<bool, StoreError> {
        Ok(self.log.is_damaged() || self.pages.attest()?)
    }

    /// What this damage to the log means.
    fn damage_report(&self, places: Vec<Damage>) -> Option<DamageReport> {
        if places.is_empty() {
            return None;
        }
        let documents = self.catalog.documents.values();
        let incomplete = documents.filter(|document| document.standing != Standing::Whole);
        let mut incomplete: Vec<_> = incomplete.map(|document| document.key.clone()).collect();
        incomplete.sort_unstable();
        Some(DamageReport { places, incomplete, nameless: self.catalog.nameless.len() })
    }
}

impl<D: Disk> fmt::Display for Store<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Catalog { documents, epoch, .. } = &self.catalog;
        write!(f, "documents {} epoch {epoch} | {}", documents.len(), self.log)
    }
}
