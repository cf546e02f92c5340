//! Turns to say a large message, of which the server takes in only so many at once: half of one is
//! memory that nothing else bounds.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::sleep;

/// How long a turn lasts at least while others wait for theirs.
const TURN_LASTS: Duration = Duration::from_secs(60);

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
    /// Comes once it has lasted, and others wait.
    pub(crate) async fn is_over(&mut self) {
        sleep(TURN_LASTS).await;
        if self.waiting.wait_for(|count| *count > 0).await.is_err() {
            pending().await
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
        assert!(timeout(100 * TURN_LASTS, first.is_over()).await.is_err(), "nobody waits");
        assert!(timeout(TURN_LASTS, messages.turn()).await.is_err(), "it is not over");
        assert!(timeout(2 * TURN_LASTS, first.is_over()).await.is_err(), "who waited has gone");
        let second = messages.turn();
        tokio::pin!(second);
        tokio::select! {
            _ = &mut second => panic!("there is one turn"),
            () = first.is_over() => {}
        }
        drop(first);
        second.await;
    }
}
