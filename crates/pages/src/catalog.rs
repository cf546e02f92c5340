//! What the store holds, as a fold over the frames of its log.

use std::collections::BTreeMap;

use tidelog_journal::{DocumentNumber, Found, FoundFrame, FrameHead};
use tidelog_types::{Budget, DocumentKey, Epoch, SortedMap};

use crate::document::{Standing, StoredDocument};
use crate::extents::Extents;
use crate::frame_body::{Kind, PageList, TableEntry, decode_key};
use crate::page_table::PageTable;

/// All documents of a store and where their pages lie.
///
/// Whatever changes it is first a frame, and [`apply`](Self::apply) is the only way in: so what
/// was built while running, what a change-over builds and what is built at opening cannot differ.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub epoch: Epoch,
    pub documents: BTreeMap<DocumentNumber, StoredDocument>,
    pub numbers: BTreeMap<DocumentKey, DocumentNumber>,
    pub extents: Extents,
    /// Bytes of log that all documents take at most once a change-over has copied them.
    kept: u64,
    next_number: DocumentNumber,
    /// Slots that the page file had when the log was opened: no table may speak of more.
    slots_max: u32,
    /// Whether frames are lost.
    is_damaged: bool,
    /// Documents of which frames were found and their names were not.
    pub nameless: SortedMap<DocumentNumber, ()>,
}

impl Catalog {
    /// An empty one, for a page file of this many slots. That has room for the pages in the log:
    /// they are not given slots behind its end while there are others.
    pub fn new(slots_max: u32) -> Self {
        let extents = Extents::within(slots_max);
        Self { slots_max, next_number: DocumentNumber(1), extents, ..Self::default() }
    }

    pub fn get(&self, key: &DocumentKey) -> Option<&StoredDocument> {
        self.documents.get(self.numbers.get(key)?)
    }

    /// The number of this document, or the one that it would be given.
    pub fn number_for(&self, key: &DocumentKey) -> DocumentNumber {
        self.numbers.get(key).copied().unwrap_or(self.next_number)
    }

    /// The count that the next frame of a document has to carry.
    pub fn nth(&self, number: DocumentNumber) -> u64 {
        match self.documents.get(&number) {
            Some(document) => document.frames + 1,
            None => u64::from(number != DocumentNumber::NONE),
        }
    }

    /// Takes into account what a reader of the log found. Bodies of pages must be complete.
    ///
    /// # Errors
    ///
    /// What is impossible about it.
    pub fn take_in(&mut self, found: Found<'_>) -> Result<(), String> {
        let frame = match found {
            Found::Frame(frame) => frame,
            Found::Lost { head, body, .. } => return self.lose(head, body),
        };
        let kind = Kind::of(frame.head.kind);
        if matches!(kind, Some(Kind::StoragePages | Kind::StorageEntry)) {
            let size = PageList::decode(frame.body).map(|list| list.body_size());
            if size != Some(frame.body.len()) {
                return Err("pages cut short".to_owned());
            }
        }
        self.apply(&frame)
    }

    /// Bytes of log that all of it takes at most once a change-over has copied it.
    pub fn kept_size(&self) -> u64 {
        self.kept
    }

    /// Takes one frame into account. Of a body of pages it looks only at the list.
    ///
    /// # Errors
    ///
    /// What is impossible about the frame.
    pub fn apply(&mut self, frame: &FoundFrame<'_>) -> Result<(), String> {
        let answer = self.apply_uncounted(frame);
        if let Some(document) = self.documents.get_mut(&frame.head.document) {
            let counted = document.kept_size();
            self.kept = self.kept - document.counted + counted;
            document.counted = counted;
        }
        answer
    }

    fn apply_uncounted(&mut self, frame: &FoundFrame<'_>) -> Result<(), String> {
        let head = &frame.head;
        let kind = Kind::of(head.kind).ok_or_else(|| format!("no such kind: {}", head.kind))?;
        match kind {
            Kind::Epoch => {
                self.epoch = self.epoch.max(head.epoch);
                return Ok(());
            }
            Kind::Document => self.create(head.document, frame.body)?,
            _ => {}
        }
        if !self.count(kind, head.document, head.nth)? {
            return if kind == Kind::TakeName { self.lose_name(frame.body) } else { Ok(()) };
        }
        match kind {
            Kind::Document => {}
            Kind::Destroy => self.forget(head.document),
            Kind::StorageBegin => {
                let begun = head.lsns.ok_or("a storage journal that nobody counted")?.start();
                let gone = self.document(head.document).begin_storage(head.journal, begun.get());
                self.release(gone);
            }
            Kind::TakeName => self.take_name(head.document, frame.body)?,
            Kind::PageTable => self.take_table(head.document, frame.body)?,
            _ => {
                let document = self.documents.get_mut(&head.document);
                let document = document.expect("BUG: its frame was just counted");
                document.apply(kind, frame, &mut self.extents)?;
            }
        }
        Ok(())
    }

    /// Takes a frame into account that was just copied from an equal catalog's log.
    pub fn apply_copied(&mut self, frame: &FoundFrame<'_>) {
        self.apply(frame).expect("BUG: a frame was copied that cannot follow");
    }

    fn document(&mut self, number: DocumentNumber) -> &mut StoredDocument {
        self.documents.get_mut(&number).expect("BUG: its frame was just counted")
    }

    fn forget(&mut self, number: DocumentNumber) {
        let gone = self.documents.remove(&number).expect("BUG: no such document");
        self.kept -= gone.counted;
        self.numbers.remove(&gone.key);
        self.release(gone.pages);
    }

