//! What a room says in answer to what it is asked, seen at its door.
//!
//! It refuses for reasons that are so, sends each follower each LSN once and no more at a time than
//! it may, goes on from what its client has, and owes nobody an answer when it waits for nothing.
//! Clients get over most of this by asking again, so that nobody else would notice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidelog_pages::{RequestId, StoreReply, StoreRequest, Ticket};
use tidelog_room::{Ask, ConnId, May, Room, RoomEffect, RoomInput, Speaker, received_size};
use tidelog_sync::{
    Channel, EntryPart, FromRoom, FromServer, Intent, OpenDoctype, ProbeId, Refusal, ToRoom,
};
use tidelog_types::limits::{Limits, TIMELINE_LIVES_KEPT_MAX};
use tidelog_types::{Chain, DocumentKey, JournalId, Lsn, Position};

/// What was said between a room and its clients, and what it waits for.
pub(crate) struct Talk {
    limits: Limits,
    /// Whether two copies of one client may have written.
    may_part: bool,
    /// Whether clients say what is not right.
    has_strangers: bool,
    /// Whether they have releases of which neither succeeds the other.
    pub(crate) forks: bool,
    /// Whether there are tasks.
    pub(crate) has_tasks: bool,
    /// Channels whose clients may not do all that there is to do.
    lacks: BTreeSet<(ConnId, Channel)>,
    /// The frames that came of clients who might write, and were not told that none is taken;
    /// nothing if it cannot be told which those were.
    brought: Option<BTreeSet<String>>,
    is_damaged: bool,
    /// Whether something of the document is lost: nobody is to see what is left.
    is_incomplete: bool,
    /// Whether an append or a read failed, or somebody was too slow; and whether the room has not
    /// come to rest since.
    has_failed: bool,
    is_shaken: bool,
    /// Whether there is no document; `None` until that is known.
    is_absent: Option<bool>,
    was_destroyed: bool,
    places: BTreeMap<(ConnId, Channel), Place>,
    /// Channels that were closed, to which the room may have come only later: it answers what was
    /// asked there all the same, and no client hears that.
    closed: BTreeSet<(ConnId, Channel)>,
    /// What the store has not answered, and where the storage journal stands after each.
    tickets: BTreeMap<Ticket, Option<Position>>,
    reads: BTreeSet<RequestId>,
    opens_count: u32,
    /// Where the storage journals stood that clients were told of.
    told: BTreeMap<(JournalId, Lsn), Chain>,
    /// What was acknowledged of each timeline, while this was the storage journal.
    acked: BTreeMap<(JournalId, JournalId), Lsn>,
    /// Where the storage journals end on the disk.
    durable: BTreeMap<JournalId, Lsn>,
}

/// One channel.
#[derive(Default)]
struct Place {
    /// What was asked and is not answered.
    opens: VecDeque<Opening>,
    /// It cannot be told what an answer is for.
    is_unclear: bool,
    /// Somebody was let in there, and not sent away since.
    is_taken: bool,
    is_closing: bool,
    /// Whether it was said that no frames are taken.
    is_forbidden: bool,
    is_seeding: bool,
    owes_seed: bool,
    owes_frames: bool,
    probes: BTreeSet<ProbeId>,
    served: Option<Served>,
}

#[derive(Clone, Copy)]
struct Opening {
    timeline: JournalId,
    have: Option<Position>,
    is_offer: bool,
    is_named: bool,
}

/// One who follows.
struct Served {
    journal: JournalId,
    timeline: JournalId,
    /// Frames stay undecided for now.
    is_undecided: bool,
    received: Lsn,
    sent: Lsn,
    /// Bytes of what it has not received, by the LSNs behind it.
    in_flight: VecDeque<(Lsn, usize)>,
    /// Bytes so far of an entry of which parts are to come.
    begun: Option<usize>,
}

impl Served {
    fn has_room(&self, limits: &Limits) -> bool {
        let size: usize = self.in_flight.iter().map(|(_, size)| size).sum();
        let count = self.sent.get() - self.received.get();
        count < limits.entries_in_flight_max && size < limits.entries_in_flight_size_max
    }

    fn is_sent(&mut self, part: &EntryPart, limits: &Limits) -> Result<(), String> {
        let (range, sent) = (part.range, self.sent);
        if range.start() != sent {
            return Err(format!("a follower who was sent all before {sent} is sent {range}"));
        }
        if self.begun.is_none() && !self.has_room(limits) {
            let received = self.received;
            return Err(format!("one who has received all before {received} is sent {range}"));
        }
        let size = self.begun.take().unwrap_or(0) + received_size(part);
        if part.is_last {
            self.sent = range.end();
            self.in_flight.push_back((range.end(), size));
        } else {
            self.begun = Some(size);
        }
        Ok(())
    }
}

