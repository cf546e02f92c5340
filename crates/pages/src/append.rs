//! Deciding which frames an append is.

use std::collections::VecDeque;
use std::ops::Add;

use serde_bytes::ByteBuf;
use tidelog_journal::FRAME_HEADER_SIZE_MAX;
use tidelog_types::limits::{DOCUMENT_NAME_SIZE_MAX, ENTRY_PAGES_MAX, FRAME_BODY_SIZE_MAX};
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{DocumentKey, JournalId, Life, Lsn, LsnRange};

use crate::document::StoredDocument;
use crate::frame_body::CALL_SIZE;
use crate::heads::{self, Heads};
use crate::protocol::AppendId;
use crate::{Append, AppendError, StorageEntry, TimelineFrame};

/// One thing that an append changes. What is in the log already is not among them.
#[derive(Debug)]
pub(crate) enum Step {
    Create(DocumentKey),
    Record(ByteBuf),
    TimelineBegin(JournalId, Lsn),
    TimelineEntry(JournalId, TimelineFrame),
    TimelineTrim(JournalId, Lsn),
    StorageBegin(JournalId),
    /// The entry that follows is of another life than the one before.
    StorageLife(JournalId, Life),
    StorageEntry(StorageEntry),
    /// Pages of an entry that a later append ends.
    StoragePages(StorageEntry),
    TakeName(DocumentKey),
    /// All before it are of this append.
    Handed(AppendId),
}

impl Step {
    /// How many frames it is, of at most so many pages each, how many pages, and how many bytes
    /// beside them.
    pub fn size(&self, frame_pages_max: usize) -> StepSize {
        let (frames, pages, bytes) = match self {
            Self::Record(record) => (1, 0, record.len()),
            Self::TimelineEntry(_, frame) => (1, 0, frame.body.len()),
            Self::StoragePages(entry) => {
                let pages = entry.set.pages.len();
                (pages.div_ceil(frame_pages_max), pages, 0)
            }
            Self::StorageEntry(entry) => {
                let (pages, calls) = (entry.set.pages.len(), entry.calls.len());
                let frames = pages.div_ceil(frame_pages_max).max(1);
                (frames + usize::from(has_calls_frame(entry)), pages, calls * CALL_SIZE)
            }
            _ => (1, 0, 0),
        };
        StepSize { frames, pages, bytes: bytes + frames * FRAME_HEADER_SIZE_MAX }
    }
}

/// How much some steps are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StepSize {
    pub frames: usize,
    pub pages: usize,
    pub bytes: usize,
}

impl Add for StepSize {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            frames: self.frames + other.frames,
            pages: self.pages + other.pages,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// Whether the calls of an entry stand in a frame of their own.
pub(crate) fn has_calls_frame(entry: &StorageEntry) -> bool {
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
///
/// `is_noted` says whether the document's record is this one.
pub(crate) fn decide(
    mut append: Append,
    id: Option<AppendId>,
    document: Option<&StoredDocument>,
    is_noted: &dyn Fn(&[u8]) -> bool,
) -> Result<VecDeque<Step>, AppendError> {
    let mut steps = VecDeque::new();
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
        steps.push_back(Step::Create(append.document.clone()));
    }
    if let Some(record) = append.record.take() {
        if record.len() > FRAME_BODY_SIZE_MAX {
            return Err(out_of_place(format!("a record of {} bytes", record.len())));
        }
        if document.is_none() || !is_noted(&record) {
            steps.push_back(Step::Record(record));
        }
    }
    let mut heads = document.map(StoredDocument::heads).unwrap_or_default();
    decide_timeline(&mut append, document, &mut heads, &mut steps)?;
    decide_storage(&mut append, document, &mut heads, &mut steps)?;
    if let Some(name) = append.take_name.filter(|name| *name != append.document) {
        check_name(&name)?;
        steps.push_back(Step::TakeName(name));
    }
    let replaces = |step: &Step| {
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

fn decide_timeline(
    append: &mut Append,
    document: Option<&StoredDocument>,
    heads: &mut Heads,
    steps: &mut VecDeque<Step>,
) -> Result<(), AppendError> {
    let named = append.begin_timeline.map(|(journal, _)| journal).or(append.timeline_id);
    let mut known = document.and_then(|document| document.timeline.as_ref());
    if let Some((journal, start)) = append.begin_timeline
        && known.is_none_or(|timeline| timeline.journal != journal)
    {
        heads.begin_timeline(journal, start).map_err(out_of_place)?;
        steps.push_back(Step::TimelineBegin(journal, start));
        // Of a timeline that begins here nothing can be in the log already.
        known = None;
    }
    let is_about = |timeline: &(JournalId, LsnRange)| named.is_none_or(|named| named == timeline.0);
    for frame in std::mem::take(&mut append.timeline) {
        let (journal, range) = heads.timeline.filter(is_about).ok_or_else(no_timeline)?;
        if frame.body.len() > FRAME_BODY_SIZE_MAX {
            return Err(out_of_place(format!("a mutation of {} bytes", frame.body.len())));
        }
        if frame.lsn >= range.end() {
            heads.extend_timeline(journal, frame.lsn).map_err(out_of_place)?;
            steps.push_back(Step::TimelineEntry(journal, frame));
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
            steps.push_back(Step::TimelineTrim(journal, floor));
        }
    }
    Ok(())
}

fn decide_storage(
    append: &mut Append,
    mut known: Option<&StoredDocument>,
    heads: &mut Heads,
    steps: &mut VecDeque<Step>,
) -> Result<(), AppendError> {
    if let Some(journal) = append.begin_storage
        && (append.is_anew || heads.storage.is_none_or(|position| position.journal != journal))
    {
        heads.begin_storage(journal);
        steps.push_back(Step::StorageBegin(journal));
        // Of a journal that begins here nothing can be in the log already.
        known = None;
    }
    let cut = append.storage.len().checked_sub(1).filter(|_| append.is_cut);
    for (index, entry) in std::mem::take(&mut append.storage).into_iter().enumerate() {
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
            steps.push_back(Step::StorageLife(head.journal, position.life));
        }
        if cut == Some(index) {
            steps.push_back(Step::StoragePages(entry));
            continue;
        }
        heads.extend_storage(position);
        steps.push_back(Step::StorageEntry(entry));
    }
    Ok(())
}
