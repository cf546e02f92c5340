//! What the store holds, as a fold over the frames of its log.

use std::collections::{BTreeMap, VecDeque};

use tidelog_journal::{FoundFrame, FrameHead, LogFile};
use tidelog_types::{CallId, DocumentKey, Epoch, JournalId, Lsn, LsnRange, Pgid, Position};

use crate::extents::Extents;
use crate::kind::{Kind, PageList, TableEntry, decode_calls, decode_key};
use crate::page_file::Slot;
use crate::pool::PoolKey;

/// All documents of a store and where their pages lie.
///
/// Whatever changes it is first a frame, and [`apply`](Self::apply) is the only way in: so what
/// was built while running and what is built at opening cannot differ.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub epoch: Epoch,
    pub documents: BTreeMap<u64, StoredDocument>,
    pub numbers: BTreeMap<DocumentKey, u64>,
    pub extents: Extents,
    next_number: u64,
    next_incarnation: u64,
    /// Slots that the page file had when the log was opened: no table may speak of more.
    slots_max: u32,
}

#[derive(Debug)]
pub(crate) struct StoredDocument {
    pub key: DocumentKey,
    pub record: Vec<u8>,
    pub timeline: Option<StoredTimeline>,
    pub storage: Option<Position>,
    pub db_pages: u32,
    pub pages: BTreeMap<Pgid, PageEntry>,
    /// Calls of storage entries, and of timeline entries that were trimmed, oldest first.
    pub calls: VecDeque<(CallId, Lsn)>,
    /// Of its storage journal: a number that no other one has had since the store was opened.
    pub incarnation: u64,
}

/// A timeline: its entries stay in the log, and only where is known here.
#[derive(Debug)]
pub(crate) struct StoredTimeline {
    pub journal: JournalId,
    pub start: Lsn,
    pub entries: VecDeque<StoredEntry>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredEntry {
    pub call: CallId,
    /// Offset of its frame in the active log file.
    pub frame: u64,
}

impl StoredTimeline {
    pub fn range(&self) -> LsnRange {
        LsnRange::new(self.start, self.start.plus(self.entries.len() as u64))
    }
}

/// Where the newest version of a page lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageEntry {
    pub lsn: Lsn,
    pub checksum: u32,
    /// The slot that it has in the page file, where an older version may lie.
    pub slot: Option<Slot>,
    /// Where its bytes begin in the active log file; 0 if the newest version lies in the slot.
    pub log: u64,
}

impl PageEntry {
    pub fn place(&self, incarnation: u64, pgid: Pgid, active: LogFile) -> PagePlace {
        let at = match self.slot {
            Some(slot) if self.log == 0 => PageAt::Slot(slot),
            _ => PageAt::Log(active, self.log),
        };
        let key = PoolKey { incarnation, pgid, lsn: self.lsn };
        PagePlace { key, checksum: self.checksum, at }
    }
}

/// One version of a page and where it lies, for as long as the log does not change over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PagePlace {
    pub key: PoolKey,
    pub checksum: u32,
    pub at: PageAt,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum PageAt {
    Log(LogFile, u64),
    Slot(Slot),
}

impl StoredDocument {
    fn new(key: DocumentKey, incarnation: u64) -> Self {
        Self {
            key,
            record: Vec::new(),
            timeline: None,
            storage: None,
            db_pages: 0,
            pages: BTreeMap::new(),
            calls: VecDeque::new(),
            incarnation,
        }
    }

    /// Where the newest version of a page lies, `None` if it is not here.
    pub fn place(&self, pgid: Pgid, active: LogFile) -> Option<PagePlace> {
        self.pages.get(&pgid).map(|entry| entry.place(self.incarnation, pgid, active))
    }
}

impl Catalog {
    /// An empty one, for a page file of this many slots.
    pub fn new(slots_max: u32) -> Self {
        Self { slots_max, next_number: 1, next_incarnation: 1, ..Self::default() }
    }

