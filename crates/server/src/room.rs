//! The room: one document on the server, as a pure state machine.
//!
//! ```text
//! messages of clients ──▶ queue ──▶ Authority ──▶ outbox ──▶ store
//!                                                   │ durable
//!                                 clients ◀─────────┘
//! ```
//!
//! Inputs are worked off in the order in which they came, one run of SQLite at a time. A run that
//! needs a page which is not in memory waits for the store, and everything behind it waits too.
//! What runs produce collects in one append per step; whatever clients are told about it is held
//! back until the store has said that it is durable.
//!
//! # What this file does not know
//!
//! Sockets, tasks, time. Randomness is a seed that it is given.

mod ask;
mod document;
mod follow;
mod frames;
mod guest;
mod io;
mod load;
mod open;
mod outbox;
mod record;
mod seed;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use tidelog_pages::{StoreRequest, Ticket, Urgency};
use tidelog_sqlite::{Failure, Run};
use tidelog_sync::{FromServer, Refusal, ToServer, WireFrame};
use tidelog_types::{DocumentKey, JournalId, Lsn, Page, Pgid, Position};

use document::Document;
use follow::CatchUp;
use guest::{Guest, GuestId, Seat, Wish};
pub use io::{Answer, Ask, ConnId, RoomCounts, RoomEffect, RoomInput, RoomSettings, Service};
use outbox::{After, Outbox};

/// One document on the server.
pub struct Room {
    document: DocumentKey,
    settings: RoomSettings,
    seed: [u8; 32],
    ids_count: u64,
    state: State,
    queue: VecDeque<Work>,
    /// Set while the work at the front of the queue waits for pages.
    fetch: Option<Fetch>,
    /// Faults of the run at the front of the queue so far.
    faults_count: u32,
    guests: BTreeMap<GuestId, Guest>,
    guests_ever: u64,
    outbox: Outbox,
    /// An append of an earlier life that the store has not answered: the document is not opened
    /// before that.
    settles_at: Option<Ticket>,
    requests_ever: u64,
    /// What is being read for guests who lag, by request.
    catch_ups: BTreeMap<u64, CatchUp>,
    /// Reads that the store had no room for yet.
    refused: BTreeSet<u64>,
    counts: RoomCounts,
    effects: Vec<RoomEffect>,
}

enum State {
    /// Not known yet, or not any more.
    Closed,
    /// The store was asked.
    Opening,
    /// There is none.
    Absent,
    /// Here it is.
    Open(Box<Document>),
}

struct Fetch {
    request: u64,
    pages: Vec<(Pgid, Page)>,
    asked: Vec<Pgid>,
}

/// Something to work off. What is done of it already is taken out of it, so that it can be begun
/// again after a fault.
enum Work {
    Open(Seat, Wish),
    Frames { seat: Seat, first: Lsn, frames: VecDeque<WireFrame> },
    Seed { seat: Seat, position: Position, db_pages: u32, pages: Vec<(Pgid, Page)>, last: bool },
    Probe(Seat, u32),
    Close(Seat),
    Left(ConnId),
    Ask(u64, Ask),
}

/// Why work stopped.
enum Halt {
    /// A run needs a page.
    Fault(Pgid),
    /// These pages are needed.
    Missing(Vec<Pgid>),
    /// The client cannot be served.
    Refuse(Refusal),
    /// SQLite failed where it should not.
    Failed(Failure),
    /// The state here is not to be trusted any more.
    Broken(String),
}

/// The value of a run, or why it has none.
fn ran<T>(run: Run<T>) -> Result<T, Halt> {
    match run {
        Run::Done(value) => Ok(value),
        Run::Fault(pgid) => Err(Halt::Fault(pgid)),
        Run::Failed(failure) => Err(Halt::Failed(failure)),
    }
}

impl Room {
    /// The room of `document`. `seed` must be drawn at random for every room that is ever made:
    /// the ids of its journals come from it.
    #[must_use]
    pub fn new(document: DocumentKey, settings: RoomSettings, seed: [u8; 32]) -> Self {
        Self {
            outbox: Outbox::new(document.clone()),
            document,
            settings,
            seed,
            ids_count: 0,
            state: State::Closed,
            queue: VecDeque::new(),
            fetch: None,
            faults_count: 0,
            guests: BTreeMap::new(),
            guests_ever: 0,
            settles_at: None,
            requests_ever: 0,
            catch_ups: BTreeMap::new(),
            refused: BTreeSet::new(),
            counts: RoomCounts::default(),
            effects: Vec::new(),
        }
    }

