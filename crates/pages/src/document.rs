//! One document as the store knows it.

use std::collections::VecDeque;

use tidelog_disk::Disk;
use tidelog_journal::{
    DocumentNumber, FRAME_HEADER_SIZE_MAX, FoundFrame, FrameHead, Log, LogFile, frame_size_max,
};
use tidelog_types::{CallId, Chain, DocumentKey, JournalId, Life, Lsn, LsnRange, Pgid, Position};

use crate::error::StoreError;
use crate::extents::Extents;
use crate::frame_body::{
    CALL_SIZE, Kind, ListedPage, PageList, TableEntry, decode_append_id, decode_calls, decode_life,
    decode_storage_at,
};
use crate::heads::Heads;
use crate::page_table::{Lies, PageTable, PageVersion};
use crate::place::{PageAt, PagePlace, Piece};
use crate::pool::PoolKey;
use crate::protocol::AppendId;

/// Calls in one frame from which on they are read from there.
const MANY_CALLS: usize = 16;
/// About how many bytes of memory a document takes without its pages.
const DOCUMENT_SIZE: usize = 512;
/// Bytes of log at most of what there is one of: frames without their bodies, and small bodies.
const FIXED_SIZE: usize = 9 * FRAME_HEADER_SIZE_MAX;

#[derive(Debug)]
pub(crate) struct StoredDocument {
    /// Its number in this store.
    pub number: DocumentNumber,
    pub key: DocumentKey,
    /// `None` if there are no notes.
    pub record: Option<StoredRecord>,
    pub timeline: Option<StoredTimeline>,
    /// The last append that put something in the place of something else.
    pub handed: Option<AppendId>,
    pub storage: Option<Position>,
    /// The LSNs of its next entry, if a part of that is there.
    pub unended: Option<LsnRange>,
    pub db_pages: u32,
    pub pages: PageTable,
    /// The storage entries that are still in the log.
    pub history: History,
    /// Calls of storage entries, and of timeline entries that were trimmed, oldest first.
    pub calls: Vec<StoredCalls>,
    /// How many of them there are, those that are forgotten at the next change-over included.
    calls_count: usize,
    /// How often a storage journal was begun for it: this one's pages are told by that from those
    /// of the ones before.
    pub begun: u64,
    /// How many of its frames were found in the log file.
    pub frames: u64,
    /// Its [`kept_size`](Self::kept_size) at the last count.
    pub counted: u64,
    pub standing: Standing,
}

/// What damage to the log means for a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Every frame of it is there.
    Whole,
    /// Frames are lost, and none found behind them says that they were not its own.
    Doubtful,
    /// Frames of it are lost: what was found behind them is not used.
    Broken,
}

/// The owner's notes about a document: they stay in the log, and only where is known here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredRecord {
    /// Offset of its frame in the active log file.
    frame: u64,
    size: usize,
    checksum: u32,
}

impl StoredRecord {
    /// Whether it is worth a look if these are the same notes.
    pub fn is_likely(&self, record: &[u8]) -> bool {
        self.size == record.len() && self.checksum == crc32c::crc32c(record)
    }
}

/// A call and its LSN, or many of them, which stay in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StoredCalls {
    One(CallId, Lsn),
    /// Those of the frame at this offset of the active log file.
    Many {
        frame: u64,
        count: usize,
    },
}

impl StoredCalls {
    fn count(self) -> usize {
        match self {
            Self::One(..) => 1,
            Self::Many { count, .. } => count,
        }
    }
}

/// A timeline: its entries stay in the log, and only where is known here.
#[derive(Debug)]
pub(crate) struct StoredTimeline {
    pub journal: JournalId,
    pub start: Lsn,
    pub entries: VecDeque<StoredEntry>,
    /// Bytes of their frames.
    size: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredEntry {
    pub call: CallId,
    /// Offset of its frame in the active log file.
    pub frame: u64,
    /// Bytes of its body.
    size: u32,
}

impl StoredTimeline {
    pub fn range(&self) -> LsnRange {
        LsnRange::new(self.start, self.start.plus(self.entries.len() as u64))
    }

