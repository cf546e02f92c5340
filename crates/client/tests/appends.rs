//! What follows when appends fail.

use std::panic::{AssertUnwindSafe, catch_unwind};

use std::collections::BTreeMap;

use tidelog_client::{
    Again, Call, FromCore, Handle, Input, Mutate, OpenRequest, PageServerFailure, PageServerId,
    Params, Query, Request, Storage, ToCore,
};
use tidelog_pages::{AppendError, OpenedDocument, StoreReply, StoreRequest, Ticket, TimelineState};
use tidelog_sync::{Channel, FromRoom, FromServer, Refusal, ToRoom, ToServer};
use tidelog_testing::client::core::{Core, key};
use tidelog_testing::client::{HANDLE, OTHER_TAB, SERVER, TAB, call_id, text, todos};
use tidelog_types::limits::Limits;
use tidelog_types::{
    BudgetLimits, Epoch, ErrorCode, JournalId, Life, Lineage, Lsn, LsnRange, Outcome, Page, Pgid,
    Position, UnservedKind,
};

/// Goal: what a caller was told left nothing behind can never become durable. Method: of two
/// appends in flight the younger is refused first, since the page server has yet to find out that
/// there is no room for the older one. Until both are answered the document is not opened again,
/// so the page server takes in nothing that builds on what is gone.
#[test]
fn a_younger_failure_does_not_overtake_an_older_one() {
    let mut core = Core::open();
    let older = core.add(Call(2), "milk");
    let younger = core.add(Call(3), "bread");
    core.fail(younger);
    assert!(core.has_failed(Call(3)));
    assert!(!core.has_failed(Call(2)), "nothing is known of it yet");
    assert_eq!(core.opens(), 1, "it may yet be durable, or fail");
    core.fail(older);
    assert!(core.has_failed(Call(2)));
    assert_eq!(core.opens(), 2, "now what the store has is all there is");
}

#[test]
fn what_is_older_than_a_failure_is_durable_before_the_document_is_read_again() {
    let mut core = Core::open();
    let older = core.add(Call(2), "milk");
    let younger = core.add(Call(3), "bread");
    core.fail(younger);
    assert_eq!(core.opens(), 1);
    core.reply(StoreReply::Durable { ticket: older });
    assert!(core.told.iter().any(|it| matches!(it, FromCore::Durable { call: Call(2), .. })));
    assert_eq!(core.opens(), 2);
}

/// A core with two todos on their way to the disk, in an append each. A tab asks again for the
/// first, as call 9.
fn asked_again_for_the_older() -> (Core, [Ticket; 2]) {
    let mut core = Core::open();
    let tickets = [core.add(Call(2), "milk"), core.add(Call(3), "bread")];
    core.ask(Call(9), HANDLE, again(Call(2), "milk"));
    (core, tickets)
}

fn again(call: Call, title: &str) -> Request {
    let again = Some(Again { durable: None, copy: None, since: [None; 2] });
    let args = ["id", "title"].map(|name| (name.to_owned(), text(title))).to_vec();
    let (id, name) = (call_id(call), "add".to_owned());
    Request::Mutate(Mutate { id, name, args, now_ms: 1_000, again })
}

fn is_durable(core: &Core, of: Call) -> bool {
    core.told.iter().any(|it| matches!(it, FromCore::Durable { call, .. } if *call == of))
}

/// The store says where the document stands, after the first `count` entries that it was handed.
fn read_up_to(core: &mut Core, count: usize) {
    let state = Some(Box::new(stored_up_to(core, count)));
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state });
    while let Some((request, pgids)) = last_read(core) {
        core.asked.retain(|it| !matches!(it, StoreRequest::Read { .. }));
        let all = pages_up_to(core, count);
        let pages = pgids.into_iter().map(|pgid| (pgid, all[&pgid].clone())).collect();
        core.reply(StoreReply::Pages { request, document: key("list"), pages, last: true });
    }
}

/// Goal: nobody is told of what is on the disk that nothing was recorded. Method: a tab asks on
/// another port for a mutation that an append carries, while a younger append is in flight, which
/// fails; the older one fails as well, or does not.
#[test]
fn who_asks_again_does_not_hear_of_an_append_that_does_not_carry_it() {
    for is_recorded in [true, false] {
        let (mut core, [older, younger]) = asked_again_for_the_older();
        core.fail(younger);
        assert!(core.has_failed(Call(3)));
        if is_recorded {
            core.reply(StoreReply::Durable { ticket: older });
        } else {
            core.fail(older);
        }
        assert!(!core.has_failed(Call(9)), "its own append is not that one");
        read_up_to(&mut core, if is_recorded { 2 } else { 1 });
        if !is_recorded {
            assert!(!is_durable(&core, Call(9)), "it is recorded anew");
            core.reply(StoreReply::Durable { ticket: core.last_ticket() });
        }
        assert!(is_durable(&core, Call(9)));
    }
}

