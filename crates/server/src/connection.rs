//! The way to a client, as the rest of the server holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tidelog_room::{ConnId, entry_size};
use tidelog_sync::{ByeReason, Channel, FromRoom, FromServer, Refusal, UndecidedReason};
use tidelog_types::DocumentKey;
use tidelog_types::limits::{
    CONNECTION_CHANNELS_MAX, CONNECTION_ENTRIES_SIZE_MAX, CONNECTION_OUT_SIZE_MAX,
};
use tokio::sync::{mpsc, watch};

use crate::access::Expiry;
use crate::audit::Who;
use crate::rooms::{Pace, RoomMail, RoomSender, WeakRoomSender};

/// What a message that is no entry counts for in bytes, without the reason in it.
pub(crate) const SMALL_MESSAGE_SIZE: usize = 256;

/// How a connection ends, from our side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Without a word: the client comes back by itself.
    Quiet,
    /// With a reason.
    Bye(ByeReason),
    /// Its subject has as many connections as it may. The client hears `Slow` in place of a
    /// welcome, and comes back by itself, ever more rarely.
    Full,
}

impl Ending {
    /// What the client is told of it.
    pub(crate) fn reason(&self) -> Option<ByeReason> {
        match self {
            Self::Quiet => None,
            Self::Bye(reason) => Some(reason.clone()),
            Self::Full => Some(ByeReason::Slow),
        }
    }
}

/// A handle to a connection. Sending never waits. What is sent is bounded all the same: entries by
/// what is [reserved](Self::reserve) for them, and all else by what the client says, since a client
/// that does not read is not listened to ([`has_room`](Self::has_room)).
#[derive(Clone)]
pub(crate) struct Connection(Arc<Shared>);

struct Shared {
    id: ConnId,
    /// In boxes, since a queue makes room for some messages ahead.
    queue: mpsc::UnboundedSender<Box<FromServer>>,
    ending: watch::Sender<Option<Ending>>,
    /// Bytes in the queue that are not of entries.
    waiting: watch::Sender<usize>,
    entries: Mutex<Entries>,
    pace: Pace,
    who: Mutex<Who>,
    /// Once true it stays so.
    handles_tasks: AtomicBool,
    muted: Mutex<BTreeSet<Channel>>,
    /// Whether any channel was ever muted.
    has_muted: AtomicBool,
    /// Ends it with its token, for as long as it is somebody's.
    expiry: Mutex<Option<Expiry>>,
    /// Whether its token has ended, before anything else ended it or after.
    has_no_token: AtomicBool,
}

/// A connection, if anybody has it still.
#[derive(Clone)]
pub(crate) struct WeakConnection(Weak<Shared>);

impl WeakConnection {
    pub(crate) fn upgrade(&self) -> Option<Connection> {
        self.0.upgrade().map(Connection)
    }
}

/// Entries on their way to the client.
#[derive(Default)]
struct Entries {
    reserved: usize,
    /// Rooms that wait for room, each with its turn.
    waiting: BTreeMap<DocumentKey, Waiting>,
    turns_ever: u64,
}

/// A room that was refused.
struct Waiting {
    turn: u64,
    size: usize,
    room: WeakRoomSender,
    /// Whether it was told that there is room: that is kept for it until it has come.
    is_told: bool,
}

impl Waiting {
    fn is_gone(&self) -> bool {
        self.room.upgrade().is_none_or(|room| room.is_closed())
    }
}

impl Entries {
    /// Whether there is room for so much of `document` beside what is kept for others.
    fn reserve(&mut self, size: usize, document: &DocumentKey, room: &WeakRoomSender) -> bool {
        // A connection may have many documents, of which few are told.
        self.waiting.retain(|_, waiting| !waiting.is_told || !waiting.is_gone());
        let others = self.waiting.iter().filter(|(other, it)| *other != document && it.is_told);
        let taken = self.reserved + others.map(|(_, it)| it.size).sum::<usize>();
        let fits = taken == 0 || taken.saturating_add(size) <= CONNECTION_ENTRIES_SIZE_MAX;
        if fits {
            // Another follower of the document may wait yet, and is not told before its turn.
            if self.waiting.get(document).is_some_and(|it| it.is_told) {
                self.waiting.remove(document);
            }
            self.reserved += size;
        } else {
            // The document may be in another room by now, and keeps its turn.
            let turn = self.waiting.get(document).map_or(self.turns_ever, |it| it.turn);
            let waiting = Waiting { turn, size, room: room.clone(), is_told: false };
            self.waiting.insert(document.clone(), waiting);
            self.turns_ever += 1;
        }
        fits
    }

