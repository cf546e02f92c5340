use std::ops::Range;
use std::sync::atomic::Ordering;

use tidelog_room::{ConnId, RoomSettings};
use tidelog_sync::{Attendee, Hears, PresenceWord, StateText, encode_message};
use tidelog_testing::Rng;
use tidelog_types::limits::{
    ARCHIVE_TYPES_MAX, CONNECTION_ATTENDEES_MAX, MESSAGE_SIZE_MAX, PRESENCE_ATTENDEES_MAX,
    SMALL_WAITING_SIZE_MAX,
};
use tidelog_types::{JournalId, Lsn};
use tokio::io::AsyncReadExt as _;
use tokio::join;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::unconstrained;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role as Side;

use super::*;
use crate::gate::Gated;
use crate::rooms::tests::Scene;
use crate::socket::config;
use crate::socket::writer::write;

#[tokio::test(start_paused = true)]
async fn one_who_is_not_listened_to_hears_that_we_are_here() {
    let (connection, mut end) = Connection::new(ConnId(1));
    let permits = Arc::new(Semaphore::new(CONNECTION_IN_SIZE_MAX / PERMIT_SIZE));
    let all = permit(&permits, CONNECTION_IN_SIZE_MAX, &connection).await;
    let waits = permit(&permits, 1, &connection);
    tokio::pin!(waits);
    tokio::select! {
        _ = &mut waits => panic!("there is no room"),
        message = end.queue.recv() => assert_eq!(message.as_deref(), Some(&FromServer::Pong)),
        () = tokio::time::sleep(3 * BUSY_EVERY) => panic!("it hears nothing"),
    }
    drop(all);
    drop(waits.await);
}

/// Goal: who is silent is gone that long after it was heard, and no later. Method: something
/// comes after 20 of 30 seconds.
#[tokio::test(start_paused = true)]
async fn silence_is_counted_from_when_something_was_heard() {
    use tokio::io::AsyncWriteExt;

    let (mut client, server) = tokio::io::duplex(64);
    let (mut transport, gate) = Gated::new(server, u64::MAX);
    let began = Instant::now();
    let hears = async {
        loop {
            transport.read_u8().await.expect("it is open");
        }
    };
    let says = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        client.write_all(&[1]).await.expect("there is room");
    };
    let (heard, ()) = join!(unless_silent::<()>(Duration::from_secs(30), &gate, hears), says);
    assert_eq!(heard, None);
    assert_eq!(began.elapsed().as_secs(), 50);
}

/// Goal: whoever handles tasks and is frozen holds nobody up for longer than 30 seconds after
/// it was last heard: the room is told since when. Method: two that say nothing, of which one
/// handles tasks.
#[tokio::test(start_paused = true)]
async fn one_that_handles_tasks_is_gone_after_a_shorter_silence() {
    for (handles, seconds) in [(true, 30), (false, 90)] {
        let scene = Scene::new(RoomSettings::default());
        let (connection, _end) = Connection::new(ConnId(7));
        let mut reader = reader_of(&scene, connection, 1);
        let (room, mut mail) = unbounded_channel();
        let document = DocumentKey::new("list", "").expect("a name");
        reader.channels.enter(Channel(1), document, &room);
        if handles {
            let own = Arc::clone(&reader.permits).try_acquire_owned().expect("there is room");
            let permit = MessagePermit::new(own, None, &Arc::default());
            let (tag, instance, concurrency) = (1, 0, 1);
            let body = ToRoom::Register { tag, instance, kinds: Vec::new(), concurrency };
            let register = ToServer::About { channel: Channel(1), body };
            assert_eq!(reader.take(register, permit), Flow::Continue(()));
            assert!(matches!(mail.try_recv(), Ok(RoomMail::Message { .. })));
        }
        let (_client, server) = tokio::io::duplex(64);
        let (transport, gate) = Gated::new(server, u64::MAX);
        let socket = WebSocketStream::from_raw_socket(transport, Side::Server, None).await;
        let (began, (_, mut stream)) = (Instant::now(), socket.split());
        let heard = reader.hear_all(&mut stream, &gate).await;
        assert!(matches!(heard, Flow::Break(Ending::Quiet)));
        assert_eq!(began.elapsed().as_secs(), seconds);
        let told = mail.try_recv();
        let Ok(RoomMail::Silent { conn: ConnId(7), lasted }) = told else { panic!("told") };
        assert_eq!(lasted.as_secs(), seconds);
    }
}

