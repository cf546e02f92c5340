//! What tabs are told, and when.

use tidelog_client::{Call, FromCore, Handle, Input, Query, Request, ToCore};
use tidelog_pages::StoreReply;
use tidelog_testing::client::core::{Core, is_durable};
use tidelog_testing::client::server::{Server, offline, online_with, talk};
use tidelog_testing::client::*;
use tidelog_types::limits::Limits;
use tidelog_types::{BudgetLimits, ErrorCode, Params};

/// Shows how large the newest of so many notes is.
const NOTES: u32 = 40;
const NOTE_SIZE: usize = 64 * 1024;

fn add_note(device: &mut Device, number: u32) {
    let id = number.to_string();
    titled(device, &id, &format!("{id}{}", "x".repeat(NOTE_SIZE)));
}

/// Goal: W16, a tab that does not listen costs no more memory than a bound. Method: a live query
/// whose rows are large, in a tab that says nothing while they change again and again.
#[test]
fn a_tab_that_is_behind_is_told_only_the_newest_rows_once_it_has_heard() {
    let mut device = Device::new(1);
    device.open(&todos());
    let live = device.watch("select title from todo order by cast(id as integer) desc limit 1");
    device.tabs_hear = false;
    for number in 1..=NOTES {
        add_note(&mut device, number);
    }
    let told = device.rows_told(live);
    let unheard_size_max = Limits::DEFAULT.tab_unheard_size_max;
    assert!(told.len() * NOTE_SIZE <= unheard_size_max + NOTE_SIZE, "{} times", told.len());
    let titles = "select count(*) from todo";
    assert_eq!(device.query(titles), [[integer(i64::from(NOTES))]], "what it asks is answered");

    titled(&mut device, "99", "last");
    device.ask(TAB, vec![ToCore::Heard { lists: u32::MAX }]);
    let newest = device.rows_told(live);
    assert_eq!(newest.len(), told.len() + 1, "those between are passed over");
    assert_eq!(newest.last(), Some(&vec![vec![text("last")]]));
}

/// Two tabs come back to a new core, the one with this word on the server and then the other.
fn come_back(words: [u64; 2]) -> Core {
    let mut core = Core::default();
    for (nth, word) in (1..).zip(words) {
        core.word = word;
        core.open_new(Call(nth), Handle(nth), "list", Some(SERVER));
    }
    core
}

fn set_connected(core: &mut Core, word: u64) -> u64 {
    core.say(ToCore::SetConnected { handle: HANDLE, word });
    core.memo().word
}

#[test]
fn of_two_tabs_that_contradict_each_other_the_last_word_holds_in_whichever_order_they_come() {
    for (a, b) in [(3, 2), (4, 3), (0, 1), (6, 1), (5, 5)] {
        for words in [[a, b], [b, a]] {
            assert_eq!(come_back(words).memo().word, a.max(b), "{words:?}");
        }
    }
}

/// Goal: a document is forgotten with what was said of it once the last tab has let go of it,
/// whatever that tab had asked. Method: queries behind it, where a step answers one request.
#[test]
fn what_waits_behind_a_close_is_answered_with_it() {
    let limits = Limits { slice: BudgetLimits::SMALLEST, ..Limits::DEFAULT };
    let mut core = Core::with_limits(limits);
    core.open_new(Call(1), HANDLE, "list", Some(SERVER));
    set_connected(&mut core, 1);
    let query = || {
        let (sql, params) = ("select 1".to_owned(), Params::NONE);
        Request::Query(Query { sql, params })
    };
    let late = [Call(3), Call(4), Call(5)];
    let mut messages = vec![ToCore::Ask { call: Call(2), handle: HANDLE, request: Request::Close }];
    messages.extend(late.map(|call| ToCore::Ask { call, handle: HANDLE, request: query() }));
    core.step(Input::FromTab { tab: TAB, messages });
    for call in late {
        let failure = core.failure_of(call).expect("nobody reads for it any more");
        assert_eq!(failure.code, ErrorCode::DocumentClosed);
    }
    core.word = 0;
    core.open_new(Call(6), Handle(6), "list", Some(SERVER));
    assert_eq!(core.memo().word, 0);
}

/// Goal: the same though the disk has not answered yet for what the last tab has changed.
#[test]
fn what_was_said_ends_with_who_said_it_whatever_is_still_on_its_way_to_the_disk() {
    let mut core = Core::default();
    core.open_new(Call(1), HANDLE, "list", Some(SERVER));
    set_connected(&mut core, 1);
    core.add(Call(2), "milk");
    core.ask(Call(3), HANDLE, Request::Close);
    assert!(core.is_done(Call(3)) && !is_durable(&core, Call(2)));
    core.word = 0;
    core.ask_to_open(TAB, Call(4), Handle(4), "list", Some(SERVER));
    assert_eq!(core.memo().word, 0);
}

