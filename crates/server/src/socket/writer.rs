//! What a client is told, for as long as its connection lasts.
//!
//! ```text
//! queue ──▶ burst ──▶ frames ──▶ sink ──▶ gate ──▶ client
//!             ▲
//!           pings
//! ```
//!
//! What is sent to the [`Connection`] waits in its queue. As much as fits into the buffer goes out
//! together, with one flush, and a long message in frames. Now and then the client is pinged,
//! between two frames as well. One that takes nothing for too long is let go. Once the connection
//! is to end, whoever ends it, a message that is begun is completed, and the reason said.

use std::future::poll_fn;
use std::time::Duration;

use futures_util::{FutureExt, Sink, SinkExt};
use tidelog_sync::{ByeReason, FromServer, encode_message};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::{BYE_TAKES, WRITE_BUFFER_SIZE};
use crate::connection::{Connection, ConnectionEnd, Ending};
use crate::counters::{Counters, add};
use crate::gate::Gate;
use crate::shared::Shared;

/// How often a client that handles tasks is asked whether it is there, and how many times less
/// often any other one.
const PING_EVERY: Duration = Duration::from_secs(10);
const PINGS_LESS: u32 = 3;

/// Sends what is queued until told to end, or until the client does not read. Says how it ended.
pub(super) async fn write<S: Sink<Message> + Unpin>(
    sink: &mut S,
    mut end: ConnectionEnd,
    connection: &Connection,
    shared: &Shared,
    gate: &Gate,
) -> Ending {
    let mut pings = Pings::new();
    let mut frames = Frames::default();
    let ending = loop {
        let first = tokio::select! {
            ending = ended(&mut end.ending) => break ending,
            message = end.queue.recv() => match message {
                Some(message) => Some(message),
                None => break Ending::Quiet,
            },
            () = pings.due(connection) => None,
        };
        let to = (&mut end.queue, connection);
        let burst = burst(sink, first, (&mut frames, &mut pings), to, &shared.counters);
        let sent = tokio::select! {
            ending = ended(&mut end.ending) => break ending,
            sent = unless_stuck(shared.slow_after, || gate.written_size(), burst) => sent,
        };
        match sent {
            Some(Ok(())) => {}
            // The line is dead, or takes no more: whatever came behind would be taken for what is
            // missing.
            Some(Err(_)) => {
                connection.end(Ending::Quiet);
                return Ending::Quiet;
            }
            None => break Ending::Bye(ByeReason::Slow),
        }
    };
    connection.end(ending.clone());
    // Whoever does not read them in time does not want them, and where they fail there is nobody
    // left to be told.
    let _ = timeout(BYE_TAKES, say_last(sink, frames, &ending)).await;
    ending
}

/// Ends a message that is begun, since none begins within another one, and says how all ends.
async fn say_last<S: Sink<Message> + Unpin>(
    sink: &mut S,
    mut frames: Frames,
    ending: &Ending,
) -> Result<(), S::Error> {
    frames.feed(sink, || false).await?;
    if let Some(reason) = ending.reason() {
        let bye = encode_message(&FromServer::Bye { reason });
        sink.send(Message::Binary(bye.into())).await?;
    }
    sink.send(Message::Close(None)).await
}

/// When a client is to be asked whether it is there.
struct Pings {
    every: Interval,
    due_ever: u32,
}

impl Pings {
    fn new() -> Self {
        let mut every = interval(PING_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        every.reset();
        Self { every, due_ever: 0 }
    }

    /// Waits until it is. Nothing is lost where that is given up.
    async fn due(&mut self, connection: &Connection) {
        loop {
            self.every.tick().await;
            self.due_ever = self.due_ever.wrapping_add(1);
            if connection.handles_tasks() || self.due_ever.is_multiple_of(PINGS_LESS) {
                return;
            }
        }
    }
}

/// What is left of a message that goes out in frames. As a single one it would leave a buffer of
/// its size behind.
#[derive(Default)]
struct Frames {
    rest: Option<Bytes>,
    is_begun: bool,
}

impl Frames {
    fn of(message: Vec<u8>) -> Self {
        Self { rest: Some(message.into()), is_begun: false }
    }

