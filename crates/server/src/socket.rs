//! A connection's life: Hello, then messages both ways, then Bye.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tidelog_sync::{
    ByeReason, FromServer, MessageError, Refusal, ToServer, decode_message, encode_message,
};
use tidelog_types::DocumentKey;
use tidelog_types::limits::SEND_QUEUE_MESSAGES_MAX;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::{debug, info};

use crate::connection::{Connection, ConnectionEnd, Ending};
use crate::counters::add;
use crate::hall::RoomMail;
use crate::room::ConnId;
use crate::server::Shared;

/// Within which time a client has to say Hello.
const HELLO_TAKES: Duration = Duration::from_secs(10);
/// Within which time a last word has to be gone.
const BYE_TAKES: Duration = Duration::from_secs(2);
/// How often a client is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(30);
/// After which silence a client is taken for gone.
const SILENCE_ENDS: Duration = Duration::from_secs(90);

type Sink = SplitSink<WebSocket, Message>;

/// Serves one connection until it ends.
pub(crate) async fn serve(socket: WebSocket, shared: Arc<Shared>) {
    let id = ConnId(shared.connections_ever.fetch_add(1, Ordering::Relaxed));
    let (connection, end) = Connection::new(id, SEND_QUEUE_MESSAGES_MAX);
    shared.enter(connection.clone());
    add(&shared.counters.connections, 1);

    let (sink, stream) = socket.split();
    let writer = tokio::spawn(write(sink, end, connection.clone(), Arc::clone(&shared)));
    let mut reader = Reader { connection, shared, channels: BTreeMap::new() };
    reader.read(stream).await;
    reader.leave().await;
    reader.connection.end(Ending::Quiet);
    // The writer ends by itself once it was told to; a panic there was reported already.
    let _ = writer.await;
    reader.shared.exit(id);
    reader.shared.counters.connections.fetch_sub(1, Ordering::Relaxed);
    debug!(conn = id.0, "connection closed");
}

struct Reader {
    connection: Connection,
    shared: Arc<Shared>,
    channels: BTreeMap<u32, Channel>,
}

struct Channel {
    document: DocumentKey,
    room: mpsc::Sender<RoomMail>,
}

type Flow = ControlFlow<Ending>;

impl Reader {
    async fn read(&mut self, mut stream: SplitStream<WebSocket>) {
        let mut ended = self.connection.ended();
        let mut said_hello = false;
        loop {
            let patience = if said_hello { SILENCE_ENDS } else { HELLO_TAKES };
            let received = tokio::select! {
                _ = ended.wait_for(Option::is_some) => return,
                received = timeout(patience, stream.next()) => received,
            };
            let bytes = match received {
                Ok(Some(Ok(Message::Binary(bytes)))) => bytes,
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
                Ok(Some(Ok(Message::Text(_)))) => {
                    return self.connection.end(protocol("messages are binary"));
                }
                Ok(Some(Err(error))) => {
                    debug!(conn = self.connection.id().0, %error, "connection broke");
                    return;
                }
                Ok(Some(Ok(Message::Close(_))) | None) => return,
                Err(_) if !said_hello => {
                    return self.connection.end(protocol("no Hello in time"));
                }
                Err(_) => return,
            };
            add(&self.shared.counters.messages_in, 1);
            let flow = match decode_message::<ToServer>(&bytes) {
                Err(MessageError::Version { theirs }) => {
                    info!(conn = self.connection.id().0, theirs, "another protocol version");
                    Flow::Break(Ending::Bye(ByeReason::Version))
                }
                Err(error) => Flow::Break(protocol(&error.to_string())),
                Ok(message) if said_hello => self.take(message).await,
                Ok(message) => {
                    said_hello = true;
                    self.hello(&message)
                }
            };
            if let Flow::Break(ending) = flow {
                return self.connection.end(ending);
            }
        }
    }

    fn hello(&self, message: &ToServer) -> Flow {
        let ToServer::Hello { client, .. } = message else {
            return Flow::Break(protocol("the first message is Hello"));
        };
        if !self.shared.dev {
            return Flow::Break(Ending::Bye(ByeReason::Unauthenticated));
        }
        debug!(conn = self.connection.id().0, %client, "hello");
        self.connection.send(FromServer::Welcome);
        Flow::Continue(())
    }

