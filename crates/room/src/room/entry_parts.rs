//! A storage entry as it travels: in parts that fit into messages.

use tidelog_document::hash_part;
use tidelog_sync::{CodedPage, EntryPart};
use tidelog_types::{EntryHash, EntryId, LsnRange, Page, Pgid, Position, in_parts};

/// What all parts of an entry say.
pub(super) struct EntryHead {
    pub(super) range: LsnRange,
    pub(super) position: Position,
    pub(super) db_pages: u32,
    pub(super) origin: Option<EntryId>,
}

impl EntryHead {
    /// The next pages of the entry, in parts. If the entry `ends` with them, there is at least one
    /// part. `hash` is that of the entry so far.
    pub(super) fn parts<'p>(
        self,
        pages: impl IntoIterator<Item = (Pgid, &'p Page)>,
        ends: bool,
        hash: &mut EntryHash,
        part_pages_max: usize,
    ) -> Vec<EntryPart> {
        let Self { range, position, db_pages, origin } = self;
        let mut cut: Vec<_> = in_parts(pages, part_pages_max).collect();
        if ends && cut.is_empty() {
            cut.push(Vec::new());
        }
        let last = cut.len();
        let part = |(pages, number): (Vec<(Pgid, &Page)>, usize)| {
            *hash = hash_part(*hash, pages.iter().copied(), db_pages);
            let pages =
                pages.into_iter().map(|(pgid, page)| CodedPage::new(pgid, page, None)).collect();
            let is_last = ends && number == last;
            EntryPart {
                range,
                position,
                db_pages,
                origin,
                pages,
                is_predicted: false,
                hash: *hash,
                is_last,
            }
        };
        cut.into_iter().zip(1..).map(part).collect()
    }
}