/// A tab that was frozen when another one was called back to the server comes late.
#[test]
fn what_an_app_says_to_a_core_is_not_taken_back_by_a_tab_that_comes_to_it_later() {
    let mut core = come_back([1, 1]);
    assert_eq!(set_connected(&mut core, 2), 2);
    core.word = 1;
    core.open_new(Call(9), Handle(9), "list", Some(SERVER));
    assert_eq!(core.memo().word, 2);
}

/// A tab that was busy may be heard after one that spoke later.
#[test]
fn what_was_said_last_holds_in_whatever_order_it_comes() {
    let mut core = come_back([6, 0]);
    let held = [21, 18, 40, 39].map(|word| set_connected(&mut core, word));
    assert_eq!(held, [21, 21, 40, 40]);
}

/// Goal: the same. Method: a newer release cannot be opened, as rows are against what it adds; a
/// while later they are not any more.
#[test]
fn a_release_that_could_not_be_opened_changes_nothing_later_either() {
    let mut server = Server::default();
    let [mut device, mut other] = [1, 2].map(|seed| {
        let mut device = Device::new(seed);
        device.server_is_up = true;
        let call = device.start_open(TAB, Some(SERVER), &todos());
        device.opened(call);
        device
    });
    for id in ["a", "b"] {
        titled(&mut device, id, id);
    }
    talk(&mut server, &mut [&mut device, &mut other]);
    let mut newer = todos();
    newer.migrations.push("create unique index one_done on todo (done)".to_owned());
    let refused = device.start_open(OTHER_TAB, Some(SERVER), &newer);
    assert_eq!(device.code(refused), ErrorCode::Doctype);
    other.mutate("remove", &[("id", text("b"))]);
    talk(&mut server, &mut [&mut device, &mut other]);
    let sql = "select id from todo union all select name from sqlite_schema where type = 'index'";
    assert_eq!(device.query(sql), other.query(sql));
}

/// Goal: what one tab gives up costs the others nothing. Method: no page is kept in memory, so that
/// whatever is run anew reads; an app has another mutation than it had, and the same tables.
#[test]
fn nothing_is_run_again_since_a_live_query_ended() {
    let mut server = Server::default();
    let limits = Limits { pool_pages_max: 0, ..Limits::DEFAULT };
    let mut device = online_with(1, limits, &mut server);
    offline(&mut device);
    device.mutate("note", &[("title", text("milk"))]);
    device.kill_core();
    let mut newer = todos();
    newer.mutations.push(define("forget", &[], &["delete from note"]));
    let call = device.start_open(TAB, Some(SERVER), &newer);
    device.opened(call);
    let reads = device.reads();
    device.ask(TAB, vec![ToCore::GiveUp { call: Call(1) }]);
    assert_eq!(device.reads(), reads);
}

/// Goal: all devices and the server show the same once all is in step. Method: a tab of a newer
/// release is gone before the document was opened for it, since a page was missing.
#[test]
fn a_release_whose_tab_is_gone_before_the_document_is_open_changes_nothing() {
    let mut server = Server::default();
    let mut device = Device::with_pool(1, 0);
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    device.mutate("note", &[("title", text("milk"))]);
    talk(&mut server, &mut [&mut device]);
    device.lose_page_server();
    let mut newer = todos();
    newer.migrations.push("alter table todo add column star integer".to_owned());
    let call = device.start_open(OTHER_TAB, Some(SERVER), &newer);
    assert_eq!(device.answers(call), Vec::<&FromCore>::new(), "it waits for pages");
    device.step(Input::TabClosed { tab: OTHER_TAB });
    device.lend();
    device.pass(1_000);
    talk(&mut server, &mut [&mut device]);
    let failure = device.try_query("select star from todo").expect_err("there is no such column");
    assert_eq!(failure.code, ErrorCode::Query);
    assert_eq!(device.query("select text from note"), [[text("milk")]]);
}

/// Goal: nothing is counted for tabs that are gone, however many come and go. Method: one is closed
/// while its mutation is on the way to the disk.
#[test]
fn a_tab_that_is_gone_is_told_nothing() {
    let mut core = Core::open();
    let ticket = core.add(Call(2), "milk");
    core.told.clear();
    core.step(Input::TabClosed { tab: TAB });
    core.reply(StoreReply::Durable { ticket });
    assert_eq!(core.told, []);
}