/// Tells somebody who handles tasks a message of this size, over a line that takes 1 KiB each
/// second. Says whether it was heard before the connection ended, and after how many seconds.
async fn talk_over_a_slow_line(message_size: usize, answers: bool) -> (bool, u64) {
    use tokio::io::AsyncWriteExt;

    let scene = Scene::new(RoomSettings::default());
    let (shared, (connection, end)) = (Shared::of(&scene), Connection::new(ConnId(7)));
    connection.note_handles_tasks();
    let mut reader = reader_of(&scene, connection.clone(), 1);
    let (line, server) = tokio::io::duplex(1024);
    let (server, gate) = Gated::new(server, u64::MAX);
    let server = WebSocketStream::from_raw_socket(server, Side::Server, Some(config())).await;
    let (mut sink, mut stream) = server.split();
    let (mut from_line, mut to_line) = tokio::io::split(line);
    let (client, far) = tokio::io::duplex(4 * 1024 * 1024);
    let mut client = WebSocketStream::from_raw_socket(client, Side::Client, None).await;
    let (mut from_far, mut to_far) = tokio::io::split(far);
    let slow = async {
        let mut bytes = [0; 1024];
        loop {
            let size = from_line.read(&mut bytes).await.expect("open");
            to_far.write_all(&bytes[..size]).await.expect("open");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let back = async {
        tokio::io::copy(&mut from_far, &mut to_line).await.expect("open");
        pending::<()>().await;
    };
    let reason = Rng::new(1).letters(message_size);
    let body = FromRoom::Refused(Refusal::Protocol { reason });
    connection.send(FromServer::About { channel: Channel(1), body });
    let began = Instant::now();
    let heard = async {
        if !answers {
            pending::<()>().await;
        }
        while !matches!(client.next().await, Some(Ok(Message::Binary(_)))) {}
    };
    let writes = write(&mut sink, end, &connection, &shared, &gate);
    let is_heard = tokio::select! {
        () = slow => false,
        () = back => false,
        _ = writes => false,
        _ = reader.hear_all(&mut stream, &gate) => false,
        () = heard => true,
    };
    (is_heard, began.elapsed().as_secs())
}

/// Goal: one that handles tasks gets what it is told over a slow line, however large that is.
/// Method: a message that takes minutes, while the client answers pings as they come.
#[tokio::test(start_paused = true)]
async fn one_that_handles_tasks_behind_a_slow_line_hears_a_large_message() {
    let (is_heard, seconds) = talk_over_a_slow_line(256 * 1024, true).await;
    assert!(is_heard, "gone after {seconds} s");
    assert!(seconds > 200, "{seconds}");
}

/// Goal: what a slow line takes for a process that is frozen keeps it no longer than any other
/// one. Method: as before, and no ping is answered.
#[tokio::test(start_paused = true)]
async fn one_that_is_frozen_behind_a_slow_line_is_gone_in_time() {
    assert_eq!(talk_over_a_slow_line(256 * 1024, false).await, (false, 90));
    // The line has taken all of it after 40 seconds.
    let (is_heard, seconds) = talk_over_a_slow_line(40 * 1024, false).await;
    assert!(!is_heard && (60..=70).contains(&seconds), "{seconds}");
}

/// What listens to this connection, which may have so much waiting.
fn reader_of(scene: &Scene, connection: Connection, permits_count: usize) -> Reader {
    Reader {
        connection,
        shared: Arc::new(Shared::of(scene)),
        refusal: None,
        greeting: None,
        share: None,
        pass: Pass::Everything,
        subject: None,
        identity: nobody(),
        channels: Channels::new(ConnId(7)),
        permits: Arc::new(Semaphore::new(permits_count)),
        archive_turn: Arc::default(),
        early: None,
        said: Said::new(Gated::new(tokio::io::empty(), 0).1),
    }
}

/// Goal: a number is free again once its channel is closed, and whoever is refused again and
/// again, and closes nothing, is heard. Method: channels of a room that is gone.
#[tokio::test]
async fn a_channel_whose_room_is_gone_keeps_no_number() {
    let scene = Scene::new(RoomSettings::default());
    let (connection, _end) = Connection::new(ConnId(7));
    let mut reader = reader_of(&scene, connection, 1);
    let (gone, _) = unbounded_channel();
    let gone_name = DocumentKey::new("gone", "").expect("a name");
    for number in (0..).take(CONNECTION_CHANNELS_MAX) {
        reader.channels.enter(Channel(number), gone_name.clone(), &gone);
    }
    drop(gone);
    let own = Arc::clone(&reader.permits).try_acquire_owned().expect("there is room");
    let permit = MessagePermit::new(own, None, &Arc::default());
    let close = ToServer::About { channel: Channel(1), body: ToRoom::Close };
    assert_eq!(reader.take(close, permit), Flow::Continue(()));
    assert!(matches!(reader.open(Channel(1), "list"), Flow::Continue(Some(_))));
    let next = u32::try_from(CONNECTION_CHANNELS_MAX).expect("few");
    assert!(matches!(reader.open(Channel(next), "list"), Flow::Continue(Some(_))));
}

/// Goal: nobody takes the memory that there is for all who are present by one connection. Method:
/// as many in each document as may be, and one more document.
#[tokio::test]
async fn those_who_are_present_on_a_connection_are_bounded() {
    let scene = Scene::new(RoomSettings::default());
    let (connection, _end) = Connection::new(ConnId(7));
    let mut reader = reader_of(&scene, connection, 1);
    let (room, mut mail) = unbounded_channel();
    let each = PRESENCE_ATTENDEES_MAX as u32;
    let last = CONNECTION_ATTENDEES_MAX as u32 / each;
    for channel in 0..=last {
        let document = DocumentKey::new(&channel.to_string(), "").expect("a name");
        reader.channels.enter(Channel(channel), document, &room);
    }
    let mut say = |channel, attendees: Range<u32>, state: Option<StateText>| {
        let changes = attendees.map(|it| (Attendee(it), state.clone())).collect();
        let word = PresenceWord { hears: Hears::Others, heard: 0, changes };
        let body = ToRoom::Presence(word);
        let own = Arc::clone(&reader.permits).try_acquire_owned().expect("there is room");
        let permit = MessagePermit::new(own, None, &Arc::default());
        let flow = reader.take(ToServer::About { channel: Channel(channel), body }, permit);
        assert_eq!(flow, Flow::Continue(()));
        match mail.try_recv() {
            Ok(RoomMail::Presence { word, .. }) => word.changes.len() as u32,
            other => panic!("unexpected: {}", other.is_ok()),
        }
    };
    let here = StateText::new("{}");
    for channel in 0..last {
        assert_eq!(say(channel, 0..each, here.clone()), each, "{channel}");
    }
    assert_eq!(say(last, 0..each, here.clone()), 0, "they are one too many");
    assert_eq!(say(0, 0..each, here.clone()), each, "those who are present say something else");
    assert_eq!(say(0, each..each + 9, here.clone()), 0, "no room has more of one channel");
    assert_eq!(say(0, 0..1, None), 1);
    assert_eq!(say(last, 0..each, here.clone()), 1, "one has left");
    reader.channels.close(Channel(1));
    assert_eq!(reader.channels.attendees.len(), CONNECTION_ATTENDEES_MAX - each as usize);
}

/// Goal: what a large message takes is given back with it, and not before. Method: a room that
/// does not get to it, and the same one when it has closed.
#[tokio::test]
async fn a_large_message_takes_its_space_along_to_the_room() {
    let scene = Scene::new(RoomSettings::default());
    let space = Arc::new(Semaphore::new(1));
    let (connection, _end) = Connection::new(ConnId(7));
    let mut reader = reader_of(&scene, connection, 1);
    let (room, mut mail) = unbounded_channel();
    let document = DocumentKey::new("list", "").expect("a name");
    reader.channels.enter(Channel(1), document, &room);
    let mut say = || {
        let take = |permits: &Arc<Semaphore>| Arc::clone(permits).try_acquire_owned();
        let own = take(&reader.permits).expect("there is room");
        let large = Space::new(take(&space).expect("there is room"));
        let body = ToRoom::Received { next: Lsn::FIRST };
        let permit = MessagePermit::new(own, Some(large), &Arc::default());
        let said = reader.take(ToServer::About { channel: Channel(1), body }, permit);
        assert_eq!(said, Flow::Continue(()));
        space.available_permits()
    };
    assert_eq!(say(), 0);
    drop(mail.try_recv().expect("it has come"));
    drop(mail);
    assert_eq!(say(), 1, "nobody has it");
}

/// Goal: a question to an archive, which waits for others, keeps no space of large messages.
/// Method: one with the longest names, which is no large message, and one that is longer.
#[tokio::test]
async fn a_question_to_an_archive_is_no_large_message() {
    let scene = Scene::new(RoomSettings::default());
    let question = |size: usize| {
        let mut types = vec![String::new(); ARCHIVE_TYPES_MAX - 1];
        types.push("x".repeat(size - 2));
        let (aggregate, stream) = (Some("a".to_owned()), Some("s".to_owned()));
        let (number, archive, after) = (1, JournalId([8; 16]), 0);
        let body =
            ToRoom::Archived(ArchiveQuestion { number, archive, aggregate, stream, types, after });
        ToServer::About { channel: Channel(1), body }
    };
    let size = encode_message(&question(ARCHIVE_NAMES_SIZE_MAX)).len() as u64;
    assert!(size < SMALL_MESSAGE_SIZE_MAX, "{size}");
    for (size, is_taken) in [(ARCHIVE_NAMES_SIZE_MAX, true), (ARCHIVE_NAMES_SIZE_MAX + 1, false)] {
        let (connection, _end) = Connection::new(ConnId(7));
        let mut reader = reader_of(&scene, connection, 1);
        let (room, _mail) = unbounded_channel();
        let document = DocumentKey::new("list", "").expect("a name");
        reader.channels.enter(Channel(1), document, &room);
        let own = Arc::clone(&reader.permits).try_acquire_owned().expect("there is room");
        let permit = MessagePermit::new(own, None, &Arc::default());
        let said = reader.take(question(size), permit);
        assert_eq!(said == Flow::Continue(()), is_taken, "{size}: {said:?}");
    }
}

/// Goal: no few connections keep all space for large messages from others. Method: a message
/// has come behind others that no room works off; nobody wants its space, and then others do.
#[tokio::test(start_paused = true)]
async fn a_large_message_waits_behind_small_ones_for_as_long_as_nobody_wants_its_space() {
    let scene = Scene::new(RoomSettings::default());
    let (connection, _end) = Connection::new(ConnId(7));
    let reader = reader_of(&scene, connection, 0);
    let space = Arc::new(Semaphore::new(MESSAGE_SIZE_MAX));
    let large = Space::new(Arc::clone(&space).try_acquire_owned().expect("there is space"));
    let mut own = std::pin::pin!(reader.own(1, Some(&large)));
    let waits = timeout(Duration::from_secs(100), own.as_mut()).await;
    assert!(waits.is_err(), "nobody wants it");
    let all = u32::try_from(MESSAGE_SIZE_MAX - 1).expect("few");
    let _others = space.try_acquire_many(all).expect("there is space");
    let let_go = timeout(Duration::from_secs(2), own).await.expect("soon");
    assert!(matches!(let_go, Flow::Break(Ending::Bye(ByeReason::Slow))));
}

/// Goal: one that reads nothing is told no more than it may say, however short that is. Method:
/// as many messages as are heard while no room works any off; then each gets a long answer.
#[tokio::test]
async fn short_messages_that_wait_have_no_more_answers_than_may_wait() {
    let scene = Scene::new(RoomSettings::default());
    let (connection, mut end) = Connection::new(ConnId(7));
    let reader = reader_of(&scene, connection.clone(), CONNECTION_IN_SIZE_MAX / PERMIT_SIZE);
    let hear = || unconstrained(reader.own(1, None)).now_or_never();
    let waiting: Vec<_> = std::iter::from_fn(hear).collect();
    assert!(waiting.len() > 500, "{}", waiting.len());
    for _ in waiting {
        let reason = "x".repeat(REASON_SIZE_MAX);
        let body = FromRoom::Refused(Refusal::Storage { reason });
        connection.send(FromServer::About { channel: Channel(1), body });
    }
    let told = std::iter::from_fn(|| end.queue.try_recv().ok());
    let size: usize = told.map(|message| encode_message(&*message).len()).sum();
    assert!(size <= CONNECTION_IN_SIZE_MAX, "{size}");
}

/// Goal: what waits for rooms is bounded over all connections, and each is heard all the same.
/// Method: one has said something that no room has worked off, and too much waits, or not.
#[tokio::test]
async fn where_too_much_waits_one_is_heard_again_once_nothing_of_it_does() {
    let scene = Scene::new(RoomSettings::default());
    let (connection, _end) = Connection::new(ConnId(7));
    let reader = reader_of(&scene, connection, CONNECTION_IN_SIZE_MAX / PERMIT_SIZE);
    let shared = Arc::clone(&reader.shared);
    let is_heard = || reader.has_room().now_or_never().is_some();
    let own = reader.own(1, None).await.continue_value().expect("there is room");
    let waits = MessagePermit::new(own, None, &shared.counters);
    assert!(is_heard(), "little waits");
    shared.counters.small_waiting_size.fetch_add(SMALL_WAITING_SIZE_MAX, Ordering::Relaxed);
    assert!(!is_heard());
    drop(waits);
    assert!(is_heard(), "nothing of it waits");
}
