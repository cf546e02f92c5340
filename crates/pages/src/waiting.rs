//! What waits while an append is recorded or taken back, or while as much as may be kept in memory
//! cannot be written; and how much of one owner may.
//!
//! What is not held up goes to the log or to the read queue, which have limits of their own. Here
//! it stays in memory as it came: so an owner has as many reads and appends here as it may have
//! there, and appends of only so many bytes behind which no other begins to wait. What makes room
//! is small, and never refused.

use std::collections::VecDeque;

use tidelog_journal::FRAME_HEADER_SIZE_MAX;
use tidelog_types::limits::{Limits, PAGE_SIZE};
use tidelog_types::{DocumentKey, SortedMap};

use crate::frame_body::CALL_SIZE;
use crate::{Append, OwnerId, RequestId, StoreReply, StoreRequest, Ticket};

/// What has to come in its turn.
#[derive(Debug)]
pub(crate) enum Waiting {
    Request(Box<StoreRequest>),
    /// All that is kept of an append beyond what its owner may have here.
    AppendRefused {
        ticket: Ticket,
        names: Vec<DocumentKey>,
    },
    /// All that is kept of pages sent ahead of such an append.
    PagesRefused {
        ticket: Ticket,
    },
    /// The owner went away behind its last request, and is told nothing any more.
    Left,
}

impl Waiting {
    /// How many pages it brings.
    pub fn pages_count(&self) -> usize {
        match self {
            Self::Request(request) => match &**request {
                StoreRequest::Append { append, .. } => {
                    append.storage.iter().map(|entry| entry.set.pages.len()).sum()
                }
                StoreRequest::Stage { pages, .. } => pages.len(),
                _ => 0,
            },
            Self::AppendRefused { .. } | Self::PagesRefused { .. } | Self::Left => 0,
        }
    }
}

/// In the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct WaitingLine {
    line: VecDeque<(OwnerId, Waiting)>,
    owners: SortedMap<OwnerId, Held>,
}

/// What an owner has in the line.
#[derive(Debug, Default)]
struct Held {
    count: usize,
    reads: usize,
    read_pages: usize,
    appends: usize,
    /// Bytes of appends, and of pages sent ahead of them.
    bytes: usize,
    /// The append that came last, and what of the bytes is of it.
    newest: Option<(Ticket, usize)>,
    is_leaving: bool,
}

/// What a request takes up here.
enum Weight {
    Read { request: RequestId, document: DocumentKey, pages: usize },
    Append { ticket: Ticket, bytes: usize, is_whole: bool },
    Small,
}

impl WaitingLine {
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Bytes of appends that wait.
    pub fn bytes(&self) -> usize {
        self.owners.values().map(|held| held.bytes).sum()
    }

    /// Those of whom something waits.
    pub fn owners(&self) -> impl Iterator<Item = OwnerId> {
        self.owners.keys().copied()
    }

    pub fn has(&self, owner: OwnerId) -> bool {
        self.owners.contains_key(&owner)
    }

    /// Whether an owner went away and is still waited for.
    pub fn is_leaving(&self, owner: OwnerId) -> bool {
        self.owners.get(&owner).is_some_and(|held| held.is_leaving)
    }

    /// Takes a request in. Of a read that is one too many it gives the answer; an append is refused
    /// in its turn, behind those before it.
    pub fn push(
        &mut self,
        owner: OwnerId,
        request: StoreRequest,
        limits: &Limits,
    ) -> Option<StoreReply> {
        let held = self.owners.get_or_insert_with(owner, Held::default);
        let waiting = match weight(&request) {
            Weight::Read { request, document, pages } if !held.has_room_for(pages, limits) => {
                return Some(StoreReply::Busy { request, document });
            }
            Weight::Append { ticket, .. } if held.is_full(ticket, limits) => refused(request),
            _ => Waiting::Request(Box::new(request)),
        };
        held.add(&waiting);
        self.line.push_back((owner, waiting));
        None
    }

    /// The owner went away behind what it has here.
    pub fn leave(&mut self, owner: OwnerId) {
        let held = self.owners.get_or_insert_with(owner, Held::default);
        held.is_leaving = true;
        held.add(&Waiting::Left);
        self.line.push_back((owner, Waiting::Left));
    }

    /// The document that is opened next, if that is what comes next.
    pub fn next_opens(&self) -> Option<&DocumentKey> {
        let (_, Waiting::Request(request)) = self.line.front()? else { return None };
        let StoreRequest::Open { document } = &**request else { return None };
        Some(document)
    }

    /// Puts back what came first.
    pub fn put_back(&mut self, owner: OwnerId, request: StoreRequest) {
        let waiting = Waiting::Request(Box::new(request));
        self.owners.get_or_insert_with(owner, Held::default).add(&waiting);
        self.line.push_front((owner, waiting));
    }

