//! A connection's life: Hello, then messages both ways, then Bye.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{pending, poll_fn};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::SplitStream;
use futures_util::{FutureExt, Sink, SinkExt, Stream, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tidelog_access::{Allowed, Role, TokenError};
use tidelog_room::{ConnId, Identity, May, Speaker};
use tidelog_sync::{
    ArchiveQuestion, ByeReason, Channel, FromRoom, FromServer, MessageError, Refusal, ToRoom,
    ToServer, decode_message, encode_message, message_size,
};
use tidelog_types::limits::{
    ARCHIVE_NAMES_SIZE_MAX, CONNECTION_CHANNELS_MAX, CONNECTION_IN_SIZE_MAX, HELLO_SIZE_MAX,
    INSTANCE_SILENT_MS, MESSAGE_SIZE_MAX, PAGE_SIZE, REASON_SIZE_MAX, SMALL_MESSAGE_SIZE_MAX,
};
use tidelog_types::{ClientId, DocumentKey};
use tokio::io::AsyncReadExt;
use tokio::join;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{Role as Side, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Bytes, Message};
use tracing::debug;

use crate::access::{Expiry, Pass, now_s};
use crate::allowance::Allowance;
use crate::archive::{self, Asker};
use crate::audit::Who;
use crate::connection::{Connection, ConnectionEnd, Ending, SMALL_MESSAGE_SIZE};
use crate::counters::{Counters, add};
use crate::gate::{Gate, Gated};
use crate::large_messages::{PERMIT_SIZE, Space};
use crate::rooms::{MessagePermit, RoomMail, RoomSender, WeakRoomSender};
use crate::said::Said;
use crate::shared::Shared;
use crate::shares::Share;

/// Within which time a client has to say Hello.
const HELLO_TAKES: Duration = Duration::from_secs(10);
/// Within which time a last word has to be gone.
const BYE_TAKES: Duration = Duration::from_secs(2);
/// How often a client that handles tasks is asked whether it is there, and how many times less
/// often any other one.
const PING_EVERY: Duration = Duration::from_secs(10);
const PINGS_LESS: u32 = 3;
/// After which silence a client is taken for gone. And after which one that handles tasks, and that
/// takes nothing meanwhile of what it is told: what it works at is given to others then.
const SILENCE_ENDS: Duration = Duration::from_secs(90);
const HANDLER_SILENCE_ENDS: Duration = Duration::from_millis(INSTANCE_SILENT_MS);
/// How often a client that is not listened to for now is told that we are here.
const BUSY_EVERY: Duration = Duration::from_secs(5);

/// Bytes of a connection's read buffer: each has one, for as long as it lives.
const READ_BUFFER_SIZE: usize = 2 * 1024;
/// Bytes of messages that are written together, and of a frame: the write buffer has as many of
/// each at most, also for as long as its connection lives.
const WRITE_BUFFER_SIZE: usize = 8 * 1024;
/// Bytes that a message counts for at least until its room has worked it off: what its client is
/// told of it may be longer than the message, and takes its place.
const ANSWER_SIZE_MAX: usize = SMALL_MESSAGE_SIZE + REASON_SIZE_MAX;
/// A message from this size on leaves a buffer behind that is not worth keeping.
const LARGE_MESSAGE_SIZE: usize = 16 * PAGE_SIZE;

type Socket = WebSocketStream<Gated<TokioIo<Upgraded>>>;
/// What comes of it.
type Heard = Result<Message, tungstenite::Error>;

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
/// `greeting` is given back once that is said.
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
    let permits = Arc::new(Semaphore::new(CONNECTION_IN_SIZE_MAX / PERMIT_SIZE));
    let mut reader = Reader {
        connection: connection.clone(),
        shared: Arc::clone(&shared),
        refusal,
        greeting,
        share: None,
        pass: Pass::Nothing,
        subject: None,
        identity: nobody(),
        expiry: None,
        channels: Channels { conn: id, open: BTreeMap::new() },
        permits,
        archive_turn: Arc::default(),
        early: None,
        said: Said::new(gate.clone()),
    };
    let reads = async {
        let ending = reader.read(&mut stream, &gate).await;
        // Whatever a room still wants to say, nobody listens.
        drop(reader);
        connection.end(ending);
    };
    let (ending, ()) = join!(write(&mut sink, end, &connection, &shared, &gate), reads);
    shared.counters.closed(&ending);
    if let Some(reason) = ending.reason() {
        debug!(conn = id.0, ?reason, "said Bye");
        add(&shared.counters.byes, 1);
        let socket = stream.reunite(sink).expect("BUG: two halves of one socket");
        let _ = timeout(BYE_TAKES, throw_away(socket, &gate)).await;
    }
    shared.exit(id);
    shared.counters.connections.fetch_sub(1, Ordering::Relaxed);
    add(&shared.counters.gone, 1);
    debug!(conn = id.0, "connection closed");
}

