//! One client's presence in a room.

use std::collections::VecDeque;

use tidelog_document::{Committed, Doctype, EntryHasher, FreeWalk, PageLinks};
use tidelog_sync::{Channel, Follower, FollowerStep, FromRoom, FromServer, Intent, OpenDoctype};
use tidelog_types::limits::Limits;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{CopySecret, JournalId, Lineage, Lsn, LsnRange, Position, Value};

use super::document::Document;
use super::{ConnId, May, RoomEffect};

/// About how many bytes a request to open takes without what it names.
const REQUEST_SIZE: usize = 256;
/// About how many bytes a life takes, and where it began.
const LIFE_SIZE: usize = 24;

/// A room's number for a client that is here; never reused, so that what was meant for one that
/// left and came back does not reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SubscriberId(pub u64);

/// Where a client sits: on which connection, under which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChannelId {
    pub(super) conn: ConnId,
    pub(super) channel: Channel,
}

impl ChannelId {
    /// Tells the client.
    pub(super) fn say(self, body: FromRoom) -> RoomEffect {
        let message = FromServer::About { channel: self.channel, body };
        RoomEffect::Send { conn: self.conn, message }
    }
}

/// What a client said when it opened the document.
#[derive(Clone, Debug)]
pub(super) struct OpenRequest {
    pub(super) doctype: OpenDoctype,
    pub(super) timeline: JournalId,
    pub(super) secret: CopySecret,
    pub(super) have: Option<Position>,
    pub(super) intent: Intent,
    pub(super) may: May,
}

impl OpenRequest {
    /// About how many bytes it takes, the same on every machine.
    pub(super) fn size(&self) -> usize {
        let lives_count = match &self.intent {
            Intent::Offer { lives } => lives.lives().count(),
            Intent::Follow => 0,
        };
        REQUEST_SIZE + self.doctype.size() + lives_count * LIFE_SIZE
    }
}

/// One client that has opened the document.
pub(super) struct Subscriber {
    pub(super) channel_id: ChannelId,
    pub(super) timeline: JournalId,
    /// Of the copy whose mutations it may bring.
    pub(super) secret: CopySecret,
    /// Frames from here on stay undecided until the client opens the document anew.
    pub(super) undecided: Option<Lsn>,
    /// The local document that it is handing over. In a box, since few ever do, and what hashes it
    /// takes most of a subscriber.
    pub(super) seed: Option<Box<Seed>>,
    /// `None` until it has been told that the document is open.
    follower: Option<Follower>,
    /// Sizes in bytes of what it was sent and has not received, each with the LSN after it.
    in_flight: VecDeque<(Lsn, usize)>,
    in_flight_size: usize,
    in_flight_size_max: usize,
}

/// A local document on its way to become the server's.
pub(super) struct Seed {
    /// As it came, until its pages are here: in memory it takes several times as much.
    pub(super) doctype: Vec<u8>,
    /// Who wrote it.
    pub(super) lives: Lineage,
    pub(super) position: Option<Position>,
    /// How many of its pages have come, in their order: they are staged in the store.
    pub(super) pages_count: u32,
    /// In how many bytes.
    pub(super) came_size: usize,
    pub(super) hasher: EntryHasher,
    /// What they name.
    pub(super) links: PageLinks,
    /// The document that it will be, once all pages are there.
    pub(super) candidate: Option<Box<Candidate>>,
}

/// How far the pages of a candidate were looked at.
pub(super) enum Walk {
    NotBegun,
    Free(FreeWalk),
    Ended,
}

/// A document that reads staged pages.
pub(super) struct Candidate {
    pub(super) document: Document,
    pub(super) doctype: Doctype,
    /// Where its pages stand, as far as that was looked at.
    pub(super) walk: Walk,
    /// What its migrations have changed.
    pub(super) migrated: Option<Committed>,
    /// What its schema has to be.
    pub(super) schema: Vec<Vec<Value>>,
}

