//! Which pages of a file stand behind which others, told without SQLite.
//!
//! SQLite believes what pages say of one another. A page that stands in two places, in a table of
//! the app and among the free ones, is given out again by a later insert, and then the document is
//! malformed for everybody. So whoever takes a file over looks whether each page stands in one
//! place.
//!
//! ```text
//! b-tree    type 2, 5, 10 or 13, .., cells, right child    an interior cell has a child, one with
//!                                                          a long payload a chain of pages
//! chain     next page, payload
//! free      next trunk, count of leaves, the leaves        the first is in the header of page 1
//! ```

use tidelog_sqlite::{Run, View};
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{Page, Pgid};

/// Bytes before the b-tree on page 1.
const HEADER_SIZE: usize = 100;

/// Leaves that a page of the free list has room for, and fewer than the least that each but the
/// first has.
const TRUNK_LEAVES_MAX: u32 = 1022;
const TRUNK_LEAVES_MIN: u32 = 500;

/// Links that a page has at most: its smallest cells have five bytes, and two that say where.
const PAGE_LINKS_MAX: usize = PAGE_SIZE / 7 + 1;

/// Makes room for so many more, and for some beyond: not as much again as there is, as it would by
/// itself, since what is kept of pages is bounded with its unused room.
fn make_room<T>(list: &mut Vec<T>, count: usize) {
    if list.capacity() - list.len() < count {
        list.reserve_exact(count + list.len() / 8);
    }
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Table,
    Index,
    /// A page of a chain, a free one, or nothing.
    Plain,
    /// It begins like a b-tree and goes on otherwise.
    Broken,
}

/// A page that another one names.
#[derive(Clone, Copy, Debug)]
struct Link {
    to: Pgid,
    /// Pages of the chain that begins there; 0 for a child.
    chain_pages: u32,
}

/// What the pages of a file name, taken from each as it comes.
#[derive(Clone, Debug, Default)]
pub struct PageLinks {
    /// Of each page: its kind, and where its links end.
    pages: Vec<(Kind, usize)>,
    links: Vec<Link>,
    /// What the header of page 1 says of the free list: its first page, and how many are in it.
    free: (u32, u32),
    /// How many pages the header says there are.
    size: Option<u32>,
    is_malformed: bool,
}

impl PageLinks {
    /// Takes in the next page of a file of `db_pages`.
    pub fn note(&mut self, page: &Page, db_pages: u32) {
        let is_first = self.pages.is_empty();
        if is_first {
            self.note_header(page.bytes());
        }
        // Each page is named once, and one of a chain names one further, at most.
        let links_max = 2 * db_pages as usize + PAGE_SIZE;
        make_room(&mut self.links, PAGE_LINKS_MAX);
        make_room(&mut self.pages, 1);
        let links_before = self.links.len();
        let kind = self.note_links(page.bytes(), if is_first { HEADER_SIZE } else { 0 });
        self.is_malformed |= self.links.len() > links_max;
        if kind.is_none() || self.is_malformed {
            self.links.truncate(links_before);
        }
        self.pages.push((kind.unwrap_or(Kind::Broken), self.links.len()));
    }

    fn note_header(&mut self, page: &[u8]) {
        let says = |at| number(page, at).unwrap_or(0);
        // Pages of another size, with something behind them, or that are moved to the end.
        self.is_malformed |= page[16..18] != [0x10, 0] || page[20] != 0 || says(52) != 0;
        // Files that SQLite would not write to, and those with texts in UTF-16.
        self.is_malformed |= page[18..20] != [1, 1] || says(56) != 1;
        // Else SQLite goes by the file.
        self.size = (says(24) == says(92)).then(|| says(28));
        self.free = (says(32), says(36));
    }

    fn note_links(&mut self, page: &[u8], start: usize) -> Option<Kind> {
        let (kind, is_interior) = match page[start] {
            2 => (Kind::Index, true),
            5 => (Kind::Table, true),
            10 => (Kind::Index, false),
            13 => (Kind::Table, false),
            _ => {
                self.links.push(Link { to: Pgid(number(page, 0)?), chain_pages: 0 });
                return Some(Kind::Plain);
            }
        };
        let mut cells = start + 8;
        if is_interior {
            self.links.push(Link { to: Pgid(number(page, cells)?), chain_pages: 0 });
            cells += 4;
        }
        let count = usize::from(page[start + 3]) << 8 | usize::from(page[start + 4]);
        // No two cells share a byte. Else one cell could stand for thousands, and a page would cost
        // more than it has sent.
        let mut room = PAGE_SIZE.checked_sub(cells)?;
        for index in 0..count {
            let at = cells + 2 * index;
            let pointer = page.get(at..at + 2)?;
            let begin = usize::from(pointer[0]) << 8 | usize::from(pointer[1]);
            let end = self.note_cell(page, begin, kind, is_interior)?;
            room = room.checked_sub(2 + end.checked_sub(begin)?)?;
        }
        Some(kind)
    }

