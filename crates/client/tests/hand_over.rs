//! A local document that is handed over to a server.

use tidelog_client::{Call, Connection, FromCore, TabId};
use tidelog_sync::{FromRoom, FromServer, ToRoom, ToServer, codec};
use tidelog_testing::client::server::{Server, talk};
use tidelog_testing::client::*;
use tidelog_types::limits::Limits;
use tidelog_types::{ErrorCode, Position};

#[test]
fn a_local_document_becomes_the_servers() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    device.open(&todos());
    for n in 0..30 {
        add(&mut device, &n.to_string());
    }
    device.close(TAB);
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), &todos());
    assert_eq!(device.answers(call).len(), 0, "only the server can say");
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.opened(call).confirmed_lsn, 31);
    assert!(server.image() == device.image(), "the two sides differ");

    let milk = add(&mut device, "milk");
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.fate(milk), "durable 1, confirmed 32");
    // It stays what it is, also when it is opened without a server.
    device.cut_power();
    let status = device.open(&todos());
    assert_eq!(status.connection, Connection::Offline);
    assert_eq!(count(&mut device), [[integer(31)]]);
}

/// Goal: who follows cannot write in the name of the device that handed the document over. Method:
/// what it says of who wrote the local document, which others are told, is not the life with which
/// it sends frames.
#[test]
fn a_document_that_is_handed_over_tells_nothing_of_the_life_that_sends_frames() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "a");
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.hear_server(&FromServer::Welcome);
    let offered = codec::encode(&device.sent);
    want_seed(&mut server, &mut device);
    assert_eq!(seeds(&device.sent), 1);
    let seed = codec::encode(&device.sent);
    talk(&mut server, &mut [&mut device]);
    device.opened(call);
    add(&mut device, "b");
    let life = device.sent.iter().find_map(|message| match message {
        ToServer::About { body: ToRoom::Frames { life, .. }, .. } => Some(life.0),
        _ => None,
    });
    let life = life.expect("a frame was sent");
    for said in [offered, seed] {
        assert!(!said.windows(16).any(|some| some == life), "others are told of it");
    }
}

/// What a device says that it holds.
fn held(message: &ToServer) -> Option<Option<Position>> {
    match message {
        ToServer::About { body: ToRoom::Open { have, .. }, .. } => Some(*have),
        _ => None,
    }
}

/// A server makes one entry of all that it is handed, so the chain there is not that of the entries
/// which were written here.
#[test]
fn a_core_knows_where_the_server_stood_when_it_took_the_document_over() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "a");
    add(&mut device, "b");
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), &todos());
    talk(&mut server, &mut [&mut device]);
    device.opened(call);

    device.kill_core();
    server.forget(device.number);
    device.take_sent();
    device.start_open(TAB, Some(SERVER), &todos());
    let mut have = None;
    while have.is_none() {
        for message in device.take_sent() {
            have = have.or(held(&message));
            for answer in server.hear(device.number, message) {
                device.hear_server(&answer);
            }
        }
    }
    assert_eq!(have, Some(Some(server.position())));
    add(&mut device, "c");
    talk(&mut server, &mut [&mut device]);
    assert!(server.image() == device.image(), "the two sides differ");
}

/// The pages that are handed over are those of the newest release, whichever offers them.
#[test]
fn a_document_is_offered_by_the_newest_doctype_that_it_has() {
    let mut device = Device::new(1);
    let mut newer = todos();
    newer.migrations.push("alter table todo add column star integer".to_owned());
    device.open(&newer);
    device.server_is_up = true;
    device.start_open(OTHER_TAB, Some(SERVER), &todos());
    device.pass(100);
    device.hear_server(&FromServer::Welcome);
    let offered = device.take_sent().into_iter().find_map(|message| match message {
        ToServer::About { body: ToRoom::Open { doctype, .. }, .. } => Some(doctype),
        _ => None,
    });
    assert!(offered == Some(codec::encode(&newer).into()), "by an older one, or not at all");
}

