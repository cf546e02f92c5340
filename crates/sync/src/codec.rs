//! How values become bytes and back: bincode 1.3, fixed-width little-endian integers, a limit on
//! every read, and nothing left over.
//!
//! The one module that knows, so that the codec can be changed. Used for messages between client
//! and server, between tab and core, between core and page server, and for the records that owners
//! keep in the store. Headers of frames and pages are not its business: they are laid out by hand.

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode {size} bytes")]
pub struct DecodeError {
    /// How many bytes there were.
    pub size: usize,
    #[source]
    source: bincode::Error,
}

fn options(limit: u64) -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .with_limit(limit)
        .reject_trailing_bytes()
}

/// The bytes of `value`.
///
/// # Panics
///
/// If `value` has a shape that the codec cannot write, which none of our types has.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    options(u64::MAX).serialize(value).expect("BUG: a value that the codec cannot write")
}

/// The value in `bytes`, all of them. Never allocates more than they can account for.
///
/// # Errors
///
/// [`DecodeError`] if they are cut short, too many, or no such value.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    options(bytes.len() as u64)
        .deserialize(bytes)
        .map_err(|source| DecodeError { size: bytes.len(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7_u32);
        assert_eq!(decode::<u32>(&bytes).ok(), Some(7));
        bytes.push(0);
        assert!(decode::<u32>(&bytes).is_err());
    }

    #[test]
    fn a_length_beyond_the_bytes_is_refused_without_allocating() {
        let bytes = (1_u64 << 40).to_le_bytes();
        assert!(decode::<Vec<u8>>(&bytes).is_err());
        assert!(decode::<String>(&bytes).is_err());
    }
}
