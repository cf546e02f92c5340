//! What owns one room: brings it what happens, and carries out what it wants done.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidelog_pages::{StoreReply, StoreRequest};
use tidelog_room::{
    Answer, Ask, ConnId, FailedMigration, MayRun, Outlets, Room, RoomEffect, RoomInput,
    RoomSettings, ThreadClock,
};
use tidelog_sync::{FromRoom, FromServer, Refusal};
use tidelog_types::DocumentKey;
use tidelog_types::limits::{
    PRESENCE_KEPT_SIZE_MAX, ROOM_LARGE_MESSAGES_SIZE_MAX, ROOM_SMALL_WAITING_SIZE_MAX,
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, warn};

use super::Rooms;
use super::mail::{MessagePermit, RoomMail, WeakRoomSender};
use super::pace::{Pace, STEP_TAKES, is_slow_step};
use super::turn::{RunTurn, SlowTurn, Turn, WriteTurn};
use super::unconfirmed::Unconfirmed;
use super::waiting::Waiting;
use crate::access;
use crate::connection::{Connection, Ending};
use crate::counters::{add, move_to};
use crate::cpu_time::CpuTime;
use crate::large_messages::{LOOKS_EVERY, Space};
use crate::store::StoreOwner;

/// After which time a room in which nobody is gives its memory back: a minute after a crowd has
/// left, the server has what it had before.
const EMPTY_ROOM_STAYS: Duration = Duration::from_secs(30);
/// The same of a room that knows nothing: whoever asks for names that there are not has no more
/// rooms for that.
const VAIN_ROOM_STAYS: Duration = Duration::from_millis(100);
/// After which time a room in which nothing happens gives back what it keeps for the next message.
const QUIET_ROOM_RESTS: Duration = Duration::from_millis(500);
/// How often a room looks whether too much is kept of documents that are handed over to all rooms.
const SEED_LOOKS_EVERY: Duration = Duration::from_secs(1);
/// What its steps take together before it gives its thread back: what the next one needs is still
/// in the processor's cache, and would not be behind the steps of a thousand other rooms.
const TURN_TAKES: Duration = Duration::from_millis(1);
/// What its steps take together before what they have decided goes to the disk, though more is at
/// hand: many go to the disk, and out, together, and the first waits for no more of the room's own
/// work than that. The turns of other rooms come in between.
const GATHERING_TAKES: Duration = Duration::from_millis(5);
/// How often it looks at the clock while somebody handles commands, which can be set meanwhile.
const HANDLING_LOOKS_EVERY: Duration = Duration::from_secs(10);

/// The connections of those who are in a room.
struct Ways {
    document: DocumentKey,
    room: WeakRoomSender,
    connections: Mutex<BTreeMap<ConnId, Connection>>,
}

