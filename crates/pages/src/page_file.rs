//! The file of pages at rest: a header, then slots.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use tidelog_disk::{Disk, DiskError, FlushId, SECTOR_SIZE, read_around, read_or_lose};
use tidelog_journal::Witness;
use tidelog_types::limits::PAGE_SIZE;

use crate::OpenError;
use crate::error::StoreError;

const MAGIC: [u8; 8] = *b"TIDEPAGE";
const FORMAT_VERSION: u32 = 1;
/// Each copy of the header has a page of its own, so that they are not damaged together.
const COPIES_AT: [usize; 2] = [0, PAGE_SIZE];
/// Pages before the first slot.
const HEADER_PAGES: u64 = 2;
const AREA_SIZE: usize = HEADER_PAGES as usize * PAGE_SIZE;
const CHECKSUM_AT: usize = SECTOR_SIZE - 4;
/// What the file grows by with one write, at most.
const GROWTH_SIZE: usize = 64 * PAGE_SIZE;

/// A place for one page in the page file, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(NonZeroU32);

impl Slot {
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    pub fn number(self) -> u32 {
        self.0.get()
    }

    /// Slot 1 follows the header.
    fn offset(self) -> u64 {
        (HEADER_PAGES - 1 + u64::from(self.number())) * PAGE_SIZE as u64
    }
}

/// The page file.
#[derive(Debug)]
pub(crate) struct PageFile<D> {
    disk: D,
    header: Header,
    /// Whether the header was written since the file was opened: one that was found may be known to
    /// a cache of the system alone, if a flush has failed.
    is_header_written: bool,
    /// Size before it grew for pages that are not written to the log yet.
    grown_from: Option<u64>,
    /// Whether it grew in vain when it had to last: for want of room, here or in the log.
    is_tight: bool,
}

/// What there is of the header. It says not only that pages may lie behind it, but also that there
/// is a log, in which something was durable when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    /// There is none, or none that is whole.
    Missing,
    /// It was written, and is being flushed.
    Flushing(FlushId),
    Whole,
}

impl<D: Disk> PageFile<D> {
    pub fn open(disk: D) -> Result<Self, OpenError> {
        let count = usize::try_from(disk.size()).unwrap_or(usize::MAX).min(AREA_SIZE);
        let mut area = vec![0; count];
        read_around(&disk, 0, &mut area, &mut |_| {})?;
        let copies = COPIES_AT.iter().filter_map(|at| area.get(*at..*at + SECTOR_SIZE));
        // One of a later version says that a later release has begun to write here.
        let version = copies
            .filter(|copy| is_whole(copy))
            .map(|copy| u32::from_le_bytes(copy[8..12].try_into().expect("BUG: four bytes")))
            .max();
        match version {
            Some(found) if found > FORMAT_VERSION => {
                Err(OpenError::NewerFormat { found, known: FORMAT_VERSION })
            }
            version => {
                let header = if version.is_some() { Header::Whole } else { Header::Missing };
                Ok(Self {
                    disk,
                    header,
                    is_header_written: false,
                    grown_from: None,
                    is_tight: false,
                })
            }
        }
    }

    /// Whether the header is missing or damaged, so that the file must not be relied on.
    pub fn is_unusable(&self) -> bool {
        self.header == Header::Missing
    }

    /// What the file says of the log.
    pub fn witness(&self) -> Witness {
        if self.is_unusable() { Witness::Unused } else { Witness::Used }
    }

    /// Makes room for the header where there is none: it is written once the log is flushed, and
    /// the device may be full by then.
    pub fn make_room_for_header(&mut self) -> Result<(), DiskError> {
        let has_room = self.disk.size() >= AREA_SIZE as u64;
        if self.header == Header::Missing && !has_room {
            self.grow(AREA_SIZE as u64)?;
        }
        Ok(())
    }

    /// Says durably that there is a log, which has to be flushed by now. Answers whether that is
    /// done.
    pub fn attest(&mut self) -> Result<bool, DiskError> {
        if self.header == Header::Missing {
            self.write_header()?;
            self.header = Header::Flushing(self.disk.request_flush()?);
        }
        if let Header::Flushing(id) = self.header
            && self.disk.flushed()? >= Some(id)
        {
            self.header = Header::Whole;
        }
        Ok(self.header == Header::Whole)
    }

