//! One client's presence in a room.

use std::collections::{BTreeMap, VecDeque};

use tidelog_document::Doctype;
use tidelog_sync::{EntryPart, Follower, FollowerStep, Intent, Origin};
use tidelog_types::limits::{ENTRIES_IN_FLIGHT_SIZE_MAX, MESSAGE_PAGES_MAX, PAGE_SIZE};
use tidelog_types::{JournalId, Lsn, LsnRange, Page, PageSet, Pgid, Position};

use super::ConnId;

/// A room's number for a client that is here; never reused, so that what was meant for one that
/// left and came back does not reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GuestId(pub u64);

/// Where a client sits: on which connection, under which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seat {
    pub(super) conn: ConnId,
    pub(super) channel: u32,
}

/// What a client said when it opened the document.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) doctype: Vec<u8>,
    pub(super) timeline: JournalId,
    pub(super) have: Option<Position>,
    pub(super) intent: Intent,
}

/// One client that has opened the document.
pub(super) struct Guest {
    pub(super) seat: Seat,
    pub(super) timeline: JournalId,
    /// Frames from here on stay undecided until the client opens the document anew.
    pub(super) undecided: Option<Lsn>,
    /// The local document that it is handing over.
    pub(super) seed: Option<Seed>,
    /// `None` until it has been told that the document is open.
    follower: Option<Follower>,
    /// Sizes in bytes of what it was sent and has not received, each with the LSN after it.
    in_flight: VecDeque<(Lsn, usize)>,
}

/// A local document on its way to become the server's.
pub(super) struct Seed {
    pub(super) doctype: Doctype,
    pub(super) position: Option<Position>,
    pub(super) db_pages: u32,
    pub(super) pages: BTreeMap<Pgid, Page>,
}

impl Guest {
    pub(super) fn new(seat: Seat, timeline: JournalId) -> Self {
        Self {
            seat,
            timeline,
            undecided: None,
            seed: None,
            follower: None,
            in_flight: VecDeque::new(),
        }
    }

    pub(super) fn follow(&mut self, from: Lsn) {
        self.follower = Some(Follower::new(from));
        self.in_flight.clear();
    }

    /// The entry of `range`, of that many pages, may leave.
    pub(super) fn on_entry(&mut self, range: LsnRange, pages_count: usize) -> FollowerStep {
        if !self.has_room() {
            return FollowerStep::Rest;
        }
        let Some(follower) = &mut self.follower else { return FollowerStep::Rest };
        let step = follower.on_entry(range);
        if step == FollowerStep::SendEntry {
            self.in_flight.push_back((range.end(), pages_count * PAGE_SIZE));
        }
        step
    }

    /// What to do, given that everything before `durable` may leave.
    pub(super) fn next_step(&mut self, durable: Lsn) -> FollowerStep {
        match &mut self.follower {
            Some(follower) if has_room(&self.in_flight) => follower.next_step(durable),
            _ => FollowerStep::Rest,
        }
    }

    pub(super) fn on_received(&mut self, next: Lsn) {
        if let Some(follower) = &mut self.follower {
            follower.on_received(next);
        }
        while self.in_flight.front().is_some_and(|(end, _)| *end <= next) {
            self.in_flight.pop_front();
        }
    }

    pub(super) fn caught_up(&mut self, end: Lsn, pages_count: usize) {
        if let Some(follower) = &mut self.follower {
            follower.caught_up(end);
            self.in_flight.push_back((end, pages_count * PAGE_SIZE));
        }
    }

    /// A client that does not read is sent no more than this, and later one entry for the rest: so
    /// it costs a bounded amount of memory however large the entries are.
    fn has_room(&self) -> bool {
        has_room(&self.in_flight)
    }
}

fn has_room(in_flight: &VecDeque<(Lsn, usize)>) -> bool {
    in_flight.iter().map(|(_, size)| size).sum::<usize>() < ENTRIES_IN_FLIGHT_SIZE_MAX
}

/// An entry as it travels: in parts that fit into messages.
pub(super) fn parts(
    range: LsnRange,
    position: Position,
    set: &PageSet,
    origin: Option<Origin>,
) -> Vec<EntryPart> {
    let part = |pages: Vec<(Pgid, Page)>| EntryPart {
        range,
        position,
        db_pages: set.db_pages,
        origin,
        pages,
        last: false,
    };
    let mut parts = Vec::new();
    let mut pages = Vec::new();
    for (pgid, page) in &set.pages {
        if pages.len() == MESSAGE_PAGES_MAX {
            parts.push(part(std::mem::take(&mut pages)));
        }
        pages.push((*pgid, page.clone()));
    }
    parts.push(EntryPart { last: true, ..part(pages) });
    parts
}