struct Reader {
    connection: Connection,
    shared: Arc<Shared>,
    /// Why it is not served.
    refusal: Option<ByeReason>,
    /// What it takes up of its address until it has said Hello.
    greeting: Option<Share<IpAddr>>,
    /// What it takes up of its subject from then on.
    share: Option<Share<Arc<str>>>,
    /// What it may do, once it has said Hello.
    pass: Pass,
    /// Whose token that is, if it needs one.
    subject: Option<Arc<str>>,
    /// Who that is, for others who are present.
    identity: Arc<Identity>,
    /// Ends it when its token expires.
    expiry: Option<Expiry>,
    channels: Channels,
    /// What it may say before rooms have worked it off.
    permits: Arc<Semaphore>,
    /// The turn to be answered what an archive has.
    archive_turn: Arc<AsyncMutex<()>>,
    /// A message that came before it was asked for.
    early: Option<Flow<Bytes>>,
    said: Said,
}

/// The documents that a connection has open.
struct Channels {
    conn: ConnId,
    open: BTreeMap<Channel, OpenChannel>,
}

struct OpenChannel {
    document: DocumentKey,
    /// A room that refused the channel need not stay for it.
    room: WeakRoomSender,
    /// Whether something was said of it that may not be said: nothing more is heard of it until it
    /// is opened again, and so its room is told no more than is opened.
    is_sent_away: bool,
}

impl Channels {
    fn enter(&mut self, channel: Channel, document: DocumentKey, room: &RoomSender) {
        let room = room.downgrade();
        self.open.insert(channel, OpenChannel { document, room, is_sent_away: false });
    }

    /// The room of a channel that is open, as far as we know.
    fn room(&self, channel: Channel) -> Option<RoomSender> {
        self.open.get(&channel).filter(|known| !known.is_sent_away)?.room.upgrade()
    }

    /// Whether there may be no further one. Of those that were refused, and that their client has
    /// not closed, some have no room any more: they are forgotten first.
    fn is_full(&mut self) -> bool {
        if self.open.len() >= CONNECTION_CHANNELS_MAX {
            self.open.retain(|_, channel| channel.room.strong_count() > 0);
        }
        self.open.len() >= CONNECTION_CHANNELS_MAX
    }

    /// Forgets a channel, and tells its room if it was the last one there.
    fn close(&mut self, channel: Channel) {
        let Some(OpenChannel { document, room, .. }) = self.open.remove(&channel) else { return };
        // A room that is gone has forgotten us already, and another one may be in its place.
        let Some(room) = room.upgrade() else { return };
        let is_there = |other: &OpenChannel| {
            let other = (other.document == document).then(|| other.room.upgrade()).flatten();
            other.is_some_and(|other| other.same_channel(&room))
        };
        if !self.open.values().any(is_there) {
            let _ = room.send(RoomMail::Left { conn: self.conn });
        }
    }
}

impl Drop for Channels {
    /// Tells every room that the connection was in, however it ends.
    fn drop(&mut self) {
        let mut told = BTreeSet::new();
        for OpenChannel { document, room, .. } in std::mem::take(&mut self.open).into_values() {
            let left = RoomMail::Left { conn: self.conn };
            if !told.contains(&document)
                && room.upgrade().is_some_and(|room| room.send(left).is_ok())
            {
                told.insert(document);
            }
        }
    }
}

