//! Who is present in a room: what each is told of the others, when, and how much of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidelog_room::{ConnId, Identity, RoomInput};
use tidelog_sync::{
    Attendee, FromRoom, Hears, Intent, PresenceNews, PresenceWord, Present, Roster, StateText,
    ToRoom,
};
use tidelog_testing::room::*;
use tidelog_types::ClientId;
use tidelog_types::limits::{
    Limits, PRESENCE_ATTENDEES_MAX, PRESENCE_NEWS_SIZE_MAX, PRESENCE_RATE_SIZE_MAX,
    PRESENCE_SEEN_MAX, PRESENCE_SILENT_MS, PRESENCE_STATE_SIZE_MAX, PRESENCE_TICK_MS,
    PRESENCE_UNHEARD_MAX,
};

const CEL: ConnId = ConnId(3);
const ONE: Attendee = Attendee(1);
const TWO: Attendee = Attendee(2);

/// A room, and what its clients know of who is present there.
struct Hall {
    scene: Scene,
    now_ms: u64,
    known: BTreeMap<ConnId, Known>,
    /// Whether clients say that they have heard what they were told.
    they_hear: bool,
    has_room: bool,
}

#[derive(Default)]
struct Known {
    roster: Roster,
    elsewhere_count: u32,
    unheard: u32,
    /// When it was told something, and how much.
    told: Vec<(u64, usize)>,
    states: BTreeMap<u64, String>,
}

impl Hall {
    fn new() -> Self {
        let scene = Scene::new(Limits::DEFAULT, usize::MAX);
        Self { scene, now_ms: 0, known: BTreeMap::new(), they_hear: true, has_room: true }
    }

    fn with(conns: &[ConnId]) -> Self {
        let mut hall = Self::new();
        for conn in conns {
            hall.scene.open(*conn);
        }
        hall.take_told();
        hall
    }

    fn say(&mut self, conn: ConnId, word: PresenceWord) {
        let user = Some(format!("user {}", conn.0).into());
        let client = ClientId([conn.0 as u8; 16]);
        let input = RoomInput::Presence {
            conn,
            channel: CHANNEL,
            identity: Arc::new(Identity { user, client }),
            word,
            has_room: self.has_room,
            now_ms: self.now_ms,
        };
        self.scene.settle(input);
        self.take_told();
        assert_eq!(self.scene.room.doubt(), None);
    }

    fn set(&mut self, conn: ConnId, state: &str) {
        let changes = vec![(ONE, StateText::new(state))];
        self.say(conn, PresenceWord { hears: Hears::Others, heard: 0, changes });
    }

    fn sign(&mut self, conn: ConnId) {
        let hears = Hears::Others;
        self.say(conn, PresenceWord { hears, ..PresenceWord::default() });
    }

    /// Time passes, in which the room is told what is due.
    fn pass(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        while let Some(due_ms) = self.scene.room.presence_due_at_ms() {
            if due_ms > until_ms {
                break;
            }
            self.now_ms = self.now_ms.max(due_ms);
            self.scene.settle(RoomInput::PresenceDue { now_ms: self.now_ms });
            self.take_told();
            assert_eq!(self.scene.room.doubt(), None);
        }
        self.now_ms = until_ms;
    }

    fn take_told(&mut self) {
        let conns: Vec<ConnId> = self.scene.unread.keys().copied().collect();
        for conn in conns {
            while let Some(message) = self.scene.read(conn) {
                if let FromRoom::Presence(news) = message {
                    self.know(conn, &news);
                }
            }
        }
        if self.they_hear {
            let unheard = self.known.iter_mut().map(|(conn, it)| (*conn, &mut it.unheard));
            let unheard: Vec<_> = unheard
                .map(|(conn, it)| (conn, std::mem::take(it)))
                .filter(|it| it.1 > 0)
                .collect();
            for (conn, heard) in unheard {
                self.say(conn, PresenceWord { hears: Hears::Others, heard, changes: vec![] });
            }
        }
    }

