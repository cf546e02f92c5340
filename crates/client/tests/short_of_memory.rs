//! A device that is short of memory for a while.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tidelog_client::{FromCore, TabId};
use tidelog_document::Doctype;
use tidelog_sqlite::{be_short_beyond, held_size};
use tidelog_testing::client::server::{Server, back_online, offline, online, talk};
use tidelog_testing::client::*;
use tidelog_types::{ErrorCode, Value};

/// Goal: what a device had no memory to show for a moment is shown soon after, though nothing else
/// happens. Method: a core starts without a server while SQLite gets no memory, so that it builds
/// no layers; once there is some, time goes by.
#[test]
fn layers_that_found_no_memory_are_built_once_there_is_some() {
    let _alone = alone();
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    add(&mut device, "theirs");
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    add(&mut device, "ours");
    device.kill_core();
    be_short_beyond(Some(0));
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    device.pass(10_000);
    be_short_beyond(None);
    let live = device.watch("select count(*) from todo");
    let seen = |device: &Device| match device.answers(live).last() {
        Some(FromCore::Rows { rows, .. }) => rows.decode(),
        other => panic!("{other:?}"),
    };
    assert_eq!(seen(&device), [[integer(1)]]);
    device.pass(16_000);
    assert_eq!(seen(&device), [[integer(2)]]);
    let error = device.status().error.as_ref().map(|error| error.code);
    assert_eq!(error, Some(ErrorCode::ServerUnreachable), "nothing else is wrong");
    back_online(&mut server, &mut device);
    assert_eq!((&device.status().error, device.status().pending), (&None, 0));
}

/// The same of the doctype of a tab. Method: a tab opens the document by a newer release, which the
/// disk has no room to note beside a mutation; as it is read anew, SQLite gets no memory.
#[test]
fn a_doctype_that_found_no_memory_is_learnt_again_once_there_is_some() {
    let _alone = alone();
    let mut newer = todos();
    newer.migrations.push("alter table todo add column star integer".to_owned());
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    offline(&mut device);
    device.lose_page_server();
    let (call, open) = device.open_message(Some(SERVER), &newer);
    let (_, large) = device.mutation("note", &[("title", text(&"x".repeat(3 << 20)))]);
    device.ask(OTHER_TAB, vec![open, large]);
    device.opened(call);
    device.disk.set_capacity(Some(device.disk.used() + (1 << 20)));
    be_short_beyond(Some(0));
    device.lend();
    device.try_query("select star from todo").expect_err("there is no memory");
    be_short_beyond(None);
    let call = device.start_query(OTHER_TAB, "select star from todo");
    assert_eq!(device.code(call), ErrorCode::Engine, "it is tried again later");
    assert_eq!(device.query("select count(*) from todo"), [[integer(0)]], "for the older release");
    device.pass(16_000);
    device.query("select star from todo");
}

/// Bytes that the migration of [`starred`] needs.
const MUCH: u64 = 15_000_000;

/// A newer release of the todo list.
fn starred() -> Doctype {
    let mut newer = todos();
    newer.migrations.push(format!(
        "alter table todo add column star integer;
         insert into note select '' where length(zeroblob({MUCH}) || '') > {MUCH}"
    ));
    newer.mutations.push(define("rate", &[], &["update todo set star = 1"]));
    newer
}

/// What SQLite holds is counted for all tests together: those that measure it wait for each other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on there is memory for all but that migration.
fn be_short_of_much() {
    be_short_beyond(Some(held_size()[0] + MUCH / 2));
}

