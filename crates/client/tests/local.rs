//! A local document: this device decides.

use tidelog_client::{
    Again, Connection, FromCore, Input, PageServerFailure, PageServerId, Request, TabId, ToCore,
};
use tidelog_pages::StoreRequest;
use tidelog_testing::client::*;
use tidelog_types::limits::{CALL_SETTLES_MS, Limits};
use tidelog_types::{BudgetLimits, ErrorCode, UnservedKind};

#[test]
fn a_local_mutation_is_durable_and_confirmed_together_after_its_flush() {
    let mut device = Device::new(1);
    let status = device.open(&todos());
    assert_eq!(status.connection, Connection::Local);
    device.disk.hold_flushes(true);
    let milk = add(&mut device, "milk");
    let bread = add(&mut device, "bread");
    assert_eq!(device.query("select count(*) from todo"), [[integer(2)]], "visible at once");
    assert_eq!(device.fate(milk), "");
    assert_eq!(device.positions().split(" | ").next(), Some("timeline 0..0 durable 0 acked 0"));
    device.flushed();
    assert_eq!(device.fate(milk), "durable 2, confirmed 2");
    assert_eq!(device.fate(bread), "durable 3, confirmed 3");
    assert_eq!(device.status().pending, 0);
    assert_eq!(device.status().storage_lsns, [4, 4]);
}

/// Goal: once a sync is done, a power cut takes nothing that was issued before it. Method: the
/// disk holds its flushes back, and then fails them, or the data are cleared.
#[test]
fn a_local_sync_is_done_once_all_before_it_is_durable() {
    let mut device = Device::new(1);
    device.open(&todos());
    let milk = add(&mut device, "milk");
    let synced = device.sync();
    assert!(matches!(device.answer(synced), FromCore::Done { .. }), "nothing is left to write");
    device.disk.hold_flushes(true);
    let bread = add(&mut device, "bread");
    let synced = device.sync();
    assert_eq!(device.answers(synced), [] as [&FromCore; 0], "it is not on the disk yet");
    device.flushed();
    assert!(matches!(device.answer(synced), FromCore::Done { .. }));
    assert!(device.fate(milk).contains("durable") && device.fate(bread).contains("durable"));
    device.disk.hold_flushes(false);

    device.fill_disk();
    let (late, message) = device.mutation("add", &[("id", text("late")), ("title", text("late"))]);
    let synced = device.next_call();
    let sync = ToCore::Ask { call: synced, handle: HANDLE, request: Request::Sync };
    device.ask(TAB, vec![message, sync]);
    assert_eq!(device.code(late), ErrorCode::StorageFull);
    assert_eq!(device.code(synced), ErrorCode::StorageFull);
    device.disk.set_full(false);

    device.lose_page_server();
    add(&mut device, "lost");
    let synced = device.sync();
    assert_eq!(device.answers(synced), [] as [&FromCore; 0]);
    let failure = PageServerFailure::new(UnservedKind::Lost, "");
    device.step(Input::PageServerFailed { server: PageServerId(9), failure });
    assert_eq!(device.code(synced), ErrorCode::Storage);
}

/// Goal: nothing waits for a sync that is done. Method: of one message, a sync that finds nothing
/// to write, and behind it a mutation for which the store keeps just one call.
#[test]
fn what_is_behind_a_local_sync_does_not_wait_for_it() {
    let mut device = Device::with_limits(1, Limits { calls_kept_max: 1, ..Limits::DEFAULT });
    device.open(&todos());
    let (milk, message) = device.mutation("add", &[("id", text("milk")), ("title", text("milk"))]);
    let synced = device.next_call();
    let sync = ToCore::Ask { call: synced, handle: HANDLE, request: Request::Sync };
    device.ask(TAB, vec![sync, message]);
    assert!(matches!(device.answer(synced), FromCore::Done { .. }));
    assert!(device.fate(milk).contains("durable"));
}

#[test]
fn what_was_durable_survives_a_power_cut_and_the_rest_is_gone() {
    let mut device = Device::new(1);
    device.open(&todos());
    let milk = add(&mut device, "milk");
    device.disk.hold_flushes(true);
    let bread = add(&mut device, "bread");
    assert_eq!(
        (device.fate(milk).as_str(), device.fate(bread).as_str()),
        ("durable 2, confirmed 2", "")
    );
    device.cut_power();
    device.open(&todos());
    assert_eq!(device.query("select id from todo"), [[text("milk")]]);
}

