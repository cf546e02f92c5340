//! Where the pages of one document lie.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use tidelog_journal::frame_size_max;
use tidelog_types::{Coding, Lsn, LsnRange, Pgid, SortedMap};

use crate::frame_body::{TABLE_ENTRY_SIZE, TABLE_FRAME_ENTRIES, TableEntry};
use crate::page_file::Slot;
use crate::place::Piece;

/// About how many bytes of memory an entry takes.
const ENTRY_SIZE: usize = 24;

/// About how many entries take so many bytes of memory, at least one.
pub(crate) fn entries_of(size: usize) -> usize {
    (size / ENTRY_SIZE).max(1)
}

/// The page table of a document: of each page the version that the last checkpoint left in the
/// page file, and those that lie in the log since.
///
/// Versions in the log stay until the next change-over, so a page can be had as of any LSN since
/// the checkpoint, also one that is a difference from the version before it. A slot stays its
/// page's until then, whatever becomes of the page.
#[derive(Debug, Default)]
pub(crate) struct PageTable {
    /// Ascending. A large document has hundreds of thousands of them, so they lie close together.
    checkpointed: Vec<TableEntry>,
    logged: BTreeMap<Pgid, LoggedPage>,
    /// How far a checkpoint has come that goes on.
    checkpoint: Option<Checkpoint>,
}

/// A checkpoint of a page table that is on its way.
#[derive(Debug)]
struct Checkpoint {
    /// Those of the entries that are checkpointed then, ascending, that are known.
    checkpointed: Vec<TableEntry>,
    /// How many of the entries that were checkpointed before are among them, or replaced.
    taken: usize,
}

/// A page with versions in the log.
#[derive(Debug)]
struct LoggedPage {
    /// Where the next checkpoint writes the newest of them.
    slot: Slot,
    /// Oldest first.
    versions: Vec<Logged>,
}

/// What became of a page at an LSN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Logged {
    lsn: Lsn,
    /// `None` if the document had become too small to have it.
    version: Option<InLog>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct InLog {
    checksum: u32,
    piece: Piece,
}

/// One version of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageVersion {
    pub pgid: Pgid,
    pub lsn: Lsn,
    pub checksum: u32,
    pub lies: Lies,
}

/// In which of the files a version lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lies {
    /// In these pieces of the log file that was active when they were written, the last of which is
    /// its own.
    InLog(Vec<Piece>),
    InSlot(Slot),
}

/// The last of these versions of a page, `None` if there is none, or the page was gone then.
fn last_of(pgid: Pgid, versions: &[Logged]) -> Option<PageVersion> {
    let last = versions.last()?;
    let checksum = last.version?.checksum;
    let pieces = &versions[versions.len() - pieces_of(versions)..];
    let pieces = pieces.iter().filter_map(|it| Some(it.version?.piece)).collect();
    Some(PageVersion { pgid, lsn: last.lsn, checksum, lies: Lies::InLog(pieces) })
}

/// Of how many versions the last of these is made: itself, and as long as they are differences,
/// those before it.
fn pieces_of(versions: &[Logged]) -> usize {
    let is_difference =
        |it: &&Logged| it.version.is_some_and(|version| version.piece.coding == Coding::Previous);
    versions.iter().rev().take_while(is_difference).count() + 1
}

fn checkpointed_page(entry: &TableEntry) -> PageVersion {
    let TableEntry { pgid, slot, checksum, lsn } = *entry;
    PageVersion { pgid, lsn, checksum, lies: Lies::InSlot(slot) }
}

impl PageTable {
    /// About how many bytes of memory it takes. Slices are cut by it, so it is the same on every
    /// machine.
    pub fn size(&self) -> usize {
        (self.checkpointed.len() + self.logged.len()) * ENTRY_SIZE
    }

    /// Bytes of log that it takes at most once a change-over has copied it.
    pub fn table_size(&self) -> usize {
        let count = self.checkpointed.len() + self.logged.len();
        count * TABLE_ENTRY_SIZE + count.div_ceil(TABLE_FRAME_ENTRIES) * frame_size_max(0)
    }

    /// Takes in what a checkpoint said. Fails if it is not about a later page than before.
    pub fn add_checkpointed(&mut self, entry: TableEntry) -> bool {
        let is_next = self.checkpointed.last().is_none_or(|last| last.pgid < entry.pgid);
        self.checkpointed.push(entry);
        is_next
    }

    fn checkpointed(&self, pgid: Pgid) -> Option<&TableEntry> {
        let index = self.checkpointed.binary_search_by_key(&pgid, |entry| entry.pgid).ok()?;
        Some(&self.checkpointed[index])
    }