/// Goal: an append that fails is told to whoever hands the document over, and to nobody else; what
/// is looked for again comes before all that was asked since. Method: a tab has asked again for a
/// mutation; behind that the document is offered, and a query waits until that is over.
#[test]
fn what_is_looked_for_again_comes_before_what_was_asked_since() {
    let (mut core, [older, younger]) = asked_again_for_the_older();
    core.ask_to_open(TAB, Call(10), Handle(2), "list", Some(SERVER));
    let sql = "select group_concat(id) from todo".to_owned();
    core.ask(Call(11), HANDLE, Request::Query(Query { sql, params: Params::NONE }));
    core.fail(younger);
    assert!(core.has_failed(Call(10)));
    core.fail(older);
    assert!(!core.has_failed(Call(9)));
    read_up_to(&mut core, 1);
    let rows = core.told.iter().find_map(|it| match it {
        FromCore::Rows { call: Call(11), rows } => Some(rows.decode()),
        _ => None,
    });
    assert_eq!(rows, Some(vec![vec![text("milk")]]));
}

/// Goal: a sync of what is on the disk does not fail for what is not. Method: behind the mutation
/// that is asked for again, its tab waits until all is on the disk; the younger append fails.
#[test]
fn a_sync_waits_for_what_is_looked_for_again() {
    let (mut core, [older, younger]) = asked_again_for_the_older();
    core.ask(Call(10), HANDLE, Request::Sync);
    core.fail(younger);
    core.reply(StoreReply::Durable { ticket: older });
    assert!(!core.has_failed(Call(10)) && !core.is_done(Call(10)));
    read_up_to(&mut core, 2);
    assert!(is_durable(&core, Call(9)));
    assert!(core.is_done(Call(10)));
}

/// Goal: nothing is looked for that nobody waits for. Method: the tab that has asked again is gone
/// as both appends fail; another one holds the document.
#[test]
fn nobody_looks_for_what_a_tab_that_is_gone_has_asked_again() {
    let (mut core, [older, younger]) = asked_again_for_the_older();
    core.ask_to_open(OTHER_TAB, Call(1), HANDLE, "list", None);
    core.step(Input::TabClosed { tab: TAB });
    core.fail(younger);
    core.fail(older);
    assert_eq!(core.doubt(), None);
}

/// Goal: no outcome is told that nobody knows. Method: a tab asks a new core for two mutations, one
/// of which the core before was handed as well; the store cannot be opened to look for it.
#[test]
fn what_another_core_was_handed_may_be_recorded_when_it_cannot_be_looked_for() {
    let mut core = Core::default();
    core.ask_to_open(TAB, Call(1), HANDLE, "list", None);
    for (call, again) in
        [(Call(2), Some(Again { durable: None, copy: None, since: [None; 2] })), (Call(3), None)]
    {
        let (id, name, args) = (call_id(call), "add".to_owned(), Vec::new());
        core.ask(call, HANDLE, Request::Mutate(Mutate { id, name, args, now_ms: 1_000, again }));
    }
    core.lose_storage();
    let outcome = |call| core.failure_of(call).expect("it failed").outcome;
    assert_eq!(outcome(Call(2)), Outcome::Unknown);
    assert_eq!(outcome(Call(3)), Outcome::None);
}

/// A core with a live query of `list`, call 4, and a call that waits until that is in step, call 5.
/// An append of it has just failed, and the store is asked where it stands.
fn read_anew(mut core: Core) -> Core {
    let (sql, params) = ("select count(*) from todo".to_owned(), Params::NONE);
    core.ask(Call(4), HANDLE, Request::Watch(Query { sql, params }));
    core.ask(Call(5), HANDLE, Request::Sync);
    let ticket = core.add(Call(6), "milk");
    core.fail(ticket);
    assert!(core.has_failed(Call(6)));
    core
}

/// Goal: whoever waits for a document that there is no longer is told, whatever else there is room
/// for. Method: another document is written between the failure and what the store says.
#[test]
fn a_document_that_is_gone_is_told_though_another_one_is_written_meanwhile() {
    let mut core = Core::default();
    core.open_new(Call(1), Handle(2), "other", None);
    core.ask_to_open(TAB, Call(2), HANDLE, "list", Some(SERVER));
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
    let began = core.last_ticket();
    let mut core = read_anew(core);
    core.fail(began);
    let ticket = core.add_to(Handle(2), Call(7), "bread");
    core.reply(StoreReply::Durable { ticket });
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
    for call in [Call(4), Call(5)] {
        let code = core.failure_of(call).map(|it| it.code);
        assert_eq!(code, Some(ErrorCode::StorageFull), "{call:?}");
    }
}

