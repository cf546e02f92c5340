//! What a server refuses, has lost, or cannot decide.

use tidelog_client::{Connection, FromCore, ToCore};
use tidelog_sync::{ByeReason, FromServer, ToRoom, ToServer, UndecidedReason};
use tidelog_testing::client::server::{Server, back_online, offline, online, talk};
use tidelog_testing::client::*;
use tidelog_types::{ErrorCode, Lsn};

#[test]
fn sync_fails_where_trying_again_cannot_help() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    offline(&mut device);
    let sync = device.sync();
    device.server_is_up = true;
    device.pass(15_000);
    device.hear_server(&FromServer::Bye { reason: ByeReason::Version });
    assert_eq!(device.code(sync), ErrorCode::Protocol);
    let later = device.sync();
    assert_eq!(device.code(later), ErrorCode::Protocol);
    add(&mut device, "still works");
    assert_eq!(count(&mut device), [[integer(1)]]);
}

/// Goal: who waits for a server is told what that says now. Method: it has lost the document, and
/// has one again as the app goes back to it; its answer is on its way as a tab waits.
#[test]
fn a_sync_is_not_answered_by_what_the_server_said_before_it_is_asked_anew() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    offline(&mut device);
    server.lose_document();
    back_online(&mut server, &mut device);
    let early = device.sync();
    assert_eq!(device.code(early), ErrorCode::DocumentMissing);
    server.create(&todos());
    device.ask(TAB, vec![ToCore::SetConnected { handle: HANDLE, word: 2 }]);
    let late = device.sync();
    assert_eq!(device.fate(late), "");
    talk(&mut server, &mut [&mut device]);
    assert!(matches!(device.answer(late), FromCore::Done { .. }));
    assert_eq!(device.status().error, None);
}

#[test]
fn a_replaced_document_takes_the_undecided_mutations_along() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    add(&mut device, "old");
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    let milk = add(&mut device, "milk");
    server.lose_document();
    server.create(&todos());
    back_online(&mut server, &mut device);
    let told = device.told.iter().any(|(_, message)| {
        matches!(message, FromCore::Status { status, .. } if status.error.as_ref()
            .is_some_and(|error| error.code == ErrorCode::DocumentReplaced))
    });
    assert!(told, "nobody was told");
    assert_eq!(device.fate(milk), "durable 2, confirmed 2");
    assert_eq!(device.query("select id from todo"), [[text("milk")]]);
    assert_eq!(device.status().error, None);
    assert!(device.image() == server.image(), "the two sides differ");
    device.cut_power();
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    assert_eq!(device.query("select id from todo"), [[text("milk")]]);
}

#[test]
fn no_more_of_a_replaced_document_is_called_durable_than_there_is() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    for id in ["milk", "bread", "salt"] {
        add(&mut device, id);
    }
    talk(&mut server, &mut [&mut device]);
    device.pass(1_000);
    assert_eq!(device.status().storage_lsns, [5, 5]);
    server.restore(Lsn::FIRST.plus(2));
    offline(&mut device);
    device.told.clear();
    back_online(&mut server, &mut device);
    device.pass(1_000);
    assert_eq!(device.status().storage_lsns, [3, 3]);
    let lsns = device.told.iter().filter_map(|(_, message)| match message {
        FromCore::Status { status, .. } => Some(status.storage_lsns),
        _ => None,
    });
    let claims: Vec<_> = lsns.filter(|[durable, visible]| durable > visible).collect();
    assert_eq!(claims, [[0; 2]; 0], "so long as it is not written down either");
}

#[test]
fn a_server_that_has_lost_the_document_changes_nothing_here() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    add(&mut device, "milk");
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    server.lose_document();
    back_online(&mut server, &mut device);
    assert_eq!(device.status().error.as_ref().map(|it| it.code), Some(ErrorCode::DocumentMissing));
    add(&mut device, "bread");
    assert_eq!(count(&mut device), [[integer(2)]]);
    assert_eq!(device.status().pending, 1);
}

/// Goal: damage on the server costs nobody anything that is here. Method: a server that refuses
/// the document, and serves it again.
#[test]
fn a_document_that_is_damaged_on_the_server_waits_offline_and_goes_on() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    let milk = add(&mut device, "milk");
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    server.is_damaged = true;
    back_online(&mut server, &mut device);
    let eggs = add(&mut device, "eggs");
    let synced = device.sync();
    let status = device.status().clone();
    let error = status.error.expect("an error");
    assert_eq!((status.connection, status.pending), (Connection::Offline, 1));
    assert_eq!(error.code, ErrorCode::Storage);
    assert!(error.message.contains("wait safely"), "{}", error.message);
    assert_eq!(device.code(synced), ErrorCode::Storage, "it is not worth waiting for");
    assert_eq!(device.fate(eggs), "durable 2");
    assert_eq!(count(&mut device), [[integer(2)]]);

    server.is_damaged = false;
    offline(&mut device);
    back_online(&mut server, &mut device);
    assert_eq!(device.status().connection, Connection::Online);
    assert_eq!((&device.status().error, device.status().pending), (&None, 0));
    for call in [milk, eggs] {
        assert!(device.fate(call).contains("confirmed"), "{}", device.fate(call));
    }
}

