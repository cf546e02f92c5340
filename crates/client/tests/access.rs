//! What the server allows with the document, and what becomes of mutations that it does not.

use tidelog_client::{FromCore, Input, ToCore};
use tidelog_document::Mutation;
use tidelog_sync::{ToRoom, ToServer, WireFrame};
use tidelog_testing::client::server::{
    Server, back_online, connect, offline, online, online_with, talk,
};
use tidelog_testing::client::*;
use tidelog_types::limits::Limits;
use tidelog_types::{ErrorCode, Outcome, Role};

/// The server allows a device something else from now on, and it hears so.
fn allow(server: &mut Server, device: &mut Device, role: Role) {
    for told in server.allow(device.number, role) {
        device.hear_server(&told);
    }
}

/// A server that takes tokens of one user.
fn with_tokens() -> Server {
    let mut server = Server::default();
    server.subject = Some("ada".to_owned());
    server
}

fn listen(device: &mut Device) {
    device.ask(TAB, vec![ToCore::ListenRejections { handle: HANDLE }]);
}

#[test]
fn a_reader_is_told_at_once_that_it_may_not_change_the_document() {
    let mut server = with_tokens();
    let (mut writer, mut reader) = (online(1, &mut server), online(2, &mut server));
    assert_eq!(writer.status().access, Some(Role::Write));
    allow(&mut server, &mut reader, Role::Read);
    assert_eq!(reader.status().access, Some(Role::Read));
    let refused = add(&mut reader, "milk");
    let failure = reader.failure(refused);
    assert_eq!((failure.code, failure.outcome), (ErrorCode::Access, Outcome::None));
    assert_eq!(reader.status().pending, 0);
    add(&mut writer, "bread");
    talk(&mut server, &mut [&mut writer, &mut reader]);
    assert_eq!(reader.query("select id from todo"), [[text("bread")]], "it follows");

    // Away from the server it is the same, of a core that knows it from the disk alone.
    reader.pass(2_000);
    reader.cut_power();
    reader.server_is_up = false;
    let call = reader.start_open(TAB, Some(SERVER), &todos());
    assert_eq!(reader.opened(call).access, Some(Role::Read));
    let refused = add(&mut reader, "milk");
    assert_eq!(reader.code(refused), ErrorCode::Access);
    server.readers.clear();
    back_online(&mut server, &mut reader);
    assert_eq!(reader.status().access, Some(Role::Write));
    add(&mut reader, "milk");
    talk(&mut server, &mut [&mut writer, &mut reader]);
    assert_eq!(server.image(), reader.image());
}

/// Goal: who became a reader while it was away hears of each mutation that it is rejected, once,
/// with the reason, and shows none of them; what it issues once it may write again is applied.
#[test]
fn what_a_writer_has_issued_who_became_a_reader_is_rejected() {
    let mut server = with_tokens();
    let (mut ann, mut bob) = (online(1, &mut server), online(2, &mut server));
    listen(&mut ann);
    let kept = add(&mut ann, "kept");
    talk(&mut server, &mut [&mut ann]);
    assert_eq!(ann.fate(kept), "durable 1, confirmed 2");
    offline(&mut ann);
    let calls = ["a", "b"].map(|id| add(&mut ann, id));
    add(&mut bob, "theirs");
    talk(&mut server, &mut [&mut bob]);
    server.readers.insert(ann.number);
    let synced = ann.sync();
    back_online(&mut server, &mut ann);
    for (call, lsn) in calls.into_iter().zip([2, 3]) {
        assert_eq!(ann.fate(call), format!("durable {lsn}, rejected: access"));
    }
    assert!(matches!(ann.answer(synced), FromCore::Done { .. }));
    assert_eq!(ann.rejections(TAB), [2, 3]);
    let ids = "select id from todo order by id";
    assert_eq!(ann.query(ids), [[text("kept")], [text("theirs")]]);
    assert_eq!((ann.status().pending, ann.status().access), (0, Some(Role::Read)));
    assert_eq!(server.image(), ann.image());

    server.readers.clear();
    offline(&mut ann);
    back_online(&mut server, &mut ann);
    let again = add(&mut ann, "again");
    talk(&mut server, &mut [&mut ann, &mut bob]);
    assert_eq!(ann.fate(again), "durable 1, confirmed 4");
    assert_eq!(server.image(), bob.image());
}

