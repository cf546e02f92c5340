//! What a room holds for its clients is bounded, and ends with them.

use tidelog_sqlite::SystemQueries as _;
use tidelog_types::Lineage;
use tidelog_types::limits::{DOCTYPES_MAX, OFFER_LIVES_MAX};

use super::*;

fn offer() -> Intent {
    Intent::Offer { lives: Lineage::default() }
}

impl Scene {
    fn offer(&mut self, conn: ConnId) -> Vec<String> {
        brief(&self.open_as(conn, &notes(), None, offer()))
    }
}

/// Goal: an offer that nobody stands behind any more blocks no other one. Method: the client that
/// waits goes, in each of the ways to go, before the one that hands over does.
#[test]
fn an_offer_that_waits_ends_with_its_client() {
    for go in [RoomInput::Left { conn: BOB }, close(BOB)] {
        let mut scene = Scene::new();
        assert_eq!(scene.offer(ANN), ["seed wanted"]);
        assert!(scene.offer(BOB).is_empty(), "it is not known what becomes of the first");
        scene.step(go);
        scene.step(RoomInput::Left { conn: ANN });
        assert!(scene.heard(BOB).is_empty(), "nobody is there");
        assert!(scene.room.is_at_rest(), "{}", scene.room);
        assert_eq!(scene.offer(ANN), ["seed wanted"]);
    }
}

#[test]
fn whoever_leaves_leaves_its_waiting_offers_too() {
    let mut scene = Scene::new();
    let open = |channel| RoomInput::Message {
        conn: ANN,
        channel,
        message: ToRoom::Open {
            document: "notebook".to_owned(),
            doctype: codec::encode(&notes()).into(),
            timeline: JournalId([1; 16]),
            secret: tidelog_types::CopySecret::NONE,
            have: None,
            intent: offer(),
        },
        speaker: Speaker::anybody(),
    };
    let effects = scene.room.step(open(CHANNEL));
    assert!(matches!(effects[..], [RoomEffect::Store(StoreRequest::Open { .. })]));
    // All of it is said before the store has answered.
    for input in [open(Channel(8)), RoomInput::Left { conn: ANN }] {
        assert!(scene.room.step(input).is_empty());
    }
    let opened = StoreReply::Opened {
        document: DocumentKey::new("notebook", "").expect("a name"),
        life: Life([1; 16]),
        state: None,
    };
    scene.step(RoomInput::Store(opened));
    assert!(scene.room.is_at_rest(), "{}", scene.room);
    assert_eq!(scene.offer(BOB), ["seed wanted"]);
}

fn close(conn: ConnId) -> RoomInput {
    RoomInput::Message {
        conn,
        channel: CHANNEL,
        message: ToRoom::Close,
        speaker: Speaker::anybody(),
    }
}

#[test]
fn offers_that_wait_take_a_bounded_amount_of_memory() {
    let mut scene = Scene::new();
    scene.offer(ANN);
    let mut lives = Lineage::default();
    for number in 1..=OFFER_LIVES_MAX as u64 {
        lives.note(Life(u128::from(number).to_le_bytes()), lsn(number));
    }
    let (mut waiting, mut refused) = (0, 0);
    for conn in 10..60 {
        // Who offers again has one offer.
        for _ in 0..2 {
            let intent = Intent::Offer { lives: lives.clone() };
            match brief(&scene.open_as(ConnId(conn), &notes(), None, intent)).as_slice() {
                [] => waiting += 1,
                [said] if said == "refused Storage" => refused += 1,
                said => panic!("{said:?}"),
            }
        }
    }
    assert_eq!((waiting, refused), (62, 38));
    assert_eq!(scene.room.offers.len(), 31);
    scene.step(RoomInput::Left { conn: ANN });
    assert_eq!(brief(&scene.heard(ConnId(10))), ["seed wanted"], "who waited has its turn");
}

