//! The kinds of frames that a page server writes, and their bodies. `FORMAT.md` draws them.

use tidelog_types::limits::{Limits, PAGE_SIZE};
use tidelog_types::{
    CallId, Coding, DocumentKey, Life, Lsn, Pgid, number_size, put_number, take_number,
};

use crate::Ticket;
use crate::page_file::Slot;
use crate::protocol::AppendId;

/// What a frame's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Epoch = 1,
    Document = 2,
    Destroy = 3,
    Record = 4,
    TimelineBegin = 5,
    TimelineEntry = 6,
    TimelineTrim = 7,
    StorageBegin = 8,
    StoragePages = 9,
    StorageEntry = 10,
    StorageAt = 11,
    PageTable = 12,
    Calls = 13,
    StorageLife = 14,
    TakeName = 15,
    Handed = 16,
}

impl Kind {
    const ALL: [Self; 16] = [
        Self::Epoch,
        Self::Document,
        Self::Destroy,
        Self::Record,
        Self::TimelineBegin,
        Self::TimelineEntry,
        Self::TimelineTrim,
        Self::StorageBegin,
        Self::StoragePages,
        Self::StorageEntry,
        Self::StorageAt,
        Self::PageTable,
        Self::Calls,
        Self::StorageLife,
        Self::TakeName,
        Self::Handed,
    ];

    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

pub(crate) fn encode_key(key: &DocumentKey) -> Vec<u8> {
    let mut body = Vec::with_capacity(4 + key.document.len() + key.user.len());
    for name in [&key.document, &key.user] {
        let size = u16::try_from(name.len()).expect("BUG: a name has at most 512 bytes");
        body.extend_from_slice(&size.to_le_bytes());
        body.extend_from_slice(name.as_bytes());
    }
    body
}

pub(crate) fn decode_key(mut body: &[u8]) -> Option<DocumentKey> {
    let mut name = || {
        let (size, rest) = body.split_first_chunk::<2>()?;
        let (name, rest) = rest.split_at_checked(u16::from_le_bytes(*size).into())?;
        body = rest;
        Some(std::str::from_utf8(name).ok()?.to_owned())
    };
    let key = DocumentKey { document: name()?, user: name()? };
    body.is_empty().then_some(key)
}

/// A page in a body of pages, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListedPage {
    pub pgid: Pgid,
    /// Of the page itself, however it is coded.
    pub checksum: u32,
    /// By a version before it that lies in the same log file.
    pub coding: Coding,
    /// Bytes that it takes, coded: at most those of a page.
    pub size: u16,
}

impl ListedPage {
    /// Codings are fewer than four.
    fn coding_and_size(&self) -> u32 {
        u32::from(self.size) << 2 | self.coding as u32
    }

    fn item_size(&self) -> usize {
        number_size(self.pgid.0) + number_size(self.coding_and_size()) + size_of_val(&self.checksum)
    }

    fn take(list: &mut &[u8]) -> Option<Self> {
        let pgid = Pgid(take_number(list)?);
        let number = take_number(list)?;
        let coding = Coding::of((number & 3) as u8)?;
        let size = u16::try_from(number >> 2).ok()?;
        let is_possible = match coding {
            Coding::Whole => usize::from(size) == PAGE_SIZE,
            Coding::Zeros | Coding::Previous => usize::from(size) < PAGE_SIZE,
        };
        let (checksum, rest) = list.split_first_chunk()?;
        *list = rest;
        let checksum = u32::from_le_bytes(*checksum);
        is_possible.then_some(Self { pgid, checksum, coding, size })
    }
}

/// What a body of pages says before the pages themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageList {
    pub db_pages: u32,
    pub pages: Vec<ListedPage>,
}

impl PageList {
    pub fn encode(&self) -> Vec<u8> {
        assert!(
            self.pages.len() <= Limits::DEFAULT.frame_pages_max,
            "BUG: {} pages in one frame",
            self.pages.len()
        );
        let mut body = Vec::with_capacity(self.size());
        put_number(&mut body, self.db_pages);
        put_number(&mut body, self.count());
        for page in &self.pages {
            put_number(&mut body, page.pgid.0);
            put_number(&mut body, page.coding_and_size());
            body.extend_from_slice(&page.checksum.to_le_bytes());
        }
        body
    }

    /// Reads the list from a body that may go on with the pages.
    pub fn decode(mut body: &[u8]) -> Option<Self> {
        let db_pages = take_number(&mut body)?;
        let count = take_number(&mut body)?;
        if count as usize > Limits::DEFAULT.frame_pages_max {
            return None;
        }
        let pages = (0..count).map(|_| ListedPage::take(&mut body)).collect::<Option<_>>()?;
        Some(Self { db_pages, pages })
    }