/// Goal: nobody is told of a rejection that a power cut takes back, since the server may take the
/// mutation after that. Method: the flush that would make it last is held back.
#[test]
fn a_rejection_for_want_of_access_is_told_once_it_is_durable() {
    for is_durable in [true, false] {
        let mut server = with_tokens();
        let mut ann = online(1, &mut server);
        listen(&mut ann);
        offline(&mut ann);
        let call = add(&mut ann, "a");
        server.readers.insert(ann.number);
        ann.disk.hold_flushes(true);
        let synced = ann.sync();
        back_online(&mut server, &mut ann);
        assert!(ann.query("select id from todo").is_empty(), "it is taken back");
        listen(&mut ann);
        assert_eq!(ann.fate(call), "durable 1");
        assert_eq!(ann.rejections(TAB), [0; 0]);
        assert!(ann.answers(synced).is_empty(), "{:?}", ann.answers(synced));
        ann.ask_again(&[call]);
        assert_eq!(ann.fate(call), "durable 1");
        if is_durable {
            ann.flushed();
            assert!(ann.fate(call).ends_with("rejected: access"), "{}", ann.fate(call));
            assert_eq!(ann.rejections(TAB), [1]);
            talk(&mut server, &mut [&mut ann]);
            assert!(matches!(ann.answer(synced), FromCore::Done { .. }));
            ann.cut_power();
            server.readers.clear();
            connect(&mut server, &mut ann);
            listen(&mut ann);
            assert_eq!(ann.rejections(TAB), [1], "kept until a listener has returned");
            assert!(ann.query("select id from todo").is_empty());
        } else {
            ann.cut_power();
            server.readers.clear();
            connect(&mut server, &mut ann);
            listen(&mut ann);
            talk(&mut server, &mut [&mut ann]);
            assert_eq!(ann.rejections(TAB), [0; 0]);
            assert_eq!(ann.query("select id from todo"), [[text("a")]], "the server took it");
        }
        assert_eq!(server.image(), ann.image());
    }
}

/// Goal: a listener hears of each mutation that may not be applied, though its tab is frozen while
/// more are taken back than are kept. Method: the record keeps half of them.
#[test]
fn what_is_taken_back_and_not_kept_is_told_a_tab_that_does_not_listen_too() {
    const COUNT: usize = 20;
    let limits =
        Limits { tab_unheard_size_max: 1_000, rejections_kept_max: COUNT / 2, ..Limits::DEFAULT };
    let mut server = with_tokens();
    let mut ann = online_with(1, limits, &mut server);
    listen(&mut ann);
    offline(&mut ann);
    (0..COUNT).for_each(|n| _ = add(&mut ann, &n.to_string()));
    server.readers.insert(ann.number);
    ann.tabs_hear = false;
    let lists = ann.told.len();
    back_online(&mut server, &mut ann);
    ann.tabs_hear = true;
    let messages = vec![ToCore::Heard { lists: (ann.told.len() - lists) as u32 }];
    ann.step(Input::FromTab { tab: TAB, messages });
    assert_eq!(ann.rejections(TAB), (1..=COUNT as u64).collect::<Vec<_>>());
}

/// Goal: who hears that its frames are not taken, and may write again before it has rejected them,
/// loses none and is told nothing wrong. Method: it hears first of the frames before them, late.
#[test]
fn what_is_not_rejected_yet_as_the_connection_is_lost_is_sent_again() {
    let mut server = with_tokens();
    let mut ann = online(1, &mut server);
    let first = add(&mut ann, "first");
    let mut answers = Vec::new();
    for message in ann.take_sent() {
        answers.extend(server.hear(ann.number, message));
    }
    server.readers.insert(ann.number);
    let second = add(&mut ann, "second");
    for message in ann.take_sent() {
        answers.extend(server.hear(ann.number, message));
    }
    // What the first one has become does not come any more.
    for answer in &answers {
        ann.hear_server(answer);
    }
    assert_eq!(ann.status().pending, 2);
    offline(&mut ann);
    server.readers.clear();
    back_online(&mut server, &mut ann);
    assert_eq!(ann.fate(first), "durable 1, confirmed 2");
    assert_eq!(ann.fate(second), "durable 2, confirmed 3");
    assert_eq!(server.image(), ann.image());
}

