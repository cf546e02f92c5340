//! The checkpoint, which is the change-over from one log file to the other: in slices, while
//! everybody works. `FORMAT.md` says why it can be cut short anywhere.
//!
//! It reads the old log up to a point as a reader at opening would, writes that state into the
//! page file and the other log file, and then copies what was appended behind the point. So it
//! shares nothing with the catalog of the running store but the files.

use std::collections::VecDeque;

use tidelog_disk::{Disk, FlushId};
use tidelog_journal::{BatchPart, Found, FoundFrame, FrameHead, LOG_START, Log};
use tidelog_types::probe::{Probe, reached};

use super::Store;
use super::state_copy::StateCopy;
use crate::catalog::Catalog;
use crate::error::Fault;
use crate::page_file::Slot;
use crate::place::PagePlace;
use crate::space::Space;

/// Bytes that are read or written in one slice, unless more than that is appended meanwhile.
const SLICE_SIZE: u64 = 256 * 1024;
/// Bytes that are written before they are flushed: one flush of everything would hold up those of
/// others.
const FLUSH_SIZE: u64 = 1024 * 1024;
/// Pages written to the page file with one write, where they lie side by side.
const RUN_PAGES: usize = 64;
/// Bytes that the other log file has at least: on a full device a change-over makes room, and needs
/// some itself.
const STATE_RESERVE_SIZE: u64 = 64 * 1024;
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
    Settle,
    /// Pages are written to their slots.
    Pages(VecDeque<(Slot, PagePlace)>),
    /// They are flushed.
    PagesFlush(FlushId),
    /// The header of the other log file is flushed: so its generation is not used again.
    Begin(FlushId),
    /// The rest of the state is written into the other log file.
    State(StateCopy),
    /// What was appended behind the point is copied.
    Tail,
    /// All that was copied is flushed.
    TailFlush(FlushId),
    /// What was appended during that is flushed; batches are held.
    LastFlush(FlushId),
    /// The seal is flushed.
    Seal(FlushId),
}

/// What came of one step.
#[derive(Debug)]
enum Step {
    /// Hardly anything was done, and this is next.
    Next(Stage),
    /// A slice was done, and this is next if there is no more of the same.
    Slice(Option<Stage>),
    /// There is nothing to be done now.
    Wait,
    /// The seal is flushed.
    Sealed,
}

impl ChangeOvers {
    /// For a store that was just opened.
    pub fn of<D: Disk>(store: &Store<D>) -> Self {
        Self { current: None, next_at: usual_size(store), is_shed: false }
    }

    /// Whether one goes on.
    pub fn is_going_on(&self) -> bool {
        self.current.is_some()
    }

    /// Whether the log has grown long enough for the next.
    pub fn is_due<D: Disk>(&self, store: &Store<D>) -> bool {
        let is_idle = self.current.is_none() && !store.log.is_damaged();
        is_idle && (store.log.size() >= self.next_at || store.space.wants_change_over())
    }

    /// Whether there is something to do for one that goes on, without any flush completing or
    /// read ending.
    pub fn can_advance(&self) -> bool {
        self.current.as_ref().is_some_and(|change_over| !change_over.is_waiting)
    }

    /// Begins one. Everything goes on as before.
    pub fn begin<D: Disk>(&mut self, store: &mut Store<D>) -> Result<(), Fault> {
        assert!(self.current.is_none(), "BUG: two change-overs at once");
        store.log.request_flush()?;
        store.readers.begin_era();
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
    pub fn advance<D: Disk>(&mut self, store: &mut Store<D>) -> Result<bool, Fault> {
        let Some(mut change_over) = self.current.take() else { return Ok(false) };
        // What is left shrinks though appends go on.
        let appended = store.log.size().saturating_sub(change_over.log_size);
        change_over.log_size = store.log.size();
        let size = SLICE_SIZE.max(2 * appended);
        match change_over.advance(store, size) {
            Ok(true) => {
                reached(Probe::ChangedOver);
                change_over.switch(store)?;
                self.next_at = usual_size(store);
                self.is_shed = false;
                Ok(true)
            }
            Ok(false) => {
                self.current = Some(change_over);
                Ok(false)
            }
            // Once sealed, which file is the active one is settled by a flush and nothing else.
            Err(fault) if fault.is_full() && !change_over.is_sealing() => {
                reached(Probe::ChangeOverGivenUp);
                let next_at = store.log.size() + store.options.log_size_max / 4;
                self.give_up(store, next_at);
                Ok(true)
            }
            // What is damaged cannot be copied. Everything else goes on, with a log that grows.
            Err(Fault::Damaged { .. }) if !change_over.is_sealing() => {
                self.give_up(store, u64::MAX);
                Ok(true)
            }
            Err(fault) => Err(fault),
        }
    }

    /// The current one cannot go on; the next is begun once the log is this large.
    fn give_up<D: Disk>(&mut self, store: &mut Store<D>, next_at: u64) {
        store.log.abort_copy();
        store.space.given_up();
        self.next_at = next_at;
        self.is_shed = false;
    }

    /// Gives back room on the device that the last change-over has left, or has taken in vain, once
    /// nobody reads there.
    pub fn shed<D: Disk>(&mut self, store: &mut Store<D>) -> Result<(), Fault> {
        let is_idle = self.current.is_none() && !store.log.is_damaged();
        let is_known = is_idle && store.log.is_found_durable();
        if is_known && !self.is_shed && !store.readers.has_earlier() {
            reached(Probe::FilesShed);
            store.log.resize_other(STATE_RESERVE_SIZE.max(2 * store.log.state_size()))?;
            store.pages.shed(store.catalog.extents.count())?;
            self.is_shed = true;
        }
        Ok(())
    }

    /// Whether the current one waits for reads that began before it did, and has done so for long.
    pub fn is_held_up_by_reads<D: Disk>(&self, store: &mut Store<D>) -> bool {
        let settles = matches!(&self.current, Some(it) if matches!(it.stage, Stage::Settle));
        settles && store.log.size() >= self.next_at.saturating_mul(2) && store.readers.has_earlier()
    }
}

/// Size of the log at which a change-over begins, if there is room for it to grow.
fn usual_size<D: Disk>(store: &Store<D>) -> u64 {
    store.options.log_size_max.max(2 * store.log.state_size())
}

impl ChangeOver {
    fn is_sealing(&self) -> bool {
        matches!(self.stage, Stage::LastFlush(_) | Stage::Seal(_))
    }