impl Talk {
    pub(crate) fn new(
        limits: Limits,
        is_damaged: bool,
        may_part: bool,
        has_strangers: bool,
    ) -> Self {
        Self {
            limits,
            may_part,
            has_strangers,
            forks: false,
            has_tasks: false,
            lacks: BTreeSet::new(),
            brought: Some(BTreeSet::new()),
            is_damaged,
            is_incomplete: false,
            has_failed: false,
            is_shaken: false,
            is_absent: None,
            was_destroyed: false,
            places: BTreeMap::new(),
            closed: BTreeSet::new(),
            tickets: BTreeMap::new(),
            reads: BTreeSet::new(),
            opens_count: 0,
            told: BTreeMap::new(),
            acked: BTreeMap::new(),
            durable: BTreeMap::new(),
        }
    }

    /// Something comes in to the room of this document.
    pub(crate) fn comes(&mut self, key: &DocumentKey, input: &RoomInput) {
        match input {
            RoomInput::Message { conn, channel, message, speaker } => {
                self.is_brought((*conn, *channel), message, speaker);
                self.is_said((*conn, *channel), message);
            }
            RoomInput::Refuse { conn, channel, .. } => _ = self.lacks.insert((*conn, *channel)),
            RoomInput::Left { conn } => {
                let places = self.places.iter_mut().filter(|((on, _), _)| on == conn);
                places.for_each(|(_, place)| place.is_closing = true);
            }
            RoomInput::Ask { ask: Ask::Export { conn }, .. } => {
                let place = self.places.entry((*conn, Channel(0))).or_default();
                (place.is_unclear, place.is_closing) = (true, false);
            }
            RoomInput::Ask { ask: Ask::Destroy, .. } => self.was_destroyed = true,
            RoomInput::SeedOverdue { .. } | RoomInput::SeedUnkept => self.fails(),
            RoomInput::Store(reply) => self.is_answered(key, reply),
            _ => {}
        }
    }

    fn is_brought(&mut self, at: (ConnId, Channel), message: &ToRoom, speaker: &Speaker) {
        if speaker.may < May::Create {
            self.lacks.insert(at);
        }
        let ToRoom::Frames { first, frames, .. } = message else { return };
        let Some(place) = self.places.get(&at).filter(|_| speaker.may >= May::Write) else {
            return;
        };
        let Some(brought) = &mut self.brought else { return };
        match &place.served {
            Some(_) if place.is_forbidden => {}
            Some(Served { timeline, .. }) => {
                let lsns = (0..frames.len() as u64).map(|nth| first.plus(nth));
                brought.extend(lsns.map(|lsn| format!("frame {lsn} of timeline {timeline}")));
            }
            None => self.brought = None,
        }
    }

    /// The room has run this.
    ///
    /// # Errors
    ///
    /// It is a frame that nobody has brought who may.
    pub(crate) fn has_run(&self, what: &str) -> Result<(), String> {
        let frame = what.split(" by life ").next().filter(|what| what.starts_with("frame "));
        let (Some(brought), Some(frame)) = (&self.brought, frame) else { return Ok(()) };
        if brought.contains(frame) {
            return Ok(());
        }
        Err(format!("{what} is run, of one who may not write"))
    }

    fn is_said(&mut self, at: (ConnId, Channel), message: &ToRoom) {
        if let ToRoom::Open { doctype, timeline, have, intent, .. } = message {
            let place = self.places.entry(at).or_default();
            place.is_unclear |= !place.opens.is_empty() || place.is_closing;
            (place.is_closing, place.owes_seed, place.owes_frames) = (false, false, false);
            place.is_forbidden = false;
            place.probes.clear();
            let is_offer = *intent != Intent::Follow;
            let (timeline, have) = (*timeline, *have);
            let is_named = matches!(doctype, OpenDoctype::Named(_));
            return place.opens.push_back(Opening { timeline, have, is_offer, is_named });
        }
        let Some(place) = self.places.get_mut(&at) else { return };
        match (message, &mut place.served) {
            (ToRoom::Close, _) => place.is_closing = true,
            (ToRoom::Seed { .. }, _) => place.owes_seed = place.is_seeding,
            _ if !place.opens.is_empty() => {}
            (ToRoom::Frames { .. }, Some(served)) => place.owes_frames = !served.is_undecided,
            (ToRoom::Probe { probe }, Some(_)) => _ = place.probes.insert(*probe),
            (ToRoom::Received { next }, Some(served)) => {
                served.received = served.received.max((*next).min(served.sent));
                while served.in_flight.pop_front_if(|(end, _)| *end <= *next).is_some() {}
            }
            _ => {}
        }
    }

