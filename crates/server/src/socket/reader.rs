//! What a client says, from Hello until its connection ends.
//!
//! ```text
//! client ──▶ gate ──▶ stream ──▶ reader ──▶ room of the channel
//!                                  └──▶ archive, for what is asked of one
//! ```
//!
//! One message is heard at a time, once there is room: for what it takes until its room has worked
//! it off, and for what its client is told of it. A large one waits for its turn besides, and only
//! then does the gate let it pass. While it waits for either, nothing is read, and the client is
//! told now and then that we are here. What a message may do is looked up in the pass of the token,
//! and which room is its channel's in the [`Channels`], before a room gets it.

use std::future::pending;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::SplitStream;
use futures_util::{FutureExt, Stream, StreamExt};
use tidelog_access::{Allowed, Role, TokenError};
use tidelog_room::{Identity, May, Speaker};
use tidelog_sync::{
    ArchiveQuestion, ByeReason, Channel, FromRoom, FromServer, MessageError, Refusal, ToRoom,
    ToServer, decode_message, message_size,
};
use tidelog_types::limits::{
    ARCHIVE_NAMES_SIZE_MAX, CONNECTION_CHANNELS_MAX, CONNECTION_IN_SIZE_MAX, INSTANCE_SILENT_MS,
    PAGE_SIZE, REASON_SIZE_MAX, SMALL_MESSAGE_SIZE_MAX,
};
use tidelog_types::{ClientId, DocumentKey};
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, interval, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{self, Bytes, Message};
use tracing::debug;

use super::Socket;
use super::channels::Channels;
use crate::access::{Pass, now_s};
use crate::allowance::Allowance;
use crate::archive::{self, Asker};
use crate::audit::Who;
use crate::connection::{Connection, Ending, SMALL_MESSAGE_SIZE};
use crate::counters::add;
use crate::gate::Gate;
use crate::large_messages::{PERMIT_SIZE, Space};
use crate::rooms::{MessagePermit, RoomMail, RoomSender};
use crate::said::Said;
use crate::shared::Shared;
use crate::shares::Share;

/// Within which time a client has to say Hello.
const HELLO_TAKES: Duration = Duration::from_secs(10);
/// After which silence a client is taken for gone. And after which one that handles tasks, and that
/// takes nothing meanwhile of what it is told: what it works at is given to others then.
const SILENCE_ENDS: Duration = Duration::from_secs(90);
const HANDLER_SILENCE_ENDS: Duration = Duration::from_millis(INSTANCE_SILENT_MS);
/// How often a client that is not listened to for now is told that we are here.
const BUSY_EVERY: Duration = Duration::from_secs(5);

/// Bytes that a message counts for at least until its room has worked it off: what its client is
/// told of it may be longer than the message, and takes its place.
const ANSWER_SIZE_MAX: usize = SMALL_MESSAGE_SIZE + REASON_SIZE_MAX;
/// A message from this size on leaves a buffer behind that is not worth keeping.
const LARGE_MESSAGE_SIZE: usize = 16 * PAGE_SIZE;

/// What comes of a stream.
type Heard = Result<Message, tungstenite::Error>;
type Flow<T = ()> = ControlFlow<Ending, T>;

pub(super) struct Reader {
    connection: Connection,
    shared: Arc<Shared>,
    /// Why it is not served.
    refusal: Option<ByeReason>,
    /// What it takes up of its address until it is let in.
    greeting: Option<Share<IpAddr>>,
    /// What it takes up of its subject from then on.
    share: Option<Share<Arc<str>>>,
    /// What it may do, once it has said Hello.
    pass: Pass,
    /// Whose token that is, if it needs one.
    subject: Option<Arc<str>>,
    /// Who that is, for others who are present.
    identity: Arc<Identity>,
    channels: Channels,
    /// What it may say before rooms have worked it off.
    permits: Arc<Semaphore>,
    /// The turn to be answered what an archive has.
    archive_turn: Arc<AsyncMutex<()>>,
    /// A message that came before it was asked for.
    early: Option<Flow<Bytes>>,
    said: Said,
}

impl Reader {
    /// What listens to this connection, which nothing was heard of.
    pub(super) fn new(
        connection: Connection,
        shared: Arc<Shared>,
        refusal: Option<ByeReason>,
        greeting: Option<Share<IpAddr>>,
        gate: Gate,
    ) -> Self {
        Self {
            channels: Channels::new(connection.id()),
            connection,
            shared,
            refusal,
            greeting,
            share: None,
            pass: Pass::Nothing,
            subject: None,
            identity: nobody(),
            permits: Arc::new(Semaphore::new(CONNECTION_IN_SIZE_MAX / PERMIT_SIZE)),
            archive_turn: Arc::default(),
            early: None,
            said: Said::new(gate),
        }
    }

    /// Ends it. Gives what the connection takes up of its address, if it was not let in.
    pub(super) fn into_greeting(self) -> Option<Share<IpAddr>> {
        self.greeting
    }

    /// Hears one message after the other until the connection is to end. Says how, if that is known
    /// here.
    pub(super) async fn read(&mut self, stream: &mut SplitStream<Socket>, gate: &Gate) -> Ending {
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
        if let Some(subject) = self.pass.subject() {
            self.share = self.shared.subjects.take(subject.into());
            if self.share.is_none() {
                let who = Who { subject: Some(subject.to_owned()), ..self.connection.who() };
                self.shared.rooms.audit().crowded(subject, &who);
                return Flow::Break(Ending::Full);
            }
        }
        self.greeting = None;
        self.admit();
        // A later token is of the same subject.
        self.identity = Arc::new(Identity::new(self.subject.clone(), client));
        debug!(conn = self.connection.id().0, %client, "hello");
        self.connection.send(FromServer::Welcome);
        Flow::Continue(())
    }

    /// The connection ends with the token of its pass, and the client is told when that is.
    fn admit(&mut self) {
        self.shared.expiries.enter(&self.connection, &self.pass);
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
            let [was, is] =
                [&before, &self.pass].map(|pass| pass.for_document(&open.document.document));
            if is.is_none() {
                self.connection.mute(*channel);
            }
            let room = open.room.upgrade().filter(|_| was != is && !open.is_sent_away);
            let (Some(room), channel) = (room, *channel) else { continue };
            if let Some(Allowed { role, handle, .. }) = is {
                if was.is_none_or(|was| was.role != role) {
                    let body = FromRoom::Allowed { role };
                    self.connection.send(FromServer::About { channel, body });
                }
                if was.is_some_and(|was| was.handle && !handle) {
                    let _ = room.send(RoomMail::HandlesNoMore { conn, channel });
                }
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
            ToRoom::Presence(mut word) => {
                self.channels.limit(channel, &mut word);
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
        self.connection.unmute(channel);
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

#[cfg(test)]
mod tests;