/// Goal: who may write again on a connection that stands opens the document anew, since a server
/// takes a newer doctype, and frames that it did not take, only then; what it has not rejected by
/// then is applied. Method: that its frames are not taken comes late, and is about nothing any
/// more.
#[test]
fn who_may_write_again_on_the_same_connection_comes_anew() {
    let mut server = with_tokens();
    let mut ann = online(1, &mut server);
    let call = add(&mut ann, "a");
    server.readers.insert(ann.number);
    let mut late = Vec::new();
    for message in ann.take_sent() {
        late.extend(server.hear(ann.number, message));
    }
    allow(&mut server, &mut ann, Role::Read);
    let opens = server.opens;
    allow(&mut server, &mut ann, Role::Write);
    for told in &late {
        ann.hear_server(told);
    }
    talk(&mut server, &mut [&mut ann]);
    assert_eq!(server.opens, opens + 1);
    assert_eq!(ann.fate(call), "durable 1, confirmed 2");
    allow(&mut server, &mut ann, Role::Write);
    talk(&mut server, &mut [&mut ann]);
    assert_eq!(server.opens, opens + 1, "that was nothing new");
    assert_eq!(server.image(), ann.image());
}

/// The users of the mutations that the server was told, in their order.
fn users_told(server: &mut Server, device: &mut Device) -> Vec<String> {
    let mut users = Vec::new();
    loop {
        let sent = device.take_sent();
        if sent.is_empty() {
            return users;
        }
        for message in sent {
            if let ToServer::About { body: ToRoom::Frames { frames, .. }, .. } = &message {
                let user = |frame: &WireFrame| Mutation::decode(&frame.body).map(|it| it.user);
                users.extend(frames.iter().map(user).map(|user| user.expect("a mutation")));
            }
            for answer in server.hear(device.number, message) {
                device.hear_server(&answer);
            }
            for news in server.news(device.number) {
                device.hear_server(&news);
            }
        }
    }
}

/// Goal: a copy is of the user by whose token it was let in first, and so are the mutations that
/// were issued before that: each is applied once, as that user's.
#[test]
fn a_copy_belongs_to_the_first_user_that_is_let_in_with_it() {
    for is_killed in [false, true] {
        let mut server = with_tokens();
        server.create(&todos());
        let mut ann = Device::new(1);
        let call = ann.start_open(TAB, Some(SERVER), &todos());
        ann.opened(call);
        let before = ["a", "b"].map(|id| add(&mut ann, id));
        if is_killed {
            ann.kill_core();
            ann.start_open(TAB, Some(SERVER), &todos());
        }
        ann.server_is_up = true;
        ann.pass(15_000);
        assert_eq!(users_told(&mut server, &mut ann), ["ada", "ada"], "{is_killed}");
        let after = add(&mut ann, "c");
        assert_eq!(users_told(&mut server, &mut ann), ["ada"]);
        assert_eq!(ann.fate(after), "durable 3, confirmed 4");
        if !is_killed {
            assert_eq!(ann.fate(before[0]), "durable 1, confirmed 2");
            assert_eq!(ann.fate(before[1]), "durable 2, confirmed 3");
        }
        assert_eq!(server.image(), ann.image());
    }
}

