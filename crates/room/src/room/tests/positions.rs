//! Who holds which history: restores, clones, and offers that were not answered.

use std::sync::atomic::{AtomicBool, Ordering};

use tidelog_document::{ArrivingEntry, public_life};
use tidelog_pages::Ticket;
use tidelog_sqlite::{Params, SystemQueries as _};
use tidelog_types::{Chain, EntryId, Lineage};

use super::*;

/// From which LSN on a client that has opened is sent what it lacks.
fn from_of(heard: &[FromRoom]) -> u64 {
    match heard.first() {
        Some(FromRoom::Opened { from, .. }) => from.get(),
        other => panic!("not opened: {other:?}"),
    }
}

fn lives_of(heard: &[FromRoom]) -> String {
    match heard.first() {
        Some(FromRoom::Opened { lives, .. }) => lives.to_string(),
        other => panic!("not opened: {other:?}"),
    }
}

#[test]
fn who_saw_what_a_restored_server_lost_is_sent_all_anew_and_the_others_go_on() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.frames(ANN, 1, vec![add("a")]);
    let (before, backup) = (scene.position(), scene.backup());
    scene.frames(ANN, 2, vec![add("lost"), add("lost too")]);
    let after = scene.position();

    scene.restore(&backup);
    let heard = scene.open(BOB, Some(before));
    assert_eq!((from_of(&heard), brief(&heard)), (3, vec!["opened 3 wanted 1".to_owned()]));
    // Past the end of what is left, and then at an LSN that has another content by now.
    let heard = scene.open(ANN, Some(after));
    assert_eq!((from_of(&heard), brief(&heard)[1].as_str()), (1, "entry 1..3"));
    scene.frames(BOB, 1, vec![add("b"), add("c"), add("d")]);
    assert_eq!(scene.position().next, lsn(6));
    scene.heard(ANN);
    let heard = scene.open(ANN, Some(after));
    assert_eq!((from_of(&heard), brief(&heard)[1].as_str()), (1, "entry 1..6"));
    assert_eq!(scene.position().journal, before.journal, "nobody else is concerned");
    // Who had not seen what was lost is within, also later and after another restart.
    scene.restart();
    let heard = scene.open(BOB, Some(before));
    assert_eq!((from_of(&heard), brief(&heard)[1].as_str()), (3, "entry 3..6"));
}

#[test]
fn no_word_of_a_client_changes_the_journal_or_sends_anybody_away() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.open(BOB, None);
    scene.frames(ANN, 1, vec![add("a")]);
    let truth = scene.position();
    scene.heard(BOB);
    let claims = [
        Position { next: lsn(900), ..truth },
        Position { chain: Chain([4; 32]), ..truth },
        Position { life: Life([9; 16]), ..truth },
        Position { life: Life::NONE, next: lsn(2), ..truth },
        Position { journal: JournalId([9; 16]), ..truth },
    ];
    for claim in claims {
        let heard = scene.open(ANN, Some(claim));
        assert_eq!((from_of(&heard), brief(&heard)[1].as_str()), (1, "entry 1..3"), "{claim}");
    }
    assert_eq!(scene.position(), truth);
    assert!(scene.heard(BOB).is_empty());
    scene.frames(ANN, 2, vec![add("b")]);
    assert_eq!(brief(&scene.heard(BOB)), ["entry 3..4 of 2"], "it has followed all the time");
}

#[test]
fn where_the_machine_was_rolled_back_the_chain_tells() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.frames(ANN, 1, vec![add("a")]);
    let backup = scene.backup();
    scene.frames(ANN, 2, vec![add("lost")]);
    let lost = scene.position();
    // The same opening of the store goes on from an earlier state of itself.
    scene.openings -= 1;
    scene.restore(&backup);
    scene.open(BOB, None);
    scene.frames(BOB, 1, vec![add("b")]);
    assert_eq!((scene.position().life, scene.position().next), (lost.life, lost.next));
    assert_eq!(from_of(&scene.open(ANN, Some(lost))), 1);
}

