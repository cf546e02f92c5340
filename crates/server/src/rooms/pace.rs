//! Who is slow: rooms that take their thread for long, and clients whose rooms do. Those wait for
//! turns of which there are fewer than threads, so that all others always find a thread. Of a run
//! that nobody knows to be slow yet, it shows while it lasts: it is cut off, and begins anew in its
//! turn.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

/// What a step may take of its thread's time. A step that takes more is a slow one, and without a
/// turn its run is cut off.
pub(super) const STEP_TAKES: Duration = Duration::from_millis(20);
/// For how long a client counts as slow behind its last slow step: before its other rooms take one,
/// nobody knows that they will.
const SLOW_STAYS: Duration = Duration::from_secs(10);

/// Whether a step that took so many nanoseconds was a slow one.
pub(super) fn is_slow_step(worked_ns: u64) -> bool {
    Duration::from_nanos(worked_ns) > STEP_TAKES
}

/// How fast the rooms of one client are with what it says.
///
/// Of the turns of all rooms it has one of each kind: whichever of its rooms has that, or waits for
/// it, has this one too. So a client with many documents has no more of them than one that has one.
pub(crate) struct Pace {
    pub(super) slow_turns: Arc<Semaphore>,
    pub(super) run_turns: Arc<Semaphore>,
    pub(super) write_turns: Arc<Semaphore>,
    slow_at: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn note_slow_step(&self) {
        *self.slow_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether one of its rooms took a slow step lately, or is about to take one.
    pub(super) fn is_slow(&self) -> bool {
        let slow_at = *self.slow_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_late = |at: Instant| at.elapsed() < SLOW_STAYS;
        self.slow_turns.available_permits() == 0 || slow_at.is_some_and(is_late)
    }
}

impl Default for Pace {
    fn default() -> Self {
        let [slow_turns, run_turns, write_turns] = [(); 3].map(|()| Arc::new(Semaphore::new(1)));
        Self { slow_turns, run_turns, write_turns, slow_at: Mutex::default() }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::super::turn::{SlowTurn, Turn};
    use super::*;

    /// Goal: a client that has many documents has no more turns than one that has one. Method: many
    /// rooms of one client wait, and behind them one of another client's.
    #[tokio::test]
    async fn slow_rooms_of_one_client_take_turns_among_themselves() {
        let all = Arc::new(Semaphore::new(1));
        let busy = Arc::clone(&all).try_acquire_owned().expect("a turn");
        let [many, one] = [Pace::default(), Pace::default()];
        let turn = |pace: &Pace| -> SlowTurn { Turn::awaited([&pace.slow_turns, &all], ()) };
        let mut waiting: Vec<SlowTurn> = (0..9).map(|_| turn(&many)).collect();
        waiting.push(turn(&one));
        let mut come = || {
            let comes = |turn: &mut SlowTurn| turn.comes().now_or_never().is_some();
            let index = waiting.iter_mut().position(comes)?;
            waiting[index] = Turn::NotNeeded;
            Some(index)
        };
        assert_eq!(come(), None, "each has asked");
        drop(busy);
        let order: Vec<usize> = std::iter::from_fn(come).collect();
        assert_eq!(order, [0, 9, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(!many.is_slow() && !one.is_slow(), "nobody waits, and no step was slow");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_slow_for_a_while_behind_a_slow_step_of_any_of_its_rooms() {
        let pace = Pace::default();
        pace.note_slow_step();
        assert!(pace.is_slow());
        tokio::time::advance(SLOW_STAYS).await;
        assert!(!pace.is_slow());
        let _about_to = Arc::clone(&pace.slow_turns).try_acquire_owned().expect("its turn");
        assert!(pace.is_slow());
    }
}