    /// The entry at an LSN, unless it is trimmed or not there yet.
    pub fn held(&self, lsn: Lsn) -> Option<&StoredEntry> {
        let index = lsn.get().checked_sub(self.start.get())?;
        self.entries.get(usize::try_from(index).ok()?)
    }
}

/// The storage entries of a document that are still in the log, in order.
#[derive(Debug)]
pub(crate) struct History {
    /// Where the storage journal stood before the first of them; behind an entry that goes on, if a
    /// part of it lies in its slots.
    start: Lsn,
    pub entries: VecDeque<LoggedEntry>,
    /// Calls of an entry that has not been seen yet.
    pending: Vec<StoredCalls>,
}

/// A storage entry in the log.
#[derive(Clone, Debug)]
pub(crate) struct LoggedEntry {
    pub range: LsnRange,
    pub chain: Chain,
    /// Who wrote it.
    pub life: Life,
    pub db_pages: u32,
    pub calls: Vec<StoredCalls>,
}

impl History {
    fn starting_at(start: Lsn) -> Self {
        Self { start, entries: VecDeque::new(), pending: Vec::new() }
    }

    /// The LSNs that they stand for.
    pub fn range(&self) -> LsnRange {
        let end = self.entries.back().map_or(self.start, |entry| entry.range.end());
        LsnRange::new(self.start, end)
    }

    /// How many of them lie before an LSN; `None` if the journal never stood there as far as is
    /// known: it is before the start, behind the end or amid those that one entry stands for.
    pub fn count_before(&self, lsn: Lsn) -> Option<usize> {
        let count = self.entries.partition_point(|entry| entry.range.end() <= lsn);
        let end = count.checked_sub(1).map_or(self.start, |last| self.entries[last].range.end());
        (end == lsn).then_some(count)
    }
}

impl StoredDocument {
    /// About how many bytes of memory it takes, the same on every machine.
    pub fn size(&self) -> usize {
        DOCUMENT_SIZE + self.pages.size()
    }

    /// How many bytes of log it takes at most once a change-over has copied it.
    pub fn kept_size(&self) -> u64 {
        let name = self.key.document.len() + self.key.user.len();
        let record = self.record.map_or(0, |record| record.size);
        let calls = self.calls_count * CALL_SIZE;
        let tables = self.pages.table_size();
        let timeline = self.timeline.as_ref().map_or(0, |timeline| timeline.size);
        (FIXED_SIZE + name + record + calls + tables) as u64 + timeline
    }

    pub fn new(number: DocumentNumber, key: DocumentKey) -> Self {
        Self {
            number,
            key,
            record: None,
            timeline: None,
            handed: None,
            storage: None,
            unended: None,
            db_pages: 0,
            pages: PageTable::default(),
            history: History::starting_at(Lsn::FIRST),
            calls: Vec::new(),
            calls_count: 0,
            begun: 0,
            frames: 0,
            counted: 0,
            standing: Standing::Whole,
        }
    }

    /// Where the newest version of a page lies, `None` if it is not here.
    pub fn place(&self, pgid: Pgid, active: LogFile) -> Option<PagePlace> {
        self.pages.newest(pgid).map(|page| self.place_of(page, active))
    }

    /// Where a version of one of its pages lies.
    pub fn place_of(&self, page: PageVersion, active: LogFile) -> PagePlace {
        let PageVersion { pgid, lsn, checksum, lies } = page;
        let at = match lies {
            Lies::InLog(pieces) => PageAt::Log(active, pieces),
            Lies::InSlot(slot) => PageAt::Slot(slot),
        };
        let key = PoolKey { document: self.number, begun: self.begun, pgid, lsn };
        PagePlace { key, checksum, at }
    }

    /// Where its journals stand.
    pub fn heads(&self) -> Heads {
        let timeline = self.timeline.as_ref().map(|timeline| (timeline.journal, timeline.range()));
        Heads { timeline, storage: self.storage, unended: self.unended }
    }

    /// The position at which its storage journal stood at an LSN, as far as the log still tells.
    pub fn storage_at(&self, next: Lsn) -> Option<Position> {
        let head = self.storage?;
        if head.next == next {
            return Some(head);
        }
        let index = self.history.count_before(next)?.checked_sub(1)?;
        let LoggedEntry { chain, life, .. } = self.history.entries[index];
        Some(Position { journal: head.journal, life, next, chain })
    }

    /// The owner's notes, empty if there are none.
    pub fn read_record<D: Disk>(&self, log: &Log<D>) -> Result<Vec<u8>, StoreError> {
        self.record.map_or(Ok(Vec::new()), |record| self.read(log, record.frame, Kind::Record))
    }

