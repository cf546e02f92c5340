//! What follows when appends fail.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tidelog_client::{
    Again, Call, Connection, FromCore, Handle, Input, Mutate, OpenRequest, PageServerId, Params,
    Query, Request, Storage, ToCore,
};
use tidelog_pages::{AppendError, OpenedDocument, StoreReply, StoreRequest, Ticket};
use tidelog_sync::{Channel, FromRoom, FromServer, Refusal, ToRoom, ToServer};
use tidelog_testing::client::core::{
    Core, LENT, adding, again, answer_reads, is_durable, key, last_read, pages_of, pages_up_to,
    read_anew, stored, stored_up_to,
};
use tidelog_testing::client::{HANDLE, OTHER_TAB, SERVER, TAB, call_id, text, todos};
use tidelog_types::limits::Limits;
use tidelog_types::{BudgetLimits, Epoch, ErrorCode, Life, Outcome};

/// Goal: nothing is told to be durable that is not. Method: two appends, of which pages are sent
/// ahead, leave at once. The page server tells tabs of both by itself, and drops what it is to tell
/// of one that fails: so it has to know of that before it is asked for the append.
#[test]
fn a_page_server_knows_whom_to_tell_of_an_append_before_that_can_fail() {
    const OTHER: Handle = Handle(2);
    let limits = Limits { append_part_pages_max: 1, ..Limits::DEFAULT };
    let mut core = Core::with_limits(limits);
    core.open_new(Call(1), HANDLE, "list", None);
    core.open_new(Call(2), OTHER, "other", None);
    core.step(Input::TabReached { tab: TAB, server: LENT });
    let ask = |call, handle| ToCore::Ask { call, handle, request: adding(call, "milk") };
    let messages = vec![ask(Call(3), HANDLE), ask(Call(4), OTHER)];
    core.step(Input::FromTab { tab: TAB, messages });
    assert_eq!(core.noticed.len(), 2);
    for (noticed, asked) in &core.noticed {
        let ticket_of = |it: &StoreRequest| match it {
            StoreRequest::Append { ticket, .. } => Some(*ticket),
            _ => None,
        };
        let is_it = |it: &StoreRequest| ticket_of(it) == Some(*noticed);
        let append = core.asked.iter().position(is_it).expect("an append");
        assert!(*asked <= append, "{noticed:?}: {append} requests came before its notice");
    }
}

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

/// The store says where the document stands, after the first `count` entries that it was handed.
fn read_up_to(core: &mut Core, count: usize) {
    let state = Some(Box::new(stored_up_to(core, count)));
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state });
    let pages = pages_up_to(core, count);
    answer_reads(core, &pages);
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

/// Goal: a local document never looks as if something of it were missing. Method: the disk refuses
/// the first append, and nothing of the document is there when it is read anew.
#[test]
fn a_local_document_that_could_not_be_made_lacks_nothing_that_a_server_has() {
    let mut core = Core::open();
    core.fail(core.last_ticket());
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
    let statuses: Vec<_> = core
        .told
        .iter()
        .filter_map(|message| match message {
            FromCore::Opened { status, .. } | FromCore::Status { status, .. } => Some(status),
            _ => None,
        })
        .collect();
    assert!(statuses.len() > 1);
    for status in statuses {
        assert_eq!((status.connection, status.synced), (Connection::Local, true));
    }
}
