//! The checkpoint, which is the change-over from one log file to the other: in slices, while
//! everybody works. `FORMAT.md` says why it can be cut short anywhere.
//!
//! It reads the old log up to a point as a reader at opening would, writes that state into the
//! page file and the other log file, and then copies what was appended behind the point. So it
//! shares nothing with the catalog of the running store but the files.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeInclusive};

use tidelog_disk::{Disk, FlushId};
use tidelog_journal::{BatchPart, DocumentNumber, Found, FoundFrame, FrameHead, LOG_START, Log};
use tidelog_types::Budget;
use tidelog_types::limits::{LOG_AGE_MS_MAX, PAGE_SIZE};
use tidelog_types::probe::{Probe, reached};

use super::Store;
use super::state_copy::StateCopy;
use crate::catalog::Catalog;
use crate::error::StoreError;
use crate::page_file::Slot;
use crate::page_table::entries_of;
use crate::place::PagePlace;
use crate::space::Space;

/// Bytes that are read or written in one slice, unless a host wants smaller ones, or more than that
/// is appended meanwhile.
const SLICE_SIZE: u64 = 256 * 1024;
/// Bytes that are written before they are flushed: one flush of everything would hold up those of
/// others.
const FLUSH_SIZE: u64 = 1024 * 1024;
/// Pages written to the page file with one write, where they lie side by side.
const RUN_PAGES: usize = 64;
/// Bytes that the other log file has at least beside those of the copied state: on a full device a
/// change-over makes room, and needs some itself, with the reserve behind it.
const STATE_RESERVE_SIZE: u64 = 192 * 1024;
/// Bytes that the other log file keeps at least beside what would be copied now. Less than
/// [`STATE_RESERVE_SIZE`], so that it does not grow for each append.
const KEPT_RESERVE_SIZE: u64 = 176 * 1024;
/// After which time one is tried again for the age of the log.
const TRIED_AGAIN_MS: u64 = 60 * 60 * 1000;
/// How often what was appended meanwhile is copied and flushed before batches are held.
const ROUNDS_MAX: u32 = 3;

/// The change-over that goes on, if one does, and when the next is due.
#[derive(Debug)]
pub(crate) struct ChangeOvers {
    current: Option<ChangeOver>,
    /// Size of the log at which the next one begins.
    next_at: u64,
    /// Whether what the files do not need any more was given back to the device.
    is_shed: bool,
    /// Whether the other log file has only part of the room that it shall have.
    is_growing: bool,
    /// Sizes that the other log file shall have: the most that the device has room for, or the
    /// least.
    wanted: RangeInclusive<u64>,
    /// Size that it has by now, or has to be wanted before growing it is tried again.
    enough: u64,
    /// Whether the device lacked room for the most since the last change-over: the least will do.
    is_tight: bool,
    /// Whether the files were not looked at yet since the store was opened.
    is_first: bool,
    /// When one was given up last.
    given_up_ms: u64,
    /// Size that it was given last, or had when the store was opened.
    given: u64,
    /// What was known before the last one, or before something was taken back, forgotten a piece at
    /// a time.
    former: Catalog,
}

/// How far a change-over has come.
#[derive(Debug)]
struct ChangeOver {
    stage: Stage,
    /// The state is that of the old log up to here.
    point: u64,
    /// How far the old log has been read.
    read: u64,
    /// What the old log says up to there, and from the stage of the pages on with new slots.
    folded: Catalog,
    /// What the new log says as far as it is written.
    next: Catalog,
    /// Size of the old log at the last slice.
    log_size: u64,
    rounds: u32,
    /// Bytes written since a flush of them was asked for.
    unflushed: u64,
    /// Whether it waits for a flush, or for reads.
    is_waiting: bool,
}

