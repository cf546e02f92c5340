//! How two sides compare journals.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{JournalId, Life, Lsn};

/// The running hash of what a journal's entries say, up to some LSN. All zeros before the first.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Chain(pub [u8; 32]);

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain({self})")
    }
}

/// The hash of what an entry says, or of what its parts say up to one of them. All zeros before
/// the first.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EntryHash(pub [u8; 32]);

impl EntryHash {
    /// Its first bytes, which tell it from any other that was not sought for it.
    #[must_use]
    pub fn start(&self) -> [u8; 8] {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        [a, b, c, d, e, f, g, h]
    }
}

impl fmt::Debug for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryHash({})", Chain(self.0))
    }
}

/// A place in one particular journal: two sides with equal positions hold the same entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Which journal.
    pub journal: JournalId,
    /// Who wrote the last entry before `next`; [`Life::NONE`] at the start. A life has inherited
    /// one prefix and gives each LSN once, so life and LSN name everything before.
    pub life: Life,
    /// The next LSN: everything before it is held.
    pub next: Lsn,
    /// The chain over everything before `next`.
    pub chain: Chain,
}

impl Position {
    /// The start of an empty journal.
    #[must_use]
    pub fn start_of(journal: JournalId) -> Self {
        Self { journal, life: Life::NONE, next: Lsn::FIRST, chain: Chain::default() }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", &self.journal.to_hex()[..8], self.next, self.chain)
    }
}