impl Seed {
    pub(super) fn new(doctype: Vec<u8>, lives: Lineage) -> Self {
        let (hasher, links) = (EntryHasher::default(), PageLinks::default());
        Self {
            doctype,
            lives,
            position: None,
            pages_count: 0,
            came_size: 0,
            hasher,
            links,
            candidate: None,
        }
    }

    /// About how many bytes are kept of it.
    pub(super) fn kept_size(&self) -> usize {
        self.doctype.len() + self.links.kept_size()
    }

    /// Whether the store has pages of it.
    pub(super) fn is_staged(&self) -> bool {
        self.pages_count > 0
    }
}

impl Subscriber {
    pub(super) fn new(channel_id: ChannelId, open: &OpenRequest, limits: &Limits) -> Self {
        Self {
            channel_id,
            timeline: open.timeline,
            secret: open.secret,
            undecided: None,
            seed: None,
            follower: None,
            in_flight: VecDeque::new(),
            in_flight_size: 0,
            in_flight_size_max: limits.entries_in_flight_size_max,
        }
    }

    pub(super) fn follow(&mut self, from: Lsn, limits: &Limits) {
        self.follower = Some(Follower::new(from, limits.entries_in_flight_max));
        self.in_flight.clear();
        self.in_flight_size = 0;
    }

    /// The entry of `range` may leave, which takes so much of the follower's memory. `reserve` says
    /// whether there is room for it on the way; if not, the follower lags from now on.
    pub(super) fn on_entry(
        &mut self,
        range: LsnRange,
        size: usize,
        reserve: impl FnOnce() -> bool,
    ) -> FollowerStep {
        if !self.has_room() {
            return FollowerStep::Rest;
        }
        let Some(follower) = &mut self.follower else { return FollowerStep::Rest };
        let mut after = follower.clone();
        let step = after.on_entry(range);
        if step == FollowerStep::SendEntry {
            if !reserve() {
                reached(Probe::OutletFull);
                return FollowerStep::Rest;
            }
            self.in_flight.push_back((range.end(), size));
            self.in_flight_size += size;
        }
        *follower = after;
        step
    }

    /// What to do, given that everything before `durable` may leave.
    pub(super) fn next_step(&mut self, durable: Lsn) -> FollowerStep {
        let has_room = self.has_room();
        match &mut self.follower {
            Some(follower) if has_room => follower.next_step(durable),
            _ => FollowerStep::Rest,
        }
    }

    pub(super) fn on_received(&mut self, next: Lsn) {
        if let Some(follower) = &mut self.follower {
            follower.on_received(next);
        }
        while let Some((_, size)) = self.in_flight.pop_front_if(|(end, _)| *end <= next) {
            self.in_flight_size -= size;
        }
    }

    pub(super) fn caught_up(&mut self, end: Lsn, size: usize) {
        if let Some(follower) = &mut self.follower {
            follower.caught_up(end);
            self.in_flight.push_back((end, size));
            self.in_flight_size += size;
        }
    }

    /// What does not add up, given whether something is being read for it; for simulations.
    pub(super) fn doubt(&self, is_read_for: bool) -> Option<String> {
        let follower = self.follower.as_ref();
        let received = follower.map_or(Lsn::FIRST, Follower::received);
        let sum: usize = self.in_flight.iter().map(|(_, size)| size).sum();
        let is_on_its_way = self.in_flight.iter().all(|(end, _)| *end > received);
        let reads = follower.is_some_and(Follower::is_catching_up);
        let is_so = sum == self.in_flight_size && is_on_its_way && reads == is_read_for;
        let Self { channel_id, in_flight, in_flight_size, .. } = self;
        (!is_so).then(|| {
            format!(
                "{channel_id:?}: {in_flight:?} count {in_flight_size}, received {received}, \
                 read for: {reads}, and {is_read_for}"
            )
        })
    }

    /// A client that says nothing of what it has received is sent no more than this, and later one
    /// entry for the rest: so what it has not read yet is a bounded amount of its memory.
    fn has_room(&self) -> bool {
        self.in_flight_size < self.in_flight_size_max
    }
}