#[test]
fn frames_of_a_clone_are_not_taken_for_repeats() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    let (shared, clone) = (life_of(ANN), Life([7; 16]));
    scene.frames(ANN, 1, vec![add("a"), add("b")]);
    scene.frames_of(ANN, clone, 3, vec![add("c")]);
    // One frame of its own where another copy's is, and one behind that copy's.
    for (life, first) in [(Life([8; 16]), 3), (shared, 3), (shared, 4)] {
        let heard = scene.frames_of(ANN, life, first, vec![add("d")]);
        assert_eq!(brief(&heard), ["refused Parted"], "{life} at {first}");
        let heard = scene.open(ANN, Some(scene.position()));
        let mut lives = Lineage::default();
        lives.note(public_life(shared), lsn(1));
        lives.note(public_life(clone), lsn(3));
        assert_eq!(lives_of(&heard), lives.to_string());
    }
    let heard = scene.frames_of(ANN, shared, 1, vec![add("a"), add("b")]);
    assert_eq!(brief(&heard), ["acked 3"], "what both have is a repeat, and no more than that");
    assert_eq!(scene.room.counts().applied, 3);
}

/// A local document: what another room holds.
struct Local(Scene);

impl Local {
    fn new(number: u8) -> Self {
        let mut scene = Scene::of(number);
        scene.open(ANN, None);
        Self(scene)
    }

    fn write(&mut self, first: u64, id: &str) {
        self.0.frames(ANN, first, vec![add(id)]);
    }

    fn lives(&self) -> Lineage {
        let State::Open(document) = &self.0.room.state else { panic!("open") };
        document.authority.lives().clone()
    }

    /// Offers it to a server.
    fn offer(&self, server: &mut Scene, conn: ConnId) -> Vec<FromRoom> {
        let intent = Intent::Offer { lives: self.lives() };
        server.open_as(conn, &notes(), Some(self.0.position()), intent)
    }

    /// What a server wants of it, in two parts.
    fn seeds(&self) -> [ToRoom; 2] {
        let (position, db_pages) = self.0.position_and_size();
        let State::Open(document) = &self.0.room.state else { panic!("open") };
        let view = document.authority.view();
        let page = |number| {
            let page = view.base_page(Pgid(number)).expect("all here");
            CodedPage::new(Pgid(number), &page, None)
        };
        let pages: Vec<CodedPage> = (1..=db_pages).map(page).collect();
        let (first, second) = pages.split_at(2);
        [(first, false), (second, true)].map(|(pages, last)| {
            let pages = pages.to_vec();
            ToRoom::Seed { position, db_pages, pages, last }
        })
    }

    /// Sends what a server wants of it.
    fn seed(&self, server: &mut Scene, conn: ConnId) -> Vec<FromRoom> {
        self.seeds().into_iter().for_each(|part| server.say(conn, part));
        let mut heard = server.heard(conn);
        assert!(matches!(heard.remove(0), FromRoom::SeedTaken { .. }), "there is room for more");
        heard
    }
}

#[test]
fn a_local_document_becomes_the_servers_once() {
    let (mut scene, mut local) = (Scene::new(), Local::new(50));
    local.write(1, "a");
    assert_eq!(brief(&local.offer(&mut scene, ANN)), ["seed wanted"]);
    assert_eq!(brief(&local.seed(&mut scene, ANN)), ["seeded", "opened 3 wanted 2"]);
    assert_eq!(brief(&local.offer(&mut scene, ANN)), ["seeded", "opened 3 wanted 2"], "a repeat");
    let mut other = Local::new(60);
    other.write(1, "other");
    assert_eq!(brief(&other.offer(&mut scene, BOB)), ["refused Exists"]);
    scene.restart();
    assert_eq!(brief(&scene.open(BOB, None))[0], "opened 3 wanted 1");
    assert_eq!(brief(&local.offer(&mut scene, ANN))[0], "seeded");
}