    fn count(&self) -> u32 {
        u32::try_from(self.pages.len()).expect("BUG: at most 256 pages")
    }

    /// Size of the list itself.
    fn size(&self) -> usize {
        let pages = self.pages.iter().map(ListedPage::item_size);
        number_size(self.db_pages) + number_size(self.count()) + pages.sum::<usize>()
    }

    /// Size of a whole body with this list.
    pub fn body_size(&self) -> usize {
        self.size() + self.pages.iter().map(|page| usize::from(page.size)).sum::<usize>()
    }

    /// The pages, each with where in the body it begins.
    pub fn places(&self) -> impl Iterator<Item = (&ListedPage, u64)> {
        let start = self.size() as u64;
        self.pages.iter().scan(start, |end, page| {
            let at = *end;
            *end += u64::from(page.size);
            Some((page, at))
        })
    }
}

/// Entries of a page table in one frame.
pub(crate) const TABLE_FRAME_ENTRIES: usize = 4096;
pub(crate) const TABLE_ENTRY_SIZE: usize = 20;

/// One page that lies in the page file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableEntry {
    pub pgid: Pgid,
    pub slot: Slot,
    pub checksum: u32,
    pub lsn: Lsn,
}

impl TableEntry {
    pub fn encode(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(&self.pgid.0.to_le_bytes());
        body.extend_from_slice(&self.slot.number().to_le_bytes());
        body.extend_from_slice(&self.checksum.to_le_bytes());
        body.extend_from_slice(&self.lsn.get().to_le_bytes());
    }

    pub fn decode_all(body: &[u8]) -> Option<Vec<Self>> {
        if !body.len().is_multiple_of(TABLE_ENTRY_SIZE) {
            return None;
        }
        let decode = |entry: &[u8]| {
            Some(Self {
                pgid: Pgid(u32_at(entry, 0)),
                slot: Slot::new(u32_at(entry, 4))?,
                checksum: u32_at(entry, 8),
                lsn: Lsn::new(u64_at(entry, 12))?,
            })
        };
        body.chunks_exact(TABLE_ENTRY_SIZE).map(decode).collect()
    }
}

/// Bytes of a call and its LSN.
pub(crate) const CALL_SIZE: usize = 24;

pub(crate) fn decode_life(body: &[u8]) -> Option<Life> {
    body.try_into().map(Life).ok()
}

/// Whose append it is, and its ticket.
pub(crate) fn encode_append_id(id: AppendId) -> [u8; 24] {
    let mut body = [0; 24];
    body[..16].copy_from_slice(&id.life.0);
    body[16..].copy_from_slice(&id.ticket.0.to_le_bytes());
    body
}

pub(crate) fn decode_append_id(body: &[u8]) -> Option<AppendId> {
    let (life, ticket) = body.split_first_chunk::<16>()?;
    let ticket = Ticket(u64::from_le_bytes(ticket.try_into().ok()?));
    Some(AppendId { life: Life(*life), ticket })
}

/// What copied state says of a storage journal: the database's size, and who wrote last.
pub(crate) fn encode_storage_at(db_pages: u32, life: Life) -> [u8; 20] {
    let mut body = [0; 20];
    body[..4].copy_from_slice(&db_pages.to_le_bytes());
    body[4..].copy_from_slice(&life.0);
    body
}

pub(crate) fn decode_storage_at(body: &[u8]) -> Option<(u32, Life)> {
    let (db_pages, life) = body.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*db_pages), decode_life(life)?))
}

pub(crate) fn encode_calls<'a>(calls: impl Iterator<Item = &'a (CallId, Lsn)>) -> Vec<u8> {
    let mut body = Vec::new();
    for (call, lsn) in calls {
        body.extend_from_slice(&call.0);
        body.extend_from_slice(&lsn.get().to_le_bytes());
    }
    body
}

