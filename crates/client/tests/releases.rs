//! Releases of an app that are newer than a document can be made, or than its server's.

use tidelog_client::{Call, FromCore, Handle, Request, TabId, ToCore};
use tidelog_document::{Doctype, DoctypeHash};
use tidelog_sync::{FromRoom, FromServer, OpenDoctype, Refusal, ToRoom, ToServer, codec};
use tidelog_testing::client::server::{Server, back_online, offline, online, online_with, talk};
use tidelog_testing::client::*;
use tidelog_types::limits::Limits;
use tidelog_types::{ErrorCode, Outcome};

/// The same release with one migration more.
fn longer(mut doctype: Doctype) -> Doctype {
    doctype.migrations.push("create table more (id text) strict".to_owned());
    doctype
}

/// This device opens the document by a release, and brings it to the server with that.
fn bring(doctype: &Doctype, device: &mut Device, server: &mut Server) {
    let call = device.start_open(OTHER_TAB, Some(SERVER), doctype);
    device.opened(call);
    talk(server, &mut [device]);
}

/// The server answers what the device says until it has nothing more to say, and says nothing of
/// itself.
fn is_answered(device: &mut Device, server: &mut Server) {
    while !device.sent.is_empty() {
        for message in device.take_sent() {
            for answer in server.hear(device.number, message) {
                device.hear_server(&answer);
            }
        }
    }
}

/// What a tab says that asks this of what it has open.
fn asks(handle: Handle, request: Request, device: &mut Device) -> (Call, ToCore) {
    let call = device.next_call();
    (call, ToCore::Ask { call, handle, request })
}

/// The same of one that opens the document once more, by this release.
fn opens_too(doctype: &Doctype, device: &mut Device) -> (Call, Handle, ToCore) {
    let (call, mut open) = device.open_message(Some(SERVER), doctype);
    let other = Handle(HANDLE.0 + call.0);
    if let ToCore::Ask { handle, .. } = &mut open {
        *handle = other;
    }
    (call, other, open)
}

/// The release by which a message asks the server.
fn asked_by(message: &ToServer) -> Option<DoctypeHash> {
    let ToServer::About { body: ToRoom::Open { doctype, .. }, .. } = message else { return None };
    Some(match doctype {
        OpenDoctype::Named(hash) => DoctypeHash(*hash),
        OpenDoctype::Whole(bytes) => codec::decode::<Doctype>(bytes).expect("a doctype").hash(),
    })
}

/// What the document's status calls wrong.
fn wrong(device: &Device) -> Option<ErrorCode> {
    device.status().error.as_ref().map(|error| error.code)
}

/// A newer release of the todo list, whose migration needs every page of it.
fn marked() -> Doctype {
    let mut newer = todos();
    newer.migrations.push(
        "update todo set title = title || '!';
         create table mark (id text primary key) strict"
            .to_owned(),
    );
    newer.mutations.push(define("mark", &[], &["insert into mark values ('x')"]));
    newer
}

/// Goal: a tab learns that a newer release has migrated the document, whoever did that. Method: the
/// newer release opens it on another device, and in another tab of a local one.
#[test]
fn who_has_an_older_release_is_told_that_a_newer_one_has_migrated_the_document() {
    let mut server = Server::default();
    let (mut older, mut newer) = (online(1, &mut server), online(2, &mut server));
    talk(&mut server, &mut [&mut older, &mut newer]);
    assert!(!older.status().newer_elsewhere);
    bring(&longer(todos()), &mut newer, &mut server);
    talk(&mut server, &mut [&mut newer, &mut older]);
    assert!(older.status().newer_elsewhere && newer.status().newer_elsewhere);
    let of_tab = |device: &Device, tab: TabId| {
        let told = device.told.iter().rev().find_map(|(told, message)| match message {
            FromCore::Status { status, .. } | FromCore::Opened { status, .. } if *told == tab => {
                Some(status.newer_elsewhere)
            }
            _ => None,
        });
        told.expect("a status")
    };
    assert!(!of_tab(&newer, OTHER_TAB), "it has that release");

    let mut local = Device::new(3);
    local.lend();
    assert!(!local.open(&todos()).newer_elsewhere);
    let call = local.start_open(OTHER_TAB, None, &longer(todos()));
    assert!(!local.opened(call).newer_elsewhere);
    assert!(of_tab(&local, TAB));
}

/// Goal: what was told of releases stays true while a document is read anew. Method: the disk
/// refuses what an older release issues, in a document that a newer one has migrated.
#[test]
fn who_was_told_of_a_newer_release_is_not_told_otherwise_while_the_disk_refuses() {
    let mut server = Server::default();
    let (mut older, mut newer) = (online(1, &mut server), online(2, &mut server));
    for n in 0..100 {
        titled(&mut older, &n.to_string(), &format!("title of {n}"));
    }
    bring(&longer(todos()), &mut newer, &mut server);
    talk(&mut server, &mut [&mut newer, &mut older]);
    // What the server has decided is on the disk within a second.
    older.pass(1_000);
    older.kill_core();
    older.start_open(TAB, Some(SERVER), &todos());
    older.pass(1_000);
    assert!(older.status().newer_elsewhere);
    older.told.clear();
    older.fill_disk();
    let milk = add(&mut older, "milk");
    older.pass(5_000);
    assert_eq!(older.code(milk), ErrorCode::StorageFull);
    let told = older.told.iter().filter_map(|(_, message)| match message {
        FromCore::Status { status, .. } => Some(status),
        _ => None,
    });
    let told: Vec<_> = told.collect();
    assert!(!told.is_empty() && told.iter().all(|status| status.newer_elsewhere), "{told:#?}");
}