#[test]
fn what_went_on_locally_after_a_lost_answer_is_seeded_again() {
    let (mut scene, mut local) = (Scene::new(), Local::new(50));
    local.write(1, "a");
    local.offer(&mut scene, ANN);
    // Nobody hears the answer.
    local.seed(&mut scene, ANN);
    let seeded = scene.position();
    let follower = scene.open(BOB, Some(seeded));
    assert_eq!(from_of(&follower), 3);
    local.write(2, "b");
    local.write(3, "c");
    scene.restart();
    assert_eq!(brief(&local.offer(&mut scene, ANN)), ["seed wanted"]);
    let heard = local.seed(&mut scene, ANN);
    assert_eq!(brief(&heard), ["seeded", "opened 5 wanted 4"]);
    let FromRoom::Seeded { position } = heard[0] else { panic!("{heard:?}") };
    assert_eq!(position, scene.position());
    // Who follows, the offerer too, goes on from where it is.
    assert_eq!(from_of(&scene.open(ANN, Some(position))), 5);
    let heard = scene.open(BOB, Some(seeded));
    assert_eq!((from_of(&heard), brief(&heard)[1].as_str()), (3, "entry 3..5"));
}

/// Goal: an earlier state of what was taken over follows with all that was. Method: a device that
/// was put back to before it handed its document over offers it again. Its chain is that of its
/// own entries, of which the server has only the pages that they came to.
#[test]
fn an_earlier_state_of_what_was_handed_over_is_sent_the_whole_document() {
    let (mut scene, mut local) = (Scene::new(), Local::new(50));
    local.write(1, "a");
    let (position, lives) = (local.0.position(), local.lives());
    local.write(2, "b");
    local.offer(&mut scene, ANN);
    local.seed(&mut scene, ANN);

    let heard = scene.open_as(ANN, &notes(), Some(position), Intent::Offer { lives });
    let FromRoom::Seeded { position: held } = heard[0] else { panic!("{heard:?}") };
    assert_eq!(held.next, position.next);
    let heard = scene.open(ANN, Some(held));
    assert_eq!((from_of(&heard), brief(&heard)[1].as_str()), (1, "entry 1..4"));
}

/// Goal: what is staged is never taken for a part of the document. Method: a page that is read of
/// it is damaged, the others come.
#[test]
fn pages_of_an_offer_that_is_damaged_are_not_the_documents() {
    let (mut scene, mut local) = (Scene::new(), Local::new(50));
    local.0.frames(ANN, 1, vec![frame(&notes(), "fill", &[])]);
    local.offer(&mut scene, ANN);
    local.seed(&mut scene, ANN);
    local.write(2, "b");
    scene.restart();
    assert_eq!(brief(&local.offer(&mut scene, ANN)), ["seed wanted"]);
    scene.waits = |reply| match reply {
        StoreReply::Pages { document, pages, .. } => document.user == STAGED && pages.len() > 1,
        _ => false,
    };
    assert!(local.seed(&mut scene, ANN).is_empty(), "it is looked at");
    let needed = scene.room.fetch.as_ref().expect("pages of it are read").needed;
    let State::Open(document) = &scene.room.state else { panic!("open") };
    let view = document.authority.view().clone();
    view.reset_base(view.base_db_pages());
    let missing = view.missing();
    scene.find_damaged(|pgid| pgid == needed);
    assert_eq!(brief(&scene.heard(ANN)), ["refused Damaged"]);
    assert!(view.missing() == missing, "a page of the offer is among those of the document");
}

#[test]
fn an_offer_that_finds_no_room_on_the_disk_sends_nobody_else_away() {
    let (mut scene, mut local) = (Scene::new(), Local::new(50));
    local.write(1, "a");
    local.offer(&mut scene, ANN);
    local.seed(&mut scene, ANN);
    local.write(2, "b");
    let seeded = scene.position();
    scene.open(BOB, Some(seeded));
    assert_eq!(brief(&local.offer(&mut scene, ANN)), ["seed wanted"]);
    scene.waits = |reply| matches!(reply, StoreReply::Durable { .. });
    let [first, _] = local.seeds();
    scene.say(ANN, first);
    let Some(StoreReply::Durable { ticket }) = scene.held.pop_front() else { panic!("staged") };
    scene.waits = |_| false;
    let failed = |ticket| StoreReply::AppendFailed { ticket, error: AppendError::Full };
    scene.step(RoomInput::Store(failed(ticket)));
    assert_eq!(brief(&scene.heard(ANN)), ["seed taken 2", "refused Storage"]);
    assert_eq!(brief(&scene.frames(BOB, 1, vec![add("theirs")])), ["entry 3..4 of 1", "acked 2"]);
}