    /// Takes in a version that lies in the log. A page that had none before gets a slot from
    /// `new_slot`. Fails if it is a difference from nothing.
    pub fn add(
        &mut self,
        pgid: Pgid,
        lsn: Lsn,
        (checksum, piece): (u32, Piece),
        new_slot: impl FnOnce() -> Slot,
    ) -> bool {
        let versions = self.log(pgid, new_slot);
        let has_previous = versions.last().is_some_and(|last| last.version.is_some());
        let version = Some(InLog { checksum, piece });
        versions.push(Logged { lsn, version });
        has_previous || piece.coding != Coding::Previous
    }

    /// The newest version of a page, if it lies in the log behind `from` and is made of fewer than
    /// so many pieces: what the next one can be a difference from. Where frames end, one of no
    /// bytes ends that is the same page once more.
    pub fn base(&self, pgid: Pgid, from: u64, pieces_max: usize) -> Option<Lsn> {
        let versions = &self.logged.get(&pgid)?.versions;
        let last = versions.last()?;
        let is_base = last.version?.piece.offset > from && pieces_of(versions) < pieces_max;
        is_base.then_some(last.lsn)
    }

    /// The versions of a page in the log.
    fn log(&mut self, pgid: Pgid, new_slot: impl FnOnce() -> Slot) -> &mut Vec<Logged> {
        let checkpointed = self.checkpointed(pgid).map(|entry| entry.slot);
        let page = self.logged.entry(pgid).or_insert_with(|| LoggedPage {
            slot: checkpointed.unwrap_or_else(new_slot),
            // Few have more until the next change-over, and left alone it takes room for four.
            versions: Vec::with_capacity(1),
        });
        &mut page.versions
    }