/// Goal: a document that cannot be kept is not made again and again for those who wait until its
/// layers are built. Method: they are built piece by piece, and the store refuses it in between.
#[test]
fn a_document_that_cannot_be_kept_is_made_for_a_query_all_the_same() {
    let slice = BudgetLimits { pages: 1, steps: 1, bytes: 1 };
    let mut core = Core::with_limits(Limits { slice, ..Limits::DEFAULT });
    core.ask_to_open(TAB, Call(1), HANDLE, "list", Some(SERVER));
    let (sql, params) = ("select count(*) from todo".to_owned(), Params::NONE);
    core.ask(Call(2), HANDLE, Request::Query(Query { sql, params }));
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
    let appends = |core: &Core| {
        core.asked.iter().filter(|it| matches!(it, StoreRequest::Append { .. })).count()
    };
    let (mut opens, mut answered) = (1, 0);
    for _ in 0..20 {
        core.pass(1);
        if appends(&core) > answered {
            answered = appends(&core);
            core.fail(core.last_ticket());
        }
        if core.opens() > opens {
            opens = core.opens();
            core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
        }
    }
    assert!(core.told.iter().any(|it| matches!(it, FromCore::Rows { call: Call(2), .. })));
    assert_eq!(appends(&core), 1, "the next one is a second later");
}

/// Goal: whoever waits for a document is told, where the document cannot be read any more.
#[test]
fn a_document_that_is_found_damaged_as_it_is_read_anew_is_told() {
    let mut core = Core::default();
    core.open_new(Call(1), HANDLE, "list", Some(SERVER));
    let mut core = read_anew(core);
    core.reply(StoreReply::Damaged { request: 0, document: key("list"), pgids: Vec::new() });
    for call in [Call(4), Call(5)] {
        assert_eq!(core.failure_of(call).map(|it| it.code), Some(ErrorCode::Storage), "{call:?}");
    }
}

/// Goal: nobody waits for a verdict that cannot be read any more, and none is told that nothing
/// came of what may have been applied. Method: of two mutations one is durable as the other fails,
/// and the document is found to be damaged.
#[test]
fn who_waits_for_a_verdict_of_a_damaged_document_is_told_that_nobody_knows_it() {
    let mut core = Core::default();
    core.open_new(Call(1), HANDLE, "list", Some(SERVER));
    let ticket = core.add(Call(2), "milk");
    core.reply(StoreReply::Durable { ticket });
    let ticket = core.add(Call(3), "bread");
    core.fail(ticket);
    core.reply(StoreReply::Damaged { request: 0, document: key("list"), pgids: Vec::new() });
    let failure = core.failure_of(Call(2)).expect("it was told");
    assert_eq!((failure.code, failure.outcome), (ErrorCode::Storage, Outcome::Unknown));
    assert_eq!(core.failure_of(Call(3)).map(|it| it.outcome), Some(Outcome::None));
}

/// Goal: what is closed is held by nobody, whatever has become of it. Method: it is closed while
/// no page server can say where it stands, and once it is known to be damaged.
#[test]
fn a_document_that_cannot_be_read_can_be_closed() {
    for asks_first in [true, false] {
        let mut core = Core::default();
        core.open_new(Call(1), HANDLE, "list", None);
        let ticket = core.add(Call(2), "milk");
        core.fail(ticket);
        if !asks_first {
            core.lose_storage();
        }
        core.ask(Call(3), HANDLE, Request::Close);
        if asks_first {
            core.lose_storage();
        }
        assert!(core.is_done(Call(3)), "{:?}", core.failure_of(Call(3)));
    }

    let mut core = Core::default();
    core.open_new(Call(1), HANDLE, "list", None);
    let ticket = core.add(Call(2), "milk");
    core.fail(ticket);
    let damaged = || StoreReply::Damaged { request: 0, document: key("list"), pgids: Vec::new() };
    core.reply(damaged());
    core.ask(Call(3), HANDLE, Request::Close);
    assert!(core.is_done(Call(3)), "{:?}", core.failure_of(Call(3)));
    core.destroy(Call(4), "list");
    core.reply(damaged());
    core.reply(StoreReply::Durable { ticket: core.last_destroy() });
    assert!(core.is_done(Call(4)));
}

/// Goal: nobody waits for a document that cannot be read, as long as it is known that no page
/// server can start, and who closes it waits for none of them. Method: it is to be read anew as
/// the files cannot be opened; then everything is asked of it, and a page server comes at last.
#[test]
fn what_is_asked_of_a_document_that_no_page_server_can_read_is_answered_at_once() {
    let mut core = Core::default();
    core.open_new(Call(1), HANDLE, "list", Some(SERVER));
    let ticket = core.add(Call(2), "milk");
    core.fail(ticket);
    core.lose_storage();
    let (sql, params) = ("select count(*) from todo".to_owned(), Params::NONE);
    let query = Query { sql, params };
    core.ask(Call(3), HANDLE, Request::Query(query.clone()));
    core.ask(Call(4), HANDLE, Request::Watch(query));
    core.ask(Call(5), HANDLE, Request::Sync);
    core.add(Call(6), "late");
    for call in (3..=6).map(Call) {
        let told = core.failure_of(call).map(|it| (it.code, it.outcome));
        assert_eq!(told, Some((ErrorCode::Storage, Outcome::None)), "{call:?}");
    }
    core.ask(Call(7), HANDLE, Request::Close);
    assert!(core.is_done(Call(7)));
}