#[test]
fn pages_of_an_offer_that_found_no_room_are_waited_for_by_nobody() {
    let (mut scene, mut local) = (Scene::new(), Local::new(50));
    local.write(1, "a");
    assert_eq!(brief(&local.offer(&mut scene, ANN)), ["seed wanted"]);
    scene.waits = |reply| matches!(reply, StoreReply::Durable { .. } | StoreReply::Pages { .. });
    for seed in local.seeds() {
        scene.say(ANN, seed);
    }
    let ticket = scene.held.iter().find_map(|reply| match reply {
        StoreReply::Durable { ticket } => Some(*ticket),
        _ => None,
    });
    assert!(scene.held.iter().any(|reply| matches!(reply, StoreReply::Pages { .. })));
    // Nothing is read behind an append that failed.
    scene.held.clear();
    scene.waits = |_| false;
    let failed = |ticket| StoreReply::AppendFailed { ticket, error: AppendError::Full };
    scene.step(RoomInput::Store(failed(ticket.expect("staged"))));
    assert_eq!(brief(&scene.heard(ANN)), ["seed taken 2", "refused Storage"]);
    assert_eq!(brief(&local.offer(&mut scene, ANN)), ["seed wanted"]);
}

/// A document that was handed over, and is offered again with more, in a room that has just been
/// opened.
fn offered_anew() -> (Scene, Local) {
    let (mut scene, mut local) = (Scene::new(), Local::new(50));
    local.write(1, "a");
    local.offer(&mut scene, ANN);
    local.seed(&mut scene, ANN);
    scene.restart();
    local.write(2, "b");
    assert_eq!(brief(&local.offer(&mut scene, ANN)), ["seed wanted"]);
    (scene, local)
}

/// Goal: an offer ends though the document of before is not in memory any more. Method: what is
/// handed over is looked at once all of it has come, and reads its staged pages; meanwhile the room
/// forgets the others.
#[test]
fn pages_of_the_document_of_before_are_not_looked_for_among_those_that_are_staged() {
    let (mut scene, local) = offered_anew();
    scene.waits = |reply| matches!(reply, StoreReply::Pages { .. });
    for seed in local.seeds() {
        scene.say(ANN, seed);
    }
    let mut reads = 0;
    while let Some(reply) = scene.held.pop_front() {
        let fetch = scene.room.fetch.as_ref();
        if fetch.is_some_and(|fetch| fetch.document == scene.room.staging_key()) {
            let State::Open(document) = &mut scene.room.state else { panic!("it is open") };
            document.timelines.clear();
            document.give_pages_back();
            reads += 1;
        }
        assert!(reads < 100, "it reads the same again and again");
        scene.step(RoomInput::Store(reply));
    }
    assert!(reads > 0, "it reads what is staged");
    let heard = brief(&scene.heard(ANN));
    assert!(heard.iter().any(|said| said.starts_with("seeded")), "{heard:?}");
}

/// Goal: of a damaged page is told whoever needs it. Method: somebody waits for pages; then what
/// another one hands over fails, and whoever waited to hand over has its turn.
#[test]
fn pages_are_those_of_the_run_that_waits_for_them() {
    let (mut scene, local) = offered_anew();
    scene.waits = |reply| matches!(reply, StoreReply::Durable { .. });
    let [first, _] = local.seeds();
    scene.say(ANN, first);
    let staged = tickets(&mut scene);
    assert!(local.offer(&mut scene, BOB).is_empty());
    scene.waits = |reply| matches!(reply, StoreReply::Pages { .. });
    let reader = ConnId(3);
    assert!(scene.open(reader, None).is_empty(), "pages are read");
    let failed = StoreReply::AppendFailed { ticket: staged[0], error: AppendError::Full };
    scene.step(RoomInput::Store(failed));
    assert_eq!(brief(&scene.heard(ANN)), ["seed taken 2", "refused Storage"]);
    let needed = scene.room.fetch.as_ref().expect("a fault").needed;
    scene.find_damaged(|pgid| pgid == needed);
    assert_eq!(brief(&scene.heard(reader)), ["refused Damaged"]);
    assert_eq!(brief(&scene.heard(BOB)), ["seed wanted"]);
}