/// Goal: a passing want of memory is no fault of a doctype, nor of what is asked by it, and what
/// was opened by a newer one shows it once there is memory again. Who needs nothing newer goes on.
/// Method: a document is opened by a newer release on a full disk, and so read anew; there is
/// memory for all but the migration.
#[test]
fn a_migration_that_finds_no_memory_is_run_once_there_is_some() {
    let _alone = alone();
    let mut device = Device::new(2);
    device.open(&todos());
    add(&mut device, "milk");
    device.fill_disk();
    let call = device.start_open(OTHER_TAB, None, &starred());
    device.opened(call);
    device.disk.set_full(false);
    be_short_of_much();
    let call = device.start_query(OTHER_TAB, "select star from todo");
    assert_eq!(device.code(call), ErrorCode::Engine, "it has no such column yet");
    let (call, message) = device.mutation("rate", &[]);
    device.ask(OTHER_TAB, vec![message]);
    assert_eq!(device.code(call), ErrorCode::Engine);
    let bread = add(&mut device, "bread");
    assert!(device.fate(bread).starts_with("durable"), "{}", device.fate(bread));
    assert_eq!(device.query("select count(*) from todo"), [[integer(2)]], "for the older release");
    let sync = device.sync();
    assert!(matches!(device.answer(sync), FromCore::Done { .. }));
    be_short_beyond(None);
    let appends = device.appends();
    device.query("select count(*) from todo");
    assert_eq!(device.appends(), appends, "it is not run again for who does not need it");
    let call = device.start_query(OTHER_TAB, "select star from todo");
    assert!(matches!(device.answer(call), FromCore::Rows { .. }), "{}", device.fate(call));
}

/// Goal: what became of a mutation is found out though there is no memory for what another tab
/// needs. Method: it is asked for again before it is written, and before what the other tab has
/// issued behind it, for which there is no room.
#[test]
fn a_mutation_is_looked_for_though_there_is_no_memory_for_a_newer_release() {
    let _alone = alone();
    let mut device = Device::new(2);
    device.open(&todos());
    device.lose_page_server();
    let milk = add(&mut device, "milk");
    let (call, open) = device.open_message(None, &starred());
    let (large, note) = device.mutation("note", &[("title", text(&"x".repeat(3 << 20)))]);
    device.ask(OTHER_TAB, vec![open, note]);
    device.opened(call);
    device.ask_again(&[milk]);
    device.disk.set_capacity(Some(device.disk.used() + (1 << 20)));
    be_short_of_much();
    device.lend();
    assert_eq!(device.code(large), ErrorCode::StorageFull);
    assert_eq!(device.fate(milk), "durable 2, confirmed 2, durable 2, confirmed 2");
    be_short_beyond(None);
}

/// Goal: a live query of a newer release outlives that there is no memory for its schema. Method:
/// the document is read anew below it, as the disk has no room for what was issued with it.
#[test]
fn a_live_query_goes_on_once_there_is_memory_for_its_release() {
    let _alone = alone();
    let mut local = Device::new(2);
    local.open(&todos());
    let mut synced = online(2, &mut Server::default());
    offline(&mut synced);
    for (mut device, url) in [(local, None), (synced, Some(SERVER))] {
        device.lose_page_server();
        let (call, open) = device.open_message(url, &starred());
        let (_, note) = device.mutation("note", &[("title", text(&"x".repeat(3 << 20)))]);
        device.ask(OTHER_TAB, vec![open, note]);
        device.opened(call);
        let live = device.watch_in(OTHER_TAB, "select star from todo");
        device.disk.set_capacity(Some(device.disk.used() + (1 << 20)));
        be_short_of_much();
        device.lend();
        let [FromCore::Rows { .. }, FromCore::Failed { failure, .. }] = device.answers(live)[..]
        else {
            panic!("{}", device.fate(live))
        };
        assert_eq!(failure.code, ErrorCode::Engine, "{failure:?}");
        assert_eq!(device.query("select count(*) from todo"), [[integer(0)]]);
        be_short_beyond(None);
        device.pass(16_000);
        let last = device.answers(live).pop();
        assert!(matches!(last, Some(FromCore::Rows { .. })), "{}", device.fate(live));
    }
}