    /// The document has this name from now on; the one that had it is forgotten.
    fn take_name(&mut self, number: DocumentNumber, body: &[u8]) -> Result<(), String> {
        let key = decode_key(body).ok_or("a document without a name")?;
        match self.numbers.get(&key).copied() {
            Some(before) if before == number => return Err(format!("{key} has its name already")),
            Some(before) => self.forget(before),
            None => {}
        }
        let former = std::mem::replace(&mut self.document(number).key, key.clone());
        self.numbers.remove(&former);
        self.numbers.insert(key, number);
        Ok(())
    }

    /// Frees the slots of pages that nobody asks for any more.
    fn release(&mut self, gone: PageTable) {
        gone.slots().for_each(|slot| self.extents.release(slot));
    }

    fn create(&mut self, number: DocumentNumber, body: &[u8]) -> Result<(), String> {
        let key = decode_key(body).ok_or("a document without a name")?;
        if self.is_damaged
            && let Some(before) = self.numbers.get(&key).copied()
        {
            // What said that it was destroyed is lost.
            self.forget(before);
        }
        if self.documents.contains_key(&number) || self.numbers.contains_key(&key) {
            return Err(format!("document {number} begins twice"));
        }
        self.numbers.insert(key.clone(), number);
        self.documents.insert(number, StoredDocument::new(number, key));
        self.next_number = self.next_number.max(number.next());
        Ok(())
    }

    /// Makes sure that no frame of the document was lost before its `nth`. Says whether the frame
    /// is to be used.
    fn count(&mut self, kind: Kind, number: DocumentNumber, nth: u64) -> Result<bool, String> {
        let is_destroy = kind == Kind::Destroy;
        let Some(document) = self.documents.get_mut(&number) else {
            if !self.is_damaged {
                return Err(format!("no document {number}"));
            }
            if is_destroy {
                self.nameless.remove(&number);
            } else {
                self.nameless.insert(number, ());
            }
            return Ok(false);
        };
        if nth == document.frames + 1 && document.standing != Standing::Broken {
            document.frames = nth;
            document.standing = Standing::Whole;
            return Ok(true);
        }
        if !self.is_damaged {
            return Err(format!("frame {nth} of document {number} behind {}", document.frames));
        }
        document.standing = Standing::Broken;
        // Whatever came before it.
        Ok(is_destroy)
    }

    /// A frame is lost, or nobody knows how many.
    fn lose(&mut self, head: Option<FrameHead>, body: Option<&[u8]>) -> Result<(), String> {
        self.is_damaged = true;
        if let Some(number) =
            head.map(|head| head.document).filter(|number| *number > DocumentNumber(0))
        {
            match self.documents.get_mut(&number) {
                Some(document) => document.standing = Standing::Broken,
                None => {
                    self.nameless.insert(number, ());
                }
            }
        }
        if head.is_none_or(|head| head.kind == Kind::TakeName as u8) {
            match body {
                Some(body) => self.lose_name(body)?,
                None => self.doubt_all(),
            }
        }
        Ok(())
    }

    /// Whose name was taken stands in what is lost.
    fn doubt_all(&mut self) {
        let documents = self.documents.values_mut();
        documents
            .filter(|document| document.standing == Standing::Whole)
            .for_each(|document| document.standing = Standing::Doubtful);
    }

    /// A document of which frames are lost took the place of the one of this name.
    fn lose_name(&mut self, body: &[u8]) -> Result<(), String> {
        let key = decode_key(body).ok_or("a document without a name")?;
        let before = self.numbers.get(&key).and_then(|before| self.documents.get_mut(before));
        before.into_iter().for_each(|before| before.standing = Standing::Broken);
        Ok(())
    }

    fn take_table(&mut self, number: DocumentNumber, body: &[u8]) -> Result<(), String> {
        let entries = TableEntry::decode_all(body).ok_or("a page table cut short")?;
        let document = self.documents.get_mut(&number).expect("BUG: its frame was just counted");
        for entry in entries {
            let slot = entry.slot;
            let is_free = slot.number() <= self.slots_max
                && self.extents.claim(slot, number, document.db_pages);
            if !is_free || !document.add_checkpointed(entry) {
                return Err(format!("page {} in slot {}", entry.pgid, slot.number()));
            }
        }
        Ok(())
    }

    /// Goes on where an equal catalog was, whose places are in the other log file: numbers that
    /// were given out stay what they were.
    pub fn take_over(&mut self, before: &Self) {
        assert!(
            self.documents.len() == before.documents.len(),
            "BUG: a change-over lost documents"
        );
        if cfg!(debug_assertions) {
            self.check_against(before);
        }
        self.next_number = before.next_number;
    }

    /// Makes sure that a change-over has changed nothing. It takes as long as there are documents.
    fn check_against(&self, before: &Self) {
        assert!(self.numbers == before.numbers, "BUG: a change-over changed the documents");
        let timeline =
            |it: &StoredDocument| it.timeline.as_ref().map(|it| (it.journal, it.range()));
        for (document, before) in self.documents.values().zip(before.documents.values()) {
            let is_same = document.storage == before.storage
                && document.begun == before.begun
                && document.unended == before.unended
                && document.db_pages == before.db_pages
                && timeline(document) == timeline(before);
            assert!(is_same, "BUG: a change-over changed document {}", document.number);
        }
    }

    /// Forgets some of what it holds, which nobody asks for any more.
    pub fn forget_some(&mut self, budget: &mut Budget) {
        while !budget.is_spent() {
            let Some((_, document)) = self.documents.pop_first() else { break };
            self.numbers.remove(&document.key);
            budget.spend_steps(1);
            budget.spend_bytes(document.size() as u64);
        }
    }
}