#[derive(Debug)]
enum Stage {
    /// The old log is read up to the point.
    Fold,
    /// Waits until the old log is durable up to the point, and nobody reads from a slot that may
    /// be overwritten.
    Quiesce,
    /// Every page in the log becomes the one of its slot: of the documents up to this number that
    /// is done.
    Slots { done: DocumentNumber, places: BTreeMap<Slot, PagePlace> },
    /// Pages are written to their slots, in the order of these.
    Pages(BTreeMap<Slot, PagePlace>),
    /// The pages in their slots are flushed.
    PagesFlush(FlushId),
    /// The header of the other log file is flushed: so its generation is not used again.
    Begin(FlushId),
    /// The rest of the state is written into the other log file.
    State(StateCopy),
    /// What was appended behind the point is copied.
    Tail,
    /// All that was copied is flushed.
    TailFlush(FlushId),
    /// Batches are held, and what was appended during that is copied.
    LastTail,
    /// The copies of the last tail are flushed.
    LastFlush(FlushId),
    /// The seal is flushed.
    Seal(FlushId),
}

/// What came of one step.
#[derive(Debug)]
enum Step {
    /// Hardly anything was done; goes on with this stage.
    Next(Stage),
    /// Did one slice; `Some(next)` if this stage is finished.
    Slice(Option<Stage>),
    /// There is nothing to be done now.
    Wait,
    /// The seal is flushed.
    Sealed,
}

impl ChangeOvers {
    /// For a store that was just opened.
    pub fn of<D: Disk>(store: &Store<D>) -> Self {
        let (next_at, former) = (usual_size(store), Catalog::default());
        Self {
            current: None,
            next_at,
            is_shed: false,
            is_growing: false,
            wanted: 0..=0,
            enough: 0,
            is_tight: false,
            is_first: true,
            given_up_ms: 0,
            given: store.log.other_size(),
            former,
        }
    }

    /// Whether one goes on.
    pub fn is_going_on(&self) -> bool {
        self.current.is_some()
    }

    /// Whether the log has grown long enough for the next, or is old.
    pub fn is_due<D: Disk>(&self, store: &Store<D>) -> bool {
        let is_idle = self.current.is_none() && !store.log.is_damaged();
        let can_begin = is_idle && store.may_write();
        let is_long = store.log.size() >= self.next_at || store.space.wants_change_over();
        can_begin && (is_long || self.is_old(store))
    }

    /// Nobody asks for anything: the next one is due if the log is longer than it is to rest with.
    pub fn rest<D: Disk>(&mut self, store: &Store<D>) {
        let size_max = store.options.log_rest_size_max.max(2 * store.log.state_size());
        if store.log.size() >= size_max && self.may_try_again(store) {
            self.next_at = self.next_at.min(store.log.size());
        }
    }

    /// Whether none was given up lately. Of a host that knows no time none is tried again.
    fn may_try_again<D: Disk>(&self, store: &Store<D>) -> bool {
        // The clock may have been set back.
        let since_ms = store.log.now_ms().abs_diff(self.given_up_ms);
        since_ms >= TRIED_AGAIN_MS
    }

    /// Whether the log has kept for long what was appended to it: what was overwritten meanwhile is
    /// in there still. Of one that has only what was copied into it nothing would go.
    fn is_old<D: Disk>(&self, store: &Store<D>) -> bool {
        let now_ms = store.log.now_ms();
        now_ms > 0
            && now_ms.abs_diff(store.begun_ms) >= LOG_AGE_MS_MAX
            && self.may_try_again(store)
            && store.log.written_size() > store.log.state_size()
    }

    /// Whether there is something to do for one that goes on or has ended, without any flush
    /// completing or read ending.
    pub fn can_advance(&self) -> bool {
        let is_left = self.is_growing || !self.former.documents.is_empty();
        is_left || self.current.as_ref().is_some_and(|change_over| !change_over.is_waiting)
    }

    /// Begins one, where all that was appended is written. Everything goes on as before.
    pub fn begin<D: Disk>(&mut self, store: &mut Store<D>) -> Result<(), StoreError> {
        assert!(self.current.is_none(), "BUG: two change-overs at once");
        assert!(store.written() == store.committed(), "BUG: a change-over amid what is appended");
        store.log.request_flush()?;
        store.readers.begin_era();
        store.space.begun();
        store.bases_from = store.log.written_size();
        self.is_growing = false;
        self.current = Some(ChangeOver {
            stage: Stage::Fold,
            point: store.log.written_size(),
            read: LOG_START,
            folded: Catalog::new(store.pages.slots()),
            next: Catalog::default(),
            log_size: store.log.size(),
            rounds: 0,
            unflushed: 0,
            is_waiting: false,
        });
        Ok(())
    }

