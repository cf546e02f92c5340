//! The checkpoint, which is the change-over from one log file to the other. `FORMAT.md` says why
//! it can be cut short anywhere.

use std::collections::BTreeMap;

use tidelog_disk::{Disk, FlushId};
use tidelog_journal::FrameHead;
use tidelog_types::limits::{CALLS_KEPT_MAX, PAGE_SIZE};
use tidelog_types::{LsnRange, Pgid, Position};

use crate::catalog::{PageEntry, StoredDocument};
use crate::error::Fault;
use crate::kind::{Kind, TABLE_FRAME_ENTRIES, TableEntry, encode_calls, encode_key};
use crate::page_file::Slot;
use crate::store::Store;

/// Pages written to the page file with one write, where they lie side by side.
const RUN_PAGES: usize = 64;

/// How far a change-over has come.
#[derive(Debug)]
pub(crate) struct ChangeOver {
    stage: Stage,
    /// Where the timeline entries of each document stand in the new log file.
    frames: BTreeMap<u64, Vec<u64>>,
}

/// What it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The active log, whole.
    Log,
    /// The pages that were written.
    Pages(FlushId),
    /// The state that was copied.
    Copy(FlushId),
    /// The seal.
    Seal(FlushId),
}

impl<D: Disk> Store<D> {
    /// Whether the log has grown long enough.
    pub fn wants_change_over(&self) -> bool {
        self.change_over.is_none() && self.log.size() >= self.change_over_at
    }

    /// Begins a change-over. All that was committed is written; nothing may be appended until it
    /// ends.
    pub fn begin_change_over(&mut self) -> Result<(), Fault> {
        assert!(self.change_over.is_none(), "BUG: two change-overs at once");
        self.log.request_flush()?;
        self.change_over = Some(ChangeOver { stage: Stage::Log, frames: BTreeMap::new() });
        Ok(())
    }

    /// Goes on until it has to wait for a flush. Answers whether the change-over has ended, done
    /// or given up because the device is full.
    pub fn advance(&mut self) -> Result<bool, Fault> {
        loop {
            let Some(stage) = self.change_over.as_ref().map(|it| it.stage) else {
                return Ok(true);
            };
            let next = match self.pass(stage) {
                Ok(None) => return Ok(false),
                Ok(Some(next)) => next,
                // Once sealed, which file is the active one is settled by a flush and nothing
                // else.
                Err(fault) if fault.is_full() && !matches!(stage, Stage::Copy(_)) => {
                    self.give_up();
                    return Ok(true);
                }
                Err(fault) => return Err(fault),
            };
            match (next, self.change_over.as_mut()) {
                (Some(next), Some(change_over)) => change_over.stage = next,
                _ => {
                    self.switch();
                    return Ok(true);
                }
            }
        }
    }

    /// Does what comes after `stage` if what it waits for is flushed; `Some(None)` is the end.
    fn pass(&mut self, stage: Stage) -> Result<Option<Option<Stage>>, Fault> {
        Ok(Some(match stage {
            Stage::Log => {
                self.log.poll_flushed()?;
                if !self.log.is_settled() {
                    return Ok(None);
                }
                self.write_pages()?;
                Some(Stage::Pages(self.pages.request_flush()?))
            }
            Stage::Pages(id) => {
                if !self.pages.is_flushed(id)? {
                    return Ok(None);
                }
                self.log.begin_copy()?;
                self.copy_state()?;
                Some(Stage::Copy(self.log.finish_copy()?))
            }
            Stage::Copy(id) => {
                if !self.log.is_copy_flushed(id)? {
                    return Ok(None);
                }
                Some(Stage::Seal(self.log.seal()?))
            }
            Stage::Seal(id) => {
                if !self.log.is_copy_flushed(id)? {
                    return Ok(None);
                }
                None
            }
        }))
    }

    fn give_up(&mut self) {
        self.log.abort_copy();
        self.change_over = None;
        self.change_over_at = self.log.size() + self.options.log_size_max / 4;
    }

    /// Gives every page in the log a slot, and writes it there.
    fn write_pages(&mut self) -> Result<(), Fault> {
        let active = self.log.active();
        let mut places = Vec::new();
        for (number, document) in &mut self.catalog.documents {
            let StoredDocument { db_pages, pages, incarnation, .. } = document;
            for (pgid, entry) in pages.iter_mut().filter(|(_, entry)| entry.log != 0) {
                let new = || self.catalog.extents.allocate(*number, *db_pages);
                let slot = *entry.slot.get_or_insert_with(new);
                places.push((slot, entry.place(*incarnation, *pgid, active)));
            }
        }
        self.pages.prepare(self.catalog.extents.count())?;
        places.sort_unstable_by_key(|(slot, _)| *slot);
        let mut run: Option<(Slot, Vec<u8>)> = None;
        for (slot, place) in &places {
            let follows = run.as_ref().is_some_and(|(first, bytes)| {
                let count = bytes.len() / PAGE_SIZE;
                count < RUN_PAGES && first.number() as usize + count == slot.number() as usize
            });
            if !follows && let Some((first, bytes)) = run.take() {
                self.pages.write(first, &bytes)?;
            }
            let (_, bytes) = run.get_or_insert_with(|| (*slot, Vec::new()));
            let start = bytes.len();
            bytes.resize(start + PAGE_SIZE, 0);
            self.read_page(place, &mut bytes[start..])?;
        }
        if let Some((first, bytes)) = run {
            self.pages.write(first, &bytes)?;
        }
        Ok(())
    }

