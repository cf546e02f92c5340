//! Entries whose pages are differences from those before them.
//!
//! Goal: whoever follows has each version of a page as it is, whatever of it is in memory, and in
//! the end the same bytes as the server. Method: a device whose core has just read the document, of
//! which nothing is in memory, and one that writes.

use tidelog_pages::{StoreRequest, Urgency};
use tidelog_sync::{EntryPart, FromRoom, FromServer, ToRoom, ToServer};
use tidelog_testing::client::server::{Server, back_online, offline, online, online_with, talk};
use tidelog_testing::client::*;
use tidelog_types::limits::Limits;
use tidelog_types::{BudgetLimits, Pgid};

/// A device that has the document, and none of its pages in memory.
fn cold(seed: u8, limits: Limits, server: &mut Server) -> Device {
    let mut device = online_with(seed, limits, server);
    device.pass(1_000);
    device.kill_core();
    server.forget(device.number);
    device.lend();
    device.server_is_up = false;
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    back_online(server, &mut device);
    device.asked.clear();
    device
}

/// Such a device, and one that has written a row, at one server.
fn beside_a_writer() -> (Server, Device, Device) {
    let mut server = Server::default();
    let mut writer = online(1, &mut server);
    titled(&mut writer, "before", "of long ago");
    talk(&mut server, &mut [&mut writer]);
    let device = cold(2, Limits::DEFAULT, &mut server);
    (server, writer, device)
}

fn entry_of(message: &FromServer) -> &EntryPart {
    match message {
        FromServer::About { body: FromRoom::Entry(part), .. } => part,
        other => panic!("no entry: {other:?}"),
    }
}

fn reads(device: &Device) -> usize {
    let is_read = |request: &&StoreRequest| matches!(request, StoreRequest::Read { .. });
    device.asked.iter().filter(is_read).count()
}

#[test]
fn an_entry_waits_for_the_pages_that_it_goes_by_and_others_behind_it() {
    let (mut server, mut writer, mut device) = beside_a_writer();
    device.holds_replies = true;
    for n in 0..3 {
        add(&mut writer, &n.to_string());
        talk(&mut server, &mut [&mut writer]);
    }
    let news = server.news(device.number);
    assert_eq!(news.len(), 3);
    for message in &news {
        assert!(entry_of(message).pages.iter().any(|page| page.needs_previous()));
        device.hear_server(message);
    }
    assert_eq!(reads(&device), 1, "one read for all that the first goes by");
    let visible = |device: &Device| device.status().confirmed_lsn;
    let before = visible(&device);
    device.holds_replies = false;
    while device.let_reply_through() {}
    device.pass(50);
    assert_eq!(visible(&device), before + 3);
    assert_eq!(reads(&device), 1, "what came with the first is what the others go by");
    assert_eq!(count(&mut device), [[integer(4)]]);
    assert!(device.image() == server.image(), "the two sides differ");
}

/// Goal: what an entry goes by stays in memory until it is taken in. Method: the first page is
/// there for the sake of a query alone, which reads many more and ends while others are read.
#[test]
fn what_an_entry_goes_by_stays_in_memory_while_the_rest_is_read() {
    let mut server = Server::default();
    let mut writer = online(1, &mut server);
    titled(&mut writer, "before", &"of long ago ".repeat(10_000));
    talk(&mut server, &mut [&mut writer]);
    let limits = Limits { pool_pages_max: 0, ..Limits::DEFAULT };
    let mut device = cold(2, limits, &mut server);
    device.holds_replies = true;
    let query = device.start_query(TAB, "select sum(length(title)) from todo");
    assert!(device.let_reply_through(), "the first page");
    add(&mut writer, "milk");
    talk(&mut server, &mut [&mut writer]);
    let opens = server.opens;
    device.hear_server(&server.news(device.number)[0]);
    let is_of_entry = |request: &StoreRequest| match request {
        StoreRequest::Read { pgids, urgency, .. } => {
            *urgency == Urgency::Background && !pgids.contains(&Pgid(1))
        }
        _ => false,
    };
    assert!(device.asked.iter().any(is_of_entry), "the first page is there: {:?}", device.asked);
    device.holds_replies = false;
    while device.let_reply_through() {}
    talk(&mut server, &mut [&mut writer, &mut device]);
    assert_eq!(server.opens, opens, "nothing was asked for anew");
    assert!(!device.answers(query).is_empty());
    assert_eq!(count(&mut device), [[integer(2)]]);
    assert!(device.image() == server.image(), "the two sides differ");
}

