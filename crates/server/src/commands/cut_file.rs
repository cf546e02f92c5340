//! A file of a cut through a store that its server goes on with: it is read as it was, and what is
//! written to it stays in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use tidelog_disk::{Disk, DiskError, FlushId};

/// Bytes of what is kept in memory together.
const BLOCK_SIZE: u64 = 4096;

/// Nothing of it reaches the file: whoever opens a store writes a little, and here for itself.
#[derive(Debug, Default)]
pub(super) struct CutFile {
    /// What it begins with, whatever the file does by now.
    head: Vec<u8>,
    file: Option<File>,
    /// Bytes of both.
    cut_size: u64,
    size: u64,
    /// What was written, by the block's number.
    written: BTreeMap<u64, Vec<u8>>,
    flushes: u64,
}

impl CutFile {
    /// The first `size` bytes of the file, of which the first are `head`.
    pub(super) fn open(path: &Path, head: Vec<u8>, size: u64) -> io::Result<Self> {
        let file = Some(File::open(path)?);
        Ok(Self { head, file, cut_size: size, size, ..Self::default() })
    }

    /// The bytes at `offset` as they were when the cut was made; zeros behind its end.
    fn read_cut(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        buf.fill(0);
        let within = self.cut_size.saturating_sub(offset).min(buf.len() as u64);
        let (buf, _) = buf.split_at_mut(usize::try_from(within).expect("BUG: of a buffer"));
        let head_size = self.head.len() as u64;
        let of_head = head_size.saturating_sub(offset).min(within);
        let (in_head, in_file) = buf.split_at_mut(usize::try_from(of_head).expect("BUG: as above"));
        if !in_head.is_empty() {
            let at = usize::try_from(offset).expect("BUG: within the head");
            in_head.copy_from_slice(&self.head[at..at + in_head.len()]);
        }
        match &self.file {
            Some(file) if !in_file.is_empty() => read_exact_at(file, in_file, offset + of_head)
                .map_err(|error| DiskError::Device { reason: error.to_string() }),
            _ => Ok(()),
        }
    }
}

impl Disk for CutFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.size);
        let Some(end) = end else {
            return Err(DiskError::OutOfRange { offset, count: buf.len(), size: self.size });
        };
        self.read_cut(offset, buf)?;
        for (number, block) in self.written.range(offset / BLOCK_SIZE..end.div_ceil(BLOCK_SIZE)) {
            let begin = number * BLOCK_SIZE;
            let (from, to) = (begin.max(offset), (begin + BLOCK_SIZE).min(end));
            let part = |from: u64, to: u64| {
                let place = |it| usize::try_from(it).expect("BUG: of a buffer or block");
                place(from)..place(to)
            };
            buf[part(from - offset, to - offset)]
                .copy_from_slice(&block[part(from - begin, to - begin)]);
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= i64::MAX as u64);
        let end = end.ok_or(DiskError::Full)?;
        let mut at = offset;
        while at < end {
            let begin = at / BLOCK_SIZE * BLOCK_SIZE;
            let to = (begin + BLOCK_SIZE).min(end);
            let mut block = match self.written.remove(&(begin / BLOCK_SIZE)) {
                Some(block) => block,
                None => {
                    let mut block = vec![0; usize::try_from(BLOCK_SIZE).expect("BUG: small")];
                    self.read_cut(begin, &mut block)?;
                    block
                }
            };
            let place = |it| usize::try_from(it).expect("BUG: of a buffer or block");
            block[place(at - begin)..place(to - begin)]
                .copy_from_slice(&bytes[place(at - offset)..place(to - offset)]);
            self.written.insert(begin / BLOCK_SIZE, block);
            at = to;
        }
        if !bytes.is_empty() {
            self.size = self.size.max(end);
        }
        Ok(())
    }

    fn set_size(&mut self, size: u64) -> Result<(), DiskError> {
        if size > i64::MAX as u64 {
            return Err(DiskError::Full);
        }
        if size < self.size {
            // What comes back later comes back as zeros.
            self.cut_size = self.cut_size.min(size);
            let _ = self.written.split_off(&size.div_ceil(BLOCK_SIZE));
            if let Some(block) = self.written.get_mut(&(size / BLOCK_SIZE)) {
                block[usize::try_from(size % BLOCK_SIZE).expect("BUG: of a block")..].fill(0);
            }
        }
        self.size = size;
        Ok(())
    }

    fn request_flush(&mut self) -> Result<FlushId, DiskError> {
        self.flushes += 1;
        Ok(FlushId(self.flushes))
    }

    fn flushed(&mut self) -> Result<Option<FlushId>, DiskError> {
        Ok((self.flushes > 0).then_some(FlushId(self.flushes)))
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buf, offset)
}

#[cfg(not(unix))]
fn read_exact_at(mut file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    use std::io::{Read as _, Seek as _, SeekFrom};

    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_cut_keeps_the_laws() {
        tidelog_disk::conformance::run(CutFile::default);
    }

    #[test]
    fn it_is_read_as_it_was_and_nothing_is_written_to_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, b"NEWHEAD-and the rest, which has grown").expect("written");
        let mut file = CutFile::open(&path, b"oldhead-".to_vec(), 20).expect("it is there");
        let read = |file: &CutFile, at: u64, count: usize| {
            let mut buf = vec![1; count];
            file.read_at(at, &mut buf).map(|()| String::from_utf8(buf).expect("a text"))
        };
        assert_eq!(read(&file, 0, 20).as_deref(), Ok("oldhead-and the rest"));
        assert_eq!(read(&file, 3, 2).as_deref(), Ok("he"));
        assert!(read(&file, 0, 21).is_err(), "what came later");
        file.write_at(18, b"XYZ").expect("in memory");
        assert_eq!(read(&file, 8, 13).as_deref(), Ok("and the reXYZ"));
        file.set_size(10).expect("in memory");
        file.set_size(20).expect("in memory");
        assert_eq!(read(&file, 0, 20).as_deref(), Ok("oldhead-an\0\0\0\0\0\0\0\0\0\0"));
        let left = std::fs::read(&path).expect("it is there");
        assert_eq!(left, b"NEWHEAD-and the rest, which has grown");
    }
}