/// Goal: nobody waits for a page that somebody needed who is gone. Method: a tab that opens the
/// document is closed before its page has come, and so is a live query; then the document is
/// closed.
#[test]
fn nobody_waits_for_a_page_that_is_not_needed_any_more() {
    for closes_tab in [true, false] {
        let mut core = Core::with_limits(Limits { pool_pages_max: 0, ..Limits::DEFAULT });
        core.open_new(Call(1), HANDLE, "list", None);
        if closes_tab {
            core.ask_to_open(OTHER_TAB, Call(2), HANDLE, "list", None);
        } else {
            let (sql, params) = ("select count(*) from todo".to_owned(), Params::NONE);
            core.ask(Call(2), HANDLE, Request::Watch(Query { sql, params }));
        }
        last_read(&core).expect("no page is in memory");
        core.ask(Call(3), HANDLE, Request::Close);
        assert!(!core.is_done(Call(3)), "it has its turn");
        if closes_tab {
            core.step(Input::TabClosed { tab: OTHER_TAB });
        } else {
            core.say(ToCore::Unwatch { call: Call(2) });
        }
        assert!(core.is_done(Call(3)));
    }
}

/// Goal: nobody is told that nothing was recorded of what may be among what is lost. Method: a tab
/// asks a new core again for a mutation that the store does not have; its document is damaged.
#[test]
fn a_call_that_is_not_found_in_a_damaged_document_may_be_recorded() {
    for is_incomplete in [true, false] {
        let before = Core::open();
        let (mut core, pages) = (Core::default(), pages_of(&before));
        core.ask_to_open(TAB, Call(1), HANDLE, "list", None);
        let state = Some(Box::new(OpenedDocument { is_incomplete, ..stored(&before) }));
        core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state });
        core.ask(Call(2), HANDLE, again(Call(2), "milk"));
        while let Some((request, pgids)) = last_read(&core) {
            core.asked.retain(|it| !matches!(it, StoreRequest::Read { .. }));
            let pages = pgids.into_iter().map(|pgid| (pgid, pages[&pgid].clone())).collect();
            core.reply(StoreReply::Pages { request, document: key("list"), pages, last: true });
        }
        let outcome = core.failure_of(Call(2)).map(|failure| failure.outcome);
        assert_eq!(outcome, is_incomplete.then_some(Outcome::Unknown));
    }
}

#[test]
fn a_call_that_was_looked_for_and_not_found_fails_like_any_other() {
    let mut core = Core::open();
    let (id, name, args) = (call_id(Call(2)), "no such mutation".to_owned(), Vec::new());
    let again = Mutate {
        id,
        name,
        args,
        now_ms: 1_000,
        again: Some(Again { durable: None, copy: None, since: [None; 2] }),
    };
    core.ask(Call(2), HANDLE, Request::Mutate(again));
    assert_eq!(core.failure_of(Call(2)).expect("it failed").outcome, Outcome::None);
}

/// Goal: what a document is told to be durable is not taken along by the destruction of the one
/// that had its name before, where both are handed over again. Method: a document is opened anew
/// while that is on its way to the disk.
#[test]
fn a_document_begins_anew_only_when_the_one_before_it_is_gone() {
    let mut core = Core::open();
    core.ask(Call(2), HANDLE, Request::Close);
    core.destroy(Call(3), "list");
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
    let ticket = core.last_destroy();
    let opens = core.opens();
    core.ask_to_open(TAB, Call(4), HANDLE, "list", None);
    assert_eq!(core.opens(), opens, "nothing is to come behind it");
    core.reply(StoreReply::Durable { ticket });
    assert!(core.is_done(Call(3)));
    assert_eq!(core.opens(), opens + 1);
}

/// Goal: as above, and nobody waits for ever. Method: the tab that destroys the document is closed
/// before the disk has answered; another tab has asked for the document by then.
#[test]
fn a_document_begins_anew_when_the_tab_that_destroyed_the_one_before_it_is_gone() {
    let mut core = Core::open();
    core.ask(Call(2), HANDLE, Request::Close);
    core.destroy(Call(3), "list");
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
    let ticket = core.last_destroy();
    let opens = core.opens();
    core.ask_to_open(OTHER_TAB, Call(4), HANDLE, "list", None);
    core.step(Input::TabClosed { tab: TAB });
    core.reply(StoreReply::Durable { ticket });
    assert_eq!(core.opens(), opens + 1);
}

/// Goal: whoever destroys a document is answered, also when another call has just destroyed it.
/// Method: both ask while the page server is frozen.
#[test]
fn a_document_that_is_destroyed_twice_at_once_is_gone_for_both() {
    let mut core = Core::open();
    core.ask(Call(2), HANDLE, Request::Close);
    for call in [Call(3), Call(4)] {
        core.destroy(call, "list");
    }
    for call in [Call(3), Call(4)] {
        assert!(!core.is_done(call));
        core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
        core.reply(StoreReply::Durable { ticket: core.last_destroy() });
        assert!(core.is_done(call));
    }
}

/// Goal: as above, where the disk could not destroy it for the first one.
#[test]
fn a_document_that_one_call_could_not_destroy_is_destroyed_by_the_next() {
    let mut core = Core::open();
    core.ask(Call(2), HANDLE, Request::Close);
    for call in [Call(3), Call(4)] {
        core.destroy(call, "list");
    }
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
    core.fail(core.last_destroy());
    assert!(core.has_failed(Call(3)));
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
    core.reply(StoreReply::Durable { ticket: core.last_destroy() });
    assert!(core.is_done(Call(4)));
}

