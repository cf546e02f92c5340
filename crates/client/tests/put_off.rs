//! What of the server's waits for something else to go to the disk with, and what does not.

use tidelog_client::{Handle, Request, ToCore};
use tidelog_pages::StoreRequest;
use tidelog_testing::client::server::{Server, back_online, offline, online, online_with, talk};
use tidelog_testing::client::*;
use tidelog_types::ErrorCode;
use tidelog_types::limits::Limits;

/// A device that has written all that it has to, for now.
fn at_rest(seed: u8, limits: Limits, server: &mut Server) -> Device {
    let mut device = online_with(seed, limits, server);
    device.pass(1_000);
    device.asked.clear();
    device
}

/// Goal: a mutation of a synced document costs one append, and so one flush, as a local one does.
#[test]
fn what_the_server_says_goes_to_the_disk_with_the_next_mutation_or_within_a_second() {
    let mut server = Server::default();
    let mut device = at_rest(1, Limits::DEFAULT, &mut server);
    for n in 1..=10 {
        let call = add(&mut device, &n.to_string());
        talk(&mut server, &mut [&mut device]);
        assert_eq!(device.fate(call), format!("durable {n}, confirmed {}", n + 1));
        assert_eq!(device.appends(), n);
    }
    let stands = "timeline 11..11 durable 11 acked 11 | storage durable";
    assert_eq!(device.positions(), format!("{stands} 11 visible 12 | pending 0"));
    device.pass(900);
    assert_eq!(device.appends(), 10);
    device.pass(100);
    assert_eq!(device.appends(), 11, "it wakes for that");
    assert_eq!(device.positions(), format!("{stands} 12 visible 12 | pending 0"));
    device.pass(10_000);
    assert_eq!(device.appends(), 11, "there is no more");
    assert!(device.image() == server.image(), "the two sides differ");
}

/// Goal: a power cut takes along no more than what the server has.
#[test]
fn what_was_put_off_comes_again_after_a_power_cut() {
    let mut server = Server::default();
    let mut device = at_rest(1, Limits::DEFAULT, &mut server);
    let milk = add(&mut device, "milk");
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.fate(milk), "durable 1, confirmed 2");
    device.cut_power();
    server.forget(1);
    device.server_is_up = false;
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    assert_eq!(device.status().pending, 1, "it is shown, and waits for the server once more");
    assert_eq!(device.query("select id from todo"), [[text("milk")]]);
    back_online(&mut server, &mut device);
    assert_eq!(device.status().pending, 0);
    assert_eq!(count(&mut device), [[integer(1)]]);
    assert!(device.image() == server.image(), "the two sides differ");
}

#[test]
fn nothing_is_put_off_once_nobody_holds_the_document() {
    let mut server = Server::default();
    let mut device = at_rest(1, Limits::DEFAULT, &mut server);
    add(&mut device, "milk");
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.appends(), 1);
    let call = device.next_call();
    device.ask(TAB, vec![ToCore::Ask { call, handle: HANDLE, request: Request::Close }]);
    assert_eq!(device.appends(), 2);
}

/// Goal: what is put off takes a bounded amount of memory. Method: another device writes more than
/// may be put off.
#[test]
fn much_is_not_put_off() {
    let limits = Limits { entries_put_off_size_max: 64 * 1024, ..Limits::DEFAULT };
    let mut server = Server::default();
    let mut other = online(2, &mut server);
    let mut device = at_rest(1, limits, &mut server);
    add(&mut other, "little");
    talk(&mut server, &mut [&mut other, &mut device]);
    assert_eq!(device.appends(), 0);
    titled(&mut other, "much", &"x".repeat(100_000));
    talk(&mut server, &mut [&mut other, &mut device]);
    assert_eq!(device.appends(), 1);
}