#[test]
fn a_tab_that_asks_the_same_core_again_is_answered_and_nothing_runs_twice() {
    let mut device = Device::new(1);
    device.open(&todos());
    device.disk.hold_flushes(true);
    let (milk, message) = device.mutation("add", &[("id", text("milk")), ("title", text("milk"))]);
    device.ask(TAB, vec![message.clone()]);
    // The welcome was late, so the tab greets once more, on a port of its own.
    device.step(Input::TabClosed { tab: TAB });
    device.start_open(OTHER_TAB, None, &todos());
    let mut again = message;
    if let ToCore::Ask { request: Request::Mutate(mutate), .. } = &mut again {
        mutate.again = Some(Again { durable: None, copy: None, since: [None; 2] });
    }
    device.told.clear();
    device.ask(OTHER_TAB, vec![again]);
    assert_eq!(device.fate(milk), "", "it is not on the disk yet");
    device.flushed();
    assert_eq!(device.fate(milk), "durable 2, confirmed 2", "the port that is gone hears nothing");
    assert!(device.told.iter().all(|(tab, _)| *tab == OTHER_TAB));
    device.cut_power();
    device.open(&todos());
    assert_eq!(device.query("select count(*) from todo"), [[integer(1)]]);
}

#[test]
fn calls_of_a_tab_take_effect_in_their_order() {
    let mut device = Device::new(1);
    device.open(&todos());
    let count = "select count(*) from todo";
    let args = |id| [("id", text(id)), ("title", text(id))];
    let (_, first) = device.mutation("add", &args("a"));
    let (one, see_one) = device.query_message(count);
    let (twice, again) = device.mutation("add", &args("a"));
    let (still_one, see_still_one) = device.query_message(count);
    let (_, second) = device.mutation("add", &args("b"));
    let (two, see_two) = device.query_message(count);
    let close = device.next_call();
    let (late, too_late) = device.query_message(count);
    let close_message = ToCore::Ask { call: close, handle: HANDLE, request: Request::Close };
    device.ask(
        TAB,
        vec![first, see_one, again, see_still_one, second, see_two, close_message, too_late],
    );
    let count_of = |call| match device.answer(call) {
        FromCore::Rows { rows, .. } => rows.decode(),
        other => panic!("{other:?}"),
    };
    assert_eq!(count_of(one), [[integer(1)]]);
    assert_eq!(device.code(twice), ErrorCode::Rejected);
    assert_eq!(count_of(still_one), [[integer(1)]]);
    assert_eq!(count_of(two), [[integer(2)]]);
    assert!(matches!(device.answer(close), FromCore::Done { .. }));
    assert_eq!(device.code(late), ErrorCode::DocumentClosed);
}

#[test]
fn mutations_of_one_message_share_one_append() {
    let mut device = Device::new(1);
    device.open(&todos());
    let before = device.appends();
    let mut calls = Vec::new();
    let mut messages = Vec::new();
    for n in 0..100 {
        let title = text(&format!("{n}"));
        let (call, message) = device.mutation("add", &[("id", title.clone()), ("title", title)]);
        calls.push(call);
        messages.push(message);
    }
    device.ask(TAB, messages);
    assert_eq!(device.appends(), before + 1);
    assert!(calls.iter().all(|call| device.fate(*call).contains("confirmed")));
}

#[test]
fn both_tabs_see_one_document_and_each_issues_under_its_own_doctype() {
    let mut device = Device::new(1);
    device.open(&todos());
    let mut newer = todos();
    newer.migrations.push("alter table todo add column star integer".to_owned());
    newer.mutations.push(define("star", &[], &["update todo set star = 1"]));
    let opened = device.start_open(OTHER_TAB, None, &newer);
    device.opened(opened);
    let (unknown, star) = device.mutation("star", &[]);
    device.ask(TAB, vec![star]);
    assert_eq!(device.code(unknown), ErrorCode::UnknownMutation);

    add(&mut device, "milk");
    let (known, star) = device.mutation("star", &[]);
    device.ask(OTHER_TAB, vec![star]);
    assert!(device.fate(known).contains("confirmed"), "{}", device.fate(known));
    assert_eq!(device.query("select id, star from todo"), [[text("milk"), integer(1)]]);

    let mut stranger = todos();
    stranger.migrations.push("create table other (x)".to_owned());
    let refused = device.start_open(OTHER_TAB, None, &stranger);
    assert_eq!(device.code(refused), ErrorCode::DoctypeMismatch);
}

