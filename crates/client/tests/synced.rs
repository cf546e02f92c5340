//! A document that is synced with a server.

use tidelog_client::{Connection, FromCore, Input, PageServerFailure, PageServerId, ToCore};
use tidelog_document::hash_part;
use tidelog_sync::{CodedPage, EntryPart, FromRoom, FromServer, ToRoom, ToServer};
use tidelog_testing::client::server::{Server, back_online, offline, online, online_with, talk};
use tidelog_testing::client::*;
use tidelog_types::limits::Limits;
use tidelog_types::{BudgetLimits, EntryHash, ErrorCode, Lineage, Lsn, Pgid, UnservedKind};

fn frames(device: &Device) -> Vec<usize> {
    let count = |message: &ToServer| match message {
        ToServer::About { body: ToRoom::Frames { frames, .. }, .. } => Some(frames.len()),
        _ => None,
    };
    device.sent.iter().filter_map(count).collect()
}

#[test]
fn a_mutation_is_sent_only_once_it_is_durable_here() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    device.disk.hold_flushes(true);
    let milk = add(&mut device, "milk");
    add(&mut device, "bread");
    assert_eq!(frames(&device), [] as [usize; 0]);
    assert_eq!(
        device.positions(),
        "timeline 1..3 durable 1 acked 1 | storage durable 2 visible 2 | pending 2"
    );
    device.flushed();
    assert_eq!(device.fate(milk), "durable 1");
    assert_eq!(frames(&device), [2]);
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.fate(milk), "durable 1, confirmed 2");
    assert_eq!(
        device.positions(),
        "timeline 3..3 durable 3 acked 3 | storage durable 2 visible 4 | pending 0"
    );
    device.pass(1_000);
    device.flushed();
    assert_eq!(
        device.positions(),
        "timeline 3..3 durable 3 acked 3 | storage durable 4 visible 4 | pending 0"
    );
}

/// The server answers each message, which shows that the line carries something: however much
/// waits, no message takes long.
#[test]
fn what_waits_for_the_server_comes_in_messages_of_a_bounded_size() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    offline(&mut device);
    for id in 0..10 {
        titled(&mut device, &id.to_string(), &id.to_string().repeat(60_000));
    }
    titled(&mut device, "large", &"x".repeat(600_000));
    device.server_is_up = true;
    device.pass(15_000);
    let mut sent = Vec::new();
    while !device.sent.is_empty() {
        sent.extend(frames(&device));
        for message in device.take_sent() {
            let answers = server.hear(device.number, message);
            answers.iter().for_each(|answer| device.hear_server(answer));
        }
    }
    assert_eq!(sent, [4, 4, 2, 1]);
    talk(&mut server, &mut [&mut device]);
    assert_eq!(count(&mut device), [[tidelog_types::Value::Integer(11)]]);
}

/// The five pages that all of many entries change, and what is kept of ten entries beside those.
const UNSTORED_SIZE_MAX: usize = 5 * 4096 + 10 * 128;

/// Goal: what a server goes on to send while nobody can write it down takes a bounded amount of
/// memory, and what was not taken in comes once somebody can. Method: no page server is there as
/// another device writes; what is said to be received is what lets the server send more, and so
/// does a new connection.
#[test]
fn a_server_is_asked_for_no_more_than_the_disk_may_lack() {
    let limits = Limits {
        entries_unstored_size_max: UNSTORED_SIZE_MAX,
        entries_in_flight_max: 1,
        ..Limits::DEFAULT
    };
    let mut server = Server::default();
    let (mut first, mut second) = (online_with(1, limits, &mut server), online(2, &mut server));
    let said = |device: &mut Device| {
        let said = device.take_sent().into_iter().filter_map(|message| match message {
            ToServer::About { body, .. } => Some(body),
            _ => None,
        });
        said.collect::<Vec<ToRoom>>()
    };
    let received = |said: &[ToRoom]| {
        let next = said.iter().rev().find_map(|body| match body {
            ToRoom::Received { next } => Some(*next),
            _ => None,
        });
        next.expect("some of it is")
    };
    let write = |server: &mut Server, device: &mut Device, first: u32| {
        (first..first + 60).for_each(|n| _ = add(device, &n.to_string()));
        talk(server, &mut [device]);
    };
    first.lose_page_server();
    let before = server.position().next;
    write(&mut server, &mut second, 0);
    server.news(1).iter().for_each(|news| first.hear_server(news));
    assert_eq!(count(&mut first), [[integer(60)]], "it is shown all the same");
    let next = received(&said(&mut first));
    assert!(before < next && next < before.plus(20), "{next} of {before} and 60 more");

    first.lend();
    assert_eq!(received(&said(&mut first)), server.position().next);

    first.lose_page_server();
    write(&mut server, &mut second, 100);
    server.news(1).iter().for_each(|news| first.hear_server(news));
    first.lose_socket();
    server.forget(1);
    first.pass(300);
    talk(&mut server, &mut [&mut first]);
    write(&mut server, &mut second, 200);
    talk(&mut server, &mut [&mut first]);
    assert_eq!(count(&mut first), [[integer(120)]], "it is not followed");
    first.lend();
    talk(&mut server, &mut [&mut first]);
    assert_eq!(count(&mut first), [[integer(180)]]);
    assert_eq!(first.status().connection, Connection::Online);
}