    /// Gives where the cell ends.
    fn note_cell(
        &mut self,
        page: &[u8],
        begin: usize,
        kind: Kind,
        is_interior: bool,
    ) -> Option<usize> {
        let mut at = begin;
        if is_interior {
            self.links.push(Link { to: Pgid(number(page, at)?), chain_pages: 0 });
            at += 4;
        }
        let (size, mut at) = varint(page, at)?;
        if kind == Kind::Table && is_interior {
            return Some(at);
        }
        if kind == Kind::Table {
            (_, at) = varint(page, at)?;
        }
        let (here, chain_pages) = payload(kind, size)?;
        at += here;
        if chain_pages > 0 {
            self.links.push(Link { to: Pgid(number(page, at)?), chain_pages });
            at += 4;
        }
        Some(at)
    }

    /// About how many bytes it keeps.
    #[must_use]
    pub fn kept_size(&self) -> usize {
        let of_pages = self.pages.capacity() * size_of::<(Kind, usize)>();
        of_pages + self.links.capacity() * size_of::<Link>()
    }

    /// Looks where each page stands, if tables and indexes begin at `roots`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if one stands in two places, or is not what it has to be where it stands.
    pub fn walk(&self, roots: &[Pgid]) -> Result<FreeWalk, Malformed> {
        let mut taken = Taken(vec![false; self.pages.len()]);
        let is_sized = self.size.is_none_or(|size| size as usize == self.pages.len());
        if self.is_malformed || !is_sized {
            return Err(Malformed);
        }
        let mut open = Vec::new();
        let schema = (!self.pages.is_empty()).then_some(Pgid(1));
        for root in schema.into_iter().chain(roots.iter().copied()) {
            taken.take(root)?;
            let kind = self.kind(root);
            if root == Pgid(1) && kind != Kind::Table {
                return Err(Malformed);
            }
            open.push((root, kind));
        }
        while let Some((pgid, kind)) = open.pop() {
            if self.kind(pgid) != kind || !matches!(kind, Kind::Table | Kind::Index) {
                return Err(Malformed);
            }
            for link in self.links_of(pgid) {
                taken.take(link.to)?;
                if link.chain_pages == 0 {
                    open.push((link.to, kind));
                    continue;
                }
                let mut at = link.to;
                for left in (0..link.chain_pages).rev() {
                    let [next] = self.links_of(at) else { return Err(Malformed) };
                    if self.kind(at) != Kind::Plain {
                        return Err(Malformed);
                    }
                    if left > 0 {
                        at = next.to;
                        taken.take(at)?;
                    }
                }
            }
        }
        let (trunk, pages_left) = self.free;
        let trunks_left = 2 + pages_left / TRUNK_LEAVES_MIN;
        Ok(FreeWalk { taken, trunk: Pgid(trunk), pages_left, trunks_left })
    }

    fn kind(&self, pgid: Pgid) -> Kind {
        self.pages[pgid.0 as usize - 1].0
    }

    fn links_of(&self, pgid: Pgid) -> &[Link] {
        let index = pgid.0 as usize - 1;
        let start = index.checked_sub(1).map_or(0, |before| self.pages[before].1);
        &self.links[start..self.pages[index].1]
    }
}

/// Which pages have their places.
#[derive(Clone, Debug)]
struct Taken(Vec<bool>);

impl Taken {
    fn take(&mut self, pgid: Pgid) -> Result<(), Malformed> {
        let index = (pgid.0 as usize).checked_sub(1).ok_or(Malformed)?;
        let is_taken = self.0.get_mut(index).ok_or(Malformed)?;
        if std::mem::replace(is_taken, true) { Err(Malformed) } else { Ok(()) }
    }
}

/// A walk over the free list. Its pages are read again, since [`PageLinks`] keeps nothing of what
/// they name.
#[derive(Clone, Debug)]
pub struct FreeWalk {
    taken: Taken,
    trunk: Pgid,
    pages_left: u32,
    trunks_left: u32,
}

impl FreeWalk {
    /// Goes on where it was; begins again where a page was not in memory.
    pub fn go_on(&mut self, view: &View) -> Run<Result<(), Malformed>> {
        while self.trunk.0 != 0 {
            if self.trunk.0 as usize > self.taken.0.len() {
                return Run::Done(Err(Malformed));
            }
            let Some(page) = view.base_page(self.trunk) else {
                view.evict();
                return Run::Fault(self.trunk);
            };
            if self.take_trunk(page.bytes()).is_none() {
                return Run::Done(Err(Malformed));
            }
        }
        Run::Done(if self.pages_left == 0 { Ok(()) } else { Err(Malformed) })
    }