impl Ways {
    fn to(&self, conn: ConnId) -> Option<Connection> {
        self.connections().get(&conn).cloned()
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<ConnId, Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outlets for Ways {
    fn reserve(&self, conn: ConnId, size: usize) -> bool {
        self.to(conn).is_some_and(|to| to.reserve(size, &self.document, &self.room))
    }

    fn release(&self, conn: ConnId, size: usize) {
        if let Some(to) = self.to(conn) {
            to.release(size);
        }
    }

    fn is_idle(&self, conn: ConnId) -> bool {
        self.to(conn).is_some_and(|to| to.is_idle())
    }
}

/// A message that its room works on.
struct WorkedOn {
    speaker: Connection,
    /// Whether the room was told that they have gone.
    has_left: bool,
    permit: MessagePermit,
}

pub(super) struct RoomTask {
    room: Room,
    document: DocumentKey,
    rooms: Arc<Rooms>,
    owner: StoreOwner,
    ways: Arc<Ways>,
    inbox: mpsc::UnboundedReceiver<RoomMail>,
    /// What clients said while the room worked on something else.
    waiting: Waiting,
    /// The message that the room works on.
    worked_on: Option<WorkedOn>,
    /// What it has not acknowledged yet.
    unconfirmed: Unconfirmed,
    /// Those of whom the room may not have worked off yet that they left.
    left: Vec<ConnId>,
    answers: BTreeMap<u64, oneshot::Sender<Answer>>,
    asked: u64,
    /// Whether nothing has happened since it gave back what it can.
    is_resting: bool,
    /// Since when.
    quiet_since: Instant,
    /// Whether it ended since nobody needed it.
    is_retired: bool,
    /// Whether anybody came who may come again, and not only whoever asks all documents something.
    is_visited: bool,
    /// Where the room's clock begins.
    began: Instant,
    /// What it has a part in of what all rooms keep.
    kept_size: u64,
    /// And of what all rooms keep of documents that are handed over.
    seed_size: u64,
    /// And of those who are present in all rooms.
    presence_size: u64,
    /// And of what all rooms have on its way to the disk.
    in_flight_size: u64,
    /// When those that wait here were last looked through.
    swept_at: Option<Instant>,
    run_turn: RunTurn,
    /// Whether it begins a run only in that turn, having given it up.
    begins_anew: bool,
    write_turn: WriteTurn,
    slow_turn: SlowTurn,
    /// Whether it took long when it last ran something.
    is_slow: bool,
    /// What of its tasks was last not written, and why.
    untaken: String,
    /// What its steps have taken since it last gave its thread back.
    worked: Duration,
    /// What they have taken since it began to gather what goes to the disk together.
    gathering: Duration,
    clock: Arc<dyn ThreadClock>,
}

impl RoomTask {
    /// What owns the room of `document`, to which this is the way, with both its ends.
    pub(super) fn new(
        rooms: &Arc<Rooms>,
        document: &DocumentKey,
        way: WeakRoomSender,
        inbox: mpsc::UnboundedReceiver<RoomMail>,
    ) -> Self {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).expect("the system gives random bytes");
        let is_damaged = rooms.store.damage().is_some();
        let settings = RoomSettings { is_damaged, ..rooms.settings.clone() };
        let (document, connections) = (document.clone(), Mutex::default());
        let ways = Arc::new(Ways { document: document.clone(), room: way, connections });
        let outlets = Arc::clone(&ways) as Arc<dyn Outlets>;
        Self {
            room: Room::new(document.clone(), settings, seed, outlets)
                .with_caution(Arc::clone(&rooms.caution))
                .with_clock(Arc::new(CpuTime)),
            document,
            rooms: Arc::clone(rooms),
            owner: rooms.store.owner(),
            ways,
            inbox,
            waiting: Waiting::default(),
            worked_on: None,
            unconfirmed: Unconfirmed::default(),
            left: Vec::new(),
            answers: BTreeMap::new(),
            asked: 0,
            is_resting: true,
            quiet_since: Instant::now(),
            is_retired: false,
            is_visited: false,
            began: Instant::now(),
            kept_size: 0,
            seed_size: 0,
            presence_size: 0,
            in_flight_size: 0,
            swept_at: None,
            run_turn: Turn::NotNeeded,
            begins_anew: false,
            write_turn: Turn::NotNeeded,
            slow_turn: Turn::NotNeeded,
            is_slow: false,
            untaken: String::new(),
            worked: Duration::ZERO,
            gathering: Duration::ZERO,
            clock: Arc::new(CpuTime),
        }
    }

    pub(super) async fn run(&mut self) {
        add(&self.rooms.counters.rooms, 1);
        debug!(document = %self.document, "room opened");
        while let Some(input) = self.next_input().await {
            // Who is present needs none of what is kept for the next message.
            if !matches!(input, RoomInput::Presence { .. } | RoomInput::PresenceDue { .. }) {
                self.is_resting = false;
                self.quiet_since = Instant::now();
            }
            self.limit_in_flight();
            self.step(input);
            self.keep_in_flight();
            if self.in_flight_size == 0 && self.write_turn.is_taken() {
                self.write_turn = Turn::NotNeeded;
            }
            if self.keep() > self.kept_size_max() {
                self.room.rest_deeply();
                self.keep();
            }
            let before = self.seed_size;
            let seeds_size_max = self.rooms.settings.limits.seeds_kept_size_max;
            if self.keep_seed() > seeds_size_max && self.seed_size > before {
                self.step(RoomInput::SeedUnkept);
                self.keep_seed();
            }
            if self.has_had_its_turn() {
                self.worked = Duration::ZERO;
                // Other rooms have their turns.
                yield_now().await;
            }
        }
        debug!(document = %self.document, "room closed");
    }

    /// `None` once nobody needs the room any more.
    async fn next_input(&mut self) -> Option<RoomInput> {
        loop {
            // Also where the store answers each time before the room could go on.
            if let Some(input) = self.let_go() {
                return Some(input);
            }
            if self.room.takes_messages()
                && let Some(mail) = self.waiting.pop()
            {
                let wanted = Some(mail).filter(|mail| !mail.is_for_nobody());
                match wanted.and_then(RoomMail::if_it_may) {
                    None => continue,
                    Some(mail) => return Some(self.input(mail)),
                }
            }
            // Whoever waits for its turn to run has no other turn before.
            let is_next = self.may_begin();
            let is_held_up = is_next && self.room.is_held_up();
            if is_held_up && matches!(self.write_turn, Turn::NotNeeded) {
                self.write_turn = self.turn(|pace| &pace.write_turns, &self.rooms.write_turns, ());
            }
            let is_held_back = is_next && self.room.is_held_back();
            if is_held_back && matches!(self.slow_turn, Turn::NotNeeded) {
                self.slow_turn = self.turn(|pace| &pace.slow_turns, &self.rooms.slow_turns, ());
            }
            let is_at_rest = self.room.is_at_rest();
            let is_vain = self.room.knows_nothing() || !self.is_visited;
            let stays = if is_vain { VAIN_ROOM_STAYS } else { EMPTY_ROOM_STAYS };
            let has_to_look = self.space().is_some() || !self.waiting.is_empty();
            let overdue_at_ms = self.seed_overdue_at_ms();
            let overdue_at = self.began + Duration::from_millis(overdue_at_ms.unwrap_or(0));
            let present_at_ms = self.room.presence_due_at_ms();
            let present_at = self.began + Duration::from_millis(present_at_ms.unwrap_or(0));
            let looks_at_ms = self.room.looks_at_ms();
            let handling_at_ms =
                self.room.handling_due_at_ms().into_iter().chain(looks_at_ms).min();
            let handling_in = handling_at_ms.map_or(0, |at| at.saturating_sub(access::now_ms()));
            // A clock can be set while it waits.
            let handling_in = Duration::from_millis(handling_in).min(HANDLING_LOOKS_EVERY);
            let look_at = overdue_at.min(Instant::now() + SEED_LOOKS_EVERY);
            tokio::select! {
                biased;
                Some(reply) = self.owner.replies.recv() => return Some(RoomInput::Store(*reply)),
                mail = self.inbox.recv() => match mail? {
                    RoomMail::Writable { conn } => return Some(RoomInput::Writable { conn }),
                    mail @ RoomMail::Presence { .. } => return Some(self.input(mail)),
                    mail => self.keep_waiting(mail),
                },
                read = self.run_turn.comes() => match read {
                    Some(read) => self.owner.ask(read),
                    None => return Some(RoomInput::GoOn),
                },
                () = self.write_turn.comes() => return Some(RoomInput::GoOn),
                () = self.slow_turn.comes() => return Some(RoomInput::GoOn),
                () = std::future::ready(()), if self.room.wants_step() => {
                    return Some(RoomInput::GoOn);
                }
                () = sleep_until(look_at), if overdue_at_ms.is_some() => {
                    let now_ms = self.now_ms();
                    if self.seed_overdue_at_ms().is_some_and(|at_ms| at_ms <= now_ms) {
                        return Some(RoomInput::SeedOverdue { now_ms });
                    }
                }
                // However long what it works on waits.
                () = tokio::time::sleep(LOOKS_EVERY), if has_to_look => {}
                () = sleep_until(present_at), if present_at_ms.is_some() => {
                    return Some(RoomInput::PresenceDue { now_ms: self.now_ms() });
                }
                () = tokio::time::sleep(handling_in), if handling_at_ms.is_some() => {
                    if handling_at_ms.is_some_and(|at| at <= access::now_ms()) {
                        return Some(RoomInput::GoOn);
                    }
                }
                () = sleep_until(self.quiet_since + QUIET_ROOM_RESTS), if !self.is_resting => {
                    self.is_resting = true;
                    // Where there is room for them, the pages stay.
                    match self.keep() > self.kept_size_max() / 2 {
                        true => self.room.rest_deeply(),
                        false => self.room.rest(),
                    }
                    self.keep();
                }
                () = tokio::time::sleep(stays), if is_at_rest => {
                    if self.rooms.retire(&self.document, &self.inbox) {
                        self.is_retired = true;
                        return None;
                    }
                }
            }
        }
    }

    /// Where others want the space of what waits, or of what the room works on: lets go of what
    /// those who have gone left behind, and of those whose message has held it for too long. What
    /// those had left whose tokens have ended is let go anyway.
    fn let_go(&mut self) -> Option<RoomInput> {
        self.waiting.let_go();
        self.sweep();
        let WorkedOn { speaker, has_left, permit } = self.worked_on.as_mut()?;
        if permit.space.as_ref().is_some_and(Space::is_overdue) {
            speaker.let_go();
        }
        let is_wanted = permit.space.as_ref().is_some_and(Space::is_wanted);
        let is_over = speaker.has_no_token() || (is_wanted && speaker.has_ended());
        if *has_left || !is_over {
            return None;
        }
        *has_left = true;
        Some(RoomInput::Left { conn: speaker.id() })
    }

    /// Where too much waits, forgets now and then what those who have gone left behind.
    fn sweep(&mut self) {
        let is_too_much = self.waiting.small_size() > ROOM_SMALL_WAITING_SIZE_MAX
            || self.rooms.counters.has_too_much_waiting();
        let is_soon = || self.swept_at.is_some_and(|at| at.elapsed() < LOOKS_EVERY);
        // What is still unread may belong to what would go, all of which goes or nothing.
        if !is_too_much || !self.inbox.is_empty() || is_soon() {
            return;
        }
        self.swept_at = Some(Instant::now());
        self.waiting.sweep(|conn| self.ways.to(conn).is_some());
    }

    /// Keeps what the room does not get to yet. Whoever says more than there is room for comes back
    /// later.
    fn keep_waiting(&mut self, mail: RoomMail) {
        if let RoomMail::Message { connection, .. } = &mail
            && let Some(space) = mail.space()
            && self.large_size() + space.size() > ROOM_LARGE_MESSAGES_SIZE_MAX
        {
            return connection.let_go();
        }
        self.waiting.push(mail);
    }

    /// Bytes of large messages that wait, or that the room works on.
    fn large_size(&self) -> usize {
        self.waiting.large_size() + self.space().map_or(0, Space::size)
    }

    /// What the message holds that the room works on, if it is a large one.
    fn space(&self) -> Option<&Space> {
        self.worked_on.as_ref()?.permit.space.as_ref()
    }

    /// Where more than half is kept of what may be, the room is pressed.
    fn seed_overdue_at_ms(&mut self) -> Option<u64> {
        let kept_size = self.rooms.counters.seeds_kept_size.load(Ordering::Relaxed);
        let size_max = self.rooms.settings.limits.seeds_kept_size_max;
        self.room.press_seed(kept_size > size_max / 2);
        self.room.seed_overdue_at_ms(self.now_ms())
    }

    /// Asks for a turn of which there are so many for all rooms, and one for those of a client:
    /// one that holds others up waits for none of its client's.
    fn turn<T: Send + 'static>(
        &self,
        own: fn(&Pace) -> &Arc<Semaphore>,
        all: &Arc<Semaphore>,
        what: T,
    ) -> Turn<T> {
        let worked_on = self.worked_on.as_ref().filter(|_| !self.holds_others_up());
        let speaker = worked_on.map(|it| own(it.speaker.pace()));
        Turn::awaited(speaker.into_iter().chain([all]), what)
    }