type Flow<T = ()> = ControlFlow<Ending, T>;

impl Reader {
    async fn read(&mut self, stream: &mut SplitStream<Socket>, gate: &Gate) -> Ending {
        let mut ended = self.connection.ended();
        let hello = async {
            match timeout(HELLO_TAKES, self.hear(stream)).await {
                Ok(Flow::Continue(bytes)) => self.hello(&bytes),
                Ok(Flow::Break(ending)) => Flow::Break(ending),
                Err(_) => Flow::Break(protocol("no Hello in time")),
            }
        };
        let said_hello = tokio::select! {
            _ = ended.wait_for(Option::is_some) => return Ending::Quiet,
            said_hello = hello => said_hello,
        };
        if let Flow::Break(ending) = said_hello {
            return ending;
        }
        gate.let_pass(SMALL_MESSAGE_SIZE_MAX);
        loop {
            let next = tokio::select! {
                _ = ended.wait_for(Option::is_some) => return Ending::Quiet,
                next = self.next(stream, gate) => next,
            };
            if let Flow::Break(ending) = next {
                return ending;
            }
        }
    }

    /// Listens to one message, once there is room for what it brings and for the answers.
    async fn next(&mut self, stream: &mut SplitStream<Socket>, gate: &Gate) -> Flow {
        is_due(&self.said.messages, &self.connection).await;
        self.has_room().await;
        let (bytes, large) = match self.early.take() {
            Some(early) => (early?, None),
            None => self.hear_all(stream, gate).await?,
        };
        // For the next one.
        gate.let_pass(SMALL_MESSAGE_SIZE_MAX);
        if bytes.len() >= LARGE_MESSAGE_SIZE {
            // The stream would keep a buffer that nobody else has a part in. So it looks for what
            // comes next, and begins a small one, while we still have the large one.
            self.early = self.hear(stream).now_or_never();
        }
        let message = decode(&bytes)?;
        let size = message_size(&bytes) + message.listed_size();
        drop(bytes);
        let own = self.own(size, large.as_ref()).await?;
        if matches!(message, ToServer::Renew { .. }) {
            self.said.renewals.take(1, Instant::now());
            is_due(&self.said.renewals, &self.connection).await;
        }
        self.take(message, MessagePermit::new(own, large, &self.shared.counters))
    }

    /// Waits until it has read enough of what it was told, and rooms have worked off enough of what
    /// it said: all of it where too much waits of all connections.
    async fn has_room(&self) {
        self.connection.has_room().await;
        let is_too_much = self.shared.counters.has_too_much_waiting();
        let size = if is_too_much { CONNECTION_IN_SIZE_MAX } else { 0 };
        drop(permit(&self.permits, size, &self.connection).await);
    }

    /// Waits until rooms have worked off enough of what it said before, and no longer than it may
    /// hold this space.
    async fn own(&self, size: usize, space: Option<&Space>) -> Flow<OwnedSemaphorePermit> {
        let overdue = async {
            match space {
                Some(space) => space.comes_overdue().await,
                None => pending().await,
            }
        };
        tokio::select! {
            own = permit(&self.permits, size.max(ANSWER_SIZE_MAX), &self.connection) => {
                Flow::Continue(own)
            }
            () = overdue => Flow::Break(Ending::Bye(ByeReason::Slow)),
        }
    }