/// Until the disk says so, a power cut or a full disk would make it a local one again.
#[test]
fn a_document_is_the_servers_only_once_that_is_durable() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "a");
    device.server_is_up = true;
    let call = device.start_open(OTHER_TAB, Some(SERVER), &todos());
    device.fill_disk();
    talk(&mut server, &mut [&mut device]);
    assert!(server.document.is_some(), "it was handed over");
    assert_eq!(device.answers(call).len(), 0, "and could not be written down");
    device.disk.set_full(false);
    for _ in 0..5 {
        device.pass(1_000);
        talk(&mut server, &mut [&mut device]);
    }
    device.opened(call);
    add(&mut device, "b");
    talk(&mut server, &mut [&mut device]);
    assert!(server.image() == device.image(), "the two sides differ");
}

#[test]
fn a_local_document_stays_local_where_the_server_has_another_one() {
    let mut server = Server::default();
    server.create(&todos());
    let mut device = Device::new(1);
    device.open(&todos());
    let milk = add(&mut device, "milk");
    assert_eq!(device.fate(milk), "durable 2, confirmed 2");
    device.close(TAB);
    let before = device.disk.bytes_of("pages");
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), &todos());
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.code(call), ErrorCode::DocumentExists);
    assert_eq!(device.disk.bytes_of("pages"), before);
    assert_eq!(device.open(&todos()).connection, Connection::Local);
    assert_eq!(count(&mut device), [[integer(1)]]);
}

#[test]
fn a_local_document_stays_local_where_no_server_answers_within_ten_seconds() {
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "milk");
    device.close(TAB);
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.pass(5_000);
    assert_eq!(device.answers(call).len(), 0, "it may still come");
    device.pass(5_000);
    assert_eq!(device.code(call), ErrorCode::ServerUnreachable);
    let message = &device.failure(call).message;
    assert!(message.contains("stays local"), "nothing goes on by itself");
    assert!(message.contains("does not answer"), "{message}");
    assert_eq!(device.open(&todos()).connection, Connection::Local);
    assert_eq!(count(&mut device), [[integer(1)]]);
}

/// How many whole seeds a device hands over.
fn seeds(sent: &[ToServer]) -> usize {
    let ends_seed = |message: &&ToServer| {
        matches!(message, ToServer::About { body: ToRoom::Seed { last: true, .. }, .. })
    };
    sent.iter().filter(ends_seed).count()
}

/// Offers the device's document on its connection, and has the server ask for the seed.
fn want_seed(server: &mut Server, device: &mut Device) {
    let sent = device.take_sent();
    assert!(sent.iter().any(|message| held(message).is_some()), "it was not offered");
    for message in sent {
        for answer in server.hear(device.number, message) {
            device.hear_server(&answer);
        }
    }
}

/// Goal: a seed is handed over on the connection on which it is wanted, and once for each time.
/// Method: a connection is lost after the server wanted the seed and before its pages were read;
/// they are there when the document is offered again.
#[test]
fn a_seed_that_was_wanted_on_a_lost_connection_is_not_handed_over_on_the_next_one() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "milk");
    // The next core has read none of its pages.
    device.kill_core();
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.hear_server(&FromServer::Welcome);
    device.lose_page_server();
    want_seed(&mut server, &mut device);
    assert_eq!(seeds(&device.sent), 0, "its pages are not there");

    device.lose_socket();
    device.pass(5_000);
    device.hear_server(&FromServer::Welcome);
    device.lend();
    assert_eq!(seeds(&device.sent), 0, "nobody wants it on this connection yet");
    want_seed(&mut server, &mut device);
    assert_eq!(seeds(&device.sent), 1);
    talk(&mut server, &mut [&mut device]);
    device.opened(call);
    assert!(server.image() == device.image(), "the two sides differ");
}