/// Goal: a burst of small entries costs the disk what its pages do, once, and not each of them each
/// time. Method: another device writes row after row, each an entry of its own; then the power is
/// cut.
#[test]
fn entries_that_go_to_the_disk_together_go_as_one() {
    let mut server = Server::default();
    let mut other = online(2, &mut server);
    let mut device = at_rest(1, Limits::DEFAULT, &mut server);
    for n in 0..30 {
        add(&mut other, &n.to_string());
        talk(&mut server, &mut [&mut other]);
        server.news(1).iter().for_each(|news| device.hear_server(news));
    }
    assert_eq!(device.appends(), 0, "all of it is put off");
    add(&mut device, "own");
    let stored = device.asked.iter().flat_map(|request| match request {
        StoreRequest::Append { append, .. } => append.storage.as_slice(),
        _ => &[],
    });
    let stored: Vec<_> = stored.map(|it| (it.range.count(), it.set.pages.len() < 10)).collect();
    assert_eq!(stored, [(30, true)]);
    device.cut_power();
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    assert_eq!(count(&mut device), [[integer(31)]]);
    back_online(&mut server, &mut device);
    assert!(device.image() == server.image(), "the two sides differ");
}

/// Goal: a document that may have few pages in memory has no more of them for what it puts off.
#[test]
fn nothing_is_put_off_that_keeps_too_many_pages_in_memory() {
    let limits = Limits { pool_pages_max: 4, ..Limits::DEFAULT };
    let mut server = Server::default();
    let mut other = online(2, &mut server);
    let mut device = at_rest(1, limits, &mut server);
    titled(&mut other, "some", &"x".repeat(20_000));
    talk(&mut server, &mut [&mut other, &mut device]);
    assert_eq!(device.appends(), 1);
    assert_eq!(count(&mut device), [[integer(1)]]);
}

/// Goal: what is put off is read from memory, since the disk has what was there before it. Method:
/// a document for which something is put off is to rest beside one that was asked since.
#[test]
fn what_is_put_off_stays_in_memory_where_documents_rest() {
    let limits = Limits { pools_pages_max: 1, ..Limits::DEFAULT };
    let mut server = Server::default();
    let mut other = online(2, &mut server);
    let mut device = at_rest(1, limits, &mut server);
    let (_, mut open) = device.open_message(None, &todos());
    if let ToCore::Ask { handle, request: Request::Open(open), .. } = &mut open {
        (*handle, open.document) = (Handle(2), "another".to_owned());
    }
    device.ask(TAB, vec![open]);
    device.asked.clear();
    add(&mut other, "milk");
    talk(&mut server, &mut [&mut other, &mut device]);
    assert_eq!(device.appends(), 0, "it is not put off");
    assert_eq!(count(&mut device), [[integer(1)]]);
}

/// Goal: a disk is said to be full until it has what it had no room for. Method: an entry of the
/// server is put off behind a mutation that finds no room; then there is room for a mutation, and
/// the server that would send the entry again is away.
#[test]
fn what_is_put_off_behind_a_failed_append_is_what_the_disk_lacks() {
    let mut server = Server::default();
    let mut other = online(2, &mut server);
    let mut device = at_rest(1, Limits::DEFAULT, &mut server);
    device.disk.hold_flushes(true);
    device.fill_disk();
    let mine = add(&mut device, "mine");
    add(&mut other, "milk");
    talk(&mut server, &mut [&mut other, &mut device]);
    assert_eq!(device.fate(mine), "", "it is on its way");
    device.disk.hold_flushes(false);
    device.flushed();
    assert_eq!(device.code(mine), ErrorCode::StorageFull);
    offline(&mut device);
    device.disk.set_full(false);
    let tea = add(&mut device, "tea");
    assert_eq!(device.fate(tea), "durable 1");
    let error = |device: &Device| device.status().error.as_ref().map(|it| it.code);
    assert_eq!(error(&device), Some(ErrorCode::StorageFull));
    back_online(&mut server, &mut device);
    device.pass(1_000);
    assert_eq!(error(&device), None);
    assert_eq!(count(&mut device), [[integer(2)]]);
}