    fn know(&mut self, conn: ConnId, news: &PresenceNews) {
        let known = self.known.entry(conn).or_default();
        known.told.push((self.now_ms, news.size()));
        known.unheard += 1;
        known.elsewhere_count = news.elsewhere_count;
        known.roster.take(news.keys.as_deref(), &news.present);
        if let Some(keys) = &news.keys {
            known.states.retain(|key, _| keys.contains(key));
        }
        for it in news.present.iter() {
            known.states.insert(it.key, it.state.to_string());
        }
    }

    fn known(&self, conn: ConnId) -> &Known {
        &self.known[&conn]
    }

    fn states(&self, conn: ConnId) -> Vec<&str> {
        let known = self.known.get(&conn);
        known.into_iter().flat_map(|it| it.states.values().map(String::as_str)).collect()
    }

    fn times_told(&self, conn: ConnId) -> usize {
        self.known.get(&conn).map_or(0, |it| it.told.len())
    }
}

#[test]
fn each_is_told_of_the_others_by_the_servers_word() {
    let mut hall = Hall::with(&[ANN, BOB]);
    hall.set(ANN, "here");
    hall.set(BOB, "there");
    hall.pass(PRESENCE_TICK_MS);
    assert_eq!((hall.states(ANN), hall.states(BOB)), (vec!["there"], vec!["here"]));
    let known = hall.known(BOB);
    let who = known.roster.keys().find_map(|key| known.roster.who(key)).expect("one");
    assert_eq!((who.user.as_deref(), who.client), (Some("user 1"), ClientId([1; 16])));
    assert_eq!(known.elsewhere_count, 1);
}

#[test]
fn where_nobody_is_present_nothing_is_due_and_one_who_is_alone_is_told_nothing() {
    let mut hall = Hall::with(&[ANN, BOB]);
    assert_eq!(hall.scene.room.presence_due_at_ms(), None);
    for state in 0..9 {
        hall.set(ANN, &state.to_string());
        hall.pass(PRESENCE_TICK_MS);
    }
    assert_eq!((hall.times_told(ANN), hall.times_told(BOB)), (0, 0), "who did not ask neither");
    let changes = vec![(ONE, None)];
    hall.say(ANN, PresenceWord { hears: Hears::Nothing, heard: 0, changes });
    hall.pass(PRESENCE_TICK_MS);
    assert_eq!(hall.scene.room.presence_due_at_ms(), None);
    assert_eq!(hall.scene.room.presence_size(), 0);
}

#[test]
fn what_changes_ten_times_in_a_tick_is_told_once() {
    let mut hall = Hall::with(&[ANN, BOB]);
    hall.sign(BOB);
    for state in 0..100 {
        hall.set(ANN, &state.to_string());
        hall.pass(PRESENCE_TICK_MS / 10);
    }
    hall.pass(PRESENCE_TICK_MS);
    assert!((10..=12).contains(&hall.times_told(BOB)), "{}", hall.times_told(BOB));
    assert_eq!(hall.states(BOB), ["99"], "and the last word counts");
}

#[test]
fn who_leaves_or_is_not_present_any_more_is_gone_at_once() {
    let mut hall = Hall::with(&[ANN, BOB, CEL]);
    for (conn, state) in [(ANN, "a"), (BOB, "b"), (CEL, "c")] {
        hall.set(conn, state);
    }
    hall.pass(PRESENCE_TICK_MS);
    assert_eq!(hall.states(CEL), ["a", "b"]);
    let changes = vec![(ONE, None)];
    hall.say(ANN, PresenceWord { hears: Hears::Others, heard: 0, changes });
    hall.pass(PRESENCE_TICK_MS);
    assert_eq!(hall.states(CEL), ["b"]);
    hall.scene.settle(RoomInput::Left { conn: BOB });
    hall.pass(PRESENCE_TICK_MS);
    assert!(hall.states(CEL).is_empty());
    assert_eq!(hall.states(ANN), ["c"]);
    hall.scene.say(CEL, ToRoom::Close);
    hall.pass(PRESENCE_TICK_MS);
    assert!(hall.states(ANN).is_empty());
}

