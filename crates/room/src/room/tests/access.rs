//! What clients may do, by what their shell knows of them.

use tidelog_types::{CopySecret, Lineage};

use super::*;

fn open_message(doctype: &Doctype, intent: Intent) -> ToRoom {
    ToRoom::Open {
        document: "notebook".to_owned(),
        doctype: codec::encode(doctype).into(),
        timeline: JournalId([9; 16]),
        secret: CopySecret::NONE,
        have: None,
        intent,
    }
}

impl Scene {
    fn say_as(&mut self, conn: ConnId, message: ToRoom, may: May) -> Vec<String> {
        let speaker = Speaker { may, handles: false, subject: None };
        self.step(RoomInput::Message { conn, channel: CHANNEL, message, speaker });
        brief(&self.heard(conn))
    }
}

#[test]
fn only_one_who_may_begin_a_document_does() {
    for (may, begins) in
        [(May::Follow, false), (May::Send, false), (May::Write, false), (May::Create, true)]
    {
        let mut scene = Scene::new();
        let heard = scene.say_as(ANN, open_message(&notes(), Intent::Follow), may);
        match begins {
            true => assert_eq!(heard[0], "opened 2 wanted 1"),
            false => assert_eq!(heard, ["refused Access"]),
        }
        let is_there = !matches!(scene.ask(Ask::Describe), Answer::Missing);
        assert_eq!(is_there, begins, "{may:?}");
    }
}

#[test]
fn only_one_who_may_begin_a_document_hands_one_over() {
    for is_there in [false, true] {
        for may in [May::Follow, May::Send, May::Write] {
            let mut scene = Scene::new();
            if is_there {
                scene.open(BOB, None);
            }
            let offer = Intent::Offer { lives: Lineage::default() };
            let heard = scene.say_as(ANN, open_message(&notes(), offer), may);
            assert_eq!(heard, ["refused Access"], "{may:?} {is_there}");
        }
    }
}

/// Goal: one who may only follow changes nothing, by a newer release of its app neither. Method: it
/// brings a doctype with one migration more; then somebody who may write does.
#[test]
fn one_who_may_only_follow_migrates_nothing() {
    let mut scene = Scene::new();
    scene.open(BOB, None);
    let before = scene.position();
    let newer = doctype(&[
        "create table note (id text primary key, body text) strict",
        "alter table note add column done integer",
    ]);
    let open = || open_message(&newer, Intent::Follow);
    for may in [May::Follow, May::Send] {
        assert_eq!(scene.say_as(ANN, open(), may)[0], "opened 2 wanted 1", "{may:?}");
    }
    assert_eq!(scene.position(), before);
    assert_eq!(brief(&scene.heard(BOB)), [""; 0]);
    let parting = doctype(&["create table other (id text) strict"]);
    let parting = open_message(&parting, Intent::Follow);
    assert_eq!(scene.say_as(ANN, parting, May::Follow), ["refused DoctypeMismatch"]);
    assert_eq!(scene.say_as(ANN, open(), May::Write)[0], "opened 3 wanted 1");
    assert_ne!(scene.position(), before);
}

#[test]
fn one_who_said_what_it_may_not_say_is_sent_away_once() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.open(BOB, None);
    let refuse = || RoomInput::Refuse {
        conn: ANN,
        channel: CHANNEL,
        refusal: Refusal::Access { reason: "no".to_owned() },
    };
    scene.step(refuse());
    assert_eq!(brief(&scene.heard(ANN)), ["refused Access"]);
    scene.step(refuse());
    assert_eq!(brief(&scene.heard(ANN)), [""; 0], "it has heard it");
    scene.frames(BOB, 1, vec![add("a")]);
    assert_eq!(brief(&scene.heard(ANN)), [""; 0], "it follows no longer");
    assert_eq!(scene.open(ANN, None).len(), 2, "and may come again");
}

