//! A local document: this device decides.

mod common;

use common::*;
use tidelog_client::{Connection, FromCore, Input, ToCore};
use tidelog_types::ErrorCode;

fn add(device: &mut Device, id: &str) -> tidelog_client::Call {
    device.mutate("add", &[("id", text(id)), ("title", text(&format!("title of {id}")))])
}

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
    let ToCore::Mutate { call, handle, id, name, args, now_ms, .. } = message else {
        unreachable!("BUG: it is one");
    };
    let again = Some(0);
    device.told.clear();
    device.ask(OTHER_TAB, vec![ToCore::Mutate { call, handle, id, name, args, now_ms, again }]);
    assert_eq!(device.fate(milk), "", "it is not on the disk yet");
    device.flushed();
    let both = "durable 2, confirmed 2, durable 2, confirmed 2";
    assert_eq!(device.fate(milk), both, "the port that is gone is told too");
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
    let close_message = ToCore::Close { call: close, handle: HANDLE };
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
    assert_eq!(device.code(refused), ErrorCode::InvalidOption, "a tab holds it");
    device.close(TAB);
    let destroyed = device.destroy(false);
    assert!(matches!(device.answer(destroyed), FromCore::Done { .. }));
    device.open(&todos());
    assert_eq!(device.query("select count(*) from todo"), [[integer(0)]]);
    device.cut_power();
    device.open(&todos());
    assert_eq!(device.query("select count(*) from todo"), [[integer(0)]]);
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