/// Goal: who hands a local document over is told when there is no room for it, and nothing is left
/// of the attempt. Method: its first append fails while it waits to be handed over; then it is
/// opened from the server, which refuses it for now.
#[test]
fn a_document_that_was_never_kept_is_not_handed_over() {
    let mut core = Core::default();
    let (document, life) = (key("list"), Life::NONE);
    core.ask_to_open(TAB, Call(1), HANDLE, "list", None);
    core.reply(StoreReply::Opened { document: document.clone(), life, state: None });
    let first = core.last_ticket();
    core.ask_to_open(OTHER_TAB, Call(2), HANDLE, "list", Some(SERVER));
    core.welcome(SERVER);
    core.fail(first);
    core.reply(StoreReply::Opened { document, life, state: None });
    let failure = core.failure_of(Call(2)).expect("it is told");
    assert_eq!(failure.code, ErrorCode::StorageFull);

    // Nobody holds it as a local one any more.
    core.ask(Call(4), HANDLE, Request::Close);
    core.ask_to_open(OTHER_TAB, Call(3), HANDLE, "list", Some(SERVER));
    core.reply(StoreReply::Opened { document: key("list"), life, state: None });
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    core.welcome(SERVER);
    let opens = |core: &Core| {
        let is_open = |message: &ToServer| {
            matches!(message, ToServer::About { body: ToRoom::Open { .. }, .. })
        };
        core.sent.iter().filter(|(_, message)| is_open(message)).count()
    };
    assert_eq!(opens(&core), 1);
    let body = FromRoom::Refused(Refusal::Storage { reason: "full".to_owned() });
    core.hear(SERVER, &FromServer::About { channel: Channel(1), body });
    assert_eq!(opens(&core), 1, "it is asked again after a pause");
    core.pass(1_000);
    assert_eq!(opens(&core), 2);
}

/// Goal: each call has its answer though its document is destroyed. Method: a mutation is on its
/// way to the disk when its document is closed, and destroyed by the same tab.
#[test]
fn a_document_is_destroyed_only_when_what_was_issued_to_it_is_answered() {
    let mut core = Core::open();
    let milk = core.add(Call(5), "milk");
    core.ask(Call(6), HANDLE, Request::Close);
    core.destroy(Call(7), "list");
    core.reply(StoreReply::Durable { ticket: milk });
    let durable = |it: &FromCore| matches!(it, FromCore::Durable { call: Call(5), .. });
    assert_eq!(core.told.iter().filter(|it| durable(it)).count(), 1);
    core.reply(StoreReply::Durable { ticket: core.last_destroy() });
    assert!(core.is_done(Call(7)));
}

/// Goal: of the calls of a tab, the one that closes a document comes before the one that destroys
/// it. Method: a query ahead of both waits for pages.
#[test]
fn a_document_is_destroyed_once_its_tab_has_closed_it() {
    let mut core = Core::with_limits(Limits { pool_pages_max: 0, ..Limits::DEFAULT });
    core.open_new(Call(1), HANDLE, "list", None);
    let pages = pages_of(&core);
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    let (sql, params) = ("select count(*) from todo".to_owned(), Params::NONE);
    core.ask(Call(2), HANDLE, Request::Query(Query { sql, params }));
    core.ask(Call(3), HANDLE, Request::Close);
    core.destroy(Call(4), "list");
    assert_eq!(core.failure_of(Call(4)), None);
    while let Some((request, pgids)) = last_read(&core) {
        let document = key("list");
        let pages = pgids.iter().map(|pgid| (*pgid, pages[pgid].clone())).collect();
        core.asked.clear();
        core.reply(StoreReply::Pages { request, document, pages, last: true });
    }
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
    core.reply(StoreReply::Durable { ticket: core.last_destroy() });
    assert!(core.is_done(Call(4)));
}

/// Goal: one lost page does not lose its document. Method: a query is told of it only when an
/// append has failed, and the document is being read anew.
#[test]
fn a_page_that_is_found_lost_while_the_document_is_read_anew_breaks_nothing() {
    let mut core = Core::with_limits(Limits { pool_pages_max: 0, ..Limits::DEFAULT });
    core.open_new(Call(1), HANDLE, "list", None);
    let pages = pages_of(&core);
    let args = ["id", "title"].map(|name| (name.to_owned(), text("milk"))).to_vec();
    let (id, name) = (call_id(Call(2)), "add".to_owned());
    let mutate = Mutate { id, name, args, now_ms: 1_000, again: None };
    core.ask(Call(2), HANDLE, Request::Mutate(mutate));
    while let Some((request, pgids)) = last_read(&core) {
        let document = key("list");
        let pages = pgids.iter().map(|pgid| (*pgid, pages[pgid].clone())).collect();
        core.asked.clear();
        core.reply(StoreReply::Pages { request, document, pages, last: true });
    }
    let milk = core.last_ticket();
    let (sql, params) = ("select count(*) from todo".to_owned(), Params::NONE);
    core.ask(Call(3), HANDLE, Request::Query(Query { sql, params }));
    let (request, pgids) = last_read(&core).expect("no page is in memory");
    core.fail(milk);
    core.reply(StoreReply::Damaged { request, document: key("list"), pgids });
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
    assert_eq!(core.failure_of(Call(3)), None);
}

