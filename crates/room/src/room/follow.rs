//! The storage journal's way to those who follow the document.

use tidelog_pages::{RequestId, StoreRequest, Urgency};
use tidelog_sync::{FollowerStep, FromRoom};
use tidelog_types::limits::Limits;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{Budget, EntryHash, JournalId, Lsn, LsnRange, Page, Pgid, Position};

use super::entry_parts::EntryHead;
use super::leaving::LeavingEntries;
use super::outlets::{entry_size, received_size, size_of_entry};
use super::subscriber::{ChannelId, SubscriberId};
use super::{ConnId, Room, RoomEffect, State, WORK_STEPS};

/// What a subscriber lacks, on its way from the store to the subscriber, a chunk at a time.
///
/// A chunk is read when there is room for it on the way, so that a client which does not read costs
/// no more than one. Meanwhile the document moves on: what changed during one pass over its pages
/// is sent by another pass, and the pass during which nothing changed is the last one. Passes get
/// larger chunks each time, and a pass of one chunk is the last in any case. So there is an end
/// wherever less changes than is read meanwhile, or no more than one chunk holds; a client that
/// reads slower than others write in more of the document than that gets there once they pause.
pub(super) struct CatchUp {
    channel_id: ChannelId,
    /// The storage journal that the subscriber holds, and its next LSN.
    journal: JournalId,
    since: Lsn,
    /// Pages that changed at or after this LSN are read in this pass.
    pass_since: Lsn,
    /// Where the storage journal stood at its first chunk; `None` before that.
    pass_began: Option<Position>,
    passes_count: u32,
    /// The next page of it.
    from: Pgid,
    step: Step,
    /// What is reserved on the way for the chunk.
    reserved: usize,
    received_size: usize,
    /// Over what was sent.
    hash: EntryHash,
}

/// Entries on their way to those who follow, one after the other.
pub(super) struct Broadcast {
    leaving: LeavingEntries,
    /// Whoever came before this one has had a turn.
    next: SubscriberId,
}

/// How far a chunk has come.
enum Step {
    /// There was no room for it.
    Waits,
    /// The store reads it by this request; this much has come.
    Read(RequestId, Option<Chunk>),
    /// It is here, and may not be durable yet.
    Here(Chunk),
}

/// Some of the pages that a subscriber lacks.
pub(super) struct Chunk {
    /// Where the storage journal stood when they were asked for, and the size of the database then.
    pub(super) position: Position,
    pub(super) db_pages: u32,
    pub(super) pages: Vec<(Pgid, Page)>,
    /// The first page that is not among them.
    pub(super) next: Option<Pgid>,
}

impl Room {
    pub(super) fn on_received(&mut self, channel_id: ChannelId, next: Lsn) {
        let Some(id) = self.subscriber_at(channel_id) else { return };
        if let Some(subscriber) = self.subscribers.get_mut(&id) {
            subscriber.on_received(next);
        }
        self.follow_up(id);
    }

    /// There is room on a connection again, or may be.
    pub(super) fn on_writable(&mut self, conn: ConnId) {
        for channel_id in self.channels_of(conn) {
            let Some(id) = self.subscriber_at(channel_id) else { continue };
            match self.catch_ups.get(&id) {
                Some(CatchUp { step: Step::Waits, .. }) => self.read_chunk(id),
                Some(_) => {}
                None => self.follow_up(id),
            }
        }
    }