    /// Takes what happened, says what is to be done.
    pub fn step(&mut self, input: RoomInput) -> Vec<RoomEffect> {
        match input {
            RoomInput::Message { conn, message } => self.on_message(conn, message),
            RoomInput::Left { conn } => self.queue.push_back(Work::Left(conn)),
            RoomInput::Store(reply) => self.on_store(reply),
            RoomInput::Ask { request, ask } => self.queue.push_back(Work::Ask(request, ask)),
        }
        self.work();
        self.commit();
        self.check();
        std::mem::take(&mut self.effects)
    }

    /// Whether nobody is here and nothing is under way: it may be dropped.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.guests.is_empty()
            && self.queue.is_empty()
            && self.outbox.is_empty()
            && !matches!(self.state, State::Opening)
    }

    /// What it has done since it was made.
    #[must_use]
    pub fn counts(&self) -> RoomCounts {
        self.counts
    }

    fn check(&self) {
        if let State::Open(document) = &self.state {
            let head = document.authority.position();
            let durable = document.durable;
            assert!(
                durable.journal != head.journal || durable.next <= head.next,
                "BUG: durable past the head: {self}"
            );
        }
    }

    fn on_message(&mut self, conn: ConnId, message: ToServer) {
        let seat = |channel| Seat { conn, channel };
        self.queue.push_back(match message {
            ToServer::Open { channel, doctype, timeline, have, intent, .. } => {
                Work::Open(seat(channel), Wish { doctype, timeline, have, intent })
            }
            ToServer::Frames { channel, first, frames } => {
                Work::Frames { seat: seat(channel), first, frames: frames.into() }
            }
            ToServer::Seed { channel, position, db_pages, pages, last } => {
                Work::Seed { seat: seat(channel), position, db_pages, pages, last }
            }
            ToServer::Received { channel, next } => {
                return self.on_received(seat(channel), next);
            }
            ToServer::Probe { channel, request } => Work::Probe(seat(channel), request),
            ToServer::Close { channel } => Work::Close(seat(channel)),
            ToServer::Hello { .. } | ToServer::Ping => return,
        });
    }

    /// Everything that was said before it counts, and is durable when the answer leaves.
    fn probe(&mut self, seat: Seat, request: u32) {
        let (Some(id), State::Open(document)) = (self.guest_at(seat), &self.state) else { return };
        let next = document.authority.position().next;
        let probed = FromServer::Probed { channel: seat.channel, request, next };
        self.outbox.after(After::Tell(id, probed));
    }

    /// Works off the queue until it is empty or waits for the store.
    fn work(&mut self) {
        while self.fetch.is_none() {
            let Some(work) = self.queue.front() else { break };
            let needs_document = !matches!(work, Work::Close(_) | Work::Left(_));
            match self.state {
                // What the store still has in hand could be read before it is durable.
                State::Closed if needs_document && self.settles_at.is_some() => break,
                State::Closed if needs_document => {
                    self.state = State::Opening;
                    let document = self.document.clone();
                    self.effects.push(RoomEffect::Store(StoreRequest::Open { document }));
                    break;
                }
                State::Opening => break,
                _ => {}
            }
            let Some(mut work) = self.queue.pop_front() else { break };
            if let Err(halt) = self.run(&mut work) {
                self.on_halt(work, halt);
            } else {
                self.settled();
            }
        }
    }

    fn run(&mut self, work: &mut Work) -> Result<(), Halt> {
        match work {
            Work::Open(seat, wish) => self.open(*seat, wish),
            Work::Frames { seat, first, frames } => self.frames(*seat, first, frames),
            Work::Seed { seat, position, db_pages, pages, last } => {
                self.seed(*seat, *position, *db_pages, pages, *last)
            }
            Work::Probe(seat, request) => {
                self.probe(*seat, *request);
                Ok(())
            }
            Work::Close(seat) => {
                let seat = *seat;
                self.guests.retain(|_, guest| guest.seat != seat);
                Ok(())
            }
            Work::Left(conn) => {
                let conn = *conn;
                self.guests.retain(|_, guest| guest.seat.conn != conn);
                Ok(())
            }
            Work::Ask(request, ask) => self.answer(*request, *ask),
        }
    }

    fn on_halt(&mut self, work: Work, halt: Halt) {
        let asked = match halt {
            Halt::Fault(pgid) => {
                let State::Open(document) = &self.state else {
                    unreachable!("BUG: a fault without a document")
                };
                let mut pgids = document.authority.view().to_fetch(pgid, self.faults_count);
                if !pgids.contains(&pgid) {
                    pgids.insert(0, pgid);
                    pgids.sort_unstable();
                }
                self.faults_count += 1;
                pgids
            }
            Halt::Missing(pgids) => pgids,
            Halt::Refuse(refusal) => return self.refuse(&work, refusal),
            Halt::Failed(failure) => {
                return self.give_up(work, &format!("SQLite failed: {failure}"));
            }
            Halt::Broken(reason) => return self.give_up(work, &reason),
        };
        // What was appended must be there before it is read.
        self.commit();
        self.queue.push_front(work);
        let request = self.next_request();
        self.fetch = Some(Fetch { request, pages: Vec::new(), asked });
        self.ask_for_pages();
    }

    fn ask_for_pages(&mut self) {
        let Some(Fetch { request, asked, .. }) = &self.fetch else { return };
        self.effects.push(RoomEffect::Store(StoreRequest::Read {
            request: *request,
            urgency: Urgency::User,
            document: self.document.clone(),
            pgids: asked.clone(),
        }));
    }

    fn give_up(&mut self, work: Work, reason: &str) {
        self.queue.push_front(work);
        self.settles_at = self.outbox.last_in_flight();
        self.poison(reason);
    }

    /// A run is over: nothing that it read is pinned any longer.
    fn settled(&mut self) {
        self.faults_count = 0;
        if let State::Open(document) = &self.state {
            document.authority.view().evict();
        }
        if self.outbox.is_full() {
            self.commit();
        }
    }

    fn refuse(&mut self, work: &Work, refusal: Refusal) {
        let (Work::Open(seat, _) | Work::Frames { seat, .. } | Work::Seed { seat, .. }) = work
        else {
            unreachable!("BUG: nobody to refuse")
        };
        let seat = *seat;
        self.guests.retain(|_, guest| guest.seat != seat);
        self.effects.push(RoomEffect::Send {
            conn: seat.conn,
            message: FromServer::Refused { channel: seat.channel, refusal },
        });
    }

    /// Hands the current append to the store, and does what need not wait.
    fn commit(&mut self) {
        if let Some(request) = self.outbox.commit() {
            self.effects.push(RoomEffect::Store(request));
        }
        while let Some(after) = self.outbox.next_ready() {
            self.carry_out(after);
        }
    }

    fn carry_out(&mut self, after: After) {
        match after {
            After::Tell(guest, message) => self.tell(guest, message),
            After::TellConn(conn, message) => {
                self.effects.push(RoomEffect::Send { conn, message });
            }
            After::Answer(request, answer) => {
                self.effects.push(RoomEffect::Answer { request, answer });
            }
            After::Follow { guest, storage, wanted, from } => {
                self.begin_following(guest, storage, wanted, from);
            }
            After::Entry(entry, origin) => {
                let State::Open(document) = &mut self.state else { return };
                if document.authority.position().journal != entry.position.journal {
                    return;
                }
                document.durable = entry.position;
                self.broadcast(entry.range, entry.position, &entry.set, origin);
                self.send_catch_ups();
            }
        }
    }

    fn tell(&mut self, id: GuestId, message: FromServer) {
        if let Some(guest) = self.guests.get(&id) {
            self.effects.push(RoomEffect::Send { conn: guest.seat.conn, message });
        }
    }

    fn guest_at(&self, seat: Seat) -> Option<GuestId> {
        self.guests.iter().find(|(_, guest)| guest.seat == seat).map(|(id, _)| *id)
    }

    fn next_request(&mut self) -> u64 {
        self.requests_ever += 1;
        self.requests_ever
    }

    fn next_journal_id(&mut self) -> JournalId {
        self.ids_count += 1;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed);
        hasher.update(&self.ids_count.to_le_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        JournalId(id)
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.document)?;
        match &self.state {
            State::Closed => write!(f, "closed")?,
            State::Opening => write!(f, "opening")?,
            State::Absent => write!(f, "absent")?,
            State::Open(document) => {
                let (head, durable) = (document.authority.position(), document.durable);
                write!(f, "head {} durable {}", head.next, durable.next)?;
            }
        }
        write!(
            f,
            " | guests {} queued {} appends {}",
            self.guests.len(),
            self.queue.len(),
            self.outbox.in_flight_count()
        )
    }
}
