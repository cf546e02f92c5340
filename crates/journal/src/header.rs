//! The header of a log file, which is also its seal.

use tidelog_disk::{BLOCK_SIZE, Disk, DiskError, SECTOR_SIZE, read_around};

use crate::RecoverError;

/// Where the frames of a log file begin.
pub const LOG_START: u64 = 2 * BLOCK_SIZE as u64;

/// Frames begin at multiples of this.
pub(crate) const FRAME_ALIGNMENT: usize = 8;
const MAGIC: [u8; 8] = *b"TIDELOG1";
const FORMAT_VERSION: u32 = 1;
/// Where the copies of the header stand: each in a block of its own.
const COPIES_AT: [usize; 2] = [0, BLOCK_SIZE];
const CHECKSUM_AT: usize = SECTOR_SIZE - 4;
/// No log changes over so often.
pub(crate) const GENERATION_MAX: u64 = 1 << 62;
/// No file is so long.
const OFFSET_MAX: u64 = 1 << 62;
/// Bytes of the header that the first appended frame is linked to: up to the state's end.
const SEAM_SIZE: usize = 32;

/// Bytes before the frames.
const AREA_SIZE: usize = LOG_START as usize;

/// A number by chance, another one for each opening of a log: all that is taken by chance here
/// comes from it, so that the same calls give the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

/// What a header says. See `FORMAT.md` for the drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub generation: u64,
    /// Where the copied state ends and appended batches begin; 0 while the file is being filled.
    pub state_end: u64,
    /// Everything before this offset was flushed when the header was written.
    pub durable: u64,
    /// Drawn anew each time that the file is taken into use.
    pub salt: Salt,
    /// When it was taken into use, in milliseconds since the epoch; 0 if nobody knew.
    pub begun_ms: u64,
}

/// A number by chance that is part of every frame of a file while that is in use: neither what lies
/// there from an earlier use nor what somebody has put into a page is taken for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Salt(pub u64);

impl Salt {
    /// The salt of the file that is this generation.
    pub fn draw(Seed(seed): Seed, generation: u64) -> Self {
        // The finalizer of SplitMix64: it gives each sum another number.
        let mut mixed = seed.wrapping_add(generation.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        // Frames begin with its low half, and an end mark with a zero.
        Self(mixed ^ (mixed >> 31) | 1)
    }

    /// The first bytes of every frame.
    pub fn mark(self) -> [u8; 4] {
        let [mark @ .., _, _, _, _] = self.0.to_le_bytes();
        mark
    }
}

/// What a log file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderArea {
    /// Nothing: it is not in use.
    Unused,
    /// Neither copy of the header is whole.
    Damaged,
    Whole(Header),
}

impl HeaderArea {
    pub fn whole(self) -> Option<Header> {
        match self {
            Self::Whole(header) => Some(header),
            Self::Unused | Self::Damaged => None,
        }
    }
}