/// Goal: a document of which something is lost that its release needs sends all the same what
/// waits in it, and shows nothing. Method: it was opened by that while its server was away.
#[test]
fn a_document_that_damage_keeps_from_its_release_sends_what_is_pending() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    for n in 0..500 {
        titled(&mut device, &n.to_string(), &format!("title of {n}"));
    }
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    let call = device.start_open(OTHER_TAB, Some(SERVER), &marked());
    device.opened(call);
    let milk = add(&mut device, "milk");
    device.kill_core();
    device.rot(b"title of 250");
    let call = device.start_open(TAB, Some(SERVER), &marked());
    device.pass(1_000);
    assert_eq!(device.opened(call).pending, 1);
    for sql in ["select id from mark", "select title from todo"] {
        let failure = device.try_query(sql).expect_err("it is not there");
        assert!(failure.message.contains("damaged"), "{failure:?}");
    }
    assert_eq!(device.query("select title from todo where rowid = 1"), [[text("title of 0")]]);
    let bread = add(&mut device, "bread");
    assert_eq!(device.code(bread), ErrorCode::Storage, "it would run by an older schema");
    device.ask_again(&[milk]);
    for _ in 0..2 {
        back_online(&mut server, &mut device);
    }
    let confirmed = device.answers(milk).pop();
    assert!(matches!(confirmed, Some(FromCore::Confirmed { .. })), "{}", device.fate(milk));
    let sql = "select title from todo where id = '250'";
    assert_eq!(device.query(sql), [[text("title of 250!")]], "the server has migrated it");
    assert_eq!((device.query("select id from mark"), &device.status().error), (vec![], &None));
}

/// Goal: damage is not blamed on the words of whoever asks, and costs nobody what is whole. Method:
/// two releases have a document open; what the newer one's migration needs is lost, and it is read
/// anew without that, since the disk had no room.
#[test]
fn a_release_that_damage_keeps_a_document_from_is_told_the_damage() {
    let few = Limits { pool_pages_max: 0, ..Limits::DEFAULT };
    for url in [None, Some(SERVER)] {
        let mut server = Server::default();
        let mut device = match url {
            None => Device::with_limits(1, few),
            Some(_) => online_with(1, few, &mut server),
        };
        if url.is_none() {
            device.open(&todos());
        }
        // So that what rots is in the page file.
        device.log_size_max = 64 << 10;
        device.lose_page_server();
        device.lend();
        for n in 0..500 {
            titled(&mut device, &n.to_string(), &format!("title of {n}"));
        }
        if url.is_some() {
            talk(&mut server, &mut [&mut device]);
            offline(&mut device);
        }
        device.disk.set_full(url.is_none());
        let call = device.start_open(OTHER_TAB, url, &marked());
        device.opened(call);
        device.lose_page_server();
        device.lend();
        device.rot(b"title of 250");
        if url.is_some() {
            device.fill_disk();
            let full = add(&mut device, "bread");
            device.pass(1_000);
            assert_eq!(device.code(full), ErrorCode::StorageFull);
        }
        device.disk.set_full(false);
        device.pass(1_000);

        let (mark, message) = device.mutation("mark", &[]);
        device.ask(OTHER_TAB, vec![message]);
        let query = device.start_query(OTHER_TAB, "select id from mark");
        let live = device.watch_in(OTHER_TAB, "select id from mark");
        for call in [mark, query, live] {
            let failure = device.failure(call);
            assert_eq!((failure.code, failure.outcome), (ErrorCode::Storage, Outcome::None));
            assert!(failure.message.contains("damaged"), "{failure:?}");
        }
        let milk = add(&mut device, "milk");
        assert!(device.fate(milk).starts_with("durable"), "{}", device.fate(milk));
        let sql = "select title from todo where rowid = 1";
        assert_eq!(device.query(sql), [[text("title of 0")]]);
        let again = device.answers(live).len();
        assert_eq!(again, 2, "it is told again as that may have changed: {}", device.fate(live));
    }
}

/// A newer release of the todo list that parts from [`marked`].
fn parting() -> Doctype {
    let mut newer = todos();
    newer.migrations.push("create table badge (id text primary key) strict".to_owned());
    newer.mutations.push(define("pin", &[], &["insert into badge values ('x')"]));
    newer
}

/// Goal: what was written by a release that the server does not take is shown as it was. Method:
/// tabs of two releases have the document; nothing of it comes before the server has looked at the
/// newer one, which it refuses.
#[test]
fn the_server_is_asked_by_the_newest_release_before_all_others() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    offline(&mut device);
    let call = device.start_open(OTHER_TAB, Some(SERVER), &parting());
    device.opened(call);
    let (_, pin) = device.mutation("pin", &[]);
    device.ask(OTHER_TAB, vec![pin]);
    assert_eq!(asked_anew(&mut device), [parting().hash(), todos().hash()]);
}

