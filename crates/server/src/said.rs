//! How much a connection says, whatever that is: who says more than it may is read slower.

use std::time::Duration;

use tidelog_types::limits::{
    CONNECTION_MESSAGES_AHEAD_MAX, CONNECTION_MESSAGES_PER_S_MAX, CONNECTION_OVERHEAD_SIZE,
    CONNECTION_RENEWAL_MS, CONNECTION_RENEWALS_AHEAD_MAX,
};
use tokio::time::Instant;

use crate::allowance::Allowance;
use crate::gate::Gate;

pub(crate) struct Said {
    pub(crate) messages: Allowance,
    /// How often its token may be renewed: to verify one takes more than any message does.
    pub(crate) renewals: Allowance,
    gate: Gate,
    /// Bytes of its messages so far.
    heard_size: u64,
    /// Bytes around them that were counted.
    overhead_size: u64,
}

impl Said {
    pub(crate) fn new(gate: Gate) -> Self {
        let now = Instant::now();
        let each = Duration::from_secs(1) / CONNECTION_MESSAGES_PER_S_MAX;
        let messages = Allowance::new(each, CONNECTION_MESSAGES_AHEAD_MAX, now);
        let each = Duration::from_millis(CONNECTION_RENEWAL_MS);
        let renewals = Allowance::new(each, CONNECTION_RENEWALS_AHEAD_MAX, now);
        Self { messages, renewals, gate, heard_size: 0, overhead_size: 0 }
    }

    /// A message has come. It may have come in many frames, of which each is work.
    pub(crate) fn message(&mut self, size: usize) {
        self.heard_size += size as u64;
        // Some of what was read may be of the next one.
        let overhead_size = self.gate.read_size().saturating_sub(self.heard_size);
        let more = overhead_size.saturating_sub(self.overhead_size) / CONNECTION_OVERHEAD_SIZE;
        self.overhead_size += more * CONNECTION_OVERHEAD_SIZE;
        self.messages.take(1 + more, Instant::now());
    }

    /// A frame has come that belongs to no message, perhaps amid one.
    pub(crate) fn other(&mut self) {
        self.messages.take(1, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::gate::Gated;

    const HEAD: usize = 6;

    /// Has heard messages of so many bytes, each in so many frames, with as much of the next one.
    async fn heard(count: usize, size: usize, frames_count: usize) -> Said {
        let ahead = 2 * 1024;
        let sent = vec![0; count * (size + frames_count * HEAD) + ahead];
        let (mut transport, gate) = Gated::new(&*sent, u64::MAX);
        let mut said = Said::new(gate);
        let mut bytes = vec![0; size + frames_count * HEAD];
        transport.read_exact(&mut vec![0; ahead]).await.expect("so many");
        for _ in 0..count {
            transport.read_exact(&mut bytes).await.expect("so many");
            said.message(size);
        }
        said
    }

    fn waits(said: &Said) -> Duration {
        let now = Instant::now();
        said.messages.opens_at(now) - now
    }

    /// Goal: who says much in few messages is not taken for one who says many.
    #[tokio::test(start_paused = true)]
    async fn a_message_counts_once_however_large_it_is() {
        for size in [1, 256 * 1024] {
            let count = 100;
            let said = heard(count, size, 1).await;
            let spare = CONNECTION_MESSAGES_AHEAD_MAX as usize - 2 * count;
            let mut said = said;
            (0..spare - 2 * 1024 / CONNECTION_OVERHEAD_SIZE as usize).for_each(|_| said.other());
            assert_eq!(waits(&said), Duration::ZERO, "{size}");
        }
    }

    /// Goal: a message in many small frames is as much work as many messages.
    #[tokio::test(start_paused = true)]
    async fn a_message_in_many_frames_counts_for_many() {
        let frames_count = (CONNECTION_MESSAGES_AHEAD_MAX + 2 * CONNECTION_MESSAGES_PER_S_MAX)
            as usize
            * CONNECTION_OVERHEAD_SIZE as usize
            / HEAD;
        let said = heard(1, frames_count, frames_count).await;
        assert!(waits(&said) >= Duration::from_secs(2), "{:?}", waits(&said));
    }
}
