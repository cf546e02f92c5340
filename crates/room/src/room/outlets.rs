//! Whether there is room on the ways to clients.

use tidelog_sync::{CodedPage, EntryPart};
use tidelog_types::limits::{CONNECTION_ENTRIES_SIZE_MAX, Limits, PAGE_SIZE};

use super::ConnId;

/// Bytes of an entry's part besides its pages, and of a page besides its bytes.
const HEAD_SIZE: usize = 192;
const PAGE_HEAD_SIZE: usize = 16;

/// The connections of a room, as far as it has to know them: whether they take storage entries.
///
/// An implementation keeps these rules:
///
/// 1. What was reserved on a connection and not given back is bounded, but for a reservation that
///    was made when there was no other.
/// 2. A reservation ends once: the room [releases](Self::release) it, or it sends an entry of that
///    [size](entry_size), and it ends when the entry is on its way.
/// 3. A room that was refused is told [`RoomInput::Writable`](super::RoomInput::Writable) when
///    there is room again for half of what may be reserved, whoever was refused first before the
///    others, and what it wanted is not given to them until it has come. It may be told so without
///    a reason.
pub trait Outlets: Send + Sync {
    /// Reserves so many bytes on a connection; false if there is no room for them now.
    fn reserve(&self, conn: ConnId, size: usize) -> bool;

    /// Gives back what was reserved and is not needed.
    fn release(&self, conn: ConnId, size: usize);

    /// Whether nothing waits on a connection, so that it may be told what may be left out too.
    fn is_idle(&self, conn: ConnId) -> bool;
}

/// What has to be reserved for a part of an entry.
#[must_use]
pub fn entry_size(part: &EntryPart) -> usize {
    HEAD_SIZE + size_of_pages(&part.pages)
}

/// Bytes of pages as they travel.
pub(super) fn size_of_pages(pages: &[CodedPage]) -> usize {
    pages.iter().map(|page| PAGE_HEAD_SIZE + page.size()).sum()
}

/// Bytes that a part takes of the memory of who has received it.
#[must_use]
pub fn received_size(part: &EntryPart) -> usize {
    HEAD_SIZE + part.pages.len() * (PAGE_SIZE + PAGE_HEAD_SIZE)
}

/// The most of an entry with so many pages, in parts of `part_pages_max`.
pub(super) const fn size_of_entry(pages_count: usize, part_pages_max: usize) -> usize {
    let parts_count = if pages_count == 0 { 1 } else { pages_count.div_ceil(part_pages_max) };
    parts_count * HEAD_SIZE + pages_count * (PAGE_SIZE + PAGE_HEAD_SIZE)
}

/// A room is told that there is room when half of it is free, and what it asks for then has to fit:
/// else a document waits for as long as another one on the connection is busy.
const _: () = {
    let Limits { catch_up_pages, catch_up_pages_max, message_pages_max, .. } = Limits::DEFAULT;
    assert!(catch_up_pages <= catch_up_pages_max);
    let size_max = size_of_entry(catch_up_pages_max, message_pages_max);
    assert!(size_max <= CONNECTION_ENTRIES_SIZE_MAX / 2);
};