    /// Whether what its run reads next waits until no other one that has read much is amid.
    fn needs_turn(&mut self) -> bool {
        let is_too_much = self.keep() > self.kept_size_max();
        let turnless_size_max = self.rooms.settings.limits.turnless_run_size_max;
        let is_large = self.room.run_size() as u64 > turnless_size_max;
        is_too_much && is_large && !self.holds_others_up()
    }

    /// Whether its run, which has read something and is to read more, begins anew in its turn: what
    /// runs keep that are too small to wait for turns adds up too.
    fn has_to_begin_anew(&mut self) -> bool {
        let is_far_too_much = self.keep() > 2 * self.kept_size_max();
        let has_read = self.room.run_size() > 0;
        is_far_too_much && has_read && !self.holds_others_up()
    }

    /// Whether it has one of the few turns that others wait for: it waits for none of theirs.
    fn holds_others_up(&self) -> bool {
        self.run_turn.is_taken() || self.write_turn.is_taken()
    }

    /// Where all rooms have too much on its way to the disk, it has one entry each time that it is
    /// its turn.
    fn limit_in_flight(&mut self) {
        let limits = &self.rooms.settings.limits;
        let (all_max, own_max) = (limits.rooms_in_flight_size_max, limits.room_pages_in_flight_max);
        let has_nothing = self.in_flight_size == 0;
        let pages_max = if self.keep_in_flight() <= all_max {
            self.write_turn = Turn::NotNeeded;
            own_max
        } else {
            usize::from(self.write_turn.is_taken() && has_nothing)
        };
        self.room.limit_in_flight(pages_max);
    }