    /// Does a slice of the one that goes on, if there is one. Answers whether it has ended: then
    /// what was appended last may have to be written and flushed.
    pub fn advance<D: Disk>(&mut self, store: &mut Store<D>) -> Result<bool, StoreError> {
        let Some(mut change_over) = self.current.take() else { return Ok(false) };
        // What is left shrinks though appends go on.
        let appended = store.log.size().saturating_sub(change_over.log_size);
        change_over.log_size = store.log.size();
        let size = SLICE_SIZE.min(store.options.limits.slice.bytes).max(2 * appended);
        match change_over.advance(store, size) {
            Ok(true) => {
                reached(Probe::ChangedOver);
                self.former = change_over.switch(store)?;
                self.next_at = usual_size(store);
                self.is_shed = false;
                self.is_tight = false;
                Ok(true)
            }
            Ok(false) => {
                self.current = Some(change_over);
                Ok(false)
            }
            // Once sealed, which file is the active one is decided by a flush and nothing else.
            Err(error) if error.is_full() && !change_over.is_sealing() => {
                reached(Probe::ChangeOverGivenUp);
                let next_at = store.log.size() + store.options.log_size_max / 4;
                store.space.given_up();
                self.give_up(store, next_at);
                Ok(true)
            }
            // What is damaged cannot be copied. Everything else goes on, and the device may read
            // the place again: each try reads all of a log that grows by its share in between.
            Err(StoreError::Damaged { .. }) if !change_over.is_sealing() => {
                let size = store.log.size();
                let next_at = size + size.max(store.options.log_size_max) / 4;
                self.give_up(store, next_at);
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives up the current one, if there is one, for good: the files are gone.
    pub fn stop<D: Disk>(&mut self, store: &mut Store<D>) {
        if self.current.take().is_some() {
            self.give_up(store, u64::MAX);
        }
    }

    /// Nobody asks for this any more.
    pub fn forget(&mut self, former: Catalog) {
        self.former = former;
    }

    /// Goes on with that. Answers whether all of it is forgotten.
    pub fn go_on_forgetting(&mut self, budget: &mut Budget) -> bool {
        self.former.forget_some(budget);
        self.former.documents.is_empty()
    }

    /// The current one cannot go on; the next is begun once the log is this large.
    fn give_up<D: Disk>(&mut self, store: &mut Store<D>, next_at: u64) {
        store.log.abort_copy();
        self.given_up_ms = store.log.now_ms();
        self.next_at = next_at;
        self.is_shed = false;
    }

    /// Gives back what the last change-over has left: memory, and room on the device, or room that
    /// it has taken in vain, once nobody reads there.
    ///
    /// Whoever `waits` for the first thing that is done after an opening does not wait for that.
    pub fn shed<D: Disk>(&mut self, store: &mut Store<D>, waits: bool) -> Result<(), StoreError> {
        self.go_on_forgetting(&mut Budget::new(store.options.limits.slice));
        if self.lacks_room(store) {
            self.is_shed = false;
        }
        let is_idle = self.current.is_none() && !store.log.is_damaged();
        let is_known = is_idle && store.log.is_found_durable();
        if is_known && !self.is_shed && !store.readers.has_earlier() {
            if !self.is_growing {
                self.wanted = self.sizes_of_other(store);
            }
            if std::mem::take(&mut self.is_first) && waits {
                self.is_growing = true;
                return Ok(());
            }
            let piece_size = SLICE_SIZE.min(store.options.limits.slice.bytes);
            self.is_growing = !store.log.resize_other(&self.wanted, piece_size)?;
            if self.is_growing {
                return Ok(());
            }
            self.note_given(store.log.other_size());
            reached(Probe::FilesShed);
            store.pages.shed(store.catalog.extents.slots())?;
            self.is_shed = true;
        }
        Ok(())
    }

    /// The other log file has this size now, and gets no more for the time being.
    fn note_given(&mut self, given: u64) {
        self.given = given;
        self.is_tight |= given < *self.wanted.end();
        let least = *self.wanted.start();
        // Where not even that fits, it is not tried for each append: each try writes all that fits.
        self.enough = if given >= least { given } else { least + least / 8 };
    }

    /// Whether more is kept by now than the other log file has room for.
    fn lacks_room<D: Disk>(&self, store: &Store<D>) -> bool {
        store.space.is_plenty() && with_blocks(kept_size(store)) + KEPT_RESERVE_SIZE > self.enough
    }

    /// Sizes that the other log file is to have. Where something found no room, it gets no more
    /// than it had before a change-over was tried, and keeps that.
    fn sizes_of_other<D: Disk>(&self, store: &Store<D>) -> RangeInclusive<u64> {
        let (least, most) = (least_size_for(kept_size(store)), size_for(kept_size(store)));
        if !store.space.is_plenty() {
            let size = self.given.clamp(least_size_for(store.log.state_size()), most);
            least.min(size)..=size
        } else if self.is_tight {
            least..=least
        } else {
            least..=most
        }
    }

    /// Whether the current one waits for reads that began before it did, and has done so for long.
    pub fn is_held_up_by_reads<D: Disk>(&self, store: &mut Store<D>) -> bool {
        let is_quiescing = matches!(&self.current, Some(it) if matches!(it.stage, Stage::Quiesce));
        is_quiescing
            && store.log.size() >= self.next_at.saturating_mul(2)
            && store.readers.has_earlier()
    }
}

/// Size of the log at which a change-over begins, if there is room for it to grow.
fn usual_size<D: Disk>(store: &Store<D>) -> u64 {
    store.options.log_size_max.max(2 * store.log.state_size())
}

/// Bytes that the other log file would have at most if all that is kept by now were copied, and at
/// least those of what was copied into this one.
fn kept_size<D: Disk>(store: &Store<D>) -> u64 {
    store.log.state_size().max(LOG_START + store.catalog.kept_size())
}

/// Size of the other log file that is enough for a change-over that copies so much.
fn least_size_for(copied: u64) -> u64 {
    with_blocks(copied) + STATE_RESERVE_SIZE
}

/// Bytes that copying takes with what its writes leave empty: each has its blocks for itself. There
/// is one for 256 KiB, and one more before each flush, that is about 20 KiB for a MiB.
fn with_blocks(copied: u64) -> u64 {
    copied + copied / 32
}

/// Size of the other log file, with room for a change-over that copies so much, and for more.
fn size_for(copied: u64) -> u64 {
    least_size_for(copied).max(2 * copied)
}

impl ChangeOver {
    fn is_sealing(&self) -> bool {
        matches!(self.stage, Stage::LastFlush(_) | Stage::Seal(_))
    }

    /// Goes on until a slice is done, or there is nothing to be done now. Answers whether the seal
    /// is flushed.
    fn advance<D: Disk>(&mut self, store: &mut Store<D>, size: u64) -> Result<bool, StoreError> {
        loop {
            let step = self.step(store, size)?;
            self.is_waiting = matches!(step, Step::Wait);
            match step {
                Step::Next(stage) => self.stage = stage,
                Step::Slice(next) => {
                    if let Some(next) = next {
                        self.stage = next;
                    }
                    return Ok(false);
                }
                Step::Wait => return Ok(false),
                Step::Sealed => return Ok(true),
            }
        }
    }

    fn step<D: Disk>(&mut self, store: &mut Store<D>, size: u64) -> Result<Step, StoreError> {
        Ok(match &mut self.stage {
            Stage::Fold => self.fold(&store.log, size)?,
            Stage::Quiesce => {
                store.log.poll_flushed()?;
                let has_readers = store.readers.has_earlier();
                if has_readers {
                    reached(Probe::ChangeOverWaitedForReads);
                }
                if store.log.durable_size() < self.point || has_readers {
                    return Ok(Step::Wait);
                }
                Step::Next(Stage::Slots { done: DocumentNumber::NONE, places: BTreeMap::new() })
            }
            Stage::Slots { done, places } => {
                if assign_slots(&mut self.folded, &store.log, done, places, size) {
                    return Ok(Step::Slice(None));
                }
                let places = std::mem::take(places);
                if let Some((last, _)) = places.last_key_value() {
                    store.pages.prepare(last.number())?;
                }
                Step::Slice(Some(Stage::Pages(places)))
            }
            Stage::Pages(places) => {
                let written = write_pages(store, places, size)?;
                let is_last = places.is_empty();
                if !self.is_flush_due(written) && !is_last {
                    return Ok(Step::Slice(None));
                }
                let id = store.pages.request_flush()?;
                Step::Slice(is_last.then_some(Stage::PagesFlush(id)))
            }
            Stage::PagesFlush(id) => {
                if !store.pages.is_flushed(*id)? {
                    return Ok(Step::Wait);
                }
                store.log.begin_copy()?;
                Step::Next(Stage::Begin(store.log.flush_copy()?))
            }
            Stage::Begin(id) => {
                if !store.log.is_copy_flushed(*id)? {
                    return Ok(Step::Wait);
                }
                self.next = Catalog::new(store.pages.slots());
                let copy = StateCopy::begin(
                    &mut store.log,
                    &self.folded,
                    &mut self.next,
                    store.options.limits.calls_kept_max,
                )?;
                Step::Next(Stage::State(copy))
            }
            Stage::State(copy) => {
                let is_left = copy.slice(&mut store.log, &mut self.folded, &mut self.next, size)?;
                if !is_left {
                    store.log.end_state()?;
                }
                if self.is_flush_due(size) {
                    store.log.flush_copy()?;
                }
                Step::Slice((!is_left).then_some(Stage::Tail))
            }
            Stage::Tail => {
                self.copy_tail(store, size)?;
                let is_little = store.log.written_size() - self.read < SLICE_SIZE;
                if !self.is_flush_due(size) && !is_little {
                    return Ok(Step::Slice(None));
                }
                let id = store.log.flush_copy()?;
                Step::Slice(is_little.then_some(Stage::TailFlush(id)))
            }
            Stage::TailFlush(id) => {
                if !store.log.is_copy_flushed(*id)? {
                    return Ok(Step::Wait);
                }
                // Who records an append in slices is polled until all of it is there.
                if store.log.is_amid_parts() {
                    return Ok(Step::Wait);
                }
                self.rounds += 1;
                if store.log.written_size() - self.read >= SLICE_SIZE && self.rounds < ROUNDS_MAX {
                    return Ok(Step::Next(Stage::Tail));
                }
                store.write()?;
                store.log.hold();
                Step::Next(Stage::LastTail)
            }
            Stage::LastTail => {
                self.copy_tail(store, size)?;
                if self.read < store.log.written_size() {
                    return Ok(Step::Slice(None));
                }
                Step::Next(Stage::LastFlush(store.log.flush_copy()?))
            }
            Stage::LastFlush(id) => {
                if !store.log.is_copy_flushed(*id)? {
                    return Ok(Step::Wait);
                }
                Step::Next(Stage::Seal(store.log.seal()?))
            }
            Stage::Seal(id) => {
                if !store.log.is_copy_flushed(*id)? {
                    return Ok(Step::Wait);
                }
                Step::Sealed
            }
        })
    }

    /// Whether enough was written to be flushed, after a slice of so many bytes.
    fn is_flush_due(&mut self, size: u64) -> bool {
        self.unflushed += size;
        let is_due = self.unflushed >= FLUSH_SIZE;
        self.unflushed = if is_due { 0 } else { self.unflushed };
        is_due
    }

    /// Reads a slice of the old log.
    fn fold<D: Disk>(&mut self, log: &Log<D>, size: u64) -> Result<Step, StoreError> {
        let folded = &mut self.folded;
        let mut answer = Ok(());
        let mut visit = |frame: FoundFrame<'_>, _| {
            if answer.is_ok() {
                answer = folded.take_in(Found::Frame(frame));
            }
        };
        self.read = log.read_from(self.read, self.point, to_usize(size), &mut visit)?;
        answer.expect("BUG: the log says what cannot be");
        Ok(Step::Slice((self.read == self.point).then_some(Stage::Quiesce)))
    }

    /// Copies a slice of what was appended to the old log behind the point.
    fn copy_tail<D: Disk>(&mut self, store: &mut Store<D>, size: u64) -> Result<(), StoreError> {
        let slots = store.pages.slots();
        let log = &mut store.log;
        let end = log.written_size();
        self.next.extents.keep_within(slots);
        let mut left = size;
        while self.read < end && left > 0 {
            // What is in memory at once is bounded, however much there is to be copied.
            let piece = left.min(SLICE_SIZE);
            let mut frames: Vec<(FrameHead, Vec<u8>, BatchPart)> = Vec::new();
            let mut visit = |frame: FoundFrame<'_>, part| {
                frames.push((frame.head, frame.body.to_vec(), part));
            };
            let read = log.read_from(self.read, end, to_usize(piece), &mut visit)?;
            for (head, body, part) in frames {
                let head = FrameHead { nth: self.next.nth(head.document), ..head };
                let place = log.copy_part(&head, &[&body], part)?;
                self.next.apply_copied(&FoundFrame { place, head, body: &body });
            }
            left = left.saturating_sub(read - self.read);
            self.read = read;
        }
        Ok(())
    }

    /// The new log is sealed: goes over to it, with what was appended while batches were held.
    /// Gives what was known before.
    fn switch<D: Disk>(mut self, store: &mut Store<D>) -> Result<Catalog, StoreError> {
        // Where the file cannot grow, a large document takes the slots that small ones have left.
        if !store.pages.is_tight() {
            self.next.extents.let_grow();
        }
        for frame in store.log.switch()? {
            let (head, body) = (frame.head, frame.body);
            let head = FrameHead { nth: self.next.nth(head.document), ..head };
            let place = store.log.push(&head, &[&body]);
            self.next.apply_copied(&FoundFrame { place, head, body: &body });
            if frame.ends_batch {
                store.log.commit();
            }
        }
        self.next.take_over(&store.catalog);
        store.readers.begin_era();
        store.bases_from = 0;
        store.begun_ms = store.log.begun_ms();
        store.space = Space::Plenty;
        Ok(std::mem::replace(&mut store.catalog, self.next))
    }
}

/// Makes every page in the log the one of its slot, of the documents behind `done`, until that has
/// taken about as long as `size` bytes. Answers whether there are more.
fn assign_slots<D: Disk>(
    folded: &mut Catalog,
    log: &Log<D>,
    done: &mut DocumentNumber,
    places: &mut BTreeMap<Slot, PagePlace>,
    size: u64,
) -> bool {
    let mut left = to_usize(size);
    for (number, document) in folded.documents.range_mut((Bound::Excluded(*done), Bound::Unbounded))
    {
        if left == 0 {
            return true;
        }
        let cost = document.size();
        // Of one that is larger than a slice, a slice.
        let (moved, is_all) = document.pages.checkpoint(entries_of(left));
        left = left.saturating_sub(cost);
        let moved = moved.into_iter();
        places.extend(moved.map(|(slot, page)| (slot, document.place_of(page, log.active()))));
        if !is_all {
            return true;
        }
        *done = *number;
    }
    false
}

/// Writes pages to their slots, at least one, of which about `size` bytes are read in pieces that
/// count as pages. Answers with the bytes written.
fn write_pages<D: Disk>(
    store: &mut Store<D>,
    places: &mut BTreeMap<Slot, PagePlace>,
    size: u64,
) -> Result<u64, StoreError> {
    let mut left = to_usize(size / PAGE_SIZE as u64).max(1);
    let mut written = 0;
    while left > 0
        && let Some((&first, _)) = places.first_key_value()
    {
        let mut run: Vec<PagePlace> = Vec::new();
        while run.len() < RUN_PAGES
            && left > 0
            && let Some(entry) = places.first_entry()
            && entry.key().number() as usize == first.number() as usize + run.len()
        {
            left = left.saturating_sub(entry.get().reads_count());
            run.push(entry.remove());
        }
        let pages = store.read_pages(&run)?;
        store.pages.write(first, &pages)?;
        written += run.len() * PAGE_SIZE;
    }
    Ok(written as u64)
}

fn to_usize(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}
