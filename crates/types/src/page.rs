//! Pages and sets of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::PAGE_SIZE;
use crate::{PageHash, apply_difference};

/// A page's number in its document, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pgid(pub u32);

impl fmt::Display for Pgid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The [`PAGE_SIZE`] bytes of one page. Cheap to clone: clones share the bytes, and their hash.
#[derive(Clone)]
pub struct Page(Arc<Shared>);

struct Shared {
    /// Made when it is first asked for.
    hash: OnceLock<PageHash>,
    bytes: [u8; PAGE_SIZE],
}

impl Page {
    /// A page of these bytes, or `None` unless there are exactly [`PAGE_SIZE`] of them.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().map(Self::of).ok()
    }

    fn of(bytes: [u8; PAGE_SIZE]) -> Self {
        Self(Arc::new(Shared { hash: OnceLock::new(), bytes }))
    }

    /// A page of zeros, as SQLite finds it where nothing was ever written.
    #[must_use]
    pub fn zeroed() -> Self {
        Self::of([0; PAGE_SIZE])
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// The hash of its bytes, which is made once for it and all its clones.
    #[must_use]
    pub fn hash(&self) -> PageHash {
        *self.0.hash.get_or_init(|| PageHash::of(&self.0.bytes))
    }

    /// The same page, whose hash was made where it comes from. It is believed: another one is
    /// found out where the bytes are read again.
    #[must_use]
    pub fn hashed(self, hash: PageHash) -> Self {
        self.0.hash.get_or_init(|| hash);
        self
    }

    /// The page that differs from this one by these [bytes](crate::difference()), or `None` if they
    /// are no difference.
    #[must_use]
    pub fn changed_by(&self, difference: &[u8]) -> Option<Self> {
        let mut bytes = self.0.bytes;
        apply_difference(&mut bytes, difference)?;
        Some(Self::of(bytes))
    }

    /// A copy with `bytes` at `offset`.
    ///
    /// # Panics
    ///
    /// If they pass the end of the page.
    #[must_use]
    pub fn with(&self, offset: usize, bytes: &[u8]) -> Self {
        let mut copy = self.0.bytes;
        copy[offset..offset + bytes.len()].copy_from_slice(bytes);
        Self::of(copy)
    }
}

impl PartialEq for Page {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.bytes == other.0.bytes
    }
}

impl Eq for Page {}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.0.bytes.iter().filter(|byte| **byte != 0).count();
        write!(f, "Page({used} bytes set)")
    }
}

impl Serialize for Page {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0.bytes)
    }
}

impl<'de> Deserialize<'de> for Page {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        Self::new(&bytes).ok_or_else(|| D::Error::invalid_length(bytes.len(), &"a page"))
    }
}

/// The pages that one commit changed, and how many pages the database has after it.
///
/// ```
/// use tidelog_types::{Page, PageSet, Pgid};
///
/// let set = |db_pages, pgids: &[u32]| PageSet {
///     db_pages,
///     pages: pgids.iter().map(|pgid| (Pgid(*pgid), Page::zeroed())).collect(),
/// };
/// let mut both = set(3, &[1, 3]);
/// both.absorb(&set(2, &[2]));
/// assert_eq!(both, set(2, &[1, 2]), "page 3 went with the smaller database");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageSet {
    /// Size of the database after the commit, in pages.
    pub db_pages: u32,
    /// The changed pages, none beyond `db_pages`.
    pub pages: BTreeMap<Pgid, Page>,
}

impl PageSet {
    /// Which pages it changes.
    #[must_use]
    pub fn pgids(&self) -> BTreeSet<Pgid> {
        let mut pgids = BTreeSet::new();
        // Not collected: that sorts first, and its code is not small where code is downloaded.
        pgids.extend(self.pages.keys().copied());
        pgids
    }

    /// Lays `newer` over this set, so that it says what both did.
    pub fn absorb(&mut self, newer: &Self) {
        self.db_pages = newer.db_pages;
        for (pgid, page) in &newer.pages {
            self.pages.insert(*pgid, page.clone());
        }
        self.pages.split_off(&Pgid(self.db_pages.saturating_add(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_hashed_once_and_a_changed_one_anew() {
        let page = Page::zeroed();
        let hash = PageHash::of(&[0; PAGE_SIZE]);
        assert_eq!((page.hash(), page.clone().hashed(PageHash([1; 32])).hash()), (hash, hash));
        let believed = Page::zeroed().hashed(PageHash([1; 32]));
        assert_eq!(believed.clone().hash(), PageHash([1; 32]));
        assert_eq!(believed, page, "a page is its bytes");
        assert_eq!(believed.with(0, &[0]).hash(), hash);
        assert_eq!(
            believed.changed_by(&[0, 2, 7]).map(|it| it.hash()),
            Some(page.with(0, &[7]).hash())
        );
        assert_eq!(
            PageHash([1, 2, 3, 4].repeat(8).try_into().expect("32")).checksum(),
            0x0403_0201
        );
    }
}