/// Goal: what becomes of an offer that was given up is nobody else's. Method: the store answers for
/// what was staged of it, and for its destruction, when somebody else hands over; then the disk is
/// full for that one too.
#[test]
fn an_offer_that_was_given_up_fails_no_other_one() {
    let (mut scene, mut local) = (Scene::new(), Local::new(50));
    local.write(1, "a");
    assert_eq!(brief(&local.offer(&mut scene, ANN)), ["seed wanted"]);
    scene.waits = |reply| matches!(reply, StoreReply::Durable { .. });
    let [first, _] = local.seeds();
    scene.say(ANN, first);
    scene.step(RoomInput::Left { conn: ANN });
    let given_up = tickets(&mut scene);
    assert_eq!(given_up.len(), 2, "staged, and destroyed");
    assert_eq!(brief(&local.offer(&mut scene, BOB)), ["seed wanted"]);
    let [first, second] = local.seeds();
    scene.say(BOB, first.clone());
    let own = tickets(&mut scene);
    let failed =
        |ticket| RoomInput::Store(StoreReply::AppendFailed { ticket, error: AppendError::Full });
    for ticket in given_up {
        scene.step(failed(ticket));
    }
    assert_eq!(brief(&scene.heard(BOB)), ["seed taken 2"]);
    scene.step(failed(own[0]));
    assert_eq!(brief(&scene.heard(BOB)), ["refused Storage"]);
    scene.waits = |_| false;
    assert_eq!(brief(&local.offer(&mut scene, BOB)), ["seed wanted"]);
    for seed in [first, second] {
        scene.say(BOB, seed);
    }
    assert_eq!(brief(&scene.heard(BOB)), ["seed taken 2", "seeded", "opened 3 wanted 1"]);
}

/// Goal: nothing that is said of a document which is handed over becomes that of the one before.
/// Method: a further state finds no room on the disk once all of it is there, and somebody brings
/// a doctype before the room has heard of that.
#[test]
fn what_comes_behind_a_document_that_found_no_room_is_not_noted_of_the_one_before() {
    let (mut scene, mut local) = (Scene::new(), Local::new(50));
    local.write(1, "a");
    local.offer(&mut scene, ANN);
    local.seed(&mut scene, ANN);
    let seeded = scene.position();
    scene.restart();
    local.0.restart();
    local.0.open(ANN, None);
    local.write(2, "b");
    assert_eq!(brief(&local.offer(&mut scene, ANN)), ["seed wanted"]);
    scene.waits = |reply| matches!(reply, StoreReply::Pages { .. });
    local.seeds().into_iter().for_each(|part| scene.say(ANN, part));
    assert_eq!(brief(&scene.heard(ANN)), ["seed taken 2"], "it is looked at");
    let is_answer =
        |reply: &_| matches!(reply, StoreReply::AppendFailed { .. } | StoreReply::Durable { .. });
    scene.waits = is_answer;
    scene.device.set_full(true);
    scene.release_one();
    assert!(matches!(scene.held.front(), Some(StoreReply::AppendFailed { .. })), "no room");
    scene.device.set_full(false);
    let mut newer = notes();
    newer.mutations.pop();
    let heard = scene.open_as(BOB, &newer, Some(seeded), Intent::Follow);
    assert!(heard.is_empty(), "it is not known what the document is: {heard:?}");
    scene.release();
    assert_eq!(brief(&scene.heard(ANN)), ["refused Storage"]);
    assert_eq!(brief(&scene.heard(BOB)), ["refused Storage"]);

    scene.restart();
    assert_eq!(brief(&scene.open(BOB, Some(seeded))), ["opened 3 wanted 1"]);
    assert_eq!(brief(&scene.frames(BOB, 1, vec![add("theirs")])), ["entry 3..4 of 1", "acked 2"]);
}