/// Goal: a network that went away leaves nobody behind, and who comes back is seen again without
/// saying how it is. Method: one gives signs, the other is silent.
#[test]
fn who_is_silent_is_not_seen_until_it_is_heard_again() {
    let mut hall = Hall::with(&[ANN, BOB]);
    hall.set(ANN, "a");
    hall.set(BOB, "b");
    hall.pass(PRESENCE_SILENT_MS - 1);
    hall.sign(ANN);
    assert_eq!(hall.states(ANN), ["b"]);
    hall.pass(1 + PRESENCE_TICK_MS);
    assert!(hall.states(ANN).is_empty(), "in 12 s");
    assert_eq!(hall.known(ANN).elsewhere_count, 0);
    hall.pass(4_000);
    hall.sign(ANN);
    hall.sign(BOB);
    hall.pass(PRESENCE_TICK_MS);
    assert_eq!((hall.states(ANN), hall.states(BOB)), (vec!["b"], vec!["a"]));
    hall.they_hear = false;
    hall.pass(2 * PRESENCE_SILENT_MS);
    assert_eq!(hall.scene.room.presence_due_at_ms(), None, "all are silent: nothing is due");
}

#[test]
fn two_of_one_client_see_each_other_and_not_themselves() {
    let mut hall = Hall::with(&[ANN]);
    let changes = vec![(ONE, StateText::new("one")), (TWO, StateText::new("two"))];
    hall.say(ANN, PresenceWord { hears: Hears::All, heard: 0, changes });
    hall.they_hear = false;
    hall.pass(PRESENCE_TICK_MS);
    let known = hall.known(ANN);
    let owns: Vec<_> =
        known.roster.keys().map(|key| known.roster.who(key).and_then(|it| it.own)).collect();
    assert_eq!(owns, [Some(ONE), Some(TWO)]);
    assert_eq!(known.elsewhere_count, 0);
}

/// Goal: more than can be seen are counted, and who is seen is whoever was there first. Method: one
/// after another comes; then of those who are seen one leaves.
#[test]
fn of_many_the_first_are_seen_and_all_are_counted() {
    let count = PRESENCE_SEEN_MAX as u64 + 20;
    let conns: Vec<ConnId> = (1..=count).map(ConnId).collect();
    let mut hall = Hall::with(&conns);
    for conn in &conns {
        hall.set(*conn, &conn.0.to_string());
    }
    hall.pass(10_000);
    let (first, last) = (conns[0], conns[conns.len() - 1]);
    assert_eq!(hall.known(first).elsewhere_count, count as u32 - 1);
    assert_eq!(hall.states(first).len(), PRESENCE_SEEN_MAX);
    let seen: Vec<u64> = hall.known(last).states.keys().copied().take(PRESENCE_SEEN_MAX).collect();
    assert_eq!(seen, (1..=PRESENCE_SEEN_MAX as u64).collect::<Vec<_>>());
    hall.scene.settle(RoomInput::Left { conn: ConnId(50) });
    hall.pass(1_000);
    let seen: Vec<u64> = hall.known(last).states.keys().copied().collect();
    assert!(!seen.contains(&50) && seen.contains(&(PRESENCE_SEEN_MAX as u64 + 2)), "{seen:?}");
}

