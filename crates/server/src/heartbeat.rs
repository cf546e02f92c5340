//! Whether the store answers, as far as was heard.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::store::StoreHandle;

/// How often the store is asked whether it is there, once it has answered.
const BEATS_EVERY: Duration = Duration::from_secs(1);
/// After which silence it is taken for hanging. A flush to a slow disk takes less.
const SILENCE_ENDS: Duration = Duration::from_secs(5);

/// What the store was heard to say. Whoever wants to know need not wait for it.
pub(crate) struct Heartbeat(Mutex<Heard>);

#[derive(Clone, Copy)]
struct Heard {
    /// When it last answered, or was asked first.
    at: Instant,
    /// Whether it said that it is open.
    is_open: bool,
}

impl Heartbeat {
    /// Of a store that was just opened.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Heard { at: Instant::now(), is_open: true })))
    }

    /// Whether the store is open, and has said so lately.
    pub(crate) fn is_there(&self) -> bool {
        let heard = *self.heard();
        heard.is_open && heard.at.elapsed() < SILENCE_ENDS
    }

    fn note(&self, is_open: bool) {
        *self.heard() = Heard { at: Instant::now(), is_open };
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens to the store until the server stops. Never more than one question is under way.
pub(crate) async fn listen(
    heartbeat: Arc<Heartbeat>,
    store: StoreHandle,
    mut stopped: watch::Receiver<bool>,
) {
    let beats = async {
        loop {
            heartbeat.note(store.beats().await);
            sleep(BEATS_EVERY).await;
        }
    };
    tokio::select! {
        () = beats => {}
        // The sender going away means stop as well.
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::silent_store;

    #[tokio::test(start_paused = true)]
    async fn a_store_that_says_nothing_for_five_seconds_is_not_there() {
        let (store, inbox) = silent_store();
        let (heartbeat, (_stop, stopped)) = (Heartbeat::new(), watch::channel(false));
        let listening = tokio::spawn(listen(Arc::clone(&heartbeat), store, stopped));
        tokio::time::sleep(SILENCE_ENDS - Duration::from_millis(10)).await;
        assert!(heartbeat.is_there(), "it may be at something");
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!heartbeat.is_there());
        assert_eq!(inbox.try_iter().count(), 1, "it is asked once, and that question dropped now");
        tokio::time::sleep(2 * BEATS_EVERY).await;
        assert!(!heartbeat.is_there(), "it has no store open");
        listening.abort();
    }
}
