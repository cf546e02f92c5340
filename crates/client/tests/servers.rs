//! Several servers, and channels that belong to one of them.

use tidelog_client::{
    Again, Call, FromCore, Handle, Input, Mutate, OpenRequest, Params, Query, Request, TabId,
    ToCore,
};
use tidelog_document::{chain_of, hash_of};
use tidelog_pages::{OpenedDocument, StoreReply, StoreRequest, TimelineFrame, TimelineState};
use tidelog_sync::{
    ByeReason, Channel, CodedPage, EntryPart, FromRoom, FromServer, ToRoom, ToServer,
};
use tidelog_testing::client::core::{Core, key};
use tidelog_testing::client::server::Server;
use tidelog_testing::client::*;
use tidelog_types::limits::Limits;
use tidelog_types::{
    BudgetLimits, ErrorCode, JournalId, Life, Lsn, LsnRange, Page, PageSet, Pgid, Position,
};

const X: &str = "ws://x";
const Y: &str = "ws://y";
/// Milliseconds in which the tabs of a core that has ended are back.
const TABS_BACK_MS: u64 = 5_000;
const OTHER: Handle = Handle(2);

/// A core that follows `list` at X and another document at Y, on a channel of the same number. A
/// third document keeps the connection to X open.
fn following_two() -> Core {
    let mut core = Core::default();
    core.open_new(Call(1), HANDLE, "list", Some(X));
    core.welcome(X);
    core.server_opens(X, 1);
    core.open_new(Call(2), OTHER, "other", Some(Y));
    core.welcome(Y);
    core.server_opens(Y, 1);
    core.open_new(Call(3), Handle(3), "third", Some(X));
    core.server_opens(X, 2);
    core.sent.clear();
    core
}

fn close(channel: u32) -> ToServer {
    ToServer::About { channel: Channel(channel), body: ToRoom::Close }
}

/// Entry 1 of this journal: one page that is no database.
fn rubbish(journal: JournalId) -> EntryPart {
    let range = LsnRange::one(Lsn::FIRST);
    let pages = [(Pgid(1), Page::zeroed().with(0, b"this is no database"))];
    let set = PageSet { db_pages: 1, pages: pages.iter().cloned().collect() };
    let start = Position::start_of(journal);
    let position =
        Position { next: range.end(), chain: chain_of(start.chain, range, &set), ..start };
    let coded = pages.iter().map(|(pgid, page)| CodedPage::new(*pgid, page, None));
    let (hash, pages) = (hash_of(&set), coded.collect());
    EntryPart {
        range,
        position,
        db_pages: 1,
        origin: None,
        pages,
        is_predicted: false,
        hash,
        is_last: true,
    }
}

fn frames_sent(core: &Core) -> Vec<(&str, u32, u64)> {
    core.sent
        .iter()
        .filter_map(|(server, message)| match message {
            ToServer::About { channel, body: ToRoom::Frames { first, .. } } => {
                Some((server.as_str(), channel.0, first.get()))
            }
            _ => None,
        })
        .collect()
}

/// Goal: what is issued to one document never arrives in another. Method: a document moves to a
/// server at which another document has a channel of the number that it had at its old one.
#[test]
fn a_document_that_moves_to_another_server_takes_no_channel_along() {
    let mut core = following_two();
    core.ask_to_open(OTHER_TAB, Call(4), HANDLE, "list", Some(Y));
    assert!(core.sent.contains(&(X.to_owned(), close(1))));
    let ticket = core.add(Call(5), "milk");
    core.reply(StoreReply::Durable { ticket });
    assert_eq!(frames_sent(&core), [], "its channel at Y is not open yet");
    core.server_opens(Y, 2);
    assert_eq!(frames_sent(&core), [(Y, 2, 1)]);
}

