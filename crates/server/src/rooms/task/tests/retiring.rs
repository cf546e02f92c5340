//! Rooms that nobody needs any more.

use super::*;

/// The same of a document that this client had, and that is not there any more.
fn open_what_it_had() -> ToRoom {
    let ToRoom::Open { document, doctype, timeline, intent, .. } = open() else {
        unreachable!("it opens")
    };
    let have = Some(Position::start_of(timeline));
    ToRoom::Open {
        document,
        doctype,
        timeline,
        secret: tidelog_types::CopySecret::NONE,
        have,
        intent,
    }
}

/// Takes steps until it retires. Gives after which time that was.
async fn retires(task: &mut RoomTask) -> Duration {
    let began = Instant::now();
    while let Some(input) = task.next_input().await {
        task.step(input);
    }
    began.elapsed()
}

/// V13. Goal: whoever asks for documents that there are not keeps no rooms from others. Method: a
/// room in which nobody is: its document is there, is not there, or was never asked for, since
/// whoever came to it has left before.
#[tokio::test]
async fn a_room_whose_document_is_not_there_retires_at_once() {
    for (said, is_there) in [(Some(open()), true), (Some(open_what_it_had()), false), (None, false)]
    {
        let scene = Scene::new(settings());
        let (room, mut task) = scene.task();
        let (connection, _end) = Connection::new(ConnId(1));
        if let Some(said) = said {
            let input = task.input(message(&connection, said));
            task.step(input);
            step_until(&mut task, |task| task.room.takes_messages()).await;
        }
        room.send(RoomMail::Left { conn: connection.id() }).expect("it is there");
        tokio::time::pause();
        let after = retires(&mut task).await;
        tokio::time::resume();
        assert_eq!(after >= EMPTY_ROOM_STAYS, is_there, "{after:?}");
        assert!(is_there || after < Duration::from_secs(1), "{after:?}");
    }
}

/// Goal: who hands over slowly gets through. Method: nothing came of a document for too long, and
/// its room still knows that, though there is none, for whoever comes back.
#[tokio::test(start_paused = true)]
async fn a_room_that_was_too_impatient_stays() {
    let scene = Scene::new(settings());
    let (room, mut task) = scene.task();
    let (silent, _end) = Connection::new(ConnId(1));
    let ToRoom::Open { document, doctype, timeline, have, .. } = open() else { unreachable!() };
    let intent = Intent::Offer { lives: Lineage::default() };
    let offer = ToRoom::Open {
        document,
        doctype,
        timeline,
        secret: tidelog_types::CopySecret::NONE,
        have,
        intent,
    };
    room.send(message(&silent, offer)).expect("it is there");
    while task.room.seed_size() == 0 {
        let input = task.next_input().await.expect("it is there");
        task.step(input);
    }
    let after = retires(&mut task).await;
    assert!(after >= EMPTY_ROOM_STAYS + Duration::from_secs(60), "{after:?}");
}

/// Goal: whoever a room refused goes on with its other documents once that room is gone.
/// Method: one is refused, another one says something in the instant in which it retires.
#[tokio::test(start_paused = true)]
async fn a_room_that_retires_ends_no_connection() {
    let scene = Scene::new(settings());
    let (room, mut task) = scene.task();
    let (refused, mut end) = Connection::new(ConnId(1));
    let (late, _other_end) = Connection::new(ConnId(2));
    room.send(message(&refused, open_what_it_had())).expect("it is there");
    retires(&mut task).await;
    let (space, large) = space(1);
    let unread = message_with(&late, ToRoom::Close, large());
    room.send(unread).expect("it is not gone yet");
    drop(task);
    assert_eq!(space.available_permits(), 1);
    let heard = end.queue.try_recv().map(|message| *message);
    let body = FromRoom::Refused(Refusal::Missing);
    assert_eq!(heard, Ok(FromServer::About { channel: Channel(1), body }));
    for connection in [refused, late] {
        assert_eq!(*connection.ended().borrow(), None);
    }
}
