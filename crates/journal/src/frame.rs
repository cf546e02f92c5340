//! A frame as bytes. `FORMAT.md` draws it.

use std::fmt;

use tidelog_types::limits::FRAME_BODY_SIZE_MAX;
use tidelog_types::{CallId, Chain, Epoch, JournalId, LsnRange};

use crate::header::{FRAME_ALIGNMENT, GENERATION_MAX, Salt, is_place};

/// Bytes of a frame before its body.
pub const FRAME_HEADER_SIZE: usize = 160;

const FLAG_CALL: u8 = 1;

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

impl FrameHead {
    /// A head that says no more than this.
    #[must_use]
    pub fn new(kind: u8, document: DocumentNumber, epoch: Epoch) -> Self {
        let journal = JournalId([0; 16]);
        let chain = Chain::default();
        Self { kind, document, nth: 0, epoch, journal, lsns: None, call: None, chain }
    }
}

/// What ties a frame to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ties {
    pub generation: u64,
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
    /// Bytes of the frame, padding included.
    pub fn size(&self) -> u64 {
        frame_size(self.body_size) as u64
    }

    /// Whether it is none of a batch, but says at the end of a log how much is durable.
    pub fn is_durable_mark(&self) -> bool {
        self.ties.count == 0
    }

    /// Whether its bytes behind the header, padding included, are the ones that were written.
    pub fn has_body(&self, frame: &[u8]) -> bool {
        crc32c::crc32c(&frame[FRAME_HEADER_SIZE..]) == self.body_checksum
    }
}

/// Bytes of a frame with this body, padding included.
#[must_use]
pub fn frame_size(body_size: usize) -> usize {
    (FRAME_HEADER_SIZE + body_size).next_multiple_of(FRAME_ALIGNMENT)
}

/// Appends a frame to `out` whose ties and checksum are still to be [`finish`]ed.
pub(crate) fn encode(head: &FrameHead, body: &[&[u8]], out: &mut Vec<u8>) {
    let body_size: usize = body.iter().map(|part| part.len()).sum();
    assert!(body_size <= FRAME_BODY_SIZE_MAX, "BUG: a body of {body_size} bytes");
    let start = out.len();
    out.reserve(frame_size(body_size));
    out.resize(start + FRAME_HEADER_SIZE, 0);
    let header = &mut out[start..];
    let size = u32::try_from(body_size).expect("BUG: a body is far below 4 GiB");
    header[8..12].copy_from_slice(&size.to_le_bytes());
    header[12] = head.kind;
    header[56..64].copy_from_slice(&head.document.0.to_le_bytes());
    header[64..72].copy_from_slice(&head.nth.to_le_bytes());
    header[72..80].copy_from_slice(&head.epoch.0.to_le_bytes());
    header[80..96].copy_from_slice(&head.journal.0);
    if let Some(lsns) = head.lsns {
        let is_read = LsnRange::checked(lsns.start().get(), lsns.end().get()).is_some();
        assert!(is_read, "BUG: {lsns} is a range that no reader believes");
        header[96..104].copy_from_slice(&lsns.start().get().to_le_bytes());
        header[104..112].copy_from_slice(&lsns.end().get().to_le_bytes());
    }
    if let Some(call) = head.call {
        header[13] = FLAG_CALL;
        header[112..128].copy_from_slice(&call.0);
    }
    header[128..160].copy_from_slice(&head.chain.0);
    for part in body {
        out.extend_from_slice(part);
    }
    out.resize(start + frame_size(body_size), 0);
}

/// Writes the ties into an encoded frame that will stand at `offset`, and gives its checksum.
pub(crate) fn finish(frame: &mut [u8], salt: Salt, offset: u64, ties: &Ties) -> u32 {
    let size = frame_size(u32_at(frame, 8) as usize);
    assert!(frame.len() == size, "BUG: not one whole frame");
    let (header, body) = frame.split_at_mut(FRAME_HEADER_SIZE);
    header[0..4].copy_from_slice(&salt.mark());
    header[16..20].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    header[20..24].copy_from_slice(&ties.link.to_le_bytes());
    header[24..32].copy_from_slice(&ties.generation.to_le_bytes());
    header[32..40].copy_from_slice(&ties.durable.to_le_bytes());
    header[40..44].copy_from_slice(&ties.attempt.to_le_bytes());
    header[44..48].copy_from_slice(&ties.index.to_le_bytes());
    header[48..52].copy_from_slice(&ties.count.to_le_bytes());
    let checksum = checksum(header, salt, offset);
    header[4..8].copy_from_slice(&checksum.to_le_bytes());
    checksum
}

fn checksum(header: &[u8], Salt(salt): Salt, offset: u64) -> u32 {
    let place = crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &offset.to_le_bytes());
    crc32c::crc32c_append(place, &header[8..FRAME_HEADER_SIZE])
}

/// Whether these bytes, which are no whole header, seem to be what is left of one that was written
/// at `offset` in this use of the file.
pub(crate) fn is_remnant(header: &[u8], salt: Salt, offset: u64) -> bool {
    header[0..4] == salt.mark() || checksum(header, salt, offset) == u32_at(header, 4)
}

/// Reads the header of the frame that was written at `offset` of a file with this salt from its
/// first [`FRAME_HEADER_SIZE`] bytes, `None` if they are not what was written there.
pub(crate) fn decode(header: &[u8], salt: Salt, offset: u64) -> Option<Frame> {
    if header[0..4] != salt.mark() || checksum(header, salt, offset) != u32_at(header, 4) {
        return None;
    }
    let flags = header[13];
    let (start, end) = (u64_at(header, 96), u64_at(header, 104));
    let lsns = if (start, end) == (0, 0) { None } else { Some(LsnRange::checked(start, end)?) };
    let body_size = u32_at(header, 8) as usize;
    let (generation, durable) = (u64_at(header, 24), u64_at(header, 32));
    let is_possible = is_place(durable) && generation <= GENERATION_MAX;
    if flags > FLAG_CALL || body_size > FRAME_BODY_SIZE_MAX || !is_possible {
        return None;
    }
    let call = CallId(header[112..128].try_into().expect("BUG: 16 bytes"));
    let head = FrameHead {
        kind: header[12],
        document: DocumentNumber(u64_at(header, 56)),
        nth: u64_at(header, 64),
        epoch: Epoch(u64_at(header, 72)),
        journal: JournalId(header[80..96].try_into().expect("BUG: 16 bytes")),
        lsns,
        call: (flags == FLAG_CALL).then_some(call),
        chain: Chain(header[128..160].try_into().expect("BUG: 32 bytes")),
    };
    let ties = Ties {
        link: u32_at(header, 20),
        generation,
        durable,
        attempt: u32_at(header, 40),
        index: u32_at(header, 44),
        count: u32_at(header, 48),
    };
    let (checksum, body_checksum) = (u32_at(header, 4), u32_at(header, 16));
    Some(Frame { head, ties, checksum, body_size, body_checksum })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("BUG: four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("BUG: eight bytes"))
}