/// Goal: a server hears of what it sent long before it waits for that, and not of each entry.
/// Method: of small entries an eighth of the window is told, of large ones an eighth of its bytes;
/// a channel that is opened anew begins anew.
#[test]
fn a_server_is_told_what_was_received_now_and_then() {
    let received = |device: &mut Device| -> Vec<Lsn> {
        let said = device.take_sent().into_iter().filter_map(|message| match message {
            ToServer::About { body: ToRoom::Received { next }, .. } => Some(next),
            _ => None,
        });
        said.collect()
    };
    let said_after = |limits: Limits, count: u32| {
        let mut server = Server::default();
        let mut first = online_with(1, limits, &mut server);
        let mut second = online(2, &mut server);
        let before = server.position().next;
        let mut said = Vec::new();
        for n in 0..count {
            add(&mut second, &n.to_string());
            talk(&mut server, &mut [&mut second]);
            server.news(1).iter().for_each(|news| first.hear_server(news));
            said.extend(received(&mut first).iter().map(|next| next.get() - before.get()));
        }
        said
    };
    let few = Limits { entries_in_flight_max: 80, ..Limits::DEFAULT };
    assert_eq!(said_after(few, 35), [9, 19, 29], "with the one that begins the document");
    // Each has two pages or more.
    let small = Limits { entries_in_flight_size_max: 8 * 8 * 4096, ..Limits::DEFAULT };
    let said = said_after(small, 20);
    assert!((4..=10).contains(&said.len()) && *said.last().unwrap() > 15, "{said:?}");

    let mut server = Server::default();
    let mut first = online_with(1, few, &mut server);
    (0..9).for_each(|n| _ = add(&mut first, &n.to_string()));
    talk(&mut server, &mut [&mut first]);
    first.lose_socket();
    server.forget(1);
    first.pass(300);
    talk(&mut server, &mut [&mut first]);
    first.take_sent();
    (10..19).for_each(|n| _ = add(&mut first, &n.to_string()));
    talk(&mut server, &mut [&mut first]);
    assert_eq!(received(&mut first), [], "the server was told as it was asked anew");
}

/// Goal: the same, where the data are cleared before anybody can write it down: all is shown then,
/// and kept for no disk.
#[test]
fn a_server_is_asked_for_all_once_there_is_no_disk_for_it() {
    let limits = Limits {
        entries_unstored_size_max: UNSTORED_SIZE_MAX,
        entries_in_flight_max: 1,
        ..Limits::DEFAULT
    };
    let mut server = Server::default();
    let (mut first, mut second) = (online_with(1, limits, &mut server), online(2, &mut server));
    first.lose_page_server();
    (0..60).for_each(|n| _ = add(&mut second, &n.to_string()));
    talk(&mut server, &mut [&mut second]);
    server.news(1).iter().for_each(|news| first.hear_server(news));
    let next = server.position().next;
    let all_is_received = |device: &mut Device| {
        device.take_sent().iter().any(|message| match message {
            ToServer::About { body: ToRoom::Received { next: received }, .. } => *received == next,
            _ => false,
        })
    };
    assert!(!all_is_received(&mut first));
    let failure = PageServerFailure::new(UnservedKind::Lost, "");
    first.step(Input::PageServerFailed { server: PageServerId(9), failure });
    assert!(all_is_received(&mut first));
}