#[test]
fn a_destroyed_document_begins_anew() {
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "milk");
    let refused = device.destroy(true);
    assert_eq!(device.code(refused), ErrorCode::DocumentInUse, "a tab holds it");
    device.close(TAB);
    let destroyed = device.destroy(false);
    assert!(matches!(device.answer(destroyed), FromCore::Done { .. }));
    device.open(&todos());
    assert_eq!(device.query("select count(*) from todo"), [[integer(0)]]);
    device.cut_power();
    device.open(&todos());
    assert_eq!(device.query("select count(*) from todo"), [[integer(0)]]);
}

/// Goal: who begins anew need not look for all tabs. Method: two tabs have the document open; one
/// closes it as soon as it is told to, the other one after a while; a third opens it meanwhile.
#[test]
fn a_document_is_destroyed_everywhere_once_all_tabs_have_closed_it() {
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "milk");
    let opened = device.start_open(OTHER_TAB, None, &todos());
    device.opened(opened);
    device.told.clear();
    let destroyed = device.destroy_everywhere();
    let asked = |device: &Device| -> Vec<TabId> {
        let wanted = |it: &&(TabId, FromCore)| matches!(it.1, FromCore::CloseWanted { .. });
        device.told.iter().filter(wanted).map(|(tab, _)| *tab).collect()
    };
    assert_eq!(asked(&device), [TAB, OTHER_TAB], "each once");
    device.close(TAB);
    device.pass(CALL_SETTLES_MS / 4);
    assert!(device.answers(destroyed).is_empty(), "a tab holds it still");
    assert_eq!(asked(&device).len(), 2, "nobody is told twice");
    device.close(OTHER_TAB);
    assert!(matches!(device.answer(destroyed), FromCore::Done { .. }));
    device.open(&todos());
    assert_eq!(device.query("select count(*) from todo"), [[integer(0)]]);
}

#[test]
fn who_does_not_close_a_document_that_is_destroyed_everywhere_keeps_it() {
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "milk");
    let destroyed = device.destroy_everywhere();
    device.pass(CALL_SETTLES_MS / 2);
    assert_eq!(device.code(destroyed), ErrorCode::DocumentInUse);
    device.close(TAB);
    device.pass(CALL_SETTLES_MS);
    device.open(&todos());
    assert_eq!(device.query("select count(*) from todo"), [[integer(1)]], "it was given up");
}

/// Goal: what is opened once the caller was told stays. Method: a tab does not close the document,
/// and the one that deletes it gives that up; then there is work in it, and the tab closes it.
#[test]
fn a_deletion_that_was_given_up_deletes_nothing() {
    let mut device = Device::new(1);
    device.open(&todos());
    let destroyed = device.destroy_everywhere();
    device.give_up(destroyed);
    device.told.clear();
    let opened = device.start_open(OTHER_TAB, None, &todos());
    device.opened(opened);
    add(&mut device, "milk");
    device.close(TAB);
    device.close(OTHER_TAB);
    device.pass(CALL_SETTLES_MS);
    assert!(!device.told.iter().any(|(_, it)| matches!(it, FromCore::CloseWanted { .. })));
    device.open(&todos());
    assert_eq!(device.query("select count(*) from todo"), [[integer(1)]]);
}

#[test]
fn destroying_what_is_not_there_is_done_at_once() {
    let mut device = Device::new(1);
    let destroyed = device.destroy(false);
    assert!(matches!(device.answer(destroyed), FromCore::Done { .. }));
}

