//! How long a piece of work takes, in all its runs together.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidelog_sqlite::{Stopwatch, TimeLeft};

use super::MayRun;

/// What one run of a transaction may take. Many times what the budget of steps takes where no step
/// is a long one.
const RUN_TAKES_NS: u64 = 10_000_000_000;
/// What all runs of it together may take. Those of a scan that faults take five to six times what
/// the last one does: what is not in memory is no reason against a transaction.
const ALL_RUNS_TAKE_NS: u64 = 10 * RUN_TAKES_NS;

/// Tells how long threads have worked, to a room that knows no time.
pub trait ThreadClock: fmt::Debug + Send + Sync {
    /// Nanoseconds that the calling thread has worked, which is no less than it was before. Those
    /// of two threads have nothing to do with one another.
    fn worked_ns(&self) -> u64;
}

/// The time of one room's transactions, of which there is one at a time.
///
/// A run that faults, or is cut off, is begun anew, maybe on another thread, and all of them
/// together have a time too. What is behind a transaction that was over has time of its own: it
/// says so.
#[derive(Debug)]
pub(super) struct WorkTime {
    clock: Arc<dyn ThreadClock>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// By the runs before, which faulted or were cut off.
    before_ns: u64,
    /// What the step may take before its run is cut off, if it is at all.
    step_takes_ns: Option<u64>,
    /// When it first ran something: before that it takes next to nothing, and to ask is not free.
    step_began_ns: Option<u64>,
    /// When the run first ran something, and when its latest transaction began.
    run_began_ns: Option<u64>,
    began_ns: u64,
    /// Whether the latest transaction is over, and whether the one before it was.
    is_over: bool,
    is_behind_one_over: bool,
}

impl WorkTime {
    pub(super) fn new(clock: Arc<dyn ThreadClock>) -> Self {
        Self { clock, taken: Mutex::default() }
    }

    /// A step begins, on this thread.
    pub(super) fn begin_step(&self, may_run: MayRun) {
        let mut taken = self.taken();
        taken.step_began_ns = None;
        taken.step_takes_ns = match may_run {
            MayRun::Briefly(time) => Some(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
            MayRun::Nothing | MayRun::Everything => None,
        };
    }

    /// A piece of work is run for the first time.
    pub(super) fn begin(&self) {
        self.taken().before_ns = 0;
        self.go_on();
    }

    /// It is run again.
    pub(super) fn go_on(&self) {
        let mut taken = self.taken();
        let Taken { before_ns, step_takes_ns, step_began_ns, .. } = *taken;
        *taken = Taken { before_ns, step_takes_ns, step_began_ns, ..Taken::default() };
    }

    /// The run faulted or was cut off, on this thread.
    pub(super) fn stop(&self) {
        let now_ns = self.clock.worked_ns();
        let mut taken = self.taken();
        taken.before_ns += now_ns.saturating_sub(taken.run_began_ns.unwrap_or(now_ns));
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stopwatch for WorkTime {
    fn start(&self) {
        let began_ns = self.clock.worked_ns();
        let mut taken = self.taken();
        taken.step_began_ns.get_or_insert(began_ns);
        taken.run_began_ns.get_or_insert(began_ns);
        taken.is_behind_one_over = taken.is_over;
        (taken.began_ns, taken.is_over) = (began_ns, false);
    }

    fn time_left(&self) -> TimeLeft {
        let now_ns = self.clock.worked_ns();
        let mut taken = self.taken();
        let before_ns = if taken.is_behind_one_over { 0 } else { taken.before_ns };
        let run_ns = now_ns.saturating_sub(taken.began_ns);
        let step_ns = now_ns.saturating_sub(taken.step_began_ns.unwrap_or(now_ns));
        if taken.step_takes_ns.is_some_and(|takes_ns| step_ns > takes_ns) {
            return TimeLeft::NoneNow;
        }
        taken.is_over |= run_ns > RUN_TAKES_NS || before_ns + run_ns > ALL_RUNS_TAKE_NS;
        if taken.is_over { TimeLeft::NoneEver } else { TimeLeft::Enough }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct Hand(AtomicU64);

    impl ThreadClock for Hand {
        fn worked_ns(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn runs_that_fault_have_a_time_together_and_a_verdict_has_its_own() {
        let hand = Arc::new(Hand::default());
        let time = WorkTime::new(Arc::clone(&hand) as Arc<dyn ThreadClock>);
        let work = |ns| {
            hand.0.fetch_add(ns, Ordering::Relaxed);
        };
        time.begin();
        for _ in 0..10 {
            time.start();
            work(RUN_TAKES_NS);
            assert!(time.time_left() == TimeLeft::Enough);
            time.stop();
            // The next thread has worked less.
            hand.0.store(0, Ordering::Relaxed);
            time.go_on();
        }
        time.start();
        work(1);
        assert!(time.time_left() == TimeLeft::NoneEver, "in all");
        time.start();
        work(1);
        assert!(time.time_left() == TimeLeft::Enough, "this one says so");
        time.stop();
        time.go_on();
        time.start();
        assert!(time.time_left() == TimeLeft::NoneEver, "it is no other work");
        time.begin();
        time.start();
        work(RUN_TAKES_NS);
        assert!(time.time_left() == TimeLeft::Enough);
        work(1);
        assert!(time.time_left() == TimeLeft::NoneEver, "the next work has as much");
    }
}