/// Goal: who forgets to name the server of a document is told why nothing is synced. Method: one
/// tab names it and closes, the other one does not, and then leaves on purpose.
#[test]
fn who_opens_a_document_of_a_server_without_one_is_told_that() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    device.close(TAB);
    let again = device.start_open(TAB, None, &todos());
    device.opened(again);
    add(&mut device, "milk");
    let status = device.status();
    assert_eq!((status.connection, status.pending), (Connection::Offline, 1));
    let error = status.error.as_ref().expect("said");
    assert_eq!(error.code, ErrorCode::ServerUnreachable);
    assert!(error.message.contains(SERVER) && error.message.contains("without a server"));
    let other = device.start_open(OTHER_TAB, Some(SERVER), &todos());
    device.opened(other);
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.status().error, None);
    assert_eq!(device.status().connection, Connection::Online);
}

#[test]
fn mutations_go_on_without_a_server_and_survive_until_it_is_back() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    add(&mut device, "before");
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    assert_eq!(device.status().connection, Connection::Offline);
    assert_eq!(
        device.status().error.as_ref().map(|it| it.code),
        Some(ErrorCode::ServerUnreachable)
    );
    for n in 0..10 {
        add(&mut device, &n.to_string());
    }
    device.cut_power();
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    assert_eq!(device.status().pending, 10);
    assert_eq!(count(&mut device), [[integer(11)]]);
    back_online(&mut server, &mut device);
    assert_eq!(device.status().pending, 0);
    assert_eq!(device.status().error, None);
    assert!(device.image() == server.image(), "the two sides differ");
}

/// Goal: no more waits for a server than whoever opens the document has memory for. Method: what is
/// issued without a server passes the bound, before and after the core has ended.
#[test]
fn only_so_much_is_issued_that_has_no_verdict() {
    let mut server = Server::default();
    let limits = Limits { undecided_size_max: 4_000, ..Limits::DEFAULT };
    let mut device = online_with(1, limits, &mut server);
    offline(&mut device);
    let long = "x".repeat(2_000);
    let [first, second] = ["a", "b"].map(|id| titled(&mut device, id, &format!("{id}{long}")));
    assert_eq!([first, second].map(|call| device.fate(call)), ["durable 1", "durable 2"]);
    let third = titled(&mut device, "c", "short");
    assert_eq!(device.fate(third), "failed: BudgetExceeded");
    device.cut_power();
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    assert_eq!(device.status().pending, 2);
    let fourth = titled(&mut device, "d", "short");
    assert_eq!(device.fate(fourth), "failed: BudgetExceeded");
    back_online(&mut server, &mut device);
    assert_eq!(device.status().pending, 0);
    let fifth = titled(&mut device, "e", "short");
    talk(&mut server, &mut [&mut device]);
    assert!(device.fate(fifth).starts_with("durable"), "{}", device.fate(fifth));
    assert_eq!(count(&mut device), [[integer(3)]]);
}

#[test]
fn a_document_made_offline_is_the_servers_once_it_is_there() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    let milk = add(&mut device, "milk");
    assert_eq!(device.fate(milk), "durable 1");
    back_online(&mut server, &mut device);
    assert_eq!(device.fate(milk), "durable 1, confirmed 2");
    device.pass(1_000);
    assert_eq!(
        device.positions(),
        "timeline 2..2 durable 2 acked 2 | storage durable 3 visible 3 | pending 0"
    );
}

