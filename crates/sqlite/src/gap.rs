//! The bytes of a page that stand for nothing.
//!
//! `SQLITE_SECURE_DELETE` overwrites what is deleted, with one exception: a page of a b-tree that
//! is laid out anew, as when another page takes half of its cells, keeps the bytes of cells that
//! are gone between its list of cells and the first of them.
//!
//! ```text
//! type 1 | .. 2 | cells 2 | content 2 | .. 1 | right child 4, interior ones | 2 for each cell
//! gap, which ends where the content begins | content
//! ```

use std::ops::Range;

use tidelog_types::Pgid;
use tidelog_types::limits::{ENTRY_PAGES_MAX, PAGE_SIZE};

/// Bytes before the b-tree on page 1.
const FILE_HEADER_SIZE: usize = 100;

/// What is no page of a b-tree begins with the number of another page, or with nothing.
const _: () = assert!(ENTRY_PAGES_MAX < 1 << 24);

/// Where the gap of this page is, if it is one of a b-tree and has one.
fn gap_of(pgid: Pgid, page: &[u8]) -> Option<Range<usize>> {
    let start = if pgid == Pgid(1) { FILE_HEADER_SIZE } else { 0 };
    let cells_at = match page.get(start)? {
        2 | 5 => start + 12,
        10 | 13 => start + 8,
        _ => return None,
    };
    let number =
        |at: usize| Some(usize::from(*page.get(at)?) << 8 | usize::from(*page.get(at + 1)?));
    let begin = cells_at + 2 * number(start + 3)?;
    let end = number(start + 5)?;
    (begin < end && end <= PAGE_SIZE).then_some(begin..end)
}

/// Overwrites what stands for nothing in this page.
pub(crate) fn clear_gap(pgid: Pgid, page: &mut [u8]) {
    if let Some(gap) = gap_of(pgid, page) {
        page[gap].fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page of this type, with two cells, whose content begins at 4,000.
    fn page(start: usize, kind: u8) -> Vec<u8> {
        let mut page = vec![7; PAGE_SIZE];
        page[start] = kind;
        page[start + 3..start + 7].copy_from_slice(&[0, 2, 15, 160]);
        page
    }

    #[test]
    fn the_gap_of_a_page_is_between_its_list_of_cells_and_the_first_of_them() {
        for (pgid, start, kind, begin) in
            [(1, 100, 13, 112), (1, 100, 5, 116), (2, 0, 10, 12), (3, 0, 2, 16)]
        {
            assert_eq!(gap_of(Pgid(pgid), &page(start, kind)), Some(begin..4000));
        }
        let mut cleared = page(0, 13);
        clear_gap(Pgid(2), &mut cleared);
        let is_clear = |it: &u8| *it == 0;
        assert!(cleared[12..4000].iter().all(is_clear));
        assert!(cleared[..12].iter().chain(&cleared[4000..]).filter(|it| **it == 7).count() > 90);
    }

    #[test]
    fn other_pages_have_none() {
        for mut other in [vec![0; PAGE_SIZE], vec![255; PAGE_SIZE]] {
            let before = other.clone();
            clear_gap(Pgid(2), &mut other);
            assert_eq!(other, before);
        }
        // More cells than there is room for.
        let mut broken = page(0, 13);
        broken[3] = 255;
        assert_eq!(gap_of(Pgid(2), &broken), None);
    }
}
