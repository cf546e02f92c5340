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
//! # What one step costs
//!
//! A step does what its [`Budget`] allows and one piece of work, and stops as it does at a fault:
//! what is left goes back to the front of the queue, and the room [wants](Room::wants_step) to be
//! stepped again. It runs nothing while too much of what it ran is not durable yet. It sends
//! storage entries only where its [`Outlets`] have room for them, to as many followers in one step
//! as that allows, and reads what a follower lacks a chunk at a time, when there is room for that
//! chunk.
//!
//! # What this file does not know
//!
//! Sockets, tasks, time. Randomness is a seed that it is given.

mod archive;
mod ask;
mod caution;
mod doctypes;
mod document;
mod doubt;
mod due;
mod entry_parts;
mod follow;
mod frames;
mod handling;
mod io;
mod leaving;
mod load;
mod open;
mod operator;
mod outbox;
mod outlets;
mod presence;
mod record;
mod refusal;
mod seed;
mod subscriber;
#[cfg(test)]
mod tests;
mod work_time;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use tidelog_document::{Change, DueTasks, Handlers, InstanceId, TaskKind};
use tidelog_pages::{RequestId, StoreRequest, Urgency};
use tidelog_sqlite::{Failure, Run, Stopwatch, View};
use tidelog_sync::{Channel, CodedPage, FromRoom, ProbeId, Refusal, ToRoom, WireFrame};
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{
    Budget, BudgetLimits, DocumentKey, JournalId, Life, Lsn, Page, Pgid, Position,
};

pub use archive::{ARCHIVE, archive_of};
use caution::NoCaution;
pub use caution::{Caution, ENDED_THE_SERVER, Suspect};
pub use doctypes::Doctypes;
use document::Document;
use follow::{Broadcast, CatchUp};
use handling::{Place, Word};
pub use io::{
    Answer, Ask, ConnId, FailedMigration, May, MayRun, RoomCounts, RoomEffect, RoomInput,
    RoomSettings, Service, Speaker,
};
use outbox::{After, Outbox};
use outlets::size_of_pages;
pub use outlets::{Outlets, entry_size, received_size};
pub use presence::Identity;
use presence::Presence;
pub use record::recorded_due;
use refusal::brief;
pub use seed::STAGED;
use seed::SeedProgress;
use subscriber::{ChannelId, OpenRequest, Seed, Subscriber, SubscriberId};
pub use work_time::ThreadClock;
use work_time::WorkTime;

/// One document on the server.
pub struct Room {
    document: DocumentKey,
    settings: RoomSettings,
    seed: [u8; 32],
    /// The life under which the store is open: what is written meanwhile is of that life.
    life: Life,
    ids_count: u64,
    state: State,
    queue: VecDeque<Work>,
    /// Set while a piece of work waits for pages.
    fetch: Option<Fetch>,
    /// Faults of the work that is run, or waits for pages, so far.
    faults_count: u32,
    /// Pages that were fetched for it so far.
    fetched_pages: usize,
    runs_ended: u64,
    subscribers: BTreeMap<SubscriberId, Subscriber>,
    /// Who of them is on which channel: one at a time.
    channels: BTreeMap<ChannelId, SubscriberId>,
    subscribers_ever: u64,
    outlets: Arc<dyn Outlets>,
    caution: Arc<dyn Caution>,
    time: Option<Arc<WorkTime>>,
    /// Who is handing a local document over: one at a time.
    seeding: Option<SubscriberId>,
    /// How far that has come, as of when the shell last asked.
    seed_progress: Option<SeedProgress>,
    /// How often in a row nothing came of it for too long, or too little.
    overdue_count: u32,
    /// Whether it has as little time for that as while others wait.
    is_pressed: bool,
    may_run: MayRun,
    /// Whether its shell has something at hand that it is told next.
    expects_more: bool,
    /// Pages on their way to the disk beyond which it runs no more.
    pages_in_flight_max: usize,
    /// Those who would like to, once it is known what became of that, in the order in which they
    /// came.
    offers: VecDeque<(ChannelId, OpenRequest)>,
    /// Pages are staged in the store that nobody goes on with.
    has_abandoned: bool,
    outbox: Outbox,
    /// What is on its way to those who follow. Nothing is worked off, and nothing else told, before
    /// all have had their turn.
    broadcast: Option<Broadcast>,
    requests_ever: u64,
    /// What is being read for subscribers who lag.
    catch_ups: BTreeMap<SubscriberId, CatchUp>,
    /// For whom a request to the store reads.
    reads: BTreeMap<RequestId, SubscriberId>,
    /// Those of whose catch-ups a chunk waits to be durable.
    undurable: BTreeSet<SubscriberId>,
    /// Those of whom that was so: it may be durable by now, and is looked at before anything else
    /// is told.
    now_durable: BTreeSet<SubscriberId>,
    /// Reads that the store had no room for yet.
    refused: BTreeSet<RequestId>,
    presence: Presence,
    /// Milliseconds since the epoch.
    now_ms: u64,
    /// Who handles commands; `None` until somebody asks.
    handlers: Option<Handlers<Place>>,
    /// When it looks when tasks are due, while somebody is here and the document has changed.
    looks_at_ms: Option<u64>,
    /// It cannot tell, as long as the document is open.
    looks_in_vain: bool,
    /// What the shell knows of when they are.
    told_due: Option<DueTasks>,
    /// When it was told that somebody is to be told who is present, until that is done.
    presence_told_at_ms: Option<u64>,
    counts: RoomCounts,
    failed_migrations: Vec<FailedMigration>,
    untaken: Vec<String>,
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
    request: RequestId,
    /// What waits: it is run before all that is in the queue.
    work: Work,
    document: DocumentKey,
    pages: Vec<(Pgid, Page)>,
    /// What cannot be done without; the others are only near it.
    needed: Pgid,
    asked: Vec<Pgid>,
}