    fn is_answered(&mut self, key: &DocumentKey, reply: &StoreReply) {
        match reply {
            StoreReply::Durable { ticket } => {
                let later = self.tickets.split_off(&Ticket(ticket.0 + 1));
                let durable = std::mem::replace(&mut self.tickets, later);
                durable.into_values().flatten().for_each(|position| self.reach(position));
            }
            StoreReply::AppendFailed { ticket, .. } => {
                self.fails();
                self.tickets.remove(ticket);
            }
            StoreReply::Broken { .. } => {
                self.fails();
                self.tickets.clear();
                self.reads.clear();
                self.opens_count = 0;
            }
            StoreReply::Opened { document, state, .. } => {
                self.opens_count = self.opens_count.saturating_sub(1);
                let storage = state.as_ref().and_then(|state| state.storage);
                self.is_damaged |= state.as_ref().is_some_and(|state| state.is_incomplete);
                if document == key {
                    self.is_incomplete = state.as_ref().is_some_and(|state| state.is_incomplete);
                    self.is_absent = Some(storage.is_none());
                }
            }
            StoreReply::Pages { request, last: true, .. }
            | StoreReply::SyncPart { request, last: true, .. }
            | StoreReply::Unrelated { request, .. }
            | StoreReply::Busy { request, .. } => _ = self.reads.remove(request),
            StoreReply::Damaged { request, .. } => {
                self.is_damaged = true;
                self.reads.remove(request);
            }
            _ => {}
        }
    }

    fn fails(&mut self) {
        (self.has_failed, self.is_shaken) = (true, true);
    }

    fn reach(&mut self, position: Position) {
        let end = self.durable.entry(position.journal).or_insert(position.next);
        *end = position.next.max(*end);
    }

    /// Something leaves the room.
    ///
    /// # Errors
    ///
    /// It may not, or not so.
    pub(crate) fn leaves(&mut self, key: &DocumentKey, effect: &RoomEffect) -> Result<(), String> {
        match effect {
            RoomEffect::Store(request) => {
                self.is_asked(key, request);
                Ok(())
            }
            RoomEffect::Send { conn, message: FromServer::About { channel, body } } => {
                self.says((*conn, *channel), body)
            }
            _ => Ok(()),
        }
    }

    fn is_asked(&mut self, key: &DocumentKey, request: &StoreRequest) {
        match request {
            StoreRequest::Append { ticket, append } => {
                let entry = append.storage.last().filter(|_| !append.is_cut);
                self.tickets.insert(*ticket, entry.map(|entry| entry.position));
                let begins = append.document == *key && append.begin_storage.is_some();
                if begins || append.take_name.is_some() {
                    self.is_absent = Some(false);
                }
            }
            StoreRequest::Destroy { ticket, .. } => _ = self.tickets.insert(*ticket, None),
            StoreRequest::Open { .. } => self.opens_count += 1,
            StoreRequest::Read { request, .. } | StoreRequest::SyncPrepare { request, .. } => {
                self.reads.insert(*request);
            }
            _ => {}
        }
    }

