//! Networks from which somebody has logged in lately: who guesses from elsewhere does not take
//! their places.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tidelog_types::limits::LOGIN_NETWORKS_MAX;
use tokio::time::Instant;

use crate::client_address::network;

/// For how long a network is known.
const KNOWN_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// When somebody has logged in last, by network.
#[derive(Default)]
pub(super) struct Known(HashMap<IpAddr, Instant>);

impl Known {
    /// Whether the address is of a known network, or of this machine.
    pub(super) fn has(&self, address: IpAddr, now: Instant) -> bool {
        let at = || self.0.get(&network(address));
        address.to_canonical().is_loopback() || at().is_some_and(|at| now < *at + KNOWN_FOR)
    }

    /// Somebody has logged in from there.
    pub(super) fn note(&mut self, address: IpAddr, now: Instant) {
        let address = network(address);
        if self.0.len() >= LOGIN_NETWORKS_MAX && !self.0.contains_key(&address) {
            let oldest = self.0.iter().min_by_key(|(_, at)| **at).map(|(address, _)| *address);
            oldest.map(|address| self.0.remove(&address));
        }
        self.0.insert(address, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_networks_are_known_for_some_days() {
        let (mut known, now) = (Known::default(), Instant::now());
        let address = |number: usize| IpAddr::V4((0x0a00_0000 + number as u32).into());
        for number in 0..=LOGIN_NETWORKS_MAX {
            known.note(address(number), now + Duration::from_millis(number as u64));
        }
        assert_eq!(known.0.len(), LOGIN_NETWORKS_MAX);
        assert!(!known.has(address(0), now) && known.has(address(1), now), "the oldest goes");
        assert!(!known.has(address(1), now + 2 * KNOWN_FOR));
        known.note("2001:db8::1".parse().expect("an address"), now);
        assert!(known.has("2001:db8::2".parse().expect("an address"), now), "of one network");
        assert!(known.has("::ffff:127.0.0.1".parse().expect("an address"), now));
    }
}