/// Goal: a server that nobody asks for any more keeps no document from the one that it is synced
/// with. Method: a tab opens it at another one, which says nothing, and is closed.
#[test]
fn a_document_goes_back_to_its_server_once_nobody_wants_it_elsewhere() {
    let mut core = following_two();
    core.ask_to_open(OTHER_TAB, Call(4), HANDLE, "list", Some(Y));
    core.sent.clear();
    core.step(Input::TabClosed { tab: OTHER_TAB });
    let opens = |(server, message): &(String, ToServer)| match message {
        ToServer::About { body: ToRoom::Open { document, .. }, .. } => {
            server == X && document == "list"
        }
        _ => false,
    };
    assert!(core.sent.contains(&(Y.to_owned(), close(2))), "{:?}", core.sent);
    assert!(core.sent.iter().any(opens), "{:?}", core.sent);
}

/// Goal: the token of a tab that holds a document gets it in, wherever another tab has synced it
/// meanwhile. Method: a tab without one opens it at another server, at which it is found, and is
/// closed.
#[test]
fn a_document_follows_the_tab_that_is_left_to_its_server() {
    let mut core = Core::default();
    core.has_token = true;
    core.open_new(Call(1), HANDLE, "list", Some(X));
    core.socket_opens(X);
    core.give_token(TAB, HANDLE, Some("for x"));
    core.hear(X, &FromServer::Welcome);
    core.server_opens(X, 1);
    core.has_token = false;
    core.ask_to_open(OTHER_TAB, Call(1), HANDLE, "list", Some(Y));
    core.welcome(Y);
    core.server_opens(Y, 1);
    core.sent.clear();
    core.step(Input::TabClosed { tab: OTHER_TAB });
    core.socket_opens(X);
    core.give_token(TAB, HANDLE, Some("for x"));
    assert_eq!(core.tokens_sent(X), [Some("for x".to_owned())]);
    assert_eq!(core.tokens_sent(Y), []);
}

#[test]
fn closing_a_document_at_one_server_closes_no_other_at_another() {
    let mut core = following_two();
    core.ask(Call(4), HANDLE, Request::Close);
    assert!(!core.sent.iter().any(|(server, _)| server == Y), "{:?}", core.sent);
    let ticket = core.add_to(OTHER, Call(5), "milk");
    core.reply(StoreReply::Durable { ticket });
    assert_eq!(frames_sent(&core), [(Y, 1, 1)], "it is followed as before");
}

#[test]
fn a_document_that_stays_away_says_so_to_its_server() {
    let mut core = following_two();
    core.say(ToCore::SetConnected { handle: HANDLE, word: 1 });
    assert_eq!(core.sent, [(X.to_owned(), close(1))]);
}

/// Goal: a tab says nothing more of what it does not hold, and the core keeps nothing of that.
/// Method: one closes a document, and another one opens it by a doctype that does not fit; a handle
/// is left that stays connected, and the others say that they do not.
#[test]
fn what_was_closed_or_could_not_be_opened_has_no_say_any_more() {
    let mut core = following_two();
    let [closed, failed] = [Handle(8), Handle(9)];
    core.ask_to_open(TAB, Call(4), closed, "list", Some(X));
    core.ask(Call(5), closed, Request::Close);
    let request = Request::Open(Box::new(OpenRequest {
        document: "list".to_owned(),
        user: String::new(),
        server: Some(X.to_owned()),
        doctype: shelves(),
        has_token: false,
        word: 0,
    }));
    core.ask(Call(6), failed, request);
    assert!(core.failure_of(Call(6)).is_some());
    for handle in [closed, failed] {
        core.say(ToCore::SetConnected { handle, word: 1 });
        assert_eq!(core.sent, [], "{handle:?} is heard");
    }
    // One that is opened again is.
    core.ask_to_open(TAB, Call(7), failed, "list", Some(X));
    core.say(ToCore::SetConnected { handle: failed, word: 1 });
    assert_eq!(core.sent, [(X.to_owned(), close(1))]);
}

