//! Turns to say a large message, of which the server takes in only so many at once: half of one is
//! memory that nothing else bounds. Nor is what rooms have not worked off: of that it keeps only so
//! much.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tidelog_types::limits::MESSAGE_SIZE_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long a turn lasts at least while others wait for theirs.
const TURN_LASTS: Duration = Duration::from_secs(60);
/// Bytes of the message that have to come in each second of a longer one, on average.
const TURN_BYTES_PER_S: u64 = 16 * 1024;
/// How often somebody looks whether they do, or whether what somebody holds is wanted.
pub(crate) const LOOKS_EVERY: Duration = Duration::from_secs(1);
/// Within which time there is room for somebody whose turn it is, or it comes back later: meanwhile
/// it is not listened to, and nobody else has its turn.
const ROOM_COMES_WITHIN: Duration = Duration::from_secs(60);

/// For how long a message holds its room at most while others may need it: what is worked off until
/// then is done with, and the rest is said again. Less than those wait.
const SPACE_IS_HELD: Duration = Duration::from_secs(30);

/// Bytes that one permit stands for, of the room for messages and of a connection.
pub(crate) const PERMIT_SIZE: usize = 1024;

/// The turns of all connections.
pub(crate) struct LargeMessages {
    turns: Semaphore,
    room: Arc<Semaphore>,
    /// How many wait for one.
    waiting: watch::Sender<usize>,
}

/// Somebody's turn, until it is dropped.
pub(crate) struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
    /// For as much as a message may have.
    room: OwnedSemaphorePermit,
    waiting: watch::Receiver<usize>,
}

/// What a message that has come takes of the room, until a document's room has worked it off.
pub(crate) struct Space {
    room: OwnedSemaphorePermit,
    since: Instant,
}

/// Counts somebody who waits, while it lives.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl LargeMessages {
    /// So many turns, and room for so many bytes.
    pub(crate) fn new(count: usize, size_max: usize) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(size_max / PERMIT_SIZE));
        Arc::new(Self { turns: Semaphore::new(count), room, waiting: watch::Sender::new(0) })
    }

    /// Waits for a turn, and for room: they go in the order in which they were asked for. `None` if
    /// rooms do not work off enough for too long.
    pub(crate) async fn turn(&self) -> Option<Turn<'_>> {
        self.waiting.send_modify(|count| *count += 1);
        let _waiting = Waiting(&self.waiting);
        let permit = self.turns.acquire().await.expect("BUG: turns are never closed");
        let room = Arc::clone(&self.room).acquire_many_owned(permits(MESSAGE_SIZE_MAX));
        let room = timeout(ROOM_COMES_WITHIN, room).await.ok()?;
        let room = room.expect("BUG: room is never closed");
        Some(Turn { _permit: permit, room, waiting: self.waiting.subscribe() })
    }
}

impl Space {
    pub(crate) fn new(room: OwnedSemaphorePermit) -> Self {
        Self { room, since: Instant::now() }
    }

    /// Bytes of the message.
    pub(crate) fn size(&self) -> usize {
        self.room.num_permits() * PERMIT_SIZE
    }

    /// So much is left of the message.
    pub(crate) fn shrink(&mut self, size: usize) {
        let surplus = self.room.num_permits().saturating_sub(permits(size) as usize);
        drop(self.room.split(surplus));
    }

    /// Comes once it [is overdue](Self::is_overdue).
    pub(crate) async fn comes_overdue(&self) {
        sleep_until(self.since + SPACE_IS_HELD).await;
        while !self.is_wanted() {
            sleep(LOOKS_EVERY).await;
        }
    }

    /// Whether it may be needed: there is less left than a message may have.
    pub(crate) fn is_wanted(&self) -> bool {
        self.room.semaphore().available_permits() < permits(MESSAGE_SIZE_MAX) as usize
    }

    /// Whether it is, and was held for as long as it may be then.
    pub(crate) fn is_overdue(&self) -> bool {
        self.is_wanted() && self.since.elapsed() >= SPACE_IS_HELD
    }
}

