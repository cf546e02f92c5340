//! Putting what was decided into the log and into the catalog, a piece at a time.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use tidelog_disk::Disk;
use tidelog_journal::{BatchPart, DocumentNumber, FoundFrame, FrameHead, Log};
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{Budget, Epoch, JournalId, Lsn, LsnRange, Page, Pgid, coded};

use super::Store;
use crate::StorageEntry;
use crate::append::{Step, StepSize, has_calls_frame};
use crate::catalog::Catalog;
use crate::error::StoreError;
use crate::frame_body::{Kind, ListedPage, PageList, encode_append_id, encode_calls, encode_key};
use crate::pool::{BufferPool, PoolKey};

/// Pieces of the log of which one version of a page is made at most: as many reads it takes.
const PIECES_MAX: usize = 32;
/// Bytes of a difference from the version before, at most: with more, that version is not worth
/// another read.
const DIFFERENCE_SIZE_MAX: usize = PAGE_SIZE / 4;

/// An append on its way into the log, as one batch.
///
/// One that costs more than a slice of work is put together and written a piece at a time, as a
/// batch of which it is known how many frames it has. The catalog has a part of it then, so nothing
/// else is asked of that until all of it is there.
#[derive(Debug)]
pub(crate) struct Recording {
    document: DocumentNumber,
    steps: VecDeque<Step>,
    /// Of a batch that is put together in pieces: the frames that are there, of so many.
    parts: Option<BatchPart>,
}

impl Recording {
    /// Whether a piece of it can be recorded now: where nothing may be written, no batch is begun
    /// that does not fit into memory.
    pub fn can_go_on<D: Disk>(&self, store: &Store<D>) -> bool {
        store.log.may_write() || self.parts.is_none_or(|(there, _)| there > 0)
    }
}

/// Puts frames into a log's batch and into the catalog.
struct Recorder<'a, D> {
    log: &'a mut Log<D>,
    catalog: &'a mut Catalog,
    pool: &'a BufferPool,
    /// What lies before it in the log is no base of a difference.
    bases_from: u64,
    document: DocumentNumber,
    epoch: Epoch,
    parts: Option<BatchPart>,
}

impl<D: Disk> Store<D> {
    /// Begins to record what was decided for a document.
    pub fn begin_recording(&self, document: DocumentNumber, steps: VecDeque<Step>) -> Recording {
        let pages_max = self.options.limits.frame_pages_max;
        let StepSize { frames, pages, bytes } =
            steps.iter().map(|step| step.size(pages_max)).fold(StepSize::default(), |a, b| a + b);
        let slice = self.options.limits.slice;
        let fits = pages as u64 <= slice.pages
            && bytes as u64 <= slice.bytes
            && pages * PAGE_SIZE + bytes <= self.options.log_buffer_size_max;
        let parts = if fits || frames == 0 {
            None
        } else {
            reached(Probe::BatchWrittenInParts);
            Some((0, u32::try_from(frames).expect("BUG: a batch of 2^32 frames")))
        };
        Recording { document, steps, parts }
    }

    /// What was not recorded to its end is taken back with all that waits to be written.
    pub fn give_up(&mut self) {
        self.log.give_up_parts();
    }

    /// Goes on with it until the budget is spent. Answers whether all of it is there.
    ///
    /// # Errors
    ///
    /// Part of it could not be written. In memory it counts as there, as any append does whose
    /// write fails, until it is [discarded](Self::end_discarding).
    pub fn record(
        &mut self,
        recording: &mut Recording,
        budget: &mut Budget,
    ) -> Result<bool, StoreError> {
        let is_in_parts = recording.parts.is_some();
        if matches!(recording.parts, Some((0, _))) {
            // What is before it keeps its slots, whatever becomes of this one.
            self.write().inspect_err(|_| self.log.give_up_parts())?;
        }
        while let Some(step) = recording.steps.pop_front() {
            let (rest, cost) = self.record_piece(recording, step);
            rest.into_iter().for_each(|rest| recording.steps.push_front(rest));
            if !is_in_parts {
                continue;
            }
            let is_amid = recording.parts.is_some_and(|(there, count)| there < count);
            if is_amid && self.log.buffered() > self.options.log_buffer_size_max {
                self.write_parts().inspect_err(|_| self.log.give_up_parts())?;
            }
            budget.spend_steps(1);
            budget.spend_pages(cost.pages as u64);
            budget.spend_bytes(cost.bytes as u64);
            // A batch of which all is there is ended at once, before anything is held.
            if is_amid && budget.is_spent() {
                reached(Probe::AppendSliced);
                return Ok(false);
            }
        }
        if is_in_parts {
            self.log.commit_parts();
        } else {
            self.log.commit();
        }
        Ok(true)
    }

