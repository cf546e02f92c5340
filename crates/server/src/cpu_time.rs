//! How long a thread has worked.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tidelog_room::ThreadClock;

/// For how long a thread is taken to have worked all the time since the system was asked: to ask it
/// takes as long as a small statement does, and each mutation asks several times.
const TRUSTED: Duration = Duration::from_micros(200);

/// A thread's own time, which goes on only while it works: a machine that is slow or was asleep
/// rejects nothing.
#[derive(Debug)]
pub(crate) struct CpuTime;

impl ThreadClock for CpuTime {
    fn worked_ns(&self) -> u64 {
        thread_local! {
            static SEEN: Cell<Option<Seen>> = const { Cell::new(None) };
        }
        let now = Instant::now();
        let before = SEEN.get();
        let since = |seen: &Seen| now.saturating_duration_since(seen.asked_at);
        let trusted = before.filter(|seen| since(seen) < TRUSTED);
        let mut seen = trusted.unwrap_or_else(|| {
            let asked_ns = thread_time();
            let told_ns = before.map_or(0, |seen| seen.told_ns);
            Seen { asked_at: now, asked_ns, told_ns }
        });
        let since_ns = u64::try_from(since(&seen).as_nanos()).unwrap_or(0);
        // It may have waited since, and does not go back for that.
        seen.told_ns = seen.told_ns.max(seen.asked_ns + since_ns);
        SEEN.set(Some(seen));
        seen.told_ns
    }
}

/// What a thread knows of its time.
#[derive(Clone, Copy)]
struct Seen {
    /// When the system was asked, and what it said.
    asked_at: Instant,
    asked_ns: u64,
    /// What was told last.
    told_ns: u64,
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
        let began = CpuTime.worked_ns();
        let taken = || Duration::from_nanos(CpuTime.worked_ns() - began);
        std::thread::sleep(2 * takes);
        assert!(taken() < takes);
        while taken() < takes {
            std::hint::spin_loop();
        }
    }

    /// Goal: what is told between two looks at the system's clock is never far ahead of that, and
    /// never goes back. Method: a thread that works and waits in turn, each for less than it is
    /// trusted.
    #[test]
    fn what_is_told_is_not_far_ahead_of_the_system_and_does_not_go_back() {
        let mut before_ns = CpuTime.worked_ns();
        for nth in 0..200 {
            match nth % 2 {
                0 => std::thread::sleep(TRUSTED / 2),
                _ => (0..1_000).for_each(|_| std::hint::spin_loop()),
            }
            let (told_ns, real_ns) = (CpuTime.worked_ns(), thread_time());
            assert!(told_ns >= before_ns);
            let ahead = Duration::from_nanos(told_ns.saturating_sub(real_ns));
            assert!(ahead <= TRUSTED, "{ahead:?}");
            before_ns = told_ns;
        }
    }
}