/// Goal: what is left of a document is read to its end, however long that takes, though nothing can
/// be written. Method: a newer release finds no room for its migration; a page that a query needs
/// takes longer than until that is written again, which would drop all pages if it failed.
#[test]
fn what_a_document_writes_of_itself_drops_no_page_that_somebody_waits_for() {
    let mut core = Core::open();
    let args = [("id", "milk"), ("title", &"m".repeat(400_000))];
    let args = args.map(|(name, value)| (name.to_owned(), text(value))).to_vec();
    let (id, name) = (call_id(Call(2)), "add".to_owned());
    core.ask(
        Call(2),
        HANDLE,
        Request::Mutate(Mutate { id, name, args, now_ms: 1_000, again: None }),
    );
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    let (kept, pages) = (stored(&core), pages_of(&core));
    let mut doctype = todos();
    doctype.migrations.push("create table tag (name text) strict".to_owned());
    let (document, user) = ("list".to_owned(), String::new());
    let (server, has_token, word) = (None, false, 0);
    let open = OpenRequest { document, user, server, doctype, has_token, word };
    core.ask(Call(3), Handle(2), Request::Open(Box::new(open)));
    core.fail(core.last_ticket());
    let state = Some(Box::new(kept));
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state });
    core.asked.clear();
    let query = |sql: &str| Request::Query(Query { sql: sql.to_owned(), params: Params::NONE });
    let has_rows = |core: &Core, of: Call| {
        core.told.iter().any(|it| matches!(it, FromCore::Rows { call, .. } if *call == of))
    };
    let reply = |core: &mut Core| {
        let (request, pgids) = last_read(core).expect("it needs a page");
        core.asked.retain(|it| !matches!(it, StoreRequest::Read { .. }));
        let pages = pgids.into_iter().map(|pgid| (pgid, pages[&pgid].clone())).collect();
        core.reply(StoreReply::Pages { request, document: key("list"), pages, last: true });
    };
    core.ask(Call(4), Handle(2), query("select count(*) from tag"));
    while !has_rows(&core, Call(4)) {
        reply(&mut core);
    }
    core.ask(Call(5), Handle(2), query("select max(title) from todo"));
    while !has_rows(&core, Call(5)) {
        core.pass(1_000);
        let is_written = core.asked.iter().any(|it| matches!(it, StoreRequest::Append { .. }));
        assert!(!is_written, "it would take the pages along");
        reply(&mut core);
    }
    core.pass(1_000);
    core.fail(core.last_ticket());
}

/// Goal: a live query is answered though a page is lost that it does not need. Method: a newer
/// release finds no room for its migration, which reads what is lost by now; the document is read
/// anew at once, and later, when its migration is due.
#[test]
fn a_live_query_does_not_fail_for_a_lost_page_that_only_a_migration_reads() {
    for pause_ms in [1, 100_000] {
        let mut core = Core::open();
        let args = [("id", "milk"), ("title", &"m".repeat(400_000))];
        let args = args.map(|(name, value)| (name.to_owned(), text(value))).to_vec();
        let (id, name) = (call_id(Call(2)), "add".to_owned());
        let mutate = Mutate { id, name, args, now_ms: 1_000, again: None };
        core.ask(Call(2), HANDLE, Request::Mutate(mutate));
        core.reply(StoreReply::Durable { ticket: core.last_ticket() });
        let (kept, pages) = (stored(&core), pages_of(&core));
        let (sql, params) =
            ("select count(*), strftime('%f', 'now') from todo".to_owned(), Params::NONE);
        core.ask(Call(3), HANDLE, Request::Watch(Query { sql, params }));
        let mut doctype = todos();
        let migration = "create table tag as select max(title) as name from todo";
        doctype.migrations.push(migration.to_owned());
        let (document, user) = ("list".to_owned(), String::new());
        let (server, has_token, word) = (None, false, 0);
        let open = OpenRequest { document, user, server, doctype, has_token, word };
        core.ask(Call(4), Handle(2), Request::Open(Box::new(open)));
        core.fail(core.last_ticket());
        core.pass(pause_ms);
        let state = Some(Box::new(kept));
        core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state });
        core.told.clear();
        let is_lost = |pgid: &Pgid| pages[pgid].bytes()[4..].iter().all(|byte| *byte == b'm');
        let mut reads = 0;
        while let Some((request, pgids)) = last_read(&core) {
            core.asked.retain(|it| !matches!(it, StoreRequest::Read { .. }));
            let here = pgids.into_iter().filter(|pgid| !is_lost(pgid));
            let pages = here.map(|pgid| (pgid, pages[&pgid].clone())).collect();
            core.reply(StoreReply::Pages { request, document: key("list"), pages, last: true });
            reads += 1;
        }
        assert!(reads > 1, "the migration reads on until something is lost");
        assert_eq!(core.failure_of(Call(3)), None, "after {pause_ms} ms");
        let is_answer = |it: &FromCore| matches!(it, FromCore::Rows { call: Call(3), .. });
        assert!(core.told.iter().any(is_answer), "after {pause_ms} ms");
    }
}