/// Goal: what was said of a document is forgotten with it, also where a deletion held on to it and
/// was refused. Method: a tab closes a document that stays away from its server and deletes it in
/// one breath; the next thing that comes is that it is opened again.
#[test]
fn a_document_is_forgotten_as_soon_as_its_deletion_is_refused() {
    let mut core = following_two();
    core.say(ToCore::SetConnected { handle: HANDLE, word: 1 });
    let ticket = core.add(Call(4), "milk");
    core.reply(StoreReply::Durable { ticket });
    let close = ToCore::Ask { call: Call(5), handle: HANDLE, request: Request::Close };
    let (document, user) = (Some("list".to_owned()), String::new());
    let destroy =
        ToCore::Destroy { call: Call(6), document, user, force: false, everywhere: false };
    core.step(Input::FromTab { tab: TAB, messages: vec![close, destroy] });
    assert!(core.is_done(Call(5)));
    assert!(core.has_failed(Call(6)));
    let opens = core.opens();
    core.ask_to_open(TAB, Call(7), HANDLE, "list", Some(X));
    assert_eq!(core.opens(), opens + 1, "it goes by what was said before");
}

/// Goal: no frame counts as sent that was not. Method: the first of two mutations becomes durable
/// while nobody holds the document, the second once somebody does again.
#[test]
fn what_becomes_durable_while_nobody_holds_the_document_is_sent_later() {
    let mut core = following_two();
    let first = core.add(Call(5), "milk");
    let second = core.add(Call(6), "bread");
    core.ask(Call(7), HANDLE, Request::Close);
    core.reply(StoreReply::Durable { ticket: first });
    core.sent.clear();
    core.ask_to_open(TAB, Call(8), HANDLE, "list", Some(X));
    let channel = core.sent.iter().find_map(|(_, message)| match message {
        ToServer::About { channel, body: ToRoom::Open { document, .. } } if document == "list" => {
            Some(channel.0)
        }
        _ => None,
    });
    core.server_opens(X, channel.expect("a channel of its own"));
    core.reply(StoreReply::Durable { ticket: second });
    let firsts: Vec<u64> = frames_sent(&core).into_iter().map(|(.., first)| first).collect();
    assert_eq!(firsts, [1, 2]);
}

/// Goal: what a rebase failed over is not forgotten. Method: the server sends an entry that no
/// SQLite can read; after a pause it is asked for again, from what is held.
#[test]
fn entries_that_cannot_be_taken_in_are_asked_for_again() {
    let mut core = following_two();
    let body = FromRoom::Entry(rubbish(JournalId([9; 16])));
    core.hear(X, &FromServer::About { channel: Channel(1), body });
    assert_eq!(core.sent, [(X.to_owned(), close(1))]);
    core.sent.clear();
    for _ in 0..4 {
        core.pass(10_000);
        core.hear(X, &FromServer::Pong);
    }
    let have = core.sent.iter().find_map(|(_, message)| match message {
        ToServer::About { body: ToRoom::Open { document, have, .. }, .. } if document == "list" => {
            Some(*have)
        }
        _ => None,
    });
    assert_eq!(have, Some(None), "{:?}", core.sent);
}

/// Goal: nobody is told of a failure that is over. Method: an entry cannot be read, the one that
/// comes in its place can; then another tab opens the document.
#[test]
fn what_could_be_taken_in_at_last_fails_no_later_opening() {
    let mut core = Core::default();
    let mut server = Server::default();
    core.open_new(Call(1), HANDLE, "list", Some(X));
    core.welcome(X);
    answer(&mut core, &mut server);
    let journal = server.position().journal;
    let (channel, body) = (server.channel_of(1), FromRoom::Entry(rubbish(journal)));
    core.hear(X, &FromServer::About { channel, body });
    for _ in 0..4 {
        core.pass(10_000);
        core.hear(X, &FromServer::Pong);
    }
    answer(&mut core, &mut server);
    server.news(1).iter().for_each(|news| core.hear(X, news));
    assert!(core.asked.iter().any(|it| matches!(it, StoreRequest::Append { append, .. }
        if append.begin_storage == Some(journal))));
    core.ask_to_open(OTHER_TAB, Call(2), HANDLE, "list", Some(X));
    assert_eq!(core.failure_of(Call(2)), None);
}