#[test]
fn answers_that_wait_for_the_disk_take_a_bounded_amount_of_memory() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.waits = |reply| matches!(reply, StoreReply::Durable { .. });
    scene.frames(ANN, 1, vec![add("a")]);
    let held_max = Limits::DEFAULT.room_pages_in_flight_max;
    for _ in 0..2 * held_max {
        scene.say(ANN, ToRoom::Probe { probe: ProbeId(1) });
    }
    assert!(scene.room.outbox.held() <= held_max, "{}", scene.room.outbox.held());
    assert!(!scene.room.takes_messages(), "so its clients are listened to no longer");
    scene.release();
    let probed = scene.heard(ANN).into_iter().filter(|it| matches!(it, FromRoom::Probed { .. }));
    assert_eq!(probed.count(), 2 * held_max, "each is answered when there is room again");
}

/// Goal: whoever is turned away leaves nothing behind. Method: clients come to a damaged store with
/// what it does not have.
#[test]
fn nothing_is_kept_of_the_timelines_of_those_who_are_not_served() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.room.note_damage();
    for timeline in 10..60 {
        scene.say(
            BOB,
            ToRoom::Open {
                document: "notebook".to_owned(),
                doctype: codec::encode(&notes()).into(),
                timeline: JournalId([timeline; 16]),
                secret: tidelog_types::CopySecret::NONE,
                have: Some(Position::start_of(JournalId([9; 16]))),
                intent: Intent::Follow,
            },
        );
        assert_eq!(brief(&scene.heard(BOB)), ["refused Damaged"]);
    }
    let State::Open(document) = &scene.room.state else { panic!("open") };
    assert_eq!(document.timelines.len(), 1, "Ann's");
}

#[test]
fn timelines_of_those_who_have_left_are_forgotten() {
    let mut scene = Scene::new();
    for number in 1..=50 {
        let conn = ConnId(number);
        scene.open(conn, None);
        scene.frames(conn, 1, vec![add(&number.to_string())]);
        if number % 2 == 0 {
            scene.step(RoomInput::Left { conn });
        }
    }
    // Each time with another timeline on the same channel.
    for timeline in 1..=50 {
        let open = ToRoom::Open {
            document: "notebook".to_owned(),
            doctype: codec::encode(&notes()).into(),
            timeline: JournalId([timeline; 16]),
            secret: tidelog_types::CopySecret::NONE,
            have: None,
            intent: Intent::Follow,
        };
        scene.say(BOB, open);
    }
    let State::Open(document) = &scene.room.state else { panic!("open") };
    assert!(document.timelines.len() <= 26, "{} timelines", document.timelines.len());
    let heard = scene.frames(ConnId(3), 1, vec![add("3"), add("more")]);
    assert_eq!(brief(&heard).last().map(String::as_str), Some("acked 3"), "and read again");
}

/// Goal: no doctype makes a record that the store does not take. Method: versions of a doctype
/// whose name alone has 3.5 MiB.
#[test]
fn the_doctypes_of_a_document_are_bounded_in_bytes() {
    let mut scene = Scene::new();
    let mut said = Vec::new();
    for version in 1..=6 {
        let mut doctype = doctype(&["create table note (id text primary key, body text) strict"]);
        doctype.name = "x".repeat(7 << 19);
        doctype.mutations.truncate(1);
        doctype.mutations[0].name = format!("add{version}");
        said.push(brief(&scene.open_as(ANN, &doctype, None, Intent::Follow))[0].clone());
    }
    assert!(said[..4].iter().all(|said| said.starts_with("opened")), "{said:?}");
    assert!(said[4..].iter().all(|said| said == "refused DoctypeMismatch"), "{said:?}");
}