    /// The bytes of the next message, which waits for its turn where it is a large one, and holds
    /// its room.
    async fn hear_all(
        &mut self,
        stream: &mut (impl Stream<Item = Heard> + Unpin),
        gate: &Gate,
    ) -> Flow<(Bytes, Option<Space>)> {
        let silence_ends = match self.connection.handles_tasks() {
            true => HANDLER_SILENCE_ENDS,
            false => SILENCE_ENDS,
        };
        let small = async {
            tokio::select! {
                biased;
                bytes = self.hear(stream) => Some(bytes),
                () = gate.is_shut() => None,
            }
        };
        match unless_silent(silence_ends, gate, small).await {
            None => return self.is_silent(gate),
            Some(Some(bytes)) => return Flow::Continue((bytes?, None)),
            Some(None) => {}
        }
        let shared = Arc::clone(&self.shared);
        let turn = shared.large_messages.turn();
        let Some(mut turn) = tell_meanwhile(&self.connection, turn).await else {
            return Flow::Break(Ending::Bye(ByeReason::Slow));
        };
        gate.open();
        let bytes = tokio::select! {
            bytes = unless_silent(silence_ends, gate, self.hear(stream)) => bytes,
            () = turn.is_over(|| gate.read_size()) => {
                return Flow::Break(Ending::Bye(ByeReason::Slow));
            }
        };
        let Some(bytes) = bytes else { return self.is_silent(gate) };
        let bytes = bytes?;
        let large = turn.end(bytes.len());
        Flow::Continue((bytes, Some(large)))
    }

    /// Nothing came for too long: it is taken for gone. Whoever handled tasks there has been for as
    /// long as nothing was heard of it.
    fn is_silent<T>(&self, gate: &Gate) -> Flow<T> {
        let (conn, lasted) = (self.connection.id(), gate.silence());
        for room in self.channels.open.values().filter_map(|it| it.room.upgrade()) {
            let _ = room.send(RoomMail::Silent { conn, lasted });
        }
        Flow::Break(Ending::Quiet)
    }

    /// The bytes of the next message.
    async fn hear(&mut self, stream: &mut (impl Stream<Item = Heard> + Unpin)) -> Flow<Bytes> {
        loop {
            match stream.next().await {
                Some(Ok(Message::Binary(bytes))) => {
                    add(&self.shared.counters.messages_in, 1);
                    self.said.message(bytes.len());
                    return Flow::Continue(bytes);
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                    self.said.other();
                    is_due(&self.said.messages, &self.connection).await;
                }
                Some(Ok(Message::Text(_))) => return Flow::Break(protocol("messages are binary")),
                Some(Ok(Message::Close(_))) | None => return Flow::Break(Ending::Quiet),
                Some(Err(error)) => {
                    debug!(conn = self.connection.id().0, %error, "connection broke");
                    return Flow::Break(Ending::Quiet);
                }
            }
        }
    }

    fn hello(&mut self, bytes: &Bytes) -> Flow {
        let message = decode(bytes)?;
        let ToServer::Hello { client, token } = message else {
            return Flow::Break(protocol("the first message is Hello"));
        };
        if let Some(reason) = &self.refusal {
            return Flow::Break(Ending::Bye(reason.clone()));
        }
        self.pass = match &self.shared.guard {
            None => Pass::Everything,
            Some(guard) => match token.as_deref().map(|token| guard.verify(token)) {
                Some(Ok(pass)) => pass,
                refused => {
                    let why = refused.and_then(Result::err);
                    debug!(conn = self.connection.id().0, ?why, "refused: no valid token");
                    let why = why.map_or("no token", TokenError::code);
                    self.shared.rooms.audit().refused(&self.connection.who(), None, why);
                    return Flow::Break(Ending::Bye(ByeReason::Unauthenticated));
                }
            },
        };
        self.greeting = None;
        if let Some(subject) = self.pass.subject() {
            self.share = self.shared.subjects.take(subject.into());
            if self.share.is_none() {
                let who = Who { subject: Some(subject.to_owned()), ..self.connection.who() };
                self.shared.rooms.audit().crowded(subject, &who);
                return Flow::Break(Ending::Full);
            }
        }
        self.admit();
        // A later token is of the same subject.
        self.identity = Arc::new(Identity::new(self.subject.clone(), client));
        debug!(conn = self.connection.id().0, %client, "hello");
        self.connection.send(FromServer::Welcome);
        Flow::Continue(())
    }