#[test]
fn what_was_staged_of_a_document_that_found_no_room_in_the_end_is_given_back() {
    let (mut scene, mut local) = (Scene::new(), Local::new(50));
    local.write(1, "a");
    assert_eq!(brief(&local.offer(&mut scene, ANN)), ["seed wanted"]);
    scene.waits = |reply| matches!(reply, StoreReply::Pages { .. });
    local.seeds().into_iter().for_each(|part| scene.say(ANN, part));
    assert!(scene.store.to_string().starts_with("documents 1 "), "{}", scene.store);
    scene.waits = |reply| matches!(reply, StoreReply::AppendFailed { .. });
    scene.device.set_full(true);
    scene.release_one();
    scene.device.set_full(false);
    scene.release();
    assert_eq!(brief(&scene.heard(ANN)), ["seed taken 2", "refused Storage"]);
    // Nobody comes back to hand it over.
    scene.step(RoomInput::Left { conn: ANN });
    assert!(scene.store.to_string().starts_with("documents 0 "), "{}", scene.store);
}

/// What the store would say is durable, one ticket at a time; it is not said.
fn tickets(scene: &mut Scene) -> Vec<Ticket> {
    let held = std::mem::take(&mut scene.held);
    let ticket = |reply| match reply {
        StoreReply::Durable { ticket } => Some(ticket),
        _ => None,
    };
    held.into_iter().filter_map(ticket).collect()
}

#[test]
fn once_somebody_has_written_an_offer_beyond_the_seed_is_another_document() {
    let (mut scene, mut local) = (Scene::new(), Local::new(50));
    local.write(1, "a");
    local.offer(&mut scene, ANN);
    local.seed(&mut scene, ANN);
    scene.open(BOB, None);
    scene.frames(BOB, 1, vec![add("theirs")]);
    scene.heard(ANN);
    let truth = scene.position();
    assert_eq!(brief(&local.offer(&mut scene, ANN))[0], "seeded", "all of it is here");
    local.write(2, "b");
    assert_eq!(brief(&local.offer(&mut scene, ANN)), ["refused Exists"]);
    assert_eq!(scene.position(), truth);
}

/// Goal: nobody but the copy that handed a document over puts something else in its place. Method:
/// another one offers a later state of it, which it made of what whoever follows is told.
#[test]
fn what_was_handed_over_is_gone_on_with_by_its_copy_alone() {
    let (mut scene, mut local) = (Scene::new(), Local::new(50));
    local.write(1, "a");
    local.offer(&mut scene, ANN);
    local.seed(&mut scene, ANN);
    let truth = scene.position();
    local.write(2, "b");
    scene.restart();
    scene.say(
        BOB,
        ToRoom::Open {
            document: "notebook".to_owned(),
            doctype: codec::encode(&notes()).into(),
            timeline: JournalId([9; 16]),
            secret: tidelog_types::CopySecret([7; 16]),
            have: Some(local.0.position()),
            intent: Intent::Offer { lives: local.lives() },
        },
    );
    assert_eq!(brief(&scene.heard(BOB)), ["refused Exists"]);
    assert_eq!(scene.position(), truth);
    assert_eq!(brief(&local.offer(&mut scene, ANN)), ["seed wanted"]);
}

