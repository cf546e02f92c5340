//! A connection's life: Hello, then messages both ways, then Bye.
//!
//! ```text
//! client ──▶ reader ───────────▶ room of the channel
//!               └──▶ queue ◀──────┘
//! client ◀── writer ◀──┘
//! ```
//!
//! [Reader](reader) and [writer] run side by side in one task, and meet in the [`Connection`]: the
//! reader puts what it answers by itself into the queue, as rooms do, and hears nothing more while
//! too much of that waits for the writer. Which room a channel has is in [channels]. Either of the
//! two, or whoever else has the connection, ends it for both. Where the client is told why, the two
//! become one socket again, and what is still on its way there is thrown away.

mod channels;
mod reader;
mod writer;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tidelog_room::ConnId;
use tidelog_sync::ByeReason;
use tidelog_types::limits::{HELLO_SIZE_MAX, MESSAGE_SIZE_MAX, SMALL_MESSAGE_SIZE_MAX};
use tokio::io::AsyncReadExt;
use tokio::join;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role as Side, WebSocketConfig};
use tracing::debug;

use crate::connection::Connection;
use crate::counters::add;
use crate::gate::{Gate, Gated};
use crate::shared::Shared;
use crate::shares::Share;
use reader::Reader;
use writer::write;

/// Within which time a last word has to be gone.
const BYE_TAKES: Duration = Duration::from_secs(2);

/// Bytes of a connection's read buffer: each has one, for as long as it lives.
const READ_BUFFER_SIZE: usize = 2 * 1024;
/// Bytes of messages that are written together, and of a frame: the write buffer has as many of
/// each at most, also for as long as its connection lives.
const WRITE_BUFFER_SIZE: usize = 8 * 1024;

type Socket = WebSocketStream<Gated<TokioIo<Upgraded>>>;

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_SIZE)
        .write_buffer_size(WRITE_BUFFER_SIZE)
        // Where a client pings and does not read, pongs fill it: the next word to it fails, and the
        // connection ends at once instead of after `slow_after`.
        .max_write_buffer_size(4 * WRITE_BUFFER_SIZE)
        .max_message_size(Some(MESSAGE_SIZE_MAX))
        .max_frame_size(Some(MESSAGE_SIZE_MAX))
}

/// Serves one connection until it ends; with a `refusal` as far as `Hello`, which that answers. A
/// `greeting` is given back once it is let in.
pub(crate) async fn serve(
    upgraded: Upgraded,
    shared: Arc<Shared>,
    address: Option<IpAddr>,
    refusal: Option<ByeReason>,
    greeting: Option<Share<IpAddr>>,
) {
    let (transport, gate) = Gated::new(TokioIo::new(upgraded), HELLO_SIZE_MAX);
    let socket = WebSocketStream::from_raw_socket(transport, Side::Server, Some(config())).await;

    let id = ConnId(shared.connections_ever.fetch_add(1, Ordering::Relaxed));
    let (connection, end) = Connection::new(id);
    connection.comes_from(address);
    shared.enter(connection.clone());
    add(&shared.counters.connections, 1);
    let (mut sink, mut stream) = socket.split();
    let mut reader =
        Reader::new(connection.clone(), Arc::clone(&shared), refusal, greeting, gate.clone());
    let reads = async {
        let ending = reader.read(&mut stream, &gate).await;
        // Whatever a room still wants to say, nobody listens.
        let greeting = reader.into_greeting();
        connection.end(ending);
        greeting
    };
    // Whoever is not let in has its part of what its address may have until it is gone.
    let (ending, _greeting) = join!(write(&mut sink, end, &connection, &shared, &gate), reads);
    shared.counters.closed(&ending);
    if let Some(reason) = ending.reason() {
        debug!(conn = id.0, ?reason, "said Bye");
        add(&shared.counters.byes, 1);
        let socket = stream.reunite(sink).expect("BUG: two halves of one socket");
        let _ = timeout(BYE_TAKES, throw_away(socket, &gate)).await;
    }
    shared.exit(id);
    shared.counters.connections.fetch_sub(1, Ordering::Relaxed);
    debug!(conn = id.0, "connection closed");
}

/// Reads what is still on its way: a socket that is closed with something unread takes the last
/// words along. Of a large message nothing is kept.
async fn throw_away(mut socket: Socket, gate: &Gate) {
    gate.let_pass(SMALL_MESSAGE_SIZE_MAX);
    let messages = async {
        loop {
            match socket.next().await {
                Some(Ok(_)) => {}
                end => break end.is_none(),
            }
        }
    };
    let has_closed = tokio::select! {
        biased;
        has_closed = messages => has_closed,
        () = gate.is_shut() => false,
    };
    if !has_closed {
        let mut transport = socket.into_inner();
        gate.open();
        let mut bytes = vec![0; READ_BUFFER_SIZE];
        while transport.read(&mut bytes).await.is_ok_and(|size| size > 0) {}
    }
}
