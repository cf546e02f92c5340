//! How long a thread has worked.

use tidelog_room::ThreadClock;

/// A thread's own time, which goes on only while it works: a machine that is slow or was asleep
/// rejects nothing.
#[derive(Debug)]
pub(crate) struct CpuTime;

impl ThreadClock for CpuTime {
    fn worked_ns(&self) -> u64 {
        thread_time()
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
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thread_that_only_waits_takes_no_time() {
        let takes = Duration::from_millis(100);
        let began = CpuTime.worked_ns();
        let taken = || Duration::from_nanos(CpuTime.worked_ns() - began);
        std::thread::sleep(2 * takes);
        assert!(taken() < takes);
        while taken() < takes {
            std::hint::spin_loop();
        }
    }
}
