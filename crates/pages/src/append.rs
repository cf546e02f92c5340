//! Deciding which frames an append is, and writing them.

use tidelog_disk::{Disk, DiskError};
use tidelog_journal::{BatchPart, FoundFrame, FrameHead, FramePlace, Log};
use tidelog_types::limits::{
    DOCUMENT_NAME_SIZE_MAX, ENTRY_PAGES_MAX, FRAME_BODY_SIZE_MAX, PAGE_SIZE,
};
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{DocumentKey, Epoch, JournalId, Life, Lsn, LsnRange, Page, Pgid};

use crate::catalog::Catalog;
use crate::document::StoredDocument;
use crate::error::Fault;
use crate::frame_body::{Kind, PageList, encode_append_id, encode_calls, encode_key};
use crate::heads::{self, Heads};
use crate::protocol::AppendId;
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
    /// The entry that follows is of another life than the one before.
    StorageLife(JournalId, Life),
    StorageEntry(&'a StorageEntry),
    /// Pages of an entry that a later append ends.
    StoragePages(&'a StorageEntry),
    TakeName(&'a DocumentKey),
    /// All before it are of this append.
    Handed(AppendId),
}

impl Step<'_> {
    /// How many frames it is, of at most so many pages each, and about how many bytes.
    pub fn size(&self, frame_pages_max: usize) -> (u32, usize) {
        match self {
            Self::Record(record) => (1, record.len()),
            Self::TimelineEntry(_, frame) => (1, frame.body.len()),
            Self::StoragePages(entry) => {
                let pages = entry.set.pages.len();
                let frames = u32::try_from(pages.div_ceil(frame_pages_max));
                (frames.expect("BUG: an entry of 2^32 frames"), pages * PAGE_SIZE)
            }
            Self::StorageEntry(entry) => {
                let pages = entry.set.pages.len();
                let frames = pages.div_ceil(frame_pages_max).max(1);
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

fn out_of_place(reason: impl Into<String>) -> AppendError {
    AppendError::OutOfPlace { reason: reason.into() }
}

fn no_timeline() -> AppendError {
    out_of_place("there is no timeline")
}

/// What is to be done for `append`, given where the document stands; nothing is changed.
///
/// What is in the log already is known by its place; but an append that puts something in the
/// place of something else would do so again, over what came behind it. That is known by its `id`,
/// which the document keeps, and so are those before it: those that failed were answered before
/// anything else was appended.
pub(crate) fn decide<'a>(
    append: &'a Append,
    id: Option<AppendId>,
    document: Option<&StoredDocument>,
) -> Result<Vec<Step<'a>>, AppendError> {
    let mut steps = Vec::new();
    let last = document.and_then(|document| document.handed);
    if let (Some(id), Some(last)) = (id, last)
        && id.life == last.life
        && id.ticket <= last.ticket
    {
        reached(Probe::AppendRepeated);
        return Ok(steps);
    }
    if document.is_none() {
        check_name(&append.document)?;
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
    let mut heads = document.map(StoredDocument::heads).unwrap_or_default();
    decide_timeline(append, document, &mut heads, &mut steps)?;
    decide_storage(append, document, &mut heads, &mut steps)?;
    if let Some(name) = append.take_name.as_ref().filter(|name| **name != append.document) {
        check_name(name)?;
        steps.push(Step::TakeName(name));
    }
    let replaces = |step: &Step<'_>| {
        matches!(step, Step::Record(_) | Step::TimelineBegin(..) | Step::StorageBegin(_))
    };
    let id = id.filter(|_| steps.iter().any(replaces));
    steps.extend(id.map(Step::Handed));
    Ok(steps)
}

fn check_name(key: &DocumentKey) -> Result<(), AppendError> {
    let is_too_long = [&key.document, &key.user].iter().any(|it| it.len() > DOCUMENT_NAME_SIZE_MAX);
    if is_too_long { Err(out_of_place("the document's name is too long")) } else { Ok(()) }
}

fn decide_timeline<'a>(
    append: &'a Append,
    document: Option<&StoredDocument>,
    heads: &mut Heads,
    steps: &mut Vec<Step<'a>>,
) -> Result<(), AppendError> {
    let named = append.begin_timeline.map(|(journal, _)| journal).or(append.timeline_id);
    let mut known = document.and_then(|document| document.timeline.as_ref());
    if let Some((journal, start)) = append.begin_timeline
        && known.is_none_or(|timeline| timeline.journal != journal)
    {
        heads.begin_timeline(journal, start).map_err(out_of_place)?;
        steps.push(Step::TimelineBegin(journal, start));
        // Of a timeline that begins here nothing can be in the log already.
        known = None;
    }
    let is_about = |timeline: &(JournalId, LsnRange)| named.is_none_or(|named| named == timeline.0);
    for frame in &append.timeline {
        let (journal, range) = heads.timeline.filter(is_about).ok_or_else(no_timeline)?;
        if frame.body.len() > FRAME_BODY_SIZE_MAX {
            return Err(out_of_place(format!("a mutation of {} bytes", frame.body.len())));
        }
        if frame.lsn >= range.end() {
            heads.extend_timeline(journal, frame.lsn).map_err(out_of_place)?;
            steps.push(Step::TimelineEntry(journal, frame));
            continue;
        }
        reached(Probe::TimelineEntryRepeated);
        let held = known.and_then(|timeline| timeline.held(frame.lsn));
        if held.is_some_and(|held| held.call != frame.call) {
            return Err(out_of_place(format!("another call is at {}", frame.lsn)));
        }
    }
    if let Some(floor) = append.trim_timeline {
        let (journal, range) = heads.timeline.filter(is_about).ok_or_else(no_timeline)?;
        if floor > range.start() {
            heads.trim_timeline(journal, floor).map_err(out_of_place)?;
            steps.push(Step::TimelineTrim(journal, floor));
        }
    }
    Ok(())
}

fn decide_storage<'a>(
    append: &'a Append,
    mut known: Option<&StoredDocument>,
    heads: &mut Heads,
    steps: &mut Vec<Step<'a>>,
) -> Result<(), AppendError> {
    if let Some(journal) = append.begin_storage
        && (append.is_anew || heads.storage.is_none_or(|position| position.journal != journal))
    {
        heads.begin_storage(journal);
        steps.push(Step::StorageBegin(journal));
        // Of a journal that begins here nothing can be in the log already.
        known = None;
    }
    let cut = append.storage.len().checked_sub(1).filter(|_| append.is_cut);
    for (index, entry) in append.storage.iter().enumerate() {
        let (range, position) = (entry.range, entry.position);
        let head = heads.storage.ok_or_else(|| out_of_place("there is no storage journal"))?;
        if position.journal != head.journal || position.next != range.end() {
            return Err(out_of_place(format!("entry {range} says that it is at {position}")));
        }
        if range.end() <= head.next {
            reached(Probe::EntryRepeated);
            let held = known.and_then(|document| document.storage_at(range.end()));
            if held.is_some_and(|held| held != position) {
                return Err(out_of_place(format!("another entry is at {range}")));
            }
            continue;
        }
        let pages = entry.set.pages.len();
        if pages > ENTRY_PAGES_MAX {
            return Err(AppendError::EntryTooLarge { pages });
        }
        let pgids = entry.set.pages.keys().copied();
        heads.pages(head.journal, range, entry.set.db_pages, pgids).map_err(out_of_place)?;
        heads::calls(&entry.calls).map_err(out_of_place)?;
        if position.life != head.life {
            steps.push(Step::StorageLife(head.journal, position.life));
        }
        if cut == Some(index) {
            steps.push(Step::StoragePages(entry));
            continue;
        }
        heads.extend_storage(position);
        steps.push(Step::StorageEntry(entry));
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
    pub frame_pages_max: usize,
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
            Step::StorageLife(journal, life) => {
                let head = FrameHead { journal: *journal, ..self.head(Kind::StorageLife) };
                self.frame(head, &[&life.0]);
            }
            Step::StorageEntry(entry) => self.storage_entry(entry),
            Step::StoragePages(entry) => {
                let pages: Vec<(Pgid, &Page)> = pages_of(entry);
                self.storage_pages(entry, &pages);
            }
            Step::TakeName(key) => {
                self.frame(self.head(Kind::TakeName), &[&encode_key(key)]);
            }
            Step::Handed(id) => {
                self.frame(self.head(Kind::Handed), &[&encode_append_id(*id)]);
            }
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
        let pages = pages_of(entry);
        let last_size = match pages.len() % self.frame_pages_max {
            0 => pages.len().min(self.frame_pages_max),
            size => size,
        };
        let (before, last) = pages.split_at(pages.len() - last_size);
        let (journal, lsns) = (entry.position.journal, Some(entry.range));
        self.storage_pages(entry, before);
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

    fn storage_pages(&mut self, entry: &StorageEntry, pages: &[(Pgid, &Page)]) {
        let (journal, lsns) = (entry.position.journal, Some(entry.range));
        for pages in pages.chunks(self.frame_pages_max) {
            let head = FrameHead { journal, lsns, ..self.head(Kind::StoragePages) };
            self.pages_frame(head, entry.set.db_pages, pages);
        }
    }

    fn pages_frame(&mut self, head: FrameHead, db_pages: u32, pages: &[(Pgid, &Page)]) {
        let list = PageList::of(db_pages, pages.iter().copied()).encode();
        let mut body: Vec<&[u8]> = Vec::with_capacity(1 + pages.len());
        body.push(&list);
        body.extend(pages.iter().map(|(_, page)| page.bytes()));
        self.frame(head, &body);
    }
}

fn pages_of(entry: &StorageEntry) -> Vec<(Pgid, &Page)> {
    entry.set.pages.iter().map(|(pgid, page)| (*pgid, page)).collect()
}