/// Goal: nobody else can have a mutation confirmed that was not run. Method: followers take the
/// life that the server has named to them for the one that writes another's timeline: as the place
/// from which a frame of their own has moved, and as the writer of frames there.
#[test]
fn who_follows_cannot_answer_for_the_frames_of_another() {
    let timeline = JournalId([u8::try_from(ANN.0).expect("few"); 16]);
    let eve = ConnId(3);
    let mut scene = Scene::new();
    scene.open(BOB, None);
    scene.open(ANN, None);
    scene.frames(ANN, 1, vec![add("a")]);
    let open = ToRoom::Open {
        document: "notebook".to_owned(),
        doctype: codec::encode(&notes()).into(),
        timeline,
        secret: tidelog_types::CopySecret::NONE,
        have: None,
        intent: Intent::Follow,
    };
    scene.say(eve, open);
    let said = [scene.heard(BOB), scene.heard(eve)].concat();
    let secret = life_of(ANN).0;
    let mut named = Vec::new();
    for message in said {
        let bytes = codec::encode(&message);
        assert!(!bytes.windows(16).any(|some| some == secret), "it was told to others");
        match message {
            FromRoom::Opened { lives, .. } => named.extend(lives.lives().map(|(life, _)| life)),
            FromRoom::Entry(part) => named.extend(part.origin.map(|origin| origin.life)),
            _ => {}
        }
    }
    named.sort();
    named.dedup();
    let [life] = named[..] else { panic!("{named:?}") };

    let issued = EntryId { journal: timeline, life, lsn: lsn(2) };
    let body = |name: &str, moved_from: Option<EntryId>| {
        let WireFrame { call, body, .. } = add(name);
        let mutation = Mutation::decode(&body).expect("a mutation");
        let body = Mutation { moved_from, ..mutation }.encode();
        WireFrame { call, body, predicted: None }
    };
    scene.frames(BOB, 1, vec![body("theirs", Some(issued))]);
    let heard = scene.frames(ANN, 2, vec![add("b")]);
    assert_eq!(brief(&heard).last().map(String::as_str), Some("acked 3"));
    scene.frames_of(eve, life, 3, vec![add("theirs too")]);
    scene.heard(ANN);
    let heard = scene.frames(ANN, 3, vec![add("c")]);
    assert_eq!(brief(&heard), ["refused Parted"], "ANN goes on in another timeline");
    let place = EntryId { journal: timeline, life: life_of(ANN), lsn: lsn(3) };
    scene.open(ConnId(4), None);
    scene.frames(ConnId(4), 1, vec![body("c", Some(place))]);
    let State::Open(document) = &mut scene.room.state else { panic!("not open") };
    let reader = document.authority.reader();
    let rows = reader.query("select group_concat(id, ', ') from note", &Params::NONE).unwrap();
    let all = "a, b, c, theirs, theirs too";
    assert_eq!(rows.decode(), [[Value::Text(all.to_owned())]], "each was run");
    let pages = scene.export();
    assert!(!pages.values().any(|page| page.bytes().windows(16).any(|some| some == secret)));
}

#[test]
fn a_merged_entry_is_proven_by_its_own_hash() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.frames(ANN, 1, vec![frame(&notes(), "fill", &[]), add("a")]);
    let parts = |heard: &[FromRoom]| {
        let part = |message: &FromRoom| match message {
            FromRoom::Entry(part) => Some(part.clone()),
            _ => None,
        };
        heard.iter().filter_map(part).collect::<Vec<_>>()
    };
    let parts = parts(&scene.open(BOB, None));
    assert!(parts.len() > 1);
    let none = |_| None;
    let take = |parts: &[tidelog_sync::EntryPart]| {
        let mut arriving = ArrivingEntry::default();
        let (last, others) = parts.split_last().expect("some");
        for part in others {
            assert!(arriving.take(part.clone(), none)?.is_none(), "the last part is still to come");
        }
        arriving.take(last.clone(), none)
    };
    let entry = take(&parts).expect("as it was sent").expect("the last part has come");
    assert_eq!(entry.set.pages.len(), scene.position_and_size().1 as usize);
    let mut without_one = parts.clone();
    without_one[0].pages = without_one[0].pages[1..].into();
    assert!(take(&without_one).is_err());
    let repeated: Vec<_> = parts.iter().flat_map(|part| [part.clone(), part.clone()]).collect();
    let mut arriving = ArrivingEntry::default();
    let taken: Vec<_> =
        repeated.into_iter().filter_map(|part| arriving.take(part, none).expect("sent")).collect();
    assert!(taken.len() == 1 && taken[0].set == entry.set, "what comes twice is known");
    let mut without_the_first = parts;
    without_the_first.remove(0);
    assert!(take(&without_the_first).is_err());
}

/// Denies everything that is to be run in a document while it is switched on.
#[derive(Default)]
struct DeniesAll(AtomicBool);

