//! Addresses from which logins failed, and how long they wait.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tidelog_types::limits::{LOGIN_ADDRESSES_MAX, LOGIN_FAILURES_MAX};
use tokio::time::Instant;

use crate::client_address::network;

/// After which time one failure more is forgiven.
pub(super) const FORGIVEN_AFTER: Duration = Duration::from_secs(10);

/// Addresses from which logins failed. No user is locked out by that: another address may log in.
#[derive(Default)]
pub(super) struct Failures {
    /// When all failures of an address will be forgiven.
    forgiven_at: HashMap<IpAddr, Instant>,
}

impl Failures {
    /// How long the address has to wait before it may try again, if it has.
    pub(super) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let forgiven_at = self.forgiven_at.get(&network(address))?;
        let owed = forgiven_at.saturating_duration_since(now) + FORGIVEN_AFTER;
        let wait = owed.saturating_sub(FORGIVEN_AFTER * LOGIN_FAILURES_MAX);
        (!wait.is_zero()).then_some(wait)
    }

    /// Counts a try as failed, until it is [taken back](Self::take_back).
    pub(super) fn note(&mut self, address: IpAddr, now: Instant) {
        let address = network(address);
        if self.forgiven_at.len() >= LOGIN_ADDRESSES_MAX && !self.forgiven_at.contains_key(&address)
        {
            self.make_room(now);
        }
        let forgiven_at = self.forgiven_at.entry(address).or_insert(now);
        *forgiven_at = now.max(*forgiven_at) + FORGIVEN_AFTER;
    }

    /// The try was right.
    pub(super) fn take_back(&mut self, address: IpAddr) {
        if let Some(forgiven_at) = self.forgiven_at.get_mut(&network(address)) {
            *forgiven_at -= FORGIVEN_AFTER;
        }
    }

    /// Forgets what is forgiven, or else the address of which that is so first.
    fn make_room(&mut self, now: Instant) {
        self.forgiven_at.retain(|_, forgiven_at| *forgiven_at > now);
        if self.forgiven_at.len() >= LOGIN_ADDRESSES_MAX {
            let first = self.forgiven_at.iter().min_by_key(|(_, forgiven_at)| **forgiven_at);
            let first = first.map(|(address, _)| *address);
            first.map(|address| self.forgiven_at.remove(&address));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_that_failed_too_often_waits_and_no_other_one_does() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(address);
        for _ in 0..LOGIN_FAILURES_MAX {
            assert_eq!(failures.wait(one, now), None);
            failures.note(one, now);
        }
        assert_eq!(failures.wait(one, now), Some(FORGIVEN_AFTER));
        assert_eq!(failures.wait(other, now), None);
        assert_eq!(failures.wait(address("::ffff:192.0.2.1"), now), Some(FORGIVEN_AFTER));
        let later = now + FORGIVEN_AFTER;
        assert_eq!(failures.wait(one, later), None);
        failures.note(one, later);
        assert_eq!(failures.wait(one, later), Some(FORGIVEN_AFTER));
    }

    #[test]
    fn a_try_that_was_right_does_not_count() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        let one = address("192.0.2.1");
        for _ in 0..10 * LOGIN_FAILURES_MAX {
            failures.note(one, now);
            failures.take_back(one);
        }
        assert_eq!(failures.wait(one, now), None);
    }

    #[test]
    fn addresses_of_one_network_count_as_one() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        for number in 0..LOGIN_FAILURES_MAX {
            failures.note(address(&format!("2001:db8:0:1::{number}")), now);
        }
        assert!(failures.wait(address("2001:db8:0:1:ffff::1"), now).is_some());
        assert_eq!(failures.wait(address("2001:db8:0:2::1"), now), None);
    }

    #[test]
    fn only_so_many_addresses_are_remembered() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        let often = address("192.0.2.1");
        for _ in 0..LOGIN_FAILURES_MAX {
            failures.note(often, now);
        }
        for number in 0..u32::try_from(LOGIN_ADDRESSES_MAX).expect("few") + 10 {
            failures.note(IpAddr::V4((0x0a00_0000 + number).into()), now);
        }
        assert_eq!(failures.forgiven_at.len(), LOGIN_ADDRESSES_MAX);
        assert!(failures.wait(often, now).is_some(), "who failed most is remembered longest");
    }
}