/// Goal: a local document of any size gets over a line of any speed, and neither side holds much of
/// it. Method: the server takes a part every five seconds, far longer than an offer may take.
#[test]
fn a_large_local_document_is_handed_over_as_fast_as_the_server_takes_it() {
    let mut server = Server::default();
    let limits = Limits {
        pool_pages_max: 8,
        fault_pages_max: 4,
        message_pages_max: 4,
        seed_pages_ahead_max: 8,
        ..Limits::DEFAULT
    };
    let mut device = Device::with_limits(1, limits);
    device.open(&shelves());
    device.mutate("fill", &[("from", integer(0)), ("count", integer(300))]);
    device.server_is_up = true;
    let call = device.start_open(OTHER_TAB, Some(SERVER), &shelves());
    let other = device.start_open(TabId(3), Some(SERVER), &shelves());
    let (mut rounds, mut taken) = (0, 0);
    while device.answers(call).is_empty() {
        let sent = device.take_sent();
        let parts = sent
            .iter()
            .filter(|message| matches!(message, ToServer::About { body: ToRoom::Seed { .. }, .. }));
        assert!(parts.count() <= 2, "more is on its way than the server has taken");
        for message in sent {
            device.now_ms += 3_000;
            let answers = server.hear(device.number, message);
            answers.iter().for_each(|answer| device.hear_server(answer));
            let is_taken = |answer: &&FromServer| {
                let FromServer::About { body, .. } = answer else { return false };
                matches!(body, FromRoom::SeedWanted | FromRoom::SeedTaken { .. })
            };
            taken += answers.iter().filter(is_taken).count();
        }
        rounds += 1;
        assert!(rounds < 100, "it is not handed over");
    }
    device.opened(call);
    assert!(rounds > 10, "it was small");
    device.opened(other);
    // Their tabs know that it goes on, and wait.
    for (tab, call) in [(OTHER_TAB, call), (TabId(3), other)] {
        let is_told = |told: &&(_, FromCore)| **told == (tab, FromCore::HandingOver { call });
        assert_eq!(device.told.iter().filter(is_told).count(), taken);
    }
    talk(&mut server, &mut [&mut device]);
    assert!(server.image() == device.image(), "the two sides differ");
}

#[test]
fn a_server_that_stops_taking_a_local_document_leaves_it_local() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    let call = offer_much(&mut device);
    want_seed(&mut server, &mut device);
    assert!(!device.take_sent().is_empty(), "no part of the seed");
    let mut seconds = 0;
    while device.answers(call).is_empty() {
        device.hear_server(&FromServer::Pong);
        device.pass(1_000);
        seconds += 1;
    }
    assert_eq!(seconds, 60);
    assert_eq!(device.code(call), ErrorCode::ServerUnreachable);
    assert!(device.failure(call).message.contains("taken in no more"), "it says why");
    assert_eq!(device.status().connection, Connection::Local);
}

/// A local document of many pages is offered to a server that has heard hello.
fn offer_much(device: &mut Device) -> Call {
    device.open(&shelves());
    device.mutate("fill", &[("from", integer(0)), ("count", integer(2_000))]);
    device.server_is_up = true;
    let call = device.start_open(OTHER_TAB, Some(SERVER), &shelves());
    device.hear_server(&FromServer::Welcome);
    call
}

/// Goal: a server that wants a document and never takes any of it is not tried for ever. Method:
/// the connection breaks at each first part, as where something on the way lets none that large
/// pass.
#[test]
fn a_local_document_that_breaks_each_connection_stays_local() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    let call = offer_much(&mut device);
    let start_ms = device.now_ms;
    while device.answers(call).is_empty() {
        want_seed(&mut server, &mut device);
        device.lose_socket();
        device.pass(5_000);
        if device.answers(call).is_empty() {
            device.hear_server(&FromServer::Welcome);
        }
        assert!(device.now_ms - start_ms < 70_000, "it has no answer");
    }
    assert!(device.now_ms - start_ms > 50_000, "a line may get better");
    assert_eq!(device.code(call), ErrorCode::ServerUnreachable);
    assert_eq!(device.status().connection, Connection::Local);
}