/// Goal: what was done before it is told before it. Method: a mutation is on its way to the disk.
#[test]
fn one_who_is_sent_away_hears_first_what_came_of_what_it_said() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.waits = |reply| matches!(reply, StoreReply::Durable { .. });
    assert_eq!(brief(&scene.frames(ANN, 1, vec![add("a")])), [""; 0]);
    let refusal = Refusal::Access { reason: "no".to_owned() };
    scene.step(RoomInput::Refuse { conn: ANN, channel: CHANNEL, refusal });
    assert_eq!(brief(&scene.heard(ANN)), [""; 0]);
    scene.release();
    assert_eq!(brief(&scene.heard(ANN)).last().map(String::as_str), Some("refused Access"));
}

/// Goal: of one who became a reader no frame is run from then on, and it is told which is the first
/// of them; on that channel none is either once it may write again, since by then it has rejected
/// them. Method: a message comes while it may write, the next one after that, and both once more.
#[test]
fn frames_of_one_who_may_only_follow_are_not_run() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.frames(ANN, 1, vec![add("a"), add("b")]);
    let before = scene.position();
    let frames = |first: u64, ids: &[&str]| ToRoom::Frames {
        life: life_of(ANN),
        first: Lsn::new(first).expect("from 1"),
        frames: ids.iter().map(|id| add(id)).collect(),
    };
    let late = || frames(2, &["b", "c"]);
    assert_eq!(scene.say_as(ANN, frames(1, &["a"]), May::Follow), ["acked 2"], "it was run");
    assert_eq!(scene.say_as(ANN, late(), May::Follow), ["forbidden 3"]);
    assert_eq!(scene.say_as(ANN, frames(4, &["d"]), May::Follow), [""; 0], "it knows");
    assert_eq!(scene.say_as(ANN, late(), May::Write), ["acked 3"]);
    assert_eq!(scene.say_as(ANN, frames(3, &["c"]), May::Write), [""; 0]);
    assert_eq!(scene.position(), before, "nothing was written");
    scene.open(ANN, None);
    let heard = scene.say_as(ANN, frames(3, &["c"]), May::Write);
    assert_eq!(heard, ["entry 4..5 of 3", "acked 4"]);
}

/// Goal: what a client was told is not taken is not taken by an older connection of it either, that
/// nobody has noticed dead yet, and by whose token it may write: by then it has rejected it.
/// Method: the frames come on the new one first, in this timeline or in one to which they have
/// moved since; then the same by somebody who knows the timeline alone.
#[test]
fn what_is_forbidden_is_run_on_no_other_connection_of_its_copy() {
    for (is_same_copy, is_moved) in [(true, false), (true, true), (false, false)] {
        let mut scene = Scene::new();
        scene.say_as(ANN, open_message(&notes(), Intent::Follow), May::Create);
        scene.frames(ANN, 1, vec![add("a")]);
        let mut opens = open_message(&notes(), Intent::Follow);
        if let ToRoom::Open { secret, timeline, .. } = &mut opens {
            *timeline = if is_moved { JournalId([8; 16]) } else { *timeline };
            *secret = if is_same_copy { CopySecret::NONE } else { CopySecret([7; 16]) };
        }
        scene.say_as(BOB, opens, May::Follow);
        let frames =
            |lsn| ToRoom::Frames { life: life_of(ANN), first: lsn, frames: vec![add("b")] };
        let first = if is_moved { lsn(1) } else { lsn(2) };
        let heard = scene.say_as(BOB, frames(first), May::Follow);
        assert_eq!(heard, [format!("forbidden {first}")]);
        let before = scene.position();
        let late = scene.say_as(ANN, frames(lsn(2)), May::Write);
        match is_same_copy {
            true => {
                assert_eq!(late, ["refused Parted"]);
                assert_eq!(scene.position(), before, "it is rejected by now");
            }
            false => assert_eq!(late, ["entry 3..4 of 2", "acked 3"], "nobody else stops it"),
        }
    }
}