    /// The connection ends with the token of its pass, and the client is told when that is.
    fn admit(&mut self) {
        // The one before first: it may expire at the same time.
        self.expiry = None;
        self.expiry = self.shared.expiries.enter(&self.connection, &self.pass);
        if let Pass::Granted(access) = &self.pass {
            let subject = access.subject.clone();
            self.subject = Some(subject.as_str().into());
            let seconds_left = access.expires_at_s.saturating_sub(now_s());
            self.connection.send(FromServer::Admitted { subject, seconds_left });
        }
    }

    /// A later token of the same subject takes the place of the one before. What it allows holds
    /// from here on.
    fn renew(&mut self, token: &str) {
        let verified = self.shared.guard.as_ref().map(|guard| guard.verify(token));
        let renewed = match (&self.pass, verified) {
            (Pass::Granted(before), Some(Ok(Pass::Granted(access))))
                if before.subject == access.subject =>
            {
                Pass::Granted(access)
            }
            (_, verified) => {
                let why = verified.and_then(Result::err);
                debug!(conn = self.connection.id().0, ?why, "a token was not renewed");
                let why = why.map_or("another subject's token", TokenError::code);
                self.shared.rooms.audit().refused(&self.connection.who(), None, why);
                return self.connection.send(FromServer::NotRenewed);
            }
        };
        let before = std::mem::replace(&mut self.pass, renewed);
        self.admit();
        let conn = self.connection.id();
        for (channel, open) in &mut self.channels.open {
            let [was, is] = [&before, &self.pass]
                .map(|pass| pass.for_document(&open.document.document).map(|allowed| allowed.role));
            let room = open.room.upgrade().filter(|_| was != is && !open.is_sent_away);
            let (Some(room), channel) = (room, *channel) else { continue };
            if let Some(role) = is {
                let body = FromRoom::Allowed { role };
                self.connection.send(FromServer::About { channel, body });
            } else {
                open.is_sent_away = true;
                let refusal = no_access("the token says nothing of it");
                let _ = room.send(RoomMail::Refuse { conn, channel, refusal });
            }
        }
    }

    fn take(&mut self, message: ToServer, permit: MessagePermit) -> Flow {
        let (channel, message) = match message {
            ToServer::Hello { .. } => return Flow::Break(protocol("a second Hello")),
            ToServer::Renew { token } => {
                self.renew(&token);
                return Flow::Continue(());
            }
            ToServer::Ping => {
                self.connection.send(FromServer::Pong);
                return Flow::Continue(());
            }
            ToServer::About { channel, body } => (channel, body),
        };
        let (is_first, is_last) =
            (matches!(message, ToRoom::Open { .. }), matches!(message, ToRoom::Close));
        let room = match &message {
            ToRoom::Open { document, .. } => self.open(channel, document)?,
            _ => self.channels.room(channel),
        };
        // A channel that was refused or closed may still have had some messages on the way.
        let Some(room) = room else {
            if is_last {
                self.channels.close(channel);
            }
            return Flow::Continue(());
        };
        let Some((may, handles)) = self.may(channel, &message) else {
            // Nothing of it goes any further.
            if let Some(known) = self.channels.open.get_mut(&channel) {
                known.is_sent_away = true;
            }
            let conn = self.connection.id();
            let refusal = no_access("the token does not allow to hand it over");
            let _ = room.send(RoomMail::Refuse { conn, channel, refusal });
            return Flow::Continue(());
        };
        if let ToRoom::Register { .. } = message {
            self.connection.note_handles_tasks();
        }
        let message = match message {
            ToRoom::Presence(word) => {
                let (conn, identity) = (self.connection.id(), Arc::clone(&self.identity));
                let _ = room.send(RoomMail::Presence { conn, channel, identity, word, permit });
                return Flow::Continue(());
            }
            ToRoom::Archived(question) => {
                // No longer than what takes no space of large messages, since it may wait.
                if question.names_size() > ARCHIVE_NAMES_SIZE_MAX {
                    return Flow::Break(protocol("the names in a question to an archive"));
                }
                self.ask_archive(channel, question, permit);
                return Flow::Continue(());
            }
            message => Box::new(message),
        };
        let connection = self.connection.clone();
        let speaker = Speaker { may, handles, subject: self.subject.clone() };
        let mail = RoomMail::Message { connection, channel, message, speaker, permit };
        // A room that is gone has let go of all who were there, and never saw this one.
        if room.send(mail).is_err() && is_first {
            return Flow::Break(Ending::Quiet);
        }
        if is_last {
            self.channels.close(channel);
        }
        Flow::Continue(())
    }

