//! A frame as bytes. `FORMAT.md` draws it.

use std::fmt;

use tidelog_types::limits::FRAME_BODY_SIZE_MAX;
use tidelog_types::{CallId, Chain, Epoch, JournalId, LsnRange};

use crate::header::{FRAME_ALIGNMENT, Salt, is_place};

/// Bytes of a frame before its body, if it has neither a call nor a chain.
pub const FRAME_HEADER_SIZE: usize = 98;
/// Bytes of a frame before its body, at most.
pub const FRAME_HEADER_SIZE_MAX: usize = FRAME_HEADER_SIZE + CALL_SIZE + CHAIN_SIZE;

const CALL_SIZE: usize = 16;
const CHAIN_SIZE: usize = 32;

const FLAG_CALL: u8 = 1;
const FLAG_CHAIN: u8 = 2;

/// A frame's index in its batch, and how many frames that has.
pub type BatchPart = (u32, u32);

/// A document's number in its store, counted from 1. No other document of the store ever has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentNumber(pub u64);

impl DocumentNumber {
    /// What a frame has that is about no document.
    pub const NONE: Self = Self(0);

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for DocumentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a frame says beside its body. Fields that its kind has no use for are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// What the body is; the log does not care.
    pub kind: u8,
    /// Which document it is about.
    pub document: DocumentNumber,
    /// Which frame of that document it is in its log file, counted from 1; 0 if it is nobody's.
    pub nth: u64,
    /// The epoch under which it was written.
    pub epoch: Epoch,
    /// Which journal.
    pub journal: JournalId,
    /// The places in the journal that it stands for.
    pub lsns: Option<LsnRange>,
    /// The call that issued it.
    pub call: Option<CallId>,
    /// The journal's chain after it.
    pub chain: Chain,
}

/// Bytes of a header with these flags.
fn size_of(flags: u8) -> usize {
    let size_if = |flag, size| if flags & flag == 0 { 0 } else { size };
    FRAME_HEADER_SIZE + size_if(FLAG_CALL, CALL_SIZE) + size_if(FLAG_CHAIN, CHAIN_SIZE)
}

/// Bytes of the header that begins so, whole or not.
pub(crate) fn header_size(header: &[u8; FRAME_HEADER_SIZE]) -> usize {
    size_of(header[13])
}

impl FrameHead {
    /// A head that says no more than this.
    #[must_use]
    pub fn new(kind: u8, document: DocumentNumber, epoch: Epoch) -> Self {
        let journal = JournalId([0; 16]);
        let chain = Chain::default();
        Self { kind, document, nth: 0, epoch, journal, lsns: None, call: None, chain }
    }

    fn flags(&self) -> u8 {
        let flag_if = |is_there, flag| if is_there { flag } else { 0 };
        let has_chain = self.chain != Chain::default();
        flag_if(self.call.is_some(), FLAG_CALL) | flag_if(has_chain, FLAG_CHAIN)
    }

    /// Bytes of a frame that says this before its body.
    #[must_use]
    pub fn header_size(&self) -> usize {
        size_of(self.flags())
    }
}

/// What ties a frame to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ties {
    pub durable: u64,
    pub link: u32,
    pub attempt: u32,
    pub index: u32,
    pub count: u32,
}

/// A frame's header, decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub head: FrameHead,
    pub ties: Ties,
    pub checksum: u32,
    pub body_size: usize,
    body_checksum: u32,
}

impl Frame {
    /// Bytes before the body.
    pub fn header_size(&self) -> usize {
        self.head.header_size()
    }

    /// Bytes of the frame, padding included.
    pub fn size(&self) -> usize {
        padded(self.header_size() + self.body_size)
    }

    /// Whether it is none of a batch, but says at the end of a log how much is durable.
    pub fn is_durable_mark(&self) -> bool {
        self.ties.count == 0
    }

    /// Whether its bytes behind the header, padding included, are the ones that were written.
    pub fn has_body(&self, frame: &[u8]) -> bool {
        crc32c::crc32c(&frame[self.header_size()..]) == self.body_checksum
    }
}

fn padded(size: usize) -> usize {
    size.next_multiple_of(FRAME_ALIGNMENT)
}

/// Bytes of a frame with this body, padding included, at most.
#[must_use]
pub fn frame_size_max(body_size: usize) -> usize {
    padded(FRAME_HEADER_SIZE_MAX + body_size)
}

