//! How values become bytes and back: bincode 1.3, little-endian, a limit on every read, and nothing
//! left over.
//!
//! The one module that knows, so that the codec can be changed. Headers of frames and pages are not
//! its business: they are laid out by hand. What is kept or sent over a network has numbers and
//! lengths of as few bytes as they need: messages between client and server, the bodies of frames,
//! and the records that owners keep in the store. What stays within a browser is for [`port`].
//!
//! ```
//! use tidelog_sync::codec::{decode, encode, port};
//! use tidelog_types::Lsn;
//!
//! let bytes = encode(&Some(Lsn::FIRST));
//! assert_eq!(bytes, [1, 1], "that there is one, then its number");
//! assert_eq!(decode::<Option<Lsn>>(&bytes).ok(), Some(Some(Lsn::FIRST)));
//! assert!(decode::<Option<Lsn>>(&[1, 0]).is_err(), "0 is no LSN");
//! assert_eq!(port::encode(&Some(Lsn::FIRST)), [1, 1, 0, 0, 0, 0, 0, 0, 0]);
//! ```

mod reader;

use bincode::Options;
use reader::Width;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode {size} bytes")]
pub struct DecodeError {
    /// How many bytes there were.
    pub size: usize,
}

/// Of numbers and lengths of as few bytes as they need.
fn least() -> impl Options {
    bincode::DefaultOptions::new().with_varint_encoding().with_little_endian()
}

fn written(bytes: bincode::Result<Vec<u8>>) -> Vec<u8> {
    match bytes {
        Ok(bytes) => bytes,
        // Not `expect`, whose way to show the error every page would download.
        Err(_) => panic!("BUG: a value that the codec cannot write"),
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8], width: Width, room: usize) -> Result<T, DecodeError> {
    reader::read(bytes, width, room).map_err(|_| DecodeError { size: bytes.len() })
}

/// The bytes of `value`. One that is equal has the same, and no other bytes are read as it.
///
/// # Panics
///
/// If `value` has a shape that the codec cannot write, which none of our types has.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    written(least().serialize(value))
}

/// The value in `bytes`, all of them. Never allocates more than they can account for.
///
/// # Errors
///
/// [`DecodeError`] if they are cut short, too many, or no such value.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    read(bytes, Width::Least, usize::MAX)
}

/// The value in `bytes` that anybody may have made. An item of a list can be a byte of them, and be
/// many in memory: those of all lists take at most four times as much as `bytes`, and 1 MiB.
///
/// # Errors
///
/// As [`decode`], or if they would take more.
pub fn decode_untrusted<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    read(bytes, Width::Least, bytes.len().saturating_mul(4).saturating_add(1 << 20))
}

/// Between tab, core and page server: numbers and lengths as wide as their types, which take a page
/// less code to read and write.
pub mod port {
    use bincode::Options;
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::reader::Width;
    use super::{DecodeError, read, written};

    pub(super) fn fixed() -> impl Options {
        bincode::DefaultOptions::new().with_fixint_encoding().with_little_endian()
    }