    /// The slots of all its pages.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        let is_new = |(pgid, _): &(&Pgid, &LoggedPage)| self.checkpointed(**pgid).is_none();
        let logged = self.logged.iter().filter(is_new).map(|(_, page)| page.slot);
        self.checkpointed.iter().map(|entry| entry.slot).chain(logged)
    }

    /// At this LSN the document had so many pages and no longer as many as `before`: those beyond
    /// are gone.
    pub fn shrink(&mut self, before: u32, db_pages: u32, lsn: Lsn) {
        if before <= db_pages {
            return;
        }
        let beyond: Vec<Pgid> = self.pgids_within(Pgid(db_pages + 1)..=Pgid(before)).collect();
        for pgid in beyond {
            let versions = self.log(pgid, || unreachable!("BUG: a page that never was"));
            if versions.last().is_none_or(|last| last.version.is_some()) {
                versions.push(Logged { lsn, version: None });
            }
        }
    }

    fn pgids_within(&self, range: RangeInclusive<Pgid>) -> impl Iterator<Item = Pgid> + '_ {
        let checkpointed = self.checkpointed_from(*range.start()).iter().map(|entry| entry.pgid);
        let last = *range.end();
        let checkpointed = checkpointed.take_while(move |pgid| *pgid <= last);
        let is_new = |pgid: &Pgid| self.checkpointed(*pgid).is_none();
        let logged = self.logged.range(range).map(|(pgid, _)| *pgid).filter(is_new);
        checkpointed.chain(logged)
    }

    /// The newest version of a page, `None` if it is not here.
    pub fn newest(&self, pgid: Pgid) -> Option<PageVersion> {
        match self.logged.get(&pgid).map(|page| page.versions.as_slice()) {
            Some(versions @ [.., _]) => last_of(pgid, versions),
            _ => self.checkpointed(pgid).map(checkpointed_page),
        }
    }

    /// The version of a page that was the newest before everything at this LSN or later.
    pub fn before(&self, pgid: Pgid, lsn: Lsn) -> Option<PageVersion> {
        let logged = self.logged.get(&pgid).map_or(&[][..], |page| &page.versions);
        match logged.partition_point(|version| version.lsn < lsn) {
            0 => self.checkpointed(pgid).map(checkpointed_page),
            count => last_of(pgid, &logged[..count]),
        }
    }

    /// Whether the page has versions in the log: then its slot may hold another than the table
    /// says, if a checkpoint has begun.
    pub fn is_logged(&self, pgid: Pgid) -> bool {
        self.logged.contains_key(&pgid)
    }

    /// All versions in the log that were written within this range, by LSN.
    pub fn logged_within(&self, range: LsnRange) -> SortedMap<Lsn, Vec<PageVersion>> {
        let mut found = SortedMap::new();
        for (pgid, LoggedPage { versions, .. }) in &self.logged {
            let first = versions.partition_point(|version| version.lsn < range.start());
            let behind = versions.partition_point(|version| version.lsn < range.end());
            for page in (first..behind).filter_map(|at| last_of(*pgid, &versions[..=at])) {
                found.get_or_insert_with(page.lsn, Vec::new).push(page);
            }
        }
        found
    }

    /// The newest versions of all pages from `first` on that changed at this LSN or later,
    /// ascending.
    pub fn since(&self, lsn: Lsn, first: Pgid) -> impl Iterator<Item = PageVersion> + '_ {
        let mut checkpointed = self
            .checkpointed_from(first)
            .iter()
            .filter(move |entry| self.is_newest_since(entry, lsn))
            .map(checkpointed_page)
            .peekable();
        let newest = |(pgid, page): (&Pgid, &LoggedPage)| last_of(*pgid, &page.versions);
        let logged = self.logged.range(first..).filter_map(newest);
        let mut logged = logged.filter(move |page| page.lsn >= lsn).peekable();
        std::iter::from_fn(move || {
            let Some(next) = logged.peek().map(|page| page.pgid) else {
                return checkpointed.next();
            };
            checkpointed.next_if(|page| page.pgid < next).or_else(|| logged.next())
        })
    }

    /// Whether what the table says of a page is its newest version, and was written at this LSN or
    /// later.
    fn is_newest_since(&self, entry: &TableEntry, lsn: Lsn) -> bool {
        entry.lsn >= lsn && !self.is_logged(entry.pgid)
    }

    /// Goes on to make the newest versions the checkpointed ones, by so many entries at most. Gives
    /// those of them that lie in the log, each with the slot that it has to be written to; and
    /// whether that was all. Before it is, nothing is to be asked of the table.
    pub fn checkpoint(&mut self, entries_max: usize) -> (Vec<(Slot, PageVersion)>, bool) {
        let mut moved = Vec::new();
        if self.logged.is_empty() && self.checkpoint.is_none() {
            return (moved, true);
        }
        let size = self.checkpointed.len();
        let new = || Checkpoint { checkpointed: Vec::with_capacity(size), taken: 0 };
        let Checkpoint { checkpointed, taken } = self.checkpoint.get_or_insert_with(new);
        for _ in 0..entries_max {
            let before = self.checkpointed.get(*taken);
            let logged = self.logged.first_key_value().map(|(pgid, _)| *pgid);
            if let Some(entry) = before
                && logged.is_none_or(|pgid| entry.pgid < pgid)
            {
                checkpointed.push(*entry);
                *taken += 1;
                continue;
            }
            *taken += usize::from(before.is_some_and(|entry| Some(entry.pgid) == logged));
            let Some((pgid, LoggedPage { slot, versions })) = self.logged.pop_first() else {
                self.checkpointed = std::mem::take(checkpointed);
                self.checkpoint = None;
                return (moved, true);
            };
            if let Some(page) = last_of(pgid, &versions) {
                let PageVersion { lsn, checksum, .. } = page;
                checkpointed.push(TableEntry { pgid, slot, checksum, lsn });
                moved.push((slot, page));
            }
        }
        (moved, false)
    }

    /// The checkpointed versions from this page on.
    pub fn checkpointed_from(&self, first: Pgid) -> &[TableEntry] {
        &self.checkpointed[self.checkpointed.partition_point(|entry| entry.pgid < first)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(number: u64) -> Lsn {
        Lsn::new(number).expect("from 1")
    }

    fn slot(number: u32) -> Slot {
        Slot::new(number).expect("from 1")
    }

    fn piece(checksum: u32, offset: u64, coding: Coding) -> (u32, Piece) {
        (checksum, Piece { offset, size: 9, coding })
    }

    fn whole(checksum: u32, offset: u64) -> (u32, Piece) {
        piece(checksum, offset, Coding::Zeros)
    }

    fn checkpointed() -> PageTable {
        let mut table = PageTable::default();
        for pgid in 1..=4 {
            let entry =
                TableEntry { pgid: Pgid(pgid), slot: slot(pgid), checksum: pgid, lsn: lsn(5) };
            assert!(table.add_checkpointed(entry));
        }
        table
    }

    fn lsn_of(page: Option<PageVersion>) -> Option<u64> {
        page.map(|page| page.lsn.get())
    }

    #[test]
    fn a_page_is_found_as_of_any_lsn_since_the_checkpoint() {
        let mut table = checkpointed();
        assert!(table.add(Pgid(2), lsn(7), whole(70, 4096), || slot(2)));
        assert!(table.add(Pgid(2), lsn(9), whole(90, 9000), || slot(2)));
        let before = |at| lsn_of(table.before(Pgid(2), lsn(at)));
        assert_eq!([6, 7, 8, 9, 10].map(before), [5, 5, 7, 7, 9].map(Some));
        assert_eq!(lsn_of(table.newest(Pgid(2))), Some(9));
        let changed = table.since(lsn(6), Pgid(1)).map(|page| page.pgid.0).collect::<Vec<_>>();
        assert_eq!(changed, [2]);
    }

    /// Goal: a document that is handed over, all of whose pages may lie in the log, takes little.
    #[test]
    fn a_page_that_was_written_once_takes_room_for_one_version() {
        let mut table = PageTable::default();
        assert!(table.add(Pgid(1), lsn(7), whole(70, 4096), || slot(1)));
        assert_eq!(table.logged[&Pgid(1)].versions.capacity(), 1);
    }

    /// Goal: what lies before a place in the log is no base, if of no bytes and at its very end.
    #[test]
    fn a_base_lies_behind_the_place_from_which_there_are_some() {
        let mut table = PageTable::default();
        assert!(table.add(Pgid(1), lsn(7), whole(70, 4096), || slot(1)));
        assert_eq!(table.base(Pgid(1), 0, 32), Some(lsn(7)));
        let same = (70, Piece { offset: 5000, size: 0, coding: Coding::Previous });
        assert!(table.add(Pgid(1), lsn(8), same, || slot(1)));
        assert_eq!(table.base(Pgid(1), 4999, 32), Some(lsn(8)));
        assert_eq!(table.base(Pgid(1), 5000, 32), None);
    }

    #[test]
    fn what_changed_is_listed_by_page_from_any_page_on() {
        let mut table = checkpointed();
        assert!(table.add(Pgid(2), lsn(7), whole(70, 4096), || slot(2)));
        assert!(table.add(Pgid(6), lsn(8), whole(80, 9000), || slot(6)));
        let changed = |at, first| {
            table.since(lsn(at), Pgid(first)).map(|page| page.pgid.0).collect::<Vec<_>>()
        };
        assert_eq!(changed(5, 1), [1, 2, 3, 4, 6]);
        assert_eq!(changed(5, 3), [3, 4, 6]);
        assert_eq!(changed(6, 2), [2, 6]);
        assert_eq!(changed(6, 7), [0; 0]);
    }

    #[test]
    fn a_page_that_the_document_became_too_small_for_is_gone_until_it_is_written_again() {
        let mut table = checkpointed();
        assert!(table.add(Pgid(5), lsn(6), whole(60, 4096), || slot(5)));
        table.shrink(5, 2, lsn(7));
        assert!(table.add(Pgid(4), lsn(8), whole(80, 9000), || slot(4)));
        assert_eq!([3, 4, 5].map(|pgid| lsn_of(table.newest(Pgid(pgid)))), [None, Some(8), None]);
        let before = |pgid| lsn_of(table.before(Pgid(pgid), lsn(7)));
        assert_eq!([3, 4, 5].map(before), [Some(5), Some(5), Some(6)], "and was there before");
        let (moved, is_all) = table.checkpoint(usize::MAX);
        assert!(is_all);
        assert_eq!(
            moved.iter().map(|(slot, page)| (slot.number(), page.pgid.0)).collect::<Vec<_>>(),
            [(4, 4)]
        );
        let checkpointed: Vec<u32> =
            table.checkpointed_from(Pgid(2)).iter().map(|entry| entry.pgid.0).collect();
        assert_eq!(checkpointed, [2, 4]);
    }

    /// Goal: a checkpoint of a large table is cut into slices of any size. Method: pages that are
    /// in the log alone, checkpointed alone, both, and gone; entry by entry, and all at once.
    #[test]
    fn a_checkpoint_goes_on_where_it_was() {
        let checkpointed_by = |entries_max| {
            let mut table = checkpointed();
            assert!(table.add(Pgid(6), lsn(6), whole(60, 4096), || slot(6)));
            assert!(table.add(Pgid(2), lsn(7), whole(70, 9000), || slot(2)));
            table.shrink(6, 3, lsn(8));
            assert!(table.add(Pgid(5), lsn(9), whole(90, 12_000), || slot(5)));
            let (mut moved, mut slices) = (Vec::new(), 0);
            loop {
                let (some, is_all) = table.checkpoint(entries_max);
                assert!(some.len() <= entries_max);
                moved.extend(some);
                slices += 1;
                if is_all {
                    return (moved, table.checkpointed_from(Pgid(1)).to_vec(), slices);
                }
            }
        };
        let (moved, checkpointed, slices) = checkpointed_by(1);
        assert_eq!(moved.iter().map(|(_, page)| page.pgid.0).collect::<Vec<_>>(), [2, 5]);
        assert_eq!(checkpointed.iter().map(|entry| entry.pgid.0).collect::<Vec<_>>(), [1, 2, 3, 5]);
        assert_eq!(slices, 7, "and one that finds nothing more");
        assert_eq!(checkpointed_by(usize::MAX), (moved, checkpointed, 1));
    }
}
