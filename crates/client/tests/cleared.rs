//! A site whose data are cleared while they are in use.

use tidelog_client::{
    Call, FromCore, Input, PageServerFailure, PageServerId, Params, Query, Request, Storage,
};
use tidelog_pages::{OpenedDocument, StoreReply, StoreRequest, Ticket, TimelineState};
use tidelog_sync::{Channel, FromRoom, FromServer, ToRoom, ToServer};
use tidelog_testing::client::core::{
    Core, again, answer_reads, is_durable, key, last_read, pages_of, read_anew, stored,
};
use tidelog_testing::client::{HANDLE, SERVER, text};
use tidelog_types::limits::Limits;
use tidelog_types::{
    ErrorCode, JournalId, Life, Lineage, Lsn, LsnRange, Outcome, Position, UnservedKind,
};

/// Goal: nobody waits for a document that nobody can read any more, and all are told what helps.
/// Method: a document is being read anew as another store takes the place of its own; some ask
/// before that, and some only then.
#[test]
fn a_document_that_was_being_read_as_its_data_were_cleared_tells_all_who_ask() {
    let mut core = Core::default();
    core.open_new(Call(1), HANDLE, "list", Some(SERVER));
    let ticket = core.add(Call(2), "bread");
    core.reply(StoreReply::Durable { ticket });
    let mut core = read_anew(core);
    core.clear_storage();
    for call in [Call(2), Call(4), Call(5)] {
        let told = core.failure_of(call).map(|it| (it.code, it.outcome));
        let outcome = if call == Call(2) { Outcome::Unknown } else { Outcome::None };
        assert_eq!(told, Some((ErrorCode::Storage, outcome)), "{call:?}");
    }
    let (sql, params) = ("select count(*) from todo".to_owned(), Params::NONE);
    let query = Query { sql, params };
    core.ask(Call(7), HANDLE, Request::Query(query.clone()));
    core.ask(Call(8), HANDLE, Request::Watch(query));
    core.ask(Call(9), HANDLE, Request::Sync);
    core.add(Call(10), "late");
    for call in (7..=10).map(Call) {
        let failure = core.failure_of(call).expect("it is told at once");
        assert_eq!((failure.code, failure.outcome), (ErrorCode::Storage, Outcome::None));
        assert!(failure.message.contains("cleared"), "{}", failure.message);
    }
    core.ask(Call(11), HANDLE, Request::Close);
    assert!(core.is_done(Call(11)));
}

/// Goal: the last copy of data that were cleared is read, whatever was on its way to the disk.
/// Method: of two mutations the page server never answers the first one, and refuses the second
/// one, after the core has heard of the loss or before that.
#[test]
fn data_that_were_cleared_with_something_on_its_way_are_read() {
    for is_refused_before in [false, true] {
        let mut core = Core::open();
        let state = stored(&core);
        core.add(Call(2), "milk");
        let refused = core.add(Call(3), "bread");
        let opens = core.opens();
        if is_refused_before {
            core.fail(refused);
        }
        let (server, failure) = (PageServerId(1), PageServerFailure::new(UnservedKind::Lost, ""));
        core.step(Input::PageServerFailed { server, failure });
        if is_refused_before {
            assert_eq!(core.opens(), opens + 1, "it waits for what is never answered");
            let (document, life) = (key("list"), Life::NONE);
            let state = Some(Box::new(state));
            core.reply(StoreReply::Opened { document, life, state });
        } else {
            core.fail(refused);
            assert_eq!(core.opens(), opens, "what is shown stays");
        }
        let outcome = |call| core.failure_of(call).map(|failure| failure.outcome);
        let second = if is_refused_before { Outcome::None } else { Outcome::Unknown };
        assert_eq!([Call(2), Call(3)].map(outcome), [Some(Outcome::Unknown), Some(second)]);
        let (sql, params) = ("select count(*) from todo".to_owned(), Params::NONE);
        core.ask(Call(4), HANDLE, Request::Query(Query { sql, params }));
        let has_rows = |core: &Core| {
            let rows = |it: &FromCore| matches!(it, FromCore::Rows { call: Call(4), .. });
            core.told.iter().any(rows)
        };
        assert!(has_rows(&core) || last_read(&core).is_some(), "it waits for nothing");
        assert!(!core.has_failed(Call(4)));
        assert!(is_refused_before || has_rows(&core));
    }
}