    pub fn pop(&mut self) -> Option<(OwnerId, Waiting)> {
        let (owner, waiting) = self.line.pop_front()?;
        let held = self.owners.get_mut(&owner).expect("BUG: something that nobody waits for");
        held.remove(&waiting);
        if held.count == 0 {
            self.owners.remove(&owner);
        }
        Some((owner, waiting))
    }
}

impl Held {
    /// One that has no other read here may ask for any number of pages.
    fn has_room_for(&self, pages: usize, limits: &Limits) -> bool {
        self.reads == 0
            || self.reads < limits.owner_reads_max
                && self.read_pages.saturating_add(pages) <= limits.owner_read_pages_max
    }

    /// Whether no part of this append may wait behind the others; alone it may be of any size.
    fn is_full(&self, ticket: Ticket, limits: &Limits) -> bool {
        let own = self.newest.filter(|(newest, _)| *newest == ticket).map_or(0, |(_, own)| own);
        self.appends >= limits.owner_appends_max
            || self.bytes - own >= limits.owner_waiting_size_max
    }

    fn add(&mut self, waiting: &Waiting) {
        self.count += 1;
        let Waiting::Request(request) = waiting else { return };
        match weight(request) {
            Weight::Read { pages, .. } => {
                self.reads += 1;
                self.read_pages += pages;
            }
            Weight::Append { ticket, bytes, is_whole } => {
                self.appends += usize::from(is_whole);
                self.bytes += bytes;
                let own = self.newest.filter(|(newest, _)| *newest == ticket);
                self.newest = Some((ticket, own.map_or(0, |(_, own)| own) + bytes));
            }
            Weight::Small => {}
        }
    }

    fn remove(&mut self, waiting: &Waiting) {
        self.count -= 1;
        let Waiting::Request(request) = waiting else { return };
        match weight(request) {
            Weight::Read { pages, .. } => {
                self.reads -= 1;
                self.read_pages -= pages;
            }
            Weight::Append { ticket, bytes, is_whole } => {
                self.appends -= usize::from(is_whole);
                self.bytes -= bytes;
                if let Some((newest, own)) = &mut self.newest
                    && *newest == ticket
                {
                    *own = own.saturating_sub(bytes);
                }
            }
            Weight::Small => {}
        }
    }
}

fn weight(request: &StoreRequest) -> Weight {
    match request {
        StoreRequest::Read { request, document, pgids, .. }
        | StoreRequest::ReadAt { request, document, pgids, .. } => {
            Weight::Read { request: *request, document: document.clone(), pages: pgids.len() }
        }
        StoreRequest::SyncPrepare { request, document, .. }
        | StoreRequest::Entries { request, document, .. } => {
            Weight::Read { request: *request, document: document.clone(), pages: 0 }
        }
        StoreRequest::Append { ticket, append } => {
            Weight::Append { ticket: *ticket, bytes: size_of_append(append), is_whole: true }
        }
        StoreRequest::Stage { ticket, pages } => {
            Weight::Append { ticket: *ticket, bytes: pages.len() * PAGE_SIZE, is_whole: false }
        }
        StoreRequest::Hello { .. }
        | StoreRequest::Open { .. }
        | StoreRequest::Destroy { .. }
        | StoreRequest::List { .. } => Weight::Small,
    }
}

fn size_of_append(append: &Append) -> usize {
    let record = append.record.as_ref().map_or(0, |record| record.len());
    let timeline = append.timeline.iter().map(|frame| FRAME_HEADER_SIZE_MAX + frame.body.len());
    let storage = append.storage.iter().map(|entry| {
        let (pages, calls) = (entry.set.pages.len(), entry.calls.len());
        FRAME_HEADER_SIZE_MAX + pages * PAGE_SIZE + calls * CALL_SIZE
    });
    record + timeline.chain(storage).sum::<usize>()
}

/// Whether it trims a timeline, and nothing else.
fn is_trim(append: &Append) -> bool {
    let trim_timeline = append.trim_timeline;
    let Append { document, timeline_id, .. } = append;
    let trim = Append { timeline_id: *timeline_id, trim_timeline, ..Append::to(document.clone()) };
    trim_timeline.is_some() && *append == trim
}

fn refused(request: StoreRequest) -> Waiting {
    match request {
        // A trim alone makes room.
        StoreRequest::Append { ticket, append } if !is_trim(&append) => {
            Waiting::AppendRefused { ticket, names: append.names() }
        }
        StoreRequest::Stage { ticket, .. } => Waiting::PagesRefused { ticket },
        request => Waiting::Request(Box::new(request)),
    }
}