/// Goal: what is on its way to the disk is bounded, records as well. Method: a document of large
/// doctypes, which is written down whole with each small one that comes while the disk is slow.
#[test]
fn records_on_their_way_to_the_disk_take_a_bounded_amount_of_memory() {
    let mut scene = Scene::new();
    let version = |name: String| {
        let mut doctype = notes();
        doctype.mutations.truncate(1);
        doctype.mutations[0].name = name;
        doctype
    };
    for large in ["a", "b", "c", "d"] {
        let doctype = version(large.repeat(7 << 19));
        let said = brief(&scene.open_as(ANN, &doctype, None, Intent::Follow));
        assert!(said[0].starts_with("opened"), "{said:?}");
    }
    scene.waits = |reply| matches!(reply, StoreReply::Durable { .. });
    for number in 0..10 {
        scene.open_as(ANN, &version(format!("add{number}")), None, Intent::Follow);
    }
    assert!(scene.room.outbox.in_flight_count() <= 2);
    assert!(!scene.room.takes_messages(), "so its clients are listened to no longer");
    scene.release();
    let heard = brief(&scene.heard(ANN));
    let opened = heard.iter().filter(|said| said.starts_with("opened"));
    assert_eq!(opened.count(), 10, "{heard:?}");
}

/// Goal: what all rooms of a server together have on its way to the disk is bounded. Method: they
/// have too much, and one of them is told of three mutations at once.
#[test]
fn where_all_rooms_have_much_on_its_way_each_has_one_entry_at_a_time() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    assert_eq!(scene.room.in_flight_size(), 0);
    scene.waits = |reply| matches!(reply, StoreReply::Durable { .. });
    scene.room.limit_in_flight(1);
    scene.frames(ANN, 1, vec![add("a"), add("b"), add("c")]);
    for applied in 1..=3 {
        assert_eq!(scene.room.counts().applied, applied);
        assert!(scene.room.in_flight_size() > 0);
        let reply = scene.held.pop_front().expect("it waits for the disk");
        scene.step(RoomInput::Store(reply));
    }
    assert_eq!(scene.room.in_flight_size(), 0);
    scene.room.limit_in_flight(0);
    scene.frames(ANN, 4, vec![add("d")]);
    assert!(scene.room.is_held_up() && !scene.room.wants_step());
    assert_eq!(scene.room.counts().applied, 3);
    scene.room.limit_in_flight(1);
    scene.step(RoomInput::GoOn);
    assert_eq!(scene.room.counts().applied, 4);
}

/// V13. Goal: nobody fills a document with doctypes until nobody gets in. Method: as many versions
/// as there may be, each of which succeeds the one before, and one more.
#[test]
fn the_doctypes_of_a_document_are_bounded_in_number() {
    let mut scene = Scene::new();
    let version = |number: usize| {
        let mut doctype = notes();
        doctype.mutations.truncate(1);
        doctype.mutations[0].name = format!("add{number}");
        doctype
    };
    let mut open =
        |number| brief(&scene.open_as(ANN, &version(number), None, Intent::Follow))[0].clone();
    for number in 1..=DOCTYPES_MAX {
        assert!(open(number).starts_with("opened"), "version {number}");
    }
    assert_eq!(open(DOCTYPES_MAX + 1), "refused DoctypeMismatch");
    for number in [1, DOCTYPES_MAX] {
        assert!(open(number).starts_with("opened"), "version {number} is known");
    }
    // Nor is there another way in.
    let offered = Intent::Offer { lives: Lineage::default() };
    let mut newer = version(DOCTYPES_MAX + 1);
    newer.migrations.push("create table later (id)".to_owned());
    let heard = brief(&scene.open_as(ANN, &newer, None, offered));
    assert!(heard[0].starts_with("refused"), "{heard:?}");
}

const CAROL: ConnId = ConnId(3);

impl Scene {
    /// What is due by then happens; gives when that was.
    fn pass(&mut self, until_ms: u64) -> Option<u64> {
        let now_ms = self.room.seed_overdue_at_ms(until_ms).filter(|at_ms| *at_ms <= until_ms)?;
        self.step(RoomInput::SeedOverdue { now_ms });
        Some(now_ms)
    }

