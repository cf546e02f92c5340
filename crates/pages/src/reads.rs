//! Reads of many pages, served a chunk at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use tidelog_disk::Disk;
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{DocumentKey, Page, PageSet, Pgid, Position};

use crate::catalog::{PageAt, PagePlace};
use crate::error::Fault;
use crate::protocol::Urgency;
use crate::store::Store;
use crate::{OwnerId, StorageEntry, StoreReply};

/// A request for pages, with the places where they lay when it was made: what is appended later
/// does not change its answer.
#[derive(Debug)]
pub(crate) struct ActiveRead {
    pub owner: OwnerId,
    pub urgency: Urgency,
    pub request: u64,
    pub document: DocumentKey,
    pub places: VecDeque<PagePlace>,
    pub answer: Answer,
    /// As long as it is held, nothing is written over the places.
    pub _era: Arc<()>,
}

/// How it is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Each chunk by itself.
    Pages,
    /// Likewise, of pages whose slots may have been written over since: then they are gone.
    PagesAt,
    /// All at once, when all is read.
    Changes { position: Option<Position>, set: PageSet },
    /// Each entry when all of its pages are read: so many are left of the first, and so many of
    /// each of the others.
    Entries { entries: VecDeque<(StorageEntry, usize)> },
}

impl ActiveRead {
    /// Reads at most so many pages. Gives what is to be said now, and whether that was all.
    pub fn serve_chunk<D: Disk>(
        &mut self,
        store: &mut Store<D>,
        pages_max: usize,
    ) -> Result<(Option<StoreReply>, bool), Fault> {
        let count = self.places.len().min(pages_max);
        let places: Vec<PagePlace> = self.places.drain(..count).collect();
        let (request, document) = (self.request, self.document.clone());
        let pages = match (store.fetch_all(&places), &self.answer) {
            (Err(Fault::Damaged { .. }), Answer::PagesAt) => {
                let history = store.history(&document);
                return Ok((Some(StoreReply::Trimmed { request, document, history }), true));
            }
            (pages, _) => pages?,
        };
        let last = self.places.is_empty();
        let reply = match &mut self.answer {
            Answer::Pages | Answer::PagesAt => {
                Some(StoreReply::Pages { request, document, pages, last })
            }
            Answer::Changes { position, set } => {
                set.pages.extend(pages);
                let set = if last { Some(std::mem::take(set)) } else { None };
                let position = *position;
                set.map(|set| StoreReply::Changes { request, document, position, set })
            }
            Answer::Entries { entries } => {
                let entries = fill(entries, pages);
                let is_news = last || !entries.is_empty();
                is_news.then_some(StoreReply::Entries { request, document, entries, last })
            }
        };
        Ok((reply, last))
    }
}

/// Puts pages into the entries that they belong to. Gives those that are whole.
fn fill(
    entries: &mut VecDeque<(StorageEntry, usize)>,
    pages: Vec<(Pgid, Page)>,
) -> Vec<StorageEntry> {
    let mut pages = pages.into_iter();
    let mut whole = Vec::new();
    while let Some((entry, left)) = entries.front_mut() {
        let before = entry.set.pages.len();
        entry.set.pages.extend(pages.by_ref().take(*left));
        *left -= entry.set.pages.len() - before;
        if *left > 0 {
            break;
        }
        whole.extend(entries.pop_front().map(|(entry, _)| entry));
    }
    whole
}

impl<D: Disk> Store<D> {
    /// Where these pages of a document lie now, as far as they are here.
    pub fn places(&self, document: &DocumentKey, pgids: &[Pgid]) -> VecDeque<PagePlace> {
        let active = self.log.active();
        let Some(document) = self.catalog.get(document) else { return VecDeque::new() };
        pgids.iter().filter_map(|pgid| document.place(*pgid, active)).collect()
    }

    /// Gives the pages in these places. Those that lie side by side on the device are read with
    /// one call.
    fn fetch_all(&mut self, places: &[PagePlace]) -> Result<Vec<(Pgid, Page)>, Fault> {
        let mut found: Vec<Option<Page>> =
            places.iter().map(|place| self.pool.get(place.key)).collect();
        let mut missing: Vec<usize> =
            (0..places.len()).filter(|index| found[*index].is_none()).collect();
        missing.sort_unstable_by_key(|index| places[*index].at);
        for run in missing.chunk_by(|one, next| places[*next].at.follows(places[*one].at)) {
            let mut bytes = vec![0; run.len() * PAGE_SIZE];
            self.read_at(places[run[0]].at, &mut bytes)?;
            for (index, bytes) in run.iter().zip(bytes.chunks_exact(PAGE_SIZE)) {
                let page = places[*index].checked(bytes)?;
                self.pool.insert(places[*index].key, page.clone());
                found[*index] = Some(page);
            }
        }
        let pages = places.iter().zip(found);
        Ok(pages.map(|(place, page)| (place.key.pgid, page.expect("BUG: not read"))).collect())
    }
}

impl PageAt {
    /// Whether it is the place right behind another one.
    fn follows(self, before: Self) -> bool {
        match (before, self) {
            (Self::Log(file, before), Self::Log(same, offset)) => {
                file == same && offset == before + PAGE_SIZE as u64
            }
            (Self::Slot(before), Self::Slot(slot)) => slot.number() == before.number() + 1,
            _ => false,
        }
    }
}
