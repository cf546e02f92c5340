//! The log, the page file and what is known of them.

use std::sync::Arc;

use tidelog_disk::{Disk, StoreFiles};
use tidelog_journal::{BatchNumber, Damage, Log, LogReport, Seed};
use tidelog_types::limits::{
    LOG_BUFFER_SIZE_MAX, LOG_SIZE_MAX, Limits, PAGE_SIZE, STORE_POOL_PAGES_MAX,
};
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{Epoch, Life, Page};

use crate::append::{Recorder, Step};
use crate::catalog::Catalog;
use crate::change_over::{ChangeOver, Room};
use crate::document::Standing;
use crate::error::Fault;
use crate::frame_body::Kind;
use crate::page_file::PageFile;
use crate::place::{PageAt, PagePlace};
use crate::pool::{Pool, PoolKey};
use crate::reads::{Answer, Plan};
use crate::report::DamageReport;
use crate::{OpenError, OpenedDocument, TimelineState};

/// What may differ from one host of a store to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The life that this opening of the store is, for owners that have none of their own.
    pub life: Life,
    /// Bytes of log after which the store checkpoints and changes over to the other log file.
    pub log_size_max: u64,
    /// Pages in the buffer pool.
    pub pool_pages_max: usize,
    /// Bytes of appends that are kept in memory before they are written out.
    pub log_buffer_size_max: usize,
    /// How much it keeps and serves.
    pub limits: Limits,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            life: Life::NONE,
            log_size_max: LOG_SIZE_MAX,
            pool_pages_max: STORE_POOL_PAGES_MAX,
            log_buffer_size_max: LOG_BUFFER_SIZE_MAX,
            limits: Limits::DEFAULT,
        }
    }
}

/// The store at rest, without the queue before it: see [`PageServer`](crate::PageServer).
#[derive(Debug)]
pub(crate) struct Store<D> {
    pub log: Log<D>,
    pub pages: PageFile<D>,
    /// Open so that nobody else has it.
    _spare: D,
    pub catalog: Catalog,
    pub pool: Pool,
    pub options: StoreOptions,
    pub change_over: Option<ChangeOver>,
    /// Size of the log at which to change over.
    pub change_over_at: u64,
    pub room: Room,
    /// Whether what the files do not need any more was given back to the device.
    pub is_shed: bool,
    /// Held by every read until it ends; another one since each begin and end of a change-over.
    pub era: Arc<()>,
    /// Of earlier eras, those that may still be held.
    pub readers: Vec<Arc<()>>,
}

impl<D: Disk> Store<D> {
    pub fn open(
        files: StoreFiles<D>,
        seed: Seed,
        options: StoreOptions,
    ) -> Result<(Self, LogReport), OpenError> {
        let StoreFiles { log_a, log_b, pages, spare } = files;
        let pages = PageFile::open(pages)?;
        let mut catalog = Catalog::new(pages.slots());
        let (log, report) = Log::recover([log_a, log_b], pages.witness(), seed, &mut |found| {
            catalog.take_in(found)
        })?;
        if pages.is_unusable() && catalog.extents.count() > 0 {
            return Err(OpenError::DamagedPageFile);
        }
        let change_over_at = options.log_size_max.max(2 * log.state_size());
        let pool = Pool::new(options.pool_pages_max);
        let store = Self {
            log,
            pages,
            _spare: spare,
            catalog,
            pool,
            options,
            change_over: None,
            change_over_at,
            room: Room::Plenty,
            is_shed: false,
            era: Arc::new(()),
            readers: Vec::new(),
        };
        Ok((store, report))
    }

    /// Whether the page file says that there is a log: before anything in that is called durable,
    /// so that it cannot get lost and be taken for one that never was.
    pub fn is_attested(&mut self) -> Result<bool, Fault> {
        Ok(self.log.is_damaged() || self.pages.attest()?)
    }

    /// Adds what was decided to the log, as one batch, and to the catalog. A batch that is larger
    /// than what is kept in memory is written as it is put together.
    ///
    /// # Errors
    ///
    /// Part of it could not be written. It is in memory all the same, as after any append whose
    /// write fails.
    pub fn record(&mut self, document: u64, steps: &[Step<'_>]) -> Result<(), Fault> {
        let pages_max = self.options.limits.frame_pages_max;
        let sizes = steps.iter().map(|step| step.size(pages_max));
        let (frames, size) = sizes.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let mut recorder = self.recorder(document, self.catalog.epoch);
        if size > recorder.buffer_size_max {
            reached(Probe::BatchWrittenInParts);
            recorder.parts = Some((0, frames));
        }
        steps.iter().for_each(|step| recorder.step(step));
        recorder.commit()?;
        for step in steps {
            match step {
                Step::StorageEntry(entry) | Step::StoragePages(entry) => {
                    self.pool_pages(document, &entry.set.pages);
                }
                // Of the document that had the name before.
                Step::TakeName(_) => self.room.more(),
                _ => {}
            }
        }
        Ok(())
    }

    /// Adds a grant of this epoch to the log. Where nothing can be written, nobody can be fenced
    /// off either, and the epoch counts as long as the store is open.
    pub fn record_epoch(&mut self, epoch: Epoch) -> Result<(), Fault> {
        assert!(epoch > self.catalog.epoch, "BUG: an epoch granted twice");
        if self.log.is_damaged() {
            self.catalog.epoch = epoch;
            return Ok(());
        }
        let mut recorder = self.recorder(0, epoch);
        recorder.frame(recorder.head(Kind::Epoch), &[]);
        // Without an epoch nobody could even read.
        self.log.commit_from_reserve();
        Ok(())
    }

    /// Adds to the log that a document is forgotten.
    pub fn record_destroy(&mut self, document: u64) {
        let mut recorder = self.recorder(document, self.catalog.epoch);
        recorder.frame(recorder.head(Kind::Destroy), &[]);
        // It makes room.
        self.log.commit_from_reserve();
        self.room.more();
    }

    fn recorder(&mut self, document: u64, epoch: Epoch) -> Recorder<'_, D> {
        Recorder {
            log: &mut self.log,
            catalog: &mut self.catalog,
            document,
            epoch,
            buffer_size_max: self.options.log_buffer_size_max,
            frame_pages_max: self.options.limits.frame_pages_max,
            parts: None,
            written: Ok(()),
        }
    }