/// Goal: nobody is told why another one could not open a document. Method: an entry comes that
/// cannot be read, behind whose rebase a newer release waits to open the document; its tab is
/// closed before it is told, and another one opens it by the older release.
#[test]
fn what_failed_the_opening_of_a_tab_that_is_gone_fails_no_later_one() {
    let slice = BudgetLimits { pages: 1, steps: 1, bytes: 1 };
    let mut core = Core::with_limits(Limits { slice, ..Limits::DEFAULT });
    let go_on = |core: &mut Core| {
        while core.wakes_now() {
            core.pass(0);
        }
    };
    core.ask_to_open(TAB, Call(1), HANDLE, "list", Some(X));
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
    go_on(&mut core);
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    core.welcome(X);
    core.server_opens(X, 1);
    go_on(&mut core);

    let ask = |call, request| ToCore::Ask { call, handle: HANDLE, request };
    let count = Query { sql: "select count(*) from todo".to_owned(), params: Params::NONE };
    let messages =
        vec![ask(Call(2), Request::Query(count.clone())), ask(Call(3), Request::Query(count))];
    core.step(Input::FromTab { tab: TAB, messages });
    let mut newer = todos();
    newer.migrations.push("alter table todo add column star integer".to_owned());
    let request = Request::Open(Box::new(OpenRequest {
        document: "list".to_owned(),
        user: String::new(),
        server: Some(X.to_owned()),
        doctype: newer,
        has_token: false,
        word: 0,
    }));
    let body = FromRoom::Entry(rubbish(JournalId([9; 16])));
    core.say_from(OTHER_TAB, ask(Call(4), request));
    core.hear(X, &FromServer::About { channel: Channel(1), body });
    core.step(Input::TabClosed { tab: OTHER_TAB });
    core.ask_to_open(TabId(3), Call(5), HANDLE, "list", Some(X));
    go_on(&mut core);
    assert_eq!(core.failure_of(Call(5)), None);
}

/// The server answers what it was sent.
fn answer(core: &mut Core, server: &mut Server) {
    while !core.sent.is_empty() {
        for (_, message) in std::mem::take(&mut core.sent) {
            server.hear(1, message).iter().for_each(|answer| core.hear(X, answer));
        }
    }
}

/// Goal: the journal of an entry begins with it, whatever else is built in the same step. Method:
/// the first entry of all comes while queries take long; behind them two releases open the
/// document, for each of which its layers are built anew.
#[test]
fn a_journal_begins_with_its_first_entry_though_layers_are_built_anew_in_the_same_step() {
    let mut core = Core::default();
    core.open_new(Call(1), HANDLE, "list", Some(X));
    core.welcome(X);
    let mut server = Server::default();
    answer(&mut core, &mut server);
    let long = "with recursive c(n) as (select 1 union all select n + 1 from c where n < 400000)
                select count(*) from c";
    let query = || Request::Query(Query { sql: long.to_owned(), params: Params::NONE });
    let mut messages: Vec<_> = [Call(2), Call(3)]
        .map(|call| ToCore::Ask { call, handle: HANDLE, request: query() })
        .into();
    let mut doctype = todos();
    for number in 2..4 {
        doctype.migrations.push(format!("create table release_{number} (n integer) strict"));
        let request = Request::Open(Box::new(OpenRequest {
            document: "list".to_owned(),
            user: String::new(),
            server: Some(X.to_owned()),
            doctype: doctype.clone(),
            has_token: false,
            word: 0,
        }));
        messages.push(ToCore::Ask { call: Call(number + 2), handle: Handle(number), request });
    }
    core.asked.clear();
    core.step(Input::FromTab { tab: TAB, messages });
    server.news(1).iter().for_each(|news| core.hear(X, news));
    core.pass(1);
    let appends = core.asked.iter().filter_map(|request| match request {
        StoreRequest::Append { append, .. } => Some(append),
        _ => None,
    });
    let with_entry: Vec<_> = appends.filter(|append| !append.storage.is_empty()).collect();
    let [append] = with_entry[..] else { panic!("{with_entry:?}") };
    assert_eq!(append.begin_storage, Some(append.storage[0].position.journal));
    assert!(core.told.iter().any(|it| matches!(it, FromCore::Opened { call: Call(5), .. })));
}