    /// Has a question to the archive of a document answered, while other messages are heard.
    fn ask_archive(&self, channel: Channel, question: ArchiveQuestion, permit: MessagePermit) {
        let Some(open) = self.channels.open.get(&channel) else { return };
        let (document, rooms) = (open.document.clone(), Arc::clone(&self.shared.rooms));
        let (connection, turn) = (self.connection.clone(), Arc::clone(&self.archive_turn));
        tokio::spawn(async move {
            let mut ended = connection.ended();
            let asker = Asker { connection, channel, turn };
            tokio::select! {
                () = archive::answer(&rooms, &document, question, &asker) => {}
                _ = ended.wait_for(Option::is_some) => {}
            }
            // It counts as what was not worked off yet until then.
            drop(permit);
        });
    }

    /// What its token allows with the document of the channel, by now, and whether its commands may
    /// be handled; `None` if not even to say this.
    fn may(&self, channel: Channel, message: &ToRoom) -> Option<(May, bool)> {
        let document = &self.channels.open.get(&channel)?.document.document;
        let allowed = self.pass.for_document(document)?;
        let may = match allowed.role {
            Role::Read => May::Follow,
            Role::Send => May::Send,
            Role::Write | Role::Admin if allowed.create => May::Create,
            Role::Write | Role::Admin => May::Write,
        };
        // Of frames it is the room that knows which are the first ones.
        let is_said = may == May::Create || !matches!(message, ToRoom::Seed { .. });
        is_said.then_some((may, allowed.handle))
    }

    /// The room of the channel from now on; `None` if it is refused.
    fn open(&mut self, channel: Channel, document: &str) -> Flow<Option<RoomSender>> {
        let refuse = |refusal| {
            let body = FromRoom::Refused(refusal);
            self.connection.send(FromServer::About { channel, body });
            Flow::Continue(None)
        };
        let known = self.channels.open.get(&channel);
        if known.is_some_and(|known| known.document.document != document) {
            return Flow::Break(protocol("one channel for two documents"));
        }
        let Ok(document) = DocumentKey::new(document, "") else {
            let reason = "no document can have that name".to_owned();
            return refuse(Refusal::Protocol { reason });
        };
        let Some(Allowed { role, .. }) = self.pass.for_document(&document.document) else {
            // Be it there or not.
            let who = self.connection.who();
            self.shared.rooms.audit().refused(&who, Some(&document.document), "no grant");
            return refuse(no_access("the token says nothing of it"));
        };
        if known.is_none() && self.channels.is_full() {
            let reason = format!("{CONNECTION_CHANNELS_MAX} documents are open already");
            return refuse(Refusal::Protocol { reason });
        }
        let Some(room) = self.shared.rooms.room(&document) else {
            let reason = "the server has too many documents open".to_owned();
            return refuse(Refusal::Storage { reason });
        };
        self.channels.enter(channel, document, &room);
        if let Pass::Granted(_) = self.pass {
            let body = FromRoom::Allowed { role };
            self.connection.send(FromServer::About { channel, body });
        }
        Flow::Continue(Some(room))
    }
}

/// Who is there before Hello.
fn nobody() -> Arc<Identity> {
    Arc::new(Identity::new(None, ClientId([0; 16])))
}

fn no_access(reason: &str) -> Refusal {
    Refusal::Access { reason: reason.to_owned() }
}