/// Goal: while the first are silent those who came next are seen in their places, and the first
/// again once they are heard. Method: three clients with as many as one may have, and one that
/// looks.
#[test]
fn while_the_first_are_silent_the_next_are_seen_in_their_places() {
    let conns = [1, 2, 3].map(ConnId);
    let mut hall = Hall::with(&[conns[0], conns[1], conns[2], ConnId(4)]);
    let word = |changes| PresenceWord { hears: Hears::Nothing, heard: 0, changes };
    for conn in conns {
        let attendees = (0..PRESENCE_ATTENDEES_MAX as u32).map(Attendee);
        let changes = attendees.map(|it| (it, StateText::new("here"))).collect();
        hall.say(conn, word(changes));
    }
    let each = PRESENCE_ATTENDEES_MAX as u64;
    let seen_of = |hall: &Hall| {
        let keys: Vec<u64> = hall.known(ConnId(4)).roster.keys().collect();
        [1, 2, 3].map(|number| keys.iter().filter(|key| (*key - 1) / each == number - 1).count())
    };
    let pass = |hall: &mut Hall, heard: &[ConnId]| {
        for _ in 0..PRESENCE_SILENT_MS / 1_000 + 1 {
            heard.iter().for_each(|conn| hall.say(*conn, word(vec![])));
            hall.sign(ConnId(4));
            hall.pass(1_000);
        }
    };
    let others = PRESENCE_SEEN_MAX + 1 - PRESENCE_ATTENDEES_MAX;
    pass(&mut hall, &conns);
    assert_eq!(seen_of(&hall), [64, others, 0]);
    pass(&mut hall, &conns[1..]);
    assert_eq!(seen_of(&hall), [0, 64, others]);
    // Of those who are silent one goes, of those who are seen another.
    hall.say(conns[1], word(vec![(Attendee(0), None)]));
    hall.scene.settle(RoomInput::Left { conn: conns[0] });
    pass(&mut hall, &conns[1..]);
    assert_eq!(seen_of(&hall), [0, 63, others + 1]);
    pass(&mut hall, &conns[2..]);
    assert_eq!(seen_of(&hall), [0, 0, 64]);
    pass(&mut hall, &conns[1..]);
    assert_eq!(seen_of(&hall), [0, 63, others + 1]);
    assert_eq!(hall.known(ConnId(4)).elsewhere_count, 127);
}

/// Goal: however much is said, each is told no more than 64 KiB a second, and ten times, and comes
/// to the last word of each. Method: a hundred say a lot, all the time, for twenty seconds.
#[test]
fn each_is_told_no_more_than_its_rate_and_the_newest_of_each_in_the_end() {
    let conns: Vec<ConnId> = (1..=101).map(ConnId).collect();
    let mut hall = Hall::with(&conns);
    let state = |round: u64, conn: &ConnId| {
        let head = format!("{round} {} ", conn.0);
        format!("{head}{}", "x".repeat(1_000 - head.len()))
    };
    let mut seen_at_least = BTreeMap::<u64, usize>::new();
    for round in 0..200 {
        for conn in &conns {
            hall.set(*conn, &state(round, conn));
        }
        hall.pass(PRESENCE_TICK_MS);
        let fresh = hall.known[&ConnId(101)].states.iter();
        let is_fresh = |text: &String| text.starts_with(&format!("{round} "));
        for (key, _) in fresh.filter(|(_, text)| is_fresh(text)) {
            *seen_at_least.entry(*key).or_default() += 1;
        }
    }
    for known in hall.known.values() {
        let told: usize = known.told.iter().map(|(_, size)| size).sum();
        let slack = PRESENCE_RATE_SIZE_MAX + PRESENCE_NEWS_SIZE_MAX + PRESENCE_STATE_SIZE_MAX;
        assert!(told <= 20 * PRESENCE_RATE_SIZE_MAX + slack, "{told} bytes");
        assert!(told >= 15 * PRESENCE_RATE_SIZE_MAX, "{told} bytes");
        let ticks = known.told.windows(2).all(|it| it[1].0 >= it[0].0 + PRESENCE_TICK_MS);
        assert!(ticks, "ten times a second");
    }
    let least = seen_at_least.values().min();
    assert_eq!(seen_at_least.len(), 100, "each has its turn");
    assert!(least >= Some(&5), "{least:?} times");
    for _ in 0..3 {
        conns.iter().for_each(|conn| hall.sign(*conn));
        hall.pass(5_000);
    }
    let is_last = |text: &&str| text.starts_with("199 ");
    assert!(conns.iter().all(|conn| hall.states(*conn).iter().all(is_last)));
}