/// The releases by which a new connection asks, of which nothing comes.
fn asked_anew(device: &mut Device) -> Vec<DoctypeHash> {
    device.take_sent();
    device.server_is_up = true;
    device.pass(15_000);
    device.hear_server(&FromServer::Welcome);
    device.take_sent().into_iter().filter_map(|it| asked_by(&it)).collect()
}

/// Goal: releases travel to a server that does not know them, and to no other one. Method: the
/// server has the first, by which the device asks; then it opens a newer one, goes offline and
/// comes back.
#[test]
fn a_server_is_brought_releases_that_it_does_not_know_and_asked_by_the_hash_of_others() {
    let mut server = Server::default();
    server.create(&todos());
    let mut device = online(1, &mut server);
    bring(&marked(), &mut device, &mut server);
    assert!(server.knows(&marked()), "it is never brought");
    offline(&mut device);
    device.take_sent();
    device.server_is_up = true;
    device.pass(15_000);
    device.hear_server(&FromServer::Welcome);
    let asked: Vec<bool> = device.take_sent().iter().filter_map(is_whole).collect();
    assert_eq!(asked, [false, false], "by the hashes of both");
}

/// Whether a message asks for the document, and brings the release whole.
fn is_whole(message: &ToServer) -> Option<bool> {
    let ToServer::About { body: ToRoom::Open { doctype, .. }, .. } = message else { return None };
    Some(matches!(doctype, OpenDoctype::Whole(_)))
}

/// Goal: a server that wants what it was brought is not asked in a loop. Method: it wants the
/// doctype each time that it is asked, at once or once it has said where the document stands, for
/// ten minutes; then it is mended.
#[test]
fn a_server_that_wants_what_it_was_brought_is_asked_again_after_a_pause() {
    for lets_in in [false, true] {
        let mut server = Server::default();
        let mut device = Device::new(1);
        device.server_is_up = true;
        let call = device.start_open(TAB, Some(SERVER), &todos());
        device.opened(call);
        let (mut named, mut whole) = (0, 0);
        for _ in 0..600 {
            while !device.sent.is_empty() {
                for message in device.take_sent() {
                    let Some(is_whole) = is_whole(&message) else {
                        let answers = server.hear(device.number, message);
                        answers.iter().for_each(|it| device.hear_server(it));
                        continue;
                    };
                    named += u32::from(!is_whole);
                    whole += u32::from(is_whole);
                    assert!(named + whole < 200, "it is asked in a loop");
                    let ToServer::About { channel, .. } = message else { unreachable!() };
                    if lets_in {
                        let answers = server.hear(device.number, message);
                        answers.iter().for_each(|it| device.hear_server(it));
                    }
                    let body = FromRoom::Refused(Refusal::DoctypeWanted);
                    device.hear_server(&FromServer::About { channel, body });
                }
            }
            device.pass(1_000);
        }
        assert!((2..=100).contains(&whole) && named <= whole, "{lets_in}: {named} {whole}");
        assert_eq!(wrong(&device), Some(ErrorCode::Protocol));
        device.pass(60_000);
        talk(&mut server, &mut [&mut device]);
        device.pass(60_000);
        talk(&mut server, &mut [&mut device]);
        assert_eq!(wrong(&device), None, "it has got over it");
        let milk = add(&mut device, "milk");
        talk(&mut server, &mut [&mut device]);
        assert!(device.fate(milk).contains("confirmed"), "{}", device.fate(milk));
    }
}

/// Goal: the connection may go at any moment of that. Method: it goes behind the server's word that
/// it wants the doctype, before anything is brought; or behind what is brought, before an answer.
#[test]
fn a_doctype_that_is_wanted_is_brought_on_the_next_connection() {
    for heard in [1, 2] {
        let mut server = Server::default();
        let mut device = Device::new(1);
        device.server_is_up = true;
        let call = device.start_open(TAB, Some(SERVER), &todos());
        device.opened(call);
        let milk = add(&mut device, "milk");
        // Hello, and so many times what it says of the document.
        for _ in 0..=heard {
            for message in device.take_sent() {
                let answers = server.hear(device.number, message);
                if server.opens == 0 {
                    answers.iter().for_each(|it| device.hear_server(it));
                }
            }
        }
        assert_eq!(server.opens, heard - 1);
        offline(&mut device);
        server.forget(device.number);
        device.take_sent();
        back_online(&mut server, &mut device);
        assert!(server.knows(&todos()));
        assert!(device.fate(milk).contains("confirmed"), "{heard}: {}", device.fate(milk));
    }
}