/// Waits until rooms have worked off enough of what the client said before.
async fn permit(
    permits: &Arc<Semaphore>,
    size: usize,
    connection: &Connection,
) -> OwnedSemaphorePermit {
    let count = (size / PERMIT_SIZE + 1).min(CONNECTION_IN_SIZE_MAX / PERMIT_SIZE);
    let count = u32::try_from(count).expect("BUG: so many permits");
    let permit = Arc::clone(permits).acquire_many_owned(count);
    tell_meanwhile(connection, permit).await.expect("BUG: permits are never closed")
}

/// Waits for something. Meanwhile nothing is read of the client, its `Ping` neither: so it is told
/// now and then that we are here.
async fn tell_meanwhile<T>(connection: &Connection, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    let mut busy = interval(BUSY_EVERY);
    busy.reset();
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = busy.tick() => connection.send(FromServer::Pong),
        }
    }
}

/// Waits until the client may go on.
async fn is_due(allowance: &Allowance, connection: &Connection) {
    let now = Instant::now();
    let opens_at = allowance.opens_at(now);
    if opens_at > now {
        tell_meanwhile(connection, sleep_until(opens_at)).await;
    }
}

fn decode(bytes: &Bytes) -> Flow<ToServer> {
    match decode_message::<ToServer>(bytes) {
        Ok(message) => Flow::Continue(message),
        Err(MessageError::Version { theirs }) => {
            debug!(theirs, "another protocol version");
            Flow::Break(Ending::Bye(ByeReason::Version))
        }
        Err(error) => Flow::Break(protocol(&error.to_string())),
    }
}

fn protocol(reason: &str) -> Ending {
    Ending::Bye(ByeReason::Protocol { reason: reason.to_owned() })
}

/// Sends what is queued until told to end, or until the client does not read. Says how it ended.
async fn write<S: Sink<Message> + Unpin>(
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
            Some(Err(_)) => break Ending::Quiet,
            None => break Ending::Bye(ByeReason::Slow),
        }
    };
    connection.end(ending.clone());
    let last_words = async {
        // No message begins within another one. Where that fails the line is dead, and what comes
        // next fails likewise: there is nobody left to be told.
        let _ = frames.feed(sink, || false).await;
        if let Some(reason) = ending.reason() {
            let bye = encode_message(&FromServer::Bye { reason });
            let _ = sink.send(Message::Binary(bye.into())).await;
        }
        let _ = sink.send(Message::Close(None)).await;
    };
    // Whoever does not read them in time does not want them.
    let _ = timeout(BYE_TAKES, last_words).await;
    ending
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

