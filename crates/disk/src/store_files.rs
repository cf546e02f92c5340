//! The four files of a store.

use crate::MemoryDisk;

/// The four files of a store: two of log, one of pages, one spare for a later format. They are
/// made when the store is first used; no commit ever creates, renames or deletes one.
#[derive(Clone, Debug, Default)]
pub struct StoreFiles<D> {
    /// One of the two log files, which are used in turn.
    pub log_a: D,
    /// The other log file.
    pub log_b: D,
    /// The page file.
    pub pages: D,
    /// Empty: a later format may need a file, and making one is not safe in every browser.
    pub spare: D,
}

impl<D> StoreFiles<D> {
    /// What the files are called, in the order of the fields.
    pub const NAMES: [&'static str; 4] = ["log-a", "log-b", "pages", "spare"];

    /// Opens each file by its name.
    ///
    /// # Errors
    ///
    /// The first that `open` gives.
    pub fn open_each<E>(mut open: impl FnMut(&'static str) -> Result<D, E>) -> Result<Self, E> {
        let [log_a, log_b, pages, spare] = Self::NAMES;
        Ok(Self {
            log_a: open(log_a)?,
            log_b: open(log_b)?,
            pages: open(pages)?,
            spare: open(spare)?,
        })
    }
}

impl StoreFiles<MemoryDisk> {
    /// Four empty files in memory.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::default()
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl StoreFiles<crate::NativeDisk> {
    /// The four files in this folder, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// [`DiskError::Busy`](crate::DiskError::Busy) if another process has the store open.
    pub fn in_folder(folder: &std::path::Path) -> Result<Self, crate::DiskError> {
        crate::native::make_folder(folder)?;
        Self::open_each(|name| crate::NativeDisk::open(&folder.join(name)))
    }
}