/// The timeline of a synced document with all frames that the store was handed, but these.
fn stored_frames(core: &Core, refused: &[Ticket]) -> OpenedDocument {
    let appends = core.asked.iter().filter_map(|request| match request {
        StoreRequest::Append { ticket, append } if !refused.contains(ticket) => Some(append),
        _ => None,
    });
    let record = appends.clone().find_map(|append| append.record.clone());
    let journal = appends.clone().find_map(|append| append.begin_timeline);
    let frames: Vec<_> = appends.flat_map(|append| append.timeline.clone()).collect();
    let head = frames.last().expect("frames").lsn.next();
    OpenedDocument {
        record: record.expect("it has one").into_vec(),
        timeline: Some(TimelineState {
            journal: journal.expect("it has one").0,
            range: LsnRange::new(Lsn::FIRST, head),
            frames,
        }),
        storage: None,
        db_pages: 0,
        calls: Vec::new(),
        first_page: None,
        is_incomplete: false,
    }
}

/// Goal: what was never durable is not sent, nor called durable, also of the last copy of data that
/// were cleared. Method: of three mutations the first is durable, the page server never answers the
/// second one, and refuses the third one, before the core hears of the loss. The copy that it then
/// reads has the second one too.
#[test]
fn of_the_last_copy_of_cleared_data_only_what_is_durable_is_sent() {
    let mut core = Core::default();
    core.open_new(Call(1), HANDLE, "list", Some(SERVER));
    let ticket = core.add(Call(2), "milk");
    core.reply(StoreReply::Durable { ticket });
    core.add(Call(3), "bread");
    let refused = core.add(Call(4), "eggs");
    let state = stored_frames(&core, &[refused]);
    core.fail(refused);
    let (server, failure) = (PageServerId(1), PageServerFailure::new(UnservedKind::Lost, ""));
    core.step(Input::PageServerFailed { server, failure });
    let (document, life) = (key("list"), Life::NONE);
    core.reply(StoreReply::Opened { document, life, state: Some(Box::new(state)) });
    core.ask(Call(9), HANDLE, again(Call(3), "bread"));
    assert!(!is_durable(&core, Call(9)), "it is on no disk");
    assert_eq!(core.failure_of(Call(9)).map(|it| it.outcome), Some(Outcome::Unknown));

    core.pass(1_000);
    core.welcome(SERVER);
    let storage = Position::start_of(JournalId([7; 16]));
    let (from, wanted, lives) = (Lsn::FIRST, Lsn::FIRST, Lineage::default());
    let body = FromRoom::Opened { storage, from, wanted, lives };
    core.hear(SERVER, &FromServer::About { channel: Channel(1), body });
    let sent: usize = core.sent.iter().map(|(_, message)| frames_in(message)).sum();
    assert_eq!(sent, 1);
}

fn frames_in(message: &ToServer) -> usize {
    match message {
        ToServer::About { body: ToRoom::Frames { frames, .. }, .. } => frames.len(),
        _ => 0,
    }
}

/// Goal: memory stays bounded though the data were cleared, and nothing that no disk has leaves it.
/// Method: no page is to stay in memory; a mutation is refused after the core has heard of the
/// loss.
#[test]
fn of_data_that_were_cleared_what_can_be_read_again_leaves_memory() {
    let mut core = Core::with_limits(Limits { pool_pages_max: 0, ..Limits::DEFAULT });
    core.open_new(Call(1), HANDLE, "list", None);
    let kept = pages_of(&core);
    let before = core.last_ticket();
    core.add(Call(2), "milk");
    answer_reads(&mut core, &kept);
    let ticket = core.last_ticket();
    assert!(ticket > before);
    let (server, failure) = (PageServerId(1), PageServerFailure::new(UnservedKind::Lost, ""));
    core.step(Input::PageServerFailed { server, failure });
    core.fail(ticket);
    for call in [Call(3), Call(4)] {
        core.ask(call, HANDLE, Request::Export);
        assert!(answer_reads(&mut core, &kept) > 0, "all is in memory still");
        let is_it =
            |it: &&FromCore| matches!(it, FromCore::Exported { call: of, .. } if *of == call);
        assert!(core.told.iter().any(|it| is_it(&it)));
    }
    let (sql, params) = ("select id from todo".to_owned(), Params::NONE);
    core.ask(Call(5), HANDLE, Request::Query(Query { sql, params }));
    answer_reads(&mut core, &kept);
    let rows = core.told.iter().find_map(|it| match it {
        FromCore::Rows { call: Call(5), rows } => Some(rows.decode()),
        _ => None,
    });
    assert_eq!(rows, Some(vec![vec![text("milk")]]));
}

