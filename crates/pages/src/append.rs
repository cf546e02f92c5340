//! Deciding which frames an append is, and writing them.

use tidelog_disk::{Disk, DiskError};
use tidelog_journal::{BatchPart, FoundFrame, FrameHead, FramePlace, Log};
use tidelog_types::limits::{
    DOCUMENT_NAME_SIZE_MAX, ENTRY_PAGES_MAX, FRAME_BODY_SIZE_MAX, FRAME_PAGES_MAX, PAGE_SIZE,
};
use tidelog_types::{DocumentKey, Epoch, JournalId, Lsn, LsnRange, Page, Pgid};

use crate::catalog::Catalog;
use crate::document::StoredDocument;
use crate::error::Fault;
use crate::kind::{Kind, PageList, encode_calls, encode_key};
use crate::{Append, AppendError, StorageEntry, TimelineFrame};

/// One thing that an append changes. What is in the log already is not among them.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    Create(&'a DocumentKey),
    Record(&'a [u8]),
    TimelineBegin(JournalId, Lsn),
    TimelineEntry(JournalId, &'a TimelineFrame),
    TimelineTrim(JournalId, Lsn),
    StorageBegin(JournalId),
    StorageEntry(&'a StorageEntry),
}

impl Step<'_> {
    /// How many frames it is, and about how many bytes.
    pub fn size(&self) -> (u32, usize) {
        match self {
            Self::Record(record) => (1, record.len()),
            Self::TimelineEntry(_, frame) => (1, frame.body.len()),
            Self::StorageEntry(entry) => {
                let pages = entry.set.pages.len();
                let frames = pages.div_ceil(FRAME_PAGES_MAX).max(1);
                let calls = usize::from(has_calls_frame(entry));
                let frames = u32::try_from(frames + calls).expect("BUG: an entry of 2^32 frames");
                (frames, pages * PAGE_SIZE)
            }
            _ => (1, 0),
        }
    }
}

/// Whether the calls of an entry stand in a frame of their own.
fn has_calls_frame(entry: &StorageEntry) -> bool {
    match entry.calls.as_slice() {
        [] => false,
        [(_, lsn)] => *lsn != entry.range.start(),
        _ => true,
    }
}

/// Far enough from the end that no journal ever gets there by counting.
const LSN_BEGIN_MAX: u64 = u64::MAX / 2;

fn out_of_place(reason: impl Into<String>) -> AppendError {
    AppendError::OutOfPlace { reason: reason.into() }
}

/// What is to be done for `append`, given where the document stands; nothing is changed.
pub(crate) fn decide<'a>(
    append: &'a Append,
    document: Option<&StoredDocument>,
) -> Result<Vec<Step<'a>>, AppendError> {
    let mut steps = Vec::new();
    if document.is_none() {
        let names = [&append.document.document, &append.document.user];
        if names.iter().any(|name| name.len() > DOCUMENT_NAME_SIZE_MAX) {
            return Err(out_of_place("the document's name is too long"));
        }
        steps.push(Step::Create(&append.document));
    }
    if let Some(record) = &append.record {
        if record.len() > FRAME_BODY_SIZE_MAX {
            return Err(out_of_place(format!("a record of {} bytes", record.len())));
        }
        if document.is_none_or(|document| document.record != record.as_slice()) {
            steps.push(Step::Record(record));
        }
    }
    decide_timeline(append, document, &mut steps)?;
    decide_storage(append, document, &mut steps)?;
    Ok(steps)
}