pub(crate) fn decode_calls(body: &[u8]) -> Option<Vec<(CallId, Lsn)>> {
    if !body.len().is_multiple_of(CALL_SIZE) {
        return None;
    }
    let decode = |call: &[u8]| {
        Some((CallId(call[..16].try_into().expect("BUG: 16 bytes")), Lsn::new(u64_at(call, 16))?))
    };
    body.chunks_exact(CALL_SIZE).map(decode).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("BUG: four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("BUG: eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(pgid: u32, checksum: u32, coding: Coding, size: u16) -> ListedPage {
        ListedPage { pgid: Pgid(pgid), checksum, coding, size }
    }

    #[test]
    fn bodies_come_back_as_they_were() {
        let key = DocumentKey::new("groceries", "ada").expect("a good name");
        assert_eq!(decode_key(&encode_key(&key)), Some(key));

        let pages = vec![
            listed(1, 77, Coding::Whole, 4096),
            listed(9, 5, Coding::Previous, 300),
            listed(10, 6, Coding::Zeros, 0),
        ];
        let list = PageList { db_pages: 9, pages };
        assert_eq!(PageList::decode(&list.encode()), Some(list.clone()));
        let places: Vec<u64> = list.places().map(|(_, at)| at).collect();
        let size = 2 + 3 * 5 + 3 + 2 + 1;
        assert_eq!(places, [size, size + 4096, size + 4396]);
        assert_eq!(list.body_size() as u64, size + 4396);

        let slot = Slot::new(300).expect("a slot");
        let entry = TableEntry { pgid: Pgid(4), slot, checksum: 1, lsn: Lsn::FIRST };
        let mut body = Vec::new();
        entry.encode(&mut body);
        assert_eq!(TableEntry::decode_all(&body), Some(vec![entry]));

        let calls = vec![(CallId([3; 16]), Lsn::FIRST.plus(5))];
        assert_eq!(decode_calls(&encode_calls(calls.iter())), Some(calls));

        let life = Life([6; 16]);
        assert_eq!(decode_storage_at(&encode_storage_at(7, life)), Some((7, life)));

        let id = AppendId { life, ticket: Ticket(1 << 40) };
        assert_eq!(decode_append_id(&encode_append_id(id)), Some(id));
    }

    /// A change of these bytes is a change of the format.
    #[test]
    fn the_bytes_of_bodies_are_the_ones_in_the_format() {
        let key = DocumentKey::new("list", "ada").expect("a good name");
        assert_eq!(encode_key(&key), b"\x04\0list\x03\0ada");
        let pages = vec![listed(3, 0x0405_0607, Coding::Previous, 0x0809)];
        let list = PageList { db_pages: 0x0102, pages };
        assert_eq!(list.encode(), [0x82, 2, 1, 3, 0xA6, 0x40, 7, 6, 5, 4]);
        let slot = Slot::new(2).expect("a slot");
        let entry = TableEntry { pgid: Pgid(1), slot, checksum: 3, lsn: Lsn::FIRST.plus(3) };
        let mut body = Vec::new();
        entry.encode(&mut body);
        assert_eq!(body, [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        let calls = encode_calls([(CallId([9; 16]), Lsn::FIRST)].iter());
        assert_eq!(calls, [[9; 16].as_slice(), &1_u64.to_le_bytes()].concat());
    }

    #[test]
    fn bodies_cut_short_are_refused() {
        let key = encode_key(&DocumentKey::new("groceries", "ada").expect("a good name"));
        for size in 0..key.len() {
            assert_eq!(decode_key(&key[..size]), None);
        }
        let pages = vec![listed(1, 77, Coding::Whole, 4096)];
        let list = PageList { db_pages: 9, pages }.encode();
        for size in 0..list.len() {
            assert_eq!(PageList::decode(&list[..size]), None);
        }
        let mut many = vec![9];
        put_number(&mut many, 257);
        many.extend((0..257).flat_map(|_| [1, 1, 0, 0, 0, 0]));
        assert_eq!(PageList::decode(&many), None, "more than stand in one frame");
        assert_eq!(TableEntry::decode_all(&[0; 19]), None);
        assert_eq!(TableEntry::decode_all(&[0; 20]), None, "slot 0 is none");
        assert_eq!(decode_calls(&[0; 23]), None);
        assert_eq!(decode_life(&[0; 15]), None);
        assert_eq!(decode_storage_at(&[0; 19]), None);
        assert_eq!(decode_append_id(&[0; 23]), None);
    }

    #[test]
    fn pages_of_impossible_sizes_are_refused() {
        for (coding, size) in [(0, 4095), (0, 4097), (1, 4096), (2, 4096), (3, 1), (0, 1 << 16)] {
            let mut list = vec![9, 1, 1];
            put_number(&mut list, size << 2 | coding);
            list.extend_from_slice(&[0; 4]);
            assert_eq!(PageList::decode(&list), None, "{size} bytes of coding {coding}");
        }
    }

    #[test]
    fn every_kind_is_found_by_its_number() {
        for number in 1..=16 {
            assert_eq!(Kind::of(number).map(|kind| kind as u8), Some(number));
        }
        assert_eq!(Kind::of(0), None);
        assert_eq!(Kind::of(17), None);
    }
}