/// The document as the store has it, with all that it was handed.
fn stored(core: &Core) -> OpenedDocument {
    stored_up_to(core, usize::MAX)
}

/// The same without what it was handed behind the first `count` entries.
fn stored_up_to(core: &Core, count: usize) -> OpenedDocument {
    let appends = core.asked.iter().filter_map(|request| match request {
        StoreRequest::Append { append, .. } => Some(append),
        _ => None,
    });
    let record = appends.clone().filter_map(|append| append.record.clone()).next_back();
    let last = appends.flat_map(|append| &append.storage).take(count).last();
    let last = last.expect("it is written to");
    OpenedDocument {
        record: record.expect("it has one").into_vec(),
        timeline: None,
        storage: Some(last.position),
        db_pages: last.set.db_pages,
        calls: Vec::new(),
        first_page: pages_up_to(core, count).remove(&Pgid(1)),
        is_incomplete: false,
    }
}

/// Goal: whoever needs a page that this device does not have is told that once it is known, and the
/// page is not asked for again and again. Method: one of a document of which something is lost is
/// answered without any, for a live query that has to run again; then a query needs it.
#[test]
fn a_page_that_the_store_does_not_have_is_lost() {
    let mut core = Core::with_limits(Limits { pool_pages_max: 0, ..Limits::DEFAULT });
    core.open_new(Call(1), HANDLE, "list", None);
    let pages = pages_of(&core);
    let (sql, params) = ("select count(*) from todo".to_owned(), Params::NONE);
    let query = Query { sql, params };
    core.ask(Call(2), HANDLE, Request::Watch(query.clone()));
    let args = ["id", "title"].map(|name| (name.to_owned(), text("milk"))).to_vec();
    let (id, name) = (call_id(Call(3)), "add".to_owned());
    let mutate = Mutate { id, name, args, now_ms: 1_000, again: None };
    core.ask(Call(3), HANDLE, Request::Mutate(mutate));
    let reply = |core: &mut Core, pages: &dyn Fn(Pgid) -> Option<Page>| {
        let Some((request, pgids)) = last_read(core) else { return false };
        let document = key("list");
        let pages = pgids.iter().filter_map(|pgid| Some((*pgid, pages(*pgid)?))).collect();
        core.asked.clear();
        core.reply(StoreReply::Pages { request, document, pages, last: true });
        true
    };
    let is_written =
        |core: &Core| core.asked.iter().any(|it| matches!(it, StoreRequest::Append { .. }));
    while !is_written(&core) {
        assert!(reply(&mut core, &|pgid| pages.get(&pgid).cloned()));
    }
    assert!(reply(&mut core, &|_| None), "no page is in memory");
    core.ask(Call(4), HANDLE, Request::Query(query));
    assert!(!reply(&mut core, &|_| None), "it is asked for again");
    for call in [Call(2), Call(4)] {
        let failure = core.failure_of(call).expect("it is told");
        assert!(failure.message.contains("damaged"), "{failure:?}");
    }
}

/// The newest pages that were handed to the store.
fn pages_of(core: &Core) -> BTreeMap<Pgid, Page> {
    pages_up_to(core, usize::MAX)
}

/// Those that were the newest with the first `count` entries.
fn pages_up_to(core: &Core, count: usize) -> BTreeMap<Pgid, Page> {
    let appends = core.asked.iter().filter_map(|request| match request {
        StoreRequest::Append { append, .. } => Some(append),
        _ => None,
    });
    let entries = appends.flat_map(|append| &append.storage).take(count);
    entries.flat_map(|entry| entry.set.pages.clone()).collect()
}

fn last_read(core: &Core) -> Option<(u64, Vec<Pgid>)> {
    core.asked.iter().rev().find_map(|request| match request {
        StoreRequest::Read { request, pgids, .. } => Some((*request, pgids.clone())),
        _ => None,
    })
}