    pub fn get(&self, key: &DocumentKey) -> Option<&StoredDocument> {
        self.documents.get(self.numbers.get(key)?)
    }

    /// The number of this document, or the one that it would be given.
    pub fn number_for(&self, key: &DocumentKey) -> u64 {
        self.numbers.get(key).copied().unwrap_or(self.next_number)
    }

    /// Takes one frame into account. Of a body of pages it looks only at the list.
    ///
    /// # Errors
    ///
    /// What is impossible about the frame.
    pub fn apply(&mut self, frame: &FoundFrame<'_>) -> Result<(), String> {
        let head = &frame.head;
        let kind = Kind::of(head.kind).ok_or_else(|| format!("no such kind: {}", head.kind))?;
        match kind {
            Kind::Epoch => self.epoch = self.epoch.max(head.epoch),
            Kind::Document => self.create(head.document, frame.body)?,
            Kind::Destroy => self.destroy(head.document)?,
            Kind::StorageBegin => self.begin_storage(head)?,
            Kind::StoragePages | Kind::StorageEntry => self.add_pages(kind, frame)?,
            Kind::PageTable => self.take_table(head.document, frame.body)?,
            _ => self.document(head.document)?.apply(kind, frame)?,
        }
        Ok(())
    }

    fn document(&mut self, number: u64) -> Result<&mut StoredDocument, String> {
        self.documents.get_mut(&number).ok_or_else(|| format!("no document {number}"))
    }

    fn new_incarnation(&mut self) -> u64 {
        self.next_incarnation += 1;
        self.next_incarnation
    }

    fn create(&mut self, number: u64, body: &[u8]) -> Result<(), String> {
        let key = decode_key(body).ok_or("a document without a name")?;
        if self.documents.contains_key(&number) || self.numbers.contains_key(&key) {
            return Err(format!("document {number} begins twice"));
        }
        let incarnation = self.new_incarnation();
        self.numbers.insert(key.clone(), number);
        self.documents.insert(number, StoredDocument::new(key, incarnation));
        self.next_number = self.next_number.max(number.saturating_add(1));
        Ok(())
    }

    fn destroy(&mut self, number: u64) -> Result<(), String> {
        let gone = self.documents.remove(&number).ok_or("an unknown document destroyed")?;
        self.numbers.remove(&gone.key);
        for slot in gone.pages.values().filter_map(|entry| entry.slot) {
            self.extents.release(slot);
        }
        Ok(())
    }

    fn begin_storage(&mut self, head: &FrameHead) -> Result<(), String> {
        let incarnation = self.new_incarnation();
        let document = self.document(head.document)?;
        document.incarnation = incarnation;
        document.storage = Some(Position::start_of(head.journal));
        document.db_pages = 0;
        let pages = std::mem::take(&mut document.pages);
        for slot in pages.values().filter_map(|entry| entry.slot) {
            self.extents.release(slot);
        }
        Ok(())
    }

    fn add_pages(&mut self, kind: Kind, frame: &FoundFrame<'_>) -> Result<(), String> {
        let head = &frame.head;
        let list = PageList::decode(frame.body).ok_or("a list of pages cut short")?;
        let documents = &mut self.documents;
        let document = documents.get_mut(&head.document).ok_or("pages of no document")?;
        let range = head.lsns.filter(|range| !range.is_empty()).ok_or("an entry nowhere")?;
        let position = document.storage.ok_or("an entry before its journal")?;
        if position.journal != head.journal || position.next != range.start() {
            return Err(format!("an entry at {range} where {position} is"));
        }
        let lsn = Lsn::new(range.end().get() - 1).ok_or("an entry nowhere")?;
        for (index, (pgid, checksum)) in list.pages.iter().enumerate() {
            if pgid.0 == 0 || pgid.0 > list.db_pages {
                return Err(format!("page {pgid} of {}", list.db_pages));
            }
            let log = frame.place.body + list.page_at(index) as u64;
            let slot = document.pages.get(pgid).and_then(|entry| entry.slot);
            let entry = PageEntry { lsn, checksum: *checksum, slot, log };
            document.pages.insert(*pgid, entry);
        }
        if kind == Kind::StoragePages {
            return Ok(());
        }
        let Position { journal, .. } = position;
        document.storage = Some(Position { journal, next: range.end(), chain: head.chain });
        document.db_pages = list.db_pages;
        if let Some(call) = head.call {
            document.calls.push_back((call, range.start()));
        }
        if let Some(first_gone) = list.db_pages.checked_add(1) {
            let dropped = document.pages.split_off(&Pgid(first_gone));
            for slot in dropped.values().filter_map(|entry| entry.slot) {
                self.extents.release(slot);
            }
        }
        Ok(())
    }

