//! What a document is after its appends, at the next opening and after a change-over.

use std::collections::BTreeMap;

use tidelog_pages::{Append, RequestId, StoreReply, StoreRequest, Ticket, Urgency};
use tidelog_testing::Rng;
use tidelog_testing::store::make::{
    STORAGE, TIMELINE, durable, entry_of_own_life as entry, frame, key, lsn, page, storage,
    timeline,
};
use tidelog_testing::store::{
    OWNER, append, ask, change_over, changes, new, open, open_document, read, settle,
};
use tidelog_types::limits::EXTENT_PAGES;
use tidelog_types::{CallId, JournalId, Life, Lsn, Page, Pgid, Position};

#[test]
fn a_document_comes_back_as_it_was_appended() {
    let (device, mut server) = new();
    assert_eq!(open_document(&mut server, &device, &key("a")), None);
    let mut first = timeline("a", 1..5);
    first.record = Some(b"notes".to_vec().into());
    first.trim_timeline = Some(lsn(3));
    first.begin_storage = Some(STORAGE);
    first.storage = vec![entry(1, 2, 3, &[(1, 11), (3, 33)]), entry(2, 8, 3, &[(3, 44)])];
    assert_eq!(append(&mut server, &device, 1, first), [durable(1)]);
    for _ in 0..3 {
        let opened = open_document(&mut server, &device, &key("a")).expect("it is there");
        assert_eq!(opened.record, b"notes");
        let state = opened.timeline.expect("it was begun");
        assert_eq!((state.journal, state.range.to_string()), (TIMELINE, "3..5".to_owned()));
        assert_eq!(state.frames, [frame(3), frame(4)]);
        assert_eq!(opened.storage.map(|position| position.next), Some(lsn(8)));
        assert_eq!((opened.db_pages, opened.first_page), (3, Some(page(11))));
        let calls = [(CallId([1; 16]), lsn(1)), (CallId([2; 16]), lsn(2))];
        assert_eq!(opened.calls, [calls, calls].concat(), "trimmed ones, and storage entries");
        let pages = read(&mut server, &device, "a", &[1, 2, 3, 4]);
        assert_eq!(pages, [(Pgid(1), page(11)), (Pgid(3), page(44))]);
        drop(server);
        server = open(&device);
        change_over(&mut server, &device, 1);
    }
}

#[test]
fn an_entry_larger_than_a_frame_is_one_entry() {
    let (device, mut server) = new();
    let mut rng = Rng::new(5);
    let count = 700;
    let pages: BTreeMap<Pgid, Page> = (1..=count).map(|pgid| (Pgid(pgid), rng.page())).collect();
    let mut large = entry(1, 2, count, &[]);
    large.set.pages = pages.clone();
    append(&mut server, &device, 1, storage("a", [large]));
    for _ in 0..2 {
        assert_eq!(changes(&mut server, &device, &key("a"), Lsn::FIRST).pages, pages);
        drop(server);
        server = open(&device);
        change_over(&mut server, &device, 1);
    }
}

#[test]
fn calls_are_remembered_across_a_change_over() {
    let (device, mut server) = new();
    append(&mut server, &device, 1, storage("a", [entry(1, 2, 1, &[(1, 1)])]));
    change_over(&mut server, &device, 3);
    drop(server);
    let opened = open_document(&mut open(&device), &device, &key("a")).expect("it is there");
    assert_eq!(opened.calls, [(CallId([1; 16]), lsn(1))]);
}

#[test]
fn a_document_of_which_pages_are_absent_is_like_any_other() {
    let (device, mut server) = new();
    // Of nine pages two are here, and later one more.
    append(&mut server, &device, 1, storage("a", [entry(1, 5, 9, &[(2, 2), (7, 7)])]));
    append(&mut server, &device, 2, storage("a", [entry(5, 6, 9, &[(4, 4)])]));
    for _ in 0..3 {
        let opened = open_document(&mut server, &device, &key("a")).expect("it is there");
        assert_eq!((opened.db_pages, opened.first_page, opened.is_incomplete), (9, None, false));
        let (urgency, document) = (Urgency::User, key("a"));
        let pgids = (1..=10).map(Pgid).collect();
        let read = StoreRequest::Read { request: RequestId(1), urgency, document, pgids };
        let replies = ask(&mut server, &device, read);
        let [StoreReply::Pages { pages, last: true, .. }] = replies.as_slice() else {
            panic!("{replies:?}")
        };
        let here = [(Pgid(2), page(2)), (Pgid(4), page(4)), (Pgid(7), page(7))];
        assert_eq!(pages.as_slice(), here, "an absent page is not listed");
        let lacks = changes(&mut server, &device, &key("a"), lsn(5));
        assert_eq!(lacks.pages.into_keys().collect::<Vec<_>>(), [Pgid(4)]);
        change_over(&mut server, &device, 1);
        drop(server);
        server = open(&device);
    }
    append(&mut server, &device, 90, storage("a", [entry(6, 7, 9, &[(1, 1)])]));
    let opened = open_document(&mut server, &device, &key("a")).expect("it is there");
    assert_eq!(opened.first_page, Some(page(1)), "it was fetched");
}

