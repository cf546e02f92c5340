//! Messages as bytes.
//!
//! Every message is one binary WebSocket message:
//!
//! ```text
//! 0        2
//! +--------+---------------------------------+
//! | version| body, as `codec` writes it      |
//! | u16 LE |                                 |
//! +--------+---------------------------------+
//!
//! 0        2        6
//! +--------+--------+------------------------+
//! | version| size   | body, as an LZ4 block  |  bit 15 of the version is set
//! | u16 LE | u32 LE |                        |
//! +--------+--------+------------------------+
//! ```
//!
//! The version comes first so that two sides that do not speak the same one can still say so. A body
//! is compressed where that pays: entries that travel together, what was issued offline, a seed. One
//! that has more than anybody may say at any time never is, so few bytes never become many.

use lz4_flex::block::{compress, decompress};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidelog_types::limits::{MESSAGE_SIZE_MAX, SMALL_MESSAGE_SIZE_MAX};

use crate::codec;

/// The version of the protocol that this code speaks.
pub const PROTOCOL_VERSION: u16 = 1;

/// Set in the version of a message whose body is compressed.
const COMPRESSED: u16 = 1 << 15;

/// A smaller body is not worth it.
const COMPRESSED_SIZE_MIN: usize = 4096;

/// The largest body that is compressed, in bytes before that.
const COMPRESSED_SIZE_MAX: usize = SMALL_MESSAGE_SIZE_MAX as usize;

/// How many times its size an LZ4 block can become, at most.
const EXPANSION_MAX: usize = 255;

/// Why a message was not understood.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Longer than any message may be.
    #[error("message of {size} bytes is over the limit of {MESSAGE_SIZE_MAX} bytes")]
    TooLarge {
        /// The message's size.
        size: usize,
    },
    /// The other side speaks another version.
    #[error("the other side speaks protocol version {theirs}, we speak {PROTOCOL_VERSION}")]
    Version {
        /// The other side's version.
        theirs: u16,
    },
    /// The bytes are no message.
    #[error("not a message")]
    Malformed(#[source] Option<codec::DecodeError>),
}

/// A message as it came.
enum Envelope<'b> {
    Plain(&'b [u8]),
    /// So many bytes, compressed.
    Compressed(usize, &'b [u8]),
}

impl<'b> Envelope<'b> {
    fn open(bytes: &'b [u8]) -> Result<Self, MessageError> {
        if bytes.len() > MESSAGE_SIZE_MAX {
            return Err(MessageError::TooLarge { size: bytes.len() });
        }
        let (version, body) = bytes.split_first_chunk().ok_or(MessageError::Malformed(None))?;
        let version = u16::from_le_bytes(*version);
        let theirs = version & !COMPRESSED;
        if theirs != PROTOCOL_VERSION {
            return Err(MessageError::Version { theirs });
        }
        if version == theirs {
            return Ok(Self::Plain(body));
        }
        let (size, block) = body.split_first_chunk().ok_or(MessageError::Malformed(None))?;
        let size = usize::try_from(u32::from_le_bytes(*size)).unwrap_or(usize::MAX);
        let is_possible = size <= COMPRESSED_SIZE_MAX && size <= block.len() * EXPANSION_MAX;
        is_possible.then_some(Self::Compressed(size, block)).ok_or(MessageError::Malformed(None))
    }
}

/// The bytes of a message.
#[must_use]
pub fn encode_message<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = PROTOCOL_VERSION.to_le_bytes().to_vec();
    bytes.append(&mut codec::encode(message));
    let body = &bytes[2..];
    if (COMPRESSED_SIZE_MIN..=COMPRESSED_SIZE_MAX).contains(&body.len()) {
        let size = u32::try_from(body.len()).expect("BUG: a small message");
        let block = compress(body);
        if block.len() < body.len() / 8 * 7 {
            let version = PROTOCOL_VERSION | COMPRESSED;
            return [&version.to_le_bytes(), &size.to_le_bytes()[..], &block].concat();
        }
    }
    bytes
}

/// How many bytes these of a message are once they are read.
#[must_use]
pub fn message_size(bytes: &[u8]) -> usize {
    match Envelope::open(bytes) {
        Ok(Envelope::Compressed(size, _)) => size.max(bytes.len()),
        Ok(Envelope::Plain(_)) | Err(_) => bytes.len(),
    }
}

/// The message in `bytes`.
///
/// # Errors
///
/// [`MessageError`] if the bytes are no message of this version.
pub fn decode_message<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    let decode =
        |body: &[u8]| codec::decode(body).map_err(|source| MessageError::Malformed(Some(source)));
    match Envelope::open(bytes)? {
        Envelope::Plain(body) => decode(body),
        Envelope::Compressed(size, block) => {
            let body = decompress(block, size).ok().filter(|body| body.len() == size);
            decode(&body.ok_or(MessageError::Malformed(None))?)
        }
    }
}