/// Goal: whoever waits until all is in step is told nothing of an earlier refusal once the server
/// says something else. Method: a device is given access, asks anew, and is to bring its doctype;
/// or the server is put back to before it had a release that parts from the device's.
#[test]
fn a_refusal_that_is_over_fails_nobody_who_waits_for_the_next_answer() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    while wrong(&device) != Some(ErrorCode::Access) {
        for message in device.take_sent() {
            if let (Some(_), ToServer::About { channel, .. }) = (asked_by(&message), &message) {
                let refusal = Refusal::Access { reason: "no grant".to_owned() };
                let (channel, body) = (*channel, FromRoom::Refused(refusal));
                device.hear_server(&FromServer::About { channel, body });
            } else {
                let answers = server.hear(device.number, message);
                answers.iter().for_each(|it| device.hear_server(it));
            }
        }
    }
    in_step_once_asked_anew(&mut device, &mut server);

    let first = Doctype { mutations: Vec::new(), ..todos() };
    let mut server = Server::default();
    server.create(&first);
    let mut device = online(1, &mut server);
    let mut other = online(2, &mut server);
    bring(&marked(), &mut other, &mut server);
    let call = device.start_open(OTHER_TAB, Some(SERVER), &parting());
    device.opened(call);
    is_answered(&mut device, &mut server);
    assert_eq!(wrong(&device), Some(ErrorCode::DoctypeMismatch));
    let mut restored = Server::default();
    restored.create(&first);
    in_step_once_asked_anew(&mut device, &mut restored);
}

/// A tab has the server asked anew, and waits until all is in step.
fn in_step_once_asked_anew(device: &mut Device, server: &mut Server) {
    device.ask(TAB, vec![ToCore::SetConnected { handle: HANDLE, word: 2 }]);
    let sync = device.sync();
    assert!(device.answers(sync).is_empty(), "{:?}", device.answers(sync));
    talk(server, &mut [&mut *device]);
    assert_eq!(wrong(device), None);
    assert!(matches!(device.answer(sync), FromCore::Done { .. }), "{:?}", device.answer(sync));
}

/// Goal: a server may forget a doctype that it has taken. Method: it does with all else, after it
/// has let a device in, and before anything of the document has come.
#[test]
fn a_server_that_has_lost_everything_is_brought_the_release_again() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    is_answered(&mut device, &mut server);
    assert!(server.knows(&todos()));
    device.pass(1_000);
    offline(&mut device);
    device.take_sent();
    server.lose_document();
    let milk = add(&mut device, "milk");
    back_online(&mut server, &mut device);
    assert!(server.knows(&todos()), "it is never brought again");
    assert!(device.fate(milk).contains("confirmed"), "{}", device.fate(milk));
}

/// Goal: a server that does not take the newest release does not send all of the document each
/// time that it is asked again. Method: it would be let in by an older one, by which something
/// waits too; then a backup takes the place of the server's store, and it takes both.
#[test]
fn a_server_that_refused_the_newest_release_is_asked_by_that_alone_until_it_takes_it() {
    let first = Doctype { mutations: Vec::new(), ..todos() };
    let mut server = Server::default();
    server.create(&first);
    let mut device = online(1, &mut server);
    offline(&mut device);
    let milk = add(&mut device, "milk");
    let call = device.start_open(OTHER_TAB, Some(SERVER), &parting());
    device.opened(call);
    let (pin, message) = device.mutation("pin", &[]);
    device.ask(OTHER_TAB, vec![message]);
    let mut other = online(2, &mut server);
    bring(&marked(), &mut other, &mut server);
    back_online(&mut server, &mut device);
    assert_eq!(wrong(&device), Some(ErrorCode::DoctypeMismatch));
    offline(&mut device);
    assert_eq!(asked_anew(&mut device), [parting().hash()]);
    offline(&mut device);

    let mut restored = Server::default();
    restored.create(&first);
    back_online(&mut restored, &mut device);
    for call in [milk, pin] {
        let confirmed = device.answers(call).pop();
        assert!(matches!(confirmed, Some(FromCore::Confirmed { .. })), "{}", device.fate(call));
    }
    assert_eq!(wrong(&device), None);
}

/// Goal: a release that the server's document is not of is refused where it is opened, and nothing
/// changes. Method: another device has brought a newer release; then one is opened that parts from
/// that, which this device has never heard of either.
#[test]
fn a_release_that_parts_from_what_the_server_has_is_not_opened() {
    let mut server = Server::default();
    let mut other = online(1, &mut server);
    bring(&marked(), &mut other, &mut server);
    let mut device = online(2, &mut server);
    for doctype in [parting(), longer(parting())] {
        let call = device.start_open(OTHER_TAB, Some(SERVER), &doctype);
        assert_eq!(device.code(call), ErrorCode::DoctypeMismatch);
    }
    let milk = add(&mut device, "milk");
    talk(&mut server, &mut [&mut device, &mut other]);
    let confirmed = device.answers(milk).pop();
    assert!(matches!(confirmed, Some(FromCore::Confirmed { .. })), "{}", device.fate(milk));
    assert_eq!(device.status().error, None);
    let call = device.start_open(OTHER_TAB, Some(SERVER), &marked());
    device.opened(call);
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.status().error, None);
}