#[test]
fn what_waits_for_pages_is_forgotten_with_its_connection_and_comes_again() {
    let (mut server, mut writer, mut device) = beside_a_writer();
    device.holds_replies = true;
    add(&mut writer, "milk");
    talk(&mut server, &mut [&mut writer]);
    let news = server.news(device.number);
    device.hear_server(&news[0]);
    offline(&mut device);
    server.forget(device.number);
    device.holds_replies = false;
    while device.let_reply_through() {}
    assert_eq!(count(&mut device), [[integer(1)]], "nobody goes on with it");
    back_online(&mut server, &mut device);
    assert_eq!(count(&mut device), [[integer(2)]]);
    assert!(device.image() == server.image(), "the two sides differ");
}

/// Goal: a page that has rotted here holds up nothing that the server says. Method: the page that
/// an entry goes by is damaged on the disk; the document is followed anew, and sent whole pages.
#[test]
fn an_entry_that_goes_by_a_lost_page_is_asked_for_anew() {
    let (mut server, mut writer, mut device) = beside_a_writer();
    device.rot(b"of long ago");
    add(&mut writer, "milk");
    talk(&mut server, &mut [&mut writer]);
    let news = server.news(device.number);
    let opens = server.opens;
    device.hear_server(&news[0]);
    talk(&mut server, &mut [&mut writer, &mut device]);
    assert_eq!(server.opens, opens + 1, "it was asked for anew");
    assert_eq!(device.status().error, None);
    assert_eq!(count(&mut device), [[integer(2)]]);
    assert!(device.image() == server.image(), "the two sides differ");
}

/// Goal: what an entry goes by is what is held, shown or not. Method: the frames of a device are on
/// their way, so that entries wait for a rebase over many mutations, and others come meanwhile.
#[test]
fn entries_go_by_those_that_wait_for_a_rebase() {
    let mut server = Server::default();
    let (mut writer, mut device) = (online(1, &mut server), online(2, &mut server));
    for n in 0..2_000 {
        add(&mut device, &format!("mine {n}"));
    }
    let visible = |device: &Device| device.status().confirmed_lsn;
    let (opens, before) = (server.opens, visible(&device));
    for n in 0..10 {
        add(&mut writer, &n.to_string());
        talk(&mut server, &mut [&mut writer]);
        for message in server.news(device.number) {
            device.hear_server(&message);
        }
    }
    assert_eq!(visible(&device), before, "they wait for the rebase");
    device.pass(10_000);
    talk(&mut server, &mut [&mut writer, &mut device]);
    assert_eq!(server.opens, opens, "nothing was asked for anew");
    assert_eq!(device.status().error, None);
    assert_eq!(count(&mut device), [[integer(2_010)]]);
    assert!(device.image() == server.image(), "the two sides differ");
}

/// What of the next entry comes to a device.
fn next_of(server: &mut Server, device: &mut Device) -> (bool, usize) {
    for message in device.take_sent() {
        server.hear(device.number, message).iter().for_each(|answer| device.hear_server(answer));
    }
    let news = server.news(device.number);
    let [message] = news.as_slice() else { panic!("{news:?}") };
    let part = entry_of(message);
    let came = (part.is_predicted, part.pages.len());
    device.hear_server(message);
    came
}

/// Goal: what a device has already is not sent to it. Method: it writes alone, then another one
/// writes between two mutations of its own, and then it is alone again.
#[test]
fn an_entry_that_a_device_has_predicted_comes_without_pages() {
    let mut server = Server::default();
    let (mut writer, mut device) = (online(1, &mut server), online(2, &mut server));
    let milk = add(&mut device, "milk");
    assert_eq!(next_of(&mut server, &mut device), (true, 0));
    assert!(device.fate(milk).contains("confirmed"), "{}", device.fate(milk));
    talk(&mut server, &mut [&mut writer]);
    // On its way while another one's is applied first.
    let eggs = add(&mut device, "eggs");
    add(&mut writer, "theirs");
    talk(&mut server, &mut [&mut writer]);
    talk(&mut server, &mut [&mut writer, &mut device]);
    assert!(device.fate(eggs).contains("confirmed"), "{}", device.fate(eggs));
    let opens = server.opens;
    add(&mut device, "bread");
    let (is_predicted, pages_count) = next_of(&mut server, &mut device);
    assert!(!is_predicted && pages_count > 0, "others write as well, and nothing is predicted");
    add(&mut device, "salt");
    assert_eq!(next_of(&mut server, &mut device), (true, 0), "the last one was as it was here");
    talk(&mut server, &mut [&mut writer, &mut device]);
    assert_eq!(server.opens, opens, "nothing was asked for anew");
    assert_eq!(count(&mut device), [[integer(5)]]);
    assert!(device.image() == server.image(), "the two sides differ");
}