/// Goal: nobody is advised to delete what a device still has that has failed once.
#[test]
fn a_page_server_that_breaks_is_not_called_damaged_data() {
    let mut core = Core::open();
    core.add(Call(2), "milk");
    let error = AppendError::Device { reason: "not now".to_owned() };
    core.reply(StoreReply::Broken { error });
    core.ask_to_open(OTHER_TAB, Call(9), HANDLE, "another", None);
    let failure = core.failure_of(Call(9)).expect("it is told at once");
    assert_eq!(failure.code, ErrorCode::Storage);
    assert!(failure.message.contains("tried again by itself"), "{}", failure.message);
    assert!(!failure.message.contains("destroyAll"), "{}", failure.message);
}

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
    let reads = |core: &mut Core| {
        let mut count = 0;
        while let Some((request, pgids)) = last_read(core) {
            core.asked.retain(|it| !matches!(it, StoreRequest::Read { .. }));
            let pages = pgids.into_iter().map(|pgid| (pgid, kept[&pgid].clone())).collect();
            core.reply(StoreReply::Pages { request, document: key("list"), pages, last: true });
            count += 1;
        }
        count
    };
    let before = core.last_ticket();
    core.add(Call(2), "milk");
    reads(&mut core);
    let ticket = core.last_ticket();
    assert!(ticket > before);
    let (server, failure) = (PageServerId(1), PageServerFailure::new(UnservedKind::Lost, ""));
    core.step(Input::PageServerFailed { server, failure });
    core.fail(ticket);
    for call in [Call(3), Call(4)] {
        core.ask(call, HANDLE, Request::Export);
        assert!(reads(&mut core) > 0, "all is in memory still");
        let is_it =
            |it: &&FromCore| matches!(it, FromCore::Exported { call: of, .. } if *of == call);
        assert!(core.told.iter().any(|it| is_it(&it)));
    }
    let (sql, params) = ("select id from todo".to_owned(), Params::NONE);
    core.ask(Call(5), HANDLE, Request::Query(Query { sql, params }));
    reads(&mut core);
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
    let answer = |core: &mut Core, (request, pgids): (u64, Vec<Pgid>)| {
        core.asked.retain(|it| !matches!(it, StoreRequest::Read { .. }));
        let pages = pgids.into_iter().map(|pgid| (pgid, kept[&pgid].clone())).collect();
        core.reply(StoreReply::Pages { request, document: key("list"), pages, last: true });
    };
    core.add(Call(2), "milk");
    while let Some(read) = last_read(&core) {
        answer(&mut core, read);
    }
    let ticket = core.last_ticket();
    let (sql, params) = ("select id from todo".to_owned(), Params::NONE);
    core.ask(Call(3), HANDLE, Request::Query(Query { sql, params }));
    let (lost, _) = last_read(&core).expect("its pages left memory with the append");
    core.asked.clear();
    let (server, failure) = (PageServerId(1), PageServerFailure::new(UnservedKind::Lost, ""));
    core.step(Input::PageServerFailed { server, failure });
    core.fail(ticket);
    assert_eq!(last_read(&core).map(|(request, _)| request), Some(lost));
    while let Some(read) = last_read(&core) {
        answer(&mut core, read);
    }
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

/// Goal: no tab takes its own document for what a core died of that another tab had open. Method: a
/// store breaks a promise about one of two documents, and the core panics.
#[test]
fn a_core_that_dies_of_a_document_has_named_it() {
    let mut core = Core::open();
    let at_work = core.at_work();
    core.ask_to_open(TAB, Call(2), Handle(2), "deadly", None);
    assert_eq!(at_work.document(), None, "between steps it is at work on none");
    let state = OpenedDocument { timeline: None, storage: None, ..stored(&core) };
    let (document, life) = (key("deadly"), Life([1; 16]));
    let opened = StoreReply::Opened { document, life, state: Some(Box::new(state)) };
    let step = AssertUnwindSafe(|| core.reply(opened));
    catch_unwind(step).expect_err("a document without its journals");
    assert_eq!(at_work.document(), Some(key("deadly")));
}

/// Goal: nobody is told that nothing was recorded of what an earlier page server may have made
/// durable. Method: it dies before it says so; the next one is handed the same, and refuses it for
/// a reason that it finds before it looks what is on the disk, or after that, or since something of
/// that is lost.
#[test]
fn what_an_earlier_page_server_was_handed_may_be_recorded_when_the_next_one_refuses_it() {
    let fenced = || AppendError::Fenced { current: Epoch(3) };
    let cases = [
        (fenced(), true, Outcome::Unknown),
        (AppendError::Busy, true, Outcome::Unknown),
        (AppendError::Damaged, true, Outcome::Unknown),
        (AppendError::Damaged, false, Outcome::None),
        (AppendError::Full, true, Outcome::None),
        (fenced(), false, Outcome::None),
    ];
    for (error, is_handed_before, outcome) in cases {
        let mut core = Core::open();
        let early = is_handed_before.then(|| core.add(Call(2), "milk"));
        let server = PageServerId(1);
        core.step(Input::PageServerGone { server });
        let storage = Storage::Opfs;
        core.step(Input::PageServerLent { server, settled_at_ms: 0, storage });
        if !is_handed_before {
            core.add(Call(2), "milk");
        }
        core.reply(StoreReply::Ready { epoch: Epoch(2) });
        let ticket = core.last_ticket();
        assert!(early.is_none_or(|early| early == ticket), "the same is handed over");
        core.reply(StoreReply::AppendFailed { ticket, error: error.clone() });
        let failure = core.failure_of(Call(2)).expect("it failed");
        assert_eq!(failure.outcome, outcome, "{error}, handed before: {is_handed_before}");
        let says_nothing = failure.message.contains("nothing was recorded");
        assert_eq!(says_nothing, outcome == Outcome::None, "{}", failure.message);
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