/// Goal: a release that the server's document is not of keeps nobody from the server once it is
/// closed. Method: it has fewer migrations than the server, so that no page tells before the server
/// does; a newer release of the server's line is opened behind it.
#[test]
fn a_release_that_the_server_refuses_is_forgotten_once_nobody_holds_it() {
    let mut server = Server::default();
    let mut other = online(1, &mut server);
    let longer = longer(marked());
    bring(&longer, &mut other, &mut server);
    let mut device = online(2, &mut server);
    let call = device.start_open(OTHER_TAB, Some(SERVER), &parting());
    device.opened(call);
    talk(&mut server, &mut [&mut device]);
    assert_eq!(wrong(&device), Some(ErrorCode::DoctypeMismatch));
    let milk = add(&mut device, "milk");
    device.close(OTHER_TAB);
    talk(&mut server, &mut [&mut device]);
    let confirmed = device.answers(milk).pop();
    assert!(matches!(confirmed, Some(FromCore::Confirmed { .. })), "{}", device.fate(milk));
    assert_eq!(device.status().error, None);
    let call = device.start_open(OTHER_TAB, Some(SERVER), &longer);
    device.opened(call);
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.status().error, None);
}

/// The same where it was closed before the server has refused it, or with the core.
#[test]
fn a_release_that_nobody_holds_any_more_is_forgotten_as_the_server_refuses_it() {
    for is_killed in [false, true] {
        let mut server = Server::default();
        let mut other = online(1, &mut server);
        let longer = longer(marked());
        bring(&longer, &mut other, &mut server);
        let mut device = online(2, &mut server);
        offline(&mut device);
        let call = device.start_open(OTHER_TAB, Some(SERVER), &parting());
        device.opened(call);
        let milk = add(&mut device, "milk");
        if is_killed {
            device.kill_core();
            let call = device.start_open(TAB, Some(SERVER), &todos());
            device.opened(call);
            device.ask_again(&[milk]);
        } else {
            device.close(OTHER_TAB);
        }
        back_online(&mut server, &mut device);
        let confirmed = device.answers(milk).pop();
        assert!(matches!(confirmed, Some(FromCore::Confirmed { .. })), "{}", device.fate(milk));
        let call = device.start_open(OTHER_TAB, Some(SERVER), &longer);
        device.opened(call);
        talk(&mut server, &mut [&mut device]);
        assert_eq!(device.status().error, None);
    }
}

/// Goal: a release that the server's document is not of keeps no device from the right one for
/// good. Method: its core ends before the server has refused it, and the right one is the first to
/// be opened behind that; the device knows a release that both succeed, or no other.
#[test]
fn a_release_that_nobody_needs_gives_way_to_one_that_parts_from_it() {
    for is_first in [false, true] {
        let mut server = Server::default();
        let mut other = online(1, &mut server);
        let longer = longer(marked());
        bring(&longer, &mut other, &mut server);
        let mut device = if is_first { Device::new(2) } else { online(2, &mut server) };
        if !is_first {
            offline(&mut device);
        }
        let call = device.start_open(OTHER_TAB, Some(SERVER), &parting());
        device.opened(call);
        device.kill_core();
        let call = device.start_open(TAB, Some(SERVER), &longer);
        device.opened(call);
        let milk = add(&mut device, "milk");
        for _ in 0..2 {
            device.kill_core();
            let call = device.start_open(TAB, Some(SERVER), &longer);
            device.opened(call);
            device.ask_again(&[milk]);
            back_online(&mut server, &mut device);
            assert_eq!(device.status().error, None, "{is_first}");
        }
        let confirmed = device.answers(milk).pop();
        assert!(matches!(confirmed, Some(FromCore::Confirmed { .. })), "{}", device.fate(milk));
    }
}

/// The counterpart: what is held was migrated by the release that nobody has open. It is told from
/// what is here, though its server is away.
#[test]
fn a_release_that_the_document_is_of_gives_way_to_none() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    bring(&longer(parting()), &mut device, &mut server);
    for doctype in [marked(), longer(marked())] {
        device.kill_core();
        let call = device.start_open(TAB, Some(SERVER), &doctype);
        assert_eq!(device.code(call), ErrorCode::DoctypeMismatch);
    }
    let call = device.start_open(TAB, Some(SERVER), &parting());
    device.opened(call);
}

/// Goal: a release of which the document was shown by nobody is none that it goes back to. Method:
/// what the migration of the one that parts from it needs is lost.
#[test]
fn a_release_that_cannot_take_the_place_of_one_that_nobody_needs_leaves_it_there() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    for n in 0..500 {
        titled(&mut device, &n.to_string(), &format!("title of {n}"));
    }
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    let call = device.start_open(OTHER_TAB, Some(SERVER), &parting());
    device.opened(call);
    device.kill_core();
    device.rot(b"title of 250");
    let call = device.start_open(TAB, Some(SERVER), &marked());
    device.pass(1_000);
    assert!(device.code(call) == ErrorCode::Storage, "{}", device.fate(call));
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    let sql = "select title from todo where rowid = 1";
    assert_eq!(device.query(sql), [[text("title of 0")]]);
}