    fn kept_size_max(&self) -> u64 {
        self.rooms.settings.limits.rooms_kept_size_max
    }

    /// Counts what the room keeps now. Gives what all rooms do.
    fn keep(&mut self) -> u64 {
        let now = self.room.kept_size() as u64;
        move_to(&self.rooms.counters.rooms_kept_size, &mut self.kept_size, now)
    }

    /// The same of what is on its way to the disk.
    fn keep_in_flight(&mut self) -> u64 {
        let now = self.room.in_flight_size() as u64;
        move_to(&self.rooms.counters.rooms_in_flight_size, &mut self.in_flight_size, now)
    }

    /// The same of a document that is handed over.
    fn keep_seed(&mut self) -> u64 {
        let now = self.room.seed_size() as u64;
        move_to(&self.rooms.counters.seeds_kept_size, &mut self.seed_size, now)
    }

    /// On its own clock.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn input(&mut self, mail: RoomMail) -> RoomInput {
        self.is_visited |= !matches!(mail, RoomMail::Ask { ask: Ask::Try { .. } | Ask::Look, .. });
        match mail {
            RoomMail::Message { connection, channel, message, speaker, permit } => {
                let conn = connection.id();
                self.unconfirmed.heard((conn, channel), &message, permit.came_at);
                let of = connection.clone();
                self.worked_on = Some(WorkedOn { speaker: of, has_left: false, permit });
                self.ways.connections().insert(conn, connection);
                RoomInput::Message { conn, channel, message: *message, speaker }
            }
            RoomMail::Presence { conn, channel, identity, word, permit } => {
                drop(permit);
                let kept_size = self.rooms.counters.presence_size.load(Ordering::Relaxed);
                let (has_room, now_ms) = (kept_size < PRESENCE_KEPT_SIZE_MAX, self.now_ms());
                RoomInput::Presence { conn, channel, identity, word, has_room, now_ms }
            }
            RoomMail::Refuse { conn, channel, refusal } => {
                RoomInput::Refuse { conn, channel, refusal }
            }
            RoomMail::HandlesNoMore { conn, channel } => RoomInput::HandlesNoMore { conn, channel },
            RoomMail::Silent { conn, lasted } => {
                let for_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
                RoomInput::Silent { conn, for_ms }
            }
            RoomMail::Left { conn } => RoomInput::Left { conn },
            RoomMail::Writable { conn } => RoomInput::Writable { conn },
            RoomMail::Ask { ask, answer, .. } => {
                self.asked += 1;
                self.answers.insert(self.asked, answer);
                RoomInput::Ask { request: self.asked, ask }
            }
            RoomMail::Export { connection, answer, .. } => {
                self.asked += 1;
                self.answers.insert(self.asked, answer);
                let conn = connection.id();
                self.ways.connections().insert(conn, connection);
                RoomInput::Ask { request: self.asked, ask: Ask::Export { conn } }
            }
        }
    }

    /// Takes a step, in which nothing is run for long where it is not its turn.
    fn step(&mut self, input: RoomInput) {
        let speaker = self.worked_on.as_ref().map(|it| it.speaker.clone());
        let may_run = self.may_run();
        self.room.let_run(may_run);
        self.room.set_time(access::now_ms());
        let is_more_at_hand = !self.inbox.is_empty() || !self.waiting.is_empty();
        self.room.expect_more(self.gathering < GATHERING_TAKES && is_more_at_hand);
        let before_ns = self.clock.worked_ns();
        let began = std::time::Instant::now();
        self.take_step(input);
        let took = began.elapsed();
        self.worked += took;
        self.gathering += took;
        if !self.room.has_gathered() {
            self.gathering = Duration::ZERO;
        }
        self.rooms.counters.step.note(took);
        let may_run = may_run != MayRun::Nothing;
        if may_run {
            self.is_slow = is_slow_step(self.clock.worked_ns().saturating_sub(before_ns));
            if let Some(speaker) = speaker.filter(|_| self.is_slow) {
                speaker.pace().note_slow_step();
            }
        }
        if self.slow_turn.is_taken() && (may_run || !self.may_begin()) {
            self.slow_turn = Turn::NotNeeded;
        }
        self.room.let_run(self.may_run());
    }

    fn may_run(&self) -> MayRun {
        let is_of_slow = |it: &WorkedOn| it.speaker.pace().is_slow();
        let is_slow = self.is_slow || self.worked_on.as_ref().is_some_and(is_of_slow);
        let has_turn = self.slow_turn.is_taken() || self.holds_others_up();
        match self.may_begin() {
            true if has_turn => MayRun::Everything,
            true if !is_slow => MayRun::Briefly(STEP_TAKES),
            _ => MayRun::Nothing,
        }
    }

    fn has_had_its_turn(&self) -> bool {
        self.worked > TURN_TAKES
    }

    fn may_begin(&self) -> bool {
        !self.begins_anew || self.run_turn.is_taken()
    }

    fn take_step(&mut self, input: RoomInput) {
        let counters = Arc::clone(&self.rooms.counters);
        if let RoomInput::Store(
            StoreReply::AppendFailed { error, .. } | StoreReply::Broken { error },
        ) = &input
        {
            error!(document = %self.document, %error, "the store failed");
            add(&counters.store_failures, 1);
        }
        if matches!(input, RoomInput::Store(StoreReply::Broken { .. })) {
            // It answers this owner no more.
            self.owner = self.rooms.store.owner();
        }
        let is_opened = matches!(input, RoomInput::Store(StoreReply::Opened { .. }));
        if is_opened && self.rooms.store.damage().is_some() {
            self.room.note_damage();
        }
        if let RoomInput::Left { conn } = input {
            self.unconfirmed.left(conn);
            self.left.push(conn);
        }
        let writable = match input {
            RoomInput::Writable { conn } => self.ways.to(conn),
            _ => None,
        };
        let (before, runs_ended) = (self.room.counts(), self.room.runs_ended());
        let effects = self.room.step(input);
        let presence_size = self.room.presence_size() as u64;
        move_to(&counters.presence_size, &mut self.presence_size, presence_size);
        if let Some(connection) = writable {
            connection.heard(&self.document);
        }
        let after = self.room.counts();
        add(&counters.applied, after.applied - before.applied);
        add(&counters.rejected, after.rejected - before.rejected);
        for failed in self.room.take_failed_migrations() {
            add(&counters.migrations_failed, 1);
            self.log(&failed);
        }
        for why in self.room.take_untaken() {
            add(&counters.task_failures, 1);
            self.log_untaken(why);
        }
        self.begins_anew &= !self.room.is_amid_run() && !self.room.takes_messages();
        if self.room.runs_ended() > runs_ended {
            // The next run may have begun, and faulted: it waits behind those of others.
            self.run_turn = Turn::NotNeeded;
            self.begins_anew = false;
        }
        for effect in effects {
            self.carry_out(effect);
        }
        if !self.room.is_amid_run() && !self.begins_anew {
            self.run_turn = Turn::NotNeeded;
        }
        if let Some(WorkedOn { has_left: true, permit, .. }) = &mut self.worked_on
            && let Some(space) = &mut permit.space
        {
            // Nothing but what was begun.
            space.shrink(self.room.said_size());
        }
        if self.room.takes_messages() {
            self.worked_on = None;
            // Only now: the room has given back what it had reserved there.
            for conn in self.left.drain(..) {
                let left = self.ways.connections().remove(&conn);
                left.inspect(|connection| connection.withdraw(&self.document));
            }
        }
    }

    /// Once of each document and doctype, however often clients open it.
    fn log(&self, failed: &FailedMigration) {
        let FailedMigration { name, doctype, reason } = failed;
        if self.rooms.is_first_failure(&self.document, *doctype) {
            let what = "a document was not migrated, and stays as it was";
            warn!(document = %self.document, doctype = name, hash = %doctype, reason, "{what}");
        }
    }

    /// Once for each reason, as long as that is the last one: it is tried again and again.
    fn log_untaken(&mut self, why: String) {
        if self.untaken != why {
            warn!(document = %self.document, why, "a task does not go on");
            self.untaken = why;
        }
    }

    fn end_connections(&mut self) {
        for connection in self.ways.connections().values() {
            connection.end(Ending::Quiet);
        }
        // Those whose first message is still unread are not among them.
        let unread = std::iter::from_fn(|| self.inbox.try_recv().ok());
        let waiting = std::iter::from_fn(|| self.waiting.pop());
        for mail in waiting.chain(unread) {
            if let RoomMail::Message { connection, .. } = mail {
                connection.end(Ending::Quiet);
            }
        }
    }

    /// Tells of one who was refused for want of access.
    fn audit(&self, conn: ConnId, message: &FromServer) {
        let FromServer::About { body, .. } = message else { return };
        let why = match body {
            FromRoom::Refused(Refusal::Access { reason }) => reason,
            FromRoom::Forbidden { .. } => "role",
            _ => return,
        };
        let who = self.ways.to(conn).map(|connection| connection.who()).unwrap_or_default();
        self.rooms.audit.refused(&who, Some(&self.document.document), why);
    }

    fn carry_out(&mut self, effect: RoomEffect) {
        match effect {
            RoomEffect::Send { conn, message } => {
                if let FromServer::About { body: FromRoom::Refused(refusal), .. } = &message {
                    // A client may be refused as often as it likes.
                    debug!(document = %self.document, conn = conn.0, ?refusal, "refused");
                    // Who only has to bring its doctype is not kept out.
                    let keeps_out = u64::from(*refusal != Refusal::DoctypeWanted);
                    add(&self.rooms.counters.refusals, keeps_out);
                }
                self.audit(conn, &message);
                for took in self.unconfirmed.told(conn, &message) {
                    self.rooms.counters.confirm.note(took);
                }
                if let Some(connection) = self.ways.to(conn) {
                    connection.send(message);
                }
            }
            RoomEffect::Store(StoreRequest::Read { .. }) if self.has_to_begin_anew() => {
                self.room.begin_run_anew();
                self.keep();
                self.begins_anew = true;
                self.run_turn = self.turn(|pace| &pace.run_turns, &self.rooms.run_turns, None);
            }
            RoomEffect::Store(read @ StoreRequest::Read { .. }) if self.needs_turn() => {
                self.run_turn =
                    self.turn(|pace| &pace.run_turns, &self.rooms.run_turns, Some(read));
            }
            RoomEffect::Store(request) => self.owner.ask(request),
            RoomEffect::Due(due) => self.rooms.agenda.tell(&self.document.document, due),
            RoomEffect::Answer { request, answer } => {
                if let Some(waiting) = self.answers.remove(&request) {
                    // Who asked may have gone meanwhile.
                    let _ = waiting.send(answer);
                }
            }
        }
    }
}

impl Drop for RoomTask {
    /// Also after a panic: a room that broke its promises takes nobody along, and whoever was in
    /// it comes back to a new one. Nobody was in a room that has retired: it knows connections that
    /// it refused, and hears what these had on the way.
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!(document = %self.document, "a room broke a promise: its clients come back");
            add(&self.rooms.counters.room_panics, 1);
        }
        // Before anybody is told, who then comes to another room.
        self.inbox.close();
        self.rooms.forget(&self.document);
        if !self.is_retired {
            self.end_connections();
        }
        self.rooms.counters.rooms.fetch_sub(1, Ordering::Relaxed);
        self.rooms.counters.rooms_kept_size.fetch_sub(self.kept_size, Ordering::Relaxed);
        self.rooms.counters.seeds_kept_size.fetch_sub(self.seed_size, Ordering::Relaxed);
        self.rooms.counters.presence_size.fetch_sub(self.presence_size, Ordering::Relaxed);
        self.rooms.counters.rooms_in_flight_size.fetch_sub(self.in_flight_size, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
