//! Pages that this device has lost, or cannot read.

use tidelog_client::{
    Call, FromCore, Handle, Handling, Input, Mutate, OpenRequest, Params, Query, Request, ToCore,
};
use tidelog_document::{CommandDefinition, Doctype, StreamDefinition, TaskKind};
use tidelog_pages::{AppendError, OpenedDocument, RequestId, StoreReply, StoreRequest};
use tidelog_testing::client::core::{
    Core, again, answer_reads, key, last_read, pages_of, read_anew, stored,
};
use tidelog_testing::client::server::{Server, back_online, offline, online, talk};
use tidelog_testing::client::*;
use tidelog_types::limits::Limits;
use tidelog_types::{ErrorCode, Life, Outcome, Page, Pgid};

/// Goal: whoever waits for a document is told, where the document cannot be read any more.
#[test]
fn a_document_that_is_found_damaged_as_it_is_read_anew_is_told() {
    let mut core = Core::default();
    core.open_new(Call(1), HANDLE, "list", Some(SERVER));
    let mut core = read_anew(core);
    core.reply(StoreReply::Damaged {
        request: RequestId::OPENING,
        document: key("list"),
        pgids: Vec::new(),
    });
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
    core.reply(StoreReply::Damaged {
        request: RequestId::OPENING,
        document: key("list"),
        pgids: Vec::new(),
    });
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
    let damaged = || StoreReply::Damaged {
        request: RequestId::OPENING,
        document: key("list"),
        pgids: Vec::new(),
    };
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
            core.say(ToCore::GiveUp { call: Call(2) });
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
        answer_reads(&mut core, &pages);
        let outcome = core.failure_of(Call(2)).map(|failure| failure.outcome);
        assert_eq!(outcome, is_incomplete.then_some(Outcome::Unknown));
    }
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
    answer_reads(&mut core, &pages);
    let milk = core.last_ticket();
    let (sql, params) = ("select count(*) from todo".to_owned(), Params::NONE);
    core.ask(Call(3), HANDLE, Request::Query(Query { sql, params }));
    let (request, pgids) = last_read(&core).expect("no page is in memory");
    core.fail(milk);
    core.reply(StoreReply::Damaged { request, document: key("list"), pgids });
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
    assert_eq!(core.failure_of(Call(3)), None);
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

/// Goal: a page that is lost holds nobody up: what needs it is told, the rest of the document is
/// read. Method: an undecided mutation needs it to be run again as the document is opened.
#[test]
fn a_document_is_read_though_a_page_is_lost_that_a_pending_mutation_needs() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    for n in 0..500 {
        titled(&mut device, &n.to_string(), &format!("title of {n}"));
    }
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.status().pending, 0);
    offline(&mut device);
    device.mutate("toggle", &[("id", text("250"))]);
    device.kill_core();
    device.rot(b"title of 250");
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.pass(1_000);
    assert_eq!(device.opened(call).pending, 1);
    assert_eq!(device.query("select title from todo where rowid = 1"), [[text("title of 0")]]);
    back_online(&mut server, &mut device);
    device.pass(30_000);
    talk(&mut server, &mut [&mut device]);
    let error = device.status().error.as_ref().expect("it is said for as long as it lasts");
    assert!(error.message.contains("damaged"), "{error:?}");
}

/// Goal: whoever handles tasks of a local document is told where these cannot be read any more, and
/// the page is not asked for again and again. Method: it has no page in memory, and none comes.
#[test]
fn who_handles_tasks_that_are_lost_is_told() {
    let mut core = Core::with_limits(Limits { pool_pages_max: 0, ..Limits::DEFAULT });
    let command = CommandDefinition {
        name: "do".to_owned(),
        fields: Vec::new(),
        received: Vec::new(),
        failed: Vec::new(),
        retries: 0,
        timeout_ms: 0,
    };
    let (name, commands) = ("todo".to_owned(), vec![command]);
    let streams = vec![StreamDefinition { name, events: Vec::new(), commands }];
    let open = OpenRequest {
        document: "list".to_owned(),
        user: String::new(),
        server: None,
        doctype: Doctype { streams, ..todos() },
        has_token: false,
        word: 0,
    };
    core.ask(Call(1), HANDLE, Request::Open(Box::new(open)));
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    let kind = TaskKind { aggregate: "todo".to_owned(), name: "do".to_owned() };
    let handling = Handling { kinds: vec![kind], concurrency: 1 };
    core.ask(Call(2), HANDLE, Request::Handle(handling));
    let mut reads = 0;
    for _ in 0..8 {
        if let Some((request, _)) = last_read(&core) {
            reads += 1;
            core.asked.clear();
            let (document, pages) = (key("list"), Vec::new());
            core.reply(StoreReply::Pages { request, document, pages, last: true });
        }
        core.step(Input::Wake);
    }
    let failure = core.failure_of(Call(2)).expect("it is told");
    assert!(failure.message.contains("damaged"), "{failure:?}");
    assert!(reads <= 2, "{reads} reads");
}

/// Goal: no app is told that a document is open by a doctype that it could not be brought to.
/// Method: its migration needs a page that is lost; it is opened twice while another tab holds it.
#[test]
fn a_migration_that_needs_a_lost_page_fails_each_opening() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    for n in 0..500 {
        titled(&mut device, &n.to_string(), &format!("title of {n}"));
    }
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    device.kill_core();
    device.rot(b"title of 250");
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    let mut newer = todos();
    newer.migrations.push("update todo set title = title || '!'".to_owned());
    for _ in 0..2 {
        let call = device.start_open(OTHER_TAB, Some(SERVER), &newer);
        device.pass(1_000);
        assert!(device.failure(call).message.contains("damaged"), "{:?}", device.failure(call));
    }
    assert_eq!(device.query("select title from todo where rowid = 1"), [[text("title of 0")]]);
}