    /// One page of a document of so many.
    fn seed_page(&mut self, conn: ConnId, number: u32, db_pages: u32) -> Vec<String> {
        let position = Position { next: lsn(5), ..Position::start_of(JournalId([9; 16])) };
        let pages = vec![CodedPage::new(Pgid(number), &Page::zeroed(), None)];
        let last = number == db_pages;
        self.say(conn, ToRoom::Seed { position, db_pages, pages, last });
        brief(&self.heard(conn))
    }
}

/// Goal: a turn lasts as long as bytes come, however many pages they say. Method: two thousand
/// pages of zeros, and then one more every three seconds.
#[test]
fn pages_that_take_few_bytes_hold_nobody_up_for_longer() {
    let mut scene = Scene::new();
    assert_eq!(scene.offer(ANN), ["seed wanted"]);
    assert!(scene.offer(BOB).is_empty());
    scene.room.seed_overdue_at_ms(0);
    let position = Position { next: lsn(5), ..Position::start_of(JournalId([9; 16])) };
    let zeros = |number| CodedPage::new(Pgid(number), &Page::zeroed(), None);
    let pages = (1..=2_000).map(zeros).collect();
    scene.say(ANN, ToRoom::Seed { position, db_pages: 3_000, pages, last: false });
    let trickle = (1..100).find_map(|number: u32| {
        scene.seed_page(ANN, 2_000 + number, 3_000);
        scene.pass(u64::from(number) * 3_000)
    });
    assert_eq!(trickle, Some(60_000));
    assert_eq!(brief(&scene.heard(BOB)), ["seed wanted"]);
}

/// Goal: of those who are silent each has one turn before one of them has a second. Method: the one
/// that came last is on the oldest connection.
#[test]
fn offers_have_their_turns_in_the_order_in_which_they_came() {
    let mut scene = Scene::new();
    assert_eq!(scene.offer(BOB), ["seed wanted"]);
    assert!(scene.offer(CAROL).is_empty());
    assert!(scene.offer(ANN).is_empty());
    assert_eq!(scene.room.seed_overdue_at_ms(0), Some(5_000));
    assert_eq!(scene.pass(5_000), Some(5_000));
    assert_eq!(brief(&scene.heard(BOB)), ["refused Storage"]);
    assert_eq!(brief(&scene.heard(CAROL)), ["seed wanted"]);
    assert!(scene.heard(ANN).is_empty());
}

#[test]
fn whoever_offers_anew_is_behind_those_who_wait() {
    let mut scene = Scene::new();
    assert_eq!(scene.offer(ANN), ["seed wanted"]);
    assert_eq!(scene.offer(ANN), ["seed wanted"], "nobody waits");
    assert!(scene.offer(CAROL).is_empty());
    assert!(scene.offer(BOB).is_empty());
    assert!(scene.offer(ANN).is_empty());
    assert_eq!(brief(&scene.heard(CAROL)), ["seed wanted"]);
    scene.step(RoomInput::Left { conn: CAROL });
    assert_eq!(brief(&scene.heard(BOB)), ["seed wanted"]);
    assert!(scene.heard(ANN).is_empty());
}

/// Goal: silence counts from its beginning. Method: whoever waits goes, and comes back, time and
/// again.
#[test]
fn silence_is_no_shorter_for_those_who_come_and_go_meanwhile() {
    let mut scene = Scene::new();
    assert_eq!(scene.offer(ANN), ["seed wanted"]);
    let mut now_ms = 0;
    while scene.heard(ANN).is_empty() {
        assert!(now_ms <= 6_000, "it is waited for for ever");
        scene.room.seed_overdue_at_ms(now_ms);
        scene.offer(BOB);
        scene.pass(now_ms);
        scene.step(RoomInput::Left { conn: BOB });
        scene.room.seed_overdue_at_ms(now_ms);
        now_ms += 1_000;
    }
}

