//! Randomness that comes from one seed.

use tidelog_types::{ClientId, CopySecret, JournalId, Life};

/// A stream of bytes that is a function of its seed: BLAKE3 in counter mode.
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    seed: [u8; 32],
    drawn: u64,
}

impl Rng {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { seed, drawn: 0 }
    }

    fn draw(&mut self) -> [u8; 16] {
        self.drawn += 1;
        let hash = blake3::keyed_hash(&self.seed, &self.drawn.to_le_bytes());
        *hash.as_bytes().first_chunk().expect("BUG: a hash has 32 bytes")
    }

    pub(crate) fn journal(&mut self) -> JournalId {
        JournalId(self.draw())
    }

    pub(crate) fn life(&mut self) -> Life {
        Life(self.draw())
    }

    pub(crate) fn client(&mut self) -> ClientId {
        ClientId(self.draw())
    }

    pub(crate) fn secret(&mut self) -> CopySecret {
        CopySecret(self.draw())
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let drawn = *self.draw().first_chunk().expect("BUG: 16 bytes hold 8");
        u64::from_le_bytes(drawn) % bound.max(1)
    }
}