/// Goal: no reader ends somebody else's export. Method: one says the secret that nobody drew, and a
/// frame that is not taken.
#[test]
fn what_is_forbidden_ends_no_export() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    assert_eq!(scene.ask(Ask::Export { conn: EXPORTER }), Answer::Exporting);
    scene.heard(EXPORTER);
    scene.say_as(BOB, open_message(&notes(), Intent::Follow), May::Follow);
    let frames = ToRoom::Frames { life: life_of(BOB), first: lsn(1), frames: vec![add("a")] };
    assert_eq!(scene.say_as(BOB, frames, May::Follow), ["forbidden 1"]);
    assert_eq!(brief(&scene.heard(EXPORTER)), [""; 0]);
}

/// Goal: who knows all of a client but its secret brings no mutations in its name. Method: it opens
/// by that one's timeline, and writes it by that one's life.
#[test]
fn a_mutation_comes_from_the_copy_that_it_names_alone() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    let before = scene.position();
    let ToRoom::Open { document, doctype, timeline, have, intent, .. } =
        open_message(&notes(), Intent::Follow)
    else {
        unreachable!()
    };
    let secret = CopySecret([7; 16]);
    scene.say(BOB, ToRoom::Open { document, doctype, timeline, secret, have, intent });
    scene.heard(BOB);
    assert_eq!(brief(&scene.frames(BOB, 1, vec![add("a")])), ["refused Access"]);
    assert_eq!(scene.position(), before);
}

/// V7. Goal: nobody writes in the timeline of another client, who would take what is there for its
/// own. Method: one who knows its id brings mutations of its own, by more lives than a timeline
/// remembers, also to a room that begins anew; then the client goes on.
#[test]
fn nobody_writes_in_the_timeline_of_another_client() {
    let mut scene = Scene::new();
    scene.say_as(ANN, open_message(&notes(), Intent::Follow), May::Create);
    scene.frames(ANN, 1, vec![add("a")]);
    let others = CopySecret([7; 16]);
    let before = scene.position();
    for number in 0..40 {
        if number == 20 {
            scene.restart();
        }
        let mut opens = open_message(&notes(), Intent::Follow);
        if let ToRoom::Open { secret, .. } = &mut opens {
            *secret = others;
        }
        scene.say_as(BOB, opens, May::Write);
        let WireFrame { call, body, .. } = add("theirs");
        let mutation = Mutation::decode(&body).expect("a mutation");
        let body = Mutation { client: client_of(others), ..mutation }.encode();
        let frames = vec![WireFrame { call, body, predicted: None }];
        let theirs = ToRoom::Frames { life: Life([200 + number; 16]), first: lsn(2), frames };
        assert_eq!(scene.say_as(BOB, theirs, May::Write), ["refused Access"]);
    }
    assert_eq!(scene.position(), before);
    scene.say_as(ANN, open_message(&notes(), Intent::Follow), May::Write);
    let heard = scene.frames(ANN, 2, vec![add("b")]);
    assert_eq!(brief(&heard), ["entry 3..4 of 2", "acked 3"]);
}

/// The same of the user that a mutation names.
#[test]
fn a_mutation_comes_by_a_token_of_the_user_that_it_names_alone() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    let before = scene.position();
    let mut say_of = |subject: Option<&str>| {
        let frames = vec![add("a")];
        let message = ToRoom::Frames { life: life_of(ANN), first: Lsn::FIRST, frames };
        let speaker = Speaker { may: May::Write, handles: false, subject: subject.map(Arc::from) };
        scene.step(RoomInput::Message { conn: ANN, channel: CHANNEL, message, speaker });
        (brief(&scene.heard(ANN)), scene.position())
    };
    // It is nobody's.
    assert_eq!(say_of(Some("ada")), (vec!["refused Access".to_owned()], before));
    scene.open(ANN, None);
    let heard = scene.frames(ANN, 1, vec![add("a")]);
    assert_eq!(brief(&heard), ["entry 2..3 of 1", "acked 2"], "nothing was wrong with it");
}