    fn write_header(&mut self) -> Result<(), DiskError> {
        self.disk.write_at(0, &header())?;
        self.is_header_written = true;
        Ok(())
    }

    /// How many slots the file has.
    pub fn slots(&self) -> u32 {
        let pages = self.disk.size() / PAGE_SIZE as u64;
        u32::try_from(pages.saturating_sub(HEADER_PAGES)).unwrap_or(u32::MAX)
    }

    /// Makes room for this many slots, and writes the header.
    pub fn prepare(&mut self, slots: u32) -> Result<(), DiskError> {
        if !self.is_header_written {
            self.write_header()?;
            self.header = Header::Whole;
        }
        self.reserve(&(slots..=slots))?;
        self.keep_reserved();
        Ok(())
    }

    /// Makes room for at least so many slots, and if it has to grow, for the end of the range if
    /// the device has room. What is written to them later finds it, though the device is full by
    /// then. So they get zeros: a hole would take up none.
    pub fn reserve(&mut self, slots: &RangeInclusive<u32>) -> Result<(), DiskError> {
        let (least, most) = (*slots.start(), *slots.end());
        let before = self.disk.size();
        if least == 0 || before >= size_of(least) {
            return Ok(());
        }
        let mut grown = self.grow(size_of(most));
        if most > least && grown.as_ref().is_err_and(DiskError::is_full) {
            grown = self.grow(size_of(least));
        }
        self.is_tight |= grown.as_ref().is_err_and(DiskError::is_full);
        grown?;
        self.grown_from.get_or_insert(before);
        Ok(())
    }

    /// Writes zeros up to this size. If there is no room for all of them, the file is as it was.
    fn grow(&mut self, size: u64) -> Result<(), DiskError> {
        let before = self.disk.size();
        // Part of a page is what a write has left that found no room for the rest; of the header
        // it may be the one copy that is whole.
        let header = if self.header == Header::Missing { 0 } else { AREA_SIZE as u64 };
        let mut at = (before - before % PAGE_SIZE as u64).max(header);
        let zeros = vec![0; usize::try_from(size - at).unwrap_or(usize::MAX).min(GROWTH_SIZE)];
        while at < size {
            let count = usize::try_from(size - at).unwrap_or(usize::MAX).min(GROWTH_SIZE);
            if let Err(error) = self.disk.write_at(at, &zeros[..count]) {
                if error.is_full() && self.disk.size() > before {
                    self.disk.set_size(before)?;
                }
                return Err(error);
            }
            at += count as u64;
        }
        Ok(())
    }

    /// The log has the pages now that there was room made for.
    pub fn keep_reserved(&mut self) {
        self.is_tight &= self.grown_from.take().is_none();
    }

    /// Whether it had no room for more slots when some were wanted last.
    pub fn is_tight(&self) -> bool {
        self.is_tight
    }

    /// Gives back the room that was made for pages that the log never got. The header may have been
    /// written since, and stays.
    pub fn give_back(&mut self) -> Result<(), DiskError> {
        match self.grown_from.take().map(|size| size.max(AREA_SIZE as u64)) {
            Some(size) if self.disk.size() > size => {
                self.is_tight = true;
                self.disk.set_size(size)
            }
            _ => Ok(()),
        }
    }

    /// Gives back room that was made ahead, beyond so many slots. Says whether there was any.
    pub fn give_back_beyond(&mut self, slots: u32) -> Result<bool, DiskError> {
        let Some(before) = self.grown_from else { return Ok(false) };
        let size = size_of(slots).max(before);
        let has_more = self.disk.size() > size;
        if has_more {
            self.disk.set_size(size)?;
        }
        Ok(has_more)
    }

    /// Bytes of the file up to behind this many slots.
    pub fn size_up_to(&self, slots: u32) -> u64 {
        self.disk.size().min(size_of(slots))
    }

    /// Gives back what lies behind this many slots.
    pub fn shed(&mut self, slots: u32) -> Result<(), DiskError> {
        let size = size_of(slots);
        if self.disk.size() > size { self.disk.set_size(size) } else { Ok(()) }
    }