/// What comes of `work`, which is given up once the client was still for so long, or silent for as
/// long as any may be, and it was listened meanwhile: whoever writes or takes little at a time gets
/// through.
async fn unless_silent<T>(ends: Duration, gate: &Gate, work: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(work);
    let began = Instant::now();
    loop {
        let listened = began.elapsed();
        let left = ends
            .saturating_sub(gate.stillness().min(listened))
            .min(SILENCE_ENDS.saturating_sub(gate.silence().min(listened)));
        if left.is_zero() {
            return None;
        }
        if let Ok(done) = timeout(left, &mut work).await {
            return Some(done);
        }
    }
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

    use tidelog_room::{RoomSettings, ThreadClock as _};
    use tidelog_testing::Rng;
    use tidelog_types::JournalId;
    use tidelog_types::Lsn;
    use tidelog_types::limits::{ARCHIVE_TYPES_MAX, SMALL_WAITING_SIZE_MAX};
    use tokio::sync::mpsc::error::TryRecvError;
    use tokio::sync::mpsc::unbounded_channel;
    use tokio::task::unconstrained;

    use super::*;
    use crate::cpu_time::CpuTime;
    use crate::rooms::tests::Scene;

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

    #[test]
    fn a_room_hears_when_a_connection_has_closed_its_last_channel_there() {
        let (room, mut mail) = unbounded_channel();
        let document = DocumentKey::new("list", "").expect("a name");
        let mut channels = Channels { conn: ConnId(7), open: BTreeMap::new() };
        for number in [1, 2, 3] {
            channels.enter(Channel(number), document.clone(), &room);
        }
        channels.close(Channel(1));
        channels.close(Channel(1));
        assert!(mail.try_recv().is_err(), "it is still there");
        drop(channels);
        assert!(matches!(mail.try_recv(), Ok(RoomMail::Left { conn: ConnId(7) })));
        assert!(mail.try_recv().is_err(), "once");
    }

    /// Goal: nobody waits for a connection that leaves, however many documents it had. Method: as
    /// many as it may have, with names that are long and alike.
    #[test]
    fn a_connection_leaves_many_documents_as_fast_as_it_came_to_them() {
        let (room, mut mail) = unbounded_channel();
        let mut channels = Channels { conn: ConnId(7), open: BTreeMap::new() };
        let document = |number| DocumentKey::new(&format!("{number:0512}"), "").expect("a name");
        let documents: Vec<_> = (0..CONNECTION_CHANNELS_MAX).map(document).collect();
        let entering = CpuTime.worked_ns();
        for (document, number) in documents.into_iter().zip(0..) {
            channels.enter(Channel(number), document, &room);
        }
        let leaving = CpuTime.worked_ns();
        drop(channels);
        let (entered, left) = (leaving - entering, CpuTime.worked_ns() - leaving);
        assert!(left < 20 * entered, "{left} ns, and {entered} to enter");
        let heard = std::iter::from_fn(|| mail.try_recv().ok()).count();
        assert_eq!(heard, CONNECTION_CHANNELS_MAX, "each room hears of it");
    }

    /// Goal: whoever opens names that there are not keeps no rooms open. Method: a channel whose
    /// room is gone, and another one of the same document, whose room came later.
    #[test]
    fn a_channel_keeps_no_room() {
        let (room, mut mail) = unbounded_channel();
        let document = DocumentKey::new("list", "").expect("a name");
        let mut channels = Channels { conn: ConnId(7), open: BTreeMap::new() };
        channels.enter(Channel(2), document.clone(), &room);
        drop(room);
        assert!(matches!(mail.try_recv(), Err(TryRecvError::Disconnected)), "nobody holds it");
        let (later, mut mail) = unbounded_channel();
        channels.enter(Channel(1), document, &later);
        drop(channels);
        assert!(matches!(mail.try_recv(), Ok(RoomMail::Left { conn: ConnId(7) })));
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
            expiry: None,
            channels: Channels { conn: ConnId(7), open: BTreeMap::new() },
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
            let body = ToRoom::Archived(ArchiveQuestion {
                number,
                archive,
                aggregate,
                stream,
                types,
                after,
            });
            ToServer::About { channel: Channel(1), body }
        };
        let size = encode_message(&question(ARCHIVE_NAMES_SIZE_MAX)).len() as u64;
        assert!(size < SMALL_MESSAGE_SIZE_MAX, "{size}");
        for (size, is_taken) in
            [(ARCHIVE_NAMES_SIZE_MAX, true), (ARCHIVE_NAMES_SIZE_MAX + 1, false)]
        {
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
        let shared = Arc::new(Shared::of(&scene));
        let reader = Reader {
            connection: Connection::new(ConnId(7)).0,
            shared: Arc::clone(&shared),
            refusal: None,
            greeting: None,
            share: None,
            pass: Pass::Everything,
            subject: None,
            identity: nobody(),
            expiry: None,
            channels: Channels { conn: ConnId(7), open: BTreeMap::new() },
            permits: Arc::new(Semaphore::new(CONNECTION_IN_SIZE_MAX / PERMIT_SIZE)),
            archive_turn: Arc::default(),
            early: None,
            said: Said::new(Gated::new(tokio::io::empty(), 0).1),
        };
        let is_heard = || reader.has_room().now_or_never().is_some();
        let own = reader.own(1, None).await.continue_value().expect("there is room");
        let waits = MessagePermit::new(own, None, &shared.counters);
        assert!(is_heard(), "little waits");
        shared.counters.small_waiting_size.fetch_add(SMALL_WAITING_SIZE_MAX, Ordering::Relaxed);
        assert!(!is_heard());
        drop(waits);
        assert!(is_heard(), "nothing of it waits");
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
