//! Reads of many pages, served a chunk at a time.

use std::collections::VecDeque;

use tidelog_disk::Disk;
use tidelog_types::limits::READ_CHUNK_PAGES;
use tidelog_types::{DocumentKey, PageSet, Pgid, Position};

use crate::catalog::PagePlace;
use crate::error::Fault;
use crate::store::Store;
use crate::{OwnerId, StoreReply};

/// A request for pages, with the places where they lay when it was made: what is appended later
/// does not change its answer.
#[derive(Debug)]
pub(crate) struct ActiveRead {
    pub owner: OwnerId,
    pub request: u64,
    pub document: DocumentKey,
    pub places: VecDeque<PagePlace>,
    pub answer: Answer,
}

/// How it is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Each chunk by itself.
    Pages,
    /// All at once, when all is read.
    Changes { position: Option<Position>, set: PageSet },
}

impl ActiveRead {
    /// Reads one chunk. Gives what is to be said now, and whether that was all.
    pub fn serve_chunk<D: Disk>(
        &mut self,
        store: &mut Store<D>,
    ) -> Result<(Option<StoreReply>, bool), Fault> {
        let count = self.places.len().min(READ_CHUNK_PAGES);
        let mut pages = Vec::with_capacity(count);
        for place in self.places.drain(..count) {
            pages.push((place.key.pgid, store.fetch(&place)?));
        }
        let last = self.places.is_empty();
        let (request, document) = (self.request, self.document.clone());
        let reply = match &mut self.answer {
            Answer::Pages => Some(StoreReply::Pages { request, document, pages, last }),
            Answer::Changes { position, set } => {
                set.pages.extend(pages);
                let set = if last { Some(std::mem::take(set)) } else { None };
                let position = *position;
                set.map(|set| StoreReply::Changes { request, document, position, set })
            }
        };
        Ok((reply, last))
    }
}

impl<D: Disk> Store<D> {
    /// Where these pages of a document lie now, as far as they are here.
    pub fn places(&self, document: &DocumentKey, pgids: &[Pgid]) -> VecDeque<PagePlace> {
        let active = self.log.active();
        let Some(document) = self.catalog.get(document) else { return VecDeque::new() };
        pgids.iter().filter_map(|pgid| document.place(*pgid, active)).collect()
    }
}