/// Goal: `sync()` waits for all that was confirmed before it was called. Method: it is called while
/// the server's word of where the document stands is on its way, which says nothing of a commit
/// that somebody else had confirmed since.
#[test]
fn a_sync_asks_what_there_is_after_it_was_called() {
    let mut core = Core::default();
    core.open_new(Call(1), HANDLE, "list", Some(X));
    core.welcome(X);
    core.ask(Call(2), HANDLE, Request::Sync);
    core.server_opens(X, 1);
    assert!(!core.is_done(Call(2)), "it is at what there was before");
    let request = core.sent.iter().find_map(|(_, message)| match message {
        ToServer::About { body: ToRoom::Probe { probe }, .. } => Some(*probe),
        _ => None,
    });
    let probe = request.expect("the server is asked");
    let body = FromRoom::Probed { probe, next: Lsn::FIRST };
    core.hear(X, &FromServer::About { channel: Channel(1), body });
    assert!(core.is_done(Call(2)));
}

/// The server, asked anew, says that it has nothing. Says whether call 10, a `sync()`, is done.
fn is_in_step(core: &mut Core) -> bool {
    core.pass(1_000);
    core.sent.clear();
    core.server_opens(X, 2);
    let request = core.sent.iter().rev().find_map(|(_, message)| match message {
        ToServer::About { body: ToRoom::Probe { probe }, .. } => Some(*probe),
        _ => None,
    });
    let body = FromRoom::Probed { probe: request.expect("it is asked"), next: Lsn::FIRST };
    core.hear(X, &FromServer::About { channel: Channel(2), body });
    core.is_done(Call(10))
}

/// The store says where `list` stands: its timeline has these calls alone.
fn read_anew(core: &mut Core, calls: &[Call]) {
    let appends = core.asked.iter().filter_map(|request| match request {
        StoreRequest::Append { append, .. } => Some(append),
        _ => None,
    });
    let record = appends.clone().find_map(|append| append.record.clone()).expect("it has one");
    let journal = appends.clone().find_map(|append| append.timeline_id).expect("it has one");
    let is_kept = |frame: &&TimelineFrame| calls.iter().any(|call| call_id(*call) == frame.call);
    let frames = appends.flat_map(|append| &append.timeline).filter(is_kept);
    let frames: Vec<_> = frames.take(calls.len()).cloned().collect();
    let range = LsnRange::new(Lsn::FIRST, Lsn::FIRST.plus(calls.len() as u64));
    let state = OpenedDocument {
        record: record.into_vec(),
        timeline: Some(TimelineState { journal, range, frames }),
        storage: None,
        db_pages: 0,
        calls: Vec::new(),
        first_page: None,
        is_incomplete: false,
    };
    let (document, life) = (key("list"), Life::NONE);
    core.reply(StoreReply::Opened { document, life, state: Some(Box::new(state)) });
}

