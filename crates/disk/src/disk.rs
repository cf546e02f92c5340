//! The trait that every kind of storage is behind.

use crate::DiskError;

/// Bytes that a device writes as one: a cut of the power leaves the old ones or the new ones.
pub const SECTOR_SIZE: usize = 512;

/// Bytes, aligned, that some devices write as one though a sector is smaller: where part of it is
/// being written, a cut of the power may damage all of it.
pub const BLOCK_SIZE: usize = 4096;

/// A disk's number for one flush request; counts up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlushId(pub u64);

/// One file of durable bytes, addressed by absolute byte offset, with one owner.
///
/// Every implementation keeps these laws, and [`conformance`](crate::conformance) checks them:
///
/// 1. A write is seen by the next read, durable or not. A gap left by a write beyond the end, or
///    by growing, reads as zeros.
/// 2. A flush is a request. Once [`flushed`](Self::flushed) answers its id or a later one, all
///    that was written before the request survives a power cut. Until then each [`SECTOR_SIZE`]
///    block of a write, and each change of the size, may survive or not, in any order; and of a
///    [`BLOCK_SIZE`] block in which bytes were changed nothing may survive. To write what is there
///    already harms nothing.
/// 3. A flush that failed poisons the file: once that was said, at the request or by
///    [`flushed`](Self::flushed), every later call but `size` fails with [`DiskError::Poisoned`].
///    We do not try a failed flush again, because what it covered may already have been dropped
///    from the caches below.
/// 4. A write that failed may have written any part of its bytes and have grown the file; nothing
///    outside its range has changed. A device that says it wrote another number of bytes than it
///    was given has failed: implementations compare the two at every write.
/// 5. A read fills the whole buffer or fails.
/// 6. All but the completion of a flush is synchronous.
/// 7. A file has one owner: while it is open, nobody else can open it ([`DiskError::Busy`]).
/// 8. A file that is deleted under its owner may go on taking writes, which go nowhere. Where the
///    system tells, the next flush fails with [`DiskError::Gone`]; where it does not, as in a
///    browser, the host looks from time to time whether the file still has its name.
/// 9. No call panics or allocates for an offset or a size that cannot be: it is refused.
pub trait Disk {
    /// Size of the file, in bytes.
    fn size(&self) -> u64;

    /// Fills `buf` with the bytes at `offset`.
    ///
    /// # Errors
    ///
    /// [`DiskError::OutOfRange`] if the read would pass [`size`](Self::size).
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError>;

    /// Writes `bytes` at `offset`, growing the file if needed.
    ///
    /// # Errors
    ///
    /// [`DiskError::Full`] and [`DiskError::ShortWrite`] leave a file that can still be used; of
    /// any other error the owner should assume that it cannot.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Cuts the file off at `size`, or grows it to there with zeros. What it grows by may take no
    /// room on the device before it is written, and find none then.
    ///
    /// # Errors
    ///
    /// As [`write_at`](Self::write_at).
    fn set_size(&mut self, size: u64) -> Result<(), DiskError>;

    /// Asks for every earlier write to be made durable. The slowest thing in the system: write
    /// all that waits before it.
    ///
    /// # Errors
    ///
    /// Whatever it is, the file is poisoned; [`DiskError::FlushFull`] if there was no room.
    fn request_flush(&mut self) -> Result<FlushId, DiskError>;

    /// The latest flush that is complete, `None` before the first.
    ///
    /// # Errors
    ///
    /// A flush failed since, in the same ways; the file is poisoned.
    fn flushed(&mut self) -> Result<Option<FlushId>, DiskError>;
}

impl<D: Disk + ?Sized> Disk for Box<D> {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        (**self).read_at(offset, buf)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        (**self).write_at(offset, bytes)
    }

    fn set_size(&mut self, size: u64) -> Result<(), DiskError> {
        (**self).set_size(size)
    }

    fn request_flush(&mut self) -> Result<FlushId, DiskError> {
        (**self).request_flush()
    }

    fn flushed(&mut self) -> Result<Option<FlushId>, DiskError> {
        (**self).flushed()
    }
}