fn permits(size: usize) -> u32 {
    u32::try_from(size.div_ceil(PERMIT_SIZE)).expect("BUG: so many permits")
}

impl Turn<'_> {
    /// Ends the turn with a message of so many bytes, which holds its room.
    pub(crate) fn end(mut self, size: usize) -> Space {
        let count = permits(size) as usize;
        Space::new(self.room.split(count).expect("BUG: more than a message may have"))
    }

    /// Comes once it has lasted, if others wait and too little has come since it began.
    pub(crate) async fn is_over(&mut self, came: impl Fn() -> u64) {
        let (began, before) = (Instant::now(), came());
        sleep(TURN_LASTS).await;
        loop {
            if self.waiting.wait_for(|count| *count > 0).await.is_err() {
                pending().await
            }
            // Whoever says more besides it has no longer turn for that.
            let came = (came() - before).min(MESSAGE_SIZE_MAX as u64);
            if came < TURN_BYTES_PER_S * began.elapsed().as_secs() {
                return;
            }
            sleep(LOOKS_EVERY).await;
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_turn_lasts_for_as_long_as_nobody_waits_and_soon_ends_if_somebody_does() {
        let messages = LargeMessages::new(1, MESSAGE_SIZE_MAX);
        let mut first = messages.turn().await.expect("there is room");
        let is_over = timeout(100 * TURN_LASTS, first.is_over(|| 0)).await;
        assert!(is_over.is_err(), "nobody waits");
        assert!(timeout(TURN_LASTS, messages.turn()).await.is_err(), "it is not over");
        let is_over = timeout(2 * TURN_LASTS, first.is_over(|| 0)).await;
        assert!(is_over.is_err(), "who waited has gone");
        let second = messages.turn();
        tokio::pin!(second);
        tokio::select! {
            _ = &mut second => panic!("there is one turn"),
            () = first.is_over(|| 0) => {}
        }
        drop(first);
        assert!(second.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_enough_has_its_turn_for_a_whole_message_however_many_wait() {
        let messages = LargeMessages::new(1, MESSAGE_SIZE_MAX);
        let mut first = messages.turn().await.expect("there is room");
        let began = Instant::now();
        let came = || (began.elapsed().as_secs() + 1) * TURN_BYTES_PER_S;
        let second = messages.turn();
        tokio::select! {
            _ = second => panic!("there is one turn"),
            () = first.is_over(came) => {}
        }
        let takes = MESSAGE_SIZE_MAX as u64 / TURN_BYTES_PER_S;
        let lasted = began.elapsed().as_secs();
        assert!((takes..takes + 10).contains(&lasted), "{lasted} s, not {takes}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_waits_until_there_is_room_for_a_whole_message() {
        let messages = LargeMessages::new(2, 2 * MESSAGE_SIZE_MAX);
        let turn = async || messages.turn().await.expect("there is room");
        let (first, second) = (turn().await, turn().await);
        let kept = [first.end(MESSAGE_SIZE_MAX / 2), second.end(MESSAGE_SIZE_MAX / 2)];
        let third = turn().await;
        assert!(timeout(ROOM_COMES_WITHIN / 2, turn()).await.is_err(), "there is no room");
        drop(kept);
        let fourth = turn().await;
        drop((third, fourth));
        drop(turn().await);
    }

    /// Goal: nobody waits for ever since rooms have too much to do. Method: one keeps all room for
    /// large messages, and two wait, of whom the second one has no turn before the first one goes.
    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_room_for_too_long_waits_no_longer() {
        let messages = LargeMessages::new(1, MESSAGE_SIZE_MAX);
        let first = messages.turn().await.expect("there is room");
        let kept = first.end(MESSAGE_SIZE_MAX);
        let began = Instant::now();
        let (second, third) = tokio::join!(messages.turn(), messages.turn());
        assert!(second.is_none() && third.is_none());
        assert_eq!(began.elapsed(), 2 * ROOM_COMES_WITHIN);
        drop(kept);
        assert!(messages.turn().await.is_some());
    }
}