/// Something to work off. What is done of it already is taken out of it, so that it can be begun
/// again after a fault.
enum Work {
    Open(ChannelId, OpenRequest),
    Frames {
        channel_id: ChannelId,
        life: Life,
        first: Lsn,
        frames: VecDeque<WireFrame>,
        speaker: Speaker,
    },
    Seed {
        channel_id: ChannelId,
        position: Position,
        db_pages: u32,
        pages: Vec<CodedPage>,
        last: bool,
    },
    Probe(ChannelId, ProbeId),
    Close(ChannelId),
    Refuse(ChannelId, Refusal),
    HandlesNoMore(ChannelId),
    /// A connection goes that was last heard then.
    Silent(ConnId, u64),
    Left(ConnId),
    Ask(u64, Ask),
    Handling {
        channel_id: ChannelId,
        tag: u32,
        word: Word,
        speaker: Speaker,
    },
    Change(Change),
    /// When are tasks due?
    Look,
}

/// Why work stopped.
enum Halt {
    /// The step has cost enough, or too much is not durable yet.
    Pause,
    /// A run needs a page.
    Fault(Pgid),
    /// The client cannot be served.
    Refuse(Refusal),
    /// SQLite failed where it should not.
    Failed(Failure),
}

impl Work {
    /// About how many bytes it takes.
    fn size(&self) -> usize {
        match self {
            Self::Open(_, open) => open.size(),
            Self::Frames { frames, .. } => frames.iter().map(|frame| frame.body.len()).sum(),
            Self::Seed { pages, .. } => size_of_pages(pages),
            Self::Probe(..) | Self::Close(_) | Self::Silent(..) | Self::Left(_) | Self::Ask(..) => {
                0
            }
            Self::Refuse(..) | Self::HandlesNoMore(_) | Self::Change(_) | Self::Look => 0,
            Self::Handling { word, .. } => word.size(),
        }
    }

    fn needs_document(&self) -> bool {
        !matches!(self, Self::Close(_) | Self::Silent(..) | Self::Left(_) | Self::Refuse(..))
    }
}