    /// These calls of it, in their order.
    pub fn read_calls<D: Disk>(
        &self,
        log: &Log<D>,
        stored: &[StoredCalls],
    ) -> Result<Vec<(CallId, Lsn)>, StoreError> {
        let mut calls = Vec::with_capacity(stored.iter().map(|calls| calls.count()).sum());
        for stored in stored {
            match *stored {
                StoredCalls::One(call, lsn) => calls.push((call, lsn)),
                StoredCalls::Many { frame, .. } => {
                    let body = self.read(log, frame, Kind::Calls)?;
                    calls.extend(decode_calls(&body).ok_or_else(|| damaged(frame))?);
                }
            }
        }
        Ok(calls)
    }

    /// Its latest calls, so many of them if there are as many, oldest first.
    pub fn latest_calls<D: Disk>(
        &self,
        log: &Log<D>,
        count_max: usize,
    ) -> Result<Vec<(CallId, Lsn)>, StoreError> {
        let mut count = 0;
        let is_wanted = |calls: &&StoredCalls| {
            let is_wanted = count < count_max;
            count += calls.count();
            is_wanted
        };
        let wanted = self.calls.iter().rev().take_while(is_wanted).count();
        let mut calls = self.read_calls(log, &self.calls[self.calls.len() - wanted..])?;
        calls.drain(..calls.len().saturating_sub(count_max));
        Ok(calls)
    }

    fn read<D: Disk>(&self, log: &Log<D>, frame: u64, kind: Kind) -> Result<Vec<u8>, StoreError> {
        let (head, body) = log.read_frame(log.frame_at(frame))?;
        let is_it = head.kind == kind as u8 && head.document == self.number;
        if is_it { Ok(body) } else { Err(damaged(frame)) }
    }

    /// Begins this storage journal in place of any other one, and gives the pages of that.
    pub fn begin_storage(&mut self, journal: JournalId, begun: u64) -> PageTable {
        self.begun = begun;
        self.storage = Some(Position::start_of(journal));
        self.unended = None;
        self.db_pages = 0;
        self.history = History::starting_at(Lsn::FIRST);
        std::mem::take(&mut self.pages)
    }

    /// Takes in a frame of a kind that concerns nothing but this document.
    pub fn apply(
        &mut self,
        kind: Kind,
        frame: &FoundFrame<'_>,
        extents: &mut Extents,
    ) -> Result<(), String> {
        match kind {
            Kind::Record => {
                let (size, checksum) = (frame.body.len(), crc32c::crc32c(frame.body));
                let record = StoredRecord { frame: frame.place.frame, size, checksum };
                self.record = (size > 0).then_some(record);
            }
            Kind::Handed => {
                self.handed = Some(decode_append_id(frame.body).ok_or("an append cut short")?);
            }
            Kind::TimelineBegin | Kind::TimelineEntry | Kind::TimelineTrim => {
                self.apply_to_timeline(kind, frame)?;
            }
            Kind::StoragePages => {
                self.unended = Some(self.add_pages(frame, extents)?.0);
            }
            Kind::StorageEntry => self.add_entry(frame, extents)?,
            Kind::StorageLife => {
                let life = decode_life(frame.body).ok_or("a life cut short")?;
                let storage = self.storage.as_mut().ok_or("a life of no journal")?;
                // Of the entry that follows.
                storage.life = life;
            }
            Kind::StorageAt => {
                let (db_pages, life) = decode_storage_at(frame.body).ok_or("a state cut short")?;
                self.db_pages = db_pages;
                let (journal, chain) = (frame.head.journal, frame.head.chain);
                let next = place_of(&frame.head)?;
                self.storage = Some(Position { journal, life, next, chain });
                self.unended = None;
                self.history = History::starting_at(next);
            }
            Kind::Calls => {
                let calls = decode_calls(frame.body).ok_or("a call cut short")?;
                let stored = if calls.len() < MANY_CALLS {
                    calls.into_iter().map(|(call, lsn)| StoredCalls::One(call, lsn)).collect()
                } else {
                    vec![StoredCalls::Many { frame: frame.place.frame, count: calls.len() }]
                };
                if frame.head.lsns.is_some() {
                    // They are those of the entry that follows.
                    self.history.pending.extend(&stored);
                }
                self.note_calls(stored);
            }
            _ => unreachable!("BUG: it concerns more than the document"),
        }
        Ok(())
    }

    fn note_calls(&mut self, calls: impl IntoIterator<Item = StoredCalls>) {
        for stored in calls {
            self.calls_count += stored.count();
            self.calls.push(stored);
        }
    }