    fn write_parts(&mut self) -> Result<(), StoreError> {
        self.write_with_slots(Log::write_parts)
    }

    /// Records a step, or of one with many pages as many as fit into one frame. Gives what is left
    /// of it, and what that took.
    fn record_piece(&mut self, recording: &mut Recording, step: Step) -> (Option<Step>, StepSize) {
        let pages_max = self.options.limits.frame_pages_max;
        let number = recording.document;
        let cost = step.size(pages_max);
        let mut recorder = self.recorder(number, self.catalog.epoch);
        recorder.parts = recording.parts;
        let (rest, pages) = match step {
            Step::StorageEntry(mut entry) if entry.set.pages.len() > pages_max => {
                let pages = recorder.storage_pages(&mut entry, pages_max);
                (Some(Step::StorageEntry(entry)), pages)
            }
            Step::StorageEntry(entry) => (None, recorder.storage_entry(entry)),
            Step::StoragePages(entry) if entry.set.pages.is_empty() => (None, None),
            Step::StoragePages(mut entry) => {
                let pages = recorder.storage_pages(&mut entry, pages_max);
                (Some(Step::StoragePages(entry)), pages)
            }
            step => {
                let takes_name = matches!(step, Step::TakeName(_));
                recorder.small_step(step);
                recording.parts = recorder.parts;
                if takes_name {
                    // Of the document that had the name before.
                    self.space.more();
                }
                return (None, cost);
            }
        };
        recording.parts = recorder.parts;
        let mut pages_count = 0;
        if let Some((lsn, pages)) = pages {
            pages_count = pages.len();
            self.pool_pages(number, lsn, pages);
        }
        (rest, StepSize { pages: pages_count, ..cost })
    }

    /// What was just appended is read back soon, by the followers of the document.
    fn pool_pages(&mut self, number: DocumentNumber, lsn: Lsn, pages: BTreeMap<Pgid, Page>) {
        let begun = self.catalog.documents[&number].begun;
        for (pgid, page) in pages {
            self.pool.insert(PoolKey { document: number, begun, pgid, lsn }, page);
        }
    }

    /// Adds a grant of this epoch to the log. Where nothing can be written, nobody can be fenced
    /// off either, and the epoch counts as long as the store is open.
    pub fn record_epoch(&mut self, epoch: Epoch) {
        assert!(epoch > self.catalog.epoch, "BUG: an epoch granted twice");
        if self.log.is_damaged() {
            self.catalog.epoch = epoch;
            return;
        }
        let mut recorder = self.recorder(DocumentNumber(0), epoch);
        recorder.frame(recorder.head(Kind::Epoch), &[]);
        // Without an epoch nobody could even read.
        self.log.commit_from_reserve();
    }

    /// Adds to the log that a document is forgotten.
    pub fn record_destroy(&mut self, document: DocumentNumber) {
        let mut recorder = self.recorder(document, self.catalog.epoch);
        recorder.frame(recorder.head(Kind::Destroy), &[]);
        // It makes room.
        self.log.commit_from_reserve();
        self.space.more();
    }

    fn recorder(&mut self, document: DocumentNumber, epoch: Epoch) -> Recorder<'_, D> {
        let Self { log, catalog, unwritten, pool, bases_from, .. } = self;
        unwritten.insert(document);
        Recorder { log, catalog, pool, bases_from: *bases_from, document, epoch, parts: None }
    }
}

/// Pages that were recorded, and the LSN that they carry.
type Recorded = Option<(Lsn, BTreeMap<Pgid, Page>)>;

