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
//! 0        2        6        8
//! +--------+--------+--------+---------------+------------------------+
//! | version| size   | length | LZ4 block of  | length and LZ4 block   |
//! | u16 LE | u32 LE | u16 LE | 60 KiB of it  | of the next 60 KiB ... |
//! +--------+--------+--------+---------------+------------------------+
//! ```
//!
//! The version comes first so that two sides that do not speak the same one can still say so; its
//! bit 15 says that the body is compressed. It is where that pays: entries that travel together,
//! what was issued offline, a seed. A body that is larger than what anybody may say at any time
//! never is, so that few bytes become no more than that.

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

/// What becomes a block by itself. Where more does, the compressor takes other ways on machines of
/// 32 bits, and the same message would have other bytes there.
const PIECE_SIZE: usize = 60 * 1024;

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
        let (size, blocks) = body.split_first_chunk().ok_or(MessageError::Malformed(None))?;
        let size = usize::try_from(u32::from_le_bytes(*size)).unwrap_or(usize::MAX);
        let is_possible = size <= COMPRESSED_SIZE_MAX && size / EXPANSION_MAX <= blocks.len();
        is_possible.then_some(Self::Compressed(size, blocks)).ok_or(MessageError::Malformed(None))
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
        let mut compressed = (PROTOCOL_VERSION | COMPRESSED).to_le_bytes().to_vec();
        compressed.extend_from_slice(&size.to_le_bytes());
        for piece in body.chunks(PIECE_SIZE) {
            let block = compress(piece);
            let length = u16::try_from(block.len()).expect("BUG: a block that is larger by far");
            compressed.extend_from_slice(&length.to_le_bytes());
            compressed.extend_from_slice(&block);
        }
        if compressed.len() < bytes.len() / 8 * 7 {
            return compressed;
        }
    }
    bytes
}

/// The `size` bytes that are compressed in these blocks.
fn decompressed(size: usize, mut blocks: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::with_capacity(size);
    while body.len() < size {
        let (length, rest) = blocks.split_first_chunk()?;
        let (block, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        let piece_size = PIECE_SIZE.min(size - body.len());
        let piece = decompress(block, piece_size).ok()?;
        if piece.len() != piece_size {
            return None;
        }
        body.extend_from_slice(&piece);
        blocks = rest;
    }
    blocks.is_empty().then_some(body)
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
        Envelope::Compressed(size, blocks) => {
            decode(&decompressed(size, blocks).ok_or(MessageError::Malformed(None))?)
        }
    }
}

#[cfg(test)]
mod tests {
    use tidelog_types::limits::{MESSAGE_PAGES_MAX, PAGE_SIZE};
    use tidelog_types::{JournalId, Page, Pgid, Position};

    use super::*;
    use crate::{Channel, CodedPage, FromRoom, FromServer, Refusal, ToRoom, ToServer};

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

    /// A message that says that it becomes so much, of these blocks.
    fn enveloped(size: usize, blocks: &[&[u8]]) -> Vec<u8> {
        let size = u32::try_from(size).expect("small");
        let mut bytes = (PROTOCOL_VERSION | COMPRESSED).to_le_bytes().to_vec();
        bytes.extend_from_slice(&size.to_le_bytes());
        for block in blocks {
            bytes.extend_from_slice(&u16::try_from(block.len()).expect("small").to_le_bytes());
            bytes.extend_from_slice(block);
        }
        bytes
    }

    /// A block made by hand: literals, a match over what it writes itself, and the last literals.
    #[test]
    fn a_compressed_message_is_read_as_the_paper_says() {
        let reason = "x".repeat(100);
        let body = FromRoom::Refused(Refusal::DoctypeMismatch { reason });
        let message = FromServer::About { channel: Channel(1), body };
        let body = codec::encode(&message);
        let block = [&[0x6f][..], &body[..6], &[1, 0, 75, 0x50], &body[100..]].concat();
        let bytes = enveloped(105, &[&block]);
        assert_eq!((bytes.len(), bytes[..8].to_vec()), (24, vec![1, 0x80, 105, 0, 0, 0, 16, 0]));
        assert_eq!(decode_message(&bytes).ok(), Some(message));
        assert_eq!(message_size(&bytes), 105);
    }