/// Goal: a prediction holds, whatever has become of the layers since it was said. Method: the
/// entries of two mutations are lost with the connection and come as one, so that a third, which
/// was sent before, is run again before its entry comes.
#[test]
fn a_prediction_outlives_a_rebase_that_changes_nothing_of_it() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    add(&mut device, "milk");
    add(&mut device, "eggs");
    for message in device.take_sent() {
        server.hear(device.number, message);
    }
    server.join(2);
    offline(&mut device);
    server.forget(device.number);
    let bread = add(&mut device, "bread");
    let opens = server.opens;
    back_online(&mut server, &mut device);
    assert_eq!(server.opens, opens + 1, "nothing was asked for anew");
    assert!(device.fate(bread).contains("confirmed"), "{}", device.fate(bread));
    assert_eq!(device.status().error, None);
    assert!(device.image() == server.image(), "the two sides differ");
}

/// Goal: what predicts many entries at once costs no more than a slice. Method: mutations that were
/// issued offline, and a slice of few pages.
#[test]
fn predictions_cost_no_more_than_a_slice() {
    let slice = BudgetLimits { pages: 10, ..BudgetLimits::default() };
    let limits = Limits { slice, ..Limits::DEFAULT };
    let mut server = Server::default();
    let mut device = online_with(1, limits, &mut server);
    offline(&mut device);
    server.forget(device.number);
    for n in 0..20 {
        add(&mut device, &n.to_string());
    }
    device.server_is_up = true;
    device.pass(15_000);
    let mut predicted = Vec::new();
    while predicted.is_empty() {
        let sent = device.take_sent();
        assert!(!sent.is_empty(), "no frames came");
        for message in sent {
            if let ToServer::About { body: ToRoom::Frames { frames, .. }, .. } = &message {
                predicted.extend(frames.iter().map(|frame| frame.predicted.is_some()));
            }
            server.hear(1, message).iter().for_each(|answer| device.hear_server(answer));
        }
    }
    let count_of = |is: bool| predicted.iter().filter(|it| **it == is).count();
    assert_eq!(predicted.len(), 20);
    assert!(count_of(true) >= 2 && count_of(false) >= 10, "{predicted:?}");
    talk(&mut server, &mut [&mut device]);
    device.pass(1_000);
    talk(&mut server, &mut [&mut device]);
    assert!(device.image() == server.image(), "the two sides differ");
}

#[test]
fn what_leaves_in_parts_is_not_predicted() {
    let limits = Limits { message_pages_max: 8, ..Limits::DEFAULT };
    let mut server = Server::default();
    let mut device = online_with(1, limits, &mut server);
    add(&mut device, "small");
    assert_eq!(next_of(&mut server, &mut device), (true, 0));
    titled(&mut device, "large", &"x".repeat(40_000));
    assert!(!next_of(&mut server, &mut device).0);
    assert!(device.image() == server.image(), "the two sides differ");
}

#[test]
fn an_entry_that_was_not_predicted_like_that_is_asked_for_anew() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    add(&mut device, "milk");
    for message in device.take_sent() {
        server.hear(device.number, message);
    }
    let [FromServer::About { channel, body: FromRoom::Entry(part) }] = &server.news(1)[..] else {
        panic!("one entry")
    };
    let mut other = part.clone();
    other.hash.0[9] ^= 1;
    let opens = server.opens;
    let body = FromRoom::Entry(other);
    device.hear_server(&FromServer::About { channel: *channel, body });
    talk(&mut server, &mut [&mut device]);
    assert_eq!(server.opens, opens + 1);
    assert_eq!(count(&mut device), [[integer(1)]]);
    assert!(device.image() == server.image(), "the two sides differ");
}