/// Goal: a document that its server has lost a part of is replaced on the disk too, though the
/// journal keeps its id. Method: a journal of three entries begins anew with another, shorter one,
/// which is handed over again, as it is and after a change-over. It begins as the old one does.
#[test]
fn a_storage_journal_can_begin_anew_under_its_id() {
    let (device, mut server) = new();
    let old = [entry(1, 4, 3, &[(1, 1), (2, 2), (3, 3)]), entry(4, 7, 3, &[(2, 4)])];
    append(&mut server, &device, 1, storage("a", old));
    let mut anew =
        storage("a", [entry(1, 4, 3, &[(1, 1), (2, 2), (3, 3)]), entry(4, 5, 2, &[(2, 6)])]);
    anew.storage[1].position.life = Life([9; 16]);
    anew.is_anew = true;
    for ticket in 2..4 {
        assert_eq!(append(&mut server, &device, ticket, anew.clone()), [durable(ticket)]);
        let opened = open_document(&mut server, &device, &key("a")).expect("it is there");
        assert_eq!(opened.storage, Some(anew.storage[1].position));
        let pages = read(&mut server, &device, "a", &[1, 2, 3]);
        assert_eq!(pages, [(Pgid(1), page(1)), (Pgid(2), page(6))]);
    }
    change_over(&mut server, &device, 1);
    drop(server);
    let mut server = open(&device);
    let opened = open_document(&mut server, &device, &key("a")).expect("it is there");
    assert_eq!(opened.storage, Some(anew.storage[1].position));
    assert_eq!(append(&mut server, &device, 4, anew), [durable(4)]);
}

#[test]
fn a_begun_storage_journal_forgets_the_pages_of_the_one_before() {
    let (device, mut server) = new();
    append(&mut server, &device, 1, storage("a", [entry(1, 2, 2, &[(1, 1), (2, 2)])]));
    change_over(&mut server, &device, 1);
    let mut again = Append::to(key("a"));
    again.begin_storage = Some(JournalId([3; 16]));
    append(&mut server, &device, 2, again);
    let opened = open_document(&mut server, &device, &key("a")).expect("it is there");
    assert_eq!(opened.storage, Some(Position::start_of(JournalId([3; 16]))));
    assert_eq!((opened.db_pages, opened.first_page), (0, None));
    assert_eq!(read(&mut server, &device, "a", &[1, 2]), []);
}

#[test]
fn the_extents_of_a_destroyed_document_are_used_again() {
    let (device, mut server) = new();
    let count = EXTENT_PAGES;
    let mut sizes = Vec::new();
    for round in 0..6_u8 {
        let all: Vec<(u32, u8)> = (1..=count).map(|pgid| (pgid, round)).collect();
        let ticket = u64::from(round) * 10 + 1;
        append(&mut server, &device, ticket, storage("a", [entry(1, 2, count, &all)]));
        change_over(&mut server, &device, 1);
        assert_eq!(read(&mut server, &device, "a", &[count]), [(Pgid(count), page(round))]);
        let destroy = StoreRequest::Destroy { ticket: Ticket(ticket + 1), document: key("a") };
        server.serve(OWNER, destroy);
        server.flush();
        assert_eq!(settle(&mut server, &device), [durable(ticket + 1)]);
        assert_eq!(open_document(&mut server, &device, &key("a")), None);
        change_over(&mut server, &device, 1);
        sizes.push(device.bytes_of("pages").expect("a file").len());
    }
    assert!(sizes.iter().all(|size| *size == sizes[0]), "the page file grew: {sizes:?}");
}