#[cfg(test)]
mod tests {
    use tidelog_types::limits::{MESSAGE_PAGES_MAX, PAGE_SIZE};
    use tidelog_types::{JournalId, Page, Pgid, Position};

    use super::*;
    use crate::{Channel, CodedPage, FromServer, PageCoding, ToRoom, ToServer};

    fn seed(pages: Vec<CodedPage>) -> ToServer {
        let position = Position::start_of(JournalId([1; 16]));
        let body = ToRoom::Seed { position, db_pages: 64, pages, last: false };
        ToServer::About { channel: Channel(2), body }
    }

    /// Rows as they stand in pages: words that come again, and numbers that do not.
    fn page(number: u32) -> CodedPage {
        let words = (0..).flat_map(|nth: u32| {
            let digits = number.wrapping_mul(2_654_435_761).wrapping_add(nth * 40_503);
            format!("{digits:08x} buy milk and some bread ").into_bytes()
        });
        let bytes: Vec<u8> = words.take(PAGE_SIZE).collect();
        CodedPage::new(Pgid(number), &Page::new(&bytes).expect("a page"), None)
    }

    #[test]
    fn another_version_is_told_apart_from_rubbish() {
        let mut bytes = encode_message(&ToServer::Ping);
        assert_eq!(decode_message::<ToServer>(&bytes).ok(), Some(ToServer::Ping));
        bytes[0] = 9;
        assert!(matches!(
            decode_message::<ToServer>(&bytes),
            Err(MessageError::Version { theirs: 9 })
        ));
        assert!(matches!(decode_message::<ToServer>(&[1]), Err(MessageError::Malformed(_))));
    }

    #[test]
    fn what_travels_together_is_compressed_where_that_pays() {
        let message = seed((1..=64).map(page).collect());
        let plain = codec::encode(&message).len() + 2;
        let bytes = encode_message(&message);
        assert!(bytes.len() < plain / 2, "{} of {plain} bytes", bytes.len());
        assert_eq!(message_size(&bytes), plain - 2);
        assert_eq!(decode_message(&bytes).ok(), Some(message));
        // What is small, or nothing but noise.
        let noise = |number: u32| {
            let words = (0..PAGE_SIZE as u32 / 4).map(|nth| {
                let word = (number * 4096 + nth).wrapping_mul(2_654_435_761);
                (word ^ (word >> 15)).wrapping_mul(2_246_822_519)
            });
            let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
            CodedPage::new(Pgid(number), &Page::new(&bytes).expect("a page"), None)
        };
        for message in [ToServer::Ping, seed((1..=64).map(noise).collect())] {
            let bytes = encode_message(&message);
            assert_eq!(bytes.len(), codec::encode(&message).len() + 2);
            assert_eq!(decode_message(&bytes).ok(), Some(message));
        }
    }

    #[test]
    fn few_bytes_do_not_become_many() {
        let body = codec::encode(&seed((1..=64).map(page).collect()));
        let enveloped = |size: usize, block: &[u8]| {
            let size = u32::try_from(size).expect("small");
            [&(PROTOCOL_VERSION | COMPRESSED).to_le_bytes(), &size.to_le_bytes()[..], block]
                .concat()
        };
        let block = compress(&body);
        let is_read = |bytes: &[u8]| decode_message::<ToServer>(bytes).is_ok();
        assert!(is_read(&enveloped(body.len(), &block)));
        assert!(!is_read(&enveloped(body.len() - 1, &block)), "it says less than there is");
        assert!(!is_read(&enveloped(body.len() + 1, &block)), "and more");
        assert!(!is_read(&enveloped(body.len(), &block[..block.len() - 1])));
        let large = codec::encode(&seed(vec![page(1); MESSAGE_PAGES_MAX]));
        let block = compress(&large);
        assert!(!is_read(&enveloped(large.len(), &block)), "more than anybody may say at any time");
        let size_max = COMPRESSED_SIZE_MAX;
        assert!(!is_read(&enveloped(size_max, &[0; 9])), "no block becomes so much");
        assert_eq!(message_size(&enveloped(size_max, &[0; 9])), 15);
        // A large one goes plain.
        let pages = vec![page(1); COMPRESSED_SIZE_MAX / PAGE_SIZE + 1];
        let bytes = encode_message(&seed(pages));
        assert!(bytes.len() > COMPRESSED_SIZE_MAX);
        assert!(is_read(&bytes));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(0_u8.., 0..200)) {
            let mut message = PROTOCOL_VERSION.to_le_bytes().to_vec();
            message.extend_from_slice(&bytes);
            if let Ok(decoded) = decode_message::<FromServer>(&message) {
                assert_eq!(encode_message(&decoded), message);
            }
            message[1] |= 0x80;
            if let Ok(decoded) = decode_message::<FromServer>(&message) {
                let plain = encode_message(&decoded);
                assert_eq!(decode_message::<FromServer>(&plain).ok(), Some(decoded));
            }
            let _ = PageCoding::Zeros(bytes);
        }
    }
}