    /// What was just appended is read back soon, by the followers of the document.
    fn pool_pages(
        &mut self,
        number: u64,
        pages: &std::collections::BTreeMap<tidelog_types::Pgid, Page>,
    ) {
        let Some(document) = self.catalog.documents.get(&number) else { return };
        for (pgid, page) in pages {
            if let Some(version) = document.pages.newest(*pgid) {
                let (incarnation, lsn) = (document.incarnation, version.lsn);
                self.pool.insert(PoolKey { incarnation, pgid: *pgid, lsn }, page.clone());
            }
        }
    }

    /// Forgets the batches that could not be written, in the log and in the catalog. Once the
    /// given number is durable they will never be found again.
    pub fn discard(&mut self) -> Result<BatchNumber, Fault> {
        let number = self.log.discard()?;
        self.room.missing();
        self.pool.clear();
        let mut catalog = Catalog::new(self.pages.slots());
        self.log.replay(&mut |found| catalog.take_in(found)).map_err(Fault::Log)?;
        self.catalog = catalog;
        Ok(number)
    }

    /// Reads a page and makes sure that it is what was written.
    pub fn fetch(&mut self, place: &PagePlace) -> Result<Page, Fault> {
        if let Some(page) = self.pool.get(place.key) {
            return Ok(page);
        }
        let mut bytes = [0; PAGE_SIZE];
        self.read_at(place.at, &mut bytes)?;
        let page = place.checked(&bytes)?;
        self.pool.insert(place.key, page.clone());
        Ok(page)
    }

    /// Reads pages past the pool, those that lie side by side with one call: in some browsers a
    /// call takes as long for one page as for many.
    pub fn read_pages(&self, places: &[PagePlace]) -> Result<Vec<u8>, Fault> {
        let mut bytes = vec![0; places.len() * PAGE_SIZE];
        let mut rest = bytes.as_mut_slice();
        for run in places.chunk_by(|one, next| next.at.follows(one.at)) {
            let (pages, after) = rest.split_at_mut(run.len() * PAGE_SIZE);
            self.read_at(run[0].at, pages)?;
            for (place, page) in run.iter().zip(pages.chunks_exact(PAGE_SIZE)) {
                place.check(page)?;
            }
            rest = after;
        }
        Ok(bytes)
    }

    /// Fills `bytes` from a place on, whatever is there.
    pub fn read_at(&self, at: PageAt, bytes: &mut [u8]) -> Result<(), Fault> {
        match at {
            PageAt::Log(file, offset) => self.log.read_at(file, offset, bytes)?,
            PageAt::Slot(slot) => self.pages.read(slot, bytes)?,
        }
        Ok(())
    }

    /// What this damage to the log means.
    pub fn damage_report(&self, places: Vec<Damage>) -> Option<DamageReport> {
        if places.is_empty() {
            return None;
        }
        let documents = self.catalog.documents.values();
        let incomplete = documents.filter(|document| document.standing != Standing::Whole);
        let mut incomplete: Vec<_> = incomplete.map(|document| document.key.clone()).collect();
        incomplete.sort_unstable();
        Some(DamageReport { places, incomplete, nameless: self.catalog.nameless.len() })
    }

    /// Where a document stands; its timeline is to be read back from the log.
    pub fn opened(&mut self, number: u64) -> Result<Plan, Fault> {
        let document = self.catalog.documents.get(&number).expect("BUG: a number in use");
        let timeline = document.timeline.as_ref();
        let frames = timeline.map(|timeline| self.timeline(timeline)).unwrap_or_default();
        let timeline = timeline.map(|timeline| TimelineState {
            journal: timeline.journal,
            range: timeline.range(),
            frames: Vec::with_capacity(frames.len()),
        });
        let first = document.place(tidelog_types::Pgid(1), self.log.active());
        let mut state = Box::new(OpenedDocument {
            record: document.record.clone(),
            timeline,
            storage: document.storage,
            db_pages: document.db_pages,
            calls: document.calls.iter().copied().collect(),
            first_page: None,
            is_incomplete: document.standing != Standing::Whole,
        });
        state.first_page = match first.map(|place| self.fetch(&place)).transpose() {
            // Whoever needs it asks for it, and is told.
            Err(Fault::Damaged { .. }) => None,
            first_page => first_page?,
        };
        Ok(Plan::of_frames(frames, Answer::Opened { life: self.options.life, state: Some(state) }))
    }
}