fn decide_timeline<'a>(
    append: &'a Append,
    document: Option<&StoredDocument>,
    steps: &mut Vec<Step<'a>>,
) -> Result<(), AppendError> {
    let current = document.and_then(|document| document.timeline.as_ref());
    let begun = append
        .begin_timeline
        .filter(|begin| current.is_none_or(|timeline| timeline.journal != begin.0));
    // Of a timeline that begins here nothing can be in the log already.
    let current = current.filter(|_| begun.is_none());
    let place = current.map(|timeline| (timeline.journal, timeline.range()));
    let place = begun.map(|(id, start)| (id, LsnRange::empty_at(start))).or(place);
    if let Some((journal, start)) = begun {
        if !(1..=LSN_BEGIN_MAX).contains(&start.get()) {
            return Err(out_of_place(format!("a timeline cannot begin at {start}")));
        }
        steps.push(Step::TimelineBegin(journal, start));
    }
    if append.timeline.is_empty() && append.trim_timeline.is_none() {
        return Ok(());
    }
    let (journal, range) = place.ok_or_else(|| out_of_place("there is no timeline"))?;
    let mut head = range.end();
    for frame in &append.timeline {
        if frame.body.len() > FRAME_BODY_SIZE_MAX {
            return Err(out_of_place(format!("a mutation of {} bytes", frame.body.len())));
        }
        if frame.lsn > head {
            return Err(out_of_place(format!("timeline entry {} at head {head}", frame.lsn)));
        }
        if frame.lsn == head {
            steps.push(Step::TimelineEntry(journal, frame));
            head = head.next();
            continue;
        }
        let held = current.filter(|timeline| frame.lsn >= timeline.start).and_then(|timeline| {
            let index = usize::try_from(frame.lsn.get() - timeline.start.get()).ok()?;
            timeline.entries.get(index)
        });
        if held.is_some_and(|held| held.call != frame.call) {
            return Err(out_of_place(format!("another call is at {}", frame.lsn)));
        }
    }
    if let Some(floor) = append.trim_timeline {
        if floor > head {
            return Err(out_of_place(format!("trim before {floor} at head {head}")));
        }
        if floor > range.start() {
            steps.push(Step::TimelineTrim(journal, floor));
        }
    }
    Ok(())
}

fn decide_storage<'a>(
    append: &'a Append,
    document: Option<&StoredDocument>,
    steps: &mut Vec<Step<'a>>,
) -> Result<(), AppendError> {
    let current = document.and_then(|document| document.storage);
    let mut place = current.map(|position| (position.journal, position.next));
    if let Some(journal) = append.begin_storage
        && current.is_none_or(|position| position.journal != journal)
    {
        place = Some((journal, Lsn::FIRST));
        steps.push(Step::StorageBegin(journal));
    }
    for entry in &append.storage {
        let (journal, head) = place.ok_or_else(|| out_of_place("there is no storage journal"))?;
        let (range, position) = (entry.range, entry.position);
        if position.journal != journal || position.next != range.end() {
            return Err(out_of_place(format!("entry {range} says that it is at {position}")));
        }
        if range.end() <= head {
            continue;
        }
        if range.start() != head {
            return Err(out_of_place(format!("storage entry {range} at head {head}")));
        }
        let pages = entry.set.pages.len();
        if pages > ENTRY_PAGES_MAX {
            return Err(AppendError::EntryTooLarge { pages });
        }
        let (first, last) = (entry.set.pages.first_key_value(), entry.set.pages.last_key_value());
        let is_within = first.is_none_or(|(pgid, _)| pgid.0 > 0)
            && last.is_none_or(|(pgid, _)| pgid.0 <= entry.set.db_pages);
        if !is_within {
            return Err(out_of_place(format!("entry {range} has pages beyond its size")));
        }
        steps.push(Step::StorageEntry(entry));
        place = Some((journal, range.end()));
    }
    Ok(())
}

/// Puts frames into a log's batch and into the catalog.
pub(crate) struct Recorder<'a, D> {
    pub log: &'a mut Log<D>,
    pub catalog: &'a mut Catalog,
    pub document: u64,
    pub epoch: Epoch,
    /// Bytes of the log that are kept in memory.
    pub buffer_size_max: usize,
    /// Of a batch that is written as it is put together: the frames that are there, of so many.
    pub parts: Option<BatchPart>,
    /// How writing them went.
    pub written: Result<(), DiskError>,
}