/// Appends a frame to `out` whose ties and checksum are still to be [`finish`]ed.
pub(crate) fn encode(head: &FrameHead, body: &[&[u8]], out: &mut Vec<u8>) {
    let body_size: usize = body.iter().map(|part| part.len()).sum();
    assert!(body_size <= FRAME_BODY_SIZE_MAX, "BUG: a body of {body_size} bytes");
    let start = out.len();
    out.reserve(frame_size_max(body_size));
    out.resize(start + FRAME_HEADER_SIZE, 0);
    let header = &mut out[start..];
    let size = u32::try_from(body_size).expect("BUG: a body is far below 4 GiB");
    header[8..12].copy_from_slice(&size.to_le_bytes());
    header[12] = head.kind;
    header[13] = head.flags();
    header[42..50].copy_from_slice(&head.document.0.to_le_bytes());
    header[50..58].copy_from_slice(&head.nth.to_le_bytes());
    header[58..66].copy_from_slice(&head.epoch.0.to_le_bytes());
    header[66..82].copy_from_slice(&head.journal.0);
    if let Some(lsns) = head.lsns {
        let is_read = LsnRange::checked(lsns.start().get(), lsns.end().get()).is_some();
        assert!(is_read, "BUG: {lsns} is a range that no reader believes");
        header[82..90].copy_from_slice(&lsns.start().get().to_le_bytes());
        header[90..98].copy_from_slice(&lsns.end().get().to_le_bytes());
    }
    if let Some(call) = head.call {
        out.extend_from_slice(&call.0);
    }
    if head.flags() & FLAG_CHAIN != 0 {
        out.extend_from_slice(&head.chain.0);
    }
    for part in body {
        out.extend_from_slice(part);
    }
    out.resize(start + padded(out.len() - start), 0);
}

/// Writes the ties into an encoded frame that will stand at `offset`, and gives its checksum.
pub(crate) fn finish(frame: &mut [u8], salt: Salt, offset: u64, ties: &Ties) -> u32 {
    let header_size = size_of(frame[13]);
    let size = padded(header_size + u32_at(frame, 8) as usize);
    assert!(frame.len() == size, "BUG: not one whole frame");
    let (header, body) = frame.split_at_mut(header_size);
    header[0..4].copy_from_slice(&salt.mark());
    header[14..18].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    header[18..22].copy_from_slice(&ties.link.to_le_bytes());
    header[22..30].copy_from_slice(&ties.durable.to_le_bytes());
    header[30..34].copy_from_slice(&ties.attempt.to_le_bytes());
    header[34..38].copy_from_slice(&ties.index.to_le_bytes());
    header[38..42].copy_from_slice(&ties.count.to_le_bytes());
    let checksum = checksum(header, salt, offset);
    header[4..8].copy_from_slice(&checksum.to_le_bytes());
    checksum
}

fn checksum(header: &[u8], Salt(salt): Salt, offset: u64) -> u32 {
    let place = crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &offset.to_le_bytes());
    crc32c::crc32c_append(place, &header[8..])
}

/// Whether these bytes, which are no whole header, seem to be what is left of one that was written
/// at `offset` in this use of the file.
pub(crate) fn is_remnant(header: &[u8], salt: Salt, offset: u64) -> bool {
    header[0..4] == salt.mark() || checksum(header, salt, offset) == u32_at(header, 4)
}

/// Reads the header of the frame that was written at `offset` of a file with this salt from bytes
/// that begin with it, `None` if they are not what was written there.
pub(crate) fn decode(bytes: &[u8], salt: Salt, offset: u64) -> Option<Frame> {
    let header = bytes.get(..header_size(bytes.first_chunk()?))?;
    if header[0..4] != salt.mark() || checksum(header, salt, offset) != u32_at(header, 4) {
        return None;
    }
    let flags = header[13];
    let (start, end) = (u64_at(header, 82), u64_at(header, 90));
    let lsns = if (start, end) == (0, 0) { None } else { Some(LsnRange::checked(start, end)?) };
    let body_size = u32_at(header, 8) as usize;
    let durable = u64_at(header, 22);
    let is_known = flags <= FLAG_CALL | FLAG_CHAIN;
    if !is_known || body_size > FRAME_BODY_SIZE_MAX || !is_place(durable) {
        return None;
    }
    let mut head = FrameHead {
        kind: header[12],
        document: DocumentNumber(u64_at(header, 42)),
        nth: u64_at(header, 50),
        epoch: Epoch(u64_at(header, 58)),
        journal: JournalId(header[66..82].try_into().expect("BUG: 16 bytes")),
        lsns,
        call: None,
        chain: Chain::default(),
    };
    let mut rest = &header[FRAME_HEADER_SIZE..];
    if flags & FLAG_CALL != 0 {
        let (call, chain) = rest.split_first_chunk()?;
        head.call = Some(CallId(*call));
        rest = chain;
    }
    if flags & FLAG_CHAIN != 0 {
        head.chain = Chain(rest.try_into().ok()?);
    }
    // Each head is one header, so that its size follows from what it says.
    if head.flags() != flags {
        return None;
    }
    let ties = Ties {
        link: u32_at(header, 18),
        durable,
        attempt: u32_at(header, 30),
        index: u32_at(header, 34),
        count: u32_at(header, 38),
    };
    let (checksum, body_checksum) = (u32_at(header, 4), u32_at(header, 14));
    Some(Frame { head, ties, checksum, body_size, body_checksum })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("BUG: four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("BUG: eight bytes"))
}