/// Goal: where many mutations are pending, what others do causes few of them to be run again, and
/// shows all the same. Method: nothing of ours reaches the server, where another device goes on:
/// its changes are seen after as many milliseconds as there are mutations to run again, the server
/// is told that they have come, and a second tab need not wait for that.
#[test]
fn changes_of_others_show_though_many_mutations_are_pending() {
    let mut server = Server::default();
    let limits = Limits { entries_in_flight_max: 1, ..Limits::DEFAULT };
    let (mut first, mut second) = (online_with(1, limits, &mut server), online(2, &mut server));
    offline(&mut first);
    for n in 0..60 {
        add(&mut first, &n.to_string());
    }
    first.server_is_up = true;
    first.pass(1_000);
    let is_frames =
        |it: &ToServer| matches!(it, ToServer::About { body: ToRoom::Frames { .. }, .. });
    while first.sent.first().is_some_and(|message| !is_frames(message)) {
        let message = first.sent.remove(0);
        server.hear(1, message).iter().for_each(|answer| first.hear_server(answer));
    }
    first.sent.clear();
    let mut theirs = |id: &str, server: &mut Server, first: &mut Device| {
        add(&mut second, id);
        talk(server, &mut [&mut second]);
        server.news(1).iter().for_each(|news| first.hear_server(news));
    };
    theirs("theirs", &mut server, &mut first);
    theirs("theirs too", &mut server, &mut first);
    assert_eq!(count(&mut first), [[integer(60)]]);
    let mut received = first.sent.iter().filter_map(|message| match message {
        ToServer::About { body: ToRoom::Received { next }, .. } => Some(*next),
        _ => None,
    });
    assert_eq!(received.next_back(), Some(server.position().next));
    let tab = first.start_open(OTHER_TAB, Some(SERVER), &todos());
    first.opened(tab);
    first.pass(59);
    assert_eq!(count(&mut first), [[integer(60)]]);
    first.pass(1);
    assert_eq!(count(&mut first), [[integer(62)]]);
    assert_eq!(first.status().pending, 60);
    offline(&mut first);
    back_online(&mut server, &mut first);
    assert_eq!((first.status().pending, count(&mut first)), (0, vec![vec![integer(62)]]));
}

#[test]
fn sync_waits_for_every_verdict_and_for_what_the_server_has() {
    let mut server = Server::default();
    let (mut first, mut second) = (online(1, &mut server), online(2, &mut server));
    offline(&mut second);
    let mine = add(&mut second, "mine");
    let sync = second.sync();
    add(&mut first, "theirs");
    talk(&mut server, &mut [&mut first]);
    assert_eq!(second.answers(sync).len(), 0);
    back_online(&mut server, &mut second);
    assert!(matches!(second.answer(sync), FromCore::Done { .. }));
    assert_eq!(second.fate(mine), "durable 1, confirmed 3");
    assert_eq!(count(&mut second), [[integer(2)]]);
}

/// Goal: what nobody waits for is not waited for. Method: a sync is given up before its server is
/// back, as is a query before the document is there.
#[test]
fn what_was_given_up_is_not_answered() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    offline(&mut device);
    let sync = device.sync();
    device.ask(TAB, vec![ToCore::GiveUp { call: sync }]);
    let kept = device.sync();
    back_online(&mut server, &mut device);
    assert!(matches!(device.answer(kept), FromCore::Done { .. }));
    assert_eq!(device.answers(sync).len(), 0);
}

#[test]
fn a_document_is_not_destroyed_while_mutations_are_pending_unless_by_force() {
    let mut device = Device::new(1);
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    add(&mut device, "milk");
    device.close(TAB);
    let refused = device.destroy(false);
    assert_eq!(device.code(refused), ErrorCode::Pending);
    let destroyed = device.destroy(true);
    assert!(matches!(device.answer(destroyed), FromCore::Done { .. }));
    let call = device.start_open(TAB, Some(SERVER), &todos());
    assert_eq!(device.opened(call).pending, 0);
    assert_eq!(count(&mut device), [[integer(0)]]);
}

#[test]
fn a_killed_core_leaves_undecided_calls_to_the_next_one() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    let decided = add(&mut device, "decided");
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    let undecided = add(&mut device, "undecided");
    device.kill_core();
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    device.ask_again(&[decided, undecided]);
    assert_eq!(device.fate(decided), "durable 1, confirmed 2");
    assert_eq!(device.fate(undecided), "durable 2");
    back_online(&mut server, &mut device);
    assert_eq!(device.fate(undecided), "durable 2, confirmed 3");
    assert_eq!(count(&mut device), [[integer(2)]]);
}

#[test]
fn a_call_that_was_decided_before_its_tab_asks_again_is_not_run_again() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    offline(&mut device);
    let milk = add(&mut device, "milk");
    device.kill_core();
    // Another tab is first to notice, and what was undecided is decided for it.
    device.start_open(OTHER_TAB, Some(SERVER), &todos());
    back_online(&mut server, &mut device);
    let call = device.start_open(TAB, Some(SERVER), &todos());
    assert_eq!(device.opened(call).pending, 0);
    device.ask_again(&[milk]);
    assert_eq!(device.fate(milk), "durable 1, confirmed 2");
    assert_eq!(count(&mut device), [[integer(1)]]);
    // So does one that greets the same core once more, on a port of its own.
    let bread = add(&mut device, "bread");
    talk(&mut server, &mut [&mut device]);
    device.told.clear();
    device.ask_again(&[bread]);
    assert_eq!(device.fate(bread), "durable 2, confirmed 3");
    assert_eq!(count(&mut device), [[integer(2)]]);
}

