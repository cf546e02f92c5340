//! How quickly somebody may go on with something: so many at once, and then one after each while.
//! Who goes faster waits, and is owed nothing for that.

use std::time::Duration;

use tokio::time::Instant;

/// For how long anybody waits at most, whatever was taken.
const WAIT_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Allowance {
    /// What one takes.
    each: Duration,
    /// What all take that may come at once.
    ahead: Duration,
    /// Until when everything would have been taken, had nothing come at once.
    taken_until: Instant,
}

impl Allowance {
    /// One after each `each`, and `ahead` of them at once.
    pub(crate) fn new(each: Duration, ahead: u32, now: Instant) -> Self {
        Self { each, ahead: each * ahead, taken_until: now }
    }

    /// Takes so many, which have come by now: also more than may.
    pub(crate) fn take(&mut self, count: u64, now: Instant) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let takes = self.each.saturating_mul(count).min(self.ahead + WAIT_MAX);
        let latest = now + self.ahead + WAIT_MAX;
        self.taken_until = (self.taken_until.max(now) + takes).min(latest);
    }

    /// When the next one may come.
    pub(crate) fn opens_at(&self, now: Instant) -> Instant {
        let left = self.taken_until.saturating_duration_since(now);
        now + left.saturating_sub(self.ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EACH: Duration = Duration::from_millis(10);

    /// For how long the next one would wait.
    fn waits(allowance: &Allowance, now: Instant) -> Duration {
        allowance.opens_at(now) - now
    }

    #[test]
    fn some_come_at_once_and_then_one_after_each_while() {
        let began = Instant::now();
        let mut allowance = Allowance::new(EACH, 3, began);
        for nth in 0..3 {
            assert_eq!(waits(&allowance, began), Duration::ZERO, "{nth}");
            allowance.take(1, began);
        }
        assert_eq!(waits(&allowance, began), Duration::ZERO, "all of them may come");
        allowance.take(1, began);
        assert_eq!(waits(&allowance, began), EACH);
        let later = began + EACH;
        assert_eq!(waits(&allowance, later), Duration::ZERO);
        allowance.take(2, later);
        assert_eq!(waits(&allowance, later), 2 * EACH);
    }

    #[test]
    fn who_was_silent_may_say_no_more_at_once_than_before() {
        let began = Instant::now();
        let mut allowance = Allowance::new(EACH, 3, began);
        allowance.take(2, began);
        let later = began + 1000 * EACH;
        allowance.take(3, later);
        assert_eq!(waits(&allowance, later), Duration::ZERO);
        allowance.take(1, later);
        assert_eq!(waits(&allowance, later), EACH);
    }

    #[test]
    fn nobody_waits_for_ever_whatever_was_taken() {
        let began = Instant::now();
        let mut allowance = Allowance::new(EACH, 3, began);
        for _ in 0..3 {
            allowance.take(u64::MAX, began);
            assert_eq!(waits(&allowance, began), WAIT_MAX);
        }
        assert_eq!(waits(&allowance, began + WAIT_MAX), Duration::ZERO);
    }
}