    /// Whom to tell that there is room, once there is for half of what may be reserved: whoever has
    /// waited longest comes first.
    fn take_turns(&mut self) -> Vec<RoomSender> {
        self.waiting.retain(|_, waiting| !waiting.is_told || !waiting.is_gone());
        let told = self.waiting.values().filter(|waiting| waiting.is_told);
        let mut taken = self.reserved + told.map(|waiting| waiting.size).sum::<usize>();
        if taken > CONNECTION_ENTRIES_SIZE_MAX / 2 {
            return Vec::new();
        }
        self.waiting.retain(|_, waiting| !waiting.is_gone());
        let mut untold: Vec<_> = self.waiting.values_mut().filter(|it| !it.is_told).collect();
        untold.sort_unstable_by_key(|waiting| waiting.turn);
        let mut rooms = Vec::new();
        for waiting in untold {
            if taken > CONNECTION_ENTRIES_SIZE_MAX / 2 {
                break;
            }
            waiting.is_told = true;
            taken = taken.saturating_add(waiting.size);
            rooms.extend(waiting.room.upgrade());
        }
        rooms
    }
}

/// The other end, for the connection's own writer.
pub(crate) struct ConnectionEnd {
    pub(crate) queue: mpsc::UnboundedReceiver<Box<FromServer>>,
    pub(crate) ending: watch::Receiver<Option<Ending>>,
}

impl Connection {
    pub(crate) fn new(id: ConnId) -> (Self, ConnectionEnd) {
        let (sender, queue) = mpsc::unbounded_channel();
        let (tell, ending) = watch::channel(None);
        let connection = Self(Arc::new(Shared {
            id,
            queue: sender,
            ending: tell,
            waiting: watch::Sender::new(0),
            entries: Mutex::default(),
            pace: Pace::default(),
            who: Mutex::default(),
            handles_tasks: AtomicBool::new(false),
            muted: Mutex::default(),
            has_muted: AtomicBool::new(false),
            expiry: Mutex::default(),
            has_no_token: AtomicBool::new(false),
        }));
        (connection, ConnectionEnd { queue, ending })
    }

    pub(crate) fn id(&self) -> ConnId {
        self.0.id
    }

    pub(crate) fn downgrade(&self) -> WeakConnection {
        WeakConnection(Arc::downgrade(&self.0))
    }

    /// In place of what was kept before.
    pub(crate) fn keep(&self, expiry: Option<Expiry>) {
        *self.0.expiry.lock().unwrap_or_else(PoisonError::into_inner) = expiry;
    }