impl Caution for DeniesAll {
    fn run(&self, _: &dyn Fn() -> Suspect, run: &mut dyn FnMut()) -> bool {
        let is_denied = self.0.load(Ordering::Relaxed);
        if !is_denied {
            run();
        }
        !is_denied
    }
}

/// Goal: a mutation that ended the server is not run under another name. Method: two copies of a
/// client move it, each to a timeline of its own, and then it comes as the frame that it was.
#[test]
fn what_ended_the_server_is_rejected_under_all_its_names() {
    let issued = EntryId { journal: JournalId([3; 16]), life: Life([103; 16]), lsn: lsn(1) };
    let moved = |call: WireFrame| {
        let mutation = Mutation::decode(&call.body).expect("a mutation");
        let body = Mutation { moved_from: Some(issued), ..mutation }.encode();
        WireFrame { body, ..call }
    };
    let denies = Arc::new(DeniesAll::default());
    let mut scene = Scene::new();
    scene.room = room(1, &scene.ways).with_caution(Arc::clone(&denies) as Arc<dyn Caution>);
    for conn in [ANN, BOB, ConnId(3)] {
        scene.open(conn, None);
    }
    denies.0.store(true, Ordering::Relaxed);
    scene.frames(ANN, 1, vec![moved(add("a"))]);
    denies.0.store(false, Ordering::Relaxed);
    scene.frames(BOB, 1, vec![moved(add("a"))]);
    scene.frames(ConnId(3), 1, vec![add("a")]);
    assert_eq!(scene.room.counts(), RoomCounts { applied: 0, rejected: 3 });
}

/// Goal: nothing but its verdict is run for a frame that ended the server: what ended it may be the
/// trim. Method: one that ended it says that a rejection was kept, and so does the one behind it.
#[test]
fn what_ended_the_server_is_rejected_without_trimming_rejections() {
    let denies = Arc::new(DeniesAll::default());
    let mut scene = Scene::new();
    scene.room = room(1, &scene.ways).with_caution(Arc::clone(&denies) as Arc<dyn Caution>);
    scene.open(ANN, None);
    scene.frames(ANN, 1, vec![WireFrame { body: vec![], ..add("none") }]);
    let keeping = |id: &str| {
        let call = add(id);
        let mutation = Mutation::decode(&call.body).expect("a mutation");
        let body = Mutation { kept_rejections: lsn(2), ..mutation }.encode();
        WireFrame { body, ..call }
    };
    for (number, is_denied, left) in [(2, true, "1, 2"), (3, false, "2")] {
        denies.0.store(is_denied, Ordering::Relaxed);
        scene.frames(ANN, number, vec![keeping("a")]);
        let State::Open(document) = &mut scene.room.state else { panic!("it is open") };
        let lsns = "select group_concat(lsn, ', ') from _tidelog_rejection";
        let rows = document.authority.reader().query_system(lsns, &[]).unwrap();
        assert_eq!(rows, [[Value::Text(left.to_owned())]]);
    }
}

/// V9. Goal: a doctype that ended the server is not even looked at. Method: one of which a look
/// would say something else, to create a document and beside another one.
#[test]
fn a_doctype_that_ended_the_server_is_not_looked_at() {
    let denies = Arc::new(DeniesAll::default());
    let mut scene = Scene::new();
    scene.room = room(1, &scene.ways).with_caution(Arc::clone(&denies) as Arc<dyn Caution>);
    let broken = doctype(&[notes().migrations[0].as_str(), "this is no SQL"]);
    let try_it = |scene: &mut Scene, is_denied: bool| {
        denies.0.store(is_denied, Ordering::Relaxed);
        let heard = scene.open_as(ANN, &broken, None, Intent::Follow);
        denies.0.store(false, Ordering::Relaxed);
        let [FromRoom::Refused(Refusal::DoctypeInvalid { reason })] = &heard[..] else {
            panic!("{heard:?}")
        };
        assert_eq!(reason.contains("crashed"), is_denied, "{reason}");
    };
    [false, true].into_iter().for_each(|is_denied| try_it(&mut scene, is_denied));
    scene.open(BOB, None);
    [false, true].into_iter().for_each(|is_denied| try_it(&mut scene, is_denied));
}