/// Goal: a document that was found at its new server stays there, whatever the disk had no room
/// for. Method: the record that names that server is refused, and the document is read anew, from
/// a record of the old server or as one that was never kept.
#[test]
fn a_move_to_another_server_outlives_a_disk_that_had_no_room_to_note_it() {
    for is_kept in [true, false] {
        let mut core = Core::default();
        core.ask_to_open(TAB, Call(1), HANDLE, "list", Some(X));
        core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
        let began = core.last_ticket();
        if is_kept {
            let ticket = core.add(Call(4), "tea");
            core.reply(StoreReply::Durable { ticket });
        }
        core.welcome(X);
        core.server_opens(X, 1);
        core.ask_to_open(OTHER_TAB, Call(2), HANDLE, "list", Some(Y));
        core.welcome(Y);
        core.server_opens(Y, 1);
        core.sent.clear();
        if is_kept {
            core.fail(core.last_ticket());
            read_anew(&mut core, &[Call(4)]);
        } else {
            core.fail(began);
            core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
        }
        core.pass(1_000);
        core.add(Call(3), "milk");
        if !is_kept {
            // Until it was made again nobody wanted a connection.
            core.welcome(Y);
        }
        let opens = |(_, message): &&(String, ToServer)| {
            matches!(message, ToServer::About { body: ToRoom::Open { .. }, .. })
        };
        let asked: Vec<&str> = core.sent.iter().filter(opens).map(|(at, _)| at.as_str()).collect();
        assert_eq!(asked, [Y], "kept at all: {is_kept}");
    }
}

/// Goal: nobody waits for a server that nobody connects to. Method: a synced document is held by a
/// tab that named its server and by one that did not; the first closes it.
#[test]
fn a_sync_that_no_server_was_named_for_is_answered() {
    let mut core = Core::default();
    core.open_new(Call(1), HANDLE, "list", Some(X));
    core.ask_to_open(TAB, Call(2), OTHER, "list", None);
    core.ask(Call(3), OTHER, Request::Sync);
    assert!(!core.has_failed(Call(3)), "the other one named it");
    core.ask(Call(4), HANDLE, Request::Close);
    core.ask(Call(5), OTHER, Request::Sync);
    core.pass(TABS_BACK_MS);
    for call in [Call(3), Call(5)] {
        let failure = core.failure_of(call).expect("it is told");
        assert_eq!(failure.code, ErrorCode::InvalidOption);
    }
    core.ask_to_open(OTHER_TAB, Call(6), HANDLE, "list", Some(X));
    core.ask(Call(7), OTHER, Request::Sync);
    assert!(!core.has_failed(Call(7)));
}

/// Goal: of two tabs that come back to a new core, the one that named no server may be the first.
#[test]
fn a_sync_that_is_asked_again_waits_for_the_tab_that_names_the_server() {
    let mut core = Core::default();
    core.open_new(Call(1), OTHER, "list", Some(X));
    core.ask_to_open(TAB, Call(2), HANDLE, "list", None);
    core.ask(Call(3), OTHER, Request::Close);
    core.ask(Call(4), HANDLE, Request::Sync);
    core.pass(TABS_BACK_MS - 1);
    core.ask_to_open(OTHER_TAB, Call(5), HANDLE, "list", Some(X));
    core.pass(TABS_BACK_MS);
    assert!(!core.has_failed(Call(4)));
}

/// Goal: a device whose disk is full does not connect anew with each write that fails. Method: the
/// only document at a server is read anew after one, and follows on the connection that there is.
#[test]
fn a_failed_append_costs_no_connection() {
    let mut core = Core::default();
    core.open_new(Call(1), HANDLE, "list", Some(X));
    core.welcome(X);
    core.server_opens(X, 1);
    let ticket = core.add(Call(2), "milk");
    core.sent.clear();
    core.fail(ticket);
    assert_eq!(core.sent, [(X.to_owned(), close(1))]);
    read_anew(&mut core, &[]);
    core.pass(1_000);
    let asks = |(server, message): &(String, ToServer)| {
        let is_open = matches!(message, ToServer::About { body: ToRoom::Open { .. }, .. });
        server == X && is_open
    };
    assert!(core.sent.iter().any(asks), "the server has let it in before: {:?}", core.sent);
}

