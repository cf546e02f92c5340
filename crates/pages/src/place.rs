//! Where a page lies.

use tidelog_journal::LogFile;
use tidelog_types::Page;
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::probe::{Probe, reached};

use crate::error::StoreError;
use crate::page_file::Slot;
use crate::pool::PoolKey;

/// One version of a page and where it lies, for as long as the log does not change over twice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PagePlace {
    pub key: PoolKey,
    pub checksum: u32,
    pub at: PageAt,
}

/// Ordered as they lie in their file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PageAt {
    Log(LogFile, u64),
    Slot(Slot),
}

impl PageAt {
    /// Whether it is the place right behind another one.
    pub fn follows(self, before: Self) -> bool {
        match (before, self) {
            (Self::Log(file, before), Self::Log(same, offset)) => {
                file == same && offset == before + PAGE_SIZE as u64
            }
            (Self::Slot(before), Self::Slot(slot)) => slot.number() == before.number() + 1,
            _ => false,
        }
    }
}

impl PagePlace {
    /// These bytes as a page, if they are what was written.
    pub fn checked(&self, bytes: &[u8]) -> Result<Page, StoreError> {
        self.check(bytes)?;
        Ok(Page::new(bytes).expect("BUG: a page has the size of a page"))
    }

    pub fn check(&self, bytes: &[u8]) -> Result<(), StoreError> {
        if crc32c::crc32c(bytes) == self.checksum {
            return Ok(());
        }
        reached(Probe::PageRotten);
        let pgid = self.key.pgid;
        let what = match self.at {
            PageAt::Log(file, offset) => format!("page {pgid} at {offset} of {file}"),
            PageAt::Slot(slot) => format!("page {pgid} in slot {}", slot.number()),
        };
        Err(StoreError::Damaged { what })
    }
}
