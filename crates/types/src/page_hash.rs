//! What a page is known by.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The hash of a page's bytes: BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageHash(pub [u8; 32]);

impl PageHash {
    /// The hash of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Its first bytes: what a store keeps of it, to hold what it reads against.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_le_bytes([a, b, c, d])
    }
}

impl fmt::Debug for PageHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageHash({:08x}..)", self.checksum().swap_bytes())
    }
}
