//! Pages on their way between an owner and a page server in another worker: with their hashes, so
//! that what was hashed on one side is not hashed on the other.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidelog_types::{Page, PageHash, PageSet, Pgid};

/// One page.
pub(crate) mod page {
    use super::*;

    pub fn serialize<S: Serializer>(page: &Page, serializer: S) -> Result<S::Ok, S::Error> {
        (page.hash(), page).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Page, D::Error> {
        let (hash, page) = <(PageHash, Page)>::deserialize(deserializer)?;
        Ok(page.hashed(hash))
    }
}

/// Pages that one commit changed.
pub(crate) mod page_set {
    use super::*;

    pub fn serialize<S: Serializer>(set: &PageSet, serializer: S) -> Result<S::Ok, S::Error> {
        let pages = set.pages.iter().map(|(pgid, page)| (pgid, page.hash(), page));
        (set.db_pages, pages.collect::<Vec<_>>()).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PageSet, D::Error> {
        type Hashed = (Pgid, PageHash, Page);
        let (db_pages, pages) = <(u32, Vec<Hashed>)>::deserialize(deserializer)?;
        let hashed = |(pgid, hash, page): Hashed| (pgid, page.hashed(hash));
        Ok(PageSet { db_pages, pages: pages.into_iter().map(hashed).collect() })
    }
}