#[test]
fn a_document_that_is_closed_with_something_on_its_way_and_opened_again_follows_the_server() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    device.disk.hold_flushes(true);
    let milk = add(&mut device, "milk");
    device.close(TAB);
    assert_eq!(device.socket, None, "nobody needs the server now");
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    device.disk.hold_flushes(false);
    device.flushed();
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.fate(milk), "durable 1, confirmed 2");
    assert_eq!(device.status().connection, Connection::Online);
    assert_eq!(device.status().pending, 0);
}

#[test]
fn an_app_that_stays_away_keeps_its_mutations_until_it_goes_back() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    device.ask(TAB, vec![ToCore::SetConnected { handle: HANDLE, word: 1 }]);
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.status().connection, Connection::Offline);
    let milk = add(&mut device, "milk");
    device.pass(60_000);
    assert_eq!(device.fate(milk), "durable 1");
    device.ask(TAB, vec![ToCore::SetConnected { handle: HANDLE, word: 2 }]);
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.fate(milk), "durable 1, confirmed 2");
}

#[test]
fn a_migration_that_fails_here_fails_its_tab_and_nobody_else() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    for title in ["a", "b"] {
        device.mutate("note", &[("title", text(title))]);
    }
    talk(&mut server, &mut [&mut device]);
    let mut newer = todos();
    newer.migrations.push(
        "create table one (x integer primary key) strict;
                           insert into one select 1 from note"
            .to_owned(),
    );
    let refused = device.start_open(OTHER_TAB, Some(SERVER), &newer);
    assert_eq!(device.code(refused), ErrorCode::Doctype);
    let milk = add(&mut device, "milk");
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.fate(milk), "durable 3, confirmed 4");
    assert_eq!(device.status().error, None);
}

#[test]
fn a_rebase_finds_pages_that_a_layer_covers_for_readers() {
    // With no page kept in memory, base pages under the layers are gone when a rebase needs them.
    let mut server = Server::default();
    let mut other = online(2, &mut server);
    let limits = Limits { pool_pages_max: 0, ..Limits::DEFAULT };
    let mut device = online_with(1, limits, &mut server);
    for n in 0..20 {
        add(&mut device, &n.to_string());
    }
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    for n in 20..25 {
        add(&mut device, &n.to_string());
    }
    add(&mut other, "theirs");
    talk(&mut server, &mut [&mut other]);
    back_online(&mut server, &mut device);
    assert_eq!(device.status().error, None);
    assert_eq!(device.status().pending, 0);
    assert_eq!(count(&mut device), [[integer(26)]]);
}

#[test]
fn an_opening_between_two_parts_of_an_entry_lets_it_begin_anew() {
    let mut server = Server::default();
    let (mut writer, mut device) = (online(1, &mut server), online(2, &mut server));
    add(&mut writer, "milk");
    talk(&mut server, &mut [&mut writer]);
    let news = server.news(device.number);
    let [FromServer::About { channel, body: FromRoom::Entry(part) }] = news.as_slice() else {
        panic!("{news:?}")
    };
    let say = |body| FromServer::About { channel: *channel, body };
    let absent =
        (1..=part.db_pages).map(Pgid).find(|it| part.pages.iter().all(|page| page.pgid != *it));
    let (pgid, page) =
        (absent.expect("not all pages change"), tidelog_types::Page::zeroed().with(0, b"old"));
    let old = CodedPage::new(pgid, &page, None);
    let hash = hash_part(EntryHash::default(), [(pgid, &page)], part.db_pages);
    let begun = EntryPart { pages: vec![old].into(), hash, is_last: false, ..part.clone() };
    device.hear_server(&say(FromRoom::Entry(begun)));
    let (storage, wanted, lives) = (server.position(), Lsn::FIRST, Lineage::default());
    let from = Lsn::FIRST;
    device.hear_server(&say(FromRoom::Opened { storage, from, wanted, lives }));
    device.hear_server(&news[0]);
    assert_eq!(count(&mut device), [[tidelog_types::Value::Integer(1)]]);
}