/// Goal: what waits for the server by a refused release stays, and with it the release. Method: its
/// tab has issued something before it is closed, or its core ends.
#[test]
fn a_refused_release_is_kept_for_what_was_issued_by_it() {
    let mut server = Server::default();
    let mut other = online(1, &mut server);
    let call = other.start_open(OTHER_TAB, Some(SERVER), &marked());
    other.opened(call);
    let mut device = online(2, &mut server);
    offline(&mut device);
    let call = device.start_open(OTHER_TAB, Some(SERVER), &parting());
    device.opened(call);
    let (_, pin) = device.mutation("pin", &[]);
    device.ask(OTHER_TAB, vec![pin]);
    device.close(OTHER_TAB);
    talk(&mut server, &mut [&mut other]);
    back_online(&mut server, &mut device);
    let standing = (wrong(&device), device.status().pending);
    assert_eq!(standing, (Some(ErrorCode::DoctypeMismatch), 1));
    assert_eq!(device.query("select count(*) from badge"), [[integer(1)]]);
    device.kill_core();
    let call = device.start_open(OTHER_TAB, Some(SERVER), &marked());
    assert_eq!(device.code(call), ErrorCode::DoctypeMismatch);
    let call = device.start_open(TAB, Some(SERVER), &todos());
    assert_eq!(device.opened(call).pending, 1);
    assert_eq!(device.query("select count(*) from badge"), [[integer(1)]]);
}

/// Goal: no two releases that part hold a document at a time. Method: the disk has no room for the
/// one that was opened first, so that the document is read anew without it.
#[test]
fn a_release_that_parts_from_one_that_the_disk_had_no_room_for_is_not_opened() {
    for url in [None, Some(SERVER)] {
        let mut device = Device::new(1);
        let call = device.start_open(TAB, url, &todos());
        device.opened(call);
        device.fill_disk();
        let call = device.start_open(OTHER_TAB, url, &marked());
        device.opened(call);
        device.disk.set_full(false);
        let call = device.start_open(TabId(3), url, &parting());
        assert_eq!(device.code(call), ErrorCode::DoctypeMismatch);
        let (mark, message) = device.mutation("mark", &[]);
        device.ask(OTHER_TAB, vec![message]);
        assert!(device.fate(mark).starts_with("durable"), "{}", device.fate(mark));
    }
}

/// Goal: what this device alone has migrated is not taken for its server's. Method: the disk has no
/// room for a release that a tab opens a document by, whose migration is shown all the same; the
/// tab closes it, and with that opens it by one that parts.
#[test]
fn a_release_that_nobody_has_opened_for_good_keeps_no_other_away() {
    let mut device = Device::new(1);
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    device.fill_disk();
    let call = device.start_open(OTHER_TAB, Some(SERVER), &marked());
    device.opened(call);
    device.disk.set_full(false);
    let (_, close) = asks(HANDLE, Request::Close, &mut device);
    let (call, _, open) = opens_too(&parting(), &mut device);
    device.ask(OTHER_TAB, vec![close, open]);
    device.opened(call);
}

/// Goal: a release that is refused changes nothing for whoever opens the document next, though it
/// is to be opened once more behind them. Method: a core begins with layers to build and three
/// opens, of which the first and the last have a release that parts from the server's.
#[test]
fn a_refused_release_that_is_to_be_opened_again_keeps_no_other_away() {
    let mut server = Server::default();
    let mut other = online(1, &mut server);
    bring(&marked(), &mut other, &mut server);
    let mut device = online(2, &mut server);
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    add(&mut device, "milk");
    device.kill_core();
    let (mut refused, longer) = (parting(), longer(marked()));
    refused.migrations.push("create table other (id text) strict".to_owned());
    let opens = [&refused, &longer, &refused].map(|doctype| opens_too(doctype, &mut device));
    let [first, second, third] = [0, 1, 2].map(|nth: usize| opens[nth].0);
    device.ask(TAB, opens.into_iter().map(|(.., open)| open).collect());
    assert_eq!(device.code(first), ErrorCode::DoctypeMismatch);
    device.opened(second);
    assert_eq!(device.code(third), ErrorCode::DoctypeMismatch);
}

/// Goal: a release that the server has taken gives way to none that parts from it, or what is
/// issued by that would never be decided. Method: the core ends as soon as the server has said
/// where the document stands, with its migration on the way.
#[test]
fn a_release_that_the_server_has_taken_gives_way_to_none() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    let call = device.start_open(OTHER_TAB, Some(SERVER), &parting());
    device.opened(call);
    is_answered(&mut device, &mut server);
    device.kill_core();
    let call = device.start_open(TAB, Some(SERVER), &marked());
    assert_eq!(device.code(call), ErrorCode::DoctypeMismatch);
    let call = device.start_open(TAB, Some(SERVER), &parting());
    device.opened(call);
}