    fn says(&mut self, at: (ConnId, Channel), body: &FromRoom) -> Result<(), String> {
        if let FromRoom::Refused(refusal) = body {
            let place = self.places.remove(&at).unwrap_or_default();
            let Place { mut opens, is_taken, is_closing, .. } = place;
            let is_named = opens.iter().any(|it| it.is_named) || self.closed.contains(&at);
            if *refusal == Refusal::DoctypeWanted && !is_named {
                return Err("a doctype is wanted that nobody has named".to_owned());
            }
            // Who was let in can be sent away before what was asked since is looked at, as where a
            // page has rotted that it lacks.
            if !is_taken {
                opens.pop_front();
            }
            if !opens.is_empty() {
                // What else was asked there opens it again.
                let place = Place { opens, is_unclear: true, is_closing, ..Place::default() };
                self.places.insert(at, place);
            }
            return self.may_refuse(refusal, self.lacks.contains(&at));
        }
        let Some(place) = self.places.get_mut(&at) else {
            return Err(format!("something is said on a channel that was closed: {body:?}"));
        };
        match body {
            FromRoom::Opened { storage, from, wanted, .. } => {
                (place.is_taken, place.is_seeding) = (true, false);
                place.owes_seed = false;
                let opening = place.opens.pop_front();
                // What is exported for an operator is asked for by nobody on a channel.
                if self.is_incomplete && opening.is_some() {
                    return Err("a document of which something is lost is opened".to_owned());
                }
                place.is_unclear |= !place.opens.is_empty();
                if place.is_unclear {
                    place.served = None;
                    return Ok(());
                }
                let timeline = match (opening, &place.served) {
                    (Some(opening), _) => opening.timeline,
                    // Of one who has handed a document over.
                    (None, Some(served)) => served.timeline,
                    (None, None) => return Err("a channel is opened that nobody opens".to_owned()),
                };
                self.told.insert((storage.journal, storage.next), storage.chain);
                let (journal, received, sent) = (storage.journal, *from, *from);
                let (is_undecided, in_flight, begun) = (false, VecDeque::new(), None);
                place.served = Some(Served {
                    journal,
                    timeline,
                    is_undecided,
                    received,
                    sent,
                    in_flight,
                    begun,
                });
                let opening = opening.filter(|opening| !opening.is_offer);
                opening.map_or(Ok(()), |it| self.may_begin(&it, storage, *from, *wanted))
            }
            FromRoom::SeedWanted => {
                let opening = place.opens.pop_front();
                place.is_unclear |= !place.opens.is_empty();
                (place.is_taken, place.is_seeding) = (true, true);
                place.served = opening.map(Served::who_offers);
                match self.is_absent {
                    _ if opening.is_none_or(|it| it.is_offer) => Ok(()),
                    _ => Err("a document is wanted of one who did not offer it".to_owned()),
                }
            }
            FromRoom::SeedTaken { .. } => {
                place.owes_seed = false;
                Ok(())
            }
            FromRoom::Probed { probe, .. } => {
                place.probes.remove(probe);
                Ok(())
            }
            FromRoom::Undecided { .. } => {
                place.owes_frames = false;
                place.served.iter_mut().for_each(|served| served.is_undecided = true);
                Ok(())
            }
            FromRoom::Forbidden { .. } => {
                (place.owes_frames, place.is_forbidden) = (false, true);
                place.served.iter_mut().for_each(|served| served.is_undecided = true);
                Ok(())
            }
            FromRoom::Allowed { .. } => Err("a room says what its shell has to say".to_owned()),
            FromRoom::Presence(_) => Err("a room tells who is present, and none is".to_owned()),
            FromRoom::Archived { .. } => Err("a room says what its shell has to say".to_owned()),
            FromRoom::Registered { .. }
            | FromRoom::NotRegistered { .. }
            | FromRoom::Completed { .. }
                if self.has_tasks =>
            {
                Ok(())
            }
            FromRoom::Registered { .. }
            | FromRoom::NotRegistered { .. }
            | FromRoom::Completed { .. } => {
                Err("a room answers who handles commands, and nobody does".to_owned())
            }
            FromRoom::Acked { next } => {
                place.owes_frames = false;
                if let Some(served) = &place.served {
                    let acked = self.acked.entry((served.journal, served.timeline));
                    let acked = acked.or_insert(*next);
                    *acked = (*acked).max(*next);
                }
                Ok(())
            }
            FromRoom::Entry(part) => {
                let Some(served) = &mut place.served else { return Ok(()) };
                served.is_sent(part, &self.limits)?;
                let Position { journal, next, chain, .. } = part.position;
                self.told.insert((journal, next), chain);
                Ok(())
            }
            FromRoom::Seeded { .. } | FromRoom::Refused(_) => Ok(()),
        }
    }

    /// Whether the reason of a refusal is so.
    fn may_refuse(&self, refusal: &Refusal, lacks: bool) -> Result<(), String> {
        // A frame that comes twice may be of a life that is not remembered any more.
        let forgets_lives = self.limits.timeline_lives_kept_max < TIMELINE_LIVES_KEPT_MAX;
        let is_so = match refusal {
            Refusal::Missing => self.was_destroyed || self.is_absent == Some(true),
            Refusal::Exists => self.is_absent == Some(false),
            Refusal::Parted => self.may_part || self.has_strangers || forgets_lives,
            Refusal::Damaged => self.is_damaged,
            Refusal::DoctypeWanted => true,
            Refusal::Storage { .. } => self.has_failed || self.is_damaged,
            Refusal::DoctypeMismatch { .. } => self.has_strangers || self.forks,
            Refusal::Access { .. } => self.has_strangers || lacks,
            Refusal::DoctypeInvalid { .. } | Refusal::Protocol { .. } => self.has_strangers,
        };
        if is_so { Ok(()) } else { Err(format!("a client is refused, without that: {refusal:?}")) }
    }