/// Goal: a server whose window is full hears of what it sent. Method: a channel that is opened
/// anew, with a doctype more, gets again what was taken in before the answer came.
#[test]
fn an_entry_that_comes_again_is_acknowledged_again() {
    let mut server = Server::default();
    let limits = Limits { entries_in_flight_max: 1, ..Limits::DEFAULT };
    let (mut writer, mut device) = (online(1, &mut server), online_with(2, limits, &mut server));
    add(&mut writer, "milk");
    talk(&mut server, &mut [&mut writer]);
    let news = server.news(device.number);
    let [FromServer::About { channel, body: FromRoom::Entry(_) }] = news.as_slice() else {
        panic!("{news:?}")
    };
    let (from, storage) = (Lsn::FIRST, server.position());
    let (wanted, lives) = (Lsn::FIRST, Lineage::default());
    let opened = FromRoom::Opened { storage, from, wanted, lives };
    let opened = FromServer::About { channel: *channel, body: opened };
    let is_received = |said: &ToServer| {
        let ToServer::About { body: ToRoom::Received { next }, .. } = said else { return false };
        *next == storage.next
    };
    device.hear_server(&news[0]);
    assert!(device.take_sent().iter().any(is_received));
    device.hear_server(&opened);
    device.take_sent();
    device.hear_server(&news[0]);
    let sent = device.take_sent();
    assert!(sent.iter().any(is_received), "the server would wait for ever: {sent:?}");
}

/// Goal: an app can tell what is empty from what is not here yet. Method: a device opens a list of
/// another one, of which the server says where it stands before it sends any of it; then its core
/// dies, and the next one has no server.
#[test]
fn a_copy_says_from_when_on_it_has_had_all_that_its_server_has() {
    let mut server = Server::default();
    let mut first = online(1, &mut server);
    add(&mut first, "milk");
    talk(&mut server, &mut [&mut first]);
    assert!(first.status().synced);

    let mut device = Device::new(2);
    device.lend();
    let call = device.start_open(TAB, Some(SERVER), &todos());
    assert!(!device.opened(call).synced);
    device.server_is_up = true;
    device.pass(1_000);
    while !device.sent.is_empty() {
        for message in device.take_sent() {
            let answers = server.hear(device.number, message);
            answers.iter().for_each(|answer| device.hear_server(answer));
        }
    }
    assert_eq!((device.status().connection, device.status().synced), (Connection::Online, false));
    let entries = server.news(device.number);
    assert!(!entries.is_empty());
    entries.iter().for_each(|entry| device.hear_server(entry));
    assert!(device.status().synced);

    device.flushed();
    offline(&mut device);
    device.kill_core();
    let call = device.start_open(TAB, Some(SERVER), &todos());
    assert!(device.opened(call).synced, "it is on the disk");
}

/// Goal: whoever is shown an empty list, and told that the copy has had all, can believe it.
/// Method: one step is spent with taking in what the server has, so that live queries run in later
/// ones.
#[test]
fn a_copy_is_said_to_have_had_all_once_live_queries_show_it() {
    let mut server = Server::default();
    let mut first = online(1, &mut server);
    add(&mut first, "milk");
    talk(&mut server, &mut [&mut first]);

    let limits = Limits { slice: BudgetLimits::SMALLEST, ..Limits::DEFAULT };
    let mut device = Device::with_limits(2, limits);
    device.lend();
    let call = device.start_open(TAB, Some(SERVER), &todos());
    assert!(!device.opened(call).synced);
    let live = device.watch("select count(*) from todo");
    let other = device.watch("select title from todo");
    device.told.clear();
    back_online(&mut server, &mut device);
    let told = device.told.iter().map(|(_, message)| message);
    let told: Vec<&FromCore> = told.collect();
    let is_synced = |it: &&FromCore| matches!(it, FromCore::Status { status, .. } if status.synced);
    let synced = told.iter().position(is_synced).expect("it says so in the end");
    for watch in [live, other] {
        let shown = |it: &&FromCore| matches!(it, FromCore::Rows { call, .. } if *call == watch);
        let last = told.iter().rposition(shown).expect("it shows what has come");
        assert!(last < synced, "{watch:?} shows at {last} what is said at {synced} to be here");
    }
}