/// The same of one that another tab has opened a successor of, which nobody has open any more: of
/// the same migrations, or of more.
#[test]
fn a_release_that_the_server_has_taken_gives_way_to_none_behind_its_successor() {
    let mut variant = parting();
    variant.mutations.push(define("other", &[], &["insert into badge values ('other')"]));
    for successor in [variant, longer(parting())] {
        let mut server = Server::default();
        let mut device = online(1, &mut server);
        let call = device.start_open(OTHER_TAB, Some(SERVER), &parting());
        device.opened(call);
        is_answered(&mut device, &mut server);
        offline(&mut device);
        for _ in 0..2 {
            device.kill_core();
            let call = device.start_open(TAB, Some(SERVER), &successor);
            device.opened(call);
        }
        device.kill_core();
        let call = device.start_open(TAB, Some(SERVER), &marked());
        assert_eq!(device.code(call), ErrorCode::DoctypeMismatch);
    }
}

/// Goal: what is said of a release that was let go of meanwhile is told of no other one. Method:
/// the server is asked again by the release that it refused, which its tab closes before the
/// answer.
#[test]
fn a_refusal_that_comes_once_its_release_is_forgotten_fails_nobody() {
    let mut server = Server::default();
    let mut other = online(1, &mut server);
    bring(&longer(marked()), &mut other, &mut server);
    let mut device = online(2, &mut server);
    let call = device.start_open(OTHER_TAB, Some(SERVER), &parting());
    device.opened(call);
    talk(&mut server, &mut [&mut device]);
    assert_eq!(wrong(&device), Some(ErrorCode::DoctypeMismatch));
    offline(&mut device);
    device.server_is_up = true;
    device.pass(15_000);
    device.hear_server(&FromServer::Welcome);
    device.close(OTHER_TAB);
    let (sync, ask) = asks(HANDLE, Request::Sync, &mut device);
    device.ask(TAB, vec![ask]);
    talk(&mut server, &mut [&mut device]);
    assert_eq!(wrong(&device), None);
    assert!(matches!(device.answers(sync)[..], [FromCore::Done { .. }]), "{}", device.fate(sync));
}

/// Goal: what was said of a release that gave way is told of no other one. Method: the device knows
/// no other than the one that was refused, and its tab closes that, opens the right one, and syncs,
/// all at once.
#[test]
fn the_refusal_of_a_release_that_gave_way_fails_nobody() {
    let mut server = Server::default();
    let mut other = online(1, &mut server);
    let longer = longer(marked());
    bring(&longer, &mut other, &mut server);
    let mut device = Device::new(2);
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), &parting());
    device.opened(call);
    talk(&mut server, &mut [&mut device]);
    assert_eq!(wrong(&device), Some(ErrorCode::DoctypeMismatch));
    let (_, close) = asks(HANDLE, Request::Close, &mut device);
    let (call, handle, open) = opens_too(&longer, &mut device);
    let (sync, ask) = asks(handle, Request::Sync, &mut device);
    device.ask(TAB, vec![close, open, ask]);
    assert_eq!(device.opened(call).error, None);
    talk(&mut server, &mut [&mut device]);
    assert!(matches!(device.answers(sync)[..], [FromCore::Done { .. }]), "{}", device.fate(sync));
}

/// A device whose server is away, with titles in its page file, of which it holds none in memory.
fn with_titles(server: &mut Server) -> Device {
    let few = Limits { pool_pages_max: 0, ..Limits::DEFAULT };
    let mut device = online_with(1, few, server);
    // So that what rots is in the page file.
    device.log_size_max = 64 << 10;
    device.lose_page_server();
    device.lend();
    for n in 0..500 {
        titled(&mut device, &n.to_string(), &format!("title of {n}"));
    }
    talk(server, &mut [&mut device]);
    offline(&mut device);
    device
}

/// Goal: what is durable is durable with the release that it was issued by. Method: a page is lost
/// that the newest release of the record needs, which nobody has open, so that the document cannot
/// be brought to it; the disk has no room for another one, and is read anew without it.
#[test]
fn what_was_issued_by_a_release_is_durable_with_that() {
    let mut server = Server::default();
    let mut device = with_titles(&mut server);
    let mut variant = todos();
    variant.mutations.push(define("other", &[], &["insert into note values ('other')"]));
    let call = device.start_open(OTHER_TAB, Some(SERVER), &marked());
    device.opened(call);
    device.close(OTHER_TAB);
    device.lose_page_server();
    device.lend();
    device.rot(b"title of 250");
    device.fill_disk();
    let call = device.start_open(OTHER_TAB, Some(SERVER), &variant);
    device.opened(call);
    device.pass(1_000);
    device.disk.set_full(false);
    device.pass(20_000);
    let (other, message) = device.mutation("other", &[]);
    device.ask(OTHER_TAB, vec![message]);
    assert!(device.fate(other).starts_with("durable"), "{}", device.fate(other));
    device.kill_core();
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.pass(1_000);
    assert_eq!(device.opened(call).pending, 1);
    device.server_is_up = true;
    device.pass(15_000);
    device.hear_server(&FromServer::Welcome);
    let mut opens = device.take_sent().into_iter().filter_map(|it| asked_by(&it));
    assert!(opens.any(|doctype| doctype == variant.hash()), "its server never hears of it");
}