/// Goal: of a copy nothing is sent by another user's token, and nothing of it is lost.
#[test]
fn a_copy_sends_nothing_by_another_users_token() {
    let mut server = with_tokens();
    let mut ann = online(1, &mut server);
    let first = add(&mut ann, "first");
    talk(&mut server, &mut [&mut ann]);
    offline(&mut ann);
    let second = add(&mut ann, "second");
    server.subject = Some("bob".to_owned());
    let opens = server.opens;
    back_online(&mut server, &mut ann);
    let error = ann.status().error.clone().expect("it says so");
    assert_eq!(error.code, ErrorCode::Access);
    assert!(error.message.contains("belongs to ada, and the token is for bob"), "{error:?}");
    assert_eq!((server.opens, ann.status().pending), (opens, 1));
    // By another core too, which knows it from the disk.
    ann.pass(2_000);
    ann.kill_core();
    ann.start_open(TAB, Some(SERVER), &todos());
    back_online(&mut server, &mut ann);
    assert_eq!((server.opens, ann.status().pending), (opens, 1));
    ann.lose_socket();
    server.subject = Some("ada".to_owned());
    ann.ask_again(&[first, second]);
    back_online(&mut server, &mut ann);
    assert_eq!((ann.status().pending, &ann.status().error), (0, &None));
    assert_eq!(ann.query("select count(*) from todo"), [[integer(2)]]);
    assert_eq!(server.image(), ann.image());
}

/// Goal: what a server has applied while it asked for no token is confirmed, and not rejected by
/// the token of one who may only read by now. Method: its answer is lost; the copy gets an owner as
/// it comes again, and what is undecided goes on in another timeline, which the server knows
/// nothing of.
#[test]
fn what_was_applied_before_its_user_was_known_is_not_rejected() {
    for role in [Role::Read, Role::Write] {
        let mut server = Server::default();
        let mut ann = online(1, &mut server);
        let first = add(&mut ann, "first");
        for message in ann.take_sent() {
            server.hear(ann.number, message);
        }
        offline(&mut ann);
        let second = add(&mut ann, "second");
        server.subject = Some("ada".to_owned());
        if role == Role::Read {
            server.readers.insert(ann.number);
        }
        let synced = ann.sync();
        back_online(&mut server, &mut ann);
        assert_eq!(ann.fate(first), "durable 1, confirmed 2");
        match role {
            Role::Read => assert_eq!(ann.fate(second), "durable 2, rejected: access"),
            _ => assert_eq!(ann.fate(second), "durable 2, confirmed 3"),
        }
        assert!(matches!(ann.answer(synced), FromCore::Done { .. }));
        assert_eq!(server.image(), ann.image());
    }
}

/// Goal: a copy whose owner is known goes on as that one's, however often it was kept from it: no
/// mutation is sent as nobody's. Method: pages that the move needs do not come; meanwhile one more
/// mutation takes along to the disk whose copy it is, and then the core dies, or the connection is
/// lost.
#[test]
fn a_copy_whose_owner_is_known_moves_whenever_it_can() {
    for is_killed in [true, false] {
        // Enough for another mutation, and too few for what lies below the first.
        let limits = Limits { pool_pages_max: 7, ..Limits::DEFAULT };
        let mut server = Server::default();
        let mut ann = online_with(1, limits, &mut server);
        for id in ["x", "y", "z"] {
            add(&mut ann, id);
            talk(&mut server, &mut [&mut ann]);
        }
        offline(&mut ann);
        add(&mut ann, "a");
        ann.pass(2_000);
        server.subject = Some("ada".to_owned());
        ann.holds_replies = true;
        back_online(&mut server, &mut ann);
        add(&mut ann, "b");
        assert_eq!(ann.status().timeline, [4, 4, 5, 6], "it is in the old one");
        if is_killed {
            ann.kill_core();
        } else {
            offline(&mut ann);
            ann.server_is_up = true;
            ann.pass(15_000);
            assert!(users_told(&mut server, &mut ann).is_empty());
        }
        ann.holds_replies = false;
        while ann.let_reply_through() {}
        if is_killed {
            ann.start_open(TAB, Some(SERVER), &todos());
            ann.server_is_up = true;
            ann.pass(15_000);
        }
        assert_eq!(users_told(&mut server, &mut ann), ["ada", "ada"], "{is_killed}");
        assert_eq!(ann.status().pending, 0);
        assert_eq!(server.image(), ann.image());
    }
}
