//! Turns to say a large message, of which the server takes in only so many at once: half of one is
//! memory that nothing else bounds.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tidelog_types::limits::MESSAGE_SIZE_MAX;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, sleep};

/// How long a turn lasts at least while others wait for theirs.
const TURN_LASTS: Duration = Duration::from_secs(60);
/// Bytes of the message that have to come in each second of a longer one, on average.
const TURN_BYTES_PER_S: u64 = 16 * 1024;
/// How often somebody looks whether they do.
const TURN_LOOKS_EVERY: Duration = Duration::from_secs(1);

/// The turns of all connections.
pub(crate) struct LargeMessages {
    turns: Semaphore,
    /// How many wait for one.
    waiting: watch::Sender<usize>,
}

/// Somebody's turn, until it is dropped.
pub(crate) struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
    waiting: watch::Receiver<usize>,
}

/// Counts somebody who waits, while it lives.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl LargeMessages {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { turns: Semaphore::new(count), waiting: watch::Sender::new(0) })
    }

    /// Waits for a turn: they go in the order in which they were asked for.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        self.waiting.send_modify(|count| *count += 1);
        let _waiting = Waiting(&self.waiting);
        let permit = self.turns.acquire().await.expect("BUG: turns are never closed");
        Turn { _permit: permit, waiting: self.waiting.subscribe() }
    }
}

impl Turn<'_> {
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
            sleep(TURN_LOOKS_EVERY).await;
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
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_turn_lasts_for_as_long_as_nobody_waits_and_soon_ends_if_somebody_does() {
        let messages = LargeMessages::new(1);
        let mut first = messages.turn().await;
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
        second.await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_enough_has_its_turn_for_a_whole_message_however_many_wait() {
        let messages = LargeMessages::new(1);
        let mut first = messages.turn().await;
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
}