    /// Whose it is, as far as is known.
    pub(crate) fn who(&self) -> Who {
        self.0.who.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether its client has begun to handle tasks: others wait for it.
    pub(crate) fn handles_tasks(&self) -> bool {
        self.0.handles_tasks.load(Ordering::Relaxed)
    }

    pub(crate) fn note_handles_tasks(&self) {
        self.0.handles_tasks.store(true, Ordering::Relaxed);
    }

    pub(crate) fn comes_from(&self, address: Option<IpAddr>) {
        self.0.who.lock().unwrap_or_else(PoisonError::into_inner).address = address;
    }

    pub(crate) fn is_of(&self, subject: &str) {
        let subject = Some(subject.to_owned());
        self.0.who.lock().unwrap_or_else(PoisonError::into_inner).subject = subject;
    }

    pub(crate) fn pace(&self) -> &Pace {
        &self.0.pace
    }

    /// Tells the client nothing more of that channel, but that it is refused: its room may hear
    /// that it is, only behind much else.
    pub(crate) fn mute(&self, channel: Channel) {
        let mut muted = self.muted();
        muted.insert(channel);
        // It may be renewed again and again, each time with other channels.
        let are_many = muted.len() > CONNECTION_CHANNELS_MAX;
        drop(muted);
        self.0.has_muted.store(true, Ordering::Relaxed);
        if are_many {
            self.let_go();
        }
    }

    /// Tells it again of a channel on which a document is opened by somebody who may.
    pub(crate) fn unmute(&self, channel: Channel) {
        self.muted().remove(&channel);
    }

    fn muted(&self) -> MutexGuard<'_, BTreeSet<Channel>> {
        self.0.muted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_muted(&self, message: &FromServer) -> bool {
        let FromServer::About { channel, body } = message else { return false };
        self.0.has_muted.load(Ordering::Relaxed)
            && !matches!(body, FromRoom::Refused(_))
            && self.muted().contains(channel)
    }

    pub(crate) fn send(&self, message: FromServer) {
        let entry_size = entry_size_of(&message);
        if self.is_muted(&message) {
            return entry_size.into_iter().for_each(|size| self.release(size));
        }
        if entry_size.is_none() {
            self.0.waiting.send_modify(|size| *size += small_size_of(&message));
        }
        // A connection whose writer has ended has nobody to tell.
        let _ = self.0.queue.send(Box::new(message));
    }

    /// The message is out of the queue, and no more of it than the socket takes is in memory.
    pub(crate) fn sent(&self, message: &FromServer) {
        match entry_size_of(message) {
            Some(size) => self.release(size),
            None => self.0.waiting.send_modify(|size| *size -= small_size_of(message)),
        }
    }

    /// Whether nothing waits to be written.
    pub(crate) fn is_idle(&self) -> bool {
        *self.0.waiting.borrow() == 0 && self.entries().reserved == 0
    }

    /// Waits until the client has read enough of what it was told.
    pub(crate) async fn has_room(&self) {
        let mut waiting = self.0.waiting.subscribe();
        // The sender is in `self`.
        let _ = waiting.wait_for(|size| *size < CONNECTION_OUT_SIZE_MAX).await;
    }

    /// Whether so many bytes of entries may be sent. If not, the room is told when they may.
    pub(crate) fn reserve(
        &self,
        size: usize,
        document: &DocumentKey,
        room: &WeakRoomSender,
    ) -> bool {
        self.entries().reserve(size, document, room)
    }

    pub(crate) fn release(&self, size: usize) {
        let mut entries = self.entries();
        let left = entries.reserved.checked_sub(size);
        entries.reserved = left.expect("BUG: more entries left than were let in");
        self.tell(entries);
    }

    /// The room has heard that there is room, and has reserved what it wants of it: what is kept
    /// for it besides is for others.
    pub(crate) fn heard(&self, document: &DocumentKey) {
        let is_told = self.entries().waiting.get(document).is_some_and(|waiting| waiting.is_told);
        if is_told {
            self.withdraw(document);
        }
    }

    /// The room of that document waits for nothing here any more.
    pub(crate) fn withdraw(&self, document: &DocumentKey) {
        let mut entries = self.entries();
        if entries.waiting.remove(document).is_some() {
            self.tell(entries);
        }
    }

    /// Bytes that wait for the client to read, or are about to be sent to it.
    pub(crate) fn outbox_size(&self) -> usize {
        *self.0.waiting.borrow() + self.entries().reserved
    }

    fn tell(&self, mut entries: MutexGuard<'_, Entries>) {
        let rooms = entries.take_turns();
        drop(entries);
        for room in rooms {
            // One that is gone by now is not waited for, as soon as somebody looks.
            let _ = room.send(RoomMail::Writable { conn: self.id() });
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes when the connection is to end.
    pub(crate) fn ended(&self) -> watch::Receiver<Option<Ending>> {
        self.0.ending.subscribe()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.0.ending.borrow().is_some()
    }

    /// It wants more than there is room for, and comes back later.
    pub(crate) fn let_go(&self) {
        self.end(Ending::Bye(ByeReason::Slow));
    }

    /// Whether nothing that it said and that is not begun is to be done: it was let go, and
    /// something before it may be missing; or its token has ended. It says it again once it is
    /// back.
    pub(crate) fn is_heard_no_more(&self) -> bool {
        self.has_no_token() || *self.0.ending.borrow() == Some(Ending::Bye(ByeReason::Slow))
    }

    /// Whether its token has ended.
    pub(crate) fn has_no_token(&self) -> bool {
        self.0.has_no_token.load(Ordering::Relaxed)
    }

    /// The first reason stands.
    pub(crate) fn end(&self, ending: Ending) {
        if ending == Ending::Bye(ByeReason::Unauthenticated) {
            self.0.has_no_token.store(true, Ordering::Relaxed);
        }
        self.0.ending.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(ending);
            }
            first
        });
    }
}