/// Goal: who waits for pages as the data are cleared gets them, and none that is older than what
/// was issued. Method: a page server that has refused the append, of which the core has not heard,
/// reads nothing of the document before the loss, and what was there before it after.
#[test]
fn what_was_being_read_as_the_data_were_cleared_is_asked_for_again() {
    let mut core = Core::with_limits(Limits { pool_pages_max: 0, ..Limits::DEFAULT });
    core.open_new(Call(1), HANDLE, "list", None);
    let kept = pages_of(&core);
    core.add(Call(2), "milk");
    answer_reads(&mut core, &kept);
    let ticket = core.last_ticket();
    let (sql, params) = ("select id from todo".to_owned(), Params::NONE);
    core.ask(Call(3), HANDLE, Request::Query(Query { sql, params }));
    let (lost, _) = last_read(&core).expect("its pages left memory with the append");
    core.asked.clear();
    let (server, failure) = (PageServerId(1), PageServerFailure::new(UnservedKind::Lost, ""));
    core.step(Input::PageServerFailed { server, failure });
    core.fail(ticket);
    assert_eq!(last_read(&core).map(|(request, _)| request), Some(lost));
    answer_reads(&mut core, &kept);
    let rows = core.told.iter().find_map(|it| match it {
        FromCore::Rows { call: Call(3), rows } => Some(rows.decode()),
        _ => None,
    });
    assert_eq!(rows, Some(vec![vec![text("milk")]]));
}

/// Goal: nobody waits for pages that nobody can read any more. Method: no page is in memory; the
/// page server is replaced by one of another store while a live query and a query wait for some,
/// or before anything is asked.
#[test]
fn pages_of_data_that_were_cleared_are_waited_for_by_nobody() {
    for is_asked_before in [true, false] {
        let mut core = Core::with_limits(Limits { pool_pages_max: 0, ..Limits::DEFAULT });
        core.open_new(Call(1), HANDLE, "list", None);
        let (sql, params) = ("select count(*) from todo".to_owned(), Params::NONE);
        let query = Query { sql, params };
        if !is_asked_before {
            core.clear_storage();
        }
        core.ask(Call(2), HANDLE, Request::Watch(query.clone()));
        core.ask(Call(3), HANDLE, Request::Query(query));
        core.ask(Call(4), HANDLE, Request::Export);
        core.add(Call(5), "late");
        core.ask(Call(6), HANDLE, Request::Close);
        if is_asked_before {
            assert!(last_read(&core).is_some() && !core.has_failed(Call(2)), "its page may come");
            core.clear_storage();
        }
        for call in (2..=5).map(Call) {
            let failure = core.failure_of(call).unwrap_or_else(|| panic!("{call:?} waits"));
            assert_eq!((failure.code, failure.outcome), (ErrorCode::Storage, Outcome::None));
            assert!(failure.message.contains("cleared"), "{}", failure.message);
        }
        assert!(core.is_done(Call(6)));
    }
}

/// Goal: nobody waits for a store that cannot come any more. Method: an append fails, and the page
/// server is gone before the document is read anew; the next one finds the data cleared before it
/// has let the core in.
#[test]
fn data_that_were_cleared_before_a_page_server_let_us_in_are_waited_for_by_nobody() {
    let mut core = Core::open();
    let ticket = core.add(Call(2), "milk");
    core.fail(ticket);
    let server = PageServerId(1);
    core.step(Input::PageServerGone { server });
    core.step(Input::PageServerLent { server, settled_at_ms: 0, storage: Storage::Opfs });
    let failure = PageServerFailure::new(UnservedKind::Lost, "");
    core.step(Input::PageServerFailed { server, failure });
    let (sql, params) = ("select 1".to_owned(), Params::NONE);
    core.ask(Call(3), HANDLE, Request::Query(Query { sql, params }));
    assert_eq!(core.failure_of(Call(3)).map(|it| it.code), Some(ErrorCode::Storage));
}

/// Goal: every call is answered. Method: a document is being destroyed as the page server is gone,
/// or finds that the data were cleared; nobody will ever say that it is done.
#[test]
fn a_destroy_is_answered_though_the_data_were_cleared_meanwhile() {
    for is_served in [false, true] {
        let mut core = Core::open();
        core.ask(Call(2), HANDLE, Request::Close);
        core.destroy(Call(3), "list");
        core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
        core.last_destroy();
        match is_served {
            true => {
                let failure = PageServerFailure::new(UnservedKind::Lost, "");
                core.step(Input::PageServerFailed { server: PageServerId(1), failure });
            }
            false => core.clear_storage(),
        }
        let failure = core.failure_of(Call(3)).expect("it is answered");
        assert_eq!((failure.code, failure.outcome), (ErrorCode::Storage, Outcome::Unknown));
    }
}