/// Goal: clients that are slow do not refuse one another for ever. Method: each page of a document
/// takes longer than is waited for at first; whoever is refused comes again a second later.
#[test]
fn of_two_who_are_slow_one_gets_through() {
    const PAGE_TAKES_MS: u64 = 17_000;
    let mut scene = Scene::new();
    // What each sends next, and when: 0 is its offer.
    let mut plans = BTreeMap::from([(ANN, (0, 0)), (BOB, (0, 0))]);
    for now_ms in (0..600_000).step_by(1_000) {
        scene.pass(now_ms);
        for (conn, (page, at_ms)) in &mut plans {
            let heard = brief(&scene.heard(*conn));
            match heard.last().map(String::as_str) {
                Some("seed wanted") => (*page, *at_ms) = (1, now_ms + PAGE_TAKES_MS),
                Some("refused Storage") => (*page, *at_ms) = (0, now_ms + 1_000),
                _ => {}
            }
            if *at_ms != now_ms {
                continue;
            }
            if *page == 3 {
                // All have come. They are no database, and that is another matter.
                assert_eq!(scene.seed_page(*conn, 3, 3), ["refused Protocol"]);
                return;
            }
            let heard = match *page {
                0 => scene.offer(*conn),
                _ => scene.seed_page(*conn, *page, 3),
            };
            (*page, *at_ms) = match heard.first().map(String::as_str) {
                Some("seed wanted") => (1, now_ms + PAGE_TAKES_MS),
                _ if *page == 0 => (0, u64::MAX),
                _ => (*page + 1, now_ms + PAGE_TAKES_MS),
            };
        }
    }
    panic!("they refuse one another for ever");
}

/// Goal: an entry costs a step what the step may cost, however many follow. Method: one that was
/// there before it leaves between two steps, and one is blocked.
#[test]
fn an_entry_leaves_for_many_followers_in_many_steps() {
    let mut scene = Scene::new();
    let conns: Vec<ConnId> = (1..=20).map(ConnId).collect();
    for conn in &conns {
        scene.open(*conn, None);
    }
    let (gone, slow) = (conns[10], conns[15]);
    scene.told.clear();
    scene.room.settings.limits.slice.pages = 4;
    scene.waits = |reply| matches!(reply, StoreReply::Durable { .. });
    scene.frames(ANN, 1, vec![add("a")]);
    scene.ways.of(slow, |way| way.is_blocked = true);
    let reply = scene.held.pop_front().expect("it waits for the disk");
    let mut input = RoomInput::Store(reply);
    let (mut heard, mut steps_count) = (Vec::new(), 0);
    loop {
        let mut pages_count = 0;
        for effect in scene.room.step(input) {
            let RoomEffect::Send { conn, message } = effect else { continue };
            let FromServer::About { body, .. } = message else { panic!("of no document") };
            if let FromRoom::Entry(part) = &body {
                pages_count += part.pages.len();
                scene.ways.release(conn, entry_size(part));
            }
            heard.push((conn, brief(&[body]).remove(0)));
        }
        steps_count += 1;
        assert!(pages_count <= 2 * 4, "{pages_count} pages in one step");
        if !scene.room.wants_step() {
            break;
        }
        input = match steps_count {
            1 => RoomInput::Left { conn: gone },
            // Of those who have had no turn, and need nothing said twice.
            2 => RoomInput::Writable { conn: conns[19] },
            _ => RoomInput::GoOn,
        };
    }
    assert!(steps_count >= 10, "{steps_count} steps");
    let told: Vec<ConnId> =
        heard.iter().filter(|(_, said)| said == "entry 2..3 of 1").map(|(conn, _)| *conn).collect();
    let mut expected = conns.clone();
    expected.retain(|conn| *conn != slow);
    assert!(told.iter().all(|conn| expected.contains(conn)), "{told:?}");
    expected.retain(|conn| *conn != gone);
    assert!(expected.iter().all(|conn| told.iter().filter(|it| *it == conn).count() == 1));
    assert_eq!(heard.last(), Some(&(ANN, "acked 2".to_owned())), "what waited behind it");

    // Who had no room is sent it later.
    scene.ways.of(slow, |way| way.is_blocked = false);
    scene.release();
    scene.step(RoomInput::Writable { conn: slow });
    assert_eq!(brief(&scene.heard(slow)), ["entry 2..3 of 1"]);
}