/// Goal: a hand-over that never comes to its end is given up, however much of the document the
/// server takes each time. Method: each connection breaks at the same place, as where something on
/// the way lets none last.
#[test]
fn a_local_document_that_gets_no_further_on_any_connection_stays_local() {
    let mut server = Server::default();
    let limits = Limits { message_pages_max: 4, seed_pages_ahead_max: 8, ..Limits::DEFAULT };
    let mut device = Device::with_limits(1, limits);
    let call = offer_much(&mut device);
    let start_ms = device.now_ms;
    while device.answers(call).is_empty() {
        want_seed(&mut server, &mut device);
        for _ in 0..3 {
            device.pass(5_000);
            for message in device.take_sent() {
                for answer in server.hear(device.number, message) {
                    // What it has said last is heard after it has gone.
                    if device.socket.is_some() {
                        device.hear_server(&answer);
                    }
                }
            }
        }
        if device.answers(call).is_empty() {
            device.lose_socket();
            device.pass(5_000);
            device.hear_server(&FromServer::Welcome);
        }
        assert!(device.now_ms - start_ms < 130_000, "it has no answer");
    }
    assert!(device.now_ms - start_ms > 60_000, "a line may get better");
    assert_eq!(device.code(call), ErrorCode::ServerUnreachable);
    assert_eq!(device.status().connection, Connection::Local);
}

/// Goal: whoever waits for somebody else's hand-over in vain is told what it may have waited for.
/// Method: the server says nothing to the offer, as to one that is behind another.
#[test]
fn an_offer_that_waits_for_another_one_in_vain_says_so() {
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "milk");
    device.server_is_up = true;
    let call = device.start_open(OTHER_TAB, Some(SERVER), &todos());
    device.hear_server(&FromServer::Welcome);
    while device.answers(call).is_empty() {
        device.hear_server(&FromServer::Pong);
        device.pass(1_000);
    }
    assert_eq!(device.code(call), ErrorCode::ServerUnreachable);
    let message = &device.failure(call).message;
    assert!(message.contains("may be handing over one of that name"), "{message}");
    assert!(message.contains("stays local"), "{message}");
}

#[test]
fn whoever_waits_behind_an_offer_in_vain_is_told_why_in_time() {
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "milk");
    let first = device.start_open(OTHER_TAB, Some(SERVER), &todos());
    device.pass(1_000);
    let second = device.start_open(TabId(3), Some(SERVER), &todos());
    let local = device.start_open(TabId(4), None, &todos());
    device.pass(8_000);
    for call in [first, second] {
        assert!(device.failure(call).message.contains("does not answer"));
    }
    device.opened(local);
}

/// Goal: where a page is lost, whoever hands its document over is told so, and at once.
#[test]
fn a_local_document_with_a_damaged_page_is_not_handed_over_and_says_why() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    device.open(&todos());
    for n in 0..500 {
        titled(&mut device, &n.to_string(), &format!("title of {n}"));
    }
    device.kill_core();
    device.open(&todos());
    device.rot(b"title of 250");
    device.server_is_up = true;
    let call = device.start_open(OTHER_TAB, Some(SERVER), &todos());
    device.hear_server(&FromServer::Welcome);
    want_seed(&mut server, &mut device);
    assert_eq!(device.code(call), ErrorCode::Storage);
    assert!(device.failure(call).message.contains("damaged"));
    assert_eq!(device.status().connection, Connection::Local);
}

#[test]
fn an_offer_whose_tab_is_gone_does_not_fail_the_next_one() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "milk");
    device.start_open(OTHER_TAB, Some(SERVER), &todos());
    device.step(tidelog_client::Input::TabClosed { tab: OTHER_TAB });
    device.pass(30_000);
    device.server_is_up = true;
    let call = device.start_open(OTHER_TAB, Some(SERVER), &todos());
    device.pass(1_000);
    talk(&mut server, &mut [&mut device]);
    device.opened(call);
}
