//! What tells keys apart.

use std::fmt;

use crate::Algorithm;

/// What tells a key from all others, whatever id it has. Of a secret it gives nothing away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyPrint([u8; 32]);

impl KeyPrint {
    pub(crate) fn of(algorithm: Algorithm, key: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("tidelog 2026 print of a token's key");
        hasher.update(algorithm.name().as_bytes()).update(&[0]).update(key);
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for KeyPrint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPrint")
    }
}