/// What a piece of work costs at least, in steps.
const WORK_STEPS: u64 = 100;

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
    pub fn new(
        document: DocumentKey,
        settings: RoomSettings,
        seed: [u8; 32],
        outlets: Arc<dyn Outlets>,
    ) -> Self {
        let pages_in_flight_max = settings.limits.room_pages_in_flight_max;
        Self {
            outbox: Outbox::new(document.clone(), settings.limits.message_pages_max),
            document,
            settings,
            seed,
            life: Life::NONE,
            ids_count: 0,
            state: State::Closed,
            queue: VecDeque::new(),
            fetch: None,
            faults_count: 0,
            fetched_pages: 0,
            runs_ended: 0,
            subscribers: BTreeMap::new(),
            channels: BTreeMap::new(),
            subscribers_ever: 0,
            outlets,
            caution: Arc::new(NoCaution),
            time: None,
            seeding: None,
            seed_progress: None,
            overdue_count: 0,
            is_pressed: false,
            may_run: MayRun::Everything,
            expects_more: false,
            pages_in_flight_max,
            offers: VecDeque::new(),
            has_abandoned: false,
            broadcast: None,
            requests_ever: 0,
            catch_ups: BTreeMap::new(),
            reads: BTreeMap::new(),
            undurable: BTreeSet::new(),
            now_durable: BTreeSet::new(),
            refused: BTreeSet::new(),
            presence: Presence::default(),
            now_ms: 0,
            handlers: None,
            looks_at_ms: None,
            looks_in_vain: false,
            told_due: None,
            presence_told_at_ms: None,
            counts: RoomCounts::default(),
            failed_migrations: Vec::new(),
            untaken: Vec::new(),
            effects: Vec::new(),
        }
    }

    /// Runs what clients send with this caution, and not without any.
    #[must_use]
    pub fn with_caution(mut self, caution: Arc<dyn Caution>) -> Self {
        self.caution = caution;
        self
    }

    /// Ends what takes too long by this clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn ThreadClock>) -> Self {
        self.time = Some(Arc::new(WorkTime::new(clock)));
        self
    }

    /// Takes what happened, says what is to be done.
    pub fn step(&mut self, input: RoomInput) -> Vec<RoomEffect> {
        match input {
            RoomInput::Message { conn, channel, message, speaker } => {
                self.on_message(ChannelId { conn, channel }, message, speaker);
            }
            RoomInput::Refuse { conn, channel, refusal } => {
                self.queue.push_back(Work::Refuse(ChannelId { conn, channel }, refusal));
            }
            RoomInput::HandlesNoMore { conn, channel } => {
                self.queue.push_back(Work::HandlesNoMore(ChannelId { conn, channel }));
            }
            RoomInput::Silent { conn, for_ms } => {
                // Behind what it said before.
                let since_ms = self.now_ms.saturating_sub(for_ms);
                self.queue.push_back(Work::Silent(conn, since_ms));
            }
            RoomInput::Left { conn } => self.on_left(conn),
            RoomInput::Store(reply) => self.on_store(reply),
            RoomInput::Ask { request, ask } => self.queue.push_back(Work::Ask(request, ask)),
            RoomInput::Writable { conn } => self.on_writable(conn),
            RoomInput::SeedOverdue { now_ms } => self.end_overdue_seed(now_ms),
            RoomInput::SeedUnkept => self.end_unkept_seed(),
            RoomInput::Presence { conn, channel, identity, word, has_room, now_ms } => {
                let channel_id = ChannelId { conn, channel };
                // A channel that was refused or closed may still have had some on the way.
                if self.channels.contains_key(&channel_id) {
                    self.presence.hear(channel_id, &identity, word, has_room, now_ms);
                }
            }
            RoomInput::PresenceDue { now_ms } => self.presence_told_at_ms = Some(now_ms),
            RoomInput::GoOn => {}
        }
        self.time.iter().for_each(|time| time.begin_step(self.may_run));
        let mut budget = Budget::new(self.settings.limits.slice);
        self.tell_what_is_durable(&mut budget);
        self.plan_a_change();
        self.work(&mut budget);
        // What follows by itself from what was just done goes to the disk with it.
        if self.plan_a_change() {
            self.work(&mut budget);
        }
        if self.plan_a_look() {
            self.work(&mut budget);
        }
        if !self.expects_more || !self.takes_messages() {
            self.commit();
        }
        self.give_back_staged();
        self.tell_what_is_durable(&mut budget);
        self.tell_who_is_present();
        self.tell_due();
        self.check();
        std::mem::take(&mut self.effects)
    }

    /// A view of a base of `db_pages` pages.
    fn new_view(&self, db_pages: u32) -> View {
        let limits = self.settings.limits;
        let view = View::new(limits.pool_pages_max, db_pages).with_limits(limits);
        match &self.time {
            Some(time) => view.with_stopwatch(Arc::clone(time) as Arc<dyn Stopwatch>),
            None => view,
        }
    }

    /// The store was found damaged when it was opened anew: it can be read, and nothing is written
    /// to it.
    pub fn note_damage(&mut self) {
        self.settings.is_damaged = true;
    }

    /// Whether it stopped only since the step had cost enough: step it again, by
    /// [`RoomInput::GoOn`].
    #[must_use]
    pub fn wants_step(&self) -> bool {
        self.has_to_tell() || self.can_work() || self.has_gathered()
    }

    /// Whether something is at hand that it is told right behind the next step: what that one
    /// decides goes to the disk with what is decided then, in one append. For as long as that goes
    /// on it is on its way to nobody, so a shell says this of a short while only.
    pub fn expect_more(&mut self, expects_more: bool) {
        self.expects_more = expects_more;
    }

    /// Whether something is decided that waits for what was [expected](Self::expect_more).
    #[must_use]
    pub fn has_gathered(&self) -> bool {
        self.outbox.has_gathered()
    }

    /// Whether all that clients said is worked off, so that it takes more.
    #[must_use]
    pub fn takes_messages(&self) -> bool {
        self.queue.is_empty() && self.fetch.is_none()
    }

    /// Whether a run has faulted that has not ended: what it has read stays in memory until then.
    #[must_use]
    pub fn is_amid_run(&self) -> bool {
        self.fetch.is_some() || self.faults_count > 0
    }

    /// About how many bytes it keeps that are on their way to the disk, or to be told once they are
    /// there.
    #[must_use]
    pub fn in_flight_size(&self) -> usize {
        self.outbox.held() * PAGE_SIZE
    }

    /// Beyond how many pages on their way to the disk it runs no more; one for each entry beside
    /// those that it has. With 1 it has one entry at a time, with 0 none at all.
    pub fn limit_in_flight(&mut self, pages_max: usize) {
        self.pages_in_flight_max = pages_max;
    }

    /// Whether it would run something if it might have anything on its way to the disk.
    #[must_use]
    pub fn is_held_up(&self) -> bool {
        let is_free = self.queue.front().is_some_and(|work| self.is_free_for(work));
        self.pages_in_flight_max == 0 && self.outbox.held() == 0 && is_free
    }

    /// What it may run from now on. If nothing, it still takes in what it is told, and tells what
    /// is durable.
    pub fn let_run(&mut self, may_run: MayRun) {
        self.may_run = may_run;
    }

    /// Whether it would run something if it [might](Self::let_run).
    #[must_use]
    pub fn is_held_back(&self) -> bool {
        let is_free = |work: &Work| work.needs_document() && self.is_free_for(work);
        self.may_run == MayRun::Nothing
            && !self.is_full()
            && self.queue.front().is_some_and(is_free)
    }

    /// How many bytes of pages were fetched for that run.
    #[must_use]
    pub fn run_size(&self) -> usize {
        self.fetched_pages * PAGE_SIZE
    }

    /// Gives up the run that waits for pages, with all that it has read: it begins anew.
    pub fn begin_run_anew(&mut self) {
        let Some(Fetch { request, work, .. }) = self.fetch.take() else { return };
        self.refused.remove(&request);
        self.queue.push_front(work);
        self.faults_count = 0;
        self.fetched_pages = 0;
        let seeding = self.seeding.and_then(|id| self.subscribers.get_mut(&id));
        if let Some(seed) = seeding.and_then(|subscriber| subscriber.seed.as_mut()) {
            // It is made of what is staged, again.
            seed.candidate = None;
        }
        self.rest_deeply();
    }

    /// How many runs have ended since it was made: what was kept for one is not kept for the next.
    #[must_use]
    pub fn runs_ended(&self) -> u64 {
        self.runs_ended
    }

    /// About how many bytes are left of what clients said that it works on.
    #[must_use]
    pub fn said_size(&self) -> usize {
        let begun = self.fetch.as_ref().map(|fetch| &fetch.work);
        self.queue.iter().chain(begun).map(Work::size).sum()
    }

    /// Gives back what is kept for the next message, since none has come for a while: the
    /// connections to the database take more than all else.
    pub fn rest(&mut self) {
        if let State::Open(document) = &mut self.state {
            document.rest();
        }
    }

    /// Gives back the pages as well, which the store has. Not between two runs of one transaction,
    /// which needs them.
    pub fn rest_deeply(&mut self) {
        let is_amid_run = self.is_amid_run();
        if let State::Open(document) = &mut self.state {
            document.authority.rest();
            if !is_amid_run {
                document.give_pages_back();
            }
        }
    }

    /// About how many bytes it keeps for the next message, which a [rest](Self::rest) gives back,
    /// and of pages that are fetched for what is run, until that has ended.
    #[must_use]
    pub fn kept_size(&self) -> usize {
        let document = match &self.state {
            State::Open(document) => document.kept_size(),
            _ => 0,
        };
        let candidate = self.seed_at_hand().and_then(|seed| seed.candidate.as_ref());
        let candidate = candidate.map_or(0, |candidate| candidate.document.kept_size());
        let fetched = self.fetch.as_ref().map_or(0, |fetch| fetch.pages.len() * PAGE_SIZE);
        document + candidate + fetched
    }

    /// About how many bytes it keeps of a document that is handed over, until it has come.
    #[must_use]
    pub fn seed_size(&self) -> usize {
        self.seed_at_hand().map_or(0, Seed::kept_size)
    }

    fn seed_at_hand(&self) -> Option<&Seed> {
        self.subscribers.get(&self.seeding?)?.seed.as_deref()
    }

    /// Whether nobody is here and nothing is under way: it may be dropped.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.subscribers.is_empty()
            && self.takes_messages()
            && self.outbox.is_empty()
            && self.broadcast.is_none()
            && !matches!(self.state, State::Opening)
    }

    /// Whether another room, made when somebody comes, would know as much: the document is not
    /// there, or not open, and nobody has been too slow to hand one over.
    #[must_use]
    pub fn knows_nothing(&self) -> bool {
        !matches!(self.state, State::Open(_)) && self.overdue_count == 0
    }

    /// What it has done since it was made.
    #[must_use]
    pub fn counts(&self) -> RoomCounts {
        self.counts
    }

    /// The migrations that failed on its document in the last step.
    pub fn take_failed_migrations(&mut self) -> Vec<FailedMigration> {
        std::mem::take(&mut self.failed_migrations)
    }

    /// What of its tasks the document did not take in the last step, and why, for a person.
    pub fn take_untaken(&mut self) -> Vec<String> {
        std::mem::take(&mut self.untaken)
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

    fn on_message(&mut self, id: ChannelId, message: ToRoom, speaker: Speaker) {
        self.queue.push_back(match message {
            ToRoom::Open { doctype, timeline, secret, have, intent, .. } => {
                let may = speaker.may;
                Work::Open(id, OpenRequest { doctype, timeline, secret, have, intent, may })
            }
            ToRoom::Frames { life, first, frames } => {
                Work::Frames { channel_id: id, life, first, frames: frames.into(), speaker }
            }
            ToRoom::Seed { position, db_pages, pages, last } => {
                Work::Seed { channel_id: id, position, db_pages, pages, last }
            }
            ToRoom::Received { next } => return self.on_received(id, next),
            ToRoom::Probe { probe } => Work::Probe(id, probe),
            ToRoom::Close => Work::Close(id),
            // Its shell knows who speaks, and when: see `RoomInput::Presence`.
            ToRoom::Presence(_) => return,
            // Its shell asks the room of the archive.
            ToRoom::Archived(_) => return,
            ToRoom::Register { tag, instance, kinds, concurrency } => {
                let kind = |(aggregate, name)| TaskKind { aggregate, name };
                let kinds = kinds.into_iter().map(kind).collect();
                let word = Word::Register { before: InstanceId(instance), kinds, concurrency };
                Work::Handling { channel_id: id, tag, word, speaker }
            }
            ToRoom::Deregister { tag } => {
                Work::Handling { channel_id: id, tag, word: Word::Deregister, speaker }
            }
            ToRoom::Complete { tag, number, completion } => {
                let word = Word::Complete { number, completion };
                Work::Handling { channel_id: id, tag, word, speaker }
            }
        });
    }

    /// No more is done of what it said than is begun, for which nobody waits: it says it again.
    fn on_left(&mut self, conn: ConnId) {
        let begun = self.fetch.as_mut().map(|fetch| &mut fetch.work);
        for work in self.queue.iter_mut().chain(begun) {
            if let Work::Frames { channel_id, frames, .. } = work
                && channel_id.conn == conn
            {
                frames.truncate(1);
            }
        }
        self.queue.push_back(Work::Left(conn));
    }

    /// Everything that was said before it counts, and is durable when the answer leaves.
    fn probe(&mut self, channel_id: ChannelId, probe: ProbeId) {
        let (Some(id), State::Open(document)) = (self.subscriber_at(channel_id), &self.state)
        else {
            return;
        };
        let next = document.authority.position().next;
        self.outbox.after(After::Tell(id, FromRoom::Probed { probe, next }));
    }

    /// Whether the work at the front of the queue could be gone on with now.
    fn can_work(&self) -> bool {
        let Some(work) = self.queue.front() else { return false };
        let may_run = self.may_run != MayRun::Nothing && !self.is_full();
        self.is_free_for(work) && (!work.needs_document() || may_run)
    }

    /// Whether it could but for how much is on its way to the disk.
    fn is_free_for(&self, work: &Work) -> bool {
        let is_waiting = self.fetch.is_some() || self.broadcast.is_some();
        if is_waiting || matches!(self.state, State::Opening) {
            return false;
        }
        // Those who leave wait for no room on the disk: only for what is run, which has its time,
        // and of which they may be the client, and for what is told.
        if !work.needs_document() {
            return true;
        }
        // The document may still be what it was.
        if self.outbox.is_planting() {
            return false;
        }
        // An append that fails takes along all who wait behind it, but no destruction: whoever
        // asked for that would be told that the document is still there.
        if matches!(work, Work::Ask(_, Ask::Destroy)) && !self.outbox.is_empty() {
            return false;
        }
        // What the store still has in hand could be read before it is durable.
        let is_closed = matches!(self.state, State::Closed);
        let is_drained = self.outbox.is_drained() && !self.has_to_tell();
        is_drained || !is_closed
    }

    /// Whether so much is not durable yet that nothing more is run before some of it is.
    fn is_full(&self) -> bool {
        self.outbox.held() >= self.pages_in_flight_max
    }

    /// Works off the queue until it is empty, waits for the store, or has cost enough.
    fn work(&mut self, budget: &mut Budget) {
        while !budget.is_spent() && self.can_work() {
            let Some(mut work) = self.queue.pop_front() else { break };
            if matches!(self.state, State::Closed) && work.needs_document() {
                self.queue.push_front(work);
                self.state = State::Opening;
                let document = self.document.clone();
                self.effects.push(RoomEffect::Store(StoreRequest::Open { document }));
                break;
            }
            if let Some(time) = &self.time {
                if self.faults_count == 0 { time.begin() } else { time.go_on() }
            }
            if let Err(halt) = self.run(&mut work, budget) {
                self.on_halt(work, halt);
            } else {
                self.run_ended();
            }
            budget.spend_steps(WORK_STEPS);
        }
    }

    fn run(&mut self, work: &mut Work, budget: &mut Budget) -> Result<(), Halt> {
        match work {
            Work::Open(channel_id, open) => {
                budget.spend_bytes(open.doctype.size() as u64);
                self.open(*channel_id, open)
            }
            Work::Frames { channel_id, first, frames, speaker, .. } if speaker.may < May::Send => {
                self.forbidden_frames(*channel_id, *first, frames)
            }
            Work::Frames { channel_id, life, first, frames, speaker } => {
                self.frames(*channel_id, *life, speaker, (first, frames), budget)
            }
            Work::Seed { channel_id, position, db_pages, pages, last } => {
                budget.spend_pages(pages.len() as u64);
                self.seed(*channel_id, *position, *db_pages, pages, *last)
            }
            Work::Probe(channel_id, probe) => {
                self.probe(*channel_id, *probe);
                Ok(())
            }
            Work::Close(channel_id) => {
                self.vacate(*channel_id);
                Ok(())
            }
            Work::Refuse(channel_id, refusal) => {
                self.send_away(*channel_id, refusal.clone());
                Ok(())
            }
            Work::HandlesNoMore(channel_id) => self.handles_no_more(*channel_id, budget),
            Work::Silent(conn, since_ms) => {
                self.silent_leave(*conn, *since_ms);
                Ok(())
            }
            Work::Left(conn) => {
                self.offers.retain(|(waiting, _)| waiting.conn != *conn);
                for channel_id in self.channels_of(*conn) {
                    self.vacate(channel_id);
                }
                Ok(())
            }
            Work::Ask(request, ask) => self.answer(*request, ask, budget),
            Work::Handling { channel_id, tag, word, speaker } => {
                budget.spend_bytes(word.size() as u64);
                self.handling(*channel_id, *tag, word, speaker, budget)
            }
            Work::Change(change) => match &self.state {
                // It was of the document before.
                State::Closed | State::Opening | State::Absent => Ok(()),
                State::Open(_) => self.carry_out_change(change, budget),
            },
            Work::Look => self.look(),
        }
    }

    fn on_halt(&mut self, work: Work, halt: Halt) {
        let needed = match halt {
            Halt::Pause => return self.queue.push_front(work),
            Halt::Fault(pgid) => pgid,
            Halt::Refuse(refusal) => {
                self.refuse(&work, refusal);
                return self.run_ended();
            }
            Halt::Failed(Failure::CutOff) => return self.on_cut_off(work),
            Halt::Failed(failure) => {
                return self.give_up(work, &format!("SQLite failed: {failure}"));
            }
        };
        reached(Probe::RoomFaulted);
        let (document, view) = self.read_by(&work).expect("BUG: a fault without a document");
        let mut asked = view.to_fetch(needed, self.faults_count);
        if !asked.contains(&needed) {
            asked.insert(0, needed);
            asked.sort_unstable();
        }
        self.faults_count += 1;
        self.time.iter().for_each(|time| time.stop());
        // What was appended must be there before it is read.
        self.commit();
        let request = self.next_request();
        self.fetch = Some(Fetch { request, work, document, pages: Vec::new(), needed, asked });
        self.ask_for_pages();
    }

    /// A run took longer than it may for now.
    fn on_cut_off(&mut self, work: Work) {
        self.time.iter().for_each(|time| time.stop());
        self.queue.push_front(work);
        self.may_run = MayRun::Nothing;
    }

    /// Which document of the store this work reads, and by which view.
    fn read_by(&self, work: &Work) -> Option<(DocumentKey, &View)> {
        if let Some(candidate) = self.candidate_of(work) {
            return Some((self.staging_key(), candidate.document.authority.view()));
        }
        match &self.state {
            State::Open(document) => Some((self.document.clone(), document.authority.view())),
            _ => None,
        }
    }

    fn ask_for_pages(&mut self) {
        let Some(Fetch { request, document, asked, .. }) = &self.fetch else { return };
        self.effects.push(RoomEffect::Store(StoreRequest::Read {
            request: *request,
            urgency: Urgency::User,
            document: document.clone(),
            pgids: asked.clone(),
        }));
    }

    fn give_up(&mut self, work: Work, reason: &str) {
        self.queue.push_front(work);
        let lost = self.outbox.forget_draft();
        self.poison(reason, lost);
    }

    /// A run is over: nothing that it read is pinned any longer.
    fn run_ended(&mut self) {
        self.faults_count = 0;
        self.fetched_pages = 0;
        self.runs_ended += 1;
        self.time.iter().for_each(|time| time.begin());
        if let State::Open(document) = &self.state {
            document.authority.view().evict();
        }
        if self.outbox.is_full(self.settings.limits.mutation_pages_max) {
            self.commit();
        }
    }

    fn refuse(&mut self, work: &Work, refusal: Refusal) {
        match work {
            Work::Change(_) => return self.end_handling(&refusal),
            Work::Look => return self.look_in_vain(),
            Work::Ask(request, _) => {
                let reason = "the store is damaged, and something of this document is lost";
                let answer = Answer::Failed { reason: reason.to_owned() };
                return self.outbox.after(After::Answer(*request, answer));
            }
            _ => {}
        }
        let (Work::Open(channel_id, _)
        | Work::Frames { channel_id, .. }
        | Work::Seed { channel_id, .. }
        | Work::Handling { channel_id, .. }
        | Work::HandlesNoMore(channel_id)) = work
        else {
            unreachable!("BUG: nobody to refuse")
        };
        let channel_id = *channel_id;
        let is_new = matches!(work, Work::Open(..));
        if !is_new && !self.channels.contains_key(&channel_id) {
            // It was refused while its frames waited for pages.
            return;
        }
        self.vacate(channel_id);
        // What it is told from may not be durable yet.
        let refused = FromRoom::Refused(brief(refusal));
        self.outbox.after(After::TellChannel(channel_id, refused));
    }

    /// Whoever is on that channel has said what it may not say. One who was sent away already may
    /// still have had more of it on the way.
    fn send_away(&mut self, channel_id: ChannelId, refusal: Refusal) {
        let waits = self.offers.iter().any(|(waiting, _)| *waiting == channel_id);
        if !waits && !self.channels.contains_key(&channel_id) {
            return;
        }
        self.vacate(channel_id);
        let refused = FromRoom::Refused(brief(refusal));
        self.outbox.after(After::TellChannel(channel_id, refused));
    }

    /// Hands the current append to the store.
    fn commit(&mut self) {
        if let State::Open(document) = &mut self.state {
            let has_other_lives = document.record.lives != *document.authority.lives();
            let has_other_tasks = document.due.is_none() && document.record.due.is_some();
            if has_other_lives || has_other_tasks {
                // Who wrote what is in it goes with it, and that it may have other tasks.
                document.record.lives = document.authority.lives().clone();
                document.record.due = document.record.due.take().filter(|_| !has_other_tasks);
                self.outbox.record(document.record.encode());
            }
        }
        if let Some(request) = self.outbox.commit() {
            self.effects.push(RoomEffect::Store(request));
        }
    }

    /// Does what waited for the store, or has nothing to wait for.
    fn tell_what_is_durable(&mut self, budget: &mut Budget) {
        while !budget.is_spent() && self.tell_next(budget) {
            budget.spend_steps(1);
        }
    }

    /// The same whatever it costs.
    fn tell_all_that_is_durable(&mut self) {
        let all = BudgetLimits { pages: u64::MAX, steps: u64::MAX, bytes: u64::MAX };
        while self.tell_next(&mut Budget::new(all)) {}
    }

    /// Whether something may be told now.
    fn has_to_tell(&self) -> bool {
        self.broadcast.is_some() || !self.now_durable.is_empty() || self.outbox.has_ready()
    }

    /// Does the next of it, a broadcast as far as the budget goes; false if there is nothing.
    fn tell_next(&mut self, budget: &mut Budget) -> bool {
        if let Some(broadcast) = self.broadcast.take() {
            self.broadcast(broadcast, budget);
        } else if let Some(id) = self.now_durable.pop_first() {
            budget.spend_pages(self.send_chunk(id) as u64);
        } else if let Some(after) = self.outbox.next_ready() {
            self.carry_out(after);
        } else {
            return false;
        }
        true
    }

    fn carry_out(&mut self, after: After) {
        match after {
            After::Tell(subscriber, message) => self.tell(subscriber, message),
            After::TellChannel(channel_id, message) => {
                self.effects.push(channel_id.say(message));
            }
            After::Answer(request, answer) => {
                if answer == Answer::Destroyed {
                    self.tell_none_is_due();
                }
                self.effects.push(RoomEffect::Answer { request, answer });
            }
            After::Follow { subscriber, from, opened } => {
                self.begin_following(subscriber, from, opened);
            }
            After::Entries(leaving) => {
                if self.is_durable_at(leaving.position()) {
                    self.broadcast = Some(Broadcast::new(leaving));
                }
            }
            After::Recorded(_) => {}
        }
    }

    /// The document is durable up to there; false if it is another one by now.
    fn is_durable_at(&mut self, position: Position) -> bool {
        let State::Open(document) = &mut self.state else { return false };
        let is_same = document.authority.position().journal == position.journal;
        if is_same {
            document.durable = position;
        }
        is_same
    }

    fn tell(&mut self, id: SubscriberId, message: FromRoom) {
        if let Some(subscriber) = self.subscribers.get(&id) {
            self.effects.push(subscriber.channel_id.say(message));
        }
    }

    fn subscriber_at(&self, channel_id: ChannelId) -> Option<SubscriberId> {
        self.channels.get(&channel_id).copied()
    }

    fn channels_of(&self, conn: ConnId) -> Vec<ChannelId> {
        let first = ChannelId { conn, channel: Channel(0) };
        let own = self.channels.range(first..).take_while(|(id, _)| id.conn == conn);
        own.map(|(id, _)| *id).collect()
    }

    /// Whoever is on that channel, or waits there, is there no longer.
    fn vacate(&mut self, channel_id: ChannelId) {
        self.presence.leave(channel_id);
        self.unseat(channel_id);
    }

    /// The same, but that its client is present until somebody else takes its place.
    fn unseat(&mut self, channel_id: ChannelId) {
        self.offers.retain(|(waiting, _)| *waiting != channel_id);
        let Some(id) = self.channels.remove(&channel_id) else { return };
        self.stop_catching_up(id);
        self.handlers_leave(id);
        let Some(gone) = self.subscribers.remove(&id) else { return };
        self.has_abandoned |= gone.seed.is_some_and(|seed| seed.is_staged());
        if let State::Open(document) = &mut self.state {
            // Another one of the same timeline reads it again.
            document.timelines.remove(&gone.timeline);
        }
        if self.seeding == Some(id) {
            self.end_seeding();
        }
    }

    /// Sends everybody away; gives where they were.
    fn vacate_all(&mut self) -> Vec<ChannelId> {
        let channel_ids: Vec<ChannelId> = self.channels.keys().copied().collect();
        channel_ids.iter().for_each(|channel_id| self.vacate(*channel_id));
        channel_ids
    }

    fn next_request(&mut self) -> RequestId {
        self.requests_ever += 1;
        RequestId(self.requests_ever)
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
            " | subscribers {} queued {} appends {}",
            self.subscribers.len(),
            self.queue.len() + usize::from(self.fetch.is_some()),
            self.outbox.in_flight_count()
        )
    }
}