    fn apply_to_timeline(&mut self, kind: Kind, frame: &FoundFrame<'_>) -> Result<(), String> {
        let head = &frame.head;
        let (journal, place) = (head.journal, place_of(head)?);
        let mut heads = self.heads();
        match (kind, &mut self.timeline) {
            (Kind::TimelineEntry, Some(timeline)) => {
                heads.extend_timeline(journal, place)?;
                let call = head.call.ok_or("a timeline entry without a call")?;
                let size = u32::try_from(frame.body.len()).map_err(|_| "an entry of 4 GiB")?;
                timeline.entries.push_back(StoredEntry { call, frame: frame.place.frame, size });
                timeline.size += frame_size_max(frame.body.len()) as u64;
            }
            (Kind::TimelineTrim, Some(timeline)) => {
                heads.trim_timeline(journal, place)?;
                while timeline.start < place {
                    let entry = timeline.entries.pop_front().expect("BUG: trimmed past its end");
                    timeline.size -= frame_size_max(entry.size as usize) as u64;
                    self.calls.push(StoredCalls::One(entry.call, timeline.start));
                    self.calls_count += 1;
                    timeline.start = timeline.start.next();
                }
            }
            (Kind::TimelineBegin, _) => {
                heads.begin_timeline(journal, place)?;
                let entries = VecDeque::new();
                let timeline = StoredTimeline { journal, start: place, entries, size: 0 };
                self.timeline = Some(timeline);
            }
            _ => return Err(format!("no timeline {journal}")),
        }
        Ok(())
    }

    /// Takes in the pages of a frame. Gives the range of its entry, the LSN of its pages, and the
    /// size of the database after it.
    fn add_pages(
        &mut self,
        frame: &FoundFrame<'_>,
        extents: &mut Extents,
    ) -> Result<(LsnRange, Lsn, u32), String> {
        let head = &frame.head;
        let list = PageList::decode(frame.body).ok_or("a list of pages cut short")?;
        let range = head.lsns.ok_or("an entry without LSNs")?;
        let pgids = list.pages.iter().map(|page| page.pgid);
        let lsn = self.heads().pages(head.journal, range, list.db_pages, pgids)?;
        for (&ListedPage { pgid, checksum, coding, size }, at) in list.places() {
            let piece = Piece { offset: frame.place.body + at, size, coding };
            let new_slot = || extents.allocate(self.number, list.db_pages);
            if !self.pages.add(pgid, lsn, (checksum, piece), new_slot) {
                return Err(format!("page {pgid} is a difference from nothing"));
            }
        }
        Ok((range, lsn, list.db_pages))
    }

    fn add_entry(&mut self, frame: &FoundFrame<'_>, extents: &mut Extents) -> Result<(), String> {
        let (range, lsn, db_pages) = self.add_pages(frame, extents)?;
        let FrameHead { journal, chain, call, .. } = frame.head;
        let life = self.storage.map_or(Life::NONE, |position| position.life);
        self.storage = Some(Position { journal, life, next: range.end(), chain });
        self.unended = None;
        let before = std::mem::replace(&mut self.db_pages, db_pages);
        let call = call.map(|call| StoredCalls::One(call, range.start()));
        self.note_calls(call);
        self.pages.shrink(before, db_pages, lsn);
        let mut calls = std::mem::take(&mut self.history.pending);
        calls.extend(call);
        // Of one that began before the history, the log has only the end.
        if range.start() >= self.history.start {
            self.history.entries.push_back(LoggedEntry { range, chain, life, db_pages, calls });
        }
        Ok(())
    }

    /// Takes in what a checkpoint said of a page. Fails if that cannot be.
    pub fn add_checkpointed(&mut self, entry: TableEntry) -> bool {
        let unended = self.storage.filter(|position| entry.lsn >= position.next);
        if let Some(position) = unended {
            // Of an entry that goes on. What the page was before it is gone.
            let range = LsnRange::new(position.next, entry.lsn.next());
            if *self.unended.get_or_insert(range) != range {
                return false;
            }
            self.history.start = range.end();
        }
        self.pages.add_checkpointed(entry)
    }
}

fn damaged(frame: u64) -> StoreError {
    StoreError::Damaged { what: format!("the frame at {frame} of the log") }
}

fn place_of(head: &FrameHead) -> Result<Lsn, String> {
    head.lsns.map(LsnRange::start).ok_or_else(|| "a frame without an LSN".to_owned())
}