/// What was reserved for the message, if it is a part of an entry.
fn entry_size_of(message: &FromServer) -> Option<usize> {
    match message {
        FromServer::About { body: FromRoom::Entry(part), .. } => Some(entry_size(part)),
        _ => None,
    }
}

/// What a message that is no entry counts for.
fn small_size_of(message: &FromServer) -> usize {
    if let FromServer::About { body: FromRoom::Presence(news), .. } = message {
        return SMALL_MESSAGE_SIZE + news.size();
    }
    if let FromServer::About { body: FromRoom::Archived { answer, .. }, .. } = message {
        return SMALL_MESSAGE_SIZE + answer.size();
    }
    let reason = match message {
        FromServer::About { body: FromRoom::Undecided { why, .. }, .. } => match why {
            UndecidedReason::UnknownDoctype { reason }
            | UndecidedReason::NoRoomForVerdict { reason }
            | UndecidedReason::VerdictFailed { reason } => reason.as_str(),
        },
        FromServer::About { body: FromRoom::Refused(refusal), .. } => match refusal {
            Refusal::DoctypeMismatch { reason }
            | Refusal::DoctypeInvalid { reason }
            | Refusal::Access { reason }
            | Refusal::Protocol { reason }
            | Refusal::Storage { reason } => reason.as_str(),
            Refusal::Missing
            | Refusal::Exists
            | Refusal::Parted
            | Refusal::Damaged
            | Refusal::DoctypeWanted => "",
        },
        _ => "",
    };
    SMALL_MESSAGE_SIZE + reason.len()
}

#[cfg(test)]
mod tests {
    use tidelog_sync::{Channel, encode_message};

    use super::*;

    fn document() -> DocumentKey {
        DocumentKey::new("notes", "").expect("a name")
    }

    #[test]
    fn a_room_that_was_refused_is_told_once_half_of_it_has_left() {
        let (connection, _end) = Connection::new(ConnId(7));
        let (room, mut mail) = mpsc::unbounded_channel();
        let room_weak = room.downgrade();
        let reserve = |size| connection.reserve(size, &document(), &room_weak);
        assert!(reserve(3 * CONNECTION_ENTRIES_SIZE_MAX), "nothing else is on its way");
        assert!(!reserve(1));
        connection.release(2 * CONNECTION_ENTRIES_SIZE_MAX);
        assert!(mail.try_recv().is_err(), "it is still full");
        connection.release(CONNECTION_ENTRIES_SIZE_MAX);
        assert!(matches!(mail.try_recv(), Ok(RoomMail::Writable { conn: ConnId(7) })));
        assert!(reserve(CONNECTION_ENTRIES_SIZE_MAX));
        assert!(!reserve(1));
    }

    const HALF: usize = CONNECTION_ENTRIES_SIZE_MAX / 2;

    fn room_of(name: &str) -> (DocumentKey, RoomSender, mpsc::UnboundedReceiver<RoomMail>) {
        let (room, mail) = mpsc::unbounded_channel();
        (DocumentKey::new(name, "").expect("a name"), room, mail)
    }

    /// Goal: who lags gets its turn, whatever others on the connection do. Method: three rooms,
    /// refused in another order than that of their names, and a document that is refused twice.
    #[test]
    fn rooms_are_told_in_the_order_in_which_they_were_refused() {
        let rooms = ["a", "b", "c"].map(room_of);
        let mut entries = Entries { reserved: CONNECTION_ENTRIES_SIZE_MAX, ..Entries::default() };
        // One that ends, and another has its document since.
        let (ends, _mail) = mpsc::unbounded_channel();
        assert!(!entries.reserve(1, &rooms[2].0, &ends.downgrade()));
        for (document, room, _) in &rooms {
            assert!(!entries.reserve(1, document, &room.downgrade()));
        }
        entries.reserved = 0;
        let told = entries.take_turns();
        let index_of = |told: &RoomSender| rooms.iter().position(|it| it.1.same_channel(told));
        let turns: Vec<_> = told.iter().map(index_of).collect();
        assert_eq!(turns, [Some(2), Some(0), Some(1)]);
        assert_eq!(entries.take_turns().len(), 0, "each is told once");
    }