    /// One who follows goes on from what it has, if that is what it was told here, and its frames
    /// are not asked for again.
    fn may_begin(
        &self,
        opening: &Opening,
        storage: &Position,
        from: Lsn,
        wanted: Lsn,
    ) -> Result<(), String> {
        if self.is_damaged {
            return Ok(());
        }
        let acked = self.acked.get(&(storage.journal, opening.timeline));
        if let Some(acked) = acked.filter(|acked| wanted < **acked) {
            return Err(format!(
                "frames from {wanted} on are wanted, those before {acked} are here"
            ));
        }
        let Some(have) = opening.have else {
            return match from {
                Lsn::FIRST => Ok(()),
                from => Err(format!("one who has nothing goes on from {from}")),
            };
        };
        let told = self.told.get(&(have.journal, have.next));
        let is_same = have.journal == storage.journal && told == Some(&have.chain);
        let is_other = have.journal != storage.journal || told.is_some_and(|it| *it != have.chain);
        if is_same && have.life == storage.life && from != have.next {
            return Err(format!("one who has all before {} is sent all anew", have.next));
        }
        if is_other && from != Lsn::FIRST {
            return Err(format!("one who has {have}, which is of another history, goes on there"));
        }
        Ok(())
    }

    /// Whether the store has not answered for something.
    pub(crate) fn waits(&self) -> bool {
        !self.tickets.is_empty() || !self.reads.is_empty() || self.opens_count > 0
    }

    /// The room was told to give back what it can.
    ///
    /// # Errors
    ///
    /// It has not.
    pub(crate) fn has_rested(&self, room: &Room) -> Result<(), String> {
        let is_at_work = self.waits() || !room.takes_messages() || room.wants_step();
        match room.kept_size() {
            size if size > 0 && !is_at_work => Err(format!("a room that rests keeps {size} bytes")),
            _ => Ok(()),
        }
    }

    /// The room has done what it could for now, and of those ways it was told that they are full.
    ///
    /// # Errors
    ///
    /// Something is left to do, and nothing will happen.
    pub(crate) fn rests(
        &mut self,
        room: &Room,
        is_full: impl Fn(ConnId) -> bool,
    ) -> Result<(), String> {
        if room.takes_messages() {
            let closed = self.places.extract_if(.., |_, place| place.is_closing);
            self.closed.extend(closed.map(|(at, _)| at));
        }
        if room.is_at_rest() && !self.tickets.is_empty() && !self.has_failed {
            return Err("a room is at rest, and its store has something of it in hand".to_owned());
        }
        if self.waits() || room.wants_step() {
            return Ok(());
        }
        if !room.takes_messages() {
            return Err("a room has something to do, and waits for nothing".to_owned());
        }
        if self.places.is_empty() && !room.is_at_rest() {
            return Err("a room is not at rest, and has nothing to do for anybody".to_owned());
        }
        let is_seeding = self.places.values().any(|place| place.is_seeding);
        for ((conn, _), place) in self.places.iter().filter(|(_, place)| !place.is_unclear) {
            if place.owes_seed || place.owes_frames || !place.probes.is_empty() {
                return Err("a room waits for nothing, and owes somebody an answer".to_owned());
            }
            if !place.opens.is_empty() && !is_seeding {
                return Err("a room waits for nothing, and opens nothing for somebody".to_owned());
            }
            let Some(served) = place.served.as_ref().filter(|_| !place.is_seeding) else {
                continue;
            };
            let durable = self.durable.get(&served.journal).copied().unwrap_or(Lsn::FIRST);
            let (sent, may) = (served.sent, served.has_room(&self.limits) && !is_full(*conn));
            if may && sent < durable && !self.is_damaged && !self.is_shaken {
                return Err(format!("one who was sent all before {sent} is not sent {durable}"));
            }
        }
        self.is_shaken = false;
        if !is_seeding {
            // All that was asked there was answered.
            let unclear = self.places.values_mut().filter(|place| place.is_unclear);
            unclear.for_each(|place| {
                place.opens.clear();
                (place.is_unclear, place.served) = (false, None);
            });
        }
        Ok(())
    }
}

impl Served {
    /// One who offers a document follows none so far.
    fn who_offers(opening: Opening) -> Self {
        Self {
            journal: JournalId::NONE,
            timeline: opening.timeline,
            is_undecided: true,
            received: Lsn::FIRST,
            sent: Lsn::FIRST,
            in_flight: VecDeque::new(),
            begun: None,
        }
    }
}