/// Goal: no server is brought an older release alone while tabs have a document open by a newer
/// one. Method: that comes while the disk is full, so that the document is read anew without it,
/// and an app asks for the server at once.
#[test]
fn a_server_is_brought_the_release_that_a_full_disk_could_not_note() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    device.fill_disk();
    let appends = device.appends();
    let call = device.start_open(OTHER_TAB, Some(SERVER), &marked());
    device.opened(call);
    device.take_sent();
    device.ask(TAB, vec![ToCore::SetConnected { handle: HANDLE, word: 0 }]);
    let opens: Vec<_> = device.take_sent().into_iter().filter_map(|it| asked_by(&it)).collect();
    assert_eq!(opens, [marked().hash(), todos().hash()]);
    assert_eq!(device.appends(), appends + 1, "nothing is written by itself so soon");
}

/// Goal: a document that lacks a page goes on with its server. Method: two tabs have it open by
/// releases of the same migrations, which need that page; it is read anew without it, since the
/// disk had no room.
#[test]
fn two_releases_of_a_document_that_lacks_a_page_leave_its_server_alone() {
    let mut server = Server::default();
    let mut device = with_titles(&mut server);
    let mut other = marked();
    other.mutations.push(define("other", &[], &["insert into mark values ('other')"]));
    for (tab, doctype) in [(OTHER_TAB, marked()), (TabId(3), other)] {
        let call = device.start_open(tab, Some(SERVER), &doctype);
        device.opened(call);
    }
    device.lose_page_server();
    device.lend();
    device.rot(b"title of 250");
    device.fill_disk();
    let full = add(&mut device, "bread");
    device.pass(1_000);
    assert_eq!(device.code(full), ErrorCode::StorageFull);
    device.disk.set_full(false);
    device.pass(20_000);
    let ask = |device: &mut Device| device.query("select title from todo where rowid = 1");
    ask(&mut device);
    device.pass(1_000);
    let appends = device.appends();
    for _ in 0..3 {
        ask(&mut device);
        device.pass(1_000);
    }
    assert_eq!(device.appends(), appends, "a question changes no record");
}

/// A release of the todo list with the same migrations and one mutation more.
fn variant(name: &str) -> Doctype {
    let mut variant = todos();
    variant.mutations.push(define(name, &[], &["insert into note values ('other')"]));
    variant
}

/// Some minutes pass at a server that answers. Says how often it was asked for the document.
fn minutes_pass(device: &mut Device, server: &mut Server) -> usize {
    let mut asked = 0;
    for _ in 0..180 {
        device.pass(1_000);
        asked += usize::from(device.sent.iter().any(|sent| asked_by(sent).is_some()));
        talk(server, &mut [device]);
    }
    asked
}

/// Goal: a document that has nothing to keep but what it notes of itself stays at its server on a
/// full disk, and a sync gets through. Method: a release is opened, and the server takes it; the
/// disk has no room for either, or had it for the first.
#[test]
fn a_server_that_takes_a_release_is_not_left_on_a_full_disk() {
    for is_noted in [true, false] {
        let mut server = Server::default();
        let mut device = online(1, &mut server);
        offline(&mut device);
        device.disk.set_full(!is_noted);
        let call = device.start_open(OTHER_TAB, Some(SERVER), &variant("other"));
        device.opened(call);
        device.fill_disk();
        back_online(&mut server, &mut device);
        let asked = minutes_pass(&mut device, &mut server);
        assert!(asked <= 1, "it was asked {asked} times");
        let (sync, ask) = asks(HANDLE, Request::Sync, &mut device);
        device.ask(TAB, vec![ask]);
        talk(&mut server, &mut [&mut device]);
        let said = device.answers(sync);
        assert!(matches!(said[..], [FromCore::Done { .. }]), "{is_noted}: {said:?}");
        assert_eq!(wrong(&device), None);
        device.disk.set_full(false);
        let milk = add(&mut device, "milk");
        assert!(device.fate(milk).starts_with("durable"), "{}", device.fate(milk));
    }
}

/// The same where an app has named another server, which has the same document.
#[test]
fn a_server_that_a_full_disk_cannot_note_is_not_left() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    device.close(TAB);
    device.fill_disk();
    let call = device.start_open(OTHER_TAB, Some("ws://other"), &todos());
    device.opened(call);
    let asked = minutes_pass(&mut device, &mut server);
    assert!((1..=2).contains(&asked), "it was asked {asked} times");
    assert_eq!(wrong(&device), None);
}

/// Goal: two releases of the same migrations do not take turns as the newest, with the record
/// written and the server left each time that a document is read anew. Method: two tabs have it
/// open by them, and a mutation finds no room.
#[test]
fn two_releases_of_the_same_migrations_change_nothing_where_a_document_is_read_anew() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    for (tab, name) in [(TabId(3), "third"), (OTHER_TAB, "second")] {
        let call = device.start_open(tab, Some(SERVER), &variant(name));
        device.opened(call);
    }
    talk(&mut server, &mut [&mut device]);
    device.fill_disk();
    let full = add(&mut device, "bread");
    assert_eq!(device.code(full), ErrorCode::StorageFull);
    device.disk.set_full(false);
    let appends = device.appends();
    let asked = minutes_pass(&mut device, &mut server);
    assert_eq!(device.appends(), appends, "the record lacks nothing");
    assert!(asked <= 1, "it was asked {asked} times");
}