impl Header {
    fn sector(self) -> [u8; SECTOR_SIZE] {
        let mut sector = [0; SECTOR_SIZE];
        sector[0..8].copy_from_slice(&MAGIC);
        sector[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        sector[16..24].copy_from_slice(&self.generation.to_le_bytes());
        sector[24..32].copy_from_slice(&self.state_end.to_le_bytes());
        sector[32..40].copy_from_slice(&self.durable.to_le_bytes());
        sector[40..48].copy_from_slice(&self.salt.0.to_le_bytes());
        sector[48..56].copy_from_slice(&self.begun_ms.to_le_bytes());
        let checksum = crc32c::crc32c(&sector[..CHECKSUM_AT]);
        sector[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        sector
    }

    /// The header of a file that is being filled.
    pub fn unsealed(generation: u64, seed: Seed, begun_ms: u64) -> Self {
        let salt = Salt::draw(seed, generation);
        Self { generation, state_end: 0, durable: 0, salt, begun_ms }
    }

    /// The header of a new store's first file, which has nothing to copy.
    pub fn of_nothing(generation: u64, seed: Seed, begun_ms: u64) -> Self {
        let header = Self::unsealed(generation, seed, begun_ms);
        Self { state_end: LOG_START, durable: LOG_START, ..header }
    }

    /// The link of the first frame behind the copied state. It does not depend on `durable`,
    /// which is known only when such frames have been written.
    pub fn seam(self) -> u32 {
        crc32c::crc32c(&self.sector()[..SEAM_SIZE])
    }

    /// Whether what stands from `start` to `end` lies across the end of the copied state, as no
    /// batch does.
    pub fn is_crossed(self, start: u64, end: u64) -> bool {
        start < self.state_end && self.state_end < end
    }

    /// Writes both copies with one write.
    pub fn write<D: Disk>(self, disk: &mut D) -> Result<(), DiskError> {
        assert!(self.generation > 0, "BUG: generation 0 is none");
        let mut area = vec![0; AREA_SIZE];
        for at in COPIES_AT {
            area[at..at + SECTOR_SIZE].copy_from_slice(&self.sector());
        }
        disk.write_at(0, &area)
    }

    /// Whether the file can be active.
    pub fn is_sealed(self) -> bool {
        self.state_end >= LOG_START
    }

    /// Makes the file one that is not in use; what lies behind the header stays.
    pub fn erase<D: Disk>(disk: &mut D) -> Result<(), DiskError> {
        disk.write_at(0, &[0; AREA_SIZE])
    }

    /// The header of this file, sealed or not.
    pub fn read<D: Disk>(disk: &D) -> Result<HeaderArea, RecoverError> {
        let count = usize::try_from(disk.size()).unwrap_or(usize::MAX).min(AREA_SIZE);
        let mut area = vec![0; count];
        let mut is_whole_area = true;
        read_around(disk, 0, &mut area, &mut |_| is_whole_area = false)?;
        if is_whole_area && area.iter().all(|byte| *byte == 0) {
            return Ok(HeaderArea::Unused);
        }
        let copies = COPIES_AT.iter().filter_map(|at| area.get(*at..*at + SECTOR_SIZE));
        let mut newest: Option<Self> = None;
        for copy in copies.filter(|copy| is_whole(copy)) {
            let header = Self::decode(copy)?;
            if !header.is_possible() {
                continue;
            }
            // Of one generation the seal is the newer, and its state was flushed before it.
            let rank = |header: Self| (header.generation, header.state_end);
            if newest.is_none_or(|newest| rank(newest) < rank(header)) {
                newest = Some(header);
            }
        }
        Ok(newest.map_or(HeaderArea::Damaged, HeaderArea::Whole))
    }

    /// Whether anybody could have written it.
    fn is_possible(self) -> bool {
        is_place(self.state_end) && is_place(self.durable) && self.generation <= GENERATION_MAX
    }

    fn decode(sector: &[u8]) -> Result<Self, RecoverError> {
        let number = |at: usize| {
            u64::from_le_bytes(sector[at..at + 8].try_into().expect("BUG: eight bytes"))
        };
        let version = u32::from_le_bytes(sector[8..12].try_into().expect("BUG: four bytes"));
        if version > FORMAT_VERSION {
            return Err(RecoverError::NewerFormat { found: version, known: FORMAT_VERSION });
        }
        let (state_end, durable) = (number(24), number(32));
        let (salt, begun_ms) = (Salt(number(40)), number(48));
        Ok(Self { generation: number(16), state_end, durable, salt, begun_ms })
    }
}

/// Whether a frame could end here.
pub(crate) fn is_place(offset: u64) -> bool {
    offset.is_multiple_of(FRAME_ALIGNMENT as u64) && offset <= OFFSET_MAX
}

fn is_whole(sector: &[u8]) -> bool {
    let checksum = crc32c::crc32c(&sector[..CHECKSUM_AT]).to_le_bytes();
    sector[..8] == MAGIC && sector[CHECKSUM_AT..] == checksum
}

#[cfg(test)]
mod tests {
    use tidelog_disk::MemoryDisk;

    use super::*;

    const HEADER: Header =
        Header { generation: 7, state_end: 9000, durable: 9400, salt: Salt(5), begun_ms: 6 };

    fn written() -> Vec<u8> {
        let mut disk = MemoryDisk::default();
        HEADER.write(&mut disk).expect("room");
        disk.bytes().to_vec()
    }

    fn read(bytes: Vec<u8>) -> Result<HeaderArea, RecoverError> {
        Header::read(&MemoryDisk::holding(bytes))
    }

    #[test]
    fn a_header_survives_the_loss_of_either_copy() {
        assert_eq!(read(written()), Ok(HeaderArea::Whole(HEADER)));
        for at in COPIES_AT {
            let mut bytes = written();
            // With all else in its block.
            bytes[at..at + 4096].fill(0xAA);
            assert_eq!(read(bytes), Ok(HeaderArea::Whole(HEADER)));
        }
    }

    #[test]
    fn a_header_without_a_whole_copy_is_damage_and_not_an_empty_file() {
        let mut bytes = written();
        bytes[20] ^= 1;
        bytes[COPIES_AT[1] + 20] ^= 1;
        assert_eq!(read(bytes), Ok(HeaderArea::Damaged));
        assert_eq!(read(Vec::new()), Ok(HeaderArea::Unused));
        assert_eq!(read(vec![0; 9000]), Ok(HeaderArea::Unused));
    }

    #[test]
    fn a_newer_version_is_refused() {
        let mut bytes = written();
        bytes[8] = 2;
        let checksum = crc32c::crc32c(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..SECTOR_SIZE].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(read(bytes), Err(RecoverError::NewerFormat { found: 2, known: 1 }));
    }
}