    /// Reads the pages from `first` on into `buf`; they are damaged if the device cannot read them,
    /// though it reads others.
    pub fn read(&self, first: Slot, buf: &mut [u8]) -> Result<(), StoreError> {
        assert!(buf.len().is_multiple_of(PAGE_SIZE), "BUG: part of a page");
        if read_or_lose(&self.disk, first.offset(), buf)? {
            return Ok(());
        }
        Err(StoreError::Damaged { what: format!("slot {}", first.number()) })
    }

    /// Writes these pages from `first` on.
    pub fn write(&mut self, first: Slot, pages: &[u8]) -> Result<(), DiskError> {
        assert!(pages.len().is_multiple_of(PAGE_SIZE), "BUG: part of a page");
        self.disk.write_at(first.offset(), pages)
    }

    pub fn request_flush(&mut self) -> Result<FlushId, DiskError> {
        self.disk.request_flush()
    }

    pub fn is_flushed(&mut self, id: FlushId) -> Result<bool, DiskError> {
        Ok(self.disk.flushed()? >= Some(id))
    }
}

/// Bytes of a page file with this many slots.
fn size_of(slots: u32) -> u64 {
    (HEADER_PAGES + u64::from(slots)) * PAGE_SIZE as u64
}

fn header() -> Vec<u8> {
    let mut sector = [0; SECTOR_SIZE];
    sector[..8].copy_from_slice(&MAGIC);
    sector[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    let checksum = crc32c::crc32c(&sector[..CHECKSUM_AT]);
    sector[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    let mut area = vec![0; AREA_SIZE];
    for at in COPIES_AT {
        area[at..at + SECTOR_SIZE].copy_from_slice(&sector);
    }
    area
}

fn is_whole(sector: &[u8]) -> bool {
    let checksum = crc32c::crc32c(&sector[..CHECKSUM_AT]).to_le_bytes();
    sector[..8] == MAGIC && sector[CHECKSUM_AT..] == checksum
}

#[cfg(test)]
mod tests {
    use tidelog_disk::MemoryDisk;

    use super::*;

    fn is_usable(bytes: Vec<u8>) -> bool {
        let file = PageFile::open(MemoryDisk::holding(bytes)).expect("a version that is known");
        !file.is_unusable()
    }

    #[test]
    fn a_header_survives_the_loss_of_either_copy_and_no_more() {
        let mut bytes = header();
        bytes.resize(5 * PAGE_SIZE, 7);
        assert!(is_usable(bytes.clone()));
        bytes[..PAGE_SIZE].fill(0xAA);
        assert!(is_usable(bytes.clone()));
        bytes[COPIES_AT[1] + 9] ^= 1;
        assert!(!is_usable(bytes));
        assert!(!is_usable(Vec::new()), "nothing was checkpointed yet");
    }

    #[test]
    fn a_newer_version_in_either_copy_is_refused() {
        for at in COPIES_AT {
            let mut bytes = header();
            let copy = &mut bytes[at..at + SECTOR_SIZE];
            copy[8] = 2;
            let checksum = crc32c::crc32c(&copy[..CHECKSUM_AT]);
            copy[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
            let opened = PageFile::open(MemoryDisk::holding(bytes)).map(drop);
            assert_eq!(opened, Err(OpenError::NewerFormat { found: 2, known: 1 }));
        }
    }

    #[test]
    fn the_header_stays_where_room_is_given_back_that_was_made_before_it() {
        let mut file = PageFile::open(MemoryDisk::default()).expect("no header");
        file.reserve(&(3..=3)).expect("room");
        assert!(file.attest().expect("room"));
        file.give_back().expect("it gets shorter");
        assert_eq!(file.disk.size(), AREA_SIZE as u64);
        let mut bytes = vec![0; AREA_SIZE];
        file.disk.read_at(0, &mut bytes).expect("it is there");
        assert!(is_usable(bytes));
    }

    #[test]
    fn slots_are_counted_behind_the_header() {
        let file = |size| PageFile::open(MemoryDisk::holding(vec![0; size])).expect("no header");
        assert_eq!(file(0).slots(), 0);
        assert_eq!(file(PAGE_SIZE).slots(), 0);
        assert_eq!(file(5 * PAGE_SIZE).slots(), 3);
    }
}