    pub(super) fn begin_following(&mut self, id: SubscriberId, from: Lsn, opened: FromRoom) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        subscriber.follow(from, &self.settings.limits);
        self.tell(id, opened);
        self.follow_up(id);
    }

    /// Sends entries to those who have not had their turn, as far as the budget goes.
    pub(super) fn broadcast(&mut self, mut broadcast: Broadcast, budget: &mut Budget) {
        let (range, is_only_stored) =
            (broadcast.leaving.range(), broadcast.leaving.is_only_stored());
        let mut lagging = Vec::new();
        let mut turns = self.subscribers.range_mut(broadcast.next..);
        let is_over = loop {
            let Some((id, subscriber)) = turns.next() else { break true };
            broadcast.next = SubscriberId(id.0 + 1);
            budget.spend_steps(WORK_STEPS);
            let channel_id = subscriber.channel_id;
            let mut step = FollowerStep::Rest;
            if is_only_stored {
                step = subscriber.next_step(range.end());
            } else {
                for entry in broadcast.leaving.entries_for(*id) {
                    let reserve = || self.outlets.reserve(channel_id.conn, entry_size(&entry));
                    step = subscriber.on_entry(entry.range, received_size(&entry), reserve);
                    if step != FollowerStep::SendEntry {
                        break;
                    }
                    budget.spend_pages(1 + entry.pages.len() as u64);
                    self.effects.push(channel_id.say(FromRoom::Entry(entry)));
                }
            }
            if let FollowerStep::CatchUp(since) = step {
                lagging.push((*id, since));
            }
            if budget.is_spent() {
                break false;
            }
        };
        if !is_over {
            self.broadcast = Some(broadcast);
        }
        for (id, since) in lagging {
            self.begin_catching_up(id, since);
        }
        if is_over {
            self.now_durable.append(&mut self.undurable);
        }
    }

    /// Sends a subscriber what it lacks, if it lacks anything and may be sent it.
    pub(super) fn follow_up(&mut self, id: SubscriberId) {
        let State::Open(document) = &self.state else { return };
        if self.broadcast.as_ref().is_some_and(|broadcast| id >= broadcast.next) {
            // Its turn comes.
            return;
        }
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        if let FollowerStep::CatchUp(since) = subscriber.next_step(document.durable.next) {
            self.begin_catching_up(id, since);
        }
    }

    fn begin_catching_up(&mut self, id: SubscriberId, since: Lsn) {
        let State::Open(document) = &self.state else { return };
        let Some(subscriber) = self.subscribers.get(&id) else { return };
        let journal = document.authority.position().journal;
        self.catch_ups.insert(id, CatchUp::new(subscriber.channel_id, journal, since));
        self.read_chunk(id);
    }

    /// Forgets what is on its way to the subscriber.
    pub(super) fn stop_catching_up(&mut self, id: SubscriberId) {
        if let Some(catch_up) = self.catch_ups.remove(&id) {
            if let Step::Read(request, _) = catch_up.step {
                self.reads.remove(&request);
            }
            self.outlets.release(catch_up.channel_id.conn, catch_up.reserved);
        }
        self.undurable.remove(&id);
        self.now_durable.remove(&id);
    }

    /// Asks for the next chunk, if there is room for it.
    fn read_chunk(&mut self, id: SubscriberId) {
        let limits = self.settings.limits;
        let Some(catch_up) = self.catch_ups.get_mut(&id) else { return };
        let size = size_of_entry(catch_up.chunk_pages(&limits), limits.message_pages_max);
        if !self.outlets.reserve(catch_up.channel_id.conn, size) {
            reached(Probe::CatchUpWaited);
            catch_up.step = Step::Waits;
            return;
        }
        catch_up.reserved = size;
        self.requests_ever += 1;
        let request = RequestId(self.requests_ever);
        catch_up.step = Step::Read(request, None);
        // What was appended must be there before it is read.
        self.commit();
        self.reads.insert(request, id);
        self.ask_for_chunk(request);
    }

    /// False if nobody wants it any more.
    pub(super) fn ask_for_chunk(&mut self, request: RequestId) -> bool {
        let catch_up = self.reads.get(&request).and_then(|id| self.catch_ups.get(id));
        let Some(catch_up) = catch_up else { return false };
        let pages_max = catch_up.chunk_pages(&self.settings.limits);
        self.effects.push(RoomEffect::Store(StoreRequest::SyncPrepare {
            request,
            urgency: Urgency::Background,
            document: self.document.clone(),
            journal: catch_up.journal,
            since: catch_up.pass_since,
            from: catch_up.from,
            pages_max: u32::try_from(pages_max).unwrap_or(u32::MAX),
        }));
        true
    }

    /// The store has read a part of a chunk.
    pub(super) fn on_sync_part(&mut self, request: RequestId, mut part: Chunk, last: bool) {
        let Some(id) = self.reads.get(&request).copied() else { return };
        if last {
            self.reads.remove(&request);
        }
        let Some(catch_up) = self.catch_ups.get_mut(&id) else { return };
        let Step::Read(_, chunk) = &mut catch_up.step else { return };
        if let Some(before) = chunk.take() {
            part.pages.splice(..0, before.pages);
        }
        if last {
            catch_up.step = Step::Here(part);
            self.send_chunk(id);
        } else {
            *chunk = Some(part);
        }
    }

    /// Sends a chunk that has come, if it is durable by now. Gives how many pages that were.
    pub(super) fn send_chunk(&mut self, id: SubscriberId) -> usize {
        let State::Open(document) = &self.state else { return 0 };
        let durable = document.durable;
        let Some(catch_up) = self.catch_ups.get_mut(&id) else { return 0 };
        let Step::Here(chunk) = &mut catch_up.step else { return 0 };
        let position = chunk.position;
        if position.journal != durable.journal || position.next > durable.next {
            reached(Probe::ChunkNotDurable);
            self.undurable.insert(id);
            return 0;
        }
        let pages_count = chunk.pages.len();
        let began = *catch_up.pass_began.get_or_insert(position);
        let is_whole = chunk.next.is_none() && position.next == began.next;
        let next = chunk.next;
        let (channel_id, since) = (catch_up.channel_id, catch_up.since);
        let range = LsnRange::new(since, position.next.max(since));
        let origin = document.origin_of(range);
        let head = EntryHead { range, position, db_pages: chunk.db_pages, origin };
        let pages = chunk.pages.iter().map(|(pgid, page)| (*pgid, page));
        let part_pages_max = self.settings.limits.message_pages_max;
        let parts = head.parts(pages, is_whole, &mut catch_up.hash, part_pages_max);
        let sent_size = parts.iter().map(entry_size).sum();
        catch_up.received_size += parts.iter().map(received_size).sum::<usize>();
        let parts = parts.into_iter();
        self.effects.extend(parts.map(|part| channel_id.say(FromRoom::Entry(part))));
        let unused = catch_up.reserved.checked_sub(sent_size);
        self.outlets.release(channel_id.conn, unused.expect("BUG: more was sent than asked for"));
        catch_up.reserved = 0;
        if is_whole {
            if position.next.get() > since.get() + 1 {
                reached(Probe::EntryMerged);
            }
            let received_size = catch_up.received_size;
            self.catch_ups.remove(&id);
            if let Some(subscriber) = self.subscribers.get_mut(&id) {
                subscriber.caught_up(position.next, received_size);
            }
            self.follow_up(id);
            return pages_count;
        }
        match next {
            Some(next) => catch_up.from = next,
            None => {
                reached(Probe::CatchUpPassedAgain);
                catch_up.begin_pass(began.next);
            }
        }
        self.read_chunk(id);
        pages_count
    }
}

impl Broadcast {
    pub(super) fn new(leaving: LeavingEntries) -> Self {
        Self { leaving, next: SubscriberId(0) }
    }
}

impl CatchUp {
    fn new(channel_id: ChannelId, journal: JournalId, since: Lsn) -> Self {
        Self {
            channel_id,
            journal,
            since,
            pass_since: since,
            pass_began: None,
            passes_count: 0,
            from: Pgid(1),
            step: Step::Waits,
            reserved: 0,
            received_size: 0,
            hash: EntryHash::default(),
        }
    }

    /// Goes over what has changed since the last pass began.
    fn begin_pass(&mut self, since: Lsn) {
        self.pass_since = since;
        self.pass_began = None;
        self.passes_count += 1;
        self.from = Pgid(1);
    }

    /// How many pages a chunk has at most.
    fn chunk_pages(&self, limits: &Limits) -> usize {
        let pages_max = limits.catch_up_pages_max.max(limits.catch_up_pages).max(1);
        let pages = limits.catch_up_pages.checked_shl(self.passes_count);
        pages.map_or(pages_max, |pages| pages.clamp(1, pages_max))
    }
}
