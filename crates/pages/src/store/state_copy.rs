//! Writing a state into the other log file, in slices.

use tidelog_disk::Disk;
use tidelog_journal::{DocumentNumber, FoundFrame, FrameHead, Log};
use tidelog_types::{Lsn, LsnRange, Pgid};

use crate::catalog::Catalog;
use crate::error::StoreError;
use crate::frame_body::{
    Kind, TABLE_FRAME_ENTRIES, encode_append_id, encode_calls, encode_key, encode_storage_at,
};

/// What comes next of the first document that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Its name, its record, its last append, its calls and the begin of its timeline.
    Head,
    /// Its timeline's entries from this index on.
    Timeline(usize),
    /// Its storage journal's position.
    Storage,
    /// Its page table from this page on.
    Pages(Pgid),
}

/// How far the copying of a state has come. Documents that are copied leave the catalog.
#[derive(Debug)]
pub(super) struct StateCopy {
    part: Part,
    /// Calls of a document that are copied, the newest ones.
    calls_max: usize,
}

/// Where frames go: into the other log file, and into the catalog of what is in it.
struct Copier<'a, D> {
    log: &'a mut Log<D>,
    next: &'a mut Catalog,
    /// Bytes of frames that may still be copied in this slice.
    left: u64,
}

impl<D: Disk> Copier<'_, D> {
    fn copy(&mut self, head: FrameHead, body: &[u8]) -> Result<(), StoreError> {
        let head = FrameHead { nth: self.next.nth(head.document), ..head };
        let place = self.log.copy(&head, &[body])?;
        self.next.apply_copied(&FoundFrame { place, head, body });
        let size = tidelog_journal::FRAME_HEADER_SIZE_MAX + body.len();
        self.left = self.left.saturating_sub(size as u64);
        Ok(())
    }
}

impl StateCopy {
    /// Begins to copy the state of `folded`.
    pub fn begin<D: Disk>(
        log: &mut Log<D>,
        folded: &Catalog,
        next: &mut Catalog,
        calls_max: usize,
    ) -> Result<Self, StoreError> {
        let head = FrameHead::new(Kind::Epoch as u8, DocumentNumber(0), folded.epoch);
        Copier { log, next, left: 0 }.copy(head, &[])?;
        Ok(Self { part: Part::Head, calls_max })
    }

    /// Copies about `size` bytes. Answers whether anything is left.
    pub fn slice<D: Disk>(
        &mut self,
        log: &mut Log<D>,
        folded: &mut Catalog,
        next: &mut Catalog,
        size: u64,
    ) -> Result<bool, StoreError> {
        let mut copier = Copier { log, next, left: size };
        while copier.left > 0 {
            let Some(number) = folded.documents.keys().next().copied() else { return Ok(false) };
            match self.copy_part(&mut copier, folded, number)? {
                Some(part) => self.part = part,
                None => {
                    let copied = folded.documents.remove(&number).expect("BUG: it is the first");
                    folded.numbers.remove(&copied.key);
                    self.part = Part::Head;
                }
            }
        }
        Ok(true)
    }

    /// Copies one part of a document. Gives the part that comes next, if there is one.
    fn copy_part<D: Disk>(
        &self,
        copier: &mut Copier<'_, D>,
        folded: &Catalog,
        number: DocumentNumber,
    ) -> Result<Option<Part>, StoreError> {
        let head = |kind: Kind| FrameHead::new(kind as u8, number, folded.epoch);
        let document = &folded.documents[&number];
        match self.part {
            Part::Head => {
                copier.copy(head(Kind::Document), &encode_key(&document.key))?;
                let record = document.read_record(copier.log)?;
                if !record.is_empty() {
                    copier.copy(head(Kind::Record), &record)?;
                }
                if let Some(id) = document.handed {
                    copier.copy(head(Kind::Handed), &encode_append_id(id))?;
                }
                let calls = document.latest_calls(copier.log, self.calls_max)?;
                if !calls.is_empty() {
                    copier.copy(head(Kind::Calls), &encode_calls(calls.iter()))?;
                }
                let Some(timeline) = &document.timeline else { return Ok(Some(Part::Storage)) };
                let lsns = Some(LsnRange::empty_at(timeline.start));
                let journal = timeline.journal;
                copier.copy(FrameHead { journal, lsns, ..head(Kind::TimelineBegin) }, &[])?;
                Ok(Some(Part::Timeline(0)))
            }
            Part::Timeline(index) => {
                let timeline = document.timeline.as_ref().expect("BUG: it was begun");
                let Some(entry) = timeline.entries.get(index) else {
                    return Ok(Some(Part::Storage));
                };
                let (head, body) = copier.log.read_frame(copier.log.frame_at(entry.frame))?;
                copier.copy(head, &body)?;
                Ok(Some(Part::Timeline(index + 1)))
            }
            Part::Storage => {
                let Some(position) = document.storage else { return Ok(None) };
                let (journal, chain) = (position.journal, position.chain);
                let begun = Lsn::new(document.begun).expect("BUG: it was counted");
                let lsns = Some(LsnRange::empty_at(begun));
                copier.copy(FrameHead { journal, lsns, ..head(Kind::StorageBegin) }, &[])?;
                let lsns = Some(LsnRange::empty_at(position.next));
                let at = FrameHead { journal, lsns, chain, ..head(Kind::StorageAt) };
                copier.copy(at, &encode_storage_at(document.db_pages, position.life))?;
                Ok(Some(Part::Pages(Pgid(1))))
            }
            Part::Pages(first) => {
                let journal = document.storage.expect("BUG: it was copied").journal;
                let mut body = Vec::new();
                let mut last = None;
                for entry in
                    document.pages.checkpointed_from(first).iter().take(TABLE_FRAME_ENTRIES)
                {
                    entry.encode(&mut body);
                    last = Some(entry.pgid);
                }
                let Some(last) = last else { return Ok(None) };
                copier.copy(FrameHead { journal, ..head(Kind::PageTable) }, &body)?;
                Ok(last.0.checked_add(1).map(|next| Part::Pages(Pgid(next))))
            }
        }
    }
}