    fn take_table(&mut self, number: u64, body: &[u8]) -> Result<(), String> {
        let entries = TableEntry::decode_all(body).ok_or("a page table cut short")?;
        let slots_max = self.slots_max;
        let db_pages = self.document(number)?.db_pages;
        for entry in entries {
            let TableEntry { pgid, slot, checksum, lsn } = entry;
            if slot.number() > slots_max || !self.extents.claim(slot, number, db_pages) {
                return Err(format!("page {pgid} in slot {}", slot.number()));
            }
            let entry = PageEntry { lsn, checksum, slot: Some(slot), log: 0 };
            self.document(number)?.pages.insert(pgid, entry);
        }
        Ok(())
    }
}

impl StoredDocument {
    /// The kinds of frames that concern nothing but this document.
    fn apply(&mut self, kind: Kind, frame: &FoundFrame<'_>) -> Result<(), String> {
        let head = &frame.head;
        let place = || head.lsns.map(LsnRange::start).ok_or("a frame without an LSN");
        match kind {
            Kind::Record => self.record = frame.body.to_vec(),
            Kind::TimelineBegin => {
                let entries = VecDeque::new();
                self.timeline =
                    Some(StoredTimeline { journal: head.journal, start: place()?, entries });
            }
            Kind::TimelineEntry => {
                let lsn = place()?;
                let timeline = self.timeline_of(head)?;
                if timeline.range().end() != lsn {
                    return Err(format!("entry {lsn} behind {}", timeline.range()));
                }
                let call = head.call.ok_or("a timeline entry without a call")?;
                timeline.entries.push_back(StoredEntry { call, frame: frame.place.frame });
            }
            Kind::TimelineTrim => {
                let floor = place()?;
                let timeline = self.timeline_of(head)?;
                let range = timeline.range();
                if floor < range.start() || floor > range.end() {
                    return Err(format!("{range} trimmed before {floor}"));
                }
                let mut trimmed = Vec::new();
                while timeline.start < floor {
                    let entry = timeline.entries.pop_front().expect("BUG: trimmed past its end");
                    trimmed.push((entry.call, timeline.start));
                    timeline.start = timeline.start.next();
                }
                self.calls.extend(trimmed);
            }
            Kind::StorageAt => {
                let db_pages = frame.body.try_into().map_err(|_| "a size cut short")?;
                self.db_pages = u32::from_le_bytes(db_pages);
                self.storage =
                    Some(Position { journal: head.journal, next: place()?, chain: head.chain });
            }
            Kind::Calls => {
                self.calls.extend(decode_calls(frame.body).ok_or("a call cut short")?);
            }
            _ => unreachable!("BUG: it concerns more than the document"),
        }
        Ok(())
    }

    fn timeline_of(&mut self, head: &FrameHead) -> Result<&mut StoredTimeline, String> {
        let timeline = self.timeline.as_mut().filter(|it| it.journal == head.journal);
        timeline.ok_or_else(|| format!("no timeline {}", head.journal))
    }
}