    #[test]
    fn blocks_have_to_become_what_is_said() {
        let body = codec::encode(&seed((1..=30).map(page).collect()));
        let blocks: Vec<Vec<u8>> = body.chunks(PIECE_SIZE).map(compress).collect();
        let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
        let [first, second, last] = blocks[..] else { panic!("{} pieces", blocks.len()) };
        let is_read = |bytes: &[u8]| decode_message::<ToServer>(bytes).is_ok();
        assert!(is_read(&enveloped(body.len(), &blocks)));
        assert!(!is_read(&enveloped(body.len() - 1, &blocks)), "it says less than there is");
        assert!(!is_read(&enveloped(body.len() + 1, &blocks)), "and more");
        assert!(!is_read(&enveloped(body.len(), &[first, second])));
        assert!(!is_read(&enveloped(body.len(), &[first, second, &last[..last.len() - 1]])));
        assert!(!is_read(&enveloped(body.len(), &[first, second, last, &[0]])), "left over");
        assert!(!is_read(&enveloped(body.len(), &[second, first, last])));
        let pieces: Vec<Vec<u8>> = body.chunks(PIECE_SIZE / 2).map(compress).collect();
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        assert!(!is_read(&enveloped(body.len(), &pieces)), "pieces of another size");
        let mut cut = enveloped(body.len(), &blocks);
        cut.truncate(7);
        assert!(!is_read(&cut));
        // A match that is said to be longer than any number.
        let endless = [&[0x1f, 7, 1, 0][..], &vec![255; 60_000]].concat();
        assert!(!is_read(&enveloped(body.len(), &[&endless, second, last])));
    }

    #[test]
    fn few_bytes_become_no_more_than_anybody_may_say() {
        let is_read = |bytes: &[u8]| decode_message::<ToServer>(bytes).is_ok();
        let large = codec::encode(&seed(vec![page(1); MESSAGE_PAGES_MAX]));
        let blocks: Vec<Vec<u8>> = large.chunks(PIECE_SIZE).map(compress).collect();
        let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
        assert!(!is_read(&enveloped(large.len(), &blocks)));
        let of_nothing = enveloped(COMPRESSED_SIZE_MAX, &[&[0; 9]]);
        assert!(!is_read(&of_nothing), "no block becomes so much");
        assert_eq!(message_size(&of_nothing), of_nothing.len());
        // It goes plain.
        let bytes = encode_message(&seed(vec![page(1); COMPRESSED_SIZE_MAX / PAGE_SIZE + 1]));
        assert!(bytes.len() > COMPRESSED_SIZE_MAX && is_read(&bytes));
    }

    /// Goal: the same message has the same bytes on every machine. Method: those that one of 64
    /// bits has given.
    #[test]
    fn a_compressed_message_is_the_same_on_every_machine() {
        let bytes = encode_message(&seed((1..=64).map(page).collect()));
        let sum = bytes.iter().fold(0_u32, |sum, byte| {
            sum.rotate_left(5).wrapping_mul(0x9e37_79b1) ^ u32::from(*byte)
        });
        assert_eq!((bytes.len(), sum), (75_801, 2_021_264_615));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(0_u8.., 0..200)) {
            let mut message = PROTOCOL_VERSION.to_le_bytes().to_vec();
            message.extend_from_slice(&bytes);
            if let Ok(decoded) = decode_message::<FromServer>(&message) {
                assert_eq!(encode_message(&decoded), message);
            }
        }

        #[test]
        fn no_block_makes_the_decoder_panic(
            block in proptest::collection::vec(0_u8.., 0..200),
            size in 0_usize..1000,
        ) {
            if let Ok(decoded) = decode_message::<FromServer>(&enveloped(size, &[&block])) {
                let plain = encode_message(&decoded);
                assert_eq!(decode_message::<FromServer>(&plain).ok(), Some(decoded));
            }
        }
    }
}
