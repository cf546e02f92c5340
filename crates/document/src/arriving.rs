//! An entry on its way in.

use tidelog_sync::{CodedPage, EntryPart};
use tidelog_types::{EntryHash, Page, PageSet, Pgid, Position};

use crate::chain::{hash_of, hash_part};
use crate::{ReplicaError, ServerEntry};

/// The parts of an entry that have come.
#[derive(Debug, Default)]
pub struct ArrivingEntry {
    set: PageSet,
    parts_count: u64,
    /// The hash over all parts that have come.
    hash: EntryHash,
    /// Where the journal stood after the last complete entry, and that entry's hash.
    last: Option<(Position, EntryHash)>,
}

impl ArrivingEntry {
    /// Takes the next part. Gives the entry when that was the last; the next part is of another.
    ///
    /// A page that comes twice counts as it came last, and where the journal stands after the
    /// entry is what the last part says. A part that comes twice is known by its hash. `previous`
    /// gives pages of before the entry.
    ///
    /// # Errors
    ///
    /// [`ReplicaError::Garbled`]: what has come is not what was sent, or goes with other pages.
    pub fn take(
        &mut self,
        part: EntryPart,
        previous: impl Fn(Pgid) -> Option<Page>,
    ) -> Result<Option<ServerEntry>, ReplicaError> {
        let EntryPart { range, position, db_pages, origin, pages, hash, is_last, .. } = part;
        let is_repeat = match self.parts_count {
            0 => self.last == Some((position, hash)),
            _ => self.hash == hash,
        };
        if is_repeat {
            return Ok(None);
        }
        let decoded = |page: &CodedPage| Some((page.pgid, page.decoded(&previous)?));
        let pages: Option<Vec<_>> = pages.iter().map(decoded).collect();
        let pages = pages.ok_or(ReplicaError::Garbled { range })?;
        let pages_of_part = pages.iter().map(|(pgid, page)| (*pgid, page));
        if hash_part(self.hash, pages_of_part, db_pages) != hash {
            return Err(ReplicaError::Garbled { range });
        }
        self.set.pages.extend(pages);
        self.parts_count += 1;
        self.hash = hash;
        if !is_last {
            return Ok(None);
        }
        let Self { mut set, parts_count, .. } =
            std::mem::replace(self, Self { last: Some((position, hash)), ..Self::default() });
        if position.next != range.end() || range.is_empty() {
            return Err(ReplicaError::Garbled { range });
        }
        set.db_pages = db_pages;
        set.pages.retain(|pgid, _| (1..=db_pages).contains(&pgid.0));
        let hash = if parts_count == 1 { hash } else { hash_of(&set) };
        Ok(Some(ServerEntry { range, position, origin, set, hash }))
    }
}
