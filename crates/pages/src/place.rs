//! Where a page lies.

use tidelog_journal::LogFile;
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{Coding, Page, PageHash};

use crate::error::StoreError;
use crate::page_file::Slot;
use crate::pool::PoolKey;

/// One version of a page and where it lies, for as long as the log does not change over twice.
#[derive(Clone, Debug)]
pub(crate) struct PagePlace {
    pub key: PoolKey,
    pub checksum: u32,
    pub at: PageAt,
}

/// Ordered as they lie in their file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PageAt {
    /// A piece that is no difference from another version, and the differences from one version to
    /// the next.
    Log(LogFile, Vec<Piece>),
    Slot(Slot),
}

/// Where the bytes of a version lie in a log file, and how they are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Piece {
    pub offset: u64,
    pub size: u16,
    pub coding: Coding,
}

impl Piece {
    /// Makes the page in `page` the one that these bytes of it say.
    pub fn apply(self, bytes: &[u8], page: &mut [u8]) -> Option<()> {
        self.coding.apply(bytes, page)
    }
}

impl PageAt {
    /// How many bytes lie there, if they lie in one piece.
    pub fn size(&self) -> Option<usize> {
        match self {
            Self::Log(_, pieces) => match pieces.as_slice() {
                [piece] => Some(piece.size.into()),
                _ => None,
            },
            Self::Slot(_) => Some(PAGE_SIZE),
        }
    }

    /// Whether it is the place right behind another one.
    pub fn follows(&self, before: &Self) -> bool {
        match (before, self) {
            (Self::Log(file, before), Self::Log(same, pieces)) => match (&**before, &**pieces) {
                ([before], [piece]) => {
                    file == same && piece.offset == before.offset + u64::from(before.size)
                }
                _ => false,
            },
            (Self::Slot(before), Self::Slot(slot)) => slot.number() == before.number() + 1,
            _ => false,
        }
    }
}

impl PagePlace {
    /// These bytes as a page, if they are what was written.
    pub fn checked(&self, bytes: &[u8]) -> Result<Page, StoreError> {
        let page = Page::new(bytes).expect("BUG: a page has the size of a page");
        self.check(page.hash())?;
        Ok(page)
    }

    /// Whether the page that has this hash is what was written.
    pub fn check(&self, hash: PageHash) -> Result<(), StoreError> {
        if hash.checksum() == self.checksum { Ok(()) } else { Err(self.damaged()) }
    }

    /// How many reads it takes to have what lies there.
    pub fn reads_count(&self) -> usize {
        match &self.at {
            PageAt::Log(_, pieces) => pieces.len(),
            PageAt::Slot(_) => 1,
        }
    }

    /// Makes the page of the bytes of the one piece in which it lies.
    pub fn unpack(&self, bytes: &[u8], page: &mut [u8]) -> Result<(), StoreError> {
        match &self.at {
            PageAt::Log(_, pieces) => pieces[0].apply(bytes, page).ok_or_else(|| self.damaged()),
            PageAt::Slot(_) => {
                page.copy_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// What lies there is not what was written.
    pub fn damaged(&self) -> StoreError {
        reached(Probe::PageRotten);
        let pgid = self.key.pgid;
        let what = match &self.at {
            PageAt::Log(file, pieces) => {
                let offset = pieces.last().map_or(0, |piece| piece.offset);
                format!("page {pgid} at {offset} of {file}")
            }
            PageAt::Slot(slot) => format!("page {pgid} in slot {}", slot.number()),
        };
        StoreError::Damaged { what }
    }
}
