//! Local copies that somebody wants gone.

use tidelog_client::{Call, FromCore, Input, Params, Query, Request};
use tidelog_pages::StoreReply;
use tidelog_testing::client::core::{Core, answer_reads, key, pages_of};
use tidelog_testing::client::{HANDLE, OTHER_TAB, TAB};
use tidelog_types::Life;
use tidelog_types::limits::Limits;

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
    answer_reads(&mut core, &pages);
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
    core.reply(StoreReply::Durable { ticket: core.last_destroy() });
    assert!(core.is_done(Call(4)));
}