/// Goal: opening costs pages, not history. Method: the same few rows after few mutations and after
/// many; then a new core on the same disk, and what it asks the page server for.
#[test]
fn after_many_mutations_a_document_opens_as_after_a_few() {
    let reads_at_open = |mutations: u32| {
        let mut device = Device::new(1);
        device.open(&todos());
        for n in 0..20 {
            add(&mut device, &n.to_string());
        }
        for batch in 0..mutations / 100 {
            let toggles = (0..100).map(|n| {
                let id = text(&((batch + n) % 20).to_string());
                device.mutation("toggle", &[("id", id)]).1
            });
            let toggles = toggles.collect();
            device.ask(TAB, toggles);
            device.asked.clear();
            device.told.clear();
        }
        device.kill_core();
        let status = device.open(&todos());
        assert_eq!(status.confirmed_lsn, 21 + u64::from(mutations));
        assert_eq!(device.query("select count(*) from todo"), [[integer(20)]]);
        device.reads()
    };
    let (few, many) = (reads_at_open(500), reads_at_open(50_000));
    assert_eq!(few, many, "requests and pages");
    assert!(many.1 < 10, "{many:?}");
}

/// Issues twice as many mutations in one turn as the store remembers when its log is full.
fn issue_many(device: &mut Device) -> Vec<(tidelog_client::Call, ToCore)> {
    let mut calls = Vec::new();
    for n in 0..2 * Limits::DEFAULT.calls_kept_max {
        let id = text(&format!("todo-{n}"));
        calls.push(device.mutation("add", &[("id", id.clone()), ("title", id)]));
    }
    device.ask(TAB, calls.iter().map(|(_, message)| message.clone()).collect());
    calls
}

/// The core dies, and the tab asks the next one for all of them: each is there once.
fn die_and_ask_again(device: &mut Device, calls: &[(tidelog_client::Call, ToCore)]) {
    device.disk.hold_flushes(false);
    device.kill_core();
    device.open(&todos());
    let asked: Vec<_> = calls.iter().map(|(call, _)| *call).collect();
    device.ask_again(&asked);
    for (call, _) in calls {
        assert!(device.fate(*call).starts_with("durable"), "{}", device.fate(*call));
    }
    let count = i64::try_from(calls.len()).expect("some thousands");
    assert_eq!(device.query("select count(*) from todo"), [[integer(count)]]);
}

fn calls_handed_over(device: &Device) -> usize {
    let calls = |request: &StoreRequest| match request {
        StoreRequest::Append { append, .. } => {
            append.storage.iter().map(|entry| entry.calls.len()).sum()
        }
        _ => 0,
    };
    device.asked.iter().map(calls).sum()
}

/// Goal: no call is carried out twice, however many are issued at once. Method: the core dies when
/// the first of them are on the disk and nobody has been told. No more of them are there than the
/// store remembers for as long as it lives.
#[test]
fn every_call_of_a_dead_core_is_recognised_however_many_there_are() {
    let mut device = Device::new(1);
    device.open(&todos());
    device.disk.hold_flushes(true);
    let calls = issue_many(&mut device);
    assert_eq!(calls_handed_over(&device), Limits::DEFAULT.calls_kept_max);
    die_and_ask_again(&mut device, &calls);
}

/// The same where they were issued while there was no page server, and all go to the next at once.
#[test]
fn every_call_is_recognised_that_was_issued_without_a_page_server() {
    let mut device = Device::new(1);
    device.open(&todos());
    device.lose_page_server();
    let calls = issue_many(&mut device);
    assert_eq!(device.query("select count(*) from todo"), [[integer(2048)]], "all are visible");
    device.lend();
    die_and_ask_again(&mut device, &calls);
}

/// Goal: one step takes no more of what tabs issue than a slice. Method: mutations with much to say
/// come in one message, of a local document and of a synced one; a slice has room for one of them.
#[test]
fn large_mutations_of_one_message_are_run_in_several_slices() {
    const SIZE: usize = 20_000;
    let slice = BudgetLimits { bytes: SIZE as u64, ..BudgetLimits::default() };
    for server in [None, Some(SERVER)] {
        let mut device = Device::with_limits(1, Limits { slice, ..Limits::DEFAULT });
        let opened = device.start_open(TAB, server, &todos());
        device.opened(opened);
        let before = device.appends();
        let title = "x".repeat(SIZE);
        let notes = (0..5).map(|_| device.mutation("note", &[("title", text(&title))]).1);
        let notes = notes.collect();
        device.ask(TAB, notes);
        assert_eq!(device.appends(), before + 5);
    }
}