    /// Goal: nobody loses its turn by coming late. Method: two rooms wait; the second one comes
    /// first, again and again, and one that was never refused comes too.
    #[test]
    fn room_is_kept_for_the_one_whose_turn_it_is() {
        let (connection, _end) = Connection::new(ConnId(7));
        let [mut late, mut quick, other] = ["late", "quick", "other"].map(room_of);
        let reserve = |(document, room, _): &(DocumentKey, RoomSender, _), size| {
            connection.reserve(size, document, &room.downgrade())
        };
        assert!(reserve(&other, CONNECTION_ENTRIES_SIZE_MAX));
        assert!(!reserve(&late, HALF + 1));
        assert!(!reserve(&quick, HALF));
        connection.release(CONNECTION_ENTRIES_SIZE_MAX);
        assert!(late.2.try_recv().is_ok(), "it is told first");
        assert!(quick.2.try_recv().is_err(), "there is no room for both");
        for _ in 0..3 {
            assert!(!reserve(&quick, HALF));
            assert!(!reserve(&other, HALF));
        }
        assert!(reserve(&late, HALF + 1), "it comes late");
        connection.heard(&late.0);
        connection.release(HALF + 1);
        assert!(quick.2.try_recv().is_ok(), "and who came next is next");
        assert!(reserve(&quick, HALF));
    }

    /// Goal: a follower that waits is told, whatever another one of the same document gets.
    #[test]
    fn what_fits_of_a_document_takes_the_turn_of_nobody_else_who_follows_it() {
        let (connection, _end) = Connection::new(ConnId(7));
        let [mut a, b] = ["a", "b"].map(room_of);
        let reserve = |(document, room, _): &(DocumentKey, RoomSender, _), size| {
            connection.reserve(size, document, &room.downgrade())
        };
        assert!(reserve(&b, HALF + 2));
        assert!(!reserve(&a, HALF));
        assert!(reserve(&a, 1));
        connection.release(HALF + 2);
        assert!(a.2.try_recv().is_ok());
    }

    /// Goal: room is kept for nobody who does not want it any more. Method: of four rooms that wait
    /// the first is told and wants nothing, the second leaves, the third ends.
    #[test]
    fn room_that_is_not_wanted_any_more_is_for_others() {
        let (connection, _end) = Connection::new(ConnId(7));
        let [content, mut leaves, mut ends, last] =
            ["content", "leaves", "ends", "last"].map(room_of);
        let reserve = |(document, room, _): &(DocumentKey, RoomSender, _)| {
            connection.reserve(CONNECTION_ENTRIES_SIZE_MAX, document, &room.downgrade())
        };
        assert!(reserve(&content));
        for room in [&content, &leaves, &ends, &last] {
            assert!(!reserve(room));
        }
        connection.release(CONNECTION_ENTRIES_SIZE_MAX);
        assert!(leaves.2.try_recv().is_err(), "it is not its turn");
        connection.heard(&content.0);
        assert!(leaves.2.try_recv().is_ok());
        connection.withdraw(&leaves.0);
        assert!(ends.2.try_recv().is_ok());
        assert!(!reserve(&last));
        drop(ends);
        assert!(reserve(&last));
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_listened_to_no_longer() {
        let (connection, mut end) = Connection::new(ConnId(7));
        for _ in 0..CONNECTION_OUT_SIZE_MAX / SMALL_MESSAGE_SIZE {
            connection.has_room().await;
            connection.send(FromServer::Pong);
        }
        let mut room = Box::pin(connection.has_room());
        assert!(futures_util::poll!(room.as_mut()).is_pending());
        let message = end.queue.recv().await.expect("it was sent");
        connection.sent(&message);
        room.await;
    }

    #[test]
    fn a_message_counts_for_what_it_says() {
        let (connection, _end) = Connection::new(ConnId(7));
        let reason = "x".repeat(4_000);
        let body = FromRoom::Refused(Refusal::Protocol { reason });
        let message = FromServer::About { channel: Channel(1), body };
        connection.send(message.clone());
        assert!(*connection.0.waiting.borrow() >= encode_message(&message).len());
        connection.sent(&message);
        assert_eq!(*connection.0.waiting.borrow(), 0);
    }
}
