//! Reads of many pages, served a chunk at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use tidelog_disk::Disk;
use tidelog_journal::FRAME_HEADER_SIZE_MAX;
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{DocumentKey, LsnRange, Page, PageSet, Pgid};

use crate::error::StoreError;
use crate::place::PagePlace;
use crate::plan::{Answer, LoggedFrame, Plan};
use crate::protocol::{RequestId, Urgency};
use crate::store::Store;
use crate::{OwnerId, StorageEntry, StoreReply, TimelineFrame};

/// A request for pages or frames, with the places where they lay when it was made: what is
/// appended later does not change its answer.
#[derive(Debug)]
pub(crate) struct ActiveRead {
    pub owner: OwnerId,
    pub urgency: Urgency,
    pub request: RequestId,
    pub document: DocumentKey,
    pub plan: Plan,
    /// As long as it is held, nothing is written over the places.
    pub _era: Arc<()>,
}

/// What came of one chunk.
pub(crate) struct Served {
    pub replies: Vec<StoreReply>,
    /// What was read, in pages and in pieces of pages; at least one, since a read that finds
    /// nothing has to end too.
    pub reads_count: usize,
    pub is_done: bool,
}

impl ActiveRead {
    /// Reads pages of about so many pieces, or frames of about as many pages.
    pub fn serve_chunk<D: Disk>(
        &mut self,
        store: &mut Store<D>,
        reads_max: usize,
    ) -> Result<Served, StoreError> {
        let (places, count) = self.plan.next_places(reads_max);
        let (frames, size) = match self.plan.read_frames(store, reads_max * PAGE_SIZE) {
            Err(StoreError::Damaged { .. }) => return Ok(self.damaged(Vec::new(), count.max(1))),
            frames => frames?,
        };
        let reads_count = (count + size.div_ceil(PAGE_SIZE)).max(1);
        let (pages, mut lost) = store.fetch_all(&places)?;
        match &mut self.plan.answer {
            Answer::Pages { damaged } => damaged.append(&mut lost),
            Answer::PagesAt { journal } if !lost.is_empty() => {
                let (request, document) = (self.request, self.document.clone());
                let history = store.history(&document, *journal);
                let replies = vec![StoreReply::Trimmed { request, document, history }];
                return Ok(Served { replies, reads_count, is_done: true });
            }
            _ if !lost.is_empty() => return Ok(self.damaged(lost, reads_count)),
            _ => {}
        }
        let is_done = self.plan.left() == 0;
        if let Answer::Pages { damaged } = &mut self.plan.answer
            && is_done
            && !damaged.is_empty()
        {
            let lost = std::mem::take(damaged);
            let intact = self.answer(pages, frames, false);
            let mut served = self.damaged(lost, reads_count);
            served.replies.splice(..0, intact);
            return Ok(served);
        }
        let replies = self.answer(pages, frames, is_done).into_iter().collect();
        Ok(Served { replies, reads_count, is_done })
    }

    /// The read ends, since what it is about is no longer what was written.
    fn damaged(&self, pgids: Vec<Pgid>, reads_count: usize) -> Served {
        let (request, document) = (self.request, self.document.clone());
        let replies = vec![StoreReply::Damaged { request, document, pgids }];
        Served { replies, reads_count, is_done: true }
    }

    /// What is to be said of what was read just now.
    fn answer(
        &mut self,
        pages: Vec<(Pgid, Page)>,
        mut frames: Vec<TimelineFrame>,
        last: bool,
    ) -> Option<StoreReply> {
        let (request, document) = (self.request, self.document.clone());
        match &mut self.plan.answer {
            Answer::Pages { .. } | Answer::PagesAt { .. } => {
                Some(StoreReply::Pages { request, document, pages, last })
            }
            Answer::Sync { position, db_pages, next } => Some(StoreReply::SyncPart {
                request,
                document,
                position: *position,
                db_pages: *db_pages,
                pages,
                next: *next,
                last,
            }),
            Answer::Entries { entries } => {
                let (entries, is_cut) = fill(entries, pages);
                Some(StoreReply::Entries { request, document, entries, is_cut, last })
            }
            Answer::Frames => Some(StoreReply::Frames { request, document, frames, last }),
            Answer::Opened { life, state } => {
                let timeline = state.as_mut().and_then(|state| state.timeline.as_mut());
                timeline.into_iter().for_each(|read| read.frames.append(&mut frames));
                let state = if last { state.take() } else { return None };
                Some(StoreReply::Opened { document, life: *life, state })
            }
        }
    }
}

impl Plan {
    /// The next places that take about so many reads, one at least, and how many they take.
    fn next_places(&mut self, reads_max: usize) -> (Vec<PagePlace>, usize) {
        let (mut places, mut reads_count) = (Vec::new(), 0);
        while reads_count < reads_max
            && let Some(place) = self.pages.pop_front()
        {
            reads_count += place.reads_count();
            places.push(place);
        }
        (places, reads_count)
    }

    /// Reads the next frames, of about so many bytes. Gives how many these were.
    fn read_frames<D: Disk>(
        &mut self,
        store: &Store<D>,
        size_max: usize,
    ) -> Result<(Vec<TimelineFrame>, usize), StoreError> {
        let (mut frames, mut size) = (Vec::new(), 0);
        while size < size_max
            && let Some(LoggedFrame { lsn, call, at }) = self.frames.pop_front()
        {
            let (head, body) = store.read_frame(at)?;
            if head.lsns != Some(LsnRange::one(lsn)) || head.call != Some(call) {
                return Err(StoreError::Damaged { what: format!("timeline entry {lsn}") });
            }
            size += FRAME_HEADER_SIZE_MAX + body.len();
            frames.push(TimelineFrame { lsn, call, body });
        }
        Ok((frames, size))
    }
}

/// Puts pages into the entries that they belong to. Gives those that they complete, and what there
/// is of the next one; `true` if there is more of that.
fn fill(
    entries: &mut VecDeque<(StorageEntry, usize)>,
    pages: Vec<(Pgid, Page)>,
) -> (Vec<StorageEntry>, bool) {
    let mut pages = pages.into_iter();
    let mut parts = Vec::new();
    while let Some((entry, left)) = entries.front_mut() {
        entry.set.pages.extend(pages.by_ref().take(*left));
        *left -= entry.set.pages.len();
        if *left == 0 {
            parts.extend(entries.pop_front().map(|(entry, _)| entry));
        } else if entry.set.pages.is_empty() {
            break;
        } else {
            let set = PageSet { db_pages: entry.set.db_pages, ..PageSet::default() };
            let rest = StorageEntry { set, ..entry.clone() };
            parts.push(std::mem::replace(entry, rest));
            return (parts, true);
        }
    }
    (parts, false)
}
