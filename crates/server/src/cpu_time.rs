//! How long a transaction may keep a thread busy.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidelog_sqlite::Stopwatch;

/// Of a thread's own time, which goes on only while it works: a machine that is slow or was asleep
/// rejects nothing. Many times what the budget of steps takes where no step is a long one.
const TRANSACTION_TAKES: Duration = Duration::from_secs(10);

/// The time of one room's transactions, of which there is one at a time.
#[derive(Debug)]
pub(crate) struct CpuTime {
    /// In nanoseconds of the thread that runs it.
    began: AtomicU64,
    takes: Duration,
}

impl Default for CpuTime {
    fn default() -> Self {
        Self { began: AtomicU64::new(0), takes: TRANSACTION_TAKES }
    }
}

impl Stopwatch for CpuTime {
    fn start(&self) {
        self.began.store(thread_time(), Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        let taken = thread_time().saturating_sub(self.began.load(Ordering::Relaxed));
        Duration::from_nanos(taken) > self.takes
    }
}

/// Nanoseconds that this thread has worked.
#[cfg(unix)]
fn thread_time() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (seconds, rest) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(rest.unwrap_or(0))
}

/// Nanoseconds since this was first asked: other systems do not tell what a thread has worked.
#[cfg(not(unix))]
fn thread_time() -> u64 {
    static FIRST: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let since = FIRST.get_or_init(std::time::Instant::now).elapsed();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_only_waits_takes_no_time() {
        let takes = Duration::from_millis(100);
        let stopwatch = CpuTime { takes, ..CpuTime::default() };
        stopwatch.start();
        std::thread::sleep(2 * takes);
        assert!(!stopwatch.is_over());
        while !stopwatch.is_over() {
            std::hint::spin_loop();
        }
        stopwatch.start();
        assert!(!stopwatch.is_over(), "the next transaction has time of its own");
    }
}