    fn take_trunk(&mut self, page: &[u8]) -> Option<()> {
        self.trunks_left = self.trunks_left.checked_sub(1)?;
        self.taken.take(self.trunk).ok()?;
        let leaves_count = number(page, 4).filter(|count| *count <= TRUNK_LEAVES_MAX)?;
        self.pages_left = self.pages_left.checked_sub(1 + leaves_count)?;
        for index in 0..leaves_count as usize {
            self.taken.take(Pgid(number(page, 8 + 4 * index)?)).ok()?;
        }
        self.trunk = Pgid(number(page, 0)?);
        Some(())
    }
}

fn number(page: &[u8], at: usize) -> Option<u32> {
    let bytes = page.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// A number of one to nine bytes, and what follows it.
fn varint(page: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0;
    for size in 1..=9 {
        let byte = *page.get(at + size - 1)?;
        if size == 9 {
            return Some((value << 8 | u64::from(byte), at + size));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some((value, at + size));
        }
    }
    None
}

/// Of a payload of so many bytes: how many are in its cell, and how many pages have the others.
fn payload(kind: Kind, size: u64) -> Option<(usize, u32)> {
    let page_size = PAGE_SIZE as u64;
    let least = (page_size - 12) * 32 / 255 - 23;
    let most = match kind {
        Kind::Table => page_size - 35,
        _ => (page_size - 12) * 64 / 255 - 23,
    };
    if size <= most {
        return Some((usize::try_from(size).ok()?, 0));
    }
    let wanted = least + (size - least) % (page_size - 4);
    let here = if wanted <= most { wanted } else { least };
    let chain_pages = (size - here).div_ceil(page_size - 4);
    Some((usize::try_from(here).ok()?, u32::try_from(chain_pages).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An interior page whose cells begin at these places, and are made of this byte.
    fn interior(kind: u8, filled_with: u8, places: impl ExactSizeIterator<Item = u16>) -> Page {
        let mut bytes = [filled_with; PAGE_SIZE];
        bytes[..12].copy_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        bytes[3..5].copy_from_slice(&u16::try_from(places.len()).expect("few").to_be_bytes());
        for (place, at) in places.zip((12..).step_by(2)) {
            bytes[at..at + 2].copy_from_slice(&place.to_be_bytes());
        }
        Page::new(&bytes).expect("a page")
    }

    /// Those of a file that begins as it must.
    fn links_of_first() -> PageLinks {
        let mut bytes = [0; PAGE_SIZE];
        bytes[16..20].copy_from_slice(&[0x10, 0, 1, 1]);
        bytes[59] = 1;
        let mut links = PageLinks::default();
        links.note(&Page::new(&bytes).expect("a page"), 131_072);
        assert!(!links.is_malformed);
        links
    }

    /// Goal: what is kept of pages is no more than what came. Method: pages of which each cell
    /// stands for many, all at one place or at places that overlap, in a file said to be large.
    #[test]
    fn pages_cost_no_more_than_they_sent() {
        for (kind, step) in [(5, 0), (5, 1), (2, 0), (2, 1), (10, 0), (13, 0)] {
            let mut links = links_of_first();
            // It names another one, else a leaf names nothing.
            let filled_with = if kind > 5 { 0x90 } else { 0 };
            for _ in 0..100 {
                let places = (0..2_000).map(|index| 4_000_u16.min(2_000 + index * step));
                links.note(&interior(kind, filled_with, places), 131_072);
            }
            let sent = 100 * PAGE_SIZE;
            assert!(links.kept_size() < sent, "{kind} {step}: {} of {sent}", links.kept_size());
        }
    }

    /// Goal: what grows does not take twice what it needs. Method: full pages, nearly as many links
    /// as a file may have.
    #[test]
    fn full_pages_leave_little_room_unused() {
        let mut links = links_of_first();
        let places = || (0..583_u16).map(|index| 4_096 - 5 * (index + 1));
        for _ in 0..400 {
            links.note(&interior(5, 0, places()), 131_072);
            let used = links.links.len() * size_of::<Link>();
            let kept = links.links.capacity() * size_of::<Link>();
            assert!(kept < used + used / 4 + 64 * 1024, "{kept} for {used}");
        }
    }

    #[test]
    fn a_full_page_is_taken_as_it_is() {
        let mut links = links_of_first();
        // The smallest cells that there are: a child and a key of one byte.
        let places = (0..583_u16).map(|index| 4_096 - 5 * (index + 1));
        links.note(&interior(5, 0, places), 131_072);
        assert_eq!(links.kind(Pgid(2)), Kind::Table);
        assert_eq!(links.links_of(Pgid(2)).len(), 584);
    }
}