/// The server's document is full, even of rejections, until somebody else deletes something; or it
/// is not what it should be, until its operator mends it.
#[test]
fn mutations_whose_verdict_cannot_be_written_wait_and_are_sent_again_later() {
    let reason = "nothing goes in".to_owned();
    for (why, code) in [
        (UndecidedReason::NoRoomForVerdict { reason: reason.clone() }, ErrorCode::BudgetExceeded),
        (UndecidedReason::VerdictFailed { reason: reason.clone() }, ErrorCode::Storage),
    ] {
        let mut server = Server::default();
        let mut device = online(1, &mut server);
        server.no_verdict = Some(why);
        let milk = add(&mut device, "milk");
        talk(&mut server, &mut [&mut device]);
        let status = device.status().clone();
        assert_eq!((status.connection, status.pending), (Connection::Online, 1), "it follows on");
        let error = status.error.expect("an error");
        assert_eq!(error.code, code);
        for part in ["wait safely", &reason] {
            assert!(error.message.contains(part), "{}", error.message);
        }
        // That this device writes something says nothing of the server.
        add(&mut device, "bread");
        assert_eq!(device.status().error.as_ref().map(|error| error.code), Some(code));
        server.no_verdict = None;
        device.pass(30_000);
        talk(&mut server, &mut [&mut device]);
        assert_eq!((&device.status().error, device.status().pending), (&None, 0));
        assert!(device.fate(milk).contains("confirmed"), "{}", device.fate(milk));
    }
}

/// Goal: whoever asks anew whether all is in step hears the server's word of now, and not that of
/// half a minute ago; whoever asks on and on does not make it try many times a second. Method: it
/// cannot write a verdict, and is mended, while it follows or while it is away.
#[test]
fn sync_asks_a_server_again_that_was_mended_meanwhile() {
    let is_open = |it: &ToServer| matches!(it, ToServer::About { body: ToRoom::Open { .. }, .. });
    let reason = "nothing goes in".to_owned();
    for goes_away in [false, true] {
        let mut server = Server::default();
        let mut device = online(1, &mut server);
        server.no_verdict = Some(UndecidedReason::VerdictFailed { reason: reason.clone() });
        add(&mut device, "milk");
        talk(&mut server, &mut [&mut device]);
        for _ in 0..2 {
            let sync = device.sync();
            let error = device.status().error.as_ref().map(|error| error.code);
            assert_eq!(error, Some(ErrorCode::Storage), "nothing else is known");
            device.pass(999);
            assert!(!device.sent.iter().any(is_open), "it has just been asked");
            device.pass(1);
            talk(&mut server, &mut [&mut device]);
            assert_eq!(device.code(sync), ErrorCode::Storage, "it is as it was");
        }
        if goes_away {
            offline(&mut device);
        }
        server.no_verdict = None;
        let sync = device.sync();
        device.server_is_up = true;
        device.pass(1_000);
        talk(&mut server, &mut [&mut device]);
        assert!(matches!(device.answer(sync), FromCore::Done { .. }));
        assert_eq!((&device.status().error, device.status().pending), (&None, 0));
    }
}

/// Goal: a document that is asked for at another server is that server's only if it is the same
/// one, however often the app comes back. Method: the other server has another one of that name;
/// its address is that of the next opening too, and of the next core's.
#[test]
fn a_document_is_not_replaced_by_that_of_another_server_in_the_next_session_either() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    add(&mut device, "ours");
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    add(&mut device, "pending");
    let mut other = Server::default();
    other.lose_document();
    other.create(&todos());
    device.server_is_up = true;
    for session in ["the first", "reopened", "another core"] {
        match session {
            "reopened" => device.close(TAB),
            "another core" => device.kill_core(),
            _ => {}
        }
        device.start_open(TAB, Some("ws://other"), &todos());
        device.pass(40_000);
        talk(&mut other, &mut [&mut device]);
        let error = device.status().error.as_ref().map(|it| it.code);
        assert_eq!(error, Some(ErrorCode::DocumentExists), "{session}");
        assert_eq!(count(&mut device), [[integer(2)]], "{session}");
    }
    device.start_open(TAB, Some(SERVER), &todos());
    assert_eq!(device.status().error, None, "this server has refused nothing");
    device.pass(40_000);
    talk(&mut server, &mut [&mut device]);
    assert_eq!((device.status().pending, &device.status().error), (0, &None));
    assert_eq!(count(&mut device), [[integer(2)]]);
}
