//! How values become bytes and back: bincode 1.3, fixed-width little-endian integers, a limit on
//! every read, and nothing left over.
//!
//! The one module that knows, so that the codec can be changed. Used for messages between client
//! and server, between tab and core, between core and page server, and for the records that owners
//! keep in the store. Headers of frames and pages are not its business: they are laid out by hand.
//!
//! ```
//! use tidelog_sync::codec::{decode, encode};
//! use tidelog_types::Lsn;
//!
//! let bytes = encode(&Some(Lsn::FIRST));
//! assert_eq!(bytes, [1, 1, 0, 0, 0, 0, 0, 0, 0], "that there is one, then eight bytes");
//! assert_eq!(decode::<Option<Lsn>>(&bytes).ok(), Some(Some(Lsn::FIRST)));
//! assert!(decode::<Option<Lsn>>(&[1, 0, 0, 0, 0, 0, 0, 0, 0]).is_err(), "0 is no LSN");
//! ```

mod reader;

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode {size} bytes")]
pub struct DecodeError {
    /// How many bytes there were.
    pub size: usize,
}

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_little_endian()
}

/// The bytes of `value`.
///
/// # Panics
///
/// If `value` has a shape that the codec cannot write, which none of our types has.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    match options().serialize(value) {
        Ok(bytes) => bytes,
        // Not `expect`, whose way to show the error every page would download.
        Err(_) => panic!("BUG: a value that the codec cannot write"),
    }
}

/// The value in `bytes`, all of them. Never allocates more than they can account for.
///
/// # Errors
///
/// [`DecodeError`] if they are cut short, too many, or no such value.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    reader::read(bytes).map_err(|_| DecodeError { size: bytes.len() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    enum Shape {
        Unit,
        Newtype(Option<u64>),
        Tuple(i64, f64, [u8; 4]),
        Struct {
            flag: bool,
            text: String,
            bytes: serde_bytes::ByteBuf,
            map: BTreeMap<u32, Vec<Shape>>,
            pair: ((), u16),
        },
    }

    fn shape() -> Shape {
        let inner = vec![Shape::Unit, Shape::Newtype(None), Shape::Newtype(Some(u64::MAX))];
        Shape::Struct {
            flag: true,
            text: "grün".to_owned(),
            bytes: vec![1, 2, 3].into(),
            map: BTreeMap::from([(7, inner), (9, vec![Shape::Tuple(-5, 0.25, [4, 3, 2, 1])])]),
            pair: ((), 3),
        }
    }

    #[test]
    fn every_shape_is_read_as_it_was_written_and_as_bincode_reads_it() {
        let bytes = encode(&shape());
        assert_eq!(decode::<Shape>(&bytes).ok(), Some(shape()));
        assert_eq!(options().deserialize::<Shape>(&bytes).ok(), Some(shape()));
    }

    #[test]
    fn bytes_that_are_cut_or_changed_are_read_like_bincode_reads_them() {
        let bytes = encode(&shape());
        for cut in 0..bytes.len() {
            assert!(decode::<Shape>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 2, 127, 255] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                let limited = options().with_limit(bytes.len() as u64).reject_trailing_bytes();
                let theirs = limited.deserialize::<Shape>(&bytes).ok().map(|it| encode(&it));
                let ours = decode::<Shape>(&bytes).ok().map(|it| encode(&it));
                assert_eq!(ours, theirs, "{value} at {at}");
            }
        }
    }

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