/// Goal: `sync()` waits for all that was issued before it. Method: an append fails, and with it the
/// only trace of a mutation that a tab had asked for again; it is issued anew.
#[test]
fn a_sync_waits_for_what_is_issued_anew() {
    let mut core = Core::default();
    core.open_new(Call(1), HANDLE, "list", Some(X));
    core.welcome(X);
    core.server_opens(X, 1);
    let tickets = [core.add(Call(2), "milk"), core.add(Call(3), "bread")];
    let args = ["id", "title"].map(|name| (name.to_owned(), text("milk"))).to_vec();
    let again = Some(Again { durable: None, copy: None, since: [None; 2] });
    let (id, name) = (call_id(Call(2)), "add".to_owned());
    core.ask(Call(9), HANDLE, Request::Mutate(Mutate { id, name, args, now_ms: 1_000, again }));
    core.ask(Call(10), HANDLE, Request::Sync);
    tickets.into_iter().rev().for_each(|ticket| core.fail(ticket));
    read_anew(&mut core, &[]);
    assert!(!is_in_step(&mut core), "milk has no verdict");
}

/// Goal: `sync()` does not wait for what is issued after it. Method: the document is read anew
/// meanwhile, with more in its timeline than there was when it was called.
#[test]
fn a_sync_does_not_wait_for_what_is_issued_after_it() {
    let mut core = Core::default();
    core.open_new(Call(1), HANDLE, "list", Some(X));
    core.welcome(X);
    core.server_opens(X, 1);
    core.ask(Call(10), HANDLE, Request::Sync);
    let milk = core.add(Call(2), "milk");
    core.reply(StoreReply::Durable { ticket: milk });
    let bread = core.add(Call(3), "bread");
    core.fail(bread);
    read_anew(&mut core, &[Call(2)]);
    assert!(is_in_step(&mut core));
}

#[test]
fn a_sync_of_a_document_that_is_closed_is_answered() {
    let mut core = following_two();
    core.ask(Call(4), HANDLE, Request::Sync);
    core.ask(Call(5), HANDLE, Request::Close);
    assert_eq!(core.failure_of(Call(4)).map(|it| it.code), Some(ErrorCode::DocumentClosed));
}

/// Goal: no call is dropped unanswered. Method: a document is to be destroyed while an open waits,
/// for a server that does not answer.
#[test]
fn a_document_that_is_about_to_be_opened_is_not_destroyed() {
    let mut core = Core::open();
    core.add(Call(2), "milk");
    core.ask(Call(3), HANDLE, Request::Close);
    core.ask_to_open(TAB, Call(4), HANDLE, "list", Some(X));
    core.destroy(Call(5), "list");
    assert_eq!(core.failure_of(Call(5)).map(|it| it.code), Some(ErrorCode::DocumentInUse));
    assert_eq!(core.failure_of(Call(4)), None);
    core.pass(60_000);
    assert_eq!(core.failure_of(Call(4)).map(|it| it.code), Some(ErrorCode::ServerUnreachable));
}

/// Goal: nothing is deleted long after its tab gave that up. Method: a document is to be destroyed
/// while it is handed over for a tab that waits no longer for its open, and so closes it; and again
/// once that has come to nothing.
#[test]
fn a_document_that_is_being_handed_over_is_not_destroyed_behind_that() {
    let mut core = Core::open();
    let milk = core.add(Call(2), "milk");
    core.ask(Call(3), HANDLE, Request::Close);
    core.ask_to_open(TAB, Call(4), HANDLE, "list", Some(X));
    core.ask(Call(5), HANDLE, Request::Close);
    core.reply(StoreReply::Durable { ticket: milk });
    core.destroy(Call(6), "list");
    let failure = core.failure_of(Call(6)).expect("it is told at once");
    assert_eq!(failure.code, ErrorCode::DocumentInUse);
    assert!(failure.message.contains("handed over"), "{}", failure.message);
    core.pass(60_000);
    assert_eq!(core.failure_of(Call(4)).map(|it| it.code), Some(ErrorCode::ServerUnreachable));
    core.destroy(Call(7), "list");
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
    assert_eq!(core.failure_of(Call(7)), None);
    core.reply(StoreReply::Durable { ticket: core.last_destroy() });
    assert!(core.is_done(Call(7)));
}