    async fn take(&mut self, message: ToServer) -> Flow {
        let channel = match &message {
            ToServer::Hello { .. } => return Flow::Break(protocol("a second Hello")),
            ToServer::Ping => {
                self.connection.send(FromServer::Pong);
                return Flow::Continue(());
            }
            ToServer::Open { channel, document, .. } => {
                if let Flow::Break(ending) = self.open(*channel, document) {
                    return Flow::Break(ending);
                }
                *channel
            }
            ToServer::Frames { channel, .. }
            | ToServer::Seed { channel, .. }
            | ToServer::Received { channel, .. }
            | ToServer::Probe { channel, .. }
            | ToServer::Close { channel } => *channel,
        };
        let is_last = matches!(message, ToServer::Close { .. });
        // A channel that was refused or closed may still have had some messages on the way.
        let Some(Channel { room, .. }) = self.channels.get(&channel) else {
            return Flow::Continue(());
        };
        let mail = RoomMail::Message { connection: self.connection.clone(), message };
        if room.send(mail).await.is_err() {
            return Flow::Break(Ending::Quiet);
        }
        if is_last {
            self.channels.remove(&channel);
        }
        Flow::Continue(())
    }

    fn open(&mut self, channel: u32, document: &str) -> Flow {
        let Ok(document) = DocumentKey::new(document, "") else {
            let reason = "no document can have that name".to_owned();
            let refusal = Refusal::Protocol { reason };
            self.connection.send(FromServer::Refused { channel, refusal });
            return Flow::Continue(());
        };
        match self.channels.get(&channel) {
            Some(known) if known.document != document => {
                Flow::Break(protocol("one channel for two documents"))
            }
            Some(known) if !known.room.is_closed() => Flow::Continue(()),
            _ => {
                let room = self.shared.hall.room(&document);
                self.channels.insert(channel, Channel { document, room });
                Flow::Continue(())
            }
        }
    }

    /// Tells every room that it was in.
    async fn leave(&mut self) {
        let conn = self.connection.id();
        for Channel { room, .. } in std::mem::take(&mut self.channels).into_values() {
            // A room that is closed has forgotten us already.
            let _ = room.send(RoomMail::Left { conn }).await;
        }
    }
}

fn protocol(reason: &str) -> Ending {
    Ending::Bye(ByeReason::Protocol { reason: reason.to_owned() })
}

/// Sends what is queued until told to end, or until the client does not read.
async fn write(
    mut sink: Sink,
    mut end: ConnectionEnd,
    connection: Connection,
    shared: Arc<Shared>,
) {
    let mut pings = tokio::time::interval(PING_EVERY);
    pings.reset();
    let ending = loop {
        let message = tokio::select! {
            ending = ended(&mut end.ending) => break ending,
            message = end.queue.recv() => match message {
                Some(message) => Message::Binary(encode_message(&message).into()),
                None => break Ending::Quiet,
            },
            _ = pings.tick() => Message::Ping(Bytes::new()),
        };
        add(&shared.counters.messages_out, 1);
        let sent = tokio::select! {
            ending = ended(&mut end.ending) => break ending,
            sent = timeout(shared.slow_after, sink.send(message)) => sent,
        };
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(_)) => break Ending::Quiet,
            Err(_) => break Ending::Bye(ByeReason::Slow),
        }
    };
    connection.end(ending.clone());
    let last_words = async {
        if let Ending::Bye(reason) = ending {
            let bye = encode_message(&FromServer::Bye { reason });
            let _ = sink.send(Message::Binary(bye.into())).await;
        }
        let _ = sink.send(Message::Close(None)).await;
    };
    // Whoever does not read them in time does not want them.
    let _ = timeout(BYE_TAKES, last_words).await;
}

async fn ended(ending: &mut watch::Receiver<Option<Ending>>) -> Ending {
    match ending.wait_for(Option::is_some).await {
        Ok(ending) => ending.clone().unwrap_or(Ending::Quiet),
        Err(_) => Ending::Quiet,
    }
}