/// Goal: nobody is told for good that a release is wrong for which there was no memory. Method: a
/// document is read anew below tabs of several newer releases, of which only one is what it would
/// be migrated to; they ask while the layers wait to be built anew, and as they are.
#[test]
fn every_newer_release_waits_for_memory() {
    const THIRD_TAB: TabId = TabId(3);
    let _alone = alone();
    let mut renamed = starred();
    renamed.mutations.push(define("unrate", &[], &["update todo set star = null"]));
    let mut dated = starred();
    dated.migrations.push("alter table todo add column due integer".to_owned());
    for (other, third) in [(starred(), renamed), (dated, starred())] {
        let mut device = online(2, &mut Server::default());
        offline(&mut device);
        device.lose_page_server();
        let (call, open) = device.open_message(Some(SERVER), &other);
        let (_, note) = device.mutation("note", &[("title", text(&"x".repeat(3 << 20)))]);
        device.ask(OTHER_TAB, vec![open, note]);
        device.opened(call);
        let call = device.start_open(THIRD_TAB, Some(SERVER), &third);
        device.opened(call);
        device.disk.set_capacity(Some(device.disk.used() + (1 << 20)));
        be_short_of_much();
        device.lend();
        for later_ms in [0, 1_000] {
            device.now_ms += later_ms;
            for tab in [OTHER_TAB, THIRD_TAB] {
                let (call, query) = device.query_message("select star from todo");
                let (rated, rate) = device.mutation("rate", &[]);
                device.ask(tab, vec![query, rate]);
                for call in [call, rated] {
                    let failure = device.failure(call);
                    assert_eq!(failure.code, ErrorCode::Engine, "{later_ms} ms: {failure:?}");
                }
            }
        }
        be_short_beyond(None);
    }
}

/// The same where the layers could not be built at all. Method: a core starts without a server,
/// which knows nothing of the newer release yet.
#[test]
fn a_newer_release_waits_for_memory_as_the_core_starts() {
    let _alone = alone();
    let mut device = online(2, &mut Server::default());
    offline(&mut device);
    let call = device.start_open(TAB, Some(SERVER), &starred());
    device.opened(call);
    device.kill_core();
    be_short_beyond(Some(0));
    let call = device.start_open(TAB, Some(SERVER), &starred());
    device.opened(call);
    be_short_beyond(None);
    let failure = device.try_query("select star from todo").expect_err("it is not built");
    assert_eq!(failure.code, ErrorCode::Engine, "{failure:?}");
    device.pass(16_000);
    device.query("select star from todo");
}

/// Goal: a local document takes a mutation and the migration that waited for memory in one step.
/// Method: it is read anew below a live query of a newer release, as there is no memory for that;
/// once there is some, and before it is tried again by itself, a tab of the older one issues a
/// mutation, after which the live query runs.
#[test]
fn a_migration_that_waited_for_memory_comes_behind_the_mutation_before_it() {
    let _alone = alone();
    let mut device = Device::new(2);
    device.open(&todos());
    device.lose_page_server();
    let (call, open) = device.open_message(None, &starred());
    let (_, note) = device.mutation("note", &[("title", text(&"x".repeat(3 << 20)))]);
    device.ask(OTHER_TAB, vec![open, note]);
    device.opened(call);
    let live = device.watch_in(OTHER_TAB, "select star from todo");
    device.disk.set_capacity(Some(device.disk.used() + (1 << 20)));
    be_short_of_much();
    device.lend();
    be_short_beyond(None);
    device.disk.set_capacity(None);
    let milk = add(&mut device, "milk");
    assert_eq!(device.fate(milk), "durable 2, confirmed 2");
    let last = device.answers(live).pop();
    assert!(matches!(last, Some(FromCore::Rows { .. })), "{}", device.fate(live));
    device.kill_core();
    device.open(&starred());
    assert_eq!(device.query("select id, star from todo"), [[text("milk"), Value::Null]]);
}

/// Goal: a release is not told to be open of which nothing is there. Method: a core starts without
/// a server, while there is no memory to bring the document to a newer release than the one that it
/// is opened by.
#[test]
fn a_release_is_not_open_while_there_is_no_memory_for_a_newer_one() {
    let _alone = alone();
    let mut middle = todos();
    middle.migrations.push("alter table todo add column due integer".to_owned());
    let mut newest = middle.clone();
    newest.migrations.push(starred().migrations.pop().expect("it has some"));
    let mut device = online(2, &mut Server::default());
    offline(&mut device);
    let call = device.start_open(TAB, Some(SERVER), &newest);
    device.opened(call);
    device.kill_core();
    be_short_of_much();
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    let call = device.start_open(OTHER_TAB, Some(SERVER), &middle);
    assert_eq!(device.code(call), ErrorCode::Engine);
    be_short_beyond(None);
    device.pass(16_000);
    let call = device.start_open(OTHER_TAB, Some(SERVER), &middle);
    device.opened(call);
    let due = device.start_query(OTHER_TAB, "select due from todo");
    assert!(matches!(device.answer(due), FromCore::Rows { .. }), "{}", device.fate(due));
}