    /// The bytes of `value`.
    ///
    /// # Panics
    ///
    /// If `value` has a shape that the codec cannot write, which none of our types has.
    #[must_use]
    pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
        written(fixed().serialize(value))
    }

    /// The value in `bytes`, all of them. Never allocates more than they can account for.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if they are cut short, too many, or no such value.
    pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
        read(bytes, Width::Fixed, usize::MAX)
    }
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
        assert_eq!(least().deserialize::<Shape>(&bytes).ok(), Some(shape()));
        let bytes = port::encode(&shape());
        assert_eq!(port::decode::<Shape>(&bytes).ok(), Some(shape()));
        assert_eq!(port::fixed().deserialize::<Shape>(&bytes).ok(), Some(shape()));
    }

    #[test]
    fn numbers_take_as_few_bytes_as_they_need() {
        let unsigned = [
            (0, 1),
            (250, 1),
            (251, 3),
            (u64::from(u16::MAX), 3),
            (1 << 16, 5),
            (u64::from(u32::MAX), 5),
            (1 << 32, 9),
            (u64::MAX, 9),
        ];
        for (number, size) in unsigned {
            let bytes = encode(&number);
            assert_eq!((bytes.len(), decode::<u64>(&bytes).ok()), (size, Some(number)));
            assert_eq!(decode::<u32>(&bytes).ok(), u32::try_from(number).ok(), "{number}");
            assert_eq!(decode::<u16>(&bytes).ok(), u16::try_from(number).ok(), "{number}");
        }
        let signed = [
            (0, 1),
            (-125, 1),
            (125, 1),
            (126, 3),
            (-126, 3),
            (i64::from(i16::MIN), 3),
            (i64::from(i16::MAX), 3),
            (i64::from(i32::MIN), 5),
            (i64::from(i32::MAX), 5),
            (i64::MIN, 9),
            (i64::MAX, 9),
        ];
        for (number, size) in signed {
            let bytes = encode(&number);
            assert_eq!((bytes.len(), decode::<i64>(&bytes).ok()), (size, Some(number)));
            assert_eq!(decode::<i32>(&bytes).ok(), i32::try_from(number).ok(), "{number}");
            let bytes = port::encode(&number);
            assert_eq!((bytes.len(), port::decode::<i64>(&bytes).ok()), (8, Some(number)));
        }
        let of_a_port = port::encode(&(i16::MIN, i32::MIN, u16::MAX));
        assert_eq!(port::decode(&of_a_port).ok(), Some((i16::MIN, i32::MIN, u16::MAX)));
    }

    #[test]
    fn a_number_in_more_bytes_than_it_needs_is_refused() {
        for long in [
            &[251, 250, 0][..],
            &[252, 255, 255, 0, 0],
            &[253, 255, 255, 255, 255, 0, 0, 0, 0],
            // A wider number than there is, and no number.
            &[254; 17],
            &[255; 17],
        ] {
            assert!(decode::<u64>(long).is_err(), "{long:?}");
        }
    }

    #[test]
    fn bytes_that_are_cut_or_changed_are_read_like_bincode_reads_them() {
        let bytes = port::encode(&shape());
        for cut in 0..bytes.len() {
            assert!(port::decode::<Shape>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for bytes in changed(&bytes) {
            let limited = port::fixed().with_limit(bytes.len() as u64).reject_trailing_bytes();
            let theirs = limited.deserialize::<Shape>(&bytes).ok().map(|it| encode(&it));
            let ours = port::decode::<Shape>(&bytes).ok().map(|it| encode(&it));
            assert_eq!(ours, theirs, "{bytes:?}");
        }
        let bytes = encode(&shape());
        for cut in 0..bytes.len() {
            assert!(decode::<Shape>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for bytes in changed(&bytes) {
            let limited = least().with_limit(bytes.len() as u64).reject_trailing_bytes();
            let theirs = limited.deserialize::<Shape>(&bytes).ok().map(|it| encode(&it));
            let ours = decode::<Shape>(&bytes).ok().map(|it| encode(&it));
            if ours != theirs {
                // It takes a number in more bytes than it needs.
                assert_eq!(ours, None, "{bytes:?}");
                assert_ne!(theirs, Some(bytes));
            }
        }
    }

    /// With another byte each.
    fn changed(bytes: &[u8]) -> Vec<Vec<u8>> {
        let each = (0..bytes.len()).flat_map(|at| {
            [0, 1, 2, 127, 251, 252, 253, 255].map(|value| {
                let mut bytes = bytes.to_vec();
                bytes[at] = value;
                bytes
            })
        });
        each.collect()
    }

    #[test]
    fn what_anybody_made_takes_little_more_memory_than_it_has_bytes() {
        let item = size_of::<String>();
        let texts = |count: usize, size: usize| vec!["x".repeat(size); count];
        let most = (1 << 20) / (item - 4);
        for (texts, is_read) in [
            (texts(most, 0), true),
            (texts(most + 2, 0), false),
            (texts(2 * most, 0), false),
            (texts(2 * most, item / 4), true),
        ] {
            let bytes = encode(&texts);
            assert_eq!(decode_untrusted::<Vec<String>>(&bytes).is_ok(), is_read, "{}", texts.len());
            assert_eq!(decode::<Vec<String>>(&bytes).ok(), Some(texts));
        }
        let of_all = encode(&(texts(most / 2, 0), BTreeMap::from([(1, texts(most, 0))])));
        type Both = (Vec<String>, BTreeMap<u8, Vec<String>>);
        assert!(decode_untrusted::<Both>(&of_all).is_err(), "all lists together");
        assert!(decode::<Both>(&of_all).is_ok());
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
        let bytes = encode(&(1_u64 << 40));
        assert!(decode::<Vec<u8>>(&bytes).is_err());
        assert!(decode::<String>(&bytes).is_err());
        let bytes = port::encode(&(1_u64 << 40));
        assert!(port::decode::<Vec<u8>>(&bytes).is_err());
        assert!(port::decode::<String>(&bytes).is_err());
    }
}