    /// Copies into the other log file all that is still needed.
    fn copy_state(&mut self) -> Result<(), Fault> {
        let epoch = self.catalog.epoch;
        self.log.copy(&FrameHead::new(Kind::Epoch as u8, 0, epoch), &[])?;
        let numbers: Vec<u64> = self.catalog.documents.keys().copied().collect();
        for number in numbers {
            let frames = self.copy_timeline(number)?;
            self.copy_document(number)?;
            let change_over = self.change_over.as_mut().expect("BUG: one is going on");
            change_over.frames.insert(number, frames);
        }
        Ok(())
    }

    /// Copies a document's name, record, calls and timeline. Gives the new places of the entries.
    fn copy_timeline(&mut self, number: u64) -> Result<Vec<u64>, Fault> {
        let head = |kind: Kind| FrameHead::new(kind as u8, number, self.catalog.epoch);
        let document = &self.catalog.documents[&number];
        self.log.copy(&head(Kind::Document), &[&encode_key(&document.key)])?;
        if !document.record.is_empty() {
            self.log.copy(&head(Kind::Record), &[&document.record])?;
        }
        let forgotten = document.calls.len().saturating_sub(CALLS_KEPT_MAX);
        if !document.calls.is_empty() {
            let calls = encode_calls(document.calls.iter().skip(forgotten));
            self.log.copy(&head(Kind::Calls), &[&calls])?;
        }
        let Some(timeline) = &document.timeline else { return Ok(Vec::new()) };
        let lsns = Some(LsnRange::empty_at(timeline.start));
        let begin = FrameHead { journal: timeline.journal, lsns, ..head(Kind::TimelineBegin) };
        self.log.copy(&begin, &[])?;
        let mut frames = Vec::with_capacity(timeline.entries.len());
        for entry in &timeline.entries {
            let (head, body) = self.log.read_frame(entry.frame)?;
            frames.push(self.log.copy(&head, &[&body])?.frame);
        }
        Ok(frames)
    }

    /// Copies the storage position and the page table of a document.
    fn copy_document(&mut self, number: u64) -> Result<(), Fault> {
        let head = |kind: Kind| FrameHead::new(kind as u8, number, self.catalog.epoch);
        let document = &self.catalog.documents[&number];
        let Some(Position { journal, next, chain }) = document.storage else { return Ok(()) };
        self.log.copy(&FrameHead { journal, ..head(Kind::StorageBegin) }, &[])?;
        let lsns = Some(LsnRange::empty_at(next));
        let at = FrameHead { journal, lsns, chain, ..head(Kind::StorageAt) };
        self.log.copy(&at, &[&document.db_pages.to_le_bytes()])?;
        let mut pages = document.pages.iter().map(table_entry);
        loop {
            let mut body = Vec::new();
            pages.by_ref().take(TABLE_FRAME_ENTRIES).for_each(|entry| entry.encode(&mut body));
            if body.is_empty() {
                return Ok(());
            }
            self.log.copy(&FrameHead { journal, ..head(Kind::PageTable) }, &[&body])?;
        }
    }

    /// The new log is sealed: go over to it.
    fn switch(&mut self) {
        let change_over = self.change_over.take().expect("BUG: one is going on");
        self.log.switch();
        for (number, frames) in change_over.frames {
            let document = self.catalog.documents.get_mut(&number).expect("BUG: it was copied");
            if let Some(timeline) = &mut document.timeline {
                assert!(timeline.entries.len() == frames.len(), "BUG: appended meanwhile");
                for (entry, frame) in timeline.entries.iter_mut().zip(frames) {
                    entry.frame = frame;
                }
            }
            document.pages.values_mut().for_each(|entry| entry.log = 0);
            let forgotten = document.calls.len().saturating_sub(CALLS_KEPT_MAX);
            document.calls.drain(..forgotten);
        }
        self.catalog.extents.settle();
        self.change_over_at = self.options.log_size_max.max(2 * self.log.state_size());
    }
}

fn table_entry((pgid, entry): (&Pgid, &PageEntry)) -> TableEntry {
    let slot = entry.slot.expect("BUG: every page was given a slot");
    TableEntry { pgid: *pgid, slot, checksum: entry.checksum, lsn: entry.lsn }
}