/// Goal: whoever hands a document over to a server that lets nobody in is told that at once.
/// Method: it has sent away those of another document; it is asked again, and does not answer yet.
#[test]
fn whoever_offers_a_document_to_a_server_that_lets_nobody_in_is_told_at_once() {
    let mut core = Core::default();
    core.open_new(Call(1), OTHER, "other", Some(X));
    core.socket_opens(X);
    core.hear(X, &FromServer::Bye { reason: ByeReason::Version });
    core.open_new(Call(2), HANDLE, "list", None);
    for (call, waits_ms) in [(Call(3), 0), (Call(4), 10_000)] {
        core.pass(waits_ms);
        core.ask_to_open(OTHER_TAB, call, HANDLE, "list", Some(X));
        assert!(core.wakes_now(), "nothing else may happen for long");
        core.pass(0);
        assert_eq!(core.failure_of(call).map(|it| it.code), Some(ErrorCode::Protocol));
    }
}

/// Goal: a document that can be read is opened. Method: an entry of the server cannot be taken in
/// while one tab holds the document; then another one opens it, by the same release.
#[test]
fn what_cannot_be_taken_in_fails_no_opening_that_does_not_need_it() {
    let mut core = following_two();
    let body = FromRoom::Entry(rubbish(JournalId([9; 16])));
    core.hear(X, &FromServer::About { channel: Channel(1), body });
    core.ask_to_open(OTHER_TAB, Call(5), HANDLE, "list", Some(X));
    assert_eq!(core.failure_of(Call(5)), None);
    assert!(core.told.iter().any(|it| matches!(it, FromCore::Opened { call: Call(5), .. })));
}

#[test]
fn a_server_that_does_not_say_where_a_document_stands_is_asked_anew_in_time() {
    let mut core = Core::default();
    core.open_new(Call(1), HANDLE, "list", Some(X));
    core.welcome(X);
    let silent_ms = core.wakes_in_ms();
    assert!(silent_ms <= 10_000, "it asks to be woken in {silent_ms} ms only");
    core.pass(silent_ms);
    assert!(core.sent.contains(&(X.to_owned(), close(1))), "{:?}", core.sent);
}

/// Goal: what a tab was told is synced does not become local under it. Method: the first append of
/// a document finds no room, so that the store knows nothing of it; before its tab asks for
/// anything more, another one opens it, without a server, or by a doctype that does not fit.
#[test]
fn a_document_that_is_made_again_is_made_for_the_tab_that_holds_it() {
    let absent = || {
        let mut core = Core::default();
        core.ask_to_open(TAB, Call(1), HANDLE, "list", Some(X));
        let opened = || StoreReply::Opened { document: key("list"), life: Life::NONE, state: None };
        core.reply(opened());
        core.fail(core.last_ticket());
        core.reply(opened());
        core
    };
    let mut core = absent();
    core.ask_to_open(OTHER_TAB, Call(2), HANDLE, "list", None);
    let ticket = core.add(Call(3), "milk");
    core.reply(StoreReply::Durable { ticket });
    let of_milk = |it: &&FromCore| match it {
        FromCore::Durable { call, .. } | FromCore::Confirmed { call, .. } => *call == Call(3),
        _ => false,
    };
    let answers: Vec<_> = core.told.iter().filter(of_milk).collect();
    assert!(matches!(answers[..], [FromCore::Durable { .. }]), "{answers:?}");

    let mut core = absent();
    let request = Request::Open(Box::new(OpenRequest {
        document: "list".to_owned(),
        user: String::new(),
        server: None,
        doctype: shelves(),
        has_token: false,
        word: 0,
    }));
    core.say_from(OTHER_TAB, ToCore::Ask { call: Call(2), handle: HANDLE, request });
    let failure = core.failure_of(Call(2)).map(|failure| failure.code);
    assert_eq!(failure, Some(ErrorCode::DoctypeMismatch));
}