    /// Hands them to the sink, with a ping between them where one is due. If that is given up, it
    /// can be gone on with.
    async fn feed<S: Sink<Message> + Unpin>(
        &mut self,
        sink: &mut S,
        mut is_ping_due: impl FnMut() -> bool,
    ) -> Result<(), S::Error> {
        while self.rest.is_some() {
            if is_ping_due() {
                sink.feed(Message::Ping(Bytes::new())).await?;
            }
            poll_fn(|context| sink.poll_ready_unpin(context)).await?;
            if let Some(frame) = self.next() {
                sink.start_send_unpin(Message::Frame(frame))?;
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Frame> {
        let mut rest = self.rest.take()?;
        let frame = rest.split_to(rest.len().min(WRITE_BUFFER_SIZE));
        let code = if self.is_begun { Data::Continue } else { Data::Binary };
        self.is_begun = true;
        self.rest = (!rest.is_empty()).then_some(rest);
        Some(Frame::message(frame, OpCode::Data(code), self.rest.is_none()))
    }
}

/// Sends this, or a ping, and what else waits, as far as it fits into the buffer: with one flush.
async fn burst<S: Sink<Message> + Unpin>(
    sink: &mut S,
    first: Option<Box<FromServer>>,
    (frames, pings): (&mut Frames, &mut Pings),
    (queue, connection): (&mut UnboundedReceiver<Box<FromServer>>, &Connection),
    counters: &Counters,
) -> Result<(), S::Error> {
    let mut next = first;
    if next.is_none() {
        sink.feed(Message::Ping(Bytes::new())).await?;
    }
    let mut size = 0;
    while let Some(message) = next {
        let bytes = encode_message(&*message);
        size += bytes.len();
        *frames = Frames::of(bytes);
        frames.feed(sink, || pings.due(connection).now_or_never().is_some()).await?;
        connection.sent(&message);
        add(&counters.messages_out, 1);
        next = match size < WRITE_BUFFER_SIZE {
            true => queue.try_recv().ok(),
            false => None,
        };
    }
    sink.flush().await
}

/// What comes of `work`, which is given up once nothing has passed for so long: whoever reads
/// little at a time gets through.
async fn unless_stuck<T>(
    after: Duration,
    passed: impl Fn() -> u64,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(work);
    let mut before = passed();
    loop {
        if let Ok(done) = timeout(after, &mut work).await {
            return Some(done);
        }
        let now = passed();
        if now == before {
            return None;
        }
        before = now;
    }
}

async fn ended(ending: &mut watch::Receiver<Option<Ending>>) -> Ending {
    match ending.wait_for(Option::is_some).await {
        Ok(ending) => ending.clone().unwrap_or(Ending::Quiet),
        Err(_) => Ending::Quiet,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use futures_util::StreamExt as _;
    use tidelog_room::{ConnId, RoomSettings};
    use tidelog_sync::{Channel, FromRoom, Refusal};
    use tidelog_testing::Rng;
    use tokio::join;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role as Side;

    use super::*;
    use crate::gate::Gated;
    use crate::rooms::tests::Scene;
    use crate::socket::config;

    #[tokio::test(start_paused = true)]
    async fn who_gets_on_slowly_gets_through_and_who_is_stuck_is_let_go() {
        let after = Duration::from_secs(30);
        let passed = std::cell::Cell::new(0);
        let slowly = async {
            for _ in 0..20 {
                tokio::time::sleep(after * 2 / 3).await;
                passed.set(passed.get() + 1);
            }
        };
        assert_eq!(unless_stuck(after, || passed.get(), slowly).await, Some(()));
        let stuck = std::future::pending::<()>();
        assert_eq!(unless_stuck(after, || passed.get(), stuck).await, None);
    }

    /// Goal: one that handles tasks and lives is heard often enough, and others are not asked more
    /// than they need. Method: the pings of a minute.
    #[tokio::test(start_paused = true)]
    async fn one_that_handles_tasks_is_asked_more_often() {
        for (handles, pings) in [(true, 6), (false, 2)] {
            let scene = Scene::new(RoomSettings::default());
            let (shared, (connection, end)) = (Shared::of(&scene), Connection::new(ConnId(7)));
            if handles {
                connection.note_handles_tasks();
            }
            let (_, gate) = Gated::new(tokio::io::empty(), 0);
            let mut sink = Counted::default();
            let writes = write(&mut sink, end, &connection, &shared, &gate);
            assert!(timeout(Duration::from_secs(65), writes).await.is_err());
            assert_eq!(sink.messages, pings);
        }
    }

    /// Counts what it is given.
    #[derive(Default)]
    struct Counted {
        messages: usize,
        flushes: usize,
    }

    impl Sink<Message> for Counted {
        type Error = Infallible;

        fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn start_send(mut self: Pin<&mut Self>, _: Message) -> Result<(), Self::Error> {
            self.messages += 1;
            Ok(())
        }

        fn poll_flush(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Result<(), Self::Error>> {
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Takes so many frames, and then none that is as large: its buffer is full.
    struct Full {
        left: usize,
        taken: Vec<Message>,
    }

    impl Sink<Message> for Full {
        type Error = ();

        fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
            Poll::Ready(Ok(()))
        }

        fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), ()> {
            if self.left == 0 && message.len() >= WRITE_BUFFER_SIZE {
                return Err(());
            }
            self.left = self.left.saturating_sub(1);
            self.taken.push(message);
            Ok(())
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Goal: no client takes what is left of a message for all of it, nor anything within one for
    /// another one. Method: a frame is refused, and there would be room for the next one, which is
    /// smaller; as the message is told, and as the connection ends amid it.
    #[tokio::test]
    async fn nothing_is_said_behind_a_frame_that_was_refused() {
        let letters = Rng::new(1).letters(2 * WRITE_BUFFER_SIZE + 100);
        let scene = Scene::new(RoomSettings::default());
        let (shared, (connection, end)) = (Shared::of(&scene), Connection::new(ConnId(7)));
        let (_, gate) = Gated::new(tokio::io::empty(), 0);
        let mut sink = Full { left: 1, taken: Vec::new() };
        let body = FromRoom::Refused(Refusal::Protocol { reason: letters.clone() });
        connection.send(FromServer::About { channel: Channel(1), body });
        assert_eq!(write(&mut sink, end, &connection, &shared, &gate).await, Ending::Quiet);
        assert_eq!(sink.taken.len(), 1, "{:?}", sink.taken);

        let mut sink = Full { left: 0, taken: Vec::new() };
        let frames = Frames::of(letters.into_bytes());
        let said = say_last(&mut sink, frames, &Ending::Bye(ByeReason::Shutdown)).await;
        assert_eq!((said, sink.taken), (Err(()), Vec::new()));
    }

    #[tokio::test]
    async fn what_waits_is_sent_with_one_flush() {
        let (connection, mut end) = Connection::new(ConnId(1));
        for _ in 0..50 {
            connection.send(FromServer::Pong);
        }
        let (mut sink, counters) = (Counted::default(), Counters::default());
        let first = end.queue.recv().await;
        let with = (&mut Frames::default(), &mut Pings::new());
        let to = (&mut end.queue, &connection);
        let Ok(()) = burst(&mut sink, first, with, to, &counters).await;
        assert_eq!((sink.messages, sink.flushes), (50, 1));
    }

    /// Goal: a connection keeps no large buffer for what it was told once.
    #[test]
    fn a_long_message_goes_out_in_frames() {
        let message: Vec<u8> = (0..100 * 1024_u32).map(|number| number as u8).collect();
        let mut frames = Frames::of(message.clone());
        let frames: Vec<Frame> = std::iter::from_fn(|| frames.next()).collect();
        assert!(frames.iter().all(|frame| frame.payload().len() <= WRITE_BUFFER_SIZE));
        let whole: Vec<u8> = frames.iter().flat_map(|it| it.payload().to_vec()).collect();
        assert_eq!(whole, message);
        let short: Vec<Frame> = std::iter::from_fn({
            let mut frames = Frames::of(Vec::new());
            move || frames.next()
        })
        .collect();
        assert!(matches!(&short[..], [frame] if frame.header().is_final));
    }

    /// Goal: the last word is understood. Method: the server stops amid a long message, since the
    /// client does not read; then it does.
    #[tokio::test]
    async fn a_message_that_is_begun_is_ended_before_the_last_word() {
        let scene = Scene::new(RoomSettings::default());
        let (shared, (connection, end)) = (Shared::of(&scene), Connection::new(ConnId(7)));
        let (client, server) = tokio::io::duplex(1024);
        let (server, gate) = Gated::new(server, u64::MAX);
        let mut client = WebSocketStream::from_raw_socket(client, Side::Client, None).await;
        let server = WebSocketStream::from_raw_socket(server, Side::Server, Some(config())).await;
        let (mut sink, _stream) = server.split();
        let body = FromRoom::Refused(Refusal::Protocol { reason: Rng::new(1).letters(100 * 1024) });
        let message = FromServer::About { channel: Channel(1), body };
        connection.send(message.clone());
        let heard = async {
            while gate.written_size() < 1024 {
                tokio::task::yield_now().await;
            }
            connection.end(Ending::Bye(ByeReason::Shutdown));
            [client.next().await, client.next().await].map(|it| it.expect("more").expect("whole"))
        };
        let (_, heard) = join!(write(&mut sink, end, &connection, &shared, &gate), heard);
        let bye = FromServer::Bye { reason: ByeReason::Shutdown };
        let said = [message, bye].map(|it| Message::Binary(encode_message(&it).into()));
        assert_eq!(heard, said);
    }
}