/// Goal: presence is never before an entry. Method: a client that does not read its entries, and
/// one that reads no presence; both are told the newest once they do.
#[test]
fn one_who_reads_slowly_is_told_less_and_then_the_newest() {
    let mut hall = Hall::with(&[ANN, BOB]);
    hall.sign(BOB);
    hall.scene.say(BOB, ToRoom::Received { next: lsn(5) });
    // An entry is on its way to Bob.
    hall.scene.frames(ANN, 1, adds(1));
    let entry = hall.scene.unread.remove(&BOB).expect("an entry");
    hall.set(ANN, "early");
    hall.pass(1_000);
    assert_eq!(hall.times_told(BOB), 0, "the entry is not read");
    hall.set(ANN, "late");
    hall.scene.unread.insert(BOB, entry);
    hall.take_told();
    hall.pass(PRESENCE_TICK_MS);
    assert_eq!((hall.times_told(BOB), hall.states(BOB)), (1, vec!["late"]));

    hall.they_hear = false;
    for state in 0..100 {
        hall.set(ANN, &state.to_string());
        hall.pass(PRESENCE_TICK_MS);
    }
    assert_eq!(hall.times_told(BOB), 1 + PRESENCE_UNHEARD_MAX, "it does not say that it hears");
    hall.they_hear = true;
    hall.take_told();
    hall.pass(PRESENCE_TICK_MS);
    assert_eq!(hall.states(BOB), ["99"]);
}

#[test]
fn nobody_is_present_who_does_not_follow_and_no_client_has_more_than_so_many() {
    let mut hall = Hall::with(&[ANN, BOB]);
    hall.sign(ANN);
    hall.set(CEL, "nowhere");
    hall.pass(PRESENCE_TICK_MS);
    assert_eq!(hall.scene.room.presence_size(), 0);
    for number in 0..PRESENCE_ATTENDEES_MAX as u32 + 9 {
        let changes = vec![(Attendee(number), StateText::new("b"))];
        hall.say(BOB, PresenceWord { hears: Hears::Others, heard: 0, changes });
    }
    hall.pass(10 * PRESENCE_TICK_MS);
    assert_eq!(hall.known(ANN).elsewhere_count, PRESENCE_ATTENDEES_MAX as u32);
    // Where there is no room for more, who is present stays so.
    hall.has_room = false;
    hall.set(ANN, "a");
    hall.pass(PRESENCE_TICK_MS);
    assert_eq!(hall.times_told(BOB), 0);
}

/// Goal: a client that brings a second doctype on its channel stays present.
#[test]
fn who_opens_the_document_again_stays_present_until_it_is_refused() {
    let mut hall = Hall::with(&[ANN, BOB]);
    hall.set(ANN, "a");
    hall.sign(BOB);
    hall.pass(PRESENCE_TICK_MS);
    hall.scene.open(ANN);
    hall.pass(PRESENCE_TICK_MS);
    assert_eq!(hall.states(BOB), ["a"]);
    let mut wrong = open("notebook", 1, Intent::Follow);
    if let ToRoom::Open { doctype, .. } = &mut wrong {
        *doctype = vec![1, 2, 3].into();
    }
    hall.scene.say(ANN, wrong);
    hall.pass(PRESENCE_TICK_MS);
    assert!(hall.states(BOB).is_empty());
}

/// Goal: a thousand who are present are no more work than the hundred who are seen. Method: all say
/// something new in each tick; it is counted how many words the room makes of that.
#[test]
fn who_is_in_step_with_others_is_told_the_same_word() {
    let conns: Vec<ConnId> = (1..=1_000).map(ConnId).collect();
    let mut hall = Hall::with(&conns);
    for tick in 0..5 {
        for conn in &conns {
            hall.scene.settle(RoomInput::Presence {
                conn: *conn,
                channel: CHANNEL,
                identity: Arc::new(Identity { user: None, client: ClientId([1; 16]) }),
                word: PresenceWord {
                    hears: Hears::Others,
                    heard: 1,
                    changes: vec![(ONE, StateText::new(&format!("{tick}")))],
                },
                has_room: true,
                now_ms: hall.now_ms,
            });
        }
        hall.now_ms += PRESENCE_TICK_MS;
        hall.scene.step(RoomInput::PresenceDue { now_ms: hall.now_ms });
        let told = std::mem::take(&mut hall.scene.unread).into_values().flatten();
        let news = told.filter_map(|message| match message {
            FromRoom::Presence(news) => Some(news.present),
            _ => None,
        });
        let words: Vec<_> = news.collect();
        assert_eq!(words.len(), conns.len(), "each is told");
        let made: BTreeSet<*const Present> = words.iter().map(|it| it.as_ptr()).collect();
        assert!(made.len() <= PRESENCE_SEEN_MAX + 2, "{} of them", made.len());
    }
}