impl<D: Disk> Recorder<'_, D> {
    pub fn step(&mut self, step: &Step<'_>) {
        match step {
            Step::Create(key) => {
                self.frame(self.head(Kind::Document), &[&encode_key(key)]);
            }
            Step::Record(record) => {
                self.frame(self.head(Kind::Record), &[record]);
            }
            Step::TimelineBegin(journal, start) => {
                self.frame(self.timeline_head(Kind::TimelineBegin, *journal, *start), &[]);
            }
            Step::TimelineEntry(journal, frame) => {
                let mut head = self.timeline_head(Kind::TimelineEntry, *journal, frame.lsn);
                head.lsns = Some(LsnRange::one(frame.lsn));
                head.call = Some(frame.call);
                self.frame(head, &[&frame.body]);
            }
            Step::TimelineTrim(journal, floor) => {
                self.frame(self.timeline_head(Kind::TimelineTrim, *journal, *floor), &[]);
            }
            Step::StorageBegin(journal) => {
                let head = FrameHead { journal: *journal, ..self.head(Kind::StorageBegin) };
                self.frame(head, &[]);
            }
            Step::StorageEntry(entry) => self.storage_entry(entry),
        }
    }

    pub fn head(&self, kind: Kind) -> FrameHead {
        FrameHead::new(kind as u8, self.document, self.epoch)
    }

    fn timeline_head(&self, kind: Kind, journal: JournalId, place: Lsn) -> FrameHead {
        FrameHead { journal, lsns: Some(LsnRange::empty_at(place)), ..self.head(kind) }
    }

    /// Writes one frame. Of a body in parts the catalog sees the first.
    pub fn frame(&mut self, head: FrameHead, body: &[&[u8]]) -> FramePlace {
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
        let is_left = self.parts.is_some_and(|(there, count)| there < count);
        if is_left && self.log.buffered() > self.buffer_size_max && self.written.is_ok() {
            self.written = self.log.write_parts();
        }
        place
    }

    /// Ends the batch. Fails if writing its first parts did.
    pub fn commit(self) -> Result<(), Fault> {
        match self.parts {
            None => self.log.commit(),
            Some(_) => self.log.commit_parts(),
        };
        Ok(self.written?)
    }

    fn storage_entry(&mut self, entry: &StorageEntry) {
        let pages: Vec<(Pgid, &Page)> =
            entry.set.pages.iter().map(|(pgid, page)| (*pgid, page)).collect();
        let last_size = match pages.len() % FRAME_PAGES_MAX {
            0 => pages.len().min(FRAME_PAGES_MAX),
            size => size,
        };
        let (before, last) = pages.split_at(pages.len() - last_size);
        let (journal, lsns) = (entry.position.journal, Some(entry.range));
        for pages in before.chunks(FRAME_PAGES_MAX) {
            let head = FrameHead { journal, lsns, ..self.head(Kind::StoragePages) };
            self.pages_frame(head, entry.set.db_pages, pages);
        }
        let mut call = entry.calls.first().map(|(call, _)| *call);
        if has_calls_frame(entry) {
            let head = FrameHead { journal, lsns, ..self.head(Kind::Calls) };
            self.frame(head, &[&encode_calls(entry.calls.iter())]);
            call = None;
        }
        let chain = entry.position.chain;
        let head = FrameHead { journal, lsns, call, chain, ..self.head(Kind::StorageEntry) };
        self.pages_frame(head, entry.set.db_pages, last);
    }

    fn pages_frame(&mut self, head: FrameHead, db_pages: u32, pages: &[(Pgid, &Page)]) {
        let list = PageList::of(db_pages, pages.iter().copied()).encode();
        let mut body: Vec<&[u8]> = Vec::with_capacity(1 + pages.len());
        body.push(&list);
        body.extend(pages.iter().map(|(_, page)| page.bytes()));
        self.frame(head, &body);
    }
}