impl Scene {
    /// Takes a step, and those that follow by themselves; gives the pages that left in each.
    fn pages_by_step(&mut self, input: RoomInput) -> Vec<usize> {
        let (mut input, mut pages_by_step) = (Some(input), Vec::new());
        while let Some(next) = input.take() {
            let mut pages_count = 0;
            for effect in self.room.step(next) {
                match effect {
                    RoomEffect::Send { conn, message } => {
                        let FromServer::About { body, .. } = message else { panic!("of none") };
                        if let FromRoom::Entry(part) = &body {
                            pages_count += part.pages.len();
                            self.ways.release(conn, entry_size(part));
                        }
                        self.told.entry(conn).or_default().push(body);
                    }
                    RoomEffect::Store(request) => self.store.serve(self.owner, request),
                    RoomEffect::Answer { answer, .. } => self.answers.push(answer),
                    RoomEffect::Due(due) => self.due.push(due),
                }
            }
            pages_by_step.push(pages_count);
            input = self.room.wants_step().then_some(RoomInput::GoOn);
        }
        pages_by_step
    }
}

/// Goal: what waited for the disk costs a step what the step may cost, however many it is for.
/// Method: many followers lag, and each is read a chunk that is not durable yet.
#[test]
fn chunks_that_became_durable_leave_for_many_followers_in_many_steps() {
    let mut scene = Scene::new();
    let conns: Vec<ConnId> = (2..=21).map(ConnId).collect();
    scene.open(ANN, None);
    for conn in &conns {
        scene.open(*conn, None);
        scene.ways.of(*conn, |way| way.is_blocked = true);
    }
    scene.frames(ANN, 1, vec![add("a")]);
    scene.waits = |reply| matches!(reply, StoreReply::Durable { .. });
    scene.frames(ANN, 2, vec![add("b")]);
    for conn in &conns {
        scene.ways.of(*conn, |way| way.is_blocked = false);
        scene.step(RoomInput::Writable { conn: *conn });
    }
    assert_eq!(scene.room.undurable.len(), conns.len());
    scene.told.clear();
    scene.room.settings.limits.slice.pages = 4;
    let reply = scene.held.pop_front().expect("it waits for the disk");
    let pages_by_step = scene.pages_by_step(RoomInput::Store(reply));
    assert!(pages_by_step.iter().all(|count| *count <= 2 * 4), "{pages_by_step:?}");
    assert!(pages_by_step.len() >= 5, "{pages_by_step:?}");
    scene.release();
    assert!(conns.iter().all(|conn| scene.told.contains_key(conn)), "{:?}", scene.told.keys());
}

/// Goal: no mutation keeps the room's thread for long. Method: one with a statement that jumps
/// nowhere, so that SQLite does not look at its budget, and looks hundreds of times at one value.
#[test]
fn a_mutation_that_looks_at_a_large_value_again_and_again_is_rejected() {
    let mut scene = Scene::new();
    let mut stares = notes();
    let looks = "body + 1, ".repeat(1_000);
    let look = format!("update note set body = 0 in ({looks} 1) where id = :id");
    stares.mutations[0].sql.push(look);
    scene.open_as(ANN, &stares, None, Intent::Follow);
    let large = "0".repeat(1_500_000);
    let add = |id, body| frame(&stares, "add", &[("id", id), ("body", body)]);
    scene.frames(ANN, 1, vec![add("a", &large), add("b", "short")]);
    let RoomCounts { applied, rejected } = scene.room.counts();
    assert_eq!((applied, rejected), (1, 1), "{}", scene.room);
    let State::Open(document) = &mut scene.room.state else { panic!("open") };
    let reasons = "select reason from _tidelog_rejection";
    let reasons = document.authority.reader().query_system(reasons, &[]).unwrap();
    let reason = Value::Text("over the budget of 40000000 steps".to_owned());
    assert_eq!(reasons, [[reason]]);
}