    /// Goes on until a slice is done, or there is nothing to be done now. Answers whether the seal
    /// is flushed.
    fn advance<D: Disk>(&mut self, store: &mut Store<D>, size: u64) -> Result<bool, Fault> {
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

    fn step<D: Disk>(&mut self, store: &mut Store<D>, size: u64) -> Result<Step, Fault> {
        Ok(match &mut self.stage {
            Stage::Fold => self.fold(&store.log, size)?,
            Stage::Settle => {
                store.log.poll_flushed()?;
                let has_readers = store.readers.has_earlier();
                if has_readers {
                    reached(Probe::ChangeOverWaitedForReads);
                }
                if store.log.durable_size() < self.point || has_readers {
                    return Ok(Step::Wait);
                }
                let places = self.assign_slots(&store.log);
                if !places.is_empty() {
                    store.pages.prepare(self.folded.extents.count())?;
                }
                Step::Next(Stage::Pages(places))
            }
            Stage::Pages(places) => {
                write_pages(store, places, size)?;
                let is_last = places.is_empty();
                if !self.is_flush_due(size) && !is_last {
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
                self.copy_tail(&mut store.log, size)?;
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
                self.rounds += 1;
                if store.log.written_size() - self.read >= SLICE_SIZE && self.rounds < ROUNDS_MAX {
                    return Ok(Step::Next(Stage::Tail));
                }
                store.log.write()?;
                store.log.hold();
                self.copy_tail(&mut store.log, u64::MAX)?;
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

    /// Whether enough was written to be flushed, after a slice of about `size` bytes.
    fn is_flush_due(&mut self, size: u64) -> bool {
        self.unflushed += size;
        let is_due = self.unflushed >= FLUSH_SIZE;
        self.unflushed = if is_due { 0 } else { self.unflushed };
        is_due
    }

    /// Reads a slice of the old log.
    fn fold<D: Disk>(&mut self, log: &Log<D>, size: u64) -> Result<Step, Fault> {
        let folded = &mut self.folded;
        let mut answer = Ok(());
        let mut visit = |frame: FoundFrame<'_>, _| {
            if answer.is_ok() {
                answer = folded.take_in(Found::Frame(frame));
            }
        };
        self.read = log.read_from(self.read, self.point, to_usize(size), &mut visit)?;
        answer.expect("BUG: the log says what cannot be");
        Ok(Step::Slice((self.read == self.point).then_some(Stage::Settle)))
    }

    /// Gives every page in the log a slot. Gives their places, in the order of the slots.
    fn assign_slots<D: Disk>(&mut self, log: &Log<D>) -> VecDeque<(Slot, PagePlace)> {
        let mut places = Vec::new();
        let Catalog { documents, extents, .. } = &mut self.folded;
        for (number, document) in documents {
            let db_pages = document.db_pages;
            let moved = document.pages.checkpoint(|| extents.allocate(*number, db_pages));
            let moved = moved.into_iter();
            places.extend(moved.map(|(slot, page)| (slot, document.place_of(page, log.active()))));
        }
        places.sort_unstable_by_key(|(slot, _)| *slot);
        places.into()
    }

    /// Copies a slice of what was appended to the old log behind the point.
    fn copy_tail<D: Disk>(&mut self, log: &mut Log<D>, size: u64) -> Result<(), Fault> {
        let end = log.written_size();
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
    fn switch<D: Disk>(mut self, store: &mut Store<D>) -> Result<(), Fault> {
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
        store.catalog = self.next;
        store.readers.begin_era();
        store.space = Space::Plenty;
        Ok(())
    }
}

/// Writes pages to their slots, of at least one run and of about `size` bytes.
fn write_pages<D: Disk>(
    store: &mut Store<D>,
    places: &mut VecDeque<(Slot, PagePlace)>,
    size: u64,
) -> Result<(), Fault> {
    let mut written = 0;
    while written < size
        && let Some((first, _)) = places.front().copied()
    {
        let mut run: Vec<PagePlace> = Vec::new();
        while run.len() < RUN_PAGES
            && let Some((slot, place)) = places.front()
            && slot.number() as usize == first.number() as usize + run.len()
        {
            run.push(*place);
            places.pop_front();
        }
        let run = store.read_pages(&run)?;
        store.pages.write(first, &run)?;
        written += run.len() as u64;
    }
    Ok(())
}

fn to_usize(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}
