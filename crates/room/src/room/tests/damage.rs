//! Pages that rotted in the store, and who is concerned.

use tidelog_sync::UndecidedReason;
use tidelog_types::PageSet;

use super::*;

impl Scene {
    /// Gives a held reply to the room as if these of its pages had been found damaged.
    pub(super) fn find_damaged(&mut self, is_damaged: impl Fn(Pgid) -> bool) {
        let reply = self.held.pop_front().expect("one is held");
        let (StoreReply::Pages { request, document, pages, last: true }
        | StoreReply::SyncPart { request, document, pages, last: true, .. }) = reply
        else {
            panic!("all of a read: {reply:?}")
        };
        let (damaged, intact): (Vec<_>, Vec<_>) =
            pages.into_iter().partition(|(pgid, _)| is_damaged(*pgid));
        let pgids = damaged.into_iter().map(|(pgid, _)| pgid).collect();
        self.waits = |_| false;
        let pages =
            StoreReply::Pages { request, document: document.clone(), pages: intact, last: false };
        self.step(RoomInput::Store(pages));
        self.step(RoomInput::Store(StoreReply::Damaged { request, document, pgids }));
    }

    /// With two clients that are up to date, the room's memory empty, and its store's replies to
    /// reads held back.
    fn with_pages_to_read() -> (Self, Position) {
        let mut scene = Self::new();
        scene.open(ANN, None);
        scene.frames(ANN, 1, vec![frame(&notes(), "fill", &[]), add("a")]);
        let have = scene.position();
        scene.restart();
        scene.waits = |reply| matches!(reply, StoreReply::Pages { .. });
        (scene, have)
    }
}

#[test]
fn one_who_lags_is_told_of_a_damaged_page_and_nobody_else() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.waits = |reply| matches!(reply, StoreReply::SyncPart { .. });
    assert_eq!(brief(&scene.open(BOB, None)), ["opened 2 wanted 1"]);
    scene.find_damaged(|pgid| pgid == Pgid(2));
    assert_eq!(brief(&scene.heard(BOB)), ["refused Damaged"]);
    assert_eq!(scene.ways.of(BOB, |way| way.reserved), 0, "all that was reserved was given back");
    assert_eq!(brief(&scene.frames(ANN, 1, vec![add("a")])), ["entry 2..3 of 1", "acked 2"]);
}

#[test]
fn nothing_is_remembered_of_a_read_for_one_who_left() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    scene.waits = |reply| matches!(reply, StoreReply::SyncPart { .. });
    scene.open(BOB, None);
    assert_eq!(scene.room.reads.len(), 1);
    scene.step(RoomInput::Left { conn: BOB });
    assert!(scene.room.reads.is_empty());
    scene.release();
    assert_eq!(brief(&scene.frames(ANN, 1, vec![add("a")])), ["entry 2..3 of 1", "acked 2"]);
}

#[test]
fn a_run_that_needs_a_damaged_page_is_refused_and_others_go_on() {
    let (mut scene, have) = Scene::with_pages_to_read();
    assert!(scene.open(ANN, Some(have)).is_empty(), "pages are read");
    let needed = scene.room.fetch.as_ref().expect("a fault").needed;
    scene.find_damaged(|pgid| pgid == needed);
    assert_eq!(brief(&scene.heard(ANN)), ["refused Damaged"]);
    assert_eq!(brief(&scene.open(BOB, Some(have))), ["opened 4 wanted 1"], "nobody was sent away");
}

/// Goal: a channel is refused once: its next refusal would be of what was opened there since.
/// Method: both what a client lacks and what its frames need are damaged.
#[test]
fn who_was_refused_is_not_refused_again_for_frames_that_waited() {
    let (mut scene, have) = Scene::with_pages_to_read();
    scene.waits = |_| false;
    scene.open(BOB, Some(have));
    scene.waits = |_| true;
    scene.open(ANN, None);
    scene.frames(ANN, 3, vec![add("b")]);
    let pgids = vec![scene.room.fetch.as_ref().expect("a fault").needed];
    for reply in scene.held.drain(..).collect::<Vec<_>>() {
        let (StoreReply::Pages { request, document, .. }
        | StoreReply::SyncPart { request, document, .. }) = reply
        else {
            panic!("of a read: {reply:?}")
        };
        let pgids = pgids.clone();
        scene.step(RoomInput::Store(StoreReply::Damaged { request, document, pgids }));
    }
    assert_eq!(brief(&scene.heard(ANN)), ["refused Damaged"]);
}

#[test]
fn a_damaged_page_beside_the_one_that_is_needed_concerns_nobody() {
    let (mut scene, have) = Scene::with_pages_to_read();
    scene.waits = |reply| matches!(reply, StoreReply::Pages { pages, .. } if pages.len() > 1);
    scene.open(ANN, Some(have));
    scene.frames(ANN, 3, vec![add("b")]);
    let needed = scene.room.fetch.as_ref().expect("a fault").needed;
    scene.find_damaged(|pgid| pgid != needed);
    let heard = brief(&scene.heard(ANN));
    assert_eq!(heard.last().map(String::as_str), Some("acked 4"), "{heard:?}");
}

#[test]
fn an_export_that_lacks_a_page_fails_alone() {
    let (mut scene, have) = Scene::with_pages_to_read();
    scene.waits = |_| false;
    scene.open(ANN, Some(have));
    scene.waits = |reply| matches!(reply, StoreReply::SyncPart { .. });
    scene.step(RoomInput::Ask { request: 1, ask: Ask::Export { conn: EXPORTER } });
    let Some(StoreReply::SyncPart { request, document, .. }) = scene.held.pop_front() else {
        panic!("the store was asked")
    };
    scene.held.clear();
    let damaged = StoreReply::Damaged { request, document, pgids: vec![Pgid(1)] };
    scene.step(RoomInput::Store(damaged));
    let heard = scene.heard(EXPORTER);
    assert_eq!(brief(&heard).last().map(String::as_str), Some("refused Damaged"));
    assert!(scene.heard(ANN).iter().all(|said| !matches!(said, FromRoom::Refused(_))));
}

/// Goal: nobody looks for something to delete where the document is at fault. Method: the system
/// tables are zeros in the room's memory.
#[test]
fn a_verdict_that_cannot_be_written_is_not_taken_for_a_lack_of_room() {
    let mut scene = Scene::new();
    scene.open(ANN, None);
    let State::Open(document) = &mut scene.room.state else { panic!("open") };
    let db_pages = document.authority.view().base_db_pages();
    let pages = (2..=db_pages).map(|number| (Pgid(number), Page::zeroed())).collect();
    document.authority.view().advance_base(&PageSet { db_pages, pages });
    document.authority.rest();
    let heard = scene.frames(ANN, 1, vec![add("a")]);
    let [FromRoom::Undecided { why, .. }, FromRoom::Acked { next }] = &heard[..] else {
        panic!("{heard:?}")
    };
    assert!(matches!(why, UndecidedReason::VerdictFailed { .. }), "{why:?}");
    assert_eq!(*next, Lsn::FIRST);
}