impl<D: Disk> Recorder<'_, D> {
    /// Records a step that is one frame.
    fn small_step(&mut self, step: Step) {
        match step {
            Step::Create(key) => self.frame(self.head(Kind::Document), &[&encode_key(&key)]),
            Step::Record(record) => self.frame(self.head(Kind::Record), &[&record]),
            Step::TimelineBegin(journal, start) => {
                self.frame(self.timeline_head(Kind::TimelineBegin, journal, start), &[]);
            }
            Step::TimelineEntry(journal, frame) => {
                let mut head = self.timeline_head(Kind::TimelineEntry, journal, frame.lsn);
                head.lsns = Some(LsnRange::one(frame.lsn));
                head.call = Some(frame.call);
                self.frame(head, &[&frame.body]);
            }
            Step::TimelineTrim(journal, floor) => {
                self.frame(self.timeline_head(Kind::TimelineTrim, journal, floor), &[]);
            }
            Step::StorageBegin(journal) => {
                let begun = self.catalog.documents[&self.document].begun;
                let lsns = Some(LsnRange::empty_at(Lsn::FIRST.plus(begun)));
                self.frame(FrameHead { journal, lsns, ..self.head(Kind::StorageBegin) }, &[]);
            }
            Step::StorageLife(journal, life) => {
                self.frame(FrameHead { journal, ..self.head(Kind::StorageLife) }, &[&life.0]);
            }
            Step::TakeName(key) => self.frame(self.head(Kind::TakeName), &[&encode_key(&key)]),
            Step::Handed(id) => self.frame(self.head(Kind::Handed), &[&encode_append_id(id)]),
            Step::StorageEntry(_) | Step::StoragePages(_) => {
                unreachable!("BUG: it may be many frames")
            }
        }
    }

    fn head(&self, kind: Kind) -> FrameHead {
        FrameHead::new(kind as u8, self.document, self.epoch)
    }

    fn timeline_head(&self, kind: Kind, journal: JournalId, place: Lsn) -> FrameHead {
        FrameHead { journal, lsns: Some(LsnRange::empty_at(place)), ..self.head(kind) }
    }

    /// Adds one frame. Of a body in parts the catalog sees the first.
    fn frame(&mut self, head: FrameHead, body: &[&[u8]]) {
        let head = FrameHead { nth: self.catalog.nth(head.document), ..head };
        let place = match &mut self.parts {
            None => self.log.push(&head, body),
            Some(part) => {
                let place = self.log.push_part(&head, body, *part);
                part.0 += 1;
                place
            }
        };
        let seen = body.first().copied().unwrap_or_default();
        let answer = self.catalog.apply(&FoundFrame { place, head, body: seen });
        answer.expect("BUG: an append was decided that cannot be applied");
    }

    /// Records the rest of an entry, which fits into one frame.
    fn storage_entry(&mut self, entry: StorageEntry) -> Recorded {
        let (journal, lsns) = (entry.position.journal, Some(entry.range));
        let mut call = entry.calls.first().map(|(call, _)| *call);
        if has_calls_frame(&entry) {
            let head = FrameHead { journal, lsns, ..self.head(Kind::Calls) };
            self.frame(head, &[&encode_calls(entry.calls.iter())]);
            call = None;
        }
        let chain = entry.position.chain;
        let head = FrameHead { journal, lsns, call, chain, ..self.head(Kind::StorageEntry) };
        self.pages_frame(head, entry.set.db_pages, &entry.set.pages);
        Some((last_of(entry.range), entry.set.pages))
    }

    /// Records the first pages of an entry, as many as fit into one frame.
    fn storage_pages(&mut self, entry: &mut StorageEntry, pages_max: usize) -> Recorded {
        let pages = &mut entry.set.pages;
        let first_left = pages.keys().nth(pages_max).copied();
        let left = first_left.map(|first| pages.split_off(&first)).unwrap_or_default();
        let pages = std::mem::replace(pages, left);
        let (journal, lsns) = (entry.position.journal, Some(entry.range));
        let head = FrameHead { journal, lsns, ..self.head(Kind::StoragePages) };
        self.pages_frame(head, entry.set.db_pages, &pages);
        Some((last_of(entry.range), pages))
    }

    fn pages_frame(&mut self, head: FrameHead, db_pages: u32, pages: &BTreeMap<Pgid, Page>) {
        let coded = pages.iter().map(|(pgid, page)| self.coded(*pgid, page));
        let (pages, bytes): (_, Vec<Cow<'_, [u8]>>) = coded.unzip();
        let list = PageList { db_pages, pages }.encode();
        let mut body: Vec<&[u8]> = Vec::with_capacity(1 + bytes.len());
        body.push(&list);
        body.extend(bytes.iter().map(|bytes| &**bytes));
        self.frame(head, &body);
    }

    /// A page as it goes to the log: as its difference from the version before it, where that is at
    /// hand in the log and in memory, unless so much of it is new that it is better had alone.
    fn coded<'p>(&self, pgid: Pgid, page: &'p Page) -> (ListedPage, Cow<'p, [u8]>) {
        let base = self.base(pgid).map(Page::bytes);
        let (coding, bytes) = coded(page.bytes(), base, DIFFERENCE_SIZE_MAX);
        let checksum = page.hash().checksum();
        let size = u16::try_from(bytes.len()).expect("BUG: more than a page");
        (ListedPage { pgid, checksum, coding, size }, bytes)
    }

    /// There is none for a batch that is put together in pieces: it is not over where a change-over
    /// begins meanwhile.
    fn base(&self, pgid: Pgid) -> Option<&Page> {
        if self.parts.is_some() {
            return None;
        }
        let document = self.catalog.documents.get(&self.document)?;
        let lsn = document.pages.base(pgid, self.bases_from, PIECES_MAX)?;
        let key = PoolKey { document: self.document, begun: document.begun, pgid, lsn };
        self.pool.peek(key)
    }
}

/// The LSN that the pages of an entry carry.
fn last_of(range: LsnRange) -> Lsn {
    range.start().plus(range.count() - 1)
}
